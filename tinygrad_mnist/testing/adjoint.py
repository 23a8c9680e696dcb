"""The dot-product test for linear functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..tensor import Array, as_tensor
from ..validation import each, integer
from .magnitudes import draw_signed
from .mismatch import GradientMismatch, first_nonfinite

__all__ = ["adjoint_check"]

ROUNDING = 64.0  # tolerated rounding errors of a sum, in units of the largest that one term can have
TRIALS = 3


def adjoint_check(
    linear_op: Callable[[Any], Any],
    adjoint: Callable[[Any], Any],
    shape: int | tuple[int, ...],
    *,
    dtype: npt.DTypeLike = np.float64,
    rng: np.random.Generator | int | None = None,
) -> None:
    """Check that one linear function is the adjoint of another, by the dot-product test.

    ⟨A x, y⟩ = ⟨x, A* y⟩ is compared up to rounding, for random x and y. This needs no step size, and is therefore more
    precise than any finite difference. The gradient of a linear function is its adjoint, at every point.

    Parameters
    ----------
    linear_op, adjoint : callable
        A and A*: an ndarray (or Tensor) to an ndarray or Tensor.
    shape : int or tuple of int
        Shape of what A takes. What A* takes is the shape of A's result.
    dtype : dtype
        float64 or float32.
    rng : numpy.random.Generator or int, optional
        Draws x and y; by default always the same ones.

    Raises
    ------
    GradientMismatch
        If A is not linear, if A* gives another shape than A takes, or if the two products differ.
    TypeError, ValueError
        If `shape` or `dtype` are none, or a result is not finite.

    Examples
    --------
    >>> import tinygrad_mnist as tg
    >>> adjoint_check(lambda x: tg.im2col(x, 3, 2, 1), lambda y: tg.col2im(y, (2, 3, 5, 4), 3, 2, 1), (2, 3, 5, 4))
    """
    __tracebackhide__ = True
    shape = each("adjoint_check", "shape", shape if isinstance(shape, (tuple, list)) else (shape,), integer)
    if np.dtype(dtype).kind != "f":
        raise TypeError(f"adjoint_check: dtype is {dtype}; it must be floating-point")
    if not isinstance(rng, np.random.Generator):
        rng = np.random.default_rng(0 if rng is None else integer("adjoint_check", "rng", rng))
    eps = ROUNDING * float(np.finfo(dtype).eps)

    def product(a: Array, b: Array) -> tuple[float, float]:
        terms = a.astype(np.float64) * b
        return float(terms.sum()), float(np.abs(terms).sum())

    def result(function: Callable[[Any], Any], v: Array) -> Array:
        found = np.asarray(as_tensor(function(v)).data)
        if not np.isfinite(found).all():
            raise ValueError(f"adjoint_check: the result of {function} is {first_nonfinite(found)}")
        return found

    for _ in range(TRIALS):
        x, other = (draw_signed(rng, shape, 16).astype(dtype) for _ in range(2))
        first, second, both = (result(linear_op, v) for v in (x, other, x - 2 * other))
        size = np.abs(first).max(initial=0) + np.abs(second).max(initial=0)
        if not np.allclose(both, first - 2 * second, rtol=0, atol=eps * size):
            raise GradientMismatch(
                "adjoint_check: the first function is not linear: A(x - 2 z) differs from A x - 2 A z"
            )
        y = draw_signed(rng, first.shape, 16).astype(dtype)
        back = result(adjoint, y)
        if back.shape != shape:
            raise GradientMismatch(
                f"adjoint_check: the adjoint of a function of shape {shape} returned shape {back.shape}"
            )
        (left, left_size), (right, right_size) = product(first, y), product(x, back)
        if not abs(left - right) <= eps * (left_size + right_size):
            ratio = f", ratio {right / left:.6g}" if left else ""
            raise GradientMismatch(
                f"adjoint_check: <A x, y> = {left:.15g}, but <x, A* y> = {right:.15g}{ratio}; "
                f"x: {x.dtype} {shape}, y: {first.shape}; rounding explains {eps * (left_size + right_size):.2g}"
            )
