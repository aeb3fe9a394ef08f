"""The way to a name, on this server or on another one.

How it works. The server that holds a session is the authority; the directory is a hint, and so is
what this server remembers of it. `Finder.open` looks here first, then goes where it was right the
last time, and asks the directory only when that was wrong. The server that is asked answers with
one byte before anything of the caller is sent, so everything up to that byte can be tried again,
and nothing after it. What a peer has passed on is not passed on again.

A name that was here or there a moment ago is away: its session is about to come back, and is waited
for. One that no server knows is unknown, which is said at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from math import inf
from time import monotonic

from ..asyncio import Session, Stream
from ..errors import ErrorCode, MuxadoError, SessionError
from .directory import Directory, Route
from .errors import ClusterError, DirectoryAway, NameAway, NameUnknown, Refused
from .hints import Hints
from .holdings import Holdings
from .incoming import Incoming
from .lines import Header, Verdict
from .outgoing import Asking, Passing
from .peers import PeerAway, Peers
from .registration import Registration

__all__ = ["Allow", "Finder"]

Allow = Callable[[Header, Registration], bool]
"""Says whether the session of a registration may have the stream that a header begins."""

# Seconds for the verdict of a peer, which gives it without waiting for anything.
VERDICT_TIMEOUT = 5.0

# Seconds between look-ups of a name that is away.
FIRST_PAUSE = 0.02
MOST_PAUSE = 0.5


class NotHere(Exception):
    """A route was wrong."""


class Finder:
    """Opens streams to names, for callers of this server and for its peers.

    Args:
        holdings: the names of this server.
        directory: who else has which.
        peers: the other servers.
        hints: what is remembered of both.
        grace: seconds for which a name that has gone is waited for.
        allow: judges each stream; None allows all.

    Attributes:
        opened_here: streams opened to sessions of this server.
        opened_there: streams opened to sessions of other servers.
        passed_on: streams that other servers have opened to sessions of this one.
        refuted: routes that were wrong.
        look_ups: questions to the directory.
    """

    def __init__(
        self,
        holdings: Holdings,
        directory: Directory,
        peers: Peers,
        hints: Hints,
        grace: float,
        allow: Allow | None,
    ) -> None:
        self.opened_here: int = 0
        self.opened_there: int = 0
        self.passed_on: int = 0
        self.refuted: int = 0
        self.look_ups: int = 0
        self._holdings = holdings
        self._directory = directory
        self._peers = peers
        self._hints = hints
        self._grace = grace
        self._allow = allow
        self._incoming: set[Incoming] = set()
        self._searches: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self, header: Header, priority: int) -> Stream:
        """Open a stream to the session that has the header's name.

        Raises:
            ClusterError: it is not to be had; see `Node.open`.
            TimeoutError: the header's remaining time is up.
        """
        async with asyncio.timeout(header.remaining):
            return await self._open(header, priority)

    def pass_on(self, passing: Passing, header: Header, priority: int) -> None:
        """Pass a stream on to the session that has the header's name: see `Node.pass_on`."""
        try:
            stream = self._open_here(header, priority)
            if stream is not None:
                passing.found(stream)
            elif not self._ask_for(passing, header, priority):
                self._search(passing, header, priority)
        except ClusterError as exc:
            passing.fail(exc)

    def _ask_for(self, passing: Passing, header: Header, priority: int) -> bool:
        """Ask where the name was the last time; return False if that needs waiting."""
        route = self._hints.route(header.name)
        session = None if route is None else self._peers.at_hand(route.place)
        if route is None or session is None:
            return False
        try:
            stream = self._open_there(session, header, priority)
        except NotHere:
            return False
        timeout = VERDICT_TIMEOUT
        until = inf
        if header.remaining is not None:
            timeout = min(timeout, header.remaining)
            until = monotonic() + header.remaining

        def told(verdict: int | None) -> None:
            try:
                self._conclude(stream, header, verdict)
            except NotHere:
                self._refute(header.name, route)
                self._search(passing, _with_rest(header, until), priority)
            except ClusterError as exc:
                passing.fail(exc)
            else:
                self._hints.remember(header.name, route)
                passing.found(stream)

        passing.look(Asking(stream, told, timeout).cancel)
        return True

    def _search(self, passing: Passing, header: Header, priority: int) -> None:
        """Have a task look for the way."""
        if self._closed:
            passing.fail(NameAway("this server is closed"))
            return

        async def search() -> None:
            try:
                passing.found(await self.open(header, priority))
            except (MuxadoError, TimeoutError) as exc:
                passing.fail(exc)
            except BaseException:
                passing.fail(None)
                raise

        task = asyncio.get_running_loop().create_task(search(), name="muxado cluster: a search")
        self._searches.add(task)
        task.add_done_callback(self._searches.discard)
        passing.look(task.cancel)
        passing.stream.on_end(passing.cancel_search)

    async def _open(self, header: Header, priority: int) -> Stream:
        name = header.name
        gone_at: float | None = None  # since when it is known to be away
        pause = FIRST_PAUSE
        until = inf if header.remaining is None else monotonic() + header.remaining
        while True:
            now = monotonic()
            header = _with_rest(header, until)
            stream = self._open_here(header, priority)
            if stream is not None:
                return stream
            remembered = self._hints.route(name)
            away: DirectoryAway | None = None
            route = remembered
            if route is None:
                try:
                    route = await self._find(name)
                except DirectoryAway as exc:
                    away = exc
            if route is not None and route.place != self._peers.place:
                try:
                    stream = await self._ask(route, header, priority)
                except NotHere:
                    self._refute(name, route)
                    if remembered is not None:
                        continue  # what the directory says may be right
                else:
                    self._hints.remember(name, route)
                    return stream
            elif (
                route is None
                and away is None
                and gone_at is None
                and not self._hints.is_away(name)
                and not self._holdings.expects(name)
            ):
                raise NameUnknown(f"no session has the name {name}")
            gone_at = now if gone_at is None else gone_at
            if now - gone_at >= self._grace:
                raise away or NameAway(f"the session of {name} is away")
            await self._holdings.wait_for(name, pause)
            pause = min(2 * pause, MOST_PAUSE)

    def arrived(self, stream: Stream) -> None:
        """Take a stream that a peer has opened."""
        incoming = Incoming(stream, self._take, self._incoming.discard)
        self._incoming.add(incoming)
        incoming.start()

    def close(self) -> None:
        """Give up what is under way: headers of peers that have not come, and searches."""
        self._closed = True
        for incoming in list(self._incoming):
            incoming.cancel()
        for search in self._searches:
            search.cancel()

    async def _find(self, name: str) -> Route | None:
        self.look_ups += 1
        return await self._directory.find(name)

    async def _ask(self, route: Route, header: Header, priority: int) -> Stream:
        """Ask the server of a route for a stream.

        Raises:
            NotHere: the route is wrong; nothing was sent to the session.
        """
        try:
            session = await self._peers.get(route.place)
        except PeerAway as exc:
            raise NotHere from exc
        stream = self._open_there(session, header, priority)
        verdict: int | None = None
        try:
            with contextlib.suppress(MuxadoError, asyncio.IncompleteReadError, TimeoutError):
                async with asyncio.timeout(VERDICT_TIMEOUT):
                    verdict = (await stream.readexactly(1))[0]
        except BaseException:
            stream.reset(ErrorCode.STREAM_CANCELLED)
            raise
        self._conclude(stream, header, verdict)
        return stream

    def _open_here(self, header: Header, priority: int) -> Stream | None:
        """Open a stream to a session of this server, None if the name is not here."""
        registration = self._holdings.usable(header.name)
        if registration is None:
            return None
        _check(self._judge(header, registration), header)
        try:
            stream = registration.open(header, priority)
        except SessionError:
            return None
        self.opened_here += 1
        return stream

    def _open_there(self, session: Session, header: Header, priority: int) -> Stream:
        """Open a stream with a peer, which says what becomes of it.

        Raises:
            NotHere: the session takes no streams.
        """
        line = Header(
            header.service, header.name, 1, header.remaining, header.origin, header.identity
        ).pack()
        try:
            stream = session.open(priority=priority)
            stream.write_nowait(line)
        except SessionError as exc:
            raise NotHere from exc
        return stream

    def _conclude(self, stream: Stream, header: Header, verdict: int | None) -> None:
        """Take a peer's verdict on a stream, None if none has come.

        Raises:
            NotHere: the route is wrong; nothing was sent to the session.
            ClusterError: the session should not have it.
        """
        if verdict == Verdict.HERE:
            self.opened_there += 1
            return
        if verdict is None:
            stream.reset(ErrorCode.STREAM_CANCELLED)
            raise NotHere
        stream.close()
        _check(verdict, header)
        raise NotHere

    def _judge(self, header: Header, registration: Registration) -> Verdict:
        if self._allow is not None and not self._allow(header, registration):
            return Verdict.REFUSED
        return Verdict.HERE if registration.has(header.service) else Verdict.UNKNOWN

    def _take(self, header: Header, line: bytes) -> tuple[Verdict, Stream | None]:
        """Judge what a peer asks for; with HERE goes the stream to the session."""
        registration = self._holdings.usable(header.name)
        if registration is None:
            return Verdict.NOT_HERE, None
        verdict = self._judge(header, registration)
        if verdict != Verdict.HERE:
            return verdict, None
        try:
            stream = registration.open(header, line=line)
        except SessionError:
            return Verdict.NOT_HERE, None
        self.passed_on += 1
        return verdict, stream

    def _refute(self, name: str, route: Route) -> None:
        self.refuted += 1
        self._hints.refute(name, route)


def _with_rest(header: Header, until: float) -> Header:
    """Return a header whose remaining time is what is left of it."""
    if header.remaining is None:
        return header
    return replace(header, hop=0, remaining=max(0.0, until - monotonic()))


def _check(verdict: int, header: Header) -> None:
    """Raise what a caller meets whose stream the session should not have."""
    if verdict == Verdict.UNKNOWN:
        raise NameUnknown(f"{header.name} has no service {header.service!r}")
    if verdict == Verdict.REFUSED:
        raise Refused(f"{header.name} is not to be reached so")
