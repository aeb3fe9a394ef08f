"""The far ends of tunnels: what a client dials for a service, and a server beyond itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from ..asyncio import Stream
from ..cluster.errors import Refused
from ..errors import UsageError
from .invitations import format_place, parse_place

__all__ = ["TIMEOUT", "Target", "dial_allowed", "is_own_address"]

TIMEOUT = 10.0  # seconds for a name's look-up and the connection


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

    async def dial(self, stream: Stream) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, the name looked up anew.

        Args:
            stream: the caller's, which is not asked for anything.

        Raises:
            OSError: it can't be reached (`TimeoutError` if that takes too long).
        """
        async with asyncio.timeout(TIMEOUT):
            if self.path:
                return await asyncio.open_unix_connection(self.path)
            return await asyncio.open_connection(self.host, self.port)


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
    host: str, port: int, allowed: Callable[[str], bool]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Look a name up, and connect to the first of its addresses that is allowed and answers.

    Args:
        host: a name or an address.
        port: the port.
        allowed: judges an address.

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
        places = [place[4] for place in found if allowed(str(place[4][0]))]
        if not places:
            raise Refused(f"{format_place((host, port))} is not allowed")
        for place in places[:-1]:
            try:
                return await asyncio.open_connection(str(place[0]), port)
            except OSError:
                continue
        return await asyncio.open_connection(str(places[-1][0]), port)
