"""How a route is written down in an engine ("EPOCH NODE ADDRESS IDENTITY"), and how notes are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .directory import Note, Place, Route

__all__ = ["pack_notes", "pack_route", "parse_notes", "parse_route"]

MOST_PACKED = 64 * 1024  # bytes of notes in one message, or one note

EPOCH = re.compile("[0-9]{1,19}")


def pack_route(route: Route) -> bytes:
    """Return a route as bytes."""
    place = route.place
    return f"{route.epoch} {place.node} {place.address} {route.identity}".encode()


def parse_route(value: bytes | None) -> Route | None:
    """Return what a value says; None for none, and for what says nothing."""
    words = (value or b"").decode("utf-8", "replace").split(" ", 3)
    if len(words) != 4 or EPOCH.fullmatch(words[0]) is None:
        return None
    return Route(Place(words[1], words[2]), int(words[0]), words[3])


def pack_notes(notes: Mapping[str, Note]) -> Iterator[bytes]:
    """Return notes as messages with a line each, "KEY STAMP UNTIL TEXT"."""
    lines: list[bytes] = []
    size = 0
    for key, note in notes.items():
        line = f"{key} {note.stamp} {note.until} {note.text}".encode()
        if lines and size + len(line) > MOST_PACKED:
            yield b"\n".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield b"\n".join(lines)


def parse_notes(data: bytes) -> dict[str, Note]:
    """Return the notes of a message; a line that says nothing is passed over."""
    notes = {}
    for line in data.decode("utf-8", "replace").split("\n"):
        words = line.split(" ", 3)
        if len(words) == 4 and all(map(EPOCH.fullmatch, words[1:3])):
            notes[words[0]] = Note(int(words[1]), int(words[2]), words[3])
    return notes
