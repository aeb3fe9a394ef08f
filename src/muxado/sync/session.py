"""A session for threads."""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..config import Config
from ..core import CoreSession, SessionStats
from ..core.life import DRAINED
from ..errors import ErrorCode, MuxadoError, SessionError
from ..shell import BaseSession, ConnectionInfo
from .driver import Driver
from .locks import Waiter, deadline_of
from .stream import Stream
from .stream_listener import StreamListener
from .workers import Running, Workers, submit_to

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Session", "client", "server"]

logger: logging.Logger = logging.getLogger("muxado")


class Session(BaseSession[Stream]):
    """One end of a connection that carries many streams; any thread may use it.

    Sessions come from `connect`, `serve`, `listen`, `client` and `server`. As a context manager
    a session is closed in order at the end of the block, and aborted if the block raises. One
    that nobody holds any more, nor a stream of it, is aborted with a `ResourceWarning`.
    Iterating over it gives the streams that the peer opens, until the session ends in order.
    """

    def __init__(self, driver: Driver) -> None:
        """Not for users."""
        self._driver = driver
        self._core = driver.core
        self._waiters: list[Waiter] = []  # for a stream, a pong, a drain, or the end
        self._drained = False
        sock = driver.sock
        secured = sock if isinstance(sock, ssl.SSLSocket) else None
        self._info = ConnectionInfo(sock, secured, driver.lock)
        self._listener: StreamListener | None = None
        # The driver's thread keeps alive what it holds: not the session.
        notify = weakref.WeakMethod(self._notify)

        def tell(events: int) -> None:
            method = notify()
            if method is not None:
                method(events)

        driver.start(tell)

    # Streams

    def open(self, *, type: int | None = None, priority: int = 0, eager: bool = False) -> Stream:
        with self._driver.lock:
            stream = self._core.open(type=type, priority=priority, eager=eager)
            if eager:
                self._driver.settle()
        return Stream(self, self._driver, stream)

    def accept(self, timeout: float | None = None) -> Stream:
        """Wait for the next stream that the peer opens, and return it.

        Args:
            timeout: seconds to wait; 0: don't; None: for as long as it takes.

        Raises:
            TimeoutError: none came in that time; the next call may still get it.
            SessionError: the session is closing or has ended, and no stream waits.
        """
        deadline = deadline_of(timeout)
        with self._driver.lock:
            while (stream := self._take()) is None:
                self._wait(deadline)
            return stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Stream:
        try:
            return self.accept()
        except SessionError:
            if self._ended_cleanly():
                raise StopIteration from None
            raise

    def serve(
        self,
        handler: Callable[[Stream], object],
        *,
        executor: Executor | None = None,
        limit: int | None = None,
    ) -> None:
        """Accept every stream, and run `handler(stream)` for it in a thread of its own.

        A handler that returns closes its stream; one that raises resets it, and is logged.
        Threads whose handler has returned are used again, and end after 10 seconds without use.
        A stream for which no thread can be started is refused, and the peer may try again.

        Args:
            handler: a function.
            executor: run the handlers there instead. A stream whose handler is cancelled there,
                before it has begun, is refused.
            limit: how many handlers may run at once; further streams wait. None: as many as the
                peer opens streams, up to `Config.max_incoming_streams` (10 000), with a thread
                each. Set a limit for peers you don't trust, unless handlers wait for each other.

        Returns:
            when the session has ended in order and the handlers are done.

        Raises:
            SessionError: the session ended otherwise; the handlers are done then too.
            RuntimeError: the executor takes no more, as after its `shutdown`.
        """
        slots = threading.Semaphore(limit) if limit is not None else None
        running: Running[Stream] = Running()
        workers = Workers("muxado stream")

        def done(stream: Stream) -> None:
            # Twice, if an executor runs what it has refused.
            if running.remove(stream) and slots is not None:
                slots.release()

        def handle(stream: Stream) -> None:
            try:
                with stream:
                    handler(stream)
            except MuxadoError as exc:
                logger.info("stream %d of %r: %s", stream.id, self, exc)
            except Exception:
                logger.exception("the handler of stream %d of %r failed", stream.id, self)
            finally:
                done(stream)

        def refuse(stream: Stream) -> None:
            stream.reset(ErrorCode.STREAM_REFUSED)
            done(stream)

        try:
            while True:
                if slots is not None:
                    slots.acquire()
                stream = self.accept()
                running.add(stream)
                try:
                    if executor is None:
                        workers.submit(partial(handle, stream))
                    else:
                        submit_to(executor, partial(handle, stream), partial(refuse, stream))
                except RuntimeError as exc:
                    refuse(stream)
                    if executor is not None:
                        raise  # it was shut down
                    logger.warning("no thread for stream %d of %r: %s", stream.id, self, exc)
                del stream
        except SessionError:
            running.wait()
            if not self._ended_cleanly():
                raise
        finally:
            workers.close()

    def listener(self) -> StreamListener:
        """Return the session as a listening socket, for `socketserver` and its like.

        Its `accept()` gives `(stream, address)`, and its `fileno()` is readable while streams
        wait. Every call gives the same one, until that is closed.
        """
        driver = self._driver
        with driver.lock:
            if self._listener is None or self._listener.fileno() < 0:
                self._listener = StreamListener(self)
                self._listener._refresh()
                driver.listener = weakref.ref(self._listener)
            return self._listener

    # Looking

    def ping(self, timeout: float | None = None) -> float:
        """Ask the peer for a sign of life, and return the round trip in seconds.

        Args:
            timeout: seconds to wait for it; None: until it comes or the session ends.

        Raises:
            TimeoutError: no answer came in that time; the session goes on.
            UsageError: the peer uses stream 1 itself, which no muxado peer does.
            SessionError: the session is closing or has ended.
        """
        core = self._core
        deadline = deadline_of(timeout)
        with self._driver.lock:
            number = core.ping()
            self._driver.settle()
            while not core.pong(number):
                self._wait(deadline)
            return core.liveness.rtt

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._info.get(name, default)

    def stats(self) -> SessionStats:
        with self._driver.lock:
            return super().stats()

    # The end

    def shutdown(self, timeout: float | None = 30.0) -> None:
        """End the session gracefully: no new streams, wait for the open ones, then close.

        It returns when the session has ended, which after the streams takes
        `Config.close_timeout` at most.

        Args:
            timeout: seconds for the open streams; then the session is aborted. None waits
                for as long as they take.
        """
        deadline = deadline_of(timeout)
        with self._driver.lock:
            self._core.shut_down()
            self._driver.settle()
            try:
                while not self._drained and not self.closed:
                    self._wait(deadline)
            except TimeoutError:
                self._core.abort(ErrorCode.NO_ERROR, monotonic())
                self._driver.settle()
        self.close()
        self.wait_closed()

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the session has ended and its socket is closed.

        It ends nothing itself: `close`, `abort` or the peer does.

        Args:
            timeout: seconds to wait; None: for as long as it takes.

        Raises:
            TimeoutError: it took longer; nothing is changed by that.
        """
        deadline = deadline_of(timeout)
        with self._driver.lock:
            while not self._driver.gone:
                self._wait(deadline)

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
            self.abort(0 if not issubclass(exc_type, Exception) else ErrorCode.INTERNAL_ERROR)
        self.wait_closed()

    def __del__(self) -> None:
        if self.closed or sys.is_finalizing():
            return
        try:
            message = f"unclosed session {self!r}"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
        finally:
            self._driver.later(self._core.abort, ErrorCode.NO_ERROR, monotonic())

    # With the driver's lock held

    def _notify(self, events: int) -> None:
        if events & DRAINED:
            self._drained = True
        self._wake_waiters()

    def _take(self) -> Stream | None:
        stream = self._core.accept()
        if stream is None:
            return None
        self._driver.accepted()
        return Stream(self, self._driver, stream)

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.wake()

    def _wait(self, deadline: float | None) -> None:
        waiter = Waiter()
        self._waiters.append(waiter)
        try:
            if not self._driver.wait(waiter, deadline):
                raise TimeoutError("timed out")
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _do(self, step: Callable[..., object], *args: object) -> None:
        self._driver.do(step, *args)


def client(sock: socket.socket, *, config: Config | None = None) -> Session:
    """Make a session over a connected socket, as its client. It does not wait.

    Args:
        sock: the socket, which may be an `ssl.SSLSocket` after its handshake. It is the session's
            from then on, which makes it non-blocking and closes it.
        config: the session's settings; `Config()` by default.

    Returns:
        the session, to be closed, or used with `with`.

    Raises:
        RuntimeError: no thread can be started for it; the socket is still the caller's.
    """
    return _over(sock, client=True, config=config)


def server(sock: socket.socket, *, config: Config | None = None) -> Session:
    """Make a session over a connected socket, as its server. It does not wait.

    Args:
        sock: the socket, as for `client`.
        config: the session's settings; `Config()` by default.

    Returns:
        the session, to be closed, or used with `with`.

    Raises:
        RuntimeError: no thread can be started for it; the socket is still the caller's.
    """
    return _over(sock, client=False, config=config)


def _over(sock: socket.socket, *, client: bool, config: Config | None) -> Session:
    core = CoreSession(client=client, config=config or Config(), now=monotonic())
    return Session(Driver(core, sock))
