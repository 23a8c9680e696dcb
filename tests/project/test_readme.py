"""The programs in README.md files run and print what they say, and the examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from code_lines import measure

import models
import tinygrad_mnist as tg

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "tinygrad_mnist").rglob("README.md"))]
MODULES = [importlib.import_module(found.name) for found in pkgutil.walk_packages(tg.__path__, "tinygrad_mnist.")]
BESIDE = [importlib.import_module(found.name) for found in pkgutil.walk_packages(models.__path__, "models.")]
for package in (ROOT / "scripts").glob("*/__init__.py"):
    found = pkgutil.walk_packages([str(package.parent)], f"{package.parent.name}.")
    BESIDE += [importlib.import_module(module.name) for module in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_programs_run_and_print_what_the_page_says(page: Path, monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    """Blocks run in order with common names, as doctests or as programs; a plain block behind one is what it prints."""
    monkeypatch.chdir(tmp_path)  # where Hypothesis finds no README.md to read the source of its tests from
    names: dict[str, Any] = {}
    text, title = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
    for program, output in re.findall(r"```python\n(.*?)```(?:\n+```\n(.*?)```)?", text, re.DOTALL):
        if program.startswith(">>> "):
            examples = doctest.DocTestParser().get_doctest(program, names, title, title, 0)
            assert doctest.DocTestRunner().run(examples, clear_globs=False).failed == 0, title
            names = examples.globs
            continue
        exec(compile(program, page.name, "exec"), names)
        printed = capsys.readouterr().out  # figures behind ± differ between machines
        assert not output or re.sub("± .*", "±", printed) == re.sub("± .*", "±", output), (
            f"{title}: output of {program}"
        )
    for name, value in list(names.items()):
        if name.startswith("test_"):
            value()
    if page == ROOT / "README.md":
        assert names["accuracy"] > 0.8


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, *(ROOT / "scripts").rglob("README.md"), *(ROOT / ".github").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)}: {link} is not there"


def test_the_rooms_have_the_lines_that_the_readme_says() -> None:
    rows = re.findall(r"^\| \[`([\w/.]+)`\]\(([\w/.]+)\) \| ([\d,]+) \|", README, re.MULTILINE)
    assert len(rows) >= 10
    for name, link, stated in rows:
        place = ROOT / link
        lines = sum(measure(file)[0] for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place]))
        assert abs(lines - int(stated.replace(",", ""))) <= max(lines / 10, 3), (
            f"README.md: {name} has {lines} lines, not {stated}"
        )


@pytest.mark.parametrize("name", [*tg.ops.__all__, *tg.linalg.__all__])
def test_every_op_has_an_example(name: str) -> None:
    op = getattr(tg, name, None) or getattr(tg.linalg, name)
    assert ">>> " in op.__doc__, f"add an example (>>> ...) to the docstring of {name}"


def test_the_table_of_ops_names_them_all() -> None:
    command = [sys.executable, "-m", "tinygrad_mnist.ops"]
    table = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    shown = {name: dot for dot, name in re.findall(r"^  ([ .])(\w+)", table, re.MULTILINE)}
    assert {*tg.ops.__all__, *tg.linalg.__all__} <= shown.keys() and shown["exp"] == "." and shown["sin"] == " "


@pytest.mark.parametrize("module", [*MODULES, *BESIDE], ids=lambda module: module.__name__)
def test_examples_in_docstrings_are_true(module, monkeypatch):
    if module.__name__ == "tinygrad_mnist.data.mnist":  # 70,000 synthetic digits take seconds to draw
        few = (np.zeros((60000, 28, 28), np.uint8), np.zeros(60000, np.uint8))
        monkeypatch.setattr(module, "synthetic_digits", lambda n, rng=None: (few[0][:n], few[1][:n]))
    public = {
        name: getattr(module, name) for name in getattr(module, "__all__", vars(module)) if not name.startswith("_")
    }
    ours = {name: value for name, value in public.items() if getattr(value, "__module__", None) == module.__name__}
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
