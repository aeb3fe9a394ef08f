"""Which wires a test runs on: a test says what it needs of one, and each wire what it has.

A test that needs nothing runs on all of them. `needs` names properties, never wires, so that a
new wire gets every test that it can pass. `counts` tells which tests each wire leaves out, and
for which property.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import pytest

from muxado.wire import FORMATS, NO_PINGS, NO_WINDOW, TYPES_FIRST, TYPES_IN_SYN, Rules
from muxado.wire.rules import NO_TYPES

DEFAULT: Final = "muxado-v2"

# What a wire may have.
PROPERTIES: Final[dict[str, Callable[[Rules], bool]]] = {
    "resets": lambda rules: rules.resets,
    "reset codes": lambda rules: rules.resets and rules.codes,
    "refusal": lambda rules: rules.resets,
    "pings": lambda rules: rules.pings != NO_PINGS,
    "types": lambda rules: rules.types != NO_TYPES,
    "types first": lambda rules: rules.types == TYPES_FIRST,
    "no types": lambda rules: rules.types != TYPES_IN_SYN,
    "windows": lambda rules: rules.first_window != NO_WINDOW,
    "lazy opens": lambda rules: not rules.opens_apart,
    "GOAWAY": lambda rules: rules.go_away,
    "GOAWAY codes": lambda rules: rules.go_away and not rules.errors_end,
}


def needs(*properties: str) -> pytest.MarkDecorator:
    """Mark a test that runs only on wires with these properties."""
    unknown = set(properties) - set(PROPERTIES)
    assert not unknown, f"no such properties: {unknown}"
    return pytest.mark.needs(*properties)


def left_out(wire: str, lacks: str) -> str:
    """Return the words by which a test is left out on a wire."""
    return f"{wire} lacks: {lacks}"


def missing(wire: str, marks: Iterable[pytest.Mark]) -> str:
    """Return the first property that marked tests need and a wire has not; "" if it has all."""
    rules = FORMATS[wire].rules
    for mark in marks:
        for name in mark.args:
            if not PROPERTIES[name](rules):
                return str(name)
    return ""


def summarize(reports: Iterable[pytest.TestReport]) -> list[str]:
    """Return what ran on which wire, and what was left out for which property."""
    ran: dict[str, int] = {}
    left: dict[str, dict[str, set[str]]] = {}
    for report in reports:
        if not report.nodeid.startswith("tests/contract/") or "[" not in report.nodeid:
            continue
        test, _, at = report.nodeid.rpartition("::")[2].partition("[")
        wire = next((name for name in FORMATS if f"-{name}" in at), DEFAULT)
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            lacks = reason.removeprefix(f"{wire} lacks: ")
            left.setdefault(wire, {}).setdefault(lacks, set()).add(test)
        elif report.when == "call":
            ran[wire] = ran.get(wire, 0) + 1
    lines = [f"{wire}: {count} ran" for wire, count in ran.items()]
    for wire, by_property in left.items():
        for lacks, tests in sorted(by_property.items()):
            lines.append(f"{wire} lacks {lacks}: {', '.join(sorted(tests))}")
    return lines
