"""A dialer for trio: it stays connected, as `Redial` decides.

How it works. All tasks live in the nursery of the dialer's block. One begins a dial whenever
`Redial` says that it is time. Each dial has a task, which its session's block then lives in, and a
session that is let go has another one that shuts it down. They, and the calls, take steps: a step
tells `Redial` what has happened, does what that has decided, and wakes all calls that wait, which
look whether what they wait for is there.
"""

from __future__ import annotations

import errno
import inspect
import os
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import trio

from ..base_dialer import (
    AsyncDialer,
    check_policy,
    check_targets,
    describe_places,
    dial_places,
)
from ..config import Config
from ..endpoint import check_handler, check_timeout, client_context
from ..errors import SessionClosed, StreamRefused, UsageError
from ..front_end import code_of
from ..redial import FINAL, Backoff, DialerState, Redial
from .connecting import connect
from .errors import original
from .session import Session
from .stream import Stream

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Dialer"]

T = TypeVar("T")

Block = AbstractAsyncContextManager[Session]


class Dialer(AsyncDialer[Session, Stream]):
    """Stays connected: dials a session, and the next one whenever it can't be used any more.

    ::

        async with muxado.trio.Dialer("hub.example", 4000, ssl=True) as dialer:
            stream = await dialer.open()

    It begins to dial when its block is entered, which waits for nothing; its sessions live in the
    block's nursery. Leaving the block ends them, in order, or at once if the block raises, within
    `Config.close_timeout`.

    A session that ends is followed by another one, after a pause that is random and grows with
    each try (see `muxado.Backoff`). When the peer says GOAWAY, the next session is dialled before
    the last one is let go: its streams run to their end, then it is closed. After every error
    it tries again, except after those that `final` names.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        addresses: Sequence[tuple[str, int]] | None = None,
        dial: Callable[[], Block | Awaitable[Block]] | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        config: Config | None = None,
        timeout: float | None = 30.0,
        name: str = "",
        proxy: str | None = None,
        backoff: Backoff = Backoff(),  # noqa: B008  # it can't be changed
        final: Iterable[type[BaseException] | int] = FINAL,
        on_change: Callable[[DialerState], object] | None = None,
    ) -> None:
        """Say where and how to dial.

        Args:
            host: the host to dial over TCP.
            port: its port.
            path: dial this Unix socket instead.
            addresses: dial these pairs of host and port instead, a try each, in turn.
            dial: call this function for each try instead, which may be async. It returns what
                `connect` does: a block that gives a session when it is entered. A ``retry_after``
                attribute of an exception that either raises is the least pause in seconds before
                the next try, up to an hour.
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

        Raises:
            UsageError: not exactly one of host and port, path, addresses, or dial was given, or
                an argument can't be.
        """
        options = {"ssl": ssl, "server_hostname": server_hostname, "config": config}
        options |= {"name": name, "proxy": proxy}
        places = dial_places(host, port, path, addresses, dial, options.items())
        redial: Redial[Session] = Redial(len(places) or 1, backoff, check_policy(backoff, final))
        super().__init__(describe_places(places, dial), redial, on_change)
        context = client_context(ssl, config)  # once for all: it reads the system's authorities
        check_targets(places, context, server_hostname, timeout, config, name, proxy)
        self._timeout = check_timeout(timeout)
        self._dials: list[Callable[[], Block | Awaitable[Block]]] = [] if dial is None else [dial]
        for each in places:
            self._dials.append(
                partial(
                    connect,
                    each.host,
                    each.port,
                    path=each.path,
                    ssl=context,
                    server_hostname=server_hostname,
                    config=config,
                    timeout=timeout,
                    name=name,
                    proxy=proxy,
                )
            )
        self._sessions = {}
        self._count = 0
        self._changed = trio.Event()
        self._dial_scope: trio.CancelScope | None = None  # of the dial that is under way
        self._fatal: BaseException | None = None  # what must end the program

    # Using

    async def call(
        self,
        function: Callable[[Stream], Awaitable[T]],
        *,
        type: int | None = None,
        priority: int = 0,
    ) -> T:
        """Call `function(stream)` on a fresh stream, and return what it returns.

        If the peer refuses the stream unseen (`StreamRefused` as the cause of trio's error), it is
        called again with another one after a pause, for as long as it takes: put
        `trio.fail_after` around it. Nothing else is tried again, since the peer may have seen it.
        The stream is closed when the function returns, and reset if it raises.

        Args:
            function: an async function. What it has done before the refusal, it does again.
            type: as for `Session.open`.
            priority: as for `Session.open`.

        Raises:
            Exception: what the function raises, and what `open` does.
        """
        tries = 0
        while True:
            async with await self.open(type=type, priority=priority) as stream:
                try:
                    return await function(stream)
                except (trio.BrokenResourceError, StreamRefused) as exc:
                    # Another stream's refusal is none of this one.
                    if not isinstance(original(exc), StreamRefused) or not stream.refused:
                        raise
            with trio.move_on_after(self._redial.pause(tries)):
                while not self._redial.over:
                    await self._changed.wait()
            tries += 1

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
            handler: an async function; see `Session.serve`.
            limit: how many handlers may run at once for one session.
            cancel_on_reset: cancel a handler when the peer resets its stream.

        Returns:
            when the dialer was closed and the handlers are done.

        Raises:
            UsageError: the block was not entered, or a session's streams are taken otherwise.

        Otherwise it raises the final error, once there is one and the handlers are done.
        """
        check_handler(handler)
        self._check()
        failures: list[Exception] = []
        served = 0

        async def serve(session: Session) -> None:
            try:
                await session.serve(handler, limit=limit, cancel_on_reset=cancel_on_reset)
            except trio.BrokenResourceError:
                pass  # the next session is being dialled
            except UsageError as exc:
                failures.append(exc)
                self._wake()

        async with trio.open_nursery() as nursery:
            while True:
                # Also those that came just before a shutdown: it waits for their streams.
                for session, number in list(self._sessions.items()):
                    if number > served:
                        nursery.start_soon(serve, session, name="muxado dialer's streams")
                        served = number
                if self._redial.over or failures:
                    break
                await self._changed.wait()
            if failures:
                nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]
        if not self._redial.closed:
            self._check()

    # The end

    async def shutdown(self, timeout: float | None = 30.0) -> None:
        """End gracefully: dial no more, and let every session come to its end.

        Streams can't be opened any more, and the peer is told to open none; those that are open
        run to their end, and so do the handlers of `serve`. Cancelled, it leaves them draining.

        Args:
            timeout: seconds for the streams that are open; then their session is aborted.
        """
        self._step(self._dial_no_more)
        async with trio.open_nursery() as nursery:
            for session in self._sessions:
                nursery.start_soon(session.shutdown, timeout)
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until the dialer is closed and its sessions are gone."""
        await trio.lowlevel.checkpoint()
        while not self._redial.closed or self._sessions:
            await self._changed.wait()

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        self._enter()
        self._step(self._renew)
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(self._run, name="muxado dialer")
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        failure = exc
        try:
            if failure is None:
                self.close()
                try:
                    await self.wait_closed()
                except BaseException as caught:
                    failure = caught
            if failure is not None:
                self._step(self._stop, code_of(type(failure)))
            # The sessions end within a bounded time. The nursery is not given the exception, which
            # it would wrap into a group.
            self._nursery.cancel_scope.shield = True
            await self._manager.__aexit__(None, None, None)
            if self._fatal is not None:
                raise self._fatal
            if failure is not None and failure is not exc:
                raise failure
        finally:
            del failure, exc  # a cycle otherwise

    def _check(self) -> None:
        try:
            super()._check()
        except SessionClosed as exc:
            if not self._redial.closed:
                raise  # it is the final error
            raise trio.ClosedResourceError(str(exc)) from exc

    # Dialling

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        """Begin a dial whenever it is time."""
        redial = self._redial
        while not redial.over:
            due = redial.due
            if due is not None and due <= trio.current_time():
                dial = self._dials[redial.begin_dial()]
                self._nursery.start_soon(self._carry, dial, name="muxado dialer's session")
                self._step(lambda: None)
                continue
            with trio.move_on_at(inf if due is None else due):
                await self._changed.wait()

    @trio.lowlevel.enable_ki_protection
    async def _carry(self, dial: Callable[[], Block | Awaitable[Block]]) -> None:
        """Dial a session, and have its block here until its end."""
        taken: Session | None = None
        limit = inf if self._timeout is None else self._timeout
        try:
            with trio.move_on_after(limit) as scope:
                self._dial_scope = scope
                if self._redial.over:
                    scope.cancel()
                async with await _block(dial) as session:
                    if not isinstance(session, Session):
                        raise UsageError(f"dial= must give a muxado.trio.Session, not {session!r}")
                    scope.deadline = inf
                    self._dial_scope = None
                    taken = session
                    self._step(self._take, session)
                    await session.wait_closed()
            if taken is None:
                self._step(self._failed, _timed_out(limit))
        except Exception as exc:
            if taken is None:
                self._step(self._failed, exc)
        except trio.Cancelled:
            raise
        except BaseException as exc:  # KeyboardInterrupt, say
            self._fatal = exc
            self._nursery.cancel_scope.cancel()
        finally:
            if taken is not None:
                self._step(self._ended, taken)

    # For the shared part

    @trio.lowlevel.enable_ki_protection
    def _step(self, step: Callable[..., object], *args: object) -> None:
        super()._step(step, *args)

    async def _checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()

    def _now(self) -> float:
        return trio.current_time()

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _let_go(self, session: Session) -> None:
        self._nursery.start_soon(session.shutdown, None, name="muxado dialer's session")

    def _stop_dialling(self) -> None:
        if self._dial_scope is not None:
            self._dial_scope.cancel()


@trio.lowlevel.disable_ki_protection
async def _block(dial: Callable[[], Block | Awaitable[Block]]) -> Block:
    """Return the block that a function gives, which may be async."""
    found = dial()
    if inspect.isawaitable(found):
        found = await found
    if not isinstance(found, AbstractAsyncContextManager):
        raise UsageError(f"dial= must give what muxado.trio.connect() does, not {found!r}")
    return found


def _timed_out(limit: float) -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, f"no session within {limit:g} seconds")
