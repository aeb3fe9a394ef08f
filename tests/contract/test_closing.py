"""An orderly close loses nothing that was written, whatever the peer does meanwhile."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from contextlib import suppress

import pytest

import muxado
from muxado import Config
from muxado.wire import MUXADO_V2
from tests.certificates import Tls

from .background import background
from .conftest import FRONT_ENDS, Place
from .sides import PATIENCE, FrontEnd, Side
from .slow_peer import SlowPeer

MIB = 1024 * 1024
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

Contexts = tuple[ssl.SSLContext | None, ssl.SSLContext | None]


@pytest.fixture(params=["plain", *VERSIONS])
def contexts(request: pytest.FixtureRequest, tls: Tls) -> Contexts:
    """The client's and the server's."""
    if request.param == "plain":
        return None, None
    server = tls.new_server()
    server.maximum_version = VERSIONS[request.param]
    return tls.client, server


@pytest.mark.parametrize("talk", ["credit", "bulk"])
@pytest.mark.parametrize("name", FRONT_ENDS)
def test_all_arrives_at_a_slow_reader_that_keeps_writing(
    front_ends: dict[str, FrontEnd], name: str, contexts: Contexts, talk: str
) -> None:
    client, server = contexts
    peer = SlowPeer(server, talk)
    data = random.Random(1).randbytes(MIB)
    config = Config(initial_window=4 * MIB, close_timeout=PATIENCE)
    with background(peer.run) as running:
        with front_ends[name].connect(peer.port, client, config) as side:
            side.open().write(data)
            side.close()
            side.wait_closed()
        outcome = running.result(PATIENCE)
    assert len(outcome.data) == len(data)
    assert outcome.data == data
    if name != "asyncio" or client is None:
        assert outcome.end == "end"  # asyncio's TLS sends no close_notify if data comes


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_all_arrives_at_a_session_that_reads_slowly_and_keeps_writing(
    front_ends: dict[str, FrontEnd], name: str, contexts: Contexts
) -> None:
    place = Place(front_ends[name], front_ends["asyncio"], *contexts)
    data = random.Random(2).randbytes(MIB)
    with place.connected(initial_window=64 * 1024, close_timeout=PATIENCE) as (client, server):
        stream = client.open()
        stream.write(data)
        stream.write_eof()
        with background(close, client):
            far = server.accept()
            arrived = bytearray()
            while piece := far.read(10_000):
                arrived += piece
                with suppress(muxado.MuxadoError):  # the session ends before its reader does
                    server.open().write(bytes(10_000))
        assert arrived == data


def close(side: Side) -> None:
    side.close()
    side.wait_closed()


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_abort_does_not_wait_for_a_peer_that_reads_nothing(
    front_ends: dict[str, FrontEnd], name: str, contexts: Contexts
) -> None:
    client, server = contexts
    with socket.create_server(("127.0.0.1", 0)) as listener:
        granted, aborted = threading.Event(), threading.Event()

        def peer() -> None:
            sock, _ = listener.accept()
            sock.settimeout(PATIENCE)
            if server is not None:
                sock = server.wrap_socket(sock, server_side=True)
            with sock:
                assert sock.recv(8)  # the first stream
                sock.sendall(MUXADO_V2.encoder.credit(3, 1 << 28))
                granted.set()
                assert aborted.wait(2 * PATIENCE)

        port = listener.getsockname()[1]
        config = Config(close_timeout=100 * PATIENCE)
        with background(peer) as running, front_ends[name].connect(port, client, config) as side:
            stream = side.open(eager=True)
            assert granted.wait(PATIENCE)
            stream.write(bytes(32 * MIB))  # more than the kernel takes
            side.abort(7)
            side.wait_closed()
            aborted.set()
            running.result(PATIENCE)
            reason = side.close_reason
            assert reason is not None
            assert (reason.code, reason.by_peer) == (7, False)
