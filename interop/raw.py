"""A connection on which a test says by hand what our library never would."""

from __future__ import annotations

import asyncio
import struct
from typing import NamedTuple

FIN, SYN = 1, 2
RST, DATA, WNDINC, GOAWAY = range(4)


class Frame(NamedTuple):
    """A frame as it came."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return struct.pack(">II", len(payload) << 8 | kind << 4 | flags, stream_id) + payload


def data(stream_id: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return frame(DATA, flags, stream_id, payload)


def credit(stream_id: int, increment: int) -> bytes:
    return frame(WNDINC, 0, stream_id, struct.pack(">I", increment))


def go_away(last_id: int, code: int = 0, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_id, code) + debug)


class Raw:
    """One end of a muxado connection, by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, *frames: bytes) -> None:
        """Send frames, all in one piece."""
        self._writer.write(b"".join(frames))

    async def next(self) -> Frame | None:
        """Return the next frame, None at the connection's end."""
        try:
            word, stream_id = struct.unpack(">II", await self._reader.readexactly(8))
            payload = await self._reader.readexactly(word >> 8)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return Frame(word >> 4 & 0xF, word & 0xF, stream_id, payload)

    async def wait_for(self, kind: int, stream_id: int) -> Frame:
        """Drop frames until such a one comes."""
        while (came := await self.next()) is not None:
            if (came.kind, came.stream_id) == (kind, stream_id):
                return came
        raise AssertionError(f"the connection ended before a frame {kind} for {stream_id}")

    async def reset_code(self, stream_id: int) -> int:
        """Wait for a RST of that stream; return its code."""
        return int.from_bytes((await self.wait_for(RST, stream_id)).payload, "big")

    async def goaway(self) -> tuple[int, int]:
        """Wait for a GOAWAY; return its last stream id and its code."""
        last_id, code = struct.unpack_from(">II", (await self.wait_for(GOAWAY, 0)).payload)
        return last_id, code

    async def ping(self) -> None:
        """Wait until everything sent so far has been handled."""
        self.send(data(1))
        assert await self.reset_code(1) == 4

    def close(self) -> None:
        self._writer.transport.abort()
