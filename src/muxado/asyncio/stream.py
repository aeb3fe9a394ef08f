"""A stream for asyncio: reads like a `StreamReader`, writes like a `StreamWriter`."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from ..base_stream import BaseStream, give_up
from ..core import CLOSED, IDLE, CoreStream
from ..errors import ErrorCode, StreamBusy
from ..front_end import as_bytes, code_of
from .driver import Driver

if TYPE_CHECKING:
    from typing import Self

    from .session import Session

__all__ = ["Stream"]

ReadableBuffer = bytes | bytearray | memoryview
ExceptionType = type[BaseException]  # in the class, `type` is the stream's


class Stream(BaseStream["Session"]):
    """One stream of a `Session`, from its `open()` or `accept()`.

    Used as an async context manager, a stream is closed at the end of the block, or reset if
    the block raises. Iterating over it gives lines. One task may read while another writes.

    Cancelling any of its calls, or letting them time out, leaves the stream as it was: what
    was not returned can still be read, what was not accepted is not sent.
    """

    __slots__ = ("__weakref__", "_core", "_driver", "_reading", "_session", "_turn", "_writers")

    def __init__(self, session: Session, driver: Driver, core: CoreStream) -> None:
        """Not for users: streams come from `Session.open()` and `Session.accept()`."""
        self._session = session
        self._driver = driver
        self._core = core
        self._reading = False
        self._turn: asyncio.Lock | None = None  # made when a writer must wait
        self._writers = 0

    # Reading

    async def read(self, n: int = -1) -> bytes:
        """Read up to `n` bytes, or all until the peer's FIN if `n` is negative.

        Returns:
            At least one byte, as soon as any are there; b"" at the end of the stream, or
            if `n` is 0.

        Raises:
            StreamReset: the stream was reset, and what came before has been read.
            StreamClosed: this side has closed the stream.
            SessionError: the session ended, and what came before has been read.
            StreamBusy: another task is reading.
        """
        core = self._core
        if self._reading:
            raise self._busy()
        if n == 0:
            return b""
        if n < 0:
            while not core.eof_received:
                await self._wait_for_more(core.unread() + 1)
            return self._take(core.unread())
        while True:
            data = core.read(n)
            if data:
                if core.granting:
                    self._driver.flush_soon()
                return data
            if core.eof_received:
                return b""
            await self._wait_for_more(0)

    def read_nowait(self, n: int, callback: Callable[[], object] | None = None) -> bytes | None:
        if self._reading:
            raise self._busy()
        core = self._core
        data = self._take_now(n, callback)
        if core.granting or core.state == IDLE:
            self._driver.flush_soon()
        return data

    async def readexactly(self, n: int) -> bytes:
        """Read exactly `n` bytes; more than the window holds is fine.

        Raises:
            asyncio.IncompleteReadError: the stream ended before; `partial` has the rest.
            ValueError: `n` is negative.

        Otherwise it raises as `read`.
        """
        if n < 0:
            raise ValueError("readexactly size can not be less than zero")
        core = self._core
        if self._reading:
            raise self._busy()
        while core.unread() < n:
            if core.eof_received:
                raise asyncio.IncompleteReadError(self._take(core.unread()), n)
            await self._wait_for_more(n)
        return self._take(n)

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        r"""Read up to and including `separator`.

        Raises:
            asyncio.IncompleteReadError: the stream ended before; `partial` has the rest.
            asyncio.LimitOverrunError: more than `Config.read_limit` bytes have come
                without it, or lie before it; they can still be read.
            ValueError: the separator is empty.

        Otherwise it raises as `read`.
        """
        if not separator:
            raise ValueError("Separator should be at least one-byte string")
        core = self._core
        if self._reading:
            raise self._busy()
        limit = self._driver.core.ledger.config.read_limit
        searched = 0
        while True:
            length, searched = core.find(separator, searched)
            at = length - len(separator)
            if at > limit:
                raise asyncio.LimitOverrunError(
                    "Separator is found, but chunk is longer than limit", at
                )
            if length >= 0:
                return self._take(length)
            if searched > limit:
                raise asyncio.LimitOverrunError(
                    "Separator is not found, and chunk exceed the limit", searched
                )
            if core.eof_received:
                raise asyncio.IncompleteReadError(self._take(core.unread()), None)
            await self._wait_for_more(core.unread() + 1)

    async def readline(self) -> bytes:
        r"""Read a line with its ``\n``, or what is left without one at the end.

        Returns:
            The line; b"" at the end of the stream.

        Raises:
            ValueError: the line is longer than `Config.read_limit`; it is dropped as far
                as it has come.

        Otherwise it raises as `read`.
        """
        try:
            return await self.readuntil(b"\n")
        except asyncio.IncompleteReadError as exc:
            return exc.partial
        except asyncio.LimitOverrunError as exc:
            core = self._core
            at = core.inbox.find(b"\n", 0) if core.inbox is not None else -1
            self._take(at + 1 if at >= 0 else core.unread())
            raise ValueError(exc.args[0]) from None

    async def readinto(self, buffer: bytearray | memoryview) -> int:
        """Read into `buffer`; return the number of bytes, 0 at the end. Raises as `read`."""
        view = memoryview(buffer).cast("B")
        if view.readonly:
            raise TypeError("readinto() needs a buffer that can be written to")
        data = await self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def at_eof(self) -> bool:
        """Return whether the peer has finished and everything was read."""
        return self._core.at_eof()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    # Writing

    async def write(self, data: ReadableBuffer) -> None:
        """Queue `data`, after waiting until less than `Config.write_high_water` is queued.

        Writers of one stream are served in order, and each one's data stays together.
        Cancelled or timed out, nothing of it was queued.

        Args:
            data: `bytes` are kept by reference; anything else is copied.

        Raises:
            StreamClosed: after `write_eof` or `close`.
            StreamReset: the stream was reset.
            SessionError: the session has ended.
        """
        core = self._core
        if self._turn is None and not core.write_full():
            core.write(data if isinstance(data, bytes) else as_bytes(data))
            self._driver.flush_soon()
            return
        await self.writelines((data,))

    def write_nowait(
        self, data: ReadableBuffer, callback: Callable[[], object] | None = None
    ) -> bool:
        if self._turn is not None:
            raise StreamBusy(f"another task waits to write to stream {self.id}")
        chunk = data if isinstance(data, bytes) else as_bytes(data)
        taken = self._write_now(chunk, callback)
        if taken and chunk:
            self._driver.flush_soon()
        return taken

    async def writelines(self, chunks: Iterable[ReadableBuffer]) -> None:
        """Queue all `chunks` as one write. See `write`."""
        data = [chunk if isinstance(chunk, bytes) else as_bytes(chunk) for chunk in chunks]
        core = self._core
        if self._turn is None and not core.write_full():
            for chunk in data:
                core.write(chunk)
            self._driver.flush_soon()
            return
        if self._turn is None:
            self._turn = asyncio.Lock()
        self._writers += 1
        try:
            async with self._turn:
                await self._wait_writable()
                for chunk in data:
                    core.write(chunk)
                self._driver.flush_soon()
        finally:
            self._writers -= 1
            if not self._writers:
                self._turn = None

    def write_eof(self) -> None:
        """Half-close: send FIN after what is queued. Reading goes on. Harmless if repeated."""
        self._core.finish()
        self._driver.flush_soon()

    # Ending

    def close(self) -> None:
        """Close both directions; what was written still goes out. Harmless if repeated.

        Unread data is dropped, and a peer that goes on writing is told with a RST.
        """
        self._core.close()
        self._driver.flush_soon()

    async def wait_closed(self) -> None:
        """Wait until the FIN was handed over, or the stream failed; not for the peer's FIN."""
        while not self._core.finished():
            await self._wait_end()

    async def wait_reset(self) -> int | None:
        """Wait until the stream is over.

        For a task that works without reading or writing, and should stop when the peer
        has lost interest.

        Returns:
            The code if it was reset, by either side; None if it ended in order.

        Raises:
            SessionError: the session ended first.
        """
        core = self._core
        while core.state != CLOSED:
            await self._wait_end()
        return core.outcome()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: ExceptionType | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            give_up(self, code_of(exc_type))
            return
        self.close()
        try:
            if self._core.stalled():
                await self.wait_closed()
        except asyncio.CancelledError:
            give_up(self, ErrorCode.STREAM_CANCELLED)
            raise

    def __del__(self) -> None:
        core = self._core
        if core.closed_here or not core.holds_something() or self._driver.lost:
            return
        # An exception, or the collector, may come here on any thread.
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._driver.loop.call_soon_threadsafe(self._driver.abandon, core)
        if core.state != CLOSED:
            warnings.warn(f"unclosed stream {self!r}", ResourceWarning, stacklevel=2, source=self)

    def _do(self, step: Callable[..., object], *args: object) -> None:
        step(*args)
        self._driver.flush()

    def _waiter_for(self, callback: Callable[[], object]) -> object:
        return callback

    # Waiting

    def _busy(self) -> StreamBusy:
        return StreamBusy(f"another task is reading from stream {self.id} already")

    def _take(self, count: int) -> bytes:
        data = self._core.read(count)
        if self._core.granting:
            self._driver.flush_soon()
        return data

    async def _wait_for_more(self, wanted: int) -> None:
        """Wait for another byte, having paid for the ones that are here and `wanted`."""
        core = self._core
        core.check_readable()
        if core.read_waiter is not None:
            raise StreamBusy(f"a callback waits to read from stream {self.id}")
        if core.inbox is not None:
            core.claim(wanted)
        if core.state == IDLE:
            core.announce()
        waiter = self._driver.loop.create_future()
        core.read_waiter = waiter
        self._reading = True
        try:
            self._driver.flush_before_wait()  # it may look who waits
            await waiter
        finally:
            self._reading = False
            core.read_waiter = None

    async def _wait_writable(self) -> None:
        core = self._core
        while core.write_full():
            core.check_writable()
            if core.write_waiter is not None:
                raise StreamBusy(f"a callback waits to write to stream {self.id}")
            waiter = self._driver.loop.create_future()
            core.write_waiter = waiter
            try:
                await waiter
            finally:
                core.write_waiter = None

    async def _wait_end(self) -> None:
        core = self._core
        waiter = self._driver.loop.create_future()
        core.await_end(waiter)
        try:
            await waiter
        finally:
            core.forget_end_waiter(waiter)
