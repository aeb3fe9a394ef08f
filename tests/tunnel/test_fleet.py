"""Several servers of a tunnel that are one fleet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

import muxado
from muxado.cluster import Denied, MemoryDirectory
from muxado.tunnel import Client, ClientState, Invitation, Known, Server, ServerState
from muxado.tunnel.invitations import new_secret
from tests.patience import patience
from tests.servers import free_port
from tests.tunnel.sides import LOCAL, echo_all, hash_through, refused, target, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_tasks_left")]


@asynccontextmanager
async def fleet(folder: Path, *states: str) -> AsyncIterator[list[Server]]:
    """Servers that share an engine, each on a state of that name; those have one key."""
    engine = MemoryDirectory()
    first = ServerState(folder / states[0])
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for number, name in enumerate(states):
            state = ServerState(folder / name)
            state.key_path.write_bytes(first.key_path.read_bytes())
            authority = first.folder / "peers-ca.pem"
            if authority.exists():
                (state.folder / "peers-ca.pem").write_bytes(authority.read_bytes())
            directory = MemoryDirectory(engine)
            own = state.folder / f"node-{number}"
            server = Server(state, LOCAL, 0, directory=directory, folder=own)
            servers.append(await stack.enter_async_context(server))
        yield servers


def invited(folder: Path, name: str, servers: list[Server], *rules: str) -> Client:
    """A client that knows all servers, in this order."""
    token = servers[0].state.invite(name, rules)
    places = tuple((LOCAL, server.port) for server in servers)
    state = ClientState(folder / name)
    return Client(state.accept(Invitation(token, places, (servers[0].state.pin,))), state)


async def test_a_name_is_reached_through_another_server(tmp_path: Path) -> None:
    async with (
        fleet(tmp_path, "s", "s") as (one, two),
        target(echo_all) as address,
        invited(tmp_path, "home", [one], "private:db") as home,
        invited(tmp_path, "office", [two], "reach:db") as office,
    ):
        await home.expose("db", address, private=True)
        forward = await office.forward("db")
        answer = await hash_through(forward.address[1], bytes(300_000))
        assert answer == await hash_through(forward.address[1], bytes(300_000))
        assert (one.node.stats().passed_on, two.node.stats().opened_there) == (2, 2)
        with pytest.raises(Denied, match="another client offers db"):
            async with invited(tmp_path, "thief", [two], "private:db") as thief:
                await thief.expose("db", address, private=True)


async def test_a_service_comes_back_from_another_server_too(tmp_path: Path) -> None:
    port = free_port()
    async with (
        fleet(tmp_path, "s", "s") as (one, two),
        invited(tmp_path, "home", [one], "private:db", f"expose:{port}") as older,
    ):
        first = [
            await older.expose("web", "1", port=port),
            await older.expose("db", "1", private=True),
        ]
        known = ClientState(tmp_path / "home").find(None)
        places = ((LOCAL, two.port),)
        elsewhere = Known("x", Invitation("", places, known.invitation.pins), known.key)
        async with Client(elsewhere) as newer:
            second = [
                await newer.expose("web", "2", port=port),
                await newer.expose("db", "2", private=True),
            ]
            await until(lambda: all(each.replaced for each in first))
            for each in first:
                each.answered.clear()
            for each in first:  # which asks again, and is refused
                await each.answered.wait()
            assert not any(each.error for each in second)
        await until(lambda: not any(each.error for each in first))


async def test_a_drained_server_hands_names_and_ports_over(tmp_path: Path) -> None:
    port = free_port()
    failed: list[BaseException] = []
    async with (
        fleet(tmp_path, "s", "s") as (one, two),
        target(echo_all) as address,
        invited(tmp_path, "home", [one, two], "private:db", f"expose:{port}") as home,
        invited(tmp_path, "office", [two], "reach:db") as office,
    ):
        await home.expose("db", address, private=True)
        assert (await home.expose("web", address)).port == port
        assert [len(each.clients) for each in (one, two)] == [1, 1]
        forward = await office.forward("db")
        wanted = await hash_through(port, b"question")
        stop = asyncio.Event()

        async def ask(through: int) -> None:
            while not stop.is_set():
                try:
                    assert await hash_through(through, b"question") == wanted
                except (OSError, AssertionError) as exc:
                    failed.append(exc)

        asking = [asyncio.create_task(ask(each)) for each in (port, forward.address[1])]
        await one.drain(patience(10))
        assert [len(each.clients) for each in (one, two)] == [0, 2]
        assert await hash_through(port, b"question") == wanted
        stop.set()
        await asyncio.wait(asking)
        assert failed == []


async def test_a_port_is_one_clients_on_all_servers_of_a_machine(tmp_path: Path) -> None:
    port = free_port()
    async with (
        fleet(tmp_path, "s", "s") as (one, two),
        invited(tmp_path, "first", [one], f"expose:{port}") as first,
        invited(tmp_path, "second", [two], f"expose:{port}") as second,
    ):
        await first.expose("web", "1", port=port)
        with pytest.raises(Denied, match=f"port {port} is held by another client"):
            await second.expose("web", "1", port=port)


async def test_what_one_server_knows_the_others_hear(tmp_path: Path) -> None:
    """Two hosts, each with a state of its own: invitations, keys, rights and their end."""
    async with fleet(tmp_path, "a", "b") as (one, two):
        async with invited(tmp_path, "laptop", [one], "private:x") as laptop:
            await laptop.connected()
        await until(lambda: "laptop" in two.state.clients())
        known = ClientState(tmp_path / "laptop").find(None)
        there = Invitation("", ((LOCAL, two.port),), (two.state.pin,))
        async with Client(Known("there", there, known.key), once=True) as moved:
            await moved.connected()
            # A right that is given on one host holds on the other one.
            one.state.set_rules("laptop", ("private:y",))
            await until(lambda: [each.rights.lines() for each in two.clients] == [["private:y"]])
            await moved.expose("y", "1", private=True)
            assert one.state.revoke("laptop")
            with pytest.raises(muxado.MuxadoError) as caught:
                await refused(moved)
            assert caught.value.code == 401
        assert two.state.clients() == {}
        text = (tmp_path / "b" / "clients.json").read_text()
        assert known.key not in text


async def test_an_invitation_is_used_once_on_all_servers_together(tmp_path: Path) -> None:
    async with fleet(tmp_path, "a", "b") as servers:
        token = servers[0].state.invite("laptop", ("private:*",))
        known = servers[0].state.notes()
        await until(lambda: known.keys() <= servers[1].state.notes().keys())
        taken = await asyncio.gather(
            *[
                use(Invitation(token, ((LOCAL, each.port),), (each.state.pin,)))
                for each in servers
                for _ in range(3)
            ]
        )
        assert sorted(taken) == [False] * 5 + [True]


async def use(invitation: Invitation) -> bool:
    """Use an invitation by a key of one's own; return whether it was taken."""
    async with Client(Known("x", invitation, new_secret()), once=True) as client:
        try:
            await client.connected()
        except Denied:
            return False
        return True
