"""Tell ink from paper: which of them is dark, uneven paper and shadows evened out, grain and faint marks left out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from .errors import NoDigitError
from .paper import Array, Mask, enlarged, find_sheet, sheet_means, threshold
from .ruling import find_ruling

__all__ = ["Ink", "find_ink"]

FAINTEST = 0.06  # ink darkens the paper by this share at least
GROUND_SIDE = 40  # pixels: what ink deviates from is found on a picture of this size
SHADE_SIDE = 256  # pixels: the background is found on a picture of this size
WINDOWS = 17, 33, 65  # of SHADE_SIDE: what is darker over less than this is ink, over more it is shadow


class Ink(NamedTuple):
    """Where ink is."""

    amount: Array  # (h, w): 0 is paper, 1 is full ink
    mask: Mask  # (h, w)
    clean: bool  # the paper is of one level, without grain


def find_ink(levels: Array) -> Ink:
    """Find the ink in a picture (h, w) or (h, w, 3) of levels in [0, 1]."""
    if min(levels.shape[:2]) < 4:
        raise NoDigitError(
            f"from_image: the picture has {levels.shape[1]} x {levels.shape[0]} pixels, too few for a digit; give more"
        )
    channels = levels[None] if levels.ndim == 2 else np.ascontiguousarray(np.moveaxis(levels, 2, 0))
    if len(channels) == 3 and (np.ptp(channels[:, ::4, ::4], axis=0) < 0.01).all():
        channels = channels[1:2]  # grey
    sheet = find_sheet(channels.mean(axis=0))
    paper = _paper_level(channels, sheet)
    deviation = channels - paper
    near = np.abs(deviation).max(axis=0) < 0.02
    clean = bool((near if sheet is None else near[sheet]).mean() > 0.5)
    if clean and sheet is None:  # what fills much of the border is no ink, but a shadow or a table
        clean = bool(np.concatenate([near[0], near[-1], near[:, 0], near[:, -1]]).mean() > 0.8)
    place = _place(~near) if clean and sheet is None else (slice(None), slice(None))  # where ink can be
    if clean:
        signs, shares = _mixture(deviation[:, *place] if sheet is None else deviation[:, sheet])
        grey = _mixed(channels[:, *place], signs, shares)
        blank = float(_mixed(paper, signs, shares).item())
        # Dark ink on light paper is measured by the share that it darkens, the reverse by the difference.
        raw = 1 - grey / blank if paper.mean() > 0.5 else blank - grey
        noise = 0.0
    else:
        raw, noise = _evened(channels, sheet)
    if sheet is not None:
        raw = np.where(sheet, raw, 0)
    raw = raw.clip(0, None)
    least = max(FAINTEST, 5 * noise)
    strong = raw[raw > least]
    if not strong.size:
        seen = "blank" if noise < 0.04 else "noise"
        raise NoDigitError(f"from_image: the picture is {seen}: no ink stands out from its paper; draw or show a digit")
    level = float(np.median(strong[strong >= threshold(strong)]))
    found = (raw / level).clip(0, 1)
    amount = np.zeros(near.shape, np.float32)
    amount[place] = found
    high = max(0.5, least / level)
    faint = max(0.25 if clean else 0.45, 0.75 * least / level)
    mask = np.zeros(near.shape, bool)
    mask[place] = ndimage.binary_propagation(found > high, mask=found > faint)
    if not clean:  # fainter ink continues strokes for a while; further on, it is ruled lines
        fainter = amount > max(0.28, 0.75 * least / level)
        mask = ndimage.binary_dilation(mask, iterations=max(2, max(mask.shape) // 100), mask=fainter | mask)
    ruling = find_ruling(mask)
    if ruling is not None:
        mask &= ~ruling
        amount[ndimage.binary_dilation(ruling, iterations=2) & ~ndimage.binary_dilation(mask)] = 0
    return Ink(amount, mask, clean)


def _place(marks: Mask) -> tuple[slice, slice]:
    """The rows and columns that hold all marks, and a few around."""
    rows = np.flatnonzero(marks.any(axis=1))
    columns = np.flatnonzero(marks.any(axis=0))
    if not rows.size:
        return slice(None), slice(None)
    level = slice(max(0, rows[0] - 4), rows[-1] + 5)
    upright = slice(max(0, columns[0] - 4), columns[-1] + 5)
    return level, upright


def _paper_level(channels: Array, sheet: Mask | None) -> Array:
    """The colour (c, 1, 1) of the paper: the median of the border, or of the sheet that lies in the picture."""
    if sheet is not None:
        some = channels[:, sheet]
    else:
        count, height, width = channels.shape
        edge = max(1, min(height, width) // 50)
        sides = channels[:, :edge], channels[:, -edge:], channels[:, :, :edge], channels[:, :, -edge:]
        some = np.concatenate([side.reshape(count, -1) for side in sides], axis=1)
    return np.asarray(np.median(some, axis=1), np.float32)[:, None, None]


def _mixture(deviation: Array) -> tuple[Array, Array]:
    """Signs and shares of the channels (c, ...) with which ink is dark and stands out most."""
    flat = deviation.reshape(len(deviation), -1)
    strength = (flat**2).sum(axis=0)  # the strongest deviations decide
    weight = flat @ np.where(flat.sum(axis=0) > 0, 0.3 * strength, strength)  # ink is more often dark than light
    total = np.abs(weight).sum()
    if total == 0:
        return np.ones(len(flat), np.float32), np.full(len(flat), 1 / len(flat), np.float32)
    return np.where(weight > 0, -1, 1).astype(np.float32), np.abs(weight) / total


def _mixed(channels: Array, signs: Array, shares: Array) -> Array:
    """Mix channels (c, h, w); one in which ink is light is turned around."""
    turned = [channel if sign > 0 else 1 - channel for channel, sign in zip(channels, signs, strict=True)]
    return np.asarray(sum(share * channel for channel, share in zip(turned, shares, strict=True)), np.float32)


def _evened(channels: Array, sheet: Mask | None) -> tuple[Array, float]:
    """By which share ink darkens the paper, and how much that share varies where there is no ink."""
    shape = channels.shape[1:]
    small = [sheet_means(channel, sheet, GROUND_SIDE) for channel in channels]
    window = max(3, max(small[0].shape) // 3)
    step = -(-max(shape) // 400)
    ground = np.stack([enlarged(ndimage.median_filter(c, window), shape, GROUND_SIDE)[::step, ::step] for c in small])
    deviation = channels[:, ::step, ::step] - ground
    grey = _mixed(channels, *_mixture(deviation if sheet is None else deviation[:, sheet[::step, ::step]]))
    differences = np.diff(grey[::3], axis=1) if shape[1] > 1 else np.diff(grey, axis=0)
    noise = float(np.median(np.abs(differences))) / 0.954
    if noise > 0.008 and max(shape) >= 200:
        grey = ndimage.gaussian_filter(grey, min(1.5, 0.6 + 20 * noise))
    shade = enlarged(_shade(sheet_means(grey, sheet, SHADE_SIDE)), shape, SHADE_SIDE)
    darkened = 1 - grey / np.maximum(shade, 0.15)
    paper = darkened if sheet is None else darkened[sheet]
    middle = float(np.median(paper))
    spread = float(np.median(np.abs(paper - middle))) / 0.6745
    return np.asarray(darkened - middle, np.float32), max(spread, 0.004)


def _shade(small: Array) -> Array:
    """How light the paper is, everywhere: what a closing leaves when it removes what is dark and narrow."""
    beyond = WINDOWS[-1] // 2  # or light that fades towards the border would be narrow there
    wide = np.pad(small, beyond, mode="edge")
    closed = [
        ndimage.grey_closing(wide, size=min(window, min(small.shape)))[beyond:-beyond, beyond:-beyond]
        for window in WINDOWS
    ]
    dark = 1 - small / np.maximum(closed[-1], 0.05)
    # Large dark places at the border, such as the table or the shadow of a hand, have a paper of their own.
    labels, _ = ndimage.label(dark > max(0.08, 0.4 * float(dark.max())))
    at_border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    places = np.isin(labels, at_border[at_border > 0])
    depth = ndimage.distance_transform_edt(np.pad(places, 1, mode="edge"))[1:-1, 1:-1]
    thick = ndimage.binary_propagation(depth > SHADE_SIDE / 24, mask=places)
    thick = ndimage.binary_dilation(thick, iterations=3)
    # The narrowest window in which the ink is as dark and as large as in the widest: strokes are not hollowed.
    shares = [np.where(thick, 0, 1 - small / np.maximum(shade, 0.05)).ravel() for shade in closed]
    contrasts = [_greatest(share) for share in shares]
    areas = [int((share > 0.7 * contrasts[-1]).sum()) for share in shares]
    chosen = next(
        i
        for i, (contrast, area) in enumerate(zip(contrasts, areas, strict=True))
        if contrast >= 0.75 * contrasts[-1] and area >= 0.85 * areas[-1]
    )
    shade = np.where(thick, closed[0], closed[chosen])
    return np.asarray(ndimage.gaussian_filter(shade, 0.7), np.float32)


def _greatest(values: Array) -> float:
    """The mean of the greatest thousandth."""
    count = max(1, values.size // 1000)
    return float(np.partition(values, -count)[-count:].mean()) if values.size else 0.0
