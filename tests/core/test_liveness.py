"""Pings, the round trip, and peers that have died."""

from __future__ import annotations

from math import inf

import pytest

from muxado.config import Config
from muxado.core import ANSWERED, ENDING
from muxado.errors import PeerTimeout, SessionClosed, UsageError
from tests import inside

from .pair import Pair
from .peer import PING, Bench, data, goaway, header, rst, wndinc

ANSWER = rst(1, 4)


def pinged(bench: Bench) -> int:
    """Return how many pings the session has to send now."""
    before = bench.pings
    bench.frames()
    return bench.pings - before


def quiet(config: Config | None = None, *, client: bool = True) -> Bench:
    """A session that has its first ping behind it, and its answer."""
    bench = Bench(config, client=client)
    bench.core.liveness.ping()
    assert pinged(bench) == 1
    bench.hear(ANSWER)
    bench.core.take_events()
    return bench


# Asking and answering


def test_a_peer_of_ours_answers_a_ping_without_its_application() -> None:
    pair = Pair()
    for session in (pair.client, pair.server):
        number = session.liveness.ping()
        assert inside.liveness(session).answered < number
        pair.run()
        assert inside.liveness(session).answered >= number
        assert session.take_events() & ANSWERED
    assert not inside.streams(pair.client)
    assert not inside.streams(pair.server)


def test_a_ping_is_an_empty_data_frame_on_stream_1_and_its_answer_a_reset() -> None:
    bench = Bench()
    bench.core.liveness.ping()
    assert inside.pending(bench.core)
    assert bench.flush() == PING == bytes.fromhex("0000001000000001")
    bench.hear(PING)
    assert bytes.fromhex("000004000000000100000004") == ANSWER
    assert bench.flush().startswith(ANSWER)


def test_the_round_trip_is_measured() -> None:
    bench = Bench(client=True)
    assert (bench.core.stats().rtt, bench.core.stats().min_rtt) == (0, 0)
    for round_trip, least in ((0.3, 0.3), (0.1, 0.1), (0.2, 0.1)):
        bench.core.liveness.ping()
        bench.flush()
        bench.now += round_trip
        bench.hear(ANSWER)
        stats = bench.core.stats()
        assert [stats.rtt, stats.min_rtt] == pytest.approx([round_trip, least])


def test_a_minimum_is_forgotten_after_a_while() -> None:
    bench = quiet(Config(ping_interval=None))
    bench.now += 1
    for round_trip in (0.1, *[0.5] * 7):
        bench.core.liveness.ping()
        bench.flush()
        bench.now += round_trip
        bench.hear(ANSWER)
        bench.now += 10
    assert bench.core.stats().min_rtt == pytest.approx(0.5)


def test_one_ping_is_in_flight_and_calls_that_ask_meanwhile_share_the_next() -> None:
    bench = quiet()
    core = bench.core
    first = [core.liveness.ping() for _ in range(3)]
    assert len(set(first)) == 1
    assert pinged(bench) == 1
    second = [core.liveness.ping() for _ in range(3)]
    assert len(set(second)) == 1
    assert second[0] > first[0]
    assert pinged(bench) == 0
    bench.hear(ANSWER)
    assert first[0] <= inside.liveness(core).answered < second[0]
    assert pinged(bench) == 1
    bench.hear(ANSWER)
    assert inside.liveness(core).answered >= second[0]
    assert pinged(bench) == 0


def test_the_first_ping_rides_along_with_the_first_traffic_only() -> None:
    bench = Bench(client=True)
    bench.core.open()
    assert not inside.pending(bench.core)
    assert bench.flush() == b""
    bench.core.open(eager=True)
    assert bench.flush() == data(5, syn=True) + PING
    bench.core.open(eager=True)
    assert bench.flush() == data(7, syn=True)


def test_the_first_traffic_of_the_peer_brings_a_ping_too() -> None:
    bench = Bench()
    bench.hear(data(3, b"hello", syn=True))
    assert bench.flush() == PING


@pytest.mark.parametrize(
    ("round_trip", "interval"), [(0.0, 0.01), (0.0001, 0.01), (0.001, 0.05), (0.1, 1.0)]
)
def test_while_data_comes_in_the_round_trip_is_measured_every_50_round_trips(
    round_trip: float, interval: float
) -> None:
    bench = quiet()
    bench.hear(data(2, syn=True))
    inside.liveness(bench.core).rtt = inside.liveness(bench.core).min_rtt = round_trip
    inside.liveness(bench.core).rebase(bench.now)
    pings = 0
    for _ in range(100):
        bench.now += interval / 10
        bench.hear(data(2, b"x"))
        sent = pinged(bench)
        pings += sent
        bench.now += round_trip * sent
        bench.hear(*[ANSWER] * sent)
    assert 8 <= pings <= 11


@pytest.mark.parametrize("count", [1, 3])
def test_an_answer_without_a_ping_is_ignored(count: int) -> None:
    bench = quiet()
    rtt, answered = inside.liveness(bench.core).rtt, inside.liveness(bench.core).answered
    bench.now += 0.5
    bench.hear(*[ANSWER] * count)
    assert (inside.liveness(bench.core).rtt, inside.liveness(bench.core).answered) == (
        rtt,
        answered,
    )
    assert not bench.core.take_events() & ANSWERED
    assert bench.said() == []
    assert bench.core.stats().resets_received == 0
    number = bench.core.liveness.ping()
    assert number > answered


def test_an_ended_session_pings_no_more() -> None:
    for end in (goaway(0, 0), wndinc(3, 0)):
        bench = quiet()
        bench.core.liveness.ping()
        bench.hear(end)
        bench.core.receive_eof(bench.now)
        assert pinged(bench) == 0
        with pytest.raises(ConnectionError):
            bench.core.liveness.ping()


def test_a_closing_session_pings_no_more() -> None:
    bench = Bench(client=True)
    bench.core.liveness.ping()
    bench.core.close(bench.now)
    raw = bench.flush()
    assert raw == header(8, 3, 0, 0) + bytes(8)
    bench.hear(data(2, b"x"))
    assert pinged(bench) == 0
    with pytest.raises(SessionClosed):
        bench.core.liveness.ping()


# Dead peers

CONFIG = Config(ping_interval=15.0, ping_timeout=20.0)


def test_a_silent_peer_is_asked_after_the_interval_and_given_up_after_the_timeout() -> None:
    bench = quiet(CONFIG)
    stream = bench.opened()
    assert bench.core.next_deadline() == bench.now + 15
    bench.pass_time(14.9)
    assert not inside.pending(bench.core)
    bench.pass_time(0.1)
    assert bench.flush() == PING
    assert bench.core.next_deadline() == bench.now + 20
    bench.pass_time(19.9)
    assert not stream.readable()
    bench.pass_time(0.1)
    reason = bench.core.reason
    assert reason is not None
    assert (reason.code, reason.by_peer, reason.clean) == (255, False, False)
    assert inside.torn_down(bench.core)
    assert bench.core.take_events() & ENDING
    assert bench.core.next_deadline() == inf
    for use in (lambda: stream.read(1), lambda: stream.write(b"x"), bench.core.accept):
        with pytest.raises(PeerTimeout) as caught:
            use()
        assert not isinstance(caught.value, TimeoutError)
        assert caught.value.reason is reason


@pytest.mark.parametrize("byte", [ANSWER, b"\x00", data(99, b"x"), header(0, 15, 0, 0)])
def test_any_byte_is_life(byte: bytes) -> None:
    bench = quiet(CONFIG)
    bench.pass_time(15)
    bench.flush()
    bench.pass_time(19.9)
    bench.hear(byte)
    bench.pass_time(14.9)
    assert bench.core.reason is None
    assert bench.core.next_deadline() == pytest.approx(bench.now + 0.1)


def test_two_idle_ends_keep_each_other_alive() -> None:
    pair = Pair(CONFIG)
    pair.advance(1000)
    for session in (pair.client, pair.server):
        assert session.reason is None
        assert inside.liveness(session).answered > 20


def test_a_ping_that_is_still_unanswered_does_not_put_off_the_end() -> None:
    bench = quiet(CONFIG)
    bench.core.liveness.ping()
    assert pinged(bench) == 1
    bench.pass_time(15)
    assert pinged(bench) == 0  # one is in flight already
    bench.pass_time(20)
    assert bench.core.reason is not None


@pytest.mark.parametrize("config", [Config(ping_interval=None), Config(ping_timeout=None)])
def test_without_interval_or_timeout_no_peer_is_given_up(config: Config) -> None:
    bench = quiet(config)
    assert bench.core.next_deadline() == inf
    bench.core.liveness.ping()
    assert pinged(bench) == 1


def test_when_our_own_loop_was_late_the_deadline_moves_by_as_much() -> None:
    for heard in (True, False):
        bench = quiet(CONFIG)
        bench.pass_time(15)
        bench.flush()
        bench.now += 20 + 7  # the process slept through the deadline
        bench.core.handle_timer(bench.now)
        assert bench.core.reason is None
        assert bench.core.next_deadline() == bench.now + 7
        if heard:
            bench.hear(ANSWER)
        bench.pass_time(7)
        assert (bench.core.reason is None) == heard


def test_a_long_sleep_moves_the_deadline_by_no_more_than_the_timeout() -> None:
    bench = quiet(CONFIG)
    bench.pass_time(15)
    bench.now += 100_000
    bench.core.handle_timer(bench.now)
    assert bench.core.next_deadline() == bench.now + 20
    bench.pass_time(20)
    assert bench.core.reason is not None


def test_a_timer_that_is_late_for_the_question_leaves_the_whole_timeout() -> None:
    bench = quiet(CONFIG)
    bench.now += 15 + 300
    bench.core.handle_timer(bench.now)
    assert pinged(bench) == 1
    assert bench.core.next_deadline() == bench.now + 20


def test_a_timer_that_is_early_does_nothing() -> None:
    bench = quiet(CONFIG)
    bench.core.handle_timer(bench.now + 14)
    assert not inside.pending(bench.core)
    bench.pass_time(15)
    bench.flush()
    bench.core.handle_timer(bench.now + 19)
    assert bench.core.reason is None


# Peers that use stream 1


def test_a_peer_with_a_stream_1_turns_pings_off() -> None:
    bench = Bench(CONFIG)
    waiting = bench.core.liveness.ping()
    assert pinged(bench) == 1
    stream = bench.accepted(data(1, b"hello", syn=True))
    assert bench.core.take_events() & ANSWERED  # calls that wait should look again
    assert not inside.liveness(bench.core).supported
    assert inside.liveness(bench.core).answered < waiting
    with pytest.raises(UsageError, match="stream 1"):
        bench.core.liveness.ping()
    bench.pass_time(1000)
    assert bench.core.reason is None  # it can't be asked, so it isn't given up
    assert bench.flush() == b""
    bench.hear(data(1, b" again", fin=True))
    assert (stream.read(100), stream.at_eof()) == (b"hello again", True)
    stream.write(b"answer")
    stream.finish()
    assert bench.flush() == data(1, b"answer", fin=True)
    assert not inside.streams(bench.core)


def test_a_ping_that_was_still_to_come_is_not_sent_into_a_real_stream() -> None:
    bench = Bench()
    stream = bench.accepted(data(1, syn=True))
    stream.write(b"x")
    assert bench.flush() == data(1, b"x")
