"""The server of the page: who may ask, which address answers, and how many are served at once."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .answers import Answers
from .protocol import Connection, RefusedError, Request, parse_json

PAGE = Path(__file__).with_name("page")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
JSON = "application/json"


class Route(NamedTuple):
    """What answers at an address of the interface."""

    answer: Callable[[dict[str, Any]], dict[str, Any]]  # from the values of the query and the body
    method: str
    turns: threading.Semaphore  # how many are computed at once
    accepts: tuple[str, ...] = ()  # beginnings of the body's Content-Type
    limit: int = 0  # bytes of the body


class Server(socketserver.TCPServer):
    """Serves the page and its interface on 127.0.0.1.

    Parameters
    ----------
    answers : Answers
    port : int
        0: one that is free.
    seconds : float
        Time that a request may take to arrive, and its response to leave.
    idle : float
        Time that a connection may stay open between requests.
    connections : int
        Number of connections that are served at once; others wait shortly and are then told to come again.
    computing : int
        Number of answers that are computed at once. Another one is that to a picture, which may take long.
    """

    allow_reuse_address = os.name != "nt"  # in Windows it would let two servers have one port
    request_queue_size = 256
    patience = 0.5  # seconds that a client waits while all connections are in use

    def __init__(
        self,
        answers: Answers,
        port: int = 0,
        *,
        seconds: float = 10.0,
        idle: float = 30.0,
        connections: int = 32,
        computing: int = 2,
    ) -> None:
        super().__init__(("127.0.0.1", port), socketserver.BaseRequestHandler)
        self.token = secrets.token_urlsafe(16)
        self.seconds, self.idle = seconds, idle
        self.connections, self.crowded = threading.BoundedSemaphore(connections), False
        self.port = int(self.server_address[1])
        self.hosts = {f"{name}:{self.port}" for name in ("127.0.0.1", "localhost")}
        self.assets = {f"/{file.name}": file for file in PAGE.iterdir() if file.suffix in TYPES}
        turns, turn = threading.BoundedSemaphore(computing), threading.BoundedSemaphore(1)
        drawing = partial(Route, method="POST", turns=turns, accepts=(JSON,), limit=1_000_000)
        picture = partial(Route, method="POST", turns=turn, accepts=("image/", "application/octet-stream"))
        self.routes = {
            "/api/models": Route(lambda values: answers.models(), "GET", turns),
            "/api/read": drawing(answers.read),
            "/api/picture": picture(answers.picture, limit=8_000_000),
            "/api/explain": drawing(answers.explain),
            "/api/ascend": drawing(answers.ascend),
        }

    @property
    def address(self) -> str:
        """The address of the page, with the token that its requests carry."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    # Connections ------------------------------------------------------------------------------------------------------
    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, if there is room."""
        with contextlib.ExitStack() as undo:
            undo.callback(request.close)
            if not self.connections.acquire(blocking=False):
                self.crowded = True  # connections without a request are closed now
                found = self.connections.acquire(timeout=self.patience)
                self.crowded = False
                if not found:
                    self._turn_away(request)
                    return
            undo.callback(self.connections.release)
            threading.Thread(target=self._serve, args=(request,), daemon=True).start()
            undo.pop_all()

    def _turn_away(self, sock: socket.socket) -> None:
        """Tell a client, whose request is not read, to come again."""
        with contextlib.suppress(OSError):
            connection = Connection(sock, seconds=0.1)
            connection.again = False
            body = b'{"error": "all connections are in use; try again"}'
            connection.respond(429, JSON, body, {"Retry-After": "1"})
            connection.close(linger=0.05)  # the next client waits meanwhile

    def _serve(self, sock: socket.socket) -> None:
        """Answer the requests of a connection."""
        try:
            with sock, contextlib.suppress(OSError):  # the client is gone
                connection = Connection(sock, self.seconds)
                while connection.wait(self.idle, lambda: self.crowded) and self._reply(connection):
                    pass
                connection.close()
        finally:
            self.connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell what went wrong with a connection in one line."""
        self._complain("a connection", sys.exc_info()[1])

    def _complain(self, where: str, error: object) -> None:
        print(f"draw.py: {where} failed: {type(error).__name__}: {str(error)[:300]!r}", file=sys.stderr)

    # Requests ---------------------------------------------------------------------------------------------------------
    def _reply(self, connection: Connection) -> bool:
        """Answer a request; return whether another one may follow."""
        where, status, headers = "a request", 200, {}
        try:
            request = connection.head()
            where = f"{request.method} {request.path[:100]}"
            kind, body = self._body(connection, request)
        except ConnectionError:  # the client is gone
            return False
        except Exception as error:
            refused = self._refusal(where, error)
            status, headers = refused.status, refused.headers
            kind, body = JSON, json.dumps({"error": " ".join(str(refused).split())}).encode()
        connection.again = connection.again and not self.crowded
        connection.respond(status, kind, body, headers)
        return connection.again

    def _refusal(self, where: str, error: Exception) -> RefusedError:
        """Return what the client is told of an error; one that is not the client's is told where the server runs."""
        if isinstance(error, RefusedError):
            return error
        if isinstance(error, FloatingPointError):
            return RefusedError(422, "the model gives numbers that are not finite; take other weights")
        self._complain(where, error)
        return RefusedError(500, "the server has failed here; it says why where it runs")

    def _body(self, connection: Connection, request: Request) -> tuple[str, bytes]:
        """Return type and bytes of the answer to a request that may be made."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if host.lower() not in self.hosts:
            raise RefusedError(403, f"this server is 127.0.0.1:{self.port}, and answers under no other name")
        if origin is not None and origin.lower() not in {f"http://{name}" for name in self.hosts}:
            raise RefusedError(403, "pages of other addresses may not ask this server")
        if request.path != "/" and request.path in self.assets:
            self._check_method(request, "GET")
            return self._file(self.assets[request.path])
        given = request.headers.get("x-token", request.query.get("token", ""))
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            raise RefusedError(401, "the token is missing or wrong; open the address that draw.py prints")
        if request.path == "/":
            self._check_method(request, "GET")
            return self._file(self.assets["/index.html"])
        if (route := self.routes.get(request.path)) is None:
            raise RefusedError(404, "there is nothing at this address")
        self._check_method(request, route.method)
        values: dict[str, Any] = {**request.query}
        if route.accepts:
            self._check_body(request, route)
            body = connection.body(request)
        with self._turn(route), np.errstate(all="ignore"):  # what is not finite is found in the answer
            if route.accepts == (JSON,):
                values = parse_json(body)
            elif route.accepts:
                values["body"] = body
            return JSON, json.dumps(route.answer(values), allow_nan=False, separators=(",", ":")).encode()

    def _check_method(self, request: Request, method: str) -> None:
        if request.method != method:
            raise RefusedError(405, f"{request.method} does nothing here; use {method}", Allow=method)
        if method == "GET" and request.length:
            raise RefusedError(400, "GET takes no body")

    def _check_body(self, request: Request, route: Route) -> None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not kind.startswith(route.accepts):
            raise RefusedError(415, f"the body is {kind[:50] or 'of no type'}; send {' or '.join(route.accepts)}")
        if request.length is None:
            raise RefusedError(411, "the body has no Content-Length")
        if request.length > route.limit:
            raise RefusedError(413, f"the body has {request.length:,} bytes; {route.limit:,} are accepted")

    def _file(self, file: Path) -> tuple[str, bytes]:
        return TYPES[file.suffix], file.read_bytes()

    @contextlib.contextmanager
    def _turn(self, route: Route) -> Iterator[None]:
        """Wait for a turn to compute."""
        if not route.turns.acquire(timeout=self.seconds):
            raise RefusedError(429, "others are computing; try again", Retry_After="1")
        try:
            yield
        finally:
            route.turns.release()
