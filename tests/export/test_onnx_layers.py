"""Each layer as an ONNX file: its output, the gradient by its input and by its parameters, and a second derivative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_files import RUNTIMES, check_file

import tinygrad_mnist as tg
from tinygrad_mnist import nn

RNG = np.random.default_rng(0)
ROW, SEQUENCE, IMAGE = (3,), (2, 5), (2, 5, 6)  # shapes of one example


def trained(layer: Any, *shape: int) -> Any:
    """A normalization that has seen a batch."""
    layer(RNG.normal(1, 2, (8, *shape)).astype(np.float32), RNG)
    return layer


def adaptive(x: Any) -> Any:
    return tg.adaptive_avg_pool2d(x, (2, 4))


def there_and_back(x: Any) -> Any:
    return tg.col2im(tg.im2col(x, (2, 3), 2, 1), x.shape, (2, 3), 2, 1)


LAYERS: list[tuple[Any, tuple[int, ...]]] = [
    (nn.Linear(3, 4, rng=RNG), ROW),
    (nn.Linear(5, 4, bias=False, rng=RNG), SEQUENCE),
    (nn.Sequential(nn.Flatten(), nn.Linear(60, 3, rng=RNG), nn.Dropout(0.5, "test")), IMAGE),
    (nn.Conv1d(2, 3, 3, padding="same", dilation=2, rng=RNG), SEQUENCE),
    (nn.Conv2d(2, 4, (3, 2), (2, 3), (1, 0), rng=RNG), IMAGE),
    (nn.Conv2d(2, 4, 2, padding="same", groups=2, rng=RNG), IMAGE),
    (nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1, rng=RNG), IMAGE),
    (nn.Sequential(nn.Conv2d(2, 2, 2, rng=RNG), nn.ReLU(), nn.MaxPool2d(2)), IMAGE),
    (nn.MaxPool2d(3, (2, 1), 1), IMAGE),
    (nn.AvgPool2d(3, (2, 1), 1), IMAGE),
    (trained(nn.BatchNorm1d(3), *ROW), ROW),
    (trained(nn.BatchNorm2d(2), *IMAGE), IMAGE),
    (nn.LayerNorm((5, 6)), IMAGE),
    (nn.GroupNorm(2, 2), IMAGE),
    (adaptive, IMAGE),
    (tg.global_avg_pool, IMAGE),
    (there_and_back, IMAGE),
]


def derivatives(layer: Any, x: Any, probe: Any) -> list[Any]:
    """The output, the gradients of <output, probe> by input and parameters, and that of their squares by the input."""
    variables = [x, *(nn.parameters(layer).values() if hasattr(layer, "__dict__") else ())]
    out = layer(x)
    first = tg.grad((out * out * probe).sum(), variables, create_graph=True)
    (second,) = tg.grad(sum((slope * slope).sum() for slope in first), [x], create_graph=True)
    return [out, *first, second]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: getattr(value, "__name__", repr(value)[:40]))
def test_layers(layer: Any, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    traced, others = (rng.normal(size=(n, *shape)).astype(np.float32) for n in (2, 3))
    probe = rng.normal(size=layer(traced).shape[1:]).astype(np.float32)
    grouped = getattr(layer, "groups", 1) > 1  # onnx.reference 1.23 computes ConvTranspose wrongly there
    check_file(lambda x: derivatives(layer, x, probe), [traced], [others], runtimes=RUNTIMES[grouped:])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_an_embedding_takes_indices_of_any_integers(dtype: Any) -> None:
    layer = nn.Embedding(5, 2, rng=RNG)
    traced, others = (RNG.integers(0, 5, (n, 3)).astype(dtype) for n in (4, 6))

    def looked_up(x: Any) -> Any:
        rows = layer(x)
        return [rows, tg.grad((rows**2).sum(), [layer.weight])[0]]

    file = check_file(looked_up, [traced], [others])
    assert "weight" in {array.name for array in file.graph.initializer}
