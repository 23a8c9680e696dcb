"""FLOPs and multiply-adds: closed forms, and NumPy numbers that count what is done with them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist.debug.graph.work import count_flops, count_multiply_adds

LENGTHS = {"i": 2, "j": 3, "k": 4, "l": 5}


class Counted:
    """A number that counts the products of its kind."""

    products = 0

    def __mul__(self, other: Any) -> Counted:
        Counted.products += 1
        return self

    def __add__(self, other: Any) -> Counted:
        return self

    __radd__ = __add__


def counted(shape: tuple[int, ...]) -> Any:
    array = np.empty(shape, object)
    for place in np.ndindex(shape):
        array[place] = Counted()
    return array


def flops(output: tg.Tensor, op: str) -> int:
    """The FLOPs of the only op of this name."""
    (node,) = [node for node in tg.graph(output).nodes if node.op == op]
    return node.flops


def leaf(*shape: int) -> tg.Tensor:
    return tg.Tensor(np.ones(shape), requires_grad=True)


@given(tg.testing.matmul_operands())
def test_a_matrix_product_does_as_many_products_as_numpy(pair: tuple[Any, Any]) -> None:
    x, y = pair
    Counted.products = 0
    out = np.shape(np.matmul(counted(x.shape), counted(y.shape)))
    assert count_multiply_adds("matmul", [x.shape, y.shape], out, {}) == Counted.products
    assert count_flops("matmul", [x.shape, y.shape], out, {}) == 2 * Counted.products


@given(tg.testing.conv_geometries(), st.integers(1, 3), st.sampled_from([1, 2]), st.booleans())
def test_a_convolution_multiplies_each_window_by_each_filter(
    g: dict[str, Any], filters: int, groups: int, bias: bool
) -> None:
    x = leaf(g["n"], g["c"] * groups, g["h"], g["w"])
    w, b = leaf(filters * groups, g["c"], *g["kernel_size"]), leaf(filters * groups) if bias else None
    y = tg.conv2d(x, w, b, stride=g["stride"], padding=g["padding"], groups=groups)
    windows = 0
    padded = [length + 2 * p for length, p in zip((g["h"], g["w"]), g["padding"], strict=True)]
    for corner in itertools.product(*(range(0, length, s) for length, s in zip(padded, g["stride"], strict=True))):
        windows += all(c + k <= length for c, k, length in zip(corner, g["kernel_size"], padded, strict=True))
    products = g["n"] * windows * filters * groups * g["c"] * math.prod(g["kernel_size"])
    assert flops(y, "conv_output") == 2 * products + bias * y.size
    if g["n"]:  # both gradients do the same products
        nodes = tg.graph(y.sum(), backward=True).nodes
        assert [node.flops for node in nodes if node.op in ("conv_input", "conv_weight")] == [2 * products] * 2


@pytest.mark.parametrize("subscripts", ["ij,jk->ik", "i,i->", "ij,ij->ij", "i,j->ij", "ijk,jkl->il", "ij,jk->ijk"])
def test_a_contraction_of_two_takes_what_einsum_does(subscripts: str) -> None:
    left, right = subscripts.split("->")
    shapes = [tuple(LENGTHS[label] for label in term) for term in left.split(",")]
    Counted.products = 0
    np.einsum(subscripts, *map(counted, shapes))
    size = math.prod(LENGTHS[label] for label in set(left) - {","})
    assert Counted.products == size
    is_sum = set(left) - {","} > set(right)
    assert flops(tg.einsum(subscripts, *(leaf(*shape) for shape in shapes)), "contract") == size * (1 + is_sum)


@pytest.mark.parametrize("subscripts", ["ij,jk,kl->il", "ij,jk,kl,l->i"])
def test_a_contraction_of_several_takes_what_numpy_says(subscripts: str) -> None:
    operands = [leaf(*(10 * LENGTHS[label] for label in term)) for term in subscripts.split("->")[0].split(",")]
    _, report = np.einsum_path(subscripts, *(x.data for x in operands), optimize="greedy")
    said = float(report.partition("Optimized FLOP count:")[2].split()[0])
    assert flops(tg.einsum(subscripts, *operands), "contract") == pytest.approx(said, rel=1e-3)


def test_a_contraction_of_three_at_once_is_done_by_twos() -> None:
    x, y, z = leaf(2, 5), leaf(3, 5), leaf(4, 5)
    assert flops(tg.einsum("il,jl,kl->ijk", x, y, z), "contract") == 2 * 3 * 5 + 2 * (2 * 3 * 4 * 5)


@given(tg.testing.programs(max_steps=4))
def test_elementwise_ops_reductions_and_views(program: Any) -> None:
    """Every op of a program takes one for each element that comes out, or goes in, or none; products apart."""
    inputs = [tg.Tensor(x, requires_grad=True) for x in program.inputs]
    output = program(*inputs)
    if output.op is None:
        return
    shown = tg.graph(output)
    sizes = {node.id: math.prod(node.shape) for node in shown.nodes}
    for node in shown.nodes:
        first = next((sizes[edge.source] for edge in shown.edges if edge.target == node.id), 0)
        if node.op in ("sum", "mean", "max", "min", "sum_to"):
            assert node.flops == first
        elif node.op in ("reshape", "transpose", "getitem", "concatenate", "stack", "pad", "broadcast_to", ""):
            assert node.flops == 0
        elif node.op in ("add", "subtract", "multiply", "divide", "tanh", "exp", "log", "sqrt", "where", "power"):
            assert node.flops == sizes[node.id]


def test_factorizations_take_a_share_of_the_cube() -> None:
    x = tg.Tensor(np.eye(6) + np.ones((2, 6, 6)), requires_grad=True)
    assert flops(tg.linalg.inv(x), "inv") == 2 * 2 * 216
    assert flops(tg.linalg.det(x), "det") == 2 * 144
    assert flops(tg.linalg.cholesky(x), "cholesky") == 2 * 72
    assert flops(tg.linalg.solve(x, np.ones((2, 6, 3))), "solve") == 2 * (144 + 2 * 36 * 3)


def test_pooling_and_ops_of_users() -> None:
    x = leaf(2, 3, 8, 8)
    assert flops(tg.max_pool2d(x, 3, 2), "max_pool") == 2 * 3 * 3 * 3 * 9
    assert flops(tg.avg_pool2d(x, 2), "avg_pool") == 2 * 3 * 4 * 4 * 4

    @tg.primitive
    def softsign(x: Any) -> Any:
        return x / (1 + np.abs(x))

    softsign.defvjp(lambda g, out, x: g / (1 + abs(x)) / (1 + abs(x)))
    assert flops(softsign(leaf(3, 5)), "softsign") == 15
