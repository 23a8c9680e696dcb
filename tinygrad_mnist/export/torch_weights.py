"""The weights of a model as a PyTorch state dict, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..nn import constants
from ..nn.state import set_values
from ..record import as_tensor
from ..tensor import Array
from ..validation import ArraySpec, state_mismatches
from .torch_layers import Entry, Reader

__all__ = ["from_torch_state_dict", "to_torch_state_dict"]

Names = Mapping[str, str] | Callable[[str], str]


def to_torch_state_dict(model: Any, *, names: Names | None = None, fold_dropout: bool = True) -> dict[str, Array]:
    """Copy everything that belongs to a model, by the names and in the layout of the same model in PyTorch.

    The result fits, with ``strict=True``, modules that are called as the attributes of `model` are::

        module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})

    - The weight of a `Linear`, (in, out), becomes PyTorch's, (out, in). All else has the same layout.
    - A list is an ``nn.ModuleList``, and a Tensor an ``nn.Parameter``.
    - An object that holds weights nowhere but in `layers` is an ``nn.Sequential``: the name `layers` is left out. So it
      is with `tg.nn.Sequential`, and with a model whose only layers are the list `layers`, which must be applied in
      turn.
    - There, a kind of Linear that flattens its input is an ``nn.Linear``, the first behind an ``nn.Flatten``: the
      numbers that follow are larger by 1.
    - The factor 1 - p of classic dropout, ``Dropout(p, rescale="test")``, is multiplied into the weights of the
      linear layer behind it, else into weight and bias of the one before it, because ``nn.Dropout`` does nothing in
      inference.
    - A Tensor that is used in several places has several names, as in PyTorch.

    Parameters
    ----------
    model : object
        A layer or any object that holds layers.
    names : dict of str to str, or function of str, optional
        Other names. A dict replaces whole parts at the beginning of a name: ``{"hidden": "fc1", "out": "fc2"}``; the
        longest that fits is taken. ``{"": "net"}`` places all names below ``net``, and ``{"net": ""}`` takes it away.
        A function is given each name and returns another.
    fold_dropout : bool
        False: the weights as they are. In PyTorch, multiply by 1 - p behind each ``nn.Dropout(p)`` that stands for
        classic dropout, in training and in inference; then training goes on in the same way, too.

    Returns
    -------
    dict of str to ndarray
        In the dtypes of the model. `tg.checkpoint.save_weights` writes it to a file that PyTorch users can read.

    Raises
    ------
    ValueError
        If the weight of a Linear has not two axes, no layer is known to take the factor of a classic dropout (or that
        layer is used twice), two values get the same name, or `names` has a part that no name begins with. If a plain
        array of the model has changed: see `tg.nn.state_dict`.
    TypeError
        If `names` is neither dict nor function, or returns something else than a string.

    Notes
    -----
    What is no layer is not seen: multiply by 1 - p where a model calls ``tg.dropout(x, p, rng, rescale="test")``.

    With folded factors PyTorch computes the same outputs, in training, too, but other steps: where the weight is
    c times as large, its gradient is 1 / c times as large.

    Examples
    --------
    >>> import tinygrad_mnist as tg
    >>> rng = np.random.default_rng(0)
    >>> model = tg.nn.Sequential(tg.nn.Linear(4, 8, rng=rng), tg.nn.ReLU(), tg.nn.Linear(8, 2, rng=rng))
    >>> {name: array.shape for name, array in to_torch_state_dict(model).items()}
    {'0.weight': (8, 4), '0.bias': (8,), '2.weight': (2, 8), '2.bias': (2,)}
    >>> list(to_torch_state_dict(model, names={"0": "hidden", "2": "out"}))
    ['hidden.weight', 'hidden.bias', 'out.weight', 'out.bias']
    """
    entries = _entries("to_torch_state_dict", model, names, fold_dropout)
    return {name: entry.to_torch() for name, entry in entries.items()}


def from_torch_state_dict(
    model: Any, state_dict: Mapping[str, Any], *, names: Names | None = None, fold_dropout: bool = True
) -> None:
    """Set everything that belongs to `model` to the values of a PyTorch state dict; all of it or nothing.

    This undoes `to_torch_state_dict` with the same options: to the bit, but for the rounding of the factors of classic
    dropout, which are divided by.

    Parameters
    ----------
    model : object
    state_dict : dict of str to torch.Tensor or array_like
        ``module.state_dict()``, or what `tg.checkpoint.load_weights` or `to_torch_state_dict` returned. Floats are
        converted to the dtypes of the model; nothing is aliased. PyTorch is not imported.
    names : dict of str to str, or function of str, optional
        From the default names to those of `state_dict`: see `to_torch_state_dict`.
    fold_dropout : bool
        Whether the weights hold the factors of classic dropout.

    Raises
    ------
    TypeError
        If `state_dict` is no dict, or a value is no array or of a dtype that NumPy lacks.
    ValueError
        Listing every name that is missing or unknown, and every shape and dtype that differs; or if a Tensor of the
        model that has several names is given different values. Besides, what `to_torch_state_dict` refuses. The model
        is then unchanged.

    Examples
    --------
    >>> import tinygrad_mnist as tg
    >>> layer = tg.nn.Linear(2, 1)
    >>> from_torch_state_dict(layer, {"weight": np.array([[3.0, 4.0]]), "bias": np.zeros(1)})
    >>> layer.weight.data
    array([[3.],
           [4.]], dtype=float32)
    >>> from_torch_state_dict(layer, {"fc.weight": np.array([[1.0, 2.0]]), "fc.bias": np.ones(1)}, names={"": "fc"})
    """
    caller = "from_torch_state_dict"
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"{caller}: the weights are a {type(state_dict).__name__}; pass module.state_dict()")
    entries = _entries(caller, model, names, fold_dropout)
    arrays = {name: _array(caller, name, value) for name, value in state_dict.items()}
    live = {name: ArraySpec(entry.shape, entry.tensor.dtype) for name, entry in entries.items()}
    if wrong := state_mismatches(live, arrays, "the model", any_float=True):
        raise ValueError(
            f"{caller}: the weights do not fit the model in PyTorch's layout: {'; '.join(wrong)}; if names differ, "
            "pass names={name in this model: name in PyTorch}, beginnings of names up to a dot"
        )
    first: dict[int, str] = {}
    for name, entry in entries.items():
        other = first.setdefault(id(entry.tensor), name)
        if not np.array_equal(arrays[name], arrays[other], equal_nan=arrays[name].dtype.kind == "f"):
            raise ValueError(
                f"{caller}: {other} and {name} are one Tensor in the model, and differ here; use a model with two"
            )
    set_values(
        caller,
        {name: entries[name].tensor for name in first.values()},
        {name: entries[name].from_torch(arrays[name]) for name in first.values()},
    )


def _entries(caller: str, model: Any, names: Names | None, fold_dropout: bool) -> dict[str, Entry]:
    """Read a model: its Tensors by their names in PyTorch."""
    constants.check(model, caller)
    reader = Reader(caller, fold_dropout)
    reader.read(model, "")
    if not reader.entries:
        raise ValueError(f"{caller}: the model, a {type(model).__name__}, holds no Tensors; pass a model with weights")
    places: dict[int, list[Entry]] = {}
    for entry in reader.entries:
        places.setdefault(id(entry.tensor), []).append(entry)
    for same in places.values():
        if len({(entry.factor, entry.transposed) for entry in same}) > 1:
            listed = " and ".join(entry.name for entry in same)
            raise ValueError(
                f"{caller}: {listed} are one Tensor, which PyTorch needs in different layouts, or with different "
                "factors of classic dropout; use two Tensors, or pass fold_dropout=False"
            )
    found: dict[str, Entry] = {}
    renamed = _renamed(caller, names, [entry.name for entry in reader.entries])
    for name, entry in zip(renamed, reader.entries, strict=True):
        if name in found:
            raise ValueError(
                f"{caller}: {found[name].name} and {entry.name} are both called {name} in PyTorch; pass other names"
            )
        found[name] = entry
    return found


def _renamed(caller: str, names: Names | None, found: list[str]) -> list[str]:
    """Return other names in the same order."""
    if names is None:
        return found
    if isinstance(names, Mapping):
        renamed = [_replaced(name, names) for name in found]
        if unused := [part for part in names if not any(_begins(name, part) for name in found)]:
            listed = ", ".join(map(repr, unused))
            raise ValueError(f"{caller}: names has {listed}, but no name begins so; there are {', '.join(found)}")
    elif callable(names):
        renamed = [names(name) for name in found]
    else:
        raise TypeError(f"{caller}: names is a {type(names).__name__}; pass a dict or a function of a name")
    for old, new in zip(found, renamed, strict=True):
        if not isinstance(new, str) or not new:
            raise TypeError(f"{caller}: names makes {new!r} of {old}; it must be a string that is not empty")
    return renamed


def _replaced(name: str, names: Mapping[str, str]) -> str:
    fitting = [part for part in names if _begins(name, part)]
    if not fitting:
        return name
    part = max(fitting, key=len)
    rest = name[len(part) :].removeprefix(".")
    return ".".join(piece for piece in (names[part], rest) if piece)


def _begins(name: str, part: str) -> bool:
    """Whether a name is `part`, or is in it."""
    return part == "" or name == part or name.startswith(f"{part}.")


def _array(caller: str, name: str, value: Any) -> Array:
    """Return a value as an ndarray: also a torch.Tensor that requires a gradient, or is on another device."""
    try:
        if hasattr(value, "detach") and hasattr(value, "cpu"):
            value = value.detach().cpu().numpy()
        return as_tensor(value).data
    except (TypeError, ValueError, RuntimeError) as error:  # PyTorch's own: the values of a meta tensor
        kind = getattr(value, "dtype", f"a {type(value).__name__}")
        raise TypeError(
            f"{caller}: {name} is {kind}; it must be an array or a tensor of a dtype that NumPy has, such as "
            f"tensor.float(): {error}"
        ) from error
