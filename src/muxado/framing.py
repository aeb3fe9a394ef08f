"""Messages on a stream: each goes out behind its length, and comes in whole.

The functions here take the streams of every front end. With one of `muxado.sync` they block; with
one of `muxado` or `muxado.trio` they are awaited::

    await send_message(stream, b"hello")
    while (message := await receive_message(stream)) is not None:
        ...

On the wire a message is its length, four bytes with the most significant first, and its bytes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar, overload
from weakref import WeakKeyDictionary

from . import asyncio as on_asyncio
from . import sync as on_threads
from .base_stream import give_up
from .errors import ErrorCode, MuxadoError, UsageError

if TYPE_CHECKING:
    from . import trio as on_trio

    AsyncStream = on_asyncio.Stream | on_trio.Stream

__all__ = ["LIMIT", "MessageTooLong", "receive_message", "send_message"]

T = TypeVar("T")

Buffer = bytes | bytearray | memoryview

LIMIT: int = 16 * 1024 * 1024  # bytes of a message, if no limit is given
HEAD = 4  # bytes of the length


class MessageTooLong(MuxadoError, ValueError):
    """A message is longer than the limit.

    Attributes:
        size: its length in bytes.
        limit: how long it might have been.
    """

    code: int = ErrorCode.ENHANCE_YOUR_CALM

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a message of {size} bytes, where {limit} are allowed")
        self.size: int = size
        self.limit: int = limit

    def __reduce__(self) -> tuple[Any, ...]:
        """Tell `pickle` how to make the error anew."""
        return type(self), (self.size, self.limit)


# The lengths that were read of messages whose bytes were not: the call was cancelled, or its time
# was up. The next call for the stream goes on there.
_begun: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


@overload
def send_message(stream: on_threads.Stream, message: Buffer, *, limit: int = LIMIT) -> None: ...


@overload
def send_message(
    stream: AsyncStream, message: Buffer, *, limit: int = LIMIT
) -> Coroutine[Any, Any, None]: ...


def send_message(
    stream: on_threads.Stream | AsyncStream, message: Buffer, *, limit: int = LIMIT
) -> Coroutine[Any, Any, None] | None:
    """Queue a message, behind its length.

    It waits as the stream's own writing does. Messages of several writers stay whole. Cancelled,
    or timed out, nothing of it was queued.

    Args:
        stream: a stream of any front end.
        message: its bytes; b"" is a message too.
        limit: bytes, the longest message that the peer takes.

    Returns:
        None from threads, else something to await.

    Raises:
        MessageTooLong: it is longer than the limit; nothing was sent.
        UsageError: the stream or the limit can't be.

    Otherwise it raises as the stream's own writing.
    """
    _check_limit(limit)
    data = bytes(memoryview(message))
    if len(data) > limit:
        raise MessageTooLong(len(data), limit)
    framed = len(data).to_bytes(HEAD, "big") + data
    if isinstance(stream, on_threads.Stream):
        stream.sendall(framed)
        return None
    if isinstance(stream, on_asyncio.Stream):
        return stream.write(framed)
    return _of_trio(stream).send_all(framed)


@overload
def receive_message(stream: on_threads.Stream, *, limit: int = LIMIT) -> bytes | None: ...


@overload
def receive_message(
    stream: AsyncStream, *, limit: int = LIMIT
) -> Coroutine[Any, Any, bytes | None]: ...


def receive_message(
    stream: on_threads.Stream | AsyncStream, *, limit: int = LIMIT
) -> bytes | Coroutine[Any, Any, bytes | None] | None:
    """Wait for the next message, and return it whole; None at the end of the stream.

    Cancelled, or timed out, it loses nothing: the next call returns that message.

    Args:
        stream: a stream of any front end.
        limit: bytes, the longest message that is taken.

    Returns:
        the message from threads, else something to await that gives it.

    Raises:
        MessageTooLong: the peer begins a longer one. The stream is reset with ENHANCE_YOUR_CALM.
        EOFError: the stream ended inside of a message.
        UsageError: the stream or the limit can't be.

    Otherwise it raises as the stream's own reading.
    """
    _check_limit(limit)
    steps = _receiving(stream, limit)
    if isinstance(stream, on_threads.Stream):
        return _run(steps, stream)
    if isinstance(stream, on_asyncio.Stream):
        return _run_async(steps, stream, _read_on_asyncio)
    return _run_async(steps, _of_trio(stream), _read_on_trio)


def _receiving(stream: Any, limit: int) -> Generator[int, bytes, bytes | None]:
    """Receive a message: yields how many bytes to read, and is sent them, or fewer at the end."""
    size = _begun.pop(stream, None)
    if size is None:
        head = yield HEAD
        if not head:
            return None
        _check_whole(head, HEAD, "the length of a message")
        size = int.from_bytes(head, "big")
    if size > limit:
        give_up(stream, ErrorCode.ENHANCE_YOUR_CALM)
        raise MessageTooLong(size, limit)
    if not size:
        return b""
    try:
        message = yield size
    except BaseException:
        _begun[stream] = size
        raise
    _check_whole(message, size, "a message")
    return message


def _check_whole(data: bytes, size: int, what: str) -> None:
    if len(data) < size:
        raise EOFError(f"the stream ended after {len(data)} of {size} bytes of {what}")


def _run(steps: Generator[int, bytes, T], stream: on_threads.Stream) -> T:
    """Take the steps of receiving in a thread."""
    try:
        wanted = next(steps)
        while True:
            try:
                data = stream.recv(wanted, socket.MSG_WAITALL)
            except BaseException as exc:
                wanted = steps.throw(exc)
            else:
                wanted = steps.send(data)
    except StopIteration as done:
        result: T = done.value
        return result


async def _run_async(
    steps: Generator[int, bytes, T],
    stream: Any,
    read: Callable[[Any, int], Coroutine[Any, Any, bytes]],
) -> T:
    """Take the steps of receiving in a task."""
    try:
        wanted = next(steps)
        while True:
            try:
                data = await read(stream, wanted)
            except BaseException as exc:
                wanted = steps.throw(exc)
            else:
                wanted = steps.send(data)
    except StopIteration as done:
        result: T = done.value
        return result


async def _read_on_asyncio(stream: on_asyncio.Stream, count: int) -> bytes:
    try:
        return await stream.readexactly(count)
    except asyncio.IncompleteReadError as exc:
        return exc.partial


async def _read_on_trio(stream: on_trio.Stream, count: int) -> bytes:
    try:
        return await stream.readexactly(count)
    except EOFError:
        return await stream.receive_some(count)  # what is left, all of which has come


def _of_trio(stream: Any) -> on_trio.Stream:
    if type(stream).__module__ != "muxado.trio.stream":
        raise UsageError(f"messages are for muxado's own streams, not {stream!r}")
    found: on_trio.Stream = stream
    return found


def _check_limit(limit: object) -> None:
    if type(limit) is not int or not 0 <= limit < 2**32:
        raise UsageError(f"limit= must be a number of bytes below 2**32, not {limit!r}")
