"""The pure build in a process of its own, beside a compiled one that is being tested.

Asked over stdin and stdout, a line each: an input for `play` in hexadecimal, answered by all
that came of it; or "time", answered by the processor seconds of a fixed piece of work.
"""

from __future__ import annotations

import importlib.machinery as machinery
import sys
from time import process_time


def prefer_sources() -> None:
    """Have the Python files imported although compiled ones lie beside them."""
    finder = machinery.FileFinder.path_hook(
        (machinery.SourceFileLoader, machinery.SOURCE_SUFFIXES),
        (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
    )
    sys.path_hooks.insert(0, finder)
    sys.path_importer_cache.clear()


def outcome(data: bytes) -> str:
    """Play an input; return all that can be seen of it, in words."""
    from .play import play

    try:
        player = play(data)
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"
    seen = (bytes(player.out), player.read, player.core.reason, player.core.stats())
    return repr(seen)


def seconds() -> float:
    """Return what a fixed number of requests costs in processor time."""
    from ..core.pair import Pair
    from ..core.test_hot_path import request

    pair = Pair()
    start = process_time()
    for _ in range(1000):
        request(pair)
    return process_time() - start


def main() -> None:
    """Answer until stdin ends."""
    prefer_sources()
    from muxado.build import COMPILED

    assert not COMPILED
    for line in sys.stdin:
        asked = line.strip()
        answer = str(seconds()) if asked == "time" else outcome(bytes.fromhex(asked))
        print(answer, flush=True)


if __name__ == "__main__":
    main()
