"""httpx on asyncio: two hundred requests at once over one connection, a stream for each."""

import asyncio

import httpx
from aiohttp import web

import muxado
from muxado.adapters.httpx import AsyncTransport


async def square(request: web.Request) -> web.Response:
    return web.json_response(int(request.match_info["number"]) ** 2)


async def main() -> None:
    app = web.Application()
    app.add_routes([web.get("/{number}", square)])
    runner = web.AppRunner(app)
    await runner.setup()
    assert runner.server is not None
    handler = runner.server

    async def serve(session: muxado.Session) -> None:
        await session.create_server(handler).serve_forever()

    async with muxado.serve(serve, "127.0.0.1", 0) as server:
        host, port = server.addresses[0]
        async with muxado.connect(host, port) as session:
            transport = AsyncTransport(session, limits=httpx.Limits(max_connections=None))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://service", timeout=60
            ) as http:
                answers = await asyncio.gather(*[http.get(f"/{n}") for n in range(200)])
                print(f"{len(answers)} answers, the last one is {answers[-1].json()}")
                print(f"{session.stats().streams_opened} streams, one connection")
                assert answers[-1].json() == 199**2
    await runner.cleanup()


asyncio.run(main())
