"""Hypothesis profiles, chosen by HYPOTHESIS_PROFILE.

Ci (the same examples every time), dev (few), thorough (many); a small data set.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import tinygrad_mnist as tg

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_mnist.py"

settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("dev", max_examples=20, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four IDX files of a small data set."""
    path = tmp_path_factory.mktemp("digits")
    for name, n, seed in (("train", 600, 0), ("t10k", 200, 1)):
        images, labels = tg.data.synthetic_digits(n, rng=np.random.default_rng(seed))
        (path / f"{name}-images-idx3-ubyte").write_bytes(tg.data.encode_idx(images))
        (path / f"{name}-labels-idx1-ubyte").write_bytes(tg.data.encode_idx(labels))
    return path


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    """The script as a module; its changes to sys.path are undone."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    spec = importlib.util.spec_from_file_location("train_mnist", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Let the process have 200 MB more than it has.

    What asks for more fails, also in libraries whose memory Python does not see.
    """
    resource = pytest.importorskip("resource", reason="this system cannot limit the memory of a process")
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        if Path("/proc/self/statm").exists()
        else 1 << 33
    )
    resource.setrlimit(resource.RLIMIT_AS, (size + 200_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
