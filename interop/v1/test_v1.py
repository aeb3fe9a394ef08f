"""muxado v1 against its Go original, where one is at hand: README.md says how to get one."""

from __future__ import annotations

import asyncio
import os
import random
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, closing
from hashlib import sha256

import pytest
import trio

import muxado
import muxado.sync
import muxado.trio
from muxado import Config, Session

from ..helpers import MIB, cuts, data_of, digest, echo, exchange, running
from ..meeting import HOST, end

pytestmark = pytest.mark.anyio

PEER = os.environ.get("MUXADO_V1_PEER", "")
PROGRAM = os.environ.get("MUXADO_V1_PROGRAM", "")
ROLES = [role for role, given in (("client", PEER), ("server", PROGRAM)) if given]
CONFIG = Config(wire="muxado-v1")

# What a stream's type asks of Go.
ECHO, SLOW, HOLD, OPEN, GO_AWAY, CLOSE = range(6)

if not ROLES:
    pytest.skip("no peer of v1 is given: see interop/v1/README.md", allow_module_level=True)

Meet = Callable[[], Awaitable[Session]]


def address() -> tuple[str, int]:
    host, _, port = PEER.rpartition(":")
    return host, int(port)


@pytest.fixture(params=ROLES, ids=lambda role: f"we-{role}")
async def session(request: pytest.FixtureRequest, no_tasks_left: None) -> AsyncIterator[Session]:
    """A session with Go; the client dials."""
    async with AsyncExitStack() as stack:
        if request.param == "client":
            session = await muxado.connect(*address(), config=CONFIG)
        else:
            async with muxado.listen(HOST, 0, config=CONFIG) as listener:
                where = "{}:{}".format(*listener.addresses[0])
                program = await asyncio.create_subprocess_exec(PROGRAM, "-dial", where)
                stack.push_async_callback(program.wait)
                stack.callback(program.kill)  # Go's Wait() does not return after its own Close()
                session = await listener.accept()
        stack.push_async_callback(end, session)
        yield session


async def ask_to_open(session: Session, count: int, size: int, type: int = ECHO) -> bytes:
    """Have Go open streams, and return its verdict."""
    async with session.open(type=OPEN) as stream:
        await stream.write(struct.pack(">III", count, size, type))
        return await stream.read()


@pytest.mark.patience(60)
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_537, MIB, 64 * MIB])
async def test_go_echoes(session: Session, size: int) -> None:
    await exchange(session, data_of(size))
    assert session.stats().streams == 0


@pytest.mark.patience(60)
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_537, 16 * MIB])
async def test_we_echo(session: Session, size: int) -> None:
    async with running(session.serve(echo)):
        assert await ask_to_open(session, 1, size) == b"good"


@pytest.mark.patience(60)
async def test_a_thousand_streams_at_once_both_ways(session: Session) -> None:
    rng = random.Random(1)

    async def one(number: int) -> None:
        data = data_of(rng.choice([0, 1, 1000, 70_000]), number)
        async with session.open(priority=rng.randint(-8, 7)) as stream:
            back = asyncio.create_task(digest(stream))
            for piece in cuts(data, rng):
                await stream.write(piece)
                await asyncio.sleep(rng.choice([0, 0.001]))
            stream.write_eof()
            assert await back == (len(data), sha256(data).hexdigest())

    async with running(session.serve(echo)):
        theirs = asyncio.create_task(ask_to_open(session, 1000, 5000))
        await asyncio.gather(*[one(number) for number in range(1000)])
        assert await theirs == b"good"


async def test_types_and_priorities_arrive(session: Session) -> None:
    async with running(ask_to_open(session, 8, 10, type=7)) as asked:
        seen = set()
        for _ in range(8):
            stream = await session.accept()
            seen.add((stream.type, stream.peer_priority))
            await echo(stream)
            stream.close()
        assert await asked == b"good"
    assert seen == {(7, priority) for priority in range(8)}


async def test_a_slow_reader_gets_it_all(session: Session) -> None:
    data = data_of(2 * MIB)
    async with session.open(type=SLOW) as stream:
        await stream.write(data)
        stream.write_eof()
        assert await stream.read() == sha256(data).digest()


async def test_a_reset_of_ours_frees_the_stream_and_nothing_else(session: Session) -> None:
    stream = session.open()
    await stream.write(b"x")
    assert await stream.readexactly(1) == b"x"
    stream.reset()
    await session.ping()
    await exchange(session, data_of(100_000))


async def test_a_refusal_of_ours(session: Session) -> None:
    """Nothing accepts here, and then it does: Go's streams wait, and none is lost."""
    async with running(ask_to_open(session, 300, 100)) as asked:
        await session.ping()
        async with running(session.serve(echo)):
            assert await asked == b"good"


async def test_a_drain_of_gos_lets_open_streams_end(session: Session) -> None:
    other = session.open()
    await other.write(b"before")
    assert await other.readexactly(6) == b"before"
    async with session.open(type=GO_AWAY) as stream:
        await stream.write(b"question")
        stream.write_eof()
        assert await stream.read() == b"question"
    await other.write(b"after")
    other.write_eof()
    assert await other.read() == b"after"
    other.close()
    with pytest.raises(muxado.PeerGone):
        session.open()


async def test_a_close_of_ours_loses_nothing(session: Session) -> None:
    """Go reads what it has been sent, since the end waits for its credit."""
    data = data_of(MIB)
    async with session.open(type=SLOW) as stream:
        await stream.write(data)
        stream.write_eof()
    session.close()
    reason = await session.wait_closed()
    assert reason.clean, reason


async def test_a_close_of_gos_that_cuts_a_stream_is_not_clean(session: Session) -> None:
    async with session.open(type=HOLD) as stream, running(stream.read()) as reading:
        await stream.write(b"x")
        await session.ping()
        async with session.open(type=CLOSE) as order:
            await order.write(b"now")
            reason = await session.wait_closed()
        with pytest.raises(muxado.MuxadoError):
            await reading
    assert not reason.clean


@pytest.mark.patience(40)
async def test_an_idle_session_outlives_gos_heartbeat(session: Session) -> None:
    await asyncio.sleep(15)  # Go gives a peer up that has not echoed for 13
    await exchange(session, b"still there")


SIZES = [0, 1, 65_537, MIB]
if "client" in ROLES:

    def test_threads() -> None:
        def one(stream: muxado.sync.Stream, data: bytes) -> None:
            with closing(stream), ThreadPoolExecutor(1) as pool:
                sending = pool.submit(stream.sendall, data)
                received = b""
                while len(received) < len(data):
                    received += stream.recv(65536)
                sending.result()
                stream.write_eof()
                assert received == data
                assert stream.recv(1) == b""

        with muxado.sync.connect(*address(), config=CONFIG) as session:
            for size in SIZES:
                one(session.open(), data_of(size))
            with ThreadPoolExecutor(50) as pool:
                list(pool.map(lambda n: one(session.open(), data_of(2000, n)), range(200)))

    def test_trio() -> None:
        async def one(session: muxado.trio.Session, data: bytes) -> None:
            async with session.open() as stream, trio.open_nursery() as nursery:

                async def send() -> None:
                    await stream.send_all(data)
                    await stream.send_eof()

                nursery.start_soon(send)
                received = b""
                while chunk := await stream.receive_some(65536):
                    received += chunk
                assert received == data

        async def main() -> None:
            async with muxado.trio.connect(*address(), config=CONFIG) as session:
                for size in SIZES:
                    await one(session, data_of(size))
                async with trio.open_nursery() as nursery:
                    for number in range(200):
                        nursery.start_soon(one, session, data_of(2000, number))

        trio.run(main)
