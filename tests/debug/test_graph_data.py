"""The graph as data and as text: every Tensor once, every use an edge, whatever was computed."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from models.vision_transformer import VisionTransformer
from tinygrad_mnist.debug.graph import Graph, Node

HOSTILE = '</script><b>"quoted"</b> `x` \\ #quot; & \n; %% 😀 ]])'


def recorded(program: Any) -> tg.Tensor | None:
    """The output of a program, if an op made it."""
    inputs = [tg.Tensor(x, requires_grad=True) for x in program.inputs]
    output = program(*inputs)
    return output if output.op is not None else None


def walked(output: tg.Tensor) -> tuple[int, int, int]:
    """Count Tensors, uses, and numbers that are used, by a naive walk."""
    reached, uses, numbers, waiting = {id(output)}, 0, 0, [output]
    while waiting:
        for a in waiting.pop().inputs:
            uses += 1
            numbers += not isinstance(a, tg.Tensor)
            if isinstance(a, tg.Tensor) and id(a) not in reached:
                reached.add(id(a))
                waiting.append(a)
    return len(reached), uses, numbers


def check_order(graph: Graph) -> None:
    places = {node.id: place for place, node in enumerate(graph.nodes)}
    assert len(places) == len(graph.nodes)
    assert all(places[edge.source] < places[edge.target] for edge in graph.edges)


def parsed_mermaid(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Ids of the nodes, and edges; every line must be one or the other."""
    head, *lines = text.split("\n")
    assert head == "flowchart TD"
    nodes, edges = [], []
    for line in lines:
        if node := re.fullmatch(r'  (\w+)(?:\[|\(\[)"((?:[\w .,()_=+*/<>-]|#\d+;)*)"(?:\]|\]\)):::\w+', line):
            nodes.append(node[1])
            assert set(re.findall("<.*?>", node[2])) <= {"<br>"} and node[2].count("<") == node[2].count("<br>")
        elif edge := re.fullmatch(r"  (\w+) (?:-->|-\.->) (\w+)", line):
            edges.append((edge[1], edge[2]))
        else:
            assert re.fullmatch(r"  classDef \w+ fill:#\w+,stroke:#\w+,color:#111", line), line
    return nodes, edges


@given(tg.testing.programs(kinks=True))
def test_every_tensor_is_a_node_and_every_use_an_edge_in_all_forms(program: Any) -> None:
    output = recorded(program)
    if output is None:
        return
    shown = tg.graph(output)
    tensors, uses, numbers = walked(output)
    assert Counter(node.kind == "number" for node in shown.nodes) == Counter({False: tensors, True: numbers})
    assert len(shown.edges) == uses
    check_order(shown)
    last = shown.nodes[-1]
    assert (last.op, last.shape, last.dtype, last.bytes) == (
        output.op.__name__,
        output.shape,
        str(output.dtype),
        output.data.nbytes,
    )
    ids, edges = [node.id for node in shown.nodes], Counter((edge.source, edge.target) for edge in shown.edges)
    dot = shown.to_dot()
    assert re.findall(r"^  (\w+) \[", dot, re.MULTILINE) == ids
    assert Counter(re.findall(r"^  (\w+) -> (\w+);", dot, re.MULTILINE)) == edges
    nodes, drawn = parsed_mermaid(shown.to_mermaid())
    assert nodes == ids and Counter(drawn) == edges


@given(tg.testing.programs())
def test_the_backward_pass_is_there_and_is_the_gradient(program: Any) -> None:
    output = recorded(program)
    if output is None:
        return
    loss = tg.sum(output)
    shown = tg.graph(loss, backward=True)
    check_order(shown)
    forward = [node for node in shown.nodes if node.phase == "forward"]
    assert len(forward) == len(tg.graph(loss).nodes)
    assert not [e for e in shown.edges if e.source not in ids(forward) and e.target in ids(forward)]
    leaves = {node.id: node for node in forward if node.kind == "parameter"}
    results = {node.name.removeprefix("gradient of "): node for node in shown.nodes if node.op == "copy"}
    for name, node in results.items():
        assert node.phase == "backward" and node.shape == leaves[name].shape
        assert leaves[name].gradient == node.value, "the gradient of a single number is told"
    assert results.keys() == leaves.keys() == {leaf.title for leaf in leaves.values()}, "a gradient says by what it is"
    assert not [node for node in shown.nodes if node.phase == "backward" and node.kind == "parameter"]


def ids(nodes: list[Node]) -> set[str]:
    return {node.id for node in nodes}


def test_a_graph_of_numbers_tells_values_and_gradients() -> None:
    names = {name: tg.Tensor(value, requires_grad=True) for name, value in {"a": 2.0, "b": -3.0, "c": 10.0}.items()}
    names["e"] = names["a"] * names["b"]
    names["L"] = (names["e"] + names["c"]) * -2.0
    shown = tg.graph(names["L"], names=names)
    found = {node.title: (node.value, node.gradient) for node in shown.nodes}
    assert found == {
        "a": (2, 6),
        "b": (-3, -4),
        "c": (10, -2),
        "e": (-6, -2),
        "add": (4, -2),
        "-2.0": (-2, None),
        "L": (-8, 1),
    }
    assert r'"a\n() float64\ndata 2, grad 6"' in shown.to_dot()
    assert names["a"].grad is None, "no .grad is touched"
    assert repr(shown) == "Graph of L: 7 nodes (3 ops), 6 edges, 3 FLOPs"
    x = tg.Tensor([1.0, 2.0], requires_grad=True)
    assert [node.gradient for node in tg.graph((x * x).sum()).nodes] == [None, None, None]


def network() -> tuple[DeepConvNet, tg.Tensor]:
    model = DeepConvNet(np.random.default_rng(0))
    images, labels = tg.data.synthetic_digits(3, rng=np.random.default_rng(0))
    return model, model.loss(images, labels, rng=np.random.default_rng(0))


def test_layers_follow_the_parameters_in_both_directions() -> None:
    model, loss = network()
    shown = tg.graph(loss, model, backward=True)
    assert shown.title == "DeepConvNet"
    by_id = {node.id: node for node in shown.nodes}
    for node in shown.nodes:
        if node.kind == "parameter" and node.phase == "forward":
            assert node.name.startswith(node.layer + ".")
        if node.op == "conv_weight":
            (result,) = [by_id[edge.target] for edge in shown.edges if edge.source == node.id]
            assert result.name == f"gradient of {node.layer}.weight"
    layers = {node.layer for node in shown.nodes}
    assert layers == {f"layers.{i}" for i in (0, 2, 5, 7, 10, 12, 15, 18)}
    pools = [node.layer for node in shown.nodes if node.op == "max_pool"]
    assert pools == ["layers.2", "layers.7", "layers.12"], "an op without parameters joins the layer before it"


def test_a_rule_that_differentiates_belongs_to_its_op() -> None:
    @tg.primitive
    def squared(x: Any) -> Any:
        return x * x

    def rule(g: Any, out: Any, x: Any) -> Any:
        (slope,) = tg.grad(tg.sum(tg.exp(x)), [x], create_graph=True)
        return g * 2 * tg.log(slope)

    squared.defvjp(rule)
    layer = tg.nn.Linear(2, 2, rng=np.random.default_rng(0))
    loss = tg.sum(squared(layer(np.ones((1, 2), np.float32)) * 1))
    shown = tg.graph(loss, layer, backward=True)
    (log,) = [node for node in shown.nodes if node.op == "log"]
    assert (log.phase, log.layer) == ("backward", "bias")


SUMS = ("bytes", "memory", "flops")


def check_collapsed(whole: Graph, smaller: Graph) -> None:
    check_order(smaller)
    for name in SUMS:
        assert sum(getattr(n, name) for n in smaller.nodes) == sum(getattr(n, name) for n in whole.nodes)
    owner = {id: node for node in smaller.nodes for id in (node.members or (node.id,))}
    assert owner.keys() == ids(list(whole.nodes))
    assert sum(len(node.members) or 1 for node in smaller.nodes) == len(whole.nodes)
    between = Counter[tuple[str, str]]()
    for edge in whole.edges:
        ends = owner[edge.source].id, owner[edge.target].id
        between[ends] += ends[0] != ends[1]
    assert {(e.source, e.target): e.uses for e in smaller.edges} == +between


@given(tg.testing.programs(max_steps=12), st.integers(1, 8), st.booleans())
def test_what_is_collapsed_adds_up_and_never_depends_on_itself(program: Any, limit: int, backward: bool) -> None:
    output = recorded(program)
    if output is None:
        return
    shown = tg.graph(tg.sum(output), backward=backward)
    smaller = shown.collapsed(limit)
    assert len(smaller.nodes) <= max(limit, 1 + backward)
    check_collapsed(shown, smaller)
    if limit > 1:
        again = smaller.collapsed(limit - 1)
        assert sorted(id for node in again.nodes for id in node.members or (node.id,)) == sorted(ids(list(shown.nodes)))
        check_order(again)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), min_size=1, max_size=12), st.booleans())
def test_layers_that_are_called_in_any_order_collapse(calls: list[tuple[str, int]], backward: bool) -> None:
    class Model:
        def __init__(self) -> None:
            self.a, self.b = tg.Tensor(2.0, requires_grad=True), {"inner": tg.Tensor([3.0], requires_grad=True)}

    model = Model()
    values = [tg.Tensor([1.0, 2.0])]
    for name, source in calls:
        weight = model.a if name == "a" else model.b["inner"]
        values.append(tg.tanh(values[source % len(values)] * weight))
    shown = tg.graph(tg.sum(tg.stack(values)), model, backward)
    check_collapsed(shown, shown.collapsed())


def test_large_models_collapse_to_the_limit_and_say_so() -> None:
    model = VisionTransformer(np.random.default_rng(0))
    loss = model(np.zeros((2, 28, 28), np.uint8)).sum()
    shown = tg.graph(loss, model)
    layers = shown.collapsed()
    assert {node.name for node in layers.nodes} >= {"embed", "blocks.0.qkv", "blocks.1.narrow", "out"}
    assert layers.note == f"{len(shown.nodes)} nodes, collapsed by layer"
    few = shown.collapsed(5)
    assert {node.name for node in few.nodes} >= {"blocks", "out"} and len(few.nodes) <= 5
    assert "to 1 of 3 levels" in few.note
    check_collapsed(shown, few)
    with pytest.raises(ValueError, match="collapsed: limit is -1"):
        shown.collapsed(-1)


def test_a_profile_gives_each_op_its_time() -> None:
    x = tg.Tensor(np.ones((30, 30)), requires_grad=True)
    with tg.Profile() as profile:
        for _ in range(2):
            y = (tg.exp(x) @ x).sum()
            tg.grad(y, [x])
    shown = tg.graph(y, backward=True, profile=profile)
    for node in shown.nodes:
        phase = "forward" if node.phase == "forward" else "in rule"
        events = [e for e in profile.events if e.phase == phase and e.name == node.op]
        if node.kind == "op" and node.op not in ("copy", "add"):
            assert node.seconds is not None and node.seconds > 0
        if node.op in ("exp", "sum", "exp_gradient"):
            assert node.seconds == pytest.approx(sum(e.end - e.begin for e in events) / 1e9 / 2)
    (first, second), (other,) = (
        [n.seconds for n in shown.nodes if n.op == "matmul" and n.phase == phase] for phase in ("backward", "forward")
    )
    assert len({first, second, other}) == 3, "each its own"
    with pytest.raises(ValueError, match="the profile holds none of the ops of this graph; compute the loss inside"):
        tg.graph(y, profile=tg.Profile())
    with pytest.raises(TypeError, match=r"profile is dict; pass the tg.Profile\(\)"):
        tg.graph(y, profile={})


def test_memory_is_what_was_allocated() -> None:
    x = tg.Tensor(np.ones((4, 5)), requires_grad=True)
    shown = tg.graph(tg.broadcast_to((x * 2).T.reshape(20), (3, 20)).sum())
    found = {node.op: (node.bytes, node.memory) for node in shown.nodes if node.kind == "op"}
    assert found["multiply"] == (160, 160) and found["sum"] == (8, 8)
    assert found["transpose"] == (160, 0) and found["broadcast_to"][1] == 0

    @tg.primitive
    def first(x: Any, y: Any) -> Any:
        return x[:2]

    first.defvjp(lambda g, out, x, y: g, None)
    assert tg.graph(first(x, np.ones(3))).nodes[-1].memory == 0, "a view of one of two"


def test_hostile_names_are_escaped() -> None:
    x = tg.Tensor([1.0], requires_grad=True)
    shown = tg.graph((x * 2).sum(), names={HOSTILE: x})
    assert shown.nodes[0].name == HOSTILE
    parsed_mermaid(shown.to_mermaid())
    quoted = re.search(r'n0\(\["(.*?)<br>', shown.to_mermaid())
    read = re.sub(r"#(\d+);", lambda number: chr(int(number[1])), quoted[1])
    assert read == HOSTILE.replace("\n", " ")


def test_what_is_too_large_for_github_is_collapsed_or_refused() -> None:
    model, loss = network()
    images, labels = tg.data.synthetic_digits(3, rng=np.random.default_rng(0))
    losses = [model.loss(images, labels, rng=np.random.default_rng(i)) for i in range(12)]
    shown = tg.graph(tg.sum(tg.stack(losses)), model)
    assert len(shown.edges) > 500
    nodes, edges = parsed_mermaid(shown.to_mermaid())
    assert nodes == [node.id for node in shown.collapsed().nodes] and len(edges) < 500
    x = tg.Tensor(1.0, requires_grad=True)
    for _ in range(300):
        x = x + 1
    with pytest.raises(ValueError, match=r"to_mermaid: 600 edges .* GitHub draws 500 .* pass model= to tg.graph"):
        tg.graph(x).to_mermaid()
    assert len(parsed_mermaid(tg.graph(x).collapsed(100).to_mermaid())[0]) <= 100


def test_the_example_in_the_docs_is_what_its_program_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Graph, "to_html", lambda self, path: None)
    page = Path(tg.__file__).parent / "debug" / "README.md"
    ((program, output),) = re.findall(
        r"```python\n([^`]*)```\n+```mermaid\n(.*?)```", page.read_text("utf-8"), re.DOTALL
    )
    exec(program, {"tg": tg})
    assert capsys.readouterr().out == output


def test_what_cannot_be_shown_is_told() -> None:
    x = tg.Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(TypeError, match="graph: loss is float; pass the Tensor"):
        tg.graph(3.0)
    with pytest.raises(TypeError, match="graph: names is list; pass a dict"):
        tg.graph(x * x, names=[x])
    with pytest.raises(ValueError, match=r"graph: no op has been recorded that made this Tensor of shape \(2,\)"):
        tg.graph(x)
    with tg.no_grad():
        y = x * x
    with pytest.raises(ValueError, match=r"outside of no_grad\(\)"):
        tg.graph(y)
    with pytest.raises(ValueError, match=r"backward=True wants a single number, not shape \(2,\); reduce it"):
        tg.graph(x * x, backward=True)
    with pytest.raises(ValueError, match="nothing of the model is in the graph"):
        tg.graph((x * x).sum(), tg.nn.Linear(2, 2, rng=np.random.default_rng(0)))
    loss = (x * x).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="graph: the graph behind .* was freed by"):
        tg.graph(loss)
