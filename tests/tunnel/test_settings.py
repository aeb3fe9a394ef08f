"""The settings of a server, and the file of rights."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from muxado import UsageError
from muxado.tunnel.rights_file import read_rights
from muxado.tunnel.rules import Rights
from muxado.tunnel.settings import Settings, read_settings


def test_the_command_line_holds_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(
        'listen = "127.0.0.1:7000"\ngrace = 3\nstate = "state"\nproxy-protocol = ["10.0.0.0/8"]\n'
        'exposed-proxy-protocol = ["10.1.0.0/16"]\n'
    )
    found = read_settings(path, {"listen": "127.0.0.1:7001", "grace": None})
    assert found == Settings(
        listen="127.0.0.1:7001",
        grace=3,
        state=tmp_path / "state",
        proxy_protocol=("10.0.0.0/8",),
        exposed_proxy_protocol=("10.1.0.0/16",),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("listen = 7443", "listen: must be a string, not 7443"),
        ('listen = "7443"', "listen: it takes HOST:PORT"),
        ('lisen = "a:1"', "lisen: is no key that is known here"),
        ('grace = "8"', "grace: must be a number of seconds"),
        ("workers = 2", "workers: several processes need a directory"),
        ('directory = "http://x"', "directory: a directory is at redis://"),
        ('proxy-protocol = ["x"]', "proxy-protocol: no network"),
        ("listen = =", "line 1"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_settings(path, {})
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


def test_a_file_of_rights_maps_clients_to_rules_and_limits(tmp_path: Path) -> None:
    path = tmp_path / "rights.toml"
    path.write_text('[clients.a]\nallow = ["private:x"]\nconnections = 3\n[clients.b]\n')
    assert read_rights(path) == {"a": Rights(("private:x",), connections=3), "b": Rights(())}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[clients.a]\nallow = ["all"]', "clients.a.allow[0]: a rule is"),
        ('[clients.A]\nallow = ["private:x"]', "clients.A: a name must be"),
        ("[clients.a]\nconnections = 0", "clients.a.connections: must be at least 1"),
        ("[clients.a]\npermit = []", "clients.a.permit: is no key"),
        ("[client.a]", "client: is no key"),
    ],
)
def test_what_is_wrong_in_a_file_of_rights_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "rights.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_rights(path)
    assert told in str(caught.value)
