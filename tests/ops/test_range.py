"""Rules are right wherever the true gradient is representable: over the whole exponent range, for every precision.

The oracles are closed forms in extended precision. An error of `ULPS` units in the last place is allowed (where the
gradient is subnormal: of the smallest number). That is what NumPy's own functions in float32 leave: its exponential and
its logarithm are off by 2 to 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, Function, seeds, some
from planted import with_rule

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor, ops
from tinygrad_mnist.ops import creation

ULPS = 8
COUNT = 1024
EXTENDED = np.finfo(np.longdouble).maxexp > 1024
FLOATS = [np.float16, np.float32, pytest.param(np.float64, marks=pytest.mark.skipif(not EXTENDED, reason="no oracle"))]
floats = pytest.mark.parametrize("dtype", FLOATS)


# Inputs ---------------------------------------------------------------------------------------------------------------
def numbers(dtype: Any, rng: np.random.Generator, size: int = COUNT) -> Array:
    """Finite numbers of all magnitudes, subnormal ones too, and more of those where functions change."""
    info = np.finfo(dtype)
    exponents = rng.uniform(info.minexp - info.nmant, info.maxexp, size)
    signs = rng.choice([-1, 1], size)
    everywhere = signs * np.exp2(exponents.astype(np.longdouble))
    powers = signs * np.exp2(np.floor(exponents).astype(np.longdouble))
    argument = rng.uniform(-0.9, 0.9, size) * info.maxexp  # of an exponential: it overflows at 0.69
    small = rng.uniform(-4, 4, size)
    whole = rng.integers(-6, 7, size)
    near_one = signs * (1 + rng.integers(-9, 10, size) * info.eps)
    kinds = [everywhere, powers, argument, argument, small, whole, near_one]
    return np.clip(np.choose(rng.integers(0, len(kinds), size), kinds), info.min, info.max).astype(dtype)


def cotangents(dtype: Any, rng: np.random.Generator, shape: Any = COUNT) -> Array:
    """Numbers from 2**-10 to 2**10, of both signs."""
    return np.asarray(rng.choice([-1, 1], shape) * np.exp2(rng.uniform(-10, 10, shape))).astype(dtype)


# The comparison -------------------------------------------------------------------------------------------------------
def gradients(function: Function, xs: list[Array], g: Array) -> list[Array]:
    leaves = [Tensor(x, requires_grad=True) for x in xs]
    return [t.data for t in tg.grad(function(*leaves), leaves, gradient=g)]


def check(found: Array, true: Array, ulps: float = ULPS, given: Any = "") -> None:
    """Compare where the true numbers are finite and not so large that rounding decides."""
    info = np.finfo(found.dtype)
    compared = np.abs(true) < info.max * (1 - 2 * ulps * info.eps)
    rounded = np.where(compared, true, 0).astype(found.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        errors = np.abs(found - np.where(compared, true, 0)) / np.spacing(np.abs(rounded))
    wrong = np.flatnonzero(compared & ~(errors <= ulps))
    if wrong.size:
        i = wrong[0]
        arguments = [np.broadcast_to(a, found.shape).flat[i] for a in given]
        raise AssertionError(
            f"{found.dtype}: {found.flat[i]!r} for {true.flat[i]!r}, off by {errors.flat[i]:.4g} units in the last "
            f"place, at {arguments}; {wrong.size} of {found.size} are wrong"
        )


def long(*xs: Any) -> list[Array]:
    return [np.asarray(x, np.longdouble) for x in xs]


# Elementwise ops ------------------------------------------------------------------------------------------------------
def logistic(x: Array) -> Array:
    return np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))) ** 2


def slope(x: Array, y: Any) -> Array:
    below = np.where(x == 0, x ** np.where(y == 0, 1, y - 1), x**y / x)  # y - 1 may be even or whole where y is not
    return np.where(np.equal(y, 0), 0, y * below)


def growth(x: Any, y: Array) -> Array:
    return np.where(np.equal(x, 0), 0, x**y * np.log(np.where(np.equal(x, 0), 1, x)))


def one(x: Array, *rest: Array) -> Array:
    return np.ones_like(x)


SLOPES: dict[str, list[Callable[..., Array]]] = {  # the derivative by each argument
    "add": [one, one],
    "subtract": [one, lambda x, y: -one(x)],
    "multiply": [lambda x, y: y, lambda x, y: x],
    "divide": [lambda x, y: 1 / y, lambda x, y: -x / y / y],
    "negative": [lambda x: -one(x)],
    "exp": [np.exp],
    "log": [lambda x: 1 / x],
    "sqrt": [lambda x: 1 / (2 * np.sqrt(x))],
    "sin": [np.cos],
    "cos": [lambda x: -np.sin(x)],
    "tanh": [lambda x: 1 / np.cosh(x) ** 2],
    "sigmoid": [logistic],
    "abs": [np.sign],
    "sign": [np.zeros_like],
    "relu": [lambda x: 1.0 * (x > 0)],
    "maximum": [lambda x, y: 1.0 * (x >= y), lambda x, y: 1.0 * (x < y)],
    "minimum": [lambda x, y: 1.0 * (x <= y), lambda x, y: 1.0 * (x > y)],
    "clip": [lambda x, y: 1.0 * (x >= y), lambda x, y: 1.0 * (x < y)],  # the second is the lower limit
    "power": [slope, growth],
    "matmul": [lambda x, y: y, lambda x, y: x],  # of 1 x 1 matrices
    "einsum": [lambda x, y: y, lambda x, y: x],  # elementwise
    "where": [one, lambda x, y: np.zeros_like(y)],
}
AS_ELEMENTWISE: dict[str, Function] = {
    "einsum": lambda x, y: tg.einsum("i,i->i", x, y),
    "matmul": lambda x, y: tg.matmul(tg.reshape(x, -1, 1, 1), tg.reshape(y, -1, 1, 1))[:, 0, 0],
    "where": lambda x, y: tg.where(np.ones(COUNT, bool), x, y),
}
NUMBERS: dict[str, tuple[Function, Callable[[Array], Array]]] = {  # with a number in the place of an argument
    "x / 3": (lambda x: x / 3.0, lambda x: one(x) / 3),
    "3 / x": (lambda x: 3.0 / x, lambda x: -3 / x / x),
    "x * 3": (lambda x: x * 3.0, lambda x: 3 * one(x)),
    "2 ** x": (lambda x: 2.0**x, lambda x: np.exp2(x) * np.log(np.longdouble(2))),
    **{
        f"x ** {n}": (lambda x, n=n: x**n, lambda x, n=n: slope(x, np.longdouble(n)))
        for n in (-3, -1, 0, 0.5, 1, 2, 3, 9)
    },
}


def check_elementwise(function: Function, slopes: list[Any], dtype: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    xs, g = [numbers(dtype, rng) for _ in slopes], cotangents(dtype, rng)
    with np.errstate(all="ignore"):
        for found, slope in zip(gradients(function, xs, g), slopes, strict=True):
            assert found.dtype == dtype
            check(found, long(g)[0] * slope(*long(*xs)), given=[g, *xs])


@floats
@pytest.mark.parametrize("name", SLOPES)
@some
@given(seeds)
def test_elementwise_ops(name: str, dtype: Any, seed: int) -> None:
    check_elementwise(AS_ELEMENTWISE.get(name, getattr(tg, name)), SLOPES[name], dtype, seed)


@floats
@pytest.mark.parametrize("name", NUMBERS)
@some
@given(seeds)
def test_elementwise_ops_with_a_number(name: str, dtype: Any, seed: int) -> None:
    function, slope = NUMBERS[name]
    check_elementwise(function, [slope], dtype, seed)


CURVATURES: dict[str, tuple[Function, Callable[[Array], Array]]] = {  # the second derivative
    "exp": (tg.exp, np.exp),
    "tanh": (tg.tanh, lambda x: -2 * np.tanh(x) / np.cosh(x) ** 2),
    "sigmoid": (tg.sigmoid, lambda x: -np.tanh(x / 2) * logistic(x)),
    "3 / x": (lambda x: 3.0 / x, lambda x: 6 / x / x / x),
    "x ** 3": (lambda x: x**3, lambda x: 6 * x),
    "x ** -2": (lambda x: x**-2, lambda x: 6 / x / x / x / x),
    "2 ** x": (lambda x: 2.0**x, lambda x: np.exp2(x) * np.log(np.longdouble(2)) ** 2),
}


@floats
@pytest.mark.parametrize("name", CURVATURES)
@some
@given(seeds)
def test_second_derivatives(name: str, dtype: Any, seed: int) -> None:
    """In half precision the product of both cotangents may overflow or underflow where the result does not."""
    function, curvature = CURVATURES[name]
    rng = np.random.default_rng(seed)
    x, g, h = numbers(dtype, rng), cotangents(dtype, rng), cotangents(dtype, rng)
    x = np.where(np.abs(x) < 2 * np.finfo(dtype).tiny, dtype(0.5), x)  # of sigmoid: x / 2 is rounded there
    with np.errstate(all="ignore"):
        leaf = Tensor(x, requires_grad=True)
        (first,) = tg.grad(function(leaf), [leaf], create_graph=True, gradient=g)
        (found,) = tg.grad(first, [leaf], gradient=h)
        check(found.data, long(g)[0] * long(h)[0] * curvature(*long(x)), ulps=2 * ULPS, given=[g, h, x])


# Sums -----------------------------------------------------------------------------------------------------------------
def positive(dtype: Any, rng: np.random.Generator, shape: Any) -> Array:
    return np.abs(numbers(dtype, rng, int(np.prod(shape)))).reshape(shape)


BROADCAST: dict[str, list[Callable[..., Array]]] = {  # the derivatives of a scale, whose terms have one sign
    name: SLOPES[name] for name in ("add", "subtract", "multiply", "divide")
}


@floats
@pytest.mark.parametrize("name", BROADCAST)
@some
@given(seeds)
def test_sums_over_what_was_broadcast(name: str, dtype: Any, seed: int) -> None:
    """All terms are of one sign, so nothing cancels; many of them overflow or underflow where the sum does not."""
    rng = np.random.default_rng(seed)
    column, rows, g = positive(dtype, rng, (64, 1)), positive(dtype, rng, (64, 12)), cotangents(dtype, rng, (64, 12))
    rows[:, 1:6], g = rows[:, :1], np.abs(g)  # some terms are of similar magnitude
    for position, xs in enumerate(([column, rows], [rows, column])):
        with np.errstate(all="ignore"):
            found = gradients(getattr(tg, name), xs, g)[position]
            terms = long(g)[0] * BROADCAST[name][position](*long(*xs))
            check(found, terms.sum(axis=1, keepdims=True), ulps=16)


def test_sums_of_many_halves() -> None:
    """Sums in half precision would stop at 2,048 or overflow."""
    ones, g = np.ones((4096, 2), np.float16), np.float16(0.25)
    assert tg.sum(ones, 0).data.tolist() == tg.sum_to(ones, (2,)).data.tolist() == [4096, 4096]
    assert gradients(tg.add, [ones, np.ones(2, np.float16)], np.full_like(ones, g))[1].tolist() == [1024, 1024]
    index = np.zeros(4096, int)
    assert gradients(lambda x: x[index], [np.ones(2, np.float16)], ones[:, 0])[0].tolist() == [4096, 0]
    narrow = np.full((1, 1, 1, 4100), 0.25, np.float16)
    assert gradients(lambda x: tg.im2col(x, (1, 4000)), [narrow], np.ones((101, 4000), np.float16))[0].max() == 101
    assert tg.matmul(ones[:, 0], ones[:, 1]).item() == 4096


@pytest.mark.parametrize("count", [65_504, 70_000])
def test_means_of_many_halves(count: int) -> None:
    x, g = np.full(count, 0.5, np.float16), np.array(1000, np.float16)
    assert tg.mean(x).item() == 0.5
    check(gradients(tg.mean, [x], g)[0], long(np.full(count, 1000))[0] / count, ulps=1)
    image = np.full((1, 1, 1, count), 0.5, np.float16)
    pooled = gradients(lambda x: tg.avg_pool2d(x, (1, count)), [image], g.reshape(1, 1, 1, 1))[0]
    check(pooled.ravel(), long(np.full(count, 1000))[0] / count, ulps=1)


# Products and spread --------------------------------------------------------------------------------------------------
ROWS: dict[str, tuple[Function, Callable[[Array], Array]]] = {  # each row to a number, and the derivatives
    "prod": (
        lambda x: tg.prod(x, 1, keepdims=True),
        lambda x: np.stack([np.prod(np.delete(x, i, axis=1), axis=1) for i in range(x.shape[1])], axis=1),
    ),
    "var": (lambda x: tg.var(x, 1, keepdims=True), lambda x: (x - x.mean(1, keepdims=True)) * 2 / x.shape[1]),
    "std": (
        lambda x: tg.std(x, 1, keepdims=True),
        lambda x: (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True) / x.shape[1],
    ),
}


@floats
@pytest.mark.parametrize("name", ROWS)
@some
@given(seeds)
def test_products_and_spread_of_rows(name: str, dtype: Any, seed: int) -> None:
    """Products, sums and squares overflow and underflow on the way."""
    rng = np.random.default_rng(seed)
    x, g = numbers(dtype, rng, 5 * 64).reshape(64, 5), cotangents(dtype, rng, (64, 1))
    function, derivatives = ROWS[name]
    with np.errstate(all="ignore"):
        (found,) = gradients(function, [x], g)
        true = g * derivatives(*long(x))
        if name != "prod":  # what is near the mean has a distance with the rounding error of the mean: it cancels
            (wide,) = long(x)
            far = np.abs(wide - wide.mean(axis=1, keepdims=True)) > np.max(np.abs(x), axis=1, keepdims=True) / 8
            found, true = found[far], true[far]
        check(found, true, ulps=2 * ULPS)


# Softmax and its relations --------------------------------------------------------------------------------------------
def weights(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def pull(g: Array, x: Array, of_log: bool) -> Array:
    """Return the gradient of (log-)softmax as a sum over pairs, in which nothing cancels for a one-hot ``g``."""
    p = weights(x)
    pairs = g[:, :, None] * p[:, None, :] - g[:, None, :] * p[:, :, None]
    return pairs.sum(-1) if of_log else p * ((g[:, :, None] - g[:, None, :]) * p[:, None, :]).sum(-1)


SOFT: dict[str, tuple[Function, Callable[[Array, Array], Array]]] = {
    "logsumexp": (lambda x: tg.logsumexp(x, -1, keepdims=True), lambda g, x: g.sum(-1, keepdims=True) * weights(x)),
    "softmax": (tg.softmax, lambda g, x: pull(g, x, of_log=False)),
    "log_softmax": (tg.log_softmax, lambda g, x: pull(g, x, of_log=True)),
    "cross_entropy": (
        lambda x: tg.cross_entropy(x, np.arange(len(x)) % x.shape[1]),
        lambda g, x: pull(g * np.eye(x.shape[1])[np.arange(len(x)) % x.shape[1]], x, of_log=True) / -len(x),
    ),
}


@floats
@pytest.mark.parametrize("name", SOFT)
@some
@given(seeds, st.integers(2, 40))
def test_softmax_and_its_relations(name: str, dtype: Any, seed: int, classes: int) -> None:
    """Gradients of one output, also of the class that outweighs all others, whose probability rounds to 1."""
    rng = np.random.default_rng(seed)
    function, gradient = SOFT[name]
    spread = 2.0 ** rng.integers(-3, 11, (16, 1)) * rng.choice([-1, 1])
    x = np.round(rng.uniform(-1, 1, (16, classes)) * spread * 8) / 8 + np.round(rng.uniform(-300, 300, (16, 1)))
    x = np.trunc(x * 8).astype(dtype) / dtype(8)  # so that the shift by the maximum is exact
    g = cotangents(dtype, rng, (16, 1)) * np.eye(classes, dtype=dtype)[rng.integers(0, classes, 16)]
    if name in ("logsumexp", "cross_entropy"):
        g = g.sum(axis=1, keepdims=True) if name == "logsumexp" else g.sum(dtype=dtype)
    with np.errstate(all="ignore"):
        (found,) = gradients(function, [x], g)
        true = np.broadcast_to(gradient(*long(g, x)), x.shape)
        check(found, true, ulps=16 + classes)  # the class that outweighs all others adds up their subnormal roundings


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_softmax_of_many_halves(name: str) -> None:
    x = np.random.default_rng(0).uniform(0, 1, 70_000).astype(np.float16)
    out, wide = getattr(tg, name)(x), getattr(tg, name)(x.astype(np.float64))
    assert out.dtype == np.float16
    check(out.data, wide.data, ulps=1)
    g = np.asarray(cotangents(np.float16, np.random.default_rng(0), out.shape))
    found, true = (gradients(getattr(tg, name), [v], g.astype(v.dtype))[0] for v in (x, x.astype(np.float64)))
    check(found, true, ulps=4)


# Ops that move, select or compare -------------------------------------------------------------------------------------
MOVING: dict[
    str, Function
] = {  # of an array of shape (6, 6): every entry of the gradient is one of the cotangent's, or 0
    "array_split": lambda x: tg.array_split(x, 4, 1)[0],
    "astype": lambda x: tg.astype(x, np.longdouble),
    "broadcast_to": lambda x: tg.broadcast_to(x, (1, 6, 6)),
    "col2im": lambda x: tg.col2im(x, (1, 1, 4, 9), (2, 3), (2, 3)),
    "concatenate": lambda x: tg.concatenate([x, x[:0]]),
    "diag": tg.diag,
    "diagonal": lambda x: tg.diagonal(x, 1),
    "dropout": lambda x: tg.dropout(x, 0.4, rng=np.random.default_rng(0), rescale="test"),
    "expand_dims": lambda x: tg.expand_dims(x, 1),
    "flatten": tg.flatten,
    "flip": tg.flip,
    "getitem": lambda x: x[[3, 1, 0]],
    "im2col": lambda x: tg.im2col(tg.reshape(x, 1, 1, 6, 6), 2, 2),
    "max": lambda x: tg.max(x, 1),
    "median": lambda x: tg.median(x[:5], 0),
    "max_pool2d": lambda x: tg.max_pool2d(tg.reshape(x, 1, 1, 6, 6), 2),
    "min": lambda x: tg.min(x, 0),
    "moveaxis": lambda x: tg.moveaxis(x, 0, 1),
    "pad": lambda x: tg.pad(x, 1),
    "ravel": tg.ravel,
    "reshape": lambda x: tg.reshape(x, 4, 9),
    "roll": lambda x: tg.roll(x, 1),
    "sort": lambda x: tg.sort(x, 0),
    "split": lambda x: tg.split(x, 2)[1],
    "squeeze": lambda x: tg.squeeze(tg.expand_dims(x, 0)),
    "stack": lambda x: tg.stack([x, x.detach()]),
    "sum": lambda x: tg.sum(x, 1),
    "trace": lambda x: tg.trace(x, 1),
    "swapaxes": lambda x: tg.swapaxes(x, 0, 1),
    "take": lambda x: tg.take(x, [3, 1, 0], 1),
    "take_along_axis": lambda x: tg.take_along_axis(x, [[3, 1, 0]] * 6),
    "topk": lambda x: tg.topk(x, 3, 0)[0],
    "transpose": lambda x: tg.transpose(x),
    "tril": tg.tril,
    "triu": tg.triu,
}
SUMMING = {"avg_pool2d", "conv2d", "mean", "repeat", "sum_to", "tile"}  # above, and conv2d among the kernels
SUMMING |= {"binary_cross_entropy_with_logits", "kl_div", "nll_loss"}  # in test_losses.py
SUMMING |= {"huber_loss", "l1_loss", "mse_loss"}  # in test_regression.py
SUMMING |= {"adaptive_avg_pool2d", "conv1d", "conv_transpose2d", "global_avg_pool"}  # by the same rules
SUMMING |= {"dot", "outer", "tensordot"}  # compositions of matmul, multiply and einsum
SUMMING |= {"cumprod", "cumsum", "prod", "std", "var"}  # below, in rows, and in test_statistics.py
SUMMING |= {"batch_norm", "group_norm", "layer_norm"}  # in test_normalization.py
STEPS = {name for name in ops.__all__ if not any(getattr(getattr(tg, name), "rules", [True]))}  # without a gradient
STEPS |= {"ceil", "floor", "floor_divide", "one_hot", "round"}  # or with one that is 0
CANCELLING = {"gelu", "hardswish", "mish", "silu"}  # sums that cancel at a zero: in test_activations.py


@floats
@pytest.mark.parametrize("name", MOVING)
def test_what_is_moved_or_selected_is_exact(name: str, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = numbers(dtype, rng, 36).reshape(6, 6)
    shape = MOVING[name](Tensor(x)).shape
    g = cotangents(dtype, rng, shape)
    (found,) = gradients(MOVING[name], [x], g)
    assert found.any() and np.isin(found, [*g.ravel(), 0]).all()


def check_by_precision(name: str, function: Function, arrays: int | None) -> None:
    """Compare the rules of an elementwise op with the same rules in extended precision."""
    rng = np.random.default_rng(0)
    xs, g = [numbers(np.float32, rng) for _ in range(arrays or 1)], cotangents(np.float32, rng)
    with np.errstate(all="ignore"):
        try:
            found, true = gradients(function, xs, g), gradients(function, long(*xs), long(g)[0])
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            pytest.fail(f"tests/ops/test_range.py: list tg.{name} in MOVING, SUMMING or STEPS: {error}", pytrace=False)
        for pair in zip(found, true, strict=True):
            check(*pair, given=[g, *xs])


def test_ops_that_are_not_listed_here() -> None:
    for name in {*ops.__all__} - {*SLOPES, *SOFT, *MOVING, *SUMMING, *STEPS, *CANCELLING, *creation.__all__}:
        check_by_precision(name, getattr(tg, name), getattr(getattr(tg, name), "arrays", 1))


@pytest.mark.skipif(not EXTENDED, reason="no oracle")
def test_the_comparison_of_precisions_finds_a_wrong_rule() -> None:
    check_by_precision("divide", tg.divide, 2)
    with pytest.raises(AssertionError, match="are wrong"):
        check_by_precision("divide", with_rule(tg.divide, WRONG["the square of y first"][2], 1), 2)
    with pytest.raises(pytest.fail.Exception, match=r"list tg\.sum in MOVING"):
        check_by_precision("sum", tg.sum, 1)


# Wrong rules ----------------------------------------------------------------------------------------------------------
def half(values: Any) -> Tensor:
    return tg.astype(values, np.float16)


WRONG: dict[str, tuple[str, int, Callable[..., Tensor]]] = {  # right for ordinary numbers: op, argument, rule
    "the square of y first": ("divide", 1, lambda right, g, out, x, y: -g * x / (y * y)),
    "the square of y last": ("divide", 1, lambda right, g, out, x, y: -(g * x) / y / y),
    "the reciprocal first": ("divide", 0, lambda right, g, out, x, y: g * (1 / y)),
    "1 minus the square": ("tanh", 0, lambda right, g, out, x: g * (1 - out * out)),
    "cosh squared": ("tanh", 0, lambda right, g, out, x: g / Tensor(np.cosh(x.data) ** 2)),
    "1 minus the output": ("sigmoid", 0, lambda right, g, out, x: g * out * (1 - out)),
    "times the output": ("exp", 0, lambda right, g, out, x: g * out),
    "the square of the root": ("sqrt", 0, lambda right, g, out, x: g * out / (2 * x)),
    "the reciprocal": ("log", 0, lambda right, g, out, x: g * (1 / x)),
    "the power below": ("power", 0, lambda right, g, out, x, y: g * y * x ** (y - 1)),
    "the output over x": ("power", 0, lambda right, g, out, x, y: g * y * out / x),
    "times the logarithm": ("power", 1, lambda right, g, out, x, y: g * out * tg.log(x)),
    "by the sum of squares": ("abs", 0, lambda right, g, out, x: g * x / tg.sqrt(x * x)),
    "subnormal numbers are flushed": ("multiply", 0, lambda right, *rest: tg.where(tg.abs(right) < 1e-38, 0, right)),
    "in half precision": ("sin", 0, lambda right, g, *rest: tg.astype(half(right), g.dtype)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_rule_that_is_right_for_ordinary_numbers_alone_is_found(name: str) -> None:
    op, argument, rule = WRONG[name]
    right: Function = getattr(tg, op)
    check_elementwise(right, SLOPES[op], np.float32, seed=0)
    with pytest.raises(AssertionError, match="are wrong"):
        check_elementwise(with_rule(right, rule, argument), SLOPES[op], np.float32, seed=0)
