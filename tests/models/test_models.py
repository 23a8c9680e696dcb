"""The 21-layer network.

Its layers, its inputs, and its gradients against a hand-coded implementation; the second example trains.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmarking.layered import LayeredNet

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from models.mlp import MLP

TABLE = [  # kind and output shape of each layer, as in the paper; an affine layer flattens first
    ("Conv2d", (16, 26, 26)),
    ("ReLU", (16, 26, 26)),
    ("Conv2d", (16, 24, 24)),
    ("ReLU", (16, 24, 24)),
    ("MaxPool2d", (16, 12, 12)),
    ("Conv2d", (32, 10, 10)),
    ("ReLU", (32, 10, 10)),
    ("Conv2d", (32, 8, 8)),
    ("ReLU", (32, 8, 8)),
    ("MaxPool2d", (32, 4, 4)),
    ("Conv2d", (64, 4, 4)),
    ("ReLU", (64, 4, 4)),
    ("Conv2d", (64, 4, 4)),
    ("ReLU", (64, 4, 4)),
    ("MaxPool2d", (64, 2, 2)),
    ("Affine", (50,)),
    ("ReLU", (50,)),
    ("Dropout", (50,)),
    ("Affine", (10,)),
    ("Dropout", (10,)),
    ("SoftmaxCrossEntropy", ()),
]
DEPTHS = {
    6: TABLE,
    5: TABLE[:12] + TABLE[14:],
    4: TABLE[:10] + TABLE[15:],
}  # 6/6/3, 5/5/3, 4/4/2 convolutions, ReLUs and pools


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def batch(n: int, seed: int = 0) -> tuple[Any, Any]:
    return tg.data.synthetic_digits(n, rng=rng(seed))


@pytest.fixture(scope="module")
def model() -> DeepConvNet:
    return DeepConvNet(rng=rng())


# Structure ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("depth", DEPTHS)
def test_layers_and_shapes_are_those_of_the_paper(depth: int) -> None:
    model, x = DeepConvNet(rng=rng(), depth=depth), tg.as_tensor(np.zeros((2, 1, 28, 28), np.float32))
    assert [type(layer).__name__ for layer in model.layers] == [kind for kind, _ in DEPTHS[depth]]
    for layer, (_, shape) in zip(model.layers[:-1], DEPTHS[depth][:-1], strict=True):
        x = layer(x)
        assert x.shape == (2, *shape) and x.dtype == np.float32
    assert model.layers[-1](x, [1, 2]).shape == ()
    convs = [layer for layer in model.layers if type(layer).__name__ == "Conv2d"]
    pools = [layer for layer in model.layers if type(layer).__name__ == "MaxPool2d"]
    assert [(c.weight.shape[2:], c.stride, c.padding) for c in convs] == [
        ((3, 3), 1, p) for p in (0, 0, 0, 0, 1, 1)[:depth]
    ]
    assert all((p.kernel_size, p.stride, p.padding) == (2, 2, 0) for p in pools)
    assert [(d.p, d.rescale) for d in model.layers if type(d).__name__ == "Dropout"] == [(0.5, "test")] * 2


def test_the_default_is_the_21_layer_network(model: DeepConvNet) -> None:
    assert len(model.layers) == 21
    assert list(tg.nn.parameters(model)) == [
        f"layers.{i}.{kind}" for i in (0, 2, 5, 7, 10, 12, 15, 18) for kind in ("weight", "bias")
    ]
    assert sum(p.size for p in tg.nn.parameters(model).values()) == 85_152


def test_the_summary_is_the_papers_table(model: DeepConvNet) -> None:
    head, *rows, total = model.summary().splitlines()
    assert len(rows) == 22
    for number, (row, (kind, shape)) in enumerate(zip(rows[1:], TABLE, strict=True), 1):
        assert row.split()[0] == str(number) and kind in row and (" x ".join(map(str, shape)) or "scalar") in row
    assert "85,152" in total and "3,373,108" in total  # 3.37 M multiply-adds


@pytest.mark.parametrize(("init", "gain"), [("he", 2.0), ("xavier", 1.0)])
@pytest.mark.parametrize("depth", DEPTHS)
def test_weights_are_drawn_by_fan_in(depth: int, init: str, gain: float) -> None:
    model = DeepConvNet(rng=rng(1), init=init, depth=depth)
    for name, p in tg.nn.parameters(model).items():
        if name.endswith("bias"):
            assert not p.data.any()
        else:
            fan_in = np.prod(p.shape[1:]) if p.ndim == 4 else p.shape[0]
            assert abs(p.data.std() / np.sqrt(gain / fan_in) - 1) < 5 / np.sqrt(2 * p.size)


def test_a_generator_decides_the_weights() -> None:
    first, again, other = (tg.nn.parameters(DeepConvNet(rng=rng(seed))) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name].data, again[name].data) for name in first)
    assert not np.array_equal(first["layers.0.weight"].data, other["layers.0.weight"].data)
    assert not np.array_equal(
        first["layers.15.weight"].data.ravel()[:100], first["layers.12.weight"].data.ravel()[:100]
    )


@pytest.mark.parametrize("depth", [3, 7, "6", None])
def test_other_depths_are_refused(depth: Any) -> None:
    with pytest.raises(ValueError, match="DeepConvNet: depth is"):
        DeepConvNet(depth=depth)


# Inputs ---------------------------------------------------------------------------------------------------------------
def test_every_form_of_the_images_gives_the_same_logits(model: DeepConvNet) -> None:
    images, _ = batch(5)
    scaled = images / np.float32(255)
    expected = model(images)
    assert expected.shape == (5, 10) and expected.dtype == np.float32
    forms = [
        images[:, None],
        scaled,
        scaled[:, None],
        tg.Tensor(scaled),
        tg.Tensor(scaled[:, None]),
        scaled.astype(np.float64),
    ]
    forms += [
        images[::-1][::-1],
        np.asfortranarray(images),
        np.moveaxis(np.ascontiguousarray(np.moveaxis(scaled, 0, -1)), -1, 0),
    ]
    for form in forms:
        np.testing.assert_allclose(model(form).data, expected.data, rtol=1e-5, atol=1e-6)
    assert model.input(images).data.transpose(2, 1, 3, 0).flags.c_contiguous  # (H, C, W, N) in memory


def test_a_tensor_of_pixels_is_scaled_as_an_array_is(model: DeepConvNet) -> None:
    images, _ = batch(2)
    np.testing.assert_allclose(model(tg.Tensor(images)).data, model(images).data, rtol=1e-5)


def test_inference_is_deterministic_and_image_by_image(model: DeepConvNet) -> None:
    images, _ = batch(7)
    expected = model(images).data
    np.testing.assert_array_equal(model(images).data, expected)
    np.testing.assert_allclose(
        np.concatenate([model(image[None]).data for image in images]), expected, rtol=1e-4, atol=1e-5
    )
    assert model(images[:0]).shape == (0, 10)


def test_images_are_not_modified(model: DeepConvNet) -> None:
    images, labels = batch(3)
    before = images.copy()
    for form in (images, images / np.float32(255)):
        form.flags.writeable = False
        model.loss(form, labels, rng=rng()).backward()
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("shape", [(28, 28), (2, 28, 27), (2, 3, 28, 28), (2, 28, 28, 1), (2, 784), (2, 32, 32)])
@pytest.mark.parametrize("kind", [np.asarray, tg.as_tensor])
def test_images_of_another_shape_are_refused(model: DeepConvNet, shape: tuple[int, ...], kind: Any) -> None:
    with pytest.raises(ValueError, match=r"DeepConvNet: images have shape \(.*\(N, 28, 28\)"):
        model(kind(np.zeros(shape, np.float32)))


def test_images_can_require_gradients() -> None:
    model = DeepConvNet(rng=rng(), dtype=np.float64)
    images = tg.Tensor(rng().random((2, 28, 28)), requires_grad=True)
    model.loss(images, [1, 2]).backward()
    assert images.grad.shape == (2, 28, 28) and images.grad.data.any()


# Loss and gradients ---------------------------------------------------------------------------------------------------
def test_a_generator_makes_the_loss_draw_dropout(model: DeepConvNet) -> None:
    images, labels = batch(6)
    losses = [model.loss(images, labels, rng=generator).item() for generator in (rng(1), rng(1), rng(2), None, None)]
    assert losses[0] == losses[1] and losses[3] == losses[4]
    assert len(set(losses)) == 3
    one_hot = np.eye(10, dtype=np.float32)[labels]
    assert model.loss(images, one_hot).item() == pytest.approx(losses[3], rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("depth", DEPTHS)
def test_loss_and_gradients_equal_those_of_hand_coded_layers(depth: int, training: bool) -> None:
    model = DeepConvNet(rng=rng(depth), depth=depth, dtype=np.float64)
    parameters = tg.nn.parameters(model)
    for p in parameters.values():  # biases, too
        p.data = p.data + 0.01 * rng(1).normal(size=p.shape)
    images, labels = batch(3, seed=depth)
    reference = LayeredNet([p.data for p in parameters.values()], depth)
    expected, gradients = reference.loss(images[:, None] / 255, labels, rng(5) if training else None)
    loss = model.loss(images, labels, rng=rng(5) if training else None)
    assert loss.dtype == np.float64 and abs(loss.item() - expected) < 1e-12
    loss.backward()
    for p, wanted in zip(parameters.values(), gradients, strict=True):
        assert np.abs(wanted).max() > 0
        np.testing.assert_allclose(p.grad.data, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())
    np.testing.assert_allclose(model(images).data, reference.forward(images[:, None] / 255), rtol=1e-10)


def test_float32_gradients_are_close_to_float64() -> None:
    images, labels = batch(4)
    found = []
    for dtype in (np.float32, np.float64):
        model = DeepConvNet(rng=rng(), dtype=dtype)
        parameters = tg.nn.parameters(model)
        model.loss(images, labels, rng=rng(1)).backward()
        found.append({name: p.grad.data for name, p in parameters.items()})
        assert all(g.dtype == dtype for g in found[-1].values())
    for name, g in found[1].items():
        np.testing.assert_allclose(found[0][name], g, atol=1e-4 * np.abs(g).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_loss_passes_the_gradient_check(dtype: Any) -> None:
    model, draws = DeepConvNet(rng=rng(3), dtype=dtype), rng(2)
    for p in tg.nn.parameters(model).values():  # biases, too
        p.data = p.data + 0.1 * draws.normal(size=p.shape)
    images = rng(1).random((2, 28, 28))  # no two pixels are equal: neither ties nor kinks
    assert tg.testing.check_model(model, images, [3, 8], rng=7).verdict == "pass"  # in random directions


def test_the_second_example_trains() -> None:
    images, labels = batch(60)
    model = MLP(rng=rng(), hidden=20)
    assert model(images).shape == (60, 10)
    optimizer = tg.optim.AdaGrad(tg.nn.parameters(model), lr=0.05)
    draws, before = rng(1), model.loss(images, labels).item()
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(images, labels, rng=draws).backward()
        optimizer.step()
    assert model.loss(images, labels).item() < before / 3
    assert (model(images).data.argmax(axis=1) == labels).mean() > 0.9


def test_a_few_steps_fit_the_21_layer_network_to_a_small_set() -> None:
    images, labels = batch(20)
    model = DeepConvNet(rng=rng())
    optimizer = tg.optim.AdaGrad(tg.nn.parameters(model), lr=0.01)
    before = model.loss(images, labels).item()
    for _ in range(30):
        optimizer.zero_grad()
        model.loss(images, labels).backward()
        optimizer.step()
    assert model.loss(images, labels).item() < before / 2


def test_logits_may_be_dropped_like_hidden_units_or_in_their_own_way() -> None:
    def rates(**how: Any) -> list[float]:
        return [layer.p for layer in DeepConvNet(**how).layers if isinstance(layer, tg.nn.Dropout)]

    assert (rates(), rates(dropout=0.2), rates(dropout=0.2, logit_dropout=0)) == ([0.5, 0.5], [0.2, 0.2], [0.2, 0])
