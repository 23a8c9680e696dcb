"""The pictures of `train_mnist.py`: they are of the run that they lie beside, also where it was complete before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from training import run_pictures
from training.run_pictures import training_words
from training.settings import Settings

from tinygrad_mnist.train.runs import read_metrics

Figure = pytest.importorskip("matplotlib.figure").Figure
SMALL = "--recipe fast --epochs 2 --limit 150 --batch-size 50 --validation 50 --shifts 1 --quiet".split()


def shown(figure: Any) -> list[str]:
    """Every title and text of a figure."""
    axes = figure.axes
    return [
        text.get_text() for text in [figure._suptitle, *(a.title for a in axes), *(t for a in axes for t in a.texts)]
    ]


def test_a_run_has_its_curves_and_its_mistakes(
    script: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures, classified = [], []
    infer = script.predicted_logits
    monkeypatch.setattr(Figure, "savefig", lambda figure, *how, **more: figures.append(figure))
    monkeypatch.setattr(
        script, "predicted_logits", lambda *arguments: classified.append(infer(*arguments)) or classified[-1]
    )
    out = tmp_path / "a run"
    assert script.main([*SMALL, "--data", str(folder), "--out", str(out)]) == 0
    curves, mistakes = figures
    assert (out / "curves.png").exists() and (out / "mistakes.png").exists() and len(classified) == 1
    (test,) = [row for row in read_metrics(out / "metrics.jsonl") if row["event"] == "test"]
    right = round(test["test_accuracy"] * test["images"])
    assert mistakes.axes[0].get_title().startswith(f"{right} of {test['images']} correct")
    assert sum(int(text.get_text()) for text in mistakes.axes[0].texts) == test["images"]
    what, how = curves._suptitle.get_text().split("\n")
    assert what.startswith("a run, ") and mistakes._suptitle.get_text() == f"{what}, test images\n{how}"
    assert how == "21 layers, 84,992 parameters; muon, learning rate 0.02 (one-cycle)"
    assert curves.axes[0].get_legend().get_title().get_text() == "in training: label smoothing 0.1"
    assert "validation, in inference" in {line.get_label() for line in curves.axes[0].lines}

    assert script.main(["--resume", str(out), "--quiet", "--no-plots"]) == 0
    assert len(figures) == 2 and len(classified) == 1, "nothing to do"
    assert script.main(["--resume", str(out), "--quiet"]) == 0
    assert [shown(figure) for figure in figures[2:]] == [shown(curves), shown(mistakes)]


def test_synthetic_digits_are_named_in_the_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    monkeypatch.setattr(run_pictures, "plot_curves", lambda rows, path, title, **how: titles.append(title))
    run = SimpleNamespace(folder=tmp_path / "a run", rows=[{"data": "synthetic"}])
    trainer = SimpleNamespace(weights={}, model=SimpleNamespace(layers=[]))
    run_pictures.draw_run(run, Settings(lr=0.01), trainer, SimpleNamespace(synthetic=True), None)
    assert titles[0].startswith("a run, synthetic digits\n")


def test_what_raises_the_loss_in_training_is_named() -> None:
    assert training_words(Settings()) == "in training: dropout 0.5, logit dropout 0.5"
    assert training_words(Settings(dropout=0, logit_dropout=0)) == ""
    found = training_words(Settings.from_recipe("best"))
    assert found == "in training: dropout 0.5, label smoothing 0.02, augment 1.2"
