"""`Server`, which `serve` gives to who starts it: looking at it, and every way to end it."""

from __future__ import annotations

import socket
from functools import partial

import pytest
import trio
import trio.testing

from muxado import Config, SessionClosed
from muxado.trio import Server, Session, Stream, connect, serve
from tests.certificates import Tls
from tests.patience import patience

from .test_trio_session import echo, exchange, tasks


async def echo_server(session: Session) -> None:
    await session.serve(echo)


async def test_a_shutdown_refuses_the_new_and_finishes_the_old() -> None:
    before = tasks()
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, echo_server, "127.0.0.1", 0)
        ((host, port),) = server.addresses
        async with connect(host, port) as session, session.open() as stream:
            await stream.send_all(b"old")
            assert await stream.readexactly(3) == b"old"
            assert [other.remote_address for other in server.sessions] == [session.local_address]
            async with trio.open_nursery() as ending:
                ending.start_soon(server.shutdown)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(OSError, match=r".*"):
                    await trio.open_tcp_stream(host, port)
                await stream.send_all(b"goes on")
                assert await stream.readexactly(7) == b"goes on"
                await stream.send_eof()
                assert await stream.receive_some() == b""
            assert session.close_reason is not None
            assert session.close_reason.clean
    assert server.sessions == []
    assert tasks() == before


async def test_a_shutdown_does_not_wait_longer_than_it_was_told() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, echo_server, "127.0.0.1", 0)
        async with connect(*server.addresses[0]) as session, session.open() as stream:
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
            await server.shutdown(0.01)
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


async def test_closing_a_server_closes_its_sessions_in_order() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, echo_server, "127.0.0.1", 0)
        async with connect(*server.addresses[0]) as session:
            assert await exchange(session, b"x") == b"x"
            server.close()
            server.close()
            await server.wait_closed()
            with pytest.raises(trio.EndOfChannel) as ended:
                await session.accept()
            assert isinstance(ended.value.__cause__, SessionClosed)


async def test_a_handler_that_outlives_its_session_is_cancelled() -> None:
    async def busy(session: Session) -> None:
        await trio.sleep_forever()

    config = Config(close_timeout=0.05)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, busy, "127.0.0.1", 0, config=config))
        async with connect(*server.addresses[0]) as session:
            await session.ping()
            server.close()
            with trio.fail_after(patience(1)):
                await server.wait_closed()


async def test_closing_a_server_gives_up_on_handshakes(tls: Tls) -> None:
    async with trio.open_nursery() as nursery:
        start = partial(serve, echo_server, "127.0.0.1", 0, ssl=tls.server)
        server = await nursery.start(start)
        address = server.addresses[0]
        with socket.create_connection(address):  # says nothing
            async with connect("localhost", address[1], ssl=tls.client) as session:
                await session.ping()  # so the other's handshake has begun
                server.close()
                with trio.fail_after(patience(1)):
                    await server.wait_closed()


async def test_cancelling_a_server_aborts_its_sessions() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, echo_server, "127.0.0.1", 0)
        address = server.addresses[0]
        with socket.create_connection(address):  # would keep an orderly close waiting
            async with connect(*address) as session, session.open() as stream:
                await stream.send_all(b"x")
                assert await stream.receive_some() == b"x"
                with trio.fail_after(patience(1)):
                    nursery.cancel_scope.cancel()
                    with trio.CancelScope(shield=True):
                        await server.wait_closed()
                        await session.wait_closed()
                assert session.close_reason is not None
                assert session.close_reason.by_peer


async def test_a_server_refuses_nothing_of_a_burst_beyond_its_backlog() -> None:
    """What came in one read waits for the handlers to be started, a backlog at a time."""
    count = 200

    async def answer(stream: Stream) -> None:
        await stream.send_all(await stream.receive_some())

    async def serve_session(session: Session) -> None:
        await session.serve(answer)

    config = Config(accept_backlog=8)
    replies: list[bytes] = []
    async with trio.open_nursery() as nursery:
        start = partial(serve, serve_session, "127.0.0.1", 0, config=config)
        server = await nursery.start(start)
        async with connect(*server.addresses[0]) as session, trio.open_nursery() as asking:

            async def ask() -> None:
                replies.append(await exchange(session, b"x"))

            for _ in range(count):
                asking.start_soon(ask)
        assert replies == [b"x"] * count
        nursery.cancel_scope.cancel()
