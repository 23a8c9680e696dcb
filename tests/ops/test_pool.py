"""Pooling against naive loops and finite differences, for any geometry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import (
    INVALID_PAIRS,
    X,
    check_value_error,
    exactly,
    half,
    layouts,
    matches_finite_differences,
    numbers,
    pool_geometries,
    windows,
)
from op_checks import Array, Function, Shape, dtypes, seeds
from planted import LATEST_CALL, distinct, fixed, normal, only_at, plants, shifted, vjp

import tinygrad_mnist as tg


def naive_pool_gradient(x: Array, g: Array, kernel: Any, stride: Any, padding: Any) -> Array:
    """Each window's gradient goes to its first maximum, row by row, or to its last NaN."""
    out, (ph, pw) = np.zeros_like(x), padding
    for n, c, i, j in np.ndindex(*g.shape):
        rows = [r for r in range(i * stride[0] - ph, i * stride[0] - ph + kernel[0]) if 0 <= r < x.shape[2]]
        columns = [s for s in range(j * stride[1] - pw, j * stride[1] - pw + kernel[1]) if 0 <= s < x.shape[3]]
        places = [(r, s) for r in rows for s in columns]
        best = max(places, key=lambda at: x[n, c, at[0], at[1]])  # max keeps the first
        best = [best, *(at for at in places if np.isnan(x[n, c, at[0], at[1]]))][-1]
        out[(n, c, *best)] += g[n, c, i, j]
    return out


@given(pool_geometries, seeds, dtypes, layouts, st.booleans())
def test_pools_reduce_each_window(geometry: Any, seed: int, dtype: Any, layout: str, negative: bool) -> None:
    shape, kernel, stride, padding = geometry
    x = numbers(seed, shape, dtype, layout, limit=2) - (3 if negative else 0)
    exactly(tg.max_pool2d(x, kernel, stride, padding), windows(x, kernel, stride, padding, -np.inf).max(axis=(4, 5)))
    exactly(
        tg.avg_pool2d(x, kernel, stride, padding),
        windows(x, kernel, stride, padding).sum(axis=(4, 5)) / dtype(np.prod(kernel)),
    )


@pytest.mark.parametrize("pool", [tg.max_pool2d, tg.avg_pool2d])
def test_pools_lie_side_by_side_by_default(pool: Any) -> None:
    x = numbers(0, (2, 3, 7, 8))
    exactly(pool(x, (2, 3)), pool(x, (2, 3), (2, 3), (0, 0)).data)
    exactly(pool(x, 3, padding=1), pool(x, (3, 3), (3, 3), (1, 1)).data)


@given(pool_geometries, seeds, layouts, st.integers(0, 2), dtypes)
def test_max_pool_sends_the_gradient_to_the_first_maximum(
    geometry: Any, seed: int, layout: str, limit: int, dtype: Any
) -> None:
    shape, kernel, stride, padding = geometry
    x = tg.Tensor(numbers(seed, shape, dtype, layout, limit) - dtype(3), requires_grad=True)  # many ties, all negative
    out = tg.max_pool2d(x, kernel, stride, padding)
    g = tg.Tensor(numbers(seed + 1, out.shape, dtype), requires_grad=True)
    (gx,) = tg.grad(out, [x], create_graph=True, gradient=g)
    exactly(gx, naive_pool_gradient(x.data, g.data, kernel, stride, padding))
    probe = numbers(seed + 2, shape, dtype)
    read, curvature = tg.grad((gx * probe).sum(), [g, x])
    assert np.vdot(read.data, g.data) == np.vdot(gx.data, probe)  # linear in g, so this is its adjoint
    assert not curvature.data.any()


@given(pool_geometries, seeds, layouts, dtypes | st.just(np.float16), st.booleans())
def test_max_pool_selects_also_what_is_not_finite(
    geometry: Any, seed: int, layout: str, dtype: Any, infinite: bool
) -> None:
    shape, kernel, stride, padding = geometry
    rng, x = np.random.default_rng(seed), numbers(seed, shape, dtype, layout, 2).copy("K")
    special = rng.choice(np.array([np.nan, np.inf, -np.inf, -np.inf], dtype), shape)
    np.copyto(x, special, where=rng.random(shape) < rng.choice([0.2, 0.9]))
    out = tg.max_pool2d(leaf := tg.Tensor(x, requires_grad=True), kernel, stride, padding)
    exactly(out, windows(x, kernel, stride, padding, -np.inf).max(axis=(4, 5)))
    g = tg.Tensor(numbers(seed + 1, out.shape, dtype).copy(), requires_grad=True)
    g.data[rng.random(out.shape) < 0.2] = np.inf if infinite else 1
    (gx,) = tg.grad(out, [leaf], create_graph=True, gradient=g)
    exactly(gx, naive_pool_gradient(x, g.data, kernel, stride, padding))
    probe = np.arange(x.size, dtype=dtype).reshape(shape)
    (read,) = tg.grad(gx, [g], gradient=tg.Tensor(probe))
    for at in np.ndindex(*out.shape):
        only = np.zeros_like(g.data)
        only[at] = 1
        assert read.data[at] == probe[naive_pool_gradient(x, only, kernel, stride, padding) == 1]


@given(pool_geometries, seeds)
def test_pools_agree_with_pytorch_where_numbers_are_not_finite(geometry: Any, seed: int) -> None:
    torch = pytest.importorskip("torch")
    shape, kernel, stride, padding = geometry
    rng, x = np.random.default_rng(seed), numbers(seed, shape, np.float32).copy()
    x[rng.random(shape) < 0.3] = rng.choice(np.float32([np.nan, np.inf, -np.inf]))
    for name in "max_pool2d", "avg_pool2d":
        other = torch.tensor(x, requires_grad=True)
        expected = getattr(torch.nn.functional, name)(other, kernel, stride, padding)
        out = getattr(tg, name)(leaf := tg.Tensor(x, requires_grad=True), kernel, stride, padding)
        g = numbers(seed + 1, out.shape, np.float32)
        expected.backward(torch.tensor(g))
        np.testing.assert_allclose(out.data, expected.detach().numpy(), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(tg.grad(out, [leaf], gradient=g)[0].data, other.grad.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "kernel", "stride", "padding", "first"),
    [
        ([[1, 1], [1, 1]], 2, 2, 0, [[1, 0], [0, 0]]),
        ([[0, 1], [1, 0]], 2, 2, 0, [[0, 1], [0, 0]]),  # row-major: the upper right one comes before the lower left one
        ([[5, 5, 5]], (1, 2), 1, 0, [[1, 1, 0]]),
        ([[-5, -5], [-5, -5]], 3, 1, 1, [[4, 0], [0, 0]]),  # padding is no maximum, not even among negative numbers
        ([[7, 7, 7], [7, 7, 7], [7, 7, 7]], 2, 1, 0, [[1, 1, 0], [1, 1, 0], [0, 0, 0]]),
        ([[-np.inf, -np.inf], [-np.inf, -np.inf]], 2, 2, 1, [[1, 1], [1, 1]]),  # nor among minus infinities
        ([[np.nan, 9], [np.nan, 9]], 2, 2, 0, [[0, 0], [1, 0]]),
    ],
)
def test_ties_in_max_pool(rows: Any, kernel: Any, stride: int, padding: int, first: Any) -> None:
    x = tg.Tensor(np.array([[rows]], np.float64), requires_grad=True)
    tg.max_pool2d(x, kernel, stride, padding).sum().backward()
    assert x.grad.data[0, 0].tolist() == first


@pytest.mark.parametrize("pool", [tg.max_pool2d, tg.avg_pool2d])
@half
@given(st.data(), st.integers(1, 2), seeds)
def test_gradients_match_finite_differences(pool: Function, data: Any, order: int, seed: int) -> None:
    def prepare(shape: Shape, *window: Any) -> tuple[list[Shape], Function]:
        return [shape], lambda x: pool(x, *window)

    matches_finite_differences(data, pool_geometries, prepare, order, seed)


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: tg.max_pool2d(X[0], 2), ["max_pool2d", "(3, 5, 6)"]),
        (lambda: tg.max_pool2d(X, 7), ["max_pool2d", "7 x 7", "5 x 6"]),
        (lambda: tg.max_pool2d(X, (2, 4), padding=2), ["max_pool2d", "padding 2", "(2, 4)"]),
        (lambda: tg.avg_pool2d(X[0, 0], 2), ["avg_pool2d", "(5, 6)"]),
        (lambda: tg.avg_pool2d(X, (1, 7)), ["avg_pool2d", "1 x 7", "5 x 6"]),
        (lambda: tg.avg_pool2d(X, 3, padding=(2, 0)), ["avg_pool2d", "(2, 0)", "3"]),
    ],
)
def test_shapes_that_do_not_fit_are_named(call: Any, parts: list[str]) -> None:
    check_value_error(call, parts)


@pytest.mark.parametrize("value", INVALID_PAIRS, ids=repr)
@pytest.mark.parametrize(
    ("op", "name", "call"),
    [
        ("max_pool2d", "kernel_size", lambda v: tg.max_pool2d(X, v)),
        ("max_pool2d", "stride", lambda v: tg.max_pool2d(X, 2, v if v is not None else -1)),
        ("avg_pool2d", "padding", lambda v: tg.avg_pool2d(X, 2, 2, v)),
    ],
)
def test_settings_must_be_integers_or_pairs(op: str, name: str, call: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{op}: {name} must be an integer"):
        call(value)


@pytest.mark.parametrize("zero", [0, (0, 1), (1, 0)])
def test_zero_is_no_stride_and_no_kernel(zero: Any) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        tg.max_pool2d(X, 2, zero)
    with pytest.raises(ValueError, match="at least 1"):
        tg.avg_pool2d(X, zero)


# Planted errors -------------------------------------------------------------------------------------------------------
plants("avg_pool2d: not divided", lambda x: tg.avg_pool2d(x, 2), normal((1, 1, 4, 4)))(lambda right, *rest: right * 4)


@plants("avg_pool2d: divided by a square", lambda x: tg.avg_pool2d(x, (2, 3)), normal((1, 2, 4, 6)))
def _(right, *rest):
    return right * 6 / 4


@plants("max_pool2d: to the first of the window", lambda x: tg.max_pool2d(x, 2), distinct((1, 2, 4, 4)), kind="windows")
def _(right, g, out, x):
    return vjp(lambda x: x[:, :, ::2, ::2] * 1, 0, g, x)


@plants(
    "max_pool2d: once where windows overlap",
    lambda x: tg.max_pool2d(x, 3, stride=1),
    distinct((1, 1, 5, 5)),
    kind="windows",
)
def _(right, g, out, x):
    return right / tg.maximum(vjp(lambda x: tg.max_pool2d(x, 3, stride=1), 0, g * 0 + 1, x), 1)


@plants(
    "max_pool2d: padding cut off by one",
    lambda x: tg.max_pool2d(x, 2, padding=1),
    distinct((1, 1, 4, 4)),
    kind="windows",
)
def _(right, *rest):
    return shifted(right, 3)


@plants(
    "avg_pool2d: padding not counted", lambda x: tg.avg_pool2d(x, 2, padding=1), normal((1, 1, 4, 4)), kind="windows"
)
def _(right, *rest):
    return right * np.pad(np.ones((2, 2)), 1, constant_values=2)


@plants("avg_pool2d: last window lost", lambda x: tg.avg_pool2d(x, 2, stride=1), normal((1, 1, 3, 4)), kind="windows")
def _(right, g, out, x):
    return vjp(lambda x: tg.avg_pool2d(x, 2, stride=1), 0, only_at(g, (0, 0, slice(-1))), x)


@plants("max_pool2d: to all ties", lambda x: tg.max_pool2d(x, 2), fixed([[[[1, 2], [2, 0]]]]), kind="kinks")
def _(right, g, out, x):
    return tg.sum(g) * (x == out)


plants("max_pool2d: places of the latest call", lambda x: tg.max_pool2d(x, 2), distinct((1, 1, 4, 4)), kind="state")(
    LATEST_CALL
)


@plants(
    "max_pool2d: cotangent constant",
    lambda x: tg.max_pool2d(x, 2),
    distinct((1, 1, 2, 4)),
    kind="second order",
    order=2,
    within=lambda op, x: op(tg.exp(x)),
)
def _(right, *rest):
    return right.detach()
