"""TLS without I/O, against Python's own `ssl.SSLSocket` and OpenSSL's own command."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from muxado.secured import Secured
from tests.certificates import Tls
from tests.patience import patience

from .contract.background import background

DATA = bytes(range(256)) * 1024
# What one read of the socket brings: records in one piece and in several, and cut in their headers.
READS = [3, 1000, 16 * 1024, 256 * 1024]


class Client:
    """A client whose socket blocks."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, read_size: int) -> None:
        self.secured = Secured(context, server_side=False, name="localhost")
        self.sock = sock
        self.read_size = read_size

    def pump(self) -> None:
        """Send what there is, and feed what comes."""
        if output := self.secured.output():
            self.sock.sendall(output)
        self.secured.feed(self.sock.recv(self.read_size))

    def handshake(self) -> None:
        while not self.secured.do_handshake():
            self.pump()
        self.sock.sendall(self.secured.output())

    def read(self, count: int) -> bytes:
        """Read so many bytes, or to the end."""
        received = bytearray()
        buffer = memoryview(bytearray(10_000))
        while len(received) < count and not self.secured.ended:
            taken = self.secured.read_into(buffer[: count - len(received)])
            received += buffer[:taken]
            if not taken and not self.secured.ended:
                self.pump()
        return bytes(received)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        for sock in (here, there):
            sock.settimeout(patience(30))
        yield here, there


@pytest.mark.parametrize("read_size", READS)
def test_what_a_peer_sends_back(
    tls: Tls, pair: tuple[socket.socket, socket.socket], read_size: int
) -> None:
    here, there = pair

    def serve() -> None:
        with tls.server.wrap_socket(there, server_side=True, suppress_ragged_eofs=False) as secured:
            received = bytearray()
            while len(received) < len(DATA):
                received += secured.recv(100_000)
            secured.sendall(received)
            assert secured.recv(1) == b""  # a close_notify, or this raises

    client = Client(here, tls.client, read_size)
    with background(serve) as served:
        client.handshake()
        here.sendall(client.secured.encrypt(DATA))
        assert client.read(len(DATA)) == DATA
        client.secured.unwrap()
        here.sendall(client.secured.output())
        here.shutdown(socket.SHUT_WR)
        served.result()


def test_the_end_of_the_connection_is_the_end(
    tls: Tls, pair: tuple[socket.socket, socket.socket]
) -> None:
    here, there = pair

    def serve() -> None:
        with tls.server.wrap_socket(there, server_side=True) as secured:
            secured.sendall(b"last words")  # and no close_notify

    client = Client(here, tls.client, 1000)
    with background(serve):
        client.handshake()
        assert client.read(1000) == b"last words"
        assert client.secured.ended


def test_what_is_no_tls_breaks_the_handshake(
    tls: Tls, pair: tuple[socket.socket, socket.socket]
) -> None:
    here, there = pair
    there.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    client = Client(here, tls.client, 1000)
    with pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER"):
        client.handshake()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl command")
def test_new_keys_are_taken_and_given(tls: Tls, tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    issued = tls.authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    command = ["openssl", "s_server", "-accept", "0", "-cert", str(certificate)]
    with subprocess.Popen(
        [*command, "-key", str(certificate), "-num_tickets", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            listening = next(line for line in server.stdout if line.startswith("ACCEPT"))
            port = int(listening.rsplit(":", 1)[1])
            with socket.create_connection(("localhost", port), timeout=patience(30)) as sock:
                client = Client(sock, tls.client, 1000)
                client.handshake()
                sock.sendall(client.secured.encrypt(b"before\n"))
                assert "before\n" in server.stdout
                server.stdin.write("K\n")  # new keys of the server's, and it asks for ours
                server.stdin.flush()
                client.pump()  # it is what comes, as there are no tickets
                server.stdin.write("under new keys\n")
                server.stdin.flush()
                assert client.read(15) == b"under new keys\n"
                sock.sendall(client.secured.encrypt(b"so are these\n"))
                assert "so are these\n" in server.stdout
        finally:
            server.kill()
