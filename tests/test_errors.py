"""The error tree: what each error is besides, its errno, its text, and that it can be pickled."""

from __future__ import annotations

import errno
import pickle
import ssl
from typing import Any

import pytest

import muxado
from muxado.errors import CloseReason, code_name

REASON = CloseReason(7, b"enough", True, "over", OSError(errno.EHOSTUNREACH, "no route"))

SESSION_ERRORS: dict[type[muxado.SessionError], tuple[int, int]] = {
    muxado.SessionError: (255, errno.ECONNRESET),
    muxado.SessionClosed: (14, errno.ECONNRESET),
    muxado.SessionAborted: (2, errno.ECONNRESET),
    muxado.ProtocolError: (1, errno.ECONNRESET),
    muxado.PeerTimeout: (255, errno.ETIMEDOUT),
    muxado.PeerGone: (11, errno.ESHUTDOWN),
    muxado.StreamsExhausted: (12, errno.EADDRNOTAVAIL),
}
STREAM_ERRORS: list[tuple[muxado.StreamError, int]] = [
    (muxado.StreamClosed("closed"), errno.EPIPE),
    (muxado.StreamReset("reset", code=6, by_peer=True), errno.ECONNRESET),
    (muxado.StreamRefused("refused", code=5, by_peer=True), errno.ECONNRESET),
]


@pytest.mark.parametrize("kind", SESSION_ERRORS, ids=lambda kind: kind.__name__)
def test_a_sessions_error_has_code_errno_and_plain_text(kind: type[muxado.SessionError]) -> None:
    error = kind("it is over")
    assert (error.code, error.errno) == SESSION_ERRORS[kind]
    assert str(error) == "it is over"
    assert error.reason is None
    assert isinstance(error, ConnectionError)
    assert not isinstance(error, TimeoutError)
    assert kind("x", code=0).code == 0


@pytest.mark.parametrize(("error", "number"), STREAM_ERRORS, ids=lambda value: str(value))
def test_a_streams_error_has_an_errno_and_plain_text(
    error: muxado.StreamError, number: int
) -> None:
    assert isinstance(error, OSError)
    assert error.errno == number
    assert str(error) in ("closed", "reset", "refused")


@pytest.mark.parametrize(
    ("cause", "number"),
    [
        (OSError(errno.EHOSTUNREACH, "no route"), errno.EHOSTUNREACH),
        (BrokenPipeError(errno.EPIPE, "gone"), errno.EPIPE),
        (TimeoutError(errno.ETIMEDOUT, "late"), errno.ETIMEDOUT),
        (ConnectionResetError("Connection lost"), errno.ECONNRESET),
        (ssl.SSLError(1, "a number of TLS's own"), errno.ECONNRESET),
        (ValueError("no errno at all"), errno.ECONNRESET),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_transports_errno_is_passed_on(cause: BaseException, number: int) -> None:
    reason = CloseReason(255, b"", True, "lost", cause)
    assert muxado.SessionError("lost", reason=reason).errno == number


@pytest.mark.parametrize(
    "error",
    [
        *(kind("over", code=7, reason=REASON) for kind in SESSION_ERRORS),
        *(error for error, _ in STREAM_ERRORS),
        muxado.UsageError("wrong"),
        muxado.ConfigError("wrong"),
        muxado.StreamBusy("busy"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error: Any) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.code == error.code
    for name in ("errno", "by_peer"):
        assert getattr(copy, name, None) == getattr(error, name, None)
    if isinstance(error, muxado.SessionError):
        assert copy.reason.debug == b"enough"
        assert str(copy.reason) == "over"


def test_codes_have_names() -> None:
    assert code_name(2) == "INTERNAL_ERROR (2)"
    assert code_name(403) == "code 403"


@pytest.mark.parametrize(
    ("error", "closed_here"),
    [
        (muxado.StreamClosed("closed"), True),
        (muxado.StreamReset("reset", code=6, by_peer=False), True),
        (muxado.StreamReset("reset", code=6, by_peer=True), False),
        (muxado.SessionClosed("closed"), True),
        (muxado.SessionClosed("closed", reason=CloseReason(0, b"", False, "closed")), True),
        (muxado.SessionClosed("closed", reason=CloseReason(0, b"", True, "closed")), False),
        (muxado.ProtocolError("broken", reason=CloseReason(1, b"", False, "broken")), False),
        (muxado.UsageError("no"), False),
    ],
)
def test_an_error_tells_whether_this_side_had_ended_what_the_call_was_for(
    error: muxado.MuxadoError, closed_here: bool
) -> None:
    assert error.closed_here == closed_here
