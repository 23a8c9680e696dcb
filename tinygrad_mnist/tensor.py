"""The engine: a `Tensor` remembers how it was made, and `backward` walks that record from the youngest Tensor to the
oldest.

The graph is data. Each recorded Tensor holds the primitive that made it (`op`), the Tensors and arrays that went in
(`inputs`) and the keyword settings (`keywords`). There are no closures and no tape, so a graph has no reference cycles
and is freed when its output is.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import Parameter, signature
from operator import attrgetter
from types import MethodType
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy import ndarray

__all__ = ["Primitive", "Tensor", "as_tensor", "grad", "no_grad", "primitive"]

Array: TypeAlias = npt.NDArray[Any]
Operand: TypeAlias = "Tensor | npt.ArrayLike"  # what every op takes
Rule: TypeAlias = (
    "Callable[..., Tensor] | None"  # a vector-Jacobian product: (g, out, *inputs, **keywords) -> gradient of one input
)

PLAIN = (float, int, bool)  # Python's own numbers; np.float64 is a float, too, but not a plain one
NO_KEYWORDS: dict[str, Any] = {}  # shared by all leaves, never written to
_serial = itertools.count()  # a Tensor is younger than everything that it was made from


class _Mode(threading.local):
    recording = True  # per thread, so that shards on threads do not disturb each other


_mode = _Mode()


class Tensor:
    """An n-dimensional array that can be differentiated.

    Parameters
    ----------
    data : array_like
        Copied (memory order kept). float32 stays float32, float64 stays float64; numbers and lists follow NumPy's
        rules.
    requires_grad : bool
        Whether gradients with respect to this Tensor are wanted. Only floating-point Tensors can require them.

    Attributes
    ----------
    data : ndarray
        The values.
    grad : Tensor or None
        Filled by `backward` on leaves (Tensors that no op has made), summed over calls; set it to None to start anew.
    op, inputs, keywords
        The record: the primitive that made this Tensor (None on a leaf), its inputs and settings.

    Raises
    ------
    TypeError
        If `data` is not numeric, or `requires_grad` is set for anything but floating-point numbers.

    Examples
    --------
    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    Tensor([2., 4., 6.], dtype=float64)
    """

    __slots__ = ("__weakref__", "data", "grad", "inputs", "keywords", "op", "requires_grad", "serial")
    __array_ufunc__ = None  # ndarray <op> Tensor is left to the Tensor

    data: Array
    grad: Tensor | None
    op: Primitive | None
    inputs: tuple[Any, ...] | None
    keywords: dict[str, Any]

    def __init__(self, data: Operand, requires_grad: bool = False) -> None:
        self.data = np.array(as_tensor(data).data)
        if requires_grad and self.data.dtype.kind != "f":
            raise TypeError(
                f"Tensor: {self.data.dtype} data cannot require gradients; convert it first: array.astype(np.float32)"
            )
        self.requires_grad = requires_grad
        self.op, self.inputs, self.keywords, self.grad = None, (), NO_KEYWORDS, None
        self.serial = next(_serial)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy data type of the values."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """Number of values."""
        return self.data.size

    def numpy(self) -> Array:
        """Return the values as an ndarray (not a copy)."""
        return self.data

    def item(self) -> float:
        """Return the only value as a Python number."""
        if self.data.size != 1:
            raise ValueError(
                f"item: a Tensor of shape {self.shape} has {self.data.size} values, not one; reduce it first, e.g. by "
                ".sum()"
            )
        return self.data.item()  # type: ignore[no-any-return]  # ndarray.item is typed Any

    def detach(self) -> Tensor:
        """Return a Tensor with the same values (not copied) and no history."""
        return _wrap(self.data)

    def backward(self, gradient: Operand | None = None, *, retain_graph: bool = False) -> None:
        """Add the gradient of this Tensor to `.grad` of every leaf that it was made from.

        Parameters
        ----------
        gradient : array_like, optional
            The gradient of some scalar with respect to this Tensor, of the same shape. May be left out if this is a
            single number.
        retain_graph : bool
            Keep the record for another backward pass. By default it is freed on the way, activations included.

        Raises
        ------
        RuntimeError
            If nothing here requires a gradient, if the Tensor is no single number and `gradient` is missing, or if the
            graph was freed.
        """
        if not self.requires_grad:
            raise RuntimeError(
                "backward: nothing that this Tensor was made from requires a gradient; create it with "
                "requires_grad=True"
            )
        nodes = _graph(self)
        leaves = [node for node in nodes if node.op is None]
        found = _backpropagate(
            self, nodes, _seed(self, gradient, "backward"), {id(leaf) for leaf in leaves}, False, retain_graph
        )
        for leaf in leaves:
            g = found[id(leaf)].data
            leaf.grad = _wrap(np.array(g) if leaf.grad is None else np.asarray(leaf.grad.data + g))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self.data, dtype=dtype, copy=copy)

    def __reduce__(
        self,
    ) -> tuple[Any, ...]:  # for copy and pickle: without history, and young enough to come before what it goes into
        return Tensor, (self.data, self.requires_grad and self.op is None), (None, {"grad": self.grad})

    def __repr__(self) -> str:
        body = np.array2string(self.data, separator=", ", prefix="Tensor(")
        made = f", op={self.op.__name__}" if self.op else ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({body}, dtype={self.dtype}{made})"

    def __format__(self, spec: str) -> str:
        return format(self.item() if spec else str(self), spec)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len: a Tensor of shape () has no axis to count")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    __hash__ = object.__hash__

    @classmethod
    def attach(cls, **methods: Any) -> None:
        """Make functions of a Tensor methods of the class.

        ``x.exp()`` is ``exp(x)``. The operators and most methods come from ops.py.
        """
        for name, function in methods.items():
            setattr(cls, name, function)

    def _from_ops(
        self, *args: Any, **keywords: Any
    ) -> Tensor:  # stands here for those that are attached, to name and type them
        raise NotImplementedError

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = __rpow__ = (
        _from_ops
    )
    __matmul__ = __rmatmul__ = __neg__ = __abs__ = __getitem__ = __lt__ = __le__ = __gt__ = __ge__ = _from_ops
    __eq__ = __ne__ = _from_ops  # type: ignore[assignment]  # elementwise, as in NumPy and PyTorch, so not object's
    abs = exp = log = sqrt = tanh = sigmoid = relu = clip = matmul = sum = mean = max = min = argmax = _from_ops
    reshape = transpose = swapaxes = astype = broadcast_to = softmax = log_softmax = logsumexp = _from_ops
    T: ClassVar[Any]  # transpose()


class Primitive:
    """A differentiable function on arrays, with one vector-Jacobian product (VJP) rule for each array argument.

    Made by `primitive`; called with Tensors, ndarrays or numbers it returns a Tensor and records itself where a
    gradient is wanted.
    """

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward
        self.rules: Sequence[Rule] = ()
        self.shared: Callable[..., Any] | None = None
        self.rule_for_each: Callable[..., Tensor] | None = None
        self.partial = True  # some arguments may have no rule
        self.__name__ = self.__qualname__ = getattr(forward, "__name__", "primitive").lstrip("_")
        self.__doc__, self.__wrapped__ = forward.__doc__, forward
        parameters = [] if isinstance(forward, np.ufunc) else list(signature(forward).parameters.values())
        self.settings = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        self.arrays: int | None = forward.nin if isinstance(forward, np.ufunc) else len(parameters) - len(self.settings)
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            self.arrays = None  # any number
        self.plain = None if self.settings else self.arrays  # so many arguments, and there is nothing to bind

    def defvjp(self, *rules: Rule, shared: Callable[..., Any] | None = None) -> None:
        """State the VJP rules, one for each array argument: ``rule(g, out, *inputs, **keywords)``, all Tensors (numbers
        stay numbers).

        ``g`` is the gradient with respect to the output ``out``; the rule returns that with respect to its argument, in
        Tensor operations, so that it can be differentiated again. None stands for an argument without a gradient.

        What several rules begin with can be stated as ``shared``, of the same signature: it is computed once, and they
        get what it returns in place of ``g``.
        """
        self.rules, self.shared = rules, shared
        self.partial = None in rules or (self.arrays is not None and len(rules) < self.arrays)

    def defvjp_each(self, rule: Callable[..., Tensor]) -> None:
        """State one rule for a primitive of any number of arrays: ``rule(position, g, out, *inputs, **keywords)``."""
        self.rule_for_each = rule

    def rule(self, position: int) -> Rule:
        """Return the VJP rule of the array argument at `position`."""
        if self.rule_for_each is not None:
            return partial(self.rule_for_each, position)
        if position >= len(self.rules):
            raise TypeError(
                f"{self.__name__}: no VJP rule is stated for argument {position}; state it (or None) with .defvjp(...)"
            )
        return self.rules[position]

    def _bound(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Name the settings that were given by position, as in ``sum(x, 0)``, and fill in those that were not given."""
        count = len(args) if self.arrays is None else self.arrays
        named = dict(zip(self.settings, args[count:], strict=False))
        if count + len(named) < len(args) or named.keys() & keywords.keys() or keywords.keys() - self.settings.keys():
            known = f"the settings {', '.join(self.settings)}, each of them once" if self.settings else "no settings"
            raise TypeError(
                f"{self.__name__}: it takes {'any' if self.arrays is None else self.arrays} arrays, by position, and "
                f"{known}"
            )
        values = {name: default for name, default in self.settings.items() if default is not Parameter.empty}
        return args[:count], {**values, **named, **keywords}

    def __call__(self, *args: Any, **keywords: Any) -> Tensor:
        if (keywords or len(args) != self.plain) and (
            len(args) != self.arrays or keywords.keys() != self.settings.keys()
        ):
            args, keywords = self._bound(args, keywords)
        given, arrays, wanted = args, [], None  # a gradient is wanted: None means that there is no Tensor at all
        try:
            for a in args:
                if isinstance(a, Tensor):
                    arrays.append(a.data)
                    if a.requires_grad:
                        wanted = True
                    elif wanted is None:
                        wanted = False
                elif type(a) in PLAIN:
                    arrays.append(a)
                else:
                    break
            if wanted is None or len(arrays) < len(args):
                args = _operands(args)
                arrays = [a.data if isinstance(a, Tensor) else a for a in args]
                wanted = any(a.requires_grad for a in args if isinstance(a, Tensor))
            if (watcher := _watcher) is not None:  # read once: another thread may leave its context meanwhile
                data = watcher.forward(self, arrays, keywords)
            elif keywords:
                data = self.forward(*arrays, **keywords)
            else:
                data = self.forward(*arrays)
        except (ValueError, TypeError, IndexError) as error:
            raise _explained(error, self.__name__, given) from error
        out = _wrap(data if type(data) is ndarray else np.asarray(data))
        if wanted and _mode.recording:
            if self.partial or len(args) > len(self.rules):
                args, wanted = self._detached_where_no_rule(args)
            if wanted:
                out.requires_grad, out.op, out.inputs, out.keywords = True, self, args, keywords
        return out

    def as_operator(self) -> Callable[[Tensor, Operand], Tensor]:
        """Return a function of two arrays for an operator of the class, with a short cut where there is nothing to
        record.

        VJP rules are made of such: with the short cut 0.6 instead of 1.2 µs for each, and a backward pass through small
        Tensors is a quarter faster. It leaves everything else, errors included, to ``__call__``.
        """
        call, forward = self.__call__, self.forward

        def operator(x: Tensor, y: Operand) -> Tensor:
            if (
                type(y) is Tensor
                and not (_mode.recording and (x.requires_grad or y.requires_grad))
                and _watcher is None
            ):
                try:
                    data = forward(x.data, y.data)
                    return _wrap(data if type(data) is ndarray else np.asarray(data))
                except (ValueError, TypeError):  # __call__ explains them
                    pass
            return call(x, y)

        return operator

    def _detached_where_no_rule(self, inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], bool]:
        """Detach the inputs that have no rule; also tells whether any of the others requires a gradient."""
        parts = list(inputs)
        for position, a in enumerate(inputs):
            if isinstance(a, Tensor) and a.requires_grad and self.rule(position) is None:
                parts[position] = a.detach()
        return tuple(parts), any(a.requires_grad for a in parts if isinstance(a, Tensor))

    def __get__(self, instance: Tensor | None, owner: type) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<primitive {self.__name__}>"


def primitive(forward: Callable[..., Any]) -> Primitive:
    """Turn a function on ndarrays into a differentiable op (use as a decorator; then state its rules with
    `Primitive.defvjp`).

    Parameters
    ----------
    forward : callable
        ndarrays in, ndarray out. Array arguments are positional, everything else is keyword-only (in the definition; a
        call may give settings by position, too). It must not modify its arguments.

    Examples
    --------
    >>> import numpy as np, tinygrad_mnist as tg
    >>> @tg.primitive
    ... def cube(x):
    ...     return x**3
    >>> cube.defvjp(lambda g, out, x: g * 3 * x**2)
    >>> x = tg.Tensor([1.0, 2.0], requires_grad=True)
    >>> tg.grad(cube(x).sum(), [x])[0]
    Tensor([ 3., 12.], dtype=float64)
    """
    return Primitive(forward)


def as_tensor(x: Operand) -> Tensor:
    """Return `x` itself if it is a Tensor, else a Tensor of its values.

    An ndarray is not copied, here and where ops take one: do not write to it until the backward pass is done.

    Examples
    --------
    >>> as_tensor([1, 2])
    Tensor([1, 2], dtype=int64)
    """
    if isinstance(x, Tensor):
        return x
    if isinstance(x, (list, tuple)) and any(isinstance(part, Tensor) and part.requires_grad for part in x):
        raise TypeError(
            "cannot compute with a list of Tensors without losing their history; join them with tg.stack or "
            "tg.concatenate"
        )
    array = np.asarray(x)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"cannot compute with {type(x).__name__} of {array.dtype}; pass Tensors, arrays or numbers")
    return _wrap(array)


@contextmanager
def no_grad() -> Iterator[None]:
    """Within this context (and thread) nothing is recorded: results require no gradient and hold no history.

    Examples
    --------
    >>> x = Tensor(2.0, requires_grad=True)
    >>> with no_grad():
    ...     y = x * x
    >>> y.requires_grad
    False
    """
    with recording(False):
        yield


def grad(
    output: Tensor,
    inputs: Iterable[Tensor],
    create_graph: bool = False,
    *,
    gradient: Operand | None = None,
    retain_graph: bool = True,
) -> list[Tensor]:
    """Gradients of `output` with respect to `inputs`; no `.grad` is touched.

    Parameters
    ----------
    output : Tensor
        A single number, or of any shape if `gradient` is given.
    inputs : iterable of Tensor
        Leaves or intermediate results, all requiring gradients.
    create_graph : bool
        Record the computation of the gradients, so that they can be differentiated again.
    gradient : array_like, optional
        The cotangent, of `output`'s shape. With it the result is the vector-Jacobian product.
    retain_graph : bool
        Keep the record of `output`, so that it can be differentiated once more; False frees it on the way.

    Returns
    -------
    list of Tensor
        One for each input, of its shape and dtype; zeros where `output` does not depend on it.

    Examples
    --------
    >>> x = Tensor(3.0, requires_grad=True)
    >>> (slope,) = grad(x * x * x, [x], create_graph=True)
    >>> slope.item(), grad(slope, [x])[0].item()
    (27.0, 18.0)
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if not isinstance(output, Tensor) or not output.requires_grad:
        raise RuntimeError(
            "grad: the output depends on nothing that requires a gradient; it may have been made in no_grad(), or be a "
            "gradient "
            "without create_graph=True"
        )
    for position, x in enumerate(inputs):
        if not isinstance(x, Tensor) or not x.requires_grad:
            raise TypeError(
                f"grad: inputs[{position}] does not require a gradient; create it as Tensor(array, requires_grad=True)"
            )
    cotangent = _seed(output, gradient, "grad")
    if create_graph and not cotangent.requires_grad:
        cotangent = Tensor(
            cotangent, requires_grad=True
        )  # so that a gradient that is constant can be differentiated, too: to zeros
    found = _backpropagate(
        output, _graph(output), cotangent, {id(x) for x in inputs}, create_graph, retain_graph or create_graph
    )
    with recording(create_graph):
        return [_copy(found[id(x)]) if id(x) in found else Tensor(np.zeros_like(x.data), create_graph) for x in inputs]


class Watcher:
    """Stands between the engine and the primitives, in all threads, while `watching`: what profilers and debuggers
    override.

    Watchers can be active inside each other: what an override calls with ``super()`` is the one below, and the lowest
    computes.
    """

    below: Watcher | None = None

    def forward(self, op: Primitive, arrays: Sequence[Any], keywords: dict[str, Any]) -> Any:
        """Compute a primitive from ndarrays and numbers, in the forward or (inside `rule`) in the backward pass."""
        below = self.below
        return op.forward(*arrays, **keywords) if below is None else below.forward(op, arrays, keywords)

    def rule(self, rule: Callable[..., Any], position: int | None, g: Any, node: Tensor) -> Any:
        """Compute the gradient with respect to input `position` of `node` from `g`, that with respect to `node`.

        A position of None stands for what the rules share: that comes first, and they get its result as `g`.
        """
        below = self.below
        return (
            rule(g, node, *(node.inputs or ()), **node.keywords)
            if below is None
            else below.rule(rule, position, g, node)
        )


_watcher: Watcher | None = None  # the uppermost
_watcher_lock = (
    threading.RLock()
)  # the collector may end a forgotten generator, and its context, while its thread is in here


def _watchers() -> Iterator[Watcher]:
    """Go through the active watchers, from the uppermost down."""
    watcher = _watcher
    while watcher is not None:
        yield watcher
        watcher = watcher.below


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Within this context let `watcher` compute every primitive and every rule, in all threads, on top of those that
    are active already.

    Contexts may be left in any order, as they are on several threads.
    """
    global _watcher
    with _watcher_lock:
        if any(active is watcher for active in _watchers()):
            raise RuntimeError(
                f"{type(watcher).__name__}: this one is active already; leave its context first, or make another one"
            )
        watcher.below, _watcher = _watcher, watcher
    try:
        yield
    finally:
        with _watcher_lock:
            if _watcher is watcher:
                _watcher = watcher.below
            else:
                next(above for above in _watchers() if above.below is watcher).below = watcher.below
            watcher.below = None


@contextmanager
def recording(on: bool) -> Iterator[None]:
    """Within this context (and thread), record ops or not, whatever holds outside."""
    before, _mode.recording = _mode.recording, on
    try:
        yield
    finally:
        _mode.recording = before


def is_recording() -> bool:
    """Whether ops are recorded here and now."""
    return _mode.recording


_new = Tensor.__new__


def _wrap(data: Array) -> Tensor:
    """Make a Tensor around an array that nobody else will write to: no copy, no checks."""
    out = _new(Tensor)
    out.data = data
    out.requires_grad = False
    out.op = out.grad = None
    out.inputs, out.keywords = (), NO_KEYWORDS
    out.serial = next(_serial)
    return out


def _operand(a: Any) -> Tensor | float:
    """Take in what is no Tensor: NumPy scalars become Python numbers, which never upcast; the rest becomes a Tensor."""
    if isinstance(a, np.ndarray | np.generic) and a.ndim == 0 and a.dtype.kind in "biuf":
        return a.item()  # type: ignore[no-any-return]  # item is typed Any
    return as_tensor(a)


def _operands(args: Sequence[Any]) -> tuple[Any, ...]:
    """Take in what ops are given.

    Tensors and numbers stay, the rest becomes Tensors. Numbers alone become Tensors, too.
    """
    inputs = tuple([a if isinstance(a, Tensor) or type(a) in PLAIN else _operand(a) for a in args])
    if not any(
        isinstance(a, Tensor) for a in inputs
    ):  # then NumPy's scalars decide the dtype: Python's numbers do not change it
        inputs = tuple([a if type(a) in PLAIN else as_tensor(a) for a in args])
    return inputs if any(isinstance(a, Tensor) for a in inputs) else tuple([as_tensor(a) for a in args])


def _explained(error: Exception, name: str, args: Sequence[Any]) -> Exception:
    """Return the same kind of error, naming the op and what it was given."""
    text = str(error)
    if text.startswith(name):
        return error
    if text.startswith("cannot compute with"):  # then that is the one argument to speak of
        return TypeError(f"{name}: {text}")
    if "broadcast" in text:
        text += (
            "; shapes must be equal or broadcastable: aligned at the right, each pair of lengths equal or one of "
            "them 1 (see reshape)"
        )
    kind = next(kind for kind in (IndexError, TypeError, ValueError) if isinstance(error, kind))
    return kind(f"{name}({', '.join(map(_described, args))}): {text}")


def _described(a: Any) -> str:
    if isinstance(a, (Tensor, np.ndarray)):
        return f"{a.dtype} {a.shape}"
    if isinstance(a, (list, tuple)) and any(isinstance(part, (Tensor, np.ndarray, list)) for part in a):
        return f"[{', '.join(map(_described, a))}]"
    return repr(a)


def _seed(output: Tensor, gradient: Operand | None, caller: str) -> Tensor:
    """Return the gradient that a backward pass starts from: the given one, checked, or 1 for a single number."""
    if gradient is None:
        if output.size != 1:
            raise RuntimeError(
                f"{caller}: only a single number has a gradient of its own, this Tensor has shape {output.shape}; "
                "reduce it (.sum(), .mean()) or pass gradient="
            )
        return _wrap(np.ones_like(output.data))
    g = as_tensor(gradient)
    if g.shape != output.shape:
        raise ValueError(
            f"{caller}: gradient has shape {g.shape}, but the Tensor has shape {output.shape}; they must be equal"
        )
    return g if g.dtype == output.dtype else astype(g, dtype=output.dtype)


def _graph(root: Tensor) -> list[Tensor]:
    """List the Tensors that `root` was made from and that gradients flow through, oldest first."""
    seen, nodes = {id(root)}, [root]
    for node in nodes:  # the list grows while it is read
        if node.inputs is None:
            raise RuntimeError(
                f"backward: the graph behind a Tensor of shape {node.shape} (made by {node.op}) was freed by an "
                "earlier backward pass; "
                "pass retain_graph=True to that one, or compute the output again"
            )
        for a in node.inputs:
            if isinstance(a, Tensor) and a.requires_grad and id(a) not in seen:
                seen.add(id(a))
                nodes.append(a)
    nodes.sort(key=attrgetter("serial"))
    return nodes


def _backpropagate(
    root: Tensor, nodes: list[Tensor], cotangent: Tensor, wanted: set[int], create_graph: bool, retain_graph: bool
) -> dict[int, Tensor]:
    """Carry `cotangent` from `root` down to the `wanted` Tensors.

    Returns id -> gradient. `nodes` is used up, to free memory on the way.
    """
    useful = _useful(nodes, wanted)
    found: dict[int, Tensor] = {}
    pending = {id(root): cotangent}
    with recording(create_graph):
        while nodes:  # from the youngest to the oldest: every consumer of a Tensor comes before it
            node = nodes.pop()
            key = id(node)
            if key in useful:
                g = pending.pop(key)
                if key in wanted:
                    found[key] = g
                if node.op is not None:
                    _distribute(node, node.op, g, useful, pending)
            if not retain_graph and node.op is not None:
                node.inputs, node.keywords = None, NO_KEYWORDS
    return found


def _useful(nodes: list[Tensor], wanted: set[int]) -> set[int]:
    """Return the ids of those of `nodes` (oldest first) that are wanted or were made from a wanted one."""
    useful = {id(node) for node in nodes}
    if not all(
        id(node) in wanted for node in nodes if node.op is None
    ):  # as it usually is: every leaf is wanted, and all are useful
        useful &= wanted
        for node in nodes:
            if any(id(a) in useful for a in node.inputs or () if isinstance(a, Tensor)):
                useful.add(id(node))
    return useful


def _distribute(node: Tensor, op: Primitive, g: Any, useful: set[int], pending: dict[int, Tensor]) -> None:
    """Call the rules of the primitive `op` that made `node` and add what they return to the gradients of its inputs."""
    inputs, keywords, rules, shared, watcher = node.inputs or (), node.keywords, op.rules, op.shared, _watcher
    if shared is not None:
        g = shared(g, node, *inputs, **keywords) if watcher is None else watcher.rule(shared, None, g, node)
    for position, x in enumerate(inputs):
        key = id(x)
        if key not in useful:
            continue
        rule = rules[position] if rules else op.rule(position)
        assert rule is not None
        if watcher is not None:
            gx = watcher.rule(rule, position, g, node)
        elif keywords:
            gx = rule(g, node, *inputs, **keywords)
        else:
            gx = rule(g, node, *inputs)
        if not isinstance(gx, Tensor):
            raise TypeError(
                f"{op.__name__}: the VJP rule of argument {position} returned {type(gx).__name__}; it must return a "
                "Tensor"
            )
        had, has = x.data, gx.data
        if has.shape != had.shape:
            raise ValueError(
                f"{op.__name__}: the VJP rule of argument {position} returned shape {gx.shape} for an argument of "
                f"shape {x.shape}; "
                "a rule must return its argument's shape (undo broadcasting with tg.sum_to)"
            )
        if has.dtype is not had.dtype and has.dtype != had.dtype:
            gx = astype(gx, dtype=had.dtype)
        earlier = pending.get(key)
        if earlier is not None:
            gx = earlier + gx if _mode.recording else _wrap(np.asarray(earlier.data + gx.data))
        pending[key] = gx


@primitive
def _copy(x: Array) -> Array:
    return np.array(x)


_copy.defvjp(lambda g, out, x: g)


@primitive
def astype(x: Array, *, dtype: npt.DTypeLike) -> Array:
    """Convert to another data type; the gradient is converted back.

    Examples
    --------
    >>> astype([1.0], np.float32)
    Tensor([1.], dtype=float32)
    """
    return np.asarray(x, dtype)


astype.defvjp(lambda g, out, x, dtype: astype(g, dtype=x.dtype))
