"""How a WebSocket that carries a session fails; each is a `ConnectionError`."""

from __future__ import annotations

import errno

__all__ = ["HandshakeRefused", "WebSocketLost"]


class HandshakeRefused(ConnectionError):
    """The server has answered a WebSocket's handshake with something else.

    Attributes:
        status: the HTTP status, 0 if the answer was none of HTTP's or could not be used. A
            `Dialer` takes 401 and 403 for final.
        retry_after: seconds that the server asks to wait for, None if it does not say. A `Dialer`
            waits for that long.
    """

    errno: int | None = errno.ECONNREFUSED

    def __init__(self, message: str, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status: int = status
        self.retry_after: float | None = retry_after


class WebSocketLost(ConnectionError):
    """The WebSocket under a session was closed with a code that tells of no orderly end.

    It is the `exception` of the session's `CloseReason`.

    Attributes:
        code: the WebSocket's close code, such as 1011 (an error), 1012 (a restart) or 1013 (try
            again later).
        reason: what the peer gave as its reason.
        retry_after: seconds to wait before the next dial, None if the code does not ask for it.
            With 1013 it is the reason if that is a number, else 5.
    """

    errno: int | None = errno.ECONNRESET

    def __init__(self, code: int, reason: str) -> None:
        said = f": {reason}" if reason else ""
        super().__init__(f"the WebSocket was closed with code {code}{said}")
        self.code: int = code
        self.reason: str = reason
        self.retry_after: float | None = wanted_pause(reason, 5.0) if code == 1013 else None


def wanted_pause(text: str | None, default: float | None) -> float | None:
    """Return a number of seconds that was given as text, or the default if it is none."""
    text = (text or "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else default
