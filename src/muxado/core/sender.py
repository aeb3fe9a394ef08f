"""What goes out, and in which order: GOAWAY, resets, credit, and then data, fairly.

Nothing is packed before it is sent. The parts only note what waits: `Sender` a GOAWAY,
`PendingResets` the RSTs, `Window` the streams that get credit, `Stalls` the streams whose peer is
asked whether they still live, and `Scheduler` the streams with data or a FIN. One call of
`data_to_send` then takes from each of them in this order, as much as the transport takes at once:
a session that is asked rarely sends few and long frames, and a frame that has become needless by
then (the grant of a stream that has ended) is never sent.

The end of the output is decided here too. A session that is closing is `done` when nothing waits
any more, and, for a transport that can't be half-closed, when the answer to a last ping has told
that all has arrived. If a GOAWAY is the very last frame, it is packed as one, and from then on
input is thrown away, since nothing can be answered.
"""

from __future__ import annotations

from typing import Final

from ..wire import Encoder
from .ledger import Ledger
from .liveness import Liveness
from .pace import FAIR_DATA, Pace
from .resets import PendingResets
from .scheduler import Scheduler
from .stalls import Stalls
from .states import CLOSING
from .stream_state import StreamState
from .stream_table import StreamTable
from .window import Window

# What a frame without payload is counted as, in bytes; a RST and a WNDINC are as long.
CONTROL_SIZE: Final = 12


class Sender:
    """The outgoing side of a session.

    Attributes:
        frames_sent: how many frames were handed over.
        payload_sent: how many bytes of payload were.
    """

    __slots__ = (
        "_confirms",
        "_cuts",
        "_encoder",
        "_goaways",
        "_last_ping",
        "_ledger",
        "_liveness",
        "_longest_fair",
        "_pace",
        "_replies",
        "_resets",
        "_scheduler",
        "_stalls",
        "_table",
        "_window",
        "frames_sent",
        "payload_sent",
    )

    def __init__(self, ledger: Ledger, table: StreamTable, liveness: Liveness) -> None:
        self._ledger = ledger
        self._liveness = liveness
        self._encoder: Encoder = table.encoder
        self._resets: PendingResets = table.resets
        self._scheduler: Scheduler[StreamState] = table.scheduler
        self._stalls: Stalls = table.stalls
        self._table = table
        self._replies: list[bytes] = table.replies
        self._window: Window = table.window
        self._longest_fair: int = min(FAIR_DATA, ledger.rules.max_data)
        self._pace = Pace(ledger.rules.max_data, ledger.now)
        # Last stream id, code, text, and whether the transport's end follows for certain.
        self._goaways: list[tuple[int, int, bytes, bool]] = []
        self._confirms = False  # whether a ping's answer should tell that all has arrived
        self._cuts = False  # whether the output's end is to be none of the ordinary ones
        self._last_ping = 0  # the number of that ping, once it is out
        self.frames_sent: int = 0
        self.payload_sent: int = 0

    def pending(self) -> bool:
        """Return whether `data_to_send` would return anything."""
        return (
            self._scheduler.waiting > 0
            or len(self._window.grants) > 0
            or len(self._resets.waiting) > 0
            or self._ping_due(False)
            or len(self._goaways) > 0
            or len(self._stalls.probes) > 0
            or len(self._replies) > 0
        )

    def queue_goaway(self, last_id: int, code: int, debug: bytes, final: bool) -> None:
        """Queue a GOAWAY, before everything else.

        Args:
            last_id: the largest id of a stream of the peer that was let in.
            code: why.
            debug: the same in words.
            final: whether the transport's end follows for certain. Of other ones it is found out
                when they are sent.
        """
        self._goaways.append((last_id, code, debug, final))

    def confirm_output(self) -> None:
        """Have a ping's answer tell that all has arrived, before the output is `done`."""
        self._confirms = True

    def cut_off(self) -> None:
        """Have the output end in the middle of a frame, as the last thing that is said.

        For wires that have no other word for what is wrong. Until the session closes it changes
        nothing.
        """
        self._cuts = True

    def cut_due(self) -> bool:
        """Return whether all else is out in a closing session, and only that is to be said."""
        return self._cuts and not self._ledger.queued and not self.pending()

    @property
    def confirms_output(self) -> bool:
        """Whether the transport can't be half-closed."""
        return self._confirms

    def done(self) -> bool:
        """Return whether this side will send nothing more: the transport may be half-closed."""
        ledger = self._ledger
        if ledger.state < CLOSING or ledger.queued or self._cuts or self.pending():
            return False
        if ledger.rules.refills and not ledger.eof_received and not self._table.owes_nothing():
            return False
        return not self._can_confirm() or 0 < self._last_ping <= self._liveness.answered

    def drop_all(self) -> None:
        """Forget everything that waits, except a GOAWAY."""
        self._scheduler.clear()
        self._resets.clear()
        self._window.drop_grants()
        self._stalls.clear()
        self._replies.clear()

    def stop_answering(self) -> None:
        """Throw away what comes from now on: it can't be answered any more."""
        self._ledger.discard_input = True

    def data_to_send(self, now: float, limit: int) -> bytes:
        """Return the next bytes for the transport: about `limit` of them, b"" if none wait.

        They are more than `limit` by one frame at most, of up to `LONGEST_DATA`, and by a GOAWAY.
        """
        out: list[bytes | bytearray | memoryview] = []
        size = self._control(out, limit)
        scheduler = self._scheduler
        while size < limit and scheduler.waiting:
            stream = scheduler.take()
            longest = self._longest_fair if scheduler.waiting else self._pace.longest
            length = stream.send_frame(longest, out)
            if length >= 0:
                self.frames_sent += 1
                self.payload_sent += length
                size += length + 8
        liveness = self._liveness
        closing = self._ledger.state >= CLOSING
        if (liveness.wanted or closing) and self._ping_due(len(out) > 0 or len(self._goaways) > 0):
            out.append(self._encoder.ping())
            self.frames_sent += 1
            liveness.ping_sent(now)
            self._pace.tick(now, self.payload_sent)
            if closing:
                self._last_ping = liveness.sent
        if self._goaways:
            self._send_goaways(out)
        if closing and self.cut_due():
            out.append(self._encoder.cut())
            self._cuts = False
            self.stop_answering()
        return b"".join(out)

    def _ping_due(self, traffic: bool) -> bool:
        """Return whether a ping should go out now; in a closing session, after all else."""
        liveness = self._liveness
        if self._ledger.state >= CLOSING:
            return (
                self._can_confirm()
                and self._last_ping == 0
                and liveness.sent == liveness.answered
                and self._scheduler.waiting == 0
                and not self._ledger.queued
            )
        if not liveness.wanted:
            return False
        return traffic or not liveness.with_traffic

    def _can_confirm(self) -> bool:
        """Return whether the peer can and should confirm that all has arrived."""
        ledger = self._ledger
        able = self._liveness.supported and not ledger.discard_input and not ledger.eof_received
        return self._confirms and able

    def _control(self, out: list[bytes | bytearray | memoryview], limit: int) -> int:
        """Send all but data; return its size in bytes, which may pass the limit by a frame."""
        most = limit // CONTROL_SIZE + 1 - len(self._goaways)
        frames = 0
        if self._replies:
            out.extend(self._replies)
            frames += len(self._replies)
            self._replies.clear()
        if self._resets.waiting:
            for stream_id, code in self._resets.take(most):
                out.append(self._encoder.reset(stream_id, code))
                frames += 1
        if self._window.grants:
            frames += self._window.send_grants(out, most - frames)
        if self._stalls.probes:
            for stream in self._stalls.take_probes(most - frames):
                out.append(self._encoder.data_header(stream.stream_id, 0, False, False))
                frames += 1
        self.frames_sent += frames
        return CONTROL_SIZE * (frames + len(self._goaways))

    def _send_goaways(self, out: list[bytes | bytearray | memoryview]) -> None:
        """Put the GOAWAYs that wait in front of all that is sent now."""
        goaways = self._goaways
        self._goaways = []
        alone = not out and len(goaways) == 1 and self.done()
        packed = []
        for last_id, code, debug, final in goaways:
            packed.append(self._encoder.go_away(last_id, code, debug, final or alone))
        out[:0] = packed
        self.frames_sent += len(packed)
        if alone:
            self.stop_answering()
