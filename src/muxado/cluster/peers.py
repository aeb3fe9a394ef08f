"""Sessions between the servers of a cluster: mutual TLS, made when needed, one for each pair.

How it works. Who needs a peer dials it, and both say who they are on the control stream: the
server's id and address. An id that is not the one that was looked for shows that an address is
another server's now. Where two dial each other at once, the session stays that the server with the
smaller id has dialled; the other one comes to its end. A peer is told of names that it has lost,
and says when it has let go of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from ..asyncio import Server, Session, Stream, connect, serve
from ..config import Config
from ..errors import ErrorCode, MuxadoError
from .control import Control, join, welcome
from .credentials import PeerTLS, end_with_certificate
from .directory import Place, Route
from .errors import ClusterError, HeaderError
from .lines import Message

__all__ = ["Peer", "PeerAway", "Peers"]

logger: logging.Logger = logging.getLogger("muxado.cluster")


# Seconds for another server to be told that it has lost a name, and to let go of it.
TELLING_TIMEOUT = 10.0


class PeerAway(ClusterError, ConnectionError):
    """A server can't be reached, or is another one now."""


class Peer:
    """Another server, and the session with it.

    Attributes:
        place: where it is.
        session: the session.
        control: the control stream.
        dialled_by: the id of the server that has dialled it.
    """

    __slots__ = ("control", "dialled_by", "place", "session")

    def __init__(self, place: Place, control: Control, dialled_by: str) -> None:
        self.place: Place = place
        self.session: Session = control.session
        self.control: Control = control
        self.dialled_by: str = dialled_by

    @property
    def usable(self) -> bool:
        """Whether streams can be opened with it."""
        return not self.session.closed and self.session.peer_goaway is None


class Peers:
    """The sessions of one server with all others.

    Args:
        tls: certificates, None for none.
        config: the sessions' settings.
        on_stream: called with each stream that a peer opens.
        on_lost: called with a name and its new route when a peer tells of it.
        timeout: seconds for a dial.

    Attributes:
        place: this server; to be set before anything is dialled.
    """

    def __init__(
        self,
        tls: PeerTLS | None,
        config: Config,
        on_stream: Callable[[Stream], object],
        on_lost: Callable[[str, Route], object],
        timeout: float = 5.0,
    ) -> None:
        self.place: Place = Place("", "")
        self._tls = tls
        self._config = config
        self._on_stream = on_stream
        self._on_lost = on_lost
        self._timeout = timeout
        self._peers: dict[str, Peer] = {}
        self._dials: dict[Place, asyncio.Task[Peer]] = {}
        self._acknowledged: dict[tuple[str, int], asyncio.Event] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: Server | None = None

    @property
    def sessions(self) -> dict[str, Session]:
        """The session with each peer, by the peer's address."""
        return {each.place.address: each.session for each in self._peers.values()}

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen for peers, and return where."""
        context: ssl.SSLContext | None = None if self._tls is None else self._tls.server
        self._server = await serve(self._serve, host, port, ssl=context, config=self._config)
        address: tuple[str, int] = self._server.addresses[0][:2]
        return address

    def at_hand(self, place: Place) -> Session | None:
        """Return the session with a server, None if it would have to be dialled."""
        peer = self._peers.get(place.node)
        return peer.session if peer is not None and peer.usable else None

    async def get(self, place: Place) -> Session:
        """Return the session with a server, and dial it if there is none.

        Raises:
            PeerAway: it can't be reached, or another server is there.
        """
        session = self.at_hand(place)
        if session is not None:
            return session
        dial = self._dials.get(place)
        if dial is None:
            dial = self._dials[place] = self._begin(self._dial(place), "dials a peer")
            dial.add_done_callback(lambda _: self._dials.pop(place, None))
        try:
            return (await asyncio.shield(dial)).session
        except asyncio.CancelledError:
            if dial.cancelled():
                raise PeerAway("this server is closed") from None
            raise

    async def tell_lost(self, name: str, former: Place, route: Route, timeout: float) -> None:
        """Tell a server that it has lost a name, and wait until it has let go of it.

        Args:
            name: the name.
            former: the server.
            route: who has it now.
            timeout: seconds to wait; it is told all the same when it can be reached later. One that
                never can finds out from the directory.
        """
        await asyncio.wait([self._begin(self._tell(name, former, route), "tells")], timeout=timeout)

    async def _tell(self, name: str, former: Place, route: Route) -> None:
        acknowledged = self._acknowledged[name, route.epoch] = asyncio.Event()
        try:
            with contextlib.suppress(TimeoutError, PeerAway):
                async with asyncio.timeout(TELLING_TIMEOUT):
                    await self.get(former)
                    peer = self._peers.get(former.node)
                    if peer is not None and peer.control.say(
                        "replaced", name=name, epoch=route.epoch, identity=route.identity
                    ):
                        await acknowledged.wait()
        finally:
            self._acknowledged.pop((name, route.epoch), None)

    async def close(self) -> None:
        """End all sessions, and listen no more."""
        if self._server is not None:
            self._server.close()
        for peer in self._peers.values():
            peer.session.close()
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        if self._server is not None:
            await self._server.wait_closed()

    # Both ends

    async def _dial(self, place: Place) -> Peer:
        host, _, port = place.address.rpartition(":")
        context = None if self._tls is None else self._tls.client
        try:
            async with asyncio.timeout(self._timeout):
                session = await connect(
                    host.strip("[]"),
                    int(port),
                    ssl=context,
                    config=self._config,
                    timeout=None,
                    name=f"peer {place.address}",
                )
                try:
                    session.on_stream(self._on_stream)
                    control, ok = await join(
                        session, node=self.place.node, address=self.place.address
                    )
                except BaseException:
                    session.abort(ErrorCode.STREAM_CANCELLED)
                    raise
        except (OSError, EOFError, ValueError, MuxadoError) as exc:
            raise PeerAway(f"the server at {place.address} can't be reached: {exc}") from exc
        there = Place(ok.text("node"), place.address)
        peer = Peer(there, control, self.place.node)
        self._begin(self._keep(peer), "keeps a peer")
        kept = self._add(peer)
        if there.node != place.node:
            raise PeerAway(f"the server at {place.address} is another one now")
        return kept

    async def _serve(self, session: Session) -> None:
        """Take the session of a peer that has dialled."""
        try:
            control, hello = await welcome(session)
            place = Place(hello.text("node"), hello.text("address"))
        except (EOFError, ClusterError, TimeoutError) as exc:
            logger.warning("a peer at %s was refused: %s", session.remote_address, exc)
            session.abort(ErrorCode.PROTOCOL_ERROR)
            return
        session.name = f"peer {place.address}"
        session.on_stream(self._on_stream)
        if place.node == self.place.node or not place.node:
            control.say("error", code=403, text="that is this server itself")
            return
        control.say("ok", node=self.place.node)
        peer = Peer(place, control, place.node)
        self._add(peer)
        await self._keep(peer)

    def _add(self, peer: Peer) -> Peer:
        """Use a session from now on, unless one is there that is to stay; return the one to use."""
        present = self._peers.get(peer.place.node)
        if present is not None and present.usable and present is not peer:
            first = min(self.place.node, peer.place.node)
            if present.dialled_by == first != peer.dialled_by:
                self._retire(peer)
                return present
            self._retire(present)
        self._peers[peer.place.node] = peer
        return peer

    def _retire(self, peer: Peer) -> None:
        """Let a session come to its end that is not needed; its dialler does."""
        if peer.dialled_by == self.place.node:
            self._begin(peer.session.shutdown(None), "retires a session")

    async def _keep(self, peer: Peer) -> None:
        """Hear what a peer says, until its session ends."""
        with end_with_certificate(peer.session):
            try:
                async for message in peer.control:
                    self._heard(peer, message)
            except HeaderError as exc:
                logger.warning("the peer at %s is cut off: %s", peer.place.address, exc)
                peer.session.abort(ErrorCode.PROTOCOL_ERROR)
            await peer.session.wait_closed()
        if self._peers.get(peer.place.node) is peer:
            del self._peers[peer.place.node]

    def _heard(self, peer: Peer, message: Message) -> None:
        name, epoch = message.text("name"), message.fields.get("epoch")
        if type(epoch) is not int:
            return
        if message.type == "replaced":
            self._on_lost(name, Route(peer.place, epoch, message.text("identity")))
            peer.control.say("released", name=name, epoch=epoch)
        elif message.type == "released" and (name, epoch) in self._acknowledged:
            self._acknowledged[name, epoch].set()

    def _begin(self, work: Coroutine[Any, Any, Any], what: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=f"muxado cluster: {what}")
        self._tasks.add(task)
        task.add_done_callback(partial(_done, self._tasks))
        return task


def _done(tasks: set[asyncio.Task[Any]], task: asyncio.Task[Any]) -> None:
    tasks.discard(task)
    failure = None if task.cancelled() else task.exception()
    if failure is not None and not isinstance(failure, MuxadoError):
        logger.error("%s failed", task.get_name(), exc_info=failure)
