"""Hostile peers on real connections: their own session pays, and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

import muxado
from muxado import Config, ErrorCode, Server, Session, SessionError, Stream
from muxado.wire.codec import GO_AWAY

from ..core.peer import PING, data, header, rst, wndinc
from ..frames import read_frames

pytestmark = pytest.mark.anyio

# Seconds in which something must have happened.
PATIENCE = 10
# Bytes that one hostile connection may make a server hold: its read buffer of 256 KiB, what the
# loop's transport and our queue of answers hold, and a task for each of the streams of `CONFIG`,
# which is 10 KiB in asyncio's debug mode.
MOST_HELD = 5 * 1024 * 1024
CONFIG = Config(max_incoming_streams=200, accept_backlog=128)

Burst = Callable[[int], bytes]


def ids(number: int) -> range:
    return range(3 + 2000 * number, 3 + 2000 * (number + 1), 2)


class Flood(NamedTuple):
    """What a peer sends again and again.

    Attributes:
        burst: the n-th portion.
        reading: the code it gets in the end if it reads; None: the session goes on.
        deaf: the same if it doesn't read.
    """

    burst: Burst
    reading: ErrorCode | None
    deaf: ErrorCode | None


CALM = ErrorCode.ENHANCE_YOUR_CALM
FLOODS = {
    "SYN": Flood(lambda n: b"".join(data(i, syn=True) for i in ids(n)), None, CALM),
    "SYN and FIN": Flood(
        lambda n: b"".join(data(i, b"x", syn=True, fin=True) for i in ids(n)[:300]), None, CALM
    ),
    "open and reset": Flood(
        lambda n: b"".join(data(i, syn=True) + rst(i, 6) for i in ids(n)), CALM, CALM
    ),
    "unknown streams": Flood(lambda n: b"".join(data(i, b"x") for i in ids(n)), None, CALM),
    "pings": Flood(lambda n: PING * 1000, None, None),
    "tiny DATA": Flood(
        lambda n: data(3, b"x", syn=True) if n == 0 else data(3, b"x") * 1000, None, None
    ),
    "the rest": Flood(
        lambda n: (header(9, 9, 9, 0) + bytes(9) + wndinc(7, 1) + rst(7, 9)) * 300, None, None
    ),
}
BURSTS = 10
# So many that the kernel's buffers are full if what they draw is not read.
UNREAD_BURSTS = 300


async def echo(stream: Stream) -> None:
    while piece := await stream.read(65536):
        await stream.write(piece)


class Scene:
    """A server with an echo on every stream, and a peaceful client.

    Attributes:
        ended: the errors with which hostile sessions ended, as they come.
    """

    def __init__(self) -> None:
        self.server: Server
        self.friend: Session
        self.ended: asyncio.Queue[SessionError | None] = asyncio.Queue()

    async def handle(self, session: Session) -> None:
        try:
            await session.serve(echo)
        except SessionError as error:
            self.ended.put_nowait(error)
        else:
            self.ended.put_nowait(None)

    async def check_friend(self) -> None:
        """Check that the other client is served as ever."""
        async with asyncio.timeout(PATIENCE), self.friend.open() as stream:
            await stream.write(b"are you well?")
            assert await stream.readexactly(13) == b"are you well?"


@asynccontextmanager
async def serving() -> AsyncIterator[Scene]:
    scene = Scene()
    async with muxado.serve(scene.handle, "127.0.0.1", 0, config=CONFIG) as scene.server:
        host, port = scene.server.addresses[0]
        async with await muxado.connect(host, port) as scene.friend:
            await scene.check_friend()
            yield scene


class Hostile:
    """A raw connection to the server."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.got = bytearray()

    async def send(self, wire: bytes) -> bool:
        """Send bytes; return False if the server has had enough."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self.loop.sock_sendall(self.sock, wire)
        except ConnectionError:
            return False
        return True

    async def read_to(self, mark: bytes) -> None:
        """Read until something has come."""
        async with asyncio.timeout(PATIENCE):
            while mark not in self.got:
                if not await self.read():
                    raise ConnectionError("the server has closed the connection")

    async def read(self) -> bytes:
        piece = await self.loop.sock_recv(self.sock, 65536)
        self.got += piece
        return piece

    async def read_to_end(self) -> None:
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while await self.read():
                    pass


@asynccontextmanager
async def hostile(scene: Scene) -> AsyncIterator[Hostile]:
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        # So that little of what the server says fits on the way.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(sock, scene.server.addresses[0])
        yield Hostile(sock)


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_whose_answers_are_read(name: str) -> None:
    flood = FLOODS[name]
    async with serving() as scene, hostile(scene) as peer:
        mark = 1_000_001
        for number in range(BURSTS):
            # Its answer says that all before it was taken, and so does the server's end.
            if not await peer.send(flood.burst(number) + data(mark + 2 * number)):
                break
            if number % 5 == 0:
                await scene.check_friend()
            try:
                await peer.read_to(rst(mark + 2 * number, 4))
            except ConnectionError:
                break
        await scene.check_friend()
        if flood.reading is None:
            assert scene.ended.empty()
            assert GO_AWAY not in [frame.kind for frame in read_frames([bytes(peer.got)])]
        else:
            await check_ended(scene, flood.reading)


# Without the one that mostly keeps the server's application busy.
@pytest.mark.parametrize("name", [name for name in FLOODS if name != "SYN and FIN"])
async def test_a_flood_whose_answers_are_not_read(name: str) -> None:
    flood = FLOODS[name]
    async with serving() as scene, hostile(scene) as peer:
        tracemalloc.start()
        try:
            for number in range(UNREAD_BURSTS if flood.deaf else BURSTS):
                if number % 10 == 0:
                    await scene.check_friend()
                    assert tracemalloc.get_traced_memory()[0] < MOST_HELD
                if not await peer.send(flood.burst(number)):
                    break
            await scene.check_friend()
            assert tracemalloc.get_traced_memory()[0] < MOST_HELD
        finally:
            tracemalloc.stop()
        if flood.deaf is None:
            assert scene.ended.empty()
        else:
            await check_ended(scene, flood.deaf)


async def check_ended(scene: Scene, code: ErrorCode) -> None:
    async with asyncio.timeout(PATIENCE):
        error = await scene.ended.get()
    assert error is not None
    assert error.code == code
    assert error.reason is not None
    assert not error.reason.by_peer


@pytest.mark.parametrize(
    ("wire", "name"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"),
        (bytes.fromhex("16030110000100") + bytes(500), "TLS"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "PROXY"),
        (bytes.fromhex("000200010000000000000001"), "yamux"),
    ],
)
async def test_another_protocol_is_named_and_cut_off(wire: bytes, name: str) -> None:
    async with serving() as scene, hostile(scene) as peer:
        await peer.send(wire)
        async with asyncio.timeout(PATIENCE):
            error = await scene.ended.get()
        assert name in str(error)
        await peer.read_to_end()
        assert peer.got == b""
        await scene.check_friend()


async def test_connections_that_say_nothing_keep_nobody_out() -> None:
    async with serving() as scene, contextlib.AsyncExitStack() as stack:
        for _ in range(300):
            await stack.enter_async_context(hostile(scene))
        await scene.check_friend()
        host, port = scene.server.addresses[0]
        async with asyncio.timeout(PATIENCE), await muxado.connect(host, port) as other:
            assert await other.ping() >= 0


async def test_a_burst_that_draws_very_many_answers_is_answered_in_full() -> None:
    """A peer that reads, if only after it has written, is no hostile one."""
    async with serving() as scene, hostile(scene) as peer:
        count = 30_000
        await peer.send(b"".join(data(i) for i in range(2, 2 + 2 * count, 2)))
        async with asyncio.timeout(PATIENCE):
            while len(peer.got) < count * 12:
                assert await peer.read()
        assert peer.got.replace(PING, b"") == b"".join(
            rst(i, 4) for i in range(2, 2 + 2 * count, 2)
        )
        await scene.check_friend()
        assert scene.ended.empty()
