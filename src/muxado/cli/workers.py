"""Several processes that are one `muxado server`: they are started, watched and ended together.

How it works. This process binds the socket, and each worker takes connections from it, so none is
lost while one of them is started anew. A worker says READY=1 as any service of systemd's does, to
this process; and it is told its settings by the environment, where no other user sees them. Signals
are passed on. When this process is killed, the workers find their standard input closed, and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..tunnel.invitations import parse_place
from ..tunnel.notifying import notify
from ..tunnel.settings import NETWORKS, Settings
from .tunnel_server import Worker, log, serve

__all__ = ["supervise"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")

SETTINGS = "MUXADO_WORKER"  # in the environment of a worker: JSON
PAUSE = 1.0  # seconds before a worker that has failed is started anew


async def supervise(settings: Settings) -> int:
    """Run the workers of a server until a signal comes; return the exit status."""
    if sys.platform == "win32":
        raise UsageError("workers: this system has no way to share a listening socket")
    ending = asyncio.Event()
    host, port = parse_place(settings.listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, port), family=family, backlog=1024) as sock,
        listening_for_ready(settings.workers) as path,
    ):
        numbers = range(1, settings.workers + 1)
        workers = [Process(settings, number, sock, path) for number in numbers]
        loop = asyncio.get_running_loop()

        def pass_on(number: int) -> None:
            if number != signal.SIGHUP:
                if not ending.is_set():
                    notify("STOPPING=1")
                ending.set()
                sock.close()  # so that clients hear at once that there is no other worker
            for worker in workers:
                worker.signal(number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, pass_on, number)
        return max(await asyncio.gather(*[worker.run(ending) for worker in workers]))


class Process:
    """One worker, started again when it fails.

    Args:
        settings: what it is to do.
        number: which it is.
        sock: the socket that it takes connections from.
        path: where it says that it is ready.
    """

    def __init__(self, settings: Settings, number: int, sock: socket.socket, path: str) -> None:
        told = {"number": number, "fd": sock.fileno(), "settings": asdict(settings)}
        self._environment = os.environ | {
            SETTINGS: json.dumps(told, default=os.fspath),
            "NOTIFY_SOCKET": path,
        }
        self._number = number
        self._fd = sock.fileno()
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, ending: asyncio.Event) -> int:
        """Have it run until all are to end; return the last exit status."""
        status = 0
        while not ending.is_set():
            process = self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "muxado.cli.workers"),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=[self._fd],
                env=self._environment,
                start_new_session=True,  # Ctrl-C comes to this process, which passes it on
            )
            status = await process.wait()
            if not ending.is_set():
                logger.error("worker %d has ended with status %d", self._number, status)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE):
                        await ending.wait()
        return status

    def signal(self, number: int) -> None:
        """Pass a signal on."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


@contextmanager
def listening_for_ready(count: int) -> Iterator[str]:
    """Say that all is ready once so many workers are; give the socket where they say so."""
    loop = asyncio.get_running_loop()
    with (
        tempfile.TemporaryDirectory(prefix="muxado") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        path = f"{folder}/notify"
        sock.bind(path)
        sock.setblocking(False)
        ready = 0

        def heard() -> None:
            nonlocal ready
            ready += sock.recv(4096) == b"READY=1"
            if ready == count:
                notify("READY=1")

        loop.add_reader(sock.fileno(), heard)
        try:
            yield path
        finally:
            loop.remove_reader(sock.fileno())


def main() -> int:
    """Be a worker; return the exit status."""
    told = json.loads(os.environ.pop(SETTINGS))
    log()
    sock = socket.socket(fileno=told["fd"])
    return serve(_settings(told["settings"]), Worker(told["number"], sock))


def _settings(told: dict[str, Any]) -> Settings:
    """Return settings that have been JSON."""
    for name in ("state", "rights"):
        told[name] = None if told[name] is None else Path(told[name])
    for name in NETWORKS:
        told[name] = tuple(told[name])
    return Settings(**told)


if __name__ == "__main__":
    sys.exit(main())
