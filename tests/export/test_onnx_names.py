"""Names of the parameters in a file, wherever a function finds its model."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from models.mlp import MLP

MODEL, OTHER = MLP(np.random.default_rng(0), hidden=2), MLP(np.random.default_rng(1), hidden=2)
SCALE = tg.Tensor(np.full((1,), 2.0, np.float32))
IMAGES = np.ones((2, 28, 28), np.float32)
NAMES = ["hidden.weight", "hidden.bias", "out.weight", "out.bias"]


class Scaled:
    """A model in a model, with a method that is exported."""

    def __init__(self) -> None:
        self.body = MODEL

    def twice(self, images: Any) -> Any:
        return 2 * self.body(images)


def helper(images: Any) -> Any:
    return MODEL(images)


def enclosed() -> Any:
    model = MLP(np.random.default_rng(0), hidden=2)
    return lambda images: model(images)


def prefixed(*prefixes: str) -> list[str]:
    return [f"{prefix}.{name}" for prefix in prefixes for name in NAMES]


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (MODEL, NAMES),
        (MODEL.__call__, NAMES),
        (Scaled().twice, prefixed("body")),
        (lambda images: MODEL(images), NAMES),
        (lambda images: helper(images), NAMES),
        (lambda images: tg.func.grad(lambda x: MODEL(x).sum())(images), NAMES[:3]),
        (enclosed(), NAMES),
        (lambda images, model=MODEL: model(images), NAMES),
        (partial(MODEL, rng=None), NAMES),
        (partial(lambda model, images: model(images), MODEL), NAMES),
        (lambda images: MODEL(images) + OTHER(images), prefixed("MODEL", "OTHER")),
        (lambda images: images * SCALE, ["SCALE"]),
    ],
)
def test_parameters_keep_their_names(function: Any, names: list[str]) -> None:
    stored = [array.name for array in tg.export.to_onnx(function, IMAGES).graph.initializer]
    assert [name for name in stored if not name.startswith("constant")] == names
