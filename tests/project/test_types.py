"""Two type checkers on a user's own file, in a folder of its own: right code passes, each mistake is reported."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

RIGHT = """\
from typing import Any, assert_type

import numpy as np

import tinygrad_mnist as tg

x = tg.Tensor([[1.0, 2.0]], requires_grad=True)
assert_type(x.T, tg.Tensor)
assert_type(x[0], tg.Tensor)
assert_type(np.ones(2) * x, tg.Tensor)
assert_type(np.ones(2) + x, tg.Tensor)
assert_type(2.0 * x - 1, tg.Tensor)
assert_type(-x / 3, tg.Tensor)
assert_type(x @ x.T, tg.Tensor)
assert_type(x > 0, tg.Tensor)
assert_type(x == 0, tg.Tensor)
assert_type(x != np.ones(2), tg.Tensor)
assert_type(~(x > 0) & (x < 3) | (x == 2) ^ True, tg.Tensor)
assert_type(+x // 2 % x, tg.Tensor)
assert_type(2 // x, tg.Tensor)
assert_type(divmod(x, 2), tuple[tg.Tensor, tg.Tensor])
assert_type(round(x, 1), tg.Tensor)
assert_type(x.all(), tg.Tensor)
assert_type(x.any(axis=[0, 1]), tg.Tensor)
assert_type(x.sum([0, 1]), tg.Tensor)
assert_type(["a", "b"][x.argmax()], str)
assert_type(tg.exp(x), tg.Tensor)
assert_type(tg.exp(1.0), tg.Tensor)
assert_type(x.exp(), tg.Tensor)
assert_type(tg.sum(x, axis=1, keepdims=True), tg.Tensor)
assert_type(x.sum(axis=0), tg.Tensor)
assert_type(x.relu().mean().log(), tg.Tensor)
assert_type(x.reshape(2, -1).transpose(), tg.Tensor)
assert_type(tg.softmax(x, axis=-1), tg.Tensor)
assert_type(tg.cross_entropy(x, np.array([0])), tg.Tensor)
images, weight = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
assert_type(tg.conv2d(images, weight, None, stride=1, padding=(1, 1)), tg.Tensor)
assert_type(tg.max_pool2d(images, 2), tg.Tensor)
assert_type(tg.grad(x.sum(), [x], create_graph=True), list[tg.Tensor])
x.sum().backward()
assert_type(x.grad, tg.Tensor | None)
x.data = x.data - 0.1 * tg.sum(x)
x.data -= 0.1
x.grad, x.requires_grad = None, False
with tg.no_grad():
    y = x + 1


@tg.primitive
def softplus(x: Any) -> Any:
    return np.logaddexp(0, x)


softplus.defvjp(lambda g, out, x: g * tg.sigmoid(x))
assert_type(softplus(x), tg.Tensor)
tg.testing.check_gradients(softplus, np.linspace(-3, 3, 7), order=2)

with tg.Profile() as profile, tg.detect_anomaly():
    assert_type(tg.to_dot(x.sum()), str)
tg.show_config()
assert_type(tg.__version__, str)
value, gradients = tg.parallel.value_and_grad(lambda x, rng: tg.sum(x), {"x": x}, np.ones((2, 2)))
tg.checkpoint.save_weights("x.npz", {"x": x})
rate: float = tg.schedules.cosine(0, 10)
rows = tg.runs.read_metrics("metrics.jsonl")
share: float = tg.training.accuracy(tg.nn.Linear(2, 3), np.ones((2, 2)), np.array([0, 1]))
layer = tg.nn.Linear(2, 3, rng=np.random.default_rng(0))
optimizer = tg.optim.Adam(tg.nn.parameters(layer), lr=0.005)
loss = layer(x).sum()
loss.backward()
optimizer.step()
"""

WRONG = """\
import tinygrad_mnist as tg

x = tg.Tensor([[1.0, 2.0]], requires_grad=True)
tg.exp()  # wrong
tg.exp(x, 3, foo=1)  # wrong
x.sum(axes=0)  # wrong
tg.sum(x, axes=1)  # wrong
tg.sofmax(x)  # wrong
x.sofmax()  # wrong
tg.conv2d(x)  # wrong
tg.nn.Linaer(2, 3)  # wrong
tg.Tensor()  # wrong
"""


def run(*command: str, folder: Path) -> str:
    return subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True).stdout


def mypy_errors(file: Path) -> dict[int, str]:
    out = run("mypy", "--strict", "--no-incremental", file.name, folder=file.parent)
    assert "error:" in out or "Success" in out, out
    return {int(line): text for line, text in re.findall(rf"^{file.name}:(\d+): error: (.*)$", out, re.MULTILINE)}


def basedpyright_errors(file: Path) -> dict[int, str]:
    out = run("basedpyright", "--outputjson", "--pythonpath", sys.executable, file.name, folder=file.parent)
    found = json.loads(out)["generalDiagnostics"]
    return {d["range"]["start"]["line"] + 1: d["message"] for d in found if d["severity"] == "error"}


CHECKERS = {"mypy": mypy_errors, "basedpyright": basedpyright_errors}


@pytest.fixture(params=CHECKERS)
def errors(request: pytest.FixtureRequest, tmp_path: Path):
    """Return a function that checks a program and returns the errors by line."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed: pip install -e '.[dev]'")
    file = tmp_path / "program.py"

    def check(program: str) -> dict[int, str]:
        file.write_text(program, encoding="utf-8")
        return CHECKERS[request.param](file)

    return check


def test_right_code_is_accepted(errors) -> None:
    assert errors(RIGHT) == {}


def test_every_mistake_is_reported(errors) -> None:
    expected = {number for number, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# wrong")}
    assert set(errors(WRONG)) == expected
