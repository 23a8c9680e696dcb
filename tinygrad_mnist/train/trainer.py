"""The training loop as a stream of steps that can be stopped and continued."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..data import batches
from ..debug.anomaly import locate_nonfinite
from ..nn import parameters
from ..ops import cross_entropy
from ..optim import Optimizer, clip_grad_norm
from ..tensor import Array, Tensor
from ..validation import check_call, integer, real
from .evaluation import Loss, Metrics, evaluate
from .examples import as_classified, as_examples
from .resuming import is_measured, mismatches, steps_in
from .selection import best_epoch, check_ranking, ranking, should_stop
from .shards import value_and_grad
from .state import ModelState, nonfinite_names

__all__ = ["Step", "Trainer", "fit"]


class Step(NamedTuple):
    """One step of training: what `Trainer.steps` yields."""

    epoch: int  # from 1
    step: int  # from 1, over all epochs
    loss: float  # mean over the batch (cross-entropy in nats), from the forward pass that the gradient came from
    images: int  # in the batch
    last: bool  # of its epoch, or of training: then the model has been measured
    lr: float  # learning rate


class Trainer:
    """Training that can stop between any two steps and go on later, also in another process, to the bit.

    ``tg.training.run(trainer)`` trains to the end, with callbacks; `steps` does it step by step.

    Parameters
    ----------
    model : callable
        ``model(images, rng)``, and ``model(images)`` in inference; with several inputs ``model(*images, rng)``. It
        returns a Tensor of logits, or with a `loss` of your own whatever that takes: a Tensor, or a tuple, list or dict
        of Tensors. It gets images as they are: where they are uint8, it scales them itself
        (`tinygrad_mnist.data.as_input`). Its state, such as running means, must be in `tinygrad_mnist.nn.Buffer`.
    optimizer : Optimizer
        Of the model's parameters; one of parameters that are not the model's is refused.
    images : array_like, or tuple of them
        The inputs, of any shape (N, ...) and dtype: pixels, features, indices of tokens. A tuple of arrays, equally
        long, is for a model of several inputs. They are converted to arrays here, and paired by position.
    labels : array_like, or tuple of them, or None
        Class indices (N,); with a `loss` of your own, or a model that has one, whatever that takes, as long as the
        images. None: the loss gets the inputs in place of labels, as the model has got them, for an autoencoder. (With
        ``labels=images`` it gets them as they were before `augment`.)
    epochs : float
        How often to go through the images, at least 0. Training may end within an epoch: 1.25 is a whole one and a
        quarter of the next one's steps, rounded (`total_steps`).
    batch_size : int
    rng : numpy.random.Generator
        Decides the order of the images and what dropout drops.
    loss : callable, optional
        ``loss(outputs, labels)``, a scalar Tensor: the mean over the examples that it is given. By default the model's
        own method ``model.loss(*images, labels, rng)`` if it has one (without labels ``model.loss(*images, rng)``),
        else `cross_entropy`. What is monitored is measured with this function; by default with `cross_entropy`, unless
        the model has its own and outputs or labels are no classes (see `evaluate`). A sum of your own, such as
        ``((outputs - labels) ** 2).sum()``, would depend on `shard_size`: divide it by their number. What a loss
        function returns with ``reduction="sum"`` is known to be one (see `parallel.value_and_grad`).
    schedule : callable, optional
        ``schedule(step, steps)``, the factor on the optimizer's learning rate in a step (counted from 0) of so many:
        see `tinygrad_mnist.schedules`.
    augment : callable, optional
        ``augment(images, rng)``, the images to train on in place of those of a shard: see
        `tinygrad_mnist.data.augment`. Of several inputs it gets, and returns, the tuple.
    average : float, optional
        Below 1. Measure, select and return a moving average of the weights, which keeps this share of itself in each
        step (less in the first ones), in place of the weights of the last step: with a high learning rate it is better
        than any of them (Polyak and Juditsky, 1992). Floating-point buffers are averaged, too; integer ones are the
        latest.
    clip_norm : float, optional
        Scale the gradients of a step down where their norm, of all together, is larger: see `optim.clip_grad_norm`.
    monitor : dict of str to (images, labels), optional
        What to measure after each epoch, and where training ends within one. Images called ``"validation"`` select the
        best weights.
    metrics : dict of str to callable, optional
        What to measure beside the loss: ``metric(outputs, labels)``, a number, from the outputs for all images, as
        ndarrays. By default the accuracy, where outputs are logits (N, K) and labels class indices. They are measured
        on what is monitored.
    select : str, optional
        What selects the best epoch in validation: the name of a metric, with a minus before it if lower is better, such
        as ``"-error"`` or ``"-loss"``; of equal ones the lower loss. By default the accuracy if it is measured, else
        the loss.
    patience : int, optional
        Stop when so many epochs in a row were no better than the best one before them, as measured by validation.
    shard_size, threads : int, optional
        See `parallel.value_and_grad`; the result does not depend on `threads`.

    Attributes
    ----------
    epoch, batch, step : int
        Where training stands: the epoch (from 1) of the next step, the batches of it that are done, and all steps that
        are done.
    total_steps : int
        Steps of the whole training: `epochs` times the batches of an epoch, rounded; at least 1, unless `epochs` is 0.
    history : list of dict
        For each epoch its number, its mean loss over the images (each batch counts by its size), and what was measured:
        ``NAME_loss``, and ``NAME_accuracy`` or ``NAME_METRIC`` (`plot_curves` draws them). Where training ends within
        an epoch, ``epoch`` is `epochs`, 0.6 for instance, and the mean is of this epoch's steps up to there. Such a row
        stays if training goes on later.
    best : dict of str to ndarray, or None
        Weights after the best epoch so far, with all that belongs to the model: see `tinygrad_mnist.nn.state_dict`.
    averaged : dict of str to ndarray, or None
        Their average, if one is asked for.

    Raises
    ------
    TypeError
        If the model or another function cannot be called as above.
    FloatingPointError
        In `steps`, by the first step that has a NaN or an infinity in loss, gradients, buffers, weights or optimizer
        state: it says where.
    ValueError
        If an argument does not fit the others. In `steps`, if a parameter that was frozen requires a gradient since.
        In `state_dict`, `selected` and `in_use`, if the model has state that they do not hold: a plain array or a
        Tensor without gradient that has changed. It says which.

    Examples
    --------
    >>> import tinygrad_mnist as tg
    >>> def trainer():
    ...     rng = np.random.default_rng(0)
    ...     images, labels = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 3, 60)
    ...     model = tg.nn.Linear(4, 3, rng=rng)
    ...     optimizer = tg.optim.AdaGrad(tg.nn.parameters(model))
    ...     return Trainer(model, optimizer, images, labels, epochs=2, batch_size=20, rng=rng)
    >>> whole, first, second = trainer(), trainer(), trainer()
    >>> losses = [step.loss for step in whole.steps()]
    >>> for step in first.steps():
    ...     if step.step == 4:
    ...         break
    >>> second.load_state_dict(first.state_dict())
    >>> [step.loss for step in second.steps()] == losses[4:]
    True
    """

    def __init__(
        self,
        model: Any,
        optimizer: Optimizer,
        images: Any,
        labels: Any,
        *,
        epochs: float,
        batch_size: int = 500,
        rng: np.random.Generator,
        loss: Loss | None = None,
        schedule: Callable[[int, int], float] | None = None,
        augment: Callable[[Any, np.random.Generator], Any] | None = None,
        average: float | None = None,
        clip_norm: float | None = None,
        monitor: Mapping[str, tuple[Any, Any]] | None = None,
        metrics: Metrics | None = None,
        select: str | None = None,
        patience: int | None = None,
        shard_size: int | None = None,
        threads: int | None = None,
    ) -> None:
        own = loss is not None or getattr(model, "loss", None) is not None
        convert = as_examples if own and not (loss is cross_entropy and labels is None) else as_classified
        examples = convert("Trainer", images, labels)
        calls = {"loss": ("outputs", "labels"), "schedule": ("step", "steps"), "augment": ("images", "rng")}
        for function, (name, arguments) in zip((loss, schedule, augment), calls.items(), strict=True):
            if function is not None:
                check_call("Trainer", name, function, *arguments)
        inputs, words = ["images"] * len(examples.inputs), "; training calls it with a generator: let it take rng=None"
        if loss is None and own:
            with_labels = inputs if labels is None else [*inputs, "labels"]
            check_call("Trainer", "model.loss", model.loss, *with_labels, "rng", remedy=words)
        else:
            check_call("Trainer", "model", model, *inputs, "rng", remedy=words)
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"Trainer: rng is {type(rng).__name__}; pass np.random.default_rng(seed)")
        number = real("Trainer", "epochs", epochs, least=0, below=2**63)
        batch_size = integer("Trainer", "batch_size", batch_size, 1)
        self.clip_norm = None if clip_norm is None else real("Trainer", "clip_norm", clip_norm, least=0)
        average = None if average is None else real("Trainer", "average", average, least=0, below=1)
        patience, shard_size, threads = (
            None if value is None else integer("Trainer", name, value, 1)
            for name, value in {"patience": patience, "shard_size": shard_size, "threads": threads}.items()
        )
        monitor = monitor or {}
        if not isinstance(monitor, Mapping) or any(
            not isinstance(v, Sequence) or len(v) != 2 for v in monitor.values()
        ):
            raise TypeError("Trainer: monitor must be a dict of name to (images, labels)")
        if patience and "validation" not in monitor:
            raise ValueError(f"Trainer: patience is {patience}, so monitor must have images called 'validation'")
        self.metrics, self.select = check_ranking(list(monitor), metrics, select), select
        self.examples, (self.images, self.labels) = examples, examples
        self.model, self.optimizer, self.rng = model, optimizer, rng
        self.epochs, self.patience = int(epochs) if number.is_integer() else number, patience
        self.monitor: dict[str, tuple[Any, Any]] = {
            name: convert("Trainer", *labelled, which=f"{name} ") for name, labelled in monitor.items()
        }
        self.loss, self.schedule, self.augment, self.average = loss, schedule, augment, average
        self.shard_size, self.threads = shard_size, threads
        self.weights, self.lr = parameters(model), optimizer.lr
        if optimizer.params and not self.weights:
            words = "pass an object that holds its layers or Tensors as attributes"
            raise ValueError(f"Trainer: no parameters are found in the model, a {type(model).__name__}; {words}")
        for name, p in optimizer.params.items():
            if p.requires_grad and self.weights.get(name) is not p:  # it would stay as it is, without a word
                words = "make the optimizer anew, of tg.nn.parameters(model)"
                raise ValueError(f"Trainer: the optimizer's {name} is not that of the model; {words}")
        self.model_state = ModelState(model)
        self.averaged: dict[str, Array] | None = None
        self.batch_size, self.cuts = batch_size, list(batches(examples.size, batch_size))
        self.epoch, self.batch, self.step = 1, 0, 0
        self.order: npt.NDArray[np.intp] | None = None  # of the images in this epoch; drawn when it begins
        self.losses: list[float] = []  # of this epoch
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Array] | None = None
        self._settle()

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return steps_in(self.epochs, len(self.cuts))

    def steps(self) -> Iterator[Step]:
        """Go on to the end, one optimizer step for each item that is taken.

        Between two of them the state can be saved.

        Raises
        ------
        ValueError
            If the evaluation where training stands has failed, as in `state_dict`.
        """
        self._settle()
        self._check_measured()
        while self.step < self.total_steps and not (self.patience and should_stop(self.scores(), self.patience)):
            if self.order is None:
                self.order = self.rng.permutation(self.examples.size)
            index = self.order[self.cuts[self.batch]]
            if self.schedule is not None:
                factor = self.schedule(self.step, self.total_steps)
                words = f"what the schedule returned for step {self.step}"
                self.optimizer.lr = self.lr * real("Trainer", words, factor, least=0)
            self.losses.append(self._update(index))
            if self.average is not None and self.averaged is not None:
                fresh = 1 - min(self.average, (self.step + 1) / (self.step + 10))
                self.averaged = self.model_state.average(self.averaged, fresh)
            self.batch, self.step = self.batch + 1, self.step + 1
            last = self.batch == len(self.cuts) or self.step == self.total_steps
            step = Step(self.epoch, self.step, self.losses[-1], len(index), last, self.optimizer.lr)
            if last:
                self._end_epoch()
            yield step

    def measure(self) -> dict[str, float]:
        """Loss and accuracy, or the metrics, now, on everything that is monitored."""
        self._settle()
        scores: dict[str, float] = {}
        trained = self.model_state.arrays()
        try:
            if self.averaged is not None:
                self.model_state.load(self.averaged)
            for name, labelled in self.monitor.items():
                try:
                    found = evaluate(self.model, *labelled, self.threads, self.loss, self.metrics)
                except FloatingPointError as error:
                    raise FloatingPointError(f"after step {self.step}, on the {name} images: {error}") from error
                kinds = found if isinstance(found, dict) else found._asdict()
                scores |= {f"{name}_{kind}": value for kind, value in kinds.items() if not math.isnan(value)}
        finally:
            if self.averaged is not None:
                self.model_state.load(trained)
        return scores

    def state_dict(self) -> dict[str, Any]:
        """Return everything that decides how training continues, for `tinygrad_mnist.checkpoint.save_checkpoint`.

        Raises
        ------
        ValueError
            If the evaluation at the end of an epoch, or of training, has failed: training cannot continue from there.
            If the model has state that would not be saved.
        """
        self._settle()
        self.model_state.check()
        self._check_measured()
        return {
            "weights": _copies(self.model_state.arrays()),
            "averaged": None if self.averaged is None else _copies(self.averaged),
            "optimizer": self.optimizer.state_dict(),
            "lr": self.lr,
            "rng": self.rng.bit_generator.state,
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "order": None
            if self.order is None
            else self.order.astype(np.int32 if len(self.order) < 2**31 else np.int64),
            "losses": np.array(self.losses),
            "history": [dict(row) for row in self.history],
            "images": self.examples.size,
            "batch_size": self.batch_size,
            "best": None if self.best is None else dict(self.best),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state_dict` of a trainer that was made in the same way, but for the number of epochs.

        With more epochs, training continues beyond the end of the saved one. The result is to the bit that of training
        with so many epochs from the beginning, unless a schedule would have given the earlier steps another learning
        rate. Where the saved one ended within an epoch, the row of that end stays in `history`, and its weights may be
        selected.

        Raises
        ------
        ValueError
            Listing every difference, if the state is of another model, optimizer, number of images or batch size, or is
            inconsistent; nothing has changed then. (Schedule, augmentation and the images themselves are not compared.)
        """
        if not isinstance(state, Mapping):
            raise ValueError(f"Trainer: the saved state is a {type(state).__name__}; pass what state_dict() returned")
        state = {"averaged": None, **state}  # version 0.1.0 had no averages at first
        for key in ("weights", "averaged", "best"):  # and saved trained parameters alone
            state[key] = self.model_state.completed(state.get(key))
        wrong = mismatches(self, state)
        if wrong:
            raise ValueError(
                f"Trainer: the saved state does not fit: {'; '.join(wrong)}; make the trainer as the saved one was "
                "made, with the same data, model and settings"
            )
        self.model_state.load(state["weights"])
        self.model_state.remember()
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]
        self.epoch, self.batch, self.step = (int(state[key]) for key in ("epoch", "batch", "step"))
        self.order = None if state["order"] is None else state["order"].astype(np.intp)
        self.lr = float(state["lr"])
        self.losses, self.history = state["losses"].tolist(), [dict(row) for row in state["history"]]
        self.best, self.averaged = state["best"], state["averaged"]

    def selected(self) -> dict[str, Array]:
        """Return the weights to use: those of the best epoch in validation, or without validation the latest.

        With all that belongs to the model, as `tinygrad_mnist.nn.state_dict` does.
        """
        latest = self.in_use()
        return latest if self.best is None else dict(self.best)

    def in_use(self) -> dict[str, Array]:
        """Return the weights that are measured now: the moving average if there is one, else the latest.

        With all that belongs to the model, as `tinygrad_mnist.nn.state_dict` does.
        """
        self._settle()
        self.model_state.check()
        return self._in_use()

    def _settle(self) -> None:
        """Begin with the model as it is: weights may be loaded into it until the first step."""
        if self.step == 0:
            self.model_state.remember()
            self.averaged = None if self.average is None else self.model_state.arrays()

    def _check_measured(self) -> None:
        at_end = self.batch == len(self.cuts) or (self.batch > 0 and self.step == self.total_steps)
        if at_end and not is_measured(self.history, self.step, len(self.cuts)):
            raise ValueError("Trainer: the evaluation at the end of this epoch has failed; load an earlier state")

    def _in_use(self) -> dict[str, Array]:
        return _copies(self.model_state.arrays() if self.averaged is None else self.averaged)

    def _loss(self, *shard: Any) -> Tensor:
        *arrays, rng = shard
        examples = self.examples.with_arrays(tuple(arrays))
        if self.augment is not None:
            images = self.augment(examples.images, rng)
            if isinstance(images, tuple) != isinstance(examples.images, tuple):
                words = "the images as it got them, or a tuple of as many arrays"
                raise TypeError(f"Trainer: augment returned a {type(images).__name__}; it must return {words}")
            examples = examples._replace(images=images)
        if self.loss is None and getattr(self.model, "loss", None) is not None:
            loss: Tensor = examples.model_loss(self.model, rng)
            return loss
        return (self.loss or cross_entropy)(self.model(*examples.inputs, rng), examples.target)

    def _update(self, index: npt.NDArray[np.intp]) -> float:
        for name, p in self.model_state.tensors.items():
            if p.requires_grad and name not in self.weights:
                words = "it is trained by a new Trainer, with an optimizer that has it"
                raise ValueError(f"Trainer: {name} was frozen when the trainer was made, and is no longer; {words}")

        def value_and_gradients(threads: int | None) -> tuple[float, dict[str, Array]]:
            return value_and_grad(
                self._loss,
                {name: p for name, p in self.weights.items() if p.requires_grad},  # some may have been frozen since
                *(array[index] for array in self.examples.arrays),
                rng=self.rng,
                shard_size=self.shard_size,
                threads=threads,
            )

        rng, buffers = self.rng.bit_generator.state, {n: b.data for n, b in self.model_state.buffers.items()}

        def restore() -> None:
            self.rng.bit_generator.state = rng
            for name, array in buffers.items():
                self.model_state.buffers[name].data = array

        loss, grads = value_and_gradients(self.threads)
        bad = [f"the gradient of {name}" for name in nonfinite_names(grads)]
        infinite = nonfinite_names(buffers)  # it may be meant: a running maximum begins there
        new = {name: b.data for name, b in self.model_state.buffers.items() if name not in infinite}
        bad += [f"the buffer {name}" for name in nonfinite_names(new)]
        if not math.isfinite(loss) or bad:
            where = f"step {self.step + 1}: the loss is {loss}" + (f", {bad[0]} is not finite" if bad else "")
            restore()
            try:
                raise FloatingPointError(f"{where}; {locate_nonfinite(lambda: value_and_gradients(threads=1))}")
            finally:
                restore()
        if self.clip_norm is not None:
            clip_grad_norm(grads, self.clip_norm)
        self.optimizer.step(grads)
        state = {
            f"{slot} of {name}": array for name, slots in self.optimizer.state.items() for slot, array in slots.items()
        }
        if bad := nonfinite_names({name: p.data for name, p in self.weights.items()} | state):
            restore()
            raise FloatingPointError(f"step {self.step + 1}: the optimizer makes {bad[0]} infinite or NaN")
        return loss

    def _end_epoch(self) -> None:
        """Measure at the end of an epoch, or of training within one; only after a whole epoch does another begin."""
        whole, done = self.batch == len(self.cuts), self.cuts[: self.batch]
        images = sum(len(cut) for cut in done)
        mean = math.fsum(loss * (len(cut) / images) for loss, cut in zip(self.losses, done, strict=True))
        self.history.append({"epoch": self.epoch if whole else self.epochs, "mean_loss": mean, **self.measure()})
        if "validation" in self.monitor and best_epoch(self.scores()) == len(self.history) - 1:
            self.best = self._in_use()
        if whole:
            self.epoch, self.batch, self.order, self.losses = self.epoch + 1, 0, None, []

    def scores(self) -> list[tuple[float, ...]]:
        """What selects, after each epoch, the higher the better: see `select`."""
        return [ranking(row, self.select) for row in self.history if "validation_loss" in row]


def _copies(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Copy arrays, which callbacks may change in place."""
    return {name: np.array(array) for name, array in arrays.items()}


class _Steps:
    """The steps of a trainer, with a warning if not even the first one is taken."""

    def __init__(self, trainer: Trainer) -> None:
        self.steps, self.begun = trainer.steps(), False

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        self.begun = True
        return next(self.steps)

    def __del__(self) -> None:
        if not self.begun:
            words = "fit: nothing was trained, since no step was taken; write: for step in fit(...): ..."
            warnings.warn(words, RuntimeWarning, stacklevel=2)


def fit(model: Any, optimizer: Optimizer, images: Any, labels: Any, **settings: Any) -> Iterator[Step]:
    """Return the steps of a `Trainer`, where nothing is to be saved or measured: ``for step in fit(...): ...``.

    It trains while they are taken, one by one; a RuntimeWarning says so where none was. `settings` are those of
    `Trainer`; ``epochs=0.6`` ends within the first epoch.
    """
    return _Steps(Trainer(model, optimizer, images, labels, **settings))
