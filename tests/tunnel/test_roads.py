"""The ways to a server: TLS, WebSockets, proxies; what leaves for one that is not who it was."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("cryptography")
pytest.importorskip("websockets")

from muxado.tunnel import Client, ClientState, Invitation, Known, Server, ServerState, WrongPin
from muxado.tunnel.invitations import new_secret
from tests.servers import free_port, microsocks, tinyproxy

from .sides import LOCAL, client, echo_all, hash_through, rules, target

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_tasks_left")]


@pytest.fixture(params=["direct", "http", "socks"])
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    """The URL of a running proxy, or None."""
    if request.param == "direct":
        yield None
        return
    if request.param == "socks":
        pytest.importorskip("python_socks")
    with (tinyproxy if request.param == "http" else microsocks)(tmp_path) as url:
        yield url


def hear(listening: socket.socket, context: ssl.SSLContext) -> bytes:
    """Accept a connection; return the first byte that comes after the handshake, b"" if none."""
    sock, _ = listening.accept()
    try:
        with context.wrap_socket(sock, server_side=True) as secured:
            return secured.recv(1)
    except OSError:
        return b""


@pytest.mark.parametrize("path", ["", "/mux"], ids=["tls", "wss"])
async def test_who_has_another_key_hears_nothing_after_the_handshake(
    no_tasks_left: None, tmp_path: Path, proxy: str | None, path: str
) -> None:
    real, false = ServerState(tmp_path / "real"), ServerState(tmp_path / "false")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(false.key_path)
    with socket.create_server((LOCAL, 0)) as listening:
        places = ((LOCAL, listening.getsockname()[1]),)
        wrong = Invitation(real.invite("laptop"), places, (real.pin,), path)
        hearing = asyncio.create_task(asyncio.to_thread(hear, listening, context))
        async with Client(Known("x", wrong, new_secret()), once=True, proxy=proxy) as laptop:
            with pytest.raises(WrongPin, match="the server has the key"):
                await laptop.connected()
        assert await hearing == b""
        # Without a pin its certificate must verify.
        hearing = asyncio.create_task(asyncio.to_thread(hear, listening, context))
        unknown = Known("x", replace(wrong, pins=()), new_secret())
        async with Client(unknown, once=True, proxy=proxy) as laptop:
            with pytest.raises(ssl.SSLCertVerificationError, match=r"self.signed"):
                await laptop.connected()
        assert await hearing == b""
        # One of several pins is enough, so that a server's key can be changed.
        hearing = asyncio.create_task(asyncio.to_thread(hear, listening, context))
        right = replace(wrong, pins=(real.pin, false.pin))
        async with Client(Known("x", right, new_secret()), proxy=proxy):
            assert await hearing != b""


async def test_a_service_is_exposed_by_each_road(
    no_tasks_left: None, tmp_path: Path, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy or "")
    state, web = ServerState(tmp_path / "server"), free_port()
    wss = f"wss://{LOCAL}:{web}"
    async with (
        target(echo_all) as address,
        Server(state, LOCAL, 0, websocket=wss) as server,
        client(server, tmp_path, rules=rules()) as laptop,
    ):
        exposed = await laptop.expose("web", address)
        assert await hash_through(exposed.port, b"q") == hashlib.sha256(b"q").digest()
        invited = state.invite("by-web", rules())
        kept = ClientState(tmp_path / "by-web")
        known = kept.accept(Invitation.parse(f"wss://{invited}@{LOCAL}:{web}/any#{state.pin}"))
        async with Client(known, kept, once=True) as by_web:
            exposed = await by_web.expose("web", address)
            assert await hash_through(exposed.port, b"q") == hashlib.sha256(b"q").digest()
        assert kept.find(None).invitation == known.invitation.spent()
