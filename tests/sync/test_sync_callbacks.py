"""Callbacks of a session run on its own thread, which must not wait, and may do all else."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import pytest

import muxado
from muxado.sync import Session, Stream
from tests.patience import patience

from .conftest import Ends
from .helpers import PATIENCE, opened, receive_all

pytestmark = pytest.mark.timeout(patience(10))  # what they look for are deadlocks


@pytest.mark.parametrize(
    "call",
    [
        Stream.wait_closed,
        Stream.wait_reset,
        Stream.wait_readable,
        lambda stream: stream.recv(1),
        lambda stream: stream.session.accept(),
        lambda stream: stream.session.ping(),
        lambda stream: stream.session.shutdown(),
        lambda stream: stream.session.wait_closed(),
    ],
)
def test_a_call_that_would_wait_raises_in_a_callback(
    ends: Ends, call: Callable[[Stream], object]
) -> None:
    client, server = ends
    outcome: queue.SimpleQueue[object] = queue.SimpleQueue()

    def wait(stream: Stream) -> None:
        server.on_stream(None)
        with stream:
            try:
                outcome.put(call(stream))
            except muxado.UsageError as exc:
                outcome.put(exc)

    server.on_stream(wait)
    with client.open(eager=True) as stream:
        assert "must not wait" in str(outcome.get(timeout=PATIENCE))
        stream.settimeout(PATIENCE)
        assert receive_all(stream) == b""


def test_a_callback_runs_on_the_sessions_thread(ends: Ends) -> None:
    client, server = ends
    threads: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
    with opened(client, server) as (near, far):
        assert far.read_nowait(1, lambda: threads.put(threading.current_thread())) is None
        near.sendall(b"x")
        thread = threads.get(timeout=PATIENCE)
        assert thread.name == "muxado session"
        far.on_end(lambda: threads.put(threading.current_thread()))
        near.reset()
        assert threads.get(timeout=PATIENCE) is thread
        far.on_end(lambda: threads.put(threading.current_thread()))
        assert threads.get(timeout=PATIENCE) is thread


def test_callbacks_of_two_sessions_use_each_others_streams(ends: Ends) -> None:
    """As a relay does; each session's lock is free while its callbacks run."""
    client, server = ends
    with opened(client, server) as (one, far_one), opened(client, server) as (two, far_two):
        # The client's thread and the server's each write to the other session's stream.
        passed = [0, 0]
        done = threading.Event()

        def pass_on(source: Stream, target: Stream, index: int) -> None:
            def pump() -> None:
                while (data := source.read_nowait(100, pump)) is not None:
                    passed[index] += len(data)
                    if passed[index] < 20000 and target.write_nowait(data):
                        continue
                    if min(passed) >= 20000:
                        done.set()
                    return

            pump()

        pass_on(far_one, one, 0)
        pass_on(two, far_two, 1)
        for _ in range(50):
            one.sendall(bytes(1000))
            far_two.sendall(bytes(1000))
        assert done.wait(PATIENCE)


def test_what_a_callback_raises_is_logged(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    client, server = ends

    def fail() -> None:
        raise ZeroDivisionError("in the callback")

    with opened(client, server) as (near, far):
        over = threading.Event()
        assert far.read_nowait(1, fail) is None
        near.reset()
        far.on_end(over.set)
        assert over.wait(PATIENCE)
    assert "in the callback" in caplog.text


def test_a_callback_is_called_though_its_session_has_ended(ends: Ends) -> None:
    client, server = ends
    with opened(client, server) as (near, _):
        client.abort()
        client.wait_closed(PATIENCE)
        over = threading.Event()
        near.on_end(over.set)
        assert over.wait(PATIENCE)


def test_on_stream_and_a_listener_exclude_each_other(ends: Ends) -> None:
    _, server = ends
    listener = server.listener()
    with pytest.raises(muxado.UsageError, match="a listener takes"):
        server.on_stream(Stream.close)
    listener.close()
    server.on_stream(Stream.close)
    with pytest.raises(muxado.UsageError, match="on_stream"):
        server.listener()


def test_a_session_may_be_ended_in_a_callback(ends: Ends) -> None:
    client, server = ends

    def end(session: Session) -> Callable[[], object]:
        return lambda: session.abort(9)

    with opened(client, server) as (near, far):
        assert far.read_nowait(1, end(server)) is None
        near.sendall(b"x")
        assert client.wait_closed(PATIENCE).code == 9
