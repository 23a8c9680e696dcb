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

__all__ = ["synthetic_digits"]

Array = NDArray[np.float32]

# Ways to write each digit, all equally likely: control points "x,y" in the order of the pen, in hundredths of the
# digit's height, x to the right and y down. "!" after a point makes a sharp corner there, "|" lifts the pen.
# fmt: off
SKELETONS: dict[int, tuple[str, ...]] = {
    0: (
        "50,4 20,8 0,50 14,90 40,100 64,80 70,40 56,8 34,4 | 54,14 40,44 16,88",
        "60,4 36,0 10,24 0,60 12,96 40,96 66,64 70,24 50,0 30,12", "60,10 30,2 4,36 8,84 44,100 76,66 70,20 44,8 36,24",
        "30,10 8,30 0,62 16,94 44,98 66,70 66,30 44,4 22,2 30,14", "20,20 40,2 14,12 0,50 14,94 46,96 66,56 56,12 30,6",
        "30,0 6,34 0,70 14,98 40,84 60,40 62,8 44,0 36,8 50,20", "50,0 14,12 0,50 14,88 50,100 86,88 100,50 86,12 48,0",
        "10,14 0,50 10,86 36,100 62,84 70,48 58,12 30,0 6,18", "50,10 20,0 0,40 10,90 50,100 76,60 66,10 30,6 20,20",
        "44,20 24,6 4,30 4,80 36,100 64,70 60,24 36,0 16,20", "32,0 8,20 0,55 14,92 36,100 60,75 64,40 50,8 30,0",
        "46,8 18,14 2,52 12,90 36,98 58,72 62,34 46,6 16,2", "76,20 50,0 16,24 0,66 22,96 60,76 82,36 70,8 44,6",
        "20,0 4,25 0,60 8,95 22,100 36,75 40,35 32,6 18,0", "90,6 50,0 10,40 0,80 30,100 80,70 100,30 84,0",
        "20,0 0,30 6,84 40,100 70,80 76,40 60,10 10,10", "16,4 2,40 10,84 40,100 70,76 76,30 60,4 40,0",
    ),
    1: (
        "0,24 12,14 24,0! 24,50 24,100 | 0,100 25,98 50,100", "0,24 30,0! 28,50 26,100 | -4,98 26,96 70,100",
        "0,0 4,50 4,100 | -18,100 4,100 26,98", "0,10 20,0! 22,50 20,96! 0,98! 50,100", "0,24 12,14 24,0! 24,50 24,100",
        "30,0 15,50 0,100 | 36,1 21,50 6,100", "0,0 0,50 0,100 | 6,0 6,50 6,100", "0,30 16,20 36,0! 30,50 24,100",
        "0,16 20,0! 18,50 12,100", "30,0 22,33 10,66 0,100", "50,0 36,33 18,66 0,100", "10,0 8,35 4,70 0,100",
        "0,0 0,35 0,70 0,100", "0,0 2,35 0,70 1,100", "2,0 0,50 6,100",
    ),
    2: (
        "8,20 30,0 56,16 40,52 8,78 0,94 16,98 30,84 16,74 24,84 46,98 72,92", "0,6 40,0 56,16 36,54 4,92! 40,98 70,90",
        "6,26 20,4 44,0 56,20 44,50 20,80 4,84 2,66 20,56 40,62 54,80 66,100", "0,10 30,0 60,10 40,44 0,84 40,88 80,76",
        "4,24 24,0 50,12 48,44 30,80 10,98 0,84 10,66 34,70 60,88 90,92", "10,20 24,0 46,14 36,50 0,90! 40,92 110,84",
        "0,30 16,4 40,0 56,20 54,60 36,92 8,100 0,84 16,66 44,76 76,100", "0,16 30,2 60,14 44,44 10,70! 40,84 70,100",
        "4,20 26,0 50,10 46,40 20,70 0,80 2,62 24,56 44,72 60,98 74,100", "0,16 40,0 70,12 50,44 10,80! 50,80 110,90",
        "0,20 14,4 40,0 56,20 50,60 30,94 8,98 2,80 20,68 40,80 60,100", "4,24 20,2 48,4 56,28 36,60 0,98! 30,96 64,98",
        "4,20 20,0 48,6 54,30 36,62 10,92 0,80 14,62 36,72 60,94 74,96", "0,4 14,0 24,20 14,60 0,100! 40,96 80,92",
        "10,30 14,8 40,0 52,20 40,56 16,92 0,90 4,66 24,54 46,66 60,90", "0,20 20,4 44,10 36,40 0,70! 40,66 90,60",
        "20,26 8,24 10,8 32,0 54,16 44,50 14,94 0,86 10,70 34,78 66,96", "0,20 16,2 44,6 40,40 0,98! 16,97 32,94",
        "2,30 16,4 44,0 60,20 46,52 18,80 6,98 4,84 24,82 50,98 74,90", "0,10 26,0 52,10 48,38 22,72 0,96! 30,90 62,98",
        "0,26 20,0 56,2 66,30 44,70 16,94 2,86 20,74 46,84 80,100", "4,14 30,0 60,10 56,36 30,62 4,84! 30,88 84,100",
        "4,24 26,0 52,10 50,38 28,74 4,96 2,80 22,80 42,94 66,94", "6,26 10,6 34,0 50,16 46,46 22,84 0,98 30,100 56,88",
        "6,26 24,2 50,14 44,52 14,88 0,96 4,78 24,76 50,92 96,98", "10,16 40,0 60,14 30,50 0,80 20,86 60,76 110,60",
        "4,20 24,0 52,14 44,46 20,76 2,90 0,74 20,70 44,90 76,92", "10,14 40,0 60,20 40,44 10,84 0,96 20,98 60,90",
        "0,20 22,0 44,6 44,34 26,70 4,94 0,84 12,78 34,88 80,82", "0,14 34,0 50,24 30,64 0,90 10,96 40,84 70,96 100,84",
        "10,34 2,16 22,0 50,8 54,34 30,70 0,100! 34,94 60,100", "0,30 16,8 40,0 56,14 50,40 24,76 0,100! 24,96 50,98",
        "0,24 24,4 50,14 40,44 6,80 10,96 30,80 50,80 90,100", "0,10 40,0 60,14 40,46 10,70 0,60 14,52 40,70 70,100",
        "0,14 24,0 46,10 44,40 24,76 2,96! 20,94 44,98", "16,20 30,0 54,8 50,36 24,66 4,66! 40,70 80,60",
        "0,14 30,4 60,0 54,30 20,80 0,100! 30,92 56,94", "0,20 34,0 56,14 30,60 0,90 10,100 30,90 50,92",
    ),
    3: (
        "0,12 20,0 44,6 44,28 20,50 10,48 20,44 46,56 48,80 24,100 2,92",
        "2,16 24,0 48,8 44,32 26,44 16,46 26,42 46,50 52,76 30,98 0,90",
        "4,12 28,0 50,10 46,34 24,46 44,50 60,70 46,96 18,100 0,88", "10,10 30,0 46,8 36,34 28,42 46,52 40,80 10,100",
        "0,6 28,0 46,14 34,38 12,46! 44,50 62,70 52,94 20,100 4,92", "0,4 30,2 60,0! 44,20 30,36! 50,46 46,76 10,100",
        "0,14 20,2 46,4 50,18 34,36 22,42! 40,44 50,60 36,90 4,100", "10,4 34,0 54,8 40,30 30,40! 44,52 40,76 0,100",
        "14,8 30,0 44,8 36,28 20,34! 56,44 70,74 40,100 4,92 8,78", "0,6 20,0 40,8 34,28 16,42! 34,46 40,64 34,84 4,92",
        "0,8 30,0 50,14 30,36 20,44 44,50 60,66 50,84 20,92 0,90", "4,4 30,2 56,4! 38,26 24,42! 52,52 56,78 36,98 0,94",
        "0,12 26,0 44,10 30,32 18,42! 36,50 46,66 44,84 34,100", "6,14 30,0 54,12 50,34 32,46! 56,60 54,84 28,100 0,86",
        "6,10 30,6 50,0! 36,22 20,42! 40,46 46,60 40,80 26,100", "0,8 34,0 60,10 52,32 30,40! 62,48 72,72 50,94 10,100",
        "10,20 26,2 46,8 40,36 26,44! 50,56 44,90 14,100 0,94", "0,20 30,0 64,10 60,44 30,54! 52,62 50,88 26,100 4,94",
        "0,4 30,10 60,4! 40,30 24,44! 60,50 70,80 40,100 0,96", "0,30 14,4 40,0 50,14 36,44! 56,34 70,40 66,70 50,100",
        "4,10 30,0 52,14 42,38 18,46! 48,54 58,76 38,98 2,92", "24,6 50,0 60,16 40,38 24,44! 52,52 50,80 24,98 0,90",
        "0,6 30,0 44,12 34,34 24,44 42,56 46,76 24,100 0,96",
    ),
    4: (
        "20,0 10,26 0,52! 34,54 76,52 | 54,20 46,60 38,100", "30,0 20,30 0,56! 40,58 90,48 | 60,24 50,60 40,100",
        "50,0 20,30 0,50! 30,52 56,48 | 52,10 46,50 36,100", "46,0 22,30 0,62! 34,62 72,60 | 46,0 46,50 44,100",
        "52,2 28,26 2,60! 34,58 76,54 | 50,4 48,50 46,100", "16,0 10,24 0,46! 30,44 80,36 | 70,0 46,50 24,100",
        "44,0 22,30 0,64! 40,60 64,58 | 44,0 42,50 38,100", "30,4 14,30 0,60! 30,62 60,60 | 36,0 36,50 38,100",
        "10,2 2,30 4,50! 30,50 66,46 | 52,0 50,50 46,100", "14,4 0,36 10,52 34,50 66,40 | 60,8 48,50 36,100",
        "4,6 2,36 18,50 44,44 56,30! 60,2! 56,50 48,100", "10,0 0,50! 20,52 40,50 | 36,10 34,50 30,100",
        "2,0 0,44! 30,46 60,44 | 56,2 56,50 56,100", "0,10 4,44 36,48 70,36 | 76,0 70,50 64,100",
        "6,4 0,40! 20,44 44,40 | 50,0 46,50 40,100", "6,4 2,40 20,54 40,44 56,6! 54,44 50,100",
        "0,0 4,34 24,40 50,34 60,4! 60,50 58,100",
    ),
    5: (
        "14,4 12,24 10,44! 34,38 58,60 48,90 18,100 0,88 | 14,4 36,4 64,0", "70,4 20,6! 14,30! 40,30 56,60 40,90 0,100",
        "70,0 40,4 20,10! 16,24 14,36! 44,40 50,66 30,96 6,100 0,86 16,78", "40,0 12,4! 10,24 4,42! 34,42 44,70 34,100",
        "50,2 30,3 14,6! 12,20 10,40! 36,40 56,66 40,96 10,96 4,80 20,76", "40,0 10,12 4,34 30,50 40,76 20,98 0,94",
        "60,6 36,0 20,6! 14,24 10,40 30,44 54,60 52,84 28,100 6,92 0,78",
        "56,0 30,2 8,2! 6,26 4,48! 30,38 56,50 60,78 40,100 10,98 0,80",
        "100,0 50,10 30,20! 24,40! 40,36 60,50 50,80 20,90 0,70 10,64", "58,4 26,4 12,22 20,40 46,54 54,80 32,100 0,92",
        "76,0 50,6 30,14! 26,26 20,34! 44,36 54,56 40,88 10,100 0,94", "60,0 20,2 16,8! 10,40! 40,38 60,70 40,98 0,96",
        "74,0 46,4 28,6! 20,26 16,40! 40,40 54,62 40,92 14,100 0,90", "40,0 16,4! 15,16 14,30! 60,34 76,70 40,100 0,90",
        "10,10 6,30 4,46! 30,40 50,60 40,90 0,100 | 12,10 40,6 70,8", "70,0 30,6 10,20! 6,40! 50,36 76,60 50,96 0,90",
        "60,10 36,4 10,10! 10,26 8,42! 40,40 60,66 40,98 10,96 0,70",
        "60,0 30,2 20,10! 14,30 4,46! 40,46 60,60 50,90 10,100 0,96",
        "60,2 36,2 14,4! 12,24 8,44! 32,36 58,60 46,90 20,100 0,90",
        "22,8 18,28 14,44! 40,44 50,68 34,94 2,98 | 20,8 48,6 90,0",
        "24,0 10,24 0,46! 30,46 56,64 40,94 4,100 | 40,4 60,0 84,2",
        "56,0 30,4 12,6! 10,16 8,28! 40,30 62,56 50,90 20,100 0,92",
        "80,6 56,0 36,10 26,34 40,52 50,72 34,96 8,98 0,84 14,74",
        "100,0 60,4 40,8! 30,22 24,36! 50,44 56,66 30,94 0,96", "90,4 50,8 30,20 26,36 50,50 50,80 20,100 0,80 14,70",
    ),
    6: (
        "44,2 20,14 4,44 2,78 20,100 52,94 60,70 44,50 20,58 10,80 18,90", "24,0 6,40 0,84 16,100 32,90 28,74 10,78",
        "40,0 10,40 0,80 30,100 80,90 90,66 60,56 20,74 10,96", "20,0 0,50 10,90 44,100 76,80 76,50 56,44 40,70 44,94",
        "50,4 20,10 0,50 14,94 56,96 70,70 50,56 26,70 24,90", "50,10 30,0 4,30 0,76 20,100 50,88 54,64 30,54 10,70",
        "30,0 8,36 0,74 16,100 44,96 56,74 40,54 14,60 2,78", "60,2 24,20 2,56 8,92 36,100 60,82 52,60 28,56 8,74",
        "70,0 36,34 6,66 4,92 26,100 48,84 44,64 24,66 8,86", "54,6 38,0 12,24 0,64 14,96 44,96 54,70 36,56 10,66",
        "70,10 40,4 10,40 0,80 30,100 64,80 50,56 20,70", "46,0 16,34 0,72 18,100 46,92 52,68 32,54 6,72",
        "30,0 4,44 6,90 50,100 86,86 80,66 50,70 36,94", "40,0 4,40 2,84 30,100 90,80 80,60 40,70 24,90",
        "20,0 6,34 0,70 12,100 40,98 50,76 32,58 4,76", "60,0 30,40 4,80 6,98 26,98 44,78 36,66 16,80",
        "4,0 0,40 4,80 26,100 48,88 46,66 24,60 4,78", "10,0 0,50 10,94 50,98 66,76 50,60 10,80",
    ),
    7: (
        "10,24 8,12 6,4! 34,6 60,4! 40,50 20,100 | 14,56 36,52 60,54", "0,4 24,8 50,6 52,30 30,60 24,100 | 14,54 52,50",
        "0,20 20,2 60,0! 50,24 30,50 20,100 | 0,60 30,52 66,48", "0,6 28,5 58,4! 34,50 14,100 | 10,52 34,50 60,46",
        "0,24 6,6! 30,8 56,0! 40,50 26,100 | 10,60 60,46", "0,12 14,0 30,10 56,4! 34,40 16,70 10,100",
        "10,40 7,24 4,10! 30,8 60,0! 46,50 40,100", "6,28 2,10 22,4 50,8! 40,36 30,70 30,100",
        "4,30 0,10 20,4 56,0! 48,30 40,60 30,100", "0,30 10,8! 40,14 70,0! 40,50 20,100", "0,6 28,5 56,4! 34,46 18,100",
        "0,30 6,8! 30,10 60,6! 44,50 40,100", "0,12 30,10 56,0 50,20 30,50 14,100", "2,22 4,6! 30,6 56,4! 38,50 26,100",
        "0,14 20,2 48,2 54,16 34,52 22,100", "0,20 10,4 40,4 60,10 56,40 30,100", "0,10 20,0 40,6 50,2! 50,50 40,100",
        "0,30 4,10 30,4 60,6! 44,40 36,100", "0,16 26,8 48,0! 48,50 46,100", "0,10 24,12 60,0! 36,40 8,100",
        "0,10 30,10 60,0! 20,60 0,100", "0,8 40,8 80,0! 60,40 46,100",
    ),
    8: (
        "28,0 8,12 10,36 30,46 50,34 50,10 28,0 | 30,46 4,64 4,92 30,100 56,90 54,62 30,46",
        "40,0 10,4 4,26 30,44 60,30 66,8 40,0 | 34,46 4,60 0,86 34,100 64,88 60,60 34,46",
        "50,16 30,0 6,14 10,32 34,42 54,24 46,10! 30,60 16,86 20,100 36,94 40,70 26,44",
        "60,4 36,0 6,8 6,30 36,42 60,30 60,8 30,56 20,86 30,100 46,86 40,56 20,40",
        "60,16 40,0 12,12 14,36 44,50 60,74 44,98 14,96 4,74 30,50 56,30 64,12",
        "30,46 8,30 14,4 40,0 54,20 42,42 12,56 0,82 22,100 52,90 52,64 30,46",
        "80,20 60,0 20,4 10,24 50,44 70,70 50,98 10,96 0,76 40,50 76,30 80,16",
        "70,8 40,36 10,64 6,90 30,100 44,76 24,40 10,16 20,0 40,8 40,30 24,50",
        "54,6 28,2 8,20 22,42 48,66 44,94 20,100 2,82 16,58 42,38 48,10 30,0",
        "50,14 28,0 6,16 18,40 46,64 46,92 22,100 2,84 14,58 40,36 54,14",
        "60,6 24,10 4,24 20,44 46,64 50,90 24,100 10,84 26,60 70,24 84,4",
        "40,6 20,0 12,14 26,30 60,60 54,92 20,100 0,80 10,52 36,30 44,10",
        "30,0 4,14 10,36 40,60 80,80 50,100 10,94 14,66 40,40 52,14 30,0",
        "70,0 50,24 24,50 4,80 20,100 44,90 40,60 16,30 10,10 30,4 50,20",
        "70,0 50,10 40,26 36,50 20,60 0,90 10,100 30,80 40,50 60,20 70,0",
        "54,0 40,8 36,26 40,40 20,70 10,92 24,98 34,80 40,44 56,16 54,0",
        "50,6 20,0 0,24 16,54 40,74 30,98 12,92 16,74 44,52 60,24 46,4",
        "56,20 40,0 4,8 8,30 40,54 44,90 16,100 8,84 24,60 56,34 64,14",
        "30,6 10,4 2,24 20,40 50,60 54,90 20,100 4,80 30,50 56,20 30,4",
        "80,8 54,0 30,18 36,42 46,66 28,96 4,94 6,74 36,50 66,30 76,8",
        "70,0 30,10 10,30 40,50 60,80 30,100 4,90 20,60 60,36 90,14",
        "90,20 60,0 30,16 40,44 50,70 30,100 0,90 10,70 50,44 90,24",
        "70,10 30,0 4,14 30,44 56,70 50,96 20,100 8,84 36,48 72,10",
        "60,4 20,4 2,20 24,40 36,60 34,90 16,100 10,84 30,54 62,20",
        "50,10 26,0 4,16 20,44 44,70 36,98 10,98 4,80 26,46 50,14",
        "20,44 6,24 26,0 50,14 34,42 8,66 6,94 30,98 40,74 20,44",
        "22,0 4,20 22,46 40,72 28,100 6,92 8,66 26,44 40,18 24,0",
        "10,8 20,40 44,70 40,96 14,98 6,76 26,46 42,12 26,0 8,8",
        "40,4 8,0 0,24 24,50 36,76 20,100 6,86 22,56 44,30 40,4",
        "10,4 20,30 44,60 50,90 30,100 16,84 30,56 50,30 60,4",
    ),
    9: (
        "48,28 42,4 16,2 0,22 10,44 36,42 48,24 48,60 36,92 10,100", "50,10 20,4 2,22 14,40 40,30 56,14! 50,50 40,100",
        "50,20 30,0 6,10 0,40 8,62 34,64 52,40 54,10! 58,60 60,100", "66,2 30,4 10,18 14,34 36,34 46,24! 44,56 26,100",
        "54,10 30,0 4,16 4,40 30,46 52,24 56,40 48,78 26,100 2,90", "50,8 24,4 2,26 10,46 34,44 52,14! 44,56 30,100",
        "54,12 30,0 4,14 4,38 30,42 54,16 62,50 44,96 4,98 0,84", "52,12 30,0 4,18 4,42 28,50 50,30 54,8! 52,54 48,100",
        "70,20 40,0 4,12 0,40 34,52 66,34 72,12! 70,50 64,100", "56,10 40,0 10,6 0,26 10,42 40,34 50,22! 54,60 50,100",
        "60,20 40,4 10,4 0,30 14,46 40,40 64,16! 50,60 40,100", "56,10 24,0 0,30 4,70 36,74 56,50 58,14! 62,70 76,100",
        "60,4 36,0 10,14 2,36 20,46 46,30 54,18! 46,50 20,100", "40,10 24,2 8,16 10,36 30,40 42,20 40,6! 36,50 30,100",
        "66,10 36,0 6,18 2,40 26,46 54,26 66,8! 50,54 22,100", "60,10 24,0 0,26 8,60 36,64 58,36 60,8! 62,56 60,100",
        "70,4 40,0 10,10 0,30 16,44 50,30 70,4! 60,50 44,100", "54,6 20,0 2,26 10,48 36,40 54,16 58,4! 50,50 46,100",
        "50,14 34,0 8,8 0,30 10,50 34,46 50,24! 46,60 44,100", "44,6 20,2 8,20 10,40 30,42 46,24 56,2! 50,50 46,100",
        "54,0 24,4 4,24 4,44 24,50 44,36 56,10! 60,50 40,100", "60,6 40,0 10,10 0,28 14,40 44,30 50,20 48,60 20,100",
        "60,6 40,0 14,16 8,34 22,38 46,22 60,4! 36,50 0,100", "56,2 20,2 6,20 10,34 36,34 54,24 50,56 30,90 4,100",
        "60,0 26,8 0,32 10,50 40,40 58,10! 54,50 50,100", "46,20 34,2 12,4 4,24 20,40 46,26! 44,60 38,100",
        "56,4 20,4 2,28 16,46 44,38 56,20! 50,60 44,100", "60,4 30,2 6,16 10,36 40,34 54,24! 54,50 30,100",
        "52,4 20,10 0,34 16,48 42,36 60,6 48,48 22,100", "44,16 26,0 4,16 8,38 34,38 46,14 50,44 46,100",
        "70,6 30,2 0,20 6,38 40,30 62,16! 46,60 30,100", "40,6 24,4 14,20 20,30 36,20 46,4! 24,50 0,100",
        "30,6 8,2 0,20 14,34 32,22 30,6! 38,50 40,100", "50,4 26,8 10,24 20,36 44,26! 46,50 36,100",
    ),
}
# fmt: on

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
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise TypeError(f"synthetic_digits: n is {n!r}; give the number of images as an integer")
    if n < 0:
        raise ValueError(f"synthetic_digits: n is {n}; give the number of images, 0 or more")
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
