"""Ops that arrange, pick, sort, reduce and contract as ONNX files, on other values and batches than the traced ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from onnx_files import check_file
from op_checks import Array, Shape, seeds

import tinygrad_mnist as tg
from tinygrad_mnist.export.converters import CONVERTERS
from tinygrad_mnist.ops.statistics import _recurrence
from tinygrad_mnist.testing import axes, indices, permutations

Function: TypeAlias = Callable[..., Any]
Case: TypeAlias = Callable[[Any, Shape], Function]  # draw settings for x of shape (rows, ...): a function of x

small = st.integers(-2, 2)
flags = st.booleans()
one_axis = st.integers(-3, 2)  # of x, which has three
some_axis = st.none() | one_axis
norms = st.sampled_from([None, 0, 1, 2, 3, 0.5, 1.5, -2, np.inf, -np.inf])


def _drawn(op: Function, *strategies: Any) -> Case:
    """Let an op get x, and then what strategies draw."""

    def case(draw: Any, shape: Shape) -> Function:
        given = [draw(strategy) for strategy in strategies]
        return lambda x: op(x, *given)

    return case


def _indexed(draw: Any, shape: Shape) -> Function:
    index = draw(indices(shape[1:]))
    rest = index if isinstance(index, tuple) else (index,)
    return lambda x: x[(slice(None), *rest)]


def _picked(draw: Any, shape: Shape) -> Function:
    """Index arrays that are computed, with negative and repeated ones among them."""
    separate = draw(flags)

    def pick(x: tg.Tensor) -> tg.Tensor:
        first = tg.argmax(x, -1) - x.shape[-1]  # (rows, length)
        columns = tg.argmin(x, 1)[:, : x.shape[1]]  # (rows, n)
        return x[:, 0, first] if separate else x[np.arange(len(x))[:, None], columns - x.shape[1], first[:, :1]]

    return pick


def _split(draw: Any, shape: Shape) -> Function:
    place = draw(st.integers(0, shape[1]))
    return lambda x: tg.concatenate(tg.split(x, [place], 1)[::-1] + [x[:, :1]], 1)


def _rows(x: tg.Tensor) -> tg.Tensor:
    """Join and cut along the batch, whose length is not known."""
    return tg.concatenate([x, x[1:], x[-1:]])[:: -1 if x.shape[-1] > 1 else 2]


def _einsum(draw: Any, shape: Shape) -> Function:
    form = draw(st.sampled_from(["bij,bij->b", "bij,bkj->ik", "bij,bij,bij->ji", "bij,bij", "...j,...j->..."]))
    return lambda x: tg.einsum(form, *[x + i for i in range(form.split("->")[0].count(",") + 1)])


def _diagonal(draw: Any, shape: Shape) -> Function:
    offset, first, second = draw(small), *draw(st.permutations([1, 2]))
    return lambda x: tg.diagonal(tg.pad(x, ((0, 0), (1, 1), (1, 1))), offset, first, second)


CASES: dict[str, Case] = {
    "reshape": _drawn(lambda x, joined: tg.reshape(x, -1) if joined else tg.reshape(x, len(x), -1), flags),
    "transpose": _drawn(tg.transpose, permutations(3)),
    "swapaxes": _drawn(tg.swapaxes, one_axis, one_axis),
    "moveaxis": _drawn(tg.moveaxis, one_axis, one_axis),
    "expand_dims, squeeze": _drawn(lambda x, axis: tg.squeeze(tg.expand_dims(x, (axis, -1)), axis), st.integers(0, 3)),
    "pad": _drawn(tg.pad, st.tuples(*[st.tuples(st.integers(0, 1), st.integers(0, 2))] * 3), st.just(0.5)),
    "stack": _drawn(lambda x, axis: tg.stack([x, x * x], axis), one_axis),
    "a list with a number": _drawn(lambda x: tg.as_tensor([x.sum(), 2.0])),
    "split, concatenate": _split,
    "rows": _drawn(_rows),
    "broadcast_to": _drawn(lambda x: tg.broadcast_to(x[:, :1], (2, *x.shape))),
    "sum_to": _drawn(lambda x, kept: tg.sum_to(x, (1, x.shape[2]) if kept else x.shape[2:]), flags),
    "broadcast products": _drawn(lambda x: x * x[0] * x[:, :1]),
    "indexing": _indexed,
    "computed indices": _picked,
    "take": _drawn(tg.take, st.sampled_from([[0, -1, 0], [[0], [0]]]), one_axis),
    "take_along_axis": _drawn(lambda x, axis: tg.take_along_axis(x, tg.argsort(x, axis), axis), one_axis),
    "sort": _drawn(lambda x, axis, down: tg.sort(x, axis, descending=down), some_axis, flags),
    "topk": _drawn(lambda x, largest: tg.topk(x, min(2, x.shape[1]), 1, largest)[0], flags),
    "flip": _drawn(tg.flip, axes(3)),
    "roll": _drawn(tg.roll, small, some_axis),
    "roll twice": _drawn(lambda x, by: tg.roll(x, (by, 1), (0, 2)), small),
    "repeat": _drawn(tg.repeat, st.integers(0, 2), some_axis),
    "tile": _drawn(tg.tile, st.tuples(*[st.integers(1, 2)] * 3)),
    "diagonal": _diagonal,
    "diagonal of rows": _drawn(lambda x, k: tg.diagonal(x[:, 0] @ x[:, 0].T, k), st.integers(-1, 1)),
    "diag": _drawn(lambda x, k: tg.diag(x[:, 0, 0], k), small),
    "tril": _drawn(tg.tril, small),
    "sum": _drawn(tg.sum, axes(3), flags),
    "mean": _drawn(tg.mean, axes(3), flags),
    "max": _drawn(tg.max, axes(3), flags),
    "min": _drawn(tg.min, axes(3), flags),
    "var": _drawn(lambda x, axis, keep: tg.var(tg.pad(x, 1), axis, 0.5, keep), axes(3), flags),
    "std": _drawn(lambda x, axis, keep: tg.std(tg.pad(x, 1), axis, 1, keep), axes(3), flags),
    "prod": _drawn(tg.prod, axes(3), flags),
    "cumsum": _drawn(tg.cumsum, some_axis),
    "cumprod": _drawn(tg.cumprod, some_axis),
    "median": _drawn(tg.median, st.sampled_from([1, -1, (1, 2)]), flags),
    "einsum": _einsum,
    "diagonals": _drawn(lambda x: tg.einsum("ii->i", x[:, 0] @ x[:, 0].T)),
    "tensordot": _drawn(lambda x: tg.tensordot(x, x, ((0, 1), (0, 1)))),
    "outer": _drawn(lambda x: tg.outer(x[0, 0], x)),
    "trace": _drawn(lambda x, k: tg.trace(x, k, 1, 2), small),
    "norm": _drawn(lambda x, p: tg.linalg.norm(x + 3, p, 1), norms),
    "norm of matrices": _drawn(lambda x, p: tg.linalg.norm(x, p, (1, 2)), st.sampled_from(["fro", 1, -1, np.inf])),
}


def with_derivatives(function: Function, orders: int) -> Function:
    """Return the value of a function of x, and derivatives."""

    def all_orders(x: tg.Tensor) -> list[tg.Tensor]:
        found = [function(x)]
        for _ in range(orders):
            found += tg.grad(tg.sin(found[-1]).sum(), [x], create_graph=True)
        return found

    return all_orders


def values(seed: int, shape: Shape, dtype: Any) -> Array:
    """Quarters, with ties and zeros among them."""
    return (np.random.default_rng(seed).integers(-6, 7, shape) / 4).astype(dtype)


def check_case(case: Case, data: Any, seed: int, orders: int) -> None:
    dtype = data.draw(st.sampled_from([np.float64, np.float64, np.float32]))
    rest = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    function = with_derivatives(case(data.draw, (4, *rest)), orders)
    traced, others = values(seed, (4, *rest), dtype), values(seed + 1, (3, *rest), dtype)
    check_file(function, [traced], [others], tolerance=1e-9 if dtype is np.float64 else 1e-4)


@given(st.sampled_from([*CASES.values()]), st.data(), seeds)
def test_values_and_gradients(case: Case, data: Any, seed: int) -> None:
    check_case(case, data, seed, orders=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@settings(max_examples=3, phases=[Phase.generate])
@given(st.data(), seeds)
def test_second_derivatives(name: str, data: Any, seed: int) -> None:
    check_case(CASES[name], data, seed, orders=2)


# Other dtypes, no elements, special values ----------------------------------------------------------------------------
def of_any_dtype(x: tg.Tensor) -> list[tg.Tensor]:
    """Apply what works for integers and booleans, too; sums are as wide as NumPy's."""
    return [
        tg.sum(x, 1),
        tg.mean(x),
        tg.max(x, 0),
        tg.min(x, (0, 1)),
        tg.prod(x[:, :2], 1),
        tg.cumsum(x, 0),
        tg.cumprod(x[:, :3], 1),
        tg.all(x, 1),
        tg.any(x),
        tg.argmax(x, 1, keepdims=True),
        tg.argmin(x),
        tg.sort(x),
        tg.argsort(x, None, descending=True),
        tg.topk(x, 2)[1],
        tg.median(x, 1),
        tg.var(x, 1),
        tg.std(x),
        tg.pad(x, 1, 1),
        tg.flip(x)[:, ::2],
        tg.take(x, [0, -1], 1),
        tg.roll(x, 1),
        tg.repeat(x, 2, 1),
        tg.tril(x[:, :, None]),
        tg.diag(x[:, 0]),
        tg.concatenate([x, x], 1),
        tg.stack([x, x]),
        tg.einsum("ij,ij->i", x, x),
    ]


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32, np.int64, np.float16])
def test_dtypes(dtype: Any) -> None:
    draw = np.random.default_rng(0).integers
    traced, others = draw(0, 4, (4, 3)).astype(dtype), draw(0, 4, (3, 3)).astype(dtype)
    check_file(of_any_dtype, [traced], [others], tolerance=2e-3 if dtype is np.float16 else 1e-9)


def test_largest_classes_and_one_hot_rows() -> None:
    check_file(lambda i: tg.one_hot(i, 5), [np.array([1, 0, 2])], [np.array([4, 3])])
    with pytest.raises(ValueError, match="one_hot .*setting classes"):  # the largest index decides on the shape
        tg.export.to_onnx(tg.one_hot, np.array([0, 2, 1]))


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0)])
def test_no_axes_and_no_elements(shape: Shape) -> None:
    def function(x: tg.Tensor) -> list[tg.Tensor]:
        made = [tg.sum(x), tg.prod(x), tg.cumsum(x), tg.cumprod(x), tg.sort(x, None), tg.flip(x), tg.roll(x, 1)]
        made += [
            tg.repeat(x, 2),
            tg.ravel(x),
            x.T,
            x[None, ..., None],
            tg.stack([x, x]),
            tg.broadcast_to(x, (2, *shape)),
        ]
        made += [tg.linalg.norm(tg.ravel(x), p) for p in (None, 1, 3)] + [tg.einsum("...,...", x, x)]
        if x.ndim:
            made += [tg.all(x, 0), tg.pad(x, 1), tg.concatenate([x, x]), tg.einsum("i...,i...", x, x), x[[], ...]]
        total = sum((tg.sin(part).sum() for part in made if part.dtype.kind == "f"), tg.Tensor(0.0))
        return [*made, *tg.grad(total, [x])]

    x = np.full(shape, 1.5)
    check_file(function, [x], [np.asarray(x / 2)], tolerance=1e-9, dynamic_batch=False)


def test_special_values() -> None:
    """NaN, infinities and numbers whose squares overflow. Where NaNs stand in a sorted array is left to runtimes."""

    def function(x: tg.Tensor) -> list[tg.Tensor]:
        norms = [tg.linalg.norm(x, p, 1) for p in (None, 3, -1.5, 0)]
        sums = [tg.sum(x, 1), tg.mean(x, 1), tg.cumsum(x, 1), tg.cumprod(x, 1), tg.prod(x, 1)]
        return [*norms, *sums, tg.all(x, 1), tg.any(x, 1), tg.var(x, 1), tg.std(x, 1), tg.median(x, 1), x[:, ::-1]]

    inf, nan = np.inf, np.nan
    x = np.array([[0.0, -0.0, inf], [-inf, 1, nan], [nan, nan, 2], [-0.0, 0.0, 1e308], [3e200, 4e200, 0], [0, 0, 0]])
    with np.errstate(all="ignore"):
        check_file(function, [x], [-x[::-1]], tolerance=1e-9)


@given(st.integers(0, 4), flags, seeds)
def test_recurrences_ignore_the_first_factor(length: int, reverse: bool, seed: int) -> None:
    b, a = values(seed, (2, length), np.float64), values(seed + 1, (2, length), np.float64)
    a[:, :1] = np.inf
    check_file(lambda b, a: _recurrence(b, a, reverse=reverse), [b, a], [b[:1], a[:1]], tolerance=1e-9)


# What is refused ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda x: x[x > 0], ValueError, "getitem"),
        (lambda x: x * np.argsort(x.detach().data), ValueError, "multiply"),
        (lambda x: tg.median(x, 0), ValueError, "middle"),
        (lambda x: tg.linalg.inv(x.T @ x), NotImplementedError, "inv"),
        (
            lambda x: tg.linalg.det(x.T @ x).sum() * 0 + tg.grad(tg.linalg.det(x.T @ x), [x])[0],
            NotImplementedError,
            "det",
        ),
    ],
)
def test_refused(function: Function, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^to_onnx: .*{words}"):
        tg.export.to_onnx(function, values(0, (3, 3), np.float64))


def test_a_wrong_converter_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CONVERTERS[tg.sum]

    def wrong(graph: Any, x: Any, **settings: Any) -> Any:
        return graph.add("Sub", right(graph, x, **settings), graph.scalar(0.25, x.dtype))

    monkeypatch.setitem(CONVERTERS, tg.sum, wrong)
    with pytest.raises(AssertionError, match="Mismatched"):
        check_file(lambda x: tg.sum(x, 1), [values(0, (3, 2), np.float64)], [values(1, (4, 2), np.float64)])
