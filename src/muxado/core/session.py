"""The session as a front end drives it: bytes in, bytes out, time, and streams.

`CoreSession` decides nothing. It tells the parts the time, and passes each call on to the part
that does: see docs/architecture.md for which one that is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

from ..config import AUTO, Config, in_force
from ..errors import (
    CloseReason,
    ErrorCode,
    GoAway,
    SessionClosed,
    SessionError,
    StreamsExhausted,
    UsageError,
)
from ..wire import FORMATS, NO_PINGS, TYPES_IN_SYN, Decoder, WireFormat, name_of
from ..wire.auto import ENOUGH, UNKNOWN, recognise
from ..wire.foreign import recognise as recognise_foreign
from .closing import Closing
from .ledger import Ledger
from .liveness import LEAST_INTERVAL, Keepalive, Liveness
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
from .stream_table import StreamTable
from .typed_streams import TypedStreams
from .window import RefillingWindow, Window


class CoreSession:
    """One end of a muxado connection, without I/O.

    Times are seconds of any clock that never goes back. Calls that take `now` must be
    given times that don't decrease.

    Attributes:
        tells_at_once: True if the peer is to hear at once of each stream that is opened here or
            accepted: a front end then flushes.
    """

    __slots__ = (
        "_closing",
        "_decoder",
        "_first_bytes",
        "_keepalive",
        "_ledger",
        "_liveness",
        "_pool",
        "_receiver",
        "_rtt_probe",
        "_sender",
        "_table",
        "_typed",
        "_window",
        "tells_at_once",
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
        interval = config.ping_interval if rules.known else LEAST_INTERVAL
        liveness = Liveness(interval, config.ping_timeout, now, rules.pings != NO_PINGS)
        decoder.on_growth = liveness.watch_for_idleness
        kind = RefillingWindow if rules.refills else Window
        window = kind(ledger, decoder, wire.encoder, self._pool)
        scheduler: Scheduler[CoreStream] = Scheduler()
        if rules.opens_apart:
            scheduler = Openings(rules.unacknowledged)
        table = StreamTable(
            ledger, wire.encoder, window, scheduler, Stalls(ledger), PendingResets(ledger)
        )
        sender = Sender(ledger, table, liveness)
        closing = Closing(ledger, table, sender, liveness)
        typed = TypedStreams(ledger, table)
        self._ledger = ledger
        self._decoder: Decoder = decoder
        self._liveness = liveness
        self._window = window
        self._table = table
        self._sender = sender
        self._closing = closing
        self._typed = typed
        self._receiver = Receiver(ledger, decoder, table, closing, typed, liveness)
        self._rtt_probe = RttProbe(now)
        self.tells_at_once: bool = rules.opens_apart
        self._keepalive: Keepalive | None = None
        if rules.keepalive:
            self._keepalive = Keepalive(rules.keepalive, now)

    def __repr__(self) -> str:
        ledger = self._ledger
        role = "client" if ledger.client else "server"
        streams = len(self._table.streams)
        return f"<CoreSession {role} {SESSION_STATES[ledger.state]} streams={streams}>"

    # Bytes in

    def receive_buffer(self) -> memoryview:
        """Return where the transport's next bytes should be read into; never empty."""
        if self._receiver.paused:
            self._receiver.read_on()
        if self._ledger.discard_input:
            self._discard()
        return self._decoder.space()

    def bytes_received(self, count: int, now: float) -> None:
        """Take in the `count` bytes that were put into `receive_buffer()`."""
        ledger = self._ledger
        ledger.now = now
        self._decoder.filled(count)
        if ledger.discard_input:
            self._discard()
            return
        liveness = self._liveness
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
        if self._ledger.rules.known or self._ledger.state >= CLOSING:
            self._decoder.clear()
            return
        self._first_bytes += self._decoder.take_rest()
        first = self._first_bytes
        if len(first) < ENOUGH:
            return
        now = self._ledger.now
        wire = recognise(first)
        if wire is None:
            name = recognise_foreign(first, "muxado") or "the peer speaks no wire that is known"
            self._closing.reject(ErrorCode.PROTOCOL_ERROR, name)
            return
        self._first_bytes = b""
        events = self._ledger.take_events()
        on_end, confirms = self._table.on_end, self._sender.confirms_output
        config = self._ledger.config
        self._build(False, in_force(config, name_of(wire)), wire, now)
        self._table.watch(on_end)
        if confirms:
            self._sender.confirm_output()
        self._ledger.note(events)
        self.receive_data(first, now)

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
        ledger = self._ledger
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
            self._closing.give_up_unsent()

    def connection_lost(self, exception: BaseException | None, now: float) -> None:
        """Take note that the transport is gone, both ways."""
        ledger = self._ledger
        ledger.now = now
        self._receiver.finish()
        if ledger.reason is None and exception is not None:
            silent = self._receiver.frames_received == 0
            self._closing.transport_failed(exception, silent)
        else:
            if ledger.reason is not None:
                self._closing.give_up_unsent(exception)
            self.receive_eof(now)
        self._closing.transport_gone()
        # What has ended may be held for long; streams that can still be read have their own bytes.
        self._table.release()
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
        self._ledger.now = now
        if self._receiver.paused:
            self._receiver.resume()

    # Bytes out

    def pending(self) -> bool:
        """Return whether anything waits to be sent."""
        return self._sender.pending()

    def data_to_send(self, now: float, limit: int) -> bytes:
        """Return the next bytes to send, about `limit` of them; b"" if none wait."""
        self._ledger.now = now
        if self._closing.output_ended:
            return b""
        return self._sender.data_to_send(now, limit)

    def output_step(self) -> int:
        """Return what the transport needs next: `WRITE`, `HALF_CLOSE`, `CLOSE`, `ABORT`, `NOTHING`.

        It changes nothing. A front end writes what `data_to_send` returns, as far as the transport
        takes it, and then does what this says: for `HALF_CLOSE` and `CLOSE` it calls `end_output`
        and ends the transport's output, or all of it; for `ABORT` it tears the transport down.
        """
        return self._closing.output_step()

    def confirm_output(self) -> None:
        """Have a ping's answer tell that all has arrived, before `output_step` says `CLOSE`.

        For transports that can't be half-closed, TLS above all: what is unsent when they are
        closed, or arrives with unread input, may be lost.
        """
        self._sender.confirm_output()

    def end_output(self) -> None:
        """Take note that the transport's output was ended, as `output_step` said.

        What comes from then on is thrown away: it can't be answered.
        """
        self._closing.end_output()

    # What to wake

    @property
    def woken(self) -> int:
        """How many waiters `take_wakes` would return."""
        return len(self._ledger.wakes)

    def take_wakes(self) -> list[object]:
        """Return the waiters to wake, as the front end put them on the streams, and forget them."""
        return self._ledger.take_wakes()

    def take_events(self) -> int:
        """Return what happened to the session since the last call, as a bit set."""
        return self._ledger.take_events()

    # Time

    def next_deadline(self) -> float:
        """Return when `handle_timer` should be called, inf for never."""
        state = self._ledger.state
        if state == ENDED or self._closing.transport_aborted:
            return inf
        if self._receiver.paused_for_output and not self._receiver.waits_for_transport():
            return self._ledger.now  # the answers have left: parsing goes on
        stalls = self._table.stalls
        holding = self._receiver.holding
        if holding.active and holding.over():
            return self._ledger.now  # there is room: parsing goes on
        if state == CLOSING:
            return min(self._closing.deadline, stalls.next_deadline())
        # A peer that is not read is not missed either.
        due = holding.retry_at if holding.active else self._liveness.next_deadline()
        if self._keepalive is not None:
            due = min(due, self._keepalive.due)
        return min(due, stalls.next_deadline(), self._typed.next_deadline())

    def handle_timer(self, now: float) -> None:
        """Do what is due by now. Harmless when called early."""
        ledger = self._ledger
        ledger.now = now
        if self._receiver.paused_for_output or self._receiver.holding.active:
            self._receiver.resume()
        if ledger.state >= CLOSING:
            self._closing.handle_timer(now)
            self._handle_stalls(now)
            return
        if self._liveness.idle(now):
            self._decoder.shrink()
        else:
            self._receiver.shrink_if_idle()
        if self.wants_input and self._liveness.handle_timer(now):
            self._closing.timed_out()
            return
        self._handle_stalls(now)
        self._typed.handle_timer(now)
        keepalive = self._keepalive
        if keepalive is not None and keepalive.is_due(now, self._sender.frames_sent):
            self._liveness.request()

    def _handle_stalls(self, now: float) -> None:
        stalls = self._table.stalls
        stalls.handle_timer(now)
        for stream_id in stalls.take_overdue():
            stream = self._table.streams.get(stream_id)
            if stream is not None:
                self._table.reject(stream, ErrorCode.WRITE_TIMEOUT)

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
        ledger = self._ledger
        typed = ledger.config.typed
        if type is not None or typed:
            self._typed.check(type)
        if ledger.state >= CLOSING:
            raise ledger.failure()
        if ledger.state == DRAINING:
            raise SessionClosed("the session is shutting down and opens no new streams")
        closing = self._closing
        if closing.peer_goaway is not None:
            raise closing.peer_gone(closing.peer_goaway)
        if self._table.next_id > ledger.rules.last_id:
            if not ledger.rules.known:
                raise UsageError(
                    "no stream can be opened before the client's first bytes have told its wire"
                )
            raise StreamsExhausted("every stream id has been used: dial a new session")
        if priority:
            check_priority(priority)
        stream = self._table.open()
        if priority:
            stream.set_priority(priority)
        if typed:
            stream.say_type(type or 0)
        if self.tells_at_once:
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
        stream = self._table.accept()
        if stream is None:
            if self._ledger.state >= CLOSING:
                raise self._ledger.failure()
            # The application has nothing more to reset, and no RST has left for several turns.
            if self._table.resets.too_many_asked():
                self._closing.flooded()
        return stream

    @property
    def acceptable(self) -> int:
        """How many streams wait for `accept`."""
        return len(self._table.accept_queue)

    @property
    def live_streams(self) -> int:
        """How many streams are alive, heartbeats aside."""
        return self._table.live

    def list_streams(self) -> list[CoreStream]:
        """Return the streams that are alive, heartbeats aside. It may be asked from any thread."""
        return self._table.list_streams()

    def watch_streams(self, on_end: Callable[[CoreStream], object] | None) -> None:
        """Have a function called with each stream of the application's that ends, or none.

        It is called in the middle of a step: it must not raise, nor use the session.
        """
        self._table.watch(on_end)

    # Pings

    def ping(self) -> int:
        """Ask for a ping, and return its number for `pong`.

        Raises:
            UsageError: the peer has opened the very stream that pings use.
            SessionError: the session is closing or has ended.
        """
        self._check_pings()
        return self._liveness.request()

    def pong(self, number: int) -> bool:
        """Return whether a ping has been answered. Raises as `ping` if it never will be."""
        if self._liveness.answered >= number:
            return True
        self._check_pings()
        return False

    def _check_pings(self) -> None:
        if self._ledger.state >= CLOSING:
            raise self._ledger.failure()
        if not self._liveness.supported:
            rules = self._ledger.rules
            if rules.pings == NO_PINGS:
                raise UsageError(f"{rules.name} has no pings")
            raise UsageError("the peer uses stream 1 itself, so it can't be pinged")

    @property
    def rtt(self) -> float:
        """The last measured round trip in seconds, 0 if there was none yet."""
        return self._liveness.rtt

    @property
    def heard_at(self) -> float:
        """When bytes came in last; when the session was made, before the first."""
        return self._liveness.received_at

    def raise_limits(self, max_incoming_streams: int, max_receive_memory: int) -> None:
        """Allow the peer more streams and bytes than the settings did so far.

        Raises:
            ConfigError: a limit can't be.
            UsageError: it is less than so far.
        """
        ledger = self._ledger
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
        self._closing.go_away(code, debug)

    def shut_down(self) -> None:
        """Take no new streams from either side; `DRAINED` is reported when the last is done."""
        self._closing.shut_down()

    def close(self, now: float) -> None:
        """End the session in order: what was written still goes out, within `close_timeout`."""
        self._ledger.now = now
        self._closing.close()

    def abort(self, code: int, now: float, text: str = "") -> None:
        """End the session at once; what is queued is dropped.

        Args:
            code: what the peer is told.
            now: the time.
            text: the same in words, for the peer and for `reason`.

        Raises:
            UsageError: the code is not a 32-bit number above 0: an abort is no orderly end.
        """
        self._ledger.now = now
        self._closing.abort(code, text)

    def abandon(self, message: str) -> None:
        """End the session although one of its steps may be done by half.

        Only `failure` may be called afterwards, and what only looks.
        """
        self._closing.abandon(message)
        self._window.leave_pool()

    def disown(self, now: float) -> None:
        """End a forked child's copy of the session: all that has come is the parent's to read."""
        self._closing.disown()
        message = "the session belongs to the parent process"
        self.connection_lost(ConnectionError(message), now)

    def failure(self) -> SessionError:
        """Return a fresh copy of the error that the session's users get now."""
        return self._ledger.failure()

    # What is looked at

    @property
    def client(self) -> bool:
        """True for the end that dialled."""
        return self._ledger.client

    @property
    def config(self) -> Config:
        """The settings."""
        return self._ledger.config

    @property
    def wire(self) -> str:
        """What the wire format is called."""
        return self._ledger.rules.name

    @property
    def now(self) -> float:
        """The time, as the last call told it."""
        return self._ledger.now

    @property
    def state(self) -> int:
        """One of the session states that `muxado.core` exports."""
        return self._ledger.state

    @property
    def reason(self) -> CloseReason | None:
        """Why the session ended, None while it hasn't."""
        return self._ledger.reason

    @property
    def closed_here(self) -> bool:
        """True after `close` or `abort`: even buffered data can't be read."""
        return self._ledger.closed_here

    @property
    def eof_received(self) -> bool:
        """True once the transport's input has ended."""
        return self._ledger.eof_received

    @property
    def orderly(self) -> bool:
        """True if `accept` ends quietly with the session.

        Its end was said, or it came from the peer where nothing was open. `reason.clean` asks for
        more.
        """
        return self._closing.orderly

    @property
    def peer_goaway(self) -> GoAway | None:
        """What the peer's last GOAWAY said, None before."""
        return self._closing.peer_goaway

    @property
    def draining(self) -> bool:
        """Whether either side has told the other to open no more streams."""
        return self._closing.going_away or self._closing.peer_goaway is not None

    @property
    def queued(self) -> int:
        """How many bytes are written and not sent, of all streams."""
        return self._ledger.queued

    @property
    def payload(self) -> int:
        """How many payload bytes have been sent and received."""
        return self._sender.payload_sent + self._window.received

    def stats(self) -> SessionStats:
        """Return a snapshot of the counters."""
        table, window, resets = self._table, self._window, self._table.resets.queued
        received, refusals = self._receiver.resets_received, self._receiver.refusals
        return SessionStats(
            streams=table.live,
            streams_opened=table.opened_count,
            streams_accepted=table.accepted_count,
            frames_sent=self._sender.frames_sent,
            frames_received=self._receiver.frames_received,
            bytes_sent=self._sender.payload_sent,
            bytes_received=window.received,
            rtt=self._liveness.rtt,
            min_rtt=self._liveness.min_rtt,
            stalls=table.stalls.count,
            resets_sent=resets.total,
            resets_received=received.total,
            refusals=refusals.total,
            resets_sent_by_code=dict(resets.by_code),
            resets_received_by_code=dict(received.by_code),
            refusals_by_code=dict(refusals.by_code),
            memory_held=window.unread + window.claimed,
            bytes_queued=self._ledger.queued,
        )
