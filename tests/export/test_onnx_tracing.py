"""What a file may not be made of: constants, settings and branches that depend on values and come from no op."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import tinygrad_mnist as tg
from tinygrad_mnist.export.program import DifferentError, Dim, Range, Tile, _Merger

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def run(model: Any, *arrays: Any) -> Any:
    names = [part.name for part in model.graph.input]
    found = ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))
    return found[0] if len(found) == 1 else found


def kinds(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def branch(x: Any) -> Any:
    return 2 * x if x.data.mean() > 0.3 else tg.exp(x)


# Refused: whatever comes from values, and not by ops ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            lambda x: x * np.abs(x.data),
            r"multiply \(.*test_onnx_tracing.py:\d+, in <lambda>\): argument 1 is a constant",
        ),
        (lambda x: x * float(x.data.sum()), r"multiply \(.*argument 1 is -?\d"),
        (lambda x: x * np.random.default_rng().random(), "argument 1 .* random generator"),
        (lambda x: x[:, int(x.data.argmax(1)[0])], r"getitem .*setting index"),
        (lambda x: tg.sum(x, int(x.data[0, 0] > 0)), "sum .*setting axis"),
        (branch, r"multiply \(.*in branch\).*tg.where"),
        (lambda x: tg.stack([2 * row for row in x]), "do not loop over the rows"),
        (lambda x: x * len(x) ** 2, "argument 1 depends on the number of rows, and not linearly: it is 16 for 4"),
        (lambda x: tg.dropout(x, 0.5, np.random.default_rng()), "select .*argument 1 is a constant array, bool"),
        (lambda x: np.abs(x.data), "output 0 is a constant array"),
    ],
)
def test_what_comes_from_values_without_an_op_is_refused(function: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"(?s)to_onnx: .*{words}"):
        tg.export.to_onnx(function, X)


def test_values_that_are_read_without_a_difference_are_named() -> None:
    with pytest.warns(UserWarning, match=r"read at .*test_onnx_tracing.py:\d+, in <lambda>. What Python or NumPy"):
        tg.export.to_onnx(lambda x: x * (x.data > 1e9), X)
    tg.export.to_onnx(lambda x: x * len(x), X)  # lengths are known


@pytest.mark.parametrize(
    "read", [lambda x: x.data, lambda x: x.numpy(), lambda x: x.detach().sum().item(), lambda x: bool(x[0, 0] > 1e9)]
)
def test_every_way_to_read_values_is_noticed(read: Any) -> None:
    def function(x: tg.Tensor) -> tg.Tensor:
        read(x)
        return 2 * x

    before = {name: vars(tg.Tensor)[name] for name in ("data", "numpy", "item", "__bool__")}
    with pytest.warns(UserWarning, match="in <lambda>"):
        tg.export.to_onnx(function, X)
    assert {name: vars(tg.Tensor)[name] for name in before} == before


def test_what_an_error_leaves_behind_is_nothing() -> None:
    before = vars(tg.Tensor)["data"]
    with pytest.raises(ZeroDivisionError):
        tg.export.to_onnx(lambda x: x / (1 // 0), X)
    assert vars(tg.Tensor)["data"] is before
    assert tg.record.hooks.active is None


# Accepted: what follows from the number of rows -----------------------------------------------------------------------
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * len(x),
        lambda x: x / len(x),
        lambda x: x * (1 / len(x)),
        lambda x: x * (2 * len(x) + 3),
        lambda x: x - tg.ones(x.shape, dtype=np.float32),
        lambda x: x * np.tile(np.arange(3, dtype=np.float32), (len(x), 1)),
        lambda x: x + np.arange(len(x), dtype=np.float32)[:, None].astype(np.int64),
    ],
)
@pytest.mark.parametrize("rows", [1, 2, 9])
def test_what_follows_from_the_number_of_rows_does_so_in_the_file(function: Any, rows: int) -> None:
    x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    np.testing.assert_allclose(run(tg.export.to_onnx(function, X), x), function(tg.Tensor(x)).data, rtol=1e-6)


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(2, 9))
def test_a_linear_number_is_found_and_no_other_one(factor: int, offset: int, rows: int) -> None:
    sizes = [rows, rows, rows + 1, rows + 3]
    found = _Merger(sizes).number(*(factor * n + offset for n in sizes))
    assert found == (Dim(factor, offset) if factor else offset)
    with pytest.raises(DifferentError, match="not linearly"):
        _Merger(sizes).number(*(factor * n + offset + n * n for n in sizes))
    with pytest.raises(DifferentError, match="other values"):
        _Merger(sizes).number(*(factor * n + offset + i for i, n in enumerate(sizes)))


def test_arrays_that_depend_on_the_number_of_rows() -> None:
    sizes = [4, 4, 5, 7]
    row = np.array([[1.0, 2.0]])
    tile = _Merger(sizes).array(*(np.repeat(row, n, 0) for n in sizes))
    assert isinstance(tile, Tile) and tile.dims == (Dim(1), 2) and (tile.array == row).all()
    assert _Merger(sizes).array(*(np.arange(n)[:, None] for n in sizes)) == Range(np.dtype(np.int64), (Dim(1), 1))
    with pytest.raises(DifferentError, match="another number of rows"):
        _Merger(sizes).array(*(np.arange(n)[:, None] * 2.0 for n in sizes))


# The file -------------------------------------------------------------------------------------------------------------
def test_names_opset_and_batch(tmp_path: Path) -> None:
    weight = tg.Tensor(np.ones(3, np.float32), requires_grad=True)
    path = tmp_path / "model.onnx"
    made = tg.export.to_onnx(lambda x: {"double": weight * x, "same": x}, X, path=path, input_names=["images"])
    read = onnx.load(path)
    assert read == made and read.ir_version == 8 and read.opset_import[0].version == 18
    assert [part.name for part in read.graph.output] == ["double", "same"]
    assert [part.name for part in read.graph.initializer] == ["weight"]
    assert read.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    fixed = tg.export.to_onnx(lambda x: 2 * x, X, dynamic_batch=False)
    assert fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4


def test_an_input_is_an_output_and_one_output_comes_twice() -> None:
    def function(x: tg.Tensor) -> Any:
        y = 2 * x
        return y, x, y, tg.exp(y), np.float32([1, 2])

    found = run(tg.export.to_onnx(function, X), X[:2])
    for array, expected in zip(found, function(tg.Tensor(X[:2])), strict=True):
        np.testing.assert_allclose(array, expected.data if isinstance(expected, tg.Tensor) else expected, rtol=1e-6)


def test_what_is_not_needed_is_left_out() -> None:
    def function(x: tg.Tensor) -> tg.Tensor:
        tg.cumprod(x, 0)
        return 2 * x

    assert kinds(tg.export.to_onnx(function, X)) == ["Mul"]


def test_ops_of_other_threads_are_no_part() -> None:
    def function(x: tg.Tensor) -> tg.Tensor:
        other = threading.Thread(target=lambda: tg.exp(np.ones(3)))
        other.start()
        other.join()
        return 2 * x

    assert kinds(tg.export.to_onnx(function, X)) == ["Mul"]


def test_gradients_that_are_summed_are_recorded_without_create_graph() -> None:
    def function(x: tg.Tensor) -> Any:
        (x * x + 3 * x).sum().backward()
        return x.grad, *tg.grad((x * x + 2 * x).sum(), [x])

    for array, expected in zip(run(tg.export.to_onnx(function, X), X[:3]), (2 * X[:3] + 3, 2 * X[:3] + 2), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "nodes"),
    [
        (lambda x: tg.softmax(x), ["Softmax"]),
        (lambda x: tg.log_softmax(x, 0), ["LogSoftmax"]),
        (lambda x: tg.softmax(x, (0, 1)), ["ReduceMax", "Sub", "Exp", "ReduceSum", "Div"]),
        (lambda x: tg.exp(x) / tg.exp(x).sum(1, True), ["Exp", "Exp", "ReduceSum", "Div"]),
        (
            lambda x: tg.exp(x - x.max(0, True)) / tg.exp(x).sum(0, True),
            ["ReduceMax", "Sub", "Exp", "Exp", "ReduceSum", "Div"],
        ),
    ],
)
def test_softmax_is_one_node_and_what_looks_like_it_is_not(function: Any, nodes: list[str]) -> None:
    model = tg.export.to_onnx(function, X)
    assert kinds(model) == nodes
    np.testing.assert_allclose(run(model, 3 * X[:3]), function(tg.Tensor(3 * X[:3])).data, rtol=1e-5)


@pytest.mark.parametrize(
    "transform",
    [
        lambda x: tg.func.grad(lambda x: (x**3).sum())(x),
        lambda x: tg.func.vjp(lambda x: x**3, x)[1](x)[0],
        lambda x: tg.func.jvp(lambda x: x**3, (x,), (tg.exp(x),))[1],
        lambda x: tg.func.grad(lambda x: (tg.func.grad(lambda y: (y**3).sum())(x) * x).sum())(x),
    ],
)
def test_transforms_of_functions(transform: Any) -> None:
    np.testing.assert_allclose(
        run(tg.export.to_onnx(transform, X), X[:3] + 1), transform(tg.Tensor(X[:3] + 1)).data, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: tg.export.to_onnx(3, X), TypeError, "pass a function"),
        (lambda: tg.export.to_onnx(tg.exp, X, "model.onnx"), TypeError, "path=..."),
        (lambda: tg.export.to_onnx(lambda: 3), TypeError, "an example for each input"),
        (lambda: tg.export.to_onnx(lambda x: "no", X), TypeError, "returned str"),
        (lambda: tg.export.to_onnx(lambda x, y: x, X, X[0]), ValueError, "dynamic_batch=False"),
        (lambda: tg.export.to_onnx(lambda x: x, np.float32(1)), ValueError, "dynamic_batch=False"),
        (lambda: tg.export.to_onnx(lambda x: 2 * x, X, output_names=["input"]), ValueError, "must be different"),
        (lambda: tg.export.to_onnx(lambda x: 2 * x, X, output_names=["a", "b"]), ValueError, "pass 1 different names"),
        (lambda: tg.export.onnx_converter(np.exp), TypeError, "pass a primitive"),
    ],
)
def test_errors(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    ("convert", "error", "words"),
    [
        (lambda graph, x: None, TypeError, "returned None; return the Value"),
        (lambda graph, x: graph.add("Summ", x), ValueError, r"refuses the file \(.*Summ.*\). Look at your converters"),
        (lambda graph, x: graph.add("Mul", x, np.ones(3)), ValueError, r"double.*Look at your converters"),
        (lambda graph, x: x, ValueError, "(shape|rank).*Look at your converters"),
    ],
)
def test_a_wrong_converter_is_named(convert: Any, error: type[Exception], words: str) -> None:
    @tg.primitive
    def total(x: Any) -> Any:
        return x.sum()

    tg.export.onnx_converter(total)(convert)
    with pytest.raises(error, match=rf"(?s)^to_onnx: .*{words}") as caught:
        tg.export.to_onnx(lambda x: total(x) + 1, X)
    assert "total (" in str(caught.value) and "in <lambda>)" in str(caught.value)


def test_a_primitive_without_a_converter_is_named_with_what_to_write() -> None:
    @tg.primitive
    def fourth(x: Any) -> Any:
        return x**4

    with pytest.raises(NotImplementedError, match=r"fourth \(.*in <lambda>\).*onnx_converter\(op\).*test_onnx_tracing"):
        tg.export.to_onnx(lambda x: fourth(x), X)

    @tg.export.onnx_converter(fourth)
    def convert(graph: Any, x: Any) -> Any:
        return graph.add("Pow", x, 4.0)

    np.testing.assert_allclose(run(tg.export.to_onnx(fourth, X), X[:2]), X[:2] ** 4, rtol=1e-6)


def test_without_the_onnx_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("onnx", "tinygrad_mnist.export"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(tg, "export", tg.export)  # which importing it again replaces
    monkeypatch.setitem(sys.modules, "onnx", None)
    export = importlib.import_module("tinygrad_mnist.export")
    assert export.to_torch_state_dict(tg.nn.Linear(2, 3)).keys() == {"weight", "bias"}
    for name in ("to_onnx", "onnx_converter"):
        with pytest.raises(ImportError, match=r"pip install 'tinygrad_mnist\[onnx\]'"):
            getattr(export, name)


def test_what_is_imported_later_is_listed() -> None:
    assert {"from_torch_state_dict", "onnx_converter", "to_onnx", "to_torch_state_dict"} <= set(dir(tg.export))
