"""How large the receive windows should be: how much a peer may send ahead of the reader.

A window is credit that the peer holds on one stream. With too little, a stream is capped at
window / round trip; with too much, every other stream's data waits behind it in the queues on the
way. A link can hold rate x round trip, so both are estimated:

* the *rate* at which the application takes bytes, over about one round trip, the best of the
  last few: a slow reader earns no window, however fast the link is;
* the *minimum* round trip of a sliding window: never the loaded one, which grows with the
  very queue that a large window builds.

The target for all credit of the session is twice their product, at least `FLOOR`, shared by
the streams that use theirs up. So a sender that the window limits doubles its rate every round
trip until the link, and not the window, is the limit.
"""

from __future__ import annotations

from typing import Final

FLOOR: Final = 512 * 1024
LEAST_SHARE: Final = 64 * 1024
GAIN: Final = 2.0

# The part of the target that is given while the base round trip is measured (`rtt_probe`): half of
# what the link holds.
PROBING: Final = 0.25

SHORTEST_EPOCH: Final = 0.005  # seconds; below this the clock's and the loop's grain rule
KEPT_EPOCHS: Final = 8


class CreditEstimator:
    """Estimates how much credit the session's streams need, and divides it.

    Attributes:
        target: bytes, the credit that all streams of the session should hold together.
        probing: True while it should be less, so that the queues on the way run empty.
        epoch: the number of the current measuring interval; streams note the last one in
            which they were counted.
    """

    __slots__ = (
        "_active",
        "_last_active",
        "_max_target",
        "_max_window",
        "_rates",
        "_read_before",
        "_started",
        "epoch",
        "probing",
        "target",
    )

    def __init__(self, max_window: int, max_target: int, now: float) -> None:
        self._max_window = max_window
        self._max_target = max_target
        self._started = now
        self._read_before = 0
        self._active = 0
        self._last_active = 1
        self._rates: list[float] = [0.0] * KEPT_EPOCHS
        self.epoch: int = 1
        self.target: int = min(FLOOR, max_target)
        self.probing: bool = False

    def allow(self, max_target: int) -> None:
        """Let the target grow up to so many bytes."""
        self._max_target = max_target
        self.target = max(self.target, min(FLOOR, max_target))

    def share(self) -> int:
        """Return the window of one stream, in bytes."""
        streams = self._active if self._active > self._last_active else self._last_active
        target = int(self.target * PROBING) if self.probing else self.target
        share = target // streams
        if share < LEAST_SHARE:
            share = LEAST_SHARE
        return share if share < self._max_window else self._max_window

    def stream_counted(self) -> None:
        """Count a stream that needs more than its first window in this epoch.

        The many small streams that never do share nothing: their first window is enough.
        """
        self._active += 1

    def probe(self, probing: bool) -> None:
        """Start or stop giving less than the link holds."""
        self.probing = probing

    def tick(self, now: float, min_rtt: float, read: int) -> None:
        """Close the measuring interval if it has lasted about a round trip.

        Args:
            now: the time, in seconds.
            min_rtt: the minimum round trip, in seconds; 0 if none was measured yet.
            read: how many bytes the application has taken in all.
        """
        if min_rtt <= 0:
            return
        elapsed = now - self._started
        if elapsed < min_rtt or elapsed < SHORTEST_EPOCH:
            return
        # An interval much longer than a round trip has a pause in it, which tells no rate.
        taken = read - self._read_before
        if taken and elapsed < 4 * max(min_rtt, SHORTEST_EPOCH):
            self._rates[self.epoch % KEPT_EPOCHS] = taken / elapsed
            target = max(FLOOR, int(GAIN * max(self._rates) * min_rtt))
            self.target = min(target, self._max_target)
        self.epoch += 1
        self._started = now
        self._read_before = read
        self._last_active = max(1, self._active)
        self._active = 0
