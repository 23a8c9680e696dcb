"""`scripts/export.py`: its files answer as the classifier, and a wrong one is not written."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import export
import numpy as np
import onnx
import pytest
from exporting.comparing import Comparison
from onnx.reference import ReferenceEvaluator

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from models.mlp import MLP
from models.pretrained import SHIPPED, describe
from tinygrad_mnist.export.converters import CONVERTERS

IMAGES, _ = tg.data.synthetic_digits(7, rng=np.random.default_rng(3))
TEMPERATURE = 0.5
SCRIPT = Path(export.__file__)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the weights of a small network."""
    run = tmp_path_factory.mktemp("run")
    (run / "config.json").write_text("{}")
    about = {**describe("mlp.MLP", hidden=6), "temperature": str(TEMPERATURE), "accuracy": "0.1"}
    tg.checkpoint.save_weights(run / "weights.safetensors", tg.nn.state_dict(MLP(np.random.default_rng(5), 6)), about)
    return run / "weights.safetensors"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., Any]:
    """Call the script in an empty folder; its code, its output and the lines of its errors come back."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Any:
        try:
            code = export.main([*map(str, arguments)])
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err.splitlines())

    return run


def expected(weights: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Logits, probabilities and saliency of the network, in plain NumPy."""
    held = tg.checkpoint.load_weights(weights)
    before = pixels.reshape(len(pixels), -1) @ held["hidden.weight"] + held["hidden.bias"]
    logits = np.maximum(before, 0) @ held["out.weight"] + held["out.bias"]
    powers = np.exp(np.float64(logits) / TEMPERATURE)
    slopes = (before > 0) * held["out.weight"][:, logits.argmax(axis=1)].T @ held["hidden.weight"].T
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    return {"logits": logits, "probabilities": probabilities, "saliency": slopes.reshape(pixels.shape)}


# What it writes -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [(), ("--uint8", "--softmax", "--saliency")], ids=["plain", "all"])
def test_an_onnx_file_answers_as_the_network(call: Any, weights: Path, options: tuple[str, ...]) -> None:
    done = call(weights.parent, *options, "model.onnx")
    assert done.code == 0 and done.err == [f"weights: {weights} (mlp.MLP)"], done.err
    model = onnx.load("model.onnx")
    names = ["logits", "probabilities", "saliency"] if options else ["logits"]
    assert [output.name for output in model.graph.output] == names
    assert [(i.domain, i.version) for i in model.opset_import] == [("", 18)] and model.ir_version == 8
    assert "opset 18, IR version 8" in done.out
    assert re.search(r"same class: (100 of 100|10 of 10$)", done.out), done.out  # the reference alone takes fewer
    assert f"input images: {'uint8' if options else 'float32'} (batch, 28, 28)" in done.out
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["model"] == "mlp.MLP" and said["temperature"] == str(TEMPERATURE)

    pixels = np.divide(IMAGES, 255, dtype=np.float32)
    found = ReferenceEvaluator(model).run(None, {"images": IMAGES if options else pixels})
    right = expected(weights, pixels)
    for name, values in zip(names, found, strict=True):
        np.testing.assert_allclose(values, right[name], atol=1e-5, err_msg=name)


def test_weights_for_pytorch_are_in_its_layout(call: Any, weights: Path) -> None:
    for _ in range(2):  # the second time, over its own file
        done = call(weights, "torch.safetensors")
        assert done.code == 0 and "4 arrays" in done.out and "same class: 100 of 100" in done.out, done.err
    held = tg.checkpoint.load_weights("torch.safetensors")
    pixels = IMAGES.reshape(len(IMAGES), -1) / np.float32(255)
    before = pixels @ held["hidden.weight"].T + held["hidden.bias"]  # as torch.nn.Linear computes
    logits = np.maximum(before, 0) @ held["out.weight"].T + held["out.bias"]
    np.testing.assert_allclose(logits, expected(weights, IMAGES / np.float32(255))["logits"], atol=1e-5)
    said = tg.checkpoint.load_metadata("torch.safetensors")
    assert said["format"] == "pt" and said["accuracy"] == "0.1" and "model" not in said


def test_the_latest_run_is_exported_by_default(call: Any, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one").symlink_to(weights.parent)
    done = call("model.onnx")
    assert done.code == 0 and done.err == ["weights: runs/one/weights.safetensors (mlp.MLP)"], done.err


def test_without_onnxruntime_the_reference_runs_it(call: Any, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = call(weights, "model.onnx")
    assert done.code == 0 and f"by onnx.reference {onnx.__version__}" in done.out


# What it refuses ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "the following arguments are required: FILE"),
        (["a", "b", "c.onnx"], "unrecognized arguments: c.onnx"),
        (["model.pt"], "model.pt: the file to write, named last, ends in .onnx, or in .safetensors"),
        (["no/model.onnx"], "no/model.onnx: there is no such folder"),
        (["folder.onnx"], "folder.onnx: it is a folder"),
        (["--softmax", "model.safetensors"], "it will hold weights alone"),
        (["other.safetensors"], "other.safetensors: it is there, and was not written by this script"),
        (["none", "model.onnx"], "none is no run folder"),
        (["none.safetensors", "model.onnx"], "none.safetensors"),
        (["damaged.safetensors", "model.onnx"], "damaged.safetensors"),
    ],
)
def test_bad_arguments_are_one_line(call: Any, weights: Path, arguments: list[str], problem: str) -> None:
    Path("folder.onnx").mkdir()
    Path("other.safetensors").write_bytes(weights.read_bytes())
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    Path("damaged.safetensors").write_bytes(content)
    done = call(*arguments)
    assert done.code == 2 and done.out == "" and len(done.err) == 1, done.err
    assert done.err[0].startswith("export.py: ") and problem in done.err[0]
    assert not Path("model.onnx").exists() and Path("other.safetensors").read_bytes() == weights.read_bytes()


@pytest.mark.parametrize(("file", "module"), [("model.onnx", "onnx"), ("model.safetensors", "safetensors")])
def test_an_extra_that_is_missing_is_named(
    call: Any, weights: Path, monkeypatch: pytest.MonkeyPatch, file: str, module: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == module else find(name, *rest))
    done = call(weights, file)
    assert done.code == 2 and f"needs {module}: pip install 'tinygrad_mnist[train,onnx]'" in done.err[0]


def test_a_file_that_answers_otherwise_is_not_written(
    call: Any, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("model.onnx").write_bytes(b"before")
    monkeypatch.setitem(CONVERTERS, tg.relu, lambda graph, x: graph.add("Abs", x))
    done = call(weights, "model.onnx")
    assert done.code == 1 and done.out == "" and "model.onnx is not written" in done.err[-1]
    assert "it differs from ours in logits by up to" in done.err[-1] and "accepted is 0.0001" in done.err[-1]
    assert Path("model.onnx").read_bytes() == b"before" and len([*Path().iterdir()]) == 1


def test_weights_for_pytorch_that_answer_otherwise_are_not_written(
    call: Any, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = tg.export.to_torch_state_dict

    def wrong(model: Any) -> dict[str, np.ndarray]:
        return {name: array + 0.01 for name, array in right(model).items()}

    monkeypatch.setattr(tg.export, "to_torch_state_dict", wrong)
    done = call(weights, "model.safetensors")
    assert done.code == 1 and "logits by" in done.err[-1] and not Path("model.safetensors").exists()


def test_a_primitive_without_a_converter_is_named(call: Any, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(CONVERTERS, tg.relu)
    done = call(weights, "model.onnx")
    assert done.code == 1 and "the primitive relu" in done.err[-1] and not Path("model.onnx").exists()


def test_saliency_may_differ_on_few_images() -> None:
    def found(logits: int, saliency: int) -> Comparison:
        far = {"logits": logits, "saliency": saliency}
        return Comparison("a runtime", 100, {"logits": 1.0, "saliency": 2.0}, far, 99)

    _, kinks, classes = export.told(found(0, 5))
    assert "saliency differs by more than 0.0001 on 5" in kinks and "99 of 100" in classes
    with pytest.raises(ValueError, match="in saliency by up to 2; accepted is 0.0001"):
        export.told(found(0, 6))
    with pytest.raises(ValueError, match="in logits by up to 1; accepted"):
        export.told(found(1, 0))


# The networks of the gallery ------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_weights_of_the_repository(tmp_path: Path) -> None:
    """As a user calls it, from another folder."""
    pytest.importorskip("onnxruntime", reason="the reference takes a minute")
    command = [sys.executable, SCRIPT, "--uint8", "--saliency", "--softmax", SHIPPED, "model.onnx"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "same class: 100 of 100" in done.stdout and "saliency" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.slow
def test_float64_is_run_by_the_reference(call: Any, tmp_path: Path) -> None:
    """onnxruntime has no convolution of float64."""
    pytest.importorskip("onnxruntime")
    model = DeepConvNet(np.random.default_rng(0), depth=4, dtype=np.float64)
    about = describe("deep_convnet.DeepConvNet", depth=4, dtype="float64")
    tg.checkpoint.save_weights("exact.safetensors", tg.nn.state_dict(model), about)
    done = call("exact.safetensors", "exact.onnx")
    assert done.code == 0 and "by onnx.reference" in done.out, done.err
