"""The README's code runs, its tables are complete, and the examples in docstrings are true."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import models
import tinygrad_mnist as tg

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "tinygrad_mnist").rglob("README.md"))
MODULES = [importlib.import_module(found.name) for found in pkgutil.walk_packages(tg.__path__, "tinygrad_mnist.")]
BESIDE = [importlib.import_module(found.name) for found in pkgutil.walk_packages(models.__path__, "models.")]
for package in (ROOT / "scripts").glob("*/__init__.py"):
    found = pkgutil.walk_packages([str(package.parent)], f"{package.parent.name}.")
    BESIDE += [importlib.import_module(module.name) for module in found]
FAMILIES = [module for module in MODULES if module.__name__.split(".")[1] in ("ops", "conv", "functional")]
OPS = list(dict.fromkeys(name for module in FAMILIES for name in getattr(module, "__all__", ())))
TABLE = next(page for page in (ROOT / "tinygrad_mnist" / "ops" / "README.md", ROOT / "README.md") if page.exists())


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_examples_in_the_pages_of_folders_run(page, monkeypatch, tmp_path):
    """Blocks run in order with common names, as doctests or as programs; the output of a program may follow it."""
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    text, title = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
    for program, output in re.findall(r"```python\n(.*?)```(?:\n+```\n(.*?)```)?", text, re.DOTALL):
        if program.startswith(">>> "):
            examples = doctest.DocTestParser().get_doctest(program, names, title, title, 0)
            assert doctest.DocTestRunner().run(examples, clear_globs=False).failed == 0, title
            names = examples.globs
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(program, title, "exec"), names)
        assert not output or printed.getvalue() == output, f"{title}: the output of\n{program}"


def test_the_model_takes_about_20_lines_and_the_op_about_10():
    model, op, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(model.splitlines()) <= 25 and len(op.splitlines()) <= 11


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_in_the_table_of_ops_and_has_an_example(name):
    where, method = TABLE.relative_to(ROOT).as_posix(), hasattr(tg.Tensor, name)
    cell = f"`.{name}`" if method else f"`{name}`"
    assert cell in TABLE.read_text(encoding="utf-8"), f"add {cell} to the table of ops in {where} (a dot marks methods)"
    assert ">>> " in getattr(tg, name).__doc__, f"add an example (>>> ...) to the docstring of {name}"


@pytest.mark.parametrize("module", [*MODULES, *BESIDE], ids=lambda module: module.__name__)
def test_examples_in_docstrings_are_true(module, monkeypatch):
    if module.__name__ == "tinygrad_mnist.data.mnist":  # 70,000 synthetic digits take seconds to draw
        few = (np.zeros((60000, 28, 28), np.uint8), np.zeros(60000, np.uint8))
        monkeypatch.setattr(module, "synthetic_digits", lambda n, rng=None: (few[0][:n], few[1][:n]))
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


# README.md files in folders -------------------------------------------------------------------------------------------
FOLDERS = sorted(
    path.parent for room in ("tinygrad_mnist", "scripts", "tests") for path in (ROOT / room).rglob("README.md")
)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_the_code_blocks_of_a_folders_readme_run_and_print_what_it_says(folder, monkeypatch, tmp_path, capsys):
    """Run the Python blocks in order; a plain block right after one is what it prints (figures after ± may differ)."""
    monkeypatch.chdir(tmp_path)  # where Hypothesis finds no README.md to read the source of its tests from
    text, names = (folder / "README.md").read_text(encoding="utf-8"), {}
    for block, output in re.findall(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", text, re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)
        printed = capsys.readouterr().out
        assert not output or re.sub("± .*", "±", printed) == re.sub("± .*", "±", output)
    for name, test in list(names.items()):
        if name.startswith("test_"):
            test()
