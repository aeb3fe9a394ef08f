"""The PROXY protocol, versions 1 and 2: a load balancer tells whose connection it passes on.

The header stands before everything else, before TLS too, and what follows it belongs to another
protocol. So no byte beyond it may be read: `wanted` says how many may be read at most. Where
version 1's line ends can't be known before its end, so most of it is read byte by byte. There is
no I/O here; the front ends' acceptors read.

The format is HAProxy's: "The PROXY protocol, versions 1 & 2", sections 2.1 and 2.2. The checksum
that version 2 may carry is not verified: the header is believed only from networks that the
program trusts. The library `proxy-protocol` was tried: its lenient numbers, its errors of other
modules for short addresses and its unbounded line would each have needed a guard.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from typing import Any, Protocol

from .errors import ProtocolError, UsageError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # of version 2
FIXED = len(SIGNATURE) + 4  # bytes before version 2's addresses
START = b"PROXY "  # of version 1
SHORTEST = 15  # bytes of the shortest header, "PROXY UNKNOWN" with the line's end
MOST_LINE = 107  # bytes of version 1's line, its end included
MOST_HEADER = FIXED + 4096  # bytes; HAProxy's own, with a client's certificate, have a few hundred

PROXY = 0x21  # version 2, and the command for a connection that is passed on
LOCAL = 0x20  # one of the proxy's own, such as a health check
FAMILIES = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}  # over TCP
UNIX = "unix"

NUMBER = re.compile(rb"0|[1-9][0-9]{0,4}")


class TrustedProxies:
    """The peers whose headers are believed.

    Args:
        networks: as for `serve(proxy_protocol=)`.

    Raises:
        UsageError: one of them is no network.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        if isinstance(networks, str) or not isinstance(networks, Sequence) or not networks:
            raise UsageError(
                f"proxy_protocol= must be a list such as ['10.0.0.0/8'], not {networks!r}"
            )
        self._networks: list[Network] = []
        self._unix = False
        for each in networks:
            if each == UNIX:
                self._unix = True
                continue
            try:
                if not isinstance(each, str):  # a number would be an address too
                    raise TypeError("it must be a string")
                self._networks.append(ipaddress.ip_network(each))
            except (ValueError, TypeError) as exc:
                raise UsageError(f"proxy_protocol= has no network in {each!r}: {exc}") from exc

    def check(self, sock: Connection) -> None:
        """Raise `ProtocolError` unless the connection comes from one of them."""
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            host = sock.getpeername()[0]
            address = ipaddress.ip_address(host.partition("%")[0])
            if isinstance(address, ipaddress.IPv6Address):
                address = address.ipv4_mapped or address
            if any(address in network for network in self._networks):
                return
        elif self._unix:
            return
        raise ProtocolError(
            "the connection comes from none of the networks in proxy_protocol=, "
            "whose PROXY headers are believed"
        )


class Connection(Protocol):
    """A connection's socket, as far as it is used here."""

    @property
    def family(self) -> int:
        """The family of its addresses."""

    def getpeername(self) -> Any:
        """Return the peer's address."""


class ProxyHeader:
    """One header, while it comes in, and what it has said.

    Attributes:
        wanted: how many bytes to read next, at most; 0 once it has come in whole.
        source: the client's address, as `getpeername()` would give it; None if the connection is
            the proxy's own, or the proxy doesn't know.
        destination: the address that the client connected to; None if `source` is.
    """

    def __init__(self) -> None:
        self.wanted: int = SHORTEST
        self.source: Any = None
        self.destination: Any = None
        self._data = bytearray()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} source={self.source} destination={self.destination}>"

    def feed(self, data: bytes) -> None:
        """Take in bytes of the header, at most as many as are wanted.

        Raises:
            ProtocolError: it is no header.
            EOFError: there are none, since the connection has ended.
        """
        if not data:
            raise EOFError("the connection ended before its PROXY header was whole")
        self._data += data
        if SIGNATURE.startswith(self._data[: len(SIGNATURE)]):
            self._feed_second(self._data)
        elif START.startswith(self._data[: len(START)]):
            self._feed_first(self._data)
        else:
            raise ProtocolError("a connection must begin with a PROXY header, and this one doesn't")

    def _feed_first(self, line: bytearray) -> None:
        """Read version 1's line if it is whole."""
        if not line.endswith(b"\r\n"):
            if len(line) == MOST_LINE:
                raise ProtocolError(f"a PROXY line of more than {MOST_LINE} bytes")
            self.wanted = max(SHORTEST - len(line), 1)  # nothing tells where the line ends
            return
        self.wanted = 0
        words = bytes(line[:-2]).split(b" ")
        if words[1] == b"UNKNOWN":
            return
        try:
            _, family, source, destination, source_port, destination_port = words
            version = {b"TCP4": socket.AF_INET, b"TCP6": socket.AF_INET6}[family]
            self.source = _address(version, _packed(version, source), _port(source_port))
            self.destination = _address(
                version, _packed(version, destination), _port(destination_port)
            )
        except (ValueError, KeyError, OSError):
            raise ProtocolError(f"a PROXY line that can't be read: {bytes(line)!r}") from None

    def _feed_second(self, data: bytearray) -> None:
        """Read version 2's header if it is whole."""
        if len(data) < FIXED:
            self.wanted = FIXED - len(data)
            return
        command, family = data[12], data[13]
        end = FIXED + int.from_bytes(data[14:16], "big")
        if command not in (PROXY, LOCAL):
            raise ProtocolError(f"a PROXY header of version and command {command:#04x}")
        if end > MOST_HEADER:
            raise ProtocolError(f"a PROXY header of {end} bytes, where {MOST_HEADER} are allowed")
        self.wanted = end - len(data)
        if self.wanted or command == LOCAL or family not in FAMILIES:
            return
        version, size = FAMILIES[family]
        hosts, ports = data[FIXED : FIXED + 2 * size], data[FIXED + 2 * size : FIXED + 2 * size + 4]
        if len(ports) < 4:
            raise ProtocolError("a PROXY header that is too short for its addresses")
        self.source = _address(version, hosts[:size], int.from_bytes(ports[:2], "big"))
        self.destination = _address(version, hosts[size:], int.from_bytes(ports[2:], "big"))


def pack_header(source: tuple[str, int] | None, destination: tuple[str, int]) -> bytes:
    """Return a header of version 2, for a connection that is passed on.

    Args:
        source: address and port of the client; None if it is not known.
        destination: those that it connected to. Where one is of IPv4 and the other of IPv6, both
            are written as IPv6's.
    """
    if source is None:
        return SIGNATURE + bytes((LOCAL, 0, 0, 0))
    hosts = [ipaddress.ip_address(each[0].partition("%")[0]) for each in (source, destination)]
    if len({host.version for host in hosts}) > 1:
        hosts = [
            ipaddress.ip_address(f"::ffff:{host}") if host.version == 4 else host for host in hosts
        ]
    family = 0x11 if hosts[0].version == 4 else 0x21
    ports = [each[1].to_bytes(2, "big") for each in (source, destination)]
    addresses = b"".join([*[host.packed for host in hosts], *ports])
    return SIGNATURE + bytes((PROXY, family)) + len(addresses).to_bytes(2, "big") + addresses


def _packed(version: int, text: bytes) -> bytes:
    return socket.inet_pton(version, text.decode("ascii"))


def _port(text: bytes) -> int:
    if not NUMBER.fullmatch(text) or int(text) > 65535:
        raise ValueError(text)
    return int(text)


def _address(version: int, packed: bytes | bytearray, port: int) -> tuple[Any, ...]:
    host = socket.inet_ntop(version, packed)
    return (host, port) if version == socket.AF_INET else (host, port, 0, 0)
