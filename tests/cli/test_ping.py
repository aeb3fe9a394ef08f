"""`muxado ping` against muxado peers, and against what is none."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

pytest.importorskip("click")

import muxado.sync
from muxado.cli.ping import Target, parse_address, run
from tests.certificates import Tls
from tests.patience import patience

TIMEOUT = patience(5)


def ping(
    port: int, context: ssl.SSLContext | None = None, *, count: int = 1, timeout: float = TIMEOUT
) -> tuple[int, str]:
    lines: list[str] = []
    target = Target("127.0.0.1", port, context, None, timeout)
    return run(target, count, 0.0, lines.append), "\n".join(lines)


@contextmanager
def listening(talk: Callable[[socket.socket], object]) -> Iterator[int]:
    """Answer each connection as a function does that is given its socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            try:
                while True:
                    sock, _ = server.accept()
                    threading.Thread(target=converse, args=(sock,), daemon=True).start()
            except OSError:
                return

        def converse(sock: socket.socket) -> None:
            with sock:
                try:
                    talk(sock)
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(TIMEOUT)


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_a_muxado_peer_is_there(tls: Tls, secured: bool) -> None:
    context = tls.server if secured else None
    handle = muxado.sync.Session.wait_closed
    with muxado.sync.serve(handle, "127.0.0.1", 0, ssl=context) as server:
        status, told = ping(server.addresses[0][1], tls.client if secured else None, count=3)
    assert status == 0, told
    assert "muxado at 127.0.0.1" in told
    assert ("TLSv1.3" in told) == secured
    assert told.count("round trip") == 3
    assert "3 pings" in told


def test_an_http_server_is_named() -> None:
    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            # It waits for the rest of a line, and serves one connection at a time.
            status, told = ping(server.server_address[1], timeout=patience(0.5))
        finally:
            server.shutdown()
            thread.join(TIMEOUT)
    assert status == 1
    assert "speaks HTTP" in told


def test_a_tls_port_is_named(tls: Tls) -> None:
    def talk(sock: socket.socket) -> None:
        with tls.server.wrap_socket(sock, server_side=True) as secured:
            secured.recv(1)

    with listening(talk) as port:
        status, told = ping(port)
    assert status == 1
    assert "try --tls" in told


def test_a_certificate_of_another_authority_is_told(tls: Tls) -> None:
    handle = muxado.sync.Session.wait_closed
    with muxado.sync.serve(handle, "127.0.0.1", 0, ssl=tls.server) as server:
        status, told = ping(server.addresses[0][1], ssl.create_default_context())
    assert status == 2
    assert "certificate verify failed" in told


@pytest.mark.parametrize(
    ("greeting", "words"),
    [(b"SSH-2.0-OpenSSH_9.9\r\n", "speaks SSH"), (b"220 mail.example ready\r\n", "220 mail")],
)
def test_a_port_that_speaks_first_is_named(greeting: bytes, words: str) -> None:
    def talk(sock: socket.socket) -> None:
        sock.sendall(greeting)
        sock.recv(1)

    with listening(talk) as port:
        status, told = ping(port)
    assert status == 1
    assert words in told


def test_a_port_that_says_nothing_is_told_so() -> None:
    def talk(sock: socket.socket) -> None:
        while sock.recv(1000):
            pass

    with listening(talk) as port:
        status, told = ping(port, timeout=0.5)
    assert status == 1
    assert "nothing came within 0.5 s" in told


def test_a_port_that_hangs_up_is_told_so() -> None:
    with listening(lambda sock: sock.recv(1)) as port:
        status, told = ping(port)
    assert status == 1
    assert "does it expect TLS?" in told


def echo(sock: socket.socket) -> None:
    while data := sock.recv(4096):
        sock.sendall(data)


def test_a_port_that_echoes_is_no_muxado_peer() -> None:
    with listening(echo) as port:
        status, told = ping(port)
    assert status == 1
    assert "no muxado" in told
    assert "sends back whatever it is sent" in told


def test_a_closed_port_is_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    status, told = ping(port)
    assert status == 2
    assert "no connection with 127.0.0.1" in told


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("a.example:7", ("a.example", 7)), ("[::1]:65535", ("::1", 65535)), ("127.0.0.1:1", None)],
)
def test_an_address_is_parsed(text: str, parsed: tuple[str, int] | None) -> None:
    assert parse_address(text) == (parsed or ("127.0.0.1", 1))


@pytest.mark.parametrize("text", ["a", "a:", ":7", "::1:7", "a:b", "a:0", "a:65536", "a:-1", "a:٣"])
def test_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|brackets"):
        parse_address(text)


def test_the_command_pings(tls: Tls, tmp_path: Path) -> None:
    authority = tmp_path / "authority.pem"
    tls.authority.cert_pem.write_to_path(str(authority))
    handle = muxado.sync.Session.wait_closed
    with muxado.sync.serve(handle, "127.0.0.1", 0, ssl=tls.server) as server:
        address = f"127.0.0.1:{server.addresses[0][1]}"
        result = subprocess.run(
            [sys.executable, "-m", "muxado", "ping", address, "--ca", str(authority)],
            capture_output=True,
            text=True,
            timeout=patience(30),
            check=False,
        )
    assert result.returncode == 0, result.stderr
    assert "round trip" in result.stdout
