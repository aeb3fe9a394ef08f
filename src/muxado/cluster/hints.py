"""What a server remembers of names: where they were the last time, and which have just gone."""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic

from .directory import Route

__all__ = ["Hints"]

MOST = 100_000  # names; the one that was remembered first gives way


class Hints:
    """Routes that were right, and names that may be about to come back.

    Args:
        grace: seconds for which a name that has gone is away, and not unknown.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._routes: OrderedDict[str, Route] = OrderedDict()
        self._gone: OrderedDict[str, float] = OrderedDict()  # and when

    def __len__(self) -> int:
        """Return how many routes there are."""
        return len(self._routes)

    def route(self, name: str) -> Route | None:
        """Return where a name was the last time, None if that was wrong or is not known."""
        return self._routes.get(name)

    def remember(self, name: str, route: Route) -> None:
        """Take note of where a name is."""
        self._routes[name] = route
        self._gone.pop(name, None)
        if len(self._routes) > MOST:
            self._routes.popitem(last=False)

    def refute(self, name: str, route: Route) -> None:
        """Take note that a name is not there."""
        if self._routes.get(name) == route:
            del self._routes[name]
        self.has_gone(name)

    def forget(self, name: str) -> None:
        """Forget a name, which is here."""
        self._routes.pop(name, None)
        self._gone.pop(name, None)

    def has_gone(self, name: str) -> None:
        """Take note that a name was here, or there, until now."""
        self._gone[name] = monotonic()
        self._gone.move_to_end(name)
        if len(self._gone) > MOST:
            self._gone.popitem(last=False)

    def is_away(self, name: str) -> bool:
        """Return whether a name has gone so lately that it may come back."""
        gone = self._gone.get(name)
        if gone is None:
            return False
        if monotonic() - gone < self._grace:
            return True
        del self._gone[name]
        return False
