"""Weights, and everything else that is needed to go on later, on disk.

What users call. The formats are in arrayfiles.py.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..nn import parameters
from ..tensor import Array, Operand, Tensor, as_tensor
from .arrayfiles import ENCODERS, CheckpointError, check_storable, encode_safetensors, opened
from .files import write_atomically
from .validation import parameter_mismatches

__all__ = ["CheckpointError", "CheckpointManager", "load_checkpoint", "load_weights", "save_checkpoint", "save_weights"]

STATE_LIMIT, MAX_BYTES = 64 << 20, 1 << 32
ARRAY, STATE = (
    "$array",
    "$state",
)  # the key that stands for an array in a checkpoint's state; the array with that state, as JSON
log = logging.getLogger(__name__)


def save_weights(path: str | os.PathLike[str], weights: Mapping[str, Operand]) -> None:
    """Write arrays by name; an interruption leaves the old file, or none, never half of one.

    Parameters
    ----------
    path : str or PathLike
        Ending in ``.safetensors`` (needs the ``train`` extra) or ``.npz``.
    weights : dict of str to Tensor or ndarray
        For instance ``tg.nn.parameters(model)``.

    Raises
    ------
    ValueError
        If the name ends in something else, or a value is NaN or infinite.
    OSError
        If the file cannot be written; what was there before is still there.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "weights.npz")
    ...     save_weights(path, {"bias": np.zeros(3)})
    ...     load_weights(path)
    {'bias': array([0., 0., 0.])}
    """
    path, arrays = Path(path), {name: as_tensor(value).data for name, value in weights.items()}
    if path.suffix not in ENCODERS:
        raise ValueError(f"save_weights: {path.name} says no format; let its name end in .safetensors or .npz")
    for name, array in arrays.items():
        check_storable(f"save_weights: {name!r}", name, array)
    write_atomically(path, ENCODERS[path.suffix](arrays))


def load_weights(path: str | os.PathLike[str], like: Any = None, *, max_bytes: int = MAX_BYTES) -> dict[str, Array]:
    """Read a file of weights, safetensors or .npz (told apart by content, whatever the name); give it to
    ``tg.nn.load_parameters``.

    Parameters
    ----------
    path : str or PathLike
        Also from other programs. A checksum is compared if there is one: `save_weights` writes it.
    like : model or dict of str to Tensor, optional
        What the weights are for. The file must have exactly its names, shapes and dtypes; this is found out before
        values are read.
    max_bytes : int
        Refuse a larger file, or values that would take more.

    Raises
    ------
    FileNotFoundError
    CheckpointError
        If the file is damaged, holds Python objects, NaN or infinity, or does not fit `like`: then every difference is
        listed.
    """
    with opened(Path(path), max_bytes) as file:
        if STATE in file.entries:
            raise CheckpointError(f"{path} is a checkpoint; read it with load_checkpoint, and take its weights")
        if like is not None:
            wanted = like if isinstance(like, Mapping) else parameters(like)
            if wrong := parameter_mismatches({name: (p.shape, p.dtype) for name, p in wanted.items()}, file.entries):
                raise CheckpointError(f"{path} does not fit the model: {'; '.join(wrong)}")
        return {name: file.read(name) for name in file.entries}


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write everything that is needed to go on later into one safetensors file, all or nothing (needs the ``train``
    extra).

    Parameters
    ----------
    path : str or PathLike
    state : dict
        Nested dicts with string keys, lists, Tensors, arrays, numbers, strings, booleans and None: whatever
        `load_checkpoint` is to give back (arrays bit for bit; Tensors as arrays, tuples as lists).

    Raises
    ------
    TypeError, ValueError
        If something cannot be stored, or a number is NaN or infinite; the message says where it is.
    OSError
        If the file cannot be written; what was there before is still there.

    Examples
    --------
    A loop of your own, that can go on where it was:

    >>> import pathlib, tempfile, tinygrad_mnist as tg
    >>> layer, rng = tg.nn.Linear(2, 1), np.random.default_rng(0)
    >>> optimizer = tg.optim.AdaGrad(tg.nn.parameters(layer))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "checkpoint.safetensors")
    ...     save_checkpoint(path, {"weights": tg.nn.parameters(layer), "optimizer": optimizer.state_dict(),
    ...                            "rng": rng.bit_generator.state, "step": 7})
    ...     state = load_checkpoint(path)
    >>> tg.nn.load_parameters(layer, state["weights"])
    >>> optimizer.load_state_dict(state["optimizer"])
    >>> rng.bit_generator.state = state["rng"]
    >>> state["step"]
    7
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"save_checkpoint: the state is a {type(state).__name__}; pass a dict")
    arrays: dict[str, Array] = {}
    text = json.dumps(_taken_apart(state, "", arrays), allow_nan=False).encode()
    if len(text) > STATE_LIMIT:
        raise ValueError(
            f"save_checkpoint: beside arrays a state may take {STATE_LIMIT} bytes, not {len(text)}; store lists as "
            "arrays"
        )
    write_atomically(path, encode_safetensors({**arrays, STATE: np.frombuffer(text, np.uint8)}))


def load_checkpoint(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    FileNotFoundError
    CheckpointError
        If the file is damaged anywhere, or is no checkpoint.
    """
    with opened(Path(path), max_bytes) as file:
        if not 0 < math.prod(file.entries[STATE][0] if STATE in file.entries else (0,)) <= STATE_LIMIT:
            raise CheckpointError(
                f"{path} is no checkpoint but a file of weights, or another program's; read it with load_weights"
            )
        state = json.loads(file.read(STATE).tobytes())
        arrays = {name: file.read(name) for name in file.entries if name != STATE}
        try:
            if not isinstance(found := _put_together(state, arrays), dict):
                raise TypeError("it is no dict")
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} is damaged: its state does not fit its arrays ({error}); use an older one"
            ) from error
        return found


class CheckpointManager:
    """The newest checkpoints in a folder: the last one, and those before it to fall back on.

    Parameters
    ----------
    folder : str or PathLike
        Exists. Its files are called ``checkpoint-STEP.safetensors``.
    keep : int
        How many to keep, at least 1.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"CheckpointManager: keep is {keep}; keep at least 1 checkpoint")
        self.folder, self.keep = Path(folder), keep

    def files(self) -> list[Path]:
        """List the checkpoints, the newest first."""
        found = [
            file for file in self.folder.iterdir() if re.fullmatch(r"checkpoint-[0-9]{8,18}\.safetensors", file.name)
        ]
        return sorted(found, key=lambda file: int(file.stem.split("-")[1]), reverse=True)

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then delete those with the lowest numbers that are not to be kept."""
        if step < 0:
            raise ValueError(f"CheckpointManager: step is {step}; it must be at least 0")
        path = self.folder / f"checkpoint-{step:08d}.safetensors"
        save_checkpoint(path, state)
        for old in [file for file in self.files() if file != path][self.keep - 1 :]:
            old.unlink(missing_ok=True)
        return path

    def restore(self, say: Callable[[str], None] = log.warning) -> dict[str, Any] | None:
        """Read the newest checkpoint that is whole; None if there is none at all.

        Damaged ones are told to `say`, and renamed to ``….damaged`` once an older one has been read in their place.

        Raises
        ------
        CheckpointError
            If there are checkpoints, and all of them are damaged.
        """
        reasons: dict[Path, str] = {}
        for file in self.files():
            try:
                state = load_checkpoint(file)
            except (CheckpointError, OSError) as error:
                reasons[file] = str(error)
                continue
            for damaged, reason in reasons.items():
                os.replace(damaged, damaged.with_suffix(".damaged"))
                say(f"{reason}; going on from the one before, {file.name}")
            return state
        if reasons:
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be read: {'; '.join(reasons.values())}; begin the run again"
            )
        return None


def _taken_apart(value: Any, where: str, arrays: dict[str, Array]) -> Any:
    """Return what JSON can hold of `value`, and put its arrays into `arrays` by their paths."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"save_checkpoint: {where} is {value}; only finite numbers are kept")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (Tensor, np.ndarray)):
        array = value.data if isinstance(value, Tensor) else value
        if where in arrays:
            raise ValueError(f"save_checkpoint: there are two arrays of the name {where}; use keys without /")
        arrays[where] = check_storable(f"save_checkpoint: {where!r}", where, array)
        return {ARRAY: where}
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str) or key in (ARRAY, STATE)]:
            raise TypeError(
                f"save_checkpoint: the key {wrong[0]!r} in {where or 'the state'} cannot be stored; use other strings"
            )
        return {key: _taken_apart(part, f"{where}/{key}".lstrip("/"), arrays) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_taken_apart(part, f"{where}/{position}", arrays) for position, part in enumerate(value)]
    raise TypeError(
        f"save_checkpoint: cannot store {where}, a {type(value).__name__}; pass dicts, lists, arrays, numbers, strings"
    )


def _put_together(value: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(value, dict):
        return (
            arrays[value[ARRAY]]
            if ARRAY in value
            else {key: _put_together(part, arrays) for key, part in value.items()}
        )
    return [_put_together(part, arrays) for part in value] if isinstance(value, list) else value
