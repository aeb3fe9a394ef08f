"""Two sessions and the line between them in simulated time, until a fault ends the line."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from muxado.config import Config
from muxado.core import CoreSession, CoreStream
from muxado.errors import MuxadoError
from tests import inside

from ..golden import mod251

STEP = 0.05  # seconds
CLIENT, SERVER = 0, 1
CONFIG = Config(initial_window=32 * 1024, max_incoming_streams=500)


@dataclass
class Half:
    """One direction of a stream.

    Attributes:
        size: how many bytes are to be said.
        written: how many have been.
        read: how many have come out, each of them right.
        ended: whether the reader has seen the end.
    """

    size: int
    written: int = 0
    read: int = 0
    ended: bool = False

    def write_some(self, stream: CoreStream, count: int) -> None:
        """Write the next bytes, and the end after the last."""
        if stream.queued() > 64 * 1024 or stream.fin_asked:
            return
        count = min(count, self.size - self.written)
        stream.write(mod251(self.written, count))
        self.written += count
        if self.written == self.size:
            stream.finish()

    def read_some(self, stream: CoreStream, limit: int) -> None:
        """Read what is there, and check it."""
        piece = stream.read(limit)
        assert piece == mod251(self.read, len(piece))
        self.read += len(piece)
        assert self.read <= self.written
        self.ended = stream.at_eof()


@dataclass
class Talk:
    """One stream: a request, and an answer once all of it has come.

    Attributes:
        opener: which side opened it.
        streams: the stream of either side, None before it was accepted.
        failed: whether a documented error has ended it.
    """

    opener: int
    request: Half
    answer: Half
    streams: list[CoreStream | None] = field(default_factory=lambda: [None, None])
    failed: bool = False

    def turn(self, rng: random.Random) -> None:
        """Let both applications do something."""
        near, far = self.streams[self.opener], self.streams[1 - self.opener]
        try:
            if near is not None:
                self.request.write_some(near, rng.choice([1, 500, 20_000]))
                self.answer.read_some(near, rng.choice([10, 1000, 100_000]))
            if far is not None:
                self.request.read_some(far, rng.choice([10, 1000, 100_000]))
                if self.request.ended:
                    self.answer.write_some(far, rng.choice([1, 500, 20_000]))
        except MuxadoError:
            self.failed = True

    def done(self) -> bool:
        return self.failed or (self.request.ended and self.answer.ended)

    def check(self) -> None:
        """Check that every byte of a stream that is over is accounted for."""
        for half in (self.request, self.answer):
            assert half.read <= half.written <= half.size
            assert self.failed or (half.read == half.size and half.ended)
            assert not half.ended or half.read == half.size


class Era:
    """Two sessions, from their dialling to the end of the line.

    Attributes:
        sides: the client and the server.
        talks: the streams that are not over.
        over: those that are.
    """

    def __init__(self, rng: random.Random, now: float) -> None:
        self.rng = rng
        self.now = now
        self.sides = [CoreSession(client=role == CLIENT, config=CONFIG, now=now) for role in (0, 1)]
        self.under_way: list[deque[tuple[float, bytes]]] = [deque(), deque()]
        self.silent_until = 0.0
        self.talks: list[Talk] = []
        self.waiting: dict[tuple[int, int], Talk] = {}  # by opener and stream id
        self.over: list[Talk] = []

    def open(self) -> None:
        """Open a stream from either side, small more often than large."""
        rng = self.rng
        opener = rng.randrange(2)
        sizes = [int(2 ** rng.uniform(0, 16)) for _ in range(2)]
        talk = Talk(opener, Half(sizes[0]), Half(sizes[1]))
        try:
            stream = self.sides[opener].open(priority=rng.randrange(-8, 8))
        except MuxadoError:
            return
        talk.streams[opener] = stream
        self.waiting[opener, stream.stream_id] = talk
        self.talks.append(talk)

    def step(self) -> None:
        """Let time, bytes and applications move on by one step."""
        self.now += STEP
        for side, core in enumerate(self.sides):
            if core.next_deadline() <= self.now:
                core.handle_timer(self.now)
            self.carry(side)
            self.accept(side)
        for talk in self.talks:
            talk.turn(self.rng)
        self.over += [talk for talk in self.talks if talk.done()]
        self.talks = [talk for talk in self.talks if not talk.done()]

    def carry(self, side: int) -> None:
        """Put on the line what a side says, and take off what the other has said."""
        core = self.sides[side]
        if wire := core.data_to_send(self.now, 64 * 1024):
            self.under_way[side].append((self.now + self.rng.uniform(0, 0.2), wire))
        line = self.under_way[1 - side]
        while line and line[0][0] <= self.now and self.now >= self.silent_until:
            wire = line.popleft()[1]
            cut = self.rng.randrange(len(wire))
            core.receive_data(wire[:cut], self.now)
            core.receive_data(wire[cut:], self.now)
            core.resume(self.now)

    def accept(self, side: int) -> None:
        core = self.sides[side]
        while inside.accept_queue(core):
            stream = core.accept()
            assert stream is not None
            # The opener may have failed already.
            talk = self.waiting.pop((1 - side, stream.stream_id))
            talk.streams[side] = stream

    def alive(self) -> bool:
        return all(core.reason is None for core in self.sides)

    def given_up(self) -> bool:
        """Return whether both sides think that the other is gone."""
        return all(inside.torn_down(core) for core in self.sides)

    def said_all(self) -> bool:
        """Return whether a side that closes has nothing more to say."""
        return any(inside.output_done(core) for core in self.sides)

    def idle(self) -> bool:
        """Return whether nothing is on its way, or about to be."""
        pending = any(inside.pending(core) for core in self.sides)
        return not self.talks and not pending and not any(self.under_way)

    def end(self, error: OSError | None) -> None:
        """End the line, let the applications see it, and check that nothing is left."""
        for core in self.sides:
            core.connection_lost(error, self.now)
        for _ in range(200):
            for side in (CLIENT, SERVER):
                self.accept(side)
            for talk in self.talks:
                talk.turn(self.rng)
        for talk in [*self.over, *self.talks]:
            talk.check()
        for core in self.sides:
            assert not inside.streams(core)
            assert core.stats().bytes_queued == 0
            assert core.reason is not None
