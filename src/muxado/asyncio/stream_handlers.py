"""The tasks that `Session.serve` runs, one for each stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial

from ..base_stream import give_up
from ..core import CLOSED, CoreStream
from ..errors import MuxadoError
from ..front_end import code_of, log_stream_failure
from .driver import Driver
from .stream import Stream


class StreamHandlers:
    """Runs a handler for each stream that waits to be accepted.

    The tasks are started where the streams come in, without another task that accepts them,
    and without a TaskGroup: both would cost more than all else that a short stream costs.

    Args:
        driver: the session's driver.
        handler: a coroutine function.
        limit: how many may run at once, None for any number.
        cancel_on_reset: whether one is cancelled when the peer resets its stream.
        wrap: makes the handler's `Stream`.
    """

    __slots__ = (
        "_cancel_on_reset",
        "_context",
        "_driver",
        "_handler",
        "_limit",
        "_tasks",
        "_wrap",
    )

    def __init__(
        self,
        driver: Driver,
        handler: Callable[[Stream], Awaitable[object]],
        limit: int | None,
        cancel_on_reset: bool,
        wrap: Callable[[CoreStream], Stream],
    ) -> None:
        self._driver = driver
        self._handler = handler
        self._limit = limit
        self._cancel_on_reset = cancel_on_reset
        self._wrap = wrap
        self._tasks: dict[Stream, asyncio.Task[None]] = {}
        # What the caller of `serve` has set, and not what the transport's callbacks run in.
        self._context = copy_context()

    def start(self) -> None:
        """Start a task for each stream that waits, as far as the limit allows."""
        core = self._driver.core
        create_task = self._driver.loop.create_task
        tasks = self._tasks
        while core.table.acceptable and (self._limit is None or len(tasks) < self._limit):
            accepted = core.accept()
            assert accepted is not None
            stream = self._wrap(accepted)
            task = create_task(self._run(stream, accepted), context=self._context.copy())
            if task.done():  # a loop with eager tasks has run it to its end
                continue
            tasks[stream] = task
            if self._limit is not None:
                task.add_done_callback(partial(self._make_room, stream))
            if self._cancel_on_reset:
                self._watch(accepted, task)

    async def wait(self) -> None:
        """Wait until all are done, and no stream waits."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())
            for stream in [stream for stream, task in self._tasks.items() if task.done()]:
                self._forget(stream)

    async def cancel(self) -> None:
        """Cancel all, and wait until they are done, even if cancelled again."""
        self._limit = 0
        for task in self._tasks.values():
            task.cancel()
        while self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await self.wait()

    def _watch(self, stream: CoreStream, task: asyncio.Task[None]) -> None:
        """Cancel a handler's task once the peer has reset its stream."""
        if task.done():
            return
        if stream.state == CLOSED:
            if stream.reset_by_peer:
                task.cancel("the peer reset the stream")
            return
        waiter = self._driver.loop.create_future()
        waiter.add_done_callback(lambda _: self._watch(stream, task))
        stream.await_end(waiter)

    def _make_room(self, stream: Stream, _: asyncio.Task[None]) -> None:
        self._forget(stream)
        self.start()

    def _forget(self, stream: Stream) -> None:
        """Forget a stream whose task is done, if the task was cancelled before it began."""
        if self._tasks.pop(stream, None) is not None:
            give_up(stream)

    async def _run(self, stream: Stream, core: CoreStream) -> None:
        try:
            await self._handler(stream)
            stream.close()
            if core.stalled():
                await stream.wait_closed()
            else:
                self._driver.flush_before_wait()
        except BaseException as exc:
            give_up(stream, code_of(type(exc)))
            failed = isinstance(exc, Exception) and not self._driver.loop.is_closed()
            if not failed and not isinstance(exc, MuxadoError):
                raise
            log_stream_failure(stream, exc)
        finally:
            self._tasks.pop(stream, None)
