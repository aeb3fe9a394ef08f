"""TLS for asyncio's own event loop, whose own keeps 256 KiB and more for each connection.

How it works. The loop's transport carries encrypted bytes, and `SecuredLink` is its protocol: what
comes is read into a buffer that all connections of the loop share, and decrypted into the core's
at once. What the session writes is encrypted at once, so the transport's buffer is the only one,
and its marks hold for TLS too.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from weakref import WeakKeyDictionary

from ..secured import Secured
from .driver import Driver
from .links import TransportLink

# Bytes that one system call may bring.
READ_SIZE: int = 256 * 1024

_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


class SecuredLink(TransportLink):
    """Carries a session over TLS over a transport."""

    def __init__(
        self,
        driver: Driver,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        name: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> None:
        """Take a session's driver, before there is a connection.

        Args:
            driver: the driver.
            context: the settings of TLS.
            server_side: which end this is.
            name: the name that the server's certificate must have.
            ssl_handshake_timeout: seconds for the handshake; None: no limit.
            ssl_shutdown_timeout: seconds from the close_notify to the connection's end; None: what
                the session allows.
        """
        super().__init__(driver)
        loop = driver.loop
        self.opened: asyncio.Future[None] | None = loop.create_future()
        self._secured = Secured(context, server_side=server_side, name=name)
        self._handshake_timeout = ssl_handshake_timeout
        self._shutdown_timeout = ssl_shutdown_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._failure: Exception | None = None
        self._secure = False  # the handshake is done
        self._reads = True  # for the session
        self._stopped = False  # the transport reads no more
        self._over = False  # no input is decrypted any more
        self._unwrapped = False  # the close_notify is sent
        buffer = _buffers.get(loop)
        if buffer is None:
            buffer = _buffers[loop] = memoryview(bytearray(READ_SIZE))
        self._buffer = buffer

    # For the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._limit(self._handshake_timeout, "the TLS handshake")
        self._handshake()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._over:
            return
        self._secured.feed(self._buffer[:nbytes])
        if self._secure:
            self._read()
        else:
            self._handshake()

    def eof_received(self) -> bool:
        if not self._secure:
            self._fail(ConnectionResetError("the connection ended in the TLS handshake"))
        elif self._over:
            self._driver.received_eof()
        else:
            self._secured.feed(b"")
            self._read()
        return True  # the transport stays open for our last frames

    def connection_lost(self, exc: Exception | None) -> None:
        exc = self._failure or exc
        if self._timer is not None:
            self._timer.cancel()
        self._tell_opened(exc or ConnectionResetError("the connection was given up"))
        super().connection_lost(exc)

    # For the driver

    def pause_reading(self) -> None:
        self._reads = False
        self._stop()

    def resume_reading(self) -> None:
        self._reads = True
        self._driver.call_soon(self._read)

    def write(self, data: bytes) -> None:
        try:
            encrypted = self._secured.encrypt(data)
        except ssl.SSLError as exc:
            self._fail(exc)
        else:
            super().write(encrypted)

    def half_close(self) -> None:
        self._unwrap()
        super().half_close()

    def close(self) -> None:
        self._unwrap()
        super().close()

    def get_extra_info(self, name: str, default: object = None) -> object:
        secured = self._secured.object
        match name:
            case "ssl_object":
                return secured
            case "sslcontext":
                return secured.context
            case "peercert":
                return secured.getpeercert()
            case "cipher":
                return secured.cipher()
            case "compression":
                return secured.compression()
        return super().get_extra_info(name, default)

    # Inside

    def _handshake(self) -> None:
        transport = self._transport
        assert transport is not None
        try:
            done = self._secured.do_handshake()
        except ssl.SSLError as exc:
            self._fail(exc)
            return
        self._write_output()
        if done:
            if self._timer is not None:
                self._timer.cancel()
            self._secure = True
            super().connection_made(transport)
            self._tell_opened(None)
            self._read()

    def _tell_opened(self, failure: Exception | None) -> None:
        opened = self.opened
        if opened is None or opened.done():
            return
        if failure is None:
            opened.set_result(None)
        else:
            opened.set_exception(failure)
            opened.exception()  # a dial that was cancelled looks at it no more

    def _read(self) -> None:
        """Decrypt what has come, and give it to the session, as long as that takes it."""
        core = self._driver.core
        secured = self._secured
        try:
            while self._reads and not self._over:
                count = secured.read_into(core.receive_buffer())
                if count:
                    self._driver.received(count)
                    if core.paused:
                        break
                elif secured.ended:
                    self._over = True
                    self._driver.received_eof()
                else:
                    break
        except ssl.SSLError as exc:
            self._fail(exc)
            return
        self._write_output()
        self._regulate()

    def _regulate(self) -> None:
        """Have no more read before what has come is decrypted."""
        if not self._over and self._secured.keep():
            self._stop()
            if self._reads:
                self._driver.call_soon(self._read)
        elif self._stopped and self._reads:
            self._stopped = False
            super().resume_reading()

    def _stop(self) -> None:
        self._stopped = True
        super().pause_reading()

    def _write_output(self) -> None:
        data = self._secured.output()
        if data and self._transport is not None:
            self._transport.write(data)

    def _unwrap(self) -> None:
        """Send a close_notify. Of what comes only its end is of interest then."""
        if not self._unwrapped:
            self._over = self._unwrapped = True
            self._secured.unwrap()
            self._write_output()
            self._limit(self._shutdown_timeout, "the end of TLS")

    def _limit(self, timeout: float | None, what: str) -> None:
        if timeout is not None:
            error = ConnectionAbortedError(f"{what} took longer than {timeout:g} seconds")
            self._timer = self._driver.loop.call_later(timeout, self._fail, error)

    def _fail(self, exc: Exception) -> None:
        """End the connection, after the alert that tells the peer why if there is one."""
        self._failure = self._failure or exc
        self._over = True
        self.writable = False
        self._write_output()
        self.abort()


def over_tls(
    driver: Driver,
    context: ssl.SSLContext,
    times: dict[str, Any],
    *,
    server_side: bool,
    name: str | None = None,
) -> tuple[TransportLink, dict[str, Any]]:
    """Return the link for a session over TLS, and what the loop is to be told besides.

    A loop with a selector reads into a protocol's buffer once there is something to read. Others
    read ahead, so their connections can't share a buffer: there TLS is the loop's own. That of
    uvloop needs little memory.

    Args:
        driver: the session's.
        context: the settings of TLS.
        times: `ssl_handshake_timeout` and `ssl_shutdown_timeout`, in seconds, if there are any.
        server_side: which end it is.
        name: the name that the server's certificate must have.
    """
    if isinstance(driver.loop, asyncio.SelectorEventLoop):
        name = name or None
        return SecuredLink(driver, context, server_side=server_side, name=name, **times), {}
    options: dict[str, Any] = {"ssl": context, **times}
    if not server_side:
        options["server_hostname"] = name
    return TransportLink(driver), options
