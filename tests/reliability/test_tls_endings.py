"""TLS that ends without a close_notify, or waits for one that never comes."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

import muxado
from muxado import Config, ErrorCode, Session
from muxado.wire.codec import DATA
from tests.patience import patience

from ..certificates import Tls
from ..frames import FrameReader
from ..raw import reset

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_complaints")]

MIB = 1024 * 1024
CLOSE_TIMEOUT = 0.25
# What a busy machine may add; TLS's own patience is 30 s.
SLACK = patience(5)
CONFIG = Config(initial_window=32 * MIB, close_timeout=CLOSE_TIMEOUT, ping_interval=None)
# uvloop keeps such an end to itself while it has something to write: the pings find it out.
PINGS: dict[str, Any] = {"ping_interval": 0.1, "ping_timeout": 0.15}


@asynccontextmanager
async def dialled(
    tls: Tls, config: Config = CONFIG
) -> AsyncIterator[tuple[Session, ssl.SSLSocket]]:
    """Give a session, and a server that is no session, in blocking calls."""

    def accept() -> ssl.SSLSocket:
        sock, _ = listener.accept()
        return tls.server.wrap_socket(sock, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        accepting = asyncio.create_task(asyncio.to_thread(accept))
        session = await muxado.connect("localhost", port, ssl=tls.client, config=config)
        with await accepting as peer:
            yield session, peer


@asynccontextmanager
async def bounded() -> AsyncIterator[None]:
    """See that the block takes no longer than a session may, to end."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < CLOSE_TIMEOUT + SLACK


async def test_the_connection_ends_without_a_goaway_while_sends_are_pending(tls: Tls) -> None:
    config = replace(CONFIG, **PINGS)
    async with dialled(tls, config) as (session, peer), session.open() as stream:
        await stream.write(bytes(32 * MIB))  # far more than goes out unread
        async with bounded():
            # The end of TCP alone; the peer goes on neither to read nor to close.
            socket.socket.shutdown(peer, socket.SHUT_WR)
            with pytest.raises(muxado.SessionError):
                await stream.read(1)
            await session.wait_closed()
        reason = session.close_reason
        assert reason is not None
        assert not reason.clean
        assert session.stats().bytes_queued == 0


def read_to_the_end(peer: ssl.SSLSocket) -> bytes:
    """Read to the session's GOAWAY, answering pings; return what its first stream carried."""
    reader = FrameReader()
    answered = 0
    while data := peer.recv(65536):
        reader.feed(data)
        pings = sum(frame.kind == DATA and frame.stream_id == 1 for frame in reader.frames)
        peer.sendall(reset(1, ErrorCode.STREAM_CLOSED) * (pings - answered))
        answered = pings
    return b"".join(frame.body for frame in reader.frames if frame.stream_id == 3)


async def test_a_goaway_that_is_never_answered(tls: Tls) -> None:
    async with dialled(tls) as (session, peer):
        stream = session.open()
        await stream.write(b"last words")
        stream.close()
        reading = asyncio.create_task(asyncio.to_thread(read_to_the_end, peer))
        async with bounded():
            session.close()
            await session.wait_closed()
        assert await reading == b"last words"
        reason = session.close_reason
        assert reason is not None
        assert reason.clean
