"""A dialer for threads: it stays connected, as `Redial` decides.

How it works. One thread, the dialer's own, tells `Redial` what has happened and does what that has
decided; nothing else changes a `Redial`, except to end it. Each dial runs in a thread of its own,
and so does the wait for a session's end: they, the sessions' threads and the calls leave what has
happened in an inbox. A call that waits sleeps on a `Waiter`, looks again after each change, and
holds no lock, so that a signal's handler may raise in it anywhere.
"""

from __future__ import annotations

import contextlib
import os
import queue
import ssl as ssl_module
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ..base_dialer import (
    BaseDialer,
    check_policy,
    check_targets,
    describe_places,
    dial_places,
    failure_of,
    unusable,
)
from ..config import Config
from ..endpoint import check_handler, client_context
from ..errors import ErrorCode, SessionError, StreamRefused, UsageError
from ..front_end import code_of
from ..redial import FINAL, Backoff, DialerState, Redial
from .connecting import connect
from .locks import Waiter, deadline_of, join
from .session import Session
from .stream import Stream
from .workers import Running

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Dialer"]

T = TypeVar("T")


class Dialer(BaseDialer[Session]):
    """Stays connected: dials a session, and the next one whenever it can't be used any more.

    ::

        with muxado.sync.Dialer("hub.example", 4000, ssl=True) as dialer:
            stream = dialer.open()

    It begins to dial when its block is entered, which waits for nothing; leaving the block ends
    its sessions, in order, or at once if the block raises, within `Config.close_timeout`. Any
    thread may use it.

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
        dial: Callable[[], Session] | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        config: Config | None = None,
        timeout: float | None = 30.0,
        name: str = "",
        source_address: tuple[str, int] | None = None,
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
            dial: call this function for each try instead, in a thread of its own; it returns a
                session, as `connect` does, or raises. A ``retry_after`` attribute of an exception
                that it raises is the least pause in seconds before the next try, up to an hour.
            ssl: as for `connect`.
            server_hostname: as for `connect`.
            config: the sessions' settings.
            timeout: seconds for each try; None: no limit. A `dial` function has its own.
            name: what to call the sessions; see `Session.name`.
            source_address: as for `connect`.
            proxy: as for `connect`; "env" is looked up once.
            backoff: the pauses between tries.
            final: what ends all tries: exception classes, and codes, which the `code` or `status`
                of an exception is compared with. Every call that waits raises that exception.
            on_change: called with the new `state` when it has changed, by the dialer's own
                thread. It must not wait; what it raises is logged.

        Raises:
            UsageError: not exactly one of host and port, path, addresses, or dial was given, or
                an argument can't be.
        """
        options: list[tuple[str, object]] = [
            ("ssl", ssl),
            ("server_hostname", server_hostname),
            ("config", config),
            ("name", name),
            ("source_address", source_address),
            ("proxy", proxy),
        ]
        places = dial_places(host, port, path, addresses, dial, options)
        redial: Redial[Session] = Redial(len(places) or 1, backoff, check_policy(backoff, final))
        super().__init__(describe_places(places, dial), redial, on_change)
        context = client_context(ssl, config)  # once for all: it reads the system's authorities
        check_targets(places, context, server_hostname, timeout, config, name, proxy)
        self._dials: list[Callable[[], Session]] = [] if dial is None else [dial]
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
                    source_address=source_address,
                )
            )
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._waiters: set[Waiter] = set()
        self._sessions: dict[Session, int] = {}  # those that live, numbered as they came
        self._count = 0
        self._thread = threading.Thread(target=self._run, name="muxado dialer", daemon=True)

    # Using

    def session(self, timeout: float | None = None) -> Session:
        """Wait until there is a session that takes streams, and return it.

        It may end, or its peer say GOAWAY, at any time: `open` deals with that.

        Args:
            timeout: seconds to wait; None: for as long as it takes.

        Raises:
            TimeoutError: there was none in that time.
            SessionClosed: the dialer is closed.
            UsageError: its block was not entered.

        Otherwise it raises the final error, once there is one.
        """
        return self._wait_for(self._usable, deadline_of(timeout))

    def _usable(self) -> Session | None:
        self._check()
        session = self._redial.usable
        if session is None or not unusable(session):
            return session
        self._spent(session, failure_of(session))  # its own thread has not told of it yet
        return None

    def open(
        self,
        *,
        type: int | None = None,
        priority: int = 0,
        eager: bool = False,
        timeout: float | None = None,
    ) -> Stream:
        """Open a stream on the session that lives; wait for one through an outage.

        A session that has ended, or takes no more streams, costs no error: the next one is waited
        for. The peer hears nothing of a stream before its first write, so nothing is sent twice.

        Args:
            type: as for `Session.open`.
            priority: as for `Session.open`.
            eager: as for `Session.open`.
            timeout: seconds to wait for a session; None: for as long as it takes.

        Raises:
            TimeoutError: there was none in that time.
            UsageError: the type or the priority can't be, or the block was not entered.
            SessionClosed: the dialer is closed.

        Otherwise it raises the final error, once there is one.
        """
        deadline = deadline_of(timeout)
        while True:
            session = self._wait_for(self._usable, deadline)
            try:
                return session.open(type=type, priority=priority, eager=eager)
            except SessionError as exc:
                self._spent(session, exc)
                self._wait_for(partial(self._is_replaced, session), deadline)

    def _is_replaced(self, session: Session) -> bool | None:
        """Return whether the dialer's thread knows that a session can't be used any more."""
        return self._redial.over or session is not self._redial.usable or None

    def call(
        self,
        function: Callable[[Stream], T],
        *,
        type: int | None = None,
        priority: int = 0,
        timeout: float | None = None,
    ) -> T:
        """Call `function(stream)` on a fresh stream, and return what it returns.

        If the peer refuses the stream unseen (`StreamRefused`), it is called again with another
        one after a pause. Nothing else is tried again, since the peer may have seen it. The stream
        is closed when the function returns, and reset if it raises.

        Args:
            function: what to call. What it has done before the refusal, it does again.
            type: as for `Session.open`.
            priority: as for `Session.open`.
            timeout: seconds for all tries. It ends the waits for sessions and between tries; the
                function's own waits are up to it. None: no limit.

        Raises:
            TimeoutError: the time is up, or will be before the next try.
            Exception: what the function raises, and what `open` does.
        """
        deadline = deadline_of(timeout)
        tries = 0
        while True:
            rest = None if deadline is None else max(0.0, deadline - monotonic())
            with self.open(type=type, priority=priority, timeout=rest) as stream:
                try:
                    return function(stream)
                except StreamRefused:
                    if not stream.refused:  # it was another stream's
                        raise
            again = monotonic() + self._redial.pause(tries)
            if deadline is not None and again >= deadline:
                raise TimeoutError("timed out")
            with contextlib.suppress(TimeoutError):
                self._wait_for(self._is_over, again)
            tries += 1

    def _is_over(self) -> bool | None:
        return self._redial.over or None

    def serve(
        self,
        handler: Callable[[Stream], object],
        *,
        executor: Executor | None = None,
        limit: int | None = None,
    ) -> None:
        """Run `handler(stream)` for each stream that the peer opens, whichever session lives.

        While one session is let go and the next is there, the streams of both are served.

        Args:
            handler: a function; see `Session.serve`.
            executor: run the handlers there instead of in threads of their own.
            limit: how many handlers may run at once for one session; see `Session.serve`.

        Returns:
            when the dialer was closed and the handlers are done, or are left as `Session.serve`
            leaves them.

        Raises:
            UsageError: the block was not entered, or a session's streams are taken otherwise.
            RuntimeError: no thread can be started, or the executor takes no more.

        Otherwise it raises the final error, once there is one and the handlers are done. What a
        signal's handler raises ends this call; the sessions that live are served to their end.
        """
        check_handler(handler)
        self._check()
        running: Running[Session] = Running()
        failures: list[Exception] = []
        served = 0

        def run(session: Session) -> None:
            try:
                session.serve(handler, executor=executor, limit=limit)
            except SessionError:
                pass  # the next session is being dialled
            except Exception as exc:  # a wrong use of the session, or an executor that is over
                failures.append(exc)
            finally:
                running.remove(session)
                self._wake()

        def changed() -> bool | None:
            later = any(number > served for number in list(self._sessions.values()))
            return later or bool(failures) or self._redial.over or None

        while True:
            # Also those that came just before a shutdown: it waits for their streams.
            for session, number in list(self._sessions.items()):
                if number > served:
                    running.add(session)
                    threading.Thread(
                        target=run, args=(session,), name="muxado dialer's streams", daemon=True
                    ).start()
                    served = number
            if self._redial.over or failures:
                break
            self._wait_for(changed, None)
        if failures:
            raise failures[0]
        running.wait()
        if not self._redial.closed:
            self._check()

    def __iter__(self) -> Iterator[Session]:
        """Iterate over the sessions, beginning with the one that lives, until it is closed."""
        number = self._count - (self._redial.usable is not None)
        while sessions := self._wait_for(partial(self._later_sessions, number), None):
            number = sessions[0][1]
            yield sessions[0][0]

    def _later_sessions(self, number: int) -> list[tuple[Session, int]] | None:
        """Return the sessions that came after others, with their numbers; [] if none will."""
        if self._redial.closed:
            return []
        self._check()
        return [found for found in list(self._sessions.items()) if found[1] > number] or None

    def renew(self) -> None:
        """Dial the next session now, and let this one go when the next is there.

        Streams are opened on this one until then. If the dialer waits for its next try, it tries
        at once. It does nothing while a dial is under way, or once the dialer is closed or has
        failed. It doesn't wait.
        """
        self._post(self._renew)

    def _renew(self) -> None:
        self._redial.renew(monotonic())

    # The end

    def close(self) -> None:
        """Dial no more, and close every session in order. Harmless if repeated.

        It doesn't wait: `wait_closed` does.
        """
        for session in self._stop():
            session.close()

    def shutdown(self, timeout: float | None = 30.0) -> None:
        """End gracefully: dial no more, and let every session come to its end.

        Streams can't be opened any more, and the peer is told to open none; those that are open
        run to their end, and so do the handlers of `serve`.

        Args:
            timeout: seconds for the streams that are open; then their session is aborted.

        Raises:
            RuntimeError: no thread can be started; the sessions go on.
        """
        threads = [
            threading.Thread(
                target=session.shutdown,
                args=(timeout,),
                name="muxado dialer's session",
                daemon=True,
            )
            for session in self._stop()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            join(thread)
        self.wait_closed()

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the dialer is closed and its sessions are gone.

        A dial that is under way can't be stopped in a thread: its session is aborted when it comes.

        Args:
            timeout: seconds to wait; None: for as long as it takes, which after `close` is
                `Config.close_timeout` at most.

        Raises:
            TimeoutError: it took longer; nothing is changed by that.
        """
        if not join(self._thread, deadline_of(timeout)):
            raise TimeoutError("timed out")

    def __enter__(self) -> Self:
        self._enter()
        self._redial.renew(monotonic())
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc_type is None:
                self.close()
            else:
                self._abort(code_of(exc_type))
            self.wait_closed()
        except BaseException:
            self._abort(ErrorCode.STREAM_CANCELLED)
            raise

    def _abort(self, code: ErrorCode) -> None:
        for session in self._stop():
            session.abort(code)

    def _stop(self) -> list[Session]:
        """Dial no more; return the sessions that live."""
        self._redial.close()
        self._wake()
        self._post(self._wake)  # so that the thread looks
        return list(self._sessions)

    # What the calls and other threads do

    def _post(self, step: Callable[[], object]) -> None:
        """Leave something for the dialer's thread to do."""
        self._inbox.put(step)

    def _spent(self, session: Session, exc: SessionError) -> None:
        self._post(lambda: self._redial.spent(session, exc, monotonic()))

    def _wake(self) -> None:
        for waiter in list(self._waiters):
            waiter.wake()

    def _wait_for(self, look: Callable[[], T | None], deadline: float | None) -> T:
        """Wait until a look gives something, and return that.

        Raises:
            TimeoutError: the time was up.
        """
        waiter = Waiter()
        try:
            # First, so that no wake-up is missed between the look and the wait.
            self._waiters.add(waiter)
            while (found := look()) is None:
                if not waiter.wait(deadline):
                    raise TimeoutError("timed out")
            return found
        finally:
            self._waiters.discard(waiter)

    # The dialer's thread

    def _run(self) -> None:
        """Do what is in the inbox, and dial whenever it is time, until all is over."""
        redial = self._redial
        while not redial.closed or self._sessions:
            due = redial.due
            rest = None if due is None else max(0.0, due - monotonic())
            with contextlib.suppress(queue.Empty):
                self._inbox.get(timeout=rest)()
            due = redial.due
            if due is not None and due <= monotonic() and not redial.over:
                self._begin_dial()
            self._follow()

    def _begin_dial(self) -> None:
        dial = self._dials[self._redial.begin_dial()]
        try:
            self._start(self._dial, dial)
        except RuntimeError as exc:  # there is no thread
            self._redial.dial_failed(exc, monotonic())

    def _dial(self, dial: Callable[[], Session]) -> None:
        """Dial, in a thread of its own."""
        try:
            session = dial()
            if not isinstance(session, Session):
                raise UsageError(f"dial= must give a muxado.sync.Session, not {session!r}")
        except BaseException as exc:
            failure = exc
            self._post(lambda: self._redial.dial_failed(failure, monotonic()))
        else:
            self._post(partial(self._take, session))
            if self._redial.closed:  # perhaps without a thread that does it
                session.abort(ErrorCode.STREAM_CANCELLED)

    def _take(self, session: Session) -> None:
        """Begin to use a session that was dialled."""
        try:
            self._start(self._watch, session)
        except RuntimeError as exc:
            session.abort(ErrorCode.INTERNAL_ERROR)
            self._redial.dial_failed(exc, monotonic())
            return
        if not self._redial.over:
            self._redial.dialled(session, monotonic())
        self._count += 1
        self._sessions[session] = self._count
        if self._redial.over:  # the calls that ended it may not have seen this one
            session.abort(ErrorCode.STREAM_CANCELLED)
        session.on_draining(partial(self._post, partial(self._drains, session)))

    def _watch(self, session: Session) -> None:
        """Wait for a session's end, in a thread of its own."""
        session.wait_closed()
        self._post(partial(self._ended, session))

    def _ended(self, session: Session) -> None:
        del self._sessions[session]
        self._redial.ended(session, failure_of(session), monotonic())

    def _drains(self, session: Session) -> None:
        """Take note that a session takes no more streams of ours, or of the peer's."""
        if unusable(session):
            self._redial.spent(session, failure_of(session), monotonic())
        elif session is self._redial.usable:  # this side has called its go_away()
            self._renew()

    def _follow(self) -> None:
        """Do what has been decided."""
        for session in self._redial.take_drains():
            try:
                self._start(session.shutdown, None)
            except RuntimeError:
                session.close()
        for session in self._redial.take_surplus():
            session.abort(ErrorCode.STREAM_CANCELLED)
        self._wake()
        self._announce(monotonic())

    def _start(self, function: Callable[..., object], *args: Any) -> None:
        threading.Thread(
            target=function, args=args, name="muxado dialer's session", daemon=True
        ).start()
