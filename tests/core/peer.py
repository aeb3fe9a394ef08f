"""One core session, and a peer that puts any frame on the wire by hand."""

from __future__ import annotations

import struct

from muxado.config import Config
from muxado.core import CoreSession, CoreStream
from muxado.wire.codec import CREDIT, DATA, GO_AWAY, RESET
from tests import inside

from ..frames import Frame, read_frames

WINDOW = 256 * 1024


def header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    return struct.pack(">II", length << 8 | kind << 4 | flags, stream_id)


def data(stream_id: int, payload: bytes = b"", *, syn: bool = False, fin: bool = False) -> bytes:
    return header(len(payload), 1, syn << 1 | fin, stream_id) + payload


def rst(stream_id: int, code: int) -> bytes:
    return header(4, 0, 0, stream_id) + struct.pack(">I", code)


def wndinc(stream_id: int, increment: int) -> bytes:
    return header(4, 2, 0, stream_id) + struct.pack(">I", increment)


def goaway(last_id: int, code: int = 0, text: bytes = b"") -> bytes:
    return header(8 + len(text), 3, 0, 0) + struct.pack(">II", last_id, code) + text


PING = data(1)
PAD = header(0, 15, 0, 0)


def show(frame: Frame) -> str:
    """Say what a frame is in a few words: `DATA 3 5 SYN`, `RST 3 4`, `GOAWAY 3 0`."""
    if frame.kind == DATA:
        flags = (" SYN" if frame.syn else "") + (" FIN" if frame.fin else "")
        return f"DATA {frame.stream_id} {frame.length}{flags}"
    if frame.kind == RESET:
        return f"RST {frame.stream_id} {frame.code}"
    if frame.kind == CREDIT:
        return f"WNDINC {frame.stream_id} {frame.value}"
    assert frame.kind == GO_AWAY
    return f"GOAWAY {frame.value} {frame.code}"


class Bench:
    """A session under test, whose peer is played by the test.

    Attributes:
        core: the session; `now` is its time.
        pings: how many pings it has sent. `said` leaves them out, so that they don't
            clutter tests of other things.
    """

    def __init__(self, config: Config | None = None, *, client: bool = False) -> None:
        self.now = 100.0
        self.core = CoreSession(client=client, config=config or Config(), now=self.now)
        self.pings = 0

    def hear(self, *frames: bytes) -> None:
        """Have the peer send frames, in one read."""
        self.core.receive_data(b"".join(frames), self.now)
        while self.core.paused:
            self.core.resume(self.now)

    def flush(self) -> bytes:
        """Return everything the session has to send."""
        parts = []
        while part := self.core.data_to_send(self.now, 65536):
            parts.append(part)
        assert not inside.pending(self.core)
        return b"".join(parts)

    def frames(self) -> list[Frame]:
        """Return the frames the session has to send, without pings."""
        frames = read_frames([self.flush()])
        others = [frame for frame in frames if frame.stream_id != 1 or frame.kind != DATA]
        self.pings += len(frames) - len(others)
        return others

    def said(self) -> list[str]:
        """Return what the session has to send, without pings, in words."""
        return [show(frame) for frame in self.frames()]

    def pass_time(self, seconds: float) -> None:
        """Let time pass, timer by timer, with nothing sent or heard."""
        end = self.now + seconds
        while (due := self.core.next_deadline()) <= end:
            self.now = max(self.now, due)
            self.core.handle_timer(self.now)
        self.now = end

    def accepted(self, *frames: bytes) -> CoreStream:
        """Have the peer open a stream with frames, and accept it."""
        self.hear(*frames)
        stream = self.core.accept()
        assert stream is not None
        return stream

    def opened(self, first: bytes = b"") -> CoreStream:
        """Open a stream that the peer has heard of."""
        stream = self.core.open(eager=True)
        if first:
            stream.write(first)
        self.flush()
        return stream

    def check_echo(self, stream: CoreStream) -> None:
        """Check that another stream works both ways, as if nothing had happened."""
        self.hear(data(stream.stream_id, b"echo"))
        assert stream.read(100) == b"echo"
        stream.write(b"echo")
        assert f"DATA {stream.stream_id} 4" in self.said()
        assert self.core.reason is None
