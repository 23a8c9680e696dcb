"""Converters of normalization: means, variances and what depends on them in double precision, as it is computed here.

Double precision has no longer one in ONNX: where this package computes in extended precision, a file does not.
"""

from __future__ import annotations

from ...ops import normalization
from .formulas import Term, formula

__all__: list[str] = []

Axes = tuple[int, ...]


def _mean(x: Term, axes: Axes) -> Term:
    return x.reduce("ReduceMean", axes)


def _sum(x: Term, axes: Axes) -> Term:
    return x.reduce("ReduceSum", axes)


def _inverse(moments: Term, eps: float) -> Term:
    return 1 / (moments.part(1) + eps).node("Sqrt")


def _stacked(first: Term, second: Term) -> Term:
    graph = first.graph
    zero = Term(graph, graph.ints(0))
    return first.node("Unsqueeze", zero).node("Concat", second.node("Unsqueeze", zero), axis=0)


@formula(normalization._moments, wide=True)
def _moments(x: Term, axes: Axes) -> Term:
    mean = _mean(x, axes)
    distance = x - mean
    return _stacked(mean, _mean(distance * distance, axes))


@formula(normalization._normalize, wide=True)
def _normalize(x: Term, moments: Term, scaling: Term, axes: Axes, eps: float) -> Term:
    scale = _inverse(moments, eps) * scaling.part(0)
    return (x - moments.part(0)) * scale + scaling.part(1)


@formula(normalization._normalize_gradient, wide=True)
def _normalize_gradient(g: Term, x: Term, moments: Term, weight: Term, axes: Axes, eps: float) -> Term:
    inverse = _inverse(moments, eps)
    y = (x - moments.part(0)) * inverse
    return (g - _mean(g, axes) - y * _mean(g * y, axes)) * (inverse * weight)


@formula(normalization._scaling_gradient, wide=True)
def _scaling_gradient(g: Term, x: Term, moments: Term, axes: Axes, eps: float) -> Term:
    products = g * (x - moments.part(0))
    return _stacked(_sum(products, axes) * _inverse(moments, eps), _sum(g, axes))


@formula(normalization._inverse_deviation, wide=True)
def _inverse_deviation(x: Term, moments: Term, axes: Axes, eps: float) -> Term:
    return _inverse(moments, eps)


@formula(normalization._affine)
def _affine(x: Term, center: Term, scale: Term, shift: Term, axes: Axes) -> Term:
    scaled = (x if center.known(0) else x - center) * scale
    return scaled if shift.known(0) else scaled + shift


@formula(normalization._products, wide=True)
def _products(g: Term, x: Term, center: Term, axes: Axes) -> Term:
    return _sum(g * (x - center), axes)
