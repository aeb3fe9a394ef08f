"""Sessions of the other wires, and what their peers put on the wire by hand."""

from __future__ import annotations

import struct

from muxado.config import Config
from muxado.core import CoreSession
from muxado.wire import FORMATS

NOW = 100.0


def session(wire: str, *, client: bool = False, **settings: object) -> CoreSession:
    return CoreSession(client=client, config=Config(wire=wire, **settings), now=NOW)  # type: ignore[arg-type]


def said(core: CoreSession) -> bytes:
    return core.data_to_send(NOW, 1 << 20)


def yamux(kind: int, flags: int, stream_id: int, length: int = 0) -> bytes:
    return struct.pack(">HHII", kind, flags, stream_id, length)


def smux(command: int, stream_id: int, body: bytes = b"", version: int = 2) -> bytes:
    return struct.pack("<BBHI", version, command, len(body), stream_id) + body


def total(stream_id: int, consumed: int, window: int) -> bytes:
    """Return smux's credit: a window beyond the bytes that were consumed."""
    return smux(4, stream_id, struct.pack("<II", consumed, window))


def v1_end(stream_id: int) -> bytes:
    return FORMATS["muxado-v1"].encoder.data_header(stream_id, 0, False, True)


def v1_credit(stream_id: int, increment: int) -> bytes:
    return FORMATS["muxado-v1"].encoder.credit(stream_id, increment)
