"""A stream as an asyncio `Transport`, so that any `Protocol` runs over it unchanged."""

from __future__ import annotations

import asyncio
import logging
from asyncio.constants import _SendfileMode
from asyncio.transports import _FlowControlMixin
from collections.abc import Callable, Iterable
from typing import Any

from ..base_session import BaseSession
from ..core import CLOSED, CoreStream
from ..errors import ErrorCode, MuxadoError, StreamReset, code_name
from ..front_end import as_bytes, code_of
from .driver import Driver

__all__ = ["StreamTransport"]

logger: logging.Logger = logging.getLogger("muxado")

READ_SIZE = 64 * 1024


class StreamTransport(_FlowControlMixin):
    """Carries a protocol over one stream; from `Session.create_connection`.

    Everything of asyncio's `Transport` works: flow control both ways, half-close, buffered
    protocols, `loop.start_tls` on top (on asyncio's own loop). `get_extra_info` speaks of the
    session's connection, and also knows `muxado_session`.
    """

    # What asyncio's loop asks before it runs TLS over a transport, or sends a file. It also
    # wants its own base class for the latter, whose flow control is what we'd write anyway.
    _start_tls_compatible = True
    _sendfile_compatible = _SendfileMode.FALLBACK

    _loop: asyncio.AbstractEventLoop
    _protocol: Any  # an asyncio protocol; None once it has heard of the end
    _protocol_paused: bool

    def __init__(
        self,
        session: BaseSession[Any],
        driver: Driver,
        core: CoreStream,
        protocol: asyncio.BaseProtocol,
        started: asyncio.Future[None] | None = None,
        on_lost: Callable[[StreamTransport], object] | None = None,
    ) -> None:
        """Not for users.

        Args:
            session: the session.
            driver: its driver.
            core: the stream.
            protocol: what the stream is run for.
            started: is done once the protocol knows its transport.
            on_lost: called once the protocol has heard of the end.
        """
        self._session = session
        self._driver = driver
        self._core = core
        self._reading_paused = False
        self._read_eof = False
        self._closing = False
        self._lost = False
        self._protocol = protocol
        self._on_lost = on_lost
        super().__init__(None, driver.loop)
        self.set_write_buffer_limits(self._driver.core.ledger.config.write_high_water)
        driver.call_soon(self._start, started)

    def __repr__(self) -> str:
        return f"<StreamTransport {self._core.stream_id} of {self._session!r}>"

    def _start(self, started: asyncio.Future[None] | None) -> None:
        waiting = started is not None and not started.done()
        try:
            self._protocol.connection_made(self)
        except (SystemExit, KeyboardInterrupt):
            self._begin(started)
            raise
        except BaseException as exc:
            if started is not None and waiting:
                started.set_exception(for_a_future(exc))
                self._reset(exc)
            else:
                self._fail(exc, "connection_made")
            return
        self._begin(started)

    def _begin(self, started: asyncio.Future[None] | None) -> None:
        if started is not None and not started.done():
            started.set_result(None)
        self._watch_end()
        self._read_ready()

    # Reading

    def _read_ready(self) -> None:
        """Give the protocol what has come, a piece a loop turn."""
        if self._lost or self._closing or self._reading_paused or self._read_eof:
            return
        core = self._core
        if core.unread():
            self._deliver()
        elif core.eof_received:
            try:
                core.check_end()
            except MuxadoError as exc:  # this side has closed the session: the rest was dropped
                self._lose(exc)
            else:
                self._deliver_eof()
        elif core.state == CLOSED or self._driver.core.ledger.closed_here:
            self._lose(core.failure())
        elif core.read_waiter is None:
            core.announce()
            self._driver.flush_soon()
            waiter = self._loop.create_future()
            waiter.add_done_callback(lambda _: self._read_ready())
            core.read_waiter = waiter

    def _deliver(self) -> None:
        """Give the protocol the next piece: no more than it has room for, if it says so."""
        protocol = self._protocol
        callback = "get_buffer"
        try:
            if isinstance(protocol, asyncio.BufferedProtocol):
                buffer = memoryview(protocol.get_buffer(-1)).cast("B")
                if not buffer:
                    raise RuntimeError("get_buffer() returned an empty buffer")
                data = self._take(min(len(buffer), READ_SIZE))
                buffer[: len(data)] = data
                callback = "buffer_updated"
                if data:
                    protocol.buffer_updated(len(data))
            else:
                data = self._take(READ_SIZE)
                callback = "data_received"
                if data:
                    protocol.data_received(data)
        except (SystemExit, KeyboardInterrupt):
            self._driver.call_soon(self._read_ready)  # if the loop runs on
            raise
        except BaseException as exc:
            self._fail(exc, callback)
            return
        self._driver.call_soon(self._read_ready)

    def _take(self, count: int) -> bytes:
        """Take bytes for the protocol; b"" if they can't be had any more, which was told."""
        try:
            data = self._core.read(count)
        except MuxadoError as exc:
            self._lose(exc)
            return b""
        if self._core.granting:
            self._driver.flush_soon()
        return data

    def _deliver_eof(self) -> None:
        self._read_eof = True
        try:
            keep_open = self._protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            self._read_eof = False
            self._driver.call_soon(self._read_ready)
            raise
        except BaseException as exc:
            self._fail(exc, "eof_received")
            return
        if not keep_open:
            self.close()
        elif self._core.state == CLOSED:
            self._ended()

    def pause_reading(self) -> None:
        """Have the protocol get no more data until `resume_reading`."""
        self._reading_paused = True
        if self._protocol_paused and self._core.state == CLOSED:
            self._driver.call_soon(self._written)

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if self._reading_paused:
            self._reading_paused = False
            self._driver.call_soon(self._read_ready)

    def is_reading(self) -> bool:
        """Return whether the protocol gets data as it comes."""
        return not (self._reading_paused or self._closing or self._read_eof)

    # Writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue data. Never waits: the protocol is told to pause when too much is queued."""
        chunk = data if isinstance(data, bytes) else as_bytes(data)
        if self._core.fin_asked and not self._closing:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing:
            return  # as asyncio's own: the writer hears of the end by connection_lost()
        try:
            self._core.write(chunk)
        except MuxadoError:
            self._ended()  # once what has come before was read
            return
        self._driver.flush_soon()
        self._maybe_pause_protocol()

    def _maybe_pause_protocol(self) -> None:
        try:
            super()._maybe_pause_protocol()  # type: ignore[misc]
        finally:
            if self._protocol_paused and self._core.write_waiter is None:
                self._wait_written()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Queue several pieces of data."""
        self.write(b"".join(list_of_data))

    def _wait_written(self) -> None:
        waiter = self._loop.create_future()
        waiter.add_done_callback(lambda _: self._written())
        self._core.write_waiter = waiter

    def _written(self) -> None:
        core = self._core
        if self._lost:
            return
        if core.state == CLOSED and not core.fin_sent and not self._reading_paused:
            return  # connection_lost() comes soon, and says why nothing more was sent
        self._maybe_resume_protocol()  # type: ignore[attr-defined]
        if self._protocol_paused and core.state != CLOSED and core.write_waiter is None:
            self._wait_written()

    def write_eof(self) -> None:
        """Half-close: FIN follows what is queued."""
        if not self._closing:
            self._core.finish()
            self._driver.flush_soon()

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are queued."""
        return self._core.queued()

    # Ending

    def close(self) -> None:
        """Close in order: what is queued goes out, and then FIN."""
        if not self._closing:
            self._closing = True
            core = self._core
            over = core.finished()
            # Before `close`, which drops what was not read.
            exc = self.unsent() if over else None
            core.close()
            self._driver.flush()
            if over or core.finished():
                self._lose(exc)

    def abort(self) -> None:
        """Reset the stream; what is queued is dropped."""
        self._force_close(None)

    def _force_close(self, exc: Exception | None) -> None:
        # asyncio's TLS protocol calls it by this name.
        self._reset(exc)

    def _reset(self, exc: BaseException | None) -> None:
        self._closing = True
        self._core.reset(ErrorCode.STREAM_CANCELLED if exc is None else code_of(type(exc)))
        self._lose(exc)

    def _fail(self, exc: BaseException, callback: str) -> None:
        """End the stream with an exception of the protocol's, and report it as asyncio does."""
        message = f"Fatal error: protocol.{callback}() call failed."
        if not isinstance(exc, OSError):
            self._loop.call_exception_handler(
                {
                    "message": message,
                    "exception": exc,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
        elif self._loop.get_debug():
            logger.debug("%r: %s", self, message, exc_info=exc)
        self._reset(exc)

    def is_closing(self) -> bool:
        """Return whether the transport is closing or closed."""
        return self._closing or self._lost

    def _watch_end(self) -> None:
        """Watch for the end: our FIN is out after a close, or nothing more can be had."""
        if self._lost:
            return
        core = self._core
        ended = core.finished() if self._closing else self._driver.core.ledger.closed_here
        if core.state == CLOSED or ended:
            self._ended()
            return
        waiter = self._loop.create_future()
        waiter.add_done_callback(lambda _: self._watch_end())
        core.await_end(waiter)

    def _ended(self) -> None:
        """Tell the protocol of the end, if it has heard of all that came before."""
        core = self._core
        if self._closing:
            self._lose(self.unsent())
            return
        try:
            if core.reset_code < 0:
                # It ended in order. The protocol reads on to the peer's FIN, and then closes.
                core.outcome()
                core.check_end()
                return
            if self._driver.core.ledger.closed_here:
                core.check_end()
        except MuxadoError as exc:
            if self._driver.core.ledger.closed_here or self._has_read_all():
                self._lose(exc)
            return
        if self._has_read_all():
            self._lose(core.failure())
        # else it first gets what is left to read

    def _has_read_all(self) -> bool:
        """Return whether the protocol has heard of all that the peer has sent."""
        core = self._core
        return self._read_eof if core.eof_received else not core.unread()

    def unsent(self) -> Exception | None:
        """Return why what was written never went out, None if all of it did."""
        core = self._core
        if core.fin_sent or (core.eof_received and not core.dropped):
            return None
        try:
            code = core.outcome()
        except MuxadoError as exc:
            return exc
        if code is None or not core.reset_by_peer:
            return None
        return StreamReset(f"the peer reset the stream: {code_name(code)}", code=code, by_peer=True)

    def _lose(self, exc: BaseException | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._core.close()
        self._driver.flush()
        self._driver.call_soon(self._call_connection_lost, exc)

    def _call_connection_lost(self, exc: Exception | None) -> None:
        try:
            self._protocol.connection_lost(exc)
        finally:
            self._protocol = None  # as asyncio's own: the two hold each other
            if self._on_lost is not None:
                self._on_lost(self)
                self._on_lost = None

    # The rest

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the session's connection says: `peername`, `ssl_object` ...

        `socket` is always None: an option set on it would concern every stream.
        """
        if name == "socket":
            return None
        if name == "muxado_session":
            return self._session
        return self._session.get_extra_info(name, default)


def for_a_future(exc: BaseException) -> BaseException:
    """Return an exception for one that a future can't have, or that would look like a cancel."""
    if isinstance(exc, Exception) and not isinstance(exc, StopIteration):
        return exc
    wrapped = ConnectionAbortedError(f"protocol.connection_made() raised {exc!r}")
    wrapped.__cause__ = exc
    return wrapped
