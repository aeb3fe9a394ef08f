"""A stream as the other parts of its session see it: what frames do to it, and how it ends.

`CoreStream` in `stream.py` is the same object as its user sees it, and adds no field. Here are the
fields, the frames that it sends, the credit that comes in, the waking of calls that wait,
and the one way out: `end`, after which the table has forgotten the stream. A stream ends in order
when both FINs are through (`_fin_is_out` and the receiver's own), or when it was closed here and
its FIN is out (`_leave`); otherwise by a RST of either side, or with its session.

Everything that a call changes beyond the stream goes through its `StreamHost`, which the table of
streams is: receive credit to `window`, the turn to send to `scheduler`, a RST to `resets`. The
fields that those store are declared in `ledger.StreamLedger`; the others are stored here and in
`stream.py`.
"""

from __future__ import annotations

from typing import Final

from ..errors import ErrorCode
from ..wire import Encoder
from .buffers import SMALL, Outbox
from .ledger import Ledger, StreamLedger
from .resets import PendingResets
from .scheduler import HIGHEST_PRIORITY, Scheduler
from .stalls import Stalls
from .states import (
    CLOSED,
    IDLE,
    LOCAL_DONE,
    OPEN,
    RECV_FIN,
    RESET,
    SEND_FIN,
    SEND_SYN,
    STREAM_TABLE,
)
from .window import Window

# Where the bytes go that come in on a stream.
TO_READER: Final = 0
TO_TYPE: Final = 1  # the stream's type isn't complete yet
TO_ECHO: Final = 2  # back: Go's heartbeat
DISCARD: Final = 3  # nowhere: closed here, and only still sending

TYPE_SIZE: Final = 4

# A credit sum is unbounded on the wire; this keeps it in a machine word.
MOST_CREDIT: Final = 1 << 60


class StreamHost:
    """What the streams of a session share; the table of streams is one.

    Attributes:
        encoder: packs the frames.
        ledger: what the parts of the session share.
        window: grants receive credit.
        scheduler: the streams that have something to send.
        stalls: the streams that wait for credit.
        resets: the RSTs that wait to be sent.
        opens_apart: whether a stream is opened by a frame of its own.
        fin_rides: whether the last DATA frame may end its direction.
    """

    __slots__ = (
        "encoder",
        "fin_rides",
        "ledger",
        "opens_apart",
        "resets",
        "scheduler",
        "stalls",
        "window",
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
        self.ledger: Ledger = ledger
        self.encoder: Encoder = encoder
        self.window: Window = window
        self.scheduler: Scheduler[StreamState] = scheduler
        self.stalls: Stalls = stalls
        self.resets: PendingResets = resets
        self.opens_apart: bool = ledger.rules.opens_apart
        self.fin_rides: bool = ledger.rules.fin_rides

    def forget(self, stream: StreamState) -> None:
        """Drop a stream that is done."""
        raise NotImplementedError

    def released(self) -> None:
        """Note that the application has closed a stream that was reset before."""
        raise NotImplementedError


class StreamState(StreamLedger):
    """The fields of a stream, and what the parts of its session do to it.

    Attributes:
        local: True if this side opened it.
        type: the stream's type in a typed session, and where a wire's frames carry one; else None.
        peer_priority: the priority that the peer has given it, None where no wire carries one.
        opened_at: when it was made, in whole seconds.
        sink: where the bytes go that come in.
        outbox: the unsent bytes, None if there are none.
        send_credit: bytes the peer still lets us send.
        send_granted: bytes this side was ever allowed to send.
        eof_received: True once the peer's FIN is in.
        fin_asked: True once this side writes no more.
        fin_sent: True once this side's FIN is out.
        closed_here: True after `close` or `reset`.
        dropped: True if unread or unsent bytes were thrown away.
        reset_code: the code of the RST that ended the stream, -1 if none did.
        reset_by_peer: True if that RST came from the peer.
        read_waiter: the waiter of a call that reads, None if none waits.
        write_waiter: the same for a call that writes.
        end_waiters: the waiters of calls that wait for the FIN to go out, or for the end.
    """

    __slots__ = (
        "_host",
        "closed_here",
        "dropped",
        "end_waiters",
        "eof_received",
        "fin_asked",
        "fin_sent",
        "local",
        "opened_at",
        "outbox",
        "peer_priority",
        "read_waiter",
        "reset_by_peer",
        "reset_code",
        "send_credit",
        "send_granted",
        "sink",
        "type",
        "write_waiter",
    )

    def __init__(self, host: StreamHost, stream_id: int, local: bool) -> None:
        window = host.ledger.first_window
        super().__init__(stream_id, local, window)
        self._host: StreamHost = host
        self.local: bool = local
        self.type: int | None = None
        self.peer_priority: int | None = None
        self.opened_at: int = int(host.ledger.now)
        self.sink: int = TO_READER

        self.outbox: Outbox | None = None
        self.send_credit: int = window
        self.send_granted: int = window
        self.fin_asked: bool = False
        self.fin_sent: bool = False
        self.eof_received: bool = False

        self.closed_here: bool = False
        self.dropped: bool = False
        self.reset_code: int = -1
        self.reset_by_peer: bool = False

        self.read_waiter: object | None = None
        self.write_waiter: object | None = None
        self.end_waiters: list[object] | None = None

    # States

    def advance(self, event: int) -> None:
        """Go to the next state; the table has no answer for what can't happen."""
        state = STREAM_TABLE[self.state][event]
        assert state >= 0
        self.state = state
        if event == SEND_FIN:
            self.fin_sent = True
        elif event == RECV_FIN:
            self.eof_received = True

    def input_open(self) -> bool:
        """Return whether the peer may still send data."""
        return self.state == OPEN or self.state == LOCAL_DONE

    def lingers(self) -> bool:
        """Return whether a stream of the peer was reset while the application works for it.

        Until the application has closed it, it counts in `max_incoming_streams`: a peer that opens
        streams and resets them could otherwise have any number of handlers run.
        """
        return (
            self.reset_code >= 0
            and self.accepted
            and not self.closed_here
            and not self.local
            and self.sink == TO_READER
        )

    def unread(self) -> int:
        """Return how many bytes can be read at once."""
        inbox = self.inbox
        return inbox.size if inbox is not None else 0

    def queued(self) -> int:
        """Return how many written bytes are still to be sent."""
        outbox = self.outbox
        return outbox.size if outbox is not None else 0

    def input_wanted(self) -> bool:
        """Return whether bytes are unread, or a reader waits for some."""
        return self.unread() > 0 or self.read_waiter is not None

    def output_unsent(self) -> bool:
        """Return whether bytes or the FIN are unsent, or a writer waits.

        A FIN alone says nothing new to a peer that has said its own.
        """
        unsent = self.queued() > 0 or (
            self.fin_asked and not self.fin_sent and not self.eof_received
        )
        return unsent or self.write_waiter is not None

    # What comes in

    def pour_into(self, sink: int) -> None:
        """Have the bytes that come go elsewhere from now on."""
        self.sink = sink

    def take_type(self, type: int) -> None:
        """Take note of what type the stream was given."""
        self.type = type

    def take_priority(self, priority: int) -> None:
        """Take note of the priority that the peer has given the stream."""
        self.peer_priority = priority
        self.priority: int = min(priority, HIGHEST_PRIORITY)

    def drop(self, chunk: bytes) -> None:
        """Throw bytes away that came after the stream was closed here."""
        self.dropped = True
        self._host.window.pass_over(self, len(chunk))

    def discard_input(self) -> None:
        """Throw the unread bytes away."""
        if self.inbox is not None:
            self._host.window.discard(self)

    # What goes out

    def queue(self, data: bytes) -> None:
        """Queue bytes for sending; at least one, and they must not change any more."""
        outbox = self.outbox
        if outbox is None:
            self.outbox = Outbox(data)
        else:
            outbox.append(data)
        host = self._host
        host.ledger.queued += len(data)
        if not self.scheduled:
            if self.send_credit > 0:
                host.scheduler.add(self)
            elif outbox is None:
                host.stalls.blocked(self)

    def say_type(self, type: int) -> None:
        """Begin the stream with its type; called once, when it was opened here."""
        self.type = type
        self.outbox = Outbox(type.to_bytes(TYPE_SIZE, "big"))
        self._host.ledger.queued += TYPE_SIZE

    def echo(self, data: bytes) -> None:
        """Queue what a heartbeat has sent; no stall of a heartbeat is looked after."""
        if self.outbox is None:
            self.outbox = Outbox(data)
        else:
            self.outbox.append(data)
        host = self._host
        host.ledger.queued += len(data)
        if not self.scheduled and self.send_credit > 0:
            host.scheduler.add(self)

    def send_frame(self, most: int, out: list[bytes | bytearray | memoryview]) -> int:
        """Cut the stream's next frame, and queue the stream again if it has another.

        Args:
            most: how many bytes of payload it may have.
            out: what the frame is added to.

        Returns:
            how many bytes of payload it has; -1 if there was no frame to send.
        """
        host = self._host
        outbox = self.outbox
        queued = outbox.size if outbox is not None else 0
        length = most
        if length > queued:
            length = queued
        elif queued - length < SMALL and queued > length:
            length = queued >> 1  # or a few bytes would be left for a frame of their own
        if length > self.send_credit:
            length = self.send_credit
        opens = self.state == IDLE
        if opens and host.opens_apart:
            return self._send_opening(out)
        # FIN rides on the last data, but never on a SYN: a Go peer could then not answer
        # (docs/protocol.md section 13, no. 3).
        ends = self.fin_asked and length == queued and not opens and (length == 0 or host.fin_rides)
        if not (length or opens or ends):  # the peer has taken its credit back
            host.stalls.blocked(self)
            return -1
        out.append(host.encoder.data_header(self.stream_id, length, opens, ends))
        if length:
            assert outbox is not None
            outbox.take(length, out)
            self.send_credit -= length
            ledger = host.ledger
            ledger.queued -= length
            queued -= length
            if not queued:
                self.outbox = None
            if self.write_waiter is not None and queued < ledger.config.write_high_water:
                self.wake_writer()
        if opens:
            self.advance(SEND_SYN)
        if ends:
            self._fin_is_out()
        elif queued:
            if self.send_credit > 0:
                host.scheduler.add(self)
            else:
                host.stalls.blocked(self)
        elif self.fin_asked:
            host.scheduler.add(self)
        return length

    def _send_opening(self, out: list[bytes | bytearray | memoryview]) -> int:
        """Open the stream by a frame of its own."""
        host = self._host
        out.append(host.encoder.open(self.stream_id, self.type or 0, max(self.priority, 0)))
        self.advance(SEND_SYN)
        if self.fin_asked or (self.outbox is not None and self.send_credit > 0):
            host.scheduler.add(self)
        return 0

    # Credit

    def credit_told(self, consumed: int, window: int) -> bool:
        """Take the credit that the peer has told as a total.

        Returns:
            False if it says that it has consumed more than was sent.
        """
        sent = self.send_granted - self.send_credit
        under_way = sent - consumed & 0xFFFFFFFF
        if under_way > 0x7FFFFFFF:
            return False
        credit = max(window - under_way, 0)
        self.send_granted = sent + credit
        self.send_credit = credit
        if credit and self.outbox is not None and not self.scheduled:
            host = self._host
            if self.probe_step >= 0:
                host.stalls.unblocked(self)
            host.scheduler.add(self)
        return True

    def credit_received(self, increment: int) -> None:
        """Take credit that the peer has granted."""
        credit = self.send_credit + increment
        self.send_granted += increment
        if credit > MOST_CREDIT:
            self.send_granted -= credit - MOST_CREDIT
            credit = MOST_CREDIT
        self.send_credit = credit
        if self.outbox is not None and not self.scheduled:
            host = self._host
            if self.probe_step >= 0:
                host.stalls.unblocked(self)
            host.scheduler.add(self)

    # Ending

    def _fin_is_out(self) -> None:
        self.advance(SEND_FIN)
        if self.state == CLOSED:
            self._host.forget(self)
        elif self.closed_here:
            self._leave()
        self.wake_end()

    def _leave(self) -> None:
        """Forget the stream that was closed here, as Go does, once its FIN is out.

        A peer that may be waiting to write is told that this side reads no more.
        """
        tell = self._host.ledger.rules.resets
        if tell and not self.eof_received and (self.dropped or self.recv_credit <= 0):
            self._host.resets.ask(self.stream_id, int(ErrorCode.STREAM_CLOSED), self.local)
        self.end(-1, by_peer=False)

    def session_closes(self) -> bool:
        """End what the application has of the stream, but send what it wrote.

        Returns:
            whether that cuts the stream off: something is unread, or waited for.
        """
        if self.sink == TO_ECHO and self._host.ledger.rules.heartbeats_outlive:
            return False
        cut = self.sink != TO_ECHO and self.input_wanted()
        self.discard_input()
        unannounced = self.state == IDLE and not self.scheduled
        if unannounced or self.sink == TO_ECHO:
            self.end(-1, by_peer=False)
        else:
            self.sink = DISCARD
            self.wake_all()
        return cut

    def end(self, code: int, by_peer: bool) -> None:
        """Leave the session, once: reset with a code, or with the session's end if it is -1."""
        self.advance(RESET)
        self.reset_code = code
        self.reset_by_peer = by_peer
        host = self._host
        if self.scheduled:
            host.scheduler.drop(self)
        unsent = self.queued()
        if unsent:
            host.ledger.queued -= unsent
            self.dropped = True
        self.outbox = None
        if code >= 0 and not self.accepted:
            self.discard_input()
        host.forget(self)
        self.wake_all()

    # Waking

    def wake_reader(self) -> None:
        """Wake the reader that waits, if one does."""
        if self.read_waiter is not None:
            self._host.ledger.wakes.append(self.read_waiter)
            self.read_waiter = None

    def wake_writer(self) -> None:
        """Wake the writer that waits."""
        self._host.ledger.wakes.append(self.write_waiter)
        self.write_waiter = None

    def wake_end(self) -> None:
        """Wake the calls that wait for the end."""
        if self.end_waiters is not None:
            self._host.ledger.wakes.extend(self.end_waiters)
            self.end_waiters = None

    def wake_all(self) -> None:
        """Wake every call that waits on the stream."""
        if self.read_waiter is not None:
            self.wake_reader()
        if self.write_waiter is not None:
            self.wake_writer()
        if self.end_waiters is not None:
            self.wake_end()
