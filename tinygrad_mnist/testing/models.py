"""Check the gradients of a whole model by its parameters.

The model is not copied: for each evaluation its parameters get other arrays, and in the graph of the loss they are then
exchanged for the Tensors that are differentiated.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from ..backward import topological_order
from ..nn import buffers, parameters
from ..ops import cross_entropy
from ..tensor import Operand, Tensor, numeric
from ..validation import integer
from ..walk import walk
from .gradients import InconclusiveWarning, Report, check_gradients
from .mismatch import GradientMismatch

__all__ = ["check_model"]

SHOWN = 3  # kinks that a warning names one by one


def check_model(
    model: Any,
    *inputs: Operand,
    loss: Callable[[Tensor, Any], Tensor] | None = None,
    training: bool = True,
    order: int = 1,
    rng: np.random.Generator | int | None = None,
    inconclusive: str = "warn",
) -> Report:
    """Compare the gradients of a model's loss by all its parameters with finite differences.

    Parameters, buffers and the random generators that the model holds are as before afterwards, and the same in every
    evaluation. Parameters in float32 are checked in float64, and the gradients in float32 compared with those.

    Parameters
    ----------
    model : object
        As the Trainer takes it: called with the inputs and a generator, it returns logits; or it has a method
        ``loss(*inputs, labels, rng)``.
    *inputs : array_like
        The images (N, ...) and their labels (N,), as in ``check_model(model, images, labels)``. There may be several
        inputs: the last array is the labels.
    loss : callable, optional
        ``loss(logits, labels)``, a scalar Tensor. By default the model's own method if it has one, else
        `cross_entropy`.
    training : bool
        Pass a generator, made anew for every evaluation: as in training, dropout draws. False checks the model as it is
        in inference.
    order, rng, inconclusive
        As in `check_gradients`.

    Returns
    -------
    Report
        As of `check_gradients`.

    Raises
    ------
    GradientMismatch
        If a derivative is wrong, not finite, or misbehaves. The message names the parameter by its path.
    TypeError
        If the loss is no scalar Tensor of floats.
    ValueError
        If the model has no parameters, labels are missing or too many, values are not finite, the loss depends on no
        parameter, or a call changes what the model is made of.

    Examples
    --------
    >>> import tinygrad_mnist as tg
    >>> rng = np.random.default_rng(0)
    >>> model = tg.nn.Sequential(tg.nn.Linear(4, 5, rng=rng), tg.nn.Dropout(0.5), tg.nn.Linear(5, 3, rng=rng))
    >>> check_model(model, rng.normal(size=(2, 4)), [0, 2]).verdict
    'pass'
    """
    __tracebackhide__ = True
    if inconclusive not in ("warn", "ignore"):
        raise ValueError(f"check_model: inconclusive must be 'warn' or 'ignore', not {inconclusive!r}")
    if len(inputs) < 2:
        raise ValueError("check_model: pass inputs and labels, as in check_model(model, images, labels)")
    *counts, labels = (shape[0] if (shape := numeric(x).shape) else 0 for x in inputs)
    if {*counts} != {labels} or not labels:
        raise ValueError(f"check_model: {counts[0]} images and {labels} labels; pass one label for each image")
    found = parameters(model)
    if not found:
        raise ValueError(f"check_model: {type(model).__name__} has no parameters: no Tensor in it requires a gradient")
    seed = int(rng.integers(2**32)) if isinstance(rng, np.random.Generator) else rng
    seed = 0 if seed is None else integer("check_model", "the seed rng", seed)
    evaluation = _Evaluation(model, inputs, loss, seed if training else None, found)
    try:
        report = check_gradients(evaluation, *evaluation.arrays, order=order, rng=seed, inconclusive="ignore")
    except GradientMismatch as mismatch:
        text = evaluation.named(str(mismatch).split("\n  fn: ")[0])
        error = GradientMismatch(f"{text}\n{evaluation.circumstances(mismatch.order, order, seed)}")
        error.inputs, error.order, error.seed = mismatch.inputs, mismatch.order, mismatch.seed
        raise error from None
    except ValueError as failed:
        if not str(failed).startswith("check_gradients: "):
            raise
        raise ValueError(evaluation.explained(str(failed))) from None
    report = replace(report, notes=tuple(map(evaluation.named, report.notes)))
    if report.notes and inconclusive == "warn":
        more = f" (and {len(report.notes) - SHOWN} more)" if len(report.notes) > SHOWN else ""
        warnings.warn(
            f"check_model: inconclusive at a kink: {'; '.join(report.notes[:SHOWN])}{more}. Where biases are zero, "
            "ReLUs of black pixels are at theirs: set the parameters to other values, or pass inconclusive='ignore'",
            InconclusiveWarning,
            stacklevel=2,
        )
    return report


class _Evaluation:
    """The loss as a function of all parameters."""

    def __init__(
        self,
        model: Any,
        inputs: tuple[Operand, ...],
        loss: Callable[[Tensor, Any], Tensor] | None,
        seed: int | None,
        found: dict[str, Tensor],
    ) -> None:
        self.model, self.inputs, self.loss, self.seed, self.found = model, inputs, loss, seed, found
        self.called = False
        self.arrays = [p.data for p in found.values()]
        self.buffers = [(b, np.array(b.data)) for b in buffers(model).values()]
        generators = [value for _, value in walk(model) if isinstance(value, np.random.Generator)]
        self.states = [(generator, generator.bit_generator.state) for generator in generators]

    def __call__(self, *leaves: Tensor) -> Tensor:
        with self.restored():
            for p, leaf in zip(self.found.values(), leaves, strict=True):
                p._array = leaf.data
            rng = () if self.seed is None else (np.random.default_rng(self.seed),)
            own = getattr(self.model, "loss", None)
            if self.loss is None and own is not None:
                out = own(*self.inputs, *rng)
            else:
                out = (self.loss or cross_entropy)(self.model(*self.inputs[:-1], *rng), self.inputs[-1])
            if not isinstance(out, Tensor) or out.shape or out.dtype.kind != "f":
                got = f"{out.dtype} {out.shape}" if isinstance(out, Tensor) else type(out).__name__
                raise TypeError(f"check_model: the loss is {got}; it must be a scalar Tensor: take the mean")
            if not self.called:
                self._check_parameters()
            self.called = True
        own_leaf = {id(p): leaf for p, leaf in zip(self.found.values(), leaves, strict=True)}
        if id(out) in own_leaf:
            return own_leaf[id(out)]
        for node in topological_order(out, constants=True):
            if node.op is not None:
                node.inputs = tuple(own_leaf.get(id(x), x) for x in node.inputs or ())
        return out

    def _check_parameters(self) -> None:
        """Check that the parameters are the same Tensors after the first call."""
        now = parameters(self.model)
        if changed := [n for n in {**self.found, **now} if self.found.get(n) is not now.get(n)]:
            raise ValueError(
                f"check_model: a call of the model replaces {', '.join(changed)}; a parameter is changed by an "
                "optimizer, and other state is a tg.nn.Buffer, whose .data is set"
            )

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Within this context, begin with what the model held at first, and end with it."""
        self._restore()
        try:
            yield
        finally:
            self._restore()

    def _restore(self) -> None:
        for p, array in zip(self.found.values(), self.arrays, strict=True):
            p._array = array
        for buffer, array in self.buffers:
            buffer._array = np.array(array)
        for generator, state in self.states:
            generator.bit_generator.state = state

    # Words ------------------------------------------------------------------------------------------------------------
    def named(self, text: str) -> str:
        """Name parameters in the place of "input 3", and the loss in that of the output."""
        names = list(self.found)
        text = re.sub(r"\boutput by (?=input \d)", "the loss by ", text)
        return re.sub(r"\binput (\d+)\b", lambda match: names[int(match[1])], text)

    def explained(self, text: str) -> str:
        """Say what an error of `check_gradients` means for a model."""
        if "different outputs for the same inputs" in text:
            return (
                "check_model: the loss differs from call to call for the same parameters; the model or the loss draws "
                "from a generator that it does not hold, or keeps state that is no tg.nn.Buffer"
            )
        if "depends on none of the inputs" in text:
            return (
                "check_model: the loss depends on no parameter; it is constant, or cut off by .data, .numpy(), "
                ".detach() or no_grad()"
            )
        return self.named(text.replace("check_gradients", "check_model", 1)).replace("output of fn", "the loss")

    def circumstances(self, level: int, order: int, seed: int) -> str:
        """Describe the check in words, and as code to paste."""
        settings = [f", order={order}" * (order > 1), f", rng={seed}", ", training=False" * (self.seed is None)]
        settings.append(", loss=loss" * (self.loss is not None))
        numbers = f"{len(self.found)} parameters, {sum(a.size for a in self.arrays):,} numbers"
        return (
            f"  model:              {type(self.model).__name__}, order {level}; {numbers}\n"
            f"  again:              tg.testing.check_model(model, *inputs{''.join(settings)})"
        )
