"""The loop that drives a `Trainer`, and callbacks: progress, epoch lines, recording, checkpoints, profiles.

In a script of your own (``pip install 'tinygrad_mnist[train]'`` for the run folder and the bar)::

    run, training = tg.runs.Run.create("my-run", {"seed": 0}), tg.training
    callbacks = [training.Record(run), training.ProgressBar(), training.EpochLines()]
    training.run(trainer, [*callbacks, training.Checkpoint(run, seconds=30)])
    run.close()
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..debug.profiler import Profile
from ..storage.checkpoint import save_weights
from ..tensor import Array
from ..validation import check_call, integer, real
from .runs import Run
from .trainer import Step, Trainer

__all__ = ["Callback", "Checkpoint", "EpochLines", "KeepWeights", "ProfileSteps", "ProgressBar", "Record", "run"]


class Callback:
    """What `run` calls; a subclass overrides what it needs.

    Examples
    --------
    >>> class Losses(Callback):
    ...     def __init__(self):
    ...         self.losses = []
    ...
    ...     def on_step(self, trainer, step):
    ...         self.losses.append(step.loss)
    """

    def on_begin(self, trainer: Trainer) -> None:
        """Before everything else."""

    def before_step(self, trainer: Trainer) -> None:
        """Before each step; also once more when training has ended."""

    def on_step(self, trainer: Trainer, step: Step) -> None:
        """After each step; `trainer.state_dict` may be called."""

    def on_epoch(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        """After the last step of an epoch, or of training within one, with the new row of `trainer.history`.

        Also before the first step, with a row of epoch 0 without ``mean_loss``, where `run` measures that.
        """

    def on_end(self, trainer: Trainer, error: BaseException | None) -> None:
        """At the end, however it comes about: `error` is what `run` is about to raise, if anything."""


def run(
    trainer: Trainer,
    callbacks: Sequence[Callback] = (),
    *,
    stop: Callable[[], object] | None = None,
    measure_untrained: bool = False,
    on_step: Callable[[Trainer, Step], object] | None = None,
    on_epoch: Callable[[Trainer, Mapping[str, Any]], object] | None = None,
) -> None:
    """Train to the end, or until `stop` says so, and call the callbacks.

    An error that a callback raises ends training and is raised here. The trainer is whole then: its state can be saved,
    and another `run` goes on with the next step.

    Parameters
    ----------
    trainer : Trainer
        It may have done some steps already.
    callbacks : sequence of Callback
        Called in this order. After a step the first one gets all its calls (`on_step`, and `on_epoch` if the epoch has
        ended), then the second one, and so on: what saves belongs behind what records. `on_end` is called in the
        reverse order, for those whose `on_begin` did not raise.
    stop : callable, optional
        Called before each step: a true result ends training there.
    measure_untrained : bool
        Measure before the first step, too, as epoch 0.
    on_step, on_epoch : callable, optional
        Functions in place of one more, last, `Callback` with these methods.

    Raises
    ------
    TypeError
        If `callbacks` are something else, or a function cannot be called so.

    Examples
    --------
    >>> import numpy as np, tinygrad_mnist as tg
    >>> rng = np.random.default_rng(0)
    >>> x, labels = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 3, 60)
    >>> model = tg.nn.Linear(4, 3, rng=rng)
    >>> trainer = Trainer(model, tg.optim.Adam(tg.nn.parameters(model)), x, labels, epochs=2, batch_size=20, rng=rng)
    >>> run(trainer, on_epoch=lambda trainer, row: print(f"epoch {row['epoch']}, {trainer.step} steps"))
    epoch 1, 3 steps
    epoch 2, 6 steps
    """
    if not isinstance(callbacks, Sequence) or not all(isinstance(callback, Callback) for callback in callbacks):
        raise TypeError("run: callbacks must be a list of Callback objects; functions can be on_step= and on_epoch=")
    calls = {"stop": (), "on_step": ("trainer", "step"), "on_epoch": ("trainer", "row")}
    for function, (name, arguments) in zip((stop, on_step, on_epoch), calls.items(), strict=True):
        if function is not None:
            check_call("run", name, function, *arguments)
    if on_step or on_epoch:
        callbacks = [*callbacks, _Functions(on_step, on_epoch)]
    steps = trainer.steps()
    with ExitStack() as ending:
        for callback in callbacks:
            callback.on_begin(trainer)

            def end(kind: object, error: BaseException | None, trace: object, callback: Callback = callback) -> None:
                callback.on_end(trainer, error)  # whatever it returns: an error is never suppressed

            ending.push(end)
        if measure_untrained:
            row = {"epoch": 0, **trainer.measure()}
            for callback in callbacks:
                callback.on_epoch(trainer, row)
        while not (stop and stop()):
            for callback in callbacks:
                callback.before_step(trainer)
            if (step := next(steps, None)) is None:
                break
            for callback in callbacks:
                callback.on_step(trainer, step)
                if step.last:
                    callback.on_epoch(trainer, trainer.history[-1])


class _Functions(Callback):
    """Calls functions."""

    def __init__(self, on_step: Callable[..., object] | None, on_epoch: Callable[..., object] | None) -> None:
        self.functions = on_step, on_epoch

    def on_step(self, trainer: Trainer, step: Step) -> None:
        if function := self.functions[0]:
            function(trainer, step)

    def on_epoch(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        if function := self.functions[1]:
            function(trainer, row)


class EpochLines(Callback):
    """Write a line after each epoch: mean loss, accuracies or other metrics, seconds.

    What is monitored without an accuracy is shown with its loss.

    Parameters
    ----------
    write : callable
        Gets each line; beside a `ProgressBar`, ``tqdm.tqdm.write``.
    note : str
        Appended to each line.
    elapsed : callable, optional
        Seconds of training; by default since the beginning of this session. `Run.elapsed` counts earlier ones, too.
    """

    def __init__(
        self, write: Callable[[str], object] = print, note: str = "", elapsed: Callable[[], float] | None = None
    ) -> None:
        self.write, self.note, self.elapsed, self.begun = write, note, elapsed, 0.0

    def on_begin(self, trainer: Trainer) -> None:
        self.begun = time.perf_counter()

    def on_epoch(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        seconds = time.perf_counter() - self.begun if self.elapsed is None else self.elapsed()
        loss = f"loss {row['mean_loss']:.4f}" if "mean_loss" in row else "untrained"
        parts = [f"epoch {row['epoch']}/{trainer.epochs}", loss]
        for name, value in row.items():
            if name.endswith("_accuracy"):
                parts.append(f"{name.removesuffix('_accuracy')} {value:.4f}")
            elif name not in ("epoch", "mean_loss") and f"{name.removesuffix('_loss')}_accuracy" not in row:
                parts.append(f"{name} {value:.4g}")
        parts.append(f"{seconds:.1f} s{self.note}")
        self.write("  ".join(parts))


class ProgressBar(Callback):
    """Show a bar over the images of all steps, with the loss and the time left (tqdm, from the ``train`` extra).

    Training goes on where standard error cannot be written any more (a closed pipe, a full disk).
    """

    bar: Any = None

    def on_begin(self, trainer: Trainer) -> None:
        try:
            from tqdm import tqdm
        except ImportError as error:
            raise ImportError("ProgressBar needs tqdm; pip install 'tinygrad_mnist[train]'") from error
        self.bar = tqdm(
            total=_images(trainer, trainer.total_steps),
            unit=" images",
            smoothing=0.05,
            dynamic_ncols=True,
            mininterval=0.5,
            initial=_images(trainer, trainer.step),
            disable=sys.stderr is None,
            file=_Forgiving(sys.stderr),
        )

    def on_step(self, trainer: Trainer, step: Step) -> None:
        self.bar.set_description(f"epoch {min(step.epoch, trainer.epochs)}/{trainer.epochs}", refresh=False)
        self.bar.set_postfix(loss=f"{step.loss:.3f}", refresh=False)
        self.bar.update(step.images)

    def on_end(self, trainer: Trainer, error: BaseException | None) -> None:
        self.bar.close()


def _images(trainer: Trainer, steps: int) -> int:
    """How many images so many steps from the beginning take; the last batch of an epoch may be smaller."""
    epochs, batches = divmod(steps, len(trainer.cuts))
    return epochs * trainer.examples.size + batches * trainer.batch_size


class _Forgiving:
    """A stream that drops what cannot be written."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __eq__(self, other: object) -> bool:  # tqdm.write asks whether a bar is on standard error
        return bool(self.stream == other)

    def write(self, text: str) -> None:
        with suppress(OSError):
            self.stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()


class Record(Callback):
    """Record each step and each epoch in a run folder: ``metrics.jsonl``, and when an epoch ended in ``times.jsonl``.

    Parameters
    ----------
    run : Run
        After its `begin`.
    **label
        Added to each line of ``metrics.jsonl``.
    """

    def __init__(self, run: Run, **label: Any) -> None:
        self.run, self.label = run, label

    def on_step(self, trainer: Trainer, step: Step) -> None:
        self.run.record("step", epoch=step.epoch, step=step.step, loss=step.loss, lr=step.lr, **self.label)

    def on_epoch(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        self.run.record("epoch", **row, **self.label)
        self.run.record_time(self.run.elapsed(), epoch=row["epoch"])


class Checkpoint(Callback):
    """Save to a run folder so that training can go on: before the first step, from time to time, and at the end.

    It belongs behind `Record` in the list. At the end it saves unless an error other than FloatingPointError ends
    training: after a step whose numbers were not finite, the trainer is as it was before that step.
    To go on, ``run = Run.resume(folder)``, make the trainer in the same way,
    ``trainer.load_state_dict(run.state["trainer"])`` (unless `run.state` is None), ``run.begin()``.

    Parameters
    ----------
    run : Run
        After its `begin`.
    steps : int
        Save after each step that is a multiple of this; 0: do not.
    seconds : float
        Save after a step if the last time was so long ago; 0: do not.
    """

    def __init__(self, run: Run, *, steps: int = 0, seconds: float = 0.0) -> None:
        self.run, self.saved = run, 0.0
        self.steps = integer("Checkpoint", "steps", steps)
        self.seconds = real("Checkpoint", "seconds", seconds, least=0)

    def on_begin(self, trainer: Trainer) -> None:
        self.saved = time.perf_counter()
        if self.run.state is None:
            self.save(trainer)

    def on_step(self, trainer: Trainer, step: Step) -> None:
        late = self.seconds and time.perf_counter() - self.saved >= self.seconds
        if late or (self.steps and step.step % self.steps == 0):
            self.save(trainer)

    def on_end(self, trainer: Trainer, error: BaseException | None) -> None:
        if error is None:
            self.save(trainer)
        elif isinstance(error, FloatingPointError):
            with suppress(ValueError):  # the numbers that were not finite may be part of the state
                self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save now."""
        self.run.save(trainer.step, self.run.elapsed(), trainer=trainer.state_dict())
        self.saved = time.perf_counter()


class KeepWeights(Callback):
    """Save the weights after each epoch, those that it is measured with: the moving average if there is one.

    The files are called ``weights-epoch-3.safetensors``, or ``weights-epoch-0.33.safetensors`` where training ends
    within an epoch; each is written atomically. It belongs in front of `Checkpoint` in the list: a run that goes on
    from a checkpoint has the files of all epochs before.

    Parameters
    ----------
    folder : str or PathLike
        Must exist: that of a `Run`, for instance.
    describe : callable, optional
        ``describe(row, weights)``, the metadata of the file, a dict of str to str: see ``tg.checkpoint.load_metadata``.
        By default the epoch and what was measured: the row of `Trainer.history`, as text.

    Examples
    --------
    >>> import tempfile, tinygrad_mnist as tg
    >>> x, labels, rng = np.ones((4, 2), np.float32), np.array([0, 1, 0, 1]), np.random.default_rng(0)
    >>> model = tg.nn.Linear(2, 2, rng=rng)
    >>> trainer = Trainer(model, tg.optim.Adam(tg.nn.parameters(model)), x, labels, epochs=1.5, batch_size=2, rng=rng)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run(trainer, [KeepWeights(folder)])
    ...     sorted(os.listdir(folder))
    ['weights-epoch-1.5.safetensors', 'weights-epoch-1.safetensors']
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        describe: Callable[[Mapping[str, Any], dict[str, Array]], Mapping[str, str]] | None = None,
    ) -> None:
        self.folder = Path(folder)
        if describe is not None:
            check_call("KeepWeights", "describe", describe, "row", "weights")
        self.describe = describe or (lambda row, weights: {name: str(value) for name, value in row.items()})

    def on_epoch(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        epoch, weights = np.format_float_positional(row["epoch"], trim="-"), trainer.in_use()
        save_weights(self.folder / f"weights-epoch-{epoch}.safetensors", weights, self.describe(row, weights))


class ProfileSteps(Callback):
    """Profile some steps, and report how long each op took (see `Profile`).

    It belongs in front of the list, so that what other callbacks do is not profiled.

    Parameters
    ----------
    steps : int
        How many, fewer if training ends before.
    warm_up : int
        Steps that are left out before: the first ones still ask the system for memory.
    report : callable, optional
        ``report(profile, steps)``, called once, also with 0 steps; by default the table is printed.
    """

    def __init__(
        self, steps: int = 20, *, warm_up: int = 5, report: Callable[[Profile, int], object] | None = None
    ) -> None:
        self.steps = integer("ProfileSteps", "steps", steps, 1)
        self.warm_up = integer("ProfileSteps", "warm_up", warm_up)
        self.done, self.begun = 0, 0
        self.report = report or (lambda profile, steps: print(profile.table(steps) if steps else "no profile"))
        self.profile, self._context = Profile(), ExitStack()

    def before_step(self, trainer: Trainer) -> None:
        self.begun += 1
        if self.begun > self.warm_up and self.done < self.steps:
            self._context.enter_context(self.profile)

    def on_step(self, trainer: Trainer, step: Step) -> None:
        self._context.close()
        if self.begun > self.warm_up and self.done < self.steps:
            self.done += 1
            if self.done == self.steps:
                self.report(self.profile, self.done)

    def on_end(self, trainer: Trainer, error: BaseException | None) -> None:
        self._context.close()
        if self.done < self.steps:
            self.report(self.profile, self.done)
