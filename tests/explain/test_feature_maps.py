"""Feature maps are what the convolutions of a model compute, in the order of computation, each with its name."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist.explain import FeatureMap, feature_maps

IMAGES = tg.data.synthetic_digits(3, rng=np.random.default_rng(0))[0]


def correlate(x: Any, weight: Any, bias: Any, padding: int = 0) -> Any:
    """Convolve by the definition, with NumPy alone."""
    padded = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    return np.einsum("ncijkl,fckl->nfij", windows, weight, optimize=True) + bias[:, None, None]


class Plain:
    """Two convolutions, the second one used twice; which parameters are trained makes no difference."""

    def __init__(self, trained: bool = True) -> None:
        rng = np.random.default_rng(0)
        self.first = tg.nn.Conv2d(1, 4, 5, rng=rng)
        self.blocks = [tg.nn.Sequential(tg.nn.ReLU(), tg.nn.Conv2d(4, 4, 3, padding=1, rng=rng))]
        self.out = tg.nn.Linear(4, 3, rng=rng)
        for p in tg.nn.parameters(self).values():
            p.data = rng.normal(0, 0.3, p.shape).astype(np.float32)
            p.requires_grad = trained

    def __call__(self, images: Any, rng: Any = None) -> tg.Tensor:
        x = self.first(tg.data.as_input(images))
        return self.out(self.blocks[0](self.blocks[0](x)).mean(axis=(2, 3)))


def test_they_are_those_of_a_computation_layer_by_layer() -> None:
    for trained in (True, False):
        model = Plain(trained)
        state = {name: value.astype(np.float64) for name, value in tg.nn.state_dict(model).items()}
        shared = state["blocks.0.layers.1.weight"], state["blocks.0.layers.1.bias"]
        first = correlate(IMAGES[:, None] / 255, state["first.weight"], state["first.bias"])
        second = correlate(first.clip(0), *shared, 1)
        third = correlate(second.clip(0), *shared, 1)
        found = feature_maps(model, IMAGES)
        assert [part.name for part in found] == ["first", "blocks.0.layers.1", "blocks.0.layers.1"]
        for (_, values), expected in zip(found, (first, second, third), strict=True):
            assert values.shape == expected.shape and values.dtype == np.float32
            np.testing.assert_allclose(values, expected, rtol=0, atol=1e-4)


class Odd:
    """Weights that are computed, that are no part of the model, and a convolution along one axis."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.direction = tg.Tensor(rng.normal(size=(2, 1, 3, 3)), requires_grad=True)
        self.row = tg.nn.Conv1d(1, 2, 3, rng=rng)

    def __call__(self, images: Any, rng: Any = None) -> tg.Tensor:
        x = tg.data.as_input(images)
        wide = self.row(x.reshape(len(x), 1, -1)).mean(axis=2)
        sharp = tg.conv2d(x, np.ones((2, 1, 2, 2), np.float32), stride=2).mean(axis=(2, 3))
        tg.conv2d(x, np.ones((2, 1, 2, 2), np.float32))  # the logits do not depend on it
        kernel = self.direction / tg.sqrt((self.direction**2).sum())
        return wide + sharp + tg.conv2d(x, kernel).mean(axis=(2, 3))


def test_names_of_weights_that_are_not_parameters() -> None:
    model = Odd()
    found = feature_maps(model, IMAGES)
    assert [(name, values.shape) for name, values in found] == [
        ("row", (3, 2, 1, 782)),
        ("convolution 2", (3, 2, 14, 14)),
        ("direction", (3, 2, 26, 26)),
    ]
    kernel = model.direction.data / np.linalg.norm(model.direction.data)
    np.testing.assert_allclose(found[2].values, correlate(IMAGES[:, None] / 255, kernel, np.zeros(2)), atol=1e-5)


@given(st.permutations(range(4)), st.integers(0, 2**32 - 1))
def test_they_come_in_the_order_of_computation(order: list[int], seed: int) -> None:
    class Branches:
        def __init__(self) -> None:
            self.convs = [tg.nn.Conv2d(1, 2, 3, rng=np.random.default_rng(seed + i)) for i in range(4)]

        def __call__(self, images: Any, rng: Any = None) -> tg.Tensor:
            x = tg.data.as_input(images)
            parts = {i: self.convs[i](x) for i in order}
            return sum(parts[i].mean(axis=(2, 3)) for i in range(4))  # type: ignore[return-value]  # of Tensors

    model = Branches()
    found = feature_maps(model, IMAGES[:1, 8:14, 8:14])
    assert [part.name for part in found] == [f"convs.{i}" for i in order]
    for i, (_, values) in zip(order, found, strict=True):
        np.testing.assert_array_equal(values, model.convs[i](tg.data.as_input(IMAGES[:1, 8:14, 8:14])).data)


def test_a_model_without_convolutions_has_none() -> None:
    assert feature_maps(lambda x: x.reshape(len(x), -1) @ np.ones((784, 2)), IMAGES) == []
    assert FeatureMap._fields == ("name", "values")
