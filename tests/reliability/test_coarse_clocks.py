"""Clocks that stand still for a while, as one of 15.6 ms does: no time at all is a time, too."""

from __future__ import annotations

import pytest

from muxado.config import Config
from muxado.core import CoreSession
from tests import inside

from ..core.pair import Pair


def test_a_round_trip_of_no_time_is_an_answer() -> None:
    liveness = CoreSession(client=True, config=Config(), now=100.0).liveness
    for number in (1, 2):
        assert liveness.request() == number
        liveness.ping_sent(100.0)
        assert liveness.answer(100.0)
        assert liveness.answered == number
    assert (liveness.rtt, liveness.min_rtt) == (0.0, 0.0)
    assert not liveness.answer(100.0), "there was no second question"


@pytest.mark.parametrize("stands", [True, False], ids=["all the time", "now and then"])
def test_a_session_carries_bulk_while_its_clock_stands(stands: bool) -> None:
    pair = Pair()
    near, far = pair.open_pair()
    received = 0
    for turn in range(200):
        if not stands and turn % 10 == 0:
            pair.now += 0.0156
        near.write(bytes(100_000))
        pair.run()
        received += len(far.read(100_000))
    number = pair.client.liveness.ping()
    pair.run()
    assert inside.liveness(pair.client).answered >= number
    assert received == 200 * 100_000
    assert pair.client.reason is None
