"""The graph as a drawing: DOT text, which Graphviz and many viewers render."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..tensor import Tensor

__all__ = ["to_dot"]

MAX_SETTING = 40  # characters of a keyword's value


def to_dot(output: Tensor, names: Mapping[str, Tensor] | None = None) -> str:
    """Describe how a Tensor was computed, in Graphviz's DOT language: one box for each result of an op, one ellipse for
    each value given.

    Parameters
    ----------
    output : Tensor
        Computed while gradients were recorded, and not freed by `backward`.
    names : dict of str to Tensor, optional
        What to call some Tensors: ``tg.nn.parameters(model)``, or the input. They are filled with colour.

    Returns
    -------
    str
        A `digraph`. ``dot -Tsvg graph.dot -o graph.svg`` draws it; web pages such as GraphvizOnline do, too.

    Raises
    ------
    TypeError
        If `output` is no Tensor.
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
        raise TypeError(f"to_dot: output is {type(output).__name__}; pass the Tensor whose computation is to be drawn")
    called = {id(tensor): name for name, tensor in (names or {}).items()}
    nodes, seen = [output], {id(output)}
    for node in nodes:  # the list grows while it is read
        if node.inputs is None:
            raise RuntimeError(
                f"to_dot: the graph behind {node!r} was freed by a backward pass; draw it before, or pass "
                "retain_graph=True"
            )
        for a in node.inputs:
            if isinstance(a, Tensor) and id(a) not in seen:
                seen.add(id(a))
                nodes.append(a)
    nodes.sort(key=lambda node: node.serial)
    numbers = {id(node): f"n{i}" for i, node in enumerate(nodes)}
    lines = ['rankdir=BT; node [fontname="Helvetica", fontsize=10]; edge [fontname="Helvetica", fontsize=9];']
    constants = 0
    for node in nodes:
        name = called.get(id(node), "")
        fill = ', style=filled, fillcolor="#cfe8f7"' if name else ""
        if node.op is None:
            lines.append(
                _node(numbers[id(node)], [name or "given", f"{node.shape} {node.dtype}"], f"shape=ellipse{fill}")
            )
            continue
        settings = [
            f"{key}={_shown(value)}"
            for key, value in (node.keywords or {}).items()
            if value is not None and value is not False
        ]
        title = [name, node.op.__name__] if name else [node.op.__name__]
        lines.append(_node(numbers[id(node)], [*title, *settings, f"{node.shape}"], f"shape=box{fill}"))
        for a in node.inputs or ():
            source = numbers.get(id(a))
            if source is None:
                source, constants = f"c{constants}", constants + 1
                lines.append(_node(source, [_shown(a)], "shape=plaintext"))
            lines.append(f"{source} -> {numbers[id(node)]};")
    return "\n".join(["digraph {", *(f"  {line}" for line in lines), "}"])


def _node(number: str, parts: list[str], style: str) -> str:
    label = "\\n".join(part.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") for part in parts)
    return f'{number} [label="{label}", {style}];'


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        return f"{value.dtype} {value.shape}"
    text = repr(value.item() if isinstance(value, np.generic | np.ndarray) else value)
    return text if len(text) <= MAX_SETTING else f"{text[: MAX_SETTING - 3]}..."
