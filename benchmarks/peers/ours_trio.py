"""muxado for Python on trio."""

from __future__ import annotations

import trio

import muxado.trio

from .common import (
    HOST,
    Options,
    Result,
    announce_port,
    client_context,
    read_port,
    server_context,
)
from .ours import CONFIG
from .protocol import READ_SIZE
from .work import Step, StreamClient, StreamServer, T


class TrioEngine:
    """Tasks of trio."""

    async def together(self, *steps: Step[T]) -> list[T]:
        results: dict[int, T] = {}

        async def take(number: int, step: Step[T]) -> None:
            results[number] = await step()

        async with trio.open_nursery() as nursery:
            for number, step in enumerate(steps):
                nursery.start_soon(take, number, step)
        return [results[number] for number in range(len(steps))]

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class TrioStream:
    """A stream of trio as the work wants it."""

    __slots__ = ("_stream",)

    def __init__(self, stream: muxado.trio.Stream) -> None:
        self._stream = stream

    async def read(self, n: int = READ_SIZE) -> bytes:
        return await self._stream.receive_some(n)

    async def write(self, data: bytes) -> None:
        await self._stream.send_all(data)

    def write_eof(self) -> None:
        # Trio's own waits for nothing either, except a checkpoint.
        trio.lowlevel.spawn_system_task(self._stream.send_eof)

    def close(self) -> None:
        self._stream.close()


def serve(options: Options) -> None:
    """Serve sessions until the process is ended."""
    server = StreamServer(TrioEngine())

    async def handle(stream: muxado.trio.Stream) -> None:
        await server.handle(TrioStream(stream))

    async def handle_session(session: muxado.trio.Session) -> None:
        await session.serve(handle)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listening = await nursery.start(
                lambda **kwds: muxado.trio.serve(
                    handle_session, HOST, 0, ssl=server_context(options), config=CONFIG, **kwds
                )
            )
            announce_port(listening.sockets[0].getsockname()[1])

    trio.run(main)


def drive(options: Options) -> Result:
    """Run one cell."""
    results: list[Result] = []

    async def main() -> None:
        async with muxado.trio.connect(
            HOST, read_port(), ssl=client_context(options), config=CONFIG
        ) as session:

            async def open_stream() -> TrioStream:
                return TrioStream(session.open())

            async def request(data: bytes) -> bytes:
                stream = session.open()
                await stream.send_all(data)
                reply = await stream.readexactly(len(data))
                stream.close()
                return reply

            client = StreamClient(options.work, open_stream, request, TrioEngine())
            results.append(await client.run())

    trio.run(main)
    return results[0]
