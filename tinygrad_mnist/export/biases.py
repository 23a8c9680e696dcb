"""A product of matrices and the bias that is added to it, as one node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

__all__ = ["join_biases"]


def join_biases(nodes: list[Any], initializers: list[Any], outputs: Collection[str]) -> None:
    """Give each Gemm the bias that the file adds to its columns, if nothing else uses the product.

    Weight and bias must be arrays of the file, for their shapes tell that the sum has the shape of the product.

    Parameters
    ----------
    nodes, initializers : list
        Of the file; the nodes are changed.
    outputs : collection of str
        Names of the outputs of the file, which are uses.
    """
    shapes = {stored.name: tuple(stored.dims) for stored in initializers}
    uses = Counter(name for node in nodes for name in node.input)
    products = {
        node.output[0]: node
        for node in nodes
        if node.op_type == "Gemm" and len(node.input) == 2 and uses[node.output[0]] == 1
    }
    joined = set()
    for node in nodes:
        if node.op_type != "Add":
            continue
        product, bias = sorted(node.input, key=lambda name: name not in products)
        gemm = products.get(product)
        if gemm is None or product in outputs:
            continue
        weight = gemm.input[1]
        if not {weight, bias} <= shapes.keys() or shapes[weight][1:] != shapes[bias]:
            continue
        node.CopyFrom(type(node)(op_type="Gemm", name=node.name, input=[*gemm.input, bias], output=node.output))
        joined.add(product)
    nodes[:] = [node for node in nodes if joined.isdisjoint(node.output)]
