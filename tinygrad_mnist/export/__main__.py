"""Print which primitives can be written as ONNX nodes: ``python -m tinygrad_mnist.export``."""

from __future__ import annotations

from typing import Any

from .. import ops, record
from ..record import Primitive
from .converters import CONVERTERS

MODULES = [*ops.FAMILIES, ops.linalg, record]


def primitives() -> set[Primitive[Any]]:
    """Return all primitives of the package, also those that only functions and rules call."""
    return {value for module in MODULES for value in vars(module).values() if isinstance(value, Primitive)}


def table() -> str:
    """Return the names of the primitives with a converter, and of those without, as rows in Markdown."""
    written = {op.__name__ for op in primitives() if op in CONVERTERS}
    refused = {op.__name__ for op in primitives() if op not in CONVERTERS}
    public = {name for module in MODULES for name in module.__all__}
    rows = ["| | primitives |", "| --- | --- |"]
    for title, names in (
        ("written", written & public),
        ("written; called by functions and gradients", written - public),
        ("refused by name", refused),
    ):
        listed = [f"`{name}`" for name in sorted(names)]
        rows.append(f"| {title} | {' '.join(listed)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
