"""The golden data: frames and whole conversations that were recorded from Go.

`tests/data/vectors.json` explains its own keys under "about".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"


def mod251(start: int, length: int) -> bytes:
    """Return the payload pattern of the golden data: byte i is (start + i) % 251."""
    offset = start % 251
    return (bytes(range(251)) * (length // 251 + 2))[offset : offset + length]


@dataclass(frozen=True)
class Vector:
    """One recorded frame, or one that Go refused."""

    name: str
    entry: dict[str, Any]

    def __str__(self) -> str:
        return self.name

    @property
    def valid(self) -> bool:
        return bool(self.entry["valid"])

    @property
    def by_go(self) -> bool:
        """Whether Go's own writer made the bytes."""
        return self.entry.get("encoded_by") == "go"

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = self.entry["fields"]
        return fields

    @property
    def payload(self) -> bytes:
        """The payload of a DATA frame."""
        elided = self.entry.get("payload_elided")
        if elided is not None:
            if elided["pattern"] == "zero":
                return bytes(elided["len"])
            assert elided["pattern"] == "mod251"
            return mod251(elided["start"], elided["len"])
        return bytes.fromhex(self.fields["payload"])

    @property
    def wire(self) -> bytes:
        """The bytes that travel."""
        head = bytes.fromhex(self.entry["hex"])
        return head + self.payload if "payload_elided" in self.entry else head


@cache
def vectors(protocol: str) -> list[Vector]:
    """Return all vectors of a protocol: "muxado-v2", "muxado-v1", "yamux", ..."""
    entries = json.loads((DATA / "vectors.json").read_text())[protocol]
    return [Vector(entry["name"], entry) for entry in entries]


@dataclass(frozen=True)
class Transcript:
    """A recorded conversation between a Go client and a Go server."""

    entry: dict[str, Any]

    def parts(self, direction: str) -> list[bytes]:
        """Return what one side sent: "client_to_server" or "server_to_client".

        It is in one part unless it is long; long payloads have parts of their own.
        """
        plain = self.entry[direction]
        if plain is not None:
            return [bytes.fromhex(plain)]
        return [_segment(segment) for segment in self.entry[f"{direction}_segments"]]

    def turns(self, direction: str) -> list[bytes]:
        """Return the same in other parts: between two of them the other side said something."""
        data = b"".join(self.parts(direction))
        arrow = "c>s" if direction == "client_to_server" else "s>c"
        turns = []
        begun = at = 0
        for event in self.entry["timeline"]:
            length = re.search(r" len=(\d+)", event)
            if event.startswith(arrow) and length is not None:
                at += 8 + (8 if " GOAWAY " in event else int(length[1]))  # v1's says another length
            elif at > begun:
                turns.append(data[begun:at])
                begun = at
        turns.append(data[begun:])
        assert at == len(data)
        return [turn for turn in turns if turn]


@cache
def transcript(scenario: str, generation: str = "v2") -> Transcript:
    """Return the transcript of a scenario, of Go's "v2" or its "v1"."""
    path = DATA / "transcripts" / f"{generation}-{scenario}.json"
    return Transcript(json.loads(path.read_text()))


def _segment(segment: dict[str, Any]) -> bytes:
    if "hex" in segment:
        return bytes.fromhex(segment["hex"])
    assert segment["pattern"] == "mod251"
    return mod251(segment["start"], segment["len"])
