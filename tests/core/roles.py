"""A bench for both roles: a test of a server runs as one of a client too.

Seen from the other role every stream id is one higher: the peer's odd ones become even, and
this side's even ones odd. So a test speaks of a server's ids only.
"""

from __future__ import annotations

import struct

from muxado.config import Config
from muxado.core import CoreStream
from muxado.wire.codec import GO_AWAY
from tests import inside

from ..frames import Frame
from .peer import Bench, data

LAST_ID = 0x7FFFFFFF
GO_AWAY_ON_WIRE = 3
HEADER = 8


def shifted(stream_id: int) -> int:
    """Return what a server's id is for a client; 0 and the ping's have no counterpart."""
    if stream_id == LAST_ID:
        return LAST_ID - 1
    return stream_id if stream_id <= 1 else stream_id + 1


class Shifter:
    """Shifts the ids in what a peer sends, whose bodies may be cut anywhere."""

    def __init__(self) -> None:
        self._body = 0

    def __call__(self, wire: bytes) -> bytes:
        out = bytearray(wire)
        at = self._body
        while at + HEADER <= len(out):
            word, stream_id = struct.unpack_from(">II", out, at)
            struct.pack_into(">I", out, at + 4, shifted(stream_id))
            at += HEADER
            if word >> 4 & 0xF == GO_AWAY_ON_WIRE and at + 4 <= len(out):
                (last_id,) = struct.unpack_from(">I", out, at)
                struct.pack_into(">I", out, at, shifted(last_id))
            at += word >> 8
        self._body = max(0, at - len(out))
        return bytes(out)


class RoleBench(Bench):
    """A session in either role, for a test that speaks of a server's ids.

    Attributes:
        shift: turns what such a peer sends into what this one does.
    """

    def __init__(self, config: Config | None = None, *, client: bool) -> None:
        super().__init__(config, client=client)
        self.client = client
        self.shift = Shifter() if client else bytes

    def hear(self, *frames: bytes) -> None:
        super().hear(*map(self.shift, frames))

    def take(self, wire: bytes) -> None:
        """Have the peer send bytes, and no turn pass after them."""
        self.core.receive_data(self.shift(wire), self.now)

    def frames(self) -> list[Frame]:
        frames = super().frames()
        for frame in frames:
            frame.stream_id = self.seen(frame.stream_id)
            if frame.kind == GO_AWAY:
                frame.value = self.seen(frame.value)
        return frames

    def seen(self, stream_id: int) -> int:
        """Return the id by which the test knows a stream."""
        return stream_id - 1 if self.client and stream_id > 1 else stream_id

    def id_of(self, stream: CoreStream) -> int:
        """Return the id by which the test knows a stream."""
        return self.seen(stream.stream_id)

    def waiting(self) -> list[int]:
        """Return the ids of the streams in the accept queue."""
        return [self.seen(stream_id) for stream_id in inside.accept_queue(self.core)]

    def check_echo(self, stream: CoreStream) -> None:
        self.hear(data(self.id_of(stream), b"echo"))
        assert stream.read(100) == b"echo"
        stream.write(b"echo")
        assert f"DATA {self.id_of(stream)} 4" in self.said()
        assert self.core.reason is None
