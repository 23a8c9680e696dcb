"""The options of a session of training, and from them to a run: a new one, or one that is resumed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from command_line import data_place, fingerprint, number, option, show_source

import models
import tinygrad_mnist as tg
import training
from tinygrad_mnist.train import Trainer
from tinygrad_mnist.train.resuming import is_measured, steps_in
from tinygrad_mnist.train.runs import Run, code_version

from .build import make_trainer
from .phases import Phases
from .settings import Settings


def interval(text: str) -> tuple[int, float]:
    """Argument type: a number of steps, or of seconds; the other one is 0."""
    value = number(float, 1e-3)(text[:-1]) if text.endswith("s") else number(int, 1)(text)
    return (0, value) if text.endswith("s") else (value, 0.0)


@dataclass(frozen=True, kw_only=True)
class Session:
    """What may differ each time that a run is continued."""

    data: str | None = option(
        None,
        "folder with the four MNIST files, as torchvision or Kaggle leave them, too, or with Keras' mnist.npz; or "
        '"synthetic" (default: $TINYGRAD_MNIST_DATA, the cache, a download; if there is none, synthetic digits)',
        metavar="DIR",
    )
    out: Path | None = option(None, "run folder to create (default: runs/DATE-TIME)", metavar="DIR")
    resume: Path | None = option(
        None,
        "go on with an interrupted run, exactly; it knows its own options. With --epochs N, go on to another end, also "
        "where it had ended",
        metavar="DIR",
    )
    weights: Path | None = option(
        None, "begin with the weights in this file (.safetensors, .npz), not with random ones", metavar="FILE"
    )
    checkpoint_every: tuple[int, float] = option(
        (0, 30.0),
        "save so often: N steps, or seconds as in 30s (default: 30s); also when stopped and at the end",
        metavar="N",
        parse=interval,
    )
    keep_weights: str | None = option(
        None,
        "after each epoch, save the weights that it is measured with, as weights-epoch-N.safetensors (default: do "
        "not); a run that is resumed goes on with it",
        choices=("epoch",),
    )
    threads: int | None = option(
        None, "default: the usable cores; the result does not depend on it", least=1, metavar="N"
    )
    profile: int | None = option(
        None,
        "say how long each op takes in some steps (default: 20), and write profile.txt and trace.json (for "
        "ui.perfetto.dev) to the run folder; training goes on; at the end, say where each second went since the "
        "process was started",
        least=1,
        metavar="STEPS",
        bare=20,
    )
    no_plots: bool = option(False, "do not draw curves.png and mistakes.png")
    quiet: bool = option(False, "no progress bar and no epoch lines, only the data source and the result")


def begun_with() -> dict[str, str]:
    """What the last bits of a result depend on, beside the configuration."""
    return {
        "tinygrad_mnist": tg.__version__,
        "code": code_version(tg, models, training),
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "native kernels": tg.native.description(),
    }


def complete_settings(settings: Settings, data: tg.data.Dataset) -> Settings:
    """Settings of a new run, with the number of images that are held out."""
    available = len(data.images[: settings.limit])
    count = settings.validation_images(available)
    if count >= available:
        raise ValueError(f"--validation {count} leaves nothing of {available} images to train on; use a smaller one")
    if settings.patience and not count:
        raise ValueError("--patience needs images to validate on; use --validation 1000, say")
    return replace(settings, validation=count)


def stored_settings(run: Run, given: Mapping[str, Any], log: Callable[[str], None]) -> Settings:
    """Settings of a run to be resumed; `log` is told if other software began it.

    No option may change them but `epochs`, to anything that is not yet done.
    """
    settings = Settings.from_config(run.config)
    for name, value in asdict(settings).items():
        if name != "epochs" and given.get(name, value) != value:
            option = f"--{name.replace('_', '-')}"
            words = f"cannot be changed on the way (the run has {value}); leave it out, or begin a new run"
            raise ValueError(f"{option} {words}")
    now, then = begun_with(), run.config.get("begun with")
    if now != then:
        then = then if isinstance(then, dict) else {}
        changes = "; ".join(f"{key} {then.get(key)} -> {now[key]}" for key in now if then.get(key) != now[key])
        log(f"begun with something else ({changes}): the result may differ from that of an uninterrupted run")
    settings = replace(settings, epochs=given.get("epochs", settings.epochs))
    if run.state is not None:
        saved = run.state["trainer"]
        step, per_epoch = saved["step"], -(-saved["images"] // saved["batch_size"])
        measured = is_measured(saved["history"], step, per_epoch)  # else training must go on, to be measured at its end
        if steps_in(settings.epochs, per_epoch) < step + (step > 0 and not measured):
            done = f"{step} steps, {step / per_epoch:.6g} epochs"
            remedy = "pass that or more" if measured else "pass more"
            raise ValueError(f"--epochs {settings.epochs} is too few: the run has done {done}; {remedy}")
    return settings


def change_epochs(run: Run, trainer: Trainer, log: Callable[[str], None]) -> None:
    """Let a run that is resumed have as many epochs as its trainer; `log` is told what that changes."""
    before, now = Settings.from_config(run.config).epochs, trainer.epochs
    if now == before:
        return
    log(f"the run has {now} epochs from now on, not {before}")
    steps_before, steps_now = steps_in(before, len(trainer.cuts)), trainer.total_steps
    schedule = trainer.schedule or tg.schedules.constant
    if any(schedule(step, steps_before) != schedule(step, steps_now) for step in range(trainer.step)):
        rate = trainer.lr * schedule(trainer.step, steps_now)
        log(
            f"the learning rate follows its schedule over {now} epochs from now on (next: {rate:.3g}); in the steps "
            f"that are done it followed another: the result is not that of a run begun with --epochs {now}"
        )
    run.reconfigure(trainer.step, epochs=now)


def weights_file(run: Run | None, session: Session) -> tuple[Path | None, dict[str, str]]:
    """Where the weights to begin with are, if not random, and what is stored about them."""
    if run is None:
        file, stated = session.weights, None
    elif run.state is None and "weights" in run.config:  # it was stopped before the first checkpoint
        file, stated = Path(run.config["weights"]), run.config["weights sha256"]
    else:
        file = None
    if file is None:
        return None, {}
    if not file.is_file():  # reading from a pipe or a device may never end
        problem = "is not a file" if file.exists() else "does not exist"
        raise FileNotFoundError(f"{file}, the weights to begin with, {problem}; pass a .safetensors or .npz file")
    with open(file, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if stated not in (None, digest):
        raise ValueError(f"{file} is not the file of weights that the run was begun with; put that back, or begin anew")
    return file, {"weights": str(file.absolute()), "weights sha256": digest}


def open_run(
    given: Mapping[str, Any], session: Session, log: Callable[[str], None], phases: Phases
) -> tuple[Run, Settings, tg.data.Dataset, Trainer]:
    """Begin or resume a run: what is wrong is raised before a new folder is made."""
    run = Run.resume(session.resume, log) if session.resume else None
    try:
        if run is None:
            chosen = {f.name: given[f.name] for f in fields(Settings) if f.name in given}
            settings, place = Settings.from_recipe(**chosen), session.data
        else:
            settings, place = stored_settings(run, given, log), given.get("data", run.config.get("data"))
        with phases.part("data"):
            data = tg.data.find_mnist(place, remember=True)
        show_source(data)
        if run is None:
            settings = complete_settings(settings, data)
        elif run.config.get("data sha256") != fingerprint(data):
            source = run.config.get("data source")
            raise ValueError(f"not the data that the run was begun with ({source}); pass its folder: --data DIR")
        weights, about_weights = weights_file(run, session)
        trainer = make_trainer(settings, data, session.threads, weights)
        keep = {} if session.keep_weights is None else {"keep weights": session.keep_weights}
        if run is None:
            origin = {"data": data_place(place), "data source": data.source, "data sha256": fingerprint(data)}
            folder = session.out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
            config = {**asdict(settings), **origin, **about_weights, **keep, "begun with": begun_with()}
            run = Run.create(folder, config, log)
        else:
            if run.state is not None:
                trainer.load_state_dict(run.state["trainer"])
            change_epochs(run, trainer, log)
            if not keep.items() <= run.config.items():
                run.reconfigure(trainer.step, **keep)
            run.begin()
        return run, settings, data, trainer
    except BaseException:
        if run is not None:
            run.close()
        raise
