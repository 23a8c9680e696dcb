"""The wheel holds `tinygrad_mnist` alone, complete, and every module of it can be imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import tinygrad_mnist as tg

ROOT = Path(__file__).parents[2]
IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import tinygrad_mnist
assert tinygrad_mnist.__file__.startswith(sys.argv[1]), tinygrad_mnist.__file__
for module in pkgutil.walk_packages(tinygrad_mnist.__path__, "tinygrad_mnist."):
    if not module.name.endswith(".native"):  # the compiled kernels are a plain library, loaded by ctypes
        importlib.import_module(module.name)
        print(module.name)
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from a copy of the files it needs, and unpack it."""
    try:
        setuptools = int(metadata.version("setuptools").split(".")[0])
    except metadata.PackageNotFoundError:
        setuptools = 0
    if setuptools < 77:
        pytest.skip("setuptools 77 or newer is not installed: pip install -e '.[dev]'")
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "*.dll")
    for top in ("tinygrad_mnist", "models", "scripts", "tests"):
        shutil.copytree(ROOT / top, source / top, ignore=ignored)
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, source)
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-w", folder]
    command = [sys.executable, "-m", "pip", "wheel", source, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.startswith(f"tinygrad_mnist-{tg.__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_package_is_alone_on_top(unpacked: Path) -> None:
    tops = {path.name for path in unpacked.iterdir()}
    assert tops == {"tinygrad_mnist", f"tinygrad_mnist-{tg.__version__}.dist-info"}
    assert (unpacked / "tinygrad_mnist" / "py.typed").exists()
    assert all((unpacked / "tinygrad_mnist" / "debug" / "graph" / file).exists() for file in ("page.css", "page.js"))


def test_every_module_is_in_it_and_can_be_imported(unpacked: Path, tmp_path: Path) -> None:
    def modules(package: Path) -> set[str]:
        return {path.relative_to(package).as_posix() for path in package.rglob("*.py")}

    assert modules(unpacked / "tinygrad_mnist") == modules(ROOT / "tinygrad_mnist")
    command = [sys.executable, "-c", IMPORT_ALL, str(unpacked)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tinygrad_mnist.testing.strategies" in done.stdout.split()
