"""The weights that stand in the repository: what their file says is true, and what they read in pictures.

The pictures are of kinds, and partly of fonts and handwriting, that the weights have not been trained on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pictures
import pytest

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from models.pretrained import SHIPPED, Classifier, load_classifier


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_classifier()


@pytest.fixture(scope="module")
def mnist() -> tg.data.Dataset:
    data = tg.data.find_mnist()
    if data.synthetic:
        pytest.skip("MNIST is not found: set TINYGRAD_MNIST_DATA to its folder")
    return data


def share_read(classifier: Classifier, labelled: Iterable[tuple[Any, int]]) -> float:
    """The share of pictures of one digit in which one digit is found, and read rightly."""
    right = []
    for picture, label in labelled:
        try:
            found = tg.data.from_image(picture).images
        except tg.data.NoDigitError:
            found = np.zeros((0, 28, 28), np.uint8)
        right.append(len(found) == 1 and int(classifier.model(found).argmax(axis=1)[0]) == label)
    return float(np.mean(right))


def test_the_file_says_what_it_is(classifier: Classifier) -> None:
    assert classifier.name == "deep_convnet.DeepConvNet"
    assert 0.2 < classifier.temperature < 5
    said = tg.checkpoint.load_metadata(SHIPPED)
    assert {"model", "arguments", "data", "accuracy", "temperature", "command", "origin"} <= said.keys()
    assert said["command"].startswith("python scripts/train_shipped_weights.py")
    assert sum(p.size for p in tg.nn.parameters(classifier.model).values()) * 4 == 340_608
    assert SHIPPED.stat().st_size < 344_000


def test_a_network_made_without_arguments_takes_the_weights(classifier: Classifier) -> None:
    model = DeepConvNet()
    tg.nn.load_state_dict(model, tg.checkpoint.load_weights(SHIPPED, like=model))
    images, _ = tg.data.synthetic_digits(20, np.random.default_rng(7))
    np.testing.assert_array_equal(model(images).data, classifier.model(images).data)


def test_digits_are_read_at_once(classifier: Classifier) -> None:
    images, labels = tg.data.synthetic_digits(20, np.random.default_rng(3))
    rng = np.random.default_rng(0)
    assert share_read(classifier, pictures.clean_handwriting(images, labels, rng)) >= 0.9
    assert share_read(classifier, pictures.printed(20, rng)) >= 0.9


@pytest.mark.slow
def test_the_stated_accuracy_is_that_on_the_test_images(classifier: Classifier, mnist: tg.data.Dataset) -> None:
    measured = tg.training.accuracy(classifier.model, mnist.test_images, mnist.test_labels)
    stated, words = classifier.metadata["accuracy"].split(" ", 1)
    assert words == "on MNIST's 10,000 test images" and abs(float(stated) - measured) < 2.5e-4  # rounding differs
    assert measured >= 0.992


@pytest.mark.slow
def test_probabilities_are_calibrated(classifier: Classifier, mnist: tg.data.Dataset) -> None:
    logits = tg.training.outputs(classifier.model, mnist.test_images)
    probabilities = tg.softmax(logits / classifier.temperature).data
    assert tg.training.calibration_error(probabilities, mnist.test_labels) < 0.005


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, least",
    [("clean_handwriting", 0.97), ("printed", 0.95), ("printed thicker", 0.95), ("photographed", 0.9)],
)
def test_pictures_are_read(classifier: Classifier, mnist: tg.data.Dataset, kind: str, least: float) -> None:
    rng = np.random.default_rng(2022)
    if kind.startswith("printed"):
        labelled = pictures.printed(21 * 10 * 2, rng, thicker="thicker" in kind)
    else:
        some = rng.choice(len(mnist.test_labels), 300, replace=False)
        labelled = getattr(pictures, kind)(mnist.test_images[some], mnist.test_labels[some], rng)
    share = share_read(classifier, labelled)
    print(f"{kind}: {share:.1%}")
    assert share >= least
