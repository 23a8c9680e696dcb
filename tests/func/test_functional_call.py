"""Models called with other parameters: as if these were loaded, differentiable, and nothing of the model changes."""

from __future__ import annotations

import functools
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_checks import seeds

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist import Tensor
from tinygrad_mnist.func import functional_call, grad, jacobian
from tinygrad_mnist.testing import check_gradients
from tinygrad_mnist.walk import walk

X = np.random.default_rng(0).normal(size=(4, 3))


def linear(seed: int, outputs: int = 3) -> tg.nn.Linear:
    return tg.nn.Linear(3, outputs, rng=np.random.default_rng(seed), dtype=np.float64)


class Pair(NamedTuple):
    first: Any
    second: Any


class Slotted:
    __slots__ = ("__hidden", "inner", "scale")

    def __init__(self, inner: Any, hidden: Any) -> None:
        self.inner, self.__hidden, self.scale = inner, hidden, Tensor(np.array(0.5), requires_grad=True)

    def __call__(self, x: Any) -> Tensor:
        return self.inner(x) * self.scale + self.__hidden(x)


class Layers(list[Any]):
    extra: Any = None


def unfinished() -> Callable[[], Any]:
    """Return a function whose closure is empty yet."""

    def function() -> Any:
        return later

    if not function:
        later = None
    return function


class Applied(functools.partial[Any]):
    def __call__(self, x: Any) -> Any:  # type: ignore[override]
        return self.layer(x)


def applied(layer: Any) -> Any:
    made = Applied(tg.relu)
    made.layer = layer
    return made


class Everything:
    """A model that holds its layers in all the ways there are, some of them twice."""

    def __init__(self, seed: int = 0) -> None:
        a, b, c, d, e = (linear(seed + i) for i in range(5))
        self.layers: list[Any] = [a, tg.relu, {"b": b}]
        self.pair = Pair(c, (d, "text"))
        self.queue = deque([e, a], maxlen=2)
        self.slotted = Slotted(b, c)
        self.bound = d.__call__
        self.partial = functools.partial(self.add, y=e)
        self.sub = Layers([a])
        self.sub.extra = c
        self.tied = a.weight
        self.center = tg.nn.Buffer(np.ones(3))
        self.frozen = Tensor(np.full(3, 0.1))
        self.parent, self.unfinished = self, unfinished()
        self.constant, self.rng = np.ones(3), np.random.default_rng(0)

    @staticmethod
    def add(x: Any, y: Any) -> Tensor:
        return x + tg.as_tensor(y(x))

    def __call__(self, x: Any) -> Tensor:
        a, activation, named = self.layers
        x = activation(a(x)) + named["b"](x)
        x = self.pair.first(x) + self.pair.second[0](x) + self.slotted(x)
        x = self.partial(self.bound(x)) @ self.tied + self.sub[0](x) + self.sub.extra(x)
        return tg.tanh(x - self.center) * self.frozen + self.parent.queue[0](x) * self.constant

    def loss(self, x: Any, *, weight: float = 1.0) -> Tensor:
        return (self(x) ** 2).mean() * weight


def other_parameters(model: Any, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=v.shape).astype(v.dtype) for name, v in tg.nn.state_dict(model).items()}


def fingerprint(model: Any) -> list[tuple[str, int, bytes]]:
    return [(path, id(v), v.data.tobytes() if isinstance(v, Tensor) else b"") for path, v in walk(model)]


@settings(max_examples=max(settings().max_examples // 2, 10))
@given(st.data(), seeds)
def test_it_is_as_if_the_parameters_were_loaded(data: st.DataObject, seed: int) -> None:
    model, loaded = Everything(), Everything()
    params = other_parameters(model, seed)
    names = data.draw(st.lists(st.sampled_from([*params]), unique=True))
    some, before = {name: params[name] for name in names}, fingerprint(model)
    tg.nn.load_state_dict(loaded, tg.nn.state_dict(model) | some)
    expected = loaded.loss(X)
    assert functional_call(model.loss, some, X, weight=1.0).item() == expected.item()
    assert np.array_equal(functional_call(model, some, X).data, loaded(X).data)
    trained = {name: some[name] for name in names if name in tg.nn.parameters(model)}
    found = grad(lambda p: functional_call(model.loss, some | p, X))(trained)
    if trained:
        wanted = tg.grad(expected, [tg.nn.parameters(loaded)[name] for name in trained])
        assert [*found] == [*trained]
        assert all(np.array_equal(g.data, w.data) for g, w in zip(found.values(), wanted, strict=True))
    assert fingerprint(model) == before and model.parent is model


def test_all_of_it_is_differentiable_twice() -> None:
    model = Everything()
    params = other_parameters(model, 1)
    names = ["layers.0.bias", "slotted.scale", "center"]
    check_gradients(
        lambda *xs: functional_call(model, dict(zip(names, xs, strict=True)), X[:1]),
        *(params[name] for name in names),
        order=2,
    )


def test_the_21_layers() -> None:
    model, other = (DeepConvNet(rng=np.random.default_rng(seed), depth=4) for seed in (0, 1))
    images, labels = tg.data.synthetic_digits(3, rng=np.random.default_rng(0))
    expected = other.loss(images, labels, rng=np.random.default_rng(2))
    found = functional_call(model.loss, tg.nn.state_dict(other), images, labels, rng=np.random.default_rng(2))
    assert found.item() == expected.item() and not found.requires_grad
    assert functional_call(model, {}, images).data.tobytes() == model(images).data.tobytes()


def test_a_step_of_maml_is_differentiated_through() -> None:
    """Against the same written out for a linear model, and against differences, after two inner steps."""
    model, (x, y) = tg.nn.Sequential(linear(0, 2)), (X, X[:, :2] ** 2)

    def loss(params: Any) -> Tensor:
        return ((functional_call(model, params, x) - y) ** 2).mean()

    def adapted(params: Any) -> Any:
        for _ in range(2):
            slopes = grad(loss)(params)
            params = {name: p - 0.3 * slopes[name] for name, p in params.items()}
        return params

    def by_hand(w: Any, b: Any) -> Tensor:
        for _ in range(2):
            error = x @ w + b - y
            w, b = w - 0.3 * x.T @ error / error.size * 2, b - 0.3 * error.sum(axis=0) / error.size * 2
        return ((x @ w + b - y) ** 2).mean()

    params = tg.nn.parameters(model)
    leaves = [Tensor(p, requires_grad=True) for p in params.values()]
    loss(adapted(params)).backward()
    by_hand(*leaves).backward()
    outer = grad(lambda p: loss(adapted(p)))(tg.nn.state_dict(model))
    for p, leaf, g in zip(params.values(), leaves, outer.values(), strict=True):
        np.testing.assert_allclose(p.grad.data, leaf.grad.data, rtol=1e-12)
        np.testing.assert_allclose(g.data, leaf.grad.data, rtol=1e-12)
        assert not g.requires_grad
    check_gradients(lambda w, b: loss(adapted({"layers.0.weight": w, "layers.0.bias": b})), *(p.data for p in leaves))


def test_gradients_of_each_sample() -> None:
    model = tg.nn.Sequential(linear(0), tg.nn.ReLU(), linear(1, 2))
    params, labels = tg.nn.state_dict(model), np.array([0, 1, 1, 0])

    def losses(params: Any, x: Any, labels: Any) -> Tensor:
        scores = tg.log_softmax(functional_call(model, params, x))
        return -scores[np.arange(len(labels)), labels]

    at_once = jacobian(losses)(params, X, labels)
    for i in range(len(X)):
        alone = grad(lambda p: losses(p, X[i : i + 1], labels[i : i + 1]).sum())(params)  # noqa: B023
        for name in params:
            np.testing.assert_allclose(at_once[name].data[i], alone[name].data, rtol=1e-12, atol=1e-15)


def test_threads_use_their_own_parameters() -> None:
    model = Everything()
    before, all_params = fingerprint(model), [other_parameters(model, seed) for seed in range(16)]

    def work(params: Any) -> list[np.ndarray]:
        gradients = grad(lambda p: functional_call(model.loss, p, X))(params)
        return [functional_call(model, params, X).data, *(g.data for g in gradients.values())]

    expected = [work(params) for params in all_params]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(work, all_params), expected, strict=True):
            assert all(np.array_equal(f, w) for f, w in zip(found, wanted, strict=True))
    assert fingerprint(model) == before


# Buffers --------------------------------------------------------------------------------------------------------------
class Counting:
    def __init__(self) -> None:
        self.mean, self.calls = tg.nn.Buffer(np.zeros(3)), 0

    def __call__(self, x: Any, rng: Any = None) -> Tensor:
        x = tg.as_tensor(x)
        if rng is not None:
            self.mean.data += x.mean(axis=0).data  # in place
            self.calls += 1
        return x - self.mean


def test_what_is_written_to_a_buffer_goes_to_the_one_that_is_given() -> None:
    model, rng = Counting(), np.random.default_rng(0)
    start, mean = np.ones(3), X.mean(axis=0)
    found = functional_call(model, {"mean": start}, X, rng)
    np.testing.assert_allclose(found.data, X - 1 - mean)
    assert not model.mean.data.any() and np.array_equal(start, np.ones(3)) and model.calls == 0
    given = tg.nn.Buffer(start)
    functional_call(model, {"mean": given}, X, rng)
    np.testing.assert_allclose(given.data, 1 + mean)
    assert not model.mean.data.any()
    functional_call(model, {}, X, rng)
    np.testing.assert_allclose(model.mean.data, mean)  # as in a usual call
    np.testing.assert_allclose(grad(lambda m: functional_call(model, {"mean": m}, X).sum())(start).data, [-4.0] * 3)


# What cannot be done --------------------------------------------------------------------------------------------------
class Holder:
    """Its call uses the layer through `use`."""

    def __init__(self, use: Callable[[tg.nn.Linear], Any]) -> None:
        self.layer = linear(0)
        self.use = use(self.layer)

    def __call__(self, x: Any) -> Any:
        return self.use(x)


def compose(layer: Any) -> Any:
    return lambda x: layer(x)


REFUSED: dict[str, Callable[[tg.nn.Linear], Any]] = {
    "closure": compose,
    "default": lambda layer: lambda x, layer=layer: layer(x),
    "keyword default": lambda layer: lambda x, *, layer=layer: layer(x),
    "closure in a list": lambda layer: [compose(layer)],
    "closure in a partial": lambda layer: functools.partial(compose(layer)),
    "cached": lambda layer: functools.lru_cache(compose(layer)),
    "weak": weakref.ref,
    "weak proxy": weakref.proxy,
    "weak method": lambda layer: weakref.WeakMethod(layer.__call__),
    "set": lambda layer: {layer},
    "array": lambda layer: np.array([layer, None]),
    "result": lambda layer: layer.weight * 2,
    "method of a result": lambda layer: (layer.weight * 2).__matmul__,
    "method of a list": lambda layer: [layer].index,
    "function with an attribute": lambda layer: functools.wraps(layer.__call__)(compose(layer)),
}
HANDLED: dict[str, Callable[[tg.nn.Linear], Any]] = {
    "bound method": lambda layer: layer.__call__,
    "partial": lambda layer: functools.partial(layer),
    "partial of a method": lambda layer: functools.partial(type(layer).__call__, layer),
    "partial by keyword": lambda layer: functools.partial(lambda x, layer, more: layer(x), layer=layer, more=[layer]),
    "partial of a partial": lambda layer: functools.partial(functools.partial(layer.__call__, rng=None)),
    "attribute of a partial": applied,
    "method of a Tensor": lambda layer: layer.weight.__rmatmul__,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_keep_the_old_weights_is_refused_by_name(name: str) -> None:
    model = Holder(REFUSED[name])
    with pytest.raises(
        TypeError, match=r"^functional_call: use\b.* holds parameters that cannot be replaced there; let"
    ):
        functional_call(model, {"layer.weight": np.zeros((3, 3))}, X)
    functional_call(Everything(), {}, X)


@pytest.mark.parametrize("name", HANDLED)
def test_bound_methods_and_partial_functions_get_the_new_ones(name: str) -> None:
    model = Holder(HANDLED[name])
    assert functional_call(model, {"layer.weight": np.zeros((3, 3))}, X).data.tolist() == np.zeros((4, 3)).tolist()
    assert model(X).data.any()


def test_parameters_that_do_not_fit_are_listed() -> None:
    model = Everything()
    wrong: dict[str, Any] = {
        "layers.0.wieght": np.zeros(3),
        "layers.0.bias": np.zeros(2),
        "center": np.zeros(3, np.float32),
        "frozen": np.zeros(3, int),
    }
    with pytest.raises(ValueError, match=r"^functional_call: .*layers.0.wieght is not in the model") as caught:
        functional_call(model, wrong, X)
    for words in (r"layers.0.bias has shape (2,)", "center is float32", "frozen is int64"):
        assert words in str(caught.value)
    with pytest.raises(TypeError, match="functional_call: frozen: cannot compute with str"):
        functional_call(model, {"frozen": "zeros"}, X)
    with pytest.raises(ValueError, match="not in the model"):
        functional_call(tg.relu, {"w": 1.0}, X)


# Errors are found -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("walk._hidden", lambda value: ()),
        ("walk._slots", lambda value: ()),
        ("walk._copy", lambda value, path, caller: value),
        ("walk._rebuilt", lambda value, new: value),
        ("func.with_others", lambda model, others, caller: model),
    ],
)
def test_a_wrong_copy_is_found(name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        model, loaded = Everything(), Everything()
        before, params = fingerprint(model), other_parameters(model, 0)
        tg.nn.load_state_dict(loaded, params)
        assert functional_call(model.loss, params, X).item() == loaded.loss(X).item()
        assert fingerprint(model) == before
        test_what_is_written_to_a_buffer_goes_to_the_one_that_is_given()

    check()
    monkeypatch.setattr(f"tinygrad_mnist.{name}", wrong)
    with pytest.raises((AssertionError, AttributeError)):
        check()
