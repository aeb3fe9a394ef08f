"""The tunnel's commands, beside other tunnels: what a connection through each of them costs.

    python -m benchmarks.tunnel_commands --rounds 5 --python .venv-compiled/bin/python

How it works. This process is the users and the service; the tunnel stands between, each end a
process of its own. What is counted is what both ends use, with their children, as /proc has it. The
tunnels take turns, and the median of the rounds is shown, in brackets by that of the small tunnel
in Go. A tunnel that can't take part is named, with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from .tunnel_contenders import LOCAL, Contender, Tunnel, find_contenders

SECONDS = 1.5
IDLE = 500  # connections
FILES = 8192  # that this process and those it starts may have open
SMALL = b"x" * 64
PIECE = b"s" + bytes(256 * 1024 - 1)


class Service:
    """What is reached: it echoes a small message, or takes all that comes and counts it."""

    def __init__(self) -> None:
        self.count = 0

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(256 * 1024):
                if data[:1] == b"x":
                    writer.write(data)
                else:
                    self.count += len(data)
        writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Serve while the block runs; give the port."""
        server = await asyncio.start_server(self._answer, LOCAL, 0, backlog=1024)
        yield server.sockets[0].getsockname()[1]
        server.close()


async def connections(tunnel: Tunnel, service: Service, count: int) -> dict[str, float]:
    """Make connections that echo a small message, so many at once."""
    done = 0
    until = time.monotonic() + SECONDS

    async def user() -> None:
        nonlocal done
        while time.monotonic() < until:
            reader, writer = await asyncio.open_connection(LOCAL, tunnel.port)
            writer.write(SMALL)
            await reader.readexactly(len(SMALL))
            writer.close()
            await writer.wait_closed()
            done += 1

    before = tunnel.used()[0]
    began = time.monotonic()
    await asyncio.gather(*[user() for _ in range(count)])
    seconds = time.monotonic() - began
    return {
        f"µs of processor time per connection, {count} at once": (tunnel.used()[0] - before)
        / done
        * 1e6,
        f"connections/s, {count} at once": done / seconds,
    }


async def bulk(tunnel: Tunnel, service: Service, count: int) -> dict[str, float]:
    """Move bytes to the service; beside eight connections, time small messages too."""
    over, answered = asyncio.Event(), asyncio.Event()
    times: list[float] = []

    async def send() -> None:
        _, writer = await asyncio.open_connection(LOCAL, tunnel.port)
        with contextlib.suppress(OSError):
            while not over.is_set():
                writer.write(PIECE)
                await writer.drain()
        writer.transport.abort()

    async def ping() -> None:
        reader, writer = await asyncio.open_connection(LOCAL, tunnel.port)
        while not over.is_set():
            began = time.monotonic()
            writer.write(SMALL)
            await reader.readexactly(len(SMALL))
            times.append(time.monotonic() - began)
            answered.set()
            await asyncio.sleep(0.002)
        writer.close()

    tasks = [asyncio.create_task(send()) for _ in range(count)]
    if count > 1:
        tasks.append(asyncio.create_task(ping()))
        await answered.wait()
    while not service.count:  # noqa: ASYNC110  # nothing tells of it
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    times.clear()
    answered.clear()
    before, moved, began = tunnel.used()[0], service.count, time.monotonic()
    await asyncio.sleep(SECONDS)
    while service.count == moved:  # noqa: ASYNC110  # a slow one, on a busy machine
        await asyncio.sleep(0.05)
    moved, seconds = service.count - moved, time.monotonic() - began
    used = tunnel.used()[0] - before
    if count > 1 and not times:
        await answered.wait()
    over.set()
    await asyncio.gather(*tasks)
    found = {
        f"s of processor time per GiB, {count} connections": used / moved * 2**30,
        f"MiB/s, {count} connections": moved / seconds / 2**20,
    }
    if times:
        found["ms, p99 of 64 B beside 8 bulk connections"] = (
            sorted(times)[len(times) * 99 // 100] * 1e3
        )
    return found


async def idle(tunnel: Tunnel, service: Service, count: int) -> dict[str, float]:
    """Hold connections that have echoed once."""
    before = tunnel.used()[1]
    held = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection(LOCAL, tunnel.port)
        writer.write(SMALL)
        await reader.readexactly(len(SMALL))
        held.append(writer)
    grown = [now - then for then, now in zip(before, tunnel.used()[1], strict=True)]
    for writer in held:
        writer.transport.abort()
    each = [size / 1024 / count for size in grown]
    return {"KiB per idle connection, server": each[0], "the same, client": each[1]}


Cell = Callable[[Tunnel, Service, int], Awaitable[dict[str, float]]]
CELLS: tuple[tuple[Cell, int], ...] = (
    (idle, IDLE),
    (connections, 1),
    (connections, 64),
    (connections, 512),
    (bulk, 1),
    (bulk, 8),
)


async def measure(contender: Contender) -> dict[str, float]:
    """Start a tunnel, and measure it once."""
    service = Service()
    found: dict[str, float] = {}
    async with service.running() as port:
        with tempfile.TemporaryDirectory(prefix="mux") as folder, contextlib.ExitStack() as stack:
            entering = contender.run(port, Path(folder))
            tunnel = await asyncio.to_thread(stack.enter_context, entering)
            for cell, count in CELLS:
                found |= await cell(tunnel, service, count)
    return found


def main() -> None:
    """Measure all tunnels in turn, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", help="the Python that has the compiled muxado")
    parser.add_argument("--only", default="", help="names of tunnels, with ; between")
    options = parser.parse_args()
    rounds: int = options.rounds
    only = [each.strip() for each in options.only.split(";") if each]
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    found: dict[str, list[dict[str, float]]] = {}
    contenders = []
    for contender in find_contenders(options.python):
        if contender.missing:
            print(f"{contender.name} is left out: {contender.missing}")
        elif not only or contender.name in only:
            contenders.append(contender)
            found[contender.name] = []
    began, load = time.monotonic(), os.getloadavg()[0]
    for _ in range(rounds):
        for contender in contenders:
            found[contender.name].append(asyncio.run(measure(contender)))
    minutes = (time.monotonic() - began) / 60
    print(f"load before: {load:.1f}, after: {os.getloadavg()[0]:.1f}; {minutes:.1f} minutes\n")
    print(f"| median of {rounds} rounds | {' | '.join(found)} |")
    print(f"| --- |{' --- |' * len(found)}")
    for what in next(iter(found.values()))[0]:
        medians = [median(each[what] for each in results) for results in found.values()]
        row = [f"{value:.4g} ({value / medians[0]:.2f})" for value in medians]
        print(f"| {what} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
