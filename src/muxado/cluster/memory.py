"""A directory in the memory of one process, for one server, or for several in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import time

from ..errors import UsageError
from .directory import Claim, Lost, Note, Place, Route
from .errors import NameTaken, Superseded
from .names import check_name

__all__ = ["MemoryDirectory"]


class MemoryDirectory:
    """A directory of the servers of one process. See `Directory`.

    Its claims need no renewal.
    """

    def __init__(self, shared: MemoryDirectory | None = None) -> None:
        """Make one.

        Args:
            shared: the directory of another server of this process, to know the same names.
        """
        self._routes: dict[str, Route] = {} if shared is None else shared._routes
        self._losers: dict[Place, Lost] = {} if shared is None else shared._losers
        self._notes: dict[str, Note] = {} if shared is None else shared._notes
        self._seen: dict[str, Note] = {}
        self._place: Place | None = None

    @property
    def lease(self) -> float | None:
        """None: a claim lasts as long as its server."""
        return None

    @property
    def trouble(self) -> str | None:
        """None: memory is always there."""
        return None

    async def start(self, place: Place, *, lost: Lost, returned: Callable[[], object]) -> None:
        """Begin to be the directory of a server. See `Directory.start`."""
        self._place = place
        self._losers[place] = lost

    async def claim(self, name: str, *, identity: str = "", epoch: int | None = None) -> Claim:
        """Claim a name for this server. See `Directory.claim`."""
        place = self._check_place()
        before = self._routes.get(check_name(name))
        if before is not None:
            if before.identity != identity:
                raise NameTaken(f"{name} is held by another identity")
            if epoch is not None and before[:2] != (place, epoch) and before.epoch >= epoch:
                raise Superseded(name, before)
        if epoch is None:
            epoch = max(int(time() * 1000), before.epoch + 1 if before is not None else 0)
        self._routes[name] = Route(place, epoch, identity)
        if before is not None and before.place != place and before.place in self._losers:
            self._losers[before.place](name, self._routes[name])
        return Claim(epoch, before)

    async def renew(self, claims: Mapping[str, tuple[int, str]]) -> Mapping[str, Route]:
        """Return which claims do not hold any more. See `Directory.renew`."""
        place = self._check_place()
        lost = {}
        for name, (epoch, identity) in claims.items():
            route = self._routes.setdefault(name, Route(place, epoch, identity))
            if route[:2] != (place, epoch):
                lost[name] = route
        return lost

    async def release(self, name: str, epoch: int) -> bool:
        """Give a claim up, unless it was superseded. See `Directory.release`."""
        route = self._routes.get(name)
        if route is None or route[:2] != (self._check_place(), epoch):
            return False
        del self._routes[name]
        return True

    async def find(self, name: str) -> Route | None:
        """Return the route of a name, None if it is not claimed."""
        return self._routes.get(check_name(name))

    async def note(self, notes: Mapping[str, Note]) -> None:
        """Tell the other servers of notes. See `Directory.note`."""
        for key, note in notes.items():
            self._notes[key] = max(note, self._notes.get(key, note))

    async def news(self) -> Mapping[str, Note]:
        """Return the notes since the last call. See `Directory.news`."""
        seen, self._seen = self._seen, dict(self._notes)
        return {key: note for key, note in self._notes.items() if seen.get(key) != note}

    async def close(self) -> None:
        """End; what this server has claimed is forgotten with it. Harmless if repeated."""
        place, self._place = self._place, None
        if place is not None:
            self._losers.pop(place, None)
            for name in [name for name, route in self._routes.items() if route.place == place]:
                del self._routes[name]

    def _check_place(self) -> Place:
        if self._place is None:
            raise UsageError("the directory was not started")
        return self._place
