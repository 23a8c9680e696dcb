"""Gradient clipping by the norm of all gradients together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import numpy as np

from ..tensor import Array, Tensor
from ..validation import real

__all__ = ["clip_grad_norm"]


def clip_grad_norm(
    gradients: Tensor | Mapping[str, Tensor] | Iterable[Tensor] | MutableMapping[str, Array],
    max_norm: float,
    norm_type: float = 2.0,
) -> float:
    """Scale gradients down so that the norm of all of them together is at most `max_norm`.

    As in PyTorch, every gradient is multiplied by ``max_norm / (norm + 1e-6)`` where that is less than 1.

    Parameters
    ----------
    gradients : Tensor, dict or sequence of Tensor, or dict of str to ndarray
        Parameters, whose `.grad` is replaced (those without one are left out); or gradients, such as
        `tinygrad_mnist.parallel.value_and_grad` returns, whose entries in the dict are replaced. No array is written
        to.
    max_norm : float
        At least 0.
    norm_type : float
        The p of the p-norm, above 0; ``math.inf`` stands for the largest absolute value.

    Returns
    -------
    float
        The norm before. It is computed in float64, so that large gradients in float32 do not overflow.

    Raises
    ------
    FloatingPointError
        If a gradient is NaN or infinite (in PyTorch that is ``error_if_nonfinite=True``); nothing has changed then.
    ValueError
        If no parameter has a gradient, as before `backward`, or an argument is out of range.

    Examples
    --------
    >>> w = Tensor(np.zeros(2), requires_grad=True)
    >>> w.grad = np.array([30.0, 40.0])
    >>> clip_grad_norm([w], 1.0)
    50.0
    >>> w.grad.data.round(4).tolist()
    [0.6, 0.8]
    >>> grads = {"w": np.array([3.0, -4.0])}
    >>> clip_grad_norm(grads, 6.0, norm_type=1), grads["w"].round(4).tolist()
    (7.0, [2.5714, -3.4286])
    """
    owner = "clip_grad_norm"
    max_norm = real(owner, "max_norm", max_norm, least=0)
    norm_type = math.inf if norm_type == math.inf else real(owner, "norm_type", norm_type, above=0)
    owners, arrays = _found(gradients)
    for name, g in arrays.items():
        if not np.isfinite(g).all():
            raise FloatingPointError(f"{owner}: the gradient of {name} is not finite; see tg.detect_anomaly")
    sizes = [float(np.max(np.abs(g), initial=0)) for g in arrays.values()]
    largest = max(sizes, default=0.0)
    scaled = [g.astype(np.float64) / (largest or 1.0) for g in arrays.values()]
    relative = _norm(scaled, norm_type)
    norm = largest * relative
    if max_norm < norm + 1e-6:
        if norm < math.inf:
            factor = max_norm / (norm + 1e-6)
        else:  # it has overflowed
            factor = max_norm / largest / relative
        for name, g in arrays.items():
            clipped = np.asarray(g * np.float64(factor), g.dtype)
            if isinstance(gradients, Mapping) and not owners:
                gradients[name] = clipped  # type: ignore[index]  # a dict of arrays
            else:
                owners[name].grad = Tensor(clipped)
    return norm


def _found(gradients: Any) -> tuple[dict[str, Tensor], dict[str, Array]]:
    """Return the parameters that have a gradient (none, where gradients are given), and the gradients, by name."""
    owner = "clip_grad_norm"
    named = isinstance(gradients, Mapping)
    if named:
        items = dict(gradients)
    else:
        several = isinstance(gradients, Iterable) and not isinstance(gradients, Tensor)
        items = {f"parameter {i}": p for i, p in enumerate(gradients if several else [gradients])}
    if items and named and all(isinstance(g, np.ndarray) and g.dtype.kind == "f" for g in items.values()):
        return {}, items
    if not all(isinstance(p, Tensor) for p in items.values()):
        raise TypeError(
            f"{owner}: pass tg.nn.parameters(model), or another dict or list of parameters (Tensors), or a dict of "
            "name to gradient (ndarray)"
        )
    owners = {name: p for name, p in items.items() if p.grad is not None}
    if items and not owners:
        raise ValueError(
            f"{owner}: there is no gradient; call backward() first, or pass gradients as a dict of name to ndarray"
        )
    return owners, {name: p.grad.data for name, p in owners.items()}


def _norm(arrays: list[Array], p: float) -> float:
    """Return the p-norm of numbers of which none is larger than 1."""
    if p == math.inf:
        return float(any(a.any() for a in arrays))
    powers = (a * a if p == 2 else np.abs(a) ** p for a in arrays)
    total = math.fsum(float(np.sum(a)) for a in powers)
    with np.errstate(over="ignore"):  # of many numbers, where p is small
        return float(np.float64(total) ** (1 / p))
