"""What a backward pass is given and keeps: views as cotangents, one Tensor in several places, a graph used twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, seeds, some

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor

IMAGES = np.random.default_rng(0).normal(size=(2, 2, 6, 6)).astype(np.float32)
KERNEL = np.random.default_rng(1).normal(size=(3, 2, 3, 3)).astype(np.float32)

OPS: dict[str, Callable[[Tensor], Tensor]] = {
    "arithmetic": lambda x: x * x / (x * x + 1) - x,
    "exp": tg.exp,
    "relu": tg.relu,
    "clip": lambda x: x.clip(-0.5, 0.5),
    "max": lambda x: x.max(axis=(2, 3), keepdims=True),
    "sum": lambda x: x.sum(axis=1),
    "mean": lambda x: x.mean(axis=[0, 2]),
    "reshape": lambda x: x.transpose(3, 0, 2, 1).reshape(4, -1),
    "getitem": lambda x: x[:, [0, 0, 1], ::-2],
    "pad": lambda x: tg.pad(x, 1),
    "stack": lambda x: tg.stack([x, x], axis=1),
    "matmul": lambda x: x @ x,
    "softmax": lambda x: x.softmax(axis=1),
    "conv2d": lambda x: tg.conv2d(x, KERNEL, padding=1),
    "conv2d by the weight": lambda x: tg.conv2d(IMAGES, x[:1, :, :3, :3]),
    "max_pool2d": lambda x: tg.max_pool2d(x, 2),
    "avg_pool2d": lambda x: tg.avg_pool2d(x, 3),
    "im2col": lambda x: tg.im2col(x, 2),
}


def views(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Array]:
    """Return arrays of a shape that lie in memory in every way that NumPy knows."""
    dense = rng.normal(size=shape).astype(np.float32)
    wide = rng.normal(size=[2 * n for n in shape]).astype(np.float32)
    read_only = dense.copy()
    read_only.flags.writeable = False
    return {
        "number": np.broadcast_to(np.float32(1.5), shape),
        "rows": np.broadcast_to(dense[:1], shape),
        "reversed": dense[tuple([slice(None, None, -1)] * len(shape))],
        "transposed": np.ascontiguousarray(dense.T).T,
        "every other": wide[tuple([slice(None, None, 2)] * len(shape))],
        "backwards, every other": wide[tuple([slice(None, None, -2)] * len(shape))],
        "read-only": read_only,
    }


@pytest.mark.parametrize("name", OPS)
@some
@given(seeds)
def test_a_cotangent_may_lie_in_memory_as_it_likes(name: str, seed: int) -> None:
    x = Tensor(IMAGES, requires_grad=True)
    out = OPS[name](x)
    for kind, g in views(out.shape, np.random.default_rng(seed)).items():
        before = g.copy()
        found, right = (tg.grad(out, [x], gradient=gradient)[0].data for gradient in (g, np.array(g, order="C")))
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5, err_msg=kind)
        assert found.flags.writeable and not np.shares_memory(found, g), kind
        np.testing.assert_array_equal(g, before)


@pytest.mark.parametrize("name", OPS)
def test_a_retained_graph_gives_the_same_again(name: str) -> None:
    x = Tensor(IMAGES, requires_grad=True)
    out = OPS[name](x)
    g = np.random.default_rng(2).normal(size=out.shape).astype(np.float32)
    once = tg.grad(out, [x], gradient=g)[0].data
    out.backward(g, retain_graph=True)
    first = x.grad
    out.backward(g)
    np.testing.assert_array_equal(first.data, once)
    np.testing.assert_array_equal(x.grad.data, once + once)
    assert not np.shares_memory(first.data, x.grad.data)


BINARY: dict[str, Callable[[Any, Any], Tensor]] = {
    "add": tg.add,
    "subtract": tg.subtract,
    "multiply": tg.multiply,
    "divide": tg.divide,
    "power": lambda x, y: tg.power(x * x + 0.5, y),
    "maximum": tg.maximum,
    "where": lambda x, y: tg.where(IMAGES[0, 0] > 0, x, y),
    "remainder": lambda x, y: tg.remainder(x, y * y + 1),
    "matmul": tg.matmul,
    "concatenate": lambda x, y: tg.concatenate([x, y, x]),
    "stack": lambda x, y: tg.stack([x, y, x]),
    "outer": lambda x, y: x[:, None] * y[None],
}


@pytest.mark.parametrize("name", BINARY)
@given(seed=seeds)
@some
def test_one_tensor_in_both_places_gets_both_gradients(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(6, 6))
    x, first, second = (Tensor(values, requires_grad=True) for _ in range(3))
    both, apart = BINARY[name](x, x), BINARY[name](first, second)
    g = rng.normal(size=both.shape)
    (found,) = tg.grad(both, [x], gradient=g)
    parts = tg.grad(apart, [first, second], gradient=g)
    np.testing.assert_allclose(found.data, parts[0].data + parts[1].data, rtol=1e-12, atol=1e-12)
    both.backward(g)
    np.testing.assert_array_equal(x.grad.data, found.data)


@given(st.integers(1, 6))
def test_a_tensor_that_is_its_own_output_gets_its_cotangent(n: int) -> None:
    x, g = Tensor(np.arange(float(n)), requires_grad=True), np.arange(float(n))[::-1]
    for _ in range(2):
        x.backward(g)
    assert x.grad.data.tolist() == (2 * g).tolist() and not np.shares_memory(x.grad.data, g)
