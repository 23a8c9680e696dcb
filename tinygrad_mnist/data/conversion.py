"""Data as it comes, from lists to pandas, converted to arrays once: what is paired later is paired by position."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["as_array"]


def as_array(caller: str, name: str, value: Any) -> npt.NDArray[Any]:
    """Convert what is array-like to an ndarray of numbers, by position: an index or labels of the rows play no part.

    Parameters
    ----------
    caller, name : str
        Who asks and for what: for the errors.
    value : array_like
        An ndarray, which is returned as it is; a list or tuple, to any depth; a Tensor or a torch tensor that requires
        no gradient; anything with ``__array__`` (pandas, polars) or a buffer (memoryview, array.array).

    Returns
    -------
    ndarray
        Of booleans, integers or floating-point numbers.

    Raises
    ------
    TypeError
        If `value` cannot be converted, or not without losing something: ragged lists, strings, dates, objects,
        complex numbers, missing or masked values, categories, sparse matrices, dicts, sets, iterators, None.

    Examples
    --------
    >>> as_array("accuracy", "labels", [[1, 2], (3, 4)])
    array([[1, 2],
           [3, 4]])
    >>> as_array("accuracy", "labels", ["3", "4"])
    Traceback (most recent call last):
    ...
    TypeError: accuracy: labels, of type list, is read by NumPy as <U1 (2,); pass booleans, integers or floats
    """
    subject = f"{caller}: {name}, of type {type(value).__name__},"
    parts = value if isinstance(value, (list, tuple)) else [value]
    if any(getattr(part, "requires_grad", False) is True for part in parts):
        raise TypeError(f"{subject} requires a gradient, which data has none; pass it with .detach()")
    if any(isinstance(part, np.ma.MaskedArray) and np.ma.is_masked(part) for part in parts):
        raise TypeError(f"{subject} has masked values; fill them (.filled) or leave those examples out")
    columns = _columns(value)
    if any(hasattr(column, "categories") for column in columns):
        raise TypeError(f"{subject} holds categories; pass numbers: .astype(int) of the categories, or .codes")
    nullable = [column for column in columns if hasattr(column, "numpy_dtype")]  # pandas' Int64, Float64, boolean ...
    if nullable and np.asarray(value.isna()).any():
        raise TypeError(f"{subject} has missing values (NA); fill them (.fillna) or leave those examples out")
    try:
        array = np.asarray(value)
        if nullable and array.dtype == object:
            array = np.asarray(value.to_numpy(np.result_type(*(getattr(c, "numpy_dtype", c) for c in columns))))
    except Exception as error:  # an __array__ of somebody else may raise anything
        raise TypeError(f"{subject} cannot become an array ({error}); pass an array of numbers") from error
    if array.dtype.kind not in "biuf":
        remedy = "pass it with .toarray()" if hasattr(value, "toarray") else "pass booleans, integers or floats"
        raise TypeError(f"{subject} is read by NumPy as {array.dtype} {array.shape}; {remedy}")
    return array


def _columns(value: Any) -> list[Any]:
    """Return the dtype of each column of a pandas DataFrame, and the one of everything else that has one."""
    found = getattr(value, "dtypes", getattr(value, "dtype", None))
    several = found if isinstance(found, Iterable) and not isinstance(found, (str, np.dtype)) else [found]
    return [dtype for dtype in several if dtype is not None]
