"""The programs of docs/howto/go.md, Go's and ours, against each other."""

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

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "go.md").read_text(encoding="utf-8")
SERVER, CLIENT = re.findall(r"^```go\n(.*?)^```", PAGE, re.M | re.S)
OURS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)[:2]  # the third runs them at once


@pytest.fixture
def ours() -> dict[str, Any]:
    """What the page's Python blocks define."""
    names: dict[str, Any] = {}
    exec("\n".join(OURS), names)
    return names


@pytest.fixture
def port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        number: int = sock.getsockname()[1]
        return number


def built(code: str, port: int, folder: Path) -> Path:
    """Build one of the page's Go programs, for another port than its own."""
    for name in ("go.mod", "go.sum"):
        shutil.copy(SOURCE / name, folder)
    (folder / "main.go").write_text(code.replace(":4000", f":{port}"), encoding="utf-8")
    subprocess.run(
        ["go", "build", "-o", "program", "."], cwd=folder, check=True, timeout=BUILD_TIMEOUT
    )
    return folder / "program"


async def test_a_server_in_go(ours: dict[str, Any], port: int, tmp_path: Path) -> None:
    server = await asyncio.create_subprocess_exec(built(SERVER, port, tmp_path))
    try:
        while True:
            try:
                assert await ours["ask"]("127.0.0.1", port) == b"hello, Go\n"
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)  # it does not listen yet
                continue
            break
    finally:
        server.kill()
        await server.wait()


async def test_a_client_in_go(ours: dict[str, Any], port: int, tmp_path: Path) -> None:
    program = built(CLIENT, port, tmp_path)
    async with await ours["listen"]("127.0.0.1", port):
        client = await asyncio.create_subprocess_exec(program, stdout=asyncio.subprocess.PIPE)
        out, _ = await client.communicate()
    assert (client.returncode, out) == (0, b"hello, Python\n")
