"""Planted errors: right forwards with wrong vector-Jacobian products, for judging what checks gradients; and right
cases, for false alarms.

A `Mutant` is a known function in which the rules of one primitive are wrong in one way. `correct_case` draws functions
whose gradients are right, at ordinary and at awkward points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.tensor import recording

Array = npt.NDArray[Any]
Function = Callable[..., Tensor]
Draw = Callable[[np.random.Generator], list[Array]]
Case = tuple[str, Function, list[Array], int]


class Mutant(NamedTuple):
    """A wrong derivative.

    `original` and ``build()`` have the same values, and different derivatives of the given order.
    """

    name: str
    kind: str
    original: Function
    build: Callable[[], Function]  # anew for every check: some keep a state
    inputs: Draw
    order: int


class Within(NamedTuple):
    """An op as a part of a larger function: ``function(op, *inputs)``."""

    op: Function
    function: Callable[..., Tensor]


# How they are made ----------------------------------------------------------------------------------------------------
def vjp(fn: Function, position: int, g: Tensor, *xs: Tensor) -> Tensor:
    """Return the right vector-Jacobian product of `fn` with respect to one argument, itself differentiable by `g` and
    `xs`.
    """
    with recording(True):
        own = [tg.reshape(x, x.shape) if x.requires_grad else Tensor(x, x.dtype.kind == "f") for x in xs]
        out = fn(*own)
        if not out.requires_grad:
            return Tensor(np.zeros_like(xs[position].data))
        return tg.grad(out, [own[position]], create_graph=True, gradient=g)[0]


def planted(fn: Function, rules: Any) -> tg.Primitive:
    """Make a primitive with the values of `fn`, and `rules` (one for all arguments, or a list): ``rule(right, g, out,
    *xs)``.

    ``right`` is what the rule should return; None stands for a rule that does.
    """
    op = tg.primitive(lambda *xs: fn(*xs).data)

    def rule(position: int, g: Tensor, out: Tensor, *xs: Tensor) -> Tensor:
        chosen = rules[position] if isinstance(rules, list) else rules
        right = vjp(fn, position, g, *xs)
        return right if chosen is None else chosen(right, g, out, *xs)

    op.defvjp_each(rule)
    return op


def forgetful(fn: Function) -> tg.Primitive:
    """Make a primitive whose right rules look at the arguments of its latest call, not of their own."""
    latest: list[Tensor] = []

    def forward(*xs: Array) -> Array:
        latest[:] = [Tensor(x) for x in xs]
        return fn(*latest).data

    op = tg.primitive(forward)
    op.defvjp_each(lambda position, g, out, *xs: vjp(fn, position, g, *latest))
    return op


def normal(*shapes: tuple[int, ...]) -> Draw:
    return lambda rng: [np.asarray(rng.normal(size=shape)) for shape in shapes]


def between(low: float, high: float, *shapes: tuple[int, ...]) -> Draw:
    return lambda rng: [np.asarray(rng.uniform(low, high, shape)) for shape in shapes]


def signed(*shapes: tuple[int, ...]) -> Draw:
    """Both signs, and nothing near 0."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        signs = rng.permutation(np.resize([1.0, -1.0], int(np.prod(shape))))
        return signs.reshape(shape) * rng.uniform(0.3, 1.5, shape)

    return lambda rng: [draw(rng, shape) for shape in shapes]


def distinct(*shapes: tuple[int, ...]) -> Draw:
    """No two numbers, of all arrays together, nearer to each other than 0.1."""
    sizes = [int(np.prod(shape)) for shape in shapes]

    def draw(rng: np.random.Generator) -> list[Array]:
        numbers = (rng.permutation(sum(sizes)) - sum(sizes) // 2) * 0.2 + rng.uniform(-0.05, 0.05, sum(sizes))
        return [
            part.reshape(shape) for part, shape in zip(np.split(numbers, np.cumsum(sizes)[:-1]), shapes, strict=True)
        ]

    return draw


def fixed(*values: Any) -> Draw:
    return lambda rng: [np.array(v, np.float64) for v in values]


def slid(t: Tensor, axis: int, by: int = 1) -> Tensor:
    """Move everything one place on along an axis, zeros coming in: what is cut out is off by one."""
    widths = [(0, 0)] * t.ndim
    widths[axis] = (by, 0) if by > 0 else (0, -by)
    start = [slice(None)] * t.ndim
    start[axis] = slice(None, t.shape[axis]) if by > 0 else slice(-by, None)
    return tg.pad(t, widths)[tuple(start)]


def once(t: Tensor, position: Any) -> Tensor:
    """Zeros, but for what is at `position`."""
    mask = np.zeros(t.shape)
    mask[position] = 1
    return t * mask


def overwrite(t: Tensor, values: Any) -> None:
    t.data[...] = values


def after(effect: None, result: Tensor) -> Tensor:
    """Return `result`; the first argument is there for what computing it does."""
    return result


def quotient(g: Tensor, out: Tensor, x: Tensor) -> Tensor:
    """``g * out / x``, and 0 where x is 0."""
    return tg.where(x == 0, 0.0, g * out / tg.where(x == 0, 1.0, x))


def product(x: Tensor) -> Tensor:
    return x[0] * x[1] * x[2]


def as_number(compare: Function) -> Function:
    return lambda x, y: tg.astype(compare(x, y), np.float64)


def dropping(x: Tensor) -> Tensor:
    return tg.dropout(x, 0.4, rng=np.random.default_rng(5))


def conv(**settings: Any) -> Function:
    return lambda x, w, *bias: tg.conv2d(x, w, *bias, **settings)


class Workspace:
    """Results in a buffer that the next call writes to."""

    def __init__(self) -> None:
        self.buffer = Tensor(np.zeros(3))

    def __call__(self, right: Tensor, *ignored: Tensor) -> Tensor:
        overwrite(self.buffer, right.data)
        return self.buffer.detach()


LATEST = "the rules see the arguments of the latest call"
IMAGE, SMALL = (2, 2, 5, 5), (2, 1, 3, 4)
ROWS, ONES = np.array([0.2, 0.5, 1.5]), np.ones((3, 3))

# kind -> (name of the op: what is wrong, the function, rules, inputs, order that is needed to see it if not the first)
TABLE: dict[str, list[tuple[Any, ...]]] = {
    "factor": [
        ("tanh: a thousandth too large", tg.tanh, lambda r, *a: r * 1.001, normal((3,))),
        ("sqrt: without 1/2", tg.sqrt, lambda r, g, out, x: g / out, between(0.5, 2, (4,))),
        ("power: without the exponent", lambda x: x**3, lambda r, g, out, x: g * x**2, normal((3,))),
        (
            "power: without the logarithm",
            tg.power,
            [None, lambda r, g, out, x, y: g * out],
            between(0.5, 2, (3,), (3,)),
        ),
        (
            "divide: by y instead of its square",
            tg.divide,
            [None, lambda r, g, out, x, y: -g * x / y],
            between(0.5, 2, (3,), (3,)),
        ),
        ("log: with an epsilon", tg.log, lambda r, g, out, x: g / (x + 1e-5), between(0.5, 2, (3,))),
        ("sum: divided by the count", lambda x: tg.sum(x, 0), lambda r, g, out, x: r / 3, normal((3, 2))),
        ("mean: not divided", lambda x: tg.mean(x, 1), lambda r, g, out, x: r * x.shape[1], normal((2, 3))),
        (
            "mean: divided by one of two lengths",
            lambda x: tg.mean(x, (0, 2)),
            lambda r, g, out, x: r * x.shape[0],
            normal((2, 3, 4)),
        ),
        ("avg_pool2d: not divided", lambda x: tg.avg_pool2d(x, 2), lambda r, *a: r * 4, normal((1, 1, 4, 4))),
        (
            "avg_pool2d: divided by a square",
            lambda x: tg.avg_pool2d(x, (2, 3)),
            lambda r, *a: r * 6 / 4,
            normal((1, 2, 4, 6)),
        ),
        (
            "cross_entropy: not divided by the batch",
            lambda x: tg.cross_entropy(x, [0, 2, 1]),
            lambda r, *a: r * 3,
            normal((3, 3)),
        ),
        ("dropout: without the scale", dropping, lambda r, *a: r * 0.6, normal((8,))),
        ("astype: halved", lambda x: tg.astype(x, np.float64), lambda r, *a: r / 2, normal((3,))),
        (
            "conv2d: mean for the sum of the bias",
            conv(),
            [None, None, lambda r, g, *a: r / g.shape[0]],
            normal(IMAGE, (2, 2, 3, 3), (2,)),
        ),
    ],
    "sign": [
        ("negative: lost", tg.negative, lambda r, g, *a: g, normal((3,))),
        ("cos: lost", tg.cos, lambda r, *a: -r, normal((3,))),
        ("subtract: lost for the second", tg.subtract, [None, lambda r, *a: -r], normal((3,), (3,))),
        ("divide: lost for the second", tg.divide, [None, lambda r, *a: -r], between(0.5, 2, (2, 2), (2,))),
    ],
    "broadcasting": [
        ("add: summed over the wrong axis", tg.add, [None, lambda r, g, *a: tg.sum(g, 1)], normal((3, 3), (3,))),
        ("add: mean for sum", tg.add, [None, lambda r, *a: r / 3], normal((3, 2), (2,))),
        ("multiply: not summed", tg.multiply, [None, lambda r, g, out, x, y: (g * x)[0]], normal((3, 2), (2,))),
        (
            "minimum: only the last row",
            tg.minimum,
            [None, lambda r, g, o, x, y: (g * (x > y))[-1]],
            fixed([[2, 1], [3, 4]], [1.5, 2]),
        ),
        (
            "where: only the first row",
            lambda x, y: tg.where(ONES > 0, x, y),
            [lambda r, g, *a: g[0], None],
            normal((3,), (3, 3)),
        ),
        (
            "broadcast_to: only the first copy",
            lambda x: tg.broadcast_to(x, (3, 2)),
            lambda r, g, *a: g[0],
            normal((2,)),
        ),
        ("broadcast_to: of length 1, mean", lambda x: tg.broadcast_to(x, (2, 4)), lambda r, *a: r / 4, normal((2, 1))),
        ("sum_to: only to the first", lambda x: tg.sum_to(x, (1, 2)), lambda r, *a: once(r, 0), normal((3, 2))),
        ("sum_to: spread evenly", lambda x: tg.sum_to(x, (2,)), lambda r, *a: r / 3, normal((3, 2))),
        (
            "matmul: last of a stack",
            tg.matmul,
            [None, lambda r, g, o, x, y: x[-1].T @ g[-1]],
            normal((3, 2, 2), (2, 2)),
        ),
    ],
    "axes": [
        ("sum: spread along the wrong axis", lambda x: tg.sum(x, 0), lambda r, *a: r.T, normal((3, 3))),
        (
            "mean: over all axes",
            lambda x: tg.mean(x, 1),
            lambda r, g, out, x: tg.broadcast_to(tg.mean(g) / 3, x.shape),
            normal((3, 3)),
        ),
        (
            "max: only one for all rows",
            lambda x: tg.max(x, 1),
            lambda r, g, out, x: once(r, tg.argmax(out).item()),
            distinct((3, 3)),
        ),
        (
            "logsumexp: normalised along the wrong axis",
            lambda x: tg.logsumexp(x, 1),
            lambda r, g, out, x: tg.softmax(x, 0) * tg.expand_dims(g, 1),
            normal((3, 3)),
        ),
        (
            "softmax: summed along the wrong axis",
            tg.softmax,
            lambda r, g, o, x: o * (g - tg.sum(g * o, 0, keepdims=True)),
            normal((3, 3)),
        ),
        ("softmax: of the whole batch", tg.softmax, lambda r, g, out, x: out * (g - tg.sum(g * out)), normal((2, 3))),
        (
            "transpose: the same permutation again",
            lambda x: tg.transpose(x, 1, 2, 0),
            lambda r, g, *a: tg.transpose(g, 1, 2, 0),
            normal((2, 2, 2)),
        ),
        ("swapaxes: not swapped back", lambda x: tg.swapaxes(x, 0, 1), lambda r, g, *a: g, normal((3, 3))),
        (
            "reshape: in column order",
            lambda x: tg.reshape(x, 6),
            lambda r, g, o, x: tg.reshape(g, 2, 3).T,
            normal((3, 2)),
        ),
        ("squeeze: transposed", lambda x: tg.squeeze(x), lambda r, g, o, x: tg.expand_dims(g.T, 1), normal((3, 1, 3))),
        ("expand_dims: reversed", lambda x: tg.expand_dims(x, (0, 2)), lambda r, *a: r[::-1], normal((3,))),
        ("matmul: not transposed", tg.matmul, [lambda r, g, o, x, y: g @ y, None], normal((3, 3), (3, 3))),
        ("matmul: transposed as a whole", tg.matmul, [None, lambda r, *a: r.T], normal((2, 3), (3, 3))),
        ("matmul: outer product of a vector reversed", tg.matmul, [lambda r, *a: r.T, None], normal((3, 3), (3,))),
        (
            "matmul: stack with the wrong axes swapped",
            tg.matmul,
            [None, lambda r, *a: r.swapaxes(0, 1)],
            normal((2, 3, 2), (2, 2, 2)),
        ),
        (
            "stack: in reverse order",
            lambda *xs: tg.stack(xs, -1),
            [lambda r, g, *a: g[:, 2], None, lambda r, g, *a: g[:, 0]],
            normal((2,), (2,), (2,)),
        ),
        (
            "concatenate: pieces exchanged",
            lambda x, y: tg.concatenate([x, y], 1),
            [lambda r, g, *a: g[:, 2:], lambda r, g, *a: g[:, :2]],
            normal((2, 2), (2, 2)),
        ),
    ],
    "indices": [
        (
            "getitem: repeated, the last wins",
            lambda x: x[[0, 2, 0, 0]],
            lambda r, g, *a: tg.stack([g[3], g[0] * 0, g[1]]),
            normal((3,)),
        ),
        (
            "getitem: negative, off by one",
            lambda x: x[[-1, 0]],
            lambda r, *a: tg.concatenate([r[:1], r[1:][::-1]]),
            normal((3,)),
        ),
        (
            "getitem: step forgotten",
            lambda x: x[::2],
            lambda r, g, o, x: tg.pad(g, ((0, len(x) - len(g)),)),
            normal((5,)),
        ),
        (
            "getitem: mask inverted",
            lambda x: x[np.array([True, True, False, False])],
            lambda r, *a: r[::-1],
            normal((4,)),
        ),
        ("getitem: reversed slice not reversed back", lambda x: x[:, ::-1], lambda r, g, *a: g, normal((2, 3))),
        ("pad: cut out at 0", lambda x: tg.pad(x, 1), lambda r, g, *a: g[:3, :2], normal((3, 2))),
        ("pad: before and after exchanged", lambda x: tg.pad(x, ((1, 2),)), lambda r, g, *a: g[2:-1], normal((3,))),
        (
            "concatenate: off by one",
            lambda x, y: tg.concatenate([x, y]),
            [None, lambda r, g, o, x, y: g[1:4]],
            normal((2,), (3,)),
        ),
        (
            "cross_entropy: the class before",
            lambda x: tg.cross_entropy(x, [1, 2, 1]),
            lambda r, g, o, x: vjp(lambda x: tg.cross_entropy(x, [0, 1, 0]), 0, g, x),
            normal((3, 3)),
        ),
        (
            "max: to the smallest",
            lambda x: tg.max(x, 0),
            lambda r, g, o, x: vjp(lambda x: tg.min(x, 0), 0, g, x),
            distinct((4, 2)),
        ),
        ("min: to the largest", tg.min, lambda r, g, o, x: vjp(tg.max, 0, g, x), distinct((4,))),
    ],
    "windows": [
        (
            "im2col: overlaps averaged",
            lambda x: tg.im2col(x, 2),
            lambda r, g, o, x: r / vjp(lambda x: tg.im2col(x, 2), 0, g * 0 + 1, x),
            normal((1, 1, 3, 3)),
        ),
        (
            "im2col: padding cut off by one",
            lambda x: tg.im2col(x, 3, padding=1),
            lambda r, *a: slid(r, 2),
            normal((1, 1, 4, 4)),
        ),
        (
            "im2col: wrong for a stride",
            lambda x: tg.im2col(x, 2, stride=(1, 2)),
            lambda r, *a: slid(r, 3),
            normal((1, 1, 3, 4)),
        ),
        (
            "col2im: kernel transposed",
            lambda x: tg.col2im(x, (1, 1, 3, 3), 2),
            lambda r, *a: r[:, [0, 2, 1, 3]],
            normal((4, 4)),
        ),
        (
            "col2im: rows of the images exchanged",
            lambda x: tg.col2im(x, (2, 1, 2, 3), 2),
            lambda r, *a: r[[2, 3, 0, 1]],
            normal((4, 4)),
        ),
        (
            "conv2d: kernel not flipped",
            conv(),
            [lambda r, g, o, x, w: vjp(conv(), 0, g, x, w[:, :, ::-1, ::-1]), None],
            normal(IMAGE, (2, 2, 3, 3)),
        ),
        (
            "conv2d: channels and filters exchanged",
            conv(),
            [lambda r, g, o, x, w: vjp(conv(), 0, g, x, w.swapaxes(0, 1)), None],
            normal(IMAGE, (2, 2, 3, 2)),
        ),
        (
            "conv2d: padding cut off by one",
            conv(padding=1),
            [lambda r, *a: slid(r, 3, -1), None],
            normal(IMAGE, (1, 2, 3, 3)),
        ),
        (
            "conv2d: wrong for a stride",
            conv(stride=2),
            [lambda r, *a: slid(r, 2), None],
            normal((1, 1, 5, 5), (2, 1, 3, 3)),
        ),
        (
            "conv2d: rectangular kernel laid out wrongly",
            conv(),
            [None, lambda r, *a: tg.reshape(r.swapaxes(2, 3), r.shape)],
            normal(IMAGE, (2, 2, 2, 3)),
        ),
        (
            "conv2d: weight of the last image only",
            conv(),
            [None, lambda r, g, o, x, w: vjp(conv(), 1, g[-1:], x[-1:], w)],
            normal(IMAGE, (2, 2, 2, 2)),
        ),
        (
            "conv2d: last column of the weight lost",
            conv(padding=1),
            [None, lambda r, *a: slid(slid(r, 3), 3, -1)],
            normal(IMAGE, (1, 2, 2, 3)),
        ),
        (
            "conv2d: bias summed over one image",
            conv(),
            [None, None, lambda r, g, *a: tg.sum(g[0], (1, 2))],
            normal(IMAGE, (2, 2, 2, 2), (2,)),
        ),
        (
            "conv2d: bias without the last row",
            conv(),
            [None, None, lambda r, g, *a: tg.sum(g[:, :, :-1], (0, 2, 3))],
            normal(IMAGE, (2, 2, 2, 2), (2,)),
        ),
        (
            "max_pool2d: to the first of the window",
            lambda x: tg.max_pool2d(x, 2),
            lambda r, g, o, x: vjp(lambda x: x[:, :, ::2, ::2] * 1, 0, g, x),
            distinct((1, 2, 4, 4)),
        ),
        (
            "max_pool2d: once where windows overlap",
            lambda x: tg.max_pool2d(x, 3, stride=1),
            lambda r, g, o, x: r / tg.maximum(vjp(lambda x: tg.max_pool2d(x, 3, stride=1), 0, g * 0 + 1, x), 1),
            distinct((1, 1, 5, 5)),
        ),
        (
            "max_pool2d: padding cut off by one",
            lambda x: tg.max_pool2d(x, 2, padding=1),
            lambda r, *a: slid(r, 3),
            distinct((1, 1, 4, 4)),
        ),
        (
            "avg_pool2d: padding not counted",
            lambda x: tg.avg_pool2d(x, 2, padding=1),
            lambda r, *a: r * np.pad(np.ones((2, 2)), 1, constant_values=2),
            normal((1, 1, 4, 4)),
        ),
        (
            "avg_pool2d: last window lost",
            lambda x: tg.avg_pool2d(x, 2, stride=1),
            lambda r, g, o, x: vjp(lambda x: tg.avg_pool2d(x, 2, stride=1), 0, once(g, (0, 0, slice(-1))), x),
            normal((1, 1, 3, 4)),
        ),
    ],
    "cotangent": [
        ("exp: forgotten", tg.exp, lambda r, g, out, x: out, normal((3,))),
        ("sum: forgotten", lambda x: tg.sum(x, 1), lambda r, g, out, x: tg.broadcast_to(1.0, x.shape), normal((2, 3))),
        ("exp: averaged", tg.exp, lambda r, g, out, x: tg.mean(g) * out, normal((4,))),
        ("sin: squared", tg.sin, lambda r, g, *a: r * g, normal((3,))),
        ("cos: without its sign", tg.cos, lambda r, g, *a: r * tg.sign(g), normal((12,))),
        ("add: clipped to 1", tg.add, [lambda r, g, *a: tg.clip(g, -1, 1), None], normal((20,), (20,))),
        ("softmax: none at all, right for ones", tg.softmax, lambda r, *a: r * 0, normal((2, 3))),
        (
            "log_softmax: counted, not summed, right for ones",
            tg.log_softmax,
            lambda r, g, out, x: g - tg.exp(out) * 3,
            normal((2, 3)),
        ),
        (
            "matmul: summed first, right for ones",
            tg.matmul,
            [lambda r, g, o, x, y: tg.broadcast_to(tg.mean(g, 1, keepdims=True) * tg.sum(y, 1), x.shape), None],
            normal((2, 3), (3, 3)),
        ),
        ("transpose: not at all, right for ones", tg.transpose, lambda r, g, *a: g, normal((3, 3))),
    ],
    "some entries": [
        ("abs: as if all were positive", tg.abs, lambda r, g, *a: g, signed((4,))),
        ("relu: leaks where negative", tg.relu, lambda r, g, out, x: r + g * 0.01 * (x < 0), signed((4,))),
        (
            "clip: passes above",
            lambda x: tg.clip(x, -0.5, 0.5),
            lambda r, g, o, x: tg.where(x > 0.5, g, r),
            fixed([-0.9, 0.1, 0.9]),
        ),
        ("clip: stopped below 0", lambda x: tg.clip(x, -2, 2), lambda r, g, out, x: r * (x > 0), signed((4,))),
        (
            "multiply: 0 in a product of all, by division",
            product,
            lambda r, g, out, x: quotient(g, out, x),
            fixed([2.0, 0.0, -1.5]),
        ),
        (
            "power: 0 at 0, by division",
            lambda x: x**1,
            lambda r, g, out, x: quotient(g, out, x),
            fixed([-1.0, 0.0, 2.0]),
        ),
        (
            "power: not a number at 0",
            lambda x: x**2,
            lambda r, g, out, x: tg.where(x == 0, np.nan, r),
            fixed([-1.0, 0.0, 2.0]),
        ),
        ("tanh: 0 at 0", tg.tanh, lambda r, g, out, x: r * (x != 0), fixed([-1.0, 0.0, 2.0])),
        (
            "power: one entry of 400",
            lambda x: x**2,
            lambda r, *a: r * (1 + 1e-3 * (np.arange(400) == 137)),
            normal((400,)),
        ),
        ("sum: beyond the first 64", tg.sum, lambda r, *a: r * (np.arange(100) < 64), normal((100,))),
        ("mean: the last of an odd number", tg.mean, lambda r, *a: r * (np.arange(7) < 6), normal((7,))),
        (
            "sigmoid: tiny ones flushed to zero",
            tg.sigmoid,
            lambda r, *a: tg.where(tg.abs(r) < 1e-6, 0.0, r),
            between(-20, -16, (4,)),
        ),
        (
            "sigmoid: tiny ones doubled",
            tg.sigmoid,
            lambda r, g, o, x: tg.where(o < 1e-3, 2 * r, r),
            fixed([-14.0, 0.5, -17.0]),
        ),
        (
            "sin: tiny ones flushed to zero on the way",
            Within(tg.sin, lambda op, x: op(x) * 1e-8),
            lambda r, *a: tg.where(tg.abs(r) < 1e-6, 0.0, r),
            normal((3,)),
        ),
        ("exp: overflow guard too low", tg.exp, lambda r, g, out, x: tg.where(x > 10, 0.0, r), fixed([1.0, 12.0])),
    ],
    "kinks": [
        (
            "maximum: to both of equals",
            tg.maximum,
            [lambda r, g, o, x, y: g * (x >= y), lambda r, g, o, x, y: g * (x <= y)],
            fixed([1, 2, 3], [1, 3, 2]),
        ),
        (
            "maximum: to none of equals",
            tg.maximum,
            [lambda r, g, o, x, y: g * (x > y), lambda r, g, o, x, y: g * (x < y)],
            fixed([1, 2, 3], [1, 3, 2]),
        ),
        (
            "max: to all ties",
            lambda x: tg.max(x, 1),
            lambda r, g, out, x: tg.expand_dims(g, 1) * (x == tg.expand_dims(out, 1)),
            fixed([[1, 3, 3], [2, 2, 2]]),
        ),
        ("min: to all ties", tg.min, lambda r, g, out, x: g * (x == out), fixed([2, 1, 1])),
        (
            "max_pool2d: to all ties",
            lambda x: tg.max_pool2d(x, 2),
            lambda r, g, o, x: tg.sum(g) * (x == o),
            fixed([[[[1, 2], [2, 0]]]]),
        ),
        ("relu: 2 at 0", tg.relu, lambda r, g, out, x: r + g * 2 * (x == 0), fixed([-1, 0, 1])),
        ("abs: -3 at 0", tg.abs, lambda r, g, out, x: r - g * 3 * (x == 0), fixed([-1, 0, 1])),
    ],
    "steps": [  # gradients of a smooth function in the place of a step's, which is 0
        ("sign: straight through", tg.sign, lambda r, g, *a: g, signed((3,))),
        (
            "argmax: straight through",
            Within(lambda x: tg.astype(tg.argmax(x), np.float64), lambda op, x: op(x) * x),
            lambda r, g, out, x: g * tg.softmax(x),
            distinct((4,)),
        ),
        *(
            (
                f"{op.__name__}: straight through",
                Within(as_number(op), lambda step, x, y: step(x, y) * x),
                [lambda r, g, *a: g, None],
                draw,
            )
            for op, draw in (
                (tg.greater, distinct((3,), (3,))),
                (tg.greater_equal, distinct((3,), (3,))),
                (tg.less, distinct((3,), (3,))),
                (tg.less_equal, distinct((3,), (3,))),
                (tg.logical_and, signed((3,), (3,))),
                (tg.not_equal, signed((3,), (3,))),
            )
        ),
        (
            "equal: straight through",
            Within(as_number(tg.equal), lambda step, x, y: (step(x, y) + 1) * x),
            [lambda r, g, *a: g, None],
            signed((3,), (3,)),
        ),
    ],
    "choice": [
        (
            "where: exchanged",
            lambda x, y: tg.where(ROWS > 1, x, y),
            [lambda r, g, *a: g - r, lambda r, g, *a: g - r],
            normal((3,), (3,)),
        ),
        ("where: not masked", lambda x, y: tg.where(ROWS > 1, x, y), lambda r, g, *a: g, normal((3,), (3,))),
        ("minimum: exchanged", tg.minimum, [lambda r, g, *a: g - r, lambda r, g, *a: g - r], distinct((4,), (4,))),
        (
            "multiply: arguments exchanged",
            tg.multiply,
            [lambda r, g, o, x, y: g * x, lambda r, g, o, x, y: g * y],
            normal((2,), (2,)),
        ),
        (
            "matmul: vectors exchanged",
            tg.matmul,
            [lambda r, g, o, x, y: g * x, lambda r, g, o, x, y: g * y],
            normal((3,), (3,)),
        ),
        (
            "multiply: an argument used twice counts once",
            Within(tg.multiply, lambda op, x: op(x, x)),
            [None, lambda r, g, out, x, y: r * 0 if x is y else r],
            normal((3,)),
        ),
        ("dropout: not masked", dropping, lambda r, g, *a: g / 0.6, normal((8,))),
        (
            "dropout: another mask",
            dropping,
            lambda r, g, *a: tg.dropout(g, 0.4, rng=np.random.default_rng(6)),
            normal((8,)),
        ),
        (
            "matmul: a little of the other rows",
            tg.matmul,
            [lambda r, *a: r + 1e-4 * tg.mean(r, 0), None],
            normal((3, 2), (2, 2)),
        ),
        (
            "cross_entropy: weights as if they added up to 1",
            lambda x: tg.cross_entropy(x, np.outer(ROWS, ROWS)),
            lambda r, g, out, x: g * (tg.softmax(x) - np.outer(ROWS, ROWS)) / 3,
            normal((3, 3)),
        ),
        (
            "logsumexp: the shift differentiated",
            tg.logsumexp,
            lambda r, g, out, x: r + vjp(tg.max, 0, g, x),
            distinct((4,)),
        ),
        ("softmax: only the diagonal", tg.softmax, lambda r, g, out, x: g * out * (1 - out), normal((2, 3))),
    ],
    "state": [
        ("relu: mask of the latest call", tg.relu, LATEST, signed((8,))),
        ("multiply: factors of the latest call", tg.multiply, LATEST, normal((3,), (3,))),
        ("max_pool2d: places of the latest call", lambda x: tg.max_pool2d(x, 2), LATEST, distinct((1, 1, 4, 4))),
        (
            "tanh: of the latest call, used twice",
            Within(tg.tanh, lambda op, x, y: op(x) * op(y)),
            LATEST,
            normal((3,), (3,)),
        ),
        ("tanh: its output overwritten", tg.tanh, lambda r, g, out, x: after(overwrite(out, r.data), r), normal((3,))),
        ("sin: its input overwritten", tg.sin, lambda r, g, out, x: after(overwrite(x, r.data), r), normal((3,))),
        (
            "sin: its input overwritten, wanted elsewhere",
            Within(tg.sin, lambda op, x: (lambda y: y * y + op(y))(x * 2.0)),
            lambda r, g, out, x: after(overwrite(x, r.data), r),
            normal((3,)),
        ),
        ("relu: cotangent masked in place", tg.relu, lambda r, g, *a: after(overwrite(g, r.data), r), signed((4,))),
        (
            "relu: cotangent masked in place, wanted elsewhere",
            Within(tg.relu, lambda op, x, y: op(x * 1.0) + y),
            lambda r, g, *a: after(overwrite(g, r.data), g),
            signed((4,), (4,)),
        ),
        (
            "exp: one buffer for all results",
            Within(tg.exp, lambda op, x, y: op(x) + op(y)),
            Workspace,
            normal((3,), (3,)),
        ),
    ],
    "precision": [
        ("sin: a millionth off", tg.sin, lambda r, *a: r * (1 + 1e-6), normal((20, 20))),
        ("matmul: a millionth off", tg.matmul, [None, lambda r, *a: r * (1 - 1e-6)], normal((2, 3), (3, 2))),
        (
            "sin: in half precision",
            tg.sin,
            lambda r, g, out, x: g * np.cos(x.data.astype(np.float16)).astype(np.float64),
            normal((3,)),
        ),
        (
            "astype: rounded on the way",
            lambda x: tg.astype(x, np.float64),
            lambda r, g, *a: tg.astype(tg.astype(g, np.float16), np.float64),
            normal((4,)),
        ),
        (
            "exp: wrong in float64 only",
            tg.exp,
            lambda r, g, o, x: r + 1e-5 * g if x.dtype == np.float64 else r,
            normal((3,)),
        ),
        (
            "tanh: in single precision",
            tg.tanh,
            lambda r, *a: tg.astype(tg.astype(r, np.float32), np.float64),
            normal((8,)),
        ),
    ],
    "second order": [
        (
            "multiply: the other factor constant",
            tg.multiply,
            [lambda r, g, o, x, y: g * y.detach(), None],
            normal((2,), (2,)),
            2,
        ),
        (
            "power: slope constant",
            lambda x: x**3,
            lambda r, g, o, x: g * Tensor(3 * x.data**2),
            between(0.5, 2, (3,)),
            2,
        ),
        ("exp: output constant", tg.exp, lambda r, g, o, x: g * o.detach(), normal((2,)), 2),
        ("tanh: one of two outputs constant", tg.tanh, lambda r, g, o, x: g * (1 - o * o.detach()), normal((3,)), 2),
        ("sqrt: output constant", tg.sqrt, lambda r, g, o, x: g / (2 * o.detach()), between(0.5, 2, (3,)), 2),
        (
            "divide: denominator constant",
            tg.divide,
            [lambda r, g, o, x, y: g / y.detach(), None],
            between(0.5, 2, (2,), (2,)),
            2,
        ),
        (
            "softmax: output constant",
            tg.softmax,
            lambda r, g, o, x: (lambda p: p * (g - tg.sum(g * p, -1, keepdims=True)))(o.detach()),
            normal((2, 3)),
            2,
        ),
        ("logsumexp: weights constant", tg.logsumexp, lambda r, g, o, x: g * tg.softmax(x.detach()), normal((4,)), 2),
        (
            "matmul: cotangent constant",
            tg.matmul,
            [lambda r, g, o, x, y: g.detach() @ y.T, None],
            normal((2, 2), (2, 2)),
            2,
        ),
        (
            "mean: cotangent constant",
            Within(tg.mean, lambda op, x: op(x * x)),
            lambda r, *a: r.detach(),
            normal((3,)),
            2,
        ),
        (
            "getitem: cotangent constant",
            Within(lambda x: x[1:], lambda op, x: op(x) ** 2 + x[:2]),
            lambda r, *a: r.detach(),
            normal((3,)),
            2,
        ),
        (
            "max_pool2d: cotangent constant",
            Within(lambda x: tg.max_pool2d(x, 2), lambda op, x: op(tg.exp(x))),
            lambda r, *a: r.detach(),
            distinct((1, 1, 2, 4)),
            2,
        ),
        (
            "sin: halved through the cotangent",
            tg.sin,
            lambda r, g, o, x: (g / 2 + g.detach() / 2) * tg.cos(x),
            normal((3,)),
            2,
        ),
        (
            "conv2d: image constant",
            conv(),
            [None, lambda r, g, o, x, w: vjp(conv(), 1, g, x.detach(), w)],
            normal(SMALL, (2, 1, 2, 3)),
            2,
        ),
        (
            "conv2d: cotangent constant",
            conv(),
            [lambda r, g, o, x, w: vjp(conv(), 0, g.detach(), x, w), None],
            normal(SMALL, (2, 1, 2, 3)),
            2,
        ),
        (
            "conv2d: right value, wrong kernel below",
            conv(),
            [lambda r, g, o, x, w: r.detach() + (r - r.detach()) * 2, None],
            normal((1, 1, 3, 3), (1, 1, 2, 2)),
            2,
        ),
    ],
    "third order": [
        (
            "power: curvature constant",
            lambda x: x**3,
            lambda r, g, o, x: (lambda c: g * (3 * c * c + 6 * c * (x - c)))(x.detach()),
            between(0.5, 2, (2,)),
            3,
        ),
        ("exp: curvature constant", tg.exp, lambda r, g, o, x: g * o.detach() * (1 + x - x.detach()), normal((2,)), 3),
        (
            "sin: curvature constant",
            tg.sin,
            lambda r, g, o, x: (lambda c: g * (tg.cos(c) - tg.sin(c) * (x - c)))(x.detach()),
            between(0.3, 1.2, (2,)),
            3,
        ),
    ],
}


def _mutant(kind: str, name: str, function: Any, rules: Any, inputs: Draw, order: int = 1) -> Mutant:
    op, around = function if isinstance(function, Within) else (function, lambda op, *xs: op(*xs))

    def build() -> Function:
        wrong = forgetful(op) if rules is LATEST else planted(op, rules() if isinstance(rules, type) else rules)
        return lambda *xs: around(wrong, *xs)

    return Mutant(name, kind, lambda *xs: around(op, *xs), build, inputs, order)


MUTANTS = [_mutant(kind, *row) for kind, rows in TABLE.items() for row in rows]


# Right cases ----------------------------------------------------------------------------------------------------------
def correct_case(rng: np.random.Generator) -> Case:
    """Draw name, function, inputs and order; the derivatives are right, and a check that raises is wrong.

    The name begins with the kind of point: "ordinary", "scaled" (numbers from 1e-8 to 1e8, also 1e4 with small
    differences) or "kink" (at one, or within a hundredth of one, where the derived gradient is one of those that are
    allowed).
    """
    kind = rng.choice(["ordinary", "scaled", "kink"], p=[0.5, 0.3, 0.2])
    if kind == "kink":
        name, fn, shapes = _kinked(rng)
        return f"kink: {name}", fn, [_near_kinks(shape, rng) for shape in shapes], 1
    single = [_unary, _binary, _reduction, _rearrangement, _product, _network, _image]
    name, fn, xs, scalable = _choice(rng, [*single, _program, _program] if kind == "ordinary" else single)(rng)
    order = int(rng.choice([1, 2, 3], p=[0.7, 0.25, 0.05]))
    if kind == "scaled":
        xs, order = [_scaled(x, scalable, rng) for x in xs], min(order, 2)
    xs = [np.asarray(x) for x in xs]  # arithmetic makes numbers of arrays without axes
    return f"{kind}: {name} {' '.join(str(x.shape) for x in xs)}", fn, xs, order


Drawn = tuple[str, Function, list[Array], str]  # name, function, inputs, and how these may be scaled


def _choice(rng: np.random.Generator, options: Any) -> Any:
    options = list(options)
    return options[rng.integers(len(options))]


def _shape(rng: np.random.Generator, least: int = 0, most: int = 3) -> tuple[int, ...]:
    return tuple(int(n) for n in rng.integers(1, 4, rng.integers(least, most + 1)))


def _scaled(x: Array, how: str, rng: np.random.Generator) -> Array:
    options = {
        "any": ["up", "down", "shift"],
        "positive": ["up", "down"],
        "periodic": ["down", "shift"],
        "bounded": ["down"],
    }[how]
    way = _choice(rng, options)
    return x + 1e4 if way == "shift" else x * 10.0 ** (rng.uniform(0, 8) * (1 if way == "up" else -1))


def _unary(rng: np.random.Generator) -> Drawn:
    p = float(_choice(rng, [-2, -1, -0.5, 0.5, 1.7, 3]))
    name, fn, how = _choice(
        rng,
        [
            ("negative", tg.negative, "any"),
            ("abs", tg.abs, "any"),
            ("relu", tg.relu, "any"),
            ("sign", tg.sign, "any"),
            ("tanh", tg.tanh, "any"),
            ("sigmoid", tg.sigmoid, "any"),
            ("square", lambda x: x**2, "any"),
            ("cube", lambda x: x**3, "any"),
            ("first power", lambda x: x**1, "any"),
            ("clip", lambda x: tg.clip(x, -0.2, 0.25), "bounded"),
            ("sin", tg.sin, "periodic"),
            ("cos", tg.cos, "periodic"),
            ("exp", tg.exp, "bounded"),
            ("power of 2", lambda x: 2**x, "bounded"),
            ("log", tg.log, "positive"),
            ("sqrt", tg.sqrt, "positive"),
            (f"power {p}", lambda x: x**p, "positive"),
            ("astype", lambda x: tg.astype(x, np.float64), "any"),
        ],
    )
    return name, fn, (between(0.3, 2, _shape(rng)) if how == "positive" else signed(_shape(rng)))(rng), how


def _binary(rng: np.random.Generator) -> Drawn:
    whole = _shape(rng)
    shapes = [tuple(n if rng.random() < 0.7 else 1 for n in whole)[rng.integers(len(whole) + 1) :] for _ in range(2)]
    keep = rng.random(np.broadcast_shapes(*shapes)) < 0.5
    name, fn, how = _choice(
        rng,
        [
            ("add", tg.add, "any"),
            ("subtract", tg.subtract, "any"),
            ("multiply", tg.multiply, "any"),
            ("divide", tg.divide, "positive"),
            ("power", tg.power, "bounded"),
            ("maximum", tg.maximum, "any"),
            ("minimum", tg.minimum, "any"),
            ("where", lambda x, y: tg.where(keep, x, y), "any"),
            ("used twice", lambda x, y: x * x * y - x / (1 + y * y), "bounded"),
        ],
    )
    draw = {"maximum": distinct, "minimum": distinct}.get(name, lambda *shapes: between(0.4, 2, *shapes))
    return name, fn, draw(*shapes)(rng), how


def _axes(ndim: int, rng: np.random.Generator) -> tuple[int, ...] | int | None:
    some = tuple(int(i) - ndim * int(rng.integers(2)) for i in rng.permutation(ndim)[: rng.integers(1, ndim + 1)])
    return _choice(rng, [None, some, some[0]])


def _reduction(rng: np.random.Generator) -> Drawn:
    name, shape = _choice(rng, ["sum", "mean", "max", "min", "logsumexp"]), _shape(rng, 1)
    settings = {"axis": _axes(len(shape), rng), "keepdims": bool(rng.integers(2))}
    return f"{name} {settings}", lambda x: getattr(tg, name)(x, **settings), distinct(shape)(rng), "any"


def _rearrangement(rng: np.random.Generator) -> Drawn:
    shape = _shape(rng, 1)
    ndim, axes, widths = len(shape), tuple(rng.permutation(len(shape)).tolist()), rng.integers(0, 3, (len(shape), 2))
    a, b, place = (int(i) for i in rng.integers(-ndim, ndim, 3))
    rows, mask = rng.integers(-shape[0], shape[0], _shape(rng, 1, 2)), rng.random(shape) < 0.7
    mask.flat[0] = True
    small = tuple(n if rng.random() < 0.5 else 1 for n in shape)
    name, fn = _choice(
        rng,
        [
            ("reshape", lambda x: tg.reshape(x, -1)),
            ("transpose", lambda x: tg.transpose(x, axes)),
            ("swapaxes", lambda x: tg.swapaxes(x, a, b)),
            ("expand_dims", lambda x: tg.expand_dims(x, place)),
            ("squeeze", lambda x: tg.squeeze(x) * 2),
            ("pad", lambda x: tg.pad(x, widths, 1.5)),
            ("broadcast_to", lambda x: tg.broadcast_to(x, (2, *shape))),
            ("sum_to", lambda x: tg.sum_to(x, small) * 2),
            ("rows", lambda x: x[rows]),
            ("row", lambda x: x[-1]),
            ("mask", lambda x: x[mask]),
            ("slice", lambda x: x[::-2, ..., None]),
            ("concatenate", lambda x: tg.concatenate([x, x * 2], place)),
            ("stack", lambda x: tg.stack([x, x * x], place)),
        ],
    )
    return f"{name} of {shape}", fn, normal(shape)(rng), "any"


def _product(rng: np.random.Generator) -> Drawn:
    m, k, n = rng.integers(1, 4, 3).tolist()
    shapes = _choice(
        rng,
        [
            [(k,), (k,)],
            [(m, k), (k,)],
            [(k,), (k, n)],
            [(m, k), (k, n)],
            [(2, m, k), (k, n)],
            [(2, 1, m, k), (3, k, n)],
        ],
    )
    return "matmul", tg.matmul, normal(*shapes)(rng), "any"


def _network(rng: np.random.Generator) -> Drawn:
    n, k = rng.integers(1, 4, 2).tolist()
    axis, seed, labels, weights = (
        int(rng.integers(-2, 2)),
        int(rng.integers(2**32)),
        rng.integers(0, k, n),
        rng.random((n, k)),
    )
    name, fn = _choice(
        rng,
        [
            ("softmax", lambda x: tg.softmax(x, axis)),
            ("log_softmax", lambda x: tg.log_softmax(x, axis)),
            ("cross_entropy", lambda x: tg.cross_entropy(x, labels)),
            ("cross_entropy of weights", lambda x: tg.cross_entropy(x, weights)),
            ("dropout", lambda x: tg.dropout(x, 0.3, np.random.default_rng(seed))),
        ],
    )
    return name, fn, distinct((n, k))(rng), "any"


def _image(rng: np.random.Generator) -> Drawn:
    kernel = tuple(rng.integers(1, 4, 2).tolist())
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    h, w = (max(k - 2 * p, 1) + int(rng.integers(0, 3)) for k, p in zip(kernel, padding, strict=True))
    settings = {"stride": tuple(rng.integers(1, 4, 2).tolist()), "padding": padding}
    n, c, f = rng.integers(1, 3, 3).tolist()
    image = (n, c, h, w)
    columns = tg.im2col(np.zeros(image), kernel, **settings).shape
    name, fn, shapes = _choice(
        rng,
        [
            ("conv2d", conv(**settings), [image, (f, c, *kernel), (f,)]),
            ("conv2d", conv(**settings), [image, (f, c, *kernel)]),
            ("im2col", lambda x: tg.im2col(x, kernel, **settings), [image]),
            ("col2im", lambda x: tg.col2im(x, image, kernel, **settings), [columns]),
            ("max_pool2d", lambda x: tg.max_pool2d(x, kernel, **settings), [image]),
            ("avg_pool2d", lambda x: tg.avg_pool2d(x, kernel, **settings), [image]),
        ],
    )
    return f"{name} {kernel} {settings}", fn, (distinct if name == "max_pool2d" else normal)(*shapes)(rng), "any"


STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of two matrices of one shape, to a third one
    "sin": lambda x, y: tg.sin(x),
    "tanh": lambda x, y: tg.tanh(x),
    "exp tanh": lambda x, y: tg.exp(tg.tanh(x)),
    "add": lambda x, y: x + y,
    "multiply": lambda x, y: tg.tanh(x) * y,
    "divide": lambda x, y: x / (1 + y * y),
    "log": lambda x, y: tg.log(1 + x * x),
    "sqrt": lambda x, y: tg.sqrt(1 + y * y),
    "softmax": lambda x, y: tg.softmax(x * y),
    "matmul": lambda x, y: x @ y.T @ tg.cos(x),
    "relu": lambda x, y: tg.relu(x) - y,
    "maximum": tg.maximum,
    "mean": lambda x, y: x - tg.mean(x, 0),
    "rows": lambda x, y: x[[1, 1]] * y,
    "concatenate": lambda x, y: tg.concatenate([x[:, 1:], y[:, :1]], 1),
    "reshape": lambda x, y: tg.reshape(tg.reshape(x, 3, 2).T, 2, 3),
    "logsumexp": lambda x, y: tg.logsumexp(y, 1, keepdims=True) + x,
    "where": lambda x, y: tg.where(ONES[:2] * [1, 0, 1] > 0, x * y, y),
}


def _program(rng: np.random.Generator) -> Drawn:
    steps = [
        (_choice(rng, STEPS), int(rng.integers(i + 2)), int(rng.integers(i + 2))) for i in range(rng.integers(2, 6))
    ]

    def fn(*xs: Tensor) -> Tensor:
        made = list(xs)
        for step, i, j in steps:
            made.append(STEPS[step](made[i], made[j]))
        return tg.sum(made[-1]) if summed else made[-1]

    summed = bool(rng.integers(2))
    return f"program {steps}", fn, normal((2, 3), (2, 3))(rng), "bounded"


def _kinked(rng: np.random.Generator) -> tuple[str, Function, list[tuple[int, ...]]]:
    shape = _shape(rng, 1, 2)
    axis = _axes(len(shape), rng)
    return _choice(
        rng,
        [
            ("relu", tg.relu, [shape]),
            ("abs", tg.abs, [shape]),
            ("clip", lambda x: tg.clip(x, -1, 1), [shape]),
            ("maximum", tg.maximum, [shape, shape]),
            ("minimum", tg.minimum, [shape, shape]),
            ("max", lambda x: tg.max(x, axis), [shape]),
            ("min", lambda x: tg.min(x, axis), [shape]),
            ("max_pool2d", lambda x: tg.max_pool2d(x, 2), [(1, 1, 4, 4)]),
            ("max_pool2d, overlapping", lambda x: tg.max_pool2d(x, 2, 1), [(1, 1, 3, 4)]),
            ("relu of a product", lambda x, y: tg.relu(x @ y), [(2, 2), (2, 2)]),
            ("max of exp", lambda x: tg.exp(tg.max(x, axis)), [shape]),
            ("relu, then a row", lambda x: tg.sin(tg.relu(x))[0], [shape]),
        ],
    )


def _near_kinks(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Whole numbers from -2 to 2, some of them moved a little."""
    moved = 10.0 ** rng.uniform(-12, -2) * rng.choice([-1.0, 0.0, 1.0], shape) * rng.integers(2)
    return rng.integers(-2, 3, shape) + moved
