"""Exported files run beside the function that they were made from."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator
from op_checks import Array

import tinygrad_mnist as tg

RUNTIMES = ["reference", *(["onnxruntime"] if importlib.util.find_spec("onnxruntime") else [])]


def run(model: Any, arrays: Sequence[Array], runtime: str = "reference") -> list[Array]:
    """Compute a file's outputs from its inputs, in their order."""
    names = [value.name for value in model.graph.input]
    inputs = dict(zip(names, arrays, strict=True))
    if runtime == "reference":
        with np.errstate(all="ignore"):  # of both branches of Where
            return list(ReferenceEvaluator(model).run(None, inputs))
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # errors alone
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def outputs(function: Callable[..., Any], arrays: Sequence[Array]) -> list[Array]:
    """Call the function as `to_onnx` does: floats require a gradient."""
    found = function(*(tg.Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays))
    parts = found if isinstance(found, (tuple, list)) else [found]
    return [part.data for part in parts]


def check_file(
    function: Callable[..., Any],
    examples: Sequence[Array],
    others: Sequence[Array],
    tolerance: float = 1e-5,
    runtimes: Sequence[str] = RUNTIMES,
    **settings: Any,
) -> Any:
    """Export a function, and compare the file with it on other arrays; return the file."""
    model = tg.export.to_onnx(function, *examples, **settings)
    wanted = outputs(function, others)
    for runtime in runtimes:
        for found, right in zip(run(model, others, runtime), wanted, strict=True):
            assert (found.shape, found.dtype) == (right.shape, right.dtype), runtime
            scale = max(float(np.abs(right, where=np.isfinite(right), out=np.zeros(right.shape)).max(initial=0)), 1.0)
            np.testing.assert_allclose(found, right, rtol=tolerance, atol=tolerance * scale, err_msg=runtime)
    return model
