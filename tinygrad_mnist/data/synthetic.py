"""Handwritten-looking digits drawn from strokes: training data for a machine with no data set and no network.

An image starts as one of the hand-designed skeletons in `SKELETONS`. Its control points are jittered, joined by smooth
splines into a chain of points, bent by smooth random waves and an affine map, and drawn with a pen whose width varies
along the strokes. It ends by the convention of MNIST: fitted to a box of 20x20 pixels and shifted by whole pixels, so
that the centre of mass is in the middle of the 28x28 image.

All of it is array arithmetic on a hundred images at a time. One batched matrix product gives the points of the splines,
another one how deep every pixel lies in the ink of every point.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..validation import integer
from .skeletons import SKELETONS

__all__ = ["synthetic_digits"]

Array = NDArray[np.float32]

BOX, SIDE = 20, 28  # pixels: the box that the ink fills, the image that holds it
POINTS = 80  # points along the strokes of one digit: at most about 0.8 pixels apart
KNOTS = 16  # room for the control points of one skeleton
CHUNK = 128  # images drawn at once: decides the memory in use (about 20 MB), not the result

# How much digits vary. A spread is the standard deviation of a normal distribution.
JITTER = 0.19  # spread of a control point, relative to the distance of its neighbour ...
REACH = 0.3  # ... or to this many digit heights, where the neighbours are further away
CARE_SPREAD = 0.35  # of the logarithm of an image's own factor on JITTER
WAVES = 3  # smooth sine waves that move x and y
WAVE_SIZE, WAVE_FREQUENCY = 0.047, 4.0  # spreads, in digit heights and in radians per digit height
TURN_SPREAD = 0.12  # radians
SLANT, SLANT_SPREAD = 0.08, 0.25  # x per y: mean, to the right; spread
ASPECT_SPREAD = 0.27  # of log(width / height)
PEN, PEN_SPREAD = 1.25, 0.33  # radius of the pen: median, in pixels; spread of its logarithm
PEN_LIMITS = 0.75, 2.8  # pixels
SWELLS, SWELL_SIZE = 3, 0.08  # cosines along the strokes that vary the radius; spread of each one's share
EDGE, EDGE_SPREAD = 1.3, 0.15  # pixels from ink to paper: median; spread of the logarithm

# The standard normal numbers that one image consumes, by purpose.
DRAWS = {
    "jitter": KNOTS * 2,
    "care": 1,
    "waves": 4 * WAVES * 2,
    "turn": 1,
    "slant": 1,
    "aspect": 1,
    "pen": 1,
    "swells": 2 * SWELLS,
    "edge": 1,
}


class _Bank(NamedTuple):
    """All skeletons as arrays, digit after digit. Rows of unused knots are zero."""

    knots: Array  # (skeletons, KNOTS, 2): control points, in digit heights
    reach: Array  # (skeletons, KNOTS, 1): distance to the nearer neighbour on the stroke, REACH at most
    basis: Array  # (skeletons, POINTS, KNOTS): points along the strokes = basis @ knots
    first: NDArray[np.intp]  # (11,): the skeletons of digit d are first[d] to first[d + 1] - 1


def _spline(path: str) -> tuple[Array, Array, Array]:
    """Read one skeleton into its knots, reach and basis, by Catmull-Rom splines that break at sharp corners."""
    knots, reach, eye = np.zeros((KNOTS, 2)), np.zeros((KNOTS, 1)), np.eye(KNOTS)
    t = np.linspace(0, 1, 33)[:, None]
    hermite = 2 * t**3 - 3 * t**2 + 1, t**3 - 2 * t**2 + t, 3 * t**2 - 2 * t**3, t**3 - t**2
    segments = []  # each (33, KNOTS)
    begin = 0
    for stroke in path.split("|"):
        tokens = stroke.split()
        end = begin + len(tokens)
        knots[begin:end] = [[float(v) / 100 for v in token.rstrip("!").split(",")] for token in tokens]
        legs = np.linalg.norm(np.diff(knots[begin:end], axis=0), axis=1)
        reach[begin:end, 0] = np.minimum(np.append(legs, REACH), np.insert(legs, 0, REACH)).clip(max=REACH)
        smooth = [begin < i < end - 1 and not token.endswith("!") for i, token in enumerate(tokens, begin)]
        for i, (smooth_start, smooth_stop) in enumerate(itertools.pairwise(smooth), begin):
            chord = eye[i + 1] - eye[i]
            start = (eye[i + 1] - eye[i - 1]) / 2 if smooth_start else chord  # tangents, as rows over the knots
            stop = (eye[i + 2] - eye[i]) / 2 if smooth_stop else chord
            segments.append(hermite[0] * eye[i] + hermite[1] * start + hermite[2] * eye[i + 1] + hermite[3] * stop)
        begin = end
    fine = np.stack(segments)  # (segments, 33, KNOTS)
    steps = np.linalg.norm(np.diff(fine @ knots, axis=1), axis=2)  # (segments, 32)
    length = np.pad(steps, ((0, 0), (1, 0))).cumsum()  # of the ink up to each fine point
    even = np.searchsorted(length, np.linspace(0, length[-1], POINTS))
    return knots.astype(np.float32), reach.astype(np.float32), fine.reshape(-1, KNOTS)[even].astype(np.float32)


@functools.cache
def _bank() -> _Bank:
    """Read the table of skeletons, once."""
    skeletons = [_spline(path) for digit in range(10) for path in SKELETONS[digit]]
    knots, reach, basis = (np.stack(arrays) for arrays in zip(*skeletons, strict=True))
    return _Bank(knots, reach, basis, np.cumsum([0] + [len(SKELETONS[digit]) for digit in range(10)]))


def _strokes(skeleton: NDArray[np.intp], draws: dict[str, Array]) -> Array:
    """Points (m, POINTS, 2) along the strokes of m deformed skeletons, of any size and at any place."""
    bank, m = _bank(), len(skeleton)
    spread = JITTER * np.exp(CARE_SPREAD * draws["care"])[:, :, None] * bank.reach[skeleton]  # (m, KNOTS, 1)
    knots = bank.knots[skeleton] + spread * draws["jitter"].reshape(m, KNOTS, 2)
    points = bank.basis[skeleton] @ knots  # (m, POINTS, KNOTS) @ (m, KNOTS, 2) -> (m, POINTS, 2)

    size, phase, along_x, along_y = draws["waves"].reshape(m, 4, 1, WAVES, 2).swapaxes(0, 1)
    x, y = points[:, :, 0, None, None], points[:, :, 1, None, None]
    waves = WAVE_SIZE * size * np.sin(np.pi * phase + WAVE_FREQUENCY * (along_x * x + along_y * y))
    points = points + waves.sum(axis=2)  # (m, POINTS, WAVES, 2) -> (m, POINTS, 2)

    cos, sin = np.cos(TURN_SPREAD * draws["turn"]), np.sin(TURN_SPREAD * draws["turn"])
    wide, slant = np.exp(ASPECT_SPREAD * draws["aspect"]), SLANT + SLANT_SPREAD * draws["slant"]
    affine = np.concatenate([wide * cos, wide * sin, -slant * cos - sin, cos - slant * sin], axis=1)
    return np.asarray(points @ affine.reshape(m, 2, 2), np.float32)


def _ink(points: Array, draws: dict[str, Array]) -> Array:
    """Draw strokes (m, POINTS, 2) so that they fill boxes (m, BOX, BOX); 0 is paper, 1 is ink."""
    m = len(points)
    radius = (PEN * np.exp(PEN_SPREAD * draws["pen"])).clip(*PEN_LIMITS)  # (m, 1)
    size, phase = draws["swells"].reshape(m, 2, SWELLS, 1).swapaxes(0, 1)
    order = np.arange(1, SWELLS + 1, dtype=np.float32)[:, None]
    swells = size * np.cos(np.pi * (phase + order * np.linspace(0, 1, POINTS, dtype=np.float32)))
    pen = radius * np.exp(SWELL_SIZE * swells.sum(axis=1))  # (m, SWELLS, POINTS) -> (m, POINTS)

    low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
    scale = (BOX - 2 * radius[:, :, None]) / (high - low).max(axis=2, keepdims=True)
    x, y = np.moveaxis((points - (low + high) / 2) * scale, 2, 0)  # (m, POINTS) each: pixels from the box's middle

    # The largest pen**2 - distance**2 to any point is zero on the outline of the ink and positive inside. As it is
    # linear in (x, y, 1, pen**2 - x**2 - y**2), one matrix product gives it for all pixels and points.
    axis = np.arange(BOX, dtype=np.float32) - (BOX - 1) / 2
    row, column = np.repeat(axis, BOX), np.tile(axis, BOX)
    pixels = np.stack([2 * column, 2 * row, -(column**2) - row**2, np.ones_like(row)])  # (4, BOX*BOX)
    power = np.stack([x, y, np.ones_like(x), pen**2 - x**2 - y**2], axis=2) @ pixels  # -> (m, POINTS, BOX*BOX)
    depth = radius - np.sqrt((radius**2 - power.max(axis=1)).clip(0))  # (m, BOX*BOX): pixels inside the outline
    ink = (0.5 + depth / (EDGE * np.exp(EDGE_SPREAD * draws["edge"]))).clip(0, 1)
    return np.asarray(ink / ink.max(axis=1, keepdims=True), np.float32).reshape(m, BOX, BOX)


def _centred(ink: Array) -> NDArray[np.uint8]:
    """Place boxes (m, BOX, BOX) in images (m, SIDE, SIDE), their centres of mass in the middle by whole pixels."""
    m, axis = len(ink), np.arange(BOX)
    mass = np.stack([ink.sum(axis=2), ink.sum(axis=1)])  # (2, m, BOX): of the rows, of the columns
    corner = (SIDE - 1) / 2 - (mass * axis).sum(axis=2) / mass.sum(axis=2)
    top, left = np.rint(corner).astype(np.intp).clip(0, SIDE - BOX)[:, :, None] + axis  # (m, BOX) each
    images = np.zeros((m, SIDE, SIDE), np.uint8)
    images[np.arange(m)[:, None, None], top[:, :, None], left[:, None, :]] = np.rint(255 * ink)
    return images


def synthetic_digits(n: int, rng: np.random.Generator | None = None) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw handwritten-looking digits by the convention of MNIST: white ink on black, 20x20 pixels in 28x28.

    Parameters
    ----------
    n : int
        Number of images, 0 or more.
    rng : numpy.random.Generator, optional
        Decides everything; its state advances by the same amount whatever `n` is. None: ``np.random.default_rng(0)``.

    Returns
    -------
    images : ndarray of uint8, shape (n, 28, 28)
        Grey levels, 0 is paper and 255 is ink. The longer side of the ink's bounding box is 20 pixels, its centre of
        mass lies within about half a pixel of the middle.
    labels : ndarray of uint8, shape (n,)
        The digits 0 to 9, in random order; every ten in a row, from the start, hold each digit once.

    Raises
    ------
    TypeError
        If `n` is not an integer, or `rng` is not a generator.
    ValueError
        If `n` is negative.

    Notes
    -----
    Equal seeds give equal digits, and fewer images are the first of more:
    ``synthetic_digits(5, default_rng(1))`` equals the first 5 of ``synthetic_digits(9, default_rng(1))``.
    60,000 images take about 3 seconds on one core, and 100 MB in all.

    Examples
    --------
    >>> images, labels = synthetic_digits(20, rng=np.random.default_rng(0))
    >>> images.shape, images.dtype, sorted(labels[:10].tolist())
    ((20, 28, 28), dtype('uint8'), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    n = integer("synthetic_digits", "n", n)
    rng = np.random.default_rng(0) if rng is None else rng
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"synthetic_digits: rng is {rng!r}; give a generator such as np.random.default_rng(0)")

    # A stream of its own for each purpose, so that the first images do not depend on how many follow.
    label_rng, skeleton_rng, draw_rng = (np.random.default_rng(seed) for seed in rng.integers(2**63, size=3))
    tens = np.tile(np.arange(10, dtype=np.uint8), (-(-n // 10), 1))
    labels = label_rng.permuted(tens, axis=1).ravel()[:n]
    first = _bank().first
    low, high = first[:-1][labels], first[1:][labels]
    skeleton = low + (skeleton_rng.random(n) * (high - low)).astype(np.intp)

    images = np.empty((n, SIDE, SIDE), np.uint8)
    ends = np.cumsum(list(DRAWS.values()))
    for start in range(0, n, CHUNK):
        part = skeleton[start : start + CHUNK]
        normal = draw_rng.standard_normal((len(part), ends[-1]), np.float32)
        draws = dict(zip(DRAWS, np.split(normal, ends[:-1], axis=1), strict=True))
        images[start : start + CHUNK] = _centred(_ink(_strokes(part, draws), draws))
    return images, labels
