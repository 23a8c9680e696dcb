"""Convolution against naive loops, the product of the im2col matrix and finite differences, for any geometry."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

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
from op_checks import Array, Function, Shape, dtypes, seeds
from planted import normal, plants, shifted, vjp

import tinygrad_mnist as tg
from tinygrad_mnist.kernels import Geometry, compiled, products
from tinygrad_mnist.testing import (
    check_gradients,
)

counts = st.integers(1, 3)


# The naive definitions ------------------------------------------------------------------------------------------------


def naive_conv(x: Array, w: Array, stride: Any, padding: Any) -> Array:
    fields = windows(x, w.shape[2:], stride, padding)
    out = np.zeros((len(x), len(w), *fields.shape[2:4]), np.result_type(x, w))
    for f, i, j in np.ndindex(*out.shape[1:]):
        out[:, f, i, j] = (fields[:, :, i, j] * w[f]).sum(axis=(1, 2, 3))
    return out


def widened(w: Any, dilation: Any, groups: int) -> tg.Tensor:
    """The kernels of a plain convolution that does the same: zeros between the weights and for other groups."""
    f, c, kh, kw = w.shape
    shape = f, c * groups, dilation[0] * (kh - 1) + 1, dilation[1] * (kw - 1) + 1
    filters, channels, rows, columns = np.indices(w.shape)
    own = filters // (f // groups) * c
    places = np.ravel_multi_index((filters, own + channels, rows * dilation[0], columns * dilation[1]), shape)
    spread = np.zeros((places.size, np.prod(shape, dtype=int)), w.dtype)
    spread[np.arange(places.size), places.ravel()] = 1
    return tg.reshape(tg.matmul(tg.reshape(w, 1, places.size), spread), shape)


def derived_conv(x: Any, w: Any, bias: Any, stride: Any, padding: Any) -> tg.Tensor:
    """A convolution as the textbook writes it: one product of the im2col matrix with the filters."""
    f, _, kh, kw = w.shape
    n, _, h, width = x.shape
    oh, ow = (h + 2 * padding[0] - kh) // stride[0] + 1, (width + 2 * padding[1] - kw) // stride[1] + 1
    rows = tg.im2col(x, (kh, kw), stride, padding) @ tg.reshape(w, f, w.shape[1] * kh * kw).T
    out = rows.reshape(n, oh, ow, f).transpose(0, 3, 1, 2)
    return out if bias is None else out + tg.reshape(bias, f, 1, 1)


# Values and gradients -------------------------------------------------------------------------------------------------


def test_an_integer_stands_for_both_directions() -> None:
    x, w = numbers(0, (2, 3, 7, 8)), numbers(1, (4, 3, 3, 3))
    exactly(tg.conv2d(x, w, None, 2, 1), tg.conv2d(x, w, None, (2, 2), (1, 1)).data)


def first_and_second(fn: Any, inputs: list[Array], g: Array, probes: list[Array]) -> list[Array]:
    """The output, its VJP with `g`, and the gradients of <that VJP, probes> by all inputs and `g`."""
    leaves, cotangent = [tg.Tensor(a, requires_grad=True) for a in inputs], tg.Tensor(g, requires_grad=True)
    out = fn(*leaves)
    firsts = tg.grad(out, leaves, create_graph=True, gradient=cotangent)
    total = sum(((first * probe).sum() for first, probe in zip(firsts, probes, strict=True)), start=tg.as_tensor(0.0))
    seconds = tg.grad(total, [*leaves, cotangent])
    return [t.data for t in (out, *firsts, *seconds)]


def equals_derived(inputs: list[Array], g: Array, probes: list[Array], stride: Any, padding: Any) -> None:
    results, expected = (
        first_and_second(lambda x, w, *b, op=op: op(x, w, b[0] if b else None, stride, padding), inputs, g, probes)
        for op in (tg.conv2d, derived_conv)
    )
    for result, wanted in zip(results, expected, strict=True):
        assert np.abs(wanted).max(initial=0) < 2**24  # whole numbers that float32 holds exactly
        exactly(result, wanted)


@given(geometries, counts, seeds, st.booleans(), dtypes, dtypes, layouts, layouts)
def test_conv2d_equals_its_definitions_with_first_and_second_gradients(
    geometry: Any, filters: int, seed: int, biased: bool, x_type: Any, w_type: Any, x_layout: str, w_layout: str
) -> None:
    shape, kernel, stride, padding = geometry
    kinds = [
        (shape, x_type, x_layout),
        ((filters, shape[1], *kernel), w_type, w_layout),
        ((filters,), w_type, w_layout),
    ][: 2 + biased]
    x, w, *b = inputs = [numbers(seed + i, *kind) for i, kind in enumerate(kinds)]
    expected = naive_conv(x, w, stride, padding)
    exactly(tg.conv2d(x, w, *b, stride=stride, padding=padding), expected + (b[0][:, None, None] if biased else 0))
    g = numbers(seed + 6, expected.shape, expected.dtype, x_layout)
    equals_derived(inputs, g, [numbers(seed + 3 + i, *kind[:2]) for i, kind in enumerate(kinds)], stride, padding)


@st.composite
def spread_out(draw: Any) -> tuple[Any, ...]:
    """Draw shapes of images and weights, stride, padding, dilation and groups of a convolution."""
    kernel, stride, dilation = (draw(st.tuples(counts, counts)) for _ in range(3))
    padding, groups = draw(st.tuples(st.integers(0, 4), st.integers(0, 4))), draw(counts)
    extent = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    size = [max(least, 1) + draw(st.integers(0, 5)) for least in extent]
    channels = draw(st.integers(1, 2))
    image = draw(st.integers(0, 2)), channels * groups, *size
    return image, (groups * draw(st.integers(1, 2)), channels, *kernel), stride, padding, dilation, groups


plain_ones = st.tuples(geometries, counts).map(
    lambda drawn: (drawn[0][0], (drawn[1], drawn[0][0][1], *drawn[0][1]), *drawn[0][2:], (1, 1), 1)
)


@given(spread_out(), seeds, st.booleans(), dtypes, dtypes, layouts, layouts)
def test_dilation_and_groups_are_a_larger_kernel_with_zeros(
    drawn: Any, seed: int, biased: bool, x_type: Any, w_type: Any, x_layout: str, w_layout: str
) -> None:
    shape, kernels, *window, dilation, groups = drawn
    x, w = numbers(seed, shape, x_type, x_layout), numbers(seed + 1, kernels, w_type, w_layout)
    inputs = [x, w, numbers(seed + 2, kernels[:1], w_type)][: 2 + biased]
    probes = [numbers(seed + 3 + i, a.shape, a.dtype) for i, a in enumerate(inputs)]

    def plain(x: Any, w: Any, b: Any = None) -> tg.Tensor:
        return tg.conv2d(x, widened(w, dilation, groups), b, *window)

    def spread(x: Any, w: Any, b: Any = None) -> tg.Tensor:
        return tg.conv2d(x, w, b, *window, dilation, groups)

    g = numbers(seed + 7, plain(*inputs).shape, np.result_type(x, w), x_layout)
    for result, wanted in zip(*[first_and_second(fn, inputs, g, probes) for fn in (spread, plain)], strict=True):
        exactly(result, wanted)


@given(st.tuples(counts, counts), st.tuples(counts, counts), seeds, st.sampled_from(["conv2d", "Conv2d"]))
def test_the_same_padding_adds_what_the_kernel_takes_away(kernel: Any, dilation: Any, seed: int, by: str) -> None:
    x, w = numbers(seed, (2, 2, 5, 4)), numbers(seed + 1, (3, 2, *kernel))
    extra = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    sides = [(e // 2, e - e // 2) for e in extra]
    padded = np.pad(x, ((0, 0), (0, 0), *sides))
    layer = tg.nn.Conv2d(2, 3, kernel, padding="same", dilation=dilation, bias=False, dtype=np.float64)
    layer.weight.data = w.copy()
    out = layer(x) if by == "Conv2d" else tg.conv2d(x, w, padding="same", dilation=dilation)
    exactly(out, tg.conv2d(padded, w, padding="valid", dilation=dilation).data)
    assert out.shape == (2, 3, 5, 4)


@given(
    st.tuples(st.integers(1, 7), st.sampled_from([1, 2, 3, 9, 16]), st.integers(2, 9), st.integers(2, 9)),
    st.sampled_from([3, 16, 24]),
    st.tuples(counts, counts),
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    seeds,
    st.integers(1, 4000),
    st.booleans(),
    st.integers(1, 3000),
    st.integers(1, 5),
    st.sampled_from([0, 8, 99]),
    st.integers(1, 9),
    layouts,
)
def test_the_result_does_not_depend_on_how_products_are_cut(
    shape: Any,
    filters: int,
    stride: Any,
    padding: Any,
    seed: int,
    size: int,
    cut: bool,
    product: int,
    columns: int,
    few: int,
    groups: int,
    layout: str,
) -> None:
    kernels = (filters, shape[1], 2, 2)
    x, w, _ = inputs = [numbers(seed, shape, layout=layout), numbers(seed + 1, kernels), numbers(seed + 2, (filters,))]
    g = numbers(seed + 3, naive_conv(x, w, stride, padding).shape, layout=layout)
    dealt = {"GROUPS": groups, "BLOCK_PRODUCTS": product // 9}
    tuned = {"SMALL": cut, "SMALL_PRODUCT": product, "SMALL_GRADIENT": product // 4, "SMALL_COLUMNS": columns}
    products.plan_products.cache_clear()
    with patch.multiple(products, BLOCK_BYTES=size, FEW_CHANNELS=few, **dealt, **tuned):
        equals_derived(inputs, g, [np.flip(a) for a in inputs], stride, padding)
    products.plan_products.cache_clear()


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize(
    "shape", [(150, 3, 40, 9), (40, 2, 12, 130), (2500, 1, 6, 5)], ids=["rows", "columns", "images"]
)
def test_large_convolutions_are_exact(shape: tuple[int, int, int, int], stride: tuple[int, int]) -> None:
    x, w, padding = numbers(0, shape, np.float32), numbers(1, (8, shape[1], 3, 3), np.float32), (1, 2)
    g = numbers(2, tg.conv2d(x, w, None, stride, padding).shape, np.float32)
    equals_derived(
        [x, w], g, [numbers(3, x.shape, np.float32, limit=1), numbers(4, w.shape, np.float32, limit=1)], stride, padding
    )


@given(geometries, counts, seeds)
def test_convolution_is_trilinear(geometry: Any, filters: int, seed: int) -> None:
    shape, kernel, stride, padding = geometry
    x, w = numbers(seed, shape), numbers(seed + 1, (filters, shape[1], *kernel))
    leaves = [tg.Tensor(a, requires_grad=True) for a in (x, w)]
    out = tg.conv2d(*leaves, None, stride, padding)
    g = numbers(seed + 2, out.shape)
    gx, gw = tg.grad(out, leaves, gradient=g)
    assert np.vdot(out.data, g) == np.vdot(x, gx.data) == np.vdot(w, gw.data)


@half
@given(st.data(), st.integers(1, 2), seeds)
def test_gradients_match_finite_differences(data: Any, order: int, seed: int) -> None:
    def prepare(shape: Shape, kernel: Any, stride: Any, padding: Any) -> tuple[list[Shape], Function]:
        return [shape, (2, shape[1], *kernel), (2,)], lambda x, w, b: tg.conv2d(x, w, b, stride, padding)

    matches_finite_differences(data, geometries, prepare, order, seed)


@pytest.mark.parametrize(("stride", "padding"), [((1, 1), (0, 0)), ((2, 1), (1, 3))])
def test_third_derivatives_of_conv2d(stride: Any, padding: Any) -> None:
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape) for shape in ((2, 1, 3, 3), (2, 1, 2, 2), (2,))]
    check_gradients(lambda x, w, b: tg.sin(tg.conv2d(x, w, b, stride, padding)), *inputs, order=3)


def test_half_the_inputs_may_need_no_gradient() -> None:
    x, w, b = numbers(0, (2, 1, 4, 4)), numbers(1, (3, 1, 2, 2)), numbers(2, (3,))
    for wanted in range(3):
        leaves = [tg.Tensor(a, requires_grad=i == wanted) for i, a in enumerate((x, w, b))]
        tg.conv2d(*leaves).sum().backward()
        assert [leaf.grad is not None for leaf in leaves] == [i == wanted for i in range(3)]


# What is not finite, huge or tiny -------------------------------------------------------------------------------------
SPECIAL = [np.nan, np.inf, -np.inf, -0.0, 1e-45, 1e-30, 1e15, -1e30]


def textbook(
    x: Array, w: Array, g: Array, stride: Any, padding: Any, dilation: Any = (1, 1), groups: int = 1
) -> list[Array]:
    """The output and the gradients by `x` and `w`, pixel by pixel; there are none outside the image."""
    if groups > 1:
        cut = zip(np.split(x, groups, 1), np.split(w, groups), np.split(g, groups, 1), strict=True)
        parts = zip(*[textbook(*arrays, stride, padding, dilation) for arrays in cut], strict=True)
        return [np.concatenate(part, axis) for part, axis in zip(parts, (1, 1, 0), strict=True)]
    out, gx, gw = np.zeros_like(g), np.zeros_like(x), np.zeros_like(w)
    for i, j, k, m in np.ndindex(*g.shape[2:], *w.shape[2:]):
        r, s = i * stride[0] + k * dilation[0] - padding[0], j * stride[1] + m * dilation[1] - padding[1]
        if 0 <= r < x.shape[2] and 0 <= s < x.shape[3]:
            out[:, :, i, j] += (x[:, None, :, r, s] * w[None, :, :, k, m]).sum(axis=2)
            gx[:, :, r, s] += (g[:, :, None, i, j] * w[None, :, :, k, m]).sum(axis=1)
            gw[:, :, k, m] += (g[:, :, None, i, j] * x[:, None, :, r, s]).sum(axis=0)
    return [out, gx, gw]


def planted(seed: int, *shapes: Shape) -> list[Array]:
    """Normally distributed numbers, and special ones in one of the arrays."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape) for shape in shapes]
    chosen = arrays[rng.integers(len(arrays))].reshape(-1)
    chosen[rng.integers(0, chosen.size, 2)] = rng.choice(SPECIAL, 2)
    return arrays


@pytest.mark.parametrize("library", ["as installed", "NumPy"])
@given(
    (plain_ones | spread_out()).filter(lambda drawn: drawn[0][0]),
    seeds,
    dtypes | st.just(np.float16),
    layouts,
)
def test_a_sum_sees_its_own_pixels_only(library: str, geometry: Any, seed: int, dtype: Any, layout: str) -> None:
    shape, kernels, *window = geometry
    size = Geometry(*window).output_size(shape, kernels[2:])
    drawn = planted(seed, shape, kernels, (shape[0], kernels[0], *size))
    with np.errstate(all="ignore"):
        x, w, g = (a.astype(dtype) for a in drawn)
        x = np.ascontiguousarray(x.transpose(2, 1, 3, 0)).transpose(3, 1, 0, 2) if layout == "batch innermost" else x
        exact = [a.astype(np.float64) for a in (x, w, g)]
        magnitudes = textbook(*map(np.abs, exact), *window)
        leaves = [tg.Tensor(a, requires_grad=True) for a in (x, w)]
        with patch.object(compiled, "LIBRARY", None if library == "NumPy" else compiled.LIBRARY):
            out = tg.conv2d(*leaves, None, *window)
            results = [out, *tg.grad(out, leaves, gradient=tg.Tensor(g))]
        for result, wanted, magnitude in zip(results, textbook(*exact, *window), magnitudes, strict=True):
            assert result.dtype == dtype
            rounding = 200 * np.finfo(dtype).eps * magnitude + 200 * float(np.finfo(dtype).smallest_subnormal)
            held = (magnitude < float(np.finfo(dtype).max) / 4) | ~np.isfinite(wanted)
            same = (result.data == wanted) | (np.isnan(result.data) & np.isnan(wanted))
            assert (same | (np.abs(result.data - wanted) <= rounding) | ~held).all()


def test_halves_are_summed_in_float32() -> None:
    x, w = np.full((1, 64, 3, 3), 100, np.float16), np.full((1, 64, 3, 3), 100, np.float16)
    w[:, ::2] = -100  # sums of a channel's products are beyond float16
    leaves = [tg.Tensor(a, requires_grad=True) for a in (x, w)]
    out = tg.conv2d(*leaves, padding=1)
    assert out.dtype == np.float16 and not out.data.any()
    exactly(
        tg.grad(out, leaves, gradient=np.ones_like(out.data))[1],
        100
        * naive_conv(np.ones((64, 1, 3, 3)), np.ones((1, 1, 3, 3)), (1, 1), (1, 1))
        .astype(np.float16)
        .reshape(1, 64, 3, 3),
    )


@given(geometries.filter(lambda geometry: geometry[0][0]), counts, seeds)
def test_images_that_are_not_finite_give_what_they_give_in_pytorch(geometry: Any, filters: int, seed: int) -> None:
    torch = pytest.importorskip("torch")
    shape, kernel, stride, padding = geometry
    x, w = (a.astype(np.float32) for a in planted(seed, shape, (filters, shape[1], *kernel)))
    if not np.isfinite(w).all():
        w = np.ones_like(w)  # with padding, PyTorch's answer depends on its backend
    expected = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), None, stride, padding).numpy()
    out = tg.conv2d(x, w, None, stride, padding).data
    limit = 1e-4 * naive_conv(np.where(np.isfinite(x), np.abs(x), 0), np.abs(w), stride, padding)
    same = (out == expected) | (np.isnan(out) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        assert (same | (np.abs(out - expected) <= limit)).all()


# Errors ---------------------------------------------------------------------------------------------------------------


W = np.zeros((4, 3, 3, 2))


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: tg.conv2d(X[0], W), ["conv2d", "(3, 5, 6)", "(4, 3, 3, 2)"]),
        (lambda: tg.conv2d(X, W[0]), ["conv2d", "(2, 3, 5, 6)", "(3, 3, 2)"]),
        (lambda: tg.conv2d(X, W[:, :2]), ["conv2d", "(2, 3, 5, 6)", "(4, 2, 3, 2)"]),
        (lambda: tg.conv2d(X[:, :, :2], W), ["conv2d", "3 x 2", "2 x 6"]),
        (lambda: tg.conv2d(X[..., :1], W), ["conv2d", "3 x 2", "5 x 1"]),
        (lambda: tg.conv2d(X, np.zeros((4, 3, 0, 2))), ["conv2d", "0 x 2", "5 x 6"]),
        (lambda: tg.conv2d(X, W, np.zeros(3)), ["conv2d", "bias", "(3,)", "(4,)"]),
        (lambda: tg.conv2d(X, W, np.zeros((4, 1))), ["conv2d", "bias", "(4, 1)", "(4,)"]),
        (lambda: tg.conv2d(X, W[:, :1], groups=3), ["conv2d", "(2, 3, 5, 6)", "(4, 1, 3, 2)", "groups=3", "divisor"]),
        (lambda: tg.conv2d(X, W, groups=2), ["conv2d", "(2, 3, 5, 6)", "(4, 3, 3, 2)", "groups=2"]),
        (lambda: tg.conv2d(X, W, dilation=(3, 1)), ["conv2d", "3 x 2", "dilation (3, 1)", "5 x 6"]),
        (lambda: tg.conv2d(X, W, padding="same", stride=2), ["conv2d", "'same'", "stride is 2", "must be 1"]),
        (lambda: tg.conv2d(X, W, padding="full"), ["conv2d", "padding must be", "'valid'", "'full'"]),
        (lambda: tg.nn.Conv2d(4, 6, 3, groups=4), ["Conv2d", "groups is 4", "in_channels 4", "out_channels 6"]),
        (lambda: tg.max_pool2d(X, 2, padding="same"), ["max_pool2d", "padding must be", "'same'"]),  # type: ignore[arg-type]
        (lambda: tg.conv2d(X, W, 0.5), ["conv2d", "bias", "()", "(4,)"]),
    ],
)
def test_shapes_that_do_not_fit_are_named(call: Any, parts: list[str]) -> None:
    check_value_error(call, parts)


@pytest.mark.parametrize("value", INVALID_PAIRS, ids=repr)
@pytest.mark.parametrize(
    ("op", "name", "call"),
    [
        ("conv2d", "stride", lambda v: tg.conv2d(X, W, stride=v)),
        ("conv2d", "padding", lambda v: tg.conv2d(X, W, padding=v)),
        ("conv2d", "dilation", lambda v: tg.conv2d(X, W, dilation=v)),
    ],
)
def test_settings_must_be_integers_or_pairs(op: str, name: str, call: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{op}: {name} must be an integer"):
        call(value)


@pytest.mark.parametrize("zero", [0, (0, 1), (1, 0)])
def test_zero_is_no_stride_and_no_kernel(zero: Any) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        tg.conv2d(X, W, stride=zero)


# Planted errors -------------------------------------------------------------------------------------------------------
IMAGE, SMALL = (2, 2, 5, 5), (2, 1, 3, 4)


def conv(**settings: Any) -> Function:
    return lambda x, w, *bias: tg.conv2d(x, w, *bias, **settings)


@plants("conv2d: mean for the sum of the bias", conv(), normal(IMAGE, (2, 2, 3, 3), (2,)), argument=2)
def _(right, g, *rest):
    return right / g.shape[0]


@plants("conv2d: kernel not flipped", conv(), normal(IMAGE, (2, 2, 3, 3)), kind="windows", argument=0)
def _(right, g, out, x, w):
    return vjp(conv(), 0, g, x, w[:, :, ::-1, ::-1])


@plants("conv2d: channels and filters exchanged", conv(), normal(IMAGE, (2, 2, 3, 2)), kind="windows", argument=0)
def _(right, g, out, x, w):
    return vjp(conv(), 0, g, x, w.swapaxes(0, 1))


@plants("conv2d: padding cut off by one", conv(padding=1), normal(IMAGE, (1, 2, 3, 3)), kind="windows", argument=0)
def _(right, *rest):
    return shifted(right, 3, -1)


@plants("conv2d: wrong for a stride", conv(stride=2), normal((1, 1, 5, 5), (2, 1, 3, 3)), kind="windows", argument=0)
def _(right, *rest):
    return shifted(right, 2)


@plants("conv2d: dilation forgotten", conv(dilation=2), normal(IMAGE, (2, 2, 2, 3)), kind="windows", argument=1)
def _(right, g, out, x, w):
    return vjp(conv(), 1, tg.pad(g, ((0, 0), (0, 0), (0, 1), (0, 2))), x, w)


@plants("conv2d: groups in the wrong order", conv(groups=2), normal(IMAGE, (2, 1, 2, 2)), kind="windows", argument=0)
def _(right, *rest):
    return right[:, ::-1]


@plants("conv2d: one group for all", conv(groups=2), normal(IMAGE, (2, 1, 2, 2)), kind="windows", argument=1)
def _(right, *rest):
    return right + right[::-1]


@plants(
    "conv2d: the wrong side of the same", conv(padding="same"), normal(IMAGE, (2, 2, 2, 2)), kind="windows", argument=0
)
def _(right, *rest):
    return shifted(shifted(right, 2, -1), 3, -1)


@plants("conv2d: rectangular kernel laid out wrongly", conv(), normal(IMAGE, (2, 2, 2, 3)), kind="windows", argument=1)
def _(right, *rest):
    return tg.reshape(right.swapaxes(2, 3), right.shape)


@plants("conv2d: weight of the last image only", conv(), normal(IMAGE, (2, 2, 2, 2)), kind="windows", argument=1)
def _(right, g, out, x, w):
    return vjp(conv(), 1, g[-1:], x[-1:], w)


@plants(
    "conv2d: last column of the weight lost", conv(padding=1), normal(IMAGE, (1, 2, 2, 3)), kind="windows", argument=1
)
def _(right, *rest):
    return shifted(shifted(right, 3), 3, -1)


@plants("conv2d: bias summed over one image", conv(), normal(IMAGE, (2, 2, 2, 2), (2,)), kind="windows", argument=2)
def _(right, g, *rest):
    return tg.sum(g[0], (1, 2))


@plants("conv2d: bias without the last row", conv(), normal(IMAGE, (2, 2, 2, 2), (2,)), kind="windows", argument=2)
def _(right, g, *rest):
    return tg.sum(g[:, :, :-1], (0, 2, 3))


@plants("conv2d: image constant", conv(), normal(SMALL, (2, 1, 2, 3)), kind="second order", order=2, argument=1)
def _(right, g, out, x, w):
    return vjp(conv(), 1, g, x.detach(), w)


@plants("conv2d: cotangent constant", conv(), normal(SMALL, (2, 1, 2, 3)), kind="second order", order=2, argument=0)
def _(right, g, out, x, w):
    return vjp(conv(), 0, g.detach(), x, w)


@plants(
    "conv2d: right value, wrong kernel below",
    conv(),
    normal((1, 1, 3, 3), (1, 1, 2, 2)),
    kind="second order",
    order=2,
    argument=0,
)
def _(right, g, out, x, w):
    return right.detach() + (right - right.detach()) * 2
