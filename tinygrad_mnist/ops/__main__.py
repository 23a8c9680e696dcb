"""Print the table of all ops: ``python -m tinygrad_mnist.ops``."""

from __future__ import annotations

from .. import ops, record
from ..tensor import Tensor


def table() -> str:
    """Return a line for each op: its name, with a dot if it is a method of `Tensor`, and what it computes."""
    lines = []
    for family in sorted([*ops.FAMILIES, ops.linalg, record], key=lambda module: module.__name__):
        lines.append(f"\n{family.__name__.split('.')[-1]}.py: {(family.__doc__ or '').splitlines()[0]}")
        for name in sorted(family.__all__):
            op = getattr(family, name)
            if name not in ("Primitive", "as_tensor", "no_grad", "primitive"):
                lines.append(f"  {'.' if hasattr(Tensor, name) else ' '}{name:<15} {op.__doc__.splitlines()[0]}")
    return "\n".join(lines).lstrip("\n")


if __name__ == "__main__":
    print(table())
