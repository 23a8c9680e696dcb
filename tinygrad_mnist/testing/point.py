"""A function at the inputs where its gradients are checked.

What it gives there and nearby, and what backward derives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from ..backward import grad
from ..record import is_recording, recording
from ..tensor import Array, Tensor
from .differences import rounding_noise

__all__ = ["GradientMismatch", "Move", "Point", "drawn", "first_bad", "own_sizes"]

ONE_BY_ONE = 32  # up to so many outputs each is differentiated on its own; beyond, random combinations are
ENTRIES = 64  # up to so many entries of an input each is varied on its own; beyond, random directions are
TOTAL = 512  # up to so many entries of all inputs together
FEW = 8  # with more than that in all, only inputs of so many
DIRECTIONS = 16  # for all larger inputs together, and half as many single entries of them
FIRST: dict[type, float] = {
    np.float64: 2.0**-10,
    np.float32: 2.0**-5,
    np.float16: 2.0**-3,
}  # step to begin with, relative to the input
PROBE = 2.0**-40  # how far rounding errors are looked for
NUDGE = 2.0**-6  # how far inputs are moved off a kink, relative to their size
NEAR = 2.0**-36  # so near, gradients differ by rounding, or because there is a kink

Move: TypeAlias = (
    "list[tuple[int, Any]]"  # (position of an input, its direction: an array, or the index of a single entry)
)


class GradientMismatch(AssertionError):  # noqa: N818  # the name is part of the public contract
    """A derivative is wrong. The message says which one, by how much, and how to see it again.

    Attributes
    ----------
    inputs : tuple of ndarray
        The arrays that were checked.
    order : int
        The order of the wrong derivative.
    seed : int
        What `check_gradients` needs as `rng` to draw the same cotangents and directions.
    """

    inputs: tuple[Array, ...] = ()
    order: int = 1
    seed: int = 0


def first_bad(array: Array) -> str:
    """Name the first number that is not finite, and its place."""
    index = tuple(int(n) for n in np.argwhere(~np.isfinite(array))[0])
    return f"{array[index]} at {list(index)}" if index else f"{array}"


def _sizes(x: Array) -> Array:
    """Return the size of each entry, as a power of 2: its own or, if that is larger, what is usual among the others."""
    magnitudes = np.abs(x)
    usual = np.median(magnitudes[magnitudes > 0]) if magnitudes.any() else 1.0
    return np.asarray(2.0 ** np.floor(np.log2(np.maximum(magnitudes, usual))))


def own_sizes(x: Array) -> Array:
    """Return the size of each entry, also of those that are small beside others."""
    return np.where(x, np.abs(x), _sizes(x))


def drawn(rng: np.random.Generator, shape: tuple[int, ...], parts: int = 2**40) -> Array:
    """Draw numbers of either sign, from 0.5 to 1 in size.

    With few `parts` of 1, so that adding them to inputs is mostly exact.
    """
    return np.asarray(rng.integers(parts // 2, parts, shape) / parts * rng.choice([-1.0, 1.0], shape))


class Point:
    """A function, and the inputs at which its gradients are checked."""

    def __init__(
        self,
        fn: Callable[..., Any],
        values: list[Array],
        active: list[int],
        inputs: list[str],
        outputs: list[str],
        rng: np.random.Generator,
    ) -> None:
        self.fn, self.values, self.active, self.rng = fn, values, active, rng
        self.input_names, self.output_names = inputs, outputs
        self.derived: list[list[Array]] = []  # for each combination of outputs, the gradients of the active inputs
        self.roundings: list[float] = []  # and the rounding errors in it
        self.record = True  # whether evaluations need the graph, because the function differentiates something itself

    # Evaluation -------------------------------------------------------------------------------------------------------
    def run(self, values: list[Array], record: bool = True) -> tuple[list[Tensor], list[Tensor]]:
        """Return leaves and floating-point outputs."""
        leaves = [Tensor(v, requires_grad=i in self.active) for i, v in enumerate(values)]
        with recording(record):
            out = self.fn(*leaves)
        outputs = list(out) if isinstance(out, (tuple, list)) else [out]
        for one in outputs:
            if not isinstance(one, Tensor):
                raise TypeError(
                    f"check_gradients: fn returned {type(one).__name__}; it must return a Tensor or a tuple of Tensors"
                )
        return leaves, [one for one in outputs if one.dtype.kind == "f"]

    def flat(self, values: list[Array]) -> Array:
        """Return all outputs in one row."""
        return _row(self.run(values, self.record)[1])

    def elsewhere(self, values: list[Array]) -> Array:
        """Return all outputs at other inputs.

        Nan where the function does not take those, or gives outputs of other shapes.
        """
        try:
            row = self.flat(values)
        except Exception:  # whatever a function raises for inputs that it was not made for
            row = np.zeros(0)
        return row if row.shape == self.row.shape else np.full(self.row.shape, np.nan)

    def trace(self) -> None:
        """Evaluate the function, keeping the graph, and see how precise it is."""
        self.leaves, self.outputs = self.run(self.values)
        self.row = _row(self.outputs)
        nodes = _nodes(self.outputs)
        self.between = [node for node in nodes if node.op is not None]
        kind = max(
            [np.dtype(np.float64), *(node.dtype for node in nodes)], key=lambda dtype: float(np.finfo(dtype).eps)
        )
        self.eps, self.first = float(np.finfo(kind).eps), FIRST.get(kind.type, FIRST[np.float64])

    def look(self) -> None:
        """Evaluate the function, see whether it is fit to be checked, and draw the combinations of outputs to check."""
        self.trace()
        if len(self.output_names) != len(self.outputs):
            self.output_names = [f"output {i}" for i in range(len(self.outputs))]
        for name, out in zip(self.output_names, self.outputs, strict=True):
            if not np.isfinite(out.data).all():
                raise ValueError(
                    f"check_gradients: {name} of fn is {first_bad(out.data)}; finite differences need finite numbers"
                )
        self.same_again()
        values = self.moved(NUDGE).values
        with_graph = self.elsewhere(values)
        self.record = False
        self.record = not np.array_equal(self.elsewhere(values), with_graph)  # nan, too, if it cannot do without
        size = self.row.size
        few = size <= ONE_BY_ONE
        self.singles = np.arange(size) if few else self.rng.choice(size, 4, replace=False)
        self.factors = drawn(self.rng, self.singles.shape)
        self.mixtures = drawn(self.rng, (int(size > 1) if few else 4, size))
        if not few and self.row.any():  # in the last one small outputs count as much as large ones
            magnitudes = np.abs(self.row)
            self.mixtures[-1] *= 1e-6 * magnitudes.max() / np.maximum(magnitudes, 1e-6 * magnitudes.max())
        alone = np.zeros((len(self.singles), size))
        alone[np.arange(len(self.singles)), self.singles] = self.factors
        self.weights = np.concatenate([alone, self.mixtures])  # (combinations, outputs)

    def same_again(self) -> None:
        for _ in range(2):
            again = self.flat(self.values)
            if again.shape != self.row.shape or not np.allclose(
                again, self.row, rtol=1e-6, atol=1e-6 * np.abs(self.row).max(initial=0)
            ):
                raise ValueError(
                    "check_gradients: fn gives different outputs for the same inputs; fix the generator: make it anew "
                    "in every call, as in "
                    "lambda x: tg.dropout(x, 0.5, rng=np.random.default_rng(0))"
                )

    def combined(self, row: Array) -> Array:
        """Return the combinations of these outputs that are compared: some outputs alone, then mixtures."""
        return np.concatenate([row[self.singles] * self.factors, self.mixtures @ row])

    def along(self, move: Move, combinations: Any = slice(None)) -> Callable[[float], Array]:
        """Return the combinations of outputs as a function of how far the inputs are moved."""

        def f(t: float) -> Array:
            values = list(self.values)
            for i, direction in move:
                if isinstance(direction, tuple):
                    values[i] = values[i].copy()
                    values[i][direction] += t
                else:
                    values[i] = np.asarray(values[i] + t * direction)
            return np.asarray(self.combined(self.elsewhere(values))[combinations])

        return f

    def gradients(self, weights: Array) -> list[Array]:
        """Return the derived gradients of one combination of the outputs with respect to the active inputs.

        Also notes how far rounding errors in all intermediate results may change that combination (to first order).
        """
        found = [np.zeros_like(self.values[i]) for i in self.active]
        before, start = [out.data.copy() for out in self.outputs], 0
        changes = [_norm(weights * self.row)]
        for name, out in zip(self.output_names, self.outputs, strict=True):
            cotangent = Tensor(weights[start : start + out.size].reshape(out.shape))
            start += out.size
            if out.requires_grad:
                given = cotangent.data.copy()
                leaves = [self.leaves[i] for i in self.active]
                slopes = grad(out, leaves + self.between, gradient=cotangent)
                if not np.array_equal(given, cotangent.data):
                    raise GradientMismatch(
                        f"backward modified the cotangent of {name} in place; a rule must not write to what it is given"
                    )
                self.alias(slopes[: len(leaves)], cotangent)
                found = [total + slope.data for total, slope in zip(found, slopes, strict=False)]
                changes += [
                    _norm(slope.data * node.data) for slope, node in zip(slopes, leaves + self.between, strict=True)
                ]
        self.rounding = self.eps * _norm(np.array(changes))  # these errors are independent, more or less
        for name, out, data in zip(self.output_names, self.outputs, before, strict=True):
            if not np.array_equal(out.data, data):
                raise GradientMismatch(f"backward modified {name} in place")
        for name, leaf, value in zip(self.input_names, self.leaves, self.values, strict=True):
            if not np.array_equal(leaf.data, value, equal_nan=leaf.dtype.kind == "f"):
                raise GradientMismatch(f"{name} was modified in place")
        for i, total in zip(self.active, found, strict=True):
            if not np.isfinite(total).all():
                raise GradientMismatch(
                    f"the derived gradient of {self.input_names[i]} is {first_bad(total)}, though all outputs are "
                    "finite"
                )
        return found

    def alias(self, slopes: list[Tensor], cotangent: Tensor) -> None:
        others = [cotangent.data, *(leaf.data for leaf in self.leaves), *(out.data for out in self.outputs)]
        for position, slope in enumerate(slopes):
            i = self.active[position]
            if slope.shape != self.values[i].shape or slope.dtype != self.leaves[i].dtype:
                leaf = self.leaves[i]
                raise GradientMismatch(
                    f"the gradient of {self.input_names[i]} is {slope.dtype} {slope.shape}, not {leaf.dtype} "
                    f"{leaf.shape}"
                )
            if any(np.may_share_memory(slope.data, other) for other in [*others, *(s.data for s in slopes[:position])]):
                raise GradientMismatch(
                    f"the derived gradient of {self.input_names[i]} shares memory with an input, output or other "
                    "gradient"
                )

    def derive(self) -> None:
        """Derive the gradients of all combinations of outputs, and check that they are sound.

        Linear in the cotangent, and repeatable.
        """
        for row in self.weights:
            self.derived.append(self.gradients(row))
            self.roundings.append(self.rounding)
        if len(self.weights):
            self.linear()

    def linear(self) -> None:
        """Check that gradients are linear in the cotangent, and the same when computed again after the function was
        called elsewhere.
        """
        factors = drawn(self.rng, (len(self.weights),))
        expected = [
            sum(f * part for f, part in zip(factors, parts, strict=True)) for parts in zip(*self.derived, strict=True)
        ]
        mixed = self.gradients(factors @ self.weights)
        for elsewhere in (np.negative, np.flip):
            self.elsewhere([np.asarray(elsewhere(v)) if i in self.active else v for i, v in enumerate(self.values)])
            again = self.gradients(self.weights[-1])
            for k, i in enumerate(self.active):
                name, rows = self.input_names[i], np.array([row[k] for row in self.derived])
                bound = 1e4 * self.eps * np.abs(rows).sum(axis=0).max(initial=0.0) + 1e3 * max(
                    self.roundings
                ) / own_sizes(self.values[i])
                if not np.allclose(again[k], rows[-1], rtol=0, atol=bound):
                    raise GradientMismatch(
                        f"the gradient of {name} is another one when backward is repeated on the same graph, after fn "
                        "was called with "
                        "other inputs; a rule must depend on its arguments alone, not on what was kept from the latest "
                        "call"
                    )
                if not np.allclose(expected[k], mixed[k], rtol=0, atol=bound) and self.steady(
                    k, factors @ self.weights, expected[k] - mixed[k]
                ):
                    raise GradientMismatch(
                        f"the gradient of {name} is not linear in the cotangent: that of a combination of outputs "
                        "differs from the "
                        f"combination of gradients by up to {np.abs(expected[k] - mixed[k]).max():.3g}; a rule must "
                        "multiply by its g, once"
                    )

    def steady(self, k: int, weights: Array, change: Array) -> bool:
        """Whether the gradient by the k-th active input is known well enough, at points next to this one, to see such a
        change.
        """
        near = np.array([gradients[k] for gradients in self.nearby(weights, NEAR, 4)])
        return bool((np.abs(change) > 10 * np.ptp(near, axis=0)).any())

    def noise(self) -> Array:
        """Return the size of the rounding errors in each combination of the outputs."""
        scales = {i: own_sizes(self.values[i]) * drawn(self.rng, self.values[i].shape) for i in self.active}
        seen = rounding_noise(self.along(list(scales.items())), PROBE)
        return np.asarray(np.clip(seen, self.roundings, 1e4 * np.array(self.roundings)))  # more than that is a jump

    @property
    def large(self) -> list[int]:
        """Inputs that have too many entries to vary each of them."""
        total = sum(self.values[i].size for i in self.active)
        return [i for i in self.active if self.values[i].size > (ENTRIES if total <= TOTAL else FEW)]

    def moves(self) -> Iterator[tuple[Move, str, str, tuple[float, float, float]]]:
        """What to vary: (move, name of an input, where in it, steps as `slopes_at_zero` takes them)."""
        large = self.large
        for i in large if len(large) <= FEW else ():
            equal = np.full(self.values[i].shape, _sizes(self.values[i]).min())  # then what ties keeps tying
            yield [(i, equal)], self.input_names[i], " as a whole", (self.first, self.first, 0.25)
        for number in range(-(-DIRECTIONS // len(large)) if large else 0):
            for i in large:
                direction = _sizes(self.values[i]) * drawn(self.rng, self.values[i].shape, 16)
                yield (
                    [(i, direction)],
                    self.input_names[i],
                    f" in random direction {number}",
                    (self.first, self.first, 0.25),
                )
        singles = DIRECTIONS // (2 * len(large)) if large else 0
        for i in self.active:
            x, sizes = self.values[i], _sizes(self.values[i])
            if i in large:
                slopes = np.abs(self.derived[0][self.active.index(i)]).ravel()
                extremes = [
                    int(np.where(slopes > 0, slopes, np.inf).argmin()),
                    int(slopes.argmax()),
                    *self.rng.permutation(x.size)[:singles],
                ]
                chosen = [np.unravel_index(n, x.shape) for n in extremes[:singles]]
            else:
                chosen = list(np.ndindex(x.shape))
            for index in chosen:
                size = float(sizes[index])
                own = float(2.0 ** np.floor(np.log2(abs(x[index])))) if x[index] else size
                yield (
                    [(i, index)],
                    self.input_names[i],
                    _place(index),
                    (self.first * own, self.first * size, max(size, 1.0) / 4),
                )

    def claims(self, move: Move, derived: list[list[Array]]) -> Array:
        """Return the derivative along a move that each of the derived gradients claims."""

        def along(gradients: list[Array]) -> float:
            parts = [gradients[self.active.index(i)] for i, _ in move]
            return sum(
                float(part[d] if isinstance(d, tuple) else np.sum(part * d))
                for part, (_, d) in zip(parts, move, strict=True)
            )

        return np.array([along(gradients) for gradients in derived])

    def slack(self, move: Move) -> Array:
        """Return how far rounding errors may change what the derived gradients claim.

        As much as the outputs, relative to the inputs.
        """
        speeds = [
            1 / own_sizes(self.values[i][d]) if isinstance(d, tuple) else np.abs(d) / own_sizes(self.values[i])
            for i, d in move
        ]
        return 32 * max(float(np.max(speed, initial=0.0)) for speed in speeds) * np.array(self.roundings)

    def described(self, combination: int) -> tuple[float, str]:
        """Return the factor and the name of an output that is looked at alone, or 1 and a name for a mixture."""
        if combination >= len(self.singles):
            return 1.0, "a random combination of the outputs"
        place = int(self.singles[combination])
        factor = float(self.factors[combination])
        ends = np.cumsum([out.size for out in self.outputs])
        number = int(np.searchsorted(ends, place, side="right"))
        shape = self.outputs[number].shape
        index = np.unravel_index(place - int(ends[number]) + self.outputs[number].size, shape)
        return factor, f"{self.output_names[number]}{_place(index)}"

    def together(self, moves: list[Move]) -> tuple[Move, tuple[float, float, float]]:
        """Return the move of all these single entries by the same amount, and steps for it."""
        smallest = min(float(_sizes(self.values[i])[index]) for ((i, index),) in moves)
        directions = {i: np.zeros_like(self.values[i]) for ((i, _),) in moves}
        for ((i, index),) in moves:
            directions[i][index] = 1.0
        return list(directions.items()), (self.first * smallest, self.first * smallest, 0.25)

    def moved(self, by: float) -> Point:
        """Return the same function a little way off, in a random direction."""
        values = [
            np.asarray(v + by * own_sizes(v) * drawn(self.rng, v.shape)) if i in self.active else v
            for i, v in enumerate(self.values)
        ]
        return Point(self.fn, values, self.active, self.input_names, self.output_names, self.rng)

    def beside(self) -> list[Point]:
        """Return the same function off a kink, on either side; on one side if it is large."""
        there = self.moved(NUDGE)
        back = [
            np.asarray(2 * v - w) if i in self.active else v
            for i, (v, w) in enumerate(zip(self.values, there.values, strict=True))
        ]
        return (
            [there]
            if self.large
            else [there, Point(self.fn, back, self.active, self.input_names, self.output_names, self.rng)]
        )

    def nearby(self, weights: Array, by: float, count: int) -> list[list[Array]]:
        """Return the derived gradients of a combination of the outputs at a few points next to this one."""
        found = []
        for _ in range(count):
            point = self.moved(by)
            try:
                point.trace()
                found.append(point.gradients(weights))
            except (
                Exception
            ):  # as in `elsewhere`: it may not be made for those inputs, or have no finite gradient there
                continue
        return found or [self.gradients(weights)]

    def slopes(self) -> Point:
        """Return the gradients as a function of the inputs and of the cotangents, to check their derivatives."""
        count, active, run = len(self.values), self.active, self.fn

        def derived(*args: Tensor) -> tuple[Tensor, ...]:
            xs, again = args[:count], is_recording()
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

        return Point(
            derived,
            [*self.values, *(drawn(self.rng, out.shape) for out in self.outputs)],
            [*active, *range(count, count + len(self.outputs))],
            [*self.input_names, *(f"the cotangent of {name}" for name in self.output_names)],
            [f"gradient of {self.input_names[i]}" for i in active],
            self.rng,
        )


def _place(index: tuple[Any, ...]) -> str:
    return str([int(n) for n in index]) if index else ""


def _norm(a: Array) -> float:
    """Return the root of the sum of squares of what is finite, without overflow."""
    magnitudes = np.abs(a[np.isfinite(a)], dtype=np.float64)
    largest = float(magnitudes.max(initial=0.0))
    return largest * float(np.linalg.norm(magnitudes / largest)) if largest else 0.0


def _row(outputs: list[Tensor]) -> Array:
    return np.concatenate([np.zeros(0), *(out.data.ravel() for out in outputs)], dtype=np.float64)


def _nodes(outputs: list[Tensor]) -> list[Tensor]:
    """Return these and all Tensors that they were made from, as far as gradients flow."""
    nodes = [out for out in outputs if out.requires_grad]
    seen = {id(node) for node in nodes}
    for node in nodes:  # the list grows while it is read
        for a in node.inputs or ():
            if isinstance(a, Tensor) and a.requires_grad and id(a) not in seen:
                seen.add(id(a))
                nodes.append(a)
    return nodes
