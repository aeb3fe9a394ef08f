"""Sessions over WebSockets through real HTTP proxies, with their timers shortened."""

from __future__ import annotations

import asyncio
import os
import runpy
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from tests.patience import patience

import muxado
from muxado.carriers.asgi import mount
from muxado.carriers.websockets import connect

from .helpers import free_port

pytestmark = pytest.mark.anyio

EXAMPLE = Path(__file__).parent.parent / "examples/agents_by_websocket.py"

NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/a;
    proxy_temp_path {folder}/b;
    fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d;
    scgi_temp_path {folder}/e;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{backend};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout {seconds}s;
        }}
    }}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client {seconds}s
    timeout server {seconds}s
    timeout tunnel {seconds}s
frontend web
    bind 127.0.0.1:{port}
    default_backend application
backend application
    server one 127.0.0.1:{backend}
"""


def nginx(folder: Path, **settings: int) -> list[str]:
    """Write nginx's configuration; return the command that runs it."""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, **settings))
    return ["nginx", "-e", f"{folder}/log", "-p", str(folder), "-c", str(config)]


def haproxy(folder: Path, **settings: int) -> list[str]:
    """Write HAProxy's configuration; return the command that runs it."""
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(**settings))
    return ["haproxy", "-db", "-q", "-f", str(config)]


PROXIES = [pytest.param(nginx, id="nginx"), pytest.param(haproxy, id="haproxy")]
Proxy = Callable[..., list[str]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def echo(stream: muxado.Stream) -> None:
    await stream.write(await stream.read())


async def ask(session: muxado.Session, question: bytes) -> bytes:
    async with session.open() as stream:
        await stream.write(question)
        stream.write_eof()
        return await stream.read()


@asynccontextmanager
async def application() -> AsyncIterator[int]:
    """Run an application that answers on each session's streams; give its port."""

    async def serve(session: muxado.Session) -> None:
        await session.serve(echo)

    async with web_server(mount(serve, config=muxado.Config(ping_interval=1000))) as port:
        yield port


@asynccontextmanager
async def web_server(app: Any) -> AsyncIterator[int]:
    """Run an application under uvicorn; give its port."""
    settings = uvicorn.Config(
        app,
        "127.0.0.1",
        0,
        ws="websockets-sansio",
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        log_level="warning",
    )
    server = uvicorn.Server(settings)
    serving = asyncio.create_task(server._serve())  # without taking the signals
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def running(
    proxy: Proxy, folder: Path, port: int, backend: int, seconds: int = 1
) -> AsyncIterator[None]:
    """Run a proxy in front of an application, with such timeouts, until the block is left."""
    command = proxy(folder, port=port, backend=backend, seconds=seconds)
    program = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        assert not os.environ.get("MUXADO_REQUIRE_PROXIES"), f"{command[0]} is not installed"
        pytest.skip(f"{command[0]} is not installed")
    process = await asyncio.create_subprocess_exec(program, *command[1:])
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                assert process.returncode is None, "the proxy has ended"
                await asyncio.sleep(0.02)
                continue
            writer.close()
            break
        yield
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize("proxy", PROXIES)
async def test_an_idle_session_outlives_the_timeout_by_its_pings(
    proxy: Proxy, tmp_path: Path
) -> None:
    async with asyncio.timeout(patience(30)), application() as backend:
        port = free_port()
        async with running(proxy, tmp_path, port, backend):
            config = muxado.Config(ping_interval=0.3, ping_timeout=patience(10))
            async with connect(f"ws://127.0.0.1:{port}/mux/", config=config) as session:
                await asyncio.sleep(2.5)  # the time is what is tested
                data = os.urandom(3_000_000)
                assert await ask(session, data) == data


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_proxy_that_ends_an_idle_session_is_noticed(proxy: Proxy, tmp_path: Path) -> None:
    async with asyncio.timeout(patience(30)), application() as backend:
        port = free_port()
        async with running(proxy, tmp_path, port, backend):
            config = muxado.Config(ping_interval=1000)
            async with connect(f"ws://127.0.0.1:{port}/mux/", config=config) as session:
                reason = await session.wait_closed()
                assert reason.by_peer
                assert not reason.clean


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_dialer_outlives_a_restart_of_the_proxy(proxy: Proxy, tmp_path: Path) -> None:
    async with asyncio.timeout(patience(30)), application() as backend:
        port = free_port()
        url = f"ws://127.0.0.1:{port}/mux/"
        async with muxado.Dialer(dial=lambda: connect(url)) as dialer:
            for _ in range(2):
                async with running(proxy, tmp_path, port, backend):
                    session = await dialer.session()
                    assert await ask(session, b"hello") == b"hello"
                await session.wait_closed()


@pytest.mark.parametrize("proxy", PROXIES)
async def test_the_example_works_through_a_proxy_as_it_is_installed(
    proxy: Proxy, tmp_path: Path
) -> None:
    """Agents dial the proxy, and what asks for them comes through it too."""
    example = runpy.run_path(str(EXAMPLE))
    async with (
        asyncio.timeout(patience(30)),
        web_server(example["application"]) as backend,
        asyncio.TaskGroup() as group,
    ):
        port = free_port()
        async with running(proxy, tmp_path, port, backend, seconds=60):
            url = f"ws://127.0.0.1:{port}/mux/"
            dialled = [
                group.create_task(example["agent"](url, token)) for token in example["TOKENS"]
            ]
            while len(example["agents"]) < 2:
                example["changed"].clear()
                await example["changed"].wait()
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                for name in ("north", "south"):
                    assert (await http.get(f"/agents/{name}")).text == f"{name}: all is well"
                assert (await http.get("/agents/west")).status_code == 503
            for task in dialled:
                task.cancel()
