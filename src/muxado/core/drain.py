"""Empties the queues on the way now and then, so that the real round trip can be measured.

Credit is sized by the smallest round trip of the last seconds. While a stream keeps its link
busy, every round trip holds the queue that this very credit has built: were that taken for the
link's, the credit would double each time that the last good measurement got too old. So every
`INTERVAL` less credit is given than the link holds, for about two round trips, until a ping has
found the way empty.
"""

from __future__ import annotations

from typing import Final

from .credit import FLOOR, GAIN, CreditEstimator
from .liveness import MINIMUM_WINDOW, Liveness

# So that each window over which the minimum is taken has seen an empty way.
INTERVAL: Final = MINIMUM_WINDOW


class Drain:
    """Decides when the queues are emptied, and when they are.

    Attributes:
        due: when `tick` has something to do.
    """

    __slots__ = ("_ping", "due")

    def __init__(self, now: float) -> None:
        self._ping = 0  # the number of the ping that finds the way empty
        self.due: float = now + INTERVAL

    def tick(self, now: float, credit: CreditEstimator, liveness: Liveness) -> None:
        """Take the next step; called while data comes in, once `due` has come."""
        if not credit.draining:
            self.due = now + INTERVAL
            if credit.target > FLOOR and liveness.supported:
                credit.draining = True
                # By then all that the peer could send at the start has come.
                self.due = now + max(liveness.rtt, GAIN * liveness.min_rtt)
        elif not self._ping:
            self._ping = liveness.request()
        elif liveness.answered >= self._ping or not liveness.supported:
            self._ping = 0
            credit.draining = False
            self.due = now + INTERVAL
