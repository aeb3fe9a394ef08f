"""What clients offer: which names and ports are theirs, and what listens for them.

How it works. A name or a port belongs to one identity in the whole fleet: it is claimed on the
node, by the client's name, and the newest session of a client has it. One that another server has
taken over stops to listen; its connections go on.
"""

from __future__ import annotations

import logging
from functools import partial
from hashlib import sha256
from pathlib import Path
from uuid import getnode

from ..cluster import DirectoryAway, Held, NameAway, NameTaken, Node, Route, Superseded
from ..cluster.errors import Denied
from ..proxy_protocol import TrustedProxies
from .clients import Connected
from .exposing import Exposure
from .messages import REPLACED, RESERVED, Offer

__all__ = ["Exposures"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")

MOST_OFFERS = 256  # of one session


class Exposures:
    """The names and ports that a server has for its clients.

    Args:
        node: where they are claimed.
        host: the address that ports are listened on.
        handed_over: whether ports may pass from another server of this machine to this one, and
            back, without a pause between.
        proxies: the balancers before ports, whose connections begin with a PROXY header.
    """

    def __init__(
        self, node: Node, host: str, handed_over: bool, proxies: TrustedProxies | None
    ) -> None:
        self._node = node
        self._host = host
        self._handed_over = handed_over
        self._proxies = proxies
        self._mark = _mark_of_machine(host)
        self._ports: dict[int, tuple[Connected, Exposure]] = {}
        self._last_ports: dict[tuple[str, str], int] = {}

    @property
    def ports(self) -> set[int]:
        """The ports that are listened on."""
        return set(self._ports)

    async def take(self, client: Connected, offer: Offer) -> Exposure:
        """Begin to serve an offer.

        Raises:
            Denied: the client has no right to it, or another one has it.
            OSError: no port can be had.
        """
        most = client.rights.services or MOST_OFFERS
        if len(client.exposures) >= most and offer.service not in client.exposures:
            raise Denied(f"a client offers {most} services at most", 429)
        if offer.behind and await self._is_held(client, offer):
            raise Denied(REPLACED, 409)
        exposure = Exposure(offer, client, self._proxies)
        if offer.private:
            if not client.rights.may_offer(offer.service):
                raise Denied(f"no right to offer {offer.service}: private:{offer.service}", 403)
            await self._claim_name(client, exposure)
        else:
            await self._open_port(client, exposure)
        if client.session.closed:
            self._close(exposure, cut=True)
            raise Denied("the session has ended", 503)
        again = client.exposures.get(offer.service)
        if again is not None:
            self.drop(client, again)
        client.exposures[offer.service] = exposure
        return exposure

    def drop(self, client: Connected, exposure: Exposure, *, cut: bool = True) -> None:
        """Serve an offer no more.

        Args:
            client: whose it is.
            exposure: it.
            cut: whether its connections are reset.
        """
        self._close(exposure, cut=cut)
        if client.exposures.get(exposure.offer.service) is exposure:
            del client.exposures[exposure.offer.service]

    def drop_all(self, client: Connected, *, cut: bool = True) -> None:
        """Serve no more of what a client offers."""
        for exposure in list(client.exposures.values()):
            self.drop(client, exposure, cut=cut)

    async def _is_held(self, client: Connected, offer: Offer) -> bool:
        """Return whether another session of the client has what it offers, on any server."""
        if offer.service in client.exposures:
            return False
        name, identity = offer.service, client.name
        if not offer.private:
            holder = self._ports.get(offer.port)
            if holder is not None:
                other, exposure = holder
                return other.name == client.name and exposure.offer.service == offer.service
            name, identity = self._name_of_port(offer.port), _whose_port(client, offer)
        try:
            route = await self._node.find(name)
        except DirectoryAway:
            return True  # as far as can be told
        return route is not None and route.identity == identity

    def _close(self, exposure: Exposure, *, cut: bool) -> None:
        exposure.close(cut=cut)
        if exposure.held is not None:
            self._node.release(exposure.held)
        if exposure.port in self._ports and self._ports[exposure.port][1] is exposure:
            del self._ports[exposure.port]

    def _replaced(self, exposure: Exposure) -> None:
        """Let a newer session of the same client have what an older one offers."""
        client, service = exposure.client, exposure.offer.service
        if client.exposures.get(service) is not exposure:
            self._close(exposure, cut=False)
            return
        if client.moving and exposure.port:
            return  # its port is listened on until the client says that it has moved
        # While its client moves to another server, what runs here runs to its end.
        self.drop(client, exposure, cut=not client.moving)
        if not client.moving:
            logger.warning("%s offers %s anew: the newest session has it", client.name, service)
            client.control.say("replaced", service=service)

    # Names

    async def _claim_name(self, client: Connected, exposure: Exposure) -> None:
        service = exposure.offer.service
        if service.startswith(RESERVED):
            raise Denied(f"names that begin with {RESERVED} are the servers' own", 403)
        try:
            exposure.registration = await self._node.register(
                service,
                client.session,
                identity=client.name,
                services=(service,),
                drain=lambda: None,  # the whole session moves
                on_replaced=partial(self._replaced, exposure),
                ends_session=False,
                on_stream=exposure.opened,
            )
        except NameTaken:
            raise Denied(f"another client offers {service}", 409) from None
        except Superseded:
            raise Denied(f"a newer session offers {service}", 409) from None
        except NameAway as exc:
            raise Denied(str(exc), 503) from None

    # Ports

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
                    self._replaced(held[1])
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
        who = "another program"
        if port in self._ports:
            who = f"the client {self._ports[port][0].name}"
        else:
            self._ports[port] = (client, exposure)
            try:
                await self._claim_port(exposure, port)
            except (NameTaken, Superseded):
                who = "another client"
                del self._ports[port]
            except BaseException as exc:
                del self._ports[port]
                if not isinstance(exc, OSError):
                    raise
            else:
                self._last_ports[client.name, exposure.offer.service] = port
                return True
        if must:
            raise Denied(f"port {port} is held by {who}", 409)
        return False

    async def _claim_port(self, exposure: Exposure, port: int) -> None:
        """Listen on a port, claimed among the servers of this machine: all could listen there."""
        if not self._handed_over:
            await exposure.listen(self._host, port, shared=False)
            return

        def lost(route: Route | None) -> None:
            self._replaced(exposure)

        async def listen(held: Held) -> None:
            # While the engine is away, the operating system has to say who may.
            await exposure.listen(self._host, port, shared=held.epoch is not None)

        exposure.held = await self._node.hold(
            self._name_of_port(port),
            lost,
            identity=_whose_port(exposure.client, exposure.offer),
            before_telling=listen,
        )

    def _name_of_port(self, port: int) -> str:
        """Return the name by which a port of this machine is claimed."""
        return f"{RESERVED}port-{port}-{self._mark}"


def _whose_port(client: Connected, offer: Offer) -> str:
    """Return the identity with which the port of an offer is claimed."""
    return f"{client.name}/{offer.service}"


def _mark_of_machine(host: str) -> str:
    """Return what tells this machine's ports, on an address, from those of others."""
    here = f"{getnode()} {host}"
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/net"):
        try:
            found = Path(path)
            here += f" {found.readlink() if found.is_symlink() else found.read_text().strip()}"
        except OSError:
            continue  # another system
    return sha256(here.encode()).hexdigest()[:12]
