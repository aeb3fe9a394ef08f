"""Streams through several servers of a fleet on live engines: whole, half-closed, reset and cut."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from time import time

import pytest
import trustme
from tests.cluster.fleets import peer_tls
from tests.patience import patience

import muxado
from muxado.cluster import Denied, Header, Member, Message, NameAway, NameUnknown, Node

from .engines import ENGINES, Engine
from .fleets import fleet_of, under_load
from .helpers import data_of, digest, free_port, send, sha256

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.patience(60),
    pytest.mark.timeout(patience(70)),
    pytest.mark.usefixtures("no_tasks_left"),
]

MIB = 1 << 20
RESET = 77


@pytest.fixture(params=ENGINES, ids=["redis", "nats"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine that runs."""
    engine: Engine = request.param(tmp_path)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


class Two:
    """Two servers in the test's process: an agent is at the second, callers come to the first.

    Attributes:
        entry: the first server.
        holder: the second one.
        caller: a session with the first, which passes each of its streams on to the agent.
        resets: the codes of resets that the agent has seen.
    """

    entry: Node
    holder: Node
    caller: muxado.Session

    def __init__(self) -> None:
        self.resets: asyncio.Queue[int | None] = asyncio.Queue()


async def answer(two: Two, stream: muxado.Stream, header: Header) -> None:
    """Do what a stream's first line says."""
    wanted = await stream.readline()
    if wanted == b"hash\n":
        count, found = await digest(stream)
        await stream.write(f"{count} {found}".encode())
    elif wanted == b"send\n":
        await send(stream, data_of(MIB))
    elif wanted == b"reset\n":
        stream.reset(RESET)
    elif wanted == b"wait\n":
        await stream.write(b"here")
        two.resets.put_nowait(await stream.wait_reset())


@asynccontextmanager
async def two_servers(engine: Engine, folder: Path) -> AsyncIterator[Two]:
    tls = peer_tls(folder, trustme.CA())

    async def authenticate(session: muxado.Session, hello: Message) -> str:
        return hello.text("key")

    async def enter(stream: muxado.Stream) -> None:
        await muxado.relay(stream, await two.entry.open("agent"))

    two = Two()
    async with AsyncExitStack() as stack:
        nodes = [Node(directory=engine.directory(), peers=tls, grace=0.5) for _ in range(2)]
        two.entry, two.holder = [await stack.enter_async_context(node) for node in nodes]
        taking = partial(two.holder.serve, authenticate=authenticate)
        agents = await stack.enter_async_context(muxado.serve(taking, "127.0.0.1", 0))
        callers = await stack.enter_async_context(muxado.serve_streams(enter, "127.0.0.1", 0))
        place = ("127.0.0.1", agents.addresses[0][1])
        agent = await stack.enter_async_context(
            Member("agent", [place], partial(answer, two), key="agent")
        )
        await agent.connected()
        port = callers.addresses[0][1]
        two.caller = await stack.enter_async_context(muxado.connect("127.0.0.1", port))
        yield two


async def test_half_close_resets_and_hashes_through_two_servers(
    engine: Engine, tmp_path: Path
) -> None:
    data = data_of(MIB + 1)
    async with two_servers(engine, tmp_path) as two:

        async def up() -> None:
            async with two.caller.open() as stream:
                await stream.write(b"hash\n")
                await send(stream, data)
                assert await stream.read() == f"{len(data)} {sha256(data)}".encode()

        async def down() -> None:
            async with two.caller.open() as stream:
                await stream.write(b"send\n")
                stream.write_eof()
                assert await digest(stream) == (MIB, hashlib.sha256(data_of(MIB)).hexdigest())

        async def back() -> None:
            stream = two.caller.open()
            await stream.write(b"reset\n")
            with pytest.raises(muxado.StreamReset) as caught:
                await stream.read()
            assert caught.value.code == RESET

        async def forth() -> None:
            stream = two.caller.open()
            await stream.write(b"wait\n")
            assert await stream.read(4) == b"here"
            stream.reset(RESET)
            assert await two.resets.get() == RESET

        await asyncio.gather(*[each() for each in (up, down, back, forth) for _ in range(10)])
        assert two.entry.stats().opened_there == two.holder.stats().passed_on == 40


async def test_a_peer_session_that_is_cut_resets_what_runs_and_is_made_anew(
    engine: Engine, tmp_path: Path
) -> None:
    async with two_servers(engine, tmp_path) as two:
        through = await two.entry.open("agent")
        await through.write(b"wait\n")
        stream = two.caller.open()
        await stream.write(b"wait\n")
        assert await stream.read(4) == await through.read(4) == b"here"
        through.session.abort(RESET)
        with pytest.raises(muxado.SessionError):
            await through.read()
        # The caller's own session goes on, and its stream was cut, not ended.
        with pytest.raises(muxado.StreamReset):
            await stream.read()
        assert await two.resets.get()
        assert await two.resets.get()
        async with two.caller.open() as stream:
            await stream.write(b"hash\n")
            stream.write_eof()
            assert (await stream.read()).startswith(b"0 ")


async def test_a_session_ends_with_its_credential_on_all_servers(
    engine: Engine, tmp_path: Path
) -> None:
    async with two_servers(engine, tmp_path) as two:
        [registration] = two.holder.registrations
        again = await two.holder.register(
            "agent", registration.session, identity="agent", expires=time() + 0.3
        )
        stream = await two.entry.open("agent")
        await again.session.wait_closed()
        with pytest.raises((muxado.StreamReset, muxado.SessionError)):
            await stream.read()
        assert again not in two.holder.registrations


async def test_who_shows_no_good_credential_has_no_name(engine: Engine, tmp_path: Path) -> None:
    async with two_servers(engine, tmp_path) as two:

        async def refuse(session: muxado.Session, hello: Message) -> str:
            raise Denied("it has expired", 401)

        taking = partial(two.holder.serve, authenticate=refuse)
        async with muxado.serve(taking, "127.0.0.1", 0) as server:
            place = ("127.0.0.1", server.addresses[0][1])
            async with Member("late", [place], partial(answer, two)) as member:
                with pytest.raises(Denied, match="it has expired"):
                    await member.connected()
        with pytest.raises((NameUnknown, NameAway)):
            await two.entry.open("late")


HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen front
    bind 127.0.0.1:{port}
    balance leastconn
    option redispatch
{servers}
"""


@asynccontextmanager
async def haproxy(folder: Path, ports: list[int]) -> AsyncIterator[int]:
    """Run HAProxy before servers; give its port."""
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        assert not os.environ.get("MUXADO_REQUIRE_PROXIES"), "haproxy is not installed"
        pytest.skip("haproxy is not installed")
    port = free_port()
    config = folder / "haproxy.cfg"
    servers = [
        f"    server s{each} 127.0.0.1:{each} send-proxy-v2 check inter 100" for each in ports
    ]
    config.write_text(HAPROXY.format(port=port, servers="\n".join(servers)))
    process = await asyncio.create_subprocess_exec(program, "-db", "-q", "-f", str(config))
    try:
        yield port
    finally:
        process.kill()
        await process.wait()


async def test_behind_haproxy_a_drain_fails_no_request(engine: Engine, tmp_path: Path) -> None:
    async with fleet_of(
        engine, tmp_path, agents=40, balancer=lambda ports: haproxy(tmp_path, ports)
    ) as (fleet, caller):
        async with under_load(fleet, caller):
            await fleet.servers[0].drain()
            await fleet.more(100)
        assert fleet.count.failed == []
