"""How an op is made and recorded: `primitive` turns a function on arrays into an op that works on Tensors.

Called with a Tensor that requires a gradient, an op notes in its result what it was made from. The rules of an op, its
vector-Jacobian products (VJPs), are Tensor operations, so they can be recorded and differentiated again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, update_wrapper
from inspect import Parameter, signature
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, overload

import numpy as np
import numpy.typing as npt
from numpy import asarray  # often called: np.asarray takes 20 ns more

from . import hooks, kernels
from .arguments import NUMBERS, as_inputs, explained, holds_tensors, stacked, wrong_arguments
from .pickling import PickledByName
from .tensor import Array, Operand, Tensor, numeric, wrap

__all__ = ["Primitive", "add", "as_tensor", "astype", "broadcast_to", "no_grad", "primitive", "sum_to"]

P = ParamSpec("P")
Q = ParamSpec("Q")
Rule: TypeAlias = "Callable[..., Tensor] | None"  # (g, out, *inputs, **keywords) -> the gradient of one input


# Whether ops are recorded ---------------------------------------------------------------------------------------------
class _Mode(threading.local):
    # For each thread, so that shards on threads do not disturb each other. Traced: sums of gradients are ops, for hooks
    # that must see them.
    recording, traced = True, False


mode = _Mode()


@contextmanager
def recording(on: bool) -> Iterator[None]:
    """Within this context (and thread), record ops or not, whatever holds outside."""
    before, mode.recording = mode.recording, on
    try:
        yield
    finally:
        mode.recording = before


@contextmanager
def no_grad() -> Iterator[None]:
    """Within this context (and thread) nothing is recorded: results require no gradient and hold no history.

    Examples
    --------
    >>> x = Tensor(2.0, requires_grad=True)
    >>> with no_grad():
    ...     y = x * x
    >>> y.requires_grad
    False
    """
    with recording(False):
        yield


# Ops ------------------------------------------------------------------------------------------------------------------
class Primitive(PickledByName, Generic[P]):
    """A differentiable function on arrays, with one vector-Jacobian product (VJP) rule for each array argument.

    Made by `primitive`; called with Tensors, ndarrays or numbers it returns a Tensor.

    Attributes
    ----------
    forward : callable
        The function on arrays.
    arrays : int or None
        How many arrays it takes; None stands for any number (``*xs``).
    settings : dict
        Its other parameters, with their defaults.
    rules : tuple
        What `defvjp` was given.
    """

    __slots__ = ("arrays", "forward", "incomplete", "rules", "settings")  # faster than in the __dict__
    __name__: str

    def __init__(self, forward: Callable[P, Any]) -> None:
        update_wrapper(self, forward)  # name, docstring and signature
        self.__name__ = getattr(forward, "__name__", "primitive").lstrip("_")
        parameters = [] if isinstance(forward, np.ufunc) else [*signature(forward).parameters.values()]
        slash = any(p.kind is p.POSITIONAL_ONLY for p in parameters)  # what follows the / are settings
        kind = Parameter.POSITIONAL_ONLY if slash else Parameter.POSITIONAL_OR_KEYWORD
        given = [p for p in parameters if p.kind is kind]
        any_number = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.forward: Callable[..., Any] = forward
        self.arrays = forward.nin if isinstance(forward, np.ufunc) else None if any_number else len(given)
        self.settings = {p.name: p.default for p in parameters if p not in given and p.kind is not p.VAR_POSITIONAL}
        self.rules: tuple[Rule, ...] = ()
        self.incomplete = True  # some arrays have no rule

    def defvjp(self, *rules: Rule) -> None:
        """State the VJP rules, one for each array argument: ``rule(g, out, *inputs, **keywords)``, all Tensors.

        ``g`` is the gradient with respect to the output ``out``; the rule returns that with respect to its argument, in
        Tensor operations, so that it can be differentiated again. Numbers among the inputs stay numbers. None stands
        for an argument without a gradient. Where the function takes any number of arrays (``*xs``), one rule serves
        them all, and gets the position first: ``rule(position, g, out, *inputs, **keywords)``.
        """
        if len(rules) > (1 if self.arrays is None else self.arrays) or not rules:
            raise TypeError(f"{self.__name__}: state one rule for each array, or one for all of *xs; not {len(rules)}")
        self.rules = rules
        self.incomplete = None in rules or (self.arrays is not None and len(rules) < self.arrays)

    def rule(self, position: int) -> Rule:
        """Return the VJP rule of the array argument at `position`."""
        if self.arrays is None and self.rules:
            return self.rules[0] and partial(self.rules[0], position)
        if position >= len(self.rules):
            raise TypeError(
                f"{self.__name__}: no VJP rule is stated for argument {position}; state it (or None) with .defvjp(...)"
            )
        return self.rules[position]

    def __call__(self, *args: P.args, **keywords: P.kwargs) -> Tensor:
        given: Any = args
        if len(given) != self.arrays or ((keywords or self.settings) and len(keywords) != len(self.settings)):
            given, keywords = self._bind(given, keywords)  # type: ignore[assignment]  # not P.kwargs
        if keywords and list in map(type, keywords.values()):  # a list could be changed after it was recorded
            keywords = {k: tuple(v) if type(v) is list else v for k, v in keywords.items()}  # type: ignore[assignment]  # as above
        inputs, arrays, found, wanted = given, [], False, False
        try:
            for a in inputs:
                if type(a) is Tensor:
                    arrays.append(a._array)
                    found, wanted = True, wanted or a._requires_grad
                elif type(a) in NUMBERS:
                    arrays.append(a)
            if not found or len(arrays) < len(inputs):  # something must be converted
                inputs = as_inputs(inputs, as_tensor)
                arrays = [a._array if isinstance(a, Tensor) else a for a in inputs]
                wanted = True in [a._requires_grad for a in inputs if isinstance(a, Tensor)]
            hook = hooks.active  # read once: another thread may leave its context meanwhile
            if hook is not None:
                data = hook.forward(self, arrays, keywords)
            else:
                data = self.forward(*arrays, **keywords) if keywords else self.forward(*arrays)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            raise explained(error, self, given, keywords) from error
        data = asarray(data)
        if wanted and mode.recording and (not self.incomplete or self._has_rule(inputs)):
            if data.dtype.kind not in "iub":  # integers carry no gradient
                return wrap(data, self, inputs, keywords)
        return wrap(data)

    def _has_rule(self, inputs: tuple[Any, ...]) -> bool:
        """Whether there is a rule for any input that requires a gradient."""
        requiring = [i for i, a in enumerate(inputs) if isinstance(a, Tensor) and a._requires_grad]
        return [self.rule(i) for i in requiring] != [None] * len(requiring)

    def _bind(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Name the settings that were given by position, as in ``sum(x, 0)``, and fill in those that were not given."""
        count = len(args) if self.arrays is None else self.arrays
        named = dict(zip(self.settings, args[count:], strict=False)) if len(args) > count else {}
        found = {**self.settings, **named, **keywords}
        wrong = len(found) != len(self.settings) or id(Parameter.empty) in map(id, found.values())
        if wrong or len(args) > count + len(named) or not named.keys().isdisjoint(keywords):
            raise wrong_arguments(self, args, keywords)
        return args[:count], found

    @overload
    def __get__(self, instance: None, owner: type) -> Primitive[P]: ...
    @overload
    def __get__(self: Primitive[Concatenate[Any, Q]], instance: object, owner: type) -> Callable[Q, Tensor]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<primitive {self.__name__}>"


def primitive(forward: Callable[P, Any]) -> Primitive[P]:
    """Turn a function on ndarrays into a differentiable op (use as a decorator; then state its rules with `defvjp`).

    Parameters
    ----------
    forward : callable
        ndarrays in, ndarray out. Array arguments are positional. Everything else is a setting: keyword-only, or after
        a ``/`` if it may be given by position, too; of lists among them it gets tuples. It must not modify its
        arguments. Where it returns integers or booleans, no gradient passes.

    Examples
    --------
    >>> import numpy as np, tinygrad_mnist as tg
    >>> @tg.primitive
    ... def cube(x):
    ...     return x**3
    >>> cube.defvjp(lambda g, out, x: g * 3 * x**2)
    >>> x = tg.Tensor([1.0, 2.0], requires_grad=True)
    >>> tg.grad(cube(x).sum(), [x])[0]
    Tensor([ 3., 12.], dtype=float64)
    """
    return Primitive(forward)


# The few ops that the engine needs itself -----------------------------------------------------------------------------
@primitive
def copy(x: Any, /) -> Array:
    """Copy the values; the gradient passes."""
    return np.array(x)


@primitive
def astype(x: Any, /, dtype: npt.DTypeLike) -> Array:
    """Convert to another data type, of floats, integers or booleans; the gradient is converted back.

    Examples
    --------
    >>> astype([1.0], np.float32)
    Tensor([1.], dtype=float32)
    """
    return numeric(np.asarray(x, dtype))


@primitive
def stack(*xs: Any, axis: int) -> Array:  # its rule stands in ops/shape.py, where indexing is known
    dtype = np.result_type(*xs)  # which numbers do not change
    return np.stack([np.asarray(x, dtype) for x in xs], axis)


def as_tensor(x: Operand) -> Tensor:
    """Return `x` itself if it is a Tensor, else a Tensor of its values.

    Lists and tuples of Tensors, at every depth, are stacked, and can be differentiated; numbers among them do not
    change the dtype. An ndarray is not copied, here and where ops take one: do not write to it until the backward pass
    is done.

    Examples
    --------
    >>> as_tensor([1, 2])
    Tensor([1, 2], dtype=int64)
    >>> x = Tensor(3.0, requires_grad=True)
    >>> as_tensor([[x, 0], [0, x]])
    Tensor([[3., 0.],
            [0., 3.]], dtype=float64, op=stack)
    """
    if isinstance(x, Tensor):  # a subclass may change without notice: its values are recorded as they are now
        return x if type(x) is Tensor or x._requires_grad else wrap(np.array(x._array))
    return stacked(x, as_tensor, stack) if holds_tensors(x) else wrap(numeric(x))


copy.defvjp(lambda g, out, x: g)
astype.defvjp(lambda g, out, x, dtype: astype(g, x.dtype))


@primitive
def _broadcast_to(x: Any, /, *, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(x, shape)


@primitive
def _sum_to(x: Any, /, *, shape: tuple[int, ...]) -> Array:
    new = x.ndim - len(shape)
    stretched = tuple(i for i in range(x.ndim) if i < new or x.shape[i] != shape[i - new])
    return kernels.add_up(x, stretched).reshape(shape)  # type: ignore[no-any-return]  # typed Any


_broadcast_to.defvjp(lambda g, out, x, shape: sum_to(g, x.shape))
_sum_to.defvjp(lambda g, out, x, shape: broadcast_to(g, x.shape))


def broadcast_to(x: Operand, shape: Sequence[int]) -> Tensor:
    """Repeat ``x`` along new or length-1 axes up to `shape`, by NumPy's broadcasting rules (a read-only view).

    Examples
    --------
    >>> broadcast_to([1.0, 2.0], (2, 2))
    Tensor([[1., 2.],
            [1., 2.]], dtype=float64)
    """
    x, shape = as_tensor(x), tuple(shape)
    return x if x.shape == shape else _broadcast_to(x, shape=shape)


def sum_to(x: Operand, shape: Sequence[int]) -> Tensor:
    """Sum ``x`` down to `shape`, over the axes that broadcasting from `shape` repeated: the adjoint of `broadcast_to`.

    Rules undo broadcasting by it.

    Examples
    --------
    >>> sum_to([[1.0, 2.0], [3.0, 4.0]], (2, 1))
    Tensor([[3.],
            [7.]], dtype=float64)
    """
    x, shape = as_tensor(x), tuple(shape)
    if x.shape == shape:
        return x
    if len(shape) > x.ndim or any(s not in (1, length) for s, length in zip(shape[::-1], x.shape[::-1], strict=False)):
        raise ValueError(f"sum_to: shape {shape} does not broadcast to {x.shape}")
    return _sum_to(x, shape=shape)


@primitive
def add(x: Any, y: Any, /) -> Any:
    """``x + y``, elementwise, with broadcasting.

    Examples
    --------
    >>> add([1.0, 2.0], 3.0)
    Tensor([4., 5.], dtype=float64)
    """
    return np.add(x, y)


def unbroadcast(g: Tensor, x: Tensor) -> Tensor:
    """Sum `g` over the axes along which `x` was broadcast; nearly always there are none."""
    return g if g._array.shape == x._array.shape else sum_to(g, x.shape)


add.forward = np.add  # a call less for each op, 0.1 of 1.8 µs
add.defvjp(lambda g, out, x, y: unbroadcast(g, x), lambda g, out, x, y: unbroadcast(g, y))
