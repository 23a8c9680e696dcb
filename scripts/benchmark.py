#!/usr/bin/env python
"""Compare training of the 21-layer network with other installed frameworks and with hand-written NumPy.

Every framework runs in a process of its own with the same number of threads, restricted (on Linux) to that many cores.
They take turns, so that a machine whose speed drifts is the same for all: compare the ratios, not the milliseconds. The
training step is that of `benchmarking/peers`; the images are random. Memory and inference are measured with the largest
batches alone. tinygrad_mnist deals each batch to threads, as its Trainer does; tinygrad_mnist-loop is a plain loop of
forward, loss.backward() and optimizer.step().

With MNIST (--data or TINYGRAD_MNIST_DATA) tinygrad_mnist, PyTorch and TensorFlow also train by the recipe `fast` of
`training/recipes.toml`. Measured are the seconds from the start to the end of the process (imports, data, steps, test
images) and the test accuracy. Beside them stands the rate of NumPy's products of 2048 x 2048 matrices of float32
(sgemm), which is measured before each round.

Instead of that, --gallery measures conv2d, forward and backward, over shapes that are common in networks, and --growth
how time and memory grow with the batch size, the depth and the image size.
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

from benchmarking.by_recipe import RECIPE, measure_by_recipe
from benchmarking.convolutions import CONVOLUTIONS
from benchmarking.gallery import choose_cases, format_gallery, measure_gallery, plot_gallery, summarize
from benchmarking.measuring import OURS, compare, measure_growth, show_status
from benchmarking.peers import PEERS, ROOT, version
from benchmarking.report import METRICS, format_growth, format_table, plot_comparison, plot_growth

DEFAULT_PEERS = {"benchmark": [*PEERS], "gallery": [*CONVOLUTIONS], "growth": [OURS, "pytorch"]}


def describe_machine() -> dict[str, str]:
    """Describe the machine that the figures depend on."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    system, python, cores = platform.platform(), platform.python_version(), str(os.cpu_count())
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {"cpu": cpu, "system": system, "python": python, "cores": cores, "load before": load}


def sizes(text: str) -> list[int]:
    """Argument type: whole numbers of at least 1, separated by commas; sorted."""
    numbers = sorted({int(word) for word in text.split(",")})
    if numbers[0] < 1:
        raise ValueError
    return numbers


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read and check the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    data = os.environ.get("TINYGRAD_MNIST_DATA")
    add("--peers", metavar="NAMES", help=f"frameworks to measure: {', '.join(PEERS)} (default: all that apply)")
    add("--batch-sizes", metavar="N,N", type=sizes, default="50,128,500", help="images per step (default: %(default)s)")
    add("--threads", type=int, help="(default: the usable cores)")
    add("--repeat", type=int, help="rounds (default: 7; 3 with --quick)")
    add("--quick", action="store_true", help="short turns, and no training by the recipe")
    add("--data", metavar="DIR", default=data, help="folder with MNIST (default: $TINYGRAD_MNIST_DATA)")
    add("--seeds", type=int, default=5, help="number of trainings by the recipe (default: %(default)s)")
    add("--limit", type=float, default=240, help="longest training by the recipe, in seconds (default: %(default)s)")
    mode = parser.add_mutually_exclusive_group().add_argument
    for name, text in (("gallery", "common shapes of conv2d"), ("growth", "growth with batch, depth and image size")):
        mode(f"--{name}", dest="mode", action="store_const", const=name, default="benchmark", help=f"measure {text}")
    add("--shapes", metavar="WORDS", help="the shapes of --gallery with one of these words: 1x1,3x3/2 (default: all)")
    add("--out", metavar="DIR", type=Path, help="output folder (default: runs/benchmark-DATE-TIME)")
    args = parser.parse_args(argv)
    args.peers = args.peers.split(",") if args.peers else DEFAULT_PEERS[args.mode]
    known = CONVOLUTIONS if args.mode == "gallery" else PEERS
    if unknown := [name for name in args.peers if name not in known]:
        parser.error(f"--peers: unknown are {', '.join(unknown)}; known are {', '.join(known)}")
    if min(args.threads or 1, args.repeat or 1, args.seeds) < 1:
        parser.error("--threads, --repeat and --seeds must be at least 1")
    try:
        args.cases = choose_cases(args.shapes)
    except ValueError as error:
        parser.error(str(error))
    args.repeat = args.repeat or (3 if args.quick else 7)
    args.turn = 0.3 if args.quick or args.mode == "gallery" else 1.0  # seconds before the next framework has its turn
    return args


def measure(names: list[str], mnist: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Measure what the mode asks for and print it; return what is stored."""
    if args.mode == "growth":
        growth = measure_growth(names, args)
        show_status("")
        print(format_growth(growth))
        return {"growth": growth}
    if args.mode == "gallery":
        gallery = measure_gallery(names, args.cases, args)
        show_status("")
        print(format_gallery(gallery))
        return {"gallery": gallery, "summary": summarize(gallery)}
    results, rates = compare(names, args), list[float]()
    if mnist:
        with contextlib.suppress(KeyboardInterrupt):  # keep the results so far
            print(f"training by the recipe {RECIPE}: {mnist.source}")
            measure_by_recipe(results, rates, mnist, args)
    show_status("")
    print(format_table(results, rates))
    if not mnist:
        print(f"not measured: {METRICS['recipe'][0]}; it needs MNIST (--data DIR), and no --quick")
    return {"results": results, "sgemm GFLOP/s": rates}


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write the results as JSON and as a picture."""
    args = parse_arguments(argv)
    sys.path.insert(0, str(ROOT))
    import tinygrad_mnist as tg

    try:
        trained = args.data and args.mode == "benchmark" and not args.quick
        mnist = tg.data.find_mnist(args.data) if trained else None
        if mnist and mnist.synthetic:
            raise ValueError(f"--data: the recipe {RECIPE} needs MNIST, not {mnist.source}; name its folder")
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
    head = f"{machine['cpu']}; {args.threads} threads; float32; Python {machine['python']}"
    print(head)
    print(f"native kernels of tinygrad_mnist: {machine['native kernels']}")
    print(
        f"load average before: {machine['load before']} (if it is not near 0, other programs take time from some peers)"
    )
    print(", ".join(f"{name} {found}" if found else f"{name}: not installed" for name, found in versions.items()))
    folder = args.out or Path("runs") / datetime.now().strftime("benchmark-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    report = {"machine": machine, "versions": versions, "settings": settings, "data": mnist.source if mnist else None}
    report |= (measured := measure(names, mnist, args))
    text = json.dumps(report, indent=1)
    (folder / f"{args.mode}.json").write_text(text + "\n", encoding="utf-8")
    plots: dict[str, Any] = {"benchmark": plot_comparison, "gallery": plot_gallery, "growth": plot_growth}
    try:
        plots[args.mode](next(iter(measured.values())), folder / f"{args.mode}.png", head)
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
