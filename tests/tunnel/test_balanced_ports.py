"""Ports that clients expose behind a balancer, which says whose connections it passes on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from muxado.proxy_protocol import ProxyHeader, pack_header
from muxado.tunnel import Server
from tests.servers import free_port

from .sides import LOCAL, client, echo_after_header, echo_all, target, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_tasks_left")]

CALLER = ("192.0.2.9", 1234)


def server_behind(folder: Path, network: str) -> Server:
    return Server(folder / "server", LOCAL, 0, exposed_proxy_protocol=[network])


@pytest.fixture
async def server(no_tasks_left: None, tmp_path: Path) -> AsyncIterator[Server]:
    """A server whose exposed ports are behind a balancer on this machine."""
    async with server_behind(tmp_path, "127.0.0.0/8") as running:
        yield running


async def assert_cut(reader: asyncio.StreamReader) -> None:
    with pytest.raises(ConnectionResetError):
        await reader.read()


@pytest.mark.parametrize("pieces", [1, 3, 1000], ids=["bytes", "pieces", "at once"])
async def test_the_target_is_told_what_the_balancer_says(
    server: Server, tmp_path: Path, pieces: int
) -> None:
    met: asyncio.Queue[ProxyHeader] = asyncio.Queue()
    meet = partial(echo_after_header, met)
    async with (
        target(meet) as address,
        client(server, tmp_path, "home", (f"expose:{free_port()}",)) as home,
    ):
        port = (await home.expose("web", address, proxy_protocol=True)).port
        for header in (
            pack_header(CALLER, (LOCAL, port)),
            f"PROXY TCP4 {CALLER[0]} {LOCAL} {CALLER[1]} {port}\r\n".encode(),
        ):
            reader, writer = await asyncio.open_connection(LOCAL, port)
            said = header + b"question"
            for at in range(0, len(said), pieces):
                writer.write(said[at : at + pieces])
                await writer.drain()
            writer.write_eof()
            assert await reader.read() == hashlib.sha256(b"question").digest()
            assert (await met.get()).source == CALLER
            writer.close()


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", pack_header(CALLER, ("::1", 1))[:-1]])
async def test_a_connection_without_a_header_is_not_taken(
    server: Server, tmp_path: Path, said: bytes
) -> None:
    async with (
        target(echo_all) as address,
        client(server, tmp_path, "home", (f"expose:{free_port()}",)) as home,
    ):
        exposed = await home.expose("web", address)
        reader, writer = await asyncio.open_connection(LOCAL, exposed.port)
        writer.write(said)
        if said.startswith(b"GET"):
            await assert_cut(reader)
            assert server.denials.counts["source"] == 1
        else:  # it is waited for, until its client goes
            await writer.drain()
            assert server.status()["clients"][0]["services"][0]["connections"] == 0
            home.withdraw("web")
            await assert_cut(reader)
        writer.close()


async def test_a_header_from_elsewhere_is_not_believed(tmp_path: Path) -> None:
    async with (
        server_behind(tmp_path, "192.0.2.0/24") as server,
        target(echo_all) as address,
        client(server, tmp_path, "home", (f"expose:{free_port()}",)) as home,
    ):
        exposed = await home.expose("web", address)
        reader, writer = await asyncio.open_connection(LOCAL, exposed.port)
        await assert_cut(reader)
        await until(lambda: server.denials.counts["source"] == 1)
        writer.close()


async def test_sources_are_judged_by_what_the_balancer_says(server: Server, tmp_path: Path) -> None:
    async with (
        target(echo_all) as address,
        client(server, tmp_path, "home", (f"expose:{free_port()}",)) as home,
    ):
        exposed = await home.expose("web", address, sources=("192.0.2.0/24",))
        for host, taken in ((CALLER[0], True), ("198.51.100.1", False)):
            reader, writer = await asyncio.open_connection(LOCAL, exposed.port)
            writer.write(pack_header((host, 5), (LOCAL, exposed.port)) + b"x")
            if taken:
                writer.write_eof()
                assert await reader.read() == hashlib.sha256(b"x").digest()
            else:
                await assert_cut(reader)
            writer.close()
