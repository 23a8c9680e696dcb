#!/usr/bin/env python
"""Compare training of the 21-layer network with other installed frameworks and with hand-written NumPy.

Every framework runs in a process of its own with the same number of threads, restricted (on Linux) to that many cores.
They take turns, so that a machine whose speed drifts is the same for all: compare the ratios, not the milliseconds. The
training step is that of `benchmarking/peers.py`; the images are random. With MNIST (--data or TINYGRAD_MNIST_DATA) the
time from the start of a process to 99 % test accuracy is measured, too. With --growth the script measures how time and
memory grow with the batch size, the depth and the image size instead.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarking.measuring import OURS, TARGET, compare, measure_growth, measure_training, show_status
from benchmarking.peers import PEERS, ROOT, version
from benchmarking.report import METRICS, format_growth, format_table, plot_comparison, plot_growth

GROWTH_PEERS = f"{OURS},pytorch"


def describe_machine() -> dict[str, str]:
    """Describe the machine that the figures depend on."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    system, python, cores = platform.platform(), platform.python_version(), str(os.cpu_count())
    return {"cpu": cpu, "system": system, "python": python, "cores": cores}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read and check the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    names = f"default: all of {','.join(PEERS)}; {GROWTH_PEERS} with --growth"
    data = os.environ.get("TINYGRAD_MNIST_DATA")
    add("--peers", metavar="NAMES", help=f"frameworks to measure, separated by commas ({names})")
    add("--batch-size", type=int, default=500, help="images per training step (default: %(default)s)")
    add("--threads", type=int, help="(default: the usable cores)")
    add("--repeat", type=int, help="rounds (default: 7; 3 with --quick)")
    add("--quick", action="store_true", help="short turns, and no training to 99 %%")
    add("--data", metavar="DIR", default=data, help="folder with MNIST (default: $TINYGRAD_MNIST_DATA)")
    add("--seeds", type=int, default=3, help="number of trainings to 99 %% (default: %(default)s)")
    add("--limit", type=float, default=240, help="time limit of a training to 99 %%, in seconds (default: %(default)s)")
    add("--growth", action="store_true", help="measure growth with batch size, depth and image size instead")
    add("--out", metavar="DIR", type=Path, help="output folder (default: runs/benchmark-DATE-TIME)")
    args = parser.parse_args(argv)
    args.peers = (args.peers or (GROWTH_PEERS if args.growth else ",".join(PEERS))).split(",")
    if unknown := [name for name in args.peers if name not in PEERS]:
        parser.error(f"--peers: unknown are {', '.join(unknown)}; known are {', '.join(PEERS)}")
    if min(args.batch_size, args.threads or 1, args.repeat or 1, args.seeds) < 1:
        parser.error("--batch-size, --threads, --repeat and --seeds must be at least 1")
    args.repeat = args.repeat or (3 if args.quick else 7)
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write the results as JSON and as a picture."""
    args = parse_arguments(argv)
    sys.path.insert(0, str(ROOT))
    import tinygrad_mnist as tg

    try:
        mnist = tg.data.find_mnist(args.data) if args.data and not (args.quick or args.growth) else None
        if mnist and mnist.synthetic:
            raise ValueError(f"--data: training to {TARGET:.0%} needs MNIST, not {mnist.source}; name its folder")
    except (OSError, ValueError) as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return 2
    args.threads = args.threads or tg.parallel.usable_cores()
    if hasattr(os, "sched_setaffinity"):  # inherited by the processes that are started from here
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    else:
        print("this system cannot restrict a process to some cores: frameworks may use more threads than --threads")
    versions = {name: version(name) for name in args.peers}
    names = [name for name, installed in versions.items() if installed]
    if not names:
        print(f"benchmark.py: nothing to measure: none of {', '.join(versions)} is installed", file=sys.stderr)
        return 2
    machine = {**describe_machine(), "native kernels": tg.native.description()}
    batch = "" if args.growth else f"batch {args.batch_size}; "
    head = f"{machine['cpu']}; {args.threads} threads; {batch}float32; Python {machine['python']}"
    print(head)
    print(f"native kernels of tinygrad_mnist: {machine['native kernels']}")
    print(", ".join(f"{name} {found}" if found else f"{name}: not installed" for name, found in versions.items()))
    folder = args.out or Path("runs") / datetime.now().strftime("benchmark-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    source = mnist.source if mnist else None
    report: dict[str, Any] = {"machine": machine, "versions": versions, "settings": settings, "data": source}
    if args.growth:
        report["growth"] = measure_growth(names, args)
        show_status("")
        print(format_growth(report["growth"]))
    else:
        report["results"] = compare(names, args)
        if mnist:
            with contextlib.suppress(KeyboardInterrupt):  # keep the results so far
                print(f"training to {TARGET:.0%}: {source}")
                measure_training(report["results"], mnist[:4], args)
        show_status("")
        print(format_table(report["results"]))
        if not mnist:
            print(f"not measured: {METRICS['accuracy'][0]}; it needs MNIST (--data DIR), and no --quick")
    name = "growth" if args.growth else "benchmark"
    text = json.dumps(report, indent=1).replace("Infinity", "null")
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    try:
        if args.growth:
            plot_growth(report["growth"], folder / "growth.png", head)
        else:
            plot_comparison(report["results"], folder / "benchmark.png", head)
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
