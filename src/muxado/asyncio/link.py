"""A session's bytes over an asyncio transport: TCP, TLS or a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib

from ..endpoint import limit_unsent
from .driver import Driver

# Little is parked where no priority reaches it: in the transport's buffer.
BUFFER_HIGH = 64 * 1024
BUFFER_LOW = 16 * 1024


class TransportLink(asyncio.BufferedProtocol):
    """Carries a session over a transport, reading straight into the core's buffer.

    Attributes:
        kept: the writer that the transport was taken from; asyncio closes the transport of
            one that nobody holds.
    """

    def __init__(self, driver: Driver) -> None:
        self.writable: bool = False
        self.kept: object = None
        self._driver = driver
        self._transport: asyncio.Transport | None = None
        self._tls = False
        driver.link = self

    # For the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's derive from nothing
        self._tls = transport.get_extra_info("ssl_object") is not None
        self._transport.set_write_buffer_limits(BUFFER_HIGH, BUFFER_LOW)  # type: ignore[union-attr]
        self._driver.core.confirm_output = not transport.can_write_eof()  # type: ignore[attr-defined]
        sock = transport.get_extra_info("socket")
        if sock is not None:
            limit_unsent(sock)
        self.writable = True
        self._driver.settle()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._driver.core.receive_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self._driver.received(nbytes)

    def eof_received(self) -> bool:
        self._driver.received_eof()
        # The transport stays open for our farewell; TLS can't be half-closed.
        return not self._tls

    def take_early(self, data: bytes) -> None:
        """Take in bytes that were read before the link had the transport."""
        self._driver.received_data(data)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        # Not at once: asyncio is in the midst of its own write, and a connection that proves
        # lost there would be reported lost twice.
        self._driver.flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable = False
        self._driver.connection_lost(exc)

    # For the driver

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
        if self._transport is None:
            return default
        info: object = self._transport.get_extra_info(name, default)
        return info
