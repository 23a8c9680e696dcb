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
from dataclasses import dataclass
from pathlib import Path

for library in ("OPENBLAS", "MKL", "OMP"):  # an image is too small for several threads
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from command_line import Parser, Stop, add_options, option
from drawing.answers import Answers
from drawing.catalogue import Catalogue
from drawing.server import Server

EXIT_CODES = "exit codes: 0 ended by Ctrl-C, SIGTERM or SIGHUP; 2 bad arguments or weights, or the port is in use"
PORTS = range(8000, 8100)  # the first free one, unless a port is given


@dataclass
class Options:
    """The options of the command line."""

    run: tuple[Path, ...] = option(
        (), "folders of runs of train_mnist.py to choose from, the first at once", metavar="DIR"
    )
    weights: tuple[Path, ...] = option((), "files of weights to choose from, the first at once", metavar="FILE")
    port: int | None = option(None, "port of 127.0.0.1; 0: any (default: the first free one from 8000 on)", least=0)
    no_browser: bool = option(False, "do not open the browser")


def bind(answers: Answers, port: int | None) -> Server:
    """Make a server at a port, by default the first one that is free."""
    for candidate in PORTS if port is None else [port]:
        try:
            return Server(answers, candidate)
        except OSError:
            if port is not None:
                raise
    return Server(answers, 0)


def main(argv: list[str] | None = None) -> int:
    parser = Parser("draw.py", __doc__, EXIT_CODES)
    add_options(parser, Options)
    options = Options(**vars(parser.parse_args(argv)))
    answers = Answers(Catalogue(options.run, options.weights))
    try:
        server = bind(answers, options.port)
    except (OSError, OverflowError) as error:
        parser.error(f"port {options.port}: {error}; name another --port")
    with Stop() as stop, server:
        print(f"draw at {server.address}\nCtrl-C ends it")
        if not options.no_browser:
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        server.timeout = 0.2
        while not stop.signal:
            server.handle_request()
    return 0


if __name__ == "__main__":
    sys.exit(call(main, "draw.py"))
