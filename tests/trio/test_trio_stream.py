"""Streams as trio wants them: half-closeable, every await a checkpoint, safe to cancel."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

import muxado
from muxado import Config, ErrorCode
from muxado.testing import trio_pair
from muxado.trio import Session, Stream

MIB = 1024 * 1024


@asynccontextmanager
async def opened(client: Session, server: Session) -> AsyncIterator[tuple[Stream, Stream]]:
    """Open a stream and accept it; both ends are closed at the end of the block."""
    async with client.open(eager=True) as near, await server.accept() as far:
        yield near, far


@pytest.mark.parametrize("clogged", [False, True])
async def test_trio_finds_nothing_amiss(clogged: bool) -> None:
    async with AsyncExitStack() as stack:
        client, server = await stack.enter_async_context(trio_pair())

        async def pair() -> tuple[Stream, Stream]:
            near = client.open(eager=True)
            return near, await server.accept()

        async def clogged_pair() -> tuple[Stream, Stream]:
            ends = await pair()
            for end in ends:
                await end.send_all(bytes(MIB))
            return ends

        await trio.testing.check_half_closeable_stream(pair, clogged_pair if clogged else None)


async def test_every_await_is_a_checkpoint() -> None:
    async with trio_pair() as (client, server):
        near = client.open()
        with trio.testing.assert_checkpoints():
            await near.send_all(b"line\nmore and more")
        with trio.testing.assert_checkpoints():
            await near.wait_send_all_might_not_block()
        with trio.testing.assert_checkpoints():
            far = await server.accept()
        await client.ping()  # everything has come
        with trio.testing.assert_checkpoints():
            assert await far.readuntil() == b"line\n"
        with trio.testing.assert_checkpoints():
            assert await far.readexactly(4) == b"more"
        with trio.testing.assert_checkpoints():
            assert await far.receive_some() == b" and more"
        with trio.testing.assert_checkpoints():
            await near.send_eof()
        with trio.testing.assert_checkpoints():
            assert await far.receive_some() == b""
        with trio.testing.assert_checkpoints():
            await far.aclose()
        with trio.testing.assert_checkpoints():
            assert await near.wait_reset() is None
        with trio.testing.assert_checkpoints():
            await near.aclose()
        with trio.testing.assert_checkpoints():
            await client.ping()
        with trio.testing.assert_checkpoints():
            await client.shutdown()
        for session in (client, server):
            with trio.testing.assert_checkpoints():
                await session.wait_closed()
            with trio.testing.assert_checkpoints():
                await session.aclose()
            with trio.testing.assert_checkpoints():
                await session.serve(Stream.aclose)


async def test_leaving_a_stream_is_a_checkpoint() -> None:
    async with trio_pair() as (client, _):
        for failure in (None, ZeroDivisionError()):
            with contextlib.suppress(ZeroDivisionError), trio.testing.assert_checkpoints():
                async with client.open():
                    if failure is not None:
                        raise failure


async def test_a_cancelled_read_loses_nothing() -> None:
    async with trio_pair() as (client, server), opened(client, server) as (near, far):
        await near.send_all(b"12345")
        await client.ping()
        with trio.move_on_after(0):
            await far.receive_some()
        for read in (far.readexactly(6), far.readuntil(b"6")):
            with trio.move_on_after(0.01) as scope:
                await read
            assert scope.cancelled_caught
        await near.send_all(b"6")
        assert await far.readexactly(6) == b"123456"


async def test_a_cancelled_write_sends_nothing() -> None:
    async with trio_pair() as (client, server), opened(client, server) as (near, far):
        with trio.move_on_after(0):
            await near.send_all(b"never")
        await near.send_all(bytes(MIB))
        with trio.move_on_after(0.01) as scope:
            await near.send_all(b"never")
        assert scope.cancelled_caught
        assert await far.readexactly(MIB) == bytes(MIB)
        await near.send_all(b"the end")
        assert await far.receive_some() == b"the end"


async def test_a_cancelled_close_resets() -> None:
    async with trio_pair() as (client, server), opened(client, server) as (near, far):
        await near.send_all(bytes(MIB))
        with trio.move_on_after(0.01) as scope:
            await near.aclose()
        assert scope.cancelled_caught
        assert await far.wait_reset() == ErrorCode.STREAM_CANCELLED


async def test_aclose_waits_while_more_is_queued_than_the_window() -> None:
    async with trio_pair() as (client, server), opened(client, server) as (near, far):
        await near.send_all(bytes(MIB))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.aclose)
            got = 0
            while piece := await far.receive_some():
                got += len(piece)
        assert got == MIB


@pytest.mark.parametrize(
    ("failure", "code"),
    [(ZeroDivisionError, ErrorCode.INTERNAL_ERROR), (SystemExit, ErrorCode.STREAM_CANCELLED)],
)
async def test_leaving_a_stream_by_an_exception_resets_it(
    failure: type[BaseException], code: int
) -> None:
    async with trio_pair() as (client, server):
        near = client.open(eager=True)
        far = await server.accept()
        with pytest.raises(failure):
            async with near:
                raise failure
        assert await far.wait_reset() == code


async def test_two_readers_or_writers_at_once_are_busy() -> None:
    async with trio_pair() as (client, server), opened(client, server) as (near, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            for read in (near.receive_some(), near.readexactly(1), near.readuntil()):
                with pytest.raises(trio.BusyResourceError):
                    await read
            nursery.cancel_scope.cancel()
        await near.send_all(bytes(MIB))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, b"x")
            await trio.testing.wait_all_tasks_blocked()
            for write in (near.send_all(b"y"), near.send_eof()):
                with pytest.raises(trio.BusyResourceError):
                    await write
            nursery.cancel_scope.cancel()
        near.reset()


async def test_reading_by_size_and_by_separator() -> None:
    async with (
        trio_pair(Config(read_limit=100)) as (client, server),
        opened(client, server) as (near, far),
    ):
        await near.send_all(b"one\r\ntwo\r\n" + b"x" * 200 + b"tail")
        await near.send_eof()
        assert await far.readuntil(b"\r\n") == b"one\r\n"
        assert await far.readuntil(b"\r\n") == b"two\r\n"
        with pytest.raises(ValueError, match="read_limit"):
            await far.readuntil()
        with pytest.raises(ValueError, match="empty"):
            await far.readuntil(b"")
        with pytest.raises(ValueError, match="negative"):
            await far.readexactly(-1)
        with pytest.raises(ValueError, match="at least 1"):
            await far.receive_some(0)
        assert await far.readexactly(200) == b"x" * 200
        for read in (far.readexactly(5), far.readuntil()):
            with pytest.raises(EOFError):
                await read
        assert await far.receive_some() == b"tail"
        assert await far.receive_some() == b""


async def test_readexactly_of_more_than_the_window() -> None:
    async with (
        trio_pair() as (client, server),
        opened(client, server) as (near, far),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(near.send_all, bytes(2 * MIB))
        assert await far.readexactly(2 * MIB) == bytes(2 * MIB)


async def test_a_dropped_stream_warns_and_is_reset() -> None:
    async with trio_pair() as (client, server):
        streams = [client.open(eager=True)]
        async with await server.accept() as far:
            with pytest.warns(ResourceWarning, match="unclosed stream <Stream 3 open"):
                streams.clear()
            assert await far.wait_reset() == ErrorCode.STREAM_CANCELLED


async def test_whose_doing_it_was_decides_the_error() -> None:
    async with trio_pair() as (client, server), opened(client, server) as (near, far):
        near.reset(5)
        with pytest.raises(trio.ClosedResourceError) as here:
            await near.receive_some()
        assert isinstance(here.value.__cause__, muxado.StreamReset)
        with pytest.raises(trio.BrokenResourceError) as there:
            await far.receive_some()
        assert isinstance(there.value.__cause__, muxado.StreamReset)


CUT_READS: list[Callable[[Stream], Awaitable[object]]] = [
    lambda stream: stream.receive_some(),
    lambda stream: stream.__anext__(),
    lambda stream: stream.readexactly(10),
    lambda stream: stream.readuntil(),
]


@pytest.mark.parametrize("read", CUT_READS)
@pytest.mark.parametrize("end", [Session.close, Session.abort])
async def test_what_a_sessions_end_cuts_off_does_not_look_like_an_end_in_order(
    read: Callable[[Stream], Awaitable[object]], end: Callable[[Session], None]
) -> None:
    async with trio_pair() as (client, server), opened(client, server) as (near, far):
        await far.send_all(b"lost\n")
        await far.send_eof()
        await client.ping()  # both have come
        end(client)
        with pytest.raises(trio.ClosedResourceError):
            await read(near)


async def test_an_end_that_has_come_stays_one_whatever_follows_it() -> None:
    async with trio_pair() as (client, server), opened(client, server) as (near, far):
        await far.send_all(b"whole\nrest")
        await far.send_eof()
        await client.ping()
        far.reset()
        await client.ping()
        assert await near.readuntil() == b"whole\n"
        with pytest.raises(EOFError):
            await near.readexactly(10)
        assert await near.receive_some() == b"rest"
        assert await near.receive_some() == b""


async def test_close_waits_for_nothing_and_what_was_written_still_goes_out() -> None:
    config = Config(initial_window=65536, max_window=65536)
    async with trio_pair(config) as (client, server):
        near = client.open()
        await near.send_all(bytes(MIB))
        assert near.stalled()
        near.close()
        with pytest.raises(muxado.StreamClosed):
            near.check_open()
        far = await server.accept()
        assert len(await far.readexactly(MIB)) == MIB
        assert await far.receive_some() == b""
        assert not near.stalled()
        await far.aclose()


async def test_a_half_close_leaves_the_stream_open() -> None:
    async with trio_pair() as (client, server), opened(client, server) as (near, far):
        await near.send_eof()
        near.check_open()
        assert await far.receive_some() == b""
        far.check_open()
        far.reset()
        with pytest.raises(muxado.StreamReset):
            far.check_open()
