"""What the two ends of a connection through the tunnel notice of each other."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from muxado import Backoff, DialerState
from muxado.tunnel import Client, ClientState, Invitation, Known, Server
from muxado.tunnel.invitations import new_secret
from tests.certificates import Tls
from tests.servers import free_port

from .sides import LOCAL, Pair, client, rules, target

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_tasks_left")]

MIB = 1024 * 1024


def cut(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset; over a Unix socket by closing it, which is all there is."""
    sock = writer.get_extra_info("socket")
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def connected(
    server: Server, folder: Path, way: str, tls: Tls | None = None
) -> AsyncIterator[tuple[Pair, Pair]]:
    """Connect a caller to a target in one of the ways there are; give both ends.

    With `tls` the two speak TLS with each other, of which the tunnel knows nothing.
    """
    met: asyncio.Queue[Pair] = asyncio.Queue()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await met.put((reader, writer))

    folder.mkdir()  # noqa: ASYNC240
    path = folder / "target.sock"
    async with (
        target(meet, path if way == "unix" else None, tls.server if tls else None) as address,
        client(server, folder, "home", rules(more=("private:*",))) as home,
        client(server, folder, "office", (f"socks:{LOCAL}:*", "reach:db")) as office,
    ):
        greeting = b""
        if way == "socks":
            host, port = (await office.socks()).address
            number = int(address.partition(":")[2]).to_bytes(2, "big")
            greeting = b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + number
        elif way == "private":
            await home.expose("db", address, private=True)
            host, port = (await office.forward("db")).address
        else:
            host, port = LOCAL, (await home.expose("web", address)).port
        caller = await asyncio.open_connection(host, port, ssl=tls.client if tls else None)
        caller[1].write(greeting + b"x")
        if greeting:
            await caller[0].readexactly(12)
        called = await met.get()
        assert await called[0].readexactly(1) == b"x"
        yield caller, called
        for _, writer in (caller, called):
            writer.close()


WAYS = ["tcp", "private", "socks", *(["unix"] if sys.platform != "win32" else [])]


@pytest.mark.parametrize("way", WAYS)
async def test_half_closes_are_kept_either_way(server: Server, tmp_path: Path, way: str) -> None:
    for first in (0, 1):
        folder = tmp_path / str(first)
        async with connected(server, folder, way) as ends:
            one, other = ends[first], ends[1 - first]
            one[1].write_eof()
            assert await other[0].read() == b""
            other[1].write(b"still here")
            other[1].close()
            assert await one[0].read() == b"still here"


@pytest.mark.parametrize("way", [*WAYS, "tls"])
async def test_a_cut_is_a_reset_wherever_there_is_one(
    server: Server, tmp_path: Path, way: str, tls: Tls
) -> None:
    inside = tls if way == "tls" else None
    async with connected(server, tmp_path / "a", way, inside) as (caller, called):
        cut(caller[1])
        if way == "unix":  # which can tell no reset: it ends
            assert await called[0].read() == b""
        else:
            with pytest.raises(ConnectionResetError):
                await called[0].read()
    async with connected(server, tmp_path / "b", way, inside) as (caller, called):
        cut(called[1])
        if way == "unix":
            assert await caller[0].read() == b""
        else:
            with pytest.raises(ConnectionResetError):
                await caller[0].read()


async def test_a_slow_reader_loses_nothing_and_one_that_stops_holds_up_nothing(
    server: Server, tmp_path: Path
) -> None:
    data = bytes(range(256)) * (4 * MIB // 256)

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    async with target(send) as address, client(server, tmp_path, rules=rules()) as laptop:
        exposed = await laptop.expose("web", address)
        stopped = [await asyncio.open_connection(LOCAL, exposed.port) for _ in range(4)]
        for _, writer in stopped:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        reader, slow = await asyncio.open_connection(LOCAL, exposed.port, limit=4096)
        found = hashlib.sha256()
        while piece := await reader.read(16384):
            found.update(piece)
            await asyncio.sleep(0)
        assert found.digest() == hashlib.sha256(data).digest()
        for each in (slow, *[writer for _, writer in stopped]):
            each.transport.abort()


async def test_the_older_session_is_told_that_a_newer_one_has_its_service(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with client(server, tmp_path, rules=rules(more=("private:*",))) as older:
        first = [
            await older.expose("web", "1"),
            await older.expose("db", "1", private=True),
        ]
        async with Client(ClientState(tmp_path / "laptop").find(None)) as newer:
            await newer.expose("web", "2")
            await newer.expose("db", "2", private=True)
            while not all(each.error for each in first):  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0.01)
            assert {each.error.code for each in first if each.error} == {409}
            assert caplog.text.count("a newer session of this client offers it") == 2
            [one, other] = server.status()["clients"]
            assert one["services"] == []
            assert len(other["services"]) == 2
        # It takes them back, not before.
        while any(each.error for each in first):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        [one] = server.status()["clients"]
        assert len(one["services"]) == 2
        assert server.denials.counts["offer"] == 0


async def test_what_was_denied_is_served_once_the_reason_is_gone(
    server: Server, tmp_path: Path
) -> None:
    port = free_port()
    answers: asyncio.Queue[object] = asyncio.Queue()
    with socket.create_server((LOCAL, port)):
        known = ClientState(tmp_path / "laptop").accept(
            server.invite("laptop", LOCAL, (f"expose:{port}",))
        )
        laptop = Client(known, on_answer=lambda exposed: answers.put_nowait(exposed.error))
        await laptop.__aenter__()
        exposed = laptop.offer("web", "1", port=port)
        await exposed.answered.wait()
        assert "held by another program" in str(exposed.error)
    assert await answers.get() is not None
    assert await answers.get() is None
    assert answers.empty()
    await laptop.__aexit__(None, None, None)


async def test_a_denial_is_said_once_and_tried_again(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    places = ((LOCAL, server.port),)
    unknown = Known("x", Invitation("", places, (server.state.pin,)), new_secret())
    states: asyncio.Queue[DialerState] = asyncio.Queue()
    quick = Backoff(first=0.01, most=0.02)
    async with Client(unknown, backoff=quick, on_change=states.put_nowait):
        for _ in range(3):
            while await states.get() != "waiting":
                pass
    assert caplog.text.count("the server can't be used") == 1
