"""What a transport can change of a session, over each transport and event loop.

The rest of what sessions and streams promise is the same over all of them: `tests/contract`,
`test_session.py`, `test_stream.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

import muxado
from muxado import ErrorCode, Session, Stream

from ..fixtures import NewPair
from ..helpers import cancel, echo, exchange, opened, running
from ..transports import Ends

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


async def test_streams_of_either_side_carry_bytes_both_ways(session_pair: Ends) -> None:
    client, server = session_pair
    for near, far in ((client, server), (server, client)):
        async with opened(near, far) as (stream, other):
            assert stream.id == other.id
            await stream.write(b"question")
            assert await other.read(100) == b"question"
            await other.write(b"answer")
            assert await stream.read(100) == b"answer"


async def test_big_transfers_go_both_ways_at_once(session_pair: Ends) -> None:
    client, server = session_pair
    random.seed(1)
    there, back = random.randbytes(2 * MIB), random.randbytes(2 * MIB)

    async def send(stream: Stream, data: bytes) -> None:
        for start in range(0, len(data), 100_000):
            await stream.write(data[start : start + 100_000])
        stream.write_eof()

    async def digest(stream: Stream) -> bytes:
        checksum = hashlib.sha256()
        while data := await stream.read(100_000):
            checksum.update(data)
        return checksum.digest()

    async with opened(client, server) as (stream, other), asyncio.TaskGroup() as group:
        group.create_task(send(stream, there))
        group.create_task(send(other, back))
        arrived_there = group.create_task(digest(other))
        arrived_back = group.create_task(digest(stream))
    assert arrived_there.result() == hashlib.sha256(there).digest()
    assert arrived_back.result() == hashlib.sha256(back).digest()


async def test_many_streams_at_once(session_pair: Ends) -> None:
    client, server = session_pair

    async def ask(session: Session, number: int) -> None:
        request = str(number).encode() * 1000
        async with session.open() as stream:
            assert await exchange(stream, request) == request

    async with (
        running(server.serve(echo)),
        running(client.serve(echo)),
        asyncio.TaskGroup() as group,
    ):
        for number in range(100):
            group.create_task(ask(client, number))
            group.create_task(ask(server, number))


async def test_what_was_written_before_close_arrives_whole(session_pair: Ends) -> None:
    client, server = session_pair
    data = random.Random(2).randbytes(MIB)
    stream = client.open()
    await stream.write(data)
    stream.close()
    with pytest.raises(muxado.StreamClosed):
        await stream.write(b"x")
    async with await server.accept() as other:
        arrived = b""
        while piece := await other.read(10_000):
            arrived += piece
    assert arrived == data


async def test_shutdown_waits_for_the_streams_there_are(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        queued = client.open(eager=True)
        await client.ping()
        async with running(server.shutdown()) as ending:
            await server.ping()
            with pytest.raises(muxado.SessionClosed):
                server.open()
            with pytest.raises(muxado.PeerGone):
                client.open()
            async with await server.accept() as accepted:
                assert accepted.id == queued.id
                await accepted.write(b"late, but in time")
            assert await queued.read() == b"late, but in time"
            queued.close()
            await other.write(b"goes on")
            assert await stream.read(100) == b"goes on"
            assert not ending.done()
            stream.close()
            assert await other.read() == b""
            other.close()
            await ending
    await client.wait_closed()
    for session in session_pair:
        assert session.close_reason is not None
        assert session.close_reason.clean


async def test_shutdown_aborts_when_its_time_is_up(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        await server.shutdown(0.05)
        assert server.closed
        with pytest.raises(muxado.SessionClosed):
            await other.read()
        with pytest.raises(muxado.SessionError):
            await stream.read()


async def test_shutdown_of_a_session_without_streams_is_quick(new_pair: NewPair) -> None:
    client, server = await new_pair(close_timeout=1000)
    other, _ = await new_pair()
    async with running(client.shutdown(None)) as ending:
        # It takes a few round trips, however long those of this machine are.
        rounds = 0
        while not ending.done():
            await other.ping()
            rounds += 1
        await ending
    assert rounds < 50
    await server.wait_closed()
    await client.shutdown()


async def test_close_delivers_what_was_written_to_a_slow_reader(session_pair: Ends) -> None:
    client, server = session_pair
    data = random.Random(3).randbytes(MIB)
    stream = client.open()
    await stream.write(data)
    stream.write_eof()
    client.close()
    async with running(client.wait_closed()) as closing, await server.accept() as other:
        arrived = b""
        while piece := await other.read(10_000):
            arrived += piece
        assert arrived == data
        await closing


async def test_close_without_eof_is_an_error_after_the_data(session_pair: Ends) -> None:
    client, server = session_pair
    stream = client.open()
    await stream.write(b"half a message")
    client.close()
    async with await server.accept() as other:
        assert await other.readexactly(14) == b"half a message"
        with pytest.raises(muxado.SessionClosed):
            await other.read()


async def test_both_sides_may_close_at_once(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        await stream.write(b"x")
        await other.write(b"y")
        client.close()
        server.close()
    await client.wait_closed()
    await server.wait_closed()


async def test_abort_ends_both_sides_with_its_code(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        async with running(stream.read()) as here, running(other.read()) as there:
            await client.ping()
            client.abort(99)
            with pytest.raises(muxado.SessionClosed):
                await here
            with pytest.raises(muxado.SessionAborted) as caught:
                await there
        assert caught.value.code == 99
        assert caught.value.reason is server.close_reason
        with pytest.raises(muxado.SessionClosed):
            await stream.write(b"x")
        with pytest.raises(muxado.SessionAborted):
            await other.write(b"x")
        with pytest.raises(muxado.SessionAborted):
            await anext(server)
    await client.wait_closed()
    await server.wait_closed()


async def test_leaving_a_session_normally_closes_it(session_pair: Ends) -> None:
    client, server = session_pair
    async with client, client.open() as stream:
        await stream.write(b"last words")
    assert client.closed
    async with await server.accept() as other:
        assert await other.read() == b"last words"
    await server.wait_closed()
    assert server.close_reason is not None
    assert server.close_reason.clean


async def test_leaving_a_session_by_an_exception_aborts_it(session_pair: Ends) -> None:
    client, server = session_pair
    with pytest.raises(ZeroDivisionError):
        async with client:
            raise ZeroDivisionError
    await server.wait_closed()
    assert server.close_reason is not None
    assert server.close_reason.code == ErrorCode.INTERNAL_ERROR


async def test_leaving_a_session_by_cancellation_aborts_it(session_pair: Ends) -> None:
    client, server = session_pair

    async def hang() -> None:
        async with client, client.open() as stream:
            await stream.read()

    async with running(hang()) as hanging, await server.accept() as other:
        await cancel(hanging)
        assert client.closed
        with pytest.raises(ConnectionError):
            await other.read()
        await server.wait_closed()


async def test_a_burst_of_streams_gives_the_application_its_turn(new_pair: NewPair) -> None:
    client, server = await new_pair(accept_backlog=8)

    async def ask() -> bytes:
        async with client.open() as stream:
            return await exchange(stream, b"x")

    async with running(server.serve(echo)):
        await server.ping()  # it waits for streams by now
        assert await asyncio.gather(*[ask() for _ in range(12)]) == [b"x"] * 12
    assert server.stats().refusals == 0


async def test_ping_gives_the_round_trip(session_pair: Ends) -> None:
    for session in session_pair:
        first, second = await asyncio.gather(session.ping(), session.ping())
        assert 0 < first < 5
        assert 0 < second < 5
        assert session.stats().rtt > 0
