"""`relay`: passes on between a stream and a socket, in the thread that calls it.

How it works. The thread moves a piece each way for as long as either side has something and the
other one takes it. Then it waits in one `poll`: for the socket, and for a byte on a pair of
sockets, by which the stream's callbacks wake it from the session's own thread. So a relay costs
the thread that called it and no other. What one side holds up is kept: a piece each way, no more.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
import threading
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Final

from ..base_stream import give_up
from ..errors import ErrorCode, MuxadoError, UsageError
from ..relaying import (
    LINGER,
    PIECE,
    RelayRecord,
    RelayResult,
    arm_reset,
    code_of_loss,
    code_of_reset,
    reads_no_more,
)
from .link import WOULD_BLOCK
from .locks import LONGEST_SELECT, calling_back
from .stream import Stream

__all__ = ["relay"]

# Bytes that are taken from the socket at a time: `recv` makes room for all of them first.
RECEIVE_SIZE: Final = 64 * 1024


class Poller:
    """Waits for one socket, until that is ready, `wake` is called, or the time is up."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._woken, self._waking = socket.socketpair()
        self._woken.setblocking(False)
        self._waking.setblocking(False)
        self._stirred = False
        self._waiting = False
        self._gone = False  # poll has said so, and would say nothing else

    def wake(self) -> None:
        """Have the waiting thread look again, or its next wait return at once."""
        self._stirred = True
        if self._waiting:
            with suppress(OSError):
                self._waking.send(b"\0")

    def wait(self, read: bool, write: bool, timeout: float) -> tuple[bool, bool]:
        """Return whether the socket can be read, and whether it can be written.

        A connection that is lost counts as both, once.
        """
        self._waiting = True
        ready = False, False
        if not self._stirred:
            ready = self._poll(read, write, min(timeout, LONGEST_SELECT))
        self._waiting = False
        self._stirred = False
        return ready

    if sys.platform == "win32":

        def _poll(self, read: bool, write: bool, timeout: float) -> tuple[bool, bool]:
            readers = [self._woken, self._sock] if read else [self._woken]
            writers = [self._sock] if write else []
            # A connection that could not be made is told by the third list alone.
            readable, writable, failed = select.select(readers, writers, writers, timeout)
            if self._woken in readable:
                self._drain()
            return self._sock in readable, bool(writable or failed)

    else:

        def _poll(self, read: bool, write: bool, timeout: float) -> tuple[bool, bool]:
            poll = select.poll()
            poll.register(self._woken, select.POLLIN)
            wanted = (select.POLLIN if read else 0) | (select.POLLOUT if write else 0)
            if wanted or not self._gone:
                poll.register(self._sock, wanted)  # a loss is told in any case
            events = dict(poll.poll(timeout * 1000))
            if self._woken.fileno() in events:
                self._drain()
            found = events.get(self._sock.fileno(), 0)
            self._gone = bool(found & ~(select.POLLIN | select.POLLOUT))
            return bool(found & select.POLLIN) or self._gone, (
                bool(found & select.POLLOUT) or self._gone
            )

    def _drain(self) -> None:
        with suppress(OSError):
            self._woken.recv(4096)

    def close(self) -> None:
        """Close what woke the thread."""
        self._waking.close()
        self._woken.close()


class SocketRelay(RelayRecord):
    """Passes on between a stream and a socket, in `run`."""

    def __init__(
        self,
        stream: Stream,
        sock: socket.socket,
        idle_timeout: float | None,
        half_closed_timeout: float | None,
    ) -> None:
        super().__init__(idle_timeout, half_closed_timeout)
        self._stream = stream
        self._sock = sock
        self._secured = isinstance(sock, ssl.SSLSocket)
        self._pending = b""  # for the stream
        self._unsent = memoryview(b"")  # for the socket
        # Whether to try: false once it would have blocked, true again once it may not.
        self._readable = self._writable = True
        self._stream_readable = self._room = True
        self._stream_over = False
        self._eof_came = False
        self._dropping = False  # what comes from the socket
        self._linger_until = inf  # for more of that
        self._aborted = False
        self._poller = Poller(sock)

    def run(self) -> RelayResult:
        """Pass on until it is over."""
        try:
            if isinstance(self._sock, ssl.SSLSocket):
                # A cut must not look like an end.
                self._sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]
            self._sock.setblocking(False)
            self._stream.on_end(self._on_over)
            while self.ended is None:
                moved = self._to_stream()
                moved = self._from_stream() or moved
                if not moved and self.ended is None:
                    self._look()
                    self._wait()
            return self._make_result()
        except BaseException:
            if self._end("cancelled", code=ErrorCode.STREAM_CANCELLED):
                self._cut(ErrorCode.STREAM_CANCELLED)
            raise
        finally:
            self._close()

    # Called on the session's own thread

    def _on_readable(self) -> None:
        self._stream_readable = True
        self._poller.wake()

    def _on_room(self) -> None:
        self._room = True
        self._poller.wake()

    def _on_over(self) -> None:
        self._stream_over = True
        self._poller.wake()

    # One piece

    def _to_stream(self) -> bool:
        """Move a piece from the socket to the stream; return whether there may be another."""
        if not self._pending and not self._eof_came and self._readable:
            try:
                data = self._sock.recv(RECEIVE_SIZE)
            except WOULD_BLOCK:
                self._readable = False
                return False
            except OSError as exc:
                if self._dropping and self.output_ended:
                    self._end_with_stream()
                else:
                    self._other_failed(exc)
                return False
            if not data:
                self._eof_came = True
            elif not self._dropping:
                self._came_for_stream(len(data))
                self._pending = data
            # Behind less than was asked for there is nothing more, or `poll` says so again.
            # What TLS has decrypted already, it can't say.
            self._readable = self._secured or len(data) == RECEIVE_SIZE
        if self._dropping:
            return self._readable and not self._eof_came
        if self._eof_came and not self._pending and not self.input_ended:
            self._input_has_ended()
            self._stream.write_eof()
            return True
        if not self._pending or not self._room:
            return False
        self._room = False  # first: the callback may come at once
        try:
            taken = self._stream.write_nowait(self._pending, self._on_room)
        except MuxadoError as exc:
            self._pending = b""
            if reads_no_more(exc):
                self._drop()  # but its answer may still be on its way
                return True
            self._stream_failed(exc)
            return False
        if taken:
            self._pending = b""
            self._room = True
        return taken

    def _from_stream(self) -> bool:
        """Move a piece from the stream to the socket; return whether there may be another."""
        if self.ended is not None or self.output_ended:
            return False
        if not self._unsent:
            if not self._stream_readable:
                return False
            self._stream_readable = False  # first: the callback may come at once
            try:
                data = self._stream.read_nowait(PIECE, self._on_readable)
            except MuxadoError as exc:
                self._stream_failed(exc)
                return False
            if data is None:
                return False
            self._stream_readable = True
            if not data:
                self._output_has_ended()
                if not self._secured or self._dropping:
                    self._end_output()
                return True
            self._came_from_stream(len(data))
            self._unsent = memoryview(data)
        if not self._writable:
            return False
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except WOULD_BLOCK:
            self._writable = False
            return False
        except OSError as exc:
            self._other_failed(exc)
            return False
        return True

    # Waiting

    def _wait(self) -> None:
        """Wait until a piece can be moved, or a timeout is up."""
        if self.ended is not None:
            return
        wanted = not self._pending and not self._eof_came
        now = monotonic()
        deadline = min(self._deadline(), self._linger_until)
        readable, writable = self._poller.wait(
            wanted and not self._readable,
            bool(self._unsent) and not self._writable,
            max(0.0, deadline - now),
        )
        self._readable = self._readable or readable
        self._writable = self._writable or writable
        if readable and not wanted:
            self._find_loss()
        now = monotonic()
        if now >= self._linger_until:
            self._end_with_stream()
            self._abort()
        else:
            ended = self._overdue(now)
            if ended is not None and self._end(ended, code=ErrorCode.STREAM_CANCELLED):
                self._cut(ErrorCode.STREAM_CANCELLED)

    def _find_loss(self) -> None:
        """See whether the connection was lost while nothing was read from it."""
        number = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._other_failed(ConnectionResetError(number, "the connection was reset"))

    def _look(self) -> None:
        """See whether both sides are through, or the stream was cut while it was not read."""
        if self._stream_over and not self._dropping:
            failure = self._stream.failure()
            if failure is None:
                if self.input_ended and self.output_ended:
                    self._end("end")
            elif reads_no_more(failure):
                self._drop()
            else:
                self._stream_failed(failure)
        if self._dropping and self.output_ended and self._eof_came:
            self._end_with_stream()

    # Ending

    def _drop(self) -> None:
        """Drop what comes for a stream whose peer has answered, and reads no more.

        A close with unread input would reset the connection, and destroy what its other end has
        not read yet of the answer.
        """
        self._pending = b""
        self._dropping = True
        if self.output_ended:
            self._end_output()

    def _end_output(self) -> None:
        """Say the stream's end on the socket.

        TLS ends both ways at once, as far as most programs go: there this waits until the other
        end has come, or what comes is dropped.
        """
        if self._dropping:
            self._linger_until = monotonic() + LINGER
        with suppress(OSError, ValueError):
            if isinstance(self._sock, ssl.SSLSocket):
                self._sock.unwrap()  # sends close_notify
        with suppress(OSError):  # it is lost, and says so soon
            self._sock.shutdown(socket.SHUT_WR)

    def _stream_failed(self, exc: MuxadoError) -> None:
        """Reset the connection, as the stream was."""
        if self._end("stream", exc, code_of_reset(exc)):
            # It may be another error than a reset.
            give_up(self._stream, ErrorCode.STREAM_CANCELLED)
            self._abort()

    def _end_with_stream(self) -> None:
        failure = self._stream.failure()
        if self._end("stream", failure, None if failure is None else code_of_reset(failure)):
            give_up(self._stream, ErrorCode.STREAM_CANCELLED)

    def _other_failed(self, exc: OSError) -> None:
        """Reset the stream, as the connection was."""
        code = code_of_loss(exc)
        if self._end("other", exc, code):
            self._cut(code)

    def _cut(self, code: int) -> None:
        if not self._stream.tells_resets:
            self._lose_reset()
        give_up(self._stream, code)
        self._abort()

    def _abort(self) -> None:
        """End the connection at once, by a reset where there is one."""
        self._aborted = True
        if not arm_reset(self._sock) and self.ended != "other":
            self._lose_reset()

    def _close(self) -> None:
        if self._secured and not self._aborted:
            self._end_output()
        self._sock.close()
        self._stream.close()
        self._poller.close()


def relay(
    stream: Stream,
    sock: socket.socket,
    *,
    idle_timeout: float | None = None,
    half_closed_timeout: float | None = None,
) -> RelayResult:
    """Pass on between a stream and a connected socket, until both are through.

    It passes on end for end and reset for reset, both ways, in the thread that calls it and no
    other. It begins with what is unread, and reads no more of either side than the other one takes.
    Both belong to it from then on, and are closed when it returns. Another thread ends it by
    `stream.reset()`, which resets the connection too; an exception of a signal's handler resets
    both.

    Args:
        stream: the stream.
        sock: a stream socket: TCP's, a Unix one, or an `ssl.SSLSocket` after its handshake.
        idle_timeout: seconds without a byte either way, after which both are reset. None: no
            limit.
        half_closed_timeout: the same for when one side has said its end and the other has not.

    Returns:
        how it went, also if one of them was reset or lost.

    Raises:
        UsageError: a timeout is not above 0, `sock` is no stream socket, or this is a callback,
            which must not wait.
        OSError: no descriptors are left.
    """
    if threading.get_ident() in calling_back:
        raise UsageError("a callback runs on its session's own thread, and must not wait")
    if not isinstance(sock, socket.socket) or sock.type != socket.SOCK_STREAM:
        raise UsageError(f"a relay's other side is a stream socket, not {sock!r}")
    return SocketRelay(stream, sock, idle_timeout, half_closed_timeout).run()
