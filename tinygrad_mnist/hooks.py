"""Hooks: what profilers and debuggers put between the engine and the ops. Nothing here computes anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["Hook", "installed"]


class Hook:
    """Stands between the engine and the ops, in all threads, while it is `installed`. Override one or both methods.

    Hooks can be installed inside each other: ``super().forward(...)`` calls the one below, and the lowest computes.
    """

    below: Hook | None = None

    def forward(self, op: Any, arrays: Sequence[Any], keywords: dict[str, Any]) -> Any:
        """Compute a primitive from ndarrays and numbers, in the forward or (inside `rule`) in the backward pass."""
        below = self.below
        return op.forward(*arrays, **keywords) if below is None else below.forward(op, arrays, keywords)

    def rule(self, rule: Callable[..., Any], position: int, g: Any, node: Any) -> Any:
        """Compute the gradient with respect to input `position` of `node` from `g`, that with respect to `node`."""
        below = self.below
        return rule(g, node, *node.inputs, **node.keywords) if below is None else below.rule(rule, position, g, node)


active: Hook | None = None  # the uppermost; the engine reads it once for each op
_lock = threading.RLock()  # the garbage collector may end a forgotten context while its thread is in here


def _installed() -> Iterator[Hook]:
    """Yield the installed hooks, from the uppermost down."""
    hook = active
    while hook is not None:
        yield hook
        hook = hook.below


@contextmanager
def installed(hook: Hook) -> Iterator[None]:
    """Within this context let `hook` compute every primitive and every rule, in all threads, above those before it.

    Contexts may be left in any order, as they are on several threads.
    """
    global active
    with _lock:
        if any(other is hook for other in _installed()):
            raise RuntimeError(
                f"{type(hook).__name__}: this one is active already; leave its context first, or make another one"
            )
        hook.below, active = active, hook
    try:
        yield
    finally:
        with _lock:
            if active is hook:
                active = hook.below
            else:
                next(above for above in _installed() if above.below is hook).below = hook.below
            hook.below = None
