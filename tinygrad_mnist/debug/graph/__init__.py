"""The graph to look at: as data, as text for Graphviz and Mermaid, and as a page for the browser."""

from .build import graph as graph
from .build import to_dot as to_dot
from .data import Edge as Edge
from .data import Graph as Graph
from .data import Node as Node

__all__ = ["Edge", "Graph", "Node", "graph", "to_dot"]
