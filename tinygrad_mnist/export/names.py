"""Names of the parameters that a model holds, or that a function can reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ..record import Primitive
from ..tensor import Array, Tensor
from ..walk import leaves

__all__ = ["parameter_names", "unchanged"]


def parameter_names(function: Callable[..., Any]) -> dict[int, str]:
    """Return the names of the arrays of a model, or of the models that a function uses, by the ids of the arrays.

    The function may be a lambda, a method, a partial function, or one that calls others of its module. Where it uses
    one model alone, names are those of `tinygrad_mnist.nn.parameters`; else they begin with the name of the variable.
    """
    holders: dict[int, tuple[str, Any]] = {}
    for name, holder in _reached("", function, set()):
        holders.setdefault(id(holder), (name, holder))
    named = []
    for name, holder in holders.values():
        with suppress(ValueError):  # of two Tensors with the same name: they stay without
            named.append((name, leaves(holder, "to_onnx")))
    named = [(name, tensors) for name, tensors in named if tensors]
    found: dict[int, str] = {}
    for name, tensors in named:
        for path, tensor in tensors.items():
            parts = [path] if path and len(named) == 1 else [name, path]
            found.setdefault(id(tensor.data), ".".join(part for part in parts if part))
    return {key: name for key, name in found.items() if name}


@contextmanager
def unchanged(function: Callable[..., Any]) -> Iterator[None]:
    """Give all that a function can reach its values and gradients back, which calls of it may change."""
    before: dict[int, tuple[Tensor, Array, Tensor | None]] = {}
    for _, holder in _reached("", function, set()):
        with suppress(ValueError):
            for tensor in leaves(holder, "to_onnx").values():
                before[id(tensor)] = tensor, np.array(tensor.data), tensor.grad
    try:
        yield
    finally:
        for tensor, values, gradient in before.values():
            if not np.array_equal(tensor.data, values, equal_nan=True):
                tensor.data = values
            tensor.grad = gradient


def _reached(name: str, value: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield the objects that a callable uses, with the names of the variables that hold them."""
    if id(value) in seen or isinstance(value, (type, ModuleType, Primitive, np.ndarray)):
        return
    seen.add(id(value))
    if isinstance(value, MethodType):
        yield from _reached(name, value.__self__, seen)
        yield from _reached(name, value.__func__, seen)
    elif isinstance(value, partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            yield from _reached(name, part, seen)
    elif isinstance(value, FunctionType):
        for own_name, part in _variables(value):
            if not isinstance(part, FunctionType) or part.__module__ == value.__module__ or not own_name:
                yield from _reached(own_name, part, seen)
    else:
        yield name, value


def _variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what the variables of a function outside of it hold; without a name where the function alone has it."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            part = cell.cell_contents
        except ValueError:  # nothing is in it yet
            continue
        yield ("" if isinstance(part, FunctionType) else name), part
    for part in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield "", part
    for name in _names(function.__code__):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that code uses, those of the functions inside of it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
