"""The options of `reproduce_paper.py`: those that are given, those that a folder keeps, and what they ask for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from command_line import check_values, data_place, option

import tinygrad_mnist as tg
from tinygrad_mnist.storage.files import write_atomically

from .experiments import EXPERIMENTS
from .listed import ListedSettings

KEPT = {"experiments", "seeds", "epochs", "quick", "data"}  # options that a folder keeps


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    data: str | None = option(
        None, 'folder with the four MNIST files, or "synthetic" (default: as train_mnist.py)', metavar="DIR"
    )
    out: Path | None = option(
        None, "folder to create for results and report (default: reproduction/DATE-TIME)", metavar="DIR"
    )
    resume: Path | None = option(
        None,
        "go on in such a folder, with its options unless others are given; it keeps what is asked for in addition",
        metavar="DIR",
    )
    experiments: tuple[str, ...] = option(
        tuple(EXPERIMENTS),
        f"(default: all of {', '.join(EXPERIMENTS)})",
        choices=tuple(EXPERIMENTS),
        metavar="NAME",
    )
    seeds: int = option(3, "run everything with the seeds 0 to N-1", least=1, metavar="N")
    epochs: int | None = option(
        None,
        "at most so many; measures of later ones are then missing (default: as many as the paper's)",
        least=1,
        metavar="N",
    )
    quick: bool = option(
        False,
        "a look in about 4 minutes on 2 cores: one seed, an eighth of the images, and a report without verdicts",
    )
    jobs: int | None = option(
        None, "runs at a time, each in a process of its own (default: the usable cores)", least=1, metavar="N"
    )
    report_only: bool = option(
        False, "with --resume: run nothing, write the report about what is there, of whatever code"
    )
    quiet: bool = option(False, "no progress bar")

    def __post_init__(self) -> None:
        check_values(self)
        if self.seeds > 1000:
            raise ValueError(f"--seeds is {self.seeds}; at most 1000 are run")


def kept_options(folder: Path) -> dict[str, Any]:
    """Read the options that a folder was begun with; raises OSError or ValueError."""
    path = folder / "options.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(kept, dict) or kept.keys() != KEPT:
            raise ValueError("it is another program's")
        Options(**kept)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} holds no reproduction; name the folder of one, or begin with --out"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}); begin again with --out") from error
    return kept


def complete_options(given: Mapping[str, Any], kept: Mapping[str, Any]) -> Options:
    """What is given, completed by what the folder has kept; raises a ValueError for what does not go together."""
    options = Options(**{**kept, **given})
    if kept and (options.quick, options.epochs) != (kept["quick"], kept["epochs"]):
        raise ValueError(f"{options.resume} was begun with other --quick or --epochs; begin another with --out")
    if options.quick and given.get("seeds", 1) > 1:
        raise ValueError("a quick look has one seed; leave out --seeds, or begin again without --quick")
    return replace(options, seeds=1) if options.quick else options


def check_size(configs: Iterable[Mapping[str, Any]], data: tg.data.Dataset) -> None:
    """Raise a ValueError if some run would have no images to train on."""
    for config in configs:
        available = len(data.images[: config["limit"]])
        if ListedSettings.from_config(config).validation_images(available) >= available:
            raise ValueError(
                f"{config['validation']} of {available} images are to be held out, which leaves none to train on; "
                "use more data, or leave the experiment “recipes” out of --experiments"
            )


def new_folder(path: Path) -> Path:
    """Make a folder, or take an empty one."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(
            f"{path} is there already and not empty; go on with --resume {path}, or choose another --out"
        )
    path.mkdir(parents=True, exist_ok=True)
    return path


def keep_options(folder: Path, options: Options, before: Mapping[str, Any]) -> None:
    """Write the options into a folder, together with what it was asked for before."""
    names = {*options.experiments, *before.get("experiments", ())}
    kept = {
        "seeds": max(options.seeds, before.get("seeds", 1)),
        "epochs": options.epochs,
        "quick": options.quick,
        "experiments": [name for name in EXPERIMENTS if name in names],
        "data": data_place(options.data),
    }
    write_atomically(folder / "options.json", (json.dumps(kept, indent=2) + "\n").encode())
