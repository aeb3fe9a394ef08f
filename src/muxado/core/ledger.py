"""What several parts of a session must read, and who stores it.

A part of a session is given the ledger, never the whole session. The ledger decides nothing; its
fields are stored by one module each, which the tables name and `tests/core/test_ledger.py` checks
in the sources. What one part alone reads of another is no field here: it is asked of that part.

`Ledger`, one for a session:

    client          -               True for the end that dialled
    config          session         the settings
    rules           -               what the wire format asks for
    first_window    -               bytes that each side may send on a new stream
    now             session         the time, as the last call told it
    state           closing         one of the session states
    reason          closing         why the session ended, None while it hasn't
    error_class     closing         what its users get raised
    closed_here     closing         True after `close` or `abort`: even buffered data can't be read
    discard_input   sender          True once nothing can be answered: input is thrown away
    eof_received    session         True once the transport's input has ended
    queued          stream_state    bytes written and not sent, of all streams
    wakes           ledger          waiters to wake; streams append to it
    events          ledger          what `take_events` returns

`StreamLedger`, the part of a stream that others than the stream store or act on:

    stream_id       stream_state    the id on the wire
    state           stream_state    one of the stream states
    priority        stream          higher sends first
    scheduled       scheduler       True while the stream waits for its turn to send
    accepted        stream_table    True once the application has the stream
    acknowledged    receiver        True once anything came back for the stream
    inbox           window          the bytes that can be read, None if there are none
    claimed         window          how many of them a reader has claimed: their credit was granted
    recv_credit     window          bytes that the peer may still send
    recv_granted    window          bytes that the peer was ever allowed to send
    window          window          the window last granted, which the credit refills up to
    granting        window          True while a grant waits to be sent
    epoch           window          the last measuring interval in which the stream was counted
    probe_at        stalls          when the peer is asked next whether the stream still lives
    probe_step      stalls          how often it was asked, -1 if it is not asked
"""

from __future__ import annotations

from itertools import islice
from typing import Final, TypeVar

from ..config import Config
from ..errors import CloseReason, SessionClosed, SessionError
from ..wire import Rules
from .buffers import Inbox
from .states import IDLE, RUNNING

# What `take_events` reports.
ACCEPTABLE: Final = 1  # a stream waits for accept()
ANSWERED: Final = 2  # a ping was answered
DRAINED: Final = 4  # the last stream of a draining session is done
ENDING: Final = 8  # the session is closing or has ended
GOAWAY: Final = 16  # one side has told the other to open no more streams


class Ledger:
    """What the parts of a session read of each other. The module's head says who stores what."""

    __slots__ = (
        "client",
        "closed_here",
        "config",
        "discard_input",
        "eof_received",
        "error_class",
        "events",
        "first_window",
        "now",
        "queued",
        "reason",
        "rules",
        "state",
        "wakes",
    )

    def __init__(self, client: bool, config: Config, rules: Rules, now: float) -> None:
        self.client: bool = client
        self.config: Config = config
        self.rules: Rules = rules
        self.first_window: int = config.initial_window or rules.first_window
        self.now: float = now
        self.state: int = RUNNING
        self.reason: CloseReason | None = None
        self.error_class: type[SessionError] = SessionClosed
        self.closed_here: bool = False
        self.discard_input: bool = False
        self.eof_received: bool = False
        self.queued: int = 0
        self.wakes: list[object] = []
        self.events: int = 0

    def note(self, event: int) -> None:
        """Have an event reported."""
        self.events |= event

    def take_events(self) -> int:
        """Return the events since the last call, as a bit set, and forget them."""
        events = self.events
        self.events = 0
        return events

    def take_wakes(self) -> list[object]:
        """Return the waiters to wake, and forget them."""
        wakes = self.wakes
        self.wakes = []
        return wakes

    def failure(self) -> SessionError:
        """Return a fresh copy of the error that the session's users get now."""
        reason = self.reason
        if reason is None:
            return SessionClosed("the session is closed")
        return self.error_class(reason.message, code=reason.code or None, reason=reason)


class StreamLedger:
    """The part of a stream that other parts store. The module's head says who stores what."""

    __slots__ = (
        "accepted",
        "acknowledged",
        "claimed",
        "epoch",
        "granting",
        "inbox",
        "priority",
        "probe_at",
        "probe_step",
        "recv_credit",
        "recv_granted",
        "scheduled",
        "state",
        "stream_id",
        "window",
    )

    def __init__(self, stream_id: int, local: bool, window: int) -> None:
        self.stream_id: int = stream_id
        self.state: int = IDLE
        self.priority: int = 0
        self.scheduled: bool = False
        self.accepted: bool = local
        self.acknowledged: bool = False
        self.inbox: Inbox | None = None
        self.claimed: int = 0
        self.recv_credit: int = window
        self.recv_granted: int = window
        self.window: int = window
        self.granting: bool = False
        self.epoch: int = 0
        self.probe_at: float = 0.0
        self.probe_step: int = -1


S = TypeVar("S", bound=StreamLedger)


def take_first(waiting: dict[int, S], most: int) -> list[S]:
    """Remove and return the streams that wait longest, at most so many.

    They wait by their ids: a stream that ends must be found at once, or a peer that reads nothing
    could have us keep any number, or search for long.
    """
    if len(waiting) <= most:
        batch = list(waiting.values())
        waiting.clear()
        return batch
    batch = list(islice(waiting.values(), max(most, 0)))
    for stream in batch:
        del waiting[stream.stream_id]
    return batch
