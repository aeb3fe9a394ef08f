"""What is left after a cancelled call of a stream or a session: everything, as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

import muxado.trio
from muxado import ErrorCode
from muxado.trio import Session, Stream

from .cancelling import (
    Cut,
    Ends,
    Scenario,
    Scenarios,
    Security,
    busy,
    connected,
    echo,
    opened,
    socket_streams,
)

CALLS = Scenarios()

SMALL = {"initial_window": 1000, "max_window": 1000, "write_high_water": 500}

# More than the window takes, in pieces that come one by one.
PIECES = [b"a" * 400, b"b" * 700, b"c" * 900, b"d" * 99 + b"\n", b"the rest\n"]
DATA = b"".join(PIECES)
LINE = DATA.index(b"\n") + 1


async def read_all(stream: Stream) -> bytes:
    return b"".join([data async for data in stream])


def reset_code(error: BaseException) -> int:
    """Return the code of the reset that an error of trio's stands for."""
    assert isinstance(error.__cause__, muxado.StreamReset)
    assert error.__cause__.code is not None
    return error.__cause__.code


# Reading


async def send_pieces(stream: Stream) -> None:
    for piece in PIECES:
        await stream.send_all(piece)
        await stream.session.ping()
    await stream.send_eof()


def reading(call: Callable[[Stream], Awaitable[bytes | bytearray]], least: int) -> Scenario:
    """Cut a read, and then read on: not a byte is lost, nor there twice."""

    async def scenario(security: Security, cut: Cut) -> None:
        async with (
            busy(**SMALL) as ends,
            opened(*ends) as (stream, other),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(send_pieces, other)
            first = await cut(lambda: call(stream))
            assert first is None or len(first) >= least
            assert (first or b"") + await read_all(stream) == DATA

    return scenario


CALLS["Stream.receive_some"] = reading(lambda stream: stream.receive_some(100), 1)
CALLS["Stream.readexactly"] = reading(lambda stream: stream.readexactly(2050), 2050)
CALLS["Stream.readuntil"] = reading(lambda stream: stream.readuntil(b"d\n"), LINE)
CALLS["Stream.__anext__"] = reading(lambda stream: stream.__anext__(), 1)


# Writing


@asynccontextmanager
async def stuffed() -> AsyncIterator[tuple[Ends, Stream, Stream]]:
    """Give two sessions, and the ends of a stream that has more queued than the window takes."""
    async with busy(**SMALL) as ends, opened(*ends) as (stream, other):
        await stream.send_all(b"." * 2500)
        yield ends, stream, other


async def expect(stream: Stream, data: bytes) -> None:
    assert await read_all(stream) == data


@CALLS.of("Stream.send_all")
async def send_all(security: Security, cut: Cut) -> None:
    async with stuffed() as (_, stream, other):
        received = bytearray()

        async def receive() -> None:
            async for data in other:
                received.extend(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await cut(lambda: stream.send_all(b"x" * 700))
            await stream.send_all(b"end")
            await stream.send_eof()
        assert received == b"." * 2500 + (b"" if cut.hit else b"x" * 700) + b"end"


@CALLS.of("Stream.wait_send_all_might_not_block")
async def wait_send_all_might_not_block(security: Security, cut: Cut) -> None:
    async with stuffed() as (_, stream, other), trio.open_nursery() as nursery:
        nursery.start_soon(expect, other, b"." * 2500 + b"end")
        await cut(stream.wait_send_all_might_not_block)
        await stream.send_all(b"end")
        await stream.send_eof()


@CALLS.of("Stream.send_eof")
async def send_eof(security: Security, cut: Cut) -> None:
    async with stuffed() as (_, stream, other), trio.open_nursery() as nursery:
        nursery.start_soon(expect, other, b"." * 2500)
        await cut(stream.send_eof)
        await stream.send_eof()


def closing(call: Callable[[Stream], Awaitable[object]]) -> Scenario:
    """Cut a close that waits for the peer: all arrives, or the stream is reset."""

    async def scenario(security: Security, cut: Cut) -> None:
        async with stuffed() as (_, stream, other):
            received = bytearray()
            code = None

            async def receive() -> None:
                nonlocal code
                try:
                    async for data in other:
                        received.extend(data)
                except trio.BrokenResourceError as exc:
                    code = reset_code(exc)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await cut(lambda: call(stream))
                # Nothing is left to wait behind the caller's back.
                assert stream._core.queued() <= stream._core.send_credit
            if code is None:
                assert received == b"." * 2500
            else:
                assert cut.hit
                assert code == ErrorCode.STREAM_CANCELLED

    return scenario


CALLS["Stream.aclose"] = closing(lambda stream: stream.aclose())
CALLS["Stream.__aexit__"] = closing(lambda stream: stream.__aexit__(None, None, None))


@CALLS.of("Stream.wait_reset")
async def wait_reset(security: Security, cut: Cut) -> None:
    async with stuffed() as (ends, stream, other), trio.open_nursery() as nursery:

        async def reset() -> None:
            await ends.server.ping()
            other.reset(77)

        nursery.start_soon(reset)
        assert await cut(stream.wait_reset) in (None, 77)
        assert await stream.wait_reset() == 77


@CALLS.of("Stream.__aenter__")
async def enter_stream(security: Security, cut: Cut) -> None:
    async with busy() as ends, opened(*ends) as (stream, _):
        assert await cut(stream.__aenter__) in (None, stream)


# Sessions


def accepting(call: Callable[[Session], Awaitable[Stream]]) -> Scenario:
    """Cut an accept: if it doesn't give the stream, the next one does."""

    async def scenario(security: Security, cut: Cut) -> None:
        async with busy() as ends, ends.client.open(eager=True) as stream:
            other = await cut(lambda: call(ends.server)) or await ends.server.accept()
            assert other.id == stream.id
            await other.aclose()

    return scenario


CALLS["Session.accept"] = accepting(lambda session: session.accept())
CALLS["Session.__anext__"] = accepting(lambda session: session.__anext__())


@CALLS.of("Session.serve")
async def serve(security: Security, cut: Cut) -> None:
    codes = []

    async with connected() as (client, server):

        async def ask(request: bytes) -> None:
            async with client.open() as stream:
                await stream.send_all(request)
                await stream.send_eof()
                try:
                    assert await read_all(stream) == request
                except trio.BrokenResourceError as exc:
                    codes.append(reset_code(exc))

        async def ask_all() -> None:
            async with trio.open_nursery() as nursery:
                for number in (b"1", b"2", b"3"):
                    nursery.start_soon(ask, number * 1000)
            client.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_all)
            await cut(lambda: server.serve(echo, limit=2))
            if cut.hit:
                # Streams that it had not accepted are there for the next; the others were reset.
                await server.serve(echo)
        assert server.stats().streams == 0
    assert set(codes) <= {ErrorCode.STREAM_CANCELLED}
    assert cut.hit or not codes


@CALLS.of("Session.ping")
async def ping(security: Security, cut: Cut) -> None:
    async with busy() as ends:
        await cut(ends.client.ping)
        assert await ends.client.ping() > 0


@CALLS.of("Session.__aenter__")
async def enter_session(security: Security, cut: Cut) -> None:
    async with busy() as ends:
        assert await cut(ends.client.__aenter__) in (None, ends.client)


@CALLS.of("Session.wait_closed")
async def wait_closed(security: Security, cut: Cut) -> None:
    async with connected() as (client, server), opened(client, server) as (stream, other):
        await stream.send_all(b"last words")
        await stream.send_eof()
        client.close()
        await cut(client.wait_closed)
        assert await read_all(other) == b"last words"
        for session in (client, server):
            await session.wait_closed()


def ending(call: Callable[[Session], Awaitable[object]]) -> Scenario:
    """Cut an orderly end, which makes it an abrupt one."""

    async def scenario(security: Security, cut: Cut) -> None:
        async with connected() as (client, server), opened(client, server) as (stream, other):
            await stream.send_all(b"last words")
            await stream.send_eof()
            await cut(lambda: call(client))
            assert client.closed
            if not cut.hit:
                assert await read_all(other) == b"last words"
            for session in (client, server):
                await session.wait_closed()

    return scenario


CALLS["Session.aclose"] = ending(lambda session: session.aclose())
CALLS["Session.__aexit__"] = ending(lambda session: session.__aexit__(None, None, None))


@CALLS.of("Session.shutdown")
async def shutdown(security: Security, cut: Cut) -> None:
    async with connected() as (client, server), opened(client, server) as (stream, other):
        await stream.send_all(b"x" * 1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, other)

            async def finish() -> None:
                await stream.send_eof()
                # Cancelled, it leaves the session draining: the stream comes to its end.
                assert await read_all(stream) == b"x" * 1000
                await stream.aclose()

            nursery.start_soon(finish)
            await cut(lambda: client.shutdown(5))
        await client.shutdown(5)
        await server.wait_closed()
        reason = server.close_reason
        assert reason is not None
        assert reason.by_peer
        assert reason.clean


# Passing on


@CALLS.of("relay")
async def relaying(security: Security, cut: Cut) -> None:
    """Cut a relay: both sides are closed, and the stream's peer is told, or has had its end."""
    async with busy() as ends:
        stream = ends.client.open(eager=True)
        async with await ends.server.accept() as peer, trio.open_nursery() as nursery:
            ours, theirs = await socket_streams()

            async def use() -> None:
                with suppress(trio.BrokenResourceError):
                    await theirs.send_all(b"question")
                    await theirs.send_eof()
                    async for _ in theirs:
                        pass

            async def answer() -> None:
                with suppress(trio.BrokenResourceError):
                    await peer.send_all(await read_all(peer))
                    await peer.send_eof()

            nursery.start_soon(use)
            nursery.start_soon(answer)
            result = await cut(lambda: muxado.trio.relay(stream, ours))
            code = await peer.wait_reset()
            assert code is None or (result is None and code == ErrorCode.STREAM_CANCELLED)
            assert ours.socket.fileno() == -1
        await theirs.aclose()
