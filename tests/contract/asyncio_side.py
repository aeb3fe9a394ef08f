"""The asyncio front end, as the contract suite uses it: its loop runs in a thread."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, TypeVar

import muxado
from muxado import CloseReason, Config, ErrorCode, SessionStats
from tests.helpers import echo

from .sides import PATIENCE, FrontEnd, ListenerSide, Side, StreamSide

T = TypeVar("T")
Call = Callable[[Coroutine[Any, Any, T]], T]


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.handlers = ThreadPoolExecutor(200, "handler")

    def call(self, work: Coroutine[Any, Any, T], timeout: float = PATIENCE) -> T:
        """Run a coroutine there; TimeoutError cancels it."""

        async def bounded() -> T:
            async with asyncio.timeout(timeout):
                return await work

        return asyncio.run_coroutine_threadsafe(bounded(), self.loop).result(2 * PATIENCE)

    def do(self, function: Callable[[], T]) -> T:
        """Run a plain function there."""

        async def wrapped() -> T:
            return function()

        return self.call(wrapped())

    @contextmanager
    def enter(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Enter an async context manager there."""
        value = self.call(manager.__aenter__())
        try:
            yield value
        finally:
            self.call(manager.__aexit__(None, None, None))

    @contextmanager
    def run(self) -> Iterator[None]:
        thread = threading.Thread(target=self.loop.run_forever)
        thread.start()
        try:
            yield
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            thread.join(PATIENCE)
            self.loop.close()
            self.handlers.shutdown()


class AsyncioStream(StreamSide):
    def __init__(self, loop: Loop, stream: muxado.Stream) -> None:
        self.loop = loop
        self.stream = stream
        self.id = stream.id
        self.type = stream.type

    def read(self, n: int = 65536, timeout: float = PATIENCE) -> bytes:
        return self.loop.call(self.stream.read(n), timeout)

    def write(self, data: bytes, timeout: float = PATIENCE) -> None:
        self.loop.call(self.stream.write(data), timeout)

    def write_eof(self) -> None:
        self.loop.do(self.stream.write_eof)

    def close(self) -> None:
        self.loop.do(self.stream.close)

    def reset(self, code: int = ErrorCode.STREAM_CANCELLED) -> None:
        self.loop.do(lambda: self.stream.reset(code))

    def wait_reset(self) -> int | None:
        return self.loop.call(self.stream.wait_reset())

    def read_nowait(self, n: int, callback: Callable[[], object] | None = None) -> bytes | None:
        return self.loop.do(lambda: self.stream.read_nowait(n, callback))

    def write_nowait(self, data: bytes, callback: Callable[[], object] | None = None) -> bool:
        return self.loop.do(lambda: self.stream.write_nowait(data, callback))

    def on_end(self, callback: Callable[[], object]) -> None:
        self.loop.do(lambda: self.stream.on_end(callback))


class AsyncioSide(Side):
    def __init__(self, loop: Loop, session: muxado.Session) -> None:
        super().__init__()
        self.loop = loop
        self.session = session

    def _open(self, type: int | None, priority: int, eager: bool) -> StreamSide:
        stream = self.loop.do(lambda: self.session.open(type=type, priority=priority, eager=eager))
        return AsyncioStream(self.loop, stream)

    def _accept(self, timeout: float) -> StreamSide:
        return AsyncioStream(self.loop, self.loop.call(self.session.accept(), timeout))

    def iterate(self) -> list[int]:
        async def iterate() -> list[int]:
            ids = []
            async for stream in self.session:
                ids.append(stream.id)
                stream.close()
            return ids

        return self.loop.call(iterate())

    def serve(self, handler: Callable[[StreamSide], None], limit: int | None = None) -> None:
        async def handle(stream: muxado.Stream) -> None:
            side = AsyncioStream(self.loop, stream)
            await self.loop.loop.run_in_executor(self.loop.handlers, handler, side)

        self.loop.call(self.session.serve(handle, limit=limit))

    def ping(self) -> float:
        return self.loop.call(self.session.ping())

    def go_away(self, code: int = 0, debug: bytes = b"") -> None:
        self.loop.do(lambda: self.session.go_away(code, debug))

    def on_draining(self, callback: Callable[[], object]) -> None:
        self.loop.do(lambda: self.session.on_draining(callback))

    def on_stream(self, callback: Callable[[muxado.Stream], object] | None) -> None:
        self.loop.do(lambda: self.session.on_stream(callback))

    def shutdown(self, timeout: float | None = PATIENCE) -> None:
        self.loop.call(self.session.shutdown(timeout))

    def close(self) -> None:
        self.loop.do(self.session.close)

    def wait_closed(self) -> CloseReason:
        return self.loop.call(self.session.wait_closed())

    def abort(self, code: int = 2) -> None:
        self.loop.do(lambda: self.session.abort(code))

    def stats(self) -> SessionStats:
        return self.loop.do(self.session.stats)

    @property
    def config(self) -> Config:
        return self.session.config

    @property
    def closed(self) -> bool:
        return self.session.closed

    @property
    def close_reason(self) -> CloseReason | None:
        return self.session.close_reason


class AsyncioListener(ListenerSide):
    def __init__(self, loop: Loop, listener: muxado.Listener) -> None:
        self.loop = loop
        self.listener = listener
        address = listener.addresses[0]
        assert isinstance(address, tuple)
        self.port = address[1]

    def accept(self) -> Side:
        return AsyncioSide(self.loop, self.loop.call(self.listener.accept()))


class AsyncioFrontEnd(FrontEnd):
    name = "asyncio"

    def __init__(self) -> None:
        self.loop = Loop()

    @contextmanager
    def connect(self, port: int, tls: ssl.SSLContext | None, config: Config) -> Iterator[Side]:
        @asynccontextmanager
        async def dialled() -> AsyncIterator[muxado.Session]:
            async with muxado.connect("127.0.0.1", port, ssl=tls, config=config) as session:
                yield session

        with self.loop.enter(dialled()) as session:
            yield AsyncioSide(self.loop, session)

    @contextmanager
    def listen(
        self, tls: ssl.SSLContext | None, config: Config, sock: socket.socket | None = None
    ) -> Iterator[ListenerSide]:
        host, port = ("127.0.0.1", 0) if sock is None else (None, None)

        @asynccontextmanager
        async def listening() -> AsyncIterator[muxado.Listener]:
            async with muxado.listen(host, port, sock=sock, ssl=tls, config=config) as listener:
                yield listener

        with self.loop.enter(listening()) as listener:
            yield AsyncioListener(self.loop, listener)

    @contextmanager
    def serve(self, tls: ssl.SSLContext | None) -> Iterator[int]:
        async def handle(session: muxado.Session) -> None:
            await session.serve(echo)

        @asynccontextmanager
        async def serving() -> AsyncIterator[muxado.Server]:
            async with muxado.serve(handle, "127.0.0.1", 0, ssl=tls) as server:
                yield server

        with self.loop.enter(serving()) as server:
            yield server.addresses[0][1]

    @contextmanager
    def run(self) -> Iterator[None]:
        with self.loop.run():
            yield
