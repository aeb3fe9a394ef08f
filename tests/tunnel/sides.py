"""Servers, clients and targets of a tunnel, in the test's own process."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import muxado
from muxado.cluster import Control, join
from muxado.proxy_protocol import ProxyHeader
from muxado.tunnel import Client, ClientState, Server
from muxado.tunnel.invitations import new_secret
from muxado.tunnel.pins import client_context
from tests.servers import free_port

__all__ = [
    "LOCAL",
    "Pair",
    "assert_reset",
    "client",
    "echo_after_header",
    "echo_all",
    "gone",
    "hash_through",
    "liar",
    "refused",
    "rules",
    "target",
    "until",
]

LOCAL = "127.0.0.1"

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def client(
    server: Server, folder: Path, name: str = "laptop", rules: tuple[str, ...] | None = None
) -> AsyncIterator[Client]:
    """Invite a client, and connect it."""
    state = ClientState(folder / name)
    invitation = server.invite(name, LOCAL, rules) if rules else server.invite(name, LOCAL)
    known = state.accept(invitation)
    async with Client(known, state, once=True) as connected:
        await connected.connected()
        yield connected


@asynccontextmanager
async def target(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    path: Path | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """Run a server and give its address: with a path a Unix socket's, with a context over TLS."""
    if path is not None:
        async with await asyncio.start_unix_server(answer, path) as listening:
            yield f"unix:{path}"
            listening.close()
        return
    async with await asyncio.start_server(answer, LOCAL, 0, ssl=context) as listening:
        host, port = listening.sockets[0].getsockname()
        yield f"{host}:{port}"
        listening.close()


async def echo_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer at the end of what comes: with the hash of all of it."""
    data = await reader.read()
    writer.write(hashlib.sha256(data).digest())
    writer.close()


async def echo_after_header(
    met: asyncio.Queue[ProxyHeader], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Echo a connection that begins with a header of the PROXY protocol, which is kept."""
    header = ProxyHeader()
    while header.wanted:
        header.feed(await reader.readexactly(min(header.wanted, 16)))
    await met.put(header)
    await echo_all(reader, writer)


async def hash_through(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(LOCAL, port)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def rules(*, ports: int = 0, more: tuple[str, ...] = ()) -> tuple[str, ...]:
    return (f"expose:{ports or free_port()}", *more)


async def assert_reset(port: int) -> None:
    """Check that a connection is made, and reset."""
    reader, writer = await asyncio.open_connection(LOCAL, port)
    writer.write(b"x")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def gone(port: int) -> None:
    """Wait until a port refuses connections."""
    while True:
        try:
            _, writer = await asyncio.open_connection(LOCAL, port)
        except ConnectionError:
            return
        writer.close()
        await asyncio.sleep(0.02)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds that nothing tells of; the test's time bounds it."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def refused(client: Client) -> None:
    """Wait for the final error of a client."""
    while True:
        await (await client.connected()).wait_closed()


@asynccontextmanager
async def liar(
    server: Server, name: str, rules: tuple[str, ...]
) -> AsyncIterator[tuple[muxado.Session, Control]]:
    """A session of an invited client, whose program is ours."""
    token = server.state.invite(name, rules)
    context = client_context((server.state.pin,))
    async with muxado.connect(LOCAL, server.port, ssl=context) as session:
        control, _ = await join(session, key=new_secret(), token=token)
        yield session, control
