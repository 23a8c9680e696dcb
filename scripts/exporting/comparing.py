"""What a file answers, beside the answers of the classifier that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import tinygrad_mnist as tg
from models.pretrained import Classifier, load_classifier

__all__ = ["TOLERANCE", "Comparison", "compare_onnx", "compare_torch"]

Array = npt.NDArray[Any]
TOLERANCE = 1e-4
BY_REFERENCE = 10  # images for which the reference computes gradients: it takes seconds for each


class Comparison(NamedTuple):
    """How far the answers for some images are from each other."""

    ran_by: str
    images: int
    largest: dict[str, float]  # difference of each output; NaN where something is not finite
    far: dict[str, int]  # images for which it is above TOLERANCE
    equal: int  # images of the same class


def compare_onnx(model: Any, classifier: Classifier, images: Array) -> Comparison:
    """Run an ONNX model on images (N, 28, 28) uint8, and the classifier that it was made from by other functions.

    Raises
    ------
    ValueError
        If an output has another shape.
    """
    from onnx.helper import tensor_dtype_to_np_dtype

    names = [output.name for output in model.graph.output]
    ran_by, run = _runner(model)
    if "saliency" in names and "reference" in ran_by:
        images = images[:BY_REFERENCE]
    wanted = tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    pixels = images if wanted == np.uint8 else np.divide(images, 255, dtype=wanted)
    found = dict(zip(names, run({"images": pixels}), strict=True))
    return _compare(ran_by, found, {name: _ours(name, classifier, images) for name in names})


def compare_torch(state: Mapping[str, Array], classifier: Classifier, images: Array) -> Comparison:
    """Load a PyTorch state dict into a new model of the same kind, and compare its logits."""
    again = load_classifier(classifier.path).model
    zeros = {name: np.zeros_like(values) for name, values in tg.nn.state_dict(again).items()}
    tg.nn.load_state_dict(again, zeros)  # so that whatever is not loaded shows
    tg.export.from_torch_state_dict(again, state)
    found = {"logits": tg.training.outputs(again, images)}
    return _compare("this package, read back", found, {"logits": _ours("logits", classifier, images)})


def _ours(name: str, classifier: Classifier, images: Array) -> Array:
    """Compute an output apart from what was exported."""
    if name == "saliency":
        return np.asarray(tg.explain.saliency(classifier.model, images))
    logits = np.asarray(tg.training.outputs(classifier.model, images))
    return logits if name == "logits" else tg.softmax(logits / classifier.temperature).data


def _compare(ran_by: str, found: Mapping[str, Array], expected: Mapping[str, Array]) -> Comparison:
    largest, far = {}, {}
    for name, values in found.items():
        own = expected[name]
        if values.shape != own.shape:
            raise ValueError(f"{name} have shape {values.shape} by {ran_by}, and {own.shape} here")
        differences = np.abs(values - own).reshape(len(own), -1).max(axis=1)
        largest[name] = float(differences.max())
        far[name] = int((~(differences <= TOLERANCE)).sum())  # NaN is far
    equal = found["logits"].argmax(axis=1) == expected["logits"].argmax(axis=1)
    return Comparison(ran_by, len(equal), largest, far, int(equal.sum()))


# Runtimes -------------------------------------------------------------------------------------------------------------
Run = Callable[[dict[str, Array]], list[Array]]


def _runner(model: Any) -> tuple[str, Run]:
    """Return what runs a model, in words, and how: onnxruntime where it can, else the reference of the onnx package."""
    try:
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as MissingKernelError
    except ImportError:
        return _reference(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except MissingKernelError:  # convolutions of float64, for instance
        return _reference(model)
    return f"onnxruntime {onnxruntime.__version__}", partial(session.run, None)


def _reference(model: Any) -> tuple[str, Run]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    return f"onnx.reference {onnx.__version__}", partial(ReferenceEvaluator(model).run, None)
