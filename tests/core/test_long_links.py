"""Credit on links with a rate and a delay, in simulated time: windows grow, follow, and shrink."""

from __future__ import annotations

import pytest

from muxado.config import Config
from muxado.core import CoreStream
from muxado.errors import StreamReset
from tests import inside
from tests.inside import FAIR_DATA, FLOOR, LEAST_SHARE, LONGEST_DATA

from .link import Bulk, Link, run
from .pair import Pair

MIB = 1 << 20
LINK = 50_000_000.0  # bytes per second: 400 Mbit/s


@pytest.mark.parametrize(("round_trip", "round_trips"), [(0.02, 8), (0.1, 11), (0.2, 13)])
def test_one_bulk_stream_fills_a_long_link_after_a_few_round_trips(
    round_trip: float, round_trips: int
) -> None:
    link = Link(round_trip=round_trip, rate=LINK, step=0.001)
    bulk = Bulk(link)
    run(link, [bulk], round_trips * round_trip)
    assert bulk.sink is not None
    assert bulk.sink.window >= LINK * round_trip
    assert run(link, [bulk], 5 * round_trip) > 0.95 * LINK
    assert bulk.sink.window <= 16 * MIB
    assert inside.credit(link.server).target < 3 * LINK * round_trip


def test_the_window_stops_at_max_window_on_a_link_that_could_hold_more() -> None:
    link = Link(round_trip=0.2, rate=LINK, step=0.001, config=Config(max_window=2 * MIB))
    bulk = Bulk(link)
    run(link, [bulk], 3)
    assert bulk.sink is not None
    assert bulk.sink.window == 2 * MIB
    assert run(link, [bulk], 1) == pytest.approx(2 * MIB / 0.2, rel=0.15)


def test_a_slow_reader_does_not_grow_its_window() -> None:
    link = Link(round_trip=0.1, rate=LINK, step=0.001)
    bulk = Bulk(link, read_rate=1_000_000)
    assert run(link, [bulk], 3) == pytest.approx(1_000_000, rel=0.1)
    assert inside.credit(link.server).target == FLOOR
    assert inside.unread(link.server) <= FLOOR


def test_eight_streams_on_a_fast_link_stay_near_the_floor() -> None:
    link = Link(round_trip=0.0002, rate=1e9, step=0.0001)
    bulks = [Bulk(link) for _ in range(8)]
    assert run(link, bulks, 0.1) > 0.95e9
    assert inside.credit(link.server).target < 1.5 * FLOOR
    for bulk in bulks:
        assert bulk.sink is not None
        assert LEAST_SHARE <= bulk.sink.window < 1.5 * LEAST_SHARE
        assert bulk.read > 0.8 * sum(each.read for each in bulks) / 8


def test_a_window_that_has_grown_shrinks_when_others_need_a_share() -> None:
    link = Link(round_trip=0.05, rate=LINK, step=0.001)
    first = Bulk(link)
    run(link, [first], 1)
    assert first.sink is not None
    grown = first.sink.window
    assert grown > 4 * MIB
    bulks = [first, *[Bulk(link) for _ in range(7)]]
    run(link, bulks, 1)
    assert first.sink.window < grown / 4
    assert run(link, bulks, 0.5) > 0.95 * LINK


# Small messages beside a stream that has the link to itself otherwise


def longest_wait(link: Link, bulk: Bulk) -> float:
    """Send small messages, and return for how long one was under way beyond the link's delay."""
    small = link.client.open(eager=True)
    far: CoreStream | None = None
    waits = []
    for number in range(20):
        run(link, [bulk], 0.0007 * (number + 1))  # to begin somewhere inside a long frame
        small.write(b"small")
        began = link.now
        while far is None or not far.read(5):
            run(link, [bulk], link.step)
            far = far or link.server.accept()
        waits.append(link.now - began)
    return max(waits) - 0.01


def test_beside_bulk_on_a_slow_link_a_small_message_waits_for_three_fair_frames() -> None:
    slow = 2_500_000.0  # bytes per second: 20 Mbit/s
    link = Link(round_trip=0.02, rate=slow, step=0.0005)
    bulk = Bulk(link)
    assert run(link, [bulk], 3) > 0.9 * slow  # pings that measure go every second
    # One is on the link, one is next, and one has its turn first: 20 ms. Frames of 64 KiB would
    # take 79 ms, and those of a fast link 315.
    assert longest_wait(link, bulk) <= 3 * FAIR_DATA / slow + 2 * link.step


def test_the_frames_of_a_stream_alone_are_long_on_a_fast_link_and_short_on_a_slow_one() -> None:
    link = Link(round_trip=0.0002, rate=1e9, step=0.0001)
    bulk = Bulk(link)
    run(link, [bulk], 0.2)
    assert inside.longest_frame(link.client) == LONGEST_DATA
    link.become(round_trip=0.02, rate=2_500_000)
    run(link, [bulk], 3)
    assert inside.longest_frame(link.client) == FAIR_DATA


# Links that change


def bulk_on(link: Link, seconds: float) -> Bulk:
    """Keep a new stream busy for so long."""
    bulk = Bulk(link)
    run(link, [bulk], seconds)
    return bulk


@pytest.mark.parametrize("rate", [LINK / 5, LINK])
def test_minutes_of_a_busy_link_do_not_take_their_own_queue_for_its_delay(rate: float) -> None:
    link = Link(round_trip=0.05, rate=rate, step=0.002, queue=64 * MIB)
    bulk = bulk_on(link, 5)
    for _ in range(10):
        assert run(link, [bulk], 10) > 0.95 * rate
        assert inside.credit(link.server).target < 3 * rate * 0.05
        assert inside.liveness(link.server).min_rtt < 0.075


def test_a_link_that_gets_longer_is_followed() -> None:
    link = Link(round_trip=0.02, rate=LINK, step=0.002, queue=MIB)
    bulk = bulk_on(link, 3)
    link.become(round_trip=0.2, rate=LINK)
    run(link, [bulk], 13)
    assert run(link, [bulk], 10) > 0.95 * LINK


def test_a_link_that_gets_shorter_is_followed() -> None:
    link = Link(round_trip=0.2, rate=LINK, step=0.002, queue=MIB)
    bulk = bulk_on(link, 5)
    assert inside.credit(link.server).target > 1.8 * LINK * 0.2
    link.become(round_trip=0.02, rate=LINK)
    run(link, [bulk], 12)
    assert inside.credit(link.server).target < 2.5 * LINK * 0.022
    assert run(link, [bulk], 3) > 0.95 * LINK


def test_a_link_that_gets_slower_and_faster_is_followed() -> None:
    link = Link(round_trip=0.1, rate=LINK, step=0.002, queue=64 * MIB)
    bulk = bulk_on(link, 3)
    link.become(round_trip=0.1, rate=LINK / 10)
    run(link, [bulk], 5)
    assert inside.credit(link.server).target < 2.5 * LINK / 10 * 0.1
    assert run(link, [bulk], 3) > 0.9 * LINK / 10  # it may be emptied just now
    link.become(round_trip=0.1, rate=LINK)
    run(link, [bulk], 3)
    assert run(link, [bulk], 3) > 0.95 * LINK


def test_emptying_the_queues_costs_little() -> None:
    link = Link(round_trip=0.1, rate=LINK, step=0.002, queue=64 * MIB)
    bulk = bulk_on(link, 3)
    assert run(link, [bulk], 30) > 0.97 * LINK


def test_a_window_at_the_floor_is_never_drained() -> None:
    link = Link(round_trip=0.002, rate=LINK, step=0.0005)
    bulk = bulk_on(link, 1)
    for _ in range(60):
        run(link, [bulk], 0.2)
        assert not inside.credit(link.server).probing


# Memory


@pytest.mark.parametrize(("count", "limit"), [(1000, 16 * MIB), (10_000, 64 * MIB)])
def test_greedy_streams_stay_within_the_memory_and_the_modest_ones_are_spared(
    count: int, limit: int
) -> None:
    config = Config(max_receive_memory=limit, max_incoming_streams=count, accept_backlog=count)
    pair = Pair(config)
    modest = [pair.open_pair() for _ in range(10)]
    greedy = []
    for _ in range(count - len(modest)):
        stream = pair.client.open()
        stream.write(bytes(64 * 1024))
        greedy.append(stream)
        pair.run()
        assert inside.unread(pair.server) <= limit
    refused = [stream for stream in greedy if stream.reset_code == 10]
    assert len(refused) == len(greedy) - limit // (64 * 1024)
    far: list[CoreStream] = []
    while (stream_or_none := pair.server.accept()) is not None:
        far.append(stream_or_none)
    # Once some is given back, the modest ones have all that they want.
    assert len(far[0].read(64 * 1024)) == 64 * 1024
    for near, other in modest:
        near.write(b"a little")
        pair.run()
        assert other.read(100) == b"a little"
    for stream in far:
        while stream.unread():
            stream.read(MIB)
    assert inside.unread(pair.server) == 0
    with pytest.raises(StreamReset):
        refused[0].read(1)


def test_what_a_window_has_grown_to_is_given_back() -> None:
    link = Link(round_trip=0.1, rate=LINK, step=0.002)
    bulk = bulk_on(link, 3)
    assert bulk.sink is not None
    assert bulk.sink.recv_credit > 4 * MIB
    bulk.read_rate = 1_000_000  # its reader gets slow
    run(link, [bulk], 20)
    assert bulk.sink.window <= 2 * FLOOR
    assert inside.unread(link.server) + bulk.sink.recv_credit <= 2 * FLOOR
