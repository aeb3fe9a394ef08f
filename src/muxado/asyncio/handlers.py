"""The tasks that `Session.serve` runs, one for each stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial

from ..core import CoreStream
from ..errors import MuxadoError
from .driver import Driver
from .stream import Stream

logger: logging.Logger = logging.getLogger("muxado")


class Handlers:
    """Runs a handler for each stream that waits to be accepted.

    The tasks are started where the streams come in, without another task that accepts them,
    and without a TaskGroup: both would cost more than all else that a short stream costs.

    Args:
        driver: the session's driver.
        handler: a coroutine function.
        limit: how many may run at once, None for any number.
        wrap: makes the handler's `Stream`.
    """

    __slots__ = ("_context", "_driver", "_handler", "_limit", "_tasks", "_wrap")

    def __init__(
        self,
        driver: Driver,
        handler: Callable[[Stream], Awaitable[object]],
        limit: int | None,
        wrap: Callable[[CoreStream], Stream],
    ) -> None:
        self._driver = driver
        self._handler = handler
        self._limit = limit
        self._wrap = wrap
        self._tasks: dict[Stream, asyncio.Task[None]] = {}
        # What the caller of `serve` has set, and not what the transport's callbacks run in.
        self._context = copy_context()

    def start(self) -> None:
        """Start a task for each stream that waits, as far as the limit allows."""
        core = self._driver.core
        create_task = self._driver.loop.create_task
        tasks = self._tasks
        while core.accept_queue and (self._limit is None or len(tasks) < self._limit):
            accepted = core.accept()
            assert accepted is not None
            stream = self._wrap(accepted)
            task = create_task(self._run(stream), context=self._context.copy())
            if task.done():  # a loop with eager tasks has run it to its end
                continue
            tasks[stream] = task
            if self._limit is not None:
                task.add_done_callback(partial(self._make_room, stream))

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

    def _make_room(self, stream: Stream, _: asyncio.Task[None]) -> None:
        self._forget(stream)
        self.start()

    def _forget(self, stream: Stream) -> None:
        """Forget a stream whose task is done, if the task was cancelled before it began."""
        if self._tasks.pop(stream, None) is not None:
            stream.reset()

    async def _run(self, stream: Stream) -> None:
        try:
            await self._handler(stream)
            stream.close()
            if stream._core.stalled():
                await stream.wait_closed()
            else:
                self._driver.flush_before_wait()
        except BaseException as exc:
            stream._fail(exc)
            if isinstance(exc, MuxadoError):
                logger.info("stream %d of %r: %s", stream.id, stream.session, exc)
            elif isinstance(exc, Exception):
                logger.exception("the handler of stream %d of %r failed", stream.id, stream.session)
            else:
                raise
        finally:
            self._tasks.pop(stream, None)
