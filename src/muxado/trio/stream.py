"""A stream for trio: a `trio.abc.HalfCloseableStream`."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from ..base_stream import BaseStream, give_up
from ..core import CLOSED, CoreStream
from ..errors import MuxadoError, StreamBusy
from ..front_end import as_bytes, code_of
from .driver import Callback, Driver
from .errors import as_trio_error, trio_errors

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Stream"]

RECEIVE_SIZE = 64 * 1024

ExceptionType = type[BaseException]  # in the class, `type` is the stream's


class Stream(BaseStream["Session"], trio.abc.HalfCloseableStream):
    """One stream of a `Session`, from its `open()` or `accept()`.

    Its errors are trio's: `ClosedResourceError` for what this side has closed,
    `BrokenResourceError` for a reset or a lost session, each with muxado's own error as its
    `__cause__`. Cancelling any call leaves the stream as it was: what was not returned can
    still be read, what was not accepted is not sent. Used as an async context manager, a
    stream is closed at the end of the block, or reset if the block raises.
    """

    def __init__(self, session: Session, driver: Driver, core: CoreStream) -> None:
        """Not for users: streams come from `Session.open()` and `Session.accept()`."""
        self._session = session
        self._driver = driver
        self._core = core
        self._reading = False
        self._sending = False

    # Receiving

    @trio.lowlevel.enable_ki_protection
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at least one byte, at most `max_bytes`; b"" at the end of the stream.

        Raises:
            ValueError: `max_bytes` is below 1.
            trio.ClosedResourceError: this side has closed the stream, or its session.
            trio.BrokenResourceError: the stream was reset, or the session lost.
            trio.BusyResourceError: another task is receiving.
        """
        if max_bytes is None:
            max_bytes = RECEIVE_SIZE
        elif operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        core = self._core
        with Receiving(self):
            if core.readable():  # otherwise to wait is a checkpoint too
                await trio.lowlevel.checkpoint()
            while True:
                data = core.read(max_bytes)
                if data or core.eof_received:
                    if core.granting:
                        self._driver.flush_soon()
                    return data
                await self._wait_readable()

    @trio.lowlevel.enable_ki_protection
    def read_nowait(self, n: int, callback: Callable[[], object] | None = None) -> bytes | None:
        if self._reading:
            raise StreamBusy(f"another task is receiving from stream {self.id}")
        data = self._take_now(n, callback)
        self._driver.flush_soon()
        return data

    @trio.lowlevel.enable_ki_protection
    async def readexactly(self, n: int) -> bytes:
        """Receive exactly `n` bytes; more than the window holds is fine.

        Raises:
            EOFError: the stream ended before; what had come can still be received.

        Otherwise it raises as `receive_some`.
        """
        if n < 0:
            raise ValueError("n must not be negative")
        core = self._core
        with Receiving(self):
            if core.readable() or not n:
                await trio.lowlevel.checkpoint()
            while core.unread() < n:
                core.check_end()
                if core.eof_received:
                    raise EOFError(f"the stream ended after {core.unread()} of {n} bytes")
                core.check_readable()
                core.claim(n)
                await self._wait_readable()
            data = core.read(n)
            if core.granting:
                self._driver.flush_soon()
            return data

    @trio.lowlevel.enable_ki_protection
    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        r"""Receive up to and including `separator`.

        Raises:
            EOFError: the stream ended before; what had come can still be received.
            ValueError: the separator is empty, or more than `Config.read_limit` bytes have
                come without it; they can still be received.

        Otherwise it raises as `receive_some`.
        """
        if not separator:
            raise ValueError("the separator must not be empty")
        core = self._core
        searched = 0
        with Receiving(self):
            await trio.lowlevel.checkpoint()
            while True:
                end, searched = core.find(separator, searched)
                if max(end - len(separator), searched) > self._driver.core.ledger.config.read_limit:
                    raise ValueError("the separator is further away than Config.read_limit")
                if end >= 0:
                    data = core.read(end)
                    self._driver.flush_soon()
                    return data
                core.check_end()
                if core.eof_received:
                    raise EOFError(f"the stream ended after {core.unread()} bytes, without it")
                core.check_readable()
                core.claim(core.unread())
                await self._wait_readable()

    async def _wait_readable(self) -> None:
        core = self._core
        if core.read_waiter is not None:
            raise trio.BusyResourceError(f"a callback waits to read from stream {self.id}")
        core.announce()
        self._driver.flush_soon()
        waiter = trio.Event()
        core.read_waiter = waiter
        try:
            await waiter.wait()
        finally:
            core.read_waiter = None

    # Sending

    @trio.lowlevel.enable_ki_protection
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Queue all of `data`, after waiting until `Config.write_high_water` allows.

        Cancelled, nothing of it was queued.

        Raises:
            trio.ClosedResourceError: after `send_eof` or `aclose`.
            trio.BrokenResourceError: the stream was reset, or the session lost.
            trio.BusyResourceError: another task is sending.
        """
        chunk = data if isinstance(data, bytes) else as_bytes(data)
        with Sending(self):
            await self._wait_writable()
            self._core.write(chunk)
        self._driver.flush_soon()

    @trio.lowlevel.enable_ki_protection
    def write_nowait(
        self,
        data: bytes | bytearray | memoryview,
        callback: Callable[[], object] | None = None,
    ) -> bool:
        if self._sending:
            raise StreamBusy(f"another task is sending on stream {self.id}")
        chunk = data if isinstance(data, bytes) else as_bytes(data)
        taken = self._write_now(chunk, callback)
        self._driver.flush_soon()
        return taken

    @trio.lowlevel.enable_ki_protection
    async def wait_send_all_might_not_block(self) -> None:
        """Wait until `send_all` would not wait. Raises as `send_all`; cancelling it is harmless."""
        with Sending(self):
            await self._wait_writable()

    async def _wait_writable(self) -> None:
        core = self._core
        await trio.lowlevel.checkpoint()
        core.check_writable()
        while core.write_full():
            await self._wait_for_room()
            core.check_writable()

    async def _wait_for_room(self) -> None:
        core = self._core
        if core.write_waiter is not None:
            raise trio.BusyResourceError(f"a callback waits to write to stream {self.id}")
        waiter = trio.Event()
        core.write_waiter = waiter
        try:
            await waiter.wait()
        finally:
            core.write_waiter = None

    @trio.lowlevel.enable_ki_protection
    async def send_eof(self) -> None:
        """Half-close: send FIN after what is queued. Harmless if repeated.

        Raises:
            trio.ClosedResourceError: after `aclose`.
            trio.BusyResourceError: another task is sending.
        """
        if self._sending:
            raise trio.BusyResourceError(f"another task is sending on stream {self.id}")
        await trio.lowlevel.checkpoint()
        with trio_errors:
            self.check_open()
        self._do(self._core.finish)

    # Ending

    def close(self) -> None:
        """Close both directions without waiting; what was written still goes out.

        Unread data is dropped, and a peer that goes on writing is told with a RST. Harmless if
        repeated.
        """
        self._do(self._core.close)

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """Close both directions; waits while more is queued than the peer's window lets out.

        Cancelled while it would wait, it drops what is queued and resets the stream.
        Harmless if repeated.
        """
        self.close()
        try:
            await trio.lowlevel.checkpoint()
            while self.stalled():
                await self._wait_end()
        except BaseException:
            if self.stalled():
                give_up(self)
            raise

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: ExceptionType | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            await self.aclose()
            return
        give_up(self, code_of(exc_type))
        await trio.lowlevel.cancel_shielded_checkpoint()

    @trio.lowlevel.enable_ki_protection
    async def wait_reset(self) -> int | None:
        """Wait until the stream is over.

        For a task that works without reading or writing, and should stop when the peer has lost
        interest. Cancelling it changes nothing.

        Returns:
            The code if it was reset, by either side; None if it ended in order.

        Raises:
            trio.ClosedResourceError: this side has ended the session first.
            trio.BrokenResourceError: the session ended first, otherwise.
        """
        await trio.lowlevel.checkpoint()
        while self._core.state != CLOSED:
            await self._wait_end()
        with trio_errors:
            return self._core.outcome()

    async def _wait_end(self) -> None:
        core = self._core
        waiter = trio.Event()
        core.await_end(waiter)
        try:
            await waiter.wait()
        finally:
            core.forget_end_waiter(waiter)

    def _waiter_for(self, callback: Callable[[], object]) -> object:
        return Callback(self._driver, callback)

    @trio.lowlevel.enable_ki_protection
    def _do(self, step: Callable[..., object], *args: object) -> None:
        step(*args)
        self._driver.flush()

    def __del__(self) -> None:
        core = self._core
        if not core.holds_something():
            return
        self._driver.abandon(core)
        if core.state != CLOSED:
            warnings.warn(f"unclosed stream {self!r}", ResourceWarning, stacklevel=2, source=self)


async def run_handler(handler: Callable[[Stream], Awaitable[object]], stream: Stream) -> None:
    """Run a handler; its stream is closed when it returns, or reset."""
    try:
        await handler(stream)
    except BaseException as exc:
        give_up(stream, code_of(type(exc)))
        raise
    stream.close()
    if stream.stalled():
        await stream.aclose()


class Receiving:
    """The block of a call that receives: no other may, and muxado's errors become trio's."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        stream = self._stream
        if stream._reading:
            raise trio.BusyResourceError(f"another task is receiving from stream {stream.id}")
        stream._reading = True

    def __exit__(
        self,
        exc_type: ExceptionType | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream._reading = False
        if isinstance(exc, MuxadoError):
            raise as_trio_error(exc) from exc


class Sending:
    """The block of a call that sends, likewise."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        stream = self._stream
        if stream._sending:
            raise trio.BusyResourceError(f"another task is sending on stream {stream.id}")
        stream._sending = True

    def __exit__(
        self,
        exc_type: ExceptionType | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream._sending = False
        if isinstance(exc, MuxadoError):
            raise as_trio_error(exc) from exc


class ResetWatch:
    """Waits for the end of a stream, and cancels a scope if it was the peer's reset."""

    def __init__(self, core: CoreStream, scope: trio.CancelScope) -> None:
        self._core = core
        self._scope = scope

    def set(self) -> None:
        """Look at the stream; called, as an event's `set`, when it may have ended."""
        core = self._core
        if core.state != CLOSED:  # it has sent its FIN, say
            core.await_end(self)
        elif core.reset_by_peer:
            self._scope.cancel()
