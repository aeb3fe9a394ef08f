"""Listening for sessions: `Listener` hands them out, `Server` runs a handler for each."""

from __future__ import annotations

import logging
import os
import ssl as ssl_module
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from ..config import Config
from ..endpoint import check_place, free_path, server_context
from ..errors import ErrorCode, MuxadoError
from .door import Door, Slot
from .session import Session

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Listener", "Server", "listen", "serve"]

logger: logging.Logger = logging.getLogger("muxado")


class _Listening:
    """What `Listener` and `Server` share: where they are."""

    _door: Door

    @property
    def sockets(self) -> tuple[trio.socket.SocketType, ...]:
        """The listening sockets, () once closed."""
        return self._door.sockets

    @property
    def addresses(self) -> list[Any]:
        """The addresses that are listened on, as `getsockname()` gives them; [] once closed."""
        return self._door.addresses


class Listener(_Listening, trio.abc.Listener[Session]):
    """Listens for sessions and hands them out, one per connection. See `listen`.

    Iterating over it gives sessions until it is closed. They live in the nursery of the
    listener's block, and its end closes them in order, or aborts them if it raises.
    """

    def __init__(
        self,
        sockets: list[trio.socket.SocketType],
        context: ssl_module.SSLContext | None,
        config: Config | None,
    ) -> None:
        """Not for users."""
        self._door = Door(sockets, context, config, self._hand_out)
        self._accepted: set[Session] = set()
        self._send, self._receive = trio.open_memory_channel[Session](0)

    async def accept(self) -> Session:
        """Wait for the next session, its handshake done. Cancelling it loses none.

        Raises:
            trio.ClosedResourceError: the listener is closed.
        """
        try:
            session = await self._receive.receive()
        except trio.EndOfChannel as exc:
            raise trio.ClosedResourceError("the listener is closed") from exc
        self._accepted.add(session)  # here, for the block may end before the session's task runs
        return session

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Session:
        try:
            return await self.accept()
        except trio.ClosedResourceError:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Stop listening, and abort the sessions that nobody has accepted.

        Those that were accepted go on until the block ends. Harmless if repeated.
        """
        self._door.close()
        await self._receive.aclose()

    async def _hand_out(self, session: Session, slot: Slot) -> None:
        try:
            await self._send.send(session)
        except trio.BrokenResourceError:  # the listener is closed
            session.abort()
            return
        slot.release()
        await session.wait_closed()
        self._accepted.discard(session)

    async def _close_accepted(self) -> None:
        for session in self._accepted:
            session.close()
        for session in list(self._accepted):
            await session.wait_closed()


class Server(_Listening):
    """Listens for sessions, and runs a handler for each in a task of its own; from `serve`."""

    def __init__(
        self,
        handler: Callable[[Session], Awaitable[object]],
        sockets: list[trio.socket.SocketType],
        context: ssl_module.SSLContext | None,
        config: Config | None,
    ) -> None:
        """Not for users."""
        self._handler = handler
        self._door = Door(sockets, context, config, self._handle)
        self._handlers: dict[Session, trio.CancelScope] = {}
        self._closing = trio.Event()
        self._over = trio.Event()

    @property
    def sessions(self) -> list[Session]:
        """The sessions that live."""
        return [session for session in self._handlers if not session.closed]

    def close(self) -> None:
        """Stop listening, and close every session in order. Harmless if repeated."""
        self._door.close()
        for session in self._handlers:
            session.close()
        self._closing.set()

    async def wait_closed(self) -> None:
        """Wait until the server is closed, its sessions are gone and the handlers done.

        A handler that goes on without its session is cancelled after `Config.close_timeout`.
        """
        await self._over.wait()

    async def shutdown(self, timeout: float | None = 30.0) -> None:
        """Stop listening, and let every session come to its end: see `Session.shutdown`.

        Cancelled before they are done, it leaves them draining.

        Args:
            timeout: seconds for the streams that are open; then their session is aborted. None
                waits for as long as they take.
        """
        self._door.close()
        async with trio.open_nursery() as nursery:
            for session in self.sessions:
                nursery.start_soon(session.shutdown, timeout)
        self.close()
        await self.wait_closed()

    async def _run(self, task_status: trio.TaskStatus[Server]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._door.open(nursery)
                task_status.started(self)
                await self._closing.wait()
                for session, scope in list(self._handlers.items()):
                    await session.wait_closed()
                    scope.deadline = trio.current_time() + session.config.close_timeout
        finally:
            self._door.close()
            self._over.set()

    async def _handle(self, session: Session, slot: Slot) -> None:
        slot.release()
        with trio.CancelScope() as scope:
            self._handlers[session] = scope
            try:
                await self._handler(session)
            except Exception as exc:
                if isinstance(exc, MuxadoError) or isinstance(exc.__cause__, MuxadoError):
                    logger.info("%r: %s", session, exc)
                else:
                    logger.exception("the handler of %r failed", session)
                session.abort(ErrorCode.INTERNAL_ERROR)
            finally:
                del self._handlers[session]


async def serve(
    handler: Callable[[Session], Awaitable[object]],
    host: str | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: trio.socket.SocketType | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    backlog: int = 128,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen, and run `handler(session)` for each session in a task of its own.

    Use ``server = await nursery.start(serve, handler, host, port)`` to go on once it listens,
    and `Server.shutdown` to end it gracefully. Cancelled, it aborts every session.

    A handler that returns closes its session; one that raises aborts it, and is logged. A
    failing handshake is logged and hurts nobody else.

    Args:
        handler: an async function.
        host: the address to listen on; all of them if only `port` is given.
        port: the TCP port, 0 for any free one (see `Server.addresses`).
        path: listen on this Unix socket instead.
        sock: listen on this bound trio socket instead.
        ssl: for TLS, a context with a certificate; for mutual TLS, one that demands the
            client's too (`verify_mode`).
        config: the sessions' settings.
        backlog: connections that the kernel keeps waiting.
        task_status: given the `Server` once it listens.

    Returns:
        when the server was closed, its sessions are gone and the handlers done.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given.
        OSError: the address can't be listened on.
    """
    check_place(host, port, path, sock)
    context = server_context(ssl)
    sockets = await _bind(host, port, path, sock, backlog)
    await Server(handler, sockets, context, config)._run(task_status)


def listen(
    host: str | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: trio.socket.SocketType | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    backlog: int = 128,
) -> AbstractAsyncContextManager[Listener]:
    """Listen for sessions to `accept()`: ``async with listen(...) as listener``.

    Args:
        host: the address to listen on; all of them if only `port` is given.
        port: the TCP port, 0 for any free one (see `Listener.addresses`).
        path: listen on this Unix socket instead.
        sock: listen on this bound trio socket instead.
        ssl: for TLS, a context with a certificate, as for `serve`.
        config: the sessions' settings.
        backlog: connections that the kernel keeps waiting.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given.
        OSError: the address can't be listened on; raised when the block is entered.
    """
    check_place(host, port, path, sock)
    return _listen(host, port, path, sock, server_context(ssl), config, backlog)


@asynccontextmanager
async def _listen(
    host: str | None,
    port: int | None,
    path: str | os.PathLike[str] | None,
    sock: trio.socket.SocketType | None,
    context: ssl_module.SSLContext | None,
    config: Config | None,
    backlog: int,
) -> AsyncIterator[Listener]:
    listener = Listener(await _bind(host, port, path, sock, backlog), context, config)
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        listener._door.open(nursery)
        try:
            yield listener
            await listener._close_accepted()
        except BaseException as exc:
            failure = exc  # raised below, or the nursery would wrap it into a group
        with trio.CancelScope(shield=True):
            await listener.aclose()
        nursery.cancel_scope.cancel()
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # a cycle otherwise


async def _bind(
    host: str | None,
    port: int | None,
    path: str | os.PathLike[str] | None,
    sock: trio.socket.SocketType | None,
    backlog: int,
) -> list[trio.socket.SocketType]:
    if path is not None:
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        try:
            await sock.bind(free_path(path))
        except BaseException:
            sock.close()
            raise
    if sock is not None:
        sock.listen(backlog)
        return [sock]
    listeners = await trio.open_tcp_listeners(port or 0, host=host, backlog=backlog)
    return [listener.socket for listener in listeners]
