"""The life of a session: its stream table, and every way in which it can end."""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING, Final

from ..config import Config
from ..errors import (
    CloseReason,
    ErrorCode,
    ProtocolError,
    SessionClosed,
    SessionError,
    UsageError,
    code_name,
)
from ..wire import Encoder, WireFormat
from .states import (
    CLOSE,
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

MAX_DEBUG: Final = 128


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
        abort_transport: True once the transport should be torn down without ceremony.
        confirm_output: set by a shell whose transport can't be half-closed, TLS above all:
            before it is closed in order, a ping's answer tells that all has arrived.
    """

    __slots__ = (
        "_close_deadline",
        "_error_class",
        "_events",
        "_peer_code",
        "_peer_debug",
        "_spared",
        "abort_transport",
        "accept_queue",
        "client",
        "closed_here",
        "config",
        "confirm_output",
        "deaf",
        "encoder",
        "going_away",
        "heartbeats",
        "highest_accepted",
        "incoming",
        "now",
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
        self.incoming: int = 0  # streams of the peer that are alive
        self.heartbeats: int = 0  # more of them, which count in no limit and no statistics
        self.reason: CloseReason | None = None
        self.closed_here: bool = False
        self.going_away: bool = False
        self.peer_gone: bool = False
        self.deaf: bool = False  # input is thrown away
        self.abort_transport: bool = False
        self.confirm_output: bool = False
        self._peer_code = 0
        self._peer_debug = b""
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
        for stream in list(self.streams.values()):
            stream.discard_input()
            unannounced = stream.state == IDLE and not stream.scheduled
            if unannounced or stream.destination == TO_ECHO:
                stream.end(-1, by_peer=False)
            else:
                stream.destination = TO_NOBODY
                stream.wake_all()
        self._drop_unaccepted()
        self.set_state(CLOSE)
        if not self.going_away:
            self._say_go_away(ErrorCode.NO_ERROR, b"", final=False)
            self.sender.last_word = self._go_away_frame(ErrorCode.NO_ERROR, b"", final=True)
        self.reason = CloseReason(0, b"", False, "the session was closed", clean=True)

    def abort(self, code: int, now: float) -> None:
        """End the session at once; what is queued is dropped.

        Raises:
            UsageError: the code is not a 32-bit number.
        """
        self.now = now
        if self.state == ENDED:
            return
        if not 0 <= code <= 0xFFFFFFFF:
            raise UsageError(f"an error code is a 32-bit number, not {code}")
        self.closed_here = True
        self.sender.drop_all()
        self._drop_unaccepted()
        if self.reason is None:
            self._say_go_away(code, b"", final=True)
            message = f"the session was aborted: {code_name(code)}"
            self.end(SessionClosed, code, b"", False, message, clean=True)
        else:
            for stream in list(self.streams.values()):
                stream.end(-1, by_peer=False)
        self.abort_transport = True

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
        self._peer_code = code
        self._peer_debug = debug
        if not self.peer_gone:
            self.peer_gone = True
            for stream in list(self.streams.values()):
                if not stream.local:
                    continue
                if stream.state == IDLE:  # can't be announced any more
                    stream.end(ErrorCode.REMOTE_GONE_AWAY, by_peer=True)
                else:
                    self._spared.append(stream.stream_id)
        # Each stream is looked at once, however many GOAWAYs come.
        spared = self._spared
        while spared and spared[-1] > last_id:
            doubtful = self.streams.get(spared.pop())
            if doubtful is not None and not doubtful.heard:
                doubtful.end(ErrorCode.REMOTE_GONE_AWAY, by_peer=True)

    def peer_ended(self, inside_frame: bool) -> None:
        """Take the end of the transport's input."""
        if self.peer_gone:
            self._end_as_announced()
            return
        if inside_frame:
            code, message = ErrorCode.UNKNOWN, "the connection ended in the middle of a frame"
        else:
            code, message = ErrorCode.PEER_EOF, "the peer ended the connection"
        live = [s for s in self.streams.values() if s.state != IDLE and s.destination != TO_ECHO]
        self.sender.drop_all()
        self._say_go_away(code, message.encode(), final=True)
        clean = not inside_frame and not live
        if not clean and not inside_frame:
            message += " with streams still open"
        self.end(SessionClosed if clean else SessionError, code, b"", True, message, clean)

    # The stream table

    def forget(self, stream: CoreStream) -> None:
        """Drop a stream that is done from the table."""
        if self.streams.pop(stream.stream_id, None) is None:
            return
        if stream.destination == TO_ECHO:
            self.heartbeats -= 1
        elif not stream.local:
            self.incoming -= 1
            self.types.forget(stream)
        self.sender.forget(stream)
        if self.state == DRAINING:
            self.check_drained()

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

    def _go_away_frame(self, code: int, debug: bytes, final: bool) -> bytes:
        return self.encoder.go_away(self.highest_accepted, code, debug[:MAX_DEBUG], final)

    def transport_failed(self, exception: BaseException | None) -> None:
        """Take the loss of the transport."""
        if self.peer_gone:
            self._end_as_announced()
            return
        message = f"the connection was lost: {exception}"
        self.end(SessionError, ErrorCode.UNKNOWN, b"", True, message, exception=exception)

    def _end_as_announced(self) -> None:
        """End after the peer's GOAWAY, which tells whether all was well."""
        code = self._peer_code
        if code == ErrorCode.NO_ERROR:
            message = "the peer closed the session"
            self.end(SessionClosed, code, self._peer_debug, True, message, clean=True)
            return
        text = self._peer_debug.decode("utf-8", "backslashreplace")
        if not text.isprintable():  # or a peer could write lines of its own into a log
            text = ascii(text)[1:-1]
        message = f"the peer ended the session with {code_name(code)}: {text}"
        self.end(ProtocolError, code, self._peer_debug, True, message)

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
        if self.state < CLOSING:
            self._close_deadline = self.now + self.config.close_timeout
            self.set_state(CLOSE)
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
