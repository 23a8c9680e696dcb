"""Layers as plain callables, initialisation, and finding a model's parameters by walking it.

A layer or a model is any object with ``__call__(x, rng=None)``: no base class, no train/eval switch. Passing a
generator *is* training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .conv import Pair, _pair, _pooling, conv2d, max_pool2d
from .functional import cross_entropy, dropout
from .ops import matmul, relu, reshape
from .storage.validation import parameter_mismatches
from .tensor import Array, Operand, Tensor, as_tensor

__all__ = [
    "Conv2d",
    "Dropout",
    "Flatten",
    "Linear",
    "MaxPool2d",
    "ReLU",
    "Sequential",
    "SoftmaxCrossEntropy",
    "initial_weights",
    "load_parameters",
    "parameters",
]

Layer: TypeAlias = Callable[..., Tensor]
GAIN = {"he": 2.0, "xavier": 1.0}  # variance of a weight, times the fan-in


def initial_weights(
    shape: Sequence[int],
    fan_in: int,
    init: str = "he",
    rng: np.random.Generator | None = None,
    dtype: npt.DTypeLike = np.float32,
) -> Tensor:
    """Normally distributed weights of mean 0 that keep the variance of activations from layer to layer.

    Parameters
    ----------
    shape : sequence of int
    fan_in : int
        How many inputs one output is a sum over.
    init : {"he", "xavier"}
        Standard deviation sqrt(2 / fan_in), for ReLU (He et al., 2015), or sqrt(1 / fan_in) (Glorot and Bengio, 2010).
    rng : numpy.random.Generator, optional
        Left out: different weights every time.

    Examples
    --------
    >>> initial_weights((10, 5), fan_in=10, rng=np.random.default_rng(0)).shape
    (10, 5)
    """
    if init not in GAIN:
        raise ValueError(f"init is {init!r}; it must be one of {', '.join(map(repr, GAIN))}")
    draws = np.random.default_rng(rng).standard_normal(shape)
    return Tensor((draws * np.sqrt(GAIN[init] / fan_in)).astype(dtype), requires_grad=True)


class Conv2d:
    """Convolution with learned `weight` (out_channels, in_channels, KH, KW) and `bias` (out_channels,).

    See `conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        *,
        rng: np.random.Generator | None = None,
        init: str = "he",
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        kh, kw = _pair("Conv2d", "kernel_size", kernel_size, 1)
        self.weight = initial_weights((out_channels, in_channels, kh, kw), in_channels * kh * kw, init, rng, dtype)
        self.bias = Tensor(np.zeros(out_channels, dtype), requires_grad=True)
        self.stride, self.padding = stride, padding
        (
            _pair("Conv2d", "stride", stride, 1),
            _pair("Conv2d", "padding", padding, 0),
        )  # complain now, not in the first training step

    def __call__(self, x: Operand, rng: np.random.Generator | None = None, *, activation: str | None = None) -> Tensor:
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, activation=activation)

    def __repr__(self) -> str:
        f, c, kh, kw = self.weight.shape
        return f"Conv2d({c}, {f}, {kh}x{kw}, stride={self.stride}, padding={self.padding})"


class Linear:
    """Affine map ``x @ weight + bias`` with learned `weight` (in_features, out_features) and `bias` (out_features,)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rng: np.random.Generator | None = None,
        init: str = "he",
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.weight = initial_weights((in_features, out_features), in_features, init, rng, dtype)
        self.bias = Tensor(np.zeros(out_features, dtype), requires_grad=True)

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return matmul(x, self.weight) + self.bias

    def __repr__(self) -> str:
        return "{}({}, {})".format(type(self).__name__, *self.weight.shape)


class ReLU:
    """``max(x, 0)``, elementwise."""

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return relu(x)

    def __repr__(self) -> str:
        return "ReLU()"


class MaxPool2d:
    """Maximum of every window: see `max_pool2d`."""

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        _pooling("MaxPool2d", kernel_size, stride, padding)

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def __repr__(self) -> str:
        return f"MaxPool2d({self.kernel_size}, stride={self.stride}, padding={self.padding})"


class Flatten:
    """(N, …) -> (N, all the rest)."""

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        x = as_tensor(x)
        return reshape(x, x.shape[0], int(np.prod(x.shape[1:])))

    def __repr__(self) -> str:
        return "Flatten()"


class Dropout:
    """Drop elements with probability `p` when a generator is given: see `dropout` for `rescale`."""

    def __init__(self, p: float = 0.5, rescale: str = "train") -> None:
        self.p, self.rescale = p, rescale
        dropout(0.0, p, None, rescale)  # complain about wrong settings now, not in the first training step

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return dropout(x, self.p, rng, self.rescale)

    def __repr__(self) -> str:
        return f"Dropout({self.p}, rescale={self.rescale!r})"


class SoftmaxCrossEntropy:
    """Softmax with loss: mean cross-entropy of logits (N, K) and targets, indices (N,) or one-hot (N, K)."""

    def __call__(self, logits: Operand, target: Operand) -> Tensor:
        return cross_entropy(logits, target)

    def __repr__(self) -> str:
        return "SoftmaxCrossEntropy()"


class Sequential:
    """Layers applied one after the other, each with the generator.

    A max-pool that follows a ReLU is computed before it: the values and gradients are the same to the bit, and it is
    less work. A ReLU that follows a convolution is computed with it, in the same pass over memory.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> model = Sequential(Linear(4, 8, rng=rng), ReLU(), Linear(8, 2, rng=rng))
    >>> model(np.ones((3, 4), np.float32)).shape
    (3, 2)
    >>> list(parameters(model))
    ['layers.0.weight', 'layers.0.bias', 'layers.2.weight', 'layers.2.bias']
    """

    def __init__(self, *layers: Layer) -> None:
        self.layers = list(layers)

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        x = as_tensor(x)
        for layer in _merged(self.layers):
            x = layer(x, rng)
        return x

    def __repr__(self) -> str:
        return "Sequential({})".format(", ".join(map(repr, self.layers)))


def _merged(layers: Sequence[Layer]) -> list[Layer]:
    """Exchange each ReLU with a max-pool behind it (a quarter of the work), and compute what remain behind a
    convolution with it.
    """
    order, merged = list(layers), list[Layer]()
    for i, pair in enumerate(pairwise(layers)):
        if type(pair[0]) is ReLU and type(pair[1]) is MaxPool2d:
            order[i : i + 2] = pair[::-1]
    for layer in order:
        if type(layer) is ReLU and merged and type(merged[-1]) is Conv2d:
            merged[-1] = partial(merged[-1], activation="relu")
        else:
            merged.append(layer)
    return merged


def parameters(model: Any) -> dict[str, Tensor]:
    """Find the Tensors of a model that require gradients, by walking its attributes, lists, tuples and dicts.

    Parameters
    ----------
    model : object
        A layer or any object that holds layers.

    Returns
    -------
    dict of str to Tensor
        By path, such as ``"layers.0.weight"``, in the order in which attributes were set. A Tensor that is used in
        several places is listed once, under its first path.

    Examples
    --------
    >>> {name: p.shape for name, p in parameters(Linear(3, 2)).items()}
    {'weight': (3, 2), 'bias': (2,)}
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    waiting = [("", model)]
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen:
            continue
        if isinstance(value, Tensor):
            seen.add(id(value))
            if value.requires_grad and value.op is None:
                if path in found:
                    raise ValueError(
                        f"parameters: two different parameters are both called {path}; rename an attribute or a key"
                    )
                found[path] = value
        elif children := list(_children(value)):
            seen.add(id(value))
            waiting += [(f"{path}.{name}" if path else str(name), child) for name, child in reversed(children)]
    return found


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif isinstance(value, dict):
        yield from value.items()
    elif not isinstance(value, (type, ModuleType, np.ndarray, np.generic)):
        for kind in reversed(type(value).__mro__):
            slots = kind.__dict__.get("__slots__", ())
            yield from (
                (name, getattr(value, name))
                for name in ([slots] if isinstance(slots, str) else slots)
                if hasattr(value, name)
            )
        yield from getattr(value, "__dict__", {}).items()


def load_parameters(model: Any, mapping: Mapping[str, Operand]) -> None:
    """Set the parameters of `model` to the values of `mapping`, floats converted to each parameter's dtype; all of them
    or none.

    Raises
    ------
    ValueError
        Listing every name that is missing or unknown, every shape that differs and what is no array of floats; the
        model is then unchanged.
    """
    wanted = parameters(model)
    arrays: dict[str, Array] = {name: as_tensor(value).data for name, value in mapping.items()}
    found = {
        name: (a.shape, wanted[name].dtype if name in wanted and a.dtype.kind == "f" else a.dtype)
        for name, a in arrays.items()
    }
    if wrong := parameter_mismatches({name: (p.shape, p.dtype) for name, p in wanted.items()}, found):
        raise ValueError("load_parameters: the weights do not fit the model: " + "; ".join(wrong))
    for name, parameter in wanted.items():  # in the same order in memory: the last bits of products may depend on it
        parameter.data = np.positive(arrays[name], out=np.empty_like(parameter.data))
