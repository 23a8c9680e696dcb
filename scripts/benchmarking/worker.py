"""The process that measures one framework.

``python -m benchmarking.worker training|convolution|train NAME THREADS ...``
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TextIO, TypeAlias

import numpy as np

from .convolutions import CONVOLUTIONS, Case
from .peers import PEERS, Stack

Work: TypeAlias = Callable[[Any], Any]


def training_work(name: str, threads: int, batch_size: int, depth: int, size: int) -> dict[str, Work]:
    """Return what can be measured in training on random images, `depth` convolutions in place of the network if not 0.

    The argument of a measurement is the seconds that it may take.
    """
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (batch_size, size, size), dtype=np.uint8), rng.integers(0, 10, batch_size)
    thousand = rng.integers(0, 256, (1000, 28, 28), dtype=np.uint8)
    peer = Stack(threads, 0, depth) if depth else PEERS[name](threads, 0)
    return {
        "step": partial(timed, lambda: peer.step(images, labels)),
        "inference": partial(timed, lambda: peer.predict(thousand)),
        "chain": partial(timed, peer.chain),
        "memory": lambda _: peak_memory(),
    }


def convolution_work(name: str, threads: int, *numbers: int) -> dict[str, Work]:
    """Return what can be asked about a convolution: its time, and its results, whose argument is a file's name."""
    convolution = CONVOLUTIONS[name](threads, Case(*numbers))
    return {"convolution": partial(timed, convolution), "results": lambda file: np.savez(file, *convolution.results())}


def serve(command: str, name: str, *numbers: int) -> None:
    """Answer requests, a line of JSON each: what to measure or compute, and its argument."""
    answers = reserve_stdout()
    work = (training_work if command == "training" else convolution_work)(name, *numbers)
    for line in sys.stdin:
        what, argument = json.loads(line)
        print(json.dumps(work[what](argument)), file=answers)


def train(name: str, threads: int, batch_size: int, seed: int, limit: float, target: float, data: str) -> None:
    """Train on MNIST until the target accuracy or the time limit is reached; print epochs and accuracy as JSON.

    The test accuracy is measured twice an epoch.
    """
    begin = time.perf_counter()
    answers = reserve_stdout()
    with np.load(data) as arrays:
        images, labels = arrays["images"], arrays["labels"]
        test_images, test_labels = arrays["test_images"], arrays["test_labels"]
    peer, rng = PEERS[name](threads, seed), np.random.default_rng(seed)
    per_epoch = max(len(images) // batch_size, 1)
    for step in itertools.count():
        if step % per_epoch == 0:
            order = rng.permutation(len(images))
        batch = order[step % per_epoch * batch_size :][:batch_size]
        peer.step(images[batch], labels[batch])
        if (step + 1) % max(per_epoch // 2, 1) == 0:
            parts = [slice(i, i + 1000) for i in range(0, len(test_labels), 1000)]
            correct = sum(int((peer.predict(test_images[part]) == test_labels[part]).sum()) for part in parts)
            accuracy = correct / len(test_labels)
            if accuracy >= target or time.perf_counter() - begin > limit:
                print(json.dumps({"epochs": (step + 1) / per_epoch, "accuracy": accuracy}), file=answers)
                return


def reserve_stdout() -> TextIO:
    """Return standard output, for answers alone: what a framework prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def timed(work: Callable[[], Any], seconds: float) -> list[float]:
    """Return the milliseconds of each call: at least one call, for about that many seconds."""
    samples: list[float] = []
    while not samples or sum(samples) + median(samples) < 1000 * seconds:
        begin = time.perf_counter()
        work()
        samples.append(1000 * (time.perf_counter() - begin))
    return samples


def peak_memory() -> list[float]:
    """Return the peak memory of this process in MiB, or an empty list where the system does not report it."""
    with contextlib.suppress(OSError):  # first, because on Linux the value of getrusage includes the parent's memory
        return [int(size) / 1024 for size in re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())]
    try:
        import resource
    except ImportError:  # Windows
        return []
    return [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)]


if __name__ == "__main__":
    command, name, *rest = sys.argv[1:]
    if command == "train":
        threads, batch_size, seed = map(int, rest[:3])
        train(name, threads, batch_size, seed, float(rest[3]), float(rest[4]), rest[5])
    else:
        serve(command, name, *map(int, rest))
