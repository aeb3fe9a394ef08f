"""Runs the cells: contenders interleaved round by round, unsteady figures once more."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .cells import Cell
from .contenders import Contender, Peer, contenders_for
from .figures import Entry, Results
from .processes import RunError, run_once
from .tunnels import run_tunnel

# What starting two processes adds to a run, for the estimate.
START_SECONDS = 0.25
FEWEST_ROUNDS = 3


@dataclass
class Plan:
    """What to run.

    Attributes:
        cells: the cells, in order.
        rounds: of each quoted figure; the others take half as many.
        deadline: when to stop, in `time.monotonic()`.
        tls_dir: where the certificate is.
        run_again: whether unsteady figures are run again.
    """

    cells: list[Cell]
    rounds: int
    deadline: float
    tls_dir: Path
    run_again: bool = True

    def rounds_of(self, cell: Cell) -> int:
        """Return how many rounds a cell takes."""
        if cell.rounds:
            return min(cell.rounds, self.rounds)
        if cell.quoted:
            return self.rounds
        return min(self.rounds, max(FEWEST_ROUNDS, self.rounds // 2))

    def seconds(self, peers: list[Peer]) -> float:
        """Return about how long it takes."""
        total = 0.0
        for cell in self.cells:
            work = cell.work
            each = work.seconds + work.warmup + START_SECONDS
            if work.work == "short":
                each = work.streams / 25_000
            if work.work == "idle":
                each = 1.0 + work.streams / 15_000
            total += each * self.rounds_of(cell) * len(contenders_for(cell, peers))
        return total


class Suite:
    """Runs a plan.

    Args:
        plan: what to run.
        peers: who takes part.
        tell: called with what is being done.
        cell_done: called with each cell when its figures are there.
    """

    def __init__(
        self,
        plan: Plan,
        peers: list[Peer],
        tell: Callable[[str], None],
        cell_done: Callable[[Cell, Results], None],
    ) -> None:
        self._plan = plan
        self._peers = peers
        self._tell = tell
        self._cell_done = cell_done
        self.results = Results()

    def run(self) -> Results:
        """Run every cell for which there is time."""
        for peer in self._peers:
            if peer.missing:
                self.results.left_out.append(f"{peer.title}: {peer.missing}")
        for cell in self._plan.cells:
            if self._late():
                self.results.left_out.append(f"cell {cell.name}: no time left")
                continue
            self._run_cell(cell)
            self._cell_done(cell, self.results)
        if self._plan.run_again:
            self._run_unsteady()
        return self.results

    def _late(self) -> bool:
        return time.monotonic() > self._plan.deadline

    def _run_cell(self, cell: Cell) -> None:
        pairs = []
        for contender in contenders_for(cell, self._peers):
            entry = Entry(cell, contender.name, contender.title, contender.group)
            self.results.entries.append(entry)
            pairs.append((contender, entry))
        if not pairs:
            self.results.left_out.append(f"cell {cell.name}: no contender can take part")
        self._run_rounds(cell, pairs, "")

    def _run_unsteady(self) -> None:
        """Run what spreads too much again, once, and keep the steadier of the two."""
        for cell in self._plan.cells:
            pairs = []
            for contender in contenders_for(cell, self._peers):
                entry = self.results.entry(cell.name, contender.name)
                if entry is not None and entry.unstable():
                    pairs.append((contender, entry))
            if not pairs or self._late():
                continue
            for _, entry in pairs:
                entry.run_again()
            self._run_rounds(cell, pairs, ", again")
            for _, entry in pairs:
                entry.settle()
            self._cell_done(cell, self.results)

    def _run_rounds(self, cell: Cell, pairs: list[tuple[Contender, Entry]], note: str) -> None:
        rounds = self._plan.rounds_of(cell)
        for number in range(rounds):
            if number and self._late():
                return
            # Everyone is first, last and after everyone else in turn.
            shift = number % len(pairs) if pairs else 0
            for contender, entry in pairs[shift:] + pairs[:shift]:
                self._tell(f"{cell.name}: round {number + 1} of {rounds}{note}, {contender.title}")
                if len(entry.failures) < 2:
                    self._run_one(cell, contender, entry)

    def _run_one(self, cell: Cell, contender: Contender, entry: Entry) -> None:
        try:
            run = run_tunnel if cell.is_tunnel else run_once
            entry.samples.append(run(cell, contender, self._plan.tls_dir))
        except RunError as exc:
            entry.failures.append(str(exc))
