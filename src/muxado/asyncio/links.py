"""What carries a session's bytes: an asyncio transport, or any reader and writer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from .. import forks
from ..endpoint import tune
from .driver import Driver, ask

# Little is parked where no priority reaches it: in the transport's buffer.
BUFFER_HIGH = 64 * 1024
BUFFER_LOW = 16 * 1024

READ_SIZE = 64 * 1024  # of a reader


class TransportLink(asyncio.BufferedProtocol):
    """Carries a session over a transport, reading straight into the core's buffer.

    Attributes:
        kept: the writer that the transport was taken from; asyncio closes the transport of
            one that is dropped.
        opened: done when the link's own handshake is; None if it has none.
    """

    opened: asyncio.Future[None] | None = None

    def __init__(self, driver: Driver) -> None:
        self.writable: bool = False
        self.kept: object = None
        self._driver = driver
        self._transport: asyncio.Transport | None = None
        self._tls = False
        self._addresses: dict[str, object] = {}
        driver.link = self

    # For the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's derive from nothing
        secured = self.get_extra_info("ssl_object")
        self._tls = secured is not None
        if secured is not None:
            self._driver.core.agree(secured.selected_alpn_protocol())  # type: ignore[attr-defined]
        for name in ("peername", "sockname"):  # which asyncio's TLS forgets at its end
            self._addresses[name] = ask(transport, name)
        self._transport.set_write_buffer_limits(BUFFER_HIGH, BUFFER_LOW)  # type: ignore[union-attr]
        if self._tls or not transport.can_write_eof():  # type: ignore[attr-defined]
            self._driver.core.confirm_output()
        sock = transport.get_extra_info("socket")
        if sock is not None:
            tune(sock)
        self.writable = True
        self._driver.connected()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._driver.core.receive_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self._driver.received(nbytes)

    def eof_received(self) -> bool:
        self._driver.received_eof()
        # The transport stays open for our last frames; TLS can't be half-closed.
        return not self._tls

    def take_early(self, data: bytes) -> None:
        """Take in bytes that were read before the link had the transport."""
        self._driver.received_data(data)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        # In the next turn, since asyncio is inside its own write now, and a connection that
        # proves lost there would be reported lost twice.
        self._driver.flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable = False
        if isinstance(exc, OSError) and not self._tls and not self._driver.lost:
            self._read_rest()
        self._driver.connection_lost(exc)
        self._transport = self.kept = None

    def _read_rest(self) -> None:
        """Read what the peer sent before it left: a loop reads no more once a write has failed."""
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return
        core = self._driver.core
        with (
            contextlib.suppress(OSError),
            socket.fromfd(sock.fileno(), sock.family, sock.type) as copy,
        ):
            copy.setblocking(False)
            while count := copy.recv_into(core.receive_buffer()):
                core.bytes_received(count, monotonic())

    # For the driver

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)
        if self._transport.is_closing():  # the write has found the connection lost
            self.writable = False

    def half_close(self) -> None:
        transport = self._transport
        if transport is None:
            return
        if transport.can_write_eof():
            # A connection that is just being lost says so here.
            with contextlib.suppress(OSError):
                transport.write_eof()
        else:
            self.close()

    def close(self) -> None:
        # Of a second close asyncio's TLS forgets its connection, and could not abort it any more.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def get_extra_info(self, name: str, default: object = None) -> object:
        if self._addresses.get(name) is not None:
            return self._addresses[name]
        if self._transport is None:
            return default
        info: object = self._transport.get_extra_info(name, default)
        return info

    def descriptors(self) -> list[int]:
        return [descriptor_of(self._transport)]


def descriptor_of(transport: Any) -> int:
    """Return the number of the descriptor under a transport, a writer or a reader; -1 if none."""
    transport = getattr(transport, "transport", None) or getattr(transport, "_transport", transport)
    for name in ("socket", "pipe"):
        found = ask(transport, name)
        if found is not None:
            return forks.descriptor(found)
    return forks.descriptor(transport)


def transport_under(reader: object, writer: object) -> asyncio.Transport | None:
    """Return the transport of a pair of asyncio's reader and writer, None if it isn't one.

    A subprocess's pipes are such a pair too, but with a transport each way.
    """
    transport: asyncio.Transport | None = getattr(writer, "transport", None)
    if (
        isinstance(reader, asyncio.StreamReader)
        and getattr(reader, "_transport", None) is transport
    ):
        return transport
    return None


def take_over(
    protocol: asyncio.BufferedProtocol | asyncio.Protocol,
    reader: Reader,
    transport: asyncio.Transport,
    take_early: Callable[[bytes], object],
) -> None:
    """Put a protocol in the place of asyncio's stream protocol.

    The reader is one of a pair that `transport_under` knows.

    Args:
        protocol: the protocol.
        reader: the reader that had the transport.
        transport: the transport.
        take_early: called with what the reader has read already.
    """
    if transport.is_closing():  # it may have reported its end already
        asyncio.get_running_loop().call_soon(protocol.connection_lost, None)
        return
    assert isinstance(reader, asyncio.StreamReader)
    ended = reader.at_eof() or getattr(reader, "_eof", False)
    reader.feed_eof()  # so that what is buffered can be read without waiting
    left = reader.read(-1)
    try:
        left.send(None)
    except StopIteration as exc:
        early: bytes = exc.value
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    if early:
        take_early(early)
    if ended:
        protocol.eof_received()


class Reader(Protocol):
    """The methods that a session needs of a reader."""

    async def read(self, n: int, /) -> bytes:
        """Return up to `n` bytes, b"" at the end."""
        ...


class Writer(Protocol):
    """The methods that a session needs of a writer."""

    def write(self, data: bytes, /) -> object:
        """Take bytes to send."""

    async def drain(self) -> None:
        """Wait until more may be written."""

    def close(self) -> object:
        """End the output."""


class ReaderWriterLink:
    """Carries a session over a reader and a writer, with a task for each."""

    def __init__(self, driver: Driver, reader: Reader, writer: Writer, name: str) -> None:
        self.writable: bool = True
        self._driver = driver
        self._reader = reader
        self._writer = writer
        self._data = asyncio.Event()
        self._reads = asyncio.Event()
        self._reads.set()
        self._output = b""
        self._closing = False
        self._ended = False  # the reader
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        can_write_eof = getattr(writer, "can_write_eof", None)
        self._can_write_eof: bool = can_write_eof is not None and can_write_eof()
        if not self._can_write_eof:
            driver.core.confirm_output()
        tune(self.get_extra_info("socket"))
        loop = driver.loop
        driver.link = self
        for work, what in ((self._read(), "reading"), (self._write(), "writing")):
            self._tasks.append(loop.create_task(work, name=f"{name} {what}"))
        driver.connected()

    async def _read(self) -> None:
        driver = self._driver
        try:
            while data := await self._reader.read(READ_SIZE):
                driver.received_data(data)
                await self._reads.wait()
            driver.received_eof()
        except BaseException as exc:
            if not self._ours(exc):
                self._fail(exc)
            if not isinstance(exc, Exception):
                raise
        self._ended = True
        if self._closing:
            self._fail(None)

    async def _write(self) -> None:
        try:
            while True:
                await self._data.wait()
                self._data.clear()
                if self._output:
                    data, self._output = self._output, b""
                    self._writer.write(data)
                    await self._writer.drain()
                    self.writable = True
                    self._driver.send()
                if self._closing and not self._output:
                    break
            if self._can_write_eof:
                self._writer.write_eof()  # type: ignore[attr-defined]
            else:
                self._writer.close()
        except Exception as exc:
            # What the peer has said before it stopped to read is still to be read.
            self.writable = False
            self._closing = True
            if not self._ended:
                self._driver.loop.call_later(
                    self._driver.core.ledger.config.close_timeout, self._fail, exc
                )
                return
            self._fail(exc)
        except BaseException as exc:
            if not self._ours(exc):
                self._fail(exc)
            raise
        if self._ended:
            self._fail(None)

    def _ours(self, exc: BaseException) -> bool:
        """Return whether a task was ended from here, or is destroyed without its loop."""
        return self._stopped or isinstance(exc, GeneratorExit)

    def _fail(self, exc: BaseException | None) -> None:
        self._stop()
        self._driver.connection_lost(exc)

    def _stop(self) -> None:
        self._stopped = True
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        with contextlib.suppress(Exception):
            self._writer.close()

    # For the driver

    def pause_reading(self) -> None:
        self._reads.clear()

    def resume_reading(self) -> None:
        self._reads.set()

    def write(self, data: bytes) -> None:
        self._output += data
        self.writable = False
        self._data.set()

    def half_close(self) -> None:
        self._closing = True
        self._data.set()

    def close(self) -> None:
        self.half_close()

    def abort(self) -> None:
        if self._output:  # the last frames
            with contextlib.suppress(Exception):
                self._writer.write(self._output)
        transport = getattr(self._writer, "transport", None)
        # asyncio's write pipe breaks when it is aborted on its last step of closing.
        if transport is not None and (
            not transport.is_closing() or transport.get_write_buffer_size()
        ):
            transport.abort()
        self._driver.call_soon(self._fail, None)

    def get_extra_info(self, name: str, default: object = None) -> object:
        get = getattr(self._writer, "get_extra_info", None)
        return default if get is None else get(name, default)

    def descriptors(self) -> list[int]:
        return [descriptor_of(self._reader), descriptor_of(self._writer)]
