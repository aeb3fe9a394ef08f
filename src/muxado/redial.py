"""When, where and whether to dial again: the decisions of every front end's `Dialer`.

How it works. A `Redial` is told what happens, with the time at which it does: a dial begins, has
failed or has given a session; a session takes no more streams, or has ended. From that it says
which session new streams go to (`usable`), when the next dial is due (`due`), and which sessions
are to be let go. It dials nothing, waits for nothing and knows no clock.

- There is one dial at a time. While the last session is usable none is due, unless `renew` asks
  for the next one.
- A session that takes no more streams stays until the next one is there. Then it is let go: its
  streams run to their end, and it is closed.
- The pause before a dial is a random part of a time that doubles with each try (full jitter), so
  that clients that have lost their server together do not come back together. A session that has
  lived for as long as the longest pause makes the next pause the shortest again; one that ends
  sooner does not, or a server that accepts and hangs up would be dialled without end.
"""

from __future__ import annotations

import random
import ssl as ssl_module
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Generic, TypeVar

from .errors import SessionClosed, UsageError

__all__ = ["FINAL", "Backoff", "DialerState", "Final", "Redial"]

SessionT = TypeVar("SessionT", bound=Any)

Final = Iterable[type[BaseException] | int]

# What no further try would change: a mistake of the program's, a certificate that does not hold,
# and a peer, or a proxy, that knows this side and does not want it.
FINAL: tuple[type[BaseException] | int, ...] = (
    UsageError,
    ssl_module.SSLCertVerificationError,
    401,
    403,
    407,
)

# Seconds: a peer can't put a dialer off for longer.
MOST_RETRY_AFTER = 3600.0

# Sessions that are let go and still have streams. With one more the oldest is aborted, or a peer
# that says GOAWAY to each new session would have as many as it likes.
MOST_DRAINING = 16


@dataclass(frozen=True)
class Backoff:
    """How long a `Dialer` pauses before it tries again: a random part of a time that doubles.

    Attributes:
        first: seconds, the longest pause before the first retry.
        most: seconds, the longest pause before any. A session that has lived for this long makes
            the next pause one of at most `first` again.

    Raises:
        UsageError: `first` is not above 0, or `most` is less than `first`, or not finite.
    """

    first: float = 0.1
    most: float = 15.0

    def __post_init__(self) -> None:
        for name in ("first", "most"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise UsageError(f"Backoff.{name} must be a number of seconds above 0")
        if not self.first <= self.most or not isfinite(self.most):
            raise UsageError("Backoff.most must be finite, and at least Backoff.first")

    def longest(self, tries: int) -> float:
        """Return the longest pause, in seconds, after so many tries that had one."""
        # Beyond 2**64 the product would be no float any more.
        longest: float = min(self.most, self.first * 2.0 ** min(tries, 64))
        return longest


class DialerState(str):
    """What a `Dialer` is doing; a string, so that ``dialer.state == "connected"`` holds.

    - ``connecting``: there is no session, and one is being dialled.
    - ``connected``: streams can be opened. An older session may still be let go beside it, and
      the next one be dialled.
    - ``draining``: the session takes no more streams, those that are open go on, and the next
      session is not there yet.
    - ``waiting``: there is no session, and the next try is at `next_try`.
    - ``failed``: an error that is final has come; every call raises it.
    - ``closed``: the dialer was closed.

    Attributes:
        next_try: when the next dial begins, by the clock of ``time.monotonic()`` (trio:
            ``trio.current_time()``); None unless the dialer is waiting, or draining, for it.
    """

    __slots__ = ("next_try",)

    next_try: float | None

    def __new__(cls, name: str, next_try: float | None = None) -> DialerState:
        """Not for users."""
        state = super().__new__(cls, name)
        state.next_try = next_try
        return state


class Redial(Generic[SessionT]):
    """Decides when, where and whether to dial. See the module's head.

    Args:
        places: how many addresses there are, which are dialled in turn.
        backoff: the pauses.
        final: exceptions and codes after which nothing is tried any more.
        draw: gives a random number from 0 to 1.

    Attributes:
        current: the last session, while it lives and no newer one is there.
        due: when to dial next, None for as long as nothing is to be dialled.
        failure: the final error, None while there is none.
        last_error: the last error of a dial or a session, final or not.
        closed: whether `close` was called.
    """

    def __init__(
        self,
        places: int,
        backoff: Backoff,
        final: Final,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.current: SessionT | None = None
        self.due: float | None = None
        self.failure: BaseException | None = None
        self.last_error: BaseException | None = None
        self.closed: bool = False
        self._places = places
        self._backoff = backoff
        self._final = tuple(final)
        self._draw = draw
        self._next_place = 0
        self._tries = 0  # since a session has lived for a while
        self._begun = False
        self._dialling = False
        self._takes_streams = False  # the current session does
        self._since = 0.0  # the current session is there
        self._spent_by: BaseException | None = None  # why the last one takes no more streams
        self._draining: dict[SessionT, None] = {}
        self._to_drain: list[SessionT] = []
        self._to_abort: list[SessionT] = []

    @property
    def over(self) -> bool:
        """Whether nothing will be dialled any more."""
        return self.closed or self.failure is not None

    @property
    def usable(self) -> SessionT | None:
        """The session that new streams go to."""
        return self.current if self._takes_streams else None

    @property
    def state(self) -> DialerState:
        """What goes on."""
        if self.closed:
            return DialerState("closed")
        if self.failure is not None:
            return DialerState("failed")
        if self._takes_streams:
            return DialerState("connected")
        if self.current is not None:
            return DialerState("draining", self.due)
        if self._dialling or not self._begun:
            return DialerState("connecting")
        return DialerState("waiting", self.due)

    # Dialling

    def renew(self, now: float) -> None:
        """Have the next session dialled at once, unless that is under way or all is over."""
        if not self._dialling and not self.over:
            self.due = now

    def begin_dial(self) -> int:
        """Take note that a dial begins; return the number of the address to dial."""
        place = self._next_place
        self._next_place = (place + 1) % self._places
        self._begun = self._dialling = True
        self.due = None
        return place

    def dial_failed(self, exc: BaseException, now: float) -> None:
        """Take note that a dial has failed."""
        self._dialling = False
        if not self.over:
            self._judge(exc, now)

    def dialled(self, session: SessionT, now: float) -> None:
        """Take note that a dial has given a session; not to be called once all is over."""
        self._dialling = False
        if self.current is not None:
            self._let_go(self.current)
        self.current = session
        self._takes_streams = True
        self._since = now

    # Sessions

    def spent(self, session: SessionT, exc: BaseException, now: float) -> None:
        """Take note that a session takes no more streams, and why; harmless if repeated."""
        if session is self.current and self._takes_streams:
            self._spent_by = exc
            self._lose(exc, now)

    def ended(self, session: SessionT, exc: BaseException, now: float) -> None:
        """Take note that a session has ended, and why."""
        self._draining.pop(session, None)
        if session is not self.current:
            return
        self.current = None
        if self._takes_streams:
            self._lose(exc, now)
        elif self._is_final(exc):  # the end may say more than the GOAWAY before it
            self.last_error = exc
            self._fail(exc)
        elif self.last_error is self._spent_by:
            self.last_error = exc

    def take_drains(self) -> list[SessionT]:
        """Return the sessions that are to be shut down when their streams are done, once each."""
        taken, self._to_drain = self._to_drain, []
        return taken

    def take_surplus(self) -> list[SessionT]:
        """Return the sessions that are to be aborted, once each: there are too many."""
        taken, self._to_abort = self._to_abort, []
        return taken

    def pause(self, tries: int) -> float:
        """Return a random pause in seconds, after so many tries that had one."""
        return self._draw() * self._backoff.longest(tries)

    # The end

    def fail(self, exc: BaseException) -> None:
        """Give up, with an error that every call raises from then on."""
        if not self.over:
            self.last_error = exc
            self._fail(exc)

    def close(self) -> None:
        """Take note that nothing is wanted any more."""
        self.closed = True
        self.due = None

    def check(self) -> None:
        """Raise what calls meet once all is over.

        Raises:
            SessionClosed: the dialer is closed.
            BaseException: the final error.
        """
        if self.closed:
            raise SessionClosed("the dialer is closed")
        if self.failure is not None:
            # Many calls raise the same error: none shows where another one has met it.
            raise self.failure.with_traceback(None)

    # Inside

    def _lose(self, exc: BaseException, now: float) -> None:
        """Have the next session dialled in the place of one that can't be used any more."""
        self._takes_streams = False
        if now - self._since >= self._backoff.most:
            self._tries = 0
        self._judge(exc, now)

    def _judge(self, exc: BaseException, now: float) -> None:
        """Decide whether to try again after an error, and when."""
        self.last_error = exc
        if self._is_final(exc):
            self._fail(exc)
        elif not self._dialling and self.due is None:
            self.due = now + retry_after(exc) + self.pause(self._tries)
            self._tries += 1

    def _fail(self, exc: BaseException) -> None:
        self.failure = exc
        self.due = None
        if self.current is not None:
            self._let_go(self.current)
            self.current = None
            self._takes_streams = False

    def _is_final(self, exc: BaseException) -> bool:
        codes = {getattr(exc, "code", None), getattr(exc, "status", None)}
        return any(
            isinstance(exc, each) if isinstance(each, type) else each in codes
            for each in self._final
        )

    def _let_go(self, session: SessionT) -> None:
        self._draining[session] = None
        self._to_drain.append(session)
        if len(self._draining) > MOST_DRAINING:
            oldest = next(iter(self._draining))
            del self._draining[oldest]
            self._to_abort.append(oldest)


def retry_after(exc: BaseException) -> float:
    """Return the least pause in seconds that an exception asks for, 0 if it asks for none.

    The error of a session asks for what the exception that has ended its connection does.
    """
    cause = getattr(getattr(exc, "reason", None), "exception", None)
    wanted = getattr(exc, "retry_after", getattr(cause, "retry_after", None))
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not wanted > 0:
        return 0.0
    return float(min(wanted, MOST_RETRY_AFTER))
