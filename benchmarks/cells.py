"""The cells: every piece of work that is measured, and the contenders that do it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from .peers.common import Work


class Who(StrEnum):
    """Which contenders a cell is for."""

    MAIN = "ours, Go and the bare connection"
    HEADLINE = "all, the slow ones too"
    TLS = "ours and Go muxado v2, over TLS"
    MEMORY = "ours and Go"
    BEST = "our fastest build"
    LINK = "our fastest build and Go muxado v2, each way; and the bare connection"
    TUNNEL = "ours and a small Go tunnel on yamux"
    QUICK = "our fastest build and the pure one on asyncio, Go muxado v2, the bare connection"
    QUICK_LINK = "our fastest build receives; the bare connection"


@dataclass(frozen=True)
class Metric:
    """A figure that a client reports.

    Attributes:
        key: its name in the client's JSON.
        unit: what the table calls it.
        higher_is_better: the direction of progress.
    """

    key: str
    unit: str
    higher_is_better: bool


RATE = Metric("rate", "requests/s", True)
BULK = Metric("mib_s", "MiB/s", True)
P99 = Metric("p99_us", "µs p99", False)
MEMORY = Metric("kib_per_stream", "KiB/stream", False)
GROWTH = Metric("growth_mib", "MiB growth", False)
OPENED = Metric("open_rate", "streams/s", True)
CONNECTION_TIME = Metric("cpu_us", "µs of processor time a connection", False)
BULK_TIME = Metric("cpu_gib", "s of processor time a GiB", False)
CONNECTION_MEMORY = Metric("kib_per_connection", "KiB/connection", False)


@dataclass(frozen=True)
class Cell:
    """One cell of the table.

    Attributes:
        name: what `--only` matches.
        title: what it is, in words.
        work: what the peers are told.
        who: the contenders.
        quoted: whether its figures are quoted, and so take the full number of rounds.
        rounds: a fixed number of rounds instead, 0 for none.
        link_ms: the emulated link's round trip in milliseconds, 0 for plain loopback.
        tls: whether it runs over TLS.
        quick: whether the quick mode has it.
        limit: seconds after which a run has failed.
        metric: the main figure.
        fronts: whether the front ends for threads and trio take part.
        wires: whether our other wires and the WebSocket take part.
    """

    name: str
    title: str
    work: Work
    who: Who = Who.MAIN
    quoted: bool = False
    rounds: int = 0
    link_ms: int = 0
    tls: bool = False
    quick: bool = False
    limit: int = 30
    metric: Metric = RATE
    fronts: bool = False
    wires: bool = False

    @property
    def is_tunnel(self) -> bool:
        """Whether a tunnel is measured, with a load from outside."""
        return self.who is Who.TUNNEL

    def peer_work(self) -> dict[str, object]:
        """Return what the peers are told, as JSON-able data."""
        return asdict(self.work)


LINK_RATE_MBIT = 400
LINK_RATE_MIB_S = LINK_RATE_MBIT * 1e6 / 8 / 2**20


def _requests(count: int, payload: int, **kwds: object) -> Cell:
    size = f"{payload} B" if payload < 1024 else f"{payload // 1024} KiB"
    suffix = "" if payload == 64 else f"-{size.replace(' ', '').replace('iB', '').lower()}"
    cell = Cell(
        f"requests-{count}{suffix}",
        f"{size} requests, {count:,} at once",
        Work("requests", concurrency=count, payload=payload, seconds=0.6),
    )
    return replace(cell, **kwds)  # type: ignore[arg-type]


def _bulk(streams: int, direction: str, **kwds: object) -> Cell:
    ways = {"up": "client to server", "down": "server to client", "both": "both ways"}
    cell = Cell(
        f"bulk-{streams}-{direction}",
        f"bulk, {streams} stream{'s' * (streams > 1)}, {ways[direction]}",
        Work("bulk", concurrency=streams, direction=direction, seconds=0.6),
        metric=BULK,
    )
    return replace(cell, **kwds)  # type: ignore[arg-type]


def _ping(name: str, title: str, streams: int, direction: str, **kwds: object) -> Cell:
    work = Work("ping", concurrency=streams, direction=direction, seconds=1.2, warmup=0.3)
    cell = Cell(name, title, work, metric=P99)
    return replace(cell, **kwds)  # type: ignore[arg-type]


def _tls(cell: Cell) -> Cell:
    return replace(
        cell,
        name=f"tls-{cell.name}",
        title=f"TLS: {cell.title}",
        who=Who.TLS,
        tls=True,
        quoted=True,
        quick=False,
        wires=False,
    )


def _link(ms: int, **kwds: object) -> Cell:
    cell = Cell(
        f"link-{ms}",
        f"bulk, 1 stream, {LINK_RATE_MBIT} Mbit/s link with a round trip of {ms} ms, after 3 s",
        Work("bulk", concurrency=1, seconds=2.0, warmup=3.0),
        who=Who.LINK,
        rounds=3,
        link_ms=ms,
        metric=BULK,
    )
    return replace(cell, **kwds)  # type: ignore[arg-type]


def _idle(name: str, title: str, streams: int, handler: bool, **kwds: object) -> Cell:
    work = Work("idle", streams=streams, handler=handler)
    cell = Cell(name, title, work, who=Who.MEMORY, rounds=3, metric=MEMORY, limit=60)
    return replace(cell, **kwds)  # type: ignore[arg-type]


def _tunnel(name: str, title: str, work: Work, metric: Metric) -> Cell:
    title = f"reverse tunnel over TLS: {title}"
    limit = 60 if work.streams else 30
    rounds = 3 if work.streams else 0
    return Cell(
        f"tunnel-{name}",
        title,
        work,
        Who.TUNNEL,
        True,
        rounds,
        tls=True,
        limit=limit,
        metric=metric,
    )


def tunnel_cells() -> list[Cell]:
    """Return the cells of a tunnel, whose two ends pass on what users and a service say."""
    times = {"seconds": 1.0, "warmup": 0.3}
    connections = [
        _tunnel(
            f"connections-{count}",
            f"a connection with 64 B each way, {count} at once",
            Work("tunnel-connections", concurrency=count, **times),
            CONNECTION_TIME,
        )
        for count in (1, 64, 512)
    ]
    bulk = [
        _tunnel(
            f"bulk-{count}",
            f"bulk to the service, {count} connection{'s' * (count > 1)}",
            Work("tunnel-bulk", concurrency=count, **times),
            BULK_TIME,
        )
        for count in (1, 8)
    ]
    ping = replace(
        bulk[1],
        name="tunnel-ping",
        title="reverse tunnel over TLS: 64 B there and back beside 8 bulk connections",
        metric=P99,
    )
    idle = _tunnel(
        "idle",
        "memory of an idle connection, at the end that takes more",
        Work("tunnel-idle", streams=2000),
        CONNECTION_MEMORY,
    )
    return [*connections, *bulk, ping, idle]


def all_cells() -> list[Cell]:
    """Return every cell of the full run, in its order."""
    headline = {"who": Who.HEADLINE, "quoted": True, "quick": True}
    requests = [
        _requests(1, 64, quoted=True, quick=True, fronts=True, wires=True),
        _requests(64, 64, **headline, fronts=True, wires=True),
        _requests(512, 64, **headline, fronts=True),
        _requests(4096, 64),
        _requests(64, 1024),
        _requests(512, 1024),
        _requests(64, 64 * 1024),
    ]
    bulk = [
        _bulk(1, "up", **headline, fronts=True, wires=True),
        _bulk(8, "up", quoted=True, quick=True, fronts=True),
        _bulk(64, "up"),
        _bulk(1, "down", fronts=True),
        _bulk(8, "down", fronts=True),
        _bulk(64, "down"),
        _bulk(1, "both"),
        _bulk(8, "both"),
        _bulk(64, "both"),
    ]
    return [
        *requests,
        *bulk,
        _ping("ping-idle", "64 B ping on an idle session", 0, "up", quoted=True, quick=True),
        _ping(
            "ping-bulk-up",
            "64 B ping beside 8 bulk streams, client to server",
            8,
            "up",
            quoted=True,
            quick=True,
        ),
        _ping("ping-bulk-down", "64 B ping beside 8 bulk streams, server to client", 8, "down"),
        *(_tls(cell) for cell in (requests[1], requests[2], bulk[0], bulk[1], bulk[4])),
        *tunnel_cells(),
        _link(20, rounds=2),
        _link(100, quick=True),
        _link(200, rounds=2),
        _idle("memory-handler", "an idle accepted stream, with a handler", 10_000, True),
        _idle("memory-bare", "an idle accepted stream, without a handler", 10_000, False),
        _idle(
            "open-100k",
            "100,000 streams open at once on one session, each with a handler",
            100_000,
            True,
            who=Who.BEST,
            rounds=1,
            limit=180,
            metric=OPENED,
        ),
        _idle(
            "open-1m",
            "1,000,000 streams open at once on one session",
            1_000_000,
            False,
            who=Who.BEST,
            rounds=1,
            limit=400,
            metric=OPENED,
        ),
        Cell(
            "short-1m",
            "a million short streams on one session: growth after the first 10,000",
            Work("short", concurrency=64, streams=1_000_000),
            who=Who.BEST,
            rounds=1,
            limit=300,
            metric=GROWTH,
        ),
    ]


def quick_cells() -> list[Cell]:
    """Return the cells of the quick mode, shortened."""
    cells = []
    for cell in all_cells():
        if not cell.quick:
            continue
        if cell.link_ms:
            work = replace(cell.work, seconds=0.8)
            cells.append(replace(cell, work=work, who=Who.QUICK_LINK, rounds=1))
        else:
            work = replace(cell.work, seconds=0.3, warmup=0.12)
            cells.append(replace(cell, work=work, who=Who.QUICK))
    return cells
