#!/usr/bin/env python
"""Score gradient checks: how many planted errors they catch, and how often they raise over gradients that are right.

The planted errors and the right cases are those of tests/mutants.py. The others see the same functions, wrapped as
operations of their own: PyTorch's gradcheck (with gradgradcheck for errors of higher order) and HIPS autograd's
check_grads, each with its default settings. One that is not installed is left out. A check that raises at every kink
"catches" the errors there, too, and is wrong about their originals.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]  # works from any folder, installed or not

import numpy as np
from mutants import MUTANTS, Array, Function, correct_case

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor

Check = Callable[[Function, list[Array], int, int], str]  # function, inputs, order, seed -> what it says
CAUGHT, PASSED, UNDECIDED = "caught", "passed", "inconclusive"
CRASHED = "crashed"  # the check itself failed, which is no verdict on the gradient


# What all bridges need ------------------------------------------------------------------------------------------------
def gradients(out: Tensor, wanted: list[Tensor], g: Any, create_graph: bool = False) -> list[Tensor]:
    """As tg.grad, and zeros for what depends on nothing."""
    return (
        tg.grad(out, wanted, create_graph, gradient=g)
        if out.requires_grad
        else [Tensor(np.zeros(x.shape)) for x in wanted]
    )


def slope(fn: Function, position: int) -> Function:
    """Return the function of inputs and cotangent that gives the gradient by one input, to be differentiated again."""
    return lambda *args: gradients(fn(*args[:-1]), [args[position]], args[-1], True)[0]


def leaf(array: Array) -> Tensor:
    """Make a leaf on the memory of `array`, so that whoever owns it sees what happens to it."""
    x = tg.as_tensor(np.asarray(array))
    x.requires_grad = True
    return x


def owned(array: Array) -> Array:
    """Return what may be handed out: no view of somebody's input."""
    return array if array.flags.owndata else array.copy()


# The checks -----------------------------------------------------------------------------------------------------------
def ours() -> Check:
    def check(fn: Function, xs: list[Array], order: int, seed: int) -> str:
        try:
            report = tg.testing.check_gradients(fn, *xs, order=order, rng=seed, inconclusive="ignore")
        except tg.testing.GradientMismatch:
            return CAUGHT
        return PASSED if report.verdict == "pass" else UNDECIDED

    return check


def plain() -> Check:
    """The check that people write by hand."""

    def check(fn: Function, xs: list[Array], order: int, seed: int) -> str:
        leaves = [Tensor(x, requires_grad=True) for x in xs]
        out = fn(*leaves)
        derived = gradients(out, leaves, np.ones(out.shape))
        for i, x in enumerate(xs):
            numeric = np.zeros(x.shape)
            for index in np.ndindex(x.shape):
                values = []
                for step in (1e-5, -1e-5):
                    moved = [v.copy() for v in xs]
                    moved[i][index] += step
                    values.append(fn(*(Tensor(v, requires_grad=True) for v in moved)).data.sum())
                numeric[index] = (values[0] - values[1]) / 2e-5
            if not np.allclose(derived[i].data, numeric, rtol=1e-3, atol=1e-5):
                return CAUGHT
        if order == 1:
            return PASSED

        def total(*xs: Tensor) -> Tensor:
            out = fn(*xs)
            return sum((tg.sum(g) for g in gradients(out, list(xs), np.ones(out.shape), True)), Tensor(0.0))

        return check(total, xs, order - 1, seed)

    return check


def torch_gradcheck() -> Check:
    import torch
    from torch.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck

    class Bridge(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, fn: Function, *xs: Any) -> Any:
            ctx.save_for_backward(*xs)
            ctx.fn, ctx.leaves = fn, [leaf(x.detach().numpy()) for x in xs]
            ctx.out = fn(*ctx.leaves)
            return torch.from_numpy(owned(ctx.out.data))

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            wanted = [i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
            if torch.is_grad_enabled():  # to be differentiated again
                found = [Bridge.apply(slope(ctx.fn, i), *ctx.saved_tensors, g) for i in wanted]
            else:
                found = [
                    torch.from_numpy(t.data) for t in gradients(ctx.out, [ctx.leaves[i] for i in wanted], g.numpy())
                ]
            return None, *(found[wanted.index(i)] if i in wanted else None for i in range(len(ctx.leaves)))

    def check(fn: Function, xs: list[Array], order: int, seed: int) -> str:
        torch.manual_seed(seed)
        inputs = [torch.tensor(x, requires_grad=True) for x in xs]
        try:
            gradcheck(lambda *xs: Bridge.apply(fn, *xs), inputs)
            if order > 1:
                gradgradcheck(lambda *xs: Bridge.apply(fn, *xs), inputs)
        except GradcheckError:
            return CAUGHT
        return PASSED

    torch.set_num_threads(1)
    return check


def hips_check_grads() -> Check:
    from autograd.extend import defvjp_argnums, primitive
    from autograd.test_util import check_grads
    from autograd.tracer import isbox

    def bridge(fn: Function) -> Any:
        latest: list[Any] = [None]

        @primitive
        def op(*xs: Any) -> Array:
            leaves = [leaf(x) for x in xs]
            out = fn(*leaves)
            latest[:] = owned(out.data), out, leaves
            return latest[0]

        def vjp_maker(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], keywords: Any) -> Callable[[Any], Any]:
            same = latest[1:] if latest[0] is ans else None  # the graph of this very call

            def vjp(g: Any) -> Any:
                if same is None or isbox(g):  # to be differentiated again
                    return tuple(bridge(slope(fn, i))(*args, g) for i in argnums)
                out, leaves = same
                return tuple(t.data for t in gradients(out, [leaves[i] for i in argnums], np.asarray(g)))

            return vjp

        defvjp_argnums(op, vjp_maker)
        return op

    def check(fn: Function, xs: list[Array], order: int, seed: int) -> str:
        np.random.seed(seed)  # the one that check_grads draws from
        try:
            check_grads(bridge(fn), tuple(range(len(xs))), modes=["rev"], order=order)(*(x.copy() for x in xs))
        except AssertionError:
            return CAUGHT
        return PASSED

    return check


CHECKERS: dict[str, tuple[Callable[[], Check], str]] = {
    "ours": (ours, "tinygrad_mnist.testing.check_gradients, default settings"),
    "plain": (plain, "central differences, h=1e-5, cotangent of ones, np.allclose(rtol=1e-3, atol=1e-5)"),
    "torch": (
        torch_gradcheck,
        "torch.autograd.gradcheck, gradgradcheck from order 2; defaults: eps=1e-6, atol=1e-5, rtol=1e-3",
    ),
    "autograd": (
        hips_check_grads,
        'HIPS autograd.test_util.check_grads(modes=["rev"]); its constants: eps=1e-6, tol=1e-6, rtol=1e-6',
    ),
}


# Scores ---------------------------------------------------------------------------------------------------------------
def say(check: Check, fn: Function, xs: list[Array], order: int, seed: int) -> tuple[str, float]:
    """Return the verdict, and how many milliseconds it took."""
    begun = time.perf_counter()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # steps out of a logarithm's domain, and the like
        try:
            verdict = check(fn, [x.copy() for x in xs], order, seed)
        except Exception as error:
            verdict = f"{CRASHED}: {type(error).__name__}: {error}".splitlines()[0]
    return verdict, (time.perf_counter() - begun) * 1e3


def score(name: str, cases: int, seed: int) -> dict[str, Any]:
    """Run one checker over all mutants, their originals, and `cases` right cases: the same ones for every checker."""
    make, settings = CHECKERS[name]
    try:
        check = make()
    except ImportError:
        return {"settings": settings, "installed": False}
    mutants: dict[str, str] = {}
    verdicts: dict[str, Counter[str]] = {kind: Counter() for kind in ("originals", "ordinary", "scaled", "kink")}
    alarms, times = [], []

    def right(title: str, fn: Function, xs: list[Array], order: int, seed: int) -> None:
        verdict, milliseconds = say(check, fn, xs, order, seed)
        verdicts[title.split(":")[0]][verdict.split(":")[0]] += 1
        times.append(milliseconds)
        if verdict not in (PASSED, UNDECIDED):
            alarms.append(f"{title}, order {order}, seed {seed}: {verdict}")

    for number, mutant in enumerate(MUTANTS, seed):
        xs = mutant.inputs(np.random.default_rng(number))
        mutants[mutant.name] = say(check, mutant.build(), xs, mutant.order, number)[0]
        right(f"originals: of {mutant.name}", mutant.original, xs, mutant.order, number)
    for number in range(seed, seed + cases):
        right(*correct_case(np.random.default_rng(number)), number)
    return {
        "settings": settings,
        "installed": True,
        "mutants": mutants,
        "right": verdicts,
        "alarms": alarms,
        "median_ms": float(np.median(times)),
    }


def table(scores: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Rows of text: a label, a count, and a cell for each checker."""
    rows = [["", "of", *scores]]

    def add(label: str, total: int, cell: Callable[[dict[str, Any]], Any]) -> None:
        rows.append(
            [label, str(total), *(str(cell(s)) if s["installed"] else "not installed" for s in scores.values())]
        )

    for kind in dict.fromkeys(mutant.kind for mutant in MUTANTS):
        names = [mutant.name for mutant in MUTANTS if mutant.kind == kind]
        add(f"caught: {kind}", len(names), lambda s, names=names: sum(s["mutants"][name] == CAUGHT for name in names))
    add("caught: all", len(MUTANTS), lambda s: sum(verdict == CAUGHT for verdict in s["mutants"].values()))
    add(
        "crashed on mutants",
        len(MUTANTS),
        lambda s: sum(verdict.startswith(CRASHED) for verdict in s["mutants"].values()),
    )
    drawn = next((s["right"] for s in scores.values() if s["installed"]), {})
    for kind, verdicts in drawn.items():
        for what, name in ((CAUGHT, "false alarms"), (UNDECIDED, UNDECIDED), (CRASHED, CRASHED)):
            add(
                f"{name}, right: {kind}", sum(verdicts.values()), lambda s, kind=kind, what=what: s["right"][kind][what]
            )
    total = sum(sum(verdicts.values()) for verdicts in drawn.values())
    add("median ms per check, right", total, lambda s: f"{s['median_ms']:.2g}")
    return rows


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
    add("--markdown", action="store_true", help="print a Markdown table")
    add("--json", metavar="FILE", type=Path, help="write every verdict")
    args = parser.parse_args(argv)
    scores = {name: score(name, args.cases, args.seed) for name in args.checkers}
    rows = table(scores)
    for name, result in scores.items():
        print(f"{name}: {result['settings']}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    if args.markdown:
        lines.insert(1, ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])])
    print("\n" + "\n".join(f"| {' | '.join(line)} |" if args.markdown else "  ".join(line) for line in lines))
    for name, result in scores.items():
        if result["installed"]:
            missed = [f"{mutant} ({verdict})" for mutant, verdict in result["mutants"].items() if verdict != CAUGHT]
            print(f"\nnot caught by {name}: {'; '.join(missed) or 'none'}")
    if args.json:
        args.json.write_text(
            json.dumps({"seed": args.seed, "cases": args.cases, "checkers": scores}, indent=1) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
