"""Rights: what a client may do, as rules of one line each. What no rule allows is refused.

- ``expose:20000-20999``: have the server listen on these ports.
- ``private:NAME`` or ``private:*``: offer a service of that name, without a port.
- ``reach:NAME``: use what another client offers under that name.
- ``forward:HOST:PORTS`` or ``forward:NET:PORTS``: reach targets beyond the server.
- ``socks:HOST:PORTS`` or ``socks:NET:PORTS``: reach them by SOCKS5.

Ports are ``80``, ``8000-8999`` or ``*``. An IPv6 address or network stands in brackets.

A target is judged by the address that is dialled, after its name was looked up. Loopback,
link-local and other special addresses, and the server's own port, are allowed only by a rule that
names the one address, or ``localhost``: a name that somebody else's DNS leads there is not enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from ..cluster.names import is_name
from ..errors import UsageError

__all__ = ["DEFAULT_RULES", "LIMITS", "Rights", "Rule", "check_rules"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DEFAULT_RULES: tuple[str, ...] = ("expose:20000-20999", "private:*")
"""What an invitation allows that says nothing else."""

LIMITS = ("connections", "services")

HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")
TARGETS = ("forward", "socks")
KINDS = ("expose", "private", "reach", *TARGETS)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `str()` gives its line.

    Attributes:
        kind: ``expose``, ``private``, ``reach``, ``forward`` or ``socks``.
        what: a name, a host or a network; "" for ``expose``, and ``*`` for any name.
        first: the first port, 0 where there are none.
        last: the last one.
    """

    kind: str
    what: str = ""
    first: int = 0
    last: int = 0

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Return the rule of a line.

        Raises:
            UsageError: it is none.
        """
        kind, colon, rest = text.strip().partition(":")
        if not colon or kind not in KINDS:
            raise UsageError(
                "a rule is expose:, private:, reach:, forward: or socks: and what it is about,"
                f" not {text!r:.80}"
            )
        if kind == "expose":
            return cls(kind, "", *_ports(rest, text))
        if kind in TARGETS:
            host, _, ports = rest.rpartition(":")
            return cls(kind, _host(host, text), *_ports(ports, text))
        if not (is_name(rest) or (kind == "private" and rest == "*")):
            raise UsageError(
                f"{kind}: takes a name (a-z, 0-9 and -, at most 63 characters), not {text!r:.80}"
            )
        return cls(kind, rest)

    def __str__(self) -> str:
        if not self.last:
            return f"{self.kind}:{self.what}"
        ports = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        ports = "*" if (self.first, self.last) == (1, 65535) else ports
        if self.kind == "expose":
            return f"{self.kind}:{ports}"
        what = f"[{self.what}]" if ":" in self.what else self.what
        return f"{self.kind}:{what}:{ports}"

    def allows_target(self, host: str, address: Address, port: int, special: bool) -> bool:
        """Return whether a rule about targets allows one; a special one it must name itself."""
        if not self.first <= port <= self.last:
            return False
        network = _network(self.what)
        if network is None:
            named = host.rstrip(".").lower() == self.what
            return named and (not special or (self.what == "localhost" and address.is_loopback))
        if network.version != address.version or address not in network:
            return False
        return not special or network.num_addresses == 1


class Rights:
    """What one client may do.

    Attributes:
        rules: the rules.
        connections: how many connections it may have at once, 0 for any number.
        services: how many services it may offer at once, 0 for as many as any client.
    """

    def __init__(
        self,
        rules: Iterable[Rule | str] = DEFAULT_RULES,
        *,
        connections: int = 0,
        services: int = 0,
    ) -> None:
        """Take rules, as objects or as lines, and limits.

        Raises:
            UsageError: a line is no rule.
        """
        self.rules: tuple[Rule, ...] = tuple(
            rule if isinstance(rule, Rule) else Rule.parse(rule) for rule in rules
        )
        self.connections: int = connections
        self.services: int = services

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rights) and self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self._all())

    def _all(self) -> tuple[tuple[Rule, ...], int, int]:
        return self.rules, self.connections, self.services

    def __repr__(self) -> str:
        return f"Rights({self.lines()})"

    def lines(self) -> list[str]:
        """Return the rules as lines."""
        return [str(rule) for rule in self.rules]

    def exposed_ports(self) -> list[range]:
        """Return the ports that the server may listen on for the client."""
        return [range(rule.first, rule.last + 1) for rule in self.rules if rule.kind == "expose"]

    def may_expose(self, port: int) -> bool:
        """Return whether the server may listen on a port for the client."""
        return any(port in ports for ports in self.exposed_ports())

    def may_offer(self, name: str) -> bool:
        """Return whether the client may offer a private service of that name."""
        return any(rule.kind == "private" and rule.what in ("*", name) for rule in self.rules)

    def may_reach(self, name: str) -> bool:
        """Return whether the client may use a private service of that name."""
        return any(rule.kind == "reach" and rule.what == name for rule in self.rules)

    def has(self, kind: str) -> bool:
        """Return whether there is a rule of a kind; if not, no name need be looked up."""
        return any(rule.kind == kind for rule in self.rules)

    def might_dial(self, kind: str, host: str, port: int) -> bool:
        """Return whether there is an address that the client may reach under a name.

        Args:
            kind: in which way, ``forward`` or ``socks``.
            host: a name, whose address is not known here, or an address.
            port: the port.
        """
        address = _network(host)
        if address is not None:
            return self.may_dial(kind, host, host, port)
        rules = [
            each for each in self.rules if each.kind == kind and each.first <= port <= each.last
        ]
        name = host.rstrip(".").lower()
        return any(each.what == name or _network(each.what) is not None for each in rules)

    def may_dial(self, kind: str, host: str, address: str, port: int, *, own: bool = False) -> bool:
        """Return whether the client may reach a target beyond the server.

        Args:
            kind: in which way, ``forward`` or ``socks``.
            host: what the client has asked for, a name or an address.
            address: the address that is about to be dialled.
            port: the port.
            own: whether the server itself listens there.
        """
        dialled = _plain(ip_address(address.partition("%")[0]))
        special = own or not _is_ordinary(dialled)
        return any(
            rule.kind == kind and rule.allows_target(host, dialled, port, special)
            for rule in self.rules
        )


def check_rules(rules: Iterable[Rule]) -> None:
    """Refuse rules that allow nothing: networks whose addresses must be named one by one.

    Raises:
        UsageError: there is one.
    """
    for rule in rules:
        network = _network(rule.what) if rule.kind in TARGETS else None
        if network is not None and network.num_addresses > 1 and not _is_ordinary(network):
            one = replace(rule, what=str(network[1]))
            raise UsageError(
                f"{rule} allows nothing: loopback, link-local and other special addresses must be"
                f" named one by one, such as {one}"
            )


def _plain(address: Address) -> Address:
    """Return the IPv4 address in an IPv6 one that means nothing else."""
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def _is_ordinary(address: Address | Network) -> bool:
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or address.is_reserved
    )


def _network(text: str) -> Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


def _host(text: str, line: str) -> str:
    """Return a host or a network as rules keep it."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if bare != text or "/" in bare or re.fullmatch(r"[0-9.]+", bare):
        try:
            network = ip_network(bare)
        except ValueError as exc:
            raise UsageError(f"no address or network in {line!r:.80}: {exc}") from None
        return str(network.network_address) if network.num_addresses == 1 else str(network)
    if HOST.fullmatch(bare) is None:
        raise UsageError(f"it takes HOST:PORTS or NET:PORTS, not {line!r:.80}")
    return bare.lower()


def _ports(text: str, line: str) -> tuple[int, int]:
    if text == "*":
        return 1, 65535
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= 65535:
        raise UsageError(f"ports are 80, 8000-8999 or *, not those of {line!r:.80}")
    return first, last
