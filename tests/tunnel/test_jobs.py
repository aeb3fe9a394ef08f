"""What a file tells a client to do, and what targets are told of callers."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from muxado import UsageError
from muxado.proxy_protocol import ProxyHeader
from muxado.tunnel import Client, ClientState, Server, SocksTarget, Target
from muxado.tunnel.jobs import Exposing, Jobs, Listening, Plan, parse_forward, read_plan
from tests.servers import free_port

from .sides import LOCAL, Pair, client, echo_after_header, hash_through, target

FILE = """
server = "tunnel.example:7443"
forward = ["5432:db:5432", "[::1]:5433:[::2]:80", "0.0.0.0:5434:db"]
socks = ["1080"]

[expose.web]
target = "localhost:3000"
port = 20080
from = ["10.0.0.0/8"]
proxy-protocol = true

[expose.app]
target = "unix:/run/app.sock"
private = true

[expose.lan]
target = "socks"
private = true
allow-target = ["10.0.0.0/8:*"]
"""


def test_a_file_says_all_that_the_commands_do(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text(FILE)
    assert read_plan(path) == Plan(
        exposing=(
            Exposing("web", Target("localhost", 3000), 20080, False, ("10.0.0.0/8",), True),
            Exposing("app", Target(path="/run/app.sock"), private=True),
            Exposing("lan", SocksTarget(["10.0.0.0/8:*"]), private=True),
        ),
        listening=(
            Listening(LOCAL, 5432, "db:5432"),
            Listening("::1", 5433, "[::2]:80"),
            Listening("0.0.0.0", 5434, "db"),
            Listening(LOCAL, 1080, "socks:"),
        ),
        server="tunnel.example:7443",
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("server = \nsocks = []", "at line 1"),
        ("\n\nforward = 80 db", "at line 3"),
        ("server = 'x:1'", "there is nothing to do"),
        ("server = 1", "server: must be a string, not 1"),
        (
            "serve = 'x'",
            "serve: is no key that is known here; those are server, forward, socks, expose",
        ),
        ("forward = ['80']", "forward: it takes PORT:HOST:PORT"),
        ("forward = [80]", "forward[0]: must be a string"),
        ("forward = ['80:a', '80:b']", "forward: 127.0.0.1:80 is listened on twice"),
        ("expose = 'x'", "expose: must be a table"),
        ("[expose]\nweb = 80", "expose.web: must be a table"),
        ("[expose.Web]\ntarget = '80'", "expose.Web: a name must be a DNS label"),
        ("[expose.web]", "expose.web.target: is missing"),
        ("[expose.web]\ntarget = 80", "expose.web.target: must be a string"),
        ("[expose.web]\ntarget = 'x'", "expose.web.target: it takes HOST:PORT"),
        ("[expose.web]\ntarget = '80'\nport = 0", "expose.web.port: must be a number from 1"),
        ("[expose.web]\ntarget = '80'\nport = true", "expose.web.port: must be a whole number"),
        ("[expose.web]\ntarget = '80'\nport = 1\nprivate = true", "expose.web.private: "),
        ("[expose.web]\ntarget = '80'\nfrom = ['x']", "expose.web.from: no network"),
        ("[expose.web]\ntarget = 'socks'", "expose.web.target: with socks others choose"),
        ("[expose.web]\ntarget = '80'\nforward = []", "expose.web.forward: is no key"),
    ],
)
def test_a_mistake_in_a_file_is_named_by_its_key_or_line(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "client.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_plan(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["", "80", "80:", ":80", "80:a:1:2", "a:80", "80:A", "80::1:80"])
def test_what_is_no_forward_is_an_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_forward(text)


@pytest.mark.anyio
async def test_what_stays_is_not_cut_when_the_plan_changes(server: Server, tmp_path: Path) -> None:
    met: asyncio.Queue[Pair] = asyncio.Queue()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await met.put((reader, writer))

    async with (
        target(meet) as address,
        client(server, tmp_path, "home", ("private:*", f"forward:{address}", "reach:one")) as home,
    ):
        goes, stays = Listening(LOCAL, free_port(), "one"), Listening(LOCAL, free_port(), address)
        one = Exposing.parse("one", address, private=True)
        two = Exposing.parse("two", address, private=True)
        jobs = Jobs(home)
        begun = await jobs.change(Plan((one, two), (goes, stays)))
        assert [listening for listening, _ in begun] == [goes, stays]
        callers = []
        for listening in (goes, stays):
            callers.append(await asyncio.open_connection(LOCAL, listening.port))
            callers[-1][1].write(b"x")
            await (await met.get())[0].readexactly(1)
        with socket.create_server((LOCAL, 0)) as held:
            taken = Listening(LOCAL, held.getsockname()[1], "one")
            with pytest.raises(OSError, match="in use"):
                await jobs.change(Plan((replace(one, port=None), two), (stays, taken)))
        with pytest.raises(ConnectionResetError):
            await callers[0][0].read()
        callers[1][1].write(b"goes on")
        callers[1][1].close()
        callers[0][1].close()
        assert await jobs.change(Plan((two,), (stays,))) == []
        assert [each["service"] for each in server.status()["clients"][0]["services"]] != []


@pytest.mark.anyio
async def test_what_can_not_listen_takes_no_service_from_another_process(
    server: Server, tmp_path: Path
) -> None:
    async with client(server, tmp_path, "home", ("private:db", "reach:db")) as home:
        running = await home.expose("db", "1", private=True)
        with socket.create_server((LOCAL, 0)) as held:
            plan = Plan(
                (Exposing.parse("db", "1", private=True),),
                (Listening(LOCAL, held.getsockname()[1], "db"),),
            )
            async with Client(ClientState(tmp_path / "home").find(None)) as second:
                await second.connected()
                with pytest.raises(OSError, match="in use"):
                    await Jobs(second).begin(plan)
                # The server has heard all that it has said when it answers this.
                await (await second.connected()).ping()
        assert running.error is None
        assert len(server.status()["clients"][0]["services"]) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
async def test_the_target_is_told_whose_connection_it_is(
    server: Server, tmp_path: Path, unix: bool
) -> None:
    met: asyncio.Queue[ProxyHeader] = asyncio.Queue()
    meet = partial(echo_after_header, met)
    path = tmp_path / "app.sock"
    async with (
        await asyncio.start_unix_server(meet, path) as listening,
        target(meet) as address,
        client(server, tmp_path, "home", (f"expose:{free_port()}",)) as home,
    ):
        exposed = await home.expose("web", f"unix:{path}" if unix else address, proxy_protocol=True)
        reader, writer = await asyncio.open_connection(LOCAL, exposed.port)
        writer.write(b"q")
        writer.write_eof()
        assert await reader.read() == hashlib.sha256(b"q").digest()
        header = await met.get()
        assert header.source == writer.get_extra_info("sockname")
        assert header.destination == (LOCAL, exposed.port)
        writer.close()
        listening.close()
        home.withdraw("web")
        if unix:
            exposed = await home.expose("web", f"unix:{path}x")
            with pytest.raises(ConnectionResetError):
                await hash_through(exposed.port, b"q")
