"""Draws docs/pictures/top.svg: `muxado top` beside a small fleet that is at work.

Run it as ``python tools/top_picture.py docs/pictures/top.svg``.
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

import muxado
from muxado.cli.top import Look, Process, draw, look

SECONDS = 2.0
PAUSES = {"agent-07.example.org": 0.001, "agent-12.example.org": 0.02, "agent-31.example.org": 0.2}
ECHO, HOLD = 1, 2  # types of streams
CONFIG = muxado.Config(typed=True)


async def answer(stream: muxado.Stream) -> None:
    """Send back what comes, or leave it unread."""
    if stream.type == HOLD:
        await stream.wait_reset()
    while data := await stream.read(65536):
        await stream.write(data)


async def ask(session: muxado.Session, size: int, pause: float) -> None:
    """Send something again and again, and read it back."""
    stream = session.open(type=ECHO)
    while True:
        await stream.write(bytes(size))
        await stream.readexactly(size)
        await asyncio.sleep(pause)


async def two_looks(path: str) -> tuple[Look, Look]:
    """Look at this very process, twice, at the server's first session."""
    (number, *_) = [each.id for each in muxado.sessions() if each.role == "server"]
    process = await asyncio.to_thread(Process, path)
    before = await asyncio.to_thread(look, process, number, 10, "bytes")
    await asyncio.sleep(SECONDS)
    now = await asyncio.to_thread(look, process, number, 10, "bytes")
    process.close()
    return before, now


async def agents(port: int) -> None:
    """Dial the hub, and serve what it opens; in a process of their own."""
    async with asyncio.TaskGroup() as group:
        for _ in PAUSES:
            session = await muxado.connect("127.0.0.1", port, config=CONFIG)
            group.create_task(session.serve(answer))


async def picture() -> str:
    """Run the fleet, look at its hub, and return the picture."""
    names = list(PAUSES)
    complete = asyncio.Event()

    async def hub(session: muxado.Session) -> None:
        session.name = names.pop(0)
        if not names:
            complete.set()
        asking = [ask(session, size, PAUSES[session.name]) for size in (64, 200, 4096, 30000)]
        tasks = [asyncio.create_task(each) for each in asking]
        held = session.open(type=HOLD)
        tasks.append(asyncio.create_task(held.write(bytes(300 * 1024))))
        await session.wait_closed()
        await asyncio.gather(*tasks, return_exceptions=True)

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "admin")
        async with muxado.serve(hub, "127.0.0.1", 0, config=CONFIG) as server:
            port = str(server.addresses[0][1])
            fleet = await asyncio.create_subprocess_exec(sys.executable, __file__, "--agents", port)
            await complete.wait()
            with muxado.serve_admin(path):
                await asyncio.sleep(SECONDS)
                before, now = await two_looks(path)
            now.sessions["program"] = "hub.py"
        await fleet.wait()
    console = Console(record=True, width=150, file=io.StringIO(), force_terminal=True)
    console.print(draw(before, now, "bytes"))
    svg = console.export_svg(title="muxado top /run/hub/admin", theme=MONOKAI)
    # Nothing is fetched for it: the reader's own font serves.
    svg = re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.S)
    return re.sub(r" +\n", "\n", svg)


if __name__ == "__main__":
    if sys.argv[1] == "--agents":
        asyncio.run(agents(int(sys.argv[2])))
    else:
        Path(sys.argv[1]).write_text(asyncio.run(picture()))
