"""Transforms of functions.

Identities on random programs, finite differences, nesting, trees, modes, errors; PyTorch and JAX where installed. Wrong
rules and wrong transforms must not pass.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_checks import dtypes, seeds
from planted import with_rule

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor, func
from tinygrad_mnist.func import grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from tinygrad_mnist.testing import check_gradients, programs

X, Y, V = np.random.default_rng(0).normal(size=(3, 3))
A = np.random.default_rng(1).normal(size=(3, 3))


def values(tree: Any) -> list[np.ndarray]:
    """List the arrays of a tree in order."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, (list, tuple)):
        return [leaf for part in tree for leaf in values(part)]
    return [] if tree is None else [np.asarray(tree.detach() if hasattr(tree, "detach") else tree)]


def same(found: Any, expected: Any, rtol: float = 1e-9, atol: float = 1e-11) -> None:
    found, expected = values(found), values(expected)
    assert [(v.shape, v.dtype) for v in found] == [(v.shape, v.dtype) for v in expected]
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=atol)


def directions(rng: np.random.Generator, like: Any) -> list[np.ndarray]:
    """Draw an array for each of a tree, of a random magnitude."""
    return [(rng.normal(size=v.shape) * 10.0 ** rng.integers(-3, 4)).astype(v.dtype) for v in values(like)]


def inner(xs: Any, ys: Any) -> float:
    return sum(float((x.astype(np.float64) * y).sum()) for x, y in zip(values(xs), values(ys), strict=True))


# Identities -----------------------------------------------------------------------------------------------------------
def check_identities(fn: Callable[..., Any], inputs: list[np.ndarray], rng: np.random.Generator) -> None:
    """Check all transforms of a function with several outputs against each other, the engine and differences."""
    tangents, argnums = directions(rng, inputs), range(len(inputs))
    out, pushed = jvp(fn, inputs, tangents)
    again, vjp_fn = vjp(fn, *inputs)
    same(out, again, 0, 0)
    same(out, fn(*inputs), 0, 0)
    cotangents = directions(rng, out)
    pulled = vjp_fn(tuple(cotangents))
    assert isinstance(pulled, tuple) and not any(t.requires_grad for t in [*out, *pushed, *pulled])
    tolerance = 1e-12 if all(x.dtype == np.float64 for x in inputs) else 1e-4
    size = sum(np.abs(v).sum() for v in values(list(jacobian(fn, argnums)(*inputs)))) + 1
    size *= max(map(abs_max, tangents)) * max(map(abs_max, cotangents))
    assert abs(inner(cotangents, pushed) - inner(pulled, tangents)) <= 10 * tolerance * size, "adjoint"

    jac = jacobian(fn, argnums)(*inputs)
    for o, row, t, c in zip(out, jac, pushed, cotangents, strict=True):
        assert [j.shape for j in row] == [o.shape + x.shape for x in inputs]
        assert [j.dtype for j in row] == [x.dtype for x in inputs]
        by_columns = sum(np.tensordot(j.data, v, v.ndim) for j, v in zip(row, tangents, strict=True))
        np.testing.assert_allclose(t.data, by_columns, rtol=0, atol=10 * tolerance * size / abs_max(c))
    for k, x in enumerate(inputs):
        by_rows = sum(np.tensordot(c, row[k].data, c.ndim) for c, row in zip(cotangents, jac, strict=True))
        np.testing.assert_allclose(pulled[k].data, by_rows, rtol=0, atol=10 * tolerance * size / abs_max(tangents[k]))
        assert pulled[k].shape == x.shape and pulled[k].dtype == x.dtype

    leaves = [Tensor(x, requires_grad=True) for x in inputs]
    total = sum(((o * c).sum() for o, c in zip(fn(*leaves), cotangents, strict=True)), Tensor(0.0))
    if total.requires_grad:
        same(pulled, tg.grad(total, leaves), 1e3 * tolerance, 1e2 * tolerance * size)


def check_second_order(fn: Callable[..., Any], inputs: list[np.ndarray], rng: np.random.Generator) -> None:
    """Check hessian, hvp and grad of one number made of all outputs."""
    weights = [rng.normal(size=o.shape) for o in fn(*inputs)]

    def scalar(*xs: Any) -> Any:
        return sum(((o * w).sum() for o, w in zip(fn(*xs), weights, strict=True)), Tensor(0.0))

    argnums = range(len(inputs))
    value, gradients = value_and_grad(scalar, argnums)(*inputs)
    same(value, scalar(*inputs))
    same(gradients, grad(scalar, argnums)(*inputs), 0, 0)
    same(gradients, jacobian(scalar, argnums)(*inputs))
    tangents = [rng.normal(size=x.shape) for x in inputs]
    hess, product = hessian(scalar, argnums)(*inputs), hvp(scalar, inputs, tangents)
    same(product, jvp(grad(scalar, argnums), inputs, tangents)[1], 1e-9, 1e-9)
    for i, x in enumerate(inputs):
        row = sum(np.tensordot(h.data, v, v.ndim) for h, v in zip(hess[i], tangents, strict=True))
        np.testing.assert_allclose(product[i].data, row, rtol=1e-9, atol=1e-9)
        for k, y in enumerate(inputs):
            assert hess[i][k].shape == x.shape + y.shape and not hess[i][k].requires_grad
            order = [*range(y.ndim, y.ndim + x.ndim), *range(y.ndim)]
            np.testing.assert_allclose(hess[i][k].data, hess[k][i].data.transpose(order), rtol=1e-9, atol=1e-9)

    step = 1e-5
    ahead, behind = ([x + sign * step * v for x, v in zip(inputs, tangents, strict=True)] for sign in (1, -1))
    slope = (scalar(*ahead).item() - scalar(*behind).item()) / (2 * step)
    np.testing.assert_allclose(inner(gradients, tangents), slope, rtol=1e-5, atol=1e-6)
    far, near = (grad(scalar, argnums)(*at) for at in (ahead, behind))
    for h, a, b in zip(product, far, near, strict=True):
        np.testing.assert_allclose(h.data, (a.data - b.data) / (2 * step), rtol=1e-4, atol=1e-4)


def abs_max(x: np.ndarray) -> float:
    return float(np.abs(x).max(initial=1e-3))


@given(programs(max_steps=5, outputs=2, dtype=dtypes, min_side=0), seeds)
def test_all_transforms_agree(program: Any, seed: int) -> None:
    check_identities(program, program.inputs, np.random.default_rng(seed))


@settings(max_examples=max(settings().max_examples // 2, 10))
@given(programs(max_steps=4, outputs=2, max_side=2), seeds)
def test_second_derivatives_agree(program: Any, seed: int) -> None:
    check_second_order(program, program.inputs, np.random.default_rng(seed))


@given(st.integers(0, 6), st.floats(-3, 3))
def test_derivatives_of_any_order(order: int, x: float) -> None:
    for transform in (grad, jacobian, along_one):
        fn = lambda x: x**5  # noqa: E731  # replaced below
        for _ in range(order):
            fn = transform(fn)
        expected = math.perm(5, order) * x ** (5 - order) if order <= 5 else 0.0
        found = fn(x)
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-12, atol=1e-300)
        assert order == 0 or not found.requires_grad


def along_one(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: jvp(fn, (x,), (1.0,))[1]


# What depends on what -------------------------------------------------------------------------------------------------
TRANSFORMED: dict[str, Callable[..., Any]] = {  # functions of x and w, in which a transform differentiates by another x
    "grad": lambda x, w: grad(lambda y: (y * y * x * w).sum())(X),
    "grad of the argument": lambda x, w: grad(lambda y: (y * y * y * w).sum())(x),
    "value": lambda x, w: value_and_grad(lambda y: (y * y * x * w).sum())(x)[0],
    "vjp": lambda x, w: vjp(lambda y: y * y * x, x)[1](w)[0],
    "vjp, output": lambda x, w: vjp(lambda y: y * x * w, X)[0],
    "jvp": lambda x, w: jvp(lambda y: y * y * w * x, (x,), (V,))[1],
    "jvp, tangent": lambda x, w: jvp(lambda y: y * y, (X,), (x * w,))[1],
    "jvp, output": lambda x, w: jvp(lambda y: y * w, (x,), (V,))[0],
    "jacobian": lambda x, w: jacobian(lambda y: y * y * w)(x).sum(axis=1),
    "hessian": lambda x, w: hessian(lambda y: (y * y * y * w).sum())(x).sum(axis=0),
    "hvp": lambda x, w: hvp(lambda y: (y * y * y * w).sum(), (x,), (V * w,))[0],
    "aux": lambda x, w: grad(lambda y: ((y * y).sum(), y * w * x), has_aux=True)(x)[1],
}
PLAIN: dict[str, Callable[..., Any]] = {  # the same, written out
    "grad": lambda x, w: 2 * X * x * w,
    "grad of the argument": lambda x, w: 3 * x * x * w,
    "value": lambda x, w: (x * x * x * w).sum(),
    "vjp": lambda x, w: 2 * x * x * w,
    "vjp, output": lambda x, w: X * x * w,
    "jvp": lambda x, w: 2 * x * V * w * x,
    "jvp, tangent": lambda x, w: 2 * X * x * w,
    "jvp, output": lambda x, w: x * w,
    "jacobian": lambda x, w: 2 * x * w,
    "hessian": lambda x, w: 6 * x * w,
    "hvp": lambda x, w: 6 * x * w * V * w,
    "aux": lambda x, w: x * w * x,
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_an_inner_transform_is_differentiated_by_an_outer_one_and_by_backward(name: str) -> None:
    """By the arguments of the inner one, and by what its function is a closure of."""
    fn, plain = TRANSFORMED[name], PLAIN[name]
    assert not fn(X, Tensor(Y)).requires_grad, "nothing requires a gradient"
    inner_leaves, leaves = ([Tensor(X, requires_grad=True), Tensor(Y, requires_grad=True)] for _ in range(2))
    out, expected = fn(*inner_leaves), plain(*leaves)
    same(out, expected)
    (out * out).sum().backward()
    (expected * expected).sum().backward()
    if name in ("vjp, output", "grad", "jvp, tangent"):
        assert inner_leaves[0].grad is not None
    same([t.grad for t in inner_leaves], [t.grad for t in leaves])
    for outer in (jacobian, hessian):
        found, wanted = outer(fn, (0, 1))(X, Y), outer(plain, (0, 1))(X, Y)
        same(found, wanted)
        assert not any(t.requires_grad for row in found for t in (row if isinstance(row, tuple) else (row,)))
    same(jvp(fn, (X, Y), (V, X)), jvp(plain, (X, Y), (V, X)))
    same(vjp(fn, X, Y)[1](fn(X, Y)), vjp(plain, X, Y)[1](fn(X, Y)))


@pytest.mark.parametrize("name", TRANSFORMED)
def test_no_grad_outside_changes_no_value_and_leaves_no_history(name: str) -> None:
    x, w = Tensor(X, requires_grad=True), Tensor(Y, requires_grad=True)
    with tg.no_grad():
        found, second = TRANSFORMED[name](x, w), jacobian(TRANSFORMED[name], (0, 1))(x, w)
    assert not found.requires_grad and not any(t.requires_grad for t in second)
    same(found, PLAIN[name](X, Y))
    same(second, jacobian(PLAIN[name], (0, 1))(X, Y))
    assert x.grad is None and w.grad is None


def test_no_grad_outside_with_several_arguments_and_outputs() -> None:
    def fn(x: Any, y: Any) -> Any:
        return x * y, (x * x).sum(), y

    with tg.no_grad():
        same(jvp(fn, (X, Y), (V, V))[1], [V * Y + X * V, np.array(2 * X @ V), V])
        same(vjp(fn, X, Y)[1]((V, 1.0, V)), [V * Y + 2 * X, V * X + V])
        same(hvp(lambda x, y: (x * y * y).sum(), (X, Y), (V, V)), [2 * Y * V, 2 * (Y + X) * V])


def test_a_graph_of_the_user_is_not_freed() -> None:
    w = Tensor(Y, requires_grad=True)
    outer = w * w
    for mode in (tg.no_grad(), nullcontext()):
        with mode:
            same(grad(lambda x: (x * x * outer).sum())(X), 2 * X * Y**2)
            same(vjp(lambda x: x * outer, X)[1](V), [V * Y**2])
    outer.sum().backward()
    same(w.grad, 2 * Y)


def test_no_grad_inside_cuts_as_everywhere() -> None:
    def cut(x: Tensor) -> Tensor:
        with tg.no_grad():
            slope = grad(lambda y: (y * y * x).sum())(x)
        return (slope * x).sum()

    same(grad(cut)(X), 2 * X * X)


def test_variables_of_nested_transforms_are_not_confused() -> None:
    assert grad(lambda x: x * grad(lambda y: x + y)(1.0))(2.0).item() == 1.0
    assert grad(lambda x: x * jvp(lambda y: x * y, (3.0,), (1.0,))[1])(2.0).item() == 4.0
    x = Tensor(2.0, requires_grad=True)
    assert grad(lambda y: x * y)(x).item() == 2.0, "x itself is not the variable"
    assert grad(lambda y: y * y)(x).item() == 4.0 and x.grad is None


def test_a_penalty_on_gradients_reaches_the_weights() -> None:
    """The engine's own double backward pass computes the same."""
    layer = tg.nn.Linear(3, 3, rng=np.random.default_rng(0), dtype=np.float64)
    slopes = grad(lambda x: layer(x).tanh().sum())(A)
    (slopes * slopes).sum().backward()
    found = layer.weight.grad
    layer.weight.grad, x = None, Tensor(A, requires_grad=True)
    (expected,) = tg.grad(layer(x).tanh().sum(), [x], create_graph=True)
    (expected * expected).sum().backward()
    same(found, layer.weight.grad)


def test_a_pullback_may_be_called_again_and_anywhere() -> None:
    out, vjp_fn = vjp(lambda x: x * x * x, X)
    first = vjp_fn(Y)
    same(first, vjp_fn(Y), 0, 0)
    assert not out.requires_grad and not first[0].requires_grad
    same(jacobian(lambda c: vjp_fn(c)[0])(Y), np.diag(3 * X * X))
    cotangent = Tensor(Y, requires_grad=True)
    vjp_fn(cotangent)[0].sum().backward(retain_graph=True)
    same(cotangent.grad, 3 * X * X)
    with tg.no_grad():
        assert not vjp_fn(cotangent)[0].requires_grad


@pytest.mark.parametrize("fn", [lambda x: 3.0, lambda x: Tensor(3.0), lambda x: (0 * X).sum()], ids="abc")
def test_what_does_not_depend_has_derivatives_of_zero(fn: Callable[..., Any]) -> None:
    same(grad(fn)(X), 0 * X)
    same(jvp(fn, (X,), (V,))[1], np.array(0.0))
    same(vjp(fn, X)[1](1.0), [0 * X])
    same(hvp(fn, (X,), (V,)), [0 * X])
    same(hessian(fn)(X), np.zeros((3, 3)))
    same(hessian(lambda x: (x * Y).sum() + fn(x))(X), np.zeros((3, 3)))
    same(jacobian(lambda x, y: x * 2, 1)(X, A), np.zeros((3, 3, 3)))
    same(grad(lambda x, y: grad(lambda x: (x * y).sum())(x).sum())(X, Y), 0 * X)


def test_masks_select() -> None:
    """What is not passed on is 0 in every transform, also where the cotangent is infinite."""
    x, huge = np.array([-1.0, 2.0]), np.array([np.inf, 1.0])
    same(vjp(tg.relu, x)[1](huge), [np.array([0.0, 1.0])])
    same(jvp(tg.relu, (x,), (huge,))[1], np.array([0.0, 1.0]))
    with np.errstate(divide="ignore"):  # the slope of sqrt at 0
        same(grad(lambda x: tg.sqrt(tg.relu(x)).sum())(np.array([-1.0, 4.0])), np.array([0.0, 0.25]))


# Arguments and results ------------------------------------------------------------------------------------------------
class Point(NamedTuple):
    x: Any
    y: Any


def test_trees_keep_their_structure() -> None:
    tree = {"b": [X, (Y, None)], "a": OrderedDict(z=A), "p": Point(2.0, [])}

    def fn(t: Any) -> Any:
        assert isinstance(t["a"], OrderedDict) and t["p"].y == [] and t["b"][1][1] is None
        return (t["b"][0] * t["b"][1][0]).sum() * t["p"].x + (t["a"]["z"] ** 2).sum()

    found = grad(fn)(tree)
    assert [*found] == ["b", "a", "p"] and isinstance(found["b"], list) and found["b"][1][1] is None
    assert isinstance(found["a"], OrderedDict) and isinstance(found["p"], Point) and found["p"].y == []
    same(found, [2.0 * Y, 2.0 * X, 2 * A, np.array(X @ Y)])
    assert tree["b"][0] is X and isinstance(tree["p"].x, float), "the arguments are as they were"
    shifted = {"p": Point(1.0, ()), "b": ([0 * X, [0 * Y, None]]), "a": {"z": 0 * A}}  # another order of the keys
    same(jvp(fn, (tree,), (shifted,))[1], np.array(X @ Y))
    nested = hessian(fn)(tree)
    same(nested["p"].x["b"][0], Y)
    same(nested["a"]["z"]["a"]["z"], 2 * np.eye(9).reshape(3, 3, 3, 3))
    outputs = jacobian(lambda t: {"s": t["b"][0], "n": (None, t["p"].x * 2)})(tree)
    same(outputs["s"]["b"][0], np.eye(3))
    same(outputs["n"][1]["p"].x, np.array(2.0))


def test_dtypes_are_those_of_the_arguments() -> None:
    single = {"w": X.astype(np.float32), "b": np.float32(1)}

    def fn(p: Any, x: Any) -> Any:
        return {"low": tg.tanh(p["w"]) * 2, "high": p["w"].astype(np.float64).sum() * x}

    def kinds(tree: Any) -> list[str]:
        return [str(v.dtype) for v in values(tree)]

    assert kinds(jvp(fn, (single, 2.0), (single, 1.0))[1]) == ["float32", "float64"]
    assert kinds(jacobian(fn, (0, 1))(single, 2.0)) == ["float32", "float32", "float64"] * 2
    assert kinds(vjp(fn, single, 2.0)[1](fn(single | {"w": tg.as_tensor(single["w"])}, 2.0))) == [
        *["float32"] * 2,
        "float64",
    ]
    loss = lambda p: (tg.exp(p["w"]) * 2.0).sum()  # noqa: E731
    assert {*kinds(grad(loss)(single)), *kinds(hessian(loss)(single)), *kinds(hvp(loss, (single,), (single,)))} == {
        "float32"
    }
    half = X.astype(np.float16)
    assert kinds(grad(lambda x: (x * x).sum())(half)) == ["float16"]


def test_argnums_and_keywords() -> None:
    def fn(x: Any, y: Any, *, power: int) -> Any:
        return (x**power * y).sum()

    first, second = 2 * X * Y, X**2
    for argnums, expected in [(0, first), (1, second), (-1, second), ((1, 0), [second, first]), ([-2], [first])]:
        found = grad(fn, argnums)(X, Y, power=2)
        same(found, expected)
        assert isinstance(found, tuple) == isinstance(argnums, (tuple, list))
        same(jacobian(fn, argnums)(X, Y, power=2), expected)
    same(grad(fn, np.int64(1))(X, Y, power=2), second)
    same(hessian(fn, (0, -1))(X, Y, power=2)[0][1], np.diag(2 * X))
    same(grad(lambda n, x: x * n, 1)(3, 2.0), np.array(3.0))  # the integer is passed on


def test_aux_is_returned_beside() -> None:
    def fn(x: Any) -> Any:
        return (x * x).sum(), {"x": x, "twice": [2 * x], "text": "as it is", "n": 3}

    results = [
        grad(fn, has_aux=True)(X)[1],
        value_and_grad(fn, has_aux=True)(X)[0][1],
        jacobian(fn, has_aux=True)(X)[1],
        vjp(fn, X, has_aux=True)[2],
        jvp(fn, (X,), (V,), has_aux=True)[2],
    ]
    for aux in results:
        assert aux["text"] == "as it is" and aux["n"] == 3
        same([aux["x"], aux["twice"]], [X, 2 * X])
        assert not aux["x"].requires_grad and not aux["twice"][0].requires_grad
    same(grad(fn, has_aux=True)(X)[0], 2 * X)
    same(value_and_grad(fn, has_aux=True)(X)[0][0], np.array(X @ X))
    same(jvp(fn, (X,), (V,), has_aux=True)[:2], [np.array(X @ X), np.array(2 * X @ V)])


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 0, 1)])
def test_empty_arrays_and_trees(shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, np.float32)
    same(grad(lambda x: (x * x).sum())(x), x)
    same(jacobian(lambda x: x * x)(x), np.zeros(shape + shape, np.float32))
    same(hessian(lambda x: x.sum())(x), np.zeros(shape + shape, np.float32))
    same(jvp(lambda x: (x, x.sum()), (x,), (x,))[1], [x, np.float32(0)])
    same(jacobian(lambda y, x: x * y.sum())(X, x), np.zeros((*shape, 3)))
    assert grad(lambda p: (Tensor(X) ** 2).sum())({}) == {} and jacobian(lambda p: tg.exp(X))([]) == []
    assert jvp(lambda x: {}, (X,), (V,)) == ({}, {}) and vjp(lambda x: (), X)[1](())[0].data.tolist() == [0, 0, 0]


def test_memory_orders() -> None:
    x = np.asfortranarray(np.random.default_rng(0).normal(size=(2, 3, 4))).transpose(1, 0, 2)
    same(grad(lambda x: (x**3).sum())(x), 3 * x**2)
    same(jacobian(lambda x: x[1] ** 2)(x), jacobian(lambda x: x[1] ** 2)(np.ascontiguousarray(x)))
    same(jvp(lambda x: x.transpose() ** 2, (x,), (x,))[1], 2 * x.T**2)


def test_nothing_that_is_given_changes() -> None:
    x, v = X.copy(), V.copy()
    x.flags.writeable = v.flags.writeable = False
    t = Tensor(X, requires_grad=True)
    for transformed in (grad(lambda x: (x * x).sum()), hessian(lambda x: (x * x).sum()), jacobian(lambda x: x)):
        for result in (transformed(x), transformed(t)):
            assert not any(np.shares_memory(r, a) for r in values(result) for a in (x, t.data))
    jvp(lambda x: x * x, (x,), (v,))
    vjp(lambda x: x * x, x)[1](v)
    assert t.grad is None and np.array_equal(t.data, X)


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: grad(lambda x: x)(X), ValueError, r"grad: fn must return one number, not one of shape \(3,\); reduce it"),
    (lambda: grad(lambda x: (x, x))(1.0), ValueError, "grad: fn must return one number, not a tuple.*has_aux=True"),
    (lambda: grad(lambda x: None)(1.0), ValueError, "grad: fn must return one number, not a NoneType"),
    (lambda: value_and_grad(lambda x: x)(X), ValueError, "value_and_grad: fn must return one number"),
    (lambda: hvp(lambda x: x, (X,), (V,)), ValueError, "hvp: fn must return one number"),
    (lambda: grad(lambda x: x.argmax())(X), TypeError, "grad: the output is int64, which carries no gradient"),
    (lambda: jacobian(lambda x: [x, x > 0])(X), TypeError, r"jacobian: the output\[1\] is bool"),
    (lambda: grad(lambda x: x)(3), TypeError, "grad: argument 0 is int64.*convert it to floats, or leave it out"),
    (lambda: hessian(lambda x, p: x, 1)(1.0, {"n": [1, 2]}), TypeError, r"hessian: argument 1\['n'\]\[0\] is int64"),
    (lambda: grad(lambda x: x)("one"), TypeError, "grad: argument 0: cannot compute with str"),
    (lambda: grad(lambda x: "one")(1.0), TypeError, "grad: the output: cannot compute with str"),
    (lambda: grad(lambda x: x, 1)(1.0), ValueError, "grad: argnums is 1, but fn got 1 arguments by position"),
    (lambda: grad(lambda x: x)(), ValueError, "grad: argnums is 0, but fn got 0 arguments"),
    (lambda: grad(lambda x: x, -2)(1.0), ValueError, "grad: argnums is -2; it must be an integer of at least -1"),
    (lambda: hessian(lambda x: x.sum(), X), TypeError, r"hessian: argnums is a ndarray; .* hessian\(fn\)\(x\)"),
    (lambda: func.functional_call(tg.nn.Linear(2, 2), X), TypeError, "call: params is a ndarray; it must be a d"),
    (lambda: grad(lambda x: x, True)(1.0), TypeError, "grad: argnums is True; it must be an integer"),
    (lambda: grad(lambda x: x, 0.0)(1.0), TypeError, "grad: argnums is 0.0; it must be an integer"),
    (lambda: jacobian(lambda x: x, (0, "y"))(1.0), TypeError, r"jacobian: argnums\[1\] is 'y'"),
    (lambda: grad(lambda x, y: x, (0, -2))(1.0, 1.0), ValueError, "grad: argnums is .* names an argument twice"),
    (lambda: grad(lambda x: x, has_aux=True)(1.0), TypeError, r"grad: with has_aux, fn must return a pair.*a Tensor"),
    (lambda: vjp(lambda x: (x, x, x), 1.0, has_aux=True), TypeError, "vjp: with has_aux.*not a tuple of length 3"),
    (
        lambda: jvp(lambda x: x, X, V),
        TypeError,
        r"jvp: primals must be a tuple of arguments, not a ndarray; pass \(x,\)",
    ),
    (lambda: jvp(lambda x: x, (X,), V), ValueError, "jvp: tangents is a ndarray; it must be a tuple of length 1"),
    (lambda: jvp(lambda x: x, (X,), (V, V)), ValueError, "jvp: tangents is a tuple of length 2; .* of length 1"),
    (
        lambda: jvp(lambda x: x, (X,), (V[:2],)),
        ValueError,
        r"jvp: tangents\[0\] has shape \(2,\); it must have shape \(3,\)",
    ),
    (
        lambda: jvp(lambda x: x, ({"w": X},), ({"v": X},)),
        ValueError,
        r"jvp: tangents\[0\] is a dict with the keys \['v'\]",
    ),
    (
        lambda: jvp(lambda x: x["w"], ({"w": X},), (X,)),
        ValueError,
        r"tangents\[0\] is a ndarray; it must be a dict with",
    ),
    (lambda: hvp(lambda x: x.sum(), (X,), (None,)), TypeError, r"hvp: tangents\[0\]: cannot compute with NoneType"),
    (lambda: vjp(lambda x: x, X)[1](1.0), ValueError, r"vjp: the cotangent has shape \(\); it must have shape \(3,\)"),
]


@pytest.mark.parametrize(("call", "kind", "words"), WRONG, ids=range(len(WRONG)))
def test_mistakes_are_named(call: Callable[[], Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call()


def test_threads_do_not_disturb_each_other() -> None:
    """A thread that records nothing, and transforms in others, at the same time; a pool inside a transform."""
    go = threading.Barrier(4)

    def work(number: int) -> list[np.ndarray]:
        go.wait()
        found = []
        for i in range(20):
            if number % 2:
                with tg.no_grad():
                    found.append(hessian(lambda x: (tg.tanh(x) ** 3).sum() * number)(X + i).data)
            else:
                found.append(hessian(lambda x: (tg.tanh(x) ** 3).sum() * number)(X + i).data)
        return found

    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(work, range(4))):
            expected = [hessian(lambda x: (tg.tanh(x) ** 3).sum() * number)(X + i) for i in range(20)]  # noqa: B023
            same(found, expected, 0, 0)

        def pooled(x: Tensor) -> Tensor:
            inner = pool.map(lambda w: grad(lambda y: (y**3 * w).sum())(x), [1.0, 2.0])
            return sum((t.sum() for t in inner), Tensor(0.0))

        same(grad(pooled)(X), 18 * X)


# Others ---------------------------------------------------------------------------------------------------------------
def smooth(lib: Any, x: Any, y: Any) -> Any:
    return (lib.tanh(x * y) * lib.exp(-y * y)).sum() + (lib.sin(x) ** 2 * y).sum()


def forest(lib: Any, p: Any) -> Any:
    return {"a": lib.tanh(p["w"] * p["b"]), "c": [p["w"].sum(), lib.exp(p["b"]) * p["w"]]}


def compare_with(lib: Any, convert: Callable[[Any], Any], transforms: Any, jacobian_of: Any) -> None:
    x, y, v = map(convert, (X, Y, V))
    ours, theirs = (lambda *xs: smooth(tg, *xs)), (lambda *xs: smooth(lib, *xs))
    same(grad(ours, (0, 1))(X, Y), transforms.grad(theirs, (0, 1))(x, y))
    same(hessian(ours, (0, 1))(X, Y), transforms.hessian(theirs, (0, 1))(x, y))
    same(jacobian(hessian(ours))(X, Y), jacobian_of(transforms.hessian(theirs))(x, y))
    same(jvp(ours, (X, Y), (V, X)), transforms.jvp(theirs, (x, y), (v, x)))
    same(vjp(ours, X, Y)[1](2.0), transforms.vjp(theirs, x, y)[1](convert(np.array(2.0))))
    mine, other = (lambda p: forest(tg, p)), (lambda p: forest(lib, p))
    p, q, dp, dq = {"b": Y, "w": X}, {"b": y, "w": x}, {"b": X, "w": V}, {"b": x, "w": v}  # JAX sorts the keys
    same(jvp(mine, (p,), (dp,)), transforms.jvp(other, (q,), (dq,)))
    same(jacobian(mine)(p), jacobian_of(other)(q))
    same(hessian(mine)(p), transforms.hessian(other)(q))
    same(vjp(mine, p)[1](mine(p)), transforms.vjp(other, q)[1](other(q)))
    nested = [
        jacobian(lambda x: jvp(lambda x: tg.exp(x * x), (x,), (x * V,))[1])(X),
        jvp(lambda x: vjp(lambda x: tg.exp(x * x), x)[1](x)[0], (X,), (V,))[1],
        grad(lambda y: (grad(lambda x: tg.tanh(x * y).sum())(X) ** 2).sum())(Y),
    ]
    same(nested[0], jacobian_of(lambda x: transforms.jvp(lambda x: lib.exp(x * x), (x,), (x * v,))[1])(x))
    same(nested[1], transforms.jvp(lambda x: transforms.vjp(lambda x: lib.exp(x * x), x)[1](x)[0], (x,), (v,))[1])
    same(nested[2], transforms.grad(lambda y: (transforms.grad(lambda x: lib.tanh(x * y).sum())(x) ** 2).sum())(y))


def test_torch_computes_the_same() -> None:
    torch = pytest.importorskip("torch")  # for comparison only: no dependency of the project
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        compare_with(torch, lambda x: torch.tensor(np.array(x)), torch.func, torch.func.jacrev)


def test_jax_computes_the_same() -> None:
    jax = pytest.importorskip("jax")  # for comparison only: no dependency of the project
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jax.config.update("jax_enable_x64", True)
        compare_with(jax.numpy, jax.numpy.asarray, jax, jax.jacrev)


# Errors are found -----------------------------------------------------------------------------------------------------
def three(x: Any, y: Any) -> Any:
    """A function whose derivatives of all kinds differ."""
    return tg.tanh(x @ A) * y, (x * y * y).sum(), tg.exp(y[:2])


def check_all() -> None:
    rng = np.random.default_rng(0)
    check_identities(three, [X, Y], rng)
    check_second_order(three, [X, Y], rng)
    for name in TRANSFORMED:
        test_an_inner_transform_is_differentiated_by_an_outer_one_and_by_backward(name)
        test_no_grad_outside_changes_no_value_and_leaves_no_history(name)
    test_dtypes_are_those_of_the_arguments()


def mutations() -> Iterator[tuple[str, str, Any]]:
    pull, join, split = func._pull, func._join, func._split
    yield "a factor", "_pull", lambda *how, **more: [g * (1 + 1e-6) for g in pull(*how, **more)]
    yield "one input forgotten", "_pull", lambda *how, **more: [g * (i < 1) for i, g in enumerate(pull(*how, **more))]
    yield "the order of outputs", "_join", lambda parts: join(parts[::-1])
    yield "cut off by one", "_split", lambda rows, parts: split(tg.concatenate([rows[1:], rows[:1]]), parts)
    yield "no history", "_Call.history", lambda self, *directions: False
    yield "tangents without history", "_Call.history", lambda self, *directions: tg.record.mode.recording and self.open
    yield "always a history", "_Call.history", lambda self, *directions: True
    yield "never open", "_Call._is_open", lambda self, t: False
    yield "always open", "_Call._is_open", lambda self, t: t.requires_grad
    yield "variables of their own", "copy", lambda t: Tensor(t.data, requires_grad=True)
    yield "results keep their history", "_Call.finished", lambda self, result: result
    yield "the caller's mode", "recording", lambda on: tg.record.recording(tg.record.mode.recording)
    yield "left alive", "_Call.__exit__", lambda self, *error: None
    yield (
        "primals in another order",
        "_Call._positions",
        lambda self, argnums, count: call_positions(self, argnums, count),
    )


def call_positions(self: Any, argnums: Any, count: int) -> list[int]:
    return [n % count for n in argnums][::-1] if not isinstance(argnums, int) else [argnums % count]


MUTATIONS = [*mutations()]


def test_the_checks_pass() -> None:
    check_all()


@pytest.mark.parametrize(("name", "wrong"), [m[1:] for m in MUTATIONS], ids=[m[0] for m in MUTATIONS])
def test_a_wrong_transform_is_found(name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"tinygrad_mnist.func.{name}", wrong)
    with pytest.raises((AssertionError, RuntimeError)):
        check_all()


@pytest.mark.parametrize(
    "transform",
    [
        lambda op: lambda x: grad(lambda x: (op(x) * Y[:2]).sum())(x),
        lambda op: lambda x: jvp(op, (x,), (V[:2],))[1],
        lambda op: lambda x: vjp(op, x)[1](Y[:2])[0],
        lambda op: jacobian(op),
        lambda op: lambda x: hvp(lambda x: op(x).sum(), (x,), (V[:2],))[0],
    ],
    ids=["grad", "jvp", "vjp", "jacobian", "hvp"],
)
def test_a_wrong_rule_inside_is_found(transform: Callable[..., Any]) -> None:
    """The rule is right, and its derivative is not; so is the first derivative of what the transform computes."""
    right = with_rule(tg.tanh, lambda right, g, out, x: right)
    wrong = with_rule(tg.tanh, lambda right, g, out, x: g * (1 - out.detach() * out))
    same(grad(lambda x: wrong(x).sum())(X), grad(lambda x: tg.tanh(x).sum())(X))
    check_gradients(transform(right), X[:2])
    with pytest.raises(tg.testing.GradientMismatch):
        check_gradients(transform(wrong), X[:2])
