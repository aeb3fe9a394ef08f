"""Invitations, and the files of servers and clients."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from muxado import UsageError
from muxado.cluster import Denied
from muxado.tunnel import ClientState, Invitation, ServerState
from muxado.tunnel.invitations import new_secret

PIN = "sha256-" + "A" * 43


@pytest.mark.parametrize(
    "places", [(("a.example", 7443),), (("a.example", 1), ("::1", 2), ("192.0.2.1", 3))]
)
def test_an_invitation_is_written_as_it_is_read(places: tuple[tuple[str, int], ...]) -> None:
    for pins in ((), (PIN,), (PIN, PIN[:-1] + "B")):
        invitation = Invitation(new_secret(), places, pins)
        assert Invitation.parse(f" {invitation}\n") == invitation
        assert invitation.token not in repr(invitation)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://a.example",
        "muxado://",
        "muxado://short@a.example",
        f"muxado://{'A' * 43}@a.example:0",
        f"muxado://{'A' * 43}@a.example:7443#sha256-short",
        f"muxado://{'A' * 43}@a.example:7443#md5-{'A' * 43}",
        f"muxado://{'A' * 43}@a.example,:7443",
    ],
)
def test_half_an_invitation_is_an_error_that_shows_no_token(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Invitation.parse(text)
    assert "A" * 43 not in str(caught.value)


def test_a_token_is_for_one_key_and_only_hashes_are_kept(tmp_path: Path) -> None:
    state = ServerState(tmp_path)
    token, key = state.invite("laptop"), new_secret()
    assert state.redeem(token, key) == "laptop"
    assert ServerState(tmp_path).redeem(token, key) == "laptop"
    with pytest.raises(Denied, match="used already"):
        state.redeem(token, new_secret())
    assert state.identify(key) == "laptop"
    kept = (tmp_path / "clients.json").read_text()
    assert token not in kept
    assert key not in kept


def test_an_invitation_is_too_old_after_its_time(tmp_path: Path) -> None:
    state = ServerState(tmp_path)
    token = state.invite("laptop", lifetime=-1.0)
    with pytest.raises(Denied, match="too old"):
        state.redeem(token, new_secret())


def test_who_is_revoked_is_unknown_and_so_is_an_open_invitation(tmp_path: Path) -> None:
    state = ServerState(tmp_path)
    key = new_secret()
    state.redeem(state.invite("laptop"), key)
    token = state.invite("laptop")
    assert state.revoke("laptop")
    assert not state.revoke("laptop")
    with pytest.raises(Denied):
        state.identify(key)
    with pytest.raises(Denied):
        state.redeem(token, new_secret())


def test_a_new_invitation_of_a_known_client_replaces_its_key(tmp_path: Path) -> None:
    state = ServerState(tmp_path)
    first, second = new_secret(), new_secret()
    state.redeem(state.invite("laptop"), first)
    state.redeem(state.invite("laptop", ("reach:x",)), second)
    assert state.identify(second) == "laptop"
    with pytest.raises(Denied):
        state.identify(first)
    assert state.clients()["laptop"][1].lines() == ["reach:x"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_files_are_this_users_alone(tmp_path: Path) -> None:
    server = ServerState(tmp_path / "server")
    client = ClientState(tmp_path / "client")
    client.accept(Invitation(server.invite("laptop"), (("a.example", 1),), (server.pin,)))
    found = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]
    assert {path.name for path in found} == {"server.pem", "clients.json", "servers.json"}
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in ("server", "client"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700


def test_the_key_stays_so_the_pin_does(tmp_path: Path) -> None:
    assert ServerState(tmp_path).pin == ServerState(tmp_path).pin


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    state = ServerState(tmp_path)
    (tmp_path / "clients.json").write_text("{")
    with pytest.raises(UsageError, match=r"clients\.json is damaged"):
        state.invite("laptop")


def test_a_rejected_invitation_leaves_what_was_known(tmp_path: Path) -> None:
    state = ClientState(tmp_path)
    places = (("a.example", 1),)
    known = state.redeemed(state.accept(Invitation(new_secret(), places)))
    again = state.accept(Invitation(new_secret(), places))
    assert again.key != known.key
    state.rejected(again)
    assert state.find(None) == known


def test_which_server_must_be_said_where_there_are_several(tmp_path: Path) -> None:
    state = ClientState(tmp_path)
    with pytest.raises(UsageError, match="no server is known"):
        state.find(None)
    for host in ("a.example", "b.example"):
        state.accept(Invitation(new_secret(), ((host, 1),)))
    with pytest.raises(UsageError, match="say which"):
        state.find(None)
    assert state.find("a.example:1").invitation.places == (("a.example", 1),)
    with pytest.raises(UsageError, match="known: a"):
        state.find("c")


def test_several_processes_write_to_one_state_at_once(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from muxado.tunnel import ServerState\n"
        "state = ServerState(pathlib.Path(sys.argv[1]))\n"
        "for number in range(20):\n"
        "    print(state.invite(f'{sys.argv[2]}-{number}'))\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), f"client-{number}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    tokens = [token for writer in writers for token in writer.communicate()[0].split()]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(tokens) == 60
    state = ServerState(tmp_path)
    names = {state.redeem(token, new_secret()) for token in tokens}
    assert len(names) == 60
