"""A smaller graph: groups that stand for the nodes of a layer, or for nodes that follow each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from .data import Edge, Graph, Node

__all__ = ["collapse"]

MOST_OPS = 4  # shown by name of a group, those with the most FLOPs first


def collapse(graph: Graph, limit: int) -> Graph:
    """Join the nodes of each layer, then, while there are more than `limit`, larger parts, and nodes in a row."""
    if limit < 0:
        raise ValueError(f"collapsed: limit is {limit}; it must be at least 1, or 0 for no limit")
    whole = len(graph.nodes)
    depth = max((node.layer.count(".") + 1 for node in graph.nodes if node.layer), default=0)
    if depth == 0 and limit == 0:
        return graph
    for levels in range(depth, 0, -1):
        smaller = _joined(graph, _group_by_layer(graph, levels))
        if limit == 0 or len(smaller.nodes) <= limit:
            how = "by layer" if levels == depth else f"by layer, to {levels} of {depth} levels"
            smaller.note = f"{whole:,} nodes, collapsed {how}"
            return smaller
    chunks = _joined(graph, _group_in_order(graph, limit))
    chunks.note = f"{whole:,} nodes, collapsed to {len(chunks.nodes)} groups of nodes that follow each other"
    return chunks


def _group_in_order(graph: Graph, limit: int) -> list[int]:
    """Number the groups by cutting the order of the nodes into equal parts, forward and backward apart.

    No group can depend on itself: all edges lead from a node to a later one.
    """
    phases = [node.phase for node in graph.nodes]
    ahead = phases.count("forward")
    share = limit if ahead == len(phases) else max(1, min(limit - 1, round(limit * ahead / len(phases))))
    sizes = {
        "forward": math.ceil(ahead / share),
        "backward": math.ceil((len(phases) - ahead) / max(limit - share, 1)),
    }
    seen = Counter[str]()
    groups = []
    for phase in phases:
        groups.append(seen[phase] // sizes[phase] + (share if phase == "backward" else 0))
        seen[phase] += 1
    return groups


def _group_by_layer(graph: Graph, levels: int) -> list[int]:
    """Number the groups of nodes by layer; one that would depend on itself becomes several, as if it was called again.

    A node joins the latest group of its layer, unless it uses what was made from that elsewhere.
    """
    places = {node.id: place for place, node in enumerate(graph.nodes)}
    inputs: list[list[int]] = [[] for _ in graph.nodes]
    for edge in graph.edges:
        inputs[places[edge.target]].append(places[edge.source])
    groups: list[int] = []
    latest: dict[tuple[str, str], int] = {}
    users: list[set[int]] = []  # of each group
    for node, sources in zip(graph.nodes, inputs, strict=True):
        key = node.phase, ".".join(node.layer.split(".")[:levels])
        before = {groups[source] for source in sources}
        group = latest.get(key)
        if group is None or any(_leads_to(other, users, group) for other in before if other != group):
            group = len(users)
            users.append(set())
            latest[key] = group
        for other in before - {group}:
            users[other].add(group)
        groups.append(group)
    return groups


def _leads_to(end: int, users: Sequence[set[int]], start: int) -> bool:
    """Whether `end` was made from `start`."""
    seen = {start}
    waiting = [start]
    while waiting:
        for user in users[waiting.pop()]:
            if user == end:
                return True
            if user not in seen:
                seen.add(user)
                waiting.append(user)
    return False


def _joined(graph: Graph, groups: Sequence[int]) -> Graph:
    """Make a node of each group, and an edge of all that lead from one to another."""
    members: dict[int, list[Node]] = {}
    for node, group in zip(graph.nodes, groups, strict=True):
        members.setdefault(group, []).append(node)
    calls = Counter[tuple[str, str]]()
    made: dict[int, Node] = {}
    for group, nodes in members.items():
        made[group] = nodes[0] if len(nodes) == 1 else _group_node(nodes, calls)
    owners = {node.id: made[group].id for node, group in zip(graph.nodes, groups, strict=True)}
    counts = Counter[tuple[str, str]]()
    for edge in graph.edges:
        ends = owners[edge.source], owners[edge.target]
        if ends[0] != ends[1]:
            counts[ends] += edge.uses
    positions = Counter[str]()
    edges = []
    for (source, target), count in counts.items():
        edges.append(Edge(source, target, positions[target], count))
        positions[target] += 1
    return Graph(tuple(_sorted(list(made.values()), edges)), tuple(edges), graph.title)


def _group_node(nodes: Sequence[Node], calls: Counter[tuple[str, str]]) -> Node:
    last = nodes[-1]
    layers = {node.layer for node in nodes}
    name = _common(layers)
    if name:
        calls[last.phase, name] += 1
        number = calls[last.phase, name]
        name += f" ({number})" if number > 1 else ""
    ops = Counter(node.op for node in nodes if node.kind in ("op", "group"))
    flops = Counter[str]()
    for node in nodes:
        flops[node.op] += node.flops
    costly = sorted(ops, key=lambda op: -flops[op])[:MOST_OPS]
    shown = [op if ops[op] == 1 else f"{op} x{ops[op]}" for op in costly]
    rest = len(ops) - len(shown)
    times = [node.seconds for node in nodes if node.seconds is not None]
    return last._replace(
        id=f"g{nodes[0].id}",
        kind="group",
        op=", ".join(shown) + (f" and {rest} more" if rest > 0 else "") or "constants",
        name=name,
        bytes=sum(node.bytes for node in nodes),
        memory=sum(node.memory for node in nodes),
        flops=sum(node.flops for node in nodes),
        layer=_common(layers),
        settings={},
        value=None,
        gradient=None,
        seconds=sum(times) if times else None,
        members=tuple([id for node in nodes for id in node.members or (node.id,)]),
    )


def _common(layers: set[str]) -> str:
    """Return the part of a model that holds all these layers."""
    paths = [layer.split(".") for layer in layers]
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)


def _sorted(nodes: Sequence[Node], edges: Sequence[Edge]) -> list[Node]:
    """Put each node after all that lead to it, otherwise as they are."""
    waiting = Counter(edge.target for edge in edges)
    users: dict[str, list[str]] = {}
    for edge in edges:
        users.setdefault(edge.source, []).append(edge.target)
    by_id = {node.id: node for node in nodes}
    ready = [node.id for node in nodes if not waiting[node.id]]
    for id in ready:  # the list grows while it is read
        for target in users.get(id, []):
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return [by_id[id] for id in ready]
