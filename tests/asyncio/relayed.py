"""One relayed connection: a program at each end of it, and the relay between them."""

from __future__ import annotations

import asyncio
import socket
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muxado import Config, Relay, RelayResult, Session, Stream
from muxado.testing import asyncio_pair

KIB = 1024
# What the two ends have under way in the test's own sockets: little, so that it can be told from
# what the relay holds.
KERNEL_BUFFER = 32 * KIB
WINDOW = 64 * KIB
SMALL = Config(initial_window=WINDOW, max_window=WINDOW, write_high_water=WINDOW)


class User:
    """A program that has one end of a relayed connection, a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def receive(self, n: int = 64 * KIB) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.sock, n)

    async def receive_exactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            piece = await self.receive(n - len(data))
            assert piece, "the end came too early"
            data += piece
        return data

    async def receive_all(self) -> bytes:
        pieces = []
        while piece := await self.receive():
            pieces.append(piece)
        return b"".join(pieces)

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


@dataclass
class Scene:
    """A relay, and what is at its ends.

    Attributes:
        user: the program at the socket.
        peer: the stream's other end.
        relay: the relay.
        near: the session of the relay's stream.
        far: the session of the peer's.
    """

    user: User
    peer: Stream
    relay: Relay
    near: Session
    far: Session

    async def result(self) -> RelayResult:
        return await self.relay.wait_closed()


def small_buffers(sock: socket.socket) -> None:
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, KERNEL_BUFFER)


@asynccontextmanager
async def relayed(
    kind: str = "tcp", *, early: bytes = b"", config: Config = SMALL, **options: Any
) -> AsyncIterator[Scene]:
    """Connect a user to a relay, and that to a peer.

    Args:
        kind: "tcp" or "unix".
        early: what the peer sends before the relay has its connection.
        config: the settings of the session that the peer is reached by.
        options: the relay's.
    """
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        near, far = await stack.enter_async_context(asyncio_pair(config))
        stream = near.open(eager=True)
        peer = await far.accept()
        if early:
            await peer.write(early)
            await far.ping()
        made: asyncio.Future[Relay] = loop.create_future()

        def factory() -> Relay:
            made.set_result(Relay(stream, **options))
            return made.result()

        if kind == "tcp":
            listening = socket.create_server(("127.0.0.1", 0))
            small_buffers(listening)
            server = await loop.create_server(factory, sock=listening)
            user = User(socket.socket())
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mux"))
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(str(Path(folder) / "s"))
            server = await loop.create_unix_server(factory, sock=listening)
            user = User(socket.socket(socket.AF_UNIX))
        small_buffers(user.sock)
        await loop.sock_connect(user.sock, listening.getsockname())
        relay = await made
        try:
            yield Scene(user, peer, relay, near, far)
        finally:
            server.close()
            user.sock.close()
            relay.cancel()
            (peer.reset if peer.tells_resets else peer.close)()
            await relay.wait_closed()
            near.abort()
            far.abort()
