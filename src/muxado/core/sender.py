"""What goes out, and in which order: answers and credit first, then data, fairly."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from .scheduler import Scheduler
from .states import CLOSING, IDLE, REMOTE_DONE, SEND_SYN

if TYPE_CHECKING:
    from .session import CoreSession
    from .stream import CoreStream

# The longest DATA payload while other streams wait: what a small message waits behind.
FAIR_DATA: Final = 16 * 1024
# The longest one of a stream that has the session to itself.
LONG_DATA: Final = 64 * 1024

# Answers that the peer may draw before parsing waits for the transport to take them.
MAX_ANSWERS: Final = 4096

MAX_INCREMENT: Final = 0x7FFFFFFF

# When a sender that waits for credit, after the peer's FIN, asks whether the stream still
# lives: so many seconds after it ran dry, then at every ping interval.
PROBE_AFTER: Final = (0.0, 0.05, 0.25, 1.0)
# Seconds between two looks at all the streams that stall, which may be many.
PROBE_GRAIN: Final = 0.01


class Sender:
    """The outgoing side of a session.

    Attributes:
        scheduler: the streams that have something to send.
        answers: the RSTs that wait to be sent, by stream id.
        last_word: the farewell without what must stand between it and later frames, for the
            case that none follow.
        drawn: how many of them the peer has drawn; the others are this side's own.
        stalls: how often a stream had data and no credit.
    """

    __slots__ = (
        "_farewell",
        "_grants",
        "_probe_due",
        "_probes",
        "_session",
        "_stalled",
        "answers",
        "drawn",
        "last_word",
        "scheduler",
        "stalls",
    )

    def __init__(self, session: CoreSession) -> None:
        self._session = session
        self._farewell = b""
        self.last_word: bytes = b""
        # By stream id: a stream that ends must be found at once, or a peer that reads nothing
        # could have us keep any number, or search for long.
        self._grants: dict[int, CoreStream] = {}
        self._probes: dict[int, CoreStream] = {}
        self._probe_due = inf  # when the first of the stalled is to be asked after, or earlier
        self._stalled: dict[int, CoreStream] = {}  # blocked after the peer's FIN
        self.scheduler: Scheduler = Scheduler()
        self.answers: dict[int, int] = {}
        self.drawn: int = 0
        self.stalls: int = 0

    def pending(self) -> bool:
        """Return whether `data_to_send` would return anything."""
        return (
            self.scheduler.waiting > 0
            or len(self._grants) > 0
            or len(self.answers) > 0
            or self._ping_due(traffic=False)
            or len(self._farewell) > 0
            or len(self._probes) > 0
        )

    def grant(self, stream: CoreStream) -> None:
        """Have a stream's receive window filled up again."""
        stream.granting = True
        self._grants[stream.stream_id] = stream

    def say_farewell(self, frame: bytes) -> None:
        """Queue a GOAWAY, packed, before everything else."""
        self._farewell += frame

    def drop_all(self) -> None:
        """Forget everything that waits, but for a GOAWAY."""
        self.scheduler.clear()
        self.answers.clear()
        self.drawn = 0
        self._grants.clear()
        self._probes.clear()
        self._stalled.clear()
        self.last_word = b""

    def data_to_send(self, now: float, limit: int) -> bytes:
        """Return the next bytes for the transport: about `limit` of them, b"" if none wait."""
        session = self._session
        out: list[bytes | memoryview] = []
        size = self._control(out)
        scheduler = self.scheduler
        while size < limit:
            stream = scheduler.take()
            if stream is None:
                break
            size += self._stream(stream, out)
        if self._ping_due(len(out) > 0):
            out.append(session.encoder.ping())
            session.frames_sent += 1
            session.ping_sent(now)
        if self.last_word:
            if len(out) == 1 and session.output_done():
                out[0] = self.last_word
                session.end_output()
            self.last_word = b""
        return b"".join(out)

    def _ping_due(self, traffic: bool) -> bool:
        """Return whether a ping should go out now; in a closing session, as its last word."""
        liveness = self._session.liveness
        if self._session.state >= CLOSING:
            return self._session.last_ping_due()
        if not liveness.wanted:
            return False
        return traffic or not liveness.with_traffic

    def _control(self, out: list[bytes | memoryview]) -> int:
        encoder = self._session.encoder
        frames = 0
        if self._farewell:
            out.append(self._farewell)
            self._farewell = b""
            frames += 1
        if self.answers:
            for stream_id, code in self.answers.items():
                out.append(encoder.reset(stream_id, code))
            frames += len(self.answers)
            self.answers.clear()
            self.drawn = 0
        if self._grants:
            credit = self._session.credit
            for stream in self._grants.values():
                stream.granting = False
                window = credit.share()
                grant = window - self._session.outstanding(stream)
                if grant > 0 and stream.input_open():
                    if grant > MAX_INCREMENT:
                        grant = MAX_INCREMENT
                    stream.window = window
                    stream.recv_credit += grant
                    out.append(encoder.credit(stream.stream_id, grant))
                    frames += 1
            self._grants.clear()
        if self._probes:
            for stream in self._probes.values():
                if stream.probe_step >= 0:
                    out.append(encoder.data_header(stream.stream_id, 0, False, False))
                    frames += 1
            self._probes.clear()
        self._session.frames_sent += frames
        return 12 * frames

    def _stream(self, stream: CoreStream, out: list[bytes | memoryview]) -> int:
        """Send a stream's next frame, and queue the stream again if it has another."""
        session = self._session
        stream_id = stream.stream_id
        outbox = stream.outbox
        queued = outbox.size if outbox is not None else 0
        length = FAIR_DATA if self.scheduler.waiting else LONG_DATA
        if length > queued:
            length = queued
        if length > stream.send_credit:
            length = stream.send_credit
        opens = stream.state == IDLE
        # FIN rides on the last data, but never on a SYN: a Go peer could then not answer
        # (docs/protocol.md section 13, no. 3).
        ends = stream.fin_asked and length == queued and not opens
        if not (length or opens or ends):
            if queued:
                self.blocked(stream)
            return 0
        out.append(session.encoder.data_header(stream_id, length, opens, ends))
        session.frames_sent += 1
        if length:
            assert outbox is not None
            outbox.take(length, out)
            stream.send_credit -= length
            session.payload_sent += length
            session.queued -= length
            queued -= length
            if not queued:
                stream.outbox = None
            if stream.write_waiter is not None and queued < session.config.write_high_water:
                stream.wake_writer()
        if opens:
            stream.advance(SEND_SYN)
        if ends:
            session.stream_finished(stream)
        elif queued:
            if stream.send_credit > 0:
                self.scheduler.add(stream)
            else:
                self.blocked(stream)
        elif stream.fin_asked:
            self.scheduler.add(stream)
        return length + 8

    # Senders that wait for credit

    def blocked(self, stream: CoreStream) -> None:
        """Note that a stream has data and no credit."""
        self.stalls += 1
        if stream.state == REMOTE_DONE:
            self.ask_after(stream)

    def ask_after(self, stream: CoreStream) -> None:
        """Ask whether a stream that waits for credit still lives; now, and again later.

        A peer that has closed the stream whole sends a FIN, and then nothing ever again
        (docs/protocol.md section 13, no. 4).
        """
        if stream.probe_step < 0:
            stream.probe_step = 0
            self._stalled[stream.stream_id] = stream
            self._probe(stream, self._session.now)
        else:
            self._probes[stream.stream_id] = stream

    def unblocked(self, stream: CoreStream) -> None:
        """Note that a stream has credit again."""
        if stream.probe_step >= 0:
            stream.probe_step = -1
            self._stalled.pop(stream.stream_id, None)
            self._probes.pop(stream.stream_id, None)

    def forget(self, stream: CoreStream) -> None:
        """Note that a stream is gone."""
        if stream.probe_step >= 0:
            self.unblocked(stream)
        if stream.granting:
            stream.granting = False
            self._grants.pop(stream.stream_id, None)

    def next_deadline(self) -> float:
        """Return when `handle_timer` is due, inf for never."""
        return self._probe_due if self._stalled else inf

    def handle_timer(self, now: float) -> None:
        """Ask after the streams whose time has come."""
        if now < self._probe_due:
            return
        due = inf
        for stream in self._stalled.values():
            if stream.probe_at <= now:
                self._probe(stream, now)
            due = min(due, stream.probe_at)
        self._probe_due = max(due, now + PROBE_GRAIN)

    def _probe(self, stream: CoreStream, now: float) -> None:
        self._probes[stream.stream_id] = stream
        stream.probe_step += 1
        step = stream.probe_step
        if step < len(PROBE_AFTER):
            stream.probe_at = now + PROBE_AFTER[step] - PROBE_AFTER[step - 1]
        else:
            stream.probe_at = now + (self._session.config.ping_interval or 15.0)
        self._probe_due = min(self._probe_due, stream.probe_at)
