"""What is sent to the socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import socket
import sys

import pytest

from muxado.tunnel.notifying import notify

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")


def receive(address: str | bytes, path: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Return what comes at an address when a state is sent to what the environment names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        notify("READY=1")
        return sock.recv(100, socket.MSG_DONTWAIT)


def test_a_state_is_sent_to_a_path(socket_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert receive(socket_path, socket_path, monkeypatch) == b"READY=1"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract names")
def test_or_to_an_abstract_name(socket_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{socket_path}-abstract"
    assert receive(f"\0{name}", f"@{name}", monkeypatch) == b"READY=1"


@pytest.mark.parametrize("path", [None, "", "relative", "/there/is/no/socket"])
def test_where_no_one_listens_nothing_happens(
    path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
    notify("READY=1")
