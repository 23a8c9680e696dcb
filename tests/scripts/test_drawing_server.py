"""The server of draw.py: what it answers, and that no request stops it, however wrong, slow, large or frequent."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import draw
import numpy as np
import pytest
from drawing import catalogue
from drawing.answers import Answers
from drawing.catalogue import Catalogue
from drawing.server import Server
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from models.lenet import LeNet5
from models.pretrained import describe, load_classifier

SCRIPT = Path(__file__).parents[2] / "scripts" / "draw.py"
WHITE, BLACK = 255, 0


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawing() -> np.ndarray:
    """A one and, right of it, an angle."""
    canvas = np.full((120, 200), WHITE, np.uint8)
    canvas[20:100, 40:50] = BLACK
    canvas[20:100, 130:140] = canvas[90:100, 130:180] = BLACK
    return canvas


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that tell digits apart somehow, with a temperature."""
    path = tmp_path_factory.mktemp("weights") / "some.safetensors"
    about = {**describe("deep_convnet.DeepConvNet", depth=4), "temperature": "0.5", "accuracy": "0.25"}
    tg.checkpoint.save_weights(path, tg.nn.state_dict(DeepConvNet(rng(), depth=4)), about)
    return path


@contextlib.contextmanager
def serving(*weights: Path, **options: Any) -> Iterator[Server]:
    with Server(Answers(Catalogue((), weights)), **options) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(weights: Path) -> Iterator[Server]:
    with serving(weights) as server:
        yield server


def ask(server: Server, method: str, path: str, body: Any = None, **headers: str | None) -> tuple[int, Any, Any]:
    """Return status, headers and JSON of a response; a body that is not bytes is sent as JSON, a header None is not."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
    sent = {"X-Token": server.token, "Content-Type": kind, **{n.replace("_", "-"): v for n, v in headers.items()}}
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method, path, data, {name: value for name, value in sent.items() if value is not None})
        response = connection.getresponse()
        content = response.read()
        of_json = method != "HEAD" and response.headers["Content-Type"] == "application/json"
        return response.status, response.headers, json.loads(content) if of_json else content
    finally:
        connection.close()


def raw(server: Server, data: bytes) -> bytes:
    """Send bytes and return all that comes until the server closes; the client sends no more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65_536), b""))


def default(server: Server) -> str:
    return ask(server, "GET", "/api/models")[2]["default"]


def of_canvas(model: str, canvas: np.ndarray) -> dict[str, Any]:
    height, width = canvas.shape
    return {"model": model, "width": width, "height": height, "data": base64.b64encode(canvas.tobytes()).decode()}


def head(server: Server, first: str = "GET /api/models HTTP/1.1", *headers: str) -> bytes:
    lines = [first, f"Host: 127.0.0.1:{server.port}", f"X-Token: {server.token}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


# What it answers ------------------------------------------------------------------------------------------------------
def test_the_page_is_served_with_a_policy_that_lets_nothing_in_from_outside(server: Server) -> None:
    assert server.address == f"http://127.0.0.1:{server.port}/?token={server.token}" and len(server.token) >= 20
    status, headers, page = ask(server, "GET", f"/?token={server.token}", X_Token=None)
    assert status == 200 and headers["Content-Type"].startswith("text/html") and b"<html" in page
    assert "default-src 'self'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    for path, kind in (("/style.css", "text/css"), ("/page.js", "text/javascript")):
        status, headers, _ = ask(server, "GET", path, X_Token=None)
        assert status == 200 and headers["Content-Type"].startswith(kind)


def test_a_drawing_and_a_picture_are_read_as_the_package_reads_them(server: Server, weights: Path) -> None:
    from PIL import Image

    digits, classifier = tg.data.from_image(drawing()), load_classifier(weights)
    logits = classifier.model(digits.images).data.astype(np.float64) / 0.5
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    file = io.BytesIO()
    Image.fromarray(drawing()).save(file, "PNG")
    model = default(server)
    for status, _, answer in (
        ask(server, "POST", "/api/read", of_canvas(model, drawing())),
        ask(server, "POST", f"/api/picture?model={model}", file.getvalue(), Content_Type="image/png"),
    ):
        assert status == 200 and len(answer["digits"]) == len(expected) == 2 and answer["milliseconds"] > 0
        for i, digit in enumerate(answer["digits"]):
            assert np.array_equal(digit["image"], digits.images[i]) and digit["box"] == digits.boxes[i].tolist()
            np.testing.assert_allclose(digit["probabilities"], expected[i], atol=1e-5)
            assert digit["digit"] == expected[i].argmax() and digit["touching"] is bool(digits.touching[i])


def test_an_empty_canvas_has_no_digits_and_a_reason(server: Server) -> None:
    status, _, answer = ask(server, "POST", "/api/read", of_canvas(default(server), np.full((9, 9), 255, np.uint8)))
    assert status == 200 and answer["digits"] == [] and answer["message"]


def test_a_picture_of_too_many_pixels_is_refused_by_its_size(server: Server) -> None:
    status, _, answer = ask(server, "POST", f"/api/picture?model={default(server)}", b"P5 5001 5000 255\n")
    assert status == 422 and "25000000" in answer["error"]


def test_pictures_that_take_long_do_not_keep_drawings_waiting(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, from_image = threading.Event(), tg.data.from_image

    def slowly(image: Any, **keywords: Any) -> tg.data.Digits:
        if isinstance(image, bytes):
            assert done.wait(20)
        return from_image(drawing(), **keywords)

    monkeypatch.setattr(tg.data, "from_image", slowly)
    with serving(weights, seconds=0.5) as server, ThreadPoolExecutor(3) as pool:
        model = default(server)
        answers = [pool.submit(ask, server, "POST", f"/api/picture?model={model}", b"x") for _ in range(3)]
        assert ask(server, "POST", "/api/read", of_canvas(model, drawing()))[0] == 200
        finished = as_completed(answers, timeout=20)
        assert [next(finished).result()[0] for _ in range(2)] == [429, 429]
        done.set()
        assert next(finished).result()[0] == 200


def test_answers_are_explained(server: Server, weights: Path) -> None:
    image = tg.data.from_image(drawing()).images[:1]
    asked = {"model": default(server), "image": image[0].tolist(), "target": None}
    model = load_classifier(weights).model
    for target in (None, 3):
        status, _, answer = ask(server, "POST", "/api/explain", {**asked, "target": target})
        assert status == 200
        winner = int(model(image).data.argmax())
        assert answer["target"] == (winner if target is None else target)
        for name, function in (("saliency", tg.explain.saliency), ("occlusion", tg.explain.occlusion)):
            expected = function(model, image, answer["target"])[0]
            np.testing.assert_allclose(answer[name], expected, atol=5.1e-5 * np.abs(expected).max())
        expected = tg.explain.feature_maps(model, image)
        assert [(layer["name"], tuple(layer["shape"])) for layer in answer["layers"]] == [
            (name, values.shape[1:]) for name, values in expected
        ]
        for layer, (_, values) in zip(answer["layers"], expected, strict=True):
            scaled = np.frombuffer(b"".join(map(base64.b64decode, layer["maps"])), np.uint8).reshape(layer["shape"])
            step = (layer["high"] - layer["low"]) / 255
            np.testing.assert_allclose(layer["low"] + step * scaled, values[0], atol=0.51 * step)


def test_an_image_is_moved_towards_another_digit_step_by_step(server: Server, weights: Path) -> None:
    image = tg.data.from_image(drawing()).images[0]
    asked = {"model": default(server), "image": image.tolist(), "target": 3}
    _, _, once = ask(server, "POST", "/api/ascend", {**asked, "steps": 2})
    _, _, more = ask(server, "POST", "/api/ascend", {**asked, "steps": 8, "image": once["image"]})
    before = ask(server, "POST", "/api/ascend", {**asked, "steps": 1})[2]["probabilities"][3]
    assert before < once["probabilities"][3] < more["probabilities"][3]
    expected = 255 * tg.explain.ascend(load_classifier(weights).model, image[None] / np.float32(255), 3, steps=2)[0]
    np.testing.assert_allclose(once["image"], expected, atol=0.006)


def test_runs_their_epochs_and_other_models_are_offered_as_they_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "RUNS", tmp_path / "runs")
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    lenet = tmp_path / "lenet.safetensors"
    tg.checkpoint.save_weights(lenet, tg.nn.state_dict(LeNet5(rng())), describe("lenet.LeNet5"))
    with serving(lenet) as server:

        def listed() -> list[dict[str, Any]]:
            answer = ask(server, "GET", "/api/models")[2]
            assert answer["models"][0]["id"] == answer["default"]
            return [entry for entry in answer["models"] if not entry["label"].startswith("models/")]

        assert [entry["label"] for entry in listed()] == [f"{lenet} (lenet.LeNet5)"]
        about = {**describe("deep_convnet.DeepConvNet"), "accuracy": "0.9 on all 10,000 test images"}
        answers = []
        for epoch in (1, 2):
            tg.checkpoint.save_weights(
                run / f"weights-epoch-{epoch}.safetensors", tg.nn.state_dict(DeepConvNet(rng(epoch))), about
            )
            _, entry = listed()
            assert entry["label"] == f"{run} (deep_convnet.DeepConvNet)" and entry["accuracy"] == 0.9
            assert [kept["epoch"] for kept in entry["epochs"]] == [*range(1, epoch + 1)]
            assert entry["id"] == entry["epochs"][-1]["id"], "until the run has ended, its newest weights"
            assert not any(character in entry["id"] for character in "/\\.")
            status, _, answer = ask(server, "POST", "/api/read", of_canvas(entry["id"], drawing()))
            assert status == 200
            answers.append(answer["digits"][0]["probabilities"])
        assert answers[0] != answers[1]
        tg.checkpoint.save_weights(run / "weights-epoch-1.safetensors", tg.nn.state_dict(DeepConvNet(rng(2))), about)
        again = ask(server, "POST", "/api/read", of_canvas(entry["epochs"][0]["id"], drawing()))[2]
        assert again["digits"][0]["probabilities"] == answers[1], "a file that has changed is loaded anew"
        (run / "weights-epoch-2.safetensors").write_bytes(b"damaged")
        other = tmp_path / "runs" / "two\nlines" / "weights.safetensors"
        other.parent.mkdir()
        other.write_bytes(b"damaged")
        os.utime(other, (0, 0))
        _, entry, odd = listed()
        assert "error" in entry and entry["model"] is None
        status, _, answer = ask(server, "POST", "/api/read", of_canvas(odd["id"], drawing()))
        assert status == 422 and "\n" not in answer["error"]
        status, _, answer = ask(server, "POST", "/api/read", of_canvas(entry["id"], drawing()))
        assert status == 422 and "weights-epoch-2.safetensors" in answer["error"]


def test_the_newest_run_that_can_be_read_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "RUNS", tmp_path)
    for name, age in (("a", 2), ("b", 1), ("c", 3), ("damaged", 0), ("empty", None)):
        (tmp_path / name).mkdir()
        if age is not None:
            path = tmp_path / name / "weights.safetensors"
            tg.checkpoint.save_weights(path, tg.nn.state_dict(LeNet5(rng())), describe("lenet.LeNet5"))
            if name == "damaged":
                path.write_bytes(path.read_bytes()[:-1])
            os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "a" / "weights-epoch-0.33.safetensors").write_bytes(b"")
    answer = Answers(Catalogue((tmp_path / "c",))).models()
    names = [entry["label"].removeprefix(f"{tmp_path}/").split()[0] for entry in answer["models"]]
    assert names[:4] == ["c", "damaged", "b", "a"] and not {"c", "empty"} & set(names[4:])
    assert answer["default"] == answer["models"][0]["id"], "that of the command line"
    assert [kept["epoch"] for kept in answer["models"][3]["epochs"]] == [0.33]
    answer = Answers(Catalogue()).models()
    assert "error" in answer["models"][0] and answer["default"] == answer["models"][1]["id"]


def test_a_network_whose_numbers_are_not_finite_is_no_failure_of_the_server(tmp_path: Path) -> None:
    model = DeepConvNet(rng())
    for p in tg.nn.parameters(model).values():
        p.data[:] = 1e30
    tg.checkpoint.save_weights(tmp_path / "large.safetensors", tg.nn.state_dict(model))
    with serving(tmp_path / "large.safetensors") as server:
        asked = {"model": default(server), "image": [[0] * 28] * 28, "target": 1, "steps": 1}
        for path in ("/api/explain", "/api/ascend"):
            status, _, answer = ask(server, "POST", path, asked)
            assert status == 422 and "finite" in answer["error"], path
        status, _, answer = ask(server, "POST", "/api/read", of_canvas(asked["model"], drawing()))
        assert status == 422 and "finite" in answer["error"]


# What it refuses ------------------------------------------------------------------------------------------------------
IMAGE = [[0.5] * 28] * 28
CANVAS = {"width": 2, "height": 2, "data": "AAAAAA=="}
ASKED = {"model": "$", "image": IMAGE, "target": 1, "steps": 1}
WRONG_CANVASES: list[dict[str, Any]] = [
    {"width": 1},
    {"width": 3},
    {"width": 0, "height": 0, "data": ""},
    {"width": 2.0},
    {"width": True},
    {"height": "2"},
    {"height": 513},
    {"width": 10**30},
    *({"data": data} for data in (None, "AAAA", "AA AA AA==", "AAAAAA==AA", "\u00e4\u00f6", "\ud800")),
    {"model": 1},
    {"model": None},
]
WRONG_PIXELS = [-1, 255.01, float("nan"), float("inf"), True, "1", None, [0.5], 10**400]
WRONG_IMAGES: list[dict[str, Any]] = [
    *({"image": image} for image in (None, [], {"0": IMAGE}, IMAGE[:27], [*IMAGE[:27], [0.5] * 29])),
    *({"image": [[0.5] * 28] * 27 + [[0.5] * 27 + [pixel]]} for pixel in WRONG_PIXELS),
    *({"target": target} for target in (10, -1, 1.0, "1", True)),
]
WRONG_STEPS: list[dict[str, Any]] = [{"target": None}, *({"steps": steps} for steps in (0, 21, None, False))]
WRONG: list[tuple[int, str, str, Any, dict[str, Any]]] = [
    (401, "GET", "/api/models", None, {"X_Token": None}),
    (401, "GET", "/api/models", None, {"X_Token": "wrong"}),
    (401, "GET", "/api/models?token=wr%C3%B6ng", None, {"X_Token": None}),
    (401, "GET", "/", None, {"X_Token": None}),
    (401, "GET", "/nothing", None, {"X_Token": None}),
    (403, "GET", "/api/models", None, {"Host": "example.com"}),
    (403, "GET", "/api/models", None, {"Host": "127.0.0.1"}),
    (403, "GET", "/page.js", None, {"Host": "127.0.0.1.example.com"}),
    (403, "GET", "/api/models", None, {"Origin": "http://example.com"}),
    (403, "GET", "/api/models", None, {"Origin": "null"}),
    (403, "GET", "/style.css", None, {"Origin": "http://127.0.0.1:1"}),
    (404, "GET", "/api/nothing", None, {}),
    (404, "GET", "/../drawing/server.py", None, {}),
    (404, "GET", "/page/../../draw.py", None, {}),
    (404, "GET", "/%2e%2e/server.py", None, {}),
    (404, "GET", "/..%5cserver.py", None, {}),
    (404, "GET", "//etc/passwd", None, {}),
    (405, "POST", "/api/models", {}, {}),
    (405, "GET", "/api/read", None, {}),
    (405, "DELETE", "/api/read", None, {}),
    (405, "OPTIONS", "/api/ascend", None, {}),
    (405, "HEAD", "/", None, {}),
    (405, "PUT", "/page.js", {}, {}),
    (415, "POST", "/api/read", {}, {"Content_Type": "text/plain"}),
    (415, "POST", "/api/picture?model=$", b"GIF89a", {"Content_Type": "application/json"}),
    (415, "POST", "/api/picture?model=$", b"GIF89a", {"Content_Type": None}),
    (413, "POST", "/api/read", b"", {"Content_Length": "1000001", "Content_Type": "application/json"}),
    (400, "POST", "/api/read", b"{}", {"Content_Length": "-1", "Content_Type": "application/json"}),
    (400, "GET", "/api/models", b"{}", {}),
    (400, "POST", "/api/read", b"", {"Content_Type": "application/json"}),
    (400, "POST", "/api/read", b'{"model": ', {"Content_Type": "application/json"}),
    (400, "POST", "/api/read", b"\xff\xfe", {"Content_Type": "application/json"}),
    (400, "POST", "/api/read", b"[" * 200_000, {"Content_Type": "application/json"}),
    (400, "POST", "/api/read", b"9" * 200_000, {"Content_Type": "application/json"}),
    (400, "POST", "/api/read", [1, 2], {}),
    (400, "POST", "/api/read", {}, {}),
    (404, "POST", "/api/read", {"model": "/etc/passwd", **CANVAS}, {}),
    (404, "POST", "/api/picture?model=other", b"", {"Content_Type": "image/png"}),
    (400, "POST", "/api/picture", b"", {"Content_Type": "image/png"}),
    (422, "POST", "/api/picture?model=$", b"no picture", {}),
    (422, "POST", "/api/picture?model=$", b"", {}),
    *((400, "POST", "/api/read", {"model": "$", **CANVAS, **wrong}, {}) for wrong in WRONG_CANVASES),
    *((400, "POST", "/api/explain", {**ASKED, **wrong}, {}) for wrong in WRONG_IMAGES),
    *((400, "POST", "/api/ascend", {**ASKED, **wrong}, {}) for wrong in [*WRONG_IMAGES, *WRONG_STEPS]),
]


def test_wrong_requests_are_refused_in_one_line(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    model = default(server)
    for expected, method, path, body, headers in WRONG:
        filled = {**body, "model": model} if isinstance(body, dict) and body.get("model") == "$" else body
        status, found, answer = ask(server, method, path.replace("$", model), filled, **headers)
        case = (method, path, str(body)[:80], headers)
        assert status == expected, (case, answer)
        if method != "HEAD":
            assert list(answer) == ["error"] and answer["error"] and "\n" not in answer["error"], case
        assert ("Allow" in found) == (status == 405), case
    assert capfd.readouterr() == ("", ""), "what the client has done wrong is not logged"
    assert ask(server, "POST", "/api/read", of_canvas(model, drawing()))[0] == 200


def test_our_own_names_and_origins_are_accepted(server: Server) -> None:
    for host in ("127.0.0.1", "localhost", "LOCALHOST"):
        address = f"{host}:{server.port}"
        assert ask(server, "GET", "/api/models", Host=address, Origin=f"http://{address}")[0] == 200


def test_requests_that_can_be_understood_in_two_ways_are_refused(server: Server) -> None:
    post, smuggled = "POST /api/read HTTP/1.1", b"GET /page.js HTTP/1.1\r\nHost: x\r\n\r\n"
    lengths = ["+5", "0x5", "5_0", "5, 5", "5 5", "", "-0", "\xb2", "9" * 5000]
    headers = ["Content-Length : 5", "X: y\nContent-Length: 5", "X: y\rContent-Length: 5", "X: y\0z", "no colon", ": y"]
    firsts = [
        "GET /api/models",
        "GET  /api/models HTTP/1.1",
        "get /api/models HTTP/1.1",
        "GET /api/models HTTP/2.0",
        "GET /api/models HTTP/1.1 ",
        "GET api/models HTTP/1.1",
        "GET http://localhost/ HTTP/1.1",
        "GET /\xe9 HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /?a=%ff HTTP/1.1",
        f"GET /?{'&'.join(['a=1'] * 50)} HTTP/1.1",
    ]
    cases = [
        (411, head(server, post, "Transfer-Encoding: chunked") + b"0\r\n\r\n" + smuggled),
        (411, head(server, post, "Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n"),
        *((400, head(server, post, f"Content-Length: {length}") + smuggled) for length in lengths),
        (400, head(server, post, "Content-Length: 5", "content-length: 6") + smuggled),
        (400, head(server, post, "Content-Length:", " 5") + b"12345"),
        *((400, head(server, post, header) + b"12345") for header in headers),
        (400, head(server, "GET /api/models HTTP/1.1", f"Host: 127.0.0.1:{server.port}")),
        (400, head(server, "GET /api/models HTTP/1.1", "X-Token: other")),
        *((400, head(server, first)) for first in firsts),
        (403, b"GET / HTTP/1.0\r\n\r\n"),
        (403, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n"),
        (400, b"GET / HTTP/1.1\nHost: x\n\n"),
        (400, b"GET / HT"),
        (414, b"GET /" + b"a" * 100_000),
        (431, head(server, "GET /api/models HTTP/1.1", *(f"X{i}: y" for i in range(5000)))),
    ]
    for expected, data in cases:
        answer = raw(server, data)
        assert answer.startswith(b"HTTP/1.1 %d " % expected), (data[-200:], answer[:200])
        assert answer.count(b"HTTP/1.1 ") == 1 and b"Connection: close\r\n" in answer, data[-200:]


def test_a_response_to_head_has_no_body(server: Server) -> None:
    answer = raw(server, head(server, "HEAD / HTTP/1.1"))
    assert answer.startswith(b"HTTP/1.1 405 ") and answer.endswith(b"\r\n\r\n") and answer.count(b"\r\n\r\n") == 1


def test_lines_without_a_carriage_return_are_refused_at_once(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:  # half of what a request may take
        client.sendall(b"GET / HTTP/1.1\nHost: x\n\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_large_bodies_are_refused_before_they_are_read(server: Server) -> None:
    for path in ("/api/read", f"/api/picture?model={default(server)}"):
        kind = "application/json" if path == "/api/read" else "image/png"
        status, _, answer = ask(server, "POST", path, bytes(10_000_000), Content_Type=kind)
        assert status == 413 and "10,000,000" in answer["error"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(
            head(server, "POST /api/read HTTP/1.1", "Content-Type: application/json", f"Content-Length: {10**17}")
        )
        assert client.recv(100).startswith(b"HTTP/1.1 413 "), "nothing of the body has been sent"


def test_a_failure_of_the_server_is_told_where_it_runs_and_not_to_the_client(
    server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **keywords: Any) -> None:
        raise RuntimeError("a secret\nin two lines")

    model = default(server)
    monkeypatch.setattr(tg.data, "from_image", fail)
    status, _, answer = ask(server, "POST", "/api/read", of_canvas(model, drawing()))
    assert status == 500 and "secret" not in answer["error"]
    told = capfd.readouterr().err
    assert told.startswith("draw.py: POST /api/read failed: RuntimeError: ") and told.count("\n") == 1
    monkeypatch.undo()
    assert ask(server, "POST", "/api/read", of_canvas(model, drawing()))[0] == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=15)  # a slow test sends many more
@given(st.data())
def test_no_json_is_a_failure(server: Server, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(["/api/read", "/api/explain", "/api/ascend"]))
    right = {"model": default(server), **CANVAS, "image": IMAGE, "target": 3, "steps": 1}
    names = data.draw(st.sets(st.sampled_from(sorted(right))))
    values = (
        data.draw(json_values) if data.draw(st.booleans()) else {**right, **{n: data.draw(json_values) for n in names}}
    )
    status, _, answer = ask(server, "POST", path, values)
    assert status in (200, 400, 404), answer
    assert status == 200 or list(answer) == ["error"]


# How many, how slow ---------------------------------------------------------------------------------------------------
def test_a_connection_serves_many_requests(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.connect()
    socket_of_all = connection.sock
    body = json.dumps(of_canvas(default(server), drawing()))
    for path, content, expected in [("/api/read", body, 200), ("/api/read", "{", 400), ("/x", None, 404)] * 3:
        method = "GET" if content is None else "POST"
        connection.request(method, path, content, {"X-Token": server.token, "Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == expected and response.read()
        assert connection.sock is socket_of_all
    connection.close()
    for first, last in (("1.1", "Connection: close"), ("1.0", "X: y")):
        two = head(server) + head(server, f"GET /api/models HTTP/{first}", last) + head(server)
        assert raw(server, two).count(b"HTTP/1.1 200 OK") == 2, "sent at once, and none is read behind the last one"


def test_a_client_may_ask_before_it_sends_its_body(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        headers = ("Expect: 100-continue", "Content-Type: application/json", "Content-Length: 2")
        client.sendall(head(server, "POST /api/read HTTP/1.1", *headers))
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


def test_two_hundred_at_once(server: Server) -> None:
    body = of_canvas(default(server), drawing())
    begin = threading.Barrier(200)

    def one(i: int) -> int:
        begin.wait()
        return ask(server, "POST", "/api/read", {} if i % 4 else body)[0]

    with ThreadPoolExecutor(200) as pool:
        found = list(pool.map(one, range(200)))
    assert set(found) <= {200, 400, 429} and found.count(200) >= 10 and found.count(400) >= 30, found
    assert ask(server, "POST", "/api/read", body)[0] == 200


def test_slow_clients_are_told_so_and_keep_nobody_out(weights: Path) -> None:
    with serving(weights, seconds=0.4, connections=8) as server:
        server.patience = 0.1
        beginnings = [
            b"G",
            head(server)[:-2],
            head(server, "POST /api/read HTTP/1.1", "Content-Type: application/json", "Content-Length: 99"),
        ]
        started, answers = time.monotonic(), []
        with ThreadPoolExecutor(24) as pool:
            for answer in pool.map(lambda i: slow(server, beginnings[i % 3], silent=i % 2 > 0), range(24)):
                answers.append(answer[9:12])
        assert set(answers) <= {b"408", b"429"} and answers.count(b"408") >= 8, answers
        assert time.monotonic() - started < 10
        assert ask(server, "GET", "/api/models")[0] == 200


def slow(server: Server, beginning: bytes, silent: bool) -> bytes:
    """Begin a request, go on with a byte now and then or not at all, and return what comes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.05) as client:
        client.sendall(beginning)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                return client.recv(1000)
            except TimeoutError:
                with contextlib.suppress(ConnectionError):
                    client.sendall(b"" if silent else b"a")
            except ConnectionError:  # it went on although it was turned away
                return b"HTTP/1.1 429 "
        return b"no answer"


def test_connections_without_a_request_make_room(weights: Path) -> None:
    with serving(weights, connections=4) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(4)]
        for client in silent[:2]:  # these have had a response
            client.sendall(head(server))
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        time.sleep(0.1)
        assert ask(server, "GET", "/api/models")[0] == 200
        for client in silent:
            client.close()
    with (
        serving(weights, idle=0.1) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as client,
    ):
        assert client.recv(100) == b"", "closed after a while, without a word"


def test_a_lack_of_threads_costs_no_connection(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with serving(weights, connections=1) as server:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            assert raw(server, b"") == b""
        assert ask(server, "GET", "/api/models")[0] == 200
    assert capfd.readouterr().err == 'draw.py: a connection failed: RuntimeError: "can\'t start new thread"\n'


def test_clients_that_leave_or_do_not_listen_are_let_go(weights: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(weights, connections=2) as server:
        body = json.dumps(of_canvas(default(server), drawing())).encode()
        about = ("Content-Type: application/json", f"Content-Length: {len(body)}")
        for data in (b"", b"GET", head(server), head(server, "POST /api/read HTTP/1.1", *about) + body) * 3:
            client = socket.create_connection(("127.0.0.1", server.port), timeout=20)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # it ends with a reset
            client.sendall(data)
            client.close()
        assert ask(server, "GET", "/api/models")[0] == 200
    assert capfd.readouterr() == ("", "")


def picture(kind: str) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(drawing()).save(file, kind)
    return file.getvalue()


def damaged(data: bytes, draws: np.random.Generator) -> bytes:
    """Change, drop, repeat or insert bytes at some places."""
    for _ in range(draws.integers(1, 6)):
        start, length = draws.integers(len(data) + 1), int(draws.integers(1, 2 ** draws.integers(1, 12)))
        noise = draws.choice([b"", b"\r\n", b"\0", b"9" * length, data[start : start + length], draws.bytes(length)])
        data = data[:start] + noise + data[start + (length if draws.random() < 0.5 else 0) :]
    return data


@pytest.mark.slow
def test_fifteen_hundred_damaged_requests(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    resource = pytest.importorskip("resource", reason="this system does not tell the memory of a process")
    model = default(server)
    asked = {**of_canvas(model, drawing()), "image": IMAGE, "target": 1, "steps": 1}
    bodies = [
        (f"/api/{name}", "application/json", json.dumps(asked).encode()) for name in ("read", "explain", "ascend")
    ]
    bodies += [(f"/api/picture?model={model}", "image/x", picture(kind)) for kind in ("PNG", "JPEG", "GIF", "TIFF")]
    before = ask(server, "POST", "/api/read", asked)[2]["digits"]
    threads, memory = threading.active_count(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def one(seed: int) -> int:
        draws = rng(seed)
        path, kind, body = bodies[seed % len(bodies)]
        everything = seed % 3 == 0  # or the body alone
        body = body if everything else damaged(body, draws)
        lines = [f"POST {path} HTTP/1.1", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"]
        data = head(server, *lines) + body
        answer = raw(server, damaged(data, draws) if everything else data)
        assert re.match(rb"HTTP/1\.1 [24]\d\d ", answer) or not answer, (seed, answer[:200])
        return int(answer[9:12] or 0)

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(one, range(1500)))
    assert {200, 400, 422} <= set(found) and found.count(0) < 50 and found.count(200) > 100, found
    assert capfd.readouterr() == ("", "")
    assert ask(server, "POST", "/api/read", asked)[2]["digits"] == before
    assert threading.active_count() <= threads + 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 400_000, (
        "KiB: a picture decoded and converted, twice"
    )


# The script -----------------------------------------------------------------------------------------------------------
def start(*options: Any, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, SCRIPT, "--no-browser", "--port", "0", *map(str, options)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_also_with_connections_that_are_open(number: int, tmp_path: Path, weights: Path) -> None:
    command = [sys.executable, SCRIPT, "--no-browser", "--port", "0", "--weights", weights]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        found = re.fullmatch(r"draw at http://127\.0\.0\.1:(\d+)/\?token=(\S+) \(Ctrl-C ends it\)\n", line)
        assert found, line or process.stderr.read()
        clients = [socket.create_connection(("127.0.0.1", int(found[1])), timeout=20) for _ in range(3)]
        clients[0].sendall(b"POST /api/")
        host = f"Host: 127.0.0.1:{found[1]}\r\nX-Token: {found[2]}\r\n\r\n"
        clients[1].sendall(f"GET /api/models HTTP/1.1\r\n{host}".encode())
        assert clients[1].recv(100).startswith(b"HTTP/1.1 200 ")
        started = time.monotonic()
        process.send_signal(number)
        assert process.wait(20) == 0 and time.monotonic() - started < 9, "a client may be slow for 10 seconds"
        assert process.communicate() == ("", "")
        for client in clients:
            client.close()


def test_a_port_that_is_in_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(Catalogue())
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr(draw, "PORTS", [taken])
        with draw.bind(answers, None) as server:
            assert server.port not in (0, taken)
        with pytest.raises(OSError):
            draw.bind(answers, taken)


def test_a_missing_browser_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[str] = []
    monkeypatch.setattr(draw.webbrowser, "open", lambda address: bool(opened.append(address)))
    draw.open_browser("http://here")
    assert opened == ["http://here"] and "no browser was found" in capsys.readouterr().err


def test_without_any_weights_it_says_how_to_get_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(catalogue, "SHIPPED", tmp_path / "none.safetensors")
    assert draw.main(["--no-browser"]) == 2
    assert "there are no weights; train some" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--run", "nowhere"], "nowhere is no run folder"),
        (["--weights", "nothing.safetensors"], "nothing.safetensors"),
        (["--port", "70000"], "port 70000 cannot be used"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(
    options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert draw.main(["--no-browser", *options]) == 2
    told = capsys.readouterr().err
    assert told.startswith("draw.py: ") and words in told and told.count("\n") == 1
