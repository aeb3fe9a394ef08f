"""A stream for threads: used like a `socket.socket`."""

from __future__ import annotations

import errno
import io
import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from ..core import CoreStream
from ..core.states import CLOSED
from ..errors import ErrorCode, StreamBusy, UsageError
from ..shell import BaseStream
from .bridge import bridge
from .driver import Driver
from .locks import Waiter, deadline_of, held_here

if TYPE_CHECKING:
    from typing import Self

    from .session import Session

__all__ = ["Stream"]

Buffer = bytes | bytearray | memoryview
ExceptionType = type[BaseException]  # in the class, `type` is the stream's

SENDFILE_SIZE = 256 * 1024


class NoDescriptor(UsageError, io.UnsupportedOperation):
    """A stream was asked for a file descriptor; as of other files without one."""


class Stream(BaseStream["Session"]):
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
        self._timeout: float | None = socket.getdefaulttimeout()
        self._turn = threading.RLock()  # held by the one writer that waits for room
        self._crowded = False  # there is such a writer: no other goes first
        self._input_shut = False  # by shutdown(SHUT_RD)
        self._io_refs = 0  # files made of this stream, as the standard library counts them
        self._closed = False

    # Reading

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
        if flags == socket.MSG_WAITALL:
            return self._recv_all(bufsize)
        if flags:
            raise UsageError("a stream knows no receive flag but MSG_WAITALL")
        if not bufsize:
            return b""
        core = self._core
        driver = self._driver
        deadline = self._deadline()
        with driver.lock:
            while True:
                data = core.read(bufsize)
                if data or core.eof_received or self._input_shut:
                    if core.granting:
                        driver.settle()
                    return data
                self._wait_readable(deadline)

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
        data = self.recv(nbytes or len(view), flags)
        view[: len(data)] = data
        return len(data)

    def _recv_all(self, count: int) -> bytes:
        core = self._core
        driver = self._driver
        deadline = self._deadline()
        with driver.lock:
            while core.unread() < count and not core.eof_received and not self._input_shut:
                if core.state == CLOSED or core.closed_here or core.session.closed_here:
                    break
                core.claim(count)
                self._wait_readable(deadline)
            data = core.read(count)
            driver.settle()
            return data

    def _wait_readable(self, deadline: float | None) -> None:
        """Wait, with the lock held, until more comes, or the end."""
        core = self._core
        driver = self._driver
        if core.read_waiter is not None:
            raise StreamBusy(f"another thread is reading from stream {self.id} already")
        # The waiter is there before the flush, which may find that the connection is lost.
        waiter = core.read_waiter = Waiter()
        try:
            core.announce()
            driver.settle()
            if not driver.wait(waiter, deadline):
                raise self._timed_out()
        finally:
            if core.read_waiter is waiter:
                core.read_waiter = None

    # Writing

    def send(self, data: Buffer, flags: int = 0) -> int:
        """Queue `data`, all of it, after waiting until `Config.write_high_water` allows.

        In the midst of another call of the same thread, as from a signal's handler, it waits for
        nothing, and an error is only logged.

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
        chunk = data if isinstance(data, bytes) else bytes(memoryview(data))
        core = self._core
        driver = self._driver
        if driver.busy():
            # A file that is collected flushes itself, and a signal's handler may say something.
            driver.later(core.write, chunk)
            return len(chunk)
        deadline = self._deadline()
        with driver.lock:
            core.check_writable()  # first: in a forked child nobody gives the turn back
            if not self._crowded and core.queued() < core.session.config.write_high_water:
                core.write(chunk)
                driver.settle()
                return len(chunk)
        if held_here(self._turn):  # a signal's handler, while this very thread waits below
            driver.later(core.write, chunk)
            return len(chunk)
        if not self._turn.acquire(timeout=-1 if self._timeout is None else self._timeout):
            raise self._timed_out()
        try:
            with driver.lock:
                self._crowded = True
                core.check_writable()
                while core.queued() >= core.session.config.write_high_water:
                    self._wait_writable(deadline)
                core.write(chunk)
                driver.settle()
        finally:
            self._crowded = False
            self._turn.release()
        return len(chunk)

    def _wait_writable(self, deadline: float | None) -> None:
        core = self._core
        waiter = core.write_waiter = Waiter()
        try:
            if not self._driver.wait(waiter, deadline):
                raise self._timed_out()
        finally:
            core.write_waiter = None
        core.check_writable()

    def sendall(self, data: Buffer, flags: int = 0) -> None:
        """Queue all of `data`; its bytes stay together. It takes and raises what `send` does."""
        self.send(data, flags)

    def sendmsg(self, buffers: Iterable[Buffer]) -> int:
        """Queue several buffers as one write; return how many bytes that was.

        Args:
            buffers: what to send, one after another.

        It raises as `send`.
        """
        return self.send(b"".join(buffers))

    def sendfile(self, file: IO[bytes], offset: int = 0, count: int | None = None) -> int:
        """Send a file's bytes; return how many were queued.

        Args:
            file: a binary file; its position says afterwards how much was queued, also if
                this raises.
            offset: where in the file to begin, in bytes; 0: at its position.
            count: bytes, how many at most; None: up to the file's end.

        Raises:
            ValueError: `count` is negative.

        Otherwise it raises as `send`; the timeout is for each piece of 256 KiB.
        """
        if count is not None and count < 0:
            raise ValueError("count must not be negative")
        if offset:
            file.seek(offset)
        sent = 0
        try:
            while count is None or sent < count:
                size = SENDFILE_SIZE if count is None else min(SENDFILE_SIZE, count - sent)
                data = file.read(size)
                if not data:
                    break
                sent += self.send(data)
        finally:
            if file.seekable():
                file.seek(offset + sent)
        return sent

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

    def close(self) -> None:
        """Close both directions; what was written still goes out. Harmless if repeated.

        A stream with files made of it (`makefile`) closes with the last of them, as a socket
        does. Unread data is dropped, and a peer that goes on writing is told with a RST.
        """
        self._closed = True
        if self._io_refs <= 0:
            self._real_close()

    def _real_close(self) -> None:
        self._do(self._core.close)

    def _decref_socketios(self) -> None:
        # The name is the standard library's: socket.SocketIO calls it when it is closed.
        if self._io_refs > 0:
            self._io_refs -= 1
        if self._closed:
            self.close()

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the FIN was handed over, or the stream failed; not for the peer's FIN.

        Args:
            timeout: seconds to wait, whatever `settimeout` says; None: as long as it takes.

        Raises:
            TimeoutError: it took longer; nothing is changed by that.
        """
        deadline = deadline_of(timeout)
        with self._driver.lock:
            while not self._core.finished():
                self._wait_end(deadline)

    def wait_reset(self, timeout: float | None = None) -> int | None:
        """Wait until the stream is over; return its reset code, None if it ended in order.

        Args:
            timeout: seconds to wait, whatever `settimeout` says; None: as long as it takes.

        Raises:
            TimeoutError: it took longer; nothing is changed by that.
            SessionError: the session ended first.
        """
        core = self._core
        deadline = deadline_of(timeout)
        with self._driver.lock:
            while core.state != CLOSED:
                self._wait_end(deadline)
            return core.outcome()

    def _wait_end(self, deadline: float | None) -> None:
        core = self._core
        waiter = Waiter()
        if core.end_waiters is None:
            core.end_waiters = []
        core.end_waiters.append(waiter)
        try:
            if not self._driver.wait(waiter, deadline):
                raise TimeoutError("timed out")
        finally:
            if core.end_waiters is not None and waiter in core.end_waiters:
                core.end_waiters.remove(waiter)

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
        elif issubclass(exc_type, Exception):
            self.reset(ErrorCode.INTERNAL_ERROR)
        else:
            self.reset(ErrorCode.STREAM_CANCELLED)

    def _linger(self) -> None:
        """Wait while more is queued than the peer's window lets out, within the timeout."""
        core = self._core
        if not core.closed_here or self._timeout == 0 or not core.stalled():
            return
        try:
            self.wait_closed(self._timeout)
        except BaseException:
            self.reset(ErrorCode.STREAM_CANCELLED)
            raise

    def __del__(self) -> None:
        core = self._core
        if not core.holds_something() or sys.is_finalizing():
            return
        # The collector may come here in the midst of a call: the I/O thread does the rest.
        if self._closed:  # and only a file, which is dropped too, has kept it open
            self._driver.later(core.close)
            return
        try:
            if core.state != CLOSED:
                message = f"unclosed stream {self!r}"
                warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
        finally:
            self._driver.later(core.reset, ErrorCode.STREAM_CANCELLED)

    # The rest of a socket

    def settimeout(self, timeout: float | None) -> None:
        """Set how long `recv`, `send` and their kin may wait.

        Args:
            timeout: seconds, after which they raise TimeoutError and leave the stream as it was;
                0: they raise BlockingIOError instead of waiting; None: they wait for ever.

        Raises:
            ValueError: it is negative.
        """
        if timeout is not None and timeout < 0:
            raise ValueError("Timeout value out of range")
        self._timeout = timeout

    def gettimeout(self) -> float | None:
        """Return the timeout in seconds, None if there is none."""
        return self._timeout

    @property
    def timeout(self) -> float | None:
        """The timeout in seconds, None if there is none."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """True: wait for ever; False: never wait (`BlockingIOError` instead)."""
        self._timeout = None if flag else 0.0

    def getblocking(self) -> bool:
        """Return whether calls may wait."""
        return self._timeout != 0.0

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Return a file of this stream, as `socket.socket.makefile` does.

        The stream stays open until it and all of its files are closed. The stream's timeout
        is the file's too.

        Args:
            mode: "r", "w" or both, for text; with a "b", for bytes.
            buffering: the buffer's size in bytes; 0: none, only for bytes. By default it is
                `io.DEFAULT_BUFFER_SIZE`.
            encoding: of text, as `open` has it.
            errors: what to do with text that can't be encoded or decoded, as `open` has it.
            newline: how line ends are translated, as `open` has it.

        Raises:
            ValueError: there is no such mode, or text without a buffer was asked for.
        """
        if not set(mode) <= {"r", "w", "b"}:
            raise ValueError(f"invalid mode {mode!r} (only r, w, b allowed)")
        writing = "w" in mode
        reading = "r" in mode or not writing
        raw_mode = "rw" if reading and writing else "r" if reading else "w"
        raw = socket.SocketIO(cast(socket.socket, self), raw_mode)  # type: ignore[arg-type]
        self._io_refs += 1
        if buffering is None or buffering < 0:
            buffering = io.DEFAULT_BUFFER_SIZE
        if buffering == 0:
            if "b" not in mode:
                raise ValueError("unbuffered streams must be binary")
            return cast(IO[Any], raw)
        buffer: io.BufferedRWPair | io.BufferedReader | io.BufferedWriter
        if reading and writing:
            buffer = io.BufferedRWPair(raw, raw, buffering)
        elif reading:
            buffer = io.BufferedReader(raw, buffering)
        else:
            buffer = io.BufferedWriter(raw, buffering)
        if "b" in mode:
            return cast(BinaryIO, buffer)
        text = io.TextIOWrapper(cast(BinaryIO, buffer), encoding, errors, newline)
        text.mode = mode  # type: ignore[misc]
        return text

    def fileno(self) -> int:
        """Raise: a stream shares its connection's descriptor with all others.

        Raises:
            UsageError: always, and it is an `io.UnsupportedOperation` too; see `to_socket`.
        """
        raise NoDescriptor(
            "a stream has no file descriptor of its own: use to_socket() for a library that"
            " needs one, or Session.listener() to wait for streams with select"
        )

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

    def getpeername(self) -> Any:
        """Return the peer's address, as the session's socket gives it."""
        return self._session.remote_address

    def getsockname(self) -> Any:
        """Return this end's address, as the session's socket gives it."""
        return self._session.local_address

    @property
    def family(self) -> socket.AddressFamily:
        """The address family of the session's socket."""
        return self._driver.family

    def setsockopt(self, *args: Any) -> None:
        """Do nothing: an option would concern every stream of the connection."""

    # Helpers

    def _do(self, step: Callable[..., object], *args: object) -> None:
        self._driver.do(step, *args)

    def _deadline(self) -> float | None:
        return deadline_of(self._timeout)

    def _timed_out(self) -> OSError:
        if self._timeout == 0:
            return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return TimeoutError("timed out")
