"""Streams of callers that a server passes on to a name, on whichever server it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

import muxado
from muxado.cluster import Header, MemoryDirectory, NameAway, NameUnknown, Node, Passing, Place
from tests.cluster.fleets import Fleet, ask, fleet_of, until
from tests.patience import patience

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_tasks_left")]


@pytest.fixture
async def fleet(no_tasks_left: None, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Three servers."""
    async with fleet_of(tmp_path, 3, grace=patience(5)) as fleet:
        yield fleet


@asynccontextmanager
async def callers_of(
    node: Node, passed: list[Passing], timeout: float = 30.0
) -> AsyncIterator[muxado.Session]:
    """A session whose streams a server passes on to web-1."""

    def take(stream: muxado.Stream) -> None:
        passed.append(node.pass_on(stream, "web-1", "echo", timeout=timeout))

    async def enter(session: muxado.Session) -> None:
        session.on_stream(take)
        await session.wait_closed()

    async with (
        muxado.serve(enter, "127.0.0.1", 0) as server,
        muxado.connect(*server.addresses[0][:2]) as session,
    ):
        yield session


async def test_streams_are_passed_on_to_a_name_here_and_there(fleet: Fleet) -> None:
    data = 500_000 * b"abc"
    for at, node in enumerate(fleet.nodes[:2]):
        passed: list[Passing] = []
        async with fleet.member("web-1", [0]), callers_of(node, passed) as session:
            # The first has to be looked for, unless it is here; the others are where it was.
            for question in (b"first", data, b""):
                assert await ask(session.open(), question) == question
            for passing, count in zip(passed, (5, len(data), 0), strict=True):
                result = await passing.wait_closed()
                assert result is not None
                assert (result.from_stream, result.to_stream) == (count, count)
                assert (result.ended, passing.failure) == ("end", None)
            stats = node.stats()
            assert (stats.opened_here, stats.opened_there) == ((3, 0), (0, 3))[at]
            assert stats.look_ups == at


async def test_a_caller_of_an_unknown_name_is_told_so(fleet: Fleet) -> None:
    passed: list[Passing] = []
    async with callers_of(fleet.nodes[0], passed) as session:
        with pytest.raises(muxado.StreamReset) as caught:
            await ask(session.open(), b"x")
        assert caught.value.code == 404
        with pytest.raises(NameUnknown):
            await passed[0].wait_closed()
        assert passed[0].result is None


async def test_what_a_peer_refuses_is_told_to_the_caller(tmp_path: Path) -> None:
    refused: list[str] = []

    def allow(header: Header, _: object) -> bool:
        return header.service not in refused

    async with fleet_of(tmp_path, 2, allow=allow) as fleet:
        passed: list[Passing] = []
        async with fleet.member("web-1", [0]), callers_of(fleet.nodes[1], passed) as session:
            assert await ask(session.open(), b"x") == b"x"
            refused.append("echo")
            with pytest.raises(muxado.StreamReset) as caught:
                await ask(session.open(), b"x")
            assert caught.value.code == 403


async def test_a_route_that_is_refuted_costs_a_caller_a_look_up(fleet: Fleet) -> None:
    node = fleet.nodes[2]
    async with callers_of(node, []) as session, fleet.member("web-1", [0]):
        assert await ask(session.open(), b"x") == b"x"
        look_ups = node.stats().look_ups
        async with fleet.member("web-1", [1]):
            assert await ask(session.open(), b"moved") == b"moved"
            assert (node.stats().refuted, node.stats().look_ups) == (1, look_ups + 1)


@asynccontextmanager
async def a_name_that_is_away(fleet: Fleet) -> AsyncIterator[None]:
    """Have web-1 claimed by a server that is not there."""
    ghost = MemoryDirectory(fleet.engine)
    await ghost.start(Place("gone", "127.0.0.1:1"), lost=print, returned=print)
    await ghost.claim("web-1")
    yield
    await ghost.close()


async def test_a_name_that_is_away_is_waited_for_as_long_as_the_caller_does(fleet: Fleet) -> None:
    node = fleet.nodes[0]
    passed: list[Passing] = []
    async with a_name_that_is_away(fleet), callers_of(node, passed) as session:
        streams = [session.open() for _ in range(3)]
        for stream in streams:
            await stream.write(b"x")
        await until(lambda: len(passed) == 3 and node.stats().refuted > 0)
        streams[0].reset()  # the caller gives up
        await passed[0].wait_closed()
        passed[1].cancel()
        assert await streams[1].wait_reset() == muxado.ErrorCode.STREAM_CANCELLED
        assert await passed[1].wait_closed() is None
        assert passed[2].result is None
        async with fleet.member("web-1", [1]):
            assert await ask(streams[2], b"y") == b"xy"


async def test_what_is_not_found_in_time_is_reset(fleet: Fleet) -> None:
    passed: list[Passing] = []
    async with (
        a_name_that_is_away(fleet),
        callers_of(fleet.nodes[0], passed, timeout=0.1) as session,
    ):
        with pytest.raises(muxado.StreamReset) as caught:
            await ask(session.open(), b"x")
        assert caught.value.code == muxado.ErrorCode.REMOTE_GONE_AWAY
        with pytest.raises(TimeoutError):
            await passed[0].wait_closed()


async def test_a_relay_is_cancelled_on_both_sides(fleet: Fleet) -> None:
    told: asyncio.Queue[int | None] = asyncio.Queue()

    async def wait(stream: muxado.Stream, header: Header) -> None:
        await stream.write(b"here")
        told.put_nowait(await stream.wait_reset())

    passed: list[Passing] = []
    async with fleet.member("web-1", [0], wait), callers_of(fleet.nodes[1], passed) as session:
        stream = session.open()
        assert await stream.readexactly(4) == b"here"
        passed[0].cancel()
        assert await stream.wait_reset() == muxado.ErrorCode.STREAM_CANCELLED
        assert await told.get() == muxado.ErrorCode.STREAM_CANCELLED
        result = await passed[0].wait_closed()
        assert result is not None
        assert result.ended == "cancelled"


async def test_a_server_that_closes_looks_no_more(fleet: Fleet) -> None:
    node = await fleet.add()
    ended: list[Passing] = []
    passed: list[Passing] = []
    async with a_name_that_is_away(fleet), muxado.listen("127.0.0.1", 0) as listener:
        async with muxado.connect(*listener.addresses[0][:2]) as session:
            taken = await listener.accept()
            pass_on = partial(node.pass_on, name="web-1", on_end=ended.append)
            taken.on_stream(lambda stream: passed.append(pass_on(stream)))
            stream = session.open()
            await stream.write(b"x")
            await until(lambda: node.stats().refuted > 0)
            await node.__aexit__(None, None, None)
            assert await stream.wait_reset() == muxado.ErrorCode.STREAM_CANCELLED
            assert ended == passed
            late = session.open()
            await late.write(b"x")
            await until(lambda: len(passed) == 2)
            with pytest.raises(NameAway):
                await passed[1].wait_closed()
        await taken.wait_closed()
