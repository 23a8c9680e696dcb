"""The example in the contribution guide: the op works, its test passes, and its planted error is found."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from hypothesis import given

import tinygrad_mnist as tg

GUIDE = (Path(__file__).parents[2] / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_example_of_an_op_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    op, test = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    names: dict[str, Any] = {"np": np, "primitive": tg.primitive, "abs": tg.abs}
    exec(compile(op, "CONTRIBUTING.md", "exec"), names)
    runner = doctest.DocTestRunner()
    runner.run(doctest.DocTestParser().get_doctest(names["softsign"].__doc__, names, "softsign", None, 0))
    assert runner.summarize(verbose=False) == (0, 1)

    monkeypatch.setattr(tg, "softsign", names["softsign"], raising=False)
    monkeypatch.setattr(planted, "_planted", [])
    names = {"np": np, "tg": tg, "given": given, "plants": planted.plants, "normal": planted.normal}
    exec(compile(test, "CONTRIBUTING.md", "exec"), names)
    names["test_softsign"]()
    (error,) = planted._planted
    with pytest.raises(tg.testing.GradientMismatch):
        tg.testing.check_gradients(error.build(), *error.inputs(np.random.default_rng(0)))
