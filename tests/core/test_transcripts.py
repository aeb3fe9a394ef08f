"""Recorded conversations of two Go ends, replayed against our core in place of either end.

The application that ran at each end is acted here by `Opener` and `Acceptor`. What we send may
differ from what Go sent: credit comes in other portions, FIN rides on data, pings go out. It
must parse, and carry the same payload.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxado.config import Config
from muxado.core import CoreSession, CoreStream
from muxado.errors import ErrorCode, MuxadoError, SessionClosed, StreamRefused
from muxado.wire import FORMATS, MUXADO_V2, TYPES_FIRST
from muxado.wire.codec import BAD_FRAME, DATA, GO_AWAY, RESET
from tests import inside

from ..frames import Frame, FrameReader, cut_at
from ..golden import mod251, transcript
from .pair import Cut, byte_by_byte, pieces, whole

NOW = 100.0


@dataclass(frozen=True, kw_only=True)
class Script:
    """What the two applications of a transcript do.

    Attributes:
        requests: what the opener writes, by stream id.
        answers: what the acceptor writes once it has the whole request.
        types: the streams' types, if the session is typed.
        priorities: the streams' priorities, where the wire tells them.
        opened_by_client: which end opens the streams.
        half_close: the opener says FIN behind its request, and the acceptor waits for it.
        refused: the streams for which the accept queue has no room.
        closed_by_opener: it closes the session once it has all answers; else the acceptor
            closes it once it has all requests, and lets the streams be.
        drain: the acceptor says GOAWAY before it answers.
        backlog: how many streams may wait to be accepted.
        wire: what was spoken.
    """

    requests: dict[int, bytes]
    answers: dict[int, bytes]
    types: dict[int, int] = field(default_factory=dict)
    priorities: dict[int, int] = field(default_factory=dict)
    opened_by_client: bool = True
    half_close: bool = False
    refused: frozenset[int] = frozenset()
    closed_by_opener: bool = True
    drain: bool = False
    backlog: int = 1024
    wire: str = "muxado-v2"

    def config(self) -> Config:
        typed = bool(self.types) and self.types_are_data
        return Config(wire=self.wire, typed=typed, accept_backlog=self.backlog)

    @property
    def types_are_data(self) -> bool:
        """Whether a type is a stream's first bytes."""
        return FORMATS[self.wire].rules.types == TYPES_FIRST

    def type_of(self, stream_id: int) -> int | None:
        """Return the type that a stream should have."""
        return self.types.get(stream_id, None if self.types_are_data else 0)


# What each description says.
SCRIPTS = {
    "open-echo-close": Script(
        requests={3: b"hello muxado"}, answers={3: b"hello muxado"}, half_close=True
    ),
    "server-initiated": Script(
        requests={2: b"from the server"}, answers={2: b"from the server"}, opened_by_client=False
    ),
    "typed-streams": Script(
        requests=dict.fromkeys((3, 5, 7), b"data"),
        answers={3: b"00000001:data", 5: b"01020304:data", 7: b"fffffffe:data"},
        types={3: 1, 5: 0x01020304, 7: 0xFFFFFFFE},
    ),
    "100-interleaved": Script(
        requests={3 + 2 * i: mod251(i, 64) for i in range(100)},
        answers={3 + 2 * i: mod251(i, 64) for i in range(100)},
    ),
    "accept-overflow": Script(
        requests={3: b"a", 5: b"b", 7: b"c", 9: b"d", 11: b"e", 13: b"f"},
        answers=dict.fromkeys((3, 5, 7, 9), b"ok"),
        refused=frozenset((11, 13)),
        backlog=4,
    ),
    "flow-control-1mib": Script(
        requests={3: mod251(0, 1 << 20)}, answers={3: b"done"}, half_close=True
    ),
    "close-with-open-streams": Script(
        requests=dict.fromkeys((3, 5, 7), b"open"), answers={}, closed_by_opener=False
    ),
    "goaway-graceful-go-bug": Script(
        requests={3: b"open"}, answers={3: b"after goaway"}, closed_by_opener=False, drain=True
    ),
}

# The same of the first generation, except its heartbeats, which no application sees.
SCRIPTS_V1 = {
    "open-echo-close": SCRIPTS["open-echo-close"],
    "typed-priority-streams": Script(
        requests=dict.fromkeys((3, 5, 7), b"data"),
        answers={3: b"00000001:data", 5: b"01020304:data", 7: b"fffffefe:data"},
        types={3: 1, 5: 0x01020304, 7: 0xFFFFFEFE},
        priorities={5: 1, 7: 2},
    ),
    "flow-control-1mib": SCRIPTS["flow-control-1mib"],
    "close-with-open-streams": SCRIPTS["close-with-open-streams"],
    "goaway-graceful-go-bug": replace(
        SCRIPTS["goaway-graceful-go-bug"],
        answers={3: b"after goaway, 32 bytes of text.."},
    ),
}
SCRIPTS_V1 = {name: replace(script, wire="muxado-v1") for name, script in SCRIPTS_V1.items()}


class App:
    """An application at one end.

    Attributes:
        read: what it has read, by stream id.
        ended: the streams whose end it has seen.
        errors: the errors that its reads have met, by stream id.
    """

    def __init__(self, core: CoreSession, script: Script) -> None:
        self.core = core
        self.script = script
        self.streams: list[CoreStream] = []
        self.read: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.errors: dict[int, MuxadoError] = {}

    def turn(self) -> None:
        """Do all that can be done now."""
        raise NotImplementedError

    def add(self, stream: CoreStream) -> None:
        self.streams.append(stream)
        self.read[stream.stream_id] = b""

    def drop(self, stream: CoreStream) -> None:
        """Have nothing more to do with a stream."""
        self.streams.remove(stream)

    def take_all(self, stream: CoreStream) -> None:
        """Read everything that is there."""
        stream_id = stream.stream_id
        try:
            while data := stream.read(65536):
                self.read[stream_id] += data
        except MuxadoError as error:
            self.errors[stream_id] = error
        if stream.at_eof():
            self.ended.add(stream_id)


class Opener(App):
    """Opens all streams, writes a request on each, and reads the answers to their end."""

    def __init__(self, core: CoreSession, script: Script) -> None:
        super().__init__(core, script)
        for stream_id, request in script.requests.items():
            stream = core.open(type=script.types.get(stream_id))
            stream.set_priority(script.priorities.get(stream_id, 0))
            assert stream.stream_id == stream_id
            stream.write(request)
            if script.half_close:
                stream.finish()
            self.add(stream)

    def turn(self) -> None:
        for stream in list(self.streams):
            self.take_all(stream)
            if stream.stream_id in self.ended:
                stream.close()
                self.drop(stream)
            elif stream.stream_id in self.errors:
                self.drop(stream)
        if not self.streams and self.script.closed_by_opener:
            self.core.close(NOW)


class Acceptor(App):
    """Accepts all streams, and answers each that has come in full."""

    def turn(self) -> None:
        script = self.script
        if self.core.stats().refusals < len(script.refused):
            return
        if len(self.read) < len(script.requests) - len(script.refused):
            while stream := self.core.accept():
                assert stream.type == script.type_of(stream.stream_id)
                assert (stream.peer_priority or 0) == script.priorities.get(stream.stream_id, 0)
                self.add(stream)
        for stream in list(self.streams):
            self.take_all(stream)
            if self.has_request(stream.stream_id):
                self.answer(stream)
                self.drop(stream)
        if not script.closed_by_opener and self.has_everything():
            self.core.close(NOW)

    def has_request(self, stream_id: int) -> bool:
        if self.script.half_close:
            return stream_id in self.ended
        return len(self.read[stream_id]) >= len(self.script.requests[stream_id])

    def has_everything(self) -> bool:
        return len(self.read) == len(self.script.requests) and not self.streams

    def answer(self, stream: CoreStream) -> None:
        if self.script.drain:
            self.core.go_away(0, b"drain")
        if answer := self.script.answers.get(stream.stream_id):
            stream.write(answer)
        if self.script.closed_by_opener:
            stream.finish()


class Replay:
    """One end of a transcript: our core with its application, fed what the other end sent."""

    def __init__(self, scenario: str, client: bool, generation: str = "v2") -> None:
        script = (SCRIPTS if generation == "v2" else SCRIPTS_V1)[scenario]
        self.script = script
        self.core = CoreSession(client=client, config=script.config(), now=NOW)
        self.opens = client == script.opened_by_client
        self.app: App = Opener(self.core, script) if self.opens else Acceptor(self.core, script)
        self.sent = FrameReader(FORMATS[script.wire])
        direction = "server_to_client" if client else "client_to_server"
        recorded = transcript(scenario, generation)
        # Go's v1 answers a second FIN by a RST, which must not come before the first one.
        v1 = generation == "v1"
        self.parts = recorded.turns(direction) if v1 else recorded.parts(direction)
        self.flush()

    def run(self, cut: Cut) -> None:
        """Feed it everything up to the transport's end.

        The parts are cut one by one: the recorded peer had other credit than ours would have,
        and so goes on only when the application has had its turn.
        """
        for piece in itertools.chain.from_iterable(map(cut, self.parts)):
            for read in self.reads(piece):
                self.core.receive_data(read, NOW)
                self.turn()
        assert not inside.decoder(self.core).inside_frame()
        self.core.receive_eof(NOW)
        self.turn()
        self.core.connection_lost(None, NOW)

    def reads(self, piece: bytes) -> Iterator[bytes]:
        """Yield a piece in reads no longer than the core has room for, as a transport does."""
        while piece:
            count = len(self.core.receive_buffer())
            yield piece[:count]
            piece = piece[count:]

    def turn(self) -> None:
        """Give the application and the transport a turn, and another if the core waited."""
        self.app.turn()
        self.flush()
        while self.core.paused:
            self.core.resume(NOW)
            self.app.turn()
            self.flush()

    def flush(self) -> None:
        while data := self.core.data_to_send(NOW, 65536):
            self.sent.feed(data)

    def data_sent(self) -> dict[int, list[Frame]]:
        """Return the DATA frames we sent, by stream id, without the pings."""
        sent: dict[int, list[Frame]] = {}
        for frame in self.sent.frames:
            if frame.kind == DATA and frame.stream_id != 1:
                sent.setdefault(frame.stream_id, []).append(frame)
        return sent

    def payload_sent(self) -> dict[int, bytes]:
        """Return the bytes we sent, by stream id."""
        sent = self.data_sent()
        return {key: b"".join(frame.body for frame in frames) for key, frames in sent.items()}

    def resets_sent(self) -> dict[int, int]:
        """Return the codes of the resets we sent, by stream id."""
        return {f.stream_id: f.code for f in self.sent.frames if f.kind == RESET}


def check(replay: Replay) -> None:
    """Check that the application got what it should, and said what it should."""
    script = replay.script
    core = replay.core
    assert core.reason is not None
    assert core.reason.clean, core.reason
    assert core.reason.by_peer == (replay.opens != script.closed_by_opener)
    kinds = [frame.kind for frame in replay.sent.frames]
    assert BAD_FRAME not in kinds
    assert not replay.sent.decoder.inside_frame()
    assert kinds.count(GO_AWAY) == (0 if core.reason.by_peer else 1)
    for frames in replay.data_sent().values():
        assert [index for index, frame in enumerate(frames) if frame.syn] == [0] * replay.opens
        assert not any(frame.fin for frame in frames[:-1])
        assert not (frames[0].syn and frames[0].fin), "a Go peer could not answer"
    if replay.opens:
        check_opener(replay, script)
    else:
        check_acceptor(replay, script)


def check_opener(replay: Replay, script: Script) -> None:
    app = replay.app
    assert app.read == {key: script.answers.get(key, b"") for key in script.requests}
    if script.closed_by_opener:
        assert app.ended == set(script.answers)
        assert set(app.errors) == set(script.refused)
        for error in app.errors.values():
            assert isinstance(error, StreamRefused)
            assert error.code == ErrorCode.ACCEPT_QUEUE_FULL
    else:
        assert app.ended == set()
        assert {type(error) for error in app.errors.values()} == {SessionClosed}
        assert set(app.errors) == set(script.requests)
    # Go keeps an entry for a stream it has refused until it gets a RST.
    assert replay.resets_sent() == dict.fromkeys(script.refused, ErrorCode.STREAM_CANCELLED)
    assert replay.payload_sent() == {
        key: prefix(script, key) + request for key, request in script.requests.items()
    }


def check_acceptor(replay: Replay, script: Script) -> None:
    app = replay.app
    served = {key: data for key, data in script.requests.items() if key not in script.refused}
    assert app.read == served
    assert app.errors == {}
    if script.half_close:
        assert app.ended == set(served)
    assert replay.resets_sent() == dict.fromkeys(script.refused, ErrorCode.ACCEPT_QUEUE_FULL)
    assert replay.payload_sent() == script.answers


def prefix(script: Script, stream_id: int) -> bytes:
    """Return the type bytes that go before a stream's data."""
    if not (script.types and script.types_are_data):
        return b""
    return script.types[stream_id].to_bytes(4, "big")


each_scenario = pytest.mark.parametrize(
    ("generation", "scenario"),
    [("v2", scenario) for scenario in SCRIPTS] + [("v1", scenario) for scenario in SCRIPTS_V1],
)
each_end = pytest.mark.parametrize("client", [True, False], ids=["as-client", "as-server"])


def short_of(scenario: str) -> Cut:
    """Return the finest cut that takes no more than a moment."""
    return pieces(997) if scenario == "flow-control-1mib" else byte_by_byte


@pytest.mark.parametrize("direction", ["client_to_server", "server_to_client"])
@each_scenario
def test_the_golden_bytes_are_intact(generation: str, scenario: str, direction: str) -> None:
    recorded = transcript(scenario, generation)
    data = b"".join(recorded.parts(direction))
    assert len(data) == recorded.entry[f"{direction}_len"]
    assert hashlib.sha256(data).hexdigest() == recorded.entry[f"{direction}_sha256"]


@each_end
@each_scenario
def test_in_long_reads(generation: str, scenario: str, client: bool) -> None:
    replay = Replay(scenario, client, generation)
    replay.run(whole)
    check(replay)


@each_end
@each_scenario
def test_in_tiny_reads(generation: str, scenario: str, client: bool) -> None:
    replay = Replay(scenario, client, generation)
    replay.run(short_of(scenario))
    check(replay)


@each_end
@each_scenario
@given(st.data())
@settings(max_examples=20, deadline=None)
def test_cut_anywhere(generation: str, scenario: str, client: bool, data: st.DataObject) -> None:
    replay = Replay(scenario, client, generation)
    size = max(map(len, replay.parts))
    places = data.draw(st.lists(st.integers(0, size), max_size=20))
    replay.run(lambda wire: cut_at(wire, places))
    check(replay)


def test_a_sender_waits_for_credit() -> None:
    """Not one byte goes out above the initial window before the peer grants some."""
    replay = Replay("flow-control-1mib", client=True)
    assert len(replay.payload_sent()[3]) == 262_144
    assert not inside.pending(replay.core)
    replay.core.receive_data(MUXADO_V2.encoder.credit(3, 1000), NOW)
    replay.flush()
    assert len(replay.payload_sent()[3]) == 262_144 + 1000
    replay.core.receive_data(replay.parts[0][:12], NOW)  # the recorded first WNDINC, of 65536
    replay.flush()
    assert len(replay.payload_sent()[3]) == 262_144 + 1000 + 65_536


@each_end
def test_v1_heartbeats_are_echoed_and_no_application_sees_them(client: bool) -> None:
    """Of the recorded peer only what concerns its own heartbeat: this side opens none."""
    direction = "server_to_client" if client else "client_to_server"
    reader = FrameReader(FORMATS["muxado-v1"])
    reader.feed(b"".join(transcript("heartbeat", "v1").parts(direction)))
    own = 2 if client else 3
    beats = [frame for frame in reader.frames if frame.kind == DATA and frame.stream_id == own]
    opening, *beats = beats
    assert (opening.type, opening.priority) == (0xFFFFFEFF, 0x7FFFFFFF)
    core = CoreSession(client=client, config=Config(wire="muxado-v1"), now=NOW)
    encoder = FORMATS["muxado-v1"].encoder
    core.receive_data(encoder.open(own, opening.type, opening.priority), NOW)
    sent = FrameReader(FORMATS["muxado-v1"])
    for beat in beats:
        core.receive_data(encoder.data_header(own, 4, False, False) + beat.body, NOW)
        sent.feed(core.data_to_send(NOW, 65536))
    assert core.accept() is None
    echoes = [bytes(f.body) for f in sent.frames if f.kind == DATA and f.stream_id == own]
    assert echoes == [bytes(beat.body) for beat in beats]
    assert len(beats) >= 3
    core.receive_data(encoder.go_away(0, 0, b"", True), NOW)
    core.receive_eof(NOW)
    assert core.reason is not None
    assert core.reason.clean
