"""Trained classifiers: a file of weights is of the model that it says, or refused in one line."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import one_folder, peak_below
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg
from models import pretrained
from models.deep_convnet import DeepConvNet
from models.lenet import LeNet5
from models.mlp import MLP
from models.pretrained import CLASSIFIERS, describe, load_classifier
from models.resnet import ResNet
from models.vision_transformer import VisionTransformer
from tinygrad_mnist.storage.checkpoint import CheckpointError

MODELS = [
    ("deep_convnet.DeepConvNet", DeepConvNet, {}),
    ("deep_convnet.DeepConvNet", DeepConvNet, {"depth": 5, "rescale": "train", "dropout": 0.25, "dtype": "float64"}),
    ("lenet.LeNet5", LeNet5, {}),
    ("mlp.MLP", MLP, {"hidden": 7}),
    ("resnet.ResNet", ResNet, {}),
    ("vision_transformer.VisionTransformer", VisionTransformer, {"depth": 1}),
]
IMAGES, _ = tg.data.synthetic_digits(3, rng=np.random.default_rng(0))


def saved(path: Path, model: Any, /, **metadata: str) -> Path:
    tg.checkpoint.save_weights(path, tg.nn.state_dict(model), metadata)
    return path


def refused(path: Path) -> str:
    """The error, which is one line that names the file."""
    with pytest.raises(CheckpointError, match=re.escape(str(path))) as caught:
        load_classifier(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(path)) + 2000
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize(("name", "kind", "arguments"), MODELS, ids=lambda value: str(value)[:30])
def test_every_classifier_comes_back_from_its_file(tmp_path: Path, name: str, kind: Any, arguments: Any) -> None:
    model = kind(np.random.default_rng(5), **arguments)
    model(IMAGES, np.random.default_rng(0))  # batch normalization has statistics now
    path = saved(tmp_path / "w.safetensors", model, **describe(name, **arguments), temperature="1.5", data="none")
    found = load_classifier(path)
    assert type(found.model) is kind and (found.name, found.path, found.temperature) == (name, path, 1.5)
    assert found.metadata == {**describe(name, **arguments), "temperature": "1.5", "data": "none"}
    np.testing.assert_array_equal(found.model(IMAGES).data, model(IMAGES).data)


def test_the_models_of_the_tests_are_all_that_are_known() -> None:
    assert {name for name, *_ in MODELS} == set(CLASSIFIERS)
    with pytest.raises(ValueError, match=r"mlp.Other is not a classifier of models/; use one of deep_convnet"):
        describe("mlp.Other")


@pytest.mark.parametrize("arguments", [{"hidden": 10_001}, {"hidden": [3]}, {"dtype": np.float32}, {"dtype": "V8"}])
def test_what_could_not_be_loaded_is_not_described(arguments: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=f"mlp.MLP: {next(iter(arguments))} is .*; arguments are numbers, whole ones of"
    ):
        describe("mlp.MLP", **arguments)


@pytest.mark.parametrize("depth", [6, 5, 4])
def test_a_file_that_says_nothing_is_of_the_network_that_fits(tmp_path: Path, depth: int) -> None:
    model = DeepConvNet(np.random.default_rng(1), depth=depth)
    for name in ("w.npz", "w.safetensors"):
        found = load_classifier(saved(tmp_path / name, model))
        assert (found.name, found.temperature, found.metadata) == ("deep_convnet.DeepConvNet", 1.0, {})
        np.testing.assert_array_equal(found.model(IMAGES).data, model(IMAGES).data)


def test_weights_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    lenet, path = LeNet5(np.random.default_rng(0)), tmp_path / "w.safetensors"
    saved(path, lenet, **describe("deep_convnet.DeepConvNet"))
    assert refused(path).endswith("use the weights of a model of the same size (model: deep_convnet.DeepConvNet)")
    saved(path, DeepConvNet(depth=4), **describe("deep_convnet.DeepConvNet", depth=5))
    assert "does not fit the model" in refused(path)
    saved(path, lenet)
    assert "the weights in" in (said := refused(path)) and "fit lenet.LeNet5, but it does not say so; save" in said
    saved(path, tg.nn.Linear(3, 2))
    assert "are of no model of models/" in refused(path)
    saved(path, lenet, **{"exported from": "lenet.LeNet5"})
    assert "holds weights of lenet.LeNet5 in the layout of PyTorch; name the file that they were" in refused(path)
    for name in ("vae.VAE", "os.system", "", "deep_convnet", "deep_convnet.np", "x\n" * 1000):
        saved(path, lenet, model=name)
        assert "which is no classifier of models/; use weights of deep_convnet.DeepConvNet, lenet" in refused(path)


def test_batch_normalization_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", ResNet(np.random.default_rng(0)), **describe("resnet.ResNet"))
    assert refused(path).startswith(", of resnet.ResNet, is not trained: BatchNorm2d")


def test_weights_whose_answers_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = MLP(np.random.default_rng(0), 2)
    for layer in (model.hidden, model.out):
        layer.weight.data = np.full_like(layer.weight.data, 1e30)
    path = saved(tmp_path / "w.safetensors", model, **describe("mlp.MLP", hidden=2))
    assert "of mlp.MLP, has weights so large that its answers are not finite" in refused(path)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("lenet.LeNet5", "no json"),
        ("lenet.LeNet5", "[]"),
        ("lenet.LeNet5", "[" * 100_000),
        ("lenet.LeNet5", '{"hidden": 0}'),
        ("lenet.LeNet5", '{"rng": null}'),
        ("mlp.MLP", '{"hidden": 10001}'),
        ("mlp.MLP", '{"hidden": -1}'),
        ("mlp.MLP", '{"hidden": 2.5}'),
        ("mlp.MLP", '{"hidden": 1e300}'),
        ("mlp.MLP", '{"hidden": [100]}'),
        ("mlp.MLP", '{"hidden": "100"}'),
        ("mlp.MLP", '{"hidden": ' + "9" * 5000 + "}"),
        ("vision_transformer.VisionTransformer", '{"depth": 1000000}'),
        ("deep_convnet.DeepConvNet", '{"depth": 7}'),
        ("deep_convnet.DeepConvNet", '{"depth": null}'),
        ("deep_convnet.DeepConvNet", '{"dropout": NaN}'),
        ("deep_convnet.DeepConvNet", '{"dropout": -1}'),
        ("deep_convnet.DeepConvNet", '{"rescale": "sometimes"}'),
        ("deep_convnet.DeepConvNet", '{"init": "none"}'),
        ("deep_convnet.DeepConvNet", '{"dtype": "V1000000000"}'),
        ("deep_convnet.DeepConvNet", '{"dtype": "object"}'),
        ("deep_convnet.DeepConvNet", '{"label_smoothing": "a"}'),
    ],
    ids=lambda value: value[:40],
)
def test_arguments_that_make_no_model_are_refused_by_name_and_take_no_memory(
    tmp_path: Path, name: str, arguments: str
) -> None:
    path = saved(tmp_path / "w.safetensors", tg.nn.Linear(3, 2), model=name, arguments=arguments)
    with peak_below(40_000_000):
        assert refused(path).startswith(f" says that it is of {name} with the arguments ")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e400", "", "warm", "1\n2"])
def test_a_temperature_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    about = describe("mlp.MLP", hidden=2)
    path = saved(tmp_path / "w.safetensors", MLP(np.random.default_rng(0), 2), **about, temperature=text)
    assert refused(path).endswith("; it must be a finite number above 0: save it anew")


json_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
names = st.sampled_from(
    ["depth", "init", "dropout", "rescale", "logit_dropout", "label_smoothing", "dtype", "rng", "x"]
)


@one_folder
@given(st.dictionaries(names, json_values, max_size=3) | json_values)
def test_any_arguments_are_used_or_refused(tmp_path: Path, arguments: Any) -> None:
    path = tmp_path / "w.safetensors"
    model = DeepConvNet(depth=4)
    saved(path, model, model="deep_convnet.DeepConvNet", arguments=json.dumps(arguments))
    try:
        found = load_classifier(path)
    except CheckpointError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert found.model(IMAGES).shape == (3, 10)


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_classifier(tmp_path / "none")
    tg.checkpoint.save_checkpoint(tmp_path / "c.safetensors", {"step": 1})
    assert "is a checkpoint" in refused(tmp_path / "c.safetensors")


def test_the_example_in_the_docstring_is_true() -> None:
    assert doctest.testmod(pretrained).failed == 0
