"""The server of the tunnel: who may come in, what listens for whom, and what reaches what.

A client's session begins with its control stream (`muxado.cluster.control`), on which it shows its
key. After that either side opens streams, each with a header: the server for a connection to what
the client offers, the client for something beyond the server, or for what another client offers.

The parts: `Arrivals` hears hello, `Exposures` has what clients offer, `Uses` what they reach, and
`Fleet` what this server has in common with the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import shuffle
from time import monotonic, time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..asyncio import Server as Listening
from ..asyncio import Session, serve
from ..cluster import Directory, Node
from ..cluster.control import Control
from ..cluster.errors import ClusterError, Denied, HeaderError
from ..cluster.lines import Message
from ..config import Config
from ..errors import UsageError
from ..proxy_protocol import TrustedProxies
from .arrivals import Arrivals, address_of, host_of
from .clients import Connected
from .denials import Denials
from .exposures import Exposures
from .fleet import Fleet
from .invitations import DEFAULT_PORT, Invitation, hash_secret, parse_place
from .messages import Offer
from .pins import server_context
from .rights_file import read_rights
from .rules import DEFAULT_RULES, Rights
from .state import ServerState
from .uses import Uses
from .web import parse_web, serve_web

if TYPE_CHECKING:
    from typing import Self

__all__ = ["CONFIG", "Server"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")

CONFIG = Config(ping_interval=5.0, ping_timeout=10.0)

LOOK = 0.3  # seconds between two looks at whether rights have changed
MOST_PACE = 0.02  # seconds between two clients that are asked to move
SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


class Server:
    """Lets clients expose services, and reach them.

    ::

        async with Server("state", "0.0.0.0", 7443) as server:
            print(server.invite("laptop", "tunnel.example"))
            await server.serve_forever()

    It listens while its block runs. The state is a folder, which `muxado invite` and other
    processes may change: what they change holds within a second. Several servers may have one
    state. With a directory they are a fleet: a client is connected to any of them, and what it
    offers by name is reached from all.
    """

    def __init__(
        self,
        state: ServerState | str | os.PathLike[str],
        host: str = "0.0.0.0",  # noqa: S104  # it is there to be reached
        port: int = DEFAULT_PORT,
        *,
        sock: socket.socket | None = None,
        directory: Directory | None = None,
        peers: tuple[str, int] = ("127.0.0.1", 0),
        advertise: str = "",
        folder: Path | None = None,
        rights: Path | None = None,
        proxy_protocol: Sequence[str] | None = None,
        exposed_proxy_protocol: Sequence[str] | None = None,
        websocket: str | None = None,
        config: Config = CONFIG,
    ) -> None:
        """Say where.

        Args:
            state: its state, or the folder of it, which is made if it is missing.
            host: the address to listen on, for clients and for what they expose.
            port: the port for clients; 0 for any free one.
            sock: a listening socket to take clients from instead, that other processes have too.
            directory: the engine that it shares with other servers; None if it is alone.
            peers: host and port for the other servers; 0 is any free port.
            advertise: "HOST:PORT", at which they reach it; by default where it listens for them.
            folder: the part of the state that is this process's own; by default all of it.
            rights: a file of rights, which holds in place of what invitations have said: see
                `muxado.tunnel.rights_file`. `reload` reads it again.
            proxy_protocol: networks of balancers, whose connections begin with a PROXY header.
            exposed_proxy_protocol: the same for the ports that clients expose. Connections from
                elsewhere are not taken there.
            websocket: where clients may connect by WebSockets too, any path: ``ws://HOST:PORT``
                behind a proxy that ends TLS, or ``wss://HOST:PORT`` with the server's own key.
            config: the sessions' settings.

        Raises:
            UsageError: an argument can't be, or the file of rights.
        """
        self._state = state if isinstance(state, ServerState) else ServerState(Path(state))
        self._host = host
        self._port = port
        self._sock = sock
        self._rights_path = None if rights is None else rights.absolute()
        self._file_rights = None if rights is None else read_rights(rights)
        self._proxy_protocol = proxy_protocol
        self._websocket = websocket
        web_port = {parse_web(websocket)[0][1]} if websocket is not None else set()
        self._stamp: tuple[int, int] | None = None
        self._known: dict[str, tuple[str, Rights]] = {}
        self._connected: dict[Session, Connected] = {}
        self._denials = Denials()
        self._arrivals = Arrivals(config, self._denials)
        self._fleet = Fleet(self._state, directory, peers, advertise, folder)
        node = self._fleet.node
        proxies = TrustedProxies(exposed_proxy_protocol) if exposed_proxy_protocol else None
        self._exposures = Exposures(node, host, self._fleet.shared, proxies)
        self._uses = Uses(
            node, self._denials, lambda: self._exposures.ports | {self._port} | web_port
        )
        self._draining = False
        self._since = time()
        self._listening: Listening | None = None
        self._web: Listening | None = None
        self._stack = AsyncExitStack()

    @property
    def state(self) -> ServerState:
        """The identities, rights and invitations."""
        return self._state

    @property
    def port(self) -> int:
        """The port that is listened on."""
        self._check_started()
        return self._port

    @property
    def draining(self) -> bool:
        """Whether it is about to end, and takes no more clients."""
        return self._draining

    @property
    def node(self) -> Node:
        """What it is as one of a fleet."""
        return self._fleet.node

    @property
    def clients(self) -> list[Connected]:
        """The sessions of clients that are connected here."""
        return list(self._connected.values())

    @property
    def denials(self) -> Denials:
        """What was denied, counted."""
        return self._denials

    def invite(self, name: str, host: str, rules: tuple[str, ...] = DEFAULT_RULES) -> Invitation:
        """Make an invitation.

        Args:
            name: what the client is to be called.
            host: under which the client reaches this server.
            rules: what the client may do.

        Raises:
            UsageError: the name, the host or a rule can't be.
        """
        place = parse_place(f"[{host}]" if ":" in host else host, self.port)
        return Invitation(self._state.invite(name, rules), (place,), (self._state.pin,))

    async def __aenter__(self) -> Self:
        context = server_context(os.fspath(self._state.key_path))
        self._look()
        await self._stack.enter_async_context(self._fleet.running())
        serving = serve(
            self._run,
            self._host if self._sock is None else None,
            self._port if self._sock is None else None,
            sock=self._sock,
            ssl=context,
            config=self._arrivals.config,
            proxy_protocol=self._proxy_protocol,
        )
        try:
            self._listening = await self._stack.enter_async_context(serving)
            if self._websocket is not None:
                web = serve_web(
                    self._run,
                    self._websocket,
                    self._state.key_path,
                    self._arrivals.config,
                    shared=self._sock is not None,
                )
                self._web = await self._stack.enter_async_context(web)
        except BaseException:
            await self._stack.aclose()
            raise
        self._port = int(self._listening.addresses[0][1])
        watching = asyncio.create_task(self._watch(), name="muxado tunnel: rights")
        self._stack.callback(watching.cancel)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for client in self._connected.values():
            self._exposures.drop_all(client)
        await self._stack.__aexit__(exc_type, exc, traceback)

    async def serve_forever(self) -> None:
        """Serve until this call is cancelled."""
        await self._check_started().serve_forever()

    def reload(self) -> None:
        """Read the file of rights again, and end what it does not allow any more.

        Raises:
            UsageError: it can't be; what was last known holds.
        """
        if self._rights_path is not None:
            self._file_rights = read_rights(self._rights_path)
        self._stamp = None
        self._look()

    async def drain(self, grace: float | None = 8.0) -> None:
        """Take no more clients, and let those that are there go.

        Clients that can go to another server are asked to, one after the other, within half of the
        grace; what they offer is served here until it is served there. The others, and those that
        find no other server at the one address that they have, are let go at once, except for what
        runs. A session ends when nothing runs on it any more, and this
        returns when none is left.

        Args:
            grace: seconds after which the rest is cut. None: never.
        """
        listening = self._check_started()
        self._draining = True
        began = monotonic()
        listening.stop_listening()
        if self._web is not None:
            self._web.stop_listening()
        clients = list(self._connected.values())
        moving = [client for client in clients if client.movable]
        for client in clients:
            if not client.movable:
                self._let_go(client)
        shuffle(moving)
        pause = MOST_PACE if grace is None else min(MOST_PACE, grace / 2 / max(1, len(moving)))
        for at, client in enumerate(moving):
            await asyncio.sleep(max(0.0, began + pause * at - monotonic()))
            if client.session in self._connected:
                self._let_go(client)
        with contextlib.suppress(TimeoutError):
            rest = None if grace is None else max(0.0, began + grace - monotonic())
            async with asyncio.timeout(rest):
                await asyncio.gather(*[client.session.wait_closed() for client in clients])
        await listening.shutdown(0.0)
        if self._web is not None:
            await self._web.shutdown(0.0)

    def _let_go(self, client: Connected) -> None:
        """Have a client move to another server, or end its session when nothing runs on it."""
        client.moving = True
        client.control.say("drain")
        if not client.movable:
            self._end(client)

    def _end(self, client: Connected) -> None:
        """End a client's session when nothing runs on it any more."""
        self._exposures.drop_all(client, cut=False)
        ending = asyncio.create_task(client.session.shutdown(None), name="muxado tunnel: drain")
        self._stack.callback(ending.cancel)

    def status(self) -> dict[str, Any]:
        """Return who is connected, and with what; no secrets."""
        stats = self.node.stats()
        return {
            "port": self.port,
            "since": round(self._since, 3),
            "draining": self._draining,
            "denied": dict(self._denials.counts),
            "rights_file": None if self._rights_path is None else str(self._rights_path),
            "fleet": {
                "shared": self._fleet.shared,
                "address": self._fleet.node.place.address,
                "peers": stats.peers,
                "names": stats.registered,
                "waiting": stats.waiting,
                "trouble": stats.trouble,
            },
            "known": {name: self._rights_of(name).lines() for name in sorted(self._known)},
            "invited": [
                {"name": name, "until": round(until, 3)} for name, until in self._state.invited()
            ],
            "clients": [
                {
                    "name": client.name,
                    "since": round(client.since, 3),
                    "rights": client.rights.lines(),
                    "address": address_of(session),
                    "services": [
                        {
                            "service": exposure.offer.service,
                            "port": exposure.port,
                            "private": exposure.offer.private,
                            "connections": exposure.count,
                            "open": exposure.open,
                        }
                        for exposure in client.exposures.values()
                    ],
                    "uses": client.uses,
                }
                for session, client in self._connected.items()
            ],
        }

    def kick(self, name: str) -> int:
        """End the sessions of a client, which may come back; return how many there were."""
        kicked = [each for each in self._connected.values() if each.name == name]
        for client in kicked:
            client.control.say("error", code=503, text="this session was ended by hand")
            self._exposures.drop_all(client)
            client.session.close()
        return len(kicked)

    # Sessions

    async def _run(self, session: Session) -> None:
        heard = await self._arrivals.hear(session)
        if heard is None:
            return
        control, hello = heard
        try:
            client = await self._admit(control, hello)
            try:
                answers = [await self._answer(client, each) for each in _offers(hello)]
                await self._talk(client, answers)
            finally:
                self._forget(client)
        except (ClusterError, UsageError) as exc:
            text = f"{address_of(session)} is not taken: {exc}"
            self._denials.tell("hello", host_of(session), text)
            control.say("error", code=getattr(exc, "code", 500), text=str(exc))

    async def _talk(self, client: Connected, answers: list[dict[str, object]]) -> None:
        """Say ok to a client, and serve its session to its end."""
        lines = client.rights.lines()
        client.control.say("ok", name=client.name, rights=lines, services=answers, epoch=0)
        listening = asyncio.create_task(self._listen(client), name="muxado tunnel: control")
        client.session.on_stream(lambda stream: client.start(self._uses.serve(client, stream)))
        try:
            await client.session.wait_closed()
        finally:
            listening.cancel()
            await asyncio.wait([listening])
            await client.stop()

    async def _admit(self, control: Control, hello: Message) -> Connected:
        """Find out who it is.

        Raises:
            Denied: the client is unknown.
        """
        session = control.session
        if self._draining:
            raise Denied("the server is about to end: try again", 503)
        key, token = hello.text("key"), hello.text("token")
        if SECRET.fullmatch(key) is None:
            raise Denied("hello must show a key", 401)
        if token:
            await self._fleet.redeem(token, key)
        name = self._state.identify(key)
        self._look()
        client = Connected(
            name,
            hash_secret(key),
            self._rights_of(name),
            control,
            self._denials,
            movable=self._fleet.shared and hello.fields.get("movable") is not False,
        )
        self._connected[session] = client
        session.on_draining(lambda: self._drains(client))
        logger.info("%s has come from %s", name, address_of(session))
        return client

    def _drains(self, client: Connected) -> None:
        """Listen no more for a session that takes no more streams; what runs goes on."""
        self._exposures.drop_all(client, cut=False)

    async def _listen(self, client: Connected) -> None:
        """Do what a client says."""
        try:
            async for message in client.control:
                if message.type == "offer":
                    answer = await self._answer(client, message.fields)
                    client.control.say("offered", **answer)
                elif message.type == "moved":
                    self._exposures.drop_all(client, cut=False)
                elif message.type == "stays":
                    if client.moving:
                        self._end(client)
                elif message.type == "withdraw":
                    exposure = client.exposures.get(message.text("service"))
                    if exposure is not None:
                        self._exposures.drop(client, exposure)
        except HeaderError as exc:
            self._denials.tell("hello", client.name, f"{client.name} breaks the protocol: {exc}")
            client.session.close()

    def _forget(self, client: Connected) -> None:
        self._exposures.drop_all(client, cut=False)
        del self._connected[client.session]
        logger.info("%s has gone", client.name)

    async def _answer(self, client: Connected, fields: Any) -> dict[str, object]:
        """Take an offer; return what is answered."""
        offer = Offer.unpack(fields)
        try:
            exposure = await self._exposures.take(client, offer)
        except (ClusterError, OSError) as exc:
            if not offer.behind:  # it is tried every few seconds
                text = f"{client.name} may not offer {offer.service}: {exc}"
                self._denials.tell("offer", client.name, text)
            return {"service": offer.service, "code": getattr(exc, "code", 409), "text": str(exc)}
        return {"service": offer.service, "port": exposure.port}

    # Rights

    def _rights_of(self, name: str) -> Rights:
        """Return what a client may do: what the file of rights says, if there is one."""
        if self._file_rights is None:
            return self._known[name][1]
        return self._file_rights.get(name, Rights(()))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                self._look()
            except (UsageError, OSError, KeyError, TypeError) as exc:
                logger.error("the state can't be read, what was last known holds: %s", exc)

    def _look(self) -> None:
        """Take what has changed of identities and rights, and end what is not allowed any more."""
        stamp = self._state.stamp()
        if stamp == self._stamp:
            return
        self._known = self._state.clients()
        self._stamp = stamp
        for client in list(self._connected.values()):
            found = self._known.get(client.name)
            if found is None or found[0] != client.key:
                logger.warning("%s has no right to be here any more", client.name)
                self._exposures.drop_all(client)
                client.session.abort(401)
            elif (rights := self._rights_of(client.name)) != client.rights:
                for exposure in client.limit(rights):
                    service = exposure.offer.service
                    logger.warning("%s may not offer %s any more", client.name, service)
                    self._exposures.drop(client, exposure)
                    client.control.say("withdrawn", service=service)
                client.control.say("rights", rights=rights.lines())

    def _check_started(self) -> Listening:
        if self._listening is None:
            raise UsageError("a server begins with its block: use it with 'async with'")
        return self._listening


def _offers(hello: Message) -> list[Any]:
    offers = hello.fields.get("services", [])
    if not isinstance(offers, list):
        raise HeaderError("hello's services must be a list")
    return offers
