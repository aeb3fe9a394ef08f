"""Streams that are opened by a frame of their own, before any data and in the order of their ids.

On most wires but muxado v2's an open has its own frame, and some want the ids to rise. So a stream
that is opened here waits in one line with the others, whatever its priority, and its frame goes
out before all data: `Openings` is the scheduler that knows that line. Only then may the stream
send.

Where the peer acknowledges streams (yamux: when its application accepts them), the line stops at
so many unacknowledged ones: a peer ends or stops the session that opens more.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from .ledger import StreamLedger
from .scheduler import Scheduler
from .states import IDLE

S = TypeVar("S", bound=StreamLedger)


class Openings(Scheduler[S], Generic[S]):
    """The streams that have something to send; first those that are still to be opened."""

    __slots__ = ("_most", "_ready", "_unacknowledged", "_waiting")

    # Declared again because this class sets it too.
    waiting: int

    def __init__(self, most_unacknowledged: int) -> None:
        super().__init__()
        self._most = most_unacknowledged  # 0: any number
        self._unacknowledged: set[int] = set()
        self._waiting: OrderedDict[int, S] = OrderedDict()  # to be opened, in the order of the ids
        self._ready = 0  # how many of them may be opened now

    def add(self, stream: S) -> None:
        if stream.state != IDLE:
            super().add(stream)
            return
        self.mark(stream, True)
        self._waiting[stream.stream_id] = stream
        self._count()

    def take(self) -> S:
        if not self._ready:
            return super().take()
        stream_id, stream = self._waiting.popitem(last=False)
        self.mark(stream, False)
        if self._most:
            self._unacknowledged.add(stream_id)
        self._count()
        return stream

    def remove(self, stream: S) -> None:
        if stream.stream_id not in self._waiting:
            super().remove(stream)  # else it keeps its place, as its id does

    def drop(self, stream: S) -> None:
        if self._waiting.pop(stream.stream_id, None) is None:
            super().drop(stream)
            return
        self.mark(stream, False)
        self._count()

    def clear(self) -> None:
        for stream in self._waiting.values():
            self.mark(stream, False)
        self._waiting.clear()
        super().clear()
        self._ready = 0

    def acknowledged(self, stream_id: int) -> None:
        """Note that the peer has acknowledged a stream, or that it is gone."""
        if stream_id in self._unacknowledged:
            self._unacknowledged.remove(stream_id)
            self._count()

    def _count(self) -> None:
        """Count anew how many streams may be opened."""
        ready = len(self._waiting)
        if self._most:
            ready = min(ready, self._most - len(self._unacknowledged))
        self.waiting += ready - self._ready
        self._ready = ready
