"""The project's words: plain present-day English, and one word for one thing.

Each of these was a habit once that made sentences harder to read. The pattern stands beside what to
write instead.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

HABITS = {
    r"nobody": "say what happens: 'not claimed', 'unread', 'no peer', 'does not affect others'",
    r"whoever": "name them: 'the calls that wait', 'the caller'",
    r"farewell|last_word": "GOAWAY",
    r"in the midst": "'in the middle of', 'inside'",
    r", be it": "'whether it is'",
    r"shells?": "front end",
    r"(every|any)body": "name them: 'every client', 'the other peers', 'anyone'",
    r"but for": "'except'",
    r"(done|anything|nothing) by half": "'half done'",
    r"in vain": "say what does not happen",
    r"deaf": "say that it doesn't read, or that it hears nothing",
}
PATTERN = re.compile("|".join(rf"(?<![a-z]){habit}(?![a-z])" for habit in HABITS), re.IGNORECASE)

# Not these: a program called so, and this list.
ALLOWED = re.compile(r"secure shell|asyncssh|create_subprocess_shell|shell=|-shellcheck", re.I)
LEFT_OUT = "tests/test_words.py"


def sources() -> list[Path]:
    """Return the project's sources and pages, as git knows them; else those of its folders."""
    try:
        listed = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):  # an sdist is no checkout
        listed = [str(path.relative_to(ROOT)) for path in ROOT.glob("[a-z]*/**/*.*")]
    return [
        ROOT / name
        for name in listed
        if name.endswith((".py", ".md", ".toml", ".yml"))
        and not name.startswith(LEFT_OUT)
        and not name.startswith((".", "build", "dist"))
    ]


def found_in(text: str) -> list[str]:
    """Return the lines that fall back into a habit."""
    return [
        f"{number}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        if PATTERN.search(ALLOWED.sub("", line))
    ]


def test_no_page_and_no_source_falls_back_into_old_habits() -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sources()
        if path.exists() and (lines := found_in(path.read_text(encoding="utf-8")))
    }
    assert not found, f"{found}\nwrite instead: {HABITS}"


@pytest.mark.parametrize("line", ["# for nobody", "def test_close_wakes_whoever_waits():", "Shell"])
def test_a_habit_is_found(line: str) -> None:
    assert found_in(f"first\n{line}") == [f"2: {line}"]


def test_a_word_that_only_contains_one_is_no_habit() -> None:
    assert found_in("a shellfish, shelled; asyncssh's shell=True") == []
