"""httpx by the names of a cluster, through one server and through two."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import httpx
import pytest
from aiohttp import web

import muxado
from muxado.adapters.aiohttp import create_server
from muxado.cluster import Member
from muxado.cluster.httpx import Transport
from tests.cluster.fleets import fleet_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def serve_http(member: Member) -> None:
    """Serve HTTP on the streams of every session of a member."""

    async def hello(request: web.BaseRequest) -> web.Response:
        return web.Response(text=f"{request.host} {request.path} {await request.text()}")

    runner = web.ServerRunner(web.Server(hello))
    await runner.setup()
    http = runner.server
    assert http is not None
    try:
        async for session in member.dialer:
            with contextlib.suppress(muxado.SessionError):
                await create_server(session, http).serve_forever()
    finally:
        await runner.cleanup()


async def test_the_host_is_the_name(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, 2) as fleet:
        async with Member("web-1", fleet.places(0), None) as member:
            await member.connected()
            serving = asyncio.create_task(serve_http(member))
            for node in fleet.nodes:
                async with httpx.AsyncClient(transport=Transport(node)) as http:
                    answers = await asyncio.gather(
                        *[http.post(f"http://web-1/{n}", content=str(n)) for n in range(20)]
                    )
                    texts = [answer.text for answer in answers]
                    assert texts == [f"web-1 /{n} {n}" for n in range(20)]
                    with pytest.raises(httpx.ConnectError, match="no session has the name web-2"):
                        await http.get("http://web-2/")
                    with pytest.raises(httpx.ConnectError, match="DNS label"):
                        await http.get("http://web_2/")
        await serving
