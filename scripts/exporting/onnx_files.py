"""A classifier of digits as an ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_mnist as tg
from models.pretrained import Classifier

__all__ = ["describe", "function", "make"]


def function(
    classifier: Classifier, *, softmax: bool = False, saliency: bool = False
) -> Callable[[tg.Tensor], dict[str, tg.Tensor]]:
    """Return what the file computes of images (N, 28, 28): uint8, or floats in [0, 1].

    Parameters
    ----------
    classifier : Classifier
    softmax : bool
        The probabilities (N, 10), too: those of the logits divided by the temperature.
    saliency : bool
        The gradient of the largest logit by each pixel (N, 28, 28), too, in logits per unit of brightness.
    """
    model, temperature = classifier.model, classifier.temperature

    def outputs(images: tg.Tensor) -> dict[str, tg.Tensor]:
        pixels = images
        if images.dtype == np.uint8:
            pixels = (images.astype(np.float32) / 255).detach()
            pixels.requires_grad = True
        logits = model(pixels)
        found = {"logits": logits}
        if softmax:
            found["probabilities"] = tg.softmax(logits / temperature)
        if saliency:
            (found["saliency"],) = tg.grad(logits.max(axis=1).sum(), [pixels], create_graph=True)
        return found

    return outputs


def make(classifier: Classifier, *, uint8: bool = False, softmax: bool = False, saliency: bool = False) -> Any:
    """Export a classifier, and check the file.

    Parameters
    ----------
    classifier : Classifier
    uint8 : bool
        The file takes pixels from 0 to 255 and scales them. Else it takes float32 in [0, 1].
    softmax, saliency : bool
        Further outputs, see `function`.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    NotImplementedError, ValueError
        If something in the model has no ONNX form; the message names the op and its line.
    onnx.checker.ValidationError, onnx.shape_inference.InferenceError
        If the file is wrong.
    """
    import onnx

    examples, _ = tg.data.synthetic_digits(3, rng=np.random.default_rng(0))
    images = examples if uint8 else np.divide(examples, 255, dtype=np.float32)
    outputs = function(classifier, softmax=softmax, saliency=saliency)
    made = tg.export.to_onnx(outputs, images, input_names=["images"])
    onnx.helper.set_model_props(made, {**classifier.metadata, "model": classifier.name})
    onnx.checker.check_model(made.SerializeToString(), full_check=True)
    onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True, data_prop=True)
    return made


def describe(model: Any) -> list[str]:
    """Tell the inputs and outputs of a file, a line for each."""
    from onnx.helper import tensor_dtype_to_np_dtype

    lines = []
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            found = value.type.tensor_type
            shape = ", ".join(dim.dim_param or str(dim.dim_value) for dim in found.shape.dim)
            lines.append(f"  {kind} {value.name}: {tensor_dtype_to_np_dtype(found.elem_type)} ({shape})")
    return lines
