"""What several test modules do with sessions and streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from muxado import Session, Stream

T = TypeVar("T")


async def echo(stream: Stream) -> None:
    """Send back what comes, and the end after it."""
    while data := await stream.read(65536):
        await stream.write(data)
    stream.write_eof()


@asynccontextmanager
async def opened(
    near: Session, far: Session, **options: Any
) -> AsyncIterator[tuple[Stream, Stream]]:
    """Open a stream and accept it; both ends are closed at the end of the block."""
    async with near.open(eager=True, **options) as stream, await far.accept() as other:
        yield stream, other


@asynccontextmanager
async def running(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run something beside the block, and cancel it at its end if it still runs."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def exchange(stream: Stream, request: bytes) -> bytes:
    """Send a request and the end, and return the whole reply."""
    await stream.write(request)
    stream.write_eof()
    return await stream.read()


async def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task and see that it was still running."""
    assert task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
