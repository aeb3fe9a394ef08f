"""Listening for sessions: `Listener` hands them out, `Server` runs a handler for each."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl as ssl_module
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ..admission import Admission
from ..config import Config
from ..endpoint import (
    BACKLOG,
    Place,
    check_handler,
    describe,
    listen_place,
)
from ..errors import SessionClosed
from ..front_end import log_session_failure
from ..snapshots import ServerStats
from .acceptor import Acceptor, GreetingLink
from .awaitable import AwaitableContext, can_wait
from .driver import Driver
from .reaching import TLS_OPTIONS, tls_options
from .session import Session
from .stream import Stream
from .wait_queue import WaitQueue

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Listener", "Server", "listen", "serve", "serve_streams"]

logger: logging.Logger = logging.getLogger("muxado")

ListeningT = TypeVar("ListeningT", bound="_Listening")


class _Listening:
    """What `Listener` and `Server` share: the acceptor, and its addresses."""

    _acceptor: Acceptor

    async def _open(
        self,
        config: Config | None,
        place: Place,
        admission: Admission,
        kwds: dict[str, Any],
        new_link: Callable[[Driver], GreetingLink] | None,
    ) -> Self:
        tls = {name: kwds.pop(name) for name in TLS_OPTIONS if name in kwds}
        self._acceptor = Acceptor(self._arrived, config, place, tls, admission, new_link)
        await self._acceptor.open(kwds)
        return self

    def _arrived(self, session: Session) -> None:
        raise NotImplementedError

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets, () once closed."""
        return self._acceptor.sockets

    @property
    def addresses(self) -> list[Any]:
        """The addresses that are listened on, as `getsockname()` gives them."""
        return [sock.getsockname() for sock in self.sockets]

    def __repr__(self) -> str:
        opened = hasattr(self, "_acceptor")
        return describe(self, self.addresses if opened else (), self._count())

    def _count(self) -> int:
        """Return how many sessions there are."""
        raise NotImplementedError


class Listener(_Listening):
    """Listens for sessions and hands them out, one per connection. See `listen`.

    As an async context manager it is closed at the end of the block; iterating over it gives
    sessions until it is closed. The sessions are the caller's, and outlive it.
    """

    def __init__(self) -> None:
        """Not for users."""
        self._sessions: deque[Session] = deque()
        self._acceptors = WaitQueue()
        self._closed = False

    def _count(self) -> int:
        return len(self._sessions)

    async def accept(self) -> Session:
        """Wait for the next session, its handshake done. Cancelling it loses none.

        Raises:
            SessionClosed: the listener is closed.
        """
        while True:
            if self._closed:
                raise SessionClosed("the listener is closed")
            if self._sessions:
                self._acceptor.taken()
                return self._sessions.popleft()
            await self._acceptors.wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Session:
        try:
            return await self.accept()
        except SessionClosed:
            raise StopAsyncIteration from None

    def close(self) -> None:
        """Stop listening; sessions that were not accepted are aborted. Harmless if repeated."""
        self._closed = True
        self._acceptor.close()
        for session in self._sessions:
            session.abort()
        self._acceptors.wake_all()

    async def wait_closed(self) -> None:
        """Wait until nothing of the listener is left."""
        await self._acceptor.wait_closed()
        for session in self._sessions:
            await session.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not can_wait():
            return
        self.close()
        await self.wait_closed()

    def _arrived(self, session: Session) -> None:
        self._sessions.append(session)
        self._acceptors.wake()


class Server(_Listening):
    """Listens for sessions, and runs a handler for each in a task of its own. See `serve`.

    As an async context manager it is closed at the end of the block, with its sessions.
    """

    def __init__(self, handler: Callable[[Session], Awaitable[object]]) -> None:
        """Not for users."""
        self._handler = handler
        self._tasks: dict[asyncio.Task[None], Session] = {}
        self._closing = asyncio.Event()

    def _count(self) -> int:
        return len(self.sessions)

    @property
    def sessions(self) -> list[Session]:
        """The sessions that live."""
        return [session for session in self._tasks.values() if not session.closed]

    def stats(self) -> ServerStats:
        """Return what the server has done so far, and what it holds.

        It may be called from any thread.
        """
        return self._acceptor.stats()

    def stop_listening(self) -> None:
        """Take no more connections; the sessions that are there go on. Harmless if repeated."""
        self._acceptor.close()

    def close(self) -> None:
        """Stop listening, and close every session in order. Harmless if repeated."""
        self._closing.set()
        self._acceptor.close()
        for session in self._tasks.values():
            session.close()

    async def wait_closed(self) -> None:
        """Wait until the server is closed, its sessions are gone and the handlers done.

        A handler that goes on without its session is cancelled after `Config.close_timeout`; one
        that goes on all the same is left to itself after another one, which is logged.
        """
        await self._closing.wait()
        await self._acceptor.wait_closed()
        ending = [self._end(task, session) for task, session in self._tasks.items()]
        await asyncio.gather(*ending)

    async def shutdown(self, timeout: float | None = 30.0) -> None:
        """Stop listening, and let every session come to its end: see `Session.shutdown`.

        Args:
            timeout: seconds for the streams that are open; then their session is aborted.
        """
        self._acceptor.close()
        sessions = self._tasks.values()
        await asyncio.gather(*[session.shutdown(timeout) for session in sessions])
        self.close()
        await self.wait_closed()

    async def serve_forever(self) -> None:
        """Serve until the server is closed, or this call is cancelled, which closes it."""
        try:
            await self.wait_closed()
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not can_wait():
            return
        self.close()
        if exc_type is not None:
            for task, session in self._tasks.items():
                session.abort()
                task.cancel()
        await self.wait_closed()

    def _arrived(self, session: Session) -> None:
        self._acceptor.taken()
        task = asyncio.get_running_loop().create_task(
            self._run(session), name=f"muxado session {session.remote_address}"
        )
        self._tasks[task] = session
        task.add_done_callback(self._done)

    async def _end(self, task: asyncio.Task[None], session: Session) -> None:
        await session.wait_closed()
        for _ in range(2):
            await asyncio.wait([task], timeout=session.config.close_timeout)
            if task.done():
                return
            task.cancel()
        logger.warning("the handler of %r goes on although it was cancelled: it is left", session)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]

    async def _run(self, session: Session) -> None:
        try:
            async with session:
                await self._handler(session)
        except Exception as exc:
            log_session_failure(session, exc)


def serve(
    handler: Callable[[Session], Awaitable[object]],
    host: str | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    max_sessions: int | None = None,
    max_receive_memory: int | None = None,
    proxy_protocol: Sequence[str] | None = None,
    reuse_port: bool = False,
    **kwds: Any,
) -> AwaitableContext[Server]:
    """Listen, and run `handler(session)` for each session. Await it, or use `async with`.

    A handler that returns closes its session; one that raises aborts it, and is logged. A
    failing handshake is logged and affects no other client. `serve_streams` takes a handler of
    streams instead.

    Args:
        handler: a coroutine function.
        host: the address to listen on; all of them if only `port` is given.
        port: the TCP port, 0 for any free one (see `Server.addresses`).
        path: listen on this Unix socket instead.
        sock: listen on this socket instead.
        ssl: for TLS, a context with a certificate; for mutual TLS, one that demands the
            client's too (`verify_mode`).
        config: the sessions' settings.
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
        kwds: further arguments of the loop's `create_server` or `create_unix_server`.

    Returns:
        an awaitable that gives the `Server`.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given, or a limit can't be.
        OSError: the address can't be listened on.
    """
    check_handler(handler)
    admission = Admission(max_sessions, max_receive_memory)
    start = starter(
        Server(handler),
        host,
        port,
        path,
        sock,
        ssl,
        config,
        proxy_protocol,
        reuse_port,
        admission,
        kwds,
    )
    return AwaitableContext("serve", start)


def serve_streams(
    handler: Callable[[Stream], Awaitable[object]],
    host: str | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    max_sessions: int | None = None,
    max_receive_memory: int | None = None,
    proxy_protocol: Sequence[str] | None = None,
    reuse_port: bool = False,
    limit: int | None = None,
    cancel_on_reset: bool = False,
    **kwds: Any,
) -> AwaitableContext[Server]:
    """Listen, and run `handler(stream)` for each stream of each session, in a task of its own.

    Await it, or use it with `async with`. A handler that returns closes its stream; one that
    raises resets it, and is logged.

    Args:
        handler: a coroutine function.
        host: where to listen, as for `serve`, and so are the following.
        port: see there.
        path: see there.
        sock: see there.
        ssl: see there.
        config: see there.
        max_sessions: see there.
        max_receive_memory: see there.
        proxy_protocol: see there.
        reuse_port: see there.
        limit: how many handlers may run at once for one session; its further streams wait.
        cancel_on_reset: cancel a handler when the peer resets its stream; see `Session.serve`.
        kwds: as for `serve`.

    Returns:
        an awaitable that gives the `Server`.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given.
        OSError: the address can't be listened on.
    """
    check_handler(handler)

    async def run(session: Session) -> None:
        await session.serve(handler, limit=limit, cancel_on_reset=cancel_on_reset)

    admission = Admission(max_sessions, max_receive_memory)
    start = starter(
        Server(run),
        host,
        port,
        path,
        sock,
        ssl,
        config,
        proxy_protocol,
        reuse_port,
        admission,
        kwds,
    )
    return AwaitableContext("serve_streams", start)


def listen(
    host: str | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    proxy_protocol: Sequence[str] | None = None,
    reuse_port: bool = False,
    **kwds: Any,
) -> AwaitableContext[Listener]:
    """Listen for sessions to `accept()`. Await it, or use it with `async with`. See `serve`."""
    start = starter(
        Listener(),
        host,
        port,
        path,
        sock,
        ssl,
        config,
        proxy_protocol,
        reuse_port,
        Admission(),
        kwds,
    )
    return AwaitableContext("listen", start)


def starter(
    listening: ListeningT,
    host: str | Sequence[str] | None,
    port: int | None,
    path: str | os.PathLike[str] | None,
    sock: socket.socket | None,
    ssl: ssl_module.SSLContext | None,
    config: Config | None,
    proxy_protocol: Sequence[str] | None,
    reuse_port: bool,
    admission: Admission,
    kwds: dict[str, Any],
    new_link: Callable[[Driver], GreetingLink] | None = None,
) -> Callable[[], Coroutine[Any, Any, ListeningT]]:
    """Check the arguments of `listen`, and return what starts to listen.

    Args:
        listening: what hands the sessions out.
        host: as for `listen`, and so are the following.
        port: see there.
        path: see there.
        sock: see there.
        ssl: see there.
        config: see there.
        proxy_protocol: see there.
        reuse_port: see there.
        admission: limits over all sessions.
        kwds: see `listen`.
        new_link: makes what carries a session, for connections that begin with a handshake of
            their own; by default the sessions' bytes are the connections'.
    """
    backlog = kwds.setdefault("backlog", BACKLOG)
    place = listen_place(host, port, path, sock, ssl, backlog, config, proxy_protocol, reuse_port)
    kwds |= tls_options(kwds, place.context)
    kwds["sock"] = place.sock
    if place.path is not None:
        kwds["path"] = place.path
    elif place.sock is None:
        hosts = place.hosts
        # None where it is not asked for: some systems don't have it.
        kwds["reuse_port"] = place.reuse_port or None
        kwds |= {"host": hosts if hosts != [None] else None, "port": place.port}
    return partial(listening._open, config, place, admission, kwds, new_link)
