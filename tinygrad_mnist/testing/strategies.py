"""Hypothesis strategies for what ops take: shapes, arrays, axes, indices, settings (needs the ``test`` extra)."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from ..tensor import Array
from ..validation import each, integer, real

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
except ImportError as error:
    raise ImportError(
        "tinygrad_mnist.testing: strategies need Hypothesis; pip install 'tinygrad_mnist[test]'"
    ) from error

__all__ = ["arrays", "axes", "broadcastable_shapes", "conv_geometries", "indices", "matmul_operands", "permutations"]

STEP = 0.01  # of the grid that entries lie on: far more than the steps of finite differences
NEAR, FAR = 3.0, 20.0  # bounds that are left out: usual ones, and now and then; exp(20 * 20) is still a number
SMALLEST = 1e-8  # how small entries become, compared with the others
SMALL = 64  # entries of which each is varied in a check of gradients; where there are more, entries are ordinary
LENGTHS = [*[None] * 12, (4, 40), (100, 400), *[(1001, 1300)] * 2]  # of one axis, now and then
LARGEST_SIZE = 2000  # entries of what shapes broadcast to
LAYOUTS: tuple[Callable[[Array], Array], ...] = (
    np.ascontiguousarray,
    np.asfortranarray,
    lambda x: np.swapaxes(np.swapaxes(x, 0, -1).copy(), 0, -1),  # transposed memory
    lambda x: np.repeat(x, 2, axis=-1)[..., ::2],  # with gaps
    lambda x: np.flip(np.flip(x).copy()),  # backwards: negative strides
)


# Shapes and arrays ----------------------------------------------------------------------------------------------------
def arrays(
    shape: Any,
    dtype: Any = np.float64,
    low: float | None = None,
    high: float | None = None,
    distinct: bool = False,
    away_from: Sequence[float] = (),
    varied: bool = True,
) -> Any:
    """Strategy for arrays of finite floats, mostly on a grid of hundredths; no subnormal numbers.

    In arrays of up to 64 entries now and then some are zeros of both signs, all are whole numbers, or magnitudes differ
    by up to 1e8. The memory order is any: C, Fortran, transposed, with gaps or backwards. Shapes, dtypes and these
    variations shrink.
    Entries come from a seed: this is much faster than to draw each of them, and they do not shrink to zeros, where
    wrong derivatives can be right.

    Parameters
    ----------
    shape : int, tuple of ints, or a strategy for these
    dtype : float32, float64, or a strategy for these
    low, high : float, optional
        The smallest and the largest entry possible; by default -3 and 3, and now and then (up to 64 entries)
        -20 and 20.
    distinct : bool
        Let no two entries be equal, not even after a cast to float32, so that a maximum has no ties. They are at least
        a hundredth apart, where that many fit; else the grid is finer. Magnitudes then do not vary.
    away_from : sequence of floats
        Kinks of the function: no entry is nearer than a hundredth to any of them.
    varied : bool
        False leaves the variations out: all entries are on the grid between -3 and 3, without negative zeros, in C
        order.

    Raises
    ------
    ValueError
        If there are not enough such numbers; where a strategy draws the shape, when it does.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(arrays((2, 3), away_from=[0.0]))
    ... def test_abs(x):
    ...     assert np.abs(x).min() > 0.009
    >>> test_abs()
    """
    low, high = (None if b is None else real("arrays", name, b) for name, b in (("low", low), ("high", high)))
    near, far = ((-most if low is None else low, most if high is None else high) for most in (NEAR, FAR))
    away_from = tuple(sorted(each("arrays", "away_from", away_from, real)))
    dtypes = dtype if isinstance(dtype, st.SearchStrategy) else st.just(dtype)

    def fill(shape: Any) -> Any:
        shape = each("arrays", "shape", shape if isinstance(shape, Sequence) else (shape,), integer)
        size = math.prod(shape)
        for ends in (near, far):
            _grid(*ends, size if distinct else 1, away_from)  # or an error

        def entries(drawn: tuple[Any, tuple[float, Any], Callable[[Array], Array], int]) -> Array:
            dtype, (most, variation), layout, seed = drawn
            low, high = far if most == FAR else near
            rng = np.random.default_rng(seed)
            x = rng.choice(_grid(low, high, size if distinct else 1, away_from), size, replace=not distinct)
            if variation is not None and size:
                x = variation(x, rng, lambda v: _allowed(v, low, high, away_from), distinct)
            x = np.asarray(x.reshape(shape).astype(dtype))
            return layout(x) if shape else x

        variations = _varied if varied and size <= SMALL else _usual
        return st.tuples(dtypes, variations, _layouts if varied else _in_c_order, _seeds).map(entries)

    return shape.flatmap(fill) if isinstance(shape, st.SearchStrategy) else fill(shape)


Allowed: TypeAlias = "Callable[[Any], Any]"


def _allowed(x: Any, low: float, high: float, kinks: Sequence[float]) -> Any:
    """Return which numbers are between the bounds and away from the kinks."""
    return (low <= x) & (x <= high) & np.all([np.abs(x - kink) >= STEP for kink in kinks] or [True], axis=0)


def _zeros(x: Array, rng: np.random.Generator, allowed: Allowed, distinct: bool) -> Array:
    """Put zeros of both signs in some places; a single one if entries are distinct, for the one next to it."""
    if not allowed(0.0):
        return x
    places = np.arange(x.size) == np.abs(x).argmin() if distinct else rng.random(x.size) < 0.4
    return np.where(places, rng.choice([0.0, -0.0], x.size), x)


def _whole(x: Array, rng: np.random.Generator, allowed: Allowed, distinct: bool) -> Array:
    """Draw whole numbers, if there are enough."""
    numbers = np.arange(math.ceil(x.min()), math.floor(x.max()) + 1.0) if np.ptp(x) < 1e6 else np.round(x)
    numbers = np.unique(numbers[allowed(numbers)])
    enough = numbers.size >= (x.size if distinct else 1)
    return rng.choice(numbers, x.size, replace=not distinct) if enough else x


def _scales(x: Array, rng: np.random.Generator, allowed: Allowed, distinct: bool) -> Array:
    """Make entries smaller, by factors down to 1e-8."""
    if distinct:
        return x
    scaled = x * SMALLEST ** rng.random(x.size)
    return np.where(allowed(scaled), scaled, x)


# strategies that are made once: to make and validate them takes longer than to draw
_usual = st.just((NEAR, None))
_varied = st.sampled_from([*[(NEAR, None)] * 2, (FAR, None), (NEAR, _zeros), (NEAR, _whole), (NEAR, _scales)])
_in_c_order, _layouts = st.just(np.ascontiguousarray), st.sampled_from(LAYOUTS)
_seeds = st.integers(0, 2**32 - 1)


@lru_cache(32)
def _grid(low: float, high: float, count: int, kinks: tuple[float, ...]) -> Array:
    """Return numbers from low to high, away from the kinks, which are sorted.

    Hundredths, or finer steps where the range is short or `count` is large.
    """
    starts, ends = [low, *(kink + STEP for kink in kinks)], [*(kink - STEP for kink in kinks), high]
    pieces = [(max(start, low), min(end, high)) for start, end in zip(starts, ends, strict=True)]
    pieces = [(start, end) for start, end in pieces if end - start > -STEP / 1e6]  # rounding errors put aside
    span = sum(end - start for start, end in pieces)
    step = min(STEP, span / 10)
    if count > 1:  # still different in float32
        step = max(min(step, span / count), 16 * float(np.finfo(np.float32).eps) * max(abs(low), abs(high)))
    lengths = [int((end - start) / step + 1e-6) + 1 if step > 0 else 1 for start, end in pieces if math.isfinite(span)]
    if sum(lengths) < max(count, 1):
        away = f", {STEP} or more away from {list(kinks)}," if kinks else ""
        raise ValueError(
            f"arrays: {max(count, 1)} different entries are wanted, but from {low} to {high}{away} there are "
            f"{sum(lengths)} that are far enough apart; widen the range"
        )
    grid = np.concatenate(
        [np.linspace(start, end, length) for (start, end), length in zip(pieces, lengths, strict=True)]
    )
    if step > 1e-6:
        grid = np.clip(np.round(grid, 12), low, high)  # short to read, and zero is exactly 0
    grid[np.abs(grid) < np.finfo(np.float32).tiny] = 0.0
    return grid


def broadcastable_shapes(count: int = 2, max_dims: int = 4, min_side: int = 0, max_side: int | None = None) -> Any:
    """Strategy for tuples of `count` shapes that broadcast with each other, to 2000 entries at most.

    Parameters
    ----------
    count, max_dims : int
        Number of shapes, and of axes that each has at most.
    min_side, max_side : int
        Lengths of the axes; those that broadcast may have length 1 in any case. By default they are 3 at most, but now
        and then one axis has some dozens, a few hundred or more than a thousand entries: enough for the vectors, blocks
        and thresholds of what is tested.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(broadcastable_shapes(3))
    ... def test_sum(shapes):
    ...     assert sum(map(np.ones, shapes)).shape == np.broadcast_shapes(*shapes)
    >>> test_sum()
    """
    count = integer("broadcastable_shapes", "count", count, 1)
    max_dims = integer("broadcastable_shapes", "max_dims", max_dims)
    min_side = integer("broadcastable_shapes", "min_side", min_side)
    most = max(3, min_side) if max_side is None else integer("broadcastable_shapes", "max_side", max_side, min_side)

    def short(dims: int, least: int) -> Any:
        return hnp.mutually_broadcastable_shapes(
            num_shapes=count,
            min_dims=min(dims, max_dims),
            max_dims=max_dims,
            min_side=min(max(least, min_side), most),
            max_side=most,
        ).map(lambda drawn: drawn.input_shapes)

    # in most of those without a least number or length of axes there is one without any, or one of length 0
    usual = st.one_of(short(0, 0), *[short(1, 1), short(2, 1)] * 2)
    lengths = st.sampled_from(LENGTHS).flatmap(lambda ends: st.integers(*ends) if ends else st.none())
    return st.tuples(usual, lengths, st.integers(0, 3)).map(_lengthened) if max_side is None else usual


def _lengthened(drawn: tuple[tuple[tuple[int, ...], ...], int | None, int]) -> tuple[tuple[int, ...], ...]:
    """Make an axis that all shapes have long; the others have length 1 where there would be too many entries."""
    shapes, length, axis = drawn
    whole = np.broadcast_shapes(*shapes)
    if length is None or 0 in whole or () in shapes:
        return shapes
    axis = -1 - axis % min(map(len, shapes))
    most = 1 if math.prod(whole) // whole[axis] * length > LARGEST_SIZE else max(whole)

    def changed(shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(length if i == len(shape) + axis else n if n <= most else 1 for i, n in enumerate(shape))

    return tuple(map(changed, shapes))


def matmul_operands(dtype: Any = np.float64, max_dims: int = 4, max_side: int = 3) -> Any:
    """Strategy for pairs of arrays that can be multiplied by ``@``.

    They are vectors, matrices, and stacks that broadcast, in any memory order.

    Parameters
    ----------
    dtype : float32, float64, or a strategy for these (drawn for each operand)
    max_dims, max_side : int
        Largest number of axes, at least 2, and their largest length; the smallest is 0.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(matmul_operands())
    ... def test_matmul(pair):
    ...     assert np.matmul(*pair).ndim <= 4
    >>> test_matmul()
    """
    max_dims = integer("matmul_operands", "max_dims", max_dims, 2)  # matrices have two axes
    max_side = integer("matmul_operands", "max_side", max_side)

    return hnp.mutually_broadcastable_shapes(
        signature=np.matmul.signature, max_dims=max_dims - 2, min_side=0, max_side=max_side
    ).flatmap(lambda drawn: st.tuples(*(arrays(shape, dtype) for shape in drawn.input_shapes)))


# Settings -------------------------------------------------------------------------------------------------------------
def conv_geometries(pooling: bool = False) -> Any:
    """Strategy for valid settings of a convolution or pooling: dict(n, c, h, w, kernel_size, stride, padding).

    Height and width, of the images and of all settings, differ. There may be no images (n is 0), padding wider than the
    kernel, strides that leave gaps, and rows or columns that no window reaches, but there is at least one window.

    Parameters
    ----------
    pooling : bool
        Pad by at most half the kernel, as pooling wants it.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(conv_geometries(), lambda g: True)
    {'n': 0, 'c': 1, 'h': 1, 'w': 1, 'kernel_size': (1, 1), 'stride': (1, 1), 'padding': (0, 0)}
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
    """Strategy for the ``axis`` of reductions over an array of `ndim` axes.

    It is None, an axis, or a tuple of different axes, many of them counted from the end.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(axes(3), lambda axis: isinstance(axis, tuple) and len(axis) == 2)
    (0, 1)
    """
    ndim = integer("axes", "ndim", ndim)
    one = [st.integers(0, ndim - 1), st.integers(1, ndim).map(operator.neg)] if ndim else []
    return st.one_of(st.none(), *one, hnp.valid_tuple_axes(ndim, min_size=0))


def permutations(ndim: int) -> Any:
    """Strategy for the ``axes`` of a transpose: all `ndim` axes in any order, some of them counted from the end.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(permutations(3), lambda axes: axes[0] == -1)
    (-1, 1, 0)
    """
    ndim = integer("permutations", "ndim", ndim)
    from_end = st.tuples(*[st.booleans()] * ndim)
    return st.tuples(st.permutations(range(ndim)), from_end).map(
        lambda drawn: tuple(axis - ndim * negative for axis, negative in zip(*drawn, strict=True))
    )


def indices(shape: tuple[int, ...]) -> Any:
    """Strategy for what an array of `shape` can be indexed with.

    Integers, slices with steps, ``...`` and None; integer arrays, which broadcast and have repeats; boolean masks over
    some axes or all of them; and mixtures of all these.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(indices((2, 3)), lambda index: isinstance(index, np.ndarray))
    array([[False, False, False],
           [False, False, False]])
    """
    shape = each("indices", "shape", shape, integer)
    return hnp.basic_indices(shape, allow_newaxis=True, max_dims=len(shape) + 2) | _mixtures(shape)


def masks(shape: tuple[int, ...]) -> Any:
    return hnp.arrays(np.bool_, shape, fill=st.nothing())  # or else most entries would be equal


def _draw_mixture(draw: Any, shape: tuple[int, ...]) -> Any:
    masked = draw(st.booleans())
    # index arrays broadcast to this shape; together with a mask they have one entry
    common = (1,) if masked else draw(hnp.array_shapes(max_dims=2, min_side=0, max_side=3))
    parts: list[Any] = []
    axis = 0
    while axis < len(shape):
        length, width = shape[axis], 1
        kinds: list[Any] = [st.slices(length)]
        if length:
            position = st.integers(-length, length - 1)
            kinds.append(position)
            kinds += [hnp.arrays(np.intp, common[i:], elements=position, fill=st.nothing()) for i in range(len(common))]
        if masked and draw(st.booleans()):
            masked, width = False, draw(st.integers(1, len(shape) - axis))  # only one: masks need equal counts of True
            kinds = [masks(shape[axis : axis + width])]
        parts.append(draw(st.one_of(kinds)))
        axis += width
    start, stop = sorted(draw(st.tuples(*[st.integers(0, len(parts))] * 2)))
    parts[start:stop] = [...] * draw(st.booleans()) or parts[start:stop]
    parts[start:start] = [None] * draw(st.booleans())
    return parts[0] if len(parts) == 1 else tuple(parts)


_mixtures = st.composite(_draw_mixture)
