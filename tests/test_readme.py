"""The README's code runs, its tables are complete, and the examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_mnist as tg
from models import deep_convnet, mlp

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = [importlib.import_module(found.name) for found in pkgutil.walk_packages(tg.__path__, "tinygrad_mnist.")]
OPS = [
    name
    for module in MODULES
    if module.__name__.split(".")[-1] in ("ops", "conv", "functional")
    for name in module.__all__
]


def test_the_code_blocks_run_in_order(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where Hypothesis finds no README.md to read the source of its tests from
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert len(blocks) == 3 and names["accuracy"] > 0.8
    np.testing.assert_allclose(names["curvature"].data, [0.25, np.exp(1) / (1 + np.exp(1)) ** 2])
    names["test_hypotenuse"]()
    mistaken = blocks[2].replace("tg.sum_to(g * y", "tg.sum_to(-g * y")
    exec(compile(mistaken, "README.md", "exec"), names)
    with pytest.raises(tg.testing.GradientMismatch) as found:
        tg.testing.check_gradients(names["hypotenuse"], [0.6, -1.2], [0.8], order=2)
    assert re.sub("± .*", "±", str(found.value)) in re.sub("± .*", "±", README)


def test_the_model_takes_about_20_lines_and_the_op_about_10():
    model, op, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(model.splitlines()) <= 25 and len(op.splitlines()) <= 11


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_in_the_readmes_table_and_has_a_runnable_example(name):
    row = re.search(rf"`(\.?){name}`", README[README.index("## Ops") :])
    assert row, f"{name} is missing in the README's table of ops"
    assert (row[1] == ".") == (getattr(tg.Tensor, name, None) is not None), "a dot marks methods"
    assert ">>> " in getattr(tg, name).__doc__
    assert callable(getattr(tg, name))


@pytest.mark.parametrize("module", [*MODULES, deep_convnet, mlp], ids=lambda module: module.__name__)
def test_examples_in_docstrings_are_true(module, monkeypatch):
    if module.__name__ == "tinygrad_mnist.data.mnist":  # 70,000 synthetic digits take seconds to draw
        few = (np.zeros((60000, 28, 28), np.uint8), np.zeros(60000, np.uint8))
        synthetic = importlib.import_module("tinygrad_mnist.data.synthetic")
        monkeypatch.setattr(synthetic, "synthetic_digits", lambda n, rng=None: (few[0][:n], few[1][:n]))
    public = {
        name: getattr(module, name) for name in getattr(module, "__all__", vars(module)) if not name.startswith("_")
    }
    ours = {
        n: v
        for n, v in public.items()
        if getattr(v, "__module__", None) == module.__name__ or isinstance(v, tg.Primitive)
    }
    runner = doctest.DocTestRunner()
    for name, value in ours.items():
        members = vars(value).values() if isinstance(value, type) else ()
        for part in [
            value,
            *(
                m
                for m in members
                if getattr(m, "__module__", "") == module.__name__ and not isinstance(m, tg.Primitive)
            ),
        ]:
            if text := getattr(part, "__doc__", None):
                runner.run(doctest.DocTestParser().get_doctest(text, {**vars(module)}, name, None, 0))
    assert runner.summarize(verbose=False).failed == 0


def test_help_shows_a_primitive_as_the_function_that_it_is(capsys):
    help(tg.exp)
    shown = capsys.readouterr().out
    assert "exp" in shown and "e to the power of" in shown


def test_checks_do_not_cry_wolf_where_digits_are_lost_to_a_shift():
    x = np.array([[1.26, 0.96, 1.42, -0.17], [2.37, -0.4, -2.14, -0.58]])
    tg.testing.check_gradients(lambda x: tg.softmax(x + [[-1e4], [0.0]], axis=1), x)
    with pytest.raises(tg.testing.GradientMismatch):  # and still catch an error of a millionth
        tg.testing.check_gradients(lambda x: wrong_by_a_millionth(tg.softmax(x, axis=1)), x)


@tg.primitive
def wrong_by_a_millionth(x):
    return 2 * x


wrong_by_a_millionth.defvjp(lambda g, out, x: g * 2.000002)


@pytest.mark.parametrize("strategy", [lambda: tg.testing.arrays((2,)), lambda: tg.testing.conv_geometries()])
def test_strategies_without_hypothesis_name_the_extra(monkeypatch, strategy):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "tinygrad_mnist.testing.strategies", raising=False)
    with pytest.raises(ImportError, match=r"tinygrad_mnist\[test\]"):
        strategy()


def test_the_core_needs_numpy_alone():
    extras = {"hypothesis", "matplotlib", "tqdm", "pytest", "threadpoolctl"}
    code = f"import sys, tinygrad_mnist; print(sorted({{m.split('.')[0] for m in sys.modules}} & {extras}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
