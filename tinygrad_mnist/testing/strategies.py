"""Hypothesis strategies for what ops take: shapes, arrays, axes, indices, settings, and whole programs (they need the ``test`` extra)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tinygrad_mnist as tg

from ..tensor import Array, Operand, Tensor, as_tensor

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
except ImportError as error:
    raise ImportError("tinygrad_mnist.testing: strategies need Hypothesis; pip install 'tinygrad_mnist[test]'") from error

__all__ = [
    "Program", "arrays", "axes", "broadcastable_shapes", "conv_geometries", "indices", "matmul_operands", "permutations", "programs",
]  # fmt: skip

STEP = 0.01  # of the grid that entries lie on: far more than the steps of finite differences
TAME = 3.0  # values of programs are scaled down to this
LARGEST = 32  # number of entries of a value in a program; more are summed up


# Shapes and arrays -----------------------------------------------------------------------------------------------------------------------
def arrays(
    shape: Any, dtype: Any = np.float64, low: float = -3.0, high: float = 3.0, distinct: bool = False, away_from: Sequence[float] = ()
) -> Any:
    """Strategy for arrays of floats on a grid of hundredths: finite, no subnormal numbers, no negative zero.

    Shapes and dtypes shrink. Entries come from a seed, which is much faster than to draw each of them, and they stay generic after
    shrinking, too: derivatives that are wrong can well be right at all zeros.

    Parameters
    ----------
    shape : int, tuple of ints, or a strategy for these
    dtype : float32, float64, or a strategy for these
    low, high : float
        The smallest and the largest entry possible.
    distinct : bool
        Let no two entries be equal, not even after a cast to float32, so that a maximum has no ties. They are at least a hundredth apart,
        where that many fit; else the grid is finer.
    away_from : sequence of floats
        Kinks of the function: no entry is nearer than a hundredth to any of them.

    Raises
    ------
    ValueError
        If there are not enough such numbers; where a strategy draws the shape, when it does.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(arrays(hnp.array_shapes(), away_from=[0.0]), lambda x: x.sum() > 1).shape
    (1,)
    """

    def fill(shape: Any) -> Any:
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        size = math.prod(shape)
        grid = _grid(low, high, size if distinct else 1, away_from)

        def entries(drawn: tuple[Any, int]) -> Array:
            rng = np.random.default_rng(drawn[1])
            return np.asarray(rng.choice(grid, size, replace=not distinct).reshape(shape).astype(drawn[0]))

        dtypes = dtype if isinstance(dtype, st.SearchStrategy) else st.just(dtype)
        return st.tuples(dtypes, st.integers(0, 2**32 - 1)).map(entries)

    return shape.flatmap(fill) if isinstance(shape, st.SearchStrategy) else fill(shape)


def _grid(low: float, high: float, count: int, away_from: Sequence[float]) -> Array:
    """Return numbers from low to high, away from the kinks: hundredths, or finer steps where the range is short or `count` is large."""
    kinks = sorted(away_from)
    starts, ends = [low, *(kink + STEP for kink in kinks)], [*(kink - STEP for kink in kinks), high]
    pieces = [(max(start, low), min(end, high)) for start, end in zip(starts, ends, strict=True)]
    pieces = [(start, end) for start, end in pieces if end - start > -STEP / 1e6]  # rounding errors put aside
    span = sum(end - start for start, end in pieces)
    step = min(STEP, span / 10)
    if count > 1:  # still different in float32
        step = max(min(step, span / count), 16 * float(np.finfo(np.float32).eps) * max(abs(low), abs(high)))
    lengths = [int((end - start) / step + 1e-6) + 1 if step > 0 else 1 for start, end in pieces] if math.isfinite(span) else []
    if sum(lengths) < max(count, 1):
        beside = f", {STEP} or more away from {kinks}," if kinks else ""
        raise ValueError(
            f"arrays: {max(count, 1)} different entries are wanted, but from {low} to {high}{beside} there are {sum(lengths)} that are far "
            "enough apart; widen the range"
        )
    grid = np.concatenate([np.linspace(start, end, length) for (start, end), length in zip(pieces, lengths, strict=True)])
    if step > 1e-6:
        grid = np.clip(np.round(grid, 12), low, high)  # so that they are short to read, and zero is zero
    grid[np.abs(grid) < np.finfo(np.float32).tiny] = 0.0
    return grid


def broadcastable_shapes(count: int = 2, max_dims: int = 3, min_side: int = 0, max_side: int = 3) -> Any:
    """Strategy for tuples of `count` shapes that broadcast with each other.

    Parameters
    ----------
    count, max_dims : int
        Number of shapes, and of axes that each has at most.
    min_side, max_side : int
        Lengths of the axes; those that broadcast may have length 1 in any case.

    Examples
    --------
    >>> from hypothesis import find
    >>> shapes = find(broadcastable_shapes(count=3), lambda shapes: len(set(shapes)) == 3)
    >>> len(np.broadcast_shapes(*shapes)) > 0
    True
    """
    return hnp.mutually_broadcastable_shapes(num_shapes=count, max_dims=max_dims, min_side=min_side, max_side=max_side).map(
        lambda drawn: drawn.input_shapes
    )


LAYOUTS: tuple[Callable[[Array], Array], ...] = (
    np.ascontiguousarray,
    np.asfortranarray,
    lambda x: np.swapaxes(np.swapaxes(x, 0, -1).copy(), 0, -1),  # transposed memory
    lambda x: np.repeat(x, 2, axis=-1)[..., ::2],  # with gaps
)


def matmul_operands(dtype: Any = np.float64, max_dims: int = 4, max_side: int = 3) -> Any:
    """Strategy for pairs of arrays that can be multiplied by ``@``: vectors, matrices, and stacks that broadcast, in any memory order.

    Parameters
    ----------
    dtype : float32, float64, or a strategy for these (drawn for each operand)
    max_dims, max_side : int
        Largest number of axes, at least 2, and their largest length; the smallest is 0.

    Examples
    --------
    >>> from hypothesis import find
    >>> x, y = find(matmul_operands(), lambda pair: pair[0].ndim == 2)
    >>> (x @ y).shape
    (0,)
    """
    if max_dims < 2:
        raise ValueError(f"matmul_operands: max_dims is {max_dims}; it must be at least 2, because matrices have two axes")

    def operand(shape: tuple[int, ...]) -> Any:
        return st.tuples(arrays(shape, dtype), st.sampled_from(LAYOUTS)).map(lambda drawn: drawn[1](drawn[0]))

    return hnp.mutually_broadcastable_shapes(
        signature=np.matmul.signature, max_dims=max_dims - 2, min_side=0, max_side=max_side
    ).flatmap(lambda drawn: st.tuples(*map(operand, drawn.input_shapes)))  # fmt: skip


# Settings --------------------------------------------------------------------------------------------------------------------------------
def conv_geometries(pooling: bool = False) -> Any:
    """Strategy for valid settings of a convolution or pooling: dict(n, c, h, w, kernel_size, stride, padding).

    Height and width, of the images and of all settings, differ. There may be no images (n is 0), padding wider than the kernel, strides
    that leave gaps, and rows or columns that no window reaches, but there is at least one window.

    Parameters
    ----------
    pooling : bool
        Pad by at most half the kernel, as pooling wants it.

    Examples
    --------
    >>> from hypothesis import find
    >>> g = find(conv_geometries(), lambda g: g["stride"] == (1, 2))
    >>> tg.im2col(np.zeros((g["n"], g["c"], g["h"], g["w"])), g["kernel_size"], g["stride"], g["padding"]).shape
    (0, 1)
    """

    return _geometries(pooling)


def _draw_geometry(draw: Any, pooling: bool) -> dict[str, Any]:
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = tuple(draw(st.integers(0, k // 2 if pooling else k + 2)) for k in kernel)
    h, w = (max(k - 2 * p, 1) + draw(st.integers(0, 5)) for k, p in zip(kernel, padding, strict=True))
    stride = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    n, c = draw(st.integers(0, 3)), draw(st.integers(1, 3))
    return {"n": n, "c": c, "h": h, "w": w, "kernel_size": kernel, "stride": stride, "padding": padding}


_geometries = st.composite(_draw_geometry)  # once, because Hypothesis reads the source of the function


def axes(ndim: int) -> Any:
    """Strategy for what reductions over an array of `ndim` axes take: None, an axis, or a tuple of different ones, from either end.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(axes(3), lambda axis: isinstance(axis, tuple) and len(axis) == 2)
    (0, 1)
    """
    one = [st.integers(-ndim, ndim - 1)] if ndim else []
    return st.one_of(st.none(), *one, hnp.valid_tuple_axes(ndim, min_size=0))


def permutations(ndim: int) -> Any:
    """Strategy for tuples of all `ndim` axes in any order, some of them counted from the end, as ``transpose`` takes them.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(permutations(3), lambda axes: axes[0] == -1)
    (-1, 1, 0)
    """
    from_end = st.tuples(*[st.booleans()] * ndim)
    return st.tuples(st.permutations(range(ndim)), from_end).map(
        lambda drawn: tuple(axis - ndim * negative for axis, negative in zip(*drawn, strict=True))
    )


def indices(shape: tuple[int, ...]) -> Any:
    """Strategy for what an array of `shape` can be indexed with.

    Integers, slices with steps, ``...`` and None; integer arrays, which broadcast and have repeats; boolean masks over some axes or all of
    them; and mixtures of all these.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(indices((2, 3)), lambda index: isinstance(index, np.ndarray) and index.dtype == bool and index.ndim == 2)
    array([[False, False, False],
           [False, False, False]])
    """

    return hnp.basic_indices(shape, allow_newaxis=True, max_dims=len(shape) + 2) | _mixtures(shape)


def _masks(shape: tuple[int, ...]) -> Any:
    return hnp.arrays(np.bool_, shape, fill=st.nothing())  # or else most entries would be equal


def _draw_mixture(draw: Any, shape: tuple[int, ...]) -> Any:
    masked = draw(st.booleans())
    common = (1,) if masked else draw(hnp.array_shapes(max_dims=2, min_side=0, max_side=3))  # so that index arrays broadcast
    parts: list[Any] = []
    axis = 0
    while axis < len(shape):
        length, width = shape[axis], 1
        kinds: list[Any] = [st.slices(length)]
        if length:
            position = st.integers(-length, length - 1)
            kinds += [position, *(hnp.arrays(np.intp, common[i:], elements=position, fill=st.nothing()) for i in range(len(common)))]
        if masked and draw(st.booleans()):
            masked, width = False, draw(st.integers(1, len(shape) - axis))  # a single mask: another one would need as many True
            kinds = [_masks(shape[axis : axis + width])]
        parts.append(draw(st.one_of(kinds)))
        axis += width
    start, stop = sorted(draw(st.tuples(*[st.integers(0, len(parts))] * 2)))
    parts[start:stop] = [...] * draw(st.booleans()) or parts[start:stop]
    parts[start:start] = [None] * draw(st.booleans())
    return parts[0] if len(parts) == 1 else tuple(parts)


_mixtures = st.composite(_draw_mixture)


# Programs --------------------------------------------------------------------------------------------------------------------------------
ONE = [
    "tg.tanh({x})", "-{x}", "tg.sin({x})", "tg.cos({x})", "tg.sigmoid({x})", "tg.exp(tg.tanh({x}))", "tg.log(1 + {x} * {x})",
    "tg.sqrt(1 + {x} * {x})", "{x} ** 2", "{x} ** 3", "1 / (2 - tg.sin({x}))",
]  # fmt: skip
TWO = ["{x} + {y}", "{x} - {y}", "{x} * {y}", "{x} / (1 + {y} * {y})", "(1.5 + tg.sin({x})) ** tg.tanh({y})", "tg.where({mask}, {x}, {y})"]
MOVE = ["tg.transpose({x}, {order})", "tg.reshape({x}, {shape})", "tg.expand_dims({x}, {place})", "tg.squeeze({x})", "{x}[{index}]"]
GROW = ["tg.broadcast_to({x}, {repeated})", "tg.stack([{x}, {same}], {place})"]
GROW_AXIS = ["tg.concatenate([{x}, {same}, {x}], {axis})", "tg.concatenate([{x}, {longer}])", "tg.pad({x}, {widths}, 0.5)"]
REDUCE = ["tg.sum({x}, {axes}, {keep})"]
REDUCE_SOME = [
    "tg.mean({x}, {axes}, {keep})", "tg.logsumexp({x}, {axes}, {keep})", "tg.softmax({x}, {axes})", "tg.log_softmax({x}, {axes})",
]  # fmt: skip
KINKED = [  # all of them continuous
    "tg.relu({x})", "tg.maximum({x}, {y})", "tg.max({x}, {axes}, {keep})", "tg.abs({x})", "tg.clip({x}, -1, 1)", "tg.minimum({x}, {y})",
    "tg.min({x}, {axes}, {keep})", "tg.where({x} > {y}, {x} * {x}, {x} * {y})",
]  # fmt: skip


class Program:
    """A random computation, drawn by `programs`: calling it runs it, and its repr is Python code that does the same.

    Attributes
    ----------
    inputs : list of ndarray
        The arrays that it was drawn for.
    lines : list of str
        The computation: ``tg`` is this package, ``np`` is NumPy, ``v0``, ``v1``, ... are the inputs and then the results, line by line.
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
        exec(self._code, {"tg": tg, "np": np}, names)
        found = tuple(names[name] for name in self.outputs)
        return found if len(found) > 1 else found[0]

    def __repr__(self) -> str:
        return "\n".join([*(f"v{i} = {_source(x)}" for i, x in enumerate(self.inputs)), *self.lines, ", ".join(self.outputs)])


def programs(
    max_steps: int = 8, *, max_inputs: int = 3, max_dims: int = 2, min_side: int = 1, max_side: int = 3,
    outputs: int = 1, kinks: bool = False, dtype: Any = np.float64,
) -> Any:  # fmt: skip
    """Strategy for whole graphs: each `Program` applies ops to its inputs and to results, which it uses once, several times or never.

    There is arithmetic with broadcasting, functions of one variable, matrix products, reductions, softmax, reshaping, indexing and joining.
    Values stay between -3 and 3, so that nothing overflows and few digits are lost. Failing programs shrink to few steps on small inputs.

    Parameters
    ----------
    max_steps, max_inputs : int
        Largest numbers of lines and of inputs; there is at least one of each.
    max_dims, min_side, max_side : int
        Number of axes that inputs have at most, and lengths of these axes (broadcasting and indexing lead to lengths 1 and 0 in any case).
    outputs : int
        Number of results; if there are several, a program returns a tuple, in which some may occur twice.
    kinks : bool
        Use functions with kinks, too, such as maximum, relu and max. Then inputs are not near 0, but results may still be at a kink.
    dtype : float32, float64, or a strategy for these
        Type of the inputs.

    Examples
    --------
    >>> from hypothesis import find
    >>> program = find(programs(), lambda program: "tanh" in repr(program))
    >>> len(program.lines), [x.shape for x in program.inputs]
    (1, [()])
    """
    return _programs(max_steps, max_inputs, max_dims, st.integers(min_side, max_side), outputs, kinks, dtype)


def _draw_program(draw: Any, max_steps: int, max_inputs: int, max_dims: int, sides: Any, outputs: int, kinks: bool, dtype: Any) -> Program:
    full = draw(st.tuples(*[sides] * max_dims))
    shapes = st.tuples(
        st.tuples(*[st.booleans()] * max_dims), st.integers(0, max_dims)
    ).map(  # as many draws for each: shrinks best
        lambda drawn: tuple(1 if one else length for one, length in zip(drawn[0], full, strict=True))[: drawn[1]]
    )
    parts = draw(st.lists(shapes, min_size=1, max_size=max_inputs))
    ends = np.cumsum([math.prod(shape) for shape in parts])
    entries = np.split(draw(arrays(int(ends[-1]), dtype, -2.0, 2.0, True, [0.0] if kinks else [])), ends[:-1])
    inputs = [x.reshape(shape) for x, shape in zip(entries, parts, strict=True)]
    values = list(inputs)
    least = draw(st.integers(1, max_steps))  # or else most lists would be short; lists, because they shrink by leaving out anything
    lines = draw(st.lists(_steps(values, kinks), min_size=least, max_size=max_steps))
    names = [f"v{i}" for i in reversed(range(len(values)))]
    return Program(inputs, lines, names[:1] + [draw(st.sampled_from(names)) for _ in range(outputs - 1)])


def _draw_step(draw: Any, values: list[Array], kinks: bool) -> str:
    """Draw a line, and append its value to `values`."""

    def operand(fits: Callable[[Array], Any] = lambda y: True) -> Any:
        found = [f"v{i}" for i, y in enumerate(values) if fits(y)]
        return st.sampled_from([found[-1], *found])  # named like this, most of them stay the same where a line is left out

    name = draw(operand())
    x = values[int(name[1:])]
    n = x.ndim

    products = ["{x} @ {right}"] * any(_accepts(np.matmul, x, y) for y in values) + ["{x} @ tg.swapaxes({turned}, -1, -2)"] * (n > 1)
    kinked = [KINKED] * (2 * kinks * (x.size > 0))
    groups = [*[ONE, TWO] * 2, REDUCE, MOVE, GROW, REDUCE_SOME * (x.size > 0), *kinked, products, GROW_AXIS * (n > 0)]
    template = draw(st.sampled_from([*filter(None, groups)]).flatmap(st.sampled_from))
    fields: dict[str, Callable[[], Any]] = {
        "y": lambda: operand(lambda y: _accepts(np.broadcast, x, y)),
        "same": lambda: operand(lambda y: y.shape == x.shape),
        "longer": lambda: operand(lambda y: y.ndim == n and y.shape[1:] == x.shape[1:]),
        "right": lambda: operand(lambda y: _accepts(np.matmul, x, y)),
        "turned": lambda: operand(lambda y: y.ndim > 1 and _accepts(np.matmul, x, np.swapaxes(y, -1, -2))),
        "mask": lambda: _masks(x.shape).map(_source),
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
    expression, value = _tamed(template.format(x=name, **drawn), values)
    values.append(value)
    return f"v{len(values) - 1} = {expression}"


_programs, _steps = st.composite(_draw_program), st.composite(_draw_step)


def _tamed(expression: str, values: Sequence[Array]) -> tuple[str, Array]:
    """Return the expression, summed up and scaled down as far as is necessary, and its value."""
    names = {"tg": tg, "np": np, **{f"v{i}": as_tensor(x) for i, x in enumerate(values)}}
    while (x := eval(expression, names).data).size > LARGEST or x.ndim > 4:
        expression = f"tg.sum({expression}, 0)"
    if (peak := np.abs(x).max(initial=0.0)) > TAME:
        expression = f"{0.5 ** math.ceil(math.log2(peak / TAME))} * ({expression})"
    return expression, eval(expression, names).data


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
