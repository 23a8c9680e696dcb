#!/usr/bin/env python
"""Train the weights that the repository holds, models/deep_convnet.safetensors.

The 21-layer network learns from MNIST's training images, from synthetic digits, and from pictures of written and
printed digits, clean or photographed-looking, as `tg.data.from_image` prepares them. 5,000 of MNIST's training images
are held out; the temperature of the probabilities is fitted on them. The test images are read once, at the end.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from any folder, installed or not
from command_line import Parser, add_options, missing_extras, option
from terminal import call
from training.fonts import Font, find_fonts
from training.prepared import prepare

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from models.pretrained import SHIPPED, describe

HELD_OUT = 5000


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be chosen."""

    data: str | None = option(None, "the folder of MNIST (default: TINYGRAD_MNIST_DATA, the cache, the web)")
    fonts: Path = option(Path("/usr/share/fonts"), "the folder of fonts", parse=Path)
    out: Path = option(SHIPPED, "the file to write (default: models/deep_convnet.safetensors)", parse=Path)
    epochs: int = option(5, "times to go through all images", least=1)
    written: int = option(10_000, "pictures of MNIST's training images", least=1)
    printed: int = option(12_000, "pictures of digits of fonts", least=1)
    synthetic: int = option(10_000, "synthetic digits", least=1)
    unseen: int = option(0, "leave every N-th family of fonts out, and measure on its digits", least=0, metavar="N")
    seed: int = option(0, "decides everything", least=0)


def main(argv: list[str] | None = None) -> int:
    parser = Parser("train_shipped_weights.py", __doc__, "exit codes: 0 done; 2 bad arguments, data or fonts")
    add_options(parser, Options)
    options = Options(**vars(parser.parse_args(argv)))
    needed = [(name, "reading pictures", "") for name in ("PIL", "scipy", "safetensors", "tqdm")]
    if problem := missing_extras(needed, "images"):
        parser.error(problem)
    if not (fonts := find_fonts(options.fonts)):
        parser.error(f"{options.fonts} has no font with plain digits; name another folder")
    try:
        data = tg.data.find_mnist(options.data)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if data.synthetic:
        parser.error(f"these weights are trained on MNIST, but there are only {data.source}")
    init, split, chosen, written, printed, drawn, order = np.random.default_rng(options.seed).spawn(7)
    training, validation = tg.data.hold_out(data.labels, HELD_OUT, split)

    sets = {"training images of MNIST": (data.images[training], data.labels[training])}
    sets["synthetic digits"] = tg.data.synthetic_digits(options.synthetic, drawn)
    picked = chosen.choice(training, options.written, replace=options.written > len(training))
    pages = prepare("written", data.images[picked], data.labels[picked], written)
    sets["pictures of written digits"] = pages.images, pages.labels
    digits = chosen.integers(0, 10, options.printed)
    used = [fonts[i] for i in chosen.integers(0, len(fonts), options.printed)]
    prints = prepare("printed", [font.path for font in used], digits, printed)
    used = [used[i] for i in prints.source]
    unseen = is_unseen(used, fonts, options.unseen)
    sets["pictures of printed digits"] = prints.images[~unseen], prints.labels[~unseen]
    counts = ", ".join(f"{len(labels):,} {name}" for name, (_, labels) in sets.items())
    learned = {font for font, left_out in zip(used, unseen, strict=True) if not left_out}
    counts += f" ({len(learned)} fonts of {len({font.family for font in learned})} families)"
    print(f"{counts} to train on", flush=True)

    model = DeepConvNet(init, rescale="train", logit_dropout=0)
    images, labels = (np.concatenate(arrays) for arrays in zip(*sets.values(), strict=True))
    watched = {"held out": (data.images[validation], data.labels[validation])}
    watched |= {"unseen fonts": (prints.images[unseen], prints.labels[unseen])} if unseen.any() else {}
    train(model, images, labels, watched, options.epochs, order)

    model = with_default_arguments(model)
    held_out = tg.training.outputs(model, data.images[validation])
    temperature = tg.training.fit_temperature(held_out, data.labels[validation])
    logits = tg.training.outputs(model, data.test_images)
    accuracy = float((logits.argmax(axis=1) == data.test_labels).mean())
    print(f"test accuracy {accuracy:.4f} on MNIST's 10,000 test images; temperature {temperature:.3f}")
    for name, scores, truth in ("held out", held_out, data.labels[validation]), ("test", logits, data.test_labels):
        before, after = (tg.training.calibration_error(tg.softmax(scores / t).data, truth) for t in (1, temperature))
        print(f"calibration error, {name} images: {before:.4f} before, {after:.4f} with the temperature")
    told = {
        **describe("deep_convnet.DeepConvNet"),
        "data": counts,
        "accuracy": f"{accuracy:.4f} on MNIST's 10,000 test images",
        "temperature": f"{temperature:.4f}",
        "command": shlex.join(
            ["python", "scripts/train_shipped_weights.py", *(sys.argv[1:] if argv is None else argv)]
        ),
        "origin": f"tinygrad_mnist {tg.__version__}, code {tg.runs.code_version(tg)}",
    }
    tg.checkpoint.save_weights(options.out, tg.nn.state_dict(model), told)
    print(f"wrote {options.out}")
    return 0


def is_unseen(used: list[Font], fonts: list[Font], every: int) -> Any:
    """Whether each font is of a family that is left out: every so many of all, none for 0."""
    families = sorted({font.family for font in fonts})
    left_out = set(families[::every]) if every else set()
    return np.array([font.family in left_out for font in used], bool)


def train(
    model: DeepConvNet, images: Any, labels: Any, watched: dict[str, Any], epochs: int, rng: np.random.Generator
) -> None:
    """Train, and leave the moving average of the weights in the model."""
    optimizer = tg.optim.Muon(tg.nn.parameters(model), lr=0.004, momentum=0.9, betas=(0.8, 0.95), weight_decay=0.1)
    trainer = tg.training.Trainer(
        model,
        optimizer,
        images,
        labels,
        epochs=epochs,
        batch_size=128,
        rng=rng,
        monitor=watched,
        schedule=tg.schedules.warmup(tg.schedules.linear, 0.05),
        augment=partial(tg.data.augment, strength=0.9),
        average=0.995,
    )
    tg.training.run(trainer, [tg.training.ProgressBar(), tg.training.EpochLines()])
    tg.nn.load_state_dict(model, trainer.selected())


def with_default_arguments(model: DeepConvNet) -> DeepConvNet:
    """Return the same network made without arguments: it halves hidden units and logits, so the weights are doubled.

    Its logits are the same to the bit, and whoever loads the weights need not know how they were trained.
    """
    state = {name: array.copy() for name, array in tg.nn.state_dict(model).items()}
    *_, weight, bias = state
    state[weight] *= 4
    state[bias] *= 2
    default = DeepConvNet()
    tg.nn.load_state_dict(default, state)
    return default


if __name__ == "__main__":
    sys.exit(call(main, "train_shipped_weights.py"))
