"""Runs that are killed, stopped, starved of disk or resumed with damaged files.

They go on to the bit, or say what is wrong.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from damage import damaged, one_folder, peak_below, thousands
from hypothesis import example, given
from survival import SCRIPT, ended, killed_until_done, result, start
from training import opening

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist.storage import files
from tinygrad_mnist.storage.checkpoint import (
    CheckpointError,
    CheckpointManager,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from tinygrad_mnist.train import runs
from tinygrad_mnist.train.runs import Run, code_version, read_metrics

SMALL = [
    "--epochs",
    "3",
    "--batch-size",
    "50",
    "--seed",
    "5",
    "--validation",
    "100",
    "--depth",
    "4",
    "--optimizer",
    "adagrad",
]
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither these signals nor these limits")


@pytest.fixture(scope="module")
def options(folder: Path) -> list[Any]:
    return ["--data", folder, *SMALL]


@pytest.fixture(scope="module")
def whole(options: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    code, output = ended(start(*options, "--out", out))
    assert code == 0, output
    return out


def wait_for_steps(out: Path, count: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_bytes().count(b'"step"') >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"no {count} steps after five minutes")


# Killed and stopped ---------------------------------------------------------------------------------------------------
@posix
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    whole: Path, options: list[Any], tmp_path: Path
) -> None:
    story = killed_until_done(tmp_path / "run", [*options], kills=4, rng=np.random.default_rng(2))
    assert result(tmp_path / "run") == result(whole), story
    assert not list((tmp_path / "run").glob("*.part"))


@posix
@pytest.mark.slow
def test_sixty_kills(options: list[Any], tmp_path: Path) -> None:
    options = [*options, "--epochs", "60", "--schedule", "cosine"]
    code, output = ended(start(*options, "--out", tmp_path / "whole"))
    assert code == 0, output
    story = killed_until_done(tmp_path / "run", options, kills=60, rng=np.random.default_rng())
    print("\n".join(story))
    assert result(tmp_path / "run") == result(tmp_path / "whole"), story
    assert sum("in a write" in line for line in story) >= 5, "kills must also fall into writes"


@posix
@pytest.mark.parametrize(
    "point", [1, 4, 9, 16, *(pytest.param(point, marks=pytest.mark.slow) for point in (3, 6, 12, 14))]
)
def test_killed_in_the_first_writes(options: list[Any], tmp_path: Path, point: int) -> None:
    """config.json, metrics.jsonl, times.jsonl, checkpoint.

    Four steps each. Before the first is there, the command must begin again.
    """
    out = tmp_path / "run"
    new = [*options, "--epochs", "1", "--limit", "150", "--validation", "50", "--out", out]
    code, output = ended(start(*new, write=(point, 0)))
    assert code == -signal.SIGKILL, output
    code, output = ended(start(*(["--resume", out] if (out / "config.json").exists() else new)))
    assert code == 0 and ("no checkpoint yet" in output) == (4 <= point < 16), output
    assert len(read_metrics(out / "metrics.jsonl")) == 2 + 1 + 1


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_finishes_the_step_saves_and_tells(
    whole: Path, options: list[Any], tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    process = start(*options, "--out", out, "--checkpoint-every", "1000")
    wait_for_steps(out, 3)
    process.send_signal(number)
    code, output = ended(process)
    assert code == 128 + number, output
    assert (
        "Traceback" not in output and f"stopped by {number.name} after step" in output and f"--resume {out}" in output
    )
    steps = [row["step"] for row in read_metrics(out / "metrics.jsonl") if row["event"] == "step"]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) < 30
    last, first = (load_checkpoint(file)["trainer"]["step"] for file in CheckpointManager(out).files())
    assert (last, first) == (len(steps), 0)
    tg.nn.load_parameters(DeepConvNet(depth=4), load_weights(out / "weights.safetensors", DeepConvNet(depth=4)))
    code, output = ended(start("--resume", out))
    assert code == 0 and result(out) == result(whole), output


def test_1_2_and_4_threads_give_the_same_files(whole: Path, options: list[Any], tmp_path: Path) -> None:
    for threads in (1, 2, 4):
        code, output = ended(start(*options, "--threads", threads, "--out", tmp_path / str(threads)))
        assert code == 0 and result(tmp_path / str(threads)) == result(whole), output


# Damaged folders ------------------------------------------------------------------------------------------------------
def stopped(script: Any, *options: Any, at: int) -> int:
    """Train until a step, where SIGTERM comes, or (0) before the first one; returns the exit code."""
    record, trainer = Run.record, opening.make_trainer

    def stop_there(run: Run, event: str, **values: Any) -> Any:
        if values.get("step") == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return record(run, event, **values)

    def stop_at_once(*arguments: Any) -> Any:
        made = trainer(*arguments)
        measure = made.measure
        made.measure = lambda: at or os.kill(os.getpid(), signal.SIGTERM) or measure()
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "record", stop_there)
        if not at:
            patch.setattr(opening, "make_trainer", stop_at_once)
        return script.main([*map(str, options), "--quiet", "--no-plots"])


@posix
@pytest.mark.parametrize(
    "more, at",
    [
        (["--paper-protocol"], 0),
        (["--paper-protocol"], 12),
        (["--optimizer", "sgd", "--schedule", "step", "--lr", "0.02"], 20),
        (["--optimizer", "adam", "--validation", "300", "--patience", "1", "--epochs", "6"], 12),
        (["--batch-size", "10000", "--shard-size", "37", "--profile", "1"], 3),
        (["--batch-size", "499", "--init", "xavier", "--schedule", "cosine"], 4),
        (["--augment"], 9),
        (["--recipe", "best", "--epochs", "4", "--batch-size", "50"], 15),
    ],
    ids=str,
)
def test_every_kind_of_run_goes_on_to_the_bit(
    script: Any, folder: Path, tmp_path: Path, more: list[str], at: int
) -> None:
    options = ["--data", folder, "--epochs", "4", "--batch-size", "50", "--limit", "500", "--depth", "4", *more]
    assert script.main([*map(str, options), "--out", str(tmp_path / "whole"), "--quiet", "--no-plots"]) == 0
    assert stopped(script, *options, "--out", tmp_path / "run", at=at) == 128 + signal.SIGTERM
    steps = [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["event"] == "step"]
    assert steps == list(range(1, at + 1))
    assert resume(script, tmp_path / "run", "--threads", "1") == 0
    assert result(tmp_path / "run") == result(tmp_path / "whole")


@pytest.fixture
def half(script: Any, options: list[Any], tmp_path: Path) -> Path:
    """A run that was stopped after 12 steps, with checkpoints of steps 9 and 12."""
    out = tmp_path / "half"
    assert stopped(script, *options, "--out", out, "--checkpoint-every", "3", at=12) == 128 + signal.SIGTERM
    assert [file.name[-14:-12] for file in CheckpointManager(out).files()] == ["12", "09"]
    return out


def resume(script: Any, out: Path, *options: str) -> int:
    try:
        return script.main(["--resume", str(out), "--quiet", "--no-plots", *options])
    except SystemExit as stop:  # argparse's own way
        return stop.code


@posix
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    script: Any, half: Path, whole: Path, capsys: Any, damage: str
) -> None:
    newest = CheckpointManager(half).files()[0]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 4
    newest.write_bytes({"cut": data[:-100], "flipped": data, "empty": b""}[damage])
    assert resume(script, half) == 0
    output = capsys.readouterr().err
    assert (
        f"{newest} is damaged" in output and "going on from the one before, checkpoint-00000009.safetensors" in output
    )
    assert result(half) == result(whole)


@posix
def test_if_both_are_damaged_that_is_said_and_nothing_touched(script: Any, half: Path, capsys: Any) -> None:
    for file in CheckpointManager(half).files():
        file.write_bytes(b"x")
    before = {file.name: file.read_bytes() for file in half.iterdir()}
    assert resume(script, half) == 2
    error = capsys.readouterr().err
    assert "no checkpoint in" in error and "begin the run again" in error and error.count("\n") == 1
    assert {file.name: file.read_bytes() for file in half.iterdir()} == before


@posix
def test_metrics_that_were_written_after_the_checkpoint_are_neither_doubled_nor_lost(
    script: Any, half: Path, whole: Path
) -> None:
    with open(half / "metrics.jsonl", "ab") as file:
        file.write(b'{"event": "step", "step": 13, "loss": 1.5}\n{"event": "st')
    assert resume(script, half) == 0
    assert result(half) == result(whole)
    for name in ("metrics.jsonl", "weights.safetensors"):
        (half / name).write_text("forged")
    assert resume(script, half) == 0 and result(half) == result(whole), "a run that is complete writes everything again"


@posix
@pytest.mark.parametrize(
    "other, words",
    [
        (["--lr", "0.1"], "--lr cannot be changed on the way (the run has 0.01)"),
        (["--batch-size", "60"], "--batch-size cannot be changed"),
        (["--paper-protocol"], "--paper-protocol cannot be changed"),
        (["--out", "elsewhere"], "leave out --out"),
        (["--data", "synthetic"], "not the data that the run was begun with"),
        (["--data", "none"], "is not a folder"),
    ],
)
def test_what_would_change_the_run_is_refused(
    script: Any, half: Path, monkeypatch: Any, capsys: Any, other: list[str], words: str
) -> None:
    few = [*tg.data.synthetic_digits(700), *tg.data.synthetic_digits(20)]
    if "synthetic" in other:
        monkeypatch.setattr(
            tg.data, "find_mnist", lambda path, **how: tg.data.Dataset(*few, source="SYNTHETIC (why)", synthetic=True)
        )
    before = {file.name: file.read_bytes() for file in half.iterdir()}
    capsys.readouterr()
    assert resume(script, half, *other) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert {file.name: file.read_bytes() for file in half.iterdir()} == before


@posix
def test_the_runs_own_options_may_be_repeated(script: Any, half: Path, whole: Path) -> None:
    assert resume(script, half, "--lr", "0.01", "--epochs", "3", "--threads", "1") == 0
    assert result(half) == result(whole)


@posix
def test_another_version_is_said_aloud(script: Any, half: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    version = opening.begun_with()["code"]
    monkeypatch.setattr(opening, "code_version", lambda *packages: "abc")
    assert resume(script, half) == 0
    assert f"code {version} -> abc" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(script: Any, tmp_path: Path, capsys: Any) -> None:
    assert resume(script, tmp_path / "none") == 2 and resume(script, tmp_path) == 2
    assert capsys.readouterr().err.count("is no run folder") == 2 and not list(tmp_path.iterdir())
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert resume(script, tmp_path) == 2
    assert "config.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "config",
    [{}, {"epochs": -1}, {"lr": "nan"}, {"depth": 3}, {"data": ["x"]}, {"begun with": 3}, {"validation": 10**9}],
    ids=str,
)
def test_a_strange_configuration_ends_in_one_line(
    script: Any, folder: Path, tmp_path: Path, capsys: Any, config: dict[str, Any]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"data": str(folder), **config}))
    assert resume(script, tmp_path) == 2
    assert "Traceback" not in (error := capsys.readouterr().err) and len(error.splitlines()) <= 3


@pytest.mark.parametrize("state", [{}, {"run": 1}, {"run": {"metrics": 3}}, {"trainer": {"step": 1}}])
def test_a_checkpoint_of_something_else_ends_in_one_line(
    script: Any, tmp_path: Path, capsys: Any, state: dict[str, Any]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_checkpoint(tmp_path / "checkpoint-00000001.safetensors", state)
    assert resume(script, tmp_path) == 2
    error = capsys.readouterr().err
    assert "is not one of a run" in error and error.count("\n") == 1


# One process at a time ------------------------------------------------------------------------------------------------
@posix
def test_two_processes_in_one_folder_are_refused(script: Any, options: list[Any], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    process = start(*options, "--epochs", "1000", "--out", out)
    try:
        wait_for_steps(out, 1)
        assert resume(script, out) == 2
        assert f"another process is training in {out}" in capsys.readouterr().err
        assert script.main([*map(str, options), "--out", str(out), "--quiet", "--no-plots"]) == 2
        assert f"{out} holds a run already; resume that run, or choose another folder" in capsys.readouterr().err
    finally:
        process.send_signal(signal.SIGKILL)
        ended(process)
    Run.resume(out, print).close()  # a kill lets go of the folder


@posix
def test_of_two_that_begin_at_once_one_trains(options: list[Any], tmp_path: Path) -> None:
    processes = [start(*options, "--epochs", "1", "--out", tmp_path / "run") for _ in range(3)]
    codes, output = zip(*map(ended, processes), strict=True)
    assert sorted(codes) == [0, 2, 2], output
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 10 + 1 + 1


# Full disks -----------------------------------------------------------------------------------------------------------
@posix
@pytest.mark.parametrize("limit, full", [(500_000, "checkpoint"), (100, "config.json")])
def test_a_full_disk_is_named_and_the_run_goes_on_later(
    whole: Path, options: list[Any], tmp_path: Path, limit: int, full: str
) -> None:
    """No file may grow beyond a limit: to a program this looks like a disk that fills in the middle of a write."""
    import resource

    out = tmp_path / "run"
    command = [sys.executable, SCRIPT, *options, "--quiet", "--no-plots", "--out", out, "--checkpoint-every", "4"]
    done = subprocess.run(
        map(str, command),
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    error = done.stderr
    assert full in error and error.count("\n") == 1 and ("File too large" in error or "bytes were written" in error)
    if full == "config.json":
        assert done.returncode == 2 and not out.exists()
    else:
        assert done.returncode == 1 and not list(out.glob("*.part"))
        assert [file.name[-14:-12] for file in CheckpointManager(out).files()] == ["08", "04"], (
            "that of step 12 has the best weights, too"
        )
    again = [*options, "--out", out] if full == "config.json" else ["--resume", out]
    code, output = ended(start(*again))
    assert code == 0 and result(out) == result(whole), output


@posix
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    script: Any, half: Path, whole: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()

    def full(point: str) -> None:
        if point == "written" and next(calls) > 1:  # after metrics and times, which a run begins with
            raise OSError(28, "No space left on device")

    before = {file.name: file.read_bytes() for file in CheckpointManager(half).files()}
    with monkeypatch.context() as patch:
        patch.setattr(files, "_reached", full)
        assert resume(script, half, "--checkpoint-every", "1") == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error and "free space" in error and f"--resume {half}" in error
    assert {file.name: file.read_bytes() for file in CheckpointManager(half).files()} == before
    assert resume(script, half) == 0 and result(half) == result(whole)


@posix
def test_metrics_that_cannot_be_written_whole_stop_the_run(
    script: Any, options: list[Any], whole: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    class Nearly(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(data if b'"step": 7,' not in data else data[:10])

    with monkeypatch.context() as patch:
        patch.setattr(runs, "open", lambda path, *how, **more: Nearly(path, "ab"), raising=False)
        assert (
            script.main([*map(str, options), "--out", str(out), "--quiet", "--no-plots", "--checkpoint-every", "2"])
            == 1
        )
    error = capsys.readouterr().err
    assert (
        "only 10 of " in error
        and f" bytes were written: '{out / 'metrics.jsonl'}'" in error
        and "checkpoint-00000006" in error
    )
    assert resume(script, out) == 0 and result(out) == result(whole)


@pytest.mark.parametrize("out", ["file/run", "/proc/run"])
def test_an_out_that_cannot_be_made_ends_before_training(
    script: Any, options: list[Any], tmp_path: Path, capsys: Any, out: str
) -> None:
    (tmp_path / "file").touch()
    if out.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("this system has no folder that nobody can write to")
    assert script.main([*map(str, options), "--quiet", "--no-plots", "--out", str(tmp_path / out)]) == 2
    error = capsys.readouterr().err
    assert "cannot be made" in error and "choose another" in error and error.count("\n") == 1


# Metrics --------------------------------------------------------------------------------------------------------------
LINES = (
    b'{"event": "step", "step": 1, "loss": 2.25, "data": "MNIST"}\n{"event": "epoch", "epoch": 1, "mean_loss": '
    b"2.5e-1}\n"
)


def read_or_refused(path: Path, data: bytes) -> None:
    """Metrics of these bytes are finite, or the error says in which line they are not."""
    path.write_bytes(data)
    try:
        with peak_below(1_000_000 + 60 * len(data)):
            found = read_metrics(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}, line ")
    else:
        assert len(found) == len(data.splitlines())
        assert all(isinstance(row["event"], str) for row in found)
        json.dumps(found, allow_nan=False)


@one_folder
@given(data=damaged(LINES))
@example(data=b"[" * 200_000 + b"\n")
@example(data=b'{"event": "x", "y": ' + b"9" * 5000 + b"}\n")
@example(data=b'{"event": "x", "y": 1e999}\n')
@example(data=b'{"event": "x", "y": NaN}\n')
@example(data=LINES[:-1])
@example(data=b"\xff\xfe\n")
def test_metrics_are_refused_by_line_or_made_of_finite_numbers(tmp_path: Path, data: bytes) -> None:
    read_or_refused(tmp_path / "metrics.jsonl", data)


@pytest.mark.slow
@pytest.mark.usefixtures("little_memory")
@thousands
@given(data=damaged(LINES))
def test_thousands_of_damaged_metrics(tmp_path: Path, data: bytes) -> None:
    read_or_refused(tmp_path / "metrics.jsonl", data)


def test_a_huge_metrics_file_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "m", "wb") as file:
        file.truncate(1 << 34)  # takes no room on the disk
    with peak_below(100_000), pytest.raises(ValueError, match="more than the"):
        read_metrics(tmp_path / "m")


# The class ------------------------------------------------------------------------------------------------------------
def test_a_run_as_a_library(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"lr": 0.1})
    run.record("step", loss=0.1 + 0.2)
    run.record_time(1.23456, epoch=1)
    run.save(1, 1.5, anything={"x": np.arange(3)})
    run.record("step", loss=0.5)
    with pytest.raises(BlockingIOError, match="another process"):
        Run.resume(tmp_path / "run", print)
    run.close()
    again = Run.resume(tmp_path / "run", print)
    with pytest.raises(RuntimeError, match=r"begin\(\)"):
        again.record("test")
    assert again.elapsed() == 1.5
    again.begin()
    assert again.elapsed() > 1.5, "the clock goes on"
    assert (again.config, again.rows, again.seconds) == ({"lr": 0.1}, [{"event": "step", "loss": 0.1 + 0.2}], 1.5)
    assert again.state is not None and again.state["anything"]["x"].tolist() == [0, 1, 2]
    again.record("test", accuracy=1.0)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == again.rows and len(again.rows) == 2
    again.close()
    with pytest.raises(ValueError, match="JSON compliant"):
        again.record("step", loss=float("nan"))


def test_the_version_of_the_code_depends_on_every_file_and_on_nothing_else(tmp_path: Path) -> None:
    def version(text: str, module: bool) -> str:
        for name, content in (("__init__.py", ""), ("part.py", text), ("other.txt", str(time.time()))):
            (tmp_path / name).write_text(content)
        made = ModuleType("made")
        made.__file__ = str(tmp_path / ("part.py" if module else "__init__.py"))
        if not module:
            made.__path__ = [str(tmp_path)]
        return code_version(made)

    for module in (True, False):
        assert version("a", module) == version("a", module) != version("b", module)
    alone = version("a", True)
    (tmp_path / "third.py").write_text("x")
    assert version("a", True) == alone


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(ImportError, match=r"tinygrad_mnist\[train\]"):
        Run.create(tmp_path / "run", {})


def test_checkpoint_errors_are_value_errors() -> None:
    assert issubclass(CheckpointError, ValueError)
