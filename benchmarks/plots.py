"""The plots: SVG, by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .figures import Entry, Figure, Results

COLOURS = {
    "ours": "#1f6feb",
    "fronts": "#54aeff",
    "wires": "#2da44e",
    "go": "#7d8590",
    "bare": "#d29922",
    "slow": "#c9d1d9",
}


def draw_all(results: Results, folder: Path, caption: str) -> list[Path]:
    """Draw every plot for which there are figures; return the files.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "muxado"  # the same figures give the same file
    matplotlib.rcParams["svg.fonttype"] = "none"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, title, unit, cells in GROUPS:
        if any(results.of_cell(cell) for cell, _ in cells):
            drawn.append(_bars(results, folder / f"{name}.svg", title, unit, cells, caption))
    short = [entry for entry in results.of_cell("short-1m") if entry.samples]
    if short:
        drawn.append(_memory(short[0], folder / "short-streams.svg", caption))
    return drawn


Cells = tuple[tuple[str, str], ...]
GROUPS: tuple[tuple[str, str, str, Cells], ...] = (
    (
        "requests",
        "64 B requests: open, write, read the reply, close",
        "requests/s",
        tuple((f"requests-{n}", f"{n:,} at once") for n in (1, 64, 512, 4096)),
    ),
    (
        "payloads",
        "Requests by payload",
        "requests/s",
        (
            ("requests-64", "64 B, 64 at once"),
            ("requests-64-1k", "1 KiB, 64 at once"),
            ("requests-64-64k", "64 KiB, 64 at once"),
        ),
    ),
    (
        "bulk",
        "Bulk, client to server",
        "MiB/s",
        tuple((f"bulk-{n}-up", f"{n} stream{'s' * (n > 1)}") for n in (1, 8, 64)),
    ),
    (
        "bulk-both",
        "Bulk, both ways together",
        "MiB/s",
        tuple((f"bulk-{n}-both", f"{n} stream{'s' * (n > 1)}") for n in (1, 8, 64)),
    ),
    (
        "ping",
        "64 B ping, 99th percentile (less is better)",
        "µs",
        (
            ("ping-idle", "idle session"),
            ("ping-bulk-up", "beside 8 uploads"),
            ("ping-bulk-down", "beside 8 downloads"),
        ),
    ),
    (
        "tls",
        "Requests over TLS",
        "requests/s",
        (("tls-requests-64", "64 at once"), ("tls-requests-512", "512 at once")),
    ),
    (
        "memory",
        "Memory of an idle accepted stream (less is better)",
        "KiB",
        (("memory-handler", "with a handler"), ("memory-bare", "without")),
    ),
    (
        "links",
        "One bulk stream on a link of 400 Mbit/s (47.7 MiB/s), after 3 s",
        "MiB/s",
        tuple((f"link-{ms}", f"{ms} ms") for ms in (20, 100, 200)),
    ),
)


def _new_plot(title: str, rows: int) -> tuple[Any, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, max(2.4, 0.26 * rows + 1.1)))
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path, caption: str) -> Path:
    from matplotlib import pyplot

    figure.text(0.01, 0.01, caption, fontsize=6, color="#57606a")
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    return path


def _bars(results: Results, path: Path, title: str, unit: str, cells: Cells, caption: str) -> Path:
    rows: list[tuple[str, Figure, str, bool]] = []
    for cell, label in cells:
        entries = [(entry, entry.main()) for entry in results.of_cell(cell)]
        for number, (entry, figure) in enumerate(entries):
            if figure is not None:
                rows.append((f"{label}: {entry.title}", figure, entry.group, number == 0))
    plot, axes = _new_plot(title, len(rows))
    place = 0.0
    places: list[float] = []
    for _, figure, group, first in rows:
        place += 1.6 if first and places else 1.0
        places.append(place)
        axes.barh(
            place,
            figure.median,
            color=COLOURS[group],
            xerr=[[figure.median - figure.low], [figure.high - figure.median]],
            error_kw={"elinewidth": 0.8, "capsize": 2},
        )
    axes.set_yticks(places, [row[0] for row in rows], fontsize=7)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel(f"{unit}; median, smallest and largest of the rounds", fontsize=8)
    return _save(plot, path, caption)


def _memory(entry: Entry, path: Path, caption: str) -> Path:
    plot, axes = _new_plot("Resident memory over short streams on one session", 10)
    series = entry.samples[-1]["series"]
    counts = [point[0] for point in series]
    axes.plot(counts, [point[1] for point in series], marker=".", label="server")
    axes.plot(counts, [point[2] for point in series], marker=".", label="client")
    axes.set_xlabel("streams so far", fontsize=8)
    axes.set_ylabel("MiB", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)
    return _save(plot, path, caption)
