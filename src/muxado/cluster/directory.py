"""The directory: which server holds the session of a name.

How it works. A directory is a hint, kept by an engine that is there already: the server that
holds a session is the authority. It has three calls and the renewal of leases, and every server
has an object of its own that makes them.

- An **epoch** orders the claims of one name: max(the last one + 1, the engine's clock in ms). A
  session that comes is given a new one, and is the newest. A claim with an epoch that was given
  before (after the engine came back empty) holds only if there is no newer one.
- Within one **identity** the newest session wins. A name that another identity holds is refused.
- What was claimed is **released** by compare-and-delete: only the epoch that was claimed.
- A claim lasts for the **lease**, and is renewed. A renewal puts back what an engine has lost.

Besides, servers tell each other **notes**: small records that all of them keep. Of two notes with
one key the newer one holds, everywhere. A server notes what has changed, and asks for the news;
what an engine has lost is noted again by those who have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

__all__ = ["Claim", "Directory", "Lost", "Note", "Place", "Route"]


class Place(NamedTuple):
    """Where a server can be reached by the others.

    Attributes:
        node: the server's id, another one after each start.
        address: "HOST:PORT", at which its peers dial it.
    """

    node: str
    address: str


class Route(NamedTuple):
    """Who holds a name's session, as far as the directory knows.

    Attributes:
        place: the server.
        epoch: which claim it was.
        identity: whose session it is, "" if the server tells identities not apart.
    """

    place: Place
    epoch: int
    identity: str = ""


class Claim(NamedTuple):
    """A claim that holds.

    Attributes:
        epoch: its epoch, which releases and renews it.
        before: the route it replaces, whose server is to be told; None if there was none.
    """

    epoch: int
    before: Route | None


class Note(NamedTuple):
    """A record that all servers keep. Of two, the greater one holds.

    Attributes:
        stamp: when it was made, in ms, and more than that of the note before it.
        until: when it can be forgotten, as `time.time` counts; 0 for never.
        text: what it says, without ends of line; "" that there is nothing any more.
    """

    stamp: int
    until: int
    text: str


Lost = Callable[[str, Route], object]
"""Called with a name that was claimed here, and who holds it now; it must not wait."""


class Directory(Protocol):
    """What every engine's directory can do. One object belongs to one server.

    Every call raises `DirectoryAway` if the engine can't be asked, or takes no changes now, and
    does so within the directory's own time limit. Cancelled, a call may still have its effect.
    """

    @property
    def lease(self) -> float | None:
        """Seconds that a claim lasts without renewal; None if it lasts as long as this server."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why the engine can't be used now, for people; None if it can be, as far as is known."""
        ...

    async def start(self, place: Place, *, lost: Lost, returned: Callable[[], object]) -> None:
        """Begin to be the directory of a server. An engine that is away does not fail this.

        Args:
            place: the server.
            lost: called with each claim that the engine says is another server's now.
            returned: called when the engine is back, and may have lost what it was told. It must
                not wait.
        """
        ...

    async def claim(self, name: str, *, identity: str = "", epoch: int | None = None) -> Claim:
        """Claim a name for this server.

        Args:
            name: a DNS label.
            identity: whose session it is.
            epoch: the epoch it was claimed with before; None for a session that has just come.

        Raises:
            NameTaken: another identity holds the name.
            Superseded: a claim with a newer epoch holds; only if an epoch is given.
            DirectoryAway: the engine can't be asked now.
        """
        ...

    async def renew(self, claims: Mapping[str, tuple[int, str]]) -> Mapping[str, Route]:
        """Renew the lease of claims, and put back those that the engine has lost.

        Args:
            claims: the epoch and the identity of each name.

        Returns:
            those that do not hold any more, with who holds them.

        Raises:
            DirectoryAway: the engine can't be asked now.
        """
        ...

    async def release(self, name: str, epoch: int) -> bool:
        """Give a claim up, unless it was superseded; return whether it was still held.

        Raises:
            DirectoryAway: the engine can't be asked now.
        """
        ...

    async def find(self, name: str) -> Route | None:
        """Return the route of a name, None if it is not claimed.

        Raises:
            DirectoryAway: the engine can't be asked now.
        """
        ...

    async def note(self, notes: Mapping[str, Note]) -> None:
        """Tell the other servers of notes, by their keys; those that are not newer do nothing.

        Raises:
            DirectoryAway: the engine can't be asked now. Some may have been told all the same.
        """
        ...

    async def news(self) -> Mapping[str, Note]:
        """Return the notes that were made, here or elsewhere, since the last call; first all.

        Raises:
            DirectoryAway: the engine can't be asked now.
        """
        ...

    async def close(self) -> None:
        """End, and release nothing: leases run out by themselves. Harmless if repeated."""
        ...
