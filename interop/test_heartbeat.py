"""Go's Heartbeat wrapper at the other end of a typed session of ours.

Whether our application accepts streams or not, Go must see its beats answered.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from muxado import Config, SessionClosed

from .gopeer import GoPeer
from .helpers import MIB, data_of, echo, exchange, running, until
from .meeting import Meeting, Way

pytestmark = pytest.mark.anyio

TYPED = Config(typed=True)
BEATS = 3


async def see_beats(go: GoPeer, count: int = BEATS) -> None:
    for _ in range(count):
        beat = await go.event("heartbeat")
        assert not beat["timed_out"]
        assert 0 < beat["latency_us"] < 5_000_000


@pytest.mark.parametrize("accepting", [True, False], ids=["accepting", "not-accepting"])
async def test_gos_beats_are_answered(meeting: Meeting, way: Way, accepting: bool) -> None:
    session, go = await meeting.meet(
        way,
        config=TYPED,
        heartbeat=True,
        heartbeat_interval="50ms",
        heartbeat_tolerance="5s",
    )
    async with AsyncExitStack() as stack:
        if accepting:
            await stack.enter_async_context(running(session.serve(echo)))
        await see_beats(go)
        assert (await go.call("beat"))["answered"]
    assert go.seen("heartbeat", timed_out=True) == 0
    stats = session.stats()
    assert (stats.streams, stats.streams_accepted) == (0, 0)


async def test_beats_are_answered_beside_streams_that_wait(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(
        way,
        config=TYPED,
        heartbeat=True,
        heartbeat_interval="50ms",
        heartbeat_tolerance="5s",
    )
    many = go.call("many", count=50, min=1, max=1_000_000, type=7)
    await until(lambda: session.stats().streams == 50, session)
    await see_beats(go)
    async with running(session.serve(echo)):
        assert (await many)["good"] == 50
        await see_beats(go)


async def test_beats_are_answered_beside_full_windows(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(
        way,
        config=TYPED,
        heartbeat=True,
        heartbeat_interval="50ms",
        heartbeat_tolerance="5s",
    )
    data = data_of(8 * MIB)
    async with asyncio.TaskGroup() as group:
        for kind in range(4):
            group.create_task(exchange(session, data, type=kind))
        await see_beats(go)
        assert (await go.call("beat"))["answered"]
    assert go.seen("heartbeat", timed_out=True) == 0


async def test_types_still_arrive_under_the_wrapper(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "type-echo", config=TYPED, heartbeat=True)
    for kind in (0, 0xAABBCCDD, 0xFFFFFFFE):
        async with session.open(type=kind) as stream:
            stream.write_eof()
            assert await stream.read() == kind.to_bytes(4, "big")
    opened = await go.call("open", type=0xAABBCCDD)
    async with await session.accept() as stream:
        assert (stream.id, stream.type) == (opened["stream"], 0xAABBCCDD)


async def test_a_heartbeat_does_not_keep_a_session_from_its_end(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(
        way,
        config=TYPED,
        heartbeat=True,
        heartbeat_interval="50ms",
        heartbeat_tolerance="5s",
    )
    await see_beats(go)
    await session.shutdown()
    assert (await go.call("wait"))["end"]["remote_code"] == 0
    with pytest.raises(SessionClosed):
        await session.accept()
