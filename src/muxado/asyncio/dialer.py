"""A dialer for asyncio: it stays connected, as `Redial` decides.

How it works. One task dials, whenever `Redial` says that it is time. Each session has a task that
waits for its end, and one that is let go has another one that shuts it down. They, and the calls,
take steps: a step tells `Redial` what has happened, does what that has decided, and wakes all
calls that wait, which look whether what they wait for is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ..base_dialer import (
    AsyncDialer,
    check_policy,
    check_targets,
    describe_places,
    dial_places,
    logger,
)
from ..config import Config
from ..endpoint import check_handler, check_timeout, client_context
from ..errors import ErrorCode, SessionError, StreamRefused, UsageError
from ..front_end import code_of
from ..redial import FINAL, Backoff, DialerState, Redial
from .awaitable import can_wait
from .connecting import prepare
from .session import Session
from .stream import Stream

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Dialer"]

T = TypeVar("T")


class Dialer(AsyncDialer[Session, Stream]):
    """Stays connected: dials a session, and the next one whenever it can't be used any more.

    ::

        async with muxado.Dialer("hub.example", 4000, ssl=True) as dialer:
            stream = await dialer.open()

    It begins to dial when its block is entered, which waits for nothing; leaving the block ends
    its sessions, in order, or at once if the block raises, within `Config.close_timeout`.

    A session that ends is followed by another one, after a pause that is random and grows with
    each try (see `Backoff`). When the peer says GOAWAY, the next session is dialled before the
    last one is let go: its streams run to their end, then it is closed. After every error
    it tries again, except after those that `final` names.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        addresses: Sequence[tuple[str, int]] | None = None,
        dial: Callable[[], Awaitable[Session]] | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        config: Config | None = None,
        timeout: float | None = 30.0,
        name: str = "",
        proxy: str | None = None,
        backoff: Backoff = Backoff(),  # noqa: B008  # it can't be changed
        final: Iterable[type[BaseException] | int] = FINAL,
        on_change: Callable[[DialerState], object] | None = None,
        **kwds: Any,
    ) -> None:
        """Say where and how to dial.

        Args:
            host: the host to dial over TCP.
            port: its port.
            path: dial this Unix socket instead.
            addresses: dial these pairs of host and port instead, a try each, in turn.
            dial: call this function for each try instead, and await what it returns: a session,
                as from `connect`. A ``retry_after`` attribute of an exception that it raises is
                the least pause in seconds before the next try, up to an hour.
            ssl: as for `connect`.
            server_hostname: as for `connect`.
            config: the sessions' settings.
            timeout: seconds for each try. None: no limit.
            name: what to call the sessions; see `Session.name`.
            proxy: as for `connect`; "env" is looked up once.
            backoff: the pauses between tries.
            final: what ends all tries: exception classes, and codes, which the `code` or `status`
                of an exception is compared with. Every call that waits raises that exception.
            on_change: called with the new `state` when it has changed. It must not wait; what it
                raises is logged.
            kwds: further arguments of `connect`.

        Raises:
            UsageError: not exactly one of host and port, path, addresses, or dial was given, or
                an argument can't be.
            TypeError: an argument is unknown.
        """
        options = {"ssl": ssl, "server_hostname": server_hostname, "config": config}
        options |= {"name": name, "proxy": proxy}
        places = dial_places(host, port, path, addresses, dial, (options | kwds).items())
        redial: Redial[Session] = Redial(len(places) or 1, backoff, check_policy(backoff, final))
        super().__init__(describe_places(places, dial), redial, on_change)
        context = client_context(ssl, config)  # once for all: it reads the system's authorities
        targets = check_targets(places, context, server_hostname, timeout, config, name, proxy)
        self._dials: list[Callable[[], Awaitable[Session]]] = []
        if dial is not None:
            self._dials.append(partial(self._call_dial, dial, check_timeout(timeout)))
        self._dials += [prepare(target, config, name, kwds) for target in targets]
        self._close_timeout = (config or Config()).close_timeout
        self._runner: asyncio.Task[None] | None = None
        self._sessions = {}
        self._count = 0
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # Using

    async def call(
        self,
        function: Callable[[Stream], Awaitable[T]],
        *,
        type: int | None = None,
        priority: int = 0,
    ) -> T:
        """Call `function(stream)` on a fresh stream, and return what it returns.

        If the peer refuses the stream unseen (`StreamRefused`), it is called again with another
        one after a pause, for as long as it takes: put `asyncio.timeout` around it. Nothing else is
        tried again, since the peer may have seen it. The stream is closed when the function
        returns, and reset if it raises.

        Args:
            function: a coroutine function. What it has done before the refusal, it does again.
            type: as for `Session.open`.
            priority: as for `Session.open`.

        Raises:
            Exception: what the function raises, and what `open` does.
        """
        tries = 0
        while True:
            stream = await self.open(type=type, priority=priority)
            async with stream:
                try:
                    return await function(stream)
                except StreamRefused:
                    if not stream.refused:  # it was another stream's
                        raise
            await self._pause(self._redial.pause(tries))
            tries += 1

    async def _pause(self, seconds: float) -> None:
        """Pause before a refused call is tried again, unless all is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._redial.over:
                    await self._changed.wait()

    async def serve(
        self,
        handler: Callable[[Stream], Awaitable[object]],
        *,
        limit: int | None = None,
        cancel_on_reset: bool = False,
    ) -> None:
        """Run `handler(stream)` for each stream that the peer opens, whichever session lives.

        While one session is let go and the next is there, the streams of both are served.
        Cancelled, it cancels the handlers and waits for them.

        Args:
            handler: a coroutine function; see `Session.serve`.
            limit: how many handlers may run at once for one session.
            cancel_on_reset: cancel a handler when the peer resets its stream.

        Returns:
            when the dialer was closed and the handlers are done.

        Raises:
            UsageError: the block was not entered, or a session's streams are taken otherwise.

        Otherwise it raises the final error, once there is one and the handlers are done.
        """
        check_handler(handler)
        tasks: set[asyncio.Task[None]] = set()
        served = 0

        async def serve(session: Session) -> None:
            try:
                await session.serve(handler, limit=limit, cancel_on_reset=cancel_on_reset)
            except SessionError:
                pass  # the next session is being dialled
            finally:
                self._wake()

        try:
            while True:
                # Also those that came just before a shutdown: it waits for their streams.
                for session, number in list(self._sessions.items()):
                    if number > served:
                        tasks.add(self._start(serve(session)))
                        served = number
                for task in [task for task in tasks if task.done()]:
                    tasks.remove(task)
                    await task  # raises what a wrong use of the session does
                if self._redial.failure is not None:
                    await _all(tasks)
                if self._redial.closed:
                    break
                self._check()
                await self._changed.wait()
            await _all(tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await _all(tasks)
            raise

    # The end

    async def shutdown(self, timeout: float | None = 30.0) -> None:
        """End gracefully: dial no more, and let every session come to its end.

        Streams can't be opened any more, and the peer is told to open none; those that are open
        run to their end, and so do the handlers of `serve`. Cancelled, it leaves them draining.

        Args:
            timeout: seconds for the streams that are open; then their session is aborted.
        """
        self._step(self._dial_no_more)
        await asyncio.gather(*[session.shutdown(timeout) for session in self._sessions])
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until the dialer is closed and its sessions are gone.

        A `dial` function that goes on although it was cancelled is left to itself after
        `Config.close_timeout`, which is logged.
        """
        while not self._redial.closed:
            await self._changed.wait()
        for session in list(self._sessions):
            await session.wait_closed()
        tasks = set(self._tasks)
        if self._runner is not None:
            tasks.add(self._runner)
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=self._close_timeout)
            if left:
                logger.warning("%r: %d tasks go on although they were cancelled", self, len(left))

    async def __aenter__(self) -> Self:
        self._enter()
        self._redial.renew(monotonic())
        self._runner = asyncio.create_task(self._run(), name="muxado dialer")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not can_wait():
            return
        if exc_type is None:
            self.close()
        else:
            self._step(self._stop, code_of(exc_type))
        try:
            await self.wait_closed()
        except asyncio.CancelledError:
            self._step(self._stop, ErrorCode.STREAM_CANCELLED)
            raise

    # Dialling

    async def _run(self) -> None:
        """Dial whenever it is time."""
        redial = self._redial
        while not redial.over:
            due = redial.due
            rest = None if due is None else due - monotonic()
            if rest is None or rest > 0:
                changed = self._changed
                try:
                    async with asyncio.timeout(rest):
                        await changed.wait()
                except TimeoutError:
                    pass
                continue
            dial = self._dials[redial.begin_dial()]
            self._step(lambda: None)
            try:
                session = await dial()
            except Exception as exc:
                self._step(self._failed, exc)
            else:
                self._step(self._take, session)
                self._start(self._watch(session))

    async def _call_dial(
        self, dial: Callable[[], Awaitable[Session]], timeout: float | None
    ) -> Session:
        """Let the function dial that was given, for as long as a try may take."""
        try:
            async with asyncio.timeout(timeout) as limit:
                dialling = dial()
                if not inspect.isawaitable(dialling):
                    raise UsageError(f"dial= must return an awaitable, not {dialling!r}")
                session = await dialling
        except TimeoutError:
            if limit.expired():
                message = f"no session within {timeout:g} seconds"
                raise TimeoutError(errno.ETIMEDOUT, message) from None
            raise
        if not isinstance(session, Session):
            raise UsageError(f"dial= must give a muxado.Session, not {session!r}")
        return session

    async def _watch(self, session: Session) -> None:
        await session.wait_closed()
        self._step(self._ended, session)

    # For the shared part

    def _now(self) -> float:
        return monotonic()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _let_go(self, session: Session) -> None:
        self._start(session.shutdown(None))

    def _stop_dialling(self) -> None:
        if self._runner is not None:
            self._runner.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name="muxado dialer's session")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _all(tasks: set[asyncio.Task[None]]) -> None:
    """Wait for tasks, whatever they raise."""
    if tasks:
        await asyncio.wait(tasks)
