"""What the page asks for: digits read, answers explained. Values of JSON in, values of JSON out."""

from __future__ import annotations

import base64
import binascii
import math
import time
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

import tinygrad_mnist as tg
from models.pretrained import Classifier

from .catalogue import Catalogue
from .protocol import RefusedError

CANVAS = 512  # pixels that a drawing may have in a row or a column
PICTURE = 25_000_000  # pixels that a picture may have: 100 MB while it is decoded
STEPS = 20  # of gradient ascent at once


class Answers:
    """The interface's functions, each from a dict of values to a dict of values.

    Parameters
    ----------
    catalogue : Catalogue
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    def models(self) -> dict[str, Any]:
        """List the models that there are."""
        models = self.catalogue.models()
        usable = [model for model in models if "error" not in model] or models
        return {"models": models, "default": usable[0]["id"] if models else None}

    def read(self, values: dict[str, Any]) -> dict[str, Any]:
        """Read the digits of a drawing."""
        classifier = self._classifier(values)
        width, height = (_whole(values, name, 1, CANVAS) for name in ("width", "height"))
        try:
            data = base64.b64decode(_text(values, "data"), validate=True)
        except (binascii.Error, ValueError):
            raise RefusedError(400, "data is not in base64") from None
        if len(data) != width * height:
            raise RefusedError(400, f"data has {len(data):,} bytes; width times height is {width * height:,}")
        return _digits(classifier, np.frombuffer(data, np.uint8).reshape(height, width))

    def picture(self, values: dict[str, Any]) -> dict[str, Any]:
        """Read the digits of a file that holds a picture."""
        return _digits(self._classifier(values), values["body"])

    def explain(self, values: dict[str, Any]) -> dict[str, Any]:
        """Show why a classifier answers as it does."""
        classifier, image = self._classifier(values), _image(values)
        model, target = classifier.model, values.get("target")
        if target is None:
            target = int(_probabilities(classifier, tg.Tensor(image))[0].argmax())
        else:
            target = _whole(values, "target", 0, 9)
        return {
            "target": target,
            "saliency": _rows(tg.explain.saliency(model, image, target)[0]),
            "occlusion": _rows(tg.explain.occlusion(model, image, target)[0]),
            "layers": [_layer(name, maps[0]) for name, maps in tg.explain.feature_maps(model, image)],
        }

    def ascend(self, values: dict[str, Any]) -> dict[str, Any]:
        """Move an image some steps towards another digit."""
        classifier, image = self._classifier(values), _image(values)
        target, steps = _whole(values, "target", 0, 9), _whole(values, "steps", 1, STEPS)
        moved = tg.explain.ascend(classifier.model, image, target, steps=steps)
        probabilities = _probabilities(classifier, tg.Tensor(moved))[0]
        return {"image": _rows(255 * moved[0]), "probabilities": _rows(probabilities)}

    def _classifier(self, values: dict[str, Any]) -> Classifier:
        return self.catalogue.classifier(_text(values, "model"))


# From values of JSON --------------------------------------------------------------------------------------------------
def _text(values: dict[str, Any], name: str) -> str:
    if not isinstance(value := values.get(name), str):
        raise RefusedError(400, f"{name} is missing, or is no text")
    return value


def _whole(values: dict[str, Any], name: str, least: int, most: int) -> int:
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise RefusedError(400, f"{name} must be a whole number from {least} to {most}")
    return value


def _image(values: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Return the image (1, 28, 28) that is meant, its pixels in [0, 1]."""
    rows = values.get("image")
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 28 for row in rows):
        rows = []
    pixels = list(chain.from_iterable(rows))
    if len(pixels) != 28 * 28 or not all(type(pixel) in (int, float) and 0 <= pixel <= 255 for pixel in pixels):
        raise RefusedError(400, "image must be 28 rows of 28 numbers from 0 to 255")
    return np.array(rows, np.float32)[None] / np.float32(255)


# To values of JSON ----------------------------------------------------------------------------------------------------
def _digits(classifier: Classifier, picture: Any) -> dict[str, Any]:
    started = time.perf_counter()
    found: dict[str, Any] = {"digits": []}
    try:
        digits = tg.data.from_image(picture, max_pixels=PICTURE)
    except tg.data.NoDigitError as error:
        found["message"] = _words(error)
    except tg.data.ImageError as error:
        raise RefusedError(422, _words(error)) from None
    else:
        found["digits"] = [
            {
                "image": digits.images[i].tolist(),
                "box": digits.boxes[i].tolist(),
                "touching": bool(digits.touching[i]),
                "probabilities": _rows(probabilities),
                "digit": int(probabilities.argmax()),
            }
            for i, probabilities in enumerate(_probabilities(classifier, digits.images))
        ]
    return {**found, "milliseconds": round(1000 * (time.perf_counter() - started), 2)}


def _words(error: Exception) -> str:
    return str(error).removeprefix("from_image: ")


def _probabilities(classifier: Classifier, images: Any) -> npt.NDArray[np.floating[Any]]:
    """Compute the probabilities (N, 10) of images, calibrated by the temperature."""
    with tg.no_grad():
        logits = classifier.model(images).data.astype(np.float64) / classifier.temperature
        return np.asarray(tg.softmax(logits).data)


def _rows(numbers: Any) -> Any:
    """Return lists of the numbers of an array, rounded to five digits of the largest."""
    if not np.isfinite(numbers).all():
        raise RefusedError(422, "the model gives numbers that are not finite; take other weights")
    scale = 10.0 ** (5 - math.ceil(math.log10(max(np.abs(numbers).max(), 1e-30))))
    return (np.round(np.asarray(numbers, np.float64) * scale) / scale).tolist()


def _layer(name: str, values: npt.NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Return the maps (C, H, W) of a layer, each as bytes in base64: 0 is the layer's lowest value, 255 its highest."""
    low, high = float(values.min()), float(values.max())
    scaled = np.round((values - low) * (255 / max(high - low, 1e-30))).astype(np.uint8)
    maps = [base64.b64encode(part.tobytes()).decode() for part in scaled]
    return {"name": name, "shape": list(values.shape), "low": low, "high": high, "maps": maps}
