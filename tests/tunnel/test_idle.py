"""What a connection that is only there takes: a relay at each end, and no task."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from muxado.tunnel import Client, ClientState, Server
from tests.servers import free_port

from .sides import LOCAL, client, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_tasks_left")]

MANY = 20


class Echo(asyncio.Protocol):
    """A target without tasks."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", ["expose", "private", "forward", "socks"])
async def test_an_idle_connection_has_no_task(server: Server, tmp_path: Path, way: str) -> None:
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(Echo, LOCAL, 0)
    port: int = listening.sockets[0].getsockname()[1]
    rules = (f"socks:{LOCAL}:*", f"forward:{LOCAL}:*", "reach:db")
    async with (
        client(server, tmp_path, "home", (f"expose:{free_port()}", "private:db")) as home,
        client(server, tmp_path, "office", rules) as office,
    ):
        greeting = b""
        if way == "expose":
            near = (await home.expose("web", str(port))).port
        elif way == "private":
            await home.expose("db", f"{LOCAL}:{port}", private=True)
            near = (await office.forward("db")).address[1]
        elif way == "forward":
            near = (await office.forward(f"{LOCAL}:{port}")).address[1]
        else:
            near = (await office.socks()).address[1]
            greeting = b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big")
        before = len(asyncio.all_tasks())
        callers = [await asyncio.open_connection(LOCAL, near) for _ in range(MANY)]
        for reader, writer in callers:
            writer.write(greeting + b"x")
            answer = await reader.readexactly(13 if greeting else 1)
            assert answer[-1:] == b"x"
        assert sum(each["open"] for each in _services(server)) == (
            MANY if way in ("expose", "private") else 0
        )
        assert _uses(server) == (0 if way == "expose" else MANY)
        await until(lambda: len(asyncio.all_tasks()) <= before)
        for _, writer in callers:
            writer.transport.abort()
        await until(lambda: not _uses(server) and not any(e["open"] for e in _services(server)))
    listening.close()
    await listening.wait_closed()


def _services(server: Server) -> list[dict[str, int]]:
    return [each for client in server.status()["clients"] for each in client["services"]]


def _uses(server: Server) -> int:
    return sum(len(client["uses"]) for client in server.status()["clients"])


async def test_what_comes_before_there_is_a_server_is_kept(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(Echo, LOCAL, 0)
    target = f"{LOCAL}:{listening.sockets[0].getsockname()[1]}"
    server = Server(tmp_path / "server", LOCAL, free_port())
    state = ClientState(tmp_path / "office")
    async with server:
        known = state.accept(server.invite("office", LOCAL, (f"forward:{target}",)))
        port = server.port
    async with Client(known, state) as office:
        near = (await office.forward(target)).address[1]
        reader, writer = await asyncio.open_connection(LOCAL, near)
        writer.write(b"early")
        writer.write_eof()
        async with Server(tmp_path / "server", LOCAL, port):
            assert await reader.read() == b"early"
            writer.close()
    listening.close()
    await listening.wait_closed()
