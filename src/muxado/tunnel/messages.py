"""What a client offers and asks for, as the control stream and the headers of streams say it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from ..cluster.errors import HeaderError
from ..cluster.names import check_name, is_name
from ..errors import UsageError
from .invitations import format_place, parse_place

__all__ = [
    "REPLACED",
    "RESERVED",
    "SOCKS",
    "UNREACHABLE",
    "Offer",
    "Sources",
    "check_private",
    "check_service",
    "parse_sources",
    "right_for",
]

SOCKS = "socks:"  # a header's service, where the stream then says itself what it is to reach
UNREACHABLE = 502  # what a stream is reset with
REPLACED = "a newer session of this client offers it"
MOST_SOURCES = 64
RESERVED = "muxado--"  # what names begin with that servers claim for themselves

Sources = tuple[IPv4Network | IPv6Network, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """A service that a client offers.

    Attributes:
        service: its name, which the header of each stream says.
        private: whether it is for other clients only, without a port.
        port: the port to listen on; 0 for any one that the client has a right to.
        exact: whether no other port will do.
        sources: the networks that may connect; () for all.
        behind: whether another session of the same client keeps the service, if one has it: a newer
            one had taken it from this one.
    """

    service: str
    private: bool = False
    port: int = 0
    exact: bool = False
    sources: Sources = ()
    behind: bool = False

    def pack(self) -> dict[str, object]:
        """Return it as the fields of a message."""
        fields: dict[str, object] = {"service": self.service}
        fields |= {"behind": True} if self.behind else {}
        if self.private:
            return fields | {"private": True}
        sources = [str(each) for each in self.sources]
        return (
            fields
            | {"port": self.port}
            | ({"exact": True} if self.exact else {})
            | ({"from": sources} if sources else {})
        )

    @classmethod
    def unpack(cls, fields: Any) -> Offer:
        """Return what a message's fields say.

        Raises:
            HeaderError: they say nothing that can be.
        """
        if not isinstance(fields, dict) or not is_name(fields.get("service")):
            raise HeaderError("an offer needs a service, which is a DNS label")
        private, exact = fields.get("private", False), fields.get("exact", False)
        port, sources = fields.get("port", 0), fields.get("from", [])
        if type(private) is not bool or type(exact) is not bool:
            raise HeaderError("an offer's private and exact are true or false")
        behind = fields.get("behind") is True
        if type(port) is not int or not 0 <= port <= 65535 or (exact and not port):
            raise HeaderError("an offer's port must be one")
        if not isinstance(sources, list) or len(sources) > MOST_SOURCES:
            raise HeaderError("an offer's from must be a short list of networks")
        try:
            return cls(fields["service"], private, port, exact, parse_sources(sources), behind)
        except UsageError as exc:
            raise HeaderError(str(exc)) from None

    def admits(self, address: str) -> bool:
        """Return whether a connection from an address is one of the sources."""
        if not self.sources:
            return True
        found = ip_address(address.partition("%")[0])
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found.version == each.version and found in each for each in self.sources)


def check_private(port: int | None, sources: Sequence[str]) -> None:
    """Check that a private service is asked for without what belongs to a port.

    Raises:
        UsageError: it is not.
    """
    if port is not None:
        raise UsageError("a private service has no port: leave out one of them, port or private")
    if sources:
        raise UsageError(
            "a private service has no port: who may reach it is said by rights, reach:"
        )


def check_service(service: str) -> str:
    """Return a service that can be asked for: ``HOST:PORT`` or a name.

    Raises:
        UsageError: it is neither.
    """
    if ":" in service:
        return format_place(parse_place(service))
    return check_name(service)


def right_for(service: str) -> str:
    """Return the rule that a client needs to use a service: see `muxado.tunnel.rules`.

    Args:
        service: ``HOST:PORT``, a name, or `SOCKS`.
    """
    if service == SOCKS:
        return "socks:NET:PORTS"
    return f"forward:{service}" if ":" in service else f"reach:{service}"


def parse_sources(texts: Iterable[object]) -> Sources:
    """Return the networks that are written down.

    Raises:
        UsageError: one is no network.
    """
    found = []
    for text in texts:
        try:
            found.append(ip_network(text if isinstance(text, str) else ""))
        except ValueError:
            raise UsageError(f"no network, such as 10.0.0.0/8: {text!r:.60}") from None
    return tuple(found)
