"""Download one file: every wait and every size has a limit, whatever the server does."""

from __future__ import annotations

import sys
import threading
import time

__all__ = ["download"]

MAX_TIMEOUTS = 30  # a whole download may take this many timeouts


def download(url: str, timeout: float, max_bytes: int) -> bytes:
    """Return the content at an address; progress is printed to stderr.

    The work is done on a thread, which is abandoned after the deadline: the timeout of a socket does not limit a slow
    name server, or response headers without end.

    Parameters
    ----------
    url : str
    timeout : float
        Seconds to wait for a connection or for the next bytes; the whole download may take 30 times as long.
    max_bytes : int
        Refuse more.

    Raises
    ------
    OSError, ValueError
        If the address is invalid, the server fails, or a limit is exceeded.
    """
    body, stop, errors = bytearray(), threading.Event(), list[Exception]()

    def work() -> None:
        try:
            _receive(url, timeout, max_bytes, body, stop)
        except (OSError, ValueError) as error:
            errors.append(error)
        except Exception as error:  # HTTPException; OverflowError for a port, MemoryError for a length
            errors.append(OSError(f"{type(error).__name__}: {error}"))

    print(f"downloading {url} ", end="", file=sys.stderr, flush=True)
    limit = MAX_TIMEOUTS * timeout
    thread, deadline = threading.Thread(target=work, daemon=True), time.monotonic() + limit
    try:
        thread.start()
        while thread.is_alive() and (left := deadline - time.monotonic()) > 0:
            thread.join(min(left, 0.2))  # in steps, because on Windows Ctrl-C is handled at the end of each
        if thread.is_alive():
            raise TimeoutError(f"not complete after {limit:g} s")
    finally:
        stop.set()
        print(f" {len(body) / 1e6:.1f} MB received", file=sys.stderr)
    if errors:
        raise errors[0]
    return bytes(body)


def _receive(url: str, timeout: float, max_bytes: int, body: bytearray, stop: threading.Event) -> None:
    """Append the content at an address to `body`, until `stop` is set."""
    import urllib.request  # imported here because it takes 25 ms, and few processes download anything
    from http.client import HTTPResponse

    class CloseUnlessOk(urllib.request.BaseHandler):
        """Close the response of an error or a redirection: urllib would read its body, which may have no end."""

        def http_response(self, request: urllib.request.Request, response: HTTPResponse) -> HTTPResponse:
            if not 200 <= response.status < 300:
                response.close()
            return response

        https_response = http_response

    with urllib.request.build_opener(CloseUnlessOk).open(url, timeout=timeout) as response:
        while (chunk := response.read1(1 << 16)) and not stop.is_set():
            body += chunk
            if len(body) % (1 << 20) < len(chunk):  # one dot per MiB
                print(".", end="", file=sys.stderr, flush=True)
            if len(body) > max_bytes:
                raise OSError(f"longer than {max_bytes} bytes")
