"""The error tree, and the error codes that travel on the wire.

::

    MuxadoError(Exception)                      .code
    ├─ UsageError(RuntimeError)                 a local mistake
    │   └─ StreamBusy                           two readers on one stream at once
    ├─ SessionError(ConnectionError)            .reason
    │   ├─ SessionClosed                        ended in order, by us or by the peer
    │   ├─ ProtocolError                        the peer broke the protocol, or says that we did
    │   ├─ PeerTimeout(TimeoutError)            nothing was heard from the peer for too long
    │   ├─ PeerGone                             open() after the peer said GOAWAY
    │   └─ StreamsExhausted                     every stream id has been used
    └─ StreamError
        ├─ StreamClosed(BrokenPipeError)        write after write_eof() or close()
        └─ StreamReset(ConnectionResetError)    .by_peer
            └─ StreamRefused                    the peer never looked at the stream: safe to retry

Every error of a session or a stream is also one of the standard library's own
(`ConnectionError`, `TimeoutError`, `BrokenPipeError` ...), so code written for sockets
handles them unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any

__all__ = [
    "CloseReason",
    "ErrorCode",
    "MuxadoError",
    "PeerGone",
    "PeerTimeout",
    "ProtocolError",
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
    """Return the name of an error code, or the number itself where it has none."""
    try:
        return f"{ErrorCode(code).name} ({code})"
    except ValueError:
        return f"code {code}"


@dataclass(frozen=True)
class CloseReason:
    """Why a session ended.

    Attributes:
        code: the error code of the GOAWAY that ended it, 0 for an orderly end.
        debug: the debug text that came or went with it, at most 1 KiB.
        by_peer: True if the peer ended the session, False if this side did.
        message: the same in words, for people.
        exception: the transport's exception, if one ended the session.
        clean: True if nothing was cut off: iteration and `serve` end quietly.
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
    """The base of every error of this library.

    Attributes:
        code: the error code (`ErrorCode`, or any other number that a peer sent).
    """

    code: int = ErrorCode.UNKNOWN


class UsageError(MuxadoError, RuntimeError):
    """The caller asked for something that can't be; nothing was changed."""

    code: int = ErrorCode.INTERNAL_ERROR


class StreamBusy(UsageError):
    """A task reads from a stream that another task is reading from already."""


class SessionError(MuxadoError, ConnectionError):
    """The session has ended, or can't do this any more.

    Attributes:
        reason: the session's `CloseReason`, or None if the session still lives.
    """

    reason: CloseReason | None

    def __init__(
        self, message: str, *, code: int | None = None, reason: CloseReason | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        if code is not None:
            self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        """Tell `pickle` how to make the error anew; the transport's exception goes along."""
        make = partial(type(self), code=self.code, reason=self.reason)
        return make, self.args


class SessionClosed(SessionError):
    """The session was ended in order, by this side or by the peer."""

    code: int = ErrorCode.SESSION_CLOSED


class ProtocolError(SessionError):
    """The peer broke the protocol, or ended the session saying that this side did."""

    code: int = ErrorCode.PROTOCOL_ERROR


class PeerTimeout(SessionError, TimeoutError):
    """The peer was silent for `ping_timeout` after a ping; the session was given up."""

    code: int = ErrorCode.UNKNOWN


class PeerGone(SessionError):
    """The peer said GOAWAY and takes no new streams: dial a new session."""

    code: int = ErrorCode.REMOTE_GONE_AWAY


class StreamsExhausted(SessionError):
    """This side has used every stream id of the session: dial a new session."""

    code: int = ErrorCode.STREAMS_EXHAUSTED


class StreamError(MuxadoError):
    """One stream failed; its session and the other streams go on."""


class StreamClosed(StreamError, BrokenPipeError):
    """A write, or a read, on a stream that this side has closed for it."""

    code: int = ErrorCode.STREAM_CLOSED


class StreamReset(StreamError, ConnectionResetError):
    """The stream was reset: both directions ended at once.

    Attributes:
        code: the code the RST carried.
        by_peer: True if the peer reset it, False if this side did.
    """

    by_peer: bool

    def __init__(self, message: str, *, code: int, by_peer: bool) -> None:
        super().__init__(message)
        self.code = code
        self.by_peer = by_peer

    def __reduce__(self) -> tuple[Any, ...]:
        """Tell `pickle` how to make the error anew."""
        return partial(type(self), code=self.code, by_peer=self.by_peer), self.args


class StreamRefused(StreamReset):
    """The peer never processed the stream: opening another one and trying again is safe."""
