"""How threads wait: what on, until when, and whether they may."""

from __future__ import annotations

import threading
from time import monotonic


def held_here(lock: threading.RLock) -> bool:
    """Return whether this very thread holds the lock."""
    # It is what threading.Condition asks too; there is no public name for it.
    held: bool = lock._is_owned()  # type: ignore[attr-defined]  # typeshed leaves it out
    return held


def deadline_of(timeout: float | None) -> float | None:
    """Return when a timeout that begins now is over."""
    return None if timeout is None else monotonic() + timeout


def rest_of(deadline: float | None) -> float | None:
    """Return how many seconds are left until a deadline, 0 if it is over."""
    return None if deadline is None else max(0.0, deadline - monotonic())


class Waiter:
    """Lets one thread wait, once, until another wakes it."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        """Let the waiting thread go on. To be called once."""
        self._lock.release()

    def wait(self, timeout: float | None) -> bool:
        """Wait to be woken; return False if that took longer than `timeout` seconds."""
        return self._lock.acquire(timeout=-1 if timeout is None else timeout)
