"""Transforms of functions, as ``tg.func``: gradients, Jacobians, Hessians, and models called with other parameters.

All are compositions of `tinygrad_mnist.grad`, in a few lines each. Arguments and results are trees: Tensors, arrays and
floats, or dicts, lists and tuples of trees. (A list of numbers is such a list, and no array; None is an empty tree.)

Transforms can be nested to any depth. Where the arguments, or other Tensors that the function uses, require a gradient,
the results can be differentiated by those, also with `.backward()`. Transforms differentiate within `no_grad`, too; as
everywhere, results have no history there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy as shallow_copy
from types import MethodType
from typing import Any, TypeAlias

import numpy as np

from .backward import grad as engine_grad
from .backward import topological_order
from .nn.buffer import Buffer
from .ops import concatenate, stack
from .record import as_tensor, astype, copy, mode, primitive, recording
from .tensor import Array, Operand, Tensor, wrap
from .validation import each, integer, parameter_mismatches
from .walk import leaves, with_others

__all__ = ["functional_call", "grad", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp"]

Tree: TypeAlias = Any  # a Tensor, array or float; None; or a dict, list or tuple of trees
Function: TypeAlias = Callable[..., Any]
Argnums: TypeAlias = "int | Sequence[int]"


# Trees ----------------------------------------------------------------------------------------------------------------
def _map(function: Callable[[Any, str], Any], tree: Tree, path: str = "") -> Tree:
    """Make a tree of the same structure of ``function(leaf, path)``."""
    if isinstance(tree, dict):
        made = shallow_copy(tree)
        for key, part in tree.items():
            made[key] = _map(function, part, f"{path}[{key!r}]")
        return made
    if isinstance(tree, (list, tuple)):
        parts = [_map(function, part, f"{path}[{i}]") for i, part in enumerate(tree)]
        if hasattr(tree, "_fields"):  # a named tuple takes its elements one by one
            return type(tree)(*parts)
        return type(tree)(parts)
    if tree is None:
        return None
    return function(tree, path)


def _filled(tree: Tree, values: Iterable[Any]) -> Tree:
    """Make a tree of the same structure, with `values` as its leaves."""
    remaining = iter(values)
    return _map(lambda leaf, path: next(remaining), tree)


def _as_leaves(tree: Tree, wanted: Tree, name: str) -> Iterator[Tensor]:
    """Yield the leaves of a tree in the order and dtypes of those of `wanted`; refuse another structure or shape."""
    if isinstance(wanted, dict):
        if not isinstance(tree, dict) or tree.keys() != wanted.keys():
            found = f"a dict with the keys {[*tree]}" if isinstance(tree, dict) else _kind(tree)
            raise ValueError(f"{name} is {found}; it must be a dict with the keys {[*wanted]}")
        for key, part in wanted.items():
            yield from _as_leaves(tree[key], part, f"{name}[{key!r}]")
    elif isinstance(wanted, (list, tuple)):
        if not isinstance(tree, (list, tuple)) or len(tree) != len(wanted):
            found = _kind(tree, list, tuple)
            raise ValueError(f"{name} is {found}; it must be {_kind(wanted, list, tuple)}")
        for i, part in enumerate(wanted):
            yield from _as_leaves(tree[i], part, f"{name}[{i}]")
    elif wanted is not None:
        leaf = _tensor(tree, name)
        if leaf.shape != wanted.shape:
            raise ValueError(f"{name} has shape {leaf.shape}; it must have shape {wanted.shape}")
        yield leaf if leaf.dtype == wanted.dtype else astype(leaf, wanted.dtype)


def _kind(value: Any, *sequences: Any) -> str:
    """Describe a value in errors: what it is and, where it is one of the `sequences`, how long."""
    kind = f"a {type(value).__name__}"
    return f"{kind} of length {len(value)}" if isinstance(value, sequences) else kind


def _tensor(leaf: Any, name: str) -> Tensor:
    try:
        return as_tensor(leaf)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Make one Tensor of several, so that one backward pass serves them all."""
    if not parts:
        return wrap(np.zeros(0))
    if len(parts) == 1:
        return parts[0]
    return concatenate([part.reshape(-1) for part in parts])


def _split(rows: Tensor, parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """Cut `rows`, one for each number of the `parts`, into Tensors of their shapes; further axes stay."""
    start = 0
    for part in parts:
        stop = start + part.size
        yield rows[start:stop].reshape(part.shape + rows.shape[1:])
        start = stop


# A function called with variables -------------------------------------------------------------------------------------
class _Level:
    """Marks the variables of one call."""

    live = True  # until the transform returns: nobody can differentiate by them then


@primitive
def _constant(*, value: Array) -> Array:
    return value


def _pull(root: Tensor, inputs: Sequence[Tensor], cotangent: Tensor, create: bool, keep: bool = True) -> list[Tensor]:
    """Gradients of `root` with respect to `inputs`: zeros where it depends on none of them."""
    if not root.requires_grad or not inputs:
        return [wrap(np.zeros_like(x.data)) for x in inputs]
    if create and not cotangent.requires_grad:  # as grad demands; a leaf would look like something of the user's
        cotangent = wrap(cotangent.data, _constant, (), {"value": cotangent.data})
    found = engine_grad(root, inputs, create, gradient=cotangent, retain_graph=keep)
    return [g.detach() if g.op is None else g for g in found]  # its zeros are leaves


class _Call:
    """What `fn` makes of arguments of which those at `argnums` are variables.

    Attributes
    ----------
    primals, out : trees of Tensors
        The variables in the structure of the arguments, and what `fn` returned; `variables` and `outputs` list them.
    root : Tensor
        All outputs in one.
    open : bool
        Whether they depend on anything else that requires a gradient: Tensors that `fn` uses, or the variables of an
        outer transform. Derivatives need a history then.
    """

    def __init__(
        self, caller: str, fn: Function, args: Sequence[Any], argnums: Any, has_aux: bool, keywords: Mapping[str, Any]
    ) -> None:
        self.caller = caller
        self.level = _Level()
        self.variables: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.aux: Any = None
        chosen = self._positions(argnums, len(args))
        own = list(args)
        with recording(True):
            for n in chosen:
                own[n] = _map(self._variable, args[n], f"argument {n}")
            returned = fn(*own, **keywords)
            if has_aux:
                returned, self.aux = self._pair(returned)
            self.out = _map(self._output, returned, "the output")
            self.root = _join(self.outputs)
        self.primals = tuple(own[n] for n in chosen) if isinstance(argnums, Sequence) else own[chosen[0]]
        self.open = self._is_open(self.root)

    def __enter__(self) -> _Call:
        return self

    def __exit__(self, *error: object) -> None:
        self.level.live = False

    def _positions(self, argnums: Any, count: int) -> list[int]:
        """Positions of the arguments to differentiate with respect to; negative ones count from the end."""
        if isinstance(argnums, Sequence):
            chosen = each(self.caller, "argnums", argnums, integer, least=-count)
        else:
            chosen = (integer(self.caller, "argnums", argnums, -count),)
        if any(n >= count for n in chosen):
            raise ValueError(f"{self.caller}: argnums is {argnums}, but fn got {count} arguments by position")
        if len({n % count for n in chosen}) < len(chosen):
            raise ValueError(f"{self.caller}: argnums is {argnums}, which names an argument twice")
        return [n % count for n in chosen]

    def _pair(self, returned: Any) -> tuple[Any, Any]:
        if not isinstance(returned, tuple) or len(returned) != 2:
            found = _kind(returned, tuple)
            raise TypeError(f"{self.caller}: with has_aux, fn must return a pair (output, aux), not {found}")
        return returned

    def _floats(self, leaf: Any, name: str, remedy: str) -> Tensor:
        found = _tensor(leaf, f"{self.caller}: {name}")
        if found.dtype.kind != "f":
            raise TypeError(f"{self.caller}: {name} is {found.dtype}, which carries no gradient; {remedy}")
        return found

    def _variable(self, leaf: Any, name: str) -> Tensor:
        given = self._floats(leaf, name, "convert it to floats, or leave it out by argnums or a closure")
        if given.requires_grad:  # results can be differentiated by what is given, too
            variable = copy(given)
        else:
            variable = self.leaf(given.detach().data)
        self.variables.append(variable)
        return variable

    def _output(self, leaf: Any, name: str) -> Tensor:
        output = self._floats(leaf, name, "return floats, and other results with has_aux=True")
        self.outputs.append(output)
        return output

    def leaf(self, data: Array) -> Tensor:
        """Make a variable that depends on nothing."""
        made = wrap(data, None, (), {"level": self.level})
        made.requires_grad = True
        return made

    def _is_open(self, t: Tensor) -> bool:
        if not t.requires_grad:
            return False
        levels = [node.keywords.get("level") for node in topological_order(t) if node.op is None]
        return any(level is None or (level.live and level is not self.level) for level in levels)

    def history(self, *directions: Tensor) -> bool:
        """Whether derivatives, along tangents or cotangents, need a history."""
        return mode.recording and (self.open or any(t.requires_grad for t in directions))

    def finished(self, result: Any) -> Any:
        """What the caller gets of an output or of aux: Tensors that depend on the variables alone have no history."""

        def leaf(t: Any, path: str) -> Any:
            if not isinstance(t, Tensor) or (mode.recording and self._is_open(t)):
                return t
            return t.detach()

        return _map(leaf, result)

    def pulled(self, cotangent: Tensor, keep: bool = True) -> Tree:
        """Gradients of the root, in the structure of the arguments."""
        gradients = _pull(self.root, self.variables, cotangent, self.history(cotangent), keep)
        return _filled(self.primals, gradients)


def _call_of_all(caller: str, fn: Function, primals: Any, has_aux: bool = False) -> _Call:
    if not isinstance(primals, (tuple, list)):
        raise TypeError(f"{caller}: primals must be a tuple of arguments, not a {type(primals).__name__}; pass (x,)")
    return _Call(caller, fn, primals, range(len(primals)), has_aux, {})


def _check_argnums(caller: str, argnums: Any) -> None:
    """Refuse arguments in the place of `argnums`: nobody calls the function that ``hessian(fn, x)`` is."""
    if isinstance(argnums, (Tensor, np.ndarray, Mapping)):
        raise TypeError(
            f"{caller}: argnums is a {type(argnums).__name__}; it must be an integer or several, the positions of "
            f"arguments. {caller}(fn) returns a function, which takes the arguments: {caller}(fn)(x)"
        )


# Transforms -----------------------------------------------------------------------------------------------------------
def _value_and_grad(caller: str, fn: Function, argnums: Argnums, has_aux: bool) -> Function:
    _check_argnums(caller, argnums)

    def transformed(*args: Any, **keywords: Any) -> Any:
        with _Call(caller, fn, args, argnums, has_aux, keywords) as call:
            if call.root is not call.out or call.root.size != 1:
                out = call.out
                found = f"one of shape {out.shape}" if isinstance(out, Tensor) else _kind(out)
                raise ValueError(
                    f"{caller}: fn must return one number, not {found}; reduce it (.sum(), .mean()), return other "
                    "results with has_aux=True, or use tg.func.jacobian"
                )
            value = call.finished(call.out)
            aux = call.finished(call.aux)  # before the backward pass frees what they may share
            gradient = call.pulled(wrap(np.ones_like(value.data)), keep=call.open)
            if has_aux:
                return (value, aux), gradient
            return value, gradient

    return transformed


def value_and_grad(fn: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """Like `grad`, but the function returns ``(value, gradient)``, with `has_aux` ``((value, aux), gradient)``.

    Examples
    --------
    >>> value_and_grad(lambda x: x * x)(3.0)
    (Tensor(9., dtype=float64), Tensor(6., dtype=float64))
    """
    return _value_and_grad("value_and_grad", fn, argnums, has_aux)


def grad(fn: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """Return the function that computes the gradient of `fn`, which returns one number.

    Parameters
    ----------
    fn : callable
        Makes one number of its arguments, by ops.
    argnums : int or sequence of int
        The arguments to differentiate with respect to; a sequence gives a tuple of gradients. All others, and those
        given by name, are passed on as they are.
    has_aux : bool
        `fn` returns ``(output, aux)``, and the result is ``(gradient, aux)``; `aux` may be anything.

    Returns
    -------
    callable
        Takes what `fn` takes. Gradients have the structure, shapes and dtypes of the arguments; they are 0 where the
        output does not depend on them. If an argument, or another Tensor that `fn` uses, requires a gradient, the
        computation is recorded and can be differentiated again. That takes time and memory: where it is not wanted,
        pass arrays (as `tinygrad_mnist.nn.state_dict` does), or call it in `no_grad`.

    Raises
    ------
    TypeError
        If an argument or the output is not floating-point, or `has_aux` is set and `fn` returns no pair.
    ValueError
        If the output is no single number, or `argnums` names no argument, or one twice.

    Examples
    --------
    >>> grad(grad(lambda x: x**3))(2.0)  # a second derivative
    Tensor(12., dtype=float64)
    >>> grad(lambda p, x: p["w"] * x + p["b"])({"w": 2.0, "b": 1.0}, 3.0)
    {'w': Tensor(3., dtype=float64), 'b': Tensor(1., dtype=float64)}

    A gradient penalty, here of a critic as in WGAN-GP (Gulrajani et al., 2017), and its own gradient:

    >>> def penalty(w, x):
    ...     slopes = grad(lambda x: (x @ w).tanh().sum())(x)  # (N, features), a gradient for each row of x
    ...     return (((slopes * slopes).sum(axis=1).sqrt() - 1.0) ** 2).mean()
    >>> grad(penalty)(np.array([3.0, 4.0]), np.zeros((1, 2)))
    Tensor([4.8, 6.4], dtype=float64)
    """
    both = _value_and_grad("grad", fn, argnums, has_aux)

    def transformed(*args: Any, **keywords: Any) -> Any:
        value, gradient = both(*args, **keywords)
        if has_aux:
            _, aux = value
            return gradient, aux
        return gradient

    return transformed


def vjp(fn: Function, *primals: Tree, has_aux: bool = False) -> tuple[Any, ...]:
    """Call `fn`, and return the function that multiplies a cotangent by its Jacobian (a vector-Jacobian product).

    Parameters
    ----------
    fn : callable
    *primals : trees
        Its arguments.
    has_aux : bool
        `fn` returns ``(output, aux)``.

    Returns
    -------
    out : tree of Tensors
        What `fn` returned.
    vjp_fn : callable
        Takes a cotangent of the structure and shapes of `out`, as often as wanted; returns a tuple, the product for
        each of `primals`.
    aux
        With `has_aux` alone.

    Examples
    --------
    >>> out, vjp_fn = vjp(lambda x, y: x * y, np.array([1.0, 2.0]), 3.0)
    >>> vjp_fn(np.array([1.0, 0.5]))
    (Tensor([3. , 1.5], dtype=float64), Tensor(2., dtype=float64))
    """
    with _call_of_all("vjp", fn, primals, has_aux) as call:
        out = call.finished(call.out)
        aux = call.finished(call.aux)

    def vjp_fn(cotangent: Tree) -> Any:
        checked = _as_leaves(cotangent, call.out, "vjp: the cotangent")
        return call.pulled(_join([*checked]))

    return (out, vjp_fn, aux) if has_aux else (out, vjp_fn)


def jvp(fn: Function, primals: Sequence[Tree], tangents: Sequence[Tree], has_aux: bool = False) -> tuple[Any, ...]:
    """Call `fn`, and return its derivative along `tangents` (a Jacobian-vector product), exactly.

    A vector-Jacobian product is linear in the cotangent. Its own vector-Jacobian product by the cotangent is this.

    Parameters
    ----------
    fn : callable
    primals : sequence of trees
        Its arguments.
    tangents : sequence of trees
        Of the structure and shapes of `primals`; converted to their dtypes.
    has_aux : bool
        `fn` returns ``(output, aux)``, and the result is ``(out, tangent_out, aux)``.

    Returns
    -------
    out, tangent_out : trees of Tensors
        What `fn` returned, and its derivative, of the same structure, shapes and dtypes.

    Examples
    --------
    >>> jvp(lambda x: x * x, (np.array([1.0, 2.0]),), (np.array([1.0, 0.5]),))
    (Tensor([1., 4.], dtype=float64), Tensor([2., 2.], dtype=float64))
    """
    with _call_of_all("jvp", fn, primals, has_aux) as call:
        checked = _as_leaves(tangents, call.primals, "jvp: tangents")
        tangent = _join([*checked])
        cotangent = call.leaf(np.ones_like(call.root.data))  # any would do
        with recording(True):
            pulled = _join(_pull(call.root, call.variables, cotangent, True))
        (pushed,) = _pull(pulled, [cotangent], tangent, call.history(tangent))
        pieces = _split(pushed.reshape(-1), call.outputs)
        converted = [piece.astype(t.dtype) for piece, t in zip(pieces, call.outputs, strict=True)]
        tangent_out = _filled(call.out, converted)
        out = call.finished(call.out)
        if has_aux:
            return out, tangent_out, call.finished(call.aux)
        return out, tangent_out


def _jacobian(caller: str, fn: Function, argnums: Argnums, has_aux: bool = False) -> Function:
    _check_argnums(caller, argnums)

    def transformed(*args: Any, **keywords: Any) -> Any:
        with _Call(caller, fn, args, argnums, has_aux, keywords) as call:
            rows = []  # for each number of the outputs, its gradients by all variables
            for i in range(call.root.size):
                one = np.zeros(call.root.shape, call.root.dtype)
                one.flat[i] = 1
                rows.append(_pull(call.root, call.variables, wrap(one), call.history()))
            by_variable = []  # for each variable, the Jacobians of all outputs
            for k, x in enumerate(call.variables):
                if rows:
                    column = stack([row[k] for row in rows])
                else:
                    column = wrap(np.zeros((0, *x.shape), x.dtype))
                by_variable.append([*_split(column, call.outputs)])
            by_output = []
            for i in range(len(call.outputs)):
                jacobians = [outputs[i] for outputs in by_variable]
                by_output.append(_filled(call.primals, jacobians))
            found = _filled(call.out, by_output)
            if has_aux:
                return found, call.finished(call.aux)
            return found

    return transformed


def jacobian(fn: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """Return the function that computes the derivative of every output of `fn`, by a backward pass for each number.

    Parameters
    ----------
    fn : callable
        Returns an array or a tree of them.
    argnums, has_aux
        As in `grad`.

    Returns
    -------
    callable
        Takes what `fn` takes. Each output gives a tree of the structure of the arguments, whose arrays have the shape
        ``out.shape + argument.shape`` and the dtype of the argument.

    Examples
    --------
    >>> jacobian(lambda x: x * x)(np.array([1.0, 2.0]))
    Tensor([[2., 0.],
            [0., 4.]], dtype=float64)

    Per-sample gradients, those of each sample's own loss, with the samples along the first axis:

    >>> def losses(params, x, y):
    ...     return (x @ params["w"] + params["b"] - y) ** 2  # (N,)
    >>> params, x, y = {"w": np.array([1.0, 2.0]), "b": 0.5}, np.eye(2), np.zeros(2)
    >>> jacobian(losses)(params, x, y)["w"]
    Tensor([[3., 0.],
            [0., 5.]], dtype=float64)
    """
    return _jacobian("jacobian", fn, argnums, has_aux)


def hessian(fn: Function, argnums: Argnums = 0) -> Function:
    """Return the function that computes all second derivatives of `fn`: the Jacobian of its Jacobian.

    Parameters
    ----------
    fn : callable
        Returns one number, an array, or a tree of them.
    argnums : int or sequence of int
        As in `grad`.

    Returns
    -------
    callable
        Takes what `fn` takes. Each array of the result has the shape ``out.shape + argument.shape + argument.shape``;
        trees give trees in trees: ``hessian(fn)(params)["w"]["b"]``.

    Examples
    --------
    >>> hessian(lambda x: x[0] * x[0] * x[1])(np.array([2.0, 3.0]))
    Tensor([[6., 4.],
            [4., 0.]], dtype=float64)
    """
    return _jacobian("hessian", _jacobian("hessian", fn, argnums), argnums)


def hvp(fn: Function, primals: Sequence[Tree], tangents: Sequence[Tree]) -> Any:
    """Multiply the Hessian of `fn`, which returns one number, by `tangents`, without computing it.

    Parameters
    ----------
    fn, primals, tangents
        As in `jvp`.

    Returns
    -------
    tuple
        The product for each of `primals`.

    Examples
    --------
    >>> hvp(lambda x: x[0] * x[0] * x[1], (np.array([2.0, 3.0]),), (np.array([1.0, 0.0]),))
    (Tensor([6., 4.], dtype=float64),)
    """

    def gradients(*args: Tree) -> Any:
        _, gradient = _value_and_grad("hvp", fn, range(len(args)), False)(*args)
        return gradient

    with _call_of_all("hvp", gradients, primals) as call:
        checked = _as_leaves(tangents, call.out, "hvp: tangents")
        return call.pulled(_join([*checked]))


# Models ---------------------------------------------------------------------------------------------------------------
def functional_call(model: Any, params: Mapping[str, Operand], /, *args: Any, **keywords: Any) -> Any:
    """Call a model with other parameters: ``model(*args, **keywords)``, differentiable with respect to them.

    The model is not changed, so that threads may call it at the same time. Parts through which the parameters are
    reached are copied for the call; what it assigns to their attributes is lost.

    Parameters
    ----------
    model : callable
        A layer, a model, or a method of one, such as ``model.loss``.
    params : dict of str to array_like
        Parameters and buffers by name, as in `tinygrad_mnist.nn.state_dict`. Those that are missing are the model's. A
        `Buffer` that is given takes what the call writes to it; the model's own is written to if none is given.
    *args, **keywords
        Passed on.

    Returns
    -------
    What the model returns.

    Raises
    ------
    ValueError
        Listing every unknown name and every shape or dtype that differs.
    TypeError
        If a part of the model holds a parameter where it cannot be replaced, such as a function that is an attribute
        and a closure of a layer.

    Examples
    --------
    Learning to learn (MAML): an inner step of gradient descent, and the gradient through it.

    >>> import tinygrad_mnist as tg
    >>> model = tg.nn.Linear(1, 1, rng=np.random.default_rng(0), dtype=np.float64)
    >>> x, y = np.array([[1.0], [2.0]]), np.array([[2.0], [4.0]])
    >>> def loss(params):
    ...     return ((functional_call(model, params, x) - y) ** 2).mean()
    >>> params = tg.nn.parameters(model)
    >>> slopes = grad(loss)(params)
    >>> adapted = {name: p - 0.1 * slopes[name] for name, p in params.items()}
    >>> loss(adapted).backward()
    >>> model.weight.grad.shape
    (1, 1)
    """
    if not isinstance(params, Mapping):
        raise TypeError(
            f"functional_call: params is a {type(params).__name__}; it must be a dict of name to Tensor, with names of "
            "tg.nn.parameters(model)"
        )
    owner = model.__self__ if isinstance(model, MethodType) else model
    known = leaves(owner, "functional_call")
    given = {name: _tensor(value, f"functional_call: {name}") for name, value in params.items()}
    wanted = {name: (t.shape, t.dtype) for name, t in known.items() if name in given}
    found = {name: (t.shape, t.dtype) for name, t in given.items()}
    if wrong := parameter_mismatches(wanted, found):
        raise ValueError(f"functional_call: the parameters do not fit the model: {'; '.join(wrong)}")
    for name, t in given.items():
        if isinstance(known[name], Buffer) and not t.requires_grad:
            value = params[name]
            given[name] = value if isinstance(value, Buffer) else Buffer(t)
    others = {id(known[name]): t for name, t in given.items()}
    copied = with_others(owner, others, "functional_call")
    if isinstance(model, MethodType):
        return model.__func__(copied, *args, **keywords)
    return copied(*args, **keywords)
