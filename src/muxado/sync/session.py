"""A session for threads."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec

from ..base_session import BaseSession
from ..base_stream import give_up
from ..connection_info import ConnectionInfo
from ..core import ACCEPTABLE, ANSWERED, DRAINED, ENDING, GOAWAY, SessionStats
from ..errors import CloseReason, ErrorCode, SessionError
from ..front_end import code_of
from .driver import Driver
from .locks import Waiter, deadline_of
from .stream import Stream
from .stream_handlers import StreamHandlers, run_handler
from .stream_listener import StreamListener
from .workers import Running, submit_to

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Session"]

P = ParamSpec("P")

logger: logging.Logger = logging.getLogger("muxado")


class Session(BaseSession[Stream]):
    """One end of a connection that carries many streams; any thread may use it.

    Sessions come from `connect`, `serve`, `listen`, `client` and `server`. As a context manager
    a session is closed in order at the end of the block, and aborted if the block raises. A
    session that is dropped, with all its streams, is aborted with a `ResourceWarning`.
    Iterating over it gives the streams that the peer opens, until the session ends in order.
    """

    def __init__(self, driver: Driver) -> None:
        """Not for users."""
        self._driver = driver
        self._core = driver.core
        self._record = driver.record
        self._waiters: set[Waiter] = set()  # for a pong, a drain, or the end
        # For a stream: those that sleep, longest first, and those that were woken to take one.
        self._acceptors: OrderedDict[Waiter, None] = OrderedDict()
        self._called: set[Waiter] = set()
        self._drained = False
        self._on_draining = []
        self._on_stream = None
        self._serving = 0  # calls of `serve`
        self._handlers: list[StreamHandlers] = []  # of them, without those with an executor
        link = driver.link
        more = None if link.layer is None else link.layer.info
        self._info = ConnectionInfo(link.sock, link.secured, driver.lock, more)
        self._listener: StreamListener | None = None
        driver.record.began(self.local_address, self.remote_address)
        try:
            # The driver's thread keeps alive what it holds: not the session.
            driver.start(_weakly(self._notify))
        except RuntimeError:
            driver.record.ended()
            raise

    # Streams

    def open(self, *, type: int | None = None, priority: int = 0, eager: bool = False) -> Stream:
        return self._driver.ask(self._open, type, priority, eager)

    def _open(self, type: int | None, priority: int, eager: bool) -> Stream:
        core = self._core.open(type=type, priority=priority, eager=eager)
        if eager:
            self._driver.flush()
        return Stream(self, self._driver, self._opened(core))

    def accept(self, timeout: float | None = None) -> Stream:
        """Wait for the next stream that the peer opens, and return it.

        Args:
            timeout: seconds to wait; 0: don't; None: for as long as it takes.

        Raises:
            TimeoutError: none came in that time; the next call may still get it.
            SessionError: the session is closing or has ended, and no stream waits.
        """
        return self._accept(self._take, deadline_of(timeout))

    def _accept(self, take: Callable[[], Stream | None], deadline: float | None) -> Stream:
        """Take a step again and again until it gives a stream, and wait in between."""
        self._check_taker()
        driver = self._driver
        waiter = driver.new_waiter()
        try:
            while (stream := driver.ask(self._take_or_enlist, take, waiter)) is None:
                if not waiter.wait(deadline):
                    raise TimeoutError("timed out")
            return stream
        except BaseException:
            driver.sleepers.discard(waiter)
            if waiter in self._called:  # for a stream that another one can have
                self._called.discard(waiter)
                driver.later(self._call_acceptors)
            raise
        finally:
            self._acceptors.pop(waiter, None)
            driver.sleepers.discard(waiter)
            self._called.discard(waiter)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Stream:
        try:
            return self.accept()
        except SessionError:
            if self._ended_in_order():
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
            when the session has ended in order and the handlers are done. Those that go on for
            `Config.close_timeout` after its end are left to themselves, which is logged.

        Raises:
            SessionError: the session ended otherwise; the handlers are done, or left, then too.
            RuntimeError: the executor takes no more, as after its `shutdown`.
        """
        self._check_taker()
        self._serving += 1
        try:
            if executor is None:
                running = self._serve(handler, limit)
            else:
                running = self._serve_in(executor, handler, limit)
        finally:
            self._serving -= 1
        if not running.wait(self.config.close_timeout):
            left = len(running)
            logger.warning("%r has ended; %d handlers of its streams go on: left", self, left)
        if not self._ended_in_order():
            raise self._core.ledger.failure()

    def _serve(self, handler: Callable[[Stream], object], limit: int | None) -> Running[Stream]:
        """Run handlers until the session has ended; return those that run still."""
        handlers = StreamHandlers(self._driver, self._take, handler, limit, self._wake_acceptors)
        self._handlers.append(handlers)
        try:
            self._driver.do(handlers.begin)
            with contextlib.suppress(SessionError):
                self._accept(self._await_end, None)
        finally:
            self._handlers.remove(handlers)
            handlers.end()
        return handlers.running

    def _await_end(self) -> None:
        """Raise if the session takes no more streams, and none waits."""
        if not self._core.table.acceptable:
            self._core.accept()

    def _serve_in(
        self, executor: Executor, handler: Callable[[Stream], object], limit: int | None
    ) -> Running[Stream]:
        """Do the same in the threads of an executor."""
        running: Running[Stream] = Running()

        def handle(stream: Stream) -> None:
            try:
                run_handler(handler, stream)
            finally:
                running.remove(stream)

        def refuse(stream: Stream) -> None:
            give_up(stream, ErrorCode.STREAM_REFUSED)
            running.remove(stream)

        with contextlib.suppress(SessionError):
            while True:
                if limit is not None:
                    running.wait(below=limit)
                stream = self.accept()
                running.add(stream)
                try:
                    submit_to(executor, partial(handle, stream), partial(refuse, stream))
                except RuntimeError:
                    refuse(stream)
                    raise  # it was shut down
                del stream
        return running

    def listener(self) -> StreamListener:
        """Return the session as a listening socket, for `socketserver` and its like.

        Its `accept()` gives `(stream, address)`, and its `fileno()` is readable while streams
        wait. Every call gives the same one, until that is closed.
        """
        self._check_taker()
        driver = self._driver
        with driver.lock:
            if self._listener is None or self._listener.fileno() < 0:
                self._listener = StreamListener(
                    self, driver, self._take, self._accept, self._wake_acceptors
                )
                self._listener.refresh()
                driver.show_waiting(_weakly(self._listener.refresh))
            return self._listener

    def _takes_streams(self) -> str | None:
        if self._serving:
            return "serve"
        if self._listener is not None and self._listener.fileno() >= 0:
            return "a listener"
        return "accept" if self._acceptors or self._called else None

    def _next_stream(self) -> Stream | None:
        return self._driver.ask(self._take)

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
        driver = self._driver
        deadline = deadline_of(timeout)
        number = driver.ask(self._ping)
        if not self._wait_for(lambda: driver.ask(core.liveness.pong, number), deadline):
            raise TimeoutError("timed out")
        return core.liveness.rtt

    def _ping(self) -> int:
        number = self._core.liveness.ping()
        self._driver.flush()
        return number

    def _connection_info(self, name: str, default: Any) -> Any:
        return self._info.get(name, default)

    def stats(self) -> SessionStats:
        with self._driver.lock:
            stats = super().stats()
        return stats

    # The end

    def shutdown(self, timeout: float | None = 30.0) -> None:
        """End the session gracefully: no new streams, wait for the open ones, then close.

        It returns when the session has ended, which after the streams takes
        `Config.close_timeout` at most.

        Args:
            timeout: seconds for the open streams; then the session is aborted, and
                `close_reason` says how many were left. None waits for as long as they take.
        """
        deadline = deadline_of(timeout)
        _ = self._driver.lock  # raises inside another call
        self._driver.do(self._core.shut_down)
        if not self._wait_for(lambda: self._drained or self.closed, deadline):
            assert timeout is not None
            self._do(self._time_is_up, timeout)
        self.close()
        self.wait_closed()

    def wait_closed(self, timeout: float | None = None) -> CloseReason:
        """Wait until the session has ended and its socket is closed.

        It ends nothing itself: `close`, `abort` or the peer does.

        Args:
            timeout: seconds to wait; None: for as long as it takes.

        Returns:
            why the session ended, which is `close_reason` from then on.

        Raises:
            TimeoutError: it took longer; nothing is changed by that.
        """
        deadline = deadline_of(timeout)
        if not self._wait_for(lambda: self._driver.gone, deadline):
            raise TimeoutError("timed out")
        return self._reason()

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
            self.abort(code_of(exc_type))
        self.wait_closed()

    def __del__(self) -> None:
        if not hasattr(self, "_listener"):
            return  # a signal's handler has raised inside __init__, before the thread was started
        if self.closed or sys.is_finalizing():
            return
        try:
            message = f"unclosed session {self!r}"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
        finally:
            self._driver.later(self._core.abort, ErrorCode.INTERNAL_ERROR, monotonic())

    # With the driver's lock held

    def _notify(self, events: int) -> None:
        if events & DRAINED:
            self._drained = True
        if events & GOAWAY:
            self._tell_draining()
        if events & ACCEPTABLE:
            if self._on_stream is not None:
                self._call_soon(self._deliver)
            for handlers in self._handlers:
                handlers.begin()
            self._call_acceptors()
        over = not events or events & ENDING
        if over or events & (ANSWERED | DRAINED):
            self._wake_waiters()
        if over:
            self._wake_acceptors()

    def _take(self) -> Stream | None:
        stream = self._core.accept()
        if stream is None:
            return None
        self._driver.accepted()
        return Stream(self, self._driver, self._opened(stream))

    def _take_or_enlist(self, take: Callable[[], Stream | None], waiter: Waiter) -> Stream | None:
        self._called.discard(waiter)
        stream = take()
        if stream is None:
            self._acceptors[waiter] = None
        else:
            self._call_acceptors()
        return stream

    def _call_acceptors(self) -> None:
        """Wake as many of the calls that wait for a stream as there are streams, and no more."""
        called = self._called
        sleepers = self._driver.sleepers
        while self._acceptors and len(called) < self._core.table.acceptable:
            waiter, _ = self._acceptors.popitem(last=False)
            if waiter in sleepers:
                called.add(waiter)
                waiter.wake()

    def _wake_waiters(self) -> None:
        for waiter in list(self._waiters):
            waiter.wake()

    def _wake_acceptors(self) -> None:
        for waiter in list(self._acceptors):
            waiter.wake()

    # Without it

    def _wait_for(self, test: Callable[[], bool], deadline: float | None) -> bool:
        """Wait until something that only looks gives True; return False if the time was up."""
        _ = self._driver.lock  # raises inside another call, which would never end
        waiter = Waiter()
        try:
            # First, so that no wake-up is missed between the look and the wait.
            self._waiters.add(waiter)
            while not test():
                if not waiter.wait(deadline):
                    return False
            return True
        finally:
            self._waiters.discard(waiter)

    def _do(self, step: Callable[..., object], *args: object) -> None:
        self._driver.do(step, *args)

    def _flush_soon(self) -> None:
        self._driver.flush()

    def _call_soon(self, callback: Callable[[], object]) -> None:
        self._driver.call_soon(callback)


def _weakly(method: Callable[P, object]) -> Callable[P, None]:
    """Return a function that calls a bound method for as long as its object is alive."""
    reference = weakref.WeakMethod(method)

    def call(*args: P.args, **kwds: P.kwargs) -> None:
        found = reference()
        if found is not None:
            found(*args, **kwds)

    return call
