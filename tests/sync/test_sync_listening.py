"""connect, serve and listen for threads, and their ends."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import pytest

import muxado
from muxado import Config, ErrorCode, sync
from muxado.endpoint import NOTSENT_LOWAT
from muxado.sync import Session
from tests.certificates import Tls

from .helpers import PATIENCE, background, echo, receive_all

HOST = "127.0.0.1"


def echo_server(session: Session) -> None:
    session.serve(echo)


def exchange(session: Session, request: bytes) -> bytes:
    with session.open() as stream:
        stream.settimeout(PATIENCE)
        stream.sendall(request)
        stream.write_eof()
        return receive_all(stream)


def open_until_refused(session: Session) -> None:
    while True:
        session.open().close()
        session.ping(PATIENCE)


def abort_all(listener: sync.Listener) -> None:
    for session in listener:
        session.abort()


@pytest.fixture
def socket_path() -> Iterator[str]:
    with TemporaryDirectory(prefix="mux") as folder:
        yield str(Path(folder) / "s")


def test_a_server_lives_and_ends() -> None:
    with sync.serve(echo_server, HOST, 0) as server:
        ((_, port),) = server.addresses
        (sock,) = server.sockets
        assert sock.getsockname() == (HOST, port)
        client = sync.connect(HOST, port)
        assert exchange(client, b"hello") == b"hello"
        assert [session.remote_address for session in server.sessions] == [client.local_address]
        assert client.remote_address == (HOST, port)
    client.wait_closed(PATIENCE)
    assert client.close_reason is not None
    assert client.close_reason.clean
    assert (server.addresses, server.sockets, server.sessions) == ([], (), [])
    server.close()
    server.wait_closed(PATIENCE)
    with pytest.raises(ConnectionRefusedError):
        sync.connect(HOST, port)


def test_serving_for_ever_ends_with_close() -> None:
    server = sync.serve(echo_server, HOST, 0)
    with background(server.serve_forever) as serving:
        with sync.connect(*server.addresses[0]) as client:
            assert exchange(client, b"x") == b"x"
            with pytest.raises(TimeoutError):
                server.wait_closed(0.01)
        server.close()
        serving.result(PATIENCE)


def test_shutting_a_server_down_waits_for_the_streams() -> None:
    server = sync.serve(echo_server, HOST, 0)
    with sync.connect(*server.addresses[0]) as client, client.open() as stream:
        stream.settimeout(PATIENCE)
        stream.sendall(b"x")
        assert stream.recv(1) == b"x"
        with background(server.shutdown, PATIENCE) as ending:
            with pytest.raises(muxado.PeerGone):
                open_until_refused(client)
            stream.sendall(b"y")
            stream.write_eof()
            assert receive_all(stream) == b"y"
            ending.result(PATIENCE)


def test_handlers_run_in_an_executor() -> None:
    names = []

    def handle(session: Session) -> None:
        names.append(threading.current_thread().name)
        session.serve(echo)

    with (
        ThreadPoolExecutor(2, "mine") as pool,
        sync.serve(handle, HOST, 0, executor=pool) as server,
        sync.connect(*server.addresses[0]) as client,
    ):
        assert exchange(client, b"x") == b"x"
    assert [name[:4] for name in names] == ["mine"]


def test_a_handler_that_raises_aborts_its_session(caplog: pytest.LogCaptureFixture) -> None:
    def fail(session: Session) -> None:
        raise ZeroDivisionError("on purpose")

    with sync.serve(fail, HOST, 0) as server, sync.connect(*server.addresses[0]) as client:
        client.wait_closed(PATIENCE)
        assert client.close_reason is not None
        assert client.close_reason.code == ErrorCode.INTERNAL_ERROR
    assert [entry.levelno for entry in caplog.records if entry.levelno >= logging.ERROR] == [40]
    assert "ZeroDivisionError: on purpose" in caplog.text


@pytest.mark.parametrize("interrupted", [False, True], ids=["left", "interrupted"])
def test_the_end_of_a_servers_block_does_not_wait_for_a_stuck_handler(
    interrupted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    started, freed = threading.Event(), threading.Event()

    def handle(stream: sync.Stream) -> None:
        started.set()
        freed.wait()

    config = Config(close_timeout=0.1)
    ended = pytest.raises(KeyboardInterrupt) if interrupted else contextlib.nullcontext()
    try:
        with (
            ended,
            sync.serve(lambda session: session.serve(handle), HOST, 0, config=config) as server,
        ):
            client = sync.connect(*server.addresses[0], config=config)
            stream = client.open(eager=True)
            assert started.wait(PATIENCE)
            if interrupted:
                raise KeyboardInterrupt
        assert not freed.is_set()
        assert "handlers of its streams go on" in caplog.text
        stream.close()
        client.abort()
    finally:
        freed.set()


def test_a_servers_block_does_not_wait_for_the_stuck_handler_of_a_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    started, freed = threading.Event(), threading.Event()

    def handle(session: sync.Session) -> None:
        started.set()
        freed.wait()

    config = Config(close_timeout=0.1)
    try:
        with sync.serve(handle, HOST, 0, config=config) as server:
            client = sync.connect(*server.addresses[0], config=config)
            assert started.wait(PATIENCE)
        assert not freed.is_set()
        assert "goes on without it" in caplog.text
        client.abort()
    finally:
        freed.set()


def test_a_handler_of_streams_given_to_serve_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    def handle(stream: Any) -> None:
        stream.recv(100)

    with sync.serve(handle, HOST, 0) as server:
        assert repr(server) == f"<Server {server.addresses[0]!r} sessions=0>"
        with sync.connect(*server.addresses[0]) as client:
            client.wait_closed(PATIENCE)
    assert "is for serve_streams(), or for session.serve()" in caplog.text


def test_a_listener_hands_out_sessions_until_it_is_closed() -> None:
    with sync.listen(HOST, 0) as listener:
        with pytest.raises(TimeoutError):
            listener.accept(0.01)
        with (
            sync.connect(*listener.addresses[0]) as client,
            listener.accept(PATIENCE) as session,
            session.open() as stream,
        ):
            stream.sendall(b"hello")
            listener.close()
            with client.accept(PATIENCE) as other:
                assert other.recv(5) == b"hello"
            client.close()
    with pytest.raises(muxado.SessionClosed):
        listener.accept()
    assert list(listener) == []


def test_closing_a_listener_wakes_accept_and_ends_sessions_that_were_not_accepted() -> None:
    listener = sync.listen(HOST, 0)
    with background(abort_all, listener) as accepting:
        sync.connect(*listener.addresses[0]).wait_closed(PATIENCE)
        listener.close()
        accepting.result(PATIENCE)
    listener = sync.listen(HOST, 0)
    with sync.connect(*listener.addresses[0]) as client:
        client.ping(PATIENCE)
        listener.close()
        client.wait_closed(PATIENCE)


def test_a_unix_socket(socket_path: str) -> None:
    with sync.serve(echo_server, path=socket_path) as server:
        assert server.addresses == [socket_path]
        with sync.connect(path=socket_path) as client:
            assert exchange(client, b"local") == b"local"


def test_a_path_can_be_listened_on_again(socket_path: str) -> None:
    for _ in range(2):
        sync.listen(path=socket_path).close()
        assert Path(socket_path).is_socket()
    Path(socket_path).unlink()
    Path(socket_path).write_text("no socket")
    with pytest.raises(OSError, match="in use"):
        sync.listen(path=socket_path)
    assert Path(socket_path).read_text() == "no socket"


def test_tls_both_ways(tls: Tls) -> None:
    with sync.serve(echo_server, HOST, 0, ssl=tls.mutual_server) as server:
        port = server.addresses[0][1]
        with sync.connect("localhost", port, ssl=tls.mutual_client) as client:
            assert exchange(client, b"secret") == b"secret"
        with pytest.raises(ssl.SSLCertVerificationError):
            sync.connect("localhost", port, ssl=True)


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="the system can't")
def test_the_kernel_holds_little_that_is_unsent() -> None:
    with (
        sync.listen(HOST, 0) as listener,
        sync.connect(*listener.addresses[0]) as client,
        listener.accept(PATIENCE) as server,
    ):
        for session in (client, server):
            sock = session.get_extra_info("socket")
            limit = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
            assert limit == NOTSENT_LOWAT


def test_sockets_of_ones_own() -> None:
    with sync.serve(echo_server, sock=socket.create_server((HOST, 0))) as server:
        sock = socket.create_connection(server.addresses[0])
        with sync.connect(sock=sock) as client:
            assert exchange(client, b"mine") == b"mine"


def test_all_addresses_by_default() -> None:
    with (
        sync.serve(echo_server, port=0) as server,
        sync.connect(HOST, server.addresses[0][1]) as client,
    ):
        assert exchange(client, b"x") == b"x"


Name = Callable[..., None]


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Name:
    """Let the name \"both\" have these addresses."""
    ask = socket.getaddrinfo

    def define(*places: tuple[Any, ...]) -> None:
        def answer(host: str, *args: Any, **kwds: Any) -> list[Any]:
            assert host == "both"
            return [
                answer
                for place in places
                for answer in ask(place[0], place[1], type=socket.SOCK_STREAM)
            ]

        monkeypatch.setattr(socket, "getaddrinfo", answer)

    return define


@pytest.fixture
def full() -> Iterator[tuple[str, int]]:
    """The address of a listener that is too busy to take another connection."""
    with ExitStack() as stack:
        place = stack.enter_context(socket.create_server((HOST, 0), backlog=0)).getsockname()
        with contextlib.suppress(TimeoutError):
            while True:
                stack.enter_context(socket.create_connection(place, 0.05))
        yield place


def test_all_addresses_of_a_name_are_listened_on(name: Name) -> None:
    name((HOST, 0), ("::1", 0), ("2001:db8::1", 0))  # the last is not this machine's
    with sync.listen("both", 0) as listener:
        assert [place[0] for place in listener.addresses] == [HOST, "::1"]
        for family, place in zip(
            (socket.AF_INET, socket.AF_INET6), listener.addresses, strict=True
        ):
            with socket.socket(family) as sock:
                sock.connect(place)
                listener.accept(PATIENCE).abort()


def test_a_name_without_an_address_here_can_not_be_listened_on(name: Name) -> None:
    name(("2001:db8::1", 0))
    with pytest.raises(OSError, match="assign"):
        sync.listen("both", 0)


def test_dialling_tries_every_address(name: Name, full: tuple[str, int]) -> None:
    with sync.listen(HOST, 0) as listener:
        name(full, listener.addresses[0])
        with sync.connect("both", 1, timeout=PATIENCE), listener.accept(PATIENCE):
            pass


def test_all_addresses_share_one_deadline(name: Name, full: tuple[str, int]) -> None:
    name(*[full] * 100)
    started = monotonic()
    with pytest.raises(TimeoutError):
        sync.connect("both", 1, timeout=0.2)
    assert monotonic() - started < 100 * 0.2 / 2


def test_dialling_has_a_deadline(tls: Tls) -> None:
    with socket.create_server((HOST, 0)) as silent, pytest.raises(TimeoutError):
        sync.connect(*silent.getsockname(), ssl=tls.client, timeout=0.02)


def test_a_place_is_named_in_exactly_one_way(tls: Tls) -> None:
    wrongs: list[dict[str, Any]] = [{}, {"host": "x"}, {"host": "x", "port": 1, "path": "y"}]
    for call in (sync.connect, sync.listen):
        for wrong in wrongs:
            with pytest.raises(muxado.UsageError):
                call(**wrong)
    with pytest.raises(muxado.UsageError, match="server_hostname"):
        sync.connect(path="x", ssl=True)


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class OverStream(HTTPConnection):
    """http.client over a stream of a session."""

    def __init__(self, session: Session) -> None:
        super().__init__("muxado", timeout=PATIENCE)
        self.session = session

    def connect(self) -> None:
        stream = self.session.open()
        stream.settimeout(PATIENCE)
        self.sock = stream


def test_http_over_streams() -> None:
    with sync.listen(HOST, 0) as listener, sync.connect(*listener.addresses[0]) as client:
        session = listener.accept(PATIENCE)
        with session, ThreadingHTTPServer(("", 0), Hello, bind_and_activate=False) as server:
            server.socket.close()
            server.socket = session.listener()  # type: ignore[assignment]
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()

            def ask(number: int) -> None:
                connection = OverStream(client)
                for size in (number, 100_000):  # the second on the same stream
                    connection.request("POST", "/", body=b"x" * size)
                    response = connection.getresponse()
                    assert response.status == 200
                    assert response.read() == b"x" * size
                connection.close()

            with ThreadPoolExecutor(8) as pool:
                assert list(pool.map(ask, range(24))) == [None] * 24
            server.shutdown()
            thread.join(PATIENCE)
            client.close()
