"""The graph as one page that needs nothing else: a picture in SVG, its style, and a script that zooms and explains."""

from __future__ import annotations

from importlib.resources import files

from .data import Graph
from .layout import lay_out
from .picture import AMOUNTS, picture, safe
from .units import memory, quantity, time

__all__ = ["page"]

LABELS = {"kind": "Kind", "flops": "FLOPs", "memory": "Memory", "time": "Time"}
KINDS = {
    "op": "op",
    "group": "layer or group",
    "parameter": "parameter",
    "input": "input or constant",
    "number": "number",
}


def page(graph: Graph) -> str:
    """Return the page of a graph that is small enough."""
    layout = lay_out(graph)
    here = files(__package__)
    style = (here / "page.css").read_text("utf-8")
    script = (here / "page.js").read_text("utf-8")
    colours = ["kind", *(name for name, amount in AMOUNTS.items() if any(amount(node) for node in graph.nodes))]
    title = safe(f"Graph of {graph.title}")
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>\n{style}</style>",
        "</head>",
        '<body data-colour="kind">',
        f"<header>\n<h1>{title}</h1>\n<p>{safe(_summary(graph))}</p>",
        _toolbar(colours),
        _legend(graph, colours),
        "</header>",
        f'<main id="view">\n{picture(graph, layout)}\n</main>',
        '<div id="details" role="status" hidden></div>',
        f"<script>\n{script}</script>",
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _summary(graph: Graph) -> str:
    """Say what the graph holds in all, and what it stands for."""
    parts = [f"{len(graph.nodes):,} boxes" + (f" of {graph.note}" if graph.note else "")]
    parts.append(f"{quantity(sum(node.flops for node in graph.nodes))} FLOPs")
    parts.append(f"{memory(sum(node.memory for node in graph.nodes))} allocated")
    seconds = [node.seconds for node in graph.nodes if node.seconds is not None]
    if seconds:
        lacking = sum(node.kind == "op" and node.seconds is None for node in graph.nodes)
        parts.append(f"{time(sum(seconds))} measured" + (f" ({lacking} ops are not in the profile)" if lacking else ""))
    behind = [node for node in graph.nodes if node.phase == "backward"]
    if behind:
        parts.append("forward on the left, backward on the right")
        if seconds and not any(node.seconds for node in behind):
            parts.append("the profile holds no backward pass")
    parts.append("drag the picture to move it, press All to see the whole")
    return "; ".join(parts)


def _toolbar(colours: list[str]) -> str:
    buttons = [
        '<button id="smaller" aria-label="Zoom out" title="Zoom out (-)">−</button>',
        '<button id="larger" aria-label="Zoom in" title="Zoom in (+)">+</button>',
        '<button id="all" title="Show all of it (0)">All</button>',
    ]
    choices = []
    for colour in colours:
        checked = " checked" if colour == "kind" else ""
        choice = f'<input type="radio" name="colour" value="{colour}"{checked}>{LABELS[colour]}'
        choices.append(f"<label>{choice}</label>")
    return "\n".join(
        [
            '<div class="tools">',
            *buttons,
            "<fieldset><legend>Colours</legend>",
            *choices,
            "</fieldset>",
            "</div>",
        ]
    )


def _legend(graph: Graph, colours: list[str]) -> str:
    """Explain the colours: the kinds, and for each amount the largest one."""
    kinds = {node.kind for node in graph.nodes}
    items = [f'<span class="key {kind}"></span>{label}' for kind, label in KINDS.items() if kind in kinds]
    if any(node.phase == "backward" for node in graph.nodes):
        items.append('<span class="key backward"></span>backward')
        items.append('<span class="key across"></span>value of the forward pass')
    lines = ['<p class="legend" data-for="kind">' + " ".join(items) + "</p>"]
    for colour in colours[1:]:
        most = max(AMOUNTS[colour](node) or 0 for node in graph.nodes)
        shown = {"flops": quantity, "memory": memory, "time": time}[colour](most)
        lines.append(f'<p class="legend" data-for="{colour}">0 <span class="scale"></span> {shown} in one box</p>')
    return "\n".join(lines)
