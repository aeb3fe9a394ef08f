"""The HTTP servers of Python, as one: the same service on streams that Go opens.

`POST /echo` gives back the body, in chunks if it came in chunks; `GET /size/N?seed=S` gives N
bytes, with their SHA-256 in `X-Sha256`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvicorn
from aiohttp import web
from hypercorn.config import Config as HypercornConfig
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import muxado.adapters.hypercorn
import muxado.adapters.uvicorn
import muxado.sync
from muxado import Session
from muxado.adapters.socketserver import HTTPServer

from .helpers import MIB, data_of, sha256
from .http_clients import async_pieces, pieces

HASH = "X-Sha256"


# aiohttp


async def aiohttp_echo(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    if "Transfer-Encoding" not in request.headers:
        return web.Response(body=body)
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    for piece in pieces(body):
        await response.write(piece)
    await response.write_eof()
    return response


async def aiohttp_size(request: web.Request) -> web.Response:
    data = data_of(int(request.match_info["size"]), int(request.query["seed"]))
    return web.Response(body=data, headers={HASH: sha256(data)})


@asynccontextmanager
async def by_aiohttp(session: Session) -> AsyncIterator[None]:
    app = web.Application(client_max_size=8 * MIB)
    app.add_routes([web.post("/echo", aiohttp_echo), web.get("/size/{size}", aiohttp_size)])
    runner = web.AppRunner(app)
    await runner.setup()
    assert runner.server is not None
    async with session.create_server(runner.server):
        yield
    await runner.cleanup()


# An ASGI application, by uvicorn and by hypercorn


async def asgi_echo(request: Request) -> Response:
    body = await request.body()
    if "transfer-encoding" in request.headers:
        return StreamingResponse(async_pieces(body))
    return Response(body)


async def asgi_size(request: Request) -> Response:
    data = data_of(int(request.path_params["size"]), int(request.query_params["seed"]))
    return Response(data, headers={HASH: sha256(data)})


APPLICATION = Starlette(
    routes=[Route("/echo", asgi_echo, methods=["POST"]), Route("/size/{size}", asgi_size)]
)


@asynccontextmanager
async def by_uvicorn(session: Session) -> AsyncIterator[None]:
    config = uvicorn.Config(APPLICATION, log_config=None, ws="none", lifespan="off")
    server = muxado.adapters.uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        serving = group.create_task(server.serve_session(session))
        try:
            yield
        finally:
            serving.cancel()
            server.should_exit = True


@asynccontextmanager
async def by_hypercorn(session: Session) -> AsyncIterator[None]:
    config = HypercornConfig()
    config.errorlog = None
    async with muxado.adapters.hypercorn.Server(APPLICATION, config) as server:
        task = asyncio.get_running_loop().create_task(server.serve_session(session))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


# The standard library's, in threads


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        data = data_of(int(url.path.removeprefix("/size/")), int(parse_qs(url.query)["seed"][0]))
        self.send_response(200)
        self.send_header(HASH, sha256(data))
        self.answer(data)

    def do_POST(self) -> None:
        chunked = "Transfer-Encoding" in self.headers
        body = self.chunks() if chunked else self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        if not chunked:
            self.answer(body)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces(body):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def answer(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()  # no trailers
        return b"".join(parts)

    def log_message(self, format: str, *args: object) -> None:
        pass


@asynccontextmanager
async def by_http_server(session: muxado.sync.Session) -> AsyncIterator[None]:
    with HTTPServer(session, Handler) as server:
        server.daemon_threads = False  # leaving the block waits for the handlers
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            # Go keeps connections that it may use again, and their handlers wait for more.
            await asyncio.to_thread(end, session)
            await asyncio.to_thread(thread.join)


def end(session: muxado.sync.Session) -> None:
    session.close()
    session.wait_closed()


# By name, and those that use a session of `muxado.sync`.
SERVERS: dict[str, Callable[[Any], AbstractAsyncContextManager[None]]] = {
    "aiohttp": by_aiohttp,
    "uvicorn": by_uvicorn,
    "hypercorn": by_hypercorn,
    "http.server": by_http_server,
}
THREADED = {"http.server"}
