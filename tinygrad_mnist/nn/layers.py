"""Layers as plain callables.

A layer or a model is any object with ``__call__(x, rng=None)``: no base class, no train/eval switch. Passing a
generator *is* training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..ops import cross_entropy, dropout, matmul, relu, reshape
from ..record import as_tensor
from ..tensor import Operand, Tensor
from ..validation import check_call, integer, real
from .convolution import MaxPool2d
from .initialization import initial_weights

__all__ = [
    "Dropout",
    "Embedding",
    "Flatten",
    "Linear",
    "ReLU",
    "Sequential",
    "SoftmaxCrossEntropy",
]

Layer: TypeAlias = Callable[..., Tensor]


class Linear:
    """Affine map ``x @ weight + bias`` with learned `weight` (in_features, out_features) and `bias` (out_features,).

    With ``bias=False`` there is none, as before a normalization, which would take it away. See `initial_weights` for
    `init`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: np.random.Generator | None = None,
        init: str = "he",
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        sizes = integer("Linear", "in_features", in_features, 1), integer("Linear", "out_features", out_features, 1)
        self.weight = initial_weights(sizes, sizes[0], init, rng, dtype)
        self.bias: Any = Tensor(np.zeros(sizes[1], dtype), requires_grad=True) if bias else None

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        out = matmul(x, self.weight)
        return out if self.bias is None else out + self.bias

    def __repr__(self) -> str:
        sizes = "{}, {}".format(*self.weight.shape)
        return f"{type(self).__name__}({sizes}{'' if self.bias is not None else ', bias=False'})"


class Embedding:
    """Look up rows of a learned `weight` (num_embeddings, embedding_dim): indices (…) -> (…, embedding_dim).

    Rows that occur several times get the sum of their gradients. The weight is drawn from a normal distribution with
    mean 0 and variance 1, as in PyTorch.

    Raises
    ------
    TypeError
        If indices are no integers.
    ValueError
        If an index is negative or too large.

    Examples
    --------
    >>> words = Embedding(10, 4, rng=np.random.default_rng(0))
    >>> words([[1, 2, 1]]).shape
    (1, 3, 4)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        given = {"num_embeddings": num_embeddings, "embedding_dim": embedding_dim}
        shape = [integer("Embedding", name, value, 1) for name, value in given.items()]
        self.weight = Tensor(np.random.default_rng(rng).standard_normal(shape).astype(dtype), requires_grad=True)

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        x, count = as_tensor(x), len(self.weight)
        indices = x.data
        if indices.size and indices.dtype.kind not in "iu":
            raise TypeError(f"Embedding: indices are {indices.dtype}; they must be integers")
        wrong = indices[(indices < 0) | (indices >= count)]
        if wrong.size:
            raise ValueError(f"Embedding: index {wrong[0]} is out of range; there are rows 0 to {count - 1}")
        return self.weight[x if indices.dtype == np.intp else x.astype(np.intp)]

    def __repr__(self) -> str:
        return "Embedding({}, {})".format(*self.weight.shape)


class ReLU:
    """``max(x, 0)``, elementwise."""

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return relu(x)

    def __repr__(self) -> str:
        return "ReLU()"


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
        self.p, self.rescale = real("Dropout", "p", p, least=0, most=1), rescale
        dropout(0.0, p, None, rescale)  # refuses a wrong setting here, not in the first training step

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return dropout(x, self.p, rng, self.rescale)

    def __repr__(self) -> str:
        return f"Dropout({self.p}, rescale={self.rescale!r})"


class SoftmaxCrossEntropy:
    """Softmax with loss: mean cross-entropy of logits (N, K) and targets, indices (N,) or one-hot (N, K).

    See `cross_entropy`.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = real("SoftmaxCrossEntropy", "label_smoothing", label_smoothing, least=0, most=1)

    def __call__(self, logits: Operand, target: Operand) -> Tensor:
        return cross_entropy(logits, target, self.label_smoothing)

    def __repr__(self) -> str:
        return f"SoftmaxCrossEntropy({f'label_smoothing={self.label_smoothing}' if self.label_smoothing else ''})"


class Sequential:
    """Layers applied one after the other, each called ``layer(x, rng)``: a function must take the generator, too.

    A max-pool that follows a ReLU is computed before it: the values and gradients are the same to the bit, and ReLU has
    a quarter of the work.

    Examples
    --------
    >>> import numpy as np, tinygrad_mnist as tg
    >>> rng = np.random.default_rng(0)
    >>> model = Sequential(Linear(4, 8, rng=rng), ReLU(), Linear(8, 2, rng=rng))
    >>> model(np.ones((3, 4), np.float32)).shape
    (3, 2)
    >>> list(tg.nn.parameters(model))
    ['layers.0.weight', 'layers.0.bias', 'layers.2.weight', 'layers.2.bias']
    """

    def __init__(self, *layers: Layer) -> None:
        for i, layer in enumerate(layers):
            words = "; pass a layer such as tg.nn.ReLU(), or a function such as lambda x, rng=None: tg.relu(x)"
            check_call("Sequential", f"layers[{i}]", layer, "x", "rng", remedy=words)
        self.layers = list(layers)

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        x = as_tensor(x)
        for layer in _pool_first(self.layers):
            x = layer(x, rng)
        return x

    def __repr__(self) -> str:
        return "Sequential({})".format(", ".join(map(repr, self.layers)))


def _pool_first(layers: Sequence[Layer]) -> list[Layer]:
    """Exchange each ReLU with a max-pool behind it."""
    order = list(layers)
    for i, (first, second) in enumerate(pairwise(layers)):
        if type(first) is ReLU and type(second) is MaxPool2d:
            order[i : i + 2] = second, first
    return order
