"""The graph as text that others draw: Graphviz's DOT, and Mermaid, which GitHub draws."""

from __future__ import annotations

from .data import Edge, Graph, Node

__all__ = ["dot", "mermaid", "value_and_gradient"]

MERMAID_EDGES = 500  # what GitHub draws
MERMAID_CHARACTERS = 50_000
PLAIN = frozenset(" .,()_-=+*/")  # beside letters and digits, what means nothing in a label of Mermaid
HIGHLIGHT = ', style=filled, fillcolor="#cfe8f7"'
COLOURS = {
    "op": "fill:#eef1f5,stroke:#8894a5",
    "parameter": "fill:#cfe3fb,stroke:#3b78c2",
    "input": "fill:#d5f0dc,stroke:#3d9157",
    "number": "fill:#f6f6f6,stroke:#b5b5b5",
    "group": "fill:#eef1f5,stroke:#8894a5",
}


def dot(graph: Graph) -> str:
    """Write each node, and behind it the edges that lead to it."""
    lines = ['rankdir=BT; node [fontname="Helvetica", fontsize=10]; edge [fontname="Helvetica", fontsize=9];']
    edges = _by_target(graph)
    for node in graph.nodes:
        label = "\\n".join(
            line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") for line in _dot_label(node)
        )
        shape = {"number": "plaintext", "op": "box", "group": "box"}.get(node.kind, "ellipse")
        fill = HIGHLIGHT if node.name and node.kind != "number" else ""
        lines.append(f'{node.id} [label="{label}", shape={shape}{fill}];')
        for edge in edges.get(node.id, []):
            times = f' [label="{edge.uses}"]' if edge.uses > 1 else ""
            lines.append(f"{edge.source} -> {edge.target}{times};")
    return "\n".join(["digraph {", *(f"  {line}" for line in lines), "}"])


def mermaid(graph: Graph) -> str:
    """Write a flowchart; one that is too large for GitHub is collapsed by layer, or refused."""
    text = _flowchart(graph)
    if not _is_small(graph, text):
        smaller = graph.collapsed()
        text = _flowchart(smaller)
        if not _is_small(smaller, text):
            raise ValueError(
                f"to_mermaid: {len(smaller.edges)} edges and {len(text)} characters, collapsed by layer; GitHub draws "
                f"{MERMAID_EDGES} and {MERMAID_CHARACTERS}; pass model= to tg.graph, take .collapsed(100), or write a "
                "page with .to_html(path)"
            )
    return text


def value_and_gradient(node: Node, digits: int = 4) -> str:
    """Write the value of a single number, and its gradient, if there are any."""
    if node.value is None or node.kind == "number":
        return ""
    parts = [f"data {node.value:.{digits}g}"]
    if node.gradient is not None:
        parts.append(f"grad {node.gradient:.{digits}g}")
    return ", ".join(parts)


def _dot_label(node: Node) -> list[str]:
    if node.kind == "number":
        return [node.title]
    value = [] if node.gradient is None else [value_and_gradient(node)]
    if node.kind in ("parameter", "input"):
        return [node.title, f"{node.shape} {node.dtype}", *value]
    settings = [f"{key}={value}" for key, value in node.settings.items()]
    return [*filter(None, [node.name, node.op]), *settings, f"{node.shape}", *value]


def _by_target(graph: Graph) -> dict[str, list[Edge]]:
    edges: dict[str, list[Edge]] = {}
    for edge in graph.edges:
        edges.setdefault(edge.target, []).append(edge)
    return edges


def _flowchart(graph: Graph) -> str:
    lines = ["flowchart TD"]
    edges = _by_target(graph)
    phases = {node.id: node.phase for node in graph.nodes}
    for node in graph.nodes:
        label = "<br>".join(map(_escape, _mermaid_label(node)))
        begin, end = ("[", "]") if node.kind in ("op", "group") else ("([", "])")
        lines.append(f'{node.id}{begin}"{label}"{end}:::{node.kind}')
        for edge in edges.get(node.id, []):
            arrow = "-->" if phases[edge.source] == node.phase else "-.->"
            lines.append(f"{edge.source} {arrow} {edge.target}")
    kinds = {node.kind for node in graph.nodes}
    lines += [f"classDef {kind} {colours},color:#111" for kind, colours in COLOURS.items() if kind in kinds]
    return "\n  ".join(lines)


def _mermaid_label(node: Node) -> list[str]:
    if node.kind == "number":
        return [node.title]
    shape = f"{node.shape} {node.dtype}" if node.kind in ("parameter", "input") else f"{node.shape}"
    value = value_and_gradient(node)
    shown = [node.name, node.op, value] if value and not node.shape else [node.name, node.op, shape, value]
    return [*filter(None, shown)]


def _escape(text: str) -> str:
    """Write all that might mean something to Mermaid by its number, which it reads as the character."""
    return "".join(c if c in PLAIN or (c.isascii() and c.isalnum()) else f"#{ord(c)};" for c in text.replace("\n", " "))


def _is_small(graph: Graph, text: str) -> bool:
    return len(graph.edges) <= MERMAID_EDGES and len(text) <= MERMAID_CHARACTERS
