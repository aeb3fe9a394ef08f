"""Two sessions, connected over each road; servers and proxies are real ones."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from aiohttp import web
from hypercorn.asyncio import serve as serve_hypercorn
from hypercorn.config import Config as HypercornConfig

import muxado.carriers.aiohttp
import muxado.carriers.asgi
import muxado.carriers.websockets
from muxado import Config, Session
from tests.certificates import Tls
from tests.servers import microsocks, ssh_server, tinyproxy
from tests.transports import Connect, Ends

connect = muxado.carriers.websockets.connect

Handler = Callable[[Session], Awaitable[None]]
Serving = AbstractAsyncContextManager[int]


class Arrivals:
    """Takes the sessions of a server, and keeps each for as long as it lives."""

    def __init__(self) -> None:
        self.sessions: asyncio.Queue[Session] = asyncio.Queue()

    async def handle(self, session: Session) -> None:
        self.sessions.put_nowait(session)
        await session.wait_closed()


@asynccontextmanager
async def websockets_server(
    handler: Handler, config: Config, ssl: Any = None
) -> AsyncIterator[int]:
    """Serve by the library `websockets`; give the port."""
    serve = muxado.carriers.websockets.serve
    async with serve(handler, "127.0.0.1", 0, ssl=ssl, config=config) as server:
        yield server.addresses[0][1]


def uvicorn_server(kind: str) -> Callable[[Handler, Config], Serving]:
    """Return what serves under uvicorn, with this WebSocket implementation."""

    @asynccontextmanager
    async def serving(handler: Handler, config: Config) -> AsyncIterator[int]:
        app = muxado.carriers.asgi.mount(handler, config=config)
        async with uvicorn_running(app, kind) as port:
            yield port

    return serving


@asynccontextmanager
async def uvicorn_running(app: Any, kind: str = "auto") -> AsyncIterator[int]:
    """Run an application under uvicorn; give the port."""
    settings = uvicorn.Config(
        app,
        "127.0.0.1",
        0,
        ws=kind,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        log_level="warning",
        lifespan="off",
    )
    server = uvicorn.Server(settings)
    serving = asyncio.create_task(server._serve())  # without taking the signals
    while not server.started:
        if serving.done():
            serving.result()
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def hypercorn_server(handler: Handler, config: Config) -> AsyncIterator[int]:
    """Serve under hypercorn; give the port."""
    settings = HypercornConfig()
    settings.bind = ["127.0.0.1:0"]
    settings.websocket_ping_interval = None
    settings.graceful_timeout = 1
    settings.errorlog = settings.accesslog = None
    sock = settings.create_sockets().insecure_sockets[0]
    sock.listen()
    port = sock.getsockname()[1]
    settings.bind = [f"fd://{sock.detach()}"]
    done = asyncio.Event()
    app: Any = muxado.carriers.asgi.mount(handler, config=config)
    serving = asyncio.create_task(serve_hypercorn(app, settings, shutdown_trigger=done.wait))
    try:
        yield port
    finally:
        done.set()
        await serving


@asynccontextmanager
async def aiohttp_server(handler: Handler, config: Config) -> AsyncIterator[int]:
    """Serve in an application of aiohttp; give the port."""
    app = web.Application()
    app.router.add_get("/mux", muxado.carriers.aiohttp.handler(handler, config=config))
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


SERVERS: dict[str, Callable[[Handler, Config], Serving]] = {
    "websockets": websockets_server,
    "uvicorn-websockets": uvicorn_server("websockets"),
    "uvicorn-websockets-sansio": uvicorn_server("websockets-sansio"),
    "uvicorn-wsproto": uvicorn_server("wsproto"),
    "hypercorn": hypercorn_server,
    "aiohttp": aiohttp_server,
}


def over(serving: Callable[[Handler, Config], Serving]) -> Connect:
    """Return what connects two sessions over a server."""

    @asynccontextmanager
    async def transport(config: Config, tls: Tls, path: str) -> AsyncIterator[Ends]:
        arrivals = Arrivals()
        async with serving(arrivals.handle, config) as port:
            client = await connect(f"ws://127.0.0.1:{port}/mux", config=config)
            yield Ends(client, await arrivals.sessions.get())

    return transport


@asynccontextmanager
async def over_wss(config: Config, tls: Tls, path: str) -> AsyncIterator[Ends]:
    arrivals = Arrivals()
    async with websockets_server(arrivals.handle, config, tls.server) as port:
        client = await connect(f"wss://localhost:{port}/mux", ssl=tls.client, config=config)
        yield Ends(client, await arrivals.sessions.get())


def through(proxy: Callable[[Path], AbstractContextManager[str]]) -> Connect:
    """Return what connects two sessions through a proxy."""

    @asynccontextmanager
    async def transport(config: Config, tls: Tls, path: str) -> AsyncIterator[Ends]:
        with tempfile.TemporaryDirectory() as folder, proxy(Path(folder)) as url:
            async with muxado.listen("127.0.0.1", 0, config=config) as listener:
                host, port = listener.addresses[0]
                client = await muxado.connect(host, port, proxy=url, config=config)
                yield Ends(client, await listener.accept())

    return transport


RELAY = str(Path(__file__).with_name("stdio_relay.py"))


@asynccontextmanager
async def over_command(config: Config, tls: Tls, path: str) -> AsyncIterator[Ends]:
    async with muxado.listen(path=path, config=config) as listener:
        client = await muxado.connect(command=[sys.executable, RELAY, path], config=config)
        yield Ends(client, await listener.accept())


@asynccontextmanager
async def over_ssh(config: Config, tls: Tls, path: str) -> AsyncIterator[Ends]:
    with tempfile.TemporaryDirectory() as folder, ssh_server(Path(folder)) as server:
        async with muxado.listen("127.0.0.1", 0, config=config) as listener:
            port = listener.addresses[0][1]
            command = server.command(None, "-W", f"127.0.0.1:{port}")
            client = await muxado.connect(command=command, config=config)
            yield Ends(client, await listener.accept())


# uvicorn's older implementation uses the part of the library that is going away.
OLDER = {
    "uvicorn-websockets": [
        pytest.mark.filterwarnings("ignore:The .websockets. implementation is deprecated"),
        pytest.mark.filterwarnings("ignore:(websockets|remove second argument)"),
    ]
}

ROADS = [
    pytest.param(over(serving), id=name, marks=OLDER.get(name, ()))
    for name, serving in SERVERS.items()
]
ROADS.append(pytest.param(over_wss, id="websockets-tls"))
ROADS.append(pytest.param(through(tinyproxy), id="tinyproxy"))
ROADS.append(pytest.param(through(microsocks), id="microsocks"))
ROADS.append(pytest.param(over_command, id="command"))
ROADS.append(pytest.param(over_ssh, id="ssh"))
