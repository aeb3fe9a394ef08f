"""Typed sessions: the 4 bytes at the start of a stream, and Go's heartbeat behind them.

On the v2 wire a type is the first 4 bytes of a stream, by agreement only
(docs/protocol.md section 10). Each incoming stream waits here until its own have come, so a
late one delays none of the others.
"""

from __future__ import annotations

from math import inf
from typing import Final

from ..errors import ErrorCode
from .ledger import Ledger
from .stream import TO_READER, TYPE_SIZE, CoreStream
from .stream_table import StreamTable

# What a heartbeat may make us hold unsent, and how many there may be.
MOST_ECHO: Final = 4 * 1024
MOST_HEARTBEATS: Final = 16


class TypedStreams:
    """Takes the type off incoming streams, and answers heartbeats."""

    __slots__ = ("_ledger", "_table")

    def __init__(self, ledger: Ledger, table: StreamTable) -> None:
        self._ledger = ledger
        self._table = table

    def receive(self, stream: CoreStream, chunk: bytes) -> bool:
        """Take bytes of a stream whose type isn't complete.

        Returns:
            True if the type is complete now, and the stream is one for the application.
        """
        if not stream.input_open():
            return False
        missing = TYPE_SIZE - stream.unread()
        self._table.window.put(stream, chunk)
        if len(chunk) < missing:
            return False
        stream.take_type(int.from_bytes(stream.read(TYPE_SIZE), "big"))
        self._table.type_is_known(stream)
        if stream.type != self._ledger.config.heartbeat_type:
            stream.pour_into(TO_READER)
            return True
        stream.discard_input()
        if self._table.heartbeats >= MOST_HEARTBEATS:
            self._table.reject(stream, ErrorCode.STREAM_REFUSED)
        else:
            self._table.make_heartbeat(stream)
            self.echo(stream, chunk[missing:])
        return False

    def echo(self, stream: CoreStream, chunk: bytes) -> None:
        """Send a heartbeat back."""
        if not chunk or not stream.input_open():
            return
        self._table.window.pass_over(stream, len(chunk))
        if stream.queued() + len(chunk) > MOST_ECHO:
            self._table.reject(stream, ErrorCode.ENHANCE_YOUR_CALM)
        elif not stream.fin_asked:
            stream.write(chunk)

    def next_deadline(self) -> float:
        """Return when `handle_timer` is due, inf for never."""
        untyped = self._table.untyped
        return next(iter(untyped.values())) if untyped else inf

    def handle_timer(self, now: float) -> None:
        """Reset the streams whose type is overdue."""
        while self.next_deadline() <= now:
            stream = self._table.streams[next(iter(self._table.untyped))]
            self._table.reject(stream, ErrorCode.STREAM_CANCELLED)
