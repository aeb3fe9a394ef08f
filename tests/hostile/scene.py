"""A server with a peaceful client, and hostile peers that are played on bare sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import chain, repeat
from typing import Any

import muxado
from muxado import Config, ErrorCode, Server, Session, SessionError, Stream
from tests.patience import patience

from ..certificates import Tls
from ..reliability.soak_peer import resident

# Seconds in which something must have happened.
PATIENCE = patience(10)
# Seconds that a TLS handshake may take.
HANDSHAKE = patience(1)
MIB = 1024 * 1024
# What one hostile connection may make a server hold: a read buffer of 256 KiB, and what the loop's
# transport and our queue of answers hold. The peaceful client's two sessions give their read
# buffers back when they are idle, so these may have come since the count began.
MOST_HELD = MIB + 2 * 256 * 1024
# The same as the system sees it, with what Python's allocator keeps and TLS needs.
MOST_RESIDENT = 6 * MIB
# A task takes so much in asyncio's debug mode.
TASK = 16 * 1024
# Over TLS a peer that doesn't answer the last ping is waited for until `close_timeout`.
CONFIG = Config(max_incoming_streams=200, accept_backlog=128, close_timeout=0.3)

Handler = Callable[[Stream], Awaitable[None]]


async def echo(stream: Stream) -> None:
    while piece := await stream.read(65536):
        await stream.write(piece)


class Scene:
    """A server, and a peaceful client that must never notice the others.

    Args:
        tls: what both ends use, None for none.
        handler: what the server does with each stream of the others.

    Attributes:
        met: the server's sessions with those, as they come.
        ended: the errors with which they ended, as they come; None: in order.
    """

    def __init__(self, tls: Tls | None, handler: Handler) -> None:
        self.server: Server
        self.friend: Session
        self.tls = tls
        self._handlers = chain([echo], repeat(handler))  # the peaceful client comes first
        self.met: asyncio.Queue[Session] = asyncio.Queue()
        self.ended: asyncio.Queue[SessionError | None] = asyncio.Queue()

    @property
    def client_context(self) -> ssl.SSLContext | None:
        return self.tls.client if self.tls else None

    async def handle(self, session: Session) -> None:
        self.met.put_nowait(session)
        try:
            await session.serve(next(self._handlers))
        except SessionError as error:
            self.ended.put_nowait(error)
        else:
            self.ended.put_nowait(None)

    async def check_friend(self) -> None:
        """Check that the peaceful client is served as ever."""
        async with asyncio.timeout(PATIENCE), self.friend.open() as stream:
            await stream.write(b"are you well?")
            assert await stream.readexactly(13) == b"are you well?"

    async def until(self, condition: Callable[[], bool]) -> None:
        """Serve the peaceful client until something is so."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await self.check_friend()

    async def end(self) -> SessionError | None:
        """Wait for the end of a hostile session, and return how it ended."""
        async with asyncio.timeout(PATIENCE):
            return await self.ended.get()

    async def check_ended(self, code: ErrorCode) -> None:
        """Check that the server has ended a hostile session with a code."""
        error = await self.end()
        assert error is not None
        assert error.code == code
        assert error.reason is not None
        assert not error.reason.by_peer

    @contextmanager
    def bounded(self, more: int = 0) -> Iterator[Callable[[], None]]:
        """Give what checks that hardly more memory is held than at the start of the block.

        Python's own count is exact and knows its peak, but nothing of what uvloop and TLS hold;
        there the system is asked.

        Args:
            more: bytes that may be held besides what every session may.
        """
        gc.collect()
        if self.tls is not None or "uvloop" in type(asyncio.get_running_loop()).__module__:
            start = resident()
            yield lambda: check_less(int((resident() - start) * MIB), MOST_RESIDENT + 2 * more)
            return
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            yield lambda: check_less(tracemalloc.get_traced_memory()[1] - before, MOST_HELD + more)
        finally:
            tracemalloc.stop()


def check_less(held: int, bound: int) -> None:
    assert held < bound


@asynccontextmanager
async def serving(
    tls: Tls | None, handler: Handler = echo, config: Config = CONFIG
) -> AsyncIterator[Scene]:
    """Run a server with a peaceful client."""
    scene = Scene(tls, handler)
    options: dict[str, Any] = {}
    if tls is not None:
        options = {"ssl": tls.server, "ssl_handshake_timeout": HANDSHAKE}
    async with muxado.serve(scene.handle, "127.0.0.1", 0, config=config, **options) as scene.server:
        host, port = scene.server.addresses[0]
        async with await muxado.connect(host, port, ssl=scene.client_context) as scene.friend:
            await scene.check_friend()
            await scene.met.get()
            yield scene


class Hostile:
    """A bare connection to the server. Over TLS, the records are taken from it by hand.

    Attributes:
        session: the server's session with it.
        got: what the server has said.
        taken: bytes taken off the connection, of whatever is to become of them.
    """

    session: Session

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.got = bytearray()
        self.taken = 0
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()

    async def shake_hands(self, context: ssl.SSLContext) -> None:
        """Begin TLS."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.loop.sock_sendall(self.sock, self._outgoing.read())
                self._incoming.write(await self.loop.sock_recv(self.sock, 65536))
            else:
                break
        await self.loop.sock_sendall(self.sock, self._outgoing.read())
        self._tls = tls

    async def send(self, wire: bytes) -> bool:
        """Send bytes; return False if the server has had enough."""
        if self._tls is not None:
            self._tls.write(wire)
            wire = self._outgoing.read()
        try:
            async with asyncio.timeout(PATIENCE):
                await self.loop.sock_sendall(self.sock, wire)
        except ConnectionError:
            return False
        return True

    async def take(self, limit: int = 65536) -> bool:
        """Take some bytes off the connection; return False at its end."""
        piece = await self.loop.sock_recv(self.sock, limit)
        self.taken += len(piece)
        if self._tls is None:
            self.got += piece
        else:
            self._incoming.write(piece)
            with contextlib.suppress(ssl.SSLWantReadError):
                while clear := self._tls.read(65536):
                    self.got += clear
        return len(piece) > 0

    async def read_to(self, mark: bytes) -> None:
        """Read until something has come."""
        async with asyncio.timeout(PATIENCE):
            while mark not in self.got:
                if not await self.take():
                    raise ConnectionError("the server has closed the connection")

    async def read_to_end(self) -> None:
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while await self.take():
                    pass


@asynccontextmanager
async def connected(scene: Scene) -> AsyncIterator[socket.socket]:
    """Connect to the server, and say nothing."""
    with socket.socket() as sock:
        sock.setblocking(False)
        # So that little of what the server says fits on the way.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(sock, scene.server.addresses[0])
        yield sock


@asynccontextmanager
async def hostile(scene: Scene) -> AsyncIterator[Hostile]:
    """Connect a hostile peer to the server."""
    async with connected(scene) as sock:
        peer = Hostile(sock)
        async with asyncio.timeout(PATIENCE):
            if scene.client_context is not None:
                await peer.shake_hands(scene.client_context)
            peer.session = await scene.met.get()
        yield peer
