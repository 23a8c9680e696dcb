"""Ten thousand steps take as much memory, and as many objects, files and threads, as one thousand."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist.train import fit

STEPS = 10_000
PROCESS = Path("/proc/self")


@pytest.mark.slow
@pytest.mark.skipif(not PROCESS.exists(), reason="this system does not list memory and files of a process")
def test_nothing_piles_up_in_ten_thousand_steps() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(8 * STEPS, 6)).astype(np.float32), rng.integers(0, 3, 8 * STEPS)
    model = tg.nn.Sequential(tg.nn.Dropout(0.1), tg.nn.Linear(6, 3, rng=rng))
    optimizer, before = tg.optim.Adam(tg.nn.parameters(model), lr=1e-3), threading.active_count()
    steps = fit(model, optimizer, images, labels, epochs=1, batch_size=8, shard_size=4, threads=2, rng=rng)

    def used() -> list[int]:
        gc.collect()
        pages = int((PROCESS / "statm").read_text().split()[1])
        return [pages, len(gc.get_objects()), len(os.listdir(PROCESS / "fd")), threading.active_count()]

    early, late = (used() for step in steps if step.step in (STEPS // 10, STEPS))
    assert late[0] - early[0] < 500, "more than 2 MB, or 200 bytes a step"
    assert late[1] - early[1] < 100 and late[2:] == early[2:] and threading.active_count() == before
