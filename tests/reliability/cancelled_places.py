"""What is left after a cancelled call of dialling and listening: nothing, or what there was."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import muxado
from muxado import Config, Listener, Server, Session
from muxado.asyncio.awaitable import AwaitableContext

from ..helpers import echo, exchange, running
from ..stand_in import standing_in
from .cancelling import Cut, Scenario, Scenarios, Stage

PLACES = Scenarios()

HOST = "127.0.0.1"
CONFIG = Config(close_timeout=2.0)

T = TypeVar("T")


# An opening is made by the task that is cut, for one that no task gets to await warns.


async def awaited(opening: Callable[[], Awaitable[T]]) -> T:
    return await opening()


async def entered(opening: Callable[[], AwaitableContext[Any]]) -> Any:
    return await opening().__aenter__()


async def handle(session: Session) -> None:
    await session.serve(echo)


def dial(stage: Stage, address: tuple[str, int]) -> AwaitableContext[Session]:
    ssl = stage.tls.client if stage.secure else None
    return muxado.connect(*address, ssl=ssl, config=CONFIG)


def server_ssl(stage: Stage) -> Any:
    return stage.tls.server if stage.secure else None


@asynccontextmanager
async def served(stage: Stage) -> AsyncIterator[tuple[Server, tuple[str, int]]]:
    """Run a server that echoes; afterwards, see that nothing of it is left."""
    server = await muxado.serve(handle, HOST, 0, ssl=server_ssl(stage), config=CONFIG)
    address = server.addresses[0]
    yield server, address
    server.close()
    await server.wait_closed()
    assert server.sessions == []
    assert server.sockets == ()
    # The port is free again.
    with socket.create_server(address):
        pass


async def works(session: Session) -> None:
    async with session.open() as stream:
        assert await exchange(stream, b"hello") == b"hello"


# Dialling


@PLACES.of("connect")
async def connect(stage: Stage, cut: Cut) -> None:
    async with served(stage) as (_, address):
        session = await cut(awaited(lambda: dial(stage, address)))
        if session is not None:
            await works(session)
            session.abort()
        async with dial(stage, address) as session:
            await works(session)


@PLACES.of("AwaitableContext.__aenter__: connect")
async def connect_entered(stage: Stage, cut: Cut) -> None:
    async with served(stage) as (_, address):
        session = await cut(entered(lambda: dial(stage, address)))
        if session is not None:
            await works(session)
            session.abort()


@PLACES.of("AwaitableContext.__aexit__: connect")
async def connect_left(stage: Stage, cut: Cut) -> None:
    async with served(stage) as (_, address):
        opening = dial(stage, address)
        session = await opening.__aenter__()
        await works(session)
        await cut(opening.__aexit__(None, None, None))
        assert session.closed == (cut.turns > 0)
        session.abort()
        await session.wait_closed()


# Listening


def free_address() -> tuple[str, int]:
    with socket.create_server((HOST, 0)) as sock:
        address: tuple[str, int] = sock.getsockname()
        return address


Starting = Callable[[Callable[[], AwaitableContext[Any]]], Coroutine[Any, Any, Any]]


def starting(how: Starting, make: Callable[..., AwaitableContext[Any]], *first: object) -> Scenario:
    """Cut the start of a listener: afterwards the port is free for another one."""

    async def scenario(stage: Stage, cut: Cut) -> None:
        address = free_address()

        def opening() -> AwaitableContext[Any]:
            ssl = server_ssl(stage)
            return make(*first, *address, ssl=ssl, config=CONFIG)

        place = await cut(how(opening))
        if place is not None:
            assert place.addresses == [address]
            place.close()
            await place.wait_closed()
        async with opening():
            pass

    return scenario


PLACES["serve"] = starting(awaited, muxado.serve, handle)
PLACES["serve_streams"] = starting(awaited, muxado.serve_streams, echo)
PLACES["listen"] = starting(awaited, muxado.listen)
PLACES["AwaitableContext.__aenter__: serve"] = starting(entered, muxado.serve, handle)
PLACES["AwaitableContext.__aenter__: listen"] = starting(entered, muxado.listen)


# Listeners


def accepting(call: Callable[[Listener], Coroutine[Any, Any, Session]]) -> Scenario:
    """Cut an accept: if it doesn't give the session, the next one does."""

    async def scenario(stage: Stage, cut: Cut) -> None:
        async with (
            muxado.listen(HOST, 0, ssl=server_ssl(stage), config=CONFIG) as listener,
            running(awaited(lambda: dial(stage, listener.addresses[0]))) as dialling,
        ):
            session = await cut(call(listener)) or await listener.accept()
            client = await dialling
            async with running(session.serve(echo)):
                await works(client)
            for end in (client, session):
                end.abort()
                await end.wait_closed()

    return scenario


PLACES["Listener.accept"] = accepting(lambda listener: listener.accept())
PLACES["Listener.__anext__"] = accepting(lambda listener: listener.__anext__())


def closing_listener(call: Callable[[Listener], Coroutine[Any, Any, object]]) -> Scenario:
    """Cut the end of a listener that has connections in every state."""

    async def scenario(stage: Stage, cut: Cut) -> None:
        listener = await muxado.listen(HOST, 0, ssl=server_ssl(stage), config=CONFIG)
        address = listener.addresses[0]
        waiting = await dial(stage, address)
        session = await listener.accept()
        unaccepted = await dial(stage, address)
        silent = socket.create_connection(address)
        if "enter" not in call.__name__:
            listener.close()
        await cut(call(listener))
        listener.close()
        await listener.wait_closed()
        silent.close()
        # What was accepted is the caller's, and outlives it.
        async with running(session.serve(echo)):
            await works(waiting)
        for end in (waiting, unaccepted, session):
            end.abort()
            await end.wait_closed()

    return scenario


async def listener_waits(listener: Listener) -> None:
    await listener.wait_closed()


async def listener_enters(listener: Listener) -> None:
    await listener.__aenter__()


async def listener_leaves(listener: Listener) -> None:
    await listener.__aexit__(None, None, None)


PLACES["Listener.wait_closed"] = closing_listener(listener_waits)
PLACES["Listener.__aenter__"] = closing_listener(listener_enters)
PLACES["Listener.__aexit__"] = closing_listener(listener_leaves)
PLACES["AwaitableContext.__aexit__: listen"] = closing_listener(listener_leaves)


# Servers


def closing_server(call: Callable[[Server], Coroutine[Any, Any, object]]) -> Scenario:
    """Cut the end of a server that has a session which ends in order."""

    async def scenario(stage: Stage, cut: Cut) -> None:
        async with served(stage) as (server, address), dial(stage, address) as session:
            await works(session)
            async with running(session.serve(echo)):
                await cut(call(server))
                if cut.hit and not cut.turns:
                    await works(session)

    return scenario


async def server_waits(server: Server) -> None:
    server.close()
    await server.wait_closed()


async def server_serves(server: Server) -> None:
    asyncio.get_running_loop().call_soon(server.close)
    await server.serve_forever()


async def server_opening_leaves(server: Server) -> None:
    await server.__aexit__(None, None, None)


PLACES["Server.wait_closed"] = closing_server(server_waits)
PLACES["Server.serve_forever"] = closing_server(server_serves)
PLACES["Server.shutdown"] = closing_server(lambda server: server.shutdown(2.0))
PLACES["Server.__aenter__"] = closing_server(lambda server: server.__aenter__())
PLACES["Server.__aexit__"] = closing_server(lambda server: server.__aexit__(None, None, None))


@PLACES.of("serve_stdio")
async def serve_stdio(stage: Stage, cut: Cut) -> None:
    """Cut it anywhere: its session ends, and the other end sees that."""
    with standing_in() as near:
        session = await muxado.connect(sock=near, config=CONFIG)

        async def ask() -> None:
            with contextlib.suppress(muxado.MuxadoError):
                assert await exchange(session.open(), b"hello") == b"hello"
            session.close()

        asking = asyncio.create_task(ask())
        await cut(muxado.serve_stdio(handle, config=CONFIG))
    await session.wait_closed()
    await asking
