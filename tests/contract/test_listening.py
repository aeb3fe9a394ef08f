"""Listeners and servers: what hurts one connection hurts no other, and what is well is quiet."""

from __future__ import annotations

import logging
import resource
import selectors
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from muxado import Config, ErrorCode
from muxado.endpoint import MOST_PENDING
from tests.certificates import Tls
from tests.raw import PING, reset

from .conftest import FRONT_ENDS, SCHEMES, Place, still_works
from .sides import PATIENCE, FrontEnd

PONG = reset(1, ErrorCode.STREAM_CLOSED)


@pytest.fixture(params=FRONT_ENDS)
def front_end(request: pytest.FixtureRequest, front_ends: dict[str, FrontEnd]) -> FrontEnd:
    return front_ends[request.param]


@pytest.fixture(params=SCHEMES)
def alone(request: pytest.FixtureRequest, front_end: FrontEnd, tls: Tls) -> Place:
    """A front end by itself, plain and with TLS."""
    contexts = (tls.client, tls.server) if request.param == "tls" else (None, None)
    return Place(front_end, front_end, *contexts)


@pytest.mark.parametrize("way", ["close", "shutdown", "the server closes"])
def test_a_clean_end_logs_nothing(alone: Place, way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "muxado")
    with ExitStack() as dialled:
        with alone.server.serve(alone.server_tls) as port:
            connecting = alone.client.connect(port, alone.client_tls, Config())
            client = dialled.enter_context(connecting)
            stream = client.open()
            assert stream.exchange(b"hello") == b"hello"
            stream.close()
            if way == "close":
                client.close()
                client.wait_closed()
            elif way == "shutdown":
                client.shutdown()
        client.wait_closed()
    assert [record for record in caplog.records if record.name == "muxado"] == []


# Clients that reset their connections


def dialled(port: int, context: ssl.SSLContext | None = None) -> socket.socket:
    """Connect a socket that resets its connection when it is closed."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if context is not None:
        return context.wrap_socket(sock, server_hostname="localhost")
    return sock


def ping(sock: socket.socket) -> None:
    """See that there is a session at the other end."""
    sock.sendall(PING)
    read_pong(sock)


def read_pong(sock: socket.socket) -> None:
    """Read up to the answer to a ping; the session may send one of its own."""
    received = b""
    while PONG not in received:
        piece = sock.recv(1000)
        assert piece
        received += piece


def test_a_listener_outlives_a_reset_in_the_backlog(alone: Place) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    dialled(listening.getsockname()[1]).close()
    with alone.server.listen(alone.server_tls, Config(), listening) as listener:
        still_works(alone, listener)


# The same, if the reset is as quick as the listener.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02"], ids=["nothing", "half a header"])
def test_a_listener_outlives_a_reset_in_the_handshake(alone: Place, said: bytes) -> None:
    with alone.server.listen(alone.server_tls, Config()) as listener:
        for _ in range(3):
            with dialled(listener.port) as sock:
                sock.sendall(said)
        still_works(alone, listener)


def test_a_listener_outlives_a_reset_before_accept(alone: Place) -> None:
    with alone.server.listen(alone.server_tls, Config()) as listener:
        with dialled(listener.port, alone.client_tls) as sock:
            ping(sock)
        still_works(alone, listener)


def test_a_listener_outlives_a_reset_after_accept(alone: Place) -> None:
    with alone.server.listen(alone.server_tls, Config()) as listener:
        with dialled(listener.port, alone.client_tls) as sock:
            session = listener.accept()
            ping(sock)
        session.wait_closed()
        reason = session.close_reason
        assert reason is not None
        assert reason.by_peer
        still_works(alone, listener)


# More connections than there are slots


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Allow as many descriptors as the system does: a session for threads has several."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_only_so_many_connections_wait_to_be_accepted(
    front_end: FrontEnd, descriptors: None
) -> None:
    with front_end.listen(None, Config()) as listener, ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())

        def newly_served(count: int) -> list[socket.socket]:
            """Wait until so many of those that wait are served; see that no other is."""
            found: list[socket.socket] = []
            while len(found) < count:
                ready = selector.select(PATIENCE)
                assert ready
                for key, _ in ready:
                    assert isinstance(key.fileobj, socket.socket)
                    read_pong(key.fileobj)
                    selector.unregister(key.fileobj)
                    found.append(key.fileobj)
            for sock in [*served, *found]:  # by then the others would have got their answers
                ping(sock)
            assert selector.select(0) == []
            assert len(found) == count
            return found

        served: list[socket.socket] = []
        for _ in range(MOST_PENDING):
            served.append(stack.enter_context(dialled(listener.port)))
            ping(served[-1])
        for _ in range(44):
            sock = stack.enter_context(dialled(listener.port))
            sock.sendall(PING)
            selector.register(sock, selectors.EVENT_READ)
        served += newly_served(0)
        accepted = [listener.accept() for _ in range(2)]
        served += newly_served(2)
        for session in accepted:
            session.abort()
