#!/usr/bin/env python
"""Read the handwritten digits in pictures: photographs, scans, screenshots, drawings.

What is read goes to standard output, all else to standard error. A name that begins with a dash is given as ./-7.png.
"""

from __future__ import annotations

import os
import sys

here = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = here, os.path.dirname(here)  # works from any folder, installed or not

if __name__ == "__main__":  # the other imports take a while
    from terminal import call, prepare

    prepare("predict.py")

from argparse import ArgumentTypeError
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from command_line import Parser, Stop, add_options, missing_extras, option
from predicting import drawing
from predicting.reading import Reading, classify, printable, read
from predicting.telling import as_json, as_lines, title
from terminal import lost
from trained import choose

import tinygrad_mnist as tg
from models.pretrained import Classifier

NEEDED = [
    ("PIL", "reading pictures", ""),
    ("scipy", "reading pictures", ""),
    ("safetensors", "reading weights", ""),
    ("tqdm", "the progress bar", ""),
]
TOGETHER = 32  # pictures whose digits are classified at once
EXIT_CODES = (
    "exit codes: 0 all pictures were read; 1 some were not or have no digit, or the drawing could not be made; 2 bad "
    "arguments or weights; 129, 130, 143 stopped by SIGHUP, SIGINT (Ctrl-C), SIGTERM"
)


def file(text: str) -> Path:
    """Argument type: a file's name."""
    if not text:
        raise ArgumentTypeError("it is empty; name a file")
    return Path(text)


@dataclass(frozen=True)
class Options:
    """Which weights are used, and what is told."""

    run: Path | None = option(
        None,
        "the weights of this run of train_mnist.py (default: the latest in runs/, else those shipped)",
        metavar="DIR",
    )
    weights: Path | None = option(None, "the weights in this file (.safetensors)", metavar="FILE", parse=file)
    json: bool = option(False, "write a JSON object for each picture, one a line, also where it cannot be read")
    save: Path | None = option(
        None,
        "draw the pictures, the 28x28 pixels that the network saw and their saliency (PNG)",
        metavar="PICTURE",
        parse=file,
    )
    show: bool = option(False, "open that drawing in the system's viewer")


def parse(argv: Sequence[str] | None) -> tuple[list[str], Options]:
    """Return the names of the pictures, and the options."""
    parser = Parser("predict.py", __doc__, EXIT_CODES)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file of a picture; - is standard input")
    add_options(parser, Options)
    given = vars(parser.parse_args(argv))
    names, options = given.pop("images"), Options(**given)
    if names.count("-") > 1:
        parser.error("standard input is one picture; give - once")
    if options.save and (problem := drawing.refused(options.save, names)):
        parser.error(f"--save {printable(str(options.save))}: {problem}")
    if options.show and (problem := drawing.no_viewer()):
        parser.error(f"--show: {problem}")
    return names, options


def complain(text: str) -> None:
    print(f"predict.py: {printable(text)}", file=sys.stderr)


def show_weights(classifier: Classifier) -> None:
    """Say what reads the pictures."""
    words = {"accuracy": "accuracy", "data": "trained on"}
    facts = [f"{said} {classifier.metadata[key]}" for key, said in words.items() if key in classifier.metadata]
    about = f"{classifier.path} ({', '.join([classifier.name, *facts])})"
    print(f"weights: {printable(about)}", file=sys.stderr)


def read_all(names: list[str], options: Options, classifier: Classifier, stop: Stop) -> Iterator[Reading]:
    """Read and classify the pictures, some together, until told to stop; keep what the drawing needs of the first."""
    from tqdm import tqdm

    drawn = drawing.PICTURES if options.save or options.show else 0
    several = len(names) > 1 and sys.stderr is not None and sys.stderr.isatty()
    with tqdm(total=len(names), unit="picture", leave=False, disable=not several) as bar:
        for start in range(0, len(names), TOGETHER):
            readings = []
            for name in names[start : start + TOGETHER]:
                if stop.signal:
                    return
                readings.append(read(name, drawn > 0))
                drawn -= readings[-1].digits is not None
                bar.update()
            classify(classifier, readings)
            with tqdm.external_write_mode():
                yield from readings


def tell(reading: Reading, options: Options, classifier: Classifier) -> None:
    """Write what was read, or why nothing was."""
    if reading.problem:
        complain(f"{title(reading)}: {reading.problem}")
    if options.json:
        print(as_json(reading, str(classifier.path)))
    elif reading.digits:
        print(as_lines(reading))


def draw(readings: list[Reading], options: Options, classifier: Classifier) -> None:
    """Write and show the drawing.

    Raises
    ------
    OSError
        If that is not possible.
    """
    if not readings:
        raise OSError("no picture was read")
    if len(readings) > drawing.PICTURES:
        complain(f"the drawing shows the first {drawing.PICTURES} of {len(readings)} pictures")
    drawn = drawing.draw(readings[: drawing.PICTURES], classifier.model)
    if options.save:
        drawing.write(drawn, options.save)
    if options.show:
        drawing.show(drawn)


def main(argv: Sequence[str] | None = None) -> int:
    names, options = parse(argv)
    if problem := missing_extras(NEEDED, "images"):
        complain(problem)
        return 2
    try:
        classifier = choose(options.run, options.weights)
    except (OSError, ValueError) as error:
        complain(str(error))
        return 2
    show_weights(classifier)
    with_drawing, complete = bool(options.save or options.show), True
    readings, unwritten = [], None
    stop = Stop()  # an exception could be lost in a destructor of some library
    try:
        with stop:
            for reading in read_all(names, options, classifier, stop):
                tell(reading, options, classifier)
                complete = complete and not reading.problem
                if with_drawing and reading.digits:
                    readings.append(reading)
                unwritten = unwritten or lost(sys.stdout)
                if unwritten and not with_drawing:
                    break
    except tg.checkpoint.CheckpointError as error:
        complain(str(error))
        return 2
    if stop.signal:
        complain("interrupted")
        return 128 + stop.signal
    if unwritten and not isinstance(unwritten, BrokenPipeError):  # a reader who has gone needs no more
        complain(f"standard output cannot be written: {unwritten.strerror}")
        complete = False
    try:
        if with_drawing:
            draw(readings, options, classifier)
    except OSError as error:
        complain(f"there is no drawing: {error}")
        complete = False
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(call(main, "predict.py"))
