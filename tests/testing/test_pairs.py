"""The pairs of sessions for tests of a program's own protocols, in each front end."""

from __future__ import annotations

import asyncio

import pytest
import trio
from trio.testing import MockClock

from muxado import Config, SessionClosed
from muxado.testing import asyncio_pair, sync_pair, trio_pair

CONFIG, OTHER = Config(accept_backlog=5), Config(accept_backlog=7)


def test_asyncio_sessions_are_connected_and_end_with_the_block() -> None:
    async def main() -> None:
        async with asyncio_pair(CONFIG, server_config=OTHER) as (client, server):
            assert (client.config.accept_backlog, server.config.accept_backlog) == (5, 7)
            async with client.open() as near:
                await near.write(b"ping")
                async with await server.accept() as far:
                    assert await far.read(4) == b"ping"
        with pytest.raises(SessionClosed):
            client.open()

    asyncio.run(main())


def test_sessions_for_threads_are_connected_and_end_with_the_block() -> None:
    with sync_pair(CONFIG, server_config=OTHER) as (client, server):
        assert (client.config.accept_backlog, server.config.accept_backlog) == (5, 7)
        with client.open() as near:
            near.sendall(b"ping")
            with server.accept() as far:
                assert far.recv(4) == b"ping"
    with pytest.raises(SessionClosed):
        client.open()


def test_trio_sessions_go_by_trios_clock() -> None:
    async def main() -> None:
        async with trio_pair(CONFIG, server_config=OTHER) as (client, server):
            assert (client.config.accept_backlog, server.config.accept_backlog) == (5, 7)
            async with client.open() as near:
                await near.send_all(b"ping")
                async with await server.accept() as far:
                    assert await far.receive_some(4) == b"ping"
            await trio.sleep(100)  # of the clock, with pings all the time
            await client.ping()

    trio.run(main, clock=MockClock(autojump_threshold=0))
