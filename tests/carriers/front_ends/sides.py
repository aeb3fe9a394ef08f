"""The front ends of the contract suite, whose sessions go over WebSockets."""

from __future__ import annotations

import queue
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import trio

import muxado
import muxado.carriers.websockets
import muxado.carriers.websockets.sync
import muxado.carriers.websockets.trio
from muxado import Config
from muxado.carriers import websockets
from tests.contract.asyncio_side import AsyncioFrontEnd, AsyncioSide
from tests.contract.sides import PATIENCE, FrontEnd, ListenerSide, Side
from tests.contract.sync_side import SyncFrontEnd, SyncSide
from tests.contract.trio_side import TrioFrontEnd, TrioSide

Headers = Mapping[str, str] | None


class Arrivals(ListenerSide):
    """The sessions of a server."""

    def __init__(self, new_side: Callable[..., Side]) -> None:
        self.new_side = new_side
        self.arrived: queue.SimpleQueue[object] = queue.SimpleQueue()

    def accept(self) -> Side:
        return self.new_side(self.arrived.get(timeout=PATIENCE))


def url_of(port: int, tls: ssl.SSLContext | None) -> str:
    scheme = "ws" if tls is None else "wss"
    return f"{scheme}://127.0.0.1:{port}/mux?token=secret"


class SyncWebSockets(SyncFrontEnd):
    @contextmanager
    def connect(
        self, port: int, tls: ssl.SSLContext | None, config: Config, headers: Headers = None
    ) -> Iterator[Side]:
        with websockets.sync.connect(
            url_of(port, tls), ssl=tls, config=config, timeout=PATIENCE, headers=headers
        ) as session:
            yield SyncSide(session)

    @contextmanager
    def listen(
        self, tls: ssl.SSLContext | None, config: Config, sock: socket.socket | None = None
    ) -> Iterator[ListenerSide]:
        arrivals = Arrivals(SyncSide)

        def handle(session: muxado.sync.Session) -> None:
            arrivals.arrived.put(session)
            session.wait_closed()

        with websockets.sync.serve(handle, "127.0.0.1", 0, ssl=tls, config=config) as server:
            arrivals.port = server.addresses[0][1]
            yield arrivals


class TrioWebSockets(TrioFrontEnd):
    @contextmanager
    def connect(
        self, port: int, tls: ssl.SSLContext | None, config: Config, headers: Headers = None
    ) -> Iterator[Side]:
        manager = websockets.trio.connect(
            url_of(port, tls), ssl=tls, config=config, headers=headers
        )
        with self.runner.enter(manager) as session:
            yield TrioSide(self.runner, session)

    @contextmanager
    def listen(
        self, tls: ssl.SSLContext | None, config: Config, sock: socket.socket | None = None
    ) -> Iterator[ListenerSide]:
        arrivals = Arrivals(partial(TrioSide, self.runner))

        async def handle(session: muxado.trio.Session) -> None:
            arrivals.arrived.put(session)
            await session.wait_closed()

        @asynccontextmanager
        async def serving() -> AsyncIterator[muxado.trio.Server]:
            async with trio.open_nursery() as nursery:
                serve = partial(websockets.trio.serve, ssl=tls, config=config)
                server: muxado.trio.Server = await nursery.start(serve, handle, "127.0.0.1", 0)
                yield server
                server.close()

        with self.runner.enter(serving()) as server:
            arrivals.port = server.addresses[0][1]
            yield arrivals


class AsyncioWebSockets(AsyncioFrontEnd):
    @contextmanager
    def connect(
        self, port: int, tls: ssl.SSLContext | None, config: Config, headers: Headers = None
    ) -> Iterator[Side]:
        @asynccontextmanager
        async def dialled() -> AsyncIterator[muxado.Session]:
            url = url_of(port, tls)
            async with websockets.connect(url, ssl=tls, config=config, headers=headers) as session:
                yield session

        with self.loop.enter(dialled()) as session:
            yield AsyncioSide(self.loop, session)

    @contextmanager
    def listen(
        self, tls: ssl.SSLContext | None, config: Config, sock: socket.socket | None = None
    ) -> Iterator[ListenerSide]:
        arrivals = Arrivals(partial(AsyncioSide, self.loop))

        async def handle(session: muxado.Session) -> None:
            arrivals.arrived.put(session)
            await session.wait_closed()

        @asynccontextmanager
        async def serving() -> AsyncIterator[muxado.Server]:
            async with websockets.serve(handle, "127.0.0.1", 0, ssl=tls, config=config) as server:
                yield server

        with self.loop.enter(serving()) as server:
            arrivals.port = server.addresses[0][1]
            yield arrivals


FRONT_ENDS: dict[str, Callable[[], FrontEnd]] = {
    "asyncio": AsyncioWebSockets,
    "sync": SyncWebSockets,
    "trio": TrioWebSockets,
}
