"""Listening for sessions, for trio."""

from __future__ import annotations

import errno
import logging
import os
import ssl as ssl_module
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from ..config import Config
from ..endpoint import HANDSHAKE_TIMEOUT, MOST_PENDING, check_place, server_context
from ..errors import ErrorCode, MuxadoError
from .session import Session, run_session

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Listener", "listen", "serve"]

logger: logging.Logger = logging.getLogger("muxado")

# What `accept` may fail with for one connection, or for a while; the next may go well.
PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED}
PAUSE = 0.1


class Listener(trio.abc.Listener[Session]):
    """Listens for sessions and hands them out, one per connection. See `listen`.

    Iterating over it gives sessions until it is closed. They live in the nursery of the
    listener's block, and its end closes them in order, or aborts them if it raises.
    """

    def __init__(self, sockets: list[trio.socket.SocketType]) -> None:
        """Not for users."""
        self._sockets = sockets
        self._addresses = [sock.getsockname() for sock in sockets]
        self._send, self._receive = trio.open_memory_channel[Session](0)
        self._scope = trio.CancelScope()

    @property
    def addresses(self) -> list[Any]:
        """The addresses that are listened on, as `getsockname()` gives them."""
        return list(self._addresses)

    async def accept(self) -> Session:
        """Wait for the next session, its handshake done. Cancelling it loses none.

        Raises:
            trio.ClosedResourceError: the listener is closed.
        """
        try:
            return await self._receive.receive()
        except trio.EndOfChannel as exc:
            raise trio.ClosedResourceError("the listener is closed") from exc

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Session:
        try:
            return await self.accept()
        except trio.ClosedResourceError:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Stop listening. The sessions that were accepted go on until the block ends."""
        self._scope.cancel()
        for sock in self._sockets:
            sock.close()
        await self._receive.aclose()


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
    task_status: trio.TaskStatus[list[Any]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen, and run `handler(session)` for each session in a task of its own, until cancelled.

    Use ``addresses = await nursery.start(serve, handler, host, port)`` to go on once it listens.
    A handler that returns closes its session; one that raises aborts it, and is logged. A
    failing handshake is logged and hurts nobody else.

    Args:
        handler: an async function.
        host: the address to listen on; all of them if only `port` is given.
        port: the TCP port, 0 for any free one.
        path: listen on this Unix socket instead.
        sock: listen on this bound trio socket instead.
        ssl: for TLS, a context with a certificate; for mutual TLS, one that demands the
            client's too (`verify_mode`).
        config: the sessions' settings.
        backlog: connections that the kernel keeps waiting.
        task_status: told the addresses once it listens.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given.
        OSError: the address can't be listened on.
    """
    check_place(host, port, path, sock)
    context = server_context(ssl)
    sockets = await _bind(host, port, path, sock, backlog)

    async def run(session: Session, slot: _Slot) -> None:
        slot.release()
        try:
            await handler(session)
        except Exception as exc:
            if isinstance(exc, MuxadoError) or isinstance(exc.__cause__, MuxadoError):
                logger.info("%r: %s", session, exc)
            else:
                logger.exception("the handler of %r failed", session)
            session.abort(ErrorCode.INTERNAL_ERROR)

    async with trio.open_nursery() as nursery:
        task_status.started([sock.getsockname() for sock in sockets])
        for listening in sockets:
            nursery.start_soon(_accept, nursery, listening, context, config, run)


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
    """Listen for sessions to `accept()`: ``async with listen(...) as listener``. See `serve`."""
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
    listener = Listener(await _bind(host, port, path, sock, backlog))
    accepted: set[Session] = set()
    failure: BaseException | None = None

    async def hand_out(session: Session, slot: _Slot) -> None:
        try:
            await listener._send.send(session)
        except trio.BrokenResourceError:  # the listener is closed
            session.abort()
            return
        slot.release()
        accepted.add(session)
        await session.wait_closed()
        accepted.discard(session)

    async with trio.open_nursery() as nursery:
        for listening in listener._sockets:
            nursery.start_soon(
                _accept, nursery, listening, context, config, hand_out, listener._scope
            )
        try:
            yield listener
            for session in accepted:
                session.close()
            for session in list(accepted):
                await session.wait_closed()
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
            await sock.bind(os.fspath(path))
        except BaseException:
            sock.close()
            raise
    if sock is not None:
        sock.listen(backlog)
        return [sock]
    listeners = await trio.open_tcp_listeners(port or 0, host=host, backlog=backlog)
    return [listener.socket for listener in listeners]


class _Slot:
    """The right of one connection to be in its handshake, or to wait to be accepted."""

    def __init__(self, slots: trio.Semaphore) -> None:
        self._slots: trio.Semaphore | None = slots

    def release(self) -> None:
        """Give it back. Harmless if repeated."""
        if self._slots is not None:
            self._slots.release()
            self._slots = None


Run = Callable[[Session, _Slot], Awaitable[None]]


async def _accept(
    nursery: trio.Nursery,
    listening: trio.socket.SocketType,
    context: ssl_module.SSLContext | None,
    config: Config | None,
    run: Run,
    scope: trio.CancelScope | None = None,
) -> None:
    """Accept connections, and run a session over each."""
    slots = trio.Semaphore(MOST_PENDING)
    with scope or trio.CancelScope(), listening:
        while True:
            await slots.acquire()
            try:
                sock, peer = await listening.accept()
            except OSError as exc:
                slots.release()
                if exc.errno not in PASSING:
                    raise
                logger.warning("accepting a connection failed: %s", exc)
                await trio.sleep(PAUSE)  # out of descriptors, say: others may free some
                continue
            nursery.start_soon(_run, sock, peer, context, config, run, _Slot(slots))


async def _run(
    sock: trio.socket.SocketType,
    peer: Any,
    context: ssl_module.SSLContext | None,
    config: Config | None,
    run: Run,
    slot: _Slot,
) -> None:
    transport: trio.abc.Stream = trio.SocketStream(sock)
    try:
        if context is not None:
            secured = trio.SSLStream(transport, context, server_side=True)
            try:
                with trio.fail_after(HANDSHAKE_TIMEOUT):
                    await secured.do_handshake()
            except (trio.BrokenResourceError, trio.TooSlowError, OSError) as exc:
                logger.info("handshake with %s failed: %r", peer, exc.__cause__ or exc)
                return
            transport = secured
        async with run_session(transport, client=False, config=config) as session:
            await run(session, slot)
    finally:
        slot.release()
        await trio.aclose_forcefully(transport)
