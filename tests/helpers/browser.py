"""Chromium without a window, and the page of scripts/draw.py in it as a person uses it."""

from __future__ import annotations

import base64
import importlib.util
import io
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from PIL import Image
from strokes import DIGITS, Stroke, path

WIDTH = 400  # of the sheet, in its own units


def missing() -> list[str]:
    """Name what these tests need and this machine lacks."""
    programs = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return [*programs, *([] if importlib.util.find_spec("selenium") else ["selenium (pip install selenium)"])]


def decode(url: str) -> npt.NDArray[np.uint8]:
    """Pixels (H, W, 4) of a picture in a data: address."""
    data = base64.b64decode(url.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def start() -> Any:
    """Start the browser; it needs no display and takes no files from outside."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


class Page:
    """The page in the browser."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver, self.address = driver, address

    # Window -----------------------------------------------------------------------------------------------------------
    def open(self, width: int = 1280, height: int = 900, theme: str = "light", motion: str = "no-preference") -> None:
        self.size(width, height)
        features = {"prefers-color-scheme": theme, "prefers-reduced-motion": motion}
        self.command("Emulation.setEmulatedMedia", features=[{"name": n, "value": v} for n, v in features.items()])
        self.driver.get(self.address)
        self.wait(lambda: self.js("return document.getElementById('model').options.length"), "the models")

    def size(self, width: int, height: int) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def command(self, name: str, **values: Any) -> Any:
        """Give a command of the developer protocol."""
        return self.driver.execute_cdp_cmd(name, values)

    def js(self, text: str, *values: Any) -> Any:
        return self.driver.execute_script(text, *values)

    def wait(self, reached: Callable[[], Any], what: str, seconds: float = 30) -> Any:
        until = time.monotonic() + seconds
        while not (value := reached()):
            if time.monotonic() > until:
                shown = f"{self.digits()}, {self.text('problem')!r}"
                raise AssertionError(f"{what}: not within {seconds} s; shown are {shown}")
            time.sleep(0.02)
        return value

    def hosts(self) -> set[str]:
        """Hosts that the page has asked; of others the browser knows no address, and a request to them is an error."""
        names = self.js("return performance.getEntriesByType('resource').map(entry => entry.name)")
        return {urlsplit(name).netloc for name in names if not name.startswith(("data:", "blob:"))}

    def errors(self) -> list[str]:
        """Lines of the console, from warnings upward, since this was called last."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    # What is shown ----------------------------------------------------------------------------------------------------
    def text(self, id: str) -> str:
        """What an element shows; nothing where it is hidden."""
        shown = "const e = document.getElementById(arguments[0]); return e.checkVisibility() ? e.innerText : ''"
        return str(self.js(shown, id)).strip()

    def value(self, id: str) -> str:
        return str(self.js("return document.getElementById(arguments[0]).value", id))

    def digits(self) -> list[str]:
        """All digits that were found."""
        return list(self.js("return [...document.querySelectorAll('#seen span')].map(part => part.textContent)"))

    def bars(self) -> list[str]:
        return list(self.js("return [...document.querySelectorAll('#bars .value')].map(part => part.textContent)"))

    def pixels(self, id: str) -> npt.NDArray[np.uint8]:
        """Red, green, blue and alpha (H, W, 4) of a canvas."""
        return decode(self.js("return document.getElementById(arguments[0]).toDataURL()", id))

    def maps(self) -> list[list[npt.NDArray[np.uint8]]]:
        """All feature maps of each layer."""
        layers = self.js(
            "return [...document.querySelectorAll('#layers section')]"
            ".map(part => [...part.querySelectorAll('canvas')].map(map => map.toDataURL()))"
        )
        return [[decode(url) for url in layer] for layer in layers]

    def read(self, digits: str) -> None:
        """Wait until all that was drawn is read, and is these digits."""
        busy = "return document.getElementById('answer').ariaBusy === 'true'"
        self.wait(lambda: self.digits() == list(digits) and not self.js(busy), f"the digits {digits}")

    # What is done -----------------------------------------------------------------------------------------------------
    def click(self, id: str) -> None:
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.ID, id).click()

    def keys(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def with_control(self, key: str) -> None:
        from selenium.webdriver import ActionChains, Keys

        ActionChains(self.driver).key_down(Keys.CONTROL).send_keys(key).key_up(Keys.CONTROL).perform()

    def place(self) -> tuple[float, float, float]:
        """Left and top of the sheet in the window, and the size of one of its units."""
        self.js("document.getElementById('paper').scrollIntoView({block: 'nearest'})")
        box = "const r = document.getElementById('paper').getBoundingClientRect(); return [r.left, r.top, r.width]"
        left, top, width = self.js(box)
        return left, top, width / WIDTH

    def draw(
        self, digit: int | list[Stroke], left: float = 150, top: float = 50, height: float = 200, **pointer: Any
    ) -> None:
        """Draw a digit with the mouse, or as `pointer` says."""
        x0, y0, scale = self.place()
        for stroke in DIGITS[digit][0] if isinstance(digit, int) else digit:
            points = [(x0 + scale * x, y0 + scale * y) for x, y in path(stroke, left, top, height, spacing=24)]
            self.drag(points, **pointer)

    def drag(self, points: Sequence[tuple[float, float]], **pointer: Any) -> None:
        """Move the pressed pointer through points of the window."""
        held = {"button": "left", "buttons": 1, "clickCount": 1, **pointer}
        self.command("Input.dispatchMouseEvent", type="mousePressed", x=points[0][0], y=points[0][1], **held)
        for x, y in points[1:]:
            self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, **held)
        last = {**held, "buttons": 0}
        self.command("Input.dispatchMouseEvent", type="mouseReleased", x=points[-1][0], y=points[-1][1], **last)
