"""The training loop and `scripts/train_mnist.py`, run as a user would, on a small folder of IDX files."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from survival import SCRIPT, flat
from training import build
from training.settings import RECIPES, Settings

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from models.mlp import MLP
from tinygrad_mnist.storage.checkpoint import CheckpointManager, load_checkpoint, load_weights, save_checkpoint
from tinygrad_mnist.train import Trainer, accuracy, best_epoch, evaluate, fit, should_stop
from tinygrad_mnist.train import trainer as trainer_module


def rows(out: Path, event: str) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_a_run_from_any_folder_leaves_everything_that_is_promised(folder, tmp_path):
    command = [
        sys.executable,
        SCRIPT,
        "--data",
        folder,
        "--epochs",
        "2",
        "--batch-size",
        "50",
        "--validation",
        "100",
        "--seed",
        "3",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (out,) = (tmp_path / "runs").iterdir()
    assert "DATA OF THE SHAPE OF MNIST, not MNIST itself" in done.stdout
    assert "images/s" in done.stderr and "loss=" in done.stderr, "the progress bar"
    config = json.loads((out / "config.json").read_text())
    assert (config["seed"], config["lr"], config["epochs"], config["depth"], config["init"]) == (3, 0.01, 2, 6, "he")
    steps, epochs, tests = rows(out, "step"), rows(out, "epoch"), rows(out, "test")
    assert [s["step"] for s in steps] == list(range(1, 21)) and [s["epoch"] for s in steps] == [1] * 10 + [2] * 10
    for epoch in epochs:
        assert epoch["mean_loss"] == pytest.approx(np.mean([s["loss"] for s in steps if s["epoch"] == epoch["epoch"]]))
        assert f"epoch {epoch['epoch']}/2  loss {epoch['mean_loss']:.4f}" in done.stdout
    assert tests[0]["images"] == 200 and f"test accuracy {tests[0]['test_accuracy']:.4f}" in done.stdout
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    model = DeepConvNet()
    tg.nn.load_parameters(model, load_weights(out / "weights.safetensors"))
    data = tg.data.find_mnist(folder)
    assert accuracy(model, data.test_images, data.test_labels) == tests[0]["test_accuracy"]


def test_a_profile_of_some_steps_is_shown_and_stored_and_changes_nothing(script, folder, tmp_path, capsys):
    options = [
        "--data",
        str(folder),
        "--epochs",
        "1",
        "--batch-size",
        "50",
        "--validation",
        "0",
        "--no-plots",
        "--threads",
        "2",
    ]
    assert script.main([*options, "--profile", "3", "--out", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr().out
    table = (tmp_path / "a" / "profile.txt").read_text()
    assert "profile of 3 steps, each:\n" + table in shown
    phases = shown.partition("where the time went since the start of the process:\n")[2].splitlines()
    seconds = {line[:26].strip(): float(line.split()[-3]) for line in phases}
    assert list(seconds)[:3] == ["interpreter and imports", "set-up", "data"] and list(seconds)[-1] == "total"
    assert {"steps", "evaluation while training", "test images", "saving"} < seconds.keys()
    assert sum(seconds.values()) == pytest.approx(2 * seconds["total"], abs=0.001 * len(seconds))
    (calls,) = [row.split()[1] for row in table.splitlines() if row.startswith("conv_output")]
    assert calls == "6"
    trace = json.loads((tmp_path / "a" / "trace.json").read_text())["traceEvents"]
    assert sum(e["name"] == "conv_output" and e["cat"] == "forward" for e in trace) == 3 * 6
    assert script.main([*options, "--profile", "100", "--out", str(tmp_path / "b")]) == 0
    assert (
        "profile of 7 steps" in capsys.readouterr().out
        and "conv_output" in (tmp_path / "b" / "profile.txt").read_text()
    )
    assert script.main([*options, "--limit", "250", "--profile", "--out", str(tmp_path / "c")]) == 0
    assert "no profile" in capsys.readouterr().err and not (tmp_path / "c" / "profile.txt").exists()
    first, second = (load_weights(tmp_path / name / "weights.safetensors") for name in "ab")
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_seed_decides_and_threads_do_not(script, folder, tmp_path):
    def weights(name, *options):
        options = (
            "--data",
            str(folder),
            "--epochs",
            "1",
            "--batch-size",
            "120",
            "--validation",
            "0",
            "--no-plots",
            "--quiet",
            *options,
        )
        assert script.main([*options, "--out", str(tmp_path / name)]) == 0
        return load_weights(tmp_path / name / "weights.safetensors")

    first, again, other = weights("a", "--threads", "1"), weights("b", "--threads", "3"), weights("c", "--seed", "1")
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)


def test_a_recipe_is_a_beginning_that_options_change(script, folder, tmp_path, capsys):
    options = [
        "--data",
        str(folder),
        "--limit",
        "300",
        "--batch-size",
        "100",
        "--epochs",
        "1",
        "--augment",
        "0",
        "--no-plots",
        "--quiet",
    ]
    assert script.main([*options, "--recipe", "best", "--out", str(tmp_path / "run")]) == 0
    config, best = json.loads((tmp_path / "run" / "config.json").read_text()), RECIPES["best"]
    assert config["recipe"] == "best" and (config["batch_size"], config["epochs"], config["augment"]) == (100, 1, 0)
    assert {name: config[name] for name in best.keys() - {"batch_size", "epochs", "augment"}} == {
        name: value for name, value in best.items() if name not in ("batch_size", "epochs", "augment")
    }
    assert script.main(["--resume", str(tmp_path / "run"), "--recipe", "paper"]) == 2
    assert "--recipe cannot be changed on the way (the run has best)" in capsys.readouterr().err


@pytest.mark.parametrize("optimizer, own", [("sgd", "momentum"), ("adamw", "weight_decay")])
def test_a_trainer_is_told_its_settings(optimizer, own):
    images, labels = tg.data.synthetic_digits(40, rng=np.random.default_rng(0))
    data = tg.data.Dataset(images, labels, images[:20], labels[:20], "40 digits", True)
    changes = {"optimizer": optimizer, "schedule": "cosine", "warmup": 0.5, "augment": 0.7, own: 0.3}
    how = Settings.from_recipe("best", validation=10, **changes)
    trainer = build.make_trainer(how, data)
    assert (getattr(trainer.optimizer, own), trainer.optimizer.lr, trainer.average) == (0.3, how.lr, how.average)
    assert trainer.augment.keywords == {"strength": 0.7} and len(trainer.images) == 30
    assert [trainer.schedule(step, 10) for step in (0, 5, 6)] == [1 / 6, 1, tg.schedules.cosine(1, 5)]


@pytest.mark.parametrize(
    "options, words",
    [
        (["--average", "1"], "average is 1.0; it must be a finite number of at least 0 and below 1"),
        (["--dropout", "1.5"], "Dropout: p is 1.5"),
        (["--shifts", "28"], "--shifts 28 moves images of 28 pixels out of sight"),
        (["--recipe", "worst"], "choose from"),
        (["--epochs", "0"], "'0' is not a finite number above 0"),
        (["--epochs", "-0.5"], "above 0"),
        (["--epochs", "many"], "finite number"),
        (["--epochs", "1e300"], "epochs is 1000"),
        (["--batch-size", "0"], "at least 1"),
        (["--lr", "nan"], "finite"),
        (["--lr", "-1"], "at least 0"),
        (["--data", "no/such/folder"], "not a folder"),
        (["--validation", "600"], "nothing of 600 images"),
        (["--depth", "7"], "choose from"),
        (["--optimizer", "adamax"], "choose from"),
        (["--momentum", "inf"], "finite"),
        (["--weight-decay", "-1"], "at least 0"),
        (["--momentum", "0.5"], "--momentum is 0.5, but adagrad has none; leave it out, or use sgd"),
        (["--momentum", "0.5", "--optimizer", "adamw"], "--momentum is 0.5, but adamw has none"),
        (["--weight-decay", "0.1", "--optimizer", "adam"], "--weight-decay is 0.1, but adam has none"),
        (
            ["--weight-decay", "0", "--recipe", "best", "--optimizer", "sgd"],
            "but sgd has none; leave it out, or use adamw",
        ),
        (["--seed", "1" + "0" * 400], "below 2**63"),
        (["--batch-size", "1" + "0" * 5000], "below 2**63"),
        (["--out", ""], "it is empty"),
        (["--resume", ""], "it is empty"),
        (["--checkpoint-every", "0"], "at least 1"),
        (["--checkpoint-every", "nans"], "finite"),
        (["--threads", "0"], "at least 1"),
        (["--seed", "-3"], "at least 0"),
        (["--limit", "1", "--validation", "1"], "nothing of 1 images"),
        (["--patience", "2", "--validation", "0"], "needs images to validate on"),
        (["--paper-protocol", "--validation", "10"], "holds no images out"),
        (["--paper-protocol", "--patience", "1"], "holds no images out"),
        (["--schedule", "linear"], "choose from"),
        (["--warmup", "1"], "below 1"),
        (["--augment", "50"], "rotation, times strength, is 400.0"),
        (["--learning-rat", "1"], "unrecognized"),
        (["--data", "~nobody-of-this-name/mnist"], "is not a folder"),
    ],
)
def test_bad_arguments_end_with_one_line_and_code_2(script, folder, tmp_path, capsys, options, words):
    try:
        code = script.main(["--data", str(folder), "--out", str(tmp_path / "out"), *options])
    except SystemExit as stop:  # argparse's own way
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and words in error and error.count("\n") == 1 and error.startswith("train_mnist.py: ")
    assert not (tmp_path / "out").exists(), "a run that did not begin must leave nothing"


def test_a_folder_in_use_is_not_written_to(script, folder, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    assert script.main(["--data", str(folder), "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("module, option", [("tqdm", "--quiet"), ("matplotlib", "--no-plots")])
def test_a_missing_extra_is_named_before_training(script, folder, tmp_path, capsys, monkeypatch, module, option):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else found(name))
    assert script.main(["--data", str(folder), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "tinygrad_mnist[train]" in error and option in error


@pytest.mark.parametrize("name", ["a$\\x$b", "- \udcff" if sys.platform == "linux" else "- ü"])
def test_a_folder_of_any_name_will_do(folder, tmp_path, name):
    out = tmp_path / name
    command = [sys.executable, SCRIPT, "--data", folder, "--epochs", "1", "--limit", "60", "--quiet", "--out", out]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, timeout=100)
    assert done.returncode == 0, done.stderr
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG") and (out / "weights.safetensors").exists()


@pytest.mark.skipif(os.name != "posix", reason="another system's shell does this in another way")
@pytest.mark.parametrize("end", ["2>&1 | head -1", "| sleep 0.1", ">&- 2>&-", ">/dev/full 2>&1"])
def test_that_nobody_reads_what_is_printed_is_no_failure(folder, tmp_path, end):
    if "/dev/" in end and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    command = (
        f"{sys.executable} {SCRIPT} --data {folder} --epochs 2 --limit 300 --batch-size 50 --no-plots --out "
        f"{tmp_path / 'out'}"
    )
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} {end}"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "out" / "weights.safetensors").exists() and len(rows(tmp_path / "out", "test")) == 1


def test_synthetic_data_is_announced_and_every_metric_says_so(script, tmp_path, capsys, monkeypatch):
    few = [*tg.data.synthetic_digits(200), *tg.data.synthetic_digits(100, np.random.default_rng(1))]
    data = tg.data.Dataset(*few, source="SYNTHETIC DIGITS, not MNIST (no network)", synthetic=True)
    monkeypatch.setattr(tg.data, "find_mnist", lambda path, **how: data)
    assert (
        script.main(
            ["--epochs", "1", "--batch-size", "100", "--validation", "0", "--no-plots", "--out", str(tmp_path / "out")]
        )
        == 0
    )
    shown = capsys.readouterr().out.splitlines()
    assert (
        shown[0].startswith("!!!!!!!!")
        and "! SYNTHETIC DIGITS, not MNIST !!!!!!!!" in shown[0]
        and "(no network)" in shown[0]
    )
    measured = [line for line in shown if "accuracy" in line or "loss" in line]
    assert len(measured) == 2 and all("[SYNTHETIC DIGITS]" in line for line in measured)
    assert {json.loads(line)["data"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()} == {
        "synthetic"
    }


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the overflow that this run is about
def test_a_run_that_diverges_says_so_and_fails(script, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        script.main(
            [
                "--data",
                str(folder),
                "--lr",
                "1e30",
                "--batch-size",
                "50",
                "--threads",
                "1",
                "--quiet",
                "--out",
                str(out),
            ]
        )
        == 1
    )
    error = capsys.readouterr().err
    assert "the loss is" in error and "smaller --lr" in error
    assert all(np.isfinite(row["loss"]) for row in rows(out, "step")) and not (out / "weights.safetensors").exists()


def test_a_run_folder_that_is_a_file_is_refused(script, folder, tmp_path, capsys):
    (tmp_path / "notes").write_text("precious")
    assert script.main(["--data", str(folder), "--out", str(tmp_path / "notes")]) == 2
    assert "is a file" in capsys.readouterr().err and (tmp_path / "notes").read_text() == "precious"


def test_fit_lowers_the_loss_and_its_steps_tell_the_truth():
    images, labels = tg.data.synthetic_digits(300)
    model = MLP(np.random.default_rng(0))
    weights = tg.nn.parameters(model)
    before = {name: p.data for name, p in weights.items()}
    steps = list(
        fit(model, tg.optim.Adam(weights), images, labels, epochs=8, batch_size=128, rng=np.random.default_rng(1))
    )
    assert [tuple(s[:2]) for s in steps[:4]] == [(1, 1), (1, 2), (1, 3), (2, 4)]
    assert [tuple(s[3:5]) for s in steps[:4]] == [(128, False), (128, False), (44, True), (128, False)]
    assert all(s.lr == 0.001 for s in steps)
    assert steps[-1].loss < 0.7 * steps[0].loss
    assert accuracy(model, images, labels) > 0.6
    tg.nn.load_parameters(model, before)
    again = list(
        fit(model, tg.optim.Adam(weights), images, labels, epochs=8, batch_size=128, rng=np.random.default_rng(1))
    )
    assert again == steps


# Stopped and continued ------------------------------------------------------------------------------------------------
class SmallNet:
    """Everything that could keep a state: convolution, dropout, a shared generator."""

    def __init__(self, dtype: type, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.conv = tg.nn.Conv2d(1, 4, 5, stride=3, rng=rng, dtype=dtype)
        self.out = tg.nn.Linear(4 * 8 * 8, 10, rng=rng, dtype=dtype)
        self.dtype = dtype

    def __call__(self, images, rng=None):
        x = tg.relu(self.conv(tg.data.as_input(images, self.dtype))).reshape(len(images), -1)
        return self.out(tg.dropout(x, 0.3, rng))

    def loss(self, images, labels, rng=None):
        return tg.cross_entropy(self(images, rng), labels)


IMAGES, LABELS = tg.data.synthetic_digits(70, rng=np.random.default_rng(3))


def small_trainer(
    dtype=np.float32, kind=tg.optim.AdaGrad, schedule=None, batch_size=20, epochs=3, seed=0, average=None, **settings
):
    model = SmallNet(dtype, seed)
    monitor = {"validation": (IMAGES[50:], LABELS[50:])}
    optimizer = kind(tg.nn.parameters(model), lr=0.01, **settings)
    return Trainer(
        model,
        optimizer,
        IMAGES[:50],
        LABELS[:50],
        epochs=epochs,
        batch_size=batch_size,
        rng=np.random.default_rng(seed + 1),
        schedule=schedule,
        monitor=monitor,
        shard_size=8,
        average=average,
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # every example writes its file anew
@given(st.data())
def test_a_trainer_goes_on_to_the_bit_from_any_step(tmp_path, data):
    optim = tg.optim
    kinds = [
        (optim.AdaGrad, {}),
        (optim.Adam, {}),
        (optim.AdamW, {"weight_decay": 0.3}),
        (optim.SGD, {"momentum": 0.9}),
        (optim.Muon, {"momentum": 0.8}),
    ]
    kind, settings_ = data.draw(st.sampled_from(kinds))
    schedule = data.draw(st.sampled_from([None, tg.schedules.cosine, tg.schedules.step_decay, tg.schedules.one_cycle]))
    how = {
        "dtype": data.draw(st.sampled_from([np.float32, np.float64])),
        "kind": kind,
        "schedule": schedule,
        **settings_,
    }
    how["batch_size"], how["average"] = data.draw(st.integers(7, 60)), data.draw(st.sampled_from([None, 0.0, 0.9]))
    whole, first, second = small_trainer(**how), small_trainer(**how), small_trainer(**how, seed=9)
    first.threads, second.threads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    steps = list(whole.steps())
    stop = data.draw(st.integers(0, len(steps)))
    begun = list(itertools.islice(first.steps(), stop))
    save_checkpoint(tmp_path / "c", first.state_dict())
    second.load_state_dict(load_checkpoint(tmp_path / "c"))
    assert begun + list(second.steps()) == steps
    assert flat(second.state_dict()) == flat(whole.state_dict()) and second.history == whole.history


@settings(max_examples=min(10, settings().max_examples))  # each trains
@given(st.floats(0, 0.99), st.sampled_from([np.float32, np.float64]))
def test_averaged_weights_are_a_weighted_mean_of_those_of_all_steps(decay, dtype):
    trainer = small_trainer(average=decay, dtype=dtype)
    seen = [trainer.state_dict()["weights"]]
    for step in trainer.steps():
        seen.append(trainer.state_dict()["weights"])
        shares = np.ones(1)  # of each of `seen`, written out: a product of what later steps leave of it
        for number in range(step.step):
            kept = min(decay, (number + 1) / (number + 10))
            shares = np.append(shares * kept, 1 - kept)
        assert shares.sum() == pytest.approx(1)
        for name, averaged in trainer.averaged.items():
            assert averaged.dtype == dtype
            expected = np.tensordot(shares, np.array([weights[name] for weights in seen], np.float64), 1)
            np.testing.assert_allclose(averaged, expected, rtol=1e-5, atol=1e-6)
    last = trainer.state_dict()
    tg.nn.load_parameters(trainer.model, last["averaged"])
    found = trainer_module.evaluate(trainer.model, *trainer.monitor["validation"])
    assert found == (trainer.history[-1]["validation_loss"], trainer.history[-1]["validation_accuracy"]), (
        "what is measured is the average"
    )
    trainer.best = None
    assert flat(trainer.selected()) == flat(last["averaged"])


def test_a_state_from_before_there_were_averages_can_be_gone_on_from():
    old, trainer = small_trainer(), small_trainer()
    next(old.steps())
    state = {name: value for name, value in old.state_dict().items() if name != "averaged"}
    trainer.load_state_dict(state)
    assert list(trainer.steps()) == list(old.steps())
    with pytest.raises(ValueError, match="averaged is None, not a dict"):
        small_trainer(average=0.9).load_state_dict(state)


def test_a_state_with_an_average_and_one_without_do_not_mix():
    for one, other in ((None, 0.9), (0.9, None)):
        with pytest.raises(ValueError, match="averaged is"):
            small_trainer(average=one).load_state_dict(small_trainer(average=other).state_dict())


def test_a_state_that_does_not_fit_is_refused():
    trainer, state = small_trainer(), small_trainer().state_dict()
    next(trainer.steps())
    with pytest.raises(ValueError, match="order is missing; rng is missing"):
        trainer.load_state_dict({key: value for key, value in state.items() if key not in ("rng", "order")})
    for order in (np.arange(49), np.zeros(50, int), np.arange(1, 51)):
        with pytest.raises(ValueError, match="order is not a permutation of 50 images"):
            trainer.load_state_dict({**state, "order": order})
    with pytest.raises(ValueError, match="optimizer: kind is 'SGD', the optimizer's is 'AdaGrad'"):
        trainer.load_state_dict({**state, "optimizer": {**state["optimizer"], "kind": "SGD"}})
    with pytest.raises(ValueError, match="out.bias is missing"):
        trainer.load_state_dict(
            {**state, "weights": {name: w for name, w in state["weights"].items() if name != "out.bias"}}
        )
    for batch_size in (10, 21):
        with pytest.raises(ValueError, match=f"batch_size is 20, the trainer's is {batch_size}"):
            small_trainer(batch_size=batch_size).load_state_dict(list(small_states())[3])
    with pytest.raises(ValueError, match="step 9, epoch 4, batch 0 are none of 2 epochs of 3 batches"):
        small_trainer(epochs=2).load_state_dict(list(small_states())[-1])
    for strange in (None, [1]):
        with pytest.raises(ValueError, match="pass what state_dict"):
            trainer.load_state_dict(strange)


def test_every_difference_of_a_state_is_listed():
    trainer, state = small_trainer(), list(small_states())[4]
    state |= {"images": 49, "lr": -1.0, "rng": {}, "losses": np.zeros(3), "order": np.zeros(50, np.int32)}
    state["optimizer"] |= {"lr": np.nan}
    state["weights"] |= {"out.bias": state["weights"]["out.bias"] * np.inf}
    with np.errstate(invalid="ignore"), pytest.raises(ValueError) as caught:
        trainer.load_state_dict(state)
    for part in (
        "images is 49, the trainer's is 50",
        "lr is -1.0, not a finite number of at least 0",
        "losses has shape (3,)",
        "weights/out.bias has values that are NaN or infinite",
        "optimizer: lr is nan",
        "order is not a permutation",
        "rng is no state of PCG64",
        "with the same data, model and settings",
    ):
        assert part in str(caught.value)


def test_after_a_failed_evaluation_an_earlier_state_can_be_loaded(monkeypatch):
    def fail(*args):
        raise FloatingPointError("the loss is nan")

    trainer = small_trainer()
    state = trainer.state_dict()
    with monkeypatch.context() as patch, pytest.raises(FloatingPointError, match="images: the loss is nan"):
        patch.setattr(trainer_module, "evaluate", fail)
        list(trainer.steps())
    with pytest.raises(ValueError, match="the evaluation at the end of this epoch has failed; load an earlier state"):
        trainer.state_dict()
    trainer.load_state_dict(state)
    assert list(trainer.steps()) == list(small_trainer().steps())


def small_states():
    trainer = small_trainer()
    yield trainer.state_dict()
    yield from (trainer.state_dict() for _ in trainer.steps())


STRANGE = [None, True, -1, 99, 1.5, float("inf"), 10**400, "x", [], {}, [3], {"x": 1}, np.zeros(3), np.zeros(1000, int)]


@given(st.data())
def test_a_state_of_strange_parts_is_refused_or_can_be_gone_on_from(data):
    state = data.draw(st.sampled_from(list(small_states())))
    whole = flat(state)
    path = data.draw(
        st.sampled_from(
            [[key] for key in state] + [["optimizer", key] for key in state["optimizer"]] + [["rng", "state"]]
        )
    )
    holder = state
    for key in path[:-1]:
        holder[key] = dict(holder[key])
        holder = holder[key]
    holder[path[-1]] = data.draw(st.sampled_from(STRANGE))
    trainer = small_trainer()
    before = flat(trainer.state_dict())
    try:
        trainer.load_state_dict(state)
    except ValueError as error:
        assert str(error).startswith("Trainer: ") and "\n" not in str(error)
        assert flat(trainer.state_dict()) == before
    else:
        assert flat(state) == whole or path[-1] in ("lr", "eps", "steps"), "what can be anything of the right kind"
        list(trainer.steps())
        assert trainer.selected().keys() == trainer.weights.keys()


@pytest.mark.parametrize(
    "how, words",
    [
        ({"epochs": -1}, "epochs is -1"),
        ({"epochs": float("nan")}, "epochs is nan; it must be a finite number of at least 0 and below"),
        ({"patience": 0, "monitor": {"validation": (IMAGES, LABELS)}}, "patience is 0"),
        ({"patience": 1}, "must have images called 'validation'"),
        ({"rng": None}, "rng is NoneType"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"average": 1}, "average is 1; it must be a finite number of at least 0 and below 1"),
        ({"average": -0.1}, "average is -0.1"),
    ],
)
def test_a_trainer_refuses_what_makes_no_sense(how, words):
    model = SmallNet(np.float32, 0)
    with pytest.raises((TypeError, ValueError), match=words):
        Trainer(
            model,
            tg.optim.SGD(tg.nn.parameters(model)),
            IMAGES,
            LABELS,
            **{"epochs": 1, "rng": np.random.default_rng(0), **how},
        )
    with pytest.raises(ValueError, match="0 images"):
        Trainer(
            model, tg.optim.SGD(tg.nn.parameters(model)), IMAGES[:0], LABELS[:0], epochs=1, rng=np.random.default_rng(0)
        )


@pytest.mark.parametrize("monitor", [[(IMAGES, LABELS)], {"validation": IMAGES}, {"validation": (IMAGES,)}])
def test_what_is_monitored_has_names_and_labels(monitor):
    model = SmallNet(np.float32, 0)
    how = {"epochs": 1, "rng": np.random.default_rng(0), "monitor": monitor}
    with pytest.raises(TypeError, match=r"monitor must be a dict of name to \(images, labels\)"):
        Trainer(model, tg.optim.SGD(tg.nn.parameters(model)), IMAGES, LABELS, **how)


@pytest.mark.parametrize("factor", [-0.1, float("nan"), float("inf")])
def test_a_schedule_that_makes_no_sense_is_named(factor):
    with pytest.raises(ValueError, match=f"what the schedule returned for step 0 is {factor}"):
        next(small_trainer(schedule=lambda step, steps: factor).steps())
    for schedule in (tg.schedules.cosine, tg.schedules.linear, tg.schedules.one_cycle, tg.schedules.step_decay):
        with pytest.raises(ValueError, match="count from 0"):
            schedule(0, 0)


# Selection and schedules ----------------------------------------------------------------------------------------------
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(1, 4))
def test_training_stops_when_the_best_is_patience_epochs_old(scores, patience):
    best = scores.index(max(scores))
    assert best_epoch(scores) == best
    assert should_stop(scores, patience) == (len(scores) - 1 - best >= patience)


def test_the_best_weights_are_those_of_the_epoch_that_validation_chose(monkeypatch):
    trainer, scores = (
        small_trainer(epochs=9),
        iter([(0.1, 2.0), (0.5, 2.0), (0.5, 1.5), (0.4, 0.1), (0.5, 1.5), (0.2, 0.1), (0.9, 0.1)]),
    )
    monkeypatch.setattr(trainer_module, "evaluate", lambda *args: tg.training.Evaluation(*next(scores)[::-1]))
    trainer.patience = 3
    after = [trainer.state_dict()["weights"] for step in trainer.steps() if step.last]
    assert len(trainer.history) == len(after) == 6, "three epochs after the third were no better"
    assert flat(trainer.selected()) == flat(after[2]) != flat(after[5])
    trainer.best = None
    assert flat(trainer.selected()) == flat(after[5])


@given(st.integers(1, 1000), st.data())
def test_schedules_fall_from_1(steps, data):
    step = data.draw(st.integers(0, steps - 1))
    assert tg.schedules.constant(step, steps) == 1
    for schedule in (tg.schedules.cosine, tg.schedules.linear, tg.schedules.step_decay):
        assert schedule(0, steps) == 1 and 0 < schedule(step + 1, steps + 1) <= schedule(step, steps + 1) <= 1
    assert tg.schedules.cosine(step, steps) == pytest.approx(np.cos(np.pi * step / steps / 2) ** 2, abs=1e-12)
    assert tg.schedules.step_decay(step, steps) == pytest.approx(
        10.0 ** -((2 * step >= steps) + (4 * step >= 3 * steps))
    )


@given(st.integers(1, 1000), st.floats(0, 1, exclude_max=True))
def test_one_cycle_is_two_straight_lines(steps, rise):
    top = int(rise * steps)  # the step with the whole learning rate
    expected = np.interp(np.arange(steps), [-1, top, steps], [0, 1, 0])
    found = [tg.schedules.one_cycle(step, steps, rise) for step in range(steps)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found[top] == 1 == max(found) and min(found) > 0


@given(
    st.integers(1, 1000),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([tg.schedules.cosine, tg.schedules.constant]),
)
def test_a_warmup_rises_evenly_to_where_the_schedule_begins(steps, share, schedule):
    warmed = [tg.schedules.warmup(schedule, share)(step, steps) for step in range(steps)]
    rise = int(share * steps)
    np.testing.assert_allclose(warmed[: rise + 1], np.arange(1, rise + 2) / (rise + 1))
    assert warmed[rise:] == [schedule(step, steps - rise) for step in range(steps - rise)]


@pytest.mark.parametrize("share", [-0.1, 1, np.nan])
def test_a_warmup_that_makes_no_sense_is_refused(share):
    with pytest.raises(ValueError, match="warmup: share is .*; it must be a finite number of at least 0 and below 1"):
        tg.schedules.warmup(tg.schedules.cosine, share)


def test_a_schedule_is_followed():
    trainer = small_trainer(schedule=tg.schedules.cosine)
    assert [step.lr for step in trainer.steps()] == [0.01 * tg.schedules.cosine(step, 9) for step in range(9)]


# Numbers that are not finite ------------------------------------------------------------------------------------------
@tg.primitive
def nan_in_backward(x):
    return x * 1


nan_in_backward.defvjp(lambda g, out, x: g * np.nan)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the overflow that this is about
@pytest.mark.parametrize(
    "layer, damage, words",
    [
        ("conv", lambda x: tg.log(x - x - 1), "NaN first appeared in the output of log, forward, in conv"),
        ("out", lambda x: tg.exp(x * 1e30), "infinity first appeared in the output of exp, forward, in out"),
        (
            "conv",
            nan_in_backward,
            "NaN first appeared in the backward of nan_in_backward, gradient by input 0, in conv",
        ),
        (
            "out",
            lambda x: tg.sqrt(x * 0),
            "infinity first appeared in the backward of sqrt, gradient by input 0, in out",
        ),
    ],
)
@pytest.mark.parametrize("profiled", [False, True])
def test_the_first_bad_step_says_where_and_leaves_the_last_good_state(layer, damage, words, profiled):
    class Faulty:
        def __init__(self, inner):
            self.inner, self.on = inner, False
            self.weight = inner.weight

        def __call__(self, x, rng=None):
            y = self.inner(x, rng)
            return damage(y) if self.on else y

    trainer = small_trainer()
    setattr(trainer.model, layer, faulty := Faulty(getattr(trainer.model, layer)))
    steps = trainer.steps()
    with tg.Profile() if profiled else nullcontext():
        for _ in range(4):
            next(steps)
        good = flat(trainer.state_dict())
        faulty.on = True
        with pytest.raises(FloatingPointError, match=rf"^step 5: .*{re.escape(words)}") as found:
            next(steps)
    assert Path(__file__).name in str(found.value), "the stack"
    assert flat(trainer.state_dict()) == good


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the overflow that this is about
def test_an_update_that_overflows_stops_before_it_can_be_saved():
    trainer = small_trainer(kind=tg.optim.SGD)
    trainer.optimizer.lr = 1e39
    with pytest.raises(FloatingPointError, match="step 1: the optimizer makes .* infinite or NaN"):
        next(trainer.steps())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the overflow that this is about
@pytest.mark.parametrize(
    "options", [["--lr", "1e5"], ["--lr", "1e8", "--validation", "0"], ["--lr", "1e6", "--optimizer", "sgd"]], ids=str
)
def test_measuring_that_turns_bad_says_where(script, folder, tmp_path, capsys, options):
    options = [
        "--data",
        str(folder),
        "--limit",
        "60",
        "--epochs",
        "1",
        "--batch-size",
        "1000",
        "--quiet",
        "--no-plots",
        *options,
    ]
    assert script.main([*options, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert (
        "train_mnist.py: after step 1, on the train images: " in error
        and "in layers." in error
        and "checkpoint-00000000" in error
    )
    assert not rows(tmp_path / "out", "epoch")


def test_a_loss_of_ones_own_that_is_not_finite_is_located() -> None:
    with (
        np.errstate(divide="ignore"),
        pytest.raises(FloatingPointError, match="infinity first appeared in the output of log"),
    ):
        evaluate(tg.Tensor, np.ones((2, 3)), np.zeros(2, int), loss=lambda logits, labels: tg.log(logits * 0).sum())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_no_prediction(bad):
    logits = np.zeros((3, 4))
    logits[1, 2] = bad
    words = (
        "a logit is NaN: input 0 of multiply is NaN already" if np.isnan(bad) else "the loss is nan; no op produced it"
    )
    with pytest.raises(FloatingPointError, match=words):
        trainer_module.evaluate(lambda x: tg.multiply(x, 1.0), logits, np.zeros(3, int))
    if np.isnan(bad):
        with pytest.raises(FloatingPointError, match="a logit is NaN"):
            accuracy(tg.Tensor, logits, np.zeros(3, int))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the overflow that this is about
def test_a_run_that_turns_bad_keeps_its_last_checkpoint_and_can_be_resumed(
    script, folder, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    options = [
        "--data",
        str(folder),
        "--batch-size",
        "50",
        "--epochs",
        "1",
        "--quiet",
        "--no-plots",
        "--checkpoint-every",
        "5",
    ]
    with monkeypatch.context() as patch:
        patch.setitem(build.SCHEDULES, "cosine", (lambda step, steps: 1e35 if step == 5 else 1.0, 0.0))
        assert script.main([*options, "--out", str(out), "--schedule", "cosine", "--validation", "0"]) == 1
    error = capsys.readouterr().err
    assert "step 7: the loss is" in error and "in layers." in error and "checkpoint-00000006.safetensors" in error
    assert "Traceback" not in error and not (out / "weights.safetensors").exists()
    assert [row["step"] for row in rows(out, "step")] == list(range(1, 7))
    last = load_checkpoint(CheckpointManager(out).files()[0])
    assert last["trainer"]["step"] == 6 and last["run"]["metrics"].tobytes() == (out / "metrics.jsonl").read_bytes()


# The paper's protocol -------------------------------------------------------------------------------------------------
def test_the_papers_protocol_looks_at_the_test_images_and_says_so_everywhere(script, folder, tmp_path, capsys):
    out = tmp_path / "paper"
    assert (
        script.main(
            ["--data", str(folder), "--paper-protocol", "--epochs", "2", "--batch-size", "50", "--out", str(out)]
        )
        == 0
    )
    shown = capsys.readouterr().out.splitlines()
    measured = [line for line in shown if "accuracy" in line or line.startswith("epoch")]
    assert len(measured) == 4 and all(
        "[PAPER PROTOCOL: the test images are looked at during training]" in line for line in measured
    )
    assert {json.loads(line)["protocol"] for line in (out / "metrics.jsonl").read_text().splitlines()} == {"paper"}
    epochs = rows(out, "epoch")
    assert [row["epoch"] for row in epochs] == [0, 1, 2] and all(
        "test_accuracy" in row and "train_accuracy" in row for row in epochs
    )
    assert epochs[0]["test_accuracy"] < 0.4 and "mean_loss" not in epochs[0], "the untrained network"
    assert json.loads((out / "config.json").read_text())["validation"] == 0 and rows(out, "test")[0]["epoch"] == 2


def test_the_test_images_are_read_once_at_the_end(script, folder, tmp_path, monkeypatch):
    seen, data = [], tg.data.find_mnist(folder)

    class Watched(np.ndarray):
        def __getitem__(self, index):
            seen.append(
                len((out / "metrics.jsonl").read_text().splitlines()) if (out / "metrics.jsonl").exists() else 0
            )
            return super().__getitem__(index)

    out = tmp_path / "out"
    monkeypatch.setattr(
        tg.data, "find_mnist", lambda path, **how: data._replace(test_images=data.test_images.view(Watched))
    )
    measured = []
    logits = script.predicted_logits
    monkeypatch.setattr(script, "predicted_logits", lambda *given: measured.append(given) or logits(*given))
    assert (
        script.main(
            ["--data", str(folder), "--epochs", "2", "--batch-size", "60", "--out", str(out), "--quiet", "--no-plots"]
        )
        == 0
    )
    assert len(measured) == 1 and set(seen) <= {0, 20}, (
        "before the first line (the fingerprint), and after 18 steps and 2 epochs"
    )
    assert json.loads((out / "config.json").read_text())["validation"] == 60 and len(rows(out, "epoch")) == 2
