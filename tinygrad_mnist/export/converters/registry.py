"""Which function writes a primitive as ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from ...record import Primitive
from ..onnx_graph import Value

__all__ = ["CONVERTERS", "onnx_converter"]

Converter: TypeAlias = Callable[..., Value]
F = TypeVar("F", bound=Converter)

CONVERTERS: dict[Primitive[Any], Converter] = {}


def onnx_converter(op: Primitive[Any]) -> Callable[[F], F]:
    """Say how a primitive is written as ONNX nodes (a decorator): for your own primitives, and for missing ones.

    Parameters
    ----------
    op : Primitive
        Made by `tinygrad_mnist.primitive`.

    Returns
    -------
    callable
        A decorator of ``converter(graph, *inputs, **settings)``. It gets the `Graph` that is built, a `Value` or a
        number for each array argument, and the settings by name, and returns the `Value` of the result. Lengths among
        the settings are `Dim` where they depend on the number of rows.

    Examples
    --------
    >>> import numpy as np, tinygrad_mnist as tg
    >>> @tg.primitive
    ... def cube(x):
    ...     return x**3
    >>> @tg.export.onnx_converter(cube)
    ... def convert_cube(graph, x):
    ...     return graph.add("Pow", x, 3.0)
    >>> model = tg.export.to_onnx(cube, np.ones((2, 3), np.float32))
    >>> [node.op_type for node in model.graph.node]
    ['Pow']
    """
    if not isinstance(op, Primitive):
        raise TypeError(
            f"onnx_converter: op is {type(op).__name__}; pass a primitive, as tinygrad_mnist.primitive makes"
        )

    def register(converter: F) -> F:
        CONVERTERS[op] = converter
        return converter

    return register
