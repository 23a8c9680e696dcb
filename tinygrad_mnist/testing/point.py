"""A function at the inputs where its gradients are checked: what it gives there and nearby."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backward import grad, topological_order
from ..record import mode, recording
from ..tensor import Array, Tensor
from .magnitudes import draw_signed, own_magnitudes
from .mismatch import OutOfRange, first_nonfinite

__all__ = ["PERTURBATION", "Point", "place"]

ONE_BY_ONE = 32  # up to so many outputs each is differentiated on its own; beyond, random combinations are
PERTURBATION = 2.0**-6  # how far inputs are moved off a kink, relative to their size
FIRST_STEPS: dict[type, float] = {
    np.float64: 2.0**-10,
    np.float32: 2.0**-5,
    np.float16: 2.0**-3,
}  # step to begin with, relative to the input


class Point:
    """A function, and the inputs at which its gradients are checked.

    Attributes
    ----------
    active : list of int
        Positions of the inputs to differentiate by.
    leaves, outputs, intermediates : list of Tensor
        One evaluation with its graph: inputs, floating-point outputs, and all Tensors that an op made.
    row : ndarray
        All outputs in one row.
    combinations : ndarray
        The combinations of outputs that are compared, of shape (combinations, outputs): some outputs alone, each with
        a random factor, then mixtures of all.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        values: list[Array],
        active: list[int],
        input_names: list[str],
        output_names: list[str],
        rng: np.random.Generator,
    ) -> None:
        self.fn, self.values, self.active, self.rng = fn, values, active, rng
        self.input_names, self.output_names = input_names, output_names
        self.record = True  # whether evaluations need the graph, because the function differentiates something itself
        self.level = 1  # how often the function was differentiated, plus 1
        self.infinite = False  # whether a gradient inside is not finite, which a mask may keep from the inputs

    # Evaluation -------------------------------------------------------------------------------------------------------
    def run(self, values: list[Array], record: bool = True) -> tuple[list[Tensor], list[Tensor]]:
        """Return leaves and floating-point outputs."""
        leaves = [Tensor(v, requires_grad=i in self.active) for i, v in enumerate(values)]
        return leaves, self.call(leaves, record)

    def call(self, leaves: list[Tensor], record: bool = True) -> list[Tensor]:
        """Return floating-point outputs."""
        with recording(record):
            out = self.fn(*leaves)
        outputs = list(out) if isinstance(out, (tuple, list)) else [out]
        for one in outputs:
            if not isinstance(one, Tensor):
                raise TypeError(
                    f"check_gradients: fn returned {type(one).__name__}; it must return a Tensor or a tuple of Tensors"
                )
        return [one for one in outputs if one.dtype.kind == "f"]

    def outputs_at(self, values: list[Array]) -> Array:
        """Return all outputs at other inputs in one row.

        NaN where the function does not take those, or gives outputs of other shapes.
        """
        try:
            row = _row(self.run(values, self.record)[1])
        except Exception:  # whatever a function raises for inputs that it was not made for
            row = np.zeros(0)
        return row if row.shape == self.row.shape else np.full(self.row.shape, np.nan)

    def trace(self) -> None:
        """Evaluate the function, keep the graph, and find the lowest precision in it."""
        self.leaves, self.outputs = self.run(self.values)
        self.row = _row(self.outputs)
        nodes = [node for out in self.outputs if out.requires_grad for node in topological_order(out)]
        self.intermediates = [node for node in nodes if node.op is not None]
        dtypes = [np.dtype(np.float64), *(node.dtype for node in nodes)]
        lowest = max(dtypes, key=lambda dtype: float(np.finfo(dtype).eps))
        self.eps, self.tiny = float(np.finfo(lowest).eps), float(np.finfo(lowest).tiny)
        self.first_step = FIRST_STEPS.get(lowest.type, FIRST_STEPS[np.float64])

    @property
    def weight(self) -> float:
        """What an evaluation costs, in operations on small arrays."""
        return sum(1 + node.size / 1000 for node in self.intermediates)

    @property
    def extreme(self) -> bool:
        """Whether numbers in the function are so tiny or huge that products of a few may underflow or overflow."""
        sizes = (
            np.abs(a[a != 0]) for a in [*self.row[None], *(node.data for node in self.intermediates + self.leaves)]
        )
        least = self.tiny ** (1 / 6)
        return any(size.min(initial=1.0) < least or size.max(initial=1.0) > 1 / least for size in sizes)

    def prepare(self) -> None:
        """Evaluate the function, check that its gradients can be checked, and draw combinations of outputs."""
        self.trace()
        if len(self.output_names) != len(self.outputs):
            self.output_names = [f"output {i}" for i in range(len(self.outputs))]
        for name, out in zip(self.output_names, self.outputs, strict=True):
            if not np.isfinite(out.data).all():
                raise (ValueError if self.level == 1 else OutOfRange)(
                    f"check_gradients: {name} of fn is {first_nonfinite(out.data)}; finite differences need finite "
                    "numbers"
                )
        self.check_repeatable()
        values = self.perturbed(PERTURBATION).values
        with_graph = self.outputs_at(values)
        self.record = False
        self.record = not np.array_equal(self.outputs_at(values), with_graph)  # NaN, too, if it cannot do without
        size = self.row.size
        few = size <= ONE_BY_ONE
        self.singles = np.arange(size) if few else self.rng.choice(size, 4, replace=False)
        self.factors = draw_signed(self.rng, self.singles.shape)
        self.mixtures = draw_signed(self.rng, (int(size > 1) if few else 4, size))
        if not few and self.row.any():  # in the last one small outputs count as much as large ones
            sizes = np.abs(self.row)
            self.mixtures[-1] *= 1e-6 * sizes.max() / np.maximum(sizes, 1e-6 * sizes.max())
        alone = np.zeros((len(self.singles), size))
        alone[np.arange(len(self.singles)), self.singles] = self.factors
        self.combinations = np.concatenate([alone, self.mixtures])

    def check_repeatable(self) -> None:
        """Check that the function gives the same outputs again."""
        for _ in range(2):
            again = _row(self.run(self.values, self.record)[1])
            if again.shape != self.row.shape or not np.allclose(
                again, self.row, rtol=1e-6, atol=1e-6 * np.abs(self.row).max(initial=0)
            ):
                raise ValueError(
                    "check_gradients: fn gives different outputs for the same inputs; fix the generator: make it anew "
                    "in every call, as in lambda x: tg.dropout(x, 0.5, rng=np.random.default_rng(0))"
                )

    # Combinations of outputs ------------------------------------------------------------------------------------------
    def combine(self, row: Array) -> Array:
        """Return the combinations of these outputs that are compared: some outputs alone, then mixtures.

        The sums are pairwise, as NumPy's are along contiguous axes: those of a matrix product have larger errors.
        """
        return np.concatenate([row[self.singles] * self.factors, (self.mixtures * row).sum(axis=1)])

    def split(self, combination: Array) -> list[Array]:
        """Return a combination of outputs as cotangents of the outputs."""
        ends = np.cumsum([out.size for out in self.outputs])
        parts = np.split(combination, ends[:-1])
        return [part.reshape(out.shape) for part, out in zip(parts, self.outputs, strict=True)]

    def output_of(self, combination: int) -> tuple[float, str]:
        """Return the factor and the name of an output that is compared alone, or 1 and a name for a mixture."""
        if combination >= len(self.singles):
            return 1.0, "a random combination of the outputs"
        position = int(self.singles[combination])
        factor = float(self.factors[combination])
        ends = np.cumsum([out.size for out in self.outputs])
        number = int(np.searchsorted(ends, position, side="right"))
        shape = self.outputs[number].shape
        index = np.unravel_index(position - int(ends[number]) + self.outputs[number].size, shape)
        return factor, f"{self.output_names[number]}{place(index)}"

    # Other points -----------------------------------------------------------------------------------------------------
    def perturbed(self, distance: float) -> Point:
        """Return the same function a little way off, in a random direction; the distance is relative to the inputs."""
        values = [
            np.asarray(v + distance * own_magnitudes(v) * draw_signed(self.rng, v.shape)) if i in self.active else v
            for i, v in enumerate(self.values)
        ]
        return self.at(values)

    def opposite(self, other: Point) -> Point:
        """Return the point as far off as `other`, on the other side."""
        return self.at(
            [
                np.asarray(2 * v - w) if i in self.active else v
                for i, (v, w) in enumerate(zip(self.values, other.values, strict=True))
            ]
        )

    def at(self, values: list[Array]) -> Point:
        """Return the same function at other inputs."""
        return Point(self.fn, values, self.active, self.input_names, self.output_names, self.rng)

    def differentiated(self) -> Point:
        """Return the gradients as a function of the inputs and of the cotangents, to check their derivatives.

        Where a gradient inside is infinite, cotangents are constants: the derivatives by them would be 0 * inf there.
        """
        count, active, run = len(self.values), self.active, self.fn

        def derived(*args: Tensor) -> tuple[Tensor, ...]:
            xs, again = args[:count], mode.recording
            with recording(True):
                out = run(*xs)
            outputs = [one for one in (out if isinstance(out, (tuple, list)) else [out]) if one.dtype.kind == "f"]
            parts = [
                grad(one, [xs[i] for i in active], create_graph=again, gradient=cotangent)
                for one, cotangent in zip(outputs, args[count:], strict=True)
                if one.requires_grad
            ]
            totals = [sum(terms[1:], terms[0]) for terms in zip(*parts, strict=True)]
            return tuple(totals) or tuple(Tensor(np.zeros_like(xs[i].data)) for i in active)

        cotangents = range(count, count + len(self.outputs))
        point = Point(
            derived,
            [*self.values, *(draw_signed(self.rng, out.shape) for out in self.outputs)],
            [*active, *([] if self.infinite else cotangents)],
            [*self.input_names, *(f"the cotangent of {name}" for name in self.output_names)],
            [f"gradient of {self.input_names[i]}" for i in active],
            self.rng,
        )
        point.infinite, point.level = self.infinite, self.level + 1
        return point


def place(index: tuple[Any, ...]) -> str:
    """Write an index as it is shown: ``[0, 2]``, or nothing for an array without axes."""
    return str([int(n) for n in index]) if index else ""


def _row(outputs: list[Tensor]) -> Array:
    return np.concatenate([np.zeros(0), *(out.data.ravel() for out in outputs)], dtype=np.float64)
