"""Models with state in training: what is saved, averaged and gone on from; what is refused; data by position."""

from __future__ import annotations

import array
import itertools
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from survival import flat

import tinygrad_mnist as tg
from tinygrad_mnist import nn
from tinygrad_mnist.storage.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights
from tinygrad_mnist.train import Callback, Trainer, accuracy, evaluate, predict
from tinygrad_mnist.train.runs import Run

DRAWS = np.random.default_rng(7)
X = (3 + 2 * DRAWS.normal(size=(50, 4))).astype(np.float32)
LABELS = (X @ DRAWS.normal(size=(4, 3))).argmax(axis=1)


class BatchNorm:
    """Written by the README's rules: with a generator it normalizes by the batch and keeps running statistics."""

    def __init__(self, features: int, dtype: Any = np.float32, in_place: bool = False) -> None:
        self.gain = tg.Tensor(np.ones(features, dtype), requires_grad=True)
        self.shift = tg.Tensor(np.zeros(features, dtype), requires_grad=True)
        self.mean, self.var = nn.Buffer(np.zeros(features, dtype)), nn.Buffer(np.ones(features, dtype))
        self.batches, self.in_place = nn.Buffer(0), in_place

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
        if rng is None:
            return (x - self.mean) / tg.sqrt(self.var + 1e-5) * self.gain + self.shift
        m = x.mean(axis=0)
        v = ((x - m) ** 2).mean(axis=0)
        if self.in_place:
            self.mean.data *= 0.75
            self.mean.data += 0.25 * m.data
            self.var.data[:] = 0.75 * self.var.data + 0.25 * v.data
            self.batches.data += 1
        else:
            self.mean.data = 0.75 * self.mean.data + 0.25 * m.data
            self.var.data = 0.75 * self.var.data + 0.25 * v.data
            self.batches.data = self.batches.data + 1
        return (x - m) / tg.sqrt(v + 1e-5) * self.gain + self.shift


def network(seed: int = 0, dtype: Any = np.float32, in_place: bool = False, frozen: bool = True) -> nn.Sequential:
    rng = np.random.default_rng(seed)
    first = nn.Linear(4, 8, rng=rng, dtype=dtype)
    for p in nn.parameters(first).values() if frozen else ():
        p.requires_grad = False
    norm = BatchNorm(8, dtype, in_place)
    return nn.Sequential(first, norm, nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3, rng=rng, dtype=dtype))


def trainer(model: Any = None, labels: Any = LABELS, images: Any = X, **how: Any) -> Trainer:
    model = network() if model is None else model
    how = {"epochs": 2, "batch_size": 20, "rng": np.random.default_rng(1), "shard_size": 3, **how}
    return Trainer(model, tg.optim.Adam(nn.parameters(model), lr=0.02), images, labels, **how)


WATCH = {"validation": (X[:20], LABELS[:20])}


# Resuming -------------------------------------------------------------------------------------------------------------
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=max(1, settings().max_examples // 10)
)
@given(
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([None, 0.9]),
    st.booleans(),
    st.lists(st.sampled_from([1, 2, 4, 7]), min_size=3, max_size=3),
)
def test_a_model_with_state_goes_on_to_the_bit_from_any_step(
    tmp_path: Path, dtype: Any, average: float | None, in_place: bool, threads: list[int]
) -> None:
    def make(seed: int, which: int, in_place: bool = in_place) -> Trainer:
        how: Any = {"average": average, "monitor": WATCH, "threads": threads[which], "shard_size": 7}
        return trainer(network(seed, dtype, in_place), images=X.astype(dtype), **how)

    whole = make(0, 0)
    steps = list(whole.steps())
    assert any(np.abs(b.data).max() > 0.1 for b in nn.buffers(whole.model).values())
    for stop in range(len(steps) + 1):
        first, second = make(0, 1), make(9, 2, not in_place)
        begun = list(itertools.islice(first.steps(), stop))
        save_checkpoint(tmp_path / "c", first.state_dict())
        second.load_state_dict(load_checkpoint(tmp_path / "c"))
        assert begun + list(second.steps()) == steps
        assert flat(second.state_dict()) == flat(whole.state_dict()) and second.history == whole.history
        assert flat(second.selected()) == flat(whole.selected())


def test_batch_statistics_are_those_of_the_formula() -> None:
    model = network(dtype=np.float64)
    made = trainer(model, images=X.astype(np.float64), batch_size=50, shard_size=20, epochs=1, threads=3)
    inputs = X.astype(np.float64) @ model.layers[0].weight.data + model.layers[0].bias.data
    order = np.random.default_rng(1).permutation(50)
    list(made.steps())
    expected = sum(n / 50 * 0.25 * inputs[order[i : i + n]].mean(axis=0) for i, n in ((0, 20), (20, 20), (40, 10)))
    np.testing.assert_allclose(model.layers[1].mean.data, expected, rtol=1e-12)
    assert model.layers[1].batches.item() == 1


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_saved_weights_give_the_same_logits_and_accuracy(tmp_path: Path, suffix: str) -> None:
    made = trainer(epochs=10, monitor=WATCH)
    list(made.steps())
    nn.load_state_dict(made.model, made.selected())
    save_weights(tmp_path / f"w{suffix}", made.selected())
    for load in (nn.load_state_dict, nn.load_parameters):
        again = network(seed=5)
        load(again, load_weights(tmp_path / f"w{suffix}", like=again))
        assert again(X).data.tobytes() == made.model(X).data.tobytes()
        assert accuracy(again, X, LABELS) == accuracy(made.model, X, LABELS) > 0.6
    assert list(made.selected()) == list(nn.state_dict(again))


def test_a_run_folder_holds_the_state(tmp_path: Path) -> None:
    whole = trainer()
    list(whole.steps())
    run = Run.create(tmp_path / "run", {})
    first = trainer()
    tg.training.run(first, [tg.training.Checkpoint(run)], stop=lambda: first.step == 4)
    run.close()
    run, second = Run.resume(tmp_path / "run"), trainer(network(seed=3))
    assert run.state is not None
    second.load_state_dict(run.state["trainer"])
    run.begin()
    tg.training.run(second, [tg.training.Checkpoint(run)])
    run.close()
    assert flat(second.state_dict()) == flat(whole.state_dict())


# Averages -------------------------------------------------------------------------------------------------------------
@settings(max_examples=max(1, settings().max_examples // 4))
@given(st.floats(0, 0.99), st.sampled_from([np.float32, np.float64]))
def test_float_buffers_are_averaged_like_weights_and_integers_are_the_latest(decay: float, dtype: Any) -> None:
    made = trainer(network(dtype=dtype), average=decay, monitor=WATCH, images=X.astype(dtype))
    frozen = {name: a for name, a in nn.state_dict(made.model).items() if name.startswith("layers.0")}
    expected = {name: a.astype(np.float64) for name, a in nn.state_dict(made.model).items()}
    for step in made.steps():
        kept = min(decay, step.step / (step.step + 9))
        now = nn.state_dict(made.model)
        for name, array_ in now.items():
            found = made.averaged[name]
            expected[name] = kept * expected[name] + (1 - kept) * array_ if array_.dtype.kind == "f" else array_
            assert found.dtype == array_.dtype and found.shape == array_.shape
            np.testing.assert_allclose(found, expected[name], rtol=2e-5, atol=1e-6)
        assert now["layers.1.batches"] == made.averaged["layers.1.batches"] == step.step
    assert all(np.array_equal(made.averaged[name], a) for name, a in frozen.items())
    last = made.state_dict()
    nn.load_state_dict(made.model, last["averaged"])
    found = evaluate(made.model, *made.monitor["validation"])
    assert found == (made.history[-1]["validation_loss"], made.history[-1]["validation_accuracy"])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_running_maximum_that_begins_at_infinity_is_trained_and_averaged(threads: int) -> None:
    class Highest(Wrapped):
        def __init__(self) -> None:
            super().__init__(network())
            self.top, self.unused = nn.Buffer(np.float32(-np.inf)), nn.Buffer(np.full(2, np.inf))

        def __call__(self, x: Any, rng: Any = None) -> tg.Tensor:
            if rng is not None:
                self.top.data = np.maximum(self.top.data, x.max())
            return super().__call__(x, rng)

    made = trainer(Highest(), average=0.5, threads=threads, batch_size=50, shard_size=20, epochs=3)
    tops = [made.model.top.item() for _ in made.steps()]
    assert np.isfinite(tops).all() and tops == sorted(tops) and tops[-1] <= X.max()
    averages = made.selected()
    assert tops[0] <= averages["top"] <= tops[-1] and np.isposinf(averages["unused"]).all()
    with pytest.raises(ValueError, match="unused.* has 2 of 2 values that are NaN or infinite; .* a plain array"):
        save_weights("never.npz", averages)


def test_what_is_returned_is_not_the_live_state() -> None:
    made = trainer(average=0.5, monitor=WATCH)
    list(made.steps())
    before = flat(made.state_dict())
    state = made.state_dict()
    for arrays in (made.selected(), state["weights"], state["averaged"]):
        for value in arrays.values():
            value[...] = 7
    after = flat(made.state_dict())
    assert {k: v for k, v in after.items() if not k.startswith("/best")} == {
        k: v for k, v in before.items() if not k.startswith("/best")
    }


@pytest.mark.parametrize("average", [None, 0.9])
def test_weights_may_be_loaded_until_the_first_step(average: float | None) -> None:
    start = nn.state_dict(network(seed=4))
    early, late = network(), network()
    nn.load_state_dict(early, start)
    trainers = [trainer(model, average=average, monitor=WATCH) for model in (early, late)]
    trainers[1].measure()
    nn.load_state_dict(late, start)
    assert trainers[0].measure() == trainers[1].measure()
    for made in trainers:
        assert flat(made.selected()) == flat(start)
        list(made.steps())
    assert flat(trainers[0].state_dict()) == flat(trainers[1].state_dict())
    nn.load_state_dict(late, nn.state_dict(network(seed=5)))
    with pytest.raises(ValueError, match="layers.0.weight, which is not trained, has changed since the trainer was"):
        trainers[1].selected()


# Old checkpoints ------------------------------------------------------------------------------------------------------
def partial_state(state: dict[str, Any]) -> dict[str, Any]:
    """A state as it was saved when only trained parameters were."""
    lacking = {"layers.0.weight", "layers.0.bias"}
    weights = ("weights", "averaged", "best")
    return state | {
        key: state[key] and {name: a for name, a in state[key].items() if name not in lacking} for key in weights
    }


def test_a_parameter_that_is_frozen_on_the_way_is_trained_no_more() -> None:
    made = trainer(network(frozen=False))
    weight, *others = nn.parameters(made.model).values()
    for step in made.steps():
        if step.step == 2:
            weight.requires_grad = False
            before = [p.data for p in (weight, *others)]
    assert weight.data is before[0] and not any(p.data is old for p, old in zip(others, before[1:], strict=True))
    with pytest.raises(ValueError, match="value_and_grad: w requires no gradient; leave it out"):
        tg.parallel.value_and_grad(lambda x, rng: x.sum(), {"w": weight}, X)


@pytest.mark.parametrize("average", [None, 0.9])
@pytest.mark.parametrize("stop", [0, 2, 4])
def test_checkpoints_with_trained_parameters_alone_still_load(average: float | None, stop: int) -> None:
    def make() -> Trainer:
        model = network()
        model.layers.pop(1)  # there were no buffers then
        return trainer(model, average=average, monitor=WATCH)

    whole, first, second = make(), make(), make()
    steps = list(whole.steps())
    begun = list(itertools.islice(first.steps(), stop))
    second.load_state_dict(partial_state(first.state_dict()))
    assert begun + list(second.steps()) == steps and flat(second.selected()) == flat(whole.selected())
    state = partial_state(first.state_dict())
    state["weights"].popitem()
    with pytest.raises(ValueError, match="weights/layers.0.weight is missing"):
        second.load_state_dict(state)


def test_a_checkpoint_without_the_buffers_of_the_model_is_refused() -> None:
    state = trainer().state_dict()
    state["weights"] = {name: a for name, a in state["weights"].items() if not name.startswith("layers.1.")}
    with pytest.raises(ValueError, match="weights/layers.1.mean is missing"):
        trainer().load_state_dict(state)


# What is refused ------------------------------------------------------------------------------------------------------
class Changing:
    """A layer that keeps state where no file would hold it, from the second call with a generator on."""

    def __init__(self, change: Callable[[Any], None]) -> None:
        self.inner, self.change, self.calls = network(frozen=False), change, [0]
        self.mean, self.table = np.zeros(3), [np.zeros(2)]
        self.scale, self.stats = tg.Tensor(np.ones(3)), nn.Buffer(np.zeros(3))
        self.weight = tg.Tensor(np.ones(3, np.float32), requires_grad=True)

    def __call__(self, x: Any, rng: Any = None) -> tg.Tensor:
        out = self.inner(x, rng) * self.weight
        self.calls[0] += 1
        if rng is not None:
            self.change(self)
        return out


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "array replaced": (lambda m: setattr(m, "mean", m.mean + 1), "layer.mean, a plain array, has changed"),
    "array in place": (lambda m: m.mean.__iadd__(1), "layer.mean, a plain array, has changed"),
    "array in a list": (lambda m: m.table[0].fill(1), "layer.table.0, a plain array, has changed"),
    "new array": (lambda m: setattr(m, "cache", np.ones(2)), "layer.cache, a plain array, is new"),
    "Tensor replaced": (
        lambda m: setattr(m, "scale", tg.Tensor(np.ones(3))),
        "layer.scale is no longer the same Tensor",
    ),
    "Tensor in place": (lambda m: m.scale.data.fill(2), "layer.scale, which is not trained, has changed"),
    "Tensor assigned": (
        lambda m: setattr(m.scale, "data", np.zeros(3)),
        "layer.scale, which is not trained, has changed",
    ),
    "new Tensor": (lambda m: setattr(m, "last", tg.Tensor(1.0)), "layer.last, a Tensor, is new"),
    "Buffer replaced": (
        lambda m: setattr(m, "stats", nn.Buffer(np.ones(3))),
        "layer.stats is no longer the same Tensor",
    ),
    "parameter replaced": (
        lambda m: setattr(m, "weight", tg.Tensor(np.ones(3, np.float32), requires_grad=True)),
        "layer.weight is no longer the same Tensor",
    ),
}


@pytest.mark.parametrize("how", REFUSED)
@pytest.mark.parametrize("threads", [1, 3])
def test_state_that_would_not_be_saved_is_refused_by_name(how: str, threads: int) -> None:
    change, words = REFUSED[how]
    made = trainer(Wrapped(Changing(change)), threads=threads)
    made.state_dict()  # as made
    next(made.steps())
    for use in (made.state_dict, made.selected):
        with pytest.raises(ValueError, match=f"^Trainer: {words} since the trainer was made; .* tg.nn.Buffer"):
            use()


class Wrapped:
    """A model around a layer."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __call__(self, x: Any, rng: Any = None) -> tg.Tensor:
        return self.layer(x, rng)


def test_constants_and_counters_are_not_refused() -> None:
    made = trainer(Wrapped(Changing(lambda m: None)))
    list(made.steps())
    for use in (made.selected, made.state_dict, lambda: nn.state_dict(made.model)):
        with pytest.warns(UserWarning, match=r"plain numbers of the model have changed.*: layer.calls.0; make them"):
            use()
    made.model.layer.calls[0] = 0
    nn.load_state_dict(made.model, made.selected())
    assert made.selected().keys() == made.state_dict()["weights"].keys() >= {"layer.scale", "layer.stats"}


def test_a_history_in_a_deque_is_state_too() -> None:
    model = SimpleNamespace(past=deque([nn.Buffer(np.zeros(2))]), means=deque([np.ones(2)], maxlen=2))
    assert nn.state_dict(model).keys() == {"past.0"}
    model.means.append(np.ones(2))
    with pytest.raises(ValueError, match="means.1, a plain array, is new"):
        nn.state_dict(model)


def test_a_state_with_numbers_of_numpy_is_loaded_as_one_of_pythons() -> None:
    whole, first, second = trainer(), trainer(), trainer()
    list(whole.steps())
    steps = first.steps()
    for _ in range(4):
        next(steps)

    def numpys(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: numpys(part) for key, part in value.items()}
        return {int: np.int32, float: np.float64}.get(type(value), lambda same: same)(value)

    state = first.state_dict()
    second.load_state_dict({key: value if key == "rng" else numpys(value) for key, value in state.items()})
    assert repr(flat(second.state_dict())) == repr(flat(state))
    list(second.steps())
    assert flat(second.state_dict()) == flat(whole.state_dict())


@pytest.mark.parametrize("threads", [1, 2])
def test_an_integer_buffer_that_differs_between_shards_is_refused_by_name(threads: int) -> None:
    model = network()
    model.layers[1].batches = seen = nn.Buffer(0)
    call = BatchNorm.__call__

    class Counting(BatchNorm):
        def __call__(self, x: Any, rng: Any = None) -> tg.Tensor:
            self.batches.data = self.batches.data + len(x)
            return call(self, x, rng)

    model.layers[1].__class__ = Counting
    before = nn.state_dict(model)
    with pytest.raises(ValueError, match=r"layers.1.batches, int64 \(\), has become 4 in one shard and 3 in another"):
        next(trainer(model, threads=threads).steps())  # 20 = 6 * 3 + 2
    assert seen.item() == 0 and flat(nn.state_dict(model)) == flat(before)


# Steps that fail ------------------------------------------------------------------------------------------------------
@tg.primitive
def infinite_backward(x: Any) -> Any:
    return x * 1


infinite_backward.defvjp(lambda g, out, x: g * np.inf)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of what this is about
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda model, x: x * np.float32(np.nan), "the loss is nan"),
        (lambda model, x: infinite_backward(x), "the gradient of layers.1.gain is not finite"),
        (
            lambda model, x: setattr(model.layers[1].mean, "data", model.layers[1].mean.data * np.float32(np.inf)) or x,
            "the buffer layers.1.mean is not finite",
        ),
        (lambda model, x: 1 / 0, None),
    ],
)
def test_a_step_that_fails_leaves_the_last_good_state(threads: int, damage: Any, words: str | None) -> None:
    class Faulty(nn.Sequential):
        on = False

        def __call__(self, x: Any, rng: Any = None) -> tg.Tensor:
            out = super().__call__(x, rng)
            return damage(self, out) if self.on else out

    model = Faulty(*network().layers)
    made, other = (trainer(m, threads=threads) for m in (model, network()))
    steps, others = made.steps(), other.steps()
    for _ in range(2):
        next(steps), next(others)
    good = flat(made.state_dict())
    model.on = True
    with pytest.raises(FloatingPointError if words else ZeroDivisionError, match=words):
        next(steps)
    if words:
        assert flat(made.state_dict()) == good
    else:  # the generator has drawn for the step
        assert flat(nn.state_dict(model)) == flat(nn.state_dict(other.model))


# Weighted means -------------------------------------------------------------------------------------------------------
def test_the_mean_loss_of_an_epoch_counts_each_batch_by_its_size() -> None:
    model = SimpleNamespace(w=tg.Tensor(np.zeros(()), requires_grad=True))

    class Identity(SimpleNamespace):
        def __call__(self, x: Any, rng: Any = None) -> tg.Tensor:
            return tg.as_tensor(x) + self.w

    made = Trainer(
        Identity(**vars(model)),
        tg.optim.SGD(nn.parameters(model), lr=0.0),
        np.array([5.0] * 5),
        np.zeros(5),
        loss=lambda out, y: out.mean(),
        epochs=1,
        batch_size=2,
        rng=np.random.default_rng(0),
    )
    list(made.steps())
    assert made.history[0]["mean_loss"] == 5.0


@given(st.integers(1, 30), st.integers(1, 35), st.integers(1, 35), st.integers(0, 2**32 - 1))
def test_whatever_is_cut_has_the_mean_of_the_whole(n: int, batch_size: int, shard_size: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=n) * 10.0 ** np.random.default_rng(seed).integers(-3, 4, n)
    w = tg.Tensor(np.ones(()), requires_grad=True)

    class Scaled:
        def __init__(self) -> None:
            self.w = w

        def __call__(self, x: Any, rng: Any = None) -> tg.Tensor:
            return x * self.w

    made = Trainer(
        Scaled(),
        tg.optim.SGD({"w": w}, lr=0.0),
        values,
        np.zeros(n),
        loss=lambda out, y: out.mean(),
        epochs=2,
        batch_size=batch_size,
        shard_size=shard_size,
        rng=np.random.default_rng(0),
    )
    losses = [(step.loss, step.images) for step in made.steps()]
    exact = sum(map(Fraction, values.tolist())) / n
    scale = float(np.abs(values).mean())
    for epoch, row in enumerate(made.history):
        assert row["mean_loss"] == pytest.approx(float(exact), rel=1e-13, abs=1e-13 * scale)
        ours = losses[epoch * len(losses) // 2 : (epoch + 1) * len(losses) // 2]
        assert sum(count for _, count in ours) == n
        mean = sum(Fraction(loss) * count for loss, count in ours) / n
        assert row["mean_loss"] == pytest.approx(float(mean), rel=1e-14, abs=1e-14 * scale)


# Data by position -----------------------------------------------------------------------------------------------------
class Labelled:
    """Like a Series of pandas with a shuffled index: ``[...]`` looks up labels, not positions."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.places = values, np.random.default_rng(values.ndim).permutation(len(values))
        self.shape, self.dtype = values.shape, values.dtype

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, label: Any) -> Any:
        return self.values[self.places[label]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype)


def forms(values: np.ndarray) -> dict[str, Any]:
    """The same data in every form in which users have it; an index of pandas is shuffled."""
    found: dict[str, Any] = {
        "list": values.tolist(),
        "tuple": tuple(map(tuple, values)) if values.ndim > 1 else tuple(values),
        "Tensor": tg.Tensor(values),
        "memoryview": memoryview(values),
        "labelled": Labelled(values),
    }
    if values.ndim == 1:
        found["array"] = array.array("q", values.tolist())
    try:
        import pandas as pd
    except ImportError:
        pass
    else:
        index = np.random.default_rng(3).permutation(len(values))
        found["pandas"] = (pd.Series if values.ndim == 1 else pd.DataFrame)(values, index=index)
    try:
        import torch
    except ImportError:
        pass
    else:
        found["torch"] = torch.tensor(values)
    return found


@pytest.mark.parametrize("form", ["list", "tuple", "Tensor", "memoryview", "labelled", "array", "pandas", "torch"])
def test_data_of_every_form_is_paired_by_position(form: str) -> None:
    images, labels = forms(X.astype(np.float64)), forms(LABELS)
    if form not in labels:
        pytest.skip(f"{form} is not installed")
    x, y = images.get(form, X.astype(np.float64)), labels[form]
    wanted = X.astype(np.float64)
    model = network(dtype=np.float64)
    for how in ({}, {"loss": tg.cross_entropy}):
        plain, converted = (
            trainer(network(dtype=np.float64), t, i, monitor={"validation": (i, t)}, **how)
            for i, t in ((wanted, LABELS), (x, y))
        )
        assert list(plain.steps()) == list(converted.steps()) and plain.history == converted.history
    assert evaluate(model, x, y) == evaluate(model, wanted, LABELS)
    assert accuracy(model, x, y) == accuracy(model, wanted, LABELS)
    np.testing.assert_array_equal(predict(model, x), predict(model, wanted))
    w = tg.Tensor(1.0, requires_grad=True)
    ((found, _), (expected, _)) = (
        tg.parallel.value_and_grad(
            lambda a, b, rng: (tg.as_tensor(a).sum(axis=1) * b * w).mean(), {"w": w}, i, t, shard_size=7
        )
        for i, t in ((x, y), (wanted, LABELS))
    )
    assert found == expected


REFUSED_DATA = [
    ["one", "two"],
    {0: 1},
    {1, 2},
    (i for i in range(2)),
    [[1.0], [1.0, 2.0]],
    [None, 1],
    None,
    np.array([{}, 1], object),
]


@pytest.mark.parametrize("data", REFUSED_DATA, ids=lambda value: type(value).__name__)
def test_what_cannot_be_converted_is_refused_by_name(data: Any) -> None:
    model, x, y = network(), X[:2], LABELS[:2]
    tests = [
        (lambda: trainer(images=data, labels=y), "Trainer: images"),
        (lambda: trainer(images=x, labels=data), "Trainer: labels"),
        (lambda: trainer(monitor={"validation": (data, y)}), "Trainer: validation images"),
        (lambda: trainer(monitor={"some": (x, data)}), "Trainer: some labels"),
        (lambda: evaluate(model, data, y), "evaluate: images"),
        (lambda: evaluate(model, x, data), "evaluate: labels"),
        (lambda: accuracy(model, x, data), "accuracy: labels"),
        (lambda: predict(model, data), "predict: images"),
    ]
    if type(data) is not np.ndarray:  # a loss of ones own may take arrays of objects
        tests.append((lambda: trainer(labels=data, images=x, loss=tg.cross_entropy), "Trainer: labels"))
        tests.append((lambda: list(tg.parallel.map_shards(print, x, data)), "map_shards: array 1 of the batch"))
    for use, words in tests:
        with pytest.raises(TypeError, match=words):
            use()


def test_monitored_images_without_a_label_each_are_refused_before_training() -> None:
    with pytest.raises(ValueError, match="Trainer: 50 some images, and labels of shape"):
        trainer(monitor={"some": (X, LABELS[:49])})
    for images, labels in ((np.float32(3), LABELS), (X, 3)):
        for how in ({}, {"loss": tg.cross_entropy}):
            with pytest.raises(ValueError, match="Trainer: .* pass one"):
                trainer(images=images, labels=labels, **how)


def test_labels_of_ones_own_loss_may_be_any_array() -> None:
    words = np.array(["a", "b"] * 25, object)
    made = trainer(labels=words, loss=lambda out, y: tg.cross_entropy(out, (y == "b").astype(int)), epochs=1)
    assert len(list(made.steps())) == 3


class Clipping(Callback):
    """Changes parameters in place after each epoch, as some callbacks do."""

    def on_epoch(self, trainer: Trainer, row: Any) -> None:
        for p in trainer.weights.values():
            p.data *= 0


def test_a_callback_that_changes_weights_in_place_does_not_change_the_best() -> None:
    made, plain = trainer(epochs=1, monitor=WATCH), trainer(epochs=1, monitor=WATCH)
    tg.training.run(made, [Clipping()])
    list(plain.steps())
    assert flat(made.selected()) == flat(plain.selected())
