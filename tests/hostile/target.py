"""A session under a flood: its application, its transport, and what it holds."""

from __future__ import annotations

import gc
import tracemalloc

from muxado.core import CLOSED, CoreSession, CoreStream
from muxado.errors import MuxadoError
from muxado.wire.codec import READ_SIZE
from tests import inside

from ..core.peer import PING, data, rst
from ..core.roles import Shifter
from ..frames import FrameReader
from .floods import ANSWERS_BACK, BYSTANDER, READS, SLEEPS, VICTIM, Flood


class Target:
    """A core session of either role, with a stream that a flood must leave alone.

    The floods and the ids here are those of a server's peer.

    Attributes:
        most_held: the most bytes that it held more than at its start, at any time.
    """

    def __init__(self, flood: Flood, peer_reads: bool, client: bool) -> None:
        self.flood = flood
        self.peer_reads = peer_reads
        self.now = 100.0
        self.core = CoreSession(client=client, config=flood.config(), now=self.now)
        self.shift = Shifter() if client else bytes
        inside.decoder(self.core).make_room(READ_SIZE)  # as large as it gets, before it counts
        self.sent = FrameReader()
        self.asked = False  # by a ping
        self.streams: list[CoreStream] = []
        kind = b"\0\0\0\1" if flood.typed else b""
        for stream_id in (BYSTANDER, VICTIM):
            self.core.receive_data(self.shift(data(stream_id, kind, syn=True)), self.now)
        self.bystander = self.core.accept()
        self.victim = self.core.accept()
        self.flush()
        self.most_held = 0

    def run(self, bursts: int) -> None:
        """Take so many bursts, or fewer if the session ends."""
        # Made before anything is counted.
        wires = [self.shift(self.flood.burst(number)) for number in range(bursts)]
        gc.collect()
        tracemalloc.start()
        try:
            start = tracemalloc.get_traced_memory()[0]
            for wire in wires:
                self.measure(wire, start)
        finally:
            tracemalloc.stop()

    def measure(self, wire: bytes, start: int) -> None:
        """Take a burst, and see what is held at the most until all is done that it calls for."""
        if self.core.reason is not None:
            return
        tracemalloc.reset_peak()
        self.now += self.flood.seconds
        self.core.receive_data(wire, self.now)
        while True:
            self.app_turn()
            if self.peer_reads:
                self.flush()
            if self.core.next_deadline() <= self.now:
                self.core.handle_timer(self.now)
            elif self.core.paused:
                self.core.resume(self.now)
            else:
                break
        self.most_held = max(self.most_held, tracemalloc.get_traced_memory()[1] - start)

    def app_turn(self) -> None:
        """Let the application do what it does."""
        app = self.flood.app
        if app == SLEEPS or self.core.reason is not None:
            return
        while (stream := self.core.accept()) is not None:
            self.streams.append(stream)
            if app == ANSWERS_BACK:
                stream.write(bytes(100))
                stream.close()
        if app == READS:
            for stream in [*self.streams, self.victim]:
                self.read_all(stream)
        for stream in self.streams:
            if stream.state == CLOSED:
                stream.close()
        self.streams = [stream for stream in self.streams if stream.state != CLOSED]

    def read_all(self, stream: CoreStream | None) -> None:
        assert stream is not None
        try:
            while stream.read(65536):
                pass
        except MuxadoError:
            return

    def flush(self) -> None:
        """Have the peer read everything there is; pings are answered, between two frames."""
        while wire := self.core.data_to_send(self.now, 65536):
            self.sent.feed(wire)
            assert not self.sent.failed
            self.sent.frames.clear()
            self.asked = self.asked or PING in wire
            if self.asked and not inside.decoder(self.core).inside_frame():
                self.asked = False
                self.core.receive_data(rst(1, 4), self.now)

    def check_bystander(self) -> None:
        """Check that the other stream works both ways, as if nothing had happened."""
        assert self.core.reason is None
        stream = self.bystander
        assert stream is not None
        self.core.receive_data(data(stream.stream_id, b"ping"), self.now)
        assert stream.read(100) == b"ping"
        stream.write(b"pong")
        out = bytearray()
        while wire := self.core.data_to_send(self.now, 65536):
            out += wire
        assert data(stream.stream_id, b"pong") in out
