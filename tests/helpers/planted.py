"""Planted errors: right forwards with wrong vector-Jacobian products, for judging what checks gradients.

Each test file in tests/ops plants errors in the ops that it tests::

    @plants("softplus: forgets the slope", tg.softplus, normal((3,)))
    def _(right, g, out, x):
        return g

The decorated rule gets what the right rule returns, and then what every rule gets. A rule of one expression is shorter
as a lambda: ``plants(...)(lambda right, g, out, x: g)``. `load` collects the planted errors of a folder.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.record import recording

Array = npt.NDArray[Any]
Function = Callable[..., Tensor]
Draw = Callable[[np.random.Generator], list[Array]]
Rule = TypeVar("Rule")

LATEST_CALL = object()  # in the place of a rule: right rules that see the arguments of the op's latest call
KINDS = {
    "factor": "a wrong factor",
    "sign": "a wrong sign",
    "broadcasting": "broadcasting is undone wrongly",
    "axes": "wrong axes or a wrong order",
    "indices": "wrong places",
    "windows": "wrong windows of images",
    "cotangent": "the cotangent is forgotten or used wrongly",
    "some entries": "wrong for some entries or some values",
    "kinks": "no gradient at a kink is this one",
    "steps": "the gradient of a smooth function in the place of a step's, which is 0",
    "choice": "the wrong argument, mask or term",
    "state": "depends on other calls, or writes to what it is given",
    "precision": "off by little, or computed in low precision",
    "use": "wrong only for unusual inputs or cotangents, or where the op is used in an unusual way",
    "second order": "right, but its own derivative is wrong",
    "third order": "right, with the right first derivative and a wrong second one",
}


class PlantedError(NamedTuple):
    """A wrong derivative: `original` and ``build()`` have equal values and other derivatives of the given order."""

    name: str  # op: what is wrong
    kind: str  # one of KINDS
    original: Function
    build: Callable[[], Function]  # anew for every check: some keep a state
    inputs: Draw
    order: int  # the lowest at which it shows


_planted: list[PlantedError] = []


def plants(
    name: str,
    function: Function,
    inputs: Draw,
    *,
    kind: str = "factor",
    order: int = 1,
    argument: int | None = None,
    within: Callable[..., Tensor] = lambda op, *xs: op(*xs),
) -> Callable[[Rule], Rule]:
    """Decorate a wrong rule of an op, to be planted in it.

    The rule is ``rule(right, g, out, *inputs)``; ``right`` is what the right rule returns. Instead, there may be a list
    of rules, one for each argument (None for a right one), a class whose instances are rules with a state, or
    `LATEST_CALL`.

    Parameters
    ----------
    name : str
        The op's name, a colon, and what is wrong.
    function : callable
        The op: Tensors to a Tensor.
    inputs : callable
        Draws inputs at which the error shows, such as ``normal((3,))``.
    kind : str
        One of `KINDS`.
    order : {1, 2, 3}
        Order of the first derivative that is wrong.
    argument : int, optional
        The argument whose rule is wrong; by default, this is the rule of all arguments.
    within : callable
        A larger function, ``within(op, *inputs)``, in which the op is checked.
    """
    if kind not in KINDS:
        raise ValueError(f"plants: kind is {kind!r}; it must be one of {', '.join(KINDS)}")

    def register(rule: Rule) -> Rule:
        def build() -> Function:
            op = with_rule(function, rule() if isinstance(rule, type) else rule, argument)
            return lambda *xs: within(op, *xs)

        _planted.append(PlantedError(name, kind, lambda *xs: within(function, *xs), build, inputs, order))
        return rule

    return register


def load(folder: Path) -> list[PlantedError]:
    """Import the test files of a folder; return the errors that they plant, ordered by kind."""
    _planted.clear()  # of what pytest has imported
    for path in sorted(folder.glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec and spec.loader
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return sorted(_planted, key=lambda planted: list(KINDS).index(planted.kind))


def with_rule(fn: Function, rule: Any, argument: int | None = None) -> tg.Primitive:
    """Make a primitive with the values of `fn` and a wrong rule, as described in `plants`."""
    latest: list[Tensor] = []

    def forward(*xs: Array) -> Array:
        latest[:] = map(Tensor, xs)
        return fn(*latest).data

    def wrong(position: int, g: Tensor, out: Tensor, *xs: Tensor) -> Tensor:
        right = vjp(fn, position, g, *(latest if rule is LATEST_CALL else xs))
        chosen = rule[position] if isinstance(rule, list) else rule if argument in (None, position) else None
        return right if chosen in (None, LATEST_CALL) else chosen(right, g, out, *xs)

    op = tg.primitive(forward)
    op.defvjp(wrong)
    return op


# What rules are made of -----------------------------------------------------------------------------------------------
def vjp(fn: Function, position: int, g: Tensor, *xs: Tensor) -> Tensor:
    """Return the right vector-Jacobian product by one argument; it can be differentiated by `g` and `xs` again."""
    with recording(True):
        own = [tg.reshape(x, x.shape) if x.requires_grad else Tensor(x, x.dtype.kind == "f") for x in xs]
        out = fn(*own)
        if not out.requires_grad:
            return Tensor(np.zeros_like(xs[position].data))
        return tg.grad(out, [own[position]], create_graph=True, gradient=g)[0]


def shifted(t: Tensor, axis: int, by: int = 1) -> Tensor:
    """Move everything by one place along an axis, with zeros coming in: as what is cut out off by one."""
    widths = [(0, 0)] * t.ndim
    widths[axis] = (by, 0) if by > 0 else (0, -by)
    start = [slice(None)] * t.ndim
    start[axis] = slice(None, t.shape[axis]) if by > 0 else slice(-by, None)
    return tg.pad(t, widths)[tuple(start)]


def only_at(t: Tensor, position: Any) -> Tensor:
    """Return zeros, but for what is at `position`."""
    mask = np.zeros(t.shape)
    mask[position] = 1
    return t * mask


def of_size(x: Tensor) -> Array:
    """Return the numbers of the entries: 0, 1, ... in the shape of `x`."""
    return np.arange(x.size).reshape(x.shape)


# Inputs ---------------------------------------------------------------------------------------------------------------
def normal(*shapes: tuple[int, ...]) -> Draw:
    return lambda rng: [np.asarray(rng.normal(size=shape)) for shape in shapes]


def between(low: float, high: float, *shapes: tuple[int, ...]) -> Draw:
    return lambda rng: [np.asarray(rng.uniform(low, high, shape)) for shape in shapes]


def signed(*shapes: tuple[int, ...]) -> Draw:
    """Both signs, and nothing near 0."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        signs = rng.permutation(np.resize([1.0, -1.0], int(np.prod(shape))))
        return signs.reshape(shape) * rng.uniform(0.3, 1.5, shape)

    return lambda rng: [draw(rng, shape) for shape in shapes]


def distinct(*shapes: tuple[int, ...]) -> Draw:
    """No two numbers, of all arrays together, nearer to each other than 0.1."""
    sizes = [int(np.prod(shape)) for shape in shapes]

    def draw(rng: np.random.Generator) -> list[Array]:
        numbers = (rng.permutation(sum(sizes)) - sum(sizes) // 2) * 0.2 + rng.uniform(-0.05, 0.05, sum(sizes))
        return [
            part.reshape(shape) for part, shape in zip(np.split(numbers, np.cumsum(sizes)[:-1]), shapes, strict=True)
        ]

    return draw


def single(draw: Draw) -> Draw:
    """The same numbers in single precision."""
    return lambda rng: [x.astype(np.float32) for x in draw(rng)]


def fixed(*values: Any) -> Draw:
    return lambda rng: [np.array(v, np.float64) for v in values]
