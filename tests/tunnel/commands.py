"""Runs `muxado server`, `expose`, `forward` and their like as processes."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.patience import patience

__all__ = ["TIMEOUT", "Commands", "on_states", "read_line", "talk"]

TIMEOUT = patience(20)


class Commands:
    """Runs commands on a server's and a client's state of their own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.server_state = folder / "s"
        self.client_state = folder / "c"
        self._stack = stack

    def start(
        self, *arguments: str, said: str = "", within: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """Start `muxado`, by another command if that is given."""
        return self.start_program(*within, sys.executable, "-m", "muxado", *arguments, said=said)

    def start_program(self, *command: str, said: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        self._stack.callback(timer.cancel)
        self._stack.callback(process.communicate)
        self._stack.callback(process.kill)
        assert process.stdin is not None
        process.stdin.write(said)
        process.stdin.flush()
        return process

    def server(self, port: int) -> subprocess.Popen[str]:
        listen = ("--listen", f"127.0.0.1:{port}")
        process = self.start("server", *listen, "--state", str(self.server_state))
        assert f"listening on 127.0.0.1:{port}" in read_line(process)
        return process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "muxado", *arguments, "--state", str(self.server_state)]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)

    def invite(self, name: str, *rules: str) -> str:
        allowed = [word for rule in rules for word in ("--allow", rule)]
        done = self.run("invite", name, *allowed)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def on_states() -> Iterator[Commands]:
    """Give commands on a server's and a client's state of their own, which end with the block."""
    # A short path: a Unix socket is to be in it.
    with tempfile.TemporaryDirectory(prefix="mux") as folder, ExitStack() as stack:
        yield Commands(Path(folder), stack)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def talk(port: int, said: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as sock:
        sock.sendall(said)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))
