"""The numbers to reach, as data, and what was reached of them.

Floors must hold; aims are the point. Ratios are of medians in one run on one machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from muxado.wire import FORMATS

from .cells import LINK_RATE_MIB_S
from .contenders import TUNNEL_MUX
from .figures import Results

GO = "go-muxado"
Measure = Callable[[Results, str], float | None]


@dataclass(frozen=True)
class Target:
    """One number to reach.

    Attributes:
        work: what is measured.
        unit: of the value: "×" for a ratio, "%" for a share, or a unit.
        floor: what must hold, None if nothing must.
        aim: what we are here for, None if there is nothing beyond the floor.
        at_most: whether less is better.
        measure: takes the results and the name of our build.
        builds: which of our builds it concerns, the fastest of them that ran; "" for the
            fastest at all.
    """

    work: str
    unit: str
    floor: float | None
    aim: float | None
    measure: Measure
    at_most: bool = False
    builds: tuple[str, ...] = ()

    def met(self, value: float, goal: float | None) -> bool | None:
        """Return whether a value reaches a goal, None if there is no goal."""
        if goal is None:
            return None
        return value <= goal if self.at_most else value >= goal


def _over_go(cell: str, key: str | None = None, go: str = GO) -> Measure:
    return lambda results, ours: results.ratio(cell, ours, go, key)


def _over_bare(cell: str) -> Measure:
    def measure(results: Results, ours: str) -> float | None:
        return results.ratio(cell, ours, f"tcp-{ours.rpartition('-')[2]}")

    return measure


def _over_idle(results: Results, ours: str) -> float | None:
    beside = results.value("ping-bulk-up", ours, "p99_us")
    idle = results.value("ping-idle", ours, "p99_us")
    return beside / idle if beside is not None and idle else None


def _wire(wire: str, cell: str, key: str) -> Measure:
    return lambda results, ours: results.ratio(cell, f"ours-wire-{wire}", ours, key)


def _websocket(cell: str, key: str) -> Measure:
    return lambda results, ours: results.ratio(cell, "ours-websocket", ours, key)


def _link(pair: str) -> Measure:
    def measure(results: Results, ours: str) -> float | None:
        rate = results.value("link-100", pair)
        return None if rate is None else 100 * rate / LINK_RATE_MIB_S

    return measure


def _value(cell: str, key: str | None = None) -> Measure:
    return lambda results, ours: results.value(cell, ours, key)


def _growth(results: Results, ours: str) -> float | None:
    """Percent by which the larger of the two processes grew after the first 10,000 streams."""
    shares = []
    for end in ("server", "client"):
        first = results.value("short-1m", ours, f"{end}_first_mib")
        last = results.value("short-1m", ours, f"{end}_rss_mib")
        if first is None or last is None:
            return None
        shares.append(100 * (last - first) / first)
    return max(shares)


def _opened(results: Results, ours: str) -> float | None:
    counts = [results.value(cell, ours, "streams") for cell in ("open-100k", "open-1m")]
    known = [count for count in counts if count is not None]
    return max(known) if known else None


FAST = ("ours-compiled-uvloop",)
PURE = ("ours-pure-asyncio",)
# A stream's memory does not depend on the loop.
COMPILED_OR_NOT = ("ours-compiled-uvloop", "ours-pure-uvloop", "ours-pure-asyncio")


def _speed(builds: tuple[str, ...], bulk_title: str) -> list[Target]:
    cells = (("bulk-1-up", "1 stream", 1.3, 2.0), ("bulk-8-up", "8 streams", 1.6, 2.0))
    out = []
    for cell, title, floor, aim in cells:
        out.append(
            Target(
                f"bulk, {title}, {bulk_title}, by Go muxado v2",
                "×",
                floor,
                aim,
                _over_go(cell),
                builds=builds,
            )
        )
    for cell, title, _, _ in cells:
        out.append(
            Target(
                f"bulk, {title}, {bulk_title}, by bare TCP",
                "×",
                0.75,
                0.9,
                _over_bare(cell),
                builds=builds,
            )
        )
    return out


def _requests(
    builds: tuple[str, ...], title: str, goals: tuple[tuple[int, float, float], ...]
) -> list[Target]:
    return [
        Target(
            f"requests, {count} at once, {title}, by Go muxado v2",
            "×",
            floor,
            aim,
            _over_go(f"requests-{count}"),
            builds=builds,
        )
        for count, floor, aim in goals
    ]


def _processor_time() -> list[Target]:
    """What matters of the front ends for threads and trio, whose clock swings too much."""
    goals = (
        ("threads", "", 1.5, 0.9, 1.5, 1.0),
        ("threads", "tls-", 2.5, 1.2, 1.5, 1.1),
        ("trio", "", 1.0, 0.8, 1.5, 1.0),
        ("trio", "tls-", 1.3, 1.0, 1.5, 1.1),
    )
    out = []
    for front, tls, *numbers in goals:
        title = f"{front}{', TLS' if tls else ''}, processor time by Go muxado v2's"
        for cell, key, floor, aim in (
            ("requests-64", "cpu_us", *numbers[:2]),
            ("requests-512", "cpu_us", *numbers[:2]),
            ("bulk-1-up", "cpu_gib", *numbers[2:]),
            ("bulk-8-up", "cpu_gib", *numbers[2:]),
            ("bulk-8-down", "cpu_gib", *numbers[2:]),
        ):
            measure = _over_go(tls + cell, key)
            builds = (f"ours-compiled-{front}",)
            out.append(
                Target(f"{cell}, {title}", "×", floor, aim, measure, at_most=True, builds=builds)
            )
    return out


def _wires() -> list[Target]:
    """What the other wires cost beside our own."""
    return [
        Target(
            f"{cell}, {wire}: processor time by our muxado v2's",
            "×",
            goal,
            None,
            _wire(wire, cell, key),
            at_most=True,
        )
        for wire in FORMATS
        if wire != "muxado-v2"
        for cell, key, goal in (("requests-64", "cpu_us", 1.3), ("bulk-1-up", "cpu_gib", 1.1))
    ]


def _tunnel() -> list[Target]:
    goals = (
        ("connections-1", "cpu_us", "×", 1.05, 0.9),
        ("connections-64", "cpu_us", "×", 0.75, 0.6),
        ("connections-512", "cpu_us", "×", 0.75, 0.6),
        ("bulk-1", "cpu_gib", "×", 0.8, 0.65),
        ("bulk-8", "cpu_gib", "×", 1.15, 0.95),
        ("ping", "p99_us", "×", 0.7, 0.5),
        ("idle", "kib_per_connection", "KiB", 2.5, 2.0),
    )
    out = []
    for name, key, unit, floor, aim in goals:
        cell = f"tunnel-{name}"
        by = ", by a Go tunnel's on yamux" if unit == "×" else ""
        measure = _over_go(cell, key, TUNNEL_MUX) if by else _value(cell, key)
        title = f"{cell}, {key}{by}"
        out.append(Target(title, unit, floor, aim, measure, at_most=True, builds=FAST))
    return out


def _websockets() -> list[Target]:
    """What a WebSocket costs beside plain TCP."""
    return [
        Target(
            f"{cell}, over a WebSocket: processor time by plain TCP's",
            "×",
            floor,
            aim,
            _websocket(cell, key),
            at_most=True,
        )
        for cell, key, floor, aim in (
            ("requests-1", "cpu_us", 2.2, 1.8),
            ("requests-64", "cpu_us", 1.35, 1.2),
            ("bulk-1-up", "cpu_gib", 1.8, 1.6),
        )
    ]


TARGETS = [
    *_requests(FAST, "compiled, uvloop", ((512, 4.0, 6.0), (64, 4.0, 5.0), (1, 1.1, 1.3))),
    *_requests(PURE, "pure, asyncio", ((512, 2.0, 3.0), (64, 2.2, 3.0), (1, 0.9, 1.0))),
    *_speed(FAST, "compiled, uvloop"),
    *_speed(PURE, "pure, asyncio"),
    *_processor_time(),
    *_wires(),
    *_tunnel(),
    *_websockets(),
    Target(
        "ping beside 8 bulk streams: p99 by Go muxado v2's",
        "×",
        1 / 3,
        1 / 8,
        _over_go("ping-bulk-up", "p99_us"),
        at_most=True,
    ),
    Target(
        "ping beside 8 bulk streams: bytes moved by Go muxado v2's",
        "×",
        1.0,
        None,
        _over_go("ping-bulk-up", "mib_s"),
    ),
    Target(
        "ping beside 8 bulk streams: p99 by an idle session's",
        "×",
        None,
        3.0,
        _over_idle,
        at_most=True,
    ),
    Target("400 Mbit/s, 100 ms: ours to ours, of the link", "%", 80.0, 95.0, _link("ours-ours")),
    Target("400 Mbit/s, 100 ms: Go to ours, of the link", "%", 80.0, 95.0, _link("go-ours")),
    Target(
        "idle accepted stream, handler task included",
        "KiB",
        2.5,
        1.2,
        _value("memory-handler"),
        at_most=True,
        builds=COMPILED_OR_NOT,
    ),
    Target(
        "idle accepted stream, without a handler",
        "KiB",
        1.2,
        0.4,
        _value("memory-bare"),
        at_most=True,
        builds=COMPILED_OR_NOT,
    ),
    # Flat is a flat line, give or take what an allocator keeps.
    Target(
        "a million short streams: growth after the first 10,000",
        "%",
        5.0,
        None,
        _growth,
        at_most=True,
    ),
    Target("streams open at once on one session", "streams", 1e5, 1e6, _opened),
]


@dataclass(frozen=True)
class Reached:
    """A target beside what was reached."""

    target: Target
    build: str
    value: float | None


def compare(results: Results, builds: list[str]) -> list[Reached]:
    """Return every target beside what was reached.

    Args:
        results: the figures.
        builds: those of our builds that ran, fastest first.
    """
    reached = []
    for target in TARGETS:
        wanted = [build for build in target.builds if build in builds]
        build = (wanted or builds or [""])[0] if wanted or not target.builds else ""
        value = target.measure(results, build) if build else None
        reached.append(Reached(target, build, value))
    return reached
