"""A process with a session that echoes every stream: on its standard input and output, or,
given a host and a port, dialled."""

from __future__ import annotations

import asyncio
import sys

import muxado
from muxado import Session, Stream


async def echo(stream: Stream) -> None:
    while data := await stream.read(65536):
        await stream.write(data)


async def on_pipes() -> Session:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), sys.stdout
    )
    return muxado.server(reader, asyncio.StreamWriter(transport, protocol, None, loop))


async def main() -> None:
    if len(sys.argv) > 1:
        session = await muxado.connect(sys.argv[1], int(sys.argv[2]))
    else:
        session = await on_pipes()
    async with session:
        await session.serve(echo)


asyncio.run(main())
