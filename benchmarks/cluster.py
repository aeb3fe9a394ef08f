"""What a cluster costs: names in its directory, and the servers that pass streams on.

``python -m benchmarks.cluster [--seconds 3]`` needs redis-server and nats-server. Times of
processors are those of the whole process, so the machine's other work matters little.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic, process_time

import muxado
from muxado.cluster import Directory, Header, Member, MemoryDirectory, Node, Place
from muxado.cluster.nats import NatsDirectory
from muxado.cluster.redis import RedisDirectory

NAMES = 5000
AT_ONCE = 64
TURNS = 5
QUESTION = 100 * b"x"
STREAMS = 8
PIECE = 64 * 1024 * b"x"


def used(process: asyncio.subprocess.Process) -> float:
    """Return the processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def child(*words: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run this module in another process; give what it prints first."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.cluster", *words), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


# The other processes


async def echo(stream: muxado.Stream, _: Header | None = None) -> None:
    await stream.write(await stream.read())


async def count(stream: muxado.Stream, _: Header | None = None) -> None:
    total = 0
    while data := await stream.read(256 * 1024):
        total += len(data)
    await stream.write(b"%d" % total)


async def serve_plain(what: str) -> None:
    handler = {"requests": echo, "bulk": count}[what]
    async with muxado.serve_streams(handler, "127.0.0.1", 0) as server:
        print(server.addresses[0][1], flush=True)
        await asyncio.Future()


async def serve_agent(port: str) -> None:
    places = [("127.0.0.1", int(port))]
    async with Member("agent", places, echo) as member, Member("bulk", places, count) as bulk:
        await member.connected()
        await bulk.connected()
        print("connected", flush=True)
        await asyncio.Future()


async def serve_node(url: str) -> None:
    async def let_in(session: muxado.Session, hello: object) -> str:
        return ""

    async with (
        Node(directory=RedisDirectory(url), peers=None) as node,
        muxado.serve(lambda session: node.serve(session, let_in), "127.0.0.1", 0) as server,
    ):
        print(server.addresses[0][1], flush=True)
        await asyncio.Future()


async def serve_entry(url: str) -> None:
    """Be a server without agents, which passes each stream of its callers on to another one."""
    async with Node(directory=RedisDirectory(url), peers=None) as node:

        async def enter(session: muxado.Session) -> None:
            session.on_stream(lambda stream: node.pass_on(stream, "agent", "echo"))
            await session.wait_closed()

        async with muxado.serve(enter, "127.0.0.1", 0) as server:
            print(server.addresses[0][1], flush=True)
            await asyncio.Future()


# What is measured


async def requests(open_stream: Callable[[], Awaitable[muxado.Stream]], seconds: float) -> int:
    """Make requests, many at once; return how many."""
    made = 0
    end = monotonic() + seconds

    async def work() -> None:
        nonlocal made
        while monotonic() < end:
            async with await open_stream() as stream:
                await stream.write(QUESTION)
                stream.write_eof()
                assert await stream.read() == QUESTION
            made += 1

    await asyncio.gather(*[work() for _ in range(AT_ONCE)])
    return made


async def measure_hops(url: str, seconds: float) -> None:
    """Compare the servers that pass streams on with both ends of a plain session's requests."""
    async with (
        child("plain", "requests") as (plain, plain_port),
        child("node", url) as (holder, port),
        child("agent", port),
        child("entry", url) as (entry, entry_port),
        muxado.connect("127.0.0.1", int(plain_port)) as session,
        muxado.connect("127.0.0.1", int(entry_port)) as entered,
        Node(directory=RedisDirectory(url), peers=None) as caller,
    ):

        async def direct() -> muxado.Stream:
            return session.open()

        async def by_name() -> muxado.Stream:
            return await caller.open("agent", "echo")

        async def through_both() -> muxado.Stream:
            return entered.open()

        for way in (direct, by_name, through_both):
            await requests(way, 0.5)
        ones, twos = [], []
        for _ in range(TURNS):
            before = process_time() + used(plain)
            made = await requests(direct, seconds)
            both = (process_time() + used(plain) - before) / made
            before = used(holder)
            made = await requests(by_name, seconds)
            one = (used(holder) - before) / made
            before = used(holder) + used(entry)
            made = await requests(through_both, seconds)
            two = (used(holder) + used(entry) - before) / made
            ones.append(one / both)
            twos.append(two / both)
            print(
                f"plain, both ends: {both * 1e6:.0f} µs; passed on by one: {one * 1e6:.0f} µs,"
                f" by two: {two * 1e6:.0f} µs"
            )
    print("the server that passes on, by both ends of a plain request:", sorted(ones))
    print("two of them in sum:", sorted(twos))


async def send(open_stream: Callable[[], Awaitable[muxado.Stream]], seconds: float) -> int:
    """Send on several streams at once; return how many bytes have arrived."""
    end = monotonic() + seconds

    async def work() -> int:
        async with await open_stream() as stream:
            while monotonic() < end:
                await stream.write(PIECE)
            stream.write_eof()
            return int(await stream.read())

    return sum(await asyncio.gather(*[work() for _ in range(STREAMS)]))


async def measure_bulk(url: str, seconds: float) -> None:
    """Compare the server that passes bulk on with both ends of a plain session's."""
    async with (
        child("plain", "bulk") as (plain, plain_port),
        child("node", url) as (holder, port),
        child("agent", port),
        muxado.connect("127.0.0.1", int(plain_port)) as session,
        Node(directory=RedisDirectory(url), peers=None) as caller,
    ):

        async def direct() -> muxado.Stream:
            return session.open()

        async def by_name() -> muxado.Stream:
            return await caller.open("bulk", "count")

        for way in (direct, by_name):
            await send(way, 0.5)
        ratios = []
        for _ in range(TURNS):
            before = process_time() + used(plain)
            sent = await send(direct, seconds)
            both = (process_time() + used(plain) - before) / sent
            before, began = used(holder), monotonic()
            sent = await send(by_name, seconds)
            one, rate = (used(holder) - before) / sent, sent / (monotonic() - began)
            ratios.append(one / both)
            print(
                f"bulk: plain, both ends: {both * 1e12:.0f} ms a GB; passed on by one:"
                f" {one * 1e12:.0f} ms a GB, {1 / one / 1e6:.0f} MB for each second of its"
                f" processor; {rate / 1e6:.0f} MB/s went through"
            )
    print("the server that passes bulk on, by both ends of a plain session's:", sorted(ratios))


async def measure_directory(title: str, new: Callable[[], Directory]) -> None:
    """Measure how long names take."""
    here, there = new(), new()
    for number, directory in enumerate((here, there)):
        place = Place(f"node{number}", f"192.0.2.{number}:7444")
        await directory.start(place, lost=print, returned=lambda: None)
    names = [f"agent-{number}" for number in range(NAMES)]
    began, cpu = monotonic(), process_time()
    claims = await asyncio.gather(*map(here.claim, names))
    print(
        f"{title}: {NAMES} names claimed in {1000 * (monotonic() - began):.0f} ms,"
        f" {1e6 * (process_time() - cpu) / NAMES:.0f} µs of processor time each"
    )
    began, cpu = monotonic(), process_time()
    held = {name: (claim.epoch, "") for name, claim in zip(names, claims, strict=True)}
    await here.renew(held)
    print(
        f"{title}: renewed in {1000 * (monotonic() - began):.0f} ms,"
        f" {1e6 * (process_time() - cpu) / NAMES:.1f} µs each"
    )
    began, cpu = monotonic(), process_time()
    for name in names[:1000]:
        await there.find(name)
    print(
        f"{title}: a look-up takes {1e3 * (monotonic() - began):.0f} µs,"
        f" {1e3 * (process_time() - cpu):.0f} µs of processor time"
    )
    await here.close()
    await there.close()


async def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="mux") as folder:
        socket = f"{folder}/redis"
        quiet = asyncio.subprocess.DEVNULL
        redis = await asyncio.create_subprocess_exec(
            *("redis-server", "--port", "0", "--unixsocket", socket, "--save", ""), stdout=quiet
        )
        nats = await asyncio.create_subprocess_exec(
            *("/usr/sbin/nats-server", "-a", "127.0.0.1", "-p", "14222"), stderr=quiet
        )
        try:
            await asyncio.sleep(1)
            memory = MemoryDirectory()
            await measure_directory("memory", lambda: MemoryDirectory(memory))
            await measure_directory("Redis", lambda: RedisDirectory(f"unix://{socket}", timeout=30))
            await measure_directory(
                "NATS", lambda: NatsDirectory("nats://127.0.0.1:14222", timeout=30)
            )
            await measure_hops(f"unix://{socket}", seconds)
            await measure_bulk(f"unix://{socket}", seconds)
        finally:
            for process in (redis, nats):
                process.kill()
                await process.wait()


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("plain", "agent", "node", "entry"):
        roles: dict[str, Callable[..., Coroutine[None, None, None]]] = {
            "plain": serve_plain,
            "agent": serve_agent,
            "node": serve_node,
            "entry": serve_entry,
        }
        asyncio.run(roles[sys.argv[1]](*sys.argv[2:]))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--seconds", type=float, default=3.0)
        asyncio.run(main(parser.parse_args().seconds))
