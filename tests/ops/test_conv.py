"""Convolution and pooling against naive loops, the derived definition and finite differences, for any geometry.

Entries are small whole numbers, so that every order of summation gives the same, exact result.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist.kernels import reference as contractions
from tinygrad_mnist.testing import adjoint_check, arrays, check_gradients, conv_geometries

Array = npt.NDArray[Any]
seeds, counts = st.integers(0, 2**32 - 1), st.integers(1, 3)
layouts = st.sampled_from(["C", "batch innermost", "reversed"])
dtypes = st.sampled_from([np.float32, np.float64])
some = settings(max_examples=settings().max_examples // 2)  # for slow checks of what other tests compare exactly


def listed(geometry: Any) -> tuple[Any, ...]:
    return tuple(geometry[axis] for axis in "nchw"), geometry["kernel_size"], geometry["stride"], geometry["padding"]


geometries, pool_geometries = conv_geometries().map(listed), conv_geometries(pooling=True).map(listed)


def numbers(seed: int, shape: tuple[int, ...], dtype: Any = np.float64, layout: str = "C", limit: int = 4) -> Array:
    """Whole numbers from -limit to limit in a read-only array."""
    x = np.random.default_rng(seed).integers(-limit, limit + 1, shape).astype(dtype)
    if layout == "batch innermost":
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)
    elif layout == "reversed":
        reverse = (slice(None, None, -1),) * len(shape)
        x = np.ascontiguousarray(x[reverse])[reverse]
    x.flags.writeable = False
    return x


# The naive definitions ------------------------------------------------------------------------------------------------
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


def naive_conv(x: Array, w: Array, stride: Any, padding: Any) -> Array:
    fields = windows(x, w.shape[2:], stride, padding)
    out = np.zeros((len(x), len(w), *fields.shape[2:4]), np.result_type(x, w))
    for f, i, j in np.ndindex(*out.shape[1:]):
        out[:, f, i, j] = (fields[:, :, i, j] * w[f]).sum(axis=(1, 2, 3))
    return out


def naive_pool_gradient(x: Array, g: Array, kernel: Any, stride: Any, padding: Any) -> Array:
    """Each window's gradient goes to its first maximum, row by row."""
    out, (ph, pw) = np.zeros_like(x), padding
    for n, c, i, j in np.ndindex(*g.shape):
        rows = [r for r in range(i * stride[0] - ph, i * stride[0] - ph + kernel[0]) if 0 <= r < x.shape[2]]
        columns = [s for s in range(j * stride[1] - pw, j * stride[1] - pw + kernel[1]) if 0 <= s < x.shape[3]]
        best = max(((r, s) for r in rows for s in columns), key=lambda at: x[n, c, at[0], at[1]])  # max keeps the first
        out[(n, c, *best)] += g[n, c, i, j]
    return out


def derived_conv(x: Any, w: Any, bias: Any, stride: Any, padding: Any) -> tg.Tensor:
    """A convolution as the textbook writes it: one product of the im2col matrix with the filters."""
    f, _, kh, kw = w.shape
    n, _, h, width = x.shape
    oh, ow = (h + 2 * padding[0] - kh) // stride[0] + 1, (width + 2 * padding[1] - kw) // stride[1] + 1
    rows = tg.im2col(x, (kh, kw), stride, padding) @ tg.reshape(w, f, w.shape[1] * kh * kw).T
    out = rows.reshape(n, oh, ow, f).transpose(0, 3, 1, 2)
    return out if bias is None else out + tg.reshape(bias, f, 1, 1)


def exactly(actual: Any, expected: Array) -> None:
    data = actual.data if isinstance(actual, tg.Tensor) else actual
    assert data.dtype == expected.dtype
    np.testing.assert_array_equal(data, expected, strict=True)


# Values ---------------------------------------------------------------------------------------------------------------
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


@given(pool_geometries, seeds, dtypes, layouts, st.booleans())
def test_pools_reduce_each_window(geometry: Any, seed: int, dtype: Any, layout: str, negative: bool) -> None:
    shape, kernel, stride, padding = geometry
    x = numbers(seed, shape, dtype, layout, limit=2) - (3 if negative else 0)
    exactly(tg.max_pool2d(x, kernel, stride, padding), windows(x, kernel, stride, padding, -np.inf).max(axis=(4, 5)))
    exactly(
        tg.avg_pool2d(x, kernel, stride, padding),
        windows(x, kernel, stride, padding).sum(axis=(4, 5)) / dtype(np.prod(kernel)),
    )


@pytest.mark.parametrize("pool", [tg.max_pool2d, tg.avg_pool2d])
def test_pools_lie_side_by_side_by_default(pool: Any) -> None:
    x = numbers(0, (2, 3, 7, 8))
    exactly(pool(x, (2, 3)), pool(x, (2, 3), (2, 3), (0, 0)).data)
    exactly(pool(x, 3, padding=1), pool(x, (3, 3), (3, 3), (1, 1)).data)


def test_an_integer_stands_for_both_directions() -> None:
    x, w = numbers(0, (2, 3, 7, 8)), numbers(1, (4, 3, 3, 3))
    exactly(tg.conv2d(x, w, None, 2, 1), tg.conv2d(x, w, None, (2, 2), (1, 1)).data)
    exactly(tg.im2col(x, 3, np.int64(2), [1, 1]), tg.im2col(x, (3, 3), (2, 2), (1, 1)).data)


# Gradients ------------------------------------------------------------------------------------------------------------
def first_and_second(fn: Any, inputs: list[Array], g: Array, probes: list[Array]) -> list[Array]:
    """The output, its vector-Jacobian product with `g`, and the gradients of <that product, probes>, also with respect
    to `g`.
    """
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


@given(geometries, counts, seeds, st.booleans(), dtypes, layouts)
def test_an_activation_is_what_relu_makes_of_it(
    geometry: Any, filters: int, seed: int, biased: bool, dtype: Any, layout: str
) -> None:
    shape, kernel, stride, padding = geometry
    shapes = [shape, (filters, shape[1], *kernel), (filters,)][: 2 + biased]
    inputs = [numbers(seed + i, one, dtype, layout if i == 0 else "C") for i, one in enumerate(shapes)]
    bias = [None] * (not biased)
    g = numbers(seed + 6, tg.conv2d(*inputs[:2], None, stride, padding).shape, dtype, layout)
    merged, apart = (
        first_and_second(fn, inputs, g, [numbers(seed + 3 + i, one, dtype) for i, one in enumerate(shapes)])
        for fn in (
            lambda x, w, *b: tg.conv2d(x, w, *b, *bias, stride, padding, activation="relu"),
            lambda x, w, *b: tg.relu(tg.conv2d(x, w, *b, *bias, stride, padding)),
        )
    )
    for result, wanted in zip(merged, apart, strict=True):
        exactly(result, wanted)


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
    layout: str,
) -> None:
    kernels = (filters, shape[1], 2, 2)
    x, w, _ = inputs = [numbers(seed, shape, layout=layout), numbers(seed + 1, kernels), numbers(seed + 2, (filters,))]
    g = numbers(seed + 3, naive_conv(x, w, stride, padding).shape, layout=layout)
    tuned = {"SMALL": cut, "SMALL_PRODUCT": product, "SMALL_GRADIENT": product // 4, "SMALL_COLUMNS": columns}
    contractions._products.cache_clear()
    with patch.multiple(contractions, BLOCK_BYTES=size, FEW_CHANNELS=few, **tuned):
        equals_derived(inputs, g, [np.flip(a) for a in inputs], stride, padding)
    contractions._products.cache_clear()


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


@given(pool_geometries, seeds, layouts, st.integers(0, 2), dtypes)
def test_max_pool_sends_the_gradient_to_the_first_maximum(
    geometry: Any, seed: int, layout: str, limit: int, dtype: Any
) -> None:
    shape, kernel, stride, padding = geometry
    x = tg.Tensor(numbers(seed, shape, dtype, layout, limit) - dtype(3), requires_grad=True)  # many ties, all negative
    out = tg.max_pool2d(x, kernel, stride, padding)
    g = tg.Tensor(numbers(seed + 1, out.shape, dtype), requires_grad=True)
    (gx,) = tg.grad(out, [x], create_graph=True, gradient=g)
    exactly(gx, naive_pool_gradient(x.data, g.data, kernel, stride, padding))
    probe = numbers(seed + 2, shape, dtype)
    read, curvature = tg.grad((gx * probe).sum(), [g, x])
    assert np.vdot(read.data, g.data) == np.vdot(gx.data, probe)  # linear in g, so this is its adjoint
    assert not curvature.data.any()


@pytest.mark.parametrize(
    ("rows", "kernel", "stride", "padding", "first"),
    [
        ([[1, 1], [1, 1]], 2, 2, 0, [[1, 0], [0, 0]]),
        ([[0, 1], [1, 0]], 2, 2, 0, [[0, 1], [0, 0]]),  # row-major: the upper right one comes before the lower left one
        ([[5, 5, 5]], (1, 2), 1, 0, [[1, 1, 0]]),
        ([[-5, -5], [-5, -5]], 3, 1, 1, [[4, 0], [0, 0]]),  # padding is no maximum, not even among negative numbers
        ([[7, 7, 7], [7, 7, 7], [7, 7, 7]], 2, 1, 0, [[1, 1, 0], [1, 1, 0], [0, 0, 0]]),
    ],
)
def test_ties_in_max_pool(rows: Any, kernel: Any, stride: int, padding: int, first: Any) -> None:
    x = tg.Tensor(np.array([[rows]], np.float64), requires_grad=True)
    tg.max_pool2d(x, kernel, stride, padding).sum().backward()
    assert x.grad.data[0, 0].tolist() == first


@pytest.mark.parametrize("name", ["conv2d", "im2col", "col2im", "avg_pool2d", "max_pool2d"])
@some
@given(st.data(), st.integers(1, 2), seeds)
def test_gradients_match_finite_differences(name: str, data: Any, order: int, seed: int) -> None:
    drawn = pool_geometries if name.endswith("pool2d") else geometries
    shape, *window = data.draw(drawn.filter(lambda g: g[0][0] and tg.im2col(np.zeros(g[0]), *g[1:]).size < 64))
    shapes, fn = {
        "conv2d": ([shape, (2, shape[1], *window[0]), (2,)], lambda x, w, b: tg.conv2d(x, w, b, *window[1:])),
        "col2im": ([tg.im2col(np.zeros(shape), *window).shape], lambda cols: tg.col2im(cols, shape, *window)),
    }.get(name, ([shape], lambda x: getattr(tg, name)(x, *window)))
    inputs = [data.draw(arrays(one, dtypes, distinct=True)) for one in shapes]
    check_gradients(lambda *xs: tg.sin(fn(*xs)), *inputs, order=order, rng=seed)


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


# Errors ---------------------------------------------------------------------------------------------------------------
X, W = np.zeros((2, 3, 5, 6)), np.zeros((4, 3, 3, 2))


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
        (lambda: tg.conv2d(X, W, 0.5), ["conv2d", "bias", "()", "(4,)"]),
        (lambda: tg.conv2d(X, W, activation="tanh"), ["conv2d", "activation", "'tanh'", "relu"]),
        (lambda: tg.im2col(X[0], 2), ["im2col", "(3, 5, 6)"]),
        (lambda: tg.im2col(X, (6, 2)), ["im2col", "6 x 2", "5 x 6"]),
        (lambda: tg.max_pool2d(X[0], 2), ["max_pool2d", "(3, 5, 6)"]),
        (lambda: tg.max_pool2d(X, 7), ["max_pool2d", "7 x 7", "5 x 6"]),
        (lambda: tg.max_pool2d(X, (2, 4), padding=2), ["max_pool2d", "padding 2", "(2, 4)"]),
        (lambda: tg.avg_pool2d(X[0, 0], 2), ["avg_pool2d", "(5, 6)"]),
        (lambda: tg.avg_pool2d(X, (1, 7)), ["avg_pool2d", "1 x 7", "5 x 6"]),
        (lambda: tg.avg_pool2d(X, 3, padding=(2, 0)), ["avg_pool2d", "(2, 0)", "3"]),
        (lambda: tg.col2im(np.zeros((4, 5)), (1, 1, 3, 3), 2), ["col2im", "(4, 5)", "(4, 4)"]),
    ],
)
def test_shapes_that_do_not_fit_are_named(call: Any, parts: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "value", [-1, 1.0, True, (1, 2, 3), (1,), (1, -1), (2.5, 1), (False, 1), "1", None, np.array([1, 1])], ids=repr
)
@pytest.mark.parametrize(
    ("op", "name", "call"),
    [
        ("conv2d", "stride", lambda v: tg.conv2d(X, W, stride=v)),
        ("conv2d", "padding", lambda v: tg.conv2d(X, W, padding=v)),
        ("im2col", "kernel_size", lambda v: tg.im2col(X, v)),
        ("im2col", "stride", lambda v: tg.im2col(X, 2, v)),
        ("im2col", "padding", lambda v: tg.im2col(X, 2, 1, v)),
        ("col2im", "kernel_size", lambda v: tg.col2im(X[0, 0], (1, 1, 3, 3), v)),
        ("max_pool2d", "kernel_size", lambda v: tg.max_pool2d(X, v)),
        ("max_pool2d", "stride", lambda v: tg.max_pool2d(X, 2, v if v is not None else -1)),
        ("avg_pool2d", "padding", lambda v: tg.avg_pool2d(X, 2, 2, v)),
    ],
)
def test_settings_must_be_integers_or_pairs(op: str, name: str, call: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{op}: {name} must be an integer"):
        call(value)


@pytest.mark.parametrize("zero", [0, (0, 1), (1, 0)])
def test_zero_is_no_stride_and_no_kernel(zero: Any) -> None:
    for call in (
        lambda: tg.conv2d(X, W, stride=zero),
        lambda: tg.im2col(X, zero),
        lambda: tg.max_pool2d(X, 2, zero),
        lambda: tg.avg_pool2d(X, zero),
    ):
        with pytest.raises(ValueError, match="at least 1"):
            call()
