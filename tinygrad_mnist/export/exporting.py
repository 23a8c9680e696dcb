"""A function or a model as an ONNX file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import helper

from .._version import __version__
from ..record import as_tensor
from ..storage.files import write_atomically
from ..tensor import Array, Tensor
from ..walk import leaves
from .converters import CONVERTERS
from .examples import other_values, sizes, with_rows
from .onnx_graph import Graph, Value, checked
from .program import Dim, Node, Program, Range, Tile, merge, results
from .tracing import Recording, Result, record

__all__ = ["to_onnx"]

OPSET, IR_VERSION = 18, 8  # what runtimes of the last years read; the newest are refused by many


def to_onnx(
    fn_or_model: Callable[..., Any],
    *examples: Any,
    path: str | os.PathLike[str] | None = None,
    dynamic_batch: bool = True,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> Any:
    """Write what a function or a model computes as an ONNX file, gradients included.

    The function is called a few times, on the examples and on other values with other numbers of rows. Every primitive
    that it calls becomes nodes of the file. What differs from call to call without coming from an input by an op is
    refused: a number that NumPy or Python has computed from the values would be a constant in the file, and wrong for
    every other input.

    Parameters
    ----------
    fn_or_model : callable
        ``fn(*examples)``: Tensors in; a Tensor, or a tuple, list or dict of them, out. Floating-point inputs require a
        gradient, so that it can call `tinygrad_mnist.grad` (with ``create_graph=True`` or without).
    *examples : array_like
        One for each input: its dtype and its shape are those of the file. Of a uint8 example the file takes pixels, and
        scales them as the model does (`tinygrad_mnist.data.as_input`). Values matter little, but that integers which
        are indices must be valid ones.
    path : path, optional
        Where to write the file; it appears whole or not at all.
    dynamic_batch : bool
        Whether the first axis of all examples is a batch of any size: the file takes any number of rows. Else every
        shape is that of the examples.
    input_names, output_names : sequence of str, optional
        Names in the file; by default "input", "output" (with numbers where there are several), or the keys of a dict.

    Returns
    -------
    onnx.ModelProto
        Opset 18, IR version 8. Parameters are initialisers with the names of `tinygrad_mnist.nn.parameters`.

    Raises
    ------
    ImportError
        Without the onnx package: ``pip install 'tinygrad_mnist[onnx]'``.
    NotImplementedError
        If a primitive has no converter. The error names it and its line; see `onnx_converter`.
    ValueError
        If the function computes with values outside of the ops of this package, or calls other ops for other values.
        The error names the op and its line.

    Examples
    --------
    >>> import numpy as np, tinygrad_mnist as tg
    >>> model = tg.export.to_onnx(lambda x: (2 * x).relu(), np.ones((2, 3), np.float32))
    >>> [node.op_type for node in model.graph.node]
    ['Mul', 'Relu']
    """
    arrays = [np.array(as_tensor(example).data) for example in examples]
    _check(fn_or_model, arrays, dynamic_batch)
    recordings, rows, returned = _recordings(fn_or_model, arrays, dynamic_batch)
    program = merge(recordings, rows, "to_onnx")
    found_names = [*returned] if isinstance(returned, dict) else None
    inputs = _names("input", input_names, len(arrays), None)
    outputs = _names("output", output_names, len(program.outputs), found_names)
    model = _Writer(program, parameter_names(fn_or_model), inputs, outputs, dynamic_batch).model()
    if path is not None:
        write_atomically(path, model.SerializeToString())
    return model


def _check(function: Any, arrays: Sequence[Array], dynamic_batch: bool) -> None:
    if not callable(function):
        raise TypeError(f"to_onnx: fn_or_model is {type(function).__name__}; pass a function or a model, then examples")
    if not arrays:
        raise TypeError("to_onnx: pass an example for each input of the function, such as a batch of two images")
    shapes = [array.shape for array in arrays]
    if dynamic_batch and (not all(shapes) or len({shape[0] for shape in shapes}) > 1 or not shapes[0][0]):
        raise ValueError(
            f"to_onnx: the examples have shapes {shapes}; with dynamic_batch=True their first axis is the batch, of "
            "one length above 0 for all. Pass dynamic_batch=False for fixed shapes"
        )


def _recordings(
    function: Callable[..., Any], arrays: Sequence[Array], dynamic_batch: bool
) -> tuple[list[Recording], Sequence[int], Any]:
    """Record the function on the examples, on other values, and on other numbers of rows."""
    rows = sizes(arrays) if dynamic_batch else (1, 2, 3)  # where nothing may depend on them, any will do
    numbers = (rows[0], *rows)
    rng = np.random.default_rng(0)
    found = []
    for attempt, count in enumerate(numbers):
        own = [with_rows(array, count) if dynamic_batch else array for array in arrays]
        if attempt == 0:
            recording, returned = record(function, own)
            _check_outputs(returned)
        else:
            recording = _recorded(function, own, rng)
        found.append(recording)
    return found, numbers, returned


def _recorded(function: Callable[..., Any], arrays: Sequence[Array], rng: np.random.Generator) -> Recording:
    """Record the function on other values; on tame ones where it refuses the first."""
    try:
        return record(function, [other_values(array, rng) for array in arrays])[0]
    except Exception:  # whatever a function raises that checks its inputs
        return record(function, [other_values(array, rng, wild=False) for array in arrays])[0]


def _check_outputs(returned: Any) -> None:
    parts = returned.values() if isinstance(returned, dict) else returned
    for part in parts if isinstance(parts, (tuple, list)) or isinstance(returned, dict) else [parts]:
        if not isinstance(part, (Tensor, np.ndarray)):
            raise TypeError(
                f"to_onnx: the function returned {type(part).__name__}; return a Tensor, or several as "
                "a tuple, list or dict"
            )


def _names(kind: str, given: Sequence[str] | None, count: int, keys: list[str] | None) -> list[str]:
    if given is None:
        return [str(key) for key in keys] if keys else [kind] if count == 1 else [f"{kind}_{i}" for i in range(count)]
    names = [given] if isinstance(given, str) else list(given)
    if len(names) != count or len(set(names)) < count or not all(names):
        raise ValueError(f"to_onnx: {kind}_names are {names}; pass {count} different names")
    return names


def parameter_names(function: Any) -> dict[int, str]:
    """Return the names of the arrays of a model, or of the models that a function uses, by their ids."""
    found: dict[int, str] = {}
    for prefix, holder in _holders(function):
        for name, tensor in leaves(holder, "to_onnx").items():
            path = ".".join(part for part in (prefix, name) if part)
            found.setdefault(id(tensor.data), path or "parameter")
    return found


def _holders(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield a model, or what a function can reach, with names."""
    code = getattr(function, "__code__", None)
    if getattr(function, "__self__", None) is not None:
        yield "", function.__self__
    elif code is None:
        yield "", function
    else:
        cells: Mapping[str, Any] = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        own = {name: cell.cell_contents for name, cell in cells.items() if _filled(cell)}
        used = {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
        for name, value in {**used, **own}.items():
            if isinstance(value, Tensor) or not isinstance(value, (type, type(os))):
                yield ("", value) if len(own) + len(used) == 1 else (name, value)


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


class _Writer:
    """Writes a program as an ONNX model."""

    def __init__(
        self, program: Program, names: dict[int, str], inputs: list[str], outputs: list[str], batch: bool
    ) -> None:
        self.program, self.parameters, self.batch = program, names, batch
        self.output_names = outputs
        self.graph = Graph()
        self.values: dict[int, Value] = {}
        self.named: set[int] = set()  # results that depend on parameters
        self.inputs = [self._input(name, result) for name, result in zip(inputs, program.inputs, strict=True)]
        self.graph.batch_of = self.inputs[0]
        for name in outputs:
            self.graph.name(name)

    def _input(self, name: str, result: Result) -> Value:
        dtype, dims = self.program.dtypes[result.number], self.program.shapes[result.number]
        value = Value(self.graph.name(name), dtype, dims)
        self.values[result.number] = value
        return value

    def model(self) -> Any:
        """Return the model, checked."""
        needed = self._needed()
        for node in self.program.nodes:
            if node.number in needed:
                self._write(node)
        outputs = [self._output(name, part) for name, part in zip(self.output_names, self.program.outputs, strict=True)]
        declared = [[self.graph.declare(value, self.batch) for value in part] for part in (self.inputs, outputs)]
        graph = helper.make_graph(self.graph.nodes, "tinygrad_mnist", *declared, self.graph.initializers)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        made.producer_name, made.producer_version = "tinygrad_mnist", __version__
        return checked(made)

    def _needed(self) -> set[int]:
        needed = set(results(tuple(self.program.outputs)))
        for node in reversed(self.program.nodes):
            if node.number in needed:
                needed.update(results((node.inputs, node.keywords)))
        return needed

    def _write(self, node: Node) -> None:
        """Add what a node is made of to the graph."""
        number, program = node.number, self.program
        inputs, keywords = [*map(self._operand, node.inputs)], {k: self._operand(v) for k, v in node.keywords.items()}
        if not self.named.isdisjoint(results((node.inputs, node.keywords))) or any(
            id(array) in self.parameters for array in node.inputs
        ):
            self.named.add(number)
        converter = CONVERTERS.get(node.op)
        if number in program.fixed and (converter is None or number not in self.named):
            self.values[number] = self.graph.constant(program.fixed[number])
            return
        if converter is None:
            raise NotImplementedError(_missing(node))
        self.graph.dtype, self.graph.dims, self.graph.place = program.dtypes[number], program.shapes[number], node.place
        made = converter(self.graph, *inputs, **keywords)
        self.values[number] = self.graph.cast(made, program.dtypes[number])._replace(dims=program.shapes[number])

    def _operand(self, value: Any) -> Any:
        """Return what a converter gets for an argument or a setting."""
        if isinstance(value, Result):
            return self.values[value.number]
        if isinstance(value, np.ndarray):
            return self.graph.constant(value, self.parameters.get(id(value)))
        if isinstance(value, Tile):
            tiled = self.graph.add("Expand", self.graph.constant(value.array), self.graph.shape(value.dims))
            return tiled._replace(dims=value.dims)
        if isinstance(value, Range):
            (dim,) = (dim for dim in value.dims if isinstance(dim, Dim))
            end = self.graph.add("Squeeze", self.graph.length(dim))
            counted = self.graph.add("Range", self.graph.constant(np.array(0)), end, self.graph.constant(np.array(1)))
            shaped = self.graph.add("Reshape", counted, self.graph.shape(value.dims))
            return self.graph.cast(shaped, value.dtype)._replace(dims=value.dims)
        if type(value) is tuple:
            return tuple(map(self._operand, value))
        return value

    def _output(self, name: str, part: Any) -> Value:
        """Give an output its name."""
        value: Value = self._operand(part)
        node = next((node for node in self.graph.nodes if value.name in node.output), None)
        if node is None or value.name in self.output_names:  # an input, a constant, or an output already
            self.graph.nodes.append(helper.make_node("Identity", [value.name], [name]))
        else:
            for other in self.graph.nodes:
                _rename(other.input, value.name, name)
                _rename(other.output, value.name, name)
        renamed = value._replace(name=name)
        self.values = {number: renamed if v.name == value.name else v for number, v in self.values.items()}
        return renamed


def _rename(names: Any, old: str, new: str) -> None:
    for place, name in enumerate(names):
        if name == old:
            names[place] = new


def _missing(node: Node) -> str:
    function = node.op.forward
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', node.op.__name__)}"
    return (
        f"to_onnx: the primitive {node.op.__name__} ({node.place}) has no ONNX converter. Write one, and register it "
        f"by @tg.export.onnx_converter(op) over def convert(graph, *inputs, **settings); op is {name}. See "
        "help(tg.export.onnx_converter)"
    )
