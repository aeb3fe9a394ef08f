"""What a client's log says while its server can't be used: each reason once, and the end."""

from __future__ import annotations

import logging
import ssl

import pytest

from muxado.cluster import Denied
from muxado.tunnel.outages import MOST_REASONS, Outages, why


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "muxado.tunnel")


def test_each_reason_is_said_once_and_the_end_too(caplog: pytest.LogCaptureFixture) -> None:
    outages = Outages()
    outages.over()
    assert caplog.messages == []
    for _ in range(3):
        outages.failed(ConnectionRefusedError("refused"), "server:4443")
    outages.failed(TimeoutError(), "server:4443")
    assert len(caplog.messages) == 2
    assert "server:4443 can't be reached: refused" in caplog.messages[0]
    assert "took too long" in caplog.messages[1]
    outages.over()
    outages.over()
    assert caplog.messages[2:] == ["there is a session with the server"]


def test_a_server_that_refuses_is_not_said_to_be_out_of_reach(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Outages().failed(Denied("no such client"), "server:4443")
    (line,) = caplog.messages
    assert "can't be used: no such client" in line


def test_the_end_of_a_session_that_has_lasted_is_always_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outages = Outages()
    outages.lost(ConnectionResetError("reset"))  # no session was there for a long time
    outages.lost(ConnectionResetError("reset"))
    outages.over()
    outages.lost(ConnectionResetError("reset"))  # and this one was short
    outages.lost(None)
    lines = [line for line in caplog.messages if "any more" in line]
    assert [line.partition(";")[0] for line in lines] == [
        "there is no session with the server any more: reset",
        "there is no session with the server any more: reset",
        "there is no session with the server any more",
    ]


def test_of_very_many_reasons_the_first_ones_are_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outages = Outages()
    for _ in range(2):
        for number in range(MOST_REASONS + 1):
            outages.failed(OSError(f"reason {number}"), "server")
    assert len(caplog.messages) == 2 * (MOST_REASONS + 1)


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (OSError("no route"), "no route"),
        (TimeoutError(), "it took too long"),
        (TimeoutError("within 5 s"), "within 5 s"),
        (EOFError(), "EOFError"),
    ],
)
def test_an_exception_without_words_gets_some(exc: BaseException, text: str) -> None:
    assert why(exc) == text


def test_a_port_without_tls_is_named() -> None:
    near, far = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(near, far, server_hostname="server")
    near.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ssl.SSLError) as caught:
        client.do_handshake()
    assert why(caught.value) == "what is there speaks no TLS"
