"""Agents reach a web application through its own port, and the application calls them by httpx.

The application keeps the one port that it has: agents dial a WebSocket at /mux/, each serves HTTP
on the streams of its session, and the application's other paths are as they were.
"""

import asyncio
import contextlib

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import muxado
import muxado.adapters.uvicorn
from muxado.adapters.httpx import AsyncTransport
from muxado.carriers.asgi import mount
from muxado.carriers.websockets import connect

TOKENS = {"Bearer one": "north", "Bearer two": "south"}
agents: dict[str, muxado.Session] = {}
changed = asyncio.Event()


# The application


async def agent_arrived(session: muxado.Session) -> None:
    """Keep an agent's session for as long as it lives."""
    headers: dict[str, str] = session.get_extra_info("headers")
    name = TOKENS.get(headers.get("authorization", ""))
    if name is None:
        session.go_away(403, b"no such token")
        return
    session.name = name
    agents[name] = session
    changed.set()
    try:
        await session.wait_closed()
    finally:
        if agents.get(name) is session:
            del agents[name]


async def ask_agent(request: Request) -> PlainTextResponse:
    """Call an agent, as if it could be reached."""
    session = agents.get(request.path_params["name"])
    if session is None:
        return PlainTextResponse("this agent is not connected", 503)
    async with httpx.AsyncClient(transport=AsyncTransport(session)) as http:
        answer = await http.get("http://agent/status")
    return PlainTextResponse(f"{session.name}: {answer.text}")


application = Starlette(
    routes=[
        Route("/agents/{name}", ask_agent),
        Mount("/mux", mount(agent_arrived)),
    ]
)


# An agent


async def status(request: Request) -> PlainTextResponse:
    return PlainTextResponse("all is well")


async def agent(url: str, token: str) -> None:
    """Stay connected, and serve HTTP to the application."""
    server = muxado.adapters.uvicorn.Server(
        uvicorn.Config(
            Starlette(routes=[Route("/status", status)]), log_config=None, lifespan="off"
        )
    )

    async def dial() -> muxado.Session:
        return await connect(url, headers={"Authorization": token})

    async with muxado.Dialer(dial=dial) as dialer, asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        async for session in dialer:
            with contextlib.suppress(muxado.SessionError):  # the next one comes
                await server.serve_session(session)


# Both, in one process


async def main() -> None:
    web = uvicorn.Server(
        uvicorn.Config(
            application,
            "127.0.0.1",
            0,
            log_config=None,
            ws="websockets-sansio",
            ws_ping_interval=None,
            ws_per_message_deflate=False,
        )
    )
    serving = asyncio.create_task(web.serve())
    while not web.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    host, port = web.servers[0].sockets[0].getsockname()
    dialled = [asyncio.create_task(agent(f"ws://{host}:{port}/mux/", token)) for token in TOKENS]
    while len(agents) < len(TOKENS):
        changed.clear()
        await changed.wait()
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as http:
        for name in TOKENS.values():
            print((await http.get(f"/agents/{name}")).text)
    for task in dialled:
        task.cancel()
    await asyncio.gather(*dialled, return_exceptions=True)
    web.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main())
