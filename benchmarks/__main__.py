"""The command: `python -m benchmarks`, from the repository's root."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.status import Status

from .against import PAIRS
from .against import compare as compare_builds
from .cells import Cell, all_cells, quick_cells
from .contenders import ROOT, Peer, contenders_for, find_peers
from .figures import Results
from .machine import describe_machine, describe_versions
from .plots import draw_all
from .processes import make_certificate
from .suite import Plan, Suite
from .table import print_cell, print_left_out, print_targets
from .targets import compare

FULL_MINUTES = 28.0
QUICK_MINUTES = 1.25
ROUNDS = 7

HELP = """\
Measures muxado beside its peers, in one run on this machine: every contender has a server
process and a client process of its own, speaks the same little request protocol, and takes
its turn in every round. benchmarks/README.md describes the method.

  python -m benchmarks --quick               the main figures, in under 90 seconds
  python -m benchmarks                       everything, in under 30 minutes; plots go to docs/
  python -m benchmarks --list                the cells and the contenders, and who is left out
  python -m benchmarks --only 'bulk-.*'      some cells (a regular expression of whole names)
  python -m benchmarks --compiled-python .venv-compiled/bin/python
                                             with the compiled build, which lives elsewhere

A figure is the median of the rounds; its spread is (largest - smallest) / median. What
spreads by more than 20 % is run again, once (not by --quick). For figures worth quoting,
leave the machine alone meanwhile.
"""


def parse_arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="the main cells only, shortened")
    parser.add_argument(
        "--only",
        metavar="REGEX",
        help="only the cells (--against: the work) whose whole name matches",
    )
    parser.add_argument("--without", metavar="REGEX", help="leave out contenders by name")
    parser.add_argument(
        "--rounds",
        type=int,
        help=f"rounds of a quoted figure (default {ROUNDS}; quick 3; --against {PAIRS})",
    )
    parser.add_argument("--seconds", type=float, help="measured time of each run")
    parser.add_argument("--streams", type=int, help="streams of the memory cells")
    parser.add_argument("--minutes", type=float, help="begin nothing new after so many minutes")
    parser.add_argument(
        "--compiled-python", metavar="PATH", help="an interpreter with the compiled muxado"
    )
    parser.add_argument(
        "--against",
        metavar="REV",
        help="only this: processor time of the compiled build by that of another commit",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        default=Path(__file__).parent / "results" / "latest.json",
        help="where the figures go (default benchmarks/results/latest.json)",
    )
    parser.add_argument(
        "--plots",
        type=Path,
        metavar="FOLDER",
        help="where the plots go (default: docs/benchmarks after a full run, else nowhere)",
    )
    parser.add_argument("--list", action="store_true", help="show what there is, and end")
    args = parser.parse_args()
    for name in ("only", "without"):
        try:
            re.compile(getattr(args, name) or "")
        except re.error as exc:
            parser.error(f"--{name}: {exc}")
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds must be at least 1")
    if args.against and not args.compiled_python:
        parser.error("--against needs --compiled-python; `make bench` gives it")
    if args.against and args.rounds == 1:
        parser.error("--against needs at least 2 --rounds")
    return args


def choose_cells(args: argparse.Namespace) -> list[Cell]:
    """Return the cells that the command line asks for."""
    cells = quick_cells() if args.quick else all_cells()
    if args.only:
        cells = [cell for cell in cells if re.fullmatch(args.only, cell.name)]
    if args.seconds:
        cells = [replace(cell, work=replace(cell.work, seconds=args.seconds)) for cell in cells]
    if args.streams:
        cells = [
            replace(cell, work=replace(cell.work, streams=args.streams))
            if cell.work.streams
            else cell
            for cell in cells
        ]
    return cells


def choose_peers(args: argparse.Namespace) -> list[Peer]:
    """Return the contenders, with the reason where one is left out."""
    peers = find_peers(args.compiled_python)
    if args.without:
        peers = [
            replace(peer, missing="asked for (--without)")
            if re.fullmatch(args.without, peer.name)
            else peer
            for peer in peers
        ]
    return peers


def print_list(console: Console, cells: list[Cell], peers: list[Peer]) -> None:
    """Print the cells and the contenders."""
    console.print("[bold]Cells[/]")
    for cell in cells:
        count = len(contenders_for(cell, peers))
        console.print(f"  {cell.name:18} {cell.title} [dim]({cell.who}: {count})[/]")
    console.print("[bold]Contenders[/]")
    for peer in peers:
        state = f"[yellow]left out: {peer.missing}[/]" if peer.missing else "ready"
        console.print(f"  {peer.name:22} {peer.title}: {state}", highlight=False)


@contextlib.contextmanager
def certificate_folder(console: Console) -> Iterator[Path]:
    """Make a certificate for the TLS cells, and remove it after them."""
    with tempfile.TemporaryDirectory(prefix="muxado-bench-") as folder:
        problem = make_certificate(Path(folder))
        if problem:
            console.print(f"[yellow]no TLS: {problem}[/]")
        yield Path(folder)


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the suite; return the exit code."""
    cells = choose_cells(args)
    if not cells:
        console.print("[red]no such cell; --list shows them[/]")
        return 2
    began = time.monotonic()
    peers = choose_peers(args)
    if args.list:
        print_list(console, cells, peers)
        return 0
    machine, versions = describe_machine(), describe_versions(peers)
    minutes = args.minutes or (QUICK_MINUTES if args.quick else FULL_MINUTES)
    rounds = args.rounds or (3 if args.quick else ROUNDS)
    caption = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']};"
        f" Python {versions.get('python')}, Go {versions.get('go', 'none')},"
        f" muxado {versions.get('muxado')} ({machine['revision']})"
    )
    console.print(f"{caption}\nload before: {machine['load_before']}", highlight=False)
    about: dict[str, object] = {"machine": machine, "versions": versions, "caption": caption}
    with certificate_folder(console) as folder, Status("", console=console) as status:
        plan = Plan(cells, rounds, began + 60 * minutes, folder, run_again=not args.quick)
        console.print(f"{len(cells)} cells, about {plan.seconds(peers) / 60:.1f} minutes")
        suite = Suite(
            plan, peers, status.update, lambda cell, results: print_cell(console, cell, results)
        )
        results = suite.run()
    return finish(args, console, results, peers, about)


def finish(
    args: argparse.Namespace,
    console: Console,
    results: Results,
    peers: list[Peer],
    about: dict[str, object],
) -> int:
    """Print the summary, write the files; return the exit code."""
    builds = [peer.name for peer in peers if peer.group in ("ours", "fronts") and not peer.missing]
    reached = compare(results, builds)
    print_targets(console, reached)
    print_left_out(console, results)
    document = about | {
        "command": ["python", "-m", "benchmarks", *sys.argv[1:]],
        "left_out": results.left_out,
        "figures": [entry.to_json() for entry in results.entries],
        "targets": [
            {
                "work": item.target.work,
                "unit": item.target.unit,
                "floor": item.target.floor,
                "aim": item.target.aim,
                "at_most": item.target.at_most,
                "build": item.build,
                "reached": item.value,
            }
            for item in reached
        ],
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(document, indent=1) + "\n")
    console.print(f"figures: {args.json}", highlight=False)
    folder = args.plots
    if folder is None and not (args.quick or args.only or args.seconds or args.streams):
        folder = ROOT / "docs" / "benchmarks"
    if folder is not None:
        try:
            drawn = draw_all(results, folder, str(about["caption"]))
            console.print(f"plots: {len(drawn)} in {folder}", highlight=False)
        except ModuleNotFoundError:
            console.print("no plots: matplotlib is not installed")
    failed = [entry for entry in results.entries if entry.group == "ours" and entry.failures]
    for entry in failed:
        console.print(
            f"failed: {entry.cell.name}, {entry.title}: {entry.failures[0]}",
            style="red",
            markup=False,
        )
    return 1 if failed else 0


def main() -> int:
    """Run the command."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    args = parse_arguments()
    try:
        if args.against:
            compare_builds(args.against, args.compiled_python, args.only, args.rounds)
            return 0
        return run(args, console)
    except KeyboardInterrupt:
        console.print("stopped; nothing was written")
        return 130


if __name__ == "__main__":
    sys.exit(main())
