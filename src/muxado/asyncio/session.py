"""A session for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import warnings
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..config import Config
from ..core import ACCEPTABLE, DRAINED, GOAWAY, CoreSession, CoreStream, MemoryPool
from ..errors import CloseReason, ErrorCode, SessionError
from ..front_end import code_of
from ..proxy_protocol import ProxyHeader
from ..registry import SessionRecord
from .awaitable import can_wait
from .driver import Driver, ask
from .protocol_streams import ProtocolStreams
from .stream import Stream
from .stream_handlers import StreamHandlers
from .wait_queue import WaitQueue

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Session"]


class Session(ProtocolStreams):
    """One end of a connection that carries many streams.

    Sessions come from `connect`, `serve`, `listen`, `client` and `server`. Both ends may open
    streams and accept the other's. As an async context manager a session is closed in order
    at the end of the block, and aborted if the block raises. Iterating over it gives the
    streams that the peer opens, until the session ends in order.
    """

    def __init__(self, driver: Driver) -> None:
        """Not for users."""
        self._driver = driver
        self._core = driver.core
        self._record = driver.record
        self._serving: list[StreamHandlers] = []
        self._acceptors: WaitQueue = driver.acceptors
        self._waiters = driver.waiters  # for a pong, a drain, the end
        self._drained = False
        self._on_draining = []
        self._on_stream = None
        self._context: Context | None = None  # what the callback of `on_stream` is called in
        driver.subscribe(self, Session._notify)

    # Streams

    def open(self, *, type: int | None = None, priority: int = 0, eager: bool = False) -> Stream:
        stream = self._core.open(type=type, priority=priority, eager=eager)
        if eager:
            self._driver.flush_soon()
        return Stream(self, self._driver, self._opened(stream))

    async def accept(self) -> Stream:
        """Wait for the next stream that the peer opens. Cancelling it loses none.

        Raises:
            SessionError: the session is closing or has ended, and no stream waits.
        """
        return self._wrap(await self._accept())

    async def _accept(self) -> CoreStream:
        self._check_taker()
        while (stream := self._core.accept()) is None:
            await self._acceptors.wait()
        return self._opened(stream)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Stream:
        try:
            return await self.accept()
        except SessionError:
            if self._ended_in_order():
                raise StopAsyncIteration from None
            raise

    async def serve(
        self,
        handler: Callable[[Stream], Awaitable[object]],
        *,
        limit: int | None = None,
        cancel_on_reset: bool = False,
    ) -> None:
        """Accept every stream, and run `handler(stream)` for it in a task of its own.

        A handler that returns closes its stream; one that raises resets it, and is logged.
        Cancelled, it cancels the handlers and waits for them.

        Args:
            handler: a coroutine function.
            limit: how many handlers may run at once; further streams wait.
            cancel_on_reset: cancel a handler when the peer resets its stream. Without that it
                hears of it at its next read or write, or from `Stream.wait_reset`.

        Returns:
            when the session has ended in order and the handlers are done.

        Raises:
            SessionError: the session ended otherwise; the handlers are done then too.
        """
        self._check_taker()
        handlers = StreamHandlers(self._driver, handler, limit, cancel_on_reset, self._wrap_new)
        self._serving.append(handlers)
        try:
            handlers.start()
            while not self.closed:
                await self._wait()
            await handlers.wait()
        except asyncio.CancelledError:
            await handlers.cancel()
            raise
        finally:
            self._serving.remove(handlers)
        if not self._ended_in_order():
            raise self._core.ledger.failure()

    def _wrap(self, stream: CoreStream) -> Stream:
        return Stream(self, self._driver, stream)

    def on_stream(self, callback: Callable[[Stream], object] | None) -> None:
        super().on_stream(callback)
        # What the caller has set, and not what the transport's callbacks run in.
        self._context = copy_context()

    def _takes_streams(self) -> str | None:
        if self._serving:
            return "serve"
        return "accept" if len(self._acceptors) else super()._takes_streams()

    def _next_stream(self) -> Stream | None:
        stream = self._core.accept()
        return None if stream is None else self._wrap_new(stream)

    def _wrap_new(self, stream: CoreStream) -> Stream:
        return Stream(self, self._driver, self._opened(stream))

    # Looking

    async def ping(self) -> float:
        """Ask the peer for a sign of life, and return the round trip in seconds.

        One ping is in flight at a time; callers that come meanwhile share the next.

        Raises:
            UsageError: the peer uses stream 1 itself, which no muxado peer does.
            SessionError: the session is closing or has ended.
        """
        core = self._core
        number = core.liveness.ping()
        self._driver.flush()
        while not core.liveness.pong(number):
            await self._wait()
        return core.liveness.rtt

    def _connection_info(self, name: str, default: Any) -> Any:
        return ask(self._driver.link, name, default)

    # The end

    async def shutdown(self, timeout: float | None = 30.0) -> None:
        """End the session gracefully: no new streams, wait for the open ones, then close.

        Args:
            timeout: seconds for the open streams; then the session is aborted, and
                `close_reason` says how many were left. None waits for as long as they take.

        Cancelled, it leaves the session draining.
        """
        self._core.shut_down()
        self._driver.flush()
        try:
            async with asyncio.timeout(timeout):
                while not self._drained and not self.closed:
                    await self._wait()
        except TimeoutError:
            assert timeout is not None
            self._do(self._time_is_up, timeout)
        self.close()
        await self.wait_closed()

    async def wait_closed(self) -> CloseReason:
        """Wait until the session has ended and its connection is gone.

        It ends nothing itself, and cancelling it changes nothing.

        Returns:
            why the session ended, which is `close_reason` from then on.
        """
        while not self._driver.lost:
            await self._wait()
        return self._reason()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            self.abort(code_of(exc_type))
        if not can_wait():
            return
        try:
            await self.wait_closed()
        except asyncio.CancelledError:
            self.abort(ErrorCode.STREAM_CANCELLED)
            raise

    def __del__(self) -> None:
        driver = self._driver
        if self.closed or driver.lost or sys.is_finalizing():
            return
        try:
            message = f"unclosed session {self!r}"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
        finally:
            # The collector may come here on any thread; and the loop may be closed.
            with contextlib.suppress(RuntimeError):
                driver.loop.call_soon_threadsafe(driver.abandon_session)

    # For the driver

    def _notify(self, events: int) -> None:
        if events & ACCEPTABLE:
            for handlers in self._serving:
                handlers.start()
            if self._context is not None:
                self._context.copy().run(self._deliver)
            self._acceptors.wake(self._core.table.acceptable)
        if events & DRAINED:
            self._drained = True
        if events & GOAWAY:
            self._tell_draining()
        if events & ~ACCEPTABLE or not events:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            if self.closed:
                self._acceptors.wake_all()

    async def _wait(self) -> None:
        """Wait for a pong, a drain or the end; the caller looks which."""
        waiter: asyncio.Future[None] = self._driver.loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _do(self, step: Callable[..., object], *args: object) -> None:
        step(*args)
        self._driver.flush()

    def _flush_soon(self) -> None:
        self._driver.flush_soon()

    def _call_soon(self, callback: Callable[[], object]) -> None:
        self._driver.call_soon(callback)


def new_session(
    *,
    client: bool,
    config: Config | None,
    name: str = "",
    pool: MemoryPool | None = None,
    proxy_header: ProxyHeader | None = None,
) -> tuple[Session, Driver]:
    """Make a session in the running event loop, and its driver, which still needs a link."""
    loop = asyncio.get_running_loop()
    core = CoreSession(client=client, config=config or Config(), now=monotonic(), pool=pool)
    driver = Driver(core, loop, SessionRecord(core, name, proxy_header))
    return Session(driver), driver
