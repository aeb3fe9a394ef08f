"""Listening for sessions: `Listener` hands them out, `Server` runs a handler for each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl as ssl_module
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..config import Config
from ..endpoint import HANDSHAKE_TIMEOUT, MOST_PENDING, check_place, server_context
from ..errors import MuxadoError, SessionClosed
from .link import TransportLink
from .opening import Opening
from .session import Session, new_session

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Listener", "Server", "listen", "serve"]

logger: logging.Logger = logging.getLogger("muxado")


class _Arrival(asyncio.Protocol):
    """Takes a new connection off the loop again, unread, until it has its turn.

    A transport that is only paused won't do: uvloop begins to read after `connection_made`
    all the same, and the start of a TLS handshake would be lost.
    """

    def __init__(self, door: _Door) -> None:
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        try:
            sock: socket.socket = transport.get_extra_info("socket").dup()
        except OSError as exc:
            logger.warning("a connection was dropped: %s", exc)  # no descriptor is left
            return
        finally:
            transport.abort()  # type: ignore[attr-defined]
        self._door.admit(sock)


class _Door:
    """Accepts connections and makes sessions of them; the common part of both listeners."""

    def __init__(
        self,
        on_session: Callable[[Session], None],
        config: Config | None,
        context: ssl_module.SSLContext | None,
        tls_options: dict[str, Any],
    ) -> None:
        self._on_session = on_session
        self._config = config or Config()
        self._context = context
        self._tls_options = tls_options
        self._timeout = tls_options.get("ssl_handshake_timeout", HANDSHAKE_TIMEOUT)
        self._server: asyncio.Server | None = None
        self._handshakes: dict[asyncio.Task[None], socket.socket] = {}
        self._closed = False
        self.slots = asyncio.Semaphore(MOST_PENDING)

    async def open(self, kwds: dict[str, Any]) -> None:
        """Start to listen where and how the arguments of the loop's `create_server` say."""
        loop = asyncio.get_running_loop()
        arrival = partial(_Arrival, self)
        sock = kwds["sock"]
        unix = sock is not None and sock.family == getattr(socket, "AF_UNIX", None)
        # Started on its own: cancelled in the midst, asyncio would leave it listening for ever.
        start = kwds.pop("start_serving", True)
        if "path" in kwds or unix:
            server = await loop.create_unix_server(arrival, start_serving=False, **kwds)
        else:
            server = await loop.create_server(arrival, start_serving=False, **kwds)
        self._server = server
        if start:
            try:
                await server.start_serving()
            except BaseException:
                server.close()
                raise

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets."""
        return tuple(self._server.sockets) if self._server is not None else ()

    def close(self) -> None:
        """Stop listening, and give up on connections that are still in their handshake."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        for task, sock in self._handshakes.items():
            # Cancelled in its handshake, asyncio's TLS would leave its transport behind.
            if not task.done():
                hang_up(sock)
                self.slots.release()

    async def wait_closed(self) -> None:
        """Wait until nothing of the above is left."""
        if self._handshakes:
            await asyncio.wait(self._handshakes)

    def admit(self, sock: socket.socket) -> None:
        """Take in a new connection."""
        if self._closed:
            sock.close()
            return
        task = asyncio.get_running_loop().create_task(
            self._handshake(sock), name="muxado handshake"
        )
        self._handshakes[task] = sock
        task.add_done_callback(self._handshakes.pop)

    async def _handshake(self, sock: socket.socket) -> None:
        admitted = False
        peer: object = None
        try:
            peer = sock.getpeername()
            async with asyncio.timeout(self._timeout):
                await self.slots.acquire()
                admitted = True
                session, driver = new_session(client=False, config=self._config)
                link = TransportLink(driver)
                await driver.loop.connect_accepted_socket(
                    lambda: link,
                    sock,
                    ssl=self._context,
                    **(self._tls_options if self._context else {}),
                )
        except BaseException as exc:
            if admitted:
                self.slots.release()
                hang_up(sock)  # its transport closes it
            else:
                sock.close()
            if not isinstance(exc, Exception):
                raise
            if isinstance(exc, OSError | EOFError):  # TimeoutError and ssl.SSLError too
                logger.info("handshake with %s failed: %r", peer, exc)
            else:
                logger.exception("handshake with %s failed", peer)
            return
        if self._closed:
            session.abort()
            await session.wait_closed()
            return
        self._on_session(session)


def hang_up(sock: socket.socket) -> None:
    """End a connection both ways, and leave its socket to who owns it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class _Listening:
    """What `Listener` and `Server` share: the door, and where it is."""

    _door: _Door

    async def _open(
        self, config: Config | None, context: ssl_module.SSLContext | None, kwds: dict[str, Any]
    ) -> Self:
        # These concern a connection's TLS, not the listening socket.
        names = ("ssl_handshake_timeout", "ssl_shutdown_timeout")
        options = {name: kwds.pop(name) for name in names if kwds.get(name) is not None}
        self._door = _Door(self._arrived, config, context, options)
        await self._door.open(kwds)
        return self

    def _arrived(self, session: Session) -> None:
        raise NotImplementedError

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets, () once closed."""
        return self._door.sockets

    @property
    def addresses(self) -> list[Any]:
        """The addresses that are listened on, as `getsockname()` gives them."""
        return [sock.getsockname() for sock in self.sockets]


class Listener(_Listening):
    """Listens for sessions and hands them out, one per connection. See `listen`.

    As an async context manager it is closed at the end of the block; iterating over it gives
    sessions until it is closed. The sessions are the caller's, and outlive it.
    """

    def __init__(self) -> None:
        """Not for users."""
        self._sessions: deque[Session] = deque()
        self._acceptors: deque[asyncio.Future[None]] = deque()
        self._closed = False

    async def accept(self) -> Session:
        """Wait for the next session, its handshake done. Cancelling it loses none.

        Raises:
            SessionClosed: the listener is closed.
        """
        while True:
            if self._closed:
                raise SessionClosed("the listener is closed")
            if self._sessions:
                self._door.slots.release()
                return self._sessions.popleft()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._acceptors.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if not waiter.cancelled():
                    self._wake()
                elif waiter in self._acceptors:
                    self._acceptors.remove(waiter)
                raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Session:
        try:
            return await self.accept()
        except SessionClosed:
            raise StopAsyncIteration from None

    def close(self) -> None:
        """Stop listening; sessions that nobody has accepted are aborted. Harmless if repeated."""
        self._closed = True
        self._door.close()
        for session in self._sessions:
            session.abort()
        while self._acceptors:
            self._wake()

    async def wait_closed(self) -> None:
        """Wait until nothing of the listener is left."""
        await self._door.wait_closed()
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
        self.close()
        await self.wait_closed()

    def _arrived(self, session: Session) -> None:
        self._sessions.append(session)
        self._wake()

    def _wake(self) -> None:
        while self._acceptors:
            waiter = self._acceptors.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class Server(_Listening):
    """Listens for sessions, and runs a handler for each in a task of its own. See `serve`.

    As an async context manager it is closed at the end of the block, with its sessions.
    """

    def __init__(self, handler: Callable[[Session], Awaitable[object]]) -> None:
        """Not for users."""
        self._handler = handler
        self._tasks: dict[asyncio.Task[None], Session] = {}
        self._closing = asyncio.Event()

    @property
    def sessions(self) -> list[Session]:
        """The sessions that live."""
        return [session for session in self._tasks.values() if not session.closed]

    def close(self) -> None:
        """Stop listening, and close every session in order. Harmless if repeated."""
        self._closing.set()
        self._door.close()
        for session in self._tasks.values():
            session.close()

    async def wait_closed(self) -> None:
        """Wait until the server is closed, its sessions are gone and the handlers done.

        A handler that goes on without its session is cancelled after `Config.close_timeout`.
        """
        await self._closing.wait()
        await self._door.wait_closed()
        ending = [self._end(task, session) for task, session in self._tasks.items()]
        await asyncio.gather(*ending)

    async def shutdown(self, timeout: float | None = 30.0) -> None:
        """Stop listening, and let every session come to its end: see `Session.shutdown`.

        Args:
            timeout: seconds for the streams that are open; then their session is aborted.
        """
        self._door.close()
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
        self.close()
        if exc_type is not None:
            for task, session in self._tasks.items():
                session.abort()
                task.cancel()
        await self.wait_closed()

    def _arrived(self, session: Session) -> None:
        self._door.slots.release()
        task = asyncio.get_running_loop().create_task(
            self._run(session), name=f"muxado session {session.remote_address}"
        )
        self._tasks[task] = session
        task.add_done_callback(self._done)

    async def _end(self, task: asyncio.Task[None], session: Session) -> None:
        await session.wait_closed()
        await asyncio.wait([task], timeout=session.config.close_timeout)
        task.cancel()
        await asyncio.wait([task])

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]

    async def _run(self, session: Session) -> None:
        try:
            async with session:
                await self._handler(session)
        except MuxadoError as exc:
            logger.info("%r: %s", session, exc)
        except Exception:
            logger.exception("the handler of %r failed", session)


def serve(
    handler: Callable[[Session], Awaitable[object]],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    **kwds: Any,
) -> Opening[Server]:
    """Listen, and run `handler(session)` for each session. Await it, or use `async with`.

    A handler that returns closes its session; one that raises aborts it, and is logged. A
    failing handshake is logged and hurts nobody else.

    Args:
        handler: a coroutine function.
        host: the address to listen on; all of them if only `port` is given.
        port: the TCP port, 0 for any free one (see `Server.addresses`).
        path: listen on this Unix socket instead.
        sock: listen on this socket instead.
        ssl: for TLS, a context with a certificate; for mutual TLS, one that demands the
            client's too (`verify_mode`).
        config: the sessions' settings.
        kwds: further arguments of the loop's `create_server` or `create_unix_server`.

    Returns:
        an awaitable that gives the `Server`.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given.
        OSError: the address can't be listened on.
    """
    place = _place(host, port, path, sock)
    return Opening(partial(Server(handler)._open, config, server_context(ssl), kwds | place))


def listen(
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    **kwds: Any,
) -> Opening[Listener]:
    """Listen for sessions to `accept()`. Await it, or use it with `async with`. See `serve`."""
    place = _place(host, port, path, sock)
    return Opening(partial(Listener()._open, config, server_context(ssl), kwds | place))


def _place(
    host: str | Sequence[str] | None,
    port: int | None,
    path: str | os.PathLike[str] | None,
    sock: socket.socket | None,
) -> dict[str, Any]:
    check_place(host, port, path, sock)
    if path is not None:
        return {"path": os.fspath(path), "sock": None}
    return {"sock": sock} if sock is not None else {"host": host, "port": port, "sock": None}
