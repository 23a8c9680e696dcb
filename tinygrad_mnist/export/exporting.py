"""A function or a model as an ONNX file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ..record import as_tensor
from ..storage.files import write_atomically
from ..tensor import Array
from .biases import join_biases
from .converters import CONVERTERS
from .converters.common import expanded, places
from .examples import other_values, sizes, unusual_sizes, with_rows
from .names import parameter_names, unchanged
from .onnx_graph import Graph, Value
from .program import Dim, Node, Program, Range, Tile, merge
from .replay import check_replay
from .softmaxes import join_softmaxes
from .tracing import Recording, Result, record, results

__all__ = ["to_onnx"]

KINDS = ("wild", "random", "mixed")  # values that a function is recorded with beside the examples, the tamest last


def to_onnx(
    fn_or_model: Callable[..., Any],
    *examples: Any,
    path: str | os.PathLike[str] | None = None,
    dynamic_batch: bool = True,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> Any:
    """Write what a function or a model computes as an ONNX file, gradients included.

    The function is called about a dozen times: on the examples, on other values, and with other numbers of rows. Every
    primitive that it calls becomes nodes of the file. What differs from call to call without coming from an input by an
    op is refused: a number that NumPy or Python has computed from the values would be a constant in the file, and wrong
    for every other input.

    Parameters
    ----------
    fn_or_model : callable
        ``fn(*examples)``: Tensors in; a Tensor, or a tuple, list or dict of them, out. Floating-point inputs require a
        gradient, so that it can call `tinygrad_mnist.grad` (with ``create_graph=True`` or without).
    *examples : array_like
        One for each input: its dtype and its shape are those of the file. Of a uint8 example the file takes pixels, and
        scales them as the model does (`tinygrad_mnist.data.as_input`). Pixels of uint8 have no gradient; take that of
        ``x = tg.data.as_input(images)`` after ``x.requires_grad = True``. Values do not matter, except that integers
        which are indices must be valid ones.
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
        Opset 18, IR version 8. Parameters are initializers with the names of `tinygrad_mnist.nn.parameters`.

    Raises
    ------
    ImportError
        Without the onnx package: ``pip install 'tinygrad_mnist[onnx]'``.
    NotImplementedError
        If a primitive has no converter. The error names it and its line; see `onnx_converter`.
    TypeError
        If there is no function or no example, an example is a path, or the function returns something else than
        Tensors.
    ValueError
        If the function computes with values outside of the ops of this package, or calls other ops for other values:
        the error names the op and its line. If the examples have no common first axis, names are too many, too few or
        not different, or a converter of your own has written what ONNX does not know.

    Warns
    -----
    UserWarning
        If values of Tensors are read (``x.data``, ``x.item()``, ``float(x)``, ``if x:``), though nothing differed.

    Notes
    -----
    The model has its values and gradients back at the end, whatever the calls have changed. With a dynamic batch, 1 row
    to 67 are tried, fewer where examples are large. What Python decides by a larger number of rows, as in
    ``if len(x) >= 100:``, is not seen.

    Examples
    --------
    >>> import numpy as np, tinygrad_mnist as tg
    >>> model = tg.export.to_onnx(lambda x: (2 * x).relu(), np.ones((2, 3), np.float32))
    >>> [node.op_type for node in model.graph.node]
    ['Mul', 'Relu']

    A classifier and its saliency, the gradient of the largest logit by the pixels, in one file:

    >>> model = tg.nn.Sequential(tg.nn.Flatten(), tg.nn.Linear(28 * 28, 10))
    >>> def explained(images):
    ...     logits = model(images)
    ...     (slopes,) = tg.grad(logits.max(axis=1).sum(), [images])
    ...     return {"logits": logits, "saliency": slopes}
    >>> file = tg.export.to_onnx(explained, np.ones((2, 28, 28), np.float32))
    >>> [output.name for output in file.graph.output]
    ['logits', 'saliency']
    """
    if any(isinstance(example, (str, os.PathLike)) for example in examples):
        raise TypeError("to_onnx: an example is a path; name the file as path=..., behind the examples")
    arrays = [np.array(as_tensor(example).data) for example in examples]
    _check(fn_or_model, arrays, dynamic_batch)
    with unchanged(fn_or_model):
        recordings, rows, returned, apart = _recordings(fn_or_model, arrays, dynamic_batch)
    program = merge(recordings, rows, "to_onnx")
    program = program._replace(nodes=join_softmaxes(program.nodes))
    for recording, count in apart:
        _check_few(program, recordings, rows, recording, count)
    _warn_of_reads(recordings)
    found_names = [*returned] if isinstance(returned, dict) else None
    inputs = _names("input", input_names, len(arrays), None)
    outputs = _names("output", output_names, len(program.outputs), found_names)
    model = _Writer(program, parameter_names(fn_or_model), inputs, outputs).model()
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
) -> tuple[list[Recording], Sequence[int], Any, list[tuple[Recording, int]]]:
    """Record the function on the examples, on other values, and on other numbers of rows, few and many.

    Last, recordings of one and two rows are returned: where an axis has length 1, ops may be left out.
    """
    more = sizes(arrays) if dynamic_batch else (1, 1, 1)  # all alike: nothing may depend on them
    rng = np.random.default_rng(0)

    def own(count: int, start: int) -> list[Array]:
        return [with_rows(array, count, start) if dynamic_batch else array for array in arrays]

    first, returned, differentiable = _first_recording(function, own(more[0], 0))
    recordings = [first]
    rows = [more[0]]
    for count, kind in (
        *((more[0], kind) for kind in 2 * KINDS),
        (more[1], "wild"),
        (more[2], "mixed"),
    ):
        recordings.append(_recorded(function, own(count, len(recordings)), kind, rng, differentiable))
        rows.append(count)
    apart: list[tuple[Recording, int]] = []
    for count in unusual_sizes(arrays, more) if dynamic_batch else []:
        with suppress(ValueError):  # the function takes no such number of rows
            recording = _recorded(function, own(count, 0), "mixed", rng, differentiable)
            if count <= 2:
                apart.append((recording, count))
            else:
                recordings.append(recording)
                rows.append(count)
    return recordings, rows, returned, apart


def _first_recording(function: Callable[..., Any], arrays: Sequence[Array]) -> tuple[Recording, Any, bool]:
    """Record the function on the examples; return what it did, what it returned, and whether it takes gradients."""
    try:
        return *record(function, arrays), True
    except Exception:
        try:  # a primitive without a rule refuses Tensors that require a gradient
            return *record(function, arrays, requires_grad=False), False
        except Exception:
            pass
        raise


def _check_few(
    program: Program, recordings: Sequence[Recording], rows: Sequence[int], recording: Recording, count: int
) -> None:
    """Refuse a function that computes something else than the program for one or two rows."""
    named = None
    if [call.op for call in recording.calls] == [call.op for call in recordings[0].calls]:
        try:
            merge([*recordings, recording], [*rows, count], "to_onnx")
            return
        except ValueError as error:
            named = error  # the file may be right all the same, as in the length of x[2:]
    try:
        check_replay(program, recording, count, "to_onnx")
    except ValueError as error:
        raise named or error from None


def _recorded(
    function: Callable[..., Any], arrays: Sequence[Array], kind: str, rng: np.random.Generator, differentiable: bool
) -> Recording:
    """Record the function on other values; on tamer ones where it refuses them."""
    for values in KINDS[KINDS.index(kind) :]:
        try:
            return record(function, [other_values(array, rng, values) for array in arrays], differentiable)[0]
        except Exception as error:  # whatever a function raises that checks its inputs
            last = error
    shapes = ", ".join(str(array.shape) for array in arrays)
    raise ValueError(
        f"to_onnx: the function works for the examples, but not for other values of shape {shapes}: {last}. Pass "
        "dynamic_batch=False if it takes one number of rows, or examples with different valid values"
    ) from last


def _warn_of_reads(recordings: Sequence[Recording]) -> None:
    """Warn where values were read: what NumPy makes of them may be the same in all recordings by chance."""
    places = dict.fromkeys(place for recording in recordings for place in recording.reads)
    if places:
        warnings.warn(
            f"to_onnx: values of Tensors that depend on the inputs are read at {'; '.join(places)}. What Python or "
            "NumPy makes of them is a constant of the file. It was the same for all values that were tried; make sure "
            "that it always is, or use Tensor operations instead",
            stacklevel=3,
        )


def _names(kind: str, given: Sequence[str] | None, count: int, keys: list[str] | None) -> list[str]:
    if given is None:
        return [str(key) for key in keys] if keys else [kind] if count == 1 else [f"{kind}_{i}" for i in range(count)]
    names = [given] if isinstance(given, str) else list(given)
    if len(names) != count or len(set(names)) < count or not all(names):
        raise ValueError(f"to_onnx: {kind}_names are {names}; pass {count} different names")
    return names


class _Writer:
    """Writes a program as an ONNX model."""

    def __init__(self, program: Program, names: dict[int, str], inputs: list[str], outputs: list[str]) -> None:
        self.program = program
        self.parameters = names
        self.output_names = outputs
        self.graph = Graph()
        self.values: dict[int, Value] = {}
        self.named: set[int] = set()  # results that depend on parameters
        self.foreign: dict[str, str] = {}  # primitives written by converters of others, and their lines
        self.inputs = [self._input(name, result) for name, result in zip(inputs, program.inputs, strict=True)]
        self.graph.batch_of = self.inputs[0]
        if [self.graph.name(name) for name in outputs] != outputs:
            raise ValueError(f"to_onnx: {[*inputs, *outputs]} name inputs and outputs; all must be different")

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
        join_biases(self.graph.nodes, self.graph.initializers, self.output_names)
        try:
            return self.graph.model(self.inputs, outputs)
        except Exception as error:
            if not self.foreign:
                raise
            raise ValueError(_invalid(self.foreign, error)) from error

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
        dtype, dims = program.dtypes[number], program.shapes[number]
        if 0 in dims and not any(isinstance(dim, Dim) for dim in dims):  # nothing to compute, and runtimes fail here
            self.values[number] = self.graph.constant(np.zeros(dims, dtype))  # type: ignore[arg-type]  # no Dims
            return
        converter = CONVERTERS.get(node.op)
        if number in program.fixed and (converter is None or number not in self.named):
            self.values[number] = self.graph.constant(program.fixed[number])
            return
        if converter is None:
            raise NotImplementedError(_missing(node))
        self.graph.dtype, self.graph.dims, self.graph.place = dtype, dims, node.place
        made = converter(self.graph, *inputs, **keywords)
        if made is None:
            raise TypeError(
                f"to_onnx: the converter of {node.op.__name__} ({node.place}) returned None; return the Value of the "
                "result, as graph.add does"
            )
        if not str(converter.__module__).startswith(__package__):
            self.foreign[node.op.__name__] = node.place
        self.values[number] = self.graph.cast(made, dtype)._replace(dims=dims)

    def _operand(self, value: Any) -> Any:
        """Return what a converter gets for an argument or a setting."""
        if isinstance(value, Result):
            return self.values[value.number]
        if isinstance(value, np.ndarray):
            return self.graph.constant(value, self.parameters.get(id(value)))
        if isinstance(value, Tile):
            return expanded(self.graph, self.graph.constant(value.array), value.dims)
        if isinstance(value, Range):
            return self.graph.cast(places(self.graph, value.dims), value.dtype)
        if type(value) is tuple:
            return tuple(map(self._operand, value))
        return value

    def _output(self, name: str, part: Any) -> Value:
        """Give an output its name."""
        value: Value = self._operand(part)
        named = self.graph.named(value, name, self.output_names)
        self.values = {number: named if v.name == value.name else v for number, v in self.values.items()}
        return named


def _invalid(foreign: dict[str, str], error: Exception) -> str:
    places = ", ".join(f"{name} ({place})" for name, place in foreign.items())
    found = " ".join(str(error).split())
    return (
        f"to_onnx: the onnx package refuses the file ({found}). Look at your converters: of {places}. The operators "
        "that they add must be those of opset 18, with inputs of the right dtypes; a result has graph.dtype and "
        "graph.dims"
    )


def _missing(node: Node) -> str:
    function = node.op.forward
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', node.op.__name__)}"
    return (
        f"to_onnx: the primitive {node.op.__name__} ({node.place}) has no ONNX converter. Write one, and register it "
        f"by @tg.export.onnx_converter(op) over def convert(graph, *inputs, **settings); op is {name}. See "
        "help(tg.export.onnx_converter)"
    )
