"""Logic, bits and whole numbers, and the operators that a user of NumPy expects of a Tensor."""

from __future__ import annotations

import operator
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from op_checks import agree, gradients_of_sum, seeds, some
from planted import between, distinct, normal, plants, signed

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import arrays, broadcastable_shapes

BITWISE = [operator.and_, operator.or_, operator.xor]
LOGICAL = ["logical_and", "logical_or", "logical_xor"]
WHOLE = st.sampled_from([np.bool_, np.int8, np.int64, np.uint8])


@some
@given(st.data(), broadcastable_shapes(2, max_side=2), WHOLE)
def test_bits_are_as_in_numpy(data: Any, drawn: Any, dtype: Any) -> None:
    x, y = (data.draw(hnp.arrays(dtype, shape)) for shape in drawn)
    for op in BITWISE:
        for got in (op(Tensor(x), Tensor(y)), op(Tensor(x), y)):
            expected = op(x, y)
            assert isinstance(got, Tensor) and got.dtype == expected.dtype
            np.testing.assert_array_equal(got.data, expected)
        np.testing.assert_array_equal(op(True, Tensor(x)).data, op(True, x))
        np.testing.assert_array_equal(op(Tensor(x), True).data, op(x, True))
    np.testing.assert_array_equal((~Tensor(x)).data, ~x)
    for name in LOGICAL:
        np.testing.assert_array_equal(getattr(tg, name)(x, y).data, getattr(np, name)(x, y))
    np.testing.assert_array_equal(tg.logical_not(x).data, np.logical_not(x))


@some
@given(st.data(), hnp.array_shapes(min_dims=0, max_dims=3, max_side=3), st.booleans())
def test_all_and_any_over_axes(data: Any, shape: Any, keepdims: bool) -> None:
    x = data.draw(hnp.arrays(st.sampled_from([np.bool_, np.float32]), shape, elements={"min_value": 0, "max_value": 1}))
    axis = data.draw(st.none() | st.sets(st.integers(0, max(len(shape) - 1, 0)), max_size=len(shape)).map(tuple))
    for name in ("all", "any"):
        expected = getattr(np, name)(x, axis=axis, keepdims=keepdims)
        got = getattr(Tensor(x), name)(axis if axis is None else list(axis), keepdims=keepdims)
        assert got.dtype == np.bool_ and not got.requires_grad
        np.testing.assert_array_equal(got.data, expected)
        np.testing.assert_array_equal(getattr(tg, name)(x, axis, keepdims).data, expected)


def test_masks_require_no_gradient() -> None:
    x = Tensor([0.5, -1.0, 2.0], requires_grad=True)
    mask = ~(x > 1) & (x > 0) | (x < -3) ^ (x == 7)
    assert mask.data.tolist() == [True, False, False] and not mask.requires_grad and mask.op is None
    assert not x.all().requires_grad and not x.any().requires_grad and not tg.logical_not(x).requires_grad
    assert x[mask].data.tolist() == [0.5]


NUMPY = SimpleNamespace(**{**vars(np), "round": np.round})
WITH_GRADIENT = ["+x - 3 * positive(x)", "remainder(x, y)", "x % 0.75 + 3.25 % y", "divmod(x, y)[1]"]
STEPS = ["x // y - 3.25 // y", "round(x, 1) + x.round()", "divmod(x, 0.75)[0]"]


@pytest.mark.parametrize("expression", WITH_GRADIENT + STEPS)
@some
@given(st.data(), broadcastable_shapes(2, max_side=2), st.sampled_from([1, 2]), seeds)
def test_remainders_and_whole_numbers(expression: str, data: Any, drawn: Any, order: int, seed: int) -> None:
    """x / y and x lie in the middle between whole numbers, and halves and tenths, so that no step is near."""
    y = data.draw(hnp.arrays(np.float64, drawn[1], elements=st.sampled_from([-1.0, 1.0, 2.0])))
    x = data.draw(hnp.arrays(np.float64, drawn[0], elements=st.integers(-9, 9).map(lambda n: n + 0.28)))
    function = lambda lib, x, y: eval(expression, {**vars(lib), "x": x, "y": y})  # noqa: E731
    agree(function, x, y, order=order, seed=seed, numpy=NUMPY)


@given(arrays((3,), low=-5, high=5), arrays((3,), low=0.5, high=3))
def test_gradients_of_remainder_and_of_steps(x: Any, y: Any) -> None:
    found = gradients_of_sum(lambda a, b: a % b, x, y)
    np.testing.assert_array_equal(found, [np.ones(3), -np.floor_divide(x, y)])
    for step in (lambda a, b: a // b, lambda a, b: round(a) + round(b, 1), lambda a, b: divmod(a, b)[0]):
        assert gradients_of_sum(step, x, y) == [[0.0] * 3] * 2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_remainder_does_not_depend_on_a_divisor_that_fits_no_time() -> None:
    """Also beside quotients that overflow, and where x or y is infinite."""
    tiny, g = np.float32(1e-38), np.array([np.inf, np.nan, 1, 2, 2**-10], np.float32)
    x = Tensor(np.array([0, 2, -2, -7, 3e3], np.float32), requires_grad=True)
    y = Tensor(np.array([3, 3, np.inf, 2, tiny], np.float32), requires_grad=True)
    for count in (3, 4, 5):
        found = tg.grad((x % y)[:count], [y], gradient=g[:count])[0].data
        expected = [0, 0, 1, 8, -(2**-10) * (3e3 / float(tiny))][:count]
        np.testing.assert_allclose(found, [*expected, *[0] * (5 - count)], rtol=1e-6)
    assert gradients_of_sum(lambda x, y: tg.sqrt(x % y), 0.0, 3.0) == [np.inf, 0.0]


def test_steps_hide_what_is_not_finite() -> None:
    x = Tensor([1.5, 2.5], requires_grad=True)
    for y in (x // 1, round(x)):
        assert tg.grad(y, [x], gradient=np.array([np.inf, np.nan]))[0].data.tolist() == [0.0, 0.0]


def test_round_takes_a_tensor_where_numpy_takes_an_array() -> None:
    t = Tensor([0.5, 1.5, 2.675])
    for got, decimals in ((round(t), 0), (round(t, 2), 2), (t.round(2), 2), (tg.round(t, decimals=1), 1)):
        np.testing.assert_array_equal(got.data, np.round(t.data, decimals))


# Operands of other kinds ----------------------------------------------------------------------------------------------
class Other:
    """Has a turn in every operation, and says which it was."""


def _answers(name: str) -> Callable[[Any, Any], str]:
    return lambda self, other: name


ARITHMETIC = "add sub mul truediv floordiv mod divmod pow matmul and or xor".split()
COMPARISONS = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}
for _name in ARITHMETIC:
    setattr(Other, f"__r{_name}__", _answers(_name))
for _name in COMPARISONS:
    setattr(Other, f"__{_name}__", _answers(_name))


class Opaque(Other):
    """Could be converted, but does not want to."""

    __array_ufunc__ = None

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.ones(2)


@pytest.mark.parametrize("other", [Other(), Opaque()], ids=["object", "opaque"])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_an_operand_of_its_own_kind_has_its_turn(other: Any, requires_grad: bool) -> None:
    t = Tensor([1.0, 2.0], requires_grad)
    for name in ARITHMETIC:
        op = divmod if name == "divmod" else getattr(operator, f"__{name}__")
        assert op(t, other) == name
    for name, mirrored in COMPARISONS.items():
        assert getattr(operator, name)(t, other) == mirrored


@pytest.mark.parametrize("other", [None, "auto", b"auto", {}, set(), object(), Ellipsis, print])
def test_a_tensor_equals_nothing_that_is_no_array(other: Any) -> None:
    t = Tensor([1.0, 2.0])
    assert (t == other) is False and (other == t) is False and (t != other) is True and (other != t) is True
    assert other not in [t] and [other, t].index(other) == 0 and other not in t
    for op in (operator.add, operator.mul, operator.and_, operator.lt, operator.matmul, operator.mod):
        with pytest.raises(TypeError, match="cannot compute with|unsupported operand|not supported between"):
            op(t, other)
    with pytest.raises(TypeError):
        divmod(t, other)


NO_NUMBERS = [
    ["a", "b"],
    np.array(["a", "b"]),
    1j,
    [1, 2j],
    Decimal(2),
    Fraction(1, 2),
    np.datetime64("2020"),
    [2.0, None],
]


@pytest.mark.parametrize("other", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("requires_grad", [True, False])
def test_what_is_no_number_is_compared_as_numpy_compares_it(other: Any, requires_grad: bool) -> None:
    values = np.array([2.0, 0.5])
    t = Tensor(values, requires_grad=requires_grad)
    for compare in (operator.eq, operator.ne):
        found, expected = compare(t, other), compare(values, other)
        assert isinstance(found, Tensor) and found.dtype == bool and np.array_equal(found.data, expected)
    assert (other in t) == (other in values)
    with pytest.raises(TypeError):
        _ = t < other


@pytest.mark.parametrize("x", [[1.0, 2.0], (1.0, 2.0), range(1, 3), memoryview(np.array([1.0, 2.0]))])
def test_sequences_are_operands(x: Any) -> None:
    t = Tensor([3.0, 2.0])
    assert (t + x).data.tolist() == (x + t).data.tolist() == [4.0, 4.0]
    assert (t == x).data.tolist() == (x == t).data.tolist() == [False, True]


# Truth, membership, positions -----------------------------------------------------------------------------------------
def test_the_truth_of_one_value_and_of_several() -> None:
    assert [bool(Tensor(v)) for v in (0.0, 2.0, [True], [[0]], np.nan)] == [False, True, True, False, True]
    for values in ([1.0, 2.0], [], [[True], [True]]):
        with pytest.raises(ValueError, match=r"use \.any\(\) or \.all\(\)"):
            bool(Tensor(values))


@given(hnp.arrays(np.int64, (2, 2), elements=st.integers(0, 3)), st.integers(0, 3))
def test_membership_as_in_numpy(x: Any, value: int) -> None:
    t = Tensor(x)
    assert (value in t) == (value in x) and (np.float64(value) in t) == (value in x)
    assert (Tensor(value) in t) == (value in x) and ([value, value] in t) == ([value, value] in x)


@pytest.mark.parametrize("make", [np.int64, np.uint8, lambda n: np.array([n]), lambda n: np.array([[n]], np.int32)])
def test_an_integer_tensor_is_an_index(make: Callable[[int], Any]) -> None:
    t, names = Tensor(make(2)), ["a", "b", "c"]
    assert names[t] == "c" and list(range(t)) == [0, 1] and names[:t] == ["a", "b"] and operator.index(t) == 2
    assert names[Tensor([0.1, 0.7, 0.2]).argmax()] == "b"
    assert Tensor([1.0, 2.0, 3.0])[t:].data.tolist() == [3.0]


@pytest.mark.parametrize("wrong", [1.0, [1, 2], [], [1.0]])
def test_no_other_tensor_is_an_index(wrong: Any) -> None:
    with pytest.raises(TypeError, match="cannot be used as an index; only a single integer can"):
        range(Tensor(wrong))


# Lists as axes --------------------------------------------------------------------------------------------------------
AXES: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda x, axes: x.sum(axes),
    "mean": lambda x, axes: x.mean(axis=axes, keepdims=False),
    "max": lambda x, axes: x.max(axes),
    "min": lambda x, axes: x.min(axes, keepdims=True),
    "all": lambda x, axes: x.all(axes),
    "logsumexp": lambda x, axes: tg.logsumexp(x, axes),
    "softmax": lambda x, axes: tg.softmax(x, axes),
    "squeeze": lambda x, axes: tg.squeeze(x[:1, :, :1], axes),
    "expand_dims": tg.expand_dims,
}


@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize("axes", [[0, 2], [0], [-1], [np.int64(0), np.int8(2)]])
def test_axes_may_be_a_list(name: str, axes: list[int]) -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 2))
    x, given_axes = Tensor(values, requires_grad=True), list(axes)
    y, expected = AXES[name](x, given_axes), AXES[name](Tensor(values), tuple(axes))
    given_axes[:] = [1] * len(axes)  # what was recorded stays
    np.testing.assert_array_equal(y.data, expected.data)
    if y.requires_grad:
        found, right = (tg.grad((out * out).sum(), [x])[0].data for out in (y, AXES[name](x, tuple(axes))))
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("axes", [[2, 0, 1], np.array([2, 0, 1]), Tensor([2, 0, 1]), (np.int64(2), 0, -2)])
def test_an_order_of_axes_and_a_shape_may_be_any_sequence(axes: Any) -> None:
    x = np.arange(6.0).reshape(1, 2, 3)
    np.testing.assert_array_equal(Tensor(x).transpose(axes).data, x.transpose(2, 0, 1))
    assert Tensor(x).reshape(np.array([3, 2])).shape == Tensor(x).reshape([3, -1]).shape == (3, 2)


@pytest.mark.parametrize(
    ("error", "pattern", "call"),
    [
        (TypeError, r"bitwise_and\(float64 \(2,\), float64 \(2,\)\)", lambda x: x & x),
        (TypeError, r"invert\(float64 \(2,\)\)", lambda x: ~x),
        (ValueError, r"remainder\(float64 \(2,\), float64 \(3,\)\).*broadcast", lambda x: x % np.ones(3)),
        (ValueError, r"equal\(float64 \(2,\), float64 \(3,\)\).*broadcast", lambda x: x == np.ones(3)),
        (ValueError, r"sum\(float64 \(2,\)\)", lambda x: x.sum([0, 0])),
    ],
)
def test_errors_name_the_op(error: type[Exception], pattern: str, call: Callable[[Any], Any]) -> None:
    with pytest.raises(error, match=pattern):
        call(Tensor([1.0, 2.0]))


# Planted errors -------------------------------------------------------------------------------------------------------
def as_number(compare: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, y: tg.astype(compare(x, y), np.float64)


def straight_through(right: Tensor, g: Tensor, *rest: Tensor) -> Tensor:
    return g


for _binary in (tg.bitwise_and, tg.bitwise_or, tg.bitwise_xor):
    plants(
        f"{_binary.__name__}: straight through",
        as_number(lambda x, y, op=_binary: op(x > 0, y > 0)),
        signed((3,), (3,)),
        kind="steps",
        argument=0,
        within=lambda op, x, y: (op(x, y) + 1) * x,
    )(straight_through)
for _binary in (tg.logical_or, tg.logical_xor):
    plants(
        f"{_binary.__name__}: straight through",
        as_number(_binary),
        signed((3,), (3,)),
        kind="steps",
        argument=0,
        within=lambda op, x, y: (op(x, y) + 1) * x,
    )(straight_through)
for _name, _unary in {
    "invert": lambda x: ~(x > 0),
    "logical_not": lambda x: tg.logical_not(x > 0),
    "all": lambda x: (x > 0).all(),
    "any": lambda x: (x > 0).any(),
}.items():
    plants(
        f"{_name}: straight through",
        lambda x, op=_unary: tg.astype(op(x), np.float64),
        signed((3,)),
        kind="steps",
        within=lambda op, x: ((op(x) + 1) * x).sum(),
    )(lambda right, g, out, x: tg.broadcast_to(g, x.shape))
plants("round: straight through", lambda x: tg.round(x), between(0.1, 0.4, (3,)), kind="steps")(straight_through)
plants(
    "floor_divide: of the smooth quotient", tg.floor_divide, between(1.1, 1.4, (3,), (3,)), kind="steps", argument=0
)(lambda right, g, out, x, y: g / y)
plants("positive: sign exchanged", tg.positive, normal((3,)), kind="sign")(lambda right, *rest: -right)
plants("remainder: quotient not rounded", tg.remainder, distinct((3,), (3,)), kind="some entries", argument=1)(
    lambda right, g, out, x, y: -g * x / y
)
