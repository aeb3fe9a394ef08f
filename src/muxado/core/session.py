"""The session as a shell drives it: bytes in, bytes out, time, and streams."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ..config import Config
from ..errors import (
    CloseReason,
    ErrorCode,
    GoAway,
    PeerGone,
    PeerTimeout,
    SessionClosed,
    StreamsExhausted,
    UsageError,
)
from ..wire import MUXADO_V2, Decoder, Rules, WireFormat
from ..wire.codec import FIRST_READ_SIZE
from .buffers import Outbox
from .credit import CreditEstimator, worth_granting
from .drain import Drain
from .life import (
    ABORT,
    ANSWERED,
    CLOSE,
    HALF_CLOSE,
    NOTHING,
    WRITE,
    SessionLife,
    goaway_text,
)
from .liveness import IDLE, Liveness
from .memory_pool import MemoryPool, PoolMember
from .receiver import Receiver
from .sender import MAX_ANSWERS, Sender
from .states import CLOSED, CLOSING, DRAINING, END, ENDED, SEND_FIN, SESSION_STATES
from .stats import SessionStats
from .stream import TO_ECHO, TYPE_SIZE, CoreStream
from .tallies import CodeCounts
from .typed import TypeGate


class Lease(PoolMember):
    """What a session leases from a pool."""

    __slots__ = ("_session",)

    def __init__(self, session: CoreSession) -> None:
        self._session = session

    def return_unused(self) -> int:
        """Lease no more than what is held and on its way; the pool's own call."""
        session = self._session
        session.most_held = session.decoder.body + session.unread + session.claimed
        return session.most_held


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
        "_lease",
        "_opened_count",
        "_payload_before",
        "_pool",
        "_shrink_due",
        "claimed",
        "credit",
        "decoder",
        "drain",
        "eof_received",
        "frames_received",
        "frames_sent",
        "liveness",
        "most_held",
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
    output_ended: bool
    confirms_output: bool
    highest_accepted: int
    incoming: int
    now: float
    sender: Sender
    types: TypeGate

    def __init__(
        self,
        *,
        client: bool,
        config: Config,
        now: float,
        wire: WireFormat = MUXADO_V2,
        pool: MemoryPool | None = None,
    ) -> None:
        """Make a session that starts at time `now`; nothing is sent yet.

        A pool limits what it holds together with other sessions.
        """
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
        self.resets_sent: CodeCounts = CodeCounts()
        self.resets_received: CodeCounts = CodeCounts()
        self.refusals: CodeCounts = CodeCounts()
        self._opened_count = 0
        self._accepted_count = 0
        self._last_ping = 0  # the number of the one that follows everything else
        self._shrink_due = now  # when the receive buffer is next given a thought
        self._payload_before = 0  # `payload_received` when it last was

        most = config.max_receive_memory
        self._pool = pool
        self._lease = Lease(self)
        self.most_held: int = most if pool is None else 0  # how much may be received and unread
        self.credit: CreditEstimator = CreditEstimator(
            config.max_window, (most if pool is None else min(most, pool.most)) // 2, now
        )
        self.liveness: Liveness = Liveness(config.ping_interval, config.ping_timeout, now)
        self.decoder.on_growth = self.liveness.watch_for_idleness
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
            self.shrink_if_idle()
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
            self.give_up_unsent()

    def connection_lost(self, exception: BaseException | None, now: float) -> None:
        """Take note that the transport is gone, both ways."""
        self.now = now
        self.receiver.finish()
        if self.reason is not None or exception is None:
            if self.reason is not None:
                self.give_up_unsent(exception)
            self.receive_eof(now)
        else:
            self.transport_failed(exception, silent=self.frames_received == 0)
        self.set_state(END)
        # What has ended may be held for long; streams that can still be read have their own bytes.
        self.incoming = 0
        self.decoder.release()
        self.receiver.release()
        self.leave_pool()

    @property
    def paused(self) -> bool:
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
        if self.output_ended:
            return b""
        return self.sender.data_to_send(now, limit)

    def output_step(self) -> int:
        """Return what the transport needs next: `WRITE`, `HALF_CLOSE`, `CLOSE`, `ABORT`, `NOTHING`.

        It changes nothing. A front end writes what `data_to_send` returns, as far as the transport
        takes it, and then does what this says: for `HALF_CLOSE` and `CLOSE` it calls `end_output`
        and ends the transport's output, or all of it; for `ABORT` it tears the transport down.
        """
        if self.state == ENDED:
            return NOTHING
        if self.abort_transport:
            return ABORT
        if not self.output_ended:
            if self.sender.pending():
                return WRITE
            if not self.output_done():
                return NOTHING
        elif not self.eof_received:
            return NOTHING
        return CLOSE if self.eof_received else HALF_CLOSE

    def confirm_output(self) -> None:
        """Have a ping's answer tell that all has arrived, before `output_step` says `CLOSE`.

        For transports that can't be half-closed, TLS above all: what is unsent when they are
        closed, or arrives with unread input, may be lost.
        """
        self.confirms_output = True

    def output_done(self) -> bool:
        """Return whether this side will send nothing more: the transport may be half-closed."""
        if self.state < CLOSING or self.sender.pending() or self.queued:
            return False
        return not self._confirms() or 0 < self._last_ping <= self.liveness.answered

    def end_output(self) -> None:
        """Take note that the transport's output was ended, as `output_step` said.

        What comes from then on is thrown away: nothing reads it, and it can't be answered.
        """
        self.output_ended = True
        self.discard_input()

    def discard_input(self) -> None:
        """Throw away what comes from now on: the last frame is out."""
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
        return self.confirms_output and able

    # Whom to wake

    @property
    def woken(self) -> int:
        """How many waiters `take_wakes` would return."""
        return len(self.wakes)

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
        if self.liveness.idle(now):
            self.decoder.shrink()
        else:
            self.shrink_if_idle()
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
        if self.peer_goaway is not None:
            raise self._peer_gone(self.peer_goaway)
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

    def _peer_gone(self, goaway: GoAway) -> PeerGone:
        message = f"the peer takes no new streams, it has said GOAWAY with {goaway_text(goaway)}"
        reason = CloseReason(goaway.code, goaway.debug, True, message)
        code = goaway.code or None
        return PeerGone(f"{message}; dial a new session", code=code, reason=reason)

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
        # The application has nothing more to reset, and no RST has left for several turns.
        if self.sender.own > MAX_ANSWERS and self.receiver.too_many_own():
            self.flooded()
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

    @property
    def wire(self) -> str:
        """What the wire format is called."""
        return self.rules.name

    @property
    def heard_at(self) -> float:
        """When bytes came in last; when the session was made, before the first."""
        return self.liveness.received_at

    @property
    def payload(self) -> int:
        """How many payload bytes have been sent and received."""
        return self.payload_sent + self.payload_received

    def list_streams(self) -> list[CoreStream]:
        """Return the streams that are alive, heartbeats aside. It may be asked from any thread."""
        while True:
            try:
                streams = list(self.streams.values())
                break
            except RuntimeError:  # another thread has opened or ended one meanwhile
                continue
        if self.heartbeats:
            streams = [stream for stream in streams if stream.destination != TO_ECHO]
        return streams

    def watch_streams(self, on_end: Callable[[CoreStream], object] | None) -> None:
        """Have a function called with each stream of the application's that ends, or none.

        It is called in the middle of a step: it must not raise, nor use the session.
        """
        self.on_end = on_end

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
            resets_sent=self.resets_sent.total,
            resets_received=self.resets_received.total,
            refusals=self.refusals.total,
            resets_sent_by_code=dict(self.resets_sent.by_code),
            resets_received_by_code=dict(self.resets_received.by_code),
            refusals_by_code=dict(self.refusals.by_code),
            memory_held=self.unread + self.claimed,
            bytes_queued=self.queued,
        )

    # For the parts of the session

    def answer_reset(self, stream_id: int, code: int) -> None:
        """Queue a RST, and let what the peer has under way for the stream pass unanswered."""
        self.sender.answers[stream_id] = int(code)
        self.receiver.muted.add(stream_id)
        self.resets_sent.count(int(code))

    def reset_here(self, stream: CoreStream, code: int) -> None:
        """Queue a RST that the application has asked for."""
        self.answer_reset(stream.stream_id, code)
        if not stream.local:
            self.sender.own += 1
            self.receiver.hold_if_flooded()

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

    def lease(self, wanted: int) -> bool:
        """Ask the pool, if there is one, for so many bytes in all; return whether it has them."""
        pool = self._pool
        most = self.config.max_receive_memory
        if pool is None or wanted > most:
            return False
        self.most_held = min(pool.lease(self._lease, wanted, self.now), most)
        return wanted <= self.most_held

    def leave_pool(self) -> None:
        """Lease nothing any more: the session has ended."""
        if self._pool is not None:
            self._pool.leave(self._lease)
            self._pool = None

    def shrink_if_idle(self) -> None:
        """Give a large receive buffer back if next to nothing has come for a while.

        Pings still come in an idle session, perhaps the peer's only: so it is not silent, and has
        no timer of its own that fires.
        """
        if self.now < self._shrink_due:
            return
        if self.payload_received - self._payload_before < FIRST_READ_SIZE:
            self.decoder.shrink()
        self._payload_before = self.payload_received
        self._shrink_due = self.now + min(self.config.ping_interval or IDLE, IDLE)

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
            self.reset_here(stream, ErrorCode.STREAM_CLOSED)
        stream.end(-1, by_peer=False)
