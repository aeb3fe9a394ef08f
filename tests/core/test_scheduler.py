"""What goes out, in which order, and in frames of which size."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from muxado.core import CoreStream
from muxado.core.ledger import StreamLedger
from muxado.core.scheduler import MOST_STALE, Scheduler
from muxado.errors import UsageError
from tests import inside
from tests.inside import FAIR_DATA, LONG_DATA

from .peer import PAD, WINDOW, Bench, data, rst, wndinc

PLENTY = 1 << 26
MIB = 1 << 20


def opened(bench: Bench, priority: int = 0) -> CoreStream:
    """Open a stream that has credit for a long time."""
    stream = bench.core.open(priority=priority, eager=True)
    bench.flush()
    bench.hear(wndinc(stream.stream_id, PLENTY))
    return stream


def order(bench: Bench, frames: int) -> list[int]:
    """Take about so many frames, one per call; return whose they were."""
    taken: list[int] = []
    while len(taken) < frames:
        piece = bench.core.data_to_send(bench.now, 1)
        assert piece
        stream_id = int.from_bytes(piece[4:8], "big")
        if stream_id != 1:
            taken.append(stream_id)
    return taken


def client() -> Bench:
    """A client that has its first ping behind it."""
    bench = Bench(client=True)
    bench.hear(rst(1, 4))
    bench.flush()
    return bench


# Control frames first


def test_control_frames_go_before_data() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, bytes(WINDOW), syn=True))
    stream.write(b"data")
    stream.read(WINDOW)
    bench.hear(data(99, b"x"))
    bench.core.go_away()
    assert bench.said() == ["GOAWAY 3 0", "RST 99 4", "WNDINC 3 524288", "DATA 3 4"]


def test_control_frames_overtake_queued_data() -> None:
    bench = client()
    bulk = opened(bench)
    bulk.write(bytes(10 * MIB))
    bench.core.data_to_send(bench.now, 65536)
    bench.hear(data(99, b"x"))
    assert bench.said()[0] == "RST 99 4"


def test_a_goaway_and_its_pad_are_not_parted() -> None:
    bench = client()
    bench.core.liveness.ping()
    bench.core.go_away()
    opened_before = bench.core.open()
    opened_before.write(b"x")
    raw = bench.core.data_to_send(bench.now, 1)
    assert raw[16:24] == PAD


# Frame sizes


def test_a_stream_alone_sends_long_frames_and_fair_ones_beside_others() -> None:
    bench = client()
    first = opened(bench)
    first.write(bytes(5 * LONG_DATA))
    assert {frame.length for frame in bench.frames()} == {LONG_DATA}
    second = opened(bench)
    first.write(bytes(5 * LONG_DATA))
    second.write(bytes(5 * LONG_DATA))
    lengths = [(frame.stream_id, frame.length) for frame in bench.frames()]
    assert {length for _, length in lengths[:-1]} <= {FAIR_DATA, LONG_DATA}
    assert lengths[:39] == [(3, FAIR_DATA), (5, FAIR_DATA)] * 19 + [(3, FAIR_DATA)]


def test_a_small_message_waits_behind_one_fair_frame_of_each_other_stream() -> None:
    bench = client()
    bulks = [opened(bench) for _ in range(8)]
    small = opened(bench)
    for bulk in bulks:
        bulk.write(bytes(4 * MIB))
    order(bench, 20)
    small.write(b"ping")
    before = order(bench, 9)
    assert before.index(small.stream_id) == 8


def test_small_writes_share_a_frame() -> None:
    bench = client()
    stream = opened(bench)
    for index in range(1000):
        stream.write(index.to_bytes(2, "big"))
    (frame,) = bench.frames()
    assert bytes(frame.body) == b"".join(index.to_bytes(2, "big") for index in range(1000))


def test_writes_that_do_not_fit_are_cut_and_keep_their_order() -> None:
    bench = client()
    streams = [opened(bench), opened(bench)]
    chunks = [bytes([index]) * (index * 997) for index in range(60)]
    for chunk in chunks:
        for stream in streams:
            stream.write(chunk)
    sent = {stream.stream_id: bytearray() for stream in streams}
    for frame in bench.frames():
        assert len(frame.body) == frame.length <= LONG_DATA
        sent[frame.stream_id] += frame.body
    for body in sent.values():
        assert bytes(body) == b"".join(chunks)


@pytest.mark.parametrize("size", [1, FAIR_DATA, LONG_DATA, LONG_DATA + 1, WINDOW])
def test_fin_rides_on_the_last_data(size: int) -> None:
    bench = client()
    stream = opened(bench)
    stream.write(bytes(size))
    stream.finish()
    frames = bench.frames()
    assert [frame.fin for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert all(frame.length for frame in frames)
    assert sum(frame.length for frame in frames) == size


def test_a_fin_with_nothing_queued_goes_alone() -> None:
    bench = client()
    stream = opened(bench)
    stream.write(b"x")
    bench.flush()
    stream.finish()
    assert bench.said() == ["DATA 3 0 FIN"]


@pytest.mark.parametrize("limit", [1, 1000, 65536, 262144])
def test_a_flush_is_about_as_long_as_asked_for(limit: int) -> None:
    bench = client()
    stream = opened(bench)
    stream.write(bytes(MIB))
    sizes = []
    while piece := bench.core.data_to_send(bench.now, limit):
        sizes.append(len(piece))
    assert max(sizes) < limit + LONG_DATA + 100
    assert min(sizes[:-1]) >= min(limit, LONG_DATA)
    assert bench.core.stats().bytes_sent == MIB
    assert bench.core.stats().bytes_queued == 0


# Fairness


def test_64_bulk_streams_take_turns() -> None:
    bench = client()
    streams = [opened(bench) for _ in range(64)]
    for stream in streams:
        stream.write(bytes(PLENTY // 64))
    ids = [stream.stream_id for stream in streams]
    assert order(bench, 64 * 20) == ids * 20


def test_turns_go_on_where_the_last_flush_ended() -> None:
    bench = client()
    streams = [opened(bench) for _ in range(5)]
    for stream in streams:
        stream.write(bytes(MIB))
    turns = Counter[int]()
    for _ in range(100):
        turns.update(order(bench, 2))
    assert set(turns.values()) == {40}


def test_a_stream_that_ran_out_of_credit_comes_back_at_the_end() -> None:
    bench = client()
    bulks = [opened(bench) for _ in range(3)]
    poor = bench.core.open(eager=True)
    bench.flush()
    poor.write(bytes(WINDOW + 10))
    bench.flush()
    for bulk in bulks:
        bulk.write(bytes(MIB))
    assert poor.stream_id not in order(bench, 30)
    bench.hear(wndinc(poor.stream_id, 5))
    assert order(bench, 8).count(poor.stream_id) == 1


# Priorities


def test_a_higher_priority_is_strictly_first_but_for_one_frame_in_16() -> None:
    bench = client()
    low, high = opened(bench, -1), opened(bench, 3)
    for stream in (low, high):
        stream.write(bytes(16 * MIB))
    taken = order(bench, 320)
    assert taken.count(low.stream_id) == 20
    places = [index for index, stream_id in enumerate(taken) if stream_id == low.stream_id]
    assert {later - earlier for earlier, later in pairwise(places)} == {16}


def test_of_three_levels_each_lower_one_gets_one_frame_in_16_of_the_next() -> None:
    bench = client()
    levels = [opened(bench, priority) for priority in (7, 0, -8)]
    for stream in levels:
        stream.write(bytes(PLENTY - MIB))
    taken = Counter(order(bench, 16 * 16 * 10))
    assert [taken[stream.stream_id] for stream in levels] == [2400, 150, 10]


def test_streams_of_one_priority_share_what_it_gets() -> None:
    bench = client()
    lows = [opened(bench, -3) for _ in range(3)]
    highs = [opened(bench, 3) for _ in range(2)]
    for stream in (*lows, *highs):
        stream.write(bytes(16 * MIB))
    taken = Counter(order(bench, 16 * 30))
    assert [taken[stream.stream_id] for stream in lows] == [10, 10, 10]
    assert [taken[stream.stream_id] for stream in highs] == [225, 225]


def test_a_lower_priority_has_everything_while_no_higher_one_waits() -> None:
    bench = client()
    low, high = opened(bench, -8), opened(bench, 7)
    low.write(bytes(MIB))
    assert set(order(bench, 5)) == {low.stream_id}
    high.write(b"urgent")
    assert order(bench, 2) == [high.stream_id, low.stream_id]


def test_priority_set_while_queued_counts_at_once() -> None:
    bench = client()
    first, second = opened(bench), opened(bench)
    for stream in (first, second):
        stream.write(bytes(4 * MIB))
    order(bench, 4)
    second.set_priority(5)
    assert set(order(bench, 15)) == {second.stream_id}
    first.set_priority(6)
    second.set_priority(6)
    assert Counter(order(bench, 20)) == {first.stream_id: 10, second.stream_id: 10}
    first.set_priority(-8)
    assert first.stream_id not in order(bench, 10)
    assert (first.priority, second.priority) == (-8, 6)


def test_setting_the_priority_neither_loses_nor_doubles_a_turn() -> None:
    bench = client()
    stream, other = opened(bench), opened(bench)
    stream.write(b"one frame")
    for priority in (3, 3, -2, 0, 7):
        stream.set_priority(priority)
    other.set_priority(2)  # has nothing to send
    assert bench.said() == ["DATA 3 9"]
    assert not inside.pending(bench.core)
    other.write(b"x")
    assert bench.said() == ["DATA 5 1"]


def test_an_accepted_stream_has_a_priority_too() -> None:
    bench = Bench()
    low = bench.accepted(data(3, syn=True))
    high = bench.accepted(data(5, syn=True))
    low.write(b"low")
    high.set_priority(1)
    high.write(b"high")
    assert bench.said() == ["DATA 5 4", "DATA 3 3"]


@pytest.mark.parametrize("priority", [-9, 8, 100])
def test_a_priority_that_can_not_be(priority: int) -> None:
    bench = client()
    stream = opened(bench)
    stream.write(b"x")
    with pytest.raises(UsageError):
        stream.set_priority(priority)
    assert stream.priority == 0
    assert bench.said() == ["DATA 3 1"]


def test_priorities_that_change_to_and_fro_lose_no_turn_and_give_none_twice() -> None:
    rng = random.Random(5)
    bench = client()
    streams = [opened(bench) for _ in range(8)]
    left = dict.fromkeys((stream.stream_id for stream in streams), 0)
    for _ in range(3000):
        stream = rng.choice(streams)
        action = rng.random()
        if action < 0.4:
            stream.write(b"x")
            left[stream.stream_id] += 1
        elif action < 0.8:
            stream.set_priority(rng.randrange(-1, 2))
        elif action < 0.82:
            stream.reset(6)
            left.pop(stream.stream_id)
            streams.remove(stream)
            streams.append(opened(bench))
            left[streams[-1].stream_id] = 0
            for other in streams:  # `opened` has flushed
                left[other.stream_id] = other.queued()
        elif piece := bench.core.data_to_send(bench.now, 1):
            number = int.from_bytes(piece[4:8], "big")
            if number in left and piece[3] >> 4 == 1:
                left[number] -= int.from_bytes(piece[:3], "big")
        waiting = [stream for stream in streams if stream.scheduled]
        assert inside.scheduled(bench.core) == len(waiting)
        assert {s.stream_id: s.queued() for s in streams} == left
        assert all(stream.scheduled == (stream.queued() > 0) for stream in streams)
    bench.flush()
    assert not any(stream.queued() for stream in streams)


def test_streams_that_end_leave_no_places_behind_one_that_waits() -> None:
    scheduler: Scheduler[StreamLedger] = Scheduler()
    streams = [StreamLedger(stream_id, True, WINDOW) for stream_id in range(1000)]
    for stream in streams:
        scheduler.add(stream)
    for stream in streams[1:900]:
        scheduler.drop(stream)
    (level,) = scheduler._levels
    assert len(level.queue) < 2 * 101 + MOST_STALE
    assert [scheduler.take() for _ in range(scheduler.waiting)] == [streams[0], *streams[900:]]
