"""HTTP/1.1, strictly: one request after the other from a socket, each within limits of time and size.

The standard library's `http.server` waits for a request as long as a byte comes now and then, takes heads of 6 MB, and
reads unclear heads in its own way; a page of this machine needs little of HTTP and can refuse all of that.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

HEAD = 16_384  # bytes that the request line and the headers may have
REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) (/[\x21-\x7e]*) HTTP/1\.([01])")
HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
SINGLE = {"content-length", "content-type", "host", "origin", "x-token"}  # headers that must not come twice
ALWAYS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
}


class RefusedError(Exception):
    """A request is refused: with a status of HTTP, and one line for the client."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True)
class Request:
    """The head of a request."""

    method: str
    path: str  # as it was sent
    query: dict[str, str]
    headers: dict[str, str]  # by names in lower case
    length: int | None  # bytes of the body, as announced


class Connection:
    """A client's socket.

    Parameters
    ----------
    sock : socket.socket
    seconds : float
        Time that a whole request may take from its first byte, and the time that its response may take.
    """

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self.sock, self.seconds = sock, seconds
        self.buffer = bytearray()  # what has come and is not used yet
        self.deadline = 0.0
        self.bodiless = False  # whether the response to this request has no body
        self.lasting = False  # whether the client would send another request
        self.again = True  # whether another request may follow: the one before was read to its end
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wait(self, seconds: float, give_up: Callable[[], bool]) -> bool:
        """Wait for the next request to begin; False if it does not, or if `give_up()` becomes true."""
        until = time.monotonic() + seconds
        self.sock.settimeout(min(0.2, seconds))
        while not self.buffer:
            try:
                if not (data := self.sock.recv(65_536)):
                    return False
                self.buffer += data
            except TimeoutError:
                if give_up() or time.monotonic() >= until:
                    return False
        self.deadline = time.monotonic() + self.seconds
        return True

    def head(self) -> Request:
        """Read the request line and the headers."""
        self.again = False
        while (end := self.buffer.find(b"\r\n\r\n")) < 0 and len(self.buffer) <= HEAD:
            if re.search(rb"(?<!\r)\n", self.buffer):
                raise RefusedError(400, "a line of the head ends without a carriage return")
            self._receive()
        if not 0 <= end <= HEAD:
            if b"\r\n" in self.buffer[:HEAD]:
                raise RefusedError(431, f"the head has more than {HEAD:,} bytes")
            raise RefusedError(414, f"the address has more than {HEAD:,} bytes")
        first, *lines = bytes(self.buffer[:end]).split(b"\r\n")
        del self.buffer[: end + 4]
        if not (found := REQUEST_LINE.fullmatch(first)):
            raise RefusedError(400, "the request line is not one of HTTP/1.1, such as GET /path HTTP/1.1")
        method, target, minor = (part.decode("ascii") for part in found.groups())
        headers = _headers(lines)
        path, _, text = target.partition("?")
        try:
            query = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=10, errors="strict"))
        except ValueError:
            raise RefusedError(400, "the address has a query that cannot be read") from None
        if "transfer-encoding" in headers:
            raise RefusedError(411, "Transfer-Encoding is not accepted; send Content-Length")
        length = headers.get("content-length")
        if length is not None and not re.fullmatch("[0-9]{1,18}", length):
            raise RefusedError(400, "Content-Length is not a whole number")
        request = Request(method, path, query, headers, None if length is None else int(length))
        self.bodiless = method == "HEAD"
        self.lasting = "close" not in headers.get("connection", "keep-alive" if minor == "1" else "close").lower()
        self.again = self.lasting and not request.length
        return request

    def body(self, request: Request) -> bytes:
        """Read the body, the size of which has been checked."""
        if request.headers.get("expect", "").lower() == "100-continue" and not self.buffer:
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = request.length or 0
        while len(self.buffer) < length:
            self._receive()
        data = bytes(self.buffer[:length])
        del self.buffer[:length]
        self.again = self.lasting
        return data

    def respond(self, status: int, kind: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a response."""
        fields = {"Content-Type": kind, "Content-Length": str(len(body)), **ALWAYS, **headers}
        fields["Connection"] = "keep-alive" if self.again else "close"
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {fields[name]}" for name in fields)]
        self.sock.settimeout(self.seconds)
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if self.bodiless else body))

    def close(self, linger: float = 1.0) -> None:
        """Close; what a client still sends is dropped for some seconds, else it might lose the response."""
        with contextlib.suppress(OSError):  # the client is gone, or still sends
            self.sock.shutdown(socket.SHUT_WR)
            until = time.monotonic() + linger
            while not self.again and (left := until - time.monotonic()) > 0:
                self.sock.settimeout(left)
                if not self.sock.recv(65_536):
                    break
        self.sock.close()

    def _receive(self) -> None:
        left = self.deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(left)
            data = self.sock.recv(65_536)
        except TimeoutError:
            raise RefusedError(408, f"the request took more than {self.seconds:g} s") from None
        if not data:
            raise RefusedError(400, "the request ends too early")
        self.buffer += data


def _headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        if not (found := HEADER.fullmatch(line)):
            raise RefusedError(400, "a header is not a name, a colon and a value in one line")
        name, value = found[1].decode("ascii").lower(), found[2].decode("latin-1")
        if name in SINGLE and name in headers:
            raise RefusedError(400, f"the header {name} comes twice")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the object that a body holds as JSON."""
    try:
        values = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
        raise RefusedError(400, f"the body is not JSON: {reason}") from None
    if not isinstance(values, dict):
        raise RefusedError(400, "the body is not an object of JSON")
    return values
