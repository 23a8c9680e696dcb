"""Everything that belongs to a model: buffers, alone and in shards; state dicts; plain arrays as state, refused."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist import nn, parallel
from tinygrad_mnist.nn import constants
from tinygrad_mnist.storage.checkpoint import load_weights, save_checkpoint, save_weights

FLOATS = [np.float16, np.float32, np.float64]
DTYPES = [*FLOATS, np.int8, np.int64, np.uint8, np.bool_]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def same(a: Any, b: Any) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# A buffer alone -------------------------------------------------------------------------------------------------------
@given(st.sampled_from(DTYPES), st.sampled_from([(), (1,), (3,), (2, 3)]), st.integers(0, 2**32 - 1))
def test_a_buffer_is_its_values_and_keeps_dtype_and_shape(dtype: Any, shape: Any, seed: int) -> None:
    values = rng(seed).integers(0, 2, shape).astype(dtype)
    given_ = np.array(values)
    buffer = nn.Buffer(given_)
    assert isinstance(buffer, tg.Tensor) and not buffer.requires_grad and buffer.op is None and buffer.grad is None
    assert same(buffer.data, given_) and not np.shares_memory(buffer.data, given_)
    assert (buffer.shape, buffer.dtype, buffer.ndim, buffer.size) == (shape, np.dtype(dtype), len(shape), given_.size)
    buffer.data = new = 1 - values.astype(np.int8) if dtype is np.int8 else np.array(values)
    assert same(buffer.data, np.asarray(new)) and not np.shares_memory(buffer.data, new)
    for other in (pickle.loads(pickle.dumps(buffer)), copy.deepcopy(buffer), copy.copy(buffer)):
        assert type(other) is nn.Buffer and same(other.data, buffer.data)
        assert not np.shares_memory(other.data, buffer.data)
    assert repr(buffer).startswith("Buffer(") and str(np.dtype(dtype)) in repr(buffer)
    for wrong in (np.zeros((*shape, 2), dtype), np.array(["a"]), None):
        with pytest.raises((TypeError, ValueError)):
            buffer.data = wrong  # type: ignore[assignment]  # on purpose
    with pytest.raises(TypeError, match="a Buffer is no parameter"):
        buffer.requires_grad = True
    assert same(buffer.data, np.asarray(new))


CHANGES: dict[str, Callable[[nn.Buffer, Any], None]] = {
    "assigned": lambda b, m: setattr(b, "data", b.data + m),
    "assigned a Tensor": lambda b, m: setattr(b, "data", b + m),
    "in place": lambda b, m: b.data.__iadd__(m) is None,
    "in place, and assigned": lambda b, m: setattr(b, "data", b.data.__iadd__(m)),
    "by elements": lambda b, m: b.data.__setitem__(..., b.data + m),
    "by out=": lambda b, m: np.add(b.data, m, out=b.data) is None,
}


@given(st.sampled_from(FLOATS), st.sampled_from([*CHANGES]), st.integers(0, 2**32 - 1))
def test_a_later_change_reaches_no_gradient(dtype: Any, how: str, seed: int) -> None:
    values, x = rng(seed).normal(size=3).astype(dtype), tg.Tensor(rng(seed + 1).normal(size=(2, 3)), requires_grad=True)
    buffer, plain = nn.Buffer(values), tg.Tensor(values)
    step = rng(seed + 2).normal(size=3).astype(dtype)

    def loss(b: Any) -> tg.Tensor:
        return (tg.tanh(x * b) * b + tg.where(x > b, x, b) + x @ b.reshape(3, 1) + tg.concatenate([b, b])[:3]).sum()

    value = loss(buffer)
    CHANGES[how](buffer, step)
    np.testing.assert_array_equal(buffer.data, values + step, strict=True)
    (found,), (expected,) = (tg.grad(out, [x]) for out in (value, loss(plain)))
    np.testing.assert_array_equal(found.data, expected.data, strict=True)
    detached = buffer.detach()
    CHANGES[how](buffer, step)
    np.testing.assert_array_equal(detached.data, values + step, strict=True)


@given(st.sampled_from(DTYPES), st.sampled_from([(), (3,)]), st.sampled_from(FLOATS))
def test_ops_take_a_buffer_as_a_tensor_of_its_values(dtype: Any, shape: Any, other: Any) -> None:
    buffer, x = nn.Buffer(np.ones(shape, dtype)), tg.Tensor(np.full((2, 3), 2, other), requires_grad=True)
    tensor = tg.Tensor(buffer.data)
    for op in (lambda b: x * b, lambda b: b + x, lambda b: tg.where(x > b, x, b), lambda b: b.sum(), tg.as_tensor):
        assert type(op(buffer)) is tg.Tensor
        np.testing.assert_array_equal(op(buffer).data, op(tensor).data, strict=True)


# Shards ---------------------------------------------------------------------------------------------------------------
class Tracker:
    """Keeps what it is told of each example, in a buffer: by momentum, one step for each shard."""

    def __init__(self, start: Any, how: str = "assigned", momentum: float = 0.9) -> None:
        self.w = tg.Tensor(np.ones((), start.dtype), requires_grad=True)
        self.seen, self.how, self.momentum = nn.Buffer(start), how, momentum
        self.begun: list[Any] = []

    def loss(self, x: Any, rng: Any) -> tg.Tensor:
        self.begun.append(np.array(self.seen.data))
        for _ in range(2):  # a shard sees its own changes
            step = ((1 - self.momentum) * (x.mean(axis=0) - self.seen.data)).astype(self.seen.dtype)
            CHANGES[self.how](self.seen, step)
        return (x * self.w * self.seen).mean()

    def alone(self, x: Any) -> Any:
        """What a shard makes of the start, by plain arrays."""
        seen = self.seen.data
        for _ in range(2):
            seen = seen + ((1 - self.momentum) * (x.mean(axis=0) - seen)).astype(seen.dtype)
        return seen


@given(
    st.integers(1, 23),
    st.integers(1, 30),
    st.sampled_from(FLOATS),
    st.sampled_from([*CHANGES]),
    st.integers(0, 2**32 - 1),
)
def test_after_a_step_buffers_are_weighted_means_and_threads_change_no_bit(
    n: int, shard_size: int, dtype: Any, how: str, seed: int
) -> None:
    start, x = rng(seed).normal(size=2).astype(dtype), rng(seed + 1).normal(size=(n, 2)).astype(dtype)
    pieces = [x[i : i + shard_size] for i in range(0, n, shard_size)]
    new = [Tracker(start).alone(piece) for piece in pieces]
    expected = [
        Fraction(float(old))
        + sum(
            Fraction(len(p), n) * (Fraction(float(s[i])) - Fraction(float(old)))
            for p, s in zip(pieces, new, strict=True)
        )
        for i, old in enumerate(start)
    ]
    results = []
    for threads in (1, 2, 4, 7):
        tracker = Tracker(start, how)
        loss, grads = parallel.value_and_grad(tracker.loss, {"w": tracker.w}, x, shard_size=shard_size, threads=threads)
        assert all(same(begun, start) for begun in tracker.begun) and len(tracker.begun) == len(pieces)
        results.append((loss, grads["w"].tobytes(), tracker.seen.data.tobytes()))
        assert tracker.seen.dtype == dtype
    assert len(set(results)) == 1
    for found, exact in zip(tracker.seen.data, expected, strict=True):
        assert abs(Fraction(float(found)) - exact) <= Fraction(float(np.spacing(np.abs(found))))
    if len(pieces) == 1:
        assert same(tracker.seen.data, new[0]), "as without shards"


@pytest.mark.parametrize("threads", [1, 3])
def test_a_running_maximum_may_begin_at_infinity(threads: int) -> None:
    buffer, w = nn.Buffer(np.array([-np.inf, 2.0, -np.inf])), tg.Tensor(1.0, requires_grad=True)

    def loss(x: Any, rng: Any) -> tg.Tensor:
        buffer.data[:2] = np.maximum(buffer.data[:2], x.max())
        return (x * w).mean()

    parallel.value_and_grad(loss, {"w": w}, np.arange(4.0), shard_size=1, threads=threads)
    np.testing.assert_array_equal(buffer.data, [1.5, 2.25, -np.inf])


@given(st.sampled_from([np.int64, np.uint8, np.bool_]), st.sampled_from([1, 2, 4]), st.booleans())
def test_integers_must_agree_between_shards(dtype: Any, threads: int, agree: bool) -> None:
    model = SimpleNamespace(
        w=tg.Tensor(1.0, requires_grad=True), bn=SimpleNamespace(count=nn.Buffer(np.zeros(2, dtype)))
    )
    other = nn.Buffer(np.zeros(2))

    class Model(SimpleNamespace):
        def loss(self, x: Any, rng: Any) -> tg.Tensor:
            other.data = other.data + 1
            self.bn.count.data = self.bn.count.data + np.asarray(1 if agree or x[0] < 3 else 0, dtype)
            return (x * self.w).mean()

    bound = Model(**vars(model)).loss
    for loss_fn, name in ((bound, r"the Buffer bn.count, "), (lambda x, rng: bound(x, rng), "a Buffer, ")):
        if agree:
            parallel.value_and_grad(loss_fn, {"w": model.w}, np.arange(5.0), shard_size=2, threads=threads)
        else:
            with pytest.raises(ValueError, match=rf"{name}{np.dtype(dtype)} \(2,\), has become .* in one shard and"):
                parallel.value_and_grad(loss_fn, {"w": model.w}, np.arange(5.0), shard_size=2, threads=threads)
            assert not model.bn.count.data.any() and not other.data.any(), "all or none"
    if agree:
        np.testing.assert_array_equal(
            model.bn.count.data, np.asarray([2, 2] if dtype is not np.bool_ else [1, 1], dtype)
        )


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("failing", [0, 2, 4])
def test_an_exception_in_a_shard_leaves_all_buffers_unchanged(threads: int, failing: int) -> None:
    buffer, w = nn.Buffer(np.zeros(2)), tg.Tensor(1.0, requires_grad=True)

    def loss(x: Any, rng: Any) -> tg.Tensor:
        buffer.data += 1
        if failing == x[0]:
            raise ArithmeticError
        return (x * w).mean()

    with pytest.raises(ArithmeticError):
        parallel.value_and_grad(loss, {"w": w}, np.arange(5.0), shard_size=1, threads=threads)
    assert not buffer.data.any()
    buffer.data += 1  # the thread is out of the shard
    assert buffer.data.tolist() == [1, 1]


@pytest.mark.parametrize("threads", [1, 2])
def test_shards_within_a_shard_see_its_changes_and_add_theirs(threads: int) -> None:
    buffer, w = nn.Buffer(np.zeros(())), tg.Tensor(1.0, requires_grad=True)

    def inner(x: Any, rng: Any) -> tg.Tensor:
        buffer.data += x[0]
        return (x * w).mean()

    def outer(x: Any, rng: Any) -> tg.Tensor:
        buffer.data += 10
        parallel.value_and_grad(inner, {"w": w}, x, shard_size=1, threads=threads)
        return (x * w).mean()

    parallel.value_and_grad(outer, {"w": w}, np.array([1.0, 2.0, 3.0, 6.0]), shard_size=2, threads=threads)
    assert buffer.item() == np.mean([10 + 1.5, 10 + 4.5])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("how", CHANGES)
def test_inference_must_change_nothing(threads: int, how: str) -> None:
    class Model:
        def __init__(self) -> None:
            self.norm = SimpleNamespace(mean=nn.Buffer(np.zeros(2)))
            self.change = True

        def __call__(self, x: Any, rng: Any = None) -> tg.Tensor:
            if self.change:
                CHANGES[how](self.norm.mean, 1.0)
            return tg.as_tensor(x) - self.norm.mean

    model, x, labels = Model(), np.ones((200, 2)), np.zeros(200, int)
    for use in (
        lambda: tg.training.predict(model, x, threads),
        lambda: tg.training.evaluate(model, x, labels, threads),
        lambda: tg.training.accuracy(model, x, labels, threads),
        lambda: list(parallel.map_shards(lambda number, x: model(x), x, threads=threads)),
    ):
        with pytest.raises(ValueError, match=r"Buffer.*, float64 \(2,\), was changed in inference; .* if rng is not"):
            use()
        assert not model.norm.mean.data.any()
    with pytest.raises(ValueError, match=r"the Buffer norm.mean, float64"):
        tg.training.predict(model, x, threads)
    with pytest.raises(ValueError, match="changed in inference"):  # at the line that does it, whatever the value
        list(parallel.map_shards(lambda number, x: setattr(model.norm.mean, "data", np.zeros(2)), x, threads=threads))
    model.change = False
    assert len(tg.training.predict(model, x, threads)) == 200
    model.change = True
    model(x, rng())  # without shards a call does what it does
    assert model.norm.mean.data.tolist() == [1, 1]


# State dicts ----------------------------------------------------------------------------------------------------------
KINDS: dict[str, Callable[[Any], tg.Tensor]] = {
    "trained": lambda a: tg.Tensor(a.astype(np.float32), requires_grad=True),
    "frozen": lambda a: tg.Tensor(a.astype(np.float32)),
    "constant": lambda a: tg.Tensor(a.astype(np.int32)),
    "buffer": nn.Buffer,
    "count": lambda a: nn.Buffer(a.astype(np.int64)),
}
NAMES = st.sampled_from(["a", "b", "weight", "mean"])
TREES: Any = st.recursive(
    st.tuples(st.sampled_from([*KINDS]), st.integers(0, 99)),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(NAMES, parts, max_size=3),
    max_leaves=8,
)


def build(tree: Any, seed: int, path: str = "", found: dict[str, tg.Tensor] | None = None) -> Any:
    """A model of lists and objects, and in `found` its Tensors by path, from an enumeration of its own."""
    if isinstance(tree, tuple):
        kind, shape = tree
        made = KINDS[kind](rng(seed + shape).normal(size=(shape % 3, shape % 4)) * 100)
        if found is not None:
            found[path] = made
        return made
    prefix = f"{path}." if path else ""
    if isinstance(tree, list):
        return [build(part, seed + i, f"{prefix}{i}", found) for i, part in enumerate(tree)]
    return SimpleNamespace(**{name: build(part, seed + 7, prefix + name, found) for name, part in tree.items()})


@given(TREES, st.integers(0, 1000), st.randoms(use_true_random=False))
def test_a_state_dict_holds_every_tensor_once_and_loads_into_another_model(tree: Any, seed: int, random: Any) -> None:
    tensors: dict[str, tg.Tensor] = {}
    first, second = build(tree, seed, found=tensors), build(tree, seed + 1)
    holder = SimpleNamespace(model=first, again=first)  # shared: listed once
    state = nn.state_dict(holder)
    assert list(state) == [f"model.{name}".removesuffix(".") for name in tensors]
    assert list(nn.parameters(first)) == [name for name, t in tensors.items() if t.requires_grad]
    assert list(nn.buffers(first)) == [name for name, t in tensors.items() if isinstance(t, nn.Buffer)]
    state = nn.state_dict(first)
    for name, tensor in tensors.items():
        assert same(state[name], tensor.data) and not np.shares_memory(state[name], tensor.data)
    for t in nn.parameters(second).values():  # what is frozen here makes no difference
        t.requires_grad = random.random() < 0.5
    nn.load_state_dict(second, {name: state[name] for name in random.sample(list(state), len(state))})
    copied = nn.state_dict(second)
    assert list(copied) == list(state) and all(same(copied[name], state[name]) for name in state)
    assert not any(np.shares_memory(t.data, state[name]) for name, t in build_tensors(second).items())
    nn.load_parameters(second, state)
    nn.load_parameters(first, nn.parameters(first))
    if state:
        wrong = dict(state)
        name = random.choice(list(state))
        del wrong[name]
        wrong["extra"] = np.zeros(1)
        with pytest.raises(ValueError, match=f"{name} is missing; extra is not in the model"):
            nn.load_state_dict(second, wrong)
        assert all(same(a, copied[name]) for name, a in nn.state_dict(second).items())


def build_tensors(model: Any) -> dict[str, tg.Tensor]:
    return {name: value for name, value in constants.walk(model) if isinstance(value, tg.Tensor)}


def test_floats_are_converted_integers_are_not_and_memory_order_is_kept() -> None:
    model = SimpleNamespace(
        w=tg.Tensor(np.asfortranarray(np.ones((2, 3), np.float32)), requires_grad=True),
        mean=nn.Buffer(np.asfortranarray(np.zeros((3, 2), np.float16))),
        count=nn.Buffer(np.zeros((), np.int32)),
    )
    values = {"w": np.arange(6.0).reshape(2, 3), "mean": np.ones((3, 2)), "count": np.array(5, np.int32)}
    nn.load_state_dict(model, values)
    assert (model.w.dtype, model.mean.dtype, model.count.item()) == (np.float32, np.float16, 5)
    assert model.w.data.flags.f_contiguous and model.mean.data.flags.f_contiguous
    assert nn.state_dict(model)["w"].flags.f_contiguous
    with pytest.raises(ValueError, match="count is int64, the model's is int32"):
        nn.load_state_dict(model, values | {"count": np.array(6)})
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        nn.load_state_dict(model, values | {"w": values["w"] + 1, "mean": np.full((3, 2), 1e9)})
    np.testing.assert_array_equal(model.w.data, values["w"])
    assert model.count.item() == 5


@given(TREES, st.integers(0, 1000))
def test_load_parameters_takes_all_of_a_kind_or_none(tree: Any, seed: int) -> None:
    tensors: dict[str, tg.Tensor] = {}
    model = build([tree, ("trained", 1)], seed, found=tensors)
    state = nn.state_dict(model)
    kinds = [
        {name for name, t in tensors.items() if test(t)}
        for test in (
            lambda t: t.requires_grad,
            lambda t: not t.requires_grad and not isinstance(t, nn.Buffer),
            lambda t: isinstance(t, nn.Buffer),
        )
    ]
    trained, frozen, buffers = kinds
    for names in (trained, trained | frozen, trained | buffers, trained | frozen | buffers):
        nn.load_parameters(model, {name: 2 * state[name] for name in names})
        found = nn.state_dict(model)
        assert all(np.array_equal(found[name], 2 * state[name]) for name in names)
        assert all(np.array_equal(found[name], state[name]) for name in state.keys() - names)
        nn.load_state_dict(model, state)
    for kind in kinds:
        for name in kind:
            rest = trained | kind - {name} if len(kind) > 1 else set()
            with pytest.raises(ValueError, match=r"is missing"):
                nn.load_parameters(model, {n: state[n] for n in rest - {name}})


def test_weights_saved_before_freezing_load_after_it_and_the_other_way_round(tmp_path: Any) -> None:
    def network(seed: int, frozen: bool) -> nn.Sequential:
        model = nn.Sequential(nn.Linear(3, 4, rng=rng(seed)), nn.ReLU(), nn.Linear(4, 2, rng=rng(seed + 1)))
        for p in nn.parameters(model.layers[0]).values() if frozen else ():
            p.requires_grad = False
        return model

    x = rng(5).normal(size=(6, 3)).astype(np.float32)
    for before, after in ((False, True), (True, False), (True, True)):
        saved, loaded = network(1, before), network(9, after)
        save_weights(tmp_path / "w.npz", nn.state_dict(saved))
        for load in (nn.load_state_dict, nn.load_parameters):
            load(loaded, load_weights(tmp_path / "w.npz", like=loaded))
            assert same(loaded(x).data, saved(x).data)
            assert len(nn.parameters(loaded)) == (2 if after else 4)
            nn.load_state_dict(loaded, nn.state_dict(network(9, after)))
    old = network(1, False)  # trained parameters alone, all that there is
    save_weights(tmp_path / "old.npz", nn.parameters(old))
    nn.load_parameters(loaded, load_weights(tmp_path / "old.npz", like=loaded))
    assert same(loaded(x).data, old(x).data)
    for save in (save_weights, lambda path, weights: save_checkpoint(path, {"weights": weights})):
        with pytest.raises(
            ValueError, match=r"the trained parameters alone, without layers.0.weight, layers.0.bias; save"
        ):
            save(tmp_path / "part.npz", nn.parameters(network(1, True)))
    save_weights(tmp_path / "part.npz", dict(nn.parameters(network(1, True))))
    with pytest.raises(ValueError, match=r"layers.0.weight is missing; layers.0.bias is missing"):
        load_weights(tmp_path / "part.npz", like=loaded)


def test_a_file_name_or_a_model_in_place_of_weights_is_refused_with_the_remedy(tmp_path: Any) -> None:
    model: Any = nn.Linear(2, 2)
    for load in (nn.load_parameters, nn.load_state_dict):
        for wrong in ("weights.npz", model, None, [np.zeros(2)]):
            with pytest.raises(TypeError, match=r"load_.*: the weights are a .*; pass .*load_weights\(path\)"):
                load(model, wrong)
    with pytest.raises(TypeError, match=r"save_weights: weights are a Linear; pass .* tg.nn.state_dict\(model\)"):
        save_weights(tmp_path / "weights.npz", model)


@pytest.mark.parametrize("load", [nn.load_parameters, nn.load_state_dict])
def test_values_with_a_history_are_refused_with_the_remedy(load: Any) -> None:
    model, other = nn.Linear(2, 2, rng=rng(0)), nn.Linear(2, 2, rng=rng(1))
    grads = {name: tg.Tensor(np.ones_like(p.data)) for name, p in nn.parameters(other).items()}
    before = nn.state_dict(model)
    step = {name: p - 0.1 * grads[name] for name, p in nn.parameters(other).items()}
    with pytest.raises(ValueError, match=r"weight, bias would lose the history .*no_grad\(\), or pass .detach\(\)"):
        load(model, step)
    assert all(same(a, before[name]) for name, a in nn.state_dict(model).items())
    load(model, {name: value.detach() for name, value in step.items()})
    assert all(same(a, step[name].data) for name, a in nn.state_dict(model).items())
    with tg.no_grad():
        load(model, {name: p - 0.1 * grads[name] for name, p in nn.parameters(other).items()})
    load(model, nn.parameters(other))  # leaves have no history
    assert all(same(a, nn.state_dict(other)[name]) for name, a in nn.state_dict(model).items())


def test_two_tensors_of_one_name_are_refused_where_both_are_saved() -> None:
    model = {"a.b": nn.Buffer(1.0), "a": {"b": tg.Tensor(2.0, requires_grad=True)}}
    assert list(nn.parameters(model)) == ["a.b"]
    for use in (nn.state_dict, nn.buffers, lambda model: nn.load_parameters(model, {})):
        with pytest.raises(ValueError, match=r"two different Tensors are both called a.b"):
            use(model)


# Plain arrays that are state ------------------------------------------------------------------------------------------
class Hidden:
    """A layer with plain arrays, one of which it changes if it is told how."""

    def __init__(self, how: str = "") -> None:
        self.how, self.weight = how, tg.Tensor(np.ones(3), requires_grad=True)
        self.mean, self.parts, self.scale = np.zeros(3), [np.zeros(2), {"x": np.ones((2, 2), int)}], np.float32(1)
        self.late: Any = None

    def __call__(self, x: Any, rng: Any = None) -> tg.Tensor:
        match self.how:
            case "in place":
                self.mean += 1
            case "replaced":
                self.mean = 0.9 * self.mean + 0.1
            case "element":
                self.parts[1]["x"][0, 1] = 5
            case "entry of a list":
                self.parts[0] = np.ones(2)
            case "dtype":
                self.mean = self.mean.astype(np.float32)
            case "scalar":
                self.scale = self.scale * np.float32(0.5)
            case "late":
                self.late = np.ones(2)
        return x * self.weight


WHICH = {
    "in place": "mean",
    "replaced": "mean",
    "element": "parts.1.x",
    "entry of a list": "parts.0",
    "dtype": "mean",
    "scalar": "scale",
    "late": "late",
}


@pytest.mark.parametrize("how", WHICH)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_plain_array_that_a_call_has_changed_is_refused_at_save(tmp_path: Any, how: str, wrapped: bool) -> None:
    layer = Hidden(how)
    model: Any = [SimpleNamespace(inner=[nn.Linear(2, 2), layer])] if wrapped else layer
    params = nn.parameters(model)
    nn.state_dict(model)
    layer(np.ones(3), rng())
    verb = "is new" if how == "late" else "has changed"
    name = f"{'0.inner.1.' if wrapped else ''}{WHICH[how]}"
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"^state_dict: {name}, a plain array, {verb} since .* tg.nn.Buffer"):
            nn.state_dict(model)
    if wrapped:  # through every root that leads there
        with pytest.raises(ValueError, match=f"state_dict: {WHICH[how]}, a plain array"):
            nn.state_dict(layer)
    assert list(nn.parameters(model)) == list(params), "which asks for no arrays"
    for trained in (params, nn.parameters(model)):
        with pytest.raises(ValueError, match=rf"^save_weights: {name}, a plain array, {verb}"):
            save_weights(tmp_path / "w.npz", trained)
        with pytest.raises(ValueError, match=rf"^save_checkpoint: {name}, a plain array, {verb}"):
            save_checkpoint(tmp_path / "w.safetensors", {"model": trained})
        for copied in (dict(trained), pickle.loads(pickle.dumps(trained)), copy.deepcopy(trained)):
            save_weights(tmp_path / "w.npz", copied)


@pytest.mark.parametrize("make", [nn.Buffer, tg.Tensor], ids=["Buffer", "Tensor"])
def test_state_that_an_op_has_replaced_is_refused_at_save(make: Any) -> None:
    """``self.mean = ...`` for ``self.mean.data = ...``: a result of an op is in no state dict."""

    class Model:
        def __init__(self) -> None:
            self.layer = SimpleNamespace(mean=make(np.zeros(2)), w=tg.Tensor(np.ones(2), requires_grad=True))

    model = Model()
    nn.parameters(model)
    model.layer.cache = model.layer.w * 2  # results that were no state are no state
    assert list(nn.state_dict(model)) == ["layer.mean", "layer.w"]
    model.layer.mean = 0.9 * model.layer.mean + 0.1 * model.layer.w
    with pytest.raises(ValueError, match=r"^state_dict: layer.mean, a Tensor, has become a result of add .* its .data"):
        nn.state_dict(model)


def test_constants_are_not_refused_nor_what_an_optimizer_keeps() -> None:
    model = Hidden()
    model.optimizer = tg.optim.Adam(nn.parameters(model))  # type: ignore[attr-defined]  # as some users do
    for _ in range(3):
        model(np.ones(3), rng()).sum().backward()
        model.optimizer.step()  # type: ignore[attr-defined]  # see above
        nn.parameters(model)
    assert list(nn.state_dict(model)) == ["weight"]


def test_what_is_noted_goes_with_the_model() -> None:
    gc.collect()
    before = len(constants._noted)
    model = Hidden()
    nn.parameters(model)
    assert len(constants._noted) > before
    del model
    gc.collect()
    assert len(constants._noted) <= before


def test_a_buffer_in_a_thread_of_its_own_is_the_plain_one() -> None:
    buffer, seen = nn.Buffer(1.0), []

    def look() -> None:
        buffer.data = buffer.data + 1
        seen.append(buffer.item())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [2.0] and buffer.item() == 2.0
