"""Tell ink from paper: which of them is dark, uneven paper and shadows evened out, grain and faint marks left out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from .errors import NoDigitError
from .paper import Array, Mask, block_means, enlarged, find_sheet, threshold

__all__ = ["Ink", "find_ink"]

FAINTEST = 0.06  # ink darkens the paper by this share at least
SHADE_SIDE = 256  # pixels: the background is found on a picture of this size
WINDOWS = 17, 33, 65  # of SHADE_SIDE: what is darker over less than this is ink, over more it is shadow


class Ink(NamedTuple):
    """Where ink is."""

    amount: Array  # (h, w): 0 is paper, 1 is full ink
    mask: Mask  # (h, w)
    clean: bool  # the paper is of one level, without grain


def find_ink(levels: Array) -> Ink:
    """Find the ink in a picture (h, w) or (h, w, 3) of levels in [0, 1]."""
    colours = levels[:, :, None] if levels.ndim == 2 else levels
    if colours.shape[2] == 3 and (np.ptp(colours[::4, ::4], axis=2) < 0.01).all():
        colours = colours[:, :, 1:2]
    sheet = find_sheet(colours.mean(axis=2))
    paper = _paper_level(colours, sheet)
    deviation = colours - paper
    near = np.abs(deviation).max(axis=2) < 0.02
    inside = near if sheet is None else near[sheet]
    clean = bool(inside.mean() > 0.5)
    if clean:
        grey, _ = _one_channel(colours, deviation, sheet)
        shade = np.float32(np.median(grey[near]))
        # What stands out from a light ground is measured by the share it darkens, on a dark one by the difference.
        raw = (shade - grey) / max(float(shade), 0.5)
        noise = 0.0
    else:
        raw, noise = _evened(colours, sheet)
    if sheet is not None:
        raw = np.where(sheet, raw, 0)
    raw = raw.clip(0, None)
    least = max(FAINTEST, 5 * noise)
    strong = raw[raw > least]
    if not strong.size:
        raise NoDigitError("from_image: the picture is blank: no ink stands out from its paper; draw or show a digit")
    split = threshold(strong)
    level = float(np.median(strong[strong >= split]))
    amount = np.asarray((raw / level).clip(0, 1), np.float32)
    high = max(0.5, least / level)
    low = max(0.25 if clean else 0.35, 0.75 * least / level)
    mask = ndimage.binary_propagation(amount > high, mask=amount > low)
    return Ink(amount, mask, clean)


def _paper_level(colours: Array, sheet: Mask | None) -> Array:
    """The colour of the paper: the median of the border, or of the sheet that lies in the picture."""
    if sheet is not None:
        return np.asarray(np.median(colours[sheet], axis=0), np.float32)
    height, width = colours.shape[:2]
    edge = max(1, min(height, width) // 50)
    rings = colours[:edge], colours[-edge:], colours[:, :edge], colours[:, -edge:]
    return np.asarray(np.median(np.concatenate([r.reshape(-1, colours.shape[2]) for r in rings]), axis=0), np.float32)


def _one_channel(colours: Array, deviation: Array, sheet: Mask | None) -> tuple[Array, Array]:
    """Mix the channels so that ink is dark and stands out most: by how it deviates from the paper."""
    if sheet is not None:
        deviation = np.where(sheet[:, :, None], deviation, 0)
    flat = deviation.reshape(-1, deviation.shape[2])
    weight = (flat * (flat**2).sum(axis=1, keepdims=True)).sum(axis=0)
    total = np.abs(weight).sum()
    weight = weight / total if total > 0 else np.full(len(weight), -1 / len(weight), np.float32)
    # A channel in which ink is lighter is turned around.
    mixed = np.where(weight > 0, 1 - colours, colours) @ np.abs(weight)
    return np.asarray(mixed, np.float32), np.asarray(weight, np.float32)


def _evened(colours: Array, sheet: Mask | None) -> tuple[Array, float]:
    """By which share ink darkens the paper, and how much that share varies where there is no ink."""
    height, width = colours.shape[:2]
    small = block_means(colours, 64)
    window = max(3, max(small.shape[:2]) // 3)
    ground = np.stack([ndimage.median_filter(small[:, :, c], window) for c in range(small.shape[2])], axis=2)
    step = -(-max(height, width) // 400)
    ground = enlarged(ground, (height, width), 64)[::step, ::step]
    some = colours[::step, ::step]
    _, weight = _one_channel(some, some - ground, None if sheet is None else sheet[::step, ::step])
    grey = np.where(weight > 0, 1 - colours, colours) @ np.abs(weight)
    noise = float(np.median(np.abs(grey[1:, 1:] - grey[:-1, :-1]))) / 0.954
    if noise > 0.008 and max(height, width) >= 200:
        grey = ndimage.gaussian_filter(grey, min(1.5, 0.6 + 20 * noise))
    shade = _shade(grey if sheet is None else np.where(sheet, grey, np.median(grey[sheet])))
    darkened = 1 - grey / np.maximum(shade, 0.15)
    paper = darkened if sheet is None else darkened[sheet]
    middle = float(np.median(paper))
    spread = float(np.median(np.abs(paper - middle))) / 0.6745
    return np.asarray(darkened - middle, np.float32), max(spread, 0.004)


def _shade(grey: Array) -> Array:
    """How light the paper is, everywhere: what a closing leaves when it removes what is dark and narrow."""
    small = block_means(grey, SHADE_SIDE)
    closed = [ndimage.grey_closing(small, size=min(window, min(small.shape))) for window in WINDOWS]
    dark = 1 - small / np.maximum(closed[-1], 0.05)
    # Large dark places at the border, such as the table or the shadow of a hand, have a paper of their own.
    labels, _ = ndimage.label(dark > max(0.08, 0.4 * float(dark.max())))
    at_border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    places = np.isin(labels, at_border[at_border > 0])
    depth = ndimage.distance_transform_edt(np.pad(places, 1, mode="edge"))[1:-1, 1:-1]
    thick = ndimage.binary_propagation(depth > SHADE_SIDE / 24, mask=places)
    thick = ndimage.binary_dilation(thick, iterations=3)
    contrasts = [_greatest((1 - small / np.maximum(shade, 0.05))[~thick]) for shade in closed]
    chosen = next(i for i, contrast in enumerate(contrasts) if contrast >= 0.75 * contrasts[-1])
    shade = np.where(thick, closed[0], closed[chosen])
    return enlarged(ndimage.gaussian_filter(shade, 1.5), grey.shape, SHADE_SIDE)


def _greatest(values: Array) -> float:
    """The mean of the greatest thousandth."""
    count = max(1, values.size // 1000)
    return float(np.partition(values, -count)[-count:].mean()) if values.size else 0.0
