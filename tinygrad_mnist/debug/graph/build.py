"""How a graph is made of Tensors: each becomes a node, each use an edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...backward import topological_order
from ...tensor import Tensor
from ...walk import leaves
from ..profiler import Profile
from .backward_pass import Differentiated, differentiate
from .data import Edge, Graph, Node
from .layers import find_layers
from .timing import find_seconds
from .work import count_flops

__all__ = ["graph", "to_dot"]

MAX_LENGTH = 40  # characters shown of a constant or of a keyword's value
NOTHING = Differentiated({}, {}, [], {})


def graph(
    loss: Tensor,
    model: Any = None,
    backward: bool = False,
    profile: Profile | None = None,
    names: Mapping[str, Tensor] | None = None,
) -> Graph:
    """Return how a Tensor was computed, to look at: as data, as text for Graphviz and Mermaid, and as a page.

    FLOPs are counted from shapes: 2 for each multiply-add of a product or a convolution (padding included), 1 for each
    element of the result of an elementwise op, 1 for each element that goes into a reduction, none for views and
    copies.

    Where all Tensors are single numbers, each node has its gradient, too, which is computed for this purpose.

    Parameters
    ----------
    loss : Tensor
        Computed while gradients were recorded, and not freed by `backward`. With `backward` it is a single number.
    model : object, optional
        Names the parameters by their paths, and gives each op a layer: the one whose parameters it uses; an op without
        parameters joins the layer before it.
    backward : bool
        Compute the gradient by all leaves with ``create_graph=True``, and show this computation as well.
    profile : Profile, optional
        Recorded while the loss was computed, and perhaps its gradient: nodes get the time that their ops took.
    names : dict of str to Tensor, optional
        Names of other Tensors, such as inputs and intermediate results. Those that are not in the graph are left out.
        Tensors without a name are called "given"; with `backward`, leaves are called by their `Node.id`, so that
        their gradients can tell which of them they belong to.

    Returns
    -------
    Graph
        It has `nodes` and `edges`, and the methods `to_html`, `to_mermaid`, `to_dot` and `collapsed`.

    Raises
    ------
    TypeError
        If `loss` is not a Tensor, `profile` not a Profile or `names` not a dict.
    ValueError
        If no recorded op has made `loss`, if it has nothing to do with `model` or `profile`, or if the gradient of more
        than one number is wanted.
    RuntimeError
        If a backward pass has freed the graph.

    Examples
    --------
    >>> a, b = Tensor(2.0, requires_grad=True), Tensor(-3.0, requires_grad=True)
    >>> shown = graph(a * b + a, names={"a": a, "b": b})
    >>> [(node.title, node.value, node.gradient) for node in shown.nodes]
    [('a', 2.0, -2.0), ('b', -3.0, 2.0), ('multiply', -6.0, 1.0), ('add', -4.0, 1.0)]
    >>> shown.edges[0]
    Edge(source='n0', target='n2', position=0, uses=1)
    """
    if not isinstance(loss, Tensor):
        raise TypeError(f"graph: loss is {type(loss).__name__}; pass the Tensor whose graph is to be shown")
    if names is not None and not isinstance(names, Mapping):
        raise TypeError(f'graph: names is {type(names).__name__}; pass a dict of names to Tensors, such as {{"x": x}}')
    if loss.op is None:
        raise ValueError(
            f"graph: no op has been recorded that made this Tensor of shape {loss.shape}; compute it from Tensors with "
            "requires_grad=True, outside of no_grad()"
        )
    if backward and loss.size != 1:
        raise ValueError(
            f"graph: backward=True wants a single number, not shape {loss.shape}; reduce it, e.g. by .sum()"
        )
    forward = topological_order(loss, constants=True, caller="graph")
    paths = {} if model is None else {id(tensor): path for path, tensor in leaves(model, "graph").items()}
    if model is not None and not any(id(tensor) in paths for tensor in forward):
        raise ValueError("graph: nothing of the model is in the graph; pass the model that computed this loss")
    scalars = all(tensor.size == 1 for tensor in forward)
    gradient = differentiate(loss, forward, backward) if backward or scalars else NOTHING
    labels = {**paths, **{id(tensor): name for name, tensor in (names or {}).items()}}
    layers = find_layers(_in_order([*forward, *gradient.made]), paths, gradient.origins) if model is not None else {}
    seconds = {} if profile is None else find_seconds(profile, forward, gradient.made)
    shown = _assemble(loss, forward, gradient, labels, layers, seconds)
    if model is not None:
        shown.title = type(model).__name__
    return shown


def to_dot(output: Tensor, names: Mapping[str, Tensor] | None = None) -> str:
    """Describe how a Tensor was computed, in Graphviz's DOT language.

    The result of each op is a box, each leaf an ellipse, and each use of a value an edge. `graph` shows more.

    Parameters
    ----------
    output : Tensor
        Computed while gradients were recorded, and not freed by `backward`.
    names : dict of str to Tensor, optional
        Labels for some of the Tensors, such as ``tg.nn.parameters(model)``. Labelled Tensors are filled with colour.

    Returns
    -------
    str
        A `digraph`. ``dot -Tsvg graph.dot -o graph.svg`` draws it.

    Raises
    ------
    TypeError
        If `output` is not a Tensor.
    RuntimeError
        If a backward pass has freed the graph.

    Examples
    --------
    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> print(to_dot((2 * x).sum(), {"x": x}))
    digraph {
      rankdir=BT; node [fontname="Helvetica", fontsize=10]; edge [fontname="Helvetica", fontsize=9];
      n0 [label="x\\n(2,) float64", shape=ellipse, style=filled, fillcolor="#cfe8f7"];
      c0 [label="2", shape=plaintext];
      n1 [label="multiply\\n(2,)", shape=box];
      c0 -> n1;
      n0 -> n1;
      n2 [label="sum\\n()", shape=box];
      n1 -> n2;
    }
    """
    if not isinstance(output, Tensor):
        raise TypeError(f"to_dot: output is {type(output).__name__}; pass the Tensor whose graph is to be drawn")
    forward = topological_order(output, constants=True, caller="to_dot")
    labels = {id(tensor): name for name, tensor in (names or {}).items()}
    return _assemble(output, forward, NOTHING, labels, {}, {}).to_dot()


def _in_order(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Put each leaf before the first op that uses it; the ops stay in order."""
    placed: dict[int, Tensor] = {}
    for tensor in tensors:
        if tensor.op is not None:
            for a in tensor.inputs or ():
                if isinstance(a, Tensor):
                    placed.setdefault(id(a), a)
            placed[id(tensor)] = tensor
    return [*placed.values()] or [*tensors]


def _assemble(
    loss: Tensor,
    forward: Sequence[Tensor],
    gradient: Differentiated,
    labels: Mapping[int, str],
    layers: Mapping[int, str],
    seconds: Mapping[int, float],
) -> Graph:
    """Make the nodes and edges of Tensors; numbers become nodes before the first op that uses them."""
    tensors = _in_order([*forward, *gradient.made])
    ids = {id(tensor): f"n{number}" for number, tensor in enumerate(tensors)}
    behind = {id(tensor) for tensor in gradient.made}
    labels = {**{key: ids[key] for key in gradient.results}, **labels}  # a gradient must say by what it is
    title: str = labels.get(id(loss), "a leaf" if loss.op is None else loss.op.__name__)
    names = {id(tensor): f"gradient of {title}" for tensor in gradient.made if tensor.requires_grad and not tensor.op}
    names |= {
        **{id(g): f"gradient of {labels[key]}" for key, g in gradient.results.items()},
        **labels,
    }
    nodes: list[Node] = []
    edges: list[Edge] = []
    numbers = 0
    for tensor in tensors:
        key = id(tensor)
        phase = "backward" if key in behind else "forward"
        node = _node(tensor, ids[key])
        if phase == "backward" and node.kind == "parameter":
            node = node._replace(kind="input")  # the 1 that the backward pass begins with
        layer = layers.get(key, "")
        for position, a in enumerate(tensor.inputs or ()):
            if isinstance(a, Tensor):
                source = ids[id(a)]
            else:
                source = f"c{numbers}"
                nodes.append(_number(source, a, layer, phase))
                numbers += 1
            edges.append(Edge(source, ids[key], position))
        nodes.append(
            node._replace(
                name=names.get(key, ""),
                layer=layer,
                phase=phase,
                gradient=gradient.values.get(key, _stored_gradient(tensor)),
                seconds=seconds.get(key),
            )
        )
    return Graph(tuple(nodes), tuple(edges), title)


def _node(tensor: Tensor, id: str) -> Node:
    array, op, inputs = tensor.data, tensor.op, tensor.inputs or ()
    arrays = [a.data for a in inputs if isinstance(a, Tensor)]
    allocated = 0 if op is None or any(np.may_share_memory(array, a) for a in arrays) else array.nbytes
    shapes = [np.shape(a.data) if isinstance(a, Tensor) else () for a in inputs]
    kept = {name: value for name, value in tensor.keywords.items() if value is not None and value is not False}
    return Node(
        id=id,
        kind="op" if op is not None else "parameter" if tensor.requires_grad else "input",
        op=op.__name__ if op is not None else "",
        name="",
        shape=tensor.shape,
        dtype=str(tensor.dtype),
        bytes=array.nbytes,
        memory=allocated,
        flops=count_flops(op.__name__, shapes, tensor.shape, tensor.keywords) if op is not None else 0,
        layer="",
        phase="",
        settings={name: _short(value) for name, value in kept.items()},
        value=_value(tensor),
    )


def _number(id: str, value: Any, layer: str, phase: str) -> Node:
    return Node(id, "number", "", _short(value), (), type(value).__name__, 0, 0, 0, layer, phase, {}, float(value))


def _value(tensor: Tensor) -> float | None:
    return float(tensor.item()) if tensor.size == 1 else None


def _stored_gradient(tensor: Tensor) -> float | None:
    """Return what `backward` has left, if it is one number."""
    return None if tensor.grad is None else _value(tensor.grad)


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        return f"{value.dtype} {value.shape}"
    text = repr(value.item() if isinstance(value, np.generic | np.ndarray) else value)
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."
