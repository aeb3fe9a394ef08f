"""No two ends wait for each other: every transfer that can go on does."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

import muxado
from muxado import Config, ErrorCode, Session, Stream
from muxado.wire import MUXADO_V2
from muxado.wire.codec import DATA
from tests.patience import patience

from ..fixtures import NewPair, new_pair, session_pair
from ..frames import FrameReader
from ..helpers import echo, opened, running
from ..transports import Connect, Ends, over_tcp, over_tls
from .narrow import NarrowPipe

__all__ = ["new_pair", "session_pair"]

pytestmark = pytest.mark.anyio

KIB = 1024
MIB = 1024 * KIB
SMALL: dict[str, Any] = {
    "initial_window": 16 * KIB,
    "max_window": 64 * KIB,
    "write_high_water": 8 * KIB,
}


@pytest.fixture(params=[over_tcp, over_tls], ids=["plain", "tls"])
def transport(request: pytest.FixtureRequest) -> Connect:
    connect: Connect = request.param
    return connect


@pytest.fixture(autouse=True)
async def watched(no_complaints: None) -> None:
    """Every test here fails if the event loop has something to complain about."""


async def send(stream: Stream, data: bytes, seed: int) -> None:
    """Write in pieces of random sizes, and the end after them."""
    sizes = random.Random(seed)
    start = 0
    while start < len(data):
        end = start + sizes.choice([1, 100, 5000, 70_000])
        await stream.write(data[start:end])
        start = end
    stream.write_eof()


async def receive(stream: Stream, seed: int) -> bytes:
    """Read in pieces of random sizes to the end; return the digest."""
    sizes = random.Random(seed)
    digest = hashlib.sha256()
    while data := await stream.read(sizes.choice([1, 100, 5000, 70_000])):
        digest.update(data)
    return digest.digest()


async def settled(ends: Ends) -> None:
    """Wait until all that can be sent while neither end reads has been."""
    before = -1
    while before != (before := sum(session.stats().bytes_received for session in ends)):
        for session in ends:
            await session.ping()


@pytest.mark.parametrize("streams", [1, 8])
async def test_both_ends_write_with_full_windows_and_read_later(
    new_pair: NewPair, streams: int
) -> None:
    ends = await new_pair(**SMALL)
    data = random.Random(1).randbytes(MIB // streams)
    expected = hashlib.sha256(data).digest()
    async with asyncio.TaskGroup() as group:
        pairs = []
        for _ in range(streams):
            stream = ends.client.open(eager=True)
            pairs.append((stream, await ends.server.accept()))
        writers = [group.create_task(send(end, data, 2)) for pair in pairs for end in pair]
        await settled(ends)
        assert [writer.done() for writer in writers] == [False] * len(writers)
        readers = [group.create_task(receive(end, 3)) for pair in pairs for end in pair]
    assert [reader.result() for reader in readers] == [expected] * len(readers)
    for session in ends:
        assert session.stats().streams == session.stats().memory_held == 0


async def test_one_unread_stream_stalls_none_of_99_others(new_pair: NewPair) -> None:
    ends = await new_pair(**SMALL)
    data = random.Random(4).randbytes(100 * KIB)
    async with opened(*ends) as (stuck, unread), running(send(stuck, data, 5)) as sending:
        await settled(ends)
        assert unread.session.stats().memory_held == SMALL["initial_window"]

        async def ask() -> None:
            async with ends.client.open() as stream, asyncio.TaskGroup() as group:
                group.create_task(send(stream, data, 6))
                answer = group.create_task(receive(stream, 7))
            assert answer.result() == hashlib.sha256(data).digest()

        async with running(ends.server.serve(echo)), asyncio.TaskGroup() as group:
            for _ in range(99):
                group.create_task(ask())
        assert not sending.done()
        assert unread.session.stats().memory_held == SMALL["initial_window"]
        assert await unread.read() == data


async def test_writer_and_reader_race_on_one_stream(new_pair: NewPair) -> None:
    ends = await new_pair(**SMALL)
    there, back = (random.Random(seed).randbytes(2 * MIB) for seed in (8, 9))
    async with opened(*ends) as (stream, other), asyncio.TaskGroup() as group:
        group.create_task(send(stream, there, 10))
        group.create_task(send(other, back, 11))
        arrived = [group.create_task(receive(end, 12)) for end in (other, stream)]
    for task, data in zip(arrived, (there, back), strict=True):
        assert task.result() == hashlib.sha256(data).digest()


async def test_writes_that_time_out_leave_no_byte_behind(new_pair: NewPair) -> None:
    ends = await new_pair(**SMALL)
    pieces = random.Random(13)
    async with opened(*ends) as (stream, other):
        accepted = bytearray()
        refused = 0

        async def slowly() -> bytes:
            arrived = bytearray()
            while data := await other.read(20_000):
                arrived += data
                await asyncio.sleep(0.002)  # slower than the writer's patience
            return bytes(arrived)

        async with running(slowly()) as reading:
            for number in range(300):
                piece = bytes([number % 256]) * pieces.randrange(1, 10_000)
                try:
                    async with asyncio.timeout(pieces.choice([0, 0.001, 1])):
                        await stream.write(piece)
                except TimeoutError:
                    refused += 1
                else:
                    accepted += piece
            stream.write_eof()
            assert await reading == accepted
        assert 10 < refused < 290


@pytest.mark.parametrize("unread", [True, False], ids=["unread", "read"])
async def test_a_writer_stalled_on_a_stream_that_the_peer_closes(
    new_pair: NewPair, unread: bool
) -> None:
    ends = await new_pair(**SMALL)
    async with opened(*ends) as (stream, other), running(send(stream, b"." * MIB, 14)) as sending:
        await settled(ends)
        if not unread:
            await other.readexactly(SMALL["initial_window"])
        assert not sending.done()
        other.close()
        with pytest.raises(muxado.StreamReset) as caught:
            await sending
        assert caught.value.code == ErrorCode.STREAM_CLOSED
    assert ends.client.stats().bytes_queued == 0


# A pipe of 1 KiB


@pytest.fixture
async def narrow(no_tasks_left: None) -> AsyncIterator[tuple[Session, Session]]:
    there, back = NarrowPipe(KIB), NarrowPipe(KIB)
    config = Config(ping_interval=0.02, ping_timeout=patience(5))
    ends = muxado.client(back, there, config=config), muxado.server(there, back, config=config)
    yield ends
    for session in ends:
        session.close()
    for session in ends:
        await session.wait_closed()
    assert KIB - 8 <= there.most <= KIB
    assert KIB - 8 <= back.most <= KIB


async def test_duplex_echo_over_a_pipe_of_1_kib_with_pings(
    narrow: tuple[Session, Session],
) -> None:
    client, server = narrow
    data = random.Random(15).randbytes(150 * KIB)

    async def ask(session: Session) -> None:
        async with session.open() as stream, asyncio.TaskGroup() as group:
            group.create_task(send(stream, data, 16))
            answer = group.create_task(receive(stream, 17))
        assert answer.result() == hashlib.sha256(data).digest()

    async def ping(session: Session) -> None:
        while True:
            assert await session.ping() > 0

    async with (
        running(server.serve(echo)),
        running(client.serve(echo)),
        running(ping(client)) as first,
        running(ping(server)) as second,
    ):
        async with asyncio.TaskGroup() as group:
            for session in (client, server, client, server):
                group.create_task(ask(session))
        assert not first.done()
        assert not second.done()


# A peer that closes a stream as Go does


async def test_a_stalled_writer_finds_out_that_go_has_forgotten_the_stream() -> None:
    # Go's close is a FIN and nothing more: it answers what comes later, if anything comes.
    near, far = socket.socketpair()
    far.setblocking(False)
    loop = asyncio.get_running_loop()
    reader = FrameReader()

    async def until_received(stream_id: int, wanted: int) -> None:
        while sum(f.length for f in reader.frames if f.stream_id == stream_id) < wanted:
            reader.feed(await loop.sock_recv(far, 65536))

    config = Config(**SMALL, ping_interval=None)
    window = SMALL["initial_window"]
    async with await muxado.connect(sock=near, config=config) as session:
        stream = session.open()
        async with running(send(stream, b"." * MIB, 18)) as sending:
            await until_received(stream.id, window)
            await loop.sock_sendall(far, MUXADO_V2.encoder.data_header(stream.id, 0, False, True))
            # One probe may be lost on the way into a stream that is just being closed.
            for _ in range(2):
                seen = len(reader.frames)
                while not any(
                    frame.kind == DATA and frame.stream_id == stream.id and not frame.length
                    for frame in reader.frames[seen:]
                ):
                    reader.feed(await loop.sock_recv(far, 65536))
                assert not sending.done()
            await loop.sock_sendall(far, MUXADO_V2.encoder.reset(stream.id, 4))
            with pytest.raises(muxado.StreamReset) as caught:
                await sending
            assert caught.value.code == ErrorCode.STREAM_CLOSED
        session.abort()
    far.close()
