"""The graph as a picture in SVG: a box for each node, a curve for each edge."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape

from .data import Edge, Graph, Node
from .layout import BOX, PITCH, Layout, Point
from .text import value_and_gradient
from .units import memory, time

__all__ = ["AMOUNTS", "picture", "safe"]

MARGIN = 24.0  # around the picture, in pixels
TITLE_LENGTH = 21  # characters that fit into a box
LINE_LENGTH = 24
NUMBER_WIDTH = 64.0
AMOUNTS: dict[str, Callable[[Node], float | None]] = {
    "flops": lambda node: float(node.flops),
    "memory": lambda node: float(node.memory),
    "time": lambda node: node.seconds,
}
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")  # XML does not allow them


def picture(graph: Graph, layout: Layout) -> str:
    """Draw a graph that is laid out, as an ``svg`` element that holds each node and each edge once."""
    width, height = layout.width + 2 * MARGIN, layout.height + 2 * MARGIN
    box = f"{-MARGIN:g} {-MARGIN:g} {width:g} {height:g}"
    label = f"{len(graph.nodes)} boxes and {len(graph.edges)} edges; Tab leads from box to box"
    most = {name: max(amount(node) or 0 for node in graph.nodes) for name, amount in AMOUNTS.items()}
    phases = {node.id: node.phase for node in graph.nodes}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" role="group" aria-label="{label}" tabindex="0">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0.5 8 4 0 7.5z"/></marker></defs>',
        '<g class="edges" aria-hidden="true">',
        *[_edge(edge, path, phases) for edge, path in zip(graph.edges, layout.paths, strict=True)],
        "</g>",
        '<g class="nodes">',
        *[_box(node, layout.boxes[node.id], most) for node in graph.nodes],
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines)


def _edge(edge: Edge, path: list[Point], phases: dict[str, str]) -> str:
    across = phases[edge.source] != phases[edge.target]
    is_far = len(path) == 2 and abs(path[1][1] - path[0][1]) > PITCH[1]
    kind = "across" if across else "far" if is_far else phases[edge.source]
    ends = f'data-from="{edge.source}" data-to="{edge.target}"'
    return f'<path class="{kind}" {ends} d="{_curve(path, across)}"/>'


def _curve(path: list[Point], sideways: bool) -> str:
    """Draw a smooth curve through points; it begins and ends at right angles to the boxes."""
    x, y = path[0]
    parts = [f"M{x:.1f} {y:.1f}"]
    for x1, y1 in path[1:]:
        if sideways:
            half = max(40.0, abs(x1 - x) / 3)
            parts.append(f"C{x + half:.1f} {y:.1f} {x1 - half:.1f} {y1:.1f} {x1:.1f} {y1:.1f}")
        elif x == x1:
            parts.append(f"V{y1:.1f}")
        else:
            middle = (y + y1) / 2
            parts.append(f"C{x:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}")
        x, y = x1, y1
    return "".join(parts)


def _box(node: Node, corner: Point, most: dict[str, float]) -> str:
    heats = [f"--{name}:{(amount(node) or 0) / (most[name] or 1):.3f}" for name, amount in AMOUNTS.items()]
    x, y = corner
    width, height = BOX
    round_corner = 8 if node.kind in ("op", "group") else height / 2
    second = _second_line(node)
    first = height / 2 + 4 if not second else 19
    label = safe(_details(node)).replace("\n", "&#10;")
    inset = (width - NUMBER_WIDTH) / 2 if node.kind == "number" and len(node.title) < 8 else 0.0
    lines = [
        f'<g class="{node.kind} {node.phase}" id="{node.id}" transform="translate({x:.1f} {y:.1f})" tabindex="0" '
        f'role="img" aria-label="{label}" style="{";".join(heats)}">',
        f'<rect x="{inset:g}" width="{width - 2 * inset:g}" height="{height:g}" rx="{round_corner:g}"/>',
        f'<text class="title" x="{width / 2:g}" y="{first:g}">{_title(node)}</text>',
    ]
    if second:
        lines.append(f'<text x="{width / 2:g}" y="36">{safe(second)}</text>')
    return "".join([*lines, "</g>"])


def _title(node: Node) -> str:
    """Write what it is called, and behind a short name the op."""
    title = node.title.replace("gradient of ", "∂ ", 1)
    both = node.kind == "op" and node.op != title and len(title) + len(node.op) < TITLE_LENGTH
    behind = f'<tspan class="behind"> = {safe(node.op)}</tspan>' if both and node.op != "copy" else ""
    return safe(_cut(title, TITLE_LENGTH)) + behind


def _second_line(node: Node) -> str:
    if node.kind == "number":
        return ""
    if node.kind == "group" and node.name:
        return node.op if len(node.op) <= LINE_LENGTH else f"{node.op[: LINE_LENGTH - 1]}…"
    return _numbers(node) or _cut(" × ".join(map(str, node.shape)) or "()", LINE_LENGTH)


def _numbers(node: Node) -> str:
    """Write value and gradient with as many digits as fit: a number that is cut would be another one."""
    for digits in (4, 3, 2):
        text = value_and_gradient(node, digits)
        if len(text) <= LINE_LENGTH:
            return text
    return text.removeprefix("data ")


def _details(node: Node) -> str:
    """Tell all about a node, in lines."""
    if node.kind == "number":
        return f"number {node.title}"
    lines = [node.title]
    if node.op and node.op != node.title:
        lines.append(f"op: {node.op}")
    if node.members:
        lines.append(f"{len(node.members)} nodes; the last one:")
    lines.append(f"shape: {node.shape}, {node.dtype}")
    if node.value is not None:
        lines.append(f"value: {node.value:.8g}")
    if node.gradient is not None:
        lines.append(f"gradient: {node.gradient:.8g}")
    lines.append(f"memory: {memory(node.bytes)}" + (", a view" if node.kind == "op" and not node.memory else ""))
    if node.op:
        lines.append(f"FLOPs: {node.flops:,}")
    if node.seconds is not None:
        lines.append(f"time: {time(node.seconds)}")
    lines += [f"{name}: {value}" for name, value in node.settings.items()]
    if node.layer and node.layer != node.name:
        lines.append(f"layer: {node.layer}")
    return "\n".join([*lines, node.phase])


def safe(text: str) -> str:
    """Make text safe in HTML and in SVG."""
    return escape(CONTROL.sub("\ufffd", text))


def _cut(text: str, length: int) -> str:
    """Shorten text in the middle: paths differ at the end."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    kept = length - 1
    return f"{text[: kept // 3]}…{text[len(text) - (kept - kept // 3) :]}"
