"""One session of a client, as the server holds it: what it offers, and what it uses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..asyncio import Session
from ..cluster.control import Control
from .denials import Denials
from .exposing import Exposure
from .rules import Rights

__all__ = ["Connected"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")


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
        self._uses: dict[asyncio.Task[None], tuple[str, Callable[[Rights], bool]]] = {}

    @property
    def session(self) -> Session:
        """The session."""
        return self.control.session

    @property
    def is_full(self) -> bool:
        """Whether it has as many connections as it may have."""
        most = self.rights.connections
        return most > 0 and self.connections >= most

    @property
    def connections(self) -> int:
        """How many connections it has, to what it offers and to what it uses."""
        return len(self._uses) + sum(each.open for each in self.exposures.values())

    @contextmanager
    def using(self, what: str, allowed: Callable[[Rights], bool]) -> Iterator[None]:
        """Cancel this task if a right that it rests on is taken away, while the block runs."""
        task = asyncio.current_task()
        assert task is not None
        self._uses[task] = (what, allowed)
        try:
            yield
        finally:
            del self._uses[task]

    @property
    def uses(self) -> list[str]:
        """What it uses now."""
        return [what for what, _ in self._uses.values()]

    def limit(self, rights: Rights) -> list[Exposure]:
        """Take other rights; end what it uses against them, and return what it so offers."""
        self.rights = rights
        for task, (what, allowed) in list(self._uses.items()):
            if not allowed(rights):
                logger.warning("%s may not have %s any more", self.name, what)
                task.cancel()
        return [each for each in self.exposures.values() if not self.may_offer(each)]

    def may_offer(self, exposure: Exposure) -> bool:
        """Return whether it may offer what it does."""
        if exposure.offer.private:
            return self.rights.may_offer(exposure.offer.service)
        return self.rights.may_expose(exposure.port)
