"""The gradient of a loss as a part of the graph: its Tensors, and for which op each of them was made."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, NamedTuple

from ...backward import grad, topological_order
from ...hooks import Hook, installed
from ...tensor import Tensor, _serial

__all__ = ["Differentiated", "differentiate"]


class Differentiated(NamedTuple):
    """A backward pass."""

    values: dict[int, float]  # the gradients that are single numbers, by the id of the Tensor
    results: dict[int, Tensor]  # the gradients of leaves, by the id of the leaf
    made: list[Tensor]  # what the pass has made, each after all that it was made from
    origins: dict[int, Tensor]  # by id, the Tensor of the forward pass whose rule made one


class _Rules(Hook):
    """Note which serial numbers the Tensors have that each rule makes, on this thread."""

    def __init__(self) -> None:
        self.starts = [0]
        self.origins: list[Tensor | None] = [None]
        self.thread = get_ident()

    def rule(self, rule: Callable[..., Any], position: int, g: Any, node: Tensor) -> Any:
        """Compute a VJP rule; what the rules inside of a rule make belongs to the outer one."""
        if self.origins[-1] is not None or get_ident() != self.thread:
            return super().rule(rule, position, g, node)
        self._begin(node)
        result = super().rule(rule, position, g, node)
        self._begin(None)
        return result

    def _begin(self, origin: Tensor | None) -> None:
        self.starts.append(next(_serial))
        self.origins.append(origin)

    def origin(self, tensor: Tensor) -> Tensor | None:
        """Return the Tensor in whose rule this one was made."""
        return self.origins[bisect_right(self.starts, tensor.serial) - 1]


def differentiate(loss: Tensor, forward: Sequence[Tensor], record: bool) -> Differentiated:
    """Compute the gradients of a loss by its leaves and by all single numbers on the way.

    With `record` the pass is recorded, and what it has made is returned.
    """
    reached = topological_order(loss, caller="graph")
    wanted = [tensor for tensor in reached if tensor.op is None or tensor.size == 1]
    rules = _Rules()
    with installed(rules):
        found = grad(loss, wanted, create_graph=record)
    pairs = list(zip(wanted, found, strict=True))
    values = {id(tensor): g.item() for tensor, g in pairs if tensor.size == 1}
    if not record:
        return Differentiated(values, {}, [], {})

    results = {id(tensor): g for tensor, g in pairs if tensor.op is None}
    known = {id(tensor) for tensor in forward}
    made: dict[int, Tensor] = {}
    for g in results.values():
        for tensor in topological_order(g, constants=True, caller="graph"):
            if id(tensor) not in known:
                made[id(tensor)] = tensor
    origins = {}
    for tensor in made.values():
        origin = None if tensor.op is None else rules.origin(tensor)
        if origin is not None:
            origins[id(tensor)] = origin
    return Differentiated(values, results, sorted(made.values(), key=lambda tensor: tensor.serial), origins)
