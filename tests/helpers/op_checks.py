"""What the tests of the ops share: strategies, and the comparison with NumPy and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import check_gradients

Array = npt.NDArray[Any]
Function = Callable[..., Any]
Shape = tuple[int, ...]

some = settings(max_examples=max(settings().max_examples // 4, 8))  # for tests that are repeated for every op
many = settings(max_examples=2 * settings().max_examples)  # for strategies that give many kinds of things
seeds = st.integers(0, 2**32 - 1)
orders = st.sampled_from([1, 1, 2])
dtypes = st.sampled_from([np.float32, np.float64])
shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=3) | hnp.array_shapes(max_dims=3, min_side=0, max_side=3)


def agree(function: Function, *values: Array, order: int = 1, seed: int = 0, numpy: Any = np) -> None:
    """Check that ``function(library, *arrays)`` gives the same with ours as with NumPy, and right gradients.

    `numpy` may be a namespace that has what NumPy lacks, too.
    """
    out, expected = function(tg, *map(Tensor, values)), np.asarray(function(numpy, *values))
    assert type(out.data) is np.ndarray and (out.shape, out.dtype) == (expected.shape, expected.dtype)
    tolerance = 1e-12 if out.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(out.data, expected, rtol=tolerance, atol=tolerance)
    check_gradients(lambda *xs: function(tg, *xs), *values, order=order, rng=seed)


def gradients_of_sum(function: Function, *values: Any) -> list[list[float]]:
    """Return the gradients of the sum of the outputs by each argument, as lists."""
    leaves = [Tensor(np.array(v, np.float64), requires_grad=True) for v in values]
    return [g.data.tolist() for g in tg.grad(function(*leaves).sum(), leaves)]
