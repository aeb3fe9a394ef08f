"""What asyncio's streams promise beyond the contract of all front ends."""

from __future__ import annotations

import asyncio

import pytest

import muxado
from muxado import ErrorCode, Stream

from ..fixtures import NewPair
from ..helpers import cancel, exchange, opened, running
from ..transports import Connect, Ends, over_tcp

pytestmark = pytest.mark.anyio

SMALL = {"initial_window": 1000, "max_window": 1000, "write_high_water": 500}


@pytest.fixture
def transport() -> Connect:
    return over_tcp


async def test_a_reply_can_follow_the_end_of_the_request(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        await stream.write(b"all of it")
        stream.write_eof()
        assert await other.read() == b"all of it"
        assert other.at_eof()
        await other.write(b"and back")
        other.write_eof()
        assert await stream.read() == b"and back"


async def test_a_write_waits_for_the_reader(new_pair: NewPair) -> None:
    client, server = await new_pair(**SMALL)
    async with opened(client, server) as (stream, other):
        await stream.write(b"a" * 1500)  # the window's worth goes, the rest is queued
        async with running(stream.write(b"b")) as writing:
            await client.ping()
            assert not writing.done()
            assert await other.readexactly(1000) == b"a" * 1000
            await writing
            assert await other.readexactly(501) == b"a" * 500 + b"b"


async def test_a_cancelled_write_has_queued_nothing(new_pair: NewPair) -> None:
    client, server = await new_pair(**SMALL)
    async with opened(client, server) as (stream, other):
        await stream.write(b"a" * 1500)
        async with running(stream.write(b"b" * 100)) as writing:
            await client.ping()
            await cancel(writing)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await stream.write(b"c" * 100)
        async with running(exchange(stream, b"d")) as finishing:
            assert await other.read() == b"a" * 1500 + b"d"
            other.write_eof()
            assert await finishing == b""


async def test_a_reset_carries_its_code_either_way(session_pair: Ends) -> None:
    client, server = session_pair
    for near, far in ((client, server), (server, client)):
        async with opened(near, far) as (stream, other):
            async with running(other.read()) as reading:
                stream.reset(77)
                with pytest.raises(muxado.StreamReset) as caught:
                    await reading
            assert (caught.value.code, caught.value.by_peer) == (77, True)
            with pytest.raises(muxado.StreamReset) as caught:
                await other.write(b"x")
            assert (caught.value.code, caught.value.by_peer) == (77, True)
            for call in (stream.read(1), stream.write(b"x")):
                with pytest.raises(muxado.StreamReset) as caught:
                    await call
                assert (caught.value.code, caught.value.by_peer) == (77, False)


async def test_a_reset_of_an_accepted_stream_reaches_its_opener(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        other.reset()
        assert await stream.wait_reset() == ErrorCode.STREAM_CANCELLED
        with pytest.raises(muxado.StreamReset):
            await stream.read(1)


async def test_wait_reset_gives_the_code_to_both_sides(session_pair: Ends) -> None:
    client, server = session_pair
    async with (
        opened(client, server) as (stream, other),
        running(other.wait_reset()) as there,
        running(stream.wait_reset()) as here,
    ):
        await client.ping()
        assert not there.done()
        stream.reset(9999)
        assert await there == 9999
        assert await here == 9999


async def test_wait_reset_gives_none_after_an_orderly_end(session_pair: Ends) -> None:
    client, server = session_pair
    async with (
        opened(client, server) as (stream, other),
        running(stream.wait_reset()) as here,
        running(other.wait_reset()) as there,
    ):
        stream.write_eof()
        assert await other.read() == b""
        other.write_eof()
        assert await stream.read() == b""
        assert await here is None
        assert await there is None


async def test_wait_closed_waits_for_the_fin_and_not_for_the_peers(new_pair: NewPair) -> None:
    client, server = await new_pair(**SMALL)
    async with opened(client, server) as (stream, other):
        await stream.write(b"a" * 2000)
        stream.write_eof()
        async with running(stream.wait_closed()) as waiting:
            await client.ping()
            assert not waiting.done()
            assert await other.readexactly(2000) == b"a" * 2000
            await waiting
        assert not stream.at_eof()
        assert await other.read() == b""


async def test_wait_closed_returns_when_the_stream_fails(new_pair: NewPair) -> None:
    client, server = await new_pair(**SMALL)
    async with opened(client, server) as (stream, other):
        await stream.write(b"a" * 2000)
        stream.write_eof()
        async with running(stream.wait_closed()) as waiting:
            await client.ping()
            other.reset()
            await waiting


async def test_a_writer_to_a_closed_stream_does_not_hang(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        await stream.write(b"unread")
        assert await other.read(1) == b"u"
        other.close()
        with pytest.raises(muxado.StreamReset) as caught:
            await write_on(stream)
        assert caught.value.code == ErrorCode.STREAM_CLOSED


async def write_on(stream: Stream) -> None:
    while True:
        await stream.write(b"x" * 10_000)


async def test_leaving_a_stream_normally_closes_it(session_pair: Ends) -> None:
    client, server = session_pair
    async with client.open() as stream:
        await stream.write(b"short")
    assert stream.is_closing()
    async with await server.accept() as other:
        assert await other.read() == b"short"


async def test_leaving_a_stream_waits_for_what_the_window_does_not_let_out(
    new_pair: NewPair,
) -> None:
    client, server = await new_pair(**SMALL)

    async def send() -> None:
        async with client.open() as stream:
            await stream.write(b"a" * 2500)

    async with running(send()) as sending, await server.accept() as other:
        await client.ping()
        assert not sending.done()
        assert await other.read() == b"a" * 2500
        await sending


async def test_leaving_a_stream_by_an_exception_resets_it(session_pair: Ends) -> None:
    client, server = session_pair

    async def fail() -> None:
        async with client.open() as stream:
            await stream.readline()
            raise ZeroDivisionError

    async with running(fail()) as failing, await server.accept() as other:
        await other.write(b"now\n")
        with pytest.raises(ZeroDivisionError):
            await failing
        assert await other.wait_reset() == ErrorCode.INTERNAL_ERROR


async def test_leaving_a_stream_by_cancellation_resets_it(session_pair: Ends) -> None:
    client, server = session_pair

    async def hang() -> None:
        async with client.open() as stream:
            await stream.read()

    async with running(hang()) as hanging, await server.accept() as other:
        await cancel(hanging)
        assert await other.wait_reset() == ErrorCode.STREAM_CANCELLED


async def test_cancelled_while_leaving_a_stream_resets_it(new_pair: NewPair) -> None:
    client, server = await new_pair(**SMALL)

    async def send() -> None:
        async with client.open() as stream:
            await stream.write(b"a" * 2500)

    async with running(send()) as sending, await server.accept() as other:
        await client.ping()
        await cancel(sending)
        assert await other.wait_reset() == ErrorCode.STREAM_CANCELLED


async def test_ending_a_stream_again_is_harmless(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        await stream.write(b"x")
        for _ in range(2):
            stream.write_eof()
        for _ in range(2):
            stream.close()
            await stream.wait_closed()
        stream.write_eof()
        stream.reset()
        stream.reset(8)
        stream.close()
        assert await other.read() == b"x"


async def test_a_repr_tells_the_state(session_pair: Ends) -> None:
    client, server = session_pair
    assert repr(client).startswith("<Session client open ")
    assert repr(server).startswith("<Session server open ")
    async with opened(client, server) as (stream, other):
        assert "streams=1" in repr(client)
        assert repr(stream) == f"<Stream {stream.id} open unread=0 queued=0>"
        await stream.write(b"abc")
        assert "queued=3" in repr(stream)
        assert await other.read(1) == b"a"
        assert "unread=2" in repr(other)
        stream.write_eof()
        await stream.wait_closed()
        assert "local-done" in repr(stream)
        other.reset()
        assert "closed" in repr(other)
    client.close()
    assert "closing" in repr(client)
    await client.wait_closed()
    assert "closed" in repr(client)


async def test_priority_can_be_set_on_both_ends(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server, priority=3) as (stream, other):
        assert (stream.priority, other.priority) == (3, 0)
        other.priority = -8
        assert other.priority == -8
        for wrong in (-9, 8):
            with pytest.raises(muxado.UsageError):
                other.priority = wrong
            with pytest.raises(muxado.UsageError):
                client.open(priority=wrong)
