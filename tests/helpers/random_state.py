"""Models whose every value is their own."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygrad_mnist as tg


def randomize(model: Any, seed: int = 0) -> Any:
    """Change every value of a model a little, and running variances much: a bias is not 0 then, nor a weight 1."""
    rng = np.random.default_rng(seed)
    state = tg.nn.state_dict(model)
    for name, value in state.items():
        if value.dtype.kind != "f":
            state[name] = value + 3
        elif "running_var" in name:
            state[name] = (value * rng.uniform(0.5, 1.5, value.shape)).astype(value.dtype)
        else:
            state[name] = (value + rng.normal(0, 0.05, value.shape)).astype(value.dtype)
    tg.nn.load_state_dict(model, state)
    return model
