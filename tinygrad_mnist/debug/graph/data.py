"""The graph as data: what its nodes and edges hold, and the forms in which it is shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from html import escape
from typing import NamedTuple

__all__ = ["Edge", "Graph", "Node"]

PAGE_LIMIT = 300  # boxes on a page: more are too many to look at


class Node(NamedTuple):
    """A Tensor, a number that went into an op, or, where a graph is collapsed, a group of these."""

    id: str
    kind: str  # "op", "parameter", "input", "number" or "group"
    op: str  # of a group: its ops and how many of each
    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int  # of all values; those of a view count, too
    memory: int  # bytes that were allocated for the result; 0 for a view, and for what was there before
    flops: int
    layer: str
    phase: str  # "forward" or "backward"
    settings: Mapping[str, str]
    value: float | None = None  # where there is one alone
    gradient: float | None = None
    seconds: float | None = None
    members: tuple[str, ...] = ()  # of a group: the ids in the whole graph

    @property
    def title(self) -> str:
        """What it is called: its name, or its op."""
        return self.name or self.op or "given"


class Edge(NamedTuple):
    """A use of a value by an op."""

    source: str
    target: str
    position: int  # which argument it is
    uses: int = 1  # between groups: how many uses it stands for


class Graph:
    """How a Tensor was computed, and perhaps its gradient; made by `tinygrad_mnist.graph`.

    In a notebook it shows itself as the page that `to_html` makes.

    Attributes
    ----------
    nodes : tuple of Node
        Each after all that it was made from.
    edges : tuple of Edge
        By target, in the order of its arguments.
    title : str
    note : str
        How the graph was collapsed, or "".

    Examples
    --------
    >>> import tinygrad_mnist as tg
    >>> x = tg.Tensor([1.0, 2.0], requires_grad=True)
    >>> shown = tg.graph((x * x).sum(), names={"x": x})
    >>> shown
    Graph of sum: 3 nodes (2 ops), 3 edges, 4 FLOPs
    >>> [(node.id, node.title, node.shape, node.flops) for node in shown.nodes]
    [('n0', 'x', (2,), 0), ('n1', 'multiply', (2,), 2), ('n2', 'sum', (), 2)]
    """

    def __init__(self, nodes: tuple[Node, ...], edges: tuple[Edge, ...], title: str, note: str = "") -> None:
        self.nodes = nodes
        self.edges = edges
        self.title = title
        self.note = note

    def __repr__(self) -> str:
        ops = sum(node.kind == "op" for node in self.nodes)
        groups = sum(node.kind == "group" for node in self.nodes)
        parts = [f"{ops:,} op" + "s" * (ops != 1)] + [f"{groups:,} groups"] * (groups > 0)
        flops = sum(node.flops for node in self.nodes)
        counts = f"{len(self.nodes):,} nodes ({', '.join(parts)}), {len(self.edges):,} edges"
        return f"Graph of {self.title}: {counts}, {flops:,} FLOPs"

    def collapsed(self, limit: int = 0) -> Graph:
        """Return a smaller graph, in which groups stand for several nodes.

        The nodes of a layer become one group, forward and backward apart. A layer that is called several times becomes
        several groups, so that no group depends on itself. While there are more than `limit` groups, layers are joined
        with those that stand in the same part of the model (``blocks.0.norm`` becomes ``blocks.0``), and at last nodes
        that follow each other.

        Parameters
        ----------
        limit : int
            Largest number of groups; 0 collapses by layer alone.

        Returns
        -------
        Graph
            Its `note` says how it was collapsed. Without layers and limit it is this graph.

        Raises
        ------
        ValueError
            If `limit` is negative.
        """
        from .collapse import collapse

        return collapse(self, limit)

    def to_dot(self) -> str:
        """Return the graph in Graphviz's DOT language; ``dot -Tsvg graph.dot -o graph.svg`` draws it."""
        from .text import dot

        return dot(self)

    def to_mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart, which GitHub draws in Markdown, behind three backticks and mermaid.

        A graph that is too large for GitHub, which draws 500 edges and reads 50,000 characters, is collapsed by layer.

        Raises
        ------
        ValueError
            If it is too large even so.

        Examples
        --------
        >>> import tinygrad_mnist as tg
        >>> x = tg.Tensor(3.0, requires_grad=True)
        >>> print(tg.graph(2 * x, names={"x": x}).to_mermaid())
        flowchart TD
          n0(["x<br>data 3, grad 2"]):::parameter
          c0(["2"]):::number
          n1["multiply<br>data 6, grad 1"]:::op
          c0 --> n1
          n0 --> n1
          classDef op fill:#eef1f5,stroke:#8894a5,color:#111
          classDef parameter fill:#cfe3fb,stroke:#3b78c2,color:#111
          classDef number fill:#f6f6f6,stroke:#b5b5b5,color:#111
        """
        from .text import mermaid

        return mermaid(self)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return a page that shows the graph in a browser, and write it to a file if one is named.

        The page holds all that it needs: it loads nothing. It is laid out here, by igraph. Graphs of more than 300
        nodes are collapsed first, which the page says. The mouse wheel, the buttons and the keys + - 0 zoom.

        Parameters
        ----------
        path : path, optional
            The file, such as ``"graph.html"``. It is written whole or not at all.

        Returns
        -------
        str
            HTML.

        Raises
        ------
        ImportError
            If igraph is not installed (the extra ``graph``).
        """
        from ...storage.files import write_atomically
        from .page import page

        text = page(self if len(self.nodes) <= PAGE_LIMIT else self.collapsed(PAGE_LIMIT))
        if path is not None:
            write_atomically(path, text.encode())
        return text

    def _repr_html_(self) -> str:
        """Show the page in a notebook, in a frame of its own: its style and script touch nothing else."""
        frame = 'style="width: 100%; height: 640px; border: 1px solid #8886" sandbox="allow-scripts"'
        return f'<iframe title="{escape(repr(self))}" {frame} srcdoc="{escape(self.to_html())}"></iframe>'
