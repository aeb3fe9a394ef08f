"""Typed sessions: the 4 bytes at the start of a stream, and Go's heartbeat behind them.

On the v2 wire a type is the first 4 bytes of a stream, by agreement only
(docs/protocol.md section 10). Each incoming stream waits here until its own have come, so a
late one delays nobody else.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING, Final

from ..errors import ErrorCode
from .stream import TO_ECHO, TO_READER, TO_TYPE, TYPE_SIZE, CoreStream

if TYPE_CHECKING:
    from .session import CoreSession

# What a heartbeat may make us hold unsent, and how many there may be.
MOST_ECHO: Final = 4 * 1024
MOST_HEARTBEATS: Final = 16


class TypeGate:
    """Takes the type off incoming streams, and answers heartbeats."""

    __slots__ = ("_due", "_session")

    def __init__(self, session: CoreSession) -> None:
        self._session = session
        self._due: OrderedDict[int, float] = OrderedDict()  # in the order of their time

    def expect(self, stream: CoreStream) -> None:
        """Wait for the type of a new stream, for a bounded time."""
        stream.destination = TO_TYPE
        self._due[stream.stream_id] = self._session.now + self._session.config.type_timeout

    def receive(self, stream: CoreStream, chunk: bytes) -> None:
        """Take bytes of a stream whose type isn't complete."""
        if not stream.input_open():
            return
        session = self._session
        missing = TYPE_SIZE - stream.unread()
        session.unread += len(chunk)
        stream.receive(chunk)
        if len(chunk) < missing:
            return
        stream.type = int.from_bytes(stream.read(TYPE_SIZE), "big")
        del self._due[stream.stream_id]
        if stream.type == session.config.heartbeat_type:
            stream.discard_input()
            self._become_heartbeat(stream)
            self.echo(stream, chunk[missing:])
            return
        stream.destination = TO_READER
        session.receiver.deliver(stream)

    def echo(self, stream: CoreStream, chunk: bytes) -> None:
        """Send a heartbeat back."""
        if not chunk or not stream.input_open():
            return
        session = self._session
        session.unread += len(chunk)
        session.consumed(stream, len(chunk))
        if stream.queued() + len(chunk) > MOST_ECHO:
            session.receiver.violation(stream, ErrorCode.ENHANCE_YOUR_CALM)
        elif not stream.fin_asked:
            stream.write(chunk)

    def forget(self, stream: CoreStream) -> None:
        """Note that an incoming stream is gone."""
        self._due.pop(stream.stream_id, None)

    def next_deadline(self) -> float:
        """Return when `handle_timer` is due, inf for never."""
        if not self._due:
            return inf
        return next(iter(self._due.values()))

    def handle_timer(self, now: float) -> None:
        """Reset the streams whose type is overdue."""
        session = self._session
        while self.next_deadline() <= now:
            stream = session.streams[next(iter(self._due))]
            session.receiver.violation(stream, ErrorCode.STREAM_CANCELLED)

    def _become_heartbeat(self, stream: CoreStream) -> None:
        session = self._session
        if session.heartbeats >= MOST_HEARTBEATS:
            session.receiver.violation(stream, ErrorCode.STREAM_REFUSED)
            return
        stream.destination = TO_ECHO
        stream.accepted = True
        session.heartbeats += 1
        session.incoming -= 1
        session.check_drained()
