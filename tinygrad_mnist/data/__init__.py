"""Data: IDX files, MNIST (a folder, the cache, the mirrors), the built-in synthetic digits, batches, augmentation."""

from __future__ import annotations

from .augment import augment
from .batches import as_input, batches
from .idx import IdxError, decode_idx, encode_idx, read_idx
from .mnist import Dataset, DataUnavailableError, cache_dir, find_mnist, load_mnist
from .splitting import hold_out
from .synthetic import synthetic_digits

__all__ = [
    "DataUnavailableError",
    "Dataset",
    "IdxError",
    "as_input",
    "augment",
    "batches",
    "cache_dir",
    "decode_idx",
    "encode_idx",
    "find_mnist",
    "hold_out",
    "load_mnist",
    "read_idx",
    "synthetic_digits",
]
