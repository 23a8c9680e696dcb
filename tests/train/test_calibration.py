"""The temperature is the best one, and the calibration error is the one of the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from tinygrad_mnist.train.calibration import calibration_error, fit_temperature

SEEDS = st.integers(0, 2**32 - 1)


def draw(seed: int, n: int = 200, classes: int = 5) -> tuple[Any, Any]:
    """Logits, and labels that are drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    return logits, (rng.random((n, 1)) > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1).clip(0, classes - 1)


@given(st.integers(1, 30), st.integers(1, 30), st.floats(0.1, 20), st.floats(-50, 50))
def test_two_classes_have_a_closed_form(wrong: int, more: int, gap: float, shift: float) -> None:
    labels = [1] * (wrong + more) + [0] * wrong
    logits = np.full((len(labels), 2), shift) + [0, gap]
    expected = min(gap / np.log((wrong + more) / wrong), 100)
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-9)


@given(SEEDS, st.floats(0.2, 5))
def test_no_other_temperature_is_more_likely(seed: int, scale: float) -> None:
    logits, labels = draw(seed)
    logits = scale * logits

    def loss(beta: float) -> float:
        return -log_softmax(beta * logits, axis=1)[np.arange(len(labels)), labels].mean()

    best = minimize_scalar(loss, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-9})
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(1 / best.x, rel=1e-4)
    assert loss(1 / found) <= best.fun + 1e-14
    assert found == pytest.approx(scale * fit_temperature(logits / scale, labels), rel=1e-9)
    assert type(found) is float and found == pytest.approx(fit_temperature(logits.astype(np.float32), labels), rel=1e-4)


def test_labels_drawn_from_the_softmax_need_no_temperature() -> None:
    logits, labels = draw(0, 20_000)
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.03)
    assert calibration_error(softmax(logits, axis=1), labels) < 0.015
    assert calibration_error(softmax(3 * logits, axis=1), labels) > 0.1
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("size", [1e-300, 1e-3, 1.0, 1e3, 1e300])
def test_a_temperature_is_bounded(size: float) -> None:
    logits, labels = size * np.eye(3), np.arange(3)
    separated, contrary, equal = (fit_temperature(sign * logits, labels) for sign in (1, -1, 0))
    assert (separated, contrary, equal) == (0.01, 100, 1)
    mixed = np.concatenate([logits, logits]), [0, 1, 2, 0, 1, 1]
    assert 0.01 <= fit_temperature(*mixed) <= 100


@given(SEEDS, st.integers(1, 20), st.booleans())
def test_the_calibration_error_is_that_of_the_definition(seed: int, bins: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    if coarse:  # half of the confidences lie on the edge of a bin
        cuts = np.sort(rng.integers(0, 2 * bins + 1, (50, 2)), axis=1)
        probabilities = np.diff(cuts, axis=1, prepend=0, append=2 * bins) / (2 * bins)
    else:
        probabilities = rng.dirichlet(np.full(3, 0.5), 50)
    labels = rng.integers(0, 3, 50)
    expected = 0.0
    for b in range(bins):
        inside = [
            (p.max(), p.argmax() == label)
            for p, label in zip(probabilities, labels, strict=True)
            if b / bins < p.max() <= (b + 1) / bins
        ]
        if inside:
            confidence, right = np.mean(inside, axis=0)
            expected += len(inside) / len(labels) * abs(right - confidence)
    assert calibration_error(probabilities, labels, bins) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("measure", [fit_temperature, calibration_error])
@pytest.mark.parametrize(
    ("scores", "labels", "error", "words"),
    [
        (np.ones((0, 2)), [], ValueError, r"have shape \(0, 2\); pass \(N, K\)"),
        ([[1.0]], [0], ValueError, r"have shape \(1, 1\)"),
        ([1.0, 0.0], [0, 0], ValueError, r"have shape \(2,\)"),
        ([[1.0, np.nan]], [0], ValueError, "NaN or infinite in 1 places"),
        ([["a", "b"]], [0], TypeError, "of type list"),
        ([[1.0, 0.0]], [0, 0], ValueError, r"labels have shape \(2,\); pass one class for each of 1"),
        ([[1.0, 0.0]], [0.0], TypeError, "labels are float64; pass classes"),
        ([[1.0, 0.0]], [2], ValueError, "labels are from 2 to 2; the classes are 0 to 1"),
        ([[1.0, 0.0]], [-1], ValueError, "labels are from -1 to -1"),
    ],
)
def test_what_makes_no_sense_is_refused(measure: Any, scores: Any, labels: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=f"^{measure.__name__}: .*{words}"):
        measure(scores, labels)


@pytest.mark.parametrize("scores", [[[2.0, -1.0]], [[0.5, 0.4]], [[3.0, 1.0]]])
def test_logits_are_no_probabilities(scores: Any) -> None:
    with pytest.raises(ValueError, match="pass the softmax of the logits"):
        calibration_error(scores, [0])
