"""Flow control: what may be sent, what is granted, how windows grow and shrink, and probes."""

from __future__ import annotations

import random

import pytest

from muxado.config import Config
from muxado.core import CoreStream
from muxado.errors import StreamReset
from tests import inside
from tests.inside import FLOOR, LEAST_SHARE, CreditEstimator

from .pair import Pair, drain
from .peer import WINDOW, Bench, data, rst, wndinc

MIB = 1 << 20


def granted(bench: Bench) -> int:
    """Return how much credit the session hands out now."""
    return sum(frame.value for frame in bench.frames())


def fill(bench: Bench, stream_id: int, size: int, piece: int = 16384) -> None:
    """Have the peer send so many bytes in frames."""
    for start in range(0, size, piece):
        bench.hear(data(stream_id, bytes(min(piece, size - start))))


# What we may send


@pytest.mark.parametrize("window", [1, 1000, WINDOW, MIB])
def test_a_sender_stops_at_the_window_and_goes_on_with_what_it_is_granted(window: int) -> None:
    bench = Bench(Config(initial_window=window), client=True)
    stream = bench.core.open()
    stream.write(bytes(2 * MIB))
    assert sum(frame.length for frame in bench.frames()) == window
    assert (stream.send_credit, stream.queued()) == (0, 2 * MIB - window)
    assert bench.said() == []
    for grant in (1, 7, 100_000):
        bench.hear(wndinc(3, grant))
        assert sum(frame.length for frame in bench.frames()) == grant
    assert bench.core.stats().stalls == 4


def test_credit_is_counted_per_stream_and_for_a_type_too() -> None:
    bench = Bench(Config(initial_window=1000, typed=True), client=True)
    first, second = bench.core.open(type=1), bench.core.open(type=2)
    first.write(bytes(5000))
    second.write(bytes(996))
    assert bench.said() == ["DATA 3 1000 SYN", "DATA 5 1000 SYN"]
    assert (first.queued(), second.queued()) == (4004, 0)


def test_credit_that_comes_before_it_is_needed_counts() -> None:
    bench = Bench(client=True)
    stream = bench.opened()
    bench.hear(wndinc(3, MIB))
    stream.write(bytes(2 * MIB))
    assert sum(frame.length for frame in bench.frames()) == WINDOW + MIB


def test_a_fin_needs_no_credit_but_waits_for_the_data_before_it() -> None:
    bench = Bench(Config(initial_window=10), client=True)
    full, over = bench.core.open(), bench.core.open()
    full.write(bytes(10))
    over.write(bytes(11))
    for stream in (full, over):
        stream.finish()
    assert bench.said() == ["DATA 3 10 SYN", "DATA 5 10 SYN", "DATA 3 0 FIN"]
    bench.hear(wndinc(5, 100))
    assert bench.said() == ["DATA 5 1 FIN"]


# What we grant


def test_credit_is_granted_after_half_a_window_was_read() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, bytes(WINDOW), syn=True))
    assert bench.said() == []
    stream.read(WINDOW // 2 - 1)
    assert bench.said() == []
    stream.read(1)
    # Filled up to this stream's share, which is more than the first window.
    assert bench.said() == [f"WNDINC 3 {FLOOR - WINDOW // 2}"]
    assert stream.recv_credit + stream.unread() == FLOOR
    assert stream.window == FLOOR


def test_grants_are_joined_and_no_more_than_one_waits() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, bytes(WINDOW), syn=True))
    while stream.unread():
        stream.read(100)
    assert bench.said() == [f"WNDINC 3 {FLOOR}"]


def test_unread_data_is_not_granted_for() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, syn=True))
    fill(bench, 3, WINDOW)
    assert bench.said() == []
    bench.hear(data(5, bytes(WINDOW), syn=True))
    assert bench.said() == []
    assert stream.recv_credit == 0
    assert inside.unread(bench.core) == 2 * WINDOW


def test_many_small_frames_are_read_in_order_in_any_portions() -> None:
    rng = random.Random(3)
    bench = Bench()
    stream = bench.accepted(data(3, syn=True))
    sent = read = b""
    for _ in range(500):
        part = rng.randbytes(rng.choice([1, 10, 100, 2047, 2048, 5000]))
        bench.hear(data(3, part))
        sent += part
        read += stream.read(rng.choice([1, 50, 3000, 7000]))
        bench.flush()
    assert read + drain(stream) == sent
    assert inside.unread(bench.core) == 0


def test_nothing_is_granted_after_the_peers_fin_or_a_reset() -> None:
    for end in (data(3, fin=True), rst(3, 6)):
        bench = Bench()
        stream = bench.accepted(data(3, bytes(WINDOW), syn=True))
        bench.hear(end)
        assert len(stream.read(MIB)) == WINDOW
        assert bench.said() == []


def test_a_window_never_passes_what_was_granted_even_in_the_middle_of_a_frame() -> None:
    rng = random.Random(7)
    bench = Bench(Config(max_window=WINDOW))
    stream = bench.accepted(data(3, syn=True))
    credit, sent, read = WINDOW, 0, 0
    waiting = b""
    while sent < 20 * MIB:
        if not waiting and credit:
            size = rng.choice([credit, credit, rng.randint(1, credit)])
            waiting = data(3, bytes(size))
            credit -= size
            sent += size
        count = rng.randint(1, 100_000)
        bench.hear(waiting[:count])
        waiting = waiting[count:]
        read += len(stream.read(rng.randint(1, 150_000)))
        credit += granted(bench)
        assert sent + credit - read <= WINDOW
    assert bench.core.reason is None


def test_a_reader_that_waits_always_leaves_the_peer_credit() -> None:
    for window in (1, 2, 3, 1000, WINDOW):
        pair = Pair(Config(initial_window=window, max_window=window))
        near, far = pair.open_pair()
        near.write(bytes(20 * window))
        read = 0
        while read < 20 * window:
            pair.run()
            before = read
            read += len(drain(far))
            assert read > before


def test_max_window_is_a_ceiling() -> None:
    bench = Bench(Config(max_window=WINDOW // 4))
    stream = bench.accepted(data(3, bytes(WINDOW), syn=True))
    stream.read(WINDOW - 100)
    assert bench.said() == [f"WNDINC 3 {WINDOW // 4 - 100}"]


# Readers that want more at once than the window lets in


def test_a_claim_lets_in_what_the_reader_waits_for() -> None:
    pair = Pair()
    near, far = pair.open_pair()
    near.write(bytes(3 * MIB))
    near.finish()
    pair.run()
    for _ in range(100):
        far.claim(3 * MIB)
        pair.run()
    assert far.unread() == 3 * MIB
    assert inside.unread(pair.server) == 0  # it is the reader's
    assert len(far.read(3 * MIB)) == 3 * MIB
    assert inside.unread(pair.server) == 0


def test_a_claim_that_is_given_up_loses_nothing_and_pays_only_once() -> None:
    bench = Bench(Config(max_window=WINDOW))
    stream = bench.accepted(data(3, b"head" + bytes(WINDOW - 4), syn=True))
    stream.claim(200_000)
    stream.claim(200_000)
    assert inside.unread(bench.core) == WINDOW - 200_000
    assert granted(bench) == 200_000
    assert stream.read(4) == b"head"
    assert len(stream.read(199_996)) == 199_996
    assert granted(bench) == 0  # was paid for
    assert inside.unread(bench.core) == WINDOW - 200_000
    assert len(stream.read(MIB)) == WINDOW - 200_000
    assert (inside.unread(bench.core), stream.claimed) == (0, 0)


def test_a_claim_is_for_what_has_come_and_no_more() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, bytes(100), syn=True))
    stream.claim(10 * MIB)
    assert (stream.claimed, inside.unread(bench.core)) == (100, 0)
    stream.reset(6)
    assert inside.unread(bench.core) == 0


# The session's memory


def test_max_receive_memory_resets_only_the_greedy_stream() -> None:
    bench = Bench(Config(max_receive_memory=WINDOW))
    modest = bench.accepted(data(3, bytes(1000), syn=True))
    greedy = bench.accepted(data(5, syn=True))
    fill(bench, 5, WINDOW - 1000, 1000)
    assert bench.said() == []
    bench.hear(data(5, b"x"))
    assert bench.said() == ["RST 5 10"]
    assert modest.read(2000) == bytes(1000)
    assert len(greedy.read(MIB)) == WINDOW - 1000
    with pytest.raises(StreamReset) as caught:
        greedy.read(1)
    assert (caught.value.code, caught.value.by_peer) == (10, False)
    assert inside.unread(bench.core) == 0
    bench.hear(data(5, b"late"))
    bench.check_echo(modest)


# Windows that shrink


def test_a_pause_says_nothing_and_a_slower_rate_shrinks_the_target() -> None:
    estimator = CreditEstimator(16 * MIB, 128 * MIB, 0.0)
    now = 0.0
    read = 0

    def take(count: int, seconds: float) -> None:
        nonlocal now, read
        now += seconds
        read += count
        estimator.tick(now, 0.1, read)

    for _ in range(20):
        take(MIB, 0.11)
    grown = estimator.target
    assert grown == pytest.approx(2 * MIB / 1.1, rel=0.01)
    for _ in range(20):
        take(1000, 1.0)
        assert estimator.target == grown
    for _ in range(20):
        take(1000, 0.11)
    assert estimator.target == FLOOR


def test_a_window_shrinks_by_grants_that_are_smaller_than_what_was_read() -> None:
    bench = Bench()
    streams = [bench.accepted(data(i, bytes(WINDOW), syn=True)) for i in range(3, 19, 2)]
    for stream in streams:
        stream.read(WINDOW // 2)  # now all eight count
    bench.flush()
    stream = streams[-1]
    before = stream.recv_credit + stream.unread()
    stream.read(MIB)
    fill(bench, stream.stream_id, stream.recv_credit)
    stream.read(MIB)
    grant = granted(bench)
    assert 0 < grant < before
    assert stream.recv_credit == stream.window == LEAST_SHARE


# Senders that wait for credit after the peer's FIN


def probes(bench: Bench, seconds: float) -> list[float]:
    """Let time pass; return when the session asked after its stream, in seconds from now."""
    start = bench.now
    times = []
    while (due := bench.core.next_deadline()) <= start + seconds:
        bench.now = max(bench.now, due)
        bench.core.handle_timer(bench.now)
        times += [round(bench.now - start, 6) for line in bench.said() if line == "DATA 3 0"]
    bench.now = start + seconds
    return times


def stalled(*, fin_first: bool) -> tuple[Bench, CoreStream]:
    bench = Bench(Config(ping_interval=15.0, ping_timeout=None), client=True)
    stream = bench.opened()
    if fin_first:
        bench.hear(data(3, fin=True))
        stream.write(bytes(WINDOW + 1))
        assert bench.said()[-1] == "DATA 3 0"
    else:
        stream.write(bytes(WINDOW + 1))
        bench.said()
        assert bench.said() == []
        bench.hear(data(3, fin=True))
        assert bench.said() == ["DATA 3 0"]
    return bench, stream


@pytest.mark.parametrize("fin_first", [True, False])
def test_a_stalled_sender_asks_at_0_50_250_ms_1_s_and_every_ping_interval(
    fin_first: bool,
) -> None:
    bench, _ = stalled(fin_first=fin_first)
    assert probes(bench, 50) == [0.05, 0.25, 1.0, 16.0, 31.0, 46.0]


def test_every_further_fin_makes_a_stalled_sender_ask_at_once() -> None:
    bench, _ = stalled(fin_first=True)
    for _ in range(3):
        bench.hear(data(3, fin=True), data(3, fin=True))
        assert bench.said() == ["DATA 3 0"]
    assert probes(bench, 0.3) == [0.05, 0.25]


def test_without_a_fin_a_stalled_sender_just_waits() -> None:
    bench = Bench(Config(ping_timeout=None), client=True)
    stream = bench.opened()
    stream.write(bytes(WINDOW + 1))
    bench.said()
    assert probes(bench, 100) == []


def test_credit_ends_the_asking_and_the_next_stall_begins_anew() -> None:
    bench, stream = stalled(fin_first=True)
    assert probes(bench, 0.1) == [0.05]
    bench.hear(wndinc(3, 1000))
    bench.said()
    assert probes(bench, 100) == []
    stream.write(bytes(1000))
    assert bench.said() == ["DATA 3 999", "DATA 3 0"]
    assert probes(bench, 2) == [0.05, 0.25, 1.0]


@pytest.mark.parametrize("end", ["peer", "local", "session"])
def test_the_end_of_the_stream_ends_the_asking(end: str) -> None:
    bench, stream = stalled(fin_first=True)
    if end == "peer":
        bench.hear(rst(3, 4))  # the answer of a peer that has forgotten the stream
    elif end == "local":
        stream.reset(6)
    else:
        bench.core.connection_lost(OSError("gone"), bench.now)
    bench.flush()
    assert probes(bench, 100) == []
    assert stream.finished()


def test_a_closing_session_asks_after_a_stalled_sender_too() -> None:
    bench, stream = stalled(fin_first=True)
    bench.core.close(bench.now)
    assert bench.said() == ["GOAWAY 0 0"]
    assert probes(bench, 2) == [0.05, 0.25, 1.0]
    bench.hear(rst(3, 4))
    assert stream.finished()
    assert inside.output_done(bench.core)


def test_a_peer_of_ours_that_closed_the_stream_answers_the_question() -> None:
    pair = Pair()
    near, far = pair.open_pair()
    far.close()
    pair.run()
    near.write(bytes(2 * WINDOW))
    pair.run()
    with pytest.raises(StreamReset) as caught:
        near.write(b"x")
    assert (caught.value.code, caught.value.by_peer) == (4, True)
    assert (near.at_eof(), near.queued()) == (True, 0)
