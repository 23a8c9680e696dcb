"""The compiled kernels against the functions that define them, at every level of instructions that this processor has.

The reference is computed in float64; errors are compared with what rounding in float32 can do to the sums of the
absolute values.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist import kernels
from tinygrad_mnist.kernels import Geometry, compiled, normalization, reference, smooth
from tinygrad_mnist.testing import check_gradients

Array = npt.NDArray[Any]
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tinygrad_mnist" / "kernels" / "c" / "native.c"
EPS = float(np.finfo(np.float32).eps)
needs_kernels = pytest.mark.skipif(compiled.LIBRARY is None, reason=f"native kernels: {compiled.REASON}")
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
levels = pytest.mark.parametrize("level", range(compiled.LIBRARY.highest_level() + 1 if compiled.LIBRARY else 1))
sides, seeds = st.integers(1, 9), st.integers(0, 2**32 - 1)
layouts = st.sampled_from(["batch innermost", "C", "reversed", "every second", "unaligned"])
counts = st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 50, 64, 65, 79, 80, 100, 125, 128, 129]))  # images
kinds = st.sampled_from(compiled.ACTIVATIONS)
channels = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 20, 33])


def drawn(rng: np.random.Generator, shape: tuple[int, ...], layout: str) -> Array:
    """Normally distributed numbers, (N, C, H, W) by name."""
    x = rng.standard_normal(shape, np.float32)
    if layout == "batch innermost":
        return np.ascontiguousarray(x.transpose(2, 1, 3, 0)).transpose(3, 1, 0, 2)
    if layout == "reversed":
        return x[::-1, ::-1, ::-1, ::-1]
    if layout == "every second":
        return rng.standard_normal((*shape[:-1], 2 * shape[-1]), np.float32)[..., ::2]
    if layout == "unaligned":
        buffer = np.empty(x.nbytes + 1, np.uint8)[1:]
        buffer[:] = x.view(np.uint8).ravel()
        return buffer.view(np.float32).reshape(shape)
    return x


def close(actual: Array, expected: Array, magnitude: Array, axis: int) -> None:
    """To rounding: sums of `magnitude` are added up in float32, with neighbours along `axis` (Winograd) in between."""
    assert actual.dtype == np.float32 and actual.shape == expected.shape
    bound = 16 * EPS * magnitude.max(axis=axis, keepdims=True) + np.finfo(np.float32).tiny
    worst = np.unravel_index(np.argmax(np.abs(actual - expected) / bound), actual.shape)
    assert np.abs(actual - expected)[worst] <= np.broadcast_to(bound, actual.shape)[worst], worst


@st.composite
def convolutions(draw: Any) -> tuple[Any, ...]:
    kernel = draw(st.sampled_from([(3, 3), (1, 3), (2, 3)]) | st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = draw(st.sampled_from([(1, 1), (2, 2)]) | st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.tuples(st.integers(0, kernel[0]), st.integers(0, kernel[1])))
    h, w = (max(k - 2 * p, 1) + draw(st.integers(0, 9)) for k, p in zip(kernel, padding, strict=True))
    return draw(counts), draw(channels), draw(channels), (h, w), kernel, stride, padding


def compare_convolution(geometry: Any, layout: str, seed: int, biased: bool) -> None:
    n, c, f, size, kernel, *moves = geometry
    rng, window = np.random.default_rng(seed), Geometry(*moves)
    x, w = (
        drawn(rng, (n, c, *size), layout),
        drawn(rng, (f, c // window.groups, *kernel), "C" if layout == "batch innermost" else layout),
    )
    b = drawn(rng, (1, 1, 1, f), layout).reshape(f) if biased else None
    g = drawn(rng, (n, f, *window.output_size(size, kernel)), layout)
    x64, w64, g64, b64 = x.astype(float), w.astype(float), g.astype(float), None if b is None else b.astype(float)
    absolute = None if b64 is None else np.abs(b64)
    expected = reference.conv_output(x64, w64, b64, window)
    magnitude = reference.conv_output(np.abs(x64), np.abs(w64), absolute, window)
    close(compiled.conv_output(x, w, b, window), expected, magnitude, 3)
    for name, arrays, exact, extent in (
        ("conv_input", (g, w), (g64, w64), size),
        ("conv_weight", (x, g), (x64, g64), kernel),
    ):
        define = getattr(reference, name)
        expected, magnitude = (
            define(*exact, window, extent),
            define(*map(np.abs, exact), window, extent),
        )
        close(getattr(compiled, name)(*arrays, window, extent), expected, magnitude, 3)


@needs_kernels
@levels
@given(convolutions(), layouts, seeds, st.booleans())
@example((16, 8, 8, (6, 11), (3, 5), (1, 2), (1, 2)), "batch innermost", 0, False)  # with strides, Winograd for dT/dx
def test_convolutions_equal_their_definition(level: int, geometry: Any, layout: str, seed: int, biased: bool) -> None:
    with patch.object(compiled, "LEVEL", level):
        compare_convolution(geometry, layout, seed, biased)


@st.composite
def spread_convolutions(draw: Any) -> tuple[Any, ...]:
    """Draw convolutions with dilation and groups; every second one is depthwise."""
    groups, depthwise = draw(st.integers(1, 9)), draw(st.booleans())
    c, f = (groups if depthwise and one else groups * draw(st.integers(1, 3)) for one in (True, False))
    kernel, stride, dilation = (draw(st.tuples(st.integers(1, 4), st.integers(1, 3))) for _ in range(3))
    padding = draw(st.tuples(st.integers(0, 5), st.integers(0, 4)))
    extent = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    size = tuple(max(least, 1) + draw(st.integers(0, 9)) for least in extent)
    end = draw(st.sampled_from([(0, 0), (0, 1), (1, 0)]))
    return draw(counts), c, f, size, kernel, stride, padding, dilation, groups, end


@needs_kernels
@levels
@given(spread_convolutions(), layouts, seeds, st.booleans())
@example((1, 8, 8, (9, 9), (3, 3), (2, 2), (1, 1), (1, 1), 8), "C", 0, False)  # a column is a run of its own
def test_dilation_and_groups_equal_their_definition(
    level: int, geometry: Any, layout: str, seed: int, biased: bool
) -> None:
    with patch.object(compiled, "LEVEL", level):
        compare_convolution(geometry, layout, seed, biased)


@needs_kernels
@levels
@pytest.mark.parametrize(
    "geometry",
    [
        (32, 64, 64, (6, 8), (3, 3), (1, 1), (1, 1), (1, 1), 64),
        (5, 2, 6, (9, 8), (7, 7), (1, 1), (3, 3), (1, 1), 2),  # more taps than are summed up together
        (3, 2, 2, (20, 31), (7, 7), (2, 3), (9, 2), (2, 1), 2),
        (240, 3, 3, (7, 40), (3, 3), (1, 1), (1, 1), (1, 1), 3),  # sums that are folded
        (70, 40, 80, (5, 9), (2, 3), (2, 2), (1, 2), (2, 3), 40),
        (1, 33, 33, (6, 50), (5, 5), (1, 1), (2, 2), (1, 1), 33),
        (16, 8, 16, (6, 9), (3, 3), (1, 1), (2, 2), (2, 2), 2),  # Winograd in each group and phase
    ],
)
def test_particular_convolutions_with_dilation_and_groups(level: int, geometry: Any) -> None:
    with patch.object(compiled, "LEVEL", level):
        compare_convolution(geometry, "batch innermost", 0, True)


@needs_kernels
@levels
@given(spread_convolutions(), st.sampled_from([0, 1, 2]), seeds)
def test_special_numbers_reach_what_sees_them_by_definition(level: int, geometry: Any, where: int, seed: int) -> None:
    n, c, f, size, kernel, *moves = geometry
    rng, window = np.random.default_rng(seed), Geometry(*moves)
    shapes = (n, c, *size), (f, c // window.groups, *kernel), (n, f, *window.output_size(size, kernel))
    arrays = [drawn(rng, shape, "batch innermost") for shape in shapes]
    special = arrays[where]
    special[rng.random(special.shape) < 0.1] = rng.choice(np.float32([np.nan, np.inf, -np.inf, 0.0]))
    x, w, g = arrays
    for name, operands, extent in (
        ("conv_output", (x, w, None), ()),
        ("conv_input", (g, w), (size,)),
        ("conv_weight", (x, g), (kernel,)),
    ):
        exact = [a if a is None else a.astype(float) for a in operands]
        with patch.object(compiled, "LEVEL", level), np.errstate(invalid="ignore"):
            actual = getattr(compiled, name)(*operands, window, *extent)
            expected = getattr(reference, name)(*exact, window, *extent)
        np.testing.assert_array_equal(np.isfinite(actual), np.isfinite(expected))
        np.testing.assert_array_equal(actual[~np.isfinite(actual)], expected[~np.isfinite(actual)])


FAR_APART = [np.nan, np.inf, -np.inf, 0.0, 1e-45, 1e-38, 1e-20, 1e-4, 1e4, -1e10, 1e20, 1e30, 1e38]


def within_rounding(actual: Array, expected: Array, magnitude: Array, terms: int) -> None:
    """Sums of `terms` terms are right to rounding, each in proportion to its own `magnitude`, and NaN where they are.

    Winograd's points round, too, as some more terms. What float32 cannot hold is left out.
    """
    assert actual.dtype == np.float32 and actual.shape == expected.shape
    fits = magnitude < float(np.finfo(np.float32).max) / 4  # what is finite among them, in any order
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[fits & ~finite], expected[fits & ~finite])
    held = fits & finite
    error = np.abs(actual[held] - expected[held])
    bound = 4 * (terms + 12) * (EPS * magnitude[held] + float(np.finfo(np.float32).smallest_subnormal))
    assert (error <= bound).all(), (error / bound).max()


@needs_kernels
@levels
@settings(max_examples=5 * settings().max_examples)  # they are small
@given(
    st.tuples(
        st.sampled_from([7, 16, 17, 33, 40]), *[st.sampled_from([3, 8, 9])] * 2, st.tuples(st.integers(3, 8), sides)
    ),
    st.tuples(st.integers(1, 3), st.sampled_from([3, 3, 3, 2])),
    st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2)]),
    st.tuples(st.integers(0, 2), st.integers(1, 2)),
    st.sampled_from([0, 1, 2]),
    st.integers(0, 3),
    seeds,
)
def test_numbers_far_apart_do_not_disturb_each_other_by_definition(
    level: int, shape: Any, kernel: Any, stride: Any, padding: Any, where: int, count: int, seed: int
) -> None:
    """Winograd's columns share sums, but an output must not show what only its neighbours see.

    A `count` of 0 stands for a column of numbers.
    """
    (n, c, f, size), rng, window = shape, np.random.default_rng(seed), Geometry(stride, padding)
    sizes = ((n, c, *size), (f, c, *kernel), (n, f, *window.output_size(size, kernel)))
    operands = [drawn(rng, one, "batch innermost") for one in sizes]
    if not count:
        operands[where][..., rng.integers(operands[where].shape[3])] *= np.float32(rng.choice([1e-8, 1e6, 1e15]))
    for _ in range(count):
        at = tuple(rng.integers(0, operands[where].shape))
        operands[where][at] = rng.choice(FAR_APART)
    x, w, g = operands
    x64, w64, g64 = (a.astype(float) for a in operands)
    absolute_x, absolute_w, absolute_g = (np.where(np.isfinite(a), np.abs(a), 0) for a in (x64, w64, g64))
    heaviest = [np.broadcast_to(absolute_w.max(axes, keepdims=True), w.shape) for axes in ((1, 2, 3), (0, 2, 3))]
    if count == 1 and where != 1:  # one number among normal ones: in proportion to the weights that it meets
        heaviest = [absolute_w, absolute_w]
    cases: list[tuple[str, Any, Any, Any, int]] = [
        ("conv_output", (x, w, None), (x64, w64, None), (absolute_x, heaviest[0], None), w[0].size),
        ("conv_input", (g, w), (g64, w64), (absolute_g, heaviest[1]), w[:, 0].size),
        ("conv_weight", (x, g), (x64, g64), (absolute_x, absolute_g), g[:, 0].size),
    ]
    for name, arrays, exact, absolute, terms in cases:
        extent = {"conv_output": (), "conv_input": (size,), "conv_weight": (kernel,)}[name]
        with patch.object(compiled, "LEVEL", level):
            actual = getattr(compiled, name)(*arrays, window, *extent)
        define = getattr(reference, name)
        with np.errstate(invalid="ignore", over="ignore"):
            expected, magnitude = define(*exact, window, *extent), define(*absolute, window, *extent)
        if name == "conv_weight" and not count:  # weights share what their row sees, unless it is unusually large
            magnitude = np.broadcast_to(magnitude.max(axis=3, keepdims=True), magnitude.shape).copy()
        within_rounding(actual, expected, magnitude, terms)


@needs_kernels
@levels
@given(
    st.sampled_from([16, 20, 48]),
    st.sampled_from([8, 16]),
    st.tuples(st.integers(3, 7), st.integers(5, 13)),
    st.sampled_from([(0, 0), (1, 1)]),
    st.sampled_from(["column", "row", "channel", "image", "nothing", "zeros"]),
    st.floats(0, 8),
    seeds,
)
def test_results_are_as_exact_as_plain_sums_by_definition(
    level: int, n: int, c: int, size: Any, padding: Any, what: str, power: float, seed: int
) -> None:
    """Each is within 3e-5 of the sum of the absolute values of its own products."""
    rng, window = np.random.default_rng(seed), Geometry((1, 1), padding)
    shapes = (n, c, *size), (8, c, 3, 3), (n, 8, *window.output_size(size, (3, 3)))
    x, w, g = (drawn(rng, shape, "batch innermost") for shape in shapes)
    axis = {"image": 0, "channel": 1, "row": 2, "column": 3}.get(what)
    if axis is not None:
        x.swapaxes(0, axis)[rng.integers(x.shape[axis])] *= np.float32(10**power)
    if what == "zeros":  # as ReLU leaves them
        x, g = np.maximum(x, 0), g * (rng.random(g.shape) < 0.5)
    for name, arrays, extent in (
        ("conv_output", (x, w, None), ()),
        ("conv_input", (g, w), (size,)),
        ("conv_weight", (x, g), ((3, 3),)),
    ):
        exact = [a if a is None else a.astype(float) for a in arrays]
        absolute = [a if a is None else np.abs(a) for a in exact]
        with patch.object(compiled, "LEVEL", level):
            error = np.abs(
                getattr(compiled, name)(*arrays, window, *extent) - getattr(reference, name)(*exact, window, *extent)
            )
        assert (error <= 3e-5 * getattr(reference, name)(*absolute, window, *extent)).all(), name


@needs_kernels
@levels
def test_a_large_number_that_meets_a_small_weight_leaves_no_rounding_error_by_definition(level: int) -> None:
    x, w = np.ones((32, 8, 3, 8), np.float32), np.ones((8, 8, 3, 3), np.float32)
    x[:, 0, 1, 6], w[:, 0, 1, 2] = 1e10, 1e-6
    with patch.object(compiled, "LEVEL", level):
        out = compiled.conv_output(x, w, None, Geometry())
    np.testing.assert_allclose(out[..., 4], 1e4 + 71, rtol=1e-6)


@needs_kernels
@levels
def test_a_heavy_column_of_weights_that_meets_zeros_leaves_no_rounding_error_by_definition(level: int) -> None:
    x, w = np.zeros((32, 8, 3, 8), np.float32), np.ones((8, 8, 3, 3), np.float32)
    x[..., [1, 2, 5, 6]], w[..., 0] = 1, 2**20
    with patch.object(compiled, "LEVEL", level):
        out = compiled.conv_output(x, w, None, Geometry())
    np.testing.assert_allclose(out[..., [0, 4]], 2 * 8 * 3, rtol=1e-6)


@needs_kernels
@levels
@pytest.mark.parametrize(
    "geometry",
    [
        (1, 1, 1, (1, 1), (1, 1), (1, 1), (0, 0)),
        (
            125,
            16,
            16,
            (26, 26),
            (3, 3),
            (1, 1),
            (0, 0),
        ),  # the costliest layer of the 21, and the first, in several strips
        (125, 1, 16, (28, 28), (3, 3), (1, 1), (0, 0)),
        (200, 64, 64, (4, 4), (3, 3), (1, 1), (1, 1)),
        (3, 5, 6, (40, 300), (5, 7), (2, 2), (3, 3)),
        (40, 6, 7, (5, 9), (3, 3), (1, 1), (7, 7)),  # padding wider than the kernel
        (33, 8, 8, (2, 1), (3, 3), (1, 1), (2, 1)),
        (3, 300, 5, (4, 5), (3, 3), (1, 1), (1, 1)),  # more rows than are summed up at a time
        (16, 800, 9, (3, 5), (3, 3), (1, 1), (1, 1)),
        (1, 3, 8, (41, 60), (3, 3), (2, 2), (1, 1)),  # fewer images than lanes, with a stride
        (5, 8, 20, (12, 11), (1, 1), (2, 1), (0, 0)),
    ],
)
def test_particular_convolutions(level: int, geometry: Any) -> None:
    with patch.object(compiled, "LEVEL", level):
        compare_convolution(geometry, "batch innermost", 0, True)


@needs_kernels
@levels
@given(
    st.sampled_from([8, 16, 32, 50, 64, 129]),
    st.sampled_from([4, 7, 16]),
    st.integers(3, 14),
    st.sampled_from([0, 1, 4]),
    seeds,
)
def test_where_zeros_are_seen_the_result_is_the_bias_by_definition(
    level: int, n: int, c: int, width: int, padding: int, seed: int
) -> None:
    """Rounding must not open a ReLU, whose gradient would then be wrong by all of it.

    Images of digits are mostly zeros.
    """
    rng = np.random.default_rng(seed)
    x, w, b = (
        drawn(rng, (n, c, 4, width), "batch innermost"),
        drawn(rng, (5, c, 2, 3), "C"),
        np.float32([0, 0, 1, -1, 0.1]),
    )
    x *= rng.random(x.shape[2:]) < 0.3  # the same pixels in all images
    x *= rng.integers(-1, 2, (n, 1, 1, 1)).astype(np.float32)  # some 0, some -0
    with patch.object(compiled, "LEVEL", level):
        out = compiled.conv_output(x, w, b, Geometry((1, 1), (1, padding)))
    window = Geometry((1, 1), (1, padding))
    seen = reference.conv_output(np.abs(x, dtype=np.float64), np.ones((1, c, 2, 3)), None, window) > 0
    np.testing.assert_array_equal(np.where(seen, 0, out), np.where(seen, 0, b[:, None, None]))
    if not seen.all():
        assert np.any(out != b[:, None, None]) == seen.any()


@needs_kernels
@levels
def test_gradients_of_the_network_on_digits_are_those_of_numpy(level: int) -> None:
    images, labels = tg.data.synthetic_digits(64, rng=np.random.default_rng(0))
    model = DeepConvNet(
        rng=np.random.default_rng(0), dropout=0.0
    )  # biases are 0: so is the background behind every layer

    def gradients() -> dict[str, Array]:
        return tg.parallel.value_and_grad(model.loss, tg.nn.parameters(model), images, labels, threads=1)[1]

    with patch.object(compiled, "LEVEL", level):
        actual = gradients()
    with patch.object(compiled, "LIBRARY", None):
        expected = gradients()
    for name, wanted in expected.items():
        np.testing.assert_allclose(actual[name], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max(), err_msg=name)


@needs_kernels
@levels
@pytest.mark.parametrize("width", [1, 3])
def test_weight_gradients_are_exact_to_rounding_over_millions_of_pixels_by_definition(level: int, width: int) -> None:
    x = np.ones((128, 64, 32, 64), np.float32).transpose(3, 2, 0, 1)  # (N, C, H, W) of a batch innermost
    g = np.full_like(x[:, :4], 0.1)
    with patch.object(compiled, "LEVEL", level):
        out = compiled.conv_weight(x[:, :4], g, Geometry((1, 1), (0, width // 2)), (1, width))
    np.testing.assert_allclose(out[..., width // 2], g.astype(np.float64).sum() / 4, rtol=3e-6)


@needs_kernels
@levels
@pytest.mark.parametrize(("c", "f", "n"), [(256, 512, 4), (256, 512, 13), (300, 130, 16), (700, 40, 3)])
def test_gradients_of_many_weights_are_cut_by_filters_by_definition(level: int, c: int, f: int, n: int) -> None:
    compare = (n, c, f, (3, 5), (3, 3), (1, 1), (1, 1)), "batch innermost", 0, False
    with patch.object(compiled, "LEVEL", level):
        compare_convolution(*compare)


@st.composite
def poolings(draw: Any) -> tuple[Any, ...]:
    kernel = draw(st.sampled_from([(2, 2), (2, 2), (3, 3)]) | st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.sampled_from([kernel, kernel, (2, 2)]) | st.tuples(st.integers(1, 5), st.integers(1, 5)))
    padding = draw(st.just((0, 0)) | st.tuples(*[st.integers(0, k // 2) for k in kernel]))
    return kernel, Geometry(stride, padding), tuple(k + draw(st.integers(0, 5)) for k in kernel)


@needs_kernels
@levels
@given(counts, channels, poolings(), layouts, st.booleans(), seeds)
def test_max_pooling_equals_its_definition(
    level: int, n: int, c: int, pooling: Any, layout: str, ties: bool, seed: int
) -> None:
    kernel, window, size = pooling
    rng = np.random.default_rng(seed)
    x = drawn(rng, (n, c, *size), layout)
    x = np.rint(x) if ties else np.where(rng.random(x.shape) < 0.1, np.float32(np.nan), x)
    x = np.where(rng.random(x.shape) < 0.3, rng.choice(np.float32([np.inf, -np.inf, np.nan]), x.shape), x)
    g, probe = drawn(rng, (n, c, *window.output_size(size, kernel)), layout), drawn(rng, x.shape, layout)
    g = np.rint(4 * g)  # added up exactly, in any order
    g = np.where(rng.random(g.shape) < 0.1, rng.choice(np.float32([np.inf, np.nan]), g.shape), g)

    def results() -> list[Array]:
        leaf, cotangent = tg.Tensor(x, requires_grad=True), tg.Tensor(g, requires_grad=True)
        out = tg.max_pool2d(leaf, kernel, window.stride, window.padding)
        (first,) = tg.grad(out, [leaf], create_graph=True, gradient=cotangent)
        return [out.data, first.data, *(t.data for t in tg.grad(first, [cotangent, leaf], gradient=tg.Tensor(probe)))]

    with patch.object(compiled, "LEVEL", level):
        actual = results()
    with patch.object(compiled, "LIBRARY", None):
        expected = results()
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e, strict=True)


@needs_kernels
@levels
@given(st.integers(1, 20), st.integers(1, 2), poolings(), seeds)
@example(1, 2, ((3, 3), Geometry((2, 2), (1, 1)), (9, 9)), 0)
def test_gradients_of_overlapping_windows_are_added_up_by_definition(
    level: int, n: int, c: int, pooling: Any, seed: int
) -> None:
    """One window after the other, in double precision; no maximum is found twice."""
    kernel, window, size = pooling
    rng = np.random.default_rng(seed)
    x = rng.permutation(n * c * size[0] * size[1]).reshape(n, c, *size).astype(np.float32)
    g = rng.standard_normal((n, c, *window.output_size(size, kernel)), np.float32)
    (ph, pw), (sh, sw) = window.padding, window.stride
    top, expected, magnitude = np.empty_like(g), np.zeros(x.shape), np.zeros(x.shape)
    for b, f, i, j in np.ndindex(g.shape):
        y0, x0 = i * sh - ph, j * sw - pw
        seen = x[b, f, max(y0, 0) : y0 + kernel[0], max(x0, 0) : x0 + kernel[1]]
        k, column = np.unravel_index(np.argmax(seen), seen.shape)
        top[b, f, i, j] = seen[k, column]
        expected[b, f, max(y0, 0) + k, max(x0, 0) + column] += g[b, f, i, j]
        magnitude[b, f, max(y0, 0) + k, max(x0, 0) + column] += abs(g[b, f, i, j])
    with patch.object(compiled, "LEVEL", level):
        np.testing.assert_array_equal(compiled.max_pool(x, kernel, window), top)
        actual = compiled.max_pool_scatter(g, x, top, kernel, window)
    assert (np.abs(actual - expected) <= 16 * EPS * magnitude).all()


def add_up_windows(x: Array, kernel: Any, window: Geometry) -> Array:
    """The sum of every window, one window after the other; padding takes no part."""
    (ph, pw), (sh, sw) = window.padding, window.stride
    out = np.zeros((*x.shape[:2], *window.output_size(x.shape, kernel)))
    for i, j in np.ndindex(out.shape[2:]):
        y0, x0 = i * sh - ph, j * sw - pw
        seen = x[:, :, max(y0, 0) : y0 + kernel[0], max(x0, 0) : x0 + kernel[1]]
        out[:, :, i, j] = seen.astype(float).sum((2, 3))
    return out


def give_to_windows(g: Array, kernel: Any, window: Geometry, size: Any) -> Array:
    """The sum of `g` over the windows that see each pixel, one window after the other."""
    (ph, pw), (sh, sw) = window.padding, window.stride
    out = np.zeros((*g.shape[:2], *size))
    for i, j in np.ndindex(g.shape[2:]):
        y0, x0 = i * sh - ph, j * sw - pw
        seen = (..., slice(max(y0, 0), y0 + kernel[0]), slice(max(x0, 0), x0 + kernel[1]))
        out[seen] += g[:, :, i, j, None, None].astype(float)
    return out


@needs_kernels
@levels
@given(counts, channels, poolings(), layouts, seeds, st.booleans(), st.sampled_from([1.0, 1e30, 1e-38]))
def test_average_pooling_equals_its_definition(
    level: int, n: int, c: int, pooling: Any, layout: str, seed: int, special: bool, scale: float
) -> None:
    kernel, window, size = pooling
    rng, count = np.random.default_rng(seed), kernel[0] * kernel[1]
    x = drawn(rng, (n, c, *size), layout) * np.float32(scale)
    g = drawn(rng, (n, c, *window.output_size(size, kernel)), layout) * np.float32(scale)
    for a in (x, g):
        if special:
            np.copyto(a, rng.choice(np.float32([np.inf, -np.inf, np.nan]), a.shape), where=rng.random(a.shape) < 0.1)
    for name, array, define, extent in (
        ("average_pool", x, add_up_windows, ()),
        ("average_pool_gradient", g, give_to_windows, (size,)),
    ):
        with np.errstate(invalid="ignore"):
            expected = define(array, kernel, window, *extent) / count
            magnitude = define(np.abs(array), kernel, window, *extent) / count
        bound = 4 * EPS * magnitude + count * float(np.finfo(np.float32).smallest_subnormal)
        for module in (compiled, reference):
            with patch.object(compiled, "LEVEL", level), np.errstate(invalid="ignore"):
                actual = getattr(module, name)(array, kernel, window, *extent)
            assert actual.dtype == np.float32 and actual.shape == expected.shape
            finite = np.isfinite(expected)
            np.testing.assert_array_equal(actual[~finite], expected[~finite])
            assert (np.abs(actual[finite] - expected[finite]) <= bound[finite]).all()


@needs_kernels
@levels
@pytest.mark.parametrize("images", [1, 5, 64])
@pytest.mark.parametrize("size", [(112, 112), (7, 7), (1, 300), (300, 1)])
def test_averages_of_whole_images_are_exact_to_rounding_by_definition(level: int, images: int, size: Any) -> None:
    x = np.full((size[0], 3, size[1], images), 0.1, np.float32).transpose(3, 1, 0, 2)
    x = x * np.arange(1, 4, dtype=np.float32).reshape(3, 1, 1)
    with patch.object(compiled, "LEVEL", level):
        results = tg.avg_pool2d(x, size).data[:, :, 0, 0], tg.mean(x, axis=(2, 3)).data, tg.mean(x, axis=(-2, -1)).data
        gradient = compiled.average_pool_gradient(x[:, :, :1, :1], size, Geometry(size), size)
    for averages in results:
        np.testing.assert_allclose(averages, x[:, :, 0, 0], rtol=1e-5)
    assert tg.mean(x, axis=(2, 3), keepdims=True).shape == (images, 3, 1, 1)
    np.testing.assert_allclose(gradient, x / x.dtype.type(size[0] * size[1]), rtol=1e-6)


@needs_kernels
@levels
def test_a_gradient_is_not_added_up_before_it_is_divided_by_definition(level: int) -> None:
    g = np.full((1, 1, 2, 2), 3e38, np.float32)
    with patch.object(compiled, "LEVEL", level):
        np.testing.assert_allclose(
            compiled.average_pool_gradient(g, (2, 2), Geometry(), (3, 3))[0, 0, 1, 1], 3e38, rtol=1e-6
        )


@needs_kernels
@levels
@given(counts, channels, sides, sides, layouts, seeds, st.sampled_from([1.0, 1e30, 1e-38]))
def test_sums_of_channels_are_exact_to_rounding_by_definition(
    level: int, n: int, c: int, h: int, w: int, layout: str, seed: int, scale: float
) -> None:
    x = drawn(np.random.default_rng(seed), (n, c, h, w), layout) * np.float32(scale)
    exact = x.astype(np.longdouble)
    with patch.object(compiled, "LEVEL", level):
        out = compiled.channel_sums(x)
    assert out.dtype == np.float32 and out.shape == (c,)
    bound = 16 * EPS * np.abs(exact).sum((0, 2, 3)) + float(np.finfo(np.float32).smallest_subnormal)
    assert (np.abs(out - exact.sum((0, 2, 3))) <= bound).all()


NORMALIZED = [  # shapes, memory orders and what is normalized together
    ((50, 3, 4, 5), (2, 1, 3, 0), (0, 2, 3)),
    ((2, 40, 3, 9), (2, 1, 3, 0), (0, 2, 3)),
    ((3, 5, 70, 90), (0, 1, 2, 3), (0, 2, 3)),  # lines that are summed up in pieces
    ((7, 33, 101), (0, 1, 2), (2,)),
    ((6, 16), (0, 1), (0, 1)),
    ((2, 3, 17), (2, 0, 1), (2,)),  # no such lines: NumPy
]


@needs_kernels
@levels
@settings(max_examples=2 * len(NORMALIZED))
@given(st.sampled_from(NORMALIZED), st.sampled_from([1e-38, 1e-20, 1.0, 1e30]), st.sampled_from([0, 1, 1e4]), seeds)
def test_passes_of_normalization_equal_their_definition(
    level: int, normalized: Any, scale: float, offset: float, seed: int
) -> None:
    """All is added up in double precision, so results are nearly those of extended precision."""
    (shape, order, axes), rng = normalized, np.random.default_rng(seed)
    x, g = (rng.standard_normal([shape[i] for i in order], np.float32).transpose(np.argsort(order)) for _ in range(2))
    x, g = (x + np.float32(offset)) * np.float32(scale), g * np.float32(rng.choice([1e-30, 1, 1e30]))
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    center, a, b, c = (rng.standard_normal(kept) for _ in range(4))
    center, a, c = (center + offset) * scale, a / scale, c / np.abs(g).max()
    results = []
    with patch.object(compiled, "LEVEL", level):
        for library in (compiled.LIBRARY, None):
            with patch.object(compiled, "LIBRARY", library):
                results.append(
                    [
                        kernels.moments(x, axes),
                        kernels.gradient_sums(g, x, axes, center),
                        kernels.gradient_sums(np.ascontiguousarray(g), x, axes, center),
                        kernels.affine(x, center, a, b, axes),
                        kernels.affine(x, 0.0, a, 1.0, axes, g, c),
                    ]
                )
    exact_x, exact_g = x.astype(np.longdouble), g.astype(np.longdouble)
    distance = np.abs(exact_x - center)
    mean = exact_x.mean(axes, keepdims=True)
    exact = [
        np.stack([mean, ((exact_x - mean) ** 2).mean(axes, keepdims=True)]),
        *[np.stack([exact_g.sum(axes, keepdims=True), (exact_g * (exact_x - center)).sum(axes, keepdims=True)])] * 2,
        (exact_x - center) * a + b,
        exact_x * a + 1 + exact_g * c,
    ]
    magnitude = [
        np.stack([np.abs(mean), exact[0][1] + 1e-9 * mean**2]),
        *[np.stack([np.abs(v).sum(axes, keepdims=True) for v in (exact_g, exact_g * distance)])] * 2,
        np.abs(distance * a) + np.abs(b),
        np.abs(exact_x * a) + 1 + np.abs(exact_g * c),
    ]
    for found in results:
        for number, (f, e, m) in enumerate(zip(found, exact, magnitude, strict=True)):
            assert f.shape == e.shape and f.dtype == (np.float64 if number < 3 else np.float32)
            bound = 1e-12 * m if number < 3 else EPS * m + float(np.finfo(np.float32).smallest_subnormal)
            assert (np.abs(f - e) <= bound).all(), (number, (np.abs(f - e) / bound).max())


@needs_kernels
@levels
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_channel_with_a_number_that_is_not_finite_is_normalized_by_definition(level: int, bad: float) -> None:
    x = drawn(np.random.default_rng(0), (20, 4, 3, 5), "batch innermost")
    x[3, 1, 2, 4] = bad
    with patch.object(compiled, "LEVEL", level):
        found = kernels.moments(x, (0, 2, 3)), kernels.gradient_sums(x, x, (0, 2, 3), np.zeros((1, 4, 1, 1)))
    expected = normalization.moments(x, (0, 2, 3)), normalization.gradient_sums(x, x, (0, 2, 3), np.zeros((1, 4, 1, 1)))
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-12)


@needs_kernels
@levels
@given(counts, channels, sides, sides, layouts, layouts, seeds)
def test_relu_gradients_equal_their_definition(
    level: int, n: int, c: int, h: int, w: int, g_layout: str, y_layout: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    g, y = drawn(rng, (n, c, h, w), g_layout), np.rint(drawn(rng, (n, c, h, w), y_layout))  # often 0
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, -1e-45], np.float32)
    for x in (g, y):
        x[rng.random(x.shape) < 0.1] = rng.choice(special)
        x[rng.random(x.shape) < 0.1] = rng.choice(special)
    kept = np.where(y <= 0, np.float32(0), g)
    with patch.object(compiled, "LEVEL", level):
        for actual in (compiled.relu_gradient(g, y), reference.relu_gradient(g, y)):
            np.testing.assert_array_equal(actual, kept, strict=True)
            np.testing.assert_array_equal(np.signbit(actual), np.signbit(kept))
        for actual in (compiled.relu(y), reference.relu(y)):
            np.testing.assert_array_equal(actual, np.where(y <= 0, np.float32(0), y), strict=True)
            assert not np.signbit(actual[~np.isnan(y)]).any()


def compare_activation(kind: str, x: Array, g: Array) -> None:
    """Within a unit in the last place of what NumPy computes in double precision, and NaN where it is."""
    x64, g64 = x.astype(float), g.astype(float)
    with np.errstate(all="ignore"):
        pairs = [
            (kernels.activation(kind, x), smooth.activation(kind, x64)),
            (kernels.activation(kind, x, g), smooth.activation(kind, x64, g64)),
        ]
        plain = [smooth.activation(kind, x), smooth.activation(kind, x, g)]
    for number, ((found, exact), narrow) in enumerate(zip(pairs, plain, strict=True)):
        assert found.dtype == np.float32 and found.shape == x.shape
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(narrow))
        np.testing.assert_array_equal(found[~np.isfinite(found)], narrow[~np.isfinite(found)])
        cancels = np.where(number and (x > -2) & (x < 0), np.abs(g64), 0)  # around the zero of the derivative
        bound = EPS * (np.abs(exact) + cancels / 8) + float(np.finfo(np.float32).smallest_subnormal)
        held = np.isfinite(found) & np.isfinite(exact)
        error = np.abs(found[held] - exact[held])
        assert (error <= bound[held]).all(), (error / bound[held]).max()


@needs_kernels
@levels
@given(kinds, st.integers(1, 9), st.integers(1, 4), sides, sides, layouts, layouts, seeds)
def test_activations_equal_their_definition(
    level: int, kind: str, n: int, c: int, h: int, w: int, x_layout: str, g_layout: str, seed: int
) -> None:
    rng, shape = np.random.default_rng(seed), (n, c, h, w)
    x, g = drawn(rng, shape, x_layout), drawn(rng, shape, g_layout)
    x *= rng.choice(np.float32([1e-30, 1, 5, 40, 120, 1e4, 1e37]), shape)
    g *= rng.choice(np.float32([1e-38, 1e-10, 1, 1e10, 1e37]), shape)
    special = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3e38, -3e38, -699, -701, -37, -38])
    for a in (x, g):
        np.copyto(a, rng.choice(special, shape), where=rng.random(shape) < 0.1)
    with patch.object(compiled, "LEVEL", level):
        compare_activation(kind, x, g)


@needs_kernels
@levels
@pytest.mark.parametrize("kind", compiled.ACTIVATIONS)
def test_activations_of_many_numbers_by_definition(level: int, kind: str) -> None:
    """Several threads, and numbers side by side over the range in which the functions bend."""
    x = np.linspace(-60, 40, 70_003, dtype=np.float32)
    with patch.object(compiled, "LEVEL", level):
        compare_activation(kind, x, np.cos(x))


@needs_kernels
def test_what_is_not_float32_or_empty_is_left_to_numpy() -> None:
    x, w = np.ones((2, 3, 4, 4), np.float32), np.ones((5, 3, 2, 2), np.float32)
    with patch.object(compiled, "conv_output") as kernel:
        others = (
            (x.astype(np.float64), w),
            (x, w.astype(np.float64)),
            (x.astype(">f4"), w),
            (x[:0], w),
            (x, w[:0]),
            (x[:, :0], w[:, :0]),
        )
        for images, weights in others:
            assert tg.conv2d(images, weights).shape == (len(images), len(weights), 3, 3)
        kernel.assert_not_called()
    with patch.object(compiled, "max_pool") as kernel:
        for images, window in (
            (x.astype(np.float64), (2,)),
            (x[:0], (2,)),
        ):
            tg.max_pool2d(images, *window)
        kernel.assert_not_called()
    with patch.object(compiled, "activation") as kernel:
        for images in (x.astype(np.float64), x.astype(np.float16), x.astype(">f4"), x[:0], np.ones((2, 3), int)):
            assert tg.silu(images).shape == images.shape
        kernel.assert_not_called()


@needs_kernels
@levels
def test_results_are_the_same_bits_every_time_and_in_every_thread(level: int) -> None:
    rng = np.random.default_rng(0)
    x, w, g = (drawn(rng, shape, "batch innermost") for shape in ((50, 8, 12, 12), (9, 8, 3, 3), (50, 9, 12, 12)))

    halves, alone = Geometry((2, 2)), Geometry((1, 1), (1, 1), groups=8)

    def everything(_: int) -> list[bytes]:
        results = [
            compiled.conv_output(x, w, None, Geometry(padding=(1, 1))),
            compiled.conv_weight(x, g, Geometry(padding=(1, 1)), (3, 3)),
            compiled.conv_output(x, w[:8, :1], None, alone),
            compiled.conv_input(x, w[:8, :1], alone, (12, 12)),
            compiled.conv_weight(x, g[:, :8], alone, (3, 3)),
            compiled.max_pool(x, (2, 2), halves),
            compiled.average_pool(x, (3, 3), halves),
            compiled.average_pool_gradient(x, (3, 3), Geometry((1, 1), (1, 1)), (12, 12)),
        ]
        return [
            r.tobytes()
            for r in [
                *results,
                compiled.relu_gradient(g, g),
                compiled.activation("gelu", x),
                compiled.activation("mish", g, g),
                compiled.max_pool_scatter(results[5], x, results[5], (2, 2), halves),
                kernels.moments(x, (0, 2, 3)),
                kernels.gradient_sums(x, x, (0, 2, 3), np.ones((1, 8, 1, 1))),
                kernels.affine(x, 0.5, 2.0, 1.0, (0, 2, 3), x, 3.0),
            ]
        ]

    with patch.object(compiled, "LEVEL", level), ThreadPoolExecutor(4) as pool:
        assert len({tuple(run) for run in pool.map(everything, range(40))}) == 1


@needs_kernels
@levels
def test_gradients_of_native_ops_match_finite_differences(level: int) -> None:
    rng = np.random.default_rng(0)
    shapes = (32, 4, 3, 3), (4, 4, 3, 3), (4,)
    x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    with patch.object(compiled, "LEVEL", level):
        check_gradients(lambda x, w, b: tg.tanh(tg.conv2d(x, w, b, 1, 1)), x, w, b, rng=0)
        check_gradients(lambda x: tg.tanh(tg.max_pool2d(x, 2)), x, rng=0)
        check_gradients(lambda x: tg.tanh(tg.avg_pool2d(x, 2, 1, 1)), x, rng=0)
        for activation in (tg.gelu, tg.silu, tg.mish, tg.softplus):
            check_gradients(activation, x[:1], order=2, rng=0)


# Choosing and missing -------------------------------------------------------------------------------------------------
CONFIG = "import tinygrad_mnist as tg; tg.show_config()"


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}
    )


def test_show_config_tells_what_computes_and_why() -> None:
    off = python(CONFIG, TINYGRAD_MNIST_NATIVE="0").stdout
    assert re.search(r"native kernels: off \(switched off by TINYGRAD_MNIST_NATIVE=0\); NumPy", off)
    with patch.object(compiled, "EXTENSION_SUFFIXES", [".nothing"]), patch.dict(os.environ, {compiled.VARIABLE: "1"}):
        library, _, reason = compiled._load()
    assert library is None and "no C compiler" in reason
    if compiled.LIBRARY:
        for level, name in enumerate(compiled.LEVELS[: compiled.LIBRARY.highest_level() + 1]):
            out = python(f"{CONFIG}; assert tg.native.LEVEL == {level}", TINYGRAD_MNIST_NATIVE=name)
            assert out.returncode == 0 and re.search(
                rf"native kernels: {name} \(chosen by .*\), compiled by (GCC|Clang)", out.stdout
            )
        assert re.search(
            r"native kernels: \w+ \(the best that this processor has\)",
            python(CONFIG, TINYGRAD_MNIST_NATIVE="1").stdout,
        )


@pytest.mark.parametrize("wish", ["fast", "sse9", "/nowhere/native.so"])
def test_an_unknown_wish_is_an_error_that_lists_what_there_is(wish: str) -> None:
    known = rf"'{wish}'.*0 \(off\), 1, one of baseline, avx2, avx512"
    with patch.dict(os.environ, {compiled.VARIABLE: wish}), pytest.raises(ValueError, match=known):
        compiled._load()


@needs_kernels
def test_a_level_that_the_processor_lacks_is_an_error() -> None:
    library = compiled.LIBRARY
    with (
        patch.object(library, "highest_level", lambda: 0),
        patch.object(compiled.ctypes, "CDLL", lambda path: library),
        patch.dict(os.environ, {compiled.VARIABLE: "avx2"}),
        pytest.raises(ValueError, match="'avx2', but .* no more than 'baseline'"),
    ):
        compiled._load()


def test_the_path_of_a_library_may_be_relative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.so").write_bytes(b"")
    monkeypatch.setenv(compiled.VARIABLE, "own.so")
    with patch.object(compiled.ctypes, "CDLL", side_effect=OSError("seen")) as loaded:
        compiled._load()
    loaded.assert_called_once_with(str(tmp_path.resolve() / "own.so"))


@needs_kernels
def test_a_library_of_another_version_is_left_out() -> None:
    functions = {name: lambda: None for name in (*compiled.SIGNATURES, "compiler")}
    for library in (SimpleNamespace(**functions, geometry_size=lambda: 8), SimpleNamespace()):
        with (
            patch.object(compiled.ctypes, "CDLL", lambda path, library=library: library),
            patch.dict(os.environ, {compiled.VARIABLE: "1"}),
        ):
            found, _, reason = compiled._load()
        assert found is None and "another version" in reason and "install again" in reason


def test_a_library_that_cannot_be_loaded_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "broken.so").write_bytes(b"no library")
    with patch.dict(os.environ, {compiled.VARIABLE: str(tmp_path / "broken.so")}):
        library, _, reason = compiled._load()
    assert library is None and "cannot be loaded" in reason


def test_too_little_memory_is_an_error() -> None:
    assert compiled._finite(0) and not compiled._finite(2)
    with pytest.raises(MemoryError, match="smaller batches"):
        compiled._finite(1)


# Random calls ---------------------------------------------------------------------------------------------------------
any_dtype = st.sampled_from([*["f4"] * 12, "f8", "f2", ">f4", "i4"])


@st.composite
def calls(draw: Any) -> tuple[Any, list[tuple[int, ...]], dict[str, Any]]:
    """Draw an op, shapes of its arrays and settings: about half of the calls are valid."""
    sizes = (draw(counts | st.integers(0, 3)), draw(st.sampled_from([1, 2, 3, 4, 0])), draw(sides), draw(sides))
    pair = st.tuples(st.sampled_from([1, 2, 2, 3, 3, 3, 0]), st.integers(1, 3))
    op = draw(st.sampled_from([tg.conv2d, tg.max_pool2d, tg.avg_pool2d, tg.relu, tg.gelu, tg.silu]))
    if op in (tg.relu, tg.gelu, tg.silu):
        return op, [sizes], {}
    given_ = {"stride": draw(pair), "padding": draw(st.sampled_from([0, 0, 1, 1, 2, 3, -1]))}
    if op in (tg.max_pool2d, tg.avg_pool2d):
        return op, [sizes], draw(st.sampled_from([{}, given_])) | {"kernel_size": draw(st.sampled_from([2, 2, 3, 0]))}
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    seen = draw(st.sampled_from([sizes[1] // groups] * 3 + [2]))
    spread = {"dilation": draw(st.sampled_from([1, 1, 2])), "groups": groups}
    return op, [sizes, (groups * draw(st.integers(0, 4)), seen, *draw(pair))], given_ | spread


@needs_kernels
@pytest.mark.slow
@settings(max_examples=2000)
@given(calls(), st.tuples(any_dtype, any_dtype), layouts, seeds)
def test_two_thousand_random_calls_give_numpys_results_or_its_errors(
    call: Any, dtypes: tuple[str, str], layout: str, seed: int
) -> None:
    op, shapes, given_ = call
    rng = np.random.default_rng(seed)
    arrays = [drawn(rng, shape, layout).astype(d, copy=False) for shape, d in zip(shapes, dtypes, strict=False)]

    def outcome() -> tuple[str, list[Array]]:
        leaves = [tg.as_tensor(x) for x in arrays]  # in their own memory
        for leaf in leaves:
            leaf.requires_grad = leaf.dtype.kind == "f"
        try:
            out = op(*leaves, **given_)
        except (TypeError, ValueError) as error:
            return f"{type(error).__name__}: {error}", []
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        return "", [out.data, *(g.data for g in (tg.grad(out, wanted, gradient=tg.tanh(out)) if wanted else []))]

    before = [x.copy() for x in arrays]
    error, actual = outcome()
    with patch.object(compiled, "LIBRARY", None):
        expected_error, expected = outcome()
    assert error == expected_error and (not error or f"Error: {op.__name__}: " in error)
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape
        exact = op in (tg.max_pool2d, tg.relu)
        rounding = 0 if exact else 200 * EPS + (float(np.finfo(e.dtype).eps) if e.dtype.kind == "f" else 0)
        np.testing.assert_allclose(a, e, rtol=0, atol=rounding * max(np.abs(x).max(initial=1) for x in expected))
    assert all(np.array_equal(x, b, equal_nan=True) for x, b in zip(arrays, before, strict=True))


# Testing the tests ----------------------------------------------------------------------------------------------------
def build(target: Path, source: Path, *options: str) -> Path:
    command = [
        "cc",
        "-std=c11",
        "-ffp-contract=fast",
        "-shared",
        "-fPIC",
        "-Wall",
        "-Wextra",
        "-Werror",
        *options,
        "-o",
        target,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target


def these_tests(keyword: str, library: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    arguments = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow", "-k", keyword, __file__]
    return python(
        f"import pytest, sys; sys.exit(pytest.main({arguments}))", TINYGRAD_MNIST_NATIVE=str(library), **environment
    )


PLANTED = {
    "a transformed point": (
        "lowering.h",
        "LOOSE *)(to + 4 * point) = even2 - odd2",
        "LOOSE *)(to + 4 * point) = even2 + odd2",
    ),
    "weights at the wrong stride": ("convolution.h", "f * s->wf + c * s->wc", "f * s->wc + c * s->wf"),
    "a stale row in the ring": ("lowering.h", "if (ring->holds[number] != y + at)", "if (ring->holds[number] < 0)"),
    "no bias in the fourth column": ("convolution.h", "(m[5] + add)", "m[5]"),
    "every maximum": ("pooling.h", "left &= ~hit;", "left &= -1;"),
    "the first NaN": ("pooling.h", "(nans ? last - tap : tap)", "(nans ? last * 0 + tap : tap)"),
    "a window in the padding": (
        "pooling.h",
        "min(size, length - first)",
        "min(size, length - first) - (length < first + size)",
    ),
    "gradients that are not added up": ("pooling.h", "alone && !nans ? passed", "!nans ? passed"),
    "a gradient added twice": ("pooling.h", "(!alone || nans) && at < lane", "(!alone || nans) && at > lane"),
    "every maximum of few images": ("pooling.h", "open[at] ^= hit;", "open[at] ^= 0;"),
    "few images that are not added up": ("pooling.h", "d[j * s->sw] += passed[j];", "d[j * s->sw] = passed[j];"),
    "a window of few images in the padding": (
        "pooling.h",
        "(last - 1) * s->sw + shift >= s->w",
        "last * s->sw + shift >= s->w",
    ),
    "the columns of few images": ("pooling.h", "to[j] = from[2 * j];", "to[j] = from[2 * j + 1];"),
    "rows of a large window": ("pooling.h", "first ? NAME(combined)", "first > AT_ONCE ? NAME(combined)"),
    "a stale border": ("pooling.h", "rows[at] = t->pad;", "rows[at] += 0 * t->pad;"),
    "an average without its size": (
        "pooling.h",
        "average ? v / divisor : v",
        "average ? v / (divisor + (float)(kw > 2)) : v",
    ),
    "a sum that is divided too late": ("pooling.h", "? v / size : v * share", "? v / size : v * 2 * share / 2"),
    "one window too few": ("pooling.h", "min(at / step + 1, count)", "min(at / step + 1, count - (count > 2))"),
    "rows that are not cleared": ("pooling.h", "? s->h : windows.end * kh", "? s->h - 1 : windows.end * kh"),
    "columns that are not cleared": ("pooling.h", "alone && s->ow * kw < s->w", "alone && s->ow * kw > s->w"),
    "a channel that is left out": ("pooling.h", "(part + 1) * t->lines, s->c)}", "(part + 1) * t->lines, s->c - 1)}"),
    "a piece of a line without its mean": ("normalization.h", "around + apart * apart", "around + 0 * apart"),
    "the tail of a line": ("normalization.h", "double a = x[at] - center", "double a = x[at]"),
    "the vectors of a line": ("normalization.h", "one[i] += b;", "one[i] += b * (i < 3);"),
    "products with themselves": ("normalization.h", "both[i] += a * b;", "both[i] += a * a;"),
    "the scale of the next channel": (
        "normalization.h",
        "t->each + line % t->channels;",
        "t->each + (line + 1) % t->channels;",
    ),
    "a shift that is left out": ("normalization.h", "(x[at] - center) * scale + shift;", "(x[at] - center) * scale;"),
    "a gradient without its factor": (
        "normalization.h",
        "v += NAME(widened)(g + at) * factor;",
        "v += NAME(widened)(g + at);",
    ),
    "channels beyond the first part": (
        "normalization.h",
        "ptrdiff_t first = part * t->some, end = min(first + t->some, t->rows * t->channels);",
        "ptrdiff_t first = part * t->some, end = min(t->some, t->rows * t->channels);",
    ),
    "an exponential of few terms": ("smooth.h", "1 / 40320., 1 / 5040.", "0, 0"),
    "the exponential of a sum": ("smooth.h", "rest = v - (shifted", "rest = v + (shifted"),
    "an exponential far below": ("smooth.h", "& ~(LONGS)(v < -FAR)", "& ~(LONGS)(v < -2 * FAR)"),
    "a step that is taken at infinity": ("smooth.h", "(LONGS)(x > -INFINITY)", "~(LONGS){0}"),
    "an infinite gradient that is passed on": ("smooth.h", "sloped ? (WIDE)((LONGS)out & ~", "0 ? (WIDE)(~"),
    "a tail of less precision": ("smooth.h", "6.5519701868292946e-06", "0"),
    "the other tail": ("smooth.h", "product, 1 - product);", "product, 1 + product);"),
    "a logarithm of few terms": ("smooth.h", "2 / 19., 2 / 17., 2 / 15., 2 / 13.", "0, 0, 0, 0"),
    "the slope of the exponent": ("smooth.h", "(3 * 0.044715)", "(2 * 0.044715)"),
    "the square of the step": (
        "smooth.h",
        "NAME(either)(below, one, small * small)",
        "NAME(either)(below, one, small)",
    ),
    "the last numbers": ("smooth.h", "memcpy(g, sloped ? t->g + at : x, bytes);", ""),
    "numbers beyond the first part": ("smooth.h", "{part * (SMALL_PART / 4), min", "{part * (SMALL_PART / 4) + 1, min"),
    "the gradient at 0": ("pooling.h", "(x <= 0)", "(x < 0)"),
    "a sum without its tail": ("pooling.h", "(line + at, end - at)", "(line + at, end - at - 1)"),
    "sums across too few lanes": (
        "kernels.h",
        "0; lane < LANES; lane++)\n        sum",
        "1; lane < LANES; lane++)\n        sum",
    ),
    "an image too few": ("weights.h", "min(width - lane, TOGETHER)", "min(width - lane, TOGETHER) - 1"),
    "rounding of zeros": ("convolution.h", "if (seeing & ZEROS)", "if (0)"),
    "what a neighbour sees": ("convolution.h", "all <= sum[j] * RATIO", "all <= sum[j] * RATIO * MOST"),
    "one number among small ones": (
        "convolution.h",
        "all * all > SINGLE * sum[COLUMNS]",
        "all * all > SINGLE * sum[COLUMNS] * 0",
    ),
    "the wrong column again": (
        "convolution.h",
        "column = j - s->left, block",
        "column = j + 1 - s->left, block",
    ),
    "all lanes again": ("convolution.h", "(new & wanted) | (old & ~wanted)", "(old & wanted) | (new & ~wanted)"),
    "uneven columns of weights": ("convolution.h", "EVEN_COLUMNS >= largest", "EVEN_COLUMNS >= 0"),
    "weights that are not finite": ("convolution.h", "? NOT_FINITE :", "? 0 :"),
    "a gradient that cancels": ("weights.h", "OUTLIER * usual", "OUTLIER * usual * LARGEST"),
    "a gradient at the edge": ("weights.h", "begin * s->sw + l < s->left", "begin * s->sw + l + 1 < s->left"),
    "a part that is lost": ("weights.h", "part < t->results; part++, result", "part < 1; part++, result"),
    "a ring kept from another strip": ("native.c", "ring->holds[at] = -1;", "ring->holds[at] += 0;"),
    "a part without its last row": (
        "convolution.h",
        "top : min(top + p->height, s->oh);",
        "top : min(top + p->height - 1, s->oh);",
    ),
    "rows beyond the first of a tile": ("convolution.h", "at > k.begin || r > 0", "at > k.begin"),
    "some filters of a block": (
        "convolution.h",
        "filters > BLOCK / 2 ? 3 * BLOCK / 4",
        "filters > BLOCK / 2 + 1 ? 3 * BLOCK / 4",
    ),
    "the images of a unit": ("convolution.h", "image = lane % p->lanes;", "image = lane % s->n;"),
    "an output column at the wrong step": ("convolution.h", "at.column * s->yj +", "at.column * s->n +"),
    "the first column everywhere": ("convolution.h", "to[lane * step] = sums[lane]", "to[lane * step] = sums[0]"),
    "an output in the wrong column": ("convolution.h", "column * s->yj + image;", "column * s->n + image;"),
    "a row of another tap": ("weights.h", "v[(r + at) / rows]", "v[r / rows]"),
    "filters of another vector": ("weights.h", "wide + f % (2 * LANES);", "wide;"),
    "what was summed before": ("weights.h", "few, sums->folds++);", "few, 0 * sums->folds++);"),
    "gradients without their last points": ("weights.h", "B2 * even2 + v[5][f]", "B2 * even2"),
    "columns that are no neighbours": ("depthwise.h", "== first + j - run[-step]", "> first - 1"),
    "pixels between two strides": ("depthwise.h", "(place < 0 || place % stride)", "place < 0"),
    "columns without dilation": ("depthwise.h", "(j, l * s->dw, s->sw", "(j, l, s->sw"),
    "the first weight for all taps": ("depthwise.h", "w[t] = own[tap[t]];", "w[t] = own[tap[0]];"),
    "some taps alone": ("depthwise.h", "        more = 1;", "        more = 0;"),
    "lanes that are added twice": ("depthwise.h", "count >= LANES && !more", "count >= LANES"),
    "sums that are folded twice": ("depthwise.h", "d->sums[at] = (VEC){0};", "d->sums[at] *= 1;"),
    "products of the last lanes": ("depthwise.h", "[lane % LANES] += g[lane]", "[lane % LANES] += 0 * g[lane]"),
    "a channel for each filter": ("depthwise.h", "d->x + f / many * line", "d->x + (f + 1) / (many + 1) * line"),
    "less precision": ("native.c", "G0 = 64 / 81.f", "G0 = 0.79015f"),
}


TESTS_OF = {  # all of them find these errors as well, but later
    "normalization.h": "passes_of_normalization or finite_is_normalized",
    "pooling.h": "relu_gradients_equal or pooling_equals or overlapping_windows or averages_of_whole or it_is_divided "
    "or sums_of_channels",
    "smooth.h": "relu_gradients_equal or activations_equal or activations_of_many",
}


@needs_compiler
@needs_kernels
@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_planted_errors_are_found(name: str, tmp_path: Path) -> None:
    file, right, wrong = PLANTED[name]
    for source in SOURCE.parent.glob("*.[ch]"):
        text = source.read_text()
        assert source.name != file or text.count(right) == 1
        (tmp_path / source.name).write_text(text.replace(right, wrong) if source.name == file else text)
    library = build(tmp_path / "wrong.so", tmp_path / SOURCE.name, "-Og", "-DBASELINE_ONLY")
    run = these_tests(TESTS_OF.get(file, "definition or particular"), library, HYPOTHESIS_PROFILE="fails")
    assert run.returncode == 1 and "1 failed" in run.stdout, run.stdout[-2000:]


@needs_compiler
@pytest.mark.slow
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    options = ["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    try:
        library = build(tmp_path / "checked.so", SOURCE, *options)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the compiler has no sanitizers: {error.stderr[-300:]}")
    finder = ["cc", "-print-file-name=libasan.so"]
    runtime = subprocess.run(finder, capture_output=True, text=True).stdout.strip()  # must be there before Python is
    environment = {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    run = these_tests("definition or particular or bits", library, HYPOTHESIS_PROFILE="dev", **environment)
    assert run.returncode == 0 and " passed" in run.stdout, (run.stdout + run.stderr)[-4000:]
    overrun = """if True:
        import numpy as np
        from tinygrad_mnist.kernels import compiled as native
        too_few = np.ones(9999, np.float32).ctypes.data
        sizes = native._windows((64, 4, 64, 64), (2, 2), native.Geometry((2, 2)), (32, 32))
        native.LIBRARY.max_pool(0, 1, sizes, too_few, too_few)
    """
    assert "AddressSanitizer" in python(overrun, TINYGRAD_MNIST_NATIVE=str(library), **environment).stderr
