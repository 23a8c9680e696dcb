"""Which layer of a model a Tensor belongs to, by the parameters that it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...tensor import Tensor

__all__ = ["find_layers"]


def find_layers(tensors: Sequence[Tensor], paths: Mapping[int, str], origins: Mapping[int, Tensor]) -> dict[int, str]:
    """Return the layer of each Tensor by id; "" stands for what comes before the first layer.

    An op belongs to the layer whose parameter it uses. One without parameters joins the layer of its latest input, one
    of a backward pass that of the op whose rule made it, and a constant that of the first op that uses it.

    Parameters
    ----------
    tensors : sequence of Tensor
        Each after all that it was made from.
    paths : dict of int to str
        The paths of the model's parameters and other leaves, by id.
    origins : dict of int to Tensor
        What each Tensor of a backward pass was made for, by id.
    """
    layers: dict[int, str] = {}
    for tensor in tensors:
        path = paths.get(id(tensor))
        if path is not None:
            layers[id(tensor)] = path.rpartition(".")[0] or path
        elif id(tensor) in origins:
            layers[id(tensor)] = layers[id(origins[id(tensor)])]
        elif tensor.op is not None:
            layers[id(tensor)] = _layer_of_op(tensor, paths, layers)
    for tensor in tensors:
        for a in tensor.inputs or ():
            if isinstance(a, Tensor):
                layers.setdefault(id(a), layers[id(tensor)])
    return layers


def _layer_of_op(tensor: Tensor, paths: Mapping[int, str], layers: Mapping[int, str]) -> str:
    inputs = [a for a in tensor.inputs or () if isinstance(a, Tensor)]
    for a in reversed(inputs):  # a weight stands behind what it is applied to
        if id(a) in paths:
            return layers[id(a)]
    made = [a for a in inputs if a.op is not None]
    latest = max(made, key=lambda a: a.serial, default=None)
    return "" if latest is None else layers[id(latest)]
