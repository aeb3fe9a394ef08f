"""Plays an input against a session: what the peer sends, and what is done here meanwhile.

An input is a byte of flags, which say the wire too, a byte that says how many actions there are,
a byte for each, and then what the peer sends. The actions happen at even distances between its
bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from muxado.config import Config
from muxado.core import CLOSING, ENDED, CoreSession, CoreStream
from muxado.errors import ErrorCode, MuxadoError
from muxado.wire import FORMATS, TYPES_FIRST
from tests import inside
from tests.inside import MAX_ANSWERS, MAX_RECENTLY_RESET

from ..frames import FrameReader
from .rules import Rules

CLIENT, TYPED, TINY, WIRE = 1, 2, 4, 8  # from WIRE on they are the number of the wire
WIRES = list(FORMATS)

# Codes with which a session may end for what the peer did.
ENDS = {
    ErrorCode.NO_ERROR,
    ErrorCode.FLOW_CONTROL_ERROR,
    ErrorCode.PROTOCOL_ERROR,
    ErrorCode.FRAME_SIZE_ERROR,
    ErrorCode.ENHANCE_YOUR_CALM,
    ErrorCode.PEER_EOF,
    ErrorCode.UNKNOWN,
}

SECONDS = (
    0.0,
    0.01,
    0.05,
    0.2,
    0.3,
    1.0,
    2.0,
    5.0,
    9.0,
    11.0,
    15.0,
    16.0,
    20.0,
    21.0,
    40.0,
    3600.0,
)
SIZES = (0, 1, 2, 3, 4, 5, 8, 100, 1000, 4096, 16384, 65535, 65536, 131072, 262144, 300000)
MOST_KEPT = 16

Cut = Callable[[bytes], Iterable[bytes]]


def whole(wire: bytes) -> Iterable[bytes]:
    return [wire]


def config_of(flags: int) -> Config:
    """Return the settings that an input's flags ask for."""
    wire = wire_of(flags)
    rules = FORMATS[wire].rules
    typed = bool(flags & TYPED) and rules.types == TYPES_FIRST
    if not flags & TINY:
        return Config(wire=wire, typed=typed)
    return Config(
        wire=wire,
        typed=typed,
        initial_window=64 if rules.agreed_window else None,
        max_window=256,
        max_receive_memory=100,
        max_incoming_streams=5,
        accept_backlog=2,
        write_high_water=16,
    )


def wire_of(flags: int) -> str:
    """Return the wire that an input's flags ask for."""
    return WIRES[flags // WIRE % len(WIRES)]


class WellFormed(Rules):
    """Checks of what is said on the other wires that it can be read, and ends with a frame.

    Where a format has no word for an error, the beginning of a frame may be the last thing said.
    """

    def __init__(self, core: CoreSession) -> None:
        super().__init__(core)
        self.spoken = FrameReader(FORMATS[core.ledger.config.wire])
        self.ledger = core.ledger
        self.end_is_close = core.ledger.rules.end_is_close
        self.cut_off = False

    def hear(self, wire: bytes) -> None:
        """Note nothing."""

    def speak(self, wire: bytes, syn_allowed: bool) -> None:
        """Check what the session says."""
        assert not (wire and self.cut_off), "more is said after a frame was cut off"
        self.spoken.feed(wire)
        assert not self.spoken.failed, self.spoken.frames[-1]
        if self.spoken.decoder.inside_frame():
            assert self.end_is_close, "a flush ends within a frame"
            assert self.ledger.state >= CLOSING, "a session that goes on has cut a frame off"
            self.cut_off = True


class Play:
    """A session, its application and its transport, driven by an input.

    Attributes:
        core: the session.
        out: everything that it has sent.
        read: what the application has read, by the order of its streams.
    """

    def __init__(self, flags: int) -> None:
        self.now = 100.0
        self.core = CoreSession(client=bool(flags & CLIENT), config=config_of(flags), now=self.now)
        self.wire = FORMATS[self.core.ledger.config.wire].rules
        self.rules = Rules(self.core) if wire_of(flags) == WIRES[0] else WellFormed(self.core)
        self.streams: list[CoreStream] = []
        self.out = bytearray()
        self.read: list[tuple[int, bytes]] = []
        self.own_resets = 0
        self.aborted = False
        self.said = 0

    def run(self, actions: bytes, wire: bytes, cut: Cut = whole) -> None:
        """Play it all, then the transport's end."""
        step = len(wire) // (len(actions) + 1)
        for number, action in enumerate(actions):
            self.hear(wire[number * step : (number + 1) * step], cut)
            self.act(action & 15, action >> 4)
            self.check()
        self.hear(wire[len(actions) * step :], cut)
        self.check()
        self.flush(1 << 20)
        self.finish()

    def hear(self, wire: bytes, cut: Cut) -> None:
        """Take bytes from the peer, in pieces."""
        self.rules.hear(wire)
        for piece in cut(wire):
            self.core.receive_data(piece, self.now)

    # The application

    def act(self, kind: int, value: int) -> None:
        """Do one thing; whatever is refused is refused by a documented error."""
        with contextlib.suppress(MuxadoError):
            ACTIONS[kind](self, value)

    def stream(self, value: int) -> CoreStream:
        """Return one of the newest streams; one is opened if there is none."""
        if not self.streams:
            self.open(value)
        return self.streams[-1 - value % len(self.streams)]

    def keep(self, stream: CoreStream) -> None:
        self.streams.append(stream)
        if len(self.streams) > MOST_KEPT:
            self.streams.pop(0).close()

    def open(self, value: int) -> None:
        self.keep(self.core.open(eager=bool(value & 1), priority=value - 8))

    def accept(self, value: int) -> None:
        stream = self.core.accept()
        if stream is not None:
            assert not (stream.type is None and self.core.ledger.config.typed)
            self.keep(stream)

    def write(self, value: int) -> None:
        self.stream(value).write(b"w" * SIZES[value])

    def write_much(self, value: int) -> None:
        stream = self.stream(value)
        if stream.queued() < 1 << 20:
            stream.write(b"W" * 300_000)

    def take(self, value: int) -> None:
        stream = self.stream(value >> 2)
        data = stream.read(SIZES[value] or 1 << 20)
        self.read.append((stream.stream_id, data))

    def claim(self, value: int) -> None:
        self.stream(value).claim(SIZES[value])

    def find(self, value: int) -> None:
        at, searched = self.stream(value).find(b"\0\1"[: 1 + value % 2], 0)
        assert at <= self.stream(value).unread()
        assert searched >= 0

    def finish_stream(self, value: int) -> None:
        self.stream(value).finish()

    def close_stream(self, value: int) -> None:
        self.stream(value).close()

    def reset_stream(self, value: int) -> None:
        self.own_resets += 1
        stream = self.stream(value)
        self.rules.own_resets.add((stream.stream_id, value))
        stream.reset(value)

    def set_priority(self, value: int) -> None:
        self.stream(value).set_priority(7 - value)

    def pass_time(self, value: int) -> None:
        self.now += SECONDS[value]
        self.core.handle_timer(self.now)

    def flush(self, value: int) -> None:
        syn_allowed = not inside.peer_gone(self.core)
        while True:
            wire = self.core.data_to_send(self.now, 1 + SIZES[value & 15])
            self.rules.speak(wire, syn_allowed)
            self.out += wire
            if not wire or value < 8:
                break
        if self.core.next_deadline() <= self.now:
            self.core.handle_timer(self.now)
        self.core.resume(self.now)

    def end_session(self, value: int) -> None:
        if value == 0:
            self.rules.announced.add(3)
            self.core.go_away(3, b"going")
            self.said = 3  # a close that follows ends the session with it
        elif value == 1:
            self.rules.announced.add(0)
            self.core.shut_down()
        elif value == 2:
            self.core.close(self.now)
        elif value == 3:
            self.aborted = True
            self.rules.announced.add(7)  # also after a close that had something unsent
            self.core.abort(7, self.now)
        elif value == 4:
            self.core.receive_eof(self.now)
        elif value == 5:
            self.core.resume(self.now)
        else:
            self.core.liveness.ping()

    # What always holds

    def check(self) -> None:
        """Check that what is held is within the limits, and that the books agree."""
        core = self.core
        config = core.ledger.config
        waiters = core.take_wakes()
        assert waiters == []
        core.take_events()
        # Where nothing can be refused, a frame may come in alone, and at the end all that has come.
        gone = core.ledger.eof_received and not self.wire.resets
        alone = 0 if self.wire.resets else self.wire.max_data
        assert 0 <= inside.unread(core) <= config.max_receive_memory + alone or gone
        assert inside.incoming(core) <= config.max_incoming_streams
        assert inside.heartbeats(core) <= 16
        backlog = config.max_incoming_streams if gone else config.accept_backlog
        assert len(inside.accept_queue(core)) <= max(config.accept_backlog, backlog)
        assert len(inside.pending_resets(core)) <= MAX_ANSWERS + 1 + self.own_resets + MOST_KEPT
        assert len(inside.recently_reset_ids(core)) <= MAX_RECENTLY_RESET
        assert inside.scheduled(core) <= len(inside.streams(core))
        stats = core.stats()
        assert stats.memory_held == inside.unread(core) + inside.claimed(core)
        assert stats.bytes_queued == sum(
            stream.queued() for stream in inside.streams(core).values()
        )
        for stream in inside.streams(core).values():
            assert stream.send_credit >= 0
            assert stream.recv_credit >= 0
            assert 0 <= stream.claimed <= stream.unread()
        if core.reason is None:
            known = {
                id(stream): stream for stream in [*inside.streams(core).values(), *self.streams]
            }
            assert inside.unread(core) == sum(s.unread() - s.claimed for s in known.values())
            assert inside.claimed(core) == sum(stream.claimed for stream in known.values())
        else:
            self.check_reason()

    def check_reason(self) -> None:
        core = self.core
        reason = core.reason
        assert reason is not None
        assert core.ledger.state >= CLOSING
        assert len(reason.debug) <= 1024
        if not reason.by_peer and not self.aborted:
            assert reason.code in ENDS or reason.code == self.said

    def finish(self) -> None:
        """End the transport, and check that everything is over."""
        core = self.core
        core.connection_lost(None, self.now)
        self.flush(8)
        self.check()
        assert core.reason is not None
        assert core.ledger.state == ENDED
        assert not inside.streams(core)
        assert (inside.incoming(core), inside.heartbeats(core)) == (0, 0)
        assert core.next_deadline() == float("inf")
        for stream in self.streams:
            self.drain(stream)
        for stream in list(inside.accept_queue(core).values()):
            self.drain(stream)

    def drain(self, stream: CoreStream) -> None:
        """Read what is left: it ends, or fails with a documented error."""
        try:
            while data := stream.read(1 << 20):
                self.read.append((stream.stream_id, data))
        except MuxadoError:
            return
        assert stream.at_eof()


ACTIONS: tuple[Callable[[Play, int], None], ...] = (
    Play.open,
    Play.accept,
    Play.accept,
    Play.write,
    Play.write_much,
    Play.take,
    Play.take,
    Play.claim,
    Play.find,
    Play.finish_stream,
    Play.close_stream,
    Play.reset_stream,
    Play.set_priority,
    Play.pass_time,
    Play.flush,
    Play.end_session,
)


def play(data: bytes, cut: Cut = whole) -> Play:
    """Play an input."""
    flags = data[0] if data else 0
    count = data[1] if len(data) > 1 else 0
    player = Play(flags)
    player.run(data[2 : 2 + count], data[2 + count :], cut)
    return player
