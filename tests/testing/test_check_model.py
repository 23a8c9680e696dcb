"""`check_model`: a right model passes, a wrong rule is found and named, and the model stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist.testing import GradientMismatch, InconclusiveWarning, check_model


@tg.primitive
def mistaken(x: Any) -> Any:
    return np.sin(x)


mistaken.defvjp(lambda g, out, x: g * tg.cos(x) * 1.001)


class Model:
    """Two layers, a running mean, dropout and noise from a generator of its own; the first weight is used twice."""

    def __init__(self, dtype: Any = np.float64, between: Callable[..., Any] = tg.tanh) -> None:
        rng = np.random.default_rng(0)
        self.layers = [tg.nn.Linear(2, 2, rng=rng, dtype=dtype), tg.nn.Linear(2, 2, rng=rng, dtype=dtype)]
        self.shared, self.between = (self.layers[0].weight,), between
        self.mean, self.noise = tg.nn.Buffer(np.zeros(2, dtype)), np.random.default_rng(1)
        self.frozen = tg.Tensor(np.full(2, 0.5, dtype))

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
        hidden = self.between(self.layers[0](x)) + self.frozen * (x @ self.shared[0])
        if rng is None:
            return self.layers[1](hidden - self.mean)
        scale = 1 + self.mean.data  # of the calls before, of which a check must see none
        self.mean.data = self.mean.data * 0.9 + hidden.data.mean(axis=0) * 0.1
        hidden = hidden * scale + self.noise.normal(size=hidden.shape).astype(hidden.dtype)
        return self.layers[1](tg.dropout(hidden, 0.3, rng))


X, LABELS = np.random.default_rng(2).normal(size=(3, 2)), [0, 1, 1]


def everything(model: Any) -> Any:
    state = {name: (a.tobytes(), a.dtype) for name, a in tg.nn.state_dict(model).items()}
    return state, model.noise.bit_generator.state, [id(p.data) for p in tg.nn.parameters(model).values()]


@settings(max_examples=max(settings().max_examples // 4, 4))
@given(st.sampled_from([np.float32, np.float64]), st.sampled_from([1, 1, 2]), st.booleans(), st.integers(0, 2**32 - 1))
def test_right_models_pass_and_stay_as_they_were(dtype: Any, order: int, training: bool, seed: int) -> None:
    model = Model(dtype)
    before = everything(model)
    x = X.astype(dtype)
    assert check_model(model, x, LABELS, order=order, training=training, rng=seed).verdict == "pass"
    assert everything(model) == before and all(p.grad is None for p in tg.nn.parameters(model).values())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("training", [True, False])
def test_a_mistake_is_found_and_named_by_the_path_of_a_parameter(dtype: Any, training: bool) -> None:
    model = Model(dtype, mistaken)
    before = everything(model)
    with pytest.raises(GradientMismatch) as caught:
        check_model(model, X, LABELS, training=training)
    text = str(caught.value)
    assert text.startswith("the loss by layers.0.") and "input" not in text.replace("*inputs", "")
    assert "layers.1" not in text, "the rule of another layer is right"
    assert "Model, order 1; 4 parameters, 12 numbers" in text and "check_model(model, *inputs, rng=0" in text
    assert ("training=False" in text) is not training and everything(model) == before


def test_the_order_and_the_seed_are_those_that_are_asked_for() -> None:
    model = tg.nn.Sequential(tg.nn.Linear(1, 1, rng=np.random.default_rng(0)))
    seed = np.random.default_rng(3).integers(2**32)

    def loss(out: tg.Tensor, labels: Any) -> tg.Tensor:
        return bent(out).sum()

    check_model(model, [[0.5]], [0], loss=loss)
    for rng, shown in ((7, 7), (np.random.default_rng(3), seed)):
        with pytest.raises(GradientMismatch, match=rf"order 2; (?s:.*)order=2, rng={shown}, loss=loss"):
            check_model(model, [[0.5]], [0], loss=loss, order=2, rng=rng)


@tg.primitive
def bent(x: Any) -> Any:
    return np.sin(x)


@bent.defvjp
def _(g: tg.Tensor, out: tg.Tensor, x: tg.Tensor) -> tg.Tensor:
    at = x.detach()
    return g * (tg.cos(at) + tg.sin(at) * (x - at))  # the sign of the derivative of this one is wrong


def test_a_loss_may_be_given_and_inputs_may_be_several() -> None:
    class Pair:
        def __init__(self) -> None:
            self.weight = tg.Tensor(np.array([[0.5, -1.0]]), requires_grad=True)

        def __call__(self, x: Any, y: Any, rng: Any = None) -> tg.Tensor:
            penalty = sum((p**2).sum() for p in tg.nn.parameters(self).values())
            return x @ self.weight * tg.as_tensor(y) + penalty

    x, y, labels = np.ones((3, 1)), np.arange(6.0).reshape(3, 2), np.ones((3, 2))
    assert check_model(Pair(), x, y, labels, loss=lambda out, to: ((out - to) ** 2).mean(), order=2).verdict == "pass"
    assert check_model(Pair(), tg.Tensor(x), y, [0, 1, 1]).verdict == "pass"


def test_a_kink_is_named_by_its_parameter() -> None:
    model = tg.nn.Sequential(tg.nn.Linear(2, 3, rng=np.random.default_rng(0)), tg.nn.ReLU())
    with pytest.warns(InconclusiveWarning, match=r"^check_model: inconclusive at a kink: .*layers\.0\.bias.* biases"):
        report = check_model(model, np.zeros((2, 2)), [0, 1])
    assert report.verdict == "inconclusive" and "layers.0.bias" in report.notes[0]
    assert check_model(model, np.zeros((2, 2)), [0, 1], inconclusive="ignore") == report


class Odd:
    """A model that does something that it must not."""

    def __init__(self, how: str) -> None:
        self.how, self.weight, self.calls = how, tg.Tensor(np.ones(3), requires_grad=how != "frozen"), 0
        if how == "not finite":
            self.weight.data[1] = np.nan

    def __call__(self, x: Any, rng: Any = None) -> Any:
        self.calls += 1
        out = x * self.weight * (self.calls if self.how == "counts" else 1)
        if self.how == "replaced":
            self.weight = tg.Tensor(self.weight.data * 0.9, requires_grad=True)
        if self.how == "fails":
            raise RuntimeError("out of order")
        return {"cut": out.detach(), "array": out.data, "infinite": out / 0.0}.get(self.how, out)


@pytest.mark.parametrize(
    ("how", "options", "error", "message"),
    [
        ("frozen", {}, ValueError, "check_model: Odd has no parameters: no Tensor in it requires"),
        ("cut", {}, ValueError, "check_model: the loss depends on no parameter"),
        ("replaced", {}, ValueError, r"check_model: a call of the model replaces weight; .*tg\.nn\.Buffer"),
        ("counts", {}, ValueError, "check_model: the loss differs from call to call"),
        ("not finite", {}, ValueError, "^check_model: weight is nan"),
        ("infinite", {"loss": lambda out, labels: out.sum()}, ValueError, "^check_model: the loss is nan"),
        ("fails", {}, RuntimeError, "^out of order$"),
        ("sound", {"loss": lambda out, labels: out}, TypeError, r"the loss is float64 \(3, 3\); it must be a scalar"),
        ("sound", {"loss": lambda out, labels: 1.0}, TypeError, "the loss is float; it must be a scalar Tensor"),
        ("sound", {"inconclusive": "no"}, ValueError, "^check_model: inconclusive must be"),
        ("sound", {"order": 4}, ValueError, "^check_model: order must be 1, 2 or 3"),
        ("sound", {"rng": 0.5}, TypeError, "^check_model: the seed rng"),
    ],
)
def test_what_cannot_be_checked_is_refused_and_the_model_is_as_before(
    how: str, options: Any, error: Any, message: str
) -> None:
    model = Odd(how)
    weight, array = model.weight, model.weight.data
    with pytest.raises(error, match=message), np.errstate(all="ignore"):
        check_model(model, np.eye(3), [0, 1, 2], **options)
    assert weight.data is array and array.tolist() in ([1, 1, 1], [1, pytest.approx(np.nan, nan_ok=True), 1])


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ((np.eye(3), [0, 1]), "3 images and 2 labels"),
        ((np.eye(3), 1), "3 images and 0 labels"),
        ((np.zeros((0, 3)), []), "0 images and 0 labels"),
        ((np.eye(3),), "pass inputs and labels"),
    ],
)
def test_labels_must_be_as_many_as_images(given_: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^check_model: {message}"):
        check_model(Odd("sound"), *given_)
