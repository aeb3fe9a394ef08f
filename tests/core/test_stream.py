"""What a stream tells its user: what can be read or written, and with which error it can't."""

from __future__ import annotations

import pytest

from muxado.config import Config
from muxado.core import CLOSED, CoreStream
from muxado.errors import ErrorCode, SessionClosed, StreamClosed, StreamReset

from .pair import Pair
from .peer import Bench, data, rst
from .wires import session


def server(config: Config | None = None) -> tuple[Bench, CoreStream]:
    """A server with one open stream of the client."""
    bench = Bench(config)
    return bench, bench.accepted(data(3, syn=True))


def test_its_repr_says_its_id_and_its_state() -> None:
    _, stream = server()
    assert repr(stream) == "<CoreStream 3 open>"
    stream.reset(6)
    assert repr(stream) == "<CoreStream 3 closed>"


# Reading


def test_a_separator_is_looked_for_behind_what_was_looked_through() -> None:
    bench, stream = server()
    assert stream.find(b"\r\n", 0) == (-1, 0)
    bench.hear(data(3, b"x"))
    assert stream.find(b"\r\n", 0) == (-1, 0)
    bench.hear(data(3, b"first\r"))
    assert stream.find(b"\r\n", 0) == (-1, 6)  # the last byte may be half of it
    bench.hear(data(3, b"\nsecond"))
    assert stream.find(b"\r\n", 6) == (8, 6)
    assert stream.read(8) == b"xfirst\r\n"


def test_waiting_for_more_meets_the_error_of_a_stream_that_is_over() -> None:
    bench, stream = server()
    stream.check_readable()
    bench.hear(rst(3, 77))
    with pytest.raises(StreamReset) as caught:
        stream.check_readable()
    assert caught.value.code == 77
    _, closed = server()
    closed.close()
    with pytest.raises(StreamClosed):
        closed.check_readable()
    other, open_still = server()
    other.core.close(other.now)
    with pytest.raises(SessionClosed):
        open_still.check_readable()


def test_a_close_of_the_session_leaves_the_end_only_to_what_ran_to_it() -> None:
    pair = Pair()
    cut, _ = pair.open_pair()
    near, far = pair.open_pair()
    for stream in (near, far):
        stream.finish()
    pair.run()
    near.check_end()
    cut.check_end()
    pair.client.close(pair.now)
    assert near.at_eof()
    near.check_end()
    assert not cut.at_eof()
    with pytest.raises(SessionClosed):
        cut.check_end()


# Writing


def test_a_writer_should_wait_above_the_high_water_mark() -> None:
    bench, stream = server(Config(write_high_water=100))
    stream.write(bytes(99))
    assert not stream.write_full()
    stream.write(b".")
    assert stream.write_full()
    bench.flush()
    assert not stream.write_full()


def test_a_stream_stalls_where_more_is_queued_than_its_credit() -> None:
    _, stream = server(Config(initial_window=1000))
    stream.write(bytes(1000))
    assert not stream.stalled()
    stream.write(b".")
    assert stream.stalled()


def test_a_stream_is_open_until_this_side_closes_it_or_its_session() -> None:
    bench, stream = server()
    stream.check_open()
    bench.core.close(bench.now)
    with pytest.raises(SessionClosed):
        stream.check_open()
    _, other = server()
    other.close()
    with pytest.raises(StreamClosed, match="stream is closed"):
        other.check_open()


def test_a_write_after_the_fin_says_who_ended_it() -> None:
    _, stream = server()
    stream.finish()
    with pytest.raises(StreamClosed, match="write_eof"):
        stream.write(b"more")


@pytest.mark.parametrize(
    ("wire", "has"), [("muxado-v2", True), ("yamux", True), ("smux-v2", False)]
)
def test_it_tells_whether_its_wire_has_a_reset(wire: str, has: bool) -> None:
    assert session(wire, client=True).open().tells_resets is has


# The end


def test_its_outcome_is_a_reset_an_error_or_none() -> None:
    bench, stream = server()
    bench.hear(rst(3, 77))
    assert stream.outcome() == 77
    pair = Pair()
    near, far = pair.open_pair()
    cut, _ = pair.open_pair()
    for one in (near, far):
        one.finish()
    pair.run()
    pair.client.close(pair.now)
    assert near.outcome() is None
    with pytest.raises(SessionClosed):
        cut.outcome()


def test_who_waits_for_the_end_of_a_stream_that_is_over_is_woken_at_once() -> None:
    bench, stream = server()
    early, late = object(), object()
    stream.await_end(early)
    stream.await_end(early)
    assert bench.core.take_wakes() == []
    stream.reset(ErrorCode.STREAM_CANCELLED)
    assert bench.core.take_wakes() == [early]
    assert stream.state == CLOSED
    stream.await_end(late)
    assert bench.core.take_wakes() == [late]


def test_a_waiter_that_gave_up_is_not_woken() -> None:
    bench, stream = server()
    gone, forgotten, there = object(), object(), object()
    stream.forget_end_waiter(gone)  # before anyone waits
    stream.await_end(gone)
    stream.await_end(forgotten)
    stream.forget_end_waiter(forgotten)
    stream.await_end(there, living={there})
    stream.reset(ErrorCode.STREAM_CANCELLED)
    assert bench.core.take_wakes() == [there]
    stream.forget_end_waiter(there)


def test_what_was_moved_is_counted_both_ways() -> None:
    bench, stream = server()
    bench.hear(data(3, b"12345"))
    stream.write(b"123")
    assert stream.moved == 5
    bench.flush()
    assert stream.moved == stream.bytes_sent + stream.bytes_received == 8
