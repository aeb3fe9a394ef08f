"""One ASGI application on two machines behind NAT: served by uvicorn, and by hypercorn."""

import asyncio

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import muxado
import muxado.adapters.hypercorn
import muxado.adapters.uvicorn
from muxado.adapters.httpx import AsyncTransport


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"hello {request.path_params['name']}")


app = Starlette(routes=[Route("/{name}", hello)])


async def by_uvicorn(host: str, port: int) -> None:
    server = muxado.adapters.uvicorn.Server(uvicorn.Config(app, log_config=None))
    async with muxado.connect(host, port) as session, asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        await server.serve_session(session)
        server.should_exit = True


async def by_hypercorn(host: str, port: int) -> None:
    async with (
        muxado.connect(host, port) as session,
        muxado.adapters.hypercorn.Server(app) as server,
    ):
        await server.serve_session(session)


async def main() -> None:
    for agent in (by_uvicorn, by_hypercorn):
        async with muxado.listen("127.0.0.1", 0) as gateway, asyncio.TaskGroup() as group:
            group.create_task(agent(*gateway.addresses[0]))
            async with (
                await gateway.accept() as session,
                httpx.AsyncClient(transport=AsyncTransport(session)) as http,
            ):
                response = await http.get("http://agent/Ada")
                print(agent.__name__, response.status_code, response.text)
                assert response.text == "hello Ada"


asyncio.run(main())
