"""Elementwise ops, scores and normalization as ONNX files, with their gradients, over the whole range of numbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx_files import RUNTIMES, outputs, run
from op_checks import Array, seeds

import tinygrad_mnist as tg
from tinygrad_mnist.export.converters import CONVERTERS
from tinygrad_mnist.ops.elementwise import _quotients, _tanh_gradient

ROWS = np.array([1.0, 2.0, 4.0])
OF_ONE: dict[str, Callable[..., Any]] = {
    name: getattr(tg, name)
    for name in (
        "abs ceil cos elu erf exp expm1 floor gelu hardswish leaky_relu log log1p log2 mish negative positive "
        "reciprocal relu round sigmoid sign silu sin softplus sqrt square tanh"
    ).split()
}
OF_ONE |= {
    "binary_cross_entropy": lambda x: tg.binary_cross_entropy_with_logits(x, 0 * x + 0.25, reduction="none"),
    "clip": lambda x: tg.clip(x, -1, 1),
    "float64": lambda x: x.astype(np.float64) * 2,
    "floor_divide": lambda x: x // 0.7,
    "gelu_tanh": lambda x: tg.gelu(x, approximate="tanh"),
    "huber_loss": lambda x: tg.huber_loss(x, 0 * x, reduction="none"),
    "power": lambda x: x**2 + abs(x) ** -1.5,
    "remainder": lambda x: x % 0.7,
    "round_to_1": lambda x: tg.round(x, 1),
    "round_to_10": lambda x: tg.round(x, -1),
    "softplus_2": lambda x: tg.softplus(x, 2.0),
    "two_to": lambda x: 2**x,
    "where": lambda x: tg.where(x > 1, tg.exp(x), -x),
}
OF_TWO = {
    name: getattr(tg, name)
    for name in "add divide floor_divide logaddexp maximum minimum multiply power remainder subtract".split()
}
OF_ROWS: dict[str, Callable[..., Any]] = {
    "batch_norm": lambda x: tg.batch_norm(x, weight=ROWS, bias=ROWS),
    "given_statistics": lambda x: tg.batch_norm(x, ROWS, ROWS, ROWS, ROWS),
    "group_norm": lambda x: tg.group_norm(x, 1, ROWS),
    "kl_div": lambda x: tg.kl_div(tg.log_softmax(x), tg.softmax(-x), reduction="none"),
    "layer_norm": lambda x: tg.layer_norm(x, 3),
    "log_softmax": tg.log_softmax,
    "logsumexp": lambda x: tg.logsumexp(x, 1),
    "logsumexp_of_all": tg.logsumexp,
    "softmax": tg.softmax,
}
LOGARITHMS = {"kl_div", "log_softmax"}  # LogSoftmax of onnx.reference is the logarithm of a softmax that may underflow
ROUGH = {"sigmoid", "binary_cross_entropy"}  # onnxruntime's own Sigmoid and Tanh are right to 1e-7 of 1
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -3.0, 1e-7, -1e-7, 17.5, -17.5, 80.0, -80.0, 95.0, -95.0, 1e4, -1e4, 1e20, -1e20]
SPECIAL += [np.inf, -np.inf, np.nan, 1e-30, 1e-42, 3e38, -3e38]
anywhere = st.sampled_from(SPECIAL) | st.floats(-30, 30, width=32) | st.floats(width=32, allow_subnormal=False)


def gradients(function: Callable[..., Any], xs: Sequence[tg.Tensor], g: Any) -> list[tg.Tensor]:
    return tg.grad(function(*xs), xs, create_graph=True, gradient=g)


def first_gradient(function: Callable[..., Any], position: int, *args: tg.Tensor) -> tg.Tensor:
    return gradients(function, args[:-1], args[-1])[position]


def first(function: Callable[..., Any], *args: tg.Tensor) -> list[tg.Tensor]:
    """The value, and its gradients for the cotangent that is the last argument."""
    *xs, g = args
    return [function(*xs), *gradients(function, xs, g)]


def second(function: Callable[..., Any], *args: tg.Tensor) -> list[tg.Tensor]:
    """The gradients of each first gradient, for the cotangent that is the last argument."""
    *xs, g, h = args
    return [
        part
        for position in range(len(xs))
        for part in gradients(functools.partial(first_gradient, function, position), [*xs, g], h)
    ]


@functools.cache
def exported(function: Callable[..., Any], order: int, dtype: Any, count: int, tail: Any = ()) -> tuple[Any, Any]:
    """A file of values and gradients, traced with a batch of 2, and the function that it was made from."""
    whole = functools.partial({1: first, 2: second}[order], function)
    rng = np.random.default_rng(0)
    shapes = [(2, *tail)] * (count - 1)
    last = function(*(tg.Tensor(np.ones(shape)) for shape in shapes)).shape
    shapes = [*shapes, last] if order == 1 else [*shapes, last, shapes[0]]
    examples = [rng.uniform(0.5, 1.5, shape).astype(dtype) for shape in shapes]
    with np.errstate(all="ignore"):
        return tg.export.to_onnx(whole, *examples, dynamic_batch=last != ()), whole


def compare(
    made: tuple[Any, Any],
    arrays: Sequence[Array],
    rtol: float,
    atol: float,
    rough: float = 0,
    runtimes: Sequence[str] = RUNTIMES,
) -> None:
    model, function = made
    with np.errstate(all="ignore"):
        wanted = outputs(function, arrays)
        for runtime in runtimes:
            allowed = max(atol, rough) if runtime == "onnxruntime" else atol
            for found, right in zip(run(model, arrays, runtime), wanted, strict=True):
                assert (found.shape, found.dtype) == (right.shape, right.dtype)
                np.testing.assert_allclose(found, right, rtol, allowed, err_msg=f"{runtime} {arrays}")


def without_underflow(name: str, far: bool) -> list[str]:
    """The runtimes that are right for scores `far` from each other."""
    return [runtime for runtime in RUNTIMES if not far or name not in LOGARITHMS or runtime == "onnxruntime"]


# Values and gradients of elementwise ops ------------------------------------------------------------------------------
@pytest.mark.parametrize("name", OF_ONE)
def test_functions_of_one_number_and_their_gradients_everywhere(name: str) -> None:
    rng = np.random.default_rng(len(name))
    x = np.concatenate([SPECIAL, rng.normal(size=20) * 3]).astype(np.float32)
    g = rng.choice([1.0, -2.5, 0.0, 1e30, -1e-30], x.size).astype(np.float32)
    made = exported(OF_ONE[name], 1, np.float32, 2)
    compare(made, [x, np.ones_like(x)], 3e-6, 1e-37, 2e-7 if name in ROUGH else 0)
    if name not in ROUGH:
        compare(made, [x, g], 3e-6, 1e-37)


@given(st.sampled_from([*OF_TWO]), st.lists(st.tuples(anywhere, anywhere), min_size=1, max_size=9), seeds)
def test_functions_of_two_numbers_and_their_gradients_everywhere(name: str, drawn: Any, seed: int) -> None:
    x, y = np.array(drawn, np.float32).T.copy()
    g = np.random.default_rng(seed).choice([1.0, -2.5, 0.0], x.size).astype(np.float32)
    compare(exported(OF_TWO[name], 1, np.float32, 3), [x, y, g], 3e-6, 1e-37)


@given(
    st.sampled_from([*OF_ONE, *OF_TWO]),
    hnp.arrays(np.float64, (4, 5), elements=st.floats(-20, 20).filter(lambda v: v == 0 or abs(v) > 1e-3)),
)
def test_second_order_in_double_precision(name: str, drawn: Array) -> None:
    function, count = (OF_ONE[name], 2) if name in OF_ONE else (OF_TWO[name], 3)
    if name in ("power", "log", "sqrt"):
        drawn = np.abs(drawn) / 4 + 0.1
    arrays = [*drawn[: count - 1], *drawn[2:]]
    made = exported(function, 2, np.float64, count)
    with np.errstate(all="ignore"):
        finite = [np.abs(a[np.isfinite(a)]).max(initial=1) for a in outputs(made[1], arrays)]
    size = max(finite)
    compare(made, arrays, 1e-9, 1e-13 * size, 1e-6 * size)


@pytest.mark.parametrize(("to", "others"), [((2, 3), (3,)), ((3,), (2, 3)), ((2, 1), (2, 3)), ((1, 2, 3), (3,))])
def test_products_are_summed_or_repeated_to_a_shape(to: Any, others: Any) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(1, 2, others) for _ in range(3)]
    for n in range(4):

        def function(g: tg.Tensor, x: tg.Tensor, y: tg.Tensor, n: int = n) -> tg.Tensor:
            return _quotients(g, x, y, n=n, shape=to)

        model = tg.export.to_onnx(function, *(a + 1 for a in arrays), dynamic_batch=False)
        compare((model, function), arrays, 1e-12, 0)


# Scores and normalization ---------------------------------------------------------------------------------------------
@given(st.sampled_from([*OF_ROWS]), st.integers(2, 5), st.sampled_from([0.1, 3.0, 300.0]), st.integers(1, 2), seeds)
def test_scores_and_normalization(name: str, rows: int, scale: float, order: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dtype, tolerance = [(np.float32, 1e-5), (np.float64, 1e-10)][seed % 2]
    model, function = exported(OF_ROWS[name], order, dtype, 2, (3,))
    shapes = [[dim.dim_value or rows for dim in part.type.tensor_type.shape.dim] for part in model.graph.input]
    mean = 1000 if name.endswith("norm") else 0
    arrays = [np.asarray(rng.normal(size=shape) * scale + mean * (i == 0), dtype) for i, shape in enumerate(shapes)]
    factors = math.prod(float(np.abs(g).max()) for g in arrays[1:])  # what derivatives that cancel are multiplied by
    size = max(1.0, factors, *(float(np.abs(a).max()) for a in outputs(function, arrays)))
    compare((model, function), arrays, tolerance, tolerance * size, runtimes=without_underflow(name, scale > 3))


def test_a_row_that_one_score_outweighs_or_where_all_are_impossible() -> None:
    inf = np.inf
    x = np.array([[40.0, 0, -3], [0, 0, 0], [-inf, 0, 1], [1e30, 0, -1e30]], np.float32)
    g = np.array([[1.0, 2, 3]] * 4, np.float32)
    for name in ("softmax", "log_softmax"):
        made = exported(OF_ROWS[name], 1, np.float32, 2, (3,))
        compare(made, [x, g], 1e-6, 1e-37, runtimes=without_underflow(name, True))
    impossible = np.array([[-inf, -inf, -inf], [inf, 0, 1], [-inf, 0, inf]], np.float32)
    compare(exported(OF_ROWS["logsumexp"], 1, np.float32, 2, (3,)), [impossible, g[:3, 0]], 1e-6, 1e-37)


# Kinds of numbers -----------------------------------------------------------------------------------------------------
KINDS = "?bBhHiIqQefd"
COMPARED = "equal greater greater_equal less less_equal not_equal logical_and logical_or logical_xor".split()
COUNTED = (
    "add subtract multiply floor_divide remainder maximum minimum bitwise_and bitwise_or bitwise_xor divide".split()
)
ASKED = "isnan isinf isfinite logical_not invert negative positive abs sign floor ceil round reciprocal square".split()


@given(st.sampled_from(KINDS), st.sampled_from(KINDS), st.sampled_from(COMPARED + COUNTED + ASKED), seeds)
def test_dtypes_are_those_of_numpy(one: str, other: str, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, z = (rng.integers(name == "reciprocal", 7, 6).astype(kind) for kind in (one, other, one))
    number = [2, 2.5, True, 300][seed % 4]
    op = getattr(tg, name)
    for function in [op] if name in ASKED else [lambda x: op(x, y), lambda x: op(y, x), lambda x: op(x, number)]:
        try:
            with np.errstate(all="ignore"):
                right = function(tg.Tensor(z)).data
        except (TypeError, OverflowError):
            continue  # NumPy has no such op of these
        if right.dtype == np.longdouble:
            continue
        with np.errstate(all="ignore"):
            (found,) = run(tg.export.to_onnx(function, x, dynamic_batch=False), [z])
        assert (found.dtype, found.shape) == (right.dtype, right.shape)
        np.testing.assert_array_equal(found, right)


def test_numbers_may_depend_on_the_batch_and_the_file_takes_any() -> None:
    def function(x: tg.Tensor) -> Any:
        return (x * len(x) > 3.5) & (x < len(x)), x / len(x) + (x == 1)

    x = np.arange(6, dtype=np.float32)
    model = tg.export.to_onnx(function, x[:2])
    for rows in (1, 3, 6):
        for found, right in zip(run(model, [x[:rows]]), outputs(function, [x[:rows]]), strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-6)


def test_a_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(graph: Any, g: Any, x: Any) -> Any:
        return graph.add("Mul", g, graph.add("Add", graph.add("Neg", graph.add("Tanh", x)), 1.0))

    def saturating(x: tg.Tensor) -> tg.Tensor:
        return tg.tanh(x)

    arrays = [np.linspace(-2, 2, 5, dtype=np.float32), np.ones(5, np.float32)]
    monkeypatch.setitem(CONVERTERS, _tanh_gradient, too_large)
    with pytest.raises(AssertionError, match="Not equal"):
        compare(exported(saturating, 1, np.float32, 2), arrays, 3e-6, 1e-37)
