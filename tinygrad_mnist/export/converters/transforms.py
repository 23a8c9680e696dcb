"""Converter of what transforms of functions call."""

from __future__ import annotations

from ...func import _constant
from ..onnx_graph import Graph, Value
from .registry import onnx_converter

__all__: list[str] = []


@onnx_converter(_constant)
def _constant_value(graph: Graph, value: Value) -> Value:
    return value
