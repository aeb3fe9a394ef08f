"""An aiohttp application on a machine behind NAT, called over the connection it makes.

The agent has no port open. It connects to the gateway, and the gateway calls its application, with
aiohttp's client and a stream for each connection.
"""

import asyncio

import aiohttp
from aiohttp import web

import muxado
from muxado.adapters.aiohttp import Connector, create_server


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=f"hello {request.match_info['name']}, from behind NAT")


async def agent(host: str, port: int) -> None:
    app = web.Application()
    app.add_routes([web.get("/{name}", hello)])
    runner = web.AppRunner(app)
    await runner.setup()
    assert runner.server is not None
    async with muxado.connect(host, port) as session:
        await create_server(session, runner.server).serve_forever()
    await runner.cleanup()


async def main() -> None:
    async with muxado.listen("127.0.0.1", 0) as gateway, asyncio.TaskGroup() as group:
        group.create_task(agent(*gateway.addresses[0]))
        async with (
            await gateway.accept() as session,
            aiohttp.ClientSession(connector=Connector(session)) as http,
        ):
            urls = [f"http://agent/{name}" for name in ("Ada", "Grace", "Barbara")]
            for url in urls:
                async with http.get(url) as response:
                    text = await response.text()
                    print(response.status, text)
                    assert response.status == 200


asyncio.run(main())
