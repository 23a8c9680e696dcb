#!/usr/bin/env python
"""Score gradient checks: how many planted errors they catch, and how often they raise over gradients that are right.

The planted errors are those that test files plant (see tests/helpers/planted.py). The other checks see the same
functions, wrapped as operations of their own: PyTorch's gradcheck (with gradgradcheck for errors of higher order) and
HIPS autograd's check_grads, each with its default settings. One that is not installed is left out. A check that raises
at every kink "catches" the errors there, too, and is wrong about their originals.

All checks get inputs in the same memory order and precision. How an op is used is up to the check: whether one asks for
a graph of the gradients, passes one Tensor twice, or leaves an input without a gradient.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works from any folder, installed or not

import numpy as np
from gradient_checkers import CAUGHT, CHECKERS, PASSED, UNDECIDED, Array, Check, Function

CRASHED = "crashed"  # the check itself failed, which is no verdict on the gradient


def verdict(check: Check, fn: Function, xs: list[Array], order: int, seed: int) -> tuple[str, float]:
    """Return the verdict, and how many milliseconds it took."""
    begun = time.perf_counter()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # steps out of a logarithm's domain, and the like
        try:
            said = check(fn, [x.copy(order="K") for x in xs], order, seed)
        except Exception as error:
            said = f"{CRASHED}: {type(error).__name__}: {error}".splitlines()[0]
    return said, (time.perf_counter() - begun) * 1e3


def score(
    name: str, errors: list[Any], right_case: Callable[[np.random.Generator], Any], cases: int, seed: int
) -> dict[str, Any]:
    """Run one checker over all planted errors, their originals, and drawn right cases: the same for every checker."""
    make, settings = CHECKERS[name]
    try:
        check = make()
    except ImportError:
        return {"settings": settings, "installed": False}
    planted: dict[str, str] = {}
    verdicts: dict[str, Counter[str]] = {kind: Counter() for kind in ("originals", "ordinary", "scaled", "kink")}
    alarms, times = [], []

    def right(title: str, fn: Function, xs: list[Array], order: int, seed: int) -> None:
        said, milliseconds = verdict(check, fn, xs, order, seed)
        verdicts[title.split(":")[0]][said.split(":")[0]] += 1
        times.append(milliseconds)
        if said not in (PASSED, UNDECIDED):
            alarms.append(f"{title}, order {order}, seed {seed}: {said}")

    for error in errors:
        own = seed + zlib.crc32(error.name.encode())  # so that adding an error changes no other one's inputs
        xs = error.inputs(np.random.default_rng(own))
        planted[error.name] = verdict(check, error.build(), xs, error.order, own % 2**32)[0]
        right(f"originals: of {error.name}", error.original, xs, error.order, own % 2**32)
    for number in range(seed, seed + cases):
        title, fn, xs, order = right_case(np.random.default_rng(number))
        right(title, fn, xs, order, number)
    return {
        "settings": settings,
        "installed": True,
        "planted": planted,
        "right": verdicts,
        "alarms": alarms,
        "median_ms": float(np.median(times)),
    }


def table(scores: dict[str, dict[str, Any]], errors: list[Any]) -> list[list[str]]:
    """Rows of text: a label, a count, and a cell for each checker."""
    rows = [["", "of", *scores]]

    def add(label: str, total: int, cell: Callable[[dict[str, Any]], Any]) -> None:
        cells = [str(cell(s)) if s["installed"] else "not installed" for s in scores.values()]
        rows.append([label, str(total), *cells])

    def caught(names: list[str], s: dict[str, Any]) -> int:
        return sum(s["planted"][name] == CAUGHT for name in names)

    def counted(kind: str, said: str, s: dict[str, Any]) -> Any:
        return s["right"][kind][said]

    for kind in dict.fromkeys(error.kind for error in errors):
        names = [error.name for error in errors if error.kind == kind]
        add(f"caught: {kind}", len(names), partial(caught, names))
    add("caught: all", len(errors), lambda s: sum(said == CAUGHT for said in s["planted"].values()))
    add(
        "crashed on planted errors",
        len(errors),
        lambda s: sum(said.startswith(CRASHED) for said in s["planted"].values()),
    )
    drawn: dict[str, Counter[str]] = next((s["right"] for s in scores.values() if s["installed"]), {})
    for kind, verdicts in drawn.items():
        total = sum(verdicts.values())
        for said, label in ((CAUGHT, "false alarms"), (UNDECIDED, UNDECIDED), (CRASHED, CRASHED)):
            add(f"{label}, right: {kind}", total, partial(counted, kind, said))
    total = sum(sum(verdicts.values()) for verdicts in drawn.values())
    add("median ms per check, right", total, lambda s: f"{s['median_ms']:.2g}")
    return rows


def show(scores: dict[str, dict[str, Any]], rows: list[list[str]], markdown: bool) -> None:
    """Print each checker's settings, the table, and what was not caught."""
    for name, result in scores.items():
        print(f"{name}: {result['settings']}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    if markdown:
        lines.insert(1, ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])])
    print("\n" + "\n".join(f"| {' | '.join(line)} |" if markdown else "  ".join(line) for line in lines))
    for name, result in scores.items():
        if result["installed"]:
            missed = [f"{error} ({said})" for error, said in result["planted"].items() if said != CAUGHT]
            print(f"\nnot caught by {name}: {'; '.join(missed) or 'none'}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--cases", metavar="N", type=int, default=2000, help="right cases to draw (default: %(default)s)")
    add("--seed", type=int, default=0, help="decides inputs, cases and what checkers draw (default: %(default)s)")
    add(
        "--checkers",
        metavar="NAME",
        nargs="+",
        choices=CHECKERS,
        default=list(CHECKERS),
        help=f"some of: {', '.join(CHECKERS)}",
    )
    add(
        "--planted",
        metavar="FOLDER",
        type=Path,
        default=ROOT / "tests" / "ops",
        help="folder of the test files that plant errors; its parent has the folder helpers (default: %(default)s)",
    )
    add("--markdown", action="store_true", help="print a Markdown table")
    add("--json", metavar="FILE", type=Path, help="write every verdict")
    args = parser.parse_args(argv)
    sys.path.insert(0, str(args.planted.parent / "helpers"))
    errors = importlib.import_module("planted").load(args.planted)
    right_case = importlib.import_module("right_cases").right_case
    scores = {name: score(name, errors, right_case, args.cases, args.seed) for name in args.checkers}
    show(scores, table(scores, errors), args.markdown)
    if args.json:
        args.json.write_text(
            json.dumps({"seed": args.seed, "cases": args.cases, "checkers": scores}, indent=1) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
