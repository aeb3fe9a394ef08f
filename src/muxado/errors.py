"""The error classes, and the error codes of the wire format.

::

    MuxadoError(Exception)                      .code
    ├─ UsageError(RuntimeError)                 a mistake in this program
    │   ├─ ConfigError(ValueError)              a value that Config refuses
    │   └─ StreamBusy                           two readers on one stream, or two writers
    ├─ SessionError(ConnectionError)            .reason
    │   ├─ SessionClosed                        ended in order, by us or by the peer
    │   ├─ SessionAborted                       the peer's program ended it with a code
    │   ├─ ProtocolError                        the peer broke the protocol, or says that we did
    │   ├─ PeerTimeout                          the peer sent nothing for too long
    │   ├─ PeerGone                             open() after the peer said GOAWAY
    │   └─ StreamsExhausted                     every stream id has been used
    └─ StreamError
        ├─ StreamClosed(BrokenPipeError)        write after write_eof() or close()
        └─ StreamReset(ConnectionResetError)    .by_peer
            └─ StreamRefused                    the peer did not process the stream: safe to retry

Every error of a session or a stream is also one of the standard library's own
(`ConnectionError`, `BrokenPipeError`, `ConnectionResetError`), with the `errno` that a socket's
error has, so code written for sockets handles them unchanged. `str()` is the message alone.
None is a `TimeoutError`: that is what a caller's own deadline raises, and one `except` must be
able to tell the two apart.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

__all__ = [
    "CloseReason",
    "ConfigError",
    "ErrorCode",
    "GoAway",
    "MuxadoError",
    "PeerGone",
    "PeerTimeout",
    "ProtocolError",
    "SessionAborted",
    "SessionClosed",
    "SessionError",
    "StreamBusy",
    "StreamClosed",
    "StreamError",
    "StreamRefused",
    "StreamReset",
    "StreamsExhausted",
    "UsageError",
]


class ErrorCode(IntEnum):
    """The codes a RST or a GOAWAY carries (docs/protocol.md section 9).

    Any 32-bit number is legal on the wire; these are the ones with a meaning.
    """

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 4
    STREAM_REFUSED = 5
    STREAM_CANCELLED = 6
    STREAM_RESET = 7
    FRAME_SIZE_ERROR = 8
    ACCEPT_QUEUE_FULL = 9
    ENHANCE_YOUR_CALM = 10
    REMOTE_GONE_AWAY = 11
    STREAMS_EXHAUSTED = 12
    WRITE_TIMEOUT = 13
    SESSION_CLOSED = 14
    PEER_EOF = 15
    UNKNOWN = 255


def code_name(code: int) -> str:
    """Return an error code's name and number, or only the number if it has no name."""
    try:
        return f"{ErrorCode(code).name} ({code})"
    except ValueError:
        return f"code {code}"


class GoAway(NamedTuple):
    """The code and the text of a GOAWAY.

    Attributes:
        code: the error code, 0 for no error.
        debug: the text, at most 1 KiB.
    """

    code: int
    debug: bytes


@dataclass(frozen=True)
class CloseReason:
    """Why a session ended.

    Attributes:
        code: the error code of the GOAWAY that ended it, 0 for an orderly end.
        debug: the debug text of that GOAWAY, at most 1 KiB.
        by_peer: True if the peer ended the session, False if this side did.
        message: why the session ended, for people.
        exception: the transport's exception, if one ended the session.
        clean: True if the end was announced (by a GOAWAY with code 0, or by the end of the
            connection if the wire format has no GOAWAY) and no stream was cut: each had both
            its ends, or nothing on it was still unread, unsent or awaited.
    """

    code: int
    debug: bytes
    by_peer: bool
    message: str
    exception: BaseException | None = None
    clean: bool = False

    def __str__(self) -> str:
        return self.message


class MuxadoError(Exception):
    """The base class of all errors of this library.

    Attributes:
        code: the error code (`ErrorCode`, or any other number that a peer sent).
    """

    code: int = ErrorCode.UNKNOWN

    @property
    def closed_here(self) -> bool:
        """Whether the call failed because this side itself had ended the stream or the session."""
        return False


class UsageError(MuxadoError, RuntimeError):
    """The call is not possible, because of its arguments or its time; it changed nothing."""

    code: int = ErrorCode.INTERNAL_ERROR


class ConfigError(UsageError, ValueError):
    """A value of `Config` is out of its range, or of the wrong type."""


class StreamBusy(UsageError):
    """A call, or a callback that waits, reads or writes where another one already waits to."""


class SessionError(MuxadoError, ConnectionError):
    """The session has ended, or can't do this any more.

    Attributes:
        reason: the session's `CloseReason`, or None if the session still lives.
        errno: as in errors of sockets: the number of the transport's error if one ended the
            session, else ``ECONNRESET``, or the number that the class documents.
    """

    reason: CloseReason | None
    # A class attribute, since OSError's own field would show in str().
    errno: int | None = errno.ECONNRESET

    def __init__(
        self, message: str, *, code: int | None = None, reason: CloseReason | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        if code is not None:
            self.code = code
        cause = None if reason is None else reason.exception
        # What TLS keeps in its errors' errno is a number of its own.
        if type(cause) is OSError or isinstance(cause, ConnectionError | TimeoutError):
            self.errno = cause.errno or self.errno

    def __reduce__(self) -> tuple[Any, ...]:
        """Tell `pickle` how to make the error anew; the transport's exception goes along."""
        make = partial(type(self), code=self.code, reason=self.reason)
        return make, self.args


class SessionClosed(SessionError):
    """The session was ended in order, by this side or by the peer."""

    code: int = ErrorCode.SESSION_CLOSED

    @property
    def closed_here(self) -> bool:
        """Whether this side has ended the session, or the listener that it was asked of."""
        return self.reason is None or not self.reason.by_peer


class SessionAborted(SessionError):
    """The peer's program ended the session with a code of its own, as `abort` and `go_away` do.

    `code` is that code; the message ends with the peer's text, which `reason.debug` has as bytes.
    """

    code: int = ErrorCode.INTERNAL_ERROR


class ProtocolError(SessionError):
    """The peer broke the protocol, or ended the session saying that this side did."""

    code: int = ErrorCode.PROTOCOL_ERROR


class PeerTimeout(SessionError):
    """The peer sent nothing for `ping_timeout` after a ping, so the session was ended.

    It is not a `TimeoutError`, so that a caller's `except TimeoutError` catches its own deadline
    and not the session's death. `errno` is ``ETIMEDOUT``.
    """

    code: int = ErrorCode.UNKNOWN
    errno: int | None = errno.ETIMEDOUT


class PeerGone(SessionError):
    """The peer sent GOAWAY and takes no new streams: connect a new session.

    `code` is the peer's code, or REMOTE_GONE_AWAY if it sent 0; `reason` has the `code` and
    `debug` of its GOAWAY, though the session has not ended yet. `errno` is ``ESHUTDOWN``.
    """

    code: int = ErrorCode.REMOTE_GONE_AWAY
    errno: int | None = errno.ESHUTDOWN


class StreamsExhausted(SessionError):
    """This side has used every stream id of the session: connect a new session.

    `errno` is ``EADDRNOTAVAIL``, as for a host whose ports are all in use.
    """

    code: int = ErrorCode.STREAMS_EXHAUSTED
    errno: int | None = errno.EADDRNOTAVAIL


class StreamError(MuxadoError):
    """One stream failed; its session and the other streams go on."""


class StreamClosed(StreamError, BrokenPipeError):
    """This side has already closed the stream, or the direction used. `errno` is ``EPIPE``."""

    code: int = ErrorCode.STREAM_CLOSED
    errno: int | None = errno.EPIPE

    @property
    def closed_here(self) -> bool:
        """True."""
        return True


class StreamReset(StreamError, ConnectionResetError):
    """The stream was reset: both directions ended at once.

    Attributes:
        code: the code of the RST.
        by_peer: True if the peer reset it, False if this side did.
        errno: ``ECONNRESET``.
    """

    by_peer: bool
    errno: int | None = errno.ECONNRESET

    def __init__(self, message: str, *, code: int, by_peer: bool) -> None:
        super().__init__(message)
        self.code = code
        self.by_peer = by_peer

    @property
    def closed_here(self) -> bool:
        """Whether this side has reset the stream."""
        return not self.by_peer

    def __reduce__(self) -> tuple[Any, ...]:
        """Tell `pickle` how to make the error anew."""
        return partial(type(self), code=self.code, by_peer=self.by_peer), self.args


class StreamRefused(StreamReset):
    """The peer did not process the stream: it is safe to open another one and try again."""
