"""Damaged files for tests of readers, and a limit on the memory that reading them takes."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# every example overwrites the files in one temporary folder
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
thousands = settings(one_folder, max_examples=3_000)
BOUNDARIES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]


@st.composite
def damaged(draw: st.DrawFn, *intact_files: bytes) -> bytes:
    """Draw one of some files after one to four kinds of damage.

    Bits are flipped, bytes or numbers overwritten, parts removed, repeated or swapped.
    """
    data = bytearray(draw(st.sampled_from(intact_files)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(0, 40) | st.integers(0, max(len(data), 1)))
        kind = draw(st.sampled_from(["flip", "byte", "limit", "cut", "drop", "double", "insert", "swap"]))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte" and data:
            data[at] = draw(st.sampled_from(b'\0\xff"{}[],:0123456789eE-.\n') | st.integers(0, 255))
        elif kind == "limit":
            size, order = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from("<>"))
            value = draw(st.sampled_from(BOUNDARIES)) % 256**size
            data[at : at + size] = struct.pack(order + {1: "B", 2: "H", 4: "I", 8: "Q"}[size], value)
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + length]
        elif kind == "double":
            data[at:at] = data[at : at + length]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=20))
        elif kind == "swap":
            other = draw(st.integers(0, max(len(data) - 1, 0)))
            data[at : at + length], data[other : other + length] = data[other : other + length], data[at : at + length]
    return bytes(data)


@contextmanager
def peak_below(limit: int) -> Iterator[None]:
    """Fail if Python and NumPy allocate more than `limit` bytes at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()
