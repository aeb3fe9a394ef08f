"""The life of one stream: opening, half-closes, ends, errors, types and heartbeats."""

from __future__ import annotations

import pytest

from muxado.config import Config
from muxado.core import (
    CLOSED,
    DRAINED,
    IDLE,
    LOCAL_DONE,
    OPEN,
    REMOTE_DONE,
    CoreSession,
    CoreStream,
)
from muxado.errors import (
    ErrorCode,
    MuxadoError,
    PeerGone,
    SessionClosed,
    SessionError,
    StreamClosed,
    StreamRefused,
    StreamReset,
    StreamsExhausted,
    UsageError,
)
from tests import inside

from .pair import Pair, byte_by_byte, drain, pieces
from .peer import WINDOW, Bench, data, goaway, rst, wndinc


def client() -> Bench:
    return Bench(client=True)


# Opening and half-closes


def test_opening_alone_sends_nothing() -> None:
    bench = client()
    stream = bench.core.open()
    stream.write(b"")
    assert not inside.pending(bench.core)
    assert bench.flush() == b""
    assert stream.state == IDLE


def test_the_first_write_rides_on_the_syn() -> None:
    bench = client()
    bench.core.open().write(b"hello")
    assert bench.said() == ["DATA 3 5 SYN"]


def test_a_stream_is_announced_by_eager_by_a_read_and_once_only() -> None:
    bench = client()
    bench.core.open(eager=True)
    reading = bench.core.open()
    reading.announce()
    reading.announce()
    assert bench.said() == ["DATA 3 0 SYN", "DATA 5 0 SYN"]
    reading.announce()
    assert bench.said() == []


def test_an_announcement_and_a_write_in_one_turn_share_the_syn() -> None:
    bench = client()
    stream = bench.core.open(eager=True)
    stream.write(b"hello")
    assert bench.said() == ["DATA 3 5 SYN"]


def test_syns_go_out_in_the_order_of_writing() -> None:
    bench = client()
    first, second = bench.core.open(), bench.core.open()
    second.write(b"2")
    first.write(b"1")
    assert bench.said() == ["DATA 5 1 SYN", "DATA 3 1 SYN"]


def test_write_eof_on_a_fresh_stream_is_an_empty_syn_and_then_a_fin() -> None:
    bench = client()
    stream = bench.core.open()
    stream.finish()
    stream.finish()
    assert bench.said() == ["DATA 3 0 SYN", "DATA 3 0 FIN"]
    assert stream.state == LOCAL_DONE


def test_syn_never_carries_fin_even_with_data() -> None:
    bench = client()
    stream = bench.core.open()
    stream.write(b"all of it")
    stream.finish()
    assert bench.said() == ["DATA 3 9 SYN", "DATA 3 0 FIN"]


def test_half_closed_by_us_first() -> None:
    pair = Pair()
    near, far = pair.open_pair()
    near.write(b"question")
    near.finish()
    pair.run()
    assert (near.state, far.state) == (LOCAL_DONE, REMOTE_DONE)
    assert (drain(far), far.at_eof()) == (b"question", True)
    far.write(b"answer")
    pair.run()
    assert (near.read(100), near.at_eof()) == (b"answer", False)
    far.finish()
    pair.run()
    assert near.at_eof()
    assert (near.state, far.state) == (CLOSED, CLOSED)
    assert not inside.streams(pair.client)
    assert not inside.streams(pair.server)


def test_half_closed_by_the_acceptor_first() -> None:
    pair = Pair()
    near, far = pair.open_pair()
    far.finish()
    pair.run()
    assert near.at_eof()
    near.write(b"still here")
    near.finish()
    pair.run()
    assert (drain(far), far.at_eof()) == (b"still here", True)
    assert not inside.streams(pair.client)
    assert not inside.streams(pair.server)


def test_both_half_close_at_once() -> None:
    pair = Pair()
    near, far = pair.open_pair()
    for stream in (near, far):
        stream.write(b"bye")
        stream.finish()
    pair.run()
    for stream in (near, far):
        assert (drain(stream), stream.at_eof(), stream.state) == (b"bye", True, CLOSED)
    assert pair.client.stats().resets_received == 0


# close and reset


@pytest.mark.parametrize("end", [CoreStream.close, lambda stream: stream.reset(6)])
@pytest.mark.parametrize("typed", [False, True])
def test_ending_an_unannounced_stream_sends_nothing(end: object, typed: bool) -> None:
    bench = Bench(Config(typed=typed), client=True)
    stream = bench.core.open()
    assert callable(end)
    end(stream)
    assert not inside.pending(bench.core)
    assert bench.flush() == b""
    assert not inside.streams(bench.core)
    assert stream.finished()


def test_a_stream_closed_unannounced_is_closed_not_reset() -> None:
    stream = client().core.open()
    stream.close()
    for use in (lambda: stream.read(1), lambda: stream.write(b"x")):
        with pytest.raises(StreamClosed):
            use()


def test_reset_before_the_first_flush_sends_nothing() -> None:
    bench = client()
    stream = bench.core.open()
    stream.write(b"never mind")
    stream.reset(6)
    assert bench.flush() == b""


def test_close_after_write_flushes_and_then_says_fin() -> None:
    bench = client()
    stream = bench.core.open()
    stream.write(b"last words")
    stream.close()
    assert not stream.finished()
    assert bench.said() == ["DATA 3 10 SYN", "DATA 3 0 FIN"]
    assert stream.finished()
    assert not inside.streams(bench.core)


def test_close_waits_for_credit_to_flush() -> None:
    bench = client()
    stream = bench.opened()
    stream.write(bytes(WINDOW + 5))
    stream.close()
    bench.said()
    assert not stream.finished()
    assert list(inside.streams(bench.core)) == [3]
    bench.hear(wndinc(3, 100))
    assert bench.said() == ["DATA 3 5 FIN"]
    assert stream.finished()
    assert not inside.streams(bench.core)


def test_close_with_unread_data_says_fin_and_then_reset() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, b"unread", syn=True))
    stream.close()
    assert bench.said() == ["DATA 3 0 FIN", "RST 3 4"]
    assert inside.unread(bench.core) == 0
    bench.hear(data(3, b"late"))
    assert bench.said() == []


def test_close_with_everything_read_says_only_fin() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, b"read", syn=True))
    stream.read(100)
    stream.close()
    assert bench.said() == ["DATA 3 0 FIN"]
    assert not inside.streams(bench.core)
    bench.hear(data(3, b"late"))
    assert bench.said() == ["RST 3 4"]


def test_close_after_the_peers_fin_sends_no_reset_even_with_unread_data() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, b"unread", syn=True, fin=True))
    stream.close()
    assert bench.said() == ["DATA 3 0 FIN"]
    assert inside.unread(bench.core) == 0


def test_close_with_a_peer_out_of_credit_lets_no_writer_hang() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, bytes(WINDOW), syn=True))
    assert len(stream.read(WINDOW)) == WINDOW
    stream.close()
    assert bench.said() == ["WNDINC 3 524288", "DATA 3 0 FIN"]
    bench.hear(data(3, b"late"))
    assert bench.said() == ["RST 3 4"]


def test_close_after_write_eof_with_a_peer_out_of_credit_lets_no_writer_hang() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, bytes(WINDOW), syn=True))
    stream.finish()
    bench.flush()
    assert len(stream.read(WINDOW)) == WINDOW
    stream.close()
    assert bench.said() == ["RST 3 4"]


def test_close_after_write_eof_tells_of_dropped_data() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, b"unread", syn=True))
    stream.finish()
    assert bench.said() == ["DATA 3 0 FIN"]
    stream.close()
    assert bench.said() == ["RST 3 4"]
    assert not inside.streams(bench.core)


def test_what_comes_while_a_closed_stream_flushes_is_dropped_and_told() -> None:
    bench = client()
    stream = bench.opened()
    stream.write(bytes(WINDOW + 1))
    stream.close()
    bench.said()
    for _ in range(3):
        bench.hear(data(3, bytes(WINDOW)))
        assert inside.unread(bench.core) == 0
        assert len(bench.said()) == 1  # a WNDINC
    bench.hear(wndinc(3, 1))
    assert bench.said() == ["DATA 3 1 FIN", "RST 3 4"]


def test_claimed_bytes_that_were_not_read_count_as_dropped() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, b"unread", syn=True))
    stream.claim(6)
    stream.close()
    assert bench.said() == ["DATA 3 0 FIN", "RST 3 4"]
    assert inside.unread(bench.core) == 0


def test_reset_drops_what_is_queued_and_unread() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, b"unread", syn=True))
    stream.write(b"queued")
    stream.finish()
    stream.reset(1234)
    stream.reset(99)
    stream.close()
    assert bench.said() == ["RST 3 1234"]
    assert inside.unread(bench.core) == 0
    assert not inside.streams(bench.core)
    for use in (lambda: stream.read(1), lambda: stream.write(b"x")):
        with pytest.raises(StreamReset) as caught:
            use()
        assert (caught.value.code, caught.value.by_peer) == (1234, False)


@pytest.mark.parametrize("code", [-1, 1 << 32])
def test_a_reset_code_has_32_bits(code: int) -> None:
    bench = client()
    stream = bench.opened()
    with pytest.raises(UsageError):
        stream.reset(code)
    assert stream.state == OPEN


def test_a_stream_reset_in_the_middle_of_a_frame_drops_the_rest() -> None:
    bench = Bench()
    frame = data(3, b"0123456789", syn=True, fin=True)
    stream = bench.accepted(frame[:12])
    stream.reset(6)
    bench.hear(frame[12:])
    bench.hear(data(5, b"next", syn=True))
    assert inside.unread(bench.core) == 4
    assert bench.said() == ["RST 3 6"]


def test_a_stream_closed_in_the_middle_of_a_frame_drops_the_rest() -> None:
    bench = client()
    stream = bench.opened()
    frame = data(3, b"0123456789", fin=True)
    bench.hear(frame[:12])
    stream.write(bytes(WINDOW + 1))
    stream.close()
    bench.hear(frame[12:])
    bench.hear(wndinc(3, 1))
    assert bench.said()[-2:] == ["DATA 3 32768", "DATA 3 32769 FIN"]
    assert inside.unread(bench.core) == 0
    assert not inside.streams(bench.core)


# What a reader gets at the end


def after_fin(bench: Bench) -> CoreStream:
    return bench.accepted(data(3, b"to the ", syn=True), data(3, b"end", fin=True))


def test_after_fin_the_data_and_a_clean_end_come_in_spite_of_a_reset() -> None:
    bench = Bench()
    stream = after_fin(bench)
    bench.hear(rst(3, 2))
    assert (drain(stream), stream.at_eof(), stream.read(1)) == (b"to the end", True, b"")
    with pytest.raises(StreamReset) as caught:
        stream.write(b"x")
    assert (caught.value.code, caught.value.by_peer) == (2, True)


def test_after_fin_the_data_and_a_clean_end_come_in_spite_of_the_sessions_end() -> None:
    for end in (wndinc(3, 0), goaway(0, 2)):
        bench = Bench()
        stream = after_fin(bench)
        bench.hear(end)
        bench.core.receive_eof(bench.now)
        assert (drain(stream), stream.at_eof()) == (b"to the end", True)
        with pytest.raises(SessionError):
            stream.write(b"x")


def test_after_fin_the_data_and_a_clean_end_come_in_spite_of_data_after_it() -> None:
    bench = Bench()
    stream = after_fin(bench)
    bench.hear(data(3, b"too late"))
    assert bench.said() == ["RST 3 4"]
    assert (drain(stream), stream.at_eof()) == (b"to the end", True)


def test_after_a_reset_what_is_buffered_comes_first() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, b"cut sho", syn=True))
    bench.hear(rst(3, 77))
    assert stream.readable()
    assert (stream.read(3), stream.read(100)) == (b"cut", b" sho")
    with pytest.raises(StreamReset) as caught:
        stream.read(1)
    assert (caught.value.code, caught.value.by_peer) == (77, True)
    assert not stream.at_eof()


def test_after_the_sessions_end_what_is_buffered_comes_first() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, b"cut sho", syn=True))
    bench.core.connection_lost(OSError("gone"), bench.now)
    assert stream.read(100) == b"cut sho"
    with pytest.raises(SessionError, match="gone"):
        stream.read(1)


def test_the_readers_error_is_a_fresh_one_each_time() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, syn=True))
    bench.hear(rst(3, 7))
    assert stream.failure() is not stream.failure()


# Refusals, which make it safe to try again


@pytest.mark.parametrize("code", [5, 9])
def test_a_reset_5_or_9_before_anything_came_back_is_a_refusal(code: int) -> None:
    bench = client()
    stream = bench.opened(b"question")
    bench.hear(rst(3, code))
    for use in (lambda: stream.read(1), lambda: stream.write(b"x")):
        with pytest.raises(StreamRefused) as caught:
            use()
        assert (caught.value.code, caught.value.by_peer) == (code, True)


@pytest.mark.parametrize("code", [0, 2, 4, 6, 10, 11, 400])
def test_other_codes_are_no_refusal(code: int) -> None:
    bench = client()
    stream = bench.opened(b"question")
    bench.hear(rst(3, code))
    assert type(stream.failure()) is StreamReset


@pytest.mark.parametrize("before", [data(3, b"x"), data(3), wndinc(3, 100), data(3, fin=True)])
@pytest.mark.parametrize("code", [5, 9])
def test_after_anything_came_back_it_is_no_refusal(before: bytes, code: int) -> None:
    bench = client()
    stream = bench.opened(b"question")
    bench.hear(before, rst(3, code))
    failure = stream.failure()
    assert type(failure) is StreamReset
    assert failure.code == code


def test_the_acceptors_stream_is_never_refused() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, syn=True))
    bench.hear(rst(3, 5))
    assert type(stream.failure()) is StreamReset


def test_streams_above_the_last_id_of_a_goaway_are_refused() -> None:
    bench = client()
    handled, unseen, answered, unannounced = (
        bench.opened(b"3"),
        bench.opened(b"5"),
        bench.opened(b"7"),
        bench.core.open(),
    )
    scheduled = bench.core.open(eager=True)
    bench.hear(data(7, b"ans"), goaway(3, 0))
    assert handled.state == answered.state == OPEN
    for stream in (unseen, unannounced, scheduled):
        failure = stream.failure()
        assert type(failure) is StreamRefused
        assert (failure.code, failure.by_peer) == (11, True)
        with pytest.raises(StreamRefused):
            stream.write(b"x")
    assert bench.said() == []  # above all, no SYN
    with pytest.raises(PeerGone):
        bench.core.open()
    bench.check_echo(handled)


def test_an_unannounced_stream_is_refused_by_any_goaway() -> None:
    bench = client()
    announced, unannounced = bench.opened(), bench.core.open()
    bench.hear(goaway(0xFFFFFFFF, 0))
    assert announced.state == OPEN
    assert type(unannounced.failure()) is StreamRefused


def test_frames_for_an_unannounced_stream_do_not_spoil_its_refusal() -> None:
    bench = Bench(Config(typed=True), client=True)
    stream = bench.core.open()
    bench.hear(wndinc(3, 10))
    assert bench.said() == []  # nor do they announce it
    assert (stream.state, stream.send_credit) == (IDLE, WINDOW)
    bench.hear(goaway(0, 0))
    assert type(stream.failure()) is StreamRefused


# Writing after the end


def test_writes_after_write_eof_and_close_raise_and_queue_nothing() -> None:
    for end in (CoreStream.finish, CoreStream.close):
        bench = client()
        stream = bench.opened()
        end(stream)
        for _ in range(2):
            with pytest.raises(StreamClosed) as caught:
                stream.write(b"x")
            assert isinstance(caught.value, BrokenPipeError)
            assert caught.value.code == ErrorCode.STREAM_CLOSED
            assert bench.said() in (["DATA 3 0 FIN"], [])
        assert stream.queued() == 0


def test_reads_after_close_raise() -> None:
    bench = Bench()
    stream = bench.accepted(data(3, b"unread", syn=True, fin=True))
    stream.close()
    with pytest.raises(StreamClosed):
        stream.read(1)


def test_every_error_is_one_of_the_standard_librarys_too() -> None:
    bench = client()
    reset, refused = bench.opened(), bench.opened()
    bench.hear(data(3), rst(3, 2), rst(5, 5))
    for stream in (reset, refused):
        assert isinstance(stream.failure(), ConnectionResetError)
        assert isinstance(stream.failure(), MuxadoError)
    bench.core.receive_eof(bench.now)
    with pytest.raises(ConnectionError):
        bench.core.open()


def test_ends_are_idempotent_in_any_order() -> None:
    calls = (CoreStream.finish, CoreStream.close, lambda stream: stream.reset(6))
    for first in calls:
        for second in calls:
            bench = Bench()
            stream = bench.accepted(data(3, b"unread", syn=True))
            for call in (first, second, first, second):
                call(stream)
            bench.flush()
            said = bench.said()
            for call in (first, second):
                call(stream)
            assert said == bench.said() == []
            assert inside.unread(bench.core) == (6 if first is second is CoreStream.finish else 0)


def test_set_priority_after_the_end_is_harmless() -> None:
    for end in (wndinc(3, 0), rst(3, 6)):
        bench = Bench()
        stream = bench.accepted(data(3, syn=True))
        stream.write(b"queued")
        stream.finish()
        bench.hear(end)
        bench.flush()
        stream.set_priority(3)
        assert not inside.pending(bench.core)
        assert bench.flush() == b""


# Ids


def ids(core: CoreSession, count: int) -> list[int]:
    return [core.open().stream_id for _ in range(count)]


def test_clients_open_odd_ids_from_3_and_servers_even_ids_from_2() -> None:
    assert ids(client().core, 3) == [3, 5, 7]
    assert ids(Bench().core, 3) == [2, 4, 6]


@pytest.mark.parametrize(("is_client", "last"), [(True, 0x7FFFFFFF), (False, 0x7FFFFFFE)])
def test_ids_run_out(is_client: bool, last: int) -> None:
    bench = Bench(client=is_client)
    inside.set_next_id(bench.core, last - 2)
    stream = bench.core.open()
    assert ids(bench.core, 1) == [last]
    for _ in range(2):
        with pytest.raises(StreamsExhausted) as caught:
            bench.core.open()
        assert caught.value.code == 12
    stream.write(b"x")
    assert bench.said() == [f"DATA {last - 2} 1 SYN"]


def test_an_id_is_not_used_up_by_an_open_that_fails() -> None:
    bench = client()
    for priority, number in ((8, None), (-9, None), (0, 1)):
        with pytest.raises(UsageError):
            bench.core.open(priority=priority, type=number)
    assert ids(bench.core, 1) == [3]
    assert list(inside.streams(bench.core)) == [3]


# Typed sessions

TYPED = Config(typed=True)
HEARTBEAT = b"\xff\xff\xff\xff"


def test_the_type_travels_in_the_syn_with_the_first_data() -> None:
    bench = Bench(TYPED, client=True)
    bench.core.open(type=0x01020304, eager=True)
    bench.core.open(type=7).write(b"data")
    plain = bench.core.open()
    plain.finish()
    syns = bench.frames()
    assert [bytes(frame.body) for frame in syns] == [
        b"\1\2\3\4",
        b"\0\0\0\7data",
        b"\0\0\0\0",
        b"",
    ]
    assert [frame.syn for frame in syns] == [True, True, True, False]
    assert plain.type == 0


@pytest.mark.parametrize("type", [-1, 1 << 32, 0xFFFFFFFF])
def test_a_type_that_can_not_be(type: int) -> None:
    with pytest.raises(UsageError):
        Bench(TYPED).core.open(type=type)


def test_no_type_is_0_even_if_0_means_heartbeat() -> None:
    with pytest.raises(UsageError):
        Bench(Config(typed=True, heartbeat_type=0)).core.open()


def test_a_type_in_an_untyped_session_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match="typed=True"):
        Bench().core.open(type=0)


@pytest.mark.parametrize("cut", [byte_by_byte, pieces(3), pieces(9), pieces(1000)])
def test_types_between_two_of_ours_however_cut(cut: object) -> None:
    assert callable(cut)
    pair = Pair(TYPED, cut=cut)
    near = pair.client.open(type=0xDEADBEEF)
    near.write(b"data")
    pair.run()
    far = pair.server.accept()
    assert far is not None
    assert (far.type, far.read(100)) == (0xDEADBEEF, b"data")
    assert inside.unread(pair.server) == 0


@pytest.mark.parametrize(
    "parts",
    [
        [b"\0\0\1\2rest"],
        [b"\0", b"\0\1\2rest"],
        [b"\0\0", b"\1\2", b"rest"],
        [b"", b"\0\0\1", b"\2re", b"st"],
        [b"\0", b"\0", b"\1", b"\2", b"r", b"est"],
    ],
)
def test_types_cut_into_frames(parts: list[bytes]) -> None:
    bench = Bench(TYPED)
    first, *more = parts
    stream = bench.accepted(data(3, first, syn=True), *[data(3, part) for part in more])
    assert (stream.type, stream.read(100)) == (0x0102, b"rest")
    assert inside.unread(bench.core) == 0
    assert stream.recv_credit == WINDOW - 8


def test_a_late_type_delays_no_other_stream_and_streams_come_in_the_order_of_their_types() -> None:
    bench = Bench(TYPED)
    bench.hear(data(3, b"\0\0", syn=True), data(5, b"\0\0\0\5", syn=True), data(3, b"\0\3"))
    accepted = [bench.core.accept(), bench.core.accept()]
    assert [stream.type for stream in accepted if stream] == [5, 3]


def test_a_type_that_does_not_come_in_time_resets_the_stream() -> None:
    bench = Bench(TYPED)
    late, slow, early = data(3, b"\0\0\0", syn=True), data(5, syn=True), data(7, syn=True)
    bench.hear(late)
    bench.pass_time(5)
    bench.hear(slow, early, data(7, b"\0\0\0\1"))
    bench.pass_time(4.9)
    assert "RST 3 6" not in bench.said()
    bench.pass_time(0.1)
    assert bench.said() == ["RST 3 6"]
    assert inside.unread(bench.core) == 0
    bench.hear(data(3, b"\1"))
    bench.pass_time(5)
    assert bench.said() == ["RST 5 6"]
    assert bench.core.accept() is not None
    assert bench.core.accept() is None
    assert list(inside.streams(bench.core)) == [7]


def test_a_stream_that_ends_in_the_middle_of_its_types_frame_is_done_with() -> None:
    bench = Bench(TYPED)
    frame = data(3, b"\0\0\0\1rest", syn=True)
    bench.hear(frame[:9])
    bench.pass_time(10)
    assert bench.said() == ["RST 3 6"]
    bench.hear(frame[9:])
    assert bench.core.accept() is None
    assert inside.unread(bench.core) == 0
    assert bench.core.reason is None


@pytest.mark.parametrize("end", [rst(3, 6), data(3, fin=True), data(3, b"\0\0\0", fin=True)])
def test_a_stream_that_ends_before_its_type_is_never_handed_out(end: bytes) -> None:
    bench = Bench(TYPED)
    bench.hear(data(3, b"", syn=True), end)
    assert bench.core.accept() is None
    assert bench.said() == ([] if end == rst(3, 6) else ["RST 3 6"])
    assert bench.core.next_deadline() > bench.now + 14  # no type is waited for
    assert inside.unread(bench.core) == 0
    assert not inside.streams(bench.core)


def test_a_type_and_a_fin_on_one_frame() -> None:
    bench = Bench(TYPED)
    stream = bench.accepted(data(3, b"\0\0\0\7", syn=True, fin=True))
    assert (stream.type, stream.read(1), stream.at_eof()) == (7, b"", True)


# Go's heartbeat


def test_heartbeats_are_echoed_without_the_application() -> None:
    bench = Bench(TYPED)
    bench.hear(data(3, HEARTBEAT, syn=True))
    assert bench.said() == []
    for beat in (b"\1\2\3\4", b"\5", b"\6\7\x08"):
        bench.hear(data(3, beat))
        (echo,) = bench.frames()
        assert (echo.stream_id, bytes(echo.body), echo.fin) == (3, beat, False)
    bench.hear(data(3, b"last", fin=True))
    assert bench.said() == ["DATA 3 4 FIN"]
    assert not inside.streams(bench.core)
    assert bench.core.accept() is None


@pytest.mark.parametrize("size", [1, 3, 5, 8])
def test_a_beat_right_behind_the_type_is_echoed_however_cut(size: int) -> None:
    bench = Bench(TYPED)
    frame = data(3, HEARTBEAT + b"beat", syn=True)
    for start in range(0, len(frame), size):
        bench.hear(frame[start : start + size])
    echo = b"".join(bytes(frame.body) for frame in bench.frames())
    assert echo == b"beat"
    assert inside.unread(bench.core) == 0


def test_heartbeats_are_outside_limits_and_statistics() -> None:
    bench = Bench(Config(typed=True, max_incoming_streams=1, accept_backlog=1))
    bench.hear(data(3, HEARTBEAT, syn=True), data(5, HEARTBEAT, syn=True))
    bench.hear(data(7, b"\0\0\0\1", syn=True))
    stats = bench.core.stats()
    assert (stats.streams, stats.streams_accepted, stats.refusals) == (1, 0, 0)
    stream = bench.core.accept()
    assert stream is not None
    assert stream.stream_id == 7
    bench.hear(data(3, fin=True), rst(5, 6))
    bench.flush()
    assert list(inside.streams(bench.core)) == [7]
    assert (inside.incoming(bench.core), inside.heartbeats(bench.core)) == (1, 0)


def test_a_heartbeat_is_granted_credit_for_ever() -> None:
    bench = Bench(TYPED)
    bench.hear(data(3, HEARTBEAT, syn=True))
    for _ in range(100):
        bench.hear(data(3, bytes(4000)))
        said = bench.said()
        assert said[-1] == "DATA 3 4000"
        bench.hear(wndinc(3, 4000))
    assert 3 in inside.streams(bench.core)


def test_what_a_heartbeat_makes_us_hold_is_bounded() -> None:
    bench = Bench(TYPED)
    stuck = Bench(TYPED)
    for each in (bench, stuck):
        each.hear(data(3, HEARTBEAT, syn=True))
    stuck.hear(*[data(3, bytes(4))] * 1025)
    assert stuck.said() == ["RST 3 10"]
    bench.hear(*[data(i, HEARTBEAT + bytes(100), syn=True) for i in range(5, 61, 2)])
    said = bench.said()
    assert len(inside.streams(bench.core)) == 16
    assert [line for line in said if line.startswith("RST")] == [
        f"RST {i} 5" for i in range(35, 61, 2)
    ]


def test_a_heartbeat_too_many_may_come_in_pieces() -> None:
    bench = Bench(TYPED)
    bench.hear(*[data(i, HEARTBEAT, syn=True) for i in range(3, 35, 2)])
    frame = data(35, HEARTBEAT + bytes(100), syn=True)
    for start in range(0, len(frame), 7):
        bench.hear(frame[start : start + 7])
    assert bench.said() == ["RST 35 5"]
    assert inside.unread(bench.core) == 0
    assert inside.incoming(bench.core) == 0


def test_shut_down_does_not_wait_for_heartbeats() -> None:
    bench = Bench(TYPED)
    bench.hear(data(3, HEARTBEAT, syn=True), data(5, syn=True))
    stream = bench.core.open(eager=True)
    bench.core.shut_down()
    bench.flush()
    assert not bench.core.take_events() & DRAINED
    stream.close()
    bench.flush()
    assert not bench.core.take_events() & DRAINED
    bench.hear(data(5, HEARTBEAT))  # what was waited for turns out to be a heartbeat
    assert bench.core.take_events() & DRAINED
    bench.hear(data(5, b"beat"))
    assert bench.said() == ["DATA 5 4"]


def test_closing_the_session_ends_heartbeats() -> None:
    bench = Bench(TYPED)
    bench.hear(data(3, HEARTBEAT, syn=True))
    bench.core.close(bench.now)
    bench.hear(data(3, b"beat"))
    assert bench.said() == ["GOAWAY 3 0", "RST 3 4"]
    assert (
        inside.incoming(bench.core),
        inside.heartbeats(bench.core),
        bench.core.stats().streams,
    ) == (0, 0, 0)


def test_an_open_heartbeat_does_not_spoil_a_clean_end() -> None:
    bench = Bench(TYPED)
    bench.hear(data(3, HEARTBEAT, syn=True), goaway(0, 0))
    bench.core.receive_eof(bench.now)
    assert bench.core.reason is not None
    assert bench.core.reason.clean


def test_an_untyped_session_hands_a_heartbeat_stream_out() -> None:
    stream = Bench().accepted(data(3, HEARTBEAT, syn=True))
    assert (stream.type, stream.read(100)) == (None, HEARTBEAT)


# Wake-ups


def test_a_call_that_waits_is_woken_once() -> None:
    pair = Pair()
    near, far = pair.open_pair()
    far.read_waiter = "reader"
    near.write(b"x")
    near.write(b"y")
    pair.run()
    assert pair.server.take_wakes() == ["reader"]
    assert pair.server.take_wakes() == []
    near.await_end("closer")
    near.await_end("another")
    far.read_waiter = "reader"
    near.finish()
    pair.run()
    assert pair.client.take_wakes() == ["closer", "another"]
    assert pair.server.take_wakes() == ["reader"]


def test_a_call_that_waits_for_the_end_is_woken_when_both_halves_are_done() -> None:
    pair = Pair()
    near, far = pair.open_pair()
    near.finish()
    pair.run()
    near.await_end("near")
    far.await_end("far")
    far.finish()
    pair.run()
    assert pair.client.take_wakes() == ["near"]
    assert pair.server.take_wakes() == ["far"]
    assert (near.state, far.state) == (CLOSED, CLOSED)


def test_a_call_that_gave_up_its_wait_for_the_end_is_not_woken() -> None:
    pair = Pair()
    near, _ = pair.open_pair()
    near.forget_end_waiter("none has waited yet")
    near.await_end("first")
    near.await_end("second")
    near.await_end("second")  # as after a wake-up that was too early
    near.forget_end_waiter("first")
    near.forget_end_waiter("first")
    near.await_end("third", living={"third"})
    near.finish()
    pair.run()
    assert pair.client.take_wakes() == ["third"]
    near.forget_end_waiter("third")


def test_a_writer_is_woken_below_the_high_water_mark() -> None:
    pair = Pair(Config(write_high_water=10_000))
    near, far = pair.open_pair()
    near.write(bytes(WINDOW + 20_000))
    near.write_waiter = "writer"
    pair.run()
    assert pair.client.take_wakes() == []  # 20 000 are left
    far.read(WINDOW // 2)
    pair.run()
    assert pair.client.take_wakes() == ["writer"]


@pytest.mark.parametrize("end", [rst(3, 6), wndinc(3, 0), goaway(0, 0)])
def test_every_call_that_waits_is_woken_by_the_end(end: bytes) -> None:
    bench = client()
    stream = bench.opened()
    stream.write(bytes(WINDOW + 1))
    bench.flush()
    stream.read_waiter, stream.write_waiter = "reader", "writer"
    stream.await_end("closer")
    bench.hear(end)
    assert sorted(map(str, bench.core.take_wakes())) == ["closer", "reader", "writer"]
    assert stream.readable()
    assert stream.finished()
    with pytest.raises(MuxadoError):
        stream.check_writable()


def test_every_call_is_woken_when_the_session_closes_and_when_its_transport_is_lost() -> None:
    bench = client()
    stream = bench.opened()
    stream.write(bytes(WINDOW + 1))
    stream.finish()
    bench.flush()
    stream.read_waiter, stream.write_waiter = "reader", "writer"
    bench.core.close(bench.now)
    assert sorted(map(str, bench.core.take_wakes())) == ["reader", "writer"]
    stream.await_end("closer")
    assert not stream.finished()
    bench.core.connection_lost(OSError("gone"), bench.now)
    assert bench.core.take_wakes() == ["closer"]
    assert stream.finished()
    with pytest.raises(SessionClosed):
        stream.write(b"x")
