"""Input that is held back: while answers wait to be sent, and before a type was judged."""

from __future__ import annotations

from muxado.config import Config
from muxado.wire.codec import READ_SIZE
from tests import inside
from tests.inside import MAX_ANSWERS

from ..core.peer import WINDOW, Bench, data, header

# More DATA for unknown streams than answers may wait, in one read.
BURST = b"".join(data(i) for i in range(2, 2 + 2 * (MAX_ANSWERS + 1000), 2))


def test_what_comes_behind_a_burst_waits_until_the_transport_has_taken_its_answers() -> None:
    bench = Bench()
    core = bench.core
    core.receive_data(BURST, bench.now)
    bench.hear(data(3, b"hello", syn=True))
    assert len(inside.pending_resets(core)) == MAX_ANSWERS + 1
    assert not inside.streams(core)
    assert not core.paused, "no turn of the application is of any use"
    assert core.next_deadline() > bench.now, "nor is time"
    said = bench.said()
    assert core.next_deadline() <= bench.now
    core.handle_timer(bench.now)
    said += bench.said()
    assert len(said) == MAX_ANSWERS + 1000
    stream = core.accept()
    assert stream is not None
    assert stream.read(100) == b"hello"
    bench.check_echo(stream)


def test_a_whole_buffer_of_input_behind_unsent_answers_is_a_flood() -> None:
    bench = Bench()
    core = bench.core
    core.receive_data(BURST, bench.now)
    count = 0
    while core.reason is None:
        core.receive_data(data(9), bench.now)
        count += 1
        assert count * 8 < READ_SIZE, "it ends before more than a buffer has come"
        assert len(inside.pending_resets(core)) == MAX_ANSWERS + 1 or core.reason is not None
    assert core.reason.code == 10
    assert inside.torn_down(core)


def test_the_end_of_the_input_is_taken_behind_unsent_answers_too() -> None:
    bench = Bench()
    bench.core.receive_data(BURST + data(3, b"last words", syn=True, fin=True), bench.now)
    bench.core.receive_eof(bench.now)
    stream = bench.core.accept()
    assert stream is not None
    assert stream.read(100) == b"last words"
    assert stream.at_eof()
    assert bench.core.reason is not None
    assert bench.core.reason.code == 15


def test_a_long_first_frame_grants_no_credit_before_it_is_read_however_it_is_cut() -> None:
    frame = data(3, b"\0\0\0\1" + bytes(WINDOW // 2), syn=True)
    for size in (len(frame), 1000, 8, 11):
        bench = Bench(Config(typed=True))
        for start in range(0, len(frame), size):
            bench.core.receive_data(frame[start : start + size], bench.now)
        assert bench.said() == []
        stream = bench.core.accept()
        assert stream is not None
        assert stream.unread() == WINDOW // 2
        assert len(stream.read(WINDOW)) == WINDOW // 2
        assert [line.split()[:2] for line in bench.said()] == [["WNDINC", "3"]]


def test_after_data_for_an_unknown_stream_nothing_is_taken_for_another_protocol() -> None:
    bench = Bench()
    bench.hear(data(1), b"GET / HTTP/1.1\r\n")
    assert bench.said() == ["GOAWAY 0 8"]
    assert not inside.torn_down(bench.core)


def test_a_first_frame_over_the_window_that_is_no_other_protocol_is_skipped() -> None:
    bench = Bench()
    bench.hear(header(WINDOW + 1, 1, 0, 3))
    assert bench.said() == ["RST 3 4"]
    assert bench.core.reason is None
