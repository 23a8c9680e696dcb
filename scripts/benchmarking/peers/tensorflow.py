"""TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .base import CHAIN_LENGTH, CLASSES, CONVOLUTIONS, EPS, HIDDEN, RATE, Array, Peer
from .tensorflow_learner import TensorFlowLearner


class TensorFlow(Peer):
    package, warm_up, by_recipe = "tensorflow", 2, True

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return {**super().environment(threads), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

    def __init__(self, threads: int, seed: int) -> None:
        import tensorflow as tf

        use_threads(threads)
        tf.keras.utils.set_random_seed(seed)
        layers = [
            *hidden_layers(),
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

    @classmethod
    def learner(cls, weights: list[Array], settings: Mapping[str, Any], threads: int) -> TensorFlowLearner:
        import tensorflow as tf

        use_threads(threads)
        model = tf.keras.Sequential([*hidden_layers(), tf.keras.layers.Dense(CLASSES)])
        return TensorFlowLearner(model, weights, settings)


def use_threads(threads: int) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def hidden_layers() -> list[Any]:
    """Return the layers up to the hidden units, without dropout."""
    import tensorflow as tf

    drawn = {"activation": "relu", "kernel_initializer": "he_normal"}
    layers: list[Any] = [tf.keras.Input((28, 28, 1))]
    for number, (filters, padding) in enumerate(CONVOLUTIONS):
        layers.append(tf.keras.layers.Conv2D(filters, 3, padding="same" if padding else "valid", **drawn))
        if number % 2:
            layers.append(tf.keras.layers.MaxPool2D(2))
    return [*layers, tf.keras.layers.Flatten(), tf.keras.layers.Dense(HIDDEN, **drawn)]
