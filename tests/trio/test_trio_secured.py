"""TLS under a session, many records at a time, against Python's own `ssl.SSLSocket`."""

from __future__ import annotations

import socket
import ssl

import pytest
import trio

from muxado.trio.secured import SecuredStream, secure
from tests.certificates import Tls
from tests.patience import patience

DATA = bytes(range(256)) * 8192  # 2 MiB: more than sockets hold


def serve(sock: socket.socket, context: ssl.SSLContext) -> None:
    """Send back what comes, when all is there, and wait for the close_notify."""
    sock.settimeout(patience(30))
    with context.wrap_socket(sock, server_side=True) as secured:
        received = bytearray()
        while len(received) < len(DATA):
            received += secured.recv(100_000)
        secured.sendall(received)
        assert secured.recv(1) == b""


async def test_what_a_peer_of_the_standard_library_sends_back(tls: Tls) -> None:
    here, there = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(here))
    secured = secure(stream, tls.client, name="localhost")
    assert isinstance(secured, SecuredStream)
    async with trio.open_nursery() as nursery, secured:
        nursery.start_soon(trio.to_thread.run_sync, serve, there, tls.server)
        await secured.do_handshake()
        assert secured.version() == "TLSv1.3"
        await secured.send_all(DATA)
        received = bytearray()
        while len(received) < len(DATA):
            received += await secured.receive_some(300_000)
        assert received == DATA
        await secured.send_eof()
        assert not await secured.receive_some()


async def test_a_peer_that_speaks_no_tls_breaks_the_handshake(tls: Tls) -> None:
    here, there = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(here))
    async with secure(stream, tls.client, name="localhost") as secured:
        with there:
            there.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            with pytest.raises(trio.BrokenResourceError) as failure:
                await secured.do_handshake()
    assert isinstance(failure.value.__cause__, ssl.SSLError)
