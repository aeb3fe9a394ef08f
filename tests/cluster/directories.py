"""What every engine's directory must do. `interop/` has it run on live engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from muxado import UsageError
from muxado.cluster import (
    Directory,
    NameTaken,
    Note,
    Place,
    Route,
    Superseded,
)
from tests.patience import patience

NewDirectory = Callable[[], Directory]
"""Makes another server's directory, on one engine."""

Check = Callable[[NewDirectory], Coroutine[Any, Any, None]]


class Member:
    """A server, as far as its directory knows it.

    Attributes:
        place: where it is.
        lost: what it was told that it has lost, in order.
    """

    def __init__(self, directory: Directory, number: int) -> None:
        self.directory = directory
        self.place = Place(f"node{number}", f"192.0.2.{number}:7444")
        self.lost: list[tuple[str, Route]] = []
        self._changed = asyncio.Event()

    async def start(self) -> None:
        await self.directory.start(self.place, lost=self._on_lost, returned=lambda: None)

    def _on_lost(self, name: str, route: Route) -> None:
        self.lost.append((name, route))
        self._changed.set()

    async def wait_lost(self, count: int) -> None:
        """Wait until it was told of so many."""
        async with asyncio.timeout(patience(5)):
            while len(self.lost) < count:
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def members(new: NewDirectory, count: int) -> AsyncIterator[list[Member]]:
    """Servers of one fleet."""
    made = [Member(new(), number) for number in range(1, count + 1)]
    try:
        for each in made:
            await each.start()
        yield made
    finally:
        for each in made:
            await each.directory.close()


async def a_claim_is_found_until_it_is_released(new: NewDirectory) -> None:
    async with members(new, 2) as (first, second):
        assert await second.directory.find("web-1") is None
        before = time.time() * 1000
        claim = await first.directory.claim("web-1", identity="someone else's name")
        assert claim.before is None
        assert abs(claim.epoch - before) < 60_000 * patience(1)  # in ms
        found = Route(first.place, claim.epoch, "someone else's name")
        assert await second.directory.find("web-1") == found
        assert not await first.directory.release("web-1", claim.epoch - 1)
        assert await second.directory.find("web-1") == found
        assert await first.directory.release("web-1", claim.epoch)
        assert await second.directory.find("web-1") is None
        assert not await first.directory.release("web-1", claim.epoch)


async def the_newest_session_wins(new: NewDirectory) -> None:
    async with members(new, 3) as (first, second, third):
        old = await first.directory.claim("web-1")
        newer = await second.directory.claim("web-1")
        assert newer.epoch > old.epoch
        assert newer.before == Route(first.place, old.epoch)
        assert await third.directory.find("web-1") == Route(second.place, newer.epoch)
        # What comes late from the older one changes nothing.
        assert not await first.directory.release("web-1", old.epoch)
        lost = await first.directory.renew({"web-1": (old.epoch, "")})
        assert lost in ({"web-1": Route(second.place, newer.epoch)}, {})
        if not lost:  # it was told when it lost the name
            await first.wait_lost(1)
            assert first.lost == [("web-1", Route(second.place, newer.epoch))]
        assert await third.directory.find("web-1") == Route(second.place, newer.epoch)
        # The same server again: a session that has come back to it.
        newest = await second.directory.claim("web-1")
        assert newest.epoch > newer.epoch
        assert await third.directory.find("web-1") == Route(second.place, newest.epoch)


async def a_claim_that_was_given_before_holds_if_there_is_no_newer_one(new: NewDirectory) -> None:
    async with members(new, 3) as (first, second, third):
        old = await first.directory.claim("web-1")
        again = await first.directory.claim("web-1", epoch=old.epoch)
        assert again.epoch == old.epoch
        newer = await second.directory.claim("web-1")
        with pytest.raises(Superseded) as caught:
            await first.directory.claim("web-1", epoch=old.epoch)
        assert caught.value.route == Route(second.place, newer.epoch)
        assert await third.directory.find("web-1") == Route(second.place, newer.epoch)
        # It is free again, so it is put back as it was.
        await second.directory.release("web-1", newer.epoch)
        again = await first.directory.claim("web-1", epoch=old.epoch)
        assert again == (old.epoch, None)
        assert await third.directory.find("web-1") == Route(first.place, old.epoch)


async def another_identity_is_refused(new: NewDirectory) -> None:
    async with members(new, 2) as (first, second):
        claim = await first.directory.claim("web-1", identity="a")
        with pytest.raises(NameTaken):
            await second.directory.claim("web-1", identity="b")
        with pytest.raises(NameTaken):
            await second.directory.claim("web-1", identity="")
        assert await second.directory.find("web-1") == Route(first.place, claim.epoch, "a")
        await first.directory.release("web-1", claim.epoch)
        newer = await second.directory.claim("web-1", identity="b")
        assert await first.directory.find("web-1") == Route(second.place, newer.epoch, "b")


async def many_names_do_not_wait_for_each_other(new: NewDirectory) -> None:
    async with members(new, 2) as (first, second):
        names = [f"agent-{number}" for number in range(2000)]
        claims = await asyncio.gather(*map(first.directory.claim, names))
        found = await asyncio.gather(*map(second.directory.find, names))
        assert found == [Route(first.place, claim.epoch) for claim in claims]
        held = {name: (claim.epoch, "") for name, claim in zip(names, claims, strict=True)}
        assert await first.directory.renew(held) == {}
        released = await asyncio.gather(
            *[first.directory.release(name, epoch) for name, (epoch, _) in held.items()]
        )
        assert all(released)
        assert set(await asyncio.gather(*map(second.directory.find, names))) == {None}


async def what_is_no_name_is_refused_at_once(new: NewDirectory) -> None:
    async with members(new, 1) as (first,):
        for name in ("", "A", "a b", "a.b", "a*", ">", "-a", "a-", "a\n", "ä", 64 * "a", 5):
            with pytest.raises(UsageError):
                await first.directory.claim(name)  # type: ignore[arg-type]
            with pytest.raises(UsageError):
                await first.directory.find(name)  # type: ignore[arg-type]
        await first.directory.claim(63 * "a")


async def notes_are_told_to_all_and_the_newer_one_holds(new: NewDirectory) -> None:
    async with members(new, 2) as (first, second):
        old, newer = Note(1, 0, '{"a": 1}'), Note(2, 4_000_000_000, "")
        await first.directory.note({"client/a": newer, "client/b": old})
        await second.directory.note({"client/a": old, "client/c": old})
        wanted = {"client/a": newer, "client/b": old, "client/c": old}
        for each in (first, second):
            assert await heard(each.directory, wanted) == wanted
        async with members(new, 1) as (late,):
            assert await heard(late.directory, wanted) == wanted
            await late.directory.note({"client/b": newer})
            assert await heard(first.directory, {"client/b": newer}) == {"client/b": newer}


async def heard(directory: Directory, wanted: dict[str, Note]) -> dict[str, Note]:
    """Ask for news until all that is wanted has come; return what has."""
    found: dict[str, Note] = {}
    async with asyncio.timeout(patience(10)):
        while found != wanted:
            found |= await directory.news()
            await asyncio.sleep(0.01)
    return found


CHECKS: list[Check] = [
    a_claim_is_found_until_it_is_released,
    the_newest_session_wins,
    a_claim_that_was_given_before_holds_if_there_is_no_newer_one,
    another_identity_is_refused,
    many_names_do_not_wait_for_each_other,
    what_is_no_name_is_refused_at_once,
    notes_are_told_to_all_and_the_newer_one_holds,
]
