"""What a `socket.socket` can besides moving bytes: files, timeouts, addresses, descriptors.

The standard library counts the files made of a socket in its `_io_refs`, and closes the socket
with the last of them (`_decref_socketios`); streams do the same, under the same names.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from ..base_stream import BaseStream
from ..errors import UsageError
from .driver import Driver

if TYPE_CHECKING:
    from .session import Session

Buffer = bytes | bytearray | memoryview

SENDFILE_SIZE = 256 * 1024


class NoDescriptor(UsageError, io.UnsupportedOperation):
    """A stream was asked for a file descriptor; the error is that of other files without one."""


class SocketCalls(BaseStream["Session"]):
    """The part of a `Stream` that lets libraries use it as a socket."""

    _session: Session
    _driver: Driver
    _timeout: float | None
    _io_refs: int  # files made of this stream, as the standard library counts them
    _closed: bool

    def _init_socket(self) -> None:
        self._timeout = socket.getdefaulttimeout()
        self._io_refs = 0
        self._closed = False

    # Sending more at once

    def send(self, data: Buffer, flags: int = 0) -> int:
        raise NotImplementedError

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

    # Closing, with the files made of the stream

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

    def settimeout(self, timeout: float | None) -> None:
        """Set how long `recv`, `send` and the calls like them may wait.

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

    def getpeername(self) -> Any:
        """Return the peer's address, as the session's socket gives it."""
        return self._session.remote_address

    def getsockname(self) -> Any:
        """Return this end's address, as the session's socket gives it."""
        return self._session.local_address

    @property
    def family(self) -> socket.AddressFamily:
        """The address family of the session's socket."""
        return self._driver.link.family

    def setsockopt(self, *args: Any) -> None:
        """Do nothing: an option would concern every stream of the connection."""

    def getsockopt(self, *args: Any) -> int:
        """Raise: a stream has no options of its own.

        Raises:
            UsageError: always, and it is an `io.UnsupportedOperation` too; see `to_socket`.
        """
        raise NoDescriptor(
            "a stream has no socket options: use to_socket() for a library that needs a real"
            " socket, as ssl does"
        )
