"""Where the boxes and edges of a page are: rows by igraph's Sugiyama layout, forward and backward beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from .data import Edge, Graph, Node
from .straighten import straighten

__all__ = ["BOX", "PITCH", "Layout", "Point", "lay_out"]

BOX = (154.0, 46.0)  # width and height in pixels
PITCH = (176.0, 82.0)  # from box to box
BETWEEN = 96.0  # the forward part and the backward part
NARROW = 0.24  # the width of an edge between boxes, as a share of a box with its gap
LEAF, BETWEEN_BOXES = 0.001, 4.0  # how strongly edges are drawn straight that come from a leaf, or pass between boxes
MOST_BENDS = 1500  # places between boxes where edges pass
SPREAD = 0.3  # how far from its middle edges end at a box, as a share of its width
STRAIGHT = 8.0  # so near to straight above is straight, in pixels

Point = tuple[float, float]


class Layout(NamedTuple):
    """The places of boxes and edges, in pixels."""

    boxes: dict[str, Point]  # the upper left corner by the id of a node
    paths: list[list[Point]]  # for each edge, where it begins, what it passes between the boxes, and where it ends
    width: float
    height: float


def lay_out(graph: Graph) -> Layout:
    """Compute a layout in which no boxes overlap, and edges pass beside them, except the longest of many.

    Forward edges lead downward. A backward part stands on the right, and its edges lead upward: the gradients of the
    first layers are beside these.

    Raises
    ------
    ImportError
        If igraph is not installed.
    """
    boxes: dict[str, Point] = {}
    bends: dict[Edge, list[Point]] = {}
    left, height = 0.0, 0.0
    for phase in ("forward", "backward"):
        nodes = [node for node in graph.nodes if node.phase == phase]
        if not nodes:
            continue
        part, inside = _lay_out_part(nodes, graph.edges, upward=phase == "backward")
        boxes |= {id: (x + left, y) for id, (x, y) in part.items()}
        bends |= {edge: [(x + left, y) for x, y in points] for edge, points in inside.items()}
        left = max(x for x, _ in boxes.values()) + BOX[0] + BETWEEN
        height = max(height, *(y + BOX[1] for _, y in boxes.values()))
    phases = {node.id: node.phase for node in graph.nodes}
    _align_bottoms(boxes, bends, phases, height)
    paths = [_path(edge, boxes, bends.get(edge, []), phases) for edge in graph.edges]
    _spread_ends(graph.edges, paths, phases)
    return Layout(boxes, paths, left - BETWEEN, height)


def _lay_out_part(
    nodes: Sequence[Node], edges: Sequence[Edge], upward: bool
) -> tuple[dict[str, Point], dict[Edge, list[Point]]]:
    """Lay out one phase, from (0, 0) on; return its boxes, and what each edge passes."""
    try:
        import igraph
    except ImportError as error:
        raise ImportError("the page of a graph is laid out by igraph: pip install 'tinygrad_mnist[graph]'") from error

    places = {node.id: place for place, node in enumerate(nodes)}
    inside = [edge for edge in edges if edge.source in places and edge.target in places]
    pairs = [(places[edge.source], places[edge.target]) for edge in inside]
    rows = _rows(len(nodes), pairs)
    longest = _longest(rows, pairs)
    near = [(source, target) for source, target in pairs if rows[target] - rows[source] <= longest]
    chains = _chains(rows, near)
    links = {(chains[source][rows[target] - rows[source] - 1], target) for source, target in near}
    for chain in chains:
        links |= {*pairwise(chain)}
    network: Any = igraph.Graph(len(rows), sorted(links), directed=True)
    order = [x for x, _ in network.layout_sugiyama(layers=rows, maxiter=200).coords]
    made = {target for _, target in pairs}
    leaves = {place for place in range(len(nodes)) if place not in made}
    centres = _straight(rows, order, links, len(nodes), leaves)
    left, top, bottom = min(centres[: len(nodes)]), min(rows), max(rows)

    def place(number: int) -> Point:
        row = bottom - rows[number] if upward else rows[number] - top
        return (centres[number] - left) * PITCH[0], row * PITCH[1]

    bends = {}
    for edge, (source, target) in zip(inside, pairs, strict=True):
        steps = rows[target] - rows[source]
        passed = chains[source][1:steps] if steps <= longest else []
        bends[edge] = [place(number) for number in passed]
    return {node.id: place(number) for number, node in enumerate(nodes)}, bends


def _longest(rows: Sequence[int], pairs: Sequence[tuple[int, int]]) -> int:
    """Return the length in rows from which on edges pass behind the boxes, because there would be too many beside."""
    lengths = {rows[target] - rows[source] for source, target in pairs}
    for longest in sorted(lengths, reverse=True):
        reach: dict[int, int] = {}
        for source, target in pairs:
            length = rows[target] - rows[source]
            if length <= longest:
                reach[source] = max(length, reach.get(source, 1))
        if sum(reach.values()) - len(reach) <= MOST_BENDS:
            return longest
    return 1


def _chains(rows: list[int], pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Add a place between the boxes in each row that an edge crosses; all edges of a node share these places.

    Each node gets its chain: itself, and its places in the rows below, which are appended to `rows`.
    """
    chains = [[place] for place in range(len(rows))]
    for source, target in pairs:
        chain = chains[source]
        for row in range(rows[source] + len(chain), rows[target]):
            chain.append(len(rows))
            rows.append(row)
    return chains


def _straight(
    rows: Sequence[int], order: Sequence[float], links: set[tuple[int, int]], boxes: int, leaves: set[int]
) -> list[float]:
    """Return the centres of all places, in widths of a box with its gap; leaves leave the way to the others."""
    by_row: dict[int, list[int]] = {}
    for place in sorted(range(len(rows)), key=lambda place: order[place]):
        by_row.setdefault(rows[place], []).append(place)
    above: dict[int, list[tuple[int, float]]] = {}
    below: dict[int, list[tuple[int, float]]] = {}
    for source, target in sorted(links):
        between = source >= boxes and target >= boxes
        strength = LEAF if source in leaves else BETWEEN_BOXES if between else 1.0
        above.setdefault(target, []).append((source, strength))
        below.setdefault(source, []).append((target, strength))
    widths = [1.0 if place < boxes else NARROW for place in range(len(rows))]
    return straighten([by_row[row] for row in sorted(by_row)], order, widths, above, below)


def _rows(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Number the rows: each node below all that it was made from, as high as possible, unless lower is shorter.

    Leaves, and what is made from leaves alone, stand just above their use.
    """
    sources: list[set[int]] = [set() for _ in range(count)]
    targets: list[set[int]] = [set() for _ in range(count)]
    for source, target in pairs:
        sources[target].add(source)
        targets[source].add(target)
    rows = [0] * count
    for place in range(count):  # each node after all that it was made from
        rows[place] = max((rows[source] + 1 for source in sources[place]), default=0)
    for place in reversed(range(count)):
        longer = sum(len(targets[source]) > 1 for source in sources[place])  # the others can follow
        if len(targets[place]) > longer:
            rows[place] = min(rows[target] for target in targets[place]) - 1
    return rows


def _align_bottoms(
    boxes: dict[str, Point], bends: dict[Edge, list[Point]], phases: dict[str, str], height: float
) -> None:
    """Move the shorter part down, so that the gradient begins beside the loss."""
    for phase in set(phases.values()):
        lowest = max(y + BOX[1] for id, (_, y) in boxes.items() if phases[id] == phase)
        for id, (x, y) in list(boxes.items()):
            if phases[id] == phase:
                boxes[id] = x, y + height - lowest
        for edge, points in list(bends.items()):
            if phases[edge.target] == phase:
                bends[edge] = [(x, y + height - lowest) for x, y in points]


def _path(edge: Edge, boxes: dict[str, Point], bends: Sequence[Point], phases: dict[str, str]) -> list[Point]:
    """Return the points of an edge, from the middle of a side to the middle of a side."""
    (x0, y0), (x1, y1) = boxes[edge.source], boxes[edge.target]
    width, height = BOX
    if phases[edge.source] != phases[edge.target]:  # from the right of one part to the left of the other
        return [(x0 + width, y0 + height / 2), (x1, y1 + height / 2)]
    upward = phases[edge.target] == "backward"
    passed = []
    for x, y in bends:
        column = [(x + width / 2, y), (x + width / 2, y + height)]
        passed += column[::-1] if upward else column
    begin = x0 + width / 2, y0 if upward else y0 + height
    end = x1 + width / 2, y1 + height if upward else y1
    return [begin, *passed, end]


def _spread_ends(edges: Sequence[Edge], paths: Sequence[list[Point]], phases: dict[str, str]) -> None:
    """Let the edges that lead to one box end beside each other, in the order in which they come.

    One that comes from straight above ends in the middle.
    """
    by_target: dict[str, list[list[Point]]] = {}
    for edge, path in zip(edges, paths, strict=True):
        if phases[edge.source] == phases[edge.target]:
            by_target.setdefault(edge.target, []).append(path)
    for coming in by_target.values():
        coming.sort(key=lambda path: path[-2][0])
        middle = coming[0][-1][0]
        straight = [number for number, path in enumerate(coming) if abs(path[-2][0] - middle) < STRAIGHT]
        centre = straight[0] if straight else (len(coming) - 1) / 2
        reach = max(centre, len(coming) - 1 - centre, 1)
        for number, path in enumerate(coming):
            x, y = path[-1]
            path[-1] = x + (number - centre) / reach * BOX[0] * SPREAD, y
