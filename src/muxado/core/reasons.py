"""The words for the end of a session: hints, and what a GOAWAY has said."""

from __future__ import annotations

from typing import Final

from ..errors import ErrorCode, GoAway, code_name

# After so many seconds in which nothing came, a cut may be that of something on the way.
LONG_SILENCE: Final = 5.0

# What a GOAWAY says of a broken protocol. With any other code a program has ended the session.
BREACHES: Final = (
    ErrorCode.PROTOCOL_ERROR,
    ErrorCode.FLOW_CONTROL_ERROR,
    ErrorCode.FRAME_SIZE_ERROR,
)


def goaway_text(goaway: GoAway) -> str:
    """Return a GOAWAY's code and words, for a message of one line."""
    text = goaway.debug.decode("utf-8", "backslashreplace")
    if not text.isprintable():  # or a peer could write lines of its own into a log
        text = ascii(text)[1:-1]
    name = code_name(goaway.code)
    return f"{name}: {text}" if text else name


def streams_text(count: int) -> str:
    """Return a number of streams in words."""
    return "1 stream" if count == 1 else f"{count} streams"


def cut_hint(may_expect_tls: bool) -> str:
    """Return what it may mean that a connection ends before the peer has said anything."""
    return ": does it expect TLS?" if may_expect_tls else ""


def silence_hint(seconds: float, ping_interval: float | None) -> str:
    """Return what a cut may come from that follows a silence; "" if it was short."""
    if seconds < LONG_SILENCE:
        return ""
    pings = "None" if ping_interval is None else f"{ping_interval:g} s"
    return f", idle for {seconds:.0f} s (a proxy's idle timeout? ping_interval is {pings})"
