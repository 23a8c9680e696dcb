"""Learning-rate schedules: pure functions of the step, so that resumed training needs no state of them.

Each takes the index of the step, from 0, and the total number of steps, and returns the factor on the learning rate of
the optimizer. `warmup` makes one schedule from another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..validation import each, integer, real

__all__ = ["constant", "cosine", "linear", "one_cycle", "step_decay", "warmup"]


def constant(step: int, steps: int) -> float:
    """Return 1: the learning rate does not change.

    Examples
    --------
    >>> constant(3, 4)
    1.0
    """
    _share(step, steps)
    return 1.0


def cosine(step: int, steps: int) -> float:
    """Decay from 1 to 0 along half a period of the cosine (Loshchilov and Hutter, 2017, without restarts).

    Examples
    --------
    >>> [round(cosine(step, 4), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    return (1 + math.cos(math.pi * _share(step, steps))) / 2


def linear(step: int, steps: int) -> float:
    """Decay from 1 to 0 along a straight line.

    Examples
    --------
    >>> [linear(step, 4) for step in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    return 1 - _share(step, steps)


def one_cycle(step: int, steps: int, rise: float = 0.25) -> float:
    """Rise along a straight line, then fall along another one to 0 (Smith and Topin, 2019).

    The same as ``warmup(linear, rise)``.

    Parameters
    ----------
    step, steps : int
    rise : float
        The share of all steps in which the learning rate rises, at least 0 and below 1.

    Examples
    --------
    >>> [round(one_cycle(step, 8), 3) for step in range(9)]
    [0.333, 0.667, 1.0, 0.833, 0.667, 0.5, 0.333, 0.167, 0.0]
    """
    return warmup(linear, real("one_cycle", "rise", rise, least=0, below=1))(step, steps)


def step_decay(step: int, steps: int, milestones: Sequence[float] = (0.5, 0.75), gamma: float = 0.1) -> float:
    """Multiply by `gamma`, from 0 to 1, at each milestone, given as a fraction of all steps.

    Examples
    --------
    >>> [round(step_decay(step, 4), 6) for step in range(4)]
    [1.0, 1.0, 0.1, 0.01]
    """
    gamma, share = real("step_decay", "gamma", gamma, least=0, most=1), _share(step, steps)
    milestones = each("step_decay", "milestones", milestones, real, least=0, most=1)
    return gamma ** sum(share >= milestone for milestone in milestones)


def warmup(schedule: Callable[[int, int], float], share: float) -> Callable[[int, int], float]:
    """Increase the learning rate linearly, then follow a schedule.

    Parameters
    ----------
    schedule : callable
        The schedule to follow; its steps are counted from the end of the warmup.
    share : float
        Length of the warmup as a fraction of all steps, at least 0 and below 1, rounded down to n whole steps. In them
        the factor is 1/(n+1), 2/(n+1), and so on.

    Returns
    -------
    callable
        Another schedule.

    Examples
    --------
    >>> slowly = warmup(cosine, 0.5)
    >>> [round(slowly(step, 6), 3) for step in range(6)]
    [0.25, 0.5, 0.75, 1.0, 0.75, 0.25]
    """
    share = real("warmup", "share", share, least=0, below=1)

    def warmed(step: int, steps: int) -> float:
        _share(step, steps)
        warm = int(share * steps)
        return (step + 1) / (warm + 1) if step < warm else schedule(step - warm, steps - warm)

    return warmed


def _share(step: int, steps: int) -> float:
    step, steps = integer("schedule", "step", step), integer("schedule", "steps", steps)
    if step > steps or steps < 1:
        raise ValueError(f"step {step} of {steps} steps: count from 0, and pass at least 1 step")
    return step / steps
