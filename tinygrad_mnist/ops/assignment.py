"""Assigning to a Tensor: `data`, `grad` and `requires_grad` are checked when they are set, not where they are used.

The engine reads the slots behind them (`_array`, `_grad`, `_requires_grad`), which costs a third of a property.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..record import as_tensor, astype
from ..tensor import Array, Tensor, attach

__all__: list[str] = []


def _checked(name: str, owner: Tensor, value: Any, remedy: str) -> Tensor:
    """Return what is assigned, if it is an array of the owner's shape and dtype; floats are converted to that."""
    if not isinstance(value, (Tensor, np.ndarray, np.generic)):
        kind = "None" if value is None else type(value).__name__
        raise TypeError(f"{name}: cannot assign {kind}; assign {remedy}")
    found = as_tensor(value)
    if found.shape != owner.shape:
        raise ValueError(
            f"{name}: cannot assign shape {found.shape} to a Tensor of shape {owner.shape}; reshape it, or make a new "
            "Tensor"
        )
    if found.dtype == owner.dtype:
        return found
    if found.dtype.kind != "f" or owner.dtype.kind != "f":
        raise TypeError(
            f"{name}: cannot assign {found.dtype} to a Tensor of {owner.dtype}; convert it first: "
            f".astype(np.{owner.dtype})"
        )
    return astype(found, owner.dtype)


@attach
class AssignmentMethods:
    """Methods of `Tensor` that are defined here."""

    @property
    def data(self: Any) -> Array:
        """The values. An ndarray that is assigned is kept; one of other floats is converted, a read-only one copied."""
        return self._array  # type: ignore[no-any-return]  # self is typed Any, as in all methods

    @data.setter
    def data(self: Any, value: Array | Tensor) -> None:
        if isinstance(value, Tensor) and value.requires_grad:
            raise TypeError(
                "data: cannot assign a Tensor that requires a gradient, for its history would be lost; compute it in "
                "no_grad(), or assign its .detach()"
            )
        found = _checked("data", self, value, "an ndarray or a Tensor of the same shape")._array
        self._array = found if found.flags.writeable else np.array(found)

    @property
    def grad(self: Any) -> Tensor | None:
        """The gradient that `backward` has left, or None. None and a Tensor of the same shape can be assigned."""
        return self._grad  # type: ignore[no-any-return]  # self is typed Any, as in all methods

    @grad.setter
    def grad(self: Any, value: Array | Tensor | None) -> None:
        if value is not None and self.dtype.kind != "f":
            raise TypeError(f"grad: {self.dtype} data has no gradient; only None can be assigned")
        remedy = "None to start anew (as zero_grad does), or a Tensor of the same shape"
        self._grad = value if value is None else _checked("grad", self, value, remedy)

    @grad.deleter
    def grad(self: Any) -> None:
        self._grad = None

    @property
    def requires_grad(self: Any) -> bool:
        """Whether gradients with respect to this Tensor are wanted."""
        return self._requires_grad  # type: ignore[no-any-return]  # self is typed Any, as in all methods

    @requires_grad.setter
    def requires_grad(self: Any, value: bool) -> None:
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"requires_grad: cannot assign {type(value).__name__}; assign True or False")
        if value and self.dtype.kind != "f":
            raise TypeError(
                f"requires_grad: {self.dtype} data cannot require gradients; convert it first: "
                "tg.Tensor(array.astype(np.float32), requires_grad=True)"
            )
        if self.op is not None and not value:
            raise RuntimeError(
                f"requires_grad: a Tensor that {self.op.__name__} has made keeps its history; use .detach()"
            )
        self._requires_grad = bool(value)

    if not TYPE_CHECKING:  # type checkers refuse it without this

        def __setitem__(self, index: Any, value: Any) -> None:
            raise TypeError(
                "a Tensor's elements cannot be assigned, for gradients would not know of it; choose between Tensors by "
                "tg.where, join them by tg.stack or tg.concatenate, or write into the values: t.data[index] = ..."
            )
