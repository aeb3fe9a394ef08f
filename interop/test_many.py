"""A thousand streams at once, of random sizes, written and read in random pieces."""

from __future__ import annotations

import asyncio
import random

import pytest

from muxado import Config, ErrorCode, Session, Stream, StreamRefused

from .helpers import (
    KIB,
    cuts,
    data_of,
    digest,
    echo,
    random_size,
    retried,
    running,
    sha256,
    until,
)
from .meeting import Meeting, Way

pytestmark = [pytest.mark.anyio, pytest.mark.big, pytest.mark.patience(40)]

COUNT = 1000
MOST = 128 * KIB
GO_DEFAULT_BACKLOG = 128


async def restlessly(stream: Stream, data: bytes, rng: random.Random) -> None:
    """Write in random pieces, with others' turns in between."""
    for piece in cuts(data, rng):
        await stream.write(piece)
        for _ in range(rng.randint(0, 3)):
            await asyncio.sleep(0)
    stream.write_eof()


async def check(session: Session, number: int, codes: set[tuple[int, bool]]) -> int:
    """Have one stream's data echoed; return how often it was refused, and note with what."""
    rng = random.Random(number)
    data = data_of(random_size(rng, MOST), number)

    async def attempt() -> None:
        async with (
            session.open() as stream,
            running(restlessly(stream, data, rng)) as writing,
        ):
            try:
                assert await digest(stream) == (len(data), sha256(data))
                await writing
            except StreamRefused as exc:
                codes.add((exc.code, exc.by_peer))
                raise

    return await retried(attempt)


async def check_many(session: Session) -> int:
    """Check a thousand streams at once; return how many refusals there were."""
    codes: set[tuple[int, bool]] = set()
    checks = [check(session, number, codes) for number in range(COUNT)]
    refusals = sum(await asyncio.gather(*checks))
    assert codes <= {(ErrorCode.ACCEPT_QUEUE_FULL, True)}
    return refusals


async def test_from_us(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, backlog=2 * COUNT)
    assert await check_many(session) == 0
    stats = await go.call("stats")
    assert (stats["accepted"], stats["failed"]) == (COUNT, 0)


async def test_from_us_with_gos_default_backlog(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "none")
    async with running(check_many(session)) as checking:
        await until(lambda: session.stats().resets_received > COUNT // 2, session)
        await go.call("behaviour", behaviour="echo")
        refusals = await checking
    assert refusals > COUNT // 2
    stats = await go.call("stats")
    assert (stats["accepted"], stats["failed"], stats["table"]) == (COUNT, 0, 0)
    assert stats["frames_out"]["rst_codes"] == {"9": refusals, **pings(stats)}


def pings(stats: dict[str, dict[str, dict[str, int]]]) -> dict[str, int]:
    """Return the RSTs of code 4, which answer our pings."""
    codes = stats["frames_out"]["rst_codes"]
    return {"4": codes["4"]} if "4" in codes else {}


async def test_from_go(meeting: Meeting, way: Way) -> None:
    config = Config(accept_backlog=2 * COUNT)
    session, go = await meeting.meet(way, config=config)
    async with running(session.serve(echo)):
        reply = await go.call("many", count=COUNT, max=MOST, jitter_ms=2)
    assert (reply["good"], reply["retries"]) == (COUNT, 0)
    assert session.stats().refusals == 0


async def test_from_go_with_a_short_backlog_of_ours(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, config=Config(accept_backlog=GO_DEFAULT_BACKLOG))
    many = go.call("many", count=COUNT, max=MOST, jitter_ms=2)
    await until(lambda: session.stats().refusals > COUNT // 2, session)
    async with running(session.serve(echo)):
        reply = await many
    assert reply["good"] == COUNT
    assert reply["retries"] == session.stats().refusals > COUNT // 2


async def test_from_both_at_once(meeting: Meeting, way: Way) -> None:
    config = Config(accept_backlog=2 * COUNT)
    session, go = await meeting.meet(way, config=config, backlog=2 * COUNT)
    async with running(session.serve(echo)), running(check_many(session)) as checking:
        reply = await go.call("many", count=COUNT, max=MOST, jitter_ms=2)
        assert await checking == 0
    assert reply["good"] == COUNT
