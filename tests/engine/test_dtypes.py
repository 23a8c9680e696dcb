"""Integers carry no gradient, however they came about; numbers never change a dtype, in whichever op and position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import some

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor

FLOATS = st.sampled_from([np.float16, np.float32, np.float64])
X = np.linspace(0.5, 1.5, 16).reshape(4, 4)


# Integers -------------------------------------------------------------------------------------------------------------
@tg.primitive
def counted(x: Any) -> Any:
    """Return integers, by a rule that would pass a gradient."""
    return np.ceil(x).astype(np.int64)


@tg.primitive
def marked(x: Any) -> Any:
    return x > 1


counted.defvjp(lambda g, out, x: g)
marked.defvjp(lambda g, out, x: g)

TO_INTEGERS: dict[str, Callable[[Tensor], Tensor]] = {
    "astype(int)": lambda x: x.astype(int),
    "astype(bool)": lambda x: x.astype(bool),
    "astype(uint8)": lambda x: tg.astype(x, np.uint8),
    "users": counted,
    "mask": marked,
    "comparison": lambda x: x > 1,
    "argmax": lambda x: x.argmax(axis=0),
    "any": lambda x: x.any(axis=0),
    "positions": lambda x: x.astype(np.int64)[[0, 0]].reshape(-1).sum(),
    "remainder": lambda x: x.astype(int) % 2 + x.astype(int) // 2,
}


@pytest.mark.parametrize("name", TO_INTEGERS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_no_float_requires_no_gradient(name: str, dtype: Any) -> None:
    x = Tensor(X.astype(dtype), requires_grad=True)
    whole = TO_INTEGERS[name](x)
    assert whole.dtype.kind in "biu" and not whole.requires_grad and whole.op is None and whole.inputs == ()
    back = whole.astype(dtype)
    assert not back.requires_grad
    with pytest.raises(RuntimeError, match="integers, which carry none"):
        tg.grad(back.sum(), [x])
    with pytest.raises(RuntimeError, match="requires a gradient"):
        back.sum().backward()
    constant = np.array(back.data)
    assert np.array_equal(tg.grad((x.sum() * back).sum(), [x])[0].data, np.full(X.shape, constant.sum(), dtype))


@given(FLOATS, FLOATS)
def test_other_floats_pass_the_gradient(start: Any, between: Any) -> None:
    x = Tensor([0.7, 2.6], requires_grad=True).astype(start)
    (g,) = tg.grad((x.astype(between) * np.array([2, 3], between)).sum(), [x])
    assert g.dtype == start and g.data.tolist() == [2.0, 3.0]


@pytest.mark.parametrize("dtype", [complex, object, str, "M8[s]", "V8"])
def test_only_real_numbers_are_results_of_a_conversion(dtype: Any) -> None:
    x = Tensor([0.7, 2.6], requires_grad=True)
    for tensor in (x, x.detach()):
        with pytest.raises((TypeError, ValueError), match="astype"):
            tensor.astype(dtype)


# Numbers --------------------------------------------------------------------------------------------------------------
def in_place(x: Tensor, s: Any) -> Tensor:
    x = +x
    x += s
    x *= s
    x -= s
    x /= s
    x **= s
    x %= s
    x //= s
    return x


OPS: dict[str, Callable[[Tensor, Any], Any]] = {
    "sums": lambda x, s: x + s - (s - x) - (s + x),
    "products": lambda x, s: x * s / (s * x) * (s / x),
    "powers": lambda x, s: x**s + s**x,
    "whole": lambda x, s: x // s + s // x + x % s + s % x + round(x * s) - +x,
    "divmod": lambda x, s: divmod(x, s)[0] + divmod(s, x)[1],
    "in place": in_place,
    "choices": lambda x, s: tg.maximum(x, s) + tg.maximum(s, x) - tg.minimum(s, x) - tg.minimum(x, s),
    "where": lambda x, s: tg.where(X > 1, x, s) + tg.where(X > 1, s, x),
    "clip": lambda x, s: x.clip(0, s) + tg.clip(x, s, 9) + tg.clip(x, np.float64(0), s),
    "pad": lambda x, s: tg.pad(x, 1, s),
    "stack": lambda x, s: tg.stack([x[0, 0], s, 1.0]) + tg.stack([s, 2, x.mean()]),
    "0-d": lambda x, s: (x.sum() * s + s ** x.mean()) * tg.where(True, x[0, 0], s) + tg.maximum(s, x[1, 1]),
    "losses": lambda x, s: tg.softmax(x * s) - tg.log_softmax(s - x) * tg.logsumexp(x + s),
    "cross entropy": lambda x, s: tg.cross_entropy(x * s, [1, 2, 3, 0]) * s,
    "functions": lambda x, s: tg.exp(x - s) + tg.tanh(x * s) + tg.sigmoid(s * x) + tg.relu(s - x) + abs(x - s),
    "dropout": lambda x, s: tg.dropout(x, s / 4, np.random.default_rng(0)) + tg.dropout(x, s / 4, rescale="test"),
    "matmul": lambda x, s: (x * s) @ (s + x),
    "images": lambda x, s: tg.avg_pool2d(x.reshape(1, 1, 4, 4) * s, np.int64(2)) + s,
}
SCALARS: list[Any] = [2, 0.5, True]
SCALARS += [kind(2) for kind in (np.float16, np.float32, np.float64, np.longdouble, np.int8, np.int64, np.uint8)]
SCALARS += [np.bool_(True), np.array(2.0), np.array(2), np.array(True), np.array(2, np.longdouble)]


@pytest.mark.parametrize("name", OPS)
@some
@given(FLOATS, st.sampled_from(SCALARS))
def test_numbers_change_no_dtype(name: str, dtype: Any, scalar: Any) -> None:
    x = Tensor(X.astype(dtype), requires_grad=True)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # halves are small
        y = OPS[name](x, scalar)
        assert y.dtype == dtype
        if y.requires_grad:
            assert tg.grad(y.sum(), [x])[0].dtype == dtype


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_tensor_of_one_value_counts_as_an_array(dtype: Any) -> None:
    """As documented in `Tensor`: NumPy's rules for arrays."""
    x = Tensor(X.astype(dtype))
    assert (x * Tensor(2.0)).dtype == (Tensor(2.0) * x).dtype == np.float64
    assert (x * Tensor(2.0).astype(dtype)).dtype == dtype


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.int64, np.int8, np.float32]), FLOATS)
def test_soft_targets_keep_their_fractions(seed: int, dtype: Any, target_dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    logits, target = rng.integers(-3, 4, (3, 4)).astype(dtype), rng.dirichlet(np.ones(4), 3).astype(target_dtype)
    scores = logits.astype(np.float64)
    expected = -(target * (scores - np.log(np.exp(scores).sum(1, keepdims=True)))).sum() / 3
    found = tg.cross_entropy(logits, target)
    assert found.dtype == (np.float32 if dtype is np.float32 else np.float64)
    np.testing.assert_allclose(found.data, expected, rtol=1e-5)
