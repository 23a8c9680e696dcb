"""From the name of a picture to its digits and their probabilities; whatever is wrong with it is one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import tinygrad_mnist as tg
from models.pretrained import Classifier

__all__ = ["SIDE", "Reading", "classify", "printable", "read"]

SIDE = 320  # pixels: the longer side of a thumbnail


@dataclass
class Reading:
    """What was found in one picture."""

    name: str  # of its file, or - for standard input
    digits: tg.data.Digits | None = None
    problem: str = ""  # why there are no digits
    thumbnail: tuple[Any, float] | None = None  # where it will be drawn
    probabilities: npt.NDArray[np.floating[Any]] | None = None  # (n, 10)


def read(name: str, with_thumbnail: bool) -> Reading:
    """Find the digits of a picture."""
    try:
        source = standard_input() if name == "-" else name
        with no_output_of_libraries():
            digits = tg.data.from_image(source)
        return Reading(name, digits, thumbnail=thumbnail(source) if with_thumbnail else None)
    except tg.data.ImageError as error:
        itself = "the data" if name == "-" else repr(str(Path(os.path.expanduser(name))))
        problem = str(error).removeprefix("from_image: ").replace(itself, "it")  # its name is told in front of it
    except OSError as error:
        problem = error.strerror or str(error)
    except MemoryError:
        problem = "there is not enough memory for it; make it smaller"
    return Reading(name, problem=problem)


@contextmanager
def no_output_of_libraries() -> Iterator[None]:
    """Drop what is written to standard error in the block: libtiff tells there what is wrong with a file."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def thumbnail(source: str | bytes) -> tuple[Any, float]:
    """A small copy of a picture that has been read, and its size relative to the picture."""
    from PIL import Image

    from tinygrad_mnist.data.preparation import reading as pictures

    picture = pictures.read(source, pictures.MAX_PIXELS)
    image = Image.fromarray(np.uint8(255 * picture.levels)).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    return image, image.width / picture.width


def standard_input() -> bytes:
    """The bytes of standard input: no more than what `tg.data.from_image` refuses for its size."""
    from tinygrad_mnist.data.preparation.reading import MAX_BYTES

    if sys.stdin is None or sys.stdin.isatty():
        raise tg.data.ImageError("no picture comes from there; pipe one into it, or name a file")
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def classify(classifier: Classifier, readings: list[Reading]) -> None:
    """Fill in the probabilities of all digits of some pictures.

    Raises
    ------
    CheckpointError
        If the weights make logits that are no numbers.
    """
    found = [reading for reading in readings if reading.digits]
    if not found:
        return
    logits = tg.training.outputs(classifier.model, np.concatenate([r.digits.images for r in found if r.digits]))
    if not np.isfinite(logits).all():
        raise tg.checkpoint.CheckpointError(f"{classifier.path}: a logit is NaN or infinite; use other weights")
    probabilities = tg.softmax(logits.astype(np.float64) / classifier.temperature).data
    ends = np.cumsum([len(r.digits.images) for r in found if r.digits])
    for reading, part in zip(found, np.split(probabilities, ends[:-1]), strict=True):
        reading.probabilities = part


def printable(text: str) -> str:
    r"""One line that shows any text: a line feed, for instance, becomes \n."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
