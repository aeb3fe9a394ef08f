"""How sessions end, and what is left of them."""

from __future__ import annotations

import gc
import logging
import queue
import socket
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest

from muxado import Config, ErrorCode, sync, testing
from muxado.sync import Session, Stream, listening, workers

from .conftest import Ends
from .helpers import PATIENCE, background, echo

HOST = "127.0.0.1"


class Faulty(socket.socket):
    """A transport of the user's, with a bug in it."""

    def recv_into(self, *args: Any) -> int:
        raise ZeroDivisionError("on purpose")


def test_a_fault_in_the_io_thread_is_the_sessions_end(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: queue.SimpleQueue[threading.ExceptHookArgs] = queue.SimpleQueue()
    monkeypatch.setattr(threading, "excepthook", reports.put)
    near, far = socket.socketpair()
    with far, sync.client(Faulty(fileno=near.detach())) as session:
        far.sendall(b"x")
        session.wait_closed(PATIENCE)
        assert session.close_reason is not None
        assert isinstance(session.close_reason.exception, ZeroDivisionError)
        assert "on purpose" in session.close_reason.message
    assert reports.get(timeout=PATIENCE).exc_type is ZeroDivisionError


def test_an_ended_session_needs_no_collector() -> None:
    others = set(threading.enumerate())
    gc.collect()
    gc.disable()
    try:
        with testing.sync_pair() as (client, server):
            with client.open() as near:
                near.sendall(b"x")
                with server.accept() as far:
                    far.recv(1)
            threads = set(threading.enumerate()) - others
        drivers = [weakref.ref(session._driver) for session in (client, server)]
        del client, server, near, far
        for thread in threads:
            thread.join(PATIENCE)
        assert [driver() for driver in drivers] == [None, None]
    finally:
        gc.enable()


def test_the_descriptor_is_closed_when_waiting_for_that_returns() -> None:
    for _ in range(20):
        near, far = socket.socketpair()
        with far, sync.client(near) as session:
            session.abort()
            session.wait_closed(PATIENCE)
            assert near.fileno() == -1


class Pool(ThreadPoolExecutor):
    """One thread, and a count of the jobs for it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.submitted = threading.Semaphore(0)

    def submit(self, *args: Any, **kwds: Any) -> Future[Any]:
        future = super().submit(*args, **kwds)
        self.submitted.release()
        return future

    def cancel(self, count: int) -> None:
        """Cancel the jobs that have not begun, once there were so many in all."""
        for _ in range(count):
            assert self.submitted.acquire(timeout=PATIENCE)
        self.shutdown(wait=False, cancel_futures=True)


# Servers


def test_leaving_a_server_by_an_exception_aborts_what_its_handlers_have_closed() -> None:
    closed = threading.Event()

    def close(session: Session) -> None:
        session.close()
        closed.set()
        session.wait_closed()

    server = sync.serve(close, HOST, 0, config=Config(close_timeout=PATIENCE))
    with socket.create_connection(server.addresses[0]):
        assert closed.wait(PATIENCE)
        started = monotonic()
        with pytest.raises(ZeroDivisionError), server:
            raise ZeroDivisionError
        assert monotonic() - started < PATIENCE / 2


@pytest.fixture
def busy() -> Iterator[tuple[sync.Server, threading.Event]]:
    """A server whose handler does something else, until it is let go."""
    begun, let_go = threading.Event(), threading.Event()

    def handle(session: Session) -> None:
        begun.set()
        assert let_go.wait(PATIENCE)

    with sync.serve(handle, HOST, 0) as server, sync.connect(*server.addresses[0]):
        assert begun.wait(PATIENCE)
        yield server, let_go
        let_go.set()


def test_waiting_for_a_server_takes_its_timeout_once_and_not_for_each_session() -> None:
    begun, let_go = threading.Semaphore(0), threading.Event()

    def handle(session: Session) -> None:
        begun.release()
        assert let_go.wait(PATIENCE)

    with sync.serve(handle, HOST, 0) as server, ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(sync.connect(*server.addresses[0]))
            assert begun.acquire(timeout=PATIENCE)
        started = monotonic()
        with pytest.raises(TimeoutError):
            server.wait_closed(0.5)
        assert 0.5 <= monotonic() - started < 30 * 0.5 / 2
        let_go.set()


def test_shutting_a_server_down_gives_up_on_a_handler_that_is_elsewhere(
    busy: tuple[sync.Server, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "LAST_MOMENT", 0.01)
    server, let_go = busy
    with background(server.shutdown, 0.01) as ending:
        with pytest.raises(TimeoutError, match="timed out"):
            ending.result(PATIENCE / 2)
        let_go.set()
    server.wait_closed(PATIENCE)


def test_a_session_whose_handler_was_cancelled_is_aborted() -> None:
    begun, let_go = threading.Event(), threading.Event()

    def handle(session: Session) -> None:
        begun.set()
        assert let_go.wait(PATIENCE)

    pool = Pool()
    with (
        sync.serve(handle, HOST, 0, executor=pool) as server,
        sync.connect(*server.addresses[0]),
    ):
        assert begun.wait(PATIENCE)
        with sync.connect(*server.addresses[0]) as waiting:
            pool.cancel(2)
            waiting.wait_closed(PATIENCE)
            assert waiting.close_reason is not None
            assert waiting.close_reason.code == ErrorCode.INTERNAL_ERROR
        let_go.set()


def test_a_handler_that_its_stream_has_failed_is_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    accepted = threading.Event()

    def handle(session: Session) -> None:
        with session.accept(PATIENCE) as stream:
            accepted.set()
            stream.recv(1)

    with sync.serve(handle, HOST, 0) as server, sync.connect(*server.addresses[0]) as client:
        with client.open(eager=True) as stream:
            assert accepted.wait(PATIENCE)
            stream.reset()
        client.wait_closed(PATIENCE)
    assert all(entry.levelno < logging.WARNING for entry in caplog.records)


# Handlers of streams


def test_a_stream_whose_handler_was_cancelled_is_refused(ends: Ends) -> None:
    client, server = ends
    begun, let_go = threading.Event(), threading.Event()

    def handle(stream: Stream) -> None:
        begun.set()
        assert let_go.wait(PATIENCE)

    pool = Pool()
    with background(lambda: server.serve(handle, executor=pool, limit=2)) as serving:
        with client.open(eager=True), client.open(eager=True) as waiting:
            assert begun.wait(PATIENCE)
            pool.cancel(2)
            assert waiting.wait_reset(PATIENCE) == ErrorCode.STREAM_REFUSED
            let_go.set()
        client.close()
        serving.result(PATIENCE)


def test_the_threads_of_a_burst_end_after_it(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE_TIME", 0.01)
    client, server = ends
    before = set(threading.enumerate())
    with background(server.serve, echo):
        for _ in range(2):
            streams = [client.open(eager=True) for _ in range(8)]
            for stream in streams:
                stream.sendall(b"x")
                assert stream.recv(1) == b"x"
            used = {
                thread
                for thread in set(threading.enumerate()) - before
                if thread.name == "muxado stream"
            }
            assert len(used) == 8
            for stream in streams:
                stream.close()
            for thread in used:
                thread.join(PATIENCE)
                assert not thread.is_alive()
        client.close()


# Sessions and streams without a reference


def test_a_dropped_listener_warns_and_is_closed() -> None:
    before = set(threading.enumerate())
    listener = sync.listen(HOST, 0)
    place = listener.addresses[0]
    (thread,) = set(threading.enumerate()) - before
    with pytest.warns(ResourceWarning, match="unclosed listener"):
        del listener
    thread.join(PATIENCE)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place)


def test_a_dropped_session_warns_and_is_aborted() -> None:
    near, far = socket.socketpair()
    with far:
        far.settimeout(PATIENCE)
        holder = [sync.client(near)]
        holder[0].listener()
        holder.clear()
        with pytest.warns(ResourceWarning, match="unclosed session"):
            gc.collect()
        while far.recv(1000):
            pass
