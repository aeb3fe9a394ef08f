"""A pipe that holds next to nothing, as the readers and writers of two ends."""

from __future__ import annotations

import asyncio


class NarrowPipe:
    """One direction: a writer that drains only as fast as the reader reads.

    Attributes:
        most: the most bytes that it ever held.
    """

    def __init__(self, capacity: int) -> None:
        self.most = 0
        self._capacity = capacity
        self._unsent = bytearray()  # taken by `write`, and not in the pipe yet
        self._held = bytearray()
        self._closed = False
        self._changed = asyncio.Condition()

    # The writer

    def write(self, data: bytes) -> None:
        self._unsent += data

    async def drain(self) -> None:
        """Wait until all that was written is in the pipe."""
        async with self._changed:
            while self._unsent:
                await self._changed.wait_for(self._has_room)
                if self._closed:
                    raise BrokenPipeError
                count = self._capacity - len(self._held)
                self._held += self._unsent[:count]
                del self._unsent[:count]
                self.most = max(self.most, len(self._held))
                self._changed.notify_all()

    def close(self) -> None:
        self._closed = True
        asyncio.get_running_loop().create_task(self._tell())

    # The reader

    async def read(self, n: int) -> bytes:
        """Return what is in the pipe, up to `n` bytes; b"" at its end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._held or self._closed)
            data = bytes(self._held[:n])
            del self._held[:n]
            self._changed.notify_all()
            return data

    def _has_room(self) -> bool:
        return len(self._held) < self._capacity or self._closed

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
