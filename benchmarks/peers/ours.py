"""muxado for Python, the library of this repository, on each of its front ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import muxado
import muxado.sync
from muxado.build import COMPILED
from muxado.carriers import websockets

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
from .work import StreamClient, StreamServer, ThreadsEngine, finish, run_loop

if TYPE_CHECKING:
    from . import ours_trio, ours_tunnel

# More than any cell opens; the window and everything else stays as it is.
CONFIG = muxado.Config(max_incoming_streams=2_000_000, accept_backlog=BACKLOG)


def serve_asyncio(options: Options) -> None:
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
        async with (websockets.serve if options.websocket else muxado.serve)(
            without if keep else with_handlers,
            HOST,
            0,
            ssl=server_context(options),
            config=replace(CONFIG, wire=options.wire),
        ) as listening:
            announce_port(listening.sockets[0].getsockname()[1])
            await asyncio.Event().wait()

    run_loop(options.loop, main)


def drive_asyncio(options: Options) -> Result:
    """Run one cell."""

    async def main() -> Result:
        config = replace(CONFIG, wire=options.wire)
        context, port = client_context(options), read_port()
        if options.websocket:
            scheme = "ws" if context is None else "wss"
            url = f"{scheme}://{HOST}:{port}/"
            session = await websockets.connect(url, ssl=context, config=config)
        else:
            session = await muxado.connect(HOST, port, ssl=context, config=config)

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


class ThreadsStream:
    """A stream of threads as the work wants it: its calls wait, and its awaits don't."""

    __slots__ = ("_stream", "close", "write_eof")

    def __init__(self, stream: muxado.sync.Stream) -> None:
        self._stream = stream
        self.write_eof: Callable[[], None] = stream.write_eof
        self.close: Callable[[], None] = stream.close

    async def read(self, n: int = -1) -> bytes:
        return self._stream.recv(n)

    async def write(self, data: bytes) -> None:
        self._stream.sendall(data)


def serve_threads(options: Options) -> None:
    """Serve sessions from threads until the process is ended."""
    server = StreamServer(ThreadsEngine())

    def handle(stream: muxado.sync.Stream) -> None:
        finish(server.handle(ThreadsStream(stream)))

    def serve(session: muxado.sync.Session) -> None:
        session.serve(handle)

    with muxado.sync.serve(serve, HOST, 0, ssl=server_context(options), config=CONFIG) as listening:
        announce_port(listening.sockets[0].getsockname()[1])
        listening.wait_closed()


def drive_threads(options: Options) -> Result:
    """Run one cell."""
    session = muxado.sync.connect(HOST, read_port(), ssl=client_context(options), config=CONFIG)

    async def open_stream() -> ThreadsStream:
        return ThreadsStream(session.open())

    async def request(data: bytes) -> bytes:
        stream = session.open()
        stream.sendall(data)
        reply = stream.recv(len(data))
        while len(reply) < len(data):
            reply += stream.recv(len(data) - len(reply))
        stream.close()
        return reply

    return finish(StreamClient(options.work, open_stream, request, ThreadsEngine()).run())


def serve(options: Options) -> None:
    """Serve sessions until the process is ended."""
    if options.work.work.startswith("tunnel-"):
        _tunnel().serve(options)
    elif options.loop == "threads":
        serve_threads(options)
    elif options.loop == "trio":
        _trio().serve(options)
    else:
        serve_asyncio(options)


def drive(options: Options) -> Result:
    """Run one cell."""
    if options.work.work.startswith("tunnel-"):
        _tunnel().drive(options)
        return {}
    if options.loop == "threads":
        return drive_threads(options)
    if options.loop == "trio":
        return _trio().drive(options)
    return drive_asyncio(options)


def _trio() -> ours_trio:
    from . import ours_trio

    return ours_trio


def _tunnel() -> ours_tunnel:
    from . import ours_tunnel

    return ours_tunnel


def about() -> dict[str, str]:
    """Say which build this is."""
    return {"build": "compiled" if COMPILED else "pure"}


if __name__ == "__main__":
    run_peer(["muxado"], serve, drive, about)
