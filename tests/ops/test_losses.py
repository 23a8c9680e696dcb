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
from op_checks import Array, dtypes, orders, seeds, some
from planted import between, distinct, normal, plants, vjp

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
        ((2, 3, 4), [0, 0], r"int64 \(2,\), logits are \(2, 3, 4\).*\(2, 4\)"),
    ],
)
def test_cross_entropy_explains_bad_targets(shape: tuple[int, ...], target: Any, message: str) -> None:
    with pytest.raises(ValueError, match="cross_entropy.*" + message):
        tg.cross_entropy(np.zeros(shape), target)


# Class weights, other reductions, more axes, targets to be ignored ----------------------------------------------------
reductions = st.sampled_from(["mean", "sum", "none"])


@st.composite
def class_cases(draw: Any) -> tuple[Array, Array, dict[str, Any]]:
    """Scores (N, K, ...), targets, and settings."""
    n, classes, *rest = shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
        *draw(hnp.array_shapes(max_side=2, max_dims=2, min_dims=0)),
    )
    x, rng = draw(arrays(shape, dtypes)), np.random.default_rng(draw(seeds))
    how: dict[str, Any] = {"reduction": draw(reductions)}
    if draw(st.booleans()):
        how["weight"] = rng.uniform(0.1, 3, classes)
    target = rng.integers(0, classes, (n, *rest))
    if draw(st.booleans()):
        how["ignore_index"] = draw(st.sampled_from([-100, -1, classes]))
        target = np.where(rng.random(target.shape) < 0.3, how["ignore_index"], target)
        target.flat[0] = 0
    return x, target, how


def by_loops(x: Array, target: Array, how: dict[str, Any], smoothing: float = 0.0) -> Any:
    """Return the loss, one target at a time."""
    log_p, k = naive("log_softmax", x, 1), x.shape[1]
    weight, losses, total = how.get("weight", np.ones(k)), np.zeros(target.shape, np.longdouble), 0.0
    for place in np.ndindex(target.shape):
        row, label = log_p[(place[0], slice(None), *place[1:])], target[place]
        if label != how.get("ignore_index"):
            share = (1 - smoothing) * np.eye(k)[label] + smoothing / k
            losses[place] = -(share * weight * row).sum()
            total += weight[label]
    return {"mean": lambda: losses.sum() / total, "sum": losses.sum, "none": lambda: losses}[how["reduction"]]()


@some
@given(class_cases(), st.sampled_from([0.0, 0.0, 0.3, 1.0]), orders, seeds)
def test_each_target_counts_by_its_weight(case: Any, smoothing: float, order: int, seed: int) -> None:
    x, target, how = case
    loss, expected = tg.cross_entropy(x, target, smoothing, **how), by_loops(x, target, how, smoothing)
    assert loss.dtype == x.dtype and loss.shape == np.shape(expected)
    tolerance = 100 * np.finfo(x.dtype).eps
    np.testing.assert_allclose(loss.data, np.float64(expected), rtol=tolerance, atol=tolerance)
    check_gradients(lambda x: tg.cross_entropy(x, target, smoothing, **how), x, order=order, rng=seed)
    if not smoothing:
        np.testing.assert_allclose(
            tg.nll_loss(tg.log_softmax(x, 1), target, **how).data, loss.data, rtol=tolerance, atol=tolerance
        )
        check_gradients(lambda x: tg.nll_loss(x, target, **how), x, order=order, rng=seed)


@some
@given(class_cases(), st.sampled_from([0.0, 0.3]), seeds)
def test_the_mean_over_rows_divides_by_their_number(case: Any, smoothing: float, seed: int) -> None:
    x, labels, how = case
    how.pop("ignore_index", None)
    rows = np.random.default_rng(seed).random(x.shape)
    shares = ((1 - smoothing) * rows + smoothing / x.shape[1]) * naive("log_softmax", x, 1)
    losses = -(np.moveaxis(shares, 1, -1) * how.get("weight", np.ones(x.shape[1]))).sum(-1)
    expected = losses if how["reduction"] == "none" else getattr(losses, how["reduction"])()
    loss, tolerance = tg.cross_entropy(x, rows, smoothing, **how), 100 * np.finfo(x.dtype).eps
    assert loss.dtype == x.dtype and loss.shape == np.shape(expected)
    np.testing.assert_allclose(loss.data, np.float64(expected), rtol=tolerance, atol=tolerance)
    check_gradients(lambda x, t: tg.cross_entropy(x, t, smoothing, **how), x, rows, rng=seed)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_gradient_of_an_ignored_target_is_exactly_0(smoothing: float) -> None:
    x = Tensor(np.array([[1.0, 2.0], [-np.inf, 0.0], [3.0, 0.0]]), requires_grad=True)
    loss = tg.cross_entropy(x, [0, 9, 1], smoothing, ignore_index=9, reduction="none")
    assert loss.data[1] == 0
    (g,) = tg.grad(loss, [x], gradient=[1.0, np.inf, -2.0])
    assert g.data[1].tolist() == [0, 0] and np.isfinite(g.data).all()
    losses = tg.nll_loss(x, np.array([0, 255, 1], np.uint8), ignore_index=255, reduction="none")
    (g,) = tg.grad(losses, [x], gradient=[1.0, np.nan, -2.0])
    assert g.data.tolist() == [[-1, 0], [0, 0], [0, 2]]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_half_precision_is_computed_in_single_precision(reduction: str) -> None:
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(300, 5)).astype(np.float16), rng.integers(0, 2, (300, 5))
    for function in (
        lambda x: tg.cross_entropy(x, t[:, 0], 0.1, weight=np.full(5, 300.0), reduction=reduction),
        lambda x: tg.nll_loss(x, t[:, 0], reduction=reduction),
        lambda x: tg.binary_cross_entropy_with_logits(x, t, pos_weight=2, reduction=reduction),
        lambda x: tg.kl_div(x, t, reduction=reduction),
    ):
        with np.errstate(over="ignore"):  # some sums are beyond 65,504
            half, full = function(x), function(x.astype(np.float32))
            assert (half.dtype, full.dtype) == (np.float16, np.float32)
            np.testing.assert_array_equal(half.data, full.data.astype(np.float16), strict=True)


def test_nothing_adds_up_to_0_and_has_no_mean() -> None:
    empty = np.zeros((0, 3))
    for function in (tg.cross_entropy, tg.nll_loss):
        assert function(empty, np.zeros(0, int), reduction="sum").item() == 0
        assert function(empty, np.zeros(0, int), reduction="none").shape == (0,)
        with pytest.raises(ValueError, match=rf"{function.__name__}: .*shape"):
            function(empty, np.zeros(0, int))
        with pytest.raises(ValueError, match=rf"{function.__name__}: the weights of all targets add up to 0"):
            function(np.zeros((2, 3)), [1, 1], weight=[1, 0, 1])
        with pytest.raises(ValueError, match=rf"{function.__name__}: the weights of all targets add up to 0"):
            function(np.zeros((2, 3)), [7, 7], ignore_index=7)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"weight": [1.0, 2.0]}, r"weight has shape \(2,\); pass .* each of the 3 classes"),
        ({"weight": [1.0, -2.0, 1.0]}, "weight .*at least 0"),
        ({"weight": [1.0, np.nan, 1.0]}, "weight .*a finite number"),
        ({"weight": Tensor(np.ones(3), requires_grad=True)}, r"weight is a constant.*weight.detach\(\)"),
        ({"reduction": "avg"}, "reduction is 'avg'; it must be one of 'mean', 'sum', 'none'"),
        ({"ignore_index": 1.5}, "ignore_index is 1.5; it must be an integer"),
    ],
)
def test_settings_of_losses_of_classes_are_checked(how: dict[str, Any], message: str) -> None:
    for function in (tg.cross_entropy, tg.nll_loss):
        with pytest.raises((TypeError, ValueError), match=f"{function.__name__}: {message}"):
            function(np.zeros((2, 3)), [0, 1], **how)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cross_entropy: ignore_index is for class indices"):
        tg.cross_entropy(np.zeros((2, 3)), np.eye(3)[:2], ignore_index=0)
    with pytest.raises(ValueError, match=r"nll_loss: target\[1, 0\] is 3, but the classes are 0 to 2"):
        tg.nll_loss(np.zeros((2, 3, 2)), [[0, 1], [3, 0]])
    with pytest.raises(ValueError, match=r"nll_loss: target is float64 \(2, 3\), scores are \(2, 3\)"):
        tg.nll_loss(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"nll_loss: log_probabilities have shape \(3,\)"):
        tg.nll_loss(np.zeros(3), 1)


# Probabilities --------------------------------------------------------------------------------------------------------


@some
@given(st.data(), hnp.array_shapes(min_dims=0, max_dims=3, max_side=3), reductions, orders, seeds)
def test_yes_or_no_is_a_choice_between_two_classes(
    data: Any, shape: tuple[int, ...], reduction: str, order: int, seed: int
) -> None:
    x, rng = data.draw(arrays(shape, dtypes)), np.random.default_rng(seed)
    t = rng.random(shape) if rng.random() < 0.5 else rng.integers(0, 2, shape)
    weight, positive = rng.uniform(0.5, 2, shape[1:]), rng.uniform(0.5, 2, (1,) * len(shape))
    rows = np.stack([1 - t, t * positive]).reshape(2, -1)
    scores = np.stack([np.zeros_like(x), x]).reshape(2, -1)
    losses = -(rows * naive("log_softmax", scores, 0)).sum(0).reshape(shape) * weight
    expected = losses if reduction == "none" else getattr(losses, reduction)()
    how: dict[str, Any] = {"weight": weight, "pos_weight": positive, "reduction": reduction}
    loss, tolerance = tg.binary_cross_entropy_with_logits(x, t, **how), 100 * np.finfo(x.dtype).eps
    assert loss.dtype == x.dtype and loss.shape == np.shape(expected)
    np.testing.assert_allclose(loss.data, np.float64(expected), rtol=tolerance, atol=tolerance)
    check_gradients(lambda x: tg.binary_cross_entropy_with_logits(x, t, **how), x, order=order, rng=seed)
    check_gradients(
        lambda x, t, w, p: tg.binary_cross_entropy_with_logits(x, t, weight=w, pos_weight=p, reduction=reduction),
        x,
        t.astype(float),
        weight,
        positive,
        rng=seed,
    )


def test_no_for_sure_is_an_infinite_loss_unless_the_target_is_no() -> None:
    loss = tg.binary_cross_entropy_with_logits([-np.inf, -np.inf, np.inf], [0.25, 1.0, 0.0], reduction="none")
    assert loss.data.tolist() == [np.inf] * 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_scores_of_yes_or_no_neither_overflow_nor_cancel(dtype: Any) -> None:
    limit = {np.float32: 85.0, np.float64: 700.0}[dtype]
    values = np.array([-1e30, -limit, -90.0, -20.0, -1e-20, 0.0, 1e-20, 20.0, limit, 1e30], dtype)
    for target in (0.0, 1.0):
        x = Tensor(values, requires_grad=True)
        loss = tg.binary_cross_entropy_with_logits(x, np.full(10, target), reduction="none")
        wide = values.astype(np.longdouble) * (1 - 2 * target)  # log(1 + exp(wide))
        np.testing.assert_allclose(
            loss.data,
            np.float64(np.maximum(wide, 0) + np.log1p(np.exp(-np.abs(wide)))),
            rtol=4 * np.finfo(dtype).eps,
            atol=1e-44,
        )
        (first,) = tg.grad(loss, [x], create_graph=True, gradient=np.full(10, 1024, dtype))
        share = np.where(wide > 0, 1, np.exp(np.minimum(wide, 0))) / (1 + np.exp(-np.abs(wide)))
        np.testing.assert_allclose(
            first.data, np.float64(1024 * (1 - 2 * target) * share), rtol=8 * np.finfo(dtype).eps, atol=1e-44
        )
        (second,) = tg.grad(first.sum(), [x])
        np.testing.assert_allclose(
            second.data,
            np.float64(1024 * np.exp(-np.abs(wide)) / (1 + np.exp(-np.abs(wide))) ** 2),
            rtol=8 * np.finfo(dtype).eps,
            atol=1e-44,
        )


@some
@given(st.data(), hnp.array_shapes(max_dims=3, max_side=3), reductions | st.just("batchmean"), orders, seeds)
def test_divergences_follow_the_definition(
    data: Any, shape: tuple[int, ...], reduction: str, order: int, seed: int
) -> None:
    x, t = data.draw(arrays(shape, dtypes)), np.random.default_rng(seed).uniform(0.1, 1, shape)
    losses, tolerance = t * (np.log(t) - x.astype(np.longdouble)), 2000 * np.finfo(x.dtype).eps
    expected = {"mean": losses.mean(), "batchmean": losses.sum() / len(x), "sum": losses.sum(), "none": losses}[
        reduction
    ]
    for as_logarithms, target in ((False, t), (True, np.log(t))):
        how: dict[str, Any] = {"log_target": as_logarithms, "reduction": reduction}
        loss = tg.kl_div(x, target, **how)
        assert loss.dtype == x.dtype and loss.shape == np.shape(expected)
        np.testing.assert_allclose(loss.data, np.float64(expected), rtol=tolerance, atol=tolerance)
        check_gradients(lambda x, t, how=how: tg.kl_div(x, t, **how), x, target, order=order, rng=seed)


def test_a_divergence_of_what_cannot_be() -> None:
    x, t = (Tensor(v, requires_grad=True) for v in ([[-1.0, -2.0, -3.0]], [[0.0, 1.0, 0.5]]))
    loss = tg.kl_div(x, t, reduction="none")
    np.testing.assert_allclose(loss.data, [[0, 2, 0.5 * (np.log(0.5) + 3)]], rtol=1e-15)
    by_x, by_t = tg.grad(loss, [x, t], gradient=[[2.0, 1.0, 1.0]])
    assert by_x.data.tolist() == [[0, -1, -0.5]]
    np.testing.assert_allclose(by_t.data, [[2, 3, np.log(0.5) + 4]], rtol=1e-15)


def test_probabilities_that_do_not_fit_are_refused() -> None:
    x, zeros = np.zeros((2, 3)), np.zeros((0, 3))
    for function, name in ((tg.binary_cross_entropy_with_logits, "logits"), (tg.kl_div, "log_probabilities")):
        with pytest.raises(ValueError, match=rf"{function.__name__}: {name} has shape \(2, 3\), target \(3,\)"):
            function(x, np.zeros(3))
        with pytest.raises(ValueError, match=rf"{function.__name__}: reduction is 'avg'"):
            function(x, x, reduction="avg")
        with pytest.raises(ValueError, match=rf"{function.__name__}: there are no losses to average.*\(0, 3\)"):
            function(zeros, zeros)
        assert function(zeros, zeros, reduction="sum").item() == 0
    for name in ("weight", "pos_weight"):
        with pytest.raises(ValueError, match=rf"{name} has shape \(2,\); it must broadcast .*\(2, 3\)"):
            tg.binary_cross_entropy_with_logits(x, x, **{name: np.ones(2)})
        with pytest.raises(ValueError, match=rf"{name} has shape \(1, 2, 3\)"):
            tg.binary_cross_entropy_with_logits(x, x, **{name: np.ones((1, 2, 3))})
    with pytest.raises(ValueError, match="kl_div: .*axis 0"):
        tg.kl_div(0.0, 0.0, reduction="batchmean")


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


def weighted(x: Tensor) -> Tensor:
    return tg.cross_entropy(x, [0, 2, 1], weight=[1.0, 2.0, 3.0])


@plants("cross_entropy: divided by the batch, not by the weights", weighted, normal((3, 3)))
def _(right, *rest):
    return right * 2


@plants("cross_entropy: without the class weights", weighted, normal((3, 3)), kind="choice")
def _(right, g, out, x):
    return vjp(lambda x: tg.cross_entropy(x, [0, 2, 1]), 0, g, x)


@plants(
    "cross_entropy: ignored, but not in the smoothing",
    lambda x: tg.cross_entropy(x, [0, 7, 1], 0.3, ignore_index=7),
    normal((3, 3)),
    kind="some entries",
)
def _(right, g, out, x):
    return right + g * tg.where([[False], [True], [False]], 0.05 * (tg.softmax(x) - 1 / 3), 0.0)


@plants(
    "nll_loss: the classes along the last axis",
    lambda x: tg.nll_loss(x, [[0, 1], [1, 1]]),
    normal((2, 2, 2)),
    kind="axes",
)
def _(right, *rest):
    return tg.swapaxes(right, 1, 2)


YES = np.array([0.0, 1.0, 0.3])


@plants(
    "binary_cross_entropy_with_logits: the slope of no alone",
    lambda x: tg.binary_cross_entropy_with_logits(x, YES),
    normal((3,)),
    kind="choice",
)
def _(right, g, out, x):
    return g * tg.sigmoid(x) / 3


@plants(
    "binary_cross_entropy_with_logits: the sigmoid constant",
    lambda x: tg.binary_cross_entropy_with_logits(x, YES, reduction="sum"),
    normal((3,)),
    kind="second order",
    order=2,
)
def _(right, g, out, x):
    return g * (tg.sigmoid(x.detach()) - YES)


@plants("kl_div: the logarithm of the target constant", tg.kl_div, between(0.2, 1, (3,), (3,)), argument=1)
def _(right, g, out, x, t):
    return right - g / 3


@plants(
    "kl_div: the model's logarithms as probabilities",
    lambda x, t: tg.kl_div(x, t, log_target=True),
    normal((3,), (3,)),
    argument=0,
    kind="choice",
)
def _(right, g, out, x, t):
    return -g * tg.exp(x) / 3
