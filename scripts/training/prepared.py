"""Pictures of digits, drawn and prepared by `from_image` on all processors."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import tinygrad_mnist as tg

from .pictures import as_jpeg, clean, photographed, printed, written

CHUNK = 250
PHOTOGRAPHED = {True: 0.15, False: 0.4}  # the share of these pictures among printed and among written ones


class Prepared(NamedTuple):
    """What `from_image` made of pictures of one digit each; those in which it did not find one digit are left out."""

    images: npt.NDArray[np.uint8]  # (n, 28, 28)
    labels: npt.NDArray[np.uint8]  # (n,)
    source: npt.NDArray[np.intp]  # (n,): index of that which the picture was drawn from


class Job(NamedTuple):
    seed: np.random.SeedSequence
    first: int  # index of the first source
    sources: Sequence[Any]  # the path of a font, or an image (28, 28)
    labels: Sequence[int]


def prepare(
    kind: str, sources: Sequence[Any], labels: Any, rng: np.random.Generator, processes: int | None = None
) -> Prepared:
    """Draw a picture from each source, an image (28, 28) or the path of a font, and prepare it.

    Parameters
    ----------
    kind : str
        What the progress bar and the message call the digits, such as "written".
    sources : sequence of ndarray or Path
    labels : sequence of int
        The digits, as long.
    rng : numpy.random.Generator
        Decides everything, whatever the number of processes.
    processes : int, optional
        By default one for each processor.
    """
    from tqdm import tqdm

    starts = range(0, len(sources), CHUNK)
    seeds = rng.bit_generator.seed_seq.spawn(len(starts))  # type: ignore[attr-defined]
    jobs = [
        Job(seed, start, sources[start : start + CHUNK], labels[start : start + CHUNK])
        for seed, start in zip(seeds, starts, strict=True)
    ]
    with (
        ProcessPoolExecutor(processes or os.cpu_count(), multiprocessing.get_context("spawn")) as pool,
        tqdm(total=len(sources), desc=f"{kind} digits", unit=" pictures") as bar,
    ):
        parts = []
        for job, part in zip(jobs, pool.map(_prepare, jobs), strict=True):
            parts.append(part)
            bar.update(len(job.labels))
    found = Prepared(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    print(f"{len(found.labels):,} of {len(sources):,} pictures of {kind} digits: one digit was found in each")
    return found


def _prepare(job: Job) -> Prepared:
    rng, found = np.random.default_rng(job.seed), []
    for index, (source, label) in enumerate(zip(job.sources, job.labels, strict=True), job.first):
        from_font = isinstance(source, Path)
        ink = printed(source, int(label), rng) if from_font else written(source, rng)
        picture: Any = photographed(ink, rng) if (photo := rng.random() < PHOTOGRAPHED[from_font]) else clean(ink, rng)
        try:
            digits = tg.data.from_image(as_jpeg(picture, rng) if photo and rng.random() < 0.5 else picture)
        except tg.data.NoDigitError:
            continue
        if len(digits.images) == 1:
            found.append((digits.images[0], label, index))
    images, labels, indices = zip(*found, strict=True) if found else ((), (), ())
    shape = (len(found), 28, 28)
    return Prepared(np.array(images, np.uint8).reshape(shape), np.array(labels, np.uint8), np.array(indices, np.intp))
