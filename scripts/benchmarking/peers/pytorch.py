"""PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from .base import CHAIN_LENGTH, CLASSES, CONVOLUTIONS, EPS, HIDDEN, RATE, Array, Peer
from .pytorch_learner import PyTorchLearner


class PyTorch(Peer):
    package, by_recipe = "torch", True
    channels_last = False

    def __init__(self, threads: int, seed: int) -> None:
        import torch
        from torch import nn

        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        self.body = nn.Sequential(*hidden_layers(), nn.Dropout(0.5))
        self.head, self.drop = nn.Linear(HIDDEN, CLASSES), nn.Dropout(0.5)
        self.model = nn.ModuleList([self.body, self.head, self.drop])
        for layer in self.model.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.torch, self.optimizer = torch, torch.optim.Adagrad(self.model.parameters(), lr=RATE, eps=EPS)

    def forward(self, images: Array) -> Any:
        x = self.torch.from_numpy(images).unsqueeze(1).float() / 255
        if self.channels_last:
            x = x.contiguous(memory_format=self.torch.channels_last)
        return self.drop(self.head(self.body(x) / 2)) / 2

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the forward pass runs."""
        return contextlib.nullcontext()

    def step(self, images: Array, labels: Array) -> float:
        self.model.train()
        self.optimizer.zero_grad()
        with self.precision():
            loss = self.torch.nn.functional.cross_entropy(self.forward(images), self.torch.from_numpy(labels))
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    def predict(self, images: Array) -> Array:
        self.model.eval()
        with self.torch.inference_mode(), self.precision():
            return self.forward(images).argmax(dim=1).numpy()

    def chain(self) -> None:
        x, c = self.torch.ones(10, requires_grad=True), self.torch.ones(10)
        y = x
        for _ in range(CHAIN_LENGTH // 2):
            y = y * c + c
        y.sum().backward()

    @classmethod
    def learner(cls, weights: list[Array], settings: Mapping[str, Any], threads: int) -> PyTorchLearner:
        import torch

        torch.set_num_threads(threads)
        model = torch.nn.Sequential(*hidden_layers(), torch.nn.Linear(HIDDEN, CLASSES))
        return PyTorchLearner(model, weights, settings, cls.channels_last, cls.reduced)


class PyTorchChannelsLast(PyTorch):
    channels_last = True
    eager = imported = False  # as PyTorch


class PyTorchBfloat16(PyTorchChannelsLast):
    """Mixed precision: convolutions and matrix products in bfloat16, which has 8 bits of precision instead of 24."""

    reduced = True

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        return self.torch.autocast("cpu", self.torch.bfloat16)


def hidden_layers() -> list[Any]:
    """Return the layers up to the hidden units, without dropout."""
    from torch import nn

    layers: list[Any] = []
    channels = 1
    for number, (filters, padding) in enumerate(CONVOLUTIONS):
        layers += [nn.Conv2d(channels, filters, 3, padding=padding), nn.ReLU(inplace=True)]
        channels = filters
        if number % 2:
            layers.append(nn.MaxPool2d(2))
    return [*layers, nn.Flatten(), nn.Linear(channels * 4, HIDDEN), nn.ReLU(inplace=True)]
