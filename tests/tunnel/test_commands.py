"""`muxado server`, `expose`, `forward` and their like, as processes."""

from __future__ import annotations

import json
import signal
import socket
import struct
import sys
from pathlib import Path

import pytest

pytest.importorskip("click")
pytest.importorskip("cryptography")
pytest.importorskip("platformdirs")

from click.testing import CliRunner

from muxado.cli.app import cli
from tests.servers import free_port

from .commands import TIMEOUT, Commands, read_line, talk

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and Unix sockets")


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
    told = commands.run("status").stdout
    assert "1 client by 1 session" in told
    assert "web" in told
    assert f"rights of laptop: expose:{public}\n" in told
    assert "client-1 is invited until" in told
    seen = commands.run("top", "--once", "--interval", "0.1").stdout
    assert "1 sessions" in seen
    assert "127.0.0.1" in seen
    key = json.loads((commands.client_state / "servers.json").read_text()).popitem()[1]["key"]
    secrets = (invitation.split("@")[0].removeprefix("muxado://"), key)
    seen = commands.run("status", "--json").stdout
    for process in (server, client):
        command_line = Path(f"/proc/{process.pid}/cmdline")
        seen += command_line.read_text() if command_line.exists() else ""
    kicked = commands.run("kick", "laptop")
    assert (kicked.returncode, kicked.stdout) == (0, "sessions of laptop ended: 1\n")

    for process, number in ((client, signal.SIGINT), (server, signal.SIGTERM)):
        process.send_signal(number)
        seen += "".join(process.communicate())
        assert process.returncode == 0
    assert "Traceback" not in seen
    assert not [secret for secret in secrets if secret in seen]


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
    assert "gives up" not in said


def test_a_client_shows_what_it_does_and_whether_it_is_connected(
    commands: Commands, target: int
) -> None:
    port, public, near, asked = free_port(), free_port(), free_port(), free_port()
    server = commands.server(port)
    invitation = commands.invite("laptop", f"expose:{public}", "reach:db")
    state = ("--state", str(commands.client_state))
    plan = commands.client_state.parent / "client.toml"
    plan.write_text(
        f'forward = ["{near}:db", "{asked}:127.0.0.1:80"]\n'
        f'[expose.web]\ntarget = "{target}"\n[expose.secret]\ntarget = "80"\nprivate = true\n'
    )
    client = commands.start("run", str(plan), "--to", "-", "--json", *state, said=invitation)
    while '"service": "web"' not in (line := read_line(client)):
        assert line

    def look(*words: str) -> str:
        done = CliRunner().invoke(cli, ["status", *words, *state])
        assert done.exit_code == 0, done.output
        return done.output

    shown = json.loads(look("--json"))
    assert (shown["state"], shown["denied"]) == ("connected", "")
    services = {each["service"]: each for each in shown["services"]}
    assert services["web"]["port"] == public
    assert "private:secret" in services["secret"]["denied"]
    assert [each["lacks"] for each in shown["forwards"]] == ["", "forward:127.0.0.1:80"]
    (pin,) = shown["pins"]
    text = look()
    for told in (": connected", f"port {public}", "denied: no right", f":{near}  ->  db", pin):
        assert told in text

    place = f"127.0.0.1:{port}"
    pinged = CliRunner().invoke(cli, ["ping", place, "--pin", pin])
    assert (pinged.exit_code, "round trip" in pinged.output) == (0, True), pinged.output
    wrong = CliRunner().invoke(cli, ["ping", place, "--pin", f"sha256-{'A' * 43}"])
    assert (wrong.exit_code, f"the server has the key {pin}" in wrong.output) == (2, True)

    commands.run("revoke", "laptop")
    while not json.loads(look("--json"))["denied"]:
        assert client.poll() is None
    assert "the key is unknown here, or was revoked" in look()
    server.kill()
    server.wait()
    while json.loads(look("--json"))["state"] == "connected":
        assert client.poll() is None
    client.kill()
    client.wait()
    left = CliRunner().invoke(cli, ["status", *state])
    assert (left.exit_code, "no server and no client runs" in left.output) == (2, True)


def test_what_is_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    for arguments, told in (
        (["invite", "laptop"], "no server has run on this state yet"),
        (["invite", "Laptop", "--public", "a:1"], "must be a DNS label"),
        (["invite", "laptop", "--public", "a:1", "--allow", "all"], "a rule is expose:"),
        (["status"], "no server and no client runs on this state"),
        (["invite", "laptop", "--public", "a:1", "--allow", "socks:127.0.0.0/8:*"], "127.0.0.1:*"),
        (["expose", "lan=socks", "--allow-target", "169.254.0.0/16:80"], "169.254.0.1:80"),
        (["revoke", "other"], "no client 'other'"),
        (["expose", "3000"], "give an invitation with --to -"),
        (["expose", "a=80", "b=81"], "`muxado run` takes a file with several"),
        (["expose", "nonsense"], "it takes HOST:PORT"),
        (["expose", "80", "--private", "--port", "80"], "leave out one of them, port or private"),
        (["forward", "5432"], "it takes PORT:HOST:PORT or PORT:NAME"),
        (["expose", "lan=socks"], "allow-target says"),
        (["stdio", "nothing:at:all"], "it takes HOST:PORT"),
        (["run", "missing.toml"], "missing.toml can't be read"),
    ):
        done = CliRunner().invoke(cli, [*arguments, "--state", str(tmp_path)])
        assert done.exit_code in (1, 2)
        assert told in done.output
        assert isinstance(done.exception, SystemExit)


def test_a_new_invitation_gives_running_processes_the_new_key_too(
    commands: Commands, target: int
) -> None:
    commands.server(free_port())
    near = free_port()
    state = ("--state", str(commands.client_state))
    first = commands.invite("laptop", "private:db")
    running = commands.start(
        "expose", f"db=127.0.0.1:{target}", "--private", "--to", "-", *state, said=first
    )
    assert read_line(running)
    second = commands.invite("laptop", "private:db", "reach:db")
    using = commands.start("forward", f"{near}:db", "--to", "-", *state, said=second)
    assert read_line(using)
    assert running.stderr is not None
    while "there is a new key for the server" not in (line := running.stderr.readline()):
        assert line
    while True:
        try:
            if talk(near, b"one") == b"ONE":
                break
        except ConnectionError:
            pass  # it is not back yet


def test_silence_is_explained_and_with_once_bounded(commands: Commands, target: int) -> None:
    port = free_port()
    server = commands.server(port)
    invitation = commands.invite("laptop", f"forward:127.0.0.1:{target}")
    state = ("--state", str(commands.client_state))
    using = commands.start(
        "forward", f"{free_port()}:127.0.0.1:{target}", "--to", "-", *state, said=invitation
    )
    assert read_line(using)
    server.kill()
    server.wait()
    assert using.stderr is not None
    assert "there is no session with the server any more: " in using.stderr.readline()
    assert f"the server 127.0.0.1:{port} can't be reached: " in using.stderr.readline()
    for words in (("forward", f"{free_port()}:db", "--once"), ("stdio", "db")):
        done = commands.start(*words, "--timeout", "2", *state)
        _, said = done.communicate()
        assert done.returncode == 1
        first, last = said.splitlines()
        assert f"the server 127.0.0.1:{port} can't be reached: " in first
        assert "it is tried again" in first
        assert last.startswith("muxado: the server can't be reached: ")
    commands.server(port)
    while "there is a session with the server" not in (line := using.stderr.readline()):
        assert line


def test_rights_are_shown_and_changed_without_a_new_key(commands: Commands, target: int) -> None:
    commands.server(free_port())
    public = free_port()
    state = ("--state", str(commands.client_state))
    invitation = commands.invite("laptop", "private:db")
    client = commands.start(
        "expose", f"127.0.0.1:{target}", "--port", str(public), "--to", "-", *state, said=invitation
    )
    assert client.stderr is not None
    assert f"no right to expose port {public}" in client.stderr.readline()
    changed = commands.run("rights", "laptop", "--add", f"expose:{public}")
    assert changed.stdout == f"private:db\nexpose:{public}\n"
    assert read_line(client) == f"tcp 127.0.0.1:{public}  ->  127.0.0.1:{target}\n"
    assert commands.run("rights", "laptop", "--allow", "reach:db").stdout == "reach:db\n"
    assert "has changed what this client may do" in client.stderr.readline()
    assert "is exposed again" in client.stderr.readline()
    assert "the right to it was taken away" in client.stderr.readline()
    assert commands.run("rights", "other").returncode == 1


def test_what_can_not_be_had_is_said_by_the_exit_status(commands: Commands, target: int) -> None:
    commands.server(free_port())
    invitation = commands.invite("laptop", "forward:127.0.0.1:80")
    state = ("--state", str(commands.client_state))
    near = free_port()
    forward = ("forward", f"{near}:db")
    expose = ("expose", "80")
    for words, told in ((forward, "no right reach:db"), (expose, "no right to expose")):
        # The second time the invitation is spent, and stands for what is known since.
        process = commands.start(*words, "--once", "--to", invitation.strip(), *state)
        _, said = process.communicate()
        assert process.returncode == 3, said
        assert told in said
    elsewhere = commands.start("forward", f"{near}:127.0.0.1:81", "--once", *state)
    _, said = elsewhere.communicate()
    assert elsewhere.returncode == 3, said
    assert "`muxado rights laptop --add forward:127.0.0.1:81` gives it" in said
    box = commands.start("stdio", "box:22", *state)
    _, said = box.communicate()
    assert box.returncode == 1
    assert "if another client offers box, ask for it without a port" in said
    held = commands.start("forward", f"{target}:127.0.0.1:80", *state)
    stdio = commands.start("stdio", f"127.0.0.1:{target}", *state)
    for process, told in ((held, "address already in use"), (stdio, "gives no right to it")):
        _, said = process.communicate()
        assert process.returncode == 1, said
        assert told in said


def test_a_cut_ends_stdio_with_status_1_and_a_killed_stdio_cuts(commands: Commands) -> None:
    commands.server(free_port())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(TIMEOUT)
        place = f"127.0.0.1:{listening.getsockname()[1]}"
        invitation = commands.invite("laptop", f"forward:{place}").strip()
        state = ("--state", str(commands.client_state))
        for cut_here in (True, False):
            stdio = commands.start("stdio", place, "--to", invitation, *state, said="half")
            sock, _ = listening.accept()
            with sock:
                sock.settimeout(TIMEOUT)
                assert sock.recv(4, socket.MSG_WAITALL) == b"half"
                if cut_here:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    stdio.kill()
                    with pytest.raises(ConnectionResetError):
                        sock.recv(1)
            _, said = stdio.communicate()
            if cut_here:
                assert stdio.returncode == 1
                assert "the connection was cut" in said


def test_a_file_is_read_again_at_sighup_and_what_stays_is_not_cut(
    commands: Commands, target: int
) -> None:
    commands.server(free_port())
    first, second = free_port(), free_port()
    invitation = commands.invite("laptop", f"expose:{first}", f"expose:{second}", "private:*")
    path = commands.client_state.parent / "client.toml"
    web = f'[expose.web]\ntarget = "127.0.0.1:{target}"\nport = {first}\n'
    path.write_text(web)
    running = commands.start(
        "run",
        str(path),
        "--json",
        "--to",
        "-",
        "--state",
        str(commands.client_state),
        said=invitation,
    )
    assert json.loads(read_line(running))["port"] == first
    with socket.create_connection(("127.0.0.1", first), timeout=TIMEOUT) as stays:
        stays.sendall(b"one ")
        path.write_text(web + "port = 1\n")
        running.send_signal(signal.SIGHUP)
        assert running.stderr is not None
        assert f"{path}: Cannot overwrite a value (at line 4" in running.stderr.readline()
        path.write_text(web + f'[expose.more]\ntarget = "{target}"\nport = {second}\n')
        running.send_signal(signal.SIGHUP)
        assert json.loads(read_line(running))["port"] == second
        assert "the file was read again" in running.stderr.readline()
        stays.sendall(b"two")
        stays.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: stays.recv(100), b"")) == b"ONE TWO"
    assert talk(second, b"more") == b"MORE"
