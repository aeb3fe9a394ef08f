"""What may lie between a session and its socket, in the front ends for threads and for trio."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Layer"]


class Layer(Protocol):
    """Makes a session's bytes of what a socket brings, and the other way; it never waits.

    What can't be done yet raises as with an `ssl.SSLSocket` that does not block: `SSLWantReadError`
    or `BlockingIOError` until the socket brings something, `SSLWantWriteError` until it takes
    something.
    """

    info: dict[str, object]
    """What is known of the connection besides, by the names of `get_extra_info`."""

    @property
    def agreed(self) -> str | None:
        """What its handshake has chosen for the session: see `CoreSession.agree`."""

    def recv_into(self, buffer: memoryview) -> int:
        """Put the session's next bytes into a buffer; return how many, 0 at the end.

        Raises:
            OSError: the connection is lost, or the peer has broken its rules.
        """

    def send(self, data: memoryview) -> int:
        """Send all of some bytes, and return their number.

        Raises:
            SSLWantWriteError: a part is out. The same bytes must be given again.
            OSError: the connection is lost.
        """

    def pending(self) -> bool:
        """Return whether `recv_into` has something to say that no selector sees."""

    def unwrap(self) -> None:
        """Say that no more will be sent.

        Raises:
            SSLWantWriteError: call again.
        """

    def abort(self) -> None:
        """Say that the session was broken off, if that can be said at once."""
