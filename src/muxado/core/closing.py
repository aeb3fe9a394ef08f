"""How a session ends: the only module that stores its state.

A session goes from RUNNING over DRAINING and CLOSING to ENDED, and never back. What leads there:

    shut_down           DRAINING   GOAWAY; open streams go on, and `DRAINED` tells of the last one
    close               CLOSING    GOAWAY; what was written still goes out, within `close_timeout`
    abort, fail, ...    CLOSING    a GOAWAY at most still goes out; everything else is dropped
    the peer's GOAWAY   -          its word on which of our streams it never saw, and why it ends
    the input's end     CLOSING    in order if a GOAWAY or an idle session came before it
    the transport's     ENDED      whatever the state was; the reason stays what it was

`reason` is set once, by the first of them that ends the session, and only becomes less clean if
what was written could not go out after all. Ending a session ends every stream in the same step,
which wakes every call that waits on one; the event `ENDING` tells the front end to wake the calls
that accept or ping.

The front end asks `output_step` what its transport needs next. So it is decided here, once, when
the output is half-closed, when the transport is closed, and when it is torn down.
"""

from __future__ import annotations

from math import inf
from typing import Final

from ..errors import (
    CloseReason,
    ErrorCode,
    GoAway,
    PeerGone,
    PeerTimeout,
    ProtocolError,
    SessionAborted,
    SessionClosed,
    SessionError,
    UsageError,
    code_name,
)
from .ledger import ENDING, GOAWAY, Ledger
from .liveness import Liveness
from .reasons import BREACHES, cut_hint, goaway_text, silence_hint, streams_text
from .sender import Sender
from .states import (
    BEGIN_CLOSE,
    CLOSING,
    END,
    ENDED,
    IDLE,
    RUNNING,
    SESSION_TABLE,
    SHUT_DOWN,
)
from .stream_state import TO_ECHO
from .stream_table import StreamTable

# What `output_step` says: what a front end has to do with its transport next.
NOTHING: Final = 0
WRITE: Final = 1  # send what `data_to_send` returns
HALF_CLOSE: Final = 2  # end the output, and go on reading
CLOSE: Final = 3  # end both directions: all is out, and the input has ended
ABORT: Final = 4  # send at most what can be sent at once, and end both directions

MAX_DEBUG: Final = 128


class Closing:
    """The end of one session.

    Attributes:
        going_away: True once GOAWAY was queued.
        peer_goaway: what the peer's last one said, None before.
        orderly: True if `accept` ends quietly with the session: its end was said, or it came
            from the peer where nothing was open. `reason.clean` asks for more.
        deadline: when a closing session is torn down.
        output_ended: True once the transport's output was ended.
        transport_aborted: True once the transport must be torn down.
    """

    __slots__ = (
        "_dropped",
        "_first_goaway",
        "_ledger",
        "_liveness",
        "_may_expect_tls",
        "_sender",
        "_spared",
        "_table",
        "deadline",
        "going_away",
        "orderly",
        "output_ended",
        "peer_goaway",
        "transport_aborted",
    )

    def __init__(
        self, ledger: Ledger, table: StreamTable, sender: Sender, liveness: Liveness
    ) -> None:
        self._ledger = ledger
        self._table = table
        self._sender = sender
        self._liveness = liveness
        self.transport_aborted: bool = False
        self.output_ended: bool = False
        self._may_expect_tls = True  # whether a peer that says nothing may wait for TLS
        self._first_goaway = GoAway(0, b"")  # this side's
        self._dropped = 0  # how many streams of the peer had no place when it ended
        self._spared: list[int] = []  # our streams that no GOAWAY has ended yet, rising
        self.going_away: bool = False
        self.peer_goaway: GoAway | None = None
        self.orderly: bool = False
        self.deadline: float = inf

    @property
    def draining(self) -> bool:
        """Whether either side has told the other to open no more streams."""
        return self.going_away or self.peer_goaway is not None

    # What the transport needs

    def output_step(self) -> int:
        """Return what the transport needs next: `WRITE`, `HALF_CLOSE`, `CLOSE`, `ABORT`, `NOTHING`.

        It changes nothing. A front end writes what `data_to_send` returns, as far as the transport
        takes it, and then does what this says: for `HALF_CLOSE` and `CLOSE` it calls `end_output`
        and ends the transport's output, or all of it; for `ABORT` it tears the transport down.
        """
        ledger = self._ledger
        if ledger.state == ENDED:
            return NOTHING
        if self.transport_aborted:
            return ABORT
        if not self.output_ended:
            if self._sender.pending():
                return WRITE
            if ledger.state < CLOSING:
                return NOTHING
            if self._sender.cut_due():
                return WRITE
            if not self._sender.done():
                return NOTHING
        elif not ledger.eof_received:
            return NOTHING
        return CLOSE if ledger.eof_received else HALF_CLOSE

    def end_output(self) -> None:
        """Take note that the transport's output was ended, as `output_step` said.

        What comes from then on is thrown away: it can't be answered.
        """
        self.output_ended = True
        self._sender.stop_answering()
        self._sender.drop_all()

    def expect_no_tls(self) -> None:
        """Take note that a peer that ends without a word does not do so for want of TLS."""
        self._may_expect_tls = False

    def handle_timer(self, now: float) -> None:
        """Tear the transport of a closing session down if its time is over."""
        if now >= self.deadline:
            self.transport_aborted = True
            rules = self._ledger.rules
            if rules.refills and self.closed_in_order() and not self._table.owes_nothing():
                self._spoil("the peer had not read everything in time")
            if not rules.go_away and self._count_unsent():
                self.give_up_unsent()
                self._sender.cut_off()

    # Ended by this side

    def go_away(self, code: int, debug: bytes) -> None:
        """Tell the peer to open no more streams. The session goes on.

        Raises:
            UsageError: the code is not a 32-bit number.
        """
        if not 0 <= code <= 0xFFFFFFFF:
            raise UsageError(f"a GOAWAY's code is a 32-bit number, not {code}")
        rules = self._ledger.rules
        if not rules.go_away:
            raise UsageError(f"{rules.name} has no GOAWAY: close() ends the session")
        if code and rules.errors_end:
            raise UsageError(
                f"a GOAWAY of {rules.name} with an error is the session's end: abort() says it"
            )
        if self._ledger.state < CLOSING and not self.going_away:
            self._queue_goaway(code, debug, final=False)
            self._first_goaway = GoAway(int(code), debug[:MAX_DEBUG])

    def shut_down(self) -> None:
        """Take no new streams from either side; `DRAINED` is reported when the last is done."""
        if self._ledger.state == RUNNING:
            if not self.going_away:
                self._queue_goaway(0, b"", final=False)
            self._advance(SHUT_DOWN)
            self._table.check_drained()

    def close(self) -> None:
        """End the session in order: what was written still goes out, within `close_timeout`."""
        ledger = self._ledger
        if ledger.state >= CLOSING:
            return
        ledger.closed_here = True
        self.deadline = ledger.now + ledger.config.close_timeout
        cut = False
        for stream in list(self._table.streams.values()):
            if stream.session_closes():
                cut = True
        self._table.drop_unaccepted()
        self._advance(BEGIN_CLOSE)
        if not self.going_away:
            self._queue_goaway(ErrorCode.NO_ERROR, b"", final=False)
        self.orderly = True
        code, debug = self._first_goaway
        clean = not cut and code == 0
        ledger.reason = CloseReason(code, debug, False, "the session was closed", clean=clean)

    def abort(self, code: int, text: str) -> None:
        """End the session at once; queued bytes are dropped.

        Raises:
            UsageError: the code is not a 32-bit number above 0: an abort is no orderly end.
        """
        if not 0 < code <= 0xFFFFFFFF:
            raise UsageError(
                f"an abort's code is a 32-bit number above 0, not {code}: close() ends a session"
                " without an error"
            )
        ledger = self._ledger
        if ledger.state == ENDED:
            return
        ledger.closed_here = True
        unsent = self._count_unsent()
        self._sender.drop_all()
        self._table.drop_unaccepted()
        if ledger.reason is None:
            self._queue_goaway(code, text.encode(), final=True)
            message = text or f"the session was aborted: {code_name(code)}"
            self.orderly = True
            self._end(SessionClosed, code, text.encode(), False, message)
        else:
            if unsent:  # or the peer would take the GOAWAY of close() for the whole truth
                self._queue_goaway(code, text.encode(), final=True)
            self.give_up_unsent()
        self.transport_aborted = True

    def give_up_unsent(self, exception: BaseException | None = None) -> None:
        """End the streams that are left in a session that is closing already.

        Args:
            exception: the transport's, if that is why.
        """
        unsent = self._count_unsent()
        if unsent and self.closed_in_order():
            self._spoil(f"{streams_text(unsent)} had not sent everything", exception)
        self._table.end_all()

    def abandon(self, message: str) -> None:
        """End the session although one of its steps may be half done.

        So this touches none of what the step may have left inconsistent.
        """
        ledger = self._ledger
        if ledger.state != ENDED:
            ledger.error_class = SessionError
            ledger.reason = CloseReason(int(ErrorCode.INTERNAL_ERROR), b"", False, message)
            ledger.state = ENDED
            self.orderly = False
        ledger.closed_here = True
        self.transport_aborted = True
        self._sender.stop_answering()
        self._table.clear_accept_queue()

    def disown(self) -> None:
        """Let nothing of what has come be read here: it is the parent process's."""
        self._ledger.closed_here = True
        self._table.clear_accept_queue()

    # Ended by the peer, or for its faults

    def fail(self, code: int, text: str) -> None:
        """End the session with a GOAWAY because the peer broke the protocol."""
        self._sender.drop_all()
        self._queue_goaway(code, text.encode(), final=True)
        self._end(ProtocolError, code, text.encode(), False, f"the peer broke the protocol: {text}")

    def reject(self, code: int, text: str) -> None:
        """End the session without a GOAWAY: the peer doesn't speak muxado, or reads nothing."""
        self._end(ProtocolError, code, text.encode(), False, text)
        self.transport_aborted = True

    def flooded(self) -> None:
        """End the session with a peer that makes us answer and doesn't read the answers."""
        self.fail(ErrorCode.ENHANCE_YOUR_CALM, "answers are not read")
        self.transport_aborted = True

    def timed_out(self) -> None:
        """End the session with a peer that has not answered a ping."""
        timeout = self._ledger.config.ping_timeout
        message = f"the peer sent nothing for {timeout} s after a ping"
        self._sender.drop_all()
        if self._ledger.rules.end_is_close:  # or it would look like one, if it still comes through
            self._queue_goaway(ErrorCode.UNKNOWN, message.encode(), final=True)
        self._end(PeerTimeout, ErrorCode.UNKNOWN, b"", False, message)
        self.transport_aborted = True

    def held_too_long(self) -> None:
        """End the session: its application takes nothing of what the peer waits with."""
        timeout = self._ledger.config.hold_timeout
        message = f"for {timeout} s nothing was accepted or read here, and the peer was held back"
        self._sender.drop_all()
        self._queue_goaway(ErrorCode.INTERNAL_ERROR, message.encode(), final=True)
        self._end(SessionError, ErrorCode.INTERNAL_ERROR, b"", False, message)
        self.transport_aborted = True

    def leave_unanswered(self) -> None:
        """Take note that a stream of the peer is not let in, on a wire that can't refuse it.

        The peer could take this session's end for an empty answer, so it is no ordinary one.
        """
        self._sender.cut_off()

    def drop_unplaced(self) -> None:
        """Do the same for a stream that had still no place when the peer ended the connection."""
        self._dropped += 1
        self._sender.cut_off()

    def peer_goes_away(self, last_id: int, code: int, debug: bytes) -> None:
        """Take a GOAWAY (docs/protocol.md section 8)."""
        first = self.peer_goaway is None
        self.peer_goaway = GoAway(code, debug)
        # A peer that calls the protocol broken would do so again: its streams are not told that a
        # retry is safe, as those that were refused are.
        breach = code == ErrorCode.PROTOCOL_ERROR
        end_code = code if breach else int(ErrorCode.REMOTE_GONE_AWAY)
        streams = self._table.streams
        if first:
            self._ledger.note(GOAWAY)
            for stream in list(streams.values()):
                if not stream.local:
                    continue
                if stream.state == IDLE:  # can't be announced any more
                    stream.end(end_code, by_peer=True)
                else:
                    self._spared.append(stream.stream_id)
        # Each stream is looked at once, however many GOAWAYs come.
        spared = self._spared
        while spared and spared[-1] > last_id:
            doubtful = streams.get(spared.pop())
            if doubtful is not None and not doubtful.acknowledged:
                doubtful.end(end_code, by_peer=True)
        if code and self._ledger.rules.errors_end:
            self._end_as_announced(self.peer_goaway)

    def peer_ended(self, inside_frame: bool, silent: bool) -> None:
        """Take the end of the transport's input.

        Args:
            inside_frame: whether it cuts a frame off.
            silent: whether nothing came before it.
        """
        if self.peer_goaway is not None:
            self._end_as_announced(self.peer_goaway)
            return
        if self._ledger.rules.end_is_close and not inside_frame:
            self._end_as_announced(GoAway(0, b""))
            return
        unanswered = silent and self._ledger.client
        if inside_frame:
            code, message = ErrorCode.UNKNOWN, "the connection ended in the middle of a frame"
        else:
            code, message = ErrorCode.PEER_EOF, "the peer ended the connection"
            if unanswered:
                message += " before it said anything" + self._cut_hint()
        hint = "" if unanswered else self._silence_hint()
        live = [
            stream
            for stream in self._table.streams.values()
            if stream.state != IDLE and stream.sink != TO_ECHO
        ]
        self._sender.drop_all()
        self._queue_goaway(code, message.encode(), final=True)
        self.orderly = not inside_frame and not live
        if not self.orderly and not inside_frame and not unanswered:
            message += " with streams still open"
        # It is never clean, since such a wire has a GOAWAY to say an end with.
        error_class = SessionClosed if self.orderly else SessionError
        self._end(error_class, code, b"", True, message + hint)

    def transport_failed(self, exception: BaseException, silent: bool) -> None:
        """Take the loss of the transport; `silent` if nothing came before it."""
        if self.peer_goaway is not None:
            self._end_as_announced(self.peer_goaway)
            return
        message = f"the connection was lost: {exception}"
        if silent and self._ledger.client and isinstance(exception, ConnectionResetError):
            message += ", before the peer said anything" + self._cut_hint()
        else:
            message += self._silence_hint()
        self._end(SessionError, ErrorCode.UNKNOWN, b"", True, message, exception=exception)

    def transport_gone(self) -> None:
        """Take note that the transport is gone, whatever the session's state was."""
        self._advance(END)

    def peer_gone(self, goaway: GoAway) -> PeerGone:
        """Return the error of opening a stream after the peer's GOAWAY."""
        text = goaway_text(goaway)
        message = f"the peer takes no new streams, it has said GOAWAY with {text}"
        reason = CloseReason(goaway.code, goaway.debug, True, message)
        return PeerGone(f"{message}; dial a new session", code=goaway.code or None, reason=reason)

    # Helpers

    def _end_as_announced(self, goaway: GoAway) -> None:
        """End after the peer's GOAWAY, which tells whether all was well."""
        code, debug = goaway
        if code == ErrorCode.NO_ERROR:
            cut = self._count_cut()
            message = "the peer closed the session"
            if cut:
                message += f" and cut {streams_text(cut)} off"
            if self._dropped:
                message += (
                    f", but {streams_text(self._dropped)} had no place here:"
                    " see Config.max_incoming_streams"
                )
            self.orderly = True
            clean = cut == 0 and self._dropped == 0
            self._end(SessionClosed, code, debug, True, message, clean=clean)
            return
        message = f"the peer ended the session with {goaway_text(goaway)}"
        error_class = ProtocolError if code in BREACHES else SessionAborted
        self._end(error_class, code, debug, True, message)

    def _end(
        self,
        error_class: type[SessionError],
        code: int,
        debug: bytes,
        by_peer: bool,
        message: str,
        clean: bool = False,
        exception: BaseException | None = None,
    ) -> None:
        """Record why the session ends, and end every stream."""
        ledger = self._ledger
        self._sender.drop_all()
        self._sender.stop_answering()
        if ledger.reason is None:
            ledger.error_class = error_class
            ledger.reason = CloseReason(int(code), debug, by_peer, message, exception, clean)
        else:
            self.give_up_unsent()
        if ledger.state < CLOSING:
            self.deadline = ledger.now + ledger.config.close_timeout
            self._advance(BEGIN_CLOSE)
        self._table.end_all()
        ledger.note(ENDING)

    def _advance(self, event: int) -> None:
        """Go to the next state of the table."""
        ledger = self._ledger
        if ledger.state == ENDED:
            return
        ledger.state = SESSION_TABLE[ledger.state, event]
        if ledger.state >= CLOSING:
            ledger.note(ENDING)

    def closed_in_order(self) -> bool:
        """Return whether the session has ended, and cleanly as far as is known."""
        reason = self._ledger.reason
        return reason is not None and reason.clean

    def _spoil(self, how: str, exception: BaseException | None = None) -> None:
        """Take note that a session did not end as cleanly as it seemed."""
        reason = self._ledger.reason
        assert reason is not None
        message = f"{reason.message}, but {how}"
        self._ledger.reason = CloseReason(
            reason.code, reason.debug, reason.by_peer, message, exception
        )

    def _queue_goaway(self, code: int, debug: bytes, final: bool) -> None:
        if self._ledger.rules.go_away:
            last_id = self._table.highest_accepted
            self._sender.queue_goaway(last_id, int(code), debug[:MAX_DEBUG], final)
        elif code:
            self._sender.cut_off()
        self.going_away = True
        self._ledger.note(GOAWAY)

    def _count_cut(self) -> int:
        """Return how many streams the peer's end cuts; one with both its ends is gone.

        What came before the peer's FIN is whole, and can still be read.
        """
        cut = 0
        for stream in self._table.streams.values():
            if stream.sink != TO_ECHO:
                input_cut = not stream.eof_received and stream.input_wanted()
                cut += input_cut or stream.output_unsent()
        return cut

    def _count_unsent(self) -> int:
        """Return how many streams have something left to send."""
        return sum(
            1
            for stream in self._table.streams.values()
            if stream.sink != TO_ECHO and stream.output_unsent()
        )

    def _cut_hint(self) -> str:
        # A transport that can't be half-closed has had a handshake of its own, as a WebSocket has.
        return cut_hint(self._may_expect_tls and not self._sender.confirms_output)

    def _silence_hint(self) -> str:
        ledger = self._ledger
        if ledger.closed_here:
            return ""
        silence = ledger.now - self._liveness.received_at
        return silence_hint(silence, ledger.config.ping_interval)
