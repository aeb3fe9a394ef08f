"""Listening for sessions, for threads."""

from __future__ import annotations

import logging
import os
import socket
import ssl as ssl_module
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from functools import partial
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any

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
from ..errors import ErrorCode, SessionClosed
from ..front_end import log_session_failure
from ..snapshots import ServerStats
from .acceptor import Acceptor, Upgrade
from .locks import deadline_of, join, rest_of
from .session import Session
from .stream import Stream
from .workers import Running, submit_to

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Listener", "Server", "listen", "serve", "serve_streams"]

logger: logging.Logger = logging.getLogger("muxado")

LAST_MOMENT = 1.0  # seconds for the handlers, when their sessions have ended


class Listener:
    """Listens for sessions and hands them out, one per connection. See `listen`.

    As a context manager it is closed at the end of the block; iterating over it gives sessions
    until it is closed. The sessions are the caller's, and outlive it. One that is dropped
    unclosed is closed with a `ResourceWarning`.
    """

    def __init__(self, acceptor: Acceptor) -> None:
        """Not for users."""
        self._acceptor = acceptor
        self._addresses = [sock.getsockname() for sock in acceptor.sockets]

    def __repr__(self) -> str:
        return describe(self, self.addresses, self._acceptor.count())

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets, () once closed."""
        return () if self._acceptor.closed.is_set() else tuple(self._acceptor.sockets)

    @property
    def addresses(self) -> list[Any]:
        """The addresses that are listened on, as `getsockname()` gives them."""
        return [] if self._acceptor.closed.is_set() else list(self._addresses)

    def accept(self, timeout: float | None = None) -> Session:
        """Wait for the next session, its handshake done, and return it.

        Args:
            timeout: seconds to wait; None: for as long as it takes.

        Raises:
            TimeoutError: none came in that time.
            SessionClosed: the listener is closed.
        """
        session = None if self._acceptor.closed.is_set() else self._acceptor.next(timeout)
        if session is None:
            raise SessionClosed("the listener is closed")
        return session

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Session:
        try:
            return self.accept()
        except SessionClosed:
            raise StopIteration from None

    def close(self) -> None:
        """Stop listening; sessions that were not accepted are aborted. Harmless if repeated.

        A call that waits in `accept` raises `SessionClosed`.
        """
        self._acceptor.close()
        self._acceptor.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._acceptor.closed.is_set() or sys.is_finalizing():
            return
        try:
            message = f"unclosed listener {self!r}"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
        finally:
            self._acceptor.close()


class Server:
    """Listens for sessions, and runs a handler for each in a thread of its own. See `serve`.

    As a context manager it is closed at the end of the block, with its sessions; a handler that
    is stuck holds the end of the block up for a bounded time only (see `wait_closed`).
    """

    def __init__(
        self, listener: Listener, handler: Callable[[Session], object], executor: Executor | None
    ) -> None:
        """Not for users."""
        self._listener = listener
        self._handler = handler
        self._executor = executor
        self._sessions: Running[Session] = Running()
        self._closing = False
        self._thread = Thread(target=self._accept, name="muxado server", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return describe(self, self.addresses, len(self.sessions))

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets, () once closed."""
        return self._listener.sockets

    @property
    def addresses(self) -> list[Any]:
        """The addresses that are listened on, as `getsockname()` gives them."""
        return self._listener.addresses

    @property
    def sessions(self) -> list[Session]:
        """The sessions that live."""
        return [session for session in self._sessions.members() if not session.closed]

    def stats(self) -> ServerStats:
        """Return what the server has done so far, and what it holds.

        It may be called from any thread.
        """
        return self._listener._acceptor.stats()

    def close(self) -> None:
        """Stop listening, and close every session in order. Harmless if repeated.

        It does not wait: `wait_closed` tells when it is done.
        """
        for session in self._stop():
            session.close()

    def _stop(self) -> list[Session]:
        """Stop listening; return the sessions that are not over, closing ones included."""
        self._closing = True
        self._listener.close()
        return self._sessions.members()

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the server is closed, its sessions are gone and the handlers done.

        A handler that goes on without its session can't be stopped in a thread. Without a
        timeout it is waited for only for a bounded time after its session's end, twice
        `Config.close_timeout` and a second, and then left to itself, which is logged.

        Args:
            timeout: seconds to wait for all of it; None: no limit until the sessions have ended.

        Raises:
            TimeoutError: it took longer; nothing is changed by that.
        """
        deadline = deadline_of(timeout)
        if not join(self._thread, deadline):  # it ends when the server is closed
            raise TimeoutError("timed out")
        for session in self._sessions.members():
            session.wait_closed(rest_of(deadline))
        if deadline is not None:
            if not self._sessions.wait(rest_of(deadline)):
                raise TimeoutError("timed out")
            return
        # A session's own serve() waits for its streams' handlers for the first half of that.
        patience = 2 * self._listener._acceptor.config.close_timeout + LAST_MOMENT
        if not self._sessions.wait(patience):
            for session in self._sessions.members():
                logger.warning("the handler of %r goes on without it: it is left", session)

    def shutdown(self, timeout: float | None = 30.0) -> None:
        """Stop listening, and let every session come to its end: see `Session.shutdown`.

        Args:
            timeout: seconds for the streams that are open; then their session is aborted. None
                waits for as long as they take.

        Raises:
            TimeoutError: a handler is still at something else, a second after the timeout.
        """
        deadline = deadline_of(timeout)
        threads = [
            Thread(target=session.shutdown, args=(timeout,), daemon=True)
            for session in self._stop()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            join(thread)
        rest = rest_of(deadline)
        # A handler whose session was aborted needs a moment to notice.
        self.wait_closed(None if rest is None else rest + LAST_MOMENT)

    def serve_forever(self) -> None:
        """Serve until the server is closed from another thread, or this one is interrupted.

        An exception that comes in here, such as KeyboardInterrupt, closes the server.
        """
        try:
            self.wait_closed()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            for session in self._stop():
                session.abort()
        self.wait_closed()

    def _accept(self) -> None:
        for session in self._listener:
            self._sessions.add(session)
            if self._closing:  # `close` may not have seen this one
                session.abort()
            run = partial(self._run, session)
            try:
                if self._executor is not None:
                    submit_to(self._executor, run, partial(self._drop, session))
                else:
                    name = f"muxado session {session.remote_address}"
                    Thread(target=run, name=name, daemon=True).start()
            except RuntimeError:  # no more threads, or the executor was shut down
                logger.exception("there is no thread for %r", session)
                self._drop(session)

    def _run(self, session: Session) -> None:
        try:
            with session:
                self._handler(session)
        except Exception as exc:
            log_session_failure(session, exc)
        finally:
            self._sessions.remove(session)

    def _drop(self, session: Session) -> None:
        """End a session that no handler runs for."""
        session.abort(ErrorCode.INTERNAL_ERROR)
        self._sessions.remove(session)


def serve(
    handler: Callable[[Session], object],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    backlog: int = BACKLOG,
    max_sessions: int | None = None,
    max_receive_memory: int | None = None,
    proxy_protocol: Sequence[str] | None = None,
    reuse_port: bool = False,
    executor: Executor | None = None,
) -> Server:
    """Listen, and run `handler(session)` for each session in a thread of its own.

    A handler that returns closes its session; one that raises aborts it, and is logged. A
    failing handshake is logged and affects no other client. `serve_streams` takes a handler of
    streams instead.

    Args:
        handler: a function.
        host: the address to listen on, or a name, for all of its addresses, or a list of
            them; this machine's addresses if only `port` is given.
        port: the TCP port, 0 for any free one at each address (see `Server.addresses`).
        path: listen on this Unix socket instead. One that is there already is replaced.
        sock: listen on this bound socket instead; it is closed with the listener.
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
        executor: run the handlers there instead of in new threads. A session whose handler is
            cancelled there, before it has begun, is aborted.

    Returns:
        the server, which listens already; to be closed, or used with `with`.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given, or an argument
            can't be.
        OSError: the address can't be listened on.
        RuntimeError: no thread can be started for it.
    """
    check_handler(handler)
    admission = Admission(max_sessions, max_receive_memory, threads=True)
    place = listen_place(host, port, path, sock, ssl, backlog, config, proxy_protocol, reuse_port)
    return start_server(handler, place, backlog, config, admission, executor)


def start_server(
    handler: Callable[[Session], object],
    place: Place,
    backlog: int,
    config: Config | None,
    admission: Admission,
    executor: Executor | None,
    upgrade: Upgrade | None = None,
) -> Server:
    """Start a server, its arguments being checked.

    Args:
        handler: as for `serve`, and so are the following.
        place: where and how it listens.
        backlog: see there.
        config: see there.
        admission: counts and limits the sessions.
        executor: see there.
        upgrade: the handshake of what the sessions go over, where that has one of its own.
    """
    listener = _listen(place, backlog, config, admission, upgrade)
    try:
        return Server(listener, handler, executor)
    except BaseException:
        listener.close()
        raise


def serve_streams(
    handler: Callable[[Stream], object],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    backlog: int = BACKLOG,
    max_sessions: int | None = None,
    max_receive_memory: int | None = None,
    proxy_protocol: Sequence[str] | None = None,
    reuse_port: bool = False,
    executor: Executor | None = None,
    limit: int | None = None,
) -> Server:
    """Listen, and run `handler(stream)` for each stream of each session, in a thread of its own.

    A handler that returns closes its stream; one that raises resets it, and is logged.

    Args:
        handler: a function.
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
        executor: run the handlers of streams there instead of in new threads.
        limit: how many handlers may run at once for one session; its further streams wait. None:
            a thread for each stream; see `Session.serve`.

    Returns:
        the server, which listens already; to be closed, or used with `with`.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given, or an argument
            can't be.
        OSError: the address can't be listened on.
        RuntimeError: no thread can be started for it.
    """
    check_handler(handler)
    return serve(
        lambda session: session.serve(handler, executor=executor, limit=limit),
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
    )


def listen(
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    backlog: int = BACKLOG,
    proxy_protocol: Sequence[str] | None = None,
    reuse_port: bool = False,
) -> Listener:
    """Listen for sessions to `accept()`.

    Args:
        host: the address to listen on, or a name, for all of its addresses, or a list of
            them; this machine's addresses if only `port` is given.
        port: the TCP port, 0 for any free one at each address (see `Listener.addresses`).
        path: listen on this Unix socket instead. One that is there already is replaced.
        sock: listen on this bound socket instead; it is closed with the listener.
        ssl: for TLS, a context with a certificate; for mutual TLS, one that demands the
            client's too (`verify_mode`). Handshakes are done before `accept` gives a session,
            many at once, within 10 seconds each.
        config: the sessions' settings.
        backlog: connections that the kernel keeps waiting.
        proxy_protocol: as for `serve`.
        reuse_port: as for `serve`.

    Returns:
        the listener, to be closed, or used with `with`.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given, or an argument
            can't be.
        OSError: the address can't be listened on.
        RuntimeError: no thread can be started for it.
    """
    place = listen_place(host, port, path, sock, ssl, backlog, config, proxy_protocol, reuse_port)
    return _listen(place, backlog, config, Admission())


def _listen(
    place: Place,
    backlog: int,
    config: Config | None,
    admission: Admission,
    upgrade: Upgrade | None = None,
) -> Listener:
    with ExitStack() as on_failure:
        sockets = _bind(place, backlog)
        for each in sockets:
            on_failure.callback(each.close)
        listener = Listener(Acceptor(sockets, place, config, admission, upgrade))
        on_failure.pop_all()
    return listener


def _bind(place: Place, backlog: int) -> list[socket.socket]:
    """Return sockets that listen at a place: for a name, at each of its addresses."""
    if place.sock is not None:
        place.sock.listen(backlog)
        return [place.sock]
    if place.path is not None:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(free_path(place.path))
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        return [sock]
    if place.hosts == [None] and socket.has_dualstack_ipv6():
        every, family = ("", place.port), socket.AF_INET6
        return [
            socket.create_server(
                every,
                family=family,
                backlog=backlog,
                reuse_port=place.reuse_port,
                dualstack_ipv6=True,
            )
        ]
    sockets: list[socket.socket] = []
    try:
        for host in place.hosts:
            found = socket.getaddrinfo(
                host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            sockets += listen_at(found, backlog, place.reuse_port)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
