"""What makes a server of the tunnel one of a fleet: its node, and what all servers know alike.

How it works. Names of clients' services, and ports that several servers could listen on, are
claimed on a `Node`; a server alone has one too, with its directory in memory. Servers that share an
engine tell each other, as notes there, which clients and invitations there are: hashes, never a
key. Each writes what it hears into its own state, so that it goes on when the engine is away. That
an invitation is used once is decided in the directory: its hash is claimed by the key that uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

from ..cluster import Directory, MemoryDirectory, NameTaken, Node, Note, PeerTLS, Superseded
from ..cluster.errors import Denied, DirectoryAway
from .authority import make_authority, make_peer_certificate
from .files import locked, make_folder, write_file
from .invitations import hash_secret
from .messages import RESERVED
from .state import INVITATION_LIFETIME, ServerState, used

__all__ = ["Fleet"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")

LOOK = 0.3  # seconds between two looks for news
DECISION_TIMEOUT = 5.0  # seconds


class Fleet:
    """The node of a server, and the knowledge that it shares. Use it as an async context manager.

    Args:
        state: the server's state.
        directory: the engine that the servers share; None for a server alone.
        peers: where this server listens for the others, host and port; 0 is any free port.
        advertise: "HOST:PORT", at which the others reach it; by default where it listens.
        folder: this process's own part of the state, for its certificate.

    Attributes:
        shared: whether there may be other servers.
        node: the node.
    """

    def __init__(
        self,
        state: ServerState,
        directory: Directory | None,
        peers: tuple[str, int],
        advertise: str,
        folder: Path | None,
    ) -> None:
        self.shared: bool = directory is not None
        self._state = state
        self._directory: Directory = directory or MemoryDirectory()
        self._told: dict[str, Note] = {}
        self._stamp: tuple[int, int] | None = None
        host, port = peers
        self.node: Node = Node(
            directory=self._directory,
            peers=_certificates(state, folder) if directory is not None else None,
            host=host if directory is not None else None,
            port=port,
            advertise=advertise,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Be one of the fleet while the block runs."""
        async with self.node:
            sharing: asyncio.Task[None] | None = None
            if self.shared:
                sharing = asyncio.create_task(self._share_always(), name="muxado tunnel: sharing")
            try:
                yield
            finally:
                if sharing is not None:
                    sharing.cancel()
                    await asyncio.wait([sharing])

    async def redeem(self, token: str, key: str) -> str:
        """Exchange a token for the identity of a client's new key; return its name.

        Raises:
            Denied: the token is unknown, used, or too old, or the engine can't be asked.
        """
        if self.shared:
            await self._decide(token, key)
        name = self._state.redeem(token, key)
        if self.shared:
            with contextlib.suppress(DirectoryAway):  # it is told later
                await self.share()
        return name

    async def _decide(self, token: str, key: str) -> None:
        """Have the directory decide that a token is used by one key."""
        mark = sha256(token.encode()).hexdigest()[:32]
        try:
            await self.share()
            held = await self.node.hold(
                f"{RESERVED}invitation-{mark}",
                lambda route: None,
                identity=hash_secret(key),
                timeout=DECISION_TIMEOUT,
            )
        except NameTaken:
            raise used("this client") from None
        except (DirectoryAway, Superseded):
            held = None
        if held is None or held.epoch is None:
            if held is not None:
                self.node.release(held)
            raise Denied("whether the invitation was used can't be decided now: try again", 503)
        # By then it is too old everywhere, and every server has heard that it was used.
        loop = asyncio.get_running_loop()
        loop.call_later(INVITATION_LIFETIME, self.node.release, held)

    async def share(self) -> None:
        """Tell the other servers what has changed here, and take over what has changed there.

        Raises:
            DirectoryAway: the engine can't be asked now.
        """
        news = await self._directory.news()
        if news:
            self._told |= news
            self._state.merge(news)
        stamp = self._state.stamp()
        if stamp == self._stamp:
            return
        notes = self._state.notes()
        changed = {key: note for key, note in notes.items() if self._told.get(key) != note}
        if changed:
            await self._directory.note(changed)
            self._told |= changed
        self._stamp = stamp

    async def _share_always(self) -> None:
        while True:
            try:
                await self.share()
            except DirectoryAway:
                pass  # which the directory logs
            except Exception:
                logger.exception("what servers know alike could not be shared; it is tried again")
            await asyncio.sleep(LOOK)


def _certificates(state: ServerState, folder: Path | None) -> PeerTLS:
    """Return a certificate of this process, by the authority that all servers of a state share."""
    authority = state.folder / "peers-ca.pem"
    with locked(state.folder):
        if not authority.exists():
            write_file(authority, make_authority())
        secret = authority.read_bytes()
    own = make_folder(folder or state.folder) / "peer.pem"
    write_file(own, make_peer_certificate(secret))
    return PeerTLS(own, own, authority)
