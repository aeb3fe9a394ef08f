"""Processor time by the build of another commit: `python -m benchmarks --against REV`.

The clock of a shared machine can't tell whether a change made things 5 % slower. Processor time of
two builds can, if they take turns: both are compiled alike, each run is a new process that holds
both ends of a session on uvloop, and what counts is the median of the ratios of the pairs. Threads
and trio are measured by cells of the suite, with a process for each end.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from .cells import Cell, all_cells
from .contenders import ROOT, Contender, Peer
from .processes import make_certificate, run_once

PAIRS = 9
AT_ONCE = 64
PAYLOAD = bytes(64)
BLOCK = bytes(64 * 1024)


async def requests(client: object, count: int) -> None:
    """Do requests, many at once."""

    async def request() -> None:
        stream = client.open()  # type: ignore[attr-defined]
        await stream.write(PAYLOAD)
        await stream.readexactly(len(PAYLOAD))
        stream.close()

    for _ in range(count // AT_ONCE):
        await asyncio.gather(*[request() for _ in range(AT_ONCE)])


async def bulk(client: object, count: int) -> None:
    """Send blocks on one stream, and wait until all have been read."""
    stream = client.open()  # type: ignore[attr-defined]
    for _ in range(count):
        await stream.write(BLOCK)
    stream.write_eof()
    assert await stream.read() == b""
    stream.close()


async def ping(client: object, count: int) -> None:
    """Send small messages on one stream, each after the answer to the one before."""
    stream = client.open()  # type: ignore[attr-defined]
    for _ in range(count):
        await stream.write(PAYLOAD)
        await stream.readexactly(len(PAYLOAD))
    stream.close()


# The work, how much of it is measured, and how much of it comes before.
WORKS: dict[str, tuple[Callable[[object, int], Awaitable[None]], int, int]] = {
    "requests": (requests, 25600, 2560),
    "bulk": (bulk, 12800, 1600),
    "ping": (ping, 10000, 1000),
}


def processor_time(name: str) -> float:
    """Do a kind of work in this process and return the processor time in seconds."""
    import uvloop

    from muxado import testing

    work, count, before = WORKS[name]

    async def answer(stream: object) -> None:
        while data := await stream.read(256 * 1024):  # type: ignore[attr-defined]
            if len(data) <= len(PAYLOAD):  # bulk is only read
                await stream.write(data)  # type: ignore[attr-defined]

    async def main() -> float:
        async with testing.asyncio_pair() as (client, server):
            serving = asyncio.create_task(server.serve(answer))
            await work(client, before)
            began = time.process_time()
            await work(client, count)
            spent = time.process_time() - began
            client.close()
            await serving
        return spent

    return uvloop.run(main())  # type: ignore[no-any-return]


def build(revision: str) -> Path:
    """Build a commit with its core compiled, once, and return the interpreter that has it."""
    commit = _output("git", "rev-parse", "--verify", f"{revision}^{{commit}}")
    folder = ROOT / f".venv-against-{commit[:12]}"
    python = folder / "bin" / "python"
    done = folder / "installed"
    if done.exists():
        return python
    print(f"building {revision} ({commit[:12]}) ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="muxado-against-") as sources:
        archive = subprocess.run(
            ["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE
        )
        subprocess.run(["tar", "-x", "-C", sources], input=archive.stdout, check=True)
        # What mypy would have said of its types, then and with these libraries, is no matter.
        Path(sources, "mypy.ini").write_text("[mypy]\nignore_missing_imports = True\n")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", f"{sources}[trio,uvloop]"],
            check=True,
            env={**os.environ, "HATCH_BUILD_HOOK_ENABLE_MYPYC": "1"},
        )
    done.touch()
    return python


def compare(
    revision: str, compiled_python: str, only: str | None = None, pairs: int | None = None
) -> None:
    """Print the processor time of the compiled build by that of another commit's.

    Args:
        revision: the other commit, as git names it.
        compiled_python: the interpreter with the build of the work tree.
        only: a regular expression of the names of what is measured; None: all.
        pairs: how many pairs of runs there are of each, two at least; None: 9.
    """
    before, now = str(build(revision)), compiled_python
    count = pairs or PAIRS
    print(f"processor time by {revision}'s, {count} pairs in turn: median (inner half)")

    def report(name: str, ratio: Callable[[bool], float]) -> None:
        if only is None or re.fullmatch(only, name):
            ratios = [ratio(number % 2 == 1) for number in range(count)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"{name:24} {middle:.3f} ({low:.3f} to {high:.3f})", flush=True)

    for name in WORKS:
        report(name, partial(_ratio, name, (before, now)))
    with tempfile.TemporaryDirectory(prefix="muxado-against-") as folder:
        secured = not make_certificate(Path(folder))
        for cell in all_cells():
            if cell.fronts and cell.work.concurrency <= 64 and (secured or not cell.tls):
                for front in ("threads", "trio"):
                    ratio = partial(_front_ratio, cell, front, (before, now), Path(folder))
                    report(f"{front} {cell.name}", ratio)


def _ratio(name: str, builds: tuple[str, str], in_order: bool) -> float:
    """Return the processor time of the second build by the first one's, in a kind of work."""
    spent = {
        python: float(_output(python, "-m", "benchmarks.against", name))
        for python in (builds if in_order else reversed(builds))
    }
    before, now = builds
    return spent[now] / spent[before]


def _front_ratio(
    cell: Cell, front: str, builds: tuple[str, str], tls_dir: Path, in_order: bool
) -> float:
    """Return the processor time of the second build by the first one's, in a cell."""
    key = "cpu_us" if cell.work.work == "requests" else "cpu_gib"
    spent = {}
    for python in builds if in_order else reversed(builds):
        command = (python, "-m", "benchmarks.peers.ours", "--loop", front)
        peer = Peer(front, front, "fronts", command)
        spent[python] = run_once(cell, Contender(front, front, "fronts", peer, peer), tls_dir)[key]
    before, now = builds
    ratio: float = spent[now] / spent[before]
    return ratio


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    print(processor_time(sys.argv[1]))
