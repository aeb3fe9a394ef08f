"""What several modules do with sessions and streams."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from muxado import Session, Stream, StreamRefused

T = TypeVar("T")

KIB = 1024
MIB = 1024 * KIB
WINDOW = 256 * KIB


def free_port() -> int:
    """Return a TCP port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def data_of(size: int, seed: int = 0) -> bytes:
    """Return bytes that look like nothing else."""
    return random.Random(size ^ seed << 40).randbytes(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def cuts(data: bytes, rng: random.Random) -> list[bytes]:
    """Cut data into pieces of every order of magnitude, up to twice a window."""
    pieces = []
    at = 0
    while at < len(data):
        size = rng.randint(1, 2 ** rng.randint(0, 19))
        pieces.append(data[at : at + size])
        at += size
    return pieces


def random_size(rng: random.Random, most: int) -> int:
    """Return a size up to `most`; every order of magnitude is equally likely."""
    return min(most, int(2 ** rng.uniform(0, most.bit_length())) - 1)


async def echo(stream: Stream) -> None:
    """Send back what comes, and the end after it."""
    while data := await stream.read(64 * KIB):
        await stream.write(data)
    stream.write_eof()


async def digest(stream: Stream) -> tuple[int, str]:
    """Read to the end; return how much came, and its hash."""
    checksum = hashlib.sha256()
    count = 0
    while data := await stream.read(256 * KIB):
        count += len(data)
        checksum.update(data)
    return count, checksum.hexdigest()


async def send(stream: Stream, data: bytes, piece: int = 256 * KIB) -> None:
    """Write data in pieces, and the end after it."""
    for at in range(0, len(data), piece):
        await stream.write(data[at : at + piece])
    stream.write_eof()


async def exchange(session: Session, data: bytes, **options: Any) -> None:
    """Send data through a new stream, and see that all of it comes back."""
    async with (
        session.open(**options) as stream,
        running(send(stream, data)) as sending,
    ):
        assert await digest(stream) == (len(data), sha256(data))
        await sending


async def retried(attempt: Callable[[], Awaitable[None]]) -> int:
    """Try something again for as long as its stream is refused; return how often it was."""
    refusals = 0
    while True:
        try:
            await attempt()
        except StreamRefused:
            refusals += 1
            await asyncio.sleep(random.uniform(0.001, 0.01 * min(refusals, 10)))
        else:
            return refusals


@asynccontextmanager
async def running(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run something beside the block, and cancel it at its end if it still runs."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], bool], session: Session) -> None:
    """Wait until something is so, looking after every round trip; the test's time bounds it."""
    while not condition():
        await session.ping()
