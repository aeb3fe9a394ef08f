"""Machine instructions that starting takes, by `import asyncio`: `python -m benchmarks.starting`.

Each is a whole process under valgrind, with everything in the bytecode cache. It takes two minutes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

from .instructions import ROOT, build_of


class Start(NamedTuple):
    """What is started, and how much of `import asyncio` that may take at most, and should."""

    arguments: list[str]
    floor: float | None = None
    aim: float | None = None


MEASURE = Start(["-c", "import asyncio"])
STARTS = [
    Start(["-c", "pass"]),
    Start(["-c", "import muxado"]),
    Start(["-c", "import muxado.core"], 0.7, 0.5),
    Start(["-c", "import muxado.sync"]),
    Start(["-m", "muxado", "--version"], 1.4, 0.95),
]


def instructions(python: str, arguments: list[str]) -> int:
    """Return the instructions of a process."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    # The first one fills the cache.
    subprocess.run([python, *arguments], cwd=ROOT, env=environment, capture_output=True, check=True)
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run(
        [*command, python, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        sys.exit(f"valgrind failed:\n{done.stderr}")
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.starting",
        description="Count the machine instructions of starting; needs valgrind.",
    )
    parser.add_argument("--python", default=sys.executable, help="the interpreter to measure")
    python = parser.parse_args().python
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is needed: a package of that name has it")
    measure = instructions(python, MEASURE.arguments)
    print(f"{build_of(python)}; import asyncio: {measure / 1e6:.0f} million")
    for start in STARTS:
        ratio = instructions(python, start.arguments) / measure
        line = f"{' '.join(start.arguments):25} {ratio:.2f}"
        if start.floor is not None:
            missed = ", missed" if ratio > start.floor else ""
            line += f"  (floor {start.floor}, aim {start.aim}{missed})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
