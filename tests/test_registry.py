"""Sessions of every front end can be told apart and looked at."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from time import time
from typing import Any

import pytest
import trio

import muxado
import muxado.sync
import muxado.testing
import muxado.trio
from muxado.base_session import BaseSession
from muxado.core import CoreSession
from muxado.registry import Ended, SessionRecord, Sessions, here
from tests.forking import living_child, needs_fork
from tests.patience import patience

PATIENCE = patience(10)

Look = Callable[[BaseSession[Any]], None]


def on_asyncio(sock: socket.socket, name: str, look: Look) -> None:
    async def main() -> None:
        async with muxado.connect(sock=sock, name=name) as session:
            look(session)

    asyncio.run(main())


def on_threads(sock: socket.socket, name: str, look: Look) -> None:
    with muxado.sync.connect(sock=sock, name=name) as session:
        look(session)


def on_trio(sock: socket.socket, name: str, look: Look) -> None:
    async def main() -> None:
        wrapped = trio.socket.from_stdlib_socket(sock)
        async with muxado.trio.connect(sock=wrapped, name=name) as session:
            look(session)

    trio.run(main)


@pytest.fixture(params=[on_asyncio, on_threads, on_trio], ids=["asyncio", "threads", "trio"])
def dial(request: pytest.FixtureRequest) -> Callable[[str, Look], None]:
    """Dials a session over a pair of sockets, and looks at it while it lives."""

    def dial(name: str, look: Look) -> None:
        near, far = socket.socketpair()
        with muxado.sync.server(far):
            request.param(near, name, look)

    return dial


def test_a_session_is_called_as_it_was_dialled(
    dial: Callable[[str, Look], None], caplog: pytest.LogCaptureFixture
) -> None:
    def look(session: BaseSession[Any]) -> None:
        assert session.name == "hub"
        assert "'hub'" in repr(session)
        session.name = "old hub"
        assert time() - 60 < session.opened_at <= time()

    with caplog.at_level(logging.INFO, "muxado.session"):
        dial("hub", look)
    told = [vars(record) for record in caplog.records if vars(record)["role"] == "client"]
    names = [(fields["event"], fields["session"]) for fields in told]
    assert names == [("session_began", "hub"), ("session_ended", "old hub")]


@pytest.mark.parametrize(
    "dial", [muxado.connect, muxado.sync.connect, muxado.trio.connect], ids=lambda f: f.__module__
)
def test_a_name_is_a_string(dial: Callable[..., Awaitable[object]]) -> None:
    with pytest.raises(muxado.UsageError, match="name must be a string"):
        dial("localhost", 1, name=7)


def seen(name: str) -> muxado.SessionSnapshot:
    (found,) = [each for each in muxado.sessions() if each.name == name]
    return found


def test_the_sessions_of_every_front_end_are_listed(
    dial: Callable[[str, Look], None],
) -> None:
    def look(session: BaseSession[Any]) -> None:
        found = seen("listed")
        assert (found.role, found.wire, found.state) == ("client", "muxado v2", "open")
        assert found.opened_at == session.opened_at
        assert found.opened_at <= found.last_heard_at == session.last_heard_at
        assert found.stats == session.stats()
        session.go_away()
        assert seen("listed").state == "draining"

    dial("listed", look)
    assert "listed" not in [each.name for each in muxado.sessions()]


def test_sessions_are_told_apart_and_have_their_addresses() -> None:
    with (
        muxado.sync.serve(muxado.sync.Session.wait_closed, "127.0.0.1", 0) as server,
        muxado.sync.connect(*server.addresses[0], name="a") as one,
        muxado.sync.connect(*server.addresses[0], name="b"),
    ):
        first, second = seen("a"), seen("b")
        assert first.id < second.id
        assert first.local_address == one.local_address
        assert first.remote_address == server.addresses[0]


def test_what_was_heard_last_is_told_in_the_clock_of_the_wall() -> None:
    with muxado.testing.sync_pair() as (near, _):
        near.ping()
        assert near.opened_at < near.last_heard_at <= time() + 1
        before = near.last_heard_at
        near.ping()
        assert near.last_heard_at > before


def test_streams_are_told_of() -> None:
    with muxado.testing.sync_pair() as (near, far):
        assert near.streams() == []
        stream = near.open()
        stream.sendall(b"hello")
        with far.accept() as other:
            (out,) = near.streams()
            (into,) = far.streams()
            assert (out.id, out.direction, out.bytes_sent, out.type) == (3, "out", 5, None)
            other.settimeout(PATIENCE)
            assert other.recv(5) == b"hello"
            (into,) = far.streams()
            assert (into.id, into.direction, into.bytes_received, into.unread) == (3, "in", 5, 0)
            assert into.age >= 0
        stream.close()


def test_looking_waits_for_no_session_that_is_at_work() -> None:
    """A session's lock may be held for as long as one likes."""
    with muxado.testing.sync_pair() as (near, _):
        near.name = "busy"
        stream = near.open(eager=True)
        with near._driver.lock:  # by this very thread, where other calls would raise
            with pytest.raises(muxado.UsageError):
                near.stats()
            looked: list[object] = []
            thread = threading.Thread(
                target=lambda: looked.extend([seen("busy"), near.streams(), near.last_heard_at])
            )
            thread.start()
            thread.join(PATIENCE)
            assert len(looked) == 3
            assert len(near.streams()) == 1
        stream.reset()


def test_streams_may_come_and_go_while_another_thread_looks() -> None:
    over = threading.Event()
    failures: list[BaseException] = []

    with muxado.testing.sync_pair() as (near, far):

        def look() -> None:
            try:
                while not over.is_set():
                    for session in (near, far):
                        session.streams()
                    muxado.sessions()
            except BaseException as exc:
                failures.append(exc)

        looking = threading.Thread(target=look)
        looking.start()
        try:
            for _ in range(100):
                kept = [near.open(eager=True) for _ in range(10)]
                for stream in kept:
                    stream.reset()
        finally:
            over.set()
            looking.join(PATIENCE)
    assert failures == []


def test_streams_are_logged_once_that_is_asked_for(
    dial: Callable[[str, Look], None], caplog: pytest.LogCaptureFixture
) -> None:
    def look(session: BaseSession[Any]) -> None:
        session.open().reset()
        caplog.set_level(logging.DEBUG, "muxado.stream")
        stream = session.open()
        stream.reset(403)

    dial("logged", look)
    records = [record for record in caplog.records if record.name == "muxado.stream"]
    assert {record.levelno for record in records} == {logging.DEBUG}
    opened, ended = map(vars, records)
    assert (opened["event"], opened["stream"], opened["direction"]) == ("stream_opened", 5, "out")
    assert (ended["event"], ended["stream"], ended["session"]) == ("stream_ended", 5, "logged")
    assert (ended["code"], ended["by_peer"], ended["bytes_sent"]) == (403, False, 0)
    assert "reset by this side: code 403" in records[1].getMessage()


def test_accepted_streams_are_logged_with_how_they_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "muxado.stream")
    with muxado.testing.sync_pair() as (near, far):
        near.name = far.name = "both"
        stream = near.open()
        stream.sendall(b"12345")
        stream.write_eof()
        with far.accept() as other:
            other.settimeout(PATIENCE)
            while other.recv(10):
                pass
            other.sendall(b"123")
        stream.settimeout(PATIENCE)
        while stream.recv(10):
            pass
        kept = [near.open(eager=True), far.accept()]
    told = [(vars(record)["event"], record.getMessage()) for record in caplog.records]
    ends = [text for event, text in told if event == "stream_ended"]
    assert "stream 3 with both accepted" in [text for _, text in told]
    assert "stream 3 with both ended, at its end: 3 bytes sent, 5 received" in ends
    assert "stream 3 with both ended, at its end: 5 bytes sent, 3 received" in ends
    assert len([text for text in ends if "stream 5 with both ended, with its session" in text]) == 2
    del kept


def test_ended_sessions_leave_their_counts_behind() -> None:
    before = here.ended().get(("leaves", "client"), Ended())
    with muxado.testing.sync_pair() as (near, _):
        near.name = "leaves"
        near.open(eager=True).reset(403)
        near.ping()
    left = here.ended()["leaves", "client"]
    assert left.stats.resets_sent_by_code[403] == 1
    assert left.stats.streams_opened - before.stats.streams_opened == 1
    assert (left.stats.streams, left.stats.rtt) == (0, 0)
    assert left.ends == {(0, True, True): 1}


def test_names_are_counted_apart_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muxado.registry, "MOST_NAMES", 2)
    kept = Sessions()
    for name in ("a", "b", "c", "d", "a"):
        core = CoreSession(client=True, config=muxado.Config(), now=0.0)
        record = SessionRecord(core, name)
        record.join(kept)
        record.began(None, None)
        core.abort(2, 1.0)
        record.ended()
    assert {key: sum(ended.ends.values()) for key, ended in kept.ended().items()} == {
        ("a", "client"): 2,
        ("b", "client"): 1,
        ("", "client"): 2,
    }
    assert kept.begun == 5


def test_a_session_that_ends_before_its_server_has_it_is_counted() -> None:
    kept = Sessions()
    record = SessionRecord(CoreSession(client=True, config=muxado.Config(), now=0.0), "short")
    record.began(None, None)
    record.core.abort(2, 1.0)
    record.ended()
    record.join(kept)
    assert (len(kept), kept.begun) == (0, 1)
    assert kept.ended()["short", "client"].ends == {(2, False, False): 1}


def test_a_session_that_is_dropped_with_its_loop_is_forgotten() -> None:
    kept = Sessions()
    record = SessionRecord(CoreSession(client=True, config=muxado.Config(), now=0.0))
    record.join(kept)
    record.began(None, None)
    assert len(kept) == 1
    del record
    gc.collect()
    assert len(kept) == 0
    assert kept.records() == []


@needs_fork
def test_a_forked_child_has_none_of_its_parents_sessions() -> None:
    def look() -> None:
        assert muxado.sessions() == []
        assert here.total().frames_sent == 0

    with muxado.testing.sync_pair() as (near, _):
        near.name = "the parent's"
        near.ping()
        assert here.total().frames_sent > 0
        with living_child(look):
            assert seen("the parent's").state == "open"
