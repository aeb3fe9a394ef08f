"""Which stream sends next: strict between priorities, round robin within one."""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, TypeVar

from .ledger import StreamLedger

S = TypeVar("S", bound=StreamLedger)

LOWEST_PRIORITY: Final = -8
HIGHEST_PRIORITY: Final = 7

# So many stale places may stay in a queue, or as many as there are others.
MOST_STALE: Final = 64

# Of this many frames one goes to a lower priority that waits, so that it still moves.
SHARE_OF_LOWER: Final = 16


class _Level(Generic[S]):
    """The streams of one priority that have something to send.

    A stream that ends, or gets another priority, leaves its place behind: seeking it would take
    time in proportion to the queue. Such a place is stale. The first one never is.
    """

    __slots__ = ("moved", "passed", "priority", "queue", "stale")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.queue: deque[S] = deque()
        self.stale = 0  # how many places are
        # How many places a stream has left for another priority. Should it be in
        # the queue again, they are the first ones of its places.
        self.moved: dict[S, int] = {}
        self.passed = 0  # frames sent since a lower level had its turn

    def trim(self) -> None:
        """Drop stale places: the first ones, and all if they are many."""
        queue = self.queue
        while queue and not self._live(queue[0]):
            queue.popleft()
            self.stale -= 1
        if self.stale > MOST_STALE and self.stale > len(queue) // 2:
            self.queue = deque([stream for stream in queue if self._live(stream)])
            self.stale = 0

    def _live(self, stream: S) -> bool:
        """Return whether a stream's first place is not stale; if it is, it must be dropped."""
        left = self.moved.get(stream, 0)
        if not left:
            return stream.scheduled
        if left > 1:
            self.moved[stream] = left - 1
        else:
            del self.moved[stream]
        return False


class Scheduler(Generic[S]):
    """The streams that have something to send, and whose turn it is.

    Attributes:
        waiting: how many streams wait.
    """

    __slots__ = ("_levels", "waiting")

    def __init__(self) -> None:
        self._levels: list[_Level[S]] = [_Level(0)]  # highest priority first
        self.waiting: int = 0

    def add(self, stream: S) -> None:
        """Queue a stream behind the others of its priority; once only, until it is taken."""
        stream.scheduled = True
        self.waiting += 1
        levels = self._levels
        priority = stream.priority
        index = 0
        for level in levels:
            if level.priority == priority:
                level.queue.append(stream)
                return
            if level.priority < priority:
                break
            index += 1
        new: _Level[S] = _Level(priority)
        new.queue.append(stream)
        levels.insert(index, new)

    def mark(self, stream: S, scheduled: bool) -> None:
        """Note of a stream that waits elsewhere whether it waits."""
        stream.scheduled = scheduled

    def take(self) -> S:
        """Remove and return the stream whose turn it is; one of them must wait."""
        self.waiting -= 1
        chosen: _Level[S] | None = None
        for level in self._levels:
            if not level.queue:
                continue
            if chosen is not None:
                # A lower level has waiting streams too: is it their turn?
                chosen.passed += 1
                if chosen.passed < SHARE_OF_LOWER:
                    break
                chosen.passed = 0
            chosen = level
        assert chosen is not None
        stream = chosen.queue.popleft()
        stream.scheduled = False
        if chosen.stale:
            chosen.trim()
        return stream

    def remove(self, stream: S) -> None:
        """Take a stream out that gets a new priority."""
        moved = self._level_of(stream).moved
        moved[stream] = moved.get(stream, 0) + 1
        self.drop(stream)

    def drop(self, stream: S) -> None:
        """Take a stream out that has ended, and so never comes back."""
        level = self._level_of(stream)
        stream.scheduled = False
        self.waiting -= 1
        level.stale += 1
        level.trim()

    def clear(self) -> None:
        """Take every stream out."""
        for level in self._levels:
            for stream in level.queue:
                stream.scheduled = False
            level.queue.clear()
            level.moved.clear()
            level.stale = 0
        self.waiting = 0

    def _level_of(self, stream: S) -> _Level[S]:
        index = 0
        while self._levels[index].priority != stream.priority:  # one that waits has a level
            index += 1
        return self._levels[index]
