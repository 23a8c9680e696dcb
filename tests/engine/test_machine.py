"""Arbitrary programs on the engine, step by step, against Taylor polynomials in plain NumPy, which share no code with
it.
"""

from __future__ import annotations

import copy
import gc
import itertools
import operator
import pickle
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor, backward, record
from tinygrad_mnist.ops import indexing
from tinygrad_mnist.testing import axes, indices, permutations

Array = npt.NDArray[Any]
seeds = st.integers(0, 2**32 - 1)
# values and derivatives beyond it are checked once, then not built upon: rounding errors would grow without bound
WILD = 100.0


# The oracle: derivatives along a line, from the leaves on -------------------------------------------------------------
class Jet(NamedTuple):
    """A value and its first two derivatives with respect to t, where leaves move along straight lines x + t v."""

    f: Array
    d: Array
    dd: Array


Taylor = Callable[..., Jet]


def constant(x: Any) -> Jet:
    x = np.asarray(x, np.float64)
    return Jet(x, np.zeros_like(x), np.zeros_like(x))


def linear(function: Callable[..., Any]) -> Taylor:
    return lambda *us: Jet(*(function(*parts) for parts in zip(*us, strict=True)))


def product(f: Callable[..., Any]) -> Taylor:
    return lambda u, v: Jet(f(u.f, v.f), f(u.d, v.f) + f(u.f, v.d), f(u.dd, v.f) + 2 * f(u.d, v.d) + f(u.f, v.dd))


def smooth(f: Callable[..., Any], f1: Callable[..., Any], f2: Callable[..., Any] = np.zeros_like) -> Taylor:
    return lambda u: Jet(f(u.f), f1(u.f) * u.d, f2(u.f) * u.d**2 + f1(u.f) * u.dd)


def chosen(condition: Callable[..., Any]) -> Taylor:
    return lambda u, v: linear(lambda a, b: np.where(condition(u.f, v.f), a, b))(u, v)


times = product(np.multiply)
exp = smooth(np.exp, np.exp, np.exp)
log = smooth(np.log, lambda x: 1 / x, lambda x: -1 / x**2)
reciprocal = smooth(lambda x: 1 / x, lambda x: -1 / x**2, lambda x: 2 / x**3)
sine = smooth(np.sin, np.cos, lambda x: -np.sin(x))
one_plus_square = smooth(lambda x: 1 + x * x, lambda x: 2 * x, lambda x: 2 + 0 * x)


def first_maximum(u: Jet, axis: Any, keepdims: bool) -> Jet:
    """Follow the largest element, of equal ones the first."""
    order = np.where(u.f == u.f.max(axis=axis, keepdims=True), np.arange(u.f.size).reshape(u.f.shape), u.f.size)
    return total(linear(partial(np.multiply, order == order.min(axis=axis, keepdims=True)))(u), axis, keepdims)


def total(u: Jet, axis: Any, keepdims: bool = True) -> Jet:
    return linear(lambda part: np.sum(part, axis=axis, keepdims=keepdims))(u)


def moved(function: Callable[..., Any]) -> Taylor:
    return lambda u, *args: linear(lambda part: function(part, *args))(u)


# What programs are made of: the engine's function beside the oracle's -------------------------------------------------
ONE: dict[str, tuple[Callable[[Tensor], Tensor], Taylor]] = {
    "negative": (operator.neg, linear(np.negative)),
    "exp": (tg.exp, exp),
    "log": (lambda x: tg.log(1 + x * x), lambda u: log(one_plus_square(u))),
    "sin": (tg.sin, sine),
    "tanh": (tg.tanh, smooth(np.tanh, lambda x: np.cosh(x) ** -2, lambda x: -2 * np.tanh(x) * np.cosh(x) ** -2)),
    "sigmoid": (tg.sigmoid, lambda u: reciprocal(linear(np.add)(constant(1), exp(linear(np.negative)(u))))),
    "relu": (tg.relu, smooth(lambda x: np.where(x > 0, x, 0), lambda x: x > 0)),
    "abs": (abs, smooth(np.abs, np.sign)),
    "square": (lambda x: x**2, lambda u: times(u, u)),
    "detach": (Tensor.detach, linear(np.copy)),
}
TWO: dict[str, tuple[Callable[[Any, Any], Tensor], Taylor]] = {
    "+": (operator.add, linear(np.add)),
    "-": (operator.sub, linear(np.subtract)),
    "*": (operator.mul, times),
    "/": (lambda x, y: x / (1 + y * y), lambda u, v: times(u, reciprocal(one_plus_square(v)))),
    "**": (
        lambda x, y: (1.5 + tg.sin(x)) ** y,
        lambda u, v: exp(times(v, log(linear(np.add)(constant(1.5), sine(u))))),
    ),
    "@": (operator.matmul, product(np.matmul)),
    "maximum": (tg.maximum, chosen(np.greater_equal)),
    "where": (lambda x, y: tg.where(x >= 0.5, x, y), chosen(lambda x, y: x >= 0.5)),
}
SHAPED: dict[
    str, tuple[Callable[[tuple[int, ...]], tuple[Any, ...]], Taylor]
] = {  # strategies for the arguments, given the shape
    "sum": (reduction := lambda s: (axes(len(s)), st.booleans()), total),
    "mean": (reduction, moved(lambda part, axis, keepdims: np.mean(part, axis=axis, keepdims=keepdims))),
    "max": (reduction, first_maximum),
    "logsumexp": (reduction, lambda u, axis, keepdims: log(total(exp(u), axis, keepdims))),
    "softmax": (lambda s: (axes(len(s)),), lambda u, axis: times(exp(u), reciprocal(total(exp(u), axis)))),
    "log_softmax": (lambda s: (axes(len(s)),), lambda u, axis: linear(np.subtract)(u, log(total(exp(u), axis)))),
    "reshape": (lambda s: (st.sampled_from([(-1,), s[::-1], (*s, 1), (1, -1)]),), moved(np.reshape)),
    "transpose": (lambda s: (permutations(len(s)),), moved(np.transpose)),
    "expand_dims": (lambda s: (st.integers(-len(s) - 1, len(s)),), moved(np.expand_dims)),
    "squeeze": (
        lambda s: (st.sampled_from([None, *(axis for axis in range(-len(s), len(s)) if s[axis] == 1)]),),
        moved(np.squeeze),
    ),
    "broadcast_to": (
        lambda s: (
            st.sampled_from(
                [(*new, *(k if one == 1 else one for one in s)) for new in [(), (1,), (2,), (0,)] for k in range(4)]
            ),
        ),
        moved(np.broadcast_to),
    ),
    "pad": (
        lambda s: (st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 1))] * len(s)), st.sampled_from([0.0, 1.5])),
        lambda u, width, value: Jet(np.pad(u.f, width, constant_values=value), np.pad(u.d, width), np.pad(u.dd, width)),
    ),
}
OF_ENTRIES = ["mean", "max", "logsumexp", "softmax", "log_softmax"]  # which there must be


def numbers(shape: Any, seed: int) -> Array:
    """Return multiples of 1/2, zeros and equal ones among them: ties and kinks have documented derivatives, too."""
    return np.asarray(np.random.default_rng(seed).integers(-2, 3, shape) / 2)


def applied(function: Callable[..., Any], args: tuple[Any, ...], x: Any) -> Any:
    return function(x, *args)


def accepted(function: Callable[..., Any], *args: Any) -> bool:
    try:
        function(*args)
    except ValueError:
        return False
    return True


def close(actual: Any, expected: Any, scale: float, rtol: float = 1e-9) -> None:
    assert np.all(np.abs(actual - expected) <= rtol * (1 + scale + np.abs(expected))), f"{actual} should be {expected}"


# The machine ----------------------------------------------------------------------------------------------------------
class Node:
    """A Tensor beside what it must be: its values, bit for bit, how it was made, and the gradient that it must have."""

    def __init__(
        self, number: int, value: Tensor, seed: int = 0, taylor: Taylor = constant, operands: tuple[Any, ...] = ()
    ) -> None:
        self.number, self.seed, self.taylor, self.operands = number, seed, taylor, operands
        self.tensor: Tensor | None = value  # None: dropped
        self.weak = weakref.ref(value)
        self.kept, self.bytes, self.requires_grad = value.data.copy(), value.data.tobytes(), value.requires_grad
        self.parents = [x for x in operands if isinstance(x, Node)] if self.requires_grad else []
        self.direction = np.asarray(np.random.default_rng(seed).uniform(-1, 1, value.shape))
        self.line = Jet(
            self.kept, self.direction * self.requires_grad, np.zeros_like(self.kept)
        )  # where all the leaves move
        self.grad: float | None = None  # of `.grad`, along the direction
        self.scale = 0.0
        self.freed = False

    def __repr__(self) -> str:
        return f"n{self.number}"


class Machine(RuleBasedStateMachine):
    """Each rule applies an op to Tensors that there are already, or checks the derivatives of one of them."""

    def __init__(self) -> None:
        super().__init__()
        gc.disable()  # what is dropped must go away by itself
        self.made: list[Node] = []
        self.recording = True

    def teardown(self) -> None:
        gc.enable()

    @property
    def live(self) -> list[Node]:
        return [node for node in self.made if node.tensor is not None]

    def pick(self, data: Any, nodes: list[Node] | None = None, deep: bool = False) -> Any:
        """Draw a Tensor, most often one of the youngest (or those of the longest history) with a derivative other than
        zero.
        """
        nodes = (self.live if nodes is None else nodes)[::-1]
        nodes.sort(
            key=lambda node: (not (self.differentiable(node) and node.line.d.any()), -len(self.history(node)) * deep)
        )
        return data.draw(st.sampled_from(nodes[:4]) | st.sampled_from(nodes)) if nodes else None

    def mode(self) -> Any:
        recording, self.recording = self.recording, True
        return nullcontext() if recording else tg.no_grad()

    def apply(self, name: str, function: Callable[..., Any], taylor: Taylor, *operands: Any) -> None:
        """Apply an op, check its values and derivatives, and take the result in."""
        nodes = [x for x in operands if isinstance(x, Node)]
        recorded = self.recording and name != "detach" and any(x.requires_grad for x in nodes)
        with self.mode():
            out = function(*(x.tensor if isinstance(x, Node) else x for x in operands))
        if name != "detach" and any(out is x.tensor for x in nodes):
            return  # there was nothing to do, as in broadcasting to the same shape
        node = Node(len(self.made), out, len(self.made), taylor, operands)
        note(f"{node} = {name} of {', '.join(map(repr, operands))}{'' if recorded else '  # not recorded'}")
        assert type(out.data) is np.ndarray and out.dtype == np.float64
        assert out.requires_grad == recorded and (out.op is not None) == recorded
        line = Jet(*map(np.asarray, taylor(*(x.line if isinstance(x, Node) else constant(x) for x in operands))))
        assert out.shape == line.f.shape
        close(out.data, line.f, 0.0, rtol=1e-12)
        if out.size <= 60 and out.ndim <= 4 and all(np.all(np.abs(part) < WILD) for part in line):
            node.line = Jet(node.kept, line.d, line.dd) if recorded else constant(node.kept)
            self.made.append(node)
            self.differentiate(node)

    def differentiate(self, node: Node) -> None:
        """Check the derivative along the directions of all the leaves, and its derivative (of leaves only: a rule may
        use the result of
        its op, which does not follow when that result is taken for a variable of its own)."""
        moving = {x: x.direction for x in self.history(node) if not x.parents and x.tensor is not None}
        if moving and self.differentiable(node):
            c = np.asarray(np.random.default_rng(node.number).uniform(0.5, 1, node.kept.shape))
            inputs, expected = [x.tensor for x in moving], self.derivatives(node, moving)
            found = tg.grad(node.tensor, inputs, create_graph=True, gradient=c)
            slope = sum((g * v).sum() for g, v in zip(found, moving.values(), strict=True))
            close(slope.data, np.sum(c * expected.d), np.sum(np.abs(c * expected.d)))
            bend = sum(np.sum(h.data * v) for h, v in zip(tg.grad(slope, inputs), moving.values(), strict=True))
            close(bend, np.sum(c * expected.dd), np.sum(np.abs(c * expected.dd)))

    def derivatives(self, output: Node, moving: dict[Node, Array]) -> Jet:
        """Follow `output` while each of the `moving` is shifted by t times its direction. The values are those of the
        engine, which have
        been checked, so that both are on the same side of each kink."""
        lines: dict[Node, Jet] = {}
        for node in self.made[: output.number + 1]:
            line = constant(node.kept)
            if node.parents:
                line = node.taylor(*(lines[x] if isinstance(x, Node) else constant(x) for x in node.operands))
            lines[node] = Jet(node.kept, np.asarray(line.d + moving.get(node, 0.0)), np.asarray(line.dd))
        return lines[output]

    def history(self, *nodes: Node, held: bool = False) -> list[Node]:
        """List what gradients of the nodes flow through, or (`held`) whatever their records keep alive."""
        found = list(dict.fromkeys(nodes))
        for node in found:  # the list grows while it is read
            found += dict.fromkeys(
                x for x in node.parents if x not in found and (not node.freed if held else x.requires_grad)
            )
        return found

    def differentiable(self, node: Node) -> bool:
        return node.requires_grad and not any(x.freed for x in self.history(node))

    def pull_back(self, root: Node, seed: int, retain_graph: bool, call: Callable[..., Any]) -> tuple[bool, Any, Array]:
        """Call with a gradient to start from, in one of several forms. Return whether `root` can be differentiated (if
        not, the call must
        say so, and why), what comes back, and that gradient's values."""
        possible, found = self.differentiable(root), None
        implicit = root.kept.size == 1 and seed % 3 == 0
        c = Tensor(
            np.ones(root.kept.shape) if implicit else np.random.default_rng(seed).uniform(-1, 1, root.kept.shape)
        )
        reason = "was freed" if root.requires_grad else "requires a gradient"
        with self.mode(), nullcontext() if possible else pytest.raises(RuntimeError, match=reason):
            found = call(gradient=None if implicit else c if seed % 2 else c.data, retain_graph=retain_graph)
        if possible and not retain_graph:
            for x in self.history(root):
                x.freed = bool(x.parents)
        return possible, found, c.data

    def separate(self, *new: Array) -> None:
        arrays = [*new, *(x.tensor.grad.data for x in self.live if x.grad is not None)]
        for a, b in [
            *itertools.combinations(arrays, 2),
            *itertools.product(arrays, [x.tensor.data for x in self.live]),
        ]:
            assert not np.shares_memory(a, b), "a gradient shares memory"

    # Building a program
    @initialize(shape=st.lists(st.integers(1, 3), max_size=3), seed=seeds)
    def start(self, shape: list[int], seed: int) -> None:
        self.made.append(Node(0, Tensor(numbers(shape, seed), requires_grad=True), seed))

    @rule(
        shape=st.lists(st.sampled_from([2, 3, 2, 3, 1, 0]), max_size=3),
        requires_grad=st.sampled_from([True, True, False]),
        seed=seeds,
    )
    def leaf(self, shape: list[int], requires_grad: bool, seed: int) -> None:
        self.made.append(Node(len(self.made), Tensor(numbers(shape, seed), requires_grad), seed))

    @rule(data=st.data(), names=st.lists(st.sampled_from(sorted(ONE)), min_size=1, max_size=3))
    def one(self, data: Any, names: list[str]) -> None:
        for name in names:
            self.apply(name, *ONE[name], self.pick(data))

    @rule(data=st.data(), names=st.lists(st.sampled_from([*TWO, "*", "@"]), min_size=1, max_size=4), seed=seeds)
    def two(self, data: Any, names: list[str], seed: int) -> None:
        """Combine a Tensor with a Tensor (maybe itself), an array or a number that fits, in either order."""
        for name in names:
            x, kind, turn = self.pick(data), data.draw(st.sampled_from("TTTan")), data.draw(st.sampled_from([1, -1]))
            s, plain = x.kept.shape, np.matmul if name == "@" else np.add
            shapes = [(), s, (2, *s), s[1:], (1,) * len(s), (*s[:-1], 1), s[::-1], s[-1:], (*s[-1:], 2)]
            others = {
                "T": self.live,
                "a": [numbers(shape, seed) for shape in shapes],
                "n": [2, -0.5, 1, 0, np.float64(1.5)],
            }[kind]
            fitting = [y for y in others if accepted(plain, *(x.kept, getattr(y, "kept", y))[::turn])]
            if fitting:
                y = self.pick(data, fitting) if kind == "T" else data.draw(st.sampled_from(fitting))
                self.apply(name, *TWO[name], *(x, y)[::turn])

    @rule(data=st.data(), names=st.lists(st.sampled_from(sorted(SHAPED)), min_size=1, max_size=3))
    def shaped(self, data: Any, names: list[str]) -> None:
        for name in names:
            fitting = [
                y for y in self.live if (y.kept.size or name not in OF_ENTRIES) and (y.kept.ndim or name != "pad")
            ]
            if x := self.pick(data, fitting):
                strategies, taylor = SHAPED[name]
                args = data.draw(st.tuples(*strategies(x.kept.shape)))
                self.apply(
                    f"{name} {args}", partial(applied, getattr(tg, name), args), partial(applied, taylor, args), x
                )

    @rule(data=st.data())
    def index(self, data: Any) -> None:
        x = self.pick(data)
        index = data.draw(indices(x.kept.shape))
        given = copy.deepcopy(index)
        self.apply(f"[{index!r}]", lambda t: t[given], linear(lambda part: part[index]), x)
        for part in given if isinstance(given, tuple) else (given,):
            if isinstance(part, np.ndarray):
                part[...] = 0  # the engine has its own

    @rule(data=st.data(), more=st.integers(0, 2), array=st.booleans(), seed=seeds)
    def join(self, data: Any, more: int, array: bool, seed: int) -> None:
        x = self.pick(data)
        n = x.kept.ndim
        name = data.draw(st.sampled_from(["concatenate", "stack"] if n else ["stack"]))
        axis = data.draw(st.integers(-n, n - 1) if name == "concatenate" else st.integers(-n - 1, n))
        plain = getattr(np, name)
        fitting = [y for y in self.live if accepted(plain, [x.kept, y.kept], axis)]
        operands = [x, *(self.pick(data, fitting) for _ in range(more)), *[numbers(x.kept.shape, seed)] * array]
        self.apply(
            f"{name} {axis}",
            lambda *ts: getattr(tg, name)(ts, axis),
            linear(lambda *parts: plain(parts, axis)),
            *operands,
        )

    @precondition(lambda self: len(self.live) > 4)
    @rule()
    def record_nothing(self) -> None:
        self.recording = False  # in the next step

    @rule(data=st.data(), way=st.sampled_from([copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))]))
    def clone(self, data: Any, way: Callable[[Tensor], Tensor]) -> None:
        """Copy a Tensor; deeply, if it has a gradient, because a shallow copy shares that. A history is refused."""
        if x := self.pick(data, [y for y in self.live if (y.grad is None) == (way is not copy.deepcopy)]):
            if x.tensor.op is not None:
                with pytest.raises(TypeError, match="would lose its history"):
                    way(x.tensor)
                return
            node = Node(len(self.made), way(x.tensor), x.seed)
            assert node.bytes == x.bytes and node.requires_grad == x.requires_grad
            assert node.tensor.op is None and not np.shares_memory(node.tensor.data, x.tensor.data)
            node.grad, node.scale = x.grad, x.scale
            self.made.append(node)

    @precondition(lambda self: len(self.live) > 1)
    @rule(data=st.data())
    def forget(self, data: Any) -> None:
        """Drop a Tensor: it goes away, and what only its record held, at once."""
        self.pick(data).tensor = None
        held = self.history(*self.live, held=True)
        for node in self.made:
            assert node in held or node.weak() is None, f"{node} is still alive"

    # Differentiating it
    @rule(data=st.data(), retain_graph=st.sampled_from([True] * 5 + [False]), seed=seeds)
    def backward(self, data: Any, retain_graph: bool, seed: int) -> None:
        root = self.pick(data, deep=True)
        possible, _, c = self.pull_back(root, seed, retain_graph, root.tensor.backward)
        for leaf in self.history(root) if possible else []:
            if not leaf.parents:
                d = self.derivatives(root, {leaf: leaf.direction}).d
                leaf.grad = np.sum(c * d) + (leaf.grad or 0.0)
                leaf.scale += np.sum(np.abs(c * d))
        self.separate(c)

    @precondition(lambda self: any(x.grad is not None for x in self.live))
    @rule(data=st.data())
    def zero_grad(self, data: Any) -> None:
        x = self.pick(data, [y for y in self.live if y.grad is not None])
        x.tensor.grad = x.grad = None
        x.scale = 0.0

    @rule(data=st.data(), retain_graph=st.sampled_from([True] * 5 + [False]), seed=seeds)
    def gradients(self, data: Any, retain_graph: bool, seed: int) -> None:
        """Gradients with respect to leaves and intermediate results, which the output may depend on or not."""
        root = self.pick(data, deep=True)
        able = [x for x in self.history(root) + self.live if x.requires_grad and x.tensor is not None]
        inputs = data.draw(st.lists(st.sampled_from(able), min_size=1, max_size=3)) if able else []
        possible, found, c = self.pull_back(
            root, seed, retain_graph, partial(tg.grad, root.tensor, [x.tensor for x in inputs])
        )
        for x, g in zip(inputs, found or [], strict=possible):
            d = self.derivatives(root, {x: x.direction}).d
            assert g.shape == x.kept.shape and g.dtype == np.float64 and not g.requires_grad
            close(np.sum(g.data * x.direction), np.sum(c * d), np.sum(np.abs(c * d)))
        self.separate(c, *(g.data for g in found or []))

    @invariant()
    def all_is_as_it_was_and_gradients_add_up(self) -> None:
        for node in self.live:
            assert node.tensor.data.tobytes() == node.bytes, f"{node} has changed"
            assert node.tensor.requires_grad == node.requires_grad
            g = node.tensor.grad
            assert (g is None) == (node.grad is None), node
            if g is not None:
                assert g.shape == node.kept.shape and g.dtype == np.float64 and not g.requires_grad and g.op is None
                close(np.sum(g.data * node.direction), node.grad, node.scale)
        self.separate()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=30, deadline=None)


# Can it fail? ---------------------------------------------------------------------------------------------------------
backpropagate = backward._backpropagate


def put_the_last(x: Array, *, index: Any, shape: tuple[int, ...]) -> Array:
    out = np.zeros(shape)
    out[index] = x
    return out


BUGS: dict[str, tuple[Any, str, Any]] = {
    "a wrong factor": (tg.tanh, "rules", [lambda g, out, x: 1.001 * g * (1 - out * out)]),
    "a second derivative only": (tg.sigmoid, "rules", [lambda g, out, x: g * out.detach() * (1 - out)]),
    "gradients of a Tensor used twice": (backward, "_sum", lambda x, y, by_op: y),
    "broadcasting not undone": (record._sum_to, "forward", lambda x, *, shape: np.resize(x, shape)),
    "repeated indices do not add up": (indexing._put_at, "forward", put_the_last),
    "graphs are not freed": (backward, "_backpropagate", lambda *args: backpropagate(*args[:-1], True)),
    "no_grad records": (tg, "no_grad", nullcontext),
    "gradients are shared": (record.copy, "forward", lambda x: x),
    "an op writes to its input": (
        tg.negative,
        "forward",
        lambda x: np.negative(x, out=x if x.flags.writeable else None),
    ),
    "ties go to both": (
        tg.maximum,
        "rules",
        [tg.maximum.rules[0], lambda g, out, x, y: tg.sum_to(g * tg.less_equal(x, y), y.shape)],
    ),
}


LONG_SEARCHES = ("repeated indices do not add up", "ties go to both")  # up to half a minute


@pytest.mark.parametrize("bug", [pytest.param(bug, marks=[pytest.mark.slow] * (bug in LONG_SEARCHES)) for bug in BUGS])
def test_the_machine_finds(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BUGS[bug])
    enough = settings(
        max_examples=1000,
        stateful_step_count=40,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
    )
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run_state_machine_as_test(Machine, settings=enough)
