"""The tables in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .cells import LINK_RATE_MIB_S, Cell
from .contenders import TUNNEL_MUX
from .figures import Entry, Results, bare_name, show_number
from .targets import GO, Reached

EXTRA = {
    "p50_us": "p50 {:,.0f} µs",
    "p99_us": "p99 {:,.0f} µs",
    "mib_s": "{:,.0f} MiB/s",
    "cores": "{:.1f} cores",
    "cpu_us": "{:,.1f} µs of processor time each",
    "cpu_gib": "{:,.2f} s of processor time a GiB",
    "rate": "{:,.0f}/s",
    "kib_server": "server {:,.2f} KiB",
    "kib_agent": "agent {:,.2f} KiB",
}
ALSO = {
    "requests": ("cpu_us", "p50_us", "p99_us", "cores"),
    "bulk": ("cpu_gib", "cores"),
    "ping": ("p50_us", "mib_s", "cores"),
    "idle": (),
    "short": (),
    "tunnel-connections": ("rate",),
    "tunnel-bulk": ("cpu_gib", "mib_s", "p50_us", "p99_us"),
    "tunnel-idle": ("kib_server", "kib_agent"),
}


def print_cell(console: Console, cell: Cell, results: Results) -> None:
    """Print a cell's table."""
    table = Table(title=f"{cell.title} [dim]({cell.name})[/]", title_justify="left")
    table.add_column("contender")
    table.add_column(cell.metric.unit, justify="right")
    table.add_column("spread", justify="right")
    by_go = "by Go yamux" if cell.is_tunnel else "by Go muxado"
    table.add_column("of the link" if cell.link_ms else by_go, justify="right")
    table.add_column("by bare TCP", justify="right")
    table.add_column("beside it")
    for entry in results.of_cell(cell.name):
        table.add_row(*_row(cell, entry, results))
    console.print(table)


def _row(cell: Cell, entry: Entry, results: Results) -> list[str]:
    figure = entry.main()
    if figure is None:
        return [entry.title, "[red]failed[/]", "", "", "", "; ".join(entry.failures[:1])]
    spread = f"{show_number(figure.low)}-{show_number(figure.high)} ({figure.spread:.0%})"
    if len(entry.samples) < 2:
        spread = "one round"
    elif entry.unstable():
        spread = f"[yellow]{spread}[/]"
    if entry.first is not None:
        spread += " again"
    if cell.link_ms:
        first, bare = f"{figure.median / LINK_RATE_MIB_S:.0%}", None
    else:
        go = TUNNEL_MUX if cell.is_tunnel else GO
        ratio = results.ratio(cell.name, entry.contender, go)
        first = _times(ratio)
        bare = results.ratio(cell.name, entry.contender, bare_name(entry.contender, entry.group))
    beside = ", ".join(_extras(cell, entry))
    if entry.failures:
        beside += f" [red]{len(entry.failures)} failed: {entry.failures[0]}[/]"
    name = f"[bold]{entry.title}[/]" if entry.group == "ours" else entry.title
    return [name, show_number(figure.median), spread, first, _times(bare), beside]


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}×"


def _extras(cell: Cell, entry: Entry) -> list[str]:
    out = []
    for key in ALSO[cell.work.work]:
        figure = entry.figure(key)
        if figure is not None and figure.median:
            out.append(EXTRA[key].format(figure.median))
    if cell.work.work in ("idle", "short"):
        for key, text in (
            ("kib_per_stream", "{:.2f} KiB each"),
            ("client_kib_per_stream", "{:.2f} at the client"),
            ("server_rss_mib", "server {:,.0f} MiB"),
            ("client_rss_mib", "client {:,.0f} MiB"),
            ("rate", "{:,.0f}/s"),
        ):
            figure = entry.figure(key)
            if figure is not None and key != cell.metric.key:
                out.append(text.format(figure.median))
    return out


def print_targets(console: Console, reached: list[Reached]) -> None:
    """Print the numbers to reach beside what was reached."""
    table = Table(title="The numbers to reach", title_justify="left")
    table.add_column("work")
    for name in ("floor", "aim", "reached"):
        table.add_column(name, justify="right")
    table.add_column("")
    for item in reached:
        target = item.target
        sign = "≤ " if target.at_most else ""
        goals = [
            "" if goal is None else f"{sign}{_goal(goal, target.unit)}"
            for goal in (target.floor, target.aim)
        ]
        if item.value is None:
            reason = "not measured" if item.build or not target.builds else "that build is left out"
            table.add_row(target.work, *goals, "-", f"[dim]{reason}[/]")
            continue
        table.add_row(target.work, *goals, _goal(item.value, target.unit), verdict(item))
    console.print(table)


def verdict(item: Reached) -> str:
    """Return in a word how a value stands to its goals."""
    assert item.value is not None
    target = item.target
    if target.met(item.value, target.floor) is False:
        return "[red]floor missed[/]"
    if target.met(item.value, target.aim) is False:
        return "[yellow]aim missed[/]"
    return "[green]reached[/]"


def _goal(value: float, unit: str) -> str:
    if unit == "streams":
        return f"{value:,.0f}"
    number = f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{number}×" if unit == "×" else f"{number} {unit}"


def print_left_out(console: Console, results: Results) -> None:
    """Name what was left out, and why."""
    if results.left_out:
        console.print("[bold]Left out[/]")
        for line in results.left_out:
            console.print(f"  {line}", highlight=False, markup=False)
    again = [e for e in results.entries if e.unstable()]
    if again:
        console.print("[bold]Unsteady[/] (a spread above 20 %; run again where there was time)")
        for entry in again:
            figure = entry.main()
            assert figure is not None
            console.print(
                f"  {entry.cell.name}, {entry.title}: {figure.spread:.0%}", highlight=False
            )
