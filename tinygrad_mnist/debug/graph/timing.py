"""How long each op of a graph took, from a profile of the computation."""

from __future__ import annotations

from collections.abc import Sequence

from ...tensor import Tensor
from ..profiler import Profile

__all__ = ["find_seconds"]

Call = tuple[str, tuple[tuple[int, ...], ...]]  # the name of an op and the shapes of the arrays that went in


def find_seconds(profile: Profile, forward: Sequence[Tensor], backward: Sequence[Tensor]) -> dict[int, float]:
    """Return the seconds of each Tensor that the profile knows, by id.

    The calls of an op with the same shapes are taken in order. Where there are several times as many as in the graph,
    as in a profile of several steps, each Tensor gets the mean of its own ones; where the numbers do not fit, that of
    all.

    Raises
    ------
    TypeError
        If it is not a `Profile`.
    ValueError
        If it knows none of the forward ops.
    """
    if not isinstance(profile, Profile):
        raise TypeError(f"graph: profile is {type(profile).__name__}; pass the tg.Profile() that recorded the step")
    found = _match(profile, "forward", forward)
    if not found:
        raise ValueError(
            "graph: the profile holds none of the ops of this graph; compute the loss inside of "
            "`with tg.Profile() as profile:`"
        )
    return found | _match(profile, "in rule", backward)


def _match(profile: Profile, phase: str, tensors: Sequence[Tensor]) -> dict[int, float]:
    events: dict[Call, list[float]] = {}
    for event in profile.events:
        if event.phase == phase:
            events.setdefault((event.name, event.shapes), []).append((event.end - event.begin) / 1e9)
    uses: dict[Call, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.op is not None:
            shapes = tuple([a.shape for a in tensor.inputs or () if isinstance(a, Tensor)])
            uses.setdefault((tensor.op.__name__, shapes), []).append(tensor)
    found = {}
    for call, users in uses.items():
        seconds = events.get(call, [])
        step = len(users) if len(seconds) % len(users) == 0 else 1
        for number, tensor in enumerate(users):
            if own := seconds[number % step :: step]:
                found[id(tensor)] = sum(own) / len(own)
    return found
