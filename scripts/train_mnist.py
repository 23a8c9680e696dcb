#!/usr/bin/env python
"""Train the 21-layer network on MNIST, so that it can be stopped at any moment and continued to the bit.

The defaults are the paper's, but for the images held out for validation, which select the weights. The test images are
read once, at the end.
"""

from __future__ import annotations

import os
import sys

here = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = here, os.path.dirname(here)  # works from any folder, installed or not

if __name__ == "__main__":  # the other imports take a while
    from terminal import call, prepare

    prepare("train_mnist.py")

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

for library in ("OPENBLAS", "MKL", "OMP"):  # shards run side by side: one thread each for their matrix products
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from command_line import Parser, Stop, add_options, missing_extras, peak_memory
from training.describing import describe_weights
from training.opening import Session, open_run
from training.phases import Phases
from training.run_pictures import draw_run, model_words
from training.settings import Settings

import tinygrad_mnist as tg
from tinygrad_mnist.train import Trainer
from tinygrad_mnist.train.evaluation import predicted_logits
from tinygrad_mnist.train.runs import Run

PAPER = "  [PAPER PROTOCOL: the test images are looked at during training]"
WARM_UP = 5  # steps that are not profiled: the first ones still ask the system for memory
EXIT_CODES = (
    "exit codes: 0 done; 1 failed (numbers no longer finite, disk or memory full: the last checkpoint is whole); 2 bad "
    "arguments or data; 129, 130, 143 stopped by SIGHUP, SIGINT (Ctrl-C), SIGTERM: the step was finished and saved, "
    "go on with --resume"
)


def parse(argv: Sequence[str] | None) -> dict[str, Any]:
    """Return the options that are given, and nothing else."""
    parser = Parser("train_mnist.py", __doc__, EXIT_CODES)
    add_options(parser, Session)
    add_options(
        parser.add_argument_group("what decides the result; a run that is resumed keeps it, but for --epochs"), Settings
    )
    given = vars(parser.parse_args(argv))
    if "resume" in given and "out" in given:
        parser.error("--resume goes on in the run's own folder; leave out --out")
    if "resume" in given and "weights" in given:
        parser.error("--resume goes on with the run's own weights; leave out --weights, or begin a new run")
    return given


def complain(text: str) -> None:
    print(f"train_mnist.py: {text}", file=sys.stderr)


def train(
    session: Session,
    settings: Settings,
    data: tg.data.Dataset,
    run: Run,
    trainer: Trainer,
    stop: Stop,
    phases: Phases,
) -> Any:
    """Train, and test unless told to stop before; everything is recorded in the run folder.

    Returns the logits of the test images, or None.
    """
    label = {"data": "synthetic" if data.synthetic else data.source.split(" from ")[0]}
    label |= {"protocol": "paper"} if settings.paper_protocol else {}
    note = "  [SYNTHETIC DIGITS]" * data.synthetic + PAPER * settings.paper_protocol
    callbacks: list[tg.training.Callback] = [tg.training.Record(run, **label)]
    write: Callable[[str], None] = lambda text: None  # noqa: E731  # a def could not be replaced below
    if not session.quiet:
        from tqdm import tqdm

        write = tqdm.write if sys.stdout else print
        callbacks += [tg.training.ProgressBar(), tg.training.EpochLines(write, note, run.elapsed)]
    if session.profile:
        report = partial(report_profile, run.folder, write)
        callbacks.insert(0, tg.training.ProfileSteps(session.profile, warm_up=WARM_UP, report=report))
    if run.config.get("keep weights") == "epoch":
        about = partial(describe_weights, settings, data, trainer, session.threads)
        keep = tg.training.KeepWeights(run.folder, about)
        keep.on_epoch = phases.timed("saving", keep.on_epoch)  # type: ignore[method-assign]
        callbacks.append(keep)
    steps, seconds = session.checkpoint_every
    callbacks.append(tg.training.Checkpoint(run, steps=steps, seconds=seconds))
    untrained = settings.paper_protocol and not run.rows
    with phases.part("steps"):
        tg.training.run(trainer, callbacks, stop=lambda: stop.signal, measure_untrained=untrained)
    if stop.signal:
        return None
    state = trainer.state_dict()
    epoch = selected_row(trainer)["epoch"]
    logits = classify(session, settings, data, trainer, phases)
    test = float((logits.argmax(axis=1) == data.test_labels).mean())
    run.record("test", epoch=epoch, test_accuracy=test, images=len(data.test_labels), **label)
    run.record_time(run.elapsed(), done=True)
    run.save(trainer.step, run.elapsed(), trainer=state)
    which = f"weights of epoch {epoch}, {'selected by validation' if trainer.best else 'the last'}"
    if trainer.step < trainer.total_steps:
        which += f"; stopped early, after epoch {trainer.history[-1]['epoch']}"
    result = f"test accuracy {test:.4f} on all {len(data.test_labels):,} images ({which})"
    print(f"{result}; {run.elapsed():.1f} s; peak memory {peak_memory()}{note}")
    return logits


def classify(session: Session, settings: Settings, data: tg.data.Dataset, trainer: Trainer, phases: Phases) -> Any:
    """Compute the logits of the test images with the selected weights, which the model has from then on."""
    with phases.part("test images"):
        tg.nn.load_state_dict(trainer.model, trainer.selected())
        return predicted_logits(trainer.model, data.test_images, session.threads, settings.shifts)


def report_profile(folder: Path, write: Any, profile: tg.Profile, steps: int) -> None:
    """Show a profile and store it in the run folder."""
    if not steps:
        complain(f"no profile: it leaves out the first {WARM_UP} steps, and there were no more")
        return
    table = profile.table(steps)
    write(f"profile of {steps} steps, each:\n{table}")
    (folder / "profile.txt").write_text(table + "\n", encoding="utf-8")
    profile.save_trace(folder / "trace.json")


def selected_row(trainer: Trainer) -> Mapping[str, Any]:
    """Return the row of the epoch whose weights are selected; an empty one before any has ended."""
    if not trainer.history:
        return {}
    return trainer.history[tg.training.best_epoch(trainer.scores()) if trainer.best else -1]


def finish(
    session: Session,
    settings: Settings,
    data: tg.data.Dataset,
    run: Run,
    trainer: Trainer,
    phases: Phases,
    logits: Any,
) -> None:
    """Write weights and pictures."""
    with phases.part("saving"):
        weights = trainer.selected()
        about = describe_weights(settings, data, trainer, session.threads, selected_row(trainer), weights)
        if complete(run, trainer):
            test, count = run.rows[-1]["test_accuracy"], len(data.test_labels)
            shifted = f", each with copies shifted by {settings.shifts} pixels" * (settings.shifts > 0)
            about["accuracy"] = f"{test:.4f} on all {count:,} test images{shifted}"
        tg.checkpoint.save_weights(run.folder / "weights.safetensors", weights, about)
    if not session.no_plots and run.rows:
        with phases.part("drawing"):
            draw_run(run, settings, trainer, data, logits, PAPER * settings.paper_protocol)
    print(f"run folder: {run.folder}")
    if session.profile:
        print(f"where the time went since the start of the process:\n{phases.table()}")


def complete(run: Run, trainer: Trainer) -> bool:
    """Whether the test images have been read at the end; of a run that was given more epochs, at the new one."""
    tested = bool(run.rows) and run.rows[-1]["event"] == "test"
    patience = trainer.patience
    stopped = patience is not None and tg.training.should_stop(trainer.scores(), patience)
    return tested and (trainer.step == trainer.total_steps or stopped)


def main(argv: list[str] | None = None) -> int:
    phases, given = Phases(), parse(argv)
    session = Session(**{f.name: given[f.name] for f in fields(Session) if f.name in given})
    needed = [("safetensors", "a checkpoint", ""), ("filelock", "a run folder", "")]
    needed += [] if session.quiet else [("tqdm", "the progress bar", ", or pass --quiet")]
    needed += [] if session.no_plots else [("matplotlib", "the pictures", ", or pass --no-plots")]
    if problem := missing_extras(needed):
        complain(problem)
        return 2
    try:
        run, settings, data, trainer = open_run(given, session, complain, phases)
    except (OSError, ValueError) as error:
        complain(str(error))
        return 2
    except (KeyError, TypeError) as error:  # from a folder that something else has written
        complain(f"{session.resume} is not a run of this script ({error!r})")
        return 2
    except MemoryError as error:
        complain(f"{str(error) or 'out of memory'}; free memory, or use a smaller --limit")
        return 1
    if not session.quiet:
        begun = f"; weights from {run.config['weights']}" if "weights" in run.config else ""
        print(f"model: {model_words(settings, trainer)}{begun}")
        if trainer.step:
            print(f"going on after step {trainer.step}")
    go_on, stop = f"go on with --resume {run.folder}", Stop()
    try:
        with stop:
            if complete(run, trainer):
                early = f": it stopped early, after epoch {trainer.history[-1]['epoch']}"
                print(f"this run is complete{early * (trainer.step < trainer.total_steps)}")
                logits = None if session.no_plots else classify(session, settings, data, trainer, phases)
            else:
                trainer.measure = phases.timed("evaluation while training", trainer.measure)  # type: ignore[method-assign]
                run.save = phases.timed("saving", run.save)  # type: ignore[method-assign]
                logits = train(session, settings, data, run, trainer, stop, phases)
            finish(session, settings, data, run, trainer, phases, logits)
        if stop.signal and not complete(run, trainer):
            complain(f"stopped by {signal.Signals(stop.signal).name} after step {trainer.step}; {go_on}")
            return 128 + stop.signal
    except KeyboardInterrupt:
        complain(f"interrupted at once, the last checkpoint stays; {go_on}")
        return 128 + (stop.signal or signal.SIGINT)
    except FloatingPointError as error:
        complain(f"{error}\nuse a smaller --lr; {last_checkpoint(run)}")
        return 1
    except (OSError, ValueError, ImportError) as error:  # ValueError: a state that is too large for a checkpoint
        complain(f"{error}; {last_checkpoint(run)}: free space or mend that, then {go_on}")
        return 1
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "new thread" not in str(error):
            raise  # a mistake in the program
        problem = f"{str(error) or 'out of memory'}; {last_checkpoint(run)}"
        complain(f"{problem}: free memory or use fewer --threads, then {go_on}")
        return 1
    finally:
        run.close()
    return 0


def last_checkpoint(run: Run) -> str:
    """Say what there is to go back to, also where the folder is gone or cannot be listed."""
    try:
        files = run.checkpoints.files()
    except OSError:
        files = [file for file in [run.checkpoints.newest] if file and os.path.exists(file)]
    if files:
        return f"the last good checkpoint is {files[0]}"
    if run.folder.is_dir():
        return "there is no checkpoint yet"
    return f"{run.folder} is no folder any more, put it back if it was moved"


if __name__ == "__main__":
    sys.exit(call(main, "train_mnist.py"))
