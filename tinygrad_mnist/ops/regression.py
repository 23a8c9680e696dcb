"""Losses of numbers: squared, absolute, and Huber's. All are compositions of ops."""

from __future__ import annotations

from typing import Any

from ..record import as_tensor
from ..tensor import Operand, Tensor
from ..validation import real
from .elementwise import abs, clip
from .loss_reduction import as_dtype, as_floats, check_reduction, reduced

__all__ = ["huber_loss", "l1_loss", "mse_loss"]


def _differences(op: str, prediction: Operand, target: Operand, reduction: str) -> tuple[Tensor, Any]:
    """Return ``prediction - target``, and the dtype of the loss, that of the prediction."""
    check_reduction(op, reduction)
    prediction, dtype = as_floats(prediction)
    target = as_tensor(target)
    if target.shape != prediction.shape:
        raise ValueError(
            f"{op}: the prediction has shape {prediction.shape}, the target {target.shape}; they are not broadcast: "
            "reshape one of them"
        )
    return prediction - as_dtype(target, prediction.dtype), dtype


def mse_loss(prediction: Operand, target: Operand, *, reduction: str = "mean") -> Tensor:
    """Squared error, ``(prediction - target)**2``, by default its mean over all elements.

    Parameters
    ----------
    prediction, target : array_like
        Of the same shape: unlike PyTorch, these losses do not broadcast. The dtype is that of the prediction; half
        precision is computed in single precision, integers in double precision.
    reduction : {"mean", "sum", "none"}
        Average the losses of all elements, add them up, or return them all.

    Returns
    -------
    Tensor
        Of shape (), or with ``"none"`` of the prediction's shape.

    Raises
    ------
    ValueError
        If the shapes differ, or there is nothing to average.

    Examples
    --------
    >>> mse_loss([1.0, 2.0], [1.0, 5.0])
    Tensor(4.5, dtype=float64)
    """
    difference, dtype = _differences("mse_loss", prediction, target, reduction)
    return reduced("mse_loss", difference * difference, reduction, dtype)


def l1_loss(prediction: Operand, target: Operand, *, reduction: str = "mean") -> Tensor:
    """Absolute error, ``abs(prediction - target)``, by default its mean; the derivative is 0 where both are equal.

    Parameters and errors are those of `mse_loss`.

    Examples
    --------
    >>> l1_loss([1.0, 2.0], [1.0, 5.0])
    Tensor(1.5, dtype=float64)
    """
    difference, dtype = _differences("l1_loss", prediction, target, reduction)
    return reduced("l1_loss", abs(difference), reduction, dtype)


def huber_loss(prediction: Operand, target: Operand, *, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """Half the squared error d up to `delta`, and beyond it ``delta * (abs(d) - delta / 2)``; by default the mean.

    Parameters
    ----------
    prediction, target, reduction
        See `mse_loss`.
    delta : float
        Above 0.

    Examples
    --------
    >>> huber_loss([1.0, 2.0], [1.5, 5.0], reduction="none")
    Tensor([0.125, 2.5  ], dtype=float64)
    """
    delta = real("huber_loss", "delta", delta, above=0)
    difference, dtype = _differences("huber_loss", prediction, target, reduction)
    limited = clip(difference, -delta, delta)
    return reduced("huber_loss", limited * (difference - limited / 2), reduction, dtype)
