"""TensorFlow, trained by a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .base import CLASSES, ITERATIONS, NEWTON_SCHULZ, Array


class TensorFlowLearner:
    """Muon for weights and AdamW for biases; label smoothing, and averages of the weights: one graph for a step.

    The biases are updated as one vector, and all matrices are orthogonalized together, which is traced and run faster
    than one at a time.
    """

    def __init__(self, model: Any, weights: list[Array], settings: Mapping[str, Any]) -> None:
        import tensorflow as tf

        self.tf = tf
        model.layers[0].trainable = False
        model.set_weights([to_keras(array) for array in weights])
        matrices = [w for w in model.trainable_variables if len(w.shape) > 1]
        biases = [w for w in model.trainable_variables if len(w.shape) == 1]
        trained = matrices + biases
        self.averages = [tf.Variable(w) for w in trained]
        means = [tf.Variable(tf.zeros(w.shape)) for w in matrices]
        lengths = [w.shape[0] for w in biases]
        first, second, count = (
            tf.Variable(tf.zeros(sum(lengths))),
            tf.Variable(tf.zeros(sum(lengths))),
            tf.Variable(0.0),
        )
        momentum, decay, smoothing = (settings[name] for name in ("momentum", "weight_decay", "label_smoothing"))
        beta1, beta2 = settings["betas"]
        kinds: Any = ([None, 28, 28], tf.uint8), ([None], tf.int64), ([], tf.float32), ([], tf.float32)

        @tf.function(input_signature=[tf.TensorSpec(*kind) for kind in kinds])
        def step(images: Any, labels: Any, lr: Any, fresh: Any) -> Any:
            target = (1 - smoothing) * tf.one_hot(labels, CLASSES) + smoothing / CLASSES
            with tf.GradientTape() as tape:
                logits = model(tf.cast(images[..., None], tf.float32) / 255, training=True)
                loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, logits))
            grads = tape.gradient(loss, trained)
            ahead = []
            for mean, g in zip(means, grads[: len(means)], strict=True):
                mean.assign(momentum * mean + (1 - momentum) * g)
                ahead.append(momentum * mean + (1 - momentum) * g)
            g = tf.concat(grads[len(means) :], axis=0)
            count.assign_add(1.0)
            first.assign(beta1 * first + (1 - beta1) * g)
            second.assign(beta2 * second + (1 - beta2) * g * g)
            update = first / (1 - beta1**count) / (tf.sqrt(second / (1 - beta2**count)) + 1e-8)
            updates = self.orthogonal(ahead) + tf.split(update, lengths)
            for w, update, average in zip(trained, updates, self.averages, strict=True):
                w.assign((1 - lr * decay) * w - lr * update)
                average.assign_add(fresh * (w - average))
            return loss

        @tf.function(input_signature=[tf.TensorSpec(*kinds[0])])
        def logits(images: Any) -> Any:
            return model(tf.cast(images[..., None], tf.float32) / 255, training=False)

        self.trained, self._step, self._logits = trained, step, logits

    def orthogonal(self, arrays: Sequence[Any]) -> list[Any]:
        """Orthogonalize arrays as matrices by Newton-Schulz iterations of the square matrices x @ x.T, all in one."""
        tf = self.tf
        (a, b, c), shapes = NEWTON_SCHULZ, [array.shape for array in arrays]
        matrices = [tf.transpose(tf.reshape(array, (-1, array.shape[-1]))) for array in arrays]
        matrices = [tf.math.divide_no_nan(x, tf.norm(x)) for x in matrices]
        size = max(len(x) for x in matrices)
        grams = [tf.matmul(x, x, transpose_b=True) for x in matrices]
        gram = tf.stack([tf.pad(square, [[0, size - len(square)]] * 2) for square in grams])
        product = tf.eye(size)
        for left in reversed(range(ITERATIONS)):
            factor = a * tf.eye(size) + b * gram + c * (gram @ gram)
            product = factor @ product
            gram = factor @ gram @ factor if left else gram
        result = []
        for x, square, shape in zip(matrices, tf.unstack(product), shapes, strict=True):
            update = 0.2 * math.sqrt(max(x.shape)) * square[: len(x), : len(x)] @ x
            result.append(tf.reshape(tf.transpose(update), shape))
        return result

    def step(self, images: Array, labels: Array, lr: float, fresh: float) -> float:
        return float(self._step(images, labels, np.float32(lr), np.float32(fresh)))

    def take_average(self) -> None:
        for w, average in zip(self.trained, self.averages, strict=True):
            w.assign(average)

    def logits(self, images: Array) -> Array:
        return np.asarray(self._logits(images))


def to_keras(array: Array) -> Array:
    """Return a weight in Keras' layout, where the channels are the last axis of filters and of what is flattened."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)  # (F, C, 3, 3) -> (3, 3, C, F)
    if len(array) == 256:
        return array.reshape(64, 4, -1).swapaxes(0, 1).reshape(array.shape)  # rows (C, H * W) -> (H * W, C)
    return array
