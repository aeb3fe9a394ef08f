"""The tunnel's server and clients, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

import muxado
from muxado.cluster import Denied, Header, Message, read_header
from muxado.tunnel import Client, ClientState, Server, ServerState
from muxado.tunnel.invitations import new_secret
from muxado.tunnel.messages import Offer
from muxado.tunnel.pins import client_context
from tests.servers import free_port

from .sides import (
    LOCAL,
    Pair,
    assert_reset,
    client,
    echo_all,
    gone,
    hash_through,
    liar,
    rules,
    target,
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_tasks_left")]


async def test_an_exposed_service_is_reached_with_half_close_kept(
    server: Server, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 4096
    async with target(echo_all) as address, client(server, tmp_path, rules=rules()) as laptop:
        exposed = await laptop.expose("web", address)
        assert await hash_through(exposed.port, data) == hashlib.sha256(data).digest()


async def test_a_target_that_is_down_is_a_reset_and_works_when_it_is_back(
    server: Server, tmp_path: Path
) -> None:
    port = free_port()
    async with client(server, tmp_path, rules=rules()) as laptop:
        exposed = await laptop.expose("web", str(port))
        await assert_reset(exposed.port)
        async with await asyncio.start_server(echo_all, LOCAL, port) as listening:
            assert await hash_through(exposed.port, b"back") == hashlib.sha256(b"back").digest()
            listening.close()


async def test_a_reset_stays_a_reset_from_either_side(server: Server, tmp_path: Path) -> None:
    met: asyncio.Queue[Pair] = asyncio.Queue()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await met.put((reader, writer))

    async with target(meet) as address, client(server, tmp_path, rules=rules()) as laptop:
        exposed = await laptop.expose("web", address)
        for caller_first in (True, False):
            caller = await asyncio.open_connection(LOCAL, exposed.port)
            caller[1].write(b"x")
            called = await met.get()
            assert await called[0].readexactly(1) == b"x"
            first, second = (caller, called) if caller_first else (called, caller)
            sock = first[1].get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            first[1].transport.abort()
            with pytest.raises(ConnectionResetError):
                await second[0].read()
            second[1].close()


async def test_a_private_service_is_reached_by_who_has_the_right(
    server: Server, tmp_path: Path
) -> None:
    async with (
        target(echo_all) as address,
        client(server, tmp_path, "home", ("private:db",)) as home,
        client(server, tmp_path, "office", ("reach:db",)) as office,
        client(server, tmp_path, "other", ("reach:dba", "private:*")) as other,
    ):
        await home.expose("db", address, private=True)
        forward = await office.forward("db")
        assert await hash_through(forward.address[1], b"q") == hashlib.sha256(b"q").digest()
        await assert_reset((await other.forward("db")).address[1])
        with pytest.raises(Denied, match="another client offers db"):
            await other.expose("db", address, private=True)


async def test_a_target_beyond_the_server_is_reached_by_who_has_the_right(
    server: Server, tmp_path: Path
) -> None:
    async with (
        target(echo_all) as address,
        client(server, tmp_path, "literal", (f"forward:{address}",)) as literal,
        client(server, tmp_path, "network", ("forward:127.0.0.0/8:*",)) as network,
        client(server, tmp_path, "none", ("private:*",)) as none,
    ):
        forward = await literal.forward(address)
        assert await hash_through(forward.address[1], b"q") == hashlib.sha256(b"q").digest()
        await assert_reset((await literal.forward(f"{LOCAL}:{server.port}")).address[1])
        await assert_reset((await network.forward(address)).address[1])
        await assert_reset((await none.forward(address)).address[1])


async def test_a_client_hears_of_changed_rights(server: Server, tmp_path: Path) -> None:
    async with client(server, tmp_path, "office", ("private:*",)) as office:
        assert office.lacks("db") == "reach:db"
        server.state.set_rules("office", ("reach:db",))
        await until(lambda: not office.lacks("db"))


async def test_a_port_without_right_or_that_is_held_is_an_error(
    server: Server, tmp_path: Path
) -> None:
    ports = free_port()
    with socket.create_server((LOCAL, 0)) as holder:
        held = holder.getsockname()[1]
        allowed = (f"expose:{ports}", f"expose:{held}")
        async with (
            client(server, tmp_path, rules=allowed) as laptop,
            client(server, tmp_path, "other", allowed) as other,
        ):
            with pytest.raises(Denied, match=f"port {held} is held by another program"):
                await laptop.expose("one", "1", port=held)
            refused = ports % 65535 + 1
            with pytest.raises(Denied, match=f"no right to expose port {refused}"):
                await laptop.expose("two", "1", port=refused)
            await laptop.expose("three", "1", port=ports)
            with pytest.raises(Denied, match=f"port {ports} is held by the client laptop"):
                await other.expose("three", "1", port=ports)


async def test_only_the_sources_that_were_named_may_connect(server: Server, tmp_path: Path) -> None:
    async with target(echo_all) as address, client(server, tmp_path, rules=rules()) as laptop:
        exposed = await laptop.expose("web", address, sources=("10.0.0.0/8",))
        await assert_reset(exposed.port)
        laptop.withdraw("web")
        exposed = await laptop.expose("web", address, sources=("10.0.0.0/8", "127.0.0.1"))
        assert await hash_through(exposed.port, b"q") == hashlib.sha256(b"q").digest()


async def test_a_right_that_is_taken_away_ends_what_it_allowed(
    server: Server, tmp_path: Path
) -> None:
    met: asyncio.Queue[Pair] = asyncio.Queue()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await met.put((reader, writer))

    async with (
        target(meet) as address,
        client(server, tmp_path, "home", rules(more=("private:db",))) as home,
        client(server, tmp_path, "office", ("reach:db", f"forward:{address}")) as office,
    ):
        exposed = await home.expose("web", address)
        await home.expose("db", address, private=True)
        callers = []
        for port in (
            exposed.port,
            (await office.forward("db")).address[1],
            (await office.forward(address)).address[1],
        ):
            reader, writer = await asyncio.open_connection(LOCAL, port)
            writer.write(b"x")
            await met.get()
            callers.append((reader, writer))
        state = ServerState(tmp_path / "server")
        state.set_rules("home", ("private:db",))
        with pytest.raises(ConnectionResetError):
            await callers[0][0].read()
        await gone(exposed.port)
        state.set_rules("office", ("reach:other",))
        for reader, _ in callers[1:]:
            with pytest.raises(ConnectionResetError):
                await reader.read()
        for _, writer in callers:
            writer.close()


async def test_a_client_that_is_revoked_is_out_and_stays_out(
    server: Server, tmp_path: Path
) -> None:
    async with client(server, tmp_path, rules=rules()) as laptop:
        exposed = await laptop.expose("web", "1")
        assert ServerState(tmp_path / "server").revoke("laptop")
        await gone(exposed.port)
        with pytest.raises(muxado.MuxadoError) as caught:
            await gone_for_good(laptop)
        assert caught.value.code == 401


async def gone_for_good(client: Client) -> None:
    """Wait for the final error of a client."""
    while True:
        await (await client.connected()).wait_closed()


async def test_an_invitation_is_for_one_use(server: Server, tmp_path: Path) -> None:
    invitation = server.invite("laptop", LOCAL)
    state = ClientState(tmp_path / "first")
    known = state.accept(invitation)
    for _ in range(2):  # the first answer may be lost
        async with Client(known, once=True) as laptop:
            await laptop.connected()
    thief = ClientState(tmp_path / "second")
    async with Client(thief.accept(invitation), thief, once=True) as other:
        with pytest.raises(Denied, match="was used already"):
            await other.connected()
    assert thief.servers() == {}
    async with Client(known, state, once=True) as laptop:
        await laptop.connected()
    async with Client(state.find(None), once=True) as laptop:  # without the token
        await laptop.connected()


@pytest.mark.parametrize(
    ("rule", "offer"),
    [
        ("expose:20000", {"service": "x", "port": 20001, "exact": True}),
        ("private:mine", {"service": "yours", "private": True}),
        ("reach:x", {"service": "x", "private": True}),
        ("forward:x:80", {"service": "x", "port": 80}),
    ],
)
async def test_a_liar_offers_nothing_without_a_right(
    server: Server, rule: str, offer: dict[str, object]
) -> None:
    async with liar(server, "liar", (rule,)) as (_, control):
        control.say("offer", **offer)
        answer = await control.receive()
        assert (answer.type, answer.fields["code"]) == ("offered", 403)


@pytest.mark.parametrize(
    ("rule", "service"),
    [
        ("reach:x", "y"),
        ("private:y", "y"),
        ("expose:20000", "127.0.0.1:20000"),
        ("forward:127.0.0.1:80", "127.0.0.1:81"),
        ("forward:127.0.0.1:80", "127.0.0.2:80"),
        ("forward:127.0.0.1:80", "localhost:81"),
        ("forward:0.0.0.0/0:*", "127.0.0.1:80"),
        ("forward:0.0.0.0/0:*", "0.0.0.0:80"),
        ("forward:0.0.0.0/0:*", "[::ffff:127.0.0.1]:80"),
        ("socks:127.0.0.1:80", "127.0.0.1:80"),
        ("forward:127.0.0.1:80", "socks:"),
    ],
)
async def test_a_liar_reaches_nothing_without_a_right(
    server: Server, rule: str, service: str
) -> None:
    async with liar(server, "liar", (rule,)) as (session, _):
        stream = session.open()
        await stream.write(Header(service, origin="10.0.0.1:1", identity="root").pack())
        with pytest.raises(muxado.StreamReset) as caught:
            await stream.read()
        assert caught.value.code == 403


async def test_who_a_liar_says_it_is_is_not_believed(server: Server) -> None:
    async with (
        liar(server, "home", ("private:db",)) as (home, control),
        liar(server, "office", ("reach:db",)) as (office, _),
    ):
        control.say("offer", **Offer("db", private=True).pack())
        assert "code" not in (await control.receive()).fields
        async with office.open() as stream:
            await stream.write(Header("db", origin="10.0.0.1:1", identity="root").pack())
            async with await home.accept() as arrived:
                header = await read_header(arrived)
        assert header.identity == "office"
        assert header.origin == "{}:{}".format(*office.local_address[:2])


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"key": "x"}, 401),
        ({"key": new_secret()}, 401),
        ({"key": new_secret(), "token": new_secret()}, 401),
        ({"key": ["x"]}, 71),
        ({"key": new_secret(), "version": "2.0"}, None),
    ],
)
async def test_who_is_unknown_is_not_taken(
    server: Server, said: dict[str, object], code: int | None
) -> None:
    context = client_context((server.state.pin,))
    async with muxado.connect(LOCAL, server.port, ssl=context) as session:
        stream = session.open()
        await stream.write(Message("hello", {"version": "1.7"} | said).pack())
        if code is None:
            with pytest.raises((muxado.MuxadoError, EOFError)):
                await stream.readexactly(1)
        else:
            answer = Message.unpack(await stream.readuntil(b"\n"))
            assert answer.type == "error"
        await session.wait_closed()


async def test_the_newest_session_of_a_client_has_the_service(
    server: Server, tmp_path: Path
) -> None:
    async with client(server, tmp_path, rules=rules()) as laptop:
        first = await laptop.expose("web", "1")
        state = ClientState(tmp_path / "laptop")
        async with target(echo_all) as address, Client(state.find(None)) as again:
            second = await again.expose("web", address)
            assert second.port == first.port
            assert await hash_through(second.port, b"q") == hashlib.sha256(b"q").digest()


async def test_a_service_is_back_on_its_port_after_the_server_is(tmp_path: Path) -> None:
    state = ServerState(tmp_path / "server")
    port = free_port()
    async with target(echo_all) as address:
        async with Server(state, LOCAL, port) as server:
            known_by = ClientState(tmp_path / "laptop")
            known = known_by.accept(server.invite("laptop", LOCAL, rules()))
            laptop = Client(known, known_by)
            await laptop.__aenter__()
            exposed = await laptop.expose("web", address)
        try:
            async with Server(state, LOCAL, port):
                await laptop.connected()
                assert await hash_through(exposed.port, b"q") == hashlib.sha256(b"q").digest()
                await laptop.__aexit__(None, None, None)
        finally:
            await laptop.__aexit__(None, None, None)


async def test_a_kicked_client_is_gone_at_once_and_may_come_back(
    server: Server, tmp_path: Path
) -> None:
    async with client(server, tmp_path, rules=rules()) as laptop:
        await laptop.expose("web", "1")
        session = await laptop.connected()
        [shown] = server.status()["clients"]
        assert (shown["name"], shown["services"][0]["service"]) == ("laptop", "web")
        assert server.kick("laptop") == 1
        await session.wait_closed()
        assert await laptop.connected() is not session


async def test_a_drain_lets_connections_end(server: Server, tmp_path: Path) -> None:
    met: asyncio.Queue[Pair] = asyncio.Queue()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await met.put((reader, writer))

    async with target(meet) as address, client(server, tmp_path, rules=rules()) as laptop:
        exposed = await laptop.expose("web", address)
        reader, writer = await asyncio.open_connection(LOCAL, exposed.port)
        writer.write(b"x")
        called = await met.get()
        draining = asyncio.create_task(server.drain(None))
        await asyncio.sleep(0)  # it begins: no more connections
        assert server.status()["draining"]
        await gone(exposed.port)
        called[1].write(b"the end")
        called[1].close()
        assert await reader.read() == b"the end"
        writer.close()
        await draining
