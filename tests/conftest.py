"""Fixtures, Hypothesis profiles and workers for all tests.

HYPOTHESIS_PROFILE chooses the profile: dev (few examples, the default), ci (the same examples in every run), fails (the
same, but an example that fails is not made smaller), thorough (many examples).
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, settings

import tinygrad_mnist as tg

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_mnist.py"
LONG = (  # what the fast subset leaves out: the files that take most of the time
    "data/preparation/",
    "data/test_mnist",
    "engine/test_machine",
    "export/",
    "models/",
    "project/test_types",
    "project/test_wheel",
    "scripts/",
    "project/test_readme",
    "testing/test_planted",
    "testing/test_strategies",
    "train/test_continued_runs",
    "train/test_kept_weights",
    "train/test_runs",
    "train/test_trainer",
)

settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("dev", max_examples=20, deadline=None)
settings.register_profile("fails", settings.get_profile("ci"), phases=[Phase.explicit, Phase.generate])
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Choose the number of processes for ``-n auto``; 0 runs the tests in this process.

    Workers do not pay for single tests, and hide what tests print.
    """
    single = any("::" in argument for argument in config.args)
    if single or config.option.capture == "no":
        return 0
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that the fast subset leaves out: ``pytest -m "not slow and not long"``."""
    for item in items:
        if item.path.relative_to(Path(__file__).parent).as_posix().startswith(LONG):
            item.add_marker("long")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small data set as four IDX files."""
    path = tmp_path_factory.mktemp("digits")
    for name, n, seed in (("train", 600, 0), ("t10k", 200, 1)):
        images, labels = tg.data.synthetic_digits(n, rng=np.random.default_rng(seed))
        (path / f"{name}-images-idx3-ubyte").write_bytes(tg.data.encode_idx(images))
        (path / f"{name}-labels-idx1-ubyte").write_bytes(tg.data.encode_idx(labels))
    return path


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests away from the user's cache: what a folder of the real MNIST holds is stored there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYGRAD_MNIST_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    """Load the training script as a module; its changes to sys.path are undone."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    spec = importlib.util.spec_from_file_location("train_mnist", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Limit the memory of the process to 200 MB more than it has now.

    Larger allocations fail, also in libraries whose memory Python does not track.
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


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """Start a browser, for the tests of pages; skip them where there is none, unless it is required."""
    import browser

    if lacking := browser.missing():
        reason = f"no browser to test in: {', '.join(lacking)} not found (apt install chromium chromium-driver)"
        (pytest.fail if os.environ.get("TINYGRAD_MNIST_BROWSER") == "required" else pytest.skip)(reason)
    driver = browser.start()
    yield driver
    driver.quit()
