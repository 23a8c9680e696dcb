"""Softmax and its relations, and the loss, against their textbook formulas and at the extremes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from op_checks import Array, dtypes, orders, seeds
from planted import distinct, normal, plants, vjp

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import (
    arrays,
    axes,
    check_gradients,
)

softs = pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])


def naive(name: str, x: Array, axis: Any) -> Any:
    e = np.exp(x.astype(np.longdouble))
    total = e.sum(axis=axis, keepdims=name != "logsumexp")
    return {"softmax": lambda: e / total, "log_softmax": lambda: x - np.log(total), "logsumexp": lambda: np.log(total)}[
        name
    ]()


# Softmax, log_softmax, logsumexp --------------------------------------------------------------------------------------


@softs
@given(st.data(), hnp.array_shapes(max_dims=3, max_side=3), orders, seeds)
def test_values_and_derivatives(name: str, data: Any, shape: tuple[int, ...], order: int, seed: int) -> None:
    axis, x, function = data.draw(axes(len(shape))), data.draw(arrays(shape, dtypes)), getattr(tg, name)
    out, expected, tolerance = function(x, axis), naive(name, x, axis), 100 * np.finfo(x.dtype).eps
    assert out.dtype == x.dtype and out.shape == expected.shape
    np.testing.assert_allclose(out.data, expected.astype(np.float64), rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(getattr(Tensor(x), name)(axis=axis).data, out.data)
    check_gradients(lambda x: function(x, axis), x, order=order, rng=seed)
    if name == "logsumexp":
        assert function(x, axis, keepdims=True).shape == x.sum(axis=axis, keepdims=True).shape
    else:
        np.testing.assert_array_equal(function(x).data, function(x, -1).data)


@softs
@given(arrays((2, 4)), st.sampled_from([-1e4, -1e3, 1e3, 1e4]))
def test_a_shift_of_the_scores_changes_nothing(name: str, x: Array, shift: float) -> None:
    function = getattr(tg, name)
    for moved in (x + shift, x + [[shift], [-shift]]):
        expected = function(x, axis=1).data + (moved[:, 0] - x[:, 0] if name == "logsumexp" else 0)
        np.testing.assert_allclose(function(moved, axis=1).data, expected, rtol=1e-11)
    check_gradients(lambda x: function(x + [[shift], [0.0]], axis=1), x)


def test_rows_of_very_different_scores() -> None:
    x = Tensor([[1e4, -1e4, 0.0], [1e-4, -1e-4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]], requires_grad=True)
    out = tg.log_softmax(x)
    np.testing.assert_allclose(
        out.data[[0, 2, 3]], [[0, -2e4, -1e4], [-np.log(3)] * 3, [-np.log(2), -np.log(2), -2e4 - np.log(2)]], rtol=1e-12
    )
    np.testing.assert_allclose(out.data[1], x.data[1] - np.log(np.exp(x.data[1]).sum()), rtol=1e-12)
    (g,) = tg.grad(out, [x], gradient=np.eye(4, 3))
    third = 1 / 3
    np.testing.assert_allclose(g.data[[0, 2, 3]], [[0, 0, 0], [-third, -third, 1 - third], [0, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(tg.softmax(x).data[3], [0.5, 0.5, 0], atol=1e-15)
    single = Tensor(x.data.astype(np.float32), requires_grad=True)
    np.testing.assert_allclose(tg.log_softmax(single).data, out.data, rtol=1e-6)
    assert np.isfinite(tg.grad(tg.log_softmax(single).sum(), [single])[0].data).all()


def test_minus_infinity_is_a_class_that_cannot_be() -> None:
    x = Tensor([[0.0, -np.inf, np.log(3)], [-np.inf, -np.inf, 5.0]], requires_grad=True)
    np.testing.assert_allclose(tg.softmax(x).data, [[0.25, 0, 0.75], [0, 0, 1]], rtol=1e-14)
    np.testing.assert_allclose(
        tg.log_softmax(x).data, [[np.log(0.25), -np.inf, np.log(0.75)], [-np.inf, -np.inf, 0]], atol=1e-14
    )
    np.testing.assert_allclose(tg.logsumexp(x, axis=1).data, [np.log(4), 5], rtol=1e-14)
    np.testing.assert_allclose(
        tg.grad(tg.logsumexp(x, axis=1), [x], gradient=[1.0, -2.0])[0].data, [[0.25, 0, 0.75], [0, 0, -2]], rtol=1e-14
    )
    np.testing.assert_allclose(
        tg.grad(tg.softmax(x)[:, 0].sum(), [x])[0].data, [[0.1875, 0, -0.1875], [0, 0, 0]], atol=1e-14
    )
    loss = tg.cross_entropy(x, [2, 2])
    np.testing.assert_allclose(loss.item(), -np.log(0.75) / 2, rtol=1e-14)
    np.testing.assert_allclose(tg.grad(loss, [x])[0].data, [[0.125, 0, -0.125], [0, 0, 0]], atol=1e-14)


def test_nothing_but_minus_infinity() -> None:
    x = np.full((2, 3), -np.inf)
    with np.errstate(divide="ignore"):
        assert tg.logsumexp(x, axis=1).data.tolist() == [-np.inf, -np.inf]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_class_has_a_probability_where_one_is_infinite(dtype: Any) -> None:
    """As in PyTorch: a finite loss or gradient would hide that something has overflowed."""
    x = Tensor(np.array([[np.inf, 1, 2], [0, 0, 0]], dtype), requires_grad=True)
    for op in (tg.softmax, tg.log_softmax):
        out = op(x)
        assert np.isnan(out.data[0]).all() and np.isfinite(out.data[1]).all()
        assert np.isnan(tg.grad(out[:, 2].sum(), [x])[0].data).tolist() == [[True] * 3, [False] * 3]
    assert np.isnan(tg.cross_entropy(x, [2, 0]).item())
    assert tg.logsumexp(x, -1).data[0] == np.inf


@pytest.mark.parametrize("function", [tg.softmax, tg.log_softmax, tg.logsumexp])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.bool_])
def test_scores_may_be_integers(function: Callable[..., Tensor], dtype: Any) -> None:
    """Their differences, -200 among them, do not wrap around."""
    scores = np.array([[-100, 100, 3], [1, 0, 1]]).astype(dtype)
    found, expected = (function(x, axis=1) for x in (scores, scores.astype(np.float64)))
    np.testing.assert_array_equal(found.data, expected.data, strict=True)


# Cross entropy --------------------------------------------------------------------------------------------------------


@given(arrays(st.tuples(st.integers(1, 4), st.integers(1, 5)), dtypes), orders, seeds)
def test_class_indices_are_short_for_one_hot_rows(x: Array, order: int, seed: int) -> None:
    (n, classes), rng = x.shape, np.random.default_rng(seed)
    target = rng.integers(0, classes, n)
    expected = -np.mean(naive("log_softmax", x, 1)[np.arange(n), target])
    one_hot = np.eye(classes)[target]
    for t in (
        target,
        target.tolist(),
        Tensor(target),
        target.astype(np.uint8),
        one_hot,
        Tensor(one_hot),
        one_hot.astype(int),
        one_hot > 0,
    ):
        loss = tg.cross_entropy(x, t)
        assert loss.shape == () and loss.dtype == x.dtype
        np.testing.assert_allclose(
            loss.item(), expected, rtol=(tolerance := 100 * np.finfo(x.dtype).eps), atol=tolerance
        )
    check_gradients(tg.cross_entropy, x, target, order=order, rng=seed)
    check_gradients(tg.cross_entropy, x, rng.random(x.shape), order=order, rng=seed)  # any weights, differentiable too


@given(arrays(st.tuples(st.integers(1, 4), st.integers(1, 5)), dtypes), st.floats(0, 1), orders, seeds)
def test_label_smoothing_spreads_a_share_of_each_target(x: Array, smoothing: float, order: int, seed: int) -> None:
    (n, classes), rng = x.shape, np.random.default_rng(seed)
    target, weights, eps = rng.integers(0, classes, n), rng.random(x.shape), 100 * np.finfo(x.dtype).eps
    for rows, given_target in ((np.eye(classes)[target], target), (weights, weights)):
        spread = (1 - smoothing) * rows + smoothing / classes
        expected = -np.sum(spread * naive("log_softmax", x, 1)) / n
        loss = tg.cross_entropy(x, given_target, label_smoothing=smoothing)
        assert loss.shape == () and loss.dtype == x.dtype
        np.testing.assert_allclose(loss.item(), float(expected), rtol=eps, atol=eps)
        check_gradients(lambda x, t: tg.cross_entropy(x, t, smoothing), x, given_target, order=order, rng=seed)


def test_label_smoothing_reaches_half_precision_and_classes_that_cannot_be() -> None:
    x = np.array([[3.0, -1.0, 0.5], [0.0, 2.0, -4.0]], np.float16)
    half, full = (tg.cross_entropy(x.astype(kind), [0, 2], 0.25) for kind in (np.float16, np.float64))
    assert half.dtype == np.float16
    np.testing.assert_allclose(half.item(), full.item(), rtol=1e-3)
    assert tg.cross_entropy([[0.0, -np.inf]], [0], 0.1).item() == np.inf  # as in PyTorch: that class has a share
    assert tg.cross_entropy([[0.0, -np.inf]], [0]).item() == 0


@pytest.mark.parametrize("smoothing", [-0.1, 1.5, np.nan, "0.1", None])
def test_label_smoothing_is_a_share(smoothing: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="cross_entropy: label_smoothing"):
        tg.cross_entropy(np.zeros((2, 3)), [0, 1], label_smoothing=smoothing)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float32, np.float64, np.bool_])
def test_the_loss_of_float32_scores_is_float32(kind: npt.DTypeLike) -> None:
    """The target's type is bookkeeping, like the type of a Python number: it must not decide the precision."""
    x = Tensor(np.zeros((2, 3), np.float32), requires_grad=True)
    targets: list[Array] = [np.eye(3)[[0, 2]].astype(kind)]
    if np.dtype(kind).kind in "iu":
        targets.append(np.array([0, 2], kind))
    for target in targets:
        loss = tg.cross_entropy(x, target)
        assert loss.dtype == np.float32 and tg.grad(loss, [x])[0].dtype == np.float32
        np.testing.assert_allclose(loss.item(), np.log(3), rtol=1e-6)


def test_cross_entropy_at_the_extremes() -> None:
    x = Tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    assert tg.cross_entropy(x, [0, 1]).item() == 0.0
    wrong = tg.cross_entropy(x, [1, 1])
    assert wrong.item() == 1e4 and tg.grad(wrong, [x])[0].data.tolist() == [[0.5, -0.5], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("shape", "target", "message"),
    [
        ((2, 3), [0, 3], r"target\[1\] is 3, but the classes are 0 to 2"),
        ((2, 3), [-1, 0], r"target\[0\] is -1"),
        ((2, 3), [0, 1, 2], r"target is int64 \(3,\), logits are \(2, 3\).*\(2,\).*\(2, 3\)"),
        ((2, 3), [[0], [1]], r"int64 \(2, 1\)"),
        ((2, 3), [0.0, 1.0], r"float64 \(2,\).*integer class indices"),
        ((2, 3), [True, False], r"bool \(2,\)"),
        ((2, 3), 1, r"int64 \(\)"),
        ((2, 3), np.eye(3), r"float64 \(3, 3\)"),
        ((3,), [0], r"logits have shape \(3,\).*\(N, K\)"),
        ((0, 3), np.zeros(0, int), r"shape \(0, 3\).*at least one row"),
        ((2, 0), [0, 0], r"shape \(2, 0\).*one class"),
        ((2, 3, 4), [0, 0], r"shape \(2, 3, 4\)"),
    ],
)
def test_cross_entropy_explains_bad_targets(shape: tuple[int, ...], target: Any, message: str) -> None:
    with pytest.raises(ValueError, match="cross_entropy.*" + message):
        tg.cross_entropy(np.zeros(shape), target)


# Planted errors -------------------------------------------------------------------------------------------------------
ROWS = np.array([0.2, 0.5, 1.5])


@plants("cross_entropy: not divided by the batch", lambda x: tg.cross_entropy(x, [0, 2, 1]), normal((3, 3)))
def _(right, *rest):
    return right * 3


@plants("cross_entropy: hard labels in the gradient", lambda x: tg.cross_entropy(x, [0, 2, 1], 0.2), normal((3, 3)))
def _(right, g, out, x):
    return vjp(lambda x: tg.cross_entropy(x, [0, 2, 1]), 0, g, x)


@plants("logsumexp: normalized along the wrong axis", lambda x: tg.logsumexp(x, 1), normal((3, 3)), kind="axes")
def _(right, g, out, x):
    return tg.softmax(x, 0) * tg.expand_dims(g, 1)


@plants("softmax: summed along the wrong axis", tg.softmax, normal((3, 3)), kind="axes")
def _(right, g, out, x):
    return out * (g - tg.sum(g * out, 0, keepdims=True))


@plants("softmax: of the whole batch", tg.softmax, normal((2, 3)), kind="axes")
def _(right, g, out, x):
    return out * (g - tg.sum(g * out))


@plants("cross_entropy: the class before", lambda x: tg.cross_entropy(x, [1, 2, 1]), normal((3, 3)), kind="indices")
def _(right, g, out, x):
    return vjp(lambda x: tg.cross_entropy(x, [0, 1, 0]), 0, g, x)


@plants("softmax: none at all, right for ones", tg.softmax, normal((2, 3)), kind="cotangent")
def _(right, *rest):
    return right * 0


@plants("log_softmax: counted, not summed, right for ones", tg.log_softmax, normal((2, 3)), kind="cotangent")
def _(right, g, out, x):
    return g - tg.exp(out) * 3


@plants(
    "cross_entropy: weights as if they added up to 1",
    lambda x: tg.cross_entropy(x, np.outer(ROWS, ROWS)),
    normal((3, 3)),
    kind="choice",
)
def _(right, g, out, x):
    return g * (tg.softmax(x) - np.outer(ROWS, ROWS)) / 3


@plants("logsumexp: the shift differentiated", tg.logsumexp, distinct((4,)), kind="choice")
def _(right, g, out, x):
    return right + vjp(tg.max, 0, g, x)


@plants("softmax: only the diagonal", tg.softmax, normal((2, 3)), kind="choice")
def _(right, g, out, x):
    return g * out * (1 - out)


@plants("softmax: output constant", tg.softmax, normal((2, 3)), kind="second order", order=2)
def _(right, g, out, x):
    return (lambda p: p * (g - tg.sum(g * p, -1, keepdims=True)))(out.detach())


@plants("logsumexp: weights constant", tg.logsumexp, normal((4,)), kind="second order", order=2)
def _(right, g, out, x):
    return g * tg.softmax(x.detach())
