"""Losses of numbers against their definitions, at their kinks and over the range of exponents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, dtypes, orders, seeds, shapes, some
from planted import distinct, normal, plants, signed

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import arrays, check_gradients

Loss = Callable[..., Tensor]
LOSSES: dict[str, tuple[Loss, Callable[[Array], Array], Callable[[Array], Array]]] = {  # and value and slope of errors
    "mse_loss": (tg.mse_loss, lambda d: d * d, lambda d: 2 * d),
    "l1_loss": (tg.l1_loss, np.abs, np.sign),
    "huber_loss": (
        lambda x, t, **how: tg.huber_loss(x, t, delta=0.7, **how),
        lambda d: np.where(np.abs(d) <= 0.7, d * d / 2, 0.7 * (np.abs(d) - 0.35)),
        lambda d: np.clip(d, -0.7, 0.7),
    ),
}
losses = pytest.mark.parametrize("name", LOSSES)


@losses
@some
@given(st.data(), shapes, st.sampled_from(["mean", "sum", "none"]), orders, seeds)
def test_values_and_derivatives(name: str, data: Any, shape: Any, reduction: str, order: int, seed: int) -> None:
    function, value, slope = LOSSES[name]
    x = data.draw(arrays(shape, dtypes))
    rng = np.random.default_rng(seed)
    t = x.astype(np.float64) + rng.choice([-1, 1], shape) * rng.choice([0.2, 0.5, 1, 3], shape)  # away from kinks
    if reduction == "mean" and not x.size:
        with pytest.raises(ValueError, match=f"{name}: there are no losses to average"):
            function(x, t)
        return
    each = value(x.astype(np.float64) - t)
    expected = each if reduction == "none" else getattr(each, reduction)()
    loss, tolerance = function(x, t, reduction=reduction), 1e-5 if x.dtype == np.float32 else 1e-12
    assert loss.dtype == x.dtype and loss.shape == np.shape(expected)
    np.testing.assert_allclose(loss.data, expected, rtol=tolerance, atol=tolerance)
    check_gradients(lambda x, t: function(x, t, reduction=reduction), x, t.astype(x.dtype), order=order, rng=seed)


@losses
@some
@given(seeds, st.sampled_from([np.float16, np.float32, np.float64]))
def test_gradients_of_errors_of_every_magnitude(name: str, seed: int, dtype: Any) -> None:
    function, _, slope = LOSSES[name]
    rng, info = np.random.default_rng(seed), np.finfo(dtype)
    exponents = rng.uniform(info.minexp, info.maxexp - 12, 64)
    x = (rng.choice([-1, 1], 64) * np.exp2(exponents)).astype(dtype)
    g = (rng.choice([-1, 1], 64) * np.exp2(rng.uniform(-9, 9, 64))).astype(dtype)
    leaf = Tensor(x, requires_grad=True)
    with np.errstate(over="ignore", under="ignore"):
        (found,) = tg.grad(function(leaf, np.zeros(64), reduction="none"), [leaf], gradient=g)
    true = g.astype(np.longdouble) * slope(x.astype(np.longdouble))
    errors = np.abs(found.data - true) / np.spacing(np.abs(true.astype(dtype)))
    assert found.dtype == dtype and errors.max() <= 4


@losses
def test_at_kinks_and_where_numbers_are_not_finite(name: str) -> None:
    function, _, slope = LOSSES[name]
    x = Tensor([0.0, -0.0, 0.7, -0.7, np.inf, -np.inf], requires_grad=True)
    (g,) = tg.grad(function(x, np.zeros(6), reduction="sum"), [x])
    np.testing.assert_array_equal(g.data, slope(x.data))
    x = Tensor([np.nan, 1.0], requires_grad=True)
    loss = function(x, [0.0, 1.0], reduction="none")
    assert np.isnan(loss.data).tolist() == [True, False]
    (g,) = tg.grad(loss, [x])[:1] if loss.shape == () else tg.grad(loss, [x], gradient=[1.0, 1.0])
    assert np.isnan(g.data[0]) == (name != "l1_loss") and g.data[1] == 0


@losses
def test_dtypes_are_those_of_the_prediction(name: str) -> None:
    function, value, _ = LOSSES[name]
    for dtype in (np.float16, np.float32, np.float64):
        for target in (np.array([3, 0]), np.array([3.0, 0.0]), np.array([True, False]), [3, 0]):
            loss = function(np.array([1, 2], dtype), target)
            assert loss.dtype == dtype
            expected = value(np.array([1.0, 2.0]) - np.asarray(target, float)).mean()
            np.testing.assert_allclose(loss.item(), expected, rtol=1e-3)
    small = np.array([200, 3], np.uint8)  # whose differences do not wrap around
    assert function(small, small[::-1]).item() == function(small.astype(float), small[::-1].astype(float)).item()
    half = np.full(4, 250, np.float16)
    assert tg.mse_loss(half, np.zeros(4)).item() == 62496  # in half precision the sum of the squares would overflow


@losses
def test_shapes_that_differ_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: the prediction has shape \(4, 1\), the target \(4,\).*reshape"):
        LOSSES[name][0](np.zeros((4, 1)), np.zeros(4))
    with pytest.raises(ValueError, match=f"{name}: reduction is None; it must be one of 'mean'"):
        LOSSES[name][0](np.zeros(4), np.zeros(4), reduction=None)


@pytest.mark.parametrize("delta", [0, -1.0, np.nan, np.inf, "1"])
def test_delta_is_above_0(delta: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="huber_loss: delta is"):
        tg.huber_loss([1.0], [0.0], delta=delta)


# Planted errors -------------------------------------------------------------------------------------------------------
plants("mse_loss: half of it", tg.mse_loss, normal((3,), (3,)))(lambda right, *rest: right / 2)
plants("mse_loss: both arguments alike", tg.mse_loss, normal((3,), (3,)), kind="sign", argument=1)(
    lambda right, *rest: -right
)
plants("l1_loss: a sum", tg.l1_loss, distinct((3,), (3,)))(lambda right, *rest: 3 * right)
plants("huber_loss: beyond delta as before it", tg.huber_loss, signed((4,), (4,)), kind="some entries")(
    lambda right, g, out, x, t: tg.where(right > 0, 1.0, -1.0) * g * tg.abs(x - t) / 4
)
