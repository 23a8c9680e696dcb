"""Models of the gallery that differentiate by `tg.func`: short, and trained to what their docstrings promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_mnist as tg
from models import logistic_newton, maml, physics_informed

MODELS = (logistic_newton, maml, physics_informed)


def test_newton_finds_the_optimum_in_seven_steps() -> None:
    x, labels = logistic_newton.threes_and_eights(2500, np.random.default_rng(0))
    weights, lengths = logistic_newton.train(x[:300], labels[:300])
    assert len(lengths) == 8 and lengths[0] > 0.05 and lengths[-1] < 1e-13
    quadratic = [(before, after) for before, after in zip(lengths, lengths[1:], strict=False) if 1e-13 < after < 1e-3]
    assert quadratic and all(after < before / 10 for before, after in quadratic)
    assert logistic_newton.accuracy(weights, x[300:], labels[300:]) > 0.8
    by_hand = x[:300].T @ (1 / (1 + np.exp(-x[:300] @ weights)) - labels[:300]) / 300 + 0.002 * weights
    np.testing.assert_allclose(by_hand, 0, atol=1e-12)  # the gradient, written out


def error_of_maml(steps: int, rate: float = 0.05) -> float:
    trained = maml.train(steps, np.random.default_rng(0), rate)
    return float(np.mean([maml.error(*trained, np.random.default_rng(seed)).item() for seed in range(20)]))


def test_maml_learns_a_sinusoid_from_ten_points() -> None:
    assert error_of_maml(250) < 1.2 < 2.5 < error_of_maml(100, rate=0.0)


@pytest.mark.slow
def test_maml_trained_for_longer() -> None:
    assert error_of_maml(800) < 0.75 < 2.5 < error_of_maml(800, rate=0.0)


def test_the_oscillator_moves_as_it_must() -> None:
    fit, times = physics_informed.train(20, np.random.default_rng(0)), np.linspace(0, physics_informed.END, 99)[:, None]
    assert np.abs(fit(times) - physics_informed.exact(times)).max() < 2e-3
    t, step = np.linspace(0, physics_informed.END, 50)[1:-1], 1e-4
    before, now, after = (physics_informed.exact(t + shift) for shift in (-step, 0, step))
    rest = (after - 2 * now + before) / step**2 + 2 * physics_informed.FRICTION * (after - before) / (2 * step)
    np.testing.assert_allclose(rest + physics_informed.FREQUENCY**2 * now, 0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("module", [logistic_newton, physics_informed], ids=lambda module: module.__name__)
def test_they_run_as_programs(module: object) -> None:
    root, name = Path(tg.__file__).parents[1], module.__name__
    done = subprocess.run([sys.executable, "-m", name], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == "" and 1 <= len(done.stdout.splitlines()) <= 2, done.stderr


@pytest.mark.parametrize("module", MODELS, ids=lambda module: module.__name__)
def test_they_are_short(module: object) -> None:
    assert len(Path(module.__file__).read_text(encoding="utf-8").splitlines()) <= 60
