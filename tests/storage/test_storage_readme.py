"""The example in the README of storage runs, and its tables name all files."""

from pathlib import Path

from readme import check_readme

import tinygrad_mnist.storage


def test_the_readme_runs_and_names_every_file(tmp_path: Path) -> None:
    check_readme(Path(tinygrad_mnist.storage.__file__).parent, tmp_path)
