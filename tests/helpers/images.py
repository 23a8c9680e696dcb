"""What the tests of convolution, pooling and im2col share: geometries, images of whole numbers, naive windows.

Entries are small whole numbers, so that every order of summation gives the same, exact result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from op_checks import Array, Shape, dtypes

import tinygrad_mnist as tg
from tinygrad_mnist.testing import arrays, check_gradients, conv_geometries

layouts = st.sampled_from(["C", "batch innermost", "reversed"])
half = settings(max_examples=settings().max_examples // 2)  # for slow checks of what other tests compare exactly


def as_tuple(geometry: Any) -> tuple[Any, ...]:
    return tuple(geometry[axis] for axis in "nchw"), geometry["kernel_size"], geometry["stride"], geometry["padding"]


geometries, pool_geometries = conv_geometries().map(as_tuple), conv_geometries(pooling=True).map(as_tuple)

INVALID_PAIRS = [-1, 1.0, True, (1, 2, 3), (1,), (1, -1), (2.5, 1), (False, 1), "1", None, np.array([1, 1])]
X = np.zeros((2, 3, 5, 6))


def numbers(seed: int, shape: Shape, dtype: Any = np.float64, layout: str = "C", limit: int = 4) -> Array:
    """Whole numbers from -limit to limit in a read-only array."""
    x = np.random.default_rng(seed).integers(-limit, limit + 1, shape).astype(dtype)
    if layout == "batch innermost":
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)
    elif layout == "reversed":
        reverse = (slice(None, None, -1),) * len(shape)
        x = np.ascontiguousarray(x[reverse])[reverse]
    x.flags.writeable = False
    return x


def windows(x: Array, kernel: Any, stride: Any, padding: Any, value: float = 0.0) -> Array:
    """(N, C, H, W) -> (N, C, OH, OW, KH, KW), one window at a time."""
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=value)
    oh, ow = (x.shape[2] - kh) // sh + 1, (x.shape[3] - kw) // sw + 1
    out = np.empty((*x.shape[:2], oh, ow, kh, kw), x.dtype)
    for i in range(oh):
        for j in range(ow):
            out[:, :, i, j] = x[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw]
    return out


def exactly(actual: Any, expected: Array) -> None:
    data = actual.data if isinstance(actual, tg.Tensor) else actual
    assert data.dtype == expected.dtype
    np.testing.assert_array_equal(data, expected, strict=True)


def matches_finite_differences(
    data: Any, drawn: Any, prepare: Callable[..., tuple[list[Shape], Callable[..., Any]]], order: int, seed: int
) -> None:
    """Check gradients at a drawn geometry; ``prepare(shape, kernel, stride, padding)`` gives shapes and a function."""
    shape, *window = data.draw(drawn.filter(lambda g: g[0][0] and tg.im2col(np.zeros(g[0]), *g[1:]).size < 64))
    shapes, fn = prepare(shape, *window)
    inputs = [data.draw(arrays(one, dtypes, distinct=True)) for one in shapes]
    check_gradients(lambda *xs: tg.sin(fn(*xs)), *inputs, order=order, rng=seed)


def check_value_error(call: Callable[[], Any], parts: list[str]) -> None:
    """Check that the call raises a ValueError that contains all these words."""
    try:
        call()
    except ValueError as error:
        assert all(part in str(error) for part in parts), f"{error} lacks one of {parts}"
    else:
        raise AssertionError("no ValueError was raised")
