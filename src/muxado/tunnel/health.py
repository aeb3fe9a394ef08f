"""HTTP for who looks after a server: /live, /ready and /metrics, read only.

How it works. A thread takes the requests, by Python's own server; each answer is made on the event
loop, so that a loop that hangs is not "live". The Host of a request must be an address or
``localhost``: a web page that is shown elsewhere has a name there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from threading import Thread
from typing import NamedTuple

from .invitations import Place
from .server import Server

__all__ = ["watched"]

TIMEOUT = 5.0  # seconds, for the loop, and for a request to come

TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Answer(NamedTuple):
    """What a request is answered with."""

    status: int
    text: bytes


async def answer(server: Server, path: str) -> Answer:
    """Answer a request, on the server's loop."""
    if path == "/live":
        return Answer(200, b"live\n")
    if path == "/ready":
        return Answer(503, b"about to end\n") if server.draining else Answer(200, b"ready\n")
    if path == "/metrics":
        try:
            from .prometheus import metrics_of
        except ImportError as exc:
            return Answer(501, f"{exc}\n".encode())
        return Answer(200, metrics_of(server))
    return Answer(404, b"there are /live, /ready and /metrics\n")


@asynccontextmanager
async def watched(server: Server, place: Place) -> AsyncIterator[Place]:
    """Answer requests while the block runs; give where.

    Args:
        server: the server that they are about.
        place: the address to listen on; port 0 is any free one.

    Raises:
        OSError: it can't be listened on.
    """
    loop = asyncio.get_running_loop()

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT
        server_version = "muxado"

        def do_GET(self) -> None:
            made = Answer(421, b"the Host must be an address, or localhost\n")
            if _is_plain(self.headers.get("Host", ""), place[0]):
                path = self.path.partition("?")[0]
                asked = asyncio.run_coroutine_threadsafe(answer(server, path), loop)
                try:
                    made = asked.result(TIMEOUT)
                except (TimeoutError, CancelledError):
                    made = Answer(503, b"the event loop does not answer\n")
            self.send_response(made.status)
            self.send_header("Content-Type", TEXT)
            self.send_header("Content-Length", str(len(made.text)))
            self.end_headers()
            self.wfile.write(made.text)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: probes come every few seconds."""

    class Http(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Log nothing: who has asked is gone."""

    http = Http(place, Handler)
    thread = Thread(target=http.serve_forever, args=(0.1,), name="muxado health", daemon=True)
    thread.start()
    try:
        yield place[0], int(http.server_address[1])
    finally:
        await asyncio.to_thread(http.shutdown)
        http.server_close()
        thread.join()


def _is_plain(host: str, own: str) -> bool:
    """Return whether a request's Host is none that a web page could have sent it by."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.strip("[]").lower()
    if name in ("localhost", own.lower()):
        return True
    with contextlib.suppress(ValueError):
        ip_address(name)
        return True
    return False
