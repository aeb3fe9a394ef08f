"""The streams of a session: which are alive, which wait for the application, and how many count.

A stream of this side's is alive from `open` on, and the peer's from its SYN (`add_incoming`). In a
typed session the peer's has to say its type first (`expect_type`). Then it waits for the
application (`deliver`), which takes it by `accept`. Whatever ends a stream comes by `forget`, once:
every other part that knows it is told there. A stream that the peer has reset is not alive any
more, but counts in `max_incoming_streams` until the application has closed it (`released`), or a
peer could have any number of handlers run.

Heartbeats are in the table too, for their frames, but no count and no list for users has them.

Two kinds of stream have a time limit: those without their type are reset, and on a wire
that acknowledges streams those that wait long for the application are acknowledged without it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import Final

from ..errors import ErrorCode
from ..wire import Encoder
from .ledger import ACCEPTABLE, DRAINED, Ledger
from .openings import Openings
from .resets import PendingResets
from .scheduler import Scheduler
from .stalls import Stalls
from .states import DRAINING, RECV_SYN
from .stream import CoreStream
from .stream_state import TO_ECHO, TO_TYPE, StreamHost, StreamState
from .window import Window

# Of so many streams that are done it is remembered how much the peer has not read.
MOST_OWED: Final = 4096


class StreamTable(StreamHost):
    """The streams of one session.

    Attributes:
        streams: those that are alive, by id; heartbeats among them.
        accept_queue: those that wait for `accept`, by id; some may be over already.
        replies: other frames than RSTs that answer the peer, packed.
        incoming: how many streams of the peer are alive, or reset while the application still
            has them.
        heartbeats: how many more are alive that are heartbeats, which no limit counts.
        highest_accepted: the largest id of a stream that was let in.
        next_id: the id of the next stream that is opened here.
        on_end: what is called with each stream of the application's that ends, None for nothing.
        opened_count: how many were opened here.
        accepted_count: how many the application has accepted.
    """

    __slots__ = (
        "_acknowledges",
        "_due",
        "_openings",
        "_owed",
        "_refills",
        "accept_queue",
        "accepted_count",
        "heartbeats",
        "highest_accepted",
        "incoming",
        "next_id",
        "on_end",
        "opened_count",
        "replies",
        "streams",
    )

    def __init__(
        self,
        ledger: Ledger,
        encoder: Encoder,
        window: Window,
        scheduler: Scheduler[StreamState],
        stalls: Stalls,
        resets: PendingResets,
    ) -> None:
        super().__init__(ledger, encoder, window, scheduler, stalls, resets)
        rules = ledger.rules
        self.streams: dict[int, CoreStream] = {}
        # An OrderedDict has its first item at hand, which a dict seeks among the removed ones.
        self.accept_queue: OrderedDict[int, CoreStream] = OrderedDict()
        # When each stream must have said its type, or is acknowledged although the application
        # has not accepted it; by id and in the order of that time.
        self._due: OrderedDict[int, float] = OrderedDict()
        self.replies: list[bytes] = []
        self.incoming: int = 0
        self.heartbeats: int = 0
        self.highest_accepted: int = 0
        self.next_id: int = rules.first_client_id if ledger.client else rules.first_server_id
        self.opened_count: int = 0
        self.accepted_count: int = 0
        self.on_end: Callable[[CoreStream], object] | None = None
        self._acknowledges: bool = rules.unacknowledged > 0
        self._openings = scheduler if isinstance(scheduler, Openings) else None
        self._refills: bool = rules.refills
        # What the peer has not let in again of streams that are gone, by id.
        self._owed: OrderedDict[int, int] = OrderedDict()

    # Coming and going

    def open(self) -> CoreStream:
        """Add a stream that this side opens."""
        stream_id = self.next_id
        stream = CoreStream(self, stream_id, True)
        self.next_id = stream_id + 2
        self.opened_count += 1
        self.streams[stream_id] = stream
        return stream

    def add_incoming(self, stream_id: int) -> CoreStream:
        """Add a stream that the peer has opened."""
        stream = CoreStream(self, stream_id, False)
        stream.advance(RECV_SYN)
        self.streams[stream_id] = stream
        self.incoming += 1
        if stream_id > self.highest_accepted:
            self.highest_accepted = stream_id
        return stream

    def expect_type(self, stream: CoreStream) -> None:
        """Have an incoming stream say its type first, within a limited time."""
        stream.pour_into(TO_TYPE)
        ledger = self.ledger
        self._due[stream.stream_id] = ledger.now + ledger.config.type_timeout

    def type_is_known(self, stream: CoreStream) -> None:
        """Wait for a stream's type no more."""
        del self._due[stream.stream_id]

    def deliver(self, stream: CoreStream) -> None:
        """Queue a stream for `accept`."""
        self.accept_queue[stream.stream_id] = stream
        self.ledger.note(ACCEPTABLE)
        if self._acknowledges:
            self._due[stream.stream_id] = self.ledger.now + self.ledger.rules.acknowledge_after

    def accept(self) -> CoreStream | None:
        """Return the stream that waits longest for the application, None if none does."""
        if not self.accept_queue:
            return None
        stream = self.accept_queue.popitem(last=False)[1]
        stream.accepted = True
        self.accepted_count += 1
        if self._acknowledges:
            self.acknowledge(stream)
        return stream

    def acknowledge(self, stream: CoreStream) -> None:
        """Tell the peer that a stream was taken, if it was not told yet."""
        if self._due.pop(stream.stream_id, None) is not None:
            self.replies.append(self.encoder.accept(stream.stream_id))

    def acknowledged(self, stream_id: int) -> None:
        """Note that the peer has taken a stream: another may be opened."""
        openings = self._openings
        assert openings is not None  # a wire with acknowledgements has frames that open streams
        openings.acknowledged(stream_id)

    def make_heartbeat(self, stream: CoreStream) -> None:
        """Echo an incoming stream from now on: no limit and no statistics count it."""
        stream.pour_into(TO_ECHO)
        stream.accepted = True
        self.heartbeats += 1
        self.incoming -= 1
        self.check_drained()

    def reject(self, stream: CoreStream, code: int) -> None:
        """Reset a stream that the peer has misused, or that can't be served."""
        self.resets.provoke(stream.stream_id, code)
        stream.end(code, by_peer=False)

    def forget(self, stream: StreamState) -> None:
        """Drop a stream that is done."""
        stream_id = stream.stream_id
        gone = self.streams.pop(stream_id)
        if stream.sink == TO_ECHO:
            self.heartbeats -= 1
        elif not stream.local:
            # One that was reset counts until the application has closed it.
            if stream.reset_code < 0 or not stream.lingers():
                self.incoming -= 1
            if stream.sink == TO_TYPE or self._acknowledges:
                self._due.pop(stream_id, None)
            if stream.reset_code >= 0 and not stream.accepted:
                self.accept_queue.pop(stream_id, None)
        elif self._openings is not None:
            self._openings.acknowledged(stream_id)
        if self._refills and stream.reset_code < 0:
            self._note_owed(stream)
        if stream.probe_step >= 0:
            self.stalls.unblocked(stream)
        if stream.granting:
            self.window.forget(stream)
        if self.ledger.state == DRAINING:
            self.check_drained()
        if self.on_end is not None and stream.accepted and stream.sink != TO_ECHO:
            self.on_end(gone)

    def released(self) -> None:
        """Note that the application has closed a stream that was reset before."""
        self.incoming -= 1

    # Time limits

    def next_deadline(self) -> float:
        """Return when `handle_timer` is due, inf for never."""
        due = self._due
        return next(iter(due.values())) if due else inf

    def handle_timer(self, now: float) -> None:
        """Reset the streams whose type is overdue, acknowledge those that were not accepted."""
        while self.next_deadline() <= now:
            stream = self.streams[next(iter(self._due))]
            if stream.sink == TO_TYPE:
                self.reject(stream, ErrorCode.STREAM_CANCELLED)
            else:
                self.acknowledge(stream)

    # What the peer has read

    def _note_owed(self, stream: StreamState) -> None:
        """Remember how much of what was sent on a stream that is done the peer has not read."""
        owed = self.ledger.first_window - stream.send_credit
        if owed > 0:
            self._owed[stream.stream_id] = owed
            if len(self._owed) > MOST_OWED:
                self._owed.popitem(last=False)

    def refilled(self, stream_id: int, increment: int) -> None:
        """Take credit for a stream that is done."""
        owed = self._owed.get(stream_id, 0) - increment
        if owed > 0:
            self._owed[stream_id] = owed
        else:
            self._owed.pop(stream_id, None)

    def owes_nothing(self) -> bool:
        """Return whether the peer has read all that was sent, as its credit tells."""
        if self._owed:
            return False
        full = self.ledger.first_window
        return all(
            stream.send_credit >= full or stream.sink == TO_ECHO for stream in self.streams.values()
        )

    # All of them

    def clear_accept_queue(self) -> None:
        """Let nothing be accepted any more."""
        self.accept_queue.clear()

    def drop_unaccepted(self) -> None:
        """Drop the streams that were not accepted, and what they brought."""
        for stream in self.accept_queue.values():
            stream.discard_input()
        self.accept_queue.clear()

    def release(self) -> None:
        """Count no incoming stream any more: the session has ended."""
        self.incoming = 0

    def end_all(self) -> None:
        """End every stream with the session."""
        for stream in list(self.streams.values()):
            stream.end(-1, by_peer=False)

    def check_drained(self) -> None:
        """Report it if the session is draining and only heartbeats are left."""
        if self.ledger.state == DRAINING and len(self.streams) == self.heartbeats:
            self.ledger.note(DRAINED)

    def watch(self, on_end: Callable[[CoreStream], object] | None) -> None:
        """Have a function called with each stream of the application's that ends, or none.

        It is called in the middle of a step: it must not raise, nor use the session.
        """
        self.on_end = on_end

    @property
    def acceptable(self) -> int:
        """How many streams wait for `accept`."""
        return len(self.accept_queue)

    @property
    def live(self) -> int:
        """How many streams are alive, heartbeats aside."""
        return len(self.streams) - self.heartbeats

    def list_streams(self) -> list[CoreStream]:
        """Return the streams that are alive, heartbeats aside. It may be asked from any thread."""
        streams = list(self.streams.values())  # one step: no other thread changes it meanwhile
        if self.heartbeats:
            streams = [stream for stream in streams if stream.sink != TO_ECHO]
        return streams
