"""What asyncio's own streams, tasks and contexts have to do with `on_stream` and callbacks."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

import muxado
from muxado import Stream
from muxado.testing import asyncio_pair

pytestmark = pytest.mark.anyio

name: ContextVar[str] = ContextVar("name", default="unset")


async def test_on_stream_and_create_server_exclude_each_other() -> None:
    async with asyncio_pair() as (_, session):
        server = session.create_server(asyncio.Protocol)
        with pytest.raises(muxado.UsageError, match="create_server takes"):
            session.on_stream(Stream.close)
        server.close()
        session.on_stream(Stream.close)
        with pytest.raises(muxado.UsageError, match="on_stream"):
            session.create_server(asyncio.Protocol)
        with pytest.raises(muxado.UsageError, match="on_stream"):
            await session.accept()


async def test_on_stream_is_refused_while_a_task_accepts() -> None:
    async with asyncio_pair() as (client, server):
        task = asyncio.create_task(server.accept())
        await asyncio.sleep(0)
        with pytest.raises(muxado.UsageError, match="accept takes"):
            server.on_stream(Stream.close)
        client.open(eager=True).close()
        (await task).close()


async def test_on_stream_runs_in_the_context_of_its_caller() -> None:
    async with asyncio_pair() as (client, server):
        seen: list[str] = []

        def take(stream: Stream) -> None:
            seen.append(name.get())
            name.set("of a stream")
            stream.close()

        name.set("of the caller")
        server.on_stream(take)
        for _ in range(2):
            async with client.open() as stream:
                stream.write_eof()
                assert await stream.read() == b""
        assert seen == ["of the caller"] * 2


async def test_on_stream_starts_no_task() -> None:
    async with asyncio_pair() as (client, server):
        tasks = len(asyncio.all_tasks())
        server.on_stream(lambda stream: kept.append(stream))
        kept: list[Stream] = []
        streams = [client.open(eager=True) for _ in range(100)]
        await client.ping()
        assert len(kept) == len(streams)
        assert len(asyncio.all_tasks()) == tasks
        for stream in [*kept, *streams]:
            stream.close()


async def test_a_callback_outlives_a_cancelled_read() -> None:
    async with (
        asyncio_pair() as (client, server),
        client.open(eager=True) as near,
        await server.accept() as far,
    ):
        task = asyncio.create_task(far.read(1))
        await asyncio.sleep(0)
        with pytest.raises(muxado.StreamBusy):
            far.read_nowait(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        came = asyncio.Event()
        assert far.read_nowait(1, came.set) is None
        await near.write(b"x")
        await came.wait()
        assert far.read_nowait(1) == b"x"
