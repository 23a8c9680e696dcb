"""Recurrences and products of all other elements agree with loops, also where products leave the range of floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import kernels
from tinygrad_mnist.kernels.recurrence import BLOCK, SHORT

dtypes = st.sampled_from([np.float16, np.float32, np.float64])


def by_loop(b: Any, a: Any, reverse: bool) -> Any:
    """Solve in double precision, element by element."""
    terms, factors = b.astype(np.float64), a.astype(np.float64)
    out = terms.copy()
    for i in range(1, b.shape[-1]):
        if reverse:
            out[..., -1 - i] += factors[..., -i] * out[..., -i]
        else:
            out[..., i] += factors[..., i] * out[..., i - 1]
    return out


@given(
    st.sampled_from([(0,), (1,), (2,), (3, 5), (0, 3), (2, SHORT - 1), (SHORT,), (2, SHORT + 7), (3, 1, 200)]),
    dtypes,
    st.booleans(),
    st.sampled_from([1, 1e-3, 1e3, 1e-30]),
    st.integers(0, 2**32 - 1),
)
def test_recurrences(shape: Any, dtype: Any, reverse: bool, scale: float, seed: int) -> None:
    """Factors of small and large magnitude make products of blocks underflow and overflow."""
    rng = np.random.default_rng(seed)
    b, a = rng.normal(size=shape).astype(dtype), (scale * rng.normal(size=shape)).astype(dtype)
    a[rng.random(shape) < 0.1] = 0
    b[rng.random(shape) < 0.5] = 0
    with np.errstate(over="ignore", invalid="ignore"):
        expected, terms = by_loop(b, a, reverse), by_loop(np.abs(b), np.abs(a), reverse)
        found = kernels.recurrence(b.T.copy().T, a, reverse)
    assert found.dtype == dtype and found.shape == shape
    representable = terms < np.finfo(dtype).max / 2
    tolerance = {np.float16: 1e-3, np.float32: 1e-6, np.float64: 1e-13}[dtype]
    errors = np.abs(found.astype(np.float64) - expected)[representable]
    assert (errors <= tolerance * terms[representable] + np.finfo(dtype).smallest_subnormal).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_what_a_product_of_factors_cannot_hold_does_not_matter(reverse: bool) -> None:
    """1e-200 twice in a row underflows, and with 1e300 before them does not; the first factor is not read."""
    factors, terms = np.ones(400), np.zeros(400)
    factors[[150, 151, 250, 251]] = [1e200, 1e200, 1e-200, 1e-200] if reverse else [1e-200, 1e-200, 1e200, 1e200]
    factors[0], terms[-1 if reverse else 0] = np.nan, 1e300
    found = kernels.recurrence(terms, factors, reverse)
    np.testing.assert_allclose(found[:150], 1e300, rtol=1e-14)
    np.testing.assert_allclose(found[151:250], 1e-100, rtol=1e-14)
    np.testing.assert_allclose(found[251:], 1e300, rtol=1e-14)


def others_by_loop(g: Any, x: Any) -> Any:
    parts = [np.prod(np.delete(x, i, axis=-1), axis=-1, keepdims=True) for i in range(x.shape[-1])]
    return g * np.concatenate(parts, axis=-1) if parts else x


@given(
    st.sampled_from([(0,), (1,), (2,), (5,), (3, 4), (0, 3), (2, 2, 3)]),
    dtypes,
    st.sampled_from([0, 1, 2, 5]),
    st.integers(0, 2**32 - 1),
)
def test_the_product_of_others(shape: Any, dtype: Any, zeros: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=shape).astype(dtype), rng.normal(size=(*shape[:-1], 1)).astype(dtype)
    x[..., rng.permutation(shape[-1])[:zeros]] = 0
    found = kernels.product_of_others(g, x)
    assert found.dtype == dtype and found.shape == shape
    tolerance = {np.float16: 2e-3, np.float32: 1e-5, np.float64: 1e-13}[dtype]
    expected = others_by_loop(g.astype(np.float64), x.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-6 if dtype == np.float16 else 1e-30)


def test_products_that_overflow_on_the_way() -> None:
    """Powers of 2, so that the results are exact: 700 elements in a row overflow, 700 more bring them back."""
    exponents = np.repeat([3, -3], 3 * BLOCK)
    x = np.stack([np.ldexp(1.0, exponents), np.ldexp(1.0, -exponents)])
    found = kernels.product_of_others(np.array([[3.0], [5.0]]), x)
    np.testing.assert_array_equal(found, np.array([[3.0], [5.0]]) / x)
    x[0, 5], x[1, 5] = 0, np.inf
    found = kernels.product_of_others(np.ones((2, 1)), x)
    assert found[0, 5] == 1 / 8 and not np.delete(found[0], 5).any()
    assert found[1, 5] == 8 and np.isinf(np.delete(found[1], 5)).all()
