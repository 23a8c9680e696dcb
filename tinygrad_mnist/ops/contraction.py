"""Sums of products over named axes: einsum, tensordot, dot, outer, trace."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod
from string import ascii_letters
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from .. import kernels
from ..arguments import as_inputs
from ..record import as_tensor, astype, primitive
from ..tensor import Array, Operand, Tensor, attach
from .arrangement import diagonal
from .elementwise import multiply
from .products import matmul
from .reduction import sum
from .shape import reshape

__all__ = ["dot", "einsum", "outer", "tensordot", "trace"]

Shape = tuple[int, ...]
LABELS = "".join(sorted(ascii_letters))  # what the integers 0 to 51 stand for, in NumPy's order


# Contractions in which every label stands in two places at least, of the operands and the output, and no operand has
# one twice. Their rule is another one: operand and output change places.
class _Product(NamedTuple):
    """A product of two arrays: how they are transposed and reshaped, and the result."""

    positions: tuple[int, int]
    axes: tuple[Shape, Shape]
    shapes: tuple[Shape, Shape]
    out: Shape
    how: str  # "@", "*", or subscripts


def _product(positions: tuple[int, int], a: str, b: str, kept: str, sizes: dict[str, int]) -> tuple[_Product, str]:
    """Plan the product of arrays with the labels `a` and `b`, summed over the labels that are not `kept`.

    Returns it with the labels of its result.
    """
    common = [label for label in kept if label in a and label in b]
    inner = [label for label in a if label in b and label not in kept]
    rows = [label for label in a if label not in b]
    columns = [label for label in b if label not in a]

    def lengths(labels: Iterable[str]) -> Shape:
        return tuple([sizes[label] for label in labels])

    if inner and common and not rows and not columns:  # a stack of scalar products: NumPy takes any memory order
        labels = common
        order_a, order_b = list(a), list(b)
        shapes = lengths(a), lengths(b)
        how = f"{a},{b}->{''.join(labels)}"
    elif inner:  # (common, rows, inner) @ (common, inner, columns) -> (common, rows, columns)
        labels = [*common, *rows, *columns]
        order_a = [*common, *rows, *inner]
        order_b = [*common, *inner, *columns]
        batch = lengths(common)
        depth = prod(lengths(inner))
        shapes = (*batch, prod(lengths(rows)), depth), (*batch, depth, prod(lengths(columns)))
        how = "@"
    else:  # nothing is summed: axes of length 1 stand where an operand has no axis
        labels = [label for label in kept if label in a or label in b]
        order_a = [label for label in labels if label in a]
        order_b = [label for label in labels if label in b]
        shape_a = [sizes[label] if label in a else 1 for label in labels]
        shape_b = [sizes[label] if label in b else 1 for label in labels]
        shapes = tuple(shape_a), tuple(shape_b)
        how = "*"
    axes = tuple(map(a.index, order_a)), tuple(map(b.index, order_b))
    return _Product(positions, axes, shapes, lengths(labels), how), "".join(labels)


@lru_cache(maxsize=4096)
def _plan(subscripts: str, shapes: tuple[Shape, ...]) -> tuple[list[_Product], Shape]:
    """Return the products that make up a contraction, and how to transpose the last one."""
    given, out = subscripts.split("->")
    terms = given.split(",")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        sizes.update(zip(term, shape, strict=True))
    path: list[Any] = [tuple(range(len(terms)))]
    if len(terms) > 2:  # the search takes 0.1 ms
        operands = [np.broadcast_to(0.0, shape) for shape in shapes]
        found, _ = np.einsum_path(subscripts, *operands, optimize="greedy")
        path = found[1:]  # the first item is a name
    products = []
    for group in path:
        while len(group) > 1:  # the product of two takes their place, at the end of the list
            i, j, *others = group
            b = terms.pop(j)
            a = terms.pop(i)
            kept = _once(out + "".join(terms))
            product, labels = _product((i, j), a, b, kept, sizes)
            products.append(product)
            terms.append(labels)
            group = (*(position - 2 for position in others), len(terms) - 1)
    return products, tuple(map(terms[0].index, out))


@primitive
def _contract(*xs: Any, subscripts: str) -> Any:
    dtype = np.result_type(*xs)  # which numbers do not change
    arrays = [np.asarray(x, dtype) for x in xs]
    products, last = _plan(subscripts, tuple([a.shape for a in arrays]))
    for p in products:
        i, j = p.positions
        b = arrays.pop(j).transpose(p.axes[1]).reshape(p.shapes[1])
        a = arrays.pop(i).transpose(p.axes[0]).reshape(p.shapes[0])
        if p.how == "@":
            made = kernels.matmul(a, b).reshape(p.out)
        elif p.how == "*":
            made = np.multiply(a, b)
        else:
            made = np.einsum(p.how, a, b)
        arrays.append(made)
    return arrays[0].transpose(last)


def _by_operand(position: int, g: Tensor, out: Tensor, *xs: Any, subscripts: str) -> Tensor:
    """Let ``g``, with the labels of the output, take the place of an operand, whose labels are those of the result."""
    given, labels = subscripts.split("->")
    terms = given.split(",")
    own = terms[position]
    terms[position] = labels
    operands = (*xs[:position], g, *xs[position + 1 :])
    return _contract(*operands, subscripts=f"{','.join(terms)}->{own}")


_contract.defvjp(_by_operand)


@primitive
def _diagonals(x: Any, /, *, labels: str) -> Any:
    """Take the elements whose positions along axes of the same label are equal."""
    return np.einsum(f"{labels}->{_once(labels)}", x)


@primitive
def _put_on_diagonals(x: Any, /, *, labels: str, shape: Shape) -> Array:
    """Put the elements onto the diagonals of zeros: the adjoint of ``_diagonals``."""
    out = np.zeros(shape, x.dtype)
    np.einsum(f"{labels}->{_once(labels)}", out)[...] = x  # a view
    return out


_diagonals.defvjp(lambda g, out, x, labels: _put_on_diagonals(g, labels=labels, shape=x.shape))
_put_on_diagonals.defvjp(lambda h, out, x, labels, shape: _diagonals(h, labels=labels))


def _once(labels: str) -> str:
    return "".join(dict.fromkeys(labels))


# einsum ---------------------------------------------------------------------------------------------------------------
class _Summation(NamedTuple):
    """What is done to operands before they are contracted, None where nothing is, and the contraction."""

    whole: str  # the subscripts without an ellipsis
    diagonals: list[str | None]
    shapes: list[Shape | None]  # without axes of length 1 that are broadcast
    summed: list[Shape | None]  # axes whose labels stand there alone
    subscripts: str


def _letters(terms: list[str], out: str, shapes: tuple[Shape, ...]) -> tuple[list[str], str]:
    """Replace every ellipsis by letters, a letter for each axis; return these letters, too."""
    free = [label for label in LABELS if label not in "".join([*terms, out])]
    counts = []
    for term, shape in zip(terms, shapes, strict=True):
        labels = term.replace("...", "", 1)
        if wrong := [label for label in labels if label not in LABELS]:
            raise ValueError(f"{wrong[0]!r} is no label: use letters, and one ... for the other axes")
        count = len(shape) - len(labels)
        counts.append(count)
        if count < 0 or (count and "..." not in term):
            raise ValueError(f"{term!r} has {len(labels)} labels for shape {shape}; write ... for axes without one")
    if max(counts) > len(free):
        raise ValueError(f"there are {len(LABELS)} letters for all axes; reshape operands so that they have fewer")
    rest = "".join(free[: max(counts)])
    written = [term.replace("...", rest[len(rest) - n :]) for term, n in zip(terms, counts, strict=True)]
    return written, rest


def _output(out: str | None, terms: list[str], rest: str) -> str:
    """Return the labels of the output; `rest` are those of the ellipsis."""
    given = "".join(terms)
    if out is None:
        alone = [label for label in set(given) - set(rest) if given.count(label) == 1]
        return rest + "".join(sorted(alone))
    if rest and "..." not in out:
        raise ValueError(f"the output {out!r} must hold ... as well")
    found = out.replace("...", rest, 1)
    if wrong := [label for label in found if label not in given]:
        raise ValueError(f"{wrong[0]!r} of the output is the label of no operand")
    if wrong := [label for label in found if found.count(label) > 1]:
        raise ValueError(f"{wrong[0]!r} stands in the output twice; take the diagonal of operands alone")
    return found


def _lengths(terms: list[str], shapes: tuple[Shape, ...]) -> dict[str, int]:
    """Return the length of each label; as in broadcasting, axes of length 1 fit all others."""
    lengths: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        own: dict[str, int] = {}
        for label, n in zip(term, shape, strict=True):
            other = own.setdefault(label, n)  # in one operand, there is no broadcasting
            known = lengths.get(label, 1)
            if other == n and 1 not in (n, known):
                other = known
            if other != n:
                raise ValueError(f"axes of lengths {other} and {n} have one label, {label!r}")
            lengths[label] = known if n == 1 else n
    return lengths


@lru_cache(maxsize=4096)
def _summation(subscripts: str, shapes: tuple[Shape, ...]) -> _Summation:
    given, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = given.split(",")
    if len(terms) != len(shapes):
        raise ValueError(f"there are subscripts for {len(terms)} operands, and {len(shapes)} operands")
    terms, rest = _letters(terms, right, shapes)
    out = _output(right if arrow else None, terms, rest)
    lengths = _lengths(terms, shapes)
    whole = f"{','.join(terms)}->{out}"
    diagonals = [term if len(set(term)) < len(term) else None for term in terms]
    reshaped: list[Shape | None] = []
    for i, (term, shape) in enumerate(zip(terms, shapes, strict=True)):
        own = dict(zip(term, shape, strict=True))
        full = [label for label, n in own.items() if n == lengths[label]]
        terms[i] = "".join(full)
        reshaped.append(tuple([own[label] for label in full]) if len(full) < len(own) else None)
    everywhere = "".join(terms) + out
    summed: list[Shape | None] = []
    for i, term in enumerate(terms):
        alone = [label for label in term if everywhere.count(label) == 1]
        summed.append(tuple(map(term.index, alone)) or None)
        terms[i] = "".join(label for label in term if label not in alone)
    return _Summation(whole, diagonals, reshaped, summed, f"{','.join(terms)}->{out}")


@primitive
def _of_integers(*xs: Any, subscripts: str) -> Any:
    return np.einsum(subscripts, *xs, optimize=len(xs) > 2)


_of_integers.defvjp(None)


def einsum(subscripts: Any, *operands: Any) -> Tensor:
    """Sum products over named axes, by Einstein's convention, as ``numpy.einsum``.

    Each axis of each operand has a letter. Letters that are not in the output are summed over.

    Parameters
    ----------
    subscripts : str
        The letters of each operand, separated by commas, and after ``->`` those of the output: ``"ij,jk->ik"`` is a
        matrix product. Without ``->``, the output has the letters that stand once, in alphabetical order. A letter that
        stands twice in one operand takes its diagonal. An ellipsis stands for all other axes, which are broadcast.
    *operands : array_like
        One or more. Axes of one letter have one length, or length 1. NumPy's other form, in which lists of integers
        follow the operands, may be used, too: ``einsum(x, [0, 1], y, [1, 2], [0, 2])``.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If the subscripts do not fit the shapes.

    Notes
    -----
    Three or more operands are multiplied pairwise, in an order that a greedy search finds once for given shapes.
    Products of pairs are computed by `matmul` where there is something to sum.

    Examples
    --------
    >>> einsum("ij,jk->ik", [[1.0, 2.0]], [[3.0], [4.0]])
    Tensor([[11.]], dtype=float64)
    >>> einsum("...ii->...", [[1.0, 2.0], [3.0, 4.0]])
    Tensor(5., dtype=float64)
    """
    if not isinstance(subscripts, str):
        subscripts, operands = _from_lists(subscripts, *operands)
    if not operands:
        raise ValueError(f"einsum: there are no operands for {subscripts!r}; pass one for each part before the ->")
    xs = as_inputs(operands, as_tensor)
    shapes = tuple([x.shape if isinstance(x, Tensor) else () for x in xs])
    try:
        plan = _summation(subscripts, shapes)
    except ValueError as error:
        raise ValueError(f"einsum: {subscripts!r} of shapes {', '.join(map(str, shapes))}: {error}") from None
    if all(x.dtype.kind != "f" if isinstance(x, Tensor) else not isinstance(x, float) for x in xs):
        return _of_integers(*xs, subscripts=plan.whole)
    dtype = np.result_type(*(x.dtype if isinstance(x, Tensor) else x for x in xs))
    wide = np.promote_types(dtype, np.float32)  # half precision is added up in single precision
    given = [x if not isinstance(x, Tensor) or x.dtype == wide else astype(x, wide) for x in xs]  # before any sum
    prepared = map(_prepared, given, plan.diagonals, plan.shapes, plan.summed)
    out = _contract(*prepared, subscripts=plan.subscripts)
    return out if out.dtype == dtype else astype(out, dtype)


def _prepared(x: Any, diagonals: str | None, shape: Shape | None, summed: Shape | None) -> Any:
    """Make the labels of an operand those of the contraction."""
    if diagonals is not None:
        x = _diagonals(x, labels=diagonals)
    if shape is not None:
        x = reshape(x, shape)
    return x if summed is None else sum(x, summed)


def _from_lists(*given: Any) -> tuple[str, tuple[Any, ...]]:
    """Convert ``x, [0, 1], y, [1, 2], [0, 2]`` to subscripts and operands."""
    pairs = len(given) // 2 * 2

    def text(labels: Any) -> str:
        try:
            found = ["..." if label is Ellipsis else LABELS[operator.index(label)] for label in labels]
        except (TypeError, IndexError):
            raise TypeError(
                f"einsum: {labels!r} must be a list of integers from 0 to {len(LABELS) - 1}, or ..., that follows its "
                "operand; or pass subscripts such as 'ij,jk->ik' first"
            ) from None
        return "".join(found)

    subscripts = ",".join(map(text, given[1:pairs:2]))
    if len(given) > pairs:
        subscripts += "->" + text(given[-1])
    return subscripts, given[:pairs:2]


# Others by their names ------------------------------------------------------------------------------------------------
def tensordot(a: Operand, b: Operand, axes: Any = 2) -> Tensor:
    """Sum products over axes of ``a`` and ``b``; their other axes follow each other, as in ``numpy.tensordot``.

    Parameters
    ----------
    a, b : array_like
    axes : int or pair
        How many axes to sum over, the last of ``a`` and the first of ``b``; or the axes of ``a`` and those of ``b``,
        each an integer or a list.

    Raises
    ------
    ValueError
        If the axes differ in number or length.

    Examples
    --------
    >>> tensordot([[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]])
    Tensor(5., dtype=float64)
    >>> tensordot([[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0], axes=(0, 0))
    Tensor([4., 6.], dtype=float64)
    """
    x, y = as_inputs((a, b), as_tensor)
    shapes = [t.shape if isinstance(t, Tensor) else () for t in (x, y)]
    first, second = _pair_of_axes(axes, *shapes)
    if [shapes[0][i] for i in first] != [shapes[1][i] for i in second]:
        raise ValueError(
            f"tensordot: shapes {shapes[0]} and {shapes[1]} do not fit along axes {first} and {second}: give as many "
            "axes of each, of equal lengths"
        )
    left = LABELS[: len(shapes[0])]
    right = [*LABELS[len(left) : len(left) + len(shapes[1])]]
    for i, j in zip(first, second, strict=True):
        right[j] = left[i]
    out = [label for label in left if label not in right]
    out += [label for label in right if label not in left]
    return einsum(f"{left},{''.join(right)}->{''.join(out)}", x, y)


def _pair_of_axes(axes: Any, a: Shape, b: Shape) -> tuple[Shape, Shape]:
    """Return the axes of both shapes, as integers of at least 0."""
    try:
        if not isinstance(axes, Sequence) and np.ndim(axes) == 0:
            count = operator.index(axes)
            if not 0 <= count <= min(len(a), len(b)):
                raise ValueError(f"there are not {count} axes in both")
            last_of_a = range(len(a) - count, len(a))
            return tuple(last_of_a), tuple(range(count))
        first, second = axes
        return normalize_axis_tuple(first, len(a)), normalize_axis_tuple(second, len(b))
    except (TypeError, ValueError) as error:
        words = f"tensordot: axes is {axes!r}, for shapes {a} and {b}: {error}; it must be a number of axes, or a pair "
        raise type(error)(words + "of axes or lists of axes") from None


def dot(a: Operand, b: Operand) -> Tensor:
    """Product of vectors, matrices or arrays, as ``numpy.dot``.

    Summed over the last axis of ``a`` and the second-to-last (or only) axis of ``b``; for stacks of matrices, all pairs
    are multiplied, unlike in `matmul`. A number multiplies.

    Examples
    --------
    >>> dot([1.0, 2.0], [3.0, 4.0])
    Tensor(11., dtype=float64)
    >>> dot(np.ones((2, 3)), np.ones((4, 3, 5))).shape
    (2, 4, 5)
    """
    x, y = as_inputs((a, b), as_tensor)
    shapes = [t.shape if isinstance(t, Tensor) else () for t in (x, y)]
    if not all(shapes):
        return multiply(x, y)
    if shapes[0][-1] != shapes[1][-2:][0]:
        raise ValueError(
            f"dot: cannot multiply shapes {shapes[0]} and {shapes[1]}: the last axis of the first must be as long as "
            "the second-to-last (or only) axis of the second; transpose or reshape one of them"
        )
    return matmul(x, y) if len(shapes[1]) < 3 else tensordot(x, y, (-1, -2))


def outer(a: Operand, b: Operand) -> Tensor:
    """All products of an element of ``a`` and one of ``b``: (...), (...) -> (a.size, b.size).

    Examples
    --------
    >>> outer([1.0, 2.0], [3.0, 4.0, 5.0])
    Tensor([[ 3.,  4.,  5.],
            [ 6.,  8., 10.]], dtype=float64)
    """
    x, y = as_inputs((a, b), as_tensor)
    left = reshape(x, -1, 1) if isinstance(x, Tensor) else x
    right = reshape(y, 1, -1) if isinstance(y, Tensor) else y
    return multiply(left, right)


def trace(x: Operand, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """Sum along the diagonal of two axes, which begins `offset` places to the right (or below, if it is negative).

    Examples
    --------
    >>> trace([[1.0, 2.0], [3.0, 4.0]])
    Tensor(5., dtype=float64)
    >>> trace([[1.0, 2.0], [3.0, 4.0]], 1)
    Tensor(2., dtype=float64)
    """
    x = as_tensor(x)
    if x.ndim < 2:
        raise ValueError(f"trace: shape {x.shape} has no diagonal; give an array of two axes or more")
    return sum(diagonal(x, offset, axis1, axis2), -1)


@attach
class ContractionMethods:
    """Methods of `Tensor` that are defined here."""

    dot = dot
    trace = trace
