"""Every way to end a session takes a bounded time, whatever the peer does, and loses nothing."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pytest

import muxado
from muxado import Session, Stream
from tests.patience import patience

from ..certificates import Tls
from ..helpers import cancel, echo, exchange, opened, running
from .conftest import Line, NewLine

pytestmark = pytest.mark.anyio

CLOSE_TIMEOUT = 0.25
SETTINGS: dict[str, Any] = {"close_timeout": CLOSE_TIMEOUT, "ping_interval": None}
SHUTDOWN = 0.1
# What a busy machine may add.
SLACK = patience(5)

MIB = 1024 * 1024


# What the session is at when it is ended.


@asynccontextmanager
async def idle(line: Line) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def busy(line: Line) -> AsyncIterator[None]:
    """Streams of both sides that have data under way, and handlers for them."""

    async def ask(session: Session) -> None:
        async with session.open() as stream:
            while True:
                await stream.write(b"." * 1000)
                await stream.readexactly(1000)

    async with asyncio.TaskGroup() as group:
        quiet = [group.create_task(ended(session.serve(echo))) for session in line.ends]
        for session in line.ends:
            quiet += [group.create_task(ended(ask(session))) for _ in range(5)]
        await asyncio.gather(*[session.ping() for session in line.ends])
        yield


@asynccontextmanager
async def unread(line: Line) -> AsyncIterator[None]:
    """The peer's application doesn't read: more is written than its window takes."""
    async with opened(line.client, line.server) as (stream, _):
        await stream.write(b"." * MIB)
        await line.client.ping()
        assert line.client.stats().bytes_queued > 0
        yield


@asynccontextmanager
async def held(line: Line) -> AsyncIterator[None]:
    """The connection is a black hole, with data stuck in it."""
    async with opened(line.client, line.server) as (stream, other):
        await asyncio.gather(*[session.ping() for session in line.ends])
        line.relay.hold()
        for end in (stream, other):
            await end.write(b"." * MIB)
        try:
            yield
        finally:
            line.server.abort()


@asynccontextmanager
async def vanished(line: Line) -> AsyncIterator[None]:
    """The connection has been reset, and neither session knows it yet."""
    async with opened(line.client, line.server) as (stream, _):
        await asyncio.gather(*[session.ping() for session in line.ends])
        await stream.write(b"." * MIB)
        line.relay.reset()
        yield


async def ended(work: Awaitable[object]) -> None:
    """Do something until its session or its stream ends."""
    with suppress(muxado.MuxadoError, asyncio.IncompleteReadError):
        await work


STATES = [idle, busy, unread, held, vanished]
State = Callable[[Line], AbstractAsyncContextManager[None]]


# How it is ended


async def close(session: Session) -> None:
    session.close()
    await session.wait_closed()


async def shutdown(session: Session) -> None:
    await session.shutdown(SHUTDOWN)


async def leave(session: Session) -> None:
    async with session:
        pass


async def leave_cancelled(session: Session) -> None:
    async def hang() -> None:
        async with session:
            await asyncio.Event().wait()

    async with running(hang()) as hanging:
        await asyncio.sleep(0)
        await cancel(hanging)


async def abort(session: Session) -> None:
    session.abort()
    await session.wait_closed()


WAYS = [close, shutdown, leave, leave_cancelled, abort]


# The server ends it too, where that is quick.
CASES = [pytest.param(state, "client", id=f"{state.__name__}-client") for state in STATES]
CASES += [pytest.param(state, "server", id=f"{state.__name__}-server") for state in (idle, busy)]


@pytest.mark.parametrize(("state", "role"), CASES)
@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
async def test_ending_a_session_takes_a_bounded_time(
    new_line: NewLine, state: State, role: str, way: Callable[[Session], Awaitable[None]]
) -> None:
    # Where both ends live, no part of the end waits for a timeout.
    lively = state in (idle, busy)
    line = await new_line(**SETTINGS | {"close_timeout": 1000 if lively else CLOSE_TIMEOUT})
    near, far = line.ends if role == "client" else line.ends[::-1]
    async with state(line):
        start = time.monotonic()
        await way(near)
        took = time.monotonic() - start
        if lively or way in (abort, leave_cancelled):
            assert took < SLACK
        else:
            assert took < CLOSE_TIMEOUT + SLACK + (SHUTDOWN if way is shutdown else 0)
        assert near.closed
        assert near.stats().streams == near.stats().bytes_queued == 0
        assert near.stats().memory_held == 0
        if state is not held:
            async with asyncio.timeout(CLOSE_TIMEOUT + SLACK):
                await far.wait_closed()
            reason = far.close_reason
            assert reason is not None
            assert reason.by_peer
            if way not in (abort, leave_cancelled):  # a reset may overtake the GOAWAY
                timed_out = way is shutdown and "the shutdown's" in reason.message
                assert reason.code == 0 or timed_out or state in (vanished, unread)


@pytest.mark.parametrize("state", STATES, ids=[state.__name__ for state in STATES])
async def test_both_ends_may_close_at_once(new_line: NewLine, state: State) -> None:
    line = await new_line(**SETTINGS)
    async with state(line), asyncio.timeout(CLOSE_TIMEOUT + SLACK):
        for session in line.ends:
            session.close()
        for session in line.ends:
            await session.wait_closed()


# Nothing is lost


@asynccontextmanager
async def slow(line: Line) -> AsyncIterator[Callable[[Stream], Coroutine[Any, Any, bytes]]]:
    """A slow line, and a reader that is slower still."""
    line.relay.shape(delay=0.02, rate=4 * MIB)

    async def read(stream: Stream) -> bytes:
        arrived = bytearray()
        while data := await stream.read(30_000):
            arrived += data
            await asyncio.sleep(0.02)
        return bytes(arrived)

    yield read


@pytest.mark.parametrize("how", ["close", "shutdown", "close of the stream", "async with"])
async def test_all_that_was_written_arrives_behind_a_slow_reader(
    new_line: NewLine, how: str
) -> None:
    line = await new_line(initial_window=64 * 1024, close_timeout=patience(15))
    data = random.Random(1).randbytes(MIB // 2)
    async with (
        slow(line) as read,
        line.server.open(eager=True) as stream,
        await line.client.accept() as other,
        running(read(other)) as reading,
    ):
        await stream.write(data)
        stream.write_eof()
        if how == "close":
            await close(line.server)
        elif how == "shutdown":
            async with asyncio.TaskGroup() as group:
                group.create_task(line.server.shutdown(15))
                assert await reading == data
                other.close()
        elif how == "close of the stream":
            stream.close()
            await stream.wait_closed()
        else:
            async with line.server, stream:
                pass
        assert await reading == data


async def test_many_streams_arrive_whole_through_a_close(new_line: NewLine) -> None:
    line = await new_line(initial_window=16 * 1024, close_timeout=patience(15))
    data = random.Random(2)
    sent = [data.randbytes(data.randrange(100_000)) for _ in range(30)]
    async with slow(line):
        for piece in sent:
            stream = line.client.open()
            await stream.write(len(piece).to_bytes(4, "big") + piece)
            stream.close()
        line.client.close()
        arrived = []

        async def take(stream: Stream) -> None:
            async with stream:
                whole = await stream.read()
            arrived.append(whole[4:])
            assert len(whole) == 4 + int.from_bytes(whole[:4], "big")

        async with asyncio.TaskGroup() as group:
            async for stream in line.server:
                group.create_task(take(stream))
        await line.client.wait_closed()
        assert sorted(arrived) == sorted(sent)


# Servers and listeners


async def test_a_server_ends_with_every_kind_of_session(
    no_complaints: None, security: str, tls: Tls
) -> None:
    contexts = (tls.client, tls.server) if security == "tls" else (None, None)

    async def handle(session: Session) -> None:
        stream = session.open()
        await stream.write(b"." * MIB)
        await session.serve(echo)

    config = muxado.Config(**SETTINGS)
    for way in ("close", "shutdown", "leave"):
        server = await muxado.serve(handle, "127.0.0.1", 0, ssl=contexts[1], config=config)
        host, port = server.addresses[0]
        async with asyncio.TaskGroup() as group:
            silent = [socket.create_connection((host, port)) for _ in range(3)]
            sessions = [
                await muxado.connect(host, port, ssl=contexts[0], config=config) for _ in range(3)
            ]
            for session in sessions:
                assert await exchange(session.open(), b"x") == b"x"
            group.create_task(ended(sessions[0].serve(echo)))
            start = time.monotonic()
            if way == "close":
                server.close()
                await server.wait_closed()
            elif way == "shutdown":
                await server.shutdown(SHUTDOWN)
            else:
                async with server:
                    pass
            assert time.monotonic() - start < SHUTDOWN + 2 * CLOSE_TIMEOUT + SLACK
            assert server.sessions == []
            for session in sessions:
                session.abort()
                await session.wait_closed()
            for sock in silent:
                sock.close()


@pytest.mark.filterwarnings("ignore:unclosed <socket")
@pytest.mark.filterwarnings("ignore:unclosed transport <_SelectorSocketTransport")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_listener_closes_while_connections_arrive(
    no_complaints: None, security: str, tls: Tls
) -> None:
    context = tls.server if security == "tls" else None
    # asyncio's own server forgets a connection that it has accepted and not made yet, leaves
    # it to the collector, which stumbles over it, and reports that in debug mode.
    asyncio.get_running_loop().set_debug(False)
    for turns in range(12):
        listener = await muxado.listen("127.0.0.1", 0, ssl=context)
        dialled = [socket.create_connection(listener.addresses[0]) for _ in range(5)]
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(SLACK):
            listener.close()
            await listener.wait_closed()
            loop = asyncio.get_running_loop()
            await asyncio.sleep(0)  # asyncio forgets them now
            gc.collect()
            for sock in dialled:
                sock.setblocking(False)
                # No connection hangs on a listener that is gone.
                try:
                    while await loop.sock_recv(sock, 1000):
                        pass
                except ConnectionError:
                    pass
                sock.close()
