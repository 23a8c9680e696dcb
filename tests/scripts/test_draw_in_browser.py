"""The page of `scripts/draw.py` in a real browser: Debian's chromium, driven by selenium.

TINYGRAD_MNIST_BROWSER=required lets the tests fail where the browser is missing; TINYGRAD_MNIST_SCREENSHOTS=DIR keeps
pictures of the page.
"""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from browser import Page
from PIL import Image, ImageDraw
from strokes import DIGITS, path

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from models.mlp import MLP
from models.pretrained import SHIPPED, describe, load_classifier

pytestmark = pytest.mark.slow

DRAW = Path(__file__).parents[2] / "scripts" / "draw.py"
SCREENSHOTS = os.environ.get("TINYGRAD_MNIST_SCREENSHOTS")


def write_run(run: Path, model: Any, description: dict[str, str], weights: str = "weights.safetensors") -> None:
    """Write weights as a run of train_mnist.py leaves them."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text("{}")
    tg.checkpoint.save_weights(run / weights, tg.nn.state_dict(model), description)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a run with two epochs, an MLP and the shipped weights."""
    folder = tmp_path_factory.mktemp("draw")
    run = folder / "runs" / "final0"
    untrained = DeepConvNet(np.random.default_rng(0))
    write_run(run, untrained, describe("deep_convnet.DeepConvNet"), "weights-epoch-1.safetensors")
    shutil.copy(SHIPPED, run / "weights-epoch-2.safetensors")
    shutil.copy(SHIPPED, run / "weights.safetensors")
    write_run(folder / "runs" / "mlp", MLP(rng=np.random.default_rng(0)), describe("mlp.MLP"))
    command = [sys.executable, str(DRAW), "--no-browser", "--port", "0", "--run", "runs/final0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        yield re.search(r"http://\S+", process.stdout.readline())[0]
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture
def page(driver: Any, address: str) -> Iterator[Page]:
    """Open the page; after the test nothing has gone wrong in it, and no other host was asked."""
    page = Page(driver, address)
    page.open()
    yield page
    assert page.errors() == []
    assert page.hosts() == {address.split("/")[2]}
    driver.get("about:blank")


def choose(page: Page, model: str) -> None:
    """Choose the model whose label has this text."""
    page.js(
        "const s = document.getElementById('model'), named = o => o.text.includes(arguments[0]);"
        "s.value = [...s.options].find(named).value; s.dispatchEvent(new Event('change'))",
        model,
    )


# Drawing --------------------------------------------------------------------------------------------------------------
def test_drawn_digits_are_read_while_they_are_drawn(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    page.js(
        "const bars = document.getElementById('bars'); window.times = [];"
        "new MutationObserver(() => window.times.push(Number(bars.dataset.milliseconds)))"
        ".observe(bars, {attributeFilter: ['data-milliseconds']})"
    )
    for digit, variants in DIGITS.items():
        for variant in variants:
            page.draw(variant)
            page.read(str(digit))
            assert page.text("digit") == str(digit)
            page.click("clear")
            assert page.digits() == [] and page.text("digit") == "–"
    times = page.js("return window.times")
    with capsys.disabled():
        ranked = sorted(times)
        print(f"\nfrom pointer to bars: median {median(times):.0f} ms, 95 % {ranked[int(0.95 * len(ranked))]:.0f} ms")
    assert len(times) > 100  # they move with the pen: not once for each digit
    if "PYTEST_XDIST_WORKER" not in os.environ:  # other tests run beside it; .ci/run runs it alone once more
        assert median(times) < 250


def test_a_finger_draws(page: Page) -> None:
    left, top, scale = page.place()
    for stroke in DIGITS[4][0]:
        points = [(left + scale * x, top + scale * y) for x, y in path(stroke, 150, 50, 200)]
        for i, (x, y) in enumerate(points):
            name = "touchMove" if i else "touchStart"
            page.command("Input.dispatchTouchEvent", type=name, touchPoints=[{"x": x, "y": y}])
        page.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    page.read("4")


def test_a_stylus_that_is_pressed_more_draws_wider(page: Page) -> None:
    inks = []
    for force in (0.1, 0.9):
        page.draw(1, pointerType="pen", force=force)
        page.read("1")
        page.wait(lambda: page.js("return new Promise(requestAnimationFrame)"), "a frame")
        inks.append((page.pixels("paper")[..., 3] > 128).sum())
        page.click("clear")
    assert inks[1] > 1.5 * inks[0] > 0


def test_small_digits_are_read(page: Page) -> None:
    for digit in (3, 5, 8):
        page.draw(digit, left=40 * digit, height=60)
    page.read("358")


def test_several_digits_are_found_and_chosen(page: Page) -> None:
    for digit, left in ((4, 20), (0, 150), (7, 280)):
        page.draw(digit, left=left, height=150)
    page.read("407")
    assert page.text("digit") == "7"  # drawn last
    page.wait(lambda: page.pixels("saliency").any(), "the reasons for the 7")
    seven = page.pixels("saliency")
    page.js("document.querySelector('#seen input:checked').focus()")
    page.keys("\ue012")  # arrow left
    assert page.text("digit") == "0" and "4 0 7" in page.text("note")
    page.wait(lambda: (page.pixels("saliency") != seven).any(), "the reasons for the 0")
    assert "the 0" in page.text("reasons")
    assert page.js("return [...document.querySelectorAll('#seen input')].map(part => part.checked)") == [0, 1, 0]


def test_everything_can_be_done_with_keys(page: Page) -> None:
    from selenium.webdriver import Keys

    reached: list[str] = []
    while len(reached) < 60 and not (reached and reached[-1] == "BODY"):
        page.keys(Keys.TAB)
        reached.append(page.js("const a = document.activeElement; return a.id || a.name || a.tagName"))
        outline = page.js(
            "const a = document.activeElement;"
            "return [a, a.closest('label') ?? a].map(part => getComputedStyle(part).outlineStyle)"
        )
        assert reached[-1] == "BODY" or "solid" in outline, f"the focus of {reached[-1]} is not visible"
        if reached[-1] == "paper":
            page.keys(Keys.SPACE, *[Keys.ARROW_DOWN] * 16, Keys.SPACE, Keys.ARROW_RIGHT)
            page.read("1")
            page.keys(Keys.ARROW_DOWN)  # the pen is up: no ink
    assert {"model", "theme", "play", "epoch", "paper", "undo", "clear", "open", "seen", "target", "SUMMARY"} <= set(
        reached
    )
    page.read("1")
    page.wait(lambda: page.text("said").startswith("Reads 1, "), "it is said")
    page.with_control("z")
    assert page.digits() == [] and page.text("sure") == "Draw a digit"
    page.with_control("y")
    page.read("1")
    page.keys(Keys.DELETE)
    assert page.digits() == []
    page.with_control("z")
    page.read("1")
    page.js("document.getElementById('theme').focus()")
    page.keys(Keys.ENTER)
    assert page.js("return document.documentElement.dataset.theme") == "dark"
    page.driver.refresh()
    assert page.js("return document.documentElement.dataset.theme") == "dark"  # it is remembered
    page.wait(lambda: page.value("model"), "the models")
    page.draw(1)
    page.read("1")
    page.js("document.getElementById('theme').focus()")
    page.keys(Keys.ENTER)
    assert page.js("return document.documentElement.dataset.theme") == "light"
    page.js("document.getElementById('model').focus()")
    before, bars = page.value("model"), page.bars()
    page.keys(Keys.ARROW_DOWN)
    page.wait(lambda: page.value("model") != before, "another model")
    page.wait(lambda: page.bars() != bars, "its answer to the same drawing")


def test_everything_that_takes_keys_has_a_name_and_answers_are_said(page: Page) -> None:
    page.draw(8)
    page.read("8")
    nodes = page.command("Accessibility.getFullAXTree")["nodes"]
    named = {}
    for node in nodes:
        focusable = any(part["name"] == "focusable" and part["value"]["value"] for part in node.get("properties", []))
        if focusable and node["role"]["value"] != "RootWebArea":
            named.setdefault(node["role"]["value"], []).append(node["name"]["value"].strip())
    assert {"combobox", "slider", "button", "radio"} <= named.keys()
    assert all(name for names in named.values() for name in names), named
    assert any("Arrow keys" in name for names in named.values() for name in names)
    page.wait(lambda: page.text("said").startswith("Reads 8, "), "it is said")
    assert page.js("return document.getElementById('said').ariaLive") == "polite"


# Pictures -------------------------------------------------------------------------------------------------------------
def picture() -> bytes:
    """A 2 and a 5 in blue on cream."""
    image = Image.new("RGB", (900, 500), (250, 244, 226))
    ink = ImageDraw.Draw(image)
    for digit, left in ((2, 150), (5, 500)):
        for stroke in DIGITS[digit][0]:
            for x, y in path(stroke, left, 80, 330, spacing=2):
                ink.ellipse((x - 14, y - 14, x + 14, y + 14), fill=(40, 50, 140))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


SEND = """
const bytes = Uint8Array.from(atob(arguments[1]), letter => letter.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], "picture.png", {type: "image/png"}));
const event = arguments[0] === "paste"
  ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
  : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
document.getElementById("paper").dispatchEvent(event);
"""


def send(page: Page, how: str, data: bytes) -> None:
    page.js(SEND, how, base64.b64encode(data).decode())


@pytest.mark.parametrize("how", ["paste", "drop"])
def test_a_picture_is_read_and_its_digits_are_chosen_by_a_click(page: Page, how: str) -> None:
    send(page, how, picture())
    page.read("25")
    left, top, scale = page.place()
    for x, digit in ((300, "5"), (110, "2")):
        page.drag([(left + scale * x, top + scale * 210)])  # near their feet
        assert page.text("digit") == digit
    page.draw(3)
    page.read("3")
    page.click("undo")
    page.read("25")


def test_a_picture_that_cannot_be_read_is_told_and_forgotten(page: Page) -> None:
    send(page, "drop", b"\x89PNG\r\n\x1a\n" + bytes(50))
    message = page.wait(lambda: page.text("problem"), "a message")
    assert "\n" not in message and "Error" not in message
    page.draw(6)
    page.read("6")
    assert page.text("problem") == ""
    assert [("422" in line) for line in page.errors()] == [True]


@pytest.mark.parametrize("kind", ["jpg", "tif"])
def test_a_file_is_opened_with_the_button(page: Page, tmp_path: Path, kind: str) -> None:
    from selenium.webdriver.common.by import By

    file = tmp_path / f"25.{kind}"
    Image.open(io.BytesIO(picture())).save(file)
    page.driver.find_element(By.ID, "file").send_keys(str(file))
    page.read("25")
    assert ("cannot show" in page.text("note")) == (kind == "tif")


# Reasons --------------------------------------------------------------------------------------------------------------
def test_the_maps_of_every_convolution_are_shown(page: Page) -> None:
    page.draw(8)
    page.read("8")
    found = tg.explain.feature_maps(load_classifier().model, np.zeros((1, 28, 28), np.uint8))
    expected = [f"{name}, {' × '.join(map(str, values.shape[1:]))}" for name, values in found]
    names = "return [...document.querySelectorAll('#layers section')].map(part => part.dataset.name)"
    page.wait(lambda: page.js(names), "the maps")
    assert len(expected) == 6 and page.js(names) == expected
    maps = page.maps()
    assert [(len(layer), *layer[0].shape[:2]) for layer in maps] == [values.shape[1:] for _, values in found]
    assert all(np.array(layer).any() for layer in maps)
    assert page.pixels("saliency").any() and page.pixels("occlusion").any()
    page.click("clear")
    assert not page.js(names) and not page.pixels("saliency").any() and not page.text("ascended")


def test_a_model_without_convolutions_is_explained_as_well(page: Page) -> None:
    page.draw(8)
    choose(page, "MLP")
    page.wait(lambda: "no convolution" in page.text("no-layers"), "the message")
    assert page.pixels("saliency").any() and page.js("return document.getElementById('epochs').hidden")


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_the_image_is_changed_until_it_is_another_digit(page: Page, motion: str) -> None:
    page.open(motion=motion)
    page.draw(7)
    page.read("7")
    before = page.pixels("changed")
    page.js("document.querySelector('#targets input[value=\"3\"]').click()")
    page.wait(lambda: page.text("ascended").endswith("read as 3"), "a 3", seconds=30)
    if page.text("ascend") == "Stop":
        page.click("ascend")
    steps = page.text("ascended")
    assert (page.pixels("changed") != before).any()
    page.wait(lambda: page.js("return new Promise(done => setTimeout(() => done(true), 300))"), "a pause")
    assert page.text("ascended") == steps  # it has stopped
    page.click("reset")
    assert (page.pixels("changed") == before).all() and page.text("ascended").endswith(" 0 steps; read as 7")


# Epochs, models, tabs -------------------------------------------------------------------------------------------------
def test_the_epochs_of_a_run_read_the_same_drawing(page: Page) -> None:
    page.draw(5)
    page.read("5")
    end = page.bars()
    page.click("play")
    page.wait(lambda: page.text("epoch-name") == "epoch 1", "the first epoch")
    page.wait(lambda: page.bars() not in (end, [""] * 10), "the answer of the first epoch")
    page.wait(lambda: page.text("epoch-name") == "the selected epoch" and page.text("play") != "Stop", "the end")
    page.wait(lambda: page.bars() == end, "the answer of the end")
    page.js("document.getElementById('epoch').focus()")
    page.keys("\ue011")  # Home
    page.wait(lambda: page.text("epoch-name") == "epoch 1" and page.bars() != end, "the first epoch")


def test_the_accuracy_of_the_shipped_weights_is_shown(page: Page) -> None:
    choose(page, "models/")
    told = float(load_classifier().metadata["accuracy"].split()[0])
    assert page.text("accuracy") == f"accuracy {100 * told:.2f} %"


def test_tabs_do_not_disturb_each_other(page: Page) -> None:
    page.draw(2)
    page.read("2")
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    page.open()
    page.draw(9)
    page.read("9")
    page.driver.close()
    page.driver.switch_to.window(first)
    page.read("2")
    page.click("undo")
    assert page.digits() == []


def test_a_lost_connection_is_told_until_it_is_back(page: Page) -> None:
    page.command("Network.enable")
    gone = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.command("Network.emulateNetworkConditions", offline=True, **gone)
    place = page.place()
    page.draw(3)
    page.wait(lambda: "does not answer" in page.text("problem"), "a message")
    assert page.place() == place  # the sheet has not moved under the pen
    page.command("Network.emulateNetworkConditions", offline=False, **gone)
    page.read("3")
    assert page.text("problem") == ""
    assert all("ERR_INTERNET_DISCONNECTED" in line for line in page.errors())


# Looks ----------------------------------------------------------------------------------------------------------------
CONTRASTS = """
const parts = colour => colour.match(/[\\d.]+/g).map(Number);
const behind = e => {
  for (; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (parts(colour)[3] !== 0) return parts(colour);
  }
};
return [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && !e.closest(".unseen, :disabled")
    && !e.closest(".seen") && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
  .map(e => [e.innerText.slice(0, 30), parts(getComputedStyle(e).color), behind(e)]);
"""


def luminance(colour: list[float]) -> float:
    """Relative luminance as WCAG 2 defines it."""
    linear = [c / 3294.6 if c <= 10.31 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (1280, "dark"), (800, "light"), (360, "dark")])
def test_it_is_legible_in_both_themes_and_fits(page: Page, theme: str, width: int) -> None:
    page.open(width=width, theme=theme)
    for digit, left in ((3, 20), (1, 150), (4, 280)):
        page.draw(digit, left=left, top=70, height=150)
    page.read("314")
    page.js("document.querySelector('#targets input[value=\"9\"]').click()")
    page.wait(lambda: page.text("ascended").endswith("read as 9") and page.text("layers"), "reasons")
    page.js("document.getElementById('ascend').click()")
    keep_screenshot(page, f"{theme}-{width}")
    page.js("document.querySelector('details').open = true")
    assert page.js("return document.documentElement.scrollWidth") <= width
    found = page.js(CONTRASTS)
    ratios = []
    for words, colour, back in found:
        high, low = sorted((luminance(colour), luminance(back)), reverse=True)
        ratios.append(((high + 0.05) / (low + 0.05), words, colour, back))
    assert len(ratios) > 40 and min(ratios)[0] >= 4.5, min(ratios)
    assert (luminance(page.js(CONTRASTS)[0][2]) < 0.1) == (theme == "dark")


def keep_screenshot(page: Page, name: str) -> None:
    """Keep a picture of the whole page, where one is asked for."""
    if SCREENSHOTS is None:
        return
    width = page.js("return innerWidth")
    page.size(width, 925 if width > 1000 else page.js("return document.documentElement.scrollHeight"))
    page.js("return new Promise(done => setTimeout(() => done(true), 300))")
    shot = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
    Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
    shot.quantize(256).save(Path(SCREENSHOTS) / f"{name}.png", optimize=True)
