"""`muxado top`: the sessions and streams of a running process, by its admin socket."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

TIMEOUT = 10.0  # seconds for an answer
STREAM_ROWS = 20
SESSION_ROWS = 50


class NotServed(Exception):
    """The process can't be looked at; the text says why."""


class Process:
    """A process that serves its sessions at a path.

    Raises:
        NotServed: from every call, if it doesn't.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if not hasattr(socket, "AF_UNIX"):
            raise NotServed("this system has no Unix sockets")
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(TIMEOUT)
        try:
            self._sock.connect(path)
        except OSError as exc:
            self._sock.close()
            raise NotServed(f"nothing answers at {path}: {os.strerror(exc.errno or 0)}") from exc
        self._answers = self._sock.makefile("rb")

    def ask(self, **question: object) -> dict[str, Any]:
        """Return the answer to a question."""
        try:
            self._sock.sendall(json.dumps(question).encode() + b"\n")
            line = self._answers.readline()
            if not line:
                raise NotServed(f"the process at {self.path} answers no more")
            answer: dict[str, Any] = json.loads(line)
        except (OSError, ValueError) as exc:
            raise NotServed(f"the process at {self.path} answers no more: {exc}") from exc
        return answer

    def close(self) -> None:
        """Hang up."""
        self._answers.close()
        self._sock.close()


@dataclass(frozen=True)
class Look:
    """What a process was like at a moment.

    Attributes:
        sessions: its answer about its sessions.
        streams: its answer about one session's streams; None if there is no session.
    """

    sessions: dict[str, Any]
    streams: dict[str, Any] | None


def look(process: Process, number: int | None, most: int, sort: str) -> Look:
    """Ask for the sessions, and for the streams of one of them.

    Args:
        process: which one.
        number: the session's, None for the one with the most streams.
        most: how many streams.
        sort: what to choose them by.
    """
    sessions = process.ask(ask="sessions", most=SESSION_ROWS)
    listed = sessions.get("sessions")
    if not isinstance(listed, list):
        raise NotServed(f"what answers at {process.path} shows no sessions of muxado")
    if number is None and listed:
        number = max(listed, key=lambda each: each["stats"]["streams"])["id"]
    streams = None
    if number is not None:
        streams = process.ask(ask="streams", session=number, most=most, sort=sort)
    return Look(sessions, None if streams is None or "error" in streams else streams)


def run(
    path: str,
    *,
    interval: float,
    once: bool,
    number: int | None,
    most: int | None,
    sort: str,
    console: Console | None = None,
) -> int:
    """Show a process until it ends, or this is interrupted; return the exit status."""
    console = console or Console()
    once = once or not console.is_terminal
    rows = most if most is not None else (STREAM_ROWS if once else max(console.height - 14, 5))
    try:
        process = Process(path)
    except NotServed as exc:
        console.print(f"muxado top: {exc}", style="red", soft_wrap=True)
        return 1
    try:
        before: Look | None = None
        now = look(process, number, rows, sort)
        if once:
            time.sleep(interval)  # for the rates
            console.print(draw(now, look(process, number, rows, sort), sort))
            return 0
        with Live(draw(None, now, sort), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                before, now = now, look(process, number, rows, sort)
                live.update(draw(before, now, sort), refresh=True)
    except NotServed as exc:
        console.print(f"muxado top: {exc}", style="red", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        process.close()


# The picture


def draw(before: Look | None, now: Look, sort: str) -> RenderableType:
    """Return the picture of a look; the one before it is for the rates."""
    about = now.sessions
    head = Text.assemble(
        (f"{about['program']} ", "bold"),
        f"process {about['process']}, muxado {about['muxado']}: ",
        (f"{about['count']:,}", "bold"),
        " sessions, ",
        (f"{about['streams']:,}", "bold"),
        " streams",
    )
    parts: list[RenderableType] = [head, sessions_table(before, now)]
    if now.streams is not None:
        parts.append(streams_table(before, now, sort))
    return Group(*parts)


def sessions_table(before: Look | None, now: Look) -> Table:
    """Return the table of the sessions."""
    table = Table(box=None, header_style="reverse", expand=True, padding=(0, 1))
    for name in ("id", "name", "role", "peer", "state"):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for name in (
        "up",
        "heard",
        "streams",
        "sent/s",
        "received/s",
        "round trip",
        "unread",
        "queued",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    earlier = {each["id"]: each for each in before.sessions["sessions"]} if before else {}
    clock = now.sessions["now"]
    elapsed = clock - before.sessions["now"] if before else 0.0
    for each in now.sessions["sessions"]:
        stats = each["stats"]
        old = earlier.get(each["id"], {}).get("stats")
        table.add_row(
            str(each["id"]),
            plain(each["name"]),
            each["role"],
            plain(each["remote_address"]),
            each["state"],
            duration(clock - each["opened_at"]),
            duration(clock - each["last_heard_at"]),
            f"{stats['streams']:,}",
            rate(stats, old, "bytes_sent", elapsed),
            rate(stats, old, "bytes_received", elapsed),
            f"{1000 * stats['rtt']:.2f} ms" if stats["rtt"] else "",
            size(stats["memory_held"]),
            size(stats["bytes_queued"]),
        )
    return table


def streams_table(before: Look | None, now: Look, sort: str) -> Table:
    """Return the table of one session's streams."""
    assert now.streams is not None
    count, shown = now.streams["count"], len(now.streams["streams"])
    title = f"streams of session {now.streams['session']}: "
    title += f"{shown} of {count:,}, by {sort}" if shown < count else f"{count}, by {sort}"
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        header_style="reverse",
        expand=True,
        padding=(0, 1),
    )
    for name in ("id", "type", "direction", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("age", "sent", "received", "moved/s", "unread", "queued"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("waits for", no_wrap=True)
    earlier: dict[int, Mapping[str, Any]] = {}
    elapsed = 0.0
    if before is not None and before.streams is not None:
        earlier = {each["id"]: each for each in before.streams["streams"]}
        elapsed = now.streams["now"] - before.streams["now"]
        if before.streams["session"] != now.streams["session"]:
            earlier = {}
    for each in now.streams["streams"]:
        old = earlier.get(each["id"])
        table.add_row(
            str(each["id"]),
            "" if each["type"] is None else f"{each['type']:#x}",
            each["direction"],
            each["state"],
            duration(each["age"]),
            size(each["bytes_sent"]),
            size(each["bytes_received"]),
            rate(moved(each), None if old is None else moved(old), "moved", elapsed),
            size(each["unread"]),
            size(each["queued"]),
            ", ".join(each["waits_for"]),
        )
    return table


def moved(stream: Mapping[str, Any]) -> dict[str, int]:
    """Return a stream's bytes of both ways."""
    return {"moved": stream["bytes_sent"] + stream["bytes_received"]}


def plain(text: str) -> Text:
    """Return a text as it is: no markup, and nothing that moves the cursor."""
    return Text(text if text.isprintable() else ascii(text)[1:-1])


def rate(
    now: Mapping[str, Any], before: Mapping[str, Any] | None, name: str, elapsed: float
) -> str:
    """Return how much a counter has grown in a second, "" if that is unknown."""
    if before is None or elapsed <= 0:
        return ""
    return size((now[name] - before[name]) / elapsed)


def size(count: float) -> str:
    """Return a number of bytes in few characters; "" for none."""
    if count < 1:
        return ""
    units = ["TiB", "GiB", "MiB", "KiB", "B"]
    while count >= 1000 and len(units) > 1:
        count /= 1024
        units.pop()
    unit = units[-1]
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


STEPS: tuple[tuple[float, str, Callable[[float], str]], ...] = (
    (10, "s", "{:.1f}".format),
    (120, "s", "{:.0f}".format),
    (7200, "min", lambda seconds: f"{seconds / 60:.0f}"),
    (172800, "h", lambda seconds: f"{seconds / 3600:.0f}"),
)


def duration(seconds: float) -> str:
    """Return a time in few characters."""
    seconds = max(seconds, 0.0)
    for most, unit, words in STEPS:
        if seconds < most:
            return f"{words(seconds)} {unit}"
    return f"{seconds / 86400:.0f} d"
