"""A session for trio: a `trio.abc.Listener` of streams."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from ..config import Config
from ..core import CoreSession
from ..core.life import DRAINED
from ..errors import ErrorCode, MuxadoError, SessionError
from ..shell import BaseSession, ConnectionInfo
from .driver import Driver
from .stream import Stream

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Session", "client", "server"]

logger: logging.Logger = logging.getLogger("muxado")


class Session(BaseSession[Stream], trio.abc.Listener[Stream]):
    """One end of a connection that carries many streams.

    Sessions come from `connect`, `serve`, `listen`, `client` and `server`, and live in the
    nursery of their `async with` block, which closes them in order, or aborts them if it
    raises. Iterating over one gives the streams that the peer opens, until it ends in order.

    Calls that wait raise trio's errors, with muxado's own as their `__cause__`. Those that
    don't, `open` above all, raise muxado's own: whoever opens streams wants to know whether to
    dial a new session.
    """

    def __init__(self, driver: Driver) -> None:
        """Not for users."""
        self._driver = driver
        self._core = driver.core
        self._changed = trio.Event()
        self._drained = False
        transport = driver.transport
        secured = transport if isinstance(transport, trio.SSLStream) else None
        self._info = ConnectionInfo(_socket_of(transport), secured)

    @property
    def transport(self) -> trio.abc.Stream:
        """The trio stream underneath. Look at it; reading or writing there breaks the session."""
        return self._driver.transport

    # Streams

    def open(self, *, type: int | None = None, priority: int = 0, eager: bool = False) -> Stream:
        stream = self._core.open(type=type, priority=priority, eager=eager)
        if eager:
            self._driver.flush_soon()
        return Stream(self, self._driver, stream)

    async def accept(self) -> Stream:
        """Wait for the next stream that the peer opens. Cancelling it loses none.

        Raises:
            trio.ClosedResourceError: this side has closed the session.
            trio.EndOfChannel: the peer has ended it in order.
            trio.BrokenResourceError: it ended otherwise. All carry the reason as `__cause__`.
        """
        await trio.lowlevel.checkpoint()
        while True:
            try:
                stream = self._core.accept()
            except SessionError as exc:
                if not self._core.closed_here and self._ended_cleanly():
                    raise trio.EndOfChannel(str(exc)) from exc
                raise self._trio_error(exc) from exc
            if stream is not None:
                return Stream(self, self._driver, stream)
            await self._change()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Stream:
        try:
            return await self.accept()
        except (trio.ClosedResourceError, trio.EndOfChannel):
            raise StopAsyncIteration from None

    async def serve(
        self, handler: Callable[[Stream], Awaitable[object]], *, limit: int | None = None
    ) -> None:
        """Accept every stream, and run `handler(stream)` for it in a task of its own.

        A handler that returns closes its stream; one that raises resets it, and is logged.
        Cancelled, it cancels the handlers, and waits for them; the session goes on.

        Args:
            handler: an async function.
            limit: how many handlers may run at once; further streams wait.

        Returns:
            when the session has ended in order and the handlers are done.

        Raises:
            trio.BrokenResourceError: the session ended otherwise; the handlers are done too.
        """
        slots = trio.Semaphore(limit) if limit is not None else None
        broken: trio.BrokenResourceError | None = None
        async with trio.open_nursery() as nursery:
            while True:
                if slots is not None:
                    await slots.acquire()
                try:
                    stream = await self.accept()
                except (trio.ClosedResourceError, trio.EndOfChannel):
                    break
                except trio.BrokenResourceError as exc:
                    broken = exc
                    break
                nursery.start_soon(
                    self._handle, handler, stream, slots, name=f"muxado stream {stream.id}"
                )
                del stream
        if broken is not None:
            raise broken

    async def _handle(
        self,
        handler: Callable[[Stream], Awaitable[object]],
        stream: Stream,
        slots: trio.Semaphore | None,
    ) -> None:
        try:
            async with stream:
                await handler(stream)
        except Exception as exc:
            if isinstance(exc, MuxadoError) or isinstance(exc.__cause__, MuxadoError):
                logger.info("stream %d of %r: %s", stream.id, self, exc)
            else:
                logger.exception("the handler of stream %d of %r failed", stream.id, self)
        finally:
            if slots is not None:
                slots.release()

    # Looking

    async def ping(self) -> float:
        """Ask the peer for a sign of life, and return the round trip in seconds.

        Raises:
            UsageError: the peer uses stream 1 itself, which no muxado peer does.
            trio.ClosedResourceError: this side has closed the session.
            trio.BrokenResourceError: it ended otherwise. Both carry the reason as `__cause__`.
        """
        core = self._core
        try:
            number = core.ping()
            self._driver.settle()
            await trio.lowlevel.checkpoint()
            while not core.pong(number):
                await self._change()
        except SessionError as exc:
            raise self._trio_error(exc) from exc
        return core.liveness.rtt

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._info.get(name, default)

    # The end

    async def shutdown(self, timeout: float | None = 30.0) -> None:
        """End the session gracefully: no new streams, wait for the open ones, then close.

        Args:
            timeout: seconds for the open streams; then the session is aborted. None waits
                for as long as they take.

        Cancelled before they are done, it leaves the session draining.
        """
        self._core.shut_down()
        self._driver.settle()
        with trio.move_on_after(inf if timeout is None else timeout) as scope:
            while not self._drained and not self.closed:
                await self._change()
        if scope.cancelled_caught:
            self.abort()
        await self.aclose()

    async def wait_closed(self) -> None:
        """Wait until the session has ended and its connection is gone.

        It never raises: `close_reason` says how the session ended. Cancelling it changes
        nothing.
        """
        await trio.lowlevel.checkpoint()
        while not self._driver.lost:
            await self._change()

    async def aclose(self) -> None:
        """Close the session in order, and wait until it is gone; cancelled, it is aborted.

        It takes `Config.close_timeout` at most. Harmless if repeated.
        """
        self.close()
        try:
            await self.wait_closed()
        except trio.Cancelled:
            self.abort()
            raise

    def _notify(self, events: int) -> None:
        if events & DRAINED:
            self._drained = True
        self._changed.set()
        self._changed = trio.Event()

    async def _change(self) -> None:
        """Wait for a stream, a pong, a drain or the end; the caller looks which."""
        await self._changed.wait()

    def _do(self, step: Callable[..., object], *args: object) -> None:
        step(*args)
        self._driver.settle()

    def _now(self) -> float:
        return trio.current_time()

    def _trio_error(self, exc: SessionError) -> trio.ClosedResourceError | trio.BrokenResourceError:
        kind = trio.ClosedResourceError if self._core.closed_here else trio.BrokenResourceError
        return kind(str(exc))


@asynccontextmanager
async def run_session(
    transport: trio.abc.Stream, *, client: bool, config: Config | None
) -> AsyncIterator[Session]:
    """Run a session over a trio stream for the length of a block."""
    core = CoreSession(client=client, config=config or Config(), now=trio.current_time())
    driver = Driver(core, transport)
    session = Session(driver)
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        driver.start(nursery, session._notify)
        try:
            yield session
            await session.aclose()
        except BaseException as exc:
            failure = exc  # raised below, or the nursery would wrap it into a group
            session.abort(ErrorCode.INTERNAL_ERROR if isinstance(exc, Exception) else 0)
            with trio.CancelScope(shield=True):
                await session.wait_closed()
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # a cycle otherwise


def _socket_of(transport: Any) -> Any:
    """Return the socket at the bottom of a transport, None if there is none."""
    while not hasattr(transport, "socket") and hasattr(transport, "transport_stream"):
        transport = transport.transport_stream
    return getattr(transport, "socket", None)


def client(
    stream: trio.abc.Stream, *, config: Config | None = None
) -> AbstractAsyncContextManager[Session]:
    """Make a session over a trio stream, as its client: ``async with client(stream) as session``.

    The end of the block closes the session in order, and aborts it if the block raises.

    Args:
        stream: carries the session, is its own from then on, and is closed with it.
        config: the session's settings.
    """
    return run_session(stream, client=True, config=config)


def server(
    stream: trio.abc.Stream, *, config: Config | None = None
) -> AbstractAsyncContextManager[Session]:
    """Make a session over a trio stream, as its server. See `client` for the arguments."""
    return run_session(stream, client=False, config=config)
