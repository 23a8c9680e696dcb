"""Check the README.md of a folder of the package: its examples run, and it links every module."""

from __future__ import annotations

import contextlib
import doctest
import re
from pathlib import Path


def check_readme(folder: Path, workspace: Path) -> None:
    """Run the Python blocks of a README.md, which are doctests, in an empty folder, and check its links."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks and all(">>> " in block for block in blocks), f"{path} has no example"
    runner = doctest.DocTestRunner()
    with contextlib.chdir(workspace):
        for block in blocks:
            runner.run(doctest.DocTestParser().get_doctest(block, {}, str(path), None, 0))
    assert runner.summarize(verbose=False).failed == 0
    linked = set(re.findall(r"\]\((\w+\.py)\)", text))
    modules = {file.name for file in folder.glob("*.py")} - {"__init__.py"}
    assert linked == modules, f"{path} must link the modules {modules - linked}, and not {linked - modules}"
