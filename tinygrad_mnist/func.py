"""Transforms of functions, as ``tg.func``: grad, vjp, jvp, jacobian, hessian. All are compositions of `grad`."""

from __future__ import annotations

__all__: list[str] = []
