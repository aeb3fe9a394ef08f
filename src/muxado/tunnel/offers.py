"""A service that a client offers, as the client sees it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from ..asyncio import Stream
from ..cluster.errors import Denied
from ..cluster.lines import Header, Message
from ..errors import UsageError
from ..proxy_protocol import pack_header
from .invitations import parse_place
from .messages import Offer
from .socks import SocksTarget
from .targets import Target

__all__ = ["Exposed"]


class Exposed:
    """A service that a client offers. From `Client.expose` and `offer`.

    Attributes:
        service: its name.
        target: what is dialled for it.
        port: the server's port, 0 for a private one.
        error: why the server does not serve it now, None if it does or has not answered yet.
        replaced: whether a newer session of this client has taken it; it is taken back once that
            one has gone.
    """

    def __init__(self, offer: Offer, target: Target | SocksTarget, proxy_protocol: bool) -> None:
        """Not for users."""
        self.service: str = offer.service
        self.target: Target | SocksTarget = target
        self.port: int = offer.port
        self.error: Denied | None = None
        self.replaced: bool = False
        self.offer: Offer = offer
        self.answered: asyncio.Event = asyncio.Event()
        self._proxy_protocol = proxy_protocol

    @property
    def right(self) -> str:
        """The rule that the client needs to offer it."""
        return (
            f"expose:{self.port or 'PORTS'}"
            if not self.offer.private
            else f"private:{self.service}"
        )

    def status(self) -> dict[str, Any]:
        """Return what `Client.status` says of it."""
        return {
            "service": self.service,
            "target": str(self.target),
            "private": self.offer.private,
            "port": self.port,
            "answered": self.answered.is_set(),
            "denied": "" if self.error is None else str(self.error),
        }

    def packed(self) -> dict[str, object]:
        """Return what is said of it: the port that it has is asked for again."""
        return replace(self.offer, port=self.port, behind=self.replaced).pack()

    def take(self, answer: Message) -> bool:
        """Take the server's answer; return whether it says something new. Not for users."""
        before = self.port, str(self.error), self.answered.is_set()
        port, code = answer.fields.get("port"), answer.fields.get("code")
        if type(port) is int:
            self.port, self.error, self.replaced = port, None, False
        else:
            self.error = Denied(answer.text("text"), code if type(code) is int else 403)
        self.answered.set()
        return before != (self.port, str(self.error), True)

    async def connect(self, stream: Stream, header: Header) -> None:
        """Connect a caller to the target, which is told who that is. Not for users.

        Returns:
            once it is connected; what is passed on then needs nothing more.

        Raises:
            OSError: it can't be reached.
            SocksRefused: the caller can't have what it asks for.
            MuxadoError: the stream has ended.
        """
        if not self._proxy_protocol:
            await self.target.dial(stream)
            return
        remote = stream.session.remote_address
        try:
            told = pack_header(parse_place(header.origin), (remote[0], self.port))
        except (UsageError, ValueError, TypeError):  # not the addresses of TCP
            told = pack_header(None, ("", 0))
        await self.target.dial(stream, lambda transport: transport.write(told))
