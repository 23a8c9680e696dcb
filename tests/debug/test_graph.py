"""The graph as DOT text: every Tensor once, every use an edge, whatever was computed."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet

NODE = re.compile(r'^  ([nc]\d+) \[label="((?:[^"\\]|\\.)*)", .*\];$')
EDGE = re.compile(r"^  ([nc]\d+) -> (n\d+);$")


def parsed(text: str) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Labels by node, and edges; every line must be one or the other."""
    head, settings, *lines, end = text.split("\n")
    assert (head, end) == ("digraph {", "}") and settings.startswith("  rankdir")
    nodes, edges = {}, []
    for line in lines:
        if node := NODE.match(line):
            assert node[1] not in nodes
            nodes[node[1]] = node[2].split("\\n")
        else:
            edge = EDGE.match(line)
            assert edge, line
            edges.append((edge[1], edge[2]))
    assert {end for edge in edges for end in edge} <= nodes.keys()
    return nodes, edges


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "multiply", "tanh", "number"]), st.integers(0, 99), st.integers(0, 99)),
        max_size=12,
    )
)
def test_every_tensor_is_there_once_and_every_use_is_an_edge(program: list[tuple[str, int, int]]) -> None:
    made = [tg.Tensor([0.5, 1.5], requires_grad=True), tg.Tensor([1.0, 2.0])]
    for kind, i, j in program:
        x, y = made[i % len(made)], made[j % len(made)]
        with np.errstate(over="ignore"):  # squares of squares
            made.append(
                x + y if kind == "add" else x * y if kind == "multiply" else tg.tanh(x) if kind == "tanh" else x * 0.5
            )
    nodes, edges = parsed(tg.to_dot(made[-1], {"x": made[0]}))
    reached, uses, waiting = {id(made[-1])}, 0, [made[-1]]
    while waiting:  # the naive walk
        for a in waiting.pop().inputs:
            uses += 1
            if isinstance(a, tg.Tensor) and id(a) not in reached:
                reached.add(id(a))
                waiting.append(a)
    assert sum(name.startswith("n") for name in nodes) == len(reached) and len(edges) == uses
    assert sum(label[0] == "x" for label in nodes.values()) == (id(made[0]) in reached)
    numbers = [int(name[1:]) for name in nodes if name.startswith("n")]
    assert numbers == sorted(numbers) and all(a[0] == "c" or int(a[1:]) < int(b[1:]) for a, b in edges), (
        "what comes first is made first"
    )


def loss_of_the_21_layers() -> tuple[Any, dict[str, tg.Tensor]]:
    model = DeepConvNet(rng=np.random.default_rng(0))
    images, labels = tg.data.synthetic_digits(3, rng=np.random.default_rng(0))
    return model.loss(images, labels, rng=np.random.default_rng(0)), tg.nn.parameters(model)


def test_the_21_layers_are_all_in_their_graph() -> None:
    loss, parameters = loss_of_the_21_layers()
    nodes, edges = parsed(tg.to_dot(loss, parameters))
    labels = [label[0] for label in nodes.values()]
    assert [labels.count(op) for op in ("conv_output", "matmul")] == [6, 2]
    assert {"(3, 16, 12, 12)", "(3, 32, 4, 4)", "(3, 64, 2, 2)"} <= {label[-1] for label in nodes.values()}, (
        "three pools, of whatever ops"
    )
    for name, p in parameters.items():
        (node,) = [node for node, label in nodes.items() if label[0] == name]
        assert nodes[node][1] == f"{p.shape} float32" and sum(a == node for a, _ in edges) == 1
    convolutions = [label for label in nodes.values() if label[0] == "conv_output"]
    (convolution,) = [label for label in convolutions if label[-1] == "(3, 16, 26, 26)"]
    assert "stride=(1, 1)" in str(convolution) and "padding=(0, 0)" in str(convolution)


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_takes_it() -> None:
    loss, parameters = loss_of_the_21_layers()
    names = {f'quoted "{name}"\nand \\ more': p for name, p in parameters.items()}
    text = tg.to_dot(loss, names)
    drawn = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, text=True, check=True)
    assert drawn.stdout.count('class="node"') == text.count("[label=") and not drawn.stderr


def test_a_graph_that_is_gone_is_told() -> None:
    x = tg.Tensor([1.0, 2.0], requires_grad=True)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="to_dot: the graph behind .* was freed by"):
        tg.to_dot(y)
    with pytest.raises(TypeError, match="to_dot: output is float; pass the Tensor"):
        tg.to_dot(3.0)


def test_a_deep_graph_is_no_problem() -> None:
    x = tg.Tensor(1.0, requires_grad=True)
    for _ in range(5000):
        x = x + 1
    assert tg.to_dot(x).count(" -> ") == 10000
