"""Functions that try to make a file which is silently wrong: each is refused, or warned of, or computed alike."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

import tinygrad_mnist as tg

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def run(model: Any, *arrays: Any) -> Any:
    names = [part.name for part in model.graph.input]
    return ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))[0]


# State that is changed in place ---------------------------------------------------------------------------------------
def test_an_array_that_is_changed_in_place_between_calls_is_refused() -> None:
    rng, noise = np.random.default_rng(0), np.zeros(3, np.float32)

    def function(x: tg.Tensor) -> tg.Tensor:
        noise[:] = rng.random(3)
        return x + noise

    with pytest.raises(ValueError, match=r"add \(.*in function\): argument 1 is a constant array.*changed in place"):
        tg.export.to_onnx(function, X)


def test_a_workspace_that_is_used_twice_is_refused() -> None:
    factor = tg.Tensor(np.zeros((), np.float32))

    def function(x: tg.Tensor) -> tg.Tensor:
        factor.data[...] = 2
        y = x * factor
        factor.data[...] = 3
        return y * factor

    with pytest.raises(ValueError, match="changed in place"):
        tg.export.to_onnx(function, X)


def test_values_that_are_changed_in_place_are_refused() -> None:
    def function(x: tg.Tensor) -> tg.Tensor:
        y = 2 * x
        y.data[y.data < 0] = 0
        return y

    with pytest.raises(ValueError, match=r"read at .*in function, and then changed in place"):
        tg.export.to_onnx(function, X)


# Values that are read -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "read",
    [
        lambda x: 1e9 in x,
        lambda x: "1e+09" in repr(x),
        lambda x: f"{x.sum():.0f}" == "1000000000",
        lambda x: copy.deepcopy(x.detach()).data.max() > 1e8,
        lambda x: tg.Tensor(x).data.max() > 1e8,
        lambda x: np.allclose(x, 1e9),
        lambda x: len(np.where(x > 1e8)[0]),
        lambda x: len(np.nonzero(x > 1e8)[0]),
    ],
)
def test_every_reader_is_noticed(read: Any) -> None:
    with pytest.warns(UserWarning, match="values of Tensors that depend on the inputs are read at"):
        tg.export.to_onnx(lambda x: x * (3.0 if read(x) else 2.0), X)


def test_what_numpy_says_of_shapes_is_no_reading() -> None:
    tg.export.to_onnx(lambda x: x * math.prod(np.shape(x)) + np.zeros_like(x), X)
