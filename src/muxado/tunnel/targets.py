"""The far ends of tunnels: what a client dials for a service, and a server beyond itself.

What was dialled has a relay for its protocol, and nothing else is kept of it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from ..asyncio import Relay, Stream
from ..cluster.errors import Refused
from ..errors import MuxadoError, UsageError
from ..relaying import RelayResult
from .invitations import format_place, parse_place

__all__ = ["TIMEOUT", "Begin", "Joining", "Target", "dial_allowed", "is_own_address"]

TIMEOUT = 10.0  # seconds for a name's look-up and the connection

Begin = Callable[[asyncio.Transport], object]
"""Called with a new connection, before anything is passed on."""


class Joining(asyncio.Protocol):
    """Joins a stream and a connection, once that is made.

    Args:
        stream: the stream, which the relay owns from then on.
        begin: called first; if it raises a `MuxadoError`, the connection is given up.
        on_end: as for `Relay`.

    Attributes:
        relay: what passes on between them.
    """

    def __init__(
        self,
        stream: Stream,
        begin: Begin | None = None,
        on_end: Callable[[RelayResult], object] | None = None,
    ) -> None:
        self.relay: Relay = Relay(stream, on_end=on_end)
        self._begin = begin

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have the relay take the connection."""
        assert hasattr(transport, "write")  # uvloop's derive from nothing
        try:
            if self._begin is not None:
                self._begin(transport)  # type: ignore[arg-type]
        except MuxadoError:  # the stream has ended
            transport.abort()  # type: ignore[attr-defined]
            return
        transport.set_protocol(self.relay)
        self.relay.connection_made(transport)


@dataclass(frozen=True, slots=True)
class Target:
    """What a client dials for a service. `str()` gives it as it is written.

    Attributes:
        host: a name or an address, "" for a Unix socket.
        port: the port.
        path: the path of the Unix socket.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Target:
        """Return the target that ``PORT``, ``HOST:PORT`` or ``unix:PATH`` names.

        Raises:
            UsageError: it is none.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path.startswith("/"):
                raise UsageError(f"unix: takes a path from / on, not {text!r:.80}")
            return cls(path=path)
        if text.isascii() and text.isdigit():
            text = f"localhost:{text}"
        return cls(*parse_place(text))

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else format_place((self.host, self.port))

    async def dial(self, stream: Stream, begin: Begin | None = None) -> Relay:
        """Connect, the name looked up anew, and pass on.

        Args:
            stream: the caller's.
            begin: called with the connection first.

        Raises:
            OSError: it can't be reached (`TimeoutError` if that takes too long).
        """
        joining = Joining(stream, begin)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(TIMEOUT):
            if self.path:
                await loop.create_unix_connection(lambda: joining, self.path)
            else:
                await loop.create_connection(lambda: joining, self.host, self.port)
        return joining.relay


def is_own_address(address: str) -> bool:
    """Return whether an address is one of this machine's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address.partition("%")[0], 0))
        except OSError:
            return False
    return True


async def dial_allowed(
    host: str, port: int, allowed: Callable[[str], bool], joining: Joining
) -> asyncio.Transport:
    """Look a name up, and connect to the first of its addresses that is allowed and answers.

    Args:
        host: a name or an address.
        port: the port.
        allowed: judges an address.
        joining: the protocol of the connection.

    Raises:
        Refused: no address is allowed.
        OSError: none that is allowed answers.
    """
    async with asyncio.timeout(TIMEOUT):
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError:  # nothing that could be asked for
            raise socket.gaierror(socket.EAI_NONAME, f"{host!r:.80} is no name") from None
        places = [str(place[4][0]) for place in found if allowed(str(place[4][0]))]
        if not places:
            raise Refused(f"{format_place((host, port))} is not allowed")
        for address in places[:-1]:
            try:
                return (await loop.create_connection(lambda: joining, address, port))[0]
            except OSError:
                continue
        return (await loop.create_connection(lambda: joining, places[-1], port))[0]
