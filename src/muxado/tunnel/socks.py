"""SOCKS5 (RFC 1928), for who is asked: at the far end of a tunnel, where names are looked up.

Only CONNECT is spoken, and no login: a stream comes from a client whose rights are known. A target
is judged by the address that is dialled.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from enum import IntEnum
from ipaddress import ip_address

from ..asyncio import Relay, Stream
from ..cluster.errors import Refused
from ..errors import UsageError
from ..relaying import RelayResult
from .invitations import Place, format_place
from .rules import Rights, check_rules
from .targets import TIMEOUT, Begin, Joining, dial_allowed

__all__ = ["SocksRefused", "SocksTarget", "connect_asked"]

VERSION = 5
NO_LOGIN = 0
NO_METHOD = 0xFF
CONNECT = 1
IPV4, NAME, IPV6 = 1, 3, 4


class Reply(IntEnum):
    """What a request is answered with."""

    GRANTED = 0
    FAILED = 1
    NOT_ALLOWED = 2
    NO_NETWORK = 3
    NO_HOST = 4
    REFUSED = 5
    TOO_LATE = 6
    NO_SUCH_COMMAND = 7
    NO_SUCH_ADDRESS = 8


REPLIES = {
    errno.ENETUNREACH: Reply.NO_NETWORK,
    errno.EHOSTUNREACH: Reply.NO_HOST,
    errno.ECONNREFUSED: Reply.REFUSED,
    errno.ETIMEDOUT: Reply.TOO_LATE,
}


class SocksRefused(Exception):
    """The caller can't have what it asked for, and was told so. `str()` says why."""

    def __init__(self, message: str, reply: Reply) -> None:
        super().__init__(message)
        self.reply: Reply = reply


class SocksTarget:
    """What a client dials for a service by which others reach all of a network.

    The one target that the caller names; so the client has rules of its own for it.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        """Say what may be reached.

        Args:
            allowed: ``HOST:PORTS`` or ``NET:PORTS``, as in the rights `socks`.

        Raises:
            UsageError: one is none of that, or there are none.
        """
        self.rights: Rights = Rights([f"socks:{each}" for each in allowed])
        if not self.rights.rules:
            raise UsageError("a socks target needs to be told what may be reached through it")
        check_rules(self.rights.rules)

    def __str__(self) -> str:
        return "socks"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SocksTarget) and self.rights == other.rights

    def __hash__(self) -> int:
        return hash(self.rights)

    async def dial(self, stream: Stream, begin: Begin | None = None) -> Relay:
        """Connect to what a caller asks for, and pass on.

        Args:
            stream: the caller's.
            begin: called with the connection first.

        Raises:
            SocksRefused: it can't have that, and was told so.
            MuxadoError: the stream has ended.
        """

        def allowed(place: Place, address: str) -> bool:
            return self.rights.may_dial("socks", place[0], address, place[1])

        return (await connect_asked(stream, allowed, begin))[2]


async def connect_asked(
    stream: Stream,
    allowed: Callable[[Place, str], bool],
    begin: Begin | None = None,
    on_end: Callable[[RelayResult], object] | None = None,
) -> tuple[Place, asyncio.Transport, Relay]:
    """Take a request, connect to what it asks for, tell the caller, and pass on.

    Args:
        stream: the caller's; nothing was read from it yet but its header.
        allowed: judges a place and the address that is about to be dialled for it.
        begin: called with the connection first.
        on_end: as for `Relay`.

    Returns:
        the place that was asked for, the connection to it, and what passes on.

    Raises:
        SocksRefused: it can't be had.
        MuxadoError: the stream has ended.
    """

    def granted(transport: asyncio.Transport) -> None:
        if begin is not None:
            begin(transport)
        stream.write_nowait(_answer(Reply.GRANTED, transport.get_extra_info("sockname")[:2]))

    joining = Joining(stream, granted, on_end)
    try:
        async with asyncio.timeout(TIMEOUT):
            place = await _request(stream)
        transport = await _dial(place, allowed, joining)
    except SocksRefused as exc:
        await stream.write(_answer(exc.reply))
        stream.write_eof()
        raise
    except (TimeoutError, asyncio.IncompleteReadError) as exc:
        raise SocksRefused(f"no request has come: {exc}", Reply.FAILED) from None
    return place, transport, joining.relay


async def _request(stream: Stream) -> Place:
    version, count = await stream.readexactly(2)
    if version != VERSION:
        raise SocksRefused("this is no SOCKS5: socks5h:// says it to most programs", Reply.FAILED)
    methods = await stream.readexactly(count)
    if NO_LOGIN not in methods:
        await stream.write(bytes((VERSION, NO_METHOD)))
        raise SocksRefused("the caller wants to log in, which is not needed here", Reply.FAILED)
    await stream.write(bytes((VERSION, NO_LOGIN)))
    _, command, _, kind = await stream.readexactly(4)
    if kind == NAME:
        (size,) = await stream.readexactly(1)
        name = await stream.readexactly(size)
        host = name.decode("ascii", "replace")
    elif kind in (IPV4, IPV6):
        family, size = (socket.AF_INET, 4) if kind == IPV4 else (socket.AF_INET6, 16)
        host = socket.inet_ntop(family, await stream.readexactly(size))
    else:
        raise SocksRefused(f"an address of the kind {kind}", Reply.NO_SUCH_ADDRESS)
    port = int.from_bytes(await stream.readexactly(2), "big")
    if command != CONNECT:
        raise SocksRefused(f"only CONNECT is there, not command {command}", Reply.NO_SUCH_COMMAND)
    return host, port


async def _dial(
    place: Place, allowed: Callable[[Place, str], bool], joining: Joining
) -> asyncio.Transport:
    try:
        return await dial_allowed(*place, lambda address: allowed(place, address), joining)
    except Refused as exc:
        raise SocksRefused(str(exc), Reply.NOT_ALLOWED) from None
    except socket.gaierror as exc:
        raise SocksRefused(f"{place[0]!r:.80} is not known: {exc}", Reply.NO_HOST) from None
    except OSError as exc:
        reply = Reply.TOO_LATE if isinstance(exc, TimeoutError) else Reply.FAILED
        told = f"{format_place(place)} can't be reached: {exc}"
        raise SocksRefused(told, REPLIES.get(exc.errno or 0, reply)) from None


def _answer(reply: Reply, address: Place = ("0.0.0.0", 0)) -> bytes:  # noqa: S104  # of nothing
    """Return an answer; the address is that which the target sees."""
    host = ip_address(address[0].partition("%")[0])
    kind = IPV4 if host.version == 4 else IPV6
    return bytes((VERSION, reply, 0, kind)) + host.packed + address[1].to_bytes(2, "big")
