"""Weights on disk: NumPy's .npz, never pickle, written all or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .tensor import Array, Operand, as_tensor

__all__ = ["load_weights", "save_weights"]


def save_weights(path: str | os.PathLike[str], weights: Mapping[str, Operand]) -> None:
    """Write arrays by name to an .npz file; an interruption leaves the old file, or none, never half of one.

    Parameters
    ----------
    path : str or PathLike
    weights : dict of str to Tensor or ndarray
        For instance ``tg.nn.parameters(model)``.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            np.savez(file, **{name: as_tensor(value).data for name, value in weights.items()})  # type: ignore[arg-type]  # a name may be allow_pickle
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # still there only if something failed


def load_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read what `save_weights` wrote; give it to ``tg.nn.load_parameters``.

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is damaged, or holds Python objects instead of numbers.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # on damaged bytes, NumPy's and zipfile's parsers raise nearly anything
        raise ValueError(f"{path} is damaged or no file of weights ({type(error).__name__}: {error}); train again or restore it") from error
