"""Random graphs as ONNX files: values and gradients on other inputs than the traced ones; equal, or refused by name."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from onnx_files import outputs, run
from op_checks import Array, seeds

import tinygrad_mnist as tg
from tinygrad_mnist.testing import Program, programs

DIGITS = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-9}  # of the largest number of an array

kinds = st.booleans()
dtypes = st.sampled_from([np.float32, np.float64])
drawn_programs = kinds.flatmap(lambda kinks: programs(max_steps=6, kinks=kinks, dtype=dtypes))


def with_gradients(program: Program) -> Any:
    """Let a program return its result and the gradients of a sum of sines by its inputs."""

    def function(*inputs: tg.Tensor) -> tuple[tg.Tensor, ...]:
        out = program(*inputs)
        assert isinstance(out, tg.Tensor)
        wanted = [x for x in inputs if x.requires_grad]
        return (out, *tg.grad(tg.sin(out).sum(), wanted)) if out.requires_grad else (out,)

    return function


def others(program: Program, number: int) -> list[Array]:
    """Draw other inputs, as large as those of a program."""
    rng = np.random.default_rng(number)
    return [rng.uniform(-2.0, 2.0, x.shape).astype(x.dtype) for x in program.inputs]


def outcome(program: Program, number: int) -> str:
    """Export a program; fail if the file computes anything else than the program, or is refused without a name."""
    function = with_gradients(program)
    try:
        model = tg.export.to_onnx(function, *program.inputs, dynamic_batch=False)
    except NotImplementedError as error:
        assert str(error).startswith("to_onnx: the primitive "), error
        return "refused"
    inputs = others(program, number)
    with np.errstate(all="ignore"):  # what the file computes beside what it chooses
        results = run(model, inputs)
    for found, right in zip(results, outputs(function, inputs), strict=True):
        assert (found.shape, found.dtype) == (right.shape, right.dtype)
        largest = max(1.0, np.abs(right).max(initial=0))
        np.testing.assert_allclose(found, right, rtol=0, atol=DIGITS[right.dtype] * largest)
    return "equal"


@given(drawn_programs, seeds)
def test_programs_are_exported(program: Program, number: int) -> None:
    outcome(program, number)


@pytest.mark.slow
def test_of_200_programs_at_least_190_are_exported() -> None:
    counted: Counter[str] = Counter()

    @seed(0)
    @settings(max_examples=200, database=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck])
    @given(drawn_programs, seeds)
    def count(program: Program, number: int) -> None:
        counted[outcome(program, number)] += 1

    count()
    assert counted.total() >= 200, counted
    assert counted["equal"] >= 190, counted
