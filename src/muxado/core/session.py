"""The session as a shell drives it: bytes in, bytes out, time, and streams."""

from __future__ import annotations

from math import inf

from ..config import Config
from ..errors import (
    ErrorCode,
    PeerGone,
    PeerTimeout,
    SessionClosed,
    StreamsExhausted,
    UsageError,
)
from ..wire import MUXADO_V2, Decoder, Rules, WireFormat
from .buffers import Outbox
from .credit import CreditEstimator, worth_granting
from .drain import Drain
from .life import ANSWERED, SessionLife
from .liveness import Liveness
from .receiver import Receiver
from .sender import Sender
from .states import CLOSED, CLOSING, DRAINING, END, ENDED, SEND_FIN, SESSION_STATES
from .stats import SessionStats
from .stream import TYPE_SIZE, CoreStream
from .typed import TypeGate


class CoreSession(SessionLife):
    """One end of a muxado connection, without I/O.

    Times are seconds of any clock that never goes back. Calls that take `now` must be
    given times that don't decrease.

    Attributes:
        eof_received: True once the transport's input has ended.
        liveness: the pings; `liveness.answered` is the number of the last one answered.
        wakes: waiters that the shell should wake; see `take_wakes`.
    """

    __slots__ = (
        "_accepted_count",
        "_last_ping",
        "_opened_count",
        "claimed",
        "credit",
        "decoder",
        "drain",
        "eof_received",
        "frames_received",
        "frames_sent",
        "liveness",
        "next_id",
        "payload_received",
        "payload_sent",
        "queued",
        "receiver",
        "refusals",
        "resets_received",
        "resets_sent",
        "rules",
        "unread",
        "wakes",
    )

    # Declared again because this class sets them too.
    abort_transport: bool
    highest_accepted: int
    incoming: int
    now: float
    sender: Sender
    types: TypeGate

    def __init__(
        self, *, client: bool, config: Config, now: float, wire: WireFormat = MUXADO_V2
    ) -> None:
        """Make a session that starts at time `now`; nothing is sent yet."""
        super().__init__(client, config, now, wire)
        self.rules: Rules = wire.rules
        self.decoder: Decoder = wire.new_decoder()
        self.wakes: list[object] = []
        self.next_id: int = wire.rules.first_client_id if client else wire.rules.first_server_id
        self.unread: int = 0  # bytes received, and neither taken nor claimed by a reader
        self.claimed: int = 0  # bytes received that readers wait to have more of
        self.queued: int = 0  # bytes written and not sent
        self.eof_received: bool = False

        self.frames_sent: int = 0
        self.frames_received: int = 0
        self.payload_sent: int = 0
        self.payload_received: int = 0
        self.resets_sent: int = 0
        self.resets_received: int = 0
        self.refusals: int = 0
        self._opened_count = 0
        self._accepted_count = 0
        self._last_ping = 0  # the number of the one that follows everything else

        self.credit: CreditEstimator = CreditEstimator(
            config.max_window, config.max_receive_memory // 2, now
        )
        self.liveness: Liveness = Liveness(config.ping_interval, config.ping_timeout, now)
        self.drain: Drain = Drain(now)
        self.sender = Sender(self)
        self.types = TypeGate(self)
        self.receiver: Receiver = Receiver(self)

    def __repr__(self) -> str:
        role = "client" if self.client else "server"
        return f"<CoreSession {role} {SESSION_STATES[self.state]} streams={len(self.streams)}>"

    # Bytes in

    def receive_buffer(self) -> memoryview:
        """Return where the transport's next bytes should be read into; never empty."""
        if self.receiver.held:
            self.receiver.read_on()
        if self.deaf:
            self.decoder.clear()
        return self.decoder.space()

    def bytes_received(self, count: int, now: float) -> None:
        """Take in the `count` bytes that were put into `receive_buffer()`."""
        self.now = now
        self.decoder.filled(count)
        if self.deaf:
            self.decoder.clear()
            return
        self.liveness.heard(now)
        self.receiver.parse()
        self.credit.tick(now, self.liveness.min_rtt)
        if now >= self.drain.due:
            self.drain.tick(now, self.credit, self.liveness)
        self.liveness.sample(now)

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Take in bytes; the same as `receive_buffer` and `bytes_received`, with a copy."""
        view = memoryview(data)
        self.decoder.make_room(len(view))
        while len(view):
            space = self.receive_buffer()
            count = min(len(space), len(view))
            space[:count] = view[:count]
            view = view[count:]
            self.bytes_received(count, now)

    def receive_eof(self, now: float) -> None:
        """Take note that the transport's input has ended."""
        self.now = now
        if self.eof_received:
            return
        self.eof_received = True
        self.receiver.finish()
        if self.reason is None:
            self.receiver.eof()
        else:
            # Nobody will grant credit any more, nor read.
            self.sender.drop_all()
            for stream in list(self.streams.values()):
                stream.end(-1, by_peer=False)

    def connection_lost(self, exception: BaseException | None, now: float) -> None:
        """Take note that the transport is gone, both ways."""
        self.now = now
        self.receiver.finish()
        if self.reason is not None or exception is None:
            self.receive_eof(now)
        else:
            self.transport_failed(exception)
        self.set_state(END)

    @property
    def held(self) -> bool:
        """True if parsing stopped midway, so that the application gets a turn first.

        The shell should wake whom there is to wake, flush, and call `resume` in its next turn.
        """
        return self.receiver.held and not self.receiver.stuck

    def resume(self, now: float) -> None:
        """Parse on after a turn of the application."""
        self.now = now
        if self.receiver.held:
            self.receiver.resume()

    # Bytes out

    def pending(self) -> bool:
        """Return whether anything waits to be sent."""
        return self.sender.pending()

    def data_to_send(self, now: float, limit: int) -> bytes:
        """Return the next bytes to send, about `limit` of them; b"" if none wait."""
        self.now = now
        return self.sender.data_to_send(now, limit)

    def output_done(self) -> bool:
        """Return whether this side will send nothing more: the transport may be half-closed."""
        if self.state < CLOSING or self.sender.pending() or self.queued:
            return False
        return not self._confirms() or 0 < self._last_ping <= self.liveness.answered

    def end_output(self) -> None:
        """Take note that the transport's output was ended, after `output_done`.

        What comes from then on is thrown away: nobody reads it, and it can't be answered.
        """
        self.deaf = True
        self.receiver.held = self.receiver.stuck = False
        self.sender.drop_all()
        self.decoder.clear()

    def last_ping_due(self) -> bool:
        """Return whether everything is out, and a ping should ask whether it has arrived."""
        liveness = self.liveness
        return (
            self._confirms()
            and self._last_ping == 0
            and liveness.sent == liveness.answered
            and self.sender.scheduler.waiting == 0
            and not self.queued
        )

    def ping_sent(self, now: float) -> None:
        """Note that a ping has been handed over."""
        self.liveness.ping_sent(now)
        if self.state >= CLOSING:
            self._last_ping = self.liveness.sent

    def _confirms(self) -> bool:
        """Return whether the peer can and should confirm that all has arrived."""
        able = self.liveness.supported and not self.deaf and not self.eof_received
        return self.confirm_output and able

    # Whom to wake

    def take_wakes(self) -> list[object]:
        """Return the waiters to wake, as the shell put them on the streams, and forget them."""
        wakes = self.wakes
        self.wakes = []
        return wakes

    # Time

    def next_deadline(self) -> float:
        """Return when `handle_timer` should be called, inf for never."""
        if self.abort_transport or self.state == ENDED:
            return inf
        if self.receiver.stuck and not self.receiver.waits_for_transport():
            return self.now  # the answers have left: parsing goes on
        if self.state == CLOSING:
            return min(self._close_deadline, self.sender.next_deadline())
        return min(
            self.liveness.next_deadline(),
            self.sender.next_deadline(),
            self.types.next_deadline(),
        )

    def handle_timer(self, now: float) -> None:
        """Do what is due by now. Harmless when called early."""
        self.now = now
        if self.receiver.stuck:
            self.receiver.resume()
        if self.state >= CLOSING:
            if now >= self._close_deadline:
                self.abort_transport = True
            self.sender.handle_timer(now)
            return
        if self.liveness.handle_timer(now):
            timeout = self.config.ping_timeout
            message = f"the peer sent nothing for {timeout} s after a ping"
            self.end(PeerTimeout, ErrorCode.UNKNOWN, b"", False, message)
            self.abort_transport = True
            return
        self.sender.handle_timer(now)
        self.types.handle_timer(now)

    # Streams

    def open(
        self, *, type: int | None = None, priority: int = 0, eager: bool = False
    ) -> CoreStream:
        """Open a stream. The peer hears of it with its first write, read, FIN, or `eager`.

        Raises:
            UsageError: the type or the priority can't be.
            SessionClosed: this session takes no new streams, or another `SessionError`
                if it has ended otherwise.
            PeerGone: the peer takes no new streams.
            StreamsExhausted: every stream id has been used.
        """
        config = self.config
        if type is not None and not config.typed:
            raise UsageError(
                "stream types need Config(typed=True) on both ends: on this wire a type is"
                " the stream's first 4 bytes, by agreement only"
            )
        if config.typed:
            if type is not None and not 0 <= type <= 0xFFFFFFFF:
                raise UsageError(f"a stream type is a 32-bit number, not {type}")
            if (type or 0) == config.heartbeat_type:
                raise UsageError(
                    f"type {type or 0:#x} is for heartbeats, which are answered, not opened"
                )
        if self.state >= CLOSING:
            raise self.failure()
        if self.state == DRAINING:
            raise SessionClosed("the session is shutting down and opens no new streams")
        if self.peer_gone:
            raise PeerGone("the peer has said GOAWAY: dial a new session")
        stream_id = self.next_id
        if stream_id > self.rules.last_id:
            raise StreamsExhausted("every stream id has been used: dial a new session")
        stream = CoreStream(self, stream_id, True, config.initial_window)
        if priority:
            stream.set_priority(priority)
        self.next_id += 2
        self._opened_count += 1
        self.streams[stream_id] = stream
        if config.typed:
            stream.type = type or 0
            stream.outbox = Outbox()
            stream.outbox.append(stream.type.to_bytes(TYPE_SIZE, "big"))
            self.queued += TYPE_SIZE
        if eager:
            stream.announce()
        return stream

    def accept(self) -> CoreStream | None:
        """Return the next stream that the peer opened, None if none waits.

        Raises:
            SessionError: the session is closing or has ended, and no stream waits.
        """
        queue = self.accept_queue
        if queue:
            stream = queue.popitem(last=False)[1]
            stream.accepted = True
            self._accepted_count += 1
            return stream
        if self.state >= CLOSING:
            raise self.failure()
        return None

    def ping(self) -> int:
        """Ask for a ping; it is answered once `liveness.answered` reaches the number returned.

        Raises:
            UsageError: the peer has opened the very stream that pings use.
            SessionError: the session is closing or has ended.
        """
        if self.state >= CLOSING:
            raise self.failure()
        if not self.liveness.supported:
            raise UsageError("the peer uses stream 1 itself, so it can't be pinged")
        return self.liveness.request()

    def pong(self, number: int) -> bool:
        """Return whether a ping has been answered. Raises as `ping` if it never will be."""
        if self.liveness.answered >= number:
            return True
        if self.state >= CLOSING:
            raise self.failure()
        if not self.liveness.supported:
            raise UsageError("the peer uses stream 1 itself, so it can't be pinged")
        return False

    def stats(self) -> SessionStats:
        """Return a snapshot of the counters."""
        return SessionStats(
            streams=len(self.streams) - self.heartbeats,
            streams_opened=self._opened_count,
            streams_accepted=self._accepted_count,
            frames_sent=self.frames_sent,
            frames_received=self.frames_received,
            bytes_sent=self.payload_sent,
            bytes_received=self.payload_received,
            rtt=self.liveness.rtt,
            min_rtt=self.liveness.min_rtt,
            stalls=self.sender.stalls,
            resets_sent=self.resets_sent,
            resets_received=self.resets_received,
            refusals=self.refusals,
            memory_held=self.unread + self.claimed,
            bytes_queued=self.queued,
        )

    # For the parts of the session

    def answer_reset(self, stream_id: int, code: int) -> None:
        """Queue a RST, and let what the peer has under way for the stream pass unanswered."""
        self.sender.answers[stream_id] = int(code)
        self.receiver.muted.add(stream_id)
        self.resets_sent += 1

    def consumed(self, stream: CoreStream, count: int) -> None:
        """Account for bytes that a reader took, and grant credit if enough of it is used up."""
        self.unread -= count
        self.credit.taken(count)
        window = stream.window
        if stream.granting or not worth_granting(window, stream.recv_credit):
            return
        held = self.outstanding(stream)
        if not worth_granting(window, held) or not stream.input_open():
            return
        if stream.epoch != self.credit.epoch:
            stream.epoch = self.credit.epoch
            self.credit.stream_counted()
        share = self.credit.share()
        if share >= window or worth_granting(share, held):
            self.sender.grant(stream)

    def outstanding(self, stream: CoreStream) -> int:
        """Return how many bytes of a stream the peer may still make us hold."""
        coming = self.receiver.coming(stream)
        return stream.recv_credit + coming + stream.unread() - stream.claimed

    def ping_answered(self) -> None:
        """Take the answer to a ping."""
        if self.liveness.answer(self.now):
            self._events |= ANSWERED

    def add_incoming(self, stream: CoreStream) -> None:
        """Take a stream that the peer opened into the table."""
        stream_id = stream.stream_id
        self.streams[stream_id] = stream
        self.incoming += 1
        if stream_id > self.highest_accepted:
            self.highest_accepted = stream_id
        if stream_id == self.rules.ping_id:
            self.liveness.turn_off()
            self._events |= ANSWERED

    def stream_finished(self, stream: CoreStream) -> None:
        """Note that a stream's FIN has been handed over."""
        stream.advance(SEND_FIN)
        if stream.state == CLOSED:
            self.forget(stream)
        elif stream.closed_here:
            self.forget_closed(stream)
        stream.wake_end()

    def forget_closed(self, stream: CoreStream) -> None:
        """Forget a stream that was closed here, as Go does, once its FIN is out.

        A peer that may be waiting to write is told that nobody reads any more.
        """
        if not stream.eof_received and (stream.dropped or stream.recv_credit <= 0):
            self.answer_reset(stream.stream_id, ErrorCode.STREAM_CLOSED)
        stream.end(-1, by_peer=False)
