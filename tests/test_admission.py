"""The limits above a session, and what a server tells of itself, on every front end."""

from __future__ import annotations

import logging
import socket
from contextlib import ExitStack
from typing import Any

import pytest

import muxado
import muxado.sync
import muxado.trio
from muxado.admission import Admission
from tests.certificates import Tls
from tests.serving import FRONT_ENDS, PATIENCE, until

KIB = 1024


@pytest.fixture(params=FRONT_ENDS.values(), ids=list(FRONT_ENDS))
def serve(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_more_sessions_than_allowed_are_refused_and_told_why(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(max_sessions=2) as server, ExitStack() as stack:
        address = server.addresses[0]
        kept = [stack.enter_context(muxado.sync.connect(*address)) for _ in range(2)]
        until(lambda: len(server.sessions) == 2)  # and both are counted by then
        with (
            caplog.at_level(logging.WARNING, "muxado.session"),
            muxado.sync.connect(*address) as refused,
        ):
            reason = refused.wait_closed(PATIENCE)
            assert (reason.code, reason.by_peer) == (muxado.ErrorCode.ENHANCE_YOUR_CALM, True)
            assert b"as many sessions" in reason.debug
            with pytest.raises(muxado.SessionAborted):
                refused.open()
        (told,) = [vars(each) for each in caplog.records if each.levelno == logging.WARNING]
        assert (told["event"], told["count"], told["max_sessions"]) == ("sessions_refused", 1, 2)
        stats = server.stats()
        assert (stats.sessions, stats.sessions_accepted, stats.sessions_refused) == (2, 2, 1)

        kept[0].close()
        until(lambda: server.stats().sessions == 1)
        with muxado.sync.connect(*address) as again:
            until(lambda: server.stats().sessions_accepted == 3)
            again.ping(PATIENCE)


def test_the_memory_of_all_sessions_has_one_limit(serve: Any) -> None:
    with serve(max_receive_memory=300 * KIB) as server, ExitStack() as stack:
        address = server.addresses[0]
        clients = [stack.enter_context(muxado.sync.connect(*address)) for _ in range(3)]
        streams = []
        for client in clients:
            stream = stack.enter_context(client.open())
            stream.sendall(bytes(100 * KIB))
            streams.append(stream)
        until(lambda: server.stats().total.memory_held == 300 * KIB)
        with clients[0].open() as too_much:
            too_much.sendall(b"x")
            assert too_much.wait_reset(PATIENCE) == muxado.ErrorCode.ENHANCE_YOUR_CALM
        assert not any(client.closed for client in clients)
        assert not any(stream.is_reset for stream in streams)

        clients[1].abort()
        until(lambda: server.stats().sessions == 2)
        with clients[0].open() as fits:
            fits.sendall(bytes(100 * KIB))
            until(lambda: server.stats().total.memory_held == 300 * KIB)
            assert not fits.is_reset


def test_a_server_counts_what_its_ended_sessions_did(serve: Any) -> None:
    with serve() as server:
        for _ in range(2):
            with muxado.sync.connect(*server.addresses[0]) as session:
                stream = session.open()
                stream.sendall(bytes(1000))
                stream.reset(403)
                session.ping(PATIENCE)
        until(lambda: server.stats().sessions_accepted == 2)
        until(lambda: server.stats().sessions == 0)
        stats = server.stats()
        assert stats.total.bytes_received == 2000
        assert dict(stats.total.resets_received_by_code) == {403: 2}
        assert (stats.total.streams, stats.total.memory_held, stats.total.rtt) == (0, 0, 0)


def test_failed_handshakes_are_counted_and_many_are_a_warning(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(ssl=Tls().server) as server, caplog.at_level(logging.INFO, "muxado"):
        for number in range(1, 12):
            with socket.create_connection(server.addresses[0]) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                sock.settimeout(PATIENCE)
                try:
                    while sock.recv(1000):
                        pass
                except OSError:
                    pass
            until(lambda number=number: server.stats().handshakes_failed == number)  # type: ignore[misc]
        until(lambda: server.stats().handshakes == 0)
    warnings = [vars(record) for record in caplog.records if record.levelno == logging.WARNING]
    (told,) = [fields for fields in warnings if fields.get("event") == "handshakes_failed"]
    assert told["count"] == 10
    assert "speaks HTTP" in told["message"]


@pytest.mark.parametrize("limit", ["max_sessions", "max_receive_memory"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "7"])
def test_a_limit_is_a_whole_number(limit: str, value: object) -> None:
    options: dict[str, Any] = {limit: value}
    with pytest.raises(muxado.UsageError, match=f"{limit}= must be a whole number"):
        Admission(**options)
    serve: Any
    for serve in (muxado.serve, muxado.serve_streams, muxado.sync.serve, muxado.sync.serve_streams):
        with pytest.raises(muxado.UsageError, match=limit):
            serve(lambda _: None, "127.0.0.1", 0, **options)
