"""A TCP connection per request (or bulk stream), with asyncio's own streams."""

from __future__ import annotations

import asyncio

from .common import BACKLOG, HOST, Options, Result, announce_port, read_port, run_peer
from .work import PairStream, StreamClient, StreamServer, run_loop


def serve(options: Options) -> None:
    """Serve connections until the process is ended."""
    server = StreamServer()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.handle(PairStream(reader, writer))
        writer.close()

    async def main() -> None:
        listening = await asyncio.start_server(handle, HOST, 0, backlog=BACKLOG)
        announce_port(listening.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    run_loop(options.loop, main)


def drive(options: Options) -> Result:
    """Run one cell."""

    async def main() -> Result:
        port = read_port()

        async def open_stream() -> PairStream:
            return PairStream(*await asyncio.open_connection(HOST, port))

        async def request(data: bytes) -> bytes:
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(data)
            reply = await reader.readexactly(len(data))
            writer.close()
            return reply

        return await StreamClient(options.work, open_stream, request).run()

    return run_loop(options.loop, main)


if __name__ == "__main__":
    run_peer([], serve, drive)
