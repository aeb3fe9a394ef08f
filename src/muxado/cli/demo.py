"""`muxado demo`: the main job on real sockets, measured beside a connection per request."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

import muxado

from .demo_protocol import CALLBACKS, CONFIG, DOWNLOAD, ECHO, PATTERN, REQUEST_SIZE
from .loop import loop_name, run_in_best_loop

# Both ways of making requests are compared with so many under way.
COMPARED = 64
START_TIMEOUT = 15.0

# What ends the demo without any of it being wrong.
FAILURES = (OSError, EOFError, muxado.MuxadoError)


class DemoError(Exception):
    """The demo can't run; the text says why and what to do."""


@dataclass
class Tally:
    """What happened so far in one part of the demo."""

    title: str
    seconds: float
    started: float = field(default_factory=monotonic)
    latencies: list[float] = field(default_factory=list)
    wrong: int = 0
    transferred: int = 0
    callbacks: int = 0
    round_trips: list[float] = field(default_factory=list)
    elapsed: float = 0.0

    def over(self) -> bool:
        """Return whether the part's time is up."""
        return monotonic() - self.started >= self.seconds

    def finish(self) -> None:
        """Stop the clock."""
        self.elapsed = monotonic() - self.started

    def percentile(self, percent: float) -> float:
        """Return a latency percentile in milliseconds."""
        ordered = sorted(self.latencies)
        if not ordered:
            return 0.0
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    def rate(self) -> float:
        """Return requests per second."""
        return len(self.latencies) / (self.elapsed or monotonic() - self.started)

    def describe(self) -> str:
        """Return the live figures in one line."""
        seconds = monotonic() - self.started
        parts = [f"{len(self.latencies):,} requests ({len(self.latencies) / seconds:,.0f}/s)"]
        if self.transferred:
            parts.append(f"transfer {self.transferred / seconds / 2**20:,.0f} MiB/s")
        if self.callbacks:
            parts.append(f"{self.callbacks:,} streams from the server")
        if self.round_trips:
            parts.append(f"round trip {1000 * self.round_trips[-1]:.2f} ms")
        if self.wrong:
            parts.append(f"{self.wrong} WRONG")
        return ", ".join(parts)


def run(seconds: float, concurrency: int, port: int) -> bool:
    """Run the demo; return whether every byte was right.

    Raises:
        DemoError: a certificate, a port or the server process can't be had.
    """
    console = Console()
    with tempfile.TemporaryDirectory(prefix="muxado-demo-") as folder:
        certificate, authority = make_certificate(Path(folder))
        server = start_server(certificate, port)
        try:
            ports = read_ports(server)
            console.print(
                f"server: process {server.pid}, TLS on 127.0.0.1:{ports[0]};"
                f" client: process {os.getpid()}; {loop_name()}"
            )
            context = ssl.create_default_context(cafile=str(authority))
            return run_in_best_loop(show(console, ports, context, seconds, concurrency))
        except FAILURES as exc:
            raise DemoError(f"the connection to the server failed: {exc}") from exc
        except ExceptionGroup as group:
            failures, others = group.split(FAILURES)
            if failures is None or others is not None:
                raise
            raise DemoError(f"the connection to the server failed: {first(failures)}") from group
        finally:
            stop_server(server)


def first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first of the errors that a group holds."""
    exc = group.exceptions[0]
    return first(exc) if isinstance(exc, BaseExceptionGroup) else exc


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for loopback; return its file and its authority's."""
    try:
        import trustme
    except ModuleNotFoundError as exc:
        raise DemoError("a certificate needs trustme: pip install 'muxado[cli]'") from exc
    try:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            str(folder / "server.pem")
        )
    except OSError as exc:
        raise DemoError(f"a certificate can't be made: {exc}") from exc
    return folder / "server.pem", folder / "authority.pem"


def start_server(certificate: Path, port: int) -> subprocess.Popen[bytes]:
    """Start the server process."""
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "muxado.cli.demo_server", str(certificate), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def read_ports(server: subprocess.Popen[bytes]) -> list[int]:
    """Return the ports that the server listens on."""
    assert server.stdout is not None
    assert server.stderr is not None
    line = server.stdout.readline()
    if line:
        ports: list[int] = json.loads(line)
        return ports
    reason = server.stderr.read().decode().strip() or f"exit status {server.wait()}"
    raise DemoError(f"the server can't start: {reason.splitlines()[-1]}; try another --port")


def stop_server(server: subprocess.Popen[bytes]) -> None:
    """End the server process, gently if it lets us."""
    assert server.stdin is not None
    server.stdin.close()
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    for pipe in (server.stdout, server.stderr):
        if pipe is not None:
            pipe.close()


async def show(
    console: Console, ports: list[int], context: ssl.SSLContext, seconds: float, concurrency: int
) -> bool:
    """Run the three parts with live progress, and print the table."""
    tallies: list[Tally] = []
    async with asyncio.timeout(START_TIMEOUT + 5 * seconds):
        over_streams = ssl.create_default_context()
        over_streams.load_verify_locations(cadata=context.get_ca_certs(binary_form=True)[0])
        over_streams.set_alpn_protocols(["muxado/2"])
        async with (
            muxado.connect("127.0.0.1", ports[0], ssl=over_streams, config=CONFIG) as session,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(session.serve(answer))
            tally = Tally(f"{concurrency} streams at once, with a transfer", seconds)
            tallies.append(tally)
            await watch(console, tally, mixed(session, tally, concurrency))
            tally = Tally(f"{COMPARED} streams at once", seconds)
            tallies.append(tally)
            await watch(console, tally, requests(session, tally, COMPARED))
            stats = session.stats()
            session.close()
        tally = Tally(f"{COMPARED} connections at once, a new one each", seconds)
        tallies.append(tally)
        await watch(console, tally, connections(ports[1], context, tally))
    console.print(table(tallies))
    console.print(
        f"{stats.streams_opened + stats.streams_accepted:,} streams, {stats.frames_sent:,} frames"
        f" sent and {stats.frames_received:,} received over one connection;"
        f" {stats.memory_held} bytes left unread"
    )
    wrong = sum(tally.wrong for tally in tallies)
    if wrong:
        console.print(f"[red]{wrong} replies had wrong bytes[/red]")
    return wrong == 0


async def watch(console: Console, tally: Tally, work: Awaitable[None]) -> None:
    """Run one part, and show how it goes: a line that moves, or a line a second."""
    task = asyncio.ensure_future(work)
    tally.started = monotonic()
    try:
        if console.is_terminal:
            progress = Progress(
                TextColumn("{task.fields[title]}"), BarColumn(20), TextColumn("{task.description}")
            )
            bar = progress.add_task("", total=tally.seconds, title=tally.title)
            with Live(progress, console=console, refresh_per_second=10):
                while not task.done():
                    await asyncio.wait([task], timeout=0.1)
                    spent = monotonic() - tally.started
                    progress.update(bar, completed=spent, description=tally.describe())
        else:
            while not task.done():
                await asyncio.wait([task], timeout=1.0)
                console.print(f"{tally.title}: {tally.describe()}", soft_wrap=True)
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        tally.finish()


# The three parts


async def mixed(session: muxado.Session, tally: Tally, concurrency: int) -> None:
    """Requests, a large transfer, streams from the server, and pings, all at once."""
    async with asyncio.TaskGroup() as group:
        group.create_task(download(session, tally))
        group.create_task(callbacks(session, tally))
        group.create_task(pings(session, tally))
        group.create_task(requests(session, tally, concurrency))


async def requests(session: muxado.Session, tally: Tally, concurrency: int) -> None:
    """Open a stream per request, `concurrency` of them at once."""

    async def request(question: bytes) -> bytes:
        async with session.open(type=ECHO) as stream:
            await stream.write(question)
            return await stream.readexactly(len(question))

    await repeat(tally, concurrency, request)


async def connections(port: int, context: ssl.SSLContext, tally: Tally) -> None:
    """The same requests, over a connection each."""

    async def request(question: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            writer.write(question)
            return await reader.readexactly(len(question))
        finally:
            writer.close()
            await writer.wait_closed()

    await repeat(tally, COMPARED, request)


async def repeat(
    tally: Tally, concurrency: int, request: Callable[[bytes], Awaitable[bytes]]
) -> None:
    """Make requests until the time is up, and check every reply."""

    async def worker() -> None:
        while not tally.over():
            question = os.urandom(REQUEST_SIZE)
            started = monotonic()
            reply = await request(question)
            tally.latencies.append(monotonic() - started)
            tally.wrong += reply != question

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())


async def download(session: muxado.Session, tally: Tally) -> None:
    """Receive one large transfer, and compare every byte of it."""
    twice = memoryview(PATTERN + PATTERN)
    async with session.open(type=DOWNLOAD) as stream:
        position = 0
        asked_to_stop = False
        while data := await stream.read(1 << 18):
            tally.wrong += twice[position : position + len(data)] != data
            position = (position + len(data)) % len(PATTERN)
            tally.transferred += len(data)
            if tally.over() and not asked_to_stop:
                asked_to_stop = True
                stream.write_eof()


async def callbacks(session: muxado.Session, tally: Tally) -> None:
    """Have the server open streams to us until the time is up."""
    async with session.open(type=CALLBACKS, eager=True) as stream:
        before = session.stats().streams_accepted
        while not tally.over():
            await asyncio.sleep(0.1)
            tally.callbacks = session.stats().streams_accepted - before
        stream.write_eof()
        report = json.loads(await stream.read())
        tally.callbacks = report["good"]
        tally.wrong += report["wrong"]


async def answer(stream: muxado.Stream) -> None:
    """Answer a stream that the server has opened."""
    await stream.write(await stream.read(1024))


async def pings(session: muxado.Session, tally: Tally) -> None:
    """Measure the round trip while everything else goes on."""
    while not tally.over():
        tally.round_trips.append(await session.ping())
        await asyncio.sleep(0.05)


def table(tallies: list[Tally]) -> Table:
    """Return the figures as a table."""
    result = Table(title=f"{REQUEST_SIZE}-byte requests over TLS, every byte checked")
    result.add_column("over")
    for column in ("requests/s", "p50 ms", "p99 ms", "MiB/s", "from server", "ping ms"):
        result.add_column(column, justify="right")
    for tally in tallies:
        ordered = sorted(tally.round_trips)
        result.add_row(
            tally.title,
            f"{tally.rate():,.0f}",
            f"{tally.percentile(50):.2f}",
            f"{tally.percentile(99):.2f}",
            f"{tally.transferred / tally.elapsed / 2**20:,.0f}" if tally.transferred else "",
            f"{tally.callbacks:,}" if tally.callbacks else "",
            f"{1000 * ordered[len(ordered) // 2]:.2f}" if ordered else "",
        )
    return result
