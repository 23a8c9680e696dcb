"""The strategies keep what they promise, reach what they should, and shrink to what can be read."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_mnist as tg
from tinygrad_mnist.testing import (
    Program,
    arrays,
    axes,
    broadcastable_shapes,
    check_gradients,
    conv_geometries,
    indices,
    matmul_operands,
    permutations,
    programs,
)

Array = npt.NDArray[Any]
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
dtypes = st.sampled_from([np.float32, np.float64])
# `find` may search for long and throw much away, which Hypothesis would call unhealthy
patient = settings(
    max_examples=1000, database=None, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
some = settings(max_examples=max(settings().max_examples // 2, 8), deadline=None)


def reachable(strategy: Any, condition: Callable[[Any], Any]) -> Any:
    """Return the first example, without shrinking; an error if there is none."""
    return find(strategy, condition, settings=settings(patient, phases=[Phase.generate]))


def smallest(strategy: Any, condition: Callable[[Any], Any]) -> Any:
    return find(strategy, condition, settings=settings(patient, phases=[Phase.generate, Phase.shrink]))


def gap(x: Array) -> float:
    """Return the smallest distance between two entries."""
    return float(np.diff(np.sort(x.astype(np.float64), axis=None)).min(initial=np.inf))


# Arrays ---------------------------------------------------------------------------------------------------------------
bounds = st.tuples(st.floats(-10, 10, width=32), st.floats(0.5, 20, width=32)).map(
    lambda drawn: (drawn[0], drawn[0] + drawn[1])
)


@given(st.data(), st.none() | st.integers(0, 5) | shapes, dtypes, bounds, st.booleans())
def test_entries_are_ordinary_numbers_within_the_bounds(
    data: Any, shape: Any, dtype: Any, bounds: Any, distinct: bool
) -> None:
    x = data.draw(arrays(shapes if shape is None else shape, dtype, *bounds, distinct))
    assert type(x) is np.ndarray and x.dtype == dtype and x.flags.writeable
    assert shape is None or x.shape == (shape if isinstance(shape, tuple) else (shape,))
    rounding = np.finfo(dtype).eps * max(map(abs, bounds))
    assert np.all((bounds[0] - rounding <= x) & (x <= bounds[1] + rounding))
    tiny = np.finfo(np.float32).tiny
    assert not np.any((x != 0) & (np.abs(x) < tiny))
    assert not distinct or gap(x) > 0.0099


@given(arrays(shapes, dtypes, varied=False))
def test_entries_are_hundredths(x: Array) -> None:
    np.testing.assert_allclose(100 * x, np.round(100 * x), atol=1e-4)
    assert x.dtype == np.float32 or all(len(str(entry)) <= 5 for entry in x.flat)
    assert x.flags.c_contiguous and np.all(np.abs(x) <= 3) and not np.any((x == 0) & np.signbit(x))


@pytest.mark.parametrize("size", [600, 601, 602, 5000, 100_000])
@pytest.mark.parametrize("kinks", [[], [0.0, 2.9]], ids=str)
def test_distinct_entries_of_large_arrays_are_still_distinct_in_float32(size: int, kinks: list[float]) -> None:
    x = reachable(arrays(size, distinct=True, away_from=kinks), lambda x: True)
    assert gap(x) >= min(0.0099, 5.0 / size) and gap(x.astype(np.float32)) > 0.9 * gap(x)
    assert all(np.abs(x - kink).min() > 0.0099 for kink in kinks)


@given(
    shapes,
    dtypes,
    st.lists(st.sampled_from([-3.0, -0.5, 0.0, 0.25, 0.2537, 3.0, 7.0]) | st.floats(-3, 3, width=16), max_size=5),
    st.data(),
)
def test_entries_keep_away_from_kinks(shape: Any, dtype: Any, kinks: list[float], data: Any) -> None:
    for distinct in (False, True):
        x = data.draw(arrays(shape, dtype, distinct=distinct, away_from=kinks))
        assert all(np.all(np.abs(x - kink) >= 0.005) for kink in kinks)
        assert not distinct or gap(x) > 0.0099
        assert np.all(np.abs(x) <= 20)


@pytest.mark.parametrize(
    "settings_",
    [
        {"low": 1.0, "high": 0.0},
        {"high": np.inf},
        {"low": np.nan},
        {"low": -0.004, "high": 0.004, "away_from": [0.0]},
        {"low": 1.0, "high": 1.0, "distinct": True},
        {"low": 1e6, "high": 1e6 + 1, "distinct": True},
    ],
    ids=str,
)
def test_what_is_impossible_is_refused_at_once(settings_: Any) -> None:
    with pytest.raises(ValueError, match=r"^arrays: .*(widen the range|it must be a finite number)"):
        arrays((2, 3), **settings_)


def test_the_smallest_ranges_will_do() -> None:
    assert reachable(arrays(3, low=1.5, high=1.5), lambda x: True).tolist() == [1.5, 1.5, 1.5]
    assert reachable(arrays((), low=0.0, high=0.01, away_from=[0.0]), lambda x: True) == 0.01
    assert gap(reachable(arrays(3, low=0.0, high=1e-5, distinct=True), lambda x: True)) >= 0.99e-6


def test_arrays_shrink_to_small_shapes_with_generic_entries() -> None:
    x = smallest(arrays(shapes, dtypes), lambda x: x.size > 1)
    assert x.shape == (2,) and x.dtype == np.float32 and np.all(x != 0)
    reachable(arrays(shapes, dtypes), lambda x: x.ndim == 3 and 0 in x.shape)


# Shapes and operands --------------------------------------------------------------------------------------------------
@given(st.data(), st.integers(1, 4), st.integers(0, 3), st.integers(0, 1), st.integers(1, 4))
def test_shapes_broadcast(data: Any, count: int, max_dims: int, min_side: int, max_side: int) -> None:
    found = data.draw(broadcastable_shapes(count, max_dims, min_side, max_side))
    assert len(found) == count and len(np.broadcast_shapes(*found)) <= max_dims
    assert all(min_side <= length <= max_side for shape in found for length in shape)


@given(broadcastable_shapes(3, min_side=1))
def test_shapes_of_any_length_broadcast_to_few_entries(found: tuple[tuple[int, ...], ...]) -> None:
    whole = np.broadcast_shapes(*found)
    assert len(whole) <= 4 and np.prod(whole) <= 2000 and sum(length > 3 for length in whole) <= 1


@given(st.data(), dtypes, st.integers(2, 4), st.integers(1, 4))
def test_operands_can_be_multiplied(data: Any, dtype: Any, max_dims: int, max_side: int) -> None:
    x, y = data.draw(matmul_operands(dtype, max_dims, max_side))
    assert tg.matmul(x, y).shape == (x @ y).shape and x.dtype == y.dtype == dtype
    assert max(x.ndim, y.ndim) <= max_dims and max(x.shape + y.shape) <= max_side


@some
@given(matmul_operands(max_side=2))
def test_gradients_of_products(operands: Any) -> None:
    check_gradients(tg.matmul, *operands)


def test_a_matrix_has_two_axes() -> None:
    with pytest.raises(ValueError, match="max_dims is 1"):
        matmul_operands(max_dims=1)


# Settings -------------------------------------------------------------------------------------------------------------
def image_shape(geometry: Any) -> tuple[int, ...]:
    return tuple(geometry[name] for name in "nchw")


def options(geometry: Any) -> dict[str, Any]:
    return {name: geometry[name] for name in ("kernel_size", "stride", "padding")}


@given(conv_geometries(), conv_geometries(pooling=True))
def test_geometries_are_valid(geometry: Any, pool: Any) -> None:
    x, weight = np.ones(image_shape(geometry)), np.ones((2, geometry["c"], *geometry["kernel_size"]))
    assert tg.conv2d(x, weight, None, geometry["stride"], geometry["padding"]).shape[:2] == (geometry["n"], 2)
    for op in (tg.max_pool2d, tg.avg_pool2d, tg.im2col):
        assert np.isfinite(op(np.ones(image_shape(pool)), **options(pool)).data).all()


@given(st.data(), st.integers(0, 4))
def test_axes_and_permutations_are_what_numpy_takes(data: Any, ndim: int) -> None:
    x = np.ones(range(2, 2 + ndim))
    axis, order = data.draw(axes(ndim)), data.draw(permutations(ndim))
    assert axis is None or isinstance(axis, int) or len(axis) == len(set(axis))
    assert tg.sum(x, axis).shape == np.sum(x, axis).shape
    assert len(order) == ndim and tg.transpose(x, order).shape == np.transpose(x, order).shape


@given(st.data(), shapes)
def test_indices_are_valid(data: Any, shape: tuple[int, ...]) -> None:
    x, index = np.arange(np.prod(shape)).reshape(shape), data.draw(indices(shape))
    assert np.array_equal(tg.getitem(x, index).data, x[index])


def part_of(index: Any, kind: Callable[[Any], Any]) -> bool:
    return any(map(kind, index if isinstance(index, tuple) else (index,)))


def is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype == bool


def is_positions(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype == np.intp


def is_stepping(part: Any) -> bool:
    return isinstance(part, slice) and part.step not in (None, 1)


REACHED: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "vector by vector": (matmul_operands(), lambda xy: xy[0].ndim == xy[1].ndim == 1),
    "stacks that broadcast": (
        matmul_operands(),
        lambda xy: min(x.ndim for x in xy) > 2 and xy[0].shape[:-2] != xy[1].shape[:-2],
    ),
    "nothing to sum over": (matmul_operands(), lambda xy: not xy[0].size and (xy[0] @ xy[1]).size),
    "fortran order": (matmul_operands(), lambda xy: xy[0].flags.f_contiguous and not xy[0].flags.c_contiguous),
    "gaps in memory": (matmul_operands(), lambda xy: not (xy[1].flags.f_contiguous or xy[1].flags.c_contiguous)),
    "mixed dtypes": (matmul_operands(dtypes), lambda xy: xy[0].dtype != xy[1].dtype),
    "shapes that differ": (
        broadcastable_shapes(3),
        lambda found: len({len(s) for s in found}) == 3 and any(0 in s for s in found),
    ),
    "no images": (conv_geometries(), lambda g: g["n"] == 0),
    "strides and padding": (
        conv_geometries(),
        lambda g: g["stride"] == (2, 2) and min(g["padding"]) > 0 and g["h"] != g["w"],
    ),
    "padding beyond the kernel": (conv_geometries(), lambda g: g["padding"][0] > g["kernel_size"][0]),
    "gaps between windows": (conv_geometries(True), lambda g: g["stride"][1] > g["kernel_size"][1] and g["padding"][1]),
    "unused rows": (conv_geometries(), lambda g: (g["h"] + 2 * g["padding"][0] - g["kernel_size"][0]) % g["stride"][0]),
    "no axis": (axes(2), lambda axis: axis == ()),
    "all axes": (axes(2), lambda axis: axis is None),
    "negative axis": (axes(2), lambda axis: axis == -2),
    "mixed axes": (axes(3), lambda axis: isinstance(axis, tuple) and min(axis, default=0) < 0 < max(axis, default=0)),
    "mixed permutation": (
        permutations(3),
        lambda order: min(order) < 0 <= max(order) and list(np.mod(order, 3)) == [2, 0, 1],
    ),
    "steps backwards": (indices((3, 2)), lambda i: part_of(i, lambda p: is_stepping(p) and p.step < 0)),
    "integer": (indices((3, 2)), lambda i: part_of(i, lambda p: isinstance(p, int) and p < 0)),
    "ellipsis and newaxis": (
        indices((3, 2)),
        lambda i: part_of(i, lambda p: p is ...) and part_of(i, lambda p: p is None),
    ),
    "repeats": (indices((3, 2)), lambda i: part_of(i, lambda p: is_positions(p) and len(np.unique(p)) < p.size)),
    "the same position from both ends": (
        indices((2,)),
        lambda i: is_positions(i) and np.unique(i).size > np.unique(i % 2).size,
    ),
    "index arrays that broadcast": (
        indices((3, 2)),
        lambda i: isinstance(i, tuple) and {1, 2} <= {p.ndim for p in i if is_positions(p)},
    ),
    "empty index array": (indices((3, 2)), lambda i: part_of(i, lambda p: is_positions(p) and not p.size)),
    "mask": (indices((3, 2)), lambda i: is_mask(i) and i.shape == (3, 2) and i.any()),
    "mask and slice": (indices((3, 2)), lambda i: part_of(i, is_mask) and part_of(i, is_stepping)),
    "mask and positions": (indices((3, 2)), lambda i: part_of(i, is_mask) and part_of(i, is_positions)),
    "arrays split by a slice": (
        indices((3, 2, 2)),
        lambda i: isinstance(i, tuple) and [is_positions(p) for p in i] == [True, False, True],
    ),
    "long program": (programs(), lambda p: len(p.lines) == 8),
    "diamond": (
        programs(),
        lambda p: len(p.lines) >= 5 and any(repr(p).count(f"v{i}") > 2 for i in range(len(p.inputs), len(p.lines))),
    ),
    "unused result": (
        programs(),
        lambda p: any(repr(p).count(f"v{i}") == 1 for i in range(len(p.inputs), len(p.inputs + p.lines))),
    ),
    "several inputs": (programs(), lambda p: len({x.shape for x in p.inputs}) == 3),
    "inputs of length zero": (programs(min_side=0), lambda p: p.inputs[0].size == 0),
}


@pytest.mark.parametrize("name", REACHED)
def test_variety(name: str) -> None:
    reachable(*REACHED[name])


# Programs -------------------------------------------------------------------------------------------------------------
def results(program: Program, *inputs: Any) -> list[tg.Tensor]:
    out = program(*inputs)
    return list(out) if isinstance(out, tuple) else [out]


@given(st.booleans().flatmap(lambda kinks: programs(kinks=kinks, outputs=2, dtype=dtypes, min_side=0)))
def test_programs_run_with_small_values_and_as_they_are_written(program: Program) -> None:
    leaves = [tg.Tensor(x, requires_grad=True) for x in program.inputs]
    outs = results(program, *leaves)
    same = [leaf.data for leaf in leaves]  # in another memory order BLAS may add up to another last bit
    names: dict[str, Any] = {"tg": tg, "np": np}
    *lines, last = repr(program).splitlines()
    exec("\n".join(lines), names)
    for out, plain, pasted in zip(outs, results(program, *same), eval(last, names), strict=True):
        assert out.requires_grad and not plain.requires_grad and out.dtype == program.inputs[0].dtype
        assert np.all(np.abs(out.data) <= 3.001) and out.data.size <= 32
        assert np.array_equal(out.data, plain.data)
        strict = "stack" not in repr(program)  # which takes 0-d arrays for numbers
        np.testing.assert_allclose(out.data, np.asarray(pasted), 1e-4, 1e-4, strict=strict)
    for g, leaf in zip(tg.grad(outs[0], leaves, gradient=np.ones(outs[0].shape, outs[0].dtype)), leaves, strict=True):
        assert g.shape == leaf.shape and np.isfinite(g.data).all()


@pytest.mark.parametrize(("kinks", "inconclusive"), [(False, "warn"), (True, "ignore")])
@some
@given(st.data(), st.sampled_from([1, 1, 2]))
def test_gradients_of_programs(kinks: bool, inconclusive: str, data: Any, order: int) -> None:
    program = data.draw(programs(kinks=kinks))
    check_gradients(program, *program.inputs, order=order, inconclusive=inconclusive)


NAMES = [
    "tanh",
    "sin",
    "sigmoid",
    "exp",
    "log",
    "sqrt",
    " ** 2",
    " + ",
    " * ",
    " / ",
    " @ ",
    "where",
    "sum",
    "mean",
    "softmax",
    "logsumexp",
    "log_softmax",
    "reshape",
    "transpose",
    "expand_dims",
    "squeeze",
    "broadcast_to",
    "concatenate",
    "stack",
    "pad",
    "[",
]


KINKED = ["relu", "maximum", "minimum", "tg.max(", "tg.min(", "abs", "clip"]


@pytest.mark.parametrize("kinks", [False, True])
def test_programs_use_all_ops_and_kinks_only_if_asked_to(kinks: bool) -> None:
    seen: set[str] = set()

    def complete(program: Program) -> bool:
        seen.update(name for name in NAMES + KINKED if any(name in line for line in program.lines))
        return seen >= set(KINKED if kinks else NAMES)

    reachable(programs(kinks=kinks), complete)
    assert kinks or not seen & set(KINKED)


@pytest.mark.parametrize("name", ["tg.tanh(", "tg.log_softmax("])
def test_programs_shrink_to_the_op_that_matters(name: str) -> None:
    program = smallest(programs(), lambda program: any(name in line for line in program.lines))
    assert len(program.lines) == 1 and [x.shape for x in program.inputs] == [()]


def test_programs_shrink_to_a_chain() -> None:
    program = smallest(programs(), lambda p: "tanh" in repr(p) and "logsumexp" in repr(p))
    assert len(program.lines) == 2 and [x.shape for x in program.inputs] == [()]


def test_a_program_takes_as_many_inputs_as_it_was_drawn_for() -> None:
    with pytest.raises(TypeError, match="takes 2 inputs, not 1"):
        reachable(programs(), lambda program: len(program.inputs) == 2)(np.ones(1))


def test_dir_shows_what_is_public_and_nothing_else() -> None:
    modules = [importlib.import_module(f"tinygrad_mnist.testing.{name}") for name in ("strategies", "program")]
    lazy = {name for module in modules for name in module.__all__}
    checks = {"GradientMismatch", "InconclusiveWarning", "Report", "adjoint_check", "check_gradients", "check_model"}
    assert set(dir(tg.testing)) == lazy | checks
    assert all(callable(getattr(tg.testing, name)) for name in dir(tg.testing))
    with pytest.raises(AttributeError, match="no attribute 'masks'"):
        _ = tg.testing.masks
