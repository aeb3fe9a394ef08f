"""Who waits, who is woken, and what is left of sessions under trio."""

from __future__ import annotations

import gc
import math
import tracemalloc
import weakref

import pytest
import trio
import trio.testing

import muxado.trio
from muxado import Config
from muxado.testing import trio_pair
from muxado.trio import Session, Stream
from muxado.trio.block import SessionBlock

from .cancelling import socket_streams

MONTH = 30 * 86400.0

# Waiting for the next stream


class Steps(trio.abc.Instrument):
    """Counts how often trio runs a task of a name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name == self._name


async def steps_of_acceptors(waiting: int, streams: int) -> int:
    """Return how many turns tasks in `accept` take while streams come one by one."""
    steps = Steps("acceptor")

    async def accept() -> None:
        while True:
            async with await server.accept() as stream:
                await stream.send_all(b"hello")

    async with trio_pair() as (client, server), trio.open_nursery() as nursery:
        for _ in range(waiting):
            nursery.start_soon(accept, name="acceptor")
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(steps)
        for _ in range(streams):
            async with client.open() as stream:
                assert await stream.receive_some() == b"hello"
        trio.lowlevel.remove_instrument(steps)
        nursery.cancel_scope.cancel()
    return steps.count


async def test_a_stream_wakes_one_of_the_tasks_that_wait() -> None:
    one = await steps_of_acceptors(1, 20)
    assert await steps_of_acceptors(1000, 20) <= one + 20


async def test_no_stream_is_lost_to_acceptors_that_are_cancelled_when_it_comes() -> None:
    async with trio_pair() as (client, server):
        accepted: list[Stream] = []
        scopes = [trio.CancelScope() for _ in range(20)]

        async def accept(scope: trio.CancelScope) -> None:
            with scope:
                accepted.append(await server.accept())

        async with trio.open_nursery() as nursery:
            for scope in scopes:
                nursery.start_soon(accept, scope)
            await trio.testing.wait_all_tasks_blocked()
            opened = [client.open(eager=True) for _ in range(10)]
            for scope in scopes:  # before, while and after the streams come in
                await trio.lowlevel.checkpoint()
                scope.cancel()
        await client.ping()
        while len(accepted) < len(opened):
            accepted.append(await server.accept())
        for stream in (*accepted, *opened):
            stream.reset()


async def test_every_task_in_accept_hears_of_the_end() -> None:
    ended = 0

    async def accept(session: Session, error: type[Exception]) -> None:
        nonlocal ended
        with pytest.raises(error):
            await session.accept()
        ended += 1

    async with trio_pair() as (client, server), trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(accept, client, trio.ClosedResourceError)
            nursery.start_soon(accept, server, trio.EndOfChannel)
        await trio.testing.wait_all_tasks_blocked()
        client.close()
    assert ended == 40


# Handlers whose peer has lost interest


async def test_a_handler_is_cancelled_when_its_stream_is_reset_if_that_is_asked_for() -> None:
    begun, cancelled = trio.Event(), trio.Event()

    async def handle(stream: Stream) -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with trio_pair() as (client, server), trio.open_nursery() as nursery:

        async def serve() -> None:
            await server.serve(handle, cancel_on_reset=True)

        nursery.start_soon(serve)
        stream = client.open(eager=True)
        await begun.wait()
        stream.reset()
        await cancelled.wait()
        await client.ping()  # the session and `serve` go on
        assert not server.closed
        begun = trio.Event()
        async with client.open(eager=True):
            await begun.wait()
        client.close()
        nursery.cancel_scope.cancel()


async def test_a_handler_goes_on_after_a_reset_by_default() -> None:
    begun, go_on, done = trio.Event(), trio.Event(), trio.Event()

    async def handle(stream: Stream) -> None:
        begun.set()
        await go_on.wait()
        done.set()

    async with trio_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, handle)
        stream = client.open(eager=True)
        await begun.wait()
        stream.reset()
        await client.ping()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        await done.wait()
        client.close()


async def test_a_handler_is_not_cancelled_by_an_end_in_order() -> None:
    done = trio.Event()

    async def handle(stream: Stream) -> None:
        assert await stream.receive_some() == b""
        await stream.send_eof()
        await stream.wait_reset()
        await trio.testing.wait_all_tasks_blocked()
        done.set()

    async with trio_pair() as (client, server), trio.open_nursery() as nursery:

        async def serve() -> None:
            await server.serve(handle, cancel_on_reset=True)

        nursery.start_soon(serve)
        async with client.open() as stream:
            await stream.send_eof()
            assert await stream.receive_some() == b""
        await done.wait()
        client.close()


# Sessions that are dropped


async def test_a_block_that_is_not_entered_warns_and_closes_its_stream() -> None:
    for make in (muxado.trio.client, muxado.trio.server):
        near, far = trio.testing.memory_stream_pair()
        block = make(near)
        with pytest.warns(ResourceWarning, match="not entered"):
            del block
        assert await far.receive_some() == b""


async def test_a_connect_that_is_not_entered_warns_and_closes_its_socket() -> None:
    near, far = await socket_streams()
    block = muxado.trio.connect(sock=near.socket)
    with pytest.warns(ResourceWarning, match="not entered"):
        del block
    assert await far.receive_some() == b""
    await far.aclose()


def test_a_block_made_without_trio_warns_too() -> None:
    near, _ = trio.testing.memory_stream_pair()
    block = muxado.trio.client(near)
    with pytest.warns(ResourceWarning, match="not entered"):
        del block


async def test_a_session_whose_block_is_dropped_warns_and_ends() -> None:
    near, far = trio.testing.memory_stream_pair()
    async with muxado.trio.server(far) as server:
        block = SessionBlock.over(near, client=True, config=None)
        await block.__aenter__()
        nursery = block._nursery
        with pytest.warns(ResourceWarning, match="unclosed session"):
            del block
        await server.wait_closed()
        # Trio wants it left, since the task goes on.
        await nursery.__aexit__(None, None, None)


async def test_ended_sessions_are_gone_without_the_garbage_collector() -> None:
    async def take(stream: Stream) -> None:
        async for _ in stream:
            pass
        await stream.send_all(b"k")

    async def use() -> list[weakref.ref[object]]:
        async with trio_pair() as (client, server), trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, take)
            async with client.open() as stream:
                for _ in range(32):
                    await stream.send_all(bytes(1 << 16))
                await stream.send_eof()
                assert await stream.receive_some(1) == b"k"
            await client.aclose()
            await server.wait_closed()
        return [weakref.ref(session) for session in (client, server)]

    await use()
    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        await use()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            refs = await use()
            await trio.lowlevel.checkpoint()
            assert [ref() for ref in refs] == [None, None]
        held = (tracemalloc.get_traced_memory()[0] - before) / 10
    finally:
        tracemalloc.stop()
        gc.enable()
    assert held < 32 * 1024  # a pair


# Limits of time


@pytest.mark.parametrize("limit", [MONTH, 1e10, math.inf])
async def test_every_time_limit_that_is_accepted_works(limit: float) -> None:
    config = Config(
        ping_interval=limit, ping_timeout=limit, close_timeout=limit, type_timeout=limit
    )
    async with trio_pair(config) as (client, server):
        async with client.open() as stream:
            await stream.send_all(b"x")
            async with await server.accept() as other:
                assert await other.receive_some() == b"x"
        await client.ping()
        await client.shutdown(limit)
        await server.wait_closed()
        assert server.close_reason is not None
        assert server.close_reason.clean


async def test_a_shutdown_whose_time_is_up_before_it_begins_aborts() -> None:
    async with (
        trio_pair() as (client, server),
        client.open(eager=True),
        await server.accept() as other,
    ):
        await client.shutdown(-1.0)
        assert client.closed
        other.reset()
