"""Drives a Go peer: a process with one muxado session, see peer/README.md."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from tests.patience import patience

SOURCE = Path(__file__).parent / "peer"

# What the tests call a release, and how it is built.
RELEASES = {"v2.0.2": [], "v2.0.1": ["-modfile=go-2.0.1.mod"]}
NEWEST = "v2.0.2"

# Seconds. Go gives up on a command before we give up on Go.
GO_TIMEOUT = patience(30)
GRACE = patience(3)
BUILD_TIMEOUT = patience(600)

# The longest line that Go may print.
LINE_LIMIT = 4 * 1024 * 1024

Fields = dict[str, Any]


class GoToolchainMissing(Exception):
    """There is no `go` command here."""


class GoError(Exception):
    """A command has failed.

    Attributes:
        reply: everything Go has said about it.
        code: muxado's error code, None if it was no error of muxado's.
    """

    def __init__(self, command: str, reply: Fields) -> None:
        super().__init__(f"{command}: {reply.get('error')}")
        self.reply = reply
        self.code: int | None = reply.get("code")


def build(folder: Path) -> dict[str, Path]:
    """Build a peer with each release into `folder`; return the programs by release.

    Raises:
        GoToolchainMissing: it can't be done here.
        RuntimeError: the build failed.
    """
    go = shutil.which("go")
    if go is None:
        raise GoToolchainMissing("the Go toolchain is missing: no `go` in PATH")
    programs = {}
    for release, flags in RELEASES.items():
        program = folder / f"peer-{release}"
        command = [go, "build", *flags, "-o", str(program), "."]
        result = subprocess.run(
            command, cwd=SOURCE, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT
        )
        if result.returncode:
            raise RuntimeError(f"building the Go peer {release} failed:\n{result.stderr}")
        programs[release] = program
    return programs


def flags(options: Fields) -> list[str]:
    """Turn keyword arguments into the program's flags."""
    arguments = []
    for name, value in options.items():
        flag = "-" + name.replace("_", "-")
        if value is True:
            arguments.append(flag)
        elif value is not False and value is not None:
            arguments += [flag, str(value)]
    return arguments


class GoPeer:
    """A running Go peer.

    Attributes:
        pid: the process's number.
        killed: True once `kill` was called.
    """

    def __init__(self, process: asyncio.subprocess.Process, stderr: Path) -> None:
        """Not for tests: see `start`."""
        self.killed = False
        self._process = process
        self._stderr = stderr
        self._commands: dict[int, tuple[str, asyncio.Future[Fields]]] = {}
        self._last_id = 0
        self._events: list[Fields] = []
        self._waiters: list[tuple[Fields, asyncio.Future[Fields]]] = []
        self._said: list[str] = []
        self._reading = asyncio.get_running_loop().create_task(self._read(), name="Go's output")

    @classmethod
    async def start(cls, program: Path, stderr: Path, **options: Any) -> GoPeer:
        """Start the program; Go's stderr goes to a file."""
        options.setdefault("timeout", f"{GO_TIMEOUT}s")
        with stderr.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                program,
                *flags(options),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                limit=LINE_LIMIT,
                env=os.environ | {"GOTRACEBACK": "all"},
            )
        return cls(process, stderr)

    @property
    def pid(self) -> int:
        return self._process.pid

    # Talking

    def call(self, command: str, **fields: Any) -> Awaitable[Fields]:
        """Send a command at once; await what is returned for its reply.

        Raises:
            GoError: when awaited, if the command has failed.
            TimeoutError: when awaited, if Go says nothing within the command's `timeout`.
        """
        self._last_id += 1
        number = self._last_id
        seconds = fields.setdefault("timeout", GO_TIMEOUT) + GRACE
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Fields] = loop.create_future()
        self._commands[number] = command, reply
        self._expire(reply, seconds, f"no reply to {command} from Go within {seconds} s")
        assert self._process.stdin is not None
        self._process.stdin.write(
            json.dumps({"id": number, "cmd": command} | fields).encode() + b"\n"
        )
        return reply

    async def event(self, name: str, *, timeout: float = 10.0, **match: Any) -> Fields:
        """Wait for the next event of this name and fields that no call has returned yet."""
        wanted = {"event": name} | match
        for event in self._events:
            if wanted.items() <= event.items():
                self._events.remove(event)
                return event
        if self._reading.done():
            raise EOFError(f"Go has ended and will not say {wanted}")
        waiter: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        self._waiters.append((wanted, waiter))
        self._expire(waiter, patience(timeout), f"Go has not said {wanted} within {timeout} s")
        return await waiter

    def seen(self, name: str, **match: Any) -> int:
        """Return how many such events have come that no call has returned yet."""
        wanted = {"event": name} | match
        return sum(wanted.items() <= event.items() for event in self._events)

    def log(self) -> str:
        """Return what Go has said, for the report of a failed test."""
        errors = self._stderr.read_text(errors="replace")
        return f"stderr:\n{errors}\nstdout, last lines:\n" + "".join(self._said)

    async def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        async for line in stdout:
            self._said = [*self._said[-40:], line.decode()[:500].rstrip() + "\n"]
            said = json.loads(line)
            if "event" in said:
                self._heard(said)
            else:
                self._answer(said)
        ended = EOFError("the Go peer has ended")
        waiting = [reply for _, reply in (*self._commands.values(), *self._waiters)]
        for future in waiting:
            if not future.done():
                future.set_exception(ended)
                future.exception()  # otherwise asyncio logs it if no test awaits the reply

    def _heard(self, event: Fields) -> None:
        for entry in self._waiters:
            wanted, waiter = entry
            if not waiter.done() and wanted.items() <= event.items():
                self._waiters.remove(entry)
                waiter.set_result(event)
                return
        self._events.append(event)

    def _answer(self, said: Fields) -> None:
        command, reply = self._commands.pop(said["id"])
        if reply.done():
            return
        if said["ok"]:
            reply.set_result(said)
            return
        assert not said.get("bad_request"), f"the test's mistake: {said}"
        reply.set_exception(GoError(command, said))
        reply.exception()  # a test that awaits it gets it all the same

    @staticmethod
    def _expire(future: asyncio.Future[Fields], seconds: float, text: str) -> None:
        def expire() -> None:
            if not future.done():
                future.set_exception(TimeoutError(text))
                future.exception()

        timer = asyncio.get_running_loop().call_later(seconds, expire)
        future.add_done_callback(lambda _: timer.cancel())

    # Ending

    def kill(self) -> None:
        """Kill the process, as if it had crashed."""
        self.killed = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def finish(self) -> None:
        """End the process by ending its stdin; it must end well, unless it was killed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(GRACE):
                code = await self._process.wait()
                await self._reading
        except TimeoutError:
            self.kill()
            await self._process.wait()
            self._reading.cancel()
            await asyncio.wait([self._reading])
            raise AssertionError("the Go peer did not end when its stdin did") from None
        assert self.killed or code == 0, f"the Go peer has ended with code {code}"
