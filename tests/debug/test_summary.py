"""The table by layer: the known numbers of known networks, for models of every form."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from models.resnet import ResNet
from models.vision_transformer import VisionTransformer
from tinygrad_mnist import hooks

IMAGE = np.zeros((1, 28, 28), np.uint8)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def parameters(model: Any) -> int:
    return sum(p.size for p in tg.nn.parameters(model).values())


def test_the_21_layers() -> None:
    shown = tg.summary(DeepConvNet(rng()), IMAGE)
    rows = {row.layer: row for row in shown.rows}
    assert list(rows) == [
        "",
        *(f"layers.{i}" for i in (0, 1, 2, 4, 3, 5, 6, 7, 9, 8, 10, 11, 12, 14, 13, *range(15, 20))),
    ]
    assert rows["layers.2"][:6] == ("layers.2", "Conv2d(16, 16, 3x3, stride=1, padding=0)", 1, 1, (1, 16, 24, 24), 2320)
    assert rows["layers.2"].multiply_adds == 16 * 16 * 9 * 24 * 24
    assert rows["layers.1"].activation_bytes == 16 * 26 * 26 * 4 and rows["layers.1"].parameters == 0
    assert rows["layers.15"].output == (1, 50) and rows["layers.15"].multiply_adds == 256 * 50
    assert (shown.parameters, shown.multiply_adds, shown.not_called) == (85_152, 3_373_108, 0)


@pytest.mark.parametrize("kind", [DeepConvNet, ResNet, VisionTransformer])
def test_the_sums_are_those_of_the_model_and_of_its_graph(kind: Any) -> None:
    model, images = kind(rng()), np.zeros((3, 28, 28), np.uint8)
    logits = model(images, rng())
    shown = tg.summary(model, images, rng())
    assert shown.parameters == parameters(model) == sum(row.parameters for row in shown.rows)
    products = [n for n in tg.graph(logits, model).nodes if n.op in ("matmul", "conv_output")]
    biases = sum(
        np.prod(n.shape) for n in products if n.op == "conv_output" and len(n.settings) and has_bias(logits, n)
    )
    assert 2 * shown.multiply_adds + biases == sum(n.flops for n in products)
    assert shown.rows[0].output == (3, 10)


def has_bias(logits: tg.Tensor, node: Any) -> bool:
    edges = [edge for edge in tg.graph(logits).edges if edge.target == node.id]
    return not edges[2].source.startswith("c")


class Twice:
    """A model without a base class: a layer that is called twice, one that is shared, and one that is never called."""

    def __init__(self) -> None:
        self.inner = tg.nn.Linear(4, 4, rng=rng())
        self.parts = {"same": self.inner, "unused": tg.nn.Linear(4, 7, rng=rng())}
        self.scale = tg.Tensor(np.ones(4), requires_grad=True)

    def twice(self, x: Any) -> tg.Tensor:
        return self.inner(self.parts["same"](x))

    def __call__(self, x: Any) -> Any:
        return self.twice(x) * self.scale, [x]


def test_shared_layers_count_once_and_calls_add_up() -> None:
    shown = tg.summary(Twice(), np.ones((5, 4)))
    model, inner = shown.rows
    assert (inner.layer, inner.calls, inner.parameters, inner.multiply_adds) == ("inner", 2, 20, 2 * 5 * 16)
    assert (model.parameters, model.multiply_adds, model.output) == (4, 0, [(5, 4), [(5, 4)]])
    assert model.activation_bytes == 5 * 4 * 8 and inner.activation_bytes == 2 * 2 * 5 * 4 * 8
    assert shown.not_called == 35 and shown.parameters == 59
    lines = str(shown).splitlines()
    assert "Linear(4, 4) (called 2 times)" in lines[2] and lines[-2].split() == ["not", "called", "35"]
    assert lines[-1].split() == ["total", "59", "160", f"{shown.activation_bytes:,}"]


def test_layers_without_ops_are_listed_and_base_classes_count_once() -> None:
    class Doubled(tg.nn.Linear):
        def __call__(self, x: Any, rng: Any = None) -> Any:
            return super().__call__(x) * 2

    model = tg.nn.Sequential(Doubled(3, 2, rng=rng()), tg.nn.Dropout(0.5), lambda x, rng=None: tg.relu(x))
    rows = tg.summary(model, np.ones((1, 3), np.float32)).rows
    assert [(row.layer, row.calls, row.depth) for row in rows] == [("", 1, 0), ("layers.0", 1, 1), ("layers.1", 1, 1)]
    assert rows[1].activation_bytes == 3 * 2 * 4 and rows[2].activation_bytes == 0 and rows[0].activation_bytes == 8


def test_other_names_and_decorators_of_call_are_seen() -> None:
    def decorated(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    class Forward(tg.nn.Linear):
        def forward(self, x: Any, rng: Any = None) -> Any:
            return super().__call__(x)

        __call__ = forward

    class Decorated:
        def __init__(self) -> None:
            self.layers = [Forward(2, 2, rng=rng())]

        @decorated
        def __call__(self, x: Any) -> Any:
            return self.layers[0](x)

    rows = tg.summary(Decorated(), np.ones((3, 2), np.float32)).rows
    assert [(row.layer, row.calls, row.output, row.parameters) for row in rows] == [
        ("", 1, (3, 2), 0),
        ("layers.0", 1, (3, 2), 6),
    ]


def test_a_failing_model_leaves_nothing_behind() -> None:
    before = sys.getprofile()
    with pytest.raises(ValueError, match="matmul"):
        tg.summary(tg.nn.Linear(3, 2, rng=rng()), np.ones((1, 4), np.float32))
    assert sys.getprofile() is before and hooks.active is None
    with pytest.raises(TypeError, match="summary: the model is list, which cannot be called"):
        tg.summary([tg.relu])


def test_a_profiler_that_is_running_goes_on() -> None:
    seen: list[str] = []
    sys.setprofile(lambda frame, event, value: seen.append(frame.f_code.co_name))
    try:
        tg.summary(tg.nn.ReLU(), np.ones(2))
        seen.clear()
        rng()
    finally:
        sys.setprofile(None)
    assert "rng" in seen


def test_a_layer_that_was_never_trained_is_called_as_in_training_and_stays_as_it_was() -> None:
    model = tg.nn.Sequential(tg.nn.Linear(4, 3), tg.nn.BatchNorm1d(3), tg.nn.Dropout(0.5))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    with pytest.raises(RuntimeError, match="never been called with a generator"):
        tg.summary(model, x)
    before = tg.nn.state_dict(model)
    rows = tg.summary(model, x, rng=np.random.default_rng(0)).rows
    assert [row.output for row in rows] == [(5, 3)] * 4
    after = tg.nn.state_dict(model)
    assert before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)
