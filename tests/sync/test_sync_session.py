"""Sessions for threads: deadlines, waking, and serving."""

from __future__ import annotations

import select
import socket
import socketserver
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import muxado
from muxado import sync
from muxado.sync import Session, Stream
from muxado.testing import sync_pair
from tests.certificates import Tls
from tests.core.peer import data

from .conftest import Ends
from .helpers import PATIENCE, background, echo, opened, receive_all


def test_every_wait_has_a_deadline(ends: Ends) -> None:
    client, server = ends
    listener = server.listener()
    listener.settimeout(0.01)
    with opened(*ends) as (near, far):
        waits: list[Callable[[], object]] = [
            lambda: client.accept(0.01),
            lambda: client.accept(0),
            lambda: client.wait_closed(0.01),
            lambda: near.wait_reset(0.01),
            lambda: near.wait_closed(0.01),
            listener.accept,
        ]
        for wait in waits:
            with pytest.raises(TimeoutError):
                wait()
        listener.settimeout(0)
        assert listener.gettimeout() == 0
        with pytest.raises(BlockingIOError):
            listener.accept()
        far.sendall(b"nothing is hurt")
        assert near.recv(100) == b"nothing is hurt"


def test_a_ping_has_a_deadline() -> None:
    near, silent = socket.socketpair()
    with silent, sync.client(near) as client:
        with pytest.raises(TimeoutError):
            client.ping(0.01)
        client.abort()


@pytest.mark.parametrize("how", ["close", "abort"])
def test_the_end_wakes_the_calls_that_wait(how: str) -> None:
    near, silent = socket.socketpair()
    with silent:
        client = sync.client(near)
        stream, full = client.open(), client.open()
        full.sendall(bytes(1 << 20))
        calls: list[Callable[[], object]] = [
            client.accept,
            client.ping,
            client.listener().accept,
            lambda: stream.recv(1),
            lambda: full.send(b"x"),
        ]
        with ThreadPoolExecutor(len(calls)) as pool:
            futures = [pool.submit(call) for call in calls]
            while not _all_wait(client, stream, full):
                assert not any(future.done() for future in futures)
            getattr(client, how)()
            for future in futures:
                assert isinstance(future.exception(PATIENCE), muxado.SessionClosed)
        client.abort()
        client.wait_closed(PATIENCE)


def _all_wait(client: Session, stream: Stream, full: Stream) -> bool:
    with client._driver.lock:
        reading = stream._core.read_waiter is not None
        writing = full._core.write_waiter is not None
        return reading and writing and len(client._waiters) + len(client._acceptors) == 3


def test_a_listener_can_be_selected(ends: Ends) -> None:
    client, server = ends
    listener = server.listener()
    assert server.listener() is listener
    assert _ready(listener, 0) is False
    with client.open(eager=True) as first, client.open(eager=True) as second:
        assert _ready(listener)
        stream, address = listener.accept()
        assert (stream.id, address) == (first.id, server.remote_address)
        stream.close()
        assert _ready(listener)
        with server.accept(PATIENCE) as stream:
            assert stream.id == second.id
        assert _ready(listener, 0) is False
    client.close()
    assert _ready(listener)
    with pytest.raises(muxado.SessionClosed):
        listener.accept()
    server.wait_closed(PATIENCE)
    with pytest.raises(OSError, match="session"):
        listener.accept()
    assert _ready(listener, 0) is False  # a loop that selects does not go round in circles
    listener.close()
    assert listener.fileno() == -1


def test_a_listener_made_late_knows_what_waits(ends: Ends) -> None:
    client, server = ends
    with client.open(eager=True) as stream:
        client.ping(PATIENCE)
        with server.listener().accept()[0] as far:
            assert far.id == stream.id
        server.listener().close()
        assert _ready(server.listener(), 0) is False
    client.close()
    server.wait_closed(PATIENCE)
    server.listener().close()
    assert _ready(server.listener())
    server.listener().close()


def _ready(listener: sync.StreamListener, timeout: float = PATIENCE) -> bool:
    return bool(select.select([listener], [], [], timeout)[0])


def test_socketserver_serves_streams(ends: Ends) -> None:
    client, server = ends

    class Upper(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line.upper())

    class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
        daemon_threads = True

    with Server(("", 0), Upper, bind_and_activate=False) as upper:
        upper.socket.close()
        upper.socket = server.listener()  # type: ignore[assignment]
        thread = threading.Thread(target=upper.serve_forever, args=(0.01,))
        thread.start()
        for _ in range(3):
            with client.open() as stream:
                stream.settimeout(PATIENCE)
                stream.sendall(b"one\ntwo\n")
                stream.write_eof()
                assert receive_all(stream) == b"ONE\nTWO\n"
        upper.shutdown()
        thread.join(PATIENCE)
        assert not server.closed


def test_a_handler_that_works_can_see_that_its_stream_was_reset(ends: Ends) -> None:
    client, server = ends
    began, go_on = threading.Event(), threading.Event()
    seen = []

    def work(stream: Stream) -> None:
        seen.append(stream.is_reset)
        began.set()
        assert go_on.wait(PATIENCE)
        seen.append(stream.is_reset)
        with pytest.raises(muxado.StreamReset):
            stream.recv(1)
        stream.session.close()

    with background(server.serve, work) as serving:
        stream = client.open(eager=True)
        assert began.wait(PATIENCE)
        stream.reset()
        assert not stream.is_reset  # it was this side
        client.ping(PATIENCE)
        go_on.set()
        serving.result(PATIENCE)
    assert seen == [False, True]


def test_serve_runs_handlers_in_an_executor(ends: Ends) -> None:
    client, server = ends
    names = set()

    def handle(stream: Stream) -> None:
        names.add(threading.current_thread().name.rstrip("0123456789"))
        echo(stream)

    with (
        ThreadPoolExecutor(2, "mine") as pool,
        background(lambda: server.serve(handle, executor=pool)),
    ):
        for _ in range(5):
            with client.open() as stream:
                stream.settimeout(PATIENCE)
                stream.sendall(b"x")
                stream.write_eof()
                assert receive_all(stream) == b"x"
        client.close()
    assert names == {"mine_"}


def test_serve_with_an_executor_that_was_shut_down(ends: Ends) -> None:
    client, server = ends
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with background(lambda: server.serve(echo, executor=pool)) as serving:
        with client.open(eager=True) as stream:
            assert stream.wait_reset(PATIENCE) == muxado.ErrorCode.STREAM_REFUSED
        with pytest.raises(RuntimeError):
            serving.result(PATIENCE)


def test_an_ssl_socket_carries_a_session(tls: Tls) -> None:
    near, far = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:
        securing = pool.submit(tls.server.wrap_socket, far, server_side=True)
        secured = tls.client.wrap_socket(near, server_hostname="localhost")
        with (
            sync.client(secured) as client,
            sync.server(securing.result(PATIENCE)) as server,
            opened(client, server) as (here, there),
            background(echo, there),
        ):
            for _ in range(20):
                here.sendall(bytes(100_000))
                assert here.recv(100_000, socket.MSG_WAITALL) == bytes(100_000)
            here.write_eof()


def test_leaving_a_session_by_an_exception_aborts_it() -> None:
    with pytest.raises(ZeroDivisionError), sync_pair() as (client, _):
        raise ZeroDivisionError
    assert client.close_reason is not None
    assert client.close_reason.code == muxado.ErrorCode.INTERNAL_ERROR


def test_the_io_thread_ends_with_its_session() -> None:
    before = set(threading.enumerate())
    with sync_pair() as ends:
        new = set(threading.enumerate()) - before
        assert len(new) == 2
        assert all(thread.daemon for thread in new)
        with opened(*ends) as (near, far):
            near.sendall(b"x")
            assert far.recv(1) == b"x"
    for thread in new:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_ping_under_way_fails_when_the_peer_uses_its_stream() -> None:
    near, far = socket.socketpair()
    with far, sync.server(near) as session, background(session.ping, PATIENCE) as ping:
        assert far.recv(100)  # the ping
        far.sendall(data(1, b"mine", syn=True))
        with pytest.raises(muxado.UsageError, match="stream 1"):
            ping.result(PATIENCE)
        session.abort()
