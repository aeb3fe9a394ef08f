"""What a session and its streams have done so far, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["SessionStats", "StreamSnapshot"]


@dataclass(frozen=True, kw_only=True)
class SessionStats:
    """A snapshot of a session's figures. Heartbeat streams are not counted.

    A counter only grows; a gauge is the present value.

    Attributes:
        streams: gauge: streams alive now.
        streams_opened: counter: streams opened by this side.
        streams_accepted: counter: streams handed to this side's application.
        frames_sent: counter: frames handed over for sending.
        frames_received: counter: frames parsed.
        bytes_sent: counter: payload bytes of the streams handed over for sending.
        bytes_received: counter: payload bytes of the streams received.
        rtt: gauge: the last measured round trip in seconds, 0 if there was none yet.
        min_rtt: gauge: the smallest of the last 10 to 20 seconds, 0 if there was none yet.
        stalls: counter: how often a stream had data to send and no credit left.
        resets_sent: counter: RSTs queued for sending; answers to pings are none.
        resets_received: counter: RSTs received for streams that were alive; answers to pings are
            none.
        refusals: counter: streams of the peer that were refused.
        resets_sent_by_code: counters: `resets_sent` by error code. Of the codes that programs
            choose themselves the first 64 are told apart; others count as UNKNOWN (255).
        resets_received_by_code: counters: `resets_received` by error code, likewise.
        refusals_by_code: counters: `refusals` by error code.
        memory_held: gauge: bytes received and not yet read, including those of readers that wait
            for more.
        bytes_queued: gauge: bytes written and not yet sent.
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
    resets_sent_by_code: Mapping[int, int]
    resets_received_by_code: Mapping[int, int]
    refusals_by_code: Mapping[int, int]
    memory_held: int
    bytes_queued: int


@dataclass(frozen=True, kw_only=True)
class StreamSnapshot:
    """What a stream is doing.

    A counter only grows; a gauge is the present value.

    Attributes:
        id: the stream's number.
        type: its 32-bit type in a session with `Config.typed`, else None.
        direction: "out" if this side opened it, "in" if the peer did.
        state: as the stream's repr says it: "idle" (the peer has not heard of it), "open",
            "local-done" (this side's FIN is out), "remote-done" (the peer's FIN is in), "closed".
        age: gauge: whole seconds since it was opened here, or came.
        bytes_sent: counter: payload bytes handed over for sending.
        bytes_received: counter: payload bytes received.
        unread: gauge: bytes received and not yet read.
        queued: gauge: bytes written and not yet sent.
        waits_for: what it waits for, () if for nothing. "type": the peer has not said the
            stream's type; "accept": the application has not accepted it; "data": a reader waits
            for the peer to send; "reader": what has come waits to be read; "credit": what is
            queued waits for the peer to read; "turn": what is queued can be sent, and waits for
            the connection.
    """

    id: int
    type: int | None
    direction: str
    state: str
    age: int
    bytes_sent: int
    bytes_received: int
    unread: int
    queued: int
    waits_for: tuple[str, ...]
