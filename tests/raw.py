"""A peer that is no session: frames by the byte, over a socket of asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import muxado
from muxado import Config, Session

from .transports import connected_pairs

RST, DATA, WNDINC, GOAWAY = range(4)
FIN, SYN = 1, 2
PING = bytes.fromhex("00000010 00000001")


class Frame(NamedTuple):
    """A frame as it is on the wire."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes = b""


def packed(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return a frame's bytes."""
    word = len(payload) << 8 | kind << 4 | flags
    return word.to_bytes(4, "big") + stream_id.to_bytes(4, "big") + payload


def go_away(code: int, last_id: int = 0) -> bytes:
    return packed(GOAWAY, 0, 0, last_id.to_bytes(4, "big") + code.to_bytes(4, "big"))


def reset(stream_id: int, code: int) -> bytes:
    return packed(RST, 0, stream_id, code.to_bytes(4, "big"))


class Raw:
    """The peer's end of the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))
        await self.writer.drain()

    async def frame(self) -> Frame:
        """Return the next frame that is not a ping."""
        while True:
            header = await self.reader.readexactly(8)
            if header != PING:
                break
        word = int.from_bytes(header[:4], "big")
        payload = await self.reader.readexactly(word >> 8)
        return Frame(word >> 4 & 0xF, word & 0xF, int.from_bytes(header[4:], "big"), payload)

    async def end(self) -> bytes:
        """Return everything up to the end of the connection."""
        rest = b""
        try:
            while data := await self.reader.read(65536):
                rest += data
        except ConnectionError:
            pass
        return rest


@asynccontextmanager
async def raw_peer(client: bool = True, **settings: Any) -> AsyncIterator[tuple[Session, Raw]]:
    """Give a session, the client's or the server's, and what it is connected to."""
    async with connected_pairs() as (near, far):
        over = muxado.client if client else muxado.server
        session = over(*near, config=Config(**settings))
        try:
            yield session, Raw(*far)
        finally:
            session.abort()
            await session.wait_closed()
            far[1].transport.abort()
