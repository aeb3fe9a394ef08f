"""How a client finds its server: invitations on a terminal, several places, several keys."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("click")
pytest.importorskip("cryptography")
pytest.importorskip("platformdirs")

from muxado.tunnel import Client, ClientState, Invitation, Server
from tests.servers import free_port

from .commands import TIMEOUT, Commands, read_line, talk
from .sides import LOCAL, echo_all, hash_through, rules, target

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and Unix sockets")


@posix
def test_on_a_terminal_the_server_prints_an_invitation_and_the_client_asks_for_it(
    commands: Commands,
) -> None:
    listen = ("--listen", f"{LOCAL}:{free_port()}", "--state", str(commands.server_state))
    with on_terminal("server", *listen) as (_, until):
        shown = until("one use, 15 minutes)")
        (line,) = [each for each in shown.splitlines() if each.startswith("invite:")]
        invitation = line.split()[1]
        state = ("--state", str(commands.client_state))
        with on_terminal("expose", "80", "--to", "-", *state) as (terminal, until_client):
            asked = until_client("invitation: ")
            os.write(terminal, f"{invitation}\n".encode())
            shown = until_client("->")
        assert f"tcp {LOCAL}:20" in shown
        token = invitation.partition("@")[0].removeprefix("muxado://")
        assert token not in asked + shown  # what is typed is not shown


@contextmanager
def on_terminal(*arguments: str) -> Iterator[tuple[int, Callable[[str], str]]]:
    """Run a command on a terminal of its own; give that, and what reads it up to a text."""
    import fcntl
    import pty
    import termios

    terminal, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "muxado", *arguments],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(inner)

    def until(wanted: str) -> str:
        shown = ""
        while wanted not in shown:
            assert select.select([terminal], [], [], TIMEOUT)[0], shown
            shown += os.read(terminal, 4096).decode()
        return shown.replace("\r\n", "\n")

    try:
        yield terminal, until
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


@posix
def test_the_server_says_when_its_address_is_a_private_one(commands: Commands) -> None:
    port = free_port()
    server = ("server", "--listen", f"{LOCAL}:{port}", "--state", str(commands.server_state))
    told = commands.start(*server)
    read_line(told)
    assert "a private address: --public HOST says another" in read_line(told)
    assert f"@{LOCAL}:{port}#" in commands.invite("laptop")
    told.terminate()
    told.wait()
    public = commands.start(*server, "--public", "tunnel.example")
    read_line(public)
    assert f"@tunnel.example:{port}#" in commands.invite("laptop")
    public.terminate()
    assert "private" not in "".join(public.communicate())


@posix
def test_a_server_is_named_by_the_environment_where_several_are_known(
    commands: Commands, target: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = ClientState(commands.client_state)
    port, public = free_port(), free_port()
    commands.server(port)
    state.accept(Invitation.parse(commands.invite("laptop", f"expose:{public}")))
    state.accept(Invitation.parse(f"muxado://{'A' * 43}@other.example:1#sha256-{'B' * 43}"))
    words = ("expose", str(target), "--state", str(commands.client_state))
    which = commands.start(*words)
    assert "say which server with --to" in which.communicate()[1]
    assert which.returncode == 2
    monkeypatch.setenv("MUXADO_SERVER", f"{LOCAL}:{port}")
    named = commands.start(*words)
    assert read_line(named) == f"tcp {LOCAL}:{public}  ->  localhost:{target}\n"
    assert talk(public, b"hello") == b"HELLO"


@pytest.mark.anyio
async def test_servers_of_an_invitation_are_tried_in_turn_and_one_of_its_keys_is_enough(
    server: Server, tmp_path: Path
) -> None:
    async with target(echo_all) as address:
        state = ClientState(tmp_path / "laptop")
        invited = server.invite("laptop", LOCAL, rules())
        other_key = f"sha256-{'A' * 43}"
        several = replace(
            invited,
            places=((LOCAL, free_port()), *invited.places),
            pins=(other_key, *invited.pins),
        )
        async with Client(state.accept(several), state) as laptop:
            exposed = await laptop.expose("web", address)
            assert len(await hash_through(exposed.port, b"question")) == 32
