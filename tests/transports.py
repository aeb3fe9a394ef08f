"""Two sessions, connected over each kind of transport."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple

import pytest

import muxado
from muxado import Config, Session

from .certificates import Tls


class Ends(NamedTuple):
    """The two sessions of one connection."""

    client: Session
    server: Session


Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[Config, Tls, str], AbstractAsyncContextManager[Ends]]


@asynccontextmanager
async def over_tcp(config: Config, tls: Tls, path: str) -> AsyncIterator[Ends]:
    async with muxado.listen("127.0.0.1", 0, config=config) as listener:
        host, port = listener.addresses[0]
        client = await muxado.connect(host, port, config=config)
        yield Ends(client, await listener.accept())


@asynccontextmanager
async def over_tls(config: Config, tls: Tls, path: str) -> AsyncIterator[Ends]:
    async with muxado.listen("127.0.0.1", 0, ssl=tls.server, config=config) as listener:
        host, port = listener.addresses[0]
        client = await muxado.connect(host, port, ssl=tls.client, config=config)
        yield Ends(client, await listener.accept())


@asynccontextmanager
async def over_unix(config: Config, tls: Tls, path: str) -> AsyncIterator[Ends]:
    async with muxado.listen(path=path, config=config) as listener:
        client = await muxado.connect(path=path, config=config)
        yield Ends(client, await listener.accept())


@asynccontextmanager
async def over_pair(config: Config, tls: Tls, path: str) -> AsyncIterator[Ends]:
    async with connected_pairs() as (near, far):
        yield Ends(muxado.client(*near, config=config), muxado.server(*far, config=config))


@asynccontextmanager
async def over_pipes(config: Config, tls: Tls, path: str) -> AsyncIterator[Ends]:
    async with piped_pairs() as (near, far):
        yield Ends(muxado.client(*near, config=config), muxado.server(*far, config=config))


TRANSPORTS = [
    pytest.param(over_tcp, id="tcp"),
    pytest.param(over_tls, id="tls"),
    pytest.param(over_unix, id="unix"),
    pytest.param(over_pair, id="pair"),
    pytest.param(over_pipes, id="pipes"),
]


@asynccontextmanager
async def connected_pairs(
    server: ssl.SSLContext | None = None, client: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Pair, Pair]]:
    """Give the readers and writers of asyncio's own streams: the dialler's and the listener's."""
    arrived: asyncio.Queue[Pair] = asyncio.Queue()

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.put_nowait((reader, writer))

    listener = await asyncio.start_server(take, "127.0.0.1", 0, ssl=server)
    async with listener:
        host, port = listener.sockets[0].getsockname()
        near = await asyncio.open_connection(host, port, ssl=client)
        yield near, await arrived.get()


@asynccontextmanager
async def piped_pairs() -> AsyncIterator[tuple[Pair, Pair]]:
    """Give readers and writers with a transport each way, as a subprocess's pipes have."""
    there = os.pipe()
    back = os.pipe()
    near = await piped(back[0], there[1])
    far = await piped(there[0], back[1])
    yield near, far
    for reader, writer in (near, far):
        writer.close()
        # Who reads from a pipe has to close it; nothing else of asyncio's would.
        reader._transport.close()  # type: ignore[attr-defined]


async def piped(source: int, sink: int) -> Pair:
    """Make a reader and a writer of two descriptors."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb", 0)
    )
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(sink, "wb", 0)
    )
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)
