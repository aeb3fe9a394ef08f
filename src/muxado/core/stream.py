"""One stream: its two halves, its buffers and its credit."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Final

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
from .buffers import Inbox, Outbox
from .scheduler import HIGHEST_PRIORITY, LOWEST_PRIORITY
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
    STREAM_STATES,
    STREAM_TABLE,
)
from .stats import StreamSnapshot

if TYPE_CHECKING:
    from .session import CoreSession

# What becomes of the bytes that come in on a stream.
TO_READER: Final = 0
TO_TYPE: Final = 1  # the stream's type isn't complete yet
TO_ECHO: Final = 2  # Go's heartbeat
TO_NOBODY: Final = 3  # closed here, and only still sending

TYPE_SIZE: Final = 4


class CoreStream:
    """One stream of a `CoreSession`, which makes it (`open`, `accept`).

    Every call is one synchronous step; none blocks, none touches a transport. What a call
    leaves to be sent is in the session's next `data_to_send`.

    Attributes:
        session: the session.
        stream_id: the id on the wire.
        local: True if this side opened it.
        type: the stream's type in a typed session, else None.
        state: one of the states in `muxado.core.states`.
        priority: higher sends first. Set it with `set_priority`.
        inbox: the unread bytes, None if there are none.
        outbox: the unsent bytes, None if there are none.
        send_credit: bytes the peer still lets us send.
        recv_credit: bytes the peer may still send.
        granted: bytes the peer was ever allowed to send.
        given: bytes this side was ever allowed to send.
        opened_at: when it was made, in whole seconds.
        eof_received: True once the peer's FIN is in.
        reset_code: the code of the RST that ended the stream, -1 if none did.
        read_waiter: what the shell put here to be told that reading may go on. The core
            moves it to the session's `wakes` and forgets it.
        write_waiter: the same for writing.
        end_waiters: the same for those who wait for the FIN to go out or for the end.
    """

    __slots__ = (
        "accepted",
        "claimed",
        "closed_here",
        "destination",
        "dropped",
        "end_waiters",
        "eof_received",
        "epoch",
        "fin_asked",
        "fin_sent",
        "given",
        "granted",
        "granting",
        "heard",
        "inbox",
        "local",
        "opened_at",
        "outbox",
        "priority",
        "probe_at",
        "probe_step",
        "read_waiter",
        "recv_credit",
        "reset_by_peer",
        "reset_code",
        "scheduled",
        "send_credit",
        "session",
        "state",
        "stream_id",
        "type",
        "window",
        "write_waiter",
    )

    def __init__(self, session: CoreSession, stream_id: int, local: bool, window: int) -> None:
        self.session: CoreSession = session
        self.stream_id: int = stream_id
        self.local: bool = local
        self.type: int | None = None
        self.state: int = IDLE
        self.priority: int = 0
        self.destination: int = TO_READER
        self.accepted: bool = local
        self.opened_at: int = int(session.now)

        self.inbox: Inbox | None = None
        self.claimed: int = 0  # unread bytes that the reader has laid claim to: credit was given
        self.recv_credit: int = window
        self.granted: int = window
        self.window: int = window  # the window last granted, which the credit refills up to
        self.granting: bool = False
        self.epoch: int = 0
        self.eof_received: bool = False
        self.heard: bool = False  # anything at all came back
        self.dropped: bool = False  # unread or unsent bytes were thrown away

        self.outbox: Outbox | None = None
        self.send_credit: int = window
        self.given: int = window
        self.scheduled: bool = False
        self.fin_asked: bool = False
        self.fin_sent: bool = False
        self.probe_at: float = 0.0
        self.probe_step: int = -1  # -1: not blocked on a peer that has said FIN

        self.closed_here: bool = False
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
            or self.session.state >= CLOSING
        )

    def check_readable(self) -> None:
        """Raise the error that waiting for more bytes would meet, if it would meet one.

        Raises:
            StreamClosed: this side has closed the stream.
            StreamReset: the stream was reset.
            SessionError: the session has ended, or this side has closed it.
        """
        if self.state == CLOSED or self.closed_here or self.session.closed_here:
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
        if self.session.closed_here and not self._ran_to_its_end():
            return False  # what was unread has been dropped
        return self.eof_received and self.unread() == 0

    def check_end(self) -> None:
        """Raise the error that reading on meets, if what came was dropped before it was read.

        Raises:
            SessionError: this side has closed the session before the stream was over.
        """
        if self.session.closed_here and not self._ran_to_its_end():
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
        if self.closed_here or (self.session.closed_here and not self._ran_to_its_end()):
            raise self.failure()
        inbox = self.inbox
        if inbox is not None and inbox.size:
            data = inbox.read(limit)
            if not inbox.size:
                self.inbox = None  # an idle stream holds no buffers
            count = len(data)
            if self.claimed:
                paid = min(self.claimed, count)
                self.claimed -= paid
                self.session.claimed -= paid
                count -= paid
            if count:
                self.session.consumed(self, count)
            return data
        if self.eof_received or self.state != CLOSED:
            return b""
        raise self.failure()

    def claim(self, limit: int) -> None:
        """Pay for the first unread bytes, at most `limit`, as if they had been read.

        For a reader that wants more at once than the window lets in: the bytes stay in
        the buffer, and are still there if the reader gives up.
        """
        count = min(limit, self.unread()) - self.claimed
        if count > 0:
            self.claimed += count
            self.session.claimed += count
            self.session.consumed(self, count)

    def announce(self) -> None:
        """Let the peer know of a stream that was opened here, if it doesn't yet."""
        if self.state == IDLE and not self.scheduled and self.local:
            self.session.sender.scheduler.add(self)

    # Writing

    def queued(self) -> int:
        """Return how many written bytes are still to be sent."""
        outbox = self.outbox
        return outbox.size if outbox is not None else 0

    def write_full(self) -> bool:
        """Return whether so much is queued that a writer should wait."""
        return self.queued() >= self.session.config.write_high_water

    def stalled(self) -> bool:
        """Return whether the peer must grant credit before all that is queued can be sent."""
        return self.queued() > self.send_credit

    def check_open(self) -> None:
        """Raise the stream's error if this side has closed it, or its session.

        Raises:
            StreamClosed: the stream.
            SessionError: the session.
        """
        if self.closed_here or self.session.closed_here:
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
            or self.session.state >= CLOSING
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
        self.session.queued += len(data)
        if not self.scheduled:
            if self.send_credit > 0:
                self.session.sender.scheduler.add(self)
            elif outbox.size == len(data):
                self.session.sender.blocked(self)

    def finish(self) -> None:
        """Half-close: say FIN once everything queued is out. Harmless when repeated."""
        if self.fin_asked or self.state == CLOSED or self.session.state >= CLOSING:
            return
        self.fin_asked = True
        if not self.scheduled and (self.state == IDLE or not self.queued()):
            self.session.sender.scheduler.add(self)

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
        if self.destination == TO_TYPE:
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
        if self.state == CLOSED or self.session.state >= CLOSING:
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
        self.destination = TO_NOBODY
        if self.fin_sent:
            self.session.forget_closed(self)
        else:
            self.finish()
        self.wake_all()

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
        if self.state != IDLE and self.session.state < CLOSING:
            self.session.reset_here(self, code)
        self.end(code, by_peer=False)
        self.discard_input()

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
        if self.closed_here or self.session.state >= CLOSING:
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
            and self.destination == TO_READER
        )

    def _release(self) -> None:
        """Note that the application has closed a stream that is over."""
        if self.session.state < CLOSING and self.state == CLOSED and self.lingers():
            self.session.incoming -= 1
        self.closed_here = True

    def set_priority(self, priority: int) -> None:
        """Set what `priority` is: from -8 to 7, higher sends first.

        Raises:
            UsageError: it is not in that range.
        """
        if not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
            raise UsageError(
                f"a priority is from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}, not {priority}"
            )
        if self.scheduled:
            self.session.sender.scheduler.remove(self)
            self.priority = priority
            self.session.sender.scheduler.add(self)
        else:
            self.priority = priority

    def finished(self) -> bool:
        """Return whether nothing is left to send: the FIN is out, or the stream failed."""
        return self.fin_sent or self.state == CLOSED or self.session.state == ENDED

    def outcome(self) -> int | None:
        """Return how a stream that is over ended: its reset code, or None for in order.

        Raises:
            SessionError: the session ended first.
        """
        if self.reset_code >= 0:
            return self.reset_code
        if self.session.reason is not None and not (self.eof_received and self.fin_sent):
            raise self.session.failure()
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
        session = self.session
        if self.reset_code >= 0 and not (self.closed_here and self.reset_by_peer):
            return self._reset_error()
        if session.reason is not None and (self.state == CLOSED or session.closed_here):
            return session.failure()
        if session.closed_here:
            return SessionClosed("the session is closed")
        if self.closed_here:
            return StreamClosed("the stream is closed")
        if self.fin_asked:
            return StreamClosed("write_eof() was called: this side writes no more")
        return session.failure()

    def _reset_error(self) -> StreamReset:
        code = self.reset_code
        name = code_name(code)
        if not self.reset_by_peer:
            return StreamReset(
                f"the stream was reset by this side: {name}", code=code, by_peer=False
            )
        refusal = code in (ErrorCode.STREAM_REFUSED, ErrorCode.ACCEPT_QUEUE_FULL)
        if self.local and not self.heard and (refusal or code == ErrorCode.REMOTE_GONE_AWAY):
            return StreamRefused(
                f"the peer refused the stream unseen: {name}", code=code, by_peer=True
            )
        return StreamReset(f"the peer reset the stream: {name}", code=code, by_peer=True)

    # For the session

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
        return self.eof_received and self.fin_sent and self.destination == TO_READER

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
        if self.scheduled:
            self.session.sender.scheduler.drop(self)
        unsent = self.queued()
        if unsent:
            self.session.queued -= unsent
            self.dropped = True
        self.outbox = None
        if code >= 0 and not self.accepted:
            self.session.accept_queue.pop(self.stream_id, None)
            self.discard_input()
        self.session.forget(self)
        self.wake_all()

    def receive(self, chunk: bytes) -> None:
        """Add bytes to what can be read."""
        inbox = self.inbox
        if inbox is None:
            inbox = self.inbox = Inbox()
        inbox.append(chunk)
        if self.read_waiter is not None:
            self.session.wakes.append(self.read_waiter)
            self.read_waiter = None

    def discard_input(self) -> None:
        """Throw away what is unread."""
        inbox = self.inbox
        if inbox is not None and inbox.size:
            count = inbox.size - self.claimed
            self.inbox = None
            self.session.claimed -= self.claimed
            self.claimed = 0
            self.session.consumed(self, count)

    def wake_reader(self) -> None:
        """Tell the reader that waits, if one does."""
        if self.read_waiter is not None:
            self.session.wakes.append(self.read_waiter)
            self.read_waiter = None

    def wake_writer(self) -> None:
        """Tell the writer that waits, if one does."""
        if self.write_waiter is not None:
            self.session.wakes.append(self.write_waiter)
            self.write_waiter = None

    def wake_end(self) -> None:
        """Tell those who wait for the end."""
        if self.end_waiters is not None:
            self.session.wakes.extend(self.end_waiters)
            self.end_waiters = None

    def wake_all(self) -> None:
        """Tell everybody who waits."""
        if self.read_waiter is not None:
            self.wake_reader()
        if self.write_waiter is not None:
            self.wake_writer()
        if self.end_waiters is not None:
            self.wake_end()
