"""What is left after a cancelled call of anyio's streams, made of ours: everything, as it was."""

from __future__ import annotations

import asyncio

import muxado
from muxado.adapters.anyio import ByteStream, StreamListener

from ..helpers import exchange, opened, running
from .cancelled_streams import leaving, reading, stuffed, writing
from .cancelling import Cut, Scenarios, Stage

ADAPTERS = Scenarios()

ADAPTERS["ByteStream.receive"] = reading(lambda stream: ByteStream(stream).receive(100), 1)
ADAPTERS["ByteStream.__anext__"] = reading(lambda stream: ByteStream(stream).__anext__(), 1)
ADAPTERS["ByteStream.send"] = writing(lambda stream, data: ByteStream(stream).send(data))
ADAPTERS["ByteStream.aclose"] = leaving(lambda stream: ByteStream(stream).aclose())
ADAPTERS["ByteStream.__aexit__"] = leaving(
    lambda stream: ByteStream(stream).__aexit__(None, None, None)
)


@ADAPTERS.of("ByteStream.__aenter__")
async def enter_stream(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    async with opened(*ends) as (stream, _):
        await cut(ByteStream(stream).__aenter__())
    await stage.check(ends)


@ADAPTERS.of("ByteStream.send_eof")
async def send_eof(stage: Stage, cut: Cut) -> None:
    async with stuffed(stage) as (_, stream, other), running(other.read()) as reading:
        await cut(ByteStream(stream).send_eof())
        await ByteStream(stream).send_eof()
        assert await reading == b"." * 2500


async def answer(stream: ByteStream) -> None:
    async with stream:
        await stream.send(await stream.receive())


@ADAPTERS.of("StreamListener.serve")
async def serve(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()

    async def ask() -> bytes:
        async with ends.client.open() as stream:
            reply = await exchange(stream, b"hello")
        ends.client.close()
        return reply

    asking = asyncio.create_task(ask())
    await cut(StreamListener(ends.server).serve(answer))
    if cut.hit:
        # It is there for the next, or its handler was cancelled and has reset it.
        async with running(StreamListener(ends.server).serve(answer)):
            (reply,) = await asyncio.gather(asking, return_exceptions=True)
            assert reply == b"hello" or isinstance(reply, muxado.StreamReset)
            ends.client.close()
    else:
        assert await asking == b"hello"
    for session in ends:
        await session.wait_closed()
        assert session.stats().streams == 0


@ADAPTERS.of("StreamListener.aclose")
async def close_listener(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    await cut(StreamListener(ends.server).aclose())
    await stage.check(ends)


@ADAPTERS.of("StreamListener.__aenter__")
async def enter_listener(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    await cut(StreamListener(ends.server).__aenter__())
    await stage.check(ends)


@ADAPTERS.of("StreamListener.__aexit__")
async def leave_listener(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    await cut(StreamListener(ends.server).__aexit__(None, None, None))
    await stage.check(ends)
