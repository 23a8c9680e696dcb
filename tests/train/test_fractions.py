"""Training that ends within an epoch, and goes on from there."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from survival import flat

import tinygrad_mnist as tg
from tinygrad_mnist.storage.checkpoint import load_checkpoint, save_checkpoint
from tinygrad_mnist.train import Callback, Checkpoint, EpochLines, ProgressBar, Record, Trainer
from tinygrad_mnist.train import trainer as trainer_module
from tinygrad_mnist.train.plots import plot_curves
from tinygrad_mnist.train.runs import Run, read_metrics

DRAWS = np.random.default_rng(7)
X = DRAWS.normal(size=(30, 4)).astype(np.float32)
LABELS = (X @ DRAWS.normal(size=(4, 3))).argmax(axis=1)
FRACTIONS = st.floats(0.01, 3).map(lambda epochs: round(epochs, 2)) | st.integers(1, 3)


def trainer(epochs: Any, seed: int = 0, **how: Any) -> Trainer:
    """Make a trainer with 4 steps in an epoch, unless told otherwise."""
    rng = np.random.default_rng(seed)
    model = tg.nn.Sequential(tg.nn.Linear(4, 3, rng=rng), tg.nn.Dropout(0.2))
    how = {"batch_size": 8, "rng": rng, "monitor": {"validation": (X[:10], LABELS[:10])}, **how}
    return Trainer(model, tg.optim.Adam(tg.nn.parameters(model), lr=0.02), X, LABELS, epochs=epochs, **how)


def apart_from_selection(made: Trainer) -> dict[str, Any]:
    """Everything that decides how training continues, without what was measured where training has ended."""
    state = made.state_dict()
    del state["history"], state["best"]
    return flat(state)


# Where training ends --------------------------------------------------------------------------------------------------
@given(FRACTIONS, st.integers(1, 31))
def test_it_ends_at_the_nearest_step_and_measures_there(epochs: float, batch_size: int) -> None:
    made = trainer(epochs, batch_size=batch_size)
    per_epoch = -(-30 // batch_size)
    steps = list(made.steps())
    assert len(steps) == made.total_steps and (abs(len(steps) - epochs * per_epoch) <= 0.5 or len(steps) == 1)
    ends = {*range(per_epoch, len(steps) + 1, per_epoch), len(steps)}
    assert [step.step for step in steps if step.last] == sorted(ends)
    numbers = [row["epoch"] for row in made.history]
    whole = list(range(1, len(steps) // per_epoch + 1))
    assert numbers == whole + [epochs] * (len(steps) % per_epoch > 0) and type(numbers[-1]) in (int, float)
    first = per_epoch * ((len(steps) - 1) // per_epoch)  # of the last part
    mean = np.average([s.loss for s in steps[first:]], weights=[s.images for s in steps[first:]])
    assert made.history[-1]["mean_loss"] == pytest.approx(mean)
    assert made.history[-1].items() >= made.measure().items()
    assert list(made.steps()) == [], "the end"


@pytest.mark.parametrize(
    "given, kept", [(2, "2"), (2.0, "2"), (np.int64(2), "2"), (np.float32(0.5), "0.5"), (0, "0"), (0.6, "0.6")]
)
def test_whole_numbers_of_epochs_are_integers(given: Any, kept: str) -> None:
    assert repr(trainer(given).epochs) == kept


def test_no_epochs_are_no_steps_and_the_least_fraction_is_one() -> None:
    assert list(trainer(0).steps()) == [] and len(list(trainer(1e-9).steps())) == 1
    for wrong in (True, "0.5", None, 1j):
        with pytest.raises(TypeError, match="Trainer: epochs is .*; it must be a finite number of at least 0"):
            trainer(wrong)


def test_a_schedule_is_told_the_steps_up_to_the_end() -> None:
    rates = [step.lr for step in trainer(1.25, schedule=tg.schedules.cosine).steps()]
    assert rates == [0.02 * tg.schedules.cosine(step, 5) for step in range(5)]


def test_validation_selects_and_ends_training_within_an_epoch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.4, 0.9, 0.3, 0.2, 0.1])
    monkeypatch.setattr(trainer_module, "evaluate", lambda *args: tg.training.Evaluation(1.0, next(scores)))
    made = trainer(2.5, patience=2)
    after = [made.state_dict()["weights"] for step in made.steps() if step.last]
    assert flat(made.selected()) == flat(after[2]) and made.history[2]["epoch"] == 2.5
    on = trainer(9, patience=2)
    on.load_state_dict(made.state_dict())
    list(on.steps())
    assert [row["epoch"] for row in on.history] == [1, 2, 2.5, 3, 4], "two ends were no better than the one at 2.5"
    assert flat(on.selected()) == flat(after[2])


# Stopped and continued ------------------------------------------------------------------------------------------------
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # every example writes its file anew
@given(st.lists(FRACTIONS, min_size=2, max_size=4).map(sorted), st.sampled_from([None, 0.9]), st.integers(5, 31))
def test_ended_anywhere_it_goes_on_to_any_later_end(
    tmp_path: Path, ends: list[float], average: float | None, batch_size: int
) -> None:
    how: dict[str, Any] = {"average": average, "batch_size": batch_size}
    whole, made = trainer(ends[-1], **how), trainer(ends[0], **how)
    steps, begun = list(whole.steps()), list(made.steps())
    for seed, end in enumerate(ends[1:], 1):
        save_checkpoint(tmp_path / "c", made.state_dict())
        made = trainer(end, seed, **how)
        made.load_state_dict(load_checkpoint(tmp_path / "c"))
        begun += made.steps()
    assert [step[:4] for step in begun] == [step[:4] for step in steps]
    assert apart_from_selection(made) == apart_from_selection(whole)
    known = {row["epoch"]: row for row in made.history}
    assert [known[row["epoch"]] for row in whole.history[:-1]] == whole.history[:-1]
    last, own = whole.history[-1], made.history[-1]
    assert {**own, "epoch": last["epoch"]} == last, "an end at the same step has the number that it was first given"
    assert len(known) == len(made.history) and set(known) <= {1, 2, 3, *ends} and list(known) == sorted(known)
    best = max(made.history, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
    tg.nn.load_state_dict(made.model, made.selected())
    found = tg.training.evaluate(made.model, X[:10], LABELS[:10])
    assert (found.loss, found.accuracy) == (best["validation_loss"], best["validation_accuracy"])


@given(FRACTIONS, st.data())
def test_stopped_on_the_way_it_goes_on_to_the_same_end(epochs: float, data: st.DataObject) -> None:
    how = {"schedule": tg.schedules.cosine, "average": 0.9}
    whole, first, second = trainer(epochs, **how), trainer(epochs, **how), trainer(epochs, 1, **how)
    steps = list(whole.steps())
    begun = list(itertools.islice(first.steps(), data.draw(st.integers(0, len(steps)))))
    second.load_state_dict(first.state_dict())
    assert begun + list(second.steps()) == steps
    assert flat(second.state_dict()) == flat(whole.state_dict())


def test_a_shorter_end_is_one_that_has_been_measured_or_is_still_ahead() -> None:
    first = trainer(3)
    list(itertools.islice(first.steps(), 5))
    for epochs, words in (
        (1, "step 5, epoch 2, batch 1 are none of 1 epochs of 4 batches"),
        (1.25, r"step 5 is the last of 1.25 epochs, but nothing was measured there: pass more epochs"),
    ):
        with pytest.raises(ValueError, match=words):
            trainer(epochs).load_state_dict(first.state_dict())
    second, ended = trainer(1.5), trainer(1.5)
    second.load_state_dict(first.state_dict())
    list(second.steps()), list(ended.steps())
    assert flat(second.state_dict()) == flat(ended.state_dict())
    again = trainer(1.49)  # the same step
    again.load_state_dict(ended.state_dict())
    assert not list(again.steps()) and again.history == ended.history


def ended() -> dict[str, Any]:
    """Return a state after ends at 0.25, 0.5, 1 and 1.75 epochs."""
    made = trainer(0.25)
    for epochs in (0.5, 1.75):
        list(made.steps())
        state, made = made.state_dict(), trainer(epochs)
        made.load_state_dict(state)
    list(made.steps())
    return made.state_dict()


@pytest.mark.parametrize(
    "numbers, words",
    [
        ([0.25, 0.5, 1], "step 7 is the last of 1.75 epochs, but nothing was measured there"),
        ([0.25, 0.5, 1.75], "history is .*, not a list of 4"),
        ([0.5, 0.25, 1, 1.75], "history/0/epoch is 0.5, the trainer's is 0.25; history/1/epoch is 0.25, the"),
        ([0.25, 1, 0.5, 1.75], "history/1/epoch is 1, the trainer's is 0.5; history/2/epoch is 0.5, not an integer"),
        ([0.25, 0.25, 1, 1.75], "history is .*, not a list of 3"),
        ([0.25, 0.5, 1.0, 1.75], "history/2/epoch is 1.0, not an integer"),
        ([0.25, 0.5, True, 1.75], "history/2/epoch is True, not an integer"),
        ([0.25, 0.99, 1, 1.75], "history is .*, not a list of 3"),
        ([0.25, 0.5, 1, 1.75, 1.9], "history is .*, not a list of 4"),
        ([float("nan"), 0.5, 1, 1.75], "history is .*, not a list of 3"),
        ([-0.5, 0.5, 1, 1.75], "history is .*, not a list of 3"),
        ([1e308, 0.5, 1, 1.75], "history is .*, not a list of 3"),
        (["0.25", 0.5, 1, 1.75], "history is .*, not a list of 3"),
    ],
    ids=str,
)
def test_a_history_that_cannot_be_is_refused(numbers: list[Any], words: str) -> None:
    state, made = ended(), trainer(1.75)
    assert [row["epoch"] for row in state["history"]] == [0.25, 0.5, 1, 1.75]
    made.load_state_dict(state)
    before = flat(made.state_dict())
    rows = [{**state["history"][0], "epoch": number} for number in numbers]
    with pytest.raises(ValueError, match=f"{words}.*; make the trainer as the saved one was"):
        made.load_state_dict({**state, "history": rows})
    assert flat(made.state_dict()) == before


def test_an_evaluation_that_fails_at_the_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise FloatingPointError("the loss is nan")

    made = trainer(0.5)
    with monkeypatch.context() as patch, pytest.raises(FloatingPointError, match="after step 2"):
        patch.setattr(trainer_module, "evaluate", fail)
        list(made.steps())
    for go_on in (made.state_dict, lambda: list(made.steps())):
        with pytest.raises(ValueError, match="the evaluation at the end of this epoch has failed"):
            go_on()
    assert made.history == []


# What is shown and recorded -------------------------------------------------------------------------------------------
def test_callbacks_are_told_of_an_end_within_an_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Rows(Callback):
        def on_epoch(self, trainer: Trainer, row: Any) -> None:
            rows.append((trainer.step, row["epoch"]))

    rows: list[Any] = []
    run, lines = Run.create(tmp_path / "run", {}), list[str]()
    shown: list[Callback] = [EpochLines(lines.append), ProgressBar(), Rows(), Record(run), Checkpoint(run)]
    tg.training.run(trainer(1.25), shown)
    run.close()
    assert rows == [(4, 1), (5, 1.25)] and [line[:14] for line in lines] == ["epoch 1/1.25  ", "epoch 1.25/1.2"]
    bar = capsys.readouterr().err
    assert "epoch 1.25/1.25: 100%" in bar and "38/38" in bar, "30 images, and 8 of the first batch after them"
    again = Run.resume(run.folder)
    assert again.state is not None
    longer = trainer(1.75)
    longer.load_state_dict(again.state["trainer"])
    again.begin()
    tg.training.run(longer, [Record(again), ProgressBar()])
    again.close()
    bar = capsys.readouterr().err
    assert "38/54" in bar and "54/54" in bar
    recorded = [row["epoch"] for row in read_metrics(run.folder / "metrics.jsonl") if row["event"] == "epoch"]
    assert recorded == [1, 1.25, 1.75]


@pytest.mark.parametrize(
    "ends, per_epoch", [([0.5], 4), ([1], 4), ([0.6], 2 / 0.6), ([0.6, 1.25], 4), ([1.3], 4), ([2.75], 4)]
)
def test_a_picture_has_everything_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: list[float], per_epoch: float
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *how, **more: figures.append(figure))
    run, state = Run.create(tmp_path / "run", {}), None
    for end in ends:
        made = trainer(end)
        if state is not None:
            made.load_state_dict(state)
        tg.training.run(made, [Record(run)])
        state = made.state_dict()
    run.close()
    plot_curves(run.rows, tmp_path / "curves.png", "a run")
    left, right = figures[0].axes
    steps, means = (line.get_xdata() for line in left.lines[:2])
    np.testing.assert_allclose(steps, np.arange(1, made.total_steps + 1) / per_epoch)
    measured = [row["epoch"] for row in made.history]
    middles = {0.5: 0.25, 0.6: 0.3, 1: 0.5, 1.25: 1.125, 1.3: 1.15, 2: 1.5, 2.75: 2.375}
    np.testing.assert_allclose(means, [middles[epoch] for epoch in measured])
    np.testing.assert_allclose(right.lines[0].get_xdata(), measured)
