"""Says in the log when a directory's engine can't be used, and when it can be again."""

from __future__ import annotations

import logging

from ..log import Throttle

__all__ = ["SLOW", "Trouble"]

logger: logging.Logger = logging.getLogger("muxado.cluster")

# An answer that takes more seconds is worth a line.
SLOW = 0.5


class Trouble:
    """What is wrong with an engine.

    Args:
        engine: what and where it is, without secrets.

    Attributes:
        engine: what and where it is.
        reason: why it can't be used now, None if it can be.
    """

    def __init__(self, engine: str) -> None:
        self.engine: str = engine
        self.reason: str | None = None
        self._slow = Throttle()

    def begins(self, reason: str) -> None:
        """Take note of what is wrong; it is logged when it is something else than before."""
        if reason != self.reason:
            self.reason = reason
            logger.warning(
                "the directory %s can't be used: %s; sessions stay, and known routes go on",
                self.engine,
                reason,
                extra={"event": "directory_away", "directory": self.engine, "reason": reason},
            )

    def ends(self) -> None:
        """Take note that nothing is wrong any more."""
        if self.reason is not None:
            self.reason = None
            logger.warning(
                "the directory %s can be used again",
                self.engine,
                extra={"event": "directory_back", "directory": self.engine},
            )

    def took(self, seconds: float) -> None:
        """Take note of how long an answer took; a slow one is logged, at most once a minute."""
        if seconds >= SLOW and self._slow.count():
            logger.warning(
                "the directory %s is slow: an answer took %.1f s",
                self.engine,
                seconds,
                extra={
                    "event": "directory_slow",
                    "directory": self.engine,
                    "seconds": round(seconds, 3),
                },
            )
