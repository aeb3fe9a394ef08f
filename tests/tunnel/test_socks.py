"""SOCKS5 through the tunnel: beyond the server, and beyond another client."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from muxado import UsageError
from muxado.tunnel import Server, SocksTarget
from tests.servers import free_port

from .sides import LOCAL, assert_reset, client, echo_all, target, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_tasks_left")]

GRANTED, NOT_ALLOWED, NO_HOST, REFUSED = 0, 2, 4, 5


async def ask(port: int, host: str, wanted: int, said: bytes = b"question") -> tuple[int, bytes]:
    """Ask for a place by its name, the first bytes at once; return the reply, and what comes."""
    reader, writer = await asyncio.open_connection(LOCAL, port)
    name = host.encode()
    writer.write(b"\x05\x01\x00" + b"\x05\x01\x00\x03" + bytes([len(name)]) + name)
    writer.write(wanted.to_bytes(2, "big") + said)
    writer.write_eof()
    assert await reader.readexactly(2) == b"\x05\x00"
    reply = (await reader.readexactly(10))[1]
    answer = await reader.read()
    writer.close()
    return reply, answer


async def test_names_are_looked_up_by_the_server_and_its_rules_hold(
    server: Server, tmp_path: Path
) -> None:
    async with target(echo_all) as address:
        port = int(address.partition(":")[2])
        closed = free_port()
        rules = (f"socks:localhost:{port}", f"socks:{LOCAL}:{closed}", "socks:0.0.0.0/0:*")
        async with client(server, tmp_path, "office", rules) as office:
            near = (await office.socks()).address[1]
            assert await ask(near, "localhost", port) == (
                GRANTED,
                hashlib.sha256(b"question").digest(),
            )
            assert await ask(near, LOCAL, closed) == (REFUSED, b"")
            assert await ask(near, LOCAL, port) == (NOT_ALLOWED, b"")
            assert await ask(near, "localhost", server.port) == (NOT_ALLOWED, b"")
            assert await ask(near, "a..b", port) == (NO_HOST, b"")
            assert await ask(near, "name.invalid", port) == (NO_HOST, b"")


async def test_without_a_right_to_socks_there_is_none(server: Server, tmp_path: Path) -> None:
    async with client(server, tmp_path, "other", (f"forward:{LOCAL}:*",)) as other:
        assert other.lacks("socks:")
        await assert_reset((await other.socks()).address[1])


async def test_the_log_of_who_asks_says_why_it_can_not_have_something(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rights = ("socks:192.0.2.1:80", "reach:db")
    async with client(server, tmp_path, "office", rights) as office:
        near = (await office.socks()).address[1]
        assert await ask(near, LOCAL, 80) == (NOT_ALLOWED, b"")
        await until(lambda: f"the server says: by SOCKS: {LOCAL}:80 is not allowed" in caplog.text)
        async with client(server, tmp_path, "home", ("private:db",)) as home:
            await home.expose("db", "1", private=True)
        forward = await office.forward("db")
        await assert_reset(forward.address[1])
        await until(lambda: "db can't be reached: the client that offers it is away" in caplog.text)


async def test_a_running_use_that_is_cut_is_told(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with (
        target(wait) as address,
        client(server, tmp_path, "office", (f"forward:{address}",)) as office,
    ):
        reader, writer = await asyncio.open_connection(*(await office.forward(address)).address)
        writer.write(b"x")
        await until(lambda: bool(server.status()["clients"][0]["uses"]))
        server.state.set_rules("office", ("private:*",))
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await until(lambda: f"{address}: the right to it was taken away" in caplog.text)


async def test_a_client_lets_others_reach_what_it_allows_and_nothing_else(
    server: Server, tmp_path: Path
) -> None:
    async with (
        target(echo_all) as address,
        client(server, tmp_path, "home", ("private:lan",)) as home,
        client(server, tmp_path, "office", ("reach:lan",)) as office,
    ):
        port = int(address.partition(":")[2])
        await home.expose("lan", SocksTarget([f"localhost:{port}"]), private=True)
        near = (await office.forward("lan")).address[1]
        assert await ask(near, "localhost", port) == (
            GRANTED,
            hashlib.sha256(b"question").digest(),
        )
        assert await ask(near, LOCAL, port) == (NOT_ALLOWED, b"")
        assert await ask(near, "localhost", server.port) == (NOT_ALLOWED, b"")
        with pytest.raises(UsageError):
            SocksTarget([])


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b"\x05\x01" + bytes([0, 1]) + bytes(6)),
        (b"\x05\x01\x02", b"\x05\xff" + b"\x05\x01" + bytes([0, 1]) + bytes(6)),
        (
            b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50",
            b"\x05\x00" + b"\x05\x07" + bytes([0, 1]) + bytes(6),
        ),
        (b"\x05\x01\x00\x05\x01\x00\x09", b"\x05\x00" + b"\x05\x08" + bytes([0, 1]) + bytes(6)),
        (b"\x05\x01\x00\x05\x01\x00\x03\xff", b"\x05\x00"),
        (b"", b""),
    ],
    ids=["socks4", "login", "bind", "address", "cut", "nothing"],
)
async def test_what_is_no_request_is_answered_and_ended(
    server: Server, tmp_path: Path, said: bytes, answer: bytes
) -> None:
    async with client(server, tmp_path, "office", ("socks:0.0.0.0/0:*",)) as office:
        reader, writer = await asyncio.open_connection(*(await office.socks()).address)
        writer.write(said)
        writer.write_eof()
        assert await reader.read() == answer
        writer.close()
