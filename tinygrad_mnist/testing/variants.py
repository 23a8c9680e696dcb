"""What must make no difference to gradients: the size and memory of cotangents, the memory of inputs, and the like."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..backward import grad, topological_order
from ..tensor import Array, Tensor, wrap
from .derived import DerivedGradients, gradients_near
from .magnitudes import draw_signed, own_magnitudes
from .mismatch import GradientMismatch
from .point import Point

__all__ = ["Variants"]

NEARBY = 2.0**-36  # gradients at this distance differ by rounding, or because of a kink
DISTANCES = tuple(2.0**-n for n in range(10, 14))  # at which a gradient is looked at that seems to be constant
CUT = "a rule cuts it off by .data, .numpy(), .detach() or no_grad(), and second derivatives would be wrong"
FEW = 3  # so many inputs at most are differentiated while the others are constant


class Variants:
    """Gradients at a point, derived in other ways that must give the same.

    For cotangents times 2**20 and 2**-20, and of stride 0; with ``create_graph=True``, where they must also depend on
    the cotangent and, if their values do, on the inputs. At the first order also for inputs in other memory orders, for
    each input alone while the others require no gradient, and for one Tensor in the place of two inputs.

    Raises
    ------
    GradientMismatch
        If they differ.
    """

    def __init__(self, point: Point, derived: DerivedGradients) -> None:
        self.point, self.derived, self.rng = point, derived, np.random.default_rng(0)
        self.leaves = [point.leaves[i] for i in point.active]
        self.names = [point.input_names[i] for i in point.active]
        if not derived.rows:
            return
        self.cotangents, self.expected = point.split(point.combinations[-1]), derived.rows[-1]
        self._scale_and_record()
        self._repeat_one_number()
        if point.level == 1:
            self._store_differently()
            self._give_one_tensor_twice()

    # Cotangents -------------------------------------------------------------------------------------------------------
    def _scale_and_record(self) -> None:
        factor = 2.0 ** (20 if self.point.eps < 1e-4 else 4)
        given = [Tensor(c * factor, requires_grad=True) for c in self.cotangents]
        recorded = self._parts(given, create_graph=True)
        self._compare(
            self._total(recorded),
            "is another one with create_graph=True",
            factor=factor,
            simpler=lambda: self._scale(factor),
        )
        self._scale(1 / factor)
        reached: list[set[int]] = [set() for _ in self.leaves]  # for each gradient, the inputs that it was made from
        for number, parts in recorded:
            for k, part in enumerate(parts):
                ids = {id(node) for node in topological_order(part)} if part.requires_grad else set()
                reached[k] |= {j for j, leaf in enumerate(self.leaves) if id(leaf) in ids}
                if id(given[number]) not in ids and np.abs(part.data).max(initial=0.0) > self.point.tiny:
                    raise GradientMismatch(
                        f"the recorded gradient of {self.names[k]} (create_graph=True) does not depend on the "
                        f"cotangent of {self.point.output_names[number]}: {CUT}"
                    )
        if self.point.level == 1:
            self._vary_what_is_not_reached(reached)

    def _scale(self, factor: float) -> None:
        self._compare(
            self._total(self._parts([wrap(c * factor) for c in self.cotangents])),
            f"is not 2**{round(np.log2(factor))} times as large for a cotangent 2**{round(np.log2(factor))} times as "
            "large; a rule must multiply by its g, however large or small that is",
            factor=factor,
        )

    def _repeat_one_number(self) -> None:
        """Compare for cotangents of stride 0, as a sum or a mean gives them."""
        shapes = [out.shape for out in self.point.outputs]
        if max(map(np.prod, shapes)) > 1:
            filled, repeated = (
                self._total(self._parts([wrap(make(shape, 0.75)) for shape in shapes]))
                for make in (np.full, lambda shape, number: np.broadcast_to(number, shape))
            )
            what = "is another one where the cotangent is one number repeated in memory (stride 0, np.broadcast_to)"
            self._compare(repeated, what, expected=filled)

    def _parts(self, cotangents: Sequence[Tensor], create_graph: bool = False) -> list[tuple[int, list[Tensor]]]:
        """Return the number of each output that can be differentiated, and the gradients for its cotangent."""
        return [
            (number, grad(out, self.leaves, create_graph, gradient=cotangent))
            for number, (out, cotangent) in enumerate(zip(self.point.outputs, cotangents, strict=True))
            if out.requires_grad
        ]

    def _total(self, parts: list[tuple[int, list[Tensor]]]) -> list[Array]:
        return [sum((p[k].data for _, p in parts), np.zeros(leaf.shape)) for k, leaf in enumerate(self.leaves)]

    # What gradients depend on -----------------------------------------------------------------------------------------
    def _vary_what_is_not_reached(self, reached: list[set[int]]) -> None:
        """Check that a recorded gradient that was not made from an input does not change with it.

        Where it jumps, at a kink, it may. But a smooth change halves with the distance.
        """
        inputs = set(range(len(self.leaves)))
        signs = [draw_signed(self.rng, leaf.shape) for leaf in self.leaves]
        groups = dict.fromkeys(frozenset(inputs - found) for found in reached if inputs - found)
        for missing in list(groups)[:FEW]:
            concerned = [k for k in inputs if inputs - reached[k] == missing]
            changes: list[list[Array]] = []  # for each gradient that is concerned, at each distance
            for distance in DISTANCES:
                values = list(self.point.values)
                for i, sign in ((self.point.active[j], signs[j]) for j in missing):
                    values[i] = np.asarray(values[i] + distance * own_magnitudes(values[i]) * sign)
                found = self._gradients_at(values, [i in self.point.active for i in range(len(values))])
                if not found or not any(self._stands_out(k, found[k]).any() for k in concerned):
                    break
                changes.append([np.abs(found[k] - self.expected[k]) for k in concerned])
            if len(changes) < len(DISTANCES):
                continue
            for k, sizes in zip(concerned, zip(*changes, strict=True), strict=True):
                ratios = np.array([far / near for far, near in zip(sizes, sizes[1:], strict=False)])
                smooth = (ratios > 1.6).all(axis=0) & (np.ptp(ratios, axis=0) < 0.2 * ratios[0])
                if (smooth & (sizes[-1] > 100 * self._tolerance(k))).any():
                    others = " or ".join(self.names[j] for j in sorted(missing))
                    raise GradientMismatch(
                        f"the recorded gradient of {self.names[k]} (create_graph=True) does not depend on {others}, "
                        f"though it changes there: {CUT}"
                    )

    def _stands_out(self, k: int, found: Array) -> Array:
        """Where a gradient differs by what is certainly more than rounding."""
        where = np.asarray(np.abs(found - self.expected[k]) > 100 * self._tolerance(k))
        return where & (not where.any() or not (self.point.extreme or any(self.derived.uncertain)))

    # Inputs -----------------------------------------------------------------------------------------------------------
    def _store_differently(self) -> None:
        """Compare for inputs that are not contiguous and, if there are several, for some of them alone."""
        point, several = self.point, len(self.leaves) > 1
        chosen = self.rng.permutation(len(self.leaves))[:FEW].tolist() if several else [0, 0]
        for k, store in zip(chosen, (_with_gaps, _in_columns, _with_gaps), strict=False):
            required = [i == point.active[k] if several else i in point.active for i in range(len(point.values))]
            stored = [store(v) if i in point.active else v for i, v in enumerate(point.values)]
            if several or store is _with_gaps or self.leaves[k].ndim > 1:
                self._compare(
                    self._gradients_at(stored, required),
                    "is another one where inputs are not C-contiguous (in Fortran order, or with gaps)",
                    only=k,
                    simpler=lambda k=k, required=required: self._compare(  # type: ignore[misc]  # cannot be inferred
                        self._gradients_at(point.values, required),
                        "is another one where no other input requires a gradient",
                        only=k,
                    ),
                )

    def _give_one_tensor_twice(self) -> None:
        """Compare where two inputs are the same Tensor with the sum of the gradients of two that are equal."""
        shapes = [leaf.shape for leaf in self.leaves]
        pairs = [(a, b) for b, shape in enumerate(shapes) for a in range(b) if shapes[a] == shape]
        if pairs:
            a, b = pairs[0]
            i, j = self.point.active[a], self.point.active[b]
            values = [self.point.values[i] if n == j else v for n, v in enumerate(self.point.values)]
            required = [n in self.point.active for n in range(len(values))]
            apart = self._gradients_at(values, required)
            together = self._gradients_at(values, required, same=(i, j))
            if apart and together and all(np.isfinite(g).all() for g in apart + together):
                apart[a], size = apart[a] + apart[b], float(np.abs(apart[a]).max(initial=0.0))
                what = f"is not the sum of what two equal Tensors get where {self.names[b]} is the same Tensor"
                self._compare(together, what, expected=apart, only=a, size=size, values=values)

    def _gradients_at(
        self, values: Sequence[Array], required: Sequence[bool], same: tuple[int, int] | None = None
    ) -> list[Array] | None:
        """Return the gradients with other inputs; None if the function does not take them, or gives other shapes."""
        leaves = [wrap(v) for v in values]
        for leaf, on in zip(leaves, required, strict=True):
            leaf._requires_grad = on
        if same:
            leaves[same[1]] = leaves[same[0]]
        try:
            outputs = self.point.call(leaves)
        except Exception:  # whatever a function raises for inputs that it was not made for
            return None
        if [out.shape for out in outputs] != [out.shape for out in self.point.outputs]:
            return None
        found = {i: np.zeros(leaves[i].shape) for i in self.point.active}
        wanted = [i for i in self.point.active if required[i]]
        for out, cotangent in zip(outputs, self.cotangents, strict=True):
            if out.requires_grad:
                for i, g in zip(wanted, grad(out, [leaves[i] for i in wanted], gradient=wrap(cotangent)), strict=True):
                    found[i] = found[i] + g.data
        return list(found.values())

    # Comparison -------------------------------------------------------------------------------------------------------
    def _tolerance(self, k: int) -> Array:
        largest = np.abs(self.expected[k]).max(initial=0.0)
        return np.asarray(self.derived.tolerances[k] + 1e4 * self.point.eps * largest)

    def _compare(
        self,
        found: list[Array] | None,
        what: str,
        *,
        factor: float = 1.0,
        expected: list[Array] | None = None,
        only: int | None = None,
        size: float = 0.0,
        values: list[Array] | None = None,
        simpler: Callable[[], None] = lambda: None,
    ) -> None:
        """Raise if gradients differ by more than rounding, and more than they do next to the point.

        `simpler` is called first then: it raises if something simpler differs, too.
        """
        for k in range(len(self.leaves)) if only is None else [only]:
            if found is None:
                return
            right = (expected or self.expected)[k]
            change = np.abs(found[k] / factor - right)
            tolerance = self._tolerance(k) + 1e4 * self.point.eps * max(size, np.abs(right).max(initial=0.0))
            if (change <= tolerance).all():
                continue
            point = self.point
            if values:
                point = point.at(values)
                point.trace()
            if point.extreme or any(self.derived.uncertain):
                continue
            near = [g[k] for g in gradients_near(point, self.point.combinations[-1], NEARBY, 16)]
            if not (change <= tolerance + 10 * np.ptp(near, axis=0)).all():
                simpler()
                raise GradientMismatch(
                    f"the gradient of {self.names[k]} {what}; it differs by up to {change.max():.3g}"
                )


def _in_columns(x: Array) -> Array:
    return np.asfortranarray(x) if x.ndim > 1 else _with_gaps(x)


def _with_gaps(x: Array) -> Array:
    """Return a copy of which only every other number in memory is used; the others are NaN."""
    if not x.ndim:
        return x
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan)
    wide[..., ::2] = x
    return wide[..., ::2]
