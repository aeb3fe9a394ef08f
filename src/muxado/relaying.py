"""Passing on between a stream and something else, as far as it needs no I/O.

How it works. A relay has two directions. Each passes bytes on until the side that they come from
has said its end; the end is then passed on too, behind the last byte. When both ends are through,
the relay is over. Everything else cuts it: a reset or a loss on one side, a timeout, a
cancellation. What is cut is cut at once, and the other side is told as a reset, so that nothing
that was cut looks whole. Where a side can't be told a reset, it is ended as abruptly as can be, and
the result says so (`reset_lost`).

One pair of ends needs more care: a stream whose peer has answered, said its end, and then reads no
more (`close` on what it has not read sends a RST behind the FIN). Its answer is whole and must
arrive; what still comes for it is dropped (`reads_no_more`).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from math import inf
from time import monotonic, time
from typing import Any, Final, Literal

from .errors import ErrorCode, MuxadoError, StreamReset, UsageError

__all__ = ["Ended", "RelayResult"]

Ended = Literal["end", "stream", "other", "idle", "half_closed", "cancelled"]

# Bytes that are taken from one side at a time.
PIECE: Final = 256 * 1024

# Seconds for which what comes for a stream is dropped, after its peer has answered and closed.
LINGER: Final = 5.0

# Close at once, and have the kernel send a RST.
LINGER_NOT: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class RelayResult:
    """How a relay went.

    Attributes:
        to_stream: bytes that went into the stream.
        from_stream: bytes that came out of the stream, for the other side.
        started_at: when it began, in seconds since the epoch.
        last_byte_at: when the last byte came in on either side, in the same seconds; None if none
            did.
        ended: how it ended: "end" if both sides said their end and all was passed on; "stream" if
            the stream was reset or its session ended; "other" if the other side was reset or
            lost; "idle" or "half_closed" if that timeout was up; "cancelled".
        code: what the stream was reset with, by either side; None if it was not reset.
        error: what the side raised that was lost; None for the other ways to end.
        reset_lost: True if one side could not be told that it was cut off, and may take what it
            got for the whole.
    """

    to_stream: int
    from_stream: int
    started_at: float
    last_byte_at: float | None
    ended: Ended
    code: int | None
    error: BaseException | None
    reset_lost: bool


class RelayRecord:
    """What a relay knows of its two directions: bytes, ends, and how long it may be silent.

    It is a base class, since an object more for each relay would cost memory.

    Attributes:
        to_stream: bytes that went into the stream.
        from_stream: bytes that came out of it.
        input_ended: True once the other side has said its end, which was passed on to the stream.
        output_ended: True once the stream's peer has said its end.
        ended: how the relay ended, None while it runs.
    """

    __slots__ = (
        "_code",
        "_error",
        "_half_closed_timeout",
        "_idle_timeout",
        "_last_byte",
        "_last_change",
        "_reset_lost",
        "_started",
        "ended",
        "from_stream",
        "input_ended",
        "output_ended",
        "to_stream",
    )

    def __init__(self, idle_timeout: float | None, half_closed_timeout: float | None) -> None:
        for timeout in (idle_timeout, half_closed_timeout):
            if timeout is not None and not timeout > 0:
                raise UsageError(f"a relay's timeout is above 0 seconds, not {timeout!r}")
        self._idle_timeout = idle_timeout
        self._half_closed_timeout = half_closed_timeout
        self._started = self._last_change = monotonic()
        self._last_byte: float | None = None
        self.to_stream: int = 0
        self.from_stream: int = 0
        self.input_ended: bool = False
        self.output_ended: bool = False
        self.ended: Ended | None = None
        self._code: int | None = None
        self._error: BaseException | None = None
        self._reset_lost = False

    # What happens

    def _came_for_stream(self, count: int) -> None:
        """Note bytes that the other side has sent."""
        self.to_stream += count
        self._last_byte = self._last_change = monotonic()

    def _came_from_stream(self, count: int) -> None:
        """Note bytes that the stream's peer has sent."""
        self.from_stream += count
        self._last_byte = self._last_change = monotonic()

    def _input_has_ended(self) -> None:
        """Note that the other side has said its end."""
        self.input_ended = True
        self._last_change = monotonic()

    def _output_has_ended(self) -> None:
        """Note that the stream's peer has said its end."""
        self.output_ended = True
        self._last_change = monotonic()

    def _end(
        self, ended: Ended, error: BaseException | None = None, code: int | None = None
    ) -> bool:
        """Note how the relay ended; return False if it had ended already."""
        if self.ended is not None:
            return False
        self.ended = ended
        self._error = error
        self._code = code
        return True

    def _lose_reset(self) -> None:
        """Note that a side could not be told that it was cut off."""
        self._reset_lost = True

    # What follows

    def _has_timeouts(self) -> bool:
        """Return whether `_deadline` is ever another than inf."""
        return self._idle_timeout is not None or self._half_closed_timeout is not None

    def _deadline(self) -> float:
        """Return when `_overdue` should be asked, inf for never."""
        timeout = inf if self._idle_timeout is None else self._idle_timeout
        if self._half_closed_timeout is not None and self.input_ended != self.output_ended:
            timeout = min(timeout, self._half_closed_timeout)
        return self._last_change + timeout

    def _overdue(self, now: float) -> Ended | None:
        """Return which timeout is up, None if none is."""
        if now < self._deadline():
            return None
        idle = self._idle_timeout is not None and now >= self._last_change + self._idle_timeout
        return "idle" if idle else "half_closed"

    def _make_result(self) -> RelayResult:
        """Return how the relay went, once it has ended."""
        assert self.ended is not None
        began = time() - monotonic()
        return RelayResult(
            self.to_stream,
            self.from_stream,
            began + self._started,
            None if self._last_byte is None else began + self._last_byte,
            self.ended,
            self._code,
            self._error,
            self._reset_lost,
        )


def code_of_loss(exc: BaseException | None) -> ErrorCode:
    """Return what a stream is reset with when the other side was reset, or lost."""
    if exc is None or isinstance(exc, OSError | EOFError):
        return ErrorCode.STREAM_RESET
    return ErrorCode.INTERNAL_ERROR


def code_of_reset(exc: BaseException) -> int | None:
    """Return the code of the reset that an error of a stream tells of, None if it tells of none."""
    return exc.code if isinstance(exc, StreamReset) else None


def reads_no_more(exc: MuxadoError) -> bool:
    """Return whether a stream's peer has only said that it reads no more, after its own end."""
    return isinstance(exc, StreamReset) and exc.by_peer and exc.code == ErrorCode.STREAM_CLOSED


def arm_reset(sock: Any) -> bool:
    """Have the close of a socket reset its connection; return whether its peer is told by that."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    except OSError:
        return True  # it is lost already, and its peer knows
    return True
