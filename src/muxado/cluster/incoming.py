"""A stream that another server has opened: its header, the verdict, and the way to the session.

It has no task: the header is taken by callbacks, and what comes after it is passed on by a relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..asyncio import Stream
from ..asyncio.relaying import StreamRelay
from ..errors import ErrorCode, MuxadoError
from .errors import HeaderError
from .lines import HEADER_LIMIT, Header, Verdict

__all__ = ["Incoming"]

HEADER_TIMEOUT = 10.0  # seconds

Take = Callable[[Header, bytes], tuple[Verdict, Stream | None]]
"""Judges a header, which is also given as the line; with HERE goes the stream to the session."""


class Incoming:
    """A stream of a peer's, until its header is there.

    Args:
        stream: the stream.
        take: judges its header.
        done: called with this object when that is done, or the stream is over.
    """

    __slots__ = ("_done", "_line", "_stream", "_take", "_timer")

    def __init__(self, stream: Stream, take: Take, done: Callable[[Incoming], object]) -> None:
        self._stream = stream
        self._take = take
        self._done = done
        self._line = b""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to read."""
        self._read()

    def cancel(self) -> None:
        """Give the stream up."""
        self._refuse(ErrorCode.STREAM_CANCELLED)

    def _read(self) -> None:
        try:
            data = self._stream.read_nowait(HEADER_LIMIT, self._read)
        except MuxadoError:
            self._end()
            return
        if data is None:
            if self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(HEADER_TIMEOUT, self.cancel)
            return
        self._line += data
        if not data or (not self._line.endswith(b"\n") and len(self._line) >= HEADER_LIMIT):
            self._refuse(ErrorCode.PROTOCOL_ERROR)
        elif self._line.endswith(b"\n"):
            self._judge()
        else:
            self._read()

    def _judge(self) -> None:
        stream = self._stream
        try:
            header = Header.unpack(self._line)
        except HeaderError:
            self._refuse(ErrorCode.PROTOCOL_ERROR)
            return
        # More than one hop would be a circle: what a peer asks for is here, or it is not.
        verdict: Verdict = Verdict.NOT_HERE
        other: Stream | None = None
        if header.hop == 1:
            verdict, other = self._take(header, self._line)
        self._end()
        try:
            stream.write_nowait(bytes([verdict]))
        except MuxadoError:
            if other is not None:
                other.reset(ErrorCode.STREAM_CANCELLED)
            return
        if other is None:
            stream.close()
        else:
            StreamRelay(stream, other).start()

    def _refuse(self, code: ErrorCode) -> None:
        self._end()
        self._stream.reset(code)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._done(self)
