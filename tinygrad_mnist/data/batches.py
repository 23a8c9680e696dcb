"""Batches of a data set in memory, and images as the input of a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from ..validation import integer
from .conversion import as_array
from .layout import channels_first

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["as_input", "batches"]


def batches(
    n: int, batch_size: int, rng: np.random.Generator | None = None, drop_last: bool = False
) -> Iterator[npt.NDArray[np.intp]]:
    """Return index arrays that divide `n` examples into batches; together they contain every index once.

    Parameters
    ----------
    n : int
        Number of examples.
    batch_size : int
        Examples per batch; the last batch may have fewer.
    rng : numpy.random.Generator, optional
        Shuffles, with one draw at the call. By default the examples stay in order.
    drop_last : bool
        Omit a last batch of fewer than `batch_size` examples (with ``n < batch_size``, all of them).

    Returns
    -------
    iterator of ndarray of intp, shape (batch_size,)

    Raises
    ------
    ValueError
        At the call, if `n` is negative or `batch_size` is less than 1.

    Examples
    --------
    >>> [batch.tolist() for batch in batches(5, 2)]
    [[0, 1], [2, 3], [4]]
    >>> sorted(np.concatenate(list(batches(5, 2, np.random.default_rng(0)))).tolist())
    [0, 1, 2, 3, 4]
    """
    n, batch_size = integer("batches", "n", n), integer("batches", "batch_size", batch_size, 1)
    order = np.arange(n) if rng is None else rng.permutation(n)
    stop = n - n % batch_size if drop_last else n
    return (order[start : start + batch_size] for start in range(0, stop, batch_size))


@overload
def as_input(images: Tensor, dtype: npt.DTypeLike = ..., *, layout: str | None = ...) -> Any: ...


@overload
def as_input(images: npt.ArrayLike, dtype: npt.DTypeLike = ..., *, layout: str | None = ...) -> npt.NDArray[Any]: ...


def as_input(images: Any, dtype: npt.DTypeLike = np.float32, *, layout: str | None = None) -> Any:
    """Convert images to the input of a network: pixels in [0, 1], the channels second, the batch axis last in memory.

    Parameters
    ----------
    images : array_like of uint8, shape (N, H, W), (N, C, H, W) or (N, H, W, C)
        Of any size; without an axis of channels they have one. Or a Tensor: of uint8, or of floats, pixels in [0, 1],
        whose history is kept, so that gradients by the pixels can be computed.
    dtype : floating-point dtype
    layout : {"NCHW", "NHWC"}, optional
        Which axes images with four have. By default (N, C, H, W); what looks like (N, H, W, C), with at most four
        channels, is refused.

    Returns
    -------
    ndarray or Tensor of `dtype`, shape (N, C, H, W)
        A new array with the strides of a C-contiguous (H, C, W, N): the fastest layout for convolutions. From a Tensor,
        a Tensor, by recorded ops: in an ONNX file, too, pixels are scaled.

    Raises
    ------
    TypeError, ValueError
        If `images` is an array of another dtype than uint8 (it may be scaled already), or has other axes.

    Examples
    --------
    >>> x = as_input(np.full((5, 28, 28), 51, np.uint8))
    >>> x.shape, x.strides, x.max()
    ((5, 1, 28, 28), (4, 560, 560, 20), np.float32(0.2))
    >>> as_input(np.zeros((5, 32, 32, 3), np.uint8), layout="NHWC").shape
    (5, 3, 32, 32)
    """
    is_tensor = hasattr(images, "inputs")  # only they have a record
    if is_tensor and (images.dtype.kind == "f" or images.dtype == np.uint8):
        tensor: Any = channels_first("as_input", images, layout)
        converted = tensor if tensor.dtype == dtype else tensor.astype(dtype)
        return converted / 255 if tensor.dtype == np.uint8 else converted
    images = as_array("as_input", "images", images)
    if images.dtype != np.uint8:
        raise TypeError(
            f"as_input: images are {images.dtype}; expected uint8 pixels from 0 to 255, or a Tensor of floats "
            "that are scaled already: tg.Tensor(images)"
        )
    nchw = channels_first("as_input", images, layout)
    innermost = np.ascontiguousarray(nchw.transpose(2, 1, 3, 0))  # (N, C, H, W) -> (H, C, W, N)
    scaled: npt.NDArray[Any] = np.divide(innermost, 255, dtype=dtype)
    return scaled.transpose(3, 1, 0, 2)  # (H, C, W, N) -> (N, C, H, W)
