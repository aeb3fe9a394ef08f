"""muxado for Python, the library of this repository."""

from __future__ import annotations

import asyncio

import muxado
from muxado.build import COMPILED

from .common import (
    BACKLOG,
    HOST,
    Options,
    Result,
    announce_port,
    client_context,
    read_port,
    run_peer,
    server_context,
)
from .work import StreamClient, StreamServer, run_loop

# More than any cell opens; the window and everything else stays as it is.
CONFIG = muxado.Config(max_incoming_streams=2_000_000, accept_backlog=BACKLOG)


def serve(options: Options) -> None:
    """Serve sessions until the process is ended."""
    keep = options.work.work == "idle" and not options.work.handler
    server = StreamServer()

    async def with_handlers(session: muxado.Session) -> None:
        await session.serve(server.handle)

    async def without(session: muxado.Session) -> None:
        async for stream in session:
            await server.handle(stream, keep=True)
            if not server.kept or server.kept[-1] is not stream:
                stream.close()

    async def main() -> None:
        async with muxado.serve(
            without if keep else with_handlers,
            HOST,
            0,
            ssl=server_context(options),
            config=CONFIG,
        ) as listening:
            announce_port(listening.sockets[0].getsockname()[1])
            await asyncio.Event().wait()

    run_loop(options.loop, main)


def drive(options: Options) -> Result:
    """Run one cell."""

    async def main() -> Result:
        session = await muxado.connect(
            HOST, read_port(), ssl=client_context(options), config=CONFIG
        )

        async def open_stream() -> muxado.Stream:
            return session.open()

        async def request(data: bytes) -> bytes:
            stream = session.open()
            await stream.write(data)
            reply = await stream.readexactly(len(data))
            stream.close()
            return reply

        return await StreamClient(options.work, open_stream, request).run()

    return run_loop(options.loop, main)


def about() -> dict[str, str]:
    """Say which build this is."""
    return {"build": "compiled" if COMPILED else "pure"}


if __name__ == "__main__":
    run_peer(["muxado"], serve, drive, about)
