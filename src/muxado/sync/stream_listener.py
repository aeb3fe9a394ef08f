"""A session as a listening socket, for libraries that accept connections themselves."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Any

from ..errors import SessionError

if TYPE_CHECKING:
    from .session import Session
    from .stream import Stream

__all__ = ["StreamListener"]


class StreamListener:
    """What `socketserver` and `http.server` need of a listening socket, over a session.

    From `Session.listener()`. Closing it closes nothing: the session goes on.
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

    def accept(self) -> tuple[Stream, Any]:
        """Wait for a stream; return it and the peer's address.

        Raises:
            TimeoutError: none came within the timeout; BlockingIOError if that is 0.
            SessionError: the session has ended, which is an `OSError` to those who ask.
        """
        try:
            return self._session.accept(self._timeout), self._session.remote_address
        except SessionError:
            # Who has been told so once, and goes on selecting, should not go round in circles.
            with self._session._driver.lock:
                self.emptied(ended=False)
            raise
        except TimeoutError:
            if self._timeout == 0:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
            raise

    def fileno(self) -> int:
        """Return a descriptor that is readable while streams wait; -1 once closed.

        When the session has ended it is readable until an `accept` has said so.
        """
        return self._readable.fileno()

    def getsockname(self) -> Any:
        """Return this end's address."""
        return self._session.local_address

    def settimeout(self, timeout: float | None) -> None:
        """Set how many seconds `accept` may wait; None: for ever."""
        self._timeout = timeout

    def gettimeout(self) -> float | None:
        """Return the timeout in seconds, None if there is none."""
        return self._timeout

    def close(self) -> None:
        """Give the descriptor back. The session goes on."""
        self._readable.close()
        self._signal.close()

    def __del__(self) -> None:
        self.close()

    # For the session, with its lock held

    def arrived(self) -> None:
        """Make the descriptor readable."""
        if not self._signalled:
            self._signalled = True
            with contextlib.suppress(OSError):
                self._signal.send(b"\0")

    def emptied(self, ended: bool) -> None:
        """Make the descriptor unreadable, unless there is the session's end to be told."""
        if self._signalled and not ended:
            self._signalled = False
            with contextlib.suppress(OSError):
                self._readable.recv(1)
