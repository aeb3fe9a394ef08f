"""What a client is to do: the services it offers, and the ports it listens on.

`Jobs` has a client do it, and when that changes (`muxado run`, told by SIGHUP), changes only what
is different: the connections of what stays go on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cluster.names import check_name
from ..errors import UsageError
from .client import Client
from .forwarding import Forward
from .invitations import format_place, parse_place
from .messages import SOCKS, check_private, check_service, parse_sources
from .offers import Exposed
from .socks import SocksTarget
from .tables import Table
from .targets import Target

__all__ = ["Exposing", "Jobs", "Listening", "Plan", "parse_forward", "parse_listen", "read_plan"]

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Exposing:
    """A service to offer; the attributes are `Client.offer`'s arguments."""

    service: str
    target: Target | SocksTarget
    port: int | None = None
    private: bool = False
    sources: tuple[str, ...] = ()
    proxy_protocol: bool = False

    @classmethod
    def parse(
        cls, name: str, target: str, allowed: tuple[str, ...] = (), **options: Any
    ) -> Exposing:
        """Check what is to be offered.

        Args:
            name: its name, "" for one that is made of the target.
            target: ``PORT``, ``HOST:PORT``, ``unix:PATH`` or ``socks``.
            allowed: what may be reached through ``socks``.
            options: the further attributes.

        Raises:
            UsageError: something can't be.
        """
        found: Target | SocksTarget
        if target == "socks":
            if not allowed:
                raise UsageError(
                    "with socks others choose what to reach through this machine: allow-target says"
                    " what they may, such as 10.0.0.0/8:* or db:5432"
                )
            found = SocksTarget(allowed)
        elif allowed:
            raise UsageError("allow-target goes with the target socks, where callers choose")
        else:
            found = Target.parse(target)
        if options.get("private"):
            check_private(options.get("port"), options.get("sources", ()))
        said = re.sub("[^a-z0-9]+", "-", str(found).lower()).strip("-")
        parse_sources(options.get("sources", ()))
        return cls(check_name(name or said[-63:].strip("-")), found, **options)


@dataclass(frozen=True, slots=True)
class Listening:
    """A port to listen on.

    Attributes:
        host: the address.
        port: the port.
        service: what it leads to: a name, ``HOST:PORT``, or `SOCKS`.
    """

    host: str
    port: int
    service: str

    @property
    def what(self) -> str:
        """What it leads to, for people."""
        return "socks" if self.service == SOCKS else self.service

    def __str__(self) -> str:
        return format_place((self.host, self.port))


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a client is to do.

    Attributes:
        exposing: what it offers.
        listening: what it listens on.
        server: the server, as ``--to`` takes it; None if the plan does not say.
    """

    exposing: tuple[Exposing, ...] = ()
    listening: tuple[Listening, ...] = ()
    server: str | None = None


def parse_listen(text: str, service: str) -> Listening:
    """Return where to listen, of ``PORT`` or ``HOST:PORT``.

    Raises:
        UsageError: it is none.
    """
    place = f"{LOOPBACK}:{text}" if text.isascii() and text.isdigit() else text
    return Listening(*parse_place(place), service)


def parse_forward(text: str) -> Listening:
    """Return where to listen, and what it leads to, of ``[HOST:]PORT:(HOST:PORT|NAME)``.

    Raises:
        UsageError: it is none.
    """
    # In brackets a host may have colons.
    parts = re.findall(r"\[[^\]]*\](?=:|$)|[^:\[\]]+(?=:|$)", text)
    if ":".join(parts) == text and len(parts) > 1:
        host = LOOPBACK if parts[0].isdigit() else parts.pop(0)
        if 2 <= len(parts) <= 3:
            return parse_listen(f"{host}:{parts[0]}", check_service(":".join(parts[1:])))
    raise UsageError(f"it takes PORT:HOST:PORT or PORT:NAME, not {text!r:.80}")


def read_plan(path: Path) -> Plan:
    """Read a plan from a file of TOML.

    ::

        server = "tunnel.example:7443"
        forward = ["5432:db:5432"]
        socks = ["1080"]

        [expose.web]
        target = "localhost:3000"
        port = 20080

    Raises:
        UsageError: it can't be; the error names the file, and the key or the line.
    """
    table = Table.read(path)
    server = table.text("server")
    listening: list[Listening] = []
    for key, parse in (("forward", parse_forward), ("socks", _parse_socks)):
        for text in table.texts(key):
            with _naming(table, key):
                found = parse(text)
                if any((each.host, each.port) == (found.host, found.port) for each in listening):
                    raise UsageError(f"{found} is listened on twice")
            listening.append(found)
    exposing = []
    for name, fields in table.tables("expose"):
        with _naming(table, f"expose.{name}"):
            check_name(name)
        exposed = _read_exposing(name, fields)
        fields.finish()
        exposing.append(exposed)
    table.finish()
    if not exposing and not listening:
        raise UsageError(f"{path}: there is nothing to do: it takes expose, forward or socks")
    return Plan(tuple(exposing), tuple(listening), server)


def _read_exposing(name: str, fields: Table) -> Exposing:
    target, port = fields.text("target"), fields.number("port")
    if target is None:
        raise fields.error("target", "is missing")
    if port is not None and not 0 < port < 65536:
        raise fields.error("port", f"must be a number from 1 to 65535, not {port}")
    private = fields.flag("private")
    if private and port is not None:
        raise fields.error("private", "a private service has no port: leave one of them out")
    sources = fields.texts("from")
    with _naming(fields, "from"):
        parse_sources(sources)
        if private and sources:
            raise UsageError("a private service has no port: rights to reach it are the server's")
    allowed, proxy_protocol = fields.texts("allow-target"), fields.flag("proxy-protocol")
    with _naming(fields, "target"):
        return Exposing.parse(
            name,
            target,
            allowed,
            port=port,
            private=private,
            sources=sources,
            proxy_protocol=proxy_protocol,
        )


def _parse_socks(text: str) -> Listening:
    return parse_listen(text, SOCKS)


@contextmanager
def _naming(table: Table, key: str) -> Iterator[None]:
    """Have an error in the block name a key."""
    try:
        yield
    except UsageError as exc:
        raise table.error(key, exc) from None


class Jobs:
    """Has a client do what a plan says."""

    def __init__(self, client: Client) -> None:
        """Take a client, whose block was entered."""
        self._client = client
        self._exposed: dict[Exposing, Exposed] = {}
        self._forwards: dict[Listening, Forward] = {}

    async def begin(self, plan: Plan) -> list[tuple[Listening, Forward]]:
        """Do what a plan says, or nothing of it.

        Services are offered once all ports are listened on, since the newest session of a client
        has what it offers: what fails takes nothing from the one that runs.

        Returns:
            the ports.

        Raises:
            OSError: a port can't be listened on.
        """
        begun, failure = await self._listen_on(plan.listening)
        if failure is not None:
            raise failure
        self._offer(plan.exposing)
        return begun

    async def change(self, plan: Plan) -> list[tuple[Listening, Forward]]:
        """Do what a plan says, and no more what it does not say.

        Returns:
            the ports that are new.

        Raises:
            OSError: a port can't be listened on; everything else is done.
        """
        for gone in self._exposed.keys() - set(plan.exposing):
            self._client.withdraw(gone.service)
            del self._exposed[gone]
        for closed in self._forwards.keys() - set(plan.listening):
            self._forwards.pop(closed).close(cut=True)
        self._offer(plan.exposing)
        begun, failure = await self._listen_on(plan.listening)
        if failure is not None:
            raise failure
        return begun

    def _offer(self, exposing: Iterable[Exposing]) -> None:
        """Offer what is not offered yet."""
        for each in exposing:
            if each not in self._exposed:
                self._exposed[each] = self._client.offer(
                    each.service,
                    each.target,
                    port=each.port,
                    private=each.private,
                    sources=each.sources,
                    proxy_protocol=each.proxy_protocol,
                )

    async def _listen_on(
        self, listening: Iterable[Listening]
    ) -> tuple[list[tuple[Listening, Forward]], OSError | None]:
        """Listen on what is not listened on yet; return that, and what has failed."""
        begun = []
        failure: OSError | None = None
        for wanted in listening:
            if wanted not in self._forwards:
                try:
                    forward = await self._listen(wanted)
                except OSError as exc:
                    failure = exc
                else:
                    self._forwards[wanted] = forward
                    begun.append((wanted, forward))
        return begun, failure

    async def _listen(self, wanted: Listening) -> Forward:
        try:
            if wanted.service == SOCKS:
                return await self._client.socks(wanted.host, wanted.port)
            return await self._client.forward(wanted.service, wanted.host, wanted.port)
        except OSError as exc:
            # asyncio's own text repeats the address; a name that is unknown has no number of errno.
            number = exc.errno or 0
            told = os.strerror(number).lower() if number > 0 else exc.strerror
            raise OSError(f"{wanted} can't be listened on, for {wanted.what}: {told}") from exc
