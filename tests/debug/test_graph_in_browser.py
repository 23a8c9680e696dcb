"""The page of a graph in a real browser: Debian's chromium, driven by selenium.

TINYGRAD_MNIST_BROWSER=required lets the tests fail where the browser is missing; TINYGRAD_MNIST_SCREENSHOTS=DIR keeps
pictures of the page.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from PIL import Image

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet

pytest.importorskip("igraph", reason="igraph is not installed (the extra graph)")
pytestmark = pytest.mark.slow

SCREENSHOTS = os.environ.get("TINYGRAD_MNIST_SCREENSHOTS")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The 21 layers, forward and backward, with a profile."""
    model = DeepConvNet(np.random.default_rng(0))
    images, labels = tg.data.synthetic_digits(4, rng=np.random.default_rng(0))
    with tg.Profile() as profile:
        loss = model.loss(images, labels, rng=np.random.default_rng(0))
        tg.grad(loss, tg.nn.parameters(model).values())
    path = tmp_path_factory.mktemp("graph") / "graph.html"
    tg.graph(loss, model, backward=True, profile=profile).to_html(path)
    return path.as_uri()


class GraphPage(browser.Page):
    """The page of a graph in the browser."""

    def open(self, width: int = 1280, height: int = 900, theme: str = "light", motion: str = "no-preference") -> None:
        self.size(width, height)
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.driver.get(self.address)

    def view(self) -> list[float]:
        """Left, top, width and height of what is seen, in units of the picture."""
        return [float(x) for x in self.js("return document.querySelector('svg').getAttribute('viewBox')").split()]

    def box(self, place: str) -> list[float]:
        """Left, top, right and bottom of an element in the window."""
        text = "const r = document.querySelector(arguments[0]).getBoundingClientRect();"
        return list(self.js(f"{text} return [r.left, r.top, r.right, r.bottom]", place))

    def move_to(self, place: str) -> None:
        left, top, right, bottom = self.box(place)
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=(left + right) / 2, y=(top + bottom) / 2)

    def colour(self, place: str, name: str) -> str:
        return str(self.js(f"return getComputedStyle(document.querySelector(arguments[0])).{name}", place))

    def keep_picture(self, name: str) -> Image.Image:
        picture = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        if SCREENSHOTS:
            picture.save(Path(SCREENSHOTS, f"graph-{name}.png"))
        return picture


@pytest.fixture
def page(driver: Any, address: str) -> Iterator[GraphPage]:
    """Open the page; after the test nothing has gone wrong in it, and nothing else was loaded."""
    page = GraphPage(driver, address)
    page.open()
    yield page
    assert page.errors() == []
    assert page.hosts() == set()


def test_wheel_buttons_and_keys_zoom_and_move(page: GraphPage) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    first = page.view()
    place = page.box("#n9")
    x, y = (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
    page.command("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-300)
    WebDriverWait(page.driver, 10).until(lambda driver: page.view()[2] < 0.8 * first[2], "the wheel zooms in")
    left, top, right, bottom = page.box("#n9")
    assert right - left > 1.2 * (place[2] - place[0]), "the boxes are larger"
    assert abs((left + right) / 2 - x) < 2 and abs((top + bottom) / 2 - y) < 2, "what is under the mouse stays there"
    closer = page.view()
    page.click("smaller")
    assert page.view()[2] > closer[2]
    page.click("larger")
    assert page.view()[2] == pytest.approx(closer[2])
    page.keys("-")
    assert page.view()[2] == pytest.approx(closer[2] * 1.3)
    page.keys("0")
    whole, frame = page.box(".nodes"), page.box("main")
    assert frame[0] <= whole[0] and whole[2] <= frame[2] and frame[1] <= whole[1] and whole[3] <= frame[3]
    before = page.view()
    page.drag([(400, 400), (430, 420), (460, 440)])
    assert page.view()[0] < before[0] and page.view()[2] == pytest.approx(before[2])


def test_the_mouse_and_the_keyboard_show_shapes(page: GraphPage) -> None:
    from selenium.webdriver import Keys

    assert page.text("details") == ""
    convolution = page.js(
        "return [...document.querySelectorAll('.nodes g')].find(g => /conv_output/.test(g.textContent)).id"
    )
    page.move_to(f"#{convolution}")
    shown = page.text("details").splitlines()
    assert shown[0] == "conv_output" and "shape: (4, 16, 26, 26), float32" in shown and "FLOPs: 821,912" not in shown
    assert f"FLOPs: {2 * 4 * 16 * 26 * 26 * 9 + 4 * 16 * 26 * 26:,}" in shown
    assert any(line.startswith("geometry: ") for line in shown) and any(line.startswith("time: ") for line in shown)
    near = page.js(
        "return [...document.querySelectorAll('path.near')].map(path => [path.dataset.from, path.dataset.to])"
    )
    assert near and all(convolution in ends for ends in near)
    page.command("Input.dispatchMouseEvent", type="mouseMoved", x=5, y=5)
    assert page.text("details") == ""
    seen = set()
    for _ in range(24):  # from control to control, and from box to box, also where they are out of sight
        page.keys(Keys.TAB)
        inside = "const a = document.activeElement; return a.closest('.nodes') ? a.id : ''"
        if id := page.js(inside):
            seen.add(id)
            left, top, right, bottom = page.box(f"#{id}")
            frame = page.box("main")
            assert frame[0] - 1 <= left and right <= frame[2] + 1 and frame[1] - 1 <= top and bottom <= frame[3] + 1
            assert page.text("details").splitlines()[1:]
    assert len(seen) > 12


def test_colours_show_time_memory_and_flops(page: GraphPage) -> None:
    from selenium.webdriver.common.by import By

    for name in ("flops", "memory", "time", "kind"):
        page.driver.find_element(By.CSS_SELECTOR, f"input[value={name}]").click()
        legends = (
            "return [...document.querySelectorAll('.legend')].filter(p => p.checkVisibility()).map(p => p.dataset.for)"
        )
        assert page.js(legends) == [name]
        if name == "kind":
            continue
        share = f"g => Number(getComputedStyle(g).getPropertyValue('--{name}'))"
        boxes = "[...document.querySelectorAll('.nodes g')]"
        most = page.js(f"return {boxes}.sort((a, b) => ({share})(b) - ({share})(a))[0].id")
        least = page.js(f"return {boxes}.sort((a, b) => ({share})(a) - ({share})(b))[0].id")
        assert page.colour(f"#{most} rect", "fill") != page.colour(f"#{least} rect", "fill")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_is_legible_in_both_themes_and_fits(page: GraphPage, theme: str, width: int) -> None:
    page.open(width, 800, theme)
    assert page.js("return document.documentElement.scrollWidth") <= width, "nothing is cut off at the right"
    assert page.box("main")[3] - page.box("main")[1] > 400, "the picture has most of the height"
    for button in ("smaller", "larger", "all"):
        left, _, right, _ = page.box(f"#{button}")
        assert 0 <= left and right <= width and right - left >= 30
    picture = np.asarray(page.keep_picture(f"{theme}-{width}"), dtype=float).mean(axis=2)
    dark = np.median(picture[200:]) < 128
    assert dark == (theme == "dark")
    title = [float(x) for x in page.colour(".title", "fill").strip("rgb()").split(",")]
    box = [float(x) for x in page.colour(".op rect", "fill").strip("rgb()").split(",")]
    assert abs(np.mean(title) - np.mean(box)) > 120, "text stands out from its box"
    page.js("document.querySelector('.nodes g').focus()")
    left, _, right, bottom = page.box("#details")
    assert 0 <= left and right <= width and bottom <= 800
