"""Brings a session of ours and a Go peer together, in every way there is."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import trustme
from tests.patience import patience

import muxado
import muxado.sync
from muxado import Config, Session

from .gopeer import NEWEST, GoPeer
from .raw import Raw
from .relay import Relay

HOST = "127.0.0.1"
PATIENCE = patience(10)  # seconds that a thread may wait
ALPN = "muxado/2"


@dataclass(frozen=True)
class Way:
    """How the two come together.

    Attributes:
        role: ours; Go has the other one.
        tls: whether the connection is TLS. Both sides verify as they should.
        we_dial: whether we dial and Go listens, or the other way round.
    """

    role: str
    tls: bool
    we_dial: bool

    def __str__(self) -> str:
        act = "dials" if self.we_dial else "listens"
        return f"{self.role}-{act}-{'tls' if self.tls else 'tcp'}"


ALL_WAYS = [
    Way(role, tls, we_dial)
    for tls in (False, True)
    for role in ("client", "server")
    for we_dial in (True, False)
]
# The usual ones: the client dials.
USUAL_WAYS = [way for way in ALL_WAYS if way.we_dial == (way.role == "client")]
PLAIN_CLIENT = USUAL_WAYS[0]
PLAIN_SERVER = USUAL_WAYS[1]


class Ends(NamedTuple):
    """Our session and the Go peer at its other end."""

    session: Session
    go: GoPeer


class ThreadEnds(NamedTuple):
    """The same with a session for threads."""

    session: muxado.sync.Session
    go: GoPeer


class Tls:
    """The settings of both ends, with an authority that only they trust."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert(HOST)
        self.client = ssl.create_default_context()
        self.client.set_alpn_protocols([ALPN])
        authority.configure_trust(self.client)
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.server.set_alpn_protocols([ALPN])
        certificate.configure_cert(self.server)
        ca, chain, key = (str(folder / name) for name in ("ca.pem", "chain.pem", "key.pem"))
        authority.cert_pem.write_to_path(ca)
        key_pem, *chain_pems = (
            certificate.private_key_pem,
            *certificate.cert_chain_pems,
        )
        key_pem.write_to_path(key)
        for number, pem in enumerate(chain_pems):
            pem.write_to_path(chain, append=number > 0)
        self.go_flags = {"tls": True, "ca": ca, "cert": chain, "key": key, "alpn": ALPN}


class Meeting:
    """Starts Go peers and sessions for one test, and ends them after it.

    Attributes:
        peers: the peers, for the report of a failed test.
    """

    def __init__(self, programs: dict[str, Path], tls: Tls, folder: Path) -> None:
        self.peers: list[GoPeer] = []
        self._programs = programs
        self._tls = tls
        self._folder = folder
        self._stack = AsyncExitStack()

    async def start(self, release: str = NEWEST, **options: Any) -> GoPeer:
        """Start a Go peer with these flags; it need not end well if the test kills it."""
        stderr = self._folder / f"go-{len(self.peers)}.stderr"
        peer = await GoPeer.start(self._programs[release], stderr, **options)
        self.peers.append(peer)
        self._stack.push_async_callback(peer.finish)
        return peer

    async def meet(
        self,
        way: Way,
        behaviour: str = "echo",
        *,
        config: Config | None = None,
        release: str = NEWEST,
        relay: Relay | None = None,
        **options: Any,
    ) -> Ends:
        """Start a Go peer and connect a session to it.

        Args:
            way: how.
            behaviour: what Go does with streams of ours.
            config: our settings.
            release: Go's.
            relay: goes between them, if given.
            options: further flags of Go's.
        """
        config = config or Config()
        options |= self._flags(way, behaviour)
        if config.typed:
            options["typed"] = True
        meet = self._dial if way.we_dial else self._listen
        session, go = await meet(way, config, relay, release, options)
        self._stack.push_async_callback(end, session)
        await check(way, release, session, go)
        return Ends(session, go)

    async def meet_in_threads(
        self, way: Way, behaviour: str = "echo", **options: Any
    ) -> ThreadEnds:
        """Start a Go peer and connect a session of `muxado.sync` to it; the client dials."""
        assert way in USUAL_WAYS
        options |= self._flags(way, behaviour)
        if way.we_dial:
            go = await self.start(listen=f"{HOST}:0", **options)
            host, port = (await go.event("listening"))["addr"].split(":")
            session = await asyncio.to_thread(
                muxado.sync.connect, host, int(port), ssl=self._tls.client if way.tls else None
            )
        else:
            with muxado.sync.listen(HOST, 0, ssl=self._tls.server if way.tls else None) as listener:
                go = await self.start(dial="{}:{}".format(*listener.addresses[0]), **options)
                session = await asyncio.to_thread(listener.accept, PATIENCE)
        self._stack.push_async_callback(end_in_threads, session)
        await check(way, NEWEST, session, go)
        return ThreadEnds(session, go)

    def _flags(self, way: Way, behaviour: str) -> dict[str, Any]:
        flags = {
            "role": "server" if way.role == "client" else "client",
            "behaviour": behaviour,
        }
        return flags | self._tls.go_flags if way.tls else flags

    async def _dial(
        self,
        way: Way,
        config: Config,
        relay: Relay | None,
        release: str,
        options: dict[str, Any],
    ) -> Ends:
        go = await self.start(release, listen=f"{HOST}:0", **options)
        host, port = (await go.event("listening"))["addr"].split(":")
        if relay is not None:
            host, port = await relay.listen(host, int(port))
        context = self._tls.client if way.tls else None
        if way.role == "client":
            return Ends(await muxado.connect(host, int(port), ssl=context, config=config), go)
        pair = await asyncio.open_connection(host, int(port), ssl=context)
        return Ends(muxado.server(*pair, config=config), go)

    async def _listen(
        self,
        way: Way,
        config: Config,
        relay: Relay | None,
        release: str,
        options: dict[str, Any],
    ) -> Ends:
        context = self._tls.server if way.tls else None
        arrived: asyncio.Queue[Session] = asyncio.Queue()

        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            arrived.put_nowait(muxado.client(reader, writer, config=config))

        async def dialled(address: tuple[str, int]) -> GoPeer:
            if relay is not None:
                address = await relay.listen(*address)
            return await self.start(release, dial="{}:{}".format(*address), **options)

        if way.role == "server":
            async with muxado.listen(HOST, 0, ssl=context, config=config) as listener:
                go = await dialled(listener.addresses[0])
                return Ends(await listener.accept(), go)
        server = await asyncio.start_server(take, HOST, 0, ssl=context)
        go = await dialled(server.sockets[0].getsockname())
        session = await arrived.get()
        server.close()
        return Ends(session, go)

    async def meet_by_hand(
        self, behaviour: str, *, release: str = NEWEST, **options: Any
    ) -> tuple[Raw, GoPeer]:
        """Start a Go server and connect to it as a client that a test plays by hand."""
        go = await self.start(
            release, role="server", listen=f"{HOST}:0", behaviour=behaviour, **options
        )
        host, port = (await go.event("listening"))["addr"].split(":")
        raw = Raw(*await asyncio.open_connection(host, int(port)))
        self._stack.callback(raw.close)
        await go.event("session")
        return raw, go

    async def end(self) -> None:
        """End what was started, the latest first."""
        await self._stack.aclose()


async def check(way: Way, release: str, session: Session | muxado.sync.Session, go: GoPeer) -> None:
    """See that the two have come together as they should."""
    started = await go.event("session")
    assert started["muxado"] == release
    if way.tls:
        assert (started["tls"], started["alpn"]) == ("TLS 1.3", ALPN)
        ours: Any = session.get_extra_info("ssl_object")
        assert ours.selected_alpn_protocol() == ALPN


async def end(session: Session) -> None:
    """Make sure that a session is gone."""
    session.abort()
    await session.wait_closed()


async def end_in_threads(session: muxado.sync.Session) -> None:
    """Make sure that a session for threads is gone."""
    session.abort()
    await asyncio.to_thread(session.wait_closed, PATIENCE)
