"""The 21-layer network and its training step in several frameworks, each written as its own documentation does.

All compute the same: uint8 images (N, 28, 28) and integer labels (N,) as input; He initialization; dropout of hidden
units and logits, scaled at inference (inverted dropout times 1 - p, in training and inference); AdaGrad with learning
rate 0.01 (Keras adds epsilon inside the root).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .layered import LayeredNet

ROOT = Path(__file__).resolve().parents[2]
Array: TypeAlias = npt.NDArray[Any]
CONVOLUTIONS = ((16, 0), (16, 0), (32, 0), (32, 0), (64, 1), (64, 1))  # filters, padding; every second: max-pooling
HIDDEN, CLASSES, RATE, EPS = 50, 10, 0.01, 1e-7
CHAIN_LENGTH = 1000  # small ops


class Peer:
    """One framework; created in a process of its own, which is started with `environment`."""

    package = ""  # the module to import
    eager = True  # whether a chain of small ops is measured
    imported = True  # whether the import is measured
    warm_up = 1  # calls until everything is compiled

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return {f"{library}_NUM_THREADS": str(threads) for library in ("OPENBLAS", "MKL", "OMP", "VECLIB_MAXIMUM")}

    def __init__(self, threads: int, seed: int) -> None:
        raise NotImplementedError

    def step(self, images: Array, labels: Array) -> float:
        """Train on one batch and return the loss."""
        raise NotImplementedError

    def predict(self, images: Array) -> Array:
        """Return the class of each image."""
        raise NotImplementedError

    def chain(self) -> None:
        """Run a chain of `CHAIN_LENGTH` multiplications and additions of 10 numbers, forward and backward."""
        raise NotImplementedError


def he_weights(rng: np.random.Generator) -> list[Array]:
    """Draw weight and bias of every layer: (F, C, 3, 3) and (F,), (inputs, outputs) and (outputs,)."""
    weights, channels = [], 1
    for filters, _ in CONVOLUTIONS:
        weights += [rng.standard_normal((filters, channels, 3, 3)) * np.sqrt(2 / (9 * channels)), np.zeros(filters)]
        channels = filters
    for inputs, outputs in ((channels * 4, HIDDEN), (HIDDEN, CLASSES)):
        weights += [rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs), np.zeros(outputs)]
    return [w.astype(np.float32) for w in weights]


def adagrad(w: Any, g: Any, h: Any) -> tuple[Any, Any]:
    """Return the new w and h after a step, for frameworks without an AdaGrad of their own."""
    h = h + g * g
    return w - RATE * g / (h**0.5 + EPS), h


class Ours(Peer):
    package = "tinygrad_mnist"

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return super().environment(1)  # the threads are used for shards

    def __init__(self, threads: int, seed: int) -> None:
        sys.path.insert(0, str(ROOT))
        import tinygrad_mnist as tg
        from models.deep_convnet import DeepConvNet

        self.tg, self.threads, self.rng = tg, threads, np.random.default_rng(seed)
        self.model = DeepConvNet(rng=self.rng)
        self.weights = tg.nn.parameters(self.model)
        self.optimizer = tg.optim.AdaGrad(self.weights, lr=RATE)

    def step(self, images: Array, labels: Array) -> float:
        loss, grads = self.tg.parallel.value_and_grad(
            self.loss, self.weights, images, labels, rng=self.rng, threads=self.threads
        )
        self.optimizer.step(grads)
        return loss

    def loss(self, images: Array, labels: Array, rng: np.random.Generator) -> Any:
        return self.model.loss(images, labels, rng)

    def predict(self, images: Array) -> Array:
        return self.tg.training.predict(self.model, images, threads=self.threads)

    def chain(self) -> None:
        x = self.tg.Tensor(np.ones(10, np.float32), requires_grad=True)
        c = self.tg.Tensor(np.ones(10, np.float32))
        y = x
        for _ in range(CHAIN_LENGTH // 2):
            y = y * c + c
        y.sum().backward()


class OursInNumPy(Ours):
    """Our framework without the compiled kernels."""

    eager = imported = False  # as with them

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return {**super().environment(threads), "TINYGRAD_MNIST_NATIVE": "0"}


class Layered(Peer):
    """The paper's method: NumPy, a hand-written backward pass for every layer, im2col of the whole batch."""

    package, eager, imported = "numpy", False, False

    def __init__(self, threads: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.weights = he_weights(self.rng)
        self.h = [np.zeros_like(w) for w in self.weights]
        self.net = LayeredNet(self.weights, len(CONVOLUTIONS), np.float32)

    def step(self, images: Array, labels: Array) -> float:
        loss, grads = self.net.loss(images[:, None] / np.float32(255), labels, self.rng)
        for i, (w, g) in enumerate(zip(self.weights, grads, strict=True)):
            w[...], self.h[i] = adagrad(w, g, self.h[i])  # in place: the layers hold the same arrays
        return float(loss)

    def predict(self, images: Array) -> Array:
        return self.net.forward(images[:, None] / np.float32(255)).argmax(axis=1)


class PyTorch(Peer):
    package = "torch"
    channels_last = False

    def __init__(self, threads: int, seed: int) -> None:
        import torch
        from torch import nn

        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        layers: list[Any] = []
        channels = 1
        for number, (filters, padding) in enumerate(CONVOLUTIONS):
            layers += [nn.Conv2d(channels, filters, 3, padding=padding), nn.ReLU()]
            channels = filters
            if number % 2:
                layers.append(nn.MaxPool2d(2))
        layers += [nn.Flatten(), nn.Linear(channels * 4, HIDDEN), nn.ReLU(), nn.Dropout(0.5)]
        self.body, self.head, self.drop = nn.Sequential(*layers), nn.Linear(HIDDEN, CLASSES), nn.Dropout(0.5)
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

    def step(self, images: Array, labels: Array) -> float:
        self.model.train()
        self.optimizer.zero_grad()
        loss = self.torch.nn.functional.cross_entropy(self.forward(images), self.torch.from_numpy(labels))
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    def predict(self, images: Array) -> Array:
        self.model.eval()
        with self.torch.inference_mode():
            return self.forward(images).argmax(dim=1).numpy()

    def chain(self) -> None:
        x, c = self.torch.ones(10, requires_grad=True), self.torch.ones(10)
        y = x
        for _ in range(CHAIN_LENGTH // 2):
            y = y * c + c
        y.sum().backward()


class PyTorchChannelsLast(PyTorch):
    channels_last = True
    eager = imported = False  # as PyTorch


class TensorFlow(Peer):
    package, warm_up = "tensorflow", 2

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return {**super().environment(threads), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

    def __init__(self, threads: int, seed: int) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        tf.keras.utils.set_random_seed(seed)
        layers: list[Any] = [tf.keras.Input((28, 28, 1))]
        for number, (filters, padding) in enumerate(CONVOLUTIONS):
            same = "same" if padding else "valid"
            layers.append(
                tf.keras.layers.Conv2D(filters, 3, padding=same, activation="relu", kernel_initializer="he_normal")
            )
            if number % 2:
                layers.append(tf.keras.layers.MaxPool2D(2))
        layers += [
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(HIDDEN, activation="relu", kernel_initializer="he_normal"),
            tf.keras.layers.Dropout(0.5),
            tf.keras.layers.Rescaling(0.5),
            tf.keras.layers.Dense(CLASSES, kernel_initializer="he_normal"),
            tf.keras.layers.Dropout(0.5),
            tf.keras.layers.Rescaling(0.5),
        ]
        model = tf.keras.Sequential(layers)
        optimizer = tf.keras.optimizers.Adagrad(RATE, initial_accumulator_value=0.0, epsilon=EPS)
        loss_fn = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

        @tf.function
        def step(images: Any, labels: Any) -> Any:
            x = tf.cast(images[..., None], tf.float32) / 255
            with tf.GradientTape() as tape:
                loss = loss_fn(labels, model(x, training=True))
            optimizer.apply_gradients(
                zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
            )
            return loss

        @tf.function
        def predict(images: Any) -> Any:
            return tf.argmax(model(tf.cast(images[..., None], tf.float32) / 255, training=False), axis=1)

        self.tf, self._step, self._predict = tf, step, predict

    def step(self, images: Array, labels: Array) -> float:
        return float(self._step(self.tf.constant(images), self.tf.constant(labels)))

    def predict(self, images: Array) -> Array:
        return np.asarray(self._predict(self.tf.constant(images)))

    def chain(self) -> None:
        x, c = self.tf.Variable(self.tf.ones(10)), self.tf.ones(10)
        with self.tf.GradientTape() as tape:
            y = x * c
            for _ in range(CHAIN_LENGTH // 2):
                y = y * c + c
            total = self.tf.reduce_sum(y)
        tape.gradient(total, x)


class Jax(Peer):
    package, warm_up = "jax", 2

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return {**super().environment(threads), "JAX_PLATFORMS": "cpu"}

    def __init__(self, threads: int, seed: int) -> None:
        import jax
        import jax.numpy as jnp

        self.jax, self.jnp, self.key = jax, jnp, jax.random.key(seed)
        weights = he_weights(np.random.default_rng(seed))
        self.weights = [jnp.asarray(w.transpose(2, 3, 1, 0) if w.ndim == 4 else w) for w in weights]  # HWIO
        self.h = [jnp.zeros_like(w) for w in self.weights]

        def dropped(x: Any, key: Any) -> Any:
            return x / 2 if key is None else x * jax.random.bernoulli(key, 0.5, x.shape)

        def forward(weights: Any, images: Any, key: Any = None) -> Any:
            x = images[..., None].astype(jnp.float32) / 255
            for number, (_, padding) in enumerate(CONVOLUTIONS):
                w, b = weights[2 * number : 2 * number + 2]
                same = "SAME" if padding else "VALID"
                x = jax.nn.relu(
                    jax.lax.conv_general_dilated(x, w, (1, 1), same, dimension_numbers=("NHWC", "HWIO", "NHWC")) + b
                )
                if number % 2:
                    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            w, b, w2, b2 = weights[-4:]
            first, second = (None, None) if key is None else jax.random.split(key)
            hidden = dropped(jax.nn.relu(x.reshape(len(x), -1) @ w + b), first)
            return dropped(hidden @ w2 + b2, second)

        def loss(weights: Any, images: Any, labels: Any, key: Any) -> Any:
            return -jnp.take_along_axis(
                jax.nn.log_softmax(forward(weights, images, key)), labels[:, None], axis=1
            ).mean()

        @jax.jit
        def step(weights: Any, h: Any, images: Any, labels: Any, key: Any) -> Any:
            value, grads = jax.value_and_grad(loss)(weights, images, labels, key)
            pairs = [adagrad(*wgh) for wgh in zip(weights, grads, h, strict=True)]
            return value, [w for w, _ in pairs], [h for _, h in pairs]

        self._step, self._predict = step, jax.jit(lambda weights, images: forward(weights, images).argmax(axis=1))

    def step(self, images: Array, labels: Array) -> float:
        self.key, key = self.jax.random.split(self.key)
        value, self.weights, self.h = self.jax.block_until_ready(
            self._step(self.weights, self.h, images, labels.astype(np.int32), key)
        )
        return float(value)

    def predict(self, images: Array) -> Array:
        return np.asarray(self._predict(self.weights, images))

    def chain(self) -> None:
        c = self.jnp.ones(10)

        def total(x: Any) -> Any:
            for _ in range(CHAIN_LENGTH // 2):
                x = x * c + c
            return x.sum()

        self.jax.block_until_ready(self.jax.grad(total)(c))


class Autograd(Peer):
    package = "autograd"

    def __init__(self, threads: int, seed: int) -> None:
        import autograd
        import autograd.numpy as anp
        from autograd.scipy.signal import convolve

        self.rng, self.autograd, self.anp = np.random.default_rng(seed), autograd, anp
        self.weights = [w.swapaxes(0, 1) if w.ndim == 4 else w for w in he_weights(self.rng)]  # (C, F, 3, 3)
        self.h = [np.zeros_like(w) for w in self.weights]

        def forward(weights: Any, images: Array, rng: np.random.Generator | None = None) -> Any:
            x = images[:, None] / np.float32(255)
            for number, (_, padding) in enumerate(CONVOLUTIONS):
                w, b = weights[2 * number : 2 * number + 2]
                if padding:
                    x = anp.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), "constant")
                x = anp.maximum(
                    convolve(x, w, axes=([2, 3], [2, 3]), dot_axes=([1], [0]), mode="valid") + b[:, None, None], 0
                )
                if number % 2:
                    n, c, height, width = x.shape
                    x = x.reshape((n, c, height // 2, 2, width // 2, 2)).max(axis=5).max(axis=3)
            for w, b in (weights[-4:-2], weights[-2:]):
                x = x.reshape((len(x), -1)) @ w + b
                if len(b) == HIDDEN:
                    x = anp.maximum(x, 0)
                x = x * (np.float32(0.5) if rng is None else (rng.random(x.shape, np.float32) < 0.5).astype(np.float32))
            return x

        def loss(weights: Any, images: Array, labels: Array, rng: np.random.Generator) -> Any:
            x = forward(weights, images, rng)
            x = x - x.max(axis=1, keepdims=True)
            return -anp.mean((x - anp.log(anp.exp(x).sum(axis=1, keepdims=True)))[np.arange(len(labels)), labels])

        self.forward, self.value_and_grad = forward, autograd.value_and_grad(loss)

    def step(self, images: Array, labels: Array) -> float:
        value, grads = self.value_and_grad(self.weights, images, labels, self.rng)
        pairs = [adagrad(*wgh) for wgh in zip(self.weights, grads, self.h, strict=True)]
        self.weights, self.h = [w for w, _ in pairs], [h for _, h in pairs]
        return float(value)

    def predict(self, images: Array) -> Array:
        return np.asarray(self.forward(self.weights, images)).argmax(axis=1)

    def chain(self) -> None:
        c = np.ones(10, np.float32)

        def total(x: Any) -> Any:
            for _ in range(CHAIN_LENGTH // 2):
                x = x * c + c
            return self.anp.sum(x)

        self.autograd.grad(total)(c)


class MyGrad(Peer):
    package = "mygrad"

    def __init__(self, threads: int, seed: int) -> None:
        import mygrad as mg
        from mygrad.nnet.activations import relu
        from mygrad.nnet.layers import conv_nd, max_pool
        from mygrad.nnet.losses import softmax_crossentropy

        self.mg, self.rng, self.cross_entropy = mg, np.random.default_rng(seed), softmax_crossentropy
        mg.turn_memory_guarding_off()  # as its documentation advises for speed
        self.weights = [mg.tensor(w) for w in he_weights(self.rng)]
        self.h = [np.zeros_like(w.data) for w in self.weights]

        def forward(images: Array, rng: np.random.Generator | None = None) -> Any:
            x = images[:, None] / np.float32(255)
            for number, (filters, padding) in enumerate(CONVOLUTIONS):
                w, b = self.weights[2 * number : 2 * number + 2]
                x = relu(conv_nd(x, w, stride=1, padding=padding) + b.reshape(1, filters, 1, 1))
                if number % 2:
                    x = max_pool(x, (2, 2), stride=2)
            for w, b in (self.weights[-4:-2], self.weights[-2:]):
                x = x.reshape(len(images), -1) @ w + b
                if len(b) == HIDDEN:
                    x = relu(x)
                x = x * (np.float32(0.5) if rng is None else (rng.random(x.shape, np.float32) < 0.5).astype(np.float32))
            return x

        self.forward = forward

    def step(self, images: Array, labels: Array) -> float:
        loss = self.cross_entropy(self.forward(images, self.rng), labels)
        loss.backward()
        for i, w in enumerate(self.weights):
            w.data[...], self.h[i] = adagrad(w.data, w.grad, self.h[i])
        return float(loss.item())

    def predict(self, images: Array) -> Array:
        with self.mg.no_autodiff:
            return np.asarray(self.forward(images)).argmax(axis=1)

    def chain(self) -> None:
        x, c = self.mg.tensor(np.ones(10, np.float32)), np.ones(10, np.float32)
        y = x
        for _ in range(CHAIN_LENGTH // 2):
            y = y * c + c
        y.sum().backward()


class Tinygrad(Peer):
    package, warm_up = "tinygrad", 3
    eager = False  # lazy: it would compile the whole chain

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return {**super().environment(threads), "DEV": "CPU", "CPU_COUNT": str(threads)}

    def __init__(self, threads: int, seed: int) -> None:
        from tinygrad import Context, Tensor, TinyJit, dtypes

        Tensor.manual_seed(seed)
        self.Tensor, self.Context = Tensor, Context
        weights = [Tensor(w).realize() for w in he_weights(np.random.default_rng(seed))]
        h = [w.zeros_like().contiguous().realize() for w in weights]

        def forward(images: Any) -> Any:
            x = images.unsqueeze(1).cast(dtypes.float32) / 255
            for number, (_, padding) in enumerate(CONVOLUTIONS):
                x = x.conv2d(*weights[2 * number : 2 * number + 2], padding=padding).relu()
                if number % 2:
                    x = x.max_pool2d((2, 2))
            w, b, w2, b2 = weights[-4:]
            hidden = (x.flatten(1) @ w + b).relu().dropout(0.5) / 2
            return (hidden @ w2 + b2).dropout(0.5) / 2

        @TinyJit
        def step(images: Any, labels: Any) -> Any:
            loss = forward(images).sparse_categorical_crossentropy(labels)
            updates = []
            for w, g, total in zip(weights, loss.gradient(*weights), h, strict=True):
                new, sum_of_squares = adagrad(w, g, total)
                updates += [total.assign(sum_of_squares), w.assign(new)]
            return loss.realize(*updates)

        self._step, self._predict = step, TinyJit(lambda images: forward(images).argmax(axis=1).realize())

    def step(self, images: Array, labels: Array) -> float:
        with self.Context(TRAINING=1):
            return float(
                self._step(self.Tensor(images).realize(), self.Tensor(labels.astype(np.int32)).realize()).item()
            )

    def predict(self, images: Array) -> Array:
        return np.asarray(self._predict(self.Tensor(images).realize()).numpy())


PEERS: dict[str, type[Peer]] = {
    "tinygrad_mnist": Ours,
    "tinygrad_mnist-numpy": OursInNumPy,
    "pytorch": PyTorch,
    "pytorch-channels-last": PyTorchChannelsLast,
    "tensorflow": TensorFlow,
    "jax": Jax,
    "autograd": Autograd,
    "mygrad": MyGrad,
    "tinygrad": Tinygrad,
    "layered-numpy": Layered,
}


def version(name: str) -> str | None:
    """Return the version of a peer's framework, or None if it is not installed, without importing it."""
    package = PEERS[name].package
    if issubclass(PEERS[name], Ours):
        sys.path.insert(0, str(ROOT))
        return str(importlib.import_module(package).__version__)
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return metadata.version(metadata.packages_distributions().get(package, [package])[0])
    except metadata.PackageNotFoundError:  # a folder on the path
        return "of unknown version"
