"""A run that is killed again and again until it is done, and what it is compared with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygrad_mnist.storage.checkpoint import CheckpointManager
from tinygrad_mnist.train.runs import Run

POSIX = os.name == "posix"
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "train_mnist.py"
IN_A_WRITE = """
import itertools, os, runpy, signal, sys, time
sys.path.insert(0, {root!r})
from tinygrad_mnist.storage import files
calls = itertools.count(1)
def reached(point):
    time.sleep({delay})
    if next(calls) == {count}:
        os.kill(os.getpid(), signal.SIGKILL)
files._reached = reached
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""  # between the steps of writes it waits, and in the end dies


def call(script: Any, *options: Any, at: int | None = None) -> Any:
    """Run the training script in this process, quietly; with `at` it is interrupted by Ctrl-C in that step."""
    record = Run.record

    def stop_there(run: Run, event: str, **values: Any) -> Any:
        if values.get("step") == at:
            os.kill(os.getpid(), signal.SIGINT)
        return record(run, event, **values)

    with pytest.MonkeyPatch.context() as patch:
        if at is not None:
            patch.setattr(Run, "record", stop_there)
        try:
            return script.main([*map(str, options), "--quiet", "--no-plots"])
        except SystemExit as stop:  # argparse's own way
            return stop.code


def start(*options: Any, write: tuple[int, float] | None = None) -> subprocess.Popen[str]:
    """Begin to train.

    With `write`, to die between the steps of a write, after so many of them, each delayed by so many seconds.
    """
    argv = [str(part) for part in (SCRIPT, "--quiet", "--no-plots", *options)]
    if write is not None:
        argv = ["-c", IN_A_WRITE.format(root=str(ROOT), count=write[0], delay=write[1], argv=argv)]
    return subprocess.Popen(
        [sys.executable, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_in_a_terminal if POSIX else None,
    )


def as_in_a_terminal() -> None:
    """Take the signals that a process in the background, or under nohup, is started to ignore."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end; return the exit code and everything that was printed."""
    try:
        shown, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, shown + errors


def result(out: Path) -> dict[str, Any]:
    """Everything that two runs must have in common, to the bit: all but configuration and times."""
    state = CheckpointManager(out).restore()
    assert state is not None
    return {
        "metrics": (out / "metrics.jsonl").read_bytes(),
        "weights": (out / "weights.safetensors").read_bytes(),
        "state": flat(state["trainer"]),
    }


def flat(state: Any, path: str = "") -> dict[str, Any]:
    """A nested state as one dict of bytes and numbers, which == can compare."""
    if isinstance(state, np.ndarray):
        return {path: (str(state.dtype), state.shape, state.tobytes())}
    if isinstance(state, dict | list | tuple):
        parts = state.items() if isinstance(state, dict) else enumerate(state)
        return {key: value for name, part in parts for key, value in flat(part, f"{path}/{name}").items()}
    return {path: state}


def lines(out: Path) -> int:
    """How many lines of metrics there are."""
    return (out / "metrics.jsonl").read_bytes().count(b"\n") if (out / "metrics.jsonl").exists() else 0


def killed_until_done(
    out: Path, options: Sequence[Any], kills: int, rng: np.random.Generator, pace: int = 5
) -> list[str]:
    """Train into `out`, killed `kills` times at random moments, then let it end.

    Half of the kills come from within, between the steps of a write; some of the others come before the first step.
    Between two kills the run goes on by at most about 2 * `pace` lines of metrics: it must have more lines than that.
    Returns what happened, in words.
    """
    story: list[str] = []
    steps = 0
    while len(story) < kills:
        session = ["--resume", out] if (out / "config.json").exists() else [*options, "--out", out]
        session += ["--threads", rng.choice([1, 2, 4]), "--checkpoint-every", rng.choice(["1", "2", "7", "0.05s"])]
        in_a_write = bool(rng.random() < 0.5)
        write = (int(rng.integers(1, 4 * pace)), float(rng.choice([0, 0.01]))) if in_a_write else None
        process = start(*session, write=write)
        # A run that writes rarely is killed from outside before it has come far.
        goal = steps + (2 * pace if in_a_write else int(rng.integers(1, pace + 1)))
        wait = 60 if in_a_write or rng.random() < 0.7 else rng.uniform(0, 0.8)
        until = time.monotonic() + wait
        while time.monotonic() < until and lines(out) < goal and process.poll() is None:
            time.sleep(0.002)
        time.sleep(0 if in_a_write else rng.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        code, output = ended(process)
        assert code == -signal.SIGKILL, f"{output} after {len(story)} of {kills} kills: {story}"
        steps = lines(out)
        parts = len(list(out.glob("*.part"))) if out.exists() else 0
        story.append(f"killed {'in a write' if parts else 'between writes'} at line {steps}")
        files = CheckpointManager(out).files() if out.exists() else []
        if len(files) > 1 and rng.random() < 0.15:
            os.truncate(files[0], int(rng.integers(files[0].stat().st_size)))
            story[-1] += ", newest checkpoint cut off"
    code, output = ended(start("--resume", out))
    assert code == 0, output
    return story
