"""The dataclass of settings: options, help, stored configuration and recipes follow from it and agree."""

from __future__ import annotations

import argparse
import dataclasses
import doctest
import json
import pickle
from dataclasses import asdict, fields
from typing import Any

import command_line
import numpy as np
import pytest
from command_line import Parser, add_options, check_values, option
from hypothesis import given
from hypothesis import strategies as st
from reproduction.listed import ListedSettings
from training import build, opening, settings
from training.settings import OPTIMIZERS, RECIPES, Settings

import tinygrad_mnist as tg

OWN = {
    "momentum": st.floats(0, 1),
    "weight_decay": st.floats(0, 1),
    "betas": st.tuples(st.floats(0, 1), st.floats(0, 1)),
}  # settings of some optimizers


@st.composite
def some_settings(draw: st.DrawFn) -> dict[str, Any]:
    """Settings that go together, as keyword arguments."""
    chosen: dict[str, Any] = {}
    for f in fields(Settings):
        about = f.metadata
        if about["choices"]:
            values = st.sampled_from(about["choices"])
        elif f.name == "paper_protocol":
            continue
        elif f.name == "epochs":
            values = st.integers(1, 99) | st.floats(0, 99, exclude_min=True)
        elif about["least"] is not None and f.name not in OWN:
            least = about["least"]
            small = st.integers(int(least), 99) if "int" in str(f.type) else st.floats(least, 99)
            values = st.none() | small if f.default is None else small
        else:
            continue
        if draw(st.booleans()):
            chosen[f.name] = draw(values)
    for name, values in OWN.items():
        if name in OPTIMIZERS[chosen.get("optimizer", "adagrad")][1] and draw(st.booleans()):
            chosen[name] = draw(values)
    return chosen


def parsed(*argv: str) -> dict[str, Any]:
    parser = Parser("test", "", "")
    add_options(parser, Settings)
    return vars(parser.parse_args(argv))


@given(some_settings())
def test_settings_survive_json_pickle_and_the_command_line(chosen: dict[str, Any]) -> None:
    made = Settings(**chosen)
    assert Settings.from_config(json.loads(json.dumps({**asdict(made), "data": "x"}))) == made
    assert pickle.loads(pickle.dumps(made)) == made and dataclasses.replace(made) == made
    given_ = {name: value for name, value in chosen.items() if value is not None}
    argv = [
        [f"--{name.replace('_', '-')}", *map(str, v if isinstance(v, tuple) else [v])] for name, v in given_.items()
    ]
    assert Settings(**parsed(*sum(argv, []))) == made


@given(some_settings(), st.data())
def test_a_stored_value_of_the_wrong_kind_is_refused_by_name(chosen: dict[str, Any], data: Any) -> None:
    name = data.draw(st.sampled_from([f.name for f in fields(Settings) if not isinstance(f.default, bool)]))
    wrong = data.draw(st.sampled_from([True, -1, "nan", [], {"x": 1}, float("nan"), 1.5j]))
    config = {**asdict(Settings(**chosen)), name: wrong}
    if name in OWN and name not in OPTIMIZERS.get(config["optimizer"], (None, OWN))[1]:
        return  # version 0.1.0 stored what had no effect: it is left out
    with pytest.raises(ValueError, match=f"the setting {name} is .*; it must be") as found:
        Settings.from_config(config)
    assert "\n" not in str(found.value) and len(str(found.value)) < 250


@pytest.mark.parametrize("text, stored", [("8", "8"), ("8.0", "8"), ("0.6", "0.6"), ("1e1", "10")])
def test_a_whole_number_of_epochs_is_stored_as_an_integer(text: str, stored: str) -> None:
    made = Settings(**parsed("--epochs", text))
    assert json.dumps(asdict(made)["epochs"]) == stored and type(Settings().epochs) is int
    assert Settings.from_config({"epochs": 8}) == Settings() == Settings.from_config({"epochs": 8.0})


@pytest.mark.parametrize("wrong", ["0", "-0.1", "nan", "inf", "many"])
def test_epochs_are_above_0(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--epochs", wrong)
    assert f"argument --epochs: '{wrong}' is not a finite number above 0 (" in capsys.readouterr().err


def test_help_says_what_each_setting_is_and_its_default() -> None:
    parser = argparse.ArgumentParser()
    for cls in (opening.Session, Settings):
        add_options(parser, cls)
    text = " ".join(parser.format_help().split())
    for f in fields(Settings):
        assert f"--{f.name.replace('_', '-')}" in text
    for words in (
        "times to go through the training images; 0.6 and 1.25, say, end within an epoch (default: 8)",
        "(default: adagrad)",
        "learning rate (default: 0.01; 0.001 for adam, adamw and muon)",
        "sgd (default: 0.9) and muon (default: 0.95)",
        "(default: 0.9 0.999)",
        "(default: 0; 0.25 for one-cycle)",
        "number of convolutions (default: 6, 21 layers)",
        "(default: paper, whose values are given)",
        "(default: 5000, or a tenth of fewer than 50000 images",
        "or seconds as in 30s (default: 30s)",
        "in some steps (default: 20)",
    ):
        assert words in text
    assert "None" not in text and "{default}" not in text and "default: False" not in text


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_has_its_own_settings_and_no_others(name: str) -> None:
    kind, own = OPTIMIZERS[name]
    made = Settings(optimizer=name)
    assert {key: getattr(made, key) for key in own} == own
    optimizer = kind({"w": tg.Tensor(np.zeros(2), requires_grad=True)}, **own)
    assert all(getattr(optimizer, key) == value for key, value in own.items())
    for foreign in OWN.keys() - own.keys():
        value = (0.5, 0.5) if foreign == "betas" else 0.5
        assert getattr(made, foreign) is None
        with pytest.raises(ValueError, match=rf"--{foreign.replace('_', '-')} is .*0.5.*, but {name} has none"):
            Settings(optimizer=name, **{foreign: value})


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_a_beginning(recipe: str) -> None:
    made = Settings.from_recipe(recipe)
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(made).items()}
    assert values == {**values, **RECIPES[recipe]} and made.recipe == recipe
    changed = Settings.from_recipe(recipe, optimizer="sgd", depth=4)
    momentum = RECIPES[recipe].get("momentum", 0.9)  # sgd has one, too; it has no weight decay
    assert (changed.momentum, changed.weight_decay, changed.depth) == (momentum, None, 4)
    with pytest.raises(TypeError, match="learning_rate"):
        Settings.from_recipe(recipe, learning_rate=1)
    with pytest.raises(ValueError, match="the setting optimizer is 'lion'; it must be one of adagrad"):
        Settings.from_recipe(recipe, optimizer="lion")


def test_a_configuration_of_version_0_1_0_can_be_read() -> None:
    stored = {"optimizer": "adagrad", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.01}
    assert Settings.from_config(stored) == Settings()
    assert Settings.from_config({**stored, "optimizer": "sgd"}).momentum == 0.9
    assert ListedSettings.from_config(stored) == ListedSettings()


def test_fields_of_a_sequence_are_checked_one_by_one() -> None:
    @dataclasses.dataclass
    class Names:
        names: tuple[str, ...] = option(("a",), "some", choices=("a", "b"))

    parser = argparse.ArgumentParser()
    add_options(parser, Names)
    assert parser.parse_args(["--names", "a", "b"]).names == ["a", "b"]
    check_values(Names(["a", "b"]))
    for wrong in (["a", "c"], "c", 3, [3], None):
        with pytest.raises(ValueError, match="the setting names is .*; it must be one of a, b"):
            check_values(Names(wrong))


@pytest.mark.parametrize("module", [command_line, build, settings], ids=lambda module: module.__name__)
def test_examples_in_docstrings_are_true(module: Any) -> None:
    found = doctest.testmod(module)
    assert found.attempted and not found.failed
