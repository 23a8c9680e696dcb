"""The loop with callbacks, and models of all kinds, as a user's own script uses them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from survival import flat

import tinygrad_mnist as tg
from models.mlp import MLP
from tinygrad_mnist.train import Callback, Checkpoint, EpochLines, ProfileSteps, ProgressBar, Record, Trainer, evaluate
from tinygrad_mnist.train.runs import Run, read_metrics

DRAWS = np.random.default_rng(7)
X = DRAWS.normal(size=(60, 4)).astype(np.float32)
LABELS = (X @ DRAWS.normal(size=(4, 3))).argmax(axis=1)


def network(seed: int = 0) -> tg.nn.Sequential:
    rng = np.random.default_rng(seed)
    return tg.nn.Sequential(tg.nn.Linear(4, 8, rng=rng), tg.nn.ReLU(), tg.nn.Dropout(0.2), tg.nn.Linear(8, 3, rng=rng))


def trainer(model: Any = None, labels: Any = LABELS, **how: Any) -> Trainer:
    model = network() if model is None else model
    how = {"epochs": 3, "batch_size": 20, "rng": np.random.default_rng(1), **how}
    return Trainer(model, tg.optim.Adam(tg.nn.parameters(model), lr=0.02), X, labels, **how)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run.create(tmp_path / "run", {"seed": 1})
    yield made
    made.close()


# Models and losses ----------------------------------------------------------------------------------------------------
def test_a_model_without_a_loss_is_trained_by_cross_entropy() -> None:
    class WithLoss:
        def __init__(self) -> None:
            self.inner = network()

        def __call__(self, x: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
            return self.inner(x, rng)

        def loss(self, x: Any, labels: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
            return tg.cross_entropy(self(x, rng), labels)

    first, second, third = trainer(), trainer(WithLoss()), trainer(loss=tg.cross_entropy)
    losses = [[step.loss for step in t.steps()] for t in (first, second, third)]
    assert losses[0] == losses[1] == losses[2] and losses[0][-1] < losses[0][0]


def test_a_loss_that_is_given_is_used_for_training_and_measuring() -> None:
    def doubled(logits: tg.Tensor, labels: Any) -> tg.Tensor:
        return 2 * tg.cross_entropy(logits, labels)

    plain, twice = (trainer(loss=loss, monitor={"some": (X, LABELS)}) for loss in (None, doubled))
    assert next(twice.steps()).loss == pytest.approx(2 * next(plain.steps()).loss)
    model = network()
    assert evaluate(model, X, LABELS, loss=doubled).loss == pytest.approx(2 * evaluate(model, X, LABELS).loss)
    twice = trainer(model, loss=doubled, monitor={"some": (X, LABELS)})
    assert twice.measure()["some_loss"] == evaluate(model, X, LABELS, None, doubled).loss


def test_a_loss_of_ones_own_decides_what_labels_are() -> None:
    targets = (X @ np.ones((4, 2), np.float32)).astype(np.float32)
    model = tg.nn.Linear(4, 2, rng=np.random.default_rng(0))
    steps = list(trainer(model, targets, loss=lambda out, y: ((out - y) ** 2).mean(), epochs=100).steps())
    assert steps[-1].loss < 0.01 * steps[0].loss
    with pytest.raises(ValueError, match="60 images, and labels of shape"):
        trainer(model, targets)
    with pytest.raises(ValueError, match="60 images and 59 labels"):
        trainer(model, targets[:-1], loss=lambda out, y: out.mean())


def test_images_reach_the_model_as_they_are() -> None:
    seen = set()

    class Net(MLP):
        loss = None  # MLP's own is not wanted here

        def __call__(self, images: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
            seen.add((type(images), images.dtype))
            return super().__call__(images, rng)

    images, labels = tg.data.synthetic_digits(20)
    model = Net(np.random.default_rng(0), hidden=5)
    optimizer = tg.optim.Adam(tg.nn.parameters(model))
    how = {"loss": tg.cross_entropy, "epochs": 1, "batch_size": 10, "rng": np.random.default_rng(1)}
    made = Trainer(model, optimizer, images, labels, monitor={"train": (images, labels)}, **how)
    assert len(list(made.steps())) == 2 and seen == {(np.ndarray, np.dtype(np.uint8))}


# The loop -------------------------------------------------------------------------------------------------------------
class Story(Callback):
    """Notes what it is told."""

    def __init__(self, name: str, story: list[Any]) -> None:
        self.name, self.story = name, story

    def on_begin(self, trainer: Trainer) -> None:
        self.story.append((self.name, "begin"))

    def before_step(self, trainer: Trainer) -> None:
        self.story.append((self.name, "before", trainer.step))

    def on_step(self, trainer: Trainer, step: Any) -> None:
        self.story.append((self.name, "step", step.step))

    def on_epoch(self, trainer: Trainer, row: Any) -> None:
        self.story.append((self.name, "epoch", row["epoch"]))

    def on_end(self, trainer: Trainer, error: BaseException | None) -> None:
        self.story.append((self.name, "end", type(error)))


def test_callbacks_are_told_everything_in_order() -> None:
    story: list[Any] = []
    made = trainer(epochs=1, batch_size=30, monitor={"train": (X, LABELS)})
    tg.training.run(made, [Story("a", story), Story("b", story)], measure_untrained=True)
    assert story == [
        *[(name, "begin") for name in "ab"],
        *[(name, "epoch", 0) for name in "ab"],
        *[(name, "before", 0) for name in "ab"],
        *[(name, "step", 1) for name in "ab"],
        *[(name, "before", 1) for name in "ab"],
        *[("a", "step", 2), ("a", "epoch", 1), ("b", "step", 2), ("b", "epoch", 1)],
        *[(name, "before", 2) for name in "ab"],
        *[(name, "end", type(None)) for name in "ba"],
    ]


@given(st.integers(0, 9))
def test_it_stops_when_it_is_told_and_goes_on(at: int) -> None:
    whole, made = trainer(), trainer()
    tg.training.run(whole)
    tg.training.run(made, stop=lambda: made.step == at)
    assert made.step == at
    tg.training.run(made)
    assert flat(made.state_dict()) == flat(whole.state_dict())


def test_an_error_ends_all_that_have_begun_and_is_raised() -> None:
    story: list[Any] = []

    class Fails(Story):
        def on_step(self, trainer: Trainer, step: Any) -> None:
            raise KeyError("mine")

    class FailsAtOnce(Story):
        def on_begin(self, trainer: Trainer) -> None:
            raise OSError("at once")

    with pytest.raises(KeyError, match="mine"):
        tg.training.run(trainer(), [Story("a", story), Fails("b", story), Story("c", story)])
    assert story[-3:] == [(name, "end", KeyError) for name in "cba"] and ("c", "step", 1) not in story
    story.clear()

    class EndsWithTrue(Callback):
        def on_end(self, trainer: Trainer, error: BaseException | None) -> Any:
            return True

    with pytest.raises(KeyError, match="mine"):
        tg.training.run(trainer(), [EndsWithTrue(), Fails("b", [])])
    with pytest.raises(OSError, match="at once"):
        tg.training.run(trainer(), [Story("a", story), FailsAtOnce("b", story), Story("c", story)])
    assert story == [("a", "begin"), ("a", "end", OSError)]


@pytest.mark.parametrize(
    "how, words",
    [
        ({"callbacks": EpochLines()}, "callbacks must be a list of Callback objects; functions can be on_step="),
        ({"callbacks": [EpochLines]}, "callbacks must be a list of Callback objects"),
        ({"callbacks": [print]}, "callbacks must be a list of Callback objects"),
        ({"stop": True}, r"stop is True; it must be a function, called stop\(\)"),
        ({"on_step": lambda step: None}, r"on_step cannot be called on_step\(trainer, step\): too many"),
        ({"on_epoch": lambda row: None}, r"on_epoch cannot be called on_epoch\(trainer, row\): too many"),
    ],
)
def test_what_cannot_be_called_back_is_refused_before_training(how: Any, words: str) -> None:
    made = trainer()
    with pytest.raises(TypeError, match=f"run: {words}"):
        tg.training.run(made, **how)
    assert made.step == 0


def test_fit_warns_where_no_step_was_taken() -> None:
    model = network()
    how: Any = {"epochs": 1, "batch_size": 20, "rng": np.random.default_rng(0)}
    with pytest.warns(RuntimeWarning, match="fit: nothing was trained, .*; write: for step in fit"):
        tg.training.fit(model, tg.optim.SGD(tg.nn.parameters(model)), X, LABELS, **how)
    for epochs in (0, 1):  # warnings are errors here
        steps = tg.training.fit(model, tg.optim.SGD(tg.nn.parameters(model)), X, LABELS, **how | {"epochs": epochs})
        assert len(list(steps)) == 3 * epochs
        del steps


# The callbacks --------------------------------------------------------------------------------------------------------
def test_a_users_own_script_records_saves_stops_and_goes_on(run: Run, tmp_path: Path) -> None:
    whole = trainer()
    tg.training.run(whole)
    first = trainer()
    tg.training.run(first, [Record(run, data="mine"), Checkpoint(run, steps=2)], stop=lambda: first.step == 5)
    run.close()
    again, second = Run.resume(run.folder), trainer(network(seed=3))
    assert again.state is not None and again.config == {"seed": 1}
    second.load_state_dict(again.state["trainer"])
    again.begin()
    tg.training.run(second, [Record(again, data="mine"), Checkpoint(again, seconds=1e-9)])
    again.close()
    assert flat(second.state_dict()) == flat(whole.state_dict())
    rows = read_metrics(run.folder / "metrics.jsonl")
    assert [row["step"] for row in rows if row["event"] == "step"] == list(range(1, 10))
    assert [row["mean_loss"] for row in rows if row["event"] == "epoch"] == [r["mean_loss"] for r in whole.history]
    assert all(row["data"] == "mine" for row in rows)
    times = [json.loads(line) for line in (run.folder / "times.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in times] == [1, 2, 3]
    assert sorted(row["seconds"] for row in times) == [row["seconds"] for row in times]


def test_checkpoints_are_written_when_they_should_be(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(Run, "save", lambda self, step, seconds, **state: saved.append(step))
    tg.training.run(trainer(), [Checkpoint(run, steps=4)])
    assert saved == [0, 4, 8, 9]
    saved.clear()
    tg.training.run(trainer(), [Checkpoint(run)])
    assert saved == [0, 9]
    saved.clear()
    tg.training.run(trainer(epochs=1), [Checkpoint(run, seconds=1e-9)])
    assert saved == [0, 1, 2, 3, 3]


@pytest.mark.parametrize("error, last", [(FloatingPointError, 3), (OSError, 0), (KeyboardInterrupt, 0)])
def test_a_state_is_saved_after_an_error_only_where_it_is_whole(
    run: Run, error: type[BaseException], last: int
) -> None:
    class Fails(Callback):
        def on_step(self, trainer: Trainer, step: Any) -> None:
            if step.step == 3:
                raise error

    with pytest.raises(error):
        tg.training.run(trainer(epochs=2, batch_size=15), [Fails(), Checkpoint(run)])
    state = run.checkpoints.restore()
    assert state is not None and state["trainer"]["step"] == last


def test_epoch_lines_and_the_bar_say_how_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    made = trainer(monitor={"train": (X, LABELS), "validation": (X, LABELS)})
    shown = [ProgressBar(), EpochLines(lines.append, "  [a note]", lambda: 12.34)]
    tg.training.run(made, shown, measure_untrained=True)
    score = f"{made.history[1]['train_accuracy']:.4f}"
    assert len(lines) == 4 and lines[0].startswith("epoch 0/3  untrained  train ")
    mean = f"{made.history[1]['mean_loss']:.4f}"
    assert lines[2] == f"epoch 2/3  loss {mean}  train {score}  validation {score}  12.3 s  [a note]"
    bar = capsys.readouterr().err
    assert "epoch 3/3: 100%" in bar and "180/180" in bar and "loss=" in bar
    tg.training.run(trainer(), [EpochLines()])
    assert capsys.readouterr().out.count("epoch ") == 3


@pytest.mark.parametrize("steps, done", [(2, 2), (4, 4), (100, 4), (7, 4)])
def test_some_steps_are_profiled(steps: int, done: int) -> None:
    found: list[tuple[tg.Profile, int]] = []
    plain, made = trainer(), trainer()
    tg.training.run(plain)
    tg.training.run(made, [ProfileSteps(steps, warm_up=5, report=lambda *what: found.append(what))])
    ((profile, count),) = found
    matmuls = [event for event in profile.events if event.op == "matmul" and event.phase == "forward"]
    assert count == done and len(matmuls) == 2 * done
    assert flat(made.state_dict()) == flat(plain.state_dict())


def test_a_profile_without_steps_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    tg.training.run(trainer(epochs=1), [ProfileSteps()])
    assert capsys.readouterr().out == "no profile\n"
    tg.training.run(trainer(epochs=3), [ProfileSteps(2)])
    assert "matmul" in capsys.readouterr().out


def test_a_profile_ends_with_training_that_fails() -> None:
    class Fails(Callback):
        def before_step(self, trainer: Trainer) -> None:
            if trainer.step == 6:
                raise KeyError

    found: list[int] = []
    with pytest.raises(KeyError):
        tg.training.run(trainer(), [ProfileSteps(report=lambda profile, steps: found.append(steps)), Fails()])
    (tg.Tensor([1.0], requires_grad=True) * 2).sum().backward()  # nothing listens any more
    assert found == [1]


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"ProgressBar needs tqdm; pip install 'tinygrad_mnist\[train\]'"):
        tg.training.run(trainer(), [ProgressBar()])
