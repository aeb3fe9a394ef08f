"""The streams that have data and no credit, and whether their peer still lives.

A peer that has closed both directions of a stream sends a FIN and then nothing more
(docs/protocol.md section 13, no. 4): a sender that waits for its credit would never stop
waiting. So after the peer's FIN, an empty DATA frame asks from time to time whether the stream
still lives. A peer that knows the stream ignores it; one that has forgotten it answers with a RST.

On some wires a peer does not answer for a stream that it has forgotten, so asking tells nothing.
There the stream is given up after `Config.stall_timeout` (`take_overdue`).
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from .ledger import Ledger, StreamLedger, take_first
from .states import REMOTE_DONE

# When the peer is asked: so many seconds after the stream ran dry, then at every ping interval.
PROBE_AFTER: Final = (0.0, 0.05, 0.25, 1.0)
# Seconds between two looks at the streams that stall, which may be many.
PROBE_GRAIN: Final = 0.01
# If more streams than this stall, their repeated questions go out at so many times of a ping
# interval, many at once: a timer for each of them would keep an idle session busy.
MOST_SINGLE: Final = 64
PROBE_TIMES: Final = 16
# So many times of streams that stall no more may stay in the heap, or as many as there are others.
MOST_STALE: Final = 64


class Stalls:
    """The streams of one session that wait for credit.

    Attributes:
        count: how often a stream had data and no credit.
        probes: the streams whose question goes out next, by id.
    """

    __slots__ = (
        "_answered",
        "_due",
        "_ledger",
        "_overdue",
        "_stalled",
        "_times",
        "count",
        "probes",
    )

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stalled: dict[int, StreamLedger] = {}  # those that the peer is asked about
        self._due = inf  # when the first of them is asked about again, or earlier
        # A heap of (time of the next question, id). An entry is stale if the stream names another
        # time, or does not stall any more.
        self._times: list[tuple[float, int]] = []
        self.count: int = 0
        self.probes: dict[int, StreamLedger] = {}
        self._overdue: list[int] = []
        self._answered: bool = ledger.rules.closed_answer

    def blocked(self, stream: StreamLedger) -> None:
        """Note that a stream has data and no credit."""
        self.count += 1
        if stream.state == REMOTE_DONE:
            self.ask_after(stream)

    def ask_after(self, stream: StreamLedger) -> None:
        """Ask whether a stream that waits for credit still lives; now, and again later."""
        if stream.probe_step < 0:
            stream.probe_step = 0
            self._stalled[stream.stream_id] = stream
            self._probe(stream, self._ledger.now)
        elif self._answered:
            self.probes[stream.stream_id] = stream

    def unblocked(self, stream: StreamLedger) -> None:
        """Note that a stream that is asked after has credit again, or is gone."""
        stream.probe_step = -1
        self._stalled.pop(stream.stream_id, None)
        self.probes.pop(stream.stream_id, None)

    def take_probes(self, most: int) -> list[StreamLedger]:
        """Remove and return the streams whose question goes out now, at most so many."""
        return take_first(self.probes, most)

    def take_overdue(self) -> list[int]:
        """Return the ids of the streams to give up, and forget them."""
        if not self._overdue:
            return []
        overdue = self._overdue
        self._overdue = []
        return overdue

    def clear(self) -> None:
        """Ask about none of them any more."""
        self.probes.clear()
        self._stalled.clear()
        self._times.clear()
        self._overdue.clear()

    def next_deadline(self) -> float:
        """Return when `handle_timer` is due, inf for never."""
        return self._due if self._stalled else inf

    def handle_timer(self, now: float) -> None:
        """Ask about the streams whose time has come."""
        if now < self._due:
            return
        times = self._times
        while times and times[0][0] <= now:
            at, stream_id = heappop(times)
            stream = self._stalled.get(stream_id)
            if stream is not None and stream.probe_at == at:
                if self._answered:
                    self._probe(stream, now)
                else:
                    self._overdue.append(stream_id)
        self._due = max(times[0][0], now + PROBE_GRAIN) if times else inf

    def _probe(self, stream: StreamLedger, now: float) -> None:
        """Ask now, and note when to ask again, or when to give up."""
        if not self._answered:
            stream.probe_at = now + (self._ledger.config.stall_timeout or inf)
            self._note_time(stream)
            return
        self.probes[stream.stream_id] = stream
        stream.probe_step += 1
        step = stream.probe_step
        if step < len(PROBE_AFTER):
            stream.probe_at = now + PROBE_AFTER[step] - PROBE_AFTER[step - 1]
        else:
            interval = self._ledger.config.ping_interval or 15.0
            stream.probe_at = now + interval
            if len(self._stalled) > MOST_SINGLE:
                grain = interval / PROBE_TIMES
                stream.probe_at = (stream.probe_at // grain + 1) * grain
        self._note_time(stream)

    def _note_time(self, stream: StreamLedger) -> None:
        times = self._times
        if len(times) > MOST_STALE and len(times) > 2 * len(self._stalled):
            times[:] = [(other.probe_at, other.stream_id) for other in self._stalled.values()]
            heapify(times)
        else:
            heappush(times, (stream.probe_at, stream.stream_id))
        self._due = min(self._due, stream.probe_at)
