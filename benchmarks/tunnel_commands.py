"""The tunnel's commands, beside `ssh -R`: what a connection through them costs.

    python -m benchmarks.tunnel_commands --rounds 5

How it works. This process is the users and the service; the tunnel stands between, each end a
process of its own. What is counted is what both ends use, with their children, as /proc has it. The
tunnels take turns, and the median of the rounds is shown. A program that is not installed is named.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

LOCAL = "127.0.0.1"
SECONDS = 1.5
IDLE = 500  # connections
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SMALL = b"x" * 64
PIECE = b"s" + bytes(256 * 1024 - 1)


@dataclass(frozen=True)
class Tunnel:
    """A running tunnel.

    Attributes:
        port: where the service is reached through it.
        ends: the processes of its two ends.
    """

    port: int
    ends: tuple[int, int]

    def used(self) -> tuple[float, list[int]]:
        """Return the processor time of both ends in seconds, and the memory of each in bytes."""
        time_used, memory = 0.0, []
        for root in self.ends:
            resident = 0
            for number in family(root):
                with contextlib.suppress(OSError):  # it has just ended
                    folder = Path(f"/proc/{number}")
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    time_used += (int(fields[11]) + int(fields[12])) / TICK
                    resident += int((folder / "statm").read_text().split()[1]) * PAGE
            memory.append(resident)
        return time_used, memory


def family(root: int) -> list[int]:
    """Return a process and its descendants."""
    found = [root]
    for number in found:
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{number}/task/{number}/children").read_text()
            found += map(int, children.split())
    return found


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind((LOCAL, 0))
        return int(sock.getsockname()[1])


@contextmanager
def started(*command: str, said: str = "", wanted: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run a program while the block runs, from when it has printed what is wanted."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(said)
        process.stdin.flush()
        while wanted and wanted not in (line := process.stdout.readline()):
            if not line:
                raise RuntimeError(f"{command[0]} has ended")
        yield process
    finally:
        process.terminate()
        process.communicate()


def until_open(port: int) -> None:
    """Wait until something listens on a port."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((LOCAL, port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@contextmanager
def ours(python: str, service: int, folder: Path) -> Iterator[Tunnel]:
    """Run `muxado server` and `muxado expose`."""
    muxado = (python, "-m", "muxado")
    port, public, state = free_port(), free_port(), ("--state", str(folder / "server"))
    serve = (*muxado, "server", "--listen", f"{LOCAL}:{port}", *state)
    with started(*serve, wanted="listening on") as server:
        invite = (*muxado, "invite", "bench", "--allow", f"expose:{public}", *state)
        invitation = subprocess.run(invite, capture_output=True, text=True, check=True).stdout
        expose = (*muxado, "expose", str(service), "--to", "-", "--state", str(folder / "client"))
        with started(*expose, said=invitation, wanted="tcp ") as client:
            yield Tunnel(public, (server.pid, client.pid))


@contextmanager
def openssh(python: str, service: int, folder: Path) -> Iterator[Tunnel]:
    """Run an SSH server, and `ssh -R`; no Python is needed."""
    for name in ("host", "user"):
        path = str(folder / name)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    if os.getuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # it insists on it
    port, public = free_port(), free_port()
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress {LOCAL}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nMaxSessions 1000\n"
    )
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert sshd is not None
    with started(sshd, "-D", "-f", str(config)) as server:
        until_open(port)
        options = (*("-F", "none", "-N", "-p", str(port), "-i", str(folder / "user")),)
        trust = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
        forward = ("-R", f"{LOCAL}:{public}:{LOCAL}:{service}")
        with started("ssh", *options, *trust, *forward, LOCAL) as client:
            until_open(public)
            yield Tunnel(public, (server.pid, client.pid))


Run = Callable[[str, int, Path], contextlib.AbstractContextManager[Tunnel]]
TUNNELS: dict[str, tuple[Run, tuple[str, ...]]] = {
    "muxado": (ours, ()),
    "OpenSSH -R": (openssh, ("ssh", "sshd", "ssh-keygen")),
}


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
    over = asyncio.Event()
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
            await asyncio.sleep(0.002)
        writer.close()

    tasks = [asyncio.create_task(send()) for _ in range(count)]
    if count > 1:
        tasks.append(asyncio.create_task(ping()))
    await asyncio.sleep(0.3)
    before, moved, began = tunnel.used()[0], service.count, time.monotonic()
    await asyncio.sleep(SECONDS)
    moved, seconds = service.count - moved, time.monotonic() - began
    used = tunnel.used()[0] - before
    over.set()
    await asyncio.gather(*tasks)
    found = {
        f"s of processor time per GiB, {count} connections": used / moved * 2**30,
        f"MiB/s, {count} connections": moved / seconds / 2**20,
    }
    if times:
        found["ms, p99 of 64 B beside 8 bulk connections"] = quantiles(times, n=100)[98] * 1e3
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
    return {"KiB per idle connection, at the end that takes more": max(grown) / 1024 / count}


Cell = Callable[[Tunnel, Service, int], Awaitable[dict[str, float]]]
CELLS: tuple[tuple[Cell, int], ...] = (
    (idle, IDLE),
    (connections, 1),
    (connections, 64),
    (bulk, 1),
    (bulk, 8),
)


async def measure(run: Run, python: str) -> dict[str, float]:
    """Start a tunnel, and measure it once."""
    service = Service()
    found: dict[str, float] = {}
    async with service.running() as port:
        with tempfile.TemporaryDirectory(prefix="mux") as folder, contextlib.ExitStack() as stack:
            entering = run(python, port, Path(folder))
            tunnel = await asyncio.to_thread(stack.enter_context, entering)
            for cell, count in CELLS:
                found |= await cell(tunnel, service, count)
    return found


def main() -> None:
    """Measure all tunnels in turn, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", default=sys.executable, help="the Python that runs muxado")
    options = parser.parse_args()
    rounds: int = options.rounds
    path = f"{os.environ['PATH']}:/usr/sbin"
    found: dict[str, list[dict[str, float]]] = {}
    for name, (_, programs) in TUNNELS.items():
        missing = [each for each in programs if shutil.which(each, path=path) is None]
        if missing:
            print(f"{name} is left out: {', '.join(missing)} is not installed")
        else:
            found[name] = []
    for _ in range(rounds):
        for name, results in found.items():
            results.append(asyncio.run(measure(TUNNELS[name][0], options.python)))
    print(f"| median of {rounds} rounds | {' | '.join(found)} |")
    print(f"| --- |{' --- |' * len(found)}")
    for what in next(iter(found.values()))[0]:
        row = [f"{median(each[what] for each in results):.4g}" for results in found.values()]
        print(f"| {what} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
