"""The page of a graph: well-formed, complete, on its own, and laid out so that nothing is hidden."""

from __future__ import annotations

import re
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist.debug.graph import Graph
from tinygrad_mnist.debug.graph.layout import BOX, lay_out

pytest.importorskip("igraph", reason="igraph is not installed (the extra graph)")

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "input"}
HOSTILE = "</script><b onmouseover=\"alert('x')\">quoted</b> & \n\x00 😀 ]]> -->"


class Balanced(HTMLParser):
    """Read a page; every element must be closed where it should."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen = Counter[str]()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def drawn(page: str) -> tuple[list[Any], list[Any]]:
    """The boxes and edges of a page, which is well-formed and loads nothing."""
    read = Balanced(page)
    assert read.seen["script"] == read.seen["style"] == read.seen["svg"] == 1
    assert not [name for name, _ in read.attributes if name in ("src", "href", "action", "srcset") or name[:2] == "on"]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    (text,) = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    svg = ElementTree.fromstring(text)
    groups = {group.get("class"): list(group) for group in svg.findall(f"{SVG}g")}
    return groups["nodes"], groups["edges"]


def check_layout(graph: Graph) -> None:
    layout = lay_out(graph)
    width, height = BOX
    boxes = sorted(layout.boxes.items(), key=lambda item: item[1])
    assert layout.boxes.keys() == {node.id for node in graph.nodes}
    for i, (one, (x, y)) in enumerate(boxes):
        assert 0 <= x <= layout.width - width + 0.1 and 0 <= y <= layout.height - height + 0.1
        for other, (x1, y1) in boxes[i + 1 :]:
            assert abs(x - x1) >= width or abs(y - y1) >= height, f"{one} and {other} overlap"
    phases = {node.id: node.phase for node in graph.nodes}
    corners = list(layout.boxes.values())
    for edge, path in zip(graph.edges, layout.paths, strict=True):
        begin, end = layout.boxes[edge.source], layout.boxes[edge.target]
        if phases[edge.source] != phases[edge.target]:
            assert begin[0] + width < end[0], "forward on the left, backward on the right"
            continue
        sign = -1 if phases[edge.source] == "backward" else 1
        steps = [sign * y for _, y in path]
        assert steps == sorted(steps) and steps[0] < steps[-1], "forward down, backward up"
        assert 0 < path[0][0] - begin[0] < width and 0 < path[-1][0] - end[0] < width
        for (x0, y0), (x1, y1) in zip(path[1:-1], path[2:-1], strict=False):
            if x0 == x1:  # beside the boxes of a row
                middle = (y0 + y1) / 2
                assert not [c for c in corners if c[0] < x0 < c[0] + width and c[1] < middle < c[1] + height]


@settings(deadline=None)
@given(tg.testing.programs(max_steps=12), st.booleans())
def test_the_page_holds_every_node_and_edge_once_and_no_boxes_overlap(program: Any, backward: bool) -> None:
    output = program(*(tg.Tensor(x, requires_grad=True) for x in program.inputs))
    if output.op is None:
        return
    shown = tg.graph(tg.sum(output), backward=backward)
    boxes, edges = drawn(shown.to_html())
    assert [box.get("id") for box in boxes] == [node.id for node in shown.nodes]
    ends = [(edge.get("data-from"), edge.get("data-to")) for edge in edges]
    assert ends == [(edge.source, edge.target) for edge in shown.edges]
    for box, node in zip(boxes, shown.nodes, strict=True):
        label = box.get("aria-label")
        assert node.kind == "number" or f"shape: {node.shape}, {node.dtype}" in label
        assert box.get("tabindex") == "0" and box.get("class") == f"{node.kind} {node.phase}"
    check_layout(shown)


@given(st.floats(width=32), st.floats(width=32))
def test_numbers_in_boxes_are_rounded_and_not_cut(value: float, gradient: float) -> None:
    x = tg.Tensor(value, requires_grad=True)
    with np.errstate(all="ignore"):
        page = tg.graph(x * tg.Tensor(gradient), names={"x": x}).to_html()
    first = re.search(r'y="36">(?:data )?([^<,]+), grad ([^<,]+)<', page)
    np.testing.assert_allclose([float(number) for number in first.groups()], [value, gradient], rtol=0.05)
    assert all(len(text) <= 25 for text in re.findall(r'y="36">([^<]+)<', page))


def step(n: int = 2) -> tuple[DeepConvNet, tg.Tensor, tg.Profile]:
    model = DeepConvNet(np.random.default_rng(0))
    images, labels = tg.data.synthetic_digits(n, rng=np.random.default_rng(0))
    with tg.Profile() as profile:
        loss = model.loss(images, labels, rng=np.random.default_rng(0))
        tg.grad(loss, tg.nn.parameters(model).values())
    return model, loss, profile


def test_the_21_layers_are_laid_out_and_coloured_by_their_share() -> None:
    model, loss, profile = step()
    shown = tg.graph(loss, model, backward=True, profile=profile)
    check_layout(shown)
    page = shown.to_html()
    boxes, _ = drawn(page)
    for name, amount in {"flops": "flops", "memory": "memory", "time": "seconds"}.items():
        amounts = [getattr(node, amount) or 0 for node in shown.nodes]
        shares = [float(re.search(rf"--{name}:([\d.]+)", box.get("style"))[1]) for box in boxes]
        np.testing.assert_allclose(shares, np.array(amounts) / max(amounts), atol=6e-4)
        assert f'value="{name}"' in page and f'data-for="{name}"' in page
    forward_alone = tg.graph(loss, model).to_html()
    assert 'value="time"' not in forward_alone, "without a profile there is no time"
    assert 'class="key backward"' in page and 'class="key backward"' not in forward_alone


def test_a_large_graph_is_collapsed_and_the_page_says_so() -> None:
    rng = np.random.default_rng(0)
    values = [tg.Tensor(float(x), requires_grad=True) for x in rng.normal(size=9)]
    for _ in range(600):
        i, j = rng.integers(len(values) - 9, len(values), 2)
        values.append(tg.tanh(values[i] + values[j]))
    page = tg.graph(tg.sum(tg.stack(values))).to_html()
    boxes, _ = drawn(page)
    assert 100 < len(boxes) <= 300
    assert re.search(r"\d+ boxes of [\d,]+ nodes, collapsed to \d+ groups of nodes that follow each other", page)


def test_hostile_names_stay_text() -> None:
    x = tg.Tensor([1.0], requires_grad=True)
    loss = (x * 2).sum()
    page = tg.graph(loss, names={HOSTILE: x, HOSTILE + "loss": loss}).to_html()
    boxes, _ = drawn(page)
    assert boxes[0].get("aria-label").startswith(HOSTILE.replace("\x00", "\ufffd"))
    shown = tg.graph(loss, names={HOSTILE: x})._repr_html_()
    frame = Balanced(shown)
    assert frame.seen == {"iframe": 1}
    assert dict(frame.attributes)["srcdoc"] == tg.graph(loss, names={HOSTILE: x}).to_html()


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    x = tg.Tensor([1.0], requires_grad=True)
    text = tg.graph(x * 2).to_html(tmp_path / "graph.html")
    assert (tmp_path / "graph.html").read_text("utf-8") == text and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tg.graph(x * 2).to_html(tmp_path / "nowhere" / "graph.html")


def test_without_igraph_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "igraph", None)
    x = tg.Tensor([1.0], requires_grad=True)
    shown = tg.graph(x * 2)
    assert "multiply" in shown.to_mermaid() and "multiply" in shown.to_dot()
    with pytest.raises(ImportError, match=r"pip install 'tinygrad_mnist\[graph\]'"):
        shown.to_html()
