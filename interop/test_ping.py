"""Our ping on stream 1: Go answers it in both roles, under every wrapper, whatever its load."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.patience import patience

from muxado import Config

from .helpers import MIB, data_of, exchange, until
from .meeting import Meeting, Way

pytestmark = pytest.mark.anyio

# For NewTypedStreamSession and NewHeartbeat our session is a typed one.
WRAPPERS: dict[str, dict[str, Any]] = {
    "plain": {"config": Config()},
    "typed": {"config": Config(typed=True)},
    "heartbeat": {
        "config": Config(typed=True),
        "heartbeat": True,
        "heartbeat_interval": "20ms",
    },
}


@pytest.fixture(params=list(WRAPPERS))
def wrapper(request: pytest.FixtureRequest) -> dict[str, Any]:
    chosen: dict[str, Any] = WRAPPERS[request.param]
    return chosen


@pytest.mark.parametrize("behaviour", ["echo", "none"])
async def test_go_answers(
    meeting: Meeting, way: Way, wrapper: dict[str, Any], behaviour: str
) -> None:
    session, go = await meeting.meet(way, behaviour, **wrapper)
    for _ in range(20):
        assert 0 < await session.ping() < 5
    stats = await go.call("stats")
    assert stats["frames_out"]["rst_codes"]["4"] >= 20
    assert (stats["accepted"], stats["accept_errors"]) == (0, 0)
    assert session.stats().resets_received == 0
    assert 0 < session.stats().min_rtt < 1


async def test_go_answers_under_load(meeting: Meeting, way: Way, wrapper: dict[str, Any]) -> None:
    session, _ = await meeting.meet(way, **wrapper)
    data = data_of(4 * MIB)
    async with asyncio.TaskGroup() as group:
        work = [group.create_task(exchange(session, data)) for _ in range(8)]
        pings = 0
        while not all(task.done() for task in work):
            assert 0 < await session.ping() < 5
            pings += 1
    assert pings >= 10


async def test_go_answers_beside_unread_streams(
    meeting: Meeting, way: Way, wrapper: dict[str, Any]
) -> None:
    session, go = await meeting.meet(way, "none", **wrapper)
    streams = [session.open() for _ in range(10)]
    for stream in streams:
        await stream.write(data_of(MIB))  # much more than Go lets in
    for _ in range(10):
        handle = (await go.call("open"))["handle"]
        await go.call("write", handle=handle, n=MIB, background=True)
    await until(lambda: session.stats().memory_held > 2_000_000, session)
    for _ in range(20):
        assert 0 < await session.ping() < 5
    assert session.stats().bytes_queued > 7_000_000
    for stream in streams:
        stream.reset()


async def test_an_idle_peer_is_kept(meeting: Meeting, way: Way) -> None:
    """Go says nothing of its own accord; only the ping's answer keeps it from being given up."""
    session, go = await meeting.meet(
        way, "none", config=Config(ping_interval=0.05, ping_timeout=patience(2))
    )
    asked = 0
    while asked < 5:
        asked = (await go.call("stats"))["frames_in"]["data"]
        await asyncio.sleep(0.05)
    assert not session.closed
    assert await session.ping() > 0
