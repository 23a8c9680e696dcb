"""Save and load weights and checkpoints; the file formats are in arrayfiles.py."""

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

from ..tensor import Array, Operand, Tensor, numeric
from ..validation import integer, parameter_mismatches
from ..walk import Parameters, leaves
from .arrayfiles import (
    CheckpointError,
    check_metadata,
    check_storable,
    encode_npz,
    encode_safetensors,
    open_arrays,
)
from .files import write_atomically

__all__ = [
    "CheckpointError",
    "CheckpointManager",
    "load_checkpoint",
    "load_metadata",
    "load_weights",
    "save_checkpoint",
    "save_weights",
]

STATE_LIMIT, MAX_BYTES = 64 << 20, 1 << 32
ARRAY = "$array"  # in the state of a checkpoint, {ARRAY: name} stands for an array
STATE = "$state"  # the name of the array that holds this state, as JSON
log = logging.getLogger(__name__)


def save_weights(
    path: str | os.PathLike[str], weights: Mapping[str, Operand], metadata: Mapping[str, str] | None = None
) -> None:
    """Save arrays by name, atomically: an interruption leaves the old file or none, never an incomplete one.

    Parameters
    ----------
    path : str or PathLike
        Ending in ``.safetensors`` (needs the ``train`` extra) or ``.npz``.
    weights : dict of str to Tensor or ndarray
        For instance ``tg.nn.state_dict(model)``.
    metadata : dict of str to str, optional
        What the file says about itself, for `load_metadata`: its model, say. For ``.safetensors`` alone.

    Raises
    ------
    TypeError
        If `weights` is no dict, or `metadata` no dict of str to str.
    ValueError
        If the name ends in something else, or in ``.npz`` and there is metadata. If the metadata has the name
        ``tinygrad_mnist``, or takes more than 4 MiB together with the names of the arrays. If a value is NaN or
        infinite, or these are the ``tg.nn.parameters`` of a model that also has frozen ones or buffers, or a plain
        array that has changed (see ``tg.nn.state_dict``).
    OSError
        If the file cannot be written; an old file is then unchanged.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "weights.npz")
    ...     save_weights(path, {"bias": np.zeros(3)})
    ...     load_weights(path)
    {'bias': array([0., 0., 0.])}
    """
    if not isinstance(weights, Mapping):
        words = "a dict of arrays by name, such as tg.nn.state_dict(model)"
        raise TypeError(f"save_weights: weights are a {type(weights).__name__}; pass {words}")
    _check_whole("save_weights", "these", weights)
    path, arrays = Path(path), {name: numeric(value) for name, value in weights.items()}
    metadata = {} if metadata is None else metadata
    check_metadata("save_weights", metadata)
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"save_weights: {path.name} has no known format; use a name that ends in .safetensors or .npz")
    if metadata and path.suffix == ".npz":
        raise ValueError(f"save_weights: {path.name} cannot hold metadata; use a name that ends in .safetensors")
    for name, array in arrays.items():
        check_storable(f"save_weights: {name!r}", name, array)
    write_atomically(path, encode_npz(arrays) if path.suffix == ".npz" else encode_safetensors(arrays, metadata))


def _check_whole(caller: str, what: str, weights: Any) -> None:
    """Raise a ValueError for trained parameters of a model that has other state."""
    if not isinstance(weights, Parameters):
        return
    if weights.left_out:
        raise ValueError(
            f"{caller}: {what} are the trained parameters alone, without {', '.join(weights.left_out)}; save "
            "tg.nn.state_dict(model), or dict(...) of them if that is meant"
        )
    weights.check(caller)


def load_weights(path: str | os.PathLike[str], like: Any = None, *, max_bytes: int = MAX_BYTES) -> dict[str, Array]:
    """Load a file of weights, for ``tg.nn.load_state_dict`` or ``load_parameters``.

    Parameters
    ----------
    path : str or PathLike
        A safetensors or .npz file (detected by content, not by name), also one of another program. A checksum is
        compared if there is one: `save_weights` writes it.
    like : model or dict of str to Tensor, optional
        The file must have exactly its names, shapes and dtypes, which is checked before values are read: those of all
        that belongs to a model, as in ``tg.nn.state_dict``.
    max_bytes : int
        Refuse a larger file, or values that take more.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    FileNotFoundError
    CheckpointError
        If the file is damaged, contains Python objects, NaN or infinity, or does not fit `like`; then every difference
        is listed.

    Examples
    --------
    >>> import pathlib, tempfile, tinygrad_mnist as tg
    >>> layer = tg.nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "weights.npz")
    ...     save_weights(path, {"weight": np.ones((2, 1), np.float32)})
    ...     try:
    ...         load_weights(path, like=layer)
    ...     except CheckpointError as error:
    ...         print(str(error).removeprefix(str(path)))
     does not fit the model: bias is missing; use the weights of a model of the same size
    """
    with open_arrays(Path(path), max_bytes) as file:
        if STATE in file.entries:
            raise CheckpointError(f"{path} is a checkpoint; load it with load_checkpoint, and use its weights")
        if like is not None:
            wanted = like if isinstance(like, Mapping) else leaves(like, "load_weights")
            if wrong := parameter_mismatches({name: (p.shape, p.dtype) for name, p in wanted.items()}, file.entries):
                listed = "; ".join(wrong)
                raise CheckpointError(
                    f"{path} does not fit the model: {listed}; use the weights of a model of the same size"
                )
        return {name: file.read(name) for name in file.entries}


def load_metadata(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> dict[str, str]:
    """Load what a file of weights says about itself: the metadata that `save_weights` was given, sorted by name.

    Parameters
    ----------
    path : str or PathLike
        A safetensors file, also one of another program. Other files of weights have no metadata.
    max_bytes : int
        Refuse a larger file.

    Returns
    -------
    dict of str to str
        Without the checksum, which is compared as in `load_weights`.

    Raises
    ------
    FileNotFoundError
    CheckpointError
        If the file is damaged.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "weights.safetensors")
    ...     save_weights(path, {"bias": np.zeros(3)}, {"model": "mlp.MLP", "epoch": "3"})
    ...     load_metadata(path)
    {'epoch': '3', 'model': 'mlp.MLP'}
    """
    with open_arrays(Path(path), max_bytes) as file:
        return file.metadata()


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Save the state of a training run into one safetensors file, atomically (needs the ``train`` extra).

    Parameters
    ----------
    path : str or PathLike
    state : dict
        Nested dicts with string keys, lists, Tensors, arrays, numbers, strings, booleans and None. `load_checkpoint`
        returns arrays bit for bit, Tensors as arrays, and tuples as lists.

    Raises
    ------
    TypeError, ValueError
        If something cannot be stored, or a number is NaN or infinite; the message gives its path.
    OSError
        If the file cannot be written; an old file is then unchanged.

    Examples
    --------
    A training loop that can continue later:

    >>> import pathlib, tempfile, tinygrad_mnist as tg
    >>> layer, rng = tg.nn.Linear(2, 1), np.random.default_rng(0)
    >>> optimizer = tg.optim.AdaGrad(tg.nn.parameters(layer))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "checkpoint.safetensors")
    ...     save_checkpoint(path, {"weights": tg.nn.state_dict(layer), "optimizer": optimizer.state_dict(),
    ...                            "rng": rng.bit_generator.state, "step": 7})
    ...     state = load_checkpoint(path)
    >>> tg.nn.load_state_dict(layer, state["weights"])
    >>> optimizer.load_state_dict(state["optimizer"])
    >>> rng.bit_generator.state = state["rng"]
    >>> state["step"]
    7
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"save_checkpoint: the state is a {type(state).__name__}; pass a dict")
    arrays: dict[str, Array] = {}
    text = json.dumps(_flatten_state(state, "", arrays), allow_nan=False).encode()
    if len(text) > STATE_LIMIT:
        raise ValueError(
            f"save_checkpoint: without arrays the state takes {len(text)} bytes, more than {STATE_LIMIT}; store lists "
            "as arrays"
        )
    write_atomically(path, encode_safetensors({**arrays, STATE: np.frombuffer(text, np.uint8)}))


def load_checkpoint(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Load a state that `save_checkpoint` has saved.

    Raises
    ------
    FileNotFoundError
    CheckpointError
        If the file is damaged anywhere, or is not a checkpoint.
    """
    with open_arrays(Path(path), max_bytes) as file:
        if not 0 < math.prod(file.entries[STATE][0] if STATE in file.entries else (0,)) <= STATE_LIMIT:
            raise CheckpointError(
                f"{path} is not a checkpoint, but a file of weights or of another program; load it with load_weights"
            )
        state = json.loads(file.read(STATE).tobytes())
        arrays = {name: file.read(name) for name in file.entries if name != STATE}
        try:
            if not isinstance(found := _unflatten_state(state, arrays), dict):
                raise TypeError("it is not a dict")
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} is damaged: its state does not fit its arrays ({error}); use an older one"
            ) from error
        return found


class CheckpointManager:
    """Keep the newest checkpoints in a folder, and restore the newest one that is not damaged.

    Parameters
    ----------
    folder : str or PathLike
        Must exist. The files in it are called ``checkpoint-STEP.safetensors``.
    keep : int
        How many checkpoints to keep, at least 1.

    Attributes
    ----------
    newest : Path or None
        The file that was saved or restored last.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     manager = CheckpointManager(folder)
    ...     for step in range(3):
    ...         path = manager.save(step, {"step": step})
    ...     [file.name for file in manager.files()], manager.restore()
    (['checkpoint-00000002.safetensors', 'checkpoint-00000001.safetensors'], {'step': 2})
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), integer("CheckpointManager", "keep", keep, 1)
        self.newest: Path | None = None

    def files(self) -> list[Path]:
        """List the checkpoints, the newest first."""
        found = [
            file for file in self.folder.iterdir() if re.fullmatch(r"checkpoint-[0-9]{8,18}\.safetensors", file.name)
        ]
        return sorted(found, key=lambda file: int(file.stem.split("-")[1]), reverse=True)

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Save a checkpoint, then delete the oldest ones, so that `keep` remain."""
        path = self.folder / f"checkpoint-{integer('CheckpointManager', 'step', step):08d}.safetensors"
        save_checkpoint(path, state)
        self.newest = path
        for old in [file for file in self.files() if file != path][self.keep - 1 :]:
            old.unlink(missing_ok=True)
        return path

    def restore(self, warn: Callable[[str], None] = log.warning) -> dict[str, Any] | None:
        """Load the newest checkpoint that is not damaged; None if there are no checkpoints.

        Once an older checkpoint has been loaded instead of a damaged one, the damaged one is reported to `warn`, and
        renamed to ``….damaged``.

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
                warn(f"{reason}; going on from the one before, {file.name}")
            self.newest = file
            return state
        if reasons:
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be read: {'; '.join(reasons.values())}; begin the run again"
            )
        return None


def _flatten_state(value: Any, path: str, arrays: dict[str, Array]) -> Any:
    """Return a value in terms of JSON, with its arrays moved into `arrays` under their paths."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"save_checkpoint: {path} is {value}; only finite numbers can be stored")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (Tensor, np.ndarray)):
        array = value.data if isinstance(value, Tensor) else value
        if path in arrays:
            raise ValueError(f"save_checkpoint: two arrays have the path {path}; use keys without /")
        arrays[path] = check_storable(f"save_checkpoint: {path!r}", path, array)
        return {ARRAY: path}
    if isinstance(value, Mapping):
        _check_whole("save_checkpoint", path or "these", value)
        if wrong := [key for key in value if not isinstance(key, str) or key in (ARRAY, STATE)]:
            raise TypeError(
                f"save_checkpoint: the key {wrong[0]!r} in {path or 'the state'} cannot be stored; use other strings"
            )
        return {key: _flatten_state(part, f"{path}/{key}".lstrip("/"), arrays) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_flatten_state(part, f"{path}/{position}", arrays) for position, part in enumerate(value)]
    raise TypeError(
        f"save_checkpoint: cannot store {path}, a {type(value).__name__}; pass dicts, lists, arrays, numbers, strings"
    )


def _unflatten_state(value: Any, arrays: Mapping[str, Array]) -> Any:
    """Undo `_flatten_state`."""
    if isinstance(value, list):
        return [_unflatten_state(part, arrays) for part in value]
    if not isinstance(value, dict):
        return value
    return arrays[value[ARRAY]] if ARRAY in value else {key: _unflatten_state(v, arrays) for key, v in value.items()}
