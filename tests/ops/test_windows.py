"""im2col and col2im against naive loops, each other and finite differences, for any geometry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import (
    INVALID_PAIRS,
    X,
    check_value_error,
    exactly,
    geometries,
    half,
    layouts,
    matches_finite_differences,
    numbers,
    windows,
)
from op_checks import Function, Shape, dtypes, seeds
from planted import normal, plants, shifted, vjp

import tinygrad_mnist as tg
from tinygrad_mnist.testing import (
    adjoint_check,
)


@given(geometries, seeds, dtypes, layouts)
def test_im2col_writes_windows_as_rows(geometry: Any, seed: int, dtype: Any, layout: str) -> None:
    shape, *settings_ = geometry
    x = numbers(seed, shape, dtype, layout)
    fields = windows(x, *settings_)
    n, c, oh, ow, kh, kw = fields.shape
    exactly(tg.im2col(x, *settings_), fields.transpose(0, 2, 3, 1, 4, 5).reshape(n * oh * ow, c * kh * kw))


@given(geometries, seeds, dtypes)
def test_col2im_adds_rows_back(geometry: Any, seed: int, dtype: Any) -> None:
    (n, c, h, w), (kh, kw), (sh, sw), (ph, pw) = shape, *settings_ = geometry
    oh, ow = (h + 2 * ph - kh) // sh + 1, (w + 2 * pw - kw) // sw + 1
    cols = numbers(seed, (n * oh * ow, c * kh * kw), dtype)
    padded = np.zeros((n, c, h + 2 * ph, w + 2 * pw), dtype)
    for row, (image, i, j) in zip(cols, np.ndindex(n, oh, ow), strict=True):
        padded[image, :, i * sh : i * sh + kh, j * sw : j * sw + kw] += row.reshape(c, kh, kw)
    exactly(tg.col2im(cols, shape, *settings_), padded[:, :, ph : ph + h, pw : pw + w])


def test_an_integer_stands_for_both_directions() -> None:
    x = numbers(0, (2, 3, 7, 8))
    exactly(tg.im2col(x, 3, np.int64(2), [1, 1]), tg.im2col(x, (3, 3), (2, 2), (1, 1)).data)


@given(geometries, seeds, dtypes)
def test_im2col_and_col2im_are_adjoint(geometry: Any, seed: int, dtype: Any) -> None:
    shape, *settings_ = geometry
    adjoint_check(
        lambda x: tg.im2col(x, *settings_), lambda y: tg.col2im(y, shape, *settings_), shape, dtype=dtype, rng=seed
    )
    x = tg.Tensor(numbers(seed, shape), requires_grad=True)
    cols = tg.im2col(x, *settings_)
    y = tg.Tensor(numbers(seed + 1, cols.shape), requires_grad=True)
    image = tg.col2im(y, shape, *settings_)
    exactly(tg.grad(cols, [x], gradient=y)[0], image.data)
    exactly(tg.grad(image, [y], gradient=x)[0], cols.data)


@half
@given(st.data(), st.sampled_from(["im2col", "col2im"]), st.integers(1, 2), seeds)
def test_gradients_match_finite_differences(data: Any, name: str, order: int, seed: int) -> None:
    def prepare(shape: Shape, *window: Any) -> tuple[list[Shape], Function]:
        if name == "im2col":
            return [shape], lambda x: tg.im2col(x, *window)
        return [tg.im2col(np.zeros(shape), *window).shape], lambda cols: tg.col2im(cols, shape, *window)

    matches_finite_differences(data, geometries, prepare, order, seed)


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: tg.im2col(X[0], 2), ["im2col", "(3, 5, 6)"]),
        (lambda: tg.im2col(X, (6, 2)), ["im2col", "6 x 2", "5 x 6"]),
        (lambda: tg.col2im(np.zeros((4, 5)), (1, 1, 3, 3), 2), ["col2im", "(4, 5)", "(4, 4)"]),
    ],
)
def test_shapes_that_do_not_fit_are_named(call: Any, parts: list[str]) -> None:
    check_value_error(call, parts)


@pytest.mark.parametrize("value", INVALID_PAIRS, ids=repr)
@pytest.mark.parametrize(
    ("op", "name", "call"),
    [
        ("im2col", "kernel_size", lambda v: tg.im2col(X, v)),
        ("im2col", "stride", lambda v: tg.im2col(X, 2, v)),
        ("im2col", "padding", lambda v: tg.im2col(X, 2, 1, v)),
        ("col2im", "kernel_size", lambda v: tg.col2im(X[0, 0], (1, 1, 3, 3), v)),
    ],
)
def test_settings_must_be_integers_or_pairs(op: str, name: str, call: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{op}: {name} must be an integer"):
        call(value)


@pytest.mark.parametrize("zero", [0, (0, 1), (1, 0)])
def test_zero_is_no_stride_and_no_kernel(zero: Any) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        tg.im2col(X, zero)


# Planted errors -------------------------------------------------------------------------------------------------------


@plants("im2col: overlaps averaged", lambda x: tg.im2col(x, 2), normal((1, 1, 3, 3)), kind="windows")
def _(right, g, out, x):
    return right / vjp(lambda x: tg.im2col(x, 2), 0, g * 0 + 1, x)


@plants("im2col: padding cut off by one", lambda x: tg.im2col(x, 3, padding=1), normal((1, 1, 4, 4)), kind="windows")
def _(right, *rest):
    return shifted(right, 2)


@plants("im2col: wrong for a stride", lambda x: tg.im2col(x, 2, stride=(1, 2)), normal((1, 1, 3, 4)), kind="windows")
def _(right, *rest):
    return shifted(right, 3)


@plants("col2im: kernel transposed", lambda x: tg.col2im(x, (1, 1, 3, 3), 2), normal((4, 4)), kind="windows")
def _(right, *rest):
    return right[:, [0, 2, 1, 3]]


@plants("col2im: rows of the images exchanged", lambda x: tg.col2im(x, (2, 1, 2, 3), 2), normal((4, 4)), kind="windows")
def _(right, *rest):
    return right[[2, 3, 0, 1]]
