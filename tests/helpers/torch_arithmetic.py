"""PyTorch's modules in NumPy, written from its documentation: each takes its part of a state dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = Any
Module = Callable[[Array, Mapping[str, Array], Any], Array]


def linear(x: Array, state: Mapping[str, Array], rng: Any = None) -> Array:
    y = x @ state["weight"].T
    return y + state["bias"] if "bias" in state else y


def conv2d(x: Array, state: Mapping[str, Array], rng: Any = None) -> Array:
    weight = state["weight"]
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    return np.einsum("nchwij,fcij->nfhw", windows, weight) + state["bias"][:, None, None]


def max_pool2d(x: Array, state: Mapping[str, Array], rng: Any = None) -> Array:
    n, c, h, w = x.shape
    return x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


def batch_norm(x: Array, state: Mapping[str, Array], rng: Any = None) -> Array:
    """In inference alone."""
    assert rng is None and state["num_batches_tracked"].dtype == np.int64 and not state["num_batches_tracked"].shape
    shape = (-1,) + (1,) * (x.ndim - 2)
    weight, bias, mean, variance = (
        state[name].reshape(shape) for name in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias


def layer_norm(x: Array, state: Mapping[str, Array], rng: Any = None) -> Array:
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * state["weight"] + state["bias"]


def dropout(p: float) -> Module:
    """With a generator: training; the elements to drop are those that `tg.dropout` draws."""

    def apply(x: Array, state: Mapping[str, Array], rng: Any = None) -> Array:
        return x if rng is None else x * (rng.random(x.shape, dtype=np.float32) >= p) / (1 - p)

    return apply


def without_state(function: Callable[[Array], Array]) -> Module:
    return lambda x, state, rng=None: function(x)


flatten = without_state(lambda x: x.reshape(len(x), -1))
relu = without_state(lambda x: np.maximum(x, 0))
tanh = without_state(np.tanh)


def sequential(modules: Sequence[Module]) -> Module:
    """An nn.Sequential, given its state dict with ``strict=True``: every value must belong to one of its modules."""

    def apply(x: Array, state: Mapping[str, Array], rng: Any = None) -> Array:
        parts: dict[int, dict[str, Array]] = {index: {} for index in range(len(modules))}
        for name, array in state.items():
            index, _, rest = name.partition(".")
            parts[int(index)][rest] = array
        for module, part in zip(modules, parts.values(), strict=True):
            assert part.keys() <= USED.get(module, part.keys()), f"unexpected: {part.keys()}"
            x = module(x, part, rng)
        return x

    return apply


# Names of the values of a module; nothing is known about modules that are not listed.
USED: dict[Module, set[str]] = {
    linear: {"weight", "bias"},
    conv2d: {"weight", "bias"},
    layer_norm: {"weight", "bias"},
    batch_norm: {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"},
    flatten: set(),
    relu: set(),
    tanh: set(),
    max_pool2d: set(),
}
