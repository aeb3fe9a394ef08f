"""What goes out, and in which order: answers and credit first, then data, fairly."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import islice
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
# Seconds between two looks at the streams that stall, which may be many.
PROBE_GRAIN: Final = 0.01
# If more streams than this stall, their repeated questions go out at so many times of a ping
# interval, many at once: a timer for each of them would keep an idle session busy.
MOST_SINGLE: Final = 64
PROBE_TIMES: Final = 16
# So many times of streams that stall no more may stay in the heap, or as many as there are others.
MOST_STALE: Final = 64

# What a frame without payload is counted as, in bytes; a RST and a WNDINC are as long.
CONTROL_SIZE: Final = 12


class Sender:
    """The outgoing side of a session.

    Attributes:
        scheduler: the streams that have something to send.
        answers: the RSTs that wait to be sent, by stream id.
        last_word: the farewell without what must stand between it and later frames, for the
            case that none follow.
        drawn: how many of them the peer has drawn; the others are this side's own.
        own: how many of them the application has asked for, for streams that the peer opened.
        stalls: how often a stream had data and no credit.
    """

    __slots__ = (
        "_farewell",
        "_grants",
        "_probe_due",
        "_probe_times",
        "_probes",
        "_session",
        "_stalled",
        "answers",
        "drawn",
        "last_word",
        "own",
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
        # A heap of when each is to be asked after, and its id; stale where the stream says another
        # time, or stalls no more.
        self._probe_times: list[tuple[float, int]] = []
        self.scheduler: Scheduler = Scheduler()
        self.answers: dict[int, int] = {}
        self.drawn: int = 0
        self.own: int = 0
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
        self.drawn = self.own = 0
        self._grants.clear()
        self._probes.clear()
        self._stalled.clear()
        self._probe_times.clear()
        self.last_word = b""

    def data_to_send(self, now: float, limit: int) -> bytes:
        """Return the next bytes for the transport: about `limit` of them, b"" if none wait.

        They are more than `limit` by one frame at most, of up to `LONG_DATA`, and by a GOAWAY.
        """
        session = self._session
        out: list[bytes | bytearray | memoryview] = []
        size = self._control(out, limit)
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
                session.discard_input()
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

    def _control(self, out: list[bytes | bytearray | memoryview], limit: int) -> int:
        """Send what is no data; return its size in bytes, which may pass the limit by a frame."""
        encoder = self._session.encoder
        frames = 0
        if self._farewell:
            out.append(self._farewell)
            self._farewell = b""
            frames += 1
        if self.answers:
            frames += self._send_answers(out, limit // CONTROL_SIZE + 1)
        if self._grants:
            credit = self._session.credit
            for stream in self._take(self._grants, limit // CONTROL_SIZE + 1 - frames):
                stream.granting = False
                window = credit.share()
                grant = window - self._session.outstanding(stream)
                if grant > 0 and stream.input_open():
                    if grant > MAX_INCREMENT:
                        grant = MAX_INCREMENT
                    stream.window = window
                    stream.recv_credit += grant
                    stream.granted += grant
                    out.append(encoder.credit(stream.stream_id, grant))
                    frames += 1
        if self._probes:
            for stream in self._take(self._probes, limit // CONTROL_SIZE + 1 - frames):
                if stream.probe_step >= 0:
                    out.append(encoder.data_header(stream.stream_id, 0, False, False))
                    frames += 1
        self._session.frames_sent += frames
        return CONTROL_SIZE * frames

    def _send_answers(self, out: list[bytes | bytearray | memoryview], most: int) -> int:
        """Send the RSTs that wait, at most so many, the oldest first; return their number."""
        encoder = self._session.encoder
        answers = self.answers
        batch = list(islice(answers.items(), most))
        for stream_id, code in batch:
            out.append(encoder.reset(stream_id, code))
        if len(batch) == len(answers):
            answers.clear()
            self.drawn = self.own = 0
        else:
            for stream_id, _ in batch:
                del answers[stream_id]
            # Which of them have left is not known: those that are left are taken to be the
            # ones that count.
            self.drawn = min(self.drawn, len(answers))
            self.own = min(self.own, len(answers))
        return len(batch)

    def _take(self, waiting: dict[int, CoreStream], most: int) -> list[CoreStream]:
        """Remove and return the streams that wait longest, at most so many."""
        if len(waiting) <= most:
            batch = list(waiting.values())
            waiting.clear()
            return batch
        batch = list(islice(waiting.values(), max(most, 0)))
        for stream in batch:
            del waiting[stream.stream_id]
        return batch

    def _stream(self, stream: CoreStream, out: list[bytes | bytearray | memoryview]) -> int:
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
        times = self._probe_times
        while times and times[0][0] <= now:
            at, stream_id = heappop(times)
            stream = self._stalled.get(stream_id)
            if stream is not None and stream.probe_at == at:
                self._probe(stream, now)
        self._probe_due = max(times[0][0], now + PROBE_GRAIN) if times else inf

    def _probe(self, stream: CoreStream, now: float) -> None:
        self._probes[stream.stream_id] = stream
        stream.probe_step += 1
        step = stream.probe_step
        if step < len(PROBE_AFTER):
            stream.probe_at = now + PROBE_AFTER[step] - PROBE_AFTER[step - 1]
        else:
            interval = self._session.config.ping_interval or 15.0
            stream.probe_at = now + interval
            if len(self._stalled) > MOST_SINGLE:
                grain = interval / PROBE_TIMES
                stream.probe_at = (stream.probe_at // grain + 1) * grain
        times = self._probe_times
        if len(times) > MOST_STALE and len(times) > 2 * len(self._stalled):
            times[:] = [(other.probe_at, other.stream_id) for other in self._stalled.values()]
            heapify(times)
        else:
            heappush(times, (stream.probe_at, stream.stream_id))
        self._probe_due = min(self._probe_due, stream.probe_at)
