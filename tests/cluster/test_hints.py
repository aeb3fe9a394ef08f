"""What a server remembers of names: routes that were right, and names that have just gone."""

from __future__ import annotations

import pytest

from muxado.cluster import hints
from muxado.cluster.directory import Place, Route
from muxado.cluster.hints import Hints

FIRST = Route(Place("node-1", "10.0.0.1:1"), 1, "key")
SECOND = Route(Place("node-2", "10.0.0.2:1"), 2, "key")
LONG = 3600.0


def test_a_route_is_known_until_it_is_refuted() -> None:
    known = Hints(LONG)
    assert known.route("db") is None
    known.remember("db", FIRST)
    assert known.route("db") == FIRST
    known.refute("db", FIRST)
    assert known.route("db") is None
    assert known.is_away("db")


def test_an_older_route_that_was_wrong_leaves_the_newer_one() -> None:
    known = Hints(LONG)
    known.remember("db", SECOND)
    known.refute("db", FIRST)
    assert known.route("db") == SECOND


def test_a_name_that_has_gone_is_away_until_it_is_found_again() -> None:
    known = Hints(LONG)
    assert not known.is_away("db")
    known.has_gone("db")
    assert known.is_away("db")
    known.remember("db", FIRST)
    assert not known.is_away("db")
    known.has_gone("db")
    known.forget("db")
    assert not known.is_away("db")
    assert known.route("db") is None


def test_without_grace_no_name_is_away() -> None:
    known = Hints(0.0)
    known.has_gone("db")
    assert not known.is_away("db")
    assert not known.is_away("db")


def test_the_names_that_were_remembered_first_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "MOST", 3)
    known = Hints(LONG)
    for number in range(5):
        known.remember(f"here-{number}", FIRST)
        known.has_gone(f"gone-{number}")
    assert len(known) == 3
    assert [known.route(f"here-{number}") for number in range(5)] == [None, None, *[FIRST] * 3]
    assert [known.is_away(f"gone-{number}") for number in range(5)] == [False, False, *[True] * 3]
