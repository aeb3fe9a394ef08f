"""Receive memory that several sessions share, with one limit over all of them.

How it works. A session leases memory from the pool in steps, and compares what it holds with its
lease, as a session without a pool compares it with `Config.max_receive_memory`. So the pool is
asked once for many frames, and nothing is counted twice. When the pool is short, it takes back what
others have leased and don't use. It looks at what each of them holds and adds that up, so no count
can go wrong, however a session ends. In threads, where a session may take a frame in while its
lease is taken back, the limit may be passed by a frame of each.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final

# Memory is leased in steps of this many bytes, as long as there is enough.
STEP: Final = 64 * 1024

# Seconds until the pool looks for unused memory again, for each session that has leased some. A
# peer that has its frames refused could make us look all the time otherwise.
LOOK_INTERVAL: Final = 20e-6


class PoolMember:
    """What leases from a pool."""

    __slots__ = ()

    def return_unused(self) -> int:
        """Keep no more than what is used, and return how much that is."""
        raise NotImplementedError


class MemoryPool:
    """The receive memory of several sessions.

    Args:
        most: how many bytes all of them may hold.
        lock: held while leases change. If one thread runs all of the sessions, it may be one that
            does nothing.

    Attributes:
        most: how many bytes all of them may hold.
        leased: how many of them are leased; sessions may use fewer.
    """

    __slots__ = ("_leases", "_lock", "_look_at", "leased", "most")

    def __init__(self, most: int, lock: AbstractContextManager[Any]) -> None:
        self.most: int = most
        self.leased: int = 0
        self._lock = lock
        self._leases: dict[PoolMember, int] = {}
        self._look_at = 0.0  # not before this time

    def lease(self, member: PoolMember, wanted: int, now: float) -> int:
        """Lease `wanted` bytes in all to a member; return what it has then, which may be less."""
        with self._lock:
            have = self._leases.get(member, 0)
            target = (wanted + STEP - 1) // STEP * STEP
            if target - have > self.most - self.leased:
                target = wanted
                if target - have > self.most - self.leased and now >= self._look_at:
                    self._take_back(member, now)
                if target - have > self.most - self.leased:
                    return have
            self._leases[member] = target
            self.leased += target - have
            return target

    def leave(self, member: PoolMember) -> None:
        """Take everything back from a member."""
        with self._lock:
            self.leased -= self._leases.pop(member, 0)

    def _take_back(self, asking: PoolMember, now: float) -> None:
        """Take back what the others don't use."""
        self._look_at = now + LOOK_INTERVAL * len(self._leases)
        for member in list(self._leases):
            if member is asking:
                continue
            used = member.return_unused()
            if used:
                self._leases[member] = used
            else:
                del self._leases[member]
        # Added up again, so that a call of a thread that was cut off half way leaves no error.
        self.leased = sum(self._leases.values())
