"""The directory in memory, and who keeps a server's claims."""

from __future__ import annotations

import asyncio

import pytest

from muxado import UsageError
from muxado.cluster import (
    Claims,
    Held,
    MemoryDirectory,
    NameTaken,
    Place,
    Route,
)
from tests.cluster.directories import CHECKS, Check, members

pytestmark = pytest.mark.anyio

A = Place("a", "192.0.2.1:7444")
B = Place("b", "192.0.2.2:7444")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_memory(check: Check) -> None:
    engine = MemoryDirectory()
    await check(lambda: MemoryDirectory(engine))


async def test_a_directory_that_was_not_started_says_so() -> None:
    with pytest.raises(UsageError, match="not started"):
        await MemoryDirectory().claim("web-1")


async def test_what_a_server_has_claimed_ends_with_it() -> None:
    engine = MemoryDirectory()
    async with members(lambda: MemoryDirectory(engine), 2) as (first, second):
        await first.directory.claim("web-1")
        claim = await second.directory.claim("web-2")
        await first.directory.close()
        assert await second.directory.find("web-1") is None
        assert await second.directory.find("web-2") == Route(second.place, claim.epoch)


async def test_a_name_is_held_until_it_is_dropped(no_tasks_left: None) -> None:
    engine = MemoryDirectory()
    claims, others = Claims(MemoryDirectory(engine)), Claims(MemoryDirectory(engine))
    await claims.start(A)
    await others.start(B)
    lost: list[object] = []
    try:
        held = await claims.hold("web-1", lost.append)
        assert held.epoch is not None
        assert held.before is None
        assert (claims.claimed, claims.waiting) == (1, 0)
        assert await engine.find("web-1") == Route(A, held.epoch)
        newer = await others.hold("web-1", lost.append)
        assert newer.epoch is not None
        assert newer.before == Route(A, held.epoch)
        assert lost == [Route(B, newer.epoch)]
        claims.drop(held)  # it is not this server's any more
        await asyncio.sleep(0)
        assert await engine.find("web-1") == Route(B, newer.epoch)
        assert (claims.claimed, others.claimed) == (0, 1)
    finally:
        await claims.close()
        await others.close()
    assert await engine.find("web-1") is None
    assert len(lost) == 1


async def test_a_session_that_comes_back_to_its_server_takes_the_name_over() -> None:
    engine = MemoryDirectory()
    claims = Claims(engine)
    await claims.start(A)
    lost: list[object] = []
    try:
        first = await claims.hold("web-1", lost.append)
        second = await claims.hold("web-1", lost.append)
        assert first.epoch is not None
        assert second.epoch is not None
        assert second.epoch > first.epoch
        claims.drop(first)  # late
        assert await engine.find("web-1") == Route(A, second.epoch)
    finally:
        await claims.close()
    assert lost == []


async def test_another_identity_does_not_get_the_name() -> None:
    claims = Claims(MemoryDirectory())
    await claims.start(A)
    lost: list[object] = []
    try:
        held = await claims.hold("web-1", lost.append, identity="one")
        # The identity that holds it here keeps it.
        with pytest.raises(NameTaken):
            await claims.hold("web-1", lost.append, identity="two")
        assert claims.claimed == 1
        claims.drop(held)
        assert claims.claimed == 0
    finally:
        await claims.close()
    assert lost == []


@pytest.mark.parametrize(
    ("route", "loses"),
    [
        (Route(B, 1), False),  # older than this server's own
        (Route(A, 2**60), False),  # its own
        (Route(B, 2**60), True),
    ],
)
async def test_what_another_server_tells_is_checked(route: Route, loses: bool) -> None:
    claims = Claims(MemoryDirectory())
    await claims.start(A)
    lost: list[object] = []
    try:
        held: Held = await claims.hold("web-1", lost.append)
        claims.superseded("web-1", route)
        claims.superseded("web-2", route)
        assert lost == [route][:loses]
        claims.superseded("web-1", route)
        assert len(lost) == loses
        claims.drop(held)
    finally:
        await claims.close()
