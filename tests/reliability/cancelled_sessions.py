"""What is left after a cancelled call of a session: the session, and every stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import muxado
from muxado import Session, Stream
from muxado.asyncio.protocol_streams import StreamServer

from ..helpers import echo, exchange, opened, running
from .cancelling import Cut, Scenario, Scenarios, Stage

SESSIONS = Scenarios()


def accepting(call: Callable[[Session], Coroutine[Any, Any, Stream]]) -> Scenario:
    """Cut an accept: if it doesn't give the stream, the next one does."""

    async def scenario(stage: Stage, cut: Cut) -> None:
        ends = await stage.new_pair()
        async with ends.client.open(eager=True) as stream:
            other = await cut(call(ends.server)) or await ends.server.accept()
            assert other.id == stream.id
            other.close()
        await stage.check(ends)

    return scenario


SESSIONS["Session.accept"] = accepting(lambda session: session.accept())
SESSIONS["Session.__anext__"] = accepting(lambda session: session.__anext__())


@SESSIONS.of("Session.accept: beside another")
async def accept_beside(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    first, second = (ends.client.open(eager=True) for _ in range(2))
    async with running(ends.server.accept()) as other:
        mine = await cut(ends.server.accept()) or await ends.server.accept()
        assert {mine.id, (await other).id} == {first.id, second.id}
        for stream in (mine, other.result(), first, second):
            stream.close()
    await stage.check(ends)


@SESSIONS.of("Session.serve")
async def serve(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()

    async def ask(request: bytes) -> bytes:
        async with ends.client.open() as stream:
            return await exchange(stream, request)

    requests = [b"1" * 1000, b"2" * 1000, b"3" * 1000]
    tasks = [asyncio.create_task(ask(request)) for request in requests]

    async def finish() -> None:
        await asyncio.wait(tasks)
        ends.client.close()

    async with running(finish()):
        await cut(ends.server.serve(echo, limit=2))
        if cut.hit:
            # Streams that it had not accepted are there for the next; the others were reset.
            await ends.server.serve(echo)
    for task, request in zip(tasks, requests, strict=True):
        error = task.exception()
        if isinstance(error, muxado.StreamReset):
            assert cut.hit
            assert error.code == muxado.ErrorCode.STREAM_CANCELLED
        else:
            assert task.result() == request
    for session in ends:
        await session.wait_closed()
        assert session.stats().streams == 0


@SESSIONS.of("Session.ping")
async def ping(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    await cut(ends.client.ping())
    assert await ends.client.ping() > 0
    await stage.check(ends)


@SESSIONS.of("Session.ping: beside another")
async def ping_beside(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    async with running(ends.client.ping()) as other:
        await cut(ends.client.ping())
        assert await other > 0
    await stage.check(ends)


@SESSIONS.of("Session.wait_closed")
async def wait_closed(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    async with opened(*ends) as (stream, other):
        await stream.write(b"last words")
        stream.write_eof()
        ends.client.close()
        await cut(ends.client.wait_closed())
        assert await other.read() == b"last words"
    for session in ends:
        await session.wait_closed()


@SESSIONS.of("Session.shutdown")
async def shutdown(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    async with opened(*ends) as (stream, other), running(echo(other)):
        async with running(exchange(stream, b"x" * 1000)) as exchanging:
            exchanging.add_done_callback(lambda _: stream.close())
            await cut(ends.client.shutdown(5))
            if cut.hit and not cut.turns:
                await check_open(ends.client)
            # Cancelled, it leaves the session draining: the stream comes to its end.
            assert await exchanging == b"x" * 1000
        await ends.client.shutdown(5)
        assert ends.client.close_reason is not None
        assert ends.client.close_reason.clean
    await ends.server.wait_closed()


async def check_open(session: Session) -> None:
    assert not session.closed
    session.open().close()


@SESSIONS.of("Session.__aenter__")
async def enter(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    assert await cut(ends.client.__aenter__()) in (None, ends.client)
    await stage.check(ends)


@SESSIONS.of("Session.__aexit__")
async def leave(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    async with opened(*ends) as (stream, other):
        await stream.write(b"last words")
        stream.write_eof()
        await cut(ends.client.__aexit__(None, None, None))
        assert ends.client.closed == (cut.turns > 0)
        if not cut.hit:
            assert await other.read() == b"last words"
        ends.client.abort()
    for session in ends:
        await session.wait_closed()


# Streams for libraries that know asyncio's own


@SESSIONS.of("Session.create_connection")
async def create_connection(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    given = await cut(ends.client.create_connection(asyncio.Protocol))
    if given is not None:
        transport, _ = given
        transport.write(b"hello")
        async with await ends.server.accept() as other:
            assert await other.readexactly(5) == b"hello"
            transport.close()
            assert await other.read() == b""
    await stage.check(ends)


@SESSIONS.of("Session.create_connection: TLS inside")
async def create_connection_tls(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    server = ends.server.create_server(asyncio.Protocol, ssl=stage.tls.server)
    given = await cut(
        ends.client.create_connection(
            asyncio.Protocol, ssl=stage.tls.client, server_hostname="localhost"
        )
    )
    if given is not None:
        given[0].abort()
    server.close()
    await server.wait_closed()
    await stage.check(ends)


@SESSIONS.of("Session.open_connection")
async def open_connection(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    given = await cut(ends.client.open_connection())
    if given is not None:
        reader, writer = given
        writer.write(b"hello")
        writer.write_eof()
        async with await ends.server.accept() as other:
            assert await exchange(other, b"back") == b"hello"
        assert await reader.read() == b"back"
        writer.close()
        await writer.wait_closed()
    await stage.check(ends)


def serving(call: Callable[[StreamServer], Coroutine[Any, Any, object]]) -> Scenario:
    """Cut a call of a server of streams while its session ends."""

    async def scenario(stage: Stage, cut: Cut) -> None:
        ends = await stage.new_pair()
        server = ends.server.create_server(asyncio.Protocol)
        ends.client.close()
        await cut(call(server))
        server.close()
        await server.wait_closed()
        assert not server.is_serving()
        for session in ends:
            await session.wait_closed()

    return scenario


SESSIONS["StreamServer.serve_forever"] = serving(lambda server: server.serve_forever())
SESSIONS["StreamServer.wait_closed"] = serving(lambda server: server.wait_closed())
SESSIONS["StreamServer.start_serving"] = serving(lambda server: server.start_serving())
SESSIONS["StreamServer.__aenter__"] = serving(lambda server: server.__aenter__())
SESSIONS["StreamServer.__aexit__"] = serving(lambda server: server.__aexit__(None, None, None))
