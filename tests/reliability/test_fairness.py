"""Streams that want all there is share it fairly, and keep no other stream waiting.

What waits is told in bytes that went first, and not in time, so that a busy machine changes
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

import pytest

import muxado
from muxado import Session, Stream
from tests.patience import patience

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_complaints")]

LOCAL = "127.0.0.1"
BLOCK = bytes(64 * 1024)
BULK = 64
MIB = 1024 * 1024
MESSAGES = 30


class Sink:
    """A server that counts what comes on each stream that begins with a block."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.session: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self.arrived: asyncio.Queue[int] = asyncio.Queue()  # bytes of all when a message came

    async def handle(self, session: Session) -> None:
        self.session.set_result(session)
        await session.serve(self.take)

    async def take(self, stream: Stream) -> None:
        first = await stream.read(len(BLOCK))
        if first == b"m":
            while first:
                self.arrived.put_nowait(stream.session.stats().bytes_received)
                first = await stream.read(1)
            return
        number = len(self.counts)
        self.counts.append(len(first))
        while data := await stream.read(1 << 20):
            self.counts[number] += len(data)


@asynccontextmanager
async def busy_session(streams: int) -> AsyncIterator[tuple[Session, Sink]]:
    """Give a session on which so many streams send as fast as they can."""
    sink = Sink()
    async with (
        muxado.serve(sink.handle, LOCAL, 0) as server,
        muxado.connect(*server.addresses[0]) as session,
    ):
        senders = [asyncio.create_task(send(session)) for _ in range(streams)]
        await sink.session
        yield session, sink
        for sender in senders:
            sender.cancel()
        await asyncio.wait(senders)


async def send(session: Session) -> None:
    async with session.open() as stream:
        while True:
            await stream.write(BLOCK)


async def until(session: Session, sink: Sink, total: int) -> None:
    """Wait until so many bytes have come."""
    async with asyncio.timeout(patience(15)):
        while sum(sink.counts) < total:
            await session.ping()


async def test_the_slowest_of_64_bulk_streams_gets_its_share() -> None:
    async with busy_session(BULK) as (session, sink):
        await until(session, sink, 64 * MIB)
        assert len(sink.counts) == BULK
        assert min(sink.counts) > 0.8 * sum(sink.counts) / BULK


async def gone_first(session: Session, sink: Sink, priority: int) -> float:
    """Return how many bytes of the others reach the peer before a message does; the median."""
    waits = []
    async with session.open(priority=priority) as stream:
        for _ in range(MESSAGES):
            before = session.stats().bytes_sent
            await stream.write(b"m")
            async with asyncio.timeout(patience(5)):
                waits.append(await sink.arrived.get() - before)
    return median(waits)


async def test_a_message_of_high_priority_overtakes_bulk() -> None:
    async with busy_session(BULK) as (session, sink):
        await until(session, sink, 16 * MIB)
        usual = await gone_first(session, sink, 0)
        urgent = await gone_first(session, sink, 7)
        # Of the others one frame each goes before a usual message; what has been handed over,
        # and what comes in the same read, before any.
        assert urgent < usual
        assert urgent < MIB
        assert usual < 3 * MIB


async def test_a_stream_of_low_priority_still_moves() -> None:
    async with busy_session(8) as (session, sink):
        await until(session, sink, 4 * MIB)
        async with session.open(priority=-8) as stream:
            low = asyncio.create_task(keep_writing(stream))
            await until(session, sink, sum(sink.counts) + 128 * MIB)
            low.cancel()
            await asyncio.wait([low])
        # One frame in 16, and whatever the others have no credit for.
        assert len(sink.counts) == 9
        assert sink.counts[-1] > sum(sink.counts) / 32


async def keep_writing(stream: Stream) -> None:
    while True:
        await stream.write(BLOCK)
