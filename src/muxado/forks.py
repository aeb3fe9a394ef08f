"""Keeps a forked child from holding the connections of its parent open.

A fork copies every descriptor, and a connection ends for the peer only when its last copy is
closed. A long-lived child, such as those of `multiprocessing`, would keep every session of its
parent open: the peer would notice neither `close()` nor `abort()`. So the child closes its copies
as soon as it exists, and sends nothing to the peer, since the connections go on in the parent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from collections.abc import Iterable
from time import monotonic
from typing import Any, Protocol

from .core import CoreSession


class Owner(Protocol):
    """An object with descriptors that a forked child must not keep."""

    def forget_in_child(self) -> None:
        """Close the child's copies. No other thread is running then, so it must not wait."""


def watch(owner: Owner, lock: threading.RLock | None = None) -> None:
    """Have `owner.forget_in_child()` called in every child that is forked from now on.

    Keeps only a weak reference. Waits for a fork that is under way in another thread.

    Args:
        owner: the object whose `forget_in_child` is called.
        lock: held during the fork, so that the child doesn't get a half-finished change.
    """
    with _lock:
        _owners[owner] = lock


def guard(sock: Any) -> None:
    """Make every child that is forked from now on close its copy of a socket.

    For listening sockets, and for connections that have no session yet; a session uses `watch`
    for its own. Keeps only a weak reference.
    """
    with _lock:
        _sockets.add(sock)


def descriptor(thing: Any) -> int:
    """Return an object's file descriptor, or -1 if it has none any more."""
    try:
        number: int = thing.fileno()
    except Exception:  # it is closed; libraries raise different errors for that
        return -1
    return number


def disconnect(descriptors: Iterable[int]) -> None:
    """Disconnect this process's copies of descriptors; those that are -1 are skipped.

    From then on, reading from them returns the end, and writing is an error. The numbers stay in
    use, because the objects that own them will close them later; if the numbers were free, that
    could close a new file with the same number.
    """
    numbers = [number for number in descriptors if number >= 0]
    try:
        near, far = socket.socketpair()
    except OSError:  # no descriptor is left
        for number in numbers:
            with contextlib.suppress(OSError):
                os.close(number)
        return
    with near, far:
        for number in numbers:
            with contextlib.suppress(OSError):
                os.dup2(near.fileno(), number, inheritable=False)


def disown(core: CoreSession, now: float | None = None) -> None:
    """End the child's copy of a session, so that each further call raises and says why."""
    core.disown(monotonic() if now is None else now)


_sockets: weakref.WeakSet[Any] = weakref.WeakSet()
_owners: weakref.WeakKeyDictionary[Owner, threading.RLock | None] = weakref.WeakKeyDictionary()

# Of the fork that is under way: the owners to call, and the locks that are held.
_told: list[Owner] = []
_held: list[threading.RLock] = []

# Held while a fork is under way. A signal's handler may fork in the middle of anything.
_lock = threading.RLock()


def _before() -> None:
    _lock.acquire()
    for owner, lock in list(_owners.items()):
        if lock is not None:
            lock.acquire()
            _held.append(lock)
        _told.append(owner)


def _after_in_parent() -> None:
    _told.clear()
    while _held:
        _held.pop().release()
    _lock.release()


def _after_in_child() -> None:
    with contextlib.suppress(Exception):
        disconnect([descriptor(sock) for sock in list(_sockets)])
    for owner in _told:
        # An error of one must not keep the connections of the others open.
        with contextlib.suppress(Exception):
            owner.forget_in_child()
    _after_in_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
