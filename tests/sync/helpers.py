"""What several test modules do with sessions and streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from muxado.sync import Session, Stream
from tests.patience import patience

# Seconds that any call may take before it counts as hanging.
PATIENCE = patience(10)

T = TypeVar("T")


@contextmanager
def background(call: Callable[..., T], *args: Any) -> Iterator[Future[T]]:
    """Run a call beside the block, which must not end before it."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call, *args)
        yield future
        future.exception(PATIENCE)


@contextmanager
def opened(client: Session, server: Session) -> Iterator[tuple[Stream, Stream]]:
    """Open a stream and accept it; both ends are closed at the end of the block."""
    with client.open(eager=True) as near, server.accept(PATIENCE) as far:
        near.settimeout(PATIENCE)
        far.settimeout(PATIENCE)
        yield near, far


def echo(stream: Stream) -> None:
    """Send back what comes, and the end after it."""
    while data := stream.recv(65536):
        stream.sendall(data)
    stream.write_eof()


def until_read(stream: Stream) -> None:
    """Return once another thread waits for the stream to become readable."""
    while stream._core.read_waiter is None:
        stream.session.stats()  # lets go of the interpreter, and of the session


def until_written(stream: Stream) -> None:
    """Return once another thread waits for the stream to take more."""
    while stream._core.write_waiter is None:
        stream.session.stats()


def receive_all(stream: Stream) -> bytes:
    """Return everything up to the end."""
    return b"".join(iter(lambda: stream.recv(65536), b""))
