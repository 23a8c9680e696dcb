"""Data: MNIST and other IDX folders, folders of images, the built-in synthetic digits, batches, augmentation."""

from __future__ import annotations

from .augment import augment
from .batches import as_input, batches
from .idx import IdxError, decode_idx, encode_idx, read_idx
from .idx_folders import load_idx_folder
from .image_folders import ImageFolder, load_image_folder
from .mnist import Dataset, DataUnavailableError, cache_dir, find_mnist, load_mnist
from .preparation.digits import Digits, ImageError, NoDigitError, from_image
from .splitting import hold_out
from .synthetic import synthetic_digits

__all__ = [
    "DataUnavailableError",
    "Dataset",
    "Digits",
    "IdxError",
    "ImageError",
    "ImageFolder",
    "NoDigitError",
    "as_input",
    "augment",
    "batches",
    "cache_dir",
    "decode_idx",
    "encode_idx",
    "find_mnist",
    "from_image",
    "hold_out",
    "load_idx_folder",
    "load_image_folder",
    "load_mnist",
    "read_idx",
    "synthetic_digits",
]
