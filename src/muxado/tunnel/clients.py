"""One session of a client, as the server holds it: what it offers, and what it uses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from time import time
from typing import Any

from ..asyncio import Session
from ..cluster.control import Control
from .denials import Denials
from .exposing import Exposure
from .rules import Rights

__all__ = ["Connected", "Use"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")


class Use:
    """Something that a client uses.

    Attributes:
        what: what `status` calls it.
        allowed: whether rights allow it.
        cancel: cuts it.
    """

    __slots__ = ("allowed", "cancel", "what")

    def __init__(self, what: str = "", allowed: Callable[[Rights], bool] = lambda _: True) -> None:
        self.what: str = what
        self.allowed: Callable[[Rights], bool] = allowed
        self.cancel: Callable[[], object] = lambda: None


class Connected:
    """A session that has said hello.

    Attributes:
        name: the client's name.
        key: the hash of the key it has shown.
        rights: what it may do.
        control: its control stream.
        denials: where is told what it is denied.
        exposures: what it offers, by service.
        movable: whether it can go to another server of the fleet.
        moving: whether it was asked to, or has said that it does.
        since: when it came, in seconds since the epoch.
    """

    def __init__(
        self,
        name: str,
        key: str,
        rights: Rights,
        control: Control,
        denials: Denials,
        movable: bool = False,
    ) -> None:
        self.name: str = name
        self.key: str = key
        self.rights: Rights = rights
        self.control: Control = control
        self.denials: Denials = denials
        self.exposures: dict[str, Exposure] = {}
        self.movable: bool = movable
        self.moving: bool = False
        self.since: float = time()
        self._uses: set[Use] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def session(self) -> Session:
        """The session."""
        return self.control.session

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Have a task do something for it, which ends with the session."""
        task = asyncio.create_task(work, name="muxado tunnel: connection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """End its tasks."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def is_full(self) -> bool:
        """Whether it has as many connections as it may have."""
        most = self.rights.connections
        return most > 0 and self.connections >= most

    @property
    def connections(self) -> int:
        """How many connections it has, to what it offers and to what it uses."""
        return len(self._uses) + sum(each.open for each in self.exposures.values())

    def begin_use(self, use: Use) -> None:
        """Take note of something that it uses; cut it if there is no right to it any more."""
        self._uses.add(use)
        if not use.allowed(self.rights):
            use.cancel()

    def end_use(self, use: Use) -> None:
        """Take note that it does not use something any more. Harmless if repeated."""
        self._uses.discard(use)

    @property
    def uses(self) -> list[str]:
        """What it uses now."""
        return [use.what for use in self._uses]

    def limit(self, rights: Rights) -> list[Exposure]:
        """Take other rights; end what it uses against them, and return what it so offers."""
        self.rights = rights
        for use in list(self._uses):
            if not use.allowed(rights):
                logger.warning("%s may not have %s any more", self.name, use.what)
                text = f"{use.what}: the right to it was taken away, what ran is cut"
                self.control.say("error", code=403, text=text)
                use.cancel()
        return [each for each in self.exposures.values() if not self.may_offer(each)]

    def may_offer(self, exposure: Exposure) -> bool:
        """Return whether it may offer what it does."""
        if exposure.offer.private:
            return self.rights.may_offer(exposure.offer.service)
        return self.rights.may_expose(exposure.port)
