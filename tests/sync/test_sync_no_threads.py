"""What goes on when no more threads can be started, and what does when they can again."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from muxado import ErrorCode, sync
from muxado.sync import acceptor
from tests.certificates import Tls

from .conftest import Ends
from .helpers import PATIENCE

HOST = "127.0.0.1"


@contextmanager
def no_threads() -> Iterator[None]:
    """Ask for more stack than there are addresses: a thread that is to start then can't."""
    threading.stack_size(1 << 46)
    try:
        yield
    finally:
        threading.stack_size(0)


@pytest.fixture
def one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a listener go on only if it has given back the slot of every failure."""
    monkeypatch.setattr(acceptor, "MOST_PENDING", 1)


def test_a_listener_outlives_it(one_slot: None, caplog: pytest.LogCaptureFixture) -> None:
    with sync.listen(HOST, 0) as listener:
        with no_threads(), socket.create_connection(listener.addresses[0]) as sock:
            sock.settimeout(PATIENCE)
            assert sock.recv(1) == b""
        with sync.connect(*listener.addresses[0]), listener.accept(PATIENCE):
            pass
        assert [entry.levelno for entry in caplog.records] == [logging.WARNING]


def test_a_listener_outlives_it_after_the_handshake(one_slot: None, tls: Tls) -> None:
    with sync.listen(HOST, 0, ssl=tls.server) as listener:
        with socket.create_connection(listener.addresses[0]) as sock:
            sock.settimeout(PATIENCE)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            secured = tls.client.wrap_bio(incoming, outgoing, server_hostname="localhost")
            with pytest.raises(ssl.SSLWantReadError):
                secured.do_handshake()
            sock.sendall(outgoing.read())
            incoming.write(sock.recv(65536))  # so the handshake has its thread already
            with no_threads():
                secured.do_handshake()
                sock.sendall(outgoing.read())
                while sock.recv(65536):
                    pass
        with sync.connect("localhost", listener.addresses[0][1], ssl=tls.client):
            listener.accept(PATIENCE).abort()


def test_dialling_leaves_nothing_open() -> None:
    with socket.create_server((HOST, 0)) as listening:
        with no_threads(), pytest.raises(RuntimeError):
            sync.connect(*listening.getsockname())
        peer, _ = listening.accept()
        with peer:
            peer.settimeout(PATIENCE)
            assert peer.recv(1) == b""


def test_a_stream_becomes_no_socket(ends: Ends) -> None:
    client, server = ends
    with client.open(eager=True) as near, server.accept(PATIENCE) as far:
        with no_threads(), pytest.raises(OSError, match="thread"):
            far.to_socket()
        assert near.wait_reset(PATIENCE) == ErrorCode.INTERNAL_ERROR
