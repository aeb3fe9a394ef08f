"""The RSTs that wait to be sent, and the streams that were reset last.

A peer can make us answer faster than it reads. So there is one RST at most for a stream, and once
too many wait (`full`) the receiver stops parsing until the transport has taken some.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from ..errors import ErrorCode
from .guards import RecentlyReset
from .ledger import Ledger
from .states import CLOSING
from .tallies import CodeCounts

# How many RSTs the peer may provoke before parsing waits for the transport to take them.
MAX_ANSWERS: Final = 4096


class PendingResets:
    """The RSTs of one session that wait to be sent.

    Attributes:
        waiting: their codes, by stream id; the oldest first.
        full: True while too many wait.
        recent: the streams that were reset last; what comes for them is not answered.
        counts: how often each code was queued. Answers to pings are not counted.
    """

    __slots__ = (
        "_asked",
        "_ledger",
        "_provoked",
        "counts",
        "full",
        "recent",
        "waiting",
    )

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._provoked = 0  # how many of those that wait the peer has provoked
        self._asked = 0  # how many the application has asked for, for streams of the peer
        self.waiting: dict[int, int] = {}
        self.full: bool = False
        self.recent: RecentlyReset = RecentlyReset()
        self.counts: CodeCounts = CodeCounts()

    def provoke(self, stream_id: int, code: int) -> None:
        """Queue a RST that the peer has provoked."""
        if self._takes_more():
            self._queue(stream_id, code)
            self._count_provoked()

    def provoke_for_unknown(self, stream_id: int) -> None:
        """Answer a frame for a stream that isn't known, as a ping is; once only."""
        if stream_id in self.recent or stream_id in self.waiting or not self._takes_more():
            return
        self.waiting[stream_id] = int(ErrorCode.STREAM_CLOSED)
        if stream_id != self._ledger.rules.ping_id:
            self.counts.count(int(ErrorCode.STREAM_CLOSED))
        self._count_provoked()

    def ask(self, stream_id: int, code: int, local: bool) -> None:
        """Queue a RST that the application has asked for.

        Args:
            stream_id: the stream.
            code: the reset code.
            local: whether this side opened the stream: no peer can have us reset many of those.
        """
        self._queue(stream_id, code)
        if not local:
            self._asked += 1
            if self.too_many_asked():
                self.full = True

    def too_many_asked(self) -> bool:
        """Return whether too many wait that the application has asked for."""
        # The application may reset all of its streams in one step: that is not too many yet.
        return self._asked > MAX_ANSWERS + self._ledger.config.max_incoming_streams

    def take(self, most: int) -> list[tuple[int, int]]:
        """Remove and return the oldest ones, at most so many, as stream ids and codes."""
        waiting = self.waiting
        batch = list(islice(waiting.items(), max(most, 0)))
        if len(batch) == len(waiting):
            self.clear()
        else:
            for stream_id, _ in batch:
                del waiting[stream_id]
            # Which of them have left isn't known: assume that the rest are the ones that count.
            self._provoked = min(self._provoked, len(waiting))
            self._asked = min(self._asked, len(waiting))
            self.full = self._provoked > MAX_ANSWERS or self.too_many_asked()
        return batch

    def clear(self) -> None:
        """Forget all that wait."""
        self.waiting.clear()
        self._provoked = self._asked = 0
        self.full = False

    def _queue(self, stream_id: int, code: int) -> None:
        self.waiting[stream_id] = int(code)
        self.recent.add(stream_id)
        self.counts.count(int(code))

    def _takes_more(self) -> bool:
        """Return whether the peer may provoke another one.

        A session that is closing has said everything with its GOAWAY. If the peer goes on talking,
        it stops answering: giving the peer up would lose what is still to be sent.
        """
        return self._ledger.state < CLOSING or self._provoked < MAX_ANSWERS

    def _count_provoked(self) -> None:
        self._provoked += 1
        if self._provoked > MAX_ANSWERS:
            self.full = True
