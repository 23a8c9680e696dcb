"""Setting what belongs to a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..tensor import Array, Operand, numeric
from ..validation import parameter_mismatches
from ..walk import parameters

__all__ = ["load_parameters"]


def load_parameters(model: Any, mapping: Mapping[str, Operand]) -> None:
    """Set the parameters of `model` to the values of `mapping`, floats converted to each parameter's dtype; all of them
    or none.

    Raises
    ------
    ValueError
        Listing every name that is missing or unknown, every shape that differs and what is no array of floats; the
        model is then unchanged.
    """
    wanted = parameters(model)
    arrays: dict[str, Array] = {name: numeric(value) for name, value in mapping.items()}
    found = {
        name: (a.shape, wanted[name].dtype if name in wanted and a.dtype.kind == "f" else a.dtype)
        for name, a in arrays.items()
    }
    if wrong := parameter_mismatches({name: (p.shape, p.dtype) for name, p in wanted.items()}, found):
        raise ValueError("load_parameters: the weights do not fit the model: " + "; ".join(wrong))
    for name, parameter in wanted.items():  # in the same order in memory: the last bits of products may depend on it
        parameter.data = np.positive(arrays[name], out=np.empty_like(parameter.data))
