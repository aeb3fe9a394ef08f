"""Inputs to begin with: the golden frames and conversations, as `play` takes them.

Run as a program it writes them into a folder: `python tests/fuzz/seeds.py FOLDER`.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from muxado.wire import FORMATS
from tests.golden import DATA, transcript, vectors

CLIENT, TYPED, TINY, WIRE = 1, 2, 4, 8

# accept, write, take, flush, accept, take, finish, close, flush: what most applications do.
USUAL = bytes([0x01, 0x53, 0x25, 0xFE, 0x11, 0x06, 0x09, 0x0A, 0xFE])
LONGEST = 3000


@cache
def seeds() -> dict[str, bytes]:
    """Return the inputs by name: every frame in both roles, every conversation from both ends."""
    inputs: dict[str, bytes] = {}
    for number, name in enumerate(FORMATS):
        for vector in vectors(name):
            # Of those that Go refused to make, there are no bytes.
            if vector.entry["hex"] is not None and len(vector.wire) <= LONGEST:
                for flags in (0, CLIENT | TYPED):
                    head = bytes([flags + WIRE * number, 0])
                    inputs[f"frame-{name}-{vector.name}-{flags}"] = head + vector.wire
    for path in sorted((DATA / "transcripts").glob("v2-*.json")):
        scenario = path.stem.removeprefix("v2-")
        typed = TYPED if "typed" in scenario else 0
        for direction, role in (("server_to_client", CLIENT), ("client_to_server", 0)):
            wire = b"".join(transcript(scenario).parts(direction))[:LONGEST]
            for tiny in (0, TINY):
                head = bytes([role | typed | tiny, len(USUAL)]) + USUAL
                inputs[f"{scenario}-{direction}-{tiny}"] = head + wire
    return inputs


def main() -> None:
    """Write the inputs as files."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (folder / name.replace("/", "_")).write_bytes(data)
    print(f"{len(seeds())} seeds in {folder}")


if __name__ == "__main__":
    main()
