"""Cores, quotas of containers, threads of BLAS."""

from __future__ import annotations

import doctest
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl

import tinygrad_mnist as tg
from tinygrad_mnist.kernels import machine


def test_usable_cores_are_counted() -> None:
    assert machine.usable_cores() >= 1


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/jobs/mine\n", {"jobs/cpu.max": "200000 100000", "jobs/mine/cpu.max": "max 100000"}, 2),
        ("0::/jobs/mine\n", {"jobs/cpu.max": "200000 100000", "jobs/mine/cpu.max": "50000 100000"}, 0.5),
        (
            "4:memory:/x\n3:cpu,cpuacct:/job\n",
            {"cpu/job/cpu.cfs_quota_us": "300000", "cpu/job/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("3:cpuacct,cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("3:cpuset:/job\n", {"cpu/job/cpu.cfs_quota_us": "300000", "cpu/job/cpu.cfs_period_us": "100000"}, 8),
        ("0::/\n", {"cpu.max": "nonsense"}, 8),
        ("nonsense\n", {}, 8),
        (None, {}, 8),
    ],
)
def test_the_quota_of_a_container_is_read(
    tmp_path: Path, membership: str | None, files: dict[str, str], expected: float
) -> None:
    if membership is not None:
        (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text + "\n")
    assert machine.cpu_quota(8, tmp_path / "groups", tmp_path / "membership") == expected


@pytest.mark.parametrize(("quota", "cores"), [(0.3, 1), (1.0, 1), (1.2, 2), (99.0, 4)])
def test_cores_are_limited_by_affinity_and_quota(monkeypatch: pytest.MonkeyPatch, quota: float, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda default: quota)
    assert machine.usable_cores() == cores


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


def test_blas_has_one_thread_until_the_last_context_exits() -> None:
    with threadpoolctl.threadpool_limits(2, "blas"):
        first, second = machine.one_blas_thread(), machine.one_blas_thread()
        first.__enter__(), second.__enter__()
        assert set(blas_threads()) <= {1}
        first.__exit__(None, None, None)  # contexts overlap, they are not nested
        assert set(blas_threads()) <= {1}
        second.__exit__(None, None, None)
        assert set(blas_threads()) <= {2}
        with pytest.raises(KeyError), machine.one_blas_thread():
            raise KeyError
        assert set(blas_threads()) <= {2}


def test_any_thread_can_set_and_undo_the_limit_of_blas() -> None:
    def here(function: Any, *arguments: Any) -> None:
        function(*arguments)

    with threadpoolctl.threadpool_limits(2, "blas"), ThreadPoolExecutor(1) as pool:
        for enter in (here, lambda *call: pool.submit(*call).result()):
            for leave in (here, lambda *call: pool.submit(*call).result()):
                held = machine.one_blas_thread()
                enter(held.__enter__)
                assert set(blas_threads()) <= {1}
                leave(held.__exit__, None, None, None)
                assert set(blas_threads()) <= {2}


def test_without_threadpoolctl_shards_run_and_a_warning_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    for library in ("OPENBLAS", "MKL", "OMP", "VECLIB_MAXIMUM"):
        monkeypatch.delenv(f"{library}_NUM_THREADS", raising=False)
    w = tg.Tensor(2.0, requires_grad=True)

    def loss(threads: int) -> float:
        def mean(x: Any, rng: Any) -> tg.Tensor:
            return (x * w).mean()

        return tg.parallel.value_and_grad(mean, {"w": w}, np.arange(4.0), shard_size=1, threads=threads)[0]

    machine.blas_controller.cache_clear(), machine.warn_of_blas_threads.cache_clear()
    try:
        assert loss(threads=1) == 3  # one thread does not compete
        with pytest.warns(RuntimeWarning, match=r"tinygrad_mnist\[train\].*OPENBLAS_NUM_THREADS=1"):
            assert loss(threads=2) == 3
        assert loss(threads=2) == 3  # warns once
        machine.warn_of_blas_threads.cache_clear()
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert loss(threads=2) == 3  # no warning
    finally:
        machine.blas_controller.cache_clear()


def test_the_examples_run() -> None:
    assert doctest.testmod(machine).failed == 0
