"""Everything that belongs to a model in training: trained parameters, frozen ones, buffers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..nn.buffer import Buffer
from ..nn.constants import REMEDY, changes, digest, digests, numbers, warn_of_numbers
from ..nn.state import set_values
from ..tensor import Array
from ..walk import leaves

__all__ = ["ModelState", "nonfinite_names"]


class ModelState:
    """The Tensors of a model, as they are when this is made; later ones are refused, for shards would race on them.

    Attributes
    ----------
    tensors : dict of str to Tensor
        All of them, by path.
    trained : list of str
        Which of them are trained.
    buffers : dict of str to Buffer
        Which of them are buffers.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.tensors = model, leaves(model, "Trainer")
        self.trained = [name for name, t in self.tensors.items() if t.requires_grad]
        self.buffers = {name: t for name, t in self.tensors.items() if isinstance(t, Buffer)}
        self.constants, self.numbers = digests(model), numbers(model)
        self.remember()

    def remember(self) -> None:
        """Take what is frozen as it is now: it must stay so."""
        self.frozen = self._frozen()

    def _frozen(self) -> dict[str, bytes]:
        constant = self.tensors.keys() - self.trained - self.buffers.keys()
        return {name: digest(t.data) for name, t in self.tensors.items() if name in constant}

    def check(self) -> None:
        """Raise a ValueError if a call has changed what is constant, or replaced a Tensor by another one."""
        now, frozen = leaves(self.model, "Trainer"), self._frozen()
        known, reached = ({id(t) for t in tensors.values()} for tensors in (self.tensors, now))
        wrong = [f"{name} is no longer the same Tensor" for name, t in self.tensors.items() if id(t) not in reached]
        wrong += [
            f"{name}, a Tensor, is new" for name, t in now.items() if {id(t), name}.isdisjoint(known | {*self.tensors})
        ]
        wrong += [f"{name}, which is not trained, has changed" for name in frozen if frozen[name] != self.frozen[name]]
        wrong += changes(self.constants, digests(self.model))
        if wrong:
            raise ValueError(f"Trainer: {'; '.join(wrong)} since the trainer was made; {REMEDY}")
        warn_of_numbers("Trainer", self.numbers, numbers(self.model))

    def arrays(self) -> dict[str, Array]:
        """Return the values, not copied: a step gives what it changes new arrays."""
        return {name: t.data for name, t in self.tensors.items()}

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Set all values."""
        set_values("Trainer", self.tensors, arrays)

    def average(self, old: Mapping[str, Array], fresh: float) -> dict[str, Array]:
        """Move averages towards the values by a share; what is frozen or no finite float has the latest value."""
        result = self.arrays()
        for name in [*self.trained, *self.buffers]:
            new = result[name]
            if new.dtype.kind == "f" and (name not in self.buffers or np.isfinite([old[name], new]).all()):
                result[name] = np.asarray(old[name] + fresh * (new - old[name]), new.dtype)
        return result

    def completed(self, saved: Any) -> Any:
        """Add what is frozen to weights that were saved when only trained parameters were; others stay as they are."""
        if not isinstance(saved, Mapping) or self.buffers or set(saved) != set(self.trained):
            return saved
        return {name: saved.get(name, array) for name, array in self.arrays().items()}


def nonfinite_names(arrays: Mapping[str, Array]) -> list[str]:
    """Names of the arrays that hold a NaN or an infinity."""
    return [name for name, array in arrays.items() if not np.isfinite(array).all()]
