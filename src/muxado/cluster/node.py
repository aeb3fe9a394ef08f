"""One server of a cluster: the sessions it holds, and the way to those that others hold.

How it works. The server that holds a session is the authority; the directory is a hint, and so is
what this server remembers of it. `open` looks here first, then goes where it was right the last
time, and asks the directory only when that was wrong. The server that is asked answers with one
byte before anything of the caller is sent, so everything up to that byte can be tried again, and
nothing after it. What a peer has passed on is not passed on again.

A name that was here or there a moment ago is away: its session is about to come back, and is waited
for. One that no server knows is unknown, which is said at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Coroutine
from ipaddress import ip_address
from random import shuffle
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..asyncio import Session, Stream
from ..config import Config
from ..errors import ErrorCode, MuxadoError, SessionError, UsageError
from .claims import Claims
from .control import welcome
from .credentials import PeerTLS
from .directory import Directory, Place, Route
from .errors import (
    ClusterError,
    Denied,
    DirectoryAway,
    HeaderError,
    NameAway,
    NameTaken,
    NameUnknown,
    Refused,
    Superseded,
)
from .hints import Hints
from .incoming import Incoming
from .lines import Header, Message, Verdict
from .names import check_name, is_name
from .peers import PeerAway, Peers
from .registration import Registration
from .stats import NodeStats

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Node"]

logger: logging.Logger = logging.getLogger("muxado.cluster")

PEER_CONFIG = Config(ping_interval=5.0, ping_timeout=10.0, max_incoming_streams=100_000)

# Seconds for the verdict of a peer, which gives it without waiting for anything.
VERDICT_TIMEOUT = 5.0

# Seconds that a session has to end by itself after a newer one of its name has come.
LETTING_GO = 5.0

# Seconds between two sessions that are asked to move.
MOST_PACE = 0.02

# Seconds between look-ups of a name that is away.
FIRST_PAUSE = 0.02
MOST_PAUSE = 0.5


class NotHere(Exception):
    """A route was wrong."""


class Node:
    """One server of a cluster. Use it as an async context manager.

    ::

        async with Node(directory=RedisDirectory(url), peers=tls, host="10.0.0.5") as node:
            await node.register("web-17", session)
            stream = await node.open("web-18", "http")
    """

    def __init__(
        self,
        *,
        directory: Directory,
        peers: PeerTLS | None,
        host: str = "127.0.0.1",
        port: int = 0,
        advertise: str = "",
        grace: float = 5.0,
        allow: Callable[[Header, Registration], bool] | None = None,
        config: Config | None = None,
    ) -> None:
        """Say what the server is.

        Args:
            directory: where names are claimed; it belongs to this server alone.
            peers: the certificates of servers; None only on a loopback address, for tests.
            host: the address to listen on for peers.
            port: the port, 0 for any free one.
            advertise: "HOST:PORT", at which peers reach this server; by default where it listens.
            grace: seconds for which a name that has gone is waited for.
            allow: called with the header of each stream and the registration it is for; False
                refuses it. It must not wait.
            config: the settings of sessions with peers.

        Raises:
            UsageError: an argument can't be.
        """
        if peers is None and not _is_loopback(host):
            raise UsageError("peers=None is for loopback addresses: others need certificates")
        if " " in advertise:
            raise UsageError(f"advertise= must be HOST:PORT, not {advertise!r}")
        self._directory = directory
        self._host, self._port = host, port
        self._advertise = advertise
        self._grace = grace
        self._allow = allow
        self._peers = Peers(peers, config or PEER_CONFIG, self._arrived, self._heard_lost)
        self._claims: Claims | None = None
        self._here: dict[str, Registration] = {}
        self._old: set[Registration] = set()  # replaced, and not ended yet
        self._hints = Hints(grace)
        self._came: dict[str, asyncio.Event] = {}  # names that are waited for
        self._waiters: dict[str, int] = {}
        self._gone = asyncio.Event()
        self._watching: set[asyncio.Task[None]] = set()
        self._incoming: set[Incoming] = set()
        self._draining = False
        self._opened_here = self._opened_there = self._passed_on = 0
        self._refuted = self._look_ups = 0

    # Looking

    @property
    def place(self) -> Place:
        """This server's id, another one after each start, and its address for peers."""
        return self._peers.place

    @property
    def draining(self) -> bool:
        """Whether `drain` was called: the server takes no more sessions."""
        return self._draining

    @property
    def registrations(self) -> list[Registration]:
        """The names that sessions of this server have."""
        return list(self._here.values())

    def stats(self) -> NodeStats:
        """Return what the server holds, and has done."""
        claims = self._claims
        return NodeStats(
            registered=len(self._here),
            claimed=0 if claims is None else claims.claimed,
            waiting=0 if claims is None else claims.waiting,
            peers=len(self._peers.sessions),
            routes=len(self._hints),
            opened_here=self._opened_here,
            opened_there=self._opened_there,
            passed_on=self._passed_on,
            refuted=self._refuted,
            look_ups=self._look_ups,
            trouble=self._directory.trouble or "",
            draining=self._draining,
        )

    # Names

    async def register(
        self,
        name: str,
        session: Session,
        *,
        identity: str = "",
        headers: bool = True,
        services: Collection[str] | None = None,
        drain: Callable[[], object] | None = None,
        on_replaced: Callable[[], object] | None = None,
        expires: float | None = None,
        movable: bool = True,
        timeout: float = 1.0,
    ) -> Registration:
        """Give a session a name, by which it can be reached from every server.

        It has the name until it ends. The newest session of an identity has it: when this
        returns, the server that had it before opens no more streams to the older session, if that
        server could be told within the timeout; else it finds out when it renews its claims.

        Args:
            name: a DNS label.
            session: a session that was accepted, or dialled.
            identity: whose session it is. A name is not given to two identities.
            headers: whether each stream to it begins with a `Header`.
            services: what it has; None if every service is for it to judge.
            drain: called when this server is about to end, to have the session move to another
                one; by default the session is told so by GOAWAY, at which a `Dialer` dials again.
            on_replaced: called when a newer session has the name. The older is ended some seconds
                later, unless it ends by itself.
            expires: when its credential expires, as `time.time` counts, which ends it; by default
                when the certificate of its peer does.
            movable: whether it has another server to go to.
            timeout: seconds for the directory and for the server that had the name. If the engine
                is away, the name is known here alone until it is back.

        Raises:
            UsageError: it is no name, or the node is not started.
            NameTaken: another identity has the name.
            Superseded: a newer session has claimed it meanwhile.
            NameAway: this server is draining.
        """
        check_name(name)
        claims = self._check_started()
        if self._draining:
            raise NameAway("this server is about to end")
        registration = Registration(
            name,
            session,
            identity=identity,
            headers=headers,
            services=services,
            drain=drain,
            on_replaced=on_replaced,
            expires=expires,
            movable=movable,
            remove=self._remove,
        )
        try:
            held = await claims.hold(
                name,
                lambda route: self._lost(registration),
                identity=identity,
                timeout=timeout,
            )
        except BaseException:
            registration.remove()
            raise
        registration.held = held
        former = self._here.get(name)
        self._here[name] = registration
        if former is not None:
            self._retire(former)
        self._hints.forget(name)
        if name in self._came:
            self._came[name].set()
        self._begin(self._watch(registration))
        before = held.before
        if before is not None and before.place != self.place and held.epoch is not None:
            route = Route(self.place, held.epoch, identity)
            await self._peers.tell_lost(name, before.place, route, timeout)
        return registration

    async def serve(
        self,
        session: Session,
        authenticate: Callable[[Session, Message], Awaitable[str]],
        *,
        timeout: float = 10.0,
    ) -> None:
        """Take a `Member` that has dialled, for as long as it is connected.

        It is what `muxado.serve` can be given, with `functools.partial` or a lambda.

        Args:
            session: the session that was accepted.
            authenticate: called with it and its `hello`; returns whose session it is, or raises
                `Denied`. What it returns must not depend on what anybody may claim: look at the
                certificate, or at a secret key.
            timeout: seconds within which it must say hello.
        """
        try:
            control, hello = await welcome(session, timeout=timeout)
        except (HeaderError, EOFError, TimeoutError) as exc:
            logger.info("%r said no hello: %s", session, exc)
            session.go_away(401, b"say hello first")
            return
        try:
            name = hello.text("name")
            if not is_name(name):
                raise Denied(f"{name!r:.80} is no name", 400)
            identity = await authenticate(session, hello)
            services = hello.fields.get("services")
            registration = await self.register(
                name,
                session,
                identity=identity,
                headers=hello.fields.get("headers") is not False,
                services=frozenset(map(str, services)) if isinstance(services, list) else None,
                drain=lambda: control.say("drain"),
                on_replaced=lambda: control.say("replaced"),
                movable=hello.fields.get("movable") is not False,
            )
        except ClusterError as exc:
            control.say("error", code=_code_of(exc), text=str(exc))
            return
        control.say("ok", epoch=registration.epoch)
        try:
            await session.wait_closed()
        finally:
            registration.remove()

    async def open(
        self,
        name: str,
        service: str = "",
        *,
        timeout: float | None = 30.0,
        origin: str = "",
        identity: str = "",
        priority: int = 0,
    ) -> Stream:
        """Open a stream to the session that has a name, on whichever server.

        Args:
            name: the name.
            service: what is asked of it.
            timeout: seconds for all of it, None for no limit. The session is told how many are
                left.
            origin: the caller's address, which the session is told.
            identity: who the caller is, which the session is told.
            priority: as for `Session.open`.

        Returns:
            the stream. What is written to it is for the session alone.

        Raises:
            NameUnknown: no session has the name, or its session has no such service.
            NameAway: its session has gone, and none has come within the grace.
            DirectoryAway: the engine can't be asked, and who has the name is not known here.
            Refused: the server that holds the session does not allow it.
            TimeoutError: the time is up.
            UsageError: it is no name, or the node is not started.

        All of them are raised before anything was sent. Cancelled, it leaves nothing behind.
        """
        check_name(name)
        self._check_started()
        header = Header(service, name, 0, timeout, origin, identity)
        async with asyncio.timeout(timeout):
            return await self._open(header, priority)

    # The end

    async def drain(self, grace: float = 8.0) -> None:
        """Have every session move to another server, and wait until they have.

        No more sessions are registered. The sessions are asked to move one after the other, all of
        them within half of the grace; each ends when it has moved and its streams are done.
        Requests for their names go on meanwhile, by whichever server has them.

        Args:
            grace: seconds. What is left then is closed.
        """
        self._draining = True
        until = monotonic() + grace
        order = list(self._here.values())
        shuffle(order)
        pause = min(MOST_PACE, grace / 2 / max(1, len(order)))
        for at, registration in enumerate(order):
            await asyncio.sleep(max(0.0, until - grace + pause * at - monotonic()))
            if self._here.get(registration.name) is registration:
                registration.begin_drain()
        await self._wait_until_empty(until - monotonic())
        left = [*self._here.values(), *self._old]
        if left:
            logger.warning("%d sessions had not moved when the grace was over", len(left))
            for registration in left:
                registration.session.close()
            await self._wait_until_empty(None)  # each is gone after its `close_timeout`

    async def _wait_until_empty(self, timeout: float | None) -> None:
        """Wait until no session has a name, or had one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._here or self._old:
                    self._gone.clear()
                    await self._gone.wait()

    async def __aenter__(self) -> Self:
        if self._claims is not None:
            raise UsageError("a node's block can be entered once")
        host, port = await self._peers.start(self._host, self._port)
        place = Place(secrets.token_hex(8), self._advertise or f"{host}:{port}")
        self._peers.place = place
        self._claims = Claims(self._directory, place)
        await self._claims.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._draining = True
        for registration in [*self._here.values(), *self._old]:
            registration.remove()
        for task in self._watching:
            task.cancel()
        while self._watching:
            await asyncio.wait(set(self._watching))
        for incoming in list(self._incoming):
            incoming.cancel()
        if self._claims is not None:
            await self._claims.close()
        await self._peers.close()

    # Opening

    async def _open(self, header: Header, priority: int) -> Stream:
        name = header.name
        gone_at: float | None = None  # since when it is known to be away
        pause = FIRST_PAUSE
        until = None if header.remaining is None else monotonic() + header.remaining
        while True:
            now = monotonic()
            if until is not None:
                rest = max(0.0, until - now)
                header = Header(header.service, name, 0, rest, header.origin, header.identity)
            registration = self._here.get(name)
            if registration is not None and registration.usable:
                self._check(header, registration)
                with contextlib.suppress(SessionError):
                    stream = registration.open(header, priority)
                    self._opened_here += 1
                    return stream
            remembered = self._hints.route(name)
            away: DirectoryAway | None = None
            route = remembered
            if route is None:
                try:
                    route = await self._find(name)
                except DirectoryAway as exc:
                    away = exc
            if route is not None and route.place != self.place:
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
                route is None and away is None and gone_at is None and not self._hints.is_away(name)
            ):
                raise NameUnknown(f"no session has the name {name}")
            gone_at = now if gone_at is None else gone_at
            if now - gone_at >= self._grace:
                raise away or NameAway(f"the session of {name} is away")
            await self._wait_for(name, pause)
            pause = min(2 * pause, MOST_PAUSE)

    async def _find(self, name: str) -> Route | None:
        self._look_ups += 1
        return await self._directory.find(name)

    async def _ask(self, route: Route, header: Header, priority: int) -> Stream:
        """Ask the server of a route for a stream.

        Raises:
            NotHere: the route is wrong; nothing was sent to the session.
        """
        try:
            session = await self._peers.get(route.place)
            stream = session.open(priority=priority)
        except (PeerAway, SessionError) as exc:
            raise NotHere from exc
        try:
            passed = Header(
                header.service, header.name, 1, header.remaining, header.origin, header.identity
            )
            await stream.write(passed.pack())
            async with asyncio.timeout(VERDICT_TIMEOUT):
                verdict = (await stream.readexactly(1))[0]
        except (MuxadoError, asyncio.IncompleteReadError, TimeoutError) as exc:
            stream.reset(ErrorCode.STREAM_CANCELLED)
            if isinstance(exc, HeaderError):
                raise
            raise NotHere from exc
        except BaseException:
            stream.reset(ErrorCode.STREAM_CANCELLED)
            raise
        if verdict == Verdict.HERE:
            self._opened_there += 1
            return stream
        stream.close()
        if verdict == Verdict.UNKNOWN:
            raise NameUnknown(f"{header.name} has no service {header.service!r}")
        if verdict == Verdict.REFUSED:
            raise Refused(f"{header.name} is not to be reached so")
        raise NotHere

    def _check(self, header: Header, registration: Registration) -> None:
        """Raise what a caller of this server meets whose stream the session should not have."""
        verdict = self._judge(header, registration)
        if verdict == Verdict.UNKNOWN:
            raise NameUnknown(f"{header.name} has no service {header.service!r}")
        if verdict == Verdict.REFUSED:
            raise Refused(f"{header.name} is not to be reached so")

    def _judge(self, header: Header, registration: Registration) -> Verdict:
        if self._allow is not None and not self._allow(header, registration):
            return Verdict.REFUSED
        return Verdict.HERE if registration.has(header.service) else Verdict.UNKNOWN

    # What peers ask for

    def _arrived(self, stream: Stream) -> None:
        """Take a stream that a peer has opened."""
        incoming = Incoming(stream, self._take, self._incoming.discard)
        self._incoming.add(incoming)
        incoming.start()

    def _take(self, header: Header, line: bytes) -> tuple[Verdict, Stream | None]:
        """Judge what a peer asks for; with HERE goes the stream to the session."""
        registration = self._here.get(header.name)
        if registration is None or not registration.usable:
            return Verdict.NOT_HERE, None
        verdict = self._judge(header, registration)
        if verdict != Verdict.HERE:
            return verdict, None
        try:
            stream = registration.open(header, line=line)
        except SessionError:
            return Verdict.NOT_HERE, None
        self._passed_on += 1
        return verdict, stream

    def _refute(self, name: str, route: Route) -> None:
        self._refuted += 1
        self._hints.refute(name, route)

    # Names that are away

    async def _wait_for(self, name: str, timeout: float) -> None:
        """Wait until a name comes to this server, but no longer than the timeout."""
        came = self._came.setdefault(name, asyncio.Event())
        self._waiters[name] = self._waiters.get(name, 0) + 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await came.wait()
        finally:
            self._waiters[name] -= 1
            if came.is_set() or not self._waiters[name]:
                self._came.pop(name, None)
            if not self._waiters[name]:
                del self._waiters[name]

    # Registrations that end

    async def _watch(self, registration: Registration) -> None:
        """Give a name up when its session ends."""
        await registration.session.wait_closed()
        registration.remove()

    def _remove(self, registration: Registration) -> None:
        self._old.discard(registration)
        if self._here.get(registration.name) is registration:
            del self._here[registration.name]
            self._hints.has_gone(registration.name)
            if registration.held is not None and self._claims is not None:
                self._claims.drop(registration.held)
        self._gone.set()

    async def _let_go(self, registration: Registration) -> None:
        """Tell a session that does not end by itself that it is not needed any more."""
        session = registration.session
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LETTING_GO):
                await session.wait_closed()
        if not session.closed:
            session.go_away(409, b"a newer session has the name")
            await session.shutdown(None)

    def _lost(self, registration: Registration) -> None:
        """Take note that a newer session has the name of one, on another server."""
        if self._here.get(registration.name) is registration:
            del self._here[registration.name]
            self._hints.has_gone(registration.name)
            self._retire(registration)

    def _retire(self, registration: Registration) -> None:
        """Let a session go whose name a newer one has."""
        if not registration.session.closed:
            self._old.add(registration)
        registration.was_replaced()
        self._begin(self._let_go(registration))
        self._gone.set()

    def _heard_lost(self, name: str, route: Route) -> None:
        """Take note of what a peer tells: that it has a newer session of a name."""
        if self._claims is not None:
            self._claims.superseded(name, route)
        self._hints.remember(name, route)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="muxado cluster: a registration")
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    def _check_started(self) -> Claims:
        if self._claims is None:
            raise UsageError("a node begins with its block: use it with 'async with'")
        return self._claims


def _code_of(exc: ClusterError) -> int:
    """Return the code with which a session is not taken."""
    if isinstance(exc, NameAway):
        return 503
    return 409 if isinstance(exc, Superseded | NameTaken) else exc.code


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
