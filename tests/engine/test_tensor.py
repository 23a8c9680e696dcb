"""The engine: what is recorded, how gradients flow and add up, what is freed, and what is never touched."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import pydoc
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import arrays, check_gradients

Array = npt.NDArray[Any]
DEPTH = 50_000
ROOT = Path(__file__).parents[2]
seeds = st.integers(0, 2**32 - 1)


def leaf(*values: float, dtype: npt.DTypeLike = np.float64) -> Tensor:
    return Tensor(np.array(values, dtype), requires_grad=True)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# Tensors --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_])
def test_a_tensor_is_a_copy_of_its_array(dtype: npt.DTypeLike) -> None:
    array = np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype))
    x = Tensor(array)
    assert (x.shape, x.dtype, x.ndim, x.size, len(x)) == ((2, 3), array.dtype, 2, 6, 2)
    assert np.array_equal(x.numpy(), array) and x.numpy() is x.data and not np.shares_memory(x.data, array)
    assert x.data.flags.f_contiguous  # the memory order is kept
    assert not x.requires_grad and x.grad is None and x.op is None
    assert np.array_equal(np.asarray(x), array) and np.array(x, dtype=np.float32).dtype == np.float32
    assert not np.shares_memory(Tensor(x).data, x.data)
    assert [row.data.tolist() for row in x] == array.tolist()


def test_detach_shares_the_values_and_forgets_the_history() -> None:
    x = leaf(1.0, 2.0)
    y = (x * 2).detach()
    assert not y.requires_grad and y.op is None and np.shares_memory(x.detach().data, x.data)
    assert tg.grad((x * y).sum(), [x])[0].data.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("data", [1, [1, 2], np.arange(3), np.zeros(2, np.bool_)])
def test_only_floats_can_require_gradients(data: Any) -> None:
    with pytest.raises(TypeError, match="cannot require gradients"):
        Tensor(data, requires_grad=True)
    assert not (Tensor(data) * 2).requires_grad


@pytest.mark.parametrize("data", ["abc", None, np.array([object()]), np.zeros(2, np.complex64)])
def test_data_must_be_numbers(data: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot compute with"):
        Tensor(data)
    with pytest.raises(TypeError, match=r"multiply: cannot compute with"):
        _ = leaf(1.0) * data


def test_numbers_come_out_of_tensors_of_one_value() -> None:
    x = leaf(2.5)
    assert (x.item(), float(x), int(x), bool(x), bool(Tensor(0.0))) == (2.5, 2.5, 2, True, False)
    assert type(x.item()) is float
    for function in (Tensor.item, float, bool):
        with pytest.raises(ValueError, match=r"shape \(2,\).* has 2 values"):
            function(leaf(1.0, 2.0))
    with pytest.raises(TypeError, match=r"shape \(\)"):
        len(Tensor(1.0))


def test_repr_tells_values_dtype_and_origin() -> None:
    x = leaf(1.0, dtype=np.float32)
    assert repr(x) == "Tensor([1.], dtype=float32, requires_grad=True)"
    assert repr(tg.exp(x) * 0) == "Tensor([0.], dtype=float32, op=multiply)"
    assert repr(x.detach()) == "Tensor([1.], dtype=float32)"


def test_tensors_are_compared_element_by_element_and_hashed_by_identity() -> None:
    x, y = leaf(1.0, 2.0, 3.0), np.array([2.0, 2.0, 2.0])
    for got, expected in [
        (x < y, x.data < y),
        (x <= y, x.data <= y),
        (x > y, x.data > y),
        (x >= y, x.data >= y),
        (x == y, x.data == y),
        (x != y, x.data != y),
        (y < x, y < x.data),
        (2.0 >= x, 2.0 >= x.data),
        (np.float32(2) == x, x.data == 2),
        (x != x, np.zeros(3, bool)),
    ]:
        assert isinstance(got, Tensor) and got.dtype == np.bool_ and not got.requires_grad
        assert got.data.tolist() == expected.tolist()
    assert len({x, leaf(1.0, 2.0, 3.0), x}) == 2


@pytest.mark.parametrize(
    "other", [3, 2.5, np.float64(2.5), np.float32(2.5), np.array(2.5), np.array([1.5, 2.5]), np.array([[0.5], [2.5]])]
)
@pytest.mark.parametrize("operator", ["+", "-", "*", "/", "**", "@"])
def test_arrays_and_numbers_stand_on_either_side_of_an_operator(other: Any, operator: str) -> None:
    if operator == "@":
        other = np.full((2, 2), other) if np.ndim(other) == 0 else other if np.ndim(other) == 1 else other @ other.T
    x = leaf(0.5, 2.0)
    for text in (f"x {operator} other", f"other {operator} x"):
        got, expected = eval(text), eval(text, {"x": x.data, "other": other})
        assert isinstance(got, Tensor) and got.requires_grad
        np.testing.assert_allclose(got.data, expected, rtol=1e-14)
        check_gradients(lambda x, text=text: eval(text, {"x": x, "other": other}), x)


def test_iteration_and_unpacking_are_differentiable() -> None:
    x = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    a, b, c = x
    g = tg.grad((a * b * c).sum(), [x])[0]
    assert g.data.tolist() == [[8.0, 15.0], [0.0, 5.0], [0.0, 3.0]]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_leaf_can_be_copied_and_pickled(duplicate: Callable[[Tensor], Tensor]) -> None:
    x = leaf(1.0, 2.0)
    y = duplicate(x)
    assert y is not x and y.requires_grad and np.array_equal(x.data, y.data)
    assert tg.grad((x * y * y).sum(), [x, y])[1].data.tolist() == [2.0, 8.0]


def test_a_leaf_from_another_process_gets_its_gradient() -> None:
    for _ in range(1000):
        x = leaf(1.0, 2.0)  # older than anything in the new process
    script = (
        "import pickle, sys, tinygrad_mnist as tg; x = pickle.load(sys.stdin.buffer); print(tg.grad((x * x).sum(), "
        "[x])[0].data.tolist()); "
        "(x * x).sum().backward(); print(x.grad.data.tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(x), cwd=ROOT, capture_output=True, check=True
    )
    assert done.stdout.decode().split("\n")[:2] == ["[2.0, 4.0]"] * 2


# The graph ------------------------------------------------------------------------------------------------------------
STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: 0.3 * a - b,
    "multiply": lambda a, b: tg.tanh(a) * b * 0.7,
    "divide": lambda a, b: a / (1 + tg.exp(-b * b)),
    "matmul": lambda a, b: a @ b.T @ a * 0.2,
    "sin": lambda a, b: tg.sin(a) + b,
    "mean": lambda a, b: a - 0.3 * b.mean(axis=0),
    "index": lambda a, b: a[::-1] * b[[0, 0]],
    "join": lambda a, b: tg.concatenate([a, b])[1:3],
    "detach": lambda a, b: a * 0.5 + b.reshape(3, 2).T,
}


@given(
    st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 9), st.integers(0, 9)), max_size=7),
    seeds,
    st.sampled_from([1, 1, 2]),
)
def test_random_graphs_with_reused_nodes(steps: list[tuple[str, int, int]], seed: int, order: int) -> None:
    """Every node may feed any later ones, itself twice: diamonds, ladders, dead ends."""

    def fn(*inputs: Tensor) -> Tensor:
        nodes = list(inputs)
        for name, i, j in steps:
            nodes.append(STEPS[name](nodes[-1 - i % len(nodes)], nodes[-1 - j % len(nodes)]))
        return nodes[-1] + nodes[len(nodes) // 2]

    rng = np.random.default_rng(seed)
    check_gradients(fn, rng.uniform(-1, 1, (2, 3)), rng.uniform(-1, 1, (2, 3)), order=order, rng=rng)


def test_a_diamond_adds_up_its_branches() -> None:
    x = leaf(3.0)
    y = x * x
    z = y + y * x  # x**2 + x**3
    assert tg.grad(z, [x, y, z], gradient=[2.0])[0].item() == 2 * (6 + 27)
    assert [g.item() for g in tg.grad(z, [x, y, z], gradient=[2.0])] == [66.0, 8.0, 2.0]
    (x + x).backward(np.array([5.0]))
    assert x.grad is not None and x.grad.item() == 10.0


def test_third_derivatives() -> None:
    check_gradients(lambda x, y: tg.exp(x * y) / (1 + y * y), np.array([0.3, -0.8]), np.array([0.5, 1.2]), order=3)


def test_the_record_is_data() -> None:
    x = leaf(1.0, 2.0)
    y = tg.sum(x * 3.0, axis=0)
    product = y.inputs[0]
    assert y.op is not None and y.op.__name__ == "sum" and y.keywords["axis"] == 0
    assert product.op is tg.multiply and product.inputs[0] is x and "multiply" in repr(product.op)


def test_nothing_is_recorded_without_need() -> None:
    x, y = Tensor([1.0]), leaf(2.0)
    assert (x * x).op is None and (x * x).inputs == ()
    with tg.no_grad():
        z = y * y
        assert not z.requires_grad and z.op is None and z.inputs == ()
        with tg.no_grad():
            pass
        assert not (y * y).requires_grad  # the inner context has restored what it found
    with pytest.raises(ZeroDivisionError), tg.no_grad():
        _ = 1 // 0
    assert (y * y).requires_grad


def test_no_grad_is_a_decorator_too() -> None:
    @tg.no_grad()
    def predict(x: Tensor) -> Tensor:
        return x * 2

    assert not predict(leaf(1.0)).requires_grad
    assert (leaf(1.0) * 2).requires_grad


def test_no_grad_and_backward_leave_other_threads_alone() -> None:
    x = leaf(1.0)
    seen: list[bool] = []
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        inside.wait(10)
        seen.append((x * 2).requires_grad)
        with tg.no_grad():
            seen.append((x * 2).requires_grad)
            done.set()

    @tg.primitive
    def slow(x: Array) -> Array:
        return x + 0

    def rule(g: Tensor, out: Tensor, x: Tensor) -> Tensor:
        inside.set()  # recording is off here, in this thread
        assert done.wait(10) and not (x * 2).requires_grad
        return g

    slow.defvjp(rule)
    y = slow(x)
    thread = threading.Thread(target=other)
    thread.start()
    tg.grad(y, [x], gradient=[1.0])
    thread.join(10)
    assert seen == [True, False] and (x * 2).requires_grad


def test_threads_differentiate_a_shared_leaf_independently() -> None:
    x = Tensor(np.linspace(0, 1, 1000), requires_grad=True)
    results: dict[int, Array] = {}

    def work(k: int) -> None:
        for _ in range(20):
            results[k] = tg.grad((tg.sin(x * k) * x).sum(), [x])[0].data

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(4):
        np.testing.assert_allclose(results[k], np.sin(x.data * k) + k * x.data * np.cos(x.data * k), atol=1e-13)


# Backward and grad ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(), (1,), (3,), (0,), (2, 0), (2, 3)])
def test_backward_adds_to_the_gradients_of_leaves_alone(shape: tuple[int, ...]) -> None:
    x, w = (Tensor(np.random.default_rng(i).normal(size=shape), requires_grad=True) for i in (0, 1))
    cotangents = [np.random.default_rng(i).normal(size=shape) for i in (2, 3)]
    expected = np.zeros(shape)
    for cotangent in cotangents:
        y = x * w
        y.backward(cotangent)
        assert y.grad is None
        expected = expected + cotangent * w.data
        assert isinstance(x.grad, Tensor) and type(x.grad.data) is np.ndarray and not x.grad.requires_grad
        np.testing.assert_allclose(x.grad.data, expected, rtol=1e-14)
    x.grad = None
    (x * w).backward(Tensor(cotangents[0]))
    np.testing.assert_allclose(x.grad.data, cotangents[0] * w.data, rtol=1e-14)


def test_backward_of_a_leaf() -> None:
    x = leaf(1.0)
    x.backward()
    x.backward([3.0])
    assert x.grad is not None and x.grad.item() == 4.0
    assert tg.grad(x, [x])[0].item() == 1.0


def test_a_second_backward_needs_a_retained_graph() -> None:
    x = leaf(2.0)
    h = x * x
    y, z = h * 3, h * 5
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad is not None and x.grad.item() == 24.0
    for again in (y.backward, z.backward, (h + 1).backward, lambda: tg.grad(y, [x]), lambda: tg.grad(z, [h])):
        with pytest.raises(RuntimeError, match=r"freed by an earlier backward pass.*retain_graph=True"):
            again()
    assert x.grad.item() == 24.0
    y = x * x
    assert [tg.grad(y, [x])[0].item() for _ in range(2)] == [4.0, 4.0]
    tg.grad(y, [x], retain_graph=False)
    with pytest.raises(RuntimeError, match="freed"):
        y.backward()


def test_backward_and_grad_say_what_they_need() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"shape \(2,\).*gradient="):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match=r"shape \(2,\).*gradient="):
        tg.grad(x * 2, [x])
    with pytest.raises(RuntimeError, match="requires_grad=True"):
        Tensor(1.0).backward()
    for wrong in (1.0, np.ones(3), np.ones((1, 2))):
        with pytest.raises(ValueError, match=r"gradient has shape .* \(2,\)"):
            (x * 2).backward(wrong)
    for unfit in (Tensor([1.0]), np.ones(2), 1.0):
        with pytest.raises(TypeError, match=r"inputs\[1\] does not require a gradient"):
            tg.grad(x.sum(), [x, unfit])  # wrong on purpose
    assert x.grad is None


def test_grad_of_what_was_not_used_is_zero() -> None:
    x, y = leaf(1.0, 2.0), Tensor(np.ones((2, 0, 3), np.float32), requires_grad=True)
    gx, gy, again = tg.grad((x * x).sum(), [x, y, x])
    assert gx.data.tolist() == again.data.tolist() == [2.0, 4.0] and not np.shares_memory(gx.data, again.data)
    assert gy.shape == y.shape and gy.dtype == np.float32
    z = x * 3
    (gz,) = tg.grad((x * 2).sum(), [z])  # made from x, but nothing was made from it
    assert gz.data.tolist() == [0.0, 0.0]
    assert tg.grad(x.sum(), x)[0].data.tolist() == [1.0, 1.0]  # one Tensor is understood
    assert tg.grad(x.sum(), []) == [] and x.grad is None


def test_grad_accepts_any_iterable_of_inputs() -> None:
    x = leaf(1.0, 2.0)
    assert [g.data.tolist() for g in tg.grad((x * x).sum(), (t for t in [x]))] == [[2.0, 4.0]]
    assert [g.data.tolist() for g in tg.grad((x * x).sum(), {"x": x}.values())] == [[2.0, 4.0]]


def test_grad_can_be_differentiated_in_the_cotangent() -> None:
    """Twice the vector-Jacobian product is the Jacobian-vector product."""
    x, v = leaf(0.5, 1.5), leaf(1.0, 1.0)
    (pulled,) = tg.grad(tg.exp(x) * x[::-1], [x], create_graph=True, gradient=v)
    (pushed,) = tg.grad(pulled, [v], gradient=np.array([2.0, -3.0]))
    e, (a, b) = np.exp(x.data), x.data
    np.testing.assert_allclose(pushed.data, [2 * e[0] * b - 3 * e[0], -3 * e[1] * a + 2 * e[1]], rtol=1e-14)


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_are_recorded_only_on_request(create_graph: bool) -> None:
    x = leaf(2.0)
    (g,) = tg.grad(x * x * x, [x], create_graph=create_graph)
    assert g.requires_grad is create_graph and g.item() == 12.0
    if create_graph:
        g.backward()
        assert x.grad is not None and x.grad.item() == 12.0 and not x.grad.requires_grad
        (g,) = tg.grad(x * x * x, [x], create_graph=True, retain_graph=False)  # the derivative still needs the record
        assert tg.grad(g, [x])[0].item() == 12.0


# Rules ----------------------------------------------------------------------------------------------------------------
def product(calls: list[int]) -> tg.Primitive:
    @tg.primitive
    def product(x: Array, y: Array) -> Array:
        return x * y

    def rule(position: int, g: Tensor, out: Tensor, *inputs: Tensor) -> Tensor:
        calls.append(position)
        return g * inputs[1 - position]

    product.defvjp(partial(rule, 0), partial(rule, 1))
    return product


def test_a_rule_runs_only_for_an_argument_that_needs_a_gradient() -> None:
    calls: list[int] = []
    op = product(calls)
    x = leaf(3.0)
    assert tg.grad(op(x, 2.0), [x])[0].item() == 2.0 and calls == [0]
    op(Tensor([2.0]), x).backward()
    op(np.array([2.0]), x * x).backward()
    assert calls == [0, 1, 1]


def test_grad_runs_only_the_rules_that_lead_to_wanted_inputs() -> None:
    calls: list[int] = []
    op = product(calls)
    x, y, z = leaf(2.0), leaf(3.0), leaf(5.0)
    side = op(op(y, y), y)  # does not lead to x
    out = op(op(x, side), z)
    assert tg.grad(out, [x])[0].item() == 27 * 5 and calls == [0, 0]
    calls.clear()
    assert tg.grad(out, [side])[0].item() == 10 and calls == [0, 1]  # stops there
    calls.clear()
    assert tg.grad(out, [out])[0].item() == 1 and calls == []


def test_an_op_explains_what_is_wrong_with_its_rules() -> None:
    x = leaf(1.0, 2.0)

    @tg.primitive
    def crooked(x: Array, y: Array) -> Array:
        return x + y

    with pytest.raises(TypeError, match=r"crooked: no VJP rule is stated for argument 0.*defvjp"):
        crooked(x, 1.0)
    assert crooked(np.ones(2), 1.0).data.tolist() == [2.0, 2.0]  # without gradients none is needed
    with tg.no_grad():
        crooked(x, 1.0)
    crooked.defvjp(lambda g, out, x, y: g.sum())
    with pytest.raises(TypeError, match="no VJP rule is stated for argument 1"):
        crooked(np.ones(2), x)
    with pytest.raises(
        ValueError, match=r"crooked: .* argument 0 returned shape \(\) for an argument of shape \(2,\).*sum_to"
    ):
        crooked(x, 1.0).sum().backward()
    crooked.defvjp(lambda g, out, x, y: g, None)
    out = crooked(x, x)  # None: no gradient for the second argument
    assert tg.grad(out.sum(), [x])[0].data.tolist() == [1.0, 1.0]
    assert not crooked(np.ones(2), x).requires_grad


def test_a_users_op_is_like_ours() -> None:
    @tg.primitive
    def softplus(x: Array) -> Array:
        """Smooth relu."""
        return np.logaddexp(0, x)

    softplus.defvjp(lambda g, out, x: g * tg.sigmoid(x))
    check_gradients(lambda x: softplus(x) * x, np.array([[-2.0, 0.1], [0.5, 3.0]]), order=3)
    assert softplus.__doc__ == "Smooth relu." and softplus(np.float32([1])).dtype == np.float32
    with pytest.raises(TypeError, match=r"softplus\(\) too many positional arguments"):
        softplus(leaf(1.0), leaf(1.0))


@pytest.mark.parametrize("mode", ["backward", "grad", "create_graph"])
def test_rules_record_only_with_create_graph(mode: str) -> None:
    recorded: list[bool] = []

    @tg.primitive
    def spy(x: Array) -> Array:
        return x * 1

    def rule(g: Tensor, out: Tensor, x: Tensor) -> Tensor:
        recorded.append((x * 2).requires_grad)
        return g

    spy.defvjp(rule)
    x = leaf(1.0)
    y = spy(x)
    y.backward() if mode == "backward" else tg.grad(y, [x], create_graph=mode == "create_graph")
    assert recorded == [mode == "create_graph"]


def test_one_rule_serves_any_number_of_arrays() -> None:
    @tg.primitive
    def weighted(*xs: Array, weights: tuple[float, ...]) -> Any:
        return sum(weight * x for weight, x in zip(weights, xs, strict=True))

    weighted.defvjp(lambda position, g, out, *xs, weights: g * weights[position])
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    slopes = tg.grad(weighted(x, 5.0, y, weights=(2.0, 3.0, 4.0)).sum(), [x, y])
    assert [slope.data.tolist() for slope in slopes] == [[2.0, 2.0], [4.0, 4.0]]
    check_gradients(lambda x, y: weighted(x * y, y, weights=(2.0, -1.0)), np.array([0.3]), np.array([0.7]), order=2)


def test_an_array_may_have_a_default_and_a_rule_may_be_missing_for_any_number() -> None:
    @tg.primitive
    def scaled(x: Array, y: Any = 2.0) -> Any:
        return x * y

    scaled.defvjp(lambda g, out, x, y=2.0: g * y, None)
    x = leaf(1.0, 3.0)
    assert tg.grad(scaled(x).sum(), [x])[0].data.tolist() == [2.0, 2.0]
    assert tg.grad(scaled(x, 5.0).sum(), [x])[0].data.tolist() == [5.0, 5.0]
    assert tg.primitive(np.cumsum)([1.0, 2.0]).data.tolist() == [1.0, 3.0]
    count = tg.primitive(lambda *xs: np.float64(len(xs)))
    count.defvjp(None)
    assert count(x, x).item() == 2.0 and not count(x, x).requires_grad
    for op, rules in ((count, (None, None)), (scaled, (None, None, None)), (scaled, ())):
        with pytest.raises(TypeError, match="state one rule for each array"):
            op.defvjp(*rules)


def test_integers_do_not_wrap_and_what_overflows_names_the_op() -> None:
    assert tg.add(np.int8(100), 100).item() == 200 and tg.add(np.uint8(200), 100).item() == 300
    for add in (tg.add, lambda x, y: Tensor(x) + y):
        with pytest.raises(OverflowError, match=r"add\(int8 \(2,\), 1000\): .*out of bounds"):
            add(np.ones(2, np.int8), 1000)


def test_a_scalar_from_numpy_decides_the_dtype_where_no_array_of_floats_does() -> None:
    assert tg.multiply(np.array([True]), np.float32(2)).dtype == np.float32
    assert tg.where(np.array([True]), np.float32(2), 1.0).dtype == np.float32
    assert tg.multiply(np.ones(2, np.float32), np.float64(2)).dtype == np.float32
    assert tg.add(np.ones(2, np.uint8), np.int64(1)).dtype == np.uint8


WRONG_CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "another name": (
        lambda: tg.sum([1.0], dim=0),
        r"sum\(\) got an unexpected keyword argument 'dim'; did you mean axis\?",
    ),
    "a typing error": (
        lambda: tg.max([1.0], keepdim=True),
        r"max\(\) got an unexpected keyword .*; did you mean keepdims\?",
    ),
    "an unknown name": (lambda: tg.exp([1.0], foo=1), r"exp\(\) got an unexpected keyword argument 'foo'$"),
    "nothing": (lambda: tg.exp(), r"exp\(\) missing a required argument: 'x'"),
    "too much": (lambda: tg.exp([1.0], 3), r"exp\(\) too many positional arguments"),
    "twice": (lambda: tg.sum([1.0], 0, axis=0), r"sum\(\) multiple values for argument 'axis'"),
    "a setting is missing": (lambda: tg.swapaxes([1.0], 0), r"swapaxes\(\) missing a required argument: 'axis2'"),
    "a wrong name in place of a right one": (
        lambda: tg.sum([1.0], keepdims=True, dim=0),
        r"sum\(\) got an unexpected .* axis\?",
    ),
    "a method": (
        lambda: leaf(1.0).sum(axes=0),
        r"sum\(\) got an unexpected keyword argument 'axes'; did you mean axis\?",
    ),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_arguments_are_refused_in_pythons_words(name: str) -> None:
    call, message = WRONG_CALLS[name]
    with pytest.raises(TypeError, match=message):
        call()


def test_signatures_are_true() -> None:
    shown = {op: str(inspect.signature(op)) for op in (tg.add, tg.exp, tg.sum, tg.swapaxes)}
    assert shown[tg.add] == "(x: 'Any', y: 'Any', /) -> 'Any'" and shown[tg.exp] == "(x: 'Any', /) -> 'Any'"
    assert shown[tg.sum] == "(x: 'Any', /, axis: 'Axis' = None, keepdims: 'bool' = False) -> 'Any'"
    assert str(inspect.signature(leaf(1.0).sum)) == "(axis: 'Axis' = None, keepdims: 'bool' = False) -> 'Any'"
    text = pydoc.render_doc(tg.add, renderer=pydoc.plaintext)
    assert "add(x: 'Any', y: 'Any', /)" in text and "elementwise, with broadcasting" in text and "casting=" not in text


def test_a_rule_that_raises_leaves_recording_on() -> None:
    @tg.primitive
    def broken(x: Array) -> Array:
        return x * 1

    def rule(g: Tensor, out: Tensor, x: Tensor) -> Tensor:
        raise FloatingPointError("on purpose")

    broken.defvjp(rule)
    x = leaf(1.0)
    with pytest.raises(FloatingPointError, match="on purpose"):
        broken(x).backward()
    assert (x * 2).requires_grad and x.grad is None


# Nothing is modified, nothing is shared -------------------------------------------------------------------------------
OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: x + y,
    "view": lambda x, y: x.reshape(3, 2).T + y[::-1],
    "same": lambda x, y: x.reshape(2, 3) + y * 1.0,
    "copy": lambda x, y: tg.concatenate([x, y])[:2],
    "sum": lambda x, y: x.sum(axis=0, keepdims=True) + y.sum() - tg.broadcast_to(x[:1], (2, 3)),
    "max": lambda x, y: x.max(axis=1, keepdims=True) * tg.maximum(x, y),
    "pad": lambda x, y: tg.pad(x, 1)[1:-1, 1:-1] + tg.where(y > 0, x, y),
    "softmax": lambda x, y: x.softmax() + y.log_softmax(),
    "relu": lambda x, y: x.relu() - y.relu() + tg.dropout(x, 0.5, np.random.default_rng(0)),
    "matmul": lambda x, y: x @ y.T @ x,
    "index": lambda x, y: x[[1, 0]] + y[:, [0, 1, 2]] + y.astype(np.float32).astype(np.float64),
}


@pytest.mark.parametrize("name", OPERATIONS)
@given(arrays((2, 3)), arrays((2, 3)), arrays((2, 3)))
def test_inputs_and_cotangents_are_neither_modified_nor_shared(name: str, a: Array, b: Array, cotangent: Array) -> None:
    x, y, v = Tensor(a, requires_grad=True), Tensor(b, requires_grad=True), Tensor(cotangent)
    for t in (x, y, v):
        t.data.flags.writeable = False
    out = OPERATIONS[name](x, y)
    if out.data.flags.writeable:
        out.data.flags.writeable = False
    gradients = tg.grad(out, [x, y, x], gradient=v) + tg.grad(out, [x, y, out], create_graph=True, gradient=v)
    out.backward(v, retain_graph=True)
    first = [x.grad, y.grad]
    out.backward(v)
    everything = [x, y, v, out, x.grad, y.grad, *first, *gradients]
    for i, p in enumerate(everything):
        for q in everything[:i]:
            assert isinstance(p, Tensor) and isinstance(q, Tensor)
            assert not np.shares_memory(p.data, q.data) or (p is out and name == "view"), (i, p, q)
    assert np.array_equal(x.data, a) and np.array_equal(y.data, b) and np.array_equal(v.data, cotangent)
    for g in gradients[:3]:
        g.data[...] = np.nan  # a gradient is the caller's to write to
    for g, once in ((x.grad, gradients[3]), (y.grad, gradients[4])):
        np.testing.assert_allclose(g.data, 2 * once.data, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scalar", [2, 2.0, np.float64(2), np.int64(2), np.array(2.0), True])
@pytest.mark.parametrize(
    "op", [tg.add, tg.subtract, tg.multiply, tg.divide, tg.power, tg.maximum, tg.minimum, tg.where]
)
def test_scalars_never_upcast(op: Callable[..., Tensor], scalar: Any) -> None:
    x = leaf(0.5, 1.5, dtype=np.float32)
    for args in ((x, scalar), (scalar, x)):
        out = op(np.array([True, False]), *args) if op is tg.where else op(*args)
        assert out.dtype == np.float32
        assert all(g.dtype == np.float32 for g in tg.grad(out, [x], create_graph=True, gradient=np.ones(2)))


@given(
    st.sampled_from(
        [
            tg.add,
            tg.subtract,
            tg.multiply,
            tg.divide,
            tg.power,
            tg.maximum,
            tg.minimum,
            tg.clip,
            lambda x, y: tg.where(True, x, y),
        ]
    ),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 2.5, True]),
)
def test_numbers_never_change_the_dtype_of_a_scalar_from_numpy(
    op: Callable[..., Tensor], dtype: Any, array: bool, swapped: bool, number: Any
) -> None:
    scalar = np.array(1.5, dtype) if array else dtype(1.5)
    out = op(*((number, scalar) if swapped else (scalar, number)))
    assert out.dtype == dtype and isinstance(out, Tensor)


@pytest.mark.parametrize("scalar", [2, 2.0, np.float64(2), np.int64(2), np.array(2.0), True])
def test_float32_stays_float32(scalar: Any) -> None:
    x, w = leaf(0.5, 1.5, dtype=np.float32), leaf(1.0, -1.0, dtype=np.float32)
    h = (scalar * x + w / scalar - scalar) ** scalar * scalar ** (x - scalar) / (scalar + tg.exp(w))
    h = tg.maximum(h, scalar) - tg.minimum(scalar, h) + tg.where(h > scalar, h, scalar) + tg.clip(h, -scalar, scalar)
    h = tg.concatenate([h, tg.pad(h, 1, scalar)]).softmax().log_softmax() + h.mean() + h.max() + tg.logsumexp(h)
    out = tg.cross_entropy(tg.stack([h, tg.dropout(h, 0.5, np.random.default_rng(0)).relu()]), np.array([0, 1]))
    assert out.dtype == np.float32
    gradients = tg.grad(out, [x, w], create_graph=True, gradient=np.float64(1.5))
    second = tg.grad((gradients[0] * gradients[1]).sum(), [x, w])
    out.backward(np.array(1.5))
    assert all(t is not None and t.dtype == np.float32 for t in (h, *gradients, *second, x.grad, w.grad))
    assert all(np.isfinite(t.data).all() for t in (*gradients, *second))


def test_gradients_have_the_dtype_of_their_input() -> None:
    x, y = leaf(1.0, 2.0, dtype=np.float32), leaf(3.0, 4.0)
    out = (x * y).sum()
    assert out.dtype == np.float64
    assert [g.dtype for g in tg.grad(out, [x, y])] == [np.float32, np.float64]
    check_gradients(lambda y: (y.astype(np.float64) * np.arange(2)).sum(), y)


# Memory ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "step",
    [lambda x: x + 1.0, lambda x: (x + x) * 0.5, lambda x: x[...].reshape(1) - 0.0],
    ids=["chain", "ladder", "views"],
)
@pytest.mark.usefixtures("no_collector")
def test_depth_needs_no_recursion(step: Callable[[Tensor], Tensor]) -> None:
    x = leaf(1.0)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200)
    try:
        y = x
        for _ in range(DEPTH // 2):
            y = step(y)
        y = step(step(y))
        y.backward(retain_graph=True)
        assert x.grad is not None and x.grad.item() == 1.0
        (g,) = tg.grad(y, [x], create_graph=True)
        assert g.item() == 1.0
        inner = weakref.ref(y.inputs[0])
        del y, g
        assert inner() is None
        y = x
        for _ in range(DEPTH):
            y = y + 0.5
        inner = weakref.ref(y.inputs[0])
        y.backward()
        assert inner() is None and x.grad.item() == 2.0
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("use", ["forward", "backward", "grad", "create_graph", "error"])
@pytest.mark.usefixtures("no_collector")
def test_dropped_graphs_are_freed_at_once(use: str) -> None:
    x = Tensor(np.ones((3, 4)), requires_grad=True)
    h = tg.concatenate([x.softmax(), tg.dropout(x, 0.5, np.random.default_rng(0))])[[0, 0, 1]]
    y = (h @ x.T).max(axis=0).relu() ** 2
    z = tg.cross_entropy(tg.stack([y, y]), [0, 1])
    data = weakref.ref(h.data)
    made = [weakref.ref(t) for t in (h, y, z)]
    extra: list[Any] = []
    if use == "backward":
        z.backward()
        assert x.grad is not None
        made.append(weakref.ref(x.grad))
        x.grad = None
    elif use == "error":
        with pytest.raises(ValueError, match="gradient has shape"):
            y.backward(np.ones(7))
        with pytest.raises(ValueError, match="add"):
            y + np.ones((2, 5))
    elif use != "forward":
        extra = tg.grad(z, [x, h], create_graph=use == "create_graph")
        if use == "create_graph":
            extra += tg.grad((extra[0] * extra[0]).sum(), [x, h], create_graph=True)
        made += [weakref.ref(g) for g in extra]
    del h, y, z
    extra.clear()
    assert [ref() for ref in made] == [None] * len(made) and data() is None
    x = weakref.ref(x)  # the last reference
    assert x() is None


@pytest.mark.usefixtures("no_collector")
def test_backward_frees_activations_on_the_way() -> None:
    alive: list[int] = []

    @tg.primitive
    def spy(x: Array) -> Array:
        return x * 1

    def rule(g: Tensor, out: Tensor, x: Tensor) -> Tensor:
        alive.append(sum(ref() is not None for ref in later))
        return g

    spy.defvjp(rule)
    x = Tensor(np.ones(10), requires_grad=True)
    y, later = spy(x), []
    for _ in range(5):
        y = tg.exp(y * 0.1)
        later.append(weakref.ref(y))
    later.pop()  # the output itself is ours
    y.backward(np.ones(10))
    assert alive == [0]


@pytest.mark.usefixtures("no_collector")
def test_memory_stays_the_same_over_many_steps() -> None:
    rng = np.random.default_rng(0)
    w = Tensor(rng.normal(size=(20, 10)), requires_grad=True)
    images, labels = rng.normal(size=(50, 20)), rng.integers(0, 10, 50)
    used: list[int] = []
    tensors: list[int] = []

    def train() -> None:
        w.grad = None
        loss = tg.cross_entropy(tg.dropout(images @ w, 0.2, rng), labels)
        (g,) = tg.grad(loss, [w], create_graph=True)
        (loss + (g * g).sum()).backward()
        w.data -= 0.1 * w.grad.data

    tracemalloc.start()
    try:
        for step in range(220):
            train()
            if step in (69, 219):
                used.append(tracemalloc.get_traced_memory()[0])
                tensors.append(
                    sum(type(thing) is Tensor for thing in gc.get_objects())
                )  # isinstance would wake lazy objects
    finally:
        tracemalloc.stop()
    assert tensors[1] == tensors[0]
    assert (
        used[1] - used[0] < 100_000
    )  # 500 bytes a step, for Python's list of spare tuples; one (50, 10) array has 4000


def test_settings_may_be_given_by_position_or_by_name() -> None:
    @tg.primitive
    def scaled(x: Array, y: Array, *, factor: float, offset: float = 1.0) -> Array:
        return x * y * factor + offset

    scaled.defvjp(lambda g, out, x, y, factor, offset: g * y * factor, None)
    x = Tensor([2.0], requires_grad=True)
    calls = [scaled(x, 3.0, 5.0), scaled(x, 3.0, 5.0, 1.0), scaled(x, 3.0, factor=5.0), scaled(x, 3.0, 5.0, offset=1.0)]
    assert [(y.item(), tg.grad(y, [x])[0].item()) for y in calls] == [(31.0, 15.0)] * 4
    for bad in (lambda: scaled(x, 3.0, 5.0, 1.0, 7.0), lambda: scaled(x, 3.0, 5.0, factor=5.0), lambda: scaled(x, 3.0)):
        with pytest.raises(TypeError, match=r"scaled\(\) (too many|multiple|missing a required argument: .factor)"):
            bad()


def test_nothing_but_arrays_and_known_settings_reaches_numpy() -> None:
    """A ufunc would write into a second positional argument, or into ``out``."""
    x, received = np.ones(2), np.zeros(2)
    for bad in (
        lambda: tg.exp(x, received),
        lambda: tg.exp(x, out=received),
        lambda: tg.add(x, x, received),
        lambda: tg.sum(x, dim=0),
    ):
        with pytest.raises(TypeError, match=r"(exp|add|sum)\(\) (too many|got an unexpected)"):
            bad()
    assert not received.any()
