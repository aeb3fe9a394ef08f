"""Streams and sessions as anyio has them: one code for asyncio and trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import asyncio as on_asyncio
from ..errors import MuxadoError
from ..extras import needs

with needs("anyio"):
    import anyio
    import anyio.abc
    import anyio.lowlevel

if TYPE_CHECKING:
    from .. import trio as on_trio

    AnySession = on_asyncio.Session | on_trio.Session
    AnyStream = on_asyncio.Stream | on_trio.Stream

__all__ = ["ByteStream", "StreamListener"]


class ByteStream(anyio.abc.ByteStream):
    """A stream of an asyncio or a trio session as an `anyio.abc.ByteStream`.

    Its errors are anyio's: `EndOfStream` after the peer's FIN, `ClosedResourceError` for what
    this side has closed, `BrokenResourceError` for a reset or a lost session, the last two with
    muxado's own error as their `__cause__`. Its extra attributes are the addresses of the
    session's connection.

    As an async context manager it is closed at the end of the block, or reset if the block
    raises or is cancelled.

    Args:
        stream: from `open()` or `accept()` of `muxado.Session` or `muxado.trio.Session`.
    """

    def __init__(self, stream: AnyStream) -> None:
        self._stream = stream
        self._receive: Callable[[int], Awaitable[bytes]]
        self._send: Callable[[bytes], Awaitable[None]]
        if isinstance(stream, on_asyncio.Stream):
            self._receive, self._send = stream.read, stream.write
        else:
            self._receive, self._send = stream.receive_some, stream.send_all
        self._receiving = anyio.ResourceGuard("receiving from")
        self._sending = anyio.ResourceGuard("sending to")

    @property
    def stream(self) -> AnyStream:
        """The stream itself."""
        return self._stream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive at least one byte, at most `max_bytes`. Cancelling it loses nothing.

        Raises:
            anyio.EndOfStream: the peer has ended its half.
            anyio.ClosedResourceError: this side has closed the stream, or its session.
            anyio.BrokenResourceError: the stream was reset, or the session lost.
            anyio.BusyResourceError: another task is receiving.
            ValueError: `max_bytes` is below 1.
        """
        if max_bytes < 1:
            raise ValueError("max_bytes must be a positive integer")
        await anyio.lowlevel.checkpoint()
        with self._receiving, _anyio_errors():
            data = await self._receive(max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Queue all of `item`, after waiting until `Config.write_high_water` allows.

        Cancelled, nothing of it was queued.

        Raises:
            anyio.ClosedResourceError: after `send_eof` or `aclose`.
            anyio.BrokenResourceError: the stream was reset, or the session lost.
            anyio.BusyResourceError: another task is sending.
        """
        await anyio.lowlevel.checkpoint()
        with self._sending, _anyio_errors():
            await self._send(item)

    async def send_eof(self) -> None:
        """Half-close: the end follows what was sent. Receiving goes on. Harmless if repeated.

        Raises:
            anyio.ClosedResourceError: after `aclose`.
            anyio.BusyResourceError: another task is sending.
        """
        await anyio.lowlevel.checkpoint()
        with self._sending, _anyio_errors():
            if isinstance(self._stream, on_asyncio.Stream):
                self._stream.check_open()
                self._stream.write_eof()
            else:
                await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close both directions; waits while more is queued than the peer has room for.

        Cancelled meanwhile, as by `anyio.aclose_forcefully`, it drops what is queued and resets
        the stream. Harmless if repeated.
        """
        if isinstance(self._stream, on_asyncio.Stream):
            await self._stream.__aexit__(None, None, None)
            await anyio.lowlevel.checkpoint()
        else:
            await self._stream.aclose()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        # An end would make what the exception cut off look whole.
        await self._stream.__aexit__(exc_type, exc_val, exc_tb)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The addresses of the session's connection, where it has them."""
        return _addresses(self._stream.session)


class StreamListener(anyio.abc.Listener[ByteStream]):
    """A session as an `anyio.abc.Listener` of the streams that the peer opens.

    Closing it only ends `serve`: the session and its streams go on.

    Args:
        session: a `muxado.Session` or a `muxado.trio.Session`.
    """

    def __init__(self, session: AnySession) -> None:
        self._session = session
        self._scopes: set[anyio.CancelScope] = set()
        self._closed = False

    async def serve(
        self,
        handler: Callable[[ByteStream], Any],
        task_group: anyio.abc.TaskGroup | None = None,
    ) -> None:
        """Run `handler(stream)` for every stream in a task of its own.

        A handler closes its stream itself, and its exception is the task group's, as with all
        of anyio's listeners. Cancelled, it cancels the handlers, those in a group of the
        caller's excepted.

        Args:
            handler: an async function, called with a `ByteStream`.
            task_group: where the handlers run; one of this call's own if None is given.

        Returns:
            when the session has ended in order, or the listener was closed, and the handlers in
            a group of its own are done.

        Raises:
            anyio.ClosedResourceError: the listener was closed before.
            anyio.BrokenResourceError: the session ended otherwise.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        if task_group is not None:
            await self._accept(handler, task_group)
            return
        broken: anyio.BrokenResourceError | None = None
        async with anyio.create_task_group() as own_group:
            try:
                await self._accept(handler, own_group)
            except anyio.BrokenResourceError as exc:
                broken = exc  # raised below, or the group would wrap it
        if broken is not None:
            raise broken

    async def _accept(
        self, handler: Callable[[ByteStream], Any], task_group: anyio.abc.TaskGroup
    ) -> None:
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                with _anyio_errors():
                    async for stream in self._session:
                        task_group.start_soon(handler, ByteStream(stream))
                        del stream
            finally:
                self._scopes.discard(scope)

    async def aclose(self) -> None:
        """Accept no further stream."""
        self._closed = True
        for scope in self._scopes:
            scope.cancel()
        await anyio.lowlevel.checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The addresses of the session's connection, where it has them."""
        return _addresses(self._session)


@contextmanager
def _anyio_errors() -> Iterator[None]:
    """Turn muxado's errors, and trio's that they caused, into anyio's."""
    try:
        yield
    except Exception as exc:
        cause = exc if isinstance(exc, MuxadoError) else exc.__cause__
        if not isinstance(cause, MuxadoError):
            raise
        error = anyio.ClosedResourceError if cause.closed_here else anyio.BrokenResourceError
        raise error(str(cause)) from cause


def _addresses(session: AnySession) -> dict[Any, Callable[[], Any]]:
    local, remote = session.local_address, session.remote_address
    attributes: dict[Any, Callable[[], Any]] = {}
    if local is not None:
        attributes[anyio.abc.SocketAttribute.local_address] = lambda: local
    if remote is not None:
        attributes[anyio.abc.SocketAttribute.remote_address] = lambda: remote
    return attributes
