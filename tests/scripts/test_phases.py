"""Where the seconds of a run go: phases add up, whatever interrupts what."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg

SCRIPTS = Path(__file__).parents[2] / "scripts"
REAL = os.environ.get("TINYGRAD_MNIST_DATA")
NAMES = ("a", "b", "set-up")


@pytest.fixture(scope="module")
def phases() -> Iterator[Any]:
    sys.path.insert(0, str(SCRIPTS))
    from training import phases

    yield phases
    sys.path.remove(str(SCRIPTS))


@given(st.recursive(st.just([]), lambda inside: st.lists(st.tuples(st.sampled_from(NAMES), inside), max_size=3)))
def test_phases_get_the_time_in_which_they_are_innermost(phases: Any, plan: list[Any]) -> None:
    now, expected = 0.0, dict.fromkeys(NAMES, 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases.time, "perf_counter", lambda: now)
        patch.setattr(phases, "process_age", lambda: 0.5)
        clock = phases.Phases()

        def wait(name: str) -> None:
            nonlocal now
            now += 1.0
            expected[name] += 1.0

        def play(current: str, parts: list[Any]) -> None:
            wait(current)
            for name, inside in parts:
                with suppress(KeyError), clock.part(name):
                    play(name, inside)
                    raise KeyError  # a phase ends, however its block does
                wait(current)

        play("set-up", plan)
        table = clock.table()
    assert {name: clock.seconds.get(name, 0.0) for name in NAMES} == expected
    assert sum(clock.seconds.values()) == now + 0.5
    assert table.splitlines()[-1].split() == ["total", f"{now + 0.5:.3f}", "s", "100.0%"]


def test_a_timed_function_is_what_it_was(phases: Any) -> None:
    clock = phases.Phases()
    power = clock.timed("power", pow)
    assert power(2, exp=5) == 32 and power.__name__ == "pow"
    assert "power" in clock.seconds
    with pytest.raises(ZeroDivisionError):
        power(0, -1)


def test_the_age_of_a_process_counts_what_came_before_its_first_import() -> None:
    code = "import time; time.sleep(0.2); from training import phases; print(phases.process_age())"
    begin = time.monotonic()
    found = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    age = float(found.stdout)
    assert 0 <= age <= time.monotonic() - begin + 0.02
    assert sys.platform != "linux" or age > 0.18


def test_where_the_system_does_not_say_when_it_began(phases: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError

    monkeypatch.setattr("builtins.open", refuse)
    before = time.perf_counter() - phases.IMPORTED
    assert before <= phases.process_age() <= time.perf_counter() - phases.IMPORTED


@pytest.mark.skipif(not REAL or REAL == "synthetic", reason="set TINYGRAD_MNIST_DATA to a folder with the real MNIST")
def test_the_fingerprint_of_mnist_is_that_of_its_arrays(phases: Any) -> None:
    from command_line import MNIST, fingerprint

    data = tg.data.find_mnist(REAL)
    assert fingerprint(data) == fingerprint(data._replace(source="by hand")) == MNIST
    other = data._replace(labels=np.roll(data.labels, 1), source="DATA OF THE SHAPE OF MNIST, not MNIST itself, from")
    assert fingerprint(other) != MNIST
