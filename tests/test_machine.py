"""Arbitrary programs on the engine, step by step, against Taylor polynomials in plain NumPy, which share no code with it."""

from __future__ import annotations

import copy
import gc
import itertools
import math
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
from hypothesis.extra import numpy as hnp
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor, ops, tensor

Array = npt.NDArray[Any]
seeds = st.integers(0, 2**32 - 1)
WILD = 100.0  # values and derivatives beyond it are checked once, then not built upon: rounding errors would grow without bound


# The oracle: derivatives along a line, from the leaves on --------------------------------------------------------------------------------
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


def product(function: Callable[..., Any]) -> Taylor:
    return lambda u, v: Jet(
        function(u.f, v.f),
        function(u.d, v.f) + function(u.f, v.d),
        function(u.dd, v.f) + 2 * function(u.d, v.d) + function(u.f, v.dd),
    )


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


def sigma(x: Array) -> Any:
    return 1 / (1 + np.exp(-x))


def first_extreme(u: Jet, function: Callable[..., Any], axis: Any, keepdims: bool) -> Jet:
    """Follow the largest (or smallest) element, of equal ones the first."""
    order = np.where(u.f == function(u.f, axis=axis, keepdims=True), np.arange(u.f.size).reshape(u.f.shape), u.f.size)
    first = order == order.min(axis=axis, keepdims=True)
    return linear(lambda part: np.sum(part * first, axis=axis, keepdims=keepdims))(u)


def total(u: Jet, axis: Any, keepdims: bool = True) -> Jet:
    return linear(lambda part: np.sum(part, axis=axis, keepdims=keepdims))(u)


# What programs are made of: the engine's function beside the oracle's --------------------------------------------------------------------
ONE: dict[str, tuple[Callable[[Tensor], Tensor], Taylor]] = {
    "negative": (operator.neg, linear(np.negative)),
    "exp": (tg.exp, exp),
    "log": (lambda x: tg.log(1 + x * x), lambda u: log(one_plus_square(u))),
    "sqrt": (lambda x: (1 + x * x).sqrt(), smooth(lambda x: np.hypot(1, x), lambda x: x / np.hypot(1, x), lambda x: np.hypot(1, x) ** -3)),
    "sin": (tg.sin, sine),
    "cos": (tg.cos, smooth(np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x))),
    "tanh": (tg.tanh, smooth(np.tanh, lambda x: np.cosh(x) ** -2, lambda x: -2 * np.tanh(x) * np.cosh(x) ** -2)),
    "sigmoid": (tg.sigmoid, smooth(sigma, lambda x: sigma(x) * sigma(-x), lambda x: sigma(x) * sigma(-x) * (sigma(-x) - sigma(x)))),
    "relu": (tg.relu, smooth(lambda x: np.where(x > 0, x, 0), lambda x: x > 0)),
    "abs": (abs, smooth(np.abs, np.sign)),
    "sign": (tg.sign, smooth(np.sign, np.zeros_like)),
    "detach": (Tensor.detach, linear(np.copy)),
    "clip": (lambda x: x.clip(-1, 1), smooth(lambda x: np.clip(x, -1, 1), lambda x: np.abs(x) <= 1)),
    "power 0": (lambda x: x**0, smooth(np.ones_like, np.zeros_like)),
    "power 1": (lambda x: x**1, smooth(np.copy, np.ones_like)),
    "power 2": (lambda x: x**2, times_itself := lambda u: times(u, u)),
    "power 3.0": (lambda x: x**3.0, lambda u: times(u, times_itself(u))),
    "power of 2": (lambda x: 2**x, lambda u: exp(linear(lambda part: np.log(2) * part)(u))),
}
TWO: dict[str, tuple[Callable[[Any, Any], Tensor], Taylor]] = {
    "+": (operator.add, linear(np.add)),
    "-": (operator.sub, linear(np.subtract)),
    "*": (operator.mul, times),
    "/": (lambda x, y: x / (1 + y * y), lambda u, v: times(u, reciprocal(one_plus_square(v)))),
    "**": (lambda x, y: (1.5 + tg.sin(x)) ** y, lambda u, v: exp(times(v, log(linear(np.add)(constant(1.5), sine(u)))))),
    "@": (operator.matmul, product(np.matmul)),
    "maximum": (tg.maximum, chosen(np.greater_equal)),
    "minimum": (tg.minimum, chosen(np.less_equal)),
    "where": (lambda x, y: tg.where(x >= 0.5, x, y), chosen(lambda x, y: x >= 0.5)),
}
REDUCE: dict[str, Callable[[Jet, Any, bool], Jet]] = {
    "sum": total,
    "mean": lambda u, axis, keepdims: linear(lambda part: np.mean(part, axis=axis, keepdims=keepdims))(u),
    "max": lambda u, axis, keepdims: first_extreme(u, np.max, axis, keepdims),
    "min": lambda u, axis, keepdims: first_extreme(u, np.min, axis, keepdims),
    "logsumexp": lambda u, axis, keepdims: log(total(exp(u), axis, keepdims)),
    "softmax": lambda u, axis, keepdims: times(exp(u), reciprocal(total(exp(u), axis))),
    "log_softmax": lambda u, axis, keepdims: linear(np.subtract)(u, log(total(exp(u), axis))),
}


def numbers(shape: Any, seed: int) -> Array:
    """Return multiples of 1/2, zeros and equal ones among them: ties and kinks have documented derivatives, too."""
    return np.asarray(np.random.default_rng(seed).integers(-3, 4, shape) / 2)


def accepted(function: Callable[..., Any], *args: Any) -> bool:
    try:
        function(*args)
    except ValueError:
        return False
    return True


def call(module: Any, name: str, args: tuple[Any, ...], x: Any) -> Any:
    return getattr(module, name)(x, *args)


@st.composite
def rearrangements(draw: Any, shape: tuple[int, ...]) -> tuple[str, tuple[Any, ...]]:
    """Draw the name of a function that moves or repeats elements, the same here and in NumPy, and its arguments."""
    n = len(shape)
    length_one = [(axis,) for axis in range(-n, n) if shape[axis] == 1]
    arguments: dict[str, Any] = {
        "reshape": st.sampled_from([(-1,), (math.prod(shape),), shape[::-1], (*shape, 1), (1, -1)]).map(lambda new: (new,)),
        "transpose": st.permutations(range(n)).map(lambda axes: () if sorted(axes, reverse=True) == axes else (tuple(axes),)),
        "expand_dims": st.tuples(st.integers(-n - 1, n)),
        "squeeze": st.sampled_from([(), *length_one]),
        "broadcast_to": st.tuples(st.sampled_from([(), (1,), (2,), (0,)]), st.integers(0, 3)).map(
            lambda new: ((*new[0], *(new[1] if length == 1 else length for length in shape)),)
        ),
    }
    if n:
        arguments["swapaxes"] = st.tuples(st.integers(-n, n - 1), st.integers(-n, n - 1))
    name = draw(st.sampled_from(sorted(arguments)))
    return name, draw(arguments[name])


@st.composite
def indices(draw: Any, shape: tuple[int, ...]) -> Any:
    """Draw slices, integers, None and ``...``, integer arrays with repeats, or masks."""
    kinds = [hnp.basic_indices(shape, allow_newaxis=True, max_dims=4)]
    if shape:
        kinds.append(hnp.arrays(np.bool_, draw(st.sampled_from([shape, shape[:1]]))))
    if shape and shape[0]:
        repeats = hnp.arrays(np.intp, st.integers(0, 4), elements=st.integers(-shape[0], shape[0] - 1))
        kinds += [repeats, repeats.map(lambda rows: (rows, ...)), repeats.map(lambda rows: (None, rows))]
    return draw(st.one_of(kinds))


def axes(ndim: int) -> Any:
    """Strategy for None, an axis, or a tuple of different ones, counted from either end."""
    if not ndim:
        return st.sampled_from([None, ()])
    several = st.tuples(st.sets(st.integers(0, ndim - 1)), st.booleans())
    return st.none() | st.integers(-ndim, ndim - 1) | several.map(lambda drawn: tuple(axis - ndim * drawn[1] for axis in drawn[0]))


# The machine -----------------------------------------------------------------------------------------------------------------------------
class Node:
    """A Tensor beside what it must be: its values, bit for bit, how it was made, and the gradient that it must have."""

    def __init__(self, number: int, value: Tensor, seed: int = 0, taylor: Taylor = constant, operands: tuple[Any, ...] = ()) -> None:
        self.number, self.seed, self.taylor, self.operands = number, seed, taylor, operands
        self.tensor: Tensor | None = value  # None: dropped
        self.weak = weakref.ref(value)
        self.kept, self.bytes, self.requires_grad = value.data.copy(), value.data.tobytes(), value.requires_grad
        self.parents = [x for x in operands if isinstance(x, Node)] if self.requires_grad else []
        self.direction = np.asarray(np.random.default_rng(seed).uniform(-1, 1, value.shape))
        self.line = Jet(self.kept, self.direction * self.requires_grad, np.zeros_like(self.kept))  # where all the leaves move
        self.grad: float | None = None  # of `.grad`, along the direction
        self.scale = 0.0
        self.freed = False

    def __repr__(self) -> str:
        return f"n{self.number}"


def close(actual: Any, expected: Any, scale: float, rtol: float = 1e-9) -> None:
    assert np.all(np.abs(actual - expected) <= rtol * (1 + scale + np.abs(expected))), f"{actual} should be {expected}"


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

    def pick(self, data: Any, fits: Callable[[Node], Any] = lambda node: True, deep: bool = False) -> Any:
        """Draw a fitting Tensor, most often one of the youngest (or those of the longest history) with a derivative other than zero."""
        nodes = [node for node in reversed(self.live) if fits(node)]
        nodes.sort(key=lambda node: (not (self.differentiable(node) and node.line.d.any()), -len(self.history(node)) * deep))
        return data.draw(st.sampled_from(nodes[:4]) | st.sampled_from(nodes)) if nodes else None

    def mode(self) -> Any:
        recording, self.recording = self.recording, True
        return nullcontext() if recording else tg.no_grad()

    def apply(self, name: str, function: Callable[..., Any], taylor: Taylor, *operands: Any, detached: bool = False) -> None:
        """Apply an op, check its values, and take the result in."""
        nodes = [x for x in operands if isinstance(x, Node)]
        recorded = self.recording and not detached and any(x.requires_grad for x in nodes)
        with self.mode():
            out = function(*(x.tensor if isinstance(x, Node) else x for x in operands))
        if not detached and any(out is x.tensor for x in nodes):
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
        """Check the derivative along the directions of all the leaves, and its derivative (of leaves only: a rule may use the result of
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
        """Follow `output` while each of the `moving` is shifted by t times its direction. The values are those of the engine, which have
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
        found, seen = list(nodes), set(nodes)
        for node in found:
            further = [x for x in node.parents if x not in seen and (not node.freed if held else x.requires_grad)]
            seen.update(further)
            found += dict.fromkeys(further)
        return found

    def differentiable(self, node: Node) -> bool:
        return node.requires_grad and not any(x.freed for x in self.history(node))

    def refused(self, node: Node, call: Callable[[], Any]) -> bool:
        """If `node` cannot be differentiated, `call` must say so, and why."""
        if self.differentiable(node):
            return False
        with pytest.raises(RuntimeError, match="was freed" if node.requires_grad else "requires a gradient"):
            call()
        return True

    def free(self, node: Node) -> None:
        for x in self.history(node):
            x.freed = bool(x.parents)

    def cotangent(self, node: Node, seed: int) -> tuple[Any, Array]:
        """Return a gradient to start from, in one of several forms, and its values."""
        values = Tensor(np.random.default_rng(seed).uniform(-1, 1, node.kept.shape))
        if values.size == 1 and seed % 3 == 0:
            return None, np.ones_like(values.data)
        return (values if seed % 2 else values.data), values.data

    # Building a program
    @initialize(shape=st.lists(st.integers(1, 3), max_size=3), seed=seeds)
    def start(self, shape: list[int], seed: int) -> None:
        self.made.append(Node(0, Tensor(numbers(shape, seed), requires_grad=True), seed))

    @rule(shape=st.lists(st.sampled_from([2, 3, 2, 3, 1, 0]), max_size=3), requires_grad=st.sampled_from([True, True, False]), seed=seeds)
    def leaf(self, shape: list[int], requires_grad: bool, seed: int) -> None:
        self.made.append(Node(len(self.made), Tensor(numbers(shape, seed), requires_grad), seed))

    @rule(data=st.data(), names=st.lists(st.sampled_from(sorted(ONE)), min_size=1, max_size=3))
    def one(self, data: Any, names: list[str]) -> None:
        for name in names:
            self.apply(name, *ONE[name], self.pick(data), detached=name == "detach")

    @rule(data=st.data(), names=st.lists(st.sampled_from([*TWO, "*", "@"]), min_size=1, max_size=4), seed=seeds)
    def two(self, data: Any, names: list[str], seed: int) -> None:
        for name in names:
            self.combine(data, name, self.pick(data), data.draw(st.sampled_from("TTTan")), data.draw(st.booleans()), seed)

    def combine(self, data: Any, name: str, x: Node, kind: str, reflected: bool, seed: int) -> None:
        """Combine `x` with a Tensor (maybe itself), an array or a number that fits, in either order."""
        shape = x.kept.shape

        def fits(y: Any) -> bool:
            return accepted(np.matmul if name == "@" else np.add, *((y, x.kept) if reflected else (x.kept, y)))

        if kind == "T":
            other = self.pick(data, lambda node: fits(node.kept))
        elif kind == "a":
            shapes = [(), shape, (2, *shape), shape[1:], (1,) * len(shape), (*shape[:-1], 1), shape[::-1], shape[-1:], (*shape[-1:], 2)]
            other = data.draw(st.sampled_from([y for y in (numbers(s, seed) for s in shapes) if fits(y)] or [None]))
        else:
            other = data.draw(st.sampled_from([2, -0.5, 1, 0, np.float64(1.5)])) if fits(2.0) else None
        if other is not None:
            self.apply(name, *TWO[name], *((other, x) if reflected else (x, other)))

    @rule(data=st.data(), names=st.lists(st.sampled_from(sorted(REDUCE)), min_size=1, max_size=3), keepdims=st.booleans())
    def reduce(self, data: Any, names: list[str], keepdims: bool) -> None:
        for name in names:
            x = self.pick(data)
            axis = data.draw(axes(x.kept.ndim))
            if name == "sum" or accepted(partial(np.max, x.kept, axis=axis)):  # of nothing, there is but a sum
                args = (axis,) if name.endswith("softmax") else (axis, keepdims)
                self.apply(f"{name} {args}", partial(call, tg, name, args), partial(REDUCE[name], axis=axis, keepdims=keepdims), x)

    @rule(data=st.data(), repeat=st.integers(1, 3))
    def rearrange(self, data: Any, repeat: int) -> None:
        for _ in range(repeat):
            x = self.pick(data)
            name, args = data.draw(rearrangements(x.kept.shape))
            self.apply(f"{name} {args}", partial(call, tg, name, args), linear(partial(call, np, name, args)), x)

    @rule(data=st.data())
    def index(self, data: Any) -> None:
        x = self.pick(data)
        index = data.draw(indices(x.kept.shape))
        given = copy.deepcopy(index)
        self.apply(f"[{index!r}]", lambda t: t[given], linear(lambda part: np.asarray(part)[index]), x)
        for part in given if isinstance(given, tuple) else (given,):
            if isinstance(part, np.ndarray):
                part[...] = 0  # the engine has its own

    @rule(data=st.data(), value=st.sampled_from([0.0, 1.5]))
    def pad(self, data: Any, value: float) -> None:
        x = self.pick(data, lambda node: node.kept.ndim)
        if x:
            width = data.draw(st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 1))] * x.kept.ndim))
            border = constant(np.pad(np.zeros_like(x.kept), width, constant_values=value))
            inside = linear(lambda part: np.pad(part, width))
            self.apply(f"pad {width}", lambda t: tg.pad(t, width, value), lambda u: linear(np.add)(inside(u), border), x)

    @rule(data=st.data(), more=st.integers(0, 2), array=st.booleans(), seed=seeds)
    def join(self, data: Any, more: int, array: bool, seed: int) -> None:
        x = self.pick(data)
        n = x.kept.ndim
        name = data.draw(st.sampled_from(["concatenate", "stack"] if n else ["stack"]))
        axis = data.draw(st.integers(-n, n - 1) if name == "concatenate" else st.integers(-n - 1, n))
        plain = getattr(np, name)
        others = [self.pick(data, lambda y: accepted(plain, [x.kept, y.kept], axis)) for _ in range(more)]
        operands = [x, *others, *[numbers(x.kept.shape, seed)] * array]
        self.apply(f"{name} {axis}", lambda *ts: getattr(tg, name)(ts, axis), linear(lambda *parts: plain(parts, axis)), *operands)

    @precondition(lambda self: len(self.live) > 4)
    @rule()
    def record_nothing(self) -> None:
        self.recording = False  # in the next step

    @rule(data=st.data(), way=st.sampled_from([copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))]))
    def clone(self, data: Any, way: Callable[[Tensor], Tensor]) -> None:
        """Copy a Tensor; deeply, if it has a gradient, because a shallow copy shares that."""
        x = self.pick(data, lambda node: (node.grad is None) == (way is not copy.deepcopy))
        if x:
            node = Node(len(self.made), way(x.tensor), x.seed)
            assert node.bytes == x.bytes and node.requires_grad == (x.requires_grad and not x.parents)
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
        given, c = self.cotangent(root, seed)
        with self.mode():
            if self.refused(root, lambda: root.tensor.backward(given, retain_graph=retain_graph)):
                return
            root.tensor.backward(given, retain_graph=retain_graph)
        for leaf in self.history(root):
            if not leaf.parents:
                d = self.derivatives(root, {leaf: leaf.direction}).d
                leaf.grad = np.sum(c * d) + (leaf.grad or 0.0)
                leaf.scale += np.sum(np.abs(c * d))
                assert leaf.tensor is None or not np.shares_memory(c, leaf.tensor.grad.data)
        if not retain_graph:
            self.free(root)

    @precondition(lambda self: any(x.grad is not None for x in self.live))
    @rule(data=st.data())
    def zero_grad(self, data: Any) -> None:
        x = self.pick(data, lambda node: node.grad is not None)
        x.tensor.grad = x.grad = None
        x.scale = 0.0

    @rule(data=st.data(), retain_graph=st.sampled_from([True] * 5 + [False]), seed=seeds)
    def gradients(self, data: Any, retain_graph: bool, seed: int) -> None:
        """Gradients with respect to leaves and intermediate results, which the output may depend on or not."""
        root = self.pick(data, deep=True)
        below = [x for x in self.history(root) if x.requires_grad and x.tensor is not None]
        anywhere = below + [x for x in self.live if x.requires_grad]
        inputs = data.draw(st.lists(st.sampled_from(anywhere), min_size=1, max_size=3)) if anywhere else []
        given, c = self.cotangent(root, seed)

        def call() -> list[Tensor]:
            return tg.grad(root.tensor, [x.tensor for x in inputs], gradient=given, retain_graph=retain_graph)

        with self.mode():
            if self.refused(root, call):
                return
            found = call()
        for x, g in zip(inputs, found, strict=True):
            d = self.derivatives(root, {x: x.direction}).d
            assert g.shape == x.kept.shape and g.dtype == np.float64 and not g.requires_grad
            close(np.sum(g.data * x.direction), np.sum(c * d), np.sum(np.abs(c * d)))
        self.separate([g.data for g in found], [c, *(x.tensor.grad.data for x in self.live if x.grad is not None)])
        if not retain_graph:
            self.free(root)

    def separate(self, gradients: list[Array], others: list[Array]) -> None:
        for a, b in [*itertools.combinations(gradients, 2), *itertools.product(gradients, others + [x.tensor.data for x in self.live])]:
            assert not np.shares_memory(a, b), "a gradient shares memory"

    @invariant()
    def data_stay_as_they_are(self) -> None:
        for node in self.live:
            assert node.tensor.data.tobytes() == node.bytes, f"{node} has changed"
            assert node.tensor.requires_grad == node.requires_grad

    @invariant()
    def gradients_are_what_was_accumulated(self) -> None:
        for node in self.live:
            g = node.tensor.grad
            assert (g is None) == (node.grad is None), node
            if g is not None:
                assert g.shape == node.kept.shape and g.dtype == np.float64 and not g.requires_grad and g.op is None
                close(np.sum(g.data * node.direction), node.grad, node.scale)
        self.separate([x.tensor.grad.data for x in self.live if x.grad is not None], [])


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=30, deadline=None)


# Can it fail? ----------------------------------------------------------------------------------------------------------------------------
distribute, backpropagate = tensor._distribute, tensor._backpropagate


def forget_other_uses(node: Tensor, g: Tensor, useful: set[int], pending: dict[int, Tensor]) -> None:
    own: dict[int, Tensor] = {}
    distribute(node, g, useful, own)
    pending.update(own)


def never_free(root: Tensor, nodes: list[Tensor], cotangent: Tensor, wanted: set[int], create_graph: bool, retain_graph: bool) -> Any:
    return backpropagate(root, nodes, cotangent, wanted, create_graph, True)


def first_of_repeated(x: Array, *, shape: tuple[int, ...]) -> Array:
    new = x.ndim - len(shape)
    return x[tuple(0 if i < new else slice(0, shape[i - new]) for i in range(x.ndim))] if x.size else np.zeros(shape)


def put_the_last(x: Array, *, index: Any, shape: tuple[int, ...]) -> Array:
    out = np.zeros(shape)
    out[index] = x
    return out


BUGS: dict[str, tuple[Any, str, Any]] = {
    "a wrong factor": (tg.tanh, "rules", [lambda g, out, x: 1.001 * g * (1 - out * out)]),
    "a second derivative only": (tg.sigmoid, "rules", [lambda g, out, x: g * out.detach() * (1 - out)]),
    "gradients of a Tensor used twice": (tensor, "_distribute", forget_other_uses),
    "broadcasting not undone": (ops._sum_to, "forward", first_of_repeated),
    "repeated indices do not add up": (ops._put_at, "forward", put_the_last),
    "graphs are not freed": (tensor, "_backpropagate", never_free),
    "no_grad records": (tg, "no_grad", nullcontext),
    "gradients are shared": (tensor._copy, "forward", lambda x: x),
    "an op writes to its input": (tg.negative, "forward", lambda x: np.negative(x, out=x if x.flags.writeable else None)),
    "ties go to both": (tg.maximum, "rules", [tg.maximum.rules[0], lambda g, out, x, y: ops.sum_to(g * tg.less_equal(x, y), y.shape)]),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_machine_finds(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BUGS[bug])
    enough = settings(max_examples=1000, stateful_step_count=40, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run_state_machine_as_test(Machine, settings=enough)
