"""The session as a front end drives it: bytes in, bytes out, time, and streams.

`CoreSession` puts the parts together, tells them the time, and has each call done by the parts
that it concerns, in their order: docs/architecture.md says which part decides what. It knows two
things itself: which of the parts' deadlines comes first (`next_deadline`, `handle_timer`), and,
with ``Config(wire="auto")``, that the client's first bytes are still to tell the wire (`_discard`).
Then the parts, which have done nothing yet, are made anew for that wire (`_speak`).
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from ..config import AUTO, Config, in_force
from ..errors import (
    CloseReason,
    ErrorCode,
    SessionClosed,
    StreamsExhausted,
    UsageError,
)
from ..wire import FORMATS, TYPES_IN_SYN, Decoder, WireFormat, name_of
from ..wire.auto import ENOUGH, UNKNOWN, recognise
from ..wire.foreign import recognise as recognise_foreign
from .closing import Closing
from .ledger import Ledger
from .liveness import Keepalive, Liveness
from .memory_pool import MemoryPool
from .openings import Openings
from .receiver import Receiver
from .resets import PendingResets
from .rtt_probe import RttProbe
from .scheduler import Scheduler
from .sender import Sender
from .stalls import Stalls
from .states import CLOSING, DRAINING, ENDED, SESSION_STATES
from .stats import SessionStats
from .stream import CoreStream, check_priority
from .stream_state import StreamState
from .stream_table import StreamTable
from .typed_streams import TypedStreams
from .window import RefillingWindow, Window


class CoreSession:
    """One end of a muxado connection, without I/O.

    Times are seconds of any clock that never goes back. Calls that take `now` must be
    given times that don't decrease.

    It has the calls that concern several parts, or the time. What one part knows or does alone is
    asked of that part; its fields are for looking. Fetch the parts anew each time: a session of
    ``Config(wire="auto")`` makes new ones when its client's first bytes have told the wire.

    Attributes:
        ledger: the settings, the time, the state, and the error that calls get; see `Ledger`.
        table: the streams: those that are alive, and those that wait for `accept`.
        closing: what the transport needs next, the GOAWAYs of both sides, and whether the end was
            orderly.
        liveness: pings, the round trips, and when the peer was heard of last.
    """

    __slots__ = (
        "_decoder",
        "_first_bytes",
        "_keepalive",
        "_pool",
        "_receiver",
        "_rtt_probe",
        "_sender",
        "_typed",
        "_window",
        "closing",
        "ledger",
        "liveness",
        "table",
    )

    def __init__(
        self,
        *,
        client: bool,
        config: Config,
        now: float,
        pool: MemoryPool | None = None,
    ) -> None:
        """Make a session that starts at time `now`; nothing is sent yet.

        Args:
            client: True for the end that dialled.
            config: the settings.
            now: the time.
            pool: limits what the session holds together with others.

        Raises:
            UsageError: a client can't leave the wire to its peer.
        """
        self._pool = pool
        self._first_bytes: bytes = b""  # what has come while they don't tell the wire
        if config.wire != AUTO:
            self._build(client, in_force(config, config.wire), FORMATS[config.wire], now)
            return
        if client:
            raise UsageError(
                "Config(wire='auto') is for servers: a client must say which wire it speaks"
            )
        self._build(client, config, UNKNOWN, now)
        self._sender.stop_answering()  # what comes goes to `_recognise`

    def _build(self, client: bool, config: Config, wire: WireFormat, now: float) -> None:
        """Make the parts."""
        rules = wire.rules
        ledger = Ledger(client, config, rules, now)
        decoder: Decoder = wire.new_decoder()
        liveness = Liveness(ledger)
        decoder.on_growth = liveness.watch_for_idleness
        kind = RefillingWindow if rules.refills else Window
        window = kind(ledger, decoder, wire.encoder, self._pool)
        scheduler: Scheduler[StreamState] = Scheduler()
        if rules.opens_apart:
            scheduler = Openings(rules.unacknowledged)
        table = StreamTable(
            ledger, wire.encoder, window, scheduler, Stalls(ledger), PendingResets(ledger)
        )
        sender = Sender(ledger, table, liveness)
        closing = Closing(ledger, table, sender, liveness)
        typed = TypedStreams(ledger, table)
        self.ledger: Ledger = ledger
        self._decoder: Decoder = decoder
        self.liveness: Liveness = liveness
        self._window = window
        self.table: StreamTable = table
        self._sender = sender
        self.closing: Closing = closing
        self._typed = typed
        self._receiver = Receiver(ledger, decoder, table, closing, typed, liveness)
        self._rtt_probe = RttProbe(now)
        self._keepalive: Keepalive | None = None
        if rules.keepalive:
            self._keepalive = Keepalive(rules.keepalive, now)

    def __repr__(self) -> str:
        ledger = self.ledger
        role = "client" if ledger.client else "server"
        streams = len(self.table.streams)
        return f"<CoreSession {role} {SESSION_STATES[ledger.state]} streams={streams}>"

    # Bytes in

    def receive_buffer(self) -> memoryview:
        """Return where the transport's next bytes should be read into; never empty."""
        if self._receiver.paused:
            self._receiver.read_on()
        if self.ledger.discard_input:
            self._discard()
        return self._decoder.space()

    def bytes_received(self, count: int, now: float) -> None:
        """Take in the `count` bytes that were put into `receive_buffer()`."""
        ledger = self.ledger
        ledger.now = now
        self._decoder.filled(count)
        if ledger.discard_input:
            self._discard()
            return
        liveness = self.liveness
        liveness.heard(now)
        self._receiver.parse()
        window = self._window
        window.credit.tick(now, liveness.min_rtt, window.read)
        if now >= self._rtt_probe.due:
            self._rtt_probe.tick(now, window.credit, liveness)
            self._receiver.shrink_if_idle()
        liveness.sample(now)

    def _discard(self) -> None:
        """Throw away what has come, unless it may tell which wire the client speaks."""
        if self.ledger.rules.known or self.ledger.state >= CLOSING:
            self._decoder.clear()
            return
        self._first_bytes += self._decoder.take_rest()
        first = self._first_bytes
        if len(first) < ENOUGH:
            return
        now = self.ledger.now
        wire = recognise(first)
        if wire is None:
            name = recognise_foreign(first, "muxado") or "the peer speaks no wire that is known"
            self.closing.reject(ErrorCode.PROTOCOL_ERROR, name)
            return
        self._first_bytes = b""
        self._speak(wire)
        self.receive_data(first, now)

    def agree(self, protocol: str | None) -> None:
        """Take note that there was a handshake underneath, and which protocol it has chosen.

        If the wire is still open, it is that protocol's. One that is no wire's decides nothing, as
        None does.

        Args:
            protocol: what TLS has chosen by ALPN, or the name of a wire.
        """
        if protocol and not self.ledger.rules.known and self.ledger.state < CLOSING:
            for name, wire in FORMATS.items():
                if protocol in (wire.rules.alpn, name):
                    self._speak(wire)
        self.closing.expect_no_tls()

    def _speak(self, wire: WireFormat) -> None:
        """Begin on a wire that was not known before."""
        now = self.ledger.now
        events = self.ledger.take_events()
        on_end, confirms = self.table.on_end, self._sender.confirms_output
        config = self.ledger.config
        self._build(False, in_force(config, name_of(wire)), wire, now)
        self.table.watch(on_end)
        if confirms:
            self._sender.confirm_output()
        self.ledger.note(events)

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Take in bytes; the same as `receive_buffer` and `bytes_received`, with a copy."""
        view = memoryview(data)
        self._decoder.make_room(len(view))
        while len(view):
            space = self.receive_buffer()
            count = min(len(space), len(view))
            space[:count] = view[:count]
            view = view[count:]
            self.bytes_received(count, now)

    def receive_eof(self, now: float) -> None:
        """Take note that the transport's input has ended."""
        ledger = self.ledger
        ledger.now = now
        if ledger.eof_received:
            return
        ledger.eof_received = True
        self._receiver.finish()
        if ledger.reason is None:
            self._receiver.eof()
        else:
            # The peer grants no more credit, and what comes is read by none of its streams.
            self._sender.drop_all()
            self.closing.give_up_unsent()

    def connection_lost(self, exception: BaseException | None, now: float) -> None:
        """Take note that the transport is gone, both ways."""
        ledger = self.ledger
        ledger.now = now
        self._receiver.finish()
        if ledger.reason is None and exception is not None:
            silent = self._receiver.frames_received == 0
            self.closing.transport_failed(exception, silent)
        else:
            if ledger.reason is not None:
                self.closing.give_up_unsent(exception)
            self.receive_eof(now)
        self.closing.transport_gone()
        # An ended session may be kept for long; streams still to be read have their own bytes.
        self.table.release()
        self._receiver.release()
        self._window.leave_pool()

    @property
    def paused(self) -> bool:
        """True if parsing stopped midway, so that the application runs first.

        The front end should wake what `take_wakes` returns, flush, and call `resume` in its next
        turn.
        """
        receiver = self._receiver
        return receiver.paused and not receiver.paused_for_output and not receiver.holding.active

    @property
    def wants_input(self) -> bool:
        """False while the front end should not read its transport.

        On a wire without resets the peer is held back so while there is no room for what it has
        sent. `handle_timer` goes on when there is, and `next_deadline` says when.
        """
        return not self._receiver.holding.active

    @property
    def held(self) -> bool:
        """The same as `paused`, for programs that drive the core by its name from before."""
        return self.paused

    def resume(self, now: float) -> None:
        """Parse on, once the application has run."""
        self.ledger.now = now
        if self._receiver.paused:
            self._receiver.resume()

    # Bytes out

    def data_to_send(self, now: float, limit: int) -> bytes:
        """Return the next bytes to send, about `limit` of them; b"" if none wait."""
        self.ledger.now = now
        if self.closing.output_ended:
            return b""
        return self._sender.data_to_send(now, limit)

    def confirm_output(self) -> None:
        """Have a ping's answer confirm that all has arrived, before the transport is closed.

        For transports that can't be half-closed, above all TLS: closing them may lose bytes that
        are unsent, or that arrive while input is unread.
        """
        self._sender.confirm_output()

    # What to wake

    def take_wakes(self) -> list[object]:
        """Return the waiters to wake, as the front end put them on the streams, and forget them."""
        return self.ledger.take_wakes()

    def take_events(self) -> int:
        """Return what happened to the session since the last call, as a bit set."""
        return self.ledger.take_events()

    # Time

    def next_deadline(self) -> float:
        """Return when `handle_timer` should be called, inf for never."""
        state = self.ledger.state
        if state == ENDED or self.closing.transport_aborted:
            return inf
        if self._receiver.paused_for_output and not self._receiver.waits_for_transport():
            return self.ledger.now  # the answers have left: parsing goes on
        stalls = self.table.stalls
        holding = self._receiver.holding
        if holding.active and holding.over():
            return self.ledger.now  # there is room: parsing goes on
        if state == CLOSING:
            return min(self.closing.deadline, stalls.next_deadline())
        # A peer that is not read is not missed either.
        if holding.active:
            due = min(holding.retry_at, holding.overdue_at)
        else:
            due = self.liveness.next_deadline()
        if self._keepalive is not None:
            due = min(due, self._keepalive.due)
        return min(due, stalls.next_deadline(), self.table.next_deadline())

    def handle_timer(self, now: float) -> None:
        """Do what is due by now. Harmless when called early."""
        ledger = self.ledger
        ledger.now = now
        if self._receiver.paused_for_output or self._receiver.holding.active:
            self._receiver.resume()
        if ledger.state >= CLOSING:
            self.closing.handle_timer(now)
            self._handle_stalls(now)
            return
        if self.liveness.idle(now):
            self._decoder.shrink()
        else:
            self._receiver.shrink_if_idle()
        if not self.wants_input:
            if now >= self._receiver.holding.overdue_at:
                self.closing.held_too_long()
                return
        elif self.liveness.handle_timer(now):
            self.closing.timed_out()
            return
        self._handle_stalls(now)
        self.table.handle_timer(now)
        keepalive = self._keepalive
        if keepalive is not None and keepalive.is_due(now, self._sender.frames_sent):
            self.liveness.request()

    def _handle_stalls(self, now: float) -> None:
        stalls = self.table.stalls
        stalls.handle_timer(now)
        for stream_id in stalls.take_overdue():
            stream = self.table.streams.get(stream_id)
            if stream is None:
                continue
            if self.ledger.rules.resets:
                self.table.reject(stream, ErrorCode.WRITE_TIMEOUT)
            else:  # no end is said: it would look as if all had come
                stream.end(ErrorCode.WRITE_TIMEOUT, by_peer=False)
                self._sender.cut_off()

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
        ledger = self.ledger
        typed = ledger.config.typed
        if type is not None or typed:
            self._typed.check(type)
        if ledger.state >= CLOSING:
            raise ledger.failure()
        if ledger.state == DRAINING:
            raise SessionClosed("the session is shutting down and opens no new streams")
        closing = self.closing
        if closing.peer_goaway is not None:
            raise closing.peer_gone(closing.peer_goaway)
        if self.table.next_id > ledger.rules.last_id:
            if not ledger.rules.known:
                raise UsageError(
                    "no stream can be opened before the client's first bytes have told its wire"
                )
            raise StreamsExhausted("every stream id has been used: dial a new session")
        if priority:
            check_priority(priority)
        stream = self.table.open()
        if priority:
            stream.set_priority(priority)
        if typed:
            stream.say_type(type or 0)
        if ledger.rules.opens_apart:
            if ledger.rules.types == TYPES_IN_SYN:
                stream.take_type(type or 0)
            stream.announce()
        elif eager:
            stream.announce()
        return stream

    def accept(self) -> CoreStream | None:
        """Return the next stream that the peer opened, None if none waits.

        Raises:
            SessionError: the session is closing or has ended, and no stream waits.
        """
        stream = self.table.accept()
        if stream is None:
            if self.ledger.state >= CLOSING:
                raise self.ledger.failure()
            # The application has nothing more to reset, and no RST has left for several turns.
            if self.table.resets.too_many_asked():
                self.closing.flooded()
        return stream

    def raise_limits(self, max_incoming_streams: int, max_receive_memory: int) -> None:
        """Allow the peer more streams and bytes than the settings did so far.

        Raises:
            ConfigError: a limit can't be.
            UsageError: it is less than so far.
        """
        ledger = self.ledger
        before = ledger.config
        config = replace(
            before,
            max_incoming_streams=max_incoming_streams,
            max_receive_memory=max_receive_memory,
        )
        if (
            max_incoming_streams < before.max_incoming_streams
            or max_receive_memory < before.max_receive_memory
        ):
            raise UsageError("the limits of a running session can be raised, not lowered")
        ledger.config = config
        self._window.allow()

    # The end

    def go_away(self, code: int = 0, debug: bytes = b"") -> None:
        """Tell the peer to open no more streams. The session goes on.

        Raises:
            UsageError: the code is not a 32-bit number.
        """
        self.closing.go_away(code, debug)

    def shut_down(self) -> None:
        """Take no new streams from either side; `DRAINED` is reported when the last is done."""
        self.closing.shut_down()

    def close(self, now: float) -> None:
        """End the session in order: what was written still goes out, within `close_timeout`."""
        self.ledger.now = now
        self.closing.close()

    def abort(self, code: int, now: float, text: str = "") -> None:
        """End the session at once; queued bytes are dropped.

        Args:
            code: what the peer is told.
            now: the time.
            text: the same in words, for the peer and for `reason`.

        Raises:
            UsageError: the code is not a 32-bit number above 0: an abort is no orderly end.
        """
        self.ledger.now = now
        self.closing.abort(code, text)

    def abandon(self, message: str) -> None:
        """End the session although one of its steps may be half done.

        Only `failure` may be called afterwards, and what only looks.
        """
        self.closing.abandon(message)
        self._window.leave_pool()

    def disown(self, now: float) -> None:
        """End a forked child's copy of the session: all that has come is the parent's to read."""
        self.closing.disown()
        message = "the session belongs to the parent process"
        self.connection_lost(ConnectionError(message), now)

    # Looking

    @property
    def reason(self) -> CloseReason | None:
        """Why the session ended, None while it hasn't."""
        return self.ledger.reason

    def stats(self) -> SessionStats:
        """Return a snapshot of the counters."""
        table, window, resets = self.table, self._window, self.table.resets.counts
        received, refusals = self._receiver.resets_received, self._receiver.refusals
        return SessionStats(
            streams=table.live,
            streams_opened=table.opened_count,
            streams_accepted=table.accepted_count,
            frames_sent=self._sender.frames_sent,
            frames_received=self._receiver.frames_received,
            bytes_sent=self._sender.payload_sent,
            bytes_received=window.received,
            rtt=self.liveness.rtt,
            min_rtt=self.liveness.min_rtt,
            stalls=table.stalls.count,
            resets_sent=resets.total,
            resets_received=received.total,
            refusals=refusals.total,
            resets_sent_by_code=dict(resets.by_code),
            resets_received_by_code=dict(received.by_code),
            refusals_by_code=dict(refusals.by_code),
            memory_held=window.unread + window.claimed,
            bytes_queued=self.ledger.queued,
        )
