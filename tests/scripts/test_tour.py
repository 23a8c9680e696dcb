"""The tour runs from any folder, in 80 lines, and what it prints is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "tour.py"
NUMBER = r"(-?\d+(?:\.\d*)?)"


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(NUMBER, text)]


def test_the_tour(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert not list(tmp_path.iterdir())
    scalar, vector, right, wrong, linear, network, image, layers = done.stdout.splitlines()
    assert [line[:2] for line in (scalar, vector, right, linear, network, image, layers)] == [
        f"{n}." for n in range(1, 8)
    ]
    assert "is 15, and its slope is 8" in scalar
    slopes, bends = re.findall(r"\[(.*?)\]", vector)
    assert numbers(slopes) == [3 * n**2 for n in (1, 2, 3)] and numbers(bends) == [6 * n for n in (1, 2, 3)]
    assert right.endswith(": pass") and "is wrong" in wrong
    *_, first, second, bias = numbers(linear)
    assert max(abs(first - 2), abs(second + 1), abs(bias - 0.5)) < 0.01
    by_hand, with_layers, share = map(float, re.findall(r"(\d+)%", network))
    assert min(by_hand, with_layers) >= 90 and 40 < share < 60
    matter = int(re.search(r"(\d+) of 784", image)[1])
    assert 13 * 13 < matter < 784, "a maximum has two pixels at least, neighbours share some, and many have none"
    before, after, steps = (
        float(re.search(pattern, layers)[1]) for pattern in (r"loss (\S+)", r", (\S+) in", r"step (\d+)")
    )
    assert before > 2 and after < 1.7 and steps == 40
    assert int(re.search(r"(\d+)% of new", layers)[1]) >= 50, "a tenth by chance"


def test_it_is_short() -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 80
