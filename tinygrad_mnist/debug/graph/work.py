"""How many floating-point operations an op takes, from the shapes of what goes in and comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["count_flops", "count_multiply_adds"]

Shape = tuple[int, ...]

# They rearrange elements: views and copies.
MOVING = frozenset(
    "astype broadcast_to concatenate copy diagonal diagonal_matrix diagonals expand_dims flip getitem moveaxis pad "
    "put_on_diagonals repeat reshape roll squeeze stack swapaxes take take_along_axis transpose unfold".split()
)
# One operation for each element that goes in.
REDUCING = frozenset(
    "add_along_axis add_taken all any argmax argmin count euclidean first_extreme fold max mean min moments "
    "power_norm prod products put_at scaling_gradient sum sum_to".split()
)
# What share of n**3 it takes to factor, or to invert, a matrix of n rows.
FACTORING = {"cholesky": 1 / 3, "det": 2 / 3, "inv": 2.0, "log_of_det": 2 / 3, "sign_of_det": 2 / 3}


def count_multiply_adds(op: str, inputs: Sequence[Shape], output: Shape, keywords: Mapping[str, Any]) -> int:
    """Count the multiply-adds of a product or a convolution; of any other op they are 0.

    Padding is counted as if it was multiplied, too.
    """
    if op == "matmul":
        return math.prod(output) * inputs[0][-1]
    if op in ("conv_output", "conv_input"):  # for each number of the output's gradient or values, a whole filter
        numbers = output if op == "conv_output" else inputs[0]
        return math.prod(numbers) * math.prod(inputs[1][1:])
    if op == "conv_weight":
        return math.prod(inputs[1]) * math.prod(output[1:])
    if op in ("contract", "of_integers"):
        return _count_contraction(inputs, keywords["subscripts"])[0]
    return 0


def count_flops(op: str, inputs: Sequence[Shape], output: Shape, keywords: Mapping[str, Any]) -> int:
    """Count the floating-point operations of a primitive.

    A multiply-add is 2 operations. An elementwise op takes one for each element of the result, whatever the function; a
    reduction one for each element that goes in; pooling one for each element of each window. Views and copies take
    none. To factor a matrix of n rows takes a third (Cholesky) or two thirds of n**3, to invert it 2 n**3. Ops that are
    not known here, such as those of users, count as elementwise.
    """
    if op in ("contract", "of_integers"):
        multiply_adds, products = _count_contraction(inputs, keywords["subscripts"])
        return 2 * multiply_adds + products
    if op in ("matmul", "conv_output", "conv_input", "conv_weight"):
        bias = math.prod(output) if op == "conv_output" and inputs[2] else 0
        return 2 * count_multiply_adds(op, inputs, output, keywords) + bias
    if op in FACTORING or op == "solve":
        n = inputs[0][-1]
        substitutions = 2 * n * math.prod(output) if op == "solve" else 0
        return round(FACTORING.get(op, 2 / 3) * n * math.prod(inputs[0])) + substitutions
    if op in MOVING:
        return 0
    if op in REDUCING:
        return math.prod(inputs[0])
    if op in ("max_pool", "avg_pool"):
        kernel: tuple[int, int] = keywords["kernel"]
        return math.prod(output) * math.prod(kernel)
    return math.prod(output)


def _count_contraction(inputs: Sequence[Shape], subscripts: str) -> tuple[int, int]:
    """Count the multiply-adds of a contraction, which is done by twos, and the products of which nothing is summed."""
    left, _, right = subscripts.partition("->")
    terms = [set(labels) for labels in left.split(",")]
    lengths: dict[str, int] = {}
    for labels, shape in zip(left.split(","), inputs, strict=True):
        lengths.update(zip(labels, shape, strict=True))
    path: list[tuple[int, ...]] = [tuple(range(len(terms)))]
    if len(terms) > 2:
        operands = [np.broadcast_to(0.0, shape) for shape in inputs]
        path = np.einsum_path(subscripts, *operands, optimize="greedy")[0][1:]  # the first item is a name
    multiply_adds, products = 0, 0
    for group in path:
        while len(group) > 1:
            i, j, *others = group
            both = terms.pop(j) | terms.pop(i)
            kept = both & set(right).union(*terms)
            size = math.prod(lengths[label] for label in both)
            if both > kept:
                multiply_adds += size
            else:
                products += size
            terms.append(kept)
            group = (*(place - 2 for place in others), len(terms) - 1)
    return multiply_adds, products
