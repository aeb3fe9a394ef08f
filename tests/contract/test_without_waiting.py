"""Calls that don't wait: `read_nowait`, `write_nowait`, `on_end` and `on_stream`."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest

import muxado
from muxado import ErrorCode

from .background import background, echo, serving
from .conftest import Connect, Ends
from .sides import PATIENCE, SHORT, StreamSide
from .wires import needs

KIB = 1024
WINDOW = 64 * KIB


class Called:
    """A callback that counts."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __call__(self) -> None:
        self._calls.put(threading.current_thread().name)

    def wait(self) -> str:
        """Wait for a call; return the name of the thread that it came from."""
        return self._calls.get(timeout=PATIENCE)

    def count(self) -> int:
        """Return how many calls were not waited for."""
        return self._calls.qsize()


def read_now(stream: StreamSide, n: int = 65536) -> bytes:
    """Read, and wait for the callback where nothing is there."""
    called = Called()
    while (data := stream.read_nowait(n, called)) is None:
        called.wait()
    return data


def fill(stream: StreamSide) -> int:
    """Write until that has to wait for the peer to read; return how much was taken."""
    sent = 0
    while True:
        try:
            stream.write(bytes(WINDOW), SHORT)
        except TimeoutError:
            return sent
        sent += WINDOW


def test_read_nowait_tells_when_it_can_go_on(ends: Ends) -> None:
    with ends.stream() as (near, far):
        called = Called()
        assert far.read_nowait(10, called) is None
        near.write(b"fifteen bytes..")
        called.wait()
        assert far.read_nowait(10) == b"fifteen by"
        assert far.read_nowait(10, called) == b"tes.."
        assert far.read_nowait(10, called) is None
        near.write_eof()
        called.wait()
        assert far.read_nowait(10, called) == b""
        assert far.read_nowait(10, called) == b""
        assert called.count() == 0


def test_read_nowait_lets_the_peer_know_of_a_stream(ends: Ends) -> None:
    near = ends.client.open()
    assert near.read_nowait(1) is None
    ends.server.accept().write(b"x")
    assert read_now(near) == b"x"
    near.close()


@pytest.mark.parametrize("n", [0, -1])
def test_read_nowait_reads_at_least_one_byte(ends: Ends, n: int) -> None:
    with ends.stream() as (near, far):
        near.write(b"x")
        assert read_now(far) == b"x"
        with pytest.raises(ValueError, match="at least 1"):
            far.read_nowait(n)
        near.write(b"y")
        assert read_now(far) == b"y"


def test_a_callback_takes_the_place_of_the_one_before(ends: Ends) -> None:
    with ends.stream() as (near, far):
        first, second, third = Called(), Called(), Called()
        assert far.read_nowait(1, first) is None
        assert far.read_nowait(1, second) is None
        near.write(b"x")
        second.wait()
        assert far.read_nowait(1) == b"x"
        assert far.read_nowait(1, third) is None
        assert far.read_nowait(1) is None
        near.write(b"y")
        assert far.read() == b"y"
        assert first.count() == second.count() == third.count() == 0


@needs("windows")
def test_write_nowait_takes_all_or_nothing(connect_with_windows: Connect) -> None:
    ends = connect_with_windows(WINDOW, write_high_water=WINDOW)
    with ends.stream() as (near, far):
        sent = fill(near)
        called = Called()
        assert not near.write_nowait(b"more", called)
        assert not near.write_nowait(b"", called)
        assert called.count() == 0
        assert far.read_exactly(sent) == bytes(sent)
        called.wait()
        assert near.write_nowait(b"")
        assert near.write_nowait(b"the rest")
        near.write_eof()
        assert far.read_all() == b"the rest"


def test_write_nowait_copies_what_may_change(ends: Ends) -> None:
    with ends.stream() as (near, far):
        data = bytearray(b"before")
        assert near.write_nowait(data)  # type: ignore[arg-type]
        data[:] = b"after!"
        near.write_eof()
        assert far.read_all() == b"before"


@needs("resets")
def test_a_reset_calls_back_and_raises(connect_with_windows: Connect) -> None:
    ends = connect_with_windows(WINDOW, write_high_water=WINDOW)
    with ends.stream() as (near, far):
        reading, writing, over = Called(), Called(), Called()
        assert near.read_nowait(1, reading) is None
        fill(near)
        assert not near.write_nowait(b"x", writing)
        near.on_end(over)
        far.reset()
        for called in (reading, writing, over):
            called.wait()
        for call in (lambda: near.read_nowait(1), lambda: near.write_nowait(b"x")):
            with pytest.raises(muxado.StreamReset) as caught:
                call()
            assert caught.value.code == ends.server.seen(ErrorCode.STREAM_CANCELLED)


def test_the_end_of_the_session_calls_back_and_raises(ends: Ends) -> None:
    with ends.stream() as (near, _):
        reading, over = Called(), Called()
        assert near.read_nowait(1, reading) is None
        near.on_end(over)
        ends.server.abort(5)
        reading.wait()
        over.wait()
        error = muxado.SessionAborted if ends.server.rules.go_away else muxado.SessionError
        for call in (lambda: near.read_nowait(1), lambda: near.write_nowait(b"x")):
            with pytest.raises(error):
                call()
        late = Called()
        near.on_end(late)
        late.wait()


def test_on_end_waits_for_both_ends(ends: Ends) -> None:
    with ends.stream() as (near, far):
        over, late = Called(), Called()
        near.on_end(over)
        near.write_eof()
        assert far.read_all() == b""
        far.write(b"still")
        assert near.read() == b"still"
        assert over.count() == 0
        far.write_eof()
        over.wait()
        near.on_end(late)
        late.wait()


def test_a_call_that_waits_to_read_keeps_others_out(ends: Ends) -> None:
    with ends.stream() as (near, far):
        with background(far.read_exactly, 2) as reading:
            near.write(b"x")
            while True:  # until it waits
                try:
                    taken = far.read_nowait(1)
                except muxado.StreamBusy:
                    break
                if taken:  # it was too slow
                    near.write(taken)
            near.write(b"y")
            assert reading.result(PATIENCE) == b"xy"
        called = Called()
        assert far.read_nowait(1, called) is None
        with pytest.raises(muxado.StreamBusy):
            far.read()
        near.write(b"z")
        called.wait()
        assert far.read() == b"z"


@needs("windows")
def test_a_callback_that_waits_to_write_keeps_others_out(connect_with_windows: Connect) -> None:
    ends = connect_with_windows(WINDOW, write_high_water=WINDOW)
    with ends.stream() as (near, far):
        sent = fill(near)
        called = Called()
        assert not near.write_nowait(b"x", called)
        with pytest.raises(muxado.StreamBusy):
            near.write(b"x")
        assert far.read_exactly(sent) == bytes(sent)
        called.wait()
        near.write(b"x")


def busy_writing(stream: StreamSide) -> bool:
    """Return whether a call waits to write, on a stream that takes nothing more."""
    try:
        assert not stream.write_nowait(b"")
    except muxado.StreamBusy:
        return True
    return False


@needs("windows")
def test_a_call_that_waits_to_write_keeps_others_out(connect_with_windows: Connect) -> None:
    ends = connect_with_windows(WINDOW, write_high_water=WINDOW)
    with ends.stream() as (near, far):
        sent = fill(near)
        with background(near.write, b"x") as writing:
            while not busy_writing(near):
                assert not writing.done()
            assert far.read_exactly(sent + 1) == bytes(sent) + b"x"
            writing.result(PATIENCE)


class Echo:
    """Sends back what comes on a stream, without a task or a thread for it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.held: bytes | None = None

    def run(self) -> None:
        while True:
            if self.held is None:
                self.held = self.stream.read_nowait(16 * KIB, self.run)
                if self.held is None:
                    return
            if not self.held:
                self.stream.close()
                return
            if not self.stream.write_nowait(self.held, self.run):
                return
            self.held = None


def test_on_stream_serves_without_a_task(connect_with_windows: Connect) -> None:
    ends = connect_with_windows(WINDOW, write_high_water=WINDOW)
    ends.server.on_stream(lambda stream: Echo(stream).run())
    data = bytes(range(256)) * (16 * WINDOW // 256)
    streams = [ends.client.open() for _ in range(3)]
    for stream in streams:
        with background(stream.read_all) as reading:
            stream.write(data)
            stream.write_eof()
            assert reading.result(PATIENCE) == data
    for stream in streams:
        stream.close()


def test_on_stream_gets_streams_that_wait_already(ends: Ends) -> None:
    streams = [ends.client.open(eager=True) for _ in range(3)]
    ends.settle()
    came: queue.SimpleQueue[int] = queue.SimpleQueue()

    def take(stream: Any) -> None:
        stream.close()
        came.put(stream.id)

    ends.server.on_stream(take)
    streams.append(ends.client.open(eager=True))
    assert [came.get(timeout=PATIENCE) for _ in streams] == [stream.id for stream in streams]


def test_a_callback_that_raises_ends_its_stream(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    faults = [ZeroDivisionError("in the callback")]

    def fail(stream: Any) -> None:
        if faults:
            raise faults.pop()
        stream.close()

    ends.server.on_stream(fail)
    stream = ends.client.open(eager=True)
    if ends.server.rules.resets:
        assert stream.wait_reset() == ends.server.seen(ErrorCode.INTERNAL_ERROR)
    else:
        assert stream.read_all() == b""
    assert "in the callback" in caplog.text
    other = ends.client.open()
    assert other.read_all() == b""
    other.close()


def close(stream: Any) -> None:
    stream.close()


def test_on_stream_is_refused_while_a_call_accepts(ends: Ends) -> None:
    refusal: BaseException | None = None
    with background(ends.server.accept) as accepting:
        while refusal is None and not accepting.done():
            try:
                ends.server.on_stream(close)
            except muxado.UsageError as exc:
                refusal = exc
            else:
                ends.server.on_stream(None)
        ends.client.open(eager=True)
        # If it began while the callback was there, it was refused itself.
        refusal = refusal or accepting.exception(PATIENCE)
    assert isinstance(refusal, muxado.UsageError)


def test_what_accepts_is_refused_while_on_stream_does(ends: Ends) -> None:
    ends.server.on_stream(close)
    with pytest.raises(muxado.UsageError, match="on_stream"):
        ends.server.accept()
    with pytest.raises(muxado.UsageError, match="on_stream"):
        ends.server.serve(lambda stream: None)
    ends.server.on_stream(None)
    stream = ends.client.open(eager=True)
    assert ends.server.accept().id == stream.id
    with pytest.raises(TimeoutError):
        ends.server.accept(SHORT)


def test_on_stream_is_refused_while_serve_runs(ends: Ends) -> None:
    with serving(ends.server, echo):
        stream = ends.client.open()
        stream.write(b"x")
        assert stream.read() == b"x"
        with pytest.raises(muxado.UsageError, match="serve takes"):
            ends.server.on_stream(close)
        stream.close()
