"""A session as a listening socket, for libraries that accept connections themselves."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Any

from ..core.states import CLOSING
from ..errors import SessionError
from .locks import deadline_of

if TYPE_CHECKING:
    from .session import Session
    from .stream import Stream

__all__ = ["StreamListener"]


class StreamListener:
    """What `socketserver` and `http.server` need of a listening socket, over a session.

    From `Session.listener()`. Closing it closes nothing else: the session goes on.
    """

    def __init__(self, session: Session) -> None:
        """Not for users."""
        self._session = session
        self._timeout: float | None = None
        # One byte lies in this pair while streams wait, so that select() sees them.
        self._readable, self._signal = socket.socketpair()
        self._readable.setblocking(False)
        self._signal.setblocking(False)
        self._signalled = False
        self._closed = False
        self._told = False  # that the session has ended

    def accept(self) -> tuple[Stream, Any]:
        """Wait for a stream; return it and the peer's address.

        Raises:
            TimeoutError: none came within the timeout; BlockingIOError if that is 0.
            SessionError: the session has ended, which is an `OSError` to those who ask.
            OSError: this listener was closed, here or by another thread meanwhile.
        """
        return self._accept(self._timeout)

    def accept_nowait(self) -> tuple[Stream, Any]:
        """Return a stream that waits, and the peer's address, whatever the timeout is.

        For loops that select: a stream can be reset after it has made `fileno()` readable.

        Raises:
            BlockingIOError: none waits.

        Otherwise it raises as `accept`.
        """
        return self._accept(0)

    def _accept(self, timeout: float | None) -> tuple[Stream, Any]:
        session = self._session
        deadline = deadline_of(timeout)
        with session._driver.lock:
            try:
                while not self._closed:
                    stream = session._take()
                    if stream is not None:
                        return stream, session.remote_address
                    if timeout == 0:
                        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                    session._wait(deadline)
            except SessionError:
                # Who goes on selecting should not go round in circles.
                self._told = True
                self._refresh()
                raise
        raise OSError(errno.EBADF, "the listener is closed")

    def fileno(self) -> int:
        """Return a descriptor that is readable while streams wait; -1 once closed.

        When the session has ended it is readable until an `accept` has said so.
        """
        return self._readable.fileno()

    def getsockname(self) -> Any:
        """Return this end's address, as the session's socket gives it."""
        return self._session.local_address

    def settimeout(self, timeout: float | None) -> None:
        """Set how many seconds `accept` may wait; None: for ever; 0: not at all."""
        self._timeout = timeout

    def gettimeout(self) -> float | None:
        """Return the timeout in seconds, None if there is none."""
        return self._timeout

    def close(self) -> None:
        """Give the descriptor back, and end the `accept` of whoever waits in one.

        The session goes on, and so do its streams. Harmless if repeated.
        """
        self._closed = True
        self._close_descriptor()
        self._session._driver.do(self._session._wake_waiters)

    def __del__(self) -> None:
        self._close_descriptor()

    # For the driver

    def _close_descriptor(self) -> None:
        """Give the descriptor back; needs no lock."""
        self._readable.close()
        self._signal.close()

    def _refresh(self) -> None:
        """Make the descriptor readable, or not, as it should be; with the session's lock held."""
        core = self._session._core
        waiting = bool(core.accept_queue) or (core.state >= CLOSING and not self._told)
        if waiting != self._signalled:
            self._signalled = waiting
            with contextlib.suppress(OSError):
                if waiting:
                    self._signal.send(b"\0")
                else:
                    self._readable.recv(1)
