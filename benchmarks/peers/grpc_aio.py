"""gRPC's asyncio API with raw bytes as messages: a unary call per request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import grpc.aio

from .common import (
    Clock,
    Counters,
    Options,
    Result,
    Work,
    announce_port,
    bulk_result,
    read_port,
    run_peer,
)
from .protocol import BLOCK, DOWN, HEADER_SIZE, UP, Checker, Header, unpack_header
from .work import Stream, StreamClient, run_loop

ADDRESS = "127.0.0.1:"
SERVICE = "bench"


async def blocks(header: Header) -> AsyncIterator[bytes]:
    """Give a header and then blocks, until the measured time ends."""
    yield header.pack()
    while time.time_ns() < header.end:
        yield BLOCK


def serve(options: Options) -> None:
    """Serve calls until the process is ended."""
    counters = Counters()

    async def echo(request: bytes, context: object) -> bytes:
        return request

    async def report(request: bytes, context: object) -> bytes:
        return counters.report()

    async def up(requests: AsyncIterator[bytes], context: object) -> bytes:
        header = unpack_header(await anext(requests))
        checker = Checker(header.start, header.end)
        async for chunk in requests:
            checker.add(chunk)
        counters.received += checker.received
        counters.window += checker.window
        counters.wrong += checker.wrong
        return b""

    async def down(request: bytes, context: object) -> AsyncIterator[bytes]:
        async for chunk in blocks(unpack_header(request)):
            if len(chunk) != HEADER_SIZE:
                counters.sent += len(chunk)
                yield chunk

    async def main() -> None:
        server = grpc.aio.server()
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(echo),
            "Report": grpc.unary_unary_rpc_method_handler(report),
            "Up": grpc.stream_unary_rpc_method_handler(up),
            "Down": grpc.unary_stream_rpc_method_handler(down),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        announce_port(server.add_insecure_port(f"{ADDRESS}0"))
        await server.start()
        await asyncio.Event().wait()

    run_loop(options.loop, main)


def drive(options: Options) -> Result:
    """Run one cell."""
    work = options.work

    async def main() -> Result:
        async with grpc.aio.insecure_channel(f"{ADDRESS}{read_port()}") as channel:
            await channel.channel_ready()
            echo = channel.unary_unary(f"/{SERVICE}/Echo")

            async def request(data: bytes) -> bytes:
                reply: bytes = await echo(data)
                return reply

            if work.work == "requests":
                return await _Requests(work, request, channel).run()
            return await bulk(channel)

    async def bulk(channel: grpc.aio.Channel) -> Result:
        clock = Clock(work)
        header = Header(DOWN if work.direction == "down" else UP, 0, clock.start, clock.end)
        checker = Checker(clock.start, clock.end)
        sent = 0

        async def one() -> None:
            nonlocal sent
            if header.op == UP:

                async def counted() -> AsyncIterator[bytes]:
                    nonlocal sent
                    async for chunk in blocks(header):
                        if len(chunk) != HEADER_SIZE:
                            sent += len(chunk)
                        yield chunk

                await channel.stream_unary(f"/{SERVICE}/Up")(counted())
            else:
                async for chunk in channel.unary_stream(f"/{SERVICE}/Down")(header.pack()):
                    checker.add(chunk)

        async with asyncio.TaskGroup() as group:
            for _ in range(work.concurrency):
                group.create_task(one())
        report = json.loads(await channel.unary_unary(f"/{SERVICE}/Report")(b""))
        return bulk_result(work, checker.received, checker.window, sent, report)

    return run_loop(options.loop, main)


class _Requests(StreamClient):
    """The requests' cells; the other ones need streams that are not messages."""

    def __init__(
        self,
        work: Work,
        request: Callable[[bytes], Awaitable[bytes]],
        channel: grpc.aio.Channel,
    ) -> None:
        super().__init__(work, self._no_streams, request)
        self._channel = channel

    async def _no_streams(self) -> Stream:
        raise NotImplementedError

    async def report(self) -> Result:
        result: Result = json.loads(await self._channel.unary_unary(f"/{SERVICE}/Report")(b""))
        return result


if __name__ == "__main__":
    run_peer(["grpcio"], serve, drive)
