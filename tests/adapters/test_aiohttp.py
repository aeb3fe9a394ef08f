"""aiohttp's server and client over streams."""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

import muxado
from muxado.adapters.aiohttp import Connector

from .conftest import Ends, Tls

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


async def hello(request: web.Request) -> web.Response:
    return web.json_response({"path": request.path, "from": request.remote})


async def echo(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    async for chunk in request.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


async def chat(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data[::-1])
    return socket


async def broken(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@asynccontextmanager
async def serving(
    ends: Ends, folder: Path, context: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    app = web.Application(client_max_size=64 * MIB)
    app.add_routes(
        [
            web.get("/hello", hello),
            web.post("/echo", echo),
            web.get("/chat", chat),
            web.get("/broken", broken),
            web.static("/files", folder),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    assert runner.server is not None
    async with ends.serving.create_server(runner.server, ssl=context):
        yield
    await runner.cleanup()


@pytest.fixture
async def http(ends: Ends, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        serving(ends, tmp_path),
        aiohttp.ClientSession(connector=Connector(ends.calling)) as http,
    ):
        yield http


async def test_a_request(http: aiohttp.ClientSession, ends: Ends) -> None:
    async with http.get("http://no.such.host/hello") as response:
        assert response.status == 200
        assert await response.json() == {
            "path": "/hello",
            "from": ends.serving.get_extra_info("peername")[0],
        }


async def test_many_requests_at_once(http: aiohttp.ClientSession) -> None:
    async def post(number: int) -> None:
        body = b"%d" % number * 10_000
        async with http.post("http://service/echo", data=body) as response:
            assert await response.read() == body

    await asyncio.gather(*map(post, range(50)))


async def test_connections_are_kept_alive(http: aiohttp.ClientSession, ends: Ends) -> None:
    for _ in range(5):
        async with http.get("http://service/hello") as response:
            await response.read()
    assert ends.calling.stats().streams_opened == 1


async def test_a_body_larger_than_the_window(http: aiohttp.ClientSession) -> None:
    body = bytes(range(256)) * (4 * MIB // 256)
    async with http.post("http://service/echo", data=io.BytesIO(body)) as response:
        assert await response.read() == body


async def test_a_file(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    data = bytes(range(256)) * 8192
    (tmp_path / "file").write_bytes(data)
    async with http.get("http://service/files/file") as response:
        assert await response.read() == data


async def test_a_websocket(http: aiohttp.ClientSession) -> None:
    async with http.ws_connect("ws://service/chat") as socket:
        await socket.send_str("muxado")
        assert await socket.receive_str() == "odaxum"


async def test_a_stream_that_is_reset(http: aiohttp.ClientSession) -> None:
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.get("http://service/broken")
    async with http.get("http://service/hello") as response:
        assert response.status == 200


async def test_a_session_that_has_ended(http: aiohttp.ClientSession, ends: Ends) -> None:
    ends.calling.close()
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.get("http://service/hello")


async def test_a_session_whose_peer_fell_silent(tcp_socket: socket.socket) -> None:
    config = muxado.Config(ping_interval=0.01, ping_timeout=0.01)
    async with muxado.connect(*tcp_socket.getsockname(), config=config) as session:
        await session.wait_closed()
        async with aiohttp.ClientSession(connector=Connector(session)) as http:
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await http.get("http://service/hello")
            assert isinstance(caught.value.__cause__, muxado.PeerTimeout)


async def test_https_inside_a_stream(ends: Ends, tls: Tls, tmp_path: Path) -> None:
    connector = Connector(ends.calling, ssl=tls.client)
    async with (
        serving(ends, tmp_path, tls.server),
        aiohttp.ClientSession(connector=connector) as http,
    ):
        async with http.get("https://service.internal/hello") as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.get("https://elsewhere.internal/hello")
        wrong = aiohttp.Fingerprint(bytes(32))
        with pytest.raises(aiohttp.ServerFingerprintMismatch):
            await http.get("https://service.internal/hello", ssl=wrong)
