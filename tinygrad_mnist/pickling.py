"""How ops and Tensors are copied and pickled, and so models that hold them: ops by name, Tensors without a history."""

from __future__ import annotations

import sys
from pickle import PicklingError
from pkgutil import resolve_name
from typing import Any, Self

from .tensor import attach

__all__ = ["PickledByName"]


class PickledByName:
    """Base class of objects that are copied as themselves and pickled by name, as Python's functions are."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return resolve_name, (_global_name(self),)


def _global_name(value: Any) -> str:
    """Return where an object is defined, such as ``"package.module:name"``, for ``pkgutil.resolve_name``.

    Raises
    ------
    PicklingError
        If no module holds it under a name.
    """
    name, own = value.__qualname__, f"{value.__module__}:{value.__qualname__}"
    try:
        if resolve_name(own) is value:
            return own
    except (AttributeError, ImportError, ValueError):  # "<locals>", or none of that name
        pass
    for module, there in sys.modules.copy().items():  # a NumPy function made an op does not know where it stands
        if getattr(there, "__dict__", {}).get(name) is value:
            return f"{module}:{name}"
    raise PicklingError(
        f"cannot pickle {value!r}: it is pickled by name, as functions are, and {own} is not it; define it at the top "
        "level of a module, where its function is decorated with @tg.primitive"
    )


@attach
class PicklingMethods:
    """Methods of `Tensor` that are defined here."""

    def __reduce__(self: Any) -> tuple[Any, ...]:  # for copy, too: the new Tensor has a serial number of its own
        if self.op is not None:
            raise TypeError(
                f"a Tensor that {self.op.__name__} has made would lose its history in a copy or a pickle; use .detach()"
            )
        state = getattr(self, "__dict__", None), {"_grad": self._grad}  # a subclass has a __dict__
        return type(self), (self._array, self._requires_grad), state
