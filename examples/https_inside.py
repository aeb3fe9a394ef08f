"""HTTPS inside a stream, also through a gateway that carries the session; httpx calls aiohttp."""

import asyncio
import ssl

import httpx
import trustme
from aiohttp import web

import muxado
from muxado.adapters.httpx import AsyncTransport

authority = trustme.CA()
server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
authority.issue_cert("service.internal").configure_cert(server_context)
client_context = ssl.create_default_context()
authority.configure_trust(client_context)


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=f"{request.scheme} to {request.host}")


async def main() -> None:
    app = web.Application()
    app.add_routes([web.get("/", hello)])
    runner = web.AppRunner(app)
    await runner.setup()
    assert runner.server is not None
    handler = runner.server

    async def serve(session: muxado.Session) -> None:
        await session.create_server(handler, ssl=server_context).serve_forever()

    async with (
        muxado.serve(serve, "127.0.0.1", 0) as server,
        muxado.connect(*server.addresses[0]) as session,
        httpx.AsyncClient(transport=AsyncTransport(session, verify=client_context)) as client,
    ):
        response = await client.get("https://service.internal/")
        print(response.text)
        assert response.text == "https to service.internal"
        try:
            await client.get("https://elsewhere.internal/")
        except httpx.ConnectError:
            print("the certificate is for another name")
    await runner.cleanup()


asyncio.run(main())
