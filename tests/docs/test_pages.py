"""What the pages show: every example compiles, every link leads somewhere, hex dumps are frames.

The README's first screen runs here, the tutorial and the how-to pages in `test_guides.py`.
"""

from __future__ import annotations

import ast
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from muxado.wire import FORMATS
from muxado.wire.codec import BAD_FRAME, NEED_MORE
from tests.patience import patience

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in FENCE.findall(page.read_text()) if name == language]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """Wait until something listens; the connection attempt itself is the test."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except ConnectionRefusedError:
            continue
        return


def test_the_first_screen_of_the_readme_runs() -> None:
    server_code, client_code = blocks(ROOT / "README.md", "python")[:2]
    port = free_port()
    server = subprocess.Popen([sys.executable, "-c", server_code.replace("4000", str(port))])
    try:
        wait_for(port)
        client = subprocess.run(
            [sys.executable, "-c", client_code.replace("4000", str(port))],
            capture_output=True,
            timeout=patience(30),
            check=True,
        )
    finally:
        server.kill()
        server.wait()
    assert ast.literal_eval(client.stdout.decode()) == [b"%d" % n for n in range(1000)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_block_compiles(page: Path) -> None:
    for code in blocks(page, "python"):
        compile(code, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_hex_dump_of_the_protocol_page_is_whole_frames() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    v2, v1 = text.split("## 15. The first generation", 1)
    for part, wire, least in ((v2, "muxado-v2", 10), (v1, "muxado-v1", 1)):
        dumps = [dump for language, dump in FENCE.findall(part) if language == "hex"]
        assert len(dumps) >= least
        for dump in dumps:
            data = bytes.fromhex(dump)
            decoder = FORMATS[wire].new_decoder()
            decoder.space()[: len(data)] = data
            decoder.filled(len(data))
            while (kind := decoder.next()) != NEED_MORE:
                assert kind != BAD_FRAME, dump
                decoder.skip()
            assert not decoder.inside_frame(), dump


def test_the_readme_keeps_its_promises_of_files() -> None:
    for name in (
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "src/muxado/py.typed",
    ):
        assert (ROOT / name).is_file()


def asks(source: Path) -> Iterator[tuple[str, str]]:
    """Yield which rules of the wire formats a module asks for, with the method that does."""
    classes = [
        node for node in ast.parse(source.read_text()).body if isinstance(node, ast.ClassDef)
    ]
    for part in classes:
        for method in [node for node in part.body if isinstance(node, ast.FunctionDef)]:
            for node in ast.walk(method):
                if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("rules"):
                    yield node.attr, f"{part.name}.{method.name}"


def test_the_architecture_page_says_who_asks_each_rule_of_a_format() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    table = text.partition("### Who asks a format's rules")[2].partition("\n## ")[0]
    told = {
        (rule, method)
        for rules, methods in re.findall(r"^\| (`.*?) \| .* \| (.*) \|$", table, re.MULTILINE)
        for rule in re.findall(r"`(\w+)`", rules)
        for method in re.findall(r"`(\w+\.\w+)`", methods)
    }
    core = (ROOT / "src/muxado/core").glob("*.py")
    assert told == {asked for source in core for asked in asks(source)}


def test_the_core_s_page_names_what_front_ends_ask_of_a_session_s_parts() -> None:
    text = (ROOT / "docs/api/core.md").read_text()
    rows = dict(re.findall(r"^\| `session\.(\w+)` \| (.*) \|$", text, re.MULTILINE))
    told = {(part, name) for part in rows for name in re.findall(r"`(\w+)(?:\(\))?`", rows[part])}
    asked = {
        found
        for source in (ROOT / "src/muxado").rglob("*.py")
        if source.parent.name != "core"
        for found in re.findall(rf"core\.({'|'.join(rows)})\.(\w+)", source.read_text())
    }
    assert len(rows) == 4
    assert asked <= told


def test_the_files_that_the_architecture_page_names_are_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"`([a-z_]+/[a-z_0-9]+\.py)`", text))
    assert len(named) > 10
    source = ROOT / "src/muxado"
    roots = (source, ROOT)
    assert [name for name in sorted(named) if not any((r / name).exists() for r in roots)] == []
