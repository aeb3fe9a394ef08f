"""The table of docs/reliability.md has every lesson, and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
# A source distribution may come without these.
FOLDERS = [folder for folder in ("tests", "interop", "benchmarks") if (ROOT / folder).is_dir()]


def test_every_lesson_has_its_row() -> None:
    assert re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE) == [str(n) for n in range(1, 34)]


def test_every_test_of_the_table_exists() -> None:
    named = re.findall(r"`((?:tests|interop|benchmarks)/[\w/]+\.(?:py|md))(?:::(\w+))?`", PAGE)
    assert len(named) > 60
    missing = [
        f"{path}::{name}"
        for path, name in named
        if path.split("/")[0] in FOLDERS and not exists(ROOT / path, name)
    ]
    assert missing == []


def exists(path: Path, name: str) -> bool:
    if not path.is_file():
        return False
    return not name or f"def {name}(" in path.read_text(encoding="utf-8")
