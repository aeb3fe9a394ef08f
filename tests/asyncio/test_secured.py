"""Sessions over TLS against a peer that is no session: how they end, and what they tell."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import muxado
from muxado import Config, Session
from tests.certificates import Tls
from tests.patience import patience

pytestmark = pytest.mark.anyio

LOCAL = "127.0.0.1"
CONFIG = Config(ping_interval=None, close_timeout=patience(10))


def accept(listener: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    sock, _ = listener.accept()
    sock.settimeout(patience(30))
    # With an end that is no close_notify, it raises.
    return context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)


@asynccontextmanager
async def dialled(tls: Tls, **options: Any) -> AsyncIterator[tuple[Session, ssl.SSLSocket]]:
    """Give a session and its peer, in blocking calls."""
    with socket.create_server((LOCAL, 0)) as listener:
        port = listener.getsockname()[1]
        accepting = asyncio.create_task(asyncio.to_thread(accept, listener, tls.server))
        session = await muxado.connect(
            "localhost", port, ssl=tls.client, family=socket.AF_INET, config=CONFIG, **options
        )
        with await accepting as peer:
            try:
                yield session, peer
            finally:
                session.abort()
                await session.wait_closed()


def read_to_the_end(peer: ssl.SSLSocket) -> bool:
    """Read until the close_notify, which this waits for; return whether anything came first."""
    some = bool(peer.recv(65536))
    while peer.recv(65536):
        pass
    return some


async def test_the_end_of_a_session_is_a_close_notify_after_its_last_frames(tls: Tls) -> None:
    if not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
        pytest.skip("uvloop's own TLS says nothing after the peer's end")
    async with dialled(tls) as (session, peer):
        reading = asyncio.create_task(asyncio.to_thread(read_to_the_end, peer))
        session.go_away(7)  # no ping has to confirm this end: the peer's is there first
        socket.socket.shutdown(peer, socket.SHUT_WR)
        assert await reading
        peer.close()
        await session.wait_closed()


async def test_what_a_session_tells_of_its_connection(tls: Tls) -> None:
    async with dialled(tls) as (session, peer):
        cipher = session.get_extra_info("cipher")
        assert cipher == peer.cipher()
        certificate = session.get_extra_info("peercert")
        assert ("DNS", "localhost") in certificate["subjectAltName"]
        assert session.get_extra_info("sslcontext") is tls.client
        assert session.get_extra_info("ssl_object").version() == peer.version()
        session.abort()
        await session.wait_closed()
        assert session.get_extra_info("cipher") == cipher
        assert session.get_extra_info("peercert") == certificate


async def test_a_handshake_has_its_time(tls: Tls) -> None:
    with socket.create_server((LOCAL, 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ConnectionAbortedError):
            await muxado.connect(
                LOCAL, port, ssl=tls.client, server_hostname="localhost", ssl_handshake_timeout=0.05
            )


async def test_a_peer_that_hangs_up_in_the_handshake(tls: Tls) -> None:
    with socket.create_server((LOCAL, 0)) as listener:

        def hang_up() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1)

        hanging_up = asyncio.create_task(asyncio.to_thread(hang_up))
        with pytest.raises(ConnectionResetError):
            await muxado.connect(LOCAL, listener.getsockname()[1], ssl=tls.client)
        await hanging_up


async def test_what_can_not_be_decrypted_ends_the_session(tls: Tls) -> None:
    async with dialled(tls) as (session, peer):
        with socket.socket(fileno=peer.detach()) as plain:
            plain.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            with pytest.raises(muxado.SessionError, match="lost"):
                await session.ping()
        reason = session.close_reason
        assert reason is not None
        assert isinstance(reason.exception, ssl.SSLError)
