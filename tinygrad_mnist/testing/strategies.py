"""Hypothesis strategies for what ops take (they need the ``test`` extra)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("tinygrad_mnist.testing: strategies need Hypothesis; pip install 'tinygrad_mnist[test]'") from error

__all__ = ["arrays", "conv_geometries"]


def arrays(shape: Any, dtype: npt.DTypeLike = np.float64, low: float = -3.0, high: float = 3.0, distinct: bool = False) -> Any:
    """Strategy for arrays of a drawn or given shape, with entries from low to high on a grid of a hundredth.

    With `distinct`, no two entries are equal: they are at least a hundredth apart, so that a maximum has no ties.
    """
    def fill(shape: tuple[int, ...]) -> Any:
        size = int(np.prod(shape))
        grid = np.linspace(low, high, max(round((high - low) * 100), size) + 1)
        return st.integers(0, 2**32 - 1).map(
            lambda seed: np.random.default_rng(seed).choice(grid, size, replace=not distinct).reshape(shape).astype(dtype)
        )

    return (shape if isinstance(shape, st.SearchStrategy) else st.just(tuple(shape))).flatmap(fill)


def conv_geometries(pooling: bool = False) -> Any:
    """Strategy for valid settings of a convolution or pooling: dict(n, c, h, w, kernel_size, stride, padding)."""
    def draw_geometry(draw: Any) -> dict[str, Any]:
        kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        padding = tuple(draw(st.integers(0, k // 2 if pooling else k)) for k in kernel)
        h, w = (max(k - 2 * p, 1) + draw(st.integers(0, 5)) for k, p in zip(kernel, padding, strict=True))
        stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        n, c = draw(st.integers(0, 3)), draw(st.integers(1, 3))
        return {"n": n, "c": c, "h": h, "w": w, "kernel_size": kernel, "stride": stride, "padding": padding}

    return st.composite(draw_geometry)()
