"""What is logged of sessions, and the formatter that writes JSON lines."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest

import muxado
from muxado.core import CoreSession
from muxado.log import JSONFormatter, Throttle
from muxado.registry import SessionRecord

from .core.peer import goaway


def record(name: str = "", *, client: bool = False) -> SessionRecord:
    return SessionRecord(CoreSession(client=client, config=muxado.Config(), now=0.0), name)


def test_beginning_and_end_are_logged_with_their_fields(caplog: pytest.LogCaptureFixture) -> None:
    seen = record("agent 7")
    with caplog.at_level(logging.INFO, "muxado.session"):
        seen.began("here", "peer")
        seen.core.receive_data(goaway(0, 403, b"not allowed"), 1.0)
        seen.core.receive_eof(1.0)
        seen.ended()
        seen.ended()
    began, ended = caplog.records
    assert (began.name, began.levelno) == ("muxado.session", logging.INFO)
    assert "session 'agent 7' with peer began" in began.getMessage()
    fields = vars(ended)
    assert vars(began)["event"] == "session_began"
    assert (fields["event"], fields["role"]) == ("session_ended", "server")
    assert (fields["session"], fields["local"], fields["peer"]) == ("agent 7", "here", "peer")
    assert (fields["code"], fields["by_peer"], fields["clean"]) == (403, True, False)
    assert "not allowed" in ended.getMessage()


def test_nothing_is_logged_of_sessions_below_info(caplog: pytest.LogCaptureFixture) -> None:
    seen = record()
    with caplog.at_level(logging.WARNING, "muxado.session"):
        seen.began(None, None)
        seen.core.abort(2, 1.0)
        seen.ended()
    assert not caplog.records


def test_a_session_that_had_no_connection_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    seen = record()
    with caplog.at_level(logging.INFO, "muxado.session"):
        seen.core.abort(2, 1.0)
        seen.ended()
    assert not caplog.records


def test_a_peer_that_speaks_http_is_a_warning_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muxado.log, "_strangers", Throttle())
    with caplog.at_level(logging.INFO, "muxado.session"):
        for _ in range(3):
            seen = record()
            seen.began("here", "peer")
            seen.core.receive_data(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n", 1.0)
            seen.ended()
    ends = [entry for entry in caplog.records if vars(entry)["event"] == "session_ended"]
    assert [entry.levelno for entry in ends] == [logging.WARNING, logging.INFO, logging.INFO]
    assert "speaks HTTP" in ends[0].getMessage()


def test_what_would_fill_the_log_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(muxado.log, "monotonic", lambda: now)
    throttle = Throttle()
    assert [throttle.count() for _ in range(4)] == [1, 0, 0, 0]
    now += 61
    assert [throttle.count() for _ in range(2)] == [4, 0]


def test_json_lines_have_the_fields() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONFormatter())
    logger = logging.Logger("muxado.session")
    logger.addHandler(handler)
    peer = ("192.0.2.1", 4000)
    logger.info("it %s", "ended", extra={"code": 0, "debug": b"good \xff\n", "peer": peer})
    try:
        raise ValueError("of its own")
    except ValueError:
        logger.exception("two\nlines", extra={"what": sys})
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["logger"], first["level"], first["message"]) == (
        "muxado.session",
        "INFO",
        "it ended",
    )
    assert (first["code"], first["debug"], first["peer"]) == (0, "good \\xff\n", list(peer))
    assert first["time"].endswith("+00:00")
    assert set(first) == {"time", "level", "logger", "message", "code", "debug", "peer"}
    assert second["message"] == "two\nlines"
    assert "ValueError: of its own" in second["exception"]
    assert second["what"] == str(sys)
