"""On a wire without resets, what there is no room for waits: nothing is lost, or ends falsely."""

from __future__ import annotations

import struct
from contextlib import nullcontext

import pytest

from muxado.config import Config
from muxado.core import ABORT, HALF_CLOSE, WRITE, CoreSession, CoreStream, MemoryPool
from muxado.errors import CloseReason, ErrorCode, ProtocolError, SessionError, StreamReset
from tests import inside

from .pair import drain

NOW = 100.0


def session(pool: MemoryPool | None = None, **settings: object) -> CoreSession:
    config = Config(wire="smux-v2", **settings)  # type: ignore[arg-type]
    return CoreSession(client=False, config=config, now=NOW, pool=pool)


def frame(command: int, stream_id: int, body: bytes = b"") -> bytes:
    return struct.pack("<BBHI", 2, command, len(body), stream_id) + body


def syn(stream_id: int) -> bytes:
    return frame(0, stream_id)


def fin(stream_id: int) -> bytes:
    return frame(1, stream_id)


def data(stream_id: int, body: bytes) -> bytes:
    return frame(2, stream_id, body)


def request(stream_id: int) -> bytes:
    return syn(stream_id) + data(stream_id, b"request %d" % stream_id) + fin(stream_id)


def go_on(core: CoreSession) -> None:
    """Do what a front end does after a call."""
    while core.paused:
        core.resume(NOW)
    if core.next_deadline() <= NOW:
        core.handle_timer(NOW)


def held(core: CoreSession) -> bool:
    """Return whether the peer is held back."""
    return not core.wants_input


def accept(core: CoreSession) -> CoreStream:
    stream = core.accept()
    assert stream is not None
    return stream


def ends_said(core: CoreSession) -> bytes:
    return bytes(byte for byte in core.data_to_send(NOW, 1 << 20)[1::8] if byte == 1)


def test_streams_wait_while_the_accept_queue_is_full() -> None:
    core = session(accept_backlog=2)
    ids = range(3, 23, 2)
    core.receive_data(b"".join(map(request, ids)), NOW)
    go_on(core)
    assert held(core)
    assert not core.paused  # or the front end would turn and turn
    assert core.table.acceptable == 2
    for stream_id in ids:
        stream = accept(core)
        go_on(core)
        assert stream.stream_id == stream_id
        assert drain(stream) == b"request %d" % stream_id
        assert stream.at_eof()
    assert not held(core)
    assert core.accept() is None
    assert core.stats().refusals == 0
    assert ends_said(core) == b""


def test_a_reader_does_not_wait_for_what_is_behind_a_stream_that_waits() -> None:
    core = session(accept_backlog=1, max_incoming_streams=4)
    core.receive_data(b"".join(map(syn, (3, 5, 7, 9, 11))) + data(3, b"x"), NOW)
    go_on(core)
    first = accept(core)
    go_on(core)
    assert core.table.acceptable == 1
    first.read_waiter = object()
    go_on(core)
    assert core.table.acceptable == 3
    assert held(core)
    accept(core).close()
    core.data_to_send(NOW, 1000)
    core.receive_data(fin(5), NOW)
    go_on(core)


def test_streams_wait_while_as_many_are_open_as_may_be() -> None:
    core = session(max_incoming_streams=2)
    core.receive_data(request(3) + request(5) + request(7), NOW)
    first, second = accept(core), accept(core)
    go_on(core)
    assert core.accept() is None
    second.write(b"reply")
    second.close()
    core.data_to_send(NOW, 1 << 20)
    go_on(core)
    assert accept(core).stream_id == 7
    assert drain(first) == b"request 3"
    assert not held(core)


def test_data_waits_while_memory_is_full() -> None:
    core = session(max_receive_memory=1000)
    core.receive_data(syn(3) + syn(5), NOW)
    one, other = accept(core), accept(core)
    core.receive_data(data(3, bytes(600)) + data(5, b"x" * 500) + fin(5) + fin(3), NOW)
    assert held(core)
    assert (one.unread(), other.unread()) == (600, 0)
    assert inside.unread(core) == 600
    assert one.read(100) == bytes(100)
    assert one.granting  # a front end flushes, and looks at the deadline
    go_on(core)
    assert not held(core)
    assert drain(one) == bytes(500)
    assert one.at_eof()
    assert drain(other) == b"x" * 500
    assert other.at_eof()
    go_on(core)
    # What it has told of its credit is what it has read.
    core.receive_data(syn(7) + data(7, bytes(900)), NOW)
    assert not held(core)


def test_a_frame_larger_than_the_memory_comes_in_alone() -> None:
    core = session(max_receive_memory=1000)
    core.receive_data(syn(3) + data(3, bytes(5000)), NOW)
    stream = accept(core)
    assert len(drain(stream)) == 5000
    assert core.reason is None


def test_a_reader_that_wants_more_than_the_memory_is_told() -> None:
    core = session(max_receive_memory=1000)
    core.receive_data(syn(3) + data(3, bytes(900)), NOW)
    stream = accept(core)
    stream.claim(2000)
    core.receive_data(data(3, bytes(900)), NOW)
    with pytest.raises(ProtocolError, match="max_receive_memory"):
        raise core.ledger.failure()
    assert core.reason is not None
    assert core.reason.code == ErrorCode.ENHANCE_YOUR_CALM


def test_credit_that_is_passed_is_only_bounded_by_memory() -> None:
    # Go's receiver does not look at it either.
    core = session(max_receive_memory=1 << 20)
    core.receive_data(syn(3) + data(3, bytes(60_000)) * 10, NOW)
    stream = accept(core)
    assert len(drain(stream)) == 600_000
    said = core.data_to_send(NOW, 1 << 20)
    update = said[said.index(struct.pack("<BBHI", 2, 4, 8, 3)) :]
    assert struct.unpack_from("<I", update, 8) == (600_000,)


def test_memory_that_other_sessions_have_is_looked_at_again() -> None:
    pool = MemoryPool(1000, nullcontext())
    other, core = session(pool), session(pool)
    other.receive_data(syn(3) + data(3, bytes(900)), NOW)
    holder = accept(other)
    core.receive_data(syn(3) + data(3, bytes(100)), NOW)
    stream = accept(core)
    core.receive_data(data(3, bytes(500)), NOW)
    assert held(core)
    now = core.next_deadline()
    assert NOW < now < NOW + 1
    drain(holder)
    core.handle_timer(now)
    assert len(drain(stream)) == 600


def test_a_peer_that_is_held_back_is_not_missed_and_hears_that_this_side_lives() -> None:
    core = session(accept_backlog=1)
    core.receive_data(syn(3) + syn(5), NOW)
    go_on(core)
    said = b""
    now = NOW
    while now < NOW + 300:
        now = core.next_deadline()
        assert now < NOW + 1000
        core.handle_timer(now)
        said += core.data_to_send(now, 1000)
    assert core.reason is None
    assert len(said) >= 8 * 25


def test_what_has_come_is_taken_in_when_the_connection_is_gone() -> None:
    core = session(accept_backlog=1, max_receive_memory=20)
    ids = range(3, 23, 2)
    core.receive_data(b"".join(map(request, ids)), NOW)
    core.connection_lost(None, NOW)
    for stream_id in ids:
        assert drain(accept(core)) == b"request %d" % stream_id
    assert not held(core)


def test_a_stream_that_is_closed_while_its_data_waits_holds_nothing_up() -> None:
    core = session(max_receive_memory=100)
    core.receive_data(syn(3) + syn(5) + data(3, bytes(90)) + data(5, bytes(90)), NOW)
    accept(core)
    other = accept(core)
    assert held(core)
    core.receive_data(syn(7), NOW)  # as far as the front end has read already
    assert core.accept() is None
    other.close()
    accepted = core.table.list_streams()[0]
    assert drain(accepted) == bytes(90)
    go_on(core)
    assert accept(core).stream_id == 7


def test_much_that_was_read_already_is_kept() -> None:
    core = session(accept_backlog=1)
    core.receive_data(syn(3) + syn(5), NOW)
    core.receive_data(data(3, bytes(1000)) * 1000, NOW)
    go_on(core)
    stream = accept(core)
    go_on(core)
    assert len(drain(stream)) == 1_000_000


@pytest.mark.parametrize("end", ["shut_down", "close"])
def test_a_session_that_ends_answers_new_streams_with_nothing(end: str) -> None:
    core = session(accept_backlog=1)
    core.receive_data(syn(3) + syn(5), NOW)
    go_on(core)
    if end == "close":
        core.close(NOW)
    else:
        core.shut_down()
    go_on(core)
    assert not held(core)
    said = core.data_to_send(NOW, 1 << 20)
    assert fin(5) not in said
    core.receive_data(request(7), NOW)
    assert fin(7) not in core.data_to_send(NOW, 1 << 20)


def test_a_session_that_takes_no_streams_ends_if_one_is_opened() -> None:
    core = session(max_incoming_streams=0)
    core.receive_data(syn(3), NOW)
    with pytest.raises(ProtocolError, match="max_incoming_streams is 0"):
        raise core.ledger.failure()


# Ends that are not to look like ordinary ones


def ended(core: CoreSession) -> CloseReason:
    """End a session's transport, and return how a peer of ours takes what was said last."""
    peer = CoreSession(client=True, config=Config(wire="smux-v2"), now=NOW)
    for stream_id in range(3, 23, 2):
        assert peer.open().stream_id == stream_id
    peer.data_to_send(NOW, 1 << 20)
    said = core.data_to_send(NOW, 1 << 20)
    core.closing.end_output()
    peer.receive_data(said, NOW)
    peer.receive_eof(NOW)
    assert peer.reason is not None
    return peer.reason


def test_a_session_that_closes_in_order_ends_cleanly() -> None:
    core = session()
    core.close(NOW)
    assert ended(core).clean


def test_an_abort_is_no_clean_end() -> None:
    core = session()
    core.abort(2, NOW)
    assert core.closing.output_step() == ABORT
    reason = ended(core)
    assert (reason.clean, reason.code) == (False, ErrorCode.UNKNOWN)
    assert core.data_to_send(NOW, 1000) == b""


def test_a_session_that_was_closing_and_is_aborted_with_data_unsent_ends_uncleanly() -> None:
    core = session(accept_backlog=1)
    core.receive_data(syn(3), NOW)
    accept(core).write(bytes(300_000))
    core.close(NOW)
    core.abort(2, NOW)
    assert not ended(core).clean


def test_what_is_unsent_when_the_time_is_up_makes_the_end_unclean() -> None:
    core = session(close_timeout=3.0)
    core.receive_data(syn(3), NOW)
    accept(core).write(bytes(300_000))
    core.close(NOW)
    core.data_to_send(NOW, 1 << 20)
    core.handle_timer(NOW + 3)
    assert not ended(core).clean


@pytest.mark.parametrize("wire", ["yamux", "smux-v2"])
def test_a_peer_that_is_given_up_does_not_take_it_for_a_close(wire: str) -> None:
    config = Config(wire=wire, ping_interval=1, ping_timeout=1)
    core = CoreSession(client=False, config=config, now=NOW)
    peer = CoreSession(client=True, config=Config(wire=wire), now=NOW)
    said = b""
    while core.reason is None:
        core.handle_timer(core.next_deadline())
        said += core.data_to_send(core.ledger.now, 1000)
    peer.receive_data(said, NOW)
    peer.receive_eof(NOW)
    assert peer.reason is not None
    assert not peer.reason.clean


def test_a_stream_that_is_given_up_gets_no_end_and_its_session_no_clean_one() -> None:
    core = session(stall_timeout=7.0, ping_interval=None)
    core.receive_data(syn(3), NOW)
    stream = accept(core)
    stream.write(bytes(300_000))
    core.data_to_send(NOW, 1 << 20)
    core.receive_data(fin(3), NOW)
    core.handle_timer(NOW + 7)
    with pytest.raises(StreamReset, match="stall_timeout"):
        stream.write(b"more")
    stream.close()
    assert ends_said(core) == b""
    core.receive_data(frame(4, 3, struct.pack("<II", 262144, 65536)), NOW)  # it was only slow
    assert ends_said(core) == b""
    core.close(NOW)
    assert not ended(core).clean


def test_a_stream_that_comes_while_the_session_shuts_down_makes_the_end_unclean() -> None:
    core = session()
    core.shut_down()
    core.receive_data(request(3), NOW)
    core.close(NOW)
    assert not ended(core).clean


def test_streams_that_never_get_a_place_make_the_end_unclean_on_both_sides() -> None:
    core = session(max_incoming_streams=2)
    core.receive_data(request(3) + request(5) + request(7) + request(9), NOW)
    go_on(core)
    assert held(core)
    core.receive_eof(NOW)
    assert core.reason is not None
    assert not core.reason.clean
    assert "2 streams had no place here: see Config.max_incoming_streams" in core.reason.message
    assert [drain(accept(core)) for _ in range(2)] == [b"request 3", b"request 5"]
    assert not ended(core).clean


# A limit for an application that takes nothing


def test_a_hold_is_for_ever_unless_it_has_a_limit() -> None:
    core = session(accept_backlog=1)
    core.receive_data(syn(3) + syn(5), NOW)
    core.handle_timer(NOW + 1e6)
    assert core.reason is None


def test_a_hold_that_lasts_too_long_ends_the_session() -> None:
    core = session(accept_backlog=1, hold_timeout=30.0)
    core.receive_data(request(3) + request(5) + request(7), NOW)
    go_on(core)
    core.handle_timer(NOW + 29)
    stream = accept(core)  # that counts, and the next hold begins
    core.handle_timer(NOW + 29)
    assert held(core)
    assert core.next_deadline() <= NOW + 29 + 30
    core.handle_timer(NOW + 58)
    assert core.reason is None
    core.handle_timer(NOW + 59)
    with pytest.raises(SessionError, match="nothing was accepted or read") as caught:
        raise core.ledger.failure()
    assert caught.value.code == ErrorCode.INTERNAL_ERROR
    assert drain(stream) == b"request 3"
    assert not ended(core).clean


def test_a_hold_for_memory_that_others_keep_is_one_hold_however_often_it_is_judged() -> None:
    pool = MemoryPool(1000, nullcontext())
    other, core = session(pool), session(pool, hold_timeout=3.0)
    other.receive_data(syn(3) + data(3, bytes(900)), NOW)
    core.receive_data(syn(3) + data(3, bytes(100)) + data(3, bytes(500)), NOW)
    judged = 0
    now = NOW
    while core.reason is None:
        assert held(core)
        now = core.next_deadline()
        core.handle_timer(now)
        judged += 1
    assert judged > 10
    assert now == pytest.approx(NOW + 3)


def test_an_unclean_end_is_written_before_the_transport_is_ended() -> None:
    core = session()
    core.shut_down()
    core.receive_data(request(3), NOW)
    core.close(NOW)
    assert core.closing.output_step() == WRITE
    assert core.data_to_send(NOW, 1000)
    assert core.closing.output_step() == HALF_CLOSE
