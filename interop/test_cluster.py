"""A fleet of several server processes on live engines, under load, while something goes wrong.

Each prints what has become of the requests: those made, failed, retried wrongly and hung, and the
longest one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.patience import patience

import muxado

from .engines import ENGINES, Engine
from .fleets import LEASE, WORKERS, Count, Fleet, fleet_of, under_load

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.patience(90),
    pytest.mark.timeout(patience(100)),
    pytest.mark.usefixtures("no_tasks_left"),
]


@pytest.fixture(params=ENGINES, ids=["redis", "nats"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine that runs."""
    engine: Engine = request.param(tmp_path)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


async def connected(fleet: Fleet) -> None:
    """Wait until every agent has a session."""
    async with asyncio.timeout(patience(30)):
        for member in fleet.members.values():
            await member.connected()


async def test_a_rolling_restart_fails_no_request(engine: Engine, tmp_path: Path) -> None:
    async with fleet_of(engine, tmp_path, servers=3) as (fleet, caller):
        async with under_load(fleet, caller):
            for server in fleet.servers:
                await server.drain()
                await server.start()
                await fleet.more(100)
        assert fleet.count.failed == []


async def test_a_server_that_is_killed_takes_only_what_is_in_flight(
    engine: Engine, tmp_path: Path
) -> None:
    async with fleet_of(engine, tmp_path, servers=3) as (fleet, caller):
        async with under_load(fleet, caller):
            await fleet.servers[0].kill()
            await connected(fleet)
        # What was opened may have been seen: its caller is told, and decides.
        assert len(fleet.count.failed) <= WORKERS
        assert all(opened for opened, _ in fleet.count.failed)
        kinds = (muxado.StreamReset, muxado.SessionError)
        assert all(isinstance(exc, kinds) for _, exc in fleet.count.failed)


async def test_an_engine_that_is_away_for_longer_than_its_lease_fails_no_request(
    engine: Engine, tmp_path: Path
) -> None:
    async with fleet_of(engine, tmp_path) as (fleet, caller):
        async with under_load(fleet, caller):
            await engine.stop()
            await asyncio.sleep(1.5 * LEASE)
            await fleet.more(100)
            assert caller.stats().trouble
            await engine.start()
            # A server that knows no routes finds every member again.
            async with fleet.new_node() as other:
                await asyncio.gather(*[fleet.find(other, name) for name in fleet.names])
        assert fleet.count.failed == []


async def test_an_engine_that_is_restarted_empty_fails_no_request(
    engine: Engine, tmp_path: Path
) -> None:
    async with fleet_of(engine, tmp_path) as (fleet, caller):
        async with under_load(fleet, caller):
            await engine.stop()
            await engine.start()
            # A server that knows no routes finds every member as soon as the engine was told again.
            async with fleet.new_node() as other:
                await asyncio.gather(*[fleet.find(other, name) for name in fleet.names])
        assert fleet.count.failed == []


async def test_a_slow_engine_fails_no_request(engine: Engine, tmp_path: Path) -> None:
    async with fleet_of(engine, tmp_path) as (fleet, caller):
        async with under_load(fleet, caller):
            for _ in range(3):
                await engine.freeze()
                await asyncio.sleep(0.6)
                engine.thaw()
                await asyncio.sleep(0.1)
            # A new claim gets through, and every member is still there.
            async with fleet.new_member("newcomer", 0) as member:
                await member.connected()
                await fleet.find(caller, "newcomer")
        assert fleet.count.failed == []


async def test_two_servers_that_have_both_claimed_a_name_agree_on_the_newest(
    engine: Engine, tmp_path: Path
) -> None:
    async with fleet_of(engine, tmp_path, agents=4) as (fleet, caller):
        name = fleet.names[0]
        # The first server holds it, and the second one can't say that it does.
        await engine.stop()
        fleet.members[name].dialer.close()
        async with fleet.new_member(name, 1) as newer:
            await newer.connected()
            await engine.start()
            async with fleet.new_node() as other:
                for node in (caller, other):
                    await fleet.find(node, name)
                    await fleet.ask(node, name)
        assert fleet.count.failed == []


async def test_an_address_that_is_another_servers_now_is_noticed(
    engine: Engine, tmp_path: Path
) -> None:
    async with fleet_of(engine, tmp_path) as (fleet, caller):
        async with under_load(fleet, caller):
            before = fleet.servers[0].place
            await fleet.servers[0].kill()
            await fleet.servers[0].start()
            assert fleet.servers[0].place["address"] == before["address"]
            assert fleet.servers[0].place["node"] != before["node"]
            await connected(fleet)
            await fleet.more(200)
        assert all(opened for opened, _ in fleet.count.failed)
        assert len(fleet.count.failed) <= WORKERS


@pytest.mark.big
@pytest.mark.parametrize("agents", [300, pytest.param(2000, marks=pytest.mark.slow)])
async def test_many_agents_that_dial_again_at_once_are_back(
    engine: Engine, tmp_path: Path, agents: int
) -> None:
    async with fleet_of(engine, tmp_path, agents=agents) as (fleet, caller):
        fleet.count = Count()
        began = asyncio.get_running_loop().time()
        for server in fleet.servers:
            await server.kill()
        for server in fleet.servers:
            await server.start()
        await connected(fleet)
        took = asyncio.get_running_loop().time() - began
        print(f"{len(fleet.names)} agents were back after {took:.1f} s")
        await fleet.ask_all(caller)
        print(fleet.count)
        assert (fleet.count.made, fleet.count.failed) == (len(fleet.names), [])
        assert fleet.count.twice == fleet.count.hung == 0
