"""The picture of a classifier's mistakes: counts, order, probabilities and images are those of the arrays."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tinygrad_mnist.train import plot_mistakes

Figure = pytest.importorskip("matplotlib.figure").Figure


def panels(images: Any, labels: Any, logits: Any, title: str = "") -> tuple[Any, Any]:
    """Confusion matrix and mistakes, which are not saved."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        figures: list[Any] = []
        patch.setattr(Figure, "savefig", lambda figure, *how, **more: figures.append(figure))
        plot_mistakes(images, labels, logits, Path(folder, "mistakes.png"), title)
    return tuple(figures[0].axes)


def texts(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.texts]


def pictures(axis: Any, count: int, shape: tuple[int, int]) -> list[np.ndarray]:
    """What the tiled image has below each text, a tenth of the height further down."""
    (canvas,) = (image.get_array() for image in axis.images)
    found = []
    for text in axis.texts[:count]:
        across, up = text.get_position()
        left, top = (round(edge + 0.5) for edge in (across - shape[1] / 2, up + shape[0] / 10))
        found.append(canvas[top : top + shape[0], left : left + shape[1]])
    return found


@settings(max_examples=5, phases=[Phase.explicit, Phase.generate])  # an example takes a while to draw
@example(seed=1, count=200, classes=10, scale=1.0, shape=(28, 28))
@example(seed=2, count=50, classes=30, scale=1e4, shape=(5, 8))
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 40),
    classes=st.integers(2, 25),
    scale=st.floats(0.1, 1e3),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_the_picture_shows_what_the_arrays_say(
    seed: int, count: int, classes: int, scale: float, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    images, labels = rng.random((count, *shape)), rng.integers(0, classes, count)
    logits = scale * rng.normal(size=(count, classes))
    matrix, tiles = panels(images, labels, logits)

    guesses = [max(range(classes), key=row.__getitem__) for row in logits.tolist()]
    counts = Counter(zip(labels.tolist(), guesses, strict=True))
    (colours,) = (image.get_array() for image in matrix.images)
    assert all(colours[pair] == (0 if pair[0] == pair[1] else counts[pair]) for pair in np.ndindex(classes, classes))
    written = {(t.get_position()[1], t.get_position()[0]): int(t.get_text()) for t in matrix.texts}
    assert written == (dict(counts) if classes <= 20 else {})
    right = sum(true == guess for true, guess in zip(labels, guesses, strict=True))
    assert matrix.get_title().startswith(f"{right} of {count} correct ({100 * right / count:.2f} %)")

    sure = [1 / sum(math.exp(logit - max(row)) for logit in row) for row in logits.tolist()]
    wrong = sorted((i for i in range(count) if guesses[i] != labels[i]), key=lambda i: -sure[i])
    shown = wrong[:24]
    if not wrong:
        assert texts(tiles) == ["no mistakes"] and not tiles.images
        return
    assert str(len(wrong)) in tiles.get_title() or len(wrong) == 1
    assert ("most confident of" in tiles.get_title()) == (len(shown) < len(wrong))
    assert texts(tiles) == [f"{labels[i]} → {guesses[i]}: {100 * sure[i]:.0f} %" for i in shown]
    low, high = images[shown].min(), images[shown].max()
    for i, found in zip(shown, pictures(tiles, len(shown), shape), strict=True):
        np.testing.assert_allclose(found, (images[i] - low) / (high - low or 1))


def test_a_classifier_without_mistakes_is_told_so() -> None:
    matrix, tiles = panels(np.zeros((3, 4, 4)), [0, 1, 1], np.eye(2)[[0, 1, 1]])
    assert texts(tiles) == ["no mistakes"] and texts(matrix) == ["1", "2"]
    assert matrix.get_title() == "3 of 3 correct (100.00 %)"


@pytest.mark.parametrize("channels", [1, 3])
def test_images_may_have_channels(channels: int) -> None:
    images = np.arange(2 * channels * 4 * 5, dtype=np.uint8).reshape(2, channels, 4, 5)
    _, tiles = panels(images, [0, 1], np.log([[0.25, 0.75], [0.5, 0.5]]))
    assert tiles.get_title().startswith("2 mistakes") and texts(tiles) == ["0 → 1: 75 %", "1 → 0: 50 %"]
    for image, found in zip(images, pictures(tiles, 2, (4, 5)), strict=True):
        np.testing.assert_allclose(
            found if channels == 3 else found[..., None], np.moveaxis(image, 0, -1) / images.max()
        )


def test_the_file_is_a_picture(tmp_path: Path) -> None:
    plot_mistakes(np.zeros((2, 3, 3)), [0, 1], np.eye(2), tmp_path / "mistakes.png", "any $ title \\x\nof two lines")
    assert (tmp_path / "mistakes.png").read_bytes().startswith(b"\x89PNG")


IMAGES, LABELS, LOGITS = np.zeros((2, 3, 3)), np.array([0, 1]), np.eye(2)


@pytest.mark.parametrize(
    "images, labels, logits, words",
    [
        (np.zeros((2, 9)), LABELS, LOGITS, r"images have shape \(2, 9\); pass \(N, H, W\)"),
        (np.zeros((2, 2, 3, 3)), LABELS, LOGITS, r"images have shape \(2, 2, 3, 3\)"),
        (IMAGES[:1], LABELS, LOGITS, "1 images and 2 labels"),
        (IMAGES[:0], LABELS[:0], LOGITS[:0], "0 images and 0 labels"),
        (np.zeros((2, 0, 3)), LABELS, LOGITS, r"images have shape \(2, 0, 3\)"),
        (IMAGES, LABELS, LOGITS[:1], r"2 images, and logits of shape \(1, 2\)"),
        (IMAGES, LABELS, LOGITS[:, :1], r"logits of shape \(2, 1\); pass one row for each, of two classes or more"),
        (IMAGES, LABELS, [[0, math.nan], [0, 1]], "the logits of image 0 have a NaN or no finite largest one"),
        (IMAGES, LABELS, [[0, 1], [-math.inf, -math.inf]], "the logits of image 1"),
        (IMAGES, [0, 2], LOGITS, "labels are int64, from 0 to 2; pass integers from 0 to 1"),
        (IMAGES, [-1, 0], LOGITS, "from -1 to 0"),
        (IMAGES, [0.0, 1.0], LOGITS, "labels are float64"),
        (IMAGES, LOGITS, LOGITS, r"labels have shape \(2, 2\); pass \(N,\)"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, images: Any, labels: Any, logits: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"plot_mistakes: .*{words}"):
        plot_mistakes(images, labels, logits, tmp_path / "mistakes.png")
    assert not list(tmp_path.iterdir())
