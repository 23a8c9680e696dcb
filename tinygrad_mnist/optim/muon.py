"""Muon, which updates matrices by orthogonal ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..tensor import Array, Tensor
from .groups import Groups
from .methods import AdamW

__all__ = ["Muon"]

NEWTON_SCHULZ, ITERATIONS = (3.4445, -4.775, 2.0315), 5  # steepest at 0: Jordan et al., 2024


class Muon(AdamW):
    """Momentum, orthogonalized (Jordan et al., 2024), for matrices and filters; `AdamW` for everything else.

    The running mean of the gradients of a weight is taken as a matrix: (F, C * KH * KW) for the filters of a
    convolution. A step follows the orthogonal matrix nearest to it, in which all directions are equally long.
    Newton-Schulz iterations approximate that: singular values come out near 1, mostly between 0.7 and 1.2.

    Parameters
    ----------
    params : dict of str to Tensor
        Those with two axes or more are orthogonalized, those with fewer (biases) are updated as by `AdamW`.
    lr : float
        Right for both kinds: the update of a matrix (A, B) is multiplied by ``0.2 * sqrt(max(A, B))``, which gives its
        numbers the size that they have in `AdamW` (Liu et al., 2025; in PyTorch ``adjust_lr_fn="match_rms_adamw"``).
    momentum : float
        The decay rate of the running mean, from 0 to 1; the update looks one step ahead (Nesterov).
    betas, eps, weight_decay
        See `AdamW`; the weight decay is that of all parameters, the others are those of the second kind.
    groups : dict, optional
        See `Optimizer`.

    Examples
    --------
    >>> w = Tensor(np.zeros((2, 2)), requires_grad=True)
    >>> Muon({"w": w}, lr=1.0).step({"w": [[3.0, 0.0], [0.0, -0.5]]})  # both directions become nearly as long
    >>> (w.data / (0.2 * 2**0.5)).round(2).tolist()
    [[-0.71, 0.0], [0.0, 1.04]]
    """

    settings = (*AdamW.settings, "momentum")

    def __init__(
        self,
        params: Mapping[str, Tensor],
        lr: float = 0.001,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, groups=groups)
        self.momentum = momentum
        for name, p in self.params.items():
            if p.ndim > 1:  # no running mean of squares
                del self.state[name]["v"]

    def update(self, g: Array, state: dict[str, Array]) -> Array:
        """Return the step of one parameter."""
        if g.ndim < 2:
            return super().update(g, state)
        state["m"] = self.momentum * state["m"] + (1 - self.momentum) * g
        ahead = self.momentum * state["m"] + (1 - self.momentum) * g
        matrix = ahead.reshape(len(g), math.prod(g.shape[1:]))
        length = self.lr * 0.2 * math.sqrt(max(matrix.shape))
        return length * _orthogonal(matrix).reshape(g.shape)


def _orthogonal(matrix: Array) -> Array:
    """Approximate U @ V.T of the singular value decomposition U @ diag(S) @ V.T by Newton-Schulz iterations.

    An iteration multiplies X by P = a I + b A + c A A, with A = X X.T. All of these are polynomials of the first A, a
    small square matrix, so that only A is iterated, and X multiplied once, by the product of all P.
    """
    x = matrix.astype(np.result_type(matrix, np.float32), copy=False)
    x = x / (abs(x).max(initial=0) or 1)  # the sum of squares below neither overflows nor vanishes
    x = x / (np.linalg.norm(x) or 1)
    x = x.T if len(x) > x.shape[1] else x
    a, b, c = NEWTON_SCHULZ
    gram = product = x @ x.T
    for iteration in range(ITERATIONS):
        factor = gram @ gram
        factor *= c
        factor += b * gram
        factor.flat[:: len(x) + 1] += a  # the diagonal
        product = factor @ product if iteration else factor
        gram = factor @ gram @ factor if iteration < ITERATIONS - 1 else gram
    x = product @ x
    return np.asarray(x if x.shape == matrix.shape else x.T, matrix.dtype)
