"""How the record is walked: from the youngest Tensor to the oldest, gradients are carried from outputs to inputs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from operator import attrgetter
from typing import Any

import numpy as np

from . import hooks
from .record import add, as_tensor, astype, copy, mode, recording
from .tensor import NO_KEYWORDS, Operand, Tensor, attach, wrap

__all__ = ["grad"]


def topological_order(root: Tensor, constants: bool = False, caller: str = "backward") -> list[Tensor]:
    """List what `root` was made from, and itself, every Tensor after all that it was made from, and leaves first.

    Without `constants` these are the Tensors that a gradient flows to.
    """
    seen, nodes = {id(root)}, [root]
    for node in nodes:  # the list grows while it is read
        op = node.op
        if node.inputs is None:
            raise RuntimeError(
                f"{caller}: the graph behind a Tensor of shape {node.shape} (made by {op}) was freed by an "
                "earlier backward pass; pass retain_graph=True to that one, or compute the output again"
            )
        for position, a in enumerate(node.inputs):
            if not isinstance(a, Tensor) or not (a._requires_grad or constants):
                continue
            key = id(a)
            if key not in seen and (constants or not op.incomplete or op.rule(position) is not None):
                seen.add(key)
                nodes.append(a)
    nodes.sort(key=attrgetter("serial"))
    return nodes


def _leaves(nodes: list[Tensor]) -> Iterable[Tensor]:
    """Return those of `nodes`, in topological order, that no op has made: they come first."""
    return takewhile(lambda node: node.op is None, nodes)


def _useful(nodes: list[Tensor], wanted: set[int]) -> Iterable[int]:
    """Return the ids of those of `nodes`, in topological order, that are wanted or were made from a wanted one."""
    if all(id(leaf) in wanted for leaf in _leaves(nodes)):  # usually every leaf is wanted, so all are
        return map(id, nodes)
    useful = wanted & {id(node) for node in nodes}
    for node in nodes:  # inputs come before what is made from them
        if not useful.isdisjoint(map(id, node.inputs or ())):
            useful.add(id(node))
    return useful


def _distribute(node: Tensor, g: Tensor, gradients: dict[int, Tensor | None]) -> None:
    """Add what the rules of `node` make of its gradient `g` to the gradients of its inputs."""
    op, inputs, keywords, hook = node.op, node.inputs or (), node.keywords, hooks.active
    for position, x in enumerate(inputs):
        key = id(x)
        if key not in gradients:
            continue
        rule = op.rules[position] if op.arrays else op.rule(position)  # the former is faster
        if rule is None:
            continue
        if hook is not None:
            gx = hook.rule(rule, position, g, node)
        elif len(inputs) == 2 and not keywords:  # nearly always; a star takes 0.1 µs
            gx = rule(g, node, inputs[0], inputs[1])
        else:
            gx = rule(g, node, *inputs, **keywords) if keywords else rule(g, node, *inputs)
        if not isinstance(gx, Tensor) or gx._array.shape != x._array.shape:
            got, kind = (f"shape {gx.shape}", ValueError) if isinstance(gx, Tensor) else (type(gx).__name__, TypeError)
            text = f"{op.__name__}: the rule of argument {position} returned {got} for an argument of shape {x.shape}"
            raise kind(f"{text}; it must return a Tensor of that shape (undo broadcasting with tg.sum_to)")
        if gx._array.dtype != x._array.dtype:
            gx = astype(gx, x.dtype)
        before = gradients[key]
        gradients[key] = gx if before is None else _sum(before, gx, mode.recording or mode.traced)


def _backpropagate(
    root: Tensor, nodes: list[Tensor], cotangent: Tensor, wanted: set[int], create_graph: bool, retain_graph: bool
) -> dict[int, Tensor]:
    """Carry `cotangent` from `root` down to the `wanted` Tensors; returns id -> gradient.

    `nodes` is the graph in topological order. It is used up, to free memory on the way.
    """
    # None: nothing has come yet.
    gradients: dict[int, Tensor | None] = {**dict.fromkeys(_useful(nodes, wanted)), id(root): cotangent}
    found: dict[int, Tensor] = {}
    with recording(create_graph):
        while nodes:  # every consumer of a Tensor comes before it
            node = nodes.pop()
            key = id(node)
            g = gradients.pop(key, None)
            if g is not None:
                if key in wanted:
                    found[key] = g
                if node.op is not None:
                    _distribute(node, g, gradients)
            if node.op is not None and not retain_graph:
                node.inputs, node.keywords = None, NO_KEYWORDS
    return found


def _sum(x: Tensor | None, y: Tensor, by_op: bool) -> Tensor:
    if by_op:
        return copy(y) if x is None else add(x, y)
    return wrap(np.array(y._array) if x is None else np.asarray(x._array + y._array))


def _seed(output: Tensor, gradient: Operand | None, caller: str) -> Tensor:
    """Return the gradient that a backward pass starts from: the given one, checked, or 1 for a single number."""
    if gradient is None:
        if output.size != 1:
            raise RuntimeError(
                f"{caller}: only a single number has a gradient of its own, this Tensor has shape {output.shape}; "
                "reduce it (.sum(), .mean()) or pass gradient="
            )
        return wrap(np.ones_like(output._array))
    g = as_tensor(gradient)
    if g.shape != output.shape:
        raise ValueError(
            f"{caller}: gradient has shape {g.shape}, but the Tensor has shape {output.shape}; they must be equal"
        )
    return g if g.dtype == output.dtype else astype(g, output.dtype)


@attach
class BackwardMethods:
    """Methods of `Tensor` that are defined here."""

    def backward(self: Any, gradient: Operand | None = None, *, retain_graph: bool = False) -> None:
        """Add the gradient of this Tensor to `.grad` of every leaf that it was made from.

        Parameters
        ----------
        gradient : array_like, optional
            The gradient of some scalar with respect to this Tensor, of the same shape. May be left out if this is a
            single number. It is read, but not kept: any view of other memory will do.
        retain_graph : bool
            Keep the record for another backward pass, which adds the same again. By default it is freed on the way,
            activations included.

        Raises
        ------
        RuntimeError
            If nothing here requires a gradient, if the Tensor is no single number and `gradient` is missing, or if the
            graph was freed.
        """
        if not self._requires_grad:
            raise RuntimeError(
                "backward: nothing that this Tensor was made from requires a gradient; create it with "
                "requires_grad=True"
            )
        nodes = topological_order(self)
        leaves = [*_leaves(nodes)]
        found = _backpropagate(self, nodes, _seed(self, gradient, "backward"), {*map(id, leaves)}, False, retain_graph)
        for leaf in leaves:
            leaf._grad = _sum(leaf._grad, found[id(leaf)], mode.traced)


def grad(
    output: Tensor,
    inputs: Iterable[Tensor],
    create_graph: bool = False,
    *,
    gradient: Operand | None = None,
    retain_graph: bool = True,
) -> list[Tensor]:
    """Gradients of `output` with respect to `inputs`; no `.grad` is touched.

    Parameters
    ----------
    output : Tensor
        A single number, or of any shape if `gradient` is given.
    inputs : iterable of Tensor
        Leaves or intermediate results, all requiring gradients.
    create_graph : bool
        Record the computation of the gradients, so that they can be differentiated again.
    gradient : array_like, optional
        The cotangent, of `output`'s shape. With it the result is the vector-Jacobian product.
    retain_graph : bool
        Keep the record of `output`, so that it can be differentiated once more; False frees it on the way.

    Returns
    -------
    list of Tensor
        One for each input, of its shape and dtype; zeros where `output` does not depend on it.

    Examples
    --------
    >>> x = Tensor(3.0, requires_grad=True)
    >>> (slope,) = grad(x * x * x, [x], create_graph=True)
    >>> slope.item(), grad(slope, [x])[0].item()
    (27.0, 18.0)
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if not isinstance(output, Tensor) or not output._requires_grad:
        raise RuntimeError(
            "grad: the output depends on nothing that requires a gradient; it may have been made in no_grad(), of "
            "integers, which carry none, or be a gradient without create_graph=True"
        )
    for position, x in enumerate(inputs):
        if not isinstance(x, Tensor) or not x._requires_grad:
            raise TypeError(
                f"grad: inputs[{position}] does not require a gradient; create it as Tensor(array, requires_grad=True)"
            )
    cotangent = _seed(output, gradient, "grad")
    if create_graph and not cotangent._requires_grad:
        cotangent = wrap(copy(cotangent)._array)
        cotangent._requires_grad = True  # so that a constant gradient can be differentiated: to zeros
    nodes, wanted = topological_order(output), {id(x) for x in inputs}
    found = _backpropagate(output, nodes, cotangent, wanted, create_graph, retain_graph or create_graph)
    with recording(create_graph):
        return [copy(found[id(x)]) if id(x) in found else Tensor(np.zeros_like(x._array), create_graph) for x in inputs]
