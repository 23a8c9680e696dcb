"""State of a model that is no parameter, such as running means, and what the shards of a batch make of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..tensor import Array, Operand, Tensor, wrap
from ..walk import walk

__all__ = ["Buffer"]

_slot: Any = vars(Tensor)["_array"]  # where the value is, outside of shards


class Buffer(Tensor):
    """State that is saved with a model, but is no parameter: running means, counts, tables.

    A call computes with it as with any Tensor, and changes it by setting `data` (or in place: ``buffer.data += 1``).
    An op records the value that the buffer has at that time, so a later change does not affect gradients.

    Each shard of `tinygrad_mnist.parallel.value_and_grad` begins with the value before the step and sees its own
    changes. After the step the value is ``old + sum(n / N * (new - old))`` over the shards (of n of the N examples), in
    their order: the same bits for any number of threads. A buffer of integers or booleans must end up the same in all
    shards. In `map_shards`, and so in inference (`predict`, `evaluate`), no buffer may change.

    Parameters
    ----------
    data : array_like
        Copied. Integers are allowed; `data` keeps this shape and dtype.

    Examples
    --------
    >>> import numpy as np, tinygrad_mnist as tg
    >>> class Center:
    ...     def __init__(self, features):
    ...         self.mean = Buffer(np.zeros(features, np.float32))
    ...
    ...     def __call__(self, x, rng=None):
    ...         x = tg.as_tensor(x)
    ...         if rng is None:
    ...             return x - self.mean
    ...         mean = x.mean(axis=0)
    ...         self.mean.data = 0.5 * self.mean.data + 0.5 * mean.data
    ...         return x - mean
    >>> layer = Center(2)
    >>> _ = layer(np.ones((3, 2), np.float32), np.random.default_rng(0))
    >>> tg.nn.state_dict(layer)
    {'mean': array([0.5, 0.5], dtype=float32)}
    """

    __slots__ = ()

    def __init__(self, data: Operand) -> None:
        super().__init__(data)

    @property
    def _array(self) -> Array:  # in place of Tensor's slot
        found: Array = _slot.__get__(self) if _active.shard is None else _active.shard.read(self)
        return found

    @_array.setter
    def _array(self, value: Array) -> None:
        try:
            current = self._array
        except AttributeError:  # it is being made
            _slot.__set__(self, value)
            return
        value = value if value is current else np.array(value)  # what is assigned may be part of a graph
        if _active.shard is None:
            _slot.__set__(self, value)
        else:
            _active.shard.write(self, value)

    @property
    def requires_grad(self) -> bool:
        """False: a buffer is no parameter."""
        return False

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value:
            raise TypeError("requires_grad: a Buffer is no parameter; use tg.Tensor(array, requires_grad=True)")

    def detach(self) -> Tensor:
        """Return a Tensor with the same values, which later changes do not reach."""
        return wrap(np.array(self._array))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._array,)

    def __repr__(self) -> str:
        return f"Buffer({np.array2string(self._array, separator=', ', prefix='Buffer(')}, dtype={self.dtype})"


class BufferChangeError(ValueError):
    """A buffer was changed where that is not allowed, or differently by the shards of a batch."""

    def __init__(self, buffer: Buffer, problem: str, name: str = "") -> None:
        kind = f"{buffer.dtype} {buffer.shape}"
        super().__init__(f"the Buffer {name}, {kind}, {problem}" if name else f"a Buffer, {kind}, {problem}")
        self.buffer, self.problem = buffer, problem


@contextmanager
def named_in(model: Any) -> Iterator[None]:
    """Within this context, errors of buffers that are part of `model` give their paths."""
    try:
        yield
    except BufferChangeError as error:
        name = next((path for path, value in walk(model) if value is error.buffer), "")
        raise BufferChangeError(error.buffer, error.problem, name) from error


# Shards ---------------------------------------------------------------------------------------------------------------
class Shard:
    """Values that the buffers have in one shard, where it has read or set them."""

    def __init__(self, outer: Shard | None, writable: bool) -> None:
        self.outer, self.writable = outer, writable
        self.values: dict[int, tuple[Buffer, Array]] = {}  # by the id of the buffer

    def start(self, buffer: Buffer) -> Array:
        """The value of a buffer outside of this shard."""
        outer = self.outer
        while outer is not None and id(buffer) not in outer.values:
            outer = outer.outer
        found: Array = _slot.__get__(buffer) if outer is None else outer.values[id(buffer)][1]
        return found

    def read(self, buffer: Buffer) -> Array:
        """The value of a buffer in this shard: an array of its own, which may be changed in place."""
        if id(buffer) not in self.values:
            self.values[id(buffer)] = buffer, np.array(self.start(buffer))
        return self.values[id(buffer)][1]

    def write(self, buffer: Buffer, value: Array) -> None:
        """Set the value of a buffer in this shard."""
        self.check(buffer)
        self.values[id(buffer)] = buffer, value

    def check(self, buffer: Buffer) -> None:
        """Raise an error where nothing may change."""
        if not self.writable:
            raise BufferChangeError(
                buffer, "was changed in inference; a call without a generator must not: update it if rng is not None"
            )

    def end(self) -> None:
        """Forget what is unchanged."""
        self.values = {k: (b, value) for k, (b, value) in self.values.items() if not _same(value, self.start(b))}
        for buffer, _ in self.values.values():
            self.check(buffer)


class _Active(threading.local):
    shard: Shard | None = None


_active = _Active()


def active_shard() -> Shard | None:
    """The shard that this thread computes."""
    return _active.shard


@contextmanager
def shard(outer: Shard | None, writable: bool) -> Iterator[Shard]:
    """Within this context (and thread), buffers have the values of a new shard, which begins with those of `outer`."""
    before, _active.shard = _active.shard, (found := Shard(outer, writable))
    try:
        yield found
        found.end()
    finally:
        _active.shard = before


def merge(shards: Sequence[tuple[int, Shard]]) -> None:
    """Set the buffers to what shards of so many examples have made of them: all or none."""
    total = sum(count for count, _ in shards)
    changed = {key: buffer for _, part in shards for key, (buffer, _) in part.values.items()}
    merged = []
    for key, buffer in changed.items():
        old = buffer._array
        values = [part.values[key][1] if key in part.values else old for _, part in shards]
        if all(_same(value, values[0]) for value in values):
            new = values[0]
        elif buffer.dtype.kind != "f":
            raise BufferChangeError(
                buffer,
                f"has become {_short(values[0])} in one shard and "
                f"{_short(next(v for v in values if not _same(v, values[0])))} in another; integers must be the same "
                "in all shards: use floats, which are averaged, or shard_size=len(batch)",
            )
        else:
            new = _weighted(old, [(count, value) for (count, _), value in zip(shards, values, strict=True)], total)
        merged.append((buffer, new))
    for buffer, new in merged:
        buffer._array = new


def _weighted(old: Array, parts: Sequence[tuple[int, Array]], total: int) -> Array:
    """Add the changes, weighted by counts of examples out of `total`, to the old value, in a higher precision."""
    precise: Any = np.longdouble if old.dtype.itemsize >= 8 else np.float64
    start = np.where(np.isfinite(old), old, 0).astype(precise)  # from infinity there is no change: the new ones count
    change = np.zeros_like(start)
    for count, new in parts:
        change += count * (new.astype(precise) - start)
    return (start + change / total).astype(old.dtype)


def _same(a: Array, b: Array) -> bool:
    return a is b or a.tobytes() == b.tobytes()


def _short(value: Array) -> str:
    return np.array2string(value, threshold=4, separator=", ").replace("\n", "")
