"""A session for trio: a `trio.abc.Listener` of streams."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from ..base_session import BaseSession
from ..connection_info import ConnectionInfo
from ..core import ACCEPTABLE, DRAINED, ENDING, GOAWAY, CoreStream
from ..endpoint import tune
from ..errors import CloseReason, SessionError
from ..front_end import code_of, log_stream_failure
from .driver import Driver
from .errors import original
from .secured import SecuredStream
from .stream import ResetWatch, Stream, run_handler

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Session"]

logger: logging.Logger = logging.getLogger("muxado")


class Session(BaseSession[Stream], trio.abc.Listener[Stream]):
    """One end of a connection that carries many streams.

    Sessions come from `connect`, `serve`, `listen`, `client` and `server`, and live in the
    nursery of their `async with` block, which closes them in order, or aborts them if it
    raises. Iterating over one gives the streams that the peer opens, until it ends in order.

    Calls that wait raise trio's errors, with muxado's own as their `__cause__`. Those that
    don't, `open` above all, raise muxado's own, which tell whether to dial a new session.
    """

    def __init__(self, driver: Driver) -> None:
        """Not for users."""
        self._driver = driver
        self._core = driver.core
        self._record = driver.record
        self._changed = trio.Event()
        self._acceptors = trio.lowlevel.ParkingLot()
        self._called = 0  # acceptors that were woken, and have not run yet
        self._drained = False
        self._on_draining = []
        self._on_stream = None
        self._serving = 0  # calls of `serve`
        driver.subscribe(self._notify)
        below = list(_streams(driver.transport))
        secured = next((s for s in below if isinstance(s, (trio.SSLStream, SecuredStream))), None)
        sock = getattr(below[-1], "socket", None)
        tune(sock)
        self._info = ConnectionInfo(sock, secured, more=getattr(below[0], "info", None))

    @property
    def transport(self) -> trio.abc.Stream:
        """The trio stream underneath. Look at it; reading or writing there breaks the session."""
        return self._driver.transport

    # Streams

    @trio.lowlevel.enable_ki_protection
    def open(self, *, type: int | None = None, priority: int = 0, eager: bool = False) -> Stream:
        stream = self._core.open(type=type, priority=priority, eager=eager)
        if eager:
            self._driver.flush_soon()
        return Stream(self, self._driver, self._opened(stream))

    @trio.lowlevel.enable_ki_protection
    async def accept(self) -> Stream:
        """Wait for the next stream that the peer opens. Cancelling it loses none.

        Raises:
            trio.ClosedResourceError: this side has closed the session.
            trio.EndOfChannel: the peer has ended it in order.
            trio.BrokenResourceError: it ended otherwise. All carry the reason as `__cause__`.
        """
        self._check_taker()
        await trio.lowlevel.checkpoint()
        return Stream(self, self._driver, await self._accept())

    @trio.lowlevel.enable_ki_protection
    async def _accept(self) -> CoreStream:
        """Return the next stream; this is no checkpoint if one waits."""
        while True:
            try:
                stream = self._core.accept()
            except SessionError as exc:
                if not self._core.ledger.closed_here and self._ended_in_order():
                    raise trio.EndOfChannel(str(exc)) from exc
                raise self._trio_error(exc) from exc
            if stream is not None:
                return self._opened(stream)
            await self._acceptors.park()
            self._called -= 1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Stream:
        try:
            return await self.accept()
        except (trio.ClosedResourceError, trio.EndOfChannel):
            raise StopAsyncIteration from None

    @trio.lowlevel.enable_ki_protection
    async def serve(
        self,
        handler: Callable[[Stream], Awaitable[object]],
        *,
        limit: int | None = None,
        cancel_on_reset: bool = False,
    ) -> None:
        """Accept every stream, and run `handler(stream)` for it in a task of its own.

        A handler that returns closes its stream; one that raises resets it, and is logged.
        Cancelled, it cancels the handlers, and waits for them; the session goes on.

        Args:
            handler: an async function.
            limit: how many handlers may run at once; further streams wait.
            cancel_on_reset: cancel a handler whose stream the peer resets. Without it, the
                handler hears of the reset when it next reads or writes.

        Returns:
            when the session has ended in order and the handlers are done.

        Raises:
            trio.BrokenResourceError: the session ended otherwise; the handlers are done too.
        """
        self._check_taker()
        self._serving += 1
        try:
            await trio.lowlevel.checkpoint()
            await self._serve(handler, limit, cancel_on_reset)
        finally:
            self._serving -= 1

    async def _serve(
        self,
        handler: Callable[[Stream], Awaitable[object]],
        limit: int | None,
        cancel_on_reset: bool,
    ) -> None:
        slots = trio.Semaphore(limit) if limit is not None else None
        broken: trio.BrokenResourceError | None = None
        async with trio.open_nursery() as nursery:
            while True:
                if slots is not None:
                    await slots.acquire()
                try:
                    accepted = await self._accept()
                except (trio.ClosedResourceError, trio.EndOfChannel):
                    break
                except trio.BrokenResourceError as exc:
                    broken = exc
                    break
                stream = Stream(self, self._driver, accepted)
                nursery.start_soon(
                    self._handle,
                    handler,
                    stream,
                    accepted,
                    slots,
                    cancel_on_reset,
                    name=f"muxado stream {stream.id}",
                )
                del stream
        if broken is not None:
            raise broken

    async def _handle(
        self,
        handler: Callable[[Stream], Awaitable[object]],
        stream: Stream,
        core: CoreStream,
        slots: trio.Semaphore | None,
        cancel_on_reset: bool,
    ) -> None:
        try:
            if cancel_on_reset:
                with trio.CancelScope() as scope:
                    ResetWatch(core, scope).set()
                    await run_handler(handler, stream)
                if scope.cancelled_caught:
                    logger.info("stream %d of %r: cancelled by the peer", stream.id, self)
            else:
                await run_handler(handler, stream)
        except Exception as exc:
            log_stream_failure(stream, original(exc))
        finally:
            if slots is not None:
                slots.release()

    def _takes_streams(self) -> str | None:
        if self._serving:
            return "serve"
        return "accept" if len(self._acceptors) else None

    def _next_stream(self) -> Stream | None:
        stream = self._core.accept()
        return None if stream is None else Stream(self, self._driver, self._opened(stream))

    # Looking

    @trio.lowlevel.enable_ki_protection
    async def ping(self) -> float:
        """Ask the peer for a sign of life, and return the round trip in seconds.

        Raises:
            UsageError: the peer uses stream 1 itself, which no muxado peer does.
            trio.ClosedResourceError: this side has closed the session.
            trio.BrokenResourceError: it ended otherwise. Both carry the reason as `__cause__`.
        """
        core = self._core
        try:
            number = core.liveness.ping()
            self._driver.flush()
            await trio.lowlevel.checkpoint()
            while not core.liveness.pong(number):
                await self._change()
        except SessionError as exc:
            raise self._trio_error(exc) from exc
        return core.liveness.rtt

    def _connection_info(self, name: str, default: Any) -> Any:
        return self._info.get(name, default)

    # The end

    @trio.lowlevel.enable_ki_protection
    async def shutdown(self, timeout: float | None = 30.0) -> None:
        """End the session gracefully: no new streams, wait for the open ones, then close.

        Args:
            timeout: seconds for the open streams; then the session is aborted, and
                `close_reason` says how many were left. None waits for as long as they take.

        Cancelled before they are done, it leaves the session draining.
        """
        deadline = inf if timeout is None else trio.current_time() + timeout
        with trio.move_on_at(deadline) as scope:
            self._core.shut_down()
            self._driver.flush()
            while not self._drained and not self.closed:
                await self._change()
        if scope.cancelled_caught:
            assert timeout is not None
            self._do(self._time_is_up, timeout)
        await self.aclose()

    @trio.lowlevel.enable_ki_protection
    async def wait_closed(self) -> CloseReason:
        """Wait until the session has ended and its connection is gone.

        It ends nothing itself, and cancelling it changes nothing.

        Returns:
            why the session ended, which is `close_reason` from then on.
        """
        await trio.lowlevel.checkpoint()
        while not self._driver.lost:
            await self._change()
        return self._reason()

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """Close the session in order, and wait until it is gone; cancelled, it is aborted.

        It takes `Config.close_timeout` at most. Harmless if repeated.
        """
        self.close()
        try:
            await self.wait_closed()
        except BaseException as exc:
            self.abort(code_of(type(exc)))
            raise

    def _notify(self, events: int) -> None:
        if events & DRAINED:
            self._drained = True
        if events & GOAWAY:
            self._tell_draining()
        # One task is woken for each stream, so that a stream costs the same however many wait.
        count = self._core.table.acceptable - self._called
        if events & ENDING:
            count = len(self._acceptors)
        if count > 0:
            self._called += len(self._acceptors.unpark(count=count))
        if events & ACCEPTABLE:
            self._deliver()
        if events != ACCEPTABLE:
            self._changed.set()
            self._changed = trio.Event()

    async def _change(self) -> None:
        """Wait for a pong, a drain or the end; the caller looks which."""
        await self._changed.wait()

    @trio.lowlevel.enable_ki_protection
    def _do(self, step: Callable[..., object], *args: object) -> None:
        step(*args)
        self._driver.flush()

    def _flush_soon(self) -> None:
        self._driver.flush_soon()

    def _call_soon(self, callback: Callable[[], object]) -> None:
        self._driver.call_soon(callback)

    def _now(self) -> float:
        # A session that has ended can be closed from anywhere: in a forked child, for one.
        return self._core.ledger.now if self._driver.lost else trio.current_time()

    def _trio_error(self, exc: SessionError) -> trio.ClosedResourceError | trio.BrokenResourceError:
        kind = (
            trio.ClosedResourceError if self._core.ledger.closed_here else trio.BrokenResourceError
        )
        return kind(str(exc))


def _streams(stream: Any) -> Iterator[Any]:
    """Yield a stream and those underneath, down to the one that has a socket."""
    yield stream
    while not hasattr(stream, "socket") and hasattr(stream, "transport_stream"):
        stream = stream.transport_stream
        yield stream
