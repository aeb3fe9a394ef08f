"""http.server and http.client over streams, from threads."""

from __future__ import annotations

import socketserver
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from muxado import SessionError
from muxado.adapters.http_client import HTTPConnection, HTTPSConnection
from muxado.adapters.socketserver import SessionMixIn

from .conftest import PATIENCE, SyncEnds, Tls
from .http_service import Handler, Server, serving

MIB = 1024 * 1024


def test_requests_on_one_stream(sync_ends: SyncEnds) -> None:
    with serving(sync_ends.serving):
        connection = HTTPConnection(sync_ends.calling, "service", timeout=PATIENCE)
        for path in ("/one", "/two"):
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 200
            assert response.read() == path.encode()
        connection.close()
    assert sync_ends.calling.stats().streams_opened == 1


def test_many_at_once(sync_ends: SyncEnds) -> None:
    def post(number: int) -> None:
        body = b"%d" % number * 10_000
        connection = HTTPConnection(sync_ends.calling, "service", timeout=PATIENCE)
        connection.request("POST", "/", body)
        assert connection.getresponse().read() == body
        connection.close()

    with serving(sync_ends.serving), ThreadPoolExecutor(20) as executor:
        list(executor.map(post, range(50)))


def test_a_body_larger_than_the_window(sync_ends: SyncEnds) -> None:
    body = bytes(range(256)) * (4 * MIB // 256)
    with serving(sync_ends.serving):
        connection = HTTPConnection(sync_ends.calling, "service", timeout=PATIENCE)
        connection.request("POST", "/", body)
        assert connection.getresponse().read() == body
        connection.close()


def test_https_inside_a_stream(sync_ends: SyncEnds, tls: Tls) -> None:
    with serving(sync_ends.serving, tls.server):
        connection = HTTPSConnection(
            sync_ends.calling, "service.internal", context=tls.client, timeout=PATIENCE
        )
        connection.request("GET", "/secret")
        assert connection.getresponse().read() == b"/secret"
        connection.close()
        elsewhere = HTTPSConnection(
            sync_ends.calling,
            "elsewhere.internal",
            context=tls.client,
            timeout=PATIENCE,
        )
        with pytest.raises(ssl.SSLCertVerificationError):
            elsewhere.request("GET", "/")
        elsewhere.close()


def test_a_timeout(sync_ends: SyncEnds) -> None:
    with serving(sync_ends.serving):
        connection = HTTPConnection(sync_ends.calling, "service", timeout=0.05)
        connection.request("GET", "/silent")
        with pytest.raises(TimeoutError):
            connection.getresponse()
        connection.close()


def test_a_reset(sync_ends: SyncEnds) -> None:
    with serving(sync_ends.serving):
        connection = HTTPConnection(sync_ends.calling, "service", timeout=PATIENCE)
        connection.request("GET", "/reset")
        with pytest.raises(ConnectionResetError):
            connection.getresponse()
        connection.close()


def test_a_session_that_has_ended(sync_ends: SyncEnds) -> None:
    sync_ends.calling.close()
    connection = HTTPConnection(sync_ends.calling, "service", timeout=PATIENCE)
    with pytest.raises(SessionError):
        connection.request("GET", "/")


def test_the_server_ends_with_its_session(sync_ends: SyncEnds) -> None:
    server = Server(sync_ends.serving, Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    sync_ends.calling.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    server.server_close()


def test_any_socketserver(sync_ends: SyncEnds) -> None:
    class Reverse(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline().strip()[::-1])

    class Reversing(SessionMixIn, socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Reversing(sync_ends.serving, Reverse) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        with sync_ends.calling.open() as stream:
            stream.settimeout(PATIENCE)
            stream.sendall(b"muxado\n")
            assert stream.recv(100) == b"odaxum"
            assert stream.recv(100) == b""
        server.shutdown()
