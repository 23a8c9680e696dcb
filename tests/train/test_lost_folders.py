"""What a run lives on goes away while it trains: its folder, its files, memory, threads, those who read its output."""

from __future__ import annotations

import errno
import os
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from survival import ROOT, SCRIPT, as_in_a_terminal, result
from training import opening

import tinygrad_mnist as tg
from tinygrad_mnist.train.callbacks import ProgressBar
from tinygrad_mnist.train.runs import Run
from tinygrad_mnist.train.trainer import Trainer

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps open files, and has other limits and signals")
SMALL = ["--limit", 350, "--batch-size", 80, "--validation", 30, "--depth", 4, "--seed", 5, "--epochs", 2]  # 8 steps
AT = 5  # the step in which it happens; the last checkpoint is that of step 4
Train = Callable[..., int]


@pytest.fixture
def train(script: Any, folder: Path) -> Train:
    """Call the script; `event` happens in step `AT`."""

    def call(*options: Any, event: Callable[[], object] = lambda: None) -> int:
        record = Run.record

        def recorded(run: Run, kind: str, **values: Any) -> Any:
            row = record(run, kind, **values)
            if (kind, values.get("step")) == ("step", AT):
                event()
            return row

        own = [] if "--resume" in options else ["--data", folder, *SMALL]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Run, "record", recorded)
            return script.main([*map(str, [*own, *options]), "--quiet", "--no-plots", "--checkpoint-every", "2"])

    return call


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", sys.path[:])
        main = runpy.run_path(str(SCRIPT))["main"]
        assert main([*map(str, ["--data", folder, *SMALL, "--out", out]), "--quiet", "--no-plots"]) == 0
    return out


# The folder -----------------------------------------------------------------------------------------------------------
def move(out: Path) -> None:
    out.rename(out.with_name("moved"))


def replace(out: Path) -> None:
    move(out)
    out.touch()


@posix
@pytest.mark.parametrize("event", [shutil.rmtree, move, replace], ids=["deleted", "moved", "replaced"])
def test_a_folder_that_is_gone_is_said_in_one_line(
    train: Train, whole: Path, tmp_path: Path, capsys: Any, event: Callable[[Path], object]
) -> None:
    out = tmp_path / "run"
    assert train("--out", out, event=lambda: event(out)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{out} is no folder any more" in error and f"--resume {out}" in error, error
    assert train("--resume", out) == 2
    assert capsys.readouterr().err.count("\n") == 1, "one line once more"
    if event is move:
        out.with_name("moved").rename(out)
        assert train("--resume", out) == 0 and result(out) == result(whole)


@posix
@pytest.mark.parametrize("end", [b'{"event": "ste', None], ids=["cut", "all deleted"])
def test_metrics_that_are_lost_are_written_again(
    train: Train, whole: Path, tmp_path: Path, capsys: Any, end: bytes | None
) -> None:
    out = tmp_path / "run"

    def lose() -> None:
        if end is None:
            shutil.rmtree(out)
            out.mkdir()
        else:
            for name in ("metrics.jsonl", "times.jsonl", "config.json"):
                (out / name).write_bytes(end)

    assert train("--out", out, event=lose) == 0
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "deleted or changed config.json, metrics.jsonl, times.jsonl" in error
    assert result(out) == result(whole)
    assert (out / "times.jsonl").read_bytes().count(b"\n") == 3  # two epochs, and the end
    Run.resume(out, print).close()
    assert not capsys.readouterr().out


def test_a_library_is_told_of_lost_files_and_may_ignore_them(tmp_path: Path) -> None:
    told: list[str] = []
    run = Run.create(tmp_path / "run", {}, told.append)
    run.record("step", loss=1.0)
    run.save(1, 0.0)
    assert not told
    with open(tmp_path / "run" / "metrics.jsonl", "ab") as file:
        file.write(b"more")
    run.save(2, 0.0)
    run.record("step", loss=2.0)
    run.save(3, 0.0)
    run.close()
    assert len(told) == 1 and "metrics.jsonl" in told[0]
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes().count(b"\n") == 2


# What a process may have ----------------------------------------------------------------------------------------------
def fail(error: Exception) -> Callable[..., Any]:
    def failing(*_: Any, **__: Any) -> Any:
        raise error

    return failing


@posix
@pytest.mark.parametrize("lack", ["descriptors", "memory", "threads"])
def test_too_little_of_something_is_said_in_one_line(
    train: Train, whole: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    import resource

    out, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_NOFILE)
    words = {"descriptors": "Too many open files", "memory": "Unable to allocate", "threads": "new thread"}

    def happen() -> None:
        if lack == "descriptors":
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        elif lack == "memory":
            monkeypatch.setattr(tg.optim.AdaGrad, "step", lambda *_: np.empty(1 << 58, np.uint8))
        else:
            monkeypatch.setattr(threading.Thread, "start", fail(RuntimeError("can't start new thread")))

    try:
        assert train("--out", out, "--threads", 2, event=happen) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        monkeypatch.undo()
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words[lack] in error, error
    assert f"{out / 'checkpoint-00000004.safetensors'}" in error and f"--resume {out}" in error
    assert train("--resume", out) == 0 and result(out) == result(whole)


def test_memory_that_runs_out_before_training_is_said_in_one_line(
    train: Train, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "make_trainer", fail(MemoryError()))
    assert train("--out", tmp_path / "run") == 1 and not (tmp_path / "run").exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "out of memory" in error


def test_mistakes_of_the_program_keep_their_traceback(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def happen() -> None:
        monkeypatch.setattr(tg.optim.AdaGrad, "step", fail(RuntimeError("a mistake")))

    with pytest.raises(RuntimeError, match="a mistake"):
        train("--out", tmp_path / "run", event=happen)


# Interrupted before training ------------------------------------------------------------------------------------------
AT_IMPORT = """
import itertools, os, runpy, signal, sys
calls = itertools.count()
class Interrupt:
    def find_spec(name, *_):
        if {when}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt)
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""  # Ctrl-C where a module is about to be imported


def interrupted(program: Path, when: str, *options: Any) -> subprocess.Popen[str]:
    code = AT_IMPORT.format(when=when, argv=[str(part) for part in (program, *options)])
    how: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "preexec_fn": as_in_a_terminal}
    return subprocess.Popen([sys.executable, "-c", code], text=True, **how)


@posix
def test_an_interrupt_during_the_imports_is_one_line() -> None:
    paper = ROOT / "scripts" / "reproduce_paper.py"
    cases = [(SCRIPT, "dataclasses"), (SCRIPT, "datetime"), (SCRIPT, "training.settings"), (paper, "numpy")]
    for (program, _), process in [(case, interrupted(case[0], f"name == {case[1]!r}")) for case in cases]:
        _, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (130, f"{program.name}: interrupted\n")


@posix
def test_an_interrupt_before_the_first_step_leaves_no_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = interrupted(SCRIPT, "name == 'filelock'", "--data", folder, *SMALL, "--out", out)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "train_mnist.py: interrupted\n") and not out.exists()


@posix
@pytest.mark.slow
def test_an_interrupt_at_any_import(folder: Path, tmp_path: Path) -> None:
    """But for the first ones, before it is handled."""
    codes = []
    for number in range(20, 1000, 13):
        out = tmp_path / str(number)
        process = interrupted(SCRIPT, f"next(calls) == {number}", "--quiet", "--data", folder, *SMALL, "--out", out)
        _, error = process.communicate(timeout=60)
        codes.append(process.returncode)
        if not codes[-1]:
            break  # there are not so many
        assert codes[-1] == 130 and error.count("\n") == 1 and error.startswith("train_mnist.py: "), (number, error)
    assert codes[-1] == 0 and len(codes) > 20, codes


# Output ---------------------------------------------------------------------------------------------------------------
class Broken:
    """A stream that takes some writes, and then no more."""

    encoding = "utf-8"

    def __init__(self, good: int) -> None:
        self.good = good

    def write(self, text: str) -> int:
        self.good -= 1
        if self.good < 0:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        return len(text)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("good", [0, 1, 2])
def test_a_progress_bar_that_nobody_reads_ends_no_training(monkeypatch: pytest.MonkeyPatch, good: int) -> None:
    from tqdm import tqdm

    monkeypatch.setattr(sys, "stderr", Broken(good))
    monkeypatch.setattr(sys, "stdout", lines := Broken(100))
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 3, 60)
    model = tg.nn.Linear(4, 3, rng=rng)
    trainer = Trainer(model, tg.optim.Adam(tg.nn.parameters(model)), x, labels, epochs=3, batch_size=20, rng=rng)
    tg.training.run(trainer, [ProgressBar(), tg.training.EpochLines(tqdm.write)])
    assert trainer.step == 9 and sys.stderr.good < 0 and lines.good < 100
