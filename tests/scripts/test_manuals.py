"""The manuals of the scripts: their programs run, and the files and options that they name are there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import draw
import export
import predict
import pytest
import reproduce_paper
import train_shipped_weights
from training.opening import Session
from training.settings import Settings

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist.train.runs import read_metrics

SCRIPTS = Path(reproduce_paper.__file__).parent
MANUALS = [SCRIPTS / "README.md", *sorted(SCRIPTS.glob("*/README.md"))]


def test_the_programs_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "final0").mkdir()
    tg.checkpoint.save_weights("final0/weights.safetensors", tg.nn.parameters(DeepConvNet()))
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", MANUALS[0].read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert len(blocks) == 4 and names["digits"].shape == (100,) and len(names["losses"].losses) == 30
    steps = [row["step"] for row in read_metrics("my-run/metrics.jsonl") if row["event"] == "step"]
    assert steps == list(range(1, 51)) and capsys.readouterr().out.count("epoch ") == 3
    errors = [row["validation_largest error"] for row in names["trainer"].history]
    assert errors[-1] < 0.1 * errors[0] and (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("manual", MANUALS, ids=lambda path: path.parent.name)
def test_what_the_manuals_name_is_there(manual: Path) -> None:
    text = manual.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:[a-z_]+/)?[a-z_]+\.(?:py|toml))`|\]\(([^)#:]+)\)", text):
        assert any((manual.parent / part).exists() for part in name if part), name
    options = set(re.findall(r"--([a-z][a-z0-9-]+)", text)) - {"help", "gallery"}  # the latter of benchmark.py
    programs = (draw, export, predict, reproduce_paper, train_shipped_weights)
    classes = (Settings, Session, *(program.Options for program in programs))
    assert {option.replace("-", "_") for option in options} <= {f.name for cls in classes for f in fields(cls)}
