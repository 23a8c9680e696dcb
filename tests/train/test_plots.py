"""Curves of histories and run folders: what is drawn, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist.train import plot_curves

Figure = pytest.importorskip("matplotlib.figure").Figure


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Figures that are saved, which are not drawn."""
    figures: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *how, **more: figures.append(figure))
    return figures


def lines(axis: Any) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axis.lines}


def history(**scores: list[float]) -> list[dict[str, float]]:
    rows = zip(*scores.values(), strict=True)
    return [{"epoch": e, "mean_loss": -e, **dict(zip(scores, row, strict=True))} for e, row in enumerate(rows, 1)]


def test_a_history_is_drawn_with_its_metrics(tmp_path: Path, drawn: list[Any]) -> None:
    rows = history(validation_loss=[3, 2], validation_error=[5, 4], odd_one_loss=[1, 0], odd_one_error=[7, 6])
    plot_curves(rows, tmp_path / "curves.png", loss="squared error")
    left, right = drawn[0].axes
    assert lines(left) == {
        "mean of an epoch": [(0.5, -1), (1.5, -2)],
        "validation, after an epoch": [(1, 3), (2, 2)],
        "odd_one, after an epoch": [(1, 1), (2, 0)],
    }
    assert left.get_ylabel() == "squared error" and left.get_ylim()[0] < -2
    assert right.get_title() == "error"
    assert lines(right) == {"validation": [(1, 5), (2, 4)], "odd_one": [(1, 7), (2, 6)]}


def test_accuracy_is_drawn_in_percent_and_the_loss_left_out(tmp_path: Path, drawn: list[Any]) -> None:
    rows = history(train_loss=[3, 2], train_accuracy=[0.5, 0.75])
    plot_curves(rows, tmp_path / "curves.png", "accuracy")
    left, right = drawn[0].axes
    assert list(lines(left)) == ["mean of an epoch"]
    assert right.get_title() == "Accuracy" and lines(right) == {"train": [(1, 50), (2, 75)]}


def test_lines_of_metrics_and_a_history_agree(tmp_path: Path, drawn: list[Any]) -> None:
    rows = history(train_loss=[3, 2], train_error=[0.5, 0.75])
    events = [{"event": "epoch", **row, "data": "mine"} for row in rows]
    plot_curves(rows, tmp_path / "curves.png")
    plot_curves(events, tmp_path / "curves.png")
    assert [lines(axis) for axis in drawn[0].axes] == [lines(axis) for axis in drawn[1].axes]


@pytest.mark.parametrize("metrics", [0, 1, 2, 4])
def test_every_metric_has_a_panel(tmp_path: Path, drawn: list[Any], metrics: int) -> None:
    scores = {f"validation_{kind}": [1.0, 2.0] for kind in ["loss", *"abcd"[:metrics]]}
    plot_curves(history(**scores), tmp_path / "curves.png")
    assert [axis.get_title() for axis in drawn[0].axes] == ["Loss", *"abcd"[:metrics]]
    edges = [axis.get_position() for axis in drawn[0].axes]
    assert all(0 < edge.x0 < edge.x1 < 1 and 0 < edge.y0 < edge.y1 < 1 for edge in edges)


def test_a_trained_model_is_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    model = tg.nn.Linear(3, 3, rng=rng)
    trainer = tg.training.Trainer(
        model,
        tg.optim.Adam(tg.nn.parameters(model)),
        x,
        None,
        epochs=2,
        rng=rng,
        loss=lambda out, x: ((out - x) ** 2).mean(),
        monitor={"validation": (x, None)},
    )
    tg.training.run(trainer)
    plot_curves(trainer.history, tmp_path / "curves.png", "an autoencoder")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("rows", [[{"loss": 3}], [1.0], ["epoch"], "epoch", None, tg.nn.ReLU()])
def test_other_rows_are_refused(tmp_path: Path, rows: Any) -> None:
    with pytest.raises(TypeError, match="plot_curves: .* is no row of a history; pass trainer.history, or"):
        plot_curves(rows, tmp_path / "curves.png")
