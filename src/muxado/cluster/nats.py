"""The directory in NATS. Install ``muxado[nats]``.

How it works. NATS keeps nothing: each server subscribes to the subject of every name that it
holds, and answers questions there. "No responders" means that the name is not claimed, and comes
at once. A subscription ends with its server's connection, so there is no lease.

A claim first asks for the name's epoch and identity; then it subscribes, and announces itself on
the same subject. A server with an older claim answers that it has let go; one with a newer claim
answers with it, and the claimer lets go. So two servers that claim at once agree on one of them.
Claims are ordered by the servers' clocks, in ms, and by their ids, since the engine has no clock to
ask. Where two hold a name all the same (they could not hear each other), a look-up takes the first
answer; if another one comes within a second, the older server is told of the newer one, and lets
go.

Notes are published to all servers, which keep them; who connects asks the others for theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import ssl
from collections.abc import Callable, Coroutine, Mapping
from time import monotonic, time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..errors import UsageError
from ..extras import needs
from .directory import Claim, Lost, Note, Place, Route
from .errors import DirectoryAway, NameTaken, Superseded
from .names import check_name
from .routes import pack_notes, pack_route, parse_notes, parse_route
from .trouble import Trouble

with needs("nats"):
    from nats import errors
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

__all__ = ["NatsDirectory"]

logger: logging.Logger = logging.getLogger("muxado.cluster")

QUESTION = b"?"
NO_NOTE = Note(-1, 0, "")

# Seconds for which an answer after the first one shows that two servers hold a name.
LATE = 1.0

# Seconds between tries to connect, and between signs of life.
PAUSE = 1.0

# Seconds in which a server that has just let go of a name may be followed by who has it now.
SETTLING = 0.5


class Question(NamedTuple):
    """A look-up: who asks, and whose answer came first."""

    name: str
    first: asyncio.Future[Route | None]


class NatsDirectory:
    """A directory in NATS, a server or a cluster of them. See `Directory`.

    It is weaker than Redis: claims are ordered by the servers' clocks, so that of two sessions
    which come within the difference of two clocks the older one may win, until it ends; and what
    one server claims while NATS is parted is unknown to those beyond, until it is whole again.
    """

    def __init__(
        self,
        servers: str | list[str],
        *,
        timeout: float = 2.0,
        prefix: str = "muxado",
        tls: ssl.SSLContext | None = None,
        **kwds: Any,
    ) -> None:
        """Say where the engine is. Nothing is dialled before `start`.

        Args:
            servers: ``nats://HOST:PORT``, or ``tls://``, or a list of them.
            timeout: seconds for an answer; a call fails when they are up.
            prefix: what the subjects begin with. Fleets that share an engine have each their own.
            tls: the context for TLS; by default the system's authorities are trusted.
            kwds: further arguments of `nats.connect`, such as ``user`` and ``password``.

        Raises:
            UsageError: the timeout is not above 0, or there is no server.
        """
        if not timeout > 0 or not servers:
            raise UsageError("timeout= must be above 0, and there must be a server")
        self._servers = [servers] if isinstance(servers, str) else list(servers)
        self._timeout = timeout
        self._prefix = prefix
        self._kwds = kwds if tls is None else {"tls": tls} | kwds
        self._client: Client | None = None  # while it is connected
        self._place: Place | None = None
        self._lost: Lost = lambda name, route: None
        self._returned: Callable[[], object] = lambda: None
        self._mine: dict[str, Route] = {}
        self._subscriptions: dict[str, Subscription] = {}  # the client's
        self._questions: dict[str, Question] = {}
        self._announcements: dict[str, asyncio.Event] = {}  # set when they are answered
        self._winners: dict[str, Route] = {}  # who is newer than what is being announced
        self._notes: dict[str, Note] = {}
        self._fresh: set[str] = set()  # keys of notes that `news` has not told of yet
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._trouble = Trouble(",".join(map(_describe, self._servers)))

    @property
    def lease(self) -> float | None:
        """None: a claim lasts as long as its server's connection to NATS."""
        return None

    @property
    def trouble(self) -> str | None:
        """Why the engine can't be used now, for people; None if it can be, as far as is known."""
        return self._trouble.reason

    async def start(self, place: Place, *, lost: Lost, returned: Callable[[], object]) -> None:
        """Begin to be the directory of a server. See `Directory.start`."""
        if self._place is not None:
            raise UsageError("a directory belongs to one server, and was started already")
        self._place = place
        self._lost = lost
        self._returned = returned
        tried = asyncio.Event()
        self._begin(self._run(tried))
        await tried.wait()

    async def claim(self, name: str, *, identity: str = "", epoch: int | None = None) -> Claim:
        """Claim a name for this server. See `Directory.claim`."""
        place = self._check_place()
        before = await self.find(name)
        mine = self._mine.get(name)
        if mine is not None and (before is None or _order(mine) > _order(before)):
            before = mine
        if before is not None:
            if before.identity != identity:
                raise NameTaken(f"{name} is held by another identity")
            if epoch is not None and before.place != place and before.epoch >= epoch:
                raise Superseded(name, before)
        if epoch is None:
            epoch = max(int(time() * 1000), before.epoch + 1 if before is not None else 0)
        answered = self._announcements[name] = asyncio.Event()
        try:
            await self._hold(name, Route(place, epoch, identity))
            # Now NATS knows of the subscription too. A server that hangs is not waited for.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timeout):
                    await answered.wait()
        finally:
            if self._announcements.get(name) is answered:
                del self._announcements[name]
            winner = self._winners.pop(name, None)
        if winner is not None:
            raise Superseded(name, winner)
        return Claim(epoch, before)

    async def renew(self, claims: Mapping[str, tuple[int, str]]) -> Mapping[str, Route]:
        """Announce claims anew; who has a newer one says so, which is told to `lost`."""
        place = self._check_place()
        for name, (epoch, identity) in claims.items():
            route = Route(place, epoch, identity)
            if self._mine.get(name) == route:  # else `lost` was told
                await self._hold(name, route)
        return {}

    async def release(self, name: str, epoch: int) -> bool:
        """Give a claim up, unless it was superseded. See `Directory.release`."""
        mine = self._mine.get(check_name(name))
        if mine is None or mine.epoch != epoch:
            return False
        self._forget(name)
        return True

    async def find(self, name: str) -> Route | None:
        """Return which of the other servers holds a name, None if none does."""
        subject = self._subject(name)
        self._connected()
        token = str(next(self._numbers))
        first: asyncio.Future[Route | None] = asyncio.get_running_loop().create_future()
        self._questions[token] = Question(name, first)
        began = monotonic()
        try:
            await self._publish(subject, QUESTION, self._inbox("q", token))
            async with asyncio.timeout(self._timeout):
                route = await first
        except TimeoutError:
            self._questions.pop(token, None)
            raise DirectoryAway(self._silence()) from None
        except BaseException:
            self._questions.pop(token, None)
            raise
        self._trouble.took(monotonic() - began)
        return route

    async def note(self, notes: Mapping[str, Note]) -> None:
        """Tell the other servers of notes. See `Directory.note`."""
        newer = self._learn(notes)
        for data in pack_notes(newer):
            await self._publish(f"{self._prefix}.notes", data)

    async def news(self) -> Mapping[str, Note]:
        """Return the notes since the last call. See `Directory.news`."""
        self._connected()
        fresh, self._fresh = self._fresh, set()
        return {key: self._notes[key] for key in fresh}

    async def close(self) -> None:
        """End; what this server has claimed is forgotten with it. Harmless if repeated."""
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        self._mine.clear()

    # Subjects

    def _subject(self, name: str) -> str:
        return f"{self._prefix}.name.{check_name(name)}"

    def _inbox(self, kind: str, token: str) -> str:
        """Return where answers go: to a question (q), an announcement (a), or with notes (n)."""
        return f"{self._prefix}.node.{self._check_place().node}.{kind}.{token}"

    # What comes

    async def _asked(self, message: Msg) -> None:
        """Answer a question for a name, or an announcement of it."""
        name = message.subject.rpartition(".")[2]
        mine = self._mine.get(name)
        if mine is None:  # it was let go just now
            await self._publish(message.reply, b"")
            return
        theirs = parse_route(message.data)
        newer = theirs is not None and _order(theirs) > _order(mine)
        if theirs is not None and newer and theirs.identity == mine.identity:
            self._lose(name, theirs, message.reply)
        else:
            await self._publish(message.reply, pack_route(mine))

    async def _answered(self, message: Msg) -> None:
        """Take an answer to a question, or to an announcement."""
        kind, token = message.subject.split(".")[-2:]
        unclaimed = (message.headers or {}).get("Status") == "503"
        route = None if unclaimed else parse_route(message.data)
        if kind == "n":
            self._learn(parse_notes(message.data))
            return
        if kind == "a":
            self._announced(token, route)
            return
        question = self._questions.get(token)
        if question is None:
            return
        first = question.first
        loop = asyncio.get_running_loop()
        if first.done():
            if route is not None:
                await self._tell_older(question, route)
            return
        if unclaimed or route is not None:
            first.set_result(route)
        else:
            loop.call_later(SETTLING, _settle, first)
        loop.call_later(LATE, self._questions.pop, token, None)

    async def _noted(self, message: Msg) -> None:
        """Take notes of another server, or tell it of this one's."""
        if message.data != QUESTION:
            self._learn(parse_notes(message.data))
            return
        now = time()
        for key, note in list(self._notes.items()):
            if 0 < note.until < now:
                del self._notes[key]
                self._fresh.discard(key)
        for data in pack_notes(self._notes):
            await self._publish(message.reply, data)

    def _learn(self, notes: Mapping[str, Note]) -> dict[str, Note]:
        """Keep the notes that are newer, and return them."""
        newer = {key: note for key, note in notes.items() if note > self._notes.get(key, NO_NOTE)}
        self._notes |= newer
        self._fresh |= newer.keys()
        return newer

    def _announced(self, name: str, route: Route | None) -> None:
        """Take an answer to the announcement of a name: a newer claim, or that one has let go."""
        mine = self._mine.get(name)
        if route is not None and mine is not None and _order(route) > _order(mine):
            self._lose(name, route)
        if name in self._announcements:
            self._announcements[name].set()

    async def _tell_older(self, question: Question, second: Route) -> None:
        """Announce the newer one of two that hold a name, so that the other lets go."""
        first = None if question.first.cancelled() else question.first.result()
        if first is not None and first.place != second.place:
            newest = max(first, second, key=_order)
            logger.warning(
                "%s is held by %s and %s: the newer claim wins",
                question.name,
                first.place.address,
                second.place.address,
            )
            await self._publish(self._subject(question.name), pack_route(newest))

    async def _hold(self, name: str, route: Route) -> None:
        """Answer for a name from now on, and announce it."""
        client = self._connected()
        subject = self._subject(name)
        self._mine[name] = route
        if name not in self._subscriptions:
            subscription = await client.subscribe(subject, cb=self._asked)
            self._subscriptions[name] = subscription
        await self._publish(subject, pack_route(route), self._inbox("a", name))

    def _lose(self, name: str, route: Route, reply: str = "") -> None:
        """Let go of a name for a newer claim."""
        self._forget(name, reply)
        if name in self._announcements:
            self._winners[name] = route
        else:
            self._lost(name, route)

    def _forget(self, name: str, reply: str = "") -> None:
        """Answer for a name no more.

        Args:
            name: the name.
            reply: where to say that it was let go, "" for nowhere.
        """
        route = self._mine.pop(name)
        subscription = self._subscriptions.pop(name, None)
        if subscription is not None:
            # In a task of its own, since this may be the subscription's, which it would end.
            self._begin(self._unsubscribe(subscription, reply, pack_route(route)))

    async def _unsubscribe(self, subscription: Subscription, reply: str, data: bytes) -> None:
        with contextlib.suppress(errors.Error, OSError, DirectoryAway):
            # Who asks meanwhile is still answered, that the name is not held any more.
            await subscription.drain()  # type: ignore[no-untyped-call]
            await self._publish(reply, data)

    async def _publish(self, subject: str, data: bytes, reply: str = "") -> None:
        """Publish, unless there is no subject."""
        if not subject:
            return
        try:
            await self._connected().publish(subject, data, reply)
        except (errors.Error, OSError) as exc:
            raise DirectoryAway(str(exc)) from exc

    # The connection

    async def _run(self, tried: asyncio.Event) -> None:
        """Stay connected. The library's own way does not end when it is told to."""
        while True:
            client = Client()
            closed = asyncio.Event()
            try:
                await self._connect(client, closed)
                self._client = client
                self._trouble.ends()
                self._returned()
                tried.set()
                await closed.wait()
                self._trouble.begins(str(client.last_error or "") or "the connection is lost")
            except Exception as exc:
                self._trouble.begins(self._reason(exc))
            finally:
                self._client = None
                self._subscriptions.clear()
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(self._timeout):
                        await client.close()
            tried.set()
            await asyncio.sleep(PAUSE)

    async def _connect(self, client: Client, closed: asyncio.Event) -> None:
        async def note(exc: Exception | None = None) -> None:
            if exc is None:
                closed.set()
            elif self._client is client:
                logger.warning("the directory %s says: %s", self._trouble.engine, exc)

        options: dict[str, Any] = {
            "name": "muxado",
            "no_echo": True,
            "allow_reconnect": False,
            "connect_timeout": self._timeout,
            "ping_interval": PAUSE,
            "max_outstanding_pings": 2,
            "error_cb": note,
            "disconnected_cb": note,
            "closed_cb": note,
        }
        async with asyncio.timeout(self._timeout):
            await client.connect(self._servers, **(options | self._kwds))
            await client.subscribe(self._inbox("*", "*"), cb=self._answered)
            await client.subscribe(f"{self._prefix}.notes", cb=self._noted)
            await client.publish(f"{self._prefix}.notes", QUESTION, self._inbox("n", "-"))
            await client.flush()

    def _reason(self, exc: Exception) -> str:
        """Return why there is no connection, for people."""
        if isinstance(exc, TimeoutError | asyncio.TimeoutError):
            return self._silence()
        text = str(exc) or type(exc).__name__
        if "authorization" in text.lower():
            return f"it refuses the user or the password ({text})"
        return text

    def _connected(self) -> Client:
        """Return the client, if it is connected."""
        self._check_place()
        if self._client is None:
            raise DirectoryAway(self._trouble.reason or "the directory is not connected")
        return self._client

    def _check_place(self) -> Place:
        if self._place is None:
            raise UsageError("the directory was not started")
        return self._place

    def _silence(self) -> str:
        return f"no answer within {self._timeout:g} s"

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="muxado cluster: NATS")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _settle(first: asyncio.Future[Route | None]) -> None:
    """Take a name as not claimed, unless an answer has come meanwhile."""
    if not first.done():
        first.set_result(None)


def _order(route: Route) -> tuple[int, str]:
    return route.epoch, route.place.node


def _describe(server: str) -> str:
    """Return what the log calls a server: nothing secret."""
    parts = urlsplit(server)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
