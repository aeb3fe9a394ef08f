"""A server in a process of its own, which echoes every stream, and can be killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CODE = """
import asyncio, sys, muxado

async def echo(stream):
    while data := await stream.read(65536):
        await stream.write(data)

async def main():
    async with muxado.serve_streams(echo, "127.0.0.1", int(sys.argv[1])) as server:
        print(server.addresses[0][1], flush=True)
        await server.serve_forever()

asyncio.run(main())
"""


class Killable:
    """The process.

    Attributes:
        address: where it listens.
    """

    def __init__(self, port: int) -> None:
        command = [sys.executable, "-c", CODE, str(port)]
        root = Path(__file__).parent.parent
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root)
        assert self._process.stdout is not None
        self.address = "127.0.0.1", int(self._process.stdout.readline())

    def kill(self) -> None:
        """Kill it with SIGKILL. Harmless if repeated."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def killable(port: int = 0) -> Iterator[Killable]:
    """Run one for the length of a block.

    Args:
        port: where it listens; 0 for any free port.
    """
    server = Killable(port)
    try:
        yield server
    finally:
        server.kill()
