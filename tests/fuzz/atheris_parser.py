"""Coverage-guided fuzzing of the parser alone: `python tests/fuzz/atheris_parser.py CORPUS`.

Input is whole frames in one piece, and the same bytes in pieces must give the same frames.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["muxado.wire"]):
    from muxado.wire.foreign import recognise

from muxado.wire import FORMATS
from muxado.wire.codec import BAD_FRAME
from tests.frames import cut_at, read_frames


def parse(data: bytes) -> None:
    """Parse an input as each wire's, in one piece, and in others that its first byte chooses."""
    step = data[0] % 23 + 1 if data else 1
    for wire in FORMATS.values():
        frames = read_frames([data], wire)
        assert frames == read_frames(cut_at(data, range(0, len(data), step)), wire)
        assert all(frame.kind != BAD_FRAME for frame in frames[:-1])
    assert isinstance(recognise(data), str)


def main() -> None:
    """Fuzz until told to stop, or the pieces matter."""
    atheris.Setup(sys.argv, parse)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
