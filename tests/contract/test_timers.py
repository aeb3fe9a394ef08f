"""What a wire asks of a front end besides calls: answers, timers and the order of an end.

The peer is a plain socket whose frames are made by the test. What has a time of its own on the wire
has a short one here, and frames are counted, never seconds.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from muxado import Config, ErrorCode
from muxado.wire import FORMATS, Rules, WireFormat
from muxado.wire.codec import ACCEPTED, DATA, GO_AWAY, RESET
from muxado.wire.muxado_v1 import HEARTBEAT_TYPE
from tests.certificates import Tls
from tests.frames import Frame, FrameReader, Packer

from .background import background
from .conftest import FRONT_ENDS, SCHEMES
from .sides import PATIENCE, FrontEnd, Side

QUICK = 0.02
WIRES = list(FORMATS)


def wires_that(has: Callable[[Rules], object]) -> list[str]:
    return [wire for wire in WIRES if has(FORMATS[wire].rules)]


@contextmanager
def with_rules(wire: str, **changes: float) -> Iterator[str]:
    """Give the name of a wire that has other rules in some places."""
    known = FORMATS[wire]
    names = (name for name in dir(known.rules) if not name.startswith("_"))
    rules = Rules(**{name: getattr(known.rules, name) for name in names} | changes)
    name = f"{wire} of {changes}"
    FORMATS[name] = WireFormat(rules, known.encoder, known.new_decoder)
    try:
        yield name
    finally:
        del FORMATS[name]


class Peer:
    """A server that a test plays."""

    def __init__(self, sock: socket.socket, wire: str) -> None:
        self.sock = sock
        self.wire = FORMATS[wire]
        self.packer = Packer(self.wire)
        self.reader = FrameReader(self.wire)
        self.taken = 0

    def say(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def hear(self, kind: int, stream_id: int | None = None) -> Frame:
        """Return the next frame of a kind, of a certain stream or of any."""
        while True:
            for frame in self.reader.frames[self.taken :]:
                self.taken += 1
                if frame.kind == kind and stream_id in (None, frame.stream_id):
                    return frame
            assert not self.reader.failed
            data = self.sock.recv(65536)
            assert data, "the connection has ended"
            self.reader.feed(data)

    def hear_bytes(self, count: int) -> bytes:
        """Return so many bytes, whatever they are."""
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            assert more, "the connection has ended"
            data += more
        return data

    def hear_end(self) -> list[Frame]:
        """Return the frames up to the connection's end, which have not been heard."""
        while data := self.sock.recv(65536):
            self.reader.feed(data)
        return self.reader.frames[self.taken :]


@pytest.fixture(params=FRONT_ENDS)
def front_end(request: pytest.FixtureRequest, front_ends: dict[str, FrontEnd]) -> FrontEnd:
    return front_ends[request.param]


@contextmanager
def client_of(front_end: FrontEnd, wire: str, **settings: Any) -> Iterator[tuple[Side, Peer]]:
    """Connect a front end's client to a peer that is played."""
    config = Config(wire=wire, ping_interval=None, **settings)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        front_end.connect(listener.getsockname()[1], None, config) as client,
    ):
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(PATIENCE)
            yield client, Peer(sock, wire)
            client.abort()
        client.wait_closed()


@pytest.mark.parametrize("wire", wires_that(lambda rules: rules.unacknowledged))
def test_a_stream_is_acknowledged_when_it_is_accepted(wire: str, front_end: FrontEnd) -> None:
    with client_of(front_end, wire) as (client, peer):
        for number in range(5):
            stream_id = peer.wire.rules.first_server_id + 2 * number
            peer.say(peer.packer.data(stream_id, 0, syn=True))
            client.accept()  # and nothing else that would send something
            peer.hear(ACCEPTED, stream_id)


@pytest.mark.parametrize("wire", wires_that(lambda rules: rules.unacknowledged))
def test_a_stream_that_is_not_accepted_is_acknowledged_in_time(
    wire: str, front_end: FrontEnd
) -> None:
    with (
        with_rules(wire, acknowledge_after=QUICK) as quick,
        client_of(front_end, quick) as (client, peer),
    ):
        ids = [peer.wire.rules.first_server_id + 2 * number for number in range(3)]
        for stream_id in ids:
            peer.say(peer.packer.data(stream_id, 0, syn=True))
            peer.hear(ACCEPTED, stream_id)
        assert [client.accept().id for _ in ids] == ids
        client.open().write(b"once")
        peer.hear(DATA)
        assert ACCEPTED not in [frame.kind for frame in peer.reader.frames[peer.taken :]]


@pytest.mark.parametrize("wire", wires_that(lambda rules: rules.unacknowledged))
def test_streams_wait_to_be_opened_until_the_peer_has_acknowledged_others(
    wire: str, front_end: FrontEnd
) -> None:
    with client_of(front_end, wire) as (client, peer):
        most = peer.wire.rules.unacknowledged
        ids = [client.open(eager=True).id for _ in range(most + 5)]
        for stream_id in ids[:most]:
            assert peer.hear(DATA, stream_id).syn
        for first, later in zip(ids, ids[most:], strict=False):
            assert len(peer.reader.frames) == peer.taken
            peer.say(peer.wire.encoder.accept(first))
            assert peer.hear(DATA, later).syn


@pytest.mark.parametrize("wire", wires_that(lambda rules: rules.heartbeats_outlive))
def test_heartbeats_are_echoed_and_credit_is_awaited_to_the_end(
    wire: str, front_end: FrontEnd
) -> None:
    beat = bytes(4)
    with client_of(front_end, wire, close_timeout=PATIENCE) as (client, peer):
        heart = peer.wire.rules.first_server_id
        peer.say(peer.wire.encoder.open(heart, HEARTBEAT_TYPE, 0x7FFFFFFF))

        def is_alive() -> None:
            peer.say(peer.packer.data(heart, len(beat)))
            frame = peer.hear(DATA, heart)
            assert (bytes(frame.body), frame.fin) == (beat, False)

        is_alive()
        stream = client.open()
        stream.write(bytes(1000))
        stream.write_eof()
        peer.hear(DATA, stream.id)
        with background(client.close):
            peer.hear(GO_AWAY)
            for _ in range(10):  # the peer has not read all yet
                is_alive()
            peer.say(peer.packer.credit(stream.id, 400))
            is_alive()
            peer.say(peer.packer.credit(stream.id, 600))
            rest = peer.hear_end()
            assert not [f for f in rest if f.stream_id == heart and (f.kind == RESET or f.fin)]
            peer.sock.close()
        assert client.wait_closed().clean


@pytest.mark.parametrize("wire", wires_that(lambda rules: rules.keepalive))
def test_a_side_that_is_silent_says_that_it_lives(wire: str, front_end: FrontEnd) -> None:
    with (
        with_rules(wire, keepalive=QUICK) as quick,
        client_of(front_end, quick) as (_, peer),
    ):
        frame = peer.wire.encoder.ping()
        for _ in range(5):
            assert peer.hear_bytes(len(frame)) == frame
            peer.say(frame)  # what the peer says changes nothing


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("wire", WIRES)
def test_an_abort_is_no_clean_end_for_the_peer(
    wire: str, scheme: str, front_end: FrontEnd, tls: Tls
) -> None:
    near, far = (tls.client, tls.server) if scheme == "tls" else (None, None)
    config = Config(wire=wire)
    with (
        front_end.listen(far, config) as listener,
        front_end.connect(listener.port, near, config) as client,
    ):
        server = listener.accept()
        client.open(eager=True)
        server.accept()
        client.abort()
        reason = server.wait_closed()
        assert not reason.clean
        client.wait_closed()


@pytest.mark.parametrize("wire", wires_that(lambda rules: not rules.resets))
def test_a_hold_that_lasts_too_long_ends_the_session(wire: str, front_end: FrontEnd) -> None:
    with client_of(front_end, wire, accept_backlog=1, hold_timeout=QUICK) as (client, peer):
        first = peer.wire.rules.first_server_id
        peer.say(*[peer.packer.data(first + 2 * number, 0, syn=True) for number in range(3)])
        reason = client.wait_closed()
        assert (reason.code, reason.clean) == (ErrorCode.INTERNAL_ERROR, False)
        peer.hear_end()
        assert peer.reader.decoder.inside_frame()
