"""Logs what happens to sessions and streams, for people and for programs.

The loggers are ``muxado.session`` and ``muxado.stream``; the page on watching a program lists the
events. The fields are attributes of the record, set by `extra=`; `JSONFormatter` writes them.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from .core import CoreSession, CoreStream
from .errors import ErrorCode, code_name

__all__ = [
    "JSONFormatter",
    "Throttle",
    "session_began",
    "session_ended",
    "stream_ended",
    "stream_opened",
]

logger: logging.Logger = logging.getLogger("muxado.session")
stream_log: logging.Logger = logging.getLogger("muxado.stream")

TELL_INTERVAL = 60.0  # seconds between two warnings of the same kind

# The attributes that every record has.
USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JSONFormatter(logging.Formatter):
    """Writes each record as one line of JSON, with the fields that were logged with it.

    ::

        handler = logging.StreamHandler()
        handler.setFormatter(muxado.log.JSONFormatter())
        logging.getLogger("muxado").addHandler(handler)

    A line has `time` (UTC, ISO 8601), `level`, `logger` and `message`; then the fields; then
    `exception`, a traceback, if there is one. Bytes are written as text, with escapes for what
    is no UTF-8, and whatever JSON doesn't know by its `str()`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without an end of line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in USUAL:
                line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=_plain, skipkeys=True)


def _plain(value: Any) -> str:
    """Return what stands for a value that JSON doesn't know."""
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


class Throttle:
    """Counts what would fill the log, and says when to tell of it, at most once a minute.

    Args:
        least: how many there must be since the last telling.
    """

    def __init__(self, least: int = 1) -> None:
        self._least = least
        self._count = 0
        self._told = -TELL_INTERVAL

    def count(self) -> int:
        """Count one more; return how many there were since the last telling if one is due, or 0."""
        self._count += 1
        now = monotonic()
        if self._count < self._least or now - self._told < TELL_INTERVAL:
            return 0
        count = self._count
        self._told = now
        self._count = 0
        return count


_strangers = Throttle()


def session_began(core: CoreSession, name: str, local: object, peer: object) -> None:
    """Log that a session has a connection."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "session%s with %s began, this end is the %s",
            _called(name),
            _peer(peer),
            _role(core),
            extra={"event": "session_began"} | _fields(core, name, local, peer),
        )


def session_ended(core: CoreSession, name: str, local: object, peer: object) -> None:
    """Log that a session has lost its connection, and why.

    That a peer speaks another protocol is for an operator to mend: it is a warning, once a minute.
    """
    reason = core.reason
    if reason is None:
        return
    stats = core.stats()
    # Its very first frame, or what should be one, was wrong.
    stranger = (
        reason.code == ErrorCode.PROTOCOL_ERROR
        and not reason.by_peer
        and stats.frames_received <= 1
    )
    count = _strangers.count() if stranger else 0
    level = logging.WARNING if count else logging.INFO
    if logger.isEnabledFor(level):
        extra = {
            "event": "session_ended",
            **_fields(core, name, local, peer),
            "code": reason.code,
            "debug": reason.debug,
            "by_peer": reason.by_peer,
            "clean": reason.clean,
            "reason": reason.message,
            "streams_opened": stats.streams_opened,
            "streams_accepted": stats.streams_accepted,
            "bytes_sent": stats.bytes_sent,
            "bytes_received": stats.bytes_received,
        }
        more = f" ({count} like this since the last warning)" if count > 1 else ""
        logger.log(
            level,
            "session%s with %s ended: %s%s",
            _called(name),
            _peer(peer),
            reason.message,
            more,
            extra=extra,
        )


def stream_opened(stream: CoreStream, name: str, peer: object) -> None:
    """Log that a stream was opened here, or accepted."""
    stream_log.debug(
        "stream %d with %s %s",
        stream.stream_id,
        name or _peer(peer),
        "opened" if stream.local else "accepted",
        extra={"event": "stream_opened"} | _stream_fields(stream, name, peer),
    )


def stream_ended(stream: CoreStream, name: str, peer: object, now: float) -> None:
    """Log that a stream is over, and how it ended."""
    code = stream.reset_code
    if code >= 0:
        how = f"reset by {'the peer' if stream.reset_by_peer else 'this side'}: {code_name(code)}"
    elif stream.eof_received and stream.fin_sent:
        how = "at its end"
    elif stream.closed_here:
        how = "closed by this side"
    else:
        how = "with its session"
    sent, received = stream.bytes_sent, stream.bytes_received
    extra = {
        "event": "stream_ended",
        **_stream_fields(stream, name, peer),
        "code": code if code >= 0 else None,
        "by_peer": stream.reset_by_peer,
        "bytes_sent": sent,
        "bytes_received": received,
        "seconds": max(int(now) - stream.opened_at, 0),
    }
    stream_log.debug(
        "stream %d with %s ended, %s: %d bytes sent, %d received",
        stream.stream_id,
        name or _peer(peer),
        how,
        sent,
        received,
        extra=extra,
    )


def _stream_fields(stream: CoreStream, name: str, peer: object) -> dict[str, object]:
    return {
        "session": name,
        "peer": peer,
        "stream": stream.stream_id,
        "type": stream.type,
        "direction": "out" if stream.local else "in",
    }


def _fields(core: CoreSession, name: str, local: object, peer: object) -> dict[str, object]:
    return {"session": name, "role": _role(core), "local": local, "peer": peer}


def _role(core: CoreSession) -> str:
    return "client" if core.ledger.client else "server"


def _called(name: str) -> str:
    return f" {name!r}" if name else ""


def _peer(peer: object) -> str:
    return str(peer) if peer else "an unnamed peer"
