"""When the windows shrink to measure the base round trip. `test_long_links` has it on links."""

from __future__ import annotations

import pytest

from muxado.config import Config
from muxado.core import Ledger
from muxado.core.credit import FLOOR, CreditEstimator
from muxado.core.liveness import Liveness
from muxado.core.rtt_probe import INTERVAL, RttProbe
from muxado.wire import MUXADO_V2

RTT = 0.1
PLENTY = 64 * FLOOR


class Probed:
    """A probe, and the parts that it acts on, of a session whose round trip is known.

    Attributes:
        now: the time, in seconds.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.credit = CreditEstimator(PLENTY, PLENTY, self.now)
        self.liveness = Liveness(Ledger(True, Config(), MUXADO_V2.rules, self.now))
        self.probe = RttProbe(self.now)
        self.ping(RTT)

    def ping(self, round_trip: float) -> None:
        """Send a ping, and have it answered."""
        self.liveness.ping_sent(self.now)
        self.now += round_trip
        self.liveness.answer(self.now)

    def grow(self) -> None:
        """Have the application read so much that the windows grow beyond the floor."""
        self.now += RTT
        self.credit.tick(self.now, self.liveness.min_rtt, 8 * FLOOR)
        assert self.credit.target > FLOOR

    def tick(self) -> None:
        """Let the time come that the probe waits for."""
        self.now = max(self.now, self.probe.due)
        self.probe.tick(self.now, self.credit, self.liveness)


def test_windows_at_the_floor_are_left_alone() -> None:
    probed = Probed()
    for number in range(1, 4):
        probed.tick()
        assert not probed.credit.probing
        assert probed.probe.due == pytest.approx(number * INTERVAL + INTERVAL)


def test_a_round_trip_far_above_the_shortest_is_looked_at_even_there() -> None:
    probed = Probed()
    probed.ping(3 * RTT)
    probed.tick()
    assert probed.credit.probing


def test_large_windows_shrink_until_a_ping_has_found_the_queues_empty() -> None:
    probed = Probed()
    probed.grow()
    share = probed.credit.share()
    probed.tick()
    assert probed.credit.share() < share
    assert probed.probe.due == pytest.approx(probed.now + 2 * RTT)
    probed.tick()
    assert probed.liveness.wanted
    for _ in range(3):  # the answer isn't there yet
        probed.now += RTT
        probed.tick()
        assert probed.credit.probing
    probed.ping(2 * RTT)
    probed.tick()
    assert probed.credit.share() == share
    assert probed.liveness.min_rtt == pytest.approx(2 * RTT)  # what was measured is the link's own
    assert probed.probe.due == pytest.approx(probed.now + INTERVAL)


def test_a_peer_that_can_be_pinged_no_more_ends_the_probe() -> None:
    probed = Probed()
    probed.grow()
    probed.tick()
    probed.tick()
    probed.liveness.turn_off()
    probed.tick()
    assert not probed.credit.probing
    probed.tick()
    assert not probed.credit.probing
