"""What a server takes in: the limits above a session, and the counts of what became of the rest.

A server's acceptor has one `Admission`. Every connection that is to become a session goes through
it: its session leases receive memory from the server's pool, and is admitted, or refused, once its
handshake is done.
"""

from __future__ import annotations

import logging
import threading
from contextlib import nullcontext

from .core import CoreSession, MemoryPool
from .endpoint import explain_greeting
from .errors import ErrorCode, UsageError
from .log import Throttle
from .registry import SessionRecord, Sessions
from .snapshots import ServerStats

__all__ = ["Admission", "refuse"]

# Handshakes that fail until a warning says so: a few of them are everyday on an open port.
MANY = 10

logger: logging.Logger = logging.getLogger("muxado")
session_log: logging.Logger = logging.getLogger("muxado.session")


class Admission:
    """Counts and limits the sessions of one listener or server.

    Args:
        max_sessions: how many may live at once, None for any number.
        max_receive_memory: how many received bytes all of them may hold, None for no limit
            besides each session's own.
        threads: whether several threads run the sessions.

    Attributes:
        sessions: those that were admitted.
        pool: where they lease receive memory, None without a limit.

    Raises:
        UsageError: a limit is no whole number of at least 1.
    """

    def __init__(
        self,
        max_sessions: int | None = None,
        max_receive_memory: int | None = None,
        *,
        threads: bool = False,
    ) -> None:
        _check_limit("max_sessions", max_sessions)
        _check_limit("max_receive_memory", max_receive_memory)
        self.sessions: Sessions = Sessions()
        self.pool: MemoryPool | None = None
        if max_receive_memory is not None:
            self.pool = MemoryPool(
                max_receive_memory, threading.Lock() if threads else nullcontext()
            )
        self._max_sessions = max_sessions
        self._refused = 0
        self._failed = 0
        self._lock = threading.RLock()  # for the counts
        self._refusals = Throttle()
        self._failures = Throttle(MANY)

    def admit(self, record: SessionRecord) -> bool:
        """Take a session in whose handshake is done; return False if there are enough."""
        with self._lock:
            most = self._max_sessions
            if most is None or len(self.sessions) < most:
                record.join(self.sessions)
                return True
            self._refused += 1
            count = self._refusals.count()
        if count:
            extra = {"event": "sessions_refused", "count": count, "max_sessions": most}
            session_log.warning(
                "%d sessions refused: there are %d already", count, most, extra=extra
            )
        return False

    def handshake_failed(self, peer: object, exc: BaseException) -> None:
        """Log and count that a client's connection became no session, and what that may mean."""
        logger.info("handshake with %s failed: %r%s", peer, exc, explain_greeting(exc))
        with self._lock:
            self._failed += 1
            count = self._failures.count()
        if count:
            extra = {"event": "handshakes_failed", "count": count, "peer": peer, "error": repr(exc)}
            session_log.warning(
                "handshakes failed: %d; the last one with %s: %r%s",
                count,
                peer,
                exc,
                explain_greeting(exc),
                extra=extra,
            )

    def stats(self, handshakes: int) -> ServerStats:
        """Return the figures of the server, which has so many connections in their handshake."""
        with self._lock:
            return ServerStats(
                sessions=len(self.sessions),
                sessions_accepted=self.sessions.begun,
                sessions_refused=self._refused,
                handshakes=handshakes,
                handshakes_failed=self._failed,
                total=self.sessions.total(),
            )


def refuse(core: CoreSession, now: float) -> None:
    """End a session that was not admitted; a step of the core's."""
    core.abort(ErrorCode.ENHANCE_YOUR_CALM, now, "the server has as many sessions as it takes")


def _check_limit(name: str, value: object) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise UsageError(f"{name}= must be a whole number of at least 1, or None, not {value!r}")
