#!/usr/bin/env python
"""Run the paper's experiments and write a report: what the paper says beside what was measured, with pictures.

Each run is stored when it is done and never repeated (as long as its settings, the data and the code are the same):
stop with Ctrl-C, go on with --resume, add experiments or seeds in the same way.
"""

from __future__ import annotations

import os
import sys

here = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = here, os.path.dirname(here)  # works from any folder, installed or not

if __name__ == "__main__":  # the other imports take a while
    from terminal import call, prepare

    prepare("reproduce_paper.py")

import itertools
import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime
from pathlib import Path
from typing import Any

for library in ("OPENBLAS", "MKL", "OMP"):  # runs go on side by side: one thread each for their matrix products
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from command_line import Parser, Stop, add_options, fingerprint, missing_extras, show_source
from reproduction import running
from reproduction.experiments import EXPERIMENTS, QUICK_SAYS
from reproduction.options import Options, check_size, complete_options, keep_options, kept_options, new_folder
from reproduction.report import write_report

import tinygrad_mnist as tg
from tinygrad_mnist.storage.files import leftovers

EXIT_CODES = (
    "exit codes: 0 done; 1 failed; 2 bad arguments or data; 129, 130, 143 stopped by SIGHUP, SIGINT (Ctrl-C), "
    "SIGTERM: what is done is stored, go on with --resume"
)


def parse(argv: Sequence[str] | None) -> dict[str, Any]:
    """Return the options that are given, and nothing else."""
    parser = Parser("reproduce_paper.py", __doc__, EXIT_CODES)
    add_options(parser, Options)
    given = vars(parser.parse_args(argv))
    if "resume" in given and "out" in given:
        parser.error("--resume goes on in that folder; leave out --out")
    if "report_only" in given and "resume" not in given:
        parser.error("--report-only is about what is there; name the folder: --resume DIR")
    return given


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
    options: Options, data: tg.data.Dataset, folder: Path, jobs: dict[str, running.Job], stop: Stop
) -> None:
    """Run what is not stored yet."""
    count = min(options.jobs or tg.parallel.usable_cores(), len(jobs))
    context = multiprocessing.get_context("spawn")
    here = running.Workplace(
        data, folder, max(1, tg.parallel.usable_cores() // count), context.Value("d", 0.0), context.Event()
    )
    left = set(jobs)
    with progress(jobs, here.done, options.quiet) as bar:
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


def complain(text: str) -> None:
    print(f"reproduce_paper.py: {text}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    given, stop = parse(argv), Stop()
    needed = [("filelock", "the folder of a reproduction", ""), ("matplotlib", "the report", "")]
    needed += [("markdown", "report.html", ""), ("safetensors", "keeping weights", "")]
    needed += [("tqdm", "the progress bar", "")]
    if problem := missing_extras(needed):
        complain(problem)
        return 2
    from filelock import FileLock, Timeout

    try:
        before = kept_options(given["resume"]) if "resume" in given else {}
        options = complete_options(given, before)
        data = tg.data.find_mnist(options.data)
        show_source(data)
        chosen = [EXPERIMENTS[name] for name in options.experiments]
        runs = [e.configurations(range(options.seeds), options.epochs, options.quick).values() for e in chosen]
        configs = sorted(itertools.chain(*runs), key=lambda config: config["seed"])
        check_size(configs, data)
        default = Path("reproduction") / datetime.now().strftime("%Y%m%d-%H%M%S")
        out = options.resume or new_folder(options.out or default)
        lock = FileLock(out / ".lock")
        lock.acquire(timeout=0)
        (out / "results").mkdir(exist_ok=True)
        for part in leftovers(out / "results"):
            part.unlink()
        if not options.report_only:
            keep_options(out, options, before)
    except Timeout:
        complain(f"another process is working in {out}; let it end")
        return 2
    except (OSError, ValueError) as error:
        complain(str(error))
        return 2
    go_on = f"go on with --resume {out}"
    try:
        with stop:
            if not reproduce(options, data, out, configs, stop):
                complain(f"stopped by {signal.Signals(stop.signal).name}; what is done is stored, {go_on}")
                return 128 + stop.signal
    except KeyboardInterrupt:
        complain(f"interrupted at once; what is done is stored, {go_on}")
        return 128 + signal.SIGINT
    except BrokenProcessPool:
        if stop.signal:
            complain(f"stopped by {signal.Signals(stop.signal).name}; what is done is stored, {go_on}")
            return 128 + stop.signal
        complain(f"a process that was training has been killed (by a lack of memory?); {go_on}, or with fewer --jobs")
        return 1
    except (OSError, ValueError, MemoryError, FloatingPointError) as error:
        complain(f"{str(error) or 'out of memory'}; mend that, then {go_on}")
        return 1
    finally:
        lock.release()
    return 0


def reproduce(options: Options, data: tg.data.Dataset, out: Path, configs: list[dict[str, Any]], stop: Stop) -> bool:
    """Run what is missing and write the report; False if stopped before."""
    sha256, version = fingerprint(data), running.code()
    jobs = running.wanted(configs, data, sha256)
    results = running.stored(out / "results", complain)
    missing = {key: job for key, job in jobs.items() if key not in results}
    print(f"{len(jobs)} runs, {len(jobs) - len(missing)} of them done; folder {out}")
    if missing and not options.report_only:
        run_missing(options, data, out / "results", missing, stop)
    if stop.signal:
        return False
    print("writing the report ...")
    results = running.stored(out / "results", complain)
    of_data = [r for key, r in results.items() if running.key(r["config"], sha256, r["code"]) == key]
    current = [r for r in of_data if r["code"] == version]
    if len(current) < len(results):
        others = f"{len(results) - len(current)} results are of other code or data"
        complain(f"{others} (--report-only takes those of other code, too)")
    if options.report_only:  # where there is one of each, that of the code of now, which comes last
        current = [r for r in of_data if r["code"] != version] + current
    for path in write_report(out, current, data, options.epochs, options.quick):
        print(f"report: {path}")
    if options.quick:
        print(QUICK_SAYS)
    return True


if __name__ == "__main__":
    sys.exit(call(main, "reproduce_paper.py"))
