"""The standard library's HTTP server on a session, for the clients under test."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import muxado.sync
from muxado.adapters.socketserver import HTTPServer

from .conftest import PATIENCE


class Handler(BaseHTTPRequestHandler):
    """Answers GET with its path and POST with the body.

    It hangs up, is silent, or leaves a body unread, if asked to.
    """

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        if self.path == "/silent":
            self.rfile.read(1)
        elif self.path == "/reset":
            self.connection.reset()
            self.close_connection = True
        else:
            if self.path == "/wait":
                self.server.waiting.set()
                self.server.ending.wait(PATIENCE)
            self.answer(self.path.encode())
        if self.path == "/once":
            self.close_connection = True

    def do_POST(self) -> None:
        if self.path == "/unread":
            self.server.ending.wait(PATIENCE)
            self.close_connection = True
            return
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(HTTPServer):
    def __init__(self, *args: Any, **kwds: Any) -> None:
        super().__init__(*args, **kwds)
        self.waiting = threading.Event()
        self.ending = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


@contextmanager
def serving(
    session: muxado.sync.Session,
    context: ssl.SSLContext | None = None,
    handler: type[Handler] = Handler,
) -> Iterator[Server]:
    server = Server(session, handler, ssl=context)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.ending.set()
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()
    assert not thread.is_alive()
