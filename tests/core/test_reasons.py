"""The words for the end of a session."""

from __future__ import annotations

import pytest

from muxado.core.reasons import LONG_SILENCE, cut_hint, goaway_text, silence_hint, streams_text
from muxado.errors import ErrorCode, GoAway


@pytest.mark.parametrize(
    ("debug", "text"),
    [
        (b"", "PROTOCOL_ERROR (1)"),
        (b"why", "PROTOCOL_ERROR (1): why"),
        ("später".encode(), "PROTOCOL_ERROR (1): später"),
        (b"\xff", r"PROTOCOL_ERROR (1): \xff"),
        (b"a\nlog line of the peer's", r"PROTOCOL_ERROR (1): a\nlog line of the peer's"),
    ],
)
def test_a_goaway_is_told_in_one_line(debug: bytes, text: str) -> None:
    assert goaway_text(GoAway(ErrorCode.PROTOCOL_ERROR, debug)) == text


def test_streams_are_counted_in_words() -> None:
    assert (streams_text(1), streams_text(2)) == ("1 stream", "2 streams")


def test_only_a_peer_that_may_expect_tls_is_asked_about_it() -> None:
    assert "TLS" in cut_hint(True)
    assert cut_hint(False) == ""


def test_a_long_silence_before_the_end_is_told_and_what_pings_there_were() -> None:
    assert silence_hint(LONG_SILENCE - 0.1, 15.0) == ""
    hint = silence_hint(60.0, 15.0)
    assert "idle for 60 s" in hint
    assert "ping_interval is 15 s" in hint
    assert "ping_interval is None" in silence_hint(60.0, None)
