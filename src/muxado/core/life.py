"""The life of a session: its stream table, and every way in which it can end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from ..config import Config
from ..errors import (
    CloseReason,
    ErrorCode,
    GoAway,
    ProtocolError,
    SessionAborted,
    SessionClosed,
    SessionError,
    UsageError,
    code_name,
)
from ..wire import Encoder, WireFormat
from .states import (
    BEGIN_CLOSE,
    CLOSING,
    DRAINING,
    ENDED,
    IDLE,
    RUNNING,
    SESSION_TABLE,
    SHUT_DOWN,
)
from .stream import TO_ECHO, TO_NOBODY, CoreStream

if TYPE_CHECKING:
    from .sender import Sender
    from .typed import TypeGate

# What `take_events` reports.
ACCEPTABLE: Final = 1  # a stream waits for accept()
ANSWERED: Final = 2  # a ping was answered
DRAINED: Final = 4  # the last stream of a draining session is done
ENDING: Final = 8  # the session is closing or has ended
GOAWAY: Final = 16  # one side has told the other to open no more streams

# What `output_step` says: what a front end has to do with its transport next.
NOTHING: Final = 0
WRITE: Final = 1  # send what `data_to_send` returns
HALF_CLOSE: Final = 2  # end the output, and go on reading
CLOSE: Final = 3  # end both directions: all is out, and the input has ended
ABORT: Final = 4  # send at most what can be sent at once, and end both directions

MAX_DEBUG: Final = 128

# After so many seconds in which nothing came, a cut may be that of something on the way.
LONG_SILENCE: Final = 5.0

# What a GOAWAY says of a broken protocol. With any other code a program has ended the session.
BREACHES: Final = (
    ErrorCode.PROTOCOL_ERROR,
    ErrorCode.FLOW_CONTROL_ERROR,
    ErrorCode.FRAME_SIZE_ERROR,
)


class SessionLife:
    """What a session is and how it ends; `CoreSession` adds bytes, time and streams.

    Attributes:
        client: True for the end that dialled.
        config: the settings.
        state: one of the session states in `muxado.core.states`.
        reason: why the session ended, None while it hasn't.
        streams: the streams that are alive, by id.
        accept_queue: the streams that wait for `accept`, by id.
        closed_here: True after `close` or `abort`: even buffered data can't be read.
        going_away: True once GOAWAY was sent.
        peer_gone: True once GOAWAY was received.
        peer_goaway: what the last one said, None before.
        orderly: True if `accept` ends quietly with the session: its end was said, or it came
            from the peer where nothing was open. `reason.clean` asks for more.
        abort_transport: True once the transport should be torn down without ceremony.
    """

    __slots__ = (
        "_close_deadline",
        "_error_class",
        "_events",
        "_said",
        "_spared",
        "abort_transport",
        "accept_queue",
        "client",
        "closed_here",
        "config",
        "confirms_output",
        "deaf",
        "encoder",
        "going_away",
        "heartbeats",
        "highest_accepted",
        "incoming",
        "now",
        "on_end",
        "orderly",
        "output_ended",
        "peer_goaway",
        "peer_gone",
        "reason",
        "sender",
        "state",
        "streams",
        "types",
    )

    sender: Sender
    types: TypeGate

    def __init__(self, client: bool, config: Config, now: float, wire: WireFormat) -> None:
        self.client: bool = client
        self.config: Config = config
        self.now: float = now
        self.encoder: Encoder = wire.encoder
        self.state: int = RUNNING
        self.streams: dict[int, CoreStream] = {}
        # An OrderedDict has its first item at hand, which a dict seeks among the removed ones.
        self.accept_queue: OrderedDict[int, CoreStream] = OrderedDict()
        self.highest_accepted: int = 0
        # Streams of the peer that are alive, or reset while the application still has them.
        self.incoming: int = 0
        self.heartbeats: int = 0  # more of them, which count in no limit and no statistics
        self.reason: CloseReason | None = None
        self.closed_here: bool = False
        self.going_away: bool = False
        self.peer_gone: bool = False
        self.deaf: bool = False  # input is thrown away
        self.abort_transport: bool = False
        self.confirms_output: bool = False
        self.output_ended: bool = False
        self.orderly: bool = False
        self.peer_goaway: GoAway | None = None
        self.on_end: Callable[[CoreStream], object] | None = None  # None if nothing looks
        self._said = GoAway(0, b"")  # our own first GOAWAY
        self._spared: list[int] = []  # our streams that no GOAWAY has ended yet, rising
        self._error_class: type[SessionError] = SessionClosed
        self._close_deadline = inf
        self._events = 0

    def take_events(self) -> int:
        """Return what happened to the session since the last call, as a bit set."""
        events = self._events
        self._events = 0
        return events

    # Ended by this side

    def go_away(self, code: int = 0, debug: bytes = b"") -> None:
        """Tell the peer to open no more streams. The session goes on.

        Raises:
            UsageError: the code is not a 32-bit number.
        """
        if self.state < CLOSING and not self.going_away:
            self._say_go_away(code, debug, final=False)
            self._said = GoAway(int(code), debug[:MAX_DEBUG])

    def shut_down(self) -> None:
        """Take no new streams from either side; `DRAINED` is reported when the last is done."""
        if self.state == RUNNING:
            self.go_away()
            self.set_state(SHUT_DOWN)
            self.check_drained()

    def close(self, now: float) -> None:
        """End the session in order: what was written still goes out, within `close_timeout`."""
        self.now = now
        if self.state >= CLOSING:
            return
        self.closed_here = True
        self._close_deadline = now + self.config.close_timeout
        cut = 0
        for stream in list(self.streams.values()):
            if stream.destination != TO_ECHO and stream.input_wanted():
                cut += 1
            stream.discard_input()
            unannounced = stream.state == IDLE and not stream.scheduled
            if unannounced or stream.destination == TO_ECHO:
                stream.end(-1, by_peer=False)
            else:
                stream.destination = TO_NOBODY
                stream.wake_all()
        self._drop_unaccepted()
        self.set_state(BEGIN_CLOSE)
        if not self.going_away:
            self._say_go_away(ErrorCode.NO_ERROR, b"", final=False)
            self.sender.last_word = self._go_away_frame(ErrorCode.NO_ERROR, b"", final=True)
        self.orderly = True
        code, debug = self._said
        message = "the session was closed"
        self.reason = CloseReason(code, debug, False, message, clean=not cut and code == 0)

    def abort(self, code: int, now: float, text: str = "") -> None:
        """End the session at once; what is queued is dropped.

        Args:
            code: what the peer is told.
            now: the time.
            text: the same in words, for the peer and for `reason`.

        Raises:
            UsageError: the code is not a 32-bit number above 0: an abort is no orderly end.
        """
        self.now = now
        if not 0 < code <= 0xFFFFFFFF:
            raise UsageError(
                f"an abort's code is a 32-bit number above 0, not {code}: close() ends a session"
                " without an error"
            )
        if self.state == ENDED:
            return
        self.closed_here = True
        unsent = self._count_unsent()
        self.sender.drop_all()
        self._drop_unaccepted()
        if self.reason is None:
            self._say_go_away(code, text.encode(), final=True)
            message = text or f"the session was aborted: {code_name(code)}"
            self.orderly = True
            self.end(SessionClosed, code, text.encode(), False, message)
        else:
            if unsent:  # or the peer would take the GOAWAY of close() for the last word
                self._say_go_away(code, text.encode(), final=True)
            self.give_up_unsent()
        self.abort_transport = True

    def give_up_unsent(self, exception: BaseException | None = None) -> None:
        """End what is left of the streams of a session that is closing already.

        Args:
            exception: the transport's, if that is why.
        """
        unsent = self._count_unsent()
        reason = self.reason
        if unsent and reason is not None and reason.clean:
            message = f"{reason.message}, but {_streams(unsent)} had not sent everything"
            self.reason = CloseReason(reason.code, reason.debug, reason.by_peer, message, exception)
        for stream in list(self.streams.values()):
            stream.end(-1, by_peer=False)

    def abandon(self, message: str) -> None:
        """End the session although one of its steps may be done by half.

        Nothing else may be called afterwards but `failure`, and what only looks. So this touches
        none of what the step may have left inconsistent.
        """
        if self.state != ENDED:
            self._error_class = SessionError
            self.reason = CloseReason(int(ErrorCode.INTERNAL_ERROR), b"", False, message)
            self.state = ENDED
            self.orderly = False
        self.closed_here = self.deaf = self.abort_transport = True
        self.accept_queue.clear()
        self.leave_pool()

    def disown(self, now: float) -> None:
        """End a forked child's copy of the session: all that has come is the parent's to read."""
        self.closed_here = True
        self.accept_queue.clear()
        message = "the session belongs to the parent process"
        self.connection_lost(ConnectionError(message), now)

    def connection_lost(self, exception: BaseException | None, now: float) -> None:
        """Take note that the transport is gone, both ways."""
        raise NotImplementedError

    def leave_pool(self) -> None:
        """Lease no memory any more."""
        raise NotImplementedError

    @property
    def heard_at(self) -> float:
        """When bytes came in last."""
        raise NotImplementedError

    @property
    def draining(self) -> bool:
        """Whether either side has told the other to open no more streams."""
        return self.going_away or self.peer_gone

    @property
    def live_streams(self) -> int:
        """How many streams are alive, heartbeats aside."""
        return len(self.streams) - self.heartbeats

    @property
    def acceptable(self) -> int:
        """How many streams wait for `accept`."""
        return len(self.accept_queue)

    def failure(self) -> SessionError:
        """Return a fresh copy of the error that the session's users get now."""
        reason = self.reason
        if reason is None:
            return SessionClosed("the session is closed")
        return self._error_class(reason.message, code=reason.code or None, reason=reason)

    # Ended by the peer, or for its faults

    def fail(self, code: int, text: str) -> None:
        """End the session with a GOAWAY because the peer broke the protocol."""
        self.sender.drop_all()
        self._say_go_away(code, text.encode(), final=True)
        self.end(ProtocolError, code, text.encode(), False, f"the peer broke the protocol: {text}")

    def reject(self, code: int, text: str) -> None:
        """End the session with a peer that would not understand or not read a farewell."""
        self.end(ProtocolError, code, text.encode(), False, text)
        self.abort_transport = True

    def flooded(self) -> None:
        """End the session with a peer that makes us answer and doesn't read the answers."""
        self.fail(ErrorCode.ENHANCE_YOUR_CALM, "answers are not read")
        self.abort_transport = True

    def peer_goes_away(self, last_id: int, code: int, debug: bytes) -> None:
        """Take a GOAWAY (docs/protocol.md section 8)."""
        self.peer_goaway = GoAway(code, debug)
        # A peer that calls the protocol broken would do so again: it is told as no refusal, which
        # says that a retry is safe.
        breach = code == ErrorCode.PROTOCOL_ERROR
        end_code = code if breach else int(ErrorCode.REMOTE_GONE_AWAY)
        if not self.peer_gone:
            self.peer_gone = True
            self._events |= GOAWAY
            for stream in list(self.streams.values()):
                if not stream.local:
                    continue
                if stream.state == IDLE:  # can't be announced any more
                    stream.end(end_code, by_peer=True)
                else:
                    self._spared.append(stream.stream_id)
        # Each stream is looked at once, however many GOAWAYs come.
        spared = self._spared
        while spared and spared[-1] > last_id:
            doubtful = self.streams.get(spared.pop())
            if doubtful is not None and not doubtful.heard:
                doubtful.end(end_code, by_peer=True)

    def peer_ended(self, inside_frame: bool, silent: bool) -> None:
        """Take the end of the transport's input.

        Args:
            inside_frame: whether it cuts a frame off.
            silent: whether nothing came before it.
        """
        if self.peer_gone:
            self._end_as_announced()
            return
        if inside_frame:
            code, message = ErrorCode.UNKNOWN, "the connection ended in the middle of a frame"
        else:
            code, message = ErrorCode.PEER_EOF, "the peer ended the connection"
            if silent and self.client:
                message += " before it said anything" + self._hint()
        idle = "" if silent and self.client else self._idle_hint()
        live = [s for s in self.streams.values() if s.state != IDLE and s.destination != TO_ECHO]
        self.sender.drop_all()
        self._say_go_away(code, message.encode(), final=True)
        self.orderly = not inside_frame and not live
        if not self.orderly and not inside_frame and not (silent and self.client):
            message += " with streams still open"
        message += idle
        # Never clean: this wire has a GOAWAY to say an end with.
        self.end(SessionClosed if self.orderly else SessionError, code, b"", True, message)

    def _hint(self) -> str:
        # A session over TLS can't half-close its transport.
        return "" if self.confirms_output else ": does it expect TLS?"

    def _idle_hint(self) -> str:
        """Return what a cut may come from that follows a long silence."""
        idle = self.now - self.heard_at
        if idle < LONG_SILENCE or self.closed_here:
            return ""
        interval = self.config.ping_interval
        pings = "None" if interval is None else f"{interval:g} s"
        return f", idle for {idle:.0f} s (a proxy's idle timeout? ping_interval is {pings})"

    # The stream table

    def forget(self, stream: CoreStream) -> None:
        """Drop a stream that is done from the table."""
        if self.streams.pop(stream.stream_id, None) is None:
            return
        if stream.destination == TO_ECHO:
            self.heartbeats -= 1
        elif not stream.local:
            if stream.reset_code < 0 or not stream.lingers():
                self.incoming -= 1
            self.types.forget(stream)
        self.sender.forget(stream)
        if self.state == DRAINING:
            self.check_drained()
        if self.on_end is not None and stream.accepted and stream.destination != TO_ECHO:
            self.on_end(stream)

    def deliver(self, stream: CoreStream) -> None:
        """Queue a stream for `accept`."""
        self.accept_queue[stream.stream_id] = stream
        self._events |= ACCEPTABLE

    def check_drained(self) -> None:
        """Report it if the session is draining and only heartbeats are left."""
        if self.state == DRAINING and len(self.streams) == self.heartbeats:
            self._events |= DRAINED

    # Helpers

    def _drop_unaccepted(self) -> None:
        """Drop the streams that nobody has accepted, and what they brought."""
        for stream in self.accept_queue.values():
            stream.discard_input()
        self.accept_queue.clear()

    def _say_go_away(self, code: int, debug: bytes, final: bool) -> None:
        self.sender.say_farewell(self._go_away_frame(code, debug, final))
        self.going_away = True
        self._events |= GOAWAY

    def _go_away_frame(self, code: int, debug: bytes, final: bool) -> bytes:
        return self.encoder.go_away(self.highest_accepted, code, debug[:MAX_DEBUG], final)

    def transport_failed(self, exception: BaseException | None, silent: bool) -> None:
        """Take the loss of the transport; `silent` if nothing came before it."""
        if self.peer_gone:
            self._end_as_announced()
            return
        message = f"the connection was lost: {exception}"
        if silent and self.client and isinstance(exception, ConnectionResetError):
            message += ", before the peer said anything" + self._hint()
        else:
            message += self._idle_hint()
        self.end(SessionError, ErrorCode.UNKNOWN, b"", True, message, exception=exception)

    def _end_as_announced(self) -> None:
        """End after the peer's GOAWAY, which tells whether all was well."""
        goaway = self.peer_goaway
        assert goaway is not None
        code, debug = goaway
        if code == ErrorCode.NO_ERROR:
            cut = self._count_cut()
            message = "the peer closed the session"
            if cut:
                message += f" and cut {_streams(cut)} off"
            self.orderly = True
            self.end(SessionClosed, code, debug, True, message, clean=cut == 0)
            return
        message = f"the peer ended the session with {goaway_text(goaway)}"
        self.end(ProtocolError if code in BREACHES else SessionAborted, code, debug, True, message)

    def _count_cut(self) -> int:
        """Return how many streams the peer's end cuts; one with both its ends is gone.

        What came before the peer's FIN is whole, and can still be read.
        """
        cut = 0
        for stream in self.streams.values():
            if stream.destination != TO_ECHO:
                input_cut = not stream.eof_received and stream.input_wanted()
                cut += input_cut or stream.output_unsent()
        return cut

    def _count_unsent(self) -> int:
        """Return how many streams have something left to send."""
        return sum(
            1
            for stream in self.streams.values()
            if stream.destination != TO_ECHO and stream.output_unsent()
        )

    def end(
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
        self.sender.drop_all()
        self.deaf = True
        if self.reason is None:
            self._error_class = error_class
            self.reason = CloseReason(int(code), debug, by_peer, message, exception, clean)
        else:
            self.give_up_unsent()
        if self.state < CLOSING:
            self._close_deadline = self.now + self.config.close_timeout
            self.set_state(BEGIN_CLOSE)
        for stream in list(self.streams.values()):
            stream.end(-1, by_peer=False)
        self._events |= ENDING

    def set_state(self, event: int) -> None:
        """Go to the next state of the table."""
        if self.state == ENDED:
            return
        self.state = SESSION_TABLE[self.state, event]
        if self.state >= CLOSING:
            self._events |= ENDING


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"


def goaway_text(goaway: GoAway) -> str:
    """Return a GOAWAY's code and words, for a message of one line."""
    text = goaway.debug.decode("utf-8", "backslashreplace")
    if not text.isprintable():  # or a peer could write lines of its own into a log
        text = ascii(text)[1:-1]
    name = code_name(goaway.code)
    return f"{name}: {text}" if text else name
