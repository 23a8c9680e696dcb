"""Hypothesis strategy for whole programs: random graphs of ops on random inputs (needs the ``test`` extra)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from .. import ops, record
from ..tensor import Array, Operand, Tensor, as_tensor
from ..validation import integer
from .strategies import arrays, axes, indices, masks, permutations

__all__ = ["Program", "programs"]

LARGEST_VALUE = 3.0  # larger values are scaled down to this
LARGEST_SIZE = 32  # number of entries of a value; more are summed up

# what the names in the source of a program stand for: tg is the package's public ops
tg = SimpleNamespace(**{name: getattr(module, name) for module in (record, ops) for name in module.__all__})
NAMES = {"tg": tg, "np": np}

ONE = [
    "tg.tanh({x})",
    "-{x}",
    "tg.sin({x})",
    "tg.cos({x})",
    "tg.sigmoid({x})",
    "tg.exp(tg.tanh({x}))",
    "tg.log(1 + {x} * {x})",
    "tg.sqrt(1 + {x} * {x})",
    "{x} ** 2",
    "{x} ** 3",
    "1 / (2 - tg.sin({x}))",
]
TWO = [
    "{x} + {y}",
    "{x} - {y}",
    "{x} * {y}",
    "{x} / (1 + {y} * {y})",
    "(1.5 + tg.sin({x})) ** tg.tanh({y})",
    "tg.where({mask}, {x}, {y})",
]
MOVE = [
    "tg.transpose({x}, {order})",
    "tg.reshape({x}, {shape})",
    "tg.expand_dims({x}, {place})",
    "tg.squeeze({x})",
    "{x}[{index}]",
]
GROW = ["tg.broadcast_to({x}, {repeated})", "tg.stack([{x}, {same}], {place})"]
GROW_AXIS = [
    "tg.concatenate([{x}, {same}, {x}], {axis})",
    "tg.concatenate([{x}, {longer}])",
    "tg.pad({x}, {widths}, 0.5)",
]
REDUCE = ["tg.sum({x}, {axes}, {keep})"]
REDUCE_SOME = [
    "tg.mean({x}, {axes}, {keep})",
    "tg.logsumexp({x}, {axes}, {keep})",
    "tg.softmax({x}, {axes})",
    "tg.log_softmax({x}, {axes})",
]
KINKED = [  # all of them continuous
    "tg.relu({x})",
    "tg.maximum({x}, {y})",
    "tg.max({x}, {axes}, {keep})",
    "tg.abs({x})",
    "tg.clip({x}, -1, 1)",
    "tg.minimum({x}, {y})",
    "tg.min({x}, {axes}, {keep})",
    "tg.where({x} > {y}, {x} * {x}, {x} * {y})",
]


class Program:
    """A random computation, drawn by `programs`: calling it runs it, and its repr is Python code that does the same.

    Attributes
    ----------
    inputs : list of ndarray
        The arrays that it was drawn for.
    lines : list of str
        The computation: ``tg`` is this package, ``np`` is NumPy, ``v0``, ``v1``, ... are the inputs and then the
        results, line by line.
    outputs : list of str
        Names of what to return.

    Examples
    --------
    >>> program = Program([np.array([0.0, 1.0])], ["v1 = v0 * v0", "v2 = tg.sum(v1)"], ["v2"])
    >>> program
    v0 = np.array([0.0, 1.0])
    v1 = v0 * v0
    v2 = tg.sum(v1)
    v2
    >>> program(*program.inputs)
    Tensor(1., dtype=float64)
    """

    def __init__(self, inputs: Sequence[Array], lines: Sequence[str], outputs: Sequence[str]) -> None:
        self.inputs, self.lines, self.outputs = list(inputs), list(lines), list(outputs)
        self._code = compile("\n".join(self.lines), "<program>", "exec")

    def __call__(self, *inputs: Operand) -> Tensor | tuple[Tensor, ...]:
        """Run it on Tensors or arrays; return a Tensor, or a tuple of them if there are several outputs."""
        if len(inputs) != len(self.inputs):
            raise TypeError(f"Program: it takes {len(self.inputs)} inputs, not {len(inputs)}")
        names: dict[str, Any] = {f"v{i}": as_tensor(x) for i, x in enumerate(inputs)}
        exec(self._code, {**NAMES}, names)
        found = tuple(names[name] for name in self.outputs)
        return found if len(found) > 1 else found[0]

    def __repr__(self) -> str:
        return "\n".join(
            [*(f"v{i} = {_source(x)}" for i, x in enumerate(self.inputs)), *self.lines, ", ".join(self.outputs)]
        )


def programs(
    max_steps: int = 8,
    *,
    max_inputs: int = 3,
    max_dims: int = 2,
    min_side: int = 1,
    max_side: int = 3,
    outputs: int = 1,
    kinks: bool = False,
    dtype: Any = np.float64,
) -> Any:
    """Strategy for whole graphs of ops, each a `Program`.

    A program applies ops to its inputs and to earlier results, and uses each once, several times or never. There is
    arithmetic with broadcasting, functions of one variable, matrix products, reductions, softmax, reshaping,
    indexing and joining. Values stay between -3 and 3, so that nothing overflows and few digits are lost. Failing
    programs shrink to few steps on small inputs.

    Parameters
    ----------
    max_steps, max_inputs : int
        Largest numbers of lines and of inputs; there is at least one of each.
    max_dims, min_side, max_side : int
        Number of axes that inputs have at most, and lengths of these axes (broadcasting and indexing lead to lengths 1
        and 0 in any case).
    outputs : int
        Number of results; if there are several, a program returns a tuple, in which some may occur twice.
    kinks : bool
        Use functions with kinks, too, such as maximum, relu and max. Then inputs are not near 0, but results may still
        be at a kink.
    dtype : float32, float64, or a strategy for these
        Type of the inputs.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(programs(max_steps=3))
    ... def test_nothing_overflows(program):
    ...     assert np.abs(program(*program.inputs).data).max(initial=0) < 3.01
    >>> test_nothing_overflows()
    """
    max_steps, max_inputs, outputs = (
        integer("programs", name, n, 1)
        for name, n in {"max_steps": max_steps, "max_inputs": max_inputs, "outputs": outputs}.items()
    )
    max_dims, min_side = integer("programs", "max_dims", max_dims), integer("programs", "min_side", min_side)
    sides = st.integers(min_side, integer("programs", "max_side", max_side, min_side))
    return _programs(max_steps, max_inputs, max_dims, sides, outputs, kinks, dtype)


def _draw_program(
    draw: Any, max_steps: int, max_inputs: int, max_dims: int, sides: Any, outputs: int, kinks: bool, dtype: Any
) -> Program:
    full = draw(st.tuples(*[sides] * max_dims))
    ones = st.tuples(*[st.booleans()] * max_dims)  # as many draws for each shape: shrinks best
    shapes = st.tuples(ones, st.integers(0, max_dims)).map(
        lambda drawn: tuple(1 if one else length for one, length in zip(drawn[0], full, strict=True))[: drawn[1]]
    )
    parts = draw(st.lists(shapes, min_size=1, max_size=max_inputs))
    ends = np.cumsum([math.prod(shape) for shape in parts])
    entries = np.split(draw(arrays(int(ends[-1]), dtype, -2.0, 2.0, True, [0.0] if kinks else [])), ends[:-1])
    inputs = [x.reshape(shape) for x, shape in zip(entries, parts, strict=True)]
    values = list(map(as_tensor, inputs))
    least = draw(st.integers(1, max_steps))  # without it most lists would be short
    lines = draw(st.lists(_steps(values, kinks), min_size=least, max_size=max_steps))
    names = [f"v{i}" for i in reversed(range(len(values)))]
    return Program(inputs, lines, names[:1] + [draw(st.sampled_from(names)) for _ in range(outputs - 1)])


def _draw_step(draw: Any, values: list[Tensor], kinks: bool) -> str:
    """Draw a line, and append its value to `values`."""

    def operand(fits: Callable[[Tensor], Any] = lambda y: True) -> Any:
        found = [f"v{i}" for i, y in enumerate(values) if fits(y)]
        return st.sampled_from([found[-1], *found])  # the latest first, which shrinking prefers

    name = draw(operand())
    x = values[int(name[1:])]
    n = x.ndim

    products = ["{x} @ {right}"] * any(_accepts(tg.matmul, x, y) for y in values)
    products += ["{x} @ tg.swapaxes({transposed}, -1, -2)"] * (n > 1)
    kinked = [KINKED] * (2 * kinks * (x.size > 0))
    groups = [*[ONE, TWO] * 2, REDUCE, MOVE, GROW, REDUCE_SOME * (x.size > 0), *kinked, products, GROW_AXIS * (n > 0)]
    template = draw(st.sampled_from([*filter(None, groups)]).flatmap(st.sampled_from))
    fields: dict[str, Callable[[], Any]] = {
        "y": lambda: operand(lambda y: _accepts(tg.add, x, y)),
        "same": lambda: operand(lambda y: y.shape == x.shape),
        "longer": lambda: operand(lambda y: y.ndim == n and y.shape[1:] == x.shape[1:]),
        "right": lambda: operand(lambda y: _accepts(tg.matmul, x, y)),
        "transposed": lambda: operand(lambda y: y.ndim > 1 and _accepts(tg.matmul, x, tg.swapaxes(y, -1, -2))),
        "mask": lambda: masks(x.shape).map(_source),
        "index": lambda: indices(x.shape).map(_source),
        "axes": lambda: axes(n),
        "axis": lambda: st.integers(-n, n - 1),
        "place": lambda: st.integers(-n - 1, n),
        "keep": st.booleans,
        "order": lambda: permutations(n),
        "shape": lambda: st.sampled_from([(x.size,), x.shape[::-1], (*x.shape, 1)]),
        "repeated": lambda: st.just((2, *x.shape)),
        "widths": lambda: st.tuples(*[st.tuples(st.integers(0, 1), st.integers(0, 1))] * n),
    }
    drawn = {key: draw(field()) for key, field in fields.items() if f"{{{key}}}" in template}
    expression, value = _scaled(template.format(x=name, **drawn), values)
    values.append(value)
    return f"v{len(values) - 1} = {expression}"


_programs, _steps = st.composite(_draw_program), st.composite(_draw_step)


def _scaled(expression: str, values: Sequence[Tensor]) -> tuple[str, Tensor]:
    """Return the expression, summed up and scaled down as far as necessary, and its value."""
    names = {**NAMES, **{f"v{i}": x for i, x in enumerate(values)}}
    while (x := eval(expression, names)).size > LARGEST_SIZE or x.ndim > 4:
        expression = f"tg.sum({expression}, 0)"
    if (peak := np.abs(x.data).max(initial=0.0)) > LARGEST_VALUE:
        expression = f"{0.5 ** math.ceil(math.log2(peak / LARGEST_VALUE))} * ({expression})"
    return expression, eval(expression, names)


def _accepts(function: Callable[..., Any], *args: Any) -> bool:
    try:
        function(*args)
    except ValueError:
        return False
    return True


def _source(x: Any) -> str:
    """Write an array or an index as Python code."""
    if isinstance(x, tuple):
        return ", ".join(map(_source, x)) + "," * (len(x) == 1) if x else "()"
    if isinstance(x, slice):
        return ":".join("" if bound is None else str(bound) for bound in (x.start, x.stop, x.step))
    if not isinstance(x, np.ndarray):
        return "..." if x is ... else str(x)
    if not x.size:
        return f"np.zeros({x.shape}, np.{x.dtype})"
    return f"np.array({x.tolist()}" + (")" if x.dtype == np.array(x.tolist()).dtype else f", np.{x.dtype})")
