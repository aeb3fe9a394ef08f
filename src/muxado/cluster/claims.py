"""Keeps the names of this server claimed, through outages of the directory's engine.

How it works. Each name that is held has a `Held`. Its claim is made at once; if the engine is
away it waits, and is tried again until it is made or given up. What is claimed is renewed three
times in a lease, and when the engine is back, which may have lost everything. A claim that another
server has superseded is lost, of which its session's keeper is told, once. Nothing here ends a
session: that is for who is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from itertools import islice
from random import uniform
from typing import Any

from .directory import Directory, Place, Route
from .errors import DirectoryAway, NameTaken, Superseded

__all__ = ["Claims", "Held"]

logger: logging.Logger = logging.getLogger("muxado.cluster")

# How many claims are renewed, or tried again, with one call after another.
BATCH = 500

# Seconds between tries while the engine is away: they double, and each is a random part of it.
FIRST_PAUSE = 0.1
MOST_PAUSE = 2.0


class Held:
    """A name that a session of this server has.

    Attributes:
        name: the name.
        identity: whose session it is.
        epoch: the epoch of its claim; None until it could be made.
        before: who had the name until then.
        settled: its claim was made or waits, and `Claims.hold` has returned.
        failure: why it does not hold from the start.
    """

    __slots__ = ("before", "epoch", "failure", "identity", "name", "on_lost", "settled")

    def __init__(self, name: str, identity: str, on_lost: Callable[[Route | None], object]) -> None:
        self.name: str = name
        self.identity: str = identity
        self.on_lost: Callable[[Route | None], object] = on_lost
        self.epoch: int | None = None
        self.before: Route | None = None
        self.settled: bool = False
        self.failure: NameTaken | Superseded | None = None


class Claims:
    """The claims of one server, between `start` and `close`.

    Args:
        directory: where they are made.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._place = Place("", "")
        self._held: dict[str, Held] = {}
        self._waiting: dict[str, Held] = {}  # those whose claim could not be made yet
        self._changed = asyncio.Event()
        self._returned = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def waiting(self) -> int:
        """How many claims wait for the engine."""
        return len(self._waiting)

    @property
    def claimed(self) -> int:
        """How many claims are held."""
        return len(self._held) - len(self._waiting)

    def holds(self, name: str) -> bool:
        """Return whether a name is held here, or is about to be: its claim may be under way."""
        return name in self._held

    def epoch(self, name: str) -> int | None:
        """Return with which epoch a name is claimed here, None if it is not."""
        held = self._held.get(name)
        return None if held is None else held.epoch

    async def start(self, place: Place) -> None:
        """Begin to keep claims, for a server."""
        self._place = place
        await self._directory.start(place, lost=self.superseded, returned=self._returned.set)
        self._begin(self._try_again(), "muxado cluster: claims that wait")
        self._begin(self._renew(self._directory.lease), "muxado cluster: leases")

    async def hold(
        self,
        name: str,
        on_lost: Callable[[Route | None], object],
        *,
        identity: str = "",
        timeout: float | None = 1.0,
    ) -> Held:
        """Claim a name for a session that has come, and keep it claimed until `drop`.

        Args:
            name: a DNS label. If it is held here already, the newer claim takes its place.
            on_lost: called once, with who holds the name, when the claim is superseded; with None
                if another identity turns out to hold it. It must not wait.
            identity: whose session it is.
            timeout: seconds to wait for the claim; it is made later if they do not suffice.

        Returns:
            the claim; its `epoch` is None if the engine is away.

        Raises:
            NameTaken: another identity holds the name.
            Superseded: a newer session has claimed it meanwhile.

        Cancelled, it gives the name up.
        """
        held = Held(name, identity, on_lost)
        former = self._held.get(name)
        if former is not None and former.identity != identity:
            raise NameTaken(f"{name} is held by another identity, on this server")
        self._held[name] = held
        self._waiting.pop(name, None)
        task = self._begin(self._claim(held), "muxado cluster: a claim")
        try:
            await asyncio.wait([task], timeout=timeout)
        except BaseException:
            self.drop(held)
            raise
        if held.failure is not None:
            if former is not None:  # the next renewal tells whether it is still held
                self._held.setdefault(name, former)
            raise held.failure
        present = self._held.get(name)
        if present is not held:
            epoch = 0 if present is None or present.epoch is None else present.epoch
            raise Superseded(name, Route(self._place, epoch, identity))
        held.settled = True
        return held

    def drop(self, held: Held) -> None:
        """Give a name up, as far as it is still held so. Harmless if repeated."""
        if self._held.get(held.name) is not held:
            return
        del self._held[held.name]
        self._waiting.pop(held.name, None)
        if held.epoch is not None:
            self._begin(self._release(held.name, held.epoch), "muxado cluster: a release")

    def superseded(self, name: str, route: Route) -> None:
        """Take note of who else holds a name, as another server or the engine tells.

        A route that is older than this server's own claim is passed over.
        """
        held = self._held.get(name)
        if held is None or route.place == self._place or held.epoch is None:
            return
        if (route.epoch, route.place.node) > (held.epoch, self._place.node):
            self._lose(held, route)

    async def close(self) -> None:
        """End; what is claimed is released, as far as the engine can be asked."""
        for held in list(self._held.values()):
            self.drop(held)
        keepers = [task for task in self._tasks if "release" not in task.get_name()]
        for task in keepers:
            task.cancel()
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        await self._directory.close()

    def _lose(self, held: Held, route: Route | None) -> None:
        del self._held[held.name]
        self._waiting.pop(held.name, None)
        if held.settled:
            held.on_lost(route)
        elif held.failure is None and route is not None:
            held.failure = Superseded(held.name, route)

    async def _claim(self, held: Held) -> None:
        """Make a claim, or have it wait."""
        try:
            claim = await self._directory.claim(held.name, identity=held.identity, epoch=held.epoch)
        except DirectoryAway:
            if self._held.get(held.name) is held:
                self._waiting[held.name] = held
                self._changed.set()
        except (Superseded, NameTaken) as exc:
            if self._held.get(held.name) is held:
                held.failure = exc
                self._lose(held, exc.route if isinstance(exc, Superseded) else None)
        else:
            self._waiting.pop(held.name, None)
            held.epoch, held.before = claim
            if self._held.get(held.name) is not held:  # dropped meanwhile
                await self._release(held.name, claim.epoch)

    async def _release(self, name: str, epoch: int) -> None:
        with contextlib.suppress(DirectoryAway):  # then its lease runs out
            await self._directory.release(name, epoch)

    async def _try_again(self) -> None:
        """Try the claims that wait, until the engine takes them."""
        pause = FIRST_PAUSE
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not self._waiting:
                pause = FIRST_PAUSE
                continue
            await asyncio.sleep(uniform(pause / 2, pause))  # noqa: S311  # no secret
            pause = min(2 * pause, MOST_PAUSE)
            before = len(self._waiting)
            batch = list(islice(self._waiting.values(), BATCH))
            await asyncio.gather(*map(self._claim, batch))
            if len(self._waiting) < before:
                pause = FIRST_PAUSE
            self._changed.set()

    async def _renew(self, lease: float | None) -> None:
        """Renew all claims three times in a lease, and when the engine is back."""
        while True:
            rest = None if lease is None else uniform(0.9, 1.0) * lease / 3  # noqa: S311
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._returned.wait()
            self._returned.clear()
            held = [each for each in self._held.values() if each.epoch is not None]
            for at in range(0, len(held), BATCH):
                batch = {
                    each.name: (each.epoch, each.identity)
                    for each in held[at : at + BATCH]
                    if each.epoch is not None and self._held.get(each.name) is each
                }
                try:
                    lost = await self._directory.renew(batch)
                except DirectoryAway:
                    break  # it tells when it is back
                for name, route in lost.items():
                    mine = self._held.get(name)
                    if mine is not None and mine.epoch == batch[name][0]:
                        self._lose(mine, route)

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            logger.error("%s failed", task.get_name(), exc_info=failure)
