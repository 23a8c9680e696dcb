#!/usr/bin/env python
"""Compare training of the 21-layer network with other frameworks, those of them that are installed, and with
hand-written NumPy.

Every framework runs in a process of its own with the same number of threads, held (on Linux) to that many cores. They
take turns in the same minutes, so that a machine that drifts is the same for all: read the ratios, not the
milliseconds. Training is that of `peers.py`; the images of the time measurements are random. With MNIST at hand (--data
or TINYGRAD_MNIST_DATA) it also measures the time from the start of a process to 99 % test accuracy. With --growth it
measures how time and memory grow with the batch, the depth and the image instead.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from peers import LENGTH, PEERS, ROOT, version

Results = dict[str, dict[str, Any]]
OURS = "tinygrad_mnist"
WORKER = str(Path(__file__).with_name("benchmark_worker.py"))
METRICS = {  # name: what it says in the table, unit, format
    "step": ("training step", "ms", "{:.1f}"),
    "inference": ("inference, 1,000 images", "ms", "{:.1f}"),
    "chain": ("small op, forward and backward", "µs", "{:.2f}"),
    "import": ("import, above numpy's", "s", "{:.3f}"),
    "memory": ("peak memory of training", "MiB", "{:.0f}"),
    "accuracy": ("process start to 99 % test accuracy", "s", "{:.1f}"),
}
TURN = 1.0  # seconds of measuring before the next framework has its turn
REST = 0.3  # seconds in which the threads of the last one stop spinning
PATIENCE = 60.0  # seconds for all turns of one measurement of one framework
GOAL = 0.99
COLORS = {OURS: "#d95f02", f"{OURS}-numpy": "#f4a259"}
GROWING = f"{OURS},pytorch"
AXES = {
    "batch size": (50, 100, 200, 500, 1000, 2000, 5000),
    "convolutions": (1, 2, 4, 8, 16, 32),
    "image width": (14, 28, 56, 112, 224),
}
NEVER = float("inf")  # not reached in time


# Measuring ------------------------------------------------------------------------------------------------------------
class Worker:
    """A process that serves one framework."""

    def __init__(self, name: str, threads: int, batch_size: int, depth: int = 0, size: int = 28) -> None:
        self.errors = tempfile.TemporaryFile("w+")
        self.warm_up = PEERS[name].warm_up
        command = [sys.executable, WORKER, "serve", name, *map(str, (threads, batch_size, depth, size))]
        pipe, environment = subprocess.PIPE, {**os.environ, **PEERS[name].environment(threads)}
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self.errors, text=True, env=environment
        )

    def ask(self, what: str, seconds: float) -> list[float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps([what, seconds]), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            self.process.wait()
            self.errors.seek(0)
            raise RuntimeError(
                (self.errors.read().strip().splitlines() or [f"exit code {self.process.returncode}"])[-1]
            )
        return [float(value) for value in json.loads(answer)]

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()
        self.errors.close()


@contextlib.contextmanager
def working(wanted: Mapping[Any, Callable[[], Worker]]) -> Iterator[dict[Any, Worker]]:
    """Processes that have done their first step; one that cannot is reported and left out."""
    workers: dict[Any, Worker] = {}
    try:
        for name, start in wanted.items():
            say(f"starting {name}")
            workers[name] = start()
            try:
                workers[name].ask("step", 0.5)
            except RuntimeError as error:
                print(f"{name} does not run here: {error}", file=sys.stderr)
                workers.pop(name).close()
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def in_turns(workers: Mapping[Any, Worker], what: str, args: argparse.Namespace) -> dict[Any, list[float]]:
    """Median of each turn of each worker.

    The order changes from round to round. One that fails has no further turns.
    """
    found: dict[Any, list[float]] = {name: [] for name in workers}
    left = dict.fromkeys(workers, PATIENCE)  # seconds
    for number in range(args.repeat):
        say(f"{what}, round {number + 1} of {args.repeat}")
        names = [name for name in workers if left[name] > 0]
        start = number % max(len(names), 1)
        for name in names[start:] + names[:start]:
            try:
                for _ in range(0 if number else workers[name].warm_up):
                    workers[name].ask(what, 0)
                time.sleep(REST)
                samples = workers[name].ask(what, 0.3 if args.quick else TURN)
            except RuntimeError as error:
                print(f"{name} failed in {what}: {error}", file=sys.stderr)
                left[name] = 0
            else:
                left[name] -= sum(samples) / 1000
                found[name].append(median(samples))
    return {name: samples for name, samples in found.items() if samples}


def memory(workers: Mapping[Any, Worker]) -> dict[Any, list[float]]:
    """Peak so far of each worker that is alive, in MiB."""
    found = {}
    for name, worker in workers.items():
        with contextlib.suppress(RuntimeError):
            found[name] = worker.ask("memory", 0)
    return found


def compare(names: list[str], args: argparse.Namespace) -> Results:
    """Measure everything, in turns."""
    with working({name: partial(Worker, name, args.threads, args.batch_size) for name in names}) as workers:
        results: Results = {name: {} for name in workers}
        for what in ("step", "memory", "inference", "chain"):
            asked = {name: worker for name, worker in workers.items() if what != "chain" or PEERS[name].eager}
            found = memory(asked) if what == "memory" else in_turns(asked, what, args)
            for name, samples in found.items():
                results[name][what] = [1000 * ms / LENGTH for ms in samples] if what == "chain" else samples
    for number in range(args.repeat + 1):
        say(f"import, round {number + 1} of {args.repeat}")
        for name in results:
            if PEERS[name].imported:
                results[name].setdefault("import", []).append(import_seconds(PEERS[name].package))
    for result in results.values():
        result.get("import", [None]).pop(0)  # the first one may have compiled the bytecode
    return results


def import_seconds(package: str) -> float:
    """How long a fresh interpreter takes to import a package, with its bytecode compiled as pip does, above one that
    imports numpy.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def wall(module: str) -> float:
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", f"import {module}"], check=True, cwd=ROOT, env=environment, capture_output=True
        )
        return time.perf_counter() - begin

    return wall(package) - wall("numpy")


def race(results: Results, mnist: Sequence[Any], args: argparse.Namespace) -> None:
    """Add the time to the goal, in turns, for frameworks that can be there in time."""
    import numpy as np

    images, labels, test_images, test_labels = mnist
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "mnist.npz"
        np.savez(
            data,
            images=images,
            labels=labels.astype(np.int64),
            test_images=test_images,
            test_labels=test_labels.astype(np.int64),
        )
        for seed in range(args.seeds):
            for name, result in results.items():
                if (
                    least := 3 * median(result.get("step", [NEVER])) / 1000 * len(images) / args.batch_size
                ) > args.limit:
                    if not seed:
                        print(
                            f"not trained to {GOAL:.0%}: {name}, which takes {least:.0f} s for three epochs",
                            file=sys.stderr,
                        )
                    continue
                say(f"training {name} to {GOAL:.0%}, seed {seed}")
                numbers = (args.threads, args.batch_size, seed, args.limit, GOAL, data)
                command = [sys.executable, WORKER, "race", name, *map(str, numbers)]
                environment = {**os.environ, **PEERS[name].environment(args.threads)}
                begin = time.perf_counter()
                done = subprocess.run(command, capture_output=True, text=True, env=environment)
                seconds = time.perf_counter() - begin
                if done.returncode:
                    print(
                        f"{name} failed in training to {GOAL:.0%}: {done.stderr.strip().splitlines()[-1:]}",
                        file=sys.stderr,
                    )
                    continue
                answer = json.loads(done.stdout)
                reached = answer["accuracy"] >= GOAL
                result.setdefault("accuracy", []).append(seconds if reached else NEVER)
                result.setdefault("epochs", []).append(answer["epochs"])


def growth(names: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time and peak memory of a step, each in a fresh process.

    By batch size for all, by depth and image size for ours.
    """
    rows: list[dict[str, Any]] = []
    axes: list[tuple[str, list[str], Callable[[str, int], Worker]]] = [
        ("batch size", names, lambda name, n: Worker(name, args.threads, n)),
        ("convolutions", [OURS], lambda name, n: Worker(name, args.threads, 100, depth=n)),
        ("image width", [OURS], lambda name, n: Worker(name, args.threads, 50, depth=3, size=n)),
    ]
    for axis, systems, start in axes:
        for value in AXES[axis][: 4 if args.quick else None]:
            with working({name: partial(start, name, value) for name in systems}) as workers:
                found = in_turns(workers, "step", args)
                for name, peak in memory(workers).items():
                    if found.get(name) and peak:
                        rows.append({"axis": axis, "value": value, "system": name, "ms": found[name], "MiB": peak[0]})
    return rows


# What people see ------------------------------------------------------------------------------------------------------
def say(text: str) -> None:
    """Tell what is going on, on one line that the next one overwrites."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def machine() -> dict[str, str]:
    """What the figures depend on."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
    }


def spread(samples: Sequence[float], form: str) -> str:
    middle, least, most = (
        "not in time" if v == NEVER else form.format(v) for v in (median(samples), min(samples), max(samples))
    )
    return f"{middle} [{least}, {most}]"


def table(results: Results) -> str:
    """For each measurement a line per framework: median, least and greatest, and how many times ours the median is."""
    lines = []
    for what, (title, unit, form) in METRICS.items():
        rows = {name: result[what] for name, result in results.items() if result.get(what)}
        if rows:
            lines.append(f"{title} ({unit})")
            for name, samples in sorted(rows.items(), key=lambda row: median(row[1])):
                known = OURS in rows and median(samples) < NEVER and median(rows[OURS]) > 0
                ratio = f"{median(samples) / median(rows[OURS]):8.2f} x" if known else ""
                epochs = (
                    f"   epochs: {', '.join(f'{e:g}' for e in results[name]['epochs'])}" if what == "accuracy" else ""
                )
                lines.append(f"  {name:<22} {spread(samples, form):>30} {ratio}{epochs}")
    return "\n".join(lines)


def exponents(rows: Sequence[Mapping[str, Any]]) -> str:
    """By which power of it time and memory grow over the upper half of each axis."""
    import numpy as np

    lines = []
    for axis, system in dict.fromkeys((row["axis"], row["system"]) for row in rows):
        mine = [row for row in rows if (row["axis"], row["system"]) == (axis, system)]
        upper = mine[len(mine) // 2 :]
        logs = [
            np.log([value(row) for row in upper])
            for value in (lambda r: r["value"], lambda r: median(r["ms"]), lambda r: r["MiB"])
        ]
        time_power, memory_power = (float(np.polyfit(logs[0], log, 1)[0]) for log in logs[1:])
        steps = ", ".join(f"{row['value']}: {median(row['ms']):.1f} ms {row['MiB']:.0f} MiB" for row in mine)
        lines.append(f"{system}, {axis}: {steps}")
        lines.append(
            f"  from {upper[0]['value']} on, time grows by its power {time_power:.2f}, memory by {memory_power:.2f}"
        )
    return "\n".join(lines)


def draw(results: Results, path: Path, title: str) -> None:
    """Bars for each measurement, on a logarithmic axis where they differ much, ours in another colour."""
    from matplotlib.figure import Figure

    def values(what: str) -> list[tuple[float, str]]:
        medians = [(median(result[what]), name) for name, result in results.items() if result.get(what)]
        return sorted((pair for pair in medians if pair[0] < NEVER), reverse=True)

    shown = [what for what in METRICS if what != "import" and values(what)]
    figure = Figure(figsize=(11, 1 + 1.4 * len(shown)), layout="constrained")
    panels = figure.subplots((len(shown) + 1) // 2, 2, squeeze=False).flat
    for what, panel in zip(shown, panels, strict=False):
        name_of, unit, form = METRICS[what]
        heights, names = zip(*values(what), strict=True)
        bars = panel.barh(names, heights, color=[COLORS.get(name, "#7f9fbf") for name in names])
        panel.bar_label(bars, [form.format(height) for height in heights], padding=3, fontsize=8)
        least, most = min(heights), max(heights)
        panel.set_title(f"{name_of} ({unit})")
        if most > 5 * least:
            panel.set(xscale="log", xlim=(least / 3, most * 4))
        else:
            panel.set_xlim(0, most * 1.2)
        plain(panel.xaxis)
        panel.tick_params(labelsize=8)
    for panel in panels:  # those that are left
        panel.axis("off")
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=90)


def plain(axis: Any) -> None:
    """Write numbers as people do, 1000 and not 10 to the power of 3, and only the main ones."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def draw_growth(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Time and memory over each axis, both axes logarithmic."""
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(11, 6), layout="constrained")
    panels = figure.subplots(2, len(axes), squeeze=False)
    for column, axis in enumerate(axes):
        for system in dict.fromkeys(row["system"] for row in rows if row["axis"] == axis):
            mine = [row for row in rows if (row["axis"], row["system"]) == (axis, system)]
            style: dict[str, Any] = {"marker": "o", "label": system, "color": "#d95f02" if system == OURS else None}
            panels[0][column].loglog([r["value"] for r in mine], [median(r["ms"]) for r in mine], **style)
            panels[1][column].loglog([r["value"] for r in mine], [r["MiB"] for r in mine], **style)
        panels[0][column].set(title=axis, ylabel="training step (ms)")
        panels[1][column].set(xlabel=axis, ylabel="peak memory (MiB)")
        panels[0][column].legend(fontsize=8)
        for panel in panels[:, column]:
            panel.set_xticks(sorted({row["value"] for row in rows if row["axis"] == axis}))
            plain(panel.xaxis), plain(panel.yaxis)
            panel.grid(alpha=0.3)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=90)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--peers",
        metavar="NAMES",
        help=f"which to measure, separated by commas (default: all, {','.join(PEERS)}; for --growth {GROWING})",
    )
    add("--batch-size", type=int, default=500, help="images per training step (default: %(default)s)")
    add("--threads", type=int, help="(default: the usable cores)")
    add("--repeat", type=int, help="rounds (default: 7; 3 with --quick)")
    add("--quick", action="store_true", help="short turns, and no training to 99 %%")
    add(
        "--data",
        metavar="DIR",
        default=os.environ.get("TINYGRAD_MNIST_DATA"),
        help="folder with MNIST (default: $TINYGRAD_MNIST_DATA)",
    )
    add("--seeds", type=int, default=3, help="how often to train to 99 %% (default: %(default)s)")
    add(
        "--limit",
        type=float,
        default=240,
        help="seconds after which training to 99 %% is given up (default: %(default)s)",
    )
    add(
        "--growth",
        action="store_true",
        help="measure how time and memory grow with the batch size, the depth and the image size, instead",
    )
    add(
        "--out",
        metavar="DIR",
        type=Path,
        help="where to write benchmark.json and benchmark.png (default: runs/benchmark-DATE-TIME)",
    )
    args = parser.parse_args(argv)
    args.peers = (args.peers or (GROWING if args.growth else ",".join(PEERS))).split(",")
    if unknown := [name for name in args.peers if name not in PEERS]:
        parser.error(f"--peers: unknown are {', '.join(unknown)}; known are {', '.join(PEERS)}")
    if min(args.batch_size, args.threads or 1, args.repeat or 1, args.seeds) < 1:
        parser.error("--batch-size, --threads, --repeat and --seeds must be at least 1")
    args.repeat = args.repeat or (3 if args.quick else 7)
    return args


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    sys.path.insert(0, str(ROOT))
    import tinygrad_mnist as tg

    try:
        mnist = tg.data.find_mnist(args.data) if args.data and not (args.quick or args.growth) else None
        if mnist and mnist.synthetic:
            raise ValueError(
                f"--data: {mnist.source} says nothing about training to {GOAL:.0%}; name a folder with MNIST"
            )
    except (OSError, ValueError) as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return 2
    args.threads = args.threads or tg.parallel.usable_cores()
    if hasattr(os, "sched_setaffinity"):  # for all processes that are started from here
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    else:
        print(
            "this system cannot hold a process to some of the cores: frameworks that do not obey --threads may use more"
        )
    versions = {name: version(name) for name in args.peers}
    names = [name for name, found in versions.items() if found]
    if not names:
        print(f"benchmark.py: nothing to measure: of {', '.join(versions)} none is installed", file=sys.stderr)
        return 2
    info = machine()
    batch = "" if args.growth else f"batch {args.batch_size}; "
    info["native kernels"] = tg.native.described()
    head = f"{info['cpu']}; {args.threads} threads; {batch}float32; Python {info['python']}"
    print(head)
    print(f"native kernels of tinygrad_mnist: {info['native kernels']}")
    print(", ".join(f"{name} {found}" if found else f"{name}: not installed" for name, found in versions.items()))
    folder = args.out or Path("runs") / datetime.now().strftime("benchmark-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    report: dict[str, Any] = {
        "machine": info,
        "versions": versions,
        "settings": settings,
        "data": mnist.source if mnist else None,
    }
    if args.growth:
        report["growth"] = growth(names, args)
        say("")
        print(exponents(report["growth"]))
    else:
        results = report["results"] = compare(names, args)
        if mnist:
            with contextlib.suppress(KeyboardInterrupt):  # keep what there is
                print(f"training to {GOAL:.0%}: {mnist.source}")
                race(results, mnist[:4], args)
        say("")
        print(table(results))
        if not mnist:
            print(
                f"not measured: {METRICS['accuracy'][0]}; it takes MNIST (--data DIR or TINYGRAD_MNIST_DATA), and no "
                "--quick"
            )
    name = "growth" if args.growth else "benchmark"
    text = json.dumps(report, indent=1).replace("Infinity", "null")
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    try:
        (draw_growth if args.growth else draw)(
            report["growth" if args.growth else "results"], folder / f"{name}.png", head
        )
    except ImportError:
        print("no picture: it needs Matplotlib; pip install 'tinygrad_mnist[train]'")
    print(f"results: {folder}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted: nothing is stored", file=sys.stderr)
        sys.exit(130)
