"""Parameter groups: a learning rate and a weight decay of their own for parameters whose names match a pattern."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeAlias

from ..validation import real

__all__: list[str] = []

Groups: TypeAlias = Mapping[str, Mapping[str, float]]  # pattern -> {"lr": ..., "weight_decay": ...}
Relative: TypeAlias = dict[str, dict[str, float]]  # pattern -> {"lr_factor": ..., "weight_decay": ...}


def relative(owner: str, groups: Groups, names: Iterable[str], settings: Container[str], lr: float) -> Relative:
    """Check groups, and return their learning rates as multiples of the optimizer's."""
    if not isinstance(groups, Mapping) or not all(isinstance(group, Mapping) for group in groups.values()):
        raise TypeError(f'{owner}: groups must be a dict of patterns, such as {{"*.bias": {{"lr": 0.01}}}}')
    found: Relative = {}
    names = list(names)
    known = [name for name in ("lr", "weight_decay") if name in settings]
    for pattern, group in groups.items():
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"{owner}: no parameter matches the group {pattern!r}; the names are {', '.join(names)}")
        if unknown := [str(name) for name in group if name not in known]:
            raise ValueError(
                f"{owner}: the group {pattern!r} sets {', '.join(unknown)}; a group of this optimizer can set "
                f"{' and '.join(known)}"
            )
        own = {name: real(owner, f"{name} of the group {pattern!r}", value, least=0) for name, value in group.items()}
        if "lr" in own:
            if not lr:
                raise ValueError(f"{owner}: lr is 0, and the lr of the group {pattern!r} is kept as a multiple of it")
            own["lr_factor"] = own.pop("lr") / lr
        found[pattern] = own
    return found


def by_parameter(groups: Relative, names: Iterable[str]) -> Relative:
    """Return what groups set for each parameter; where several match, the last one that sets it counts."""
    merged: Relative = {}
    for name in names:
        for pattern, group in groups.items():
            if group and fnmatchcase(name, pattern):
                merged.setdefault(name, {}).update(group)
    return merged
