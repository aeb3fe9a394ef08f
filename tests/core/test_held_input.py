"""Input that is held back while the application has its turn, and how that ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muxado.config import Config
from muxado.core import CoreSession, CoreStream
from muxado.wire.codec import DATA
from tests import inside
from tests.inside import BATCH_SIZE, MAX_ANSWERS

from .peer import Bench, data, goaway

MANY = 4 * BATCH_SIZE


def waiting_readers(bench: Bench, count: int = MANY) -> list[CoreStream]:
    """Open streams that all have a reader who waits."""
    streams = [bench.core.open(eager=True) for _ in range(count)]
    bench.flush()
    for stream in streams:
        stream.read_waiter = stream
    return streams


def replies(streams: list[CoreStream], size: int = 5) -> bytes:
    return b"".join(data(stream.stream_id, bytes(size), fin=True) for stream in streams)


def test_a_turn_wakes_no_more_readers_than_can_answer_in_one() -> None:
    bench = Bench(client=True)
    streams = waiting_readers(bench)
    bench.core.receive_data(replies(streams), bench.now)
    woken = 0
    while bench.core.paused:
        wakes = bench.core.take_wakes()
        assert len(wakes) == BATCH_SIZE
        woken += len(wakes)
        bench.core.resume(bench.now)
    woken += len(bench.core.take_wakes())
    assert woken == MANY


def lose(core: CoreSession, now: float) -> None:
    core.connection_lost(ConnectionResetError("gone"), now)


@pytest.mark.parametrize("end", [CoreSession.receive_eof, lose])
@pytest.mark.parametrize("taken", [True, False])
def test_the_end_is_taken_in_while_readers_wait_to_be_woken(
    end: Callable[[CoreSession, float], None], taken: bool
) -> None:
    bench = Bench(client=True)
    streams = waiting_readers(bench)
    bench.core.receive_data(replies(streams) + goaway(0, 0), bench.now)
    assert bench.core.paused
    if taken:
        bench.core.take_wakes()
    end(bench.core, bench.now)
    assert [len(stream.read(100)) for stream in streams] == [5] * MANY
    assert all(stream.at_eof() for stream in streams)


def test_a_long_piece_is_taken_in_while_readers_wait_to_be_woken() -> None:
    bench = Bench(client=True)
    streams = waiting_readers(bench)
    bench.core.receive_data(replies(streams, 10_000), bench.now)
    bench.core.receive_eof(bench.now)
    assert [len(stream.read(20_000)) for stream in streams] == [10_000] * MANY


@pytest.mark.parametrize("backlog", [1, 100, 1024])
def test_a_burst_beyond_the_backlog_is_accepted_turn_by_turn(backlog: int) -> None:
    bench = Bench(Config(accept_backlog=backlog))
    core = bench.core
    burst = b"".join(data(i, b"request", syn=True) for i in range(3, 6003, 2))
    accepted = 0
    while burst or core.paused:
        core.receive_data(burst[:10_000], bench.now)
        burst = burst[10_000:]
        while core.accept() is not None:
            accepted += 1
        core.resume(bench.now)
        while core.accept() is not None:
            accepted += 1
    assert accepted == 3000
    assert bench.said() == []


def test_a_closing_session_loses_nothing_to_a_peer_that_goes_on_opening_streams() -> None:
    bench = Bench(client=True)
    stream = bench.opened()
    stream.write(bytes(200_000))
    bench.core.close(bench.now)
    for number in range(2, 4 * MAX_ANSWERS, 2):
        bench.core.receive_data(data(number, bytes(100), syn=True), bench.now)
        bench.core.receive_data(data(number + 100_000, b"unknown"), bench.now)
    assert len(inside.pending_resets(bench.core)) <= MAX_ANSWERS
    assert not bench.core.paused
    sent = sum(frame.length for frame in bench.frames() if frame.kind == DATA)
    assert sent == 200_000
    assert not inside.torn_down(bench.core)
