"""A peer in a process of its own, which echoes every stream: `python -m tests.reliability.peer`.

It prints its port, and then a line for each session that has ended.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

import muxado
from muxado import Config, Session

from ..helpers import echo


class Peer:
    """The process, while the block runs.

    Attributes:
        address: where to dial it.
        process: the process.
    """

    def __init__(self, **settings: Any) -> None:
        """Give its sessions these settings, as `Config` has them."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.peer", json.dumps(settings)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self._lines = self.process.stdout
        self.address = ("127.0.0.1", int(self._lines.readline()))

    async def next_end(self) -> str:
        """Wait for the next session's end, and return the reason."""
        return await asyncio.to_thread(self._lines.readline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._lines.close()


async def main(settings: dict[str, Any]) -> None:
    """Serve until killed."""

    async def handle(session: Session) -> None:
        try:
            await session.serve(echo)
        finally:
            print(session.close_reason, flush=True)

    async with muxado.serve(handle, "127.0.0.1", 0, config=Config(**settings)) as server:
        print(server.addresses[0][1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
