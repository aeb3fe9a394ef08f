"""yamux as py-libp2p speaks it, where an environment with it is given (`MUXADO_LIBP2P_PYTHON`).

It is one of its own because py-libp2p pins libraries that others have newer, and compiles some.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import muxado
from muxado import Config, Session

from .gopeer import GoPeer
from .helpers import MIB, data_of, echo, exchange, running
from .meeting import HOST, Tls, end

pytestmark = pytest.mark.anyio

PYTHON = os.environ.get("MUXADO_LIBP2P_PYTHON", "")
PROGRAM = Path(__file__).parent / "libp2p" / "peer.py"
Meet = Callable[[], Awaitable[tuple[Session, GoPeer]]]

if not PYTHON:
    pytest.skip("MUXADO_LIBP2P_PYTHON has no interpreter", allow_module_level=True)


WAYS = [(role, scheme) for scheme in ("tcp", "tls") for role in ("client", "server")]


@pytest.fixture(params=WAYS, ids=lambda way: f"we-{way[0]}-{way[1]}")
async def meet(
    request: pytest.FixtureRequest, tls: Tls, tmp_path: Path, no_tasks_left: None
) -> AsyncIterator[Meet]:
    """Starts a peer and connects a session to it; the client dials."""
    role, scheme = request.param
    near, far = (tls.client, tls.server) if scheme == "tls" else (None, None)
    files = {name: tls.go_flags[name] for name in ("ca", "cert", "key")} if near else {}
    script = tmp_path / "peer"
    script.write_text(f'#!/bin/sh\nexec {PYTHON} {PROGRAM} "$@"\n')
    script.chmod(0o700)
    async with AsyncExitStack() as stack:

        async def start(**flags: str) -> GoPeer:
            peer = await GoPeer.start(script, tmp_path / "stderr", **flags, **files)
            stack.push_async_callback(peer.finish)
            return peer

        async def connect() -> tuple[Session, GoPeer]:
            config = Config(wire="yamux")
            if role == "client":
                peer = await start(role="server", listen=f"{HOST}:0")
                host, port = (await peer.event("listening"))["addr"].split(":")
                session = await muxado.connect(host, int(port), ssl=near, config=config)
            else:
                async with muxado.listen(HOST, 0, ssl=far, config=config) as listener:
                    peer = await start(role="client", dial="{}:{}".format(*listener.addresses[0]))
                    session = await listener.accept()
            stack.push_async_callback(end, session)
            await peer.event("session")
            return session, peer

        yield connect


@pytest.mark.patience(60)
@pytest.mark.parametrize("size", [0, 1, 262_143, 262_145, 4 * MIB])
async def test_libp2p_echoes(meet: Meet, size: int) -> None:
    session, peer = await meet()
    await exchange(session, data_of(size))
    assert (await peer.event("stream-done"))["read"] == size


@pytest.mark.patience(60)
@pytest.mark.parametrize("size", [0, 1, 262_143, 262_145, 4 * MIB])
async def test_we_echo(meet: Meet, size: int) -> None:
    session, peer = await meet()
    async with running(session.serve(echo)):
        assert (await peer.call("check", n=size))["received"] == size


@pytest.mark.patience(60)
async def test_many_streams_at_once_both_ways(meet: Meet) -> None:
    session, peer = await meet()
    sizes = [1, 1000, 70_000] * 30
    async with running(session.serve(echo)):
        theirs = peer.call("many", count=90, max=100_000)
        await asyncio.gather(*[exchange(session, data_of(size)) for size in sizes])
        assert (await theirs)["good"] == 90
