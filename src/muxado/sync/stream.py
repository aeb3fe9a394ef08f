"""A stream for threads: reading, writing and ending, with the lock held for each step.

A call takes a step under the driver's lock, and waits without it. The driver's module tells why a
step says when it changes the core. `recv` and `send`, the calls that are made most, have the code
of `Driver.ask` in their own bodies, to save the call.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

from ..base_stream import give_up
from ..core import CLOSED, CoreStream
from ..errors import ErrorCode, StreamBusy, UsageError
from ..front_end import as_bytes, code_of
from .bridge import bridge
from .driver import Callback, Driver
from .locks import Waiter, deadline_of
from .socket_calls import Buffer, SocketCalls

if TYPE_CHECKING:
    from typing import Self

    from .session import Session

__all__ = ["Stream"]

ExceptionType = type[BaseException]  # in the class, `type` is the stream's


class Stream(SocketCalls):
    """One stream of a `Session`, from its `open()` or `accept()`; used like a `socket.socket`.

    One thread may read while another writes; any may close it, which wakes the others.
    A call that times out (see `settimeout`) leaves the stream as it was: what was not returned
    can still be read, what was not accepted is not sent. As a context manager a stream is
    closed at the end of the block, which waits (within the timeout) while more is queued than
    the peer takes; or reset if the block raises.
    """

    def __init__(self, session: Session, driver: Driver, core: CoreStream) -> None:
        """Not for users: streams come from `Session.open()` and `Session.accept()`."""
        self._session = session
        self._driver = driver
        self._core = core
        self._writers: list[Waiter] = []  # that wait for room, in the order of their turns
        self._owing = False  # a read has taken bytes, and not returned yet
        self._input_shut = False  # by shutdown(SHUT_RD)
        self._init_socket()

    # Reading

    @property
    def is_reset(self) -> bool:
        """Whether the peer has reset the stream, so that a handler need not go on.

        It is for handlers that work long without reading or writing; the next read or write raises
        `StreamReset` anyway, once what came before the reset has been read.
        """
        core = self._core
        return core.reset_code >= 0 and core.reset_by_peer

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Read up to `bufsize` bytes.

        Args:
            bufsize: how many at most.
            flags: `socket.MSG_WAITALL` waits for all of them, or the end; no other.

        Returns:
            At least one byte; b"" at the end of the stream, or if `bufsize` is 0.

        Raises:
            TimeoutError: nothing came within the timeout; BlockingIOError if that is 0.
            StreamReset: the stream was reset, and what came before has been read.
            StreamClosed: this side has closed the stream.
            SessionError: the session ended, and what came before has been read.
            StreamBusy: another thread is reading.
        """
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        data = self._receive(bufsize, flags)
        self._owing = False
        return data

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:
        """Read into a buffer.

        Args:
            buffer: where to; it is filled from its start.
            nbytes: how many bytes at most; 0: as many as the buffer holds.
            flags: as for `recv`.

        Returns:
            the number of bytes; 0 at the end of the stream.

        Raises:
            ValueError: `nbytes` is more than the buffer holds.

        Otherwise it raises as `recv`.
        """
        view = memoryview(buffer).cast("B")
        if view.readonly:
            raise TypeError("recv_into() needs a buffer that can be written to")
        if not 0 <= nbytes <= len(view):
            raise ValueError("nbytes must be from 0 to the buffer's length")
        data = self._receive(nbytes or len(view), flags)
        count = len(data)
        view[:count] = data
        self._owing = False  # behind all calls, after which a signal's handler may raise
        return count

    def _receive(self, bufsize: int, flags: int) -> bytes:
        """Read. The caller clears `_owing` when the bytes can't be lost any more."""
        if flags and flags != socket.MSG_WAITALL:
            raise UsageError("a stream knows no receive flag but MSG_WAITALL")
        if not bufsize:
            return b""
        core = self._core
        driver = self._driver
        deadline = None if self._timeout is None else monotonic() + self._timeout
        waiter: Waiter | None = None
        try:
            while True:
                with driver.lock:
                    if driver.changing or self._owing:
                        self._collapse()
                    driver.changing = True
                    try:
                        if not flags or self._has(bufsize):
                            data = core.read(bufsize)
                            if data or flags or core.eof_received or self._input_shut:
                                self._owing = len(data) > 0
                                if core.granting or flags:
                                    driver.flush()
                                driver.changing = False
                                return data
                        waiter = self._await_input(waiter)
                    except BaseException as exc:
                        driver.cut_off(exc)
                        raise
                    driver.changing = False
                if not waiter.wait(deadline):
                    raise self._timed_out()
        finally:
            if waiter is not None:
                driver.sleepers.discard(waiter)

    def _has(self, count: int) -> bool:
        """Return whether so much has come, or no more will; with the lock held.

        Otherwise the bytes that are here are paid for, so that the peer may send more than the
        window lets in.
        """
        core = self._core
        if core.unread() >= count or core.eof_received or self._input_shut:
            return True
        if core.state == CLOSED or core.closed_here or self._driver.core.ledger.closed_here:
            return True
        core.claim(count)
        return False

    def _await_input(self, waiter: Waiter | None) -> Waiter:
        """Have a waiter woken when more comes, or the end; with the lock held."""
        core = self._core
        driver = self._driver
        other = core.read_waiter
        if other is not None and other is not waiter and other in driver.sleepers:
            raise StreamBusy(f"another thread is reading from stream {self.id} already")
        if waiter is None:
            waiter = driver.new_waiter()
        # It is there before the flush, which may find that the connection is lost.
        core.read_waiter = waiter
        core.announce()
        driver.flush()
        return waiter

    def _collapse(self) -> None:
        """End the session, as a call was cut off, or a read when it had taken bytes already."""
        self._driver.changing = True
        self._driver.collapse()

    def read_nowait(self, n: int, callback: Callable[[], object] | None = None) -> bytes | None:
        data = self._driver.ask(self._read_step, n, callback)
        self._owing = False
        return data

    def _read_step(self, n: int, callback: Callable[[], object] | None) -> bytes | None:
        core = self._core
        sleepers = self._driver.sleepers
        if self._owing:
            self._collapse()
        if core.read_waiter in sleepers:
            if not isinstance(core.read_waiter, Callback):
                raise StreamBusy(f"another thread is reading from stream {self.id} already")
            sleepers.discard(core.read_waiter)
        if self._input_shut and not core.unread():
            return b""
        data = self._take_now(n, callback)
        self._owing = bool(data)
        self._driver.flush()
        return data

    def wait_readable(self) -> bool:
        """Wait, reading nothing, until a read would return at once, or the session drains.

        For servers that keep a connection open for a next request, and close it when none will
        come.

        Returns:
            whether a read would return at once.

        Raises:
            TimeoutError: neither came within the timeout.
            StreamBusy: another thread is reading.
        """
        self._driver.until(self._has_request, deadline_of(self._timeout))
        return self.readable()

    def _has_request(self, waiter: Waiter) -> bool:
        if self._core.readable() or self._session.draining:
            return True
        self._await_input(waiter)
        return False

    def wake_reader(self) -> None:
        """Let a thread look again that waits in `wait_readable`, without waiting here."""
        self._do(self._core.wake_reader)

    # Writing

    def send(self, data: Buffer, flags: int = 0) -> int:
        """Queue `data`, all of it, after waiting until `Config.write_high_water` allows.

        Inside another call of the same thread, as from a signal's handler, it waits for nothing,
        and an error is only logged.

        Args:
            data: what to send; it may be changed afterwards.
            flags: 0; a stream knows none.

        Returns:
            The length of `data`.

        Raises:
            TimeoutError: the queue stayed full; nothing of `data` was queued.
                BlockingIOError if the timeout is 0.
            StreamClosed: after `shutdown(SHUT_WR)` or `close`.
            StreamReset: the stream was reset.
            SessionError: the session has ended.
        """
        if flags:
            raise UsageError("a stream knows no send flags")
        chunk = data if isinstance(data, bytes) else as_bytes(data)
        size = len(chunk)
        core = self._core
        driver = self._driver
        if driver.busy():
            # A file that is collected flushes itself, and a signal's handler may say something.
            driver.later(core.write, chunk)
            return size
        with driver.lock:
            if driver.changing:
                driver.collapse()
            core.check_writable()
            if not self._writers and not core.write_full():
                driver.changing = True
                try:
                    core.write(chunk)
                    driver.flush()
                except BaseException as exc:
                    driver.cut_off(exc)
                    raise
                driver.changing = False
                return size  # no call here: nothing may come between it and the lock's release
        here = threading.get_ident()
        waiting = driver.sleepers.intersection(self._writers)
        if any(writer.thread == here for writer in waiting):
            # A signal's handler, while this very thread waits below.
            driver.later(core.write, chunk)
        else:
            self._send_in_turn(chunk)
        return size

    def write_nowait(self, data: Buffer, callback: Callable[[], object] | None = None) -> bool:
        chunk = data if isinstance(data, bytes) else as_bytes(data)
        return self._driver.ask(self._write_step, chunk, callback)

    def _write_step(self, chunk: bytes, callback: Callable[[], object] | None) -> bool:
        core = self._core
        sleepers = self._driver.sleepers
        if not sleepers.isdisjoint(self._writers):
            raise StreamBusy(f"another thread waits to write to stream {self.id}")
        if isinstance(core.write_waiter, Callback):
            sleepers.discard(core.write_waiter)
        taken = self._write_now(chunk, callback)
        self._driver.flush()
        return taken

    def _send_in_turn(self, chunk: bytes) -> None:
        """Write after the calls that wait for room already."""
        driver = self._driver
        deadline = deadline_of(self._timeout)
        turn = driver.new_waiter()
        try:
            while not driver.ask(self._write_in_turn, turn, chunk):
                if not turn.wait(deadline):
                    raise self._timed_out()
        except BaseException:
            driver.sleepers.discard(turn)
            driver.later(self._next_turn)
            raise
        finally:
            driver.sleepers.discard(turn)

    def _write_in_turn(self, turn: Waiter, chunk: bytes) -> bool:
        core = self._core
        driver = self._driver
        core.check_writable()
        writers = self._writers
        if turn not in writers:
            writers.append(turn)
        if writers[0] is not turn:
            return False
        if core.write_full():
            if isinstance(core.write_waiter, Callback) and core.write_waiter in driver.sleepers:
                raise StreamBusy(f"a callback waits to write to stream {self.id}")
            core.write_waiter = turn
            return False
        core.write(chunk)
        del writers[0]
        self._next_turn()
        driver.flush()
        return True

    def _next_turn(self) -> None:
        """Wake the first call that still waits for room."""
        sleepers = self._driver.sleepers
        self._writers = [writer for writer in self._writers if writer in sleepers]
        if self._writers:
            self._writers[0].wake()

    # Ending

    def shutdown(self, how: int) -> None:
        """End one direction or both, without waiting; `close()` is what frees the stream.

        Args:
            how: `socket.SHUT_WR` sends FIN after what is queued. `socket.SHUT_RD` ends the
                reading here: what has come can still be read, and after it a read gives b"",
                also one that waits already. `socket.SHUT_RDWR` is both.

        Raises:
            ValueError: `how` is something else.
        """
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            raise ValueError(f"shutdown takes SHUT_RD, SHUT_WR or SHUT_RDWR, not {how}")
        self._do(self._shut, how)

    def _shut(self, how: int) -> None:
        if how != socket.SHUT_RD:
            self._core.finish()
        if how != socket.SHUT_WR:
            self._input_shut = True
            self._core.wake_reader()

    def write_eof(self) -> None:
        """Half-close: send FIN after what is queued. Reading goes on. Harmless if repeated."""
        self.shutdown(socket.SHUT_WR)

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the FIN was handed over, or the stream failed; not for the peer's FIN.

        Args:
            timeout: seconds to wait, whatever `settimeout` says; None: as long as it takes.

        Raises:
            TimeoutError: it took longer; nothing is changed by that.
        """
        self._driver.until(self._finished, deadline_of(timeout))

    def wait_reset(self, timeout: float | None = None) -> int | None:
        """Wait until the stream is over; return its reset code, None if it ended in order.

        Args:
            timeout: seconds to wait, whatever `settimeout` says; None: as long as it takes.

        Raises:
            TimeoutError: it took longer; nothing is changed by that.
            SessionError: the session ended first.
        """
        self._driver.until(self._over, deadline_of(timeout))
        return self._driver.ask(self._core.outcome)

    def _finished(self, waiter: Waiter) -> bool:
        return self._core.finished() or self._await_end(waiter)

    def _over(self, waiter: Waiter) -> bool:
        return self._core.state == CLOSED or self._await_end(waiter)

    def _await_end(self, waiter: Waiter) -> bool:
        """Have a waiter woken at the end, and return that it is not yet; with the lock held."""
        self._core.await_end(waiter, self._driver.sleepers)
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: ExceptionType | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.close()
            self._linger()
        else:
            give_up(self, code_of(exc_type))

    def _linger(self) -> None:
        """Wait while more is queued than the peer's window lets out, within the timeout."""
        core = self._core
        if not core.closed_here or self._timeout == 0 or not core.stalled():
            return
        try:
            self.wait_closed(self._timeout)
        except BaseException:
            give_up(self, ErrorCode.STREAM_CANCELLED)
            raise

    def __del__(self) -> None:
        if not hasattr(self, "_closed"):
            return  # a signal's handler has raised inside __init__
        core = self._core
        if not core.holds_something() or sys.is_finalizing():
            return
        # The collector may interrupt another call to come here: the I/O thread does the rest.
        # Closed here, with only a file, which is dropped too, to keep it open; or over already.
        if self._closed or core.state == CLOSED:
            self._driver.later(core.close)
            return
        try:
            message = f"unclosed stream {self!r}"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
        finally:
            self._driver.abandon(core)

    def to_socket(self) -> socket.socket:
        """Give the stream away for a real socket that carries its bytes.

        For libraries that insist on a file descriptor. Two daemon threads copy between them;
        half-closes pass both ways, and a reset becomes the socket's end. Closing the socket
        closes the stream (on systems other than Linux, once the peer has ended it too, or says
        more). The stream itself must not be used any more.

        Raises:
            OSError: no thread can be started; the stream was reset.
        """
        return bridge(self)

    # Helpers

    def _waiter_for(self, callback: Callable[[], object]) -> object:
        return Callback(self._driver, callback)

    def _do(self, step: Callable[..., object], *args: object) -> None:
        self._driver.do(step, *args)

    def _timed_out(self) -> OSError:
        if self._timeout == 0:
            return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return TimeoutError("timed out")
