"""The tasks that wait in an `accept()`, of which one is woken for each thing that came."""

from __future__ import annotations

import asyncio
from collections import deque


class WaitQueue:
    """Tasks that wait for their turn, in the order in which they came.

    A task that is woken looks whether there is something for it, and waits again if not. If it is
    cancelled between the two, the next one is woken in its place, so that nothing that came is
    left lying while another task waits for it.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self) -> None:
        """Wait until woken."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self.wake()
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def wake(self, count: int = 1) -> None:
        """Wake those who have waited longest."""
        while count > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():  # as one is that was cancelled just now
                waiter.set_result(None)
                count -= 1

    def wake_all(self) -> None:
        """Wake everyone who waits."""
        self.wake(len(self._waiters))
