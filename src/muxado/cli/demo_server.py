"""The demo's server process: ``python -m muxado.cli.demo_server CERTIFICATE PORT``.

Prints its two ports, for streams and for plain TLS connections, and runs until its standard
input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import sys

import muxado

from .demo_protocol import CALLBACKS, CALLBACKS_AT_ONCE, CONFIG, DOWNLOAD, ECHO, PATTERN
from .loop import run_in_best_loop

CHUNK = 64 * 1024


async def serve_session(session: muxado.Session) -> None:
    """Serve one client."""

    async def serve_stream(stream: muxado.Stream) -> None:
        if stream.type == ECHO:
            await stream.write(await stream.read(CHUNK))
        elif stream.type == DOWNLOAD:
            await send_pattern(stream)
        elif stream.type == CALLBACKS:
            await call_back(session, stream)

    await session.serve(serve_stream)


async def send_pattern(stream: muxado.Stream) -> None:
    """Send the pattern over and over until the client says that it has enough."""
    enough = asyncio.create_task(stream.read())
    try:
        while not enough.done():
            await stream.write(PATTERN)
    finally:
        enough.cancel()


async def call_back(session: muxado.Session, stream: muxado.Stream) -> None:
    """Open streams to the client until it half-closes `stream`; report there how it went."""
    good = wrong = 0

    async def caller() -> None:
        nonlocal good, wrong
        while not stream.at_eof():
            question = os.urandom(32)
            async with session.open(type=ECHO) as callback:
                await callback.write(question)
                if await callback.readexactly(len(question)) == question:
                    good += 1
                else:
                    wrong += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLBACKS_AT_ONCE):
            group.create_task(caller())
        await stream.read()
    await stream.write(json.dumps({"good": good, "wrong": wrong}).encode())


async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request on a connection of its own, for the comparison."""
    with contextlib.suppress(OSError):
        writer.write(await reader.read(CHUNK))
        await writer.drain()
        writer.close()
        await writer.wait_closed()


async def main(certificate: str, port: int) -> None:
    """Serve until standard input ends."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["muxado/2"])
    plain = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    plain.load_cert_chain(certificate)
    host = "127.0.0.1"
    next_port = port + 1 if port else 0
    async with (
        muxado.serve(serve_session, host, port, ssl=context, config=CONFIG) as server,
        await asyncio.start_server(
            serve_connection, host, next_port, ssl=plain, backlog=1024
        ) as connections,
    ):
        ports = [server.addresses[0][1], connections.sockets[0].getsockname()[1]]
        print(json.dumps(ports), flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.buffer.read)


def run() -> None:
    """Run the server as its command line says."""
    try:
        run_in_best_loop(main(sys.argv[1], int(sys.argv[2])))
    except OSError as exc:
        sys.exit(f"{exc}")


if __name__ == "__main__":
    run()
