#!/usr/bin/env python
"""Draw digits in the browser, and see how a trained network reads them, and why.

It offers the weights of --weights and --run, the runs in ./runs, and the weights that come with this project. Ctrl-C
ends it.
"""

from __future__ import annotations

import os
import sys

here = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = here, os.path.dirname(here)  # works from any folder, installed or not

if __name__ == "__main__":  # the other imports take a while
    from terminal import call, prepare

    prepare("draw.py")

import threading
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

for library in ("OPENBLAS", "MKL", "OMP"):  # an image is too small for several threads
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np
from command_line import Parser, Stop, add_options, missing_extras, option
from drawing.answers import Answers
from drawing.catalogue import Catalogue
from drawing.server import Server
from trained import weights_of_run

import tinygrad_mnist as tg
from models.pretrained import load_classifier

NEEDED = [("PIL", "reading drawings", ""), ("scipy", "reading drawings", ""), ("safetensors", "reading weights", "")]
EXIT_CODES = "exit codes: 0 ended by Ctrl-C, SIGTERM or SIGHUP; 2 bad arguments or weights, or the port is in use"
PORTS = range(8000, 8100)  # the first free one, unless a port is given


@dataclass(frozen=True)
class Options:
    """Which weights there are to choose from, and where the page is."""

    run: tuple[Path, ...] = option(
        (),
        "runs of train_mnist.py to offer besides those in runs/; by default the newest is shown first",
        metavar="DIR",
    )
    weights: tuple[Path, ...] = option((), "files of weights to offer besides those in models/", metavar="FILE")
    port: int | None = option(
        None, "port of 127.0.0.1; 0 is any that is free (default: the first free one from 8000 on)", least=0
    )
    no_browser: bool = option(False, "do not open the browser")


def complain(text: str) -> None:
    print(f"draw.py: {text}", file=sys.stderr)


def bind(answers: Answers, port: int | None) -> Server:
    """Make a server at a port, by default the first one that is free."""
    for candidate in PORTS if port is None else [port]:
        try:
            return Server(answers, candidate)
        except OSError:
            if port is not None:
                raise
    return Server(answers, 0)


def open_browser(address: str) -> None:
    if not webbrowser.open(address):
        complain("no browser was found; open the address in one of yours")


def begin(options: Options) -> Server:
    """Make the server; the weights that were named are tried at once, and what reads drawings is imported."""
    for path in [*options.weights, *map(weights_of_run, options.run)]:
        load_classifier(path)
    answers = Answers(Catalogue(options.run, options.weights))
    if not answers.models()["models"]:
        raise FileNotFoundError("there are no weights; train some with train_mnist.py, or name a file: --weights FILE")
    drawing = np.full((64, 64), 255, np.uint8)
    drawing[16:48, 30:34] = 0
    tg.data.from_image(drawing)
    try:
        return bind(answers, options.port)
    except (OSError, OverflowError) as error:
        raise OSError(f"port {options.port} cannot be used ({error}); leave out --port, or name another one") from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("draw.py", __doc__, EXIT_CODES)
    add_options(parser, Options)
    options = Options(**vars(parser.parse_args(argv)))
    if problem := missing_extras(NEEDED, "images"):
        complain(problem)
        return 2
    try:
        server = begin(options)
    except (OSError, ValueError) as error:
        complain(str(error))
        return 2
    with Stop() as stop, server:
        print(f"draw at {server.address} (Ctrl-C ends it)")
        if not options.no_browser:
            threading.Thread(target=open_browser, args=(server.address,), daemon=True).start()
        server.timeout = 0.2  # seconds until a signal is noticed
        while not stop.signal:
            server.handle_request()
    return 0


if __name__ == "__main__":
    sys.exit(call(main, "draw.py"))
