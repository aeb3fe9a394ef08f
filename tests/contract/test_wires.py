"""How much of the contract each wire keeps; a test is left out only for a property it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from math import prod
from pathlib import Path

import pytest

from muxado.wire import FORMATS

from .wires import DEFAULT, PROPERTIES, missing

# Fixtures that bring the wire.
WITH_WIRE = {"place", "ends", "connect", "connect_with_windows"}

# Modules whose tests run on one wire, and why.
APART = {
    "test_alpn": "what TLS chooses",
    "test_closing": "how a transport ends, beside a peer that is slow",
    "test_holding": "what only a wire without resets does",
    "test_listening": "connections before they carry a session",
    "test_silent_connections": "connections before they carry a session",
    "test_timers": "what only some wires do, beside a peer that is played",
    "test_tls": "what TLS refuses before a session begins",
    "test_wires": "this",
}

# How much of what muxado v2 does each must do at least, in percent.
LEAST = {"muxado-v1": 90, "yamux": 80, "smux-v2": 65, "smux-v1": 60}


def contract() -> Iterator[Callable[..., object]]:
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path.stem in APART:
            continue
        for name, test in vars(import_module(f"{__package__}.{path.stem}")).items():
            if name.startswith("test_"):
                yield test


def marks(test: Callable[..., object], name: str) -> list[pytest.Mark]:
    return [mark for mark in getattr(test, "pytestmark", []) if mark.name == name]


def count(wire: str) -> int:
    """Return how many tests run on a wire, at one place."""
    return sum(
        prod(len(mark.args[1]) for mark in marks(test, "parametrize"))
        for test in contract()
        if not missing(wire, marks(test, "needs"))
    )


def test_every_test_runs_on_every_wire_or_names_what_it_needs() -> None:
    for test in contract():
        assert WITH_WIRE & set(inspect.signature(test).parameters), test
        assert not marks(test, "skip"), test
        assert not marks(test, "skipif"), test


def test_every_property_is_needed_and_tells_wires_apart() -> None:
    needed = {name for test in contract() for m in marks(test, "needs") for name in m.args}
    assert needed == set(PROPERTIES)
    for has in PROPERTIES.values():
        assert has(FORMATS[DEFAULT].rules)
        assert not all(has(wire.rules) for wire in FORMATS.values())


@pytest.mark.parametrize("wire", LEAST)
def test_a_wire_keeps_most_of_the_contract(wire: str) -> None:
    assert set(LEAST) == set(FORMATS) - {DEFAULT}
    assert 100 * count(wire) >= LEAST[wire] * count(DEFAULT)


def test_the_page_says_what_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "wires.md").read_text(encoding="utf-8")
    for name, has in PROPERTIES.items():
        cells = " | ".join("yes" if has(wire.rules) else "–" for wire in FORMATS.values())
        assert f"| {name} | {cells} |\n" in page
    counts = " | ".join(str(count(wire)) for wire in FORMATS)
    assert f"| {' | '.join(FORMATS)} |\n" in page
    assert f"| tests that run | {counts} |\n" in page
    shares = " | ".join(str(round(100 * count(wire) / count(DEFAULT))) for wire in FORMATS)
    assert f"| of muxado v2's, % | {shares} |\n" in page
