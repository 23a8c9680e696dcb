"""Gradient clipping: the norm of all gradients together, against its definition and PyTorch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import dtypes, seeds

import tinygrad_mnist as tg
from tinygrad_mnist.optim import clip_grad_norm

norms = st.sampled_from([0.5, 1.0, 2.0, 3.5, math.inf])
SHAPES = {"w": (2, 3), "b": (3,), "scale": (), "none": (0, 4)}


def drawn(seed: int, dtype: Any, magnitude: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(magnitude * rng.normal(size=shape)).astype(dtype) for name, shape in SHAPES.items()}


def defined(grads: dict[str, Any], p: float) -> float:
    numbers = np.abs(np.concatenate([g.ravel() for g in grads.values()]).astype(np.longdouble))
    return float(numbers.max() if p == math.inf else (numbers**p).sum() ** (1 / np.longdouble(p)))


@given(seeds, dtypes, norms, st.floats(0, 10), st.sampled_from([1e-30, 1e-3, 1.0, 1e3, 1e30]))
def test_the_norm_is_that_of_all_gradients_and_then_at_most_the_limit(
    seed: int, dtype: Any, p: float, limit: float, magnitude: float
) -> None:
    grads, kept = drawn(seed, dtype, magnitude), drawn(seed, dtype, magnitude)
    params = {name: tg.Tensor(np.zeros_like(g), requires_grad=True) for name, g in grads.items()}
    for name, param in params.items():
        param.grad = tg.Tensor(grads[name])
    before = dict(grads)
    norm, tolerance = defined(kept, p), 20 * np.finfo(dtype).eps
    assert clip_grad_norm(params, limit, p) == clip_grad_norm(grads, limit, p) == pytest.approx(norm, rel=1e-12)
    factor = min(limit / (norm + 1e-6), 1)
    for name, g in grads.items():
        np.testing.assert_array_equal(before[name], kept[name], strict=True)  # no array is written to
        np.testing.assert_allclose(g, factor * kept[name].astype(np.float64), rtol=tolerance, atol=1e-44)
        found = params[name].grad
        assert found is not None
        np.testing.assert_array_equal(found.data, g, strict=True)
    assert defined(grads, p) <= max(limit * (1 + tolerance), 1e-40)


@given(seeds, norms, st.floats(1e-3, 10))
def test_pytorch_clips_alike(seed: int, p: float, limit: float) -> None:
    torch = pytest.importorskip("torch")
    grads = {name: g for name, g in drawn(seed, np.float64).items() if g.size}  # it takes no maximum of nothing
    theirs = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in grads.values()]
    for param, g in zip(theirs, grads.values(), strict=True):
        param.grad = torch.tensor(g)
    expected = torch.nn.utils.clip_grad_norm_(theirs, limit, p)
    assert clip_grad_norm(grads, limit, p) == pytest.approx(expected.item(), rel=1e-12)
    for param, g in zip(theirs, grads.values(), strict=True):
        np.testing.assert_allclose(g, param.grad.numpy(), rtol=1e-12)


def test_a_list_of_parameters_some_without_a_gradient() -> None:
    a, b = (tg.Tensor(np.zeros(2, np.float32), requires_grad=True) for _ in range(2))
    a.grad = tg.Tensor(np.array([3, 4], np.float32))
    kept = a.grad
    assert clip_grad_norm([a, b], 10) == 5 and a.grad is kept and b.grad is None
    assert clip_grad_norm(a, 1) == 5
    np.testing.assert_allclose(a.grad.data, [0.6, 0.8], rtol=1e-6)
    assert a.grad.dtype == np.float32 and kept.data.tolist() == [3, 4]


def test_norms_beyond_float64() -> None:
    grads = {"w": np.array([1.7e308, -1.7e308])}
    assert clip_grad_norm(grads, 1.0) == math.inf
    np.testing.assert_allclose(grads["w"], [0.5**0.5, -(0.5**0.5)], rtol=1e-12)
    assert clip_grad_norm({}, 1.0) == clip_grad_norm({"w": np.zeros(2)}, 0.0) == 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_by_name_and_changes_nothing(wrong: float) -> None:
    first = np.ones(2)
    grads = {"w": first, "b": np.array([1.0, wrong])}
    with pytest.raises(FloatingPointError, match="clip_grad_norm: the gradient of b is not finite"):
        clip_grad_norm(grads, 0.1)
    assert grads["w"] is first


def test_what_has_no_gradients_is_refused() -> None:
    w = tg.Tensor(1.0, requires_grad=True)
    with pytest.raises(ValueError, match="there is no gradient; call backward"):
        clip_grad_norm({"w": w}, 1.0)
    for wrong in ({"w": [1.0]}, {"w": np.array([1])}, [np.ones(2)], {"w": w, "g": np.ones(2)}, tg.nn.ReLU()):
        with pytest.raises(TypeError, match=r"clip_grad_norm: pass tg.nn.parameters\(model\), or another dict or list"):
            clip_grad_norm(wrong, 1.0)  # type: ignore[arg-type]  # on purpose
