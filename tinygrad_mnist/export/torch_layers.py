"""How PyTorch holds what a model holds: the name of each Tensor, its layout, and the factor of classic dropout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..nn import (
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Buffer,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Embedding,
    Flatten,
    GroupNorm,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
)
from ..record import no_grad
from ..tensor import Array, Tensor
from ..walk import _below, _children, walk

__all__ = ["Entry", "Reader"]

CONVOLUTIONS = (Conv1d, Conv2d, ConvTranspose2d)
SCALING_LAST = (BatchNorm1d, BatchNorm2d, Embedding, GroupNorm, LayerNorm)  # the output is in proportion to them
KEEPING_FACTORS = (AvgPool2d, Dropout, Flatten, LeakyReLU, MaxPool2d, ReLU)  # f(c * x) = c * f(x) for c > 0


@dataclass
class Entry:
    """A Tensor of a model, and what PyTorch has in its place."""

    name: str  # in PyTorch
    tensor: Tensor
    transposed: bool = False
    factor: float = 1.0  # that classic dropout multiplies by in inference

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in PyTorch."""
        shape = self.tensor.shape
        return shape[::-1] if self.transposed else shape

    def to_torch(self) -> Array:
        """Return a copy of the values, as PyTorch has them."""
        values = self.tensor.data
        if self.transposed:
            values = values.T
        if self.factor != 1:
            values = values * self.factor
        return np.array(values, order="C")

    def from_torch(self, values: Array) -> Array:
        """Return values that PyTorch has as the model has them."""
        if self.factor != 1:
            values = values / self.factor
        return values.T if self.transposed else values


@dataclass
class Step:
    """A layer of a chain."""

    name: str
    layer: Any
    entries: list[Entry]

    @property
    def linear(self) -> bool:
        """Whether the output is a linear map of the input, and a bias."""
        return type(self.layer) in CONVOLUTIONS or maps(self.layer) != ""

    def before(self) -> list[Entry]:
        """List what a factor of the input may go into."""
        return [entry for entry in self.entries if self.linear and entry.tensor is self.layer.weight]

    def behind(self) -> list[Entry]:
        """List what a factor of the output may go into."""
        if not self.linear and type(self.layer) not in SCALING_LAST:
            return []
        return [entry for entry in self.entries if not isinstance(entry.tensor, Buffer)]


@dataclass
class Reader:
    """Reads a model into entries, in the order of its attributes; a Tensor in several places has several."""

    caller: str  # for errors
    fold_dropout: bool
    entries: list[Entry] = field(default_factory=list)
    around: list[int] = field(default_factory=list)  # ids of the objects that hold the present one

    def read(self, value: Any, name: str) -> None:
        """Add the Tensors of an object, under its name in PyTorch."""
        if isinstance(value, Tensor):
            if value.op is None:
                self.entries.append(Entry(name, value))
            return
        if id(value) in self.around:
            return
        self.around.append(id(value))
        layers = chain(value)
        if layers is not None:
            steps: list[Step] = []
            self.read_chain(layers, name, steps)
            self.fold(steps)
        elif self.fold_dropout and is_classic(value):
            raise ValueError(self.problem(name, value))
        else:
            for part, child in _children(value):
                self.read(child, _below(name, part))
            if isinstance(value, Linear):
                self.transpose(value, name)
        self.around.pop()

    def read_chain(self, layers: Sequence[Any], name: str, steps: list[Step]) -> None:
        """Read layers that are applied in turn; an nn.Flatten counts that PyTorch needs before a Linear."""
        shift = 0
        for index, layer in enumerate(layers):
            inner = chain(layer)
            if inner is not None:
                self.read_chain(inner, _below(name, index + shift), steps)
                continue
            if maps(layer) == "flattened" and not any(is_flat(step.layer) for step in steps):
                shift += 1
            place = _below(name, index + shift)
            first = len(self.entries)
            if not is_classic(layer):
                self.read(layer, place)
            steps.append(Step(place, layer, self.entries[first:]))

    def transpose(self, layer: Linear, name: str) -> None:
        """Turn the weight of a Linear, (in, out), into PyTorch's, (out, in)."""
        if layer.weight.ndim != 2:
            raise ValueError(
                f"{self.caller}: {_below(name, 'weight')} of a Linear has shape {layer.weight.shape}, and PyTorch's "
                "has two axes; export a model with the weights of one Linear"
            )
        for entry in self.entries:
            if entry.tensor is layer.weight and entry.name == _below(name, "weight"):
                entry.transposed = True

    def fold(self, steps: Sequence[Step]) -> None:
        """Find a weight for the factor of each classic dropout: behind it if possible, else before it."""
        for index, step in enumerate(steps):
            if not self.fold_dropout or not is_classic(step.layer):
                continue
            following = next_other(steps[index + 1 :])
            preceding = next_other(reversed(steps[:index]))
            takers = following.before() if following else []
            if not takers and preceding:
                takers = preceding.behind()
            if not takers or step.layer.p == 1:
                raise ValueError(self.problem(step.name, step.layer))
            for entry in takers:
                entry.factor *= 1 - step.layer.p

    def problem(self, name: str, layer: Dropout) -> str:
        """Say that the factor of a dropout cannot go into weights."""
        factor = f"{1 - layer.p:g}"
        return (
            f"{self.caller}: {name}, {layer!r}, multiplies by {factor} in inference, and no weights are known to take "
            f"that factor; pass fold_dropout=False, and multiply by {factor} behind nn.Dropout in PyTorch, always"
        )


def chain(value: Any) -> Sequence[Any] | None:
    """Return the `layers` of an object that holds weights nowhere else, such as a Sequential; else None."""
    layers = getattr(value, "layers", None)
    if isinstance(layers, Sequential):
        layers = layers.layers
    if not isinstance(layers, (list, tuple)) or isinstance(value, (type, Tensor)):
        return None
    others = [part for name, part in _children(value) if name != "layers"]
    elsewhere = any(isinstance(part, Tensor) for _, part in walk(others))
    return None if elsewhere else layers


def is_classic(layer: Any) -> bool:
    """Whether a layer multiplies in inference, so that nn.Dropout is another function."""
    return isinstance(layer, Dropout) and layer.rescale == "test" and layer.p > 0


def is_flat(layer: Any) -> bool:
    """Whether what a layer returns has been flattened by it."""
    return isinstance(layer, Flatten) or maps(layer) == "flattened"


def next_other(steps: Iterable[Step]) -> Step | None:
    """Return the first step that may change a factor of its input."""
    return next((step for step in steps if type(step.layer) not in KEEPING_FACTORS), None)


def maps(layer: Any) -> str:
    """Say what a Linear, or a kind of it, maps linearly: the "last axis", or each example "flattened"; else "".

    A class derived from Linear is tried out, with weights that do not depend on what it has learned.
    """
    if not isinstance(layer, Linear) or layer.weight.ndim != 2:
        return ""
    if type(layer).__call__ is Linear.__call__:
        return "last axis"
    features, outputs = layer.weight.shape
    x = Tensor(np.cos(np.arange(2.0 * features)).reshape(2, 1, features))
    with no_grad(), suppress(Exception):  # it may be made for inputs of another kind
        tried = copy(layer)
        tried.weight = Tensor(np.sin(np.arange(1.0, layer.weight.size + 1)).reshape(features, outputs))
        if layer.bias is not None:
            tried.bias = Tensor(np.sin(np.arange(1.0, outputs + 1)))
        found = tried(x).data
        expected = Linear.__call__(tried, x).data
        for axes, wanted in (("last axis", expected), ("flattened", expected[:, 0])):
            if found.shape == wanted.shape and np.allclose(found, wanted, rtol=0, atol=1e-6):
                return axes
    return ""
