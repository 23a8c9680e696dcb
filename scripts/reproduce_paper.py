#!/usr/bin/env python
"""Run the paper's experiments and write a report: what the paper says beside what was measured, with pictures.

Each run is stored when it is done and never repeated (as long as its settings, the data and the code are the same):
stop with Ctrl-C, go on with --resume, add experiments or seeds in the same way.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])  # works from any folder, installed or not

for library in ("OPENBLAS", "MKL", "OMP"):  # runs go on side by side: one thread each for their matrix products
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from command_line import Parser, Stop, announce, data_place, fingerprint, folder, missing_extras, number, tell
from reproduction import running
from reproduction.experiments import EXPERIMENTS
from reproduction.report import write_report

import tinygrad_mnist as tg
from models.recipes import held_out
from tinygrad_mnist.storage.files import leftovers, write_atomically

DEFAULTS: dict[str, Any] = {
    "data": None,
    "out": None,
    "resume": None,
    "experiments": list(EXPERIMENTS),
    "seeds": 3,
    "epochs": None,
    "quick": False,
    "jobs": None,
    "report_only": False,
    "quiet": False,
}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse what is given: nothing else is in the result."""
    epilog = (
        "exit codes: 0 done; 1 failed; 2 bad arguments or data; 129, 130, 143 stopped by SIGHUP, SIGINT (Ctrl-C), "
        "SIGTERM: what is "
        "done is stored, go on with --resume"
    )
    parser = Parser("reproduce_paper.py", __doc__, epilog)
    add = parser.add_argument
    add("--data", metavar="DIR", help='folder with the four MNIST files, or "synthetic" (default: as train_mnist.py)')
    add(
        "--out",
        metavar="DIR",
        type=folder,
        help="folder to create for results and report (default: reproduction/DATE-TIME)",
    )
    add(
        "--resume",
        metavar="DIR",
        type=folder,
        help="go on in such a folder, with its options unless others are given; it keeps what is asked for in addition",
    )
    add(
        "--experiments",
        nargs="+",
        choices=EXPERIMENTS,
        metavar="NAME",
        help=f"(default: all of {', '.join(EXPERIMENTS)})",
    )
    add(
        "--seeds",
        metavar="N",
        type=number(int, 1),
        help=f"run everything with the seeds 0 to N-1 (default: {DEFAULTS['seeds']})",
    )
    add(
        "--epochs",
        metavar="N",
        type=number(int, 1),
        help="at most so many; measures of later ones are then missing (default: as many as the paper's)",
    )
    add(
        "--quick",
        action="store_true",
        help="a look in about 3 minutes on 2 cores: one seed, an eighth of the images; the report says so",
    )
    add(
        "--jobs",
        metavar="N",
        type=number(int, 1),
        help="runs at a time, each in a process of its own (default: the usable cores)",
    )
    add(
        "--report-only",
        action="store_true",
        help="with --resume: run nothing, write the report about what is there, of whatever code",
    )
    add("--quiet", action="store_true", help="no progress bar")
    given = parser.parse_args(argv)
    if hasattr(given, "resume") and hasattr(given, "out"):
        parser.error("--resume goes on in that folder; leave out --out")
    if hasattr(given, "report_only") and not hasattr(given, "resume"):
        parser.error("--report-only is about what is there; name the folder: --resume DIR")
    return given


def options(given: argparse.Namespace) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Complete what is given, with the folder's own options (also returned) where it goes on.

    Raises OSError or ValueError.
    """
    kept: dict[str, Any] = {}
    if hasattr(given, "resume"):
        path = given.resume / "options.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            kinds = {"experiments": list, "seeds": int, "epochs": int | None, "quick": bool, "data": str | None}
            if kept.keys() != kinds.keys() or not all(isinstance(kept[name], kind) for name, kind in kinds.items()):
                raise ValueError("it is another program's")
            if not set(kept["experiments"]) <= EXPERIMENTS.keys() or kept["seeds"] < 1 or (kept["epochs"] or 1) < 1:
                raise ValueError("it has options that there are not")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{given.resume} holds no reproduction; name the folder of one, or begin with --out"
            ) from None
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} cannot be read ({error}); begin again with --out") from error
    args = argparse.Namespace(**{**DEFAULTS, **kept, **vars(given)})
    if kept and (args.quick, args.epochs) != (kept["quick"], kept["epochs"]):
        raise ValueError(f"{given.resume} was begun with other --quick or --epochs; begin another with --out")
    if args.seeds > 1000:
        raise ValueError(f"--seeds is {args.seeds}; at most 1000 are run")
    if args.quick and getattr(given, "seeds", 1) > 1:
        raise ValueError("a quick look has one seed; leave out --seeds, or begin again without --quick")
    args.seeds = 1 if args.quick else args.seeds
    return args, kept


def check_size(configs: list[dict[str, Any]], data: tg.data.Dataset) -> None:
    """Raise a ValueError if some run would have no images to train on."""
    for config in configs:
        available = len(data.images[: config["limit"]])
        if held_out(config, available) >= available:
            raise ValueError(
                f"{config['validation']} of {available} images are to be held out, which leaves none to train on; use "
                "more data, or leave "
                f"the "
                "experiment “recipes” out of --experiments"
            )


def new_folder(path: Path) -> Path:
    """Make a folder, or take an empty one."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(
            f"{path} is there already and not empty; go on with --resume {path}, or choose another --out"
        )
    path.mkdir(parents=True, exist_ok=True)
    return path


def progress(jobs: dict[str, running.Job], done: Any, quiet: bool) -> Any:
    """Bar over all runs, with the time left; it counts training images."""
    from tqdm import tqdm

    total = sum(job.images for job in jobs.values())
    bar = tqdm(
        total=total,
        unit=" images",
        unit_scale=True,
        smoothing=0.02,
        dynamic_ncols=True,
        disable=quiet or sys.stderr is None,
    )
    bar.tick = lambda: bar.update(min(int(done.value), total) - bar.n)
    return bar


def run_missing(
    args: argparse.Namespace, data: tg.data.Dataset, folder: Path, jobs: dict[str, running.Job], stop: Stop
) -> None:
    """Run what is not stored yet."""
    count = min(args.jobs or tg.parallel.usable_cores(), len(jobs))
    context = multiprocessing.get_context("spawn")
    here = running.Workplace(
        data, folder, max(1, tg.parallel.usable_cores() // count), context.Value("d", 0.0), context.Event()
    )
    left = set(jobs)
    with progress(jobs, here.done, args.quiet) as bar:
        bar.set_postfix_str(f"{len(left)} runs left", refresh=False)

        def finished(job: running.Job) -> None:
            left.discard(job.key)
            bar.set_postfix_str(f"{len(left)} runs left", refresh=False)

        with ProcessPoolExecutor(count, context, running.begin, (here,)) as executor:
            running.run_all(
                jobs.values(),
                executor,
                stop=here.stop,
                tick=bar.tick,
                finished=finished,
                stopped=lambda: bool(stop.signal),
            )


def main(argv: list[str] | None = None) -> int:
    def say(text: str) -> None:
        print(f"reproduce_paper.py: {text}", file=sys.stderr)

    given, lock, stop = arguments(argv), None, Stop()
    needed = [
        ("filelock", "the folder of a reproduction", ""),
        ("matplotlib", "the report", ""),
        ("markdown", "report.html", ""),
    ]
    if problem := missing_extras([*needed, ("safetensors", "keeping weights", ""), ("tqdm", "the progress bar", "")]):
        say(problem)
        return 2
    from filelock import FileLock, Timeout

    try:
        args, before = options(given)
        data = tg.data.find_mnist(args.data)
        announce(data)
        chosen = (
            EXPERIMENTS[name].configurations(range(args.seeds), args.epochs, args.quick) for name in args.experiments
        )
        configs = [config for by_variant in chosen for config in by_variant.values()]
        check_size(configs, data)
        out = args.resume or new_folder(args.out or Path("reproduction") / datetime.now().strftime("%Y%m%d-%H%M%S"))
        lock = FileLock(out / ".lock")
        lock.acquire(timeout=0)
        (out / "results").mkdir(exist_ok=True)
        for part in leftovers(out / "results"):
            part.unlink()
        if not args.report_only:
            kept = {"seeds": max(args.seeds, before.get("seeds", 1)), "epochs": args.epochs, "quick": args.quick}
            kept["experiments"] = [
                name for name in EXPERIMENTS if name in {*args.experiments, *before.get("experiments", ())}
            ]
            kept["data"] = data_place(args.data)
            write_atomically(out / "options.json", (json.dumps(kept, indent=2) + "\n").encode())
    except Timeout:
        say(f"another process is working in {args.resume or args.out}; let it end")
        return 2
    except (OSError, ValueError) as error:
        say(str(error))
        return 2
    try:
        jobs = running.wanted(sorted(configs, key=lambda config: config["seed"]), data, fingerprint(data))
        results = running.stored(out / "results", say)
        missing = {key: job for key, job in jobs.items() if key not in results}
        tell(f"{len(jobs)} runs, {len(jobs) - len(missing)} of them done; folder {out}")
        with stop:
            if missing and not args.report_only:
                run_missing(args, data, out / "results", missing, stop)
            if stop.signal:
                say(f"stopped by {signal.Signals(stop.signal).name}; what is done is stored, go on with --resume {out}")
                return 128 + stop.signal
            tell("writing the report ...")
            results = running.stored(out / "results", say)
            sha256, version = fingerprint(data), running.code()
            known = [
                r for key, r in results.items() if running.key(r["config"], sha256, r["code"]) == key
            ]  # of these data
            current = [r for r in known if r["code"] == version]
            if len(current) < len(results):
                say(
                    f"{len(results) - len(current)} results are of other code or data (--report-only takes those of "
                    "other code, too)"
                )
            if args.report_only:  # where there is one of each, that of the code of now, which comes last
                current = [r for r in known if r["code"] != version] + current
            for path in write_report(out, current, data, args.epochs, args.quick):
                tell(f"report: {path}")
    except KeyboardInterrupt:
        say(f"interrupted at once; what is done is stored, go on with --resume {out}")
        return 128 + signal.SIGINT
    except BrokenProcessPool:
        if stop.signal:
            say(f"stopped by {signal.Signals(stop.signal).name}; what is done is stored, go on with --resume {out}")
            return 128 + stop.signal
        say(
            f"a process that was training has been killed (by a lack of memory?); go on with --resume {out}, or with "
            "fewer --jobs"
        )
        return 1
    except (OSError, ValueError, MemoryError, FloatingPointError) as error:
        say(f"{error or 'out of memory'}; mend that, then go on with --resume {out}")
        return 1
    finally:
        if lock is not None:
            lock.release()
    return 0


if __name__ == "__main__":
    for stream in filter(None, (sys.stdout, sys.stderr)):  # each may be closed
        stream.reconfigure(errors="backslashreplace")  # a folder may have any name
    sys.exit(main())
