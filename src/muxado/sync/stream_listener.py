"""A session as a listening socket, for libraries that accept connections themselves."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import forks
from ..core import CLOSING
from ..errors import SessionError
from .driver import Driver
from .locks import deadline_of, from_a_handler

if TYPE_CHECKING:
    from .session import Session
    from .stream import Stream

__all__ = ["StreamListener"]


class StreamListener:
    """What `socketserver` and `http.server` need of a listening socket, over a session.

    From `Session.listener()`. Closing it closes nothing else: the session goes on.
    """

    def __init__(
        self,
        session: Session,
        driver: Driver,
        take: Callable[[], Stream | None],
        wait: Callable[[Callable[[], Stream | None], float | None], Stream],
        wake: Callable[[], object],
    ) -> None:
        """Not for users.

        Args:
            session: the session.
            driver: its driver.
            take: returns a stream that waits, None if none does; to be called with the lock held.
            wait: waits until such a function gives a stream, or the deadline is over.
            wake: lets the calls that wait in `wait` look again; to be called with the lock held.
        """
        self._session = session
        self._driver = driver
        self._take_stream = take
        self._wait = wait
        self._wake = wake
        self._timeout: float | None = None
        # One byte lies in this pair while streams wait, so that select() sees them.
        self._readable, self._signal = socket.socketpair()
        self._readable.setblocking(False)
        self._signal.setblocking(False)
        self._signalled = False
        self._closed = False
        self._told = False  # that the session has ended
        forks.watch(self)

    def accept(self) -> tuple[Stream, Any]:
        """Wait for a stream; return it and the peer's address.

        Raises:
            TimeoutError: none came within the timeout; BlockingIOError if that is 0.
            SessionError: the session has ended, which is an `OSError` too.
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
        if timeout == 0:
            stream = self._driver.ask(self._take)
            if stream is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        else:
            stream = self._wait(self._take, deadline_of(timeout))
        return stream, self._session.remote_address

    def _take(self) -> Stream | None:
        if self._closed:
            raise OSError(errno.EBADF, "the listener is closed")
        try:
            return self._take_stream()
        except SessionError:
            # Else a program that goes on selecting would find it readable for ever.
            self._told = True
            self.refresh()
            raise

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
        """Give the descriptor back, and end an `accept` that waits.

        The session goes on, and so do its streams. Harmless if repeated.
        """
        self._closed = True
        self._close_descriptor()
        self._driver.do(self._wake)

    def __del__(self) -> None:
        self._close_descriptor()

    def forget_in_child(self) -> None:
        """Leave the descriptor to the parent process, whose byte the child's accept would eat."""
        self._close_descriptor()

    # For the driver

    def _close_descriptor(self) -> None:
        """Give the descriptor back; needs no lock."""
        self._readable.close()
        self._signal.close()

    def refresh(self) -> None:
        """Make the descriptor readable, or not, as it should be; with the session's lock held."""
        core = self._driver.core
        waiting = core.table.acceptable > 0 or (core.ledger.state >= CLOSING and not self._told)
        if waiting != self._signalled:
            self._signalled = waiting
            try:
                if waiting:
                    self._signal.send(b"\0")
                else:
                    self._readable.recv(1)
            except OSError as exc:
                if from_a_handler(exc):
                    raise
