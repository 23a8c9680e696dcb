"""The example in the README of data runs, and its tables name all files."""

from pathlib import Path

from readme import check_readme

import tinygrad_mnist.data


def test_the_readme_runs_and_names_every_file(tmp_path: Path) -> None:
    check_readme(Path(tinygrad_mnist.data.__file__).parent, tmp_path)
