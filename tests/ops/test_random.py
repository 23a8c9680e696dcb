"""Dropout: what it keeps, scales and refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from op_checks import Array, dtypes, orders, seeds
from planted import normal, plants

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import (
    arrays,
    check_gradients,
)

probabilities = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])


@given(
    arrays(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3), dtypes, low=0.5),
    probabilities,
    st.sampled_from(["train", "test"]),
    orders,
    seeds,
)
def test_dropout_keeps_or_drops_whole_values(x: Array, p: float, rescale: str, order: int, seed: int) -> None:
    def drop(x: Any) -> Tensor:
        return tg.dropout(x, p, np.random.default_rng(seed), rescale)

    out, inference = drop(x), tg.dropout(x, np.float64(p), rescale=rescale)
    factor, kept, eps = 1 / (1 - p) if rescale == "train" and p < 1 else 1.0, out.data != 0, np.finfo(x.dtype).eps
    assert out.dtype == inference.dtype == x.dtype
    np.testing.assert_allclose(out.data, np.where(kept, x * factor, 0), rtol=4 * eps)
    np.testing.assert_allclose(inference.data, x * (1 - p) if rescale == "test" else x, rtol=4 * eps)
    assert kept.all() if p == 0 else not kept.any() if p == 1 else True
    assert np.array_equal(drop(x.astype(np.float64)).data != 0, kept)  # the generator decides, nothing else
    check_gradients(drop, x, order=order, rng=seed)
    check_gradients(lambda x: tg.dropout(x, p, None, rescale) * 1, x, rng=seed)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("rescale", ["train", "test"])
def test_dropout_keeps_the_right_share_and_the_mean(p: float, rescale: str) -> None:
    size, rng = 100_000, np.random.default_rng(7)
    x = np.ones(size)
    first, second = tg.dropout(x, p, rng, rescale).data, tg.dropout(x, p, rng, rescale).data
    bound = 5 * np.sqrt(p * (1 - p) / size)  # five standard deviations
    assert abs((first == 0).mean() - p) <= bound
    assert 0 < p < 1 or np.array_equal(first, second)
    assert p in (0, 1) or abs(((first == 0) & (second == 0)).mean() - p * p) <= 5 * np.sqrt(
        p * p * (1 - p * p) / size
    )  # drawn anew
    if p < 1:
        assert abs(first.mean() - tg.dropout(x, p, rescale=rescale).data.mean()) <= bound / (
            1 - p
        )  # training and inference agree


def test_dropout_without_a_generator_draws_nothing() -> None:
    state = np.random.get_state()[1].tolist()  # the legacy generator's words
    assert tg.dropout(np.ones(5), 0.5).data.tolist() == [1.0] * 5
    assert np.random.get_state()[1].tolist() == state


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_dropout_refuses_what_is_no_probability(p: float, rng: Any) -> None:
    with pytest.raises(ValueError, match=r"dropout: p is .* of at least 0 and at most 1"):
        tg.dropout(np.ones(3), p, rng)


def test_dropout_knows_two_ways_to_rescale() -> None:
    with pytest.raises(ValueError, match=r"rescale is 'never'.*train.*test"):
        tg.dropout(np.ones(3), 0.5, rescale="never")


# Planted errors -------------------------------------------------------------------------------------------------------
def dropping(x: Tensor) -> Tensor:
    return tg.dropout(x, 0.4, rng=np.random.default_rng(5))


plants("dropout: without the scale", dropping, normal((8,)))(lambda right, *rest: right * 0.6)
plants("dropout: not masked", dropping, normal((8,)), kind="choice")(lambda right, g, *rest: g / 0.6)


@plants("dropout: another mask", dropping, normal((8,)), kind="choice")
def _(right, g, *rest):
    return tg.dropout(g, 0.4, rng=np.random.default_rng(6))
