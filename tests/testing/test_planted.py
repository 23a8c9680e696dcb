"""The gradient check finds every planted error, accepts the originals, and is measured against others by a script."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import Array, Function, PlantedError
from right_cases import right_case

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor, ops
from tinygrad_mnist.testing import GradientMismatch, check_gradients

TESTS = Path(__file__).parents[1]
PLANTED = planted.load(TESTS / "ops")

each = pytest.mark.parametrize("error", PLANTED, ids=lambda error: error.name)


def derivative(fn: Function) -> Function:
    """Return the function of inputs and cotangent that gives all gradients of `fn` in one row."""

    def derived(*args: Tensor) -> Tensor:
        *xs, g = args
        out = fn(*xs)
        found = tg.grad(out, xs, create_graph=True, gradient=g) if out.requires_grad else [x * 0 for x in xs]
        return tg.concatenate([tg.reshape(t, -1) for t in found])

    return derived


def observed(fn: Function, error: PlantedError, order: int) -> list[Array]:
    """Return all that a right derivative settles.

    Gradients (also again, and after a call elsewhere), and what must stay as it is.
    """
    rng = np.random.default_rng(0)
    values, others = error.inputs(rng), error.inputs(rng)
    for _ in range(1, order):
        cotangent = rng.normal(size=fn(*map(Tensor, values)).shape)
        fn, values, others = derivative(fn), [*values, cotangent], [*others, cotangent]
    leaves = [Tensor(v, requires_grad=True) for v in values]
    out = fn(*leaves)
    first, cotangent = out.data.copy(), rng.normal(size=out.shape)
    g = Tensor(cotangent)
    found = [t.data for _ in range(2) for t in (tg.grad(out, leaves, gradient=g) if out.requires_grad else leaves)]
    elsewhere = [np.flip(v) if np.array_equal(v, w) else w for v, w in zip(values, others, strict=True)]
    fn(*(Tensor(v, requires_grad=True) for v in elsewhere))
    later = [t.data for t in (tg.grad(out, leaves, gradient=cotangent) if out.requires_grad else leaves)]
    in_use = used_otherwise(fn, values) if error.kind == "use" else []
    return [first, *found, *later, out.data, g.data, *(t.data for t in leaves), *in_use]


def used_otherwise(fn: Function, values: list[Array]) -> list[Array]:
    """Return gradients by other cotangents, with create_graph, by one input alone, and of other inputs."""

    def gradients(xs: list[Tensor], factor: float = 1.0, flat: bool = False, again: bool = False) -> list[Array]:
        out, wanted = fn(*xs), [x for x in dict.fromkeys(xs) if x.requires_grad]
        cotangent = factor * np.linspace(0.6, 0.9, out.size).reshape(out.shape)
        g = np.broadcast_to(0.7, out.shape) if flat else cotangent.astype(out.dtype)
        return [t.data for t in tg.grad(out, wanted, again, gradient=g)]

    def leaves(arrays: list[Array], alone: int | None = None) -> list[Tensor]:
        return [Tensor(v, requires_grad=alone in (None, i)) for i, v in enumerate(arrays)]

    xs = leaves(values)
    found = [*gradients(xs, 2.0**20), *gradients(xs, 2.0**-20), *gradients(xs, flat=True), *gradients(xs, again=True)]
    for i in range(len(values)):
        found += gradients(leaves(values, i))
    if len(values) == 2 and values[0].shape == values[1].shape:
        found += gradients([xs[0], xs[0]])
    return [*found, *gradients(leaves([np.asfortranarray(v) for v in values]))]


@each
def test_a_planted_error_keeps_the_values_and_changes_the_derivatives(error: PlantedError) -> None:
    right, wrong = observed(error.original, error, error.order), observed(error.build(), error, error.order)
    np.testing.assert_allclose(wrong[0], right[0], rtol=1e-14 if error.order == 1 else 1e-7)
    assert not all(
        np.allclose(w, r, rtol=1e-9, atol=1e-14 * np.abs(r).max()) for w, r in zip(wrong, right, strict=True)
    )
    if (lower := error.order - 1) > 0:  # then nothing is to be seen before
        for w, r in zip(observed(error.build(), error, lower), observed(error.original, error, lower), strict=True):
            np.testing.assert_allclose(w, r, rtol=1e-12, atol=1e-14)


@each
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_planted_error_is_caught_and_its_original_is_not(error: PlantedError, seed: int) -> None:
    xs = error.inputs(np.random.default_rng(seed))
    check_gradients(error.original, *xs, order=error.order, rng=seed, inconclusive="ignore")
    with pytest.raises(GradientMismatch):
        check_gradients(error.build(), *xs, order=error.order, rng=seed, inconclusive="ignore")


@given(st.integers(0, 2**32 - 1))
def test_right_cases_raise_no_alarm(seed: int) -> None:
    _, fn, xs, order = right_case(np.random.default_rng(seed))
    check_gradients(fn, *xs, order=order, rng=seed, inconclusive="ignore")


# Completeness ---------------------------------------------------------------------------------------------------------
def families() -> dict[str, list[str]]:
    """Return the public ops by the module that they stand in: ``{"elementwise": ["abs", ...], ...}``."""
    names = [found.name for found in pkgutil.iter_modules(ops.__path__) if not found.name.startswith("_")]
    found = {name: importlib.import_module(f"tinygrad_mnist.ops.{name}").__all__ for name in names}
    found |= {"the engine": [name for name in ops.__all__ if name not in chain(*found.values())]}
    del found["creation"]  # no ops: nothing is differentiated, and so with one_hot
    return {name: [op for op in listed if op != "one_hot"] for name, listed in found.items()}


@pytest.mark.parametrize(("family", "op"), [(family, op) for family, names in families().items() for op in names])
def test_every_op_has_a_planted_error(family: str, op: str) -> None:
    path = TESTS / "ops" / f"test_{family}.py"
    file = f"tests/ops/{path.name}" if path.exists() else "the file of its family in tests/ops"
    if op not in {error.name.split(":")[0] for error in PLANTED}:
        pytest.fail(
            f"tg.{op} has no planted error, which shows that a wrong rule of it is found: add one to {file}, as in\n\n"
            f'@plants("{op}: twice too large", tg.{op}, normal((3,)))\n'
            "def _(right, g, out, x):\n"
            "    return 2 * right",
            pytrace=False,
        )


def test_names_of_planted_errors_differ() -> None:
    assert len({error.name for error in PLANTED}) == len(PLANTED) >= 60
    with pytest.raises(ValueError, match="kind is 'fun'"):
        planted.plants("exp: fun", tg.exp, planted.normal((3,)), kind="fun")


# The script -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return scripts/mutation_score.py as a module; its changes to sys.path are undone."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    spec = importlib.util.spec_from_file_location("mutation_score", TESTS.parent / "scripts" / "mutation_score.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_scores_the_errors_of_a_folder(script: Any, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    for module in ("torch", "autograd"):
        monkeypatch.setitem(sys.modules, module, None)
    folder = TESTS / "ops"
    few = planted.load(folder)[::16]
    monkeypatch.setattr(planted, "load", lambda path: few if path == folder else [])
    assert script.main(["--cases", "20", "--markdown", "--json", str(tmp_path / "scores.json")]) == 0
    shown = capsys.readouterr().out
    header, total = (
        next(row for row in shown.splitlines() if row.startswith(f"| {label}")) for label in ("  ", "caught: all")
    )
    assert header.split() == "| | of | ours | plain | torch | autograd |".split()
    _, _, count, mine, plain, torch, hips, _ = map(str.strip, total.split("|"))
    assert int(count) == int(mine) == len(few) > int(plain) and torch == hips == "not installed"
    scores = json.loads((tmp_path / "scores.json").read_text())["checkers"]
    assert set(scores["ours"]["planted"].values()) == {"caught"} and scores["ours"]["alarms"] == []
    assert scores["torch"]["installed"] is False and "not caught by ours: none" in shown


@pytest.mark.parametrize("checker", ["plain", "torch", "autograd"])
def test_the_others_see_the_same_derivatives(checker: str, script: Any) -> None:
    if checker != "plain":
        pytest.importorskip(checker)  # for comparison only: no dependency of the project
    check = script.CHECKERS[checker][0]()
    xs = [np.array([0.5, 2.0, 1.5]), np.array([[1.5], [0.7]])]
    for order in (1, 2):
        assert script.verdict(check, lambda x, y: tg.power(x, y) * tg.sum(x), xs, order, 0)[0] == "passed"
    named = {error.name: error for error in PLANTED}
    for name in ("cos: lost", "power: slope constant", "multiply: the other factor constant"):
        error = named[name]
        values = error.inputs(np.random.default_rng(0))
        verdicts = [script.verdict(check, fn, values, error.order, 0)[0] for fn in (error.original, error.build())]
        assert verdicts == ["passed", "caught"]
