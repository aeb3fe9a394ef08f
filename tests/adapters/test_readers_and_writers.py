"""asyncio's own readers and writers over streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import muxado
from muxado import StreamReset

from .conftest import Ends, Tls

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
def way() -> str:
    """One way only: a stream is the same both ways."""
    return "dialled"


async def test_reader_and_writer(ends: Ends) -> None:
    reader, writer = await ends.calling.open_connection()
    writer.write(b"a line\n" + bytes(4 * MIB))
    async with await ends.serving.accept() as stream:
        draining = asyncio.ensure_future(writer.drain())
        assert await stream.readline() == b"a line\n"
        await stream.readexactly(4 * MIB)
        await draining
        await stream.write(b"one\ntwo")
        stream.write_eof()
        assert await reader.readline() == b"one\n"
        assert await reader.read() == b"two"
        assert reader.at_eof()
        writer.write_eof()
        assert await stream.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_a_reset_raises_from_reader_and_writer(ends: Ends) -> None:
    reader, writer = await ends.calling.open_connection()
    writer.write(bytes(4 * MIB))
    async with await ends.serving.accept() as stream:
        draining = asyncio.ensure_future(writer.drain())
        await stream.read(1)
        stream.reset(9)
        with pytest.raises(StreamReset, match="9"):
            await reader.read(1)
        with pytest.raises(ConnectionResetError):
            await draining
    writer.close()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()


async def test_a_line_beyond_the_limit(ends: Ends) -> None:
    reader, writer = await ends.calling.open_connection(limit=100)
    async with await ends.serving.accept() as stream:
        await stream.write(bytes(1000) + b"\n")
        with pytest.raises(ValueError, match="limit"):
            await reader.readline()
    writer.close()
    await writer.wait_closed()


@pytest.fixture
async def secured(tls: Tls, anyio_backend: object) -> AsyncIterator[Ends]:
    """Sessions over TLS."""
    async with muxado.listen("127.0.0.1", 0, ssl=tls.server) as listener:
        host, port = listener.addresses[0]
        name = "service.internal"
        connecting = muxado.connect(host, port, ssl=tls.client, server_hostname=name)
        async with connecting as near, await listener.accept() as far:
            yield Ends(near, far)


@pytest.mark.parametrize("kind", ["coroutine", "function"])
async def test_start_server(ends: Ends, kind: str) -> None:
    await ask_and_answer(ends, kind)


async def test_start_server_over_tls(secured: Ends) -> None:
    await ask_and_answer(secured, "coroutine")


async def ask_and_answer(ends: Ends, kind: str) -> None:
    """Have each answer come after its question's EOF."""
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read())[::-1])
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.get_running_loop().create_task(answer(reader, writer)))

    async with ends.serving.start_server(answer if kind == "coroutine" else call):

        async def ask(text: bytes) -> bytes:
            reader, writer = await ends.calling.open_connection()
            writer.write(text)
            writer.write_eof()
            reply = await reader.read()
            writer.close()
            await writer.wait_closed()
            return reply

        texts = [b"number %d" % n for n in range(50)]
        assert await asyncio.gather(*map(ask, texts)) == [text[::-1] for text in texts]
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")]
)
async def test_start_tls_upgrades_reader_and_writer(ends: Ends, tls: Tls) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"GO\n")
        await writer.start_tls(tls.server)
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async with ends.serving.start_server(answer):
        reader, writer = await ends.calling.open_connection()
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"GO\n"
        await writer.start_tls(tls.client, server_hostname="service.internal")
        assert writer.get_extra_info("ssl_object").version().startswith("TLS")
        writer.write(b"a secret\n")
        assert await reader.read() == b"a secret\n"
        writer.close()
        await writer.wait_closed()
