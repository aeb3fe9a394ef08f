"""A Starlette application over streams, by uvicorn's and by hypercorn's own machinery."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import uvicorn
from hypercorn.config import Config as HypercornConfig
from hypercorn.logging import Logger
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

import muxado.adapters.hypercorn
import muxado.adapters.uvicorn
from muxado import Session
from muxado.adapters.httpx import AsyncTransport

from .conftest import PATIENCE, Ends

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


class Application:
    """An application that notes its lifespan."""

    def __init__(self) -> None:
        self.events: list[str] = []
        routes = [
            Route("/hello", hello),
            Route("/echo", echo, methods=["POST"]),
            Route("/broken", broken),
        ]
        self.asgi = Starlette(routes=routes, lifespan=self.lifespan)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.events.append("startup")
        yield
        self.events.append("shutdown")


async def hello(request: Request) -> Response:
    return JSONResponse({"path": request.url.path, "from": request.client and request.client.host})


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def broken(request: Request) -> Response:
    raise ArithmeticError("no")


@asynccontextmanager
async def by_uvicorn(app: Application, session: Session) -> AsyncIterator[None]:
    config = uvicorn.Config(app.asgi, log_config=None, http="h11", ws="none")
    server = muxado.adapters.uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        group.create_task(server.serve_session(session))
        yield
        server.should_exit = True


@asynccontextmanager
async def by_hypercorn(app: Application, session: Session) -> AsyncIterator[None]:
    config = HypercornConfig()
    config.errorlog = None
    async with muxado.adapters.hypercorn.Server(app.asgi, config) as server:
        task = asyncio.get_running_loop().create_task(server.serve_session(session))
        yield
        task.cancel()
        await asyncio.wait([task])


async def serve_by_uvicorn(session: Session) -> None:
    config = uvicorn.Config(Application().asgi, log_config=None, http="h11", ws="none")
    server = muxado.adapters.uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve())
    try:
        await server.serve_session(session)
    finally:
        server.should_exit = True
        await serving


async def serve_by_hypercorn(session: Session) -> None:
    config = HypercornConfig()
    config.errorlog = None
    async with muxado.adapters.hypercorn.Server(Application().asgi, config) as server:
        await server.serve_session(session)


@pytest.fixture(params=[by_uvicorn, by_hypercorn])
async def http(request: pytest.FixtureRequest, ends: Ends) -> AsyncIterator[httpx.AsyncClient]:
    app = Application()
    async with request.param(app, ends.serving):
        transport = AsyncTransport(ends.calling)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://service", timeout=PATIENCE
        ) as http:
            yield http
    assert app.events == ["startup", "shutdown"]


async def test_a_request(http: httpx.AsyncClient, ends: Ends) -> None:
    for _ in range(3):
        response = await http.get("/hello")
        assert response.status_code == 200
        host = ends.serving.get_extra_info("peername")[0]
        assert response.json() == {"path": "/hello", "from": host}
    assert ends.calling.stats().streams_opened == 1


async def test_many_at_once(http: httpx.AsyncClient) -> None:
    async def post(number: int) -> None:
        body = b"%d" % number * 10_000
        assert (await http.post("/echo", content=body)).content == body

    await asyncio.gather(*map(post, range(30)))


async def test_a_body_larger_than_the_window(http: httpx.AsyncClient) -> None:
    body = bytes(range(256)) * (2 * MIB // 256)
    assert (await http.post("/echo", content=body)).content == body


async def test_an_application_that_fails(http: httpx.AsyncClient) -> None:
    assert (await http.get("/broken")).status_code == 500
    assert (await http.get("/hello")).status_code == 200


@pytest.mark.parametrize("serve", [serve_by_uvicorn, serve_by_hypercorn])
async def test_the_end_of_the_session_comes_out_as_it_is(
    ends: Ends, serve: Callable[[Session], Awaitable[None]]
) -> None:
    serving = asyncio.ensure_future(serve(ends.serving))
    async with ends.calling.open() as stream:
        await stream.write(b"GET /hello HTTP/1.1\r\nHost: service\r\n\r\n")
        await stream.readuntil(b"\r\n\r\n")  # it is idle now
        ends.calling.abort(7)
    with pytest.raises(muxado.SessionAborted) as caught:
        await serving
    assert caught.value.code == 7


class FailingLogger(Logger):
    """A logger of the application's that fails, of all, where hypercorn answers by itself."""

    async def access(self, request: Any, response: Any, request_time: float) -> None:
        if response["status"] == 404:
            raise ArithmeticError("on purpose")


async def test_a_connection_that_fails_is_logged_and_hurts_no_other(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    config = HypercornConfig()
    config.logger_class = FailingLogger
    config.server_names = ["service"]
    async with (
        muxado.adapters.hypercorn.Server(Application().asgi, config) as server,
        ends.calling.open() as other,
        ends.calling.open() as failing,
    ):
        serving = asyncio.ensure_future(server.serve_session(ends.serving))
        await other.write(b"GET /hello HTTP/1.1\r\n")
        await failing.write(b"GET /hello HTTP/1.1\r\nHost: elsewhere\r\n\r\n")
        assert (await failing.read()).startswith(b"HTTP/1.1 404 ")
        await other.write(b"Host: service\r\nConnection: close\r\n\r\n")
        assert (await other.read()).startswith(b"HTTP/1.1 200 ")
        ends.calling.close()
        await serving
    (record,) = [entry for entry in caplog.records if entry.name == "muxado"]
    assert "ArithmeticError: on purpose" in caplog.text
    assert record.levelno == logging.ERROR


class Noting:
    """An ASGI application that keeps the scopes of its requests."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
            return
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


Serve = Callable[..., Awaitable[None]]


@asynccontextmanager
async def uvicorn_of(app: Any, **settings: Any) -> AsyncIterator[Serve]:
    config = uvicorn.Config(app, log_config=None, http="h11", ws="wsproto", **settings)
    server = muxado.adapters.uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        yield server.serve_session
        server.should_exit = True


@asynccontextmanager
async def hypercorn_of(app: Any, **settings: Any) -> AsyncIterator[Serve]:
    config = HypercornConfig()
    config.errorlog = None
    for name, value in settings.items():
        setattr(config, name.removeprefix("ssl_"), value)
    async with muxado.adapters.hypercorn.Server(app, config) as server:
        yield server.serve_session


EITHER: pytest.MarkDecorator = pytest.mark.parametrize("server_of", [uvicorn_of, hypercorn_of])


@EITHER
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_scope_has_the_addresses_of_its_session(
    server_of: Any, host: str, anyio_backend: object
) -> None:
    app = Noting()
    async with server_of(app) as serve:
        try:
            server = await muxado.serve(serve, host, 0)
        except OSError:
            pytest.skip(f"there is no {host} here")
        async with server, muxado.connect(*server.addresses[0][:2]) as session:
            async with httpx.AsyncClient(transport=AsyncTransport(session)) as http:
                await http.get("http://service/")
            ours, peers = session.local_address[:2], session.remote_address[:2]
    (scope,) = app.scopes
    assert scope["client"] == ours
    assert scope["server"] == peers


@EITHER
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_scope_leads_to_the_session_and_its_certificate(
    server_of: Any, kind: str, anyio_backend: object
) -> None:
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.verify_mode = ssl.CERT_REQUIRED
    authority.issue_cert("service.example").configure_cert(server_side)
    authority.configure_trust(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    authority.issue_cert("agent-7.example").configure_cert(client_side)
    app = Noting()
    async with (
        server_of(app) as serve,
        muxado.serve(serve, "127.0.0.1", 0, ssl=server_side) as server,
        muxado.connect(
            *server.addresses[0], ssl=client_side, server_hostname="service.example"
        ) as session,
    ):
        if kind == "http":
            async with httpx.AsyncClient(transport=AsyncTransport(session)) as http:
                await http.get("http://service/")
        else:
            protocol = ClientProtocol(parse_uri("ws://service/"))
            _, socket = await session.create_connection(lambda: ClientConnection(protocol))
            await socket.handshake()
            await socket.wait_closed()
        (serving,) = server.sessions
        about = app.scopes[0]["extensions"]["muxado"]
        assert about["session"] is serving
        assert about["peercert"]["subjectAltName"] == (("DNS", "agent-7.example"),)


@EITHER
@pytest.mark.parametrize("by", ["argument", "config"])
async def test_tls_inside_the_streams(ends: Ends, server_of: Any, by: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("service.internal")
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    settings: dict[str, str] = {}
    context = None
    if by == "argument":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
    else:
        chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
        chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(str(key))
        settings = {"ssl_certfile": str(chain), "ssl_keyfile": str(key)}
    app = Noting()
    async with server_of(app, **settings) as serve:
        serving = asyncio.ensure_future(serve(ends.serving, ssl=context))
        transport = AsyncTransport(ends.calling, verify=client_side)
        async with httpx.AsyncClient(transport=transport, timeout=PATIENCE) as http:
            for _ in range(2):
                assert (await http.get("https://service.internal/")).status_code == 204
            assert [scope["scheme"] for scope in app.scopes] == ["https", "https"]
            assert ends.calling.stats().streams_opened == 1
            await ends.serving.shutdown(timeout=None)
        await serving


async def fails_to_start(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan", "a request has come through"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def start_of_older_versions(self: uvicorn.Server, sockets: Any = None) -> None:
    await self.lifespan.startup()
    if self.lifespan.should_exit:
        self.should_exit = True
        return
    self.started = True


@pytest.mark.parametrize("older", [False, True])
async def test_uvicorn_serves_nothing_after_a_start_that_failed(
    ends: Ends, older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if older:
        monkeypatch.setattr(uvicorn.Server, "startup", start_of_older_versions)
    config = uvicorn.Config(fails_to_start, log_config=None, lifespan="on", ws="none")
    server = muxado.adapters.uvicorn.Server(config)

    async def run() -> None:
        with suppress(SystemExit):  # which a task would hand to the loop
            await server.serve()

    running = asyncio.ensure_future(run())
    with pytest.raises(RuntimeError, match="not started"):
        await server.serve_session(ends.serving)
    await running
    with pytest.raises(RuntimeError, match="not started"):
        await server.serve_session(ends.serving)


async def test_uvicorn_serves_nothing_after_its_end(ends: Ends) -> None:
    config = uvicorn.Config(Noting(), log_config=None, ws="none")
    server = muxado.adapters.uvicorn.Server(config)
    running = asyncio.ensure_future(server.serve())
    serving = asyncio.ensure_future(server.serve_session(ends.serving))
    async with httpx.AsyncClient(transport=AsyncTransport(ends.calling)) as http:
        assert (await http.get("http://service/")).status_code == 204
    server.should_exit = True
    await running
    await serving  # it ends with the server
    with pytest.raises(RuntimeError, match="has ended"):
        await server.serve_session(ends.serving)
