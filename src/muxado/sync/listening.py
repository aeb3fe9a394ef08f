"""Listening for sessions, for threads."""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl as ssl_module
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from functools import partial
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..config import Config
from ..endpoint import check_place, free_path, server_context
from ..errors import ErrorCode, MuxadoError, SessionClosed
from .intake import Intake
from .locks import deadline_of, rest_of
from .session import Session
from .workers import Running, submit_to

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Listener", "Server", "listen", "serve"]

logger: logging.Logger = logging.getLogger("muxado")

LAST_MOMENT = 1.0  # seconds for the handlers, when their sessions have ended

# What listening fails with at an address that a name has, and this machine hasn't.
NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class Listener:
    """Listens for sessions and hands them out, one per connection. See `listen`.

    As a context manager it is closed at the end of the block; iterating over it gives sessions
    until it is closed. The sessions are the caller's, and outlive it. One that is dropped
    unclosed is closed with a `ResourceWarning`.
    """

    def __init__(self, intake: Intake) -> None:
        """Not for users."""
        self._intake = intake
        self._addresses = [sock.getsockname() for sock in intake.sockets]

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets, () once closed."""
        return () if self._intake.closed.is_set() else tuple(self._intake.sockets)

    @property
    def addresses(self) -> list[Any]:
        """The addresses that are listened on, as `getsockname()` gives them."""
        return [] if self._intake.closed.is_set() else list(self._addresses)

    def accept(self, timeout: float | None = None) -> Session:
        """Wait for the next session, its handshake done, and return it.

        Args:
            timeout: seconds to wait; None: for as long as it takes.

        Raises:
            TimeoutError: none came in that time.
            SessionClosed: the listener is closed.
        """
        session = None if self._intake.closed.is_set() else self._intake.next(timeout)
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
        """Stop listening; sessions that nobody has accepted are aborted. Harmless if repeated.

        Whoever waits in `accept` is told with `SessionClosed`.
        """
        self._intake.close()
        self._intake.join()

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
        if self._intake.closed.is_set() or sys.is_finalizing():
            return
        try:
            message = f"unclosed listener {self!r}"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
        finally:
            self._intake.close()


class Server:
    """Listens for sessions, and runs a handler for each in a thread of its own. See `serve`.

    As a context manager it is closed at the end of the block, with its sessions.
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

    def close(self) -> None:
        """Stop listening, and close every session in order. Harmless if repeated.

        It does not wait: `wait_closed` tells when it is done.
        """
        for session in self._stop():
            session.close()

    def _stop(self) -> list[Session]:
        """Stop listening; return the sessions that are not over, be they closing already."""
        self._closing = True
        self._listener.close()
        return self._sessions.members()

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the server is closed, its sessions are gone and the handlers done.

        Args:
            timeout: seconds to wait; None: for as long as it takes.

        Raises:
            TimeoutError: it took longer; nothing is changed by that.
        """
        deadline = deadline_of(timeout)
        self._thread.join(rest_of(deadline))
        if not self._sessions.wait(rest_of(deadline)) or self._thread.is_alive():
            raise TimeoutError("timed out")

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
            thread.join()
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
            if self._closing:  # whoever did that may not have seen this one
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
        except MuxadoError as exc:
            logger.info("%r: %s", session, exc)
        except Exception:
            logger.exception("the handler of %r failed", session)
        finally:
            self._sessions.remove(session)

    def _drop(self, session: Session) -> None:
        """End a session that no handler runs for."""
        session.abort(ErrorCode.INTERNAL_ERROR)
        self._sessions.remove(session)


def serve(
    handler: Callable[[Session], object],
    host: str | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    backlog: int = 128,
    executor: Executor | None = None,
) -> Server:
    """Listen, and run `handler(session)` for each session in a thread of its own.

    A handler that returns closes its session; one that raises aborts it, and is logged. A
    failing handshake is logged and hurts nobody else.

    Args:
        handler: a function.
        host: the address to listen on, or a name, for all of its addresses; this machine's
            addresses if only `port` is given.
        port: the TCP port, 0 for any free one at each address (see `Server.addresses`).
        path: listen on this Unix socket instead. One that is there already is replaced.
        sock: listen on this bound socket instead; it is closed with the listener.
        ssl: for TLS, a context with a certificate; for mutual TLS, one that demands the
            client's too (`verify_mode`).
        config: the sessions' settings.
        backlog: connections that the kernel keeps waiting.
        executor: run the handlers there instead of in new threads. A session whose handler is
            cancelled there, before it has begun, is aborted.

    Returns:
        the server, which listens already; to be closed, or used with `with`.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given.
        OSError: the address can't be listened on.
        RuntimeError: no thread can be started for it.
    """
    listener = listen(host, port, path=path, sock=sock, ssl=ssl, config=config, backlog=backlog)
    try:
        return Server(listener, handler, executor)
    except BaseException:
        listener.close()
        raise


def listen(
    host: str | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | None = None,
    config: Config | None = None,
    backlog: int = 128,
) -> Listener:
    """Listen for sessions to `accept()`.

    Args:
        host: the address to listen on, or a name, for all of its addresses; this machine's
            addresses if only `port` is given.
        port: the TCP port, 0 for any free one at each address (see `Listener.addresses`).
        path: listen on this Unix socket instead. One that is there already is replaced.
        sock: listen on this bound socket instead; it is closed with the listener.
        ssl: for TLS, a context with a certificate; for mutual TLS, one that demands the
            client's too (`verify_mode`). Handshakes are done before `accept` gives a session,
            many at once, within 10 seconds each.
        config: the sessions' settings.
        backlog: connections that the kernel keeps waiting.

    Returns:
        the listener, to be closed, or used with `with`.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given.
        OSError: the address can't be listened on.
        RuntimeError: no thread can be started for it.
    """
    check_place(host, port, path, sock)
    context = server_context(ssl)
    with ExitStack() as on_failure:
        sockets = _bind(host, port, path, sock, backlog)
        for each in sockets:
            on_failure.callback(each.close)
        listener = Listener(Intake(sockets, context, config))
        on_failure.pop_all()
    return listener


def _bind(
    host: str | None,
    port: int | None,
    path: str | os.PathLike[str] | None,
    sock: socket.socket | None,
    backlog: int,
) -> list[socket.socket]:
    """Return sockets that listen at a place: for a name, at each of its addresses."""
    if sock is not None:
        sock.listen(backlog)
        return [sock]
    if path is not None:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(free_path(path))
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        return [sock]
    if not host and socket.has_dualstack_ipv6():
        place, family = ("", port or 0), socket.AF_INET6
        return [socket.create_server(place, family=family, backlog=backlog, dualstack_ipv6=True)]
    return _bind_all(host or "", port or 0, backlog)


def _bind_all(host: str, port: int, backlog: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    try:
        for family, *_, address in dict.fromkeys(found):
            try:
                sockets.append(socket.create_server(address, family=family, backlog=backlog))
            except OSError as exc:
                if exc.errno not in NOT_HERE:
                    raise
                failure = exc
        if failure is not None and not sockets:
            raise failure
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
