"""What asyncio's sessions promise beyond the contract of all front ends."""

from __future__ import annotations

import asyncio

import pytest

import muxado
from muxado import ErrorCode, Stream

from ..fixtures import NewPair
from ..helpers import cancel, opened, running
from ..transports import Connect, Ends, over_tcp

pytestmark = pytest.mark.anyio


@pytest.fixture
def transport() -> Connect:
    return over_tcp


async def test_a_stream_is_announced_by_what_is_done_with_it(session_pair: Ends) -> None:
    client, server = session_pair
    async with client.open() as stream:
        await stream.write(b"1")
        async with await server.accept() as other:
            assert await other.read(1) == b"1"
    async with client.open() as stream:
        stream.write_eof()
        async with await server.accept() as other:
            assert await other.read() == b""
    async with (
        client.open() as stream,
        running(stream.read(1)) as reading,
        await server.accept() as other,
    ):
        await other.write(b"2")
        assert await reading == b"2"


async def test_a_stream_that_was_never_announced_ends_in_silence(session_pair: Ends) -> None:
    client, server = session_pair
    await client.ping()
    await server.ping()
    heard = server.stats().frames_received
    client.open().close()
    client.open().reset()
    async with client.open():
        pass
    async with client.open() as stream:
        await stream.write(b"")
    await client.ping()
    assert server.stats().frames_received == heard + 1


async def test_wait_reset_raises_when_the_session_ends_first(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        async with running(stream.wait_reset()) as waiting:
            await client.ping()
            server.close()
            with pytest.raises(muxado.SessionClosed):
                await waiting
        with pytest.raises(muxado.SessionClosed):
            await other.wait_reset()


async def test_go_away_stops_new_streams_of_the_peer_only(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        server.go_away(3, b"soon gone")
        unheard = client.open(eager=True)
        assert await unheard.wait_reset() in (
            ErrorCode.STREAM_REFUSED,
            ErrorCode.REMOTE_GONE_AWAY,
        )
        with pytest.raises(muxado.StreamRefused):
            await unheard.read()
        await server.ping()
        with pytest.raises(muxado.PeerGone) as caught:
            client.open()
        assert caught.value.reason is not None
        assert (caught.value.reason.code, caught.value.reason.debug) == (3, b"soon gone")
        assert not client.closed
        async with opened(server, client) as (mine, yours):
            await mine.write(b"still allowed")
            assert await yours.read(100) == b"still allowed"
        await stream.write(b"goes on")
        assert await other.read(100) == b"goes on"
        server.go_away()


async def test_a_block_left_by_cancellation_says_so(session_pair: Ends) -> None:
    client, server = session_pair

    async def hang() -> None:
        async with client, client.open() as stream:
            await stream.read()

    async with running(hang()) as hanging, await server.accept():
        await cancel(hanging)
    reason = await server.wait_closed()
    assert (reason.code, reason.by_peer, reason.clean) == (ErrorCode.STREAM_CANCELLED, True, False)


async def test_a_cancelled_accept_loses_no_stream(session_pair: Ends) -> None:
    client, server = session_pair
    async with running(server.accept()) as first, running(server.accept()) as second:
        await server.ping()
        await cancel(first)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await server.accept()
        async with client.open(eager=True) as stream, await second as other:
            assert other.id == stream.id


async def test_an_accept_cancelled_as_its_stream_comes_leaves_it_to_the_next(
    session_pair: Ends,
) -> None:
    client, server = session_pair

    async def cancel_the_first() -> None:
        await signalled.read(1)
        first.cancel()

    async with (
        opened(client, server) as (signal, signalled),
        running(server.accept()) as first,
        running(server.accept()) as second,
        running(cancel_the_first()),
    ):
        await server.ping()
        # They travel together: who reads is woken before who accepts.
        await signal.write(b"!")
        async with client.open(eager=True) as stream, await second as other:
            assert other.id == stream.id
            assert first.cancelled()


async def test_streams_beyond_a_full_accept_queue_are_refused(new_pair: NewPair) -> None:
    client, server = await new_pair(accept_backlog=8)
    streams = [client.open(eager=True) for _ in range(12)]
    await client.ping()
    for stream in streams[8:]:
        assert await stream.wait_reset() == ErrorCode.ACCEPT_QUEUE_FULL
        with pytest.raises(muxado.StreamRefused):
            await stream.read(1)
    for stream in streams[:8]:
        async with stream, await server.accept() as other:
            assert other.id == stream.id


async def test_a_cancelled_serve_cancels_its_handlers(session_pair: Ends) -> None:
    client, server = session_pair
    cancelled = asyncio.Event()

    async def handle(stream: Stream) -> None:
        try:
            await stream.read()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with running(server.serve(handle)) as serving, client.open(eager=True) as stream:
        await client.ping()
        await cancel(serving)
        assert cancelled.is_set()
        assert await stream.wait_reset() == ErrorCode.STREAM_CANCELLED
        assert not server.closed


async def test_errors_are_also_those_that_code_for_sockets_expects(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        stream.write_eof()
        with pytest.raises(BrokenPipeError):
            await stream.write(b"x")
        other.reset(1)
        with pytest.raises(ConnectionResetError):
            await stream.read()
    client.abort()
    with pytest.raises(ConnectionError):
        client.open()
    with pytest.raises(ConnectionError):
        await client.ping()
