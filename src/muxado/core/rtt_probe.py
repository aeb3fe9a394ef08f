"""Periodically shrinks the windows until network queues are empty, to measure the base round trip.

BBR does the same and calls it PROBE_RTT. Credit is sized by the smallest round trip of the last
seconds. While a stream keeps its link busy, every round trip holds the queue that this very credit
has built: were that taken for the link's, the credit would double each time that the last good
measurement got too old. So every `INTERVAL` less credit is given than the link holds, for about two
round trips, until a ping has found the queues empty. What it measured is the link's round trip,
longer or shorter than what was known.
"""

from __future__ import annotations

from typing import Final

from .credit import FLOOR, GAIN, SHORTEST_EPOCH, CreditEstimator
from .liveness import Liveness

INTERVAL: Final = 10.0
# At the floor there is no queue worth emptying; but a round trip so much longer than the shortest
# one may have become the link's own.
LONGER: Final = 2.0


class RttProbe:
    """Decides when the windows shrink, and when they are as before.

    Attributes:
        due: when `tick` has something to do.
    """

    __slots__ = ("_ping", "due")

    def __init__(self, now: float) -> None:
        self._ping = 0  # the number of the ping that finds the queues empty
        self.due: float = now + INTERVAL

    def tick(self, now: float, credit: CreditEstimator, liveness: Liveness) -> None:
        """Take the next step; called while data comes in, once `due` has come."""
        if not credit.probing:
            self.due = now + INTERVAL
            longer = liveness.rtt > max(LONGER * liveness.min_rtt, SHORTEST_EPOCH)
            if (credit.target > FLOOR or longer) and liveness.supported:
                credit.probe(True)
                # By then all that the peer could send at the start has come.
                self.due = now + max(liveness.rtt, GAIN * liveness.min_rtt)
        elif not self._ping:
            self._ping = liveness.request()
        elif liveness.answered >= self._ping or not liveness.supported:
            self._ping = 0
            liveness.rebase(now)
            credit.probe(False)
            self.due = now + INTERVAL
