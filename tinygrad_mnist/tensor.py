"""What a Tensor is: an array, and the record of how it was made.

The graph is data. A Tensor that an op has made holds the primitive (`op`), the Tensors and numbers that went in
(`inputs`) and the keyword settings (`keywords`). There are no closures and no tape, so a graph has no reference cycles
and is freed when its output is. How ops are recorded is in record.py, how the record is walked in backward.py.
"""

from __future__ import annotations

import itertools
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # methods that other files attach to Tensor when they are imported
    from .backward import BackwardMethods
    from .ops import OpMethods

    class Methods(BackwardMethods, OpMethods): ...
else:
    Methods = object

__all__ = ["Tensor"]

Array: TypeAlias = npt.NDArray[Any]
Operand: TypeAlias = "Tensor | npt.ArrayLike"  # what every op takes
Class = TypeVar("Class", bound=type)

NUMERIC = "biuf"  # kinds of dtypes: booleans, integers, floating-point numbers
NO_KEYWORDS: dict[str, Any] = {}  # shared by all leaves, never written to
_serial = itertools.count(1)  # a Tensor has a higher number than everything that it was made from; leaves have 0


class Tensor(Methods):
    """An n-dimensional array that can be differentiated.

    Parameters
    ----------
    data : array_like
        Copied (memory order kept). float32 stays float32, float64 stays float64; numbers and lists follow NumPy's
        rules. In ops, numbers, NumPy's scalars and 0-d arrays never change the dtype of what they meet; a 0-d Tensor
        counts as an array there: float32 with a 0-d Tensor of float64 gives float64.
    requires_grad : bool
        Whether gradients with respect to this Tensor are wanted. Only floating-point Tensors can require them.

    Attributes
    ----------
    data : ndarray
        The values.
    grad : Tensor or None
        Filled by `backward` on leaves (Tensors that no op has made), summed over calls; set it to None to start anew.
    op, inputs, keywords
        The record: the primitive that made this Tensor (None on a leaf), its inputs and settings.

    Raises
    ------
    TypeError
        If `data` is not numeric, or `requires_grad` is set for anything but floating-point numbers.

    Examples
    --------
    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    Tensor([2., 4., 6.], dtype=float64)
    """

    __slots__ = ("__weakref__", "_array", "_grad", "_requires_grad", "inputs", "keywords", "op", "serial")

    # The engine reads these three; data, grad and requires_grad are properties (ops/assignment.py) that check what is
    # set. The name is not _data: numpy.ma would take an attribute of that name for the values, without their history.
    _array: Array
    _grad: Tensor | None
    _requires_grad: bool
    op: Any  # a Primitive or None; typed Any, because type checkers would bind a Primitive as a method
    inputs: tuple[Any, ...] | None  # None: freed by a backward pass
    keywords: dict[str, Any]
    serial: int

    def __init__(self, data: Operand, requires_grad: bool = False) -> None:
        self._array = np.array(numeric(data))
        if requires_grad and self._array.dtype.kind != "f":
            raise TypeError(
                f"Tensor: {self._array.dtype} data cannot require gradients; convert it first: array.astype(np.float32)"
            )
        self._requires_grad = bool(requires_grad)
        self.op, self.inputs, self.keywords, self._grad, self.serial = None, (), NO_KEYWORDS, None, 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy data type of the values."""
        return self._array.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._array.ndim

    @property
    def size(self) -> int:
        """Number of values."""
        return self._array.size

    def numpy(self) -> Array:
        """Return the values as an ndarray (not a copy)."""
        return self._array

    def item(self) -> float:
        """Return the only value as a Python number."""
        if self._array.size != 1:
            raise ValueError(
                f"item: a Tensor of shape {self.shape} has {self._array.size} values, not one; "
                "reduce it first, e.g. by .sum()"
            )
        return self._array.item()  # type: ignore[no-any-return]  # ndarray.item is typed Any

    def detach(self) -> Tensor:
        """Return a Tensor with the same values (not copied) and no history."""
        return wrap(self._array)

    if not TYPE_CHECKING:  # or else ``ndarray * Tensor`` would be an ndarray for type checkers

        def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
            if self._requires_grad:
                raise TypeError(
                    "a Tensor that requires a gradient would lose its history in an array: call .detach() or .numpy(), "
                    "or join Tensors with tg.as_tensor or tg.stack"
                )
            return np.array(self._array, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        body = np.array2string(self._array, separator=", ", prefix="Tensor(")
        made = f", op={self.op.__name__}" if self.op else ", requires_grad=True" if self._requires_grad else ""
        return f"Tensor({body}, dtype={self.dtype}{made})"

    def __format__(self, spec: str) -> str:
        return format(self.item() if spec else str(self), spec)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len: a Tensor of shape () has no axis to count; .item() is its value, .numpy() its array")
        return self.shape[0]

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())


_new = Tensor.__new__


def wrap(data: Array, op: Any = None, inputs: Any = (), keywords: Any = NO_KEYWORDS) -> Tensor:
    """Make a Tensor around an array that nobody else will write to: no copy, no checks. With `op` it is recorded."""
    out = _new(Tensor)
    out._array, out._requires_grad = data, op is not None  # two at a time: more would make a tuple
    out._grad, out.op = None, op
    out.inputs, out.keywords = inputs, keywords
    out.serial = 0 if op is None else next(_serial)
    return out


def numeric(x: Any) -> Array:
    """Return the values of `x` as an ndarray (not a copy); refuse what holds no numbers, or masked ones."""
    array = x._array if isinstance(x, Tensor) else np.asarray(x)
    if array is not x and isinstance(x, np.ndarray) and np.ma.is_masked(x):
        raise TypeError("cannot compute with masked values; replace them first: array.filled(...)")
    if array.dtype.kind not in NUMERIC:
        raise TypeError(f"cannot compute with {type(x).__name__} of {array.dtype}; pass Tensors, arrays or numbers")
    return array


class _Empty: ...


def attach(methods: Class) -> Class:
    """Give the methods of a class to `Tensor`, too: how ops become methods (a class decorator).

    For type checkers, `Tensor` inherits these classes: see `Methods` above.
    """
    for name, value in vars(methods).items():
        if name not in vars(_Empty):  # every class has those
            setattr(Tensor, name, value)
    return methods


class _Module(ModuleType):
    def __call__(self, *args: Any, **keywords: Any) -> None:
        raise TypeError("tg.tensor is the file that defines Tensor; a Tensor is made by tg.Tensor(...)")


sys.modules[__name__].__class__ = _Module
