"""The process that measures one framework.

``python -m benchmarking.worker training|convolution NAME THREADS ...`` answers requests; ``train NAME THREADS DATA
RECIPE`` and ``sgemm`` print one answer.
"""

from __future__ import annotations

import contextlib
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
SGEMM_SIZE = 2048


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


def train(name: str, threads: int, data: str, recipe: str) -> float:
    """Train on MNIST by a recipe, a file of JSON, and return the test accuracy; `data` is a file of NumPy arrays."""
    settings = json.loads(Path(recipe).read_text(encoding="utf-8"))
    with np.load(data) as arrays:
        return PEERS[name].train(settings, dict(arrays), threads)


def sgemm_rate() -> float:
    """Return how fast NumPy multiplies matrices of float32, in GFLOP/s."""
    x = np.random.default_rng(0).random((SGEMM_SIZE, SGEMM_SIZE), np.float32)
    return 2 * SGEMM_SIZE**3 / (1e6 * median(timed(lambda: x @ x, 1.0)))


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
    command, *rest = sys.argv[1:]
    if command in ("training", "convolution"):
        serve(command, rest[0], *map(int, rest[1:]))
    else:
        answers = reserve_stdout()
        answer = sgemm_rate() if command == "sgemm" else train(rest[0], int(rest[1]), *rest[2:])
        print(json.dumps(answer), file=answers)
