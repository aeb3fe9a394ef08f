"""What one stream does: data, ends, resets, and waiting calls that give up."""

from __future__ import annotations

import gc
import queue
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import muxado
from muxado import ErrorCode

from .background import background, echo, serving
from .conftest import Connect, Ends
from .sides import PATIENCE, SHORT, StreamSide, check_family
from .wires import needs

MIB = 1024 * 1024


def write_until_full(stream: StreamSide) -> int:
    """Write until that has to wait, and return how much was taken."""
    piece = bytes(32 * 1024)
    sent = 0
    while sent < 2 * MIB:
        try:
            stream.write(piece, SHORT)
        except TimeoutError:
            break
        sent += len(piece)
    return sent


@pytest.mark.everywhere
def test_echo(ends: Ends) -> None:
    with serving(ends.server, echo):
        stream = ends.client.open()
        assert stream.exchange(b"hello" * 1000) == b"hello" * 1000
        stream.close()


@pytest.mark.everywhere
def test_both_sides_open_streams(ends: Ends) -> None:
    near, far = ends.client.open(), ends.server.open()
    near.write(b"from the client")
    far.write(b"from the server")
    at_server, at_client = ends.server.accept(), ends.client.accept()
    assert near.id == at_server.id
    assert far.id == at_client.id
    assert (near.id % 2, far.id % 2) == (1, 0)
    assert at_server.read() == b"from the client"
    assert at_client.read() == b"from the server"


@pytest.mark.everywhere
def test_a_half_closed_stream_still_gets_its_reply(ends: Ends) -> None:
    with ends.stream() as (near, far):
        near.write(b"question")
        near.write_eof()
        assert far.read_all() == b"question"
        with pytest.raises(muxado.StreamClosed) as caught:
            near.write(b"too late")
        check_family(caught.value)
        # More than the window lets out at once: credit still goes the way that has ended.
        answer = random.Random(5).randbytes(MIB)

        def reply() -> None:
            for at in range(0, MIB, MIB // 4):
                far.write(answer[at : at + MIB // 4])
            far.write_eof()

        with background(reply) as replying:
            assert near.read_all() == answer
            replying.result(PATIENCE)
        assert near.wait_reset() is None
        assert far.wait_reset() is None


def test_the_end_can_be_read_again(ends: Ends) -> None:
    with ends.stream() as (near, far):
        near.write_eof()
        near.write_eof()
        assert far.read() == b""
        assert far.read() == b""


def test_reading_first_announces_the_stream(ends: Ends) -> None:
    near = ends.client.open()
    with background(near.read) as reading:
        far = ends.server.accept()
        far.write(b"you are heard")
        assert reading.result(PATIENCE) == b"you are heard"
    near.close()
    far.close()


@needs("lazy opens")
def test_a_stream_never_announced_leaves_no_trace(ends: Ends) -> None:
    ends.client.open().close()
    ends.client.open().reset()
    ends.client.ping()
    assert ends.server.stats().frames_received <= 2  # the ping
    with pytest.raises(TimeoutError):
        ends.server.accept(SHORT)


@needs("reset codes")
@pytest.mark.parametrize("code", [0, ErrorCode.INTERNAL_ERROR, 0xFFFFFFFF])
def test_a_reset_carries_its_code(ends: Ends, code: int) -> None:
    for by_client in (True, False):
        with ends.stream() as (near, far):
            resetting, other = (near, far) if by_client else (far, near)
            with (
                background(other.wait_reset) as waiting,
                background(other.read) as reading,
            ):
                resetting.reset(code)
                assert waiting.result(PATIENCE) == code
                with pytest.raises(muxado.StreamReset) as caught:
                    reading.result(PATIENCE)
            assert (caught.value.code, caught.value.by_peer) == (code, True)
            check_family(caught.value)
            for call in (resetting.read, lambda stream=resetting: stream.write(b"x")):
                with pytest.raises(muxado.StreamReset) as caught:
                    call()
                assert (caught.value.code, caught.value.by_peer) == (code, False)
            assert resetting.wait_reset() == code
            with pytest.raises(muxado.StreamReset):
                other.write(b"x")


@pytest.mark.everywhere
@needs("resets")
def test_what_came_before_a_reset_can_be_read(ends: Ends) -> None:
    with ends.stream() as (near, far):
        near.write(b"before")
        assert far.read(3) == b"bef"
        near.reset()
        code = ends.client.seen(ErrorCode.STREAM_CANCELLED)
        assert far.wait_reset() == code
        assert far.read() == b"ore"
        with pytest.raises(muxado.StreamReset) as caught:
            far.read()
        assert caught.value.code == code


def test_after_close_nothing_can_be_done(ends: Ends) -> None:
    with ends.stream() as (near, far):
        near.write(b"last")
        near.close()
        near.close()
        for call in (near.read, lambda: near.write(b"x")):
            with pytest.raises(muxado.StreamClosed):
                call()
        assert far.read_all() == b"last"


@needs("resets")
def test_close_tells_a_peer_that_goes_on_writing(ends: Ends) -> None:
    with ends.stream() as (near, far):
        far.write(b"unread")
        assert near.read(1) == b"u"
        near.close()
        assert far.wait_reset() == ends.client.seen(ErrorCode.STREAM_CLOSED)


@pytest.mark.everywhere
@needs("windows")
def test_a_write_waits_while_the_reader_does_not_read(ends: Ends) -> None:
    with ends.stream() as (near, far):
        sent = write_until_full(near)
        # The window is full, and the queue up to its high-water mark.
        window = ends.client.rules.first_window
        assert window < sent <= window + (64 + 32) * 1024
        with background(near.write, b"the end") as writing:
            assert not writing.done()
            assert far.read_exactly(sent) == bytes(sent)
            writing.result(PATIENCE)
        near.write_eof()
        assert far.read_all() == b"the end"


def test_a_read_that_gives_up_loses_nothing(ends: Ends) -> None:
    with ends.stream() as (near, far):
        for number in range(5):
            with pytest.raises(TimeoutError):
                far.read(100, SHORT / 5)
            near.write(b"%d" % number)
            assert far.read(100) == b"%d" % number


def test_an_accept_that_gives_up_loses_nothing(ends: Ends) -> None:
    with pytest.raises(TimeoutError):
        ends.server.accept(SHORT)
    with ends.stream() as (near, far):
        assert near.id == far.id


def test_a_waiting_reader_is_woken_by_close(ends: Ends) -> None:
    with ends.stream() as (near, _), background(near.read) as reading:
        ends.settle()
        near.close()
        with pytest.raises(muxado.StreamClosed):
            reading.result(PATIENCE)


@pytest.mark.everywhere
@needs("resets")
def test_a_waiting_writer_is_woken_by_a_reset(ends: Ends) -> None:
    with ends.stream() as (near, far):
        near.write(bytes(MIB))
        with background(near.write, b"more") as writing:
            ends.settle()
            far.reset()
            with pytest.raises(muxado.StreamReset) as caught:
                writing.result(PATIENCE)
        assert caught.value.code == ends.server.seen(ErrorCode.STREAM_CANCELLED)


@pytest.mark.everywhere
def test_a_hundred_streams_at_once(ends: Ends) -> None:
    def ask(number: int) -> None:
        stream = ends.client.open()
        request = random.Random(number).randbytes(1000 + number)
        assert stream.exchange(request) == request
        stream.close()

    with serving(ends.server, echo), ThreadPoolExecutor(100) as pool:
        for answer in [pool.submit(ask, number) for number in range(100)]:
            answer.result(PATIENCE)
        stats = ends.server.stats()
    assert stats.streams_accepted == 100


def test_four_mebibytes_both_ways(ends: Ends) -> None:
    there, back = (
        random.Random(1).randbytes(4 * MIB),
        random.Random(2).randbytes(4 * MIB),
    )

    def send(stream: StreamSide, data: bytes) -> None:
        for at in range(0, len(data), MIB // 2):
            stream.write(data[at : at + MIB // 2])
        stream.write_eof()

    with (
        ends.stream() as (near, far),
        background(send, near, there),
        background(send, far, back),
        background(far.read_all) as arriving,
    ):
        assert near.read_all() == back
        assert arriving.result(PATIENCE) == there


@pytest.mark.everywhere
@needs("refusal")
def test_a_refused_stream_says_so(connect: Connect) -> None:
    ends = connect(max_incoming_streams=1)
    with ends.stream():
        second = ends.client.open()
        kind = muxado.StreamRefused if ends.client.rules.codes else muxado.StreamReset
        with pytest.raises(kind) as caught:
            second.read()
        assert caught.value.code == ends.server.seen(ErrorCode.STREAM_REFUSED)
        check_family(caught.value)


@needs("resets", "refusal")
def test_streams_that_are_opened_and_reset_start_no_more_handlers_than_may_be_open(
    connect: Connect,
) -> None:
    ends = connect(max_incoming_streams=3, accept_backlog=3)
    started: queue.SimpleQueue[int] = queue.SimpleQueue()
    finish = threading.Event()

    def work(stream: StreamSide) -> None:
        started.put(stream.id)
        finish.wait(PATIENCE)

    with serving(ends.server, work):
        for _ in range(3):
            stream = ends.client.open(eager=True)
            assert started.get(timeout=PATIENCE) == stream.id
            stream.reset()
        for _ in range(10):
            stream = ends.client.open(eager=True)
            assert stream.wait_reset() == ends.server.seen(ErrorCode.STREAM_REFUSED)
        assert started.empty()
        finish.set()
        while True:  # until the handlers are done
            stream = ends.client.open(eager=True)
            try:
                assert stream.read() == b""
            except muxado.StreamReset:
                continue
            break
        assert started.get(timeout=PATIENCE) == stream.id


@needs("resets", "refusal")
def test_a_reset_stream_counts_until_it_is_dropped(connect: Connect) -> None:
    ends = connect(max_incoming_streams=2)
    for _ in range(2):
        stream = ends.client.open(eager=True)
        far = ends.server.accept()
        stream.reset()
        assert far.wait_reset() == ends.client.seen(ErrorCode.STREAM_CANCELLED)
    refused = ends.client.open(eager=True)
    assert refused.wait_reset() == ends.server.seen(ErrorCode.STREAM_REFUSED)
    del far
    ends.server.drop_streams()
    gc.collect()
    ends.server.ping()  # what is dropped is released on the session's own loop or thread
    ends.client.open().write(b"x")
    assert ends.server.accept().read() == b"x"
