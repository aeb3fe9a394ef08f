"""A relay between two ends: it delays what passes, and can hold it back."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from time import monotonic
from types import TracebackType
from typing import Self

CHUNK = 64 * 1024


class Direction:
    """One way through the relay.

    Attributes:
        in_flight: bytes that the relay holds now.
        most_in_flight: the most that it has held.
        passed: bytes that have come out.
    """

    def __init__(self, delay: float, capacity: int) -> None:
        self.in_flight = 0
        self.most_in_flight = 0
        self.passed = 0
        self._delay = delay
        self._capacity = capacity
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._changed = asyncio.Condition()
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        """Let nothing out any more, and nothing in beyond the capacity."""
        self._open.clear()

    def release(self) -> None:
        """Let everything pass again."""
        self._open.set()

    async def full(self) -> None:
        """Wait until nothing more goes in."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.in_flight >= self._capacity)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes until the end, and then the end."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(reader))
            group.create_task(self._give(writer))

    async def _take(self, reader: asyncio.StreamReader) -> None:
        data = b"..."
        while data:
            async with self._changed:
                await self._changed.wait_for(lambda: self.in_flight < self._capacity)
            try:
                data = await reader.read(CHUNK)
            except ConnectionError:
                data = b""
            async with self._changed:
                self._chunks.append((monotonic() + self._delay, data))
                self.in_flight += len(data)
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                self._changed.notify_all()

    async def _give(self, writer: asyncio.StreamWriter) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._chunks)
            due, data = self._chunks[0]
            await asyncio.sleep(due - monotonic())
            await self._open.wait()
            # A connection that is gone takes nothing; the other direction has its end.
            with contextlib.suppress(ConnectionError):
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()
            async with self._changed:
                self._chunks.popleft()
                self.in_flight -= len(data)
                self.passed += len(data)
                self._changed.notify_all()


class Relay:
    """Takes one connection and passes it on.

    Attributes:
        to_dialled: the way from the end that dials the relay to the other.
        to_dialler: the way back.
    """

    def __init__(self, delay: float = 0.0, capacity: int = 64 * 1024 * 1024) -> None:
        """Delay each way by so many seconds, holding at most so many bytes."""
        self.to_dialled = Direction(delay, capacity)
        self.to_dialler = Direction(delay, capacity)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Begin to pass on to an address; return the address to dial instead."""

        async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                far_reader, far_writer = await asyncio.open_connection(host, port)
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self.to_dialled.carry(reader, far_writer))
                        group.create_task(self.to_dialler.carry(far_reader, writer))
                finally:
                    far_writer.transport.abort()
            except asyncio.CancelledError:
                pass  # asyncio's server would complain about it
            finally:
                writer.transport.abort()

        self._server = await asyncio.start_server(taken, "127.0.0.1", 0)
        address: tuple[str, int] = self._server.sockets[0].getsockname()
        return address

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
