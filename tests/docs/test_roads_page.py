"""docs/roads.md names tests that exist, and counts them right."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.asyncio import test_contract as contract
from tests.contract import test_sessions as sessions
from tests.contract import test_streams as streams

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "roads.md").read_text(encoding="utf-8")
# A source distribution may come without these.
FOLDERS = [folder for folder in ("tests", "interop") if (ROOT / folder).is_dir()]
NAMED = sorted(set(re.findall(r"`((?:tests|interop)/[\w/]+\.py)(?:::(\w+))?`", PAGE)))


def functions(path: str) -> list[str]:
    """Return the names of a file's tests."""
    return re.findall(r"^(?:async )?def (test_\w+)\(", (ROOT / path).read_text("utf-8"), re.M)


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[f"{path}-{name}" for path, name in NAMED])
def test_a_test_of_the_page_exists(path: str, name: str) -> None:
    if path.split("/")[0] not in FOLDERS:
        pytest.skip("not in this distribution")
    assert (ROOT / path).is_file()
    assert not name or name in functions(path)


def count(module: ModuleType) -> int:
    """Return how many tests a module has, each with all of its parameters."""
    found = 0
    for name, test in vars(module).items():
        if name.startswith("test_"):
            marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
            found += math.prod(len(mark.args[1]) for mark in marks)
    return found


def test_the_numbers_of_tests_are_right() -> None:
    transports, fronts = count(contract), count(sessions) + count(streams)
    page = " ".join(PAGE.split())
    assert f"sessions and streams: {transports} tests, each on asyncio and on uvloop" in page
    assert f"all front ends: {fronts} tests for each pairing" in page
    rows = re.findall(r"\| (\d+) tests(?:, and (\d+) over TLS)?", PAGE)
    once = str(2 * transports)
    assert set(rows) == {(once, ""), (once, once), (str(fronts), str(3 * fronts))}
