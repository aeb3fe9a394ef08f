"""Servers of one fleet, and clients that are connected to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trustme

import muxado
from muxado.cluster import Denied, Header, Member, MemoryDirectory, Message, Node, PeerTLS
from tests.patience import patience

Handler = Callable[[muxado.Stream, Header], Awaitable[object]]


async def echo(stream: muxado.Stream, header: Header) -> None:
    """Say everything again, as it comes."""
    while data := await stream.read(65536):
        await stream.write(data)
    stream.write_eof()


async def ask(stream: muxado.Stream, question: bytes) -> bytes:
    """Say something, half-close, and read the answer to its end."""
    async with stream:
        writing = asyncio.create_task(say(stream, question))
        answer = await stream.read()
        await writing
        return answer


async def say(stream: muxado.Stream, question: bytes) -> None:
    for at in range(0, len(question), 65536):
        await stream.write(question[at : at + 65536])
    stream.write_eof()


async def authenticate(session: muxado.Session, hello: Message) -> str:
    """Know each client by a key, which says who it is."""
    key = hello.text("key")
    if key == "stranger":
        raise Denied("this fleet does not know you", 401)
    return key


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds that nothing tells of."""
    async with asyncio.timeout(patience(10)):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Fleet:
    """Several servers of one process, which share a directory.

    Attributes:
        nodes: the servers.
        ports: where each of them listens for clients.
        servers: what listens there.
    """

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.nodes: list[Node] = []
        self.ports: list[int] = []
        self.servers: list[muxado.Server] = []
        self.engine = MemoryDirectory()
        self._stack = stack
        self.tls = peer_tls(folder, trustme.CA())

    async def add(self, **options: Any) -> Node:
        """Start another server."""
        options.setdefault("directory", MemoryDirectory(self.engine))
        node = await self._stack.enter_async_context(Node(peers=self.tls, **options))
        server = await self._stack.enter_async_context(
            muxado.serve(lambda session: node.serve(session, authenticate), "127.0.0.1", 0)
        )
        self.nodes.append(node)
        self.servers.append(server)
        self.ports.append(server.addresses[0][1])
        return node

    def places(self, *numbers: int) -> list[tuple[str, int]]:
        return [("127.0.0.1", self.ports[number]) for number in numbers]

    @asynccontextmanager
    async def member(
        self, name: str, servers: Sequence[int], handler: Handler = echo, **options: Any
    ) -> AsyncIterator[Member]:
        """A client, once it is connected to the first of some servers."""
        async with Member(name, self.places(*servers), handler, **options) as member:
            await member.connected()
            yield member


def peer_tls(folder: Path, authority: trustme.CA) -> PeerTLS:
    """Return a server's certificates, of an authority of peers."""
    folder.mkdir(exist_ok=True)
    certificate = authority.issue_cert("peer.example.org")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for at, pem in enumerate(certificate.cert_chain_pems):
        pem.write_to_path(folder / "cert.pem", append=at > 0)
    return PeerTLS(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")


@asynccontextmanager
async def fleet_of(folder: Path, count: int, **options: Any) -> AsyncIterator[Fleet]:
    """A fleet of so many servers."""
    async with AsyncExitStack() as stack:
        fleet = Fleet(folder, stack)
        for _ in range(count):
            await fleet.add(**options)
        yield fleet
