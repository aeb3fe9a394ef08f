"""What a connection tells of itself, also once it is gone."""

from __future__ import annotations

import socket
import threading

from muxado.connection_info import ConnectionInfo
from tests.certificates import Tls


def test_the_addresses_are_known_when_the_socket_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
        info = ConnectionInfo(near, more={"carrier": "tcp"})
        sockname = near.getsockname()
        for sock in (near, far):
            sock.close()
        assert info.get("peername", None) == listening.getsockname()
    assert info.get("sockname", None) == sockname
    assert info.get("socket", None) is near
    assert info.get("carrier", None) == "tcp"
    assert info.get("ssl_object", None) is info.get("cipher", None) is None
    assert info.get("unheard of", 7) == 7


def test_without_a_socket_only_what_was_told_is_known() -> None:
    info = ConnectionInfo(None, more={"carrier": "pipes"})
    assert info.get("carrier", None) == "pipes"
    assert info.get("socket", "none") == "none"


def test_a_socket_that_is_gone_has_no_addresses() -> None:
    sock = socket.socket()
    sock.close()
    info = ConnectionInfo(sock)
    assert info.get("peername", 7) is None
    assert info.get("sockname", 7) is None


def test_tls_is_asked_again_until_its_handshake_is_done(tls: Tls) -> None:
    near, far = socket.socketpair()
    done = threading.Event()

    def serve() -> None:
        with tls.server.wrap_socket(far, server_side=True):
            done.wait()

    with tls.client.wrap_socket(
        near, server_hostname="localhost", do_handshake_on_connect=False
    ) as client:
        info = ConnectionInfo(near, client, threading.Lock())
        assert info.get("sslcontext", None) is tls.client
        assert info.get("peercert", "none yet") == "none yet"
        server = threading.Thread(target=serve, daemon=True)  # or a failure would hang
        server.start()
        client.do_handshake()
        certificate = info.get("peercert", None)
        assert certificate
        assert certificate == client.getpeercert()
        cipher = client.cipher()
        assert cipher
        assert info.get("ssl_object", None) is client
    done.set()
    server.join()
    assert info.get("peercert", None) == certificate
    assert info.get("cipher", None) == cipher
