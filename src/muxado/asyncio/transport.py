"""A stream as an asyncio `Transport`, so that any `Protocol` runs over it unchanged."""

from __future__ import annotations

import asyncio
from asyncio.constants import _SendfileMode
from asyncio.transports import _FlowControlMixin
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..core import CoreStream
from ..core.states import CLOSED
from ..errors import ErrorCode, MuxadoError, StreamReset, code_name
from .driver import Driver

if TYPE_CHECKING:
    from .session import Session

__all__ = ["StreamTransport"]

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
    _protocol_paused: bool

    def __init__(
        self,
        session: Session,
        driver: Driver,
        core: CoreStream,
        protocol: asyncio.BaseProtocol,
        started: asyncio.Future[None] | None = None,
    ) -> None:
        """Not for users. `started` is done once the protocol knows its transport."""
        self._session = session
        self._driver = driver
        self._core = core
        self._reading_paused = False
        self._read_eof = False
        self._closing = False
        self._lost = False
        self._protocol = protocol
        super().__init__(None, driver.loop)
        self.set_write_buffer_limits(core.session.config.write_high_water)
        self._loop.call_soon(self._start, started)

    def __repr__(self) -> str:
        return f"<StreamTransport {self._core.stream_id} of {self._session!r}>"

    def _start(self, started: asyncio.Future[None] | None) -> None:
        try:
            self._protocol.connection_made(self)
        except Exception as exc:
            if started is not None and not started.done():
                started.set_exception(exc)
                self._force_close(exc)
            else:
                self._fail(exc, "connection_made")
            return
        if started is not None and not started.done():
            started.set_result(None)
        self._wait_end()
        self._read_ready()

    # Reading

    def _read_ready(self) -> None:
        """Give the protocol what has come, a piece a loop turn."""
        if self._lost or self._closing or self._reading_paused or self._read_eof:
            return
        core = self._core
        if core.unread():
            try:
                self._deliver()
            except MuxadoError as exc:
                self._lose(exc)
            except Exception as exc:
                self._fail(exc, "data_received")
            else:
                self._loop.call_soon(self._read_ready)
        elif core.eof_received:
            self._read_eof = True
            try:
                keep_open = self._protocol.eof_received()  # type: ignore[attr-defined]
            except Exception as exc:
                self._fail(exc, "eof_received")
                return
            if not keep_open:
                self.close()
            elif core.state == CLOSED:  # it has written its own end before
                self._lose(None)
        elif core.state == CLOSED or core.session.closed_here:
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
        if isinstance(protocol, asyncio.BufferedProtocol):
            buffer = memoryview(protocol.get_buffer(-1)).cast("B")
            if not buffer:
                raise RuntimeError("get_buffer() returned an empty buffer")
            data = self._take(min(len(buffer), READ_SIZE))
            buffer[: len(data)] = data
            protocol.buffer_updated(len(data))
        else:
            protocol.data_received(self._take(READ_SIZE))  # type: ignore[attr-defined]

    def _take(self, count: int) -> bytes:
        data = self._core.read(count)
        if self._core.granting:
            self._driver.flush_soon()
        return data

    def pause_reading(self) -> None:
        """Have the protocol get no more data until `resume_reading`."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if self._reading_paused:
            self._reading_paused = False
            self._loop.call_soon(self._read_ready)

    def is_reading(self) -> bool:
        """Return whether the protocol gets data as it comes."""
        return not (self._reading_paused or self._closing or self._read_eof)

    # Writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue data. Never waits: the protocol is told to pause when too much is queued."""
        chunk = data if isinstance(data, bytes) else bytes(memoryview(data))
        if self._core.fin_asked and not self._closing:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing:
            return  # as asyncio's own: whoever writes hears of the end by connection_lost()
        try:
            self._core.write(chunk)
        except MuxadoError as exc:
            self._lose(exc)
            return
        self._driver.flush_soon()
        self._maybe_pause_protocol()

    def _maybe_pause_protocol(self) -> None:
        super()._maybe_pause_protocol()  # type: ignore[misc]
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
        if self._lost:
            return
        self._maybe_resume_protocol()  # type: ignore[attr-defined]
        if self._protocol_paused and self._core.state != CLOSED:
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
            self._core.close()
            self._driver.settle()
            if self._core.finished():
                self._lose(None)

    def abort(self) -> None:
        """Reset the stream; what is queued is dropped."""
        self._force_close(None)

    def _force_close(self, exc: Exception | None) -> None:
        # The name is asyncio's: its TLS protocol calls it.
        self._closing = True
        self._core.reset(ErrorCode.STREAM_CANCELLED)
        self._lose(exc)

    def _fail(self, exc: Exception, callback: str) -> None:
        """Report an exception of the protocol's, and end the stream with it."""
        self._loop.call_exception_handler(
            {
                "message": f"Fatal error: protocol.{callback}() call failed.",
                "exception": exc,
                "transport": self,
                "protocol": self._protocol,
            }
        )
        self._force_close(exc)

    def is_closing(self) -> bool:
        """Return whether the transport is closing or closed."""
        return self._closing or self._lost

    def _wait_end(self) -> None:
        """Watch for the end: our FIN is out after a close, or the stream has failed."""
        core = self._core
        if (core.finished() and self._closing) or core.state == CLOSED:
            self._ended()
            return
        waiter = self._loop.create_future()
        waiter.add_done_callback(lambda _: self._wait_end())
        if core.end_waiters is None:
            core.end_waiters = []
        core.end_waiters.append(waiter)

    def _ended(self) -> None:
        core = self._core
        if core.fin_sent and (self._closing or core.eof_received):
            self._lose(None)
        elif self._closing:
            self._lose(self._unsent())
        elif self._read_eof or not core.unread():
            self._lose(core.failure())
        # else the protocol first gets what is left to read, and then the error

    def _unsent(self) -> Exception | None:
        """Return why what was written before `close` never went out."""
        try:
            code = self._core.outcome()
        except MuxadoError as exc:
            return exc
        if code is None or not self._core.reset_by_peer:
            return None
        return StreamReset(f"the peer reset the stream: {code_name(code)}", code=code, by_peer=True)

    def _lose(self, exc: Exception | None) -> None:
        if self._lost:
            return
        if exc is None and not self._closing and not self._read_eof:
            return  # both FINs are through, but the protocol hasn't read up to the peer's
        self._lost = self._closing = True
        self._core.close()
        self._driver.settle()
        self._loop.call_soon(self._protocol.connection_lost, exc)

    # The rest

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the session's connection says: `peername`, `ssl_object` ...

        `socket` is always None: an option set on it would concern every stream.
        """
        if name == "socket":
            return None
        if name == "muxado_session":
            return self._session
        return self._session.get_extra_info(name, default)


class PairProtocol(asyncio.StreamReaderProtocol):
    """What is behind a reader and a writer over a stream."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport, which can be half-closed, whatever its session runs over."""
        super().connection_made(transport)
        # asyncio looks for `sslcontext`, finds the session's, and would drop the answer to a
        # question that ends with an EOF, because its own TLS can't be half-closed.
        self._over_ssl = False


class StreamServer(asyncio.AbstractServer):
    """Runs a protocol for each stream that the peer opens; from `Session.create_server`.

    Closing it stops that; the streams that run go on, and so does the session.
    """

    def __init__(
        self, session: Session, accept: Callable[[], Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Not for users."""
        self._loop = loop
        self._task = loop.create_task(accept(), name=f"muxado server on {session!r}")
        self._task.add_done_callback(_look_at)

    @property
    def sockets(self) -> tuple[Any, ...]:
        """No sockets; the streams share the session's."""
        return ()

    def is_serving(self) -> bool:
        """Return whether streams are still accepted."""
        return not self._task.done()

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
        self._task.cancel()

    async def wait_closed(self) -> None:
        """Wait until it is closed."""
        await asyncio.wait([self._task])


def _look_at(task: asyncio.Task[Any]) -> None:
    """Take note of how a task ended: `serve_forever` is who raises it, if somebody waits."""
    if not task.cancelled():
        task.exception()
