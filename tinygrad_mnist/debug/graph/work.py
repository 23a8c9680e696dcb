"""How many floating-point operations an op takes, from the shapes of what goes in and comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

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
        lengths, kept = _labels(inputs, keywords["subscripts"])
        if len(inputs) > 1 and lengths.keys() > kept:
            return math.prod(lengths.values()) * (len(inputs) - 1)
    return 0


def count_flops(op: str, inputs: Sequence[Shape], output: Shape, keywords: Mapping[str, Any]) -> int:
    """Count the floating-point operations of a primitive.

    A multiply-add is 2 operations. An elementwise op takes one for each element of the result, whatever the function; a
    reduction one for each element that goes in; pooling one for each element of each window. Views and copies take
    none. Ops that are not known here, such as those of users, count as elementwise.
    """
    if products := count_multiply_adds(op, inputs, output, keywords):
        bias = math.prod(output) if op == "conv_output" and inputs[2] else 0
        return 2 * products + bias
    if op in ("contract", "of_integers"):
        lengths, _ = _labels(inputs, keywords["subscripts"])
        return math.prod(lengths.values()) * max(len(inputs) - 1, 1)
    if op in MOVING:
        return 0
    if op in REDUCING:
        return math.prod(inputs[0])
    if op in ("max_pool", "avg_pool"):
        kernel: tuple[int, int] = keywords["kernel"]
        return math.prod(output) * math.prod(kernel)
    return math.prod(output)


def _labels(inputs: Sequence[Shape], subscripts: str) -> tuple[dict[str, int], set[str]]:
    """Return the length of each label of a contraction, and the labels of the output."""
    left, _, right = subscripts.partition("->")
    lengths: dict[str, int] = {}
    for labels, shape in zip(left.split(","), inputs, strict=True):
        for label, length in zip(labels, shape, strict=True):
            lengths[label] = max(length, lengths.get(label, length))
    return lengths, set(right)
