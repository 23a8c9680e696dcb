"""PyTorch, trained by a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from .base import ITERATIONS, NEWTON_SCHULZ, Array


class PyTorchLearner:
    """Muon for weights and AdamW for biases; label smoothing, and averages of the weights.

    `torch.optim.Muon` takes matrices alone, not the filters of a convolution. AdamW is called as a function, because
    an object of `torch.optim.AdamW` imports the compiler of PyTorch, which takes as long as all other imports.
    """

    def __init__(
        self, model: Any, weights: list[Array], settings: Mapping[str, Any], channels_last: bool, reduced: bool
    ) -> None:
        import torch
        from torch.optim.adamw import adamw

        self.torch, self.settings, self.reduced = torch, settings, reduced
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(memory_format=self.format)
        with torch.no_grad():
            for parameter, array in zip(model.parameters(), weights, strict=True):
                parameter.copy_(torch.from_numpy(array.T if array.ndim == 2 else array))
        model[0].requires_grad_(False)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.matrices = [p for p in self.trained if p.ndim > 1]
        self.means = [torch.zeros_like(p) for p in self.matrices]
        self.averages = [p.detach().clone() for p in self.trained]
        self.biases = [p for p in self.trained if p.ndim == 1]
        self.first, self.second = [torch.zeros_like(p) for p in self.biases], [torch.zeros_like(p) for p in self.biases]
        self.counts = [torch.tensor(0.0) for _ in self.biases]
        decay, (beta1, beta2) = settings["weight_decay"], settings["betas"]
        kind = {"fused": True, "amsgrad": False, "maximize": False}
        self.adamw = partial(adamw, beta1=beta1, beta2=beta2, eps=1e-8, weight_decay=decay, **kind)

    def forward(self, images: Array) -> Any:
        x = self.torch.from_numpy(images).unsqueeze(1).float() / 255
        with self.torch.autocast("cpu", self.torch.bfloat16, enabled=self.reduced):
            return self.model(x.contiguous(memory_format=self.format))

    def step(self, images: Array, labels: Array, lr: float, fresh: float) -> float:
        loss = self.torch.nn.functional.cross_entropy(
            self.forward(images).float(),
            self.torch.from_numpy(labels),
            label_smoothing=self.settings["label_smoothing"],
        )
        loss.backward()
        with self.torch.no_grad():
            self.muon_step(lr)
            self.adamw_step(lr)
            self.torch._foreach_lerp_(self.averages, self.trained, fresh)
        self.model.zero_grad()
        return float(loss.item())

    def muon_step(self, lr: float) -> None:
        grads, share = [p.grad for p in self.matrices], 1 - self.settings["momentum"]
        self.torch._foreach_lerp_(self.means, grads, share)
        ahead = self.torch._foreach_lerp(self.means, grads, share)
        self.torch._foreach_mul_(self.matrices, 1 - lr * self.settings["weight_decay"])
        for parameter, mean in zip(self.matrices, ahead, strict=True):
            update = self.orthogonal(mean.flatten(1))
            parameter.add_(update.view(parameter.shape), alpha=-0.2 * lr * math.sqrt(max(update.shape)))

    def adamw_step(self, lr: float) -> None:
        grads = [p.grad for p in self.biases]
        self.adamw(self.biases, grads, self.first, self.second, max_exp_avg_sqs=[], state_steps=self.counts, lr=lr)

    def orthogonal(self, x: Any) -> Any:
        """Orthogonalize a wide matrix by Newton-Schulz iterations of the small square matrix x @ x.T."""
        a, b, c = NEWTON_SCHULZ
        x = x / x.norm().clamp(min=1e-30)
        gram, product = x @ x.T, self.torch.eye(len(x))
        diagonal = a * product
        for left in reversed(range(ITERATIONS)):
            factor = self.torch.addmm(gram, gram, gram, beta=b, alpha=c).add_(diagonal)
            product = factor @ product
            gram = factor @ gram @ factor if left else gram
        return product @ x

    def take_average(self) -> None:
        with self.torch.no_grad():
            self.torch._foreach_copy_(self.trained, self.averages)

    def logits(self, images: Array) -> Array:
        with self.torch.inference_mode():
            return self.forward(images).float().numpy()
