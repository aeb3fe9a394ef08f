"""Draws how the receive window follows a link that changes under it.

    python -m benchmarks.credit               # draws docs/benchmarks/credit.svg

One bulk stream goes through `relay.py`, whose link becomes slower and then longer. This process
receives, and notes ten times a second what comes, the round trips, and the credit they lead to.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import muxado

from .machine import describe_machine
from .peers.common import HOST, Work
from .peers.work import StreamServer
from .processes import Child, child

MIB = 2**20
INTERVAL = 0.1


@dataclass(frozen=True)
class Phase:
    """What the link is for a while.

    Attributes:
        seconds: how long.
        round_trip_ms: its round trip.
        rate_mbit: its rate.
    """

    seconds: float
    round_trip_ms: float
    rate_mbit: float


PHASES = (Phase(10, 50, 400), Phase(12, 50, 100), Phase(28, 150, 400))


@dataclass(frozen=True)
class Sample:
    """What was so at one time.

    Attributes:
        at: seconds since the start.
        rate: MiB/s that came since the last sample.
        round_trip: the last one measured, in milliseconds.
        shortest: the shortest of the last seconds, in milliseconds.
        target: the credit that is aimed at, in MiB.
    """

    at: float
    rate: float
    round_trip: float
    shortest: float
    target: float


async def follow(session: muxado.Session, seconds: float) -> list[Sample]:
    """Take samples of a receiving session."""
    core = session._core
    loop = asyncio.get_running_loop()
    start = loop.time()
    samples: list[Sample] = []
    received = session.stats().bytes_received
    last = start
    while last - start < seconds:
        await asyncio.sleep(INTERVAL)
        now = loop.time()
        stats = session.stats()
        samples.append(
            Sample(
                now - start,
                (stats.bytes_received - received) / (now - last) / MIB,
                1000 * stats.rtt,
                1000 * stats.min_rtt,
                core.credit.target / MIB,
            )
        )
        received, last = stats.bytes_received, now
    return samples


async def change(relay: Child) -> None:
    """Have the link go through its phases."""
    for phase in PHASES:
        relay.say(f"{phase.round_trip_ms} {phase.rate_mbit}")
        await asyncio.sleep(phase.seconds)


async def measure() -> list[Sample]:
    """Run it all; return the samples."""
    seconds = sum(phase.seconds for phase in PHASES)
    sink = StreamServer()
    arrived: asyncio.Queue[muxado.Session] = asyncio.Queue()

    async def handle(session: muxado.Session) -> None:
        arrived.put_nowait(session)
        await session.serve(sink.handle)

    first = PHASES[0]
    relay_command = [sys.executable, "-m", "benchmarks.relay"]
    relay_command += ["--round-trip-ms", str(first.round_trip_ms)]
    relay_command += ["--rate-mbit", str(first.rate_mbit), "--limit", str(int(seconds) + 30)]
    work = Work("bulk", direction="up", seconds=seconds + 5)
    client_command = [sys.executable, "-m", "benchmarks.peers.ours", "--role", "client"]
    client_command += ["--cell", json.dumps(asdict(work)), "--limit", str(int(seconds) + 30)]
    async with muxado.serve(handle, HOST, 0) as server:
        port = server.addresses[0][1]
        with (
            child([*relay_command, "--target", str(port)]) as relay,
            child(client_command) as client,
        ):
            ready = await asyncio.to_thread(relay.read_json, 10)
            client.say(str(ready["port"]))
            session = await arrived.get()
            changing = asyncio.create_task(change(relay))
            samples = await follow(session, seconds)
            await changing
            session.abort()
    return samples


def draw(samples: list[Sample], path: Path, caption: str) -> None:
    """Draw the three curves, one above the other."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "muxado"
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    figure, (rate, round_trip, window) = pyplot.subplots(3, 1, sharex=True, figsize=(8, 6.4))
    times = [sample.at for sample in samples]
    rate.plot(times, [sample.rate for sample in samples], color="#1f6feb")
    rate.set_ylabel("received, MiB/s")
    round_trip.plot(times, [sample.round_trip for sample in samples], color="#d29922", label="last")
    round_trip.plot(
        times, [sample.shortest for sample in samples], color="#1f6feb", label="shortest"
    )
    round_trip.set_ylabel("round trip, ms")
    round_trip.legend(frameon=False)
    window.plot(times, [sample.target for sample in samples], color="#1f6feb")
    window.set_ylabel("window, MiB")
    window.set_xlabel("seconds")
    begun = 0.0
    for phase in PHASES:
        for axes in (rate, round_trip, window):
            axes.axvline(begun, color="#c9d1d9", linewidth=1)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_ylim(bottom=0)
        rate.text(
            begun + 0.3,
            rate.get_ylim()[1],
            f"{phase.rate_mbit:.0f} Mbit/s, {phase.round_trip_ms:.0f} ms",
            fontsize=8,
            va="bottom",
        )
        begun += phase.seconds
    figure.text(0.01, 0.005, caption, fontsize=6, color="#57606a")
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    default = Path(__file__).parents[1] / "docs" / "benchmarks" / "credit.svg"
    parser.add_argument("--out", type=Path, default=default, help="the file to draw")
    args = parser.parse_args()
    machine = describe_machine()
    caption = f"{machine['processor']}, {machine['cores']} cores, {machine['system']}"
    samples = asyncio.run(measure())
    draw(samples, args.out, caption)
    print(f"{len(samples)} samples: {args.out}")


if __name__ == "__main__":
    main()
