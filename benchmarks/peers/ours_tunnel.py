"""A small reverse tunnel of muxado's sessions and relays, on each front end.

The server has a public port besides the one for sessions; the agent dials the server, and connects
each stream to the service. `gopeers/tunnel.go` is the same in Go.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading

import trio

import muxado
import muxado.sync
import muxado.trio

from .common import BACKLOG, HOST, Options, client_context, server_context
from .work import run_loop

CONFIG = muxado.Config(max_incoming_streams=1_000_000, accept_backlog=BACKLOG)
LISTEN_BACKLOG = 1024


def announce(port: int, public: int) -> None:
    """Tell the driver where the server listens for sessions, and where for users."""
    print(json.dumps({"port": port, "public": public}), flush=True)


def read_ports() -> tuple[int, int]:
    """Return the port of the server, and that of the service."""
    port, service = map(int, sys.stdin.readline().split())
    return port, service


def connected() -> None:
    """Tell the driver that this end has its session."""
    print("{}", flush=True)


# asyncio: relays that are protocols, without a task for each connection


def serve_asyncio(options: Options) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with muxado.listen(HOST, 0, ssl=server_context(options), config=CONFIG) as listener:
            arrived = loop.create_future()
            public = await loop.create_server(
                lambda: muxado.Relay(arrived.result().open()), HOST, 0, backlog=LISTEN_BACKLOG
            )
            announce(listener.addresses[0][1], public.sockets[0].getsockname()[1])
            session = await listener.accept()
            arrived.set_result(session)
            connected()
            await session.wait_closed()

    run_loop(options.loop, main)


def drive_asyncio(options: Options) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        port, service = read_ports()
        dials: set[asyncio.Task[None]] = set()

        async def connect(stream: muxado.Stream) -> None:
            try:
                await loop.create_connection(lambda: muxado.Relay(stream), HOST, service)
            except OSError:
                stream.reset()

        def dial(stream: muxado.Stream) -> None:
            task = loop.create_task(connect(stream))
            dials.add(task)
            task.add_done_callback(dials.discard)

        async with muxado.connect(
            HOST, port, ssl=client_context(options), config=CONFIG
        ) as session:
            session.on_stream(dial)
            connected()
            await session.wait_closed()

    run_loop(options.loop, main)


# Threads: one for each connection


def serve_threads(options: Options) -> None:
    def pass_on(session: muxado.sync.Session, sock: socket.socket) -> None:
        muxado.sync.relay(session.open(), sock)

    with (
        muxado.sync.listen(HOST, 0, ssl=server_context(options), config=CONFIG) as listener,
        socket.create_server((HOST, 0), backlog=LISTEN_BACKLOG) as public,
    ):
        announce(listener.addresses[0][1], public.getsockname()[1])
        session = listener.accept()
        connected()
        while True:
            sock, _ = public.accept()
            threading.Thread(target=pass_on, args=[session, sock], daemon=True).start()


def drive_threads(options: Options) -> None:
    port, service = read_ports()

    def connect(stream: muxado.sync.Stream) -> None:
        muxado.sync.relay(stream, socket.create_connection((HOST, service)))

    session = muxado.sync.connect(HOST, port, ssl=client_context(options), config=CONFIG)
    connected()
    session.serve(connect)


# trio: two tasks for each connection


def serve_trio(options: Options) -> None:
    async def main() -> None:
        async with muxado.trio.listen(
            HOST, 0, ssl=server_context(options), config=CONFIG
        ) as listener:
            (public,) = await trio.open_tcp_listeners(0, host=HOST, backlog=LISTEN_BACKLOG)
            announce(listener.addresses[0][1], public.socket.getsockname()[1])
            async with await listener.accept() as session:

                async def pass_on(sock: trio.SocketStream) -> None:
                    await muxado.trio.relay(session.open(), sock)

                connected()
                await trio.serve_listeners(pass_on, [public])

    trio.run(main)


def drive_trio(options: Options) -> None:
    async def main() -> None:
        port, service = read_ports()

        async def connect(stream: muxado.trio.Stream) -> None:
            await muxado.trio.relay(stream, await trio.open_tcp_stream(HOST, service))

        async with muxado.trio.connect(
            HOST, port, ssl=client_context(options), config=CONFIG
        ) as session:
            connected()
            await session.serve(connect)

    trio.run(main)


SERVERS = {"threads": serve_threads, "trio": serve_trio}
AGENTS = {"threads": drive_threads, "trio": drive_trio}


def serve(options: Options) -> None:
    """Be the tunnel's server until the process is ended."""
    SERVERS.get(options.loop, serve_asyncio)(options)


def drive(options: Options) -> None:
    """Be the tunnel's agent until the process is ended."""
    AGENTS.get(options.loop, drive_asyncio)(options)
