"""Connections that are kept for a next request, over a session that begins to drain.

To the session an idle connection is an open stream, for which its `shutdown` would wait.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from ..base_session import BaseSession

__all__ = ["close_idle_when_draining"]


class Keeper(Protocol):
    """Keeps connections that may be idle, as a pool does."""

    def close_idle(self) -> None:
        """Close those that are; without waiting, whatever thread asks."""


_lock = threading.Lock()
_keepers: WeakKeyDictionary[BaseSession[Any], WeakSet[Keeper]] = WeakKeyDictionary()


def close_idle_when_draining(session: BaseSession[Any], keeper: Keeper) -> None:
    """Have a keeper close what is idle when the session begins to drain, or soon if it does.

    Connections that become idle later are the keeper's to close: `session.draining` tells.
    Neither of the two is kept alive by the other.
    """
    with _lock:
        keepers = _keepers.get(session)
        if keepers is None:
            keepers = _keepers[session] = WeakSet()
            session.on_draining(_Closing(keepers))
        keepers.add(keeper)
    if session.draining:
        session.on_draining(keeper.close_idle)


class _Closing:
    """Tells all keepers of a session."""

    def __init__(self, keepers: WeakSet[Keeper]) -> None:
        self._keepers = keepers

    def __call__(self) -> None:
        with _lock:
            keepers = list(self._keepers)
        for keeper in keepers:
            keeper.close_idle()
