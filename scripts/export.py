#!/usr/bin/env python
"""Write a trained classifier of digits as a file for other programs: ONNX, or weights as PyTorch holds them.

It is written if it answers as the classifier for 100 images, to 1e-4. RUN is a run of train_mnist.py or a file of
weights; without it, the latest run in runs/, else the weights of models/.
"""

from __future__ import annotations

import os
import sys

here = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = here, os.path.dirname(here)  # works from any folder, installed or not

if __name__ == "__main__":  # the other imports take a while
    from terminal import call, prepare

    prepare("export.py")

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from command_line import Parser, add_options, folder, missing_extras, option
from exporting.comparing import TOLERANCE, Comparison, compare_onnx, compare_torch
from exporting.onnx_files import describe, make
from predicting.reading import printable
from trained import choose

import tinygrad_mnist as tg
from models.pretrained import Classifier
from tinygrad_mnist.storage.files import write_atomically

IMAGES = 100  # on which a file is compared
KINKS = 0.05  # share of the images on which rounding may decide whether a unit is active: the gradient jumps there
NEEDED = {
    ".onnx": [("safetensors", "reading weights", ""), ("onnx", "an ONNX file", "")],
    ".safetensors": [("safetensors", "reading and writing weights", "")],
}
EXIT_CODES = (
    "exit codes: 0 the file is written; 1 it is not: the model has no such form, its answers differ, or the disk is "
    "full; 2 bad arguments or weights; 130 stopped by Ctrl-C"
)


@dataclass(frozen=True)
class Options:
    """What an ONNX file takes and answers."""

    uint8: bool = option(False, "take pixels from 0 to 255, uint8; else floats in [0, 1]")
    softmax: bool = option(False, "answer the probabilities, too, with the temperature of the weights")
    saliency: bool = option(False, "answer the gradient of the largest logit by the pixels, too")


def parse(argv: Sequence[str] | None) -> tuple[Path | None, Path, Options]:
    """Return where the weights are, the file to write, and the options."""
    parser = Parser("export.py", __doc__, EXIT_CODES)
    about = "a run folder, or a file of weights"
    parser.add_argument("run", nargs="?", default=None, type=folder, metavar="RUN", help=about)
    parser.add_argument("file", type=Path, metavar="FILE", help="what to write: ends in .onnx or .safetensors")
    add_options(parser, Options)
    given = vars(parser.parse_intermixed_args(argv))
    run, out = given.pop("run"), given.pop("file")
    options = Options(**given)
    if problem := refused(out, options):
        parser.error(f"{printable(str(out))}: {problem}")
    return run, out, options


def refused(out: Path, options: Options) -> str:
    """Why a file is not written, or an empty text."""
    if out.suffix not in NEEDED:
        return "the file to write, named last, ends in .onnx, or in .safetensors for PyTorch"
    if out.is_dir() or not out.absolute().parent.is_dir():
        return "it is a folder" if out.is_dir() else "there is no such folder; make it first"
    if out.suffix == ".safetensors" and any(asdict(options).values()):
        return "it will hold weights alone; --uint8, --softmax and --saliency are for .onnx"
    if out.suffix == ".safetensors" and out.exists() and not is_for_torch(out):
        return "it is there, and was not written by this script; name another file"
    return ""


def is_for_torch(path: Path) -> bool:
    """Whether this script has written a file of weights: a run's own must not be lost by a slip."""
    try:
        return tg.checkpoint.load_metadata(path).get("format") == "pt"
    except (OSError, ValueError):
        return False


def complain(text: str) -> None:
    print(f"export.py: {printable(text)}", file=sys.stderr)


def export(classifier: Classifier, out: Path, options: Options) -> list[str]:
    """Write the file, and return what is to be told of it.

    Raises
    ------
    NotImplementedError, ValueError
        If the model has no such form, or the answers differ; nothing is written then.
    OSError
    """
    images, _ = tg.data.synthetic_digits(IMAGES, rng=np.random.default_rng(1))
    if out.suffix == ".safetensors":
        state = tg.export.to_torch_state_dict(classifier.model)
        compared = told(compare_torch(state, classifier, images))
        kept = {key: value for key, value in classifier.metadata.items() if key not in ("model", "arguments")}
        tg.checkpoint.save_weights(out, state, {**kept, "format": "pt", "exported from": classifier.name})
        return [f"{out}: {len(state)} arrays in the layout of PyTorch", *compared]
    made = make(classifier, **asdict(options))
    compared = told(compare_onnx(made, classifier, images))
    content = made.SerializeToString()
    write_atomically(out, content)
    kind = f"opset {made.opset_import[0].version}, IR version {made.ir_version}"
    return [f"{out}: {len(content):,} bytes, {kind}", *describe(made), *compared]


def told(found: Comparison) -> list[str]:
    """Tell a comparison.

    Raises
    ------
    ValueError
        If the answers differ.
    """
    kinks = math.ceil(found.images * KINKS)
    wrong = [name for name, far in found.far.items() if far > (kinks if name == "saliency" else 0)]
    if wrong:
        largest = " and ".join(f"{name} by up to {found.largest[name]:.2g}" for name in wrong)
        raise ValueError(f"run by {found.ran_by}, it differs from ours in {largest}; accepted is {TOLERANCE:g}")
    largest = ", ".join(f"{name} {value:.2g}" for name, value in found.largest.items())
    lines = [f"  largest difference on {found.images} images, by {found.ran_by}: {largest}"]
    if far := found.far.get("saliency"):
        lines.append(f"  saliency differs by more than {TOLERANCE:g} on {far}, where rounding decides")
    return [*lines, f"  same class: {found.equal} of {found.images}"]


def main(argv: Sequence[str] | None = None) -> int:
    source, out, options = parse(argv)
    if problem := missing_extras(NEEDED[out.suffix], "train,onnx"):
        complain(problem)
        return 2
    is_file = source is not None and (source.suffix == ".safetensors" or source.is_file())
    try:
        classifier = choose(None if is_file else source, source if is_file else None)
    except (OSError, ValueError) as error:
        complain(str(error))
        return 2
    print(f"weights: {printable(f'{classifier.path} ({classifier.name})')}", file=sys.stderr)
    try:
        lines = export(classifier, out, options)
    except Exception as error:  # those of onnx and of onnxruntime have no class in common
        complain(f"{out} is not written: {error}")
        return 1
    print(*map(printable, lines), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(call(main, "export.py"))
