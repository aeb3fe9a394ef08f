"""What comes in: judges every frame, and answers the ones that are out of place.

`parse` is called with each read of the transport. The decoder cuts what has come into frames and
announces one at a time; the receiver judges it by the table of streams and hands it on. Of a DATA
frame only the header is announced: `_data` or `_out_of_place` decide whether the stream may have
it, and only then `_body` takes what comes, chunk by chunk, to where the stream's bytes go
(`stream.sink`). A frame for no live stream is answered or ignored by docs/protocol.md section 12.

A peer's fault is never an exception here. It becomes a RST of its stream (`_reject`) or the end of
the session (`Closing.fail`), and the calls that wait are woken with the error.

Parsing pauses in the middle of a read, and goes on by `resume`, for one of two reasons:

- `paused`: the accept queue is full, or so many readers were woken and streams accepted
  (`BATCH_SIZE`) that the application should run first. The front end resumes in its next turn.
  Streams are refused only if the queue is still full then.
- `paused_for_output` as well: too many RSTs wait for the transport. It must take them first. A peer
  that goes on sending until no more fits is given up (`read_on`).

On a wire without resets it also pauses for a frame that there is no room for (`holding.active`).
"""

from __future__ import annotations

from typing import Final

from ..errors import ErrorCode
from ..wire import TYPES_IN_SYN, Decoder
from ..wire.codec import (
    ACCEPTED,
    BAD_FRAME,
    CREDIT,
    DATA,
    GO_AWAY,
    NEED_MORE,
    PING,
    PONG,
    RESET,
    WINDOW,
)
from ..wire.foreign import recognise
from .closing import Closing
from .guards import ChurnGuard
from .holding import Holding
from .ledger import ANSWERED, Ledger
from .liveness import IDLE as LONGEST_IDLE
from .liveness import Liveness
from .resets import PendingResets
from .stalls import Stalls
from .states import CLOSING, DRAINING, IDLE, RECV_FIN, REMOTE_DONE
from .stream import CoreStream
from .stream_state import TO_ECHO, TO_READER, TO_TYPE
from .stream_table import StreamTable
from .tallies import CodeCounts
from .typed_streams import TypedStreams
from .window import Window

# A session that has received fewer bytes of payload in `LONGEST_IDLE` gives a large buffer back.
LITTLE: Final = 16 * 1024

# Parsing pauses after it has woken this many readers or accepted this many streams, so that the
# application can run: with fewer than half of them answered, the peer could not work meanwhile.
BATCH_SIZE: Final = 24

# Pings that are not answered yet because the transport takes nothing.
MOST_PONGS: Final = 4096


class Receiver:
    """The incoming side of a session.

    Attributes:
        paused: True while parsing has stopped in the middle of a read.
        paused_for_output: True if it goes on when the transport has taken what waits.
        frames_received: how many frames were parsed.
        holding: the frame that waits for room, where streams can't be reset.
        resets_received: how often each code came for a stream that was alive.
        refusals: how often each code refused a stream.
    """

    __slots__ = (
        "_can_reset",
        "_churn",
        "_closing",
        "_decoder",
        "_first_bytes",
        "_first_frame",
        "_highest_syn",
        "_idle_time",
        "_ledger",
        "_liveness",
        "_new_ids",
        "_opened",
        "_received_before",
        "_refusing",
        "_resets",
        "_shrink_due",
        "_stalls",
        "_stream",
        "_table",
        "_typed",
        "_types_said",
        "_window",
        "frames_received",
        "holding",
        "paused",
        "paused_for_output",
        "refusals",
        "resets_received",
    )

    def __init__(
        self,
        ledger: Ledger,
        decoder: Decoder,
        table: StreamTable,
        closing: Closing,
        typed: TypedStreams,
        liveness: Liveness,
    ) -> None:
        self._ledger = ledger
        self._decoder = decoder
        self._table = table
        self._closing = closing
        self._typed = typed
        self._liveness = liveness
        self._resets: PendingResets = table.resets
        self._stalls: Stalls = table.stalls
        self._window: Window = table.window
        self._stream: CoreStream | None = None  # whose DATA frame is coming in
        self._first_frame = True
        self._first_bytes = b""
        self._opened = 0  # how many streams this call of `parse` has queued for `accept`
        self._highest_syn = -1
        # Whether the peer says a type with each stream, either way.
        self._types_said: bool = ledger.config.typed or ledger.rules.types == TYPES_IN_SYN
        self._new_ids: set[int] = set()  # of those streams, which the application can't have seen
        self._refusing = False  # whether the accept queue was full before this call of `parse`
        self._churn = ChurnGuard(ledger.config.max_incoming_streams)
        interval = ledger.config.ping_interval or LONGEST_IDLE
        self._idle_time: float = min(interval, LONGEST_IDLE)
        # When it is next asked whether the receive buffer is larger than need be.
        self._shrink_due: float = ledger.now + self._idle_time
        self._received_before = 0  # payload bytes when it last was
        self._can_reset: bool = ledger.rules.resets
        self.holding: Holding = Holding(ledger, table)
        self.paused: bool = False
        self.paused_for_output: bool = False
        self.frames_received: int = 0
        self.resets_received: CodeCounts = CodeCounts()
        self.refusals: CodeCounts = CodeCounts()

    # Parsing

    def resume(self) -> None:
        """Parse on after a pause, if the transport has taken what it should."""
        if self.waits_for_transport() or (self.holding.active and not self.holding.over()):
            return
        self.paused = self.paused_for_output = False
        if self.holding.active:
            self._judge_again()
        self.parse()

    def _judge_again(self) -> None:
        """Handle the frame that has waited for room; it may have to wait again."""
        self.holding.release()
        decoder = self._decoder
        stream = self._table.streams.get(decoder.stream_id)
        if stream is None or decoder.syn or not stream.input_open():
            stream = self._out_of_place(stream)
        if stream is not None:
            self.paused = self._data(stream, decoder.length)
        else:
            decoder.skip()
        if not self.holding.active:
            self.holding.admitted()

    def waits_for_transport(self) -> bool:
        """Return whether RSTs must leave before parsing goes on."""
        return self.paused_for_output and self._resets.full

    def read_on(self) -> None:
        """Make room for input although parsing has paused.

        The application need not have run meanwhile, nor the transport have taken anything: as long
        as there is room for what the peer sends, they have time.
        """
        if self._decoder.find_room(self.holding.active):
            return
        if self.waits_for_transport():
            self._closing.flooded()
        else:
            self.resume()

    def finish(self) -> None:
        """Parse all that has come: it makes no sense to wait for room any more."""
        self.holding.end()
        while self.paused:
            self.paused = self.paused_for_output = False
            if self.holding.active:
                self._judge_again()
            self.parse(at_the_end=True)

    def release(self) -> None:
        """Forget all that only input could need, of which there is no more."""
        self._stream = None
        self._new_ids.clear()
        self._resets.recent.clear()
        self._decoder.release()

    def parse(self, at_the_end: bool = False) -> None:
        """Handle every frame that has come, until a pause.

        Args:
            at_the_end: whether the transport's input has ended: each call gets on then, however
                many RSTs wait.
        """
        ledger = self._ledger
        decoder = self._decoder
        streams = self._table.streams
        if self._opened:
            self._opened = 0
            self._new_ids.clear()
        holding = self.holding
        if holding.active:
            return
        woken = len(ledger.wakes)  # before this call; they may not have been taken yet
        # A queue that is still full now was given its time.
        self._refusing = len(self._table.accept_queue) >= ledger.config.accept_backlog
        if self._first_frame:
            self._first_bytes = decoder.first_bytes()
        if self._resets.full and not at_the_end:  # the application has asked for many since
            self._pause_if_full()
        while ledger.state <= CLOSING and not ledger.discard_input:
            if decoder.body:
                chunk = decoder.take()
                if not chunk:
                    return
                self._body(chunk)
                continue
            if self._opened + len(ledger.wakes) - woken >= BATCH_SIZE:
                self.paused = True
            if self.paused:
                return
            kind = decoder.next()
            if kind == NEED_MORE:
                return
            self.frames_received += 1
            if kind == DATA:
                stream = streams.get(decoder.stream_id)
                if stream is None or decoder.syn or not stream.input_open():
                    stream = self._out_of_place(stream)
                    if stream is None:
                        self._first_frame = False
                        if self.holding.active:
                            self.paused = True
                            return
                        decoder.skip()
                        self._pause_if_full()
                        continue
                if self._data(stream, decoder.length):
                    self.paused = True
                    return
            elif kind == CREDIT:
                self._credit(decoder.stream_id, decoder.value)
            elif kind == RESET:
                self._reset(decoder.stream_id, decoder.code)
            elif kind == GO_AWAY:
                self._closing.peer_goes_away(decoder.value, decoder.code, decoder.text)
            elif kind == BAD_FRAME:
                self._bad_frame()
            elif kind == ACCEPTED:
                self._accepted(decoder.stream_id)
            elif kind == WINDOW:
                self._credit_total(decoder.stream_id, decoder.value, decoder.window)
            elif kind == PING:
                self._answer_ping(decoder.value)
            elif kind == PONG and self._liveness.answer(ledger.now):
                ledger.note(ANSWERED)
            self._first_frame = False

    def eof(self) -> None:
        """Handle the transport's end."""
        if self._first_frame and self._foreign():
            return
        self._closing.peer_ended(self._decoder.inside_frame(), silent=self.frames_received == 0)

    # DATA

    def _data(self, stream: CoreStream, length: int) -> bool:
        """Take the header of a DATA frame for a stream that may receive; True: it must wait."""
        stream.acknowledged = True
        if length:
            if self._can_reset:
                code = self._window.admit(stream, length)
            else:
                code = self._window.admit_or_wait(stream, length, self.holding.last)
            if code:
                return self._not_admitted(stream, length, code)
            self._stream = stream
        elif self._decoder.fin:
            self._fin(stream)
        return False

    def _not_admitted(self, stream: CoreStream, length: int, code: int) -> bool:
        """Reset a stream whose DATA can't be let in; True: have the frame wait instead."""
        if self._can_reset:
            self._decoder.skip()
            self._reject(stream, code)
            return False
        if self._window.never_fits(length):
            self._decoder.skip()
            text = "a reader waits for more than Config.max_receive_memory holds"
            self._closing.fail(code, text)
            return False
        self.holding.hold(length)
        return True

    def _body(self, chunk: bytes) -> None:
        """Take bytes of the DATA frame that is coming in."""
        stream = self._stream
        assert stream is not None
        if stream.sink == TO_READER:
            if stream.input_open():
                self._window.put(stream, chunk)
                if stream.read_waiter is not None:
                    stream.wake_reader()
        elif stream.sink == TO_TYPE:
            if self._typed.receive(stream, chunk):
                self._deliver(stream)
            self._pause_if_full()
        elif stream.sink == TO_ECHO:
            self._typed.echo(stream, chunk)
            self._pause_if_full()
        else:
            stream.drop(chunk)
        if not self._decoder.body:
            self._stream = None
            if self._decoder.fin and stream.input_open():
                self._fin(stream)

    def _fin(self, stream: CoreStream) -> None:
        stream.advance(RECV_FIN)
        if stream.sink == TO_TYPE:
            self._reject(stream, ErrorCode.STREAM_CANCELLED)
            return
        if stream.sink == TO_ECHO:
            stream.finish()
        if not stream.input_open() and stream.state != REMOTE_DONE:
            self._table.forget(stream)
            stream.wake_end()
        elif stream.queued() and stream.send_credit <= 0:
            self._stalls.ask_after(stream)
        stream.wake_reader()

    def _reject(self, stream: CoreStream, code: int) -> None:
        """Reset a stream that the peer has misused, or that can't be served."""
        self._table.reject(stream, code)
        self._pause_if_full()

    def _out_of_place(self, stream: CoreStream | None) -> CoreStream | None:
        """Judge DATA that opens a stream, or that no stream expects; None: skip its body."""
        ledger = self._ledger
        decoder = self._decoder
        stream_id = decoder.stream_id
        too_long = decoder.length > ledger.first_window
        # No muxado peer begins so. The hello of TLS may, if it is over 4 KiB long.
        if self._first_frame and too_long and self._foreign():
            return None
        if stream_id > ledger.rules.last_id:
            self._bad_id()
            return None
        if decoder.syn:
            return self._open(stream_id, stream)
        if stream is not None and stream.state != IDLE:
            # After FIN. The reader keeps its clean end; only our own half is lost.
            if decoder.length and ledger.rules.resets:
                self._reject(stream, ErrorCode.STREAM_CLOSED)
            elif decoder.fin and stream.queued() and stream.send_credit <= 0:
                self._stalls.ask_after(stream)
            return None
        if (decoder.fin and not decoder.length) or not ledger.rules.resets:
            return None
        if stream_id == ledger.rules.ping_id:
            self.shrink_if_idle()
        self._resets.provoke_for_unknown(stream_id)
        return None

    # Opening

    def _open(self, stream_id: int, live: CoreStream | None) -> CoreStream | None:
        """Let in the stream that a SYN opens, or refuse it and return None."""
        ledger = self._ledger
        table = self._table
        if stream_id % 2 == table.next_id % 2:
            role = "clients" if ledger.client else "servers"
            self._closing.fail(
                ErrorCode.PROTOCOL_ERROR,
                f"SYN with this side's parity: are both ends {role}?",
            )
            return None
        rules = ledger.rules
        if live is not None:
            if not rules.repeated_syn:
                self._closing.fail(ErrorCode.PROTOCOL_ERROR, "SYN of a live stream")
            return None
        if rules.ids_rise:
            if stream_id <= self._highest_syn:
                self._closing.fail(ErrorCode.PROTOCOL_ERROR, "SYN of an id that does not rise")
                return None
            self._highest_syn = stream_id
        # A refused heartbeat would end the peer's session.
        heartbeat = self._types_said and self._decoder.type == rules.heartbeat_type
        if not self._can_reset:
            if not self._lets_in():
                return None
        elif not heartbeat and (
            ledger.state >= DRAINING
            or self._closing.going_away
            or table.incoming >= ledger.config.max_incoming_streams
        ):
            self._refuse(stream_id, ErrorCode.STREAM_REFUSED)
            return None
        if not heartbeat and self._queue_stays_full():
            self._refuse(stream_id, ErrorCode.ACCEPT_QUEUE_FULL)
            return None
        self._resets.recent.discard(stream_id)
        stream = table.add_incoming(stream_id)
        if stream_id == ledger.rules.ping_id:
            self._liveness.turn_off()
            ledger.note(ANSWERED)
        if not self._types_said:
            self._deliver(stream)
        elif ledger.config.typed:
            table.expect_type(stream)
        elif self._typed.opened(stream, self._decoder.type, self._decoder.priority):
            self._deliver(stream)
        return stream if stream.input_open() else None

    def _lets_in(self) -> bool:
        """Return whether the peer may have one more stream, where none can be refused."""
        ledger = self._ledger
        if ledger.state >= DRAINING:  # it hears of it by the session's end, which is near
            self._closing.leave_unanswered()
            return False
        if ledger.config.max_incoming_streams == 0:
            text = "a stream was opened, and Config.max_incoming_streams is 0"
            self._closing.fail(ErrorCode.STREAM_REFUSED, text)
            return False
        has_room = self.holding.has_room_for_stream()
        if not has_room and self.holding.last:
            self._closing.drop_unplaced()
        return has_room

    def _refuse(self, stream_id: int, code: int) -> None:
        self.refusals.count(code)
        self._resets.provoke(stream_id, code)

    def _deliver(self, stream: CoreStream) -> None:
        """Queue a stream for the application, and pause if the queue is full now."""
        table = self._table
        if self._queue_stays_full():
            self.refusals.count(ErrorCode.ACCEPT_QUEUE_FULL)
            self._reject(stream, ErrorCode.ACCEPT_QUEUE_FULL)
            return
        table.deliver(stream)
        self._opened += 1
        self._new_ids.add(stream.stream_id)
        if len(table.accept_queue) >= self._ledger.config.accept_backlog and not self._refusing:
            self.paused = True

    def _queue_stays_full(self) -> bool:
        backlog = self._ledger.config.accept_backlog
        return self._refusing and self._can_reset and len(self._table.accept_queue) >= backlog

    # The other frames

    def _credit(self, stream_id: int, increment: int) -> None:
        stream = self._table.streams.get(stream_id)
        if stream is not None and stream.state != IDLE:
            stream.acknowledged = True
            stream.credit_received(increment)
        elif stream_id > self._ledger.rules.last_id:
            self._bad_id()
        elif stream is None:
            self._table.refilled(stream_id, increment)

    def _credit_total(self, stream_id: int, consumed: int, window: int) -> None:
        stream = self._table.streams.get(stream_id)
        if stream is None or stream.state == IDLE:
            return
        stream.acknowledged = True
        if not stream.credit_told(consumed, window):
            self._closing.fail(ErrorCode.FLOW_CONTROL_ERROR, "more was consumed than was sent")
        elif stream.queued() and stream.send_credit <= 0 and stream.state == REMOTE_DONE:
            self._stalls.ask_after(stream)

    def _accepted(self, stream_id: int) -> None:
        stream = self._table.streams.get(stream_id)
        if stream is not None and stream.local and stream.state != IDLE:
            stream.acknowledged = True
            self._table.acknowledged(stream_id)

    def _answer_ping(self, value: int) -> None:
        replies = self._table.replies
        replies.append(self._table.encoder.pong(value))
        if len(replies) > MOST_PONGS:
            self._closing.flooded()

    def _reset(self, stream_id: int, code: int) -> None:
        ledger = self._ledger
        stream = self._table.streams.get(stream_id)
        if stream is None or stream.state == IDLE:
            if stream_id > ledger.rules.last_id:
                self._bad_id()
            elif stream_id == ledger.rules.ping_id and self._liveness.answer(ledger.now):
                ledger.note(ANSWERED)
            return
        self.resets_received.count(code)
        if stream.local and code == ErrorCode.ACCEPT_QUEUE_FULL:
            # Frees the entry that a Go peer keeps (docs/protocol.md section 13, no. 9).
            self._resets.provoke(stream_id, ErrorCode.STREAM_CANCELLED)
            self._pause_if_full()
        elif code == ErrorCode.REMOTE_GONE_AWAY:
            stream.acknowledged = True  # that code is this side's word: this peer saw the stream
        new = stream_id in self._new_ids or stream.sink == TO_TYPE
        at_once = new and not stream.accepted
        stream.end(code, by_peer=True)
        if at_once and self._churn.too_many(ledger.now):
            self._closing.fail(ErrorCode.ENHANCE_YOUR_CALM, "too many streams opened and reset")

    def _bad_id(self) -> None:
        self._closing.fail(ErrorCode.PROTOCOL_ERROR, "stream id is too large")

    def _bad_frame(self) -> None:
        decoder = self._decoder
        if not (self._first_frame and self._foreign()):
            self._closing.fail(decoder.code, decoder.text.decode())

    def _foreign(self) -> bool:
        """End the session and return True if the first bytes are another protocol's."""
        if self._decoder.stepped_over:
            return False  # it has begun with a frame that is legal, if unknown
        name = recognise(self._first_bytes, self._ledger.rules.name)
        if name:
            self._closing.reject(ErrorCode.PROTOCOL_ERROR, name)
        return len(name) > 0

    # Bounds

    def _pause_if_full(self) -> None:
        """Stop parsing until the transport has taken what waits, if that is too much."""
        if self._resets.full:
            self.paused = self.paused_for_output = True

    def shrink_if_idle(self) -> None:
        """Give a large receive buffer back if next to nothing has come for a while.

        Pings still come in an idle session, perhaps the peer's only: so it is not silent, and has
        no timer of its own that fires.
        """
        now = self._ledger.now
        if now < self._shrink_due:
            return
        received = self._window.received
        if received - self._received_before < LITTLE:
            self._decoder.shrink()
        self._received_before = received
        self._shrink_due = now + self._idle_time
