"""What a server of the tunnel allows whom: rights in a file, limits, and sessions without hello."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

import muxado
from muxado.cluster import Denied
from muxado.tunnel import Server
from muxado.tunnel.denials import MOST_LINES, Denials
from muxado.tunnel.health import watched
from muxado.tunnel.pins import client_context
from tests.tunnel.sides import LOCAL, assert_reset, client, echo_all, hash_through, target, until

pytestmark = pytest.mark.anyio


async def test_a_file_of_rights_rules_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rights.toml"
    path.write_text('[clients.laptop]\nallow = ["private:a"]\nservices = 1\n')
    async with (
        Server(tmp_path / "server", LOCAL, 0, rights=path) as server,
        client(server, tmp_path, "laptop", ("private:*",)) as laptop,
        client(server, tmp_path, "other", ("private:*",)) as other,
    ):
        await laptop.expose("a", "1", private=True)
        for refused, service in ((laptop, "b"), (other, "a")):
            with pytest.raises(Denied):
                await refused.expose(service, "1", private=True)
        path.write_text("[clients.laptop]\nallow = [nonsense]")
        with pytest.raises(muxado.UsageError):
            server.reload()
        assert [each.exposures.keys() for each in server.clients if each.exposures]
        path.write_text("[clients.laptop]\n")
        server.reload()
        assert not any(each.exposures for each in server.clients)


async def test_a_client_has_so_many_connections_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "rights.toml"
    path.write_text('[clients.laptop]\nallow = ["expose:20000-20999"]\nconnections = 1\n')
    async with (
        Server(tmp_path / "server", LOCAL, 0, rights=path) as server,
        target(echo_all) as address,
        client(server, tmp_path) as laptop,
    ):
        port = (await laptop.expose("web", address)).port
        reader, writer = await asyncio.open_connection(LOCAL, port)
        await until(lambda: server.clients[0].connections == 1)
        await assert_reset(port)
        writer.write_eof()
        assert await reader.read()
        writer.close()
        await until(lambda: not server.clients[0].connections)
        assert await hash_through(port, b"x")
        assert server.denials.counts["limit"] == 1


async def test_before_hello_a_session_has_one_stream_and_16_kib(server: Server) -> None:
    context = client_context((server.state.pin,))
    async with muxado.connect(LOCAL, server.port, ssl=context) as session:
        first, second = session.open(), session.open()
        await first.write(b"{")
        await second.write(b"x")
        with pytest.raises(muxado.StreamRefused):
            await second.read()
        await first.write(bytes(20_000))
        with pytest.raises(muxado.StreamReset):
            await first.read()


async def test_of_too_many_silent_sessions_the_oldest_gives_way(server: Server) -> None:
    context = client_context((server.state.pin,))
    sessions = []
    for _ in range(65):
        session = await muxado.connect(LOCAL, server.port, ssl=context)
        await session.ping()
        sessions.append(session)
    assert (await sessions[0].wait_closed()).code == 401
    await sessions[1].ping()
    for session in sessions:
        session.abort()
        await session.wait_closed()


async def test_who_looks_after_it_is_answered(server: Server) -> None:
    async with watched(server, (LOCAL, 0)) as place:

        async def get(path: str, host: str = "localhost:1") -> tuple[int, bytes]:
            reader, writer = await asyncio.open_connection(*place)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            return int(head.split()[1]), body

        assert await get("/live") == (200, b"live\n")
        assert await get("/ready", "[::1]:80") == (200, b"ready\n")
        assert (await get("/ready", "rebound.example"))[0] == 421
        assert (await get("/other"))[0] == 404
        pytest.importorskip("prometheus_client")
        assert b"muxado_tunnel_clients 0.0" in (await get("/metrics"))[1]
        await server.drain(0.1)
        assert (await get("/ready"))[0] == 503
        assert (await get("/live"))[0] == 200


def test_denials_are_escaped_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "muxado.tunnel")
    denials = Denials()
    for _ in range(MOST_LINES + 5):
        denials.tell("use", "192.0.2.1", "\x1b[2J\nforged line")
    denials.tell("use", "192.0.2.2", "another source")
    said = [record.getMessage() for record in caplog.records]
    assert said == ["\\x1b[2J\\nforged line"] * MOST_LINES + ["another source"]
    assert denials.counts == {"use": MOST_LINES + 6}
