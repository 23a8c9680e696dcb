"""Training and evaluation of models of any kind: several inputs, any labels, any outputs, any metrics."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from array_likes import Labelled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from survival import flat

import tinygrad_mnist as tg
from tinygrad_mnist.storage.checkpoint import load_checkpoint, save_checkpoint
from tinygrad_mnist.train import EpochLines, Trainer, evaluate, outputs, predict

DRAWS = np.random.default_rng(5)
A, B = DRAWS.normal(size=(47, 3)), DRAWS.normal(size=(47, 2))
TARGETS, CLASSES = A @ DRAWS.normal(size=(3, 2)) + B, DRAWS.integers(0, 26, 47)
few = settings(max_examples=min(6, settings().max_examples))  # each trains


class Both:
    """Two inputs, two outputs."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.hidden = tg.nn.Linear(5, 4, rng=rng, dtype=np.float64)
        self.value = tg.nn.Linear(4, 2, rng=rng, dtype=np.float64)
        self.kind = tg.nn.Linear(4, 26, rng=rng, dtype=np.float64)

    def __call__(self, a: Any, b: Any, rng: np.random.Generator | None = None) -> tuple[tg.Tensor, tg.Tensor]:
        x = tg.dropout(tg.tanh(self.hidden(np.concatenate([a, b], axis=1))), 0.2, rng)
        return self.value(x), self.kind(x)


def both_losses(out: Any, labels: Any) -> tg.Tensor:
    return ((out[0] - labels[0]) ** 2).mean() + tg.cross_entropy(out[1], labels[1])


def largest_error(out: Any, labels: Any) -> float:
    return float(abs(out[0] - labels[0]).max())


def squares(out: Any, labels: Any) -> tg.Tensor:
    return ((out - labels) ** 2).mean()


def linear(features: int, units: int, seed: int = 0) -> tg.nn.Linear:
    return tg.nn.Linear(features, units, rng=np.random.default_rng(seed), dtype=np.float64)


def trainer(model: Any, images: Any, labels: Any, **how: Any) -> Trainer:
    how = {"epochs": 3, "batch_size": 20, "rng": np.random.default_rng(1), "shard_size": 8, **how}
    return Trainer(model, tg.optim.Adam(tg.nn.parameters(model), lr=0.02), images, labels, **how)


def of_both(seed: int = 0, **how: Any) -> Trainer:
    watch = {"validation": ((A[40:], B[40:]), (TARGETS[40:], CLASSES[40:]))}
    how = {"loss": both_losses, "monitor": watch, "metrics": {"error": largest_error}, "select": "-error", **how}
    return trainer(Both(seed), (A[:40], B[:40]), (TARGETS[:40], CLASSES[:40]), **how)


# Training -------------------------------------------------------------------------------------------------------------
@settings(few, suppress_health_check=[HealthCheck.function_scoped_fixture])  # every example writes its file anew
@given(st.integers(7, 60), st.data())
def test_several_inputs_and_metrics_go_on_to_the_bit(tmp_path: Path, batch_size: int, data: st.DataObject) -> None:
    how = {"batch_size": batch_size, "average": data.draw(st.sampled_from([None, 0.9]))}
    whole, first, second = of_both(**how), of_both(**how, threads=3), of_both(9, **how)
    steps = list(whole.steps())
    begun = list(itertools.islice(first.steps(), data.draw(st.integers(0, len(steps)))))
    save_checkpoint(tmp_path / "c", first.state_dict())
    second.load_state_dict(load_checkpoint(tmp_path / "c"))
    assert begun + list(second.steps()) == steps
    assert flat(second.state_dict()) == flat(whole.state_dict()) and second.history == whole.history
    assert set(whole.history[0]) == {"epoch", "mean_loss", "validation_loss", "validation_error"}


def test_several_inputs_are_those_of_one_array_in_parts() -> None:
    class Joined:
        def __init__(self) -> None:
            self.inner = linear(5, 2)

        def __call__(self, a: Any, b: Any, rng: Any = None) -> tg.Tensor:
            return self.inner(np.concatenate([a, b], axis=1), rng)

    one = trainer(linear(5, 2), np.concatenate([A, B], axis=1), TARGETS, loss=squares)
    several = trainer(Joined(), (A, B), TARGETS, loss=squares)
    assert [step.loss for step in one.steps()] == [step.loss for step in several.steps()]


def test_without_labels_the_loss_gets_the_inputs() -> None:
    def noisy(x: Any, rng: np.random.Generator) -> Any:
        return x + rng.normal(size=x.shape)

    def losses(labels: Any, **how: Any) -> list[float]:
        made = trainer(linear(3, 3), A, labels, loss=squares, **how)
        return [step.loss for step in made.steps()]

    assert losses(None) == losses(A)
    seen: list[tuple[Any, Any]] = []
    for labels in (None, A):
        made = trainer(lambda x, rng: tg.as_tensor(x), A, labels, loss=squares, augment=noisy, batch_size=47)
        made.model = lambda x, rng: tg.as_tensor(x)
        seen.append(made._loss(A, *([] if labels is None else [labels]), np.random.default_rng(0)).item())
    assert seen[0] == 0, "of what the model got"
    assert seen[1] == pytest.approx(np.mean(np.random.default_rng(0).normal(size=A.shape) ** 2)), "of what it was"
    made = trainer(linear(3, 3), A, None, loss=squares, monitor={"train": (A, None)}, epochs=60)
    list(made.steps())
    assert made.history[-1]["train_loss"] < 0.3 * made.history[0]["train_loss"]
    assert made.history[-1]["train_loss"] == pytest.approx(np.mean((outputs(made.model, A) - A) ** 2))


@pytest.mark.parametrize("labels", [None, TARGETS, (TARGETS, CLASSES)], ids=["none", "an array", "two arrays"])
def test_a_loss_of_the_models_own_gets_inputs_labels_and_generator(labels: Any) -> None:
    seen = set()

    class Own(Both):
        def loss(self, a: Any, b: Any, *rest: Any) -> tg.Tensor:
            *given, rng = rest
            seen.add(type(rng).__name__)
            assert len(given) == (labels is not None)
            target = given[0] if given else a[:, :2]
            target = target if isinstance(target, tuple) else (target, np.zeros(len(a), int))
            return both_losses(self(a, b, rng), target)

    made = trainer(Own(), (A, B), labels, monitor={"validation": ((A, B), labels)})
    list(made.steps())
    assert seen == {"Generator", "NoneType"}
    rest = [] if labels is None else [labels]
    assert made.measure()["validation_loss"] == pytest.approx(made.model.loss(A, B, *rest, None).item(), rel=1e-12)
    assert made.best is not None and set(made.history[0]) == {"epoch", "mean_loss", "validation_loss"}


def test_images_of_three_channels_and_26_classes_and_sequences_are_learned() -> None:
    class Colours:
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.conv, self.out = tg.nn.Conv2d(3, 8, 3, rng=rng), tg.nn.Linear(8, 26, rng=rng)

        def __call__(self, images: Any, rng: Any = None) -> tg.Tensor:
            return self.out(tg.relu(self.conv(tg.data.as_input(images))).max(axis=(2, 3)))

    class Words:
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.table = tg.Tensor(rng.normal(size=(30, 8)), requires_grad=True)
            self.out = tg.nn.Linear(8, 26, rng=rng, dtype=np.float64)

        def __call__(self, tokens: Any, rng: Any = None) -> tg.Tensor:
            return self.out(self.table[tokens].mean(axis=1))

    labels = np.arange(104) % 26
    levels = np.stack([labels % 3, labels // 3 % 3, labels // 9], axis=1)
    pixels = (levels * 100 + DRAWS.integers(0, 20, (104, 3))).astype(np.uint8)
    images = np.broadcast_to(pixels[:, :, None, None], (104, 3, 5, 4))
    tokens = labels[:, None] + DRAWS.integers(0, 4, (104, 6))
    for model, x in ((Colours(), images), (Words(), tokens)):
        made = trainer(model, x, labels, monitor={"train": (x, labels)}, epochs=25, batch_size=26)
        made.optimizer.lr = made.lr = 0.05
        list(made.steps())
        assert made.history[-1]["train_accuracy"] > 0.6 > 0.3 > made.history[0]["train_accuracy"]
        assert predict(model, x).max() > 20


def test_augmentation_of_several_inputs_gets_and_returns_all() -> None:
    def halved(images: Any, rng: np.random.Generator) -> Any:
        return images[0] / 2, images[1]

    plain, other, rng = of_both(), of_both(augment=halved), np.random.default_rng(3)
    arrays = (A / 2, B, TARGETS, CLASSES)
    expected = plain._loss(*arrays, np.random.default_rng(3)).item()
    assert other._loss(A, *arrays[1:], rng).item() == expected
    with pytest.raises(TypeError, match="augment returned a ndarray; it must return the images as it got them"):
        next(of_both(augment=lambda images, rng: images[0]).steps())


@few
@given(st.floats(0, 3), st.integers(1, 3))
def test_gradients_of_a_step_are_clipped_together(limit: float, threads: int) -> None:
    def weights(**how: Any) -> Any:
        model = linear(3, 2)
        optimizer = tg.optim.SGD(tg.nn.parameters(model), lr=1.0)
        rng = np.random.default_rng(0)
        how = {"loss": squares, "epochs": 1, "rng": rng, "shard_size": 8, "threads": threads, **how}
        before = np.concatenate([p.data.ravel() for p in optimizer.params.values()])
        (step,) = Trainer(model, optimizer, A, 3 * TARGETS, **how).steps()
        return before - np.concatenate([p.data.ravel() for p in optimizer.params.values()])

    free, clipped = weights(), weights(clip_norm=limit)
    norm = np.linalg.norm(free)
    assert np.linalg.norm(clipped) == pytest.approx(min(limit, norm), rel=1e-5, abs=1e-9)
    np.testing.assert_allclose(clipped, free * min(1, limit / norm), rtol=1e-5, atol=1e-9)


@given(st.integers(20, 500))
def test_a_loss_of_the_model_with_weights_is_averaged_by_them(n: int) -> None:
    class Weighted:
        def __call__(self, x: Any, rng: Any = None) -> tg.Tensor:
            return tg.Tensor(x)

        def loss(self, x: Any, weights: Any, rng: Any = None) -> Any:
            return (self(x, rng) * weights).sum() / weights.sum(), weights.sum()

    x, w = np.random.default_rng(n).random((2, n, 1)) + 0.1
    assert evaluate(Weighted(), x, w).loss == pytest.approx(np.average(x, weights=w))


# Selection ------------------------------------------------------------------------------------------------------------
@few
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=4), st.integers(0, 3))
def test_what_is_selected_is_the_best_by_what_was_asked_for(rows: list[tuple[int, int]], kind: int) -> None:
    select = [None, "-loss", "error", "-error"][kind]
    keys: list[Callable[[Any], Any]] = [
        lambda row: -row[0],
        lambda row: -row[0],
        lambda row: (row[1], -row[0]),
        lambda row: (-row[1], -row[0]),
    ]
    made, found = of_both(epochs=4, select=select), iter(rows)
    made.measure = lambda: dict(zip(("validation_loss", "validation_error"), next(found), strict=True))  # type: ignore[method-assign]
    after = [made.state_dict()["weights"] for step in made.steps() if step.last]
    best = max(range(4), key=lambda epoch: keys[kind](rows[epoch]))
    assert flat(made.selected()) == flat(after[best])


def test_patience_counts_epochs_without_a_lower_loss() -> None:
    made = trainer(linear(3, 2), A, TARGETS, loss=squares, monitor={"validation": (A, TARGETS)}, patience=2, epochs=9)
    losses = iter([3.0, 2.0, 2.5, 2.0])
    made.measure = lambda: {"validation_loss": next(losses)}  # type: ignore[method-assign]
    list(made.steps())
    assert len(made.history) == 4


@pytest.mark.parametrize(
    "how, error, words",
    [
        ({"select": "loss"}, ValueError, r"select is 'loss'; it must be one of \['-loss', 'error', '-error'\]"),
        ({"select": "accuracy"}, ValueError, "select is 'accuracy'; it must be one of"),
        ({"monitor": {}}, ValueError, "select is '-error', so monitor must have images called 'validation'"),
        ({"monitor": {}, "select": None}, ValueError, "metrics are measured on what is monitored; pass monitor="),
        ({"metrics": [largest_error]}, TypeError, "metrics must be a dict of name to metric"),
        ({"metrics": {"error": 3}}, TypeError, "metrics must be a dict of name to metric"),
        ({"metrics": {"loss": largest_error}}, ValueError, "would have validation_loss twice"),
        ({"monitor": {"mean": ((A, B), (TARGETS, CLASSES))}}, ValueError, "would have mean_loss twice"),
    ],
)
def test_metrics_and_selection_that_make_no_sense_are_refused(how: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=f"Trainer: .*{words}"):
        of_both(**how)


def test_an_accuracy_that_is_not_measured_selects_nothing() -> None:
    made = trainer(
        linear(3, 2), A, TARGETS, loss=squares, monitor={"validation": (A, TARGETS)}, select="accuracy", epochs=1
    )
    with pytest.raises(ValueError, match="select is 'accuracy', but validation_accuracy is not measured"):
        list(made.steps())


def test_a_state_of_other_metrics_is_refused() -> None:
    old = of_both()
    list(old.steps())
    with pytest.raises(ValueError, match="history/0/validation_worst is missing"):
        of_both(metrics={"worst": largest_error}, select=None).load_state_dict(old.state_dict())
    with pytest.raises(ValueError, match="validation_error is not in the trainer"):
        of_both(metrics=None, select=None).load_state_dict(old.state_dict())


# Evaluation -----------------------------------------------------------------------------------------------------------
@given(st.integers(1, 400), st.integers(1, 3))
def test_loss_and_metrics_are_exact_over_uneven_shards(n: int, threads: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(n, 2))
    model = linear(3, 2)
    expected = x @ model.weight.data + model.bias.data
    metrics = {"median": lambda out, y: np.median(abs(out - y)), "size": lambda out, y: tg.Tensor(out).sum()}
    found = evaluate(model, x, y, threads, squares, metrics)
    wanted = {"loss": ((expected - y) ** 2).mean(), "median": np.median(abs(expected - y)), "size": expected.sum()}
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9) and list(found) == list(wanted)
    np.testing.assert_allclose(outputs(model, x, threads), expected)


class Pair(NamedTuple):
    first: Any
    second: Any


@given(st.integers(0, 300), st.sampled_from([tuple, list, Pair._make, lambda ab: dict(zip("ab", ab, strict=True))]))
def test_outputs_of_any_structure_are_joined(n: int, kind: Any) -> None:
    x, y = np.arange(2.0 * n).reshape(n, 2), np.arange(n)
    found = outputs(lambda x, y: kind([tg.Tensor(x), {"y": (tg.as_tensor(y) * 2, y)}]), (x, y))
    assert type(found) is type(kind([0, 0]))
    first, second = found.values() if isinstance(found, dict) else found
    np.testing.assert_array_equal(first, x)
    np.testing.assert_array_equal(second["y"], (2 * y, y))


def test_accuracy_is_left_out_where_there_are_no_classes() -> None:
    for labels, units in ((TARGETS, 2), (TARGETS[:, 0], 1), (TARGETS[:, 0], 3)):

        def loss(out: Any, labels: Any) -> tg.Tensor:
            return squares(out[:, 0], labels.reshape(len(labels), -1)[:, 0])

        found = evaluate(linear(3, units), A, labels, loss=loss)
        assert np.isnan(found.accuracy) and np.isfinite(found.loss)
    logits = linear(3, 26)
    found = evaluate(logits, A, CLASSES, loss=tg.cross_entropy)
    assert found == evaluate(logits, A, CLASSES) and found.accuracy == np.mean(predict(logits, A) == CLASSES)
    assert evaluate(logits, A, CLASSES, metrics={}) == {"loss": found.loss}


@pytest.mark.parametrize(
    "use, error, words",
    [
        (lambda: outputs(tg.Tensor, (A, B[:9])), ValueError, r"outputs: images are arrays of \[47, 9\] examples"),
        (
            lambda: trainer(Both(), (A, B), TARGETS[:5], loss=squares),
            ValueError,
            "47 images and 5",
        ),
        (lambda: trainer(Both(), (A, B), (TARGETS, CLASSES[1:]), loss=squares), ValueError, "47 images and 46 labels"),
        (lambda: trainer(Both(), (A, "b"), TARGETS, loss=squares), TypeError, "Trainer: images, of type tuple"),
        (
            lambda: trainer(Both(), (A, None), TARGETS, loss=squares),
            TypeError,
            r"Trainer: images\[1\], of type NoneType",
        ),
        (
            lambda: trainer(linear(3, 2), A, None),
            TypeError,
            "Trainer: labels, of type NoneType, .*, or loss=.*tg.mse_loss",
        ),
        (
            lambda: trainer(linear(3, 2), A, TARGETS),
            ValueError,
            r"labels of shape \(47, 2\); .*, or loss=.*cross_entropy",
        ),
        (lambda: tg.training.accuracy(linear(3, 2), A, TARGETS), ValueError, r"\(47, 2\); pass one .* each image$"),
        (
            lambda: outputs(lambda x: tg.Tensor(x).sum(), A),
            ValueError,
            "the model returns a ndarray of shape .*one row",
        ),
        (
            lambda: outputs(lambda x: (tg.Tensor(x), tg.Tensor(x[:3])), A),
            ValueError,
            r"\(3, 3\); it must return one row",
        ),
        (lambda: outputs(lambda x: None, A), TypeError, "the model returns a NoneType"),
        (lambda: predict(Both(), (A, B)), ValueError, r"predict: the model returns a tuple, no logits \(N, K\)"),
        (lambda: predict(lambda x: tg.Tensor(x[:, 0]), A), ValueError, r"of shape \(47,\), no logits \(N, K\)"),
        (
            lambda: predict(linear(3, 1), A),
            ValueError,
            r"of shape \(47, 1\), no logits \(N, K\) of at least two classes",
        ),
        (lambda: tg.training.accuracy(linear(3, 1), A, CLASSES), ValueError, "no logits .* of at least two classes"),
        (lambda: evaluate(tg.Tensor, A, A, loss=lambda out, y: None), TypeError, "loss returned a NoneType"),
        (lambda: evaluate(tg.Tensor, A, A, loss=lambda out, y: out - y), TypeError, r"loss returned a Tensor of shape"),
        (
            lambda: trainer(linear(3, 1), A, A[:, 0]),
            TypeError,
            "labels are float64; pass one class .*, or loss=.*mse_loss",
        ),
        (
            lambda: evaluate(linear(3, 2), A, 1.0 * CLASSES),
            TypeError,
            "evaluate: labels are float64; pass .* an integer",
        ),
        (lambda: predict(Both(), (A, B), shifts=1), ValueError, "shifts is 1, and the model has 2 inputs"),
        (lambda: predict(tg.Tensor, np.zeros((2, 9, 9, 3)), shifts=1), ValueError, "channels seem to be last"),
        (
            lambda: evaluate(tg.Tensor, A, A, loss=squares, metrics={"f1": lambda out, y: np.nan}),
            FloatingPointError,
            "metric f1 is nan",
        ),
        (
            lambda: evaluate(tg.Tensor, A, A, loss=squares, metrics={"f1": lambda out, y: out}),
            TypeError,
            r"metric f1 returned a ndarray of shape \(47, 3\); it must return a number",
        ),
        (
            lambda: evaluate(lambda x: (tg.log(x), tg.Tensor(x)), -abs(A), None, loss=both_losses),
            FloatingPointError,
            "an output is NaN: NaN first appeared in the output of log",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of a logarithm
def test_what_does_not_fit_is_named(use: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        use()


def test_a_function_that_hides_its_layers_is_refused() -> None:
    layer = linear(3, 2)
    with pytest.raises(ValueError, match="Trainer: no parameters are found in the model, a function; pass an object"):
        Trainer(
            lambda x, rng=None: layer(x),
            tg.optim.SGD(tg.nn.parameters(layer)),
            A,
            TARGETS,
            epochs=1,
            rng=np.random.default_rng(0),
            loss=squares,
        )


def test_an_optimizer_of_other_parameters_is_refused() -> None:
    model, earlier = linear(3, 2), linear(3, 2)  # as where a notebook makes the model once more
    extra = {"scale": tg.Tensor(np.ones(1), requires_grad=True)}
    for params, name in ((tg.nn.parameters(earlier), "weight"), ({**tg.nn.parameters(model), **extra}, "scale")):
        with pytest.raises(ValueError, match=f"Trainer: the optimizer's {name} is not that of the model; make the opt"):
            Trainer(model, tg.optim.SGD(params), A, CLASSES, epochs=1, batch_size=9, rng=np.random.default_rng(0))
    optimizer = tg.optim.SGD(tg.nn.parameters(model))
    model.weight.requires_grad = False  # the optimizer leaves it alone
    how = {"epochs": 1, "batch_size": 9, "rng": np.random.default_rng(0), "loss": squares}
    list(Trainer(model, optimizer, A, TARGETS, **how).steps())
    np.testing.assert_array_equal(model.weight.data, earlier.weight.data)
    assert (model.bias.data != earlier.bias.data).all()


def test_a_parameter_that_is_thawed_asks_for_a_new_trainer() -> None:
    model = linear(3, 2)
    optimizer, start = tg.optim.SGD(tg.nn.parameters(model)), model.weight.data.copy()
    model.weight.requires_grad = False
    how = {"epochs": 2, "batch_size": 20, "rng": np.random.default_rng(0), "loss": squares}
    steps = Trainer(model, optimizer, A, TARGETS, **how).steps()
    next(steps)
    model.weight.requires_grad = True
    with pytest.raises(ValueError, match="Trainer: weight was frozen when .*; it is trained by a new Trainer"):
        next(steps)
    list(Trainer(model, optimizer, A, TARGETS, **how).steps())
    assert (model.weight.data != start).all()


class Silent:
    """A model that takes no generator."""

    def __init__(self) -> None:
        self.layer = linear(3, 2)

    def __call__(self, x: Any) -> tg.Tensor:
        return self.layer(x)


class Own(Silent):
    """A model whose loss takes no generator."""

    def loss(self, x: Any, labels: Any) -> tg.Tensor:
        return squares(self(x), labels)


class Odd(Silent):
    """A model with something else called loss."""

    loss = 0.0


@pytest.mark.parametrize(
    "how, words",
    [
        (
            {"model": Silent()},
            r"model cannot be called model\(images, rng\): too many .*: let it take rng=None",
        ),
        ({"model": Own(), "loss": None}, r"model.loss cannot be called model.loss\(images, labels, rng\): too many"),
        ({"model": Odd(), "loss": None}, r"model.loss is 0.0; it must be a function, called model.loss\(images"),
        ({"images": (A, B)}, r"model cannot be called model\(images, images, rng\): too many"),
        ({"loss": "mse"}, r"loss is 'mse'; it must be a function, called loss\(outputs, labels\)"),
        ({"loss": lambda out: out.sum()}, r"loss cannot be called loss\(outputs, labels\): too many positional"),
        ({"schedule": lambda step: 1.0}, r"schedule cannot be called schedule\(step, steps\)"),
        ({"augment": lambda images: images}, r"augment cannot be called augment\(images, rng\)"),
        ({"augment": lambda images, strength=1.0: images}, "augment cannot be called .*: rng would be its strength"),
        ({"metrics": {"f1": lambda out: 1.0}}, r"metrics\['f1'\] cannot be called metrics\['f1'\]\(outputs, labels\)"),
    ],
)
def test_functions_that_cannot_be_called_are_refused_before_training(how: Any, words: str) -> None:
    how = {"model": linear(3, 2), "images": A, "loss": squares, "monitor": {"test": (A, TARGETS)}, **how}
    with pytest.raises(TypeError, match=f"Trainer: {words}"):
        trainer(how.pop("model"), how.pop("images"), TARGETS, **how)


@pytest.mark.parametrize("rows", [((1, 2, 3), (4, 5, 6)), ([1, 2, 3], [4, 5, 6])])
def test_a_tuple_of_rows_is_one_array(rows: Any) -> None:
    model = linear(3, 2)
    np.testing.assert_array_equal(outputs(model, rows), outputs(model, np.array(rows)))
    assert evaluate(model, rows, (0, 1)) == evaluate(model, np.array(rows), np.array([0, 1]))


@pytest.mark.parametrize("alike", [Labelled, tg.Tensor, memoryview])
def test_several_inputs_and_labels_are_paired_by_position(alike: Any) -> None:
    model, names = Both(), {"kind": lambda out, labels: np.mean(out[1].argmax(axis=1) == labels[1])}
    expected = evaluate(model, (A, B), (TARGETS, CLASSES), loss=both_losses, metrics=names)
    given_ = (alike(A), alike(B)), (alike(TARGETS), alike(CLASSES))
    assert evaluate(model, *given_, loss=both_losses, metrics=names) == expected
    steps = [list(trainer(Both(), *pair, loss=both_losses).steps()) for pair in (((A, B), (TARGETS, CLASSES)), given_)]
    assert steps[0] == steps[1]


def test_a_loss_of_the_model_that_says_it_all_needs_no_outputs() -> None:
    class Own:
        def __call__(self, x: Any, rng: Any = None) -> Any:
            raise AssertionError("called")

        def loss(self, x: Any, rng: Any = None) -> tg.Tensor:
            return tg.as_tensor(x).mean()

    assert evaluate(Own(), A, None).loss == pytest.approx(A.mean()) and np.isnan(evaluate(Own(), A, None).accuracy)


# The loop -------------------------------------------------------------------------------------------------------------
def test_functions_are_called_and_their_errors_leave_a_trainer_that_goes_on() -> None:
    whole, made = of_both(), of_both()
    told: list[Any] = []
    tg.training.run(
        whole,
        on_step=lambda trainer, step: told.append(step),
        on_epoch=lambda trainer, row: told.append(row["validation_error"]),
    )
    steps = list(of_both().steps())
    assert told == [
        t for step in steps for t in [step, *([whole.history[step.epoch - 1]["validation_error"]] * step.last)]
    ]

    def fails(trainer: Trainer, step: Any) -> None:
        if step.step in (2, 3):
            raise KeyError("mine")

    for _ in range(2):
        with pytest.raises(KeyError, match="mine"):
            tg.training.run(made, on_step=fails)
    again = of_both(7)
    again.load_state_dict(made.state_dict())
    tg.training.run(made, on_step=fails)
    tg.training.run(again)
    assert flat(made.state_dict()) == flat(whole.state_dict()) == flat(again.state_dict())


def test_lines_of_epochs_show_metrics_or_the_loss() -> None:
    lines: list[str] = []
    made = of_both(epochs=1)
    tg.training.run(made, [EpochLines(lines.append, elapsed=lambda: 2.0)])
    row = made.history[0]
    scores = f"validation_loss {row['validation_loss']:.4g}  validation_error {row['validation_error']:.4g}"
    assert lines == [f"epoch 1/1  loss {row['mean_loss']:.4f}  {scores}  2.0 s"]
