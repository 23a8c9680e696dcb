"""Activation functions as layers: the functions, with their settings."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist import nn

X = np.linspace(-4, 4, 33, dtype=np.float32).reshape(3, 11)
LAYERS = [
    (nn.ELU(), tg.elu, {}, "ELU(alpha=1.0)"),
    (nn.ELU(0.3), tg.elu, {"alpha": 0.3}, "ELU(alpha=0.3)"),
    (nn.GELU(), tg.gelu, {}, "GELU(approximate='none')"),
    (nn.GELU("tanh"), tg.gelu, {"approximate": "tanh"}, "GELU(approximate='tanh')"),
    (nn.Hardswish(), tg.hardswish, {}, "Hardswish()"),
    (nn.LeakyReLU(), tg.leaky_relu, {}, "LeakyReLU(negative_slope=0.01)"),
    (nn.LeakyReLU(0.2), tg.leaky_relu, {"negative_slope": 0.2}, "LeakyReLU(negative_slope=0.2)"),
    (nn.Mish(), tg.mish, {}, "Mish()"),
    (nn.SiLU(), tg.silu, {}, "SiLU()"),
    (nn.Sigmoid(), tg.sigmoid, {}, "Sigmoid()"),
    (nn.Softplus(), tg.softplus, {}, "Softplus(beta=1.0)"),
    (nn.Softplus(2.0), tg.softplus, {"beta": 2.0}, "Softplus(beta=2.0)"),
    (nn.Tanh(), tg.tanh, {}, "Tanh()"),
]


@pytest.mark.parametrize(("layer", "function", "settings", "text"), LAYERS, ids=[case[3] for case in LAYERS])
def test_a_layer_is_its_function(layer: Any, function: Any, settings: dict[str, Any], text: str) -> None:
    leaf, other = tg.Tensor(X, requires_grad=True), tg.Tensor(X, requires_grad=True)
    expected = function(other, **settings)
    for call in (layer, pickle.loads(pickle.dumps(layer))):
        for generator in (None, np.random.default_rng(0)):
            out = call(leaf, generator)
            np.testing.assert_array_equal(out.data, expected.data, strict=True)
    (found,), (true,) = (tg.grad(y, [x], gradient=np.cos(X)) for y, x in ((out, leaf), (expected, other)))
    np.testing.assert_array_equal(found.data, true.data)
    assert repr(layer) == text and not nn.state_dict(layer)


def test_a_wrong_approximation_is_refused_when_the_layer_is_made() -> None:
    with pytest.raises(ValueError, match="gelu: approximate"):
        nn.GELU("erf")
