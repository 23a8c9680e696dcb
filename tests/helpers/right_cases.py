"""Functions with right gradients, at ordinary and at awkward points: a gradient check that complains is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from planted import Array, Function, between, distinct, normal, signed

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor

Case = tuple[str, Function, list[Array], int]


def right_case(rng: np.random.Generator) -> Case:
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
            ("conv2d", lambda x, w, *bias: tg.conv2d(x, w, *bias, **settings), [image, (f, c, *kernel), (f,)]),
            ("conv2d", lambda x, w, *bias: tg.conv2d(x, w, *bias, **settings), [image, (f, c, *kernel)]),
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
    "where": lambda x, y: tg.where(np.array([[1, 0, 1]] * 2) > 0, x * y, y),
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
