"""Check derivatives against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..ops import sum
from ..tensor import Array, Operand, Tensor, as_tensor, grad

__all__ = ["GradientMismatch", "check_gradients"]

FEW = 64  # up to so many entries each is varied on its own; beyond, random directions are
DIRECTIONS = 8
PROBES = np.array([-2.83, -1.94, -0.71, 0.38, 1.27, 2.09, 3.17])  # unevenly spaced: rounding errors of even ones can cancel out
NOISE = 500.0  # safety factor over the rounding errors that are seen in a few evaluations


class GradientMismatch(AssertionError):  # noqa: N818  # the name is part of the public contract
    """A derivative differs from finite differences by more than their error. The message says where, and by how much."""


def check_gradients(
    fn: Callable[..., Tensor], *inputs: Operand, order: int = 1, rng: np.random.Generator | None = None, step: float = 1e-3
) -> None:
    """Compare the derived gradients of `fn` with finite differences, in float64.

    The output is contracted with a random cotangent (never ones), and differentiated numerically by central differences at three step
    sizes with Richardson extrapolation. The tolerance is the estimated error of that, not a constant.

    Parameters
    ----------
    fn : callable
        Tensors to Tensor, of any shapes; deterministic, and smooth within a few `step` of the inputs.
    *inputs : array_like
        Floating-point ones are converted to float64 and differentiated; others are passed on as they are.
    order : {1, 2, 3}
        2 also checks the derivatives of the gradients, 3 those of the derivatives.
    rng : numpy.random.Generator, optional
        Draws cotangents and directions; by default always the same ones.
    step : float
        Largest step, relative to an entry (or to 1, for smaller entries).

    Raises
    ------
    GradientMismatch
        With the worst entry or direction, both values, their error bar, and the shapes.

    Examples
    --------
    >>> import tinygrad_mnist as tg
    >>> check_gradients(lambda x, y: tg.exp(x) * y, np.ones((2, 1)), np.ones(3), order=2)
    """
    rng = np.random.default_rng(0) if rng is None else rng
    values = [np.array(as_tensor(x).data) for x in inputs]
    active = [i for i, v in enumerate(values) if v.dtype.kind == "f"]
    values = [v.astype(np.float64) if i in active else v for i, v in enumerate(values)]
    originals = [v.copy() for v in values]
    leaves = [Tensor(v, requires_grad=i in active) for i, v in enumerate(values)]
    out = fn(*leaves)
    cotangent = rng.uniform(0.5, 1.5, out.shape) * rng.choice([-1.0, 1.0], out.shape)
    wanted = [leaves[i] for i in active]
    gradients = [g.data for g in grad(out, wanted, gradient=cotangent)]

    def contracted(*arrays: Array) -> float:
        return float(np.sum(fn(*(Tensor(a, requires_grad=i in active) for i, a in enumerate(arrays))).data * cotangent))

    worst: tuple[float, str] = (1.0, "")
    for direction, where in _directions([values[i] for i in active], rng):
        analytic = float(np.sum([np.sum(g * d) for g, d in zip(gradients, direction, strict=True)]))
        steps: list[Any] = [0.0] * len(values)
        for i, d in zip(active, direction, strict=True):
            steps[i] = d
        numerical, error = _derivative(lambda t, d=steps: contracted(*(v + t * s for v, s in zip(values, d, strict=True))), step)  # type: ignore[misc]  # mypy: lambda default
        difference = abs(analytic - numerical)
        if not difference <= error * worst[0]:
            ratio = f", ratio {analytic / numerical:.6g}" if numerical else ""
            worst = (
                difference / error,
                f"order {order} counted down: {where}: derived {analytic:.12g}, finite differences {numerical:.12g} ± {error:.2g}{ratio}",
            )
    shapes = ", ".join(f"{v.dtype} {v.shape}" for v in values)
    if worst[1]:
        raise GradientMismatch(f"{worst[1]}; inputs: {shapes}; output: {out.shape}")
    for before, after, leaf in zip(originals, values, leaves, strict=True):
        if not (np.array_equal(before, after, equal_nan=True) and np.array_equal(before, leaf.data, equal_nan=True)):
            raise GradientMismatch(f"an input was modified; inputs: {shapes}")
    if order > 1:
        weights = [rng.uniform(0.5, 1.5, values[i].shape) for i in active]

        def slope(*tensors: Tensor) -> Tensor:
            gs = grad(fn(*tensors), [tensors[i] for i in active], create_graph=True, gradient=cotangent)
            total = as_tensor(0.0)
            for g, w in zip(gs, weights, strict=True):
                total = total + sum(g * w)
            return total

        check_gradients(slope, *values, order=order - 1, rng=rng, step=step)


def _directions(values: list[Array], rng: np.random.Generator) -> list[tuple[list[Array], str]]:
    """Return what to vary, with a name for it: each entry where there are few, else random directions; scaled to the entries."""
    scales = [np.maximum(np.abs(v), 1.0) for v in values]
    found = []
    for i, v in enumerate(values):
        if v.size <= FEW:
            for index in np.ndindex(v.shape):
                direction = [np.zeros_like(w) for w in values]
                direction[i][index] = scales[i][index]
                found.append((direction, f"input {i}, entry {index}"))
    if any(v.size > FEW for v in values):
        for number in range(DIRECTIONS):
            signs = [rng.choice([-1.0, 1.0], v.shape) * rng.uniform(0.5, 1.0, v.shape) for v in values]
            found.append(([s * d for s, d in zip(scales, signs, strict=True)], f"random direction {number}"))
    return found


def _derivative(f: Callable[[float], float], step: float) -> tuple[float, float]:
    """Return the derivative at 0 by central differences with Richardson extrapolation, and a bound on its error."""
    slopes = [(f(h) - f(-h)) / (2 * h) for h in (step, step / 2, step / 4)]
    first, second = (4 * slopes[1] - slopes[0]) / 3, (4 * slopes[2] - slopes[1]) / 3
    best = (16 * second - first) / 15
    near = np.array([f(t * step * 1e-5) for t in PROBES])  # so near each other that what is no straight line is rounding errors
    bends = near - np.polyval(np.polyfit(PROBES, near, 1), PROBES)
    noise = max(np.abs(bends).max(), np.finfo(np.float64).eps * np.abs(near).max())
    return best, 4 * abs(best - second) + NOISE * noise / step + 1e-9 * abs(best) + np.finfo(np.float64).tiny
