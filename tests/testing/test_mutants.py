"""The gradient check finds every planted error, accepts the originals, and is measured against others by a script that
runs.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutants import MUTANTS, Array, Function, Mutant, correct_case

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor, conv, functional, ops
from tinygrad_mnist.testing import GradientMismatch, check_gradients

SCRIPT = Path(__file__).parents[2] / "scripts" / "mutation_score.py"

each = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


def slope(fn: Function) -> Function:
    """Return the function of inputs and cotangent that gives all gradients of `fn` in one row."""

    def derived(*args: Tensor) -> Tensor:
        *xs, g = args
        out = fn(*xs)
        found = tg.grad(out, xs, create_graph=True, gradient=g) if out.requires_grad else [x * 0 for x in xs]
        return tg.concatenate([tg.reshape(t, -1) for t in found])

    return derived


def observed(fn: Function, mutant: Mutant, seed: int) -> list[Array]:
    """Return all that a right derivative settles.

    Gradients (also again, and after a call elsewhere), and what must stay as it is.
    """
    rng = np.random.default_rng(seed)
    values, others = mutant.inputs(rng), mutant.inputs(rng)
    for _ in range(1, mutant.order):
        cotangent = rng.normal(size=fn(*map(Tensor, values)).shape)
        fn, values, others = slope(fn), [*values, cotangent], [*others, cotangent]
    leaves = [Tensor(v, requires_grad=True) for v in values]
    out = fn(*leaves)
    first, cotangent = out.data.copy(), rng.normal(size=out.shape)
    g = Tensor(cotangent)
    found = [t.data for _ in range(2) for t in (tg.grad(out, leaves, gradient=g) if out.requires_grad else leaves)]
    fn(
        *(
            Tensor(np.flip(v) if np.array_equal(v, w) else w, requires_grad=True)
            for v, w in zip(values, others, strict=True)
        )
    )
    later = [t.data for t in (tg.grad(out, leaves, gradient=cotangent) if out.requires_grad else leaves)]
    return [first, *found, *later, out.data, g.data, *(t.data for t in leaves)]


@each
def test_a_mutant_has_the_values_of_its_original_and_other_derivatives(mutant: Mutant) -> None:
    right, wrong = observed(mutant.original, mutant, 0), observed(mutant.build(), mutant, 0)
    np.testing.assert_allclose(wrong[0], right[0], rtol=1e-14 if mutant.order == 1 else 1e-7)
    assert not all(
        np.allclose(w, r, rtol=1e-9, atol=1e-14 * np.abs(r).max()) for w, r in zip(wrong, right, strict=True)
    )
    if mutant.order > 1:  # then nothing is to be seen before
        lower = mutant._replace(order=mutant.order - 1)
        for w, r in zip(observed(mutant.build(), lower, 0), observed(mutant.original, lower, 0), strict=True):
            np.testing.assert_allclose(w, r, rtol=1e-12, atol=1e-14)


def test_there_are_many_mutants_of_every_op() -> None:
    assert len(MUTANTS) >= 60 and len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.name.split(":")[0] for mutant in MUTANTS} >= {*ops.__all__, *conv.__all__, *functional.__all__}


@each
@pytest.mark.parametrize("seed", [0, 1])
def test_a_mutant_is_caught_and_its_original_is_not(mutant: Mutant, seed: int) -> None:
    xs = mutant.inputs(np.random.default_rng(seed))
    check_gradients(mutant.original, *xs, order=mutant.order, rng=seed, inconclusive="ignore")
    with pytest.raises(GradientMismatch):
        check_gradients(mutant.build(), *xs, order=mutant.order, rng=seed, inconclusive="ignore")


@given(st.integers(0, 2**32 - 1))
def test_right_cases_raise_no_alarm(seed: int) -> None:
    _, fn, xs, order = correct_case(np.random.default_rng(seed))
    check_gradients(fn, *xs, order=order, rng=seed, inconclusive="ignore")


# The script -----------------------------------------------------------------------------------------------------------
def load() -> Any:
    spec = importlib.util.spec_from_file_location("mutation_score", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_script_scores_without_the_others(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    for module in ("torch", "autograd"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(sys, "path", sys.path[:])
    script = load()
    monkeypatch.setattr(script, "MUTANTS", MUTANTS[::4])
    assert script.main(["--cases", "20", "--markdown", "--json", str(tmp_path / "scores.json")]) == 0
    shown = capsys.readouterr().out
    header, total = (
        next(row for row in shown.splitlines() if row.startswith(f"| {label}")) for label in ("  ", "caught: all")
    )
    assert header.split() == "| | of | ours | plain | torch | autograd |".split()
    _, _, count, mine, plain, torch, hips, _ = map(str.strip, total.split("|"))
    assert int(count) == int(mine) == len(MUTANTS[::4]) > int(plain) and torch == hips == "not installed"
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (
        set(scores["checkers"]["ours"]["mutants"].values()) == {"caught"} and scores["checkers"]["ours"]["alarms"] == []
    )
    assert scores["checkers"]["torch"]["installed"] is False and "not caught by ours: none" in shown


@pytest.mark.parametrize("checker", ["plain", "torch", "autograd"])
def test_the_others_see_the_same_derivatives(checker: str, monkeypatch: Any) -> None:
    if checker != "plain":
        pytest.importorskip(checker)  # for comparison only: no dependency of the project
    monkeypatch.setattr(sys, "path", sys.path[:])
    script = load()
    check = script.CHECKERS[checker][0]()
    xs = [np.array([0.5, 2.0, 1.5]), np.array([[1.5], [0.7]])]
    for order in (1, 2):
        assert script.say(check, lambda x, y: tg.power(x, y) * tg.sum(x), xs, order, 0)[0] == "passed"
    named = {mutant.name: mutant for mutant in MUTANTS}
    for name in ("cos: lost", "power: slope constant", "multiply: the other factor constant"):
        mutant = named[name]
        values = mutant.inputs(np.random.default_rng(0))
        verdicts = [script.say(check, fn, values, mutant.order, 0)[0] for fn in (mutant.original, mutant.build())]
        assert verdicts == ["passed", "caught"]
