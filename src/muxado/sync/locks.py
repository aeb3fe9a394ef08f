"""How threads wait: what on, until when, and whether they may; which errors are our own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Protocol

from ..errors import UsageError

# Seconds that one wait of the interpreter's may take. Windows looks for signals between two of
# them only; elsewhere they are as long as the interpreter allows.
PIECE: float = 0.1 if sys.platform == "win32" else threading.TIMEOUT_MAX

# Seconds after which a selector is asked again: epoll takes 24 days at most.
LONGEST_SELECT: float = 86400.0

# The modules that errors of the library's own come from.
OURS = ("muxado.base_", "muxado.core.", "muxado.front_end", "muxado.sync.", "muxado.wire.")


# The threads of sessions that are in a callback of the program's just now.
calling_back: set[int] = set()


class Acquirable(Protocol):
    """A lock, or something else that is acquired like one."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire it, within so many seconds."""


def holder_test(lock: threading.RLock) -> Callable[[], bool]:
    """Return what tells whether the thread that calls it holds the lock."""
    # It is what threading.Condition asks too; there is no public name for it.
    test: Callable[[], bool] = lock._is_owned  # type: ignore[attr-defined]  # not in typeshed
    return test


def deadline_of(timeout: float | None) -> float | None:
    """Return when a timeout that begins now is over."""
    return None if timeout is None else monotonic() + timeout


def rest_of(deadline: float | None) -> float | None:
    """Return how many seconds are left until a deadline: 0 if it is over, and never more than
    the interpreter can wait."""
    if deadline is None:
        return None
    return min(max(0.0, deadline - monotonic()), threading.TIMEOUT_MAX)


def acquire(lock: Acquirable, deadline: float | None) -> bool:
    """Acquire a lock; return False if the time was up. A signal interrupts it on every system.

    Args:
        lock: what to acquire.
        deadline: when to give up, by `time.monotonic()`; None: never.
    """
    if deadline is None:
        deadline = inf
    while not lock.acquire(timeout=min(PIECE, max(0.0, deadline - monotonic()))):
        if monotonic() >= deadline:
            return False
    return True


def join(thread: threading.Thread, deadline: float | None = None) -> bool:
    """Wait until a thread has ended; return False if the time was up, by `time.monotonic()`.

    A signal interrupts it on every system.
    """
    while thread.is_alive():
        rest = rest_of(deadline)
        if rest == 0:
            return False
        thread.join(PIECE if rest is None else min(PIECE, rest))
    return True


class Waiter:
    """Lets one thread wait until others wake it, as often as it likes.

    Raises:
        UsageError: the thread is a session's own, in a callback: it must not wait.

    Attributes:
        thread: the identifier of the thread that made it, which is the one that waits.
    """

    __slots__ = ("_lock", "thread")

    def __init__(self) -> None:
        self.thread: int = threading.get_ident()
        if self.thread in calling_back:
            raise UsageError("a callback runs on its session's own thread, and must not wait")
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        """Let the waiting thread go on, or its next wait return at once."""
        try:
            self._lock.release()
        except RuntimeError:
            return  # it was woken already

    def wait(self, deadline: float | None) -> bool:
        """Wait to be woken; return False if the time was up.

        Args:
            deadline: when to give up, by `time.monotonic()`; None: never.
        """
        return acquire(self._lock, deadline)


def from_a_handler(exc: OSError) -> bool:
    """Return whether a signal's handler has raised an error, TimeoutError for one.

    Those that the system raises have a number.
    """
    return exc.errno is None and threading.current_thread() is threading.main_thread()


def is_ours(exc: BaseException) -> bool:
    """Return whether an exception that is passing comes from the library's own frames.

    One that a signal's handler raises has the handler's frame too.
    """
    place = exc.__traceback__
    while place is not None:
        if not place.tb_frame.f_globals.get("__name__", "").startswith(OURS):
            return False
        place = place.tb_next
    return True
