"""The programs of the pages about Go, yamux and smux, Go's and ours, against each other."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .gopeer import BUILD_TIMEOUT, SOURCE

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.patience(40),
    pytest.mark.usefixtures("programs"),  # which skip without Go
]

DOCS = Path(__file__).parents[1] / "docs" / "howto"

# The pages, and where the modules are pinned that their Go programs need.
PAGES = {"go": SOURCE, "yamux": SOURCE.parent / "wires", "smux": SOURCE.parent / "wires"}


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def ours(page: str) -> dict[str, Any]:
    """Return what the page's Python blocks define; the last one runs them."""
    names: dict[str, Any] = {}
    exec("\n".join(blocks(page, "python")[:-1]), names)
    return names


@pytest.fixture
def port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        number: int = sock.getsockname()[1]
        return number


def built(page: str, number: int, port: int, folder: Path) -> Path:
    """Build one of a page's Go programs, for another port than its own."""
    code = blocks(page, "go")[number]
    for name in ("go.mod", "go.sum"):
        shutil.copy(PAGES[page] / name, folder)
    (folder / "main.go").write_text(code.replace(":4000", f":{port}"), encoding="utf-8")
    subprocess.run(
        ["go", "build", "-o", "program", "."], cwd=folder, check=True, timeout=BUILD_TIMEOUT
    )
    return folder / "program"


@pytest.mark.parametrize("page", PAGES)
async def test_a_server_in_go(page: str, port: int, tmp_path: Path) -> None:
    ask = ours(page)["ask"]
    server = await asyncio.create_subprocess_exec(built(page, 0, port, tmp_path))
    try:
        while True:
            try:
                assert await ask("127.0.0.1", port) == b"hello, Go\n"
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)  # it does not listen yet
                continue
            break
    finally:
        server.kill()
        await server.wait()


async def test_a_client_in_go(port: int, tmp_path: Path) -> None:
    program = built("go", 1, port, tmp_path)
    async with await ours("go")["listen"]("127.0.0.1", port):
        client = await asyncio.create_subprocess_exec(program, stdout=asyncio.subprocess.PIPE)
        out, _ = await client.communicate()
    assert (client.returncode, out) == (0, b"hello, Python\n")
