"""What every Python contender shares: its command line, its clocks and its figures."""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import resource
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

HOST = "127.0.0.1"
BACKLOG = 65536
LOOPS = ["asyncio", "uvloop", "trio", "threads"]
Result = dict[str, Any]


class WrongDataError(Exception):
    """Bytes were lost or altered: the figure would be worthless."""


@dataclass(frozen=True)
class Work:
    """One piece of work, as the driver describes it in JSON.

    Attributes:
        work: requests, bulk, ping, idle or short.
        concurrency: requests at once, or bulk streams.
        payload: bytes of a request.
        direction: of bulk, seen from the client: up, down or both.
        seconds: the measured time.
        warmup: seconds before it.
        streams: idle streams to open, or short ones to run in all.
        handler: whether each accepted stream has a handler that waits for data.
    """

    work: str = "requests"
    concurrency: int = 1
    payload: int = 64
    direction: str = "up"
    seconds: float = 1.0
    warmup: float = 0.2
    streams: int = 0
    handler: bool = True


@dataclass(frozen=True)
class Options:
    """A peer process's command line."""

    role: str
    work: Work
    loop: str
    wire: str
    websocket: bool
    tls_dir: Path | None


def run_peer(
    packages: list[str],
    serve: Callable[[Options], None],
    drive: Callable[[Options], Result],
    about: Callable[[], dict[str, str]] = dict,
) -> None:
    """Be a server or a client, as the command line says.

    Args:
        packages: the distributions whose versions to tell.
        serve: runs a server until the process is ended.
        drive: runs one cell as a client, and returns its figures.
        about: what else there is to tell.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--role", choices=["server", "client"], default="server")
    parser.add_argument("--cell", default="{}")
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    parser.add_argument("--wire", default="muxado-v2")
    parser.add_argument("--websocket", action="store_true")
    parser.add_argument("--tls-dir", type=Path)
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--about", action="store_true")
    args = parser.parse_args()
    if args.about:
        versions = {name: importlib.metadata.version(name) for name in packages}
        if args.loop == "uvloop":
            versions["uvloop"] = importlib.metadata.version("uvloop")
        print(json.dumps({"python": platform.python_version()} | versions | about()))
        return
    signal.alarm(args.limit)  # ends the process, whatever happens
    work = Work(**json.loads(args.cell))
    options = Options(args.role, work, args.loop, args.wire, args.websocket, args.tls_dir)
    if args.role == "server":
        threading.Thread(target=_end_with_stdin, daemon=True).start()
        serve(options)
        return
    try:
        result = drive(options)
    except WrongDataError as exc:
        sys.exit(f"wrong data: {exc}")
    print(json.dumps(result), flush=True)
    os._exit(0)  # the figures are out: no one waits for an orderly end


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def announce_port(port: int) -> None:
    """Tell the driver where the server listens."""
    print(json.dumps({"port": port}), flush=True)


def read_port() -> int:
    """Return the port that the driver tells the client."""
    return int(sys.stdin.readline())


def server_context(options: Options) -> ssl.SSLContext | None:
    """Return the TLS context to listen with, if the cell asks for TLS."""
    if options.tls_dir is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.tls_dir / "server.pem")
    return context


def client_context(options: Options) -> ssl.SSLContext | None:
    """Return the TLS context to dial with, if the cell asks for TLS."""
    if options.tls_dir is None:
        return None
    return ssl.create_default_context(cafile=str(options.tls_dir / "authority.pem"))


class Clock:
    """The measured time of one run, on the clock that all processes share."""

    def __init__(self, work: Work) -> None:
        now = time.time_ns()
        self.start = now + int(work.warmup * 1e9)
        self.end = self.start + int(work.seconds * 1e9)
        # The same on the finer clock of this process.
        offset = time.perf_counter() - now / 1e9
        self.fine_start = self.start / 1e9 + offset
        self.fine_end = self.end / 1e9 + offset

    def over(self) -> bool:
        """Return whether the measured time has ended."""
        return time.time_ns() >= self.end


def latencies_result(latencies: list[float]) -> Result:
    """Return the count and percentiles of latencies in seconds."""
    ordered = sorted(latencies)
    count = len(ordered)

    def at(percent: int) -> float:
        return 1e6 * ordered[min(count - 1, count * percent // 100)] if count else 0.0

    return {"count": count, "p50_us": at(50), "p99_us": at(99)}


def resident() -> int:
    """Return this process's resident memory in bytes, after collecting garbage."""
    gc.collect()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        import psutil

        size: int = psutil.Process().memory_info().rss
        return size
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds() -> float:
    """Return the processor time that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Mark(TypedDict):
    """A process's processor time at a moment, both in seconds."""

    cpu: float
    now: float


def mark() -> Mark:
    """Return this process's mark at this moment."""
    return {"cpu": cpu_seconds(), "now": time.time()}


def load_between(before: Mark, after: Mark) -> float:
    """Return how much of one core a process used between two marks."""
    return (after["cpu"] - before["cpu"]) / (after["now"] - before["now"])


class Counters:
    """What a server has seen; a REPORT stream returns it."""

    def __init__(self) -> None:
        self.received = 0
        self.window = 0
        self.wrong = 0
        self.sent = 0

    def report(self) -> bytes:
        """Return the counters, the resident memory and the processor time as JSON."""
        return json.dumps(vars(self) | {"rss": resident(), "cpu": cpu_seconds()}).encode()


def bulk_result(work: Work, received: int, window: int, sent: int, report: Result) -> Result:
    """Return what bulk streams have moved, seen from both ends.

    Raises:
        WrongDataError: something was lost or altered.
    """
    if report["wrong"]:
        raise WrongDataError(f"{report['wrong']} chunks at the server")
    if sent != report["received"] or report["sent"] != received:
        raise WrongDataError(
            f"{report['received']} of {sent} bytes came up, {received} of {report['sent']} down"
        )
    return {
        "mib_s": (window + report["window"]) / work.seconds / 2**20,
        "server_cpu": report["cpu"],
        "client_cpu": cpu_seconds(),
    }
