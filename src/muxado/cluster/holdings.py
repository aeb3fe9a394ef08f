"""The names that sessions of this server have: how they come, are replaced, move and go.

How it works. `here` has the one registration of each name whose session may be used. One that a
newer session replaces, on this server or on another one, leaves `here` at once and is `old` until
its session has ended: streams that run go on, and new ones are the newer session's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from random import shuffle
from time import monotonic
from typing import Any

from .claims import Claims
from .hints import Hints
from .registration import Registration

__all__ = ["Holdings"]

logger: logging.Logger = logging.getLogger("muxado.cluster")

# Seconds that a session has to end by itself after a newer one of its name has come.
LETTING_GO = 5.0

# Seconds between two sessions that are asked to move.
MOST_PACE = 0.02


class Holdings:
    """The registrations of one server.

    Args:
        claims: where their names are claimed.
        hints: is told which names come and go.

    Attributes:
        here: the registration of each name that is held.
    """

    def __init__(self, claims: Claims, hints: Hints) -> None:
        self.here: dict[str, Registration] = {}
        self._claims = claims
        self._hints = hints
        self._old: set[Registration] = set()  # replaced, and not ended yet
        self._came: dict[str, asyncio.Event] = {}  # names that are waited for
        self._waiters: dict[str, int] = {}
        self._gone = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def usable(self, name: str) -> Registration | None:
        """Return the registration of a name, if streams can be opened to its session."""
        registration = self.here.get(name)
        return registration if registration is not None and registration.usable else None

    def expects(self, name: str) -> bool:
        """Return whether a session is about to have a name here."""
        return self._claims.holds(name)

    async def add(self, registration: Registration, timeout: float) -> None:
        """Claim the name of a registration, and hold it until its session ends.

        Args:
            registration: it.
            timeout: seconds for the directory; without it the name is known here alone for now.

        Raises:
            NameTaken: another identity has the name.
            Superseded: a newer session has claimed it meanwhile.
        """
        name = registration.name
        try:
            registration.held = await self._claims.hold(
                name,
                lambda route: self._lost(registration),
                identity=registration.identity,
                timeout=timeout,
            )
        except BaseException:
            registration.remove()
            raise
        former = self.here.get(name)
        self.here[name] = registration
        if former is not None:
            self._retire(former)
        self._hints.forget(name)
        if name in self._came:
            self._came[name].set()
        self._begin(self._watch(registration))

    def remove(self, registration: Registration) -> None:
        """Give a name up, as far as the registration still has it."""
        self._old.discard(registration)
        if self.here.get(registration.name) is registration:
            del self.here[registration.name]
            self._hints.has_gone(registration.name)
            if registration.held is not None:
                self._claims.drop(registration.held)
        self._gone.set()

    def has_moved(self, registration: Registration) -> None:
        """Let a session go that has its name on another server by now, as it says."""
        if self.here.get(registration.name) is registration:
            self._lost(registration)
            if registration.held is not None:
                self._claims.drop(registration.held)

    async def wait_for(self, name: str, timeout: float) -> None:
        """Wait until a name comes to this server, but no longer than the timeout."""
        came = self._came.setdefault(name, asyncio.Event())
        self._waiters[name] = self._waiters.get(name, 0) + 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await came.wait()
        finally:
            self._waiters[name] -= 1
            if came.is_set() or not self._waiters[name]:
                self._came.pop(name, None)
            if not self._waiters[name]:
                del self._waiters[name]

    async def drain(self, grace: float) -> None:
        """Have every session move to another server, and wait until they have.

        Args:
            grace: seconds. What is left then is closed.
        """
        until = monotonic() + grace
        order = list(self.here.values())
        shuffle(order)
        pause = min(MOST_PACE, grace / 2 / max(1, len(order)))
        for at, registration in enumerate(order):
            await asyncio.sleep(max(0.0, until - grace + pause * at - monotonic()))
            if self.here.get(registration.name) is registration:
                registration.begin_drain()
        await self._wait_until_empty(until - monotonic())
        left = [*self.here.values(), *self._old]
        if left:
            logger.warning("%d sessions had not moved when the grace was over", len(left))
            for registration in left:
                registration.session.close()
            await self._wait_until_empty(None)  # each is gone after its `close_timeout`

    async def close(self) -> None:
        """Give all names up; the sessions go on."""
        for registration in [*self.here.values(), *self._old]:
            registration.remove()
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _wait_until_empty(self, timeout: float | None) -> None:
        """Wait until no session has a name, or had one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.here or self._old:
                    self._gone.clear()
                    await self._gone.wait()

    async def _watch(self, registration: Registration) -> None:
        """Give a name up when its session ends."""
        await registration.session.wait_closed()
        registration.remove()

    def _lost(self, registration: Registration) -> None:
        """Take note that a newer session has the name, on another server."""
        if self.here.get(registration.name) is registration:
            del self.here[registration.name]
            self._hints.has_gone(registration.name)
            self._retire(registration)

    def _retire(self, registration: Registration) -> None:
        """Let a session go whose name a newer one has."""
        registration.was_replaced()
        if registration.ends_session:
            if not registration.session.closed:
                self._old.add(registration)
            self._begin(self._let_go(registration))
        self._gone.set()

    async def _let_go(self, registration: Registration) -> None:
        """Tell a session that does not end by itself that it is not needed any more."""
        session = registration.session
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LETTING_GO):
                await session.wait_closed()
        if not session.closed:
            session.go_away(409, b"a newer session has the name")
            await session.shutdown(None)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="muxado cluster: a registration")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
