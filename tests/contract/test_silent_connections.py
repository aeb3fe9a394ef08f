"""Listeners with TLS, and connections that withhold their hello."""

from __future__ import annotations

import contextlib
import logging
import resource
import select
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib import import_module

import pytest

from muxado import Config
from muxado.endpoint import MOST_PENDING
from tests.certificates import Tls

from .conftest import FRONT_ENDS
from .sides import PATIENCE, FrontEnd

SILENT = 600
FRIENDS = 25


@pytest.fixture(params=FRONT_ENDS)
def front_end(request: pytest.FixtureRequest, front_ends: dict[str, FrontEnd]) -> FrontEnd:
    return front_ends[request.param]


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Allow as many descriptors as the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(autouse=True)
def no_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no silent connection go because its time is up."""
    for name in ("asyncio.acceptor", "sync.acceptor", "trio.acceptor"):
        monkeypatch.setattr(import_module(f"muxado.{name}"), "HANDSHAKE_TIMEOUT", 1000.0)


def dialled(port: int, said: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sock.sendall(said)
    return sock


def living(socks: list[socket.socket]) -> int:
    """Return how many connections the listener has not given up."""
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN)
    return len(socks) - len(poll.poll(0))


@pytest.mark.parametrize("said", [b"", b"\x16\x03"], ids=["nothing", "the start of a hello"])
def test_connections_that_say_nothing_keep_no_friend_out(
    front_end: FrontEnd, tls: Tls, descriptors: None, said: bytes
) -> None:
    with front_end.listen(tls.server, Config()) as listener, ExitStack() as stack:
        silent = [stack.enter_context(dialled(listener.port, said)) for _ in range(SILENT)]
        for _ in range(FRIENDS):
            sock = stack.enter_context(dialled(listener.port))
            stack.enter_context(tls.client.wrap_socket(sock, server_hostname="localhost"))
            listener.accept().abort()
        # Each of those that are left is in its handshake: what is held is bounded.
        assert living(silent) <= MOST_PENDING


def test_a_friend_that_has_begun_to_speak_is_not_given_up_for_silent_ones(
    front_end: FrontEnd, tls: Tls, descriptors: None
) -> None:
    with front_end.listen(tls.server, Config()) as listener, ExitStack() as stack:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secured = tls.client.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            secured.do_handshake()
        hello = outgoing.read()
        friend = stack.enter_context(dialled(listener.port, hello[:10]))
        for _ in range(SILENT):
            stack.enter_context(dialled(listener.port))
        friend.sendall(hello[10:])
        while True:
            incoming.write(friend.recv(65536))
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                continue
            break
        friend.sendall(outgoing.read())
        listener.accept().abort()


def test_a_plain_client_at_a_tls_port_is_told_at_both_ends(
    front_end: FrontEnd, tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "muxado")
    with (
        front_end.listen(tls.server, Config()) as listener,
        front_end.connect(listener.port, None, Config()) as client,
    ):
        client.open(eager=True)
        client.wait_closed()
        reason = client.close_reason
        assert reason is not None
        assert "does it expect TLS?" in reason.message
    assert "the client speaks no TLS" in caplog.text


def test_a_tls_client_is_not_asked_whether_the_peer_expects_tls(
    front_end: FrontEnd, tls: Tls
) -> None:
    def leave() -> None:
        sock, _ = listener.accept()
        tls.server.wrap_socket(sock, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:
        leaving = pool.submit(leave)
        with front_end.connect(listener.getsockname()[1], tls.client, Config()) as client:
            leaving.result(PATIENCE)
            client.wait_closed()
            reason = client.close_reason
        assert reason is not None
        assert reason.by_peer
        assert "expect TLS" not in reason.message


def test_a_plain_client_of_another_protocol_is_named_in_the_log(
    front_end: FrontEnd, tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "muxado")
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with (
        front_end.listen(tls.server, Config()) as listener,
        dialled(listener.port, request) as sock,
        contextlib.suppress(ConnectionResetError),
    ):
        sock.recv(100)
    assert "the client speaks HTTP" in caplog.text
