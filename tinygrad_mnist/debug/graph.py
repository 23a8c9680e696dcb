"""The graph as a picture: DOT text, which Graphviz and many viewers render."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backward import topological_order
from ..tensor import Tensor

__all__ = ["to_dot"]

MAX_LENGTH = 40  # characters shown of a constant or of a keyword's value
HIGHLIGHT = ', style=filled, fillcolor="#cfe8f7"'


def to_dot(output: Tensor, names: Mapping[str, Tensor] | None = None) -> str:
    """Describe how a Tensor was computed, in Graphviz's DOT language.

    The result of each op is a box, each leaf an ellipse, and each use of a value an edge.

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
      n1 [label="multiply\\n(2,)", shape=box];
      c0 [label="2", shape=plaintext];
      c0 -> n1;
      n0 -> n1;
      n2 [label="sum\\n()", shape=box];
      n1 -> n2;
    }
    """
    if not isinstance(output, Tensor):
        raise TypeError(f"to_dot: output is {type(output).__name__}; pass the Tensor whose graph is to be drawn")
    labels = {id(tensor): name for name, tensor in (names or {}).items()}
    nodes = topological_order(output, constants=True, caller="to_dot")
    numbers = {id(node): f"n{i}" for i, node in enumerate(nodes)}
    lines = ['rankdir=BT; node [fontname="Helvetica", fontsize=10]; edge [fontname="Helvetica", fontsize=9];']
    constants = 0
    for node in nodes:
        number, name = numbers[id(node)], labels.get(id(node))
        fill = HIGHLIGHT if name else ""
        if node.op is None:
            lines.append(_node(number, [name or "given", f"{node.shape} {node.dtype}"], f"shape=ellipse{fill}"))
            continue
        keywords = {key: value for key, value in node.keywords.items() if value is not None and value is not False}
        title = [name, node.op.__name__] if name else [node.op.__name__]
        details = [f"{key}={_short(value)}" for key, value in keywords.items()]
        lines.append(_node(number, [*title, *details, f"{node.shape}"], f"shape=box{fill}"))
        for a in node.inputs or ():
            source = numbers.get(id(a))
            if source is None:
                source, constants = f"c{constants}", constants + 1
                lines.append(_node(source, [_short(a)], "shape=plaintext"))
            lines.append(f"{source} -> {number};")
    return "\n".join(["digraph {", *(f"  {line}" for line in lines), "}"])


def _node(number: str, label: list[str], style: str) -> str:
    text = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") for line in label)
    return f'{number} [label="{text}", {style}];'


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        return f"{value.dtype} {value.shape}"
    text = repr(value.item() if isinstance(value, np.generic | np.ndarray) else value)
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."
