"""Runs one cell once: a server, perhaps the relay, and a client, each a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .cells import LINK_RATE_MBIT, Cell
from .contenders import ROOT, Contender, Peer

START_TIMEOUT = 20.0


class RunError(Exception):
    """A run gave no figures; the text says why."""


class Child:
    """A process that speaks in lines, and does not outlive the driver."""

    def __init__(self, command: list[str], errors: IO[bytes]) -> None:
        self.errors = errors
        self.name = " ".join(Path(part).name for part in command[:4])
        # Unbuffered, so that select and the lines agree.
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
        )
        self._input = b""

    def say(self, line: str) -> None:
        """Write a line to the process."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # its own error is the better message
            self.process.stdin.write(f"{line}\n".encode())

    def read_json(self, timeout: float) -> dict[str, Any]:
        """Return the next line's JSON.

        Raises:
            RunError: none comes in time, or it is not JSON.
        """
        stdout = self.process.stdout
        assert stdout is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._input:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise RunError(f"{self.name}: no answer within {timeout:.0f} s")
                chunk = os.read(stdout.fileno(), 65536)
                if not chunk:
                    raise RunError(self._last_words())
                self._input += chunk
        line, _, self._input = self._input.partition(b"\n")
        try:
            result: dict[str, Any] = json.loads(line)
        except ValueError as exc:
            raise RunError(f"{self.name}: {exc}") from exc
        return result

    def _last_words(self) -> str:
        self.process.wait(timeout=5)
        self.errors.flush()
        self.errors.seek(0)
        words = self.errors.read().decode(errors="replace").strip().splitlines()
        told = [line.strip() for line in words if line.strip(" ^~|+-")]
        return f"{self.name} ended with {self.process.returncode}: {' / '.join(told[-3:])}"

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@contextlib.contextmanager
def child(command: list[str]) -> Iterator[Child]:
    """Start a process, and end it with the block."""
    with tempfile.TemporaryFile() as errors:
        process = Child(command, errors)
        try:
            yield process
        finally:
            process.end()


def run_once(cell: Cell, contender: Contender, tls_dir: Path) -> dict[str, Any]:
    """Run one cell with one contender; return what the client measured.

    Raises:
        RunError: it failed.
    """
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(child(command_of(contender.server, "server", cell, tls_dir)))
        client = stack.enter_context(child(command_of(contender.client, "client", cell, tls_dir)))
        port = server.read_json(START_TIMEOUT)["port"]
        if cell.link_ms:
            relay = stack.enter_context(child(_relay_command(cell, port)))
            port = relay.read_json(START_TIMEOUT)["port"]
        client.say(str(port))
        result = client.read_json(cell.limit)
        if "client_cpu" in result:
            # Both ends' processor time by the clock: near 1 means that they shared a core.
            busy = result["client_cpu"] + result["server_cpu"]
            result["cores"] = busy / (time.monotonic() - began)
        return result


def command_of(peer: Peer, role: str, cell: Cell, tls_dir: Path) -> list[str]:
    """Return the command that starts a peer in a role."""
    command = [*peer.command]
    command += ["--role", role, "--cell", json.dumps(cell.peer_work())]
    command += ["--limit", str(cell.limit + 30)]
    if cell.tls or peer.needs_tls:
        command += ["--tls-dir", str(tls_dir)]
    return command


def _relay_command(cell: Cell, port: int) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.relay", "--target", str(port)]
    command += ["--round-trip-ms", str(cell.link_ms), "--rate-mbit", str(LINK_RATE_MBIT)]
    return [*command, "--limit", str(cell.limit + 30)]


def make_certificate(folder: Path) -> str:
    """Put a certificate for loopback into a folder; return why that can't be, or ""."""
    try:
        import trustme
    except ModuleNotFoundError:
        return "trustme is not installed, so there is no certificate"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    # aioquic takes the two apart.
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(folder / "chain.pem"), append=True)
    return ""
