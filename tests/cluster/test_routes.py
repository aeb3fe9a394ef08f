"""Routes and notes as an engine holds them: what is written is read back, other text is nothing."""

from __future__ import annotations

import pytest

from muxado.cluster.directory import Note, Place, Route
from muxado.cluster.routes import MOST_PACKED, pack_notes, pack_route, parse_notes, parse_route


@pytest.mark.parametrize("identity", ["", "key", "an identity with spaces"])
def test_a_route_is_read_back(identity: str) -> None:
    route = Route(Place("node-1", "10.0.0.1:4443"), 17, identity)
    assert parse_route(pack_route(route)) == route


@pytest.mark.parametrize(
    "value",
    [None, b"", b"1 node address", b"x node address id", b"-1 n a i", b"1" * 20 + b" n a i"],
)
def test_what_is_no_route_says_nothing(value: bytes | None) -> None:
    assert parse_route(value) is None


def test_notes_are_read_back_from_as_many_messages_as_they_need() -> None:
    notes = {f"key-{number}": Note(number, number + 5, "x" * 1000) for number in range(200)}
    messages = list(pack_notes(notes))
    assert len(messages) > 1
    assert all(len(message) <= MOST_PACKED for message in messages)
    back: dict[str, Note] = {}
    for message in messages:
        back |= parse_notes(message)
    assert back == notes
    assert list(pack_notes({})) == []


def test_lines_that_say_nothing_are_passed_over() -> None:
    assert parse_notes(b"\nkey 1 x text\nkey 1\n\xff\nkey 1 2 text") == {"key": Note(1, 2, "text")}
