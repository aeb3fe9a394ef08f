"""A stream as its user sees it: reading, writing, ending, and looking.

The fields, and what the session does to a stream, are in `stream_state.py`.
"""

from __future__ import annotations

from collections.abc import Container

from ..errors import (
    ErrorCode,
    MuxadoError,
    StreamClosed,
    StreamRefused,
    StreamReset,
    UsageError,
    code_name,
)
from .scheduler import HIGHEST_PRIORITY, LOWEST_PRIORITY
from .states import CLOSED, CLOSING, ENDED, IDLE, LOCAL_DONE, REMOTE_DONE, STREAM_STATES
from .stats import StreamSnapshot
from .stream_state import DISCARD, TO_READER, TO_TYPE, StreamState


class CoreStream(StreamState):
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
        granting: True while a grant waits to be sent: a flush would send it.
        opened_at: when it was made, in whole seconds.
        eof_received: True once the peer's FIN is in.
        fin_asked: True once this side writes no more.
        fin_sent: True once this side's FIN is out.
        closed_here: True after `close` or `reset`.
        dropped: True if unread or unsent bytes were thrown away.
        reset_code: the code of the RST that ended the stream, -1 if none did.
        reset_by_peer: True if that RST came from the peer.
        read_waiter: an object of the front end's, which is woken when reading may go on: the
            core moves it to the list that `take_wakes` returns.
        write_waiter: the same for writing.
        end_waiters: the same for calls that wait for the FIN to go out, or for the end.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<CoreStream {self.stream_id} {STREAM_STATES[self.state]}>"

    # Reading

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
        if data:
            self.queue(data)

    def finish(self) -> None:
        """Half-close: say FIN once everything queued is out. Harmless when repeated."""
        host = self._host
        if self.fin_asked or self.state == CLOSED or host.ledger.state >= CLOSING:
            return
        self.fin_asked = True
        if not self.scheduled and (self.state == IDLE or not self.queued()):
            host.scheduler.add(self)

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

    def check_reset(self, code: int) -> None:
        """Raise `UsageError` if the wire can't reset a stream with this code."""
        rules = self._host.ledger.rules
        if not rules.resets:
            raise UsageError(
                f"{rules.name} has no reset: close() ends a stream, and what still comes is dropped"
            )
        if not rules.codes and code != ErrorCode.STREAM_CANCELLED:
            raise UsageError(f"a reset of {rules.name} carries no code: leave it out")

    @property
    def tells_resets(self) -> bool:
        """Whether the wire has a reset."""
        return self._host.ledger.rules.resets

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

    def holds_something(self) -> bool:
        """Return whether dropping the stream unclosed would leave the session holding it.

        An unread reply does, even of a stream that is over: its bytes count until they are read.
        So does a stream that was reset: it counts as an incoming one until it is closed here.
        """
        if self.closed_here or self._host.ledger.state >= CLOSING:
            return False
        return self.state != CLOSED or self.unread() > 0 or self.lingers()

    def await_end(self, waiter: object, living: Container[object] | None = None) -> None:
        """Have a waiter woken when the FIN goes out, and at the end; at once if the stream is over.

        It is forgotten when it is woken.

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
        self.end_waiters: list[object] | None = waiters
        if self.state == CLOSED:
            self.wake_end()

    def forget_end_waiter(self, waiter: object) -> None:
        """Forget a waiter of `await_end` whose call was given up. Harmless if it was woken."""
        if self.end_waiters is not None and waiter in self.end_waiters:
            self.end_waiters.remove(waiter)

    # Looking

    @property
    def bytes_sent(self) -> int:
        """How many payload bytes have been handed over for sending.

        It is computed from the credit (all that was allowed, less the rest), so that sending a
        frame counts nothing more.
        """
        return self.send_granted - self.send_credit

    @property
    def bytes_received(self) -> int:
        """How many payload bytes have been received; computed likewise."""
        return self.recv_granted - self.recv_credit

    @property
    def moved(self) -> int:
        """How many payload bytes have been sent and received."""
        return self.send_granted - self.send_credit + self.recv_granted - self.recv_credit

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

    def failure(self) -> MuxadoError:
        """Return a fresh copy of the error that ended this stream for its user."""
        ledger = self._host.ledger
        if self.reset_code >= 0 and not (self.closed_here and self.reset_by_peer):
            return self._reset_error()
        if ledger.closed_here or (self.state == CLOSED and ledger.reason is not None):
            return ledger.failure()
        if self.closed_here:
            return StreamClosed("the stream is closed")
        return StreamClosed("write_eof() was called: this side writes no more")

    # Helpers

    def _ran_to_its_end(self) -> bool:
        """Return whether both FINs were through before this side closed the session."""
        return self.eof_received and self.fin_sent and self.sink == TO_READER

    def _release(self) -> None:
        """Note that the application has closed a stream that is over."""
        host = self._host
        if host.ledger.state < CLOSING and self.state == CLOSED and self.lingers():
            host.released()
        self.closed_here: bool = True

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


def check_priority(priority: int) -> None:
    """Raise `UsageError` for what can't be a stream's priority."""
    if not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        raise UsageError(
            f"a priority is from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}, not {priority}"
        )
