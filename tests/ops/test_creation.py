"""New Tensors: those of NumPy, in the dtype that was asked for; NumPy's own functions stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Shape, shapes

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.ops import creation

dtypes = st.sampled_from([np.float64, np.float32, np.float16, np.int8, np.bool_, None])


@given(shapes, dtypes, st.integers(0, 3), st.integers(-3, 3))
def test_values_and_dtypes_are_those_of_numpy(shape: Shape, dtype: Any, n: int, k: int) -> None:
    like = np.asfortranarray(np.ones(shape, np.float32))
    calls: list[Callable[[Any], Any]] = [
        lambda lib: lib.zeros(shape, dtype),
        lambda lib: lib.ones(n, dtype),
        lambda lib: lib.full(shape, k, dtype),
        lambda lib: lib.full((2, n), np.arange(n), dtype),
        lambda lib: lib.arange(k, dtype=np.float32),
        lambda lib: lib.arange(k, n, 0.5, None if dtype == np.bool_ else dtype),
        lambda lib: lib.linspace(k, n + 1, n, dtype=dtype),
        lambda lib: lib.eye(n, 2, k, dtype),
        lambda lib: lib.eye(n),
        lambda lib: lib.zeros_like(like, dtype),
        lambda lib: lib.ones_like(like, dtype=dtype),
        lambda lib: lib.full_like(like, k, dtype),
    ]
    for call in calls:
        out, expected = call(tg), call(np)
        assert type(out) is Tensor and not out.requires_grad
        np.testing.assert_array_equal(out.data, expected, strict=True)
        if out.dtype.kind == "f":
            learned = call(Learning)
            assert learned.requires_grad and learned.dtype == out.dtype and learned.op is None


class Learning:
    """The same functions with ``requires_grad=True``."""


for _name in creation.__all__:
    setattr(Learning, _name, lambda *args, _name=_name, **how: getattr(tg, _name)(*args, requires_grad=True, **how))


def test_defaults_and_likes_of_tensors() -> None:
    t = Tensor([[1.0, 2.0]], requires_grad=True)
    assert tg.zeros(2).dtype == tg.ones(2).dtype == tg.eye(2).dtype == np.float64 and tg.arange(2).dtype == np.int64
    for like in (tg.zeros_like(t), tg.ones_like(t), tg.full_like(t, 3)):
        assert type(like) is Tensor and like.shape == t.shape and not like.requires_grad
    out = tg.zeros_like(t)
    out.data[...] = 5
    assert t.data.tolist() == [[1, 2]]


def test_those_of_numpy_return_arrays_as_before() -> None:
    t = Tensor([1.0, 2.0], requires_grad=True)
    for made in (np.zeros_like(t), np.ones_like(t), np.full_like(t, 3)):
        assert type(made) is np.ndarray


@pytest.mark.parametrize(
    ("error", "pattern", "call"),
    [
        (ValueError, "zeros: negative", lambda: tg.zeros(-1)),
        (TypeError, "ones: ", lambda: tg.ones(0.5)),
        (TypeError, "arange: .*int64 data cannot require gradients", lambda: tg.arange(3, requires_grad=True)),
        (TypeError, "full: .*lose its history", lambda: tg.full(2, Tensor(1.0, requires_grad=True))),
        (ValueError, "full: .*broadcast", lambda: tg.full((2, 2), [1, 2, 3])),
        (TypeError, "zeros: .*complex", lambda: tg.zeros(2, complex)),
        (ZeroDivisionError, "arange: ", lambda: tg.arange(0, 1, 0)),
        (ValueError, "linspace: ", lambda: tg.linspace(0, 1, -1)),
        (TypeError, "eye: ", lambda: tg.eye(0.5)),
    ],
)
def test_errors_name_the_function(error: type[Exception], pattern: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=pattern):
        call()
