"""`muxado server`, `expose`, `forward` and their like, as processes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("click")
pytest.importorskip("cryptography")
pytest.importorskip("platformdirs")

from tests.patience import patience
from tests.servers import free_port

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and Unix sockets")

TIMEOUT = patience(20)


class Commands:
    """Runs commands on a server's and a client's state of their own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.server_state = folder / "s"
        self.client_state = folder / "c"
        self._stack = stack

    def start(self, *arguments: str, said: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "muxado", *arguments],
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


@pytest.fixture
def commands() -> Iterator[Commands]:
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


@pytest.fixture
def target() -> Iterator[int]:
    """The port of a server that answers at the end of what comes, in capitals."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listening.accept()
                except OSError:
                    return
                with sock:
                    sock.settimeout(TIMEOUT)
                    data = b"".join(iter(lambda: sock.recv(65536), b""))  # noqa: B023
                    sock.sendall(data.upper())

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_two_commands_expose_a_service(commands: Commands, target: int) -> None:
    port, public = free_port(), free_port()
    server = commands.server(port)
    line = read_line(server)
    while "an invitation" not in line:
        assert line
        line = read_line(server)
    assert (commands.server_state / "invitation").stat().st_mode & 0o777 == 0o600
    invitation = commands.invite("laptop", f"expose:{public}")
    state = ("--state", str(commands.client_state))
    client = commands.start(
        "expose", f"web=127.0.0.1:{target}", "--to", "-", *state, said=invitation
    )
    assert read_line(client) == f"tcp 127.0.0.1:{public}  ->  127.0.0.1:{target}\n"
    assert talk(public, b"hello") == b"HELLO"

    shown = json.loads(commands.run("status", "--json").stdout)
    assert [each["name"] for each in shown["clients"]] == ["laptop"]
    assert shown["clients"][0]["services"][0]["connections"] == 1
    assert "web" in commands.run("status").stdout
    kicked = commands.run("kick", "laptop")
    assert (kicked.returncode, kicked.stdout) == (0, "sessions of laptop ended: 1\n")

    client.send_signal(signal.SIGINT)
    _, said = client.communicate()
    assert client.returncode == 0
    assert "Traceback" not in said
    server.send_signal(signal.SIGTERM)
    _, said = server.communicate()
    assert server.returncode == 0
    assert "Traceback" not in said
    assert invitation.strip() not in said


def test_a_private_service_is_forwarded_also_after_the_server_was_killed(
    commands: Commands, target: int
) -> None:
    port, near = free_port(), free_port()
    server = commands.server(port)
    both = commands.invite("laptop", "private:db", "reach:db")
    state = ("--state", str(commands.client_state))
    offering = commands.start(
        "expose", f"db=127.0.0.1:{target}", "--private", "--to", "-", *state, said=both
    )
    assert read_line(offering) == f"private db  ->  127.0.0.1:{target}\n"
    using = commands.start("forward", f"{near}:db", *state)
    assert read_line(using) == f"127.0.0.1:{near}  ->  db\n"
    assert talk(near, b"one") == b"ONE"
    server.kill()
    server.wait()
    commands.server(port)
    while True:
        try:
            if talk(near, b"two") == b"TWO":
                break
        except ConnectionError:
            pass  # the one that offers it is not back yet
    assert using.poll() is None
    assert offering.poll() is None


def test_who_is_revoked_is_told_and_with_once_it_ends(commands: Commands, target: int) -> None:
    commands.server(free_port())
    public = free_port()
    invitation = commands.invite("laptop", f"expose:{public}")
    state = ("--state", str(commands.client_state))
    client = commands.start("expose", str(target), "--once", "--to", "-", *state, said=invitation)
    assert read_line(client)
    assert commands.run("revoke", "laptop").returncode == 0
    _, said = client.communicate()
    assert client.returncode == 3
    assert "Traceback" not in said
    again = commands.start("expose", str(target), "--once", *state)
    _, said = again.communicate()
    assert again.returncode == 3
    assert "ask for a new invitation" in said


def test_what_is_wrong_is_said_in_a_line(commands: Commands) -> None:
    for arguments, told in (
        (["invite", "laptop"], "no server has run on this state yet"),
        (["invite", "Laptop", "--public", "a:1"], "must be a DNS label"),
        (["invite", "laptop", "--public", "a:1", "--allow", "all"], "a rule is expose:"),
        (["status"], "no server runs on this state"),
        (["revoke", "other"], "no client 'other'"),
        (["expose", "3000"], "give an invitation with --to -"),
        (["expose", "nonsense"], "it takes HOST:PORT"),
        (["forward", "5432"], "it takes PORT:HOST:PORT or PORT:NAME"),
    ):
        done = commands.run(*arguments)
        assert done.returncode in (1, 2)
        assert told in done.stderr
        assert "Traceback" not in done.stderr
