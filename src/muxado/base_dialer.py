"""What the dialers of all front ends share: their arguments, and how they are looked at."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import forks
from .config import Config
from .endpoint import Target, check_timeout, dial_target
from .errors import ErrorCode, SessionError, UsageError
from .redial import Backoff, DialerState, Redial
from .registry import check_name

if TYPE_CHECKING:
    from typing import Self

logger: logging.Logger = logging.getLogger("muxado.dialer")

SessionT = TypeVar("SessionT", bound=Any)
StreamT = TypeVar("StreamT")


class BaseDialer(Generic[SessionT]):
    """What the dialers of all front ends share: looking, telling of changes, and the fork."""

    _redial: Redial[SessionT]

    def __init__(
        self,
        where: str,
        redial: Redial[SessionT],
        on_change: Callable[[DialerState], object] | None,
    ) -> None:
        """Not for users."""
        if on_change is not None and not callable(on_change):
            raise UsageError(f"on_change= must be a function, not {on_change!r}")
        self._redial = redial
        self._where = where
        self._on_change = on_change
        self._told: tuple[str, float | None] = (redial.state, None)
        self._entered = False

    def __repr__(self) -> str:
        return f"<Dialer {self._where} {self.state}>"

    @property
    def state(self) -> DialerState:
        """What the dialer is doing, with the time of the next try."""
        return self._redial.state

    @property
    def last_error(self) -> BaseException | None:
        """The last error of a dial, or of a session that ended or takes no more streams.

        It is kept when a session is there again; None if there was none.
        """
        return self._redial.last_error

    def forget_in_child(self) -> None:
        """Leave the dialer to the parent process, after a fork. Not for users."""
        self._redial.fail(UsageError("this dialer belongs to the parent process"))

    def _enter(self) -> None:
        """Begin; a block can be entered once."""
        if self._entered:
            raise UsageError("a dialer's block can be entered once")
        self._entered = True
        forks.watch(self)

    def _check(self) -> None:
        """Raise what calls meet before the block is entered, and once all is over."""
        if not self._entered:
            raise UsageError("a dialer dials inside of its block: use it with 'with'")
        self._redial.check()

    def _announce(self, now: float) -> None:
        """Log a change of state, and call `on_change`, if there is one since the last call."""
        state = self.state
        before = self._told
        if before == (state, state.next_try):
            return
        self._told = (state, state.next_try)
        error = self.last_error
        if state == "failed":
            extra: dict[str, object] = {"event": "dialer_failed", "error": repr(error)}
            logger.warning("%r gives up: %r", self, error, extra=extra)
        elif state.next_try is not None and state.next_try != before[1]:
            pause = max(0.0, state.next_try - now)
            extra = {"event": "dialer_waits", "error": repr(error), "pause": round(pause, 3)}
            logger.info("%r: %r; the next try is in %.2f s", self, error, pause, extra=extra)
        if self._on_change is not None:
            try:
                self._on_change(state)
            except Exception:
                logger.exception("the on_change callback of %r failed", self)


class AsyncDialer(BaseDialer[SessionT], Generic[SessionT, StreamT]):
    """What the dialers of asyncio and trio share: everything but tasks, events and clocks."""

    _sessions: dict[SessionT, int]  # those that live, numbered as they came
    _count: int
    _changed: Any  # an event that is set, and replaced, with each change

    # Using

    async def session(self) -> SessionT:
        """Wait until there is a session that takes streams, and return it.

        It may end, or its peer say GOAWAY, at any time: `open` deals with that. Cancelling this
        changes nothing.

        Raises:
            SessionClosed: the dialer is closed (trio: `trio.ClosedResourceError`).
            UsageError: its block was not entered.

        Otherwise it raises the final error, once there is one.
        """
        await self._checkpoint()
        while True:
            self._check()
            session = self._redial.usable
            if session is None:
                await self._changed.wait()
            elif unusable(session):  # and has not told of it yet
                self._step(self._spent, session, failure_of(session))
            else:
                return session

    async def open(
        self, *, type: int | None = None, priority: int = 0, eager: bool = False
    ) -> StreamT:
        """Open a stream on the session that lives; wait for one through an outage.

        A session that has ended, or takes no more streams, costs no error: the next one is waited
        for. The peer hears nothing of a stream before its first write, so nothing is sent twice.

        Args:
            type: as for `Session.open`.
            priority: as for `Session.open`.
            eager: as for `Session.open`.

        Raises:
            UsageError: the type or the priority can't be, or the block was not entered.
            SessionClosed: the dialer is closed (trio: `trio.ClosedResourceError`).

        Otherwise it raises the final error, once there is one.
        """
        while True:
            session = await self.session()
            try:
                stream: StreamT = session.open(type=type, priority=priority, eager=eager)
            except SessionError as exc:
                self._step(self._spent, session, exc)
            else:
                return stream

    def __aiter__(self) -> AsyncSessions[SessionT]:
        """Iterate over the sessions, beginning with the one that lives, until it is closed."""
        return AsyncSessions(self._next_session, self._count - (self._redial.usable is not None))

    async def _next_session(self, number: int) -> tuple[SessionT, int] | None:
        """Wait for a session that came after others; None once the dialer is closed."""
        await self._checkpoint()
        while not self._redial.closed:
            self._check()
            for session, own in self._sessions.items():
                if own > number:
                    return session, own
            await self._changed.wait()
        return None

    def renew(self) -> None:
        """Dial the next session now, and let this one go when the next is there.

        Streams are opened on this one until then. If the dialer waits for its next try, it tries
        at once. It does nothing while a dial is under way, or once the dialer is closed or has
        failed.
        """
        self._step(self._renew)

    def close(self) -> None:
        """Dial no more, and close every session in order. Harmless if repeated.

        It doesn't wait: `wait_closed` does.
        """
        self._step(self._stop, None)

    # Steps

    def _step(self, step: Callable[..., object], *args: object) -> None:
        """Change something, and do what is decided by that."""
        step(*args)
        for session in self._redial.take_drains():
            self._let_go(session)
        for session in self._redial.take_surplus():
            session.abort(ErrorCode.STREAM_CANCELLED)
        self._wake()
        self._announce(self._now())

    def _renew(self) -> None:
        self._redial.renew(self._now())

    def _dial_no_more(self) -> None:
        self._redial.close()
        self._stop_dialling()

    def _stop(self, code: int | None) -> None:
        """Dial no more, and close every session, or abort it with a code."""
        self._dial_no_more()
        for session in self._sessions:
            if code is None:
                session.close()
            else:
                session.abort(code)

    def _take(self, session: SessionT) -> None:
        """Begin to use a session that was dialled."""
        if self._redial.over:  # a fork, or another session's end, has come first
            session.abort(ErrorCode.STREAM_CANCELLED)
        else:
            self._redial.dialled(session, self._now())
        self._count += 1
        self._sessions[session] = self._count
        session.on_draining(partial(self._step, self._drains, session))

    def _ended(self, session: SessionT) -> None:
        del self._sessions[session]
        self._redial.ended(session, failure_of(session), self._now())

    def _failed(self, exc: BaseException) -> None:
        self._redial.dial_failed(exc, self._now())

    def _drains(self, session: SessionT) -> None:
        """Take note that a session takes no more streams of ours, or of the peer's."""
        if unusable(session):
            self._spent(session, failure_of(session))
        elif session is self._redial.usable:  # this side has called its go_away()
            self._renew()

    def _spent(self, session: SessionT, exc: SessionError) -> None:
        self._redial.spent(session, exc, self._now())

    # What each front end has of its own

    async def _checkpoint(self) -> None:
        """Let other tasks run, where calls are expected to."""

    def _now(self) -> float:
        raise NotImplementedError

    def _wake(self) -> None:
        """Let everyone who waits look again."""
        raise NotImplementedError

    def _let_go(self, session: SessionT) -> None:
        """Shut a session down once its streams are done."""
        raise NotImplementedError

    def _stop_dialling(self) -> None:
        """End the dial that is under way."""
        raise NotImplementedError


class AsyncSessions(Generic[SessionT]):
    """Iterates over the sessions of a dialer. Not for users."""

    def __init__(
        self, next_session: Callable[[int], Awaitable[tuple[SessionT, int] | None]], number: int
    ) -> None:
        """Not for users."""
        self._next_session = next_session
        self._number = number

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionT:
        found = await self._next_session(self._number)
        if found is None:
            raise StopAsyncIteration
        session, self._number = found
        return session


def failure_of(session: Any) -> SessionError:
    """Return what `open` raises on a session that has ended, or whose peer has said GOAWAY."""
    try:
        session.open()
    except SessionError as exc:
        return exc.with_traceback(None)
    raise AssertionError("the session takes streams")


def unusable(session: Any) -> bool:
    """Return whether a session takes no more streams, as far as can be seen without opening one."""
    return session.closed or session.peer_goaway is not None


@dataclass(frozen=True, slots=True)
class DialPlace:
    """One of the places that a dialer dials in turn; a path, or else host and port."""

    host: str | None
    port: int | None
    path: str | os.PathLike[str] | None


def dial_places(
    host: str | None,
    port: int | None,
    path: str | os.PathLike[str] | None,
    addresses: Sequence[tuple[str, int]] | None,
    dial: Callable[..., object] | None,
    for_connect: Iterable[tuple[str, object]],
) -> list[DialPlace]:
    """Check where a dialer is to dial, and return it; [] if a function dials.

    Args:
        host: as for `Dialer`, and so are the following.
        port: see there.
        path: see there.
        addresses: see there.
        dial: see there.
        for_connect: the names and values of the other arguments that `connect` takes, which a
            function that dials has no use for; those that were not given are None, "" or False.

    Raises:
        UsageError: it can't be dialled.
    """
    ways = (host is not None or port is not None, path is not None, addresses is not None)
    if sum(ways) + (dial is not None) != 1:
        raise UsageError("give either host and port, or path=, or addresses=, or dial=")
    if dial is not None:
        if not callable(dial):
            raise UsageError(f"dial= must be a function, not {dial!r}")
        for name, value in for_connect:
            if value:
                raise UsageError(f"{name}= is for connect(): with dial=, that function passes it")
        return []
    if addresses is None:
        return [DialPlace(host, port, path)]
    pairs = list(addresses) if isinstance(addresses, list | tuple) else []
    if not pairs:
        raise UsageError(f"addresses= must be a list of (host, port), not {addresses!r}")
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UsageError(f"addresses= must have pairs of host and port, not {pair!r}")
    return [DialPlace(each_host, each_port, None) for each_host, each_port in pairs]


def check_targets(
    places: list[DialPlace],
    context: SSLContext | None,
    server_hostname: str | None,
    timeout: float | None,
    config: Config | None,
    name: str,
    proxy: str | None,
) -> list[Target]:
    """Check what a dialer hands to `connect`, and return each place with it.

    Raises:
        UsageError: it can't be dialled.
    """
    check_timeout(timeout)
    check_name(name)
    return [
        dial_target(
            each.host, each.port, each.path, None, context, server_hostname, timeout, config, proxy
        )
        for each in places
    ]


def describe_places(places: list[DialPlace], dial: object) -> str:
    """Return where a dialer dials, for its repr."""
    if not places:
        return getattr(dial, "__qualname__", repr(dial))
    return ",".join(
        repr(each.path) if each.path is not None else f"{each.host}:{each.port}" for each in places
    )


def check_policy(backoff: object, final: object) -> tuple[type[BaseException] | int, ...]:
    """Return the exceptions and codes of `final=` as a tuple.

    Raises:
        UsageError: it is something else, or `backoff` is no `Backoff`.
    """
    if not isinstance(backoff, Backoff):
        raise UsageError(f"backoff= must be a muxado.Backoff, not {backoff!r}")
    if not isinstance(final, Iterable) or isinstance(final, str | bytes):
        raise UsageError(f"final= must be a list of exception classes and codes, not {final!r}")
    found = tuple(final)
    for each in found:
        if not (isinstance(each, type) and issubclass(each, BaseException)) and (
            type(each) is bool or not isinstance(each, int)
        ):
            raise UsageError(f"final= takes exception classes and codes, not {each!r}")
    return found
