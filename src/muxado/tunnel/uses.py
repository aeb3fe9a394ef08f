"""What clients reach: targets beyond the server, and what other clients offer, on any server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..asyncio import Stream, relay
from ..cluster import Node
from ..cluster.errors import ClusterError, Denied, HeaderError, Refused
from ..cluster.member import read_header
from ..errors import MuxadoError, UsageError
from .arrivals import address_of
from .clients import Connected
from .denials import Denials
from .invitations import format_place, parse_place
from .messages import SOCKS, UNREACHABLE
from .rules import Rights
from .socks import SocksRefused, connect_asked
from .targets import TIMEOUT, dial_allowed, is_own_address

__all__ = ["Uses"]


class Uses:
    """Passes the streams of clients on, as far as their rights go.

    Args:
        node: where names are found.
        denials: where is told what is denied.
        own_ports: returns the ports that the server itself listens on.
    """

    def __init__(self, node: Node, denials: Denials, own_ports: Callable[[], set[int]]) -> None:
        self._node = node
        self._denials = denials
        self._own_ports = own_ports

    async def serve(self, client: Connected, stream: Stream) -> None:
        """Pass a client's stream on, to its end."""
        try:
            header = await read_header(stream)
        except (HeaderError, MuxadoError):
            return
        service = header.service
        try:
            if client.is_full:
                raise Denied("it has too many connections", 429)
            if service == SOCKS:
                await self._socks(client, stream)
            elif ":" in service:
                await self._forward(client, stream, *parse_place(service))
            else:
                await self._reach(client, stream, service)
        except SocksRefused as exc:
            self._tell(client, f"may not have what it asks for by SOCKS: {exc}")
        except (ClusterError, UsageError) as exc:
            self._tell(client, f"may not have {service[:80]!r}: {exc}")
            stream.reset(exc.code if isinstance(exc, ClusterError) else 400)
        except OSError as exc:
            self._tell(client, f"can't have {service[:80]!r}: {exc or 'it took too long'}")
            stream.reset(UNREACHABLE)

    def _tell(self, client: Connected, text: str) -> None:
        self._denials.tell("use", client.name, f"{client.name} {text}")

    async def _reach(self, client: Connected, stream: Stream, name: str) -> None:
        if not client.rights.may_reach(name):
            raise Refused(f"no right: reach:{name}")
        with client.using(name, lambda rights: rights.may_reach(name)):
            passing = self._node.pass_on(
                stream,
                name,
                name,
                timeout=TIMEOUT,
                origin=address_of(client.session),
                identity=client.name,
            )
            try:
                await passing.wait_closed()
            finally:
                passing.cancel()

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
        own = port in self._own_ports() and is_own_address(address)
        return rights.may_dial(kind, host, address, port, own=own)
