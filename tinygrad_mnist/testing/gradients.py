"""Compare derived gradients with finite differences, and say what is wrong with them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import ops
from ..record import recording
from ..tensor import Array, Operand, Tensor, numeric
from ..validation import integer
from .comparison import Comparison
from .derived import gradients, gradients_near
from .directions import large_inputs
from .magnitudes import own_magnitudes
from .mismatch import GradientMismatch, OutOfRange, first_nonfinite
from .point import PERTURBATION, Point
from .variants import Variants

__all__ = ["GradientMismatch", "InconclusiveWarning", "Report", "check_gradients"]

SHOWN = 3  # kinks that a warning names one by one
PASTED = 60  # numbers that a message shows in full


class InconclusiveWarning(UserWarning):
    """There is a kink where gradients were to be checked, or numbers overflow.

    Nothing is wrong, but not everything could be verified there.
    """


@dataclass(frozen=True)
class Report:
    """What `check_gradients` found where nothing is wrong.

    Attributes
    ----------
    verdict : {"pass", "inconclusive"}
        "inconclusive" if one-sided differences disagree somewhere: at a kink, such as relu at 0 or a tie in max. Also
        if `order` is 2 or 3 and a gradient inside the function is infinite, as in ``sqrt(relu(x))`` at -1: then
        derivatives by the cotangent are left out. Also if gradients overflow, as that of ``1 / x`` at 1e-200, or
        outputs do in the precision of the inputs.
    compared : int
        Number of derivatives that were compared.
    notes : tuple of str
        Where the check was inconclusive, and why.
    """

    verdict: str
    compared: int
    notes: tuple[str, ...] = ()


def check_gradients(
    fn: Callable[..., Any],
    *inputs: Operand,
    order: int = 1,
    rng: np.random.Generator | int | None = None,
    wrt: int | Sequence[int] | None = None,
    inconclusive: str = "warn",
) -> Report:
    """Compare the derived gradients of `fn` with finite differences.

    Each derivative of each output by each input entry is compared where these are few, else random combinations of
    outputs (never with weights of one) in random directions and at some single entries. The differences are taken at
    several steps and extrapolated; the tolerance is their estimated error, relative to the derivative in question, so
    that tiny and huge gradients are judged alike. Also checked: that backward is linear in the cotangent, gives the
    same when repeated (also after `fn` was called with other inputs), and modifies neither inputs nor outputs nor
    cotangents; that it gives the same for cotangents 2**20 times as large or small and of stride 0, for inputs that are
    not C-contiguous, for one Tensor given twice, for an input alone while others require no gradient, and with
    ``create_graph=True``; and that gradients recorded so depend on what they change with.

    Parameters
    ----------
    fn : callable
        Tensors to a Tensor or a tuple of Tensors, of any shapes. It must give the same each time: make generators anew
        inside it.
    *inputs : array_like
        Floating-point ones are differentiated, in float64 (if they are float32, the gradients in float32 are compared
        with those in float64, too). Integers and booleans are passed on as they are.
    order : {1, 2, 3}
        2 also checks the derivatives of the gradients (by the inputs and by the cotangent), 3 the derivatives of those.
    rng : numpy.random.Generator or int, optional
        Draws cotangents and directions; by default always the same ones.
    wrt : int or sequence of int, optional
        Positions of the inputs to differentiate by; by default all floating-point ones.
    inconclusive : {"warn", "ignore"}
        Whether to warn (`InconclusiveWarning`) where something is left unverified. At a kink, the check is repeated
        a little way off.

    Returns
    -------
    Report
        With the verdict "pass" or "inconclusive". Nothing is printed.

    Raises
    ------
    GradientMismatch
        If a derivative is wrong, not finite, or misbehaves. The message is a diagnosis.
    TypeError
        If there is no floating-point input, or `fn` returns no Tensor.
    ValueError
        If inputs or outputs are not finite, the output depends on no input, or `fn` gives different outputs for the
        same inputs.

    Notes
    -----
    Central differences with Richardson extrapolation; see W. H. Press et al., Numerical Recipes, 3rd ed. (2007),
    section 5.7.

    Examples
    --------
    >>> import tinygrad_mnist as tg
    >>> check_gradients(lambda x, y: tg.exp(x) * y, np.ones((2, 1)), np.ones(3), order=2).verdict
    'pass'
    >>> check_gradients(tg.relu, [-1.0, 0.0, 1.0], inconclusive="ignore").notes
    ('output[1] by input 0[1]: one-sided derivatives 0 and 1, derived 0',)
    """
    __tracebackhide__ = True
    order = integer("check_gradients", "order", order, 1)
    if order > 3 or inconclusive not in ("warn", "ignore"):
        raise ValueError(
            f"check_gradients: order must be 1, 2 or 3 and inconclusive 'warn' or 'ignore', not {order!r} and "
            f"{inconclusive!r}"
        )
    if isinstance(rng, np.random.Generator):
        seed = int(rng.integers(2**32))
    else:
        seed = 0 if rng is None else integer("check_gradients", "the seed rng", rng)
    originals, active = _validated(fn, inputs, wrt)
    values = [v.astype(np.float64) if i in active else v for i, v in enumerate(originals)]
    draws = np.random.default_rng(seed)
    point = Point(fn, values, active, [f"input {i}" for i in range(len(values))], ["output"], draws)
    notes: list[str] = []
    compared, level = 0, 1
    try:
        with recording(True), np.errstate(all="ignore"):
            point.prepare()
            if not any(out.requires_grad for out in point.outputs):
                raise ValueError(
                    "check_gradients: fn's output depends on none of the inputs that are differentiated; it is "
                    "constant, or cut off by .data, .numpy(), .detach() or no_grad()"
                )
            outputs = point.outputs
            for level in range(1, order + 1):
                if level > 1:
                    if point.infinite:
                        notes.append(f"order {level}: by the cotangent not compared: a gradient inside fn is infinite")
                    point = point.differentiated()
                    point.prepare()
                comparison = Comparison(point)
                compared += comparison.compared
                Variants(point, comparison.derived)
                if comparison.notes:
                    compared += _compare_off_the_kink(point)
                notes += [note if level == 1 else f"order {level}: {note}" for note in comparison.notes]
                if level == 1:
                    notes += _compare_single_precision(comparison, originals)
    except OutOfRange as reason:
        notes.append(f"{f'order {level}: ' if level > 1 else ''}not compared: {reason}")
    except GradientMismatch as mismatch:
        error = GradientMismatch(f"{mismatch}\n{_circumstances(fn, originals, outputs, order, level, seed, wrt)}")
        error.inputs, error.order, error.seed = tuple(originals), level, seed
        raise error from None
    if notes and inconclusive == "warn":
        kink = " at a kink" if any("one-sided" in note or "both sides" in note for note in notes) else ""
        remedy = "Keep inputs " + (
            "off kinks and ties (tinygrad_mnist.testing.arrays with away_from= and distinct=)"
            if kink
            else "where numbers neither overflow nor underflow"
        )
        more = f" (and {len(notes) - SHOWN} more)" if len(notes) > SHOWN else ""
        warnings.warn(
            f"check_gradients: inconclusive{kink}: {'; '.join(notes[:SHOWN])}{more}. {remedy}, or pass "
            "inconclusive='ignore'",
            InconclusiveWarning,
            stacklevel=2,
        )
    return Report("inconclusive" if notes else "pass", compared, tuple(notes))


def _validated(fn: Any, inputs: Sequence[Operand], wrt: int | Sequence[int] | None) -> tuple[list[Array], list[int]]:
    """Return copies of the inputs and the positions of those to differentiate by, or say what is wrong with them."""
    __tracebackhide__ = True
    if not callable(fn):
        raise TypeError(f"check_gradients: the first argument must be a function of Tensors, not {type(fn).__name__}")
    try:
        values = [np.array(numeric(x)) for x in inputs]
    except (TypeError, ValueError) as error:
        raise TypeError(f"check_gradients: {error}") from None
    floats = [i for i, v in enumerate(values) if v.dtype.kind == "f"]
    described = _described(values) or "none"
    wanted = floats if wrt is None else list(wrt) if isinstance(wrt, (tuple, list, range)) else [wrt]
    positions = [integer("check_gradients", "a position in wrt", i, -len(values)) for i in wanted]
    active = sorted({i + len(values) if i < 0 else i for i in positions})
    if not active or not set(active) <= set(floats) or len(active) < len(wanted):
        raise TypeError(
            "check_gradients: pass at least one floating-point input (integers cannot be differentiated: "
            "x.astype(np.float64)), and in wrt the positions of such, each once; "
            f"inputs: {described}; wrt: {wrt!r}"
        )
    for i in floats:
        if not np.isfinite(values[i]).all():
            raise ValueError(
                f"check_gradients: input {i} is {first_nonfinite(values[i])}; finite differences need finite numbers"
            )
    return values, active


def _compare_off_the_kink(point: Point) -> int:
    """Compare a little way off a kink, on both sides unless the function is large; return how many derivatives."""
    there = point.perturbed(PERTURBATION)
    compared = 0
    for nearby in [there] if large_inputs(point) else [there, point.opposite(there)]:
        try:
            nearby.prepare()
        except Exception:  # not finite there, or whatever the function raises for inputs that it was not made for
            continue
        try:
            compared += Comparison(nearby, thorough=True).compared
        except GradientMismatch as mismatch:
            raise GradientMismatch(
                f"near the given inputs, which are at a kink (moved by up to {PERTURBATION:.1%} of their size): "
                f"{mismatch}"
            ) from None
    return compared


def _compare_single_precision(comparison: Comparison, originals: list[Array]) -> list[str]:
    """Compare the gradients in single precision (or less) with those in double precision, if inputs were given so.

    Gradients that overflow there are left out. Where outputs do, nothing can be compared; that is what is returned.
    """
    point = comparison.point
    if not len(point.combinations) or all(originals[i].dtype.itemsize >= 8 for i in point.active):
        return []
    low = point.at(originals)
    low.trace()
    if [out.shape for out in low.outputs] != [out.shape for out in point.outputs]:
        raise GradientMismatch("fn gives outputs of other shapes in single precision than in double precision")
    if not np.isfinite(low.row).all():
        return ["gradients in the precision of the inputs not compared: an output is not finite there"]
    eps = max(float(np.finfo(originals[i].dtype).eps) for i in point.active)
    mixture = point.combinations[-1]
    near = gradients_near(point, mixture, 4 * eps, 4)
    singles, rounding_error = gradients(low, mixture, finite=False)
    doubles = comparison.derived.rows[-1]
    for k, (i, single, double) in enumerate(zip(point.active, singles, doubles, strict=True)):
        spread = np.max([np.abs(found[k] - double) for found in near], axis=0)
        bound = 20 * spread + 1e3 * eps * np.abs(double).max(initial=0.0)
        bound = bound + 16 * np.finfo(originals[i].dtype).smallest_subnormal
        bound = bound + 100 * rounding_error / own_magnitudes(originals[i])
        compared = np.where(np.abs(double) < np.finfo(originals[i].dtype).max / 2, single, double)
        if not (np.abs(compared - double) <= bound).all():
            worst = np.unravel_index(np.argmax(np.abs(compared - double) - bound), double.shape)
            raise GradientMismatch(
                f"the derived gradient of {point.input_names[i]} in {originals[i].dtype} differs from that in float64: "
                f"{single[worst]:.9g} and {double[worst]:.9g} at {[int(n) for n in worst]} (rounding explains "
                f"{bound[worst]:.2g})"
            )
    return []


def _circumstances(
    fn: Any,
    inputs: list[Array],
    outputs: list[Tensor],
    order: int,
    level: int,
    seed: int,
    wrt: int | Sequence[int] | None,
) -> str:
    """Describe the check in words, and as code to paste."""
    code = getattr(getattr(fn, "forward", fn), "__code__", None)
    where = f" ({Path(code.co_filename).name}:{code.co_firstlineno})" if code else ""
    name = getattr(fn, "__name__", type(fn).__name__)
    callee = f"tg.{name}" if getattr(ops, name, None) is fn else name if code and name.isidentifier() else "fn"
    settings = "".join(
        [f", order={order}" if order > 1 else "", f", rng={seed}", f", wrt={wrt!r}" if wrt is not None else ""]
    )
    if sum(v.size for v in inputs) <= PASTED:
        arrays = ", ".join(
            f"np.array({v.tolist()}, np.{v.dtype}){'' if v.size else f'.reshape({v.shape})'}" for v in inputs
        )
    else:
        arrays = "*error.inputs"
    lines = [
        f"  fn:                 {name}{where}, order {level}; {_described(inputs)} -> {_described(outputs)}",
        f"  again:              tg.testing.check_gradients({callee}, {arrays}{settings})",
    ]
    if arrays.startswith("*"):
        lines.append(
            "                      (error is this exception: it holds the inputs; keep them with "
            "np.savez('inputs.npz', *error.inputs))"
        )
    return "\n".join(lines)


def _described(arrays: Sequence[Array | Tensor]) -> str:
    return ", ".join(f"{a.dtype} {a.shape}" for a in arrays)
