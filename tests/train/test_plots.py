"""Curves of histories and run folders: what is drawn, and where."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist.train import plot_curves

Figure = pytest.importorskip("matplotlib.figure").Figure
FigureCanvasAgg = pytest.importorskip("matplotlib.backends.backend_agg").FigureCanvasAgg


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
        "mean of an epoch, in training": [(0.5, -1), (1.5, -2)],
        "validation, in inference": [(1, 3), (2, 2)],
        "odd_one, in inference": [(1, 1), (2, 0)],
    }
    assert left.get_ylabel() == "squared error" and left.get_ylim()[0] < -2
    assert right.get_title() == "error"
    assert lines(right) == {"validation": [(1, 5), (2, 4)], "odd_one": [(1, 7), (2, 6)]}


def test_accuracy_is_drawn_in_percent_beside_the_losses(tmp_path: Path, drawn: list[Any]) -> None:
    rows = history(validation_loss=[3, 2], validation_accuracy=[0.5, 0.75])
    plot_curves(rows, tmp_path / "curves.png", "accuracy", note="in training: dropout 0.5")
    left, right = drawn[0].axes
    assert lines(left)["validation, in inference"] == [(1, 3), (2, 2)]
    assert left.get_legend().get_title().get_text() == "in training: dropout 0.5"
    assert right.get_title() == "Accuracy" and lines(right) == {"validation": [(1, 50), (2, 75)]}


@settings(max_examples=8, phases=[Phase.explicit, Phase.generate])  # an example takes a while to draw
@example(losses=[2.3, 0.76], shift=0)
@example(losses=[1.01, 9.9], shift=0)
@example(losses=[11.0, 0.109], shift=0)
@given(losses=st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=9), shift=st.sampled_from([0, 1, -1e3]))
def test_every_loss_is_in_sight_and_fills_the_panel(losses: list[float], shift: float) -> None:
    losses = [loss + shift for loss in losses]
    rows: list[dict[str, Any]] = [{"event": "step", "step": n, "loss": loss} for n, loss in enumerate(losses, 1)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        figures: list[Any] = []
        patch.setattr(Figure, "savefig", lambda figure, *how, **more: figures.append(figure))
        plot_curves(rows, Path(folder, "curves.png"))
    axis = figures[0].axes[0]
    least, most, (low, high) = min(losses), max(losses), axis.get_ylim()
    assert low <= least <= most <= high, "also the first steps' losses"
    assert (axis.get_yscale() == "log") == (0 < 3 * least < most)
    if most > 1.1 * abs(least):
        ends = [axis.transAxes.inverted().transform(axis.transData.transform((0, y)))[1] for y in (least, most)]
        assert ends[1] - ends[0] > 0.85, "of the panel's height"
    if axis.get_yscale() == "log":
        labels = [*axis.yaxis.get_ticklabels(), *axis.yaxis.get_ticklabels(minor=True)]
        shown = [label.get_text() for label in labels if low <= label.get_position()[1] <= high]
        numbers = [float(text.replace("\N{MINUS SIGN}", "-")) for text in shown if text]
        assert len(numbers) >= 2 and min(numbers) > 0, "that can be read off"


@pytest.mark.parametrize(
    "accuracy, test, limits", [(0.99, 0.99, (98.9, 99.1)), (1.0, 1.0, (99.9, 100.025)), (0.1, 0.99, (5.55, 101.1125))]
)
def test_accuracies_fill_their_panel(
    tmp_path: Path, drawn: list[Any], accuracy: float, test: float, limits: tuple[float, float]
) -> None:
    rows = [{"event": "epoch", "epoch": 0.3, "train_accuracy": accuracy}, {"event": "test", "test_accuracy": test}]
    plot_curves(rows, tmp_path / "curves.png")
    left, right = drawn[0].axes
    assert right.get_ylim() == pytest.approx(limits) and left.get_xlim() == right.get_xlim()


def test_a_title_of_several_lines_has_room(tmp_path: Path, drawn: list[Any]) -> None:
    for title in ("one", "one\ntwo\nthree"):
        plot_curves(history(validation_error=[1.0, 2.0]), tmp_path / "curves.png", title)
    one, three = drawn
    assert three.get_size_inches()[1] > one.get_size_inches()[1]
    for figure in drawn:
        renderer = FigureCanvasAgg(figure).get_renderer()
        below = [axis.title.get_window_extent(renderer).y1 for axis in figure.axes]
        assert max(below) < figure._suptitle.get_window_extent(renderer).y0


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
