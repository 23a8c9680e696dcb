"""One run, from its settings to a JSON file; and many of them, on any `concurrent.futures.Executor`.

A result is stored under a hash of what decides it: settings, data and code. One that is there is never computed again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import training
from training.build import MEASURED, make_trainer

import models
import tinygrad_mnist as tg
from tinygrad_mnist.storage.checkpoint import save_weights
from tinygrad_mnist.storage.files import write_atomically
from tinygrad_mnist.train import Trainer, predict
from tinygrad_mnist.train.runs import code_version

from . import listed

BINS = (-10.0, 4.0, 56)  # of the histograms: log10 of the absolute value, from, to, number


class Job(NamedTuple):
    """A run that is wanted."""

    key: str
    config: dict[str, Any]
    code: str
    images: int  # to go through, to tell how long it will take; those of a slower kind of run count several times


class Workplace(NamedTuple):
    """What all jobs share."""

    data: tg.data.Dataset
    folder: Path
    threads: int
    done: Any  # multiprocessing.Value: images that all runs together have gone through
    stop: Any  # multiprocessing.Event: end as soon as possible


_here: Workplace | None = None  # of this process


def code() -> str:
    """Say which code decides results: the package, the models, settings and recipes, the paper's mistakes."""
    return code_version(tg, models, training, listed)


def key(config: Mapping[str, Any], data: str, version: str) -> str:
    """Hash of settings, data (its SHA-256) and version of the code, as 16 hexadecimal digits."""
    decides = json.dumps([dict(config), data, version], sort_keys=True)
    return hashlib.sha256(decides.encode()).hexdigest()[:16]


def wanted(configs: Iterable[dict[str, Any]], data: tg.data.Dataset, sha256: str) -> dict[str, Job]:
    """List the jobs of these settings by key, each once."""
    jobs: dict[str, Job] = {}
    version = code()
    for config in configs:
        images = config["epochs"] * len(data.images[: config["limit"]])
        slower = (4 if config["dtype"] == "float64" else 1) * (1.4 if config["augment"] else 1)  # measured, roughly
        job = Job(key(config, sha256, version), config, version, int(images * slower))
        jobs[job.key] = job
    return jobs


def begin(here: Workplace) -> None:
    """Prepare this process for `work`: an executor's initializer."""
    global _here
    _here = here
    if (parent := multiprocessing.parent_process()) is not None:
        for number in _terminal_signals():
            signal.signal(number, signal.SIG_IGN)

        def end_with_parent() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=end_with_parent, daemon=True).start()  # even if the parent is killed


def work(job: Job) -> str | None:
    """Do a job and store its result, with a checksum; returns its key, or None if it was told to stop."""
    assert _here is not None, "begin() comes first"
    result = run(job, _here)
    if result is not None:
        text = json.dumps({**result, "sha256": checksum(result)}, allow_nan=False)
        write_atomically(_here.folder / f"{job.key}.json", text.encode())
    return None if result is None else job.key


def checksum(result: Mapping[str, Any]) -> str:
    """SHA-256 of everything else in a result: what is read is what was stored."""
    rest = {name: value for name, value in result.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def run(job: Job, here: Workplace) -> dict[str, Any] | None:
    """Train and test as the settings say."""
    data, config = here.data, job.config
    trainer = make_trainer(listed.ListedSettings.from_config(config), data, here.threads)
    if not config["paper_protocol"]:  # which looks at some of them
        trainer.monitor["test"] = data.test_images, data.test_labels  # for the curve; nothing is chosen by it
    watched = trainer.images[:500], trainer.labels[:500]
    history, seconds, losses, histograms, failed = [], [], [], [], ""
    spent, per_image = 0.0, job.images / (config["epochs"] * len(data.images[: config["limit"]]))
    tested: dict[str, Any] = {"test_accuracy": None}
    try:
        history.append({"epoch": 0, **trainer.measure()})
        histograms.append(_histograms(trainer, watched))
        for step, took in _timed(trainer):
            spent += took
            losses.append(step.loss)
            with here.done.get_lock():
                here.done.value += step.images * per_image
            if here.stop.is_set():
                return None
            if step.last:
                seconds.append(round(spent, 3))
                histograms.append(_histograms(trainer, watched))
        tg.nn.load_state_dict(trainer.model, trainer.selected())
        tested = _tested(trainer.model, data, here.threads)
        save_weights(here.folder / f"{job.key}.safetensors", trainer.selected())
    except FloatingPointError as error:
        failed = str(error).split("\n")[0]
    return {
        "key": job.key,
        "config": config,
        "code": job.code,
        "data": data.source.split(" from ")[0],
        "synthetic": data.synthetic,
        "begun with": {
            "numpy": np.__version__,
            "python": sys.version.split()[0],
            "native kernels": tg.native.description(),
        },
        "threads": here.threads,
        "failed": failed,
        "losses": losses,
        "steps_per_epoch": len(trainer.cuts),
        "last_batch": len(trainer.cuts[-1]) / len(trainer.cuts[0]),
        "history": history + trainer.history,
        "measured_images": MEASURED,
        "seconds": seconds,
        "test_images": len(data.test_labels),
        "histograms": histograms,
        **tested,
    }


def _timed(trainer: Trainer) -> Iterator[tuple[Any, float]]:
    """Yield each step and the seconds that it took, measuring at the end of an epoch included."""
    steps = trainer.steps()
    while True:
        start = time.perf_counter()
        if (step := next(steps, None)) is None:
            return
        yield step, time.perf_counter() - start


def _tested(model: Any, data: tg.data.Dataset, threads: int) -> dict[str, Any]:
    """Accuracy, confusion matrix and mistakes on the test images."""
    labels = data.test_labels
    guessed = predict(model, data.test_images, threads)
    wrong = np.flatnonzero(guessed != labels)
    sure = []
    if len(wrong):
        with tg.no_grad():
            sure = tg.softmax(model(data.test_images[wrong])).max(axis=1).data.tolist()
    return {
        "test_accuracy": int(np.sum(guessed == labels)) / len(labels),
        "confusion": np.bincount(10 * labels.astype(int) + guessed, minlength=100)
        .reshape(10, 10)
        .tolist(),  # [true][guessed]
        "wrong": [[int(i), int(labels[i]), int(guessed[i]), round(p, 6)] for i, p in zip(wrong, sure, strict=True)],
    }


def _histograms(trainer: Trainer, watched: tuple[Any, Any]) -> dict[str, Any]:
    """How large weights and gradients are in each layer: counts of log10 |x|, and of zeros, on a fixed batch."""
    weights = {name: p for name, p in trainer.weights.items() if name.endswith("weight")}
    with np.errstate(all="ignore"):
        _, grads = tg.parallel.value_and_grad(
            trainer.model.loss,
            weights,
            *watched,
            rng=np.random.default_rng(0),
            shard_size=trainer.shard_size,
            threads=trainer.threads,
        )
    return {name: {"weight": _counted(p.data), "gradient": _counted(grads[name])} for name, p in weights.items()}


def _counted(array: np.ndarray) -> dict[str, Any]:
    finite = np.abs(array[np.isfinite(array)], dtype=np.float64)
    logs = np.log10(finite[finite > 0])
    low, high, bins = BINS
    counts, _ = np.histogram(np.clip(logs, low, high), bins, (low, high))
    return {"counts": counts.tolist(), "zeros": int(np.sum(finite == 0)), "not finite": int(array.size - finite.size)}


def stored(folder: Path, log: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Read all results in a folder, by key; what is none is logged and left out."""
    results = {}
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["key"] != path.stem or result["sha256"] != checksum(result):
                raise ValueError("it is not what was stored")
            results[path.stem] = result
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log(f"{path} is no result ({error}); leaving it out")
    return results


def _terminal_signals() -> set[int]:
    return {getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)}


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Keep Ctrl-C from processes that are started here.

    A terminal sends it to all, and the parent decides what it means.
    """
    block = getattr(signal, "pthread_sigmask", None)  # Windows has none
    before = block(signal.SIG_BLOCK, _terminal_signals()) if block else None
    try:
        yield
    finally:
        if block:
            block(signal.SIG_SETMASK, before)


def run_all(
    jobs: Iterable[Job],
    executor: Executor,
    *,
    stop: Any,
    tick: Callable[[], None],
    finished: Callable[[Job], None],
    stopped: Callable[[], bool],
) -> None:
    """Have all jobs done; `tick` is called twice a second, `finished` after each job.

    When `stopped` says so, and when a job fails, what has not begun is cancelled and what runs is told to end.
    """
    with _no_interrupts():
        pending: dict[Future[str | None], Job] = {executor.submit(work, job): job for job in jobs}
    try:
        while pending:
            done, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            tick()
            for future in done:
                job = pending.pop(future)
                if not future.cancelled() and future.result() is not None:
                    finished(job)
            if stopped() and not stop.is_set():
                stop.set()
                for future in pending:
                    future.cancel()
    finally:
        stop.set()
        for future in pending:
            future.cancel()
