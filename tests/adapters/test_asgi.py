"""A Starlette application over streams, by uvicorn's and by hypercorn's own machinery."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from hypercorn.config import Config as HypercornConfig
from hypercorn.logging import Logger
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

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
    with pytest.raises(muxado.ProtocolError) as caught:
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
