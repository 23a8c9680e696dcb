"""Every classifier of the gallery can be explained, stays as it is, and what makes no sense is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from models.lenet import LeNet5
from models.mlp import MLP
from models.pretrained import load_classifier
from models.resnet import ResNet
from models.vision_transformer import VisionTransformer
from tinygrad_mnist.explain import ascend, feature_maps, occlusion, saliency

IMAGES = tg.data.synthetic_digits(2, rng=np.random.default_rng(0))[0]
CONVOLUTIONS = {DeepConvNet: 6, LeNet5: 2, MLP: 0, ResNet: 9, VisionTransformer: 0}
EXPLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "saliency": saliency,
    "occlusion": lambda model, images: occlusion(model, images, stride=7),
    "feature_maps": feature_maps,
    "ascend": lambda model, images: ascend(model, images, 3),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS, ids=lambda kind: kind.__name__)
def test_classifiers_are_explained_and_stay_as_they_are(kind: Any) -> None:
    model = kind(np.random.default_rng(0))
    model(IMAGES, np.random.default_rng(1))  # fills running means
    frozen, *trained = tg.nn.parameters(model).values()
    frozen.requires_grad = False
    for p in trained:
        p.grad = tg.Tensor(np.full(p.shape, 2.0, p.dtype))
    before = tg.nn.state_dict(model)
    for name, explain in EXPLAIN.items():
        with tg.no_grad():
            found = explain(model, IMAGES)
        again, empty = explain(model, IMAGES / np.float32(255)), explain(model, IMAGES[:0])
        if name == "feature_maps":
            assert len(found) == len(empty) == CONVOLUTIONS[kind]
            for one, other, none in zip(found, again, empty, strict=True):
                np.testing.assert_array_equal(one.values, other.values)
                assert one.name == other.name and none.values.shape == (0, *one.values.shape[1:])
        else:
            np.testing.assert_array_equal(found, again)
            assert found.shape == IMAGES.shape and found.dtype == np.float32 and np.isfinite(found).all()
            assert found.any() and empty.shape == (0, 28, 28)
    for p in trained:
        assert (p.grad.data == 2).all()
    for name, value in tg.nn.state_dict(model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert tg.nn.parameters(model).keys() == before.keys() - {next(iter(before))} - tg.nn.buffers(model).keys()


@pytest.mark.parametrize("kind", CONVOLUTIONS, ids=lambda kind: kind.__name__)
def test_a_tensor_of_floats_gives_the_logits_of_the_pixels(kind: Any) -> None:
    model = kind(np.random.default_rng(0))
    model(IMAGES, np.random.default_rng(1))
    np.testing.assert_allclose(model(tg.Tensor(IMAGES / np.float32(255))).data, model(IMAGES).data, rtol=0, atol=1e-5)


def linear(x: tg.Tensor) -> tg.Tensor:
    return x.reshape(len(x), -1) @ np.ones((49, 3), np.float32)


GOOD = np.zeros((2, 7, 7), np.uint8)


@pytest.mark.parametrize("name", EXPLAIN)
@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (GOOD[0], ValueError, r"images have shape \(7, 7\); pass \(N, H, W\), one image as image\[None\]"),
        (GOOD[:, None], ValueError, r"images have shape \(2, 1, 7, 7\)"),
        (GOOD[:, :0], ValueError, r"images have shape \(2, 0, 7\)"),
        (GOOD.astype(int), TypeError, r"images are int64; pass uint8 pixels, or floats in \[0, 1\]"),
        (GOOD > 0, TypeError, "images are bool"),
        (GOOD + 255.0, ValueError, "images of floats are from 255 to 255; pass pixels in"),
        (GOOD + 1.5, ValueError, "images of floats are from 1.5 to 1.5"),
        (GOOD - 0.5, ValueError, "images of floats are from -0.5 to -0.5"),
        (GOOD + np.nan, ValueError, "images of floats are NaN"),
        ([[[1.0], [1.0, 2.0]]], TypeError, "images of type list cannot become an array"),
        (None, ValueError, r"images have shape \(\)"),
        ([[["a"]]], TypeError, "images are <U1"),
    ],
)
def test_images_that_are_none_are_refused(name: str, images: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=f"^{name}: {words}"):
        EXPLAIN[name](linear, images)


@pytest.mark.parametrize("name", EXPLAIN)
@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (
            lambda x: x,
            ValueError,
            r"for 2 images the model returns a Tensor of shape \(2, 7, 7\); it must return logits",
        ),
        (lambda x: linear(x)[:1], ValueError, r"returns a Tensor of shape \(1, 3\)"),
        (lambda x: linear(x)[:, :1], ValueError, r"returns a Tensor of shape \(2, 1\)"),
        (lambda x: np.ones((2, 3)), ValueError, "returns a ndarray"),
        (lambda x: None, ValueError, "returns a NoneType"),
        (lambda x: linear(x) + [0, np.inf, 0], FloatingPointError, "the model returns logits that are NaN or infinite"),
    ],
)
def test_models_without_logits_are_refused(name: str, model: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=f"^{name}: .*{words}"):
        EXPLAIN[name](model, GOOD)


@pytest.mark.parametrize("name", ["saliency", "feature_maps", "ascend"])
def test_a_model_that_loses_the_history_is_refused(name: str) -> None:
    weight = tg.Tensor(np.ones((49, 3)), requires_grad=True)
    for model in (lambda x: linear(x.detach()), lambda x: x.data.reshape(len(x), -1) @ weight):
        with pytest.raises(ValueError, match=f"{name}: the record of the logits does not lead back to the images"):
            EXPLAIN[name](model, GOOD)


@pytest.mark.parametrize("explain", [saliency, occlusion, ascend], ids=lambda function: function.__name__)
@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        (3, ValueError, "target is 3; the model has the classes 0 to 2"),
        ([0, -1], ValueError, "target is -1; the model has the classes 0 to 2"),
        ([0], ValueError, r"target has shape \(1,\); pass one class, or one for each of 2 images"),
        ([[0, 1]], ValueError, r"target has shape \(1, 2\)"),
        (1.0, TypeError, "target is 1.0; it must be a class, an integer, or one for each image"),
        (True, TypeError, "target is True"),
        ("7", TypeError, "target is '7'"),
        ([0, None], TypeError, r"target is \[0, None\]"),
    ],
)
def test_targets_that_are_no_classes_are_refused(explain: Any, target: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=f"^{explain.__name__}: {words}"):
        explain(linear, GOOD, target)


def test_a_gradient_on_blank_paper_does_not_depend_on_the_other_images() -> None:
    model = load_classifier().model
    images = tg.data.synthetic_digits(9, rng=np.random.default_rng(0))[0]
    together = saliency(model, images)
    apart = np.concatenate([saliency(model, image[None]) for image in images])
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-5)
    given = saliency(model, images, target=np.arange(9))
    np.testing.assert_allclose(given[5], saliency(model, images[5:6], target=5)[0], rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="one for each of 9 images"):
        saliency(model, images, target=[1, 2])
