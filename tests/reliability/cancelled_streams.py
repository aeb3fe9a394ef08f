"""What is left after a cancelled call of a stream: everything, as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import muxado
from muxado import Stream

from ..helpers import opened, running
from ..transports import Ends
from .cancelling import Cut, Scenario, Scenarios, Stage

STREAMS = Scenarios()

SMALL = {"initial_window": 1000, "max_window": 1000, "write_high_water": 500}

# More than the windows take, in pieces that come one by one.
PIECES = [b"a" * 400, b"b" * 700, b"c" * 900, b"d" * 99 + b"\n", b"the rest\n"]
DATA = b"".join(PIECES)
LINE = DATA.index(b"\n") + 1


async def send_pieces(stream: Stream) -> None:
    for piece in PIECES:
        await stream.write(piece)
        await stream.session.ping()
    stream.write_eof()


def reading(call: Callable[[Stream], Coroutine[Any, Any, bytes]], least: int) -> Scenario:
    """Cut a read, and then read on: not a byte is lost, nor there twice."""

    async def scenario(stage: Stage, cut: Cut) -> None:
        ends = await stage.new_pair(**SMALL)
        async with opened(*ends) as (stream, other), running(send_pieces(other)) as sending:
            first = await cut(call(stream))
            assert first is None or len(first) >= least
            assert (first or b"") + await stream.read() == DATA
            await sending
        await stage.check(ends)

    return scenario


STREAMS["Stream.read"] = reading(lambda stream: stream.read(100), 1)
STREAMS["Stream.read: all"] = reading(lambda stream: stream.read(), len(DATA))
STREAMS["Stream.readexactly"] = reading(lambda stream: stream.readexactly(2050), 2050)
STREAMS["Stream.readline"] = reading(lambda stream: stream.readline(), LINE)
STREAMS["Stream.readuntil"] = reading(lambda stream: stream.readuntil(b"d\n"), LINE)
STREAMS["Stream.__anext__"] = reading(lambda stream: stream.__anext__(), LINE)


@STREAMS.of("Stream.readinto")
async def readinto(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair(**SMALL)
    async with opened(*ends) as (stream, other), running(send_pieces(other)) as sending:
        buffer = bytearray(100)
        count = await cut(stream.readinto(buffer)) or 0
        assert buffer[count:] == bytes(100 - count)
        assert bytes(buffer[:count]) + await stream.read() == DATA
        await sending
    await stage.check(ends)


@asynccontextmanager
async def stuffed(stage: Stage) -> AsyncIterator[tuple[Ends, Stream, Stream]]:
    """Give two sessions, and the ends of a stream that has more queued than the window takes."""
    ends = await stage.new_pair(**SMALL)
    async with opened(*ends) as (stream, other):
        await stream.write(b"." * 2500)
        yield ends, stream, other
    await stage.check(ends)


def writing(call: Callable[[Stream, bytes], Coroutine[Any, Any, object]]) -> Scenario:
    """Cut a write that waits: all of it goes out, or nothing."""

    async def scenario(stage: Stage, cut: Cut) -> None:
        async with stuffed(stage) as (_, stream, other), running(other.read()) as reading:
            await cut(call(stream, b"x" * 700))
            await stream.write(b"end")
            stream.write_eof()
            assert await reading == b"." * 2500 + (b"" if cut.hit else b"x" * 700) + b"end"

    return scenario


STREAMS["Stream.write"] = writing(lambda stream, data: stream.write(data))


@STREAMS.of("Stream.write: between others")
async def write_between(stage: Stage, cut: Cut) -> None:
    async with stuffed(stage) as (_, stream, other), running(stream.write(b"1" * 600)) as before:
        await stream.session.ping()
        async with running(other.read()) as reading:
            await cut(stream.write(b"x" * 700))
            await stream.write(b"2" * 600)
            await before
            stream.write_eof()
            expected = b"." * 2500 + b"1" * 600 + (b"" if cut.hit else b"x" * 700) + b"2" * 600
            assert await reading == expected


@STREAMS.of("Stream.writelines")
async def writelines(stage: Stage, cut: Cut) -> None:
    async with stuffed(stage) as (_, stream, other), running(other.read()) as reading:
        await cut(stream.writelines([b"x" * 300, b"y" * 300]))
        stream.write_eof()
        expected = b"." * 2500 + (b"" if cut.hit else b"x" * 300 + b"y" * 300)
        assert await reading == expected


@STREAMS.of("Stream.wait_closed")
async def wait_closed(stage: Stage, cut: Cut) -> None:
    async with stuffed(stage) as (_, stream, other), running(other.read()) as reading:
        stream.write_eof()
        await cut(stream.wait_closed())
        assert await reading == b"." * 2500
        await stream.wait_closed()


@STREAMS.of("Stream.wait_reset")
async def wait_reset(stage: Stage, cut: Cut) -> None:
    async with stuffed(stage) as (ends, stream, other):

        async def reset() -> None:
            await ends.server.ping()
            other.reset(77)

        async with running(reset()):
            code = await cut(stream.wait_reset())
            assert code in (None, 77)
            assert await stream.wait_reset() == 77


def leaving(call: Callable[[Stream], Coroutine[Any, Any, object]]) -> Scenario:
    """Cut the end of a stream that waits for the peer: all arrives, or the stream is reset."""

    async def scenario(stage: Stage, cut: Cut) -> None:
        async with stuffed(stage) as (_, stream, other), running(other.read()) as reading:
            await cut(call(stream))
            if not cut.hit:
                assert await reading == b"." * 2500
                return
            # Cancelled before it has begun it has done nothing, else it has reset the stream.
            assert stream.is_closing() == (cut.turns > 0)
            stream.reset()
            await asyncio.wait([reading])
            error = reading.exception()
            if error is None:
                assert reading.result() == b"." * 2500  # it was cancelled just as the last went out
            else:
                assert isinstance(error, muxado.StreamReset)
                assert error.code == muxado.ErrorCode.STREAM_CANCELLED

    return scenario


STREAMS["Stream.__aexit__"] = leaving(lambda stream: stream.__aexit__(None, None, None))


@STREAMS.of("Stream.__aenter__")
async def enter(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    async with opened(*ends) as (stream, _):
        assert await cut(stream.__aenter__()) in (None, stream)
    await stage.check(ends)
