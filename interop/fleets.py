"""A fleet of processes: servers, agents that are connected to them, and the load on them.

The agents and the caller are in the test's own process; the caller is a server without agents, so
that every request takes a hop.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import trustme
from tests.cluster.fleets import peer_tls
from tests.patience import patience

import muxado
from muxado.cluster import ClusterError, Header, Member, Node

from .cluster_server import directory_at
from .engines import Engine
from .helpers import free_port

LEASE = patience(1.5)  # seconds
WORKERS = 16


class ServerProcess:
    """A server's process. Started again, it listens at the same addresses."""

    def __init__(self, folder: Path, engine: Engine, number: int, *options: str) -> None:
        self.options = options
        self.port = free_port()
        self.peer_port = free_port()
        self.place: dict[str, object] = {}
        self._folder = folder
        self._engine = engine
        self._number = number
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        log = (self._folder / f"server{self._number}.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "interop.cluster_server", "--directory", self._engine.url),
            *("--certificates", str(self._folder), "--lease", str(LEASE)),
            *("--port", str(self.port), "--peer-port", str(self.peer_port)),
            *("--grace", str(patience(8)), *self.options),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=Path(__file__).parents[1],
        )
        log.close()
        self.place = await self._line()

    async def _line(self) -> dict[str, object]:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(patience(20)):
            line: dict[str, object] = json.loads(await self._process.stdout.readline())
            return line

    async def drain(self) -> None:
        """Have it end by itself, in order."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert await self._line() == {"registered": 0}
        async with asyncio.timeout(patience(20)):
            assert await self._process.wait() == 0

    async def kill(self) -> None:
        """End it at once, as far as it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        if self._process is not None:
            await self._process.wait()


@dataclass
class Count:
    """What has become of the requests.

    Attributes:
        made: those that were answered.
        failed: why the others were not, and whether the session may have seen them.
        twice: those that an agent has seen more than once.
        longest: seconds that one has taken.
    """

    made: int = 0
    failed: list[tuple[bool, BaseException]] = field(default_factory=list)
    hung: int = 0
    twice: int = 0
    longest: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.made} requests made, {len(self.failed)} failed, {self.twice} retried wrongly,"
            f" {self.hung} hung, the longest took {self.longest:.2f} s"
        )


class Fleet:
    """Servers and agents, on an engine.

    Attributes:
        servers: the servers.
        caller: the server that has no agents.
        count: what has become of the requests so far.
    """

    def __init__(
        self, engine: Engine, folder: Path, servers: int, agents: int, *options: str
    ) -> None:
        self.engine = engine
        self.folder = folder
        self.tls = peer_tls(folder, trustme.CA())
        self.servers = [
            ServerProcess(folder, engine, number, *options) for number in range(servers)
        ]
        self.ports = [server.port for server in self.servers]  # that agents dial
        self.names = [f"agent-{number}" for number in range(agents)]
        self.count = Count()
        self.members: dict[str, Member] = {}
        self._numbers = itertools.count()
        self._seen: set[bytes] = set()
        self._stop = asyncio.Event()

    def new_node(self) -> Node:
        """Return a server without agents."""
        directory = directory_at(self.engine.url, LEASE)
        return Node(directory=directory, peers=self.tls, grace=patience(10))

    def new_member(self, name: str, first: int) -> Member:
        """Return an agent that dials the servers in turn, beginning with one of them."""
        ports = self.ports[first:] + self.ports[:first]
        places = [("127.0.0.1", port) for port in ports]
        return Member(name, places, self._answer, key=name)

    async def _answer(self, stream: muxado.Stream, header: Header) -> None:
        question = await stream.read()
        number = question[:8]
        if number in self._seen:
            self.count.twice += 1
        self._seen.add(number)
        await stream.write(question)

    async def ask(self, node: Node, name: str) -> None:
        """Make a request, and count it."""
        number = next(self._numbers).to_bytes(8, "big")
        question = number + random.randbytes(random.randint(0, 2000))
        began = monotonic()
        opened = False
        try:
            async with asyncio.timeout(patience(20)):
                stream = await node.open(name, "echo", timeout=None)
                opened = True
                async with stream:
                    await stream.write(question)
                    stream.write_eof()
                    assert await stream.read() == question
        except TimeoutError:
            self.count.hung += 1
        except (muxado.MuxadoError, ClusterError) as exc:
            self.count.failed.append((opened, exc))
        else:
            self.count.made += 1
        self.count.longest = max(self.count.longest, monotonic() - began)

    async def find(self, node: Node, name: str) -> None:
        """Wait until a server finds a name: an engine that is slow is told of it late."""
        async with asyncio.timeout(patience(20)):
            while True:
                try:
                    stream = await node.open(name)
                except ClusterError:
                    await asyncio.sleep(0.05)
                else:
                    stream.reset()
                    return

    async def ask_all(self, node: Node) -> None:
        """Ask every agent once, as soon as it can be found."""

        async def ask(name: str) -> None:
            await self.find(node, name)
            await self.ask(node, name)

        for at in range(0, len(self.names), WORKERS):
            await asyncio.gather(*[ask(name) for name in self.names[at : at + WORKERS]])

    async def work(self, node: Node, seed: int) -> None:
        """Make requests, one after the other."""
        chance = random.Random(seed)
        while not self._stop.is_set():
            await self.ask(node, chance.choice(self.names))

    async def more(self, count: int) -> None:
        """Wait until so many more requests were made."""
        goal = self.count.made + count
        async with asyncio.timeout(patience(30)):
            while self.count.made < goal:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def stop(self) -> None:
        """Make no more requests."""
        self._stop.set()


@asynccontextmanager
async def fleet_of(
    engine: Engine,
    folder: Path,
    servers: int = 2,
    agents: int = 200,
    balancer: Callable[[list[int]], AbstractAsyncContextManager[int]] | None = None,
) -> AsyncIterator[tuple[Fleet, Node]]:
    """Run servers, and agents that are spread over them, which the caller has all asked once.

    Args:
        engine: the engine of their directory.
        folder: where their files are.
        servers: how many there are.
        agents: how many of those.
        balancer: runs what stands before servers at these ports, and gives its own.
    """
    options = () if balancer is None else ("--behind-balancer",)
    fleet = Fleet(engine, folder, servers, agents, *options)
    async with AsyncExitStack() as stack:
        for server in fleet.servers:
            stack.push_async_callback(server.kill)
        await asyncio.gather(*[server.start() for server in fleet.servers])
        if balancer is not None:
            fleet.ports = [await stack.enter_async_context(balancer(fleet.ports))]
        caller = await stack.enter_async_context(fleet.new_node())
        for number, name in enumerate(fleet.names):
            member = fleet.new_member(name, number % len(fleet.ports))
            fleet.members[name] = await stack.enter_async_context(member)
        async with asyncio.timeout(patience(30)):
            for member in fleet.members.values():
                await member.connected()
        await fleet.ask_all(caller)
        assert not fleet.count.failed, fleet.count.failed[0]
        yield fleet, caller


@asynccontextmanager
async def under_load(fleet: Fleet, caller: Node) -> AsyncIterator[None]:
    """Make requests while the block runs, and say what has become of them."""
    fleet.count = Count()
    fleet._stop.clear()
    async with asyncio.TaskGroup() as group:
        for seed in range(WORKERS):
            group.create_task(fleet.work(caller, seed))
        try:
            await fleet.more(200)
            yield
            await fleet.more(200)
        finally:
            fleet.stop()
    print(fleet.count)
    assert fleet.count.made
    assert fleet.count.twice == 0
    assert fleet.count.hung == 0
