"""What threads wait on, and the question whether one is in the midst of a call already."""

from __future__ import annotations

import threading
from typing import cast


def held_here(lock: threading.RLock) -> bool:
    """Return whether this very thread holds the lock."""
    # It is what threading.Condition asks too; there is no public name for it.
    return cast(bool, lock._is_owned())  # type: ignore[attr-defined]  # typeshed leaves it out


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
        return self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
