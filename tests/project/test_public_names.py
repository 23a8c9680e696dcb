"""What help and tab completion show: everything that is public, and nothing else."""

from __future__ import annotations

import pydoc
from types import ModuleType
from typing import Any

import pytest

import tinygrad_mnist as tg

NAMESPACES = set(  # modules that belong to the public interface
    "checkpoint data explain export func linalg nn optim parallel runs schedules testing training".split()
)
OPS = "add matmul exp relu clip where sum max reshape getitem concatenate softmax cross_entropy dropout conv2d".split()
REST = "Tensor Primitive primitive grad no_grad as_tensor Profile detect_anomaly show_config".split()
REST += "graph summary to_dot".split()


def public(module: ModuleType) -> set[str]:
    return {name for name in dir(module) if not name.startswith("_")}


def own(value: Any) -> bool:
    return isinstance(value, tg.Primitive) or str(getattr(value, "__module__", "")).startswith("tinygrad_mnist")


@pytest.mark.parametrize("module", [tg, tg.linalg, tg.nn, tg.testing], ids=lambda module: module.__name__)
def test_completion_shows_what_is_public_and_nothing_else(module: ModuleType) -> None:
    names = public(module)
    namespaces = {name for name in names if isinstance(getattr(module, name), ModuleType)}
    assert namespaces == (NAMESPACES if module is tg else set()), "modules that are shown"
    foreign = sorted(name for name in names - namespaces if not own(getattr(module, name)))
    assert not foreign, f"{module.__name__}: {', '.join(foreign)} shown, but imported from elsewhere"


def test_completion_shows_ops_and_all_else() -> None:
    assert {*OPS, *REST} <= public(tg)
    assert {"Conv2d", "Linear", "Sequential", "parameters", "load_parameters"} <= public(tg.nn)
    assert {"GradientMismatch", "adjoint_check", "arrays", "check_gradients", "programs"} <= public(tg.testing)


def test_help_lists_ops_tensor_and_grad() -> None:
    shown = pydoc.plain(pydoc.render_doc(tg))
    assert "class Tensor(" in shown and "\n    grad(" in shown
    missing = [name for name in OPS if f"\n    {name}(" not in shown]
    assert not missing, f"help(tinygrad_mnist) lacks {', '.join(missing)}"


def test_a_likely_mistake_gets_a_hint() -> None:
    """``tg.tensor([1.0])``, as in PyTorch, is an error that names ``tg.Tensor``, or works."""
    try:
        made = tg.tensor([1.0])  # type: ignore[operator]  # on purpose
    except (AttributeError, TypeError) as error:
        assert "Tensor" in str(error) and "not callable" not in str(error), str(error)
    else:
        assert isinstance(made, tg.Tensor)
