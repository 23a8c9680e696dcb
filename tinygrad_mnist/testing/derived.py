"""What backward derives at a point, and whether it is sound: finite, repeatable, linear, without side effects."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ..backward import grad
from ..tensor import Array, Tensor
from .magnitudes import draw_signed, norm, own_magnitudes
from .mismatch import GradientMismatch, OutOfRange, first_nonfinite
from .point import PERTURBATION, Point

__all__ = ["DerivedGradients", "gradients", "gradients_near"]

NEXT_TO = 2.0**-36  # at this distance, relative to the inputs, gradients differ by rounding, or because of a kink
AT_ONCE = 2.0**-40  # at this distance, relative to the inputs, outputs change by very little unless they jump:
JUMP = 2.0**-8  # by less than this part of what they change by at PERTURBATION


class DerivedGradients:
    """The derived gradients of all combinations of outputs at a point.

    Attributes
    ----------
    rows : list of list of ndarray
        For each combination of outputs, its gradients by the active inputs.
    rounding_errors : list of float
        For each combination, how far rounding errors may change its value.
    tolerances : list of ndarray
        For each active input, how far rounding errors may change its gradients.

    Raises
    ------
    GradientMismatch
        If backward writes to what it is given, or gradients are not finite, not linear in the cotangent, or not the
        same when computed again.
    """

    def __init__(self, point: Point) -> None:
        self.point = point
        self.rows: list[list[Array]] = []
        self.rounding_errors: list[float] = []
        for combination in point.combinations:
            found, rounding_error = gradients(point, combination)
            self.rows.append(found)
            self.rounding_errors.append(rounding_error)
        if self.rows:
            self._check_linear_and_repeatable()

    @cached_property
    def jumps(self) -> Array:
        """For each combination, whether it changes at once as much as it does farther off.

        A smooth function may: softmax at [1e12, 1e12], as far as differences can tell.
        """
        point = self.point
        at_once, far = (
            np.abs([point.combine(point.outputs_at(p.values) - point.row) for p in (one, point.opposite(one))]).max(
                axis=0
            )
            for one in (point.perturbed(AT_ONCE), point.perturbed(PERTURBATION))
        )
        return np.asarray(at_once > np.maximum(JUMP * np.nan_to_num(far), 1e4 * point.eps * self._sizes))

    @cached_property
    def uncertain(self) -> Array:
        """For each combination, whether it jumps, or rounding errors may be larger than the outputs themselves."""
        unknown = np.array(self.rounding_errors) > np.maximum(self._sizes, self.point.tiny ** (5 / 6))
        return np.asarray(unknown | self.jumps)

    @property
    def _sizes(self) -> Array:
        return np.array([norm(combination * self.point.row) for combination in self.point.combinations])

    def _check_linear_and_repeatable(self) -> None:
        """Check that gradients are linear in the cotangent, and the same after the function was called elsewhere."""
        point = self.point
        factors = draw_signed(point.rng, (len(self.rows),))
        expected = [
            sum(f * part for f, part in zip(factors, parts, strict=True)) for parts in zip(*self.rows, strict=True)
        ]
        mixture = factors @ point.combinations
        mixed, _ = gradients(point, mixture)
        self.tolerances = []
        for k, i in enumerate(point.active):
            rows = np.array([row[k] for row in self.rows])
            tolerance = 1e4 * point.eps * np.abs(rows).sum(axis=0).max(initial=0.0)
            tolerance = tolerance + 1e3 * max(self.rounding_errors) / own_magnitudes(point.values[i])
            tolerance = tolerance + 4 * np.finfo(rows.dtype).smallest_subnormal  # small ones are rounded to these
            self.tolerances.append(tolerance)
        for elsewhere in (np.negative, np.flip):
            point.outputs_at([np.asarray(elsewhere(v)) if i in point.active else v for i, v in enumerate(point.values)])
            again, _ = gradients(point, point.combinations[-1])
            for k, i in enumerate(point.active):
                name, tolerance = point.input_names[i], self.tolerances[k]
                if not np.allclose(again[k], self.rows[-1][k], rtol=0, atol=tolerance):
                    raise GradientMismatch(
                        f"the gradient of {name} is another one when backward is repeated on the same graph, after fn "
                        "was called with other inputs; a rule must depend on its arguments alone, not on what was "
                        "kept from the latest call"
                    )
                change = np.abs(expected[k] - mixed[k])
                if not np.allclose(expected[k], mixed[k], rtol=0, atol=tolerance) and self._exceeds_noise(
                    k, mixture, change
                ):
                    raise GradientMismatch(
                        f"the gradient of {name} is not linear in the cotangent: that of a combination of outputs "
                        f"differs from the combination of gradients by up to {change.max():.3g}; a rule must multiply "
                        "by its g, once"
                    )

    def _exceeds_noise(self, k: int, combination: Array, change: Array) -> bool:
        """Whether a change of the gradient by the k-th active input exceeds its variation next to the point."""
        if self.point.extreme or any(self.uncertain):  # then numbers on the way may underflow, or mean nothing
            return False
        near = np.array([found[k] for found in gradients_near(self.point, combination, NEXT_TO, 4)])
        return bool((change > 10 * np.ptp(near, axis=0)).any())


def gradients(point: Point, combination: Array, finite: bool = True) -> tuple[list[Array], float]:
    """Return the derived gradients of one combination of the outputs by the active inputs, `finite` or else an error.

    Also returns how far rounding errors in all intermediate results may change that combination (to first order).
    """
    found = [np.zeros_like(point.values[i]) for i in point.active]
    before = [out.data.copy() for out in point.outputs]
    leaves = [point.leaves[i] for i in point.active]
    nodes = leaves + point.intermediates
    changes = [norm(combination * point.row)]
    for name, out, part in zip(point.output_names, point.outputs, point.split(combination), strict=True):
        cotangent = Tensor(part)
        if out.requires_grad:
            given = cotangent.data.copy()
            derived = grad(out, nodes, gradient=cotangent)
            if not np.array_equal(given, cotangent.data):
                raise GradientMismatch(
                    f"backward modified the cotangent of {name} in place; a rule must not write to what it is given"
                )
            _check_arrays(point, derived[: len(leaves)], cotangent)
            found = [total + g.data for total, g in zip(found, derived, strict=False)]
            sizes = [np.maximum(np.abs(node.data), point.tiny) for node in nodes]  # smaller ones have absolute errors
            changes += [norm(g.data * size) for g, size in zip(derived, sizes, strict=True)]
            point.infinite |= not all(np.isfinite(g.data).all() for g in derived)
    rounding_error = point.eps * norm(np.array(changes))  # these errors are independent, more or less
    _check_nothing_was_modified(point, before)
    for i, total in zip(point.active, found, strict=True):
        if finite and not np.isfinite(total).all():
            raise (OutOfRange if _overflows(point, combination) else GradientMismatch)(
                f"the derived gradient of {point.input_names[i]} is {first_nonfinite(total)}, though all outputs are "
                "finite"
            )
    return found, rounding_error


def _overflows(point: Point, combination: Array) -> bool:
    """Whether gradients are as infinite next to the point, and numbers in the function are tiny or huge."""
    if not point.extreme:
        return False
    for _ in range(4):
        near = point.perturbed(NEXT_TO)
        try:
            near.trace()
            found, _ = gradients(near, combination, finite=False)
        except Exception:  # as in `gradients_near`
            continue
        steady = np.abs(near.row - point.row) <= np.abs(point.row) / 2  # else the function jumps from float to float
        if steady.all() and all(np.isfinite(g).all() for g in found):
            return False
    return True


def gradients_near(point: Point, combination: Array, distance: float, count: int) -> list[list[Array]]:
    """Return the derived gradients of a combination of the outputs at a few points next to this one."""
    found = []
    for _ in range(count):
        near = point.perturbed(distance)
        try:
            near.trace()
            found.append(gradients(near, combination)[0])
        except Exception:  # the function may not be made for those inputs, or have no finite gradient there
            continue
    return found or [gradients(point, combination)[0]]


def _check_arrays(point: Point, derived: list[Tensor], cotangent: Tensor) -> None:
    """Check shapes and dtypes, and that gradients share no memory with each other or anything else."""
    owned: dict[int, list[Array]] = {}  # arrays by what owns their memory
    for other in (cotangent, *point.leaves, *point.outputs):
        owned.setdefault(_owner(other.data), []).append(other.data)
    for i, g in zip(point.active, derived, strict=True):
        leaf = point.leaves[i]
        if g.shape != leaf.shape or g.dtype != leaf.dtype:
            raise GradientMismatch(
                f"the gradient of {point.input_names[i]} is {g.dtype} {g.shape}, not {leaf.dtype} {leaf.shape}"
            )
        others = owned.setdefault(_owner(g.data), [])
        if any(np.may_share_memory(g.data, other) for other in others):
            raise GradientMismatch(
                f"the derived gradient of {point.input_names[i]} shares memory with an input, output or other gradient"
            )
        others.append(g.data)


def _owner(a: Any) -> int:
    while (base := getattr(a, "base", None)) is not None:
        a = base
    return id(a)


def _check_nothing_was_modified(point: Point, outputs: list[Array]) -> None:
    """Check that the inputs are as they were given, and the outputs as they were before backward."""
    for name, out, data in zip(point.output_names, point.outputs, outputs, strict=True):
        if not np.array_equal(out.data, data):
            raise GradientMismatch(f"backward modified {name} in place")
    for name, leaf, value in zip(point.input_names, point.leaves, point.values, strict=True):
        if not np.array_equal(leaf.data, value, equal_nan=leaf.dtype.kind == "f"):
            raise GradientMismatch(f"{name} was modified in place")
