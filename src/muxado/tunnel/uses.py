"""What clients reach: targets beyond the server, and what other clients offer, on any server.

A stream has a task until its target is connected, and a relay from then on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..asyncio import Relay, Stream
from ..base_stream import give_up
from ..cluster import Node, Passing
from ..cluster.errors import ClusterError, Denied, HeaderError, Refused
from ..cluster.member import read_header
from ..errors import MuxadoError, UsageError
from .arrivals import address_of
from .clients import Connected, Use
from .denials import Denials
from .invitations import format_place, parse_place
from .messages import SOCKS, UNREACHABLE
from .outages import why
from .rules import Rights
from .socks import SocksRefused, connect_asked
from .targets import TIMEOUT, Joining, dial_allowed, is_own_address

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
        """Judge a client's stream, and begin to pass it on."""
        try:
            await self._serve(client, stream)
        except BaseException:
            give_up(stream)
            raise

    async def _serve(self, client: Connected, stream: Stream) -> None:
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
                self._reach(client, stream, service)
        except SocksRefused as exc:
            stream.close()
            self._tell(client, f"may not have what it asks for by SOCKS: {exc}")
            # Its program is told by a reply that says little, and passes its own client unread.
            client.control.say("error", code=403, text=f"by SOCKS: {exc}")
        except (ClusterError, UsageError) as exc:
            self._deny(client, service, exc)
            give_up(stream, exc.code if isinstance(exc, ClusterError) else 400)
        except MuxadoError:
            give_up(stream)  # the caller has gone
        except OSError as exc:
            self._deny(client, service, exc)
            give_up(stream, UNREACHABLE)

    def _tell(self, client: Connected, text: str) -> None:
        self._denials.tell("use", client.name, f"{client.name} {text}")

    def _deny(self, client: Connected, service: str, exc: Exception) -> None:
        may = "may not" if isinstance(exc, ClusterError | UsageError) else "can't"
        self._tell(client, f"{may} have {service[:80]!r}: {why(exc)}")

    def _reach(self, client: Connected, stream: Stream, name: str) -> None:
        if not client.rights.may_reach(name):
            raise Refused(f"no right: reach:{name}")

        def ended(passing: Passing) -> None:
            client.end_use(use)
            if passing.failure is not None:
                self._deny(client, name, passing.failure)

        use = Use(name, lambda rights: rights.may_reach(name))
        client.begin_use(use)
        try:
            passing = self._node.pass_on(
                stream,
                name,
                name,
                timeout=TIMEOUT,
                origin=address_of(client.session),
                identity=client.name,
                on_end=ended,
            )
        except BaseException:
            client.end_use(use)
            raise
        use.cancel = passing.cancel

    async def _forward(self, client: Connected, stream: Stream, host: str, port: int) -> None:
        if not client.rights.has("forward"):
            raise Refused(f"no right: forward:{host}:{port}")
        place = host, port
        use = Use(format_place(place))
        joining = Joining(stream, on_end=lambda _: client.end_use(use))
        transport = await dial_allowed(
            host,
            port,
            lambda address: self._allows(client.rights, "forward", place, address),
            joining,
        )
        self._begin(client, use, "forward", place, transport, joining.relay)

    async def _socks(self, client: Connected, stream: Stream) -> None:
        if not client.rights.has("socks"):
            raise Refused("no right: socks:")
        use = Use()
        place, transport, relay = await connect_asked(
            stream,
            lambda place, address: self._allows(client.rights, "socks", place, address),
            on_end=lambda _: client.end_use(use),
        )
        use.what = f"{format_place(place)} by SOCKS"
        self._begin(client, use, "socks", place, transport, relay)

    def _begin(
        self,
        client: Connected,
        use: Use,
        kind: str,
        place: tuple[str, int],
        transport: asyncio.Transport,
        relay: Relay,
    ) -> None:
        """Take note of what is passed on to a place beyond the server, as long as there is a right.

        The rights may have changed while it was connected.
        """
        if relay.result is not None:
            return
        address = str(transport.get_extra_info("peername")[0])
        use.allowed = lambda rights: self._allows(rights, kind, place, address)
        use.cancel = relay.cancel
        client.begin_use(use)

    def _allows(self, rights: Rights, kind: str, place: tuple[str, int], address: str) -> bool:
        host, port = place
        own = port in self._own_ports() and is_own_address(address)
        return rights.may_dial(kind, host, address, port, own=own)
