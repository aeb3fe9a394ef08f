"""Long runs of the core without sockets: flat memory, ids near their end, an hour of faults."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Callable

import pytest

from muxado.core import CoreSession, CoreStream
from muxado.errors import ErrorCode, StreamRefused, StreamsExhausted
from muxado.wire import MUXADO_V2
from tests import inside
from tests.patience import patience

from ..core.pair import Pair
from .eras import STEP, Era, Talk

AT_ONCE = 50
LAST = MUXADO_V2.rules.last_id


def short_streams(pair: Pair, count: int) -> None:
    """Have a client send so many short requests, and read their answers."""
    for _ in range(count // AT_ONCE):
        near = [pair.client.open() for _ in range(AT_ONCE)]
        for stream in near:
            stream.write(b"request")
            stream.finish()
        pair.run()
        for _ in near:
            far = pair.server.accept()
            assert far is not None
            assert far.read(100) == b"request"
            far.write(b"answer")
            far.close()
        pair.run()
        for stream in near:
            assert stream.read(100) == b"answer"
            assert stream.at_eof()
            stream.close()
        pair.now += 0.01


def check_flat(count: int) -> None:
    pair = Pair()
    short_streams(pair, 2000)
    tracemalloc.start()
    try:
        short_streams(pair, 2000)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        short_streams(pair, count)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 16 * 1024
    finally:
        tracemalloc.stop()
    for core in (pair.client, pair.server):
        assert not inside.streams(core)
        assert not inside.accept_queue(core)
        assert inside.unread(core) == 0
    assert pair.server.stats().streams_accepted == count + 4000


def test_memory_is_flat_over_many_short_streams() -> None:
    check_flat(10_000)


@pytest.mark.slow
@pytest.mark.timeout(patience(900))
def test_memory_is_flat_over_a_million_short_streams() -> None:
    check_flat(1_000_000)


def test_streams_that_are_reset_leave_nothing_behind_either() -> None:
    pair = Pair()
    rng = random.Random(1)

    def run(count: int) -> None:
        for _ in range(count):
            near, far = pair.open_pair()
            near.write(bytes(rng.randrange(5000)))
            if rng.random() < 0.5:
                pair.run()
            (near if rng.random() < 0.5 else far).reset(rng.randrange(20))
            pair.run()

    tracemalloc.start()
    try:
        # The ids of reset streams that both keep in mind, several times over.
        run(13_000)
        before = tracemalloc.get_traced_memory()[0]
        run(2000)
        assert tracemalloc.get_traced_memory()[0] - before < 16 * 1024
    finally:
        tracemalloc.stop()
    assert not inside.streams(pair.client)
    assert not inside.streams(pair.server)


@pytest.mark.parametrize("side", ["client", "server"])
def test_ids_are_used_to_the_last_one_while_streams_go_on(side: str) -> None:
    pair = Pair()
    near, far = (pair.client, pair.server) if side == "client" else (pair.server, pair.client)
    old = near.open(eager=True)
    pair.run()
    other_end = far.accept()
    assert other_end is not None
    first = inside.set_next_id(near, LAST - 200 + (LAST - 200 - inside.next_id(near)) % 2)
    while inside.next_id(near) <= LAST:
        stream = near.open()
        exchange(pair, stream, far)
    assert stream.stream_id in (LAST, LAST - 1)
    assert near.stats().streams_opened == 1 + (stream.stream_id - first) // 2 + 1
    with pytest.raises(StreamsExhausted):
        near.open()
    # The other side still has ids, and the old stream goes on.
    assert far.open().stream_id in (2, 3)
    old.write(b"still here")
    pair.run()
    assert other_end.read(100) == b"still here"


def exchange(pair: Pair, stream: CoreStream, far: CoreSession) -> None:
    """Send a request and read its answer."""
    stream.write(b"request")
    stream.finish()
    pair.run()
    accepted = far.accept()
    assert accepted is not None
    accepted.write(b"answer")
    accepted.close()
    pair.run()
    assert stream.read(100) == b"answer"
    stream.close()


FAULTS = ["reset", "silence", "close", "shutdown", "eof", "cut", "abort"]


@pytest.mark.parametrize("seed", [1, 2])
def test_an_hour_of_mixed_traffic_with_faults(seed: int) -> None:
    """Each line carries traffic until its fault; all bytes are accounted for."""
    rng = random.Random(seed)
    now = 0.0
    talks = read = 0
    faults: list[str] = []
    while now < 3600:
        era = Era(rng, now)
        faults.append(FAULTS[len(faults) % len(FAULTS)])
        run_era(era, now + rng.uniform(5, 300), faults[-1])
        now = era.now
        all_talks = [*era.over, *era.talks]
        whole = [talk.request.read + talk.answer.read for talk in all_talks if not talk.failed]
        carried = sum(core.stats().bytes_received for core in era.sides)
        assert sum(whole) <= carried <= sum(core.stats().bytes_sent for core in era.sides)
        talks += len(all_talks)
        read += sum(whole)
    assert set(faults) == set(FAULTS)
    assert talks > 5000
    assert read > talks * 5000


def run_era(era: Era, until: float, fault: str) -> None:
    rng = era.rng
    was_reset: list[Talk] = []
    while era.now < until:
        if rng.random() < 0.1:
            era.open()
        if rng.random() < 0.005:
            was_reset += reset_one(era)
        era.step()
    assert era.alive()
    check_failures(era, was_reset)
    error = None
    if fault == "reset":
        error = ConnectionResetError("reset by peer")
    elif fault == "silence":
        # Both ends still say something now and then, and notice that nothing comes.
        era.silent_until = until + 100
        steps_until(era, Era.given_up, 15 + 20)
    elif fault == "close":
        era.sides[rng.randrange(2)].close(era.now)
        steps_until(era, Era.said_all, 10)
    elif fault == "shutdown":
        side = rng.randrange(2)
        era.sides[side].shut_down()
        steps_until(era, Era.idle, 60)
        check_failures(era, was_reset, refusing=side)
    elif fault == "eof":
        era.sides[rng.randrange(2)].receive_eof(era.now)
    elif fault == "cut":
        cut_in_the_middle_of_a_frame(era)
    else:
        era.sides[rng.randrange(2)].abort(2, era.now)
    era.end(error)


def reset_one(era: Era) -> list[Talk]:
    """Reset a stream from either side; return its talk, if there was one to reset."""
    talk = era.rng.choice(era.talks) if era.talks else None
    stream = era.rng.choice(talk.streams) if talk is not None else None
    if talk is None or stream is None:
        return []
    stream.reset(era.rng.randrange(20))
    return [talk]


def check_failures(era: Era, was_reset: list[Talk], refusing: int | None = None) -> None:
    """Check that no talk has failed but those that were reset, or that a side refuses by now."""
    excused = {id(talk) for talk in was_reset}
    for talk in era.over:
        if talk.failed and id(talk) not in excused:
            assert talk.opener != refusing is not None
            stream = talk.streams[talk.opener]
            assert stream is not None
            assert isinstance(stream.failure(), StreamRefused)


def cut_in_the_middle_of_a_frame(era: Era) -> None:
    """End the line one way, when only a frame's last byte is missing, or only its first came."""
    side = era.rng.randrange(2)
    era.sides[side].liveness.ping()
    steps_until(era, lambda era: bool(era.under_way[side]), STEP)
    (_, wire), other = era.under_way[side][0], era.sides[1 - side]
    other.receive_data(wire[: era.rng.choice([1, len(wire) - 1])], era.now)
    other.receive_eof(era.now)
    assert other.reason is not None
    assert (other.reason.code, other.reason.clean) == (ErrorCode.UNKNOWN, False)


def steps_until(era: Era, done: Callable[[Era], bool], seconds: float) -> None:
    limit = era.now + seconds + 3 * STEP  # each timer is looked at once per step
    while not done(era):
        era.step()
        assert era.now <= limit
