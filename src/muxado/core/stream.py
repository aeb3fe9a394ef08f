"""One stream: its two halves, its buffers and its end.

Everything that a call changes beyond the stream goes through its `StreamHost`, which the table of
streams is: receive credit to `window`, the turn to send to `scheduler`, a RST to `resets`. The
fields that those store are declared in `ledger.StreamLedger`; the others are this module's own.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from ..errors import (
    ErrorCode,
    MuxadoError,
    SessionClosed,
    StreamClosed,
    StreamRefused,
    StreamReset,
    UsageError,
    code_name,
)
from ..wire import Encoder
from .buffers import Outbox
from .ledger import Ledger, StreamLedger
from .resets import PendingResets
from .scheduler import HIGHEST_PRIORITY, LOWEST_PRIORITY, Scheduler
from .stalls import Stalls
from .states import (
    CLOSED,
    CLOSING,
    ENDED,
    IDLE,
    LOCAL_DONE,
    OPEN,
    RECV_FIN,
    REMOTE_DONE,
    RESET,
    SEND_FIN,
    SEND_SYN,
    STREAM_STATES,
    STREAM_TABLE,
)
from .stats import StreamSnapshot
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
        ledger: what is known of the session.
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
        scheduler: Scheduler[CoreStream],
        stalls: Stalls,
        resets: PendingResets,
    ) -> None:
        self.ledger: Ledger = ledger
        self.encoder: Encoder = encoder
        self.window: Window = window
        self.scheduler: Scheduler[CoreStream] = scheduler
        self.stalls: Stalls = stalls
        self.resets: PendingResets = resets
        self.opens_apart: bool = ledger.rules.opens_apart
        self.fin_rides: bool = ledger.rules.fin_rides

    def forget(self, stream: CoreStream) -> None:
        """Drop a stream that is done."""
        raise NotImplementedError

    def released(self) -> None:
        """Note that the application has closed a stream that was reset before."""
        raise NotImplementedError


class CoreStream(StreamLedger):
    """One stream of a `CoreSession`, which makes it (`open`, `accept`).

    Every call is one synchronous step; none blocks, none touches a transport. What a call
    leaves to be sent is in the session's next `data_to_send`.

    Attributes:
        stream_id: the id on the wire.
        local: True if this side opened it.
        type: the stream's type in a typed session, and where a wire's frames carry one; else None.
        peer_priority: the priority that the peer has given it, None where no wire carries one.
        state: one of the stream states that `muxado.core` exports.
        priority: higher sends first. Set it with `set_priority`.
        inbox: the unread bytes, None if there are none.
        outbox: the unsent bytes, None if there are none.
        send_credit: bytes the peer still lets us send.
        given: bytes this side was ever allowed to send.
        recv_credit: bytes the peer may still send.
        granted: bytes the peer was ever allowed to send.
        granting: True while more is to be granted: a flush would send it.
        opened_at: when it was made, in whole seconds.
        eof_received: True once the peer's FIN is in.
        fin_asked: True once this side writes no more.
        fin_sent: True once this side's FIN is out.
        closed_here: True after `close` or `reset`.
        dropped: True if unread or unsent bytes were thrown away.
        reset_code: the code of the RST that ended the stream, -1 if none did.
        reset_by_peer: True if that RST came from the peer.
        read_waiter: what the front end put here to be told that reading may go on. The core
            moves it to those that `take_wakes` returns, and forgets it.
        write_waiter: the same for writing.
        end_waiters: the same for those who wait for the FIN to go out or for the end.
    """

    __slots__ = (
        "_host",
        "closed_here",
        "dropped",
        "end_waiters",
        "eof_received",
        "fin_asked",
        "fin_sent",
        "given",
        "local",
        "opened_at",
        "outbox",
        "peer_priority",
        "read_waiter",
        "reset_by_peer",
        "reset_code",
        "send_credit",
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
        self.given: int = window
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

    def __repr__(self) -> str:
        return f"<CoreStream {self.stream_id} {STREAM_STATES[self.state]}>"

    # Reading

    def unread(self) -> int:
        """Return how many bytes can be read at once."""
        inbox = self.inbox
        return inbox.size if inbox is not None else 0

    def readable(self) -> bool:
        """Return whether a read has something to say: bytes, the end, or an error."""
        return (
            self.unread() > 0
            or self.eof_received
            or self.state == CLOSED
            or self.closed_here
            or self._host.ledger.state >= CLOSING
        )

    def check_readable(self) -> None:
        """Raise the error that waiting for more bytes would meet, if it would meet one.

        Raises:
            StreamClosed: this side has closed the stream.
            StreamReset: the stream was reset.
            SessionError: the session has ended, or this side has closed it.
        """
        if self.state == CLOSED or self.closed_here or self._host.ledger.closed_here:
            raise self.failure()

    def find(self, separator: bytes, searched: int) -> tuple[int, int]:
        """Look for a separator in the unread bytes.

        Args:
            separator: what to look for.
            searched: the second value of the last call, 0 for the first.

        Returns:
            the length up to and with the separator, -1 if it isn't there; and how many bytes
            need no second look.
        """
        unread = self.unread()
        if self.inbox is None or unread - searched < len(separator):
            return -1, searched
        at = self.inbox.find(separator, searched)
        if at >= 0:
            return at + len(separator), searched
        return -1, unread - len(separator) + 1

    def at_eof(self) -> bool:
        """Return whether the peer has finished and everything was read."""
        if self._host.ledger.closed_here and not self._ran_to_its_end():
            return False  # what was unread has been dropped
        return self.eof_received and self.unread() == 0

    def check_end(self) -> None:
        """Raise the error that reading on meets, if what came was dropped before it was read.

        Raises:
            SessionError: this side has closed the session before the stream was over.
        """
        if self._host.ledger.closed_here and not self._ran_to_its_end():
            raise self.failure()

    def read(self, limit: int) -> bytes:
        """Take the first bytes, at most `limit`, and let the peer send as many more.

        Returns:
            The bytes; b"" at the end of the stream, or if none have come yet.

        Raises:
            StreamClosed: this side has closed the stream.
            StreamReset: the stream was reset, and what came before has been read.
            SessionError: the session ended, and what came before has been read.
        """
        host = self._host
        if self.closed_here or (host.ledger.closed_here and not self._ran_to_its_end()):
            raise self.failure()
        if self.inbox is not None:
            return host.window.take(self, limit)
        if self.eof_received or self.state != CLOSED:
            return b""
        raise self.failure()

    def claim(self, limit: int) -> None:
        """Grant credit for buffered bytes before they are read, at most `limit`.

        So a reader can wait for more than one window. The bytes stay in the buffer, and are still
        there if the reader gives up.
        """
        self._host.window.claim(self, limit)

    def announce(self) -> None:
        """Let the peer know of a stream that was opened here, if it doesn't yet."""
        if self.state == IDLE and not self.scheduled and self.local:
            self._host.scheduler.add(self)

    # Writing

    def queued(self) -> int:
        """Return how many written bytes are still to be sent."""
        outbox = self.outbox
        return outbox.size if outbox is not None else 0

    def write_full(self) -> bool:
        """Return whether so much is queued that a writer should wait."""
        return self.queued() >= self._host.ledger.config.write_high_water

    def stalled(self) -> bool:
        """Return whether the peer must grant credit before all that is queued can be sent."""
        return self.queued() > self.send_credit

    def check_open(self) -> None:
        """Raise the stream's error if this side has closed it, or its session.

        Raises:
            StreamClosed: the stream.
            SessionError: the session.
        """
        if self.closed_here or self._host.ledger.closed_here:
            raise self.failure()

    def check_writable(self) -> None:
        """Raise the error that a write would meet, if it would meet one.

        Raises:
            StreamClosed: after `finish` or `close`.
            StreamReset: the stream was reset.
            SessionError: the session has ended.
        """
        if (
            self.fin_asked
            or (self.state >= LOCAL_DONE and self.state != REMOTE_DONE)
            or self._host.ledger.state >= CLOSING
        ):
            raise self.failure()

    def write(self, data: bytes) -> None:
        """Queue bytes; `data` must not change any more.

        It raises as `check_writable`, and then nothing is queued.
        """
        self.check_writable()
        if not data:
            return
        outbox = self.outbox
        if outbox is None:
            outbox = self.outbox = Outbox()
        outbox.append(data)
        host = self._host
        host.ledger.queued += len(data)
        if not self.scheduled:
            if self.send_credit > 0:
                host.scheduler.add(self)
            elif outbox.size == len(data):
                host.stalls.blocked(self)

    def say_type(self, type: int) -> None:
        """Begin the stream with its type; called once, when it was opened here."""
        self.type = type
        self.outbox = Outbox()
        self.outbox.append(type.to_bytes(TYPE_SIZE, "big"))
        self._host.ledger.queued += TYPE_SIZE

    def echo(self, data: bytes) -> None:
        """Queue what a heartbeat has sent, even where the session takes no more to write."""
        if self.outbox is None:
            self.outbox = Outbox()
        self.outbox.append(data)
        host = self._host
        host.ledger.queued += len(data)
        if not self.scheduled and self.send_credit > 0:
            host.scheduler.add(self)

    def finish(self) -> None:
        """Half-close: say FIN once everything queued is out. Harmless when repeated."""
        host = self._host
        if self.fin_asked or self.state == CLOSED or host.ledger.state >= CLOSING:
            return
        self.fin_asked = True
        if not self.scheduled and (self.state == IDLE or not self.queued()):
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
        if length > self.send_credit:
            length = self.send_credit
        opens = self.state == IDLE
        if opens and host.opens_apart:
            return self._send_opening(out)
        # FIN rides on the last data, but never on a SYN: a Go peer could then not answer
        # (docs/protocol.md section 13, no. 3).
        ends = self.fin_asked and length == queued and not opens and (length == 0 or host.fin_rides)
        if not (length or opens or ends):
            if queued:
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

    def credit_told(self, consumed: int, window: int) -> bool:
        """Take the credit that the peer has told as a total.

        Returns:
            False if it says that it has consumed more than was sent.
        """
        sent = self.given - self.send_credit
        under_way = sent - consumed & 0xFFFFFFFF
        if under_way > 0x7FFFFFFF:
            return False
        credit = max(window - under_way, 0)
        self.given = sent + credit
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
        self.given += increment
        if credit > MOST_CREDIT:
            self.given -= credit - MOST_CREDIT
            credit = MOST_CREDIT
        self.send_credit = credit
        if self.outbox is not None and not self.scheduled:
            host = self._host
            if self.probe_step >= 0:
                host.stalls.unblocked(self)
            host.scheduler.add(self)

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

    # Looking

    @property
    def bytes_sent(self) -> int:
        """How many payload bytes have been handed over for sending.

        It is derived, so that no frame is counted for it: what was allowed less what is left.
        """
        return self.given - self.send_credit

    @property
    def bytes_received(self) -> int:
        """How many payload bytes have been received; derived likewise."""
        return self.granted - self.recv_credit

    @property
    def moved(self) -> int:
        """How many payload bytes have been sent and received."""
        return self.given - self.send_credit + self.granted - self.recv_credit

    def snapshot(self, now: float) -> StreamSnapshot:
        """Return what the stream is doing. It may be asked from any thread."""
        unread = self.unread()
        queued = self.queued()
        waits = []
        if self.sink == TO_TYPE:
            waits.append("type")
        elif not self.accepted:
            waits.append("accept")
        if self.read_waiter is not None:
            waits.append("data")
        elif unread and self.accepted:
            waits.append("reader")
        if queued:
            waits.append("turn" if self.send_credit > 0 else "credit")
        return StreamSnapshot(
            id=self.stream_id,
            type=self.type,
            direction="out" if self.local else "in",
            state=STREAM_STATES[self.state],
            age=max(int(now) - self.opened_at, 0),
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            unread=unread,
            queued=queued,
            waits_for=tuple(waits),
        )

    # Ending

    def close(self) -> None:
        """End both directions in order: FIN after what is queued; what comes is dropped."""
        if self.closed_here:
            return
        if self.state == CLOSED or self._host.ledger.state >= CLOSING:
            self._release()
            self.discard_input()
            self.wake_all()
            return
        self.closed_here = True
        if self.state == IDLE and not self.scheduled:  # never announced
            self.end(-1, by_peer=False)
            return
        if self.unread():
            self.dropped = True
        self.discard_input()
        self.sink = DISCARD
        if self.fin_sent:
            self._leave()
        else:
            self.finish()
        self.wake_all()

    @property
    def tells_resets(self) -> bool:
        """Whether the wire has a reset."""
        return self._host.ledger.rules.resets

    def check_reset(self, code: int) -> None:
        """Raise `UsageError` if the wire can't reset a stream with this code."""
        rules = self._host.ledger.rules
        if not rules.resets:
            raise UsageError(
                f"{rules.name} has no reset: close() ends a stream, and what still comes is dropped"
            )
        if not rules.codes and code != ErrorCode.STREAM_CANCELLED:
            raise UsageError(f"a reset of {rules.name} carries no code: leave it out")

    def reset(self, code: int) -> None:
        """End both directions at once; what is queued is dropped. Harmless when repeated.

        Raises:
            UsageError: the code is not a 32-bit number.
        """
        if not 0 <= code <= 0xFFFFFFFF:
            raise UsageError(f"a reset code is a 32-bit number, not {code}")
        if self.state == CLOSED:
            self._release()
            self.discard_input()
            return
        self.closed_here = True
        host = self._host
        if self.state != IDLE and host.ledger.state < CLOSING:
            host.resets.ask(self.stream_id, code, self.local)
        self.end(code, by_peer=False)
        self.discard_input()

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

    def holds_something(self) -> bool:
        """Return whether dropping the stream unclosed would leave the session holding it.

        An unread reply does, even of a stream that is over: its bytes count until they are read.
        So does a stream that was reset: it counts as an incoming one until it is closed here.
        """
        if self.closed_here or self._host.ledger.state >= CLOSING:
            return False
        return self.state != CLOSED or self.unread() > 0 or self.lingers()

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

    def _release(self) -> None:
        """Note that the application has closed a stream that is over."""
        host = self._host
        if host.ledger.state < CLOSING and self.state == CLOSED and self.lingers():
            host.released()
        self.closed_here = True

    def set_priority(self, priority: int) -> None:
        """Set what `priority` is: from -8 to 7, higher sends first.

        Raises:
            UsageError: it is not in that range.
        """
        check_priority(priority)
        scheduled = self.scheduled
        if scheduled:
            self._host.scheduler.remove(self)
        self.priority: int = priority
        if scheduled:
            self._host.scheduler.add(self)

    def finished(self) -> bool:
        """Return whether nothing is left to send: the FIN is out, or the stream failed."""
        return self.fin_sent or self.state == CLOSED or self._host.ledger.state == ENDED

    def outcome(self) -> int | None:
        """Return how a stream that is over ended: its reset code, or None for in order.

        Raises:
            SessionError: the session ended first.
        """
        if self.reset_code >= 0:
            return self.reset_code
        ledger = self._host.ledger
        if ledger.reason is not None and not (self.eof_received and self.fin_sent):
            raise ledger.failure()
        return None

    def await_end(self, waiter: object, living: Container[object] | None = None) -> None:
        """Have a waiter woken when the FIN goes out, and at the end; then it is forgotten.

        Args:
            waiter: what the front end wakes.
            living: the waiters that still wait; others, whose call was given up, are forgotten.
                None: all of them.
        """
        waiters = self.end_waiters or []
        if living is not None:
            waiters = [other for other in waiters if other in living]
        if waiter not in waiters:
            waiters.append(waiter)
        self.end_waiters = waiters

    def forget_end_waiter(self, waiter: object) -> None:
        """Forget a waiter of `await_end` whose call was given up. Harmless if it was woken."""
        if self.end_waiters is not None and waiter in self.end_waiters:
            self.end_waiters.remove(waiter)

    def failure(self) -> MuxadoError:
        """Return a fresh copy of the error that ended this stream for its user."""
        ledger = self._host.ledger
        if self.reset_code >= 0 and not (self.closed_here and self.reset_by_peer):
            return self._reset_error()
        if ledger.reason is not None and (self.state == CLOSED or ledger.closed_here):
            return ledger.failure()
        if ledger.closed_here:
            return SessionClosed("the session is closed")
        if self.closed_here:
            return StreamClosed("the stream is closed")
        if self.fin_asked:
            return StreamClosed("write_eof() was called: this side writes no more")
        return ledger.failure()

    def _reset_error(self) -> StreamReset:
        code = self.reset_code
        name = code_name(code)
        if code == ErrorCode.WRITE_TIMEOUT and not self.reset_by_peer:
            name += ", because the peer let nothing more in for Config.stall_timeout"
        if not self.reset_by_peer:
            return StreamReset(
                f"the stream was reset by this side: {name}", code=code, by_peer=False
            )
        refusal = code in (ErrorCode.STREAM_REFUSED, ErrorCode.ACCEPT_QUEUE_FULL)
        if self.local and not self.acknowledged and (refusal or code == ErrorCode.REMOTE_GONE_AWAY):
            return StreamRefused(
                f"the peer refused the stream unseen: {name}", code=code, by_peer=True
            )
        return StreamReset(f"the peer reset the stream: {name}", code=code, by_peer=True)

    # For the other parts of the session

    def advance(self, event: int) -> None:
        """Go to the next state; the table has no answer for what can't happen."""
        state = STREAM_TABLE[self.state][event]
        assert state >= 0
        self.state = state
        if event == SEND_FIN:
            self.fin_sent = True
        elif event == RECV_FIN:
            self.eof_received = True

    def _ran_to_its_end(self) -> bool:
        """Return whether both FINs were through before this side closed the session."""
        return self.eof_received and self.fin_sent and self.sink == TO_READER

    def input_open(self) -> bool:
        """Return whether the peer may still send data."""
        return self.state == OPEN or self.state == LOCAL_DONE

    def end(self, code: int, by_peer: bool) -> None:
        """Leave the session: reset with a code, or with the session's end if it is -1."""
        if self.state == CLOSED:
            return
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

    def pour_into(self, sink: int) -> None:
        """Have the bytes that come go elsewhere from now on."""
        self.sink = sink

    def take_type(self, type: int) -> None:
        """Take note of what type the stream was given."""
        self.type = type

    def take_priority(self, priority: int) -> None:
        """Take note of the priority that the peer has given the stream."""
        self.peer_priority = priority
        self.priority = min(priority, HIGHEST_PRIORITY)

    def drop(self, chunk: bytes) -> None:
        """Throw bytes away that came after the stream was closed here."""
        self.dropped = True
        self._host.window.pass_over(self, len(chunk))

    def discard_input(self) -> None:
        """Throw away what is unread."""
        if self.inbox is not None:
            self._host.window.discard(self)

    def wake_reader(self) -> None:
        """Wake the reader that waits, if one does."""
        if self.read_waiter is not None:
            self._host.ledger.wakes.append(self.read_waiter)
            self.read_waiter = None

    def wake_writer(self) -> None:
        """Wake the writer that waits, if one does."""
        if self.write_waiter is not None:
            self._host.ledger.wakes.append(self.write_waiter)
            self.write_waiter = None

    def wake_end(self) -> None:
        """Wake those that wait for the end."""
        if self.end_waiters is not None:
            self._host.ledger.wakes.extend(self.end_waiters)
            self.end_waiters = None

    def wake_all(self) -> None:
        """Wake all that wait."""
        if self.read_waiter is not None:
            self.wake_reader()
        if self.write_waiter is not None:
            self.wake_writer()
        if self.end_waiters is not None:
            self.wake_end()


def check_priority(priority: int) -> None:
    """Raise `UsageError` for what can't be a stream's priority."""
    if not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        raise UsageError(
            f"a priority is from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}, not {priority}"
        )
