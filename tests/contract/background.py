"""Running a blocking call beside a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from .sides import PATIENCE, Side, StreamSide

T = TypeVar("T")


@contextmanager
def background(call: Callable[..., T], *args: Any) -> Iterator[Future[T]]:
    """Run a call beside the block, which must not end before it."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call, *args)
        yield future
        future.exception(PATIENCE)


@contextmanager
def serving(
    side: Side, handler: Callable[[StreamSide], None], limit: int | None = None
) -> Iterator[Future[None]]:
    """Serve beside the block; the session is closed after it."""
    with background(side.serve, handler, limit) as future:
        yield future
        side.close()


def echo(stream: StreamSide) -> None:
    """Send back what comes, and the end after it."""
    while data := stream.read():
        stream.write(data)
    stream.write_eof()
