"""Two sessions against a plain model: random calls, on every wire, which is cut anywhere.

What a wire can't say is not called; see the preconditions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from muxado.config import Config
from muxado.core import CoreSession, CoreStream
from muxado.errors import ErrorCode, PeerGone, StreamClosed, StreamRefused, StreamReset
from muxado.wire import FORMATS, NO_PINGS, TYPES_FIRST, TYPES_IN_SYN, Rules
from tests import inside

CLIENT, SERVER = 0, 1
SIDES = st.sampled_from([CLIENT, SERVER])
PICK = st.integers(0, 1000)
SIZE = st.sampled_from([1, 3, 100, 999, 5000, 70_000])


class End:
    """What one side has done with its end of a stream."""

    def __init__(self) -> None:
        self.core: CoreStream | None = None  # None at the acceptor until it has accepted
        self.written = bytearray()
        self.read = bytearray()
        self.finished = False
        self.closed = False
        self.reset = False

    def reads(self) -> bool:
        return self.core is not None and not self.closed and not self.reset


class Talk:
    """A stream, both ends of it."""

    def __init__(self, opener: int, stream: CoreStream) -> None:
        self.opener = opener
        self.stream_id = stream.stream_id
        self.type = stream.type
        self.ends = (End(), End())
        self.ends[opener].core = stream
        self.refusable = False
        self.refused = False

    def may_fail(self) -> bool:
        return self.refusable or any(end.closed or end.reset for end in self.ends)

    def ways(self) -> Iterator[tuple[End, End]]:
        """Yield the writing and the reading end of either direction."""
        yield self.ends[CLIENT], self.ends[SERVER]
        yield self.ends[SERVER], self.ends[CLIENT]


MANY = settings(max_examples=100, stateful_step_count=50, deadline=None)
SOME = settings(max_examples=25, stateful_step_count=50, deadline=None)


class TwoSessions(RuleBasedStateMachine):
    wire = ""

    @property
    def wire_rules(self) -> Rules:
        return FORMATS[self.wire].rules

    @initialize(typed=st.booleans(), window=st.sampled_from([64, 1000, 1 << 18]))
    def begin(self, typed: bool, window: int) -> None:
        rules = self.wire_rules
        self.typed = (typed and rules.types == TYPES_FIRST) or rules.types == TYPES_IN_SYN
        config = Config(wire=self.wire, ping_interval=None)
        if rules.agreed_window:
            config = replace(config, initial_window=window, max_window=2 * window)
        if rules.types == TYPES_FIRST:
            config = replace(config, typed=typed)
        self.now = 100.0
        self.cores = [
            CoreSession(client=side == CLIENT, config=config, now=self.now)
            for side in (CLIENT, SERVER)
        ]
        self.wires = [bytearray(), bytearray()]  # what each side has sent and is under way
        self.talks: list[Talk] = []
        self.gone_away = [False, False]
        self.pings = [0, 0]
        for side in (CLIENT, SERVER):
            for number in (0, 1):
                self.open(side, True, number, 0)
        self.converse(1 << 20)

    # Calls

    @rule(side=SIDES, eager=st.booleans(), type=st.integers(0, 5), priority=st.integers(-8, 7))
    def open(self, side: int, eager: bool, type: int, priority: int) -> None:
        core = self.cores[side]
        try:
            stream = core.open(type=type if self.typed else None, priority=priority, eager=eager)
        except PeerGone:
            assert self.gone_away[1 - side]
            return
        talk = Talk(side, stream)
        talk.refusable = self.gone_away[1 - side]
        self.talks.append(talk)

    @rule(side=SIDES)
    def accept(self, side: int) -> None:
        self.accept_one(side)

    def accept_one(self, side: int) -> bool:
        stream = self.cores[side].accept()
        if stream is None:
            return False
        (talk,) = [
            talk
            for talk in self.talks
            if talk.opener != side and talk.stream_id == stream.stream_id
        ]
        assert talk.ends[side].core is None, "accepted twice"
        assert not talk.refused, "refused, and then accepted: trying again would not be safe"
        assert stream.type == talk.type
        talk.ends[side].core = stream
        return True

    @precondition(lambda self: self.talks)
    @rule(side=SIDES, pick=PICK, size=SIZE)
    def write(self, side: int, pick: int, size: int) -> None:
        talk, end, core = self.pick(side, pick)
        if core is None:
            return
        start = (len(end.written) + 17 * talk.stream_id + 101 * side) % 251
        chunk = (bytes(range(251)) * (size // 251 + 2))[start : start + size]
        try:
            core.write(chunk)
        except StreamClosed:
            assert end.finished or end.closed or end.reset
        except StreamReset as failure:
            self.check_failure(talk, failure)
        else:
            assert not end.finished
            assert not end.closed
            assert not end.reset
            end.written += chunk

    @precondition(lambda self: self.talks)
    @rule(side=SIDES, pick=PICK, size=SIZE)
    def read(self, side: int, pick: int, size: int) -> None:
        self.read_some(side, pick, size)

    def read_some(self, side: int, pick: int, size: int) -> bytes:
        talk, end, core = self.pick(side, pick)
        if core is None:
            return b""
        try:
            got = core.read(size)
        except StreamClosed:
            assert end.closed or end.reset
            return b""
        except StreamReset as failure:
            self.check_failure(talk, failure)
            return b""
        assert end.reads()
        other = talk.ends[1 - side]
        assert got == other.written[len(end.read) : len(end.read) + len(got)]
        end.read += got
        if core.at_eof():
            assert other.finished or other.closed
            assert len(end.read) == len(other.written)
        return got

    @precondition(lambda self: self.talks)
    @rule(side=SIDES, pick=PICK, size=SIZE)
    def claim(self, side: int, pick: int, size: int) -> None:
        _, end, core = self.pick(side, pick)
        if core is not None and end.reads():
            core.claim(size)

    @precondition(lambda self: self.talks)
    @rule(side=SIDES, pick=PICK)
    def finish(self, side: int, pick: int) -> None:
        _, end, core = self.pick(side, pick)
        if core is not None:
            core.finish()
            end.finished = True

    @precondition(lambda self: self.talks)
    @rule(side=SIDES, pick=PICK)
    def close(self, side: int, pick: int) -> None:
        _, end, core = self.pick(side, pick)
        if core is not None:
            core.close()
            end.closed = True

    @precondition(lambda self: self.talks and self.wire_rules.resets)
    @rule(side=SIDES, pick=PICK, code=st.integers(20, 2**32 - 1))
    def reset(self, side: int, pick: int, code: int) -> None:
        _, end, core = self.pick(side, pick)
        if core is not None:
            core.reset(code if self.wire_rules.codes else ErrorCode.STREAM_CANCELLED)
            end.reset = True

    @precondition(lambda self: self.talks)
    @rule(side=SIDES, pick=PICK, priority=st.integers(-8, 7))
    def set_priority(self, side: int, pick: int, priority: int) -> None:
        core = self.pick(side, pick)[2]
        if core is not None:
            core.set_priority(priority)

    @precondition(lambda self: self.wire_rules.pings != NO_PINGS)
    @rule(side=SIDES)
    def ping(self, side: int) -> None:
        self.pings[side] = self.cores[side].liveness.ping()

    @precondition(lambda self: self.wire_rules.go_away)
    @rule(side=SIDES, really=st.integers(0, 5))
    def go_away(self, side: int, really: int) -> None:
        if really < 5:
            return  # otherwise most runs would have few streams
        self.cores[side].go_away()
        self.gone_away[side] = True
        for talk in self.talks:
            if talk.opener != side and talk.ends[side].core is None:
                talk.refusable = True

    # The wire and the time

    @rule(side=SIDES, limit=st.sampled_from([1, 1000, 65536]))
    def flush(self, side: int, limit: int) -> None:
        self.wires[side] += self.cores[side].data_to_send(self.now, limit)

    @rule(side=SIDES, count=st.sampled_from([1, 5, 8, 13, 1000, 100_000]))
    def carry(self, side: int, count: int) -> None:
        wire = self.wires[side]
        self.cores[1 - side].receive_data(bytes(wire[:count]), self.now)
        del wire[:count]

    @rule(piece=st.sampled_from([1, 7, 1000, 1 << 20]))
    def converse(self, piece: int) -> None:
        for side in (CLIENT, SERVER):
            self.flush(side, 65536)
            while self.wires[side]:
                self.carry(side, piece)
            while self.accept_one(1 - side):
                pass

    @rule(seconds=st.floats(0, 0.2))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        for core in self.cores:
            core.handle_timer(self.now)

    @rule(side=SIDES)
    def turn(self, side: int) -> None:
        """Go on after a pause, as a front end does in its next turn."""
        core = self.cores[side]
        if core.paused:
            core.resume(self.now)
        if core.next_deadline() <= self.now:
            core.handle_timer(self.now)

    # What always holds

    @invariant()
    def sessions_live_and_counts_are_right(self) -> None:
        for side, core in enumerate(self.cores):
            assert core.reason is None
            known = {id(stream): stream for stream in inside.streams(core).values()}
            for talk in self.talks:
                stream = talk.ends[side].core
                if stream is not None:
                    known[id(stream)] = stream
            for stream in known.values():
                assert stream.send_credit >= 0
                assert stream.recv_credit >= 0
                assert 0 <= stream.claimed <= stream.unread()
            assert inside.unread(core) == sum(s.unread() - s.claimed for s in known.values())

    # The end: everything written arrives, and nothing is left behind

    def teardown(self) -> None:
        if not hasattr(self, "cores"):
            return
        self.settle()
        for core, number in zip(self.cores, self.pings, strict=True):
            assert inside.liveness(core).answered >= number
        for talk in self.talks:
            for writer, reader in talk.ways():
                self.check_delivered(talk, writer, reader)
        for _ in range(2):  # streams that are announced only now have an acceptor's end too
            for index in range(len(self.talks)):
                for side in (CLIENT, SERVER):
                    self.finish(side, index)
            self.settle()
        if not self.wire_rules.closed_answer:  # a peer that has closed a stream says nothing of it
            self.tick(Config().stall_timeout or 0)
            self.settle()
        for core in self.cores:
            assert not inside.streams(core)
            assert not inside.accept_queue(core)
            assert not inside.pending(core)
            assert inside.unread(core) == 0
            assert core.stats().bytes_queued == 0
        for talk in self.talks:
            for end in talk.ends:
                if end.core is not None:
                    end.core.close()  # one that was reset counts until then
        assert [inside.incoming(core) for core in self.cores] == [0, 0]

    def settle(self) -> None:
        """Carry, accept and read until nothing happens any more."""
        busy = True
        while busy:
            busy = False
            for side in (CLIENT, SERVER):
                self.flush(side, 65536)
                busy |= len(self.wires[side]) > 0
                self.carry(side, 1 << 30)
                while self.accept_one(side):
                    busy = True
                busy |= self.cores[side].paused
                self.turn(side)
                for index in range(len(self.talks)):
                    while self.read_some(side, index, 1 << 20):
                        busy = True
            self.sessions_live_and_counts_are_right()

    def check_delivered(self, talk: Talk, writer: End, reader: End) -> None:
        """Check one direction after everything was carried and read."""
        assert writer.written.startswith(reader.read)
        if talk.refusable or writer.reset or reader.reset or reader.closed:
            return
        if reader.core is None:  # never announced, or gone before it was accepted
            assert not writer.written or talk.may_fail()
            return
        assert reader.read == writer.written
        assert reader.core.at_eof() == (writer.finished or writer.closed)
        if not talk.may_fail() and writer.core is not None:
            assert writer.core.send_credit == reader.core.recv_credit or writer.finished

    # Helpers

    def pick(self, side: int, pick: int) -> tuple[Talk, End, CoreStream | None]:
        talk = self.talks[pick % len(self.talks)]
        return talk, talk.ends[side], talk.ends[side].core

    def check_failure(self, talk: Talk, failure: StreamReset) -> None:
        assert talk.may_fail()
        if isinstance(failure, StreamRefused):
            assert talk.refusable
            assert talk.ends[1 - talk.opener].core is None
            talk.refused = True
        if not failure.by_peer:
            assert any(end.reset for end in talk.ends)


@MANY
class TwoSessionsOnV2(TwoSessions):
    wire = "muxado-v2"


@SOME
class TwoSessionsOnV1(TwoSessions):
    wire = "muxado-v1"


@SOME
class TwoSessionsOnYamux(TwoSessions):
    wire = "yamux"


@SOME
class TwoSessionsOnSmuxV2(TwoSessions):
    wire = "smux-v2"


@SOME
class TwoSessionsOnSmuxV1(TwoSessions):
    wire = "smux-v1"


TestTwoSessionsOnV2 = TwoSessionsOnV2.TestCase
TestTwoSessionsOnV1 = TwoSessionsOnV1.TestCase
TestTwoSessionsOnYamux = TwoSessionsOnYamux.TestCase
TestTwoSessionsOnSmuxV2 = TwoSessionsOnSmuxV2.TestCase
TestTwoSessionsOnSmuxV1 = TwoSessionsOnSmuxV1.TestCase


def test_there_is_a_model_of_every_wire() -> None:
    assert {model.wire for model in TwoSessions.__subclasses__()} == set(FORMATS)
