"""The sizes that keep the project readable; a failing test names the file, the count and the limit.

Lines with code are counted: no blank lines, comments or docstrings. ``ruff format`` decides what a line is.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from code_lines import measure

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tinygrad_mnist"
FILES = sorted(PACKAGE.rglob("*.py"))

ENGINE = ("tensor.py", "record.py", "backward.py")
OPS = tuple(
    f"{family}.py" for family in "elementwise operators powers products windows conv pool scores random".split()
)
ENGINE_LINES = 400
CORE_LINES = 1000  # the engine and the ops that a convolutional network needs
FILE_LINES = 300
TOKENS_PER_LINE = 11  # in the package; about 10 is usual
DENSEST = 18  # tokens a line of a file: code on arrays has many indices
ROOT_FILES = 12
README_LINES = 150
TOP = {"README.md", "models", "pyproject.toml", "scripts", "tests", "tinygrad_mnist"}


def check_sum(files: list[Path], limit: int) -> None:
    counts = {file.relative_to(ROOT).as_posix(): measure(file)[0] for file in files}
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    assert sum(counts.values()) <= limit, f"{sum(counts.values())} lines of code, at most {limit}: {listed}"


def test_the_counter_counts_code_alone(tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(
        '"""A\nmodule."""\n\n# comment\ndef f(x):  # another\n    """Doc."""\n    y = """two\nlines"""\n    return y\n'
    )
    assert measure(file) == (4, 11)


def test_the_engine_is_short() -> None:
    check_sum([PACKAGE / name for name in ENGINE], ENGINE_LINES)


def test_the_engine_with_the_ops_of_a_convolutional_network_is_short() -> None:
    check_sum([PACKAGE / name for name in ENGINE] + [PACKAGE / "ops" / name for name in OPS], CORE_LINES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_no_file_is_long_or_dense(file: Path) -> None:
    lines, tokens = measure(file)
    name = file.relative_to(ROOT).as_posix()
    assert lines <= FILE_LINES, f"{name}: {lines} lines of code, at most {FILE_LINES}: split it by subject"
    density = tokens / max(lines, 1)
    assert density <= DENSEST, f"{name}: {density:.1f} tokens a line, at most {DENSEST}"


def test_the_package_is_not_dense() -> None:
    lines, tokens = map(sum, zip(*map(measure, FILES), strict=True))
    assert tokens / lines <= TOKENS_PER_LINE, f"tinygrad_mnist/: {tokens / lines:.1f} tokens a line"


def test_formatting_is_never_switched_off() -> None:
    marks = ("# fmt: skip", "# fmt: off")
    files = [file for top in ("tinygrad_mnist", "models", "scripts", "tests") for file in (ROOT / top).rglob("*.py")]
    found = [file for file in files if file != Path(__file__) and any(m in file.read_text("utf-8") for m in marks)]
    assert not found, f"remove '# fmt:' from {', '.join(file.relative_to(ROOT).as_posix() for file in found)}"


def test_the_root_of_the_package_is_small() -> None:
    files = sorted(path.name for path in PACKAGE.iterdir() if path.is_file())
    assert len(files) <= ROOT_FILES, f"tinygrad_mnist/: {len(files)} files, at most {ROOT_FILES}: {', '.join(files)}"


def test_the_readme_is_short() -> None:
    lines = len((ROOT / "README.md").read_text(encoding="utf-8").splitlines())
    assert lines <= README_LINES, f"README.md: {lines} lines, at most {README_LINES}"


def test_the_top_level_is_what_the_readme_says() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone: there is no list of tracked files")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tops = {line.split("/")[0] for line in listed.splitlines()}
    shown = {top for top in tops if not top.startswith(".")}
    assert shown == TOP, f"top level: {sorted(shown)}; expected {sorted(TOP)} and files that begin with a dot"
