"""State dicts for PyTorch, without PyTorch: compared with its modules in NumPy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_arithmetic as like_torch
from hypothesis import given
from hypothesis import strategies as st
from random_state import randomize

import tinygrad_mnist as tg
from models.deep_convnet import Affine, DeepConvNet
from models.maml import Networks
from models.vision_transformer import VisionTransformer
from tinygrad_mnist.export.torch_weights import from_torch_state_dict, to_torch_state_dict
from tinygrad_mnist.nn import (
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Embedding,
    Flatten,
    GroupNorm,
    LayerNorm,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    Tanh,
)


# Parts of a chain: a layer, and PyTorch's modules for it
def dropouts() -> st.SearchStrategy[Any]:
    kinds = st.tuples(st.sampled_from([0.0, 0.2, 0.5]), st.sampled_from(["train", "test"]))
    return kinds.map(lambda kind: (Dropout(*kind), [like_torch.dropout(kind[0])]))


@st.composite
def chains(draw: Any) -> list[Any]:
    """Parts that map (N, 2, 6, 6) in float64."""
    how: Any = {"rng": np.random.default_rng(0), "dtype": np.float64}
    parts: list[Any] = [(Conv2d(2, 3, 3, **how), [like_torch.conv2d])]
    parts += draw(st.lists(dropouts(), max_size=1))
    if draw(st.booleans()):
        parts.append((BatchNorm2d(3, dtype=np.float64), [like_torch.batch_norm]))
    parts += [(ReLU(), [like_torch.relu]), (MaxPool2d(2), [like_torch.max_pool2d])]
    size = 12
    flat = draw(st.booleans())
    if flat:
        parts.append((Flatten(), [like_torch.flatten]))
    for _ in range(draw(st.integers(1, 3))):
        width = draw(st.integers(1, 4))
        if flat:
            kind, modules = draw(st.sampled_from([Affine, Linear])), [like_torch.linear]
        else:
            kind, modules = Affine, [like_torch.flatten, like_torch.linear]
        parts.append((kind(size, width, bias=draw(st.booleans()), **how), modules))
        size, flat = width, True
        others = [
            (Tanh(), [like_torch.tanh]),
            (ReLU(), [like_torch.relu]),
            (LayerNorm(size, dtype=np.float64), [like_torch.layer_norm]),
        ]
        parts += draw(st.lists(st.one_of(dropouts(), st.sampled_from(others)), max_size=2, unique_by=id))
    return parts


def together(parts: list[Any]) -> tuple[Sequential, like_torch.Module]:
    modules = [module for _, several in parts for module in several]
    return Sequential(*(layer for layer, _ in parts)), like_torch.sequential(modules)


def has_no_place(layers: list[Any]) -> bool:
    """Whether a classic dropout has neither a linear layer behind it, nor a linear or normalizing one before it."""
    for index, layer in enumerate(layers):
        if isinstance(layer, Dropout) and layer.rescale == "test" and layer.p:
            following, preceding = (
                [other for other in side if not isinstance(other, (ReLU, MaxPool2d, Flatten, Dropout))]
                for side in (layers[index:], layers[:index])
            )
            if not (following and isinstance(following[0], Linear)) and isinstance(preceding[-1], Tanh):
                return True
    return False


@given(chains(), st.data())
def test_modules_of_pytorch_compute_the_same(parts: list[Any], data: Any) -> None:
    layers = [layer for layer, _ in parts]
    start = data.draw(st.integers(0, len(parts)))
    inner = parts[start : data.draw(st.integers(start, len(parts)))]  # an nn.Sequential in the other
    if inner:
        layer, module = together(inner)
        parts = [*parts[:start], (layer, [module]), *parts[start + len(inner) :]]
    model, twin = together(parts)
    randomize(model)
    if has_no_place(layers):
        with pytest.raises(ValueError, match="no weights are known to take that factor; pass fold_dropout=False"):
            to_torch_state_dict(model)
        return
    x = np.random.default_rng(1).normal(size=(4, 2, 6, 6))
    state = to_torch_state_dict(model)
    np.testing.assert_allclose(twin(x, state), model(x).data, rtol=1e-9, atol=1e-12)
    if not any(isinstance(layer, BatchNorm2d) for layer in layers):
        rngs = [np.random.default_rng(2) for _ in range(2)]
        np.testing.assert_allclose(twin(x, state, rngs[0]), model(x, rngs[1]).data, rtol=1e-9, atol=1e-12)


@given(chains())
def test_weights_come_back(parts: list[Any]) -> None:
    model = together(parts)[0]
    for fold in (False, True):
        original = randomize(copy.deepcopy(model), 1)
        if fold and has_no_place(model.layers):
            continue
        state = to_torch_state_dict(original, fold_dropout=fold)
        from_torch_state_dict(model, state, fold_dropout=fold)
        for array in state.values():
            array[...] = 7  # copies: neither model changes
        found = tg.nn.state_dict(model)
        for name, value in tg.nn.state_dict(original).items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_max_ulp(found[name], value, 2 if fold else 0)


def test_the_network_of_21_layers_has_an_nn_flatten_and_no_factors_in_pytorch() -> None:
    model = randomize(DeepConvNet())
    state = to_torch_state_dict(model)
    kept = tg.nn.state_dict(model)
    assert list(state)[-4:] == ["16.weight", "16.bias", "19.weight", "19.bias"]
    np.testing.assert_array_equal(state["16.weight"], kept["layers.15.weight"].T)
    np.testing.assert_array_equal(state["19.weight"], kept["layers.18.weight"].T / 4)  # the dropouts before and behind
    np.testing.assert_array_equal(state["19.bias"], kept["layers.18.bias"] / 2)
    other = DeepConvNet()
    from_torch_state_dict(other, state)
    assert all((value == kept[name]).all() for name, value in tg.nn.state_dict(other).items())


@pytest.mark.parametrize(
    "layer",
    [
        Conv1d(2, 3, 3, bias=False),
        Conv2d(4, 6, (2, 3), groups=2),
        ConvTranspose2d(4, 6, 3, groups=2),
        BatchNorm1d(3, affine=False),
        GroupNorm(2, 4),
        LayerNorm((2, 3), bias=False),
        Embedding(5, 3),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_all_but_linear_layers_have_the_layout_of_pytorch(layer: Any) -> None:
    state = to_torch_state_dict(randomize(layer))
    kept = tg.nn.state_dict(layer)
    assert list(state) == list(kept)
    for name, array in state.items():
        assert type(array) is np.ndarray and array.dtype == kept[name].dtype and array.shape == kept[name].shape
        np.testing.assert_array_equal(array, kept[name])


class Twice:
    """One layer in two places, and a parameter of its own."""

    def __init__(self) -> None:
        self.first = Linear(3, 3)
        self.scale = tg.Tensor(np.ones(3, np.float32), requires_grad=True)
        self.second = self.first


def test_a_layer_in_two_places_has_two_names_as_in_pytorch() -> None:
    model = randomize(Twice())
    state = to_torch_state_dict(model)
    assert list(state) == ["first.weight", "first.bias", "scale", "second.weight", "second.bias"]
    from_torch_state_dict(Twice(), state)
    state["second.bias"] = state["second.bias"] + 1
    with pytest.raises(ValueError, match=r"first\.bias and second\.bias are one Tensor in the model, and differ"):
        from_torch_state_dict(model, state)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, ["0.weight", "2.0.weight", "2.1.weight"]),
        ({"": "net"}, ["net.0.weight", "net.2.0.weight", "net.2.1.weight"]),
        ({"2": "", "0": "first"}, ["first.weight", "0.weight", "1.weight"]),
        ({"2": "tail", "2.1": "last", "0.weight": "w"}, ["w", "tail.0.weight", "last.weight"]),
        (lambda name: name.upper(), ["0.WEIGHT", "2.0.WEIGHT", "2.1.WEIGHT"]),
    ],
)
def test_other_names(names: Any, expected: list[str]) -> None:
    def made(seed: int) -> Sequential:
        layers = [Linear(2, 3, False), Linear(3, 3, False), Linear(3, 2, False)]
        return randomize(Sequential(layers[0], ReLU(), Sequential(*layers[1:])), seed)

    first, second = made(0), made(1)
    state = to_torch_state_dict(first, names=names)
    assert list(state) == expected
    from_torch_state_dict(second, state, names=names)
    assert all((value == tg.nn.state_dict(second)[name]).all() for name, value in tg.nn.state_dict(first).items())


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        ({"hidden": "fc"}, ValueError, "names has 'hidden', but no name begins so; there are 0.weight"),
        ({"0": "1"}, ValueError, "0.weight and 1.weight are both called 1.weight in PyTorch"),
        (lambda name: None, TypeError, "names makes None of 0.weight"),
        ("net", TypeError, "names is a str; pass a dict or a function"),
    ],
)
def test_wrong_names_are_refused(names: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        to_torch_state_dict(Sequential(Linear(2, 2), Linear(2, 2)), names=names)


class OnADevice:
    """What a torch.Tensor offers; its dtype may be one that NumPy lacks."""

    def __init__(self, values: Any, dtype: str = "torch.float32") -> None:
        self.values, self.dtype = np.asarray(values, np.float32), dtype

    def detach(self) -> OnADevice:
        return self

    def cpu(self) -> OnADevice:
        return self

    def numpy(self) -> Any:
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values


def test_tensors_of_pytorch_are_read_without_it() -> None:
    layer = Linear(2, 1)
    from_torch_state_dict(layer, {"weight": OnADevice([[3, 4]]), "bias": OnADevice([5])})
    assert layer.weight.data.tolist() == [[3], [4]] and layer.bias.data.tolist() == [5]


WEIGHT, BIAS = np.ones((1, 2), np.float32), np.ones(1, np.float32)


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ({"weight": WEIGHT}, ValueError, "bias is missing"),
        ({"weight": WEIGHT, "bias": BIAS, "scale": BIAS}, ValueError, "scale is not in the model"),
        ({"weight": WEIGHT.T, "bias": BIAS}, ValueError, r"weight has shape \(2, 1\), the model's is \(1, 2\)"),
        ({"weight": WEIGHT, "bias": np.ones(1, int)}, ValueError, "bias is int64, the model's is float32"),
        ({"fc.weight": WEIGHT, "fc.bias": BIAS}, ValueError, "if names differ, pass names="),
        ({"weight": WEIGHT, "bias": OnADevice([1], "torch.bfloat16")}, TypeError, "bias is torch.bfloat16.*float()"),
        ({"weight": WEIGHT, "bias": None}, TypeError, "bias is a NoneType; it must be an array"),
        ("model.pt", TypeError, r"the weights are a str; pass module.state_dict\(\)"),
    ],
)
def test_what_does_not_fit_changes_nothing(state: Any, error: type[Exception], words: str) -> None:
    layer = Linear(2, 1, rng=np.random.default_rng(0))
    before = tg.nn.state_dict(layer)
    with pytest.raises(error, match=f"from_torch_state_dict: .*{words}"):
        from_torch_state_dict(layer, state)
    assert all((value == before[name]).all() for name, value in tg.nn.state_dict(layer).items())


class Apart:
    """Nobody knows in which order the layers are called."""

    def __init__(self) -> None:
        self.first, self.drop, self.last = Linear(2, 2), Dropout(0.2, "test"), Linear(2, 2)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (Apart(), "drop"),
        (Sequential(Linear(2, 2), Dropout(1.0, "test"), Linear(2, 2)), "1"),
        (Sequential(Tanh(), Dropout(0.5, "test"), Tanh(), Linear(2, 2)), "1"),
        (Sequential(BatchNorm1d(2, affine=False), Dropout(0.5, "test")), "1"),
    ],
)
def test_a_factor_without_a_place_is_refused(model: Any, name: str) -> None:
    with pytest.raises(
        ValueError, match=f"to_torch_state_dict: {name}, Dropout.*pass fold_dropout=False, and multiply"
    ):
        to_torch_state_dict(model)
    from_torch_state_dict(model, to_torch_state_dict(model, fold_dropout=False), fold_dropout=False)


@pytest.mark.parametrize(
    ("layer", "before", "behind"),
    [
        (Conv1d(2, 2, 1), ["weight"], ["weight", "bias"]),
        (ConvTranspose2d(2, 2, 1), ["weight"], ["weight", "bias"]),
        (GroupNorm(1, 2), [], ["weight", "bias"]),
        (BatchNorm1d(2), [], ["weight", "bias"]),
        (Embedding(3, 2), [], ["weight"]),
    ],
    ids=lambda value: getattr(type(value), "__name__", None),
)
def test_where_factors_go(layer: Any, before: list[str], behind: list[str]) -> None:
    randomize(layer)
    for model, name, scaled in (
        (Sequential(Dropout(0.5, "test"), AvgPool2d(1), layer), "2", before),
        (Sequential(layer, AvgPool2d(1), Dropout(0.5, "test")), "0", behind),
    ):
        if scaled:
            for part, value in tg.nn.state_dict(layer).items():
                factor = 0.5 if part in scaled else 1
                np.testing.assert_array_equal(to_torch_state_dict(model)[f"{name}.{part}"], factor * value)


@pytest.mark.parametrize("between", [Tanh(), LayerNorm(2)], ids=lambda layer: type(layer).__name__)
def test_factors_do_not_pass_what_changes_them(between: Any) -> None:
    model = randomize(Sequential(Linear(2, 2), Dropout(0.5, "test"), between, Linear(2, 2)))
    state, kept = to_torch_state_dict(model), tg.nn.state_dict(model)
    np.testing.assert_array_equal(state["0.weight"], kept["layers.0.weight"].T / 2)
    np.testing.assert_array_equal(state["3.weight"], kept["layers.3.weight"].T)


def test_a_layer_that_would_need_two_factors_is_refused() -> None:
    layer = Linear(2, 2)
    with pytest.raises(ValueError, match=r"0\.weight and 2\.weight are one Tensor.*different factors"):
        to_torch_state_dict(Sequential(layer, Dropout(0.5, "test"), layer))


class Squared(Linear):
    def __call__(self, x: Any, rng: Any = None) -> tg.Tensor:
        return super().__call__(x) ** 2


@given(st.integers(0, 2**32), st.sampled_from([np.float16, np.float32, np.float64]), st.sampled_from([0, 1, np.nan]))
def test_the_names_do_not_depend_on_the_weights(seed: int, dtype: Any, factor: float) -> None:
    model = Sequential(Affine(256, 50, rng=np.random.default_rng(seed), dtype=dtype), Squared(50, 10))
    model.layers[0].weight.data *= dtype(factor)
    model.layers[1].weight.data *= 0
    assert list(to_torch_state_dict(model)) == ["1.weight", "1.bias", "2.weight", "2.bias"]


def test_a_kind_of_linear_that_is_none_takes_no_factor() -> None:
    model = randomize(Sequential(Linear(2, 2), Dropout(0.5, "test"), Squared(2, 2)))
    state, kept = to_torch_state_dict(model), tg.nn.state_dict(model)
    np.testing.assert_array_equal(state["0.bias"], kept["layers.0.bias"] / 2)
    np.testing.assert_array_equal(state["2.weight"], kept["layers.2.weight"].T)


class WithHead:
    """A list `layers` that is not all, a part that knows its whole, and a result of an op."""

    def __init__(self) -> None:
        self.layers = [Linear(2, 2), self]
        self.head = Linear(2, 2)
        self.doubled = 2 * self.head.weight


def test_layers_beside_others_keep_their_name() -> None:
    expected = ["layers.0.weight", "layers.0.bias", "head.weight", "head.bias"]
    assert list(to_torch_state_dict(WithHead())) == expected


def test_weights_for_many_networks_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.weight of a Linear has shape \(25, 1, 40\)"):
        to_torch_state_dict(Networks(np.random.default_rng(0)))


def test_a_file_for_users_of_pytorch(tmp_path: Path) -> None:
    model = VisionTransformer(np.random.default_rng(0))
    tg.checkpoint.save_weights(tmp_path / "vit.safetensors", to_torch_state_dict(model))
    weights = tg.checkpoint.load_weights(tmp_path / "vit.safetensors")
    assert weights["blocks.0.wide.weight"].shape == (256, 64) and weights["places"].shape == (16, 64)
    other = VisionTransformer(np.random.default_rng(1))
    from_torch_state_dict(other, weights)
    assert all((value == tg.nn.state_dict(other)[name]).all() for name, value in tg.nn.state_dict(model).items())


@pytest.mark.parametrize("model", [3, [], lambda x: x])
def test_what_holds_no_weights_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="holds no Tensors"):
        tg.export.to_torch_state_dict(model)


def test_a_tensor_without_values_is_refused_by_name() -> None:
    class Meta:
        def detach(self) -> Meta:
            return self

        def cpu(self) -> Meta:
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")

    with pytest.raises(TypeError, match="from_torch_state_dict: weight is a Meta.*no data"):
        tg.export.from_torch_state_dict(tg.nn.Linear(2, 1), {"weight": Meta(), "bias": np.zeros(1)})
