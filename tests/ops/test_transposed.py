"""One-dimensional and transposed convolution against loops over what each place sees, or gives to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import INVALID_PAIRS, check_value_error, exactly, layouts, numbers
from op_checks import dtypes, seeds
from planted import normal, plants, shifted, vjp

import tinygrad_mnist as tg
from tinygrad_mnist.testing import check_gradients

counts, pairs = st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3))
channels = st.tuples(
    st.integers(0, 2), counts, st.integers(1, 2), st.integers(1, 2)
)  # images, groups, and in each group


# One axis -------------------------------------------------------------------------------------------------------------
@given(channels, counts, counts, counts, st.integers(0, 3), st.integers(0, 6), st.booleans(), dtypes, seeds)
def test_conv1d_adds_up_what_each_place_sees(
    sizes: Any, kernel: int, stride: int, dilation: int, padding: int, more: int, biased: bool, dtype: Any, seed: int
) -> None:
    (n, groups, c, f), extent = sizes, dilation * (kernel - 1) + 1
    x = numbers(seed, (n, c * groups, max(extent - 2 * padding, 1) + more), dtype)
    w, bias = numbers(seed + 1, (f * groups, c, kernel), dtype), numbers(seed + 2, (f * groups,), dtype)
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    starts = range(0, padded.shape[2] - extent + 1, stride)
    expected = np.zeros((n, f * groups, len(starts)), dtype) + bias[:, None] * biased
    for place, number in np.ndindex(len(starts), f * groups):
        seen = padded[:, :, starts[place] : starts[place] + extent : dilation]
        expected[:, number, place] += (seen[:, number // f * c :][:, :c] * w[number]).sum((1, 2))
    exactly(tg.conv1d(x, w, bias if biased else None, stride, padding, dilation, groups), expected)


@pytest.mark.parametrize(("padding", "dilation", "groups"), [("same", 1, 2), ("valid", 2, 1)])
def test_gradients_of_conv1d_match_finite_differences(padding: Any, dilation: int, groups: int) -> None:
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape) for shape in ((1, 2, 3), (2, 2 // groups, 2), (2,))]
    window = {"padding": padding, "dilation": dilation, "groups": groups}
    check_gradients(lambda x, w, b: tg.sin(tg.conv1d(x, w, b, **window)), *inputs, order=2, rng=0)
    layer = tg.nn.Conv1d(2, 2, 2, **window, dtype=np.float64)
    layer.weight.data, layer.bias.data = inputs[1:]
    exactly(layer(inputs[0]), tg.conv1d(*inputs, **window).data)


# Transposed -----------------------------------------------------------------------------------------------------------
@st.composite
def transposed(draw: Any) -> tuple[Any, ...]:
    """Draw shapes of images and weights, stride, padding, output padding, groups and dilation; some output is left."""
    (n, groups, c, f), size, kernel, stride, dilation = draw(channels), *[draw(pairs) for _ in range(4)]
    more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    whole = [(h - 1) * s + d * (k - 1) + e for h, s, d, k, e in zip(size, stride, dilation, kernel, more, strict=True)]
    padding = tuple(draw(st.integers(0, min(length // 2, 4))) for length in whole)
    return (n, c * groups, *size), (c * groups, f, *kernel), stride, padding, more, groups, dilation


@given(transposed(), st.booleans(), dtypes, layouts, seeds)
def test_each_pixel_adds_its_multiple_of_the_kernel(
    drawn: Any, biased: bool, dtype: Any, layout: str, seed: int
) -> None:
    shape, kernels, stride, padding, more, groups, dilation = drawn
    x, w = numbers(seed, shape, dtype, layout), numbers(seed + 1, kernels, dtype)
    bias = numbers(seed + 2, (kernels[1] * groups,), dtype) if biased else None
    (n, c, *size), (_, f, *kernel), own = shape, kernels, kernels[0] // groups
    whole = [
        (h - 1) * s + d * (k - 1) + e + 1 for h, s, d, k, e in zip(size, stride, dilation, kernel, more, strict=True)
    ]
    canvas = np.zeros((n, f * groups, *whole), dtype)
    for i, j, k, m, channel in np.ndindex(*size, *kernel, c):
        row, column, filters = i * stride[0] + k * dilation[0], j * stride[1] + m * dilation[1], channel // own * f
        canvas[:, filters : filters + f, row, column] += x[:, channel, i, j, None] * w[channel, :, k, m]
    (top, left), (height, width) = padding, whole
    expected = canvas[:, :, top : height - top, left : width - left]
    leaves = [tg.Tensor(a, requires_grad=True) for a in (x, w)]
    out = tg.conv_transpose2d(*leaves, bias, *drawn[2:])
    exactly(out, expected if bias is None else expected + bias[:, None, None])
    g = numbers(seed + 3, out.shape, dtype)
    gx, gw = tg.grad(out, leaves, gradient=g)
    assert np.vdot(expected, g) == np.vdot(x, gx.data) == np.vdot(w, gw.data)  # linear in each


def test_transposed_and_plain_convolutions_are_adjoint() -> None:
    x, w, y = numbers(0, (2, 4, 3, 5)), numbers(1, (4, 3, 3, 2)), numbers(2, (2, 6, 8, 10))
    out = tg.conv_transpose2d(x, w, None, (3, 2), (1, 0), (1, 0), 2, (1, 1))
    assert out.shape == y.shape[:1] + (6, 8, 10)
    assert np.vdot(out.data, y) == np.vdot(x, tg.conv2d(y, w, None, (3, 2), (1, 0), groups=2).data)


@pytest.mark.parametrize(
    ("stride", "padding", "more", "groups", "dilation"),
    [(2, 1, 1, 1, 1), ((1, 2), (1, 0), (2, 1), 2, (3, 1))],
)
def test_gradients_of_conv_transpose2d_match_finite_differences(
    stride: Any, padding: Any, more: Any, groups: int, dilation: Any
) -> None:
    rng, window = np.random.default_rng(0), (stride, padding, more, groups, dilation)
    inputs = [rng.normal(size=shape) for shape in ((1, 2, 2, 1), (2, 1, 2, 2), (groups,))]
    check_gradients(lambda x, w, b: tg.sin(tg.conv_transpose2d(x, w, b, *window)), *inputs, order=2, rng=0)
    layer = tg.nn.ConvTranspose2d(
        2, groups, 2, stride, padding, more, groups=groups, dilation=dilation, dtype=np.float64
    )
    layer.weight.data, layer.bias.data = inputs[1:]
    exactly(layer(inputs[0]), tg.conv_transpose2d(*inputs, *window).data)


def test_layers_without_a_bias_have_none() -> None:
    rng = np.random.default_rng(0)
    layers = (
        tg.nn.Conv1d(4, 6, 3, bias=False, groups=2, rng=rng),
        tg.nn.Conv2d(4, 6, 3, bias=False, dilation=(1, 2), rng=rng),
        tg.nn.ConvTranspose2d(4, 6, 3, 2, output_padding=1, bias=False, rng=rng),
    )
    assert [list(tg.nn.parameters(layer)) for layer in layers] == [["weight"]] * 3
    assert list(map(repr, layers)) == [
        "Conv1d(4, 6, 3, stride=1, padding=0, groups=2, bias=False)",
        "Conv2d(4, 6, 3x3, stride=1, padding=0, dilation=(1, 2), bias=False)",
        "ConvTranspose2d(4, 6, 3x3, stride=2, padding=0, output_padding=1, bias=False)",
    ]
    assert repr(tg.nn.Conv2d(4, 6, 3)) == "Conv2d(4, 6, 3x3, stride=1, padding=0)"


def test_initial_weights_are_drawn_for_what_an_output_sees() -> None:
    few = {"rng": np.random.default_rng(0), "dtype": np.float64}
    for layer, fan_in in (
        (tg.nn.Conv1d(64, 512, 3, groups=4, **few), 16 * 3),
        (tg.nn.Conv2d(64, 512, 3, groups=4, **few), 16 * 9),
        (tg.nn.ConvTranspose2d(512, 64, 4, 2, groups=8, **few), 64 * 16 / 4),
    ):
        np.testing.assert_allclose(layer.weight.data.std(), np.sqrt(2 / fan_in), rtol=0.03)


# Errors ---------------------------------------------------------------------------------------------------------------
X, W = np.zeros((2, 4, 5, 6)), np.zeros((4, 3, 2, 2))


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: tg.conv1d(X, W), ["conv1d", "(2, 4, 5, 6)", "(4, 3, 2, 2)", "(N, C, L)"]),
        (lambda: tg.conv1d(X[0], W[0]), ["conv1d", "(4, 5, 6)", "(3, 2, 2)", "groups=1"]),
        (lambda: tg.conv1d(X[0], np.zeros((2, 5, 7))), ["conv1d", "1 x 7", "1 x 6"]),
        (lambda: tg.conv1d(X[0], np.zeros((2, 5, 2)), padding="same", stride=2), ["conv1d", "'same'", "must be 1"]),
        (lambda: tg.conv1d(X[0], np.zeros((2, 5, 2)), np.zeros(3)), ["conv1d", "bias", "(3,)", "(2,)"]),
        (lambda: tg.nn.Conv1d(4, 4, 3, padding="full"), ["Conv1d", "padding must be", "'full'"]),
        (lambda: tg.conv_transpose2d(X[0], W), ["conv_transpose2d", "(4, 5, 6)", "(N, C, H, W)"]),
        (lambda: tg.conv_transpose2d(X, W[:3]), ["conv_transpose2d", "(2, 4, 5, 6)", "(3, 3, 2, 2)"]),
        (lambda: tg.conv_transpose2d(X, W, groups=3), ["conv_transpose2d", "groups=3", "divisor"]),
        (lambda: tg.conv_transpose2d(X[:, :, :0], W), ["conv_transpose2d", "(2, 4, 0, 6)", "not empty"]),
        (lambda: tg.conv_transpose2d(X, W, np.zeros(4)), ["conv_transpose2d", "bias", "(4,)", "(3,)"]),
        (lambda: tg.conv_transpose2d(X, W, padding=(3, 1)), ["conv_transpose2d", "0 x 5", "less padding"]),
        (lambda: tg.conv_transpose2d(X, W, output_padding=1), ["conv_transpose2d", "output_padding 1", "less than"]),
        (lambda: tg.nn.ConvTranspose2d(4, 4, 2, 2, 0, (0, 2)), ["ConvTranspose2d", "output_padding", "stride 2"]),
        (lambda: tg.nn.ConvTranspose2d(4, 6, 2, groups=3), ["ConvTranspose2d", "groups is 3", "in_channels 4"]),
    ],
)
def test_shapes_that_do_not_fit_are_named(call: Any, parts: list[str]) -> None:
    check_value_error(call, parts)


@pytest.mark.parametrize("value", INVALID_PAIRS, ids=repr)
@pytest.mark.parametrize("name", ["stride", "padding", "output_padding", "dilation"])
def test_settings_must_be_integers_or_pairs(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^conv_transpose2d: {name} must be an integer"):
        tg.conv_transpose2d(X, W, **{name: value})


# Planted errors -------------------------------------------------------------------------------------------------------
def one_axis(x: Any, w: Any) -> tg.Tensor:
    return tg.conv1d(x, w, dilation=2)


def wider(x: Any, w: Any, *bias: Any) -> tg.Tensor:
    return tg.conv_transpose2d(x, w, *bias, stride=2, output_padding=1)


@plants("conv1d: off by one", one_axis, normal((2, 2, 6), (2, 2, 2)), kind="windows", argument=0)
def _(right, *rest):
    return shifted(right, 2)


@plants("conv1d: kernel not flipped", one_axis, normal((2, 2, 6), (2, 2, 3)), kind="windows", argument=0)
def _(right, g, out, x, w):
    return vjp(one_axis, 0, g, x, w[:, :, ::-1])


@plants("conv_transpose2d: kernel flipped", wider, normal((2, 2, 3, 3), (2, 1, 3, 3)), kind="windows", argument=0)
def _(right, g, out, x, w):
    return vjp(wider, 0, g, x, w[:, :, ::-1, ::-1])


@plants(
    "conv_transpose2d: image of its own size", wider, normal((2, 2, 3, 3), (2, 2, 2, 2)), kind="windows", argument=1
)
def _(right, g, out, x, w):
    return shifted(right, 2)


@plants("conv_transpose2d: mean for the sum", wider, normal((2, 1, 3, 3), (1, 2, 2, 2), (2,)), argument=2)
def _(right, g, *rest):
    return right / g.shape[0]
