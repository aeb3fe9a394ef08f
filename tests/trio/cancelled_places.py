"""What is left after a cancelled call of dialling and listening: nothing, or what there was."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from functools import partial

import trio

import muxado.trio
from muxado import Config
from muxado.trio import Listener, Server, Session

from ..stand_in import standing_in
from .cancelling import (
    Cut,
    Scenario,
    Scenarios,
    Security,
    echo,
    free_address,
    socket_streams,
)
from .test_trio_session import exchange

PLACES = Scenarios()

HOST = "127.0.0.1"
CONFIG = Config(close_timeout=2.0)


async def handle(session: Session) -> None:
    await session.serve(echo)


def dial(security: Security, address: tuple[str, int]) -> AbstractAsyncContextManager[Session]:
    return muxado.trio.connect(*address, ssl=security.client, config=CONFIG)


def listening(
    security: Security, address: tuple[str, int] = (HOST, 0)
) -> AbstractAsyncContextManager[Listener]:
    return muxado.trio.listen(*address, ssl=security.server, config=CONFIG)


@asynccontextmanager
async def served(security: Security) -> AsyncIterator[Server]:
    """Run a server that echoes; afterwards, see that the port is free again."""
    async with trio.open_nursery() as nursery:
        start = partial(muxado.trio.serve, handle, HOST, 0, ssl=security.server, config=CONFIG)
        server: Server = await nursery.start(start)
        address = server.addresses[0]
        yield server
        server.close()
        await server.wait_closed()
        assert server.sessions == []
    with socket.create_server(address):
        pass


async def works(session: Session) -> None:
    assert await exchange(session, b"hello") == b"hello"


# Dialling


@PLACES.of("connect.__aenter__")
async def connect(security: Security, cut: Cut) -> None:
    async with served(security) as server:

        async def come_and_go() -> None:
            async with dial(security, server.addresses[0]) as session:
                session.abort()

        await cut(come_and_go)
        async with dial(security, server.addresses[0]) as session:
            await works(session)


@PLACES.of("connect.__aexit__")
async def leave_connection(security: Security, cut: Cut) -> None:
    async with served(security) as server:
        leaving = trio.Event()

        async def use() -> None:
            async with dial(security, server.addresses[0]) as session:
                await works(session)
                leaving.set()

        await cut(use, leaving)
        async with dial(security, server.addresses[0]) as session:
            await works(session)


Open = Callable[[trio.SocketStream], AbstractAsyncContextManager[Session]]


def opening(here: Open, there: Open, *, leave: bool) -> Scenario:
    """Cut a session over a stream of trio's, where it begins or where it ends."""

    async def scenario(security: Security, cut: Cut) -> None:
        near, far = await socket_streams()
        leaving = trio.Event()

        async def use() -> None:
            async with here(near) as session:
                if leave:
                    await session.ping()
                leaving.set()

        async with there(far) as other:
            await cut(use, leaving if leave else None)
            # Whatever has happened, the peer hears of the end, and the stream is closed.
            await near.aclose()
            await other.wait_closed()

    return scenario


PLACES["client.__aenter__"] = opening(muxado.trio.client, muxado.trio.server, leave=False)
PLACES["client.__aexit__"] = opening(muxado.trio.client, muxado.trio.server, leave=True)
PLACES["server.__aenter__"] = opening(muxado.trio.server, muxado.trio.client, leave=False)
PLACES["server.__aexit__"] = opening(muxado.trio.server, muxado.trio.client, leave=True)


# Listeners


@PLACES.of("listen.__aenter__")
async def listen(security: Security, cut: Cut) -> None:
    address = free_address()

    async def begin() -> None:
        async with listening(security, address) as listener:
            assert listener.addresses == [address]
            await listener.aclose()

    await cut(begin)
    # The port is free for another listener.
    async with listening(security, address):
        pass


@PLACES.of("listen.__aexit__")
async def leave_listener(security: Security, cut: Cut) -> None:
    leaving = trio.Event()
    address = free_address()

    async def client() -> None:
        async with dial(security, address) as session:
            with suppress(trio.BrokenResourceError):  # a listener that is cancelled aborts
                await session.serve(echo)

    async with trio.open_nursery() as clients:

        async def use() -> None:
            async with listening(security, address) as listener:
                clients.start_soon(client)
                await works(await listener.accept())
                leaving.set()

        await cut(use, leaving)
    with socket.create_server(address):
        pass


def accepting(call: Callable[[Listener], Awaitable[Session]]) -> Scenario:
    """Cut an accept: if it doesn't give the session, the next one does."""

    async def scenario(security: Security, cut: Cut) -> None:
        async with listening(security) as listener, trio.open_nursery() as nursery:

            async def client() -> None:
                async with dial(security, listener.addresses[0]) as session:
                    await works(session)

            nursery.start_soon(client)
            session = await cut(lambda: call(listener)) or await listener.accept()
            await session.serve(echo)

    return scenario


PLACES["Listener.accept"] = accepting(lambda listener: listener.accept())
PLACES["Listener.__anext__"] = accepting(lambda listener: listener.__anext__())


def closing_listener(call: Callable[[Listener], Awaitable[object]]) -> Scenario:
    """Cut the end of a listener that has connections in every state."""

    async def scenario(security: Security, cut: Cut) -> None:
        async with listening(security) as listener, trio.open_nursery() as nursery:
            address = listener.addresses[0]
            async with dial(security, address) as client:
                session = await listener.accept()
                with socket.create_connection(address):  # says nothing
                    async with dial(security, address) as unaccepted:
                        await unaccepted.ping()
                        await cut(lambda: call(listener))
                        await listener.aclose()
                        await unaccepted.wait_closed()
                # What was accepted lives as long as the block.
                nursery.start_soon(session.serve, echo)
                await works(client)
        with socket.create_server(address):
            pass

    return scenario


PLACES["Listener.aclose"] = closing_listener(lambda listener: listener.aclose())
PLACES["Listener.__aenter__"] = closing_listener(lambda listener: listener.__aenter__())
PLACES["Listener.__aexit__"] = closing_listener(
    lambda listener: listener.__aexit__(None, None, None)
)


# Servers


def serving(serve: Callable[..., Awaitable[object]], handler: object) -> Scenario:
    """Cut a server where it begins, works and ends: then one can listen there again."""

    async def scenario(security: Security, cut: Cut) -> None:
        address = free_address()

        async def use() -> None:
            async with trio.open_nursery() as nursery:
                start = partial(serve, handler, *address, ssl=security.server)
                server: Server = await nursery.start(start)
                async with dial(security, address) as session:
                    await works(session)
                    server.close()
                    await server.wait_closed()

        await cut(use)
        with socket.create_server(address):
            pass

    return scenario


PLACES["serve"] = serving(muxado.trio.serve, handle)
PLACES["serve_streams"] = serving(muxado.trio.serve_streams, echo)


def closing_server(call: Callable[[Server], Awaitable[object]]) -> Scenario:
    """Cut the end of a server that has a session which ends in order."""

    async def scenario(security: Security, cut: Cut) -> None:
        async with served(security) as server, dial(security, server.addresses[0]) as session:
            await works(session)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.serve, echo)
                await cut(lambda: call(server))
                server.close()
                await server.wait_closed()
                await session.wait_closed()

    return scenario


async def server_waits(server: Server) -> None:
    server.close()
    await server.wait_closed()


PLACES["Server.wait_closed"] = closing_server(server_waits)
PLACES["Server.shutdown"] = closing_server(lambda server: server.shutdown(2.0))


@PLACES.of("serve_stdio")
async def serve_stdio(security: Security, cut: Cut) -> None:
    """Cut it anywhere: its session ends, and the other end sees that."""
    with ExitStack() as until_cut:
        near = until_cut.enter_context(standing_in())
        sock = trio.socket.from_stdlib_socket(near)
        async with (
            muxado.trio.connect(sock=sock, config=CONFIG) as session,
            trio.open_nursery() as nursery,
        ):

            async def ask() -> None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await works(session)
                session.close()

            nursery.start_soon(ask)
            await cut(partial(muxado.trio.serve_stdio, handle, config=CONFIG))
            until_cut.close()
            await session.wait_closed()
