"""What all front ends do alike, besides `base_session` and `base_stream`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .core import CoreSession
from .errors import ErrorCode, MuxadoError

if TYPE_CHECKING:
    from .base_session import BaseSession
    from .base_stream import BaseStream

logger: logging.Logger = logging.getLogger("muxado")

# Bytes that are sent by one call. What waits longer in the core still goes by its priority.
WRITE_SIZE = 64 * 1024


class BaseDriver:
    """What the drivers of all front ends share: what the core reports reaches the right place."""

    __slots__ = ()

    core: CoreSession

    def _report(self) -> None:
        """Wake the calls whose wait is over, and tell the session what has happened to it."""
        core = self.core
        for waiter in core.take_wakes():
            self._wake(waiter)
        events = core.take_events()
        if events:
            self._notify(events)

    def _wake(self, waiter: Any) -> None:
        """Let the call go on that has left this object with the core."""
        raise NotImplementedError

    def _notify(self, events: int) -> None:
        """Tell the session of a set of the core's events, or by 0 that its connection is gone."""
        raise NotImplementedError


def ended_in_order(core: CoreSession) -> bool:
    """Return whether a session has ended so that iteration and `serve` end quietly."""
    return core.reason is not None and core.closing.orderly


def as_bytes(data: Any) -> bytes:
    """Return a copy of what is to be written, which the caller may change afterwards.

    Raises:
        TypeError: it is not bytes-like; text is told how to become so.
    """
    if isinstance(data, str):
        raise TypeError("a stream carries bytes, and no str: write text.encode()")
    return bytes(memoryview(data))


def code_of(exc_type: type[BaseException]) -> ErrorCode:
    """Return the code of the RST or GOAWAY for a block or a handler that an exception ended."""
    if issubclass(exc_type, Exception):
        return ErrorCode.INTERNAL_ERROR
    return ErrorCode.STREAM_CANCELLED  # cancelled, or interrupted


def log_stream_failure(stream: BaseStream[Any], exc: BaseException) -> None:
    """Log what a stream's handler raised: a fault of its own, or only how its stream ended."""
    if isinstance(exc, MuxadoError):
        logger.info("stream %d of %r: %s", stream.id, stream.session, exc)
        return
    if isinstance(exc, AttributeError) and getattr(exc, "obj", None) is stream:
        exc.add_note(
            "serve_streams() and session.serve() call their handler with each stream; a handler"
            " of sessions is for serve()"
        )
    logger.error("the handler of stream %d of %r failed", stream.id, stream.session, exc_info=exc)


def log_session_failure(session: BaseSession[Any], exc: BaseException) -> None:
    """Log what a session's handler raised: a fault of its own, or only how its session ended."""
    if isinstance(exc, MuxadoError):
        logger.info("%r: %s", session, exc)
        return
    if isinstance(exc, AttributeError) and getattr(exc, "obj", None) is session:
        exc.add_note(
            "serve() calls its handler with each session; a handler of streams is for"
            " serve_streams(), or for session.serve()"
        )
    logger.error("the handler of %r failed", session, exc_info=exc)


def call_logged(callback: Callable[[], object]) -> None:
    """Call a function of the program's, and log what it raises."""
    try:
        callback()
    except Exception:
        logger.exception("the callback %r failed", callback)
