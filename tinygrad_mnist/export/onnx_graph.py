"""An ONNX graph while it is built: values, constants, nodes, and lengths that depend on the number of rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .._version import __version__
from ..tensor import Array
from .program import Dim, Dims

try:
    import onnx
    from onnx import helper, numpy_helper
except ImportError as error:
    raise ImportError(
        "tinygrad_mnist.export: ONNX files need the onnx package; pip install 'tinygrad_mnist[onnx]'"
    ) from error

__all__ = ["Graph", "Operand", "Value"]

OPSET, IR_VERSION = 18, 8  # what runtimes of the last years read; the newest are refused by many
BATCH = "batch"  # the name of the number of rows in the file


class Value(NamedTuple):
    """A tensor of the file."""

    name: str
    dtype: np.dtype[Any]
    dims: Dims | None = None  # its shape; None for what a converter computes on the way
    constant: Array | None = None  # what it is, if that is known


Operand: TypeAlias = "Value | Array | float | Dim | None"  # None: an optional input that is left out


class Graph:
    """Collects the nodes of a file. A converter gets it first, and adds what its op is made of.

    Attributes
    ----------
    dtype : numpy.dtype
        Of the result that the converter must return.
    dims : tuple of int and Dim
        The shape of this result. A `Dim` is a length that depends on the number of rows.
    place : str
        The line that has called the op, for errors.
    """

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.dtype: np.dtype[Any] = np.dtype(np.float32)
        self.dims: Dims = ()
        self.place = ""
        self.batch_of: Value | None = None  # an input whose first axis is the batch
        self._names: set[str] = set()
        self._constants: dict[Any, Value] = {}
        self._lengths: dict[Dim, Value] = {}

    # Nodes ----------------------------------------------------------------------------------------------------------
    def add(self, kind: str, *inputs: Operand, dtype: npt.DTypeLike | None = None, **attributes: Any) -> Value:
        """Add a node of the ONNX operator `kind`, and return its result.

        Parameters
        ----------
        kind : str
            As in https://onnx.ai/onnx/operators, opset 18.
        *inputs : Value, ndarray, number, Dim or None
            Numbers become constants of the dtype of the first Value. None leaves an optional input out.
        dtype : dtype, optional
            Of the result. By default that of the first Value.
        **attributes
            Of the node.
        """
        return self.add_several(kind, *inputs, dtypes=(dtype,), **attributes)[0]

    def add_several(
        self, kind: str, *inputs: Operand, dtypes: Sequence[npt.DTypeLike | None], **attributes: Any
    ) -> tuple[Value, ...]:
        """Add a node with several results, one for each of `dtypes` (None: that of the first Value)."""
        first = next((x.dtype for x in inputs if isinstance(x, Value)), self.dtype)
        names = ["" if x is None else self.value(x, first).name for x in inputs]
        results = tuple(Value(self.name(kind.lower()), first if dtype is None else np.dtype(dtype)) for dtype in dtypes)
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(kind, names, [result.name for result in results], **attributes))
        return results

    def cast(self, x: Operand, dtype: npt.DTypeLike) -> Value:
        """Convert to another dtype; a Value that has it already stays as it is."""
        dtype = np.dtype(dtype)
        value = self.value(x, dtype)
        if value.dtype == dtype:
            return value
        return self.add("Cast", value, dtype=dtype, to=helper.np_dtype_to_tensor_dtype(dtype))._replace(dims=value.dims)

    # Constants ------------------------------------------------------------------------------------------------------
    def value(self, x: Operand, dtype: npt.DTypeLike) -> Value:
        """Return the Value of an array (in its own dtype) or of a number (in `dtype`)."""
        if isinstance(x, Value):
            return x
        if isinstance(x, Dim):
            return self.scalar(x, dtype)
        if isinstance(x, np.ndarray):
            return self.constant(x)
        return self.constant(np.asarray(x, dtype))

    def constant(self, array: Array, name: str | None = None) -> Value:
        """Return an array of the file: an initializer. Equal small ones without a name are stored once."""
        array = np.asarray(array)
        if array.dtype == np.longdouble != np.float64:
            array = array.astype(np.float64)  # ONNX has no wider one
        content = array.tobytes() if array.size <= 64 and not name else id(array)
        key = (name, array.dtype, array.shape, content)
        if key not in self._constants:
            stored = Value(self.name(name or "constant"), array.dtype, array.shape, array)  # keeps it, and so its id
            contiguous = np.ascontiguousarray(array).reshape(array.shape)
            self.initializers.append(numpy_helper.from_array(contiguous, stored.name))
            self._constants[key] = stored
        return self._constants[key]

    def ints(self, *numbers: int) -> Value:
        """Return integers as a constant of one axis, as axes and sizes are given to nodes."""
        return self.constant(np.array(numbers, np.int64))

    def name(self, wanted: str) -> str:
        """Return a name that no other value has."""
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name

    # Lengths --------------------------------------------------------------------------------------------------------
    def length(self, dim: int | Dim) -> Value:
        """Return a length as an int64 Value of shape (1,)."""
        if not isinstance(dim, Dim):
            return self.ints(dim)
        if dim not in self._lengths:
            assert self.batch_of is not None
            rows = self._lengths.get(Dim(1)) or self.add("Shape", self.batch_of, start=0, end=1, dtype=np.int64)
            self._lengths[Dim(1)] = rows
            if dim.factor != 1:
                rows = self.add("Mul", rows, self.ints(int(dim.factor)))
            if dim.offset:
                rows = self.add("Add", rows, self.ints(int(dim.offset)))
            self._lengths[dim] = rows
        return self._lengths[dim]

    def shape(self, dims: Sequence[int | Dim]) -> Value:
        """Return a shape as an int64 Value of one axis."""
        if not any(isinstance(dim, Dim) for dim in dims):
            return self.ints(*(int(dim) for dim in dims))  # type: ignore[arg-type]  # none is a Dim
        lengths = [self.length(dim) for dim in dims]
        return lengths[0] if len(lengths) == 1 else self.add("Concat", *lengths, axis=0)

    def scalar(self, number: float | Dim, dtype: npt.DTypeLike) -> Value:
        """Return a number, which may depend on the number of rows, as a Value without axes."""
        if not isinstance(number, Dim):
            return self.constant(np.asarray(number, dtype))
        wide = np.dtype(np.float64)
        rows = self.cast(self.add("Squeeze", self.length(Dim(1))), wide)
        value = self.add("Add", self.add("Mul", rows, float(number.factor)), float(number.offset))
        value = self.add("Reciprocal", value) if number.inverse else value
        return self.cast(value, dtype)

    # The file -------------------------------------------------------------------------------------------------------
    def named(self, value: Value, name: str, outputs: Collection[str]) -> Value:
        """Give a value the name of an output; an input, a constant or one of the `outputs` is copied instead."""
        made = any(value.name in node.output for node in self.nodes)
        if not made or value.name in outputs:
            self.nodes.append(helper.make_node("Identity", [value.name], [name]))
        else:
            for node in self.nodes:
                for names in (node.input, node.output):
                    names[:] = [name if other == value.name else other for other in names]
        return value._replace(name=name)

    def model(self, inputs: Sequence[Value], outputs: Sequence[Value]) -> Any:
        """Return the model without unused constants, if the onnx package finds nothing wrong with it."""
        used = {name for node in self.nodes for name in node.input}
        stored = [array for array in self.initializers if array.name in used]
        declared = [[_declare(value) for value in part] for part in (inputs, outputs)]
        graph = helper.make_graph(self.nodes, "tinygrad_mnist", *declared, stored)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        made.producer_name, made.producer_version = "tinygrad_mnist", __version__
        onnx.checker.check_model(made, full_check=True)
        return made


def _declare(value: Value) -> Any:
    """Describe an input or an output of the file."""
    assert value.dims is not None
    shape = [_length(dim) for dim in value.dims]
    return helper.make_tensor_value_info(value.name, helper.np_dtype_to_tensor_dtype(value.dtype), shape)


def _length(dim: int | Dim) -> int | str:
    if not isinstance(dim, Dim):
        return dim
    if dim == Dim(1):
        return BATCH
    return f"{dim.factor}*{BATCH}{dim.offset:+}"
