"""Measurements of several frameworks, each in a process of its own, in turns."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import median
from typing import Any

from .convolutions import CONVOLUTIONS
from .peers import CHAIN_LENGTH, PEERS, ROOT

Results = dict[str, dict[str, Any]]  # framework -> measurement -> one value for each round
OURS = "tinygrad_mnist"
WORKER = [sys.executable, "-m", "benchmarking.worker"]
SCRIPTS = ROOT / "scripts"
PAUSE = 0.3  # seconds, in which the threads of the framework before stop spinning
BUDGET = 60.0  # seconds for all turns of one measurement of one framework
AXES = {
    "batch size": (50, 100, 200, 500, 1000, 2000, 5000),
    "convolutions": (1, 2, 4, 8, 16, 32),
    "image width": (14, 28, 56, 112, 224),
}


class Worker:
    """A process that measures one framework on request."""

    def __init__(self, work: str, name: str, threads: int, *numbers: int) -> None:
        framework = CONVOLUTIONS[name] if work == "convolution" else PEERS[name]
        self.errors, self.warm_up = tempfile.TemporaryFile("w+"), framework.warm_up
        command = [*WORKER, work, name, *map(str, (threads, *numbers))]
        environment = {**os.environ, **framework.environment(threads)}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process = subprocess.Popen(command, text=True, env=environment, cwd=SCRIPTS, **pipes)

    def request(self, what: str, argument: Any) -> Any:
        """Return the answer, such as the samples of a measurement; a process that failed raises RuntimeError."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps([what, argument]), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            self.process.wait()
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"exit code {self.process.returncode}")
        return json.loads(answer)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()
        self.errors.close()


@contextlib.contextmanager
def start_workers(wanted: Mapping[Any, Callable[[], Worker]], what: str = "step") -> Iterator[dict[Any, Worker]]:
    """Start processes and let each measure something once; one that fails is reported and left out."""
    workers: dict[Any, Worker] = {}
    try:
        for name, start in wanted.items():
            show_status(f"starting {name}")
            workers[name] = start()
            try:
                workers[name].request(what, 0)
            except RuntimeError as error:
                print(f"{name} does not run here: {error}", file=sys.stderr)
                workers.pop(name).close()
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def measure_in_turns(workers: Mapping[Any, Worker], what: str, args: argparse.Namespace) -> dict[Any, list[float]]:
    """Return the median of each turn of each worker.

    The order changes from round to round. A worker that fails has no further turns.
    """
    found: dict[Any, list[float]] = {name: [] for name in workers}
    budget = dict.fromkeys(workers, BUDGET)
    for number in range(args.repeat):
        show_status(f"{what}, round {number + 1} of {args.repeat}")
        names = [name for name in workers if budget[name] > 0]
        first = number % max(len(names), 1)
        for name in names[first:] + names[:first]:
            try:
                for _ in range(0 if number else workers[name].warm_up):
                    workers[name].request(what, 0)
                time.sleep(PAUSE)
                samples = workers[name].request(what, args.turn)
            except RuntimeError as error:
                print(f"{name} failed in {what}: {error}", file=sys.stderr)
                budget[name] = 0
            else:
                budget[name] -= sum(samples) / 1000
                found[name].append(median(samples))
    return {name: samples for name, samples in found.items() if samples}


def peak_memory(workers: Mapping[Any, Worker]) -> dict[Any, list[float]]:
    """Return the peak so far, in MiB, of each worker that is alive."""
    found = {}
    for name, worker in workers.items():
        with contextlib.suppress(RuntimeError):
            found[name] = worker.request("memory", 0)
    return found


def compare(names: list[str], args: argparse.Namespace) -> Results:
    """Measure the step with every batch size, memory, inference, a chain of small ops, and import."""
    results: Results = {}
    for size in args.batch_sizes:
        starts = {name: partial(Worker, "training", name, args.threads, size, 0, 28) for name in names}
        with start_workers(starts) as workers:
            for name, samples in measure_in_turns(workers, "step", args).items():
                results.setdefault(name, {})[f"step {size}"] = samples
            if size == args.batch_sizes[-1]:
                add_measurements(results, workers, args)
    for number in range(args.repeat + 1):
        show_status(f"import, round {number + 1} of {args.repeat}")
        for name in results:
            if PEERS[name].imported:
                results[name].setdefault("import", []).append(import_seconds(PEERS[name].package))
    for result in results.values():
        result.get("import", [None]).pop(0)  # the first import may have compiled the bytecode
    return results


def add_measurements(results: Results, workers: Mapping[str, Worker], args: argparse.Namespace) -> None:
    """Add peak memory so far, inference, and a chain of small ops where it is measured."""
    eager = {name: worker for name, worker in workers.items() if PEERS[name].eager}
    for name, peak in peak_memory(workers).items():
        results.setdefault(name, {})[f"memory {args.batch_sizes[-1]}"] = peak
    for name, samples in measure_in_turns(workers, "inference", args).items():
        results.setdefault(name, {})["inference"] = samples
    for name, samples in measure_in_turns(eager, "chain", args).items():
        results.setdefault(name, {})["chain"] = [1000 * ms / CHAIN_LENGTH for ms in samples]


def import_seconds(package: str) -> float:
    """Return how much longer a new interpreter takes to import a package than to import numpy."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def seconds(module: str) -> float:
        command = [sys.executable, "-c", f"import {module}"]
        begin = time.perf_counter()
        subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
        return time.perf_counter() - begin

    return seconds(package) - seconds("numpy")


def measure_growth(names: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure time and peak memory of a step, each in a new process.

    Over the batch size for all frameworks, over depth and image size for ours.
    """
    rows: list[dict[str, Any]] = []
    axes: list[tuple[str, list[str], Callable[[str, int], Worker]]] = [
        ("batch size", names, lambda name, n: Worker("training", name, args.threads, n, 0, 28)),
        ("convolutions", [OURS], lambda name, n: Worker("training", name, args.threads, 100, n, 28)),
        ("image width", [OURS], lambda name, n: Worker("training", name, args.threads, 50, 3, n)),
    ]
    for axis, systems, start in axes:
        for value in AXES[axis][: 4 if args.quick else None]:
            with start_workers({name: partial(start, name, value) for name in systems}) as workers:
                found = measure_in_turns(workers, "step", args)
                for name, peak in peak_memory(workers).items():
                    if found.get(name) and peak:
                        rows.append({"axis": axis, "value": value, "system": name, "ms": found[name], "MiB": peak[0]})
    return rows


def show_status(text: str) -> None:
    """Show what is being measured, on a line that the next one overwrites."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
