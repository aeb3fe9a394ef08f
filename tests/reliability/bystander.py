"""A stream that has data under way both ways while something beside it is cut off."""

from __future__ import annotations

import asyncio
import hashlib
import random

from muxado import MuxadoError, Session, Stream

PIECES = random.Random(3)
# It comes to its end by itself too, for a session that waits for its streams.
MOST_PIECES = 30


class Bystander:
    """An echo on a stream of its own, which must not notice what happens beside it."""

    def __init__(self, near: Stream, far: Stream) -> None:
        self._ends = near, far
        self._stopping = False
        self._sent = hashlib.sha256()
        self._echoed = hashlib.sha256()
        self._left = 0  # bytes that are still to come back
        self._tasks = [asyncio.create_task(self._ask(near)), asyncio.create_task(self._echo(far))]

    @classmethod
    async def between(cls, near: Session, far: Session) -> Bystander:
        """Let one run between two sessions; return when its first bytes are under way."""
        stream = near.open(eager=True)
        bystander = cls(stream, await far.accept())
        await near.ping()
        return bystander

    async def finish(self) -> None:
        """See that it has missed nothing, and that the books of both ends agree."""
        self._stopping = True
        for task in self._tasks:
            await task
        assert self._echoed.digest() == self._sent.digest()

    async def leave(self) -> None:
        """Take note that its session has ended, which may have cut it off, but no sooner."""
        self._stopping = True
        for task, stream in zip(self._tasks, self._ends, strict=True):
            try:
                await task
            except (MuxadoError, asyncio.IncompleteReadError):
                assert stream.session.closed

    async def _ask(self, stream: Stream) -> None:
        async with stream:
            for _ in range(MOST_PIECES):
                if self._stopping:
                    break
                piece = PIECES.randbytes(PIECES.randrange(1, 400))
                await stream.write(piece)
                self._sent.update(piece)
                self._left += len(piece)
                if self._left > 400:  # else more goes out before it is back
                    await self._take(stream)
            while self._left:
                await self._take(stream)
            await self._compare_credit()
            stream.write_eof()
            assert await stream.read() == b""

    async def _take(self, stream: Stream) -> None:
        data = await stream.read(1000)
        if not data:
            raise asyncio.IncompleteReadError(b"", self._left)
        self._echoed.update(data)
        self._left -= len(data)

    async def _echo(self, stream: Stream) -> None:
        async with stream:
            while data := await stream.read(1000):
                await stream.write(data)

    async def _compare_credit(self) -> None:
        near, far = (stream._core for stream in self._ends)
        for stream in self._ends:
            await stream.session.ping()  # grants that are under way have come
        assert near.send_credit == far.recv_credit
        assert far.send_credit == near.recv_credit
