"""`muxado top` beside a process that serves many streams, and its picture."""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")

from rich.console import Console

from muxado.cli.top import Look, draw, duration, run, size
from tests.patience import patience

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "SO_PEERCRED") and sys.platform != "darwin", reason="no admin socket"
)

PROGRAM = """
import asyncio, sys, muxado

async def echo(stream):
    while data := await stream.read(1000):
        await stream.write(data)

async def main():
    config = muxado.Config(max_incoming_streams=20000, accept_backlog=20000)
    async with muxado.serve(lambda s: s.serve(echo), "127.0.0.1", 0, config=config) as server:
        async with muxado.connect(*server.addresses[0], config=config) as session:
            session.name = "[bold]\\x1b"
            kept = [session.open() for _ in range(int(sys.argv[2]))]

            async def work(stream):
                while True:
                    await stream.write(bytes(64))
                    await stream.readexactly(64)

            tasks = [asyncio.create_task(work(stream)) for stream in kept]
            while server.stats().total.streams < len(kept):
                await asyncio.sleep(0.01)
            muxado.serve_admin(sys.argv[1])
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            session.abort()

asyncio.run(main())
"""


@pytest.fixture
def path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="mux") as folder:
        yield str(Path(folder) / "s")


@pytest.fixture
def busy(path: str) -> Iterator[str]:
    """Another process with 10,000 streams under load at each end, and its admin socket."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, path, "10000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield path
        process.stdin.close()
        assert process.wait(patience(30)) == 0


def test_another_process_is_shown(busy: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "muxado", "top", busy, "--once", "--interval", "0.5", "--most", "7"],
        capture_output=True,
        text=True,
        timeout=patience(30),
        env={"COLUMNS": "160", "PYTHONPATH": ":".join(sys.path), "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 sessions, 20,000 streams" in done.stdout
    assert "7 of 10,000, by bytes" in done.stdout
    assert "[bold]\\x1b" in done.stdout
    assert re.search(r"client +127\.0\.0\.1:\d+ +open", done.stdout)
    assert len(re.findall(r"^ \d+ +out +open ", done.stdout, re.M)) == 7
    assert "\x1b" not in done.stdout, "no terminal, no colours"


def test_what_answers_and_shows_no_sessions_is_told(path: str) -> None:
    output = io.StringIO()
    console = Console(file=output, width=200)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def answer() -> None:
            sock, _ = listening.accept()
            with sock, sock.makefile("rb") as questions:
                questions.readline()
                sock.sendall(b'{"error": "unknown question"}\n')

        thread = threading.Thread(target=answer)
        thread.start()
        status = run(
            path, interval=0.1, once=True, number=None, most=5, sort="bytes", console=console
        )
        thread.join()
    assert status == 1
    assert f"what answers at {path} shows no sessions of muxado" in output.getvalue()


def test_a_path_that_nothing_answers_at_is_told(path: str) -> None:
    output = io.StringIO()
    console = Console(file=output, width=200)
    status = run(path, interval=0.1, once=True, number=None, most=5, sort="bytes", console=console)
    assert status == 1
    assert f"nothing answers at {path}: No such file" in output.getvalue()


def stats(**values: object) -> dict[str, object]:
    return {
        "streams": 2,
        "bytes_sent": 0,
        "bytes_received": 0,
        "rtt": 0.0,
        "memory_held": 0,
        "bytes_queued": 0,
    } | values


def session(**values: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "name": "agent",
        "role": "server",
        "remote_address": "192.0.2.1:7",
        "state": "open",
        "opened_at": 0.0,
        "last_heard_at": 95.0,
        "stats": stats(),
    } | values


def stream(**values: Any) -> dict[str, Any]:
    return {
        "id": 3,
        "type": 7,
        "direction": "in",
        "state": "open",
        "age": 61,
        "bytes_sent": 0,
        "bytes_received": 0,
        "unread": 0,
        "queued": 0,
        "waits_for": [],
    } | values


def look(now: float, sessions: list[dict[str, Any]], streams: list[dict[str, Any]]) -> Look:
    about = {"process": 1, "program": "hub", "muxado": "1", "now": now, "count": 1, "streams": 2}
    return Look(
        about | {"sessions": sessions},
        {"now": now, "session": 1, "count": len(streams), "streams": streams},
    )


def picture(before: Look | None, now: Look) -> str:
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(draw(before, now, "bytes"))
    return console.export_text()


def test_rates_are_those_between_two_looks() -> None:
    before = look(100.0, [session()], [stream()])
    now = look(
        102.0,
        [session(stats=stats(bytes_sent=20480, rtt=0.01))],
        [stream(bytes_received=2000, unread=2000, waits_for=["reader", "credit"])],
    )
    shown = picture(before, now)
    assert "10.0 KiB" in shown
    assert "10.00 ms" in shown
    assert "10.0 KiB" not in picture(None, now)
    assert re.search(r"2\.0 KiB +1000 B|2\.0 KiB +1\.0 KiB", shown)
    assert "reader, credit" in shown
    assert "0x7" in shown


def test_a_name_can_not_draw_on_the_screen() -> None:
    shown = picture(None, look(1.0, [session(name="\x1b[2J[red]evil")], []))
    assert "\\x1b[2J[red]evil" in shown


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, ""),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (200 * 1024, "200 KiB"),
        (5 * 2**40, "5.0 TiB"),
        (5e6 * 2**40, "5000000 TiB"),
    ],
)
def test_sizes_are_short(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (1.25, "1.2 s"), (61, "61 s"), (600, "10 min"), (9000, "2 h"), (1e6, "12 d")],
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
