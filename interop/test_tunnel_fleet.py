"""`muxado server` as a fleet, by its commands, on live engines: restarts, workers, one use."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.patience import patience

from .engines import ENGINES, Engine, Redis
from .helpers import free_port

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.patience(60),
    pytest.mark.timeout(patience(70)),
    pytest.mark.usefixtures("no_tasks_left"),
]

LOCAL = "127.0.0.1"


class Fleet:
    """Commands on one folder, and an engine.

    Attributes:
        made: requests that were answered.
        failed: why the others were not.
    """

    def __init__(self, engine: Engine, folder: Path, stack: AsyncExitStack) -> None:
        self.engine = engine
        self.folder = folder
        self.made = 0
        self.failed: list[BaseException] = []
        self.stop = asyncio.Event()
        self._stack = stack

    async def start(self, *words: str, said: str = "") -> asyncio.subprocess.Process:
        """Run a command; give it a line."""
        with (self.folder / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "muxado", *words),
                cwd=self.folder,
                env=os.environ | {"MUXADO_DIRECTORY": self.engine.url},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert process.stdin is not None
        process.stdin.write(said.encode())
        self._stack.push_async_callback(end, process)
        return process

    async def server(self, port: int, *words: str) -> asyncio.subprocess.Process:
        """Run a server until it listens."""
        listen = ("--listen", f"{LOCAL}:{port}", "--state", "s", "--grace", str(patience(8)))
        process = await self.start("server", *listen, *words)
        await line_with(process, "listening on")
        return process

    async def invite(self, name: str, *rules: str) -> str:
        allowed = [word for rule in rules for word in ("--allow", rule)]
        process = await self.start("invite", name, "--state", "s", *allowed)
        return await line_with(process, "muxado://")

    @asynccontextmanager
    async def asking(self, port: int, at_once: int) -> AsyncIterator[None]:
        """Make requests while the block runs."""
        tasks = [asyncio.create_task(self.ask(port)) for _ in range(at_once)]
        try:
            yield
            self.stop.set()
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def ask(self, port: int) -> None:
        """Make requests, one after the other, until told to stop."""
        while not self.stop.is_set():
            try:
                async with asyncio.timeout(patience(5)):
                    reader, writer = await asyncio.open_connection(LOCAL, port)
                    writer.write(b"question")
                    writer.write_eof()
                    assert await reader.read() == b"QUESTION"
                    writer.close()
            except (OSError, AssertionError) as exc:
                self.failed.append(exc)
                await asyncio.sleep(0.05)
            else:
                self.made += 1

    async def more(self, count: int) -> None:
        """Wait until so many more requests were made."""
        goal = self.made + count
        while self.made < goal:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def line_with(process: asyncio.subprocess.Process, text: str) -> str:
    """Read lines until one has a text."""
    assert process.stdout is not None
    while text not in (line := (await process.stdout.readline()).decode()):
        assert line
    return line


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def capitals(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):  # what a killed server had in flight is reset
        writer.write((await reader.read()).upper())
    writer.close()


@pytest.fixture(params=ENGINES, ids=["redis", "nats"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet without servers, on an engine that runs."""
    engine = request.param(tmp_path)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.stop)
        await engine.start()
        fleet = Fleet(engine, tmp_path, stack)
        yield fleet
        log = (tmp_path / "log").read_text()
        assert "Traceback" not in log


async def test_a_rolling_restart_by_commands_fails_no_request(fleet: Fleet) -> None:
    ports = [free_port(), free_port()]
    public, near = free_port(), free_port()
    servers = [await fleet.server(port) for port in ports]
    home = await fleet.invite("home", "private:web", f"expose:{public}")
    office = await fleet.invite("office", "reach:web")
    async with await asyncio.start_server(capitals, LOCAL, 0) as target:
        address = f"{LOCAL}:{target.sockets[0].getsockname()[1]}"
        (fleet.folder / "client.toml").write_text(
            f'[expose.web]\ntarget = "{address}"\nprivate = true\n'
            f'[expose.shown]\ntarget = "{address}"\nport = {public}\n'
        )
        running = await fleet.start("run", "client.toml", "--to", "-", "--state", "h", said=home)
        await line_with(running, str(public))
        using = await fleet.start(
            "forward", f"{near}:web", "--to", "-", "--state", "o", said=office
        )
        await line_with(using, "->")
        async with fleet.asking(near, 4):
            await fleet.more(50)
            for at, port in enumerate(ports):
                servers[at].send_signal(signal.SIGTERM)
                assert await servers[at].wait() == 0
                servers[at] = await fleet.server(port)
                await fleet.more(50)
        # Its port has gone with the client, from server to server.
        reader, writer = await asyncio.open_connection(LOCAL, public)
        writer.write(b"here?")
        writer.write_eof()
        assert await reader.read() == b"HERE?"
        writer.close()
        target.close()
    print(f"{fleet.made} requests made, {len(fleet.failed)} failed")
    assert fleet.failed == []


@pytest.mark.parametrize("fleet", [Redis], ids=["redis"], indirect=True)
async def test_workers_are_one_server_and_one_that_is_killed_comes_back(fleet: Fleet) -> None:
    port, near = free_port(), free_port()
    # The grace is longer than the test, which would fail if the end waited for it.
    server = await fleet.server(port, "--workers", "2", "--grace", "600")
    both = await fleet.invite("laptop", "private:web", "reach:web")
    async with await asyncio.start_server(capitals, LOCAL, 0) as target:
        address = f"{LOCAL}:{target.sockets[0].getsockname()[1]}"
        state = ("--state", "c")
        offering = await fleet.start(
            "expose", f"web={address}", "--private", "--to", "-", *state, said=both
        )
        await line_with(offering, "private web")
        using = await fleet.start("forward", f"{near}:web", *state)
        await line_with(using, "->")
        async with fleet.asking(near, 1):
            await fleet.more(20)
            workers = children(server.pid)
            assert len(workers) == 2
            for each in workers:
                os.kill(each, signal.SIGKILL)
                while len(found := children(server.pid)) < 2 or each in found:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                await fleet.more(20)
        server.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
        target.close()


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
