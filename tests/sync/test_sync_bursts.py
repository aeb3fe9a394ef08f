"""Many streams at once: what the I/O thread leaves to those who accept."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from muxado import Config, sync
from muxado.core import CoreSession
from muxado.sync import Session
from tests.certificates import Tls

from .helpers import PATIENCE, background

BURST = 400
CONFIG = Config(accept_backlog=16)


def burst() -> bytes:
    """Return what a client sends that opens many streams in one go."""
    core = CoreSession(client=True, config=Config(), now=0.0)
    for _ in range(BURST):
        core.open(eager=True)
    return core.data_to_send(0.0, 1 << 20)


def secured_pair(tls: Tls) -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:
        securing = pool.submit(tls.server.wrap_socket, far, server_side=True)
        return tls.client.wrap_socket(near, server_hostname="localhost"), securing.result(PATIENCE)


def accept_all(session: Session) -> int:
    accepted = 0
    while accepted < BURST:
        session.accept(PATIENCE).close()
        accepted += 1
    return accepted


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_a_burst_waits_for_those_who_accept(secured: bool, tls: Tls) -> None:
    near, far = secured_pair(tls) if secured else socket.socketpair()
    with near, sync.server(far, config=CONFIG) as session:
        with background(accept_all, session) as accepting:
            near.sendall(burst())
            assert accepting.result(PATIENCE) == BURST
        assert session.stats().refusals == 0
        session.abort()


def test_decrypted_bytes_that_came_before_the_session(tls: Tls) -> None:
    """An upgrade's answer may share a TLS record with the first frames."""
    core = CoreSession(client=False, config=Config(), now=0.0)
    core.open().write(b"hello")
    near, peer = secured_pair(tls)
    with peer:
        peer.sendall(b"go on\n" + core.data_to_send(0.0, 1 << 20))
        assert near.recv(6) == b"go on\n"
        with sync.client(near) as session:
            with session.accept(PATIENCE) as stream:
                assert stream.recv(5) == b"hello"
            session.abort()
