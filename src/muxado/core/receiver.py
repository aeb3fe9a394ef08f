"""What comes in: judges every frame, and answers the ones that are out of place.

The answers are docs/protocol.md section 12. A peer's fault is never an exception here: it
becomes a RST or the session's end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import ErrorCode
from ..wire.codec import BAD_FRAME, CREDIT, DATA, GO_AWAY, NEED_MORE, RESET
from ..wire.foreign import recognise
from .limits import ChurnGuard, MutedIds
from .sender import MAX_ANSWERS
from .states import CLOSING, DRAINING, IDLE, RECV_FIN, RECV_SYN, REMOTE_DONE
from .stream import TO_ECHO, TO_READER, TO_TYPE, CoreStream

if TYPE_CHECKING:
    from .session import CoreSession

# How many readers and new streams one turn of parsing may stir before the application gets
# its own turn. With fewer than half of them answered, the peer could not work meanwhile.
TURN_SIZE: Final = 24

# A credit sum is unbounded on the wire; this keeps it in a machine word.
MOST_CREDIT: Final = 1 << 60


class Receiver:
    """The incoming side of a session.

    Attributes:
        held: True while parsing has stopped in the middle of a read, because the
            application should first take streams or the transport answers.
        stuck: True if it is the transport that should.
        muted: streams this side has reset.
    """

    __slots__ = (
        "_churn",
        "_decoder",
        "_first_bytes",
        "_first_frame",
        "_new_ids",
        "_opened",
        "_refusing",
        "_session",
        "_stream",
        "held",
        "muted",
        "stuck",
    )

    def __init__(self, session: CoreSession) -> None:
        self._session = session
        self._decoder = session.decoder
        self._stream: CoreStream | None = None  # whose DATA frame is coming in
        self._first_frame = True
        self._first_bytes = b""
        self._opened = 0
        self._refusing = False
        self._churn = ChurnGuard(session.config.max_incoming_streams)
        self._new_ids: set[int] = set()  # of those streams, which the application can't have seen
        self.held: bool = False
        self.stuck: bool = False
        self.muted: MutedIds = MutedIds()

    def resume(self) -> None:
        """Parse on after `held`: whoever should have made room has had a turn."""
        if not self.waits_for_transport():
            self.held = self.stuck = False
            self.parse()

    def waits_for_transport(self) -> bool:
        """Return whether answers must leave before parsing goes on."""
        return self.stuck and self.flooded()

    def read_on(self) -> None:
        """Make room for input although parsing has stopped.

        The application need not have had a turn meanwhile, nor the transport: as long as there
        is room for what the peer sends, they have time.
        """
        if self._decoder.find_room():
            return
        if self.waits_for_transport():
            self._session.flooded()
        else:
            self.resume()

    def finish(self) -> None:
        """Parse all that has come: nobody can make room any more."""
        while self.held:
            self.held = self.stuck = False
            self.parse()

    def release(self) -> None:
        """Forget all that only input could need, of which there is no more."""
        self._stream = None
        self._new_ids.clear()
        self.muted.clear()

    def parse(self) -> None:
        """Handle every frame that has come. A queue still full now has had its turn."""
        session = self._session
        decoder = self._decoder
        streams = session.streams
        if self._opened:
            self._opened = 0
            self._new_ids.clear()
        stirred = len(session.wakes)  # before this turn; nobody may have taken them yet
        self._refusing = len(session.accept_queue) >= session.config.accept_backlog
        if self._first_frame:
            self._first_bytes = decoder.first_bytes()
        while session.state <= CLOSING and not session.deaf:
            if decoder.body:
                chunk = decoder.take()
                if not chunk:
                    return
                self._body(chunk)
                continue
            if self._opened + len(session.wakes) - stirred >= TURN_SIZE:
                self.held = True
            if self.held:
                return
            kind = decoder.next()
            if kind == NEED_MORE:
                return
            session.frames_received += 1
            if kind == DATA:
                stream = streams.get(decoder.stream_id)
                if stream is None or decoder.syn or not stream.input_open():
                    stream = self._out_of_place(stream)
                    if stream is None:
                        decoder.skip()
                        self._first_frame = False
                        self.hold_if_flooded()
                        continue
                self._data(stream, decoder.length)
            elif kind == CREDIT:
                stream = streams.get(decoder.stream_id)
                if stream is not None and stream.state != IDLE:
                    self._credit(stream, decoder.value)
                elif decoder.stream_id > session.rules.last_id:
                    self._bad_id()
            elif kind == RESET:
                self._reset(decoder.stream_id, decoder.code)
            elif kind == GO_AWAY:
                session.peer_goes_away(decoder.value, decoder.code, decoder.text)
            elif kind == BAD_FRAME:
                self._bad_frame()
            self._first_frame = False

    def eof(self) -> None:
        """Handle the transport's end."""
        session = self._session
        if self._first_frame and self._foreign():
            return
        session.peer_ended(self._decoder.inside_frame(), silent=session.frames_received == 0)

    # DATA

    def _data(self, stream: CoreStream, length: int) -> None:
        """Take the header of a DATA frame for a stream that may receive."""
        session = self._session
        stream.heard = True
        if length:
            if length > stream.recv_credit:
                self._decoder.skip()
                self.violation(stream, ErrorCode.FLOW_CONTROL_ERROR)
                return
            held = session.unread + session.claimed + length
            if held > session.most_held and not session.lease(held):
                self._decoder.skip()
                self.violation(stream, ErrorCode.ENHANCE_YOUR_CALM)
                return
            stream.recv_credit -= length
            session.payload_received += length
            self._stream = stream
        elif self._decoder.fin:
            self._fin(stream)

    def _body(self, chunk: bytes) -> None:
        """Take bytes of the DATA frame that is coming in."""
        stream = self._stream
        assert stream is not None
        session = self._session
        if stream.destination == TO_READER:
            if stream.input_open():
                session.unread += len(chunk)
                stream.receive(chunk)
        elif stream.destination == TO_TYPE:
            session.types.receive(stream, chunk)
        elif stream.destination == TO_ECHO:
            session.types.echo(stream, chunk)
        else:
            stream.dropped = True
            session.unread += len(chunk)
            session.consumed(stream, len(chunk))
        if not self._decoder.body:
            self._stream = None
            if self._decoder.fin and stream.input_open():
                self._fin(stream)

    def _fin(self, stream: CoreStream) -> None:
        session = self._session
        stream.advance(RECV_FIN)
        if stream.destination == TO_TYPE:
            self.violation(stream, ErrorCode.STREAM_CANCELLED)
            return
        if stream.destination == TO_ECHO:
            stream.finish()
        if not stream.input_open() and stream.state != REMOTE_DONE:
            session.forget(stream)
            stream.wake_end()
        elif stream.queued() and stream.send_credit <= 0:
            session.sender.ask_after(stream)
        stream.wake_reader()

    def violation(self, stream: CoreStream, code: int) -> None:
        """Reset a stream that the peer has misused, or can't be served."""
        self._answer(stream.stream_id, code)
        stream.end(code, by_peer=False)
        self.hold_if_flooded()

    def coming(self, stream: CoreStream) -> int:
        """Return how many bytes of a frame that has begun are still to come for a stream."""
        return self._decoder.body if self._stream is stream else 0

    def _out_of_place(self, stream: CoreStream | None) -> CoreStream | None:
        """Judge DATA that opens a stream, or that no stream expects; None: skip its body."""
        session = self._session
        decoder = self._decoder
        stream_id = decoder.stream_id
        too_long = decoder.length > session.config.initial_window
        # No muxado peer begins so. The hello of TLS may, if it is over 4 KiB long.
        if self._first_frame and too_long and self._foreign():
            return None
        if stream_id > session.rules.last_id:
            self._bad_id()
            return None
        if decoder.syn:
            return self._open(stream_id, stream)
        if stream is not None and stream.state != IDLE:
            # After FIN. The reader keeps its clean end; only our own half is lost.
            if decoder.length:
                self.violation(stream, ErrorCode.STREAM_CLOSED)
            elif decoder.fin and stream.queued() and stream.send_credit <= 0:
                session.sender.ask_after(stream)
            return None
        if decoder.fin and not decoder.length:
            return None
        if stream_id == session.rules.ping_id:
            session.shrink_if_idle()
        answers = session.sender.answers
        if stream_id not in self.muted and stream_id not in answers and self._answers_more():
            answers[stream_id] = int(ErrorCode.STREAM_CLOSED)
            session.sender.drawn += 1
            if stream_id != session.rules.ping_id:
                session.resets_sent.count(int(ErrorCode.STREAM_CLOSED))
        return None

    # Opening

    def _open(self, stream_id: int, live: CoreStream | None) -> CoreStream | None:
        session = self._session
        if stream_id % 2 == session.next_id % 2:
            role = "clients" if session.client else "servers"
            session.fail(
                ErrorCode.PROTOCOL_ERROR,
                f"SYN with this side's parity: are both ends {role}?",
            )
            return None
        if live is not None:
            session.fail(ErrorCode.PROTOCOL_ERROR, "SYN of a live stream")
            return None
        if session.state >= DRAINING or session.going_away:
            self._refuse(stream_id, ErrorCode.STREAM_REFUSED)
            return None
        if session.incoming >= session.config.max_incoming_streams:
            self._refuse(stream_id, ErrorCode.STREAM_REFUSED)
            return None
        if self._queue_stays_full():
            self._refuse(stream_id, ErrorCode.ACCEPT_QUEUE_FULL)
            return None
        self.muted.discard(stream_id)
        stream = CoreStream(session, stream_id, False, session.config.initial_window)
        stream.advance(RECV_SYN)
        session.add_incoming(stream)
        if session.config.typed:
            session.types.expect(stream)
        else:
            self.deliver(stream)
        return stream

    def _refuse(self, stream_id: int, code: int) -> None:
        self._session.refusals.count(code)
        self._answer(stream_id, code)

    def deliver(self, stream: CoreStream) -> None:
        """Queue a stream for the application, and stop parsing if the queue is full now."""
        session = self._session
        if self._queue_stays_full():
            session.refusals.count(ErrorCode.ACCEPT_QUEUE_FULL)
            self.violation(stream, ErrorCode.ACCEPT_QUEUE_FULL)
            return
        session.deliver(stream)
        self._opened += 1
        self._new_ids.add(stream.stream_id)
        if len(session.accept_queue) >= session.config.accept_backlog and not self._refusing:
            self.held = True

    def _queue_stays_full(self) -> bool:
        session = self._session
        return self._refusing and len(session.accept_queue) >= session.config.accept_backlog

    # The other frames

    def _credit(self, stream: CoreStream, increment: int) -> None:
        credit = stream.send_credit + increment
        stream.given += increment
        if credit > MOST_CREDIT:
            stream.given -= credit - MOST_CREDIT
            credit = MOST_CREDIT
        stream.send_credit = credit
        stream.heard = True
        if stream.queued() and not stream.scheduled:
            sender = self._session.sender
            sender.unblocked(stream)
            sender.scheduler.add(stream)

    def _reset(self, stream_id: int, code: int) -> None:
        session = self._session
        stream = session.streams.get(stream_id)
        if stream is None or stream.state == IDLE:
            if stream_id > session.rules.last_id:
                self._bad_id()
            elif stream_id == session.rules.ping_id:
                session.ping_answered()
            return
        session.resets_received.count(code)
        if stream.local and code == ErrorCode.ACCEPT_QUEUE_FULL:
            # Frees the entry that a Go peer keeps (docs/protocol.md section 13, no. 9).
            self._answer(stream_id, ErrorCode.STREAM_CANCELLED)
            self.hold_if_flooded()
        elif code == ErrorCode.REMOTE_GONE_AWAY:
            stream.heard = True  # only our own word for a refusal: this peer has seen the stream
        new = stream_id in self._new_ids or stream.destination == TO_TYPE
        at_once = new and not stream.accepted
        stream.end(code, by_peer=True)
        if at_once and self._churn.too_many(session.now):
            session.fail(ErrorCode.ENHANCE_YOUR_CALM, "too many streams opened and reset")

    def _bad_id(self) -> None:
        self._session.fail(ErrorCode.PROTOCOL_ERROR, "stream id is too large")

    def _bad_frame(self) -> None:
        decoder = self._decoder
        if not (self._first_frame and self._foreign()):
            self._session.fail(decoder.code, decoder.text.decode())

    def _foreign(self) -> bool:
        """End the session and return True if the first bytes are another protocol's."""
        if self._decoder.stepped_over:
            return False  # it has begun with a frame that is legal, if unknown
        name = recognise(self._first_bytes)
        if name:
            self._session.reject(ErrorCode.PROTOCOL_ERROR, name)
        return len(name) > 0

    def _answer(self, stream_id: int, code: int) -> None:
        """Queue a RST that the peer has drawn."""
        if self._answers_more():
            self._session.answer_reset(stream_id, code)
            self._session.sender.drawn += 1

    def _answers_more(self) -> bool:
        """Return whether the peer may draw another answer.

        A session that is closing has said all with its GOAWAY. It goes without further answers
        rather than give up on a peer that goes on talking, and lose what it still has to send.
        """
        return self._session.state < CLOSING or self._session.sender.drawn < MAX_ANSWERS

    def hold_if_flooded(self) -> None:
        """Stop parsing until the transport has taken what waits, if that is too much."""
        if self.flooded():
            self.held = self.stuck = True

    def flooded(self) -> bool:
        """Return whether too many RSTs wait for the transport, of either kind."""
        return self._session.sender.drawn > MAX_ANSWERS or self.too_many_own()

    def too_many_own(self) -> bool:
        """Return whether too many RSTs wait that the application has asked for.

        It may reset all the streams that it has in one step, which are not too many.
        """
        session = self._session
        return session.sender.own > MAX_ANSWERS + session.config.max_incoming_streams
