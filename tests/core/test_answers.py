"""The answers to bad or unusual input, row by row (docs/protocol.md section 12)."""

from __future__ import annotations

import pytest

from muxado.config import Config
from muxado.core import CLOSING, RUNNING, CoreStream
from muxado.errors import ProtocolError, SessionClosed, StreamRefused, StreamReset
from muxado.wire.codec import READ_SIZE
from tests import inside
from tests.inside import CHURN_LEAST, MAX_ANSWERS, MAX_RECENTLY_RESET

from .peer import WINDOW, Bench, data, goaway, header, rst, wndinc
from .roles import RoleBench

TOP = 0x80000000
BYSTANDER = 1001


@pytest.fixture(params=[False, True], ids=["server", "client"])
def client(request: pytest.FixtureRequest) -> bool:
    """The role of the session; the tests speak of a server's ids all the same."""
    return bool(request.param)


def with_bystander(client: bool, config: Config | None = None) -> tuple[RoleBench, CoreStream]:
    """A session with one stream that everything else must leave alone."""
    bench = RoleBench(config, client=client)
    stream = bench.accepted(data(BYSTANDER, b"unread", syn=True))
    bench.flush()
    return bench, stream


def check_goes_on(bench: RoleBench, bystander: CoreStream) -> None:
    """Check that the session and the bystander live, and that little is held."""
    check_bounded(bench)
    assert bystander.read(6) == b"unread"
    assert inside.unread(bench.core) == 0
    bench.check_echo(bystander)
    assert bench.core.ledger.state == RUNNING


def check_ended(bench: RoleBench, bystander: CoreStream, code: int) -> None:
    """Check that the session has ended with a code, and the bystander with it."""
    check_bounded(bench)
    assert bench.said() == [f"GOAWAY {BYSTANDER} {code}"]
    reason = bench.core.reason
    assert reason is not None
    assert (reason.code, reason.by_peer, reason.clean) == (code, False, False)
    assert bench.core.ledger.state == CLOSING
    assert inside.output_done(bench.core)
    assert not inside.streams(bench.core)
    assert bystander.read(6) == b"unread"
    assert inside.unread(bench.core) == 0
    with pytest.raises(ProtocolError) as caught:
        bystander.read(1)
    assert (caught.value.code, caught.value.reason) == (code, reason)
    bench.hear(data(3, bytes(1000), syn=True))
    assert bench.said() == []
    assert inside.unread(bench.core) == 0


def check_bounded(bench: RoleBench) -> None:
    core = bench.core
    assert len(inside.pending_resets(core)) <= MAX_ANSWERS + 1
    assert (
        sum(stream_id in inside.recently_reset(core) for stream_id in range(100_000))
        <= MAX_RECENTLY_RESET
    )


# The session ends

ENDS_WITH_8 = {
    "RST of 0 bytes": header(0, 0, 0, 3),
    "RST of 3 bytes": header(3, 0, 0, 3) + bytes(3),
    "RST of 5 bytes": header(5, 0, 0, 3) + bytes(5),
    "WNDINC of 3 bytes": header(3, 2, 0, 3) + bytes(3),
    "WNDINC of 8 bytes": header(8, 2, 0, 3) + bytes(8),
    "GOAWAY of 0 bytes": header(0, 3, 0, 0),
    "GOAWAY of 7 bytes": header(7, 3, 0, 0) + bytes(7),
    "unknown type, over 64 KiB": header(65537, 4, 0, 0),
    "unknown type, longest": header(0xFFFFFF, 15, 15, 3),
}
ENDS_WITH_1 = {
    "DATA on id 0": data(0, b"x"),
    "empty DATA on id 0": data(0),
    "SYN on id 0": data(0, syn=True),
    "FIN on id 0": data(0, fin=True),
    "RST on id 0": rst(0, 0),
    "WNDINC on id 0": wndinc(0, 1),
    "GOAWAY on id 3": header(8, 3, 0, 3) + bytes(8),
    "GOAWAY with the top bit as id": header(8, 3, 0, TOP) + bytes(8),
    "WNDINC of 0": wndinc(BYSTANDER, 0),
    "WNDINC of 0, unknown stream": wndinc(3, 0),
    "WNDINC of the top bit": wndinc(BYSTANDER, TOP),
    "SYN of our parity": data(2, syn=True),
    "SYN of our parity, high": data(1000, b"x", syn=True, fin=True),
    "SYN of a live id": data(BYSTANDER, syn=True),
    "SYN of a live id, with data": data(BYSTANDER, b"x", syn=True),
    "DATA, top bit": data(TOP | 3, b"x"),
    "empty FIN, top bit": data(TOP | 3, fin=True),
    "SYN, top bit": data(TOP | 3, syn=True),
    "RST, top bit": rst(TOP | 3, 4),
    "RST, top bit on a live id": rst(TOP | BYSTANDER, 4),
    "WNDINC, top bit": wndinc(TOP | 3, 1),
}


@pytest.mark.parametrize("frame", ENDS_WITH_8)
def test_a_frame_of_a_wrong_size_ends_the_session(frame: str, client: bool) -> None:
    bench, bystander = with_bystander(client)
    bench.hear(ENDS_WITH_8[frame])
    check_ended(bench, bystander, 8)


@pytest.mark.parametrize("frame", ENDS_WITH_1)
def test_a_breach_of_the_protocol_ends_the_session(frame: str, client: bool) -> None:
    bench, bystander = with_bystander(client)
    bench.hear(ENDS_WITH_1[frame])
    check_ended(bench, bystander, 1)


def test_what_follows_a_breach_in_the_same_read_is_not_looked_at(client: bool) -> None:
    bench, bystander = with_bystander(client)
    bench.hear(wndinc(3, 0), data(3, b"x", syn=True), data(0), bytes(200_000))
    check_ended(bench, bystander, 1)


def test_room_for_input_is_left_after_a_breach_at_the_start_of_a_full_read(client: bool) -> None:
    bench, bystander = with_bystander(client)
    space = bench.core.receive_buffer()
    frame = wndinc(3, 0)
    space[: len(frame)] = frame
    bench.core.bytes_received(len(space), bench.now)
    assert len(bench.core.receive_buffer()) > 0
    check_ended(bench, bystander, 1)


# The session goes on

TOLERATED = {
    "falling ids and gaps": [data(i, syn=True) for i in (99, 7, 501, 3, 0x7FFFFFFF, 5)],
    "SYN and FIN on one frame": [data(3, syn=True, fin=True), data(5, syn=True, fin=True)],
    "reserved flags": [header(0, 1, 12, BYSTANDER), header(4, 2, 15, 3) + bytes(3) + b"\x01"],
    "unknown types": [header(5, 4, 15, 3) + bytes(5), header(0, 9, 0, TOP), header(0, 15, 0, 0)],
    "unknown type of 64 KiB": [header(65536, 8, 0, 3) + bytes(65536)],
    "credit over 2**31": [wndinc(BYSTANDER, 0x7FFFFFFF)] * 5,
    "the top bit of a WNDINC": [wndinc(BYSTANDER, TOP | 7)],
    "repeated FIN": [data(3, syn=True), *[data(3, fin=True)] * 100],
    "RST for unknown streams": [rst(i, 4) for i in range(1, 1000)],
    "WNDINC for unknown streams": [wndinc(i, 1) for i in range(1, 1000)],
    "empty FIN for unknown streams": [data(i, fin=True) for i in range(2, 1000)],
    "empty DATA": [data(BYSTANDER)] * 100,
    "WNDINC at any rate": [wndinc(BYSTANDER, 1)] * 10_000,
    "RST for our id 1": [rst(1, 4)] * 100,
    "GOAWAY, again and again": [goaway(0, 0), goaway(9, 0), goaway(2, 0, b"x" * 2000)],
}


@pytest.mark.parametrize("name", TOLERATED)
def test_unusual_input_gets_no_answer(name: str, client: bool) -> None:
    bench, bystander = with_bystander(client)
    bench.hear(*TOLERATED[name])
    assert bench.said() == []
    check_goes_on(bench, bystander)


def test_credit_sums_are_kept_in_full(client: bool) -> None:
    bench, bystander = with_bystander(client)
    bench.hear(*[wndinc(BYSTANDER, 0x7FFFFFFF)] * 3)
    assert bystander.send_credit == WINDOW + 3 * 0x7FFFFFFF


def test_a_closed_id_may_be_opened_again(client: bool) -> None:
    bench, bystander = with_bystander(client)
    for payload in (b"first", b"second"):
        stream = bench.accepted(data(3, payload, syn=True, fin=True))
        assert stream.read(100) == payload
        stream.finish()
        assert bench.said() == ["DATA 3 0 FIN"]
    check_goes_on(bench, bystander)


def test_a_stream_that_came_with_syn_and_fin_can_still_be_written(client: bool) -> None:
    bench = RoleBench(client=client)
    stream = bench.accepted(data(3, b"question", syn=True, fin=True))
    stream.write(b"answer")
    stream.finish()
    assert (stream.read(100), stream.at_eof()) == (b"question", True)
    assert bench.said() == ["DATA 3 6 FIN"]


# One stream pays


def test_an_overrun_resets_its_stream_and_the_body_is_not_stored(client: bool) -> None:
    bench, bystander = with_bystander(client)
    stream = bench.accepted(data(3, bytes(1000), syn=True))
    frame = data(3, bytes(WINDOW - 999))
    bench.hear(frame[:8])  # judged at the header
    assert bench.said() == ["RST 3 3"]
    for start in range(8, len(frame), 50_000):
        bench.hear(frame[start : start + 50_000])
        assert inside.unread(bench.core) == 1006
    bench.hear(data(3, b"late"), data(3, fin=True), data(3), rst(3, 4), wndinc(3, 1))
    assert bench.said() == []
    assert stream.read(2000) == bytes(1000)
    with pytest.raises(StreamReset) as caught:
        stream.read(1)
    assert (caught.value.code, caught.value.by_peer) == (3, False)
    check_goes_on(bench, bystander)


def test_a_whole_window_is_no_overrun(client: bool) -> None:
    bench = RoleBench(client=client)
    stream = bench.accepted(data(3, bytes(WINDOW), syn=True))
    assert bench.said() == []
    bench.hear(data(3, b"x"))
    assert bench.said() == ["RST 3 3"]
    assert stream.unread() == WINDOW


def test_an_overrunning_syn_leaves_no_stream(client: bool) -> None:
    bench, bystander = with_bystander(client)
    bench.hear(data(3, bytes(WINDOW + 1), syn=True), data(3, b"x"))
    assert bench.core.accept() is None
    assert bench.said() == ["RST 3 3"]
    check_goes_on(bench, bystander)


def test_a_stream_that_is_reset_before_accept_frees_its_memory(client: bool) -> None:
    bench, bystander = with_bystander(client)
    for _ in range(10):
        bench.hear(data(3, bytes(WINDOW), syn=True), rst(3, 6))
        bench.hear(data(5, bytes(WINDOW), syn=True), data(5, b"x"))
    assert bench.core.accept() is None
    check_goes_on(bench, bystander)


def test_data_past_the_memory_limit_resets_its_own_stream(client: bool) -> None:
    bench, bystander = with_bystander(client, Config(max_receive_memory=1006))
    stream = bench.accepted(data(3, bytes(1000), syn=True))
    bench.hear(data(3, b"x"))
    assert bench.said() == ["RST 3 10"]
    assert stream.read(1000) == bytes(1000)
    with pytest.raises(StreamReset) as caught:
        stream.read(1)
    assert (caught.value.code, caught.value.by_peer) == (10, False)
    check_goes_on(bench, bystander)


def test_data_for_unknown_streams_is_answered_once_per_id(client: bool) -> None:
    bench, bystander = with_bystander(client)
    bench.hear(*[data(7, bytes(100)), data(9, fin=False), data(4, b"x", fin=True)] * 1000)
    assert len(inside.pending_resets(bench.core)) == 3
    assert bench.said() == ["RST 7 4", "RST 9 4", "RST 4 4"]
    bench.hear(data(7))
    assert bench.said() == ["RST 7 4"]
    check_goes_on(bench, bystander)


# Refusals


def test_a_syn_after_our_goaway_is_refused_and_its_payload_consumed(client: bool) -> None:
    bench, bystander = with_bystander(client)
    bench.core.go_away()
    bench.hear(data(2001, bytes(5000), syn=True), data(2001, bytes(5000)), data(2001, fin=True))
    assert bench.said() == [f"GOAWAY {BYSTANDER} 0", "RST 2001 5"]
    assert bench.core.accept() is None
    assert bench.core.stats().refusals == 1
    check_goes_on(bench, bystander)


def test_more_streams_than_allowed_are_refused_until_one_is_done(client: bool) -> None:
    bench, bystander = with_bystander(client, Config(max_incoming_streams=3))
    first = bench.accepted(data(3, syn=True, fin=True))
    bench.hear(data(5, syn=True), data(7, b"x", syn=True), data(7, b"x"), data(9, syn=True))
    assert bench.said() == ["RST 7 5", "RST 9 5"]
    first.close()
    bench.hear(data(11, syn=True))
    assert bench.said() == ["RST 11 5", "DATA 3 0 FIN"]
    bench.hear(data(13, syn=True))
    assert bench.said() == []
    check_goes_on(bench, bystander)


def test_a_full_accept_queue_gives_the_application_a_turn_before_it_refuses(client: bool) -> None:
    bench, bystander = with_bystander(client, Config(accept_backlog=2))
    core = bench.core
    bench.take(b"".join(data(i, b"x", syn=True) for i in (3, 5, 7, 9, 11)))
    assert core.paused
    assert bench.waiting() == [3, 5]
    assert bench.said() == []
    assert core.accept() is not None
    core.resume(bench.now)
    assert core.paused
    assert bench.waiting() == [5, 7]
    core.resume(bench.now)  # the application took nothing in its turn
    assert bench.waiting() == [5, 7]
    assert bench.said() == ["RST 9 9", "RST 11 9"]
    assert core.stats().refusals == 2
    while inside.accept_queue(core):
        core.accept()
    assert inside.unread(core) == 6 + 3
    assert bystander.read(6) == b"unread"
    bench.check_echo(bystander)


def test_a_queue_that_stays_full_does_not_grow_by_a_stream_per_read(client: bool) -> None:
    bench, bystander = with_bystander(client, Config(accept_backlog=2))
    for stream_id in (3, 5, 7, 9, 11):
        bench.hear(data(stream_id, syn=True))
    assert bench.waiting() == [3, 5]
    assert bench.said() == ["RST 7 9", "RST 9 9", "RST 11 9"]
    check_goes_on(bench, bystander)


def test_types_that_come_late_do_not_overfill_the_queue(client: bool) -> None:
    bench = RoleBench(Config(accept_backlog=2, typed=True), client=client)
    ids = (3, 5, 7, 9)
    bench.hear(*[data(i, syn=True) for i in ids])
    for stream_id in ids:
        bench.hear(data(stream_id, b"\0\0\0\1"))
    assert bench.waiting() == [3, 5]
    assert bench.said() == ["RST 7 9", "RST 9 9"]
    assert inside.unread(bench.core) == 0


@pytest.mark.parametrize("end", ["eof", "lost", "reset"])
def test_input_after_a_pause_is_parsed_before_the_transport_ends(end: str, client: bool) -> None:
    bench = RoleBench(Config(accept_backlog=2), client=client)
    core = bench.core
    frames = [data(i, b"x", syn=True) for i in (3, 5, 7, 9, 11)]
    bench.take(b"".join(frames) + goaway(0, 0))
    core.accept()
    core.accept()
    if end == "eof":
        core.receive_eof(bench.now)
    else:
        core.connection_lost(OSError("reset") if end == "reset" else None, bench.now)
    assert core.reason is not None
    assert (core.closing.orderly, core.reason.by_peer, core.reason.code) == (True, True, 0)
    assert bench.waiting() == [7, 9]


def test_reading_on_does_not_end_the_turn_of_the_application(client: bool) -> None:
    bench = RoleBench(Config(accept_backlog=1), client=client)
    core = bench.core
    bench.take(data(3, syn=True) + data(5, syn=True))
    for _ in range(3):  # as uvloop does, without a turn of the loop
        bench.take(data(3, b"more"))
    assert core.paused
    assert bench.said() == []
    assert core.accept() is not None
    core.resume(bench.now)
    assert bench.said() == []
    assert bench.waiting() == [5]


def test_without_room_reading_on_does_end_it(client: bool) -> None:
    bench = RoleBench(Config(accept_backlog=1), client=client)
    # As much as one read may bring; the rest has to be looked at.
    wire = data(3, syn=True) + data(5, syn=True) + data(3) * (READ_SIZE // 8)
    bench.take(wire)
    assert "RST 5 9" in bench.said()


def test_a_full_queue_is_answered_by_a_refusal_that_is_answered_back(client: bool) -> None:
    bench = RoleBench(client=client)
    stream = bench.opened(b"question")
    other = bench.opened()
    bench.hear(rst(2, 9))
    assert bench.said() == ["RST 2 6"]
    with pytest.raises(StreamRefused) as caught:
        stream.read(1)
    assert (caught.value.code, caught.value.by_peer) == (9, True)
    bench.check_echo(other)


def test_no_other_reset_is_answered(client: bool) -> None:
    bench = RoleBench(client=client)
    for code in [*range(9), *range(10, 20), 255, 0xFFFFFFFF]:
        stream = bench.opened(b"question")
        bench.hear(rst(bench.id_of(stream), code))
        assert bench.said() == []
    bench = RoleBench(client=client)
    bench.accepted(data(3, syn=True))
    bench.hear(rst(3, 9))  # not ours, so no zombie stays over there
    assert bench.said() == []


# Floods


def check_calmed(bench: RoleBench) -> None:
    """Check that the session is given up for a peer that sends on and doesn't read its answers."""
    assert len(inside.pending_resets(bench.core)) == MAX_ANSWERS + 1
    assert not bench.core.paused
    assert bench.core.next_deadline() > bench.now
    more = data(9, b"x") * 1000
    for _ in range(READ_SIZE // len(more) + 1):
        bench.hear(more)
        assert len(inside.pending_resets(bench.core)) <= MAX_ANSWERS + 1
    assert inside.torn_down(bench.core)
    assert bench.core.reason is not None
    assert bench.core.reason.code == 10
    assert bench.said()[-1].endswith(" 10")


def test_answers_that_are_not_read_end_the_session(client: bool) -> None:
    bench, _ = with_bystander(client)
    for stream_id in range(2, 2 + 2 * MAX_ANSWERS, 2):
        bench.hear(data(stream_id))
    assert bench.core.reason is None
    bench.hear(data(3))
    assert bench.core.reason is None  # the answers may be on their way
    check_calmed(bench)


def test_a_peer_that_reads_none_of_many_answers_and_falls_silent_is_given_up_in_time(
    client: bool,
) -> None:
    bench, _ = with_bystander(client)
    bench.hear(*[data(i) for i in range(2, 20_000, 2)])
    bench.pass_time(15 + 20)
    assert bench.core.reason is not None
    assert bench.core.reason.code == 255
    assert inside.torn_down(bench.core)


def test_resets_of_our_own_are_no_answers_that_a_peer_has_provoked(client: bool) -> None:
    bench, bystander = with_bystander(client)
    for number in range(2 * MAX_ANSWERS):
        stream = bench.accepted(data(2003 + 2 * number, syn=True))
        stream.reset(1)
    bench.hear(data(2), data(4))
    assert not inside.held(bench.core)
    assert len(bench.said()) == 2 * MAX_ANSWERS + 2
    check_goes_on(bench, bystander)


def test_a_burst_that_provokes_many_answers_is_no_flood_if_they_can_be_sent(client: bool) -> None:
    bench, bystander = with_bystander(client)
    core = bench.core
    bench.take(b"".join(data(i) for i in range(2, 30_000, 2)))
    answered = 0
    while inside.stuck(core):
        assert len(inside.pending_resets(core)) == MAX_ANSWERS + 1
        core.resume(bench.now)  # a turn of the application helps nothing
        answered += len(bench.said())
        assert core.next_deadline() <= bench.now
        core.handle_timer(bench.now)
    answered += len(bench.said())
    assert answered == 14_999
    check_goes_on(bench, bystander)


def test_refused_streams_count_as_a_flood_too(client: bool) -> None:
    bench, _ = with_bystander(client, Config(max_incoming_streams=1))
    bench.hear(*[data(i, syn=True) for i in range(3, 20_000, 2) if i != BYSTANDER])
    check_calmed(bench)


def test_streams_that_end_before_their_type_count_as_a_flood_too(client: bool) -> None:
    bench = RoleBench(Config(typed=True), client=client)
    bench.hear(*[data(i, syn=True, fin=True) for i in range(3, 20_000, 2)])
    check_calmed(bench)


def test_streams_over_the_memory_limit_count_as_a_flood_too(client: bool) -> None:
    bench, _ = with_bystander(client, Config(max_receive_memory=6))
    bench.hear(*[data(i, b"x", syn=True) for i in range(3, 20_000, 2) if i != BYSTANDER])
    check_calmed(bench)


def test_refusals_that_provoke_an_answer_count_as_a_flood_too(client: bool) -> None:
    bench = RoleBench(client=client)
    streams = [bench.core.open(eager=True) for _ in range(MAX_ANSWERS + 10)]
    bench.flush()
    bench.hear(*[rst(bench.id_of(stream), 9) for stream in streams])
    check_calmed(bench)


def test_streams_opened_and_reset_unseen_are_counted(client: bool) -> None:
    bench, bystander = with_bystander(client, Config(max_incoming_streams=100))
    for _ in range(CHURN_LEAST):
        bench.hear(data(3, bytes(100), syn=True), rst(3, 6))
    assert bench.core.reason is None
    bench.hear(data(3, syn=True), rst(3, 6))
    check_ended(bench, bystander, 10)


def test_streams_opened_and_reset_slowly_are_not_too_many(client: bool) -> None:
    bench, bystander = with_bystander(client, Config(max_incoming_streams=100, ping_interval=None))
    for _ in range(3):
        for _ in range(CHURN_LEAST):
            bench.hear(data(3, bytes(100), syn=True), rst(3, 6))
        bench.pass_time(10.1)
    assert bench.said() == []
    check_goes_on(bench, bystander)


def test_streams_reset_after_accept_are_not_counted(client: bool) -> None:
    bench, bystander = with_bystander(client, Config(max_incoming_streams=10))
    for _ in range(CHURN_LEAST + 1):
        stream = bench.accepted(data(3, syn=True))
        bench.hear(rst(3, 6))
        stream.close()
    check_goes_on(bench, bystander)


def test_recently_reset_ids_are_bounded(client: bool) -> None:
    bench, bystander = with_bystander(client, Config(max_incoming_streams=1))
    for stream_id in range(3, 20_001, 2):
        if stream_id != BYSTANDER:
            bench.hear(data(stream_id, syn=True))
            assert bench.said() == [f"RST {stream_id} 5"]
    check_goes_on(bench, bystander)
    bench.hear(data(19_999, b"late"), data(3, b"forgotten"))
    assert bench.said() == ["RST 3 4"]


# The transport's end


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        (b"", 15),
        (data(BYSTANDER, b"12345")[:3], 255),
        (data(BYSTANDER, b"12345")[:8], 255),
        (data(BYSTANDER, b"12345")[:10], 255),
        (data(7, b"12345")[:10], 255),  # skipped
        (wndinc(3, 5)[:11], 255),
        (header(100, 9, 0, 0) + bytes(99), 255),
        (goaway(0, 0, b"12345")[:18], 255),
    ],
)
def test_the_end_of_the_input(rest: bytes, code: int, client: bool) -> None:
    bench, bystander = with_bystander(client)
    bench.hear(rest)
    bench.core.receive_eof(bench.now)
    assert bench.said()[-1] == f"GOAWAY {BYSTANDER} {code}"
    reason = bench.core.reason
    assert reason is not None
    assert (reason.code, reason.by_peer, reason.clean) == (code, True, False)
    assert bystander.read(6) == b"unread"
    assert inside.output_done(bench.core)


def test_the_end_of_the_input_is_quiet_between_frames_with_no_stream_open(client: bool) -> None:
    bench = RoleBench(client=client)
    bench.core.open()  # not announced: no loss
    bench.core.receive_eof(bench.now)
    assert bench.said() == ["GOAWAY 0 15"]
    assert bench.core.reason is not None
    assert (bench.core.closing.orderly, bench.core.reason.clean) == (True, False)  # it was not said
    with pytest.raises(SessionClosed):
        bench.core.accept()


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", "PROXY"),
        (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", "PROXY"),
        (bytes.fromhex("0000000100000001"), "yamux"),
        (bytes.fromhex("000100010000000100000000"), "yamux"),
        (bytes.fromhex("0100000001000000"), "smux"),
    ],
)
def test_another_protocol_ends_the_session_at_once_and_is_named(first: bytes, name: str) -> None:
    for cut in (len(first), 8):
        bench = Bench()
        for start in range(0, len(first), cut):
            bench.hear(first[start : start + cut])
        assert inside.torn_down(bench.core)
        assert bench.said() == []
        with pytest.raises(ProtocolError, match=name) as caught:
            bench.core.accept()
        assert caught.value.reason is not None
        assert not caught.value.reason.clean


@pytest.mark.parametrize(("first", "name"), [(b"SSH-2", "SSH"), (b"GET /", "HTTP")])
def test_another_protocol_that_ends_early_is_named_too(first: bytes, name: str) -> None:
    bench = Bench()
    bench.hear(first)
    bench.core.receive_eof(bench.now)
    assert bench.said() == []
    with pytest.raises(ProtocolError, match=name):
        bench.core.open()


def test_only_the_first_frame_is_taken_for_another_protocol(client: bool) -> None:
    bench, bystander = with_bystander(client)
    bench.hear(b"GET / HTTP/1.1\r\n")
    check_ended(bench, bystander, 8)
    assert not inside.torn_down(bench.core)


def test_of_debug_text_a_part_is_kept_and_less_is_sent(client: bool) -> None:
    bench = RoleBench(client=client)
    bench.hear(goaway(0, 7, b"e" * 5000))
    bench.core.receive_eof(bench.now)
    assert bench.core.reason is not None
    assert bench.core.reason.debug == b"e" * 1024
    other = RoleBench(client=client)
    other.core.go_away(7, b"d" * 5000)
    (frame,) = other.frames()
    assert (frame.code, frame.text) == (7, b"d" * 128)
