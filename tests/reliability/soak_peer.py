"""The soak's other process: `python -m tests.reliability.soak_peer loop`.

It prints two ports, one for the traffic and one for the ledger's questions.
"""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import muxado
from muxado import Config, Session, SessionError, Stream

from .soak_ledger import Entries, packed
from .soak_traffic import accept_stream

SETTINGS: dict[str, Any] = {"ping_interval": 0.3, "ping_timeout": 0.7, "close_timeout": 2.0}


def run(work: Coroutine[Any, Any, None], loop: str) -> None:
    """Run a coroutine on the kind of event loop that is named."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


def resident(process: int | str = "self") -> float:
    """Return the resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * 4096 / 1024 / 1024


class SoakPeer:
    """The process, while the block runs.

    Attributes:
        process: the process.
        ports: where it listens for the traffic, and for the questions about it.
    """

    def __init__(self, loop: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.soak_peer", loop],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.ports: list[int] = json.loads(self.process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Books:
    """What the peer has seen since it was last asked."""

    def __init__(self) -> None:
        self._entries: Entries = {}
        self._sessions = 0
        self._quiet = asyncio.Condition()

    async def carry(self, session: Session) -> None:
        """Take part in the traffic of a session."""
        self._sessions += 1
        try:
            await session.serve(functools.partial(accept_stream, entries=self._entries))
        except SessionError:
            pass
        finally:
            # Streams that we opened end with their session, and so does what waits for them.
            await session.wait_closed()
            async with self._quiet:
                self._sessions -= 1
                self._quiet.notify_all()

    async def report(self, stream: Stream) -> None:
        """Wait until no session is left, and tell all that is known."""
        async with self._quiet:
            await self._quiet.wait_for(lambda: not self._sessions)
        entries = packed(self._entries)
        self._entries.clear()
        await stream.write(json.dumps(entries).encode())


async def main() -> None:
    """Serve until killed."""
    books = Books()

    async def answer(session: Session) -> None:
        await session.serve(books.report)

    config = Config(**SETTINGS)
    async with (
        muxado.serve(books.carry, "127.0.0.1", 0, config=config) as traffic,
        muxado.serve(answer, "127.0.0.1", 0) as questions,
    ):
        print(json.dumps([server.addresses[0][1] for server in (traffic, questions)]), flush=True)
        await traffic.serve_forever()


if __name__ == "__main__":
    run(main(), sys.argv[1])
