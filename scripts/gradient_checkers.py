"""Gradient checks behind one signature: ours, the usual central differences, PyTorch's and HIPS autograd's.

The others see functions of Tensors wrapped as operations of their own. Memory order and precision of inputs and
cotangents reach the functions as the check has them; whether gradients are recorded, and which inputs need them, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor

Array = npt.NDArray[Any]
Function = Callable[..., Tensor]
Check = Callable[[Function, list[Array], int, int], str]  # function, inputs, order, seed -> verdict
CAUGHT, PASSED, UNDECIDED = "caught", "passed", "inconclusive"


# What all checkers need -----------------------------------------------------------------------------------------------
def gradients(out: Tensor, wanted: list[Tensor], g: Any, create_graph: bool = False) -> list[Tensor]:
    """As tg.grad, and zeros for what depends on nothing."""
    return (
        tg.grad(out, wanted, create_graph, gradient=g)
        if out.requires_grad
        else [Tensor(np.zeros(x.shape)) for x in wanted]
    )


def derivative(fn: Function, position: int) -> Function:
    """Return the function of inputs and cotangent that gives the gradient by one input, to be differentiated again."""
    return lambda *args: gradients(fn(*args[:-1]), [args[position]], args[-1], True)[0]


def leaf(array: Array) -> Tensor:
    """Make a leaf that shares the memory of `array`, so that the checker sees a rule that writes to its inputs."""
    x = tg.as_tensor(np.asarray(array))
    x.requires_grad = True
    return x


def owned(array: Array) -> Array:
    """Return the array, or a copy if it is a view of another one."""
    return array if array.flags.owndata else array.copy()


# The checks -----------------------------------------------------------------------------------------------------------
def ours() -> Check:
    def check(fn: Function, xs: list[Array], order: int, seed: int) -> str:
        try:
            report = tg.testing.check_gradients(fn, *xs, order=order, rng=seed, inconclusive="ignore")
        except tg.testing.GradientMismatch:
            return CAUGHT
        return PASSED if report.verdict == "pass" else UNDECIDED

    return check


def plain() -> Check:
    """The check that people write by hand."""

    def check(fn: Function, xs: list[Array], order: int, seed: int) -> str:
        leaves = [Tensor(x, requires_grad=True) for x in xs]
        out = fn(*leaves)
        derived = gradients(out, leaves, np.ones(out.shape))
        for i, x in enumerate(xs):
            numeric = np.zeros(x.shape)
            for index in np.ndindex(x.shape):
                values = []
                for step in (1e-5, -1e-5):
                    shifted = [v.copy(order="K") for v in xs]
                    shifted[i][index] += step
                    values.append(fn(*(Tensor(v, requires_grad=True) for v in shifted)).data.sum())
                numeric[index] = (values[0] - values[1]) / 2e-5
            if not np.allclose(derived[i].data, numeric, rtol=1e-3, atol=1e-5):
                return CAUGHT
        if order == 1:
            return PASSED

        def total(*xs: Tensor) -> Tensor:
            out = fn(*xs)
            return sum((tg.sum(g) for g in gradients(out, list(xs), np.ones(out.shape), True)), Tensor(0.0))

        return check(total, xs, order - 1, seed)

    return check


def torch_gradcheck() -> Check:
    import torch
    from torch.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck

    class Bridge(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, fn: Function, *xs: Any) -> Any:
            ctx.save_for_backward(*xs)
            ctx.fn, ctx.leaves = fn, [leaf(x.detach().numpy()) for x in xs]
            ctx.out = fn(*ctx.leaves)
            return torch.from_numpy(owned(ctx.out.data))

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            wanted = [i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
            if torch.is_grad_enabled():  # to be differentiated again
                found = [Bridge.apply(derivative(ctx.fn, i), *ctx.saved_tensors, g) for i in wanted]
            else:
                found = [
                    torch.from_numpy(t.data) for t in gradients(ctx.out, [ctx.leaves[i] for i in wanted], g.numpy())
                ]
            return None, *(found[wanted.index(i)] if i in wanted else None for i in range(len(ctx.leaves)))

    def check(fn: Function, xs: list[Array], order: int, seed: int) -> str:
        torch.manual_seed(seed)
        inputs = [torch.from_numpy(x).clone().requires_grad_() for x in xs]  # in the same memory order
        try:
            gradcheck(lambda *xs: Bridge.apply(fn, *xs), inputs)
            if order > 1:
                gradgradcheck(lambda *xs: Bridge.apply(fn, *xs), inputs)
        except GradcheckError:
            return CAUGHT
        return PASSED

    torch.set_num_threads(1)
    return check


def hips_check_grads() -> Check:
    from autograd.extend import defvjp_argnums, primitive
    from autograd.test_util import check_grads
    from autograd.tracer import isbox

    def bridge(fn: Function) -> Any:
        latest: list[Any] = [None]

        @primitive
        def op(*xs: Any) -> Array:
            leaves = [leaf(x) for x in xs]
            out = fn(*leaves)
            latest[:] = owned(out.data), out, leaves
            return latest[0]

        def vjp_maker(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], keywords: Any) -> Callable[[Any], Any]:
            same = latest[1:] if latest[0] is ans else None  # the graph of this very call

            def vjp(g: Any) -> Any:
                if same is None or isbox(g):  # to be differentiated again
                    return tuple(bridge(derivative(fn, i))(*args, g) for i in argnums)
                out, leaves = same
                return tuple(t.data for t in gradients(out, [leaves[i] for i in argnums], np.asarray(g)))

            return vjp

        defvjp_argnums(op, vjp_maker)
        return op

    def check(fn: Function, xs: list[Array], order: int, seed: int) -> str:
        np.random.seed(seed)  # the one that check_grads draws from
        try:
            check_grads(bridge(fn), tuple(range(len(xs))), modes=["rev"], order=order)(*(x.copy(order="K") for x in xs))
        except AssertionError:
            return CAUGHT
        return PASSED

    return check


CHECKERS: dict[str, tuple[Callable[[], Check], str]] = {
    "ours": (ours, "tinygrad_mnist.testing.check_gradients, default settings"),
    "plain": (plain, "central differences, h=1e-5, cotangent of ones, np.allclose(rtol=1e-3, atol=1e-5)"),
    "torch": (
        torch_gradcheck,
        "torch.autograd.gradcheck, gradgradcheck from order 2; defaults: eps=1e-6, atol=1e-5, rtol=1e-3",
    ),
    "autograd": (
        hips_check_grads,
        'HIPS autograd.test_util.check_grads(modes=["rev"]); its constants: eps=1e-6, tol=1e-6, rtol=1e-6',
    ),
}
