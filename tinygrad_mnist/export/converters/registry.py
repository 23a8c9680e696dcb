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

    Raises
    ------
    ImportError
        Without the onnx package: ``pip install 'tinygrad_mnist[onnx]'``.
    TypeError
        If `op` is no primitive.

    Notes
    -----
    ``graph.add(operator, *inputs, **attributes)`` adds a node of one of the `operators of ONNX
    <https://onnx.ai/onnx/operators>`_ and returns its result. Numbers become constants of the dtype of the first
    `Value`; arrays keep their own dtype, and lists of integers, such as axes, are ``graph.ints(0, 1)``. The result has
    the dtype of the first `Value`, unless ``dtype=`` says otherwise. ``graph.cast(x, dtype)`` converts.
    `graph.dtype` and `graph.dims` are those that the result of the primitive must have. A converter for a primitive
    that has one already takes its place. Compare the file with the primitive on a few inputs: nobody else does.

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

    With a setting, which becomes an attribute:

    >>> @tg.primitive
    ... def leaky_relu(x, *, slope):
    ...     return np.where(x > 0, x, slope * x)
    >>> @tg.export.onnx_converter(leaky_relu)
    ... def convert_leaky_relu(graph, x, slope):
    ...     return graph.add("LeakyRelu", x, alpha=slope)
    >>> model = tg.export.to_onnx(lambda x: leaky_relu(x, slope=0.1), np.ones((2, 3), np.float32))
    >>> [node.op_type for node in model.graph.node]
    ['LeakyRelu']
    """
    if not isinstance(op, Primitive):
        raise TypeError(
            f"onnx_converter: op is {type(op).__name__}; pass a primitive, as tinygrad_mnist.primitive makes"
        )

    def register(converter: F) -> F:
        CONVERTERS[op] = converter
        return converter

    return register
