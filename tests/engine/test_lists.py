"""Nested lists and tuples of Tensors, arrays and numbers: stacked, at every depth, and differentiated."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import some

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import check_gradients

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 2), min_size=1, max_size=3).map(tuple)
dtypes = st.sampled_from([np.float16, np.float32, np.float64])


def build(x: Any, shape: tuple[int, ...], rng: np.random.Generator, top: bool = True) -> Any:
    """Take the elements of `x` apart into lists and tuples, which end in Tensors, arrays or numbers at any depth."""
    kind = rng.integers(6)
    if not shape and kind < 3:
        return float(x.detach().numpy())
    if not top and (not shape or kind == 0):
        return x * 1
    if not top and kind == 1:
        return x.detach().numpy()
    parts = [build(x[i], shape[1:], rng, False) for i in range(shape[0])]
    return tuple(parts) if kind % 2 else parts


def leaves(nest: Any) -> list[Any]:
    return [leaf for part in nest for leaf in leaves(part)] if isinstance(nest, (list, tuple)) else [nest]


@given(shapes, dtypes, seeds, st.booleans())
def test_nests_become_what_numpy_makes_of_their_values(shape: Any, dtype: Any, seed: int, grad: bool) -> None:
    """Numbers among them never change the dtype; only what stands in the nest as a Tensor has a gradient."""
    values = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    x = Tensor(values, requires_grad=grad)
    nest = build(x, shape, np.random.default_rng(seed + 1))
    out = tg.as_tensor(nest)
    recorded = any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves(nest))
    plain = not any(isinstance(leaf, Tensor) for leaf in leaves(nest))
    assert out.dtype == (np.asarray(nest).dtype if plain else dtype) and out.requires_grad == recorded
    assert np.array_equal(out.data.astype(dtype), values)
    if recorded:
        (g,) = tg.grad((out * 3).sum(), [x])
        assert g.dtype == dtype and set(g.data.ravel().tolist()) <= {0.0, 3.0} and (g.data == 3).any()


@some
@given(shapes, seeds)
def test_nests_are_differentiated_to_the_second_order(shape: Any, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=shape)

    def nest(x: Tensor, shape: tuple[int, ...]) -> Any:
        return [nest(x[i], shape[1:]) for i in range(shape[0])] if shape else tg.sin(x)

    check_gradients(lambda x: tg.as_tensor(nest(x, shape)) ** 2, values, order=2)


def test_rotation_by_a_nested_list() -> None:
    points = np.random.default_rng(0).normal(size=(2, 5))

    def rotated(t: Tensor) -> Tensor:
        return tg.as_tensor([[tg.cos(t), -tg.sin(t)], [tg.sin(t), tg.cos(t)]]) @ points

    check_gradients(rotated, np.array(0.7), order=2)
    expected = [[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]] @ points
    np.testing.assert_allclose(rotated(Tensor(0.7)).data, expected, rtol=1e-14)


CALLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "@": lambda a, b: np.ones((2, 2)) * a @ [[a, b], [b, a]],
    "reflected @": lambda a, b: [[a, b], (b, 1.0)] @ (np.ones((2, 2)) * a),
    "+": lambda a, b: a + [a, (b * b)],
    "reflected *": lambda a, b: (a, [b][0], 2.0) * b,
    "where": lambda a, b: tg.where([True, False], [a, b], 0),
    "maximum": lambda a, b: tg.maximum([[a], [b]], [a * b, 0.0]),
    "sum": lambda a, b: tg.sum([[a, b], [a * b, np.float64(1)]], axis=0),
    "reshape": lambda a, b: tg.reshape([a, b, a], (3, 1)) * a,
    "concatenate": lambda a, b: tg.concatenate([[a, b], np.ones(1), (a,)]) * b,
    "stack": lambda a, b: tg.stack([[a, b], [b, 2.0]], axis=1) * a,
    "softmax": lambda a, b: tg.softmax([a, b, a * b]),
    "np.where": lambda a, b: np.where(a > 0, [a, b], 0),
}


@pytest.mark.parametrize("name", CALLS)
def test_ops_take_lists_of_tensors(name: str) -> None:
    check_gradients(CALLS[name], np.array(0.7), np.array(1.3), order=2)
    a, b = (Tensor(np.float32(v), requires_grad=True) for v in (0.7, 1.3))
    if name not in ("@", "reflected @", "concatenate"):  # float64 arrays stand in those
        assert CALLS[name](a, b).dtype == np.float32


def test_ragged_nests_are_refused_with_their_shapes() -> None:
    for grad in (True, False):
        t = Tensor([1.0, 2.0], requires_grad=grad)
        for nest in ([t, [t, t]], [[t[0]], [t[0], 1.0]], [t, 0.0], [t, []]):
            with pytest.raises(ValueError, match=r"cannot stack .* of shapes .* reshape|inhomogeneous|none"):
                tg.as_tensor(nest)
            with pytest.raises(ValueError, match=r"multiply\("):
                _ = t * nest
        for nest in ([t, "a"], [t, None], [[t], [1j]]):
            with pytest.raises((TypeError, ValueError), match=r"cannot compute with|cannot stack"):
                tg.as_tensor(nest)


def test_a_new_leaf_is_not_made_of_tensors_with_a_history() -> None:
    t = Tensor(2.0, requires_grad=True)
    for nest in ([t, t], [[1.0], [t]], (t * t,)):
        with pytest.raises(TypeError, match=r"tg\.as_tensor or tg\.stack"):
            Tensor(nest)
    assert Tensor([t.detach(), 1.0]).data.tolist() == [2.0, 1.0]


def test_lists_without_tensors_are_converted_by_numpy() -> None:
    for data in ([1, 2], [[1.0], [2.0]], (True, False), [np.float32(1), 2.0], [], [[np.ones(2)], [np.zeros(2)]], [[]]):
        out, expected = tg.as_tensor(data), np.asarray(data)
        assert out.dtype == expected.dtype and np.array_equal(out.data, expected) and out.op is None


def test_no_references_to_dropped_nests_remain_and_threads_do_not_disturb() -> None:
    t = Tensor(2.0, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            tg.as_tensor([[t, 1.0], [2.0, t]]).sum()
        before = len(gc.get_objects())
        for _ in range(20):
            tg.as_tensor([[t, 1.0], [2.0, t]]).sum()
        assert len(gc.get_objects()) - before < 20
    finally:
        gc.enable()
    results: list[float] = []

    def work() -> None:
        for _ in range(50):
            results.append(tg.as_tensor([t, 1.0]).sum().item() + tg.as_tensor([1.0, 2.0]).sum().item())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [6.0] * 200
