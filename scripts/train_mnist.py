#!/usr/bin/env python
"""Train the 21-layer network on MNIST, so that it can be stopped at any moment and continued to the bit.

The defaults are the paper's, but for the images held out for validation, which select the weights. The test images are
read once, at the end.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # works from any folder, installed or not

for library in (
    "OPENBLAS",
    "MKL",
    "OMP",
):  # shards run side by side: one thread each for their matrix products, also without threadpoolctl
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np
from command_line import Parser, Stop, announce, data_place, fingerprint, folder, missing_extras, number, tell

import models
import tinygrad_mnist as tg
from models.recipes import (
    LEARNING_RATE,
    MODEL,
    OPTIMIZERS,
    RECIPES,
    SCHEDULES,
    TRAINING,
    held_out,
    make_trainer,
    settings,
)
from tinygrad_mnist.storage.checkpoint import save_weights
from tinygrad_mnist.train import Step, Trainer, accuracy, best_epoch
from tinygrad_mnist.train.plots import plot_curves
from tinygrad_mnist.train.runs import Run, code_version

DECIDES: dict[str, Any] = {  # what decides the result: stored in the run folder, and not to be changed on the way
    "recipe": "paper",
    **TRAINING,
    **{name: MODEL[name] for name in ("init", "depth", "dropout", "logit_dropout", "rescale")},
}
SESSION: dict[str, Any] = {  # what may differ each time
    "data": None,
    "out": None,
    "resume": None,
    "threads": None,
    "checkpoint_every": (0, 30.0),
    "profile": None,
    "no_plots": False,
    "quiet": False,
}
WARM_UP = 5  # steps that are not profiled: the first ones still ask the system for memory
PAPER = "  [PAPER PROTOCOL: the test images are looked at during training]"


def interval(text: str) -> tuple[int, float]:
    """Argument type: a number of steps, or of seconds; the other one is 0."""
    value = number(float, 1e-3)(text[:-1]) if text.endswith("s") else number(int, 1)(text)
    return (0, value) if text.endswith("s") else (value, 0.0)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse what is given: nothing else is in the result."""
    epilog = (
        "exit codes: 0 done; 1 failed (numbers no longer finite, disk full: the last checkpoint is whole); 2 bad "
        "arguments or "
        "data; 129, 130, 143 stopped by SIGHUP, SIGINT (Ctrl-C), SIGTERM: the step was finished and saved, go on with "
        "--resume"
    )
    parser = Parser("train_mnist.py", __doc__, epilog)
    add = parser.add_argument
    add(
        "--data",
        metavar="DIR",
        help='folder with the four MNIST files, or "synthetic" (default: $TINYGRAD_MNIST_DATA, '
        "the cache, a download; if there is none, synthetic digits)",
    )
    add("--out", metavar="DIR", type=folder, help="run folder to create (default: runs/DATE-TIME)")
    add("--resume", metavar="DIR", type=folder, help="go on with an interrupted run, exactly; it knows its own options")
    add(
        "--checkpoint-every",
        metavar="N",
        type=interval,
        help="save so often: N steps, or seconds as in 30s (default: 30s); also when stopped and at the end",
    )
    add(
        "--recipe",
        choices=RECIPES,
        help="settings to begin with: the paper's, or our best ones for this network, which take "
        f"longer and train on all images; options below change them (default: {DECIDES['recipe']}, whose values are "
        "given)",
    )
    add("--epochs", type=number(int, 1), help=f"times to go through the training images (default: {DECIDES['epochs']})")
    add("--batch-size", type=number(int, 1), help=f"images per step (default: {DECIDES['batch_size']})")
    add("--optimizer", choices=OPTIMIZERS, help=f"(default: {DECIDES['optimizer']})")
    add("--lr", type=number(float, 0), help="learning rate (default: 0.01; 0.001 for adam and adamw)")
    add("--momentum", type=number(float, 0), help=f"for sgd (default: {DECIDES['momentum']})")
    add("--weight-decay", metavar="W", type=number(float, 0), help=f"for adamw (default: {DECIDES['weight_decay']})")
    add(
        "--schedule",
        choices=SCHEDULES,
        help="of the learning rate; step: a tenth of it after 1/2 and again after 3/4, not counting "
        "--warmup (default: "
        f"{DECIDES['schedule']})",
    )
    add(
        "--warmup",
        metavar="SHARE",
        type=number(float, 0),
        help="of all steps, in which the learning rate first rises to where the "
        f"schedule begins (default: {DECIDES['warmup']})",
    )
    add("--init", choices=["he", "xavier"], help=f"initial weights (default: {DECIDES['init']})")
    add("--depth", type=int, choices=[6, 5, 4], help="number of convolutions (default: 6, 21 layers)")
    add("--seed", type=number(int, 0), help=f"decides weights, order and dropout (default: {DECIDES['seed']})")
    add(
        "--validation",
        metavar="N",
        type=number(int, 0),
        help="training images held out, with all digits in proportion, to select the "
        "weights (default: 5000, or a tenth of fewer than 50000 images; 0 trains on all and takes the last weights)",
    )
    add(
        "--patience",
        metavar="N",
        type=number(int, 1),
        help="stop when N epochs in a row were no better on the images held out (default: never)",
    )
    add(
        "--paper-protocol",
        action="store_true",
        help="as the paper did: train on all images, look at 1000 training and 1000 test images "
        "before each epoch, take the last weights; everything says so",
    )
    add(
        "--augment",
        metavar="STRENGTH",
        nargs="?",
        type=number(float, 0),
        const=1.0,
        help="train on images that are shifted, turned, "
        "stretched, slanted and bent anew each time (1 if no strength is given; default: 0, not at all)",
    )
    add(
        "--average",
        metavar="DECAY",
        type=number(float, 0),
        help="use a moving average of the weights, 0.999, say (default: 0, do not)",
    )
    add(
        "--dropout",
        metavar="P",
        type=number(float, 0),
        help=f"of hidden units, in training (default: {DECIDES['dropout']})",
    )
    add(
        "--logit-dropout",
        metavar="P",
        type=number(float, 0),
        help=f"of logits, in training (default: {DECIDES['logit_dropout']})",
    )
    add(
        "--rescale",
        choices=["test", "train"],
        help=f"when dropout makes up for what it drops; train is the inverted kind (default: {DECIDES['rescale']})",
    )
    add("--limit", metavar="N", type=number(int, 1), help="use only the first N training images")
    add(
        "--threads",
        metavar="N",
        type=number(int, 1),
        help="default: the usable cores; the result does not depend on it",
    )
    add(
        "--shard-size",
        metavar="N",
        type=number(int, 1),
        help="images that one thread computes at a time (default: up to 144, so that 4 "
        "threads share a batch evenly); decides the last bits of the result",
    )
    add(
        "--profile",
        metavar="STEPS",
        nargs="?",
        type=number(int, 1),
        const=20,
        help="say how long each op takes in some steps "
        "(default: 20), and write profile.txt and trace.json (for ui.perfetto.dev) to the run folder; training goes on",
    )
    add("--no-plots", action="store_true", help="do not draw curves.png")
    add("--quiet", action="store_true", help="no progress bar and no epoch lines, only the data source and the result")
    given = parser.parse_args(argv)
    if hasattr(given, "resume") and hasattr(given, "out"):
        parser.error("--resume goes on in the run's own folder; leave out --out")
    if hasattr(given, "paper_protocol") and (getattr(given, "validation", 0) or hasattr(given, "patience")):
        parser.error("--paper-protocol holds no images out; leave out --validation and --patience")
    return given


def peak_memory() -> str:
    """Largest memory that this process has had, for people."""
    try:
        import resource
    except ImportError:  # Windows
        return "unknown"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return f"{peak:,.0f} MiB"


def profiled(steps: Iterator[Step], count: int, report: Callable[[tg.Profile, int], None]) -> Iterator[Step]:
    """Pass steps on; after the first few, profile `count` of them, or as many as there are, and report."""
    profile, done = tg.Profile(), 0
    try:
        for number in itertools.count(1):
            now = number > WARM_UP and done < count
            with profile if now else nullcontext():
                step = next(steps, None)
            if step is None:
                break
            done += now
            if now and done == count:
                report(profile, done)
            yield step
    finally:  # also after Ctrl-C, or when the loss is no number
        if done < count:
            report(profile, done)


def new_config(args: argparse.Namespace, data: tg.data.Dataset) -> dict[str, Any]:
    """Everything that decides a new run, and what it was begun with."""
    config = {name: getattr(args, name) for name in DECIDES}
    available = len(data.images[: args.limit])
    config["validation"] = held_out(config, available)
    if config["validation"] >= available:
        raise ValueError(
            f"--validation {config['validation']} leaves nothing of {available} images to train on; use a smaller one"
        )
    if args.patience and not config["validation"]:
        raise ValueError("--patience needs images to validate on; use --validation 1000, say")
    if config["lr"] is None:
        config["lr"] = LEARNING_RATE[args.optimizer]
    origin = {"data": data_place(args.data), "data source": data.source, "data sha256": fingerprint(data)}
    return {**config, **origin, "begun with": begun_with()}


def begun_with() -> dict[str, str]:
    """What the last bits of a result depend on, beside the configuration."""
    return {
        "tinygrad_mnist": tg.__version__,
        "code": code_version(tg, models),
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "native kernels": tg.native.described(),
    }


def resumed(given: argparse.Namespace, say: Callable[[str], None]) -> tuple[Run, argparse.Namespace]:
    """Take up a run; its own options hold."""
    run = Run.resume(given.resume, say)
    try:
        options = {name: run.config.get(name) for name in (*DECIDES, "data")}
        argv = [
            f"--{name.replace('_', '-')}={value}"
            for name, value in options.items()
            if not isinstance(value, bool | None)
        ]
        argv += [f"--{name.replace('_', '-')}" for name, value in options.items() if value is True]
        stored = {**DECIDES, **SESSION, **vars(arguments(argv))}  # checked like any others
        for name in DECIDES:
            if getattr(given, name, stored[name]) != stored[name]:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(
                    f"{option} cannot be changed on the way (the run has {stored[name]}); leave it out, or begin a new "
                    "run"
                )
        if (now := begun_with()) != (then := run.config.get("begun with")):
            differing = [
                f"{key} {then.get(key)} -> {now[key]}"
                for key in now
                if isinstance(then, dict) and then.get(key) != now[key]
            ]
            say(
                f"begun with something else ({'; '.join(differing)}): the result may differ from that of an "
                "uninterrupted run"
            )
        return run, argparse.Namespace(**{**stored, **vars(given)})
    except BaseException:
        run.close()
        raise


def train(args: argparse.Namespace, data: tg.data.Dataset, run: Run, trainer: Trainer, stop: Stop) -> None:
    """Train, telling the run folder and the person in front of the screen how it goes; returns early when stopped."""
    label = {"data": "synthetic" if data.synthetic else data.source.split(" from ")[0]}
    if args.paper_protocol:
        label["protocol"] = "paper"
    note = "  [SYNTHETIC DIGITS]" * data.synthetic + PAPER * args.paper_protocol
    bar, say = None, lambda text: None
    if not args.quiet:
        from tqdm import tqdm

        bar = tqdm(
            total=args.epochs * len(trainer.images),
            unit=" images",
            smoothing=0.05,
            dynamic_ncols=True,
            mininterval=0.5,
            initial=(trainer.epoch - 1) * len(trainer.images) + trainer.batch * args.batch_size,
            disable=sys.stderr is None,
        )
        say = partial(tell, write=bar.write if sys.stdout else print)
    saved = time.perf_counter()
    begun = saved - run.seconds

    def report(profile: tg.Profile, count: int) -> None:
        if not count:
            print(f"no profile: it leaves out the first {WARM_UP} steps, and there were no more", file=sys.stderr)
            return
        table = profile.table(count)
        say(f"profile of {count} steps, each:\n{table}")
        (run.folder / "profile.txt").write_text(table + "\n", encoding="utf-8")
        profile.save_trace(run.folder / "trace.json")

    def record_epoch(row: dict[str, Any]) -> None:
        run.record("epoch", **row, **label)
        seconds = time.perf_counter() - begun
        run.record_time(seconds, epoch=row["epoch"])
        shown = [
            f"{name.removesuffix('_accuracy')} {score:.4f}" for name, score in row.items() if name.endswith("_accuracy")
        ]
        loss = f"loss {row['mean_loss']:.4f}" if "mean_loss" in row else "untrained"
        say("  ".join([f"epoch {row['epoch']}/{args.epochs}", loss, *shown, f"{seconds:.1f} s{note}"]))

    def save(state: dict[str, Any]) -> None:
        run.save(trainer.step, time.perf_counter() - begun, trainer=state)

    if run.state is None:
        save(trainer.state_dict())
    if args.paper_protocol and not run.rows:
        record_epoch({"epoch": 0, **trainer.measure()})
    steps = trainer.steps()
    if args.profile:
        steps = profiled(steps, args.profile, report)
    try:
        while not stop.signal and (step := next(steps, None)) is not None:
            run.record("step", epoch=step.epoch, step=step.step, loss=step.loss, lr=step.lr, **label)
            if bar is not None:
                bar.set_description(f"epoch {step.epoch}/{args.epochs}", refresh=False)
                bar.set_postfix(loss=f"{step.loss:.3f}", refresh=False)
                bar.update(step.images)
            if step.last:
                record_epoch(trainer.history[-1])
            every, seconds = args.checkpoint_every
            if step.step % every == 0 if every else time.perf_counter() - saved >= seconds:
                save(trainer.state_dict())
                saved = time.perf_counter()
        state = trainer.state_dict()
        if stop.signal:
            save(state)
            return
    except FloatingPointError:
        with suppress(ValueError):  # a state that is spoilt already is not saved
            save(trainer.state_dict())
        raise
    finally:
        steps.close()
        if bar is not None:
            bar.close()
    tg.nn.load_parameters(trainer.model, trainer.selected())
    epoch = trainer.history[best_epoch(trainer.scores())]["epoch"] if trainer.best else trainer.history[-1]["epoch"]
    test = accuracy(trainer.model, data.test_images, data.test_labels, args.threads)
    run.record("test", epoch=epoch, test_accuracy=test, images=len(data.test_labels), **label)
    seconds = time.perf_counter() - begun
    run.record_time(seconds, done=True)
    save(state)
    which = f"weights of epoch {epoch}, {'selected by validation' if trainer.best else 'the last'}"
    if trainer.epoch <= args.epochs:
        which += f"; stopped early, after epoch {trainer.epoch - 1}"
    tell(
        f"test accuracy {test:.4f} on all {len(data.test_labels):,} images ({which}); {seconds:.1f} s; peak memory "
        f"{peak_memory()}{note}"
    )


def finish(args: argparse.Namespace, run: Run, trainer: Trainer) -> None:
    """Write what a later look at the run needs."""
    save_weights(run.folder / "weights.safetensors", trainer.selected())
    if not args.no_plots and run.rows:
        plot_curves(
            run.rows,
            run.folder / "curves.png",
            f"{run.folder.name}, {run.rows[-1]['data']}{PAPER * args.paper_protocol}",
        )
    tell(f"run folder: {run.folder}")


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    args, run = (
        argparse.Namespace(**{**DECIDES, **SESSION, **RECIPES[getattr(given, "recipe", "paper")], **vars(given)}),
        None,
    )

    def say(text: str) -> None:
        print(f"train_mnist.py: {text}", file=sys.stderr)

    needed = [("safetensors", "a checkpoint", ""), ("filelock", "a run folder", "")]
    needed += [] if args.quiet else [("tqdm", "the progress bar", ", or pass --quiet")]
    needed += [] if args.no_plots else [("matplotlib", "curves.png", ", or pass --no-plots")]
    if problem := missing_extras(needed):
        say(problem)
        return 2
    try:
        if args.resume:
            run, args = resumed(given, say)
        data = tg.data.find_mnist(args.data)
        announce(data)
        if run is None:
            config = new_config(args, data)
            args = argparse.Namespace(**{**vars(args), **{name: config[name] for name in DECIDES}})
        elif run.config.get("data sha256") != fingerprint(data):
            raise ValueError(
                f"not the data that the run was begun with ({run.config.get('data source')}); pass its folder: --data "
                "DIR"
            )
        trainer = make_trainer(
            settings(**{name: getattr(args, name) for name in DECIDES if name != "recipe"}), data, args.threads
        )
        if run is None:
            run = Run.create(args.out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S"), config)
        else:
            if run.state is not None:
                trainer.load_state_dict(run.state["trainer"])
            run.begin()
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
    ) as error:  # the last two: from a run folder that something else has written
        if run is not None:
            run.close()
        say(
            str(error)
            if isinstance(error, OSError | ValueError)
            else f"{args.resume} is not a run of this script ({error!r})"
        )
        return 2
    except KeyboardInterrupt:
        say("interrupted before training")
        return 128 + signal.SIGINT
    if not args.quiet:
        count = sum(p.size for p in trainer.weights.values())
        tell(
            f"model: {len(trainer.model.layers)} layers, {count:,} parameters; {args.optimizer}, learning rate "
            f"{args.lr:g}"
        )
        if trainer.step:
            tell(f"going on after step {trainer.step}")
    go_on, stop = f"go on with --resume {run.folder}", Stop()
    try:
        with stop:
            if complete(run):
                tell("this run is complete")
            else:
                train(args, data, run, trainer, stop)
            finish(args, run, trainer)
        if stop.signal and not complete(run):
            say(f"stopped by {signal.Signals(stop.signal).name} after step {trainer.step}; {go_on}")
            return 128 + stop.signal
    except KeyboardInterrupt:
        say(f"interrupted at once, the last checkpoint stays; {go_on}")
        return 128 + (stop.signal or signal.SIGINT)
    except FloatingPointError as error:
        say(f"{error}\nuse a smaller --lr; {last_checkpoint(run)}")
        return 1
    except (OSError, ValueError) as error:  # the latter: a state that is too large for a checkpoint
        say(f"{error}; {last_checkpoint(run)}: free space or mend that, then {go_on}")
        return 1
    finally:
        run.close()
    return 0


def complete(run: Run) -> bool:
    """Whether the test images have been read."""
    return any(row["event"] == "test" for row in run.rows)


def last_checkpoint(run: Run) -> str:
    """Say what there is to go back to."""
    files = run.checkpoints.files()
    return f"the last good checkpoint is {files[0]}" if files else "there is no checkpoint yet"


if __name__ == "__main__":
    for stream in filter(None, (sys.stdout, sys.stderr)):  # each may be closed
        stream.reconfigure(errors="backslashreplace")  # a folder may have any name
    sys.exit(main())
