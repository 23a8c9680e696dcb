"""What belongs to a model: trained parameters, frozen ones, buffers; reading and setting them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..record import as_tensor
from ..tensor import Array, Operand, Tensor
from ..validation import parameter_mismatches
from ..walk import Parameters, leaves, walk
from . import constants
from .buffer import Buffer

__all__ = ["buffers", "load_parameters", "load_state_dict", "parameters", "state_dict"]


def parameters(model: Any) -> dict[str, Tensor]:
    """Find the Tensors of a model that require gradients, by walking its attributes, lists, tuples and dicts.

    They are what an optimizer needs. To save a model, use `state_dict`: it also has what is frozen, and buffers.

    Parameters
    ----------
    model : object
        A layer or any object that holds layers.

    Returns
    -------
    dict of str to Tensor
        By path, such as ``"layers.0.weight"``, in the order in which attributes were set. A Tensor that is used in
        several places is listed once, under its first path.

    Examples
    --------
    >>> import tinygrad_mnist as tg
    >>> {name: p.shape for name, p in parameters(tg.nn.Linear(3, 2)).items()}
    {'weight': (3, 2), 'bias': (2,)}
    """
    constants.note(model)
    found, left_out = Parameters(), list[str]()
    for path, value in walk(model):
        if isinstance(value, Tensor) and value.op is None:
            if not value.requires_grad:
                left_out.append(path)
            elif path in found:
                raise ValueError(
                    f"parameters: two different parameters are both called {path}; rename an attribute or a key"
                )
            else:
                found[path] = value
    found.left_out, found.check = tuple(left_out), constants.later_check(model)
    return found


def buffers(model: Any) -> dict[str, Buffer]:
    """Find the buffers of a model, by path, as `parameters` finds its parameters.

    Examples
    --------
    >>> import tinygrad_mnist as tg
    >>> buffers([tg.nn.Linear(3, 2), tg.nn.Buffer(0)])
    {'1': Buffer(0, dtype=int64)}
    """
    return {name: t for name, t in leaves(model, "buffers").items() if isinstance(t, Buffer)}


def state_dict(model: Any) -> dict[str, Array]:
    """Copy everything that belongs to a model: trained parameters, frozen ones, and buffers.

    Parameters
    ----------
    model : object
        A layer or any object that holds layers.

    Returns
    -------
    dict of str to ndarray
        By path, in the order of `parameters`: the values of every Tensor that no op has made.

    Raises
    ------
    ValueError
        If two Tensors have the same path, or a plain array of the model, which would not be saved, has changed since
        `parameters` was first called for it. Constants may be plain arrays; state is a `Buffer`.

    Examples
    --------
    >>> import numpy as np, tinygrad_mnist as tg
    >>> layer = tg.nn.Linear(1, 2, rng=np.random.default_rng(0))
    >>> layer.weight.requires_grad = False  # frozen
    >>> list(parameters(layer)), list(state_dict(layer))
    (['bias'], ['weight', 'bias'])
    """
    constants.check(model, "state_dict")
    constants.note(model)
    return {name: np.array(t.data) for name, t in leaves(model, "state_dict").items()}


def load_state_dict(model: Any, mapping: Mapping[str, Operand]) -> None:
    """Set everything that belongs to `model` to the values of `mapping`; all of it or nothing.

    Parameters
    ----------
    model : object
    mapping : dict of str to array_like
        What `state_dict` returned. Floats are converted to the dtype of each Tensor; nothing is aliased. What was
        frozen when it was saved makes no difference.

    Raises
    ------
    TypeError
        If `mapping` is no dict, such as the name of a file.
    ValueError
        Listing every name that is missing or unknown, every shape and dtype that differs, and every value that has a
        history; the model is then unchanged.

    Examples
    --------
    >>> import numpy as np, tinygrad_mnist as tg
    >>> first, second = (tg.nn.Linear(3, 2, rng=np.random.default_rng(seed)) for seed in (0, 1))
    >>> load_state_dict(second, state_dict(first))
    >>> bool((first.weight == second.weight).data.all())
    True
    """
    _check_named("load_state_dict", mapping)
    set_values("load_state_dict", leaves(model, "load_state_dict"), mapping)


def load_parameters(model: Any, mapping: Mapping[str, Operand]) -> None:
    """Set the parameters of `model` to the values of `mapping`; all of them or none.

    Parameters
    ----------
    model : object
    mapping : dict of str to array_like
        All trained parameters; besides them all frozen ones, or all buffers, or both. Floats are converted to the dtype
        of each parameter; nothing is aliased.

    Raises
    ------
    TypeError
        If `mapping` is no dict, such as the name of a file.
    ValueError
        Listing every name that is missing or unknown, every shape that differs, what is no array of floats, and every
        value that has a history; the model is then unchanged.

    Examples
    --------
    >>> import numpy as np, tinygrad_mnist as tg
    >>> layer = tg.nn.Linear(2, 1)
    >>> load_parameters(layer, {"weight": np.ones((2, 1)), "bias": np.zeros(1)})
    >>> layer(np.ones((1, 2), np.float32)).item()
    2.0
    """
    _check_named("load_parameters", mapping)
    known = leaves(model, "load_parameters")
    kinds = {name: Buffer if isinstance(t, Buffer) else t.requires_grad for name, t in known.items()}
    given = {True, *(kinds[name] for name in mapping if name in kinds)}
    set_values("load_parameters", {name: t for name, t in known.items() if kinds[name] in given}, mapping)


def _check_named(caller: str, mapping: Any) -> None:
    """Raise a TypeError unless values are given by name."""
    if not isinstance(mapping, Mapping):
        words = "a dict of arrays by name, such as tg.checkpoint.load_weights(path)"
        raise TypeError(f"{caller}: the weights are a {type(mapping).__name__}; pass {words}")


def set_values(caller: str, wanted: Mapping[str, Tensor], mapping: Mapping[str, Operand]) -> None:
    """Set Tensors to the values of the same name: all or none."""
    given = {name: as_tensor(value) for name, value in mapping.items()}
    if history := [name for name, value in given.items() if value.op is not None]:
        raise ValueError(
            f"{caller}: {', '.join(history)} would lose the history by which gradients flow; compute in tg.no_grad(), "
            "or pass .detach()"
        )
    arrays = {name: value.data for name, value in given.items()}
    found = {
        name: (
            a.shape,
            wanted[name].dtype if name in wanted and a.dtype.kind == wanted[name].dtype.kind == "f" else a.dtype,
        )
        for name, a in arrays.items()
    }
    if wrong := parameter_mismatches({name: (t.shape, t.dtype) for name, t in wanted.items()}, found):
        raise ValueError(f"{caller}: the weights do not fit the model: {'; '.join(wrong)}")
    new = {name: np.empty_like(t.data) for name, t in wanted.items()}
    for name, array in new.items():  # in the same order in memory: the last bits of products may depend on it
        np.copyto(array, arrays[name], casting="same_kind")
    for name, t in wanted.items():
        t.data = new[name]
