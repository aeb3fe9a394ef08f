"""`muxado server` as a service: its file, its signals, what it tells systemd and its watchers."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("click")
pytest.importorskip("cryptography")
pytest.importorskip("platformdirs")

from tests.servers import free_port

from .commands import TIMEOUT, Commands, read_line, talk

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and Unix sockets")


def line_with(process: subprocess.Popen[str], text: str) -> str:
    """Read lines until one has a text."""
    while text not in (line := read_line(process)):
        assert line
    return line


def status_of(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=TIMEOUT) as found:
            return int(found.status)
    except urllib.error.HTTPError as exc:
        return exc.code


def test_a_server_is_a_service(
    commands: Commands, target: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, public, admin = free_port(), free_port(), free_port()
    rights = tmp_path / "rights.toml"
    rights.write_text(f'[clients.laptop]\nallow = ["expose:{public}"]\n')
    config = tmp_path / "server.toml"
    config.write_text(
        f'listen = "127.0.0.1:{port}"\nadmin = "127.0.0.1:{admin}"\nrights = "rights.toml"\n'
        f'state = "{commands.server_state}"\n'
    )
    heard = str(commands.server_state.parent / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(heard)
        sock.settimeout(TIMEOUT)
        monkeypatch.setenv("NOTIFY_SOCKET", heard)
        server = commands.start("server", "--config", str(config))
        assert sock.recv(100) == b"READY=1"
        monkeypatch.delenv("NOTIFY_SOCKET")
        line_with(server, "listening on")
        assert status_of(admin, "/ready") == 200

        invitation = commands.run("invite", "laptop", "--rights", str(rights)).stdout
        state = ("--state", str(commands.client_state))
        refused = commands.run("invite", "other", "--allow", "reach:db")
        assert refused.returncode == 2
        assert "takes rights from" in refused.stderr
        assert "under [clients.other]" in " ".join(refused.stderr.split())
        warned = commands.run("invite", "other")
        assert warned.stdout.startswith("muxado://")
        assert "other has no rights in" in warned.stderr
        client = commands.start(
            "expose", f"web=127.0.0.1:{target}", "--to", "-", *state, said=invitation
        )
        assert read_line(client) == f"tcp 127.0.0.1:{public}  ->  127.0.0.1:{target}\n"
        assert talk(public, b"hello") == b"HELLO"
        assert commands.run("rights", "laptop").stdout == f"expose:{public}\n"
        assert commands.run("rights", "laptop", "--add", "reach:db").returncode == 2
        # A right that is taken away ends what it allowed, as is seen from outside.
        with socket.create_connection(("127.0.0.1", public), timeout=TIMEOUT) as running:
            rights.write_text("[clients.laptop]\n")
            server.send_signal(signal.SIGHUP)
            with pytest.raises(ConnectionResetError):
                running.recv(1)

        server.send_signal(signal.SIGTERM)
        assert sock.recv(100) == b"STOPPING=1"
        _, said = server.communicate()
        assert server.returncode == 0
        assert "Traceback" not in said


def test_a_port_in_use_says_whose_it_is(commands: Commands, tmp_path: Path) -> None:
    port = free_port()
    commands.server(port)
    listen = ("server", "--listen", f"127.0.0.1:{port}")
    again = commands.run(*listen)
    assert again.returncode == 1
    assert "by a server that runs on this state already: `muxado status`" in again.stderr
    other = commands.start(*listen, "--state", str(commands.client_state))
    _, said = other.communicate()
    assert other.returncode == 1
    assert "in use by another program: --listen" in said


def test_who_reads_only_the_beginning_is_no_error(commands: Commands) -> None:
    commands.server(free_port())
    command = f"{sys.executable} -m muxado status --state {commands.server_state} | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.stderr == ""


def test_sigterm_lets_connections_end_and_a_second_one_does_not(
    commands: Commands, tmp_path: Path
) -> None:
    public = free_port()
    state = ("--state", str(commands.server_state))
    listen = ("--listen", f"127.0.0.1:{free_port()}")
    server = commands.start("server", *listen, "--grace", "600", *state)
    line_with(server, "listening on")
    invitation = commands.invite("laptop", f"expose:{public}")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(TIMEOUT)
        place = f"127.0.0.1:{listening.getsockname()[1]}"
        known = ("--state", str(commands.client_state))
        client = commands.start("expose", place, "--to", "-", *known, said=invitation)
        assert read_line(client)
        with socket.create_connection(("127.0.0.1", public), timeout=TIMEOUT) as caller:
            called = listening.accept()[0]
            with called:
                called.settimeout(TIMEOUT)
                server.terminate()
                line_with(server, "ending; connections have 600 s")
                caller.sendall(b"still")
                assert called.recv(5, socket.MSG_WAITALL) == b"still"
                server.terminate()
                server.wait()
                with pytest.raises(ConnectionResetError):
                    caller.recv(1)


def test_socks_leads_beyond_the_server_and_beyond_a_client(commands: Commands, target: int) -> None:
    near, far = free_port(), free_port()
    commands.server(free_port())
    state = ("--state", str(commands.client_state))
    invited = commands.invite("laptop", f"socks:127.0.0.1:{target}", "private:lan", "reach:lan")
    beyond = commands.start("socks", str(near), "--to", "-", *state, said=invited)
    assert read_line(beyond) == f"127.0.0.1:{near}  ->  socks\n"
    allowed = ("--private", "--allow-target", f"127.0.0.1:{target}")
    assert read_line(commands.start("expose", "lan=socks", *allowed, *state))
    assert read_line(commands.start("forward", f"{far}:lan", *state))
    for port in (near, far):
        for asked, reply in ((target, 0), (target + 1, 2)):
            request = b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + asked.to_bytes(2, "big")
            answer = talk(port, request + b"hello")
            assert answer[:2] == b"\x05\x00"
            assert answer[3] == reply
            assert answer[12:] == (b"" if reply else b"HELLO")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--workers", "2"), "several processes need a directory"),
        (("--directory", "http://x"), "a directory is at redis://"),
        (("--proxy-protocol", "x"), "no network"),
        (("--advertise", "x"), "advertise: it takes HOST:PORT"),
    ],
)
def test_what_cannot_be_is_said_at_the_start(
    commands: Commands, options: tuple[str, ...], told: str
) -> None:
    done = commands.run("server", *options)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
