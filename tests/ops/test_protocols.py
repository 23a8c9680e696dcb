"""NumPy's functions on Tensors: run as ops, computed where there is no derivative, or refused; never a history lost."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_checks import Array, dtypes, seeds, some

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.ops.protocols import TABLE
from tinygrad_mnist.record import recording
from tinygrad_mnist.testing import check_gradients

# Calls of what takes more than arrays; x has shape (2, 3), y (3,). All else is called as f(x), ufuncs as f(x, y), too.
CALLS: dict[str, list[Callable[..., Any]]] = {
    "amax": [lambda f, x: f(x, axis=1), lambda f, x: f(x, 0, keepdims=True)],
    "amin": [lambda f, x: f(x, axis=1), lambda f, x: f(a=x)],
    "argmin": [lambda f, x: f(x), lambda f, x: f(x, axis=1), lambda f, x: f(x, 0, keepdims=True)],
    "argsort": [lambda f, x: f(x), lambda f, x: f(x, 0, kind="stable"), lambda f, x: f(x, axis=None)],
    "array_split": [lambda f, x: f(x, 2, axis=1)[0], lambda f, x: f(ary=x, indices_or_sections=2)[1]],
    "astype": [lambda f, x: f(x, np.float64), lambda f, x: f(x, float, copy=True)],
    "broadcast_to": [lambda f, x: f(x, (2, 2, 3)), lambda f, x: f(x, shape=(1, 2, 3))],
    "cholesky": [lambda f, x: f(x @ x.T + np.eye(2)), lambda f, x: f(x @ x.T + np.eye(2), upper=True)],
    "clip": [
        lambda f, x: f(x, 1.0, 1.5),
        lambda f, x: f(x, None, a_max=1.4),
        lambda f, x: f(x, min=1.2),
        lambda f, x, y: f(x, y, 1.6),
    ],
    "concatenate": [
        lambda f, x: f((x, x * 2)),
        lambda f, x, y: f([x, y[:, None].T], axis=0),
        lambda f, x: f([x, x], 1),
    ],
    "cumprod": [lambda f, x: f(x), lambda f, x: f(x, 1), lambda f, x: f(x, axis=-2)],
    "cumsum": [lambda f, x: f(x), lambda f, x: f(x, 1), lambda f, x: f(x, axis=-2)],
    "det": [lambda f, x: f(x[:, :2] + 2 * np.eye(2))],
    "diag": [lambda f, x: f(x), lambda f, y: f(y, k=-1)],
    "diagonal": [lambda f, x: f(x), lambda f, x: f(x[None], offset=1)],
    "divmod": [lambda f, x, y: f(x, y)[0], lambda f, x, y: f(x, y)[1], lambda f, x: f(2, x)[1]],
    "dot": [
        lambda f, x, y: f(x, y),
        lambda f, y: f(y, y),
        lambda f, x: f(x.T, x),
        lambda f, x: f(x, np.sum(x)),
        lambda f, x: f(x, x.T[None]),
    ],
    "einsum": [
        lambda f, x, y: f("ij,j->i", x, y),
        lambda f, x, y: f("ij,j,ik", x, y, x, optimize=True),
        lambda f, x: f(x, [0, 1], x, [0, 2], [1, 2]),
    ],
    "expand_dims": [lambda f, x: f(x, 1), lambda f, x: f(x, axis=(0, -1))],
    "flip": [lambda f, x: f(x), lambda f, x: f(x, axis=(0, 1)), lambda f, x: f(m=x, axis=1)],
    "inv": [lambda f, x: f(x[None, :, :2] + 2 * np.eye(2))],
    "matmul": [lambda f, x, y: f(x, y), lambda f, x: f(x, x.T)],
    "max": [lambda f, x: f(x), lambda f, x: f(x, axis=(0, 1)), lambda f, x: f(x, 0, None, True)],
    "mean": [lambda f, x: f(x), lambda f, x: f(x, 1), lambda f, x: f(x, axis=0, dtype=None, keepdims=True)],
    "median": [lambda f, x: f(x), lambda f, x: f(x, 1), lambda f, x: f(x, axis=(0, 1), keepdims=True)],
    "min": [lambda f, x: f(x), lambda f, x: f(x, axis=-1, keepdims=False)],
    "moveaxis": [lambda f, x: f(x[None], 0, -1), lambda f, x: f(x[None], (0, 1), (2, 0))],
    "norm": [
        lambda f, x: f(x),
        lambda f, x: f(x, "fro", keepdims=True),
        lambda f, x: f(x, 3, 0),
        lambda f, x: f(x=x, ord=np.inf, axis=(0, 1)),
    ],
    "outer": [lambda f, x, y: f(x[0], y), lambda f, y: f(y, y)],
    "pad": [lambda f, x: f(x, ((1, 0), (0, 2))), lambda f, x: f(x, 1, mode="constant", constant_values=2.5)],
    "prod": [lambda f, x: f(x), lambda f, x: f(x, 1), lambda f, x: f(x, axis=(0, -1), keepdims=True)],
    "repeat": [lambda f, x: f(x, 2), lambda f, x: f(a=x, repeats=[1, 2], axis=0)],
    "reshape": [lambda f, x: f(x, -1), lambda f, x: f(x, (3, 2)), lambda f, x: f(x, shape=(1, 6), order="C")],
    "roll": [lambda f, x: f(x, 1), lambda f, x: f(x, shift=(1, 2), axis=(0, 1))],
    "sort": [lambda f, x: f(x), lambda f, x: f(x, 0), lambda f, x: f(x, axis=None), lambda f, x: f(x, kind="stable")],
    "slogdet": [lambda f, x: f(x[:, :2] + 2 * np.eye(2))[1], lambda f, x: f(x[:, :2] + 2 * np.eye(2)).sign],
    "solve": [lambda f, x, y: f(x[:, :2] + 2 * np.eye(2), y[:2]), lambda f, x: f(x[:, :2] + 2 * np.eye(2), x)],
    "split": [lambda f, x: f(x, 3, axis=1)[1], lambda f, x: f(x, [1])[0]],
    "squeeze": [lambda f, x: f(x[None]), lambda f, x: f(x[:, None], axis=1)],
    "stack": [lambda f, x: f([x, x * x]), lambda f, x, y: f((y, x[0] * 2), axis=-1)],
    "std": [lambda f, x: f(x), lambda f, x: f(x, 1, ddof=1), lambda f, x: f(x, axis=0, correction=1, keepdims=True)],
    "sum": [lambda f, x: f(x), lambda f, x: f(x, axis=1, keepdims=True), lambda f, x: f(x, (0, -1))],
    "swapaxes": [lambda f, x: f(x, 0, 1), lambda f, x: f(x, axis1=-1, axis2=0)],
    "tensordot": [lambda f, x: f(x, x), lambda f, x, y: f(x, y, axes=1), lambda f, x: f(x, x, axes=((0,), [0]))],
    "trace": [lambda f, x: f(x), lambda f, x: f(x[None] * x[:, None], offset=1)],
    "take": [lambda f, x: f(x, [0, 0, -1]), lambda f, x: f(x, [[1]], 1), lambda f, x: f(x, 1, axis=0, mode="raise")],
    "take_along_axis": [lambda f, x: f(x, np.argsort(x), 1), lambda f, x: f(arr=x, indices=np.array([[-1]]), axis=0)],
    "tile": [lambda f, x: f(x, 2), lambda f, x: f(A=x, reps=(2, 1, 2))],
    "transpose": [lambda f, x: f(x), lambda f, x: f(x, (1, 0)), lambda f, x: f(x[None], axes=(2, 0, 1))],
    "tril": [lambda f, x: f(x), lambda f, x: f(x, 1), lambda f, y: f(m=y, k=-1)],
    "triu": [lambda f, x: f(x), lambda f, x: f(x, 1), lambda f, y: f(m=y, k=-1)],
    "var": [lambda f, x: f(x), lambda f, x: f(x, 1, ddof=1), lambda f, x: f(x, axis=0, correction=1, keepdims=True)],
    "where": [
        lambda f, x, y: f([True, False, True], x, y),
        lambda f, x: f(x > 1.2, x, 0),
        lambda f, x, y: f(y < 1.2, 1, x),
    ],
}


def leaf(*values: Any, dtype: Any = np.float64) -> Tensor:
    return Tensor(np.array(values[0] if len(values) == 1 else values, dtype), requires_grad=True)


def check(call: Callable[..., Any], function: Any, xy: tuple[Array, Array], rng: np.random.Generator) -> None:
    """Compare ``call(function, ...)`` of Tensors with that of arrays, and its gradient with a difference of those."""
    names = call.__code__.co_varnames[1 : call.__code__.co_argcount]
    values = [xy["xy".index(name)] for name in names]
    leaves = [Tensor(value, requires_grad=value.dtype.kind == "f") for value in values]
    out, expected = call(function, *leaves), np.asarray(call(function, *values))
    assert type(out) is Tensor and (out.shape, out.dtype) == (expected.shape, expected.dtype)
    tolerance = 1e-12 if out.dtype == np.float64 else 1e-6
    np.testing.assert_allclose(out.data, expected, rtol=tolerance)
    assert out.requires_grad == (out.dtype.kind == "f" and leaves[0].requires_grad)
    for i, t in enumerate(leaves):  # arrays in the place of all others
        plain = [t if i == j else value for j, value in enumerate(values)]
        if len(values) > 1:
            assert np.array_equal(call(function, *plain).data, out.data) and type(call(function, *plain)) is Tensor
    if out.requires_grad:
        probe, directions = rng.normal(size=out.shape), [1e-6 * rng.normal(size=v.shape) for v in values]
        after, before = ([v + s * d for v, d in zip(values, directions, strict=True)] for s in (1, -1))
        difference = ((call(function, *after) - call(function, *before)) * probe).sum()
        gradients = tg.grad((out * probe).sum(), leaves)
        derived = 2 * sum((g.data * d).sum() for g, d in zip(gradients, directions, strict=True))
        assert abs(derived - difference) <= (1e-11 if out.dtype == np.float64 else 1e-9), (derived, difference)


@pytest.mark.parametrize("function", TABLE, ids=lambda f: getattr(f, "__module__", "numpy") + "." + f.__name__)
@settings(some, max_examples=max(some.max_examples // 4, 2))
@given(seeds, dtypes)
def test_functions_of_numpy_run_as_ops(function: Any, seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    x = rng.permutation(np.linspace(1.05, 1.95, 6)).reshape(2, 3).astype(dtype)
    y = rng.permutation(np.linspace(1.1, 1.8, 3)).astype(dtype)
    calls = CALLS.get(function.__name__, [])
    if isinstance(function, np.ufunc) and not calls:
        if not any(kinds.startswith("f") for kinds in function.types):  # of bits
            x, y = (10 * x).astype(np.int64), (10 * y).astype(np.int64)
        calls = [lambda f, x, y: f(x, y), lambda f, x: f(2, x)] if function.nin == 2 else [lambda f, x: f(x)]
    for call in calls or [lambda f, x: f(x)]:
        try:
            check(call, function, (x, y), rng)
        except TypeError as error:
            raise AssertionError(
                f"{function.__name__} needs other arguments? State calls in CALLS of this file"
            ) from error


def test_every_op_that_numpy_has_is_found() -> None:
    """By name, aliases included; so an op that is added needs no entry anywhere."""
    ours = {name for name in dir(tg) if isinstance(getattr(tg, name), tg.Primitive)}
    assert {name for name in ours if hasattr(np, name)} <= {f.__name__ for f in TABLE} | {"abs"}
    for alias in (np.abs, np.absolute, np.concat, np.permute_dims, np.true_divide, np.pow, np.linalg.matmul, np.amax):
        assert alias in TABLE


def test_code_written_with_numpy_is_differentiated() -> None:
    w = leaf(0.5, 2.0, 3.0)
    assert tg.grad((w + np.where(w > 1, w, 0)).sum(), [w])[0].data.tolist() == [1.0, 2.0, 2.0]

    def loss(lib: Any, w: Any) -> Any:
        h = lib.tanh(lib.dot(np.arange(6.0).reshape(2, 3), w) / 8)
        return lib.sum(lib.square(lib.concatenate([h, lib.maximum(w, 1.0)]))) + lib.mean(lib.exp(-w))

    check_gradients(lambda w: loss(np, w), w.data, order=2)


# No derivative: NumPy's result; or else a refusal ---------------------------------------------------------------------
NO_DERIVATIVE: dict[str, Callable[[Any], Any]] = {
    "shape": np.shape,
    "ndim": np.ndim,
    "size": np.size,
    "signbit": np.signbit,
    "argpartition": lambda t: np.argpartition(t, 1),
    "argwhere": np.argwhere,
    "where": lambda t: np.where(t > 1),
    "nonzero": np.nonzero,
    "count_nonzero": np.count_nonzero,
    "searchsorted": lambda t: np.searchsorted([0.5, 2.5], t),
    "allclose": lambda t: np.allclose(t, [0.5, 2.0]),
    "array_equal": lambda t: np.array_equal(t, [0.5, 2.0]),
    "isclose": lambda t: np.isclose([0.5, 2.1], t),
    "result_type": lambda t: np.result_type(t, np.float32),
    "array_str": np.array_str,
    "zeros_like": np.zeros_like,
    "full_like": lambda t: np.full_like(t, 3, shape=(2, 2)),
    "may_share_memory": lambda t: np.may_share_memory(t, np.zeros(2)),
}


@pytest.mark.parametrize("name", NO_DERIVATIVE)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_results_without_a_derivative_are_those_of_numpy(name: str, requires_grad: bool) -> None:
    values = np.array([0.5, 2.0], np.float32)
    got, expected = NO_DERIVATIVE[name](Tensor(values, requires_grad)), NO_DERIVATIVE[name](values)
    assert type(got) is type(expected) and getattr(got, "dtype", None) == getattr(expected, "dtype", None)
    assert np.array_equal(got, expected)


REFUSED: dict[str, Callable[..., Any]] = {
    "kron": lambda t: np.kron(t, t),
    "einsum(out)": lambda t: np.einsum("i,i->", t, t, out=np.zeros(())),
    "einsum(dtype)": lambda t: np.einsum("i,i->", t, t, dtype=np.float32),
    "linalg.svd": lambda t: np.linalg.svd(t[:, None]),
    "trunc": lambda t: np.trunc(t),
    "diff": lambda t: np.diff(t),
    "partition": lambda t: np.partition(t, 1),
    "fft.fft": lambda t: np.fft.fft(t),
    "meshgrid": lambda t: np.meshgrid(t, t),
    "unique": lambda t: np.unique(t, return_counts=True),
    "full_like": lambda t: np.full_like(np.zeros(2), t),
    "sum(dtype)": lambda t: np.sum(t, dtype=np.float32),
    "sum(out)": lambda t: np.sum(t, None, None, np.zeros(())),
    "sort(order)": lambda t: np.sort(t, order="name"),
    "take(mode)": lambda t: np.take(t, [2], mode="clip"),
    "var(mean)": lambda t: np.var(t, mean=1.0),
    "sum(where)": lambda t: np.sum(t, where=[True, False]),
    "max(initial)": lambda t: np.max(t, initial=9.0),
    "concatenate(dtype)": lambda t: np.concatenate([t, t], dtype=np.float32),
    "pad(mode)": lambda t: np.pad(t, 1, mode="edge"),
    "pad(constant_values)": lambda t: np.pad(t, 1, constant_values=(1, 2)),
    "reshape(order)": lambda t: np.reshape(t, (2, 1), order="F"),
    "exp(out)": lambda t: np.exp(t, out=np.zeros(2)),
    "exp(where)": lambda t: np.exp(t, where=[True, False]),
    "add(dtype)": lambda t: np.add(t, t, dtype=np.float32),
    "isnan(out)": lambda t: np.isnan(t, out=np.zeros(2, bool)),
    "Tensor as out": lambda t: np.add(t, 1.0, out=t),
    "Tensor as out of arrays": lambda t: np.add(1.0, np.ones(2), out=t),
    "add.reduce": lambda t: np.add.reduce(t),
    "multiply.outer": lambda t: np.multiply.outer(t, t),
    "add.accumulate": lambda t: np.add.accumulate(t),
    "add.at": lambda t: np.add.at(np.zeros(2), [0, 1], t),
    "copyto a Tensor": lambda t: np.copyto(t, np.zeros(2)),
    "fill_diagonal": lambda t: np.fill_diagonal(t[:, None], 0.0),
}
ARRAYS: dict[str, Callable[..., Any]] = {  # what reaches Tensor.__array__ alone
    "asarray": lambda t: np.asarray(t),
    "array": lambda t: np.array([t, t]),
    "array of numbers": lambda t: np.array([t[0], t[1]]),
    "nested": lambda t: np.array([[t, t], [t, t]]),
    "object": lambda t: np.array([t[0], 1.5], object),
    "full": lambda t: np.full((2,), t),
    "full with a dtype": lambda t: np.full((2,), t, dtype=np.float64),
    "dot": lambda t: np.ones(2).dot(t),
    "searchsorted": lambda t: np.ones(2).searchsorted(t),
    "vectorize": lambda t: np.vectorize(lambda v: v * 2)(t),
    "slice": lambda t: operator.setitem(np.zeros(2), slice(None), t),
    "mask": lambda t: operator.setitem(np.zeros(2), [True, False], t[0]),
    "masked": lambda t: np.ma.array([1.0, 2.0], mask=[0, 1]) + t,
    "lists": lambda t: np.where([True, False], [t[0], t[1]], 0),
    "r_": lambda t: np.r_[t, t],
    "testing": lambda t: np.testing.assert_allclose(t, [0.5, 2.0]),
    "generator": lambda t: np.random.default_rng(0).normal(t),
}


@pytest.mark.parametrize("name", REFUSED | ARRAYS)
def test_what_would_lose_history_is_refused_with_the_remedy(name: str) -> None:
    t = leaf(0.5, 2.0)
    with pytest.raises(TypeError, match=r"(tg\.\w+|\.numpy\(\))"):
        (REFUSED | ARRAYS)[name](t)
    assert t.data.tolist() == [0.5, 2.0]


@pytest.mark.parametrize("name", ARRAYS)
def test_a_tensor_without_a_gradient_is_an_array_for_others(name: str) -> None:
    values = np.array([0.5, 2.0])
    got, expected = ARRAYS[name](Tensor(values)), ARRAYS[name](values)
    assert type(got) is type(expected) and np.array_equal(got, expected)


def has_history_to_lose(result: Any) -> bool:
    """Whether there are floats in a plain result, or objects that hide them, or Tensors without their history."""
    if isinstance(result, Tensor):
        return result.dtype.kind == "f" and not result.requires_grad
    if isinstance(result, (list, tuple, dict)):
        return any(map(has_history_to_lose, result.values() if isinstance(result, dict) else result))
    if isinstance(result, (np.ndarray, np.generic)):
        return result.dtype.kind in "fcO"
    return not (result is None or isinstance(result, (bool, int, str, type, np.dtype)))


SETTERS = ("set", "test", "show", "save", "load", "from", "open", "memmap", "info", "get", "printoptions", "errstate")
NOT_OF_VALUES = ("empty_like", "full_like", "ones_like", "zeros_like", "finfo")


@pytest.mark.parametrize("module", [np, np.linalg, np.fft, np.emath, np.lib.stride_tricks], ids=lambda m: m.__name__)
def test_no_function_of_numpy_returns_plain_floats(module: Any) -> None:
    """Whatever is called on Tensors that require gradients: an op's result, no floats at all, or an error."""
    t, v = leaf([[1.5, 0.5], [0.25, 2.0]]), leaf(1.0, 2.0)
    patterns = [(t,), (v,), (t, t), (v, v), (t, 1), (t, t.data), ([v, v],), ([t, t],), (t, 0, 1), (t, t, t)]
    patterns += [(v, v, v), (t, [0], v), ("ij->ji", t), (t, 0.5), (t, (2,))]
    called, lost = set(), []
    for name in dir(module):
        function = getattr(module, name)
        if name.startswith(("_", *SETTERS)) or name in NOT_OF_VALUES or not callable(function):
            continue
        if isinstance(function, type) and issubclass(function, Exception):
            continue
        for arguments in patterns:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    result = function(*arguments)
            except Exception:  # TypeErrors are tested above; others say that these are not the function's arguments
                continue
            called.add(name)
            if has_history_to_lose(result):
                lost.append(f"{name}({', '.join(type(a).__name__ for a in arguments)}) -> {type(result).__name__}")
    assert not lost, lost
    assert len(called) > 100 or module is not np


# Numbers that NumPy asks for, as with PyTorch -------------------------------------------------------------------------
def test_one_number_is_taken_from_a_tensor_as_from_those_of_pytorch() -> None:
    """``float(t)``, ``array[i] = t``: NumPy asks for a number; into an object array the Tensor itself goes."""
    t = leaf(1.5)
    array, objects = np.zeros(2, np.float32), np.zeros(1, object)
    array[1], objects[0] = t, t
    assert array.tolist() == [0.0, 1.5] and objects[0] is t and float(t) == np.float64(t) == 1.5
    torch = pytest.importorskip("torch")
    theirs, other = torch.tensor(1.5, requires_grad=True), np.zeros(2, np.float32)
    other[1] = theirs
    assert array.tolist() == other.tolist() and float(theirs) == 1.5
    with pytest.raises(RuntimeError):
        np.array([theirs, theirs])


# Operators of arrays --------------------------------------------------------------------------------------------------
OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.matmul]
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
scalars = st.sampled_from([2, 2.0, True, np.float64(2), np.float32(2), np.float16(2), np.int64(2), np.array(2.0)])


@given(
    st.sampled_from(OPERATORS + COMPARISONS),
    scalars,
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.booleans(),
)
def test_scalars_left_of_an_operator_never_change_the_dtype(op: Any, scalar: Any, dtype: Any, grad: bool) -> None:
    x = Tensor(np.array([0.5, 2.0], dtype), grad)
    if op is operator.matmul:
        scalar, expected = np.ones((2, 2), dtype) * 2, np.array([5.0, 5.0])
    else:
        expected = op(np.float64(scalar), x.data.astype(np.float64))
    for out in (op(scalar, x), {operator.add: np.add, operator.lt: np.less}.get(op, op)(scalar, x)):
        assert type(out) is Tensor and out.dtype == (bool if op in COMPARISONS else dtype)
        assert out.requires_grad == (grad and op in OPERATORS)
        np.testing.assert_allclose(out.data.astype(float), expected, rtol=1e-2)


OPS = {operator.add: tg.add, operator.sub: tg.subtract, operator.mul: tg.multiply, operator.truediv: tg.divide}
OPS |= {operator.floordiv: tg.floor_divide, operator.mod: tg.remainder, operator.pow: tg.power}
OPS |= {operator.lt: tg.less, operator.ge: tg.greater_equal, operator.eq: tg.equal, operator.ne: tg.not_equal}
kinds = st.sampled_from([np.int32, np.float16, np.float32, np.float64])
tensors = st.builds(
    lambda dtype, shape, grad: Tensor(np.full(shape, 2, dtype), grad and dtype is not np.int32),
    kinds,
    st.sampled_from([(), (3,), (2, 1), (2, 3)]),
    st.booleans(),
)


@given(st.sampled_from([*OPS]), tensors, tensors | scalars | st.sampled_from([3, np.ones(3)]), st.booleans())
def test_operators_compute_and_record_what_their_ops_do(op: Any, x: Tensor, y: Any, recorded: bool) -> None:
    with recording(recorded):
        out, expected = op(x, y), OPS[op](x, y)
    assert (out.shape, out.dtype, out.requires_grad) == (expected.shape, expected.dtype, expected.requires_grad)
    assert np.array_equal(out.data, expected.data) and type(out.data) is np.ndarray
    assert out.op is expected.op and out.keywords == expected.keywords
    assert len(out.inputs or ()) == len(expected.inputs or ())
    for a, b in zip(out.inputs or (), expected.inputs or (), strict=True):
        assert a is b or (type(a) is type(b) and np.array_equal(tg.as_tensor(a).data, tg.as_tensor(b).data))


@given(st.sampled_from(OPERATORS), dtypes, dtypes, seeds)
def test_arrays_change_in_place_by_tensors_without_a_gradient(op: Any, dtype: Any, other: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, start = rng.uniform(0.5, 1.5, (2, 2)).astype(other), rng.uniform(0.5, 1.5, (2, 2)).astype(dtype)
    in_place = getattr(operator, f"i{op.__name__.strip('_')}")
    array = start.copy()
    result = in_place(array, Tensor(values))
    assert result is array and array.dtype == dtype
    np.testing.assert_allclose(array, op(start, values), rtol=1e-5)
    for context in (tg.no_grad(), warnings.catch_warnings()):  # requires_grad decides, recorded or not
        with context, pytest.raises(TypeError, match=r"a = a \+ t.*\.detach\(\)"):
            in_place(array, Tensor(values, requires_grad=True))
    np.testing.assert_allclose(array, op(start, values), rtol=1e-5)


def test_the_textbook_step_writes_into_the_parameter() -> None:
    w = leaf(1.0, 2.0, dtype=np.float32)
    (w * w).sum().backward()
    data, grad = w.data, w.grad
    assert grad is not None
    data -= 0.25 * grad
    assert data is w.data and data.tolist() == [0.5, 1.0]


# Others with protocols of their own -----------------------------------------------------------------------------------
class Other:
    """Another library's array: it computes itself."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> str:
        return f"{ufunc.__name__} of another"

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> str:
        return f"{function.__name__} of another"


class Declining:
    """Takes part in no ufunc."""

    __array_ufunc__ = None

    def __radd__(self, other: Any) -> str:
        return "reflected"


def test_others_get_their_turn() -> None:
    t, other = leaf(0.5, 2.0), Other()
    for pair in ((t, other), (other, t)):
        assert np.add(*pair) == "add of another"
        assert np.concatenate(list(pair)) == "concatenate of another"
    with pytest.raises(TypeError):
        np.add(t, Declining())
    for op in OPERATORS:
        with pytest.raises(TypeError, match="unsupported operand"):
            op(object(), t)
    array = np.ones(2)
    masked = np.ma.array([1.0, 2.0], mask=[0, 1]) + t.detach()
    assert masked.mask.tolist() == [False, True]
    assert type(array + t) is Tensor


class Quantity(np.ndarray):
    """An array with a unit, which computes itself."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> str:  # type: ignore[override]
        return f"{ufunc.__name__} of a quantity"


@pytest.mark.parametrize("op", OPERATORS + COMPARISONS)
@pytest.mark.parametrize("grad", [False, True])
def test_arrays_that_are_more_than_their_values_are_not_taken_for_those(op: Any, grad: bool) -> None:
    """Units, masks and the product of np.matrix would be lost without a word."""
    t, quantity = Tensor([0.5, 2.0], grad), np.array([1.0, 2.0]).view(Quantity)
    assert op(t, quantity) == op(t.data, quantity) and op(quantity, t) == op(quantity, t.data)
    with pytest.raises(TypeError, match=r"cannot compute with masked values.*\.filled"):
        op(t, np.ma.array([1.0, 2.0], mask=[False, True]))
    assert np.array_equal(op(t, np.ma.array([1.0, 2.0])).data, op(t.data, np.array([1.0, 2.0])))
    with pytest.raises(TypeError, match="cannot compute with matrix: it has its own rules; pass np.asarray"):
        tg.multiply(t, np.ones((1, 2)).view(np.matrix))


def test_frames_compute_with_values_or_refuse() -> None:
    pandas = pytest.importorskip("pandas")
    t, series = leaf(0.5, 2.0), pandas.Series([1.0, 2.0])
    for function in (
        pandas.Series,
        lambda t: series + t,
        lambda t: np.add(t, series),
        lambda t: pandas.DataFrame({"a": t}),
    ):
        with pytest.raises(TypeError, match=r"\.detach\(\) or \.numpy\(\)"):
            function(t)
        assert np.asarray(function(t.detach())).dtype == np.float64


def test_learners_compute_with_values_or_refuse() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = leaf([[0.0], [1.0], [2.0]]), leaf(1.0, 3.0, 5.0)
    fitted = linear_model.LinearRegression().fit(x.detach(), y.detach())
    np.testing.assert_allclose(fitted.coef_, [2.0])
    with pytest.raises(TypeError, match=r"\.detach\(\) or \.numpy\(\)"):
        linear_model.LinearRegression().fit(x, y.detach())
