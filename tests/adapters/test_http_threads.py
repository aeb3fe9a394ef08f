"""http.server and http.client over streams, from threads."""

from __future__ import annotations

import functools
import socket
import socketserver
import ssl
import threading
import urllib.request
import xmlrpc.client
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from xmlrpc.server import SimpleXMLRPCDispatcher, SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

import pytest

import muxado.sync
import muxado.testing
from muxado import SessionError, UsageError
from muxado.adapters.http_client import HTTPConnection, HTTPSConnection
from muxado.adapters.socketserver import HTTPServer, SessionMixIn

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


@pytest.fixture(params=["plain", "tls"])
def secured(request: pytest.FixtureRequest, tls: Tls) -> Tls | None:
    return tls if request.param == "tls" else None


class WaitingServer(HTTPServer):
    """Waits for its handlers when it is closed."""

    daemon_threads = False


def connection_to(session: muxado.sync.Session, tls: Tls | None) -> HTTPConnection:
    """Return a connection to the service of `serving`."""
    if tls is None:
        return HTTPConnection(session, "service.internal", timeout=PATIENCE)
    return HTTPSConnection(session, "service.internal", context=tls.client, timeout=PATIENCE)


def ask(connection: HTTPConnection, path: str = "/") -> bytes:
    connection.request("GET", path)
    return connection.getresponse().read()


def drained_by(sync_ends: SyncEnds, side: str) -> threading.Thread:
    """Begin the shutdown of one side, which waits for the streams for as long as they take."""
    session = getattr(sync_ends, side)
    told = threading.Event()
    sync_ends.calling.on_draining(told.set)
    thread = threading.Thread(target=session.shutdown, args=(None,))
    thread.start()
    assert told.wait(PATIENCE)
    return thread


@pytest.mark.parametrize("side", ["calling", "serving"])
def test_idle_connections_end_when_the_session_drains(
    sync_ends: SyncEnds, secured: Tls | None, side: str
) -> None:
    with serving(sync_ends.serving, secured and secured.server):
        connections = [connection_to(sync_ends.calling, secured) for _ in range(3)]
        for connection in connections:
            assert ask(connection) == b"/"
        thread = drained_by(sync_ends, side)
        thread.join(PATIENCE)
        assert not thread.is_alive()
        # For the other side a handler may still be about to close its stream.
        reason = getattr(sync_ends, side).close_reason
        assert reason is not None
        assert reason.clean
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("side", ["calling", "serving"])
def test_a_running_request_is_waited_for_when_the_session_drains(
    sync_ends: SyncEnds, secured: Tls | None, side: str
) -> None:
    with serving(sync_ends.serving, secured and secured.server) as server:
        connection = connection_to(sync_ends.calling, secured)
        assert ask(connection) == b"/"  # it is one that has been idle, too
        connection.request("GET", "/wait")
        assert server.waiting.wait(PATIENCE)
        thread = drained_by(sync_ends, side)
        server.ending.set()
        assert connection.getresponse().read() == b"/wait"
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize("side", ["calling", "serving"])
def test_a_server_ends_idle_streams_of_clients_that_do_not(sync_ends: SyncEnds, side: str) -> None:
    with serving(sync_ends.serving), sync_ends.calling.open() as stream:
        stream.settimeout(PATIENCE)
        stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
        reader = stream.makefile("rb")
        while reader.readline() != b"\r\n":
            pass
        assert reader.read(1) == b"/"
        thread = drained_by(sync_ends, side)
        assert reader.read() == b""
        reader.close()
        stream.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_requests_sent_ahead_are_answered_though_the_session_drains(sync_ends: SyncEnds) -> None:
    with serving(sync_ends.serving) as server, sync_ends.calling.open() as stream:
        stream.settimeout(PATIENCE)
        stream.sendall(b"GET /wait HTTP/1.1\r\n\r\nGET /second HTTP/1.1\r\n\r\n")
        assert server.waiting.wait(PATIENCE)
        thread = drained_by(sync_ends, "serving")
        server.ending.set()
        answers = stream.makefile("rb").read()
        assert answers.endswith(b"/second")
        assert answers.count(b"HTTP/1.1 200 ") == 2
        stream.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_handler_with_a_timeout_hangs_up_on_the_idle(
    sync_ends: SyncEnds, secured: Tls | None
) -> None:
    class Impatient(Handler):
        timeout = 1.0  # the handshake and the request have to come within it too

    with serving(sync_ends.serving, secured and secured.server, Impatient):
        connection = connection_to(sync_ends.calling, secured)
        assert ask(connection) == b"/"
        assert connection.sock.recv(1) == b""
        connection.close()


def test_a_session_closed_in_order_prints_nothing_of_idle_connections(
    sync_ends: SyncEnds, secured: Tls | None, capfd: pytest.CaptureFixture[str]
) -> None:
    with WaitingServer(sync_ends.serving, Handler, ssl=secured and secured.server) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        connections = [connection_to(sync_ends.calling, secured) for _ in range(3)]
        for connection in connections:
            assert ask(connection) == b"/"
        sync_ends.calling.close()
        thread.join(PATIENCE)
    assert capfd.readouterr().err == ""
    for connection in connections:
        connection.close()


def test_a_request_cut_off_by_the_session_is_still_reported(
    sync_ends: SyncEnds, capfd: pytest.CaptureFixture[str]
) -> None:
    came = threading.Event()

    class Telling(Handler):
        def do_GET(self) -> None:
            came.set()
            self.rfile.read(1)

    with WaitingServer(sync_ends.serving, Telling) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        connection = connection_to(sync_ends.calling, None)
        connection.request("GET", "/")
        assert came.wait(PATIENCE)
        sync_ends.calling.abort(77)
        thread.join(PATIENCE)
    assert "Traceback" in capfd.readouterr().err
    connection.close()


def test_urllib_request_and_its_default_timeout(sync_ends: SyncEnds, tls: Tls) -> None:
    session = sync_ends.calling

    class Opener(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(functools.partial(HTTPConnection, session), request)

        def https_open(self, request: urllib.request.Request) -> Any:
            secure: Any = functools.partial(HTTPSConnection, session, context=tls.client)
            return self.do_open(secure, request)

    opener = urllib.request.build_opener(Opener)
    for scheme, context in (("http", None), ("https", tls.server)):
        with serving(sync_ends.serving, context):
            url = f"{scheme}://service.internal/path"
            for answer in (opener.open(url), opener.open(url, timeout=PATIENCE)):
                with answer:
                    assert answer.read() == b"/path"


@pytest.mark.parametrize("default", [None, 0.05])
def test_the_default_timeout_is_the_one_of_sockets(
    sync_ends: SyncEnds, default: float | None
) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(default)
    try:
        connection = HTTPConnection(sync_ends.calling, "service")
        connection.connect()
        assert connection.sock.gettimeout() == default
        connection.close()
    finally:
        socket.setdefaulttimeout(before)


def test_a_handler_logs_the_address_of_a_peer_without_host_and_port() -> None:
    logged: list[str] = []

    class Logging(Handler):
        def log_message(self, format: str, *args: object) -> None:
            logged.append(self.address_string())

    with muxado.testing.sync_pair() as (client, server), serving(server, None, Logging):
        connection = connection_to(client, None)
        assert ask(connection) == b"/"
        connection.close()
    assert logged == ["-"]


def test_handlers_that_set_options_of_sockets(sync_ends: SyncEnds, secured: Tls | None) -> None:
    class Quick(Handler):
        disable_nagle_algorithm = True

    with serving(sync_ends.serving, secured and secured.server, Quick):
        connection = connection_to(sync_ends.calling, secured)
        assert ask(connection, "/quick") == b"/quick"
        connection.close()


def test_xml_rpc_with_tls_inside(sync_ends: SyncEnds, tls: Tls) -> None:
    class Server(SessionMixIn, socketserver.ThreadingMixIn, SimpleXMLRPCServer):
        def __init__(self, session: muxado.sync.Session) -> None:
            SimpleXMLRPCDispatcher.__init__(self)
            self.logRequests = False
            super().__init__(session, SimpleXMLRPCRequestHandler, ssl=tls.server)

    class Transport(xmlrpc.client.Transport):
        def make_connection(self, host: Any) -> Any:
            return connection_to(sync_ends.calling, tls)

    with ExitStack() as stack:
        server = stack.enter_context(Server(sync_ends.serving))
        upper: Any = str.upper
        server.register_function(upper, "upper")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        proxy = xmlrpc.client.ServerProxy("http://service.internal", transport=Transport())
        assert proxy.upper("muxado") == "MUXADO"


def test_a_stream_has_no_options_and_says_what_to_use(sync_ends: SyncEnds, tls: Tls) -> None:
    with sync_ends.calling.open() as stream, pytest.raises(UsageError, match="to_socket"):
        tls.client.wrap_socket(stream, server_hostname="service.internal")  # type: ignore[arg-type]
