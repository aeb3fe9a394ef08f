"""Listening for sessions: `Listener` hands them out, `Server` runs a handler for each."""

from __future__ import annotations

import logging
import os
import socket
import ssl as ssl_module
import warnings
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import trio

from ..admission import Admission
from ..config import Config
from ..endpoint import (
    BACKLOG,
    Place,
    check_handler,
    describe,
    free_path,
    listen_at,
    listen_place,
)
from ..errors import ErrorCode
from ..front_end import log_session_failure
from ..snapshots import ServerStats
from .acceptor import Acceptor, Slot, Upgrade, run_handler
from .block import not_entered
from .errors import original
from .session import Session
from .stream import Stream

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Listener", "Server", "listen", "serve", "serve_streams"]

logger: logging.Logger = logging.getLogger("muxado")


class _Listening:
    """What `Listener` and `Server` share: where they are."""

    _acceptor: Acceptor

    @property
    def sockets(self) -> tuple[trio.socket.SocketType, ...]:
        """The listening sockets, () once closed."""
        return self._acceptor.sockets

    @property
    def addresses(self) -> list[Any]:
        """The addresses that are listened on, as `getsockname()` gives them; [] once closed."""
        return self._acceptor.addresses

    def __repr__(self) -> str:
        return describe(self, self.addresses, self._count())

    def _count(self) -> int:
        """Return how many sessions there are."""
        raise NotImplementedError


class Listener(_Listening, trio.abc.Listener[Session]):
    """Listens for sessions and hands them out, one per connection. See `listen`.

    Iterating over it gives sessions until it is closed. They live in the nursery of the
    listener's block, and its end closes them in order, or aborts them if it raises.
    """

    def __init__(
        self,
        sockets: list[trio.socket.SocketType],
        place: Place,
        config: Config | None,
    ) -> None:
        """Not for users."""
        self._acceptor = Acceptor(sockets, place, config, Admission(), self._hand_out)
        self._accepted: set[Session] = set()
        self._send, self._receive = trio.open_memory_channel[Session](0)

    def _count(self) -> int:
        return self._send.statistics().tasks_waiting_send

    @trio.lowlevel.enable_ki_protection
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

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """Stop listening, and abort the sessions that were not accepted.

        Those that were accepted go on until the block ends. Harmless if repeated.
        """
        self._acceptor.close()
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
        place: Place,
        config: Config | None,
        admission: Admission,
        upgrade: Upgrade | None = None,
    ) -> None:
        """Not for users."""
        self._handler = handler
        self._acceptor = Acceptor(sockets, place, config, admission, self._handle, upgrade)
        self._handlers: dict[Session, trio.CancelScope] = {}
        self._closing = trio.Event()
        self._over = trio.Event()

    def _count(self) -> int:
        return len(self.sessions)

    @property
    def sessions(self) -> list[Session]:
        """The sessions that live."""
        return [session for session in self._handlers if not session.closed]

    def stats(self) -> ServerStats:
        """Return what the server has done so far, and what it holds.

        It may be called from any thread.
        """
        return self._acceptor.stats()

    def close(self) -> None:
        """Stop listening, and close every session in order. Harmless if repeated."""
        self._acceptor.close()
        for session in self._handlers:
            session.close()
        self._closing.set()

    @trio.lowlevel.enable_ki_protection
    async def wait_closed(self) -> None:
        """Wait until the server is closed, its sessions are gone and the handlers done.

        A handler that goes on without its session is cancelled after `Config.close_timeout`.
        """
        await self._over.wait()

    @trio.lowlevel.enable_ki_protection
    async def shutdown(self, timeout: float | None = 30.0) -> None:
        """Stop listening, and let every session come to its end: see `Session.shutdown`.

        Cancelled before they are done, it leaves them draining.

        Args:
            timeout: seconds for the streams that are open; then their session is aborted. None
                waits for as long as they take.
        """
        self._acceptor.close()
        async with trio.open_nursery() as nursery:
            for session in self.sessions:
                nursery.start_soon(session.shutdown, timeout)
        self.close()
        await self.wait_closed()

    @trio.lowlevel.enable_ki_protection
    async def _run(self, task_status: trio.TaskStatus[Server]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._acceptor.open(nursery)
                task_status.started(self)
                await self._closing.wait()
                for session, scope in list(self._handlers.items()):
                    await session.wait_closed()
                    scope.deadline = trio.current_time() + session.config.close_timeout
        finally:
            self._acceptor.close()
            self._over.set()

    async def _handle(self, session: Session, slot: Slot) -> None:
        slot.release()
        with trio.CancelScope() as scope:
            self._handlers[session] = scope
            try:
                await run_handler(self._handler, session)
            except Exception as exc:
                log_session_failure(session, original(exc))
                session.abort(ErrorCode.INTERNAL_ERROR)
            finally:
                del self._handlers[session]


@trio.lowlevel.enable_ki_protection
async def serve(
    handler: Callable[[Session], Awaitable[object]],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: trio.socket.SocketType | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    backlog: int = BACKLOG,
    max_sessions: int | None = None,
    max_receive_memory: int | None = None,
    proxy_protocol: Sequence[str] | None = None,
    reuse_port: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen, and run `handler(session)` for each session in a task of its own.

    Use ``server = await nursery.start(serve, handler, host, port)`` to go on once it listens,
    and `Server.shutdown` to end it gracefully. Cancelled, it aborts every session.

    A handler that returns closes its session; one that raises aborts it, and is logged. A
    failing handshake is logged and affects no other client. `serve_streams` takes a handler of
    streams instead.

    Args:
        handler: an async function.
        host: the address to listen on, or a name, for all of its addresses, or a list of
            them; all addresses if only `port` is given.
        port: the TCP port, 0 for any free one (see `Server.addresses`).
        path: listen on this Unix socket instead.
        sock: listen on this bound trio socket instead.
        ssl: for TLS, a context with a certificate; for mutual TLS, one that demands the
            client's too (`verify_mode`).
        config: the sessions' settings.
        backlog: connections that the kernel keeps waiting.
        max_sessions: how many sessions may live at once. One more is ended with code 10
            (ENHANCE_YOUR_CALM), which its client sees as `SessionAborted`. None: any number.
        max_receive_memory: bytes received and not yet read that all sessions may hold together.
            What would pass it resets its own stream with code 10, as with `Config`'s limit of
            that name, which each session has besides. None: no common limit.
        proxy_protocol: the networks of proxies, such as ``["10.0.0.0/8"]``, whose connections
            begin with a PROXY header (version 1 or 2): the sessions' `remote_address` is then
            the client's. ``"unix"`` stands for all peers on a Unix socket. Connections from
            elsewhere, and those that begin with something else, are refused. None: no headers.
        reuse_port: whether other processes may listen on the same port with this argument; the
            kernel then shares the connections out among them. For host and port.
        task_status: given the `Server` once it listens.

    Returns:
        when the server was closed, its sessions are gone and the handlers done.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given, or an argument
            can't be.
        OSError: the address can't be listened on.
    """
    check_handler(handler)
    admission = Admission(max_sessions, max_receive_memory)
    kind = trio.socket.SocketType
    place = listen_place(
        host, port, path, sock, ssl, backlog, config, proxy_protocol, reuse_port, kind=kind
    )
    await run_server(handler, place, backlog, config, admission, task_status)


async def run_server(
    handler: Callable[[Session], Awaitable[object]],
    place: Place,
    backlog: int,
    config: Config | None,
    admission: Admission,
    task_status: trio.TaskStatus[Server],
    upgrade: Upgrade | None = None,
) -> None:
    """Run a server, its arguments being checked.

    Args:
        handler: as for `serve`, and so are the following.
        place: where and how it listens.
        backlog: see there.
        config: see there.
        admission: counts and limits the sessions.
        task_status: see there.
        upgrade: the handshake of what the sessions go over, where that has one of its own.
    """
    sockets = await _bind(place, backlog)
    await Server(handler, sockets, place, config, admission, upgrade)._run(task_status)


@trio.lowlevel.enable_ki_protection
async def serve_streams(
    handler: Callable[[Stream], Awaitable[object]],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: trio.socket.SocketType | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    backlog: int = BACKLOG,
    max_sessions: int | None = None,
    max_receive_memory: int | None = None,
    proxy_protocol: Sequence[str] | None = None,
    reuse_port: bool = False,
    limit: int | None = None,
    cancel_on_reset: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen, and run `handler(stream)` for each stream of each session, in a task of its own.

    Use ``server = await nursery.start(serve_streams, handler, host, port)`` to go on once it
    listens. Cancelled, it aborts every session. A handler that returns closes its stream; one
    that raises resets it, and is logged.

    Args:
        handler: an async function.
        host: where to listen, as for `serve`, and so are the following.
        port: see there.
        path: see there.
        sock: see there.
        ssl: see there.
        config: see there.
        backlog: see there.
        max_sessions: see there.
        max_receive_memory: see there.
        proxy_protocol: see there.
        reuse_port: see there.
        limit: how many handlers may run at once for one session; its further streams wait.
        cancel_on_reset: cancel a handler when the peer resets its stream; see `Session.serve`.
        task_status: given the `Server` once it listens.

    Returns:
        when the server was closed, its sessions are gone and the handlers done.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given, or an argument
            can't be.
        OSError: the address can't be listened on.
    """
    check_handler(handler)

    async def run(session: Session) -> None:
        await session.serve(handler, limit=limit, cancel_on_reset=cancel_on_reset)

    await serve(
        run,
        host,
        port,
        path=path,
        sock=sock,
        ssl=ssl,
        config=config,
        backlog=backlog,
        max_sessions=max_sessions,
        max_receive_memory=max_receive_memory,
        proxy_protocol=proxy_protocol,
        reuse_port=reuse_port,
        task_status=task_status,
    )


def listen(
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: trio.socket.SocketType | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    backlog: int = BACKLOG,
    proxy_protocol: Sequence[str] | None = None,
    reuse_port: bool = False,
) -> AbstractAsyncContextManager[Listener]:
    """Listen for sessions to `accept()`: ``async with listen(...) as listener``.

    Args:
        host: the address to listen on, or a name, for all of its addresses, or a list of
            them; all addresses if only `port` is given.
        port: the TCP port, 0 for any free one (see `Listener.addresses`).
        path: listen on this Unix socket instead.
        sock: listen on this bound trio socket instead.
        ssl: for TLS, a context with a certificate, as for `serve`.
        config: the sessions' settings.
        backlog: connections that the kernel keeps waiting.
        proxy_protocol: as for `serve`.
        reuse_port: as for `serve`.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given, or an argument
            can't be.
        OSError: the address can't be listened on; raised when the block is entered.
    """
    kind = trio.socket.SocketType
    place = listen_place(
        host, port, path, sock, ssl, backlog, config, proxy_protocol, reuse_port, kind=kind
    )

    async def begin() -> Listener:
        return Listener(await _bind(place, backlog), place, config)

    return _ListenerBlock(begin)


class _ListenerBlock(AbstractAsyncContextManager[Listener]):
    """Runs a listener for the length of an ``async with`` block.

    It is a class for the reason that `SessionBlock` has.
    """

    def __init__(self, begin: Callable[[], Awaitable[Listener]]) -> None:
        self._begin = begin
        self._entered = False

    def __getattr__(self, name: str) -> NoReturn:
        raise not_entered(name, self)

    def __del__(self) -> None:
        if not self._entered:
            message = "muxado.trio.listen() was never entered: use 'async with'"
            warnings.warn(message, RuntimeWarning, stacklevel=2, source=self)

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Listener:
        self._entered = True
        self._listener = listener = await self._begin()
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        self._scope = nursery.cancel_scope
        listener._acceptor.open(nursery)
        return listener

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        failure = exc
        listener = self._listener
        try:
            if failure is None:
                try:
                    await listener._close_accepted()
                except BaseException as caught:
                    failure = caught
            with trio.CancelScope(shield=True):
                await listener.aclose()
            self._scope.cancel()
            self._scope.shield = True
            await self._nursery.__aexit__(None, None, None)
            if failure is not None and failure is not exc:
                raise failure
        finally:
            del failure, exc  # a cycle otherwise


async def _bind(place: Place, backlog: int) -> list[trio.socket.SocketType]:
    sock: trio.socket.SocketType | None = place.sock
    if place.path is not None:
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        try:
            await sock.bind(free_path(place.path))
        except BaseException:
            sock.close()
            raise
    if sock is not None:
        sock.listen(backlog)
        return [sock]
    sockets: list[trio.socket.SocketType] = []
    try:
        for host in place.hosts:
            found = await trio.socket.getaddrinfo(
                host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            opened = listen_at(found, backlog, place.reuse_port)
            sockets += map(trio.socket.from_stdlib_socket, opened)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
