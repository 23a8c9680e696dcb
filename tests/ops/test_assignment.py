"""What can be assigned to data, grad and requires_grad; everything else is refused there and then, with the remedy."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, shapes

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import arrays

FLOATS = st.sampled_from([np.float16, np.float32, np.float64])


@given(st.data(), shapes, FLOATS, FLOATS)
def test_data_is_kept_where_it_fits_and_converted_where_it_is_other_floats(
    data: Any, shape: Any, own: Any, other: Any
) -> None:
    w, given_array = Tensor(np.zeros(shape, own), requires_grad=True), data.draw(arrays(shape)).astype(other)
    w.data = given_array
    assert w.data.dtype == own and w.requires_grad and w.op is None
    np.testing.assert_array_equal(w.data, given_array.astype(own))
    assert (w.data is given_array) == (own == other)
    w.data = Tensor(given_array)
    assert type(w.data) is np.ndarray and w.data.dtype == own


@given(st.data(), shapes, FLOATS, st.booleans())
def test_the_textbook_step(data: Any, shape: Any, dtype: Any, in_place: bool) -> None:
    start = data.draw(arrays(shape)).astype(dtype)
    w = Tensor(start, requires_grad=True)
    for _ in range(3):
        before = w.data.copy()
        (w * w).sum().backward()
        if in_place:
            w.data -= 0.1 * w.grad
        else:
            w.data = w.data - 0.1 * w.grad
        assert w.data.dtype == dtype and w.shape == shape
        np.testing.assert_array_equal(w.data, before - 0.1 * (before + before))
        w.grad = None


STEPS = [operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.imod]


@pytest.mark.parametrize("step", [*STEPS, operator.ipow])
def test_the_step_of_pytorch_code_is_refused_where_it_would_change_nothing(step: Callable[[Any, Any], Any]) -> None:
    """There ``p -= lr * p.grad`` in no_grad changes the parameter; here the name alone would get another Tensor."""
    w, g = Tensor([1.0, 2.0], requires_grad=True), Tensor([0.5, 0.5])
    with tg.no_grad(), pytest.raises(TypeError, match=r"leave the parameter as it is; write w\.data -= "):
        step(w, g)
    recorded, plain = step(w, g), step(g, g)
    assert recorded.op is not None and recorded is not w and plain.op is None
    with tg.no_grad():
        assert np.array_equal(step(recorded, g).data, step(recorded.data.copy(), g.data))
    assert w.data.tolist() == [1.0, 2.0] and g.data.tolist() == [0.5, 0.5]


def test_elements_are_not_assigned() -> None:
    for t in (Tensor([1.0, 2.0], requires_grad=True), Tensor([1.0, 2.0])):
        with pytest.raises(TypeError, match=r"tg\.where.*t\.data\[index\] = "):
            t[0] = 5.0  # type: ignore[index]  # on purpose
        t.data[0] = 5.0
        assert t.data.tolist() == [5.0, 2.0]


def test_read_only_data_is_copied_so_that_the_next_step_can_write() -> None:
    w, values = Tensor(np.ones((2, 3)), requires_grad=True), np.broadcast_to(np.arange(3.0), (2, 3))
    w.data = values
    w.data -= 1.0
    assert np.array_equal(w.data, values - 1) and not np.shares_memory(w.data, values)


@pytest.mark.parametrize(
    ("error", "pattern", "value"),
    [
        (TypeError, "data: cannot assign list; assign an ndarray", [1.0, 2.0]),
        (TypeError, "data: cannot assign float; assign an ndarray", 1.0),
        (TypeError, "data: cannot assign None; assign an ndarray", None),
        (ValueError, r"data: cannot assign shape \(3,\) to a Tensor of shape \(2,\)", np.ones(3)),
        (ValueError, r"data: cannot assign shape \(\) to a Tensor of shape \(2,\)", np.float64(1)),
        (TypeError, r"data: cannot assign int64.*\.astype\(np.float32\)", np.ones(2, np.int64)),
        (TypeError, "cannot compute with", np.array(["a", "b"])),
        (TypeError, r"data: cannot assign a Tensor that requires a gradient.*no_grad\(\)", Tensor(np.ones(2), True)),
    ],
)
def test_other_data_is_refused(error: type[Exception], pattern: str, value: Any) -> None:
    w = Tensor(np.ones(2, np.float32), requires_grad=True)
    with pytest.raises(error, match=pattern):
        w.data = value
    assert w.data.tolist() == [1.0, 1.0] and w.dtype == np.float32


def test_integer_data_stays_integer() -> None:
    t = Tensor([1, 2])
    t.data = np.array([3, 4])
    assert t.data.tolist() == [3, 4]
    with pytest.raises(TypeError, match="data: cannot assign float64 to a Tensor of int64"):
        t.data = np.ones(2)


def test_a_gradient_can_be_replaced_and_taken_away() -> None:
    w = Tensor(np.ones(2, np.float32), requires_grad=True)
    for value in (np.full(2, 3.0), Tensor(np.full(2, 3.0)), Tensor(np.full(2, 3.0, np.float32))):
        w.grad = value
        assert isinstance(w.grad, Tensor) and w.grad.dtype == np.float32
        (w * 2.0).sum().backward()
        assert w.grad.data.tolist() == [5.0, 5.0]
    w.grad *= 0.5
    assert w.grad.data.tolist() == [2.5, 2.5]
    del w.grad
    assert w.grad is None


@pytest.mark.parametrize(
    ("error", "pattern", "value"),
    [
        (TypeError, "grad: cannot assign int; assign None to start anew", 0),
        (TypeError, "grad: cannot assign list", [0.0, 0.0]),
        (ValueError, r"grad: cannot assign shape \(1,\) to a Tensor of shape \(2,\)", np.zeros(1)),
        (TypeError, "grad: cannot assign int64 to a Tensor of float64", np.zeros(2, np.int64)),
    ],
)
def test_other_gradients_are_refused(error: type[Exception], pattern: str, value: Any) -> None:
    w = Tensor(np.ones(2), requires_grad=True)
    with pytest.raises(error, match=pattern):
        w.grad = value
    assert w.grad is None
    with pytest.raises(TypeError, match="int64 data has no gradient"):
        Tensor([1]).grad = np.zeros(1)


def test_requires_grad_is_checked() -> None:
    w = Tensor(np.ones(2))
    for value in (True, np.False_, False, np.True_):
        w.requires_grad = value
        assert w.requires_grad is bool(value)
    for wrong in (1, "no", None):
        with pytest.raises(TypeError, match="requires_grad: cannot assign"):
            w.requires_grad = wrong
    for integers in (Tensor([1, 2]), Tensor([True])):
        integers.requires_grad = False
        with pytest.raises(TypeError, match=r"requires_grad: .* cannot require gradients; convert it first"):
            integers.requires_grad = True
    y = w * 2.0
    y.requires_grad = True
    with pytest.raises(RuntimeError, match=r"requires_grad: a Tensor that multiply has made.*detach\(\)"):
        y.requires_grad = False


def test_a_frozen_parameter_gets_no_gradient() -> None:
    v, w = Tensor(2.0, requires_grad=True), Tensor(3.0, requires_grad=True)
    w.requires_grad = False
    (v * w).backward()
    assert v.grad is not None and v.grad.item() == 3.0 and w.grad is None


class Named(Tensor):
    """A user's kind of Tensor, with attributes."""

    name = ""


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_subclass_is_copied_with_all_that_it_has(duplicate: Callable[[Any], Any], requires_grad: bool) -> None:
    x = Named([1.0, 2.0], requires_grad)
    x.name, x.grad = "weight", np.ones(2)
    y = duplicate(x)
    assert type(y) is Named and y.name == "weight" and y.requires_grad is requires_grad
    assert y.data.tolist() == [1.0, 2.0] and y.grad.data.tolist() == [1.0, 1.0]
    assert not np.shares_memory(x.data, y.data)


def test_a_frozen_subclass_is_recorded_by_its_values() -> None:
    x, frozen = Tensor([1.0, 2.0], requires_grad=True), Named([3.0, 4.0])
    y = (x * frozen + frozen * x + frozen @ x + tg.matmul(x, frozen)).sum()
    frozen.data = np.zeros(2)
    assert tg.grad(y, [x])[0].data.tolist() == [18.0, 24.0]


def values_of_gradients(*leaves: Tensor) -> list[Array]:
    return [leaf.grad.data for leaf in leaves if leaf.grad is not None]


def test_gradients_share_no_memory_with_anything() -> None:
    a, b, g = Tensor(np.ones((2, 3)), True), Tensor(np.ones((2, 3)), True), np.broadcast_to(np.float64(2), (2, 3))
    (a + b).backward(g)
    a.backward(g)
    found = values_of_gradients(a, b)
    assert a.grad is not b.grad and not np.shares_memory(*found)
    for one in found:
        assert one.flags.writeable and not any(np.shares_memory(one, other) for other in (a.data, b.data, g))
