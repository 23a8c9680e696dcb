"""The same seed gives the same bits here, and the same numbers, to rounding, everywhere."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist.train import Trainer

# The losses of `trained`, and the sum of absolute values of each weight after it. PyTorch 2.13, given the same weights,
# order and dropout masks in float64, has the same losses to 3e-16.
LOSSES = [
    2.418059254903357,
    2.195889207724335,
    2.264520820150464,
    2.558528345833048,
    2.330058672463884,
    2.230362597347901,
    2.260921516668972,
    2.198726180661237,
]
WEIGHTS = {
    "layers.0.weight": 46.72875642790644,
    "layers.2.weight": 218.5612184810517,
    "layers.5.weight": 428.2086207908768,
    "layers.7.weight": 613.4230411934766,
    "layers.10.weight": 1209.9614285387454,
    "layers.12.weight": 1735.604351981379,
    "layers.15.weight": 908.0373275717993,
    "layers.18.weight": 74.34817793457604,
}


def trained(
    threads: int | None = None, dtype: Any = np.float64, shard_size: int = 3
) -> tuple[list[float], dict[str, Any]]:
    """Eight steps of the 21-layer network on noise: integers drawn by NumPy's generator, the same on every machine."""
    rng = np.random.default_rng(2022)
    images, labels = rng.integers(0, 256, (32, 28, 28), np.uint8), rng.integers(0, 10, 32, np.uint8)
    model = DeepConvNet(rng=np.random.default_rng(1), dtype=dtype)
    optimizer = tg.optim.AdaGrad(tg.nn.parameters(model), lr=0.003)
    trainer = Trainer(
        model,
        optimizer,
        images,
        labels,
        epochs=2,
        batch_size=8,
        rng=np.random.default_rng(2),
        shard_size=shard_size,
        threads=threads,
    )
    losses = [step.loss for step in trainer.steps()]
    return losses, {name: p.data for name, p in trainer.weights.items()}


def test_the_golden_trajectory() -> None:
    losses, weights = trained()
    np.testing.assert_allclose(losses, LOSSES, rtol=1e-11)
    for name, total in WEIGHTS.items():
        np.testing.assert_allclose(np.abs(weights[name]).sum(), total, rtol=1e-10)


def test_float32_follows_it_at_first() -> None:
    losses, _ = trained(dtype=np.float32)
    np.testing.assert_allclose(losses[:3], LOSSES[:3], rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_decide_no_bit(dtype: Any) -> None:
    losses, weights = trained(1, dtype)
    for threads in (2, 3, 4):
        again, same = trained(threads, dtype)
        assert again == losses and all(np.array_equal(weights[name], same[name]) for name in weights)


@given(st.lists(st.floats(0, 0.01), min_size=4, max_size=9), st.integers(1, 5), st.integers(1, 5), st.randoms())
def test_the_order_in_which_shards_end_decides_no_bit(
    delays: list[float], shard_size: int, threads: int, rnd: random.Random
) -> None:
    w = tg.Tensor(np.float32(0.3), requires_grad=True)
    x = np.random.default_rng(0).standard_normal(len(delays)).astype(np.float32)

    def loss(x: Any, rng: np.random.Generator, late: bool = True) -> tg.Tensor:
        if late:
            time.sleep(rnd.choice(delays))
        return (tg.exp(x * w) * rng.random(dtype=np.float32)).mean()

    def punctual(x: Any, rng: np.random.Generator) -> tg.Tensor:
        return loss(x, rng, late=False)

    found = [
        tg.parallel.value_and_grad(f, {"w": w}, x, rng=np.random.default_rng(1), shard_size=shard_size, threads=count)
        for f, count in ((punctual, 1), (loss, threads))
    ]
    assert found[0][0] == found[1][0] and found[0][1]["w"].tobytes() == found[1][1]["w"].tobytes()
