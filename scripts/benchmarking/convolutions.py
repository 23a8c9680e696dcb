"""One convolution, forward and backward, in several frameworks: output, and gradients of input, weight and bias.

Each framework has its images in the memory order that serves it best, as they are inside a network.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import layered
from .peers import PEERS, ROOT
from .peers.base import Array, Peer


class Case(NamedTuple):
    """Images (N, C, H, W), and a square kernel of so many filters."""

    n: int
    c: int
    h: int
    w: int
    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0

    def __str__(self) -> str:
        step = f"/{self.stride}" if self.stride > 1 else ""
        edge = f" p{self.padding}" if self.padding else ""
        return f"{self.n}×{self.c}×{self.h}×{self.w} → {self.filters}, {self.kernel}×{self.kernel}{step}{edge}"

    def arrays(self) -> list[Array]:
        """Draw input (N, C, H, W), weight (F, C, K, K), bias (F,) and the output's gradient (N, F, OH, OW)."""
        rng = np.random.default_rng(0)
        oh, ow = ((length + 2 * self.padding - self.kernel) // self.stride + 1 for length in (self.h, self.w))
        weight, output = (self.filters, self.c, self.kernel, self.kernel), (self.n, self.filters, oh, ow)
        return [rng.standard_normal(s, np.float32) for s in (self[:4], weight, (self.filters,), output)]

    def exact(self) -> list[Array]:
        """Compute what every framework computes, in float64, by matrix products of one image after another."""
        x, w, b, g = (a.astype(np.float64) for a in self.arrays())
        layer = layered.Convolution(w, b, self.padding, self.stride)
        out, dx, dw, db = np.empty_like(g), np.empty_like(x), np.zeros_like(w), np.zeros_like(b)
        for i in range(self.n):
            image = slice(i, i + 1)
            out[image], dx[image] = layer.forward(x[image], None), layer.backward(g[image])
            dw += layer.dw
            db += layer.db
        return [out, dx, dw, db]


def largest_error(found: Sequence[Array], exact: Sequence[Array]) -> float:
    """Return the largest error of any element, relative to the largest element of its array."""
    return float(np.max([np.max(abs(a - b)) / np.max(abs(b)) for a, b in zip(found, exact, strict=True)]))


class Convolution:
    """The convolution in one framework; created in a process of its own, which is started with `environment`."""

    title = ""  # in tables and pictures
    warm_up, reduced = 1, False  # as of a `Peer`

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return Peer.environment(threads)

    def __init__(self, threads: int, case: Case) -> None:
        raise NotImplementedError

    def __call__(self) -> Sequence[Any]:
        """Compute output, and gradients of input, weight and bias."""
        raise NotImplementedError

    def results(self) -> list[Array]:
        """Return what a call returns as float32 arrays, indexed as in `Case.arrays`."""
        raise NotImplementedError


class OurConvolution(Convolution):
    """As in a plain loop; images in the memory order in which an output comes."""

    title = "ours"

    def __init__(self, threads: int, case: Case) -> None:
        sys.path.insert(0, str(ROOT))
        import tinygrad_mnist as tg

        self.tg, self.case = tg, case
        x, w, b, g = case.arrays()
        output = tg.conv2d(x, w, b, case.stride, case.padding).data
        x, self.g = in_order_of(output, x), tg.Tensor(in_order_of(output, g))
        self.inputs = [tg.Tensor(a, requires_grad=True) for a in (x, w, b)]

    def __call__(self) -> Sequence[Any]:
        x, w, b = self.inputs
        output = self.tg.conv2d(x, w, b, self.case.stride, self.case.padding)
        return [output, *self.tg.grad(output, self.inputs, gradient=self.g, retain_graph=False)]

    def results(self) -> list[Array]:
        return [tensor.data for tensor in self()]


def in_order_of(model: Array, array: Array) -> Array:
    """Copy `array` so that its axes have the order in memory that those of `model` have."""
    axes = sorted(range(model.ndim), key=lambda axis: -model.strides[axis])
    return array.transpose(axes).copy().transpose(np.argsort(axes))


class OurConvolutionInNumPy(OurConvolution):
    title = "NumPy alone"

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return {**super().environment(threads), "TINYGRAD_MNIST_NATIVE": "0"}


class TorchConvolution(Convolution):
    title = "PyTorch"
    channels_last = False

    def __init__(self, threads: int, case: Case) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch, self.case = torch, case
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        images = torch.bfloat16 if self.reduced else torch.float32  # the layers before and after compute in that, too
        x, w, b, g = map(torch.from_numpy, case.arrays())
        self.g = g.to(images, memory_format=order)
        self.inputs = [x.to(images, memory_format=order), w.to(memory_format=order), b]
        for tensor in self.inputs:
            tensor.requires_grad_()

    def __call__(self) -> Sequence[Any]:
        half = self.torch.autocast("cpu", self.torch.bfloat16) if self.reduced else contextlib.nullcontext()
        with half:
            output = self.torch.nn.functional.conv2d(*self.inputs, self.case.stride, self.case.padding)
        return [output, *self.torch.autograd.grad(output, self.inputs, self.g)]

    def results(self) -> list[Array]:
        return [tensor.detach().float().numpy() for tensor in self()]


class TorchConvolutionChannelsLast(TorchConvolution):
    title, channels_last = "channels last", True


class TorchConvolutionBfloat16(TorchConvolutionChannelsLast):
    title, reduced = "bfloat16 *", True


class TensorFlowConvolution(Convolution):
    title, warm_up = "TensorFlow", 2

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return PEERS["tensorflow"].environment(threads)

    def __init__(self, threads: int, case: Case) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        x, w, b, g = case.arrays()
        edge = [case.padding] * 2

        @tf.function
        def forward_and_backward(x: Any, w: Any, b: Any, g: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch([x, w, b])
                output = tf.nn.bias_add(tf.nn.conv2d(x, w, case.stride, [[0, 0], edge, edge, [0, 0]]), b)
            return [output, *tape.gradient(output, [x, w, b], output_gradients=g)]

        arrays = x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), b, g.transpose(0, 2, 3, 1)  # NHWC, HWIO
        self.call, self.inputs = forward_and_backward, [tf.constant(a) for a in arrays]

    def __call__(self) -> Sequence[Any]:
        results: Sequence[Any] = self.call(*self.inputs)
        return results

    def results(self) -> list[Array]:
        out, dx, dw, db = (tensor.numpy() for tensor in self())
        return [out.transpose(0, 3, 1, 2), dx.transpose(0, 3, 1, 2), dw.transpose(3, 2, 0, 1), db]


CONVOLUTIONS: dict[str, type[Convolution]] = {  # by the names of peers
    "tinygrad_mnist": OurConvolution,
    "tinygrad_mnist-numpy": OurConvolutionInNumPy,
    "pytorch": TorchConvolution,
    "pytorch-channels-last": TorchConvolutionChannelsLast,
    "pytorch-bfloat16": TorchConvolutionBfloat16,
    "tensorflow": TensorFlowConvolution,
}
