"""The network with the mistakes of the paper's listings: each changes what it should, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reproduction.listed import ListedLoss, ListedNet, ListedSettings

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(
    st.integers(1, 6),
    st.integers(2, 5),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 1e-7, 1e-2]),
    st.integers(0, 2**32 - 1),
)
def test_the_listed_loss_is_what_the_listing_says(
    n: int, classes: int, over_batch: bool, one_hot: bool, eps: float, seed: int
) -> None:
    draws = rng(seed)
    logits, chosen = 3 * draws.normal(size=(n, classes)), draws.integers(0, classes, n)
    powers = np.exp(logits - logits.max())
    probabilities = powers / powers.sum() if over_batch else powers / powers.sum(axis=1, keepdims=True)
    expected = -sum(np.log(probabilities[i, chosen[i]] + eps) for i in range(n)) / n
    loss, target = ListedLoss(eps, over_batch), np.eye(classes, dtype=int)[chosen] if one_hot else chosen
    assert loss(tg.Tensor(logits), target).item() == pytest.approx(expected, rel=1e-12)
    tg.testing.check_gradients(lambda x: loss(x, target), logits, order=2)
    if over_batch and not eps:
        assert expected >= np.log(n) - 1e-12, "the reason why the paper's losses were not computed in this way"


def test_the_listed_loss_without_mistakes_is_the_cross_entropy() -> None:
    logits, target = rng().normal(size=(5, 4)), np.array([0, 3, 1, 1, 2])
    assert ListedLoss(eps=0)(tg.Tensor(logits), target).item() == pytest.approx(
        tg.cross_entropy(logits, target).item(), rel=1e-12
    )
    assert (
        repr(ListedNet(loss_eps=1e-7, softmax_over_batch=True).layers[-1]) == "ListedLoss(eps=1e-07, over_batch=True)"
    )


def test_each_mistake_changes_what_it_should_and_nothing_else() -> None:
    model = DeepConvNet(rng=rng())
    images, labels = tg.data.synthetic_digits(4, rng=rng())
    raw = ListedNet(rng=rng(), divisor=1)
    np.testing.assert_array_equal(raw.input(images).data, images[:, None].astype(np.float32))
    np.testing.assert_allclose(raw.input(images).data, 255 * model.input(images).data, rtol=1e-6)
    assert np.array_equal(raw.input(images / 255).data, model.input(images / 255).data), "floats are taken as they are"
    listed = ListedNet(rng=rng(), affine_fan_in=1024)
    for (name, p), q in zip(tg.nn.parameters(model).items(), tg.nn.parameters(listed).values(), strict=True):
        assert p.dtype == q.dtype
        np.testing.assert_allclose(
            q.data, p.data / 2 if name == "layers.15.weight" else p.data, rtol=1e-6
        )  # √(256 / 1024)
    wide = ListedNet(rng=rng(), dtype=np.float64)
    assert wide.loss(images, labels, rng=rng(1)).dtype == np.float64
    np.testing.assert_allclose(
        wide.loss(images, labels, rng=rng(1)).data, model.loss(images, labels, rng=rng(1)).data, rtol=1e-5
    )


def test_mistakes_that_are_none_are_refused() -> None:
    for wrong in ({"divisor": 0}, {"divisor": float("nan")}, {"loss_eps": -1e-7}, {"affine_fan_in": 0}):
        with pytest.raises(ValueError, match="ListedNet: divisor is .* must be above 0"):
            ListedNet(**wrong)
    for target in ([0, 4], [-1, 2], [0.5, 1]):
        with pytest.raises(ValueError, match="ListedLoss: target has .* the classes are 0 to 3"):
            ListedLoss()(tg.Tensor(np.zeros((2, 4))), target)


def test_without_mistakes_it_is_the_same_network() -> None:
    images, labels = tg.data.synthetic_digits(4, rng=rng())
    one, other = DeepConvNet(rng=rng(), depth=5), ListedNet(rng=rng(), depth=5)
    for model in (one, other):
        model.loss(images, labels, rng=rng(1)).backward()
    for p, q in zip(tg.nn.parameters(one).values(), tg.nn.parameters(other).values(), strict=True):
        assert p.data.tobytes() == q.data.tobytes() and p.grad.data.tobytes() == q.grad.data.tobytes()


def test_settings_describe_the_network() -> None:
    settings = ListedSettings(divisor=1, affine_fan_in=1024, loss_eps=1e-7, dtype="float64", depth=4, dropout=0.3)
    model = settings.network(rng())
    assert (model.divisor, model.dtype, len(model.layers), model.layers[-1].eps) == (1, np.float64, 16, 1e-7)
    assert [layer.p for layer in model.layers if isinstance(layer, tg.nn.Dropout)] == [0.3, 0.5]
