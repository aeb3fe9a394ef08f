"""A server that lies to its clients. `test_tunnel.py` has the clients that lie to a server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

import muxado
from muxado.cluster import Header
from muxado.cluster.control import welcome
from muxado.tunnel import Client, Invitation, Known, ServerState
from muxado.tunnel.invitations import new_secret
from muxado.tunnel.pins import server_context

from .sides import LOCAL, echo_all, target

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_tasks_left")]


async def test_a_server_that_lies_reaches_nothing_but_what_is_offered(
    no_tasks_left: None, tmp_path: Path
) -> None:
    """It has the right key, says yes to all, and asks for whatever it likes."""
    state = ServerState(tmp_path)
    codes: asyncio.Queue[int | bytes] = asyncio.Queue()
    asked: list[str] = []

    async def lie(session: muxado.Session) -> None:
        control, _ = await welcome(session)
        control.say("ok", rights=["all"], services=[{"service": "other", "port": 1}, "web", 7])
        control.say("offered", service="other", port=22)
        control.say("withdrawn", service="other")
        control.say("nonsense", target="127.0.0.1:22")
        for service in asked:
            stream = session.open()
            await stream.write(Header(service, origin="1.2.3.4:5", identity="root").pack())
            stream.write_eof()
            try:
                await codes.put(await stream.read())
            except muxado.StreamReset as exc:
                await codes.put(exc.code)
        await session.wait_closed()

    context = server_context(str(state.key_path))
    async with (
        target(echo_all) as address,
        target(echo_all) as inner,
        muxado.serve(lie, LOCAL, 0, ssl=context) as server,
    ):
        asked += ["other", inner, "localhost:22", "socks:", "unix:/etc/passwd", "", "web"]
        places = ((LOCAL, server.addresses[0][1]),)
        known = Known("x", Invitation("", places, (state.pin,)), new_secret())
        async with Client(known) as laptop:
            laptop.offer("web", address)
            for _ in asked[:-1]:
                assert await codes.get() == 404
            assert len(bytes(await codes.get())) == 32  # that service itself
