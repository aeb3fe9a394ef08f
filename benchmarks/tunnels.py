"""Runs one cell of the tunnel: its server and its agent, and a Go program that is the load on it.

What counts is what the two processes of the tunnel take, which is looked up from outside: their
processor time and their resident memory, when the load says that the measured time begins and when
it has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cells import Cell
from .contenders import GO_BINARY, Contender
from .processes import START_TIMEOUT, Child, child, command_of

# What /proc counts in.
TICK = 1 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Used:
    """What a process has used so far.

    Attributes:
        cpu: seconds of processor time.
        resident: bytes.
    """

    cpu: float
    resident: int


def used_by(process: Child) -> Used:
    """Look up what a process has used."""
    folder = Path("/proc") / str(process.process.pid)
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    resident = int((folder / "statm").read_text().split()[1])
    return Used((int(fields[11]) + int(fields[12])) * TICK, resident * PAGE)


def run_tunnel(cell: Cell, contender: Contender, tls_dir: Path) -> dict[str, Any]:
    """Run one cell with one contender; return what was measured.

    Raises:
        RunError: it failed.
    """
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(child(command_of(contender.server, "server", cell, tls_dir)))
        agent = stack.enter_context(child(command_of(contender.client, "client", cell, tls_dir)))
        load = stack.enter_context(child(_load_command(cell)))
        ports = server.read_json(START_TIMEOUT)
        service = load.read_json(START_TIMEOUT)["port"]
        agent.say(f"{ports['port']} {service}")
        for end in (server, agent):
            end.read_json(START_TIMEOUT)  # it has its session
        load.say(str(ports["public"]))
        load.read_json(cell.limit)
        ends = (server, agent)
        before = [used_by(each) for each in ends]
        result = load.read_json(cell.limit)
        after = [used_by(each) for each in ends]
    cpu = sum(now.cpu - then.cpu for then, now in zip(before, after, strict=True))
    grown = [now.resident - then.resident for then, now in zip(before, after, strict=True)]
    if cell.work.work == "tunnel-idle":
        each = [size / 1024 / cell.work.streams for size in grown]
        return result | {
            "kib_per_connection": max(each),
            "kib_server": each[0],
            "kib_agent": each[1],
        }
    if cell.work.work == "tunnel-bulk":
        return result | {"cpu_gib": cpu * 2**30 / result["bytes"]}
    return result | {"cpu_us": 1e6 * cpu / result["count"]}


def _load_command(cell: Cell) -> list[str]:
    command = [str(GO_BINARY), "-role", "load", "-cell", json.dumps(cell.peer_work())]
    return [*command, "-limit", str(cell.limit + 30)]
