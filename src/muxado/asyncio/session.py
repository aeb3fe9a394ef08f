"""A session for asyncio."""

from __future__ import annotations

import asyncio
from asyncio.sslproto import SSLProtocol
from collections import deque
from collections.abc import Awaitable, Callable
from ssl import SSLContext
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import Config
from ..core import CoreSession, CoreStream
from ..core.life import ACCEPTABLE, DRAINED
from ..errors import ErrorCode, SessionError
from ..shell import BaseSession
from .driver import Driver
from .handlers import Handlers
from .stream import Stream
from .transport import PairProtocol, StreamServer, StreamTransport

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Session"]

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Session(BaseSession[Stream]):
    """One end of a connection that carries many streams.

    Sessions come from `connect`, `serve`, `listen`, `client` and `server`. Both ends may open
    streams and accept the other's. As an async context manager a session is closed in order
    at the end of the block, and aborted if the block raises. Iterating over it gives the
    streams that the peer opens, until the session ends in order.
    """

    def __init__(self, driver: Driver) -> None:
        """Not for users."""
        self._driver = driver
        self._core = driver.core
        self._serving: list[Handlers] = []
        self._acceptors: deque[asyncio.Future[None]] = deque()
        self._waiters: set[asyncio.Future[None]] = set()  # for a pong, a drain, the end
        self._drained = False
        driver.subscribe(self._notify)

    # Streams

    def open(self, *, type: int | None = None, priority: int = 0, eager: bool = False) -> Stream:
        stream = self._core.open(type=type, priority=priority, eager=eager)
        if eager:
            self._driver.flush_soon()
        return Stream(self, self._driver, stream)

    async def accept(self) -> Stream:
        """Wait for the next stream that the peer opens. Cancelling it loses none.

        Raises:
            SessionError: the session is closing or has ended, and no stream waits.
        """
        return self._wrap(await self._accept())

    async def _accept(self) -> CoreStream:
        while True:
            stream = self._core.accept()
            if stream is not None:
                return stream
            waiter: asyncio.Future[None] = self._driver.loop.create_future()
            self._acceptors.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if not waiter.cancelled():
                    self._wake_acceptors()  # it was told of a stream: let another take it
                elif waiter in self._acceptors:
                    self._acceptors.remove(waiter)
                raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Stream:
        try:
            return await self.accept()
        except SessionError:
            if self._ended_cleanly():
                raise StopAsyncIteration from None
            raise

    async def serve(
        self, handler: Callable[[Stream], Awaitable[object]], *, limit: int | None = None
    ) -> None:
        """Accept every stream, and run `handler(stream)` for it in a task of its own.

        A handler that returns closes its stream; one that raises resets it, and is logged.
        Cancelled, it cancels the handlers and waits for them.

        Args:
            handler: a coroutine function.
            limit: how many handlers may run at once; further streams wait.

        Returns:
            when the session has ended in order and the handlers are done.

        Raises:
            SessionError: the session ended otherwise; the handlers are done then too.
        """
        handlers = Handlers(self._driver, handler, limit, self._wrap)
        self._serving.append(handlers)
        try:
            handlers.start()
            while not self.closed:
                await self._wait()
            await handlers.wait()
        except asyncio.CancelledError:
            await handlers.cancel()
            raise
        finally:
            self._serving.remove(handlers)
        if not self._ended_cleanly():
            raise self._core.failure()

    def _wrap(self, stream: CoreStream) -> Stream:
        return Stream(self, self._driver, stream)

    # Streams for libraries that know asyncio's own

    async def create_connection(
        self,
        protocol_factory: Callable[[], P],
        *,
        type: int | None = None,
        priority: int = 0,
        ssl: SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> tuple[asyncio.Transport, P]:
        """Open a stream and run a protocol over it, as the loop's `create_connection` does.

        Args:
            protocol_factory: makes the protocol.
            type: as for `open`.
            priority: as for `open`.
            ssl: run TLS inside the stream.
            server_hostname: the name that the certificate inside must have.

        Returns:
            the transport and the protocol.

        Raises:
            ssl.SSLError: TLS inside fails.

        Otherwise it raises as `open`.
        """
        loop = self._driver.loop
        protocol = protocol_factory()
        tls: SSLProtocol | None = None
        secured: asyncio.Future[None] = loop.create_future()
        if ssl is not None:
            tls = SSLProtocol(loop, protocol, ssl, secured, server_hostname=server_hostname)
        core = self._core.open(type=type, priority=priority, eager=True)
        started: asyncio.Future[None] = loop.create_future()
        carried = protocol if tls is None else tls
        transport = StreamTransport(self, self._driver, core, carried, started)
        self._driver.flush_soon()
        try:
            await started
            if tls is None:
                return transport, protocol
            await secured
        except BaseException:
            transport.abort()
            raise
        if transport.is_closing():
            raise ConnectionResetError("the stream was lost in the TLS handshake")
        return tls._app_transport, protocol

    def create_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        *,
        ssl: SSLContext | None = None,
    ) -> StreamServer:
        """Run a protocol over each stream that the peer opens, as the loop's `create_server`.

        It is what accepts from then on: don't call `accept` or `serve` beside it.

        Args:
            protocol_factory: makes a protocol for each stream.
            ssl: run TLS inside the streams, with this context's certificate.

        Returns:
            the server, to be closed, or waited for with `serve_forever`.
        """
        loop = self._driver.loop

        def new_protocol() -> asyncio.BaseProtocol:
            protocol = protocol_factory()
            if ssl is None:
                return protocol
            waiter: Any = None
            return SSLProtocol(loop, protocol, ssl, waiter, server_side=True)

        async def accept() -> None:
            while True:
                try:
                    stream = await self._accept()
                except SessionError:
                    if self._ended_cleanly():
                        return
                    raise
                try:
                    StreamTransport(self, self._driver, stream, new_protocol())
                except Exception as exc:
                    loop.call_exception_handler(
                        {"message": "making a stream's protocol failed", "exception": exc}
                    )
                    stream.reset(ErrorCode.INTERNAL_ERROR)
                    self._driver.settle()

        return StreamServer(self, accept, loop)

    async def open_connection(
        self, *, type: int | None = None, priority: int = 0, limit: int | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a stream as asyncio's own pair of reader and writer.

        For libraries that want that pair; a `Stream` does the same with less.

        Args:
            type: as for `open`.
            priority: as for `open`.
            limit: bytes, the reader's limit; `Config.read_limit` by default.

        It raises as `open`.
        """
        loop = self._driver.loop
        reader = asyncio.StreamReader(limit=limit or self.config.read_limit, loop=loop)
        protocol = PairProtocol(reader, loop=loop)
        transport, _ = await self.create_connection(lambda: protocol, type=type, priority=priority)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def start_server(
        self,
        client_connected_cb: Callable[
            [asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None
        ],
        *,
        limit: int | None = None,
    ) -> StreamServer:
        """Call back with a reader and a writer for each stream, as `asyncio.start_server`.

        Args:
            client_connected_cb: a function or a coroutine function.
            limit: bytes, the readers' limit; `Config.read_limit` by default.
        """
        loop = self._driver.loop

        def factory() -> PairProtocol:
            reader = asyncio.StreamReader(limit=limit or self.config.read_limit, loop=loop)
            return PairProtocol(reader, client_connected_cb, loop=loop)

        return self.create_server(factory)

    # Looking

    async def ping(self) -> float:
        """Ask the peer for a sign of life, and return the round trip in seconds.

        One ping is in flight at a time; callers that come meanwhile share the next.

        Raises:
            UsageError: the peer uses stream 1 itself, which no muxado peer does.
            SessionError: the session is closing or has ended.
        """
        core = self._core
        number = core.ping()
        self._driver.settle()
        while not core.pong(number):
            await self._wait()
        return core.liveness.rtt

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        try:
            return self._driver.link.get_extra_info(name, default)
        except (AttributeError, ValueError):
            # It is closed: uvloop asks its socket, and asyncio's TLS what it has let go.
            return default

    # The end

    async def shutdown(self, timeout: float | None = 30.0) -> None:
        """End the session gracefully: no new streams, wait for the open ones, then close.

        Args:
            timeout: seconds for the open streams; then the session is aborted. None waits
                for as long as they take.

        Cancelled, it leaves the session draining.
        """
        self._core.shut_down()
        self._driver.settle()
        try:
            async with asyncio.timeout(timeout):
                while not self._drained and not self.closed:
                    await self._wait()
        except TimeoutError:
            self.abort()
        self.close()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until the session has ended and its connection is gone."""
        while not self._driver.lost:
            await self._wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            self.abort(0 if not issubclass(exc_type, Exception) else ErrorCode.INTERNAL_ERROR)
        try:
            await self.wait_closed()
        except asyncio.CancelledError:
            self.abort()
            raise

    # For the driver

    def _notify(self, events: int) -> None:
        if events & ACCEPTABLE:
            for handlers in self._serving:
                handlers.start()
            self._wake_acceptors()
        if events & DRAINED:
            self._drained = True
        if events & ~ACCEPTABLE or not events:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            if self.closed:
                while self._acceptors:
                    self._wake_acceptor()

    def _wake_acceptors(self) -> None:
        for _ in range(len(self._core.accept_queue)):
            if not self._acceptors:
                return
            self._wake_acceptor()

    def _wake_acceptor(self) -> None:
        while self._acceptors:
            waiter = self._acceptors.popleft()
            if not waiter.done():  # as one is that was cancelled just now
                waiter.set_result(None)
                return

    async def _wait(self) -> None:
        """Wait for a pong, a drain or the end; the caller looks which."""
        waiter: asyncio.Future[None] = self._driver.loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _do(self, step: Callable[..., object], *args: object) -> None:
        step(*args)
        self._driver.settle()


def new_session(*, client: bool, config: Config | None) -> tuple[Session, Driver]:
    """Make a session in the running event loop, and its driver, which still needs a link."""
    loop = asyncio.get_running_loop()
    core = CoreSession(client=client, config=config or Config(), now=monotonic())
    driver = Driver(core, loop)
    return Session(driver), driver
