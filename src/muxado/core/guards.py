"""Guards: bounds for what a peer can make us hold or do."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

# So many streams that this side has reset are remembered: what comes late for them isn't answered.
MAX_RECENTLY_RESET: Final = 4096

# The peer may open and reset at once so many streams at least in so many seconds: an application
# that is busy for seconds finds many of them in one read.
CHURN_WINDOW: Final = 10.0
CHURN_LEAST: Final = 1000


class RecentlyReset:
    """The ids of the streams that were reset last: what comes late for them isn't answered."""

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: OrderedDict[int, None] = OrderedDict()

    def add(self, stream_id: int) -> None:
        """Add an id; the oldest goes if there are too many."""
        ids = self._ids
        ids[stream_id] = None
        if len(ids) > MAX_RECENTLY_RESET:
            ids.popitem(last=False)

    def discard(self, stream_id: int) -> None:
        """Remove an id that lives again."""
        self._ids.pop(stream_id, None)

    def clear(self) -> None:
        """Remove all."""
        self._ids.clear()

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._ids


class ChurnGuard:
    """Counts streams that the peer opened and reset before the application could see them.

    Streams that it gave up while they waited for the application are not counted: an honest client
    does that when its requests time out in a queue.
    """

    __slots__ = ("_count", "_limit", "_since")

    def __init__(self, limit: int) -> None:
        self._limit = max(limit, CHURN_LEAST)
        self._count = 0
        self._since = 0.0

    def too_many(self, now: float) -> bool:
        """Count one more; return whether that is too many for the time."""
        if now - self._since > CHURN_WINDOW:
            self._since = now
            self._count = 0
        self._count += 1
        return self._count > self._limit
