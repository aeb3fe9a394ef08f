"""The server of the tunnel: who may come in, what listens for whom, and what reaches what.

A client's session begins with its control stream (`muxado.cluster.control`), on which it shows its
key. After that either side opens streams, each with a header: the server for a connection to what
the client offers, the client for something beyond the server, or for what another client offers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from contextlib import AsyncExitStack
from pathlib import Path
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..asyncio import Server as Listening
from ..asyncio import Session, Stream, relay, serve
from ..cluster.control import Control, welcome
from ..cluster.errors import ClusterError, Denied, HeaderError, NameUnknown, Refused
from ..cluster.lines import Message
from ..cluster.member import read_header
from ..config import Config
from ..errors import MuxadoError, SessionError, UsageError
from .clients import Connected
from .exposing import Exposure
from .invitations import DEFAULT_PORT, Invitation, format_place, hash_secret, parse_place
from .messages import SOCKS, UNREACHABLE, Offer
from .pins import server_context
from .rules import DEFAULT_RULES, Rights
from .socks import SocksRefused, connect_asked
from .state import ServerState
from .targets import dial_allowed, is_own_address

if TYPE_CHECKING:
    from typing import Self

__all__ = ["CONFIG", "Server"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")

CONFIG = Config(ping_interval=5.0, ping_timeout=10.0)

MOST_SILENT = 64  # sessions that have not said hello
HELLO_TIMEOUT = 10.0  # seconds
LOOK = 0.3  # seconds between two looks at whether rights have changed
MOST_OFFERS = 256  # of one session
SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


class Server:
    """Lets clients expose services, and reach them.

    ::

        async with Server("state", "0.0.0.0", 7443) as server:
            print(server.invite("laptop", "tunnel.example"))
            await server.serve_forever()

    It listens while its block runs. The state is a folder, which `muxado invite` and other
    processes may change: what they change holds within a second.
    """

    def __init__(
        self,
        state: ServerState | str | os.PathLike[str],
        host: str = "0.0.0.0",  # noqa: S104  # it is there to be reached
        port: int = DEFAULT_PORT,
        *,
        config: Config = CONFIG,
    ) -> None:
        """Say where.

        Args:
            state: its state, or the folder of it, which is made if it is missing.
            host: the address to listen on, for clients and for what they expose.
            port: the port for clients; 0 for any free one.
            config: the sessions' settings.
        """
        self._state = state if isinstance(state, ServerState) else ServerState(Path(state))
        self._host = host
        self._port = port
        self._config = config
        self._stamp: tuple[int, int] = (-1, -1)
        self._known: dict[str, tuple[str, Rights]] = {}
        self._silent: dict[Session, None] = {}
        self._connected: dict[Session, Connected] = {}
        self._private: dict[str, Exposure] = {}
        self._ports: dict[int, tuple[Connected, Exposure]] = {}
        self._last_ports: dict[tuple[str, str], int] = {}
        self._draining = False
        self._since = time()
        self._listening: Listening | None = None
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
        serving = serve(self._run, self._host, self._port, ssl=context, config=self._config)
        self._listening = await self._stack.enter_async_context(serving)
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
            self._drop_all(client)
        await self._stack.__aexit__(exc_type, exc, traceback)

    async def serve_forever(self) -> None:
        """Serve until this call is cancelled."""
        await self._check_started().serve_forever()

    async def drain(self, grace: float | None = 8.0) -> None:
        """Take no more connections, and let those that are there end.

        Args:
            grace: seconds after which the rest is cut. None: never.
        """
        listening = self._check_started()
        self._draining = True
        for client in self._connected.values():
            for exposure in client.exposures.values():
                exposure.close(cut=False)
            client.control.say("drain")
        await listening.shutdown(grace)

    def status(self) -> dict[str, Any]:
        """Return who is connected, and with what; no secrets."""
        return {
            "port": self.port,
            "since": round(self._since, 3),
            "draining": self._draining,
            "clients": [
                {
                    "name": client.name,
                    "address": _address(session),
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
            self._drop_all(client)
            client.session.close()
        return len(kicked)

    # Sessions

    async def _run(self, session: Session) -> None:
        self._silent[session] = None
        if len(self._silent) > MOST_SILENT:
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest.abort(401)
        try:
            control, hello = await welcome(session, timeout=HELLO_TIMEOUT)
        except (HeaderError, EOFError, TimeoutError, MuxadoError) as exc:
            logger.info("%s said no hello: %s", _address(session), exc)
            return
        finally:
            self._silent.pop(session, None)
        try:
            client = self._admit(control, hello)
            try:
                answers = [await self._answer(client, each) for each in _offers(hello)]
                await self._talk(client, answers)
            finally:
                self._forget(client)
        except (ClusterError, UsageError) as exc:
            logger.warning("%s is not taken: %s", _address(session), exc)
            control.say("error", code=getattr(exc, "code", 500), text=str(exc))

    async def _talk(self, client: Connected, answers: list[dict[str, object]]) -> None:
        """Say ok to a client, and serve its session to its end."""
        lines = client.rights.lines()
        client.control.say("ok", name=client.name, rights=lines, services=answers, epoch=0)
        listening = asyncio.create_task(self._listen(client), name="muxado tunnel: control")
        try:
            with contextlib.suppress(SessionError):
                await client.session.serve(lambda stream: self._serve(client, stream))
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    def _admit(self, control: Control, hello: Message) -> Connected:
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
            self._state.redeem(token, key)
        name = self._state.identify(key)
        self._look()
        client = Connected(name, hash_secret(key), self._known[name][1], control)
        self._connected[session] = client
        logger.info("%s has come from %s", name, _address(session))
        return client

    async def _listen(self, client: Connected) -> None:
        """Do what a client says."""
        try:
            async for message in client.control:
                if message.type == "offer":
                    answer = await self._answer(client, message.fields)
                    client.control.say("offered", **answer)
                elif message.type == "withdraw":
                    exposure = client.exposures.get(message.text("service"))
                    if exposure is not None:
                        self._drop(client, exposure)
        except HeaderError as exc:
            logger.warning("%s breaks the protocol: %s", client.name, exc)
            client.session.close()

    def _forget(self, client: Connected) -> None:
        self._drop_all(client, cut=False)
        del self._connected[client.session]
        logger.info("%s has gone", client.name)

    # What clients offer

    async def _answer(self, client: Connected, fields: Any) -> dict[str, object]:
        """Take an offer; return what is answered."""
        offer = Offer.unpack(fields)
        try:
            exposure = await self._take(client, offer)
        except (ClusterError, OSError) as exc:
            code = getattr(exc, "code", 409)
            text = str(exc)
            logger.warning("%s may not offer %s: %s", client.name, offer.service, text)
            return {"service": offer.service, "code": code, "text": text}
        return {"service": offer.service, "port": exposure.port}

    async def _take(self, client: Connected, offer: Offer) -> Exposure:
        """Begin to serve an offer.

        Raises:
            Denied: the client has no right to it, or another one has it.
            OSError: no port can be had.
        """
        if len(client.exposures) >= MOST_OFFERS:
            raise Denied(f"a client offers {MOST_OFFERS} services at most", 429)
        exposure = Exposure(offer, client.session, client.name)
        if offer.private:
            if not client.rights.may_offer(offer.service):
                raise Denied(f"no right to offer {offer.service}: private:{offer.service}", 403)
            before = self._private.get(offer.service)
            if before is not None:
                if before.client != client.name:
                    raise Denied(f"another client offers {offer.service}", 409)
                self._replace(before)
            self._private[offer.service] = exposure
        else:
            await self._open_port(client, exposure)
            if client.session.closed:
                exposure.close()
                raise Denied("the session has ended", 503)
        again = client.exposures.get(offer.service)
        if again is not None:
            self._drop(client, again)
        client.exposures[offer.service] = exposure
        return exposure

    async def _open_port(self, client: Connected, exposure: Exposure) -> None:
        offer, rights = exposure.offer, client.rights
        if offer.exact and not rights.may_expose(offer.port):
            allowed = ", ".join(line for line in rights.lines() if line.startswith("expose"))
            raise Denied(
                f"no right to expose port {offer.port}; allowed: {allowed or 'no port'}", 403
            )
        last = self._last_ports.get((client.name, offer.service), 0)
        wanted = [offer.port] if offer.exact else [port for port in (offer.port, last) if port]
        tried = set()
        for port in wanted:
            if rights.may_expose(port):
                held = self._ports.get(port)
                same = held is not None and held[0].name == client.name
                if held is not None and same and held[1].offer.service == offer.service:
                    self._replace(held[1])
                tried.add(port)
                if await self._listen_on(client, exposure, port, must=offer.exact):
                    return
        for ports in rights.exposed_ports():
            for port in ports:
                if port in tried or port in self._ports:
                    continue
                if await self._listen_on(client, exposure, port, must=False):
                    return
        if not rights.exposed_ports():
            raise Denied("no right to expose a port", 403)
        raise Denied("no port is free of those that are allowed", 409)

    async def _listen_on(
        self, client: Connected, exposure: Exposure, port: int, *, must: bool
    ) -> bool:
        """Listen on a port; return whether that is so."""
        if port not in self._ports:
            self._ports[port] = (client, exposure)
            try:
                await exposure.listen(self._host, port)
            except OSError:
                del self._ports[port]
            except BaseException:
                del self._ports[port]
                raise
            else:
                self._last_ports[client.name, exposure.offer.service] = port
                return True
        if must:
            holder = self._ports.get(port)
            who = "another program" if holder is None else f"the client {holder[0].name}"
            raise Denied(f"port {port} is held by {who}", 409)
        return False

    def _replace(self, exposure: Exposure) -> None:
        """Let a newer session of the same client have what an older one offers."""
        client = self._connected.get(exposure.session)
        if client is None:
            return
        self._drop(client, exposure)
        service = exposure.offer.service
        logger.warning("%s offers %s anew: the newest session has it", client.name, service)
        client.control.say("replaced", service=service)

    def _drop(self, client: Connected, exposure: Exposure, *, cut: bool = True) -> None:
        exposure.close(cut=cut)
        if client.exposures.get(exposure.offer.service) is exposure:
            del client.exposures[exposure.offer.service]
        if self._private.get(exposure.offer.service) is exposure:
            del self._private[exposure.offer.service]
        if exposure.port in self._ports and self._ports[exposure.port][1] is exposure:
            del self._ports[exposure.port]

    def _drop_all(self, client: Connected, *, cut: bool = True) -> None:
        for exposure in list(client.exposures.values()):
            self._drop(client, exposure, cut=cut)

    # What clients use

    async def _serve(self, client: Connected, stream: Stream) -> None:
        """Pass a client's stream on."""
        try:
            header = await read_header(stream)
        except (HeaderError, MuxadoError):
            return
        service = header.service
        try:
            if service == SOCKS:
                await self._socks(client, stream)
            elif ":" in service:
                await self._forward(client, stream, *parse_place(service))
            else:
                await self._reach(client, stream, service)
        except SocksRefused as exc:
            logger.warning("%s may not have what it asks for by SOCKS: %s", client.name, exc)
        except (ClusterError, UsageError) as exc:
            logger.warning("%s may not have %r: %s", client.name, service[:80], exc)
            stream.reset(exc.code if isinstance(exc, ClusterError) else 400)
        except OSError as exc:
            logger.warning("%s can't have %r: %s", client.name, service[:80], exc)
            stream.reset(UNREACHABLE)

    async def _reach(self, client: Connected, stream: Stream, name: str) -> None:
        if not client.rights.may_reach(name):
            raise Refused(f"no right: reach:{name}")
        exposure = self._private.get(name)
        if exposure is None:
            raise NameUnknown(f"no client offers {name}")
        with client.using(name, lambda rights: rights.may_reach(name)):
            await relay(stream, exposure.stream(_address(client.session), client.name))

    async def _forward(self, client: Connected, stream: Stream, host: str, port: int) -> None:
        if not client.rights.has("forward"):
            raise Refused(f"no right: forward:{host}:{port}")
        place = host, port
        pair = await dial_allowed(
            host, port, lambda address: self._allows(client.rights, "forward", place, address)
        )
        await self._pass(client, "forward", place, stream, pair)

    async def _socks(self, client: Connected, stream: Stream) -> None:
        if not client.rights.has("socks"):
            raise Refused("no right: socks:")
        place, pair = await connect_asked(
            stream, lambda place, address: self._allows(client.rights, "socks", place, address)
        )
        await self._pass(client, "socks", place, stream, pair)

    async def _pass(
        self,
        client: Connected,
        kind: str,
        place: tuple[str, int],
        stream: Stream,
        pair: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Pass on to a place beyond the server, while the client has a right to it."""
        address = str(pair[1].get_extra_info("peername")[0])
        what = format_place(place) + (" by SOCKS" if kind == "socks" else "")
        with client.using(what, lambda rights: self._allows(rights, kind, place, address)):
            await relay(stream, pair)

    def _allows(self, rights: Rights, kind: str, place: tuple[str, int], address: str) -> bool:
        host, port = place
        own = (port == self.port or port in self._ports) and is_own_address(address)
        return rights.may_dial(kind, host, address, port, own=own)

    # Rights

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
                self._drop_all(client)
                client.session.abort(401)
            elif found[1] != client.rights:
                for exposure in client.limit(found[1]):
                    service = exposure.offer.service
                    logger.warning("%s may not offer %s any more", client.name, service)
                    self._drop(client, exposure)
                    client.control.say("withdrawn", service=service)

    def _check_started(self) -> Listening:
        if self._listening is None:
            raise UsageError("a server begins with its block: use it with 'async with'")
        return self._listening


def _offers(hello: Message) -> list[Any]:
    offers = hello.fields.get("services", [])
    if not isinstance(offers, list):
        raise HeaderError("hello's services must be a list")
    return offers


def _address(session: Session) -> str:
    found = session.remote_address
    return f"{found[0]}:{found[1]}" if isinstance(found, tuple) else str(found)
