"""Cancelling a call after every number of event-loop turns that it can take."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import Any, TypeVar, get_origin, get_type_hints

from ..certificates import Tls
from ..fixtures import NewPair
from ..helpers import opened
from ..transports import Ends
from .bystander import Bystander

T = TypeVar("T")

MOST_TURNS = 500


class Stage:
    """What a scenario has to work with.

    Attributes:
        tls: certificates.
        secure: whether connections should be TLS.
    """

    def __init__(self, new_pair: NewPair, tls: Tls, secure: bool) -> None:
        self.tls = tls
        self.secure = secure
        self._new_pair = new_pair
        self._bystanders: list[Bystander] = []

    async def new_pair(self, **settings: Any) -> Ends:
        """Make two connected sessions that are busy already, with the settings given."""
        ends = await self._new_pair(**settings)
        self._bystanders.append(await Bystander.between(*ends))
        return ends

    async def check(self, ends: Ends) -> None:
        """See that a session works in both directions, and that nothing is left of what was."""
        while self._bystanders:
            await self._bystanders.pop().finish()
        client, server = ends
        for session in ends:
            await session.ping()
        for near, far in ((client, server), (server, client)):
            async with opened(near, far) as (stream, other):
                assert stream.id == other.id, "a stream was left in the queue"
                await stream.write(b"there")
                assert await other.readexactly(5) == b"there"
                await other.write(b"back")
                assert await stream.readexactly(4) == b"back"
        for session in ends:
            await session.ping()
        for session in ends:
            stats = session.stats()
            assert (stats.streams, stats.memory_held, stats.bytes_queued) == (0, 0, 0)

    async def leave(self) -> None:
        """See that what runs beside sessions that have ended has ended with them."""
        while self._bystanders:
            await self._bystanders.pop().leave()


Scenario = Callable[[Stage, "Cut"], Awaitable[None]]


class Cut:
    """Cancels what it is called with after some turns of the event loop, if it still runs.

    Attributes:
        turns: how many.
        hit: True if the call was still running, and was cancelled.
    """

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.hit = False

    async def __call__(self, call: Coroutine[Any, Any, T]) -> T | None:
        """Run a call; return its result, or None if it was cancelled."""
        task = asyncio.get_running_loop().create_task(call)
        for _ in range(self.turns):
            if task.done():
                break
            await asyncio.sleep(0)
        self.hit = task.cancel()
        await asyncio.wait([task])
        if self.hit:
            assert task.cancelled(), f"the cancellation was swallowed: {task!r}"
            return None
        return task.result()


class Scenarios(dict[str, Scenario]):
    """Scenarios by the name of what they cancel; one may have several, told apart by a word."""

    def of(self, name: str) -> Callable[[Scenario], Scenario]:
        """Add the decorated function."""

        def add(scenario: Scenario) -> Scenario:
            assert name not in self
            self[name] = scenario
            return scenario

        return add


async def every_cut(scenario: Scenario, stage: Stage) -> int:
    """Cancel after 0, 1, 2 ... turns until the call is done before; return how many it took."""
    for turns in range(MOST_TURNS):
        cut = Cut(turns)
        await scenario(stage, cut)
        await stage.leave()
        if not cut.hit:
            return turns
    raise AssertionError(f"the call is not done after {MOST_TURNS} turns")


def public_coroutines(front_end: ModuleType) -> set[str]:
    """Return the names of everything public that can be awaited, and so be cancelled.

    Also of the classes that have no public name, and are given by what has one; and both ends
    of the blocks of those context managers that have no class of their own.
    """
    names = set()
    waiting = [(name, getattr(front_end, name)) for name in front_end.__all__]
    seen = set()
    while waiting:
        name, value = waiting.pop()
        if inspect.isclass(value):
            if value in seen:
                continue
            seen.add(value)
            members = inspect.getmembers(value, inspect.isfunction)
            public = [(each, member) for each, member in members if is_public(each)]
            waiting += [(f"{value.__name__}.{each}", member) for each, member in public]
        elif inspect.isfunction(value):
            given = given_by(value, front_end)
            if waits(value) or hasattr(given, "__await__"):
                names.add(name)
            if given is AbstractAsyncContextManager:
                names |= {f"{name}.__aenter__", f"{name}.__aexit__"}
            if inspect.isclass(given) and given.__module__.startswith("muxado."):
                waiting.append((given.__name__, given))
    return names


def is_public(name: str) -> bool:
    return not name.startswith("_") or name.startswith("__")


def waits(function: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def given_by(function: Callable[..., object], front_end: ModuleType) -> object:
    """Return the class of what a function gives, by its annotation."""
    names = {name: getattr(front_end, name) for name in front_end.__all__}
    try:
        hint = get_type_hints(function, localns=names).get("return")
    except NameError:  # a name that is imported for type checkers only; ours never are
        return None
    return get_origin(hint) or hint
