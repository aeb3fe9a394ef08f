"""How WebSockets begin and end for threads and trio, against peers that know nothing of sessions.

The peers are the library `websockets` and bare sockets; asyncio's are in `test_websockets.py`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import websockets.sync.client
import websockets.sync.server
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

import muxado
import muxado.sync
import muxado.trio
from muxado import Config
from muxado.carriers.errors import HandshakeRefused, WebSocketLost
from muxado.carriers.websockets import sync as for_threads
from muxado.carriers.websockets import trio as for_trio
from tests.carriers.test_websockets import FIN, GREETING, HELLO
from tests.certificates import Tls
from tests.contract.sides import PATIENCE, FrontEnd, ListenerSide, Side
from tests.servers import microsocks, tinyproxy

OURS = ("sync", "trio")
CLOSE = b"\x88\x82" + bytes(4) + b"\x03\xe8"  # code 1000, masked


@pytest.fixture(params=OURS)
def front_end(request: pytest.FixtureRequest, web_front_ends: dict[str, FrontEnd]) -> FrontEnd:
    return web_front_ends[request.param]


@pytest.fixture
def listener(front_end: FrontEnd) -> Iterator[ListenerSide]:
    with front_end.listen(None, Config()) as listener:
        yield listener


@contextmanager
def raw_client(port: int) -> Iterator[websockets.sync.client.ClientConnection]:
    """Dial as a program that uses the library `websockets` and knows nothing of sessions."""
    with websockets.sync.client.connect(
        f"ws://127.0.0.1:{port}/mux",
        subprotocols=[Subprotocol("muxado.v2")],
        close_timeout=PATIENCE,
    ) as websocket:
        yield websocket


@contextmanager
def raw_server(handler: Any, **options: Any) -> Iterator[int]:
    """Listen by the library `websockets`; give the port."""
    with websockets.sync.server.serve(
        handler, "127.0.0.1", 0, subprotocols=[Subprotocol("muxado.v2")], **options
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()


def reason_of(side: Side) -> muxado.CloseReason:
    side.wait_closed()
    assert side.close_reason is not None
    return side.close_reason


def dial(name: str, url: str, **options: Any) -> None:
    """Dial and hang up."""
    if name == "sync":
        for_threads.connect(url, **options).abort()
        return

    async def by_trio() -> None:
        async with for_trio.connect(url, **options):
            pass

    trio.run(by_trio)


# The handshake


def test_both_ends_know_the_headers_and_the_peer(
    front_end: FrontEnd, listener: ListenerSide, tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "muxado")
    headers = {"Authorization": "Bearer secret"}
    with front_end.connect(listener.port, None, Config(), headers=headers) as client:  # type: ignore[call-arg]
        server = listener.accept()
        near, far = client.session, server.session  # type: ignore[attr-defined]
        assert far.get_extra_info("headers")["authorization"] == "Bearer secret"
        assert far.get_extra_info("path") == "/mux?token=secret"
        assert near.get_extra_info("headers")["upgrade"] == "websocket"
        for session in (near, far):
            assert session.get_extra_info("subprotocol") == "muxado.v2"
        assert far.remote_address[:2] == near.local_address[:2]
    assert caplog.records
    assert "secret" not in caplog.text


def test_the_certificate_is_verified_and_known(front_end: FrontEnd, tls: Tls) -> None:
    with front_end.listen(tls.server, Config()) as listener:
        with pytest.raises(ssl.SSLCertVerificationError):
            dial(front_end.name, f"wss://127.0.0.1:{listener.port}/")
        with front_end.connect(listener.port, tls.client, Config()) as client:
            assert client.session.get_extra_info("peercert")  # type: ignore[attr-defined]
            assert client.session.get_extra_info("cipher")  # type: ignore[attr-defined]
            listener.accept()


def test_a_web_page_and_another_subprotocol_are_refused(
    front_end: FrontEnd, listener: ListenerSide
) -> None:
    url = f"ws://127.0.0.1:{listener.port}/mux"
    with pytest.raises(HandshakeRefused) as refused:
        dial(front_end.name, url, headers={"Origin": "https://evil.example"})
    assert refused.value.status == 403
    with pytest.raises(InvalidStatus):
        websockets.sync.client.connect(url, subprotocols=[Subprotocol("chat")])
    with raw_client(listener.port) as websocket:
        assert websocket.protocol.extensions == []
        assert websocket.subprotocol == "muxado.v2"


@pytest.mark.parametrize("name", OURS)
def test_a_refusal_has_its_status_and_pause(name: str) -> None:
    def refuse(websocket: websockets.sync.server.ServerConnection, _: Request) -> Response:
        response = websocket.respond(503, "later")
        response.headers["Retry-After"] = "7"
        return response

    with (
        raw_server(lambda websocket: None, process_request=refuse) as port,
        pytest.raises(HandshakeRefused) as refused,
    ):
        dial(name, f"ws://127.0.0.1:{port}/")
    assert (refused.value.status, refused.value.retry_after) == (503, 7.0)


@pytest.mark.parametrize("name", OURS)
def test_a_server_that_says_nothing_is_given_up(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(TimeoutError, match="no session"):
            dial(name, url, timeout=0.2)


@pytest.mark.parametrize("dial", [for_threads.connect, for_trio.connect])
def test_bad_arguments_are_told_at_once(dial: Any) -> None:
    for url, options in (
        ("http://host/", {}),
        ("ws://host:99999/?token=secret", {}),
        ("ws://host/", {"ssl": True}),
        ("ws://host/", {"headers": {"X": "a\r\nb"}}),
    ):
        with pytest.raises(muxado.UsageError) as caught:
            dial(url, **options)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", OURS)
def test_a_dialer_waits_as_long_as_the_server_asks_for(name: str) -> None:
    with raw_server(lambda websocket: websocket.close(1013, "60")) as port:
        url = f"ws://127.0.0.1:{port}/"
        if name == "sync":
            waiting = threading.Event()
            dialer = muxado.sync.Dialer(
                dial=lambda: for_threads.connect(url),
                on_change=lambda state: waiting.set() if state == "waiting" else None,
            )
            with dialer:
                assert waiting.wait(PATIENCE)
                next_try, now = dialer.state.next_try, time.monotonic()
        else:

            async def by_trio() -> tuple[float | None, float]:
                waiting = trio.Event()
                dialer = muxado.trio.Dialer(
                    dial=lambda: for_trio.connect(url),
                    on_change=lambda state: waiting.set() if state == "waiting" else None,
                )
                async with dialer:
                    with trio.fail_after(PATIENCE):
                        await waiting.wait()
                    return dialer.state.next_try, trio.current_time()

            next_try, now = trio.run(by_trio)
        assert next_try is not None
        assert next_try - now > 30


@pytest.mark.parametrize("run", [tinyproxy, microsocks])
def test_a_websocket_goes_through_a_real_proxy(
    front_end: FrontEnd, run: Any, tls: Tls, tmp_path: Path
) -> None:
    with run(tmp_path) as proxy, front_end.listen(tls.server, Config()) as listener:
        url = f"wss://127.0.0.1:{listener.port}/"
        dial(front_end.name, url, ssl=tls.client, proxy=proxy)
        listener.accept().wait_closed()


# Ends


def test_text_is_an_error_that_says_so(listener: ListenerSide) -> None:
    with raw_client(listener.port) as websocket:
        side = listener.accept()
        websocket.send("hello")
        failure = reason_of(side).exception
        assert isinstance(failure, muxado.ProtocolError)
        assert "text message" in str(failure)
        with pytest.raises(ConnectionClosed):
            websocket.recv(PATIENCE)
        assert websocket.close_code == 1003


@pytest.mark.parametrize("code", [1011, 1012, 1013])
def test_a_code_that_is_no_orderly_end_is_a_loss(listener: ListenerSide, code: int) -> None:
    with raw_client(listener.port) as websocket:
        side = listener.accept()
        websocket.close(code)
        lost = reason_of(side).exception
        assert isinstance(lost, WebSocketLost)
        assert (lost.code, lost.retry_after) == (code, 5.0 if code == 1013 else None)
        assert lost.errno == errno.ECONNRESET  # one without would count as a signal handler's


def test_an_orderly_close_ends_the_session_without_an_error(listener: ListenerSide) -> None:
    with raw_client(listener.port) as websocket:
        side = listener.accept()
        websocket.send(bytes.fromhex("0000083000000000 0000000000000000"))  # GOAWAY
        websocket.close(1000)
        reason = reason_of(side)
        assert (reason.code, reason.by_peer, reason.exception) == (0, True, None)
        assert websocket.close_code == 1000


def test_an_aborted_session_reaches_the_socket_at_once(front_end: FrontEnd) -> None:
    """The peer answers no close frame, and its socket ends all the same."""
    with (
        front_end.listen(None, Config(close_timeout=1000)) as listener,
        socket.create_connection(("127.0.0.1", listener.port), PATIENCE) as sock,
    ):
        sock.sendall(GREETING)
        side = listener.accept()
        side.abort()
        assert received(sock).endswith(b"\x88\x02\x03\xf3")  # a close frame with 1011
        side.wait_closed()


def test_a_peer_that_answers_no_close_frame_is_left_after_a_while(front_end: FrontEnd) -> None:
    with (
        front_end.listen(None, Config(close_timeout=0.1)) as listener,
        socket.create_connection(("127.0.0.1", listener.port), PATIENCE) as sock,
    ):
        sock.sendall(GREETING)
        side = listener.accept()
        side.close()
        side.wait_closed()
        received(sock)


def test_pings_are_answered_and_unread_answers_end_the_session(listener: ListenerSide) -> None:
    with raw_client(listener.port) as websocket:
        listener.accept()
        assert websocket.ping().wait(PATIENCE)
    with socket.create_connection(("127.0.0.1", listener.port), PATIENCE) as sock:
        sock.sendall(GREETING)
        side = listener.accept()
        ping = b"\x89\xfd\0\0\0\0" + bytes(125)
        with contextlib.suppress(ConnectionError):
            while not side.closed:
                sock.sendall(ping * 1000)
        assert "pings" in str(reason_of(side).exception)


def test_a_message_may_come_in_fragments_and_empty_ones_mean_nothing(
    listener: ListenerSide,
) -> None:
    with raw_client(listener.port) as websocket:
        side = listener.accept()
        websocket.send(b"")
        websocket.send(bytes([each]) for each in HELLO + FIN)
        assert side.accept().read_all() == b"hello"


def test_a_connection_may_be_cut_at_every_byte(front_end: FrontEnd) -> None:
    frames = b"".join(bytes((0x82, 0x80 | len(frame))) + bytes(4) + frame for frame in (HELLO, FIN))
    said = GREETING + frames + CLOSE
    with front_end.listen(None, Config()) as listener:
        for count in range(len(said) + 1):
            with socket.create_connection(("127.0.0.1", listener.port), PATIENCE) as sock:
                sock.sendall(said[:count])
                sock.shutdown(socket.SHUT_WR)
                received(sock)
            if count >= len(GREETING):
                listener.accept().wait_closed()


def received(sock: socket.socket) -> bytes:
    """Return all that comes until the end, in whichever way that comes."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    return data
