"""The manual of the export lists the primitives that have a converter."""

from __future__ import annotations

import re
from pathlib import Path

import tinygrad_mnist as tg
from tinygrad_mnist.export.__main__ import primitives, table
from tinygrad_mnist.export.converters import CONVERTERS

MANUAL = Path(tg.__file__).parent / "export" / "README.md"


def test_the_manual_has_the_table() -> None:
    text = MANUAL.read_text(encoding="utf-8")
    assert table() in text, "replace the table in export/README.md by what python -m tinygrad_mnist.export prints"


def test_the_table_is_that_of_the_converters() -> None:
    *_, written, in_gradients, refused = (set(re.findall(r"`(\w+)`", row)) for row in table().splitlines())
    names = {op.__name__ for op in primitives() if op in CONVERTERS}
    assert names <= written | in_gradients and not refused & (written | in_gradients)
    assert {"relu", "matmul"} <= written and "select" in in_gradients
    assert tg.linalg.inv not in CONVERTERS and "inv" in refused
