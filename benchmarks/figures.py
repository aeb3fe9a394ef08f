"""Figures: what the rounds of one contender in one cell came to."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from .cells import Cell

UNSTABLE = 0.20


@dataclass(frozen=True)
class Figure:
    """A figure with its spread.

    Attributes:
        median: the middle one of the rounds.
        low: the smallest.
        high: the largest.
    """

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """(largest - smallest) / median."""
        return (self.high - self.low) / self.median if self.median else 0.0


@dataclass
class Entry:
    """All rounds of one contender in one cell.

    Attributes:
        cell: the cell.
        contender: the contender's name.
        title: what tables call it.
        group: its kind.
        samples: what each round's client measured.
        failures: what went wrong.
        first: the samples of the first attempt, if the rounds were run again.
    """

    cell: Cell
    contender: str
    title: str
    group: str
    samples: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    first: list[dict[str, Any]] | None = None

    def figure(self, key: str) -> Figure | None:
        """Return the figure of a metric, None if no round has given it."""
        values = [float(sample[key]) for sample in self.samples if key in sample]
        if not values:
            return None
        return Figure(statistics.median(values), min(values), max(values))

    def main(self) -> Figure | None:
        """Return the cell's main figure."""
        return self.figure(self.cell.metric.key)

    def unstable(self) -> bool:
        """Return whether the main figure spreads too much to be quoted as it is."""
        figure = self.main()
        return figure is not None and len(self.samples) > 1 and figure.spread > UNSTABLE

    def run_again(self) -> None:
        """Put the samples aside, for a second attempt."""
        self.first, self.samples = self.samples, []

    def settle(self) -> None:
        """Keep the steadier of two attempts."""
        if self.first is None:
            return
        second = self.main()
        again, self.samples = self.samples, self.first
        first = self.main()
        whole = len(again) >= len(self.samples)  # time may have run out in between
        steadier = second is not None and (first is None or second.spread <= first.spread)
        if whole and steadier:
            self.samples = again
        else:
            self.first = again

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON-able data."""
        figure = self.main()
        return {
            "cell": self.cell.name,
            "title": self.cell.title,
            "contender": self.contender,
            "contender_title": self.title,
            "metric": self.cell.metric.key,
            "unit": self.cell.metric.unit,
            "median": figure and figure.median,
            "min": figure and figure.low,
            "max": figure and figure.high,
            "spread": figure and figure.spread,
            "run_again": self.first is not None,
            "samples": self.samples,
            "other_attempt": self.first,
            "failures": self.failures,
        }


class Results:
    """All entries of a run."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.left_out: list[str] = []

    def entry(self, cell: str, contender: str) -> Entry | None:
        """Return the entry of a cell and a contender, None if there is none."""
        for entry in self.entries:
            if entry.cell.name == cell and entry.contender == contender:
                return entry
        return None

    def value(self, cell: str, contender: str, key: str | None = None) -> float | None:
        """Return a median, None if there is none."""
        entry = self.entry(cell, contender)
        if entry is None:
            return None
        figure = entry.figure(key or entry.cell.metric.key)
        return None if figure is None else figure.median

    def ratio(self, cell: str, one: str, other: str, key: str | None = None) -> float | None:
        """Return the quotient of two contenders' medians, None if it can't be had."""
        above, below = self.value(cell, one, key), self.value(cell, other, key)
        return above / below if above is not None and below else None

    def of_cell(self, cell: str) -> list[Entry]:
        """Return a cell's entries."""
        return [entry for entry in self.entries if entry.cell.name == cell]


def show_number(value: float) -> str:
    """Return a number with three figures or so."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def bare_name(contender: str, group: str) -> str:
    """Return which bare TCP connection a contender is compared with: its own loop's."""
    if group == "ours" and contender.endswith("-uvloop"):
        return "tcp-uvloop"
    return "tcp-asyncio"
