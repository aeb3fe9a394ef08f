"""The directory in Redis, or Valkey. Install ``muxado[redis]``.

How it works. A name is a key, whose value is the claim: epoch, server, address and identity. It
expires with the lease. Claims, renewals and releases are Lua scripts, since each compares before
it changes. All commands of a server go over one connection: one task sends what has gathered
while the last answer was on its way, so a thousand claims at once are a few round trips.

That task also asks for a sign of life every second, and dials again when there is none. While
there is no connection, every call fails at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..errors import UsageError
from ..extras import needs
from .directory import Claim, Lost, Note, Place, Route
from .errors import DirectoryAway, NameTaken, Superseded
from .names import check_name
from .routes import parse_route
from .trouble import Trouble

with needs("redis"):
    import redis.asyncio as client
    from redis import exceptions as errors
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

__all__ = ["RedisDirectory"]

logger: logging.Logger = logging.getLogger("muxado.cluster")

BATCH = 500  # commands that are sent together
ALIVE_INTERVAL = 1.0  # seconds between signs of life, and between tries to dial

# Each has the keys first. A value is "EPOCH NODE ADDRESS IDENTITY".
CLAIM = """
local held = redis.call('GET', KEYS[1])
local last = held and tonumber(string.match(held, '^%d+')) or 0
local identity = held and string.match(held, '^%S+ %S+ %S+ (.*)$')
if held and identity ~= ARGV[4] then return {'taken', held} end
local epoch = ARGV[1]
if epoch == '' then
    local now = redis.call('TIME')
    epoch = math.max(last + 1, now[1] * 1000 + math.floor(now[2] / 1000))
    epoch = string.format('%.0f', epoch)
end
local mine = epoch .. ' ' .. ARGV[2] .. ' ' .. ARGV[4]
if held ~= mine and last >= tonumber(epoch) then return {'superseded', held} end
redis.call('SET', KEYS[1], mine, 'PX', ARGV[3])
return {epoch, held or ''}
"""
RENEW = """
local lost = {}
for i, key in ipairs(KEYS) do
    local epoch = ARGV[2 * i + 1]
    local mine = epoch .. ' ' .. ARGV[1] .. ' ' .. ARGV[2 * i + 2]
    local held = redis.call('GET', key)
    if held == mine then
        redis.call('PEXPIRE', key, ARGV[2])
    elseif not held or (tonumber(string.match(held, '^%d+')) or 0) < tonumber(epoch) then
        redis.call('SET', key, mine, 'PX', ARGV[2])
    else
        table.insert(lost, i)
        table.insert(lost, held)
    end
end
return lost
"""
RELEASE = """
local held = redis.call('GET', KEYS[1])
local mine = ARGV[1] .. ' ' .. ARGV[2] .. ' '
if held and string.sub(held, 1, #mine) == mine then return redis.call('DEL', KEYS[1]) end
return 0
"""
# Notes are a hash by key, "STAMP UNTIL TEXT"; one sorted set orders the keys by change, one by end.
# Changes are counted from the time on, so that the numbers of an engine that was emptied go on.
NOTE = """
local now = redis.call('TIME')
redis.call('SET', KEYS[4], string.format('%.0f', now[1] * 1000000 + now[2]), 'NX')
for i = 1, #ARGV, 3 do
    local key, stamp, rest = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
    local held = redis.call('HGET', KEYS[1], key)
    local last = held and tonumber(string.match(held, '^%d+')) or -1
    local text = held and string.match(held, '^%d+ (.*)$')
    if stamp > last or (stamp == last and rest > text) then
        redis.call('HSET', KEYS[1], key, ARGV[i + 1] .. ' ' .. rest)
        redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[4]), key)
        local ends = tonumber(string.match(rest, '^%d+'))
        if ends > 0 then
            redis.call('ZADD', KEYS[3], ends, key)
        else
            redis.call('ZREM', KEYS[3], key)
        end
    end
end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now[1], 'LIMIT', 0, 20)) do
    redis.call('HDEL', KEYS[1], key)
    redis.call('ZREM', KEYS[2], key)
    redis.call('ZREM', KEYS[3], key)
end
return 0
"""
NEWS = """
local last = redis.call('GET', KEYS[3]) or ARGV[1]
local news = {last}
if last == ARGV[1] then return news end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf')) do
    local held = redis.call('HGET', KEYS[1], key)
    if held then
        table.insert(news, key)
        table.insert(news, held)
    end
end
return news
"""
SCRIPTS = (CLAIM, RENEW, RELEASE, NOTE, NEWS)


class Command(NamedTuple):
    """A command that waits to be sent, or for its answer."""

    words: tuple[str | int, ...]  # a script's begin with the script itself
    answer: asyncio.Future[Any]


class RedisDirectory:
    """A directory in one Redis or Valkey, from version 5 on. See `Directory`.

    A server that is a replica, or out of memory, is read but takes no claims; they wait. What its
    user needs with ACLs: ``~muxado:* +get +set +del +pexpire +time +evalsha +script|load +ping
    +incr +hget +hset +hdel +zadd +zrem +zrangebyscore``.
    Redis Cluster is not supported: use one server, or Sentinel by `redis=`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        redis: client.Redis | None = None,
        lease: float = 30.0,
        timeout: float = 2.0,
        prefix: str = "muxado:",
        **kwds: Any,
    ) -> None:
        """Say where the engine is. Nothing is dialled before `start`.

        Args:
            url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as for `redis.asyncio.from_url`.
            redis: use this client instead, as from a Sentinel's `master_for`. It is closed with
                the directory.
            lease: seconds after which the claims of a server are forgotten that does not renew
                them any more.
            timeout: seconds for an answer; a call fails when they are up.
            prefix: what the keys begin with. Fleets that share an engine have each their own.
            kwds: further arguments of `redis.asyncio.from_url`, such as ``ssl_ca_certs``.

        Raises:
            UsageError: not exactly one of url and redis was given, or a time is not above 0.
            ValueError: the URL is none of these.
        """
        if (url is None) == (redis is None):
            raise UsageError("give either a URL, or redis=")
        if not lease > 0 or not timeout > 0:
            raise UsageError("lease= and timeout= must be above 0")
        if url is not None:
            redis = client.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),
                max_connections=1,
                **kwds,
            )
        assert redis is not None
        self._redis: client.Redis = redis
        self._lease = lease
        self._timeout = timeout
        self._prefix = f"{prefix}name:"
        self._notes = [f"{prefix}{each}" for each in ("notes", "notes:order", "notes:ends", "news")]
        self._heard = 0  # the number of the last change of a note that was heard of
        self._known: dict[str, Note] = {}
        self._may_lack_notes = False
        self._place: Place | None = None
        self._returned: Callable[[], object] = lambda: None
        self._commands: list[Command] = []
        self._gathered = asyncio.Event()
        self._hashes: dict[str, str] = {}
        self._connected = False
        self._refuses_changes = False
        self._trouble = Trouble(_describe(url))
        self._task: asyncio.Task[None] | None = None

    @property
    def lease(self) -> float | None:
        """Seconds that a claim lasts without renewal."""
        return self._lease

    @property
    def trouble(self) -> str | None:
        """Why the engine can't be used now, for people; None if it can be, as far as is known."""
        return self._trouble.reason

    async def start(self, place: Place, *, lost: Lost, returned: Callable[[], object]) -> None:
        """Begin to be the directory of a server. See `Directory.start`."""
        if self._task is not None:
            raise UsageError("a directory belongs to one server, and was started already")
        self._place = place
        self._returned = returned
        await self._connect()
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name="muxado cluster: Redis"
        )

    async def claim(self, name: str, *, identity: str = "", epoch: int | None = None) -> Claim:
        """Claim a name for this server. See `Directory.claim`."""
        last = "" if epoch is None else epoch
        key = self._key(name)
        lease = int(self._lease * 1000)
        what, held = await self._change(CLAIM, 1, key, last, self._here(), lease, identity)
        before = parse_route(held)
        if what == b"taken":
            raise NameTaken(f"{name} is held by another identity")
        if what == b"superseded":
            assert before is not None
            raise Superseded(name, before)
        return Claim(int(what), before)

    async def renew(self, claims: Mapping[str, tuple[int, str]]) -> Mapping[str, Route]:
        """Renew the lease of claims. See `Directory.renew`."""
        names = list(claims)
        lost = {}
        for at in range(0, len(names), BATCH):
            some = names[at : at + BATCH]
            words: list[str | int] = [self._here(), int(self._lease * 1000)]
            for name in some:
                words += claims[name]
            answer = await self._change(RENEW, len(some), *map(self._key, some), *words)
            for place, held in zip(answer[::2], answer[1::2], strict=True):
                route = parse_route(held)
                assert route is not None
                lost[some[place - 1]] = route
        return lost

    async def release(self, name: str, epoch: int) -> bool:
        """Give a claim up, unless it was superseded. See `Directory.release`."""
        return bool(await self._change(RELEASE, 1, self._key(name), epoch, self._here()))

    async def find(self, name: str) -> Route | None:
        """Return the route of a name, None if it is not claimed. See `Directory.find`."""
        return parse_route(await self._ask("GET", self._key(name)))

    async def note(self, notes: Mapping[str, Note]) -> None:
        """Tell the other servers of notes. See `Directory.note`."""
        self._known |= {key: note for key, note in notes.items() if self._is_newer(key, note)}
        keys = list(notes)
        for at in range(0, len(keys), BATCH):
            words: list[str | int] = []
            for key in keys[at : at + BATCH]:
                note = notes[key]
                words += [key, note.stamp, f"{note.until} {note.text}"]
            await self._change(NOTE, len(self._notes), *self._notes, *words)

    async def news(self) -> Mapping[str, Note]:
        """Return the notes since the last call. See `Directory.news`."""
        if self._may_lack_notes:
            await self.note(self._known)
            self._may_lack_notes = False
        numbers, order, _, count = self._notes
        last, *found = await self._change(NEWS, 3, numbers, order, count, self._heard)
        self._heard = int(last)
        news = {}
        for key, value in zip(found[::2], found[1::2], strict=True):
            stamp, until, text = value.decode().split(" ", 2)
            news[key.decode()] = Note(int(stamp), int(until), text)
        self._known |= {key: note for key, note in news.items() if self._is_newer(key, note)}
        return news

    async def close(self) -> None:
        """End, and release nothing: leases run out by themselves. Harmless if repeated."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._connected = False
        self._fail("the directory is closed")
        await self._redis.aclose()

    def _is_newer(self, key: str, note: Note) -> bool:
        return key not in self._known or note > self._known[key]

    # Asking

    def _key(self, name: str) -> str:
        return self._prefix + check_name(name)

    def _here(self) -> str:
        if self._place is None:
            raise UsageError("the directory was not started")
        return f"{self._place.node} {self._place.address}"

    async def _change(self, script: str, *words: str | int) -> Any:
        """Run a script, and return its answer."""
        return await self._ask(script, *words)

    async def _ask(self, *words: str | int) -> Any:
        """Have a command sent, and return its answer."""
        if not self._connected:
            raise DirectoryAway(self._trouble.reason or "the directory is not connected")
        command = Command(words, asyncio.get_running_loop().create_future())
        self._commands.append(command)
        self._gathered.set()
        answer = await command.answer
        if isinstance(answer, Exception):
            raise DirectoryAway(_reason(answer, self._timeout)) from answer
        return answer

    async def _run(self) -> None:
        """Send what has gathered, and keep the connection alive."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ALIVE_INTERVAL):
                    await self._gathered.wait()
            self._gathered.clear()
            if not self._connected:
                await self._connect()
            elif not self._commands:
                await self._look()
            while self._connected and self._commands:
                batch, self._commands = self._commands[:BATCH], self._commands[BATCH:]
                try:
                    await self._send(batch)
                finally:
                    for command in batch:
                        if not command.answer.done():  # this task was cancelled
                            command.answer.set_result(ConnectionError("the directory is closed"))

    async def _send(self, batch: list[Command]) -> None:
        """Send commands, and hand their answers out."""
        try:
            answers = await self._execute([command.words for command in batch])
            missing = [
                at for at, answer in enumerate(answers) if isinstance(answer, errors.NoScriptError)
            ]
            if missing:  # somebody has flushed the scripts
                await self._load()
                again = await self._execute([batch[at].words for at in missing])
                for at, answer in zip(missing, again, strict=True):
                    answers[at] = answer
        except Exception as exc:
            self._lose(exc)
            answers = [exc] * len(batch)
        for command, answer in zip(batch, answers, strict=True):
            if command.words[0] in SCRIPTS:
                # What makes nothing longer may work in full memory too.
                self._judge(answer, proves=command.words[0] == CLAIM)
            if not command.answer.done():
                command.answer.set_result(answer)

    async def _execute(self, commands: list[tuple[str | int, ...]]) -> list[Any]:
        """Send commands in one piece, and return their answers, or the errors of each."""
        began = monotonic()
        async with asyncio.timeout(self._timeout), self._redis.pipeline(transaction=False) as pipe:
            for words in commands:
                digest = self._hashes.get(str(words[0]))
                if digest is None:
                    pipe.execute_command(*words)
                else:
                    pipe.execute_command("EVALSHA", digest, *words[1:])
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        self._trouble.took(monotonic() - began)
        return answers

    # The connection

    async def _connect(self) -> None:
        """Try to connect."""
        try:
            await self._load()
        except Exception as exc:
            self._lose(exc)
            return
        self._connected = True
        self._may_lack_notes = True
        if not self._refuses_changes:
            self._trouble.ends()
        self._returned()

    async def _load(self) -> None:
        hashes = {}
        async with asyncio.timeout(self._timeout):
            for script in SCRIPTS:
                hashes[script] = await self._redis.script_load(script)
        self._hashes = hashes

    async def _look(self) -> None:
        """Ask for a sign of life; where changes are refused, whether they still are."""
        probe: tuple[str | int, ...] = ("PING",)
        if self._refuses_changes:
            probe = ("SET", f"{self._prefix}-", "probe", "PX", 1)
        try:
            (answer,) = await self._execute([probe])
        except Exception as exc:
            self._lose(exc)
        else:
            if self._refuses_changes:
                self._judge(answer, proves=True)

    def _judge(self, answer: Any, proves: bool) -> None:
        """Learn from the answer to a change whether the engine takes changes.

        Args:
            answer: the answer, or its error.
            proves: whether success shows that it takes all changes.
        """
        if isinstance(answer, errors.RedisError | OSError):
            if self._connected:
                self._refuses_changes = True
                self._trouble.begins(_reason(answer, self._timeout))
        elif proves and self._refuses_changes:
            self._refuses_changes = False
            self._trouble.ends()
            self._returned()

    def _lose(self, exc: Exception) -> None:
        """Take note that there is no connection, and fail all who wait."""
        self._connected = False
        reason = _reason(exc, self._timeout)
        self._trouble.begins(reason)
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        commands, self._commands = self._commands, []
        for command in commands:
            if not command.answer.done():
                command.answer.set_result(ConnectionError(reason))


def _describe(url: str | None) -> str:
    """Return what the log calls the engine: nothing secret."""
    if url is None:
        return "in Redis"
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2] if parts.netloc else parts.path
    return f"{parts.scheme}://{place}"


def _reason(exc: BaseException, timeout: float) -> str:
    """Return what is wrong, for people."""
    if isinstance(exc, errors.AuthenticationError | errors.AuthorizationError):
        return f"it refuses the user or the password ({exc})"
    if isinstance(exc, errors.NoPermissionError):
        return f"its user may not do this ({exc})"
    if isinstance(exc, errors.ReadOnlyError):
        return "it is read-only, as a replica is"
    if isinstance(exc, errors.OutOfMemoryError):
        return "it is out of memory"
    if isinstance(exc, errors.BusyLoadingError):
        return "it is loading its data"
    if isinstance(exc, TimeoutError | errors.TimeoutError):
        return f"no answer within {timeout:g} s"
    return str(exc) or type(exc).__name__
