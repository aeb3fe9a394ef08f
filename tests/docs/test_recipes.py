"""What the how-to pages' recipes do where their own programs don't show it."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

import muxado
import muxado.testing
from tests.patience import patience

from .test_guides import DOCS, parts

PATIENCE = patience(10)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def names_of(page: Path) -> dict[str, Any]:
    """Return what a page's program defines, without running it."""
    names: dict[str, Any] = {}
    code = parts(page, "python").replace("\nasyncio.run(", "\n# asyncio.run(")
    exec(compile(code, str(page), "exec"), names)
    return names


async def test_the_forwarder_hands_a_reset_on() -> None:
    pass_on = names_of(DOCS / "howto/grpc.md")["pass_on"]

    async def cut(stream: muxado.Stream) -> None:
        await stream.readline()
        await stream.write(b"half of the file")
        assert await stream.readline() == b"go on\n"
        stream.reset()

    async with asyncio.timeout(PATIENCE), muxado.testing.asyncio_pair() as (near, far):
        serving = asyncio.create_task(far.serve(cut))
        port = await asyncio.start_server(lambda *pair: pass_on(near, *pair), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*port.sockets[0].getsockname())
        writer.write(b"get\n")
        assert await reader.readexactly(16) == b"half of the file"
        writer.write(b"go on\n")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        port.close()
        near.close()
        await serving


async def test_the_forwarder_resets_the_stream_of_a_client_that_breaks_off() -> None:
    pass_on = names_of(DOCS / "howto/grpc.md")["pass_on"]
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def handle(stream: muxado.Stream) -> None:
        await stream.write(await stream.readline())
        codes.put_nowait(await stream.wait_reset())

    async with asyncio.timeout(PATIENCE), muxado.testing.asyncio_pair() as (near, far):
        serving = asyncio.create_task(far.serve(handle))
        port = await asyncio.start_server(lambda *pair: pass_on(near, *pair), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*port.sockets[0].getsockname())
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        assert await codes.get() == muxado.ErrorCode.STREAM_RESET
        port.close()
        near.close()
        await serving
