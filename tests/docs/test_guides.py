"""The tutorial and the how-to pages: their programs run, and print what the pages say.

A page's Python blocks are one program, from top to bottom, and its `output` blocks are all that
it prints. Longer programs are included from `examples/`, which has its own test.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.patience import patience

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OF_COMMANDS = DOCS / "howto" / "deploy.md"  # which has no program
GUIDES = [DOCS / "tutorial.md", *sorted({*(DOCS / "howto").glob("*.md")} - {OF_COMMANDS})]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
INCLUDE = re.compile(r"^```\{literalinclude\} (\S+)$", re.M)


def parts(page: Path, language: str) -> str:
    """Return the blocks of one language, each at the line where the page has it."""
    lines: list[str] = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines(keepends=True):
        if inside and line.startswith("```"):
            inside = False
        lines.append(line if inside else "\n")
        if line.startswith(f"```{language}\n"):
            inside = True
    return "".join(lines)


def imported(code: str) -> set[str]:
    """Return the packages that a program imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_page_runs_and_prints_what_it_says(page: Path, tmp_path: Path) -> None:
    code = parts(page, "python")
    if not code.strip():
        assert INCLUDE.search(page.read_text(encoding="utf-8")), "a page without a program"
        return
    for name in imported(code):
        if find_spec(name) is None:  # where a package is tested without the adapters' libraries
            pytest.skip(f"{name} is not installed")
    program = tmp_path / f"page_{page.stem}.py"
    program.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", program],
        capture_output=True,
        text=True,
        timeout=patience(50),
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.split("\n") == [*filter(None, parts(page, "output").split("\n")), ""]


def test_what_is_included_is_an_example_and_each_example_is_included() -> None:
    found = {
        (page.parent / target).resolve()
        for page in DOCS.rglob("*.md")
        for target in INCLUDE.findall(page.read_text(encoding="utf-8"))
    }
    assert found == {example.resolve() for example in EXAMPLES}
