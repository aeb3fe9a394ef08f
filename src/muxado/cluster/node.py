"""One server of a cluster, as programs see it: it gives sessions names, and opens streams to them.

The parts: `Holdings` has the names of this server's own sessions, `Claims` keeps them claimed in
the directory, `Peers` has the sessions with other servers, and `Finder` the way to a name.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Collection
from ipaddress import ip_address
from types import TracebackType
from typing import TYPE_CHECKING

from ..asyncio import Session, Stream
from ..config import Config
from ..errors import ErrorCode, UsageError
from .claims import Claims, Held
from .control import Control, welcome
from .credentials import PeerTLS
from .directory import Directory, Place, Route
from .errors import (
    ClusterError,
    Denied,
    HeaderError,
    NameAway,
    NameTaken,
    Superseded,
)
from .finding import Allow, Finder
from .hints import Hints
from .holdings import Holdings
from .lines import Header, Message
from .names import check_name, is_name
from .outgoing import Passing
from .peers import Peers
from .registration import Registration
from .stats import NodeStats

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Node"]

logger: logging.Logger = logging.getLogger("muxado.cluster")

PEER_CONFIG = Config(ping_interval=5.0, ping_timeout=10.0, max_incoming_streams=100_000)


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
        host: str | None = "127.0.0.1",
        port: int = 0,
        advertise: str = "",
        grace: float = 5.0,
        allow: Allow | None = None,
        config: Config | None = None,
    ) -> None:
        """Say what the server is.

        Args:
            directory: where names are claimed; it belongs to this server alone.
            peers: the certificates of servers; None only on a loopback address, for tests.
            host: the address to listen on for peers; None for a server that has none.
            port: the port, 0 for any free one.
            advertise: "HOST:PORT", at which peers reach this server; by default where it listens.
            grace: seconds for which a name that has gone is waited for.
            allow: called with the header of each stream and the registration it is for; False
                refuses it. It must not wait.
            config: the settings of sessions with peers.

        Raises:
            UsageError: an argument can't be.
        """
        if peers is None and host is not None and not _is_loopback(host):
            raise UsageError("peers=None is for loopback addresses: others need certificates")
        if " " in advertise:
            raise UsageError(f"advertise= must be HOST:PORT, not {advertise!r}")
        self._directory = directory
        self._host, self._port = host, port
        self._advertise = advertise
        self._peers = Peers(peers, config or PEER_CONFIG, self._arrived, self._heard_lost)
        self._claims = Claims(directory)
        self._hints = Hints(grace)
        self._holdings = Holdings(self._claims, self._hints)
        self._finder = Finder(self._holdings, directory, self._peers, self._hints, grace, allow)
        self._started = False
        self._draining = False

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
        return list(self._holdings.here.values())

    def stats(self) -> NodeStats:
        """Return what the server holds, and has done."""
        finder = self._finder
        return NodeStats(
            registered=len(self._holdings.here),
            claimed=self._claims.claimed,
            waiting=self._claims.waiting,
            peers=len(self._peers.sessions),
            routes=len(self._hints),
            opened_here=finder.opened_here,
            opened_there=finder.opened_there,
            passed_on=finder.passed_on,
            refuted=finder.refuted,
            look_ups=finder.look_ups,
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
        ends_session: bool = True,
        on_stream: Callable[[Stream], object] | None = None,
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
            on_replaced: called when a newer session has the name.
            expires: when its credential expires, as `time.time` counts, which ends it; by default
                when the certificate of its peer does.
            movable: whether it has another server to go to.
            ends_session: whether a session that was replaced is ended some seconds later, unless it
                ends by itself; False for sessions that have other names too.
            on_stream: called with each stream that is opened to the session by this name.
            timeout: seconds for the directory and for the server that had the name. If the engine
                is away, the name is known here alone until it is back.

        Raises:
            UsageError: it is no name, or the node is not started.
            NameTaken: another identity has the name.
            Superseded: a newer session has claimed it meanwhile.
            NameAway: this server is draining.
        """
        check_name(name)
        self._check_started()
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
            ends_session=ends_session,
            on_stream=on_stream,
            remove=self._holdings.remove,
        )
        await self._holdings.add(registration, timeout)
        await self._tell_former(registration.held, timeout)
        return registration

    async def hold(
        self,
        name: str,
        on_lost: Callable[[Route | None], object],
        *,
        identity: str = "",
        timeout: float = 1.0,
        before_telling: Callable[[Held], Awaitable[object]] | None = None,
    ) -> Held:
        """Claim a name for something other than a session that has to be the only one of the fleet.

        Args:
            name: a DNS label.
            on_lost: called once, with who has the name now, when a newer claim of the same identity
                was made; with None if another identity turns out to have it. It must not wait.
            identity: whose it is.
            timeout: seconds for the directory, and for the server that had the name.
            before_telling: called with the claim before the server that had the name until now is
                told, so that it can go on until then. If it raises, the name is given up.

        Returns:
            the claim, for `release`. Its `epoch` is None while the engine is away.

        Raises:
            UsageError: it is no name, or the node is not started.
            NameTaken: another identity has the name.
            Superseded: a newer claim was made meanwhile.
        """
        check_name(name)
        self._check_started()
        held = await self._claims.hold(name, on_lost, identity=identity, timeout=timeout)
        try:
            if before_telling is not None:
                await before_telling(held)
            await self._tell_former(held, timeout)
        except BaseException:
            self._claims.drop(held)
            raise
        return held

    def release(self, held: Held) -> None:
        """Give up what `hold` has claimed. Harmless if repeated."""
        self._claims.drop(held)

    async def find(self, name: str) -> Route | None:
        """Ask the directory which server has a name, and for whom; None if no one has it.

        It may have changed when this returns. Cancelled, it leaves nothing behind.

        Args:
            name: a DNS label.

        Raises:
            UsageError: it is no name, or the node is not started.
            DirectoryAway: the engine can't be asked now.
        """
        check_name(name)
        self._check_started()
        return await self._directory.find(name)

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
                `Denied`. What it returns must not depend on what any client may claim: look at the
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
            await self._hear(control, registration)
            await session.wait_closed()
        finally:
            registration.remove()

    async def _hear(self, control: Control, registration: Registration) -> None:
        """Hear what a member says, until it says no more."""
        try:
            async for message in control:
                if message.type == "moved":
                    self._holdings.has_moved(registration)
        except HeaderError as exc:
            logger.warning("%s breaks the protocol: %s", registration.name, exc)
            control.session.abort(ErrorCode.PROTOCOL_ERROR)

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
        return await self._finder.open(header, priority)

    def pass_on(
        self,
        stream: Stream,
        name: str,
        service: str = "",
        *,
        timeout: float | None = 30.0,
        origin: str = "",
        identity: str = "",
        priority: int = 0,
        on_end: Callable[[Passing], object] | None = None,
    ) -> Passing:
        """Pass a caller's stream on to the session that has a name, on whichever server.

        It is what `open` and `muxado.relay` do together, for less: there is no task for a name that
        is here, or was found at another server before. It waits for nothing.

        Args:
            stream: the stream, which belongs to it from now on. It is reset if it does not get
                there, with the code of what `open` would have raised.
            name: the name.
            service: what is asked of it.
            timeout: seconds within which the session must be found, None for no limit.
            origin: the caller's address, which the session is told.
            identity: who the caller is, which the session is told.
            priority: as for `Session.open`.
            on_end: called when it is over. It must not wait.

        Returns:
            what can be cancelled, and waited for.

        Raises:
            UsageError: it is no name, or the node is not started.
        """
        check_name(name)
        self._check_started()
        passing = Passing(stream, on_end)
        header = Header(service, name, 0, timeout, origin, identity)
        self._finder.pass_on(passing, header, priority)
        return passing

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
        await self._holdings.drain(grace)

    async def __aenter__(self) -> Self:
        if self._started:
            raise UsageError("a node's block can be entered once")
        address = self._advertise
        if self._host is not None:
            host, port = await self._peers.start(self._host, self._port)
            address = address or f"{host}:{port}"
        self._peers.place = Place(secrets.token_hex(8), address)
        self._started = True
        await self._claims.start(self._peers.place)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._draining = True
        await self._holdings.close()
        self._finder.close()
        await self._claims.close()
        await self._peers.close()

    # For the parts

    def _arrived(self, stream: Stream) -> None:
        """Take a stream that a peer has opened."""
        self._finder.arrived(stream)

    def _heard_lost(self, name: str, route: Route) -> None:
        """Take note of what a peer tells: that it has a newer session of a name."""
        self._claims.superseded(name, route)
        self._hints.remember(name, route)

    async def _tell_former(self, held: Held | None, timeout: float) -> None:
        """Tell the server that had a name until now, and wait until it has let go of it."""
        before = None if held is None else held.before
        if held is None or before is None or before.place == self.place or held.epoch is None:
            return
        route = Route(self.place, held.epoch, held.identity)
        await self._peers.tell_lost(held.name, before.place, route, timeout)

    def _check_started(self) -> None:
        if not self._started:
            raise UsageError("a node begins with its block: use it with 'async with'")


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
