"""The first NaN is found where it was made, named with its layer and its line.

What is no anomaly passes, and nothing is kept.
"""

from __future__ import annotations

import gc
import threading
import weakref
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from models.mlp import MLP
from tinygrad_mnist import hooks, record

ONES, NAN, INF = np.ones((2, 3)), np.nan, np.inf
WEIGHTED = [name for name in tg.nn.parameters(DeepConvNet()) if name.endswith("weight")]


@pytest.fixture(autouse=True)
def quiet_and_clean() -> Any:
    with np.errstate(all="ignore"):
        yield
    assert hooks.active is None


def leaf(*values: float, dtype: Any = np.float64) -> tg.Tensor:
    return tg.Tensor(np.array(values, dtype), requires_grad=True)


def caught(function: Any) -> list[str]:
    """Lines of the message that `function` fails with in the context."""
    with pytest.raises(tg.AnomalyError) as error, tg.detect_anomaly() as detector:
        function()
    assert isinstance(error.value, FloatingPointError)
    assert detector._created == {} and detector.below is None and hooks.active is None
    return str(error.value).splitlines()


@tg.primitive
def planted(x: Any, *, value: Any = NAN, backward: bool = False) -> Any:
    out = np.array(x)
    if out.size and not backward:
        out.flat[-1] = value
    return out


planted.defvjp(lambda g, out, x, value, backward: tg.as_tensor(planted.forward(g.data, value=value)))


@tg.primitive
def planted_in_forward(x: Any) -> Any:
    return planted.forward(x)


planted_in_forward.defvjp(lambda g, out, x: g)
UNARY = [
    tg.sin,
    tg.tanh,
    tg.relu,
    tg.abs,
    lambda x: tg.exp(-tg.abs(x)),
    lambda x: x * 0.5,
    lambda x: x.reshape(-1)[::-1],
    lambda x: tg.softmax(x.reshape(1, -1)),
]


# Forward --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name, function",
    [
        ("divide", lambda: leaf(0.0, 1.0) / np.array([0.0, 1.0])),
        ("log", lambda: tg.log(leaf(-1.0, 1.0))),
        ("sqrt", lambda: tg.sqrt(leaf(-1.0, 1.0))),
        ("power", lambda: leaf(-1.0, 1.0) ** 0.5),
        ("subtract", lambda: leaf(INF, 1.0) - np.array([INF, 1.0])),
        ("multiply", lambda: leaf(INF, 1.0) * 0.0 + leaf(1.0, NAN)),  # the first of the two
        ("multiply", lambda: leaf(0.0, 1.0) * np.array([INF, 0.0])),
        ("sin", lambda: tg.sin(leaf(INF, 1.0))),
        ("planted_in_forward", lambda: planted_in_forward(leaf(1.0, 1.0))),
    ],
)
@pytest.mark.parametrize("recording", [True, False])
def test_nan_out_of_numbers_names_the_op(name: str, function: Any, recording: bool) -> None:
    def call() -> None:
        with record.recording(recording):
            function()

    summary, *details = caught(call)
    assert summary == f"NaN first appeared in the output of {name}, forward: 1 of 2 values"
    assert details[0].startswith("  inputs:     float64 (2,)") and details[1] == "  output:     float64 (2,)"
    assert details[2].startswith("  called at:  ") and "function()" in details[-2] and "test_anomaly.py:" in details[-1]
    assert not any("record.py" in line or "anomaly.py:" in line.replace("test_anomaly.py", "") for line in details)


@pytest.mark.parametrize(
    "name, function",
    [
        ("sum", lambda: tg.sum(np.array([INF, -INF, 0.0]))),
        ("mean", lambda: tg.mean(np.array([[INF, -INF, 0.0]]), axis=1)),
        ("matmul", lambda: tg.matmul(np.array([[INF, 1.0]]), np.array([0.0, 1.0]))),
        ("conv_output", lambda: tg.conv2d(np.full((1, 1, 3, 3), INF), np.zeros((2, 1, 3, 3)))),
        ("add", lambda: tg.add(np.float16(INF), tg.Tensor(np.float16(-INF)))),
        ("shift", lambda: tg.log_softmax(np.array([[INF, 1.0]]))),
    ],
)
def test_other_kinds_of_ops(name: str, function: Any) -> None:
    assert caught(function)[0].startswith(f"NaN first appeared in the output of {name}, forward: ")


@given(st.data(), st.sampled_from([np.float16, np.float32, np.float64]), st.integers(1, 4), st.integers(0, 6))
def test_the_op_at_a_drawn_position_of_a_chain_is_named(
    data: st.DataObject, dtype: Any, size: int, length: int
) -> None:
    before, behind = (
        [data.draw(st.sampled_from(UNARY)) for _ in range(data.draw(st.integers(0, length)))] for _ in range(2)
    )

    def chain() -> tg.Tensor:
        y = leaf(*np.linspace(-1, 1, size), dtype=dtype)
        for function in [*before, planted_in_forward, *behind]:
            y = function(y)
        return y

    assert caught(chain)[0] == f"NaN first appeared in the output of planted_in_forward, forward: 1 of {size} values"


@pytest.mark.parametrize("make", [np.array, tg.Tensor, lambda a: tg.Tensor(a, requires_grad=True)])
def test_an_input_that_is_nan_already_is_named(make: Any) -> None:
    a = np.ones((3, 4))
    a[0, :3] = NAN
    summary, *details = caught(lambda: tg.matmul(make(a), np.ones((4, 2))))
    assert summary == "input 0 of matmul is NaN already: 3 of 12 values of data, forward"
    assert details[0] == "  inputs:     float64 (3, 4), float64 (4, 2)"
    assert (
        caught(lambda: leaf(1.0, 2.0) * NAN)[0] == "input 1 of multiply is NaN already: 1 of 1 values of data, forward"
    )
    padded = caught(lambda: tg.pad(np.ones(2), 1, NAN))[0]
    assert padded == "setting value of pad is NaN already: 1 of 1 values of data, forward"


def test_what_is_no_anomaly_passes() -> None:
    mask = np.array([[0.0, -INF, 0.0], [-INF, -INF, 0.0]])
    x = tg.Tensor(np.random.default_rng(0).normal(size=(2, 3)), requires_grad=True)
    images = tg.Tensor(np.random.default_rng(0).normal(size=(2, 1, 4, 4)), requires_grad=True)
    hidden = tg.Tensor([NAN, 1.0])
    with tg.detect_anomaly() as detector:
        tg.softmax(x + mask).sum().backward()
        tg.logsumexp(x + mask, axis=1).sum().backward()
        tg.where(mask == 0, tg.log_softmax(x + mask), 0.0).sum().backward()
        tg.softmax(tg.where(mask == 0, x, -INF)).sum().backward()
        tg.max_pool2d(images, 3, 2, 1).sum().backward()
        (
            tg.where(np.array([False, True]), hidden, 0.0),
            hidden == hidden,
            tg.argmax(hidden),
        )  # NaN goes in and none comes out
        tg.as_tensor([1, 2]) + 3, tg.sum(np.zeros((0, 3))), tg.exp(np.zeros((0, 2), np.float16)), tg.exp(0.0)
        assert detector.first_infinity is None, "infinity that is given, in arrays or as a setting, is meant"
        tg.log(np.zeros(2))
        assert detector.first_infinity == "infinity first appeared in the output of log, forward: 2 of 2 values"
        tg.exp(np.array([1e4, 0.0]))
    assert detector.first_infinity == "infinity first appeared in the output of log, forward: 2 of 2 values"
    with detector:
        assert detector.first_infinity is None


# Backward -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("create_graph", [True, False])
@pytest.mark.parametrize(
    "kind, name, position, function",
    [
        ("infinity", "sqrt", 0, lambda x: tg.sqrt(x)),
        ("NaN", "planted", 0, lambda x: planted(x, backward=True)),
        ("infinity", "planted", 0, lambda x: planted(x, value=INF, backward=True)),
        ("infinity", "power", 0, lambda x: x**0.5),
        ("infinity", "power", 0, lambda x: x ** np.array(0.25)),
        ("infinity", "log", 0, lambda x: tg.log(x + 5e-324)),
        ("infinity", "divide", 1, lambda x: 1 / (x + 1e-200)),
    ],
)
def test_a_rule_is_named_with_the_line_of_its_op(
    kind: str, name: str, position: int, function: Any, create_graph: bool
) -> None:
    x = leaf(1.0, 0.0)

    def call() -> None:
        y = function(x * 1)  # the creating line
        tg.grad(tg.sum(y * 2), [x], create_graph=create_graph)  # the calling line

    summary, *details = caught(call)
    assert summary == f"{kind} first appeared in the backward of {name}, gradient by input {position}: 1 of 2 values"
    sections = [line[2:14].strip() for line in details]
    created, called = (
        details[sections.index("created at:") : sections.index("called at:")],
        details[sections.index("called at:") :],
    )
    assert any("# the creating line" in line for line in created) and not any(
        "# the calling line" in line for line in created
    )
    assert any("# the calling line" in line for line in called)
    assert sections[0] == "cotangent:" and "before:" not in sections


def test_first_infinity_is_mentioned_in_both_directions() -> None:
    def forward() -> None:
        big = tg.exp(leaf(1e4, 0.0))
        big - big

    def backward() -> None:
        x = leaf(0.0, 1.0)
        tg.exp(x.log()).sum().backward()

    exp, log = (
        f"  before:     infinity first appeared in the output of {name}, forward: 1 of 2 values"
        for name in ("exp", "log")
    )
    lines = caught(forward)
    assert lines[0] == "NaN first appeared in the output of subtract, forward: 1 of 2 values" and lines[-1] == exp
    lines = caught(backward)
    assert (
        lines[0] == "NaN first appeared in the backward of log, gradient by input 0: 1 of 2 values" and lines[-1] == log
    )


@given(st.data(), st.integers(1, 4), st.sampled_from([NAN, INF, -INF]))
def test_the_rule_at_a_drawn_position_of_a_chain_is_named(data: st.DataObject, size: int, value: float) -> None:
    before, behind = (
        [data.draw(st.sampled_from(UNARY)) for _ in range(data.draw(st.integers(0, 5)))] for _ in range(2)
    )

    def chain() -> None:
        y = leaf(*np.linspace(-1, 1, size))
        for function in [*before, lambda y: planted(y, value=value, backward=True), *behind]:
            y = function(y)
        y.sum().backward()

    kind = "NaN" if np.isnan(value) else "infinity"
    assert caught(chain)[0].startswith(
        f"{kind} first appeared in the backward of planted, gradient by input 0: 1 of {size} values"
    )


@pytest.mark.parametrize("value, kind", [(NAN, "NaN"), (INF, "infinity")])
def test_a_cotangent_that_is_bad_already_is_no_fault_of_the_rule(value: float, kind: str) -> None:
    x = leaf(1.0, 2.0)
    summary = caught(lambda: tg.exp(x).backward(gradient=np.array([1.0, value])))[0]
    assert summary == (
        f"the cotangent of exp has {kind} already, backward: 1 of 2 values, given (gradient=) or the sum of finite ones"
    )

    summary = caught(lambda: tg.multiply(x, 0.0).backward(gradient=np.array([1.0, value])))[0]
    assert summary.startswith(f"the cotangent of multiply has {kind} already"), "also if the rule makes NaN of infinity"

    def adds_up() -> None:
        half = leaf(1.0, 1.0, dtype=np.float16)
        y = half * 1
        tg.grad(tg.sum(y * 6e4 - 6e4) + tg.sum(y * 6e4 - 6e4), [half])

    assert caught(adds_up)[0].startswith("the cotangent of multiply has infinity already, backward: 2 of 2 values")
    with tg.detect_anomaly():
        tg.where(np.array([True, False]), x, 0.0).backward(gradient=np.array([1.0, value]))  # it never gets anywhere


def test_what_is_masked_within_a_rule_passes() -> None:
    @tg.primitive
    def masked(x: Any) -> Any:
        return x * 1

    masked.defvjp(lambda g, out, x: tg.where(x == 0, g, g * tg.log(x - x)))
    x = leaf(0.0, 0.0)
    with tg.detect_anomaly() as detector:
        masked(x).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [1.0, 1.0])
    assert detector.first_infinity is None


def test_second_order_names_the_rule_that_made_the_node() -> None:
    x = leaf(0.0, 1.0)

    def call() -> None:
        (slope,) = tg.grad(tg.sum(x**1.5), [x], create_graph=True)  # first
        slope.sum().backward()  # second

    summary, *details = caught(call)
    assert summary == "infinity first appeared in the backward of base_gradient, gradient by input 1: 1 of 2 values"
    assert "              in the backward of power" in details
    assert [line for line in details if "# first" in line] and [line for line in details if "# second" in line]
    with tg.detect_anomaly():
        (slope,) = tg.grad(tg.sum(x**3.0), [x], create_graph=True)
        slope.sum().backward()
    np.testing.assert_array_equal(x.grad.data, [0.0, 6.0])


def test_nodes_from_before_and_arrays_that_are_given_back() -> None:
    y = tg.sqrt(leaf(0.0))
    lines = caught(lambda: y.sum().backward())
    assert lines[0] == "infinity first appeared in the backward of sqrt, gradient by input 0: 1 of 1 values"
    assert "  created at: unknown: created before detect_anomaly() was entered" in lines
    x = leaf(0.0)

    def call() -> None:
        root = tg.sqrt(x)  # here
        same = tg.astype(root, np.float64)  # there: the same array
        assert np.shares_memory(same.data, root.data)
        same.sum().backward()

    lines = caught(call)
    assert any("# here" in line for line in lines) and not any("# there" in line for line in lines)


# Layers ---------------------------------------------------------------------------------------------------------------
def step(model: DeepConvNet, threads: int) -> Any:
    images, labels = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8), np.arange(4)
    params, rng = tg.nn.parameters(model), np.random.default_rng(1)
    return lambda: tg.parallel.value_and_grad(
        model.loss, params, images, labels, rng=rng, shard_size=2, threads=threads
    )


@pytest.mark.filterwarnings("ignore:.* encountered in .*:RuntimeWarning")  # other threads have an errstate of their own
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", WEIGHTED)
def test_the_layer_with_a_bad_parameter_is_named(name: str, threads: int) -> None:
    model = DeepConvNet(rng=np.random.default_rng(0))
    weight, layer = tg.nn.parameters(model)[name], name.removesuffix(".weight")
    shown = f", forward, in {layer} ({model.layers[int(layer.split('.')[1])]!r})"
    weight.data.flat[0] = NAN
    summary, *details = caught(step(model, threads))
    assert f" is NaN already: 1 of {weight.size} values of parameter {name}{shown}" in summary
    assert any("models/deep_convnet.py:" in line for line in details) and any(
        "tinygrad_mnist/nn/" in line for line in details
    )
    assert not any("threading.py" in line or "shards.py" in line for line in details)
    weight.data[...] = 3e38  # inputs are not negative: the sums overflow, in each layer
    lines = caught(step(model, threads))
    assert any(
        "first appeared in the output of" in line and shown in line
        for line in lines
        if line is lines[0] or "before:" in line
    )


def test_paths_in_models_of_other_forms() -> None:
    class Odd:
        __slots__ = ("parts",)

        def __init__(self) -> None:
            self.parts = {"a": (tg.nn.Linear(3, 3, rng=np.random.default_rng(0)),), "b": Root()}

        def __call__(self, x: Any) -> tg.Tensor:
            return self.parts["b"](self.parts["a"][0](x))

    class Root:
        def __call__(self, x: Any) -> tg.Tensor:
            return tg.sqrt(x)

    zeros = np.zeros((1, 3), np.float32)
    model = Odd()
    model.parts["a"][0].bias.data[...] = -1
    assert (
        caught(lambda: model(zeros))[0]
        == "NaN first appeared in the output of sqrt, forward, in parts.b (Root): 3 of 3 values"
    )
    model.parts["a"][0].bias.data[...] = 0
    backward = "infinity first appeared in the backward of sqrt, gradient by input 0, in parts.b (Root): 3 of 3 values"
    assert caught(lambda: model(zeros).sum().backward())[0] == backward
    gone = "infinity first appeared in the backward of sqrt, gradient by input 0, in Root: 3 of 3 values"
    assert caught(lambda: Root()(leaf(0.0, 0.0, 0.0)).sum().backward())[0] == gone
    mlp = MLP(np.random.default_rng(0))
    mlp.out.weight.data[0, 0] = NAN
    assert caught(lambda: mlp(np.zeros((1, 28, 28), np.uint8)))[0] == (
        "input 1 of matmul is NaN already: 1 of 1000 values of parameter out.weight, forward, in out (Linear(100, 10))"
    )


class Chain:
    """A model that makes a Sequential for each call, out of layers that it holds beside other things."""

    def __init__(self, *others: Any) -> None:
        root = Root()
        self.others, self.layers = others, [tg.nn.Linear(1, 1), root, root]
        self.layers[0].weight.data[...] = 0

    def __call__(self, x: Any, call: Any = lambda model, x: model(x)) -> tg.Tensor:
        return call(tg.nn.Sequential(*self.layers), x)


class Root:
    def __call__(self, x: tg.Tensor, rng: Any = None) -> tg.Tensor:
        return x if x.data.any() else tg.sqrt(x) + 1


class Endless:
    @property
    def __dict__(self) -> Any:
        self.next = Endless()
        return {"next": self.next}

    __slots__ = ("next",)


class Closed:
    @property
    def __dict__(self) -> Any:
        raise RuntimeError

    __slots__ = ()


class Helper:
    def __call__(self, model: Any, x: Any) -> tg.Tensor:
        return model(x)


@pytest.mark.parametrize(
    "model, call, where",
    [
        (Chain(), [], "layers.1 (Root)"),  # the first path of two, though the Sequential is gone
        (Chain(), [Helper()], "layers.1 (Root)"),
        (Chain(Closed()), [], "Root"),
        (Chain(Endless()), [], "Root"),
    ],
)
def test_models_are_walked_whatever_they_hold(model: Chain, call: Any, where: str) -> None:
    summary = caught(lambda: model(np.zeros((2, 1), np.float32), *call).sum().backward())[0]
    assert summary == f"infinity first appeared in the backward of sqrt, gradient by input 0, in {where}: 2 of 2 values"


@pytest.mark.filterwarnings("ignore:.* encountered in .*:RuntimeWarning")  # other threads have an errstate of their own
def test_one_line_of_the_engine_is_shown_where_there_is_no_other() -> None:
    lines = caught(lambda: list(tg.parallel.map_shards(tg.multiply, np.full(2, INF), shard_size=1, threads=2)))
    assert len(lines) == 4 and lines[3].startswith("  called at:  tinygrad_mnist/record.py:")


def test_a_layer_that_fails_to_show_itself_hides_nothing() -> None:
    class Rude:
        def __call__(self, x: Any) -> tg.Tensor:
            return tg.log(x)

        def __repr__(self) -> str:
            raise ValueError

    class Long(Rude):
        def __repr__(self) -> str:
            return "x" * 1000

    assert ", in <Rude instance" in caught(lambda: Rude()(-ONES))[0]
    assert len(caught(lambda: Long()(-ONES))[0]) < 200


def test_long_stacks_are_cut() -> None:
    def deep(n: int) -> Any:
        return deep(n - 1) if n else tg.log(-ONES)

    lines = caught(lambda: deep(30))
    begin = next(i for i, line in enumerate(lines) if "called at" in line)
    assert lines[begin] == "  called at:  …" and len(lines) - begin == 11 and "tg.log(-ONES)" in lines[-1]


# What stays -----------------------------------------------------------------------------------------------------------
@given(st.integers(1, 5), st.sampled_from([1, 2]))
def test_it_changes_no_bit(n: int, threads: int) -> None:
    model = DeepConvNet(rng=np.random.default_rng(n))
    loss, grads = step(model, threads)()
    with tg.detect_anomaly():
        again, same = step(model, threads)()
    assert loss == again and all(np.array_equal(grads[name], same[name]) for name in grads)


@pytest.mark.parametrize("recording", [True, False])
def test_activations_are_freed_as_without_it(recording: bool) -> None:
    class Keeper:
        def __call__(self, x: Any) -> Any:
            y = tg.exp(x)
            self.last, self.ref = y, weakref.ref(y.data)
            return tg.cos(y)

    gc.collect()
    gc.disable()
    try:
        with tg.detect_anomaly() as detector, record.recording(recording):
            keeper = Keeper()
            y = keeper(leaf(1.0, 2.0))
            refs = [keeper.ref, weakref.ref(y.data)]
            assert len(detector._created) == (2 if recording else 0)
            if recording:
                y.sum().backward()
            del keeper, y
            assert [ref() for ref in refs] == [None, None] and detector._created == {}
            x, alive = leaf(1.0), tg.exp(leaf(1.0))
            with pytest.raises(tg.AnomalyError):
                tg.log(x - 2)
        assert detector._created == {}
        del detector
        assert alive.data.size == 1
    finally:
        gc.enable()


# Hooks inside each other ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("profile_first", [True, False])
def test_profiles_and_it_work_inside_each_other(profile_first: bool) -> None:
    profile, detector = tg.Profile(), tg.detect_anomaly()
    x = leaf(4.0, 0.0)
    for outer, inner in [(profile, detector) if profile_first else (detector, profile)]:
        with outer, inner:
            tg.sum(x * x).backward()
            for again in (outer, inner):
                with pytest.raises(RuntimeError, match="this one is active already"), again:
                    pass
            with pytest.raises(tg.AnomalyError, match="backward of sqrt, gradient by input 0"):
                tg.sqrt(x).sum().backward()
        assert hooks.active is None and outer.below is None and inner.below is None
    assert [e.name for e in profile.events if e.phase == "forward"] == ["multiply", "sum", "sqrt", "sum"]
    assert [e.name for e in profile.events if e.phase == "backward"][:2] == ["sum, rule 0", "multiply, rule 0"]
    tg.sqrt(x).sum().backward()
    with detector, pytest.raises(tg.AnomalyError):
        tg.sqrt(-x)


class Counter(hooks.Hook):
    calls = 0

    def forward(self, *args: Any) -> Any:
        self.calls += 1
        return super().forward(*args)


@given(st.lists(st.integers(0, 4), max_size=20))
def test_contexts_may_be_left_in_any_order(choices: list[int]) -> None:
    installed, inside, expected = [Counter() for _ in range(5)], dict[int, ExitStack](), [0] * 5
    for i in choices:
        if i in inside:
            inside.pop(i).close()
        else:
            inside[i] = ExitStack()
            inside[i].enter_context(hooks.installed(installed[i]))
            with (
                pytest.raises(RuntimeError, match="Counter: this one is active already"),
                hooks.installed(installed[i]),
            ):
                pass
        tg.exp(1.0)
        expected = [n + (j in inside) for j, n in enumerate(expected)]
        assert [hook.calls for hook in installed] == expected
        assert list(hooks._installed()) == [installed[j] for j in reversed(inside)]
    for i in list(inside):
        inside.pop(i).close()
    assert hooks.active is None and all(hook.below is None for hook in installed)


def test_threads_enter_and_leave_while_others_compute() -> None:
    errors, x = [], leaf(1.0, 2.0)

    def work(n: int) -> None:
        try:
            for _ in range(200):
                with tg.detect_anomaly() if n else tg.Profile():
                    tg.grad(tg.exp(x).sum(), [x])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and hooks.active is None
