"""Memory and work are bounded, whatever the peer or the application does."""

from __future__ import annotations

import tracemalloc
from math import inf

import pytest

from muxado.config import Config
from muxado.core import CoreSession, CoreStream
from muxado.errors import SessionError, StreamReset
from muxado.wire.codec import FIRST_READ_SIZE, IDLE_READ_SIZE, READ_SIZE
from tests import inside
from tests.inside import CHURN_LEAST, FAIR_DATA, LONG_DATA, MAX_ANSWERS

from .pair import Pair
from .peer import PING, WINDOW, Bench, data, goaway, rst, wndinc
from .roles import LAST_ID, RoleBench

MIB = 1 << 20


@pytest.fixture(params=[False, True], ids=["server", "client"])
def client(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def code_of(core: CoreSession) -> int | None:
    """Return the code that the session has ended with, None while it lives."""
    return None if core.reason is None else core.reason.code


# Resets by the application


def opened_and_reset(bench: Bench, count: int, start: int = 0) -> None:
    """Have the peer open streams, and the application reset each one at once."""
    for number in range(start, start + count):
        bench.hear(data(3 + 2 * number, b"x", syn=True))
        stream = bench.core.accept()
        if stream is not None:
            stream.reset(7)


def test_resets_by_the_application_end_the_session_of_a_peer_that_reads_nothing(
    client: bool,
) -> None:
    bench = RoleBench(Config(max_incoming_streams=100), client=client)
    opened_and_reset(bench, MAX_ANSWERS + 100)
    assert bench.core.accept() is None
    assert code_of(bench.core) is None
    opened_and_reset(bench, 1, MAX_ANSWERS + 100)
    assert bench.core.accept() is None  # it has done all it could, and no RST has left
    assert code_of(bench.core) == 10
    assert inside.torn_down(bench.core)
    assert not inside.pending_resets(bench.core)
    assert bench.said()[-1].endswith(" 10")


def test_they_end_it_also_if_the_application_never_looks_at_the_queue(client: bool) -> None:
    bench = RoleBench(Config(max_incoming_streams=100), client=client)
    core = bench.core
    number = 0
    while core.reason is None and number < 200_000:
        number += 1
        bench.take(data(3 + 2 * number, b"x", syn=True))
        if inside.accept_queue(core):  # as a front end's `serve` does
            stream = core.accept()
            assert stream is not None
            stream.reset(7)
        assert len(inside.pending_resets(core)) <= MAX_ANSWERS + 101
    assert code_of(core) == 10


def test_resets_by_the_application_go_on_for_a_peer_that_reads(client: bool) -> None:
    bench = RoleBench(Config(max_incoming_streams=100), client=client)
    for turn in range(20):
        opened_and_reset(bench, 1000, 1000 * turn)
        assert len(bench.said()) == 1000
    assert code_of(bench.core) is None


def test_all_streams_may_be_reset_in_one_step(client: bool) -> None:
    bench = RoleBench(client=client)
    streams = [bench.accepted(data(3 + 2 * n, syn=True)) for n in range(10_000)]
    for stream in streams:
        stream.reset(7)
    assert bench.core.accept() is None
    bench.hear(data(100_001, syn=True))
    assert bench.core.accept() is not None
    assert len(bench.said()) == 10_000


# What one call gives to send


def taken(bench: Bench, limit: int) -> list[int]:
    """Take all that there is to send; return the sizes of the pieces."""
    sizes = []
    while piece := bench.core.data_to_send(bench.now, limit):
        sizes.append(len(piece))
    return sizes


@pytest.mark.parametrize("limit", [1, 100, 16 * 1024, 64 * 1024])
def test_resets_leave_in_pieces_of_the_limit(limit: int) -> None:
    bench = Bench()
    streams = [bench.accepted(data(3 + 2 * n, syn=True)) for n in range(8000)]
    for stream in streams:
        stream.reset(7)
    sizes = taken(bench, limit)
    assert max(sizes) <= limit + 12 + len(PING)
    assert sum(sizes) == 8000 * 12 + len(PING)


def test_resets_in_pieces_are_the_same_ones_in_order() -> None:
    bench = Bench()
    streams = [bench.accepted(data(3 + 2 * n, syn=True)) for n in range(100)]
    for stream in streams:
        stream.reset(7)
    out = b""
    while piece := bench.core.data_to_send(bench.now, 40):
        out += piece
    wire = b"".join(rst(stream.stream_id, 7) for stream in streams)
    assert out.replace(PING, b"") == wire


def test_credit_leaves_in_pieces_of_the_limit() -> None:
    bench = Bench(Config(initial_window=100))
    streams = [bench.accepted(data(3 + 2 * n, bytes(100), syn=True)) for n in range(8000)]
    for stream in streams:
        stream.read(100)
    sizes = taken(bench, 1000)
    assert max(sizes) <= 1000 + 12 + len(PING)
    assert sum(sizes) == 8000 * 12 + len(PING)
    assert not any(stream.granting for stream in streams)


def test_questions_after_stalled_streams_leave_in_pieces_of_the_limit() -> None:
    bench = Bench(Config(initial_window=1))
    for number in range(3000):
        bench.accepted(data(3 + 2 * number, syn=True)).write(b"xx")
    bench.flush()
    bench.hear(*[data(3 + 2 * number, fin=True) for number in range(3000)])
    assert max(taken(bench, 1200)) <= 1200 + 12
    assert not inside.pending(bench.core)


def test_data_passes_the_limit_by_one_frame_at_most() -> None:
    bench = Bench(Config(initial_window=MIB))
    for number in range(5):
        bench.accepted(data(3 + 2 * number, syn=True)).write(bytes(MIB // 2))
    assert max(taken(bench, 1)) <= 8 + FAIR_DATA + LONG_DATA  # one frame, and what ends in it


# Memory for what has come


@pytest.mark.parametrize("claims", [True, False])
def test_what_readers_have_claimed_counts(client: bool, claims: bool) -> None:
    bench = RoleBench(Config(max_receive_memory=MIB), client=client)
    streams = [bench.accepted(data(3 + 2 * n, syn=True)) for n in range(50)]
    for number, stream in enumerate(streams):
        bench.hear(data(3 + 2 * number, bytes(65_530)))
        if claims:
            stream.claim(1 << 30)
    assert bench.core.stats().memory_held == MIB // 65_530 * 65_530
    assert sum(stream.reset_code == 10 for stream in streams) == 50 - MIB // 65_530


def test_one_claim_of_more_than_the_memory_resets_its_stream_only(client: bool) -> None:
    bench = RoleBench(Config(max_receive_memory=MIB), client=client)
    other = bench.accepted(data(5, syn=True))
    stream = bench.accepted(data(3, syn=True))
    while stream.reset_code < 0:
        stream.claim(10 * MIB)
        bench.flush()
        bench.hear(data(3, bytes(min(stream.recv_credit, 60_000))))
        assert bench.core.stats().memory_held <= MIB
    assert stream.reset_code == 10
    assert len(stream.read(2 * MIB)) > MIB - 60_000
    with pytest.raises(StreamReset):
        stream.read(1)
    bench.check_echo(other)


def test_unread_bytes_hold_about_themselves() -> None:
    bench = Bench(Config(max_receive_memory=MIB))
    tracemalloc.start()
    try:
        for number in range(100):
            stream = bench.accepted(data(3 + 2 * number, bytes(60_000), syn=True))
            bench.hear(data(3 + 2 * number, bytes(60_000)))
            while stream.unread() > 1:
                stream.read(stream.unread() - 1)
            bench.flush()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert bench.core.stats().memory_held == 100
    assert held < MIB  # streams, the buffer that frames come in, and 100 bytes


# Streams that the peer resets


def violated(bench: Bench, number: int) -> None:
    bench.hear(data(number, bytes(WINDOW + 1)))


def reset_by_peer(bench: Bench, number: int) -> None:
    bench.hear(rst(number, 6))


@pytest.mark.parametrize("end", [reset_by_peer, violated])
@pytest.mark.parametrize("release", ["close", "reset"])
def test_a_stream_that_was_reset_counts_until_the_application_is_done(
    client: bool, release: str, end: object
) -> None:
    assert callable(end)
    bench = RoleBench(Config(max_incoming_streams=2), client=client)
    streams = []
    for number in (3, 5):
        streams.append(bench.accepted(data(number, syn=True)))
        end(bench, number)
    bench.flush()
    assert bench.core.stats().streams == 0
    bench.hear(data(7, syn=True))
    assert bench.said() == ["RST 7 5"]
    for stream in streams:
        assert stream.holds_something()
        if release == "close":
            stream.close()
        else:
            stream.reset(7)
        assert not stream.holds_something()
        stream.close()
        stream.reset(7)  # it is given back once only
    assert bench.said() == []
    assert inside.incoming(bench.core) == 0
    for number in (9, 11):
        bench.accepted(data(number, syn=True))
    bench.hear(data(13, syn=True))
    assert bench.said() == ["RST 13 5"]


def test_a_stream_reset_before_it_was_accepted_or_after_its_close_counts_no_more(
    client: bool,
) -> None:
    bench = RoleBench(Config(max_incoming_streams=1), client=client)
    bench.hear(data(3, syn=True), rst(3, 6))
    assert inside.incoming(bench.core) == 0
    stream = bench.accepted(data(5, syn=True))
    stream.write(bytes(WINDOW + 1))  # so that its FIN can't leave
    stream.close()
    bench.flush()
    assert inside.incoming(bench.core) == 1
    bench.hear(rst(5, 6))
    assert inside.incoming(bench.core) == 0
    stream = bench.accepted(data(7, syn=True))
    stream.reset(7)
    assert inside.incoming(bench.core) == 0
    ours = bench.opened()
    bench.hear(rst(bench.id_of(ours), 6))
    assert not ours.holds_something()
    ours.close()
    assert inside.incoming(bench.core) == 0


def test_an_ended_session_counts_nothing(client: bool) -> None:
    bench = RoleBench(client=client)
    stream = bench.accepted(data(3, syn=True))
    bench.hear(rst(3, 6))
    bench.core.connection_lost(None, bench.now)
    assert inside.incoming(bench.core) == 0
    stream.close()
    assert inside.incoming(bench.core) == 0


# Churn


def test_requests_given_up_while_they_wait_end_no_session(client: bool) -> None:
    bench = RoleBench(Config(max_incoming_streams=100), client=client)
    for turn in range(100):  # 10,000 in no time at all, but none before a turn of the application
        ids = range(3 + 200 * turn, 203 + 200 * turn, 2)
        bench.hear(*[data(number, b"x", syn=True) for number in ids])
        bench.hear(*[rst(number, 6) for number in ids])
    assert code_of(bench.core) is None
    assert not inside.streams(bench.core)
    assert not inside.accept_queue(bench.core)


def test_streams_reset_before_their_type_has_come_are_counted(client: bool) -> None:
    bench = RoleBench(Config(typed=True, max_incoming_streams=100), client=client)
    for number in range(CHURN_LEAST):
        bench.hear(data(3 + 2 * number, b"\0", syn=True))
        bench.hear(rst(3 + 2 * number, 6))
    assert code_of(bench.core) is None
    bench.hear(data(3, b"\0", syn=True), rst(3, 6))
    assert code_of(bench.core) == 10


# The receive buffer


def buffer_size(core: CoreSession) -> int:
    return len(core.receive_buffer())


def grown(config: Config) -> Pair:
    """Return a pair whose server has had a transfer, and so has a large receive buffer."""
    pair = Pair(config, limit=256 * 1024)
    near, far = pair.open_pair()
    near.write(bytes(2 * MIB))
    while near.queued():
        pair.run()
        far.read(MIB)
    pair.run()
    far.read(MIB)
    near.close()
    far.close()
    pair.run()
    assert buffer_size(pair.server) > FIRST_READ_SIZE
    return pair


@pytest.mark.parametrize(
    ("ping_interval", "seconds"), [(0.5, 1.0), (15.0, 30.0), (86_400.0, 15.0), (None, 15.0)]
)
def test_an_idle_session_gives_its_large_receive_buffer_back(
    ping_interval: float | None, seconds: float
) -> None:
    pair = grown(Config(ping_interval=ping_interval))
    pair.advance(seconds)
    assert buffer_size(pair.server) == IDLE_READ_SIZE
    assert buffer_size(pair.client) == IDLE_READ_SIZE


def test_a_session_whose_peer_pings_gives_it_back_too() -> None:
    pair = Pair(Config(ping_interval=5.0), Config(ping_interval=15.0))
    inside.decoder(pair.server).make_room(READ_SIZE)
    pair.advance(60)  # the server is never silent for long enough to ask itself
    assert pair.server.stats().frames_received > 10
    assert buffer_size(pair.server) == IDLE_READ_SIZE


def test_a_session_that_is_not_watched_wakes_once_for_it() -> None:
    pair = grown(Config(ping_interval=None))
    pair.server.handle_timer(pair.server.next_deadline())
    assert pair.server.next_deadline() == inf


def test_a_busy_session_keeps_it() -> None:
    pair = grown(Config(ping_interval=5.0))
    near, far = pair.open_pair()
    for _ in range(40):
        near.write(bytes(100_000))
        pair.run()
        far.read(MIB)
        pair.advance(1)
    assert buffer_size(pair.server) > FIRST_READ_SIZE


def test_an_idle_session_gives_its_first_buffer_back_and_takes_a_burst_then() -> None:
    pair = Pair(Config(ping_interval=15.0))
    near, far = pair.open_pair()
    pair.advance(31)
    assert buffer_size(pair.server) == IDLE_READ_SIZE
    for size in (100, IDLE_READ_SIZE - 12, 3000):  # less than fits, all that fits, and more
        near.write(bytes(size))
        near.write(b"behind it")
        pair.run()
        assert far.read(MIB) == bytes(size) + b"behind it"
    assert buffer_size(pair.server) == FIRST_READ_SIZE


@pytest.mark.parametrize("rest", [1, 9, 5000])
def test_what_waits_in_a_buffer_that_shrinks_is_kept(rest: int) -> None:
    bench = Bench()
    inside.decoder(bench.core).make_room(READ_SIZE)
    wire = data(3, b"spam", syn=True) + data(5, bytes(10_000), syn=True)
    cut = len(wire) - rest
    bench.hear(wire[:cut])
    bench.pass_time(15)
    bench.hear(wire[cut:])
    streams = [bench.core.accept(), bench.core.accept()]
    assert [stream.unread() for stream in streams if stream] == [4, 10_000]


def test_an_ended_session_holds_no_buffers() -> None:
    pair = grown(Config())
    pair.server.connection_lost(None, pair.now)
    assert len(inside.decoder(pair.server)._input) == 0
    assert pair.server.receive_buffer()  # never empty: a front end may look once more


def test_what_an_ended_session_brought_can_still_be_read() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, b"last words", syn=True))
    bench.hear(data(5, b"unseen", syn=True))
    bench.core.connection_lost(OSError("gone"), bench.now)
    unseen = bench.core.accept()
    assert unseen is not None
    assert (stream.read(100), unseen.read(100)) == (b"last words", b"unseen")
    with pytest.raises(SessionError):
        bench.core.accept()


# Stalled streams


def test_many_stalled_streams_wake_an_idle_session_seldom() -> None:
    bench = Bench(Config(initial_window=1, max_incoming_streams=3000), client=False)
    streams: list[CoreStream] = []
    for number in range(3000):
        streams.append(bench.accepted(data(3 + 2 * number, syn=True)))
        streams[-1].write(b"xx")
    bench.flush()
    for stream in streams:  # each stalls at another moment
        bench.hear(data(stream.stream_id, fin=True))
        bench.pass_time(0.005)
        bench.flush()
    bench.pass_time(2)
    bench.flush()
    wakes = 0
    asked: dict[int, int] = {}
    start = bench.now
    while bench.core.next_deadline() <= start + 60:
        bench.now = bench.core.next_deadline()
        bench.core.handle_timer(bench.now)
        bench.hear(PING)  # the peer lives
        wakes += 1
        for frame in bench.frames():
            if not frame.length and frame.stream_id != 1:
                asked[frame.stream_id] = asked.get(frame.stream_id, 0) + 1
    assert wakes < 100
    assert len(asked) == 3000
    assert set(asked.values()) <= {3, 4}


def test_times_of_streams_that_stall_no_more_are_not_kept() -> None:
    bench = Bench(Config(initial_window=1))
    stream = bench.accepted(data(3, syn=True))
    stream.write(bytes(10_000))
    bench.flush()
    bench.hear(data(3, fin=True))
    for _ in range(5000):
        bench.flush()
        bench.hear(wndinc(3, 1))  # it goes on, and stalls again
    assert len(inside.probe_times(bench.core)) < 200


# Counters


def test_pings_count_as_no_resets(client: bool) -> None:
    bench = RoleBench(client=client)
    for _ in range(10):
        bench.hear(PING)
        assert bench.said() == ["RST 1 4"]
    for _ in range(10):
        bench.core.liveness.ping()
        bench.flush()
        bench.hear(rst(1, 4))
    stats = bench.core.stats()
    assert (stats.resets_sent, stats.resets_received) == (0, 0)


def test_resets_are_counted_where_they_are_sent_and_received(client: bool) -> None:
    bench = RoleBench(client=client)
    bench.accepted(data(3, syn=True)).reset(7)
    bench.hear(data(5, b"of no stream"))
    bench.hear(data(7, bytes(10), syn=True))
    bench.hear(data(7, bytes(WINDOW)))  # more than it may
    assert bench.core.stats().resets_sent == 3
    bench.hear(data(9, syn=True), rst(9, 6), rst(9, 6), rst(11, 6))
    stats = bench.core.stats()
    assert (stats.resets_sent, stats.resets_received) == (3, 1)


def test_every_frame_that_comes_is_counted(client: bool) -> None:
    bench = RoleBench(client=client)
    bench.hear(data(3, b"x", syn=True), data(3), wndinc(3, 1), rst(3, 6), data(9, b"x"), PING)
    assert bench.core.stats().frames_received == 6
    bench.hear(goaway(0, 0))
    assert bench.core.stats().frames_received == 7


# Out of place


def test_credit_for_an_id_beyond_the_last_ends_the_session(client: bool) -> None:
    bench = Bench(client=client)
    bench.hear(wndinc(LAST_ID, 1))
    assert code_of(bench.core) is None
    bench.hear(wndinc(LAST_ID + 1, 1))
    assert code_of(bench.core) == 1
    assert bench.said() == ["GOAWAY 0 1"]


def test_a_closing_session_resets_its_own_streams_no_more(client: bool) -> None:
    bench = RoleBench(client=client)
    stream = bench.accepted(data(3, syn=True))
    stream.write(bytes(WINDOW + 1))
    bench.core.close(bench.now)
    bench.said()
    stream.reset(7)
    assert bench.said() == []
    assert bench.core.stats().resets_sent == 0
