"""Streams for libraries that know asyncio's own ways: protocols, and readers with writers."""

from __future__ import annotations

import asyncio
import weakref
from asyncio.sslproto import SSLProtocol
from collections.abc import Awaitable, Callable
from ssl import SSLContext, create_default_context
from typing import Any, TypeVar

from ..base_session import BaseSession
from ..core import CoreStream
from ..errors import ErrorCode, SessionError, UsageError
from ..front_end import ended_in_order
from .driver import Driver
from .stream import Stream
from .transport import StreamTransport, for_a_future

__all__ = ["StreamServer"]

P = TypeVar("P", bound=asyncio.BaseProtocol)


class ProtocolStreams(BaseSession[Stream]):
    """The part of a `Session` that runs asyncio's protocols over its streams."""

    _driver: Driver
    _servers: weakref.WeakSet[StreamServer] | None = None  # of `create_server`, if there are any

    async def _accept(self) -> CoreStream:
        """Wait for the next stream that the peer opens."""
        raise NotImplementedError

    async def create_connection(
        self,
        protocol_factory: Callable[[], P],
        host: str | None = None,
        port: int | None = None,
        *,
        type: int | None = None,
        priority: int = 0,
        ssl: SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> tuple[asyncio.Transport, P]:
        """Open a stream and run a protocol over it, as the loop's `create_connection` does.

        Args:
            protocol_factory: makes the protocol.
            host: what TLS inside checks the certificate against, if `server_hostname` is not
                given. Otherwise it means nothing, like `port`: the stream leads to the peer.
                They are for libraries that take a session for a tunnel and pass them.
            port: means nothing.
            type: as for `open`.
            priority: as for `open`.
            ssl: run TLS inside the stream: a context, or True for the system's trusted
                authorities.
            server_hostname: the name that the certificate inside must have.

        Returns:
            the transport and the protocol.

        Raises:
            UsageError: `ssl` without a host name to check, or `server_hostname` without `ssl`.
            ssl.SSLError: TLS inside fails.
            Exception: what the protocol's `connection_made` raises, as far as a future can.

        Otherwise it raises as `open`. Cancelled, it resets the stream.
        """
        context = _inner_context(ssl, host, server_hostname)
        loop = self._driver.loop
        protocol = protocol_factory()
        tls: SSLProtocol | None = None
        secured: asyncio.Future[None] = loop.create_future()
        if context is not None:
            name = server_hostname or host
            tls = SSLProtocol(loop, protocol, context, secured, server_hostname=name)
        core = self._opened(self._core.open(type=type, priority=priority, eager=True))
        started: asyncio.Future[None] = loop.create_future()
        carried = protocol if tls is None else tls
        transport = StreamTransport(self, self._driver, core, carried, started)
        self._driver.flush_soon()
        try:
            await started
            if tls is None:
                return transport, protocol
            await secured
        except BaseException as exc:
            transport.abort()
            by_tls = secured.done() and not secured.cancelled() and secured.exception() is exc
            if by_tls and isinstance(exc, asyncio.CancelledError):  # of the protocol's
                raise for_a_future(exc) from exc
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

        self._check_taker()
        server = StreamServer(self, self._driver, self._accept, new_protocol)
        if self._servers is None:
            self._servers = weakref.WeakSet()
        self._servers.add(server)
        return server

    def _takes_streams(self) -> str | None:
        serving = any(server.is_serving() for server in self._servers or ())
        return "create_server" if serving else None

    async def open_connection(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        type: int | None = None,
        priority: int = 0,
        limit: int | None = None,
        ssl: SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a stream as asyncio's own pair of reader and writer.

        For libraries that want that pair; a `Stream` does the same with less.

        Args:
            host: as for `create_connection`.
            port: means nothing.
            type: as for `open`.
            priority: as for `open`.
            limit: bytes, the reader's limit; `Config.read_limit` by default.
            ssl: as for `create_connection`.
            server_hostname: as for `create_connection`.

        It raises as `create_connection`.
        """
        loop = self._driver.loop
        reader = asyncio.StreamReader(limit=limit or self.config.read_limit, loop=loop)
        protocol = PairProtocol(reader, loop=loop)
        transport, _ = await self.create_connection(
            lambda: protocol,
            host,
            port,
            type=type,
            priority=priority,
            ssl=ssl,
            server_hostname=server_hostname,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def start_server(
        self,
        client_connected_cb: Callable[
            [asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None
        ],
        *,
        limit: int | None = None,
        ssl: SSLContext | None = None,
    ) -> StreamServer:
        """Call back with a reader and a writer for each stream, as `asyncio.start_server`.

        Args:
            client_connected_cb: a function or a coroutine function.
            limit: bytes, the readers' limit; `Config.read_limit` by default.
            ssl: as for `create_server`.
        """
        loop = self._driver.loop

        def factory() -> PairProtocol:
            reader = asyncio.StreamReader(limit=limit or self.config.read_limit, loop=loop)
            return PairProtocol(reader, client_connected_cb, loop=loop)

        return self.create_server(factory, ssl=ssl)


class PairProtocol(asyncio.StreamReaderProtocol):
    """The protocol behind a reader and a writer over a stream."""

    _ended = False
    _stream_reader_wr: object
    _closed: asyncio.Future[None]
    _transport: StreamTransport | None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport, which can be half-closed, whatever its session runs over."""
        super().connection_made(transport)
        # asyncio looks for `sslcontext`, finds the session's, and would drop the answer to a
        # question that ends with an EOF, because its own TLS can't be half-closed. That is so
        # only for TLS inside the stream.
        carrier: Any = transport
        self._over_ssl = not carrier.can_write_eof()

    def eof_received(self) -> bool | None:
        """Give the reader its end."""
        self._ended = True
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the reader and the writer, but no reader that what it has is not all."""
        if self._ended:
            self._stream_reader_wr = None  # asyncio would put the error before what is unread
            transport = self._transport
            whole = isinstance(transport, StreamTransport) and transport.unsent() is None
            if whole and not self._closed.done():
                self._closed.set_result(None)  # all that was written is out
        super().connection_lost(exc)


class StreamServer(asyncio.AbstractServer):
    """Runs a protocol for each stream that the peer opens; from `Session.create_server`.

    Closing it stops that; the streams that run go on, and so does the session.
    """

    def __init__(
        self,
        session: BaseSession[Any],
        driver: Driver,
        accept: Callable[[], Awaitable[CoreStream]],
        protocol_factory: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        """Not for users."""
        self._session = session
        self._driver = driver
        self._accept_stream = accept
        self._protocol_factory = protocol_factory
        self._loop = loop = driver.loop
        self._clients: weakref.WeakSet[StreamTransport] = weakref.WeakSet()
        self._waiters: list[asyncio.Future[None]] = []
        self._task = loop.create_task(self._accept(), name=f"muxado server on {session!r}")
        self._task.add_done_callback(self._stopped)

    async def _accept(self) -> None:
        driver = self._driver
        while True:
            try:
                stream = await self._accept_stream()
            except SessionError:
                if ended_in_order(driver.core):
                    return
                raise
            try:
                protocol = self._protocol_factory()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self._loop.call_exception_handler(
                    {"message": "making a stream's protocol failed", "exception": exc}
                )
                stream.reset(ErrorCode.INTERNAL_ERROR)
                driver.flush()
            else:
                transport = StreamTransport(
                    self._session, driver, stream, protocol, on_lost=self._detach
                )
                self._clients.add(transport)

    @property
    def sockets(self) -> tuple[Any, ...]:
        """No sockets; the streams share the session's."""
        return ()

    def is_serving(self) -> bool:
        """Return whether streams are still accepted."""
        return not (self._task.done() or self._task.cancelling())

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop."""
        return self._loop

    async def start_serving(self) -> None:
        """Do nothing: it serves from the start."""

    async def serve_forever(self) -> None:
        """Wait until the session ends, or the server is closed.

        Raises:
            SessionError: the session ended otherwise than in order.
        """
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if not self._task.cancelled():
                self.close()
                raise

    def close(self) -> None:
        """Accept no further stream."""
        if not self._loop.is_closed():
            self._task.cancel()

    def close_clients(self) -> None:
        """Close the streams that run, in order: what is queued goes out, and then FIN."""
        for transport in list(self._clients):
            transport.close()

    def abort_clients(self) -> None:
        """Reset the streams that run; what is queued is dropped."""
        for transport in list(self._clients):
            transport.abort()

    async def wait_closed(self) -> None:
        """Wait until it is closed, or its session has ended, and its streams are done."""
        while self._clients or not self._task.done():
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def _detach(self, transport: StreamTransport) -> None:
        self._clients.discard(transport)
        self._wake()

    def _stopped(self, task: asyncio.Task[Any]) -> None:
        # It is for `serve_forever` to raise how it ended.
        if not task.cancelled():
            task.exception()
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _inner_context(
    ssl: SSLContext | bool | None, host: str | None, server_hostname: str | None
) -> SSLContext | None:
    """Return the context for TLS inside a stream, None for none.

    Raises:
        UsageError: there is no host name to check, or there is one and no TLS.
    """
    if not ssl:
        if server_hostname is not None:
            raise UsageError("server_hostname= is for TLS: pass ssl= too")
        return None
    context = create_default_context() if ssl is True else ssl
    name = host if server_hostname is None else server_hostname
    if name is None:
        raise UsageError("TLS inside a stream needs server_hostname=")
    if not name and context.check_hostname:
        raise UsageError("TLS inside a stream needs a name in server_hostname=, not ''")
    return context
