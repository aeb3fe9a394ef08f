"""Coverage-guided fuzzing of a whole session: `python tests/fuzz/atheris_session.py CORPUS`.

Needs atheris; takes libFuzzer's options, such as `-max_total_time=SECONDS`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["muxado.core", "muxado.wire"]):
    from muxado.build import COMPILED

from tests.fuzz.play import play


def main() -> None:
    """Fuzz until told to stop, or a rule is broken."""
    if COMPILED:
        sys.exit("the compiled core can't be instrumented: install the pure one")
    atheris.Setup(sys.argv, play)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
