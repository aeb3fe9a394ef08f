"""What a session has done so far, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SessionStats"]


@dataclass(frozen=True, kw_only=True)
class SessionStats:
    """A snapshot of a session's counters. Heartbeat streams are not counted.

    Attributes:
        streams: streams alive now.
        streams_opened: streams opened by this side, ever.
        streams_accepted: streams handed to this side's application, ever.
        frames_sent: frames handed over for sending.
        frames_received: frames parsed.
        bytes_sent: payload bytes of the streams handed over for sending.
        bytes_received: payload bytes of the streams received.
        rtt: the last measured round trip in seconds, 0 if there was none yet.
        min_rtt: the smallest of the last 10 to 20 seconds, 0 if there was none yet.
        stalls: how often a stream had data to send and no credit left.
        resets_sent: RSTs queued for sending.
        resets_received: RSTs received for streams that were alive.
        refusals: streams of the peer that were refused.
        memory_held: bytes received and not yet read.
        bytes_queued: bytes written and not yet sent.
    """

    streams: int
    streams_opened: int
    streams_accepted: int
    frames_sent: int
    frames_received: int
    bytes_sent: int
    bytes_received: int
    rtt: float
    min_rtt: float
    stalls: int
    resets_sent: int
    resets_received: int
    refusals: int
    memory_held: int
    bytes_queued: int
