"""Profiles: complete, nested, and without influence on what is computed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist import record


def leaf(*shape: int) -> tg.Tensor:
    return tg.Tensor(np.random.default_rng(0).normal(size=shape), requires_grad=True)


def test_every_primitive_and_rule_is_recorded_once() -> None:
    x, w = leaf(3, 4), leaf(4, 2)
    with tg.Profile() as profile:
        y = tg.exp(x @ w).sum()
        y.backward()
    forward = Counter(e.name for e in profile.events if e.phase == "forward")
    assert forward == {"matmul": 1, "exp": 1, "sum": 1}
    rules = Counter(e.name for e in profile.events if e.phase == "backward")
    assert rules == {"matmul, rule 0": 1, "matmul, rule 1": 1, "exp, rule 0": 1, "sum, rule 0": 1}
    inside = [(e.name, e.op) for e in profile.events if e.phase == "in rule"]
    assert (
        inside
        == [("reshape", "sum"), ("broadcast_to", "sum"), ("exp_gradient", "exp")]
        + [("swapaxes", "matmul"), ("matmul", "matmul")] * 2
    )


def test_memory_counts_new_arrays_and_no_views() -> None:
    x = leaf(5, 7)
    with tg.Profile() as profile:
        tg.exp(x), tg.reshape(x, 35), x.T, tg.broadcast_to(x, (9, 5, 7)), x.sum(0)
    assert [(e.name, e.memory) for e in profile.events] == [
        ("exp", 280),
        ("reshape", 0),
        ("transpose", 0),
        ("broadcast_to", 0),
        ("sum", 56),
    ]
    assert [e.shapes for e in profile.events] == [((5, 7),)] * 5


@given(st.integers(1, 12), st.integers(1, 5), st.sampled_from([1, 2, 3]))
def test_threads_and_profiles_change_no_bit_and_events_nest(n: int, shard_size: int, threads: int) -> None:
    model = DeepConvNet(rng=np.random.default_rng(0))
    images, labels = np.random.default_rng(n).integers(0, 256, (n, 28, 28), dtype=np.uint8), np.arange(n) % 10
    params = tg.nn.parameters(model)

    def step() -> Any:
        rng = np.random.default_rng(1)
        return tg.parallel.value_and_grad(
            model.loss, params, images, labels, rng=rng, shard_size=shard_size, threads=threads
        )

    loss, grads = step()
    with tg.Profile() as profile:
        again, same = step()
    assert loss == again and all(np.array_equal(grads[name], same[name]) for name in grads)
    shards = -(-n // shard_size)
    assert Counter(e.name for e in profile.events if e.phase == "forward")["conv_output"] == 6 * shards
    assert 1 <= len({e.thread for e in profile.events}) <= threads
    for thread in {e.thread for e in profile.events}:
        mine = [e for e in profile.events if e.thread == thread]
        outer = sorted((e for e in mine if e.phase != "in rule"), key=lambda e: e.begin)
        assert all(first.end <= second.begin for first, second in zip(outer, outer[1:], strict=False))
        rules = [e for e in outer if e.phase == "backward"]
        for e in mine:
            assert e.begin <= e.end
            if e.phase == "in rule":
                assert any(r.begin <= e.begin and e.end <= r.end and r.op == e.op for r in rules)


def test_the_table_adds_up() -> None:
    x, profile = leaf(64, 64), tg.Profile()
    for _ in range(4):  # one profile, several contexts
        with profile:
            (x @ x + x).sum().backward()
    header, *rows, last = profile.table(steps=2).splitlines()
    assert header.split() == ["op", "calls", "forward", "ms", "backward", "ms", "MiB", "share"]
    cells = {row.split()[0]: [float(cell.rstrip("%")) for cell in row.split()[1:]] for row in rows}
    assert cells.keys() == {"matmul", "add", "sum"} and [row[0] for row in cells.values()] == [2, 2, 2]
    spent = {"forward": 0, "backward": 0}
    for e in profile.events:
        if e.op == "matmul" and e.phase in spent:
            spent[e.phase] += e.end - e.begin
    assert cells["matmul"][1:3] == pytest.approx([spent["forward"] / 2e6, spent["backward"] / 2e6], abs=6e-4)
    assert cells["matmul"][3] == pytest.approx(2 * 3 * 64 * 64 * 8 / 2**20, abs=6e-3), (
        "the product and those of its two rules"
    )
    assert sum(row[4] for row in cells.values()) == pytest.approx(100, abs=0.2)
    assert last.startswith("all ops:") and "on 1 threads" in last and f"{profile.wall / 2e6:.1f} ms" in last
    with pytest.raises(ValueError, match="steps is 0"):
        profile.table(steps=0)
    assert tg.Profile().table().splitlines()[-1] == "all ops: 0.0 ms on 0 threads, in 0.0 ms"


def test_the_trace_is_what_perfetto_reads(tmp_path: Path) -> None:
    with tg.Profile() as profile:
        list(tg.parallel.map_shards(lambda number, a: tg.exp(a), np.ones((4, 3)), shard_size=1, threads=2))
        leaf(2).sum().backward()
    profile.save_trace(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text())
    names = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M"}
    calls = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert len(calls) == len(profile.events) and {e["tid"] for e in calls} == set(names)
    assert "MainThread" in names.values() and any(name.startswith("shard") for name in names.values())
    assert [e["ts"] for e in calls] == sorted(e["ts"] for e in calls) and all(e["dur"] >= 0 for e in calls)
    exps = [e for e in calls if e["name"] == "exp"]
    assert len(exps) == 4 and all(
        e["args"] == {"shapes": [[1, 3]], "bytes": 24} and e["cat"] == "forward" for e in exps
    )


def test_profiles_record_inside_each_other_and_each_is_entered_once() -> None:
    first, second = tg.Profile(), tg.Profile()
    with first:
        with pytest.raises(RuntimeError, match="Profile: this one is active already"), first:
            pass
        tg.exp(leaf(2))
        with second:
            for profile in (first, second):
                with pytest.raises(RuntimeError, match="Profile: this one is active already"), profile:
                    pass
            tg.exp(leaf(2))
    with second:
        tg.exp(leaf(2))
    assert len(first.events) == len(second.events) == 2
    outer, inner = first.events[1], second.events[0]
    assert outer[:5] == inner[:5] and inner.begin <= outer.begin <= outer.end <= inner.end, (
        "the inner one is asked first"
    )


def test_a_rule_that_differentiates_goes_on_belonging_to_its_op() -> None:
    @tg.primitive
    def square(x: Any) -> Any:
        return x * x

    def rule(g: Any, out: Any, x: Any) -> Any:
        own = tg.Tensor(x.data, requires_grad=True)
        with record.recording(True):
            inner = tg.exp(own).sum()
        (e,) = tg.grad(inner, [own])
        return g * 2 * tg.log(e)

    square.defvjp(rule)
    x = leaf(3)
    with tg.Profile() as profile:
        y = square(x)
        y.sum().backward()
    np.testing.assert_allclose(x.grad.data, 2 * x.data)
    (log,) = (e for e in profile.events if e.name == "log")
    assert (log.phase, log.op) == ("in rule", "square")


def test_an_error_ends_the_profile_and_outside_nothing_is_recorded() -> None:
    x, profile = leaf(2), tg.Profile()
    with pytest.raises(ValueError, match="matmul"), profile:
        x @ leaf(3)
    tg.exp(x).sum().backward()
    assert profile.events == [] and profile.wall > 0

    @tg.primitive
    def fails_backward(x: Any) -> Any:
        return x * 1

    def rule(g: Any, out: Any, x: Any) -> Any:
        raise ZeroDivisionError

    fails_backward.defvjp(rule)
    with pytest.raises(ZeroDivisionError), profile:
        fails_backward(x).sum().backward()
    with profile:
        tg.exp(x)
    assert (profile.events[-1].name, profile.events[-1].phase) == ("exp", "forward"), "the failed rule is over"
