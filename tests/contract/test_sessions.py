"""How a session ends, and what it tells of itself."""

from __future__ import annotations

import logging
import queue
import random
import threading

import pytest

import muxado
from muxado import ErrorCode
from muxado.wire import NO_PINGS

from .background import background, echo, serving
from .conftest import Connect, Ends
from .sides import PATIENCE, SHORT, Side, StreamSide, check_family
from .wires import needs

MIB = 1024 * 1024


def refusal(side: Side) -> muxado.SessionError:
    """Open streams until that is refused, and return the error."""
    while True:
        try:
            side.open().close()
        except muxado.SessionError as exc:
            return exc


@pytest.mark.everywhere
def test_close_delivers_what_was_written_to_a_slow_reader(ends: Ends) -> None:
    data = random.Random(3).randbytes(MIB)
    near = ends.client.open()
    near.write(data)
    near.write_eof()
    ends.client.close()
    far = ends.server.accept()
    arrived = b""
    while piece := far.read(10_000):
        arrived += piece
    assert arrived == data
    ends.client.wait_closed()
    far.close()


def test_close_in_the_middle_of_a_stream_is_an_error_after_the_data(ends: Ends) -> None:
    near = ends.client.open()
    near.write(b"half a message")
    ends.client.close()
    far = ends.server.accept()
    assert far.read_exactly(14) == b"half a message"
    with pytest.raises(muxado.SessionClosed) as caught:
        far.read()
    check_family(caught.value)
    far.close()


def test_close_with_unread_input_destroys_nothing(ends: Ends) -> None:
    with ends.stream() as (near, far):
        far.write(bytes(100_000))
        near.write(b"the last words")
        ends.client.close()
        assert far.read_exactly(14) == b"the last words"
        ends.client.wait_closed()
        ends.server.wait_closed()


def test_close_ends_the_closer_at_once_and_the_peer_in_order(ends: Ends) -> None:
    client, server = ends
    with ends.stream() as (near, far):
        far.write(b"never read")
        with (
            background(near.read_exactly, 100) as reading,
            background(client.accept) as waiting,
        ):
            ends.settle()
            client.close()
            assert client.closed
            for call in (reading, waiting):
                with pytest.raises(muxado.SessionClosed):
                    call.result(PATIENCE)
        for again in (
            near.read,
            lambda: near.write(b"x"),
            client.accept,
            client.open,
            lambda: client.ping() if client.rules.pings != NO_PINGS else client.open(),
        ):
            with pytest.raises(muxado.SessionClosed):
                again()
        assert server.iterate() == []
        for side in ends:
            assert side.wait_closed() is side.close_reason
        with pytest.raises(muxado.SessionClosed):
            server.open()
        with pytest.raises(muxado.SessionClosed):
            server.accept()
    for side, by_peer in ((client, False), (server, True)):
        reason = side.close_reason
        assert reason is not None
        assert (reason.code, reason.by_peer) == (0, by_peer)
    assert client.iterate() == []


def test_both_sides_may_close_at_once(ends: Ends) -> None:
    with ends.stream() as (near, far):
        near.write(b"x")
        far.write(b"y")
        ends.client.close()
        ends.server.close()
    ends.client.wait_closed()
    ends.server.wait_closed()


@needs("GOAWAY codes")
def test_abort_ends_both_sides_with_its_code(ends: Ends) -> None:
    client, server = ends
    with ends.stream() as (near, far):
        with background(near.read) as here, background(far.read) as there:
            client.ping()
            client.abort(99)
            with pytest.raises(muxado.SessionClosed):
                here.result(PATIENCE)
            with pytest.raises(muxado.SessionAborted) as caught:
                there.result(PATIENCE)
        assert caught.value.code == 99
        assert caught.value.reason is server.close_reason
        check_family(caught.value)
        with pytest.raises(muxado.SessionClosed):
            near.write(b"x")
        for call in (
            lambda: far.write(b"x"),
            server.accept,
            server.iterate,
            server.ping,
        ):
            with pytest.raises(muxado.SessionAborted):
                call()
    client.wait_closed()
    server.wait_closed()


def test_abort_does_not_wait_for_what_the_peers_application_does_not_read(
    connect: Connect,
) -> None:
    # An orderly close would wait for credit, until its timeout.
    client, server = connect(close_timeout=100 * PATIENCE)
    client.open().write(bytes(8 * MIB))
    server.accept()
    client.abort(7)
    client.wait_closed()
    server.wait_closed()
    reason = client.close_reason
    assert reason is not None
    assert (reason.code, reason.by_peer) == (7, False)


@needs("GOAWAY", "pings")
def test_shutdown_lets_the_streams_come_to_their_end(ends: Ends) -> None:
    client, server = ends
    with ends.stream() as (near, far), background(client.shutdown) as ending:
        assert isinstance(refusal(client), muxado.SessionClosed)
        server.ping()
        with pytest.raises(muxado.PeerGone):
            server.open()
        near.write(b"still")
        assert far.read() == b"still"
        assert not ending.done()
        near.write_eof()
        far.write_eof()
        ending.result(PATIENCE)
    server.wait_closed()
    reason = server.close_reason
    assert reason is not None
    assert reason.clean


def test_shutdown_aborts_when_its_time_is_up(ends: Ends) -> None:
    with ends.stream() as (near, far):
        ends.client.shutdown(SHORT)
        with pytest.raises(muxado.SessionClosed):
            near.read()
        with pytest.raises(muxado.SessionError):
            far.read()


@needs("GOAWAY", "pings")
def test_go_away_ends_nothing_but_the_opening_of_streams(ends: Ends) -> None:
    client, server = ends
    with ends.stream() as (near, far):
        client.go_away(0, b"enough")
        client.ping()
        with pytest.raises(muxado.PeerGone) as caught:
            server.open()
        check_family(caught.value)
        near.write(b"goes on")
        assert far.read() == b"goes on"
        other = client.open()
        other.write(b"new")
        assert server.accept().read() == b"new"


@needs("GOAWAY", "pings")
def test_both_sides_are_told_once_that_a_session_drains(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    told: queue.Queue[str] = queue.Queue()

    def fails() -> None:
        raise ArithmeticError("on purpose")

    client, server = ends
    client.on_draining(lambda: told.put("client"))
    server.on_draining(fails)
    server.on_draining(lambda: told.put("server"))
    client.go_away()
    assert {told.get(timeout=PATIENCE) for _ in ends} == {"client", "server"}
    with ends.stream() as (near, far):  # the session goes on meanwhile
        near.write(b"still here")
        assert far.read() == b"still here"
    server.go_away()
    server.ping()
    for side in ends:
        side.on_draining(lambda: told.put("late"))
        assert told.get(timeout=PATIENCE) == "late"
    assert told.empty()
    assert "ArithmeticError: on purpose" in caplog.text


def test_ending_a_session_again_is_harmless(ends: Ends) -> None:
    for side in ends:
        side.close()
        side.close()
        side.wait_closed()
        reason = side.close_reason
        side.abort(5)
        if side.rules.go_away:
            side.go_away()
        side.shutdown()
        side.wait_closed()
        assert side.close_reason is reason


@pytest.mark.everywhere
def test_iteration_gives_the_streams_until_the_peer_closes(ends: Ends) -> None:
    ids = []
    for _ in range(3):
        stream = ends.client.open()
        stream.write(b"x")
        ids.append(stream.id)
        stream.close()
    ends.client.close()
    assert ends.server.iterate() == ids


@pytest.mark.everywhere
def test_serve_runs_a_limited_number_of_handlers(ends: Ends) -> None:
    go = threading.Event()
    started = threading.Semaphore(0)
    count = threading.Semaphore(2)

    def handle(stream: StreamSide) -> None:
        assert count.acquire(blocking=False)
        started.release()
        assert go.wait(PATIENCE)
        stream.write(b"done")
        count.release()

    with serving(ends.server, handle, 2):
        streams = [ends.client.open(eager=True) for _ in range(5)]
        for _ in range(2):
            assert started.acquire(timeout=PATIENCE)
        ends.settle()
        assert ends.server.stats().streams_accepted == 2
        go.set()
        assert [stream.read_all() for stream in streams] == [b"done"] * 5


def test_a_handler_that_raises_does_not_affect_other_streams(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(stream: StreamSide) -> None:
        word = stream.read()
        if word == b"fail":
            raise ZeroDivisionError("on request")
        stream.write(word)
        echo(stream)

    with serving(ends.server, handle):
        good, bad = ends.client.open(), ends.client.open()
        good.write(b"go on")
        assert good.read() == b"go on"  # its handler runs
        bad.write(b"fail")
        if ends.server.rules.resets:
            assert bad.wait_reset() == ends.server.seen(ErrorCode.INTERNAL_ERROR)
        else:
            assert bad.read_all() == b""
        assert good.exchange(b"after") == b"after"
    (record,) = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert record.name == "muxado"
    assert f"stream {bad.id}" in record.getMessage()
    assert "ZeroDivisionError: on request" in caplog.text


def test_a_handler_that_returns_closes_its_stream(ends: Ends) -> None:
    with serving(ends.server, lambda stream: stream.write(b"hello")):
        assert ends.client.open(eager=True).read_all() == b"hello"


def test_serve_returns_when_the_handlers_are_done(ends: Ends) -> None:
    go = threading.Event()

    def handle(stream: StreamSide) -> None:
        assert go.wait(PATIENCE)

    with serving(ends.server, handle) as future:
        stream = ends.client.open(eager=True)
        ends.settle()
        ends.client.close()
        ends.server.wait_closed()
        with pytest.raises(muxado.SessionClosed):
            stream.read()
        assert not future.done()
        go.set()
        assert future.result(PATIENCE) is None


@needs("GOAWAY codes")
def test_serve_raises_after_a_bad_end(ends: Ends) -> None:
    with serving(ends.server, echo) as future:
        stream = ends.client.open(eager=True)
        ends.client.ping()
        ends.client.abort(42)
        with pytest.raises(muxado.SessionAborted) as caught:
            future.result(PATIENCE)
        stream.close()
    assert caught.value.code == 42


@pytest.mark.everywhere
@needs("pings")
def test_ping_gives_the_round_trip(ends: Ends) -> None:
    for side in ends:
        with background(side.ping) as first, background(side.ping) as second:
            assert 0 < first.result(PATIENCE) < PATIENCE
            assert 0 < second.result(PATIENCE) < PATIENCE
        assert side.stats().rtt > 0


@needs("pings")
def test_a_ping_is_answered_while_the_application_does_nothing(
    connect: Connect,
) -> None:
    client, server = connect(ping_interval=0.05, ping_timeout=PATIENCE)
    with background(client.accept) as waiting:
        while server.stats().rtt == 0:  # pings of its own accord
            client.ping()
        client.close()
        assert isinstance(waiting.exception(PATIENCE), muxado.SessionClosed)


def test_stats_count_both_ways(ends: Ends) -> None:
    with ends.stream() as (near, far):
        near.write(b"x" * 1000)
        assert far.read_exactly(600) == b"x" * 600
        far.write(b"y" * 10)
        assert near.read_exactly(10) == b"y" * 10
        here, there = ends.client.stats(), ends.server.stats()
    assert (here.streams, here.streams_opened, here.streams_accepted) == (1, 1, 0)
    assert (there.streams, there.streams_opened, there.streams_accepted) == (1, 0, 1)
    assert (here.bytes_sent, here.bytes_received) == (1000, 10)
    assert (there.bytes_sent, there.bytes_received) == (10, 1000)
    assert (here.memory_held, there.memory_held) == (0, 400)


def test_wrong_arguments_change_nothing(ends: Ends) -> None:
    with ends.stream() as (near, far):
        for wrong in (-1, 1 << 32):
            for call in (near.reset, ends.client.go_away, ends.client.abort):
                with pytest.raises(muxado.UsageError):
                    call(wrong)
        with pytest.raises(muxado.UsageError):
            ends.client.open(priority=8)
        with pytest.raises(muxado.UsageError):
            ends.client.open(type=-1)
        near.write(b"all is well")
        assert far.read() == b"all is well"
