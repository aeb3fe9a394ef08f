"""muxado and yamux over WebSockets against Go: both roles, in every front end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from muxado import Config, Session
from muxado.carriers.websockets import connect, serve

from .gopeer import GoPeer
from .helpers import MIB, data_of, echo, exchange, running
from .meeting import HOST, end

pytestmark = pytest.mark.anyio

# Go's library, the wire, and the subprotocol that says so.
WIRES = [("muxado", "muxado-v2", "muxado.v2"), ("hashicorp", "yamux", "yamux")]
WAYS = [(*wire, role) for wire in WIRES for role in ("client", "server")]
Meet = Callable[..., Awaitable[tuple[Session, GoPeer]]]


@pytest.fixture(params=WAYS, ids="-".join)
async def meet(
    request: pytest.FixtureRequest, wires_program: Path, tmp_path: Path, no_tasks_left: None
) -> AsyncIterator[Meet]:
    """Starts a Go peer and connects a session to it over a WebSocket; the client dials."""
    library, wire, subprotocol, role = request.param
    async with AsyncExitStack() as stack:

        async def start(**flags: Any) -> GoPeer:
            flags |= {"library": library, "websocket": subprotocol, "behaviour": "echo"}
            go = await GoPeer.start(wires_program, tmp_path / "go.stderr", **flags)
            stack.push_async_callback(go.finish)
            return go

        async def meet() -> tuple[Session, GoPeer]:
            if role == "client":
                go = await start(role="server", listen=f"{HOST}:0")
                url = f"ws://{(await go.event('listening'))['addr']}/mux"
                session = await connect(url, config=Config(wire=wire))
            else:
                arrived = asyncio.Queue[Session]()

                async def handle(session: Session) -> None:
                    arrived.put_nowait(session)
                    await session.wait_closed()

                # The server takes every wire: its client's subprotocol and first bytes say which.
                server = await serve(handle, HOST, 0, config=Config(wire="auto"))
                stack.push_async_callback(server.wait_closed)
                stack.callback(server.close)
                go = await start(role="client", dial="{}:{}".format(*server.addresses[0]))
                session = await arrived.get()
            stack.push_async_callback(end, session)
            await go.event("session")
            assert session.get_extra_info("subprotocol") == subprotocol
            return session, go

        yield meet


@pytest.mark.patience(60)
async def test_streams_both_ways(meet: Meet) -> None:
    session, go = await meet()
    async with running(session.serve(echo)):
        await go.call("check", n=1)  # Go's first bytes: before them a server knows no wire
        theirs = go.call("many", count=100, max=200_000, seed=3)
        for size in (0, 1, 262_145, 4 * MIB):
            await exchange(session, data_of(size))
        assert (await theirs)["good"] == 100
    assert (await go.call("stats"))["failed"] == 0


async def test_a_close_of_gos_is_clean(meet: Meet) -> None:
    session, go = await meet()
    async with running(session.serve(echo)):
        await go.call("check", n=1000)
    await go.call("close-session")
    reason = await session.wait_closed()
    assert (reason.by_peer, reason.exception) == (True, None)
