"""Functions that try to make a file which is silently wrong: each is refused, or warned of, or computed alike."""

from __future__ import annotations

import copy
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_files import check_file

import tinygrad_mnist as tg

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def run(model: Any, *arrays: Any) -> Any:
    names = [part.name for part in model.graph.input]
    return ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))[0]


# State that is changed in place ---------------------------------------------------------------------------------------
def test_an_array_that_is_changed_in_place_between_calls_is_refused() -> None:
    rng, noise = np.random.default_rng(0), np.zeros(3, np.float32)

    def function(x: tg.Tensor) -> tg.Tensor:
        noise[:] = rng.random(3)
        return x + noise

    with pytest.raises(ValueError, match=r"add \(.*in function\): argument 1 is a constant array.*changed in place"):
        tg.export.to_onnx(function, X)


def test_a_workspace_that_is_used_twice_is_refused() -> None:
    factor = tg.Tensor(np.zeros((), np.float32))

    def function(x: tg.Tensor) -> tg.Tensor:
        factor.data[...] = 2
        y = x * factor
        factor.data[...] = 3
        return y * factor

    with pytest.raises(ValueError, match="changed in place"):
        tg.export.to_onnx(function, X)


def test_values_that_are_changed_in_place_are_refused() -> None:
    def function(x: tg.Tensor) -> tg.Tensor:
        y = 2 * x
        y.data[y.data < 0] = 0
        return y

    with pytest.raises(ValueError, match=r"read at .*in function, and then changed in place"):
        tg.export.to_onnx(function, X)


def test_a_model_is_left_as_it_was() -> None:
    rng = np.random.default_rng(0)
    first = tg.nn.Linear(3, 2, rng=rng)
    model = tg.nn.Sequential(first, tg.nn.BatchNorm1d(2))
    model(X, rng=rng).sum().backward()
    before = tg.nn.state_dict(model)
    gradient = np.array(first.weight.grad)

    def function(x: tg.Tensor) -> Any:
        for parameter in tg.nn.parameters(model).values():
            parameter.grad = None
        (model(x, rng=rng) ** 2).sum().backward()
        return first.weight.grad

    tg.export.to_onnx(function, X)
    after = tg.nn.state_dict(model)
    assert all((before[name] == after[name]).all() for name in before)
    np.testing.assert_array_equal(first.weight.grad, gradient)


# Values that are read -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "read",
    [
        lambda x: 1e9 in x,
        lambda x: "1e+09" in repr(x),
        lambda x: f"{x.sum():.0f}" == "1000000000",
        lambda x: copy.deepcopy(x.detach()).data.max() > 1e8,
        lambda x: tg.Tensor(x).data.max() > 1e8,
        lambda x: np.allclose(x, 1e9),
        lambda x: len(np.where(x > 1e8)[0]),
        lambda x: len(np.nonzero(x > 1e8)[0]),
        lambda x: tg.tile(np.ones(1), (x.max() > 1e8).astype(int) + 1).size > 1,
        lambda x: tg.sum(x, axis=(x.max() > 1e8).astype(int)).shape == (3,),
        lambda x: ThreadPoolExecutor(1).submit(lambda: x.data.max() > 1e8).result(),
    ],
)
def test_every_reader_is_noticed(read: Any) -> None:
    with pytest.warns(UserWarning, match="values of Tensors that depend on the inputs are read at"):
        tg.export.to_onnx(lambda x: x * (3.0 if read(x) else 2.0), X)


def test_what_numpy_says_of_shapes_is_no_reading() -> None:
    tg.export.to_onnx(lambda x: x * math.prod(np.shape(x)) + np.zeros_like(x), X)


# Numbers of rows ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: tg.concatenate([2 * x[i : i + 5] for i in range(0, len(x), 5)]), "do not loop over the rows"),
        (lambda x: tg.concatenate([2 * x[i : i + 64] for i in range(0, len(x), 64)]), "do not loop over the rows"),
        (lambda x: tg.concatenate([2 * x[i : i + 512] for i in range(0, len(x), 512)]), "slice of the rows .*512"),
        (lambda x: x[:3] * len(x[:3]), "not linearly: it is .* 1 for 1"),
        (lambda x: x[-200:], "slice of the rows .*-200"),
        (lambda x: x * (len(x) // 20), "not linearly"),
        (lambda x: x * max(len(x), 2), "not linearly: it is .* 2 for 1"),
        (lambda x: x * (2.0 if len(x) > 20 else 1.0), "not linearly"),
        (lambda x: x[:, :1].squeeze(), r"has shape \(8,\) for the example and \(\) for another"),
    ],
)
def test_what_holds_for_some_numbers_of_rows_alone_is_refused(function: Any, words: str) -> None:
    x = np.resize(X, (9, 3))
    with pytest.raises((ValueError, NotImplementedError), match=f"(?s)to_onnx: .*{words}"):
        tg.export.to_onnx(function, x)


@pytest.mark.parametrize("function", [lambda x: x[1:] * 2, lambda x: x[:-1], lambda x: x[::-1] + x[0] + x[-1]])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_slices_of_rows(function: Any, rows: int) -> None:
    x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(tg.export.to_onnx(function, X), x), function(tg.Tensor(x)).data)


@pytest.mark.parametrize("function", [lambda x: x / (len(x) - 1 + 1e-9), lambda x: x * (0.1 * len(x) - 0.1)])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_numbers_that_are_nearly_0_for_one_row(function: Any, rows: int) -> None:
    x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    np.testing.assert_allclose(run(tg.export.to_onnx(function, X), x), function(tg.Tensor(x)).data, 1e-6, 1e-12)


# Labels ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "settings",
    [
        {"weight": [1.0, 1.0, 0.5, 3.0]},
        {"ignore_index": 2},
        {"weight": [1.0, 1.0, 0.5, 3.0], "ignore_index": 2, "label_smoothing": 0.1},
    ],
)
def test_labels_are_weighted_and_ignored_as_they_are_given(settings: dict[str, Any], reduction: str) -> None:
    """The examples have none of the labels that matter."""

    def gradient(scores: tg.Tensor, labels: tg.Tensor) -> tg.Tensor:
        return tg.grad(tg.cross_entropy(scores, labels, reduction=reduction, **settings).sum(), [scores])[0]

    rng = np.random.default_rng(0)
    file = tg.export.to_onnx(gradient, np.zeros((4, 4), np.float32), np.array([0, 1, 0, 1]))
    scores, labels = rng.normal(size=(9, 4)).astype(np.float32), rng.integers(0, 4, 9)
    expected = gradient(tg.Tensor(scores, requires_grad=True), tg.Tensor(labels)).data
    np.testing.assert_allclose(run(file, scores, labels), expected, rtol=1e-5, atol=1e-7)


# Names ----------------------------------------------------------------------------------------------------------------
def test_names_of_the_user_do_not_meet_those_inside_of_a_scan() -> None:
    names = {"input_names": ["before"], "output_names": ["product"]}
    file = tg.export.to_onnx(lambda x: tg.cumprod(x, axis=1) + x, X, **names)
    np.testing.assert_allclose(run(file, X), np.cumprod(X, axis=1) + X, rtol=1e-6)


def test_indices_that_ops_compute_are_not_read() -> None:
    x = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    file = tg.export.to_onnx(lambda x: x[:, -1 - x[0].argmax()] * x[x[:, 0].argmax(), 1], X)
    expected = x[:, -1 - x[0].argmax()] * x[x[:, 0].argmax(), 1]
    np.testing.assert_allclose(run(file, x), expected, rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 2])
def test_what_is_computed_in_another_way_for_few_rows_is_refused_and_what_leaves_ops_out_is_not(rows: int) -> None:
    def special(x: tg.Tensor) -> tg.Tensor:
        return tg.exp(x) if len(x) == rows else 2 * x

    def gradient(x: tg.Tensor) -> list[tg.Tensor]:  # of two rows, the diagonal has one number: nothing is broadcast
        return tg.grad(tg.diagonal(x @ x.T, 1).sum() * x[0, 0], [x])

    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    with pytest.raises(ValueError, match=f"with {rows} rows? the function computes another output 0"):
        tg.export.to_onnx(special, x)
    check_file(gradient, [x], [x[:rows]])


@pytest.mark.parametrize("op", [tg.softmax, tg.log_softmax])
def test_joined_softmaxes_are_computed_again_for_one_row(op: Any) -> None:
    def function(x: tg.Tensor) -> tg.Tensor:
        return op(x) if len(x) > 1 else op(x) * 1.0

    def other(x: tg.Tensor) -> tg.Tensor:
        return op(x) if len(x) > 1 else op(x) * 1.01

    check_file(function, [X], [X[:1]])
    with pytest.raises(ValueError, match="with 1 row the function computes another output 0"):
        tg.export.to_onnx(other, X)


# Runtimes -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("function", [lambda x: tg.erf(x.relu()), lambda x: tg.gelu(x.relu(), approximate="tanh")])
def test_limits_behind_a_relu_of_double_precision_are_loaded(function: Any) -> None:
    runtime = pytest.importorskip("onnxruntime")
    x = X.astype(np.float64)
    file = tg.export.to_onnx(function, x)
    found = runtime.InferenceSession(file.SerializeToString()).run(None, {"input": x})[0]
    np.testing.assert_allclose(found, function(tg.Tensor(x)).data, rtol=1e-12)


def test_the_power_one_half_is_a_square_root() -> None:
    x = np.array([[-np.inf, -0.0, 4.0]], np.float32)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(run(tg.export.to_onnx(lambda x: x**0.5, X), x), x**0.5)


def test_nested_outputs_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="to_onnx: the function returned tuple; .*not nested"):
        tg.export.to_onnx(lambda x: (x, (2 * x, 3 * x)), X)
