"""New Tensors: zeros, ones, full, arange, eye, and their likes.

They are NumPy's functions, with NumPy's defaults: floating-point numbers are float64 unless `dtype` says otherwise.
They are no ops: nothing is differentiated, and NumPy's functions of the same names stay as they are:
``np.zeros_like(t)`` is an ndarray.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..record import as_tensor
from ..tensor import Array, Operand, Tensor

__all__ = ["arange", "eye", "full", "full_like", "linspace", "ones", "ones_like", "zeros", "zeros_like"]


def _new(requires_grad: bool, function: Callable[..., Array], *args: Any, **settings: Any) -> Tensor:
    """Make a Tensor of what a function of NumPy returns; its errors name the function."""
    try:
        return Tensor(function(*args, **settings), requires_grad)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise type(error)(f"{function.__name__}: {error}") from error


def zeros(shape: int | Sequence[int], dtype: npt.DTypeLike = np.float64, *, requires_grad: bool = False) -> Tensor:
    """Return a Tensor of zeros.

    Examples
    --------
    >>> zeros((1, 2))
    Tensor([[0., 0.]], dtype=float64)
    >>> zeros(2, np.float32, requires_grad=True)
    Tensor([0., 0.], dtype=float32, requires_grad=True)
    """
    return _new(requires_grad, np.zeros, shape, dtype=dtype)


def ones(shape: int | Sequence[int], dtype: npt.DTypeLike = np.float64, *, requires_grad: bool = False) -> Tensor:
    """Return a Tensor of ones.

    Examples
    --------
    >>> ones(2)
    Tensor([1., 1.], dtype=float64)
    """
    return _new(requires_grad, np.ones, shape, dtype=dtype)


def full(
    shape: int | Sequence[int], fill_value: Operand, dtype: npt.DTypeLike | None = None, *, requires_grad: bool = False
) -> Tensor:
    """Return a Tensor that has one value everywhere, or values that are broadcast; by default of their dtype.

    Examples
    --------
    >>> full(2, 0.5)
    Tensor([0.5, 0.5], dtype=float64)
    """
    return _new(requires_grad, np.full, shape, fill_value, dtype=dtype)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    dtype: npt.DTypeLike | None = None,
    *,
    requires_grad: bool = False,
) -> Tensor:
    """Return the numbers from `start`, in steps, up to but without `stop`; with one number, from 0 up to that.

    Of integers they are integers, which carry no gradient.

    Examples
    --------
    >>> arange(3)
    Tensor([0, 1, 2], dtype=int64)
    >>> arange(0, 1, 0.25)
    Tensor([0.  , 0.25, 0.5 , 0.75], dtype=float64)
    """
    ends = (0, start) if stop is None else (start, stop)
    return _new(requires_grad, np.arange, *ends, step, dtype=dtype)


def linspace(
    start: Operand, stop: Operand, num: int = 50, dtype: npt.DTypeLike | None = None, *, requires_grad: bool = False
) -> Tensor:
    """Return `num` numbers at equal distances from `start` to `stop`, both included.

    Examples
    --------
    >>> linspace(0, 1, 3)
    Tensor([0. , 0.5, 1. ], dtype=float64)
    """
    return _new(requires_grad, np.linspace, start, stop, num, dtype=dtype)


def eye(
    n: int, m: int | None = None, k: int = 0, dtype: npt.DTypeLike = np.float64, *, requires_grad: bool = False
) -> Tensor:
    """Return an n x m matrix (m is n by default) with ones on the k-th diagonal, else zeros.

    Examples
    --------
    >>> eye(2)
    Tensor([[1., 0.],
            [0., 1.]], dtype=float64)
    """
    return _new(requires_grad, np.eye, n, m, k, dtype=dtype)


def zeros_like(x: Operand, dtype: npt.DTypeLike | None = None, *, requires_grad: bool = False) -> Tensor:
    """Return zeros of the shape and, by default, the dtype of ``x``.

    Examples
    --------
    >>> zeros_like([1.0, 2.0])
    Tensor([0., 0.], dtype=float64)
    """
    return _new(requires_grad, np.zeros_like, as_tensor(x).data, dtype=dtype)


def ones_like(x: Operand, dtype: npt.DTypeLike | None = None, *, requires_grad: bool = False) -> Tensor:
    """Return ones of the shape and, by default, the dtype of ``x``.

    Examples
    --------
    >>> ones_like([1.0, 2.0])
    Tensor([1., 1.], dtype=float64)
    """
    return _new(requires_grad, np.ones_like, as_tensor(x).data, dtype=dtype)


def full_like(
    x: Operand, fill_value: Operand, dtype: npt.DTypeLike | None = None, *, requires_grad: bool = False
) -> Tensor:
    """Return a Tensor of the shape and, by default, the dtype of ``x`` that has one value everywhere.

    Examples
    --------
    >>> full_like([1.0, 2.0], 7)
    Tensor([7., 7.], dtype=float64)
    """
    return _new(requires_grad, np.full_like, as_tensor(x).data, fill_value, dtype=dtype)
