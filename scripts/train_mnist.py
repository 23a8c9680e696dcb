#!/usr/bin/env python
"""Train the 21-layer network on MNIST. The defaults are the paper's, but for the images held out for validation."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from any folder, installed or not

for library in ("OPENBLAS", "MKL", "OMP"):  # shards run side by side: one thread each for their matrix products, also without threadpoolctl
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist.checkpoint import save_weights
from tinygrad_mnist.training import Step, accuracy, fit, hold_out, plot_curves

OPTIMIZERS = {"adagrad": tg.optim.AdaGrad, "sgd": tg.optim.SGD, "adam": tg.optim.Adam}
INTERRUPTED = 130
WARM_UP = 5  # steps that are not profiled: the first ones still ask the system for memory


def number(kind: type, least: float) -> Callable[[str], Any]:
    """Argument type: a finite number of at least `least`."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
            raise argparse.ArgumentTypeError(f"{text!r} is not a finite {'whole ' if kind is int else ''}number of at least {least:g}")
        return value

    return parse


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="exit codes: 0 done, 1 failed, 2 bad arguments or data, 130 interrupted (the run folder is complete up to there)",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=110),
    )
    add = parser.add_argument
    add("--data", metavar="DIR", help='folder with the four MNIST files, or "synthetic" (default: $TINYGRAD_MNIST_DATA, '
        "the cache, a download; if there is none, synthetic digits)")  # fmt: skip
    add("--out", metavar="DIR", type=Path, help="run folder to create (default: runs/DATE-TIME)")
    add("--epochs", type=number(int, 1), default=8, help="times to go through the training images (default: %(default)s)")
    add("--batch-size", type=number(int, 1), default=500, help="images per step (default: %(default)s)")
    add("--optimizer", choices=OPTIMIZERS, default="adagrad", help="(default: %(default)s)")
    add("--lr", type=number(float, 0), help="learning rate (default: 0.01; 0.001 for adam)")
    add("--momentum", type=number(float, 0), default=0.9, help="for sgd (default: %(default)s)")
    add("--init", choices=["he", "xavier"], default="he", help="initial weights (default: %(default)s)")
    add("--depth", type=int, choices=[6, 5, 4], default=6, help="number of convolutions (default: %(default)s, 21 layers)")
    add("--seed", type=number(int, 0), default=0, help="decides weights, order and dropout (default: %(default)s)")
    add("--validation", metavar="N", type=number(int, 0), help="training images held out to validate on (default: 1000, or a tenth of "
        "fewer than 10000 images; 0 trains on all, as the paper did)")  # fmt: skip
    add("--limit", metavar="N", type=number(int, 1), help="use only the first N training images")
    add("--threads", metavar="N", type=number(int, 1), help="default: the usable cores; the result does not depend on it")
    add("--shard-size", metavar="N", type=number(int, 1), help="images that one thread computes at a time (default: up to 144, so that 4 "
        "threads share a batch evenly); decides the last bits of the result")  # fmt: skip
    add("--profile", metavar="STEPS", nargs="?", type=number(int, 1), const=20, help="say how long each op takes in some steps "
        "(default: 20), and write profile.txt and trace.json (for ui.perfetto.dev) to the run folder; training goes on")  # fmt: skip
    add("--no-plots", action="store_true", help="do not draw curves.png")
    add("--quiet", action="store_true", help="no progress bar and no epoch lines, only the data source and the result")
    return parser.parse_args(argv)


class Run:
    """The run folder: configuration, metrics line by line, weights, curves."""

    def __init__(self, folder: Path, config: dict[str, Any], label: str) -> None:
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"the run folder {folder} is a file; choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"the run folder {folder} is not empty; choose another --out")
        self.folder, self.label, self.rows = folder, label, list[dict[str, Any]]()
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        self.file = open(folder / "metrics.jsonl", "w", encoding="utf-8")  # closed in finish

    def record(self, event: str, **values: Any) -> None:
        """Add a line to metrics.jsonl; every one says which kind of data it was measured on."""
        self.rows.append({"event": event, **values, "data": self.label})
        print(json.dumps(self.rows[-1], allow_nan=False), file=self.file, flush=True)

    def finish(self, model: Any, plots: bool) -> None:
        """Write what a later look at the run needs (no weights, where training has spoilt them)."""
        self.file.close()
        if model is not None:
            save_weights(self.folder / "weights.npz", tg.nn.parameters(model))
        if plots:
            plot_curves(self.rows, self.folder / "curves.png", f"{self.folder.name}, {self.label}")


def missing_extras(args: argparse.Namespace) -> str | None:
    """Name what the chosen options need and is not installed, before any time is spent."""
    wanted = {"tqdm": ("the progress bar", "--quiet", not args.quiet), "matplotlib": ("curves.png", "--no-plots", not args.no_plots)}
    for module, (purpose, option, needed) in wanted.items():
        if needed and importlib.util.find_spec(module) is None:
            return f"{purpose} needs {module}: pip install 'tinygrad_mnist[train]', or pass {option}"
    return None


def peak_memory() -> str:
    """Largest memory that this process has had, for people."""
    try:
        import resource
    except ImportError:  # Windows
        return "unknown"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10):,.0f} MiB"


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


def train(args: argparse.Namespace, data: tg.data.Dataset, run: Run, model: DeepConvNet, optimizer: tg.optim.Optimizer) -> None:
    """Train, telling the run folder and the person in front of the screen how it goes."""
    _, split, draws = np.random.default_rng(args.seed).spawn(3)
    images, labels = data.images[: args.limit], data.labels[: args.limit]
    training, held = hold_out(labels, args.validation, split)
    note = "  [SYNTHETIC DIGITS]" if data.synthetic else ""
    bar, say = None, lambda text: None
    if not args.quiet:
        from tqdm import tqdm

        bar = tqdm(total=args.epochs * len(training), unit=" images", smoothing=0.05, dynamic_ncols=True, mininterval=0.5)
        say = bar.write
    losses: list[float] = []
    begun = time.perf_counter()

    def report(profile: tg.Profile, count: int) -> None:
        if not count:
            print(f"no profile: it leaves out the first {WARM_UP} steps, and there were no more", file=sys.stderr)
            return
        table = profile.table(count)
        say(f"profile of {count} steps, each:\n{table}")
        (run.folder / "profile.txt").write_text(table + "\n", encoding="utf-8")
        profile.save_trace(run.folder / "trace.json")

    steps = fit(model, optimizer, images[training], labels[training], epochs=args.epochs, batch_size=args.batch_size, rng=draws,
                shard_size=args.shard_size, threads=args.threads)  # fmt: skip
    if args.profile:
        steps = profiled(steps, args.profile, report)
    try:
        for step in steps:
            if not math.isfinite(step.loss):
                where = f"in step {step.step} with learning rate {optimizer.lr:g}"
                raise FloatingPointError(f"the loss is {step.loss} {where}; use a smaller --lr")
            losses.append(step.loss)
            run.record("step", epoch=step.epoch, step=step.step, loss=step.loss)
            if bar is not None:
                bar.set_description(f"epoch {step.epoch}/{args.epochs}", refresh=False)
                bar.set_postfix(loss=f"{step.loss:.3f}", refresh=False)
                bar.update(step.images)
            if step.last:
                scores = {"train_accuracy": accuracy(model, images[training[:1000]], labels[training[:1000]], args.threads)}
                if len(held):
                    scores["validation_accuracy"] = accuracy(model, images[held], labels[held], args.threads)
                seconds = time.perf_counter() - begun
                run.record("epoch", epoch=step.epoch, mean_loss=float(np.mean(losses)), **scores, seconds=seconds)
                shown = "  ".join(f"{name.replace('_accuracy', '')} {score:.4f}" for name, score in scores.items())
                say(f"epoch {step.epoch}/{args.epochs}  loss {np.mean(losses):.4f}  {shown}  {seconds:.1f} s{note}")
                losses.clear()
    finally:
        steps.close()
        if bar is not None:
            bar.close()
    test = accuracy(model, data.test_images, data.test_labels, args.threads)
    seconds = time.perf_counter() - begun
    run.record("test", test_accuracy=test, images=len(data.test_labels), seconds=seconds)
    print(f"test accuracy {test:.4f} on all {len(data.test_labels):,} images; {seconds:.1f} s; peak memory {peak_memory()}{note}")


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    if problem := missing_extras(args):
        print(f"train_mnist.py: {problem}", file=sys.stderr)
        return 2
    try:
        data = tg.data.find_mnist(args.data)
        name, _, why = data.source.partition(" (")
        print(f"{'!' * 24} {name} {'!' * 24} ({why}" if data.synthetic else f"data: {data.source}")
        available = len(data.images[: args.limit])
        if args.validation is None:
            args.validation = min(1000, available // 10)
        if args.validation >= available:
            raise ValueError(f"--validation {args.validation} leaves nothing of {available} images to train on; use a smaller one")
        model = DeepConvNet(rng=np.random.default_rng(args.seed).spawn(3)[0], init=args.init, depth=args.depth)
        settings = {} if args.lr is None else {"lr": args.lr}
        if args.optimizer == "sgd":
            settings["momentum"] = args.momentum
        optimizer = OPTIMIZERS[args.optimizer](tg.nn.parameters(model), **settings)
        folder = args.out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
        versions = {"tinygrad_mnist": tg.__version__, "numpy": np.__version__, "python": sys.version.split()[0]}
        made = {"versions": versions, "native kernels": tg.native.described()}
        config = {**vars(args), "data": data.source, "lr": optimizer.lr, "out": str(folder), **made}
        run = Run(folder, config, "synthetic" if data.synthetic else data.source.split(" from ")[0])
    except (OSError, ValueError) as error:
        print(f"train_mnist.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before training", file=sys.stderr)
        return INTERRUPTED
    if not args.quiet:
        count = sum(p.size for p in tg.nn.parameters(model).values())
        print(f"model: {len(model.layers)} layers, {count:,} parameters; {args.optimizer}, learning rate {optimizer.lr:g}")
    code = 0
    try:
        train(args, data, run, model, optimizer)
    except KeyboardInterrupt:
        print("interrupted: writing what there is", file=sys.stderr)
        code = INTERRUPTED
    except FloatingPointError as error:
        print(f"train_mnist.py: {error}", file=sys.stderr)
        code = 1
    run.finish(None if code == 1 else model, plots=not args.no_plots)
    print(f"run folder: {folder}")
    return code


if __name__ == "__main__":
    sys.exit(main())
