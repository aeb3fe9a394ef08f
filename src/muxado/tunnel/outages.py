"""Says in a client's log that its server can't be used, and when that is over."""

from __future__ import annotations

import logging
import ssl
from time import monotonic

from ..cluster.errors import Denied
from ..errors import PeerGone, SessionAborted

__all__ = ["Outages", "why"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")

MINUTE = 60.0
LASTING = 10.0  # seconds: the end of a session that has lasted for this long is always said
MOST_REASONS = 16  # that are told apart


class Outages:
    """Logs why there is no session: each reason at once, and again once a minute while it lasts."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}  # when, by the line
        self._since = 0.0  # the last session was there
        self._told = False  # and nothing yet of the next one

    def failed(self, exc: BaseException, where: str) -> None:
        """Log that a try has failed.

        Args:
            exc: with what.
            where: what was dialled.
        """
        if isinstance(exc, Denied | ssl.SSLCertVerificationError):
            line = f"the server can't be used: {exc}; it is asked again"
        else:
            line = f"the server {where} can't be reached: {why(exc)}; it is tried again"
        self._say(line)

    def lost(self, exc: BaseException | None) -> None:
        """Log that there is no session any more."""
        if monotonic() - self._since > LASTING:
            self._said.clear()
        told = "" if exc is None else f": {_why_lost(exc)}"
        self._say(f"there is no session with the server any more{told}; the next is dialled")

    def over(self) -> None:
        """Log that there is a session, if it was said that there is none."""
        self._since = monotonic()
        if self._told:
            logger.info("there is a session with the server")
            self._told = False

    def _say(self, line: str) -> None:
        """Log a line, unless it was logged within a minute."""
        now = monotonic()
        if now - self._said.get(line, -MINUTE) < MINUTE:
            return
        if len(self._said) >= MOST_REASONS:
            del self._said[next(iter(self._said))]
        self._said[line] = now
        logger.warning("%s", line)
        self._told = True


def _why_lost(exc: BaseException) -> str:
    """Return why a session has ended, in the terms of who uses a tunnel."""
    if isinstance(exc, PeerGone | SessionAborted):
        return "its key holds no more" if exc.code == 401 else "the server has ended it"
    return why(exc)


def why(exc: BaseException) -> str:
    """Return what an exception says, or what it stands for if it says nothing."""
    if isinstance(exc, TimeoutError) and not str(exc):
        return "it took too long"
    if isinstance(exc, ssl.SSLError) and exc.reason == "WRONG_VERSION_NUMBER":
        return "what is there speaks no TLS"
    return str(exc) or type(exc).__name__
