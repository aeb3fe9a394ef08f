"""The websockets library over streams, from threads and on asyncio."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import websockets.sync.client
import websockets.sync.server
from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosedOK
from websockets.uri import parse_uri

import muxado
import muxado.sync
from muxado.adapters.websockets import ListeningSocket

from .conftest import PATIENCE, SyncEnds, Tls

MIB = 1024 * 1024


def reverse(connection: websockets.sync.server.ServerConnection) -> None:
    for message in connection:
        connection.send(message[::-1])


@contextmanager
def serving(session: muxado.sync.Session, context: ssl.SSLContext | None = None) -> Iterator[None]:
    listener: Any = ListeningSocket(session, ssl=context)
    with websockets.sync.server.serve(reverse, sock=listener, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(PATIENCE)
    assert not thread.is_alive()


def test_from_threads(sync_ends: SyncEnds) -> None:
    stream = sync_ends.calling.open().to_socket()
    with (
        serving(sync_ends.serving),
        websockets.sync.client.connect("ws://service/", sock=stream, max_size=None) as socket,
    ):
        socket.send("muxado")
        assert socket.recv(PATIENCE) == "odaxum"
        socket.send(bytes(MIB) + b"!")
        assert socket.recv(PATIENCE) == b"!" + bytes(MIB)


def test_with_tls_inside(sync_ends: SyncEnds, tls: Tls) -> None:
    stream = sync_ends.calling.open().to_socket()
    with (
        serving(sync_ends.serving, tls.server),
        websockets.sync.client.connect(
            "wss://service.internal/", sock=stream, ssl=tls.client
        ) as connection,
    ):
        connection.send("muxado")
        assert connection.recv(PATIENCE) == "odaxum"


def test_a_context_for_the_listening_socket_is_refused_in_words(
    sync_ends: SyncEnds, tls: Tls
) -> None:
    listener: Any = ListeningSocket(sync_ends.serving)
    with pytest.raises(muxado.UsageError, match=r"ListeningSocket\(session, ssl=context\)"):
        websockets.sync.server.serve(reverse, sock=listener, ssl=tls.server)


@pytest.mark.anyio
async def test_on_asyncio(anyio_backend: object) -> None:
    async with muxado.listen("127.0.0.1", 0) as listener:
        far = muxado.sync.connect(*listener.addresses[0])
        async with await listener.accept() as session:
            with serving(far):
                protocol = ClientProtocol(parse_uri("ws://service/"), max_size=None)
                _, socket = await session.create_connection(lambda: ClientConnection(protocol))
                await socket.handshake()
                await socket.send("muxado")
                assert await socket.recv() == "odaxum"
                await socket.send(bytes(MIB) + b"!")
                assert await socket.recv() == b"!" + bytes(MIB)
                await socket.close()
                with pytest.raises(ConnectionClosedOK):
                    await socket.recv()
        await asyncio.to_thread(far.wait_closed, PATIENCE)
