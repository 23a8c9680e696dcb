"""Every numeric setting of the public interface is checked when it is given.

They are found by the annotations of the signatures: a new one is tested without an entry here, a new owner of settings
needs a line in `CALLS`, and the failing test says so.
"""

from __future__ import annotations

import copy
import inspect
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import INVALID_PAIRS

import tinygrad_mnist as tg
from tinygrad_mnist import optim

SPACES = (tg, tg.nn, tg.optim, tg.schedules, tg.training, tg.parallel, tg.data, tg.checkpoint, tg.runs, tg.testing)
SPACES += (tg.explain, tg.linalg)
RESULTS = {"Evaluation", "ImageFolder", "Step", "Report"}  # they hold numbers, but take no settings
INTERNAL = {"Profile.rule", "detect_anomaly.rule", "Primitive.rule"}
SHAPES = {"broadcast_to", "Tensor.broadcast_to", "sum_to", "argmax", "concatenate", "expand_dims", "pad", "squeeze"}
SHAPES |= {"arange", "eye", "full", "linspace", "ones", "zeros"}
ARRANGING = {"array_split", "diag", "diagonal", "flatten", "flip", "moveaxis", "repeat", "roll", "split", "tile"}
ARRANGING |= {"tril", "triu"}
SHAPES |= ARRANGING | {f"Tensor.{name}" for name in ARRANGING}
SHAPES |= {"round", "stack", "swapaxes", "trace", "Tensor.trace"}  # axes, shapes and fill values: NumPy checks them
SHAPES |= {"argmin", "argsort", "cumprod", "cumsum", "sort", "take", "take_along_axis", "Tensor.sort", "Tensor.take"}
SHAPES |= {"topk.axis", "Tensor.topk.axis"}
KINDS = {
    "int": "integer",
    "int | str": "integer",
    "Pair | str": "pair",
    "float": "real",
    "Pair": "pair",
    "tuple[float, float]": "reals",
    "Sequence[float]": "reals",
    "int | Sequence[int]": "integer",
    "int | tuple[int, ...]": "integer",
    "np.random.Generator | int": "integer",
    "Sequence[int]": "integers",
    "tuple[int, ...]": "integers",
    "tuple[int, int, int, int]": "",  # the shape of images, in `col2im`
}
IMAGES, LABELS = np.zeros((4, 3), np.float32), np.array([0, 1, 2, 0])
X, PIXELS = np.ones((1, 2, 8, 8)), np.zeros((1, 4, 4), np.uint8)


def weights() -> dict[str, tg.Tensor]:
    return {"w": tg.Tensor(np.ones(2, np.float32), requires_grad=True)}


def trainer(**how: Any) -> tg.training.Trainer:
    model = tg.nn.Linear(3, 3, rng=np.random.default_rng(0))
    how = {"epochs": 1, "rng": np.random.default_rng(0), "monitor": {"validation": (IMAGES, LABELS)}, **how}
    return tg.training.Trainer(model, tg.optim.SGD(tg.nn.parameters(model)), IMAGES, LABELS, **how)


def logits(x: tg.Tensor) -> tg.Tensor:
    return x.mean(axis=2)


class NoRun:
    """In place of a run folder: nothing is written."""

    state, folder = None, Path("nowhere")
    config: dict[str, Any] = {}


def saving(**how: Any) -> Any:
    return tg.checkpoint.CheckpointManager.save(NoRun(), state={}, **{"step": 1, **how})


def mean(x: Any, rng: Any) -> tg.Tensor:
    return weights()["w"].sum()


CALLS: dict[str, Callable[..., Any]] = {
    "SGD": lambda **how: optim.SGD(weights(), **how),
    "AdaGrad": lambda **how: optim.AdaGrad(weights(), **how),
    "RMSprop": lambda **how: optim.RMSprop(weights(), **how),
    "Adam": lambda **how: optim.Adam(weights(), **how),
    "AdamW": lambda **how: optim.AdamW(weights(), **how),
    "Muon": lambda **how: optim.Muon(weights(), **how),
    "clip_grad_norm": lambda **how: optim.clip_grad_norm({"w": np.ones(2)}, **{"max_norm": 1.0, **how}),
    "constant": lambda **how: tg.schedules.constant(**{"step": 1, "steps": 2, **how}),
    "cosine": lambda **how: tg.schedules.cosine(**{"step": 1, "steps": 2, **how}),
    "linear": lambda **how: tg.schedules.linear(**{"step": 1, "steps": 2, **how}),
    "one_cycle": lambda **how: tg.schedules.one_cycle(**{"step": 1, "steps": 2, **how}),
    "step_decay": lambda **how: tg.schedules.step_decay(**{"step": 1, "steps": 2, **how}),
    "warmup": lambda **how: tg.schedules.warmup(tg.schedules.cosine, **how),
    "initial_weights": lambda **how: tg.nn.initial_weights(**{"shape": (2, 3), "fan_in": 2, **how}),
    "whitening_filters": lambda **how: tg.nn.whitening_filters(
        np.ones((2, 1, 4, 4)), **{"filters": 2, "kernel_size": 2, **how}
    ),
    "SoftmaxCrossEntropy": tg.nn.SoftmaxCrossEntropy,
    "Conv2d": lambda **how: tg.nn.Conv2d(**{"in_channels": 1, "out_channels": 2, "kernel_size": 3, **how}),
    "Conv1d": lambda **how: tg.nn.Conv1d(**{"in_channels": 1, "out_channels": 2, "kernel_size": 3, **how}),
    "ConvTranspose2d": lambda **how: tg.nn.ConvTranspose2d(
        **{"in_channels": 1, "out_channels": 2, "kernel_size": 3, "stride": 2, **how}
    ),
    "Linear": lambda **how: tg.nn.Linear(**{"in_features": 2, "out_features": 3, **how}),
    "Dropout": tg.nn.Dropout,
    "AvgPool2d": lambda **how: tg.nn.AvgPool2d(**{"kernel_size": 2, **how}),
    "ELU": tg.nn.ELU,
    "LeakyReLU": tg.nn.LeakyReLU,
    "Softplus": tg.nn.Softplus,
    "Embedding": lambda **how: tg.nn.Embedding(
        **{"num_embeddings": 3, "embedding_dim": 2, "rng": np.random.default_rng(0), **how}
    ),
    "BatchNorm1d": lambda **how: tg.nn.BatchNorm1d(**{"num_features": 2, **how}),
    "BatchNorm2d": lambda **how: tg.nn.BatchNorm2d(**{"num_features": 2, **how}),
    "LayerNorm": lambda **how: tg.nn.LayerNorm(**{"normalized_shape": 2, **how}),
    "GroupNorm": lambda **how: tg.nn.GroupNorm(**{"num_groups": 1, "num_channels": 2, **how}),
    "batch_norm": lambda **how: tg.batch_norm(X, **how),
    "layer_norm": lambda **how: tg.layer_norm(X[..., :1], **{"normalized_shape": 1, **how}),
    "group_norm": lambda **how: tg.group_norm(X, **{"num_groups": 1, **how}),
    "MaxPool2d": lambda **how: tg.nn.MaxPool2d(**{"kernel_size": 2, **how}),
    "var": lambda **how: tg.var(np.ones(3), **how),
    "std": lambda **how: tg.std(np.ones(3), **how),
    "topk": lambda **how: tg.topk(**{"x": np.ones(3), "k": 2, **how}),
    "Tensor.topk": lambda **how: tg.Tensor(np.ones(3)).topk(**{"k": 2, **how}),
    "one_hot": lambda **how: tg.one_hot([0], **how),
    "dropout": lambda **how: tg.dropout(np.ones(3), **how),
    "elu": lambda **how: tg.elu([-0.5, 1.0], **how),
    "leaky_relu": lambda **how: tg.leaky_relu([-0.5, 1.0], **how),
    "softplus": lambda **how: tg.softplus([-0.5, 1.0], **how),
    "cross_entropy": lambda **how: tg.cross_entropy(np.ones((2, 3)), [0, 1], **how),
    "nll_loss": lambda **how: tg.nll_loss(np.ones((2, 3)), [0, 1], **how),
    "huber_loss": lambda **how: tg.huber_loss(np.ones(3), np.zeros(3), **how),
    "conv2d": lambda **how: tg.conv2d(X, np.ones((1, 2, 3, 3)), **how),
    "conv1d": lambda **how: tg.conv1d(X[0], np.ones((1, 8, 3)), **how),
    "conv_transpose2d": lambda **how: tg.conv_transpose2d(X, np.ones((2, 1, 3, 3)), **{"stride": 2, **how}),
    "adaptive_avg_pool2d": lambda **how: tg.adaptive_avg_pool2d(X, **{"output_size": 2, **how}),
    "avg_pool2d": lambda **how: tg.avg_pool2d(X, **{"kernel_size": 2, **how}),
    "max_pool2d": lambda **how: tg.max_pool2d(X, **{"kernel_size": 2, **how}),
    "im2col": lambda **how: tg.im2col(X, **{"kernel_size": 2, **how}),
    "col2im": lambda **how: tg.col2im(
        tg.im2col(X, **{"kernel_size": 2, **how}), input_shape=X.shape, **{"kernel_size": 2, **how}
    ),
    "Trainer": trainer,
    "accuracy": lambda **how: tg.training.accuracy(tg.Tensor, IMAGES, LABELS, **how),
    "evaluate": lambda **how: tg.training.evaluate(tg.Tensor, IMAGES, LABELS, **how),
    "outputs": lambda **how: tg.training.outputs(tg.Tensor, IMAGES, **how),
    "predict": lambda **how: tg.training.predict(tg.Tensor, IMAGES, **how),
    "hold_out": lambda **how: tg.data.hold_out(LABELS, rng=np.random.default_rng(0), **how),
    "should_stop": lambda **how: tg.training.should_stop([0.5], **how),
    "Checkpoint": lambda **how: tg.training.Checkpoint(NoRun(), **how),
    "ProfileSteps": tg.training.ProfileSteps,
    "Profile.table": lambda **how: tg.Profile().table(**how),
    "default_shard_size": tg.parallel.default_shard_size,
    "map_shards": lambda **how: tg.parallel.map_shards(lambda number, x: 0, IMAGES, **how),
    "value_and_grad": lambda **how: tg.parallel.value_and_grad(mean, {}, IMAGES, **how),
    "ascend": lambda **how: tg.explain.ascend(logits, X[0], 0, **how),
    "occlusion": lambda **how: tg.explain.occlusion(logits, X[0], **{"stride": 1, **how}),
    "saliency": lambda **how: tg.explain.saliency(logits, X[0], **how),
    "calibration_error": lambda **how: tg.training.calibration_error(np.full((4, 3), 1 / 3), LABELS, **how),
    "augment": lambda **how: tg.data.augment(PIXELS, np.random.default_rng(0), **how),
    "batches": lambda **how: tg.data.batches(**{"n": 3, "batch_size": 2, **how}),
    "decode_idx": lambda **how: tg.data.decode_idx(io.BytesIO(b"?"), "here", **how),
    "read_idx": lambda **how: tg.data.read_idx(__file__, **how),
    "from_image": lambda **how: tg.data.from_image(PIXELS[0], **how),
    "load_image_folder": lambda **how: tg.data.load_image_folder("/nowhere", **how),
    "find_mnist": lambda **how: tg.data.find_mnist("/nowhere", **how),
    "load_mnist": lambda **how: tg.data.load_mnist("/nowhere", **how),
    "synthetic_digits": tg.data.synthetic_digits,
    "CheckpointManager": lambda **how: tg.checkpoint.CheckpointManager(".", **how),
    "CheckpointManager.save": saving,
    "load_checkpoint": lambda **how: tg.checkpoint.load_checkpoint(__file__, **how),
    "load_metadata": lambda **how: tg.checkpoint.load_metadata(__file__, **how),
    "load_weights": lambda **how: tg.checkpoint.load_weights(__file__, **how),
    "read_metrics": lambda **how: tg.runs.read_metrics(__file__, **how),
    "Run.reconfigure": lambda **how: tg.runs.Run.reconfigure(NoRun(), **how),
    "Run.save": lambda **how: tg.runs.Run.save(NoRun(), **{"step": 1, "seconds": 0.0, **how}),
    "Run.record_time": lambda **how: tg.runs.Run.record_time(NoRun(), **how),
    "adjoint_check": lambda **how: tg.testing.adjoint_check(lambda x: x, lambda y: y, **{"shape": 2, **how}),
    "check_model": lambda **how: tg.testing.check_model(
        tg.nn.Linear(1, 2, rng=np.random.default_rng(0)), np.ones((2, 1)), np.zeros(2, int), **how
    ),
    "check_gradients": lambda **how: tg.testing.check_gradients(tg.exp, [0.5], **how),
    "arrays": lambda **how: tg.testing.arrays(3, **how),
    "axes": tg.testing.axes,
    "broadcastable_shapes": tg.testing.broadcastable_shapes,
    "indices": tg.testing.indices,
    "matmul_operands": tg.testing.matmul_operands,
    "permutations": tg.testing.permutations,
    "programs": tg.testing.programs,
}
ANY_SIGN = {"arrays.low", "arrays.high", "arrays.away_from", "check_gradients.wrt"}
ANY_SIGN |= {"cross_entropy.ignore_index", "nll_loss.ignore_index"}
ANY_SIGN |= {"elu.alpha", "leaky_relu.negative_slope", "ELU.alpha", "LeakyReLU.negative_slope"}
UNLIMITED = {"clip_grad_norm.norm_type"}  # may be infinite
TWO = {"matmul_operands.max_dims", "broadcastable_shapes.max_side", "whitening_filters.filters"}


def found() -> Iterator[tuple[str, str, str, bool]]:
    """Owner, name and kind of every numeric setting, and whether it may be None."""
    seen: list[Any] = []
    for space in SPACES:
        for name in getattr(space, "__all__", dir(space)):
            value = getattr(space, name)
            public = callable(value) and not (isinstance(value, type) and issubclass(value, BaseException))
            if not public or any(value is other for other in seen):
                continue
            seen.append(value)
            members = vars(value).items() if isinstance(value, type) else ()
            functions = {name: value} | {
                f"{name}.{key}": member for key, member in members if inspect.isfunction(member) and key[0] != "_"
            }
            for owner, function in functions.items():
                if owner.split(".")[0] in RESULTS or owner in INTERNAL | SHAPES:
                    continue
                for parameter in inspect.signature(function).parameters.values():
                    annotation = str(parameter.annotation).removesuffix(" | None")
                    numeric = re.search(r"\b(int|float|Pair)\b", annotation) and "Callable" not in annotation
                    if numeric and f"{owner}.{parameter.name}" not in SHAPES:
                        optional = annotation != parameter.annotation
                        yield owner, parameter.name, KINDS.get(annotation, f"unknown ({annotation})"), optional


SETTINGS = [setting for setting in found() if setting[2]]
settings_ = pytest.mark.parametrize(
    ("owner", "name", "kind", "optional"), SETTINGS, ids=[f"{owner}.{name}" for owner, name, *_ in SETTINGS]
)
NO_INTEGERS = [1.0, 0.5, math.nan, math.inf, "1", 1j, True, np.True_, {}, object(), np.float64(1), np.array(1.0)]
NO_INTEGERS += [np.array([1]), Decimal(1)]
NO_REALS = [math.nan, -math.inf, math.inf, "0.5", 0.5j, True, np.True_, {}, object(), 10**400, np.float32(math.nan)]
NO_REALS += [np.array([0.5]), np.complex64(1), np.array("x"), np.longdouble("1e4000")]
WRONG: dict[str, list[Any]] = {
    "integer": [*NO_INTEGERS, -1, -(10**400), 2**63, np.int64(-1)],
    "real": [*NO_REALS, -0.5, np.float16(-1), -(10**400)],
    "pair": [wrong for wrong in INVALID_PAIRS if wrong is not None] + [math.nan, (1, math.nan), (True, 1, 1), 1j],
    "reals": [(wrong, 0.5) for wrong in NO_REALS] + [(0.5, -0.5), (0.5, "x"), 0.5, None],
    "integers": [(wrong, 1) for wrong in NO_INTEGERS] + [(1, -1)],
}


def test_every_owner_of_a_setting_can_be_called() -> None:
    lacking = sorted({owner for owner, *_ in SETTINGS} - CALLS.keys())
    assert not lacking, f"add to CALLS in {__file__} how to call {', '.join(lacking)} with a setting by keyword"
    unknown = [f"{owner}.{name}: {kind}" for owner, name, kind, _ in SETTINGS if kind.startswith("unknown")]
    assert not unknown, f"add to KINDS what is allowed for {', '.join(unknown)}"


@settings_
def test_what_makes_no_sense_is_refused_by_name(owner: str, name: str, kind: str, optional: bool) -> None:
    for wrong in [*WRONG[kind], *([] if optional else [None])]:
        if f"{owner}.{name}" in ANY_SIGN and "-" in repr(wrong) and "inf" not in repr(wrong):
            continue
        if f"{owner}.{name}" in UNLIMITED and repr(wrong) == "inf":
            continue
        with pytest.raises((TypeError, ValueError), match=rf"^\w.*\b{name}\b.*(it )?must be") as caught:
            CALLS[owner](**{name: wrong})
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def outcome(owner: str, **setting: Any) -> Any:
    """What comes of a call, in words: the result, or what it says is wrong."""
    try:
        result = CALLS[owner](**setting)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if isinstance(result, optim.Optimizer):
        return json.dumps({key: value for key, value in result.state_dict().items() if key != "state"})
    if isinstance(result, tg.training.Trainer):
        return [row["loss"] if "loss" in row else row["mean_loss"] for row in trained(result)]
    return repr(result(1, 4)) if inspect.isfunction(result) else re.sub(r" at 0x\w+", "", repr(result))


def trained(made: tg.training.Trainer) -> list[dict[str, Any]]:
    list(made.steps())
    return made.history


@settings_
def test_numbers_of_numpy_are_as_good_as_those_of_python(owner: str, name: str, kind: str, optional: bool) -> None:
    whole = 2 if f"{owner}.{name}" in TWO else 0 if name in ("wrt", "padding") else 1
    good = {"integer": whole, "real": 0.5, "pair": whole, "reals": (0.5, 0.25), "integers": (2, 1)}[kind]
    types: list[Any] = [np.float64, np.float32, np.float16] if "real" in kind else [np.int64, np.uint8, np.int8]
    np.random.seed(0)
    expected = outcome(owner, **{name: good})
    assert "must be" not in str(expected), "Python's own number"
    for convert in [*types, np.array]:
        alike = tuple(map(convert, good)) if isinstance(good, tuple) else convert(good)
        if owner == "initial_weights" or owner in ("Conv2d", "Linear"):
            continue  # drawn anew each time
        assert outcome(owner, **{name: alike}) == expected, repr(alike)


@given(st.sampled_from([optim.SGD, optim.AdaGrad, optim.RMSprop, optim.Adam, optim.AdamW, optim.Muon]), st.data())
def test_settings_of_an_optimizer_are_checked_whenever_they_are_set_and_never_lead_to_nan(kind: Any, data: Any) -> None:
    numbers = st.one_of(st.floats(), st.floats(0, 1), st.sampled_from([0, 1, -1, "x", None, True]))
    params = {
        "w": tg.Tensor(data.draw(st.sampled_from([np.float16, np.float32, np.float64]))([1, -2, 0]), requires_grad=True)
    }
    optimizer = kind(params)
    before = optimizer.state_dict()
    for name in [name for name in kind.settings if name not in ("nesterov", "centered")]:
        value = data.draw(st.tuples(numbers, numbers) if name == "betas" else numbers, label=name)
        given_late, loaded = copy.deepcopy(optimizer), {**before, name: value}
        try:
            made = kind(params, **{name: value})
        except (TypeError, ValueError) as error:
            assert str(error).startswith(f"{kind.__name__}: {name}")
            with pytest.raises(type(error), match=f"{kind.__name__}: {name}"):
                setattr(given_late, name, value)
            with pytest.raises(ValueError, match=f"the saved state does not fit: {name}"):
                optimizer.load_state_dict(loaded)
            assert optimizer.state_dict()[name] == before[name] == getattr(given_late, name)
        else:
            setattr(given_late, name, value)
            optimizer.load_state_dict(
                json.loads(json.dumps({key: v for key, v in loaded.items() if key != "state"}))
                | {"state": before["state"]}
            )
            for other in (made, given_late, optimizer):
                kept = getattr(other, name)
                assert kept == value and {type(part) for part in np.atleast_1d(kept).tolist()} == {float}
    largest = float(np.finfo(params["w"].dtype).max)
    optimizer.lr = min(optimizer.lr, 1.0)
    for gradient in ([0.0, 1.0, 0.0], [0.0, 0.0, 2.0]):
        optimizer.weight_decay = min(optimizer.weight_decay, 1.0)
        with np.errstate(over="ignore"):  # an eps that is infinite in float16: no step
            optimizer.step({"w": np.array(gradient)})
        assert params["w"].dtype.kind == "f" and np.abs(params["w"].data).max() <= largest


@pytest.mark.parametrize("convert", [np.float64, np.float32, np.array])
def test_numbers_of_numpy_come_back_from_a_state(convert: Any, tmp_path: Path) -> None:
    saved = optim.AdamW(
        weights(), lr=convert(0.5), betas=(convert(0.25), convert(0.5)), eps=convert(0.125)
    ).state_dict()
    by_hand = {**saved, "lr": convert(0.5), "betas": [convert(0.25), convert(0.5)], "steps": np.array(0)}
    tg.checkpoint.save_checkpoint(tmp_path / "a.safetensors", by_hand)
    for state in (saved, by_hand, tg.checkpoint.load_checkpoint(tmp_path / "a.safetensors")):
        optimizer = optim.AdamW(weights())
        optimizer.load_state_dict(state)
        kept = {name: value for name, value in optimizer.state_dict().items() if name != "state"}
        assert json.loads(json.dumps(kept)) == json.loads(json.dumps({name: saved[name] for name in kept}))
    run = tg.runs.Run.create(tmp_path / "run", {"lr": convert(0.5), "epochs": np.int64(2)})
    run.record("step", step=np.int32(1), loss=convert(0.5))
    run.close()
    assert run.config == {"lr": 0.5, "epochs": 2} == json.loads((tmp_path / "run" / "config.json").read_text())
    assert tg.runs.read_metrics(tmp_path / "run" / "metrics.jsonl") == [{"event": "step", "step": 1, "loss": 0.5}]


@given(st.floats(0, 1), st.sampled_from([np.float64, np.float32, np.array, np.longdouble]))
def test_a_learning_rate_of_numpy_leaves_float32_as_it_is(rate: float, convert: Any) -> None:
    for kind in (optim.SGD, optim.AdaGrad, optim.RMSprop, optim.Adam, optim.AdamW, optim.Muon):
        first, second = weights(), weights()
        for params, lr in ((first, convert(rate)), (second, float(convert(rate)))):
            optimizer = kind(params, lr=lr)
            optimizer.step({"w": np.array([0.3, -2], np.float32)})
            assert optimizer.update(np.ones(2, np.float32), optimizer.state["w"]).dtype == np.float32
            assert type(optimizer.state_dict()["lr"]) is float
        assert first["w"].data.tobytes() == second["w"].data.tobytes()
