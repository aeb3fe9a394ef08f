"""How a session ends: what goes on the wire, and what each call is told."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from muxado.config import Config
from muxado.core import (
    ACCEPTABLE,
    CLOSING,
    DRAINED,
    DRAINING,
    ENDED,
    ENDING,
    GOAWAY,
    OPEN,
    RUNNING,
    CoreStream,
)
from muxado.errors import (
    CloseReason,
    MuxadoError,
    PeerGone,
    ProtocolError,
    SessionAborted,
    SessionClosed,
    SessionError,
    StreamReset,
    UsageError,
)
from tests import inside

from .pair import Pair, drain
from .peer import PAD, WINDOW, Bench, data, goaway, header, rst, wndinc
from .roles import RoleBench


def server() -> tuple[Bench, CoreStream]:
    """A server with one open stream of the client."""
    bench = Bench()
    stream = bench.accepted(data(3, syn=True))
    bench.flush()
    bench.core.take_events()
    return bench, stream


def reason_of(bench: Bench) -> CloseReason:
    reason = bench.core.reason
    assert reason is not None
    return reason


# go_away


def test_go_away_says_so_and_everything_but_new_streams_goes_on() -> None:
    bench, stream = server()
    bench.core.go_away(7, b"busy")
    assert bench.flush() == goaway(3, 7, b"busy") + PAD
    assert (bench.core.ledger.state, bench.core.reason) == (RUNNING, None)
    bench.hear(data(5, b"payload", syn=True))
    assert bench.said() == ["RST 5 5"]
    ours = bench.core.open()
    ours.write(b"still allowed")
    assert bench.said() == ["DATA 2 13 SYN"]
    bench.check_echo(stream)


def test_go_away_is_said_once() -> None:
    bench, _ = server()
    bench.core.go_away()
    bench.core.go_away(3)
    assert bench.said() == ["GOAWAY 3 0"]
    bench.core.go_away()
    bench.core.shut_down()
    assert bench.said() == []


def test_the_last_id_is_the_highest_accepted_queued_ones_too() -> None:
    bench = Bench()
    bench.hear(*[data(stream_id, syn=True) for stream_id in (5, 9, 3)])
    bench.core.go_away()
    bench.hear(data(99, syn=True))
    assert bench.said() == ["GOAWAY 9 0", "RST 99 5"]
    assert len(inside.accept_queue(bench.core)) == 3


@pytest.mark.parametrize("code", [-1, 1 << 32])
def test_a_code_has_32_bits(code: int) -> None:
    bench, stream = server()
    with pytest.raises(UsageError):
        bench.core.go_away(code)
    with pytest.raises(UsageError):
        bench.core.abort(code, bench.now)
    assert not inside.pending(bench.core)
    assert stream.state == OPEN
    bench.core.go_away(0xFFFFFFFF)
    assert bench.said() == ["GOAWAY 3 4294967295"]


# shut_down


def test_shut_down_opens_nothing_and_lets_streams_run_to_their_end() -> None:
    bench, stream = server()
    bench.hear(data(5, b"queued", syn=True))
    bench.core.shut_down()
    assert bench.flush() == goaway(5) + PAD
    assert bench.core.ledger.state == DRAINING
    with pytest.raises(SessionClosed):
        bench.core.open()
    bench.hear(data(7, syn=True))
    assert bench.said() == ["RST 7 5"]
    queued = bench.core.accept()
    assert queued is not None
    assert queued.read(100) == b"queued"
    assert bench.core.accept() is None
    bench.check_echo(stream)
    stream.close()
    bench.flush()
    assert not bench.core.take_events() & DRAINED
    bench.hear(rst(5, 6))
    assert bench.core.take_events() & DRAINED
    assert (bench.core.ledger.state, bench.core.reason) == (DRAINING, None)


def test_shut_down_without_streams_is_drained_at_once() -> None:
    bench = Bench()
    bench.core.shut_down()
    assert bench.core.take_events() == DRAINED | GOAWAY
    bench.core.shut_down()
    assert bench.core.take_events() == 0


def test_shut_down_counts_a_stream_done_when_both_halves_are() -> None:
    bench, stream = server()
    bench.core.shut_down()
    stream.finish()
    bench.flush()
    assert not bench.core.take_events() & DRAINED
    bench.hear(data(3, b"rest", fin=True))
    assert bench.core.take_events() & DRAINED
    assert (drain(stream), stream.at_eof()) == (b"rest", True)


def test_after_shut_down_close_ends_without_another_goaway() -> None:
    bench, stream = server()
    bench.core.shut_down()
    bench.flush()
    stream.close()
    bench.flush()
    bench.core.close(bench.now)
    assert bench.flush() == b""
    assert inside.output_done(bench.core)
    assert reason_of(bench).clean


# close


def test_close_with_nothing_queued_says_goaway_without_a_pad() -> None:
    bench, stream = server()
    bench.core.close(bench.now)
    assert inside.pending(bench.core)
    assert not inside.output_done(bench.core)
    assert bench.flush() == goaway(3)
    assert inside.output_done(bench.core)
    assert bench.core.ledger.state == CLOSING
    assert bench.core.take_events() & ENDING
    reason = reason_of(bench)
    assert (reason.code, reason.by_peer, reason.clean, reason.debug) == (0, False, True, b"")
    for use in (
        lambda: stream.read(1),
        lambda: stream.write(b"x"),
        bench.core.open,
        bench.core.accept,
        bench.core.liveness.ping,
    ):
        with pytest.raises(SessionClosed) as caught:
            use()
        assert caught.value.reason is reason


def test_close_flushes_what_was_written_and_asked_for_while_it_reads_credit() -> None:
    bench, stream = server()
    stream.write(b"q" * (WINDOW + 1000))
    stream.finish()
    other = bench.core.open()
    other.write(b"written, not announced")
    unannounced = bench.core.open()
    bench.core.close(bench.now)
    raw = bench.flush()
    assert raw.startswith(goaway(3) + PAD)
    assert not inside.output_done(bench.core)
    assert unannounced.finished()
    assert not stream.finished()
    bench.hear(wndinc(3, 600))
    assert bench.said() == ["DATA 3 600"]
    assert not inside.output_done(bench.core)
    bench.hear(wndinc(3, 600))
    assert bench.said() == ["DATA 3 400 FIN"]
    assert stream.finished()
    assert inside.output_done(bench.core)
    assert b"written, not announced" in raw


def test_close_drops_input_but_goes_on_granting_so_that_no_peer_hangs() -> None:
    bench, stream = server()
    bench.hear(data(3, bytes(1000)))
    stream.write(bytes(WINDOW + 1))
    bench.core.close(bench.now)
    assert inside.unread(bench.core) == 0
    bench.said()
    for _ in range(10):
        bench.hear(data(3, bytes(WINDOW - 1000)))
        assert inside.unread(bench.core) == 0
        assert [line.split()[0] for line in bench.said()] == ["WNDINC"]
    bench.hear(data(5, bytes(1000), syn=True))
    assert bench.said() == ["RST 5 5"]


def test_close_gives_up_at_its_timeout() -> None:
    bench, stream = server()
    stream.write(bytes(WINDOW + 1))
    bench.core.close(bench.now)
    bench.flush()
    assert bench.core.next_deadline() == bench.now + 5
    bench.pass_time(4.9)
    assert not stream.finished()
    bench.pass_time(0.1)
    assert inside.torn_down(bench.core)
    assert bench.core.next_deadline() == inf
    bench.core.connection_lost(None, bench.now)
    assert bench.core.ledger.state == ENDED
    assert stream.finished()


def test_close_ends_at_the_peers_end_of_input() -> None:
    bench, stream = server()
    stream.write(bytes(WINDOW + 1))
    bench.core.close(bench.now)
    bench.flush()
    assert reason_of(bench).clean
    bench.core.receive_eof(bench.now)
    assert inside.output_done(bench.core)  # no more credit will come
    assert not inside.streams(bench.core)
    bench.core.connection_lost(None, bench.now)
    assert bench.core.ledger.state == ENDED
    assert not reason_of(bench).clean
    assert "1 stream had not sent everything" in reason_of(bench).message


def test_a_breach_while_closing_ends_it_but_not_for_another_reason() -> None:
    bench, stream = server()
    stream.write(bytes(WINDOW + 1))
    bench.core.close(bench.now)
    bench.flush()
    bench.hear(wndinc(3, 0))
    assert bench.said() == ["GOAWAY 3 1"]
    assert inside.output_done(bench.core)
    assert stream.finished()
    assert (reason_of(bench).clean, reason_of(bench).code) == (False, 0)


def test_two_ends_that_close_at_once_end_cleanly() -> None:
    pair = Pair()
    near, far = pair.open_pair()
    for stream, session in ((near, pair.client), (far, pair.server)):
        stream.write(bytes(100_000))
        session.close(pair.now)
    pair.run()
    for session in (pair.client, pair.server):
        assert inside.output_done(session)
        session.receive_eof(pair.now)
        session.connection_lost(None, pair.now)
        assert session.ledger.state == ENDED
        assert session.reason is not None
        assert session.reason.clean


# abort


def test_abort_drops_everything_and_says_goaway_if_it_can() -> None:
    bench, stream = server()
    bench.hear(data(3, b"unread"), data(5, b"queued", syn=True))
    stream.write(b"dropped")
    bench.hear(data(99))
    bench.core.abort(2, bench.now)
    assert bench.flush() == goaway(5, 2)
    assert inside.torn_down(bench.core)
    assert not inside.streams(bench.core)
    reason = reason_of(bench)
    assert (reason.code, reason.by_peer, reason.clean) == (2, False, False)
    for use in (lambda: stream.read(1), lambda: stream.write(b"x"), bench.core.open):
        with pytest.raises(SessionClosed) as caught:
            use()
        assert caught.value.code == 2
    bench.core.connection_lost(OSError("aborted"), bench.now)
    assert (bench.core.ledger.state, bench.core.reason) == (ENDED, reason)


def test_abort_cuts_a_close_short() -> None:
    bench, stream = server()
    stream.write(bytes(WINDOW + 1))
    bench.core.close(bench.now)
    bench.flush()
    bench.core.abort(2, bench.now)
    assert inside.torn_down(bench.core)
    assert stream.finished()
    assert (reason_of(bench).code, reason_of(bench).clean) == (0, False)
    assert bench.said() == ["GOAWAY 3 2"]  # or the peer would take the end for an orderly one
    assert inside.output_done(bench.core)


# Idempotence


CALLS = {
    "go_away": lambda bench: bench.core.go_away(),
    "shut_down": lambda bench: bench.core.shut_down(),
    "close": lambda bench: bench.core.close(bench.now),
    "abort": lambda bench: bench.core.abort(2, bench.now),
}


@pytest.mark.parametrize("first", CALLS)
@pytest.mark.parametrize("second", CALLS)
def test_every_ending_may_follow_every_other_and_itself(first: str, second: str) -> None:
    bench, stream = server()
    stream.write(b"queued")
    rank = 0
    for name in (first, first, second, second, first):
        CALLS[name](bench)
        rank = max(rank, list(CALLS).index(name))
        assert bench.core.ledger.state == (RUNNING, DRAINING, CLOSING, CLOSING)[rank]
    goaways = [line for line in bench.said() if line.startswith("GOAWAY")]
    if "abort" in (first, second):
        assert goaways[-1] == "GOAWAY 3 2"
    else:
        assert set(goaways) == {"GOAWAY 3 0"}
    reason = bench.core.reason
    assert (reason is None) == (rank < 2)
    assert inside.torn_down(bench.core) == (rank == 3)
    for _ in range(2):
        bench.core.receive_eof(bench.now)
        bench.core.connection_lost(None, bench.now)
        assert bench.core.ledger.state == ENDED
        assert reason in (None, bench.core.reason)
    for name in CALLS:
        CALLS[name](bench)
    assert bench.core.ledger.state == ENDED
    assert not inside.streams(bench.core)


# The peer's GOAWAY


def test_a_goaway_alone_ends_nothing() -> None:
    bench, stream = server()
    bench.hear(goaway(0, 7, b"why") + PAD)
    assert (bench.core.ledger.state, bench.core.reason, bench.said()) == (RUNNING, None, [])
    with pytest.raises(PeerGone) as caught:
        bench.core.open()
    assert caught.value.code == 7
    assert caught.value.reason is not None
    assert (caught.value.reason.code, caught.value.reason.debug) == (7, b"why")
    assert "why" in str(caught.value)
    assert bench.core.closing.peer_goaway == (7, b"why")
    bench.accepted(data(5, b"the peer may still open streams", syn=True))
    bench.check_echo(stream)


@pytest.mark.parametrize("last", ["eof", "eof inside a frame", "lost", "reset"])
def test_a_goaway_0_and_then_the_end_is_clean(last: str) -> None:
    bench, stream = server()
    bench.hear(data(3, b"read"), goaway(0, 0, b"bye"))
    assert stream.read(4) == b"read"
    if last == "eof inside a frame":
        bench.hear(data(3, b"cut off")[:10])
    if last.startswith("eof"):
        bench.core.receive_eof(bench.now)
    bench.core.connection_lost(ConnectionResetError() if last == "reset" else None, bench.now)
    reason = reason_of(bench)
    assert (reason.code, reason.debug, reason.by_peer) == (0, b"bye", True)
    assert bench.core.closing.orderly
    assert reason.clean == (last != "eof inside a frame")  # which brought bytes that were not read
    assert bench.core.ledger.state == ENDED
    with pytest.raises(SessionClosed):
        stream.write(b"x")
    with pytest.raises(SessionClosed):
        bench.core.accept()


CUTS: dict[str, Callable[[Bench, CoreStream], object]] = {
    "unread": lambda bench, stream: bench.hear(data(3, b"unread")),
    "unsent": lambda bench, stream: stream.write(b"queued"),
    "FIN unsent": lambda bench, stream: stream.finish(),
    "a reader waits": lambda bench, stream: setattr(stream, "read_waiter", "reader"),
    "a writer waits": lambda bench, stream: setattr(stream, "write_waiter", "writer"),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_said_end_that_cuts_a_stream_is_orderly_but_not_clean(cut: str) -> None:
    bench, stream = server()
    CUTS[cut](bench, stream)
    bench.hear(goaway(0, 0))
    bench.core.receive_eof(bench.now)
    assert (reason_of(bench).clean, bench.core.closing.orderly) == (False, True)
    assert "cut 1 stream off" in reason_of(bench).message


@pytest.mark.parametrize("cut", ["unread", "a reader waits"])
def test_a_close_that_cuts_a_stream_is_not_clean(cut: str) -> None:
    bench, stream = server()
    CUTS[cut](bench, stream)
    bench.core.close(bench.now)
    bench.core.connection_lost(None, bench.now)
    assert (reason_of(bench).clean, bench.core.closing.orderly) == (False, True)


def test_what_has_both_its_ends_is_not_cut_though_unread() -> None:
    bench, stream = server()
    bench.hear(data(3, b"unread", fin=True))
    stream.finish()
    bench.flush()
    bench.hear(goaway(0, 0))
    bench.core.receive_eof(bench.now)
    assert reason_of(bench).clean
    assert stream.read(6) == b"unread"


def test_what_came_whole_is_not_cut_though_unread() -> None:
    bench, stream = server()
    bench.hear(data(3, b"unread", fin=True), goaway(0, 0))
    bench.core.receive_eof(bench.now)
    assert reason_of(bench).clean
    assert stream.read(6) == b"unread"


def test_a_close_after_a_goaway_with_a_code_ends_with_that_code() -> None:
    bench, _ = server()
    bench.core.go_away(403, b"not allowed")
    bench.core.close(bench.now)
    reason = reason_of(bench)
    assert (reason.code, reason.debug, reason.clean) == (403, b"not allowed", False)
    assert bench.core.closing.orderly


@pytest.mark.parametrize("code", [2, 6, 10, 403])
def test_a_program_that_ends_the_session_is_no_breach(code: int) -> None:
    bench, stream = server()
    bench.hear(goaway(0, code))
    bench.core.receive_eof(bench.now)
    with pytest.raises(SessionAborted) as caught:
        stream.read(1)
    assert caught.value.code == code
    assert not str(caught.value).rstrip().endswith(":")


def test_a_peer_that_calls_the_protocol_broken_offers_no_retry() -> None:
    bench = Bench()
    stream = bench.core.open(eager=True)
    bench.flush()
    bench.hear(goaway(0, 1, b"are both ends servers?"))
    with pytest.raises(StreamReset) as caught:
        stream.read(1)
    assert type(caught.value) is StreamReset
    bench.core.receive_eof(bench.now)
    with pytest.raises(ProtocolError, match="both ends"):
        bench.core.open()


@pytest.mark.parametrize("client", [True, False])
def test_two_ends_of_one_role_are_told_so(client: bool) -> None:
    bench = RoleBench(client=client)
    bench.core.receive_data(data(inside.next_id(bench.core), syn=True), bench.now)
    role = "clients" if client else "servers"
    with pytest.raises(ProtocolError, match=f"are both ends {role}"):
        bench.core.open()


def test_an_aborts_code_is_not_0_and_changes_nothing() -> None:
    bench, stream = server()
    with pytest.raises(UsageError, match="above 0"):
        bench.core.abort(0, bench.now)
    assert (stream.state, bench.core.reason) == (OPEN, None)


@pytest.mark.parametrize("exception", [None, ConnectionResetError()])
def test_a_goaway_with_another_code_and_then_the_end_is_an_error(
    exception: Exception | None,
) -> None:
    bench, stream = server()
    bench.hear(goaway(0, 0), goaway(0, 8, b"odd frame"))
    bench.core.connection_lost(exception, bench.now)
    reason = reason_of(bench)
    assert (reason.code, reason.debug, reason.by_peer) == (8, b"odd frame", True)
    assert not reason.clean
    with pytest.raises(ProtocolError, match=r"FRAME_SIZE_ERROR.*odd frame") as caught:
        stream.write(b"x")
    assert caught.value.code == 8


def test_debug_text_that_is_no_text_does_no_harm() -> None:
    bench, stream = server()
    bench.hear(goaway(0, 2, b"\xff\xfe\x00"))
    bench.core.receive_eof(bench.now)
    assert reason_of(bench).debug == b"\xff\xfe\x00"
    with pytest.raises(SessionAborted, match="xff"):
        stream.write(b"x")


# The transport's end


def test_eof_with_a_stream_open_is_not_clean() -> None:
    bench, stream = server()
    stream.write(b"queued")
    bench.core.receive_eof(bench.now)
    assert bench.said() == ["GOAWAY 3 15"]
    reason = reason_of(bench)
    assert (reason.code, reason.by_peer, reason.clean) == (15, True, False)
    for use in (lambda: stream.read(1), lambda: stream.write(b"x"), bench.core.accept):
        with pytest.raises(SessionError) as caught:
            use()
        assert type(caught.value) is SessionError
        assert caught.value.code == 15
    assert bench.core.ledger.state == CLOSING
    bench.core.connection_lost(None, bench.now)
    assert bench.core.ledger.state == ENDED


def test_eof_after_everything_was_done_is_quiet_and_unread_data_stays_readable() -> None:
    bench, stream = server()
    bench.hear(data(3, b"unread", fin=True))
    stream.finish()
    bench.flush()
    bench.core.receive_eof(bench.now)
    assert (bench.core.closing.orderly, reason_of(bench).clean) == (True, False)
    assert (drain(stream), stream.at_eof()) == (b"unread", True)


def test_losing_the_transport_is_an_error_that_names_the_cause() -> None:
    bench, stream = server()
    cause = ConnectionResetError("connection reset")
    bench.core.connection_lost(cause, bench.now)
    reason = reason_of(bench)
    assert (reason.code, reason.by_peer, reason.clean) == (255, True, False)
    assert reason.exception is cause
    assert bench.core.ledger.state == ENDED
    assert bench.core.take_events() & ENDING
    with pytest.raises(SessionError, match="connection reset"):
        stream.read(1)


def test_losing_the_transport_without_a_word_is_its_end() -> None:
    bench, _ = server()
    bench.hear(header(5, 1, 0, 3))
    bench.core.connection_lost(None, bench.now)
    assert (reason_of(bench).code, reason_of(bench).clean) == (255, False)


def test_after_the_end_queued_streams_are_accepted_first() -> None:
    for end in ("eof", "lost", "breach"):
        bench = Bench()
        bench.hear(data(3, b"three", syn=True), data(5, b"five", syn=True, fin=True))
        assert bench.core.take_events() & ACCEPTABLE
        if end == "eof":
            bench.core.receive_eof(bench.now)
        elif end == "lost":
            bench.core.connection_lost(OSError("gone"), bench.now)
        else:
            bench.hear(wndinc(3, 0))
        first, second = bench.core.accept(), bench.core.accept()
        assert first is not None
        assert second is not None
        assert first.read(100) == b"three"
        with pytest.raises(SessionError):
            first.read(100)
        assert (second.read(100), second.at_eof(), second.read(100)) == (b"five", True, b"")
        for _ in range(2):
            with pytest.raises(SessionError):
                bench.core.accept()


def test_a_stream_reset_before_the_end_keeps_its_own_error() -> None:
    bench, stream = server()
    bench.hear(rst(3, 77))
    bench.core.connection_lost(OSError("gone"), bench.now)
    with pytest.raises(StreamReset) as caught:
        stream.read(1)
    assert caught.value.code == 77


def test_every_call_on_a_dead_session_is_harmless() -> None:
    bench, stream = server()
    stream.write(bytes(WINDOW + 1))
    bench.hear(data(3, b"unread", fin=True))
    bench.flush()
    bench.core.connection_lost(OSError("gone"), bench.now)
    bench.hear(data(5, bytes(100_000), syn=True))
    bench.core.receive_eof(bench.now)
    bench.core.handle_timer(bench.now + 1000)
    bench.core.resume(bench.now)
    stream.claim(100)
    stream.announce()
    stream.set_priority(1)
    stream.finish()
    stream.close()
    stream.reset(6)
    assert bench.flush() == b""
    assert bench.core.next_deadline() == inf
    assert bench.core.stats().streams == 0
    assert inside.unread(bench.core) == 0
    with pytest.raises(MuxadoError):
        stream.write(b"x")


def test_a_config_sets_the_time_that_a_close_may_take() -> None:
    bench = Bench(Config(close_timeout=0.5))
    bench.core.close(bench.now)
    assert bench.core.next_deadline() == bench.now + 0.5


def test_a_stream_that_ran_to_its_end_can_be_read_after_a_close() -> None:
    pair = Pair()
    near, far = pair.open_pair()
    far.write(b"reply")
    far.finish()
    near.finish()
    pair.run()
    pair.client.shut_down()
    pair.client.close(pair.now)
    pair.run()
    assert near.read(100) == b"reply"
    assert near.read(100) == b""


def test_a_stream_that_was_open_can_not() -> None:
    pair = Pair()
    near, far = pair.open_pair()
    far.write(b"reply")
    far.finish()
    pair.run()
    pair.client.close(pair.now)
    with pytest.raises(SessionClosed):
        near.read(100)
